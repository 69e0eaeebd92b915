//! What follows from the kernel's settings: ordinary users at each level of `perf_event_paranoid`, and the doctor's word on the counter instruction.

use std::os::unix::process::CommandExt;
use std::process::Command;

use counterpoise::sample::Figure;

use crate::bed::{self, Run, Setting};

const NOBODY: u32 = 65534;

fn as_ordinary_user(level: &str) -> Run {
    let _level = Setting::set("perf_event_paranoid", level);
    let command = |program| {
        let mut command = Command::new(program);
        // Without its groups, too.
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    let events = "cycles,instructions,page-faults,context-switches";
    bed::poise_by(command, &["stat", "-e", events, "--", "true"])
}

#[test]
fn units_and_causes_follow_the_level() {
    if bed::guest("ordinary users").is_none() {
        return;
    }
    // Debian's own level: nothing at all.
    let run = as_ordinary_user("3");
    for unit in ["cycles/op", "instructions/op", "page-faults/op"] {
        let Figure::Absent { why } = run.figure(unit) else {
            panic!("{unit} in\n{}", run.table)
        };
        assert_eq!(why.why, "kernel.perf_event_paranoid is 3");
        assert!(run.table.contains(&why.to_string()), "{}", run.table);
        assert!(
            why.cure
                .as_ref()
                .unwrap()
                .contains("sysctl kernel.perf_event_paranoid=1")
        );
    }

    // User mode alone, by its name, and said at the top.
    let run = as_ordinary_user("2");
    for event in ["cycles", "instructions", "page-faults"] {
        assert_eq!(
            run.exact(&format!("{event}:u/op")).len(),
            1,
            "{}",
            run.table
        );
        assert!(
            run.figures(&format!("{event}/op")).is_empty(),
            "{}",
            run.table
        );
        let told = ["counted in user mode only", event, "paranoid is 2"];
        let warned = |text: &str| told.iter().all(|part| text.contains(part));
        assert!(run.header.warnings.iter().any(|warning| warned(&warning.0)));
    }
    // User mode sees no switch: a zero would be a lie.
    let switches = run.figure("context-switches/op");
    assert!(matches!(switches, Figure::Absent { .. }), "{switches:?}");

    let run = as_ordinary_user("1");
    for event in ["cycles", "instructions", "page-faults", "context-switches"] {
        assert_eq!(run.exact(&format!("{event}/op")).len(), 1, "{}", run.table);
    }
    assert!(run.header.warnings.is_empty(), "{:?}", run.header.warnings);
    assert!(run.exact("cycles/op")[0] > 0.0);
}

#[test]
fn whoever_called_sudo_counts_as_root_does() {
    if bed::guest("the user who called sudo").is_none() {
        return;
    }
    // Closed to ordinary users altogether, and so is tracefs.
    let _level = Setting::set("perf_event_paranoid", "3");
    let by_sudo = |program| {
        let mut command = Command::new(program);
        let id = NOBODY.to_string();
        command.env("SUDO_UID", &id).env("SUDO_GID", &id);
        command
    };
    let events = "cycles,page-faults,syscalls:sys_enter_write";
    let run = bed::poise_by(by_sudo, &["stat", "-e", events, "--", "echo"]);
    assert!(run.exact("cycles/op")[0] > 0.0 && run.exact("page-faults/op")[0] > 0.0);
    assert_eq!(run.exact("syscalls:sys_enter_write/op"), [1.0]);
    assert_eq!(run.header.machine["user"], "65534 of root");
    let loops = [
        "bench",
        "write",
        "-r",
        "2",
        "-e",
        "syscalls:sys_enter_write",
    ];
    let run = bed::poise_by(by_sudo, &loops);
    assert_eq!(run.exact("syscalls:sys_enter_write/op"), [1.0, 1.0]);
}

#[test]
fn the_doctor_knows_whether_counters_are_read_in_user_space() {
    if bed::guest("the doctor on the counter instruction").is_none() {
        return;
    }
    let rdpmc = |access: &str| {
        let _access = Setting::set("perf_user_access", access);
        let output = Command::new(bed::program()).arg("doctor").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let at = text.find("rdpmc").expect("a finding about rdpmc");
        let lines: Vec<_> = text[at..].lines().take(3).collect();
        lines.join("\n")
    };
    assert!(rdpmc("1").contains("counters can be read without a system call"));
    assert!(rdpmc("0").contains("sysctl kernel.perf_user_access=1"));
}
