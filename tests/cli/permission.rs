//! Without the permission to count: ordinary users at each level of perf_event_paranoid, set-uid changes, and seccomp filters.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use tempfile::TempDir;

use crate::common::{
    Ran, counts, exact, finish, is_root, measure, not_run, poise, poise_at, words,
};
use crate::raw::{self, Filter};

const LEVEL: &str = "/proc/sys/kernel/perf_event_paranoid";

/// kernel.perf_event_paranoid at a level of our choice; put back when dropped. Tests that need
/// one wait for each other.
struct Paranoid {
    file: File,
    before: String,
}

impl Paranoid {
    /// None, with a word about it, where the level cannot be chosen.
    fn at(level: i32, what: &str) -> Option<Paranoid> {
        let opened = File::options().read(true).write(true).open(LEVEL);
        let chosen = opened.and_then(|mut file| {
            file.lock()?;
            let mut before = String::new();
            file.read_to_string(&mut before)?;
            let mut paranoid = Paranoid { file, before };
            paranoid.set(&level.to_string())?;
            Ok(paranoid)
        });
        match chosen {
            Ok(paranoid) => Some(paranoid),
            Err(error) => {
                not_run(what, format!("{LEVEL}: {error}"));
                None
            }
        }
    }

    fn set(&mut self, level: &str) -> std::io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(level.as_bytes())
    }
}

impl Drop for Paranoid {
    fn drop(&mut self) {
        let before = self.before.clone();
        let restored = self.set(before.trim());
        assert!(
            restored.is_ok(),
            "{LEVEL} must be {before} again: {restored:?}"
        );
    }
}

/// An ordinary user, and a copy of the program that they may read.
struct Nobody {
    directory: TempDir,
    program: PathBuf,
}

impl Nobody {
    const ID: u32 = 65534;

    /// None, with a word about it, where we cannot become them.
    fn new(what: &str) -> Option<Nobody> {
        if !is_root() {
            not_run(what, "only root can become another user");
            return None;
        }
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("poise");
        let original = env!("CARGO_BIN_EXE_poise");
        fs::hard_link(original, &program)
            .or_else(|_| fs::copy(original, &program).map(|_| ()))
            .unwrap();
        Some(Nobody { directory, program })
    }

    fn poise(&self) -> Command {
        let mut command = poise_at(&self.program);
        command
            .uid(Self::ID)
            .gid(Self::ID)
            .current_dir(&self.directory);
        command
    }

    fn run(&self, arguments: &str) -> Ran {
        finish(self.poise().args(words(arguments)))
    }
}

#[test]
fn files_of_others_are_named() {
    let Some(nobody) = Nobody::new("files of others") else {
        return;
    };
    nobody
        .run("stat -q -o denied -- true")
        .refuses(1, &["denied", "Permission denied"]);
    let input = nobody.directory.path().join("input");
    fs::write(&input, "").unwrap();
    fs::set_permissions(&input, fs::Permissions::from_mode(0o600)).unwrap();
    nobody
        .run("stat --input input")
        .refuses(1, &["input", "Permission denied"]);
    nobody
        .run("stat -q -- ./input")
        .refuses(126, &["not executable"]);
}

#[test]
fn a_command_may_change_its_user() {
    let what = "a command that changes its user";
    if !is_root() {
        return not_run(what, "only root can become another user");
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return not_run(what, "there is no setpriv");
    }
    if !counts(what, "minor-faults") {
        return;
    }
    let become_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let direct = &measure(words("stat -e minor-faults -- cat /dev/null"))[0];
    let line = format!("stat -e minor-faults -- {become_nobody} cat /dev/null");
    let changed = &measure(words(&line))[0];
    // Counting goes on beyond the change.
    let unit = "minor-faults/op";
    assert!(exact(changed, unit) > exact(direct, unit), "{changed:#?}");
    // It is still ended whole.
    let line = format!("stat -q --timeout 100 -- {become_nobody} sleep 1000");
    finish(poise().args(words(&line))).exits(124);
}

