//! `poise syscalls`: exact counts and right times of programs that are known, whatever they do, and nothing left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use counterpoise::sample::Sample;
use nix::sys::signal::Signal;

use crate::common::{
    Running, eventually, exact, finish, is_root, measure, not_run, poise, run, samples, scratch,
    whole_records, words,
};

/// The programs of `syscalls.c`, compiled once; none, with a word about it, without a C compiler
/// or where syscalls cannot be traced.
pub(crate) fn tracee(what: &str) -> Option<&'static Path> {
    static COMPILED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let ran = run(words("syscalls --quiet -- true"));
        if ran.code != Some(0) {
            return Err(ran.stderr.trim().to_owned());
        }
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("syscalls");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/syscalls.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O1", "-pthread", "-fno-omit-frame-pointer", "-o"])
            .arg(&program)
            .arg(source);
        match compiler.output() {
            Ok(output) if output.status.success() => Ok(program),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("no C compiler: {error}")),
        }
    });
    match compiled {
        Ok(program) => Some(program),
        Err(why) => {
            not_run(what, why);
            None
        }
    }
}

/// The samples of a profile, by syscall.
pub(crate) struct Profile(pub(crate) Vec<Sample>);

impl Profile {
    pub(crate) fn of(options: &str, program: &Path, what: &str) -> Profile {
        let program = program.to_str().unwrap();
        let line = format!("syscalls {options} -- {program} {what}");
        Profile(measure(words(&line)))
    }

    fn find(&self, name: &str) -> Option<&Sample> {
        let full = format!("Syscall/name={name}");
        self.0
            .iter()
            .find(|sample| sample.benchmark.to_string() == full)
    }

