//! How a measured command ends: by itself, by a signal, never, or because we are told to stop. Its code is ours, what was measured is kept, and nothing of it lives on.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::common::{
    Descendant, Ran, Running, eventually, finish, poise, poise_at, read_records, run, samples,
    scratch, whole_records, words,
};
use crate::raw;

/// Measures a shell script with `options`; `$0` in it is `file`.
fn script(options: &str, text: &str, file: &Path) -> Running {
    let mut command = poise();
    command.arg("stat").args(words(options));
    Running::start(command.args(["--", "sh", "-c", text]).arg(file))
}

/// Tells its number in `$0.child` and becomes a program that never ends.
const ENDLESS: &str = "echo $$ > $0.child; exec sleep 1000";

/// The same with one more process in the background, whose interruption the shell has it ignore.
const ENDLESS_FAMILY: &str = "sleep 1000 & echo $! > $0.other; echo $$ > $0.child; wait";

#[test]
fn the_code_of_the_command_is_ours() {
    for code in [0, 1, 2, 5, 42, 126, 127, 255] {
        let text = format!("exit {code}");
        run(["stat", "-q", "--", "sh", "-c", &text])
            .exits(code)
            .silently();
        run(["stat", "-q", "-r", "2", "--", "sh", "-c", &text]).exits(code);
    }
}

#[test]
fn a_signal_is_128_and_its_number() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGKILL,
        Signal::SIGSEGV,
        Signal::SIGINT,
    ] {
        let text = format!("kill -{} $$", signal as i32);
        let ran = run(["stat", "-e", "dummy", "--", "sh", "-c", &text]);
        let ran = ran.exits(128 + signal as i32);
        ran.says(&[&format!("warning: killed by {signal}")]);
        let ran = run(["stat", "-r", "2", "-e", "dummy", "--", "sh", "-c", &text]);
        let ran = ran.exits(128 + signal as i32);
        ran.shows(&["2 of the runs failed", &format!("killed by {signal}")]);
    }
}

#[test]
fn what_cannot_be_executed_is_127_or_126() {
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("plain"), "#!/bin/sh\n").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("lost"), "#!/missing/interpreter\n").unwrap();
    fs::write(at("binary"), "\u{1}\u{2}not a program").unwrap();
    for name in ["empty", "lost", "binary"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let check = |program: &str, code: i32, all: &[&str]| {
        for repeat in ["1", "3"] {
            run(["stat", "-r", repeat, program]).refuses(code, all);
        }
    };
    check(
        "missing-program",
        127,
        &["missing-program: not found", "$PATH"],
    );
    check("/missing/program", 127, &["/missing/program: not found"]);
    check("", 127, &["not found"]);
    check(&at("lost"), 127, &["not found"]);
    check(&at("plain"), 126, &["plain: not executable"]);
    check(&at(""), 126, &["not executable"]);
    check("/dev/null", 126, &["/dev/null: not executable"]);
    check(&at("empty"), 126, &["not a program", "#!/bin/sh"]);
    check(&at("binary"), 126, &["not a program", "#!/bin/sh"]);
    check(&format!("{}/x", at("plain")), 126, &["plain/x"]);
}

#[test]
fn programs_are_found_as_a_shell_finds_them() {
    let directory = scratch();
    let mut command = poise();
    command.env_clear().args(words("stat -q -- true"));
    finish(&mut command).exits(0).silently();
    let here = directory.path().join("here");
    fs::copy("/bin/true", &here).unwrap();
    let mut command = poise();
    command
        .current_dir(&directory)
        .args(words("stat -q -- ./here"));
    finish(&mut command).exits(0).silently();
    let mut command = poise();
    command
        .current_dir(&directory)
        .env("PATH", "/missing::/bin");
    finish(command.args(words("stat -q -- here")))
        .exits(0)
        .silently();
}

