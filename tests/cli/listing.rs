//! `poise events`, `doctor`, `completions` and `man`: what is listed, tried and written.

use std::fs;

use serde_json::Value;

use crate::common::{finish, poise, run, scratch, words};

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_event_is_tried_or_needs_a_parameter() {
    let listed = objects(&run(["events", "--json"]).exits(0).stdout);
    assert!(listed.len() > 20, "{}", listed.len());
    for event in &listed {
        match &event["counts"] {
            Value::Bool(true) => assert!(event["why"].is_null(), "{event}"),
            Value::Bool(false) => assert!(event["why"].is_string(), "{event}"),
            Value::Null => assert!(event["parameters"][0].is_string(), "{event}"),
            other => panic!("{other}"),
        }
    }
    let names: Vec<&str> = listed
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    for name in [
        "task-clock",
        "page-faults",
        "cycles",
        "L1-dcache-load-misses",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn what_is_said_to_count_counts() {
    let listed = objects(&run(["events", "--json"]).exits(0).stdout);
    let countable: Vec<&str> = listed
        .iter()
        .filter(|event| event["counts"] == true && event["kind"] == "software")
        .filter_map(|event| event["event"].as_str())
        .collect();
    if countable.is_empty() {
        return crate::common::not_run("countable events", "nothing is counted here");
    }
    let ran = run([
        "stat",
        "-q",
        "--json",
        "-e",
        &countable.join(","),
        "--",
        "true",
    ])
    .exits(0);
    for name in countable {
        let unit = match name {
            "task-clock" | "cpu-clock" => format!("\"{name}-sec/op\""),
            _ => format!("\"{name}/op\""),
        };
        assert!(ran.stdout.contains(&unit), "{unit} in {ran:#?}");
    }
}

#[test]
fn events_are_chosen_by_pattern() {
    let names = |pattern: &str| -> Vec<String> {
        let listed = objects(&run(["events", "--json", pattern]).exits(0).stdout);
        let names = listed.iter().filter_map(|event| event["event"].as_str());
        names.map(str::to_owned).collect()
    };
    assert_eq!(names("context-switches"), ["context-switches"]);
    // By its alias, before what only has the letters somewhere.
    assert_eq!(names("cs")[0], "context-switches");
    let faults = names("*-faults");
    for name in ["page-faults", "minor-faults", "major-faults"] {
        assert!(faults.contains(&name.to_owned()), "{faults:?}");
    }
    assert!(
        faults.iter().all(|name| name.ends_with("-faults")),
        "{faults:?}"
    );
    run(["events", "no-such-event"]).refuses(1, &["no event matches `no-such-event`"]);
    run(["events", ""]).exits(0);
}

#[test]
fn the_list_for_people_has_aliases() {
    let ran = run(["events"]).exits(0);
    assert_eq!(ran.stderr, "");
    let ran = ran.shows(&["task-clock", "tracepoints"]);
    let faults = &objects(&run(["events", "--json", "page-faults"]).stdout)[0];
    assert_eq!(faults["aliases"][0], "faults");
    if faults["counts"] == true {
        ran.shows(&["page-faults OR faults"]);
    }
}

#[test]
fn the_doctor_names_cause_and_cure() {
    let findings = objects(&run(["doctor", "--json"]).exits(0).stdout);
    let mut topics = Vec::new();
    for finding in &findings {
        let status = finding["status"].as_str().unwrap();
        assert!(
            ["good", "limited", "missing", "note"].contains(&status),
            "{finding}"
        );
        assert!(!finding["what"].as_str().unwrap().is_empty(), "{finding}");
        if status == "missing" {
            assert!(finding["cause"].is_string(), "{finding}");
        }
        topics.push(finding["topic"].as_str().unwrap().to_owned());
    }
    for topic in [
        "events",
        "counters",
        "rdpmc",
        "perf-event-paranoid",
        "capabilities",
        "seccomp",
        "virtualization",
        "smt",
        "aslr",
        "thp",
        "mitigations",
        "clock",
        "tracefs",
        "btf",
        "bpf",
    ] {
        assert!(
            topics.iter().any(|known| known == topic),
            "{topic} in {topics:?}"
        );
    }
    let text = run(["doctor"]).exits(0).stdout;
    let lines = text.lines().filter(|line| !line.starts_with(' '));
    assert_eq!(lines.count(), findings.len(), "{text}");
}

#[test]
fn completions_know_the_verbs_and_not_the_hidden_one() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(["completions", shell])
            .exits(0)
            .shows(&["stat", "bench", "--latency"]);
        assert_eq!(ran.stderr, "");
    }
    let mut shell = std::process::Command::new("bash");
    let script = run(["completions", "bash"]).stdout;
    match shell.args(["-n", "-c", &script]).output() {
        Err(error) => crate::common::not_run("completions in bash", error),
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
}

#[test]
fn manual_pages_are_written() {
    let directory = scratch();
    let mut command = poise();
    finish(command.arg("man").arg(directory.path()))
        .exits(0)
        .silently();
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in [
        "poise.1",
        "poise-stat.1",
        "poise-bench.1",
        "poise-doctor.1",
        "poise-events.1",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
    assert!(!names.iter().any(|name| name.contains("__")), "{names:?}");
    let page = fs::read_to_string(directory.path().join("poise-stat.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("timeout"), "{page}");
    run(words("man /missing/directory")).refuses(1, &["/missing/directory", "No such file"]);
    run(words("man /dev/null")).refuses(1, &["/dev/null"]);
}

#[test]
fn the_doctor_tells_what_can_be_told_apart() {
    let ran = run(["doctor", "--aa", "2"]).exits(0);
    for line in [
        "the loop write against itself",
        "the command true against itself",
    ] {
        assert!(ran.stdout.contains(line), "{ran:?}");
    }
    // Time is counted everywhere; whether 2 s are enough is the machine's to say.
    let times = ran.stdout.lines().filter(|line| line.contains(" sec/op "));
    for line in times.clone() {
        assert!(line.contains('±') || line.contains("too few"), "{line}");
    }
    assert_eq!(times.count(), 2, "{ran:?}");
    run(["doctor", "--aa", "soon"]).exits(2);
}
