//! A child that waits before its exec: started suspended, released later, reaped with its own resource usage. Never looks a program up, never decides what its end means.
//!
//! The child is cloned with `CLONE_VM`: it shares our memory until its exec, so no page table is
//! copied and neither a barrier pipe nor an error pipe is needed (a futex and a word in shared
//! memory do). For that it may touch nothing of the C library: it makes raw system calls, which
//! leave our `errno` alone, with all signals blocked.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::CpuSet;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::unistd::Pid;
use syscalls::{Sysno, raw_syscall};

/// What is to be executed, and in which surroundings.
pub struct Program {
    /// The file to execute; it is not searched for.
    pub path: CString,
    /// The argument vector, the program's name first.
    pub argv: Vec<CString>,
    /// The environment, `KEY=value` each.
    pub envp: Vec<CString>,
    /// What stands at its descriptors 0, 1, 2, …; `None` is inherited.
    pub files: Vec<Option<OwnedFd>>,
    /// The CPUs that it may run on; `None` is inherited.
    pub affinity: Option<CpuSet>,
    /// Whether each child leads a session, and so a process group, of its own: its group is what
    /// ends it whole, and without a terminal it fails where it would ask somebody, instead of
    /// stopping for ever as a background job does. Else it stays in ours, as an interactive
    /// program must to own the terminal.
    pub own_session: bool,
}

/// Starts one child after another of the same program, each suspended.
pub struct Launcher(Rc<Body>);

/// A child, suspended until [`Child::release`]. Dropped before it was reaped, it is killed (with
/// its group, if it has one of its own) and reaped.
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    body: Rc<Body>,
    reaped: bool,
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exec's own error, when the program never ran.
    pub exec_error: Option<Errno>,
    /// What could not be done before the exec, and why, when it did not even come to that.
    pub setup_error: Option<(&'static str, Errno)>,
    /// The exit code, when it exited by itself.
    pub code: Option<i32>,
    /// The number of the signal that killed it, if one did.
    pub signal: Option<i32>,
    /// What this child, and the descendants it waited for, used.
    pub usage: Usage,
}

/// The parts of `struct rusage` that are worth having beside perf events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, microseconds; its split from `system_us` is tick-sampled on most kernels.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident set of any one process, KiB. The kernel counts in what the child had
    /// before its exec, which is our own resident set.
    pub peak_rss_kib: u64,
    /// Context switches that the scheduler forced.
    pub involuntary_switches: u64,
}

/// All memory that a child reads or runs on before its exec. Reference-counted by the launcher
/// and its one child, so that it outlives the child's use of it even when a `Child` is leaked.
struct Body {
    program: Program,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    stack: UnsafeCell<Box<[u128]>>,
    parent: libc::pid_t,
    mask: SigSet,
    released: AtomicU32,
    /// The step that failed, an index of [`STEPS`]; told by `errno` not being 0.
    failed_step: AtomicUsize,
    errno: AtomicI32,
}

/// What a child does that can fail, as it is told to users.
const STEPS: [&str; 5] = [
    "keep the child of a process that has ended",
    "give the child a session of its own",
    "set up the descriptors of the child",
    "bind the child to these CPUs",
    "execute",
];
const STAY: usize = 0;
const SESSION: usize = 1;
const FILES: usize = 2;
const AFFINITY: usize = 3;
const EXEC: usize = 4;

const STACK_BYTES: usize = 64 * 1024;

/// The kernel's `_NSIG`.
const LAST_SIGNAL: c_int = 64;

