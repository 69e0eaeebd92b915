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
use crate::report::{faults as screen, text};
use crate::run::command::{self, Output};
use crate::run::faults::cost::FaultCost;
use crate::run::faults::watch::{LOOK, Watch};
use crate::run::faults::{self, Subject};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::traced::Traced;
use crate::run::{self, Tally, Workload, loops};
use crate::sample::Record;
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
    /// mappings.
    #[arg(long, conflicts_with_all = ["command", "pid"])]
    cost: bool,

    /// Measure N blocks of each kind of pages (with --cost).
    #[arg(short, long, value_name = "N", default_value_t = 10, requires = "cost", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,

    /// Begin no new block after this long (with --cost).
    #[arg(long, value_name = "DURATION", requires = "cost", value_parser = options::duration)]
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

/// A way to see faults.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RungOption {
    /// By programs in the kernel, which takes privilege.
    Bpf,
    /// By software events in user mode.
    Rings,
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
    if arguments.cost {
        let stage = Stage::set(hold, child, || Cpus::Auto, &interrupt)?;
        return cost(arguments, &stage, &interrupt);
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
        RungOption::Rings => Rung::Rings,
    });
    let (watch, why) = Watch::choose(only, arguments.stacks)?;
    let subject = match arguments.pid {
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
    recorder.fact("rung", watch.rung().word().to_owned());
    recorder
        .begin(options::seed(arguments.seed), stage, doubts)
        .map_err(run::Error::Output)?;
    let observed = faults::observe(subject, watch, &plan, interrupt)?;
    let samples = observed.samples("base");
    let mut tally = Tally {
        interrupted: observed.interrupted,
        ..Tally::default()
    };
    let mut written = Ok(());
    for sample in &samples {
        tally.end.samples += 1;
        written = written.and_then(|()| recorder.take(Record::Sample(sample.clone())));
    }
    let (_, ended) = recorder.finish(written.map_err(run::Error::Output).map(|()| tally));
    let to_stdout = arguments.output.records_to_stdout();
    if !arguments.output.quiet && (!to_stdout || arguments.output.table) {
        let aside = screen::Aside {
            rung: observed.rung,
            sees_reasons: observed.sees_reasons,
            why: why.as_ref(),
            timeline: Some((&observed.timeline, observed.end_ns)),
        };
        let width = super::columns();
        let text = screen::screen(&samples, &aside, text::Style { width });
        // Standard output is the command's.
        match to_stdout || arguments.pid.is_none() {
            true => super::print_aside(&text)?,
            false => super::print(&text)?,
        }
    }
    ended?;
    Ok(observed.code)
}

/// What one fault costs here.
fn cost(arguments: &Arguments, stage: &Stage, interrupt: &Interrupt) -> anyhow::Result<u8> {
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for pages in ["4k", "thp", "populate"] {
        for spec in loops::parse(&format!("heap/MiB=128/pages={pages}"))? {
            let cost = FaultCost::new(spec, pages, &stage.surroundings);
            workloads.push(Box::new(cost));
        }
    }
    let names: Vec<_> = workloads.iter().map(|w| w.benchmark().clone()).collect();
    let seed = options::seed(arguments.seed);
    let limits = Limits {
        rounds: arguments.runs,
        time: arguments.time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder
        .begin(seed, stage, Vec::new())
        .map_err(run::Error::Output)?;
    let rounds = arguments.time.is_none().then_some(arguments.runs);
    recorder.show_progress(&arguments.output, rounds, Unit::named("sec/fault"));
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    let driven = run::drive(
        &mut schedule,
        0,
        &mut workloads,
        interrupt,
        &mut noise,
        &mut |record| recorder.take(record),
    );
    let (mut stream, ended) = recorder.finish(driven);
    // They ran in a drawn order.
    stream
        .benchmarks
        .sort_by_key(|shown| names.iter().position(|name| *name == shown.name));
    let to_stdout = arguments.output.records_to_stdout();
    if !arguments.output.quiet && (!to_stdout || arguments.output.table) {
        let width = super::columns();
        let text = text::stream(&stream, text::Style { width });
        match to_stdout {
            true => super::print_aside(&text)?,
            false => super::print(&text)?,
        }
    }
    Ok(stat::code(&ended?))
}
