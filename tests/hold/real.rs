//! Holding the real machine and faults meanwhile, where there is a cpufreq to hold: in the test bed's virtual machine.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use counterpoise::machine::facts::Facts;
use counterpoise::machine::hold::lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::machine::{self, Machine, eventually, read};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("real::a_frequency_is_held", a_frequency_is_held),
    ("real::stat_holds_by_default", stat_holds_by_default),
    (
        "real::ordinary_users_hold_the_lock",
        ordinary_users_hold_the_lock,
    ),
    ("real::by_sudo_root_alone_holds", by_sudo_root_alone_holds),
    ("real::what_others_set_is_left", what_others_set_is_left),
    ("real::a_governor_vanishes", a_governor_vanishes),
    ("real::a_policy_goes_offline", a_policy_goes_offline),
    ("real::killed_at_any_step", killed_at_any_step),
    ("real::killed_at_any_time", killed_at_any_time),
];

/// Kills of the whole program, by signals and at times drawn anew.
const KILLS: usize = 200;

pub(crate) const NOBODY: u32 = 65534;

/// The machine, if it is ours to hold and has `policies` of them.
fn machine(test: &str, policies: usize) -> Option<Machine> {
    let machine = Machine::real();
    let found = Facts::new(&machine.roots).policies().len();
    // Nobody's machine is put to the test but the test bed's.
    let why = match (env::var_os("POISE_VM_SHIFT").is_some(), found) {
        (false, _) => "this is not the test bed (make test-vm)".to_owned(),
        (true, found) if found < policies => format!("it takes {policies} policies, here: {found}"),
        (true, _) => return Some(machine),
    };
    println!("not run: {test}: {why}");
    None
}

pub(crate) fn poise(arguments: &str) -> Command {
    let beside_us = || env!("CARGO_BIN_EXE_poise").into();
    let program: PathBuf = env::var_os("POISE_BIN").map_or_else(beside_us, PathBuf::from);
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).stdin(Stdio::null());
    command
}