#[test]
fn a_command_may_close_its_descriptors() {
    let text = "exec 0<&- 1>&- 2>&-; exit 3";
    run(["stat", "-q", "--", "sh", "-c", text])
        .exits(3)
        .silently();
    run(["stat", "-q", "-r", "2", "--", "sh", "-c", text]).exits(3);
    let daemon = "exec 0<&- 1>&- 2>&-; sleep 0.1";
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("stat -q -r 2 -o")).arg(&file);
    finish(command.args(["--", "sh", "-c", daemon])).exits(0);
    for sample in samples(&whole_records(&file)) {
        // It was waited for although its output had ended.
        assert!(crate::common::exact(sample, "sec/op") >= 0.1);
    }
}

#[test]
fn processes_left_behind_are_told() {
    let directory = scratch();
    let file = directory.path().join("f");
    let text = "sleep 1000 & echo $! > $0.other";
    for options in ["-e dummy", "-e dummy -r 1 --output null"] {
        let ran = script(options, text, &file).wait().exits(0);
        let left = Descendant::told_in(&file.with_extension("other"));
        let all = ran.stdout.clone() + &ran.stderr;
        assert!(all.contains("it left processes behind"), "{ran:#?}");
        assert!(!left.is_gone(), "what a command leaves is its own matter");
    }
}

#[test]
fn what_never_ends_is_ended_by_timeout() {
    let directory = scratch();
    let file = directory.path().join("f");
    for options in ["--timeout 200 -e dummy", "--timeout 0.2s -e dummy -r 2"] {
        let ran = script(options, ENDLESS_FAMILY, &file).wait().exits(124);
        let all = ran.stdout + &ran.stderr;
        assert!(all.contains("longer than --timeout"), "{all}");
        assert!(
            !all.contains("left processes behind"),
            "they are ended, too: {all}"
        );
        Descendant::told_in(&file.with_extension("child")).must_go();
        Descendant::told_in(&file.with_extension("other")).must_go();
    }
    // What does not heed SIGTERM is killed.
    let text = "trap '' TERM; echo $$ > $0.child; while :; do sleep 0.05; done";
    script("-q --timeout 50", text, &file).wait().exits(124);
    Descendant::told_in(&file.with_extension("child")).must_go();
}

/// Starts measuring what never ends, and stops us with `signal` once it runs.
fn stopped(options: &str, text: &str, signal: Signal, file: &Path) -> (Ran, Vec<Descendant>) {
    for kind in ["child", "other"] {
        let _ = fs::remove_file(file.with_extension(kind));
    }
    let running = script(options, text, file);
    let mut family = vec![Descendant::told_in(&file.with_extension("child"))];
    if text.contains("$0.other") {
        family.push(Descendant::told_in(&file.with_extension("other")));
    }
    running.signal(signal);
    (running.wait().exits(128 + signal as i32), family)
}

#[test]
fn a_stop_ends_the_whole_group_and_keeps_what_was_measured() {
    let directory = scratch();
    let file = directory.path().join("f");
    let records = directory.path().join("records");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        for how in ["", "--output null", "-r 3", "-r 3 --output inherit"] {
            let options = format!("{how} -e dummy -o {}", records.display());
            let (ran, family) = stopped(&options, ENDLESS_FAMILY, signal, &file);
            family.into_iter().for_each(Descendant::must_go);
            let (records, whole) = read_records(&records);
            assert!(!whole, "what was cut short has no end");
            assert!(matches!(
                records[0],
                counterpoise::sample::Record::Header(_)
            ));
            // A single run is a sample as far as it went; one of several is not comparable.
            let single = !how.contains("-r 3");
            assert_eq!(samples(&records).len(), usize::from(single), "{how}");
            let all = ran.stdout + &ran.stderr;
            assert_eq!(all.contains("cut short by SIG"), single, "{all}");
        }
    }
}

#[test]
fn a_command_that_ignores_the_stop_is_killed() {
    let directory = scratch();
    let file = directory.path().join("f");
    let text = "trap '' INT; echo $$ > $0.child; while :; do sleep 0.05; done";
    let (_, family) = stopped("-q", text, Signal::SIGINT, &file);
    family.into_iter().for_each(Descendant::must_go);
}

