//! What a measured process is given on request: that it gets it, that the record says so, and what is said where it cannot be had.

use std::collections::BTreeMap;
use std::fs;

use counterpoise::sample::{ENV_PADDING, Record, Sample};
use nix::errno::Errno;

use crate::common::{
    finish, is_root, measure, not_run, poise, run, samples, scratch, whole_records, words,
};
use crate::permission::Nobody;
use crate::raw;

/// What a measurement left.
struct Left {
    machine: BTreeMap<String, String>,
    samples: Vec<Sample>,
    output: String,
}

/// Measures `command` with `options`.
#[track_caller]
fn stat(options: &str, command: &[&str]) -> Left {
    let directory = scratch();
    let (records, output) = (directory.path().join("r"), directory.path().join("o"));
    let mut poise = poise();
    poise.args(words("stat -q -e dummy -o")).arg(&records);
    poise.arg("--output").arg(&output).args(words(options));
    finish(poise.arg("--").args(command)).exits(0).silently();
    let records = whole_records(&records);
    let Record::Header(header) = &records[0] else {
        panic!("{records:#?}");
    };
    Left {
        machine: header.machine.clone(),
        samples: samples(&records).into_iter().cloned().collect(),
        output: fs::read_to_string(&output).unwrap(),
    }
}

/// The paddings that the records tell.
fn paddings(samples: &[Sample]) -> Vec<u64> {
    let padding = |sample: &Sample| sample.config[ENV_PADDING].parse().unwrap();
    samples.iter().map(padding).collect()
}

#[test]
fn addresses_stay_the_same_or_change() {
    if fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap() == "0\n" {
        return not_run("--aslr", "this machine randomises no addresses");
    }
    let run_twice = |options: &str| {
        let left = stat(options, &["cat", "/proc/self/maps"]);
        let (first, second) = left.output.split_at(left.output.len() / 2);
        (first == second, left.machine["aslr"].clone())
    };
    assert_eq!(run_twice("-r 2 --aslr off"), (true, "off".to_owned()));
    let (equal, told) = run_twice("-r 2 --aslr on");
    assert!(!equal && told != "off", "{told}");
    // What is inherited can be switched back.
    let mut command = poise();
    raw::no_randomization(&mut command);
    let arguments = words("stat -q --aslr on -- cat /proc/self/personality");
    assert_eq!(
        finish(command.args(arguments)).exits(0).stdout,
        "00000000\n"
    );
}

#[test]
fn huge_pages_are_kept_from_the_command_and_from_nobody_else() {
    let status = ["grep", "THP_enabled", "/proc/self/status"];
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if !modes.is_ok_and(|modes| !modes.contains("[never]")) {
        return not_run("--thp", "this machine gives no transparent huge pages");
    }
    let off = stat("-r 2 --thp off", &status);
    assert_eq!(off.output, "THP_enabled:\t0\n".repeat(2));
    assert_eq!(off.machine["thp"], "off");
    let on = stat("--thp on", &status);
    assert_eq!(on.output, "THP_enabled:\t1\n");
    assert_eq!(on.machine["thp"], stat("", &status).machine["thp"]);
    // A preparation between two runs is ours, not the measured process.
    let directory = scratch();
    let log = directory.path().join("log");
    let prepare = format!("{} >> {}", status.join(" "), log.display());
    run([
        "stat",
        "-q",
        "-r",
        "3",
        "--thp",
        "off",
        "--prepare",
        &prepare,
        "true",
    ])
    .exits(0);
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log, "THP_enabled:\t1\n".repeat(3));
    // A loop that needs them says that it got none.
    run(words("bench -q -r 1 --thp off heap/MiB=2/pages=thp"))
        .refuses(1, &["the kernel gave no huge pages"]);
}

#[test]
fn scheduling_is_set_and_told() {
    // Nice level and policy are the 19th and the 41st.
    let own = "cut -d' ' -f19,41 /proc/self/stat";
    let check = |options: &str, want: &str, told: &[(&str, &str)]| {
        let mut arguments = words("stat -q --json -e dummy --output inherit");
        arguments.extend(words(options));
        arguments.extend(["--", "sh", "-c", own]);
        let ran = run(arguments).exits(0);
        assert!(ran.stdout.contains(&format!("\n{want}\n")), "{ran:#?}");
        for (key, value) in told {
            let pair = format!("{key:?}:{value:?}");
            assert!(ran.stdout.contains(&pair), "{pair} in {ran:#?}");
        }
    };
    check("--nice 7", "7 0", &[("nice", "7")]);
    check("--sched batch --nice 9", "9 3", &[("sched", "batch")]);
    let both = [("sched", "idle"), ("nice", "19")];
    check("--nice=19 --sched idle", "19 5", &both);
    if !is_root() {
        return not_run("--nice -5 and --sched fifo", "only root may");
    }
    check("--nice -5", "-5 0", &[("nice", "-5")]);
    check("--sched fifo:3 --nice 1", "1 1", &[("sched", "fifo:3")]);
    check("--sched rr:1 --nice 1", "1 2", &[("sched", "rr:1")]);
}

#[test]
fn nothing_is_told_that_was_not_asked_for() {
    let left = stat("-r 2", &["true"]);
    for key in ["nice", "sched"] {
        assert!(!left.machine.contains_key(key), "{:?}", left.machine);
    }
    assert!(left.samples.iter().all(|sample| sample.config.is_empty()));
}

