//! The way back to root for one step, of a process that has become a user: what it allows, and who else has nothing of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};
use counterpoise::perf::catalog::Catalog;
use counterpoise::sys::privilege::{self, User};
use nix::unistd::getuid;

use crate::common::{finish, is_root, not_run};
use crate::privilege::{NOBODY, WHO, can, capability_set, is_nobody};
use crate::raw;

/// Runs `test` in a process of its own with one thread, whose ids it may change: the test `name`
/// is run again, alone, and forks.
#[track_caller]
fn alone(name: &str, test: fn()) {
    const ALONE: &str = "POISE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        assert_eq!(raw::fork_to(test), 0);
        return;
    }
    let mut command = Command::new("/proc/self/exe");
    command.args([name, "--exact", "--nocapture"]);
    let ran = finish(command.env(ALONE, "")).exits(0);
    assert!(ran.stdout.contains("1 passed"), "{ran:#?}");
}

fn nobody() -> User {
    User {
        uid: NOBODY,
        gid: NOBODY,
        groups: vec![NOBODY],
        environment: vec![("POISE_TEST_SET", Some("set".into())), ("HOME", None)],
    }
}

#[test]
fn the_way_back_is_for_one_step() {
    if can("the way back to root") {
        alone("way_back::the_way_back_is_for_one_step", to_and_fro);
    }
}

fn to_and_fro() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings");
    let write = || fs::write(&file, "old");
    write().unwrap();
    privilege::become_user(&nobody()).unwrap();
    assert_eq!(std::env::var("POISE_TEST_SET").as_deref(), Ok("set"));
    assert_eq!(std::env::var_os("HOME"), None);
    let look = || fs::read_to_string("/proc/self/status").unwrap();
    let before = look();
    assert!(write().is_err() && getuid().as_raw() == NOBODY);
    for _ in 0..3 {
        privilege::as_root(write).unwrap().unwrap();
        let during = privilege::as_root(look).unwrap();
        assert!(during.contains("Uid:\t0\t0\t0\t0\n"), "{during}");
        // Not more than was kept.
        assert_eq!(
            capability_set(&during, "CapPrm"),
            capability_set(&before, "CapPrm")
        );
        assert!(write().is_err() && getuid().as_raw() == NOBODY);
    }
    let failed = std::panic::catch_unwind(|| privilege::as_root(|| -> io::Result<()> { panic!() }));
    assert!(failed.is_err() && write().is_err());
    // A thread that was there meanwhile is nobody all the time.
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = scope.spawn(move || {
            told.recv().unwrap();
            getuid().as_raw()
        });
        let own = privilege::as_root(|| {
            tell.send(()).unwrap();
            (getuid().as_raw(), other.join().unwrap())
        });
        assert_eq!(own.unwrap(), (0, NOBODY));
    });
    let keys = ["Uid", "CapInh", "CapPrm", "CapEff", "CapAmb"];
    let credentials = |status: String| -> Vec<String> {
        let of_us = |line: &&str| keys.iter().any(|key| line.starts_with(key));
        status.lines().filter(of_us).map(str::to_owned).collect()
    };
    assert_eq!(credentials(look()), credentials(before));
    // What is executed has no way back, and what is handed on lacks it.
    let plain = finish(Command::new("sh").args(["-c", WHO])).exits(0);
    is_nobody(&plain.stdout);
    let handed = privilege::hand_on(|| finish(Command::new("sh").args(["-c", WHO]))).unwrap();
    let kept = capability_set(&handed.stdout, "CapPrm");
    assert_eq!(kept & Capability::CAP_SETUID.bitmask(), 0);
    let perf = [Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN];
    assert!(
        perf.iter().any(|one| kept & one.bitmask() != 0),
        "{handed:?}"
    );
    is_nobody(&finish(Command::new("sh").args(["-c", WHO])).stdout);
    // The user cannot stop it half way.
    let mut signaller = Command::new("sh");
    let script = format!("read word; kill -0 {}", std::process::id());
    signaller.args(["-c", &script]).stdin(Stdio::piped());
    let mut signaller = signaller.spawn().unwrap();
    let status = privilege::as_root(|| {
        drop(signaller.stdin.take());
        signaller.wait()
    });
    assert!(!status.unwrap().unwrap().success());
}

#[test]
fn root_proper_needs_no_way_back() {
    let own = privilege::as_root(|| getuid().as_raw());
    match is_root() {
        true => assert_eq!(own.unwrap(), 0),
        false => assert!(own.is_err()),
    }
}

#[test]
fn a_closed_tracefs_is_read_for_the_user() {
    let what = "tracefs of root";
    let permitted = caps::has_cap(None, CapSet::Permitted, Capability::CAP_DAC_READ_SEARCH);
    match permitted {
        Ok(true) if can(what) => alone(
            "way_back::a_closed_tracefs_is_read_for_the_user",
            read_tracefs,
        ),
        _ => not_run(what, "we lack CAP_DAC_READ_SEARCH"),
    }
}

fn read_tracefs() {
    let directory = tempfile::tempdir().unwrap();
    let tracing = directory.path().join("tracing");
    let event = tracing.join("events/sched/sched_switch");
    fs::create_dir_all(&event).unwrap();
    fs::write(event.join("id"), "314\n").unwrap();
    fs::set_permissions(&tracing, fs::Permissions::from_mode(0o700)).unwrap();
    let catalog = Catalog {
        tracing: vec![tracing.clone()],
        ..Catalog::default()
    };
    privilege::become_user(&nobody()).unwrap();
    let groups = catalog.parse("sched:sched_switch").unwrap();
    assert_eq!(groups[0].events[0].code.config, 314);
    assert!(File::open(event.join("id")).is_err());
}
