//! The directory of one build, and who may be in it: one builder at a time, and nobody who removes it while it is used. Never builds.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::compiler::cache::{self, unwritable};
use crate::run::interrupt::Interrupt;
use crate::sample::Cause;

/// Between two looks at a lock that another has.
const PAUSE: Duration = Duration::from_millis(50);

/// A locked directory. The lock is given up when this and all that inherited it are gone: what is
/// built has it for its standard input, so whoever gets the lock is alone in there.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) path: PathBuf,
    pub(super) lock: Arc<File>,
}

impl Room {
    /// Enters the directory `path`, which is made if need be: alone, or as soon as it is `enough`
    /// together with others. A builder that lives is waited for; what a builder that was killed has
    /// left running is ended.
    ///
    /// Errors: it cannot be written, or we were asked to stop.
    pub(super) fn enter(
        path: &Path,
        interrupt: &Interrupt,
        enough: impl Fn(&Path) -> bool,
    ) -> Result<Room, Cause> {
        let unwritable = |error| unwritable(path, &error);
        loop {
            fs::create_dir_all(path).map_err(unwritable)?;
            if let Some(room) = Room::open(path, File::try_lock_shared).map_err(unwritable)?
                && enough(path)
            {
                return Ok(room);
            }
            if let Some(room) = Room::look(path).map_err(unwritable)? {
                let itself = process_start(std::process::id()).unwrap_or_default();
                let us = format!("{} {itself}\n", std::process::id());
                cache::write(&path.join(BUILDER), us.as_bytes())?;
                return Ok(room);
            }
            if let Some(signal) = interrupt.caught() {
                return Err(Cause::new(format!("stopped by {signal}")));
            }
            if !builder_lives(path) {
                end_left_over(path);
            }
            sleep(PAUSE);
        }
    }

    /// Enters the directory, if nobody is in there.
    pub(super) fn look(path: &Path) -> io::Result<Option<Room>> {
        Room::open(path, File::try_lock)
    }

    fn open(
        path: &Path,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> io::Result<Option<Room>> {
        let name = path.join(LOCK);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let lock = match options.open(&name) {
            Ok(lock) => lock,
            // It went just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // It may have been removed, and made anew, before we had it.
        let (own, there) = (lock.metadata()?, fs::metadata(&name));
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
        Ok(same.then(|| Room {
            path: path.to_owned(),
            lock: Arc::new(lock),
        }))
    }

    /// Lets others in, who use what is there as we do; nobody removes it meanwhile.
    pub(super) fn share(&self) -> io::Result<()> {
        self.lock.lock_shared()
    }

    /// Removes all but the lock.
    pub(super) fn empty(&self) -> Result<(), Cause> {
        let entries = fs::read_dir(&self.path).map_err(|error| unwritable(&self.path, &error))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name() != LOCK && entry.file_name() != BUILDER {
                remove(&path).map_err(|error| unwritable(&path, &error))?;
            }
        }
        Ok(())
    }

    /// Removes the whole directory, out of the way at once.
    pub(super) fn demolish(self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let rubble = self
            .path
            .with_file_name(format!("{RUBBLE}{name}-{}", std::process::id()));
        fs::rename(&self.path, &rubble)?;
        remove(&rubble)
    }
}

/// How the names of directories begin that are being removed.
pub(super) const RUBBLE: &str = ".removed-";

/// The file whose lock is that of the directory.
const LOCK: &str = "lock";

/// The file with the number of the process that builds, and when that was started.
const BUILDER: &str = "builder";

/// Whether the process that took the lock last is still there.
fn builder_lives(path: &Path) -> bool {
    let text = fs::read_to_string(path.join(BUILDER)).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(pid)), Some(Ok(start))) => {
            u32::try_from(pid).is_ok_and(|pid| process_start(pid) == Some(start))
        }
        // Just beginning.
        _ => true,
    }
}

/// When a process was started, in ticks since the boot.
fn process_start(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

/// Kills the processes whose standard input is the lock: descendants of a builder that was killed.
fn end_left_over(path: &Path) {
    let Ok(lock) = fs::metadata(path.join(LOCK)) else {
        return;
    };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let input = fs::metadata(entry.path().join("fd/0"));
        if input.is_ok_and(|input| (input.dev(), input.ino()) == (lock.dev(), lock.ino())) {
            // Others may be gone by now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Removes a file or a directory with all that is in it; directories that forbid it are opened.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let attempt = || match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match attempt() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            attempt()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Module caches are made read-only.
fn open_up(path: &Path) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    if is_directory {
        // What cannot be opened is told by the attempt that follows.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| open_up(&entry.path()));
    }
}

/// Bytes that a directory takes on the disk.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else {
        return 0;
    };
    let entries = match about.is_dir() {
        true => fs::read_dir(path).ok(),
        false => None,
    };
    let within: u64 = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| disk_bytes(&entry.path()))
        .sum();
    // The kernel counts in blocks of 512 bytes whatever the disk's own are.
    about.blocks() * 512 + within
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn one_is_in_there_until_it_shares() {
        let directory = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::listen().unwrap();
        let path = directory.path().join("room");
        let room = Room::enter(&path, &interrupt, |_| false).unwrap();
        assert!(Room::look(&path).unwrap().is_none());
        room.share().unwrap();
        // Sharing keeps out who wants to be alone.
        assert!(Room::look(&path).unwrap().is_none());
        drop(Room::enter(&path, &interrupt, |_| true).unwrap());
        drop(room);
        fs::create_dir(path.join("closed")).unwrap();
        fs::write(path.join("closed/file"), "x").unwrap();
        fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        let room = Room::look(&path).unwrap().unwrap();
        room.empty().unwrap();
        assert!(!path.join("closed").exists());
        room.demolish().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_builder_left_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::listen().unwrap();
        let path = directory.path().join("room");
        let room = Room::enter(&path, &interrupt, |_| false).unwrap();
        let input = Stdio::from(room.lock.try_clone().unwrap());
        let mut left_over = Command::new("sleep")
            .arg("60")
            .stdin(input)
            .spawn()
            .unwrap();
        // As if another had built and was killed.
        fs::write(path.join(BUILDER), "1 1\n").unwrap();
        drop(room);
        assert!(Room::look(&path).unwrap().is_none());
        Room::enter(&path, &interrupt, |_| false).unwrap();
        assert!(!left_over.wait().unwrap().success());
    }
}
