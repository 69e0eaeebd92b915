//! The workload that runs already: processes, threads or whole CPUs, counted for a while from outside. Never starts, signals or ends what it counts.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use procfs::ProcError;
use procfs::process::Process;

use super::command::failure;
use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::wait::{Wait, Woken};
use super::{Error, Intervals, Observed, Outcome, Workload, cpus_used, exact};
use crate::perf;
use crate::perf::group::How;
use crate::perf::plan::{self, Counting, Plan, Readings};
use crate::sample::{Cause, Name, Warning};
use crate::sys::child::{open_pidfd, open_thread_pidfd};
use crate::sys::perf_event::Target;
use crate::sys::privilege;

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
            Subject::Cpus(cpus) => Name::new("Attach").with("cpus", spans(cpus)),
        };
        Attached {
            subject,
            span,
            name,
            plan,
        }
    }

    /// The threads or CPUs to open counters on, and the processes that they belong to.
    fn targets(&self) -> Result<(Vec<Target>, Vec<i32>), Error> {
        match &self.subject {
            Subject::Cpus(cpus) => {
                Ok((cpus.iter().copied().map(Target::Cpu).collect(), Vec::new()))
            }
            Subject::Thread(tid) => Ok((vec![Target::Thread(*tid)], Vec::new())),
            Subject::Processes(pids) => {
                // Named twice, it would be counted twice.
                let pids: Vec<i32> = BTreeSet::from_iter(pids.iter().copied())
                    .into_iter()
                    .collect();
                let mut targets = Vec::new();
                for &pid in &pids {
                    let tasks = Process::new(pid).and_then(|process| process.tasks());
                    let tasks = tasks.map_err(|error| {
                        Error::system(format!("count process {pid}"))(match error {
                            ProcError::NotFound(_) => Errno::ESRCH.into(),
                            other => io::Error::other(other),
                        })
                    })?;
                    targets.extend(tasks.flatten().map(|task| Target::Thread(task.tid)));
                }
                Ok((targets, pids))
            }
        }
    }

    /// What ends the count when all of it has ended; `None` when only time or a wish to stop does.
    /// What has ended already is left out.
    fn ends(&self, pids: &[i32]) -> Result<Option<Vec<OwnedFd>>, Error> {
        let opened: Vec<io::Result<OwnedFd>> = match &self.subject {
            Subject::Cpus(_) => return Ok(None),
            Subject::Processes(_) => pids.iter().map(|&pid| open_pidfd(pid)).collect(),
            Subject::Thread(tid) => match open_thread_pidfd(*tid).or_else(|_| open_pidfd(*tid)) {
                // Before Linux 6.9 the end of a thread that leads no process cannot be seen.
                Err(error) if is_any(&error, &[Errno::EINVAL, Errno::ENOENT]) => return Ok(None),
                opened => vec![opened],
            },
        };
        opened
            .into_iter()
            .filter(|opened| !matches!(opened, Err(error) if is_any(error, &[Errno::ESRCH])))
            .collect::<io::Result<_>>()
            .map(Some)
            .map_err(Error::system("watch for the end of what is counted"))
    }

    /// Counters on all of it, and the processes that it belongs to.
    fn open(&self, rotation: Option<u64>) -> Result<(Vec<Counting>, Vec<i32>), Error> {
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
        Ok((counted, pids))
    }

    fn uncounted(&self, error: &perf::Error) -> Error {
        let access = self.plan.access();
        let is_closed = matches!(error.errno, Errno::EACCES | Errno::EPERM)
            && !access.privileged
            && !matches!(self.subject, Subject::Cpus(_));
        // The plan has counted the same events on ourselves: what is refused is the process.
        Error::Count(match is_closed {
            true => Cause::new("it runs as another user, or with more privilege than we have").cure(
                "run as that user or as root, or sudo setcap cap_perfmon=ep $(command -v poise)",
            ),
            false => access.explain(error),
        })
    }
}

