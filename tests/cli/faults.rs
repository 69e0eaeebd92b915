//! `poise faults`: the faults of programs that are known, told one by one, and nothing left behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use counterpoise::sample::{Figure, Sample};
use nix::sys::signal::Signal;

use crate::common::{
    Running, eventually, exact, finish, measure, not_run, poise, poise_at, run, scratch, words,
};

/// The programs of `faults.c`, compiled once; none, with a word about it, without a C compiler.
fn program(what: &str) -> Option<&'static Path> {
    static COMPILED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/faults.c");
        let mut compiler = Command::new("cc");
        // Optimised, functions that call none have no frame, whatever is asked for.
        compiler.args(["-O0", "-pthread", "-o"]);
        compiler.arg(&program).arg(source);
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

/// The same where programs in the kernel can see its faults.
fn tracee(what: &str) -> Option<&'static Path> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let refusal = REFUSAL.get_or_init(|| {
        let ran = run(words("faults --rung bpf -q -- true"));
        (ran.code != Some(0)).then(|| ran.stderr.trim().to_owned())
    });
    match refusal {
        Some(why) => {
            not_run(what, why);
            None
        }
        None => program(what),
    }
}

/// Whether the processor's reasons are seen, without which kinds are not told apart.
fn tells_kinds(what: &str) -> bool {
    let is_x86 = cfg!(target_arch = "x86_64");
    if !is_x86 {
        not_run(what, "this architecture has no tracepoint at the exception");
    }
    is_x86
}

/// The samples of a profile.
struct Profile(Vec<Sample>);

impl Profile {
    fn of(options: &str, program: &Path, what: &str) -> Profile {
        let program = program.to_str().unwrap();
        Profile(measure(words(&format!(
            "faults {options} -- {program} {what}"
        ))))
    }

    fn find(&self, name: &str) -> Option<&Sample> {
        self.0
            .iter()
            .find(|sample| sample.benchmark.to_string() == name)
    }

