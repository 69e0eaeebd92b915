//! Who this process is to the kernel: its user, and which capabilities it keeps, awake or asleep. Never decides who it should be, and never gives a capability to a program that is not ours.
//!
//! What is kept is *awake* (effective) when it is power over counters, priorities and memory locks
//! alone, and *asleep* (permitted, but not effective) when it is power over files, processes or
//! user ids: then no path that a user names is ever opened with it. [`lend`] and [`as_root`] wake
//! it for one step. Inheritable and ambient sets stay as the caller had them, so that an exec
//! leaves a program with nothing that it would not have without us; it is the kernel that takes
//! the rest away (`capabilities(7)`: P'(permitted) = (P(inheritable) & F(inheritable)) |
//! (F(permitted) & P(bounding)) | P'(ambient)).
//!
//! The process is dumpable, as any process is, although the kernel takes that away from one that
//! changes its user or is executed with capabilities of its file: its files under `/proc/self`
//! would be root's, and our own child, until its exec, closed to our counters. Nobody gains by it:
//! to trace us, to read our memory or to take our descriptors, the kernel asks for all
//! capabilities that we hold as well (`ptrace(2)`, access mode checking, the commoncap module).

use std::ffi::OsString;
use std::io;
use std::time::{Duration, Instant};

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, ResUid, Uid, getresgid, getresuid, getuid, setgroups, setresgid, setresuid,
};

/// What measuring uses all the time: counters, BPF, priorities, signals to a command that
/// changed its user, and memory for ring buffers.
const AWAKE: [Capability; 5] = [
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
    Capability::CAP_SYS_NICE,
    Capability::CAP_KILL,
    Capability::CAP_IPC_LOCK,
];

/// What single steps use: looking at processes of others and at tracefs, and opening a counter
/// where CAP_PERFMON does not do.
const ASLEEP: [Capability; 3] = [
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_ADMIN,
];

/// A user to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Variables of our environment that are the user's own; `None` is unset.
    pub environment: Vec<(&'static str, Option<OsString>)>,
}

/// Real and effective user.
pub fn users() -> io::Result<(u32, u32)> {
    let ResUid {
        real, effective, ..
    } = getresuid()?;
    Ok((real.as_raw(), effective.as_raw()))
}

