//! The syscalls of a command, of running processes or of the whole machine, profiled for a while, as records. Never prints, and knows no way to see a syscall itself: that is the probe's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::command::cpu_values;
use super::counted::Counted;
use super::duty::{Clock, Duty, SLICE, Sampling};
use super::interrupt::Interrupt;
use super::ptraced::Ptraced;
use super::traced::{Ended, Traced};
use super::wait::{Wait, Woken};
use super::{Error, exact};
use crate::probe::kernel::Facts;
use crate::probe::profile::{Call, Histogram, Profile, Time};
use crate::probe::record::Purpose;
use crate::probe::syscalls::{Options, Profiler, Tare, null_call_ns};
use crate::probe::{self, Rung};
use crate::sample::{Cause, Figure, Name, Order, Rule, Sample, Value, Warning};
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
    /// What came is given once in this long, too.
    pub interval: Option<Duration>,
    /// The share of the time in which is traced, and the seed of when; else it is always.
    pub duty: Option<(f64, u64)>,
    /// The rung to stand on; else the best that can be had.
    pub rung: Option<Rung>,
    /// The roots of procfs and sysfs.
    pub roots: (PathBuf, PathBuf),
}

impl How {
    /// How often something is to be done while it runs.
    pub fn tick(&self) -> Option<Duration> {
        self.duty.map(|_| SLICE).or(self.interval)
    }
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Observation {
    /// By what.
    pub rung: Rung,
    /// The better ways that could not be had, and why.
    pub missed: Vec<(Rung, Cause)>,
    /// The syscalls.
    pub profile: Profile,
    /// What tracing costs here, where that can be measured.
    pub tare: Option<Tare>,
    /// How long was looked.
    pub wall: Duration,
    /// Whether slow calls were to be told.
    pub wants_slow: bool,
    /// Of what the profile is a sample, when it is not the whole.
    pub sampling: Option<Sampling>,
    /// What a command used, and how that was told apart.
    pub usage: Option<(Usage, Option<f64>)>,
    /// The exit code that stands for its end.
    pub code: u8,
    /// What is doubtful.
    pub warnings: Vec<Warning>,
    /// The signal by which we were asked to stop.
    pub interrupted: Option<Signal>,
}

/// Takes what came in an interval, and how long after the beginning that ended.
pub type Partly<'a> = dyn FnMut(Observation, Duration) -> io::Result<()> + 'a;

/// Profiles on the rung that is asked for, or else on the best that can be had; `partly` takes
/// intervals.
pub fn observe(
    subject: &mut Subject,
    how: &How,
    interrupt: &Interrupt,
    partly: &mut Partly<'_>,
) -> Result<Observation, Error> {
    let rungs = match (how.rung, &subject) {
        (Some(rung), _) => vec![rung],
        // What runs already, slices and intervals are for programs in the kernel alone.
        (None, _) if how.tick().is_some() => vec![Rung::Programs],
        (None, Subject::Command(_)) => vec![Rung::Programs, Rung::Counters, Rung::Ptrace],
        (None, _) => vec![Rung::Programs],
    };
    let mut missed = Vec::new();
    let last = rungs.len() - 1;
    for (n, rung) in rungs.into_iter().enumerate() {
        let observed = match (rung, &mut *subject) {
            (Rung::Programs, subject) => by_programs(subject, how, interrupt, partly),
            (Rung::Counters, Subject::Command(traced)) => by_counters(traced, how, interrupt),
            (Rung::Ptrace, Subject::Command(traced)) => by_ptrace(traced, how, interrupt),
            _ => Err(Error::Trace(Cause::new(format!(
                "{} sees only a command that poise starts",
                rung.word()
            )))),
        };
        match observed {
            Err(Error::Trace(cause)) if n < last => missed.push((rung, cause)),
            observed => {
                return observed.map(|observation| Observation {
                    missed,
                    wants_slow: how.options.slow_ns.is_some(),
                    ..observation
                });
            }
        }
    }
    unreachable!("the last rung's result was returned")
}

fn by_programs(
    subject: &mut Subject,
    how: &How,
    interrupt: &Interrupt,
    partly: &mut Partly<'_>,
) -> Result<Observation, Error> {
    let (proc, sys) = &how.roots;
    let refused = |error: probe::Error| refusal(&error, how);
    if let Some(obstacle) = Facts::look(proc, sys).obstacle() {
        return Err(Error::Trace(obstacle));
    }
    let untraced_ns = null_call_ns();
    let mut profiler = Profiler::load(sys, how.options.clone()).map_err(refused)?;
    let begin = |profiler: &mut Profiler| {
        profiler.attach()?;
        profiler.tare(untraced_ns).map(Some)
    };
    let (tare, duty);
    let mut observation = match subject {
        Subject::Command(traced) => {
            let child = traced.start()?;
            tare = begin(&mut profiler).map_err(refused)?;
            let pid = child.pid().as_raw();
            profiler.follow(pid, Purpose::AtExec).map_err(refused)?;
            let mut slices =
                Slices::begin(how, &mut profiler, tare, Some(pid), partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how);
            let ended = traced.run(child, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::of(Rung::Programs, ended, traced.tick_sec())
        }
        Subject::Processes(pids) => {
            let ends = watch(pids)?;
            tare = begin(&mut profiler).map_err(refused)?;
            let began = Instant::now();
            for pid in pids {
                follow_all(&mut profiler, *pid).map_err(refused)?;
            }
            let mut slices =
                Slices::begin(how, &mut profiler, tare, None, partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how);
            let interrupted = wait(Some(ends), how, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::span(began.elapsed(), interrupted)
        }
        Subject::Everyone => {
            tare = begin(&mut profiler).map_err(refused)?;
            let began = Instant::now();
            let mut slices =
                Slices::begin(how, &mut profiler, tare, None, partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how);
            let interrupted = wait(None, how, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::span(began.elapsed(), interrupted)
        }
    };
    observation.sampling = duty.map(|duty| duty.finish(&mut profiler));
    profiler.detach();
    observation.profile = profiler.read();
    observation.tare = tare;
    Ok(observation)
}

/// What a refusal of the kernel's means here.
fn refusal(error: &probe::Error, how: &How) -> Error {
    let (proc, sys) = &how.roots;
    Error::Trace(error.explain(&Facts::look(proc, sys)))
}

fn by_counters(
    traced: &mut Traced,
    how: &How,
    interrupt: &Interrupt,
) -> Result<Observation, Error> {
    let child = traced.start()?;
    let only = how.options.only.as_deref();
    let counted = Counted::open(child.pid().as_raw(), only).map_err(Error::Trace)?;
    let ended = traced.run(child, interrupt, &mut || Ok(()))?;
    let profile = counted.profile().map_err(Error::Trace)?;
    Ok(Observation {
        profile,
        ..Observation::of(Rung::Counters, ended, traced.tick_sec())
    })
}

fn by_ptrace(traced: &mut Traced, how: &How, interrupt: &Interrupt) -> Result<Observation, Error> {
    let child = traced.start()?;
    let only = how.options.only.clone();
    let mut tracer = Ptraced::new(child.pid(), only).map_err(Error::Trace)?;
    let ended = traced.run_by(child, interrupt, &mut || Ok(()), Some(&mut tracer))?;
    Ok(Observation {
        profile: tracer.profile(),
        ..Observation::of(Rung::Ptrace, ended, traced.tick_sec())
    })
}

/// A run in slices: intervals one after the other, or a few of them traced.
struct Slices<'a, 'p> {
    duty: Option<Duty>,
    began: Instant,
    last: Instant,
    seen: Profile,
    partly: &'a mut Partly<'p>,
}

impl<'a, 'p> Slices<'a, 'p> {
    fn begin(
        how: &How,
        profiler: &mut Profiler,
        tare: Option<Tare>,
        child: Option<i32>,
        partly: &'a mut Partly<'p>,
    ) -> Result<Slices<'a, 'p>, probe::Error> {
        let clock = child.and_then(|pid| Clock::of(pid).ok());
        let clock = clock.unwrap_or(Clock::Wall(Instant::now()));
        let mut duty = how
            .duty
            .map(|(share, seed)| Duty::new(share, seed, clock, tare));
        if let Some(duty) = &mut duty {
            profiler.pause();
            duty.turn(profiler)?;
        }
        let now = Instant::now();
        Ok(Slices {
            duty,
            began: now,
            last: now,
            seen: Profile::default(),
            partly,
        })
    }

    fn end(&mut self, profiler: &mut Profiler, how: &How) -> Result<(), Error> {
        if let Some(duty) = &mut self.duty {
            return duty.turn(profiler).map_err(|error| refusal(&error, how));
        }
        let now = Instant::now();
        let seen = profiler.read();
        let mut observation = Observation::span(now - self.last, None);
        observation.profile = seen.since(&self.seen);
        (self.last, self.seen) = (now, seen);
        (self.partly)(observation, now - self.began).map_err(Error::Output)
    }
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
    how: &How,
    interrupt: &Interrupt,
    tick: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Option<Signal>, Error> {
    let mut wait = Wait::new(Instant::now(), how.timeout, how.tick(), interrupt);
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
            Woken::Tick => tick()?,
        }
    }
}

/// The name of the sample that is about the whole run.
pub const WHOLE: &str = "Syscalls";

/// The name of the samples that are about one syscall each.
pub const EACH: &str = "Syscall";

impl Observation {
    /// What is known of a command that has ended, but for its profile.
    fn of(rung: Rung, ended: Ended, tick_sec: Option<f64>) -> Observation {
        Observation {
            rung,
            missed: Vec::new(),
            profile: Profile::default(),
            tare: None,
            wants_slow: false,
            sampling: None,
            wall: ended.wall,
            usage: Some((ended.usage, tick_sec)),
            code: ended.code,
            warnings: ended.warnings,
            interrupted: ended.interrupted,
        }
    }

    /// What is known of the time for which something was watched, but for its profile.
    fn span(wall: Duration, interrupted: Option<Signal>) -> Observation {
        Observation {
            rung: Rung::Programs,
            missed: Vec::new(),
            profile: Profile::default(),
            tare: None,
            wants_slow: false,
            sampling: None,
            wall,
            usage: None,
            code: 0,
            warnings: Vec::new(),
            interrupted,
        }
    }

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
            values: self.extrapolated(values, sequence == 0),
            warnings: if sequence == 0 {
                self.doubts()
            } else {
                Vec::new()
            },
        });
        samples.collect()
    }

