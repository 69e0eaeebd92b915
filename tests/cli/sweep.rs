//! One parameter over its values: programs whose faults are known, and Go's compiler where there is one.

use std::fs;
use std::process::Command;

use counterpoise::sample::Record;
use serde_json::Value;

use crate::common::{Ran, exact, exercise, finish, poise, samples, scratch, whole_records};
use crate::identical::{NEW, toolchain};

/// `poise sweep` with `options`, and a command.
fn sweep(options: &[&str], command: &[&str]) -> Command {
    let mut sweep = poise();
    sweep.arg("sweep").args(options).env("COLUMNS", "200");
    if !command.is_empty() {
        sweep.arg("--").args(command);
    }
    sweep
}

fn swept(options: &[&str], command: &[&str]) -> Ran {
    finish(&mut sweep(options, command))
}

#[test]
fn every_value_runs_once_a_round_and_faults_are_those_of_the_value() {
    let Some(program) = exercise("a sweep over pages") else {
        return;
    };
    let directory = scratch();
    let (records, verdict) = (
        directory.path().join("records"),
        directory.path().join("verdict"),
    );
    let options = [
        "--param",
        "pages=100,1000,3000",
        "-r",
        "6",
        "--seed",
        "3",
        "-o",
        records.to_str().unwrap(),
        "--verdict",
        verdict.to_str().unwrap(),
    ];
    let ran = swept(&options, &[program.to_str().unwrap(), "pages", "{pages}"]).exits(0);
    ran.shows(&[
        "pages from 100 to 3000",
        "best by CPU time: 100",
        "  faults   ▁▁▁",
    ]);
    let all = whole_records(&records);
    let all = samples(&all);
    assert_eq!(all.len(), 18);
    for (round, members) in all.chunks(3).enumerate() {
        let mut variants: Vec<&str> = members.iter().map(|one| &*one.variant).collect();
        variants.sort_unstable();
        assert_eq!(variants, ["pages=100", "pages=1000", "pages=3000"]);
        assert!(members.iter().all(|one| one.order.round == round as u64));
    }
    let faults = |variant: &str| {
        let own = all.iter().filter(|one| one.variant == variant);
        own.map(|one| exact(one, "page-faults/op"))
            .fold(f64::INFINITY, f64::min)
    };
    assert_eq!(faults("pages=3000") - faults("pages=1000"), 2000.0);
    let told: Value = serde_json::from_str(&fs::read_to_string(&verdict).unwrap()).unwrap();
    assert_eq!(told["values"][1]["value"], "1000");
    assert_eq!(told["values"][1]["units"]["sec/op"]["runs"], 6);
    assert!(told["cost"]["GC-cycle"].is_null(), "{told:#}");
    let compared = finish(
        poise()
            .arg("compare")
            .arg(&records)
            .args(["--filter", ".unit:page-faults/op"]),
    );
    compared.exits(0).shows(&["pages=1000", "regressed"]);
}

