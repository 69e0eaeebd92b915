//! `perf_event_open(2)` and the ioctls on its descriptors. Never chooses an event and never interprets a count.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use caps::Capability;
pub use perf_event_open_sys::bindings;
use perf_event_open_sys::bindings::perf_event_attr;

use super::privilege::{is_asleep, lend};

/// Whose events are counted: the `pid` and `cpu` of `perf_event_open(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The calling thread, on any CPU.
    Myself,
    /// One thread by its id, on any CPU (with `inherit`: and the children it makes from now on).
    Thread(i32),
    /// One thread by its id, while it is on this CPU.
    ThreadOnCpu {
        /// The thread.
        tid: i32,
        /// The CPU.
        cpu: u32,
    },
    /// Every task on one CPU.
    Cpu(u32),
}

impl Target {
    fn pid_cpu(self) -> (i32, i32) {
        match self {
            Target::Myself => (0, -1),
            Target::Thread(tid) => (tid, -1),
            Target::ThreadOnCpu { tid, cpu } => (tid, cpu as i32),
            Target::Cpu(cpu) => (-1, cpu as i32),
        }
    }
}

/// Opens one event on `target`, in the group led by `leader` if given. The descriptor is
/// close-on-exec.
///
/// CAP_SYS_ADMIN, if we keep it asleep, is woken where the kernel asks for it: before Linux 5.8,
/// which has no CAP_PERFMON, and on kernels of Debian and Ubuntu, where that does not do when
/// `kernel.perf_event_paranoid` is above 2.
///
/// Errors are the kernel's own errno; `perf::Error` gives them their meaning.
pub fn open(
    attr: &perf_event_attr,
    target: Target,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match open_as_we_are(attr, target, leader) {
        Err(error) if is_denied(&error) && is_asleep(Capability::CAP_SYS_ADMIN) => {
            lend(Capability::CAP_SYS_ADMIN, || {
                open_as_we_are(attr, target, leader)
            })
        }
        opened => opened,
    }
}

fn open_as_we_are(
    attr: &perf_event_attr,
    target: Target,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = *attr;
    attr.size = size_of::<perf_event_attr>() as u32;
    let (pid, cpu) = target.pid_cpu();
    let group_fd = leader.map_or(-1, |fd| fd.as_raw_fd());
    let flags = u64::from(bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attr` is a live, fully initialised structure whose `size` is its own; the kernel
    // writes to it only the size it knows (E2BIG), within the structure.
    let fd = unsafe { perf_event_open_sys::perf_event_open(&mut attr, pid, cpu, group_fd, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts counting; `group` means the leader's whole group.
pub fn enable(fd: impl AsFd, group: bool) -> io::Result<()> {
    // SAFETY: the ioctl takes a plain integer and the descriptor is open for the call.
    check(unsafe { perf_event_open_sys::ioctls::ENABLE(fd.as_fd().as_raw_fd(), group_flag(group)) })
}

/// Stops counting; `group` means the leader's whole group.
pub fn disable(fd: impl AsFd, group: bool) -> io::Result<()> {
    // SAFETY: as for `enable`.
    check(unsafe {
        perf_event_open_sys::ioctls::DISABLE(fd.as_fd().as_raw_fd(), group_flag(group))
    })
}

/// Sets the count to zero (not the enabled and running times); `group` means the whole group.
pub fn reset(fd: impl AsFd, group: bool) -> io::Result<()> {
    // SAFETY: as for `enable`.
    check(unsafe { perf_event_open_sys::ioctls::RESET(fd.as_fd().as_raw_fd(), group_flag(group)) })
}

/// The kernel's number of an event, which its records carry.
pub fn id(fd: impl AsFd) -> io::Result<u64> {
    let mut id = 0;
    // SAFETY: the kernel writes one u64, which `id` is, and the descriptor is open for the call.
    check(unsafe { perf_event_open_sys::ioctls::ID(fd.as_fd().as_raw_fd(), &mut id) })?;
    Ok(id)
}

/// Makes an event write its records into the ring buffer of the event behind `ring`. The kernel
/// wants both on the same CPU or, where they follow a thread, of the same thread (EINVAL).
pub fn set_output(fd: impl AsFd, ring: impl AsFd) -> io::Result<()> {
    let ring = ring.as_fd().as_raw_fd();
    // SAFETY: the ioctl takes a plain integer and both descriptors are open for the call.
    check(unsafe { perf_event_open_sys::ioctls::SET_OUTPUT(fd.as_fd().as_raw_fd(), ring) })
}

fn group_flag(group: bool) -> u32 {
    if group {
        bindings::PERF_IOC_FLAG_GROUP
    } else {
        0
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
