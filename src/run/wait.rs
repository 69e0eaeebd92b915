//! Waiting for a process to end while watching the clock, the wish to stop, and a pipe that must not fill. Never ends the process itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::interrupt::Interrupt;

/// Why a wait returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The process ended.
    Ended,
    /// An interval is over.
    Tick,
    /// The time is up; said once.
    TimeUp,
    /// We were asked to stop; said once.
    Interrupted(Signal),
}

/// A wait that began at a known moment.
pub struct Wait<'i> {
    interrupt: &'i Interrupt,
    heeds_interrupt: bool,
    deadline: Option<Instant>,
    interval: Option<Duration>,
    due: Option<Instant>,
    tail: Vec<u8>,
}

/// How much of a standard error is kept.
const TAIL_BYTES: usize = 4096;

impl<'i> Wait<'i> {
    /// A wait that began at `start`, with an optional end and optional intervals.
    pub fn new(
        start: Instant,
        timeout: Option<Duration>,
        interval: Option<Duration>,
        interrupt: &'i Interrupt,
    ) -> Wait<'i> {
        // A moment past the end of time never comes.
        let after = |length| start.checked_add(length);
        let (deadline, due) = (timeout.and_then(after), interval.and_then(after));
        Wait {
            interrupt,
            heeds_interrupt: true,
            deadline,
            interval,
            due,
            tail: Vec::new(),
        }
    }

    /// From now on no signal is heeded and no interval given; the time is up after `grace`.
    pub fn hurry(&mut self, grace: Duration) {
        self.heeds_interrupt = false;
        self.due = None;
        self.deadline = Some(Instant::now() + grace);
    }

    /// The last bytes that `until` read from its pipe.
    pub fn into_tail(self) -> Vec<u8> {
        self.tail
    }

    /// Waits until `process` (a pidfd, if its end is to be seen) has ended or something else is to be done. What comes
    /// through `pipe` is read, and its end kept.
    pub fn until(
        &mut self,
        process: Option<BorrowedFd<'_>>,
        pipe: Option<&OwnedFd>,
    ) -> nix::Result<Woken> {
        loop {
            if let Some(signal) = self.interrupt.caught().filter(|_| self.heeds_interrupt) {
                self.heeds_interrupt = false;
                return Ok(Woken::Interrupted(signal));
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                self.deadline = None;
                return Ok(Woken::TimeUp);
            }
            if let (Some(due), Some(interval)) = (self.due, self.interval)
                && now >= due
            {
                self.due = Some(due + interval);
                return Ok(Woken::Tick);
            }
            let interrupt = self.heeds_interrupt.then_some(self.interrupt.as_fd());
            let watched = [process, interrupt, pipe.map(AsFd::as_fd)];
            let mut watched: Vec<PollFd<'_>> = watched
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let next = [self.deadline, self.due].into_iter().flatten().min();
            match poll(
                &mut watched,
                next.map_or(PollTimeout::NONE, |moment| timeout(moment - now)),
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            let ended = process.is_some() && watched[0].any().unwrap_or(false);
            if let Some(pipe) = pipe {
                self.drain(pipe);
            }
            if ended {
                return Ok(Woken::Ended);
            }
        }
    }

    fn drain(&mut self, pipe: &OwnedFd) {
        let mut buffer = [0; 16 * 1024];
        // What a full pipe holds, and no more: a process that never stops writing must not keep
        // us here.
        for _ in 0..4 {
            let Ok(got @ 1..) = nix::unistd::read(pipe, &mut buffer) else {
                return;
            };
            self.tail.extend_from_slice(&buffer[..got]);
            let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..surplus);
        }
    }
}

/// `length` in whole milliseconds, rounded up so that poll does not wake too early.
fn timeout(length: Duration) -> PollTimeout {
    PollTimeout::try_from(length + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}