/// Whether our own exec raised privileges (`AT_SECURE`), by capabilities of the program's file or
/// its set-user-ID bit. The C library then takes variables such as `LD_LIBRARY_PATH` and `TMPDIR`
/// out of our environment.
pub fn is_raised() -> bool {
    // SAFETY: the call takes an integer and reads what the kernel left us.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Gives up what the program's file gives beyond the needs of measuring: users and groups of the
/// set-ID bits, and all other capabilities. What the caller has in the ambient set is the caller's
/// own and stays. Does nothing to root.
///
/// Errors: the process then has more than it should and must end.
pub fn settle() -> io::Result<()> {
    let (user, group) = (getresuid()?, getresgid()?);
    if user.real.is_root() {
        return Ok(());
    }
    let has_set_id = [user.effective, user.saved] != [user.real; 2]
        || [group.effective, group.saved] != [group.real; 2];
    if has_set_id {
        setresgid(group.real, group.real, group.real)?;
        change_user(user.real)?;
    }
    let permitted = read(CapSet::Permitted)?;
    if permitted.is_empty() && !has_set_id {
        return Ok(());
    }
    let ambient = ambient()?;
    if permitted.is_subset(&ambient) && !has_set_id {
        return Ok(());
    }
    keep(&ambient, &CapsHashSet::new())?;
    prctl::set_dumpable(true)?;
    Ok(())
}

/// Root stays root, with nothing awake but what measuring needs and the power over files that root
/// is used to. The rest must stay permitted: what root executes has it all, and were that more
/// than we have, the kernel would take our counters off it.
pub fn stay_root() -> io::Result<()> {
    let permitted = read(CapSet::Permitted)?;
    let mut awake = CapsHashSet::from_iter(AWAKE.into_iter().chain(ASLEEP));
    awake.insert(Capability::CAP_DAC_OVERRIDE);
    set(CapSet::Effective, &(&awake & &permitted))
}

/// How long a thread may take to leave that has done its work.
const LEAVING: Duration = Duration::from_millis(500);

/// Root becomes `user` for good, but for the way back in [`as_root`]; with what measuring needs,
/// and nothing to inherit.
///
/// Errors: EBUSY when there is another thread, which would stay root. After any error the process
/// is neither the one nor the other and must end.
pub fn become_user(user: &User) -> io::Result<()> {
    // A thread that was joined may still be on its way out.
    let began = Instant::now();
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if began.elapsed() > LEAVING {
            return Err(Errno::EBUSY.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for (key, value) in &user.environment {
        // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
        unsafe {
            match value {
                Some(value) => std::env::set_var(key, value),
                None => std::env::remove_var(key),
            }
        }
    }
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let gid = Gid::from_raw(user.gid);
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    change_user(Uid::from_raw(user.uid))?;
    inherit_nothing()?;
    keep(
        &CapsHashSet::new(),
        &CapsHashSet::from([Capability::CAP_SETUID]),
    )?;
    prctl::set_dumpable(true)?;
    Ok(())
}

/// Runs `act` as root, in this thread alone: for what only root may do after [`become_user`], such
/// as giving the machine its settings back. Nobody but root can signal us meanwhile.
///
/// Root proper just runs it. Errors: EPERM when we never were root.
pub fn as_root<T>(act: impl FnOnce() -> T) -> io::Result<T> {
    let user = getuid();
    if user.is_root() {
        return Ok(act());
    }
    let awake = read(CapSet::Effective)?;
    caps::raise(None, CapSet::Effective, Capability::CAP_SETUID).map_err(|_| Errno::EPERM)?;
    let _back = OnDrop(|| {
        prctl::set_keepcaps(true)?;
        set_thread_user(user)?;
        prctl::set_keepcaps(false)?;
        set(CapSet::Effective, &awake)?;
        Ok(prctl::set_dumpable(true)?)
    });
    set_thread_user(Uid::from_raw(0))?;
    Ok(act())
}

/// Whether we have `capability`, but asleep.
pub fn is_asleep(capability: Capability) -> bool {
    let is_in = |which| caps::has_cap(None, which, capability).unwrap_or(false);
    is_in(CapSet::Permitted) && !is_in(CapSet::Effective)
}

/// Runs `act` with `capability` awake, if we keep it asleep; else just runs it.
pub fn lend<T>(capability: Capability, act: impl FnOnce() -> T) -> T {
    if !is_asleep(capability) {
        return act();
    }
    let _asleep_again = OnDrop(|| caps::drop(None, CapSet::Effective, capability).map_err(system));
    // Were it refused, `act` would be, too, and say so.
    let _ = caps::raise(None, CapSet::Effective, capability);
    act()
}

/// Runs `act`, in which our own program is started by `clone` and exec, so that it keeps what
/// [`become_user`] kept for measuring. Where the exec gives it that anyway (to root, or by the
/// capabilities of the file), nothing is handed on.
pub fn hand_on<T>(act: impl FnOnce() -> T) -> io::Result<T> {
    if getuid().is_root() || is_raised() {
        return Ok(act());
    }
    let mut kept = read(CapSet::Permitted)?;
    kept.remove(&Capability::CAP_SETUID);
    // What a caller had us inherit is the caller's to hand on.
    if kept.is_empty() || !read(CapSet::Inheritable)?.is_empty() {
        return Ok(act());
    }
    let _taken_back = OnDrop(inherit_nothing);
    set(CapSet::Inheritable, &kept)?;
    for &capability in &kept {
        caps::raise(None, CapSet::Ambient, capability).map_err(system)?;
    }
    Ok(act())
}

/// Takes what [`hand_on`] gave, so that nothing that this process executes has it.
pub fn take_over() -> io::Result<()> {
    inherit_nothing()?;
    match getuid().is_root() {
        true => stay_root(),
        false => settle(),
    }
}

/// Reduces our capabilities to what measuring needs and what is given here.
fn keep(awake: &CapsHashSet, asleep: &CapsHashSet) -> io::Result<()> {
    let permitted = read(CapSet::Permitted)?;
    let awake = awake | &CapsHashSet::from(AWAKE);
    let all = &(&awake | &CapsHashSet::from(ASLEEP)) | asleep;
    // None is effective that is not permitted, at any moment.
    set(CapSet::Effective, &(&awake & &permitted))?;
    set(CapSet::Permitted, &(&all & &permitted))
}

/// Sets all three user ids of the process. The permitted capabilities stay, the others are lost.
fn change_user(uid: Uid) -> io::Result<()> {
    prctl::set_keepcaps(true)?;
    setresuid(uid, uid, uid)?;
    Ok(prctl::set_keepcaps(false)?)
}

/// Sets all three user ids of this thread; the C library's call would have all threads follow.
fn set_thread_user(uid: Uid) -> io::Result<()> {
    let uid = uid.as_raw();
    // SAFETY: the call takes three integers.
    match unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Empties the inheritable set, and with it the ambient one, which is a part of it.
fn inherit_nothing() -> io::Result<()> {
    set(CapSet::Inheritable, &CapsHashSet::new())
}

/// The ambient set. The kernel tells it one by one, and mostly there is nothing to be told.
fn ambient() -> io::Result<CapsHashSet> {
    match read(CapSet::Inheritable)? {
        inheritable if inheritable.is_empty() => Ok(inheritable),
        _ => read(CapSet::Ambient),
    }
}

fn read(which: CapSet) -> io::Result<CapsHashSet> {
    caps::read(None, which).map_err(system)
}

fn set(which: CapSet, capabilities: &CapsHashSet) -> io::Result<()> {
    caps::set(None, which, capabilities).map_err(system)
}

fn system(error: CapsError) -> io::Error {
    io::Error::other(error)
}

/// What must be done however a step ends. With a privilege that cannot be given up again the
/// process does not live on.
struct OnDrop<F: Fn() -> io::Result<()>>(F);

impl<F: Fn() -> io::Result<()>> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if (self.0)().is_err() {
            std::process::abort();
        }
    }
}
