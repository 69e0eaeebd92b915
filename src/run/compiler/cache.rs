//! Where we keep files between runs: the user's cache and data directories, after the XDG rules. Never reads what is in them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::scratch::{self, Scratch};
use crate::sample::{Cause, Warning};

/// Files of a cache that nobody has used for so long are removed.
const UNUSED: Duration = Duration::from_secs(10 * 24 * 3600);

/// A directory whose files are named after what they are made of. Its loss costs time only.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    /// Why the usual one is not used.
    pub doubt: Option<Warning>,
    _temporary: Option<Scratch>,
}

/// The directory for our caches: `$XDG_CACHE_HOME/counterpoise`, or `~/.cache/counterpoise`.
pub fn cache_home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    home(variable, "XDG_CACHE_HOME", ".cache")
}

/// The directory for what we keep for good: `$XDG_DATA_HOME/counterpoise`, or
/// `~/.local/share/counterpoise`.
pub fn data_home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    home(variable, "XDG_DATA_HOME", ".local/share")
}

fn home(variable: impl Fn(&str) -> Option<OsString>, key: &str, usual: &str) -> Option<PathBuf> {
    // The rules: what is not absolute is to be ignored.
    let absolute = |key| {
        variable(key)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute(key).or_else(|| absolute("HOME").map(|home| home.join(usual)))?;
    Some(base.join("counterpoise"))
}

impl Cache {
    /// The user's cache, or one for this run alone where that cannot be written.
    ///
    /// Errors: not even the directory for temporary files can be written.
    pub fn open() -> Result<Cache, Cause> {
        let usual = cache_home(|key| std::env::var_os(key));
        let why = match usual {
            None => "neither XDG_CACHE_HOME nor HOME is set".to_owned(),
            Some(path) => match writable(&path) {
                Ok(()) => return Ok(Cache::at(path)),
                Err(error) => format!("the cache {} cannot be written: {error}", path.display()),
            },
        };
        let temporary = Scratch::new().map_err(|cause| {
            Cause::new(format!("{why}; {}", cause.why))
                .cure("set XDG_CACHE_HOME to a directory that can be written")
        })?;
        Ok(Cache {
            path: temporary.path().to_owned(),
            doubt: Some(Warning(format!(
                "{why}; what is built for it is thrown away at the end"
            ))),
            _temporary: Some(temporary),
        })
    }

    /// A cache in this directory, which exists.
    pub fn at(path: PathBuf) -> Cache {
        Cache {
            path,
            doubt: None,
            _temporary: None,
        }
    }

    /// The part of it with this name, made if need be.
    pub fn part(&self, name: &str) -> Result<PathBuf, Cause> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }

    /// The file with this content in the part `part`: written once, and named after its content.
    pub fn keep(&self, part: &str, content: &[u8]) -> Result<PathBuf, Cause> {
        let path = self.part(part)?.join(hex(&Sha256::digest(content)));
        if !used(&path) {
            write(&path, content)?;
        }
        Ok(path)
    }

    /// Removes the files of a part that have not been used for long, and what the dead left there.
    pub fn tidy(&self, part: &str) {
        scratch::sweep(&self.path.join(part));
        let Ok(entries) = fs::read_dir(self.path.join(part)) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|about| about.modified());
            let age = age.map(|since| SystemTime::now().duration_since(since));
            if matches!(age, Ok(Ok(age)) if age > UNUSED) {
                // Another of us may have been faster.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether the file is there; if so it counts as used now.
pub(super) fn used(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    // Only to keep it from being tidied away.
    let _ = file.set_modified(SystemTime::now());
    true
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Cause> {
    let attempt = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|error| unwritable(path, &error))
}

/// The cause of a write that failed, with its cure.
pub fn unwritable(path: &Path, error: &io::Error) -> Cause {
    let cause = Cause::new(format!("cannot write {}: {error}", path.display()));
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            cause.cure("make room there, or set XDG_CACHE_HOME or TMPDIR to another disk")
        }
        _ => cause,
    }
}

/// Whether files can be made in this directory, which is made if need be.
fn writable(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    tempfile::tempfile_in(path).map(drop)
}

/// The hash of a whole file, in hexadecimal digits.
pub fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (fs::File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_follow_the_rules() {
        let check = |set: &[(&str, &str)], want: Option<&str>| {
            let variable = |key: &str| {
                let found = set.iter().find(|(name, _)| *name == key);
                found.map(|(_, value)| value.into())
            };
            assert_eq!(cache_home(variable), want.map(PathBuf::from), "{set:?}");
        };
        check(
            &[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")],
            Some("/c/counterpoise"),
        );
        check(
            &[("XDG_CACHE_HOME", "c"), ("HOME", "/h")],
            Some("/h/.cache/counterpoise"),
        );
        check(
            &[("XDG_CACHE_HOME", ""), ("HOME", "/h")],
            Some("/h/.cache/counterpoise"),
        );
        check(&[("HOME", "h")], None);
        check(&[], None);
    }

    #[test]
    fn content_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().to_owned());
        let first = cache.keep("inputs", b"a").unwrap();
        assert_eq!(cache.keep("inputs", b"a").unwrap(), first);
        assert_ne!(cache.keep("inputs", b"b").unwrap(), first);
        assert_eq!(fs::read(&first).unwrap(), b"a");
        let old = SystemTime::now() - UNUSED - Duration::from_secs(60);
        fs::File::open(&first).unwrap().set_modified(old).unwrap();
        cache.tidy("inputs");
        assert!(!first.exists());
        assert_eq!(
            fs::read_dir(directory.path().join("inputs"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn a_full_disk_has_a_cure() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let cause = unwritable("/c/x".as_ref(), &full);
        assert!(cause.cure.unwrap().contains("make room"));
    }
}
