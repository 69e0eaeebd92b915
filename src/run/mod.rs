//! Running workloads: rounds of fresh processes with counters round them, each observation a record. Never compares, never prints.

pub mod attach;
pub mod batch;
pub mod build;
pub mod command;
pub mod compilation;
pub mod compiler;
mod counted;
pub mod duty;
pub mod escape;
pub mod faults;
pub mod frequency;
pub mod identical;
pub mod interrupt;
pub mod looped;
pub mod loops;
mod memory;
pub mod noise;
pub mod profiled;
mod ptraced;
pub mod schedule;
pub mod surroundings;
pub mod symbols;
pub mod syscalls;
pub mod traced;
pub mod wait;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::perf::plan::{self, Kind, Plan, Readings};
use crate::sample::{
    Cause, End, Failure, Figure, INTERVAL_END, Name, Record, Sample, Value, Warning,
};
use crate::sys::privilege;
use crate::unit::Unit;
use interrupt::Interrupt;
use noise::Noise;
use schedule::{Schedule, Turn};

/// Takes records as they are made; an error ends the run.
pub type Sink<'a> = dyn FnMut(Record) -> io::Result<()> + 'a;

/// What is measured: one benchmark in one variant.
pub trait Workload {
    /// The name that its samples carry.
    fn benchmark(&self) -> &Name;

    /// The variant that its samples carry.
    fn variant(&self) -> &str;

    /// Whether what it measures is ours: run by our children. Then all other work on the machine
    /// is noise.
    fn is_ours(&self) -> bool {
        true
    }

    /// The settings that its sample of this turn carries.
    fn config(&self, _turn: &Turn) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Runs once and tells what came of it. `partly` takes what is observed before the end, such
    /// as intervals.
    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error>;
}

/// What an observation is about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// The workload's benchmark, in a whole run.
    #[default]
    Run,
    /// A part of the run, which a parameter of the benchmark's name tells: an interval, a phase.
    Part(&'static str, String),
    /// Something in it that is a benchmark of its own: a syscall.
    Within(Name),
}

/// What was measured in one run, or in one interval of it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Observed {
    /// Of what.
    pub scope: Scope,
    /// Operations measured.
    pub iterations: u64,
    /// Settings of this observation alone.
    pub config: Vec<(String, String)>,
    /// The numbers.
    pub values: Vec<Value>,
    /// The doubts.
    pub warnings: Vec<Warning>,
    /// The exit code that stands for the run's end.
    pub code: u8,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ended well, or its end does not matter.
    Observed(Observed),
    /// It failed: no sample.
    Failed {
        /// `exit status 1`, `killed by SIGSEGV`.
        why: String,
        /// The last lines of its standard error.
        stderr: String,
        /// The exit code that stands for it.
        code: u8,
    },
    /// We were asked to stop.
    Interrupted(Signal),
}

/// How a whole run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// What was recorded.
    pub end: End,
    /// The exit code of the first failed run, if one failed.
    pub failed_code: Option<u8>,
    /// The signal that cut it short.
    pub interrupted: Option<Signal>,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be executed.
    #[error("cannot run {program}: {}", exec_reason(*errno))]
    Exec {
        /// As the user named it.
        program: String,
        /// ENOENT, EACCES, ENOEXEC, …
        errno: Errno,
    },
    /// A system call for the run failed.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Counters could not be opened or read.
    #[error("cannot count: {}", .0.why)]
    Count(Cause),
    /// What was to be traced cannot be.
    #[error("cannot trace: {}", .0.why)]
    Trace(Cause),
    /// A setting of the measured process that was asked for cannot be had.
    #[error("{}", .0.why)]
    Refused(Cause),
    /// A preparation failed.
    #[error("{0}")]
    Prepare(String),
    /// The records could not be written.
    #[error("cannot write the records: {0}")]
    Output(io::Error),
    /// Most runs of one workload failed.
    #[error("{failures} of {runs} runs{} failed; the last: {why}", of(variant))]
    TooManyFailures {
        /// The variant that failed.
        variant: String,
        /// Failed runs.
        failures: u64,
        /// All runs.
        runs: u64,
        /// The last failure.
        why: String,
        /// The exit code that stands for the first of them.
        code: u8,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Exec {
                errno: Errno::ENOEXEC,
                ..
            } => Some("a script needs a first line such as #!/bin/sh; or run it with sh"),
            Error::Exec {
                errno: Errno::ENOENT,
                ..
            } => Some("check its spelling and $PATH; shell syntax takes sh -c"),
            Error::Count(cause) | Error::Trace(cause) | Error::Refused(cause) => {
                cause.cure.as_deref()
            }
            _ => None,
        }
    }

    fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let action = action.into();
        move |error| Error::System { action, error }
    }
}

