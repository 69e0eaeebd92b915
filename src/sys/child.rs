//! A child that waits before its exec: started suspended, released later, reaped with its own resource usage. Never looks a program up, never decides what its end means.
//!
//! The child is cloned with `CLONE_VM`: it shares our memory until its exec, so no page table is
//! copied and neither a barrier pipe nor an error pipe is needed (a futex and a word in shared
//! memory do). For that it may touch nothing of the C library: it makes raw system calls, which
//! leave our `errno` alone, with all signals blocked.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
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
    /// The `cgroup.procs` of the cgroup that it is moved to, before all that it sets for itself;
    /// `None` is inherited.
    pub entrance: Option<Arc<File>>,
    /// The CPUs that it may run on; `None` is inherited.
    pub affinity: Option<CpuSet>,
    /// What else it sets for itself.
    pub settings: Settings,
    /// Whether each child leads a session, and so a process group, of its own: its group is what
    /// ends it whole, and without a terminal it fails where it would ask somebody, instead of
    /// stopping for ever as a background job does. Else it stays in ours, as an interactive
    /// program must to own the terminal.
    pub own_session: bool,
}

/// What a child sets for itself before its exec, and its descendants inherit. What is `None` it
/// inherits itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether its addresses are drawn anew in every run, as far as the machine draws any.
    pub aslr: Option<bool>,
    /// Whether it may have transparent huge pages. They can be kept from a process whatever it
    /// asks for, but not be given: `true` only lifts what was kept from us.
    pub thp: Option<bool>,
    /// Its scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Its nice level, from -20 to 19.
    pub nice: Option<i8>,
}

/// A scheduling policy; the priorities of the real-time ones are 1 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// The usual one, by shares.
    Other,
    /// By shares, and taken to be busy rather than interactive.
    Batch,
    /// By shares, of which it has the least.
    Idle,
    /// Before all the others, until it waits or ends.
    Fifo(u8),
    /// Before all the others, in turns among its equals.
    RoundRobin(u8),
}

/// What a child does before its program runs, each of which can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looks whether we still live.
    Stay,
    /// Makes a session of its own.
    Session,
    /// Takes the descriptors that it is to have.
    Files,
    /// Binds itself to CPUs.
    Affinity,
    /// Chooses its scheduling policy.
    Scheduler,
    /// Chooses its nice level.
    Nice,
    /// Switches the randomisation of its addresses.
    Aslr,
    /// Switches its transparent huge pages.
    HugePages,
    /// Executes the program.
    Execute,
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
    /// Put back by its drop, when the child is no longer in our memory.
    _huge_pages: Option<HugePages>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exec's own error, when the program never ran.
    pub exec_error: Option<Errno>,
    /// What could not be done before the exec, and why, when it did not even come to that.
    pub setup_error: Option<(Step, Errno)>,
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
    /// How far the child may go: `HELD`, `ADMITTED`, `RELEASED`.
    gate: AtomicU32,
    /// The step that failed, its place in [`STEPS`]; told by `errno` not being 0.
    failed_step: AtomicUsize,
    errno: AtomicI32,
}

/// The child may go no further than to where it is moved to its cgroup.
const HELD: u32 = 0;

/// It may set up what it sets for itself.
const ADMITTED: u32 = 1;

/// It may execute its program.
const RELEASED: u32 = 2;

/// All steps, as they are told to users; each stands at the place that is its number.
const STEPS: [(Step, &str); 9] = [
    (Step::Stay, "keep the child of a process that has ended"),
    (Step::Session, "give the child a session of its own"),
    (Step::Files, "set up the descriptors of the child"),
    (Step::Affinity, "bind the child to these CPUs"),
    (Step::Scheduler, "set the scheduling policy of the child"),
    (Step::Nice, "set the nice level of the child"),
    (
        Step::Aslr,
        "switch the address-space randomisation of the child",
    ),
    (
        Step::HugePages,
        "switch the transparent huge pages of the child",
    ),
    (Step::Execute, "execute"),
];

/// The beginning of the variable by which environments differ in length.
const PADDING: &[u8] = b"POISE_PADDING=";

const STACK_BYTES: usize = 64 * 1024;

/// The kernel's `_NSIG`.
const LAST_SIGNAL: c_int = 64;

/// The personality that is none: with it the present one is asked for.
const ASK_PERSONALITY: usize = 0xffff_ffff;

