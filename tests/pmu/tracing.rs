//! `poise syscalls` on another kernel and processor: exact counts on every rung, and times that agree with the clock.

use counterpoise::sample::{Figure, Sample};

use crate::bed;

/// A thousand reads and writes, a short sleep, and a process more for each.
const WORK: &str = "dd if=/dev/zero of=/dev/null bs=512 count=1000 status=none; sleep 0.2";

fn call<'a>(run: &'a bed::Run, name: &str) -> &'a Sample {
    let full = format!("Syscall/name={name}");
    let mut samples = run.samples.iter();
    let found = samples.find(|sample| sample.benchmark.to_string() == full);
    found.unwrap_or_else(|| panic!("no {name} in\n{}", run.table))
}

fn number(sample: &Sample, unit: &str) -> f64 {
    let figure = sample.figure(unit).and_then(Figure::number);
    figure.unwrap_or_else(|| panic!("no {unit} in {sample:?}"))
}

#[test]
fn every_rung_counts_the_same() {
    if bed::guest("syscalls in the virtual machine").is_none() {
        return;
    }
    let mut counts = Vec::new();
    for rung in ["bpf", "counters", "ptrace"] {
        let run = bed::poise(&["syscalls", "--rung", rung, "--", "sh", "-c", WORK]);
        let count = |name: &str| number(call(&run, name), "calls");
        // The loader of a static program reads nothing.
        assert_eq!(count("write"), 1000.0, "{rung}\n{}", run.table);
        let all: Vec<(String, f64)> = run.samples[1..]
            .iter()
            .map(|sample| (sample.benchmark.to_string(), number(sample, "calls")))
            .collect();
        let mut all: Vec<(String, f64)> = all
            .into_iter()
            // How the shell waits for its children differs.
            .filter(|(name, _)| !name.contains("wait") && !name.contains("sigreturn"))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        counts.push((rung, all));
    }
    for (rung, all) in &counts[1..] {
        assert_eq!(*all, counts[0].1, "{rung} beside {}", counts[0].0);
    }
}

#[test]
fn a_sleep_takes_its_time_off_the_cpu() {
    if bed::guest("sleeps in the virtual machine").is_none() {
        return;
    }
    let run = bed::poise(&["syscalls", "--", "sleep", "0.2"]);
    let sleeps: Vec<&Sample> = run
        .samples
        .iter()
        .filter(|sample| sample.benchmark.to_string().contains("nanosleep"))
        .collect();
    let [sleep] = sleeps[..] else {
        panic!("{sleeps:?}")
    };
    // One call has no percentiles.
    assert_eq!(sleep.figure("p50-sec").and_then(Figure::number), None);
    let (longest, off) = (number(sleep, "max-sec"), number(sleep, "off-CPU-sec"));
    assert!((0.2..0.21).contains(&longest), "{longest}");
    assert!(off > 0.199 && off <= longest, "{off} of {longest}");
}

#[test]
fn counting_alone_costs_less() {
    if bed::guest("--count in the virtual machine").is_none() {
        return;
    }
    let run = bed::poise(&["syscalls", "--count", "--", "sh", "-c", WORK]);
    let write = call(&run, "write");
    assert_eq!(number(write, "calls"), 1000.0);
    assert!(write.figure("sec/op").is_none(), "{write:?}");
}

#[test]
fn calls_are_told_apart() {
    if bed::guest("--by in the virtual machine").is_none() {
        return;
    }
    for (by, part) in [
        ("command", "dd"),
        ("process", "dd"),
        ("thread", "dd"),
        ("fd-type", "character-device"),
    ] {
        let run = bed::poise(&["syscalls", "--by", by, "--", "sh", "-c", WORK]);
        let write = call(&run, &format!("write/{by}={part}"));
        assert_eq!(number(write, "calls"), 1000.0, "{by}\n{}", run.table);
    }
}

#[test]
fn instructions_are_counted_in_calls() {
    if bed::guest("--events in the virtual machine").is_none() {
        return;
    }
    let events = "instructions,instructions:u,instructions:k,cycles";
    let run = bed::poise(&["syscalls", "--events", events, "--", "sh", "-c", WORK]);
    let write = call(&run, "write");
    let each = |unit| number(write, unit);
    let (all, user, kernel) = (
        each("instructions/op"),
        each("instructions:u/op"),
        each("instructions:k/op"),
    );
    // Counters are read one after the other, in the kernel.
    assert!(user == 0.0 && kernel > 100.0, "{user} {kernel}");
    assert!((all - kernel).abs() < 0.5 * kernel, "{all} beside {kernel}");
    assert!(each("cycles/op") > 0.0 && each("IPC") > 0.0);
    let whole = &run.samples[0];
    let (run_user, in_calls) = (
        number(whole, "instructions:u/op"),
        number(whole, "total-instructions:u"),
    );
    assert!(
        run_user > 0.0 && in_calls == 0.0,
        "{in_calls} of {run_user}"
    );
}

#[test]
fn slow_calls_have_callers() {
    if bed::guest("--slow in the virtual machine").is_none() {
        return;
    }
    let run = bed::poise(&["syscalls", "--slow", "100ms", "--", "sleep", "0.2"]);
    let told = run
        .table
        .lines()
        .skip_while(|line| !line.contains("nanosleep("));
    let callers: Vec<&str> = told.skip(1).take_while(|line| line.contains('←')).collect();
    assert!(!callers.is_empty(), "{}", run.table);
    assert!(!callers[0].contains("unknown"), "{}", run.table);
}
