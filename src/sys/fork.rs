//! Child processes that end at once: forked, or spawned the `vfork(2)` way. Never leaves one unreaped.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks a child that exits at once, and waits for it.
#[inline]
pub fn fork_wait() -> io::Result<()> {
    // SAFETY: the child calls `_exit` and nothing else, so it does not matter what locks other
    // threads held when it was forked.
    match unsafe { fork() }? {
        // SAFETY: `_exit` may be called at any time.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => wait(child),
    }
}

/// A program that can be started again and again: no arguments, an empty environment, and
/// `/dev/null` for standard input, output and error.
#[derive(Debug)]
pub struct Program {
    path: std::ffi::CString,
    actions: PosixSpawnFileActions,
    attributes: PosixSpawnAttr,
    _null: OwnedFd,
}

impl Program {
    /// Gets ready to start the program at `path`, which is not looked at yet.
    pub fn new(path: &CStr) -> io::Result<Program> {
        let null = open(
            c"/dev/null",
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut actions = PosixSpawnFileActions::init()?;
        for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            actions.add_dup2(null.as_raw_fd(), standard)?;
        }
        let attributes = PosixSpawnAttr::init()?;
        Ok(Program {
            path: path.to_owned(),
            actions,
            attributes,
            _null: null,
        })
    }

    /// Starts it once, sharing memory until it has been executed (`posix_spawn(3)`, which is
    /// `CLONE_VFORK`), and waits for its end. An exit status other than 0 is an error.
    #[inline]
    pub fn spawn_wait(&self) -> io::Result<()> {
        let no_environment: [&CStr; 0] = [];
        wait(posix_spawn(
            self.path.as_c_str(),
            &self.actions,
            &self.attributes,
            &[self.path.as_c_str()],
            &no_environment,
        )?)
    }
}

/// Reaps `child`; any end other than exit status 0 is an error.
fn wait(child: Pid) -> io::Result<()> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
            Ok(status) => return Err(bad_end(status)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cold]
fn bad_end(status: WaitStatus) -> io::Error {
    io::Error::other(match status {
        WaitStatus::Exited(_, code) => format!("the child ended with exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("the child was killed by {signal}"),
        other => format!("the child is in a state that was not asked for: {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_ends_well() {
        fork_wait().unwrap();
    }

    #[test]
    fn programs_end_as_they_do() {
        let check = |path, want: Option<&str>| {
            let result = Program::new(path)
                .unwrap()
                .spawn_wait()
                .map_err(|e| e.to_string());
            assert_eq!(result.err().as_deref(), want, "{path:?}");
        };
        check(c"/bin/true", None);
        check(c"/bin/false", Some("the child ended with exit status 1"));
        check(
            c"/missing/program",
            Some("No such file or directory (os error 2)"),
        );
        check(c"/etc/passwd", Some("Permission denied (os error 13)"));
    }
}
