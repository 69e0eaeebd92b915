//! `poise syscalls --by` and `--events`: exact counts of whose calls, on what, and of what happened in them.

use std::collections::BTreeMap;

use crate::common::{exact, measure, words};
use crate::syscalls::{Profile, tracee};

fn of<const N: usize>(parts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    parts.map(|(name, calls)| (name.to_owned(), calls)).into()
}

#[test]
fn calls_are_told_apart_by_who_makes_them() {
    let Some(program) = tracee("--by process") else {
        return;
    };
    for options in ["", " --count"] {
        let profile = Profile::of(&format!("--by process{options}"), program, "family");
        let counts = |name: &str| profile.parts("process", name).into_values();
        assert_eq!(counts("getppid").collect::<Vec<_>>(), [1000; 3]);
        assert_eq!(counts("getgid").collect::<Vec<_>>(), [30; 2]);
        assert_eq!(profile.parts("process", "getuid"), of([("syscalls", 2000)]));
        let profile = Profile::of(&format!("--by thread{options}"), program, "family");
        let counts = profile.parts("thread", "getuid").into_values();
        assert_eq!(counts.collect::<Vec<_>>(), [500; 4]);
        let profile = Profile::of(&format!("--by process,thread{options}"), program, "family");
        let counts = profile.parts("thread", "getuid").into_values();
        assert_eq!(counts.collect::<Vec<_>>(), [500; 4]);
        assert_eq!(profile.parts("process", "getuid"), of([("syscalls", 2000)]));
        let counts = profile.parts("process", "getppid").into_values();
        assert_eq!(counts.collect::<Vec<_>>(), [1000; 3]);
        let profile = Profile::of(&format!("--by command{options}"), program, "family");
        let all = |name: &str| profile.parts("command", name);
        assert_eq!(all("getppid"), of([("syscalls", 3000)]));
        // Each is counted for the whole, too.
        let calls = profile.0.iter().skip(1).map(|sample| {
            let is_part = sample.benchmark.parameters().len() == 2;
            (is_part, exact(sample, "calls"))
        });
        let (parts, whole): (Vec<_>, Vec<_>) = calls.partition(|(is_part, _)| *is_part);
        let sum = |calls: Vec<(bool, f64)>| calls.into_iter().map(|(_, calls)| calls).sum::<f64>();
        let whole = sum(whole);
        assert_eq!(sum(parts), whole);
        assert_eq!(exact(&profile.0[0], "calls"), whole);
    }
    let profile = Profile::of("--by thread", program, "thread-exec");
    // The leader, and the thread that takes its place.
    assert_eq!(profile.parts("thread", "pause").len(), 1);
    let other = of([("syscalls#2", 50)]);
    assert_eq!(profile.parts("thread", "getuid"), other);
    assert_eq!(profile.parts("thread", "getgid"), of([("syscalls#2", 30)]));
    let profile = Profile::of("--by process,thread", program, "thread-exec");
    assert_eq!(profile.parts("thread", "getuid"), other);
    assert_eq!(profile.parts("process", "getgid"), of([("syscalls", 30)]));
    assert_eq!(profile.parts("process", "pause"), of([("syscalls", 1)]));
    let errors = Profile::of("--by process", program, "family");
    let failed = errors
        .0
        .iter()
        .find(|sample| sample.benchmark.to_string() == "Syscall/name=fchdir/process=syscalls");
    assert_eq!(exact(failed.unwrap(), "errors"), 5.0);
}

#[test]
fn an_exec_gives_a_process_another_name() {
    let Some(program) = tracee("--by command over an exec") else {
        return;
    };
    let program = program.to_str().unwrap();
    let script = format!("{program} leaf; exec {program} leaf");
    let run = |by: &str| {
        let line = format!("syscalls --by {by} -- sh -c");
        let mut command = words(&line);
        command.push(&script);
        Profile(measure(command))
    };
    let by_name = run("command");
    assert_eq!(by_name.parts("command", "getgid")["syscalls"], 60);
    assert!(by_name.parts("command", "execve").contains_key("syscalls"));
    assert!(by_name.parts("command", "wait4").contains_key("sh"));
    let each = run("process");
    let leaves = each.parts("process", "getgid");
    // The shell itself asks, too.
    assert!(
        leaves["syscalls"] >= 30 && leaves["syscalls#2"] == 30,
        "{leaves:?}"
    );
    assert!(!leaves.contains_key("sh"), "{leaves:?}");
}