    #[track_caller]
    fn get(&self, name: &str) -> &Sample {
        let found = self.find(name);
        found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    /// How many faults of this kind there were where nothing else is.
    fn count(&self, kind: &str, mapping: &str, mode: &str) -> u64 {
        let name = format!("Fault/kind={kind}/mapping={mapping}/mode={mode}");
        self.find(&name)
            .map_or(0, |sample| exact(sample, "faults") as u64)
    }
}

fn file_of(pages: usize, directory: &Path) -> PathBuf {
    let path = directory.join("data");
    fs::write(&path, vec![7; pages * 4096]).unwrap();
    path
}

#[test]
fn each_kind_is_counted_to_the_fault() {
    const WHAT: &str = "kinds of page faults";
    let Some(program) = tracee(WHAT).filter(|_| tells_kinds(WHAT)) else {
        return;
    };
    let check = |what: &str, wanted: &[(&str, &str, u64)]| {
        let profile = Profile::of("", program, what);
        for (kind, mode, want) in wanted {
            let got = profile.count(kind, "go-heap", mode);
            assert_eq!(got, *want, "{what}: {kind} {mode} in {:#?}", profile.0);
        }
        let of_mapping = profile.get("FaultMapping/mapping=go-heap");
        let all: u64 = wanted.iter().map(|(_, _, count)| count).sum();
        assert_eq!(exact(of_mapping, "faults") as u64, all, "{what}");
        let whole = profile.get("Faults");
        assert_eq!(whole.warnings, [], "nothing is lost");
        // What the kernel itself touches in an exec.
        assert!(exact(whole, "unseen-faults") <= 10.0, "{whole:#?}");
    };
    check("write 1000", &[("anonymous", "user", 1000)]);
    check("read 500", &[("zero-page", "user", 500)]);
    check("kernel 300", &[("anonymous", "kernel", 300)]);
    check(
        "fork 400",
        &[
            ("anonymous", "user", 400),
            ("copy-on-write", "user", 400),
            ("reuse", "user", 400),
        ],
    );
    check("family 200", &[("anonymous", "user", 3 * 200 + 100 + 200)]);
}

#[test]
fn files_are_mapped_copied_and_waited_for() {
    const WHAT: &str = "page faults in files";
    let Some(program) = tracee(WHAT).filter(|_| tells_kinds(WHAT)) else {
        return;
    };
    // Beside the program under test: the usual place for scratch may be in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = file_of(200, directory.path());
    let profile = |what: &str| Profile::of("", program, &format!("{what} 200 {}", file.display()));
    // One fault can map several pages that the cache holds in one piece.
    let shared = profile("shared-file");
    let mapped = shared.count("file-map", "data", "user");
    assert!((1..=200).contains(&mapped), "{mapped}");
    let all = shared.get("FaultMapping/mapping=data");
    assert_eq!(exact(all, "faults") as u64, mapped, "{:#?}", shared.0);
    let private = profile("private-file");
    assert_eq!(
        private.count("private-copy", "data", "user"),
        200,
        "{:#?}",
        private.0
    );
    let cold = profile("cold-file");
    let Some(major) = cold.find("Fault/kind=major/mapping=data/mode=user") else {
        return not_run("major page faults", "the file stayed in memory");
    };
    assert_eq!(exact(major, "faults"), 200.0);
    let share = major.figure("CPU-share");
    assert!(
        matches!(share, Some(Figure::Absent { .. })),
        "waiting is no CPU time: {share:?}"
    );
    let whole = cold.get("Faults");
    let (waiting, all) = (exact(whole, "waiting-sec"), exact(whole, "handler-sec"));
    assert!(0.0 < waiting && waiting < all, "{whole:#?}");
}

#[test]
fn memory_that_is_shared_huge_or_made_at_once_is_told_apart() {
    const WHAT: &str = "page faults of other memory";
    let Some(program) = tracee(WHAT) else {
        return;
    };
    let shared = Profile::of("", program, "shared 100");
    let mapping = shared.get("FaultMapping/mapping=shared");
    assert_eq!(exact(mapping, "faults"), 100.0);
    let populated = Profile::of("", program, "populate 1000");
    let calls = populated.get("Populate/mapping=go-heap");
    assert_eq!(exact(calls, "calls"), 1.0);
    // The page tables are made with them.
    let pages = exact(calls, "pages");
    assert!((1000.0..1020.0).contains(&pages), "{pages}");
    assert!(populated.find("FaultMapping/mapping=go-heap").is_none());
    let huge = Profile::of("", program, "huge 10");
    match huge.count("huge-page", "go-heap", "user") {
        0 => not_run("huge pages", "the kernel gave none"),
        count => assert_eq!(count, 10),
    }
}

#[test]
fn stacks_of_threads_and_named_memory_are_known() {
    let Some(program) = tracee("mappings of page faults") else {
        return;
    };
    let profile = Profile::of("", program, "stack 0");
    let stack = profile.get("FaultMapping/mapping=thread-stack");
    // The program's own hundred, and what starting a thread takes.
    let faults = exact(stack, "faults");
    assert!((100.0..110.0).contains(&faults), "{faults}");
    let named = run(words("faults --quiet --").into_iter().chain([
        program.to_str().unwrap(),
        "named",
        "100",
    ]));
    if named.code == Some(3) {
        return not_run("names of anonymous memory", "this kernel has none");
    }
    let profile = Profile::of("", program, "named 100");
    let mapping = profile.get("FaultMapping/mapping=anonymous:our_arena");
    assert_eq!(
        exact(mapping, "faults"),
        99.0,
        "all but the first, before anybody looked"
    );
}

#[test]
fn call_sites_have_names() {
    let Some(program) = tracee("call sites of page faults") else {
        return;
    };
    let profile = Profile::of("--stacks", program, "write 300");
    let mut sites = profile
        .0
        .iter()
        .filter(|sample| sample.benchmark.base() == "FaultSite");
    let site = sites.find(|site| exact(site, "faults") == 300.0).unwrap();
    let name = site.benchmark.to_string();
    assert!(
        name.starts_with("FaultSite/site=write_pages<writer<main"),
        "{name}"
    );
}

#[test]
fn a_running_process_is_watched_from_now_on() {
    let Some(program) = tracee("page faults of a running process") else {
        return;
    };
    let running = Running::start(Command::new(program).args(["always", "50"]));
    let pid = running.pid().to_string();
    let samples = measure(["faults", "--timeout", "500ms", "-p", &pid]);
    running.signal(Signal::SIGKILL);
    let profile = Profile(samples);
    let faults = exact(profile.get("FaultMapping/mapping=go-heap"), "faults");
    assert!(faults >= 50.0, "{faults}");
    let wall = exact(profile.get("Faults"), "sec/op");
    assert!((0.4..20.0).contains(&wall), "{wall}");
}

#[test]
fn without_privilege_faults_in_user_mode_are_seen() {
    const WHAT: &str = "page faults without privilege";
    let Some(program) = program(WHAT) else {
        return;
    };
    let profile = |what: &str| {
        let line = format!(
            "faults --json --rung counters -- {} {what}",
            program.display()
        );
        let ran = run(words(&line));
        (ran.code == Some(0)).then_some(ran).ok_or(())
    };
    let Ok(ran) = profile("write 1000") else {
        return not_run(WHAT, "perf events cannot be had");
    };
    let number = |ran: &str, name: &str, unit: &str| {
        let records = ran.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut samples = records.filter(|record: &serde_json::Value| record["benchmark"] == name);
        let sample = samples.next()?;
        let values = sample["values"].as_array()?;
        let value = values.iter().find(|value| value["unit"] == unit)?.clone();
        assert_eq!(value["trust"], "partial", "{value}");
        value["value"].as_f64()
    };
    let name = "Fault/kind=minor/mapping=go-heap/mode=user";
    assert_eq!(
        number(&ran.stdout, name, "faults"),
        Some(1000.0),
        "{ran:#?}"
    );
    assert!(number(&ran.stdout, name, "handler-sec") > Some(0.0));
    // What the kernel itself touches is not seen, and not made up.
    let ran = profile("kernel 300").unwrap();
    assert_eq!(number(&ran.stdout, name, "faults"), None);
}

#[test]
fn an_ordinary_user_is_told_what_is_not_seen() {
    const WHAT: &str = "page faults as an ordinary user";
    let Some(program) = program(WHAT) else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        return not_run(WHAT, "only root can become another user");
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(directory.path());
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).unwrap();
        open(&to);
        to
    };
    let own = copy(env!("CARGO_BIN_EXE_poise").as_ref(), "poise");
    let tracee = copy(program, "faults");
    let ordinary = |arguments: &[&str]| {
        let mut command = poise_at(&own);
        command.current_dir("/").args(arguments);
        command.uid(65534).gid(65534);
        finish(&mut command)
    };
    let tracee = tracee.to_str().unwrap();
    let ran = ordinary(&["faults", "--", tracee, "write", "200"]);
    if ran.stderr.contains("cannot trace") {
        return not_run(WHAT, ran.stderr.trim());
    }
    ran.exits(0).says(&[
        "in user mode only",
        "are not seen",
        "CAP_BPF and CAP_PERFMON",
        "setcap",
        "go-heap",
    ]);
    let refused = ordinary(&["faults", "--rung", "bpf", "--", tracee, "write", "1"]);
    refused.refuses(5, &["cannot trace", "CAP_BPF"]);
}

