//! `poise bench`: measures the built-in loops. Never runs a loop in this process.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::contest::{Contest, ContestOptions, Rounds};
use super::hold::{MeasureOptions, Stage};
use super::options::{self, ChildOptions, Cpus, EventOptions, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, stat};
use crate::machine::facts::Roots;
use crate::perf::plan::Plan;
use crate::report::{latency, text};
use crate::run::batch;
use crate::run::interrupt::Interrupt;
use crate::run::looped::Looped;
use crate::run::loops::{self, LoopSpec};
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Workload};
use crate::sample::{Name, Warning};
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "page-faults,context-switches,cycles,instructions,branch-misses,\
                              cycles:u,cycles:k,instructions:u,instructions:k";

/// Measure built-in loops of system calls and memory accesses
#[derive(Debug, Args)]
#[command(
    mut_arg("cpu_list", |cpus| cpus.visible_alias("cpu")),
    after_help = "Every sample is a fresh process that runs a small and a large batch; its figures are the \
slope between them, which is free of what starting and reading clocks and counters cost."
)]
pub(super) struct Arguments {
    /// Loops with their parameters, such as write, write/size=4096/to=pipe or write/size=512,4096.
    #[arg(value_name = "LOOP")]
    loops: Vec<String>,

    /// List the loops and their parameters.
    #[arg(long)]
    list: bool,

    /// Time every operation on its own and show the distribution.
    #[arg(long)]
    latency: bool,

    /// Write the distribution as an HDR histogram log (with --latency).
    #[arg(long, value_name = "FILE", requires = "latency")]
    hdr_log: Option<PathBuf>,

    /// Compare the loop with these parameters, and with others: --variant size=512 --variant
    /// size=4096. The first is the control; as many samples are taken as a decision takes.
    #[arg(long, value_name = "KEY=VALUE[/KEY=VALUE]", conflicts_with_all = ["latency"])]
    variant: Vec<String>,

    /// Take N samples of each loop. By default 20, or as many as a decision takes.
    #[arg(short, long, visible_alias = "repeat", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    runs: Option<u64>,

    /// Begin no new sample after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    time: Option<Duration>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    #[command(flatten)]
    events: EventOptions,

