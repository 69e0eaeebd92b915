//! A bisection at work: asks the engines what is next, builds and runs it, and writes it down. Everything that it knows of earlier work it reads from the log.

mod bench_log;
mod build;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::Usage;
use super::super::hold::Stage;
use super::super::options::{self, OutputOptions};
use super::super::recorder::Recorder;
use super::live::Live;
use super::report::{Knowledge, Report};
use super::{Arguments, LOG};
use crate::bisect::history::{About, Line};
use crate::bisect::record::{AGAINST, ALONE, BUILD, Decoder, FROM, OUTPUT};
use crate::bisect::{Bisection, Event, Finding, Outcome, Settings, Step};
use crate::format::{Reader, Source};
use crate::machine::Roots;
use crate::perf::catalog::Catalog;
use crate::perf::plan::Plan;
use crate::run::build::repository::Repository;
use crate::run::build::{Build, Builds, Recipe};
use crate::run::command::{self, Command, Output};
use crate::run::compiler::invocation::Limits;
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::Turn;
use crate::run::{self, Workload};
use crate::sample::{End, Failure, Figure, Name, Order, Record, Sample};
use crate::stats::order::median;
use crate::stats::step::Posterior;
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// Counted besides what --by names.
const EVENTS: &str = "task-clock,minor-faults,context-switches,cycles,instructions:u";

/// A run is given up after so many times what one of the good end takes,
const PATIENCE: f64 = 20.0;

/// and not before this. While none of the good end is known, only the second holds.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PATIENCE: Duration = Duration::from_secs(600);

/// What does not change from one line of commits to another.
pub(super) struct Setting<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) repository: &'a Repository,
    pub(super) stage: &'a Stage,
    pub(super) interrupt: &'a Interrupt,
    pub(super) seed: u64,
}

/// One line of commits under bisection.
pub(super) struct Session<'a> {
    setting: &'a Setting<'a>,
    line: Line,
    engines: Vec<Engine>,
    builds: Builds,
    recipe: Recipe,
    plan: Plan,
    tick_sec: Option<f64>,
    built: BTreeMap<usize, Build>,
    /// Builds that were run since we began.
    warm: BTreeSet<usize>,
    recorder: Recorder,
    noise: Noise<'a>,
    directory: PathBuf,
    /// For the next run.
    sequence: u64,
    round: u64,
    counts: Counts,
    /// Seconds that runs of the good end took.
    good_sec: Vec<f64>,
    /// Why each commit that cannot be measured cannot.
    troubles: BTreeMap<usize, String>,
    live: Live,
    began: Instant,
    /// The log, locked.
    _lock: File,
}

/// One unit under search.
struct Engine {
    unit: Unit,
    decoder: Decoder,
    bisection: Bisection,
}

/// What was done since the log began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) builds: u64,
    pub(super) unbuildable: u64,
    pub(super) runs: u64,
    pub(super) failed: u64,
}

/// What came of it.
pub(super) struct Ended {
    /// Unit by unit.
    pub(super) all: Vec<OfUnit>,
    /// The signal that stopped us.
    pub(super) stopped: Option<Signal>,
    /// Whether time was up before the end.
    pub(super) is_cut: bool,
}

/// What came of the search of one unit.
pub(super) struct OfUnit {
    pub(super) unit: Unit,
    pub(super) findings: Vec<Finding>,
    /// Of the range that was searched last, when that was not ended.
    pub(super) open: Option<(RangeInclusive<usize>, Posterior)>,
}

/// A run that is to be made.
#[derive(Clone, Copy)]
struct Run {
    place: usize,
    order: Order,
    /// What is told of it beside its figures.
    role: Role,
    draw: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Reference,
    Against(usize),
    Alone,
    WarmUp,
}

/// How a run ended.
enum Made {
    Well,
    Failed,
    Stopped(Signal),
}

static ROOTS: std::sync::LazyLock<Roots> = std::sync::LazyLock::new(Roots::default);

