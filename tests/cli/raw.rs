//! What is done in a child between fork and exec: signals, limits and filters; forks; and capabilities of files. The only `unsafe` of these tests.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use caps::Capability;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, setgroups};

/// What becomes of perf_event_open(2).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// It fails with this error.
    Deny(Errno),
    /// It ends the caller at once when it is aimed at another process than the caller.
    KillAtAnother,
}

/// The child has these groups beside its own.
pub(crate) fn groups(command: &mut Command, groups: &[u32]) {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    before_exec(command, move || Ok(setgroups(&groups)?));
}

/// The child can be interrupted even when we cannot, as in the background of a shell.
pub(crate) fn default_signals(command: &mut Command) {
    before_exec(command, || {
        dispose(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP], libc::SIG_DFL)
    });
}

/// The child starts with some signals ignored and one blocked.
pub(crate) fn odd_signals(command: &mut Command) {
    before_exec(command, || {
        dispose(&[libc::SIGHUP, libc::SIGUSR2], libc::SIG_IGN)?;
        // SAFETY: the set is initialized by sigemptyset before it is used.
        check(unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        })
    });
}

/// Files that the child writes can grow no longer than this: a disk that fills up.
pub(crate) fn small_disk(command: &mut Command, bytes: u64) {
    before_exec(command, move || {
        dispose(&[libc::SIGXFSZ], libc::SIG_IGN)?;
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: the pointer is to a live structure of the right type.
        check(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) })
    });
}

/// Addresses in the child do not change from run to run.
pub(crate) fn no_randomization(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: the call takes an integer.
        check(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) })
    });
}

/// The child leads a session whose terminal is its standard input.
pub(crate) fn own_terminal(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: both calls take integers.
        check(unsafe { libc::setsid() })?;
        // SAFETY: as above.
        check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
    });
}

/// System call `number` fails with `errno` in the child and all its descendants.
pub(crate) fn deny(command: &mut Command, number: libc::c_long, errno: Errno) {
    filter(command, number, Filter::Deny(errno));
}

/// The child and all its descendants are filtered by seccomp(2).
pub(crate) fn filter_perf_event_open(command: &mut Command, action: Filter) {
    filter(command, libc::SYS_perf_event_open, action);
}

fn filter(command: &mut Command, number: libc::c_long, action: Filter) {
    /// Offsets in `struct seccomp_data`: `nr`, and the lower half of `args[1]`, the pid.
    const NR: u32 = 0;
    const PID: u32 = if cfg!(target_endian = "little") {
        24
    } else {
        28
    };
    let load = |offset| stmt(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let equal = |value, then, otherwise| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: then,
        jf: otherwise,
        k: value,
    };
    let ret = |action| stmt(libc::BPF_RET | libc::BPF_K, action);
    let number = number as u32;
    let program = match action {
        Filter::Deny(errno) => vec![
            load(NR),
            equal(number, 0, 1),
            ret(libc::SECCOMP_RET_ERRNO | errno as u32),
            ret(libc::SECCOMP_RET_ALLOW),
        ],
        Filter::KillAtAnother => vec![
            load(NR),
            equal(number, 0, 3),
            load(PID),
            equal(0, 1, 0),
            ret(libc::SECCOMP_RET_KILL_PROCESS),
            ret(libc::SECCOMP_RET_ALLOW),
        ],
    };
    before_exec(command, move || {
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: the call takes integers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: the program and its length belong together and outlive the call.
        check(unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        })
    });
}

/// Whoever executes the program at `path` has these capabilities, permitted and effective
/// (capabilities(7), `struct vfs_cap_data`, revision 2).
pub(crate) fn set_file_capabilities(path: &Path, capabilities: &[Capability]) -> io::Result<()> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let all: u64 = capabilities.iter().map(|one| one.bitmask()).sum();
    let (permitted, inheritable) = ([all as u32, (all >> 32) as u32], 0);
    let words = [
        REVISION_2_EFFECTIVE,
        permitted[0],
        inheritable,
        permitted[1],
        inheritable,
    ];
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names end with a NUL, and the length is that of the data.
    check(unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            data.as_ptr().cast(),
            data.len(),
            0,
        )
    })
}

/// Forks a child that does `what`, and gives its exit code: 0, or another after a panic.
pub(crate) fn fork_to(what: fn()) -> i32 {
    // SAFETY: the C library makes its own locks good in the child, and the one other thread of a
    // test's own process waits for the test and holds none of ours.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            let ended = std::panic::catch_unwind(what);
            // SAFETY: `_exit` may be called at any time.
            unsafe { libc::_exit(ended.is_err().into()) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        },
    }
}

fn stmt(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn dispose(signals: &[i32], action: libc::sighandler_t) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: the action is SIG_DFL or SIG_IGN, so no handler is installed.
        if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn check(result: i32) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn before_exec(
    command: &mut Command,
    action: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: all actions in this module make system calls and nothing else.
    unsafe { command.pre_exec(action) };
}
