//! `poise ab`: runs variants of one workload side by side until it is certain whether something changed. Never compares what was not measured in the same rounds.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};

use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, verdict};
use crate::compare::{self, Judge, Judgement, Trial, percent};
use crate::machine::Roots;
use crate::report::comparison::{self, Judged};
use crate::report::text;
use crate::run::command::{self, Command, Output};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Tally, Workload};
use crate::sample::{Name, Record};
use crate::stats::comparison::{Gate, Verdict};
use crate::stats::sequential::{LOOKS, Rule};
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "task-clock,minor-faults,context-switches,cycles,instructions,\
                              instructions:u,branch-misses";

/// Compare commands by interleaved runs, until it is certain whether something changed
#[derive(Debug, Args)]
#[command(
    after_help = "Every round runs each variant once, in an order drawn from the seed; the first variant is the \
control. With --gate the exit code is 0 when all chosen units improved or are equivalent, 3 when one \
regressed beyond the margin, 4 when one is undecided."
)]
pub(super) struct Arguments {
    /// The commands, each as one word: 'gcc -O1 -c main.c' 'gcc -O2 -c main.c'.
    #[arg(value_name = "COMMAND")]
    commands: Vec<String>,

    /// A variant with a name: --variant old='./old --bench'.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = variant)]
    variant: Vec<(String, String)>,

    /// A variant for each value, in the place of {NAME} in the one command behind --.
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = parameter, requires = "template", conflicts_with_all = ["commands", "variant"])]
    param: Option<(String, Vec<String>)>,

    /// The units that decide.
    #[arg(
        long,
        value_name = "UNITS",
        value_delimiter = ',',
        default_value = "sec/op"
    )]
    by: Vec<String>,

    /// The change that still counts as none. By default 2 %, and 0.1 % of what hardly varies.
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    margin: Option<f64>,

    /// The share of comparisons without any change that may be called changed.
    #[arg(long, value_name = "LEVEL", default_value = "0.05", value_parser = level)]
    alpha: f64,

    /// Run exactly N rounds instead of as many as a decision takes.
    #[arg(short = 'r', long, visible_alias = "repeat", value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    runs: Option<u64>,

    /// Begin no new round after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    max_time: Option<Duration>,

    /// Run at most N rounds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000), conflicts_with = "runs")]
    max_runs: Option<u64>,

    /// Run N rounds before those that count.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u64,

    /// Let the exit code tell the verdict.
    #[arg(long)]
    gate: bool,

    /// Write the verdicts to FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    verdict: Option<PathBuf>,

    /// Write the tables to FILE, as markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    #[command(flatten)]
    events: EventOptions,

    /// Run this shell command before every run, uncounted.
    #[arg(long, value_name = "COMMAND")]
    prepare: Option<String>,

    /// End a run after this long, as failed.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Give each command, as one string, to /bin/sh -c.
    #[arg(long)]
    shell: bool,

    /// Call the benchmark NAME instead of the commands' program.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output: OutputOptions,

    /// The command of --param.
    #[arg(last = true, value_name = "TEMPLATE")]
    template: Vec<String>,
}

/// One of the things compared.
struct Variant {
    name: String,
    argv: Vec<OsString>,
}

/// What of a variant must not change while it runs: the program's file and its content.
#[derive(PartialEq)]
struct Binary {
    path: PathBuf,
    sha256: String,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let variants = arguments.variants()?;
    let chosen = arguments.chosen()?;
    let wanted = arguments.events.wanted(DEFAULT_EVENTS)?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::set(&arguments.hold, &arguments.child, Bound::usual, &interrupt)?;
    let (plan, mut doubts) = options::plan(&wanted, Target::Myself);
    let binaries: Vec<Option<Binary>> = variants
        .iter()
        .map(|variant| Binary::of(&variant.argv[0]))
        .collect::<Result<_, _>>()?;
    doubts.extend(same_program(&variants, &binaries));

    let name = match &arguments.name {
        Some(name) => Name::parse(name),
        None => Name::new(&program_name(&variants)),
    };
    let tick_sec = options::tick_sec(stage.surroundings.cpus.as_ref());
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for variant in &variants {
        let options = command::Options {
            argv: variant.argv.clone(),
            output: Output::Null,
            prepare: arguments.prepare.clone(),
            timeout: arguments.timeout,
            interval: None,
            surroundings: stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec,
        };
        let command = Command::new(name.clone(), &variant.name, options, &plan)?;
        workloads.push(Box::new(command));
    }