    #[command(flatten)]
    contest: ContestOptions,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    if arguments.list {
        super::print(&list())?;
        return Ok(0);
    }
    if arguments.loops.is_empty() {
        return Err(Usage {
            message: "there is no loop to measure".to_owned(),
            hint: Some(
                "name one, such as poise bench write; poise bench --list shows them all".to_owned(),
            ),
        }
        .into());
    }
    let mut specs: Vec<LoopSpec> = Vec::new();
    for text in &arguments.loops {
        for spec in parse(text)? {
            // Named twice, it would have twice the samples.
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
    }
    if arguments.variant.is_empty() && arguments.contest.asks_for_verdict() {
        return Err(Usage::new("a verdict takes variants: --variant size=512 …").into());
    }
    let wanted = arguments.events.wanted(DEFAULT_EVENTS)?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    // A loop runs on one CPU at a time, so it is bound to one.
    let (hold, child) = (&arguments.hold, &arguments.child);
    let stage = Stage::set(hold, child, || Cpus::Auto, &interrupt)?;
    let surroundings = &stage.surroundings;
    let (plan, doubts) = options::plan(&wanted, Target::Myself);
    let tick_sec = options::tick_sec(surroundings.cpus.as_ref());

    if !arguments.variant.is_empty() {
        return contest(&arguments, &plan, doubts, &stage, tick_sec, &interrupt);
    }
    let names: Vec<Name> = specs.iter().map(LoopSpec::name).collect();
    let mut latencies = Vec::new();
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for spec in specs {
        let into = arguments
            .latency
            .then(|| Rc::new(RefCell::new(batch::new_histogram())));
        latencies.extend(into.clone().map(|histogram| (spec.name(), histogram)));
        match Looped::calibrate(spec, &plan, surroundings, tick_sec, into, &interrupt)? {
            Ok(looped) => workloads.push(Box::new(looped)),
            Err(signal) => return Ok(128 + signal as u8),
        }
    }
    let seed = options::seed(arguments.seed);
    let runs = arguments.runs.unwrap_or(20);
    let limits = Limits {
        rounds: runs,
        time: arguments.time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder
        .begin(seed, &stage, doubts)
        .map_err(run::Error::Output)?;
    let shown = if arguments.latency {
        "p50-sec"
    } else {
        "sec/op"
    };
    recorder.show_progress(
        &arguments.output,
        arguments.time.is_none().then_some(runs),
        Unit::named(shown),
    );
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, surroundings.cpus.as_ref());
    let driven = run::drive(
        &mut schedule,
        0,
        &mut workloads,
        &interrupt,
        &mut noise,
        &mut |record| recorder.take(record),
    );
    let (mut stream, ended) = recorder.finish(driven);
    // A loop that was refused, or stopped before its first sample, has no distribution.
    latencies.retain(|(_, histogram)| !histogram.borrow().is_empty());
    // They ran in a drawn order; they are shown as they were asked for.
    stream
        .benchmarks
        .sort_by_key(|shown| names.iter().position(|name| *name == shown.name));

    let to_stdout = arguments.output.records_to_stdout();
    if !arguments.output.quiet && (!to_stdout || arguments.output.table) {
        let mut text = text::stream(
            &stream,
            text::Style {
                width: super::columns(),
            },
        );
        for (name, histogram) in &latencies {
            text.push_str(&latency::drawn(&name.to_string(), &histogram.borrow()));
        }
        if to_stdout {
            super::print_aside(&text)?
        } else {
            super::print(&text)?
        }
    }
    if let Some(path) = &arguments.hdr_log {
        let histograms = latencies
            .iter()
            .map(|(name, histogram)| (name.to_string(), histogram.borrow()));
        let histograms: Vec<_> = histograms.collect();
        write_hdr_log(
            path,
            histograms
                .iter()
                .map(|(name, histogram)| (name.as_str(), &**histogram)),
        )
        .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(stat::code(&ended?))
}

fn parse(text: &str) -> Result<Vec<LoopSpec>, Usage> {
    loops::parse(text).map_err(|error| Usage::new(error.to_string()))
}

/// Compares one loop with itself under other parameters.
fn contest(
    arguments: &Arguments,
    plan: &Plan,
    doubts: Vec<Warning>,
    stage: &Stage,
    tick_sec: Option<f64>,
    interrupt: &Interrupt,
) -> anyhow::Result<u8> {
    let [base] = &arguments.loops[..] else {
        return Err(Usage::new("variants are those of one loop").into());
    };
    if arguments.variant.len() < 2 {
        return Err(Usage::new("it takes two variants to compare").into());
    }
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for (at, variant) in arguments.variant.iter().enumerate() {
        if arguments.variant[..at].contains(variant) {
            return Err(Usage::new(format!("there are two variants `{variant}`")).into());
        }
        let [spec] = <[LoopSpec; 1]>::try_from(parse(&format!("{base}/{variant}"))?)
            .map_err(|_| Usage::new(format!("`{variant}` is more than one variant")))?;
        let name = Name::new(&spec.info().benchmark());
        let (given, tick) = (&stage.surroundings, tick_sec);
        match Looped::calibrate(spec, plan, given, tick, None, interrupt)? {
            Ok(looped) => workloads.push(Box::new(looped.as_variant(name, variant.clone()))),
            Err(signal) => return Ok(128 + signal as u8),
        }
    }
    let contest = Contest {
        options: &arguments.contest,
        output: &arguments.output,
        seed: options::seed(arguments.seed),
        rounds: match arguments.runs {
            Some(runs) => Rounds::Exactly(runs),
            None => Rounds::AsNeeded(None),
        },
        time: arguments.time,
        warmup: 0,
        facts: Vec::new(),
        doubts,
        valid: &|| Ok(()),
    };
    contest.run(&["sec/op"], None, stage, &mut workloads, interrupt)
}

/// The loops with their parameters, for people.
fn list() -> String {
    let mut text = String::new();
    for info in loops::catalog() {
        text.push_str(&format!(
            "{:<14} {} (one operation: {})\n",
            info.name, info.about, info.operation
        ));
        for parameter in info.parameters {
            text.push_str(&format!(
                "    {}={}  {}: {}\n",
                parameter.key, parameter.default, parameter.about, parameter.values
            ));
        }
    }
    text
}

/// One histogram a loop, tagged with its name, in nanoseconds.
fn write_hdr_log<'h>(
    path: &Path,
    histograms: impl Iterator<Item = (&'h str, &'h Histogram<u64>)>,
) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let mut log = builder
        .with_start_time(SystemTime::now())
        .begin_log_with(&mut file, &mut serializer)?;
    for (name, histogram) in histograms {
        let failed = |error| anyhow::anyhow!("{error:?}");
        log.write_histogram(histogram, Duration::ZERO, Duration::ZERO, Tag::new(name))
            .map_err(failed)?;
    }
    Ok(())
}
