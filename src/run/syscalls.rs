//! The syscalls of a command, of running processes or of the whole machine, profiled for a while, as records. Never prints, and knows no way to see a syscall itself: that is the probe's.

mod callers;
mod counts;
mod samples;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use procfs::process::Process;

use super::Error;
use super::counted::Counted;
use super::duty::{Clock, Duty, SLICE, Sampling};
use super::interrupt::Interrupt;
use super::memory::Whose;
use super::ptraced::Ptraced;
use super::traced::{Ended, Failed, Traced};
use super::wait::{Wait, Woken};
use crate::perf::event::Group;
use crate::probe::kernel::Facts;
use crate::probe::profile::Profile;
use crate::probe::record::Purpose;
use crate::probe::syscalls::{Options, Profiler, Tare, null_call_ns};
use crate::probe::{self, Rung};
use crate::sample::{Cause, Warning};
use crate::sys::child::{Usage, open_pidfd};
use crate::sys::privilege;
use callers::Callers;
pub use callers::Slowest;
use counts::Counts;
pub use counts::InCalls;
pub use samples::{EACH, WHOLE, errno_name};

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
    /// Events that are counted in the calls.
    pub events: Vec<Group>,
    /// For how long, of what runs already.
    pub timeout: Option<Duration>,
    /// What came is given once in this long, too.
    pub interval: Option<Duration>,
    /// The share of the time in which is traced, and the seed of when; else it is always.
    pub duty: Option<(f64, u64)>,
    /// The rung to stand on; else the best that can be had.
    pub rung: Option<Rung>,
    /// The root of sysfs.
    pub sys: PathBuf,
}

impl Default for How {
    /// All syscalls, all the time, by the best rung.
    fn default() -> How {
        How {
            options: Options::default(),
            events: Vec::new(),
            timeout: None,
            interval: None,
            duty: None,
            rung: None,
            sys: "/sys".into(),
        }
    }
}

/// How often it is looked for slow calls.
const LOOK: Duration = Duration::from_millis(10);

impl How {
    /// How often something is to be done while it runs.
    pub fn tick(&self) -> Option<Duration> {
        let looks = self.options.slow_ns.map(|_| LOOK);
        self.duty.map(|_| SLICE).or(self.interval).or(looks)
    }

    /// Who tells of slow calls, where they are wanted.
    fn callers(
        &self,
        whose: Whose<'_>,
        running: &[i32],
        at_exec: bool,
    ) -> Result<Option<Callers>, Error> {
        let wanted = self.options.slow_ns.map(|_| ());
        let follow = |()| {
            privilege::lend(Capability::CAP_SYS_PTRACE, || {
                Callers::follow(whose, running, at_exec)
            })
        };
        wanted.map(follow).transpose()
    }

