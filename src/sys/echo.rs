//! A partner process that sends every byte back through a pipe. Never outlives its owner.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, pipe2, read, write};

/// The partner and our ends of the two pipes to it. Dropping it ends and reaps the partner; when
/// the thread that started it dies, the kernel ends the partner.
#[derive(Debug)]
pub struct Echo {
    there: OwnedFd,
    back: OwnedFd,
    partner: Pid,
}

impl Echo {
    /// Makes the pipes, forks the partner and waits until it answers.
    pub fn start() -> io::Result<Echo> {
        let (their_in, there) = pipe2(OFlag::O_CLOEXEC)?;
        let (back, their_out) = pipe2(OFlag::O_CLOEXEC)?;
        let owner = getpid();
        // SAFETY: `echo`, which is all that the child runs, calls only async-signal-safe functions,
        // allocates nothing and never returns.
        match unsafe { fork() }? {
            ForkResult::Child => echo(owner, their_in.as_raw_fd(), their_out.as_raw_fd()),
            ForkResult::Parent { child } => {
                let echo = Echo {
                    there,
                    back,
                    partner: child,
                };
                // As long as they were open here, the partner's death would go unnoticed.
                drop((their_in, their_out));
                // Once a byte is back the partner has asked to die with this thread.
                echo.round_trip()?;
                Ok(echo)
            }
        }
    }

    /// Sends one byte and waits until it is back.
    #[inline]
    pub fn round_trip(&self) -> io::Result<()> {
        let mut byte = [0];
        if write(&self.there, &byte)? == 1 && read(&self.back, &mut byte)? == 1 {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The partner's process id.
    pub fn partner(&self) -> Pid {
        self.partner
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Closing our ends would be a hint that another fork of ours, which holds them too, could
        // keep from it. A failure means that it is gone already.
        let _ = kill(self.partner, Signal::SIGKILL);
        while waitpid(self.partner, None) == Err(Errno::EINTR) {}
    }
}

/// The partner's whole life.
fn echo(owner: Pid, from: RawFd, to: RawFd) -> ! {
    let mut byte = 0u8;
    // SAFETY: plain system calls on integers, and one byte of this stack frame that outlives them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The owner may have died before the kernel was asked.
        if libc::getppid() == owner.as_raw() {
            // Nothing else of the owner's stays open here; a kernel without close_range (before 5.9)
            // leaves it open until the end.
            let (low, high) = (from.min(to) as u32, from.max(to) as u32);
            for others in [0..low, low + 1..high, high + 1..u32::MAX] {
                if !others.is_empty() {
                    libc::syscall(libc::SYS_close_range, others.start, others.end - 1, 0);
                }
            }
            while libc::read(from, (&raw mut byte).cast(), 1) == 1
                && libc::write(to, (&raw const byte).cast(), 1) == 1
            {}
        }
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_alive(pid: Pid) -> bool {
        kill(pid, None).is_ok()
    }

    #[test]
    fn bytes_come_back_until_the_partner_is_dropped() {
        let echo = Echo::start().unwrap();
        let partner = echo.partner();
        for _ in 0..100 {
            echo.round_trip().unwrap();
        }
        assert!(is_alive(partner));
        drop(echo);
        assert!(!is_alive(partner));
        assert_eq!(waitpid(partner, None), Err(Errno::ECHILD));
    }

    #[test]
    fn a_partner_keeps_only_its_own_pipes() {
        let echo = Echo::start().unwrap();
        echo.round_trip().unwrap();
        let open = std::fs::read_dir(format!("/proc/{}/fd", echo.partner()))
            .unwrap()
            .count();
        assert_eq!(open, 2);
    }

    #[test]
    fn a_dead_partner_is_an_error_not_a_hang() {
        let echo = Echo::start().unwrap();
        kill(echo.partner(), Signal::SIGKILL).unwrap();
        while is_alive(echo.partner()) && waitpid(echo.partner(), None) == Err(Errno::EINTR) {}
        assert!(echo.round_trip().is_err());
    }

    #[test]
    fn a_partner_dies_with_the_thread_that_started_it() {
        let echo = std::thread::spawn(|| Echo::start().unwrap())
            .join()
            .unwrap();
        let status = waitpid(echo.partner(), None).unwrap();
        assert_eq!(
            status,
            nix::sys::wait::WaitStatus::Signaled(echo.partner(), Signal::SIGKILL, false)
        );
    }
}