    let seed = options::seed(arguments.seed);
    let limits = Limits {
        rounds: arguments.most_rounds(),
        time: arguments.max_time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let enough = schedule.enough();
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder.fact(compare::STOP_RULE, arguments.rule_text());
    let names: Vec<&str> = variants.iter().map(|variant| &*variant.name).collect();
    recorder.fact(compare::VARIANTS, serde_json::to_string(&names)?);
    for (variant, binary) in variants.iter().zip(&binaries) {
        if let Some(binary) = binary {
            recorder.fact(
                &format!("sha256-of {}", variant.name),
                binary.sha256.clone(),
            );
        }
    }
    recorder
        .begin(seed, &stage, doubts)
        .map_err(run::Error::Output)?;

    let trial = RefCell::new(Trial::of(variants.iter().map(|v| v.name.clone())));
    let judge = arguments.judge();
    let live = Live::new(&arguments);
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    let last = workloads.len() as u32 - 1;
    let mut sink = |record: Record| {
        trial.borrow_mut().take(&record);
        let order = match &record {
            Record::Sample(sample) => Some(sample.order),
            Record::Failure(failure) => Some(failure.order),
            _ => None,
        };
        if order.is_some_and(|order| order.position == last) {
            let trial = trial.borrow();
            let is_open = |unit: &Unit| {
                let judged = trial.judge(&judge, unit);
                live.show(&trial, unit, &judged);
                arguments.is_open(&judge, &judged)
            };
            // All are looked at: each is shown.
            let open = chosen.iter().filter(|unit| is_open(unit)).count();
            enough.set(arguments.runs.is_none() && open == 0);
        }
        recorder.take(record)
    };
    let driven = run::drive(
        &mut schedule,
        arguments.warmup,
        &mut workloads,
        &interrupt,
        &mut noise,
        &mut sink,
    );
    live.clear();
    let trial = trial.into_inner();
    let judged = judged(&trial, &judge, &chosen);
    let driven = driven.and_then(|tally| {
        for (variant, binary) in variants.iter().zip(&binaries) {
            let now = Binary::of(&variant.argv[0]).ok().flatten();
            if now != *binary {
                let name = &variant.name;
                let text = format!("the program of {name} has changed while it was measured");
                return Err(run::Error::Prepare(text));
            }
        }
        Ok(tally)
    });
    let (stream, ended) = recorder.finish(driven);
    arguments.tell(&trial, &judged)?;
    if !arguments.output.quiet && stream.failed > 0 {
        super::print_aside(&text::failures(&stream))?;
    }
    let tally = ended?;
    arguments.write(&trial, &judged)?;
    Ok(arguments.code(&tally, &judged))
}

/// Every unit judged: the chosen ones as one family, the others as another.
fn judged(trial: &Trial, judge: &Judge, chosen: &[Unit]) -> Vec<Judged> {
    let others = trial.units().filter(|unit| !chosen.contains(unit));
    let units: Vec<(Unit, bool)> = chosen
        .iter()
        .map(|unit| (unit.clone(), true))
        .chain(others.map(|unit| (unit.clone(), false)))
        .collect();
    let mut judged: Vec<Judged> = units
        .into_iter()
        .map(|(unit, is_chosen)| Judged {
            variants: trial.judge(judge, &unit),
            unit,
            is_chosen,
        })
        .collect();
    for is_chosen in [true, false] {
        let family = judged.iter_mut().filter(|one| one.is_chosen == is_chosen);
        let mut family: Vec<&mut Judgement> = family
            .flat_map(|one| one.variants.iter_mut().flatten())
            .collect();
        compare::as_family(&mut family, judge);
    }
    judged
}

impl Arguments {
    fn variants(&self) -> anyhow::Result<Vec<Variant>> {
        let named = |name: String, command: &str| -> anyhow::Result<Variant> {
            let argv = match self.shell {
                true => vec!["/bin/sh".into(), "-c".into(), command.into()],
                false => split(command)?.into_iter().map(OsString::from).collect(),
            };
            Ok(Variant { name, argv })
        };
        let variants: Vec<Variant> = match &self.param {
            Some((key, values)) => {
                let hole = format!("{{{key}}}");
                if !self.template.iter().any(|word| word.contains(&hole)) {
                    let message = format!("{hole} does not stand in the command");
                    return Err(Usage::new(message).into());
                }
                let filled = |value: &String| {
                    let words = self.template.iter().map(|word| word.replace(&hole, value));
                    match self.shell {
                        true => named(
                            format!("{key}={value}"),
                            &words.collect::<Vec<_>>().join(" "),
                        ),
                        false => Ok(Variant {
                            name: format!("{key}={value}"),
                            argv: words.map(OsString::from).collect(),
                        }),
                    }
                };
                values.iter().map(filled).collect::<Result<_, _>>()?
            }
            None => {
                let with_name = self.variant.iter();
                let with_name = with_name.map(|(name, command)| named(name.clone(), command));
                let without = self.commands.iter();
                let without = without.map(|command| named(command.clone(), command));
                with_name.chain(without).collect::<Result<_, _>>()?
            }
        };
        if variants.len() < 2 {
            return Err(Usage {
                message: "it takes two variants to compare".to_owned(),
                hint: Some(
                    "quote each command: poise ab 'gcc -O1 -c x.c' 'gcc -O2 -c x.c'".to_owned(),
                ),
            }
            .into());
        }
        for (at, variant) in variants.iter().enumerate() {
            if variants[..at]
                .iter()
                .any(|other| other.name == variant.name)
            {
                return Err(Usage {
                    message: format!("two variants are called `{}`", variant.name),
                    hint: Some("tell them apart: --variant NAME=COMMAND".to_owned()),
                }
                .into());
            }
        }
        Ok(variants)
    }

