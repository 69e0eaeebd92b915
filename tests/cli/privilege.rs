//! With privilege: root by sudo, root proper, and capabilities of the program's file. The measured command has none of it.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::Capability;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{
    Descendant, Ran, Running, counts, eventually, finish, is_root, not_run, poise, poise_at, run,
    words,
};
use crate::raw;

/// A user with few files, and a copy of the program.
pub(crate) const NOBODY: u32 = 65534;

/// Prints what the kernel knows of a command's credentials.
pub(crate) const WHO: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status";

/// Whether we are root; says so when we are not.
pub(crate) fn can(what: &str) -> bool {
    if !is_root() {
        not_run(what, "it needs root");
    }
    is_root()
}

/// Poise as root, as sudo starts it for nobody.
fn by_sudo() -> Command {
    let mut command = poise();
    command
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .env("SUDO_USER", "nobody")
        .env_remove("SUDO_HOME");
    raw::groups(&mut command, &[0, 4]);
    command
}

/// A directory that everybody may use, gone with the value.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// Copies a program in a process of its own: while a file is open for writing in ours, a child
/// forked by another test has it open, too, and nobody can execute it.
fn copy(program: &str, to: &Path) {
    finish(Command::new("cp").arg(program).arg(to)).exits(0);
}

/// A copy of the program with capabilities of its own, run by nobody.
struct Capable {
    directory: TempDir,
    program: PathBuf,
}

impl Capable {
    /// None, with a word about it, where a file cannot have capabilities, or does not give them.
    fn new(what: &str, capabilities: &[Capability]) -> Option<Capable> {
        if !can(what) {
            return None;
        }
        let directory = open_directory();
        let program = directory.path().join("poise");
        copy(env!("CARGO_BIN_EXE_poise"), &program);
        if let Err(error) = raw::set_file_capabilities(&program, capabilities) {
            not_run(what, format!("capabilities of a file: {error}"));
            return None;
        }
        let capable = Capable { directory, program };
        let status = "grep CapPrm /proc/$PPID/status";
        let has = finish(
            capable
                .poise()
                .args(["stat", "-q", "--", "sh", "-c", status]),
        )
        .stdout;
        let useful = capabilities
            .iter()
            .any(|one| capability_set(&has, "CapPrm") & one.bitmask() != 0);
        if !useful {
            not_run(what, "this file system gives no capabilities (nosuid?)");
        }
        useful.then_some(capable)
    }

    /// From a process that has no capabilities, as from a shell.
    fn poise(&self) -> Command {
        let mut command = poise_at(&self.program);
        command.uid(NOBODY).gid(NOBODY).current_dir(&self.directory);
        command
    }
}

/// The set named `key` in a text like /proc/self/status.
#[track_caller]
pub(crate) fn capability_set(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let digits = line.unwrap_or_else(|| panic!("no {key} in {status:?}"));
    u64::from_str_radix(digits.trim_matches([':', '\t']), 16).unwrap()
}

/// What `status` tells of a process that is nobody, called sudo, and may nothing.
#[track_caller]
pub(crate) fn is_nobody(status: &str) {
    let groups = format!("Groups:\t{NOBODY} \n");
    assert!(status.contains(&groups), "{status}");
    may_nothing(status);
}

/// What `status` tells of a process that is nobody and may nothing.
#[track_caller]
fn may_nothing(status: &str) {
    for key in ["Uid", "Gid"] {
        let line = format!("{key}:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n");
        assert!(status.contains(&line), "{status}");
    }
    for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(capability_set(status, key), 0, "{status}");
    }
    assert_eq!(capability_set(status, "CapBnd"), own_bounding_set());
    // So sudo and its kin work in the command.
    assert!(status.contains("NoNewPrivs:\t0\n"), "{status}");
}

fn own_bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    capability_set(&status, "CapBnd")
}

