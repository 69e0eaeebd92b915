//! What is asked wrongly: one clear line, the nearest right word, exit code 2, and nothing is run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::{finish, poise, run, scratch, words};

#[test]
fn unknown_verbs_and_flags_get_the_nearest() {
    let check = |arguments: &str, nearest: &[&str]| {
        run(words(arguments)).exits(2).says(nearest);
    };
    check("stats -- true", &["'stats'", "'stat'"]);
    check("stat --repeet 3 -- true", &["'--repeet'", "'--repeat'"]);
    check("stat -r 3 --warmpu 1 true", &["'--warmpu'", "'--warmup'"]);
    check("stat -Z -- true", &["'-Z'"]);
    check("bench --latancy write", &["'--latancy'", "'--latency'"]);
    check("bench -j write", &["'-j'"]);
    check("events --jsn", &["'--jsn'", "'--json'"]);
    check("doctor --jsn", &["'--jsn'", "'--json'"]);
    check("--colour always doctor", &["'--colour'", "'--color'"]);
}

#[test]
fn flags_of_the_command_are_its_own() {
    let ran = run(words("stat -q echo -r 3 --repeet --help")).exits(0);
    assert_eq!(ran.stdout, "-r 3 --repeet --help\n");
    let ran = run(words("stat -q -- echo -q -- -x")).exits(0);
    assert_eq!(ran.stdout, "-q -- -x\n");
}

#[test]
fn unknown_events_get_the_nearest() {
    let check = |event: &str, all: &[&str]| {
        run(["stat", "-e", event, "--", "true"]).refuses(2, all);
        run(["bench", "-e", event, "getppid"]).refuses(2, all);
    };
    check("cyclse", &["unknown event `cyclse`", "`cycles`"]);
    check("page-falts", &["`page-falts`", "`page-faults`"]);
    check(
        "task-clock,minor-fualts",
        &["`minor-fualts`", "`minor-faults`"],
    );
    check("L1-dcache-load-mises", &["`L1-dcache-load-misses`"]);
    check("cycles:q", &["modifier `q`", "u, k, h"]);
    check("cs:u", &["`cs:u`", "always count 0"]);
    check("{cycles,instructions", &["`{` is not closed"]);
    check("nopmu/event=1/", &["nopmu"]);
    check("", &["event"]);
}

#[test]
fn something_must_be_counted() {
    for arguments in ["stat", "stat --", "stat -e page-faults", "stat -r 3"] {
        run(words(arguments)).refuses(2, &["nothing to count", "poise stat -- COMMAND"]);
    }
    run(["bench"]).refuses(2, &["no loop", "poise bench write", "--list"]);
    run([""; 0]).exits(2).says(&["Usage: poise"]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let check = |arguments: &str, all: &[&str]| {
        let ran = run(words(arguments)).exits(2).says(all);
        assert_eq!(ran.stdout, "");
    };
    for bad in ["0", "-1", "x", "1.5", "100000001", "18446744073709551616"] {
        check(&format!("stat --repeat={bad} -- true"), &[bad, "--repeat"]);
        check(&format!("bench --runs={bad} write"), &[bad, "--runs"]);
    }
    check("stat --warmup=-1 -- true", &["-1", "--warmup"]);
    for option in ["--interval", "--timeout", "--time"] {
        for bad in ["0", "0s", "soon", "-5", "99999999999999999999999"] {
            check(&format!("stat {option}={bad} -- true"), &[option]);
        }
    }
    for option in ["--pid", "--tid"] {
        for bad in ["0", "-1", "x", "99999999999"] {
            check(&format!("stat {option}={bad}"), &[option]);
        }
    }
    for bad in ["3-1", "x", "", "-", "99999999999"] {
        check(&format!("stat --cpu={bad} --timeout 1"), &["--cpu"]);
        check(&format!("stat --cpu-list={bad} -- true"), &["--cpu-list"]);
    }
}

#[test]
fn missing_cpus_are_named() {
    run(words("stat -C 0,8191 --timeout 1")).refuses(2, &["CPU 8191", "online"]);
    run(words("stat --cpu-list 0,8191 -- true")).refuses(2, &["CPU 8191", "online"]);
}

#[test]
fn what_excludes_each_other_is_refused() {
    for arguments in [
        "stat -p 1 -a",
        "stat -a -C 0",
        "stat -t 1 -p 1",
        "stat --append -- true",
        "stat -q --table -- true",
        "stat --json --format csv -- true",
        "stat -x, -j -- true",
        "stat -j --table -- true",
        "stat --input x -- true",
        "stat --input x -a",
        "stat --input x -o y",
        "stat --format xml -- true",
        "bench --hdr-log x write",
        "bench --append write",
        "completions ksh",
    ] {
        let ran = run(words(arguments)).exits(2);
        assert!(ran.stderr.starts_with("error: "), "{ran:#?}");
    }
}

#[test]
fn loops_and_their_parameters_are_checked() {
    let check = |name: &str, all: &[&str]| {
        run(["bench", name]).refuses(2, all);
        // The first loop is not run when the second is wrong.
        run(["bench", "getppid", name]).refuses(2, all);
    };
    check("wirte", &["`wirte`", "write"]);
    check("write/siz=3", &["`siz`", "size"]);
    check("write/size=0", &["size=0", "a number from 1"]);
    check("write/size=big", &["size=big"]);
    check("write/to=moon", &["to=moon", "null, file, pipe"]);
    check("getppid/size=3", &["getppid", "`size`"]);
    check("", &["loop"]);
}

#[test]
fn help_and_version_are_results() {
    for arguments in ["--help", "-h", "stat --help", "bench --help", "help stat"] {
        let ran = run(words(arguments)).exits(0).shows(&["Usage: poise"]);
        assert_eq!(ran.stderr, "");
        assert!(!ran.stdout.contains("__batch"), "{ran:#?}");
    }
    let version = concat!("poise ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(["--version"]).exits(0).stdout, version);
}

#[test]
fn words_need_not_be_unicode() {
    let odd = OsStr::from_bytes(b"a\xff/b c");
    let directory = scratch();
    let copy = directory.path().join("copy");
    let mut command = poise();
    command.args(["stat", "-q", "-o"]).arg(&copy);
    let mut running = finish(command.args(["--", "printf", "%s."]).arg(odd)).exits(0);
    // The name of the benchmark is text, what the command gets is not.
    running.stdout.retain(char::is_alphanumeric);
    assert_eq!(running.stdout, "abc");
    crate::common::whole_records(&copy);
}
