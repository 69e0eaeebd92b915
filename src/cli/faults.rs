//! `poise faults`: page faults by kind, mapping and time, and what they cost. Never measures by itself.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, Cpus, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, stat};
use crate::machine::facts::Roots;
use crate::perf::catalog::Catalog;
use crate::probe::Rung;
use crate::report::summary::{Benchmark, Estimate, Stream};
use crate::report::{faults as screen, text};
use crate::run::command::{self, Output};
use crate::run::faults::cost::FaultCost;
use crate::run::faults::watch::{LOOK, Watch};
use crate::run::faults::{self, Price, Subject};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::traced::Traced;
use crate::run::{self, Tally, Workload, loops};
use crate::sample::{Name, Record};
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// Tell where a program's page faults come from, and what they cost
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Watch a running process.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "command")]
    pid: Option<i32>,

    /// Tell where in the program, too: by the functions on its stack, which takes frame pointers.
    #[arg(long)]
    stacks: bool,

    /// See faults in this way alone, instead of in the best that is to be had.
    #[arg(long, value_enum)]
    rung: Option<RungOption>,

    /// End the command, or the watching, after this long (a bare number is milliseconds).
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Measure what one fault costs on this machine: the CPU time of touching 0 to 128 MiB of
    /// fresh memory against its faults, for base pages, transparent huge pages and populated
    /// mappings. With a command: tell also what its faults cost by that.
    #[arg(long)]
    cost: bool,

    /// Measure N blocks of each kind of pages (with --cost).
    #[arg(short, long, value_name = "N", default_value_t = 10, requires = "cost", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,

    /// Begin no new block after this long (with --cost).
    #[arg(long, value_name = "DURATION", requires = "cost", value_parser = options::duration)]
    time: Option<Duration>,

    /// Call the variant NAME in the records, so that profiles can be compared.
    #[arg(long, value_name = "NAME", default_value = "base")]
    variant: String,

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

/// A way to see faults.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RungOption {
    /// By programs in the kernel, which takes privilege.
    Bpf,
    /// By software events in user mode.
    Counters,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if !arguments.cost && arguments.command.is_empty() && arguments.pid.is_none() {
        return Err(Usage {
            message: "there is nothing to watch".to_owned(),
            hint: Some("give a command (poise faults -- COMMAND), -p PID, or --cost".to_owned()),
        }
        .into());
    }
    if arguments.pid.is_some() && arguments.child != ChildOptions::default() {
        return Err(Usage::new("nothing can be set for what runs already").into());
    }
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let (hold, child) = (&arguments.hold, &arguments.child);
    if arguments.cost && arguments.command.is_empty() && arguments.pid.is_none() {
        let stage = Stage::set(hold, child, || Cpus::Auto, &interrupt)?;
        let mut recorder = Recorder::open(&arguments.output)?;
        let seed = options::seed(arguments.seed);
        recorder
            .begin(seed, &stage, Vec::new())
            .map_err(run::Error::Output)?;
        let rounds = arguments.time.is_none().then_some(arguments.runs);
        recorder.show_progress(&arguments.output, rounds, Unit::named("sec/fault"));
        let mut sink = |record| recorder.take(record);
        let driven = cost(arguments, seed, &mut sink, &stage, &interrupt)?;
        let (mut stream, ended) = recorder.finish(driven);
        in_order(&mut stream);
        show(arguments, true, |style| text::stream(&stream, style))?;
        return Ok(stat::code(&ended?));
    }
    let stage = match arguments.pid {
        Some(_) => Stage::unheld(child, false, &interrupt)?,
        None => Stage::set(hold, child, Bound::usual, &interrupt)?,
    };
    watch(arguments, &stage, &interrupt)
}

