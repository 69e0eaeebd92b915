//! Kills a victim, its keeper or both at a chosen step, a step being the entry or the exit of a system call of either.

use std::collections::HashSet;
use std::env;
use std::process::{Child, Command, Stdio};

use counterpoise::machine::Roots;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Holder,
    Keeper,
    Both,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Steps that were seen before the kill, or all.
    pub(crate) steps: u64,
    /// Whether somebody was killed.
    pub(crate) killed: bool,
}

/// A victim that has not begun yet.
pub(crate) fn victim(roots: &Roots, how: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([crate::VICTIM, &serde_json::to_string(roots).unwrap(), how])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether we may trace at all: filters of system calls forbid it, as Docker's of old.
pub(crate) fn is_allowed() -> bool {
    let mut child = victim(&Roots::default(), "end");
    let seized = ptrace::seize(Pid::from_raw(child.id() as i32), Options::empty());
    let _ = child.kill();
    let _ = child.wait();
    seized.is_ok()
}

/// Runs a victim on `roots` to its end, and kills `target` at `step`, if it comes so far.
pub(crate) fn run(roots: &Roots, target: Target, step: u64) -> Traced {
    let mut child = victim(roots, "end");
    let holder = Pid::from_raw(child.id() as i32);
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_EXITKILL;
    ptrace::seize(holder, options).unwrap();
    ptrace::interrupt(holder).unwrap();
    let mut keeper = None;
    let mut traced = Traced {
        steps: 0,
        killed: false,
    };
    let mut alive = HashSet::from([holder]);
    let mut begun = false;
    while !alive.is_empty() {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => break,
            status => status.unwrap(),
        };
        let Some(pid) = status.pid() else { continue };
        let mut deliver = None;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                alive.remove(&pid);
                continue;
            }
            WaitStatus::PtraceEvent(_, _, event) if event == libc::PTRACE_EVENT_VFORK => {
                let new = Pid::from_raw(ptrace::getevent(pid).unwrap() as i32);
                keeper = Some(new);
                alive.insert(new);
            }
            WaitStatus::PtraceEvent(..) if !begun => {
                // Stopped before it begins: from here on every step counts.
                begun = true;
                drop(child.stdin.take());
            }
            WaitStatus::PtraceSyscall(_) => {
                if begun && traced.steps == step && !traced.killed {
                    let kills = match target {
                        Target::Holder => vec![Some(holder)],
                        Target::Keeper => vec![keeper],
                        Target::Both => vec![Some(holder), keeper],
                    };
                    for victim in kills.into_iter().flatten() {
                        traced.killed = true;
                        let _ = kill(victim, Signal::SIGKILL);
                    }
                }
                traced.steps += u64::from(begun && !traced.killed);
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => deliver = Some(signal),
            _ => {}
        }
        // It may be dead already.
        let _ = ptrace::syscall(pid, deliver);
    }
    // Reaped above, by its pid.
    let _ = child.wait();
    traced
}
