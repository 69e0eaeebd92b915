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
use super::outlet::Outlet;
use super::parts::{self, Parts};
use super::recorder::Recorder;
use super::{Usage, verdict};
use crate::compare::{self, Judge, Judgement, Tables, Trial};
use crate::machine::Roots;
use crate::report::comparison::{self, Judged};
use crate::report::summary::Stream;
use crate::report::{tables, text};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Tally, Workload};
use crate::sample::{Name, Record, Warning};
use crate::stats::comparison::{Gate, Verdict};
use crate::stats::sequential::{LOOKS, Rule};
use crate::unit::Unit;

/// What decides, and what is made of the verdict.
#[derive(Debug, Args)]
#[command(next_help_heading = "Verdict")]
pub(super) struct ContestOptions {
    /// The units that decide. By default sec/op; of a compilation, what can be had of allocs/op,
    /// B/op, instructions:u/op and sec/op.
    #[arg(long, value_name = "UNITS", value_delimiter = ',')]
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
    /// Asked at the end whether what was run was what was to be run.
    pub(super) valid: &'a dyn Fn() -> Result<(), run::Error>,
}

/// What a contest left.
pub(super) struct Played {
    /// A trial for each benchmark.
    trials: Vec<(Name, Trial)>,
    pub(super) stream: Stream,
    /// How it ended.
    pub(super) ended: Result<Tally, run::Error>,
}

