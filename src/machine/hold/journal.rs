//! The journal: the machine's old settings, on disk before the first one is changed and until the last one is back. Never follows a link, and never trusts a directory that others may write in.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use serde::{Deserialize, Serialize};

use super::Change;
use super::partition::Partition;
use super::setting::Setting;
use crate::machine::Roots;

/// What the machine was before it was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The kernel's name for this boot: another one has set everything anew.
    boot: String,
    /// The process that holds, or held.
    pub(super) holder: i32,
    /// When it began to, RFC 3339 in UTC.
    pub(super) since: String,
    /// In the order in which they are written; given back in reverse.
    pub(super) settings: Vec<Setting>,
    /// Made after the settings were written; given back before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<Partition>,
}

/// A journal that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the journal {}: {error}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    error: io::Error,
}

const NAME: &str = "journal";
const DRAFT: &str = "journal.new";

impl Journal {
    /// The journal of a hold that begins now.
    pub(super) fn begin(roots: &Roots, settings: Vec<Setting>) -> Journal {
        Journal {
            boot: boot(roots),
            holder: std::process::id() as i32,
            since: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            settings,
            partition: None,
        }
    }

    /// Reads the journal that is there, if one is. One from before the last boot is none: the
    /// kernel has set everything anew.
    pub(super) fn read(roots: &Roots) -> Result<Option<Journal>, Error> {
        let failed = |error: io::Error| Error {
            action: "read",
            path: roots.run.join(NAME),
            error,
        };
        let directory = match open_directory(roots) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory.map_err(failed)?,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&directory, NAME, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            file => file.map_err(|errno| failed(errno.into()))?,
        };
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map_err(failed)?;
        let damaged = |error: serde_json::Error| {
            let path = roots.run.join(NAME);
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it is damaged ({error}); look what it says, and rm {}",
                    path.display()
                ),
            ))
        };
        let journal: Journal = serde_json::from_str(&text).map_err(damaged)?;
        Ok((journal.boot == boot(roots)).then_some(journal))
    }

    /// Puts it on disk in the place of the one that is there: whole, or not at all.
    pub(super) fn write(&self, roots: &Roots) -> Result<(), Error> {
        let written = || -> io::Result<()> {
            make_directory(roots)?;
            let directory = open_directory(roots)?;
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_TRUNC
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            let draft = openat(&directory, DRAFT, flags, Mode::from_bits_truncate(0o644))?;
            let mut draft = File::from(draft);
            let put = draft
                .write_all(serde_json::to_string(self)?.as_bytes())
                // Everybody may know it, whatever our umask.
                .and_then(|()| draft.set_permissions(fs::Permissions::from_mode(0o644)))
                .and_then(|()| draft.sync_all())
                .and_then(|()| Ok(renameat(&directory, DRAFT, &directory, NAME)?));
            if put.is_err() {
                // A full disk has no room for a draft that is good for nothing.
                let _ = unlinkat(&directory, DRAFT, UnlinkatFlags::NoRemoveDir);
            }
            put?;
            sync(&directory)
        };
        written().map_err(|error| Error {
            action: "keep",
            path: roots.run.join(NAME),
            error,
        })
    }

    /// Takes it away, when everything is as it was.
    pub(super) fn remove(roots: &Roots) -> Result<(), Error> {
        let removed = || -> io::Result<()> {
            let directory = open_directory(roots)?;
            match unlinkat(&directory, NAME, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => sync(&directory),
                Err(errno) => Err(errno.into()),
            }
        };
        removed().map_err(|error| Error {
            action: "remove",
            path: roots.run.join(NAME),
            error,
        })
    }

    /// What it would give back, in the order in which it was changed.
    pub fn changes(&self) -> Vec<Change> {
        let settings = self.settings.iter().cloned().map(Change::Setting);
        let partition = self.partition.iter().cloned().map(Change::Partition);
        settings.chain(partition).collect()
    }

    /// Puts it on disk, or takes it away when there is nothing more to give back.
    pub(super) fn keep(&self, roots: &Roots) -> Result<(), Error> {
        match self.settings.is_empty() && self.partition.is_none() {
            true => Journal::remove(roots),
            false => self.write(roots),
        }
    }

    /// The process that holds, or held, and since when.
    pub fn holder(&self) -> (i32, &str) {
        (self.holder, &self.since)
    }
}