    /// The same values for the whole of which slices were seen; `is_whole` are those of the run,
    /// whose length is known.
    fn extrapolated(&self, values: Vec<Value>, is_whole: bool) -> Vec<Value> {
        let Some(sampling) = &self.sampling else {
            return values;
        };
        let sampled = |value, period_sec| Figure::Sampled { value, period_sec };
        let period_sec = sampling.period_sec;
        let values = values.into_iter().map(|Value { unit, figure }| {
            let name = unit.as_str();
            let is_sum = ["calls", "total-sec", "off-CPU-sec", "errors"].contains(&name)
                || name.starts_with("errors:");
            let is_mean = !is_whole && PER_CALL.contains(&name);
            let figure = match figure {
                Figure::Exact(value) if is_sum => sampled(value * sampling.scale, period_sec),
                Figure::Exact(value) if is_mean => sampled(value, period_sec),
                other => other,
            };
            Value { unit, figure }
        });
        values.collect()
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
            values.push(self.timed("total-sec", seconds(total_ns)));
            let off_ns: Option<u64> = times.iter().map(|time| time.off_ns).sum();
            values.extend(off_ns.map(|off_ns| exact("off-CPU-sec", seconds(off_ns))));
        }
        if let Some(threads) = self.profile.threads {
            values.push(exact("threads", threads as f64));
        }
        if let Some(tare) = &self.tare {
            values.extend(tare_values(tare, all));
        }
        if let Some(sampling) = &self.sampling {
            values.push(exact("traced-sec", sampling.traced_sec));
            let bounds = sampling
                .calls
                .map(|(low, high)| [("low", low), ("high", high)]);
            let bounds = bounds.into_iter().flatten();
            values.extend(bounds.map(|(name, bound)| {
                estimated(
                    &format!("calls-{name}"),
                    bound,
                    "95 % interval of the bootstrap",
                )
            }));
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
            self.timed("total-sec", seconds(time.total_ns)),
            self.timed("sec/op", mean_sec),
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
            let longest_ns = time.longest_ns.map_or(f64::INFINITY, |ns| ns as f64);
            let value = ns.min(longest_ns) / 1e9;
            let mut rule = format!("within {} %", Histogram::WIDTH * 100.0);
            if self.rung == Rung::Ptrace {
                rule = format!("{rule}, {DISTURBED}");
            }
            Some(estimated(&format!("{name}-sec"), value, &rule))
        }));
        let longest = time.longest_ns.map(seconds);
        values.extend(longest.map(|longest| self.timed("max-sec", longest)));
        values
    }

    /// A time that was taken.
    fn timed(&self, unit: &str, value: f64) -> Value {
        match self.rung {
            Rung::Ptrace => estimated(unit, value, DISTURBED),
            _ => exact(unit, value),
        }
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
        if missing.slow > 0 {
            doubts.push(Warning(format!(
                "{} slow calls are not told one by one; a larger --slow tells all",
                missing.slow
            )));
        }
        if let Some(sampling) = &self.sampling {
            doubts.push(Warning(match sampling.slices {
                0 => "it ended before the first slice: nothing was traced".to_owned(),
                slices => format!(
                    "seen in {slices} slices of {} ms, {:.1} % of the time, and extrapolated; calls that take longer than a slice are not seen",
                    SLICE.as_millis(),
                    sampling.traced_sec / self.wall.as_secs_f64() * 100.0
                ),
            }));
        }
        if self.wants_slow && self.rung != Rung::Programs {
            doubts.push(Warning(
                "slow calls are told by programs in the kernel alone".to_owned(),
            ));
        }
        let blind = match self.rung {
            Rung::Programs => None,
            Rung::Counters => Some("counters of the kernel's see no times, errors and bytes"),
            Rung::Ptrace => Some(
                "ptrace stops the program twice a call: times are disturbed, and set-user-ID programs run without privilege",
            ),
        };
        doubts.extend(blind.map(|text| Warning(text.to_owned())));
        doubts.extend(
            self.missed
                .iter()
                .map(|(rung, cause)| Warning(format!("{} could not be had: {cause}", rung.word()))),
        );
        doubts
    }
}

/// Values that are the same of a sample and of the whole.
const PER_CALL: [&str; 3] = ["sec/op", "max-sec", "bytes/op"];

/// What is to be known of times by ptrace.
const DISTURBED: &str = "while ptrace stops the program twice a call";

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