const NO_ASLR: usize = libc::ADDR_NO_RANDOMIZE as usize;

impl Launcher {
    /// Prepares to launch `program`; the signal mask of its children is the present one.
    pub fn new(mut program: Program) -> io::Result<Launcher> {
        lift(&mut program.files)?;
        Ok(Launcher(Rc::new(Body {
            argv: null_terminated(&program.argv),
            envp: null_terminated(&program.envp),
            stack: UnsafeCell::new(vec![0; STACK_BYTES / size_of::<u128>()].into_boxed_slice()),
            parent: nix::unistd::getpid().as_raw(),
            mask: SigSet::thread_get_mask()?,
            gate: AtomicU32::new(HELD),
            failed_step: AtomicUsize::new(0),
            errno: AtomicI32::new(0),
            program,
        })))
    }

    /// Lengthens the environment of the next children by the variable `POISE_PADDING` with `bytes`
    /// characters, in the place of the one that the last call gave them.
    ///
    /// Errors: EBUSY while a child has not been reaped.
    pub fn pad(&mut self, bytes: usize) -> io::Result<()> {
        let body = Rc::get_mut(&mut self.0).ok_or(Errno::EBUSY)?;
        let mut variable = PADDING.to_vec();
        variable.resize(PADDING.len() + bytes, b'x');
        let envp = &mut body.program.envp;
        envp.retain(|variable| !variable.as_bytes().starts_with(PADDING));
        envp.push(CString::new(variable)?);
        body.envp = null_terminated(envp);
        Ok(())
    }

