//! The syscalls of a command, of running processes or of the whole machine, profiled for a while, as records. Never prints, and knows no way to see a syscall itself: that is the probe's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::command::cpu_values;
use super::interrupt::Interrupt;
use super::traced::Traced;
use super::wait::{Wait, Woken};
use super::{Error, exact};
use crate::probe::kernel::Facts;
use crate::probe::profile::{Call, Histogram, Profile, Time};
use crate::probe::record::Purpose;
use crate::probe::syscalls::{Options, Profiler, Tare, null_call_ns};
use crate::probe::{self, Rung};
use crate::sample::{Figure, Name, Order, Rule, Sample, Value, Warning};
use crate::sys::child::{Usage, open_pidfd};

/// Whose syscalls.
pub enum Subject {
    /// Those of a command and all that it creates, from its exec on.
    Command(Box<Traced>),
    /// Those of running processes, and of what they create from now on.
    Processes(Vec<i32>),
    /// Those of all processes but ours.
    Everyone,
}

/// How they are profiled.
#[derive(Clone, Debug)]
pub struct How {
    /// What is looked at.
    pub options: Options,
    /// For how long, of what runs already.
    pub timeout: Option<Duration>,
    /// The roots of procfs and sysfs.
    pub roots: (PathBuf, PathBuf),
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Observation {
    /// By what.
    pub rung: Rung,
    /// The syscalls.
    pub profile: Profile,
    /// What tracing costs here, where that can be measured.
    pub tare: Option<Tare>,
    /// How long was looked.
    pub wall: Duration,
    /// What a command used, and how that was told apart.
    pub usage: Option<(Usage, Option<f64>)>,
    /// The exit code that stands for its end.
    pub code: u8,
    /// What is doubtful.
    pub warnings: Vec<Warning>,
    /// The signal by which we were asked to stop.
    pub interrupted: Option<Signal>,
}

/// Profiles by programs in the kernel.
pub fn by_programs(
    subject: Subject,
    how: &How,
    interrupt: &Interrupt,
) -> Result<Observation, Error> {
    let (proc, sys) = &how.roots;
    let refused = |error: probe::Error| Error::Trace(error.explain(&Facts::look(proc, sys)));
    if let Some(obstacle) = Facts::look(proc, sys).obstacle() {
        return Err(Error::Trace(obstacle));
    }
    let untraced_ns = null_call_ns();
    let mut profiler = Profiler::load(sys, how.options.clone()).map_err(refused)?;
    let begin = |profiler: &mut Profiler| {
        profiler.attach()?;
        profiler.tare(untraced_ns).map(Some)
    };
    let mut observation = Observation {
        rung: Rung::Programs,
        profile: Profile::default(),
        tare: None,
        wall: Duration::ZERO,
        usage: None,
        code: 0,
        warnings: Vec::new(),
        interrupted: None,
    };
    match subject {
        Subject::Command(mut traced) => {
            let child = traced.start()?;
            observation.tare = begin(&mut profiler).map_err(refused)?;
            let pid = child.pid().as_raw();
            profiler.follow(pid, Purpose::AtExec).map_err(refused)?;
            let ended = traced.run(child, interrupt, &mut || Ok(()))?;
            observation.wall = ended.wall;
            observation.usage = Some((ended.usage, traced.tick_sec()));
            observation.code = ended.code;
            observation.warnings = ended.warnings;
            observation.interrupted = ended.interrupted;
        }
        Subject::Processes(pids) => {
            let ends = watch(&pids)?;
            observation.tare = begin(&mut profiler).map_err(refused)?;
            let began = Instant::now();
            for pid in pids {
                follow_all(&mut profiler, pid).map_err(refused)?;
            }
            observation.interrupted = wait(Some(ends), how.timeout, interrupt)?;
            observation.wall = began.elapsed();
        }
        Subject::Everyone => {
            observation.tare = begin(&mut profiler).map_err(refused)?;
            let began = Instant::now();
            observation.interrupted = wait(None, how.timeout, interrupt)?;
            observation.wall = began.elapsed();
        }
    }
    profiler.detach();
    observation.profile = profiler.read();
    Ok(observation)
}

/// Follows all threads of a process. One that is created while we look may be missed by the first
/// look; those that it finds are followed by the kernel.
fn follow_all(profiler: &mut Profiler, pid: i32) -> Result<(), probe::Error> {
    const LOOKS: usize = 8;
    for _ in 0..LOOKS {
        let before = profiler.followed();
        profiler.follow(pid, Purpose::Process)?;
        if profiler.followed() == before {
            break;
        }
    }
    Ok(())
}

/// What tells the end of each process.
fn watch(pids: &[i32]) -> Result<Vec<OwnedFd>, Error> {
    let opened = pids.iter().map(|&pid| {
        let opened = open_pidfd(pid);
        opened.map_err(|error| {
            let error = match error.raw_os_error() {
                // What is a thread is no process.
                Some(libc::EINVAL | libc::ENOENT) => Errno::ESRCH.into(),
                _ => error,
            };
            Error::system(format!("follow process {pid}"))(error)
        })
    });
    opened.collect()
}

/// Waits until all have ended, the time is up or we are asked to stop.
fn wait(
    mut ends: Option<Vec<OwnedFd>>,
    timeout: Option<Duration>,
    interrupt: &Interrupt,
) -> Result<Option<Signal>, Error> {
    let mut wait = Wait::new(Instant::now(), timeout, None, interrupt);
    loop {
        let end = match ends.as_ref().map(|ends| ends.last()) {
            Some(None) => return Ok(None),
            Some(Some(end)) => Some(end.as_fd()),
            None => None,
        };
        let woken = wait.until(end, None);
        match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
            Woken::Ended => {
                ends.as_mut().and_then(Vec::pop);
            }
            Woken::TimeUp => return Ok(None),
            Woken::Interrupted(signal) => return Ok(Some(signal)),
            Woken::Tick => {}
        }
    }
}

