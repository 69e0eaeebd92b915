//! The lock over the whole machine: one exclusive holder or many shared ones. Leaves no file behind, and never breaks another's lock.
//!
//! It is a `flock(2)` on the directory of the CPUs in `/sys`, which exists everywhere, belongs to
//! root and can be opened by everybody, so there is nothing to create and nothing to abuse; the
//! kernel frees it when the last process that has it open ends. A container with a network
//! namespace of its own has a `/sys` of its own, and so a lock of its own.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use procfs::FromRead;
use procfs::process::{ProcState, Stat};

use crate::machine::Roots;

/// Whether others may hold the machine at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else may.
    Exclusive,
    /// Others may that share it too.
    Shared,
}

/// The machine's lock, ours until the last copy of the descriptor is closed.
#[derive(Debug)]
pub struct Lock(File);

/// A process that has the lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Its process id; `None` when it has ended and its keeper has the lock, or when it cannot be
    /// seen from here.
    pub pid: Option<i32>,
    /// How it holds.
    pub sharing: Sharing,
    /// Its command line, cut to a readable length.
    pub command: Option<String>,
    /// When the process was started. The lock itself keeps no time.
    pub since: Option<SystemTime>,
    /// Whether it is stopped (^Z, SIGSTOP), and so will not let go by itself.
    pub stopped: bool,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Others have it, for longer than we wait.
    #[error("the machine is held by {}", holders_text(.0))]
    Held(Vec<Holder>),
    /// We were asked to stop while we waited.
    #[error("interrupted while waiting for the lock")]
    Interrupted,
    /// The system does not let us.
    #[error("cannot lock {}: {error}", path.display())]
    System {
        /// What is locked.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock, and waits at most `patience` for it (`None`: as long as it takes), unless
    /// `stop` polls readable. `waiting` is told the holders once, when there is need to wait.
    pub fn take(
        roots: &Roots,
        sharing: Sharing,
        patience: Option<Duration>,
        stop: BorrowedFd<'_>,
        waiting: &mut dyn FnMut(&[Holder]),
    ) -> Result<Lock, Refusal> {
        let path = place(roots);
        let system = |error| Refusal::System {
            path: path.clone(),
            error,
        };
        let file = File::open(&path).map_err(system)?;
        let tried = match sharing {
            Sharing::Exclusive => file.try_lock(),
            Sharing::Shared => file.try_lock_shared(),
        };
        match tried {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::Error(error)) => return Err(system(error)),
            Err(TryLockError::WouldBlock) if patience == Some(Duration::ZERO) => {
                return Err(Refusal::Held(holders(roots)));
            }
            Err(TryLockError::WouldBlock) => waiting(&holders(roots)),
        }
        // A thread sleeps in the kernel's queue: nothing wakes up now and then to disturb the
        // holder. Given up, it is left there; should it still get the lock, its file is dropped.
        let (done, wake) = io::pipe().map_err(system)?;
        let waiter = std::thread::spawn(move || {
            let locked = match sharing {
                Sharing::Exclusive => file.lock(),
                Sharing::Shared => file.lock_shared(),
            };
            drop(wake);
            locked.map(|()| file)
        });
        let mut doors = [
            PollFd::new(done.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop, PollFlags::POLLIN),
        ];
        let timeout = patience.map_or(PollTimeout::NONE, |patience| {
            PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)
        });
        loop {
            match poll(&mut doors, timeout) {
                // A signal that asks us to stop makes `stop` readable.
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(system(errno.into())),
                Ok(0) => return Err(Refusal::Held(holders(roots))),
                Ok(_) if doors[1].any() == Some(true) => return Err(Refusal::Interrupted),
                Ok(_) => break,
            }
        }
        match waiter.join() {
            Ok(locked) => locked.map(Lock).map_err(system),
            Err(_) => Err(system(io::ErrorKind::Other.into())),
        }
    }

    /// Another descriptor of the same lock, for a process that shall keep it when we die.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }
}