impl Workload for Attached<'_> {
    fn benchmark(&self) -> &Name {
        &self.name
    }

    fn variant(&self) -> &str {
        "base"
    }

    fn is_ours(&self) -> bool {
        false
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
        let (counted, pids) = privilege::lend(Capability::CAP_SYS_PTRACE, || self.open(rotation))?;
        let read = || -> Result<Readings, Error> {
            let each = counted
                .iter()
                .map(|counting| counting.read().map_err(|error| self.uncounted(&error)));
            let sum = each.reduce(|sum, next| Ok(plan::plus(&sum?, &next?)));
            sum.unwrap_or_else(|| Err(Error::Count(Cause::new("nothing is left to count"))))
        };
        let mut ends = self.ends(&pids)?;
        for counting in &counted {
            counting.enable().map_err(|error| self.uncounted(&error))?;
        }
        let began = Instant::now();
        let mut wait = Wait::new(began, self.span.timeout, self.span.interval, interrupt);
        let mut intervals = Intervals::new(self.plan, rotation, began);
        let mut timer = self.span.timer.as_deref().map(Timer::start).transpose()?;
        if let Some(timer) = &timer {
            ends = Some(vec![timer.pidfd()?]);
        }
        let stopped = loop {
            let end = match ends.as_ref().map(|ends| ends.last()) {
                Some(None) => break None,
                Some(Some(end)) => Some(end.as_fd()),
                None => None,
            };
            let woken = wait.until(end, None);
            match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
                Woken::Tick => {
                    partly(intervals.observe(read()?, self.span.interval)).map_err(Error::Output)?
                }
                Woken::Ended => {
                    ends.as_mut().and_then(Vec::pop);
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
        // On a CPU the task's clock runs always, whatever it does.
        if !matches!(self.subject, Subject::Cpus(_)) {
            observed.values.extend(cpus_used(&values, span));
        }
        observed
            .values
            .extend(values.into_iter().map(|(_, value)| value));
        if let Some((why, code)) = timer.as_mut().and_then(Timer::failure) {
            observed.warnings.push(Warning(why));
            observed.code = code;
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

/// Ascending CPU numbers as `0..3+8`: a comma would part a name, and the Go format takes what
/// follows a last `-` for a count of CPUs.
fn spans(cpus: &[u32]) -> String {
    let spans = cpus.chunk_by(|cpu, next| cpu + 1 == *next);
    let spans = spans.map(|span| match span {
        [first, .., last] => format!("{first}..{last}"),
        one => one.iter().map(u32::to_string).collect(),
    });
    spans.collect::<Vec<_>>().join("+")
}

fn is_any(error: &io::Error, numbers: &[Errno]) -> bool {
    let is = |errno: &Errno| error.raw_os_error() == Some(*errno as i32);
    numbers.iter().any(is)
}

/// The command that tells how long to count. Dropped, it is killed and reaped.
struct Timer(process::Child);

impl Timer {
    fn start(command: &[OsString]) -> Result<Timer, Error> {
        let spawned = process::Command::new(&command[0])
            .args(&command[1..])
            .env_clear()
            .envs(super::variables()?)
            .spawn();
        spawned.map(Timer).map_err(|error| Error::Exec {
            program: command[0].to_string_lossy().into_owned(),
            errno: error.raw_os_error().map_or(Errno::ENOENT, Errno::from_raw),
        })
    }

    fn pidfd(&self) -> Result<OwnedFd, Error> {
        open_pidfd(self.0.id() as i32).map_err(Error::system("watch the command"))
    }

    /// Why and with which code its end is a failure, if it has ended by itself and is one.
    fn failure(&mut self) -> Option<(String, u8)> {
        let status = self.0.try_wait().ok().flatten()?;
        let (why, code) = failure(status.code(), status.signal())?;
        Some((format!("the command failed: {why}"), code))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::Access;
    use crate::perf::catalog::Catalog;

    /// Counts `subject` for `span` once.
    fn observe(subject: Subject, span: Span) -> Result<Observed, Error> {
        let wanted = Catalog::default().parse("task-clock").unwrap();
        let access = Access::look("/proc".as_ref(), "/sys".as_ref());
        let plan = Plan::make(&wanted, Target::Myself, access);
        let turn = Turn {
            workload: 0,
            order: Default::default(),
            coin: false,
            draw: 0,
            only: true,
        };
        let interrupt = Interrupt::listen().unwrap();
        let mut attached = Attached::new(subject, span, &plan);
        match attached.observe(&turn, &interrupt, &mut |_| Ok(()))? {
            Outcome::Observed(observed) => Ok(observed),
            other => panic!("{other:?}"),
        }
    }

    fn span(command: &[&str], timeout_ms: u64) -> Span {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        Span {
            timer: (!command.is_empty()).then_some(command),
            timeout: Some(Duration::from_millis(timeout_ms)),
            interval: None,
        }
    }

    fn seconds(observed: &Observed) -> f64 {
        observed.values[0].figure.number().unwrap()
    }

    #[test]
    fn a_timer_is_ended_when_the_time_is_up_and_its_failure_is_told() {
        let own = || Subject::Processes(vec![process::id() as i32]);
        let began = Instant::now();
        let observed = observe(own(), span(&["sleep", "30"], 50)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!((observed.code, observed.warnings.len()), (0, 0));
        let observed = observe(own(), span(&["sh", "-c", "exit 3"], 20_000)).unwrap();
        assert_eq!((observed.code, observed.warnings.len()), (3, 1));
        let missing = observe(own(), span(&["/missing/program"], 20_000));
        assert!(matches!(missing, Err(Error::Exec { .. })), "{missing:?}");
    }

    #[test]
    fn the_end_of_the_last_process_ends_the_count() {
        let mut child = process::Command::new("sleep").arg("0.2").spawn().unwrap();
        let pid = child.id() as i32;
        let observed = observe(Subject::Processes(vec![pid, pid]), span(&[], 20_000)).unwrap();
        child.wait().unwrap();
        assert!(seconds(&observed) < 15.0, "{observed:?}");
    }

    #[test]
    fn the_name_tells_which_cpus() {
        let check = |cpus: &[u32], want: &str| assert_eq!(spans(cpus), want, "{cpus:?}");
        check(&[], "");
        check(&[1], "1");
        check(&[0, 1], "0..1");
        check(&[0, 2, 3, 4, 8], "0+2..4+8");
    }

    #[test]
    fn a_process_that_is_named_twice_is_counted_once() {
        let plan = Plan::make(
            &[],
            Target::Myself,
            Access::look("/".as_ref(), "/".as_ref()),
        );
        let (own, init) = (process::id() as i32, 1);
        let targets = |pids| {
            let attached = Attached::new(Subject::Processes(pids), span(&[], 1), &plan);
            attached.targets().unwrap().1
        };
        assert_eq!(targets(vec![own, init, own]), [init, own]);
    }
}