impl Contest<'_> {
    /// Runs it, tells what came of it, and gives the exit code. All workloads are variants of one
    /// benchmark, which the `usual` units decide unless the user says which; its `parts` are told
    /// beside.
    pub(super) fn run(
        self,
        usual: &[&str],
        mut parts: Option<Parts>,
        stage: &Stage,
        workloads: &mut [Box<dyn Workload + '_>],
        interrupt: &Interrupt,
    ) -> anyhow::Result<u8> {
        let chosen = self.options.chosen(usual)?;
        let outlets = Outlets::create(self.options)?;
        let whole = workloads[0].benchmark().clone();
        let mut also = |record: &Record| {
            parts
                .iter_mut()
                .for_each(|parts| parts.take(record, &whole));
        };
        let played = self.play(&chosen, stage, workloads, interrupt, &mut also)?;
        let Some((_, trial)) = played.trials.first() else {
            return Ok(0);
        };
        let judged = judged(&[trial], &self.judge(), &chosen, true).remove(0);
        self.tell(trial, &judged)?;
        let parts = parts.filter(Parts::can_be_compared);
        let parts = parts.map(|parts| parts.tables(self.options)).transpose()?;
        if let Some(parts) = &parts {
            let style = text::Style {
                width: super::columns(),
            };
            let (shown, hidden) = parts::that_matter(parts);
            self.show(|| {
                let mut text = "\nin each run, a family of its own\n\n".to_owned();
                text.extend(tables::text(&shown, style));
                if hidden > 0 {
                    text += &format!("! {hidden} rows are not shown: no change, or undecided and below 2 % of all\n");
                }
                text
            })?;
        }
        self.tell_failures(&played.stream)?;
        let tally = played.ended?;
        outlets.write_trial(trial, &judged, parts.as_ref())?;
        Ok(self.code(&tally, gate(&judged)))
    }

    /// Runs it: rounds over all benchmarks, the variants of one side by side, until those of each
    /// have been judged by the `chosen` units. All that is judged is one family. `also` is given
    /// every sample and failure.
    pub(super) fn play(
        &self,
        chosen: &[Unit],
        stage: &Stage,
        workloads: &mut [Box<dyn Workload + '_>],
        interrupt: &Interrupt,
        also: &mut dyn FnMut(&Record),
    ) -> anyhow::Result<Played> {
        let (trials, blocks) = trials(workloads);
        let trials = RefCell::new(trials);
        let judge = self.judge();
        let limits = Limits {
            rounds: self.most_rounds(),
            time: self.time,
        };
        let mut schedule = Schedule::in_blocks(self.seed, blocks, limits);
        let closed = schedule.closed();
        let mut recorder = Recorder::open(self.output)?;
        let names: Vec<String> = match trials.borrow().first() {
            Some((_, trial)) => trial
                .variants()
                .iter()
                .map(|runs| runs.name.clone())
                .collect(),
            None => Vec::new(),
        };
        for (key, value) in self
            .of_contest(&names)?
            .into_iter()
            .chain(self.facts.clone())
        {
            recorder.fact(&key, value);
        }
        recorder
            .begin(self.seed, stage, self.doubts.clone())
            .map_err(run::Error::Output)?;
        let live = Live::new(self.output);
        let roots = Roots::default();
        let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
        let mut sink = |record: Record| {
            also(&record);
            if take(&mut trials.borrow_mut(), &record) {
                let trials = trials.borrow();
                let all: Vec<&Trial> = trials.iter().map(|(_, trial)| trial).collect();
                let judged = judged(&all, &judge, chosen, false);
                let is_open = |trial: &Trial, judged: &[Judged]| {
                    // Who fails at first may do better; who goes on failing ends it all.
                    let silent = trial.variants().iter().any(|runs| runs.runs == 0);
                    let by_gate = self.options.gate;
                    let needs_more = |one: &Judged| {
                        let mut variants = one.variants.iter().flatten();
                        variants.any(|found| judge.needs_more(&one.unit, found, by_gate))
                    };
                    silent || judged.iter().any(needs_more)
                };
                let mut open = 0;
                for (at, (trial, judged)) in all.iter().zip(&judged).enumerate() {
                    let is_open = is_open(trial, judged);
                    open += usize::from(is_open);
                    let enough = matches!(self.rounds, Rounds::AsNeeded(_)) && !is_open;
                    closed.set(at, enough);
                }
                match (&all[..], &judged[..]) {
                    ([trial], [judged]) => judged.iter().for_each(|one| live.show(trial, one)),
                    _ => live.show_many(&trials, &record, open),
                }
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
        let driven = driven.and_then(|tally| (self.valid)().map(|()| tally));
        let (stream, ended) = recorder.finish(driven);
        Ok(Played {
            trials: trials.into_inner(),
            stream,
            ended,
        })
    }

    /// What the header tells of every contest of variants with these names.
    pub(super) fn of_contest(&self, names: &[String]) -> anyhow::Result<[(String, String); 2]> {
        Ok([
            (compare::STOP_RULE.to_owned(), self.rule_text()),
            (compare::VARIANTS.to_owned(), serde_json::to_string(names)?),
        ])
    }

    /// Shows the runs that failed.
    pub(super) fn tell_failures(&self, stream: &Stream) -> anyhow::Result<()> {
        match !self.output.quiet && stream.failed > 0 {
            true => super::print_aside(&text::failures(stream)),
            false => Ok(()),
        }
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
        if trial.units().next().is_none() {
            return Ok(());
        }
        let style = text::Style {
            width: super::columns(),
        };
        self.show(|| comparison::trial(trial, judged, style))
    }

    /// Prints the result where the user wants it, if at all.
    pub(super) fn show(&self, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.output.records_to_stdout() {
            _ if self.output.quiet => Ok(()),
            true if !self.output.table => Ok(()),
            true => super::print_aside(&text()),
            false => super::print(&text()),
        }
    }

    /// The exit code after `tally`, whose verdicts came to `gate`.
    pub(super) fn code(&self, tally: &Tally, gate: Gate) -> u8 {
        if let Some(signal) = tally.interrupted {
            return 128 + signal as u8;
        }
        match self.options.gate {
            true => verdict::code(gate),
            false => 0,
        }
    }
}

/// A trial for each benchmark, and the places of its workloads.
fn trials(workloads: &[Box<dyn Workload + '_>]) -> (Vec<(Name, Trial)>, Vec<Vec<usize>>) {
    let mut blocks: Vec<(Name, Vec<usize>)> = Vec::new();
    for (at, workload) in workloads.iter().enumerate() {
        let name = workload.benchmark();
        match blocks.iter_mut().find(|(known, _)| known == name) {
            Some((_, block)) => block.push(at),
            None => blocks.push((name.clone(), vec![at])),
        }
    }
    let trial = |block: &[usize]| {
        let names = block.iter().map(|&at| workloads[at].variant().to_owned());
        Trial::of(names)
    };
    let made = blocks.into_iter();
    made.map(|(name, block)| ((name, trial(&block)), block))
        .unzip()
}

/// Takes a record into the trial that it belongs to; true where that is complete up to this round.
/// What tells of a part of a benchmark, such as a phase, belongs to none.
fn take(trials: &mut [(Name, Trial)], record: &Record) -> bool {
    let name = match record {
        Record::Sample(sample) => &sample.benchmark,
        Record::Failure(failure) => &failure.benchmark,
        _ => return false,
    };
    let Some((_, trial)) = trials.iter_mut().find(|(known, _)| known == name) else {
        return false;
    };
    trial.take(record);
    let outcomes = |runs: &compare::Runs| runs.runs + runs.failures;
    let mut others = trial.variants().iter().map(outcomes);
    let first = others.next();
    others.all(|runs| Some(runs) == first)
}

/// The files that a verdict goes to.
pub(super) struct Outlets {
    verdict: Option<Outlet>,
    markdown: Option<Outlet>,
}

impl Outlets {
    pub(super) fn create(options: &ContestOptions) -> anyhow::Result<Outlets> {
        let create = |path: &Option<PathBuf>| path.as_deref().map(Outlet::create).transpose();
        Ok(Outlets {
            verdict: create(&options.verdict)?,
            markdown: create(&options.markdown)?,
        })
    }

    fn write_trial(
        self,
        trial: &Trial,
        judged: &[Judged],
        parts: Option<&Tables>,
    ) -> anyhow::Result<()> {
        let all = judged.iter().flat_map(|one| {
            (0..one.variants.len()).map(move |at| comparison::json(trial, one, at))
        });
        let beside = parts
            .into_iter()
            .flat_map(|parts| verdict::of(parts, false));
        let document = verdict::document(gate(judged), all.chain(beside).collect())?;
        let mut markdown = comparison::markdown(trial, judged);
        markdown.extend(parts.map(|parts| tables::markdown(&parts::that_matter(parts).0)));
        self.write(&document, &markdown, &annotations(trial, judged))
    }

    /// Writes them, and tells GitHub where that runs us.
    pub(super) fn write(
        self,
        document: &str,
        markdown: &str,
        annotations: &str,
    ) -> anyhow::Result<()> {
        if let Some(outlet) = self.verdict {
            outlet.write(document)?;
        }
        if let Some(outlet) = self.markdown {
            outlet.write(markdown)?;
        }
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|set| set == "true") {
            if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
                let opened = File::options().append(true).create(true).open(&path);
                opened
                    .and_then(|mut file| file.write_all(markdown.as_bytes()))
                    .with_context(|| format!("cannot write {}", Path::new(&path).display()))?;
            }
            super::print_aside(annotations)?;
        }
        Ok(())
    }
}

impl ContestOptions {
    /// Whether anything is wanted of a verdict.
    pub(super) fn asks_for_verdict(&self) -> bool {
        self.gate || self.verdict.is_some() || self.markdown.is_some() || self.margin.is_some()
    }

    /// The units that decide: the user's, or these.
    pub(super) fn chosen(&self, usual: &[&str]) -> Result<Vec<Unit>, Usage> {
        let unit = |name: &str| {
            let named = Unit::new(name);
            named.map_err(|error| Usage::new(format!("--by {name}: {error}")))
        };
        match self.by.is_empty() {
            true => usual.iter().copied().map(unit).collect(),
            false => self.by.iter().map(|name| unit(name)).collect(),
        }
    }

    /// How tables of results are judged.
    pub(super) fn tables(&self) -> compare::Options {
        compare::Options {
            alpha: self.alpha,
            margin: self.margin,
            confidence: 0.95,
        }
    }

    /// Whether the user has said which units decide.
    pub(super) fn has_chosen(&self) -> bool {
        !self.by.is_empty()
    }
}

/// The chosen units of all trials, judged as one family; with `all`, the others too, each judged by
/// itself.
fn judged(trials: &[&Trial], judge: &Judge, chosen: &[Unit], all: bool) -> Vec<Vec<Judged>> {
    let one = |trial: &Trial, unit: &Unit, is_chosen| Judged {
        unit: unit.clone(),
        is_chosen,
        variants: trial.judge(judge, unit),
    };
    let of_chosen = |&trial: &&Trial| chosen.iter().map(|unit| one(trial, unit, true)).collect();
    let mut judged: Vec<Vec<Judged>> = trials.iter().map(of_chosen).collect();
    let family = judged
        .iter_mut()
        .flatten()
        .flat_map(|one| one.variants.iter_mut().flatten());
    compare::as_family(&mut family.collect::<Vec<_>>(), judge);
    for (trial, judged) in trials.iter().zip(&mut judged) {
        let others = trial.units().filter(|unit| !chosen.contains(unit));
        let others = others.filter(|unit| all && !run::is_aside(unit));
        judged.extend(others.map(|unit| one(trial, unit, false)));
    }
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
            let gate = judgement.as_ref().map_or(Gate::Undecided, Judgement::gate);
            let what = judgement
                .as_ref()
                .map_or("not compared".to_owned(), |judgement| {
                    let word = comparison::word(judgement.verdict);
                    let change = comparison::change(&one.unit, &judgement.comparison);
                    format!("{word} by {change}")
                });
            let message = format!("{}, {}: {what}", runs.name, one.unit);
            text += &verdict::annotation(gate, &message);
        }
    }
    text
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

    /// Of many benchmarks only how far they are.
    fn show_many(&self, trials: &[(Name, Trial)], record: &Record, open: usize) {
        let Some(bar) = &self.0 else { return };
        let last = match record {
            Record::Sample(sample) => sample.benchmark.to_string(),
            _ => String::new(),
        };
        let round = trials.iter().flat_map(|(_, trial)| trial.variants());
        let round = round.map(|runs| runs.runs).max().unwrap_or_default();
        bar.set_message(format!(
            "round {round}: {open} of {} benchmarks undecided; {last}",
            trials.len()
        ));
        bar.tick();
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
