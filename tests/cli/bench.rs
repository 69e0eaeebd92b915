//! `poise bench`: its options, every loop once, its distribution, and its interruption.

use std::fs;

use counterpoise::sample::{Figure, Record};
use nix::sys::signal::Signal;

use crate::common::{
    Running, eventually, exact, finish, measure, poise, read_records, run, samples, scratch,
    whole_records, words,
};

#[test]
fn the_list_names_every_loop() {
    let ran = run(["bench", "--list"]).exits(0);
    assert_eq!(ran.stderr, "");
    for name in [
        "write",
        "read",
        "getppid",
        "clock_gettime",
        "open-close",
        "stat",
        "pipe",
        "futex",
        "mmap-munmap",
        "fork-wait",
        "vfork-exec",
        "heap",
        "spin",
    ] {
        let lines = ran.stdout.lines().filter(|line| line.starts_with(name));
        assert!(lines.count() >= 1, "{name} in {}", ran.stdout);
    }
}

#[test]
fn every_loop_can_be_measured() {
    let loops = "write read getppid clock_gettime clock_gettime/via=syscall open-close stat pipe \
                 futex mmap-munmap fork-wait vfork-exec heap/MiB=1 spin write/to=file write/to=pipe";
    let samples = measure(words(&format!("bench -r 1 -e dummy {loops}")));
    assert_eq!(samples.len(), words(loops).len());
    let names: Vec<String> = samples.iter().map(|s| s.benchmark.to_string()).collect();
    for (name, sample) in names.iter().zip(&samples) {
        assert!(name.starts_with(char::is_uppercase), "{name}");
        assert!(sample.iterations > 0, "{name}");
        assert!(sample.figure("sec/op").is_some(), "{name}");
        assert!(sample.figure("tare-sec").is_some(), "{name}");
    }
    assert!(
        names.contains(&"Write/size=512/to=pipe".to_owned()),
        "{names:?}"
    );
}

#[test]
fn parameters_are_part_of_the_name() {
    let samples = measure(words("bench -r 2 -e dummy --seed 3 write/size=1,4K"));
    let mut names: Vec<String> = samples.iter().map(|s| s.benchmark.to_string()).collect();
    names.sort();
    let wanted = [
        "Write/size=1",
        "Write/size=1",
        "Write/size=4096",
        "Write/size=4096",
    ];
    assert_eq!(names, wanted);
    // Every round holds every loop.
    for round in 0..2 {
        let members = samples.iter().filter(|s| s.order.round == round);
        assert_eq!(members.count(), 2);
    }
}

