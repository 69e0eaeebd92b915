//! Syscalls by ptrace(2): for any user, on any kernel since 5.3, at the price of two stops a call. Never changes what a call does.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::Error;
use crate::probe::profile::{Call, Number, Profile};
use crate::sample::Cause;
use crate::sys::clock::monotonic_ns;
use crate::sys::ptrace::{self, CallStop, Event};

/// A command that is traced from its exec on, with all that it creates.
pub(super) struct Ptraced {
    leader: Pid,
    children: SignalFd,
    only: Option<Vec<Number>>,
    is_begun: bool,
    /// The call that each thread is in, and since when.
    under_way: HashMap<Pid, (Number, u64)>,
    calls: BTreeMap<Number, Call>,
}

impl Ptraced {
    /// Traces a suspended child of ours; of `only`, if given, the calls.
    ///
    /// Errors: a cause with what lifts it, when the kernel does not let us.
    pub(super) fn new(leader: Pid, only: Option<Vec<Number>>) -> Result<Ptraced, Cause> {
        Ptraced::seize(leader, only).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Cause::new("ptrace is not permitted here").cure(
                "sudo sysctl kernel.yama.ptrace_scope=1; in a container --cap-add=SYS_PTRACE",
            ),
            _ => Cause::new(format!("ptrace does not work here: {error}")),
        })
    }

    fn seize(leader: Pid, only: Option<Vec<Number>>) -> io::Result<Ptraced> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let children = SignalFd::with_flags(&signals, flags)?;
        ptrace::trace(leader)?;
        Ok(Ptraced {
            leader,
            children,
            only,
            is_begun: false,
            under_way: HashMap::new(),
            calls: BTreeMap::new(),
        })
    }

    /// What polls readable when [`Ptraced::advance`] has something to do.
    pub(super) fn readable(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }

    /// Lets all threads go on that have stopped. True when the leader has ended.
    pub(super) fn advance(&mut self) -> Result<bool, Error> {
        self.step().map_err(Error::system("trace the command"))
    }

    fn step(&mut self) -> io::Result<bool> {
        while self.children.read_signal()?.is_some() {}
        while let Some(event) = ptrace::next(self.leader)? {
            let went_on = match event {
                Event::LeaderEnded => return Ok(true),
                Event::Call(tid) => self.call(tid).and_then(|()| ptrace::go_on(tid, 0)),
                Event::Exec(tid, old) => {
                    self.is_begun = true;
                    if let Some(call) = self.under_way.remove(&old) {
                        self.lose(tid);
                        self.under_way.insert(tid, call);
                    }
                    ptrace::go_on(tid, 0)
                }
                Event::Group(tid) => ptrace::stay(tid),
                Event::Other(tid, signal) => ptrace::go_on(tid, signal),
                Event::Ended(tid) => {
                    self.lose(tid);
                    Ok(())
                }
            };
            match went_on {
                // It was killed meanwhile; its end is the next that we hear of it.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                went_on => went_on?,
            }
        }
        Ok(false)
    }

    /// A thread ended in the call that it was in.
    fn lose(&mut self, tid: Pid) {
        if let Some((number, _)) = self.under_way.remove(&tid) {
            self.of(number).unfinished += 1;
        }
    }

    fn call(&mut self, tid: Pid) -> io::Result<()> {
        let now = monotonic_ns();
        match ptrace::call_stop(tid)? {
            CallStop::Entry { number, is_native } => {
                let number = match u32::try_from(number) {
                    Ok(number) if is_native => Number::Native(number),
                    _ => Number::Foreign,
                };
                let is_wanted = |only: &Vec<Number>| only.contains(&number);
                if self.is_begun && self.only.as_ref().is_none_or(is_wanted) {
                    self.under_way.insert(tid, (number, now));
                }
            }
            CallStop::Exit { result } => {
                if let Some((number, since)) = self.under_way.remove(&tid) {
                    self.of(number).add(now - since, result);
                }
            }
            CallStop::Other => {}
        }
        Ok(())
    }

    fn of(&mut self, number: Number) -> &mut Call {
        let call = self.calls.entry(number);
        call.or_insert_with(|| Call::timed(number))
    }

    /// What was seen.
    pub(super) fn profile(mut self) -> Profile {
        self.lose(self.leader);
        let now = monotonic_ns();
        for (_, (number, since)) in std::mem::take(&mut self.under_way) {
            self.of(number).under_way_ns.push(now - since);
        }
        Profile {
            calls: self.calls.into_values().collect(),
            ..Profile::default()
        }
    }
}