    fn chosen(&self) -> Result<Vec<Unit>, Usage> {
        let unit = |name: &String| {
            let named = Unit::new(name.as_str());
            named.map_err(|error| Usage::new(format!("--by {name}: {error}")))
        };
        self.by.iter().map(unit).collect()
    }

    fn judge(&self) -> Judge {
        Judge {
            rule: match self.runs {
                Some(_) => Rule::fixed(self.alpha),
                None => Rule::sequential(self.alpha),
            },
            margin: self.margin,
        }
    }

    fn rule_text(&self) -> String {
        match self.runs {
            Some(runs) => format!("fixed {runs} alpha {}", self.alpha),
            None => format!("sequential alpha {}", self.alpha),
        }
    }

    /// Void and failed runs are made up for, within reason.
    fn most_rounds(&self) -> u64 {
        let ladder = LOOKS[LOOKS.len() - 1] as u64;
        self.runs.or(self.max_runs).unwrap_or(ladder + ladder / 2)
    }

    /// Whether a unit needs more rounds. Only a look that the rule foresees may end it.
    fn is_open(&self, judge: &Judge, judged: &[Option<Judgement>]) -> bool {
        judged.iter().any(|judgement| match judgement {
            // Nothing can be compared, now or later, when there are runs enough.
            None => false,
            Some(judgement) => {
                let pairs = judgement.comparison.counts[0];
                let is_last = pairs >= LOOKS[LOOKS.len() - 1];
                let is_exact = judgement.comparison.p.is_none();
                !is_last
                    && (!(is_exact || judge.rule.is_look(pairs)) || judgement.is_open(self.gate))
            }
        })
    }

    fn tell(&self, trial: &Trial, judged: &[Judged]) -> anyhow::Result<()> {
        let to_stdout = self.output.records_to_stdout();
        if self.output.quiet || to_stdout && !self.output.table {
            return Ok(());
        }
        let width = super::columns();
        let text = comparison::trial(trial, judged, text::Style { width });
        match to_stdout {
            true => super::print_aside(&text),
            false => super::print(&text),
        }
    }

    /// The verdicts for machines, and for GitHub where that runs us.
    fn write(&self, trial: &Trial, judged: &[Judged]) -> anyhow::Result<()> {
        if let Some(path) = &self.verdict {
            let all = judged.iter().flat_map(|one| {
                (0..one.variants.len()).map(move |at| comparison::json(trial, one, at))
            });
            verdict::write(path, gate(judged), all.collect())?;
        }
        let markdown = comparison::markdown(trial, judged);
        if let Some(path) = &self.markdown {
            fs::write(path, &markdown)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|set| set == "true") {
            if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
                let opened = File::options().append(true).create(true).open(&path);
                opened
                    .and_then(|mut file| file.write_all(markdown.as_bytes()))
                    .with_context(|| format!("cannot write {}", Path::new(&path).display()))?;
            }
            super::print_aside(&annotations(trial, judged))?;
        }
        Ok(())
    }

    fn code(&self, tally: &Tally, judged: &[Judged]) -> u8 {
        if let Some(signal) = tally.interrupted {
            return 128 + signal as u8;
        }
        match self.gate {
            true => verdict::code(gate(judged)),
            false => 0,
        }
    }
}

/// The gate of all chosen units together.
fn gate(judged: &[Judged]) -> Gate {
    let chosen = judged.iter().filter(|one| one.is_chosen);
    let judgements = chosen.flat_map(|one| &one.variants);
    compare::gate_of(judgements.map(|one| one.as_ref().map_or(Gate::Undecided, Judgement::gate)))
}

