//! `ptrace(2)` of threads that stop at system calls: why they stopped, and how they go on. Never decides which, and never changes a thread.

use std::io;
use std::ptr;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::ptrace::{Options, seize, syscall_info};
use nix::unistd::Pid;

/// What became of a thread that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It stopped, before or after a system call.
    Call(Pid),
    /// It stopped, for it executes another program; it had this thread id before.
    Exec(Pid, Pid),
    /// It stopped with all of its process, by a signal, and shall stay so.
    Group(Pid),
    /// It stopped; it goes on with this signal, 0 being none.
    Other(Pid, i32),
    /// It ended.
    Ended(Pid),
    /// The leader ended, and has still to be reaped.
    LeaderEnded,
}

/// A stop at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStop {
    /// Before it.
    Entry {
        /// Its number.
        number: u64,
        /// Whether that is in the numbering of our own system calls.
        is_native: bool,
    },
    /// After it.
    Exit {
        /// What it returns.
        result: i64,
    },
    /// None.
    Other,
}

/// The `AUDIT_ARCH_*` of our own system calls.
const NATIVE: u32 = if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_003e
};

/// Traces a process, and all that it creates, from its next exec on. The thread that calls this is
/// the one that hears of them.
pub fn trace(leader: Pid) -> io::Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    Ok(seize(leader, options)?)
}

/// The next event, if there is one already.
pub fn next(leader: Pid) -> io::Result<Option<Event>> {
    // SAFETY: siginfo_t is a plain C structure for which all zeros is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let what = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the pointer is to a live, writable local of the right type. What it tells is left
    // to be waited for.
    let looked = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, what | libc::WNOWAIT) };
    Errno::result(looked)?;
    // SAFETY: waitid filled in a child's end or stop, or left all zeros.
    let tid = Pid::from_raw(unsafe { info.si_pid() });
    let has_ended = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED].contains(&info.si_code);
    match tid.as_raw() {
        0 => return Ok(None),
        _ if tid == leader && has_ended => return Ok(Some(Event::LeaderEnded)),
        _ => {}
    }
    let mut status: c_int = 0;
    // SAFETY: the pointer is to a live, writable local.
    let got = unsafe { libc::waitpid(tid.as_raw(), &mut status, libc::__WALL | libc::WNOHANG) };
    if Errno::result(got)? == 0 {
        return Ok(None);
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Some(Event::Ended(tid)));
    }
    let signal = libc::WSTOPSIG(status);
    Ok(Some(match (status >> 16, signal) {
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Event::Call(tid),
        (0, signal) => Event::Other(tid, signal),
        (libc::PTRACE_EVENT_EXEC, _) => {
            let old = nix::sys::ptrace::getevent(tid)?;
            Event::Exec(tid, Pid::from_raw(old as i32))
        }
        (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => Event::Other(tid, 0),
        (libc::PTRACE_EVENT_STOP, _) => Event::Group(tid),
        _ => Event::Other(tid, 0),
    }))
}

/// Where a thread stands that stopped at a system call, by `PTRACE_GET_SYSCALL_INFO`.
///
/// Errors: EIO before Linux 5.3; ESRCH when it was killed meanwhile.
pub fn call_stop(tid: Pid) -> io::Result<CallStop> {
    let info = syscall_info(tid)?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => CallStop::Entry {
            // SAFETY: the kernel fills this arm at an entry.
            number: unsafe { info.u.entry.nr },
            is_native: info.arch == NATIVE,
        },
        libc::PTRACE_SYSCALL_INFO_EXIT => CallStop::Exit {
            // SAFETY: the kernel fills this arm at an exit.
            result: unsafe { info.u.exit.sval },
        },
        _ => CallStop::Other,
    })
}

/// Lets a stopped thread go on, with `signal` unless that is 0, to its next system call.
///
/// Errors: ESRCH when it was killed meanwhile.
pub fn go_on(tid: Pid, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, tid, signal)
}

/// Leaves a stopped thread stopped until its process is continued.
pub fn stay(tid: Pid) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, tid, 0)
}

fn request(request: libc::c_uint, tid: Pid, data: i32) -> io::Result<()> {
    let nowhere = ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take a number and touch no memory of ours.
    let result = unsafe { libc::ptrace(request, tid.as_raw(), nowhere, i64::from(data)) };
    Ok(Errno::result(result).map(drop)?)
}
