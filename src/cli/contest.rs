//! What verbs share that run variants until a verdict: when to stop, what is shown meanwhile and at the end, and what the exit code says. Never chooses what is run.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::hold::Stage;
use super::options::{OutputOptions, level, share};
use super::recorder::Recorder;
use super::verdict::Outlet;
use super::{Usage, verdict};
use crate::compare::{self, Judge, Judgement, Trial};
use crate::machine::Roots;
use crate::report::comparison::{self, Judged};
use crate::report::text;
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Tally, Workload};
use crate::sample::{Record, Warning};
use crate::stats::comparison::{Gate, Verdict};
use crate::stats::sequential::{LOOKS, Rule};
use crate::unit::Unit;

/// What decides, and what is made of the verdict.
#[derive(Debug, Args)]
#[command(next_help_heading = "Verdict")]
pub(super) struct ContestOptions {
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

    /// Let the exit code tell the verdict.
    #[arg(long)]
    gate: bool,

    /// Write the verdicts to FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    verdict: Option<PathBuf>,

    /// Write the tables to FILE, as markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// How many rounds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounds {
    /// So many, and one look at the end.
    Exactly(u64),
    /// As many as a decision takes, with looks on the way; at most so many, if the user says so.
    AsNeeded(Option<u64>),
}

/// A contest of variants that were made ready to be run.
pub(super) struct Contest<'a> {
    pub(super) options: &'a ContestOptions,
    pub(super) output: &'a OutputOptions,
    pub(super) seed: u64,
    pub(super) rounds: Rounds,
    /// No round begins after so long.
    pub(super) time: Option<Duration>,
    pub(super) warmup: u64,
    /// For the header.
    pub(super) facts: Vec<(String, String)>,
    /// About the whole run.
    pub(super) doubts: Vec<Warning>,
}

impl Contest<'_> {
    /// Runs it, tells what came of it, and gives the exit code. `valid` is asked at the end
    /// whether what was run was what was to be run.
    pub(super) fn run(
        self,
        stage: &Stage,
        workloads: &mut [Box<dyn Workload + '_>],
        interrupt: &Interrupt,
        valid: &dyn Fn() -> Result<(), run::Error>,
    ) -> anyhow::Result<u8> {
        let chosen = self.options.chosen()?;
        let names = workloads
            .iter()
            .map(|workload| workload.variant().to_owned());
        let trial = RefCell::new(Trial::of(names));
        let judge = self.judge();
        let limits = Limits {
            rounds: self.most_rounds(),
            time: self.time,
        };
        let mut schedule = Schedule::new(self.seed, workloads.len(), limits);
        let enough = schedule.enough();
        let outlets = Outlets::create(self.options)?;
        let mut recorder = Recorder::open(self.output)?;
        recorder.fact(compare::STOP_RULE, self.rule_text());
        let names: Vec<&str> = workloads
            .iter()
            .map(|workload| workload.variant())
            .collect();
        recorder.fact(compare::VARIANTS, serde_json::to_string(&names)?);
        for (key, value) in &self.facts {
            recorder.fact(key, value.clone());
        }
        recorder
            .begin(self.seed, stage, self.doubts.clone())
            .map_err(run::Error::Output)?;
        let live = Live::new(self.output);
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
                let judged = judged(&trial, &judge, &chosen, false);
                judged.iter().for_each(|one| live.show(&trial, one));
                // Who fails at first may do better; who goes on failing ends it all.
                let silent = trial.variants().iter().any(|runs| runs.runs == 0);
                let by_gate = self.options.gate;
                let needs_more = |one: &Judged| {
                    let mut variants = one.variants.iter().flatten();
                    variants.any(|found| judge.needs_more(&one.unit, found, by_gate))
                };
                let open = silent || judged.iter().any(needs_more);
                enough.set(matches!(self.rounds, Rounds::AsNeeded(_)) && !open);
            }
            recorder.take(record)
        };
        let driven = run::drive(
            &mut schedule,
            self.warmup,
            workloads,
            interrupt,
            &mut noise,
            &mut sink,
        );
        live.clear();
        let driven = driven.and_then(|tally| valid().map(|()| tally));
        let trial = trial.into_inner();
        let judged = judged(&trial, &judge, &chosen, true);
        let (stream, ended) = recorder.finish(driven);
        self.tell(&trial, &judged)?;
        if !self.output.quiet && stream.failed > 0 {
            super::print_aside(&text::failures(&stream))?;
        }
        let tally = ended?;
        outlets.write(&trial, &judged)?;
        Ok(self.code(&tally, &judged))
    }

    fn judge(&self) -> Judge {
        Judge {
            rule: match self.rounds {
                Rounds::Exactly(_) => Rule::fixed(self.options.alpha),
                Rounds::AsNeeded(_) => Rule::sequential(self.options.alpha),
            },
            margin: self.options.margin,
        }
    }

    fn rule_text(&self) -> String {
        let alpha = self.options.alpha;
        match self.rounds {
            Rounds::Exactly(runs) => format!("fixed {runs} alpha {alpha}"),
            Rounds::AsNeeded(_) => format!("sequential alpha {alpha}"),
        }
    }

    /// Void and failed runs are made up for, within reason.
    fn most_rounds(&self) -> u64 {
        let ladder = LOOKS[LOOKS.len() - 1] as u64;
        match self.rounds {
            Rounds::Exactly(runs) | Rounds::AsNeeded(Some(runs)) => runs,
            Rounds::AsNeeded(None) => ladder + ladder / 2,
        }
    }

    fn tell(&self, trial: &Trial, judged: &[Judged]) -> anyhow::Result<()> {
        let to_stdout = self.output.records_to_stdout();
        let is_empty = trial.units().next().is_none();
        if is_empty || self.output.quiet || to_stdout && !self.output.table {
            return Ok(());
        }
        let width = super::columns();
        let text = comparison::trial(trial, judged, text::Style { width });
        match to_stdout {
            true => super::print_aside(&text),
            false => super::print(&text),
        }
    }

    fn code(&self, tally: &Tally, judged: &[Judged]) -> u8 {
        if let Some(signal) = tally.interrupted {
            return 128 + signal as u8;
        }
        match self.options.gate {
            true => verdict::code(gate(judged)),
            false => 0,
        }
    }
}

