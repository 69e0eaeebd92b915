//! What is counted, held to programs whose counts are known.

use std::path::Path;

use counterpoise::sample::{Figure, Sample};

use crate::common::{
    counts, exact, exercise, finish, is_root, measure, not_run, poise, samples, scratch,
    whole_records, words,
};
use crate::raw;

/// Measures `command` with addresses that stay the same from run to run.
fn steadily(options: &str, command: &[&str]) -> Vec<Sample> {
    let directory = scratch();
    let file = directory.path().join("records");
    let mut poise = poise();
    raw::no_randomization(&mut poise);
    poise
        .arg("stat")
        .arg("-q")
        .args(words(options))
        .arg("-o")
        .arg(&file);
    finish(poise.arg("--").args(command)).exits(0);
    samples(&whole_records(&file))
        .into_iter()
        .cloned()
        .collect()
}

/// The smallest count over the samples: what interrupts a program only ever adds.
fn least(samples: &[Sample], unit: &str) -> f64 {
    let counts = samples.iter().map(|sample| exact(sample, unit));
    counts.reduce(f64::min).unwrap()
}

#[test]
fn fresh_pages_are_counted_to_the_page() {
    let what = "faults of fresh pages";
    let (Some(program), true) = (exercise(what), counts(what, "minor-faults:u")) else {
        return;
    };
    let program = program.to_str().unwrap();
    let faults = |pages: &str| {
        let samples = steadily("-r 5 -e minor-faults:u", &[program, "pages", pages]);
        assert_eq!(samples.len(), 5);
        least(&samples, "minor-faults:u/op")
    };
    let (none, thousand) = (faults("0"), faults("1000"));
    assert!(thousand >= 1000.0, "{thousand}");
    assert_eq!(thousand - none, 1000.0);
}

#[test]
fn children_and_threads_are_counted_with_their_parent() {
    let what = "faults of children";
    let (Some(program), true) = (exercise(what), counts(what, "minor-faults:u")) else {
        return;
    };
    let faults = |pages: u32| {
        let program = program.display();
        let script = format!("{program} pages {pages} & {program} pages {pages}; wait");
        let samples = steadily("-r 5 -e minor-faults:u", &["sh", "-c", &script]);
        least(&samples, "minor-faults:u/op")
    };
    let more = faults(1000) - faults(0);
    // The shell's own faults differ by the copies that its forks leave it to make.
    assert!((1990.0..2200.0).contains(&more), "{more}");
}

#[test]
fn intervals_add_up_to_the_whole() {
    let what = "the sum of intervals";
    let (Some(program), true) = (exercise(what), counts(what, "minor-faults:u")) else {
        return;
    };
    let program = program.display();
    let script = format!("for i in 1 2 3 4; do {program} pages 500; sleep 0.03; done");
    let samples = steadily("-I 10 -e minor-faults:u", &["sh", "-c", &script]);
    let (whole, intervals) = samples.split_last().unwrap();
    assert!(intervals.len() > 1);
    let sum: f64 = intervals
        .iter()
        .filter_map(|sample| match sample.figure("minor-faults:u/op").unwrap() {
            Figure::Exact(count) => Some(*count),
            // The program did not run in that interval.
            Figure::Absent { .. } => None,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(sum, exact(whole, "minor-faults:u/op"));
    assert!(sum >= 2000.0, "{sum}");
}

#[test]
fn system_calls_are_counted_to_the_call() {
    let what = "tracepoints of system calls";
    let traced = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|root| {
            Path::new(root)
                .join("events/syscalls/sys_enter_write/id")
                .exists()
        });
    if !is_root() || !traced {
        return not_run(what, "tracefs is not mounted, or not ours to read");
    }
    let (Some(program), true) = (exercise(what), counts(what, "syscalls:sys_enter_write")) else {
        return;
    };
    let program = program.to_str().unwrap();
    for writes in [0, 1, 1000] {
        let number = writes.to_string();
        let options = "-r 3 -e syscalls:sys_enter_write";
        for sample in steadily(options, &[program, "writes", &number]) {
            let unit = "syscalls:sys_enter_write/op";
            assert_eq!(exact(&sample, unit), f64::from(writes));
        }
    }
}

#[test]
fn the_time_stamp_counter_counts() {
    let what = "the PMU of the time-stamp counter";
    if !counts(what, "msr/tsc/") {
        return;
    }
    for sample in measure(words("stat -r 3 -e msr/tsc/ -- true")) {
        assert!(exact(&sample, "msr/tsc//op") > 0.0);
    }
    let sample = &measure(words("stat -e msr/tsc/,task-clock,dummy -- true"))[0];
    assert!(exact(sample, "msr/tsc//op") > 0.0);
    assert_eq!(exact(sample, "dummy/op"), 0.0);
}

#[test]
fn groups_and_modifiers_are_counted_as_asked() {
    let what = "groups and modifiers";
    let (Some(program), true) = (exercise(what), counts(what, "minor-faults:u")) else {
        return;
    };
    let program = program.to_str().unwrap();
    let events = "-e {minor-faults:u,dummy},faults:u,minor-faults:u";
    let sample = &steadily(events, &[program, "pages", "1000"])[0];
    let minor = exact(sample, "minor-faults:u/op");
    assert!(minor >= 1000.0);
    let page = sample
        .figure("page-faults:u/op")
        .or(sample.figure("faults:u/op"));
    let Some(Figure::Exact(all)) = page else {
        panic!("{sample:#?}")
    };
    assert!(*all >= minor, "{all} {minor}");
    if counts(what, "minor-faults:k") {
        let sample = &steadily(
            "-e minor-faults:u,minor-faults:k,minor-faults",
            &[program, "pages", "1000"],
        )[0];
        let part = |unit| exact(sample, unit);
        let sum = part("minor-faults:u/op") + part("minor-faults:k/op");
        assert_eq!(sum, part("minor-faults/op"));
    }
}

#[test]
fn the_heap_loop_faults_once_a_page() {
    if !counts("faults of the heap loop", "minor-faults:u") {
        return;
    }
    let unit = "minor-faults:u/op";
    // A stray fault in one of its batches moves a slope up or down, but not every slope.
    let check = |name: &str, faults: f64| {
        let samples = measure(["bench", "-r", "5", "-e", "minor-faults:u", name]);
        let counts: Vec<f64> = samples.iter().map(|sample| exact(sample, unit)).collect();
        assert!(counts.contains(&faults), "{name}: {counts:?}");
    };
    check("heap/MiB=1", 1.0);
    check("heap/MiB=1/pass=2", 0.0);
}