    /// Whether programs in the kernel alone can do it.
    pub fn needs_programs(&self) -> bool {
        let in_parts = self.duty.is_some() || self.interval.is_some();
        in_parts || self.options.by.is_some() || !self.events.is_empty()
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
    /// Those that were, where they could be.
    pub slowest: Slowest,
    /// What is counted in calls, where something is.
    pub counted: Option<InCalls>,
    /// Of what the profile is a sample, when it is not the whole.
    pub sampling: Option<Sampling>,
    /// What a command used, and how that was told apart.
    pub usage: Option<(Usage, Option<f64>)>,
    /// The exit code that stands for its end.
    pub code: u8,
    /// That a command did not end well.
    pub failed: Option<Failed>,
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
        // What runs already, parts, counts, slices and intervals are for programs in the kernel alone.
        (None, _) if how.needs_programs() => vec![Rung::Programs],
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
    let sys = &how.sys;
    let refused = |error: probe::Error| refusal(&error, how);
    if let Some(obstacle) = Facts::look(sys).obstacle() {
        return Err(Error::Trace(obstacle));
    }
    let untraced_ns = null_call_ns();
    let counts = match how.events.is_empty() {
        true => None,
        false => Some(Counts::open(&how.events).map_err(Error::Count)?),
    };
    let options = Options {
        events: counts.as_ref().map_or(0, Counts::events),
        ..how.options.clone()
    };
    let mut profiler = Profiler::load(sys, options).map_err(refused)?;
    if let Some(counts) = &counts {
        counts.give(&mut profiler).map_err(refused)?;
    }
    let begin = |profiler: &mut Profiler| {
        profiler.attach()?;
        profiler.tare(untraced_ns).map(Some)
    };
    let (tare, duty);
    let mut callers: Option<Callers>;
    let mut observation = match subject {
        Subject::Command(traced) => {
            let child = traced.start()?;
            tare = begin(&mut profiler).map_err(refused)?;
            let pid = child.pid().as_raw();
            profiler.follow(pid, Purpose::AtExec).map_err(refused)?;
            callers = how.callers(Whose::Threads(&[pid]), &[], true)?;
            let mut slices =
                Slices::begin(how, &mut profiler, tare, Some(pid), partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how, &mut callers);
            let ended = traced.run(child, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::of(Rung::Programs, ended, traced.tick_sec())
        }
        Subject::Processes(pids) => {
            let ends = watch(pids)?;
            tare = begin(&mut profiler).map_err(refused)?;
            let began = Instant::now();
            for pid in &*pids {
                follow_all(&mut profiler, *pid).map_err(refused)?;
            }
            callers = how.callers(Whose::Threads(&threads_of(pids)), pids, false)?;
            let mut slices =
                Slices::begin(how, &mut profiler, tare, None, partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how, &mut callers);
            let interrupted = wait(Some(ends), how, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::span(began.elapsed(), interrupted)
        }
        Subject::Everyone => {
            tare = begin(&mut profiler).map_err(refused)?;
            callers = how.callers(Whose::Everyone, &[], false)?;
            let began = Instant::now();
            let mut slices =
                Slices::begin(how, &mut profiler, tare, None, partly).map_err(refused)?;
            let mut tick = || slices.end(&mut profiler, how, &mut callers);
            let interrupted = wait(None, how, interrupt, &mut tick)?;
            duty = slices.duty;
            Observation::span(began.elapsed(), interrupted)
        }
    };
    observation.sampling = duty.map(|duty| duty.finish(&mut profiler));
    profiler.detach();
    observation.profile = profiler.read();
    if let Some(callers) = callers {
        let blind = callers.blind.as_ref().map(|cause| {
            format!("callers are told as far as processes still had their memory: {cause}")
        });
        observation.warnings.extend(blind.map(Warning));
        observation.slowest = callers.slowest(&mut profiler)?;
    }
    observation.counted = counts.map(|counts| counts.read()).transpose()?;
    observation.tare = tare;
    Ok(observation)
}

/// What a refusal of the kernel's means here.
fn refusal(error: &probe::Error, how: &How) -> Error {
    Error::Trace(error.explain(&Facts::look(&how.sys)))
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

    fn end(
        &mut self,
        profiler: &mut Profiler,
        how: &How,
        callers: &mut Option<Callers>,
    ) -> Result<(), Error> {
        if let Some(callers) = callers {
            callers.look(profiler)?;
        }
        if let Some(duty) = &mut self.duty {
            return duty.turn(profiler).map_err(|error| refusal(&error, how));
        }
        if how.interval.is_none() {
            return Ok(());
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

/// The threads of processes, as far as they can be seen.
fn threads_of(pids: &[i32]) -> Vec<i32> {
    let tasks = pids
        .iter()
        .filter_map(|&pid| Process::new(pid).and_then(|p| p.tasks()).ok());
    tasks.flatten().flatten().map(|task| task.tid).collect()
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

impl Observation {
    /// What is known of a command that has ended, but for its profile.
    fn of(rung: Rung, ended: Ended, tick_sec: Option<f64>) -> Observation {
        Observation {
            rung,
            missed: Vec::new(),
            profile: Profile::default(),
            tare: None,
            wants_slow: false,
            slowest: Slowest::default(),
            counted: None,
            sampling: None,
            wall: ended.wall,
            usage: Some((ended.usage, tick_sec)),
            code: ended.code,
            failed: ended.failed,
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
            slowest: Slowest::default(),
            counted: None,
            sampling: None,
            wall,
            usage: None,
            code: 0,
            failed: None,
            warnings: Vec::new(),
            interrupted,
        }
    }
}
