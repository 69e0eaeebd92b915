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

    /// Waits until `process` (a pidfd, if its end is to be seen) has ended or something else is to
    /// be done; the end is told before all else. What comes through `pipe` is read, and its end
    /// kept.
    pub fn until(
        &mut self,
        process: Option<BorrowedFd<'_>>,
        pipe: Option<&OwnedFd>,
    ) -> nix::Result<Woken> {
        loop {
            let now = Instant::now();
            let interrupt = self.heeds_interrupt.then_some(self.interrupt.as_fd());
            let watched = [process, interrupt, pipe.map(AsFd::as_fd)];
            let mut watched: Vec<PollFd<'_>> = watched
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let next = [self.deadline, self.due].into_iter().flatten().min();
            let patience = next.map_or(PollTimeout::NONE, |moment| {
                timeout(moment.saturating_duration_since(now))
            });
            match poll(&mut watched, patience) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            // First of all: whatever else is due, it must not keep us from seeing the end.
            let ended = process.is_some() && watched[0].any().unwrap_or(false);
            if let Some(pipe) = pipe {
                self.drain(pipe);
            }
            if ended {
                return Ok(Woken::Ended);
            }
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
                // Ends of intervals that were missed are not made up for.
                let late_ns = (now - due).as_nanos() % interval.as_nanos().max(1);
                self.due = now
                    .checked_add(interval)
                    .and_then(|next| next.checked_sub(Duration::from_nanos(late_ns as u64)));
                return Ok(Woken::Tick);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::open_pidfd;

    #[test]
    fn the_end_is_seen_though_intervals_are_always_due() {
        let interrupt = Interrupt::listen().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = open_pidfd(child.id() as i32).unwrap();
        let nanosecond = Some(Duration::from_nanos(1));
        let mut wait = Wait::new(Instant::now(), None, nanosecond, &interrupt);
        let began = Instant::now();
        while wait.until(Some(pidfd.as_fd()), None) != Ok(Woken::Ended) {
            assert!(began.elapsed() < Duration::from_secs(20), "never seen");
        }
        child.wait().unwrap();
    }

    #[test]
    fn missed_intervals_are_not_made_up_for() {
        let interrupt = Interrupt::listen().unwrap();
        let (start, interval) = (Instant::now(), Duration::from_millis(20));
        let timeout = Some(Duration::from_millis(130));
        let mut wait = Wait::new(start, timeout, Some(interval), &interrupt);
        std::thread::sleep(Duration::from_millis(90));
        let mut woken = Vec::new();
        while woken.last() != Some(&Woken::TimeUp) {
            woken.push(wait.until(None, None).unwrap());
        }
        // At 90, 100 and 120 ms, and the time is up.
        assert!((2..=4).contains(&woken.len()), "{woken:?}");
    }
}
