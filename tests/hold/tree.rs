//! Faults on a fake tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use counterpoise::machine::Roots;
use counterpoise::machine::hold::lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hold;
use crate::machine::{self, Machine, eventually};
use crate::trace;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("killed_at_any_step", killed_at_any_step),
    ("a_panic_gives_back", a_panic_gives_back),
    ("holders_race", holders_race),
    ("a_suspended_holder", a_suspended_holder),
    ("a_full_disk", a_full_disk),
    ("a_read_only_sys", a_read_only_sys),
];

fn killed_at_any_step() {
    machine::killed_at_any_step("a fake tree", &Machine::fake);
}

fn a_panic_gives_back() {
    let machine = Machine::fake();
    let before = machine.settings();
    let mut victim = trace::victim(&machine.roots, "panic");
    drop(victim.stdin.take());
    assert_eq!(victim.wait().unwrap().code(), Some(101));
    assert_eq!(machine.settings(), before);
    assert!(!machine.journal().exists());
    machine.is_free();
}

/// Of many that begin at once, each holds alone or is refused.
fn holders_race() {
    let machine = Machine::fake();
    let before = machine.settings();
    let mut held = 0;
    for _ in 0..20 {
        let mut victims: Vec<_> = (0..4)
            .map(|_| trace::victim(&machine.roots, "end"))
            .collect();
        for victim in &mut victims {
            drop(victim.stdin.take());
        }
        held += victims
            .iter_mut()
            // Who is refused panics.
            .filter_map(|victim| victim.wait().unwrap().success().then_some(()))
            .count();
        assert_eq!(machine.settings(), before);
        machine.is_free();
    }
    assert!(held >= 20, "{held} of 80 held");
    println!("80 holders raced for the lock, four at a time: {held} held, the others were refused");
}

fn a_suspended_holder() {
    let machine = Machine::fake();
    let before = machine.settings();
    let mut victim = trace::victim(&machine.roots, "stay");
    drop(victim.stdin.take());
    let pid = Pid::from_raw(victim.id() as i32);
    eventually("the hold", || machine.settings() != before);
    kill(pid, Signal::SIGSTOP).unwrap();
    let refusal = hold(&machine.roots).map(drop).unwrap_err().to_string();
    assert!(refusal.contains("the machine is held"), "{refusal}");
    // The kernel's list of locks is the real one.
    let real = Roots {
        proc: "/proc".into(),
        ..machine.roots.clone()
    };
    eventually("the holder to be seen as stopped", || {
        let holders = lock::holders(&real);
        holders.is_empty() || holders[0].stopped
    });
    assert_ne!(machine.settings(), before);
    kill(pid, Signal::SIGKILL).unwrap();
    victim.wait().unwrap();
    eventually("the keeper", || machine.try_lock());
    assert_eq!(machine.settings(), before);
}

/// With no room for the journal nothing is changed.
fn a_full_disk() {
    let machine = Machine::fake();
    let before = machine.settings();
    fs::create_dir_all(&machine.roots.run).unwrap();
    let Some(_mounted) = mount(
        &machine.roots.run,
        &["-t", "tmpfs", "-o", "size=4k,mode=755", "tmpfs"],
    ) else {
        return println!("not run: a_full_disk: this machine mounts nothing for us");
    };
    fs::write(machine.roots.run.join("filler"), [0; 4096]).unwrap();
    let held = hold(&machine.roots).unwrap();
    let line = held.report().line();
    assert!(line.contains("No space left on device"), "{line}");
    assert_eq!(machine.settings(), before);
    assert_eq!(held.end(), Vec::<String>::new());
    assert_eq!(fs::read_dir(&machine.roots.run).unwrap().count(), 1);
    machine.is_free();
}

/// Read-only from the start, nothing is changed; from the middle, the journal stays.
fn a_read_only_sys() {
    let machine = Machine::fake();
    let before = machine.settings();
    let sys = machine.roots.sys.to_str().unwrap();
    let Some(_mounted) = mount(&machine.roots.sys, &["--bind", sys]) else {
        return println!("not run: a_read_only_sys: this machine mounts nothing for us");
    };
    let remount = |how: &str| {
        let options = format!("remount,bind,{how}");
        let status = Command::new("mount").args(["-o", &options, sys]).status();
        assert!(status.unwrap().success());
    };
    remount("ro");
    let held = hold(&machine.roots).unwrap();
    let line = held.report().line();
    assert!(line.contains("Read-only file system"), "{line}");
    drop(held);
    assert!(!machine.journal().exists());
    remount("rw");
    let held = hold(&machine.roots).unwrap();
    assert_ne!(machine.settings(), before);
    remount("ro");
    let complaints = held.end();
    assert_eq!(complaints.len(), before.len(), "{complaints:?}");
    assert!(complaints[0].contains("Read-only file system"));
    assert!(machine.journal().exists());
    remount("rw");
    assert_eq!(hold(&machine.roots).unwrap().end(), Vec::<String>::new());
    assert_eq!(machine.settings(), before);
}

/// A mount that is gone with the value.
struct Mounted(PathBuf);

fn mount(on: &Path, arguments: &[&str]) -> Option<Mounted> {
    let mut command = Command::new("mount");
    command.args(arguments).arg(on);
    // What it says is nobody's concern where it is not allowed.
    let status = command.stderr(Stdio::null()).status().ok()?;
    status.success().then(|| Mounted(on.to_owned()))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
