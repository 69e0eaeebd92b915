//! A machine to be held, fake or real: its settings, its journal, its lock, and the campaign of kills on it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use counterpoise::machine::Roots;
use counterpoise::machine::hold::lock::{Lock, Sharing};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tempfile::TempDir;

use crate::hold;
use crate::trace::{self, Target};

pub(crate) struct Machine {
    pub(crate) roots: Roots,
    _directory: Option<TempDir>,
}

impl Machine {
    /// A tree with two policies of three settings each, and a boost.
    pub(crate) fn fake() -> Machine {
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
            _directory: Some(directory),
        }
    }

    /// The one that we run on.
    pub(crate) fn real() -> Machine {
        Machine {
            roots: Roots::default(),
            _directory: None,
        }
    }

    /// The directory of a policy.
    pub(crate) fn policy(&self, name: &str) -> PathBuf {
        let cpufreq = self.roots.sys.join("devices/system/cpu/cpufreq");
        cpufreq.join(name)
    }

    /// The settings that there are, file by file; what cannot be read is empty.
    pub(crate) fn settings(&self) -> Vec<(PathBuf, String)> {
        let files = ["scaling_governor", "scaling_min_freq", "scaling_max_freq"];
        let mut all: Vec<PathBuf> = ["policy0", "policy1"]
            .iter()
            .flat_map(|policy| files.map(|file| self.policy(policy).join(file)))
            .collect();
        all.push(self.policy("boost"));
        all.into_iter()
            .map(|file| (file.clone(), read(&file)))
            .collect()
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.roots.run.join("journal")
    }

    #[track_caller]
    pub(crate) fn is_free(&self) {
        assert!(self.try_lock(), "the lock is held");
    }

    pub(crate) fn try_lock(&self) -> bool {
        let (stop, _never) = io::pipe().unwrap();
        let patience = Some(Duration::ZERO);
        let exclusive = Sharing::Exclusive;
        Lock::take(&self.roots, exclusive, patience, stop.as_fd(), &mut |_| {}).is_ok()
    }
}

/// The content of a small file; empty where there is none.
pub(crate) fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Kills of each target.
const KILLS: u64 = 170;

/// More than 500 kills, each at a step drawn from all that a hold makes.
pub(crate) fn killed_at_any_step(on: &str, machine: &dyn Fn() -> Machine) {
    if !trace::is_allowed() {
        return println!("not run: killed at any step on {on}: tracing is forbidden here");
    }
    let mut random = Pcg64Mcg::seed_from_u64(3);
    let whole = trace::run(&machine().roots, Target::Holder, u64::MAX);
    assert!(!whole.killed && whole.steps > 100, "{whole:?}");
    let mut tally: HashMap<(Target, &str), u64> = HashMap::new();
    for target in [Target::Holder, Target::Keeper, Target::Both] {
        let mut kills = 0;
        while kills < KILLS {
            let machine = machine();
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
                (true, false) => "given back by those who lived, or nothing done yet",
                (true, true) => "journal kept, nothing to give back",
                (false, _) => "given back by the next hold",
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
        "{} kills at random steps of {} on {on}: all settings as before, all locks free",
        3 * KILLS,
        whole.steps
    );
    let mut lines: Vec<String> = tally
        .iter()
        .map(|((target, how), count)| format!("  {target:?} killed, {how}: {count}"))
        .collect();
    lines.sort();
    println!("{}", lines.join("\n"));
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
