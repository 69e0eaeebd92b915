//! Variants side by side: their verdicts, what is made of them, and what cannot be compared. Where the host takes CPU time away, some pairs are void, so their number is nobody's to foresee.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use counterpoise::sample::Record;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{
    Ran, Running, eventually, exact, finish, poise, read_records, run, samples, scratch,
    whole_records, words,
};

/// `poise ab` with `options` and commands that are one word each.
fn ab(options: &str, commands: &[&str]) -> Command {
    let mut command = poise();
    command.arg("ab").args(words(options)).args(commands);
    command
}

fn compared(options: &str, commands: &[&str]) -> Ran {
    finish(&mut ab(options, commands))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

const FAST: &str = "sleep 0.01";
const SLOW: &str = "sleep 0.1";

#[test]
fn a_clear_change_is_found_and_gated() {
    let directory = scratch();
    let verdict = directory.path().join("verdict.json");
    let markdown = directory.path().join("verdict.md");
    let options = format!(
        "--gate --verdict {} --markdown {}",
        verdict.display(),
        markdown.display()
    );
    let slower = compared(&options, &[FAST, SLOW]).exits(3);
    slower.shows(&["sec/op", "control", "regressed", " pairs", "beside"]);
    let told = json(&verdict);
    assert_eq!(told["gate"], "fail");
    let first = &told["verdicts"][0];
    assert_eq!(
        (
            &first["verdict"],
            &first["control"],
            &first["variant"],
            &first["unit"]
        ),
        (
            &"regressed".into(),
            &FAST.into(),
            &SLOW.into(),
            &"sec/op".into()
        )
    );
    assert!(first["interval"][0].as_f64() > Some(0.5), "{first}");
    let text = fs::read_to_string(&markdown).unwrap();
    assert!(
        text.contains("| `sleep 0.1` |") && text.contains("**regressed**"),
        "{text}"
    );

    let faster = compared(&options, &[SLOW, FAST]).exits(0);
    faster.shows(&["improved"]);
    assert_eq!(json(&verdict)["gate"], "pass");
    // What cannot be written is found out before anything runs, and what an earlier run has left
    // is not taken for this one's.
    let unwritable = format!("--verdict {} --markdown /proc/none", verdict.display());
    let ran = directory.path().join("ran");
    let touch = format!("touch {}", ran.display());
    compared(&unwritable, &[&touch, "true"])
        .exits(1)
        .says(&["cannot write /proc/none"]);
    assert!(!ran.exists());
    assert_eq!(fs::read_to_string(&verdict).unwrap(), "");
    // Without --gate the exit code says only that it worked.
    compared("-q -r 8", &[FAST, SLOW]).exits(0).silently();
}

#[test]
fn what_is_not_decided_says_so() {
    let ran = compared("--gate --max-runs 6", &[FAST, SLOW])
        .exits(4)
        .shows(&["inconclusive"]);
    // The first look; more, where other work comes between.
    let (_, rest) = ran.stdout.split_once("a decision takes about ").unwrap();
    let pairs: u32 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!((8..=112).contains(&pairs), "{pairs}");
    // As many as the margin needs, and no more.
    let ran = compared("--gate --margin 90%", &[FAST, "/bin/sleep 0.01"]).exits(0);
    ran.shows(&["equivalent"])
        .says(&["are the same program, to the byte"]);
}

#[test]
fn every_round_holds_every_variant() {
    let directory = scratch();
    let file = directory.path().join("records");
    let options = format!("-q -r 6 --seed 5 --name Nap -o {}", file.display());
    compared(&options, &["true", "sleep 0", "sleep 0.001"])
        .exits(0)
        .silently();
    let records = whole_records(&file);
    let samples = samples(&records);
    assert_eq!(samples.len(), 18);
    for round in 0..6 {
        let mut of_round: Vec<&str> = samples
            .iter()
            .filter(|sample| sample.order.round == round)
            .map(|sample| &*sample.variant)
            .collect();
        of_round.sort_unstable();
        assert_eq!(of_round, ["sleep 0", "sleep 0.001", "true"]);
    }
    let Record::Header(header) = &records[0] else {
        panic!("{:?}", records[0])
    };
    assert_eq!(header.machine["stop-rule"], "fixed 6 alpha 0.05");
    let hashes: Value = serde_json::from_str(&header.machine["sha256"]).unwrap();
    assert_eq!(hashes["true"].as_str().map(str::len), Some(64), "{hashes}");
    run(["stat", "--input", file.to_str().unwrap()])
        .exits(0)
        .shows(&["Nap"]);
}

#[test]
fn variants_come_from_names_and_parameters() {
    let named = ["--variant", "old=sleep 0", "--variant", "new=sleep 0"];
    let ran = finish(poise().args(["ab", "-r", "3"]).args(named)).exits(0);
    ran.shows(&["  old ", "  new "]);
    let ran = run(words("ab -r 3 --param n=0,0.05 -- sleep {n}")).exits(0);
    ran.shows(&["  n=0 ", "  n=0.05 "]);
    let ran = finish(poise().args(["ab", "-r", "3", "--shell", "exit 0", "exit $((1 - 1))"]));
    ran.exits(0).shows(&["exit $((1 - 1))"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let check = |options: &str, commands: &[&str], code, text: &str| {
        compared(options, commands).exits(code).says(&[text]);
    };
    check("", &["true"], 2, "it takes two variants");
    check("", &["true", "true"], 2, "two variants are called `true`");
    check("", &["true", "sleep '0"], 2, "open quote");
    check("", &["true", ""], 2, "a command is empty");
    check("", &["true", "/no/such/program"], 127, "not found");
    check("", &["true", "false"], 1, "the warm-up of false failed");
    check(
        "--warmup 0",
        &["true", "false"],
        1,
        "3 of 3 runs of false failed",
    );
    check("--margin 2", &["true", "sleep 0"], 2, "2% or 0.02");
    check("--alpha 0.7", &["true", "sleep 0"], 2, "between 0 and 0.5");
    check("--variant sleep", &["true"], 2, "NAME=COMMAND");
    run(words("ab --param n=1,2 -- true"))
        .exits(2)
        .says(&["{n} does not stand"]);
    run(words("ab --param n=1 -- sleep {n}"))
        .exits(2)
        .says(&["two values"]);
    let ran = compared("-r 3 --by cycles-of-joy/op", &["true", "sleep 0"]).exits(0);
    ran.shows(&["not compared", "there is no such figure"]);
    compared("-r 3 --gate --by cycles-of-joy/op", &["true", "sleep 0"]).exits(4);
}

#[test]
fn a_program_that_changes_meanwhile_is_an_error() {
    let directory = scratch();
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\necho '#' >>\"$0\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    compared("-r 3", &["true", script])
        .exits(1)
        .says(&["the program of", "has changed while it was measured"]);
}

#[test]
fn failed_runs_are_told_and_are_no_samples() {
    let directory = scratch();
    let flag = directory.path().join("flag");
    // Fails in its second run.
    let text = format!(
        "sh -c 'test -e {0}.2 && exit 0; test -e {0} && touch {0}.2 && exit 9; touch {0}'",
        flag.display()
    );
    let ran = compared("--warmup 0 -r 8", &["true", &text]).exits(0);
    let ran = ran.shows(&["A: true", "B: 1 runs failed", " pairs"]);
    assert!(ran.stderr.contains("exit status 9"), "{ran:?}");
}

#[test]
fn interrupted_it_keeps_what_it_has() {
    let directory = scratch();
    let file = directory.path().join("records");
    let options = format!("-r 1000 -o {}", file.display());
    let running = Running::start(&mut ab(&options, &["true", "sleep 0.001"]));
    eventually("some rounds", || {
        let written = fs::read_to_string(&file).unwrap_or_default();
        (written.matches("\"record\":\"sample\"").count() > 6).then_some(())
    });
    running.signal(Signal::SIGINT);
    running.wait().exits(130).shows(&["control", "pairs"]);
    let (records, whole) = read_records(&file);
    assert!(!whole && samples(&records).len() > 6);
}

#[test]
fn github_is_told_where_it_runs_us() {
    let directory = scratch();
    let summary = directory.path().join("summary.md");
    fs::write(&summary, "before\n").unwrap();
    let mut command = ab("-r 8", &[FAST, SLOW]);
    command
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", &summary);
    finish(&mut command)
        .exits(0)
        .says(&["::error::sleep 0.1, sec/op: regressed by +", "%25\n"]);
    let text = fs::read_to_string(&summary).unwrap();
    assert!(text.starts_with("before\n| sec/op |"), "{text}");
}

#[test]
fn loops_are_compared_by_their_parameters() {
    // A fault for each page, however many there are.
    let variants = "--variant MiB=1 --variant MiB=2 --by page-faults/op -r 12 --gate";
    let ran = run(words(&format!("bench heap {variants}"))).exits(0);
    ran.shows(&["MiB=1", "MiB=2", "equivalent", "exact, "]);
    run(words("bench heap --variant MiB=1"))
        .exits(2)
        .says(&["two variants"]);
    run(words("bench heap --gate"))
        .exits(2)
        .says(&["a verdict takes variants"]);
    run(words("bench heap write --variant MiB=1 --variant MiB=2")).exits(2);
    run(words("bench heap --variant MiB=1 --variant MiB=1")).exits(2);
    run(words("bench heap --variant MiB=1,2 --variant MiB=3")).exits(2);
    run(words("bench heap --variant MiB=1 --variant size=3"))
        .exits(2)
        .says(&["size"]);
}

/// Reads and writes a byte so many times.
fn copies(count: u32) -> String {
    format!("dd if=/dev/zero of=/dev/null bs=1 count={count} status=none")
}

#[test]
fn syscalls_of_variants_stand_side_by_side() {
    let directory = scratch();
    let (verdict, records) = (directory.path().join("v"), directory.path().join("r"));
    let options = format!(
        "--profile syscalls -r 3 --gate --verdict {} -o {}",
        verdict.display(),
        records.display()
    );
    let (few, more) = (copies(10), copies(14));
    let ran = compared(&options, &[&few, &more]).exits(3);
    ran.shows(&["calls", "in each run", "Syscall/name=write", "regressed"]);
    let told = json(&verdict);
    let told = told["verdicts"].as_array().unwrap();
    let of = |benchmark: &str, unit: &str| {
        let found = told.iter().find(|one| {
            one["unit"] == unit && one["benchmark"].as_str().unwrap_or("Syscalls") == benchmark
        });
        found.unwrap_or_else(|| panic!("no {benchmark} {unit} in {told:#?}"))
    };
    let write = of("Syscall/name=write", "calls");
    assert_eq!(
        (&write["verdict"], &write["chosen"]),
        (&"regressed".into(), &false.into())
    );
    assert_eq!(
        of("Syscall/name=exit_group", "calls")["verdict"],
        "equivalent"
    );

    let writes = |variant: &str| {
        let records = whole_records(&records);
        let found = samples(&records).into_iter().filter(|sample| {
            sample.variant == variant && sample.benchmark.to_string() == "Syscall/name=write"
        });
        found
            .map(|sample| exact(sample, "calls"))
            .collect::<Vec<_>>()
    };
    assert_eq!(writes(&few), [10.0; 3]);
    assert_eq!(writes(&more), [14.0; 3]);

    // The file alone says the same.
    let again = run([
        "compare",
        "--filter",
        ".unit:calls",
        records.to_str().unwrap(),
    ])
    .exits(0);
    again.shows(&["Syscall/name=write", "+40.00%", "regressed"]);
}

#[test]
fn what_one_variant_alone_does_has_appeared() {
    let two = ["true".to_owned(), copies(1)];
    let ran = compared("--profile syscalls -r 2", &[&two[0], &two[1]]).exits(0);
    let line = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("Syscall/name=write "));
    assert!(
        line.is_some_and(|line| line.contains("appeared")),
        "{}",
        ran.stdout
    );
    let ran = compared("--profile syscalls -r 2", &[&two[1], &two[0]]).exits(0);
    let line = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("Syscall/name=write "));
    assert!(
        line.is_some_and(|line| line.contains("vanished")),
        "{}",
        ran.stdout
    );
}

#[test]
fn faults_of_variants_stand_side_by_side() {
    let ran = compared(
        "--profile faults -r 3",
        &[
            "dd if=/dev/zero of=/dev/null bs=64k count=1 status=none",
            "dd if=/dev/zero of=/dev/null bs=16M count=1 status=none",
        ],
    );
    ran.exits(0)
        .shows(&["faults", "regressed", "FaultMapping/mapping=anonymous"]);
}

#[test]
fn a_profiled_run_that_fails_is_no_sample() {
    let directory = scratch();
    let records = directory.path().join("r");
    let options = format!(
        "--profile syscalls -r 3 --warmup 0 -o {}",
        records.display()
    );
    let ran = compared(&options, &["true", "sh -c 'echo no >&2; exit 6'"]);
    assert_ne!(ran.code, Some(0));
    ran.says(&["failed", "exit status 6"]);
    let (all, _) = read_records(&records);
    assert!(samples(&all).iter().all(|sample| sample.variant == "true"));
    let failure = all.iter().find_map(|record| match record {
        Record::Failure(failure) => Some(failure),
        _ => None,
    });
    assert_eq!(failure.unwrap().stderr, "no\n");
    compared("--profile syscalls -e cycles", &["true", "true"]).exits(2);
}
