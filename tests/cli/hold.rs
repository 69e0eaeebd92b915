//! Holding the machine, as far as any machine can be held: the lock, its waiting, its holders, and the CPU.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;

use crate::common::whole_records;
use crate::common::{Ran, Running, eventually, finish, poise, poise_at, samples, scratch, words};
use crate::permission::Nobody;

/// The machine has one lock, and tests run side by side.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn holding(arguments: &str) -> Command {
    let mut command = poise();
    command.env_remove("POISE_NO_HOLD").args(words(arguments));
    command
}

fn hold(arguments: &str) -> Ran {
    finish(&mut holding(arguments))
}

/// A holder, once it holds.
fn holder(arguments: &str) -> Running {
    let held = Running::start(&mut holding(arguments));
    let pid = format!("pid {} ", held.pid());
    eventually("the hold", || {
        hold("hold --status").stdout.contains(&pid).then_some(())
    });
    held
}

#[test]
fn it_says_what_it_held_and_ends_as_the_command() {
    let _alone = alone();
    let ran = hold("hold -- sh -c true").exits(0);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.starts_with("poise: held: the lock"), "{ran:?}");
    hold("hold -q -- false").exits(1).silently();
    hold("hold -- /no/such/program")
        .exits(127)
        .says(&["not found"]);
    hold("hold").exits(2).says(&["there is no command to run"]);
    hold("hold --freq fast -- true").exits(2).says(&["2.4GHz"]);
    hold("hold --status --restore").exits(2);
}

#[test]
fn who_waits_is_told_for_whom() {
    let _alone = alone();
    hold("hold --status")
        .exits(0)
        .shows(&["nobody holds the machine", "nothing is to be given back"]);
    let held = holder("hold -- sleep 60");
    let who = format!("pid {}", held.pid());
    let about = ["hold -- sleep 60), running since 20", &who];
    hold("hold --status").exits(0).shows(&about);
    hold("hold --wait 0 -- true").exits(5).says(&about);
    hold("hold --wait 50ms -- true")
        .exits(5)
        .says(&["waiting for"]);
    hold("hold --shared --wait 0 -- true").exits(5);
    hold("hold --restore").exits(5).says(&about);
    hold("hold --restore --wait 50ms")
        .exits(5)
        .says(&["waiting for"]);
    hold("stat --wait 0 -- true").exits(5).says(&about);
    hold("stat --no-hold -- true").exits(0);
    hold("stat -C 0 --timeout 1 -q").exits(0);

    // ^C while it waits is clean.
    let waiting = Running::start(&mut holding("hold -- echo never"));
    eventually("the waiting", || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let pid = format!(" {} ", waiting.pid());
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&pid);
        locks.lines().any(waits).then_some(())
    });
    waiting.signal(Signal::SIGINT);
    let stopped = waiting.wait().exits(130);
    assert_eq!(stopped.stdout, "");

    // Who waits gets it at the holder's end.
    let next = Running::start(&mut holding("hold -q -- echo mine"));
    held.signal(Signal::SIGTERM);
    held.wait().exits(143);
    assert_eq!(next.wait().exits(0).stdout, "mine\n");
}

#[test]
fn many_share_and_keep_others_away() {
    let _alone = alone();
    let first = holder("hold --shared -- sleep 60");
    let second = holder("hold --shared -- sleep 60");
    let status = hold("hold --status").stdout;
    assert!(status.starts_with("shared by pid "), "{status}");
    assert!(status.contains(" and pid "), "{status}");
    hold("hold --wait 0 -- true").exits(5).says(&[" and pid "]);
    drop(first);
    hold("hold --wait 0 -- true").exits(5);
    second.signal(Signal::SIGKILL);
    drop(second);
    hold("hold --wait 30 -- true").exits(0);
}

#[test]
fn the_environment_is_padded_anew_by_every_hold() {
    let _alone = alone();
    let length = || {
        let script = "printf %s \"$POISE_PADDING\"";
        let ran = finish(holding("hold -q --env-padding -- sh -c").arg(script));
        ran.exits(0).stdout.len()
    };
    // One of 256 lengths each.
    let lengths = [(); 4].map(|()| length());
    assert!(lengths.iter().any(|&one| one != lengths[0]), "{lengths:?}");
    assert!(lengths.iter().all(|one| one % 16 == 0), "{lengths:?}");
}