#[test]
fn by_sudo_the_command_is_the_callers_and_has_nothing_of_ours() {
    let what = "a command under sudo";
    if !can(what) {
        return;
    }
    let ran = finish(by_sudo().args(["stat", "--", "sh", "-c", WHO])).exits(0);
    let ran = ran.says(&["commands run as nobody, who called sudo"]);
    is_nobody(&ran.stdout);
    // Whoever prepares and whoever tells the time has nothing either.
    let directory = open_directory();
    let told = directory.path().join("told");
    let prepare = format!("{WHO} >{}", told.display());
    finish(by_sudo().args(["stat", "-q", "--prepare", &prepare, "--", "true"])).exits(0);
    is_nobody(&fs::read_to_string(&told).unwrap());
    let own = std::process::id().to_string();
    let timer = [
        "stat", "-q", "-e", "dummy", "-p", &own, "--", "sh", "-c", WHO,
    ];
    is_nobody(&finish(by_sudo().args(timer)).exits(0).stdout);
    let output = directory.path().join("output");
    let mut often = by_sudo();
    often.args(words("stat -q -r 3 --output")).arg(&output);
    finish(often.args(["--", "cat", "/proc/self/status"])).exits(0);
    let thrice = fs::read_to_string(&output).unwrap();
    let each: Vec<&str> = thrice.split("Name:").skip(1).collect();
    assert_eq!(each.len(), 3);
    each.into_iter().for_each(is_nobody);
}

#[test]
fn by_sudo_it_finds_the_callers_home() {
    let what = "the environment under sudo";
    if !can(what) {
        return;
    }
    let text = "echo $HOME $USER $LOGNAME";
    let check = |home: Option<&str>, want: &str| {
        let mut command = by_sudo();
        command.env("HOME", "/root").env("USER", "root");
        command.envs(home.map(|home| ("SUDO_HOME", home)));
        let ran = finish(command.args(["stat", "-q", "--", "sh", "-c", text]));
        assert_eq!(ran.exits(0).stdout, want);
    };
    check(Some("/away"), "/away nobody nobody\n");
    match nix::unistd::User::from_uid(NOBODY.into()).unwrap() {
        None => not_run(what, "there is no user nobody"),
        Some(user) => check(None, &format!("{} nobody nobody\n", user.dir.display())),
    }
}