#[track_caller]
pub(crate) fn run(arguments: &str) -> Output {
    let output = poise(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
    output
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `poise hold -- sleep SECONDS`, once the machine is held.
fn holder(machine: &Machine, seconds: &str) -> Child {
    let before = machine.settings();
    let child = poise(&format!("hold -q -- sleep {seconds}"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the hold", || machine.settings() != before);
    // The journal is written once more when all is set.
    eventually("the journal", || {
        read(&machine.journal()).contains("\"now\":\"performance\"")
    });
    child
}

pub(crate) fn end(child: Child) -> String {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{output:?}");
    said(&output)
}

fn a_frequency_is_held() {
    let Some(machine) = machine("real frequencies", 1) else {
        return;
    };
    let before = machine.settings();
    let check = |frequency: &str, khz: &str| {
        let files = [
            "scaling_governor",
            "scaling_min_freq",
            "scaling_max_freq",
            "cpuinfo_cur_freq",
        ];
        let paths = files.map(|file| machine.policy("policy0").join(file).display().to_string());
        let output = run(&format!("hold{frequency} -- cat {}", paths.join(" ")));
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            shown,
            format!("performance\n{khz}\n{khz}\n{khz}\n"),
            "{frequency}"
        );
        let mhz = khz.strip_suffix("000").unwrap();
        let line = said(&output);
        assert!(
            line.contains(&format!("held: the lock, {mhz} MHz")),
            "{line}"
        );
        // Its cycles are those of 1 GHz whatever it is set to, which is found out.
        let doubt = "runs at 1.00 GHz under load, not at the";
        assert!(line.contains(doubt), "{line}");
        assert_eq!(machine.settings(), before);
        assert!(!machine.journal().exists());
    };
    // 90 % of 600 to 2400 MHz is 2220, and 1800 the next lower step.
    check("", "1800000");
    check(" --freq max", "2400000");
    check(" --freq 0%", "600000");
    check(" --freq 1.3GHz", "1200000");
    let refused = poise("hold --freq base --require hold -- true")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(said(&refused).contains("does not tell its nominal frequency"));
    assert_eq!(machine.settings(), before);
}

fn stat_holds_by_default() {
    let Some(machine) = machine("stat on a real frequency", 1) else {
        return;
    };
    let before = machine.settings();
    let header = |arguments: &str| {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().next().unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    let stat = header("stat --json --require hold -r 2 true");
    let facts = &stat["machine"];
    assert_eq!(facts["hold"], "lock frequency", "{stat}");
    assert_eq!(facts["governor"], "performance");
    assert_eq!(facts["frequency-range"], "1800 MHz");
    assert!(
        stat["warnings"]
            .to_string()
            .contains("under load, not at the"),
        "{stat}"
    );
    let bench = header("bench --json getppid --runs 1");
    assert_eq!(bench["machine"]["hold"], "lock frequency");
    let free = header("bench --json getppid --runs 1 --no-hold");
    assert_eq!(free["machine"]["hold"], "nothing");
    assert_eq!(free["machine"]["frequency-range"], "600-2400 MHz");
    assert_eq!(machine.settings(), before);
}

fn ordinary_users_hold_the_lock() {
    let Some(machine) = machine("an ordinary user's hold", 1) else {
        return;
    };
    let as_nobody = |arguments: &str| {
        let mut command = poise(arguments);
        command.uid(NOBODY).gid(NOBODY);
        command.output().unwrap()
    };
    let output = as_nobody("hold -- true");
    let line = said(&output);
    assert!(
        line.contains("held: the lock; not held: frequency (only root may set it)"),
        "{line}"
    );
    assert!(!machine.roots.run.exists() || !machine.journal().exists());
    let holder = holder(&machine, "60");
    let refused = as_nobody("hold --wait 0 -- true");
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        said(&refused).contains("hold -q -- sleep 60"),
        "{refused:?}"
    );
    let status = as_nobody("hold --status");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        text.contains("policy0/scaling_governor is performance, was "),
        "{text}"
    );
    assert_eq!(end(holder), "");
}

/// Root holds, the command is the user who called sudo; and what had become that user gives
/// everything back when the keeper cannot.
fn by_sudo_root_alone_holds() {
    let Some(machine) = machine("a hold by sudo", 1) else {
        return;
    };
    let before = machine.settings();
    let by_sudo = |arguments: &str| {
        let mut command = poise(arguments);
        let id = NOBODY.to_string();
        command.envs([
            ("SUDO_UID", &*id),
            ("SUDO_GID", &*id),
            ("SUDO_USER", "nobody"),
        ]);
        command
    };
    for verb in ["hold --require hold", "stat --require hold --cpu-list auto"] {
        let output = by_sudo(&format!("{verb} -- id -u")).output().unwrap();
        assert_eq!(output.stdout, b"65534\n", "{output:?}");
        assert!(
            said(&output).contains("held: the lock, 1800 MHz"),
            "{output:?}"
        );
        assert_eq!(machine.settings(), before);
    }
    let holder = by_sudo("hold -q -- sleep 60")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the hold", || machine.settings() != before);
    let is_keeper = |pid: i32| {
        let process = procfs::process::Process::new(pid).ok()?;
        let is_child = process.stat().ok()?.ppid == holder.id() as i32;
        let words = process.cmdline().ok()?;
        (is_child && words.iter().any(|word| word == "__keep")).then_some(pid)
    };
    let processes = procfs::process::all_processes().unwrap();
    let mut pids = processes.filter_map(|process| Some(process.ok()?.pid));
    let keeper = pids.find_map(is_keeper).expect("a keeper");
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    assert_eq!(end(holder), "");
    assert_eq!(machine.settings(), before);
    assert!(!machine.journal().exists());
}

fn what_others_set_is_left() {
    let Some(machine) = machine("a real change by others", 1) else {
        return;
    };
    let before = machine.settings();
    let holder = holder(&machine, "60");
    let limit = machine.policy("policy0").join("scaling_max_freq");
    let old = before
        .iter()
        .find(|(file, _)| *file == limit)
        .unwrap()
        .1
        .clone();
    fs::write(&limit, "2400000").unwrap();
    fs::write(&limit, "1200000").unwrap();
    let said = end(holder);
    assert!(
        said.contains("policy0/scaling_max_freq is 1200000: somebody has set it"),
        "{said}"
    );
    assert!(
        said.contains(&format!("echo {} > {}", old.trim(), limit.display())),
        "{said}"
    );
    assert_eq!(read(&limit), "1200000\n");
    assert!(!machine.journal().exists());
    fs::write(&limit, old).unwrap();
    assert_eq!(machine.settings(), before);
}

fn a_governor_vanishes() {
    let Some(machine) = machine("a governor that vanishes", 1) else {
        return;
    };
    let first = machine.settings();
    let governor = machine.policy("policy0").join("scaling_governor");
    let usual = read(&governor);
    fs::write(&governor, "conservative").unwrap();
    let before = machine.settings();
    let holder = holder(&machine, "60");
    let module = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    module(&["rmmod", "cpufreq_conservative"]);
    let said = end(holder);
    assert!(
        said.contains("policy0/scaling_governor could not be given back: Invalid argument"),
        "{said}"
    );
    // The limits are back all the same.
    let wrong = machine
        .settings()
        .iter()
        .zip(&before)
        .filter(|(is, was)| is != was)
        .count();
    assert_eq!(wrong, 1);
    assert!(machine.journal().exists());
    module(&["insmod", "/ko/cpufreq_conservative.ko"]);
    let shown = run("hold --restore");
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("policy0/scaling_governor is conservative")
    );
    assert_eq!(machine.settings(), before);
    assert!(!machine.journal().exists());
    fs::write(&governor, usual).unwrap();
    assert_eq!(machine.settings(), first);
}

fn a_policy_goes_offline() {
    let Some(machine) = machine("a policy that goes offline", 2) else {
        return;
    };
    let before = machine.settings();
    let online = machine.roots.sys.join("devices/system/cpu/cpu1/online");
    let held = holder(&machine, "60");
    fs::write(&online, "0").unwrap();
    let told = end(held);
    assert!(
        told.contains("policy1/scaling_governor could not be given back"),
        "{told}"
    );
    assert!(machine.journal().exists());
    // A hold in between keeps what is still to be given back.
    let output = run("hold -- true");
    assert!(
        said(&output).contains("policy1/scaling_governor could not be given back"),
        "{output:?}"
    );
    assert!(machine.journal().exists());
    fs::write(&online, "1").unwrap();
    eventually("the policy", || {
        machine.policy("policy1").join("scaling_governor").exists()
    });
    run("hold --restore");
    assert_eq!(machine.settings(), before);
    assert!(!machine.journal().exists());
}

fn killed_at_any_step() {
    if machine("kills at steps of a real hold", 1).is_some() {
        machine::killed_at_any_step("a real cpufreq", &Machine::real);
    }
}

/// The program as users run it, killed by every signal that ends programs at any time of its life.
fn killed_at_any_time() {
    let Some(machine) = machine("kills at any time of a real hold", 1) else {
        return;
    };
    let mut random = Pcg64Mcg::seed_from_u64(5);
    let before = machine.settings();
    let began = Instant::now();
    run("hold -q -- sleep 0.01");
    let whole = began.elapsed();
    let signals = [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
    ];
    let mut tally: HashMap<String, u32> = HashMap::new();
    for _ in 0..KILLS {
        let signal = signals[random.random_range(0..signals.len())];
        let delay = whole.mul_f64(random.random_range(0.0..1.0));
        let mut child = poise("hold -q -- sleep 0.01").spawn().unwrap();
        std::thread::sleep(delay);
        // It may have ended already.
        let _ = kill(Pid::from_raw(child.id() as i32), signal);
        let status = child.wait().unwrap();
        eventually("free lock", || machine.try_lock());
        assert_eq!(
            machine.settings(),
            before,
            "{signal} after {delay:?}: {status}"
        );
        assert!(!machine.journal().exists() || lock::holders(&machine.roots).is_empty());
        *tally.entry(format!("{signal}: {status}")).or_default() += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{KILLS} kills of poise hold at random times within {whole:?}: all settings as before, all locks free"
    );
    let mut lines: Vec<String> = tally
        .iter()
        .map(|(how, count)| format!("  {how}: {count}"))
        .collect();
    lines.sort();
    println!("{}", lines.join("\n"));
}