impl<'a> Session<'a> {
    /// Opens the log in `directory` and learns all that it tells.
    pub(super) fn open(
        setting: &'a Setting<'a>,
        line: Line,
        settings: Vec<Settings>,
        directory: &Path,
    ) -> anyhow::Result<Session<'a>> {
        let arguments = setting.arguments;
        let log = directory.join(LOG);
        let lock = File::options().append(true).create(true).open(&log);
        let lock = lock.with_context(|| format!("cannot write {}", log.display()))?;
        if lock.try_lock().is_err() {
            return Err(Usage::new(format!("{} is being worked on", directory.display())).into());
        }
        let limits = Limits {
            timeout: arguments.build_timeout,
            interrupt: setting.interrupt,
        };
        let recipe = match &arguments.build {
            Some(command) => Recipe::Command(command.clone()),
            None => Recipe::suggested(setting.repository, &line.commits[0].commit(), None, limits)
                .map_err(|cause| {
                    let cause = match cause.why.contains("make.bash") {
                        true => cause.cure(
                            "say how commits are built with --build, such as --build 'make -j2'",
                        ),
                        false => cause,
                    };
                    Usage::from(cause)
                })?,
        };
        let places = line.commits.iter().zip(0..);
        let places = Rc::new(
            places
                .map(|(commit, place)| (commit.id.clone(), place))
                .collect(),
        );
        let engine = |settings: Settings| Engine {
            unit: settings.unit.unit.clone(),
            decoder: Decoder::new(settings.unit.unit.clone(), Rc::clone(&places)),
            bisection: Bisection::new(settings),
        };
        let engines: Vec<Engine> = settings.into_iter().map(engine).collect();
        let (plan, doubts) = options::plan(&events(arguments)?, Target::Myself);
        let output = OutputOptions::log(log.clone(), arguments.quiet);
        let cpus = setting.stage.surroundings.cpus.as_ref();
        let mut session = Session {
            builds: Builds::usual().map_err(run::Error::Refused)?,
            tick_sec: options::tick_sec(cpus),
            noise: Noise::watch(&ROOTS, cpus),
            recorder: Recorder::open(&output)?,
            live: Live::new(arguments.quiet),
            directory: directory.to_owned(),
            began: Instant::now(),
            built: BTreeMap::new(),
            warm: BTreeSet::new(),
            counts: Counts::default(),
            good_sec: Vec::new(),
            troubles: BTreeMap::new(),
            sequence: 0,
            round: 0,
            _lock: lock,
            setting,
            line,
            engines,
            recipe,
            plan,
        };
        let old = File::open(&log).with_context(|| format!("cannot read {}", log.display()))?;
        for record in Reader::of(Source::Jsonl, log.to_string_lossy(), old) {
            session.learn(&record);
        }
        // A run that was cut short is none.
        let began = session.recorder.begin(setting.seed, setting.stage, doubts);
        began.map_err(run::Error::Output)?;
        session.learn(&Record::Header(Default::default()));
        if session.counts == Counts::default() {
            session.import()?;
        }
        Ok(session)
    }

    /// Builds and runs until all is found, or time is up, or we are stopped.
    pub(super) fn run(&mut self) -> anyhow::Result<Ended> {
        let mut is_cut = false;
        let stopped = loop {
            if let Some(signal) = self.setting.interrupt.caught() {
                break Some(signal);
            }
            let most = self.setting.arguments.max_time;
            if most.is_some_and(|most| self.began.elapsed() >= most) {
                is_cut = true;
                break None;
            }
            let (at, step) = match self.next() {
                Some(next) => next,
                None => break None,
            };
            self.show(at, &step);
            let made = match step {
                Step::Build(place) => {
                    let mut places = vec![place];
                    let ahead = self.setting.arguments.jobs.get() - 1;
                    places.extend(self.engines[at].bisection.ahead(ahead));
                    places.dedup();
                    self.build(&places)?
                }
                Step::Pair { place, against } => self.pair(place, against)?,
                Step::Single(place) => self.single(place)?,
                Step::Done(_) => break None,
            };
            if let Made::Stopped(signal) = made {
                break Some(signal);
            }
        };
        self.live.clear();
        if stopped.is_none() && !is_cut {
            let end = Record::End(End::default());
            self.recorder.take(end).map_err(run::Error::Output)?;
        }
        let of_unit = |engine: &Engine| OfUnit {
            unit: engine.unit.clone(),
            findings: engine.bisection.findings().to_vec(),
            open: engine.bisection.posterior(),
        };
        Ok(Ended {
            all: self.engines.iter().map(of_unit).collect(),
            stopped,
            is_cut,
        })
    }

    /// What there is to tell.
    pub(super) fn report(&self, ended: &Ended) -> Report {
        Report::new(&Knowledge {
            line: &self.line,
            ended,
            counts: self.counts,
            troubles: &self.troubles,
            order_is_posterior: self.setting.arguments.order == super::Orders::Posterior,
        })
    }

    /// The merges among the culprits.
    pub(super) fn merges(&self, ended: &Ended) -> Vec<About> {
        let mut merges: Vec<About> = Vec::new();
        for finding in ended.all.iter().flat_map(|one| &one.findings) {
            if let Outcome::Found(culprit) = &finding.outcome {
                let commit = &self.line.commits[*culprit.places.end()];
                if commit.is_merge() && !merges.contains(commit) {
                    merges.push(commit.clone());
                }
            }
        }
        merges
    }

    /// What is next, and for which unit: the first that is not at its end.
    fn next(&mut self) -> Option<(usize, Step)> {
        for (at, engine) in self.engines.iter_mut().enumerate() {
            match engine.bisection.step() {
                Step::Done(_) => {}
                step => return Some((at, step)),
            }
        }
        None
    }

    /// Writes a record and learns what it tells.
    fn record(&mut self, record: Record) -> anyhow::Result<()> {
        self.recorder
            .take(record.clone())
            .map_err(run::Error::Output)?;
        self.learn(&record);
        Ok(())
    }

    fn learn(&mut self, record: &Record) {
        for engine in &mut self.engines {
            for event in engine.decoder.take(record) {
                engine.learn(event);
            }
        }
        match record {
            Record::Sample(sample) if sample.benchmark.base() == BUILD => self.counts.builds += 1,
            Record::Sample(sample) => {
                self.after(sample.order);
                if !sample.config.contains_key(FROM) {
                    self.counts.runs += 1;
                    let sec = sample.figure("sec/op").and_then(Figure::number);
                    if sample.variant == self.line.commits[0].id {
                        self.good_sec.extend(sec);
                    }
                }
            }
            Record::Failure(failure) => {
                let is_build = failure.benchmark.base() == BUILD;
                match is_build {
                    true => self.counts.unbuildable += 1,
                    false => {
                        self.counts.failed += 1;
                        self.after(failure.order);
                    }
                }
                if let Some(place) = self.line.place(&failure.variant) {
                    let said = failure.stderr.trim_end().lines().next_back();
                    let said = said.map_or(String::new(), |line| format!(": {line}"));
                    self.troubles
                        .insert(place, format!("{}{said}", failure.why));
                }
            }
            _ => {}
        }
    }

    fn after(&mut self, order: Order) {
        self.sequence = self.sequence.max(order.sequence + 1);
        self.round = self.round.max(order.round + 1);
    }

    /// Tells the engines that a process is over.
    fn flush(&mut self) {
        for engine in &mut self.engines {
            if let Some(event) = engine.decoder.flush() {
                engine.learn(event);
            }
        }
    }

    /// Runs two commits side by side.
    fn pair(&mut self, place: usize, against: usize) -> anyhow::Result<Made> {
        if let Some(made) = self.ready(&[place, against])? {
            return Ok(made);
        }
        let round = self.round;
        let mut random =
            Pcg64Mcg::seed_from_u64(self.setting.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut both = [(place, Role::Against(against)), (against, Role::Reference)];
        if random.random() {
            both.reverse();
        }
        for ((place, role), position) in both.into_iter().zip(0..) {
            let order = Order {
                round,
                ..self.order(position)
            };
            let draw = random.random();
            let run = Run {
                place,
                order,
                role,
                draw,
            };
            match self.once(run)? {
                Made::Well => {}
                other => return Ok(other),
            }
        }
        Ok(Made::Well)
    }

    /// Runs a commit alone.
    fn single(&mut self, place: usize) -> anyhow::Result<Made> {
        if let Some(made) = self.ready(&[place])? {
            return Ok(made);
        }
        let order = self.order(0);
        let (role, draw) = (Role::Alone, self.setting.seed ^ order.round);
        self.once(Run {
            place,
            order,
            role,
            draw,
        })
    }

    fn order(&self, position: u32) -> Order {
        Order {
            sequence: self.sequence,
            round: self.round,
            position,
        }
    }

    /// Has the builds there, and run before; gives how that failed, if it did.
    fn ready(&mut self, places: &[usize]) -> anyhow::Result<Option<Made>> {
        for &place in places {
            if !self.built.contains_key(&place) {
                // It was built before we began; what is kept was perhaps pruned.
                match self.build(&[place])? {
                    Made::Well if self.built.contains_key(&place) => {}
                    Made::Well => return Ok(Some(Made::Failed)),
                    other => return Ok(Some(other)),
                }
            }
            if self.warm.contains(&place) {
                continue;
            }
            for _ in 0..self.setting.arguments.warmup {
                let (order, role) = (self.order(0), Role::WarmUp);
                match self.once(Run {
                    place,
                    order,
                    role,
                    draw: 0,
                })? {
                    Made::Well => {}
                    other => return Ok(Some(other)),
                }
            }
            self.warm.insert(place);
        }
        Ok(None)
    }

    /// Runs a commit once and records what came of it.
    fn once(&mut self, run: Run) -> anyhow::Result<Made> {
        let arguments = self.setting.arguments;
        let Some(build) = self.built.get(&run.place) else {
            return Ok(Made::Failed);
        };
        let tree = build.tree.clone();
        let output = self.directory.join("output");
        let name = Name::new(&self.program());
        let variant = self.line.commits[run.place].id.clone();
        let options = command::Options {
            argv: self.words(run.place, &tree),
            output: Output::File(output.clone()),
            prepare: None,
            timeout: Some(arguments.timeout.unwrap_or_else(|| self.patience())),
            interval: None,
            surroundings: self.setting.stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec: self.tick_sec,
        };
        let environment = run::environment_with(&self.environment(run.place, &tree))?;
        let turn = Turn {
            workload: 0,
            order: run.order,
            coin: false,
            draw: run.draw,
            only: false,
        };
        let here = std::env::current_dir().context("cannot tell where we are")?;
        let there = arguments.benchmark_dir.as_deref().unwrap_or(&tree);
        std::env::set_current_dir(there)
            .with_context(|| format!("cannot enter {}", there.display()))?;
        let made =
            Command::in_environment(name.clone(), &variant, options, environment, &self.plan)
                .and_then(|mut command| {
                    let config = command.config(&turn);
                    let outcome =
                        command.observe(&turn, self.setting.interrupt, &mut |_| Ok(()))?;
                    Ok((config, outcome))
                });
        std::env::set_current_dir(&here)
            .with_context(|| format!("cannot go back to {}", here.display()))?;
        let fail = |why: String, stderr: String| Failure {
            benchmark: name.clone(),
            variant: variant.clone(),
            order: run.order,
            why,
            stderr,
        };
        let failure = match made {
            Ok((_, run::Outcome::Interrupted(signal))) => return Ok(Made::Stopped(signal)),
            Ok((_, run::Outcome::Observed(_))) if run.role == Role::WarmUp => {
                return Ok(Made::Well);
            }
            Ok((config, run::Outcome::Observed(mut observed))) => {
                let (values, warning) = self.noise.look();
                observed.values.extend(values);
                observed.warnings.extend(warning);
                let mut sample = Sample {
                    benchmark: name,
                    variant,
                    iterations: 1,
                    order: run.order,
                    config: config.into_iter().chain(observed.config).collect(),
                    values: observed.values,
                    warnings: observed.warnings,
                };
                let role = match run.role {
                    Role::Against(place) => Some((AGAINST, self.line.commits[place].id.clone())),
                    Role::Alone => Some((ALONE, "yes".to_owned())),
                    Role::Reference | Role::WarmUp => None,
                };
                let role = role.map(|(key, value)| (key.to_owned(), value));
                sample.config.extend(role);
                return self.observed(sample, &output);
            }
            Ok((_, run::Outcome::Failed { why, stderr, .. })) => fail(why, stderr),
            Err(error @ run::Error::Exec { .. }) => fail(error.to_string(), String::new()),
            Err(error) => return Err(error.into()),
        };
        self.bench_log(&format!("# FAILED at {}\n", failure.variant))?;
        self.record(Record::Failure(failure))?;
        Ok(Made::Failed)
    }

    /// Records a run, and what its output tells.
    fn observed(&mut self, sample: Sample, output: &Path) -> anyhow::Result<Made> {
        let read =
            File::open(output).with_context(|| format!("cannot read {}", output.display()))?;
        let samples: Vec<Sample> = Reader::new("output", read)
            .filter_map(|record| match record {
                Record::Sample(mut inner) => {
                    inner.config = BTreeMap::from([(FROM.to_owned(), OUTPUT.to_owned())]);
                    inner.variant.clone_from(&sample.variant);
                    inner.order = sample.order;
                    Some(inner)
                }
                _ => None,
            })
            .collect();
        self.write_bench_log(&sample, &samples, output)?;
        let all: Vec<Sample> = std::iter::once(sample).chain(samples).collect();
        let first = &all[0];
        let missing = self
            .engines
            .iter()
            .find(|engine| crate::bisect::record::figure(&all, &engine.unit).is_none());
        let trouble = missing.map(|engine| {
            let absent = first.figure(engine.unit.as_str());
            let why = match absent {
                Some(Figure::Absent { why }) => format!(": {why}"),
                _ => {
                    let units: BTreeSet<&str> = all
                        .iter()
                        .flat_map(|sample| &sample.values)
                        .map(|value| value.unit.as_str())
                        .collect();
                    let units: Vec<&str> = units.into_iter().collect();
                    format!("; there are {}", units.join(", "))
                }
            };
            format!("it has no figure of {}{why}", engine.unit)
        });
        let place = self.line.place(&first.variant);
        for sample in all {
            self.record(Record::Sample(sample))?;
        }
        self.flush();
        if let (Some(trouble), Some(place)) = (trouble, place) {
            self.troubles.insert(place, trouble);
            return Ok(Made::Failed);
        }
        Ok(Made::Well)
    }

    /// The benchmark's words for a commit.
    fn words(&self, place: usize, tree: &Path) -> Vec<OsString> {
        let binary = self.binary(place);
        let fill = |word: &OsString| match word.to_str() {
            Some(word) => word
                .replace("{tree}", &tree.to_string_lossy())
                .replace(BENCH, &binary.to_string_lossy())
                .into(),
            None => word.clone(),
        };
        self.setting.arguments.benchmark.iter().map(fill).collect()
    }

    fn program(&self) -> String {
        let program = Path::new(&self.setting.arguments.benchmark[0]);
        let name = program.file_name().unwrap_or(program.as_os_str());
        name.to_string_lossy().replace(BENCH, "bench")
    }

    /// How long a run may take.
    fn patience(&self) -> Duration {
        match median(&self.good_sec) {
            Some(sec) => Duration::from_secs_f64(PATIENCE * sec).max(LEAST_PATIENCE),
            None => FIRST_PATIENCE,
        }
    }

    fn show(&self, at: usize, step: &Step) {
        let engine = &self.engines[at];
        self.live.show(
            &self.line,
            &engine.unit,
            &engine.bisection,
            step,
            self.began.elapsed(),
        );
    }
}

impl Engine {
    /// Who tells an engine of the past asks it for the next step, too.
    fn learn(&mut self, event: Event) {
        self.bisection.step();
        self.bisection.take(event);
    }
}

/// What stands for the test binary of the benchmark's directory.
const BENCH: &str = "{bench}";

/// The events that are counted: the usual ones, or the user's, and those that --by names.
fn events(arguments: &Arguments) -> anyhow::Result<Vec<crate::perf::event::Group>> {
    let mut groups = arguments.events.wanted(EVENTS)?;
    for name in &arguments.by {
        let event = name.strip_suffix("/op").unwrap_or(name);
        let is_new = !EVENTS.split(',').any(|known| known == event);
        // Most units are none of events.
        if is_new && let Ok(more) = Catalog::default().parse(event) {
            groups.extend(more);
        }
    }
    Ok(groups)
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // It is only for the run that wrote it.
        let _ = fs::remove_file(self.directory.join("output"));
    }
}
