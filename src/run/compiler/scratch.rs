//! Directories for what is thrown away, gone with the value; what a killed process of ours left behind is removed by the next. Never touches what is another user's, or in use.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Once;

use nix::unistd::geteuid;
use tempfile::TempDir;

use super::cache::unwritable;
use crate::sample::Cause;

/// How their names begin; some letters follow.
const PREFIX: &str = "poise-scratch-";

/// How many.
const LETTERS: usize = 6;

/// A directory that goes when this is dropped. It is locked meanwhile, by a file that only we have
/// open, so that a lock that can be had tells of an owner that is dead.
#[derive(Debug)]
pub struct Scratch {
    // Before the lock: it must be gone when that is given up.
    directory: TempDir,
    /// None where the file system has no locks: then it is never taken for a dead one's.
    _lock: Option<File>,
}

impl Scratch {
    /// One in the directory for temporary files.
    ///
    /// Errors: that cannot be written.
    pub fn new() -> Result<Scratch, Cause> {
        static SWEPT: Once = Once::new();
        let usual = std::env::temp_dir();
        SWEPT.call_once(|| sweep(&usual));
        Scratch::within(&usual)
    }

    /// One in this directory.
    ///
    /// Errors: it cannot be written.
    pub fn within(place: &Path) -> Result<Scratch, Cause> {
        let attempt = || loop {
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(LETTERS)
                .tempdir_in(place)?;
            let lock = lock(directory.path());
            // Before we had it somebody may have swept it away.
            if !matches!(lock, Ok(None)) {
                return Ok(Scratch {
                    directory,
                    _lock: lock.ok().flatten(),
                });
            }
        };
        attempt().map_err(|error| unwritable(place, &error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what the dead have left in this directory.
pub fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let letters = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let is_ours = letters.is_some_and(|letters| {
            letters.len() == LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let is_own = || {
            let about = entry.metadata();
            about.is_ok_and(|about| about.uid() == geteuid().as_raw())
        };
        if is_ours
            && is_own()
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            // Another of us may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The lock of a directory of ours; `None` when another has it, or it went just now.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true);
    options.custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let file = match options.open(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let own = file.metadata()?;
    let there = fs::symlink_metadata(directory);
    let is_same = there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
    Ok(is_same.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let living = Scratch::within(place.path()).unwrap();
        fs::write(living.path().join("file"), "").unwrap();
        let dead = at("poise-scratch-aB3dE6");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("file"), "").unwrap();
        let others = ["poise-results", "poise-scratch-longer-name", "elsewhere"];
        for name in others {
            fs::create_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(at("elsewhere"), at("poise-scratch-symlin")).unwrap();
        fs::write(at("poise-scratch-isfile"), "").unwrap();
        sweep(place.path());
        assert!(!dead.exists());
        for name in ["poise-scratch-symlin", "poise-scratch-isfile"]
            .iter()
            .chain(&others)
        {
            assert!(at(name).exists(), "{name}");
        }
        assert!(living.path().join("file").exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }
}
