//! The workload that is a compilation: measured as a command, then repeated uncounted for what would disturb the measurement; sizes and phases from what it left. Never judges its output.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use regex_lite::Regex;

mod sizes;
pub mod suite;

use super::command::{self, Command, Output};
use super::compiler::invocation::{End, Invocation, Limits};
use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::surroundings::Surroundings;
use super::{Error, Observed, Outcome, Scope, Workload, exact};
use crate::perf::plan::Plan;
use crate::sample::{Cause, Figure, Name, Value, Warning};

/// What is said of a compiler that ends well and has made nothing.
pub const NOTHING_MADE: &str = "it made nothing";

/// The parameter that names a phase of a compilation.
pub const PHASE: &str = "phase";

/// One compilation, in all its forms.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// What is measured.
    pub measured: Invocation,
    /// What it makes, if that has a size that matters.
    pub output: Option<Made>,
    /// Where it leaves the times of its phases.
    pub phases: Option<Phases>,
    /// How it is repeated.
    pub again: Option<Again>,
}

/// A file that is made.
#[derive(Clone, Debug)]
pub enum Made {
    /// Something to be linked.
    Object(PathBuf),
    /// What was linked.
    Program(PathBuf),
}

impl Made {
    /// Where it is.
    pub fn file(&self) -> &Path {
        match self {
            Made::Object(file) | Made::Program(file) => file,
        }
    }
}

/// The file with the times of a compilation's phases, as benchmarks in the Go format.
#[derive(Clone, Debug)]
pub enum Phases {
    /// It writes the file itself, as Go's compiler does with `-bench`.
    Written(PathBuf),
    /// It prints them, as Go's linker does with `-benchmark=cpu`.
    Printed(PathBuf),
}

/// A second compilation of the same, for what would disturb the first.
#[derive(Clone, Debug)]
pub enum Again {
    /// It leaves a memory profile in this file, as Go's compiler does with `-memprofile`.
    Profiled(Invocation, PathBuf),
    /// Its log has lines that tell the times of phases.
    Logged(Invocation, Regex),
    /// Its log has a line for each garbage collection, as Go programs write it with
    /// `GODEBUG=gctrace=1`.
    Traced(Invocation),
}

/// What is the same for all compilations of a run.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// What the compiler is given that it would not inherit.
    pub surroundings: Surroundings,
    /// It is ended after this long.
    pub timeout: Duration,
    /// Seconds between the ticks at which user and system time are sampled.
    pub tick_sec: Option<f64>,
}

/// A compilation, ready to be run again and again.
pub struct Compilation<'p> {
    measured: Command<'p>,
    output: Option<Made>,
    phases: Option<PathBuf>,
    again: Option<Repeated<'p>>,
    timeout: Duration,
    /// Where the measured run is bound to.
    affinity: Option<CpuSet>,
}

enum Repeated<'p> {
    Profiled {
        command: Box<Command<'p>>,
        profile: PathBuf,
    },
    Logged(Invocation, Log),
}

/// What the lines of a log tell.
enum Log {
    Phases(Regex),
    Collections,
}