/// Turns successive readings of the same counters into one observation an interval.
struct Intervals<'p> {
    plan: &'p Plan,
    rotation: Option<u64>,
    began: Instant,
    last: Instant,
    readings: Option<Readings>,
}

impl<'p> Intervals<'p> {
    fn new(plan: &'p Plan, rotation: Option<u64>, began: Instant) -> Intervals<'p> {
        Intervals {
            plan,
            rotation,
            began,
            last: began,
            readings: None,
        }
    }

    /// The interval that ends now; `nominal` is its wanted length.
    fn observe(&mut self, readings: Readings, nominal: Option<Duration>) -> Observed {
        let now = Instant::now();
        let counted = match &self.readings {
            Some(earlier) => plan::since(&readings, earlier),
            None => readings.clone(),
        };
        let mut values = vec![exact("sec/op", (now - self.last).as_secs_f64())];
        values.extend(
            self.plan
                .values(self.rotation, &counted)
                .into_iter()
                .map(|(_, value)| value),
        );
        (self.last, self.readings) = (now, Some(readings));
        Observed {
            scope: nominal.map_or(Scope::Run, |length| {
                Scope::Part("interval", humantime::format_duration(length).to_string())
            }),
            iterations: 1,
            config: vec![(
                INTERVAL_END.to_owned(),
                format!("{:.3}", (now - self.began).as_secs_f64()),
            )],
            values,
            ..Observed::default()
        }
    }
}

/// ` of VARIANT`, where there are several.
fn of(variant: &str) -> String {
    match variant {
        "base" => String::new(),
        variant => format!(" of {variant}"),
    }
}

/// Whether a unit tells of the machine, or of measuring, and not of what was measured.
pub fn is_aside(unit: &Unit) -> bool {
    const ASIDE: [&str; 18] = [
        "others-CPUs",
        "steal-CPUs",
        "sibling-CPUs",
        "CPU-Hz",
        "tare-sec",
        "empty-sec",
        "clock-sec",
        "null-untraced-sec",
        "null-bystander-sec",
        "null-traced-sec",
        "null-recorded-sec",
        "tracing-sec",
        "unseen-faults",
        "lost-faults",
        "lost-records",
        "lost-threads",
        "lost-mappings",
        "malformed-records",
    ];
    ASIDE.contains(&unit.as_str())
}

fn exact(unit: &str, figure: f64) -> Value {
    Value::new(unit, Figure::Exact(figure))
}

/// How many values it takes for a quantile of theirs: below so many it is the largest under another
/// name.
fn least_for(quantile: f64) -> u64 {
    (1.0 / (1.0 - quantile)).round() as u64
}

/// CPUs that were busy on average: CPU time over wall time.
fn cpus_used(counted: &[(Kind, Value)], wall: Duration) -> Option<Value> {
    let (_, clock) = counted
        .iter()
        .find(|(_, value)| value.unit.as_str() == "task-clock-sec/op")?;
    Some(Value::new(
        "CPUs",
        clock
            .figure
            .clone()
            .map(|busy_sec| busy_sec / wall.as_secs_f64()),
    ))
}

/// Our environment, to be handed on as it is.
fn environment() -> Result<Vec<CString>, Error> {
    environment_with(&[])
}

/// Our environment, in which these variables are set.
///
/// Errors: [`Error::System`] when one of them has a NUL byte.
pub fn environment_with(set: &[(&str, OsString)]) -> Result<Vec<CString>, Error> {
    let users = variables()?.into_iter();
    let users = users.filter(|(key, _)| !set.iter().any(|(name, _)| key == name));
    let set = set
        .iter()
        .map(|(key, value)| (OsString::from(key), value.clone()));
    joined(users.chain(set).collect())
}

/// An environment in the form that the kernel takes.
fn joined(variables: Vec<(OsString, OsString)>) -> Result<Vec<CString>, Error> {
    let joined = variables.into_iter().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    joined.map(c_string).collect()
}

/// Our environment as it came. What the C library took out of it, because capabilities of our file
/// made it distrust variables such as `LD_LIBRARY_PATH`, the kernel still has.
fn variables() -> Result<Vec<(OsString, OsString)>, Error> {
    if !privilege::is_raised() {
        return Ok(std::env::vars_os().collect());
    }
    let block =
        std::fs::read("/proc/self/environ").map_err(Error::system("read /proc/self/environ"))?;
    let pair = |line: &[u8]| {
        let end = line.iter().position(|&byte| byte == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&line[..end]), text(&line[end + 1..])))
    };
    Ok(block.split(|&byte| byte == 0).filter_map(pair).collect())
}

