//! Faults on a fake tree.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use counterpoise::machine::Roots;
use counterpoise::machine::hold::lock::{self, Lock, Sharing};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tempfile::TempDir;

use crate::hold;
use crate::trace::{self, Target};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("killed_at_any_step", killed_at_any_step),
    ("a_panic_gives_back", a_panic_gives_back),
    ("holders_race", holders_race),
    ("a_suspended_holder", a_suspended_holder),
    ("a_full_disk", a_full_disk),
    ("a_read_only_sys", a_read_only_sys),
];

/// Kills of each target.
const KILLS: u64 = 170;

struct Machine {
    roots: Roots,
    _directory: TempDir,
}

impl Machine {
    /// Two policies with three settings each, and a boost.
    fn new() -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let roots = Roots {
            proc: at("proc"),
            sys: at("sys"),
            run: at("run/counterpoise"),
        };
        let cpu = roots.sys.join("devices/system/cpu");
        for policy in ["policy0", "policy1"] {
            let policy = cpu.join("cpufreq").join(policy);
            fs::create_dir_all(&policy).unwrap();
            for (file, value) in [
                ("affected_cpus", "0\n"),
                ("scaling_governor", "schedutil\n"),
                ("scaling_available_governors", "performance schedutil\n"),
                ("scaling_min_freq", "600000\n"),
                ("scaling_max_freq", "2400000\n"),
                ("cpuinfo_min_freq", "600000\n"),
                ("cpuinfo_max_freq", "2400000\n"),
            ] {
                fs::write(policy.join(file), value).unwrap();
            }
        }
        fs::write(cpu.join("cpufreq/boost"), "1\n").unwrap();
        fs::create_dir(&roots.proc).unwrap();
        Machine {
            roots,
            _directory: directory,
        }
    }

    /// The settings, file by file.
    fn settings(&self) -> Vec<(PathBuf, String)> {
        let cpufreq = self.roots.sys.join("devices/system/cpu/cpufreq");
        let files = ["scaling_governor", "scaling_min_freq", "scaling_max_freq"];
        let policies = ["policy0", "policy1"];
        let mut all: Vec<PathBuf> = policies
            .iter()
            .flat_map(|policy| files.map(|file| cpufreq.join(policy).join(file)))
            .collect();
        all.push(cpufreq.join("boost"));
        all.into_iter()
            .map(|file| (file.clone(), fs::read_to_string(file).unwrap()))
            .collect()
    }

    fn journal(&self) -> PathBuf {
        self.roots.run.join("journal")
    }

    #[track_caller]
    fn is_free(&self) {
        assert!(self.try_lock(), "the lock is held");
    }

    fn try_lock(&self) -> bool {
        let (stop, _never) = io::pipe().unwrap();
        let patience = Some(Duration::ZERO);
        let exclusive = Sharing::Exclusive;
        Lock::take(&self.roots, exclusive, patience, stop.as_fd(), &mut |_| {}).is_ok()
    }
}

/// At least 500 kills, each at a step drawn from all that a hold makes.
fn killed_at_any_step() {
    let mut random = Pcg64Mcg::seed_from_u64(3);
    let whole = trace::run(&Machine::new().roots, Target::Holder, u64::MAX);
    assert!(!whole.killed && whole.steps > 100, "{whole:?}");
    let mut tally: HashMap<(Target, &str), u64> = HashMap::new();
    for target in [Target::Holder, Target::Keeper, Target::Both] {
        let mut kills = 0;
        while kills < KILLS {
            let machine = Machine::new();
            let before = machine.settings();
            let step = random.random_range(0..whole.steps);
            let traced = trace::run(&machine.roots, target, step);
            // There is no keeper yet, or no more.
            if !traced.killed {
                continue;
            }
            kills += 1;
            machine.is_free();
            let came_back = machine.settings() == before;
            let left = machine.journal().exists();
            assert!(
                came_back || left,
                "{target:?} killed at step {step}: nothing tells what was"
            );
            let how = match (came_back, left) {
                (true, false) => "by those who lived",
                (true, true) => "nothing to give back",
                (false, _) => "by the next hold",
            };
            *tally.entry((target, how)).or_default() += 1;
            if target != Target::Both {
                assert!(came_back, "{target:?} killed at step {step}");
            }
            // The next hold gives back what was left, and leaves nothing itself.
            let next = hold(&machine.roots).unwrap().end();
            assert_eq!(next, Vec::<String>::new());
            assert_eq!(machine.settings(), before, "{target:?} at step {step}");
            assert!(!machine.journal().exists());
            machine.is_free();
        }
    }
    println!(
        "{} kills at random steps of {} on a fake tree; all settings came back, all locks were free:",
        3 * KILLS,
        whole.steps
    );
    let mut lines: Vec<String> = tally
        .iter()
        .map(|((target, how), count)| format!("  {target:?} killed, given back {how}: {count}"))
        .collect();
    lines.sort();
    println!("{}", lines.join("\n"));
}

fn a_panic_gives_back() {
    let machine = Machine::new();
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
    let machine = Machine::new();
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
    let machine = Machine::new();
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
    let machine = Machine::new();
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
    let machine = Machine::new();
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

fn mount(on: &std::path::Path, arguments: &[&str]) -> Option<Mounted> {
    let mut command = Command::new("mount");
    let status = command.args(arguments).arg(on).status().ok()?;
    status.success().then(|| Mounted(on.to_owned()))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Far longer than anything takes: only what hangs reaches it.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