#[test]
fn a_nice_level_that_counts_within_its_session_only_is_doubted() {
    let grouped = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    let ran = run(words("stat --nice 3 -- true")).exits(0);
    let doubted = ran.stderr.contains("sched_autogroup_enabled");
    assert_eq!(doubted, grouped.is_ok_and(|text| text == "1\n"), "{ran:#?}");
    let ran = run(words("stat --aslr off -- true")).exits(0);
    assert!(!ran.stderr.contains("autogroup"), "{ran:#?}");
}

#[test]
fn paddings_are_drawn_from_the_seed_and_move_the_stack() {
    // Where the stack begins is the 28th.
    let own = ["cut", "-d ", "-f28", "/proc/self/stat"];
    let left = stat("-r 8 --seed 5 --aslr off --env-padding", &own);
    let first = paddings(&left.samples);
    assert!(first.iter().all(|bytes| bytes % 16 == 0 && *bytes < 4096));
    assert!(first.iter().any(|bytes| *bytes != first[0]), "{first:?}");
    // The longer the environment, the lower the stack, to the byte.
    let stacks = left.output.lines().map(|line| line.parse::<u64>().unwrap());
    let tops: Vec<u64> = stacks
        .zip(&first)
        .map(|(stack, bytes)| stack + bytes)
        .collect();
    assert_eq!(tops, vec![tops[0]; 8], "{first:?}");
    let of_seed = |seed: u64| {
        let options = format!("-r 8 --env-padding --seed {seed}");
        paddings(&stat(&options, &["true"]).samples)
    };
    assert_eq!(of_seed(5), first);
    assert_ne!(of_seed(6), first);
}

#[test]
fn loops_are_given_the_same() {
    let loops = || {
        measure(words(
            "bench -r 3 --seed 5 --env-padding -e dummy getppid spin",
        ))
    };
    let (first, again) = (loops(), loops());
    assert_eq!(paddings(&first), paddings(&again));
    assert!(paddings(&first).iter().any(|bytes| *bytes > 0));
    let cpu = allowed_cpu();
    let options = format!("--cpu-list {cpu} --aslr off --thp off --nice 3 --sched batch");
    let ran = run(words(&format!("bench -q -r 2 --json {options} getppid"))).exits(0);
    ran.shows(&[
        &format!(r#""config":{{"pinned-cpu":"{cpu}"}}"#),
        r#""aslr":"off""#,
        r#""thp":"off""#,
        r#""nice":"3""#,
        r#""sched":"batch""#,
    ]);
}

#[test]
fn cpus_are_told() {
    let cpu = allowed_cpu();
    let left = stat(&format!("-r 2 --cpu-list {cpu}"), &["nproc"]);
    assert_eq!(left.output, "1\n1\n");
    for sample in &left.samples {
        assert_eq!(sample.config["pinned-cpu"], cpu);
    }
}

#[test]
fn benchstat_finds_one_configuration_in_all_samples() {
    let ran = run(words("stat -r 3 -q --env-padding --format gobench -- true")).exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let paddings = lines
        .iter()
        .filter(|line| line.starts_with("# env-padding: "));
    assert_eq!(paddings.count(), 3, "{ran:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("env-padding")));
}

#[test]
fn what_is_not_permitted_is_told_with_what_it_takes() {
    let what = "settings that an ordinary user may not make";
    let Some(nobody) = Nobody::new(what) else {
        return;
    };
    let nice = ["nice level", "-5 takes CAP_SYS_NICE", "prlimit --nice=25"];
    let rr = ["policy", "rr:7 takes CAP_SYS_NICE", "prlimit --rtprio=7"];
    for verb in ["stat -q VERB -- true", "bench -q VERB -r 1 getppid"] {
        let go = |options: &str| nobody.run(&verb.replace("VERB", options));
        go("--nice -5").refuses(5, &nice);
        go("--sched rr:7").refuses(5, &rr);
        let all = "--nice 5 --sched idle --aslr off --thp off --env-padding";
        go(all).exits(0).silently();
    }
}

#[test]
fn a_filter_that_keeps_the_personality_is_named() {
    for arguments in ["stat -q --aslr off -- true", "bench -q --aslr off getppid"] {
        let mut command = poise();
        raw::deny(&mut command, libc::SYS_personality, Errno::EPERM);
        let ran = finish(command.args(words(arguments)));
        ran.refuses(5, &["randomisation", "seccomp"]);
    }
}

#[test]
fn settings_are_for_what_we_start() {
    for option in [
        "--aslr on",
        "--thp off",
        "--nice 1",
        "--cpu-list 0",
        "--env-padding",
    ] {
        let arguments = format!("stat {option} -p 1 --timeout 10");
        run(words(&arguments)).refuses(2, &["runs already"]);
    }
    for (option, all) in [
        ("--nice=20", ["20", "-20..=19"]),
        ("--nice=-21", ["-21", "-20..=19"]),
        ("--sched=fifo", ["--sched", "fifo:10"]),
        ("--sched=rr:100", ["--sched", "1 to 99"]),
        ("--sched=batch:1", ["--sched", "no priorities"]),
        ("--sched=dead", ["--sched", "fifo:N"]),
        ("--aslr=maybe", ["--aslr", "maybe"]),
    ] {
        let ran = run(["stat", option, "--", "true"]).exits(2).says(&all);
        assert_eq!(ran.stdout, "");
        run(["bench", option, "getppid"]).exits(2).says(&all);
    }
}

/// A CPU that we may run on.
fn allowed_cpu() -> String {
    let status = procfs::process::Process::myself()
        .unwrap()
        .status()
        .unwrap();
    status.cpus_allowed_list.unwrap()[0].0.to_string()
}