fn c_string(text: OsString) -> Result<CString, Error> {
    CString::new(text.into_vec())
        .map_err(|error| Error::system("pass an argument with a NUL byte")(error.into()))
}

fn exec_reason(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "not found",
        Errno::EACCES => "not executable",
        Errno::ENOEXEC => "not a program that the kernel can execute",
        Errno::E2BIG => "arguments and environment are too long",
        other => other.desc(),
    }
}

/// Runs `workloads` as `schedule` says and gives every observation to `sink` as it is made.
///
/// `warmup` rounds run first and are not recorded. A failed run is recorded as a failure and the
/// run goes on, unless nearly all fail.
pub fn drive(
    schedule: &mut Schedule,
    warmup: u64,
    workloads: &mut [Box<dyn Workload + '_>],
    interrupt: &Interrupt,
    noise: &mut Noise<'_>,
    sink: &mut Sink<'_>,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    for _ in 0..warmup {
        for workload in workloads.iter_mut() {
            let turn = Turn {
                workload: 0,
                order: Default::default(),
                coin: false,
                draw: 0,
                only: false,
            };
            match workload.observe(&turn, interrupt, &mut |_| Ok(()))? {
                Outcome::Observed(_) => {}
                Outcome::Failed { why, stderr, .. } => {
                    let last = stderr.trim_end().lines().next_back();
                    let said = last.map_or(String::new(), |line| format!(", saying: {line}"));
                    let of = match workload.variant() {
                        "base" => String::new(),
                        variant => format!(" of {variant}"),
                    };
                    return Err(Error::Prepare(format!(
                        "the warm-up{of} failed: {why}{said}"
                    )));
                }
                Outcome::Interrupted(signal) => {
                    tally.interrupted = Some(signal);
                    return Ok(tally);
                }
            }
        }
    }
    let began = Instant::now();
    let (mut runs_of, mut failures_of) = (vec![0; workloads.len()], vec![0; workloads.len()]);
    while let Some(turn) = schedule.next(began.elapsed()) {
        let workload = &mut workloads[turn.workload];
        let (benchmark, variant) = (workload.benchmark().clone(), workload.variant().to_owned());
        let settings = workload.config(&turn);
        let record = |observed: Observed| {
            let name = benchmark.clone();
            Record::Sample(Sample {
                benchmark: match observed.scope {
                    Scope::Run => name,
                    Scope::Part(key, value) => name.with(key, value),
                    Scope::Within(name) => name,
                },
                variant: variant.clone(),
                iterations: observed.iterations,
                order: turn.order,
                config: observed
                    .config
                    .into_iter()
                    .chain(settings.clone())
                    .collect(),
                values: observed.values,
                warnings: observed.warnings,
            })
        };
        runs_of[turn.workload] += 1;
        let mut samples = 0;
        let mut partly = |observed| {
            samples += 1;
            sink(record(observed))
        };
        let outcome = workload.observe(&turn, interrupt, &mut partly)?;
        match outcome {
            Outcome::Observed(mut observed) => {
                if workload.is_ours() {
                    let (values, warning) = noise.look();
                    observed.values.extend(values);
                    observed.warnings.extend(warning);
                }
                samples += 1;
                if observed.code != 0 {
                    tally.failed_code.get_or_insert(observed.code);
                }
                sink(record(observed)).map_err(Error::Output)?;
            }
            Outcome::Failed { why, stderr, code } => {
                tally.end.failures += 1;
                tally.failed_code.get_or_insert(code);
                let failure = Failure {
                    benchmark: benchmark.clone(),
                    variant: variant.clone(),
                    order: turn.order,
                    why: why.clone(),
                    stderr,
                };
                sink(Record::Failure(failure)).map_err(Error::Output)?;
                failures_of[turn.workload] += 1;
                let (failures, runs) = (failures_of[turn.workload], runs_of[turn.workload]);
                if failures >= 3 && failures * 2 > runs {
                    return Err(Error::TooManyFailures {
                        variant,
                        failures,
                        runs,
                        why,
                        code: tally.failed_code.unwrap_or(code),
                    });
                }
            }
            Outcome::Interrupted(signal) => {
                tally.interrupted = Some(signal);
                tally.end.samples += samples;
                break;
            }
        }
        tally.end.samples += samples;
    }
    Ok(tally)
}