impl Launcher {
    /// Prepares to launch `program`; the signal mask of its children is the present one.
    pub fn new(mut program: Program) -> io::Result<Launcher> {
        lift(&mut program.files)?;
        let null_terminated = |words: &[CString]| {
            words
                .iter()
                .map(|w| w.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        Ok(Launcher(Rc::new(Body {
            argv: null_terminated(&program.argv),
            envp: null_terminated(&program.envp),
            stack: UnsafeCell::new(vec![0; STACK_BYTES / size_of::<u128>()].into_boxed_slice()),
            parent: nix::unistd::getpid().as_raw(),
            mask: SigSet::thread_get_mask()?,
            released: AtomicU32::new(0),
            failed_step: AtomicUsize::new(0),
            errno: AtomicI32::new(0),
            program,
        })))
    }

    /// Clones a child that waits for [`Child::release`] before its exec.
    ///
    /// Errors: EBUSY while the previous child has not been reaped, else those of `clone(2)`,
    /// such as EAGAIN at a limit on processes.
    pub fn start(&mut self) -> io::Result<Child> {
        if Rc::strong_count(&self.0) > 1 {
            return Err(Errno::EBUSY.into());
        }
        let body = Rc::clone(&self.0);
        body.released.store(0, Ordering::Relaxed);
        body.errno.store(0, Ordering::Relaxed);
        let mut pidfd: c_int = -1;
        let mut mask = SigSet::empty();
        sigprocmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut mask),
        )?;
        // SAFETY: the reference count was one, so no other child runs on the stack; the stack and
        // all else the child reads live in `body`, which the new `Child` keeps until it is
        // reaped. The end of a slice of u128 is aligned to 16 bytes as the ABIs want it.
        let pid = unsafe {
            let stack_top = (*body.stack.get()).as_mut_ptr_range().end;
            libc::clone(
                suspended_main,
                stack_top.cast(),
                libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD,
                Rc::as_ptr(&body).cast_mut().cast(),
                &raw mut pidfd,
            )
        };
        let cloned = match pid {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(Child {
                pid: Pid::from_raw(pid),
                // SAFETY: clone succeeded with CLONE_PIDFD, so it stored a new descriptor that
                // nobody else owns.
                pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
                body,
                reaped: false,
            }),
        };
        // Only now may anything fail: from here on the child is killed and reaped by its drop.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        cloned
    }
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that polls readable when the child has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets it execute its program. Whether the exec worked is told by [`Child::reap`].
    pub fn release(&self) {
        self.body.released.store(1, Ordering::Release);
        // SAFETY: FUTEX_WAKE reads nothing; the address is that of a live atomic.
        let _ = unsafe {
            raw_syscall!(
                Sysno::futex,
                self.body.released.as_ptr(),
                libc::FUTEX_WAKE,
                1
            )
        };
    }

    /// Sends `signal` to it, and to all of its group if it has one of its own. The leader of a
    /// session cannot leave its group.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        let sent = match self.body.program.own_session {
            true => killpg(self.pid, signal),
            false => Err(Errno::ESRCH),
        };
        match sent {
            // It may not have got as far as to make its session.
            Err(Errno::ESRCH) => kill(self.pid, signal),
            sent => sent,
        }
    }

    /// Waits for its end and gives status and usage of this child alone, by `wait4(2)`.
    pub fn reap(mut self) -> io::Result<Exit> {
        self.wait()
    }

    fn wait(&mut self) -> io::Result<Exit> {
        let mut status: c_int = 0;
        // SAFETY: rusage is a plain C structure for which all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        loop {
            // SAFETY: both pointers are to live, writable locals of the right types.
            let pid = unsafe { libc::wait4(self.pid.as_raw(), &mut status, 0, &mut usage) };
            if pid >= 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.reaped = true;
        let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
        let errno = self.body.errno.load(Ordering::Acquire);
        let step = self.body.failed_step.load(Ordering::Relaxed);
        let failed = (errno != 0).then(|| Errno::from_raw(errno));
        Ok(Exit {
            exec_error: failed.filter(|_| step == EXEC),
            setup_error: failed
                .filter(|_| step != EXEC)
                .and_then(|errno| Some((*STEPS.get(step)?, errno))),
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            usage: Usage {
                user_us: micros(usage.ru_utime),
                system_us: micros(usage.ru_stime),
                peak_rss_kib: usage.ru_maxrss as u64,
                involuntary_switches: usage.ru_nivcsw as u64,
            },
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.signal(Signal::SIGKILL);
            let _ = self.wait();
        }
    }
}