impl<'p> Compilation<'p> {
    /// Prepares all that its runs share.
    ///
    /// Errors: those of [`Command::new`].
    pub fn new(
        name: &Name,
        variant: &str,
        jobs: Jobs,
        conditions: &Conditions,
        plan: &'p Plan,
    ) -> Result<Compilation<'p>, Error> {
        let command = |invocation: &Invocation, output| {
            let program = invocation.program.clone().into_os_string();
            let arguments = invocation.arguments.iter().cloned();
            let options = command::Options {
                argv: std::iter::once(program).chain(arguments).collect(),
                output,
                prepare: None,
                timeout: Some(conditions.timeout),
                interval: None,
                surroundings: conditions.surroundings.clone(),
                ignore_failure: false,
                tick_sec: conditions.tick_sec,
            };
            let environment = super::joined(invocation.environment.clone())?;
            Command::in_environment(name.clone(), variant, options, environment, plan)
        };
        let again = match jobs.again {
            None => None,
            Some(Again::Logged(again, pattern)) => {
                Some(Repeated::Logged(again, Log::Phases(pattern)))
            }
            Some(Again::Traced(again)) => Some(Repeated::Logged(again, Log::Collections)),
            Some(Again::Profiled(again, profile)) => Some(Repeated::Profiled {
                command: Box::new(command(&again, Output::Null)?),
                profile,
            }),
        };
        let (phases, printed) = match jobs.phases {
            None => (None, Output::Null),
            Some(Phases::Written(file)) => (Some(file), Output::Null),
            Some(Phases::Printed(file)) => (Some(file.clone()), Output::File(file)),
        };
        Ok(Compilation {
            measured: command(&jobs.measured, printed)?,
            output: jobs.output,
            phases,
            again,
            timeout: conditions.timeout,
            affinity: conditions.surroundings.affinity()?,
        })
    }

    /// Runs it again, for what the first run could not tell.
    fn repeat(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        let mut observed = Observed::default();
        match &mut self.again {
            None => {}
            Some(Repeated::Profiled { command, profile }) => {
                forget(profile);
                match command.observe(turn, interrupt, &mut |_| Ok(()))? {
                    Outcome::Observed(_) => {}
                    other => return Ok(other),
                }
                let text = fs::read(&*profile).unwrap_or_default();
                observed.values = allocations(&String::from_utf8_lossy(&text));
            }
            Some(Repeated::Logged(invocation, log)) => {
                let limits = Limits {
                    timeout: self.timeout,
                    interrupt,
                };
                let ended = at(self.affinity.as_ref(), || invocation.run(limits));
                let ended = ended.map_err(Error::Refused)?;
                if let End::Interrupted(signal) = ended.end {
                    return Ok(Outcome::Interrupted(signal));
                }
                if let Some(why) = ended.failure() {
                    return Ok(Outcome::Failed {
                        why,
                        stderr: ended.text(),
                        code: 1,
                    });
                }
                match log {
                    Log::Phases(pattern) => tell(phases_in_log(&ended.text(), pattern), partly)?,
                    Log::Collections => {
                        let cycles = collections(&ended.text());
                        observed.values = vec![exact("GC-cycles/op", cycles as f64)];
                    }
                }
            }
        }
        Ok(Outcome::Observed(observed))
    }
}

impl Workload for Compilation<'_> {
    fn benchmark(&self) -> &Name {
        self.measured.benchmark()
    }

    fn variant(&self) -> &str {
        self.measured.variant()
    }

    fn config(&self, turn: &Turn) -> Vec<(String, String)> {
        self.measured.config(turn)
    }

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        // What an earlier run has left is not to be taken for this one's.
        self.output.iter().for_each(|made| forget(made.file()));
        // Emptied only: what it prints goes to the file that was open all along.
        self.phases.iter().for_each(|file| drop(File::create(file)));
        let mut observed = match self.measured.observe(turn, interrupt, &mut |_| Ok(()))? {
            Outcome::Observed(observed) => observed,
            other => return Ok(other),
        };
        if let Some(made) = &self.output {
            match fs::read(made.file()) {
                Ok(output) => observed.values.extend(sizes::values(made, &output)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Outcome::Failed {
                        why: NOTHING_MADE.to_owned(),
                        stderr: String::new(),
                        code: 1,
                    });
                }
                Err(error) => observed.warnings.push(Warning(format!(
                    "its output cannot be read, so there are no sizes: {error}"
                ))),
            }
        }
        let mut parts = Vec::new();
        if let Some(file) = &self.phases {
            let text = fs::read(file).unwrap_or_default();
            tell(
                phases_of_go(&String::from_utf8_lossy(&text)),
                &mut |phase| {
                    parts.push(phase);
                    Ok(())
                },
            )?;
        }
        let mut later = |phase| {
            parts.push(phase);
            Ok(())
        };
        match self.repeat(turn, interrupt, &mut later)? {
            Outcome::Observed(again) => observed.values.extend(again.values),
            other => return Ok(other),
        }
        // Only now is it certain that there is a sample that they are of.
        for part in parts {
            partly(part).map_err(Error::Output)?;
        }
        Ok(Outcome::Observed(observed))
    }
}