/// The name of the sample that is about the whole run.
pub const WHOLE: &str = "Syscalls";

/// The name of the samples that are about one syscall each.
pub const EACH: &str = "Syscall";

impl Observation {
    /// The records of it: one sample for the whole, and one for each syscall, the most time first.
    pub fn samples(&self, variant: &str) -> Vec<Sample> {
        let mut calls: Vec<&Call> = self.profile.calls.iter().collect();
        calls.sort_by_key(|call| {
            let total_ns = call.time.as_ref().map_or(0, |time| time.total_ns);
            std::cmp::Reverse((total_ns, call.all()))
        });
        let whole = (Name::new(WHOLE), 1, self.whole());
        let each = calls.into_iter().map(|call| {
            let name = Name::new(EACH).with("name", call.number.name());
            (name, call.all(), self.values(call))
        });
        let samples = [whole].into_iter().chain(each).zip(0..);
        let samples = samples.map(|((benchmark, iterations, values), sequence)| Sample {
            benchmark,
            variant: variant.to_owned(),
            iterations,
            order: Order {
                sequence,
                ..Order::default()
            },
            config: [("rung".to_owned(), self.rung.word().to_owned())].into(),
            values,
            warnings: if sequence == 0 {
                self.doubts()
            } else {
                Vec::new()
            },
        });
        samples.collect()
    }

    /// The values of the whole run.
    fn whole(&self) -> Vec<Value> {
        let calls = &self.profile.calls;
        let mut values = vec![exact("sec/op", self.wall.as_secs_f64())];
        if let Some((usage, tick_sec)) = &self.usage {
            values.extend(cpu_values(usage, *tick_sec));
        }
        let all: u64 = calls.iter().map(Call::all).sum();
        values.push(exact("calls", all as f64));
        let failed: Option<u64> = calls.iter().map(Call::failed).sum();
        values.extend(failed.map(|failed| exact("errors", failed as f64)));
        let times: Option<Vec<&Time>> = calls.iter().map(|call| call.time.as_ref()).collect();
        if let Some(times) = times.filter(|times| !times.is_empty()) {
            let total_ns: u64 = times.iter().map(|time| time.total_ns).sum();
            values.push(exact("total-sec", seconds(total_ns)));
            let off_ns: Option<u64> = times.iter().map(|time| time.off_ns).sum();
            values.extend(off_ns.map(|off_ns| exact("off-CPU-sec", seconds(off_ns))));
        }
        if let Some(threads) = self.profile.threads {
            values.push(exact("threads", threads as f64));
        }
        if let Some(tare) = &self.tare {
            values.extend(tare_values(tare, all));
        }
        values
    }