/// Moves descriptors above all the places that they are to take, so that no place is filled before
/// what stands there was moved on.
fn lift(files: &mut [Option<OwnedFd>]) -> io::Result<()> {
    let places = files.len() as c_int;
    for file in files.iter_mut().flatten() {
        if file.as_raw_fd() < places {
            let lifted = fcntl(&*file, FcntlArg::F_DUPFD_CLOEXEC(places))?;
            // SAFETY: fcntl succeeded, so it gave a new descriptor that nobody else owns.
            *file = unsafe { OwnedFd::from_raw_fd(lifted) };
        }
    }
    Ok(())
}

/// A descriptor that polls readable when process `pid` has ended.
///
/// Errors: ESRCH when it has ended already, EINVAL or ENOENT when `pid` is a thread that leads no
/// process.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    pidfd_open(pid, 0)
}

/// A descriptor that polls readable when thread `tid` has ended.
///
/// Errors: ESRCH when it has ended already, EINVAL before Linux 6.9.
pub fn open_thread_pidfd(tid: i32) -> io::Result<OwnedFd> {
    const PIDFD_THREAD: c_int = libc::O_EXCL;
    pidfd_open(tid, PIDFD_THREAD)
}

fn pidfd_open(pid: i32, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and gives a new descriptor or −1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What the child does in our memory: prepares its surroundings, waits, executes.
extern "C" fn suspended_main(body: *mut c_void) -> c_int {
    // SAFETY: `start` passes a pointer to a `Body` that outlives the child's stay in our memory;
    // only its atomics change meanwhile. Every system call below takes integers or pointers into
    // that body or this stack, and is raw: no errno, no lock, no allocation of ours is touched.
    unsafe {
        let body = &*body.cast::<Body>().cast_const();
        let fail = |step: usize, result: usize| -> ! {
            body.failed_step.store(step, Ordering::Relaxed);
            body.errno
                .store(result.wrapping_neg() as i32, Ordering::Release);
            raw_syscall!(Sysno::exit_group, 127);
            unreachable_loop()
        };
        let failed = |result: usize| (result as isize) < 0;

        // Should we die while it waits, it must not wait for ever.
        raw_syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if raw_syscall!(Sysno::getppid) as libc::pid_t != body.parent {
            fail(STAY, (libc::ESRCH as usize).wrapping_neg());
        }
        if body.program.own_session {
            let result = raw_syscall!(Sysno::setsid);
            if failed(result) {
                fail(SESSION, result);
            }
        }
        for (wanted, fd) in body.program.files.iter().zip(0usize..) {
            if let Some(wanted) = wanted {
                // Never equal, which dup3 would refuse: they were lifted.
                let result = raw_syscall!(Sysno::dup3, wanted.as_raw_fd(), fd, 0);
                if failed(result) {
                    fail(FILES, result);
                }
            }
        }
        if let Some(cpus) = &body.program.affinity {
            let result = raw_syscall!(
                Sysno::sched_setaffinity,
                0,
                size_of::<CpuSet>(),
                ptr::from_ref(cpus)
            );
            if failed(result) {
                fail(AFFINITY, result);
            }
        }
        // Signals that came while we waited are delivered once they are unblocked, which is before
        // the exec resets our handlers. These would then run here, on memory that is not ours,
        // and the signals be lost. What we ignore the program shall ignore too, but for SIGPIPE:
        // the Rust runtime ignores it in us, and programs expect its default.
        for signal in 1..=LAST_SIGNAL {
            // A kernel sigaction begins with its handler; all zeros is SIG_DFL without flags, on
            // every architecture.
            let (default_action, mut present) = ([0u64; 4], [0u64; 4]);
            raw_syscall!(Sysno::rt_sigaction, signal, 0, present.as_mut_ptr(), 8);
            if present[0] > libc::SIG_IGN as u64 || signal == libc::SIGPIPE {
                raw_syscall!(Sysno::rt_sigaction, signal, default_action.as_ptr(), 0, 8);
            }
        }

        while body.released.load(Ordering::Acquire) == 0 {
            raw_syscall!(Sysno::futex, body.released.as_ptr(), libc::FUTEX_WAIT, 0, 0);
        }
        raw_syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, 0);
        raw_syscall!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(body.mask.as_ref()),
            0,
            8
        );
        let result = raw_syscall!(
            Sysno::execve,
            body.program.path.as_ptr(),
            body.argv.as_ptr(),
            body.envp.as_ptr()
        );
        fail(EXEC, result)
    }
}

