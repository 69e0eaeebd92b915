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
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
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
    /// Whether each child leads a process group of its own, which is what ends it whole; else it
    /// stays in ours, as an interactive program must to own the terminal.
    pub own_group: bool,
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
    exec_errno: AtomicI32,
}

const STACK_BYTES: usize = 64 * 1024;

impl Launcher {
    /// Prepares to launch `program`; the signal mask of its children is the present one.
    pub fn new(program: Program) -> io::Result<Launcher> {
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
            exec_errno: AtomicI32::new(0),
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
        body.exec_errno.store(0, Ordering::Relaxed);
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
        let error = io::Error::last_os_error();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        if pid < 0 {
            return Err(error);
        }
        // SAFETY: clone succeeded with CLONE_PIDFD, so it stored a new descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let child = Child {
            pid: Pid::from_raw(pid),
            pidfd,
            body,
            reaped: false,
        };
        if child.body.program.own_group {
            // Here, not in the child: so that the group exists when we return.
            nix::unistd::setpgid(child.pid, child.pid)?;
        }
        Ok(child)
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

    /// Sends `signal` to it, or to all of its group if it has one of its own.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        match self.body.program.own_group {
            true => killpg(self.pid, signal),
            false => kill(self.pid, signal),
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
        let exec_errno = self.body.exec_errno.load(Ordering::Acquire);
        Ok(Exit {
            exec_error: (exec_errno != 0).then(|| Errno::from_raw(exec_errno)),
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

/// A descriptor that polls readable when process `pid` has ended.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and gives a new descriptor or −1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
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
        let fail = |errno: usize| -> ! {
            body.exec_errno.store(errno as i32, Ordering::Release);
            raw_syscall!(Sysno::exit_group, 127);
            unreachable_loop()
        };
        let failed = |result: usize| (result as isize) < 0;

        // Should we die while it waits, it must not wait for ever.
        raw_syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if raw_syscall!(Sysno::getppid) as libc::pid_t != body.parent {
            fail(libc::ESRCH as usize);
        }
        for (wanted, fd) in body.program.files.iter().zip(0usize..) {
            if let Some(wanted) = wanted {
                let wanted = wanted.as_raw_fd() as usize;
                // dup3 refuses equal descriptors; one that is already in place only has to lose
                // its close-on-exec flag.
                let result = match wanted == fd {
                    true => raw_syscall!(Sysno::fcntl, fd, libc::F_SETFD, 0),
                    false => raw_syscall!(Sysno::dup3, wanted, fd, 0),
                };
                if failed(result) {
                    fail(result.wrapping_neg());
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
                fail(result.wrapping_neg());
            }
        }
        // The Rust runtime ignores SIGPIPE in us; programs expect its default. An all-zero
        // kernel sigaction is SIG_DFL without flags on every architecture.
        let default_action = [0u64; 4];
        raw_syscall!(
            Sysno::rt_sigaction,
            libc::SIGPIPE,
            default_action.as_ptr(),
            0,
            8
        );

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
        fail(result.wrapping_neg())
    }
}

/// Behind a system call that does not return.
fn unreachable_loop() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