fn boot(roots: &Roots) -> String {
    let id = fs::read_to_string(roots.proc.join("sys/kernel/random/boot_id"));
    id.unwrap_or_default().trim().to_owned()
}

fn make_directory(roots: &Roots) -> io::Result<()> {
    if let Some(parent) = roots.run.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(&roots.run) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(&roots.run, fs::Permissions::from_mode(0o755)),
    }
}

/// The directory itself, not what a link leads to, and only if nobody but root, or we ourselves,
/// can put anything into it.
fn open_directory(roots: &Roots) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = File::from(open(&roots.run, flags, Mode::empty())?);
    let about = directory.metadata()?;
    let trusted = [0, nix::unistd::geteuid().as_raw()].contains(&about.uid());
    match trusted && about.mode() & 0o022 == 0 {
        true => Ok(directory.into()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "its directory belongs to somebody else, or others may write in it",
        )),
    }
}

/// Makes a rename or removal last. What has no disk below needs none.
fn sync(directory: &impl AsFd) -> io::Result<()> {
    match fsync(directory) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::machine::fake::Fake;

    fn journal(roots: &Roots) -> Journal {
        let setting = Setting {
            path: "devices/system/cpu/cpufreq/boost".to_owned(),
            old: "1".to_owned(),
            wanted: "0".to_owned(),
            now: None,
        };
        Journal::begin(roots, vec![setting])
    }

    #[test]
    fn it_is_kept_and_read_and_removed() {
        let fake = Fake::new();
        assert_eq!(Journal::read(&fake.roots).unwrap(), None);
        let journal = journal(&fake.roots);
        for _ in 0..2 {
            journal.write(&fake.roots).unwrap();
            assert_eq!(Journal::read(&fake.roots).unwrap().as_ref(), Some(&journal));
        }
        Journal::remove(&fake.roots).unwrap();
        assert_eq!(Journal::read(&fake.roots).unwrap(), None);
        Journal::remove(&fake.roots).unwrap();
    }

    #[test]
    fn one_of_an_earlier_boot_is_none() {
        let fake = Fake::new();
        fake.proc("sys/kernel/random/boot_id", "one\n");
        journal(&fake.roots).write(&fake.roots).unwrap();
        fake.proc("sys/kernel/random/boot_id", "two\n");
        assert_eq!(Journal::read(&fake.roots).unwrap(), None);
    }

    #[test]
    fn a_directory_that_others_could_fill_is_not_trusted() {
        let check = |make: &dyn Fn(&Roots), want: &str| {
            let fake = Fake::new();
            fs::create_dir_all(fake.roots.run.parent().unwrap()).unwrap();
            make(&fake.roots);
            let error = journal(&fake.roots).write(&fake.roots).unwrap_err();
            assert!(error.to_string().ends_with(want), "{error}");
        };
        let open = |roots: &Roots| {
            fs::create_dir(&roots.run).unwrap();
            fs::set_permissions(&roots.run, fs::Permissions::from_mode(0o777)).unwrap();
        };
        check(&open, "or others may write in it");
        let link = |roots: &Roots| {
            symlink("/tmp", &roots.run).unwrap();
        };
        check(&link, "Not a directory (os error 20)");
        let file = |roots: &Roots| fs::write(&roots.run, "").unwrap();
        check(&file, "Not a directory (os error 20)");
    }

    #[test]
    fn links_are_not_followed() {
        let fake = Fake::new();
        let journal = journal(&fake.roots);
        journal.write(&fake.roots).unwrap();
        let victim = fake.roots.sys.join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, fake.roots.run.join(DRAFT)).unwrap();
        assert!(journal.write(&fake.roots).is_err());
        fs::remove_file(fake.roots.run.join(NAME)).unwrap();
        symlink(&victim, fake.roots.run.join(NAME)).unwrap();
        assert!(Journal::read(&fake.roots).is_err());
        assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
    }

    #[test]
    fn a_damaged_one_is_an_error_and_stays() {
        let fake = Fake::new();
        journal(&fake.roots).write(&fake.roots).unwrap();
        for damaged in ["", "{", "[]", "{\"boot\":\"\",\"holder\":1}"] {
            fs::write(fake.roots.run.join(NAME), damaged).unwrap();
            assert!(Journal::read(&fake.roots).is_err(), "{damaged}");
            assert!(fake.roots.run.join(NAME).exists());
        }
    }
}