#[test]
fn what_is_started_by_the_holder_is_held_with_it() {
    let _alone = alone();
    let program = env!("CARGO_BIN_EXE_poise");
    let ran = finish(holding("hold -- ").arg(program).args(words("stat -- true")));
    ran.exits(0).says(&["which started us"]);
    // But no more than the holder holds.
    let required = "stat --require hold -- true";
    let ran = finish(
        holding("hold --shared -- ")
            .arg(program)
            .args(words(required)),
    );
    ran.exits(5).says(&["others that share the lock"]);
}

#[test]
fn a_stopped_holder_is_named_as_such() {
    let _alone = alone();
    let held = holder("hold -- sleep 60");
    held.signal(Signal::SIGSTOP);
    eventually("the stop", || {
        let status = hold("hold --status").stdout;
        status.contains("which is stopped").then_some(())
    });
    hold("hold --wait 0 -- true")
        .exits(5)
        .says(&["which is stopped"]);
    held.signal(Signal::SIGCONT);
    held.signal(Signal::SIGTERM);
    held.wait().exits(143);
    hold("hold --wait 0 -- true").exits(0);
}

#[test]
fn ordinary_users_lock_the_same_machine() {
    let _alone = alone();
    let Some(nobody) = Nobody::new("an ordinary user's lock") else {
        return;
    };
    let held = holder("hold -- sleep 60");
    nobody
        .run("hold --wait 0 -- true")
        .exits(5)
        .says(&["hold -- sleep 60"]);
    drop(held);
    nobody
        .run("hold --wait 30 -- true")
        .exits(0)
        .says(&["held: the lock"]);
}

#[test]
fn loops_run_on_one_cpu_and_commands_where_they_like() {
    let _alone = alone();
    let directory = scratch();
    let file = directory.path().join("records");
    let config = |arguments: &str| {
        finish(holding(arguments).args(words("-q -o")).arg(&file)).exits(0);
        let records = whole_records(&file);
        samples(&records)[0].config.get("pinned-cpu").cloned()
    };
    assert!(config("bench getppid --runs 1").is_some_and(|cpu| cpu.parse::<u32>().is_ok()));
    assert_eq!(
        config("bench getppid --runs 1 --cpu 0"),
        Some("0".to_owned())
    );
    assert_eq!(config("bench getppid --runs 1 --cpu any"), None);
    assert_eq!(config("bench getppid --runs 1 --no-hold"), None);
    let allowed = |arguments: &str| {
        let ran = hold(&format!(
            "{arguments} -- grep Cpus_allowed_list /proc/self/status"
        ));
        ran.exits(0).stdout
    };
    assert_eq!(allowed("hold --cpu 0"), "Cpus_allowed_list:\t0\n");
    assert_eq!(allowed("stat --cpu-list 0"), "Cpus_allowed_list:\t0\n");
    assert_eq!(allowed("hold --cpu any"), allowed("stat --no-hold"));
    hold("hold --cpu 9999 -- true")
        .exits(2)
        .says(&["CPU 9999 is not online"]);
    hold("hold --cpu most -- true")
        .exits(2)
        .says(&["auto, any"]);
    hold("hold --status --wait 1s").exits(2).says(&["--wait"]);
    hold("hold --restore --freq max").exits(2).says(&["--freq"]);
}

#[test]
fn the_environment_can_forbid_it() {
    let _alone = alone();
    let held = holder("hold -- sleep 60");
    let stat = |options: &str| {
        let mut command = poise_at(env!("CARGO_BIN_EXE_poise").as_ref());
        command
            .env("POISE_NO_HOLD", "1")
            .args(words(&format!("stat -q {options} -- true")));
        finish(&mut command)
    };
    stat("").exits(0).silently();
    // What is typed comes before it.
    stat("--wait 0s").exits(5).says(&["held by"]);
    drop(held);
}
