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

use super::hold::MeasureOptions;
use super::options::{self, ChildOptions, Cpus, EventOptions, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, stat};
use crate::machine::facts::Roots;
use crate::report::{latency, text};
use crate::run::batch;
use crate::run::interrupt::Interrupt;
use crate::run::looped::Looped;
use crate::run::loops::{self, LoopSpec};
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Workload};
use crate::sample::Name;
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

    #[command(flatten)]
    events: EventOptions,

    /// Time every operation on its own and show the distribution.
    #[arg(long)]
    latency: bool,

    /// Write the distribution as an HDR histogram log (with --latency).
    #[arg(long, value_name = "FILE", requires = "latency")]
    hdr_log: Option<PathBuf>,

    /// Take N samples of each loop.
    #[arg(short, long, visible_alias = "repeat", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    runs: u64,

    /// Begin no new sample after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    time: Option<Duration>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

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
        for spec in loops::parse(text).map_err(|error| Usage::new(error.to_string()))? {
            // Named twice, it would have twice the samples.
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
    }
    let (plan, mut doubts) = arguments.events.plan(DEFAULT_EVENTS, Target::Myself)?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    // A loop runs on one CPU at a time, so it is bound to one.
    let cpus = arguments.child.cpu_list.as_ref();
    let held = arguments.hold.begin(cpus, || Cpus::Auto, &interrupt)?;
    let (surroundings, more) = arguments.child.surroundings(&held.bound)?;
    doubts.extend(more);
    let tick_sec = options::tick_sec(surroundings.cpus.as_ref());

    let names: Vec<Name> = specs.iter().map(LoopSpec::name).collect();
    let mut latencies = Vec::new();
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for spec in specs {
        let into = arguments
            .latency
            .then(|| Rc::new(RefCell::new(batch::new_histogram())));
        latencies.extend(into.clone().map(|histogram| (spec.name(), histogram)));
        match Looped::calibrate(spec, &plan, &surroundings, tick_sec, into, &interrupt)? {
            Ok(looped) => workloads.push(Box::new(looped)),
            Err(signal) => return Ok(128 + signal as u8),
        }
    }
    let seed = options::seed(arguments.seed);
    let limits = Limits {
        rounds: arguments.runs,
        time: arguments.time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder
        .begin(seed, &held, &surroundings, doubts)
        .map_err(run::Error::Output)?;
    let shown = if arguments.latency {
        "p50-sec"
    } else {
        "sec/op"
    };
    recorder.show_progress(
        &arguments.output,
        arguments.time.is_none().then_some(arguments.runs),
        Unit::named(shown),
    );
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots);
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