/// Starts something on these CPUs, as far as we may use them ourselves: where they are set apart for
/// what is measured, it runs where we do.
fn at<T>(cpus: Option<&CpuSet>, start: impl FnOnce() -> T) -> T {
    let us = Pid::from_raw(0);
    let before = cpus.and_then(|_| sched_getaffinity(us).ok());
    if let (Some(cpus), Some(_)) = (cpus, before) {
        // What cannot be set is left as it is.
        let _ = sched_setaffinity(us, cpus);
    }
    let ended = start();
    if let Some(before) = before {
        let _ = sched_setaffinity(us, &before);
    }
    ended
}

fn forget(file: &Path) {
    // It may not be there; what cannot be removed, the compiler cannot write either, and says so.
    let _ = fs::remove_file(file);
}

/// Each phase as what was observed of a part.
fn tell(
    phases: Vec<(String, f64)>,
    partly: &mut dyn FnMut(Observed) -> io::Result<()>,
) -> Result<(), Error> {
    for (name, sec) in phases {
        let part = Observed {
            scope: Scope::Part(PHASE, name),
            iterations: 1,
            values: vec![exact("sec/op", sec)],
            ..Observed::default()
        };
        partly(part).map_err(Error::Output)?;
    }
    Ok(())
}

/// The phases in what Go's compiler and linker leave, without their sums:
/// `BenchmarkCompile:encoding/xml:fe:parse   1   120249556 ns/op   8.73 % …` and
/// `BenchmarkPclntab 1 60929871 ns/op …`.
fn phases_of_go(text: &str) -> Vec<(String, f64)> {
    let phase = |line: &str| {
        let mut words = line.strip_prefix("Benchmark")?.split_whitespace();
        let name = words.next()?;
        let name = match name.strip_prefix("Compile:") {
            // Behind the package's path, which has no colon.
            Some(name) => name.split_once(':')?.1,
            None => name,
        };
        let (_, ns) = (words.next()?, words.next()?.parse::<f64>().ok()?);
        let is_sum = ["total", "TotalTime"].contains(&name) || name.ends_with("subtotal");
        (words.next()? == "ns/op" && !is_sum).then(|| (name.to_owned(), ns / 1e9))
    };
    summed(text.lines().filter_map(phase))
}

/// The phases in a compiler's log, by a pattern with groups `name` and `sec`.
fn phases_in_log(log: &str, pattern: &Regex) -> Vec<(String, f64)> {
    let phase = |line: &str| {
        let found = pattern.captures(line)?;
        let sec = found.name("sec")?.as_str().parse::<f64>().ok()?;
        Some((found.name("name")?.as_str().trim().to_owned(), sec))
    };
    summed(log.lines().filter_map(phase))
}

/// The garbage collections that a Go program tells of with `GODEBUG=gctrace=1`, but for those that it
/// asked for itself: `gc 1 @0.833s 9%: 71+113+0.20 ms clock, …`.
fn collections(log: &str) -> usize {
    let is_cycle = |line: &&str| {
        let number = line
            .strip_prefix("gc ")
            .and_then(|rest| rest.split_once(" @"));
        number.is_some_and(|(number, _)| number.parse::<u64>().is_ok())
    };
    let cycles = log.lines().filter(is_cycle);
    cycles.filter(|line| !line.ends_with("(forced)")).count()
}

/// What comes several times, once with its sum.
fn summed(phases: impl Iterator<Item = (String, f64)>) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for (name, sec) in phases {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += sec,
            None => sums.push((name, sec)),
        }
    }
    sums
}