/// Lines that GitHub shows beside a change: what regressed as errors, what is undecided as
/// warnings.
fn annotations(trial: &Trial, judged: &[Judged]) -> String {
    let mut text = String::new();
    for one in judged.iter().filter(|one| one.is_chosen) {
        for (runs, judgement) in trial.variants().iter().skip(1).zip(&one.variants) {
            let kind = match judgement.as_ref().map_or(Gate::Undecided, Judgement::gate) {
                Gate::Pass => continue,
                Gate::Fail => "error",
                Gate::Undecided => "warning",
            };
            let what = judgement
                .as_ref()
                .map_or("not compared".to_owned(), |judgement| {
                    let word = comparison::word(judgement.verdict);
                    format!("{word} by {}", percent(judgement.comparison.estimate))
                });
            text += &format!("::{kind}::{}, {}: {what}\n", runs.name, one.unit);
        }
    }
    text
}

/// The state of the trial on a terminal.
struct Live(Option<ProgressBar>);

impl Live {
    fn new(arguments: &Arguments) -> Live {
        if arguments.output.quiet || !io::stderr().is_terminal() {
            return Live(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
            bar.set_style(style);
        }
        Live(Some(bar))
    }

    fn show(&self, trial: &Trial, unit: &Unit, judged: &[Option<Judgement>]) {
        let Some(bar) = &self.0 else { return };
        let one = |(runs, judgement): (&compare::Runs, &Option<Judgement>)| {
            let judgement = judgement.as_ref()?;
            let change = percent(judgement.comparison.estimate);
            let verdict = match judgement.verdict {
                Verdict::Inconclusive => "",
                verdict => comparison::word(verdict),
            };
            let basis = judgement.basis();
            Some(format!(
                "{}: {unit} {change} {verdict} ({basis})",
                runs.name
            ))
        };
        let others = trial.variants().iter().skip(1);
        let lines: Vec<String> = others.zip(judged).filter_map(one).collect();
        bar.set_message(lines.join("; "));
        bar.tick();
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Binary {
    /// The file that `program` is now; nothing when it cannot be read.
    fn of(program: &OsString) -> Result<Option<Binary>, run::Error> {
        let path = command::find_program(program)?;
        let path = PathBuf::from(OsString::from(path.to_string_lossy().into_owned()));
        let Ok(mut file) = File::open(&path) else {
            return Ok(None);
        };
        let mut hash = Sha256::new();
        let mut part = vec![0; 1 << 16];
        loop {
            match file.read(&mut part) {
                Ok(0) => break,
                Ok(read) => hash.update(&part[..read]),
                Err(_) => return Ok(None),
            }
        }
        let digest = hash.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Binary { path, sha256 }))
    }
}

/// Doubts about variants that run the same program with the same arguments.
fn same_program(variants: &[Variant], binaries: &[Option<Binary>]) -> Vec<crate::sample::Warning> {
    let mut doubts = Vec::new();
    for (at, variant) in variants.iter().enumerate() {
        let twin = (0..at).find(|&other| {
            let hash = |at: usize| binaries[at].as_ref().map(|binary| &binary.sha256);
            hash(other).is_some()
                && hash(other) == hash(at)
                && variants[other].argv[1..] == variant.argv[1..]
        });
        if let Some(twin) = twin {
            doubts.push(crate::sample::Warning(format!(
                "{} and {} are the same program, to the byte, with the same arguments",
                variants[twin].name, variant.name
            )));
        }
    }
    doubts
}

/// The name of the program that all variants run, or of the first.
fn program_name(variants: &[Variant]) -> String {
    let first = Path::new(&variants[0].argv[0]);
    let name = first.file_name().unwrap_or(first.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The words of a command, quotes and all, but without a shell's other services.
fn split(command: &str) -> Result<Vec<String>, Usage> {
    let words = shlex::split(command).ok_or_else(|| Usage {
        message: format!("`{command}` has an open quote"),
        hint: None,
    })?;
    match words.is_empty() {
        true => Err(Usage::new("a command is empty")),
        false => Ok(words),
    }
}

fn variant(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err("write NAME=COMMAND".to_owned()),
    }
}

fn parameter(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, values) = variant(text).map_err(|_| "write NAME=VALUE,VALUE".to_owned())?;
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    match values.len() {
        0 | 1 => Err("it takes two values to compare".to_owned()),
        _ => Ok((name, values)),
    }
}

/// A share such as `2%` or `0.02`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let parsed = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    parsed
        .ok()
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "write 2% or 0.02".to_owned())
}

/// A level between 0 and ½.
pub(super) fn level(text: &str) -> Result<f64, String> {
    share(text).and_then(|level| match level > 0.0 && level < 0.5 {
        true => Ok(level),
        false => Err("it lies between 0 and 0.5".to_owned()),
    })
}