#[test]
fn types_of_descriptors_are_told_apart() {
    let Some(program) = tracee("--by fd-type") else {
        return;
    };
    for options in ["", " --count"] {
        let profile = Profile::of(&format!("--by fd-type{options}"), program, "types");
        let want = of([
            ("file", 1),
            ("directory", 2),
            ("pipe", 3),
            ("socket", 4),
            ("character-device", 5),
            ("proc", 6),
            ("eventfd", 7),
            ("epoll", 8),
            ("timerfd", 9),
            ("signalfd", 10),
            ("inotify", 11),
            ("not-open", 12),
        ]);
        assert_eq!(profile.parts("fd-type", "flock"), want);
        assert_eq!(profile.parts("fd-type", "inotify_init").len(), 1);
        // None of what it opens is by a directory.
        let opened = profile.parts("fd-type", "openat");
        assert_eq!(opened, of([("none", profile.count("openat"))]));
    }
}

#[test]
fn what_there_is_no_room_for_stands_among_the_rest() {
    let Some(program) = tracee("--by process without room") else {
        return;
    };
    let profile = Profile::of("--by process", program, "crowd");
    let parts = profile.parts("process", "getppid");
    assert_eq!(profile.count("getppid"), 1100);
    assert_eq!(parts.values().sum::<u64>(), 1100);
    assert!(parts["other"] > 70 && parts["other"] < 100, "{parts:?}");
    let said = &profile.0[0].warnings[0].0;
    assert!(
        said.contains("no room for a process") && said.contains("--by command"),
        "{said}"
    );
    // The last place may be a process's, for which its thread counts then.
    let profile = Profile::of("--by process,thread", program, "crowd");
    let [threads, processes] = ["thread", "process"].map(|by| profile.parts(by, "getppid"));
    assert!(
        (1099..=1100).contains(&threads.values().sum::<u64>()),
        "{threads:?}"
    );
    assert!(processes.values().sum::<u64>() > 500, "{processes:?}");
    assert!(!processes.contains_key("other"), "{processes:?}");
    let profile = Profile::of("--by command", program, "crowd");
    assert_eq!(
        profile.parts("command", "getppid"),
        of([("syscalls", 1100)])
    );
    assert_eq!(profile.0[0].warnings, []);
}

#[test]
fn events_are_counted_in_the_calls_that_they_happen_in() {
    let Some(program) = tracee("--events") else {
        return;
    };
    let events = "page-faults,page-faults:k,page-faults:u,task-clock";
    // All on one CPU, which the child has while its parent sleeps.
    let options = format!("--cpu-list 0 --events {events} --by process");
    let profile = Profile::of(&options, program, "faulting");
    let everyone = measure(words("syscalls -a --timeout 200ms --events page-faults"));
    assert_eq!(everyone[0].warnings, []);
    let read = profile.call("preadv");
    assert_eq!(exact(read, "total-page-faults"), 64.0);
    assert_eq!(exact(read, "total-page-faults:k"), 64.0);
    assert_eq!(exact(read, "total-page-faults:u"), 0.0);
    assert_eq!(exact(read, "page-faults/op"), 64.0);
    let sleeps = profile.call("nanosleep");
    assert_eq!(exact(sleeps, "total-page-faults"), 0.0);
    // Counted when it is on a CPU, and only then.
    let (clock, off) = (
        exact(sleeps, "total-task-clock-sec"),
        exact(sleeps, "off-CPU-sec"),
    );
    assert!(
        clock > 0.0 && clock < 0.5 * off,
        "{clock} beside {off} off the CPU"
    );
    let whole = &profile.0[0];
    let (all, in_calls) = (
        exact(whole, "page-faults/op"),
        exact(whole, "total-page-faults"),
    );
    assert!(in_calls >= 64.0 && all > in_calls, "{in_calls} of {all}");
    assert!(exact(whole, "null-task-clock-sec") > 0.0);
}