    #[track_caller]
    pub(crate) fn call(&self, name: &str) -> &Sample {
        let found = self.find(name);
        found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    /// The calls of `name` by part, the parts by their names.
    pub(crate) fn parts(&self, by: &str, name: &str) -> BTreeMap<String, u64> {
        let named = ("name".to_owned(), name.to_owned());
        let parts = self.0.iter().filter_map(|sample| {
            let parameters = sample.benchmark.parameters();
            let (_, part) = parameters.iter().find(|(key, _)| key == by)?;
            let calls = exact(sample, "calls") as u64;
            parameters.contains(&named).then(|| (part.clone(), calls))
        });
        parts.collect()
    }

    #[track_caller]
    pub(crate) fn count(&self, name: &str) -> u64 {
        exact(self.call(name), "calls") as u64
    }
}

#[test]
fn calls_of_processes_threads_and_new_programs_are_counted_to_the_call() {
    let Some(program) = tracee("exact counts of syscalls") else {
        return;
    };
    for options in ["", "--count"] {
        let profile = Profile::of(options, program, "family");
        let check =
            |name: &str, want: u64| assert_eq!(profile.count(name), want, "{name} {options}");
        check("getppid", 3000);
        check("getuid", 2000);
        check("getgid", 60);
        // The first one is the launcher's.
        check("execve", 5);
        check("fchdir", 5);
        check("vfork", 1);
        if options.is_empty() {
            let errors = |name: &str, unit: &str| exact(profile.call(name), unit);
            assert_eq!(errors("execve", "errors:ENOENT"), 3.0);
            assert_eq!(errors("fchdir", "errors:EBADF"), 5.0);
            assert_eq!(errors("getppid", "errors"), 0.0);
            // 1 + 3 children, 4 threads, 2 children that execute.
            assert_eq!(exact(profile.call("exit_group"), "unfinished-calls"), 6.0);
            let whole = &profile.0[0];
            assert_eq!(exact(whole, "threads"), 10.0);
            assert_eq!(whole.warnings, []);
            let names = profile.0.iter().skip(1);
            let sum: f64 = names.map(|sample| exact(sample, "calls")).sum();
            assert_eq!(exact(whole, "calls"), sum);
        }
    }
}

#[test]
fn a_thread_that_executes_keeps_its_place() {
    let Some(program) = tracee("exec by a thread") else {
        return;
    };
    let profile = Profile::of("", program, "thread-exec");
    assert_eq!(profile.count("getuid"), 50);
    assert_eq!(profile.count("getgid"), 30);
    let execve = profile.call("execve");
    assert_eq!(exact(execve, "calls"), 1.0);
    assert!(execve.figure("unfinished-calls").is_none(), "{execve:#?}");
    // The leader was in it when its process became another.
    assert_eq!(profile.count("pause"), 1);
}

#[test]
fn signals_are_neither_errors_nor_lost() {
    let Some(program) = tracee("signals") else {
        return;
    };
    let profile = Profile::of("", program, "signals");
    assert_eq!(profile.count("kill"), 100);
    let returns = profile.call("rt_sigreturn");
    assert_eq!(exact(returns, "calls"), 110.0);
    assert_eq!(exact(returns, "errors"), 0.0);
    let sleeps = profile.call("nanosleep");
    assert_eq!(exact(sleeps, "calls"), 10.0);
    assert_eq!(exact(sleeps, "errors:ERESTART_RESTARTBLOCK"), 10.0);
}

#[test]
fn counts_are_those_of_strace() {
    let Some(program) = tracee("counts beside strace") else {
        return;
    };
    let directory = scratch();
    let table = directory.path().join("strace");
    let strace = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .arg(program)
        .arg("family")
        .output();
    match strace {
        Ok(output) if output.status.success() => {}
        other => return not_run("counts beside strace", format!("no strace: {other:?}")),
    }
    let profile = Profile::of("", program, "family");
    let mut theirs: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in fs::read_to_string(&table).unwrap().lines() {
        // % time, seconds, usecs/call, calls, [errors,] syscall
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |n: usize| fields.get(n).and_then(|field| field.parse().ok());
        if let (Some(calls), Some(name)) = (number(3), fields.last()) {
            let errors = if fields.len() == 6 {
                number(4)
            } else {
                Some(0)
            };
            theirs.insert((*name).to_owned(), (calls, errors.unwrap_or(0)));
        }
    }
    theirs.remove("total");
    assert!(theirs.len() > 10, "{theirs:?}");
    // How threads and children meet differs from run to run.
    for racing in [
        "futex", "wait4", "madvise", "mprotect", "munmap", "brk", "mmap",
    ] {
        theirs.remove(racing);
    }
    for (name, (calls, errors)) in theirs {
        // Of the command's own execve it counts the one that the launcher makes.
        let launcher = u64::from(name == "execve");
        let ours = profile.call(&name);
        let ended = ours
            .figure("unfinished-calls")
            .map_or(0.0, |f| f.number().unwrap());
        let returned = exact(ours, "calls") - ended;
        assert_eq!(returned as u64 + launcher, calls, "{name}");
        assert_eq!(exact(ours, "errors") as u64, errors, "errors of {name}");
    }
}

/// The profile of a program that says something of itself in ns, and that in seconds.
fn beside_its_own(program: &Path, what: &str) -> (Profile, f64) {
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("syscalls -q -o")).arg(&file);
    command.arg("--").arg(program).arg(what);
    let ran = finish(&mut command).exits(0);
    let own_ns: f64 = ran.stdout.trim().parse().unwrap();
    let records = whole_records(&file);
    let profile = Profile(samples(&records).into_iter().cloned().collect());
    (profile, own_ns / 1e9)
}

#[test]
fn percentiles_are_right_within_a_bucket() {
    let Some(program) = tracee("percentiles of known delays") else {
        return;
    };
    for (what, call) in [("sleeps", "nanosleep"), ("pipe", "read")] {
        let (profile, own) = beside_its_own(program, what);
        let figure = profile.call(call).figure("p50-sec").unwrap();
        assert_eq!(figure.trust(), "estimated");
        let ours = figure.number().unwrap();
        let is_right = (ours - own).abs() <= own * 0.125;
        assert!(is_right, "{what}: {ours} s, by its own clock {own} s");
    }
}