    /// Clones a child that waits for [`Child::release`] before its exec.
    ///
    /// Errors: EBUSY while the previous child has not been reaped, else those of `clone(2)`,
    /// such as EAGAIN at a limit on processes, and of moving it to its cgroup.
    pub fn start(&mut self) -> io::Result<Child> {
        if Rc::strong_count(&self.0) > 1 {
            return Err(Errno::EBUSY.into());
        }
        let body = Rc::clone(&self.0);
        body.gate.store(HELD, Ordering::Relaxed);
        body.errno.store(0, Ordering::Relaxed);
        let huge_pages = body.program.settings.thp.map(|_| HugePages::save());
        let huge_pages = huge_pages.transpose()?;
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
                _huge_pages: huge_pages,
            }),
        };
        // Only now may anything fail: from here on the child is killed and reaped by its drop.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        let child = cloned?;
        if let Some(entrance) = &child.body.program.entrance {
            // By us, not by the child: so it is there before the clock starts. A cgroup of other
            // CPUs takes it only before it is bound to them.
            entrance.as_ref().write_all(pid.to_string().as_bytes())?;
            child.body.open_gate(ADMITTED);
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
        self.body.open_gate(RELEASED);
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
        let failed = failed.and_then(|errno| Some((STEPS.get(step)?.0, errno)));
        let (exec_error, setup_error) = match failed {
            Some((Step::Execute, errno)) => (Some(errno), None),
            other => (None, other),
        };
        Ok(Exit {
            exec_error,
            setup_error,
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

impl Body {
    /// Lets the child go as far as `to`.
    fn open_gate(&self, to: u32) {
        self.gate.store(to, Ordering::Release);
        // SAFETY: FUTEX_WAKE reads nothing; the address is that of a live atomic.
        let _ = unsafe { raw_syscall!(Sysno::futex, self.gate.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    /// In the child: waits until it may go as far as `to`, by raw system calls only.
    fn await_gate(&self, to: u32) {
        loop {
            let seen = self.gate.load(Ordering::Acquire);
            if seen >= to {
                return;
            }
            // SAFETY: FUTEX_WAIT reads the live atomic that it is given, and has no timeout.
            unsafe { raw_syscall!(Sysno::futex, self.gate.as_ptr(), libc::FUTEX_WAIT, seen, 0) };
        }
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

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STEPS[*self as usize].1)
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheduler::Other => f.write_str("other"),
            Scheduler::Batch => f.write_str("batch"),
            Scheduler::Idle => f.write_str("idle"),
            Scheduler::Fifo(priority) => write!(f, "fifo:{priority}"),
            Scheduler::RoundRobin(priority) => write!(f, "rr:{priority}"),
        }
    }
}

impl Scheduler {
    /// The kernel's number for the policy, and its priority.
    fn numbers(self) -> (c_int, c_int) {
        match self {
            Scheduler::Other => (libc::SCHED_OTHER, 0),
            Scheduler::Batch => (libc::SCHED_BATCH, 0),
            Scheduler::Idle => (libc::SCHED_IDLE, 0),
            Scheduler::Fifo(priority) => (libc::SCHED_FIFO, priority.into()),
            Scheduler::RoundRobin(priority) => (libc::SCHED_RR, priority.into()),
        }
    }
}

/// Our own switch for transparent huge pages, put back by the drop. It belongs to the memory,
/// which a child shares with us until its exec: one that switches its own switches ours.
struct HugePages(c_int);

impl HugePages {
    fn save() -> io::Result<HugePages> {
        // SAFETY: the call takes integers.
        match unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } {
            ..0 => Err(io::Error::last_os_error()),
            switch => Ok(HugePages(switch)),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // The lowest bit is the switch; since Linux 6.18 the next ones are flags to it.
        let (disabled, flags) = (self.0 & 1, self.0 & !1);
        // SAFETY: the call takes integers.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, flags, 0, 0) };
    }
}

/// Pointers to `words`, as exec takes them; they hold as long as the words do.
fn null_terminated(words: &[CString]) -> Vec<*const c_char> {
    let pointers = words.iter().map(|word| word.as_ptr());
    pointers.chain([ptr::null()]).collect()
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
        let fail = |step: Step, result: usize| -> ! {
            body.failed_step.store(step as usize, Ordering::Relaxed);
            body.errno
                .store(result.wrapping_neg() as i32, Ordering::Release);
            raw_syscall!(Sysno::exit_group, 127);
            unreachable_loop()
        };
        let failed = |result: usize| (result as isize) < 0;

        // Should we die while it waits, it must not wait for ever.
        raw_syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if raw_syscall!(Sysno::getppid) as libc::pid_t != body.parent {
            fail(Step::Stay, (libc::ESRCH as usize).wrapping_neg());
        }
        if body.program.own_session {
            let result = raw_syscall!(Sysno::setsid);
            if failed(result) {
                fail(Step::Session, result);
            }
        }
        for (wanted, fd) in body.program.files.iter().zip(0usize..) {
            if let Some(wanted) = wanted {
                // Never equal, which dup3 would refuse: they were lifted.
                let result = raw_syscall!(Sysno::dup3, wanted.as_raw_fd(), fd, 0);
                if failed(result) {
                    fail(Step::Files, result);
                }
            }
        }
        if body.program.entrance.is_some() {
            body.await_gate(ADMITTED);
        }
        if let Some(cpus) = &body.program.affinity {
            let result = raw_syscall!(
                Sysno::sched_setaffinity,
                0,
                size_of::<CpuSet>(),
                ptr::from_ref(cpus)
            );
            if failed(result) {
                fail(Step::Affinity, result);
            }
        }
        if let Some(scheduler) = body.program.settings.scheduler {
            let (policy, priority) = scheduler.numbers();
            let result = raw_syscall!(
                Sysno::sched_setscheduler,
                0,
                policy,
                ptr::from_ref(&priority)
            );
            if failed(result) {
                fail(Step::Scheduler, result);
            }
        }
        if let Some(nice) = body.program.settings.nice {
            let result = raw_syscall!(Sysno::setpriority, libc::PRIO_PROCESS, 0, nice);
            if failed(result) {
                fail(Step::Nice, result);
            }
        }
        if let Some(aslr) = body.program.settings.aslr {
            let result = raw_syscall!(Sysno::personality, ASK_PERSONALITY);
            let switched = match aslr {
                true => result & !NO_ASLR,
                false => result | NO_ASLR,
            };
            // Filters such as Docker's allow the usual personalities only.
            let result = match failed(result) || switched == result {
                true => result,
                false => raw_syscall!(Sysno::personality, switched),
            };
            if failed(result) {
                fail(Step::Aslr, result);
            }
        }
        if let Some(thp) = body.program.settings.thp {
            let result = raw_syscall!(Sysno::prctl, libc::PR_SET_THP_DISABLE, !thp, 0, 0, 0);
            if failed(result) {
                fail(Step::HugePages, result);
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

        body.await_gate(RELEASED);
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
        fail(Step::Execute, result)
    }
}

/// Behind a system call that does not return.
fn unreachable_loop() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test says what it could not run")]
mod tests;
