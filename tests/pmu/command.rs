//! `poise stat` and `poise bench`: what they say of programs and loops whose counts are known.

use counterpoise::sample::Figure;
use nix::sys::personality::{self, Persona};

use crate::bed;

/// More than the seven counters of the guest.
const TWELVE: &str = "cycles,instructions,cycles:u,instructions:u,cycles:k,instructions:k,\
                      r8,r11,r8:u,r11:u,r8:k,r11:k";

/// Writes a known number of times, and nothing at its end.
const WRITER: [&str; 6] = [
    "dd",
    "if=/dev/zero",
    "of=/dev/null",
    "bs=512",
    "count=1000",
    "status=none",
];

fn units(events: &str) -> Vec<String> {
    events
        .split(',')
        .map(|event| format!("{event}/op"))
        .collect()
}

#[test]
fn a_command_counts_the_same_five_times() {
    if bed::guest("repeated counts").is_none() {
        return;
    }
    // Children take it over: addresses are not drawn anew each time.
    let old = personality::get().unwrap();
    personality::set(old | Persona::ADDR_NO_RANDOMIZE).unwrap();
    let run = bed::poise(&["stat", "-r", "5", "-e", "instructions:u", "--", "true"]);
    personality::set(old).unwrap();
    let counts = run.exact("instructions:u/op");
    assert!(counts[0] > 0.0 && counts == [counts[0]; 5], "{counts:?}");
}

#[test]
fn a_spin_loop_takes_two_instructions() {
    if !bed::has_pmu("bench spin") {
        return;
    }
    let run = bed::poise(&["bench", "spin", "--runs", "6"]);
    let per_op = run.exact("instructions:u/op");
    let off = |value: &f64| (value - 2.0).abs() >= 0.0005;
    assert!(!per_op.is_empty() && !per_op.iter().any(off), "{per_op:?}");
    if bed::in_guest() {
        let warnings = run.samples.iter().flat_map(|sample| &sample.warnings);
        let warnings: Vec<_> = run.header.warnings.iter().chain(warnings).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn what_the_pmu_has_not_is_absent_and_never_zero() {
    if bed::guest("absent events").is_none() {
        return;
    }
    // r10 and r9999 open; the twelve make all share the counters in a single run.
    let lacking = "branch-misses,r10,r9999";
    let crowded = format!("{TWELVE},{lacking}");
    let some = format!("instructions,{lacking}");
    for (runs, events) in [("1", &some), ("3", &some), ("1", &crowded), ("4", &crowded)] {
        let run = bed::poise(&[&["stat", "-r", runs, "-e", events, "--"], &WRITER[..]].concat());
        for unit in units(lacking) {
            let figures = run.figures(&unit);
            assert!(!figures.is_empty(), "{unit} is forgotten in\n{}", run.table);
            for figure in figures {
                let Figure::Absent { why } = figure else {
                    panic!("{unit} is {figure:?}")
                };
                assert!(why.why.contains("this PMU"), "{why}");
                assert!(run.table.contains(&why.why), "{why} in\n{}", run.table);
            }
            let is_row = |line: &&str| line.split_whitespace().next() == Some(&unit);
            assert_eq!(run.table.lines().find(is_row), None);
            let is_note = |line: &str| line.contains("— absent") && line.contains(&unit);
            assert!(run.table.lines().any(is_note), "{unit} in\n{}", run.table);
        }
    }
}

#[test]
fn more_events_than_counters_take_turns_over_runs_and_share_in_one() {
    if bed::guest("more events than counters").is_none() {
        return;
    }
    // Long against the tick at which groups change places: what a share stands for must not hang
    // on the moment at which the command starts.
    let mut writer = WRITER;
    writer[4] = "count=30000";
    let count =
        |runs| bed::poise(&[&["stat", "-r", runs, "-e", TWELVE, "--"], &writer[..]].concat());
    let (repeated, single) = (count("4"), count("1"));
    for unit in units(TWELVE) {
        let exact = repeated.exact(&unit);
        assert!((1..4).contains(&exact.len()), "{unit}: {exact:?}");
        let mean = exact.iter().sum::<f64>() / exact.len() as f64;
        match *single.figure(&unit) {
            Figure::Scaled { value, running } => {
                assert!(running > 0.0 && running < 1.0, "{unit} ran {running}");
                assert!((value / mean - 1.0).abs() < 0.1, "{unit}: {value}, {mean}");
            }
            ref other => panic!("{unit} is {other:?}"),
        }
        let is_row = |line: &&str| line.split_whitespace().next() == Some(&unit);
        let row = single.table.lines().find(is_row).expect("a row");
        assert!(row.contains("scaled, ran "), "{row}");
    }
}

#[test]
fn a_braced_group_that_does_not_fit_is_absent() {
    if bed::guest("a group too big").is_none() {
        return;
    }
    let group = format!("{{{TWELVE}}}");
    let run = bed::poise(&["stat", "-e", &group, "--", "true"]);
    let cause = "the PMU cannot count these 12 events at once";
    for unit in units(TWELVE) {
        match run.figure(&unit) {
            Figure::Absent { why } => assert_eq!(why.why, cause),
            other => panic!("{unit} is {other:?}"),
        }
    }
    assert!(run.table.contains(cause), "{}", run.table);
}

#[test]
fn tracepoints_count_each_call() {
    if !bed::can_count("tracepoints", "syscalls:sys_enter_write") {
        return;
    }
    let run = bed::poise(
        &[
            &["stat", "-e", "syscalls:sys_enter_write", "--"],
            &WRITER[..],
        ]
        .concat(),
    );
    assert_eq!(run.exact("syscalls:sys_enter_write/op"), [1000.0]);
}

#[test]
fn children_are_counted_with_their_parents() {
    if bed::guest("children").is_none() {
        return;
    }
    let events = "instructions:u,syscalls:sys_enter_write";
    let count = |script: &str| {
        let run = bed::poise(&["stat", "-e", events, "--", "sh", "-c", script]);
        units(events)
            .into_iter()
            .map(move |unit| run.exact(&unit)[0])
    };
    let writer = WRITER.join(" ");
    let one: Vec<f64> = count(&format!("{writer} & wait")).collect();
    let three: Vec<f64> = count(&format!("{writer} & {writer} & {writer} & wait")).collect();
    assert_eq!((one[1], three[1]), (1000.0, 3000.0));
    // A child costs more than the shell that starts it.
    assert!(
        three[0] > 2.0 * one[0],
        "{} instructions, {}",
        three[0],
        one[0]
    );
}