#[test]
fn waiting_is_told_from_working() {
    let Some(program) = tracee("time off the CPU") else {
        return;
    };
    let (profile, _) = beside_its_own(program, "sleeps");
    let sleeps = profile.call("nanosleep");
    let (total, off) = (exact(sleeps, "total-sec"), exact(sleeps, "off-CPU-sec"));
    assert!(off > 0.9 * total && off <= total, "{off} of {total}");
    let whole = &profile.0[0];
    assert!(exact(whole, "sec/op") >= total, "{whole:#?}");
}

#[test]
fn running_processes_are_followed_with_their_threads() {
    let Some(program) = tracee("syscalls of a running process") else {
        return;
    };
    let directory = scratch();
    let file = directory.path().join("records");
    let mut subject = Command::new(program)
        .arg("wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(subject.stdout.take().unwrap());
    lines.read_line(&mut said).unwrap();
    let mut command = poise();
    command
        .args(words("syscalls -q -p"))
        .arg(subject.id().to_string());
    let watcher = Running::start(command.arg("-o").arg(&file));
    // Its programs are there once its links are.
    eventually("programs on the tracepoints", || {
        (links_of(watcher.pid().as_raw()) >= 6).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    subject.stdin.take().unwrap().write_all(b"x").unwrap();
    subject.wait().unwrap();
    watcher.wait().exits(0).silently();
    let records = whole_records(&file);
    let profile = Profile(samples(&records).into_iter().cloned().collect());
    assert_eq!(profile.count("getppid"), 700);
    assert_eq!(profile.count("getuid"), 500);
    // It was in it when we came.
    assert!(profile.find("read").is_none(), "{:#?}", profile.0);
}

/// Links to programs among the open descriptors of a process.
fn links_of(pid: i32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let targets = descriptors.into_iter().flatten().flatten();
    let targets = targets.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains("bpf_link"))
        .count()
}

/// The numbers of the programs in the kernel that are like ours; none where nobody tells.
fn programs() -> Option<BTreeSet<String>> {
    let output = Command::new("bpftool")
        .args(["prog", "show"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // 12: tracing  name enter  tag 2f9cd2dc2e9a9cfa  gpl
    let ours = [
        "enter",
        "finish",
        "on_switch",
        "on_fork",
        "on_exec",
        "on_exit",
        "on_task",
    ];
    let ids = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let id = fields.next()?.strip_suffix(':')?;
        let name = fields.skip_while(|field| *field != "name").nth(1)?;
        ours.contains(&name).then(|| id.to_owned())
    });
    output.status.success().then(|| ids.collect())
}

#[test]
fn killed_at_any_moment_it_leaves_no_program_behind() {
    const WHAT: &str = "programs left behind by kill -9";
    let Some(program) = tracee(WHAT) else {
        return;
    };
    if programs().is_none() {
        return not_run(WHAT, "bpftool shows no programs");
    }
    let mut seen = BTreeSet::new();
    for n in 0..12 {
        let mut command = poise();
        command
            .args(words("syscalls -q --"))
            .arg(program)
            .arg("sleeps");
        let running = Running::start(&mut command);
        std::thread::sleep(Duration::from_millis(n * 30));
        seen.extend(programs().unwrap());
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().code, None);
    }
    assert!(!seen.is_empty());
    // Those of other tests go, too.
    eventually("the end of all programs that were seen", || {
        let left = programs().unwrap();
        left.is_disjoint(&seen).then_some(())
    });
}

#[test]
fn calls_that_never_return_are_told() {
    let Some(program) = tracee("unfinished calls") else {
        return;
    };
    let profile = Profile::of("", program, "unfinished");
    let read = profile.call("read");
    assert_eq!(exact(read, "unfinished-calls"), 1.0, "{read:#?}");
}

#[test]
fn every_rung_counts_the_same() {
    let Some(program) = tracee("rungs") else {
        return;
    };
    let directory = scratch();
    for rung in ["counters", "ptrace"] {
        let file = directory.path().join(rung);
        let mut command = poise();
        command
            .args(words("syscalls -q --rung"))
            .arg(rung)
            .arg("-o")
            .arg(&file);
        let ran = finish(command.arg("--").arg(program).arg("family"));
        if ran.code == Some(5) {
            not_run(&format!("syscalls by {rung}"), ran.stderr.trim());
            continue;
        }
        ran.exits(0).silently();
        let records = whole_records(&file);
        let profile = Profile(samples(&records).into_iter().cloned().collect());
        for (name, want) in [
            ("getppid", 3000),
            ("getuid", 2000),
            ("getgid", 60),
            ("execve", 5),
            ("fchdir", 5),
            ("vfork", 1),
            ("exit_group", 6),
        ] {
            assert_eq!(profile.count(name), want, "{name} by {rung}");
        }
        let whole = &profile.0[0];
        assert_eq!(whole.config["rung"], rung);
        assert!(
            !whole.warnings.is_empty(),
            "{rung} does not say what it cannot see"
        );
        if rung == "ptrace" {
            let trust = |unit| profile.call("getppid").figure(unit).unwrap().trust();
            assert_eq!(
                (trust("sec/op"), trust("p50-sec")),
                ("estimated", "estimated")
            );
            assert_eq!(exact(profile.call("fchdir"), "errors:EBADF"), 5.0);
        }
    }
}

#[test]
fn an_ordinary_user_gets_a_profile_and_the_reason_for_no_better_one() {
    const WHAT: &str = "syscalls as an ordinary user";
    let Some(program) = tracee(WHAT) else {
        return;
    };
    if !is_root() {
        return not_run(WHAT, "it takes root to become somebody else");
    }
    let mut command = Command::new("setpriv");
    command.args(words("--reuid 65534 --regid 65534 --clear-groups"));
    command
        .arg(poise().get_program())
        .args(words("syscalls --"))
        .arg(program)
        .arg("leaf");
    let ran = finish(&mut command);
    if ran.code == Some(126) || ran.code == Some(127) {
        return not_run(WHAT, ran.stderr.trim());
    }
    ran.exits(0).says(&[
        "getgid",
        "30",
        "bpf could not be had",
        "CAP_BPF",
        "sudo poise",
    ]);
}

#[test]
fn slices_tell_of_the_whole() {
    let Some(program) = tracee("--duty") else {
        return;
    };
    let profile = Profile::of("--duty 20% --seed 3", program, "busy");
    let calls = profile.call("getppid").figure("calls").unwrap();
    assert_eq!(calls.trust(), "sampled");
    let calls = calls.number().unwrap();
    // By the tare, and on a machine that others use.
    assert!((1.5e6..6e6).contains(&calls), "{calls} of 3 million");
    let bound = |unit| profile.0[0].figure(unit).unwrap().number().unwrap();
    assert!(bound("calls-low") < bound("calls-high"));
    let whole = &profile.0[0];
    assert!(
        exact(whole, "traced-sec") < 0.4 * exact(whole, "sec/op"),
        "{whole:#?}"
    );
    // What a call waits between two slices is nothing of the next call that is seen.
    let script = format!("exec {} sleeps >/dev/null", program.display());
    let mut command = words("syscalls --duty 30% --seed 3 -- sh -c");
    command.push(&script);
    let profile = Profile(measure(command));
    let sleeps = profile.call("nanosleep");
    let figure = |unit| sleeps.figure(unit).unwrap().number().unwrap();
    let (off, total) = (figure("off-CPU-sec"), figure("total-sec"));
    assert!(0.0 < off && off < total, "{off} of {total} s");
}

#[test]
fn slow_calls_are_told_one_by_one() {
    let Some(program) = tracee("--slow") else {
        return;
    };
    let program = program.to_str().unwrap();
    let line = format!("syscalls --slow 2ms --hist nanosleep --errors -I 200 -- {program} sleeps");
    let ran = run(words(&line)).exits(0);
    let slow = ran
        .stderr
        .lines()
        .filter(|line| line.contains("  nanosleep(0x"));
    assert_eq!(slow.count(), 20, "{ran:#?}");
    ran.says(&[
        "and 180 more",
        "nanosleep: how long its 200 calls took",
        " calls  nanosleep ",
    ]);
}

#[test]
fn slow_calls_are_told_with_their_callers() {
    let Some(program) = tracee("callers of slow calls") else {
        return;
    };
    let name = program.to_str().unwrap();
    let line = format!("syscalls --rung bpf -e nanosleep --slow 2ms -- {name} callers");
    let ran = run(words(&line)).exits(0);
    let told = ran.stderr.lines().map(str::trim);
    let callers: Vec<&str> = told.filter_map(|line| line.strip_prefix("← ")).collect();
    let functions = callers
        .iter()
        .map(|caller| caller.split('+').next().unwrap());
    let functions: Vec<&str> = functions.take(3).collect();
    if cfg!(target_arch = "x86_64") {
        assert_eq!(functions, ["innermost", "outermost", "main"], "{ran:#?}");
        assert!(callers[0].ends_with("(syscalls)"), "{callers:?}");
    }
    ran.says(&["frame pointers"]);
}

#[test]
fn a_percentile_takes_so_many_calls() {
    let Some(program) = tracee("percentiles of few calls") else {
        return;
    };
    let profile = Profile::of("", program, "family");
    let known = |name: &str| {
        let call = profile.call(name);
        ["p50-sec", "p90-sec", "p99-sec", "p99.9-sec"]
            .map(|unit| call.figure(unit).unwrap().number().is_some())
    };
    assert_eq!(known("getppid"), [true; 4]);
    assert_eq!(known("getgid"), [true, true, false, false]);
    assert_eq!(known("fchdir"), [true, false, false, false]);
    assert_eq!(known("vfork"), [false; 4]);
}

#[test]
fn lists_of_syscalls_are_kept_to() {
    let Some(program) = tracee("-e") else {
        return;
    };
    let profile = Profile::of("-e getgid,%network", program, "leaf");
    assert_eq!(profile.count("getgid"), 30);
    assert_eq!(profile.0.len(), 2, "{:#?}", profile.0);
}

#[test]
fn bad_wishes_are_refused() {
    run(words("syscalls -e no_such -- true")).refuses(2, &["no syscall `no_such`"]);
    run(words("syscalls --rung ptrace --duty 5% -- true")).refuses(2, &["--rung bpf"]);
    run(words("syscalls")).refuses(2, &["nothing to profile", "-- COMMAND"]);
    run(words("syscalls --rung counters --by thread -- true")).refuses(2, &["--rung bpf"]);
    run(words("syscalls -a -- true")).refuses(2, &["by itself"]);
    run(words("syscalls -p 1 --nice 3")).refuses(2, &["runs already"]);
    if tracee("refusals of `poise syscalls`").is_some() {
        run(words("syscalls -- /no/such/program")).refuses(127, &["not found"]);
        run(words("syscalls -- /etc/passwd")).refuses(126, &["not executable"]);
        run(words("syscalls -p 999999999")).refuses(1, &["follow process 999999999"]);
        let many = "syscalls --events page-faults,faults:u,faults:k,cs,migrations -- true";
        run(words(many)).refuses(5, &["at most 4", "ask for fewer"]);
        run(words("syscalls -q -- false")).exits(1).silently();
    }
}