/// Who holds the machine. Empty when nobody does, or when `/proc/locks` cannot be read.
pub fn holders(roots: &Roots) -> Vec<Holder> {
    let Ok(locked) = fs::metadata(place(roots)) else {
        return Vec::new();
    };
    let (device, inode) = (locked.st_dev(), locked.st_ino());
    let file = format!(
        "{:02x}:{:02x}:{inode}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    let locks = fs::read_to_string(roots.proc.join("locks")).unwrap_or_default();
    locks
        .lines()
        .filter_map(|line| decode(line, &file))
        .map(|(pid, sharing)| Holder::look(roots, pid, sharing))
        .collect()
}

/// The process that locked `file`, and how: proc_locks(5), `1: FLOCK  ADVISORY  WRITE 863 00:16:3562 0 EOF`.
/// Who waits has a `->` behind the number; 0 is a process that has ended or is not ours to see.
fn decode(line: &str, file: &str) -> Option<(i32, Sharing)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next() != Some("FLOCK") {
        return None;
    }
    let sharing = match words.nth(1)? {
        "READ" => Sharing::Shared,
        _ => Sharing::Exclusive,
    };
    let pid = words.next()?.parse().ok()?;
    (words.next()? == file).then_some((pid, sharing))
}

impl Holder {
    fn look(roots: &Roots, pid: i32, sharing: Sharing) -> Holder {
        let stat = process(roots, pid);
        let command = fs::read(roots.proc.join(format!("{pid}/cmdline"))).ok();
        Holder {
            pid: (pid > 0).then_some(pid),
            sharing,
            command: command
                .map(|words| command_text(&words))
                .filter(|text| !text.is_empty()),
            since: stat.as_ref().and_then(started),
            stopped: stat
                .and_then(|stat| stat.state().ok())
                .is_some_and(|state| matches!(state, ProcState::Stopped | ProcState::Tracing)),
        }
    }

    /// Whether we descend from it: then the machine is held for us.
    pub fn is_ancestor(&self, roots: &Roots) -> bool {
        let Some(holder) = self.pid else {
            return false;
        };
        let mut pid = nix::unistd::getppid().as_raw();
        while pid > 1 && pid != holder {
            pid = process(roots, pid).map_or(0, |stat| stat.ppid);
        }
        pid == holder
    }
}

/// Who they are, for people: `pid 863 (poise hold -- make), running since 2026-11-22T01:23:38Z`.
pub fn holders_text(holders: &[Holder]) -> String {
    let one = |holder: &Holder| {
        let Some(pid) = holder.pid else {
            return "a process that cannot be seen from here, or the keeper of one that has ended"
                .to_owned();
        };
        let mut text = format!("pid {pid}");
        if let Some(command) = &holder.command {
            text += &format!(" ({command})");
        }
        if let Some(since) = holder.since {
            text += &format!(
                ", running since {}",
                humantime::format_rfc3339_seconds(since)
            );
        }
        if holder.stopped {
            text += ", which is stopped";
        }
        text
    };
    match holders {
        [] => "somebody".to_owned(),
        some => some.iter().map(one).collect::<Vec<_>>().join(" and "),
    }
}

fn place(roots: &Roots) -> PathBuf {
    roots.sys.join("devices/system/cpu")
}

fn process(roots: &Roots, pid: i32) -> Option<Stat> {
    let stat = File::open(roots.proc.join(format!("{pid}/stat"))).ok()?;
    Stat::from_read(stat).ok()
}

/// When a process was started; the kernel counts it in ticks since the boot.
fn started(stat: &Stat) -> Option<SystemTime> {
    let up = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let then =
        Duration::try_from_secs_f64(stat.starttime as f64 / procfs::ticks_per_second() as f64);
    SystemTime::now().checked_sub(up.checked_sub(then.ok()?)?)
}

/// Characters of a command line that are shown.
const COMMAND_LENGTH: usize = 60;