/// What the runtime of a Go program says of its memory at the end of a profile as text:
/// `# Mallocs = 992550`. The last collection is the profile's own.
fn allocations(profile: &str) -> Vec<Value> {
    let number = |key: &str| {
        profile.lines().find_map(|line| {
            let (name, value) = line.strip_prefix("# ")?.split_once(" = ")?;
            (name == key).then(|| value.trim().parse::<f64>().ok())?
        })
    };
    let value = |unit, number: Option<f64>| {
        let absent = || Figure::absent(Cause::new("the memory profile does not tell it"));
        Value::new(unit, number.map_or_else(absent, Figure::Exact))
    };
    let collections = number("NumGC").zip(number("NumForcedGC"));
    vec![
        value("allocs/op", number("Mallocs")),
        value("B/op", number("TotalAlloc")),
        value(
            "GC-cycles/op",
            collections.map(|(all, forced)| all - forced),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_again_is_bound_as_the_first_and_we_are_not() {
        let us = Pid::from_raw(0);
        let before = sched_getaffinity(us).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap());
        let mut only = CpuSet::new();
        only.set(first.unwrap()).unwrap();
        let bound = at(Some(&only), || sched_getaffinity(us).unwrap());
        assert_eq!((bound, sched_getaffinity(us).unwrap()), (only, before));
        assert_eq!(at(None, || sched_getaffinity(us).unwrap()), before);
    }

    #[test]
    fn phases_of_go_are_read_without_their_sums() {
        let text = "commit: go1.24.11\ngoos: linux\n\
            BenchmarkCompile:encoding/xml:fe:init      1    1143181 ns/op      0.07 %\n\
            BenchmarkCompile:encoding/xml:fe:parse     1  286603769 ns/op     17.69 %    4357 lines    15202 lines/s\n\
            BenchmarkCompile:encoding/xml:fe:subtotal  1  497004297 ns/op     30.68 %\n\
            BenchmarkCompile:encoding/xml:unaccounted  1       1000 ns/op      0.00 %\n\
            BenchmarkCompile:encoding/xml:total        1 1620068085 ns/op    100.00 %\n\
            BenchmarkCompile:cut off\n\
            BenchmarkPclntab 1 2000 ns/op\t8581240 B/op\t47364 allocs/op\t40475280 heap-B\n\
            BenchmarkTotalTime 1 680300667 ns/op\n";
        let want = [
            ("fe:init", 1143181e-9),
            ("fe:parse", 286603769e-9),
            ("unaccounted", 1e-6),
            ("Pclntab", 2e-6),
        ];
        let want = want.map(|(name, sec): (&str, f64)| (name.to_owned(), sec));
        let got = phases_of_go(text);
        assert_eq!(got.len(), want.len());
        for ((name, sec), (want, want_sec)) in got.iter().zip(&want) {
            assert_eq!(name, want);
            assert!((sec - want_sec).abs() < 1e-12);
        }
        assert_eq!(phases_of_go(""), []);
    }

    #[test]
    fn phases_in_a_log_are_found_and_summed_up() {
        let pattern = Regex::new(r"^(?<name>[a-z ]+): (?<sec>[0-9.]+) s$").unwrap();
        let log = "parse: 0.5 s\nnonsense\ncode gen: 1.25 s\nparse: 0.25 s\nbad: . s\n";
        let want = [("parse".to_owned(), 0.75), ("code gen".to_owned(), 1.25)];
        assert_eq!(phases_in_log(log, &pattern), want);
    }

    #[test]
    fn collections_are_counted_in_a_trace() {
        let log = "gc 1 @0.8s 9%: 71+113+0.20 ms clock, 2 P\nspeaking of gc 2 @ 5\n\
            gc 2 @1.3s 9%: 6.7+153+0.22 ms clock, 2 P\ngc x @1\n\
            gc 3 @1.6s 10%: 1.5+65+0.004 ms clock, 2 P (forced)\n";
        assert_eq!((collections(log), collections("")), (2, 0));
    }

    #[test]
    fn allocations_stand_at_the_end_of_a_profile() {
        let profile = "heap profile: 1: 2 [3: 4] @ heap/1048576\n\n# runtime.MemStats\n\
            # Alloc = 21\n# TotalAlloc = 81990392\n# Mallocs = 992550\n# NumGC = 3\n\
            # NumForcedGC = 1\n# MaxRSS = 76632064\n";
        let check = |profile: &str, want: [Option<f64>; 3]| {
            let got = allocations(profile);
            let got: Vec<_> = got.iter().map(|value| value.figure.number()).collect();
            assert_eq!(got, want);
        };
        check(profile, [Some(992550.0), Some(81990392.0), Some(2.0)]);
        check("# Mallocs = 5\n", [Some(5.0), None, None]);
        check("", [None, None, None]);
    }
}