#[test]
fn what_a_fault_costs_is_regressed() {
    let samples = measure(words("faults --cost -r 2 --seed 1"));
    assert_eq!(samples.len(), 6);
    let number = |pages: &str, unit: &str| {
        let name = format!("FaultCost/pages={pages}");
        let of = |sample: &&Sample| sample.benchmark.to_string() == name;
        let sample = samples.iter().find(of).unwrap();
        sample.figure(unit).and_then(Figure::number)
    };
    let base = number("4k", "sec/fault").unwrap();
    assert!((1e-8..1e-3).contains(&base), "{base}");
    assert!(number("4k", "sec/page") > Some(base * 0.5));
    assert_eq!(number("populate", "sec/fault"), None, "they are no faults");
    assert!(number("populate", "sec/page") > Some(0.0));
    match number("thp", "sec/fault") {
        None => not_run("what a huge page costs", "the kernel gave none"),
        Some(huge) => assert!(huge > base, "{huge}"),
    }
}

#[test]
fn a_command_is_priced() {
    let Some(program) = program("the price of faults") else {
        return;
    };
    let profile = Profile::of("--cost -r 2", program, "write 2000");
    let whole = profile.get("Faults");
    let number = |unit: &str| whole.figure(unit).and_then(Figure::number).unwrap();
    let cost = profile
        .0
        .iter()
        .filter(|s| s.benchmark.to_string() == "FaultCost/pages=4k");
    let each: Vec<f64> = cost.map(|sample| exact(sample, "sec/fault")).collect();
    let middle = (each[0] + each[1]) / 2.0;
    let priced = number("priced-sec") / (middle * number("faults"));
    assert!((0.5..1.01).contains(&priced), "{priced}");
    assert!(number("priced-low-sec") <= number("priced-sec"));
}

#[test]
fn two_profiles_are_compared() {
    let Some(program) = tracee("comparing page faults") else {
        return;
    };
    let directory = scratch();
    let record = |name: &str, what: &str| {
        let file = directory.path().join(name);
        let mut command = poise();
        command
            .args(["faults", "-q", "-o"])
            .arg(&file)
            .arg("--")
            .arg(program);
        finish(command.args(what.split(' '))).exits(0);
        file
    };
    let (old, new) = (record("old", "write 100"), record("new", "write 300"));
    let mut command = poise();
    command.arg("compare").arg(old).arg(new);
    finish(&mut command)
        .exits(0)
        .shows(&["mapping=go-heap", "100", "300", "faults"]);
}

/// The numbers of all programs in the kernel, if bpftool is there to tell.
fn programs() -> Option<BTreeSet<u64>> {
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output()
        .ok()?;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    shown
        .as_array()?
        .iter()
        .map(|program| program["id"].as_u64())
        .collect()
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
    for n in 0..8 {
        let mut command = poise();
        command.args(words("faults -q --")).arg(program);
        let running = Running::start(command.args(["always", "10"]));
        std::thread::sleep(Duration::from_millis(n * 40));
        seen.extend(programs().unwrap());
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().code, None);
    }
    assert!(!seen.is_empty());
    // Those of other tests go, too.
    eventually("the end of all programs that were seen", || {
        programs().unwrap().is_disjoint(&seen).then_some(())
    });
}

#[test]
fn bad_wishes_are_refused() {
    run(words("faults")).refuses(2, &["nothing to watch", "-- COMMAND"]);
    run(words("faults -p 1 --nice 3")).refuses(2, &["runs already"]);
    run(words("faults -p 999999999")).refuses(1, &["watch process 999999999"]);
    run(words("faults --rung counters -- /no/such/program")).refuses(127, &["not found"]);
    run(words("faults --rung counters -- /etc/passwd")).refuses(126, &["not executable"]);
    run(words("faults --rung counters -q -- false")).exits(1);
}