/// Behind a system call that does not return.
fn unreachable_loop() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn program(argv: &[&str]) -> Program {
        let argv: Vec<CString> = argv
            .iter()
            .map(|&word| CString::new(word).unwrap())
            .collect();
        Program {
            path: argv[0].clone(),
            argv,
            envp: Vec::new(),
            files: Vec::new(),
            affinity: None,
            own_session: true,
        }
    }

    #[test]
    fn a_signal_before_the_exec_ends_the_child_and_never_reaches_our_handler() {
        let caught = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&caught)).unwrap();
        let mut launcher = Launcher::new(program(&["/bin/sleep", "9"])).unwrap();
        let child = launcher.start().unwrap();
        child.signal(Signal::SIGUSR1).unwrap();
        child.release();
        let exit = child.reap().unwrap();
        assert_eq!(exit.signal, Some(libc::SIGUSR1), "{exit:?}");
        assert!(!caught.load(Ordering::Relaxed));
    }

    #[test]
    fn a_child_that_never_ran_is_killed_and_reaped() {
        for own_session in [true, false] {
            let mut program = program(&["/bin/sleep", "9"]);
            program.own_session = own_session;
            let mut launcher = Launcher::new(program).unwrap();
            for _ in 0..20 {
                drop(launcher.start().unwrap());
            }
        }
    }

    #[test]
    fn the_group_of_a_child_ends_with_it() {
        let script = "sleep 9 & echo $! >&2; sleep 9";
        let (mut tells, told) = io::pipe().unwrap();
        let mut program = program(&["/bin/sh", "-c", script]);
        program.files = vec![None, None, Some(told.into())];
        let mut launcher = Launcher::new(program).unwrap();
        let child = launcher.start().unwrap();
        child.release();
        let mut text = [0; 16];
        let got = tells.read(&mut text).unwrap();
        let grandchild: i32 = str::from_utf8(&text[..got])
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let end = open_pidfd(grandchild).unwrap();
        drop(child);
        let mut ended = [nix::poll::PollFd::new(
            end.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        assert_eq!(nix::poll::poll(&mut ended, 5000u16), Ok(1));
    }

    #[test]
    fn descriptors_can_change_places() {
        let (mut from_a, a) = io::pipe().unwrap();
        let (mut from_b, b) = io::pipe().unwrap();
        let (x, y) = (a.as_raw_fd() as usize, b.as_raw_fd() as usize);
        let script = format!("echo x >/proc/self/fd/{x}; echo y >/proc/self/fd/{y}");
        let mut program = program(&["/bin/sh", "-c", &script]);
        program.files.resize_with(x.max(y) + 1, || None);
        program.files[x] = Some(b.into());
        program.files[y] = Some(a.into());
        let mut launcher = Launcher::new(program).unwrap();
        let child = launcher.start().unwrap();
        child.release();
        assert_eq!(child.reap().unwrap().code, Some(0));
        drop(launcher);
        let mut read = [String::new(), String::new()];
        from_a.read_to_string(&mut read[0]).unwrap();
        from_b.read_to_string(&mut read[1]).unwrap();
        assert_eq!(read, ["y\n", "x\n"]);
    }

    #[test]
    fn what_failed_before_the_exec_is_told_apart_from_the_exec() {
        let exit = |program| {
            let child = Launcher::new(program).unwrap().start().unwrap();
            child.release();
            child.reap().unwrap()
        };
        let missing = exit(program(&["/missing/program"]));
        assert_eq!(
            (missing.exec_error, missing.setup_error),
            (Some(Errno::ENOENT), None)
        );
        let mut nowhere = program(&["/bin/true"]);
        nowhere.affinity = Some(CpuSet::new());
        let nowhere = exit(nowhere);
        assert_eq!(nowhere.exec_error, None);
        assert_eq!(nowhere.setup_error, Some((STEPS[AFFINITY], Errno::EINVAL)));
    }
}