/// The words of /proc/PID/cmdline in one line, without what could play tricks on a terminal.
fn command_text(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text: String = text
        .trim_end_matches('\0')
        .chars()
        .map(|c| if plays_tricks(c) { ' ' } else { c })
        .collect();
    match text.char_indices().nth(COMMAND_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Controls, and those of Unicode that turn the direction of the text.
fn plays_tricks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    fn take(roots: &Roots, sharing: Sharing, patience_ms: u64) -> Result<Lock, Refusal> {
        let (stop, _never) = io::pipe().unwrap();
        let patience = Some(Duration::from_millis(patience_ms));
        Lock::take(roots, sharing, patience, stop.as_fd(), &mut |_| {})
    }

    fn machine() -> Fake {
        let fake = Fake::new();
        fake.sys("devices/system/cpu/online", "0");
        fake
    }

    #[test]
    fn one_exclusive_holder_or_many_shared() {
        use Sharing::{Exclusive, Shared};
        let fake = machine();
        let check = |first, second, both| {
            let held = take(&fake.roots, first, 0).unwrap();
            let got = take(&fake.roots, second, 0);
            assert_eq!(got.is_ok(), both, "{first:?} {second:?}");
            drop((held, got));
            take(&fake.roots, second, 0).unwrap();
        };
        check(Exclusive, Exclusive, false);
        check(Exclusive, Shared, false);
        check(Shared, Exclusive, false);
        check(Shared, Shared, true);
    }

    #[test]
    fn a_copy_keeps_the_lock() {
        let fake = machine();
        let lock = take(&fake.roots, Sharing::Exclusive, 0).unwrap();
        let copy = lock.share().unwrap();
        drop(lock);
        assert!(take(&fake.roots, Sharing::Exclusive, 0).is_err());
        drop(copy);
        assert!(take(&fake.roots, Sharing::Exclusive, 0).is_ok());
    }

    #[test]
    fn waiting_ends_with_the_holder_or_the_patience_or_a_signal() {
        let fake = machine();
        let held = take(&fake.roots, Sharing::Exclusive, 0).unwrap();
        assert!(matches!(
            take(&fake.roots, Sharing::Exclusive, 20),
            Err(Refusal::Held(_))
        ));
        let (stop, signal) = io::pipe().unwrap();
        drop(signal);
        let stopped = Lock::take(
            &fake.roots,
            Sharing::Shared,
            None,
            stop.as_fd(),
            &mut |_| {},
        );
        assert!(matches!(stopped, Err(Refusal::Interrupted)), "{stopped:?}");
        let mut told = None;
        let (stop, _never) = io::pipe().unwrap();
        let mut free = Some(held);
        Lock::take(
            &fake.roots,
            Sharing::Exclusive,
            None,
            stop.as_fd(),
            &mut |holders| {
                told = Some(holders.len());
                drop(free.take());
            },
        )
        .unwrap();
        assert!(told.is_some());
    }

    #[test]
    fn holders_are_found_in_the_kernels_list() {
        let check = |line: &str, want| assert_eq!(decode(line, "00:16:3562"), want, "{line}");
        check(
            "1: FLOCK  ADVISORY  WRITE 863 00:16:3562 0 EOF",
            Some((863, Sharing::Exclusive)),
        );
        check(
            "2: FLOCK  ADVISORY  READ  864 00:16:3562 0 EOF",
            Some((864, Sharing::Shared)),
        );
        check("1: -> FLOCK  ADVISORY  WRITE 865 00:16:3562 0 EOF", None);
        check("3: POSIX  ADVISORY  WRITE 866 00:16:3562 0 EOF", None);
        check("4: FLOCK  ADVISORY  WRITE 867 00:16:35620 0 EOF", None);
        check("4: FLOCK", None);
        check("", None);
    }

    #[test]
    fn we_are_seen_to_hold_the_real_machine() {
        let roots = Roots::default();
        // Shared, so that it waits for nobody but an exclusive holder, who would be told.
        let held = take(&roots, Sharing::Shared, 60_000).unwrap();
        let own = std::process::id() as i32;
        let holders = holders(&roots);
        let mine = holders.iter().find(|holder| holder.pid == Some(own));
        let mine = mine.unwrap_or_else(|| panic!("{own} is not in {holders:?}"));
        assert_eq!((mine.sharing, mine.stopped), (Sharing::Shared, false));
        assert!(mine.since.unwrap() <= SystemTime::now() && mine.command.is_some());
        assert!(!mine.is_ancestor(&roots));
        drop(held);
    }

    #[test]
    fn command_lines_are_made_readable() {
        let check = |words: &[u8], want: &str| assert_eq!(command_text(words), want);
        check(b"poise\0hold\0--\0make\0", "poise hold -- make");
        check(b"evil\0\x1b[2J\0", "evil  [2J");
        check("\u{202e}live".as_bytes(), " live");
        check(
            "ä".repeat(70).as_bytes(),
            &format!("{}…", "ä".repeat(COMMAND_LENGTH)),
        );
    }
}
