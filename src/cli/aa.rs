//! `poise doctor --aa`: what this machine can tell apart, found out by comparing things with themselves. Never judges a program.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::hold::{MeasureOptions, Stage};
use super::options::{self, ChildOptions, Cpus};
use crate::compare::{Trial, percent};
use crate::machine::Roots;
use crate::perf::Access;
use crate::perf::catalog::Catalog;
use crate::perf::plan::Plan;
use crate::run::command::{self, Command, Output};
use crate::run::interrupt::Interrupt;
use crate::run::looped::Looped;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::{self, Workload, loops};
use crate::sample::{Name, Record};
use crate::stats::comparison::Scale;
use crate::stats::paired::Pairs;
use crate::stats::sequential::Rule;
use crate::stats::series;
use crate::sys::perf_event::Target;
use crate::unit::{Unit, human};

/// What is counted besides the clocks.
const EVENTS: &str = "task-clock,instructions:u";

/// The spans that a user may be ready to wait.
const SPANS: [(&str, f64); 3] = [("10 s", 10.0), ("1 min", 60.0), ("10 min", 600.0)];

/// The level of all comparisons.
const ALPHA: f64 = 0.05;

/// The level at which a drift or a memory of the machine is believed.
const SURE: f64 = 0.01;

/// The least rounds that say anything.
const LEAST: usize = 8;

/// Runs a loop and a command against themselves, half of `time` each, and tells what could be
/// told apart.
pub(super) fn main(
    time: Duration,
    hold: &MeasureOptions,
    child: &ChildOptions,
) -> anyhow::Result<u8> {
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::set(hold, child, || Cpus::Auto, &interrupt)?;
    stage.remark();
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let plan = Plan::make(&Catalog::default().parse(EVENTS)?, Target::Myself, access);
    let tick_sec = options::tick_sec(stage.surroundings.cpus.as_ref());

    let write = loops::parse("write")?;
    let mut looped: Vec<Box<dyn Workload + '_>> = Vec::new();
    for variant in ["A", "B"] {
        for spec in &write {
            let (spec, given) = (spec.clone(), &stage.surroundings);
            match Looped::calibrate(spec, &plan, given, tick_sec, None, &interrupt)? {
                Ok(one) => {
                    let name = Name::new("Write");
                    looped.push(Box::new(one.as_variant(name, variant.to_owned())));
                }
                Err(signal) => return Ok(128 + signal as u8),
            }
        }
    }
    let mut commands: Vec<Box<dyn Workload + '_>> = Vec::new();
    for variant in ["A", "B"] {
        let options = command::Options {
            argv: vec!["true".into()],
            output: Output::Null,
            prepare: None,
            timeout: None,
            interval: None,
            surroundings: stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec,
        };
        commands.push(Box::new(Command::new(
            Name::new("true"),
            variant,
            options,
            &plan,
        )?));
    }
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    let cpu_of_loop = "cpu-sec/op";
    let cpu_of_command = "task-clock-sec/op";
    for (title, workloads, cpu) in [
        ("the loop write", &mut looped, cpu_of_loop),
        ("the command true", &mut commands, cpu_of_command),
    ] {
        let trial = RefCell::new(Trial::of(["A", "B"].map(str::to_owned)));
        let limits = Limits {
            rounds: u64::MAX,
            time: Some(time / 2),
        };
        let mut schedule = Schedule::new(options::seed(None), 2, limits);
        let began = Instant::now();
        let tally = run::drive(
            &mut schedule,
            1,
            workloads,
            &interrupt,
            &mut noise,
            &mut |record: Record| {
                trial.borrow_mut().take(&record);
                Ok(())
            },
        )?;
        let took_sec = began.elapsed().as_secs_f64();
        if let Some(signal) = tally.interrupted {
            return Ok(128 + signal as u8);
        }
        let units = ["sec/op", cpu, "instructions:u/op"].map(Unit::named);
        super::print(&report(title, &trial.into_inner(), &units, took_sec))?;
    }
    Ok(0)
}

/// What could be told apart of one workload.
fn report(title: &str, trial: &Trial, units: &[Unit], took_sec: f64) -> String {
    let rounds = trial.variants()[0].runs;
    let mut text = format!("{title} against itself: {rounds} pairs in {took_sec:.0} s\n");
    let spans: String = SPANS
        .iter()
        .map(|(span, _)| format!("{span:>12}"))
        .collect();
    let _ = writeln!(text, "  {:<20}{spans}", "smallest change in");
    for unit in units {
        let _ = writeln!(
            text,
            "  {:<20}{}",
            unit.as_str(),
            line(trial, unit, took_sec)
        );
    }
    text
}

/// The smallest change of `unit` that would be found within each span, and whether runs of one
/// variant side by side in time would have done.
fn line(trial: &Trial, unit: &Unit, took_sec: f64) -> String {
    let (a, b) = match trial.cells(unit) {
        [a, b] => (a, b),
        _ => return "    not counted".to_owned(),
    };
    if let Some(why) = a.why_absent() {
        return format!("    not counted: {why}");
    }
    let (old, new) = (a.figures(), b.figures());
    let pairs = old.len().min(new.len());
    if pairs < LEAST {
        return format!("    {pairs} pairs are too few to tell; give it more time");
    }
    if old.iter().chain(new).all(|figure| *figure == old[0]) {
        return "    any change: it does not vary".to_owned();
    }
    let Some(differences) = Pairs::new(&old[..pairs], &new[..pairs]) else {
        return "    not finite".to_owned();
    };
    let rule = Rule::fixed(ALPHA);
    let mut text = String::new();
    for (_, span_sec) in SPANS {
        let affordable = (pairs as f64 * span_sec / took_sec) as usize;
        let found = differences
            .detectable(&rule, affordable.max(1))
            .filter(|_| affordable >= rule.needs(ALPHA));
        let change = found.map_or("none".to_owned(), |change| match differences.scale() {
            Scale::Ratio => percent(change).replace('+', "±"),
            Scale::Difference => format!("±{}", human(unit, change)),
        });
        let _ = write!(text, "{change:>12}");
    }
    let times: Vec<f64> = (0..old.len()).map(|at| at as f64).collect();
    let drifts = series::drift(&times, old).is_some_and(|drift| drift.p < SURE);
    let remembers = series::autocorrelation(old).is_some_and(|memory| memory.p < SURE);
    text += match (drifts, remembers) {
        (true, _) => "  interleaving was needed: it drifts",
        (false, true) => "  interleaving was needed: one run is like the run before",
        (false, false) => "  interleaving made no difference",
    };
    text
}
