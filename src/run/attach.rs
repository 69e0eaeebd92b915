//! The workload that runs already: processes, threads or whole CPUs, counted for a while from outside. Never starts, signals or ends what it counts.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procfs::ProcError;
use procfs::process::Process;

use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::wait::{Wait, Woken};
use super::{Error, Intervals, Observed, Outcome, Workload, cpus_used, exact};
use crate::perf;
use crate::perf::group::How;
use crate::perf::plan::{self, Counting, Plan, Readings};
use crate::sample::{Cause, Name};
use crate::sys;
use crate::sys::perf_event::Target;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All threads of these processes, and the children they make from now on.
    Processes(Vec<i32>),
    /// This thread, and the children it makes from now on.
    Thread(i32),
    /// Everything on these CPUs.
    Cpus(Vec<u32>),
}

/// How long it is counted.
#[derive(Clone, Debug)]
pub struct Span {
    /// Until this command ends; its output is ours.
    pub timer: Option<Vec<OsString>>,
    /// But no longer than this.
    pub timeout: Option<Duration>,
    /// Counts are given once in this long, too.
    pub interval: Option<Duration>,
}

/// A subject, ready to be counted.
pub struct Attached<'p> {
    subject: Subject,
    span: Span,
    name: Name,
    plan: &'p Plan,
}

impl<'p> Attached<'p> {
    /// Names the observation after its subject.
    pub fn new(subject: Subject, span: Span, plan: &'p Plan) -> Attached<'p> {
        let list = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join("+");
        let name = match &subject {
            Subject::Processes(pids) => Name::new("Attach").with("pid", list(pids)),
            Subject::Thread(tid) => Name::new("Attach").with("tid", tid),
            Subject::Cpus(cpus) => Name::new("Attach").with("cpus", cpus.len()),
        };
        Attached {
            subject,
            span,
            name,
            plan,
        }
    }

    /// The threads or CPUs to open counters on, and the processes whose end ends the count.
    fn targets(&self) -> Result<(Vec<Target>, Vec<i32>), Error> {
        match &self.subject {
            Subject::Cpus(cpus) => {
                Ok((cpus.iter().copied().map(Target::Cpu).collect(), Vec::new()))
            }
            Subject::Thread(tid) => Ok((vec![Target::Thread(*tid)], vec![*tid])),
            Subject::Processes(pids) => {
                let mut targets = Vec::new();
                for &pid in pids {
                    let tasks = Process::new(pid).and_then(|process| process.tasks());
                    let tasks = tasks.map_err(|error| {
                        Error::system(format!("count process {pid}"))(match error {
                            ProcError::NotFound(_) => Errno::ESRCH.into(),
                            other => io::Error::other(other),
                        })
                    })?;
                    targets.extend(tasks.flatten().map(|task| Target::Thread(task.tid)));
                }
                Ok((targets, pids.clone()))
            }
        }
    }

    fn uncounted(&self, error: &perf::Error) -> Error {
        Error::Count(self.plan.access().explain(error))
    }
}

impl Workload for Attached<'_> {
    fn benchmark(&self) -> &Name {
        &self.name
    }

    fn variant(&self) -> &str {
        "base"
    }

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        if self.plan.always.is_empty()
            && self.plan.turns.is_empty()
            && let Some((_, why)) = self.plan.absent.first()
        {
            // Beside the clock there would be nothing to show.
            return Err(Error::Count(why.clone()));
        }
        let rotation = (!turn.only).then_some(turn.order.round);
        let (targets, pids) = self.targets()?;
        let how = How {
            inherit: !matches!(self.subject, Subject::Cpus(_)),
            enable_on_exec: false,
            user_access: false,
        };
        let mut counted: Vec<Counting> = Vec::with_capacity(targets.len());
        for target in &targets {
            match self.plan.open(rotation, *target, how) {
                Ok(counting) => counted.push(counting),
                // A thread may end between our look and our open; its process goes on.
                Err(error) if error.errno == Errno::ESRCH && targets.len() > 1 => {}
                Err(perf::Error {
                    errno: Errno::ESRCH,
                    ..
                }) if let Target::Thread(tid) = target => {
                    return Err(Error::system(format!("count thread {tid}"))(
                        Errno::ESRCH.into(),
                    ));
                }
                Err(error) => return Err(self.uncounted(&error)),
            }
        }
        let read = || -> Result<Readings, Error> {
            let each = counted
                .iter()
                .map(|counting| counting.read().map_err(|error| self.uncounted(&error)));
            let sum = each.reduce(|sum, next| Ok(plan::plus(&sum?, &next?)));
            sum.unwrap_or_else(|| Err(Error::Count(Cause::new("nothing is left to count"))))
        };
        for counting in &counted {
            counting.enable().map_err(|error| self.uncounted(&error))?;
        }
        let began = Instant::now();
        // Once all is counted, so that nothing of what it does is missed.
        let mut timer = self.span.timer.as_deref().map(start_timer).transpose()?;
        // A timer decides alone; else the last subject to end does. A thread that leads no
        // process has no pidfd on older kernels: then only ^C or the timeout ends the count.
        let watched = timer.as_ref().map_or(pids, |timer| vec![timer.id() as i32]);
        let mut ends = watched
            .into_iter()
            .filter_map(|pid| sys::child::open_pidfd(pid).ok());
        let mut end = ends.next();
        let mut wait = Wait::new(began, self.span.timeout, self.span.interval, interrupt);
        let mut intervals = Intervals::new(self.plan, rotation, began);
        let stopped = loop {
            let woken = wait.until(end.as_ref().map(AsFd::as_fd), None);
            match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
                Woken::Tick => {
                    partly(intervals.observe(read()?, self.span.interval)).map_err(Error::Output)?
                }
                Woken::Ended => {
                    end = ends.next();
                    if end.is_none() {
                        break None;
                    }
                }
                Woken::TimeUp => break None,
                Woken::Interrupted(signal) => break Some(signal),
            }
        };
        let span = began.elapsed();
        for counting in &counted {
            counting.disable().map_err(|error| self.uncounted(&error))?;
        }
        let readings = read()?;
        if self.span.interval.is_some() {
            // The last one is shorter; with it the intervals add up to the whole.
            partly(intervals.observe(readings.clone(), self.span.interval))
                .map_err(Error::Output)?;
        }
        let values = self.plan.values(rotation, &readings);
        let mut observed = Observed {
            iterations: 1,
            values: vec![exact("sec/op", span.as_secs_f64())],
            ..Observed::default()
        };
        observed.values.extend(cpus_used(&values, span));
        observed
            .values
            .extend(values.into_iter().map(|(_, value)| value));
        if let Some(timer) = &mut timer {
            if stopped.is_some() {
                let _ = timer.kill();
            }
            let _ = timer.wait();
        }
        match stopped {
            None => Ok(Outcome::Observed(observed)),
            Some(signal) => {
                partly(observed).map_err(Error::Output)?;
                Ok(Outcome::Interrupted(signal))
            }
        }
    }
}

fn start_timer(command: &[OsString]) -> Result<process::Child, Error> {
    process::Command::new(&command[0])
        .args(&command[1..])
        .spawn()
        .map_err(|error| Error::Exec {
            program: command[0].to_string_lossy().into_owned(),
            errno: error.raw_os_error().map_or(Errno::ENOENT, Errno::from_raw),
        })
}