    fn values(&self, call: &Call) -> Vec<Value> {
        let mut values = vec![exact("calls", call.all() as f64)];
        let unfinished = call.unfinished + call.under_way_ns.len() as u64;
        if unfinished > 0 {
            values.push(exact("unfinished-calls", unfinished as f64));
        }
        if let Some(time) = &call.time
            && call.returned > 0
        {
            values.extend(self.times(call.returned, time));
        }
        if let Some(sum) = call.returned_sum
            && call.returned > 0
        {
            values.push(exact("bytes/op", sum as f64 / call.returned as f64));
        }
        if let Some(errors) = &call.errors {
            let failed: u64 = errors.values().sum();
            values.push(exact("errors", failed as f64));
            values.extend(errors.iter().map(|(errno, count)| {
                exact(&format!("errors:{}", errno_name(*errno)), *count as f64)
            }));
        }
        values
    }

    fn times(&self, returned: u64, time: &Time) -> Vec<Value> {
        let mean_sec = seconds(time.total_ns) / returned as f64;
        let mut values = vec![
            exact("total-sec", seconds(time.total_ns)),
            exact("sec/op", mean_sec),
        ];
        if let Some(off_ns) = time.off_ns {
            values.push(exact("off-CPU-sec", seconds(off_ns)));
        }
        if let Some(surplus_ns) = self.tare.as_ref().and_then(Tare::surplus_ns) {
            // Below nothing there is only noise.
            let value = (mean_sec - surplus_ns / 1e9).max(0.0);
            values.push(estimated(
                "untraced-sec/op",
                value,
                "less what tracing adds to a call that does nothing",
            ));
        }
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        values.extend(quantiles.into_iter().filter_map(|(name, q)| {
            let ns = time.histogram.quantile_ns(q)?;
            // The longest is known, whatever its bucket.
            let value = ns.min(time.longest_ns as f64) / 1e9;
            let rule = format!("within {} %", Histogram::WIDTH * 100.0);
            Some(estimated(&format!("{name}-sec"), value, &rule))
        }));
        values.push(exact("max-sec", seconds(time.longest_ns)));
        values
    }

    /// What is doubtful of the whole.
    fn doubts(&self) -> Vec<Warning> {
        let missing = &self.profile.missing;
        let mut doubts = self.warnings.clone();
        if missing.threads > 0 {
            doubts.push(Warning(format!(
                "{} threads are missing: their places in the table were taken",
                missing.threads
            )));
        }
        if missing.calls > 0 {
            doubts.push(Warning(format!("{} calls are missing", missing.calls)));
        }
        doubts
    }
}

/// What tracing costs, and cost in a run of so many calls.
fn tare_values(tare: &Tare, calls: u64) -> Vec<Value> {
    let mut values = vec![
        exact("null-untraced-sec", tare.untraced_ns / 1e9),
        exact("null-bystander-sec", tare.bystander_ns / 1e9),
        exact("null-traced-sec", tare.traced_ns / 1e9),
    ];
    values.extend(
        tare.recorded_ns
            .map(|ns| exact("null-recorded-sec", ns / 1e9)),
    );
    let added_ns = (tare.traced_ns - tare.untraced_ns).max(0.0);
    values.push(estimated(
        "tracing-sec",
        added_ns * calls as f64 / 1e9,
        "what tracing adds to a call that does nothing, times the calls",
    ));
    values
}

/// The name of an errno, those included that no program sees.
pub fn errno_name(errno: u16) -> String {
    match errno {
        512 => "ERESTARTSYS".to_owned(),
        513 => "ERESTARTNOINTR".to_owned(),
        514 => "ERESTARTNOHAND".to_owned(),
        515 => "ENOIOCTLCMD".to_owned(),
        516 => "ERESTART_RESTARTBLOCK".to_owned(),
        _ => match Errno::from_raw(errno.into()) {
            Errno::UnknownErrno => format!("errno_{errno}"),
            known => format!("{known:?}"),
        },
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn estimated(unit: &str, value: f64, rule: &str) -> Value {
    let rule = Rule(rule.to_owned());
    Value::new(unit, Figure::Estimated { value, rule })
}
