//! `poise faults`: page faults by kind, mapping and time, and what they cost. Never measures by itself.

use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::hold::{MeasureOptions, Stage};
use super::options::{self, ChildOptions, Cpus, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, stat};
use crate::machine::facts::Roots;
use crate::report::text;
use crate::run::fault_cost::FaultCost;
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Workload, loops};
use crate::unit::Unit;

/// Tell where a program's page faults come from, and what they cost
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Measure what one fault costs on this machine: the CPU time of touching 0 to 128 MiB of
    /// fresh memory against its faults, for base pages, transparent huge pages and populated
    /// mappings.
    #[arg(long)]
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

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if !arguments.cost {
        return Err(Usage::new("there is nothing to measure").into());
    }
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let (hold, child) = (&arguments.hold, &arguments.child);
    let stage = Stage::set(hold, child, || Cpus::Auto, &interrupt)?;
    cost(arguments, &stage, &interrupt)
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