#[test]
fn the_order_is_drawn_from_the_seed() {
    let order = || {
        let samples = measure(words("bench -r 6 --seed 11 -e dummy getppid spin"));
        samples
            .iter()
            .map(|s| s.benchmark.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(), order());
}

#[test]
fn results_come_in_every_form() {
    let ran = run(words("bench -r 2 -e dummy getppid")).exits(0);
    assert_eq!(ran.said(), "");
    ran.shows(&["Getppid (2 runs)", "estimate", "95 % interval", "sec/op"]);
    run(words("bench -r 1 -q getppid")).exits(0).silently();
    let ran = run(words("bench -r 1 --json --table -e dummy getppid")).exits(0);
    ran.says(&["Getppid (1 run)"])
        .shows(&[r#"{"record":"header""#, r#"{"record":"end""#]);
    let directory = scratch();
    let file = directory.path().join("records");
    for _ in 0..2 {
        let mut command = poise();
        command
            .args(words("bench -q -r 1 -e dummy getppid --append -o"))
            .arg(&file);
        finish(&mut command).exits(0).silently();
    }
    let records = whole_records(&file);
    assert_eq!(samples(&records).len(), 2);
    let mut command = poise();
    command.args(["stat", "--input"]).arg(&file);
    finish(&mut command).exits(0).shows(&["Getppid (2 runs)"]);
}

#[test]
fn time_limits_the_number_of_samples() {
    let samples = measure(words("bench -r 100000000 --time 1ms -e dummy getppid"));
    assert_eq!(samples.len(), 1);
}

#[test]
fn what_was_not_counted_is_absent() {
    for sample in measure(words("bench -r 1 getppid")) {
        for value in &sample.values {
            let is_hardware = ["cycles", "instructions", "branch"]
                .iter()
                .any(|name| value.unit.as_str().starts_with(name));
            match &value.figure {
                Figure::Exact(count) if is_hardware => assert_ne!(*count, 0.0, "{value:?}"),
                Figure::Absent { why } => assert!(!why.why.is_empty()),
                _ => {}
            }
        }
    }
}

#[test]
fn single_operations_have_a_distribution() {
    let directory = scratch();
    let log = directory.path().join("log");
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("bench -r 2 --latency -o")).arg(&file);
    command.arg("--hdr-log").arg(&log).arg("pipe");
    let ran = finish(&mut command).exits(0);
    ran.shows(&[
        "p50-sec",
        "p99.9-sec",
        "max-sec",
        "clock-sec",
        "█",
        "operations",
    ]);
    let records = whole_records(&file);
    for sample in samples(&records) {
        // Of few operations there is no telling how the slowest thousandth fares.
        let mut below = 0.0;
        for (unit, needed) in [
            ("p50-sec", 2),
            ("p90-sec", 10),
            ("p99-sec", 100),
            ("p99.9-sec", 1000),
            ("max-sec", 1),
        ] {
            match sample.figure(unit) {
                Some(Figure::Absent { why }) => {
                    assert!(sample.iterations < needed, "{why:?}");
                }
                _ => {
                    assert!(sample.iterations >= needed, "{unit}");
                    assert!(exact(sample, unit) >= below, "{unit}");
                    below = exact(sample, unit);
                }
            }
        }
        assert!(below > 0.0 && exact(sample, "clock-sec") > 0.0);
    }
    // One tagged interval a loop, in the log format of HdrHistogram.
    let text = fs::read_to_string(&log).unwrap();
    let tagged = text.lines().filter(|line| line.starts_with("Tag=Pipe"));
    assert_eq!(tagged.count(), 1, "{text}");
    let missing = run(words(
        "bench -q -r 1 --latency --hdr-log /missing/log vfork-exec",
    ));
    missing.refuses(1, &["/missing/log", "No such file"]);
}

#[test]
fn operations_too_short_for_the_clock_are_refused_with_a_reason() {
    let ran = run(words("bench -q -r 1 --latency spin"));
    ran.refuses(5, &["the clock is too coarse", "slope"]);
    // What has no operation is not drawn.
    let ran = run(words("bench -r 1 --latency spin")).exits(5);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_loop_that_is_named_twice_is_measured_once() {
    run(words("bench -r 2 -e dummy write getppid write/size=512"))
        .exits(0)
        .shows(&["Write/size=512 (2 runs)", "Getppid (2 runs)"]);
}

#[test]
fn a_stop_keeps_the_samples() {
    let directory = scratch();
    let file = directory.path().join("records");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = poise();
        command
            .args(words("bench -r 1000000 -e dummy getppid -o"))
            .arg(&file);
        let _ = fs::remove_file(&file);
        let running = Running::start(&mut command);
        eventually("a sample", || {
            let text = fs::read_to_string(&file).ok()?;
            text.contains(r#""record":"sample""#).then_some(())
        });
        running.signal(signal);
        let ran = running.wait().exits(128 + signal as i32);
        let (records, whole) = read_records(&file);
        assert!(!whole && matches!(records[0], Record::Header(_)));
        assert!(!samples(&records).is_empty());
        ran.shows(&["Getppid ("]);
    }
}

#[test]
fn loops_that_cannot_run_say_why() {
    let check = |name: &str, all: &[&str]| {
        run(["bench", "-q", "-r", "1", name]).refuses(1, all);
    };
    check(
        "stat/file=/missing/file",
        &["/missing/file", "No such file"],
    );
    check("vfork-exec/program=/bin/false", &["exit status 1"]);
}