#[test]
fn a_stop_between_many_runs_keeps_the_samples() {
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command
        .args(words("stat -r 1000000 -e dummy -o"))
        .arg(&file);
    let running = Running::start(command.args(["--", "true"]));
    let enough = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text.matches(r#""record":"sample""#).count() >= 5).then_some(())
    };
    eventually("some samples", enough);
    running.signal(Signal::SIGINT);
    let ran = running.wait().exits(130);
    let (records, whole) = read_records(&file);
    assert!(!whole);
    let kept = samples(&records).len();
    ran.shows(&[&format!("true ({kept} runs)")]);
}

#[test]
fn a_stop_is_heeded_while_a_preparation_runs() {
    let directory = scratch();
    let file = directory.path().join("f.child");
    let prepare = format!("echo $$ > {}; exec sleep 1000", file.display());
    for arguments in [["-r", "2"], ["--warmup", "1"]] {
        let _ = fs::remove_file(&file);
        let mut command = poise();
        command
            .arg("stat")
            .args(arguments)
            .args(["--prepare", &prepare]);
        let running = Running::start(command.args(["--", "true"]));
        let preparing = Descendant::told_in(&file);
        running.signal(Signal::SIGINT);
        running.wait().exits(130);
        preparing.must_go();
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let directory = scratch();
    let file = directory.path().join("f");
    let mut command = poise();
    raw::odd_signals(&mut command);
    let text = "echo $$ > $0.child; while [ ! -e $0.go ]; do sleep 0.02; done";
    command
        .args(["stat", "-q", "--", "sh", "-c", text])
        .arg(&file);
    let running = Running::start(&mut command);
    let _child = Descendant::told_in(&file.with_extension("child"));
    running.signal(Signal::SIGHUP);
    fs::write(file.with_extension("go"), "").unwrap();
    running.wait().exits(0).silently();
}

#[test]
fn a_running_command_survives_our_sudden_death_unharmed() {
    let directory = scratch();
    let file = directory.path().join("f");
    let text = "echo $$ > $0.child; while [ ! -e $0.go ]; do sleep 0.02; done; echo > $0.done";
    let running = script("-q", text, &file);
    let child = Descendant::told_in(&file.with_extension("child"));
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, None);
    fs::write(file.with_extension("go"), "").unwrap();
    child.must_go();
    assert!(file.with_extension("done").exists(), "it ran to its end");
}

#[test]
fn no_suspended_child_survives_our_sudden_death() {
    let directory = scratch();
    let program = directory.path().join("poise");
    let original = env!("CARGO_BIN_EXE_poise");
    fs::hard_link(original, &program)
        .or_else(|_| fs::copy(original, &program).map(|_| ()))
        .unwrap();
    let mut command = poise_at(&program);
    command.args(words("stat -e dummy -- true"));
    // Opening a counter on the child kills us: just when the child waits for its release.
    raw::filter_perf_event_open(&mut command, raw::Filter::KillAtAnother);
    let ran = finish(&mut command);
    if ran.code.is_some() {
        return crate::common::not_run("death with a suspended child", format!("{ran:?}"));
    }
    eventually("the end of the suspended child", || {
        let mut processes = procfs::process::all_processes().unwrap().flatten();
        let ours = processes.find(|process| {
            process.exe().is_ok_and(|exe| exe == program)
                && process.stat().is_ok_and(|stat| stat.state != 'Z')
        });
        ours.is_none().then_some(())
    });
}

#[test]
fn endless_commands_end_with_their_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = poise();
    command.args(words("stat -e dummy -- yes"));
    let running = Running::start_with_stdout(&mut command, writer.into());
    // Our own copy of the writing end goes with the command.
    drop(command);
    drop(reader);
    let ran = running.wait().exits(128 + Signal::SIGPIPE as i32);
    ran.says(&["killed by SIGPIPE"]);
}

#[test]
fn an_endless_stopped_run_is_told_only_once() {
    let directory = scratch();
    let file = directory.path().join("f");
    let (ran, family) = stopped("-e dummy -I 20", ENDLESS, Signal::SIGINT, &file);
    family.into_iter().for_each(Descendant::must_go);
    let all = ran.stdout + &ran.stderr;
    assert!(all.contains("dummy/op"), "{all}");
}