#[test]
fn by_sudo_the_kernel_is_counted() {
    let what = "counting under sudo";
    if !can(what) || !counts(what, "minor-faults") {
        return;
    }
    let ran = finish(by_sudo().args(words("stat -q --json -e minor-faults -- true"))).exits(0);
    ran.shows(&[
        r#""unit":"minor-faults/op","value":"#,
        r#""user":"65534 of root""#,
    ]);
    // The process of a loop is ours and counts, too.
    let ran = finish(by_sudo().args(words("bench getppid -r 2 --json -e page-faults"))).exits(0);
    let ran = ran.says(&["commands run as nobody"]);
    ran.shows(&[r#""unit":"page-faults/op","value":"#, r#""trust":"exact""#]);
    // So do a process of somebody else and the whole machine.
    let own = std::process::id();
    for subject in [format!("-p {own}"), "-a".to_owned()] {
        let line = format!("stat -q -e minor-faults {subject} --timeout 5");
        finish(by_sudo().args(words(&line))).exits(0);
    }
}

#[test]
fn the_process_of_a_loop_hands_nothing_on() {
    let what = "the process of a loop under sudo";
    if !can(what) {
        return;
    }
    let children = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    if let Err(error) = fs::metadata(children) {
        return not_run(what, format!("the kernel names no children: {error}"));
    }
    let mut command = by_sudo();
    command.args(words("bench spin -r 1000000 -q"));
    let running = Running::start(&mut command);
    let status = eventually("the process of a loop", || {
        let pid = running.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let child = children.split_whitespace().next()?;
        let status = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        // It has just been executed, or not even that.
        let settled = capability_set(&status, "CapAmb") == 0
            && capability_set(&status, "CapEff") != capability_set(&status, "CapPrm")
            && capability_set(&status, "CapPrm") & Capability::CAP_SETUID.bitmask() == 0;
        settled.then_some(status)
    });
    assert_eq!(capability_set(&status, "CapInh"), 0, "{status}");
    running.signal(Signal::SIGINT);
    running.wait().exits(130);
}

#[test]
fn by_sudo_files_are_the_callers() {
    let what = "files under sudo";
    if !can(what) {
        return;
    }
    let directory = open_directory();
    let path = |name: &str| directory.path().join(name);
    let stat = |options: &[&str], file: &Path| {
        let mut command = by_sudo();
        command.args(["stat", "-q"]).args(options).arg(file);
        finish(command.args(["--", "true"]))
    };
    let (records, output, log) = (path("records"), path("output"), path("log"));
    stat(&["-o"], &records).exits(0);
    stat(&["--append", "-o"], &records).exits(0);
    stat(&["--output"], &output).exits(0);
    let mut bench = by_sudo();
    bench
        .args(words("bench getppid -q -r 2 --latency --hdr-log"))
        .arg(&log);
    finish(&mut bench).exits(0);
    for file in [&records, &output, &log] {
        let about = fs::metadata(file).unwrap();
        assert_eq!((about.uid(), about.gid()), (NOBODY, NOBODY), "{file:?}");
    }
    // What nobody may not write stays as it is, also behind a link, and so does what it may not
    // read.
    let (closed, link, new) = (path("closed"), path("link"), path("new"));
    fs::write(&closed, "old").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&closed, &link).unwrap();
    fs::create_dir(&new).unwrap();
    for file in [&closed, &link, &new.join("file")] {
        for options in [&["-o"][..], &["--append", "-o"], &["--output"]] {
            stat(options, file).refuses(1, &["Permission denied"]);
        }
        let mut bench = by_sudo();
        bench
            .args(words("bench getppid -q -r 1 --latency --hdr-log"))
            .arg(file);
        finish(&mut bench).exits(1).says(&["Permission denied"]);
        finish(by_sudo().args(["stat", "--input"]).arg(file)).exits(1);
    }
    assert_eq!(fs::read_to_string(&closed).unwrap(), "old");
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
}

#[test]
fn root_stays_root_when_it_says_so() {
    let what = "a command of root";
    if !can(what) {
        return;
    }
    let is_root = |ran: Ran| {
        let status = ran.exits(0).stdout;
        assert!(status.contains("Uid:\t0\t0\t0\t0\n"), "{status}");
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(capability_set(&status, key), own_bounding_set(), "{status}");
        }
    };
    is_root(finish(by_sudo().args([
        "stat",
        "-q",
        "--as-root",
        "--",
        "sh",
        "-c",
        WHO,
    ])));
    is_root(run(["stat", "-q", "--as-root", "--", "sh", "-c", WHO]));
    is_root(run(["stat", "-q", "--", "sh", "-c", WHO]));
    is_root(finish(
        by_sudo()
            .env("SUDO_UID", "0")
            .args(["stat", "-q", "--", "sh", "-c", WHO]),
    ));
    let ran = finish(by_sudo().args(words("bench getppid -r 2 --as-root --json"))).exits(0);
    assert_eq!(ran.stderr, "");
    ran.shows(&[r#""user":"0""#]);
    // Of poise itself no more is awake than it uses.
    let own = "grep ^CapEff /proc/$PPID/status";
    let ran = run(["stat", "-q", "--", "sh", "-c", own]).exits(0);
    let needed = [
        Capability::CAP_PERFMON,
        Capability::CAP_BPF,
        Capability::CAP_SYS_NICE,
        Capability::CAP_KILL,
        Capability::CAP_IPC_LOCK,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_DAC_OVERRIDE,
        // Where CAP_PERFMON does not do.
        Capability::CAP_SYS_ADMIN,
    ];
    let needed: u64 = needed.iter().map(|one| one.bitmask()).sum();
    assert_eq!(
        capability_set(&ran.stdout, "CapEff") & !needed,
        0,
        "{ran:?}"
    );
}

#[test]
fn as_root_is_for_root() {
    let what = "--as-root without root";
    let Some(capable) = Capable::new(what, &[Capability::CAP_PERFMON]) else {
        return;
    };
    for line in ["stat --as-root -- true", "bench getppid --as-root"] {
        let ran = finish(capable.poise().args(words(line)));
        ran.refuses(2, &["--as-root is for root", "sudo"]);
    }
    let forged = || {
        let mut command = capable.poise();
        command.env("SUDO_UID", "1").env("SUDO_GID", "1");
        command
    };
    let ran = finish(forged().args(["stat", "-q", "--", "sh", "-c", WHO])).exits(0);
    may_nothing(&ran.stdout);
}

#[test]
fn whoever_called_sudo_must_be_known() {
    let what = "SUDO_UID of nobody";
    if !can(what) {
        return;
    }
    for (uid, gid) in [("4294967295", "0"), ("nobody", "0"), ("65534", "")] {
        let sudo = || {
            let mut command = by_sudo();
            command.env("SUDO_UID", uid).env("SUDO_GID", gid);
            command
        };
        for line in ["stat -- true", "bench getppid"] {
            finish(sudo().args(words(line))).refuses(2, &["SUDO_UID", "--as-root"]);
        }
        finish(sudo().args(words("doctor")))
            .exits(0)
            .shows(&["SUDO_UID"]);
    }
    // What measures nothing takes nobody's place: `sudo make install` writes manual pages.
    let directory = tempfile::tempdir().unwrap();
    finish(by_sudo().arg("man").arg(directory.path())).exits(0);
    let ran = finish(by_sudo().arg("doctor")).exits(0);
    ran.shows(&["commands run as nobody, who called sudo"]);
    run(["doctor"]).shows(&["commands run as root"]);
}

#[test]
fn capabilities_of_the_file_count_and_stay_with_us() {
    let what = "capabilities of the program's file";
    let given = [
        Capability::CAP_PERFMON,
        Capability::CAP_SYS_NICE,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_SYS_ADMIN,
        // Not for us.
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_SETUID,
    ];
    let Some(capable) = Capable::new(what, &given) else {
        return;
    };
    let go = |arguments: &[&str]| finish(capable.poise().args(arguments)).exits(0);
    let ran = go(&["stat", "-q", "--", "sh", "-c", WHO]);
    may_nothing(&ran.stdout);
    let own = "grep ^Cap /proc/$PPID/status";
    let ran = go(&["stat", "-q", "--", "sh", "-c", own]);
    let set = |all: &[Capability]| all.iter().map(|one| one.bitmask()).sum::<u64>();
    assert_eq!(capability_set(&ran.stdout, "CapPrm"), set(&given[..5]));
    // What has power over files and processes sleeps.
    assert_eq!(capability_set(&ran.stdout, "CapEff"), set(&given[..2]));
    assert_eq!(capability_set(&ran.stdout, "CapInh"), 0);
    let closed = capable.directory.path().join("closed");
    fs::write(&closed, "").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    for file in [closed.as_os_str(), "/proc/1/maps".as_ref()] {
        let ran = finish(capable.poise().args(["stat", "--input"]).arg(file));
        ran.refuses(1, &["Permission denied"]);
        let ran = finish(
            capable
                .poise()
                .args(["stat", "-q", "-o"])
                .arg(file)
                .arg("true"),
        );
        ran.refuses(1, &["Permission denied"]);
    }
    go(&["doctor"]).shows(&["without the capabilities of poise"]);
    if !counts(what, "minor-faults") {
        return;
    }
    let ran = go(&["stat", "-q", "--json", "-e", "minor-faults", "--", "true"]);
    ran.shows(&[r#""unit":"minor-faults/op","value":"#, r#""aslr":""#]);
    let ran = go(&[
        "bench",
        "getppid",
        "-r",
        "2",
        "-q",
        "--json",
        "-e",
        "page-faults",
    ]);
    ran.shows(&[r#""unit":"page-faults/op","value":"#]);
    let own = std::process::id().to_string();
    for subject in [&["-a"][..], &["-p", &own]] {
        let stat = ["stat", "-q", "-e", "minor-faults", "--timeout", "5"];
        go(&[&stat, subject].concat());
    }
}

#[test]
fn the_keepers_verb_lends_nobody_what_the_file_has() {
    let what = "the keeper's verb with capabilities of the program's file";
    let Some(capable) = Capable::new(what, &[Capability::CAP_DAC_READ_SEARCH]) else {
        return;
    };
    // A machine and a journal that a user has made up, with a setting that is a closed file.
    let path = |name: &str| capable.directory.path().join(name);
    let (closed, settings) = (path("closed"), path("sys/devices/system/cpu"));
    fs::write(&closed, "secret").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(&settings).unwrap();
    symlink(&closed, settings.join("setting")).unwrap();
    fs::create_dir(path("run")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let journal = format!(
        r#"{{"boot":"{}","holder":1,"since":"","settings":[{{"path":"devices/system/cpu/setting","old":"a","wanted":"b","now":"c"}}]}}"#,
        boot.trim()
    );
    fs::write(path("run/journal"), journal).unwrap();
    chown(path("run"), Some(NOBODY), Some(NOBODY)).unwrap();
    let roots = format!(
        r#"{{"proc":"/proc","sys":"{}","run":"{}"}}"#,
        path("sys").display(),
        path("run").display()
    );
    let (mut ours, its) = UnixStream::pair().unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut keeper = capable.poise();
    finish(keeper.args(["__keep", &roots]).stdin(OwnedFd::from(its))).exits(0);
    // With its copy of the socket.
    drop(keeper);
    let mut told = String::new();
    ours.read_to_string(&mut told).unwrap();
    assert!(told.contains("Permission denied"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn a_few_capabilities_take_nothing_away() {
    let what = "a capability that is none of perf's";
    let Some(capable) = Capable::new(what, &[Capability::CAP_SYS_NICE]) else {
        return;
    };
    if !counts(what, "minor-faults:u") {
        return;
    }
    // Executed by a process without capabilities, not by root that gives them up, the program is
    // not dumpable at first, and its child would be closed to it.
    let shell = |script: &str| {
        let mut command = poise_at("/bin/sh".as_ref());
        command.uid(NOBODY).gid(NOBODY).arg("-c").arg(script);
        command.env("LD_LIBRARY_PATH", "/odd").env("TMPDIR", "/tmp");
        finish(&mut command).exits(0)
    };
    let program = capable.program.display();
    let ran = shell(&format!(
        "{program} stat --json -q -e minor-faults:u -- true"
    ));
    ran.shows(&[r#""unit":"minor-faults:u/op","value":"#, r#""aslr":""#]);
    // What the C library takes out of our environment is in the command's.
    let script = "'echo $LD_LIBRARY_PATH $TMPDIR'";
    let ran = shell(&format!("{program} stat -q -- sh -c {script}"));
    assert_eq!(ran.stdout, "/odd /tmp\n");
}

#[test]
fn a_set_user_id_program_is_its_callers() {
    let what = "a set-user-ID poise";
    if !can(what) {
        return;
    }
    let directory = open_directory();
    let program = directory.path().join("poise");
    copy(env!("CARGO_BIN_EXE_poise"), &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let mut command = poise_at(&program);
    command.uid(NOBODY).gid(NOBODY);
    let line = format!("{WHO}; grep -E '^(Uid|Gid)' /proc/$PPID/status");
    let ran = finish(command.args(["stat", "-q", "--", "sh", "-c", &line])).exits(0);
    may_nothing(&ran.stdout);
    assert!(!ran.stdout.contains("\t0\t"), "{ran:#?}");
}

#[test]
fn nobody_takes_hold_of_us() {
    let what = "another process of the same user";
    if !can(what) {
        return;
    }
    let directory = open_directory();
    let told = directory.path().join("pid");
    let script = format!(
        "echo $PPID >{0}.new; mv {0}.new {0}; sleep 1000",
        told.display()
    );
    let mut command = by_sudo();
    command.args(["stat", "-q", "--", "sh", "-c", &script]);
    let running = Running::start(&mut command);
    let poise = Descendant::told_in(&told);
    let pid = running.pid();
    let as_nobody = |script: &str| {
        let mut command = Command::new("sh");
        finish(command.uid(NOBODY).gid(NOBODY).args(["-c", script]))
    };
    for file in ["mem", "maps", "environ", "personality", "auxv", "stack"] {
        let ran = as_nobody(&format!("head -c 1 /proc/{pid}/{file}"));
        assert!(
            ran.code != Some(0) && ran.stdout.is_empty(),
            "{file}: {ran:?}"
        );
    }
    for entry in ["exe", "cwd", "fd/0", "ns/mnt"] {
        let ran = as_nobody(&format!("readlink /proc/{pid}/{entry}"));
        assert!(ran.code != Some(0), "{entry}: {ran:?}");
    }
    // It is the user's process all the same.
    as_nobody(&format!("kill -INT {pid}")).exits(0);
    running.wait().exits(130);
    poise.must_go();
}

#[test]
fn what_became_root_is_ended_all_the_same() {
    let what = "ending a command that became root";
    if !can(what) {
        return;
    }
    let directory = open_directory();
    let sleep = directory.path().join("sleep");
    copy("/bin/sleep", &sleep);
    fs::set_permissions(&sleep, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = by_sudo();
    command.args(words("stat -q --timeout 300 --")).arg(&sleep);
    finish(command.arg("1000")).exits(124);
}
