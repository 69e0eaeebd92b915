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
pub(crate) struct Nobody {
    directory: TempDir,
    program: PathBuf,
}

impl Nobody {
    const ID: u32 = 65534;

    /// None, with a word about it, where we cannot become them.
    pub(crate) fn new(what: &str) -> Option<Nobody> {
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

    pub(crate) fn run(&self, arguments: &str) -> Ran {
        finish(self.poise().args(words(arguments)))
    }
}

#[test]
fn at_level_1_the_kernel_is_counted_and_the_machine_is_not() {
    let what = "an ordinary user at level 1";
    let (Some(nobody), true) = (Nobody::new(what), counts(what, "minor-faults")) else {
        return;
    };
    let Some(_level) = Paranoid::at(1, what) else {
        return;
    };
    let ran = nobody.run("stat -e minor-faults --json -- true").exits(0);
    assert_eq!(ran.stderr, "");
    ran.shows(&[r#""unit":"minor-faults/op","value":"#]);
    let ran = nobody.run("stat -a --timeout 10");
    ran.refuses(5, &["kernel.perf_event_paranoid=0", "cap_perfmon"]);
}

#[test]
fn from_level_2_on_only_user_mode_is_counted_and_named_so() {
    let what = "an ordinary user at levels 2, 3 and 4";
    let (Some(nobody), true) = (Nobody::new(what), counts(what, "minor-faults")) else {
        return;
    };
    for level in [2, 3, 4] {
        let Some(_level) = Paranoid::at(level, what) else {
            return;
        };
        let cause = format!("perf_event_paranoid is {level}");
        // A kernel with Debian's patch refuses everything from level 3 on.
        let ran = nobody.run("stat -e minor-faults -- true").exits(0);
        let ran = ran.says(&[&cause, "kernel.perf_event_paranoid=1", "cap_perfmon"]);
        let counted = ran.stderr.contains("minor-faults:u/op");
        let absent = ran.stderr.contains("minor-faults/op");
        assert!(counted != absent, "{ran:#?}");
        assert!(counted || level > 2, "{ran:#?}");
        if counted {
            let said = "counted in user mode only, with :u in the name: minor-faults: ";
            assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:#?}");
            let ran = nobody.run("stat -r 5 -e minor-faults -- true").exits(0);
            assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:#?}");
            ran.shows(&["minor-faults:u/op"]);
        }
        nobody
            .run("stat -q -e minor-faults -- true")
            .exits(0)
            .silently();
        // Absent with its cause, in user mode nothing switches.
        let ran = nobody
            .run("stat -e context-switches --json -- true")
            .exits(0);
        ran.shows(&[
            r#""unit":"context-switches/op","value":null,"trust":"absent""#,
            &cause,
        ]);
        for arguments in ["stat -a --timeout 10", "stat -C 0 --timeout 10"] {
            nobody.run(arguments).refuses(5, &[&cause, "cap_perfmon"]);
        }
        nobody
            .run("stat -q -e minor-faults -p 1 --timeout 10")
            .refuses(5, &[if counted { "another user" } else { &cause }]);
        let ran = nobody.run("bench getppid -r 2 -q --json").exits(0);
        ran.shows(&[r#""benchmark":"Getppid""#, r#""unit":"sec/op""#]);
        nobody
            .run("doctor")
            .exits(0)
            .shows(&[&cause, "because", "mend"]);
        nobody.run("events page-faults").exits(0);
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
fn closed_directories_in_the_path_hold_no_programs() {
    let Some(nobody) = Nobody::new("closed directories in $PATH") else {
        return;
    };
    let closed = nobody.directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}:/bin", closed.display());
    let go = |program: &str| {
        let mut command = nobody.poise();
        finish(command.env("PATH", &path).args(["stat", "-q", program]))
    };
    go("true").exits(0).silently();
    go("missing-program").refuses(127, &["not found"]);
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

#[test]
fn a_filter_leaves_what_needs_no_counter() {
    for (errno, cause) in [
        (Errno::EPERM, "seccomp"),
        (Errno::EACCES, "seccomp"),
        (Errno::ENOSYS, "perf_event_open"),
    ] {
        let go = |arguments: &str| {
            let mut command = poise();
            raw::filter_perf_event_open(&mut command, Filter::Deny(errno));
            finish(command.args(words(arguments)))
        };
        // As root the filter is the only explanation left.
        let cause = if is_root() { cause } else { "perf" };
        let ran = go("stat -- sh -c true").exits(0).says(&["sec/op", cause]);
        let rows = ran
            .stderr
            .lines()
            .filter(|line| line.contains("task-clock"));
        assert!(rows.clone().count() > 0, "{ran:#?}");
        assert!(rows.clone().all(|row| row.contains('—')), "{ran:#?}");
        let ran = go("stat -r 3 -q --json -- true").exits(0);
        assert_eq!(ran.stdout.matches(r#""record":"sample""#).count(), 3);
        go("stat -a --timeout 10").refuses(5, &[cause]);
        let ran = go("bench getppid -r 2").exits(0);
        ran.shows(&["sec/op", "—", cause]);
        go("bench getppid -r 2 --latency")
            .exits(0)
            .shows(&["p50-sec"]);
        go("events task-clock")
            .exits(0)
            .shows(&["not counted here", cause]);
        go("doctor").exits(0).shows(&["missing", cause]);
    }
}