/// The files that a verdict goes to.
struct Outlets {
    verdict: Option<Outlet>,
    markdown: Option<Outlet>,
}

impl Outlets {
    fn create(options: &ContestOptions) -> anyhow::Result<Outlets> {
        let create = |path: &Option<PathBuf>| path.as_deref().map(Outlet::create).transpose();
        Ok(Outlets {
            verdict: create(&options.verdict)?,
            markdown: create(&options.markdown)?,
        })
    }

    /// Writes them, and tells GitHub where that runs us.
    fn write(self, trial: &Trial, judged: &[Judged]) -> anyhow::Result<()> {
        if let Some(outlet) = self.verdict {
            let all = judged.iter().flat_map(|one| {
                (0..one.variants.len()).map(move |at| comparison::json(trial, one, at))
            });
            outlet.write(&verdict::document(gate(judged), all.collect())?)?;
        }
        let markdown = comparison::markdown(trial, judged);
        if let Some(outlet) = self.markdown {
            outlet.write(&markdown)?;
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
}

impl ContestOptions {
    /// Whether anything is wanted of a verdict.
    pub(super) fn asks_for_verdict(&self) -> bool {
        self.gate || self.verdict.is_some() || self.markdown.is_some() || self.margin.is_some()
    }

    fn chosen(&self) -> Result<Vec<Unit>, Usage> {
        let unit = |name: &String| {
            let named = Unit::new(name.as_str());
            named.map_err(|error| Usage::new(format!("--by {name}: {error}")))
        };
        self.by.iter().map(unit).collect()
    }
}

/// The chosen units, judged as one family; with `all`, the others too, each judged by itself.
fn judged(trial: &Trial, judge: &Judge, chosen: &[Unit], all: bool) -> Vec<Judged> {
    let one = |unit: &Unit, is_chosen| Judged {
        unit: unit.clone(),
        is_chosen,
        variants: trial.judge(judge, unit),
    };
    let mut judged: Vec<Judged> = chosen.iter().map(|unit| one(unit, true)).collect();
    let family = judged
        .iter_mut()
        .flat_map(|one| one.variants.iter_mut().flatten());
    compare::as_family(&mut family.collect::<Vec<_>>(), judge);
    let others = trial.units().filter(|unit| !chosen.contains(unit));
    let others = others.filter(|unit| all && !run::is_aside(unit));
    judged.extend(others.map(|unit| one(unit, false)));
    judged
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
                    let change = comparison::change(&one.unit, &judgement.comparison);
                    format!("{word} by {change}")
                });
            let message = format!("{}, {}: {what}", runs.name, one.unit);
            text += &format!("::{kind}::{}\n", escaped(&message));
        }
    }
    text
}

/// `message` as GitHub's workflow commands take it.
fn escaped(message: &str) -> String {
    message
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The state of the trial on a terminal.
struct Live(Option<ProgressBar>);

impl Live {
    fn new(output: &OutputOptions) -> Live {
        if output.quiet || !io::stderr().is_terminal() {
            return Live(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
            bar.set_style(style);
        }
        Live(Some(bar))
    }

    fn show(&self, trial: &Trial, judged: &Judged) {
        let Some(bar) = &self.0 else { return };
        let unit = &judged.unit;
        let one = |(runs, judgement): (&compare::Runs, &Option<Judgement>)| {
            let judgement = judgement.as_ref()?;
            let change = comparison::change(unit, &judgement.comparison);
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
        let lines: Vec<String> = others.zip(&judged.variants).filter_map(one).collect();
        bar.set_message(lines.join("; "));
        bar.tick();
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