/// The faults of a command or of a running process.
fn watch(arguments: &Arguments, stage: &Stage, interrupt: &Interrupt) -> anyhow::Result<u8> {
    let wanted = Catalog::default().parse(faults::EVENTS)?;
    let (plan, doubts) = options::plan(&wanted, Target::Myself);
    let only = arguments.rung.map(|rung| match rung {
        RungOption::Bpf => Rung::Programs,
        RungOption::Counters => Rung::Counters,
    });
    let (watch, why) = Watch::choose(only, arguments.stacks)?;
    let mut subject = match arguments.pid {
        Some(pid) => Subject::Process {
            pid,
            timeout: arguments.timeout,
        },
        None => Subject::Command(Box::new(Traced::new(command::Options {
            argv: arguments.command.clone(),
            output: Output::Inherit,
            prepare: None,
            timeout: arguments.timeout,
            interval: Some(LOOK),
            surroundings: stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec: None,
        })?)),
    };
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder.variant(&arguments.variant)?;
    recorder.fact("rung", watch.rung().word().to_owned());
    let seed = options::seed(arguments.seed);
    recorder
        .begin(seed, stage, doubts)
        .map_err(run::Error::Output)?;
    let mut tally = Tally::default();
    let mut stream = Stream::default();
    if arguments.cost {
        let mut priced = |record: Record| {
            stream.take(record.clone());
            recorder.take(record)
        };
        tally = cost(arguments, seed, &mut priced, stage, interrupt)??;
        if tally.interrupted.is_some() {
            return Ok(stat::code(&tally));
        }
        in_order(&mut stream);
    }
    let mut observed = faults::observe(&mut subject, watch, &plan, interrupt)?;
    if let Some(base) = price(&stream, "4k") {
        observed.price(base, price(&stream, "thp"));
    }
    let samples = observed.samples(&arguments.variant);
    tally.interrupted = observed.interrupted;
    let mut written = Ok(());
    for sample in &samples {
        tally.end.samples += 1;
        written = written.and_then(|()| recorder.take(Record::Sample(sample.clone())));
    }
    let driven = written.map_err(run::Error::Output).map(|()| tally);
    let (_, ended) = recorder.finish(driven);
    let aside = screen::Aside {
        rung: observed.rung,
        sees_reasons: observed.sees_reasons,
        why: why.as_ref(),
        timeline: Some((&observed.timeline, observed.end_ns)),
    };
    // Standard output is the command's.
    show(arguments, arguments.pid.is_some(), |style| {
        text::stream(&stream, style) + &screen::screen(&samples, &aside, style)
    })?;
    ended?;
    Ok(observed.code)
}

/// Prints a table where it is wanted and does not run into anything.
fn show(
    arguments: &Arguments,
    is_stdout_ours: bool,
    text: impl FnOnce(text::Style) -> String,
) -> anyhow::Result<()> {
    let to_stdout = arguments.output.records_to_stdout();
    if arguments.output.quiet || to_stdout && !arguments.output.table {
        return Ok(());
    }
    let width = super::columns();
    let text = text(text::Style { width });
    match is_stdout_ours && !to_stdout {
        true => super::print(&text),
        false => super::print_aside(&text),
    }
}

/// The kinds of pages whose faults are priced.
const PAGES: [&str; 3] = ["4k", "thp", "populate"];

/// They ran in a drawn order; they are shown in ours.
fn in_order(stream: &mut Stream) {
    let place = |name: &Name| PAGES.iter().position(|pages| *name == cost_of(pages));
    stream.benchmarks.sort_by_key(|shown| place(&shown.name));
}

fn cost_of(pages: &str) -> Name {
    Name::new("FaultCost").with("pages", pages)
}

/// What one fault costs that makes such a page, if that is known.
fn price(stream: &Stream, pages: &str) -> Option<Price> {
    let of = |shown: &&Benchmark| shown.name == cost_of(pages);
    let rows = stream.benchmarks.iter().find(of)?.rows();
    let row = rows.iter().find(|row| row.unit.as_str() == "sec/fault")?;
    let (low, high) = row.range();
    Some(match row.estimate {
        Estimate::None => return None,
        Estimate::Single(sec) => Price {
            sec,
            low_sec: sec,
            high_sec: sec,
        },
        Estimate::Middle { value, interval } => Price {
            sec: value,
            low_sec: interval.map_or(low, |interval| interval.low),
            high_sec: interval.map_or(high, |interval| interval.high),
        },
    })
}

/// Measures what one fault costs here; the inner result is how that went.
fn cost(
    arguments: &Arguments,
    seed: u64,
    sink: &mut run::Sink<'_>,
    stage: &Stage,
    interrupt: &Interrupt,
) -> anyhow::Result<Result<Tally, run::Error>> {
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for pages in PAGES {
        for spec in loops::parse(&format!("heap/MiB=128/pages={pages}"))? {
            let cost = FaultCost::new(spec, cost_of(pages), &stage.surroundings);
            workloads.push(Box::new(cost));
        }
    }
    let limits = Limits {
        rounds: arguments.runs,
        time: arguments.time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    Ok(run::drive(
        &mut schedule,
        0,
        &mut workloads,
        interrupt,
        &mut noise,
        sink,
    ))
}