#[test]
fn settings_before_the_program_are_its_environment_and_collections_are_counted() {
    let directory = scratch();
    let records = directory.path().join("records");
    let options = [
        "--param",
        "n=1,3",
        "--gc",
        "-r",
        "2",
        "-o",
        records.to_str().unwrap(),
    ];
    // As a Go program would write it, but only where it is asked to.
    let script = "test $N = 1 || test $N = 3 || exit 1; case $GODEBUG in *gctrace=1*) \
        for i in $(seq $N); do echo \"gc $i @0.1s 1%: 1 ms clock\" >&2; done;; esac";
    let ran = swept(&options, &["N={n}", "sh", "-c", script]).exits(0);
    ran.shows(&["GCs", "n from 1 to 3"]);
    let all = whole_records(&records);
    for sample in samples(&all) {
        let want = if sample.variant == "n=1" { 1.0 } else { 3.0 };
        assert_eq!(exact(sample, "GC-cycles/op"), want);
    }
    let Record::Header(header) = &all[0] else {
        panic!("{:?}", all[0])
    };
    assert_eq!(header.machine["variants"], r#"["n=1","n=3"]"#);
}

#[test]
fn what_cannot_be_swept_is_refused() {
    let check = |options: &[&str], command: &[&str], code, text: &str| {
        swept(options, command).refuses(code, &[text]);
    };
    let n = ["--param", "n=1,2"];
    check(&n, &["true"], 2, "{n} does not stand in the command");
    check(&n, &["A={n}"], 2, "the command has no program");
    check(&n, &["/no/such/program", "{n}"], 127, "not found");
    check(
        &n,
        &["false", "{n}"],
        1,
        "the warm-up of n=1 failed: exit status 1",
    );
    check(
        &["go-heap", "--compiler", "/no/such/root"],
        &[],
        2,
        "no Go toolchain at /no/such/root",
    );
    let ran = swept(&["--param", "n=1"], &["true"]);
    ran.exits(2).says(&["it takes two values"]);
    let ran = swept(&["--param", "n=1,1"], &["true"]);
    ran.exits(2).says(&["a value stands there twice"]);
    swept(&[], &[]).refuses(2, &["there is nothing to sweep", "--param"]);
    swept(&["go-heap"], &[]).exits(2).says(&["--compiler"]);
    let ran = swept(
        &[
            "--param",
            "n=0.01,60",
            "--timeout",
            "200ms",
            "--warmup",
            "0",
            "-r",
            "4",
        ],
        &["sleep", "{n}"],
    );
    ran.exits(124)
        .says(&["of n=60 failed", "longer than --timeout"]);
}

#[test]
fn a_go_compiler_that_collects_less_has_more_faults() {
    let what = "the heap of a Go compiler";
    let Some(root) = toolchain(what, NEW) else {
        return;
    };
    let root = root.to_str().unwrap();
    let directory = scratch();
    let records = directory.path().join("records");
    let options = [
        "go-heap",
        "--compiler",
        root,
        "--package",
        "unicode",
        "-r",
        "1",
        "--warmup",
        "0",
    ];
    let rest = [
        "--way",
        "gogc",
        "--values",
        "20,off",
        "-o",
        records.to_str().unwrap(),
    ];
    let mut command = sweep(&[&options[..], &rest].concat(), &[]);
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
    finish(command.env("XDG_CACHE_HOME", cache))
        .exits(0)
        .shows(&["GOGC", "peak RSS", "GCs"]);
    let all = whole_records(&records);
    let of = |variant: &str, unit: &str| {
        let all = samples(&all);
        exact(all.iter().find(|one| one.variant == variant).unwrap(), unit)
    };
    assert_eq!(of("GOGC=off", "GC-cycles/op"), 0.0);
    assert!(of("GOGC=20", "GC-cycles/op") >= 3.0);
    assert!(of("GOGC=20", "page-faults/op") < of("GOGC=off", "page-faults/op"));
}

#[test]
fn faults_are_attributed_by_a_run_of_their_own() {
    let Some(program) = exercise("where the faults of a sweep come from") else {
        return;
    };
    let directory = scratch();
    let records = directory.path().join("records");
    let options = ["--param", "pages=100,1000", "-r", "2", "--faults", "-o"];
    let options = [&options[..], &[records.to_str().unwrap()]].concat();
    let ran = swept(&options, &[program.to_str().unwrap(), "pages", "{pages}"]).exits(0);
    // In whichever way this user may see them.
    ran.shows(&[
        "where the faults come from: one more run of each, seen by ",
        "\n  mapping ",
        "  anonymous ",
    ]);
    let all = whole_records(&records);
    let all = samples(&all);
    let measured = all
        .iter()
        .filter(|one| one.benchmark.base() == program.file_name().unwrap());
    assert_eq!(measured.count(), 4);
    let anonymous = |variant: &str| {
        let name = "FaultMapping/mapping=anonymous";
        let mut own = all.iter().filter(|one| one.variant == variant);
        let own = own.find(|one| one.benchmark.to_string() == name);
        exact(own.unwrap(), "faults")
    };
    assert_eq!(anonymous("pages=1000") - anonymous("pages=100"), 900.0);
}
