//! What a measured command finds: the same as without us.

use std::process::Command;

use crate::common::{Running, finish, poise, run, scratch, words};
use crate::raw;

/// What `text` prints when a plain shell runs it, and when a measured one does.
fn both(text: &str, prepare: impl Fn(&mut Command)) -> [String; 3] {
    let mut plain = Command::new("sh");
    plain
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("COLUMNS");
    plain.env("POISE_NO_HOLD", "1");
    plain.stdin(std::process::Stdio::null());
    raw::default_signals(&mut plain);
    plain.args(["-c", text]);
    prepare(&mut plain);
    let plain = finish(&mut plain).exits(0).stdout;

    let mut once = poise();
    prepare(&mut once);
    once.args(words("stat -q -- sh -c")).arg(text);
    let once = finish(&mut once).exits(0).stdout;

    let directory = scratch();
    let file = directory.path().join("output");
    let mut often = poise();
    prepare(&mut often);
    often.args(words("stat -q -r 2 --output")).arg(&file);
    finish(often.args(["--", "sh", "-c", text]))
        .exits(0)
        .silently();
    let often = std::fs::read_to_string(&file).unwrap();
    [plain, once, often]
}

fn same(text: &str, prepare: impl Fn(&mut Command)) {
    let [plain, once, often] = both(text, prepare);
    assert!(!plain.is_empty());
    assert_eq!(once, plain, "{text}");
    assert_eq!(often, plain.repeat(2), "{text}");
}

#[test]
fn no_descriptor_of_ours() {
    same("ls /proc/self/fd", |_| {});
}

#[test]
fn the_environment() {
    // The shell itself sets `_`.
    same("env | grep -v ^_= | sort", |command| {
        command.env("ODD", "a=b\nc").env("EMPTY", "");
    });
}

#[test]
fn signals() {
    let text = "grep -E '^Sig(Blk|Ign|Cgt)|^ShdPnd' /proc/self/status";
    same(text, |_| {});
    same(text, raw::odd_signals);
}

#[test]
fn limits_and_place() {
    same("cat /proc/self/limits /proc/self/oom_score_adj", |_| {});
    same("umask; pwd; cat /proc/self/cgroup", |command| {
        command.current_dir("/usr");
    });
    same(
        "cat /proc/self/personality; tr -d '\\0' < /proc/self/timerslack_ns 2>/dev/null; echo",
        |_| {},
    );
}

#[test]
fn privileges() {
    let text = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status";
    same(text, |_| {});
}

#[test]
fn priority_and_cpus() {
    same("nice; grep Cpus_allowed_list /proc/self/status", |_| {});
    let text = "nice; grep Cpus_allowed_list /proc/self/status";
    let plain = Command::new("nice")
        .args(["-n", "3", "sh", "-c", text])
        .output();
    let plain = String::from_utf8(plain.unwrap().stdout).unwrap();
    let mut command = Command::new("nice");
    command.args([
        "-n",
        "3",
        env!("CARGO_BIN_EXE_poise"),
        "stat",
        "-q",
        "--",
        "sh",
        "-c",
        text,
    ]);
    assert_eq!(finish(&mut command).exits(0).stdout, plain);
}

#[test]
fn its_own_name() {
    let ran = run(["stat", "-q", "--", "sh", "-c", "echo $0 $#"]).exits(0);
    assert_eq!(ran.stdout, "sh 0\n");
    // Found by $PATH, it still hears the name that was typed.
    let ran = run(words("stat -q -- cat /proc/self/cmdline")).exits(0);
    assert_eq!(ran.stdout, "cat\0/proc/self/cmdline\0");
}

#[test]
fn its_parent_and_group() {
    // It leads a group of its own, which is how it is ended whole.
    let mut command = poise();
    command.args([
        "stat",
        "-q",
        "--",
        "sh",
        "-c",
        "echo $PPID; cut -d' ' -f1,5 /proc/$$/stat",
    ]);
    let running = Running::start(&mut command);
    let pid = running.pid();
    let ran = running.wait().exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], pid.to_string());
    let (own, group) = lines[1].split_once(' ').unwrap();
    assert_eq!(own, group);
}
