//! `poise identical`: two compilers held against each other, real ones and such as lie, hang, crash and vary.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use counterpoise::sample::{Figure, Record};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    Descendant, Running, eventually, exact, finish, not_run, poise, run, samples, scratch,
    whole_records,
};

const LOOP: &str = "int sum(int *a, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i]; return s; }\n\
    int same(int a) { return a; }\nconst char *when = __DATE__ \" \" __TIME__;\n";

/// A directory with `loop.c`.
fn source() -> TempDir {
    let directory = scratch();
    fs::write(directory.path().join("loop.c"), LOOP).unwrap();
    directory
}

/// `poise identical` in `directory`, with caches of its own there.
fn identical(directory: &Path, old: &str, new: &str, rest: &[&str]) -> Command {
    let mut command = poise();
    command
        .args(["identical", "--old", old, "--new", new])
        .args(rest);
    command.current_dir(directory).env("COLUMNS", "120");
    command.env("XDG_CACHE_HOME", directory.join("cache"));
    command.env("XDG_DATA_HOME", directory.join("data"));
    command
}

fn has_gcc(what: &str) -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let has = *HAS.get_or_init(|| {
        let said = Command::new("gcc").arg("--version").output();
        said.is_ok_and(|said| said.status.success())
    });
    if !has {
        not_run(what, "there is no gcc");
    }
    has
}

/// A compiler that is a line of shell: `$0` is its output, `$1` its input.
fn scripted(directory: &Path, name: &str, script: &str) -> String {
    let file = format!("{name}.toml");
    let command =
        format!("command = [\"sh\", \"-c\", '''{script}''', \"{{output}}\", \"{{input}}\"]\n");
    fs::write(directory.join(&file), command).unwrap();
    file
}

#[test]
fn a_compiler_is_identical_to_itself() {
    if !has_gcc("identical output of gcc") {
        return;
    }
    let directory = source();
    let records = directory.path().join("records");
    let mut command = identical(directory.path(), "gcc", "gcc", &["loop.c", "-o", "records"]);
    let ran = finish(&mut command).exits(0).says(&[]);
    assert!(
        ran.stdout.contains("1 input, each compiled twice by both"),
        "{ran:#?}"
    );
    assert!(
        ran.stdout
            .contains(": 1 identical\nno rule of normalisation was needed\n"),
        "{ran:#?}"
    );
    let records = whole_records(&records);
    let [old, new] = samples(&records)[..] else {
        panic!("{records:#?}")
    };
    assert_eq!((&*old.variant, &*new.variant), ("old", "new"));
    let bytes = exact(old, "object-bytes");
    assert!(
        bytes > 100.0 && bytes == exact(new, "object-bytes"),
        "{bytes}"
    );
    assert_eq!(old.config["outcome"], "identical");
    finish(&mut identical(
        directory.path(),
        "gcc",
        "gcc",
        &["-q", "loop.c"],
    ))
    .exits(0)
    .silently();
}

#[test]
fn a_difference_is_named_by_section_and_symbol() {
    if !has_gcc("naming what gcc -O1 and -O2 do differently") {
        return;
    }
    let directory = source();
    let mut command = identical(directory.path(), "gcc -O1", "gcc -O2", &["loop.c"]);
    let ran = finish(&mut command).exits(3);
    assert!(
        ran.stdout
            .contains("loop.c  differs in section .text, byte "),
        "{ran:#?}"
    );
    assert!(ran.stdout.contains(": function sum\n"), "{ran:#?}");
    assert!(ran.stdout.contains("\nloop.c: sum\n  old  "), "{ran:#?}");
    assert!(
        ran.stdout
            .contains("first differing line of the assembly, "),
        "{ran:#?}"
    );
    let mut command = identical(
        directory.path(),
        "gcc",
        "gcc",
        &[
            "--flags=-g",
            "--old-flags=-O1",
            "--new-flags=-O2",
            "--json",
            "loop.c",
        ],
    );
    let ran = finish(&mut command).exits(3);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["verdict"], "different");
    assert_eq!(document["new"]["flags"], "-g -O2");
    let input = &document["inputs"][0];
    assert_eq!(input["place"]["part"], "section .text");
    assert_eq!(input["place"]["functions"], serde_json::json!(["sum"]));
    assert_eq!(document["explained"][0]["function"], "sum");
    assert_ne!(input["old"]["sha256"], input["new"]["sha256"]);
}

#[test]
fn rules_are_listed_and_told_and_can_be_refused() {
    let ran = run(["identical", "--list-rules"]).exits(0);
    for rule in [
        "go-version",
        "build-id",
        "archive-header",
        "paths",
        "SOURCE_DATE_EPOCH",
    ] {
        assert!(ran.stdout.contains(rule), "{ran:#?}");
    }
    let directory = source();
    let own = scripted(
        directory.path(),
        "tells-its-path",
        r#"echo "made at $0" > "$0""#,
    );
    let ran = finish(&mut identical(directory.path(), &own, &own, &["loop.c"])).exits(0);
    assert!(
        ran.stdout
            .contains("rule paths was applied to 1: the directory"),
        "{ran:#?}"
    );
    // Without rules it is another output every time.
    let ran = finish(&mut identical(
        directory.path(),
        &own,
        &own,
        &["--strict", "loop.c"],
    ))
    .exits(4);
    assert!(
        ran.stdout.contains("nondeterministic: the old compiler"),
        "{ran:#?}"
    );
}

#[test]
fn a_compiler_that_varies_is_told_from_one_that_changed() {
    let directory = source();
    let at = directory.path();
    let good = scripted(at, "good", r#"cp "$1" "$0""#);
    let other = scripted(at, "other", r#"sed s/sum/mus/ "$1" > "$0""#);
    let varying = scripted(
        at,
        "varying",
        r#"cp "$1" "$0"; mktemp -u XXXXXXXXXXXX >> "$0""#,
    );
    let check = |old: &str, new: &str, code: i32, said: &str| {
        let ran = finish(&mut identical(at, old, new, &["loop.c", "--explain", "0"])).exits(code);
        assert!(ran.stdout.contains(said), "{ran:#?}");
    };
    check(&good, &good, 0, "1 identical");
    check(&good, &other, 3, "differs in output, byte 4");
    check(
        &good,
        &varying,
        4,
        "the new compiler makes different things of it in output, byte",
    );
    check(
        &varying,
        &good,
        4,
        "the old compiler makes different things of it",
    );
}

#[test]
fn what_breaks_is_a_fact_of_its_input() {
    let directory = source();
    let at = directory.path();
    fs::write(at.join("good.c"), "int x;\n").unwrap();
    let good = scripted(at, "good", r#"cp "$1" "$0""#);
    // What happens to loop.c alone.
    let on_loop = |name: &str, script: &str| {
        scripted(
            at,
            name,
            &format!(r#"case "$1" in loop.c) {script};; esac; cp "$1" "$0""#),
        )
    };
    let check = |new: &str, code: i32, said: &str| {
        let rest = ["loop.c", "good.c", "--timeout", "0.5"];
        let ran = finish(&mut identical(at, &good, new, &rest)).exits(code);
        assert!(ran.stdout.contains(said), "{ran:#?}");
        assert!(ran.stdout.contains("1 identical"), "{ran:#?}");
    };
    let refuses = on_loop("refuses", "echo loop.c:1: no; exit 1");
    check(
        &refuses,
        3,
        "loop.c  only the new compiler fails: exit status 1: loop.c:1: no",
    );
    let crashes = on_loop("crashes", "kill -SEGV $$");
    check(
        &crashes,
        3,
        "only the new compiler fails: killed by SIGSEGV",
    );
    // These say nothing of the compilers.
    let hangs = on_loop("hangs", "sleep 60");
    check(
        &hangs,
        1,
        "failed with the new compiler: killed: it did not end within 500ms",
    );
    let full = on_loop("full", "echo write: no space left on device; exit 1");
    check(
        &full,
        1,
        "failed with the new compiler: exit status 1: write: no space",
    );
    let killed = on_loop("killed", "kill -KILL $$");
    check(
        &killed,
        1,
        "failed with the new compiler: killed by SIGKILL",
    );
    let flaky = on_loop("flaky", r#"case "$0" in *new2*) exit 7;; esac"#);
    check(&flaky, 4, "which failed once: exit status 7");
    let silent = scripted(at, "silent", "true");
    let ran = finish(&mut identical(at, &good, &silent, &["good.c"])).exits(3);
    assert!(
        ran.stdout.contains("it succeeded and left no output"),
        "{ran:#?}"
    );
    // Both alike: nothing was compared.
    let ran = finish(&mut identical(
        at,
        &refuses,
        &refuses,
        &["loop.c", "-o", "records"],
    ))
    .exits(1);
    assert!(ran.stdout.contains("1 failed"), "{ran:#?}");
    let records = whole_records(&at.join("records"));
    let failures = records
        .iter()
        .filter(|record| matches!(record, Record::Failure(_)));
    assert_eq!(failures.count(), 2);
}

#[test]
fn words_that_differ_are_told_beside_identical_outputs() {
    let directory = source();
    let at = directory.path();
    let old = scripted(at, "old", r#"echo a warning; cp "$1" "$0""#);
    let new = scripted(at, "new", r#"echo another; cp "$1" "$0""#);
    let ran = finish(&mut identical(at, &old, &new, &["loop.c"])).exits(0);
    assert!(
        ran.stdout
            .contains("line 1 of what they say: `a warning`, now `another`"),
        "{ran:#?}"
    );
}

#[test]
fn a_wish_to_stop_ends_compilers_too() {
    let directory = source();
    let at = directory.path();
    let script = r#"echo $$ > pid; sleep 60"#;
    let hangs = scripted(at, "hangs", script);
    let running = Running::start(&mut identical(at, &hangs, &hangs, &["loop.c"]));
    let pid = eventually("the compiler", || {
        fs::read_to_string(at.join("pid"))
            .ok()?
            .trim()
            .parse::<i32>()
            .ok()
    });
    running.signal(Signal::SIGINT);
    // What is known by then is told.
    running
        .wait()
        .exits(130)
        .shows(&["loop.c  stopped by SIGINT"]);
    assert!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_err());
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let directory = source();
    let at = directory.path();
    let good = scripted(at, "good", r#"cp "$1" "$0""#);
    let check = |old: &str, new: &str, rest: &[&str], all: &[&str]| {
        finish(&mut identical(at, old, new, rest)).refuses(2, all);
    };
    check("/no/goroot", "gcc", &[], &["no Go toolchain at /no/goroot"]);
    check(".", &good, &[], &["is not a GOROOT", "go env GOROOT"]);
    check(
        "no-such-cc -O2",
        &good,
        &["loop.c"],
        &["no compiler no-such-cc", "$PATH"],
    );
    check(
        "@clean",
        &good,
        &["loop.c"],
        &["no compiler is saved as clean", "--saved"],
    );
    check(&good, &good, &[], &["which files"]);
    check(
        &good,
        &good,
        &["nowhere.c"],
        &["there is no file nowhere.c"],
    );
    check(&good, &good, &["--old-flags='", "loop.c"], &["open quote"]);
    if has_gcc("the files that gcc compiles") {
        fs::write(at.join("text.txt"), "").unwrap();
        check(
            "gcc",
            "gcc",
            &["text.txt"],
            &["gcc does not compile files such as text.txt"],
        );
    }
    run(["identical", "--old", "gcc"]).exits(2).says(&["--new"]);
    run(["identical", "--save", "x"]).refuses(2, &["of which GOROOT"]);
}

/// A real Go toolchain of this release; without it a word about what is not tested.
pub(crate) fn toolchain(what: &str, release: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let root = target.join("toolchains").join(release).join("go");
    match root.join("bin/go").is_file() {
        true => Some(root),
        false => {
            not_run(
                what,
                format!("{} is not there: make toolchains gets it", root.display()),
            );
            None
        }
    }
}

pub(crate) const OLD: &str = "go1.24.11";
pub(crate) const NEW: &str = "go1.27.3";

/// Packages that import little.
const SMALL: [&str; 2] = ["internal/itoa", "unicode/utf8"];

/// As [`identical`], with a cache that is kept from test to test and run to run: export data takes
/// its time.
fn identical_go(old: &Path, new: &Path, rest: &[&str]) -> Command {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut command = identical(
        directory,
        &old.to_string_lossy(),
        &new.to_string_lossy(),
        rest,
    );
    command.env("XDG_CACHE_HOME", directory.join("go-cache"));
    command
}

#[test]
fn a_go_toolchain_is_identical_to_itself_and_a_flag_is_told_by_its_function() {
    let Some(root) = toolchain("identical output of a Go toolchain", OLD) else {
        return;
    };
    let ran = finish(identical_go(&root, &root, &["-q", "--json"]).args(SMALL)).exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["verdict"], "identical");
    assert_eq!(document["inputs"].as_array().unwrap().len(), 2);
    let mut command = identical_go(&root, &root, &["--new-flags=-N", "unicode/utf8"]);
    let ran = finish(&mut command).exits(3);
    let told = [
        "differs in _go_.o, byte ",
        ": functions unicode/utf8.",
        "\nunicode/utf8: unicode/utf8.",
    ];
    assert!(
        told.iter().all(|words| ran.stdout.contains(words)),
        "{ran:#?}"
    );
    // A flag of the linker's tables alone changes no instruction.
    let mut command = identical_go(
        &root,
        &root,
        &["--new-flags=-dwarf=false", "--json", "internal/itoa"],
    );
    let ran = finish(&mut command).exits(3);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["inputs"][0]["place"]["part"], "_go_.o");
    // The compiler's own log.
    let mut command = identical_go(&root, &root, &["--new-flags=-m", "internal/itoa"]);
    let ran = finish(&mut command).exits(0);
    assert!(
        ran.stdout
            .contains("line 1 of what they say: `(the end)`, now `"),
        "{ran:#?}"
    );
}

#[test]
fn two_go_releases_compile_one_source() {
    let what = "two releases of Go on one source";
    let (Some(old), Some(new)) = (toolchain(what, OLD), toolchain(what, NEW)) else {
        return;
    };
    let ran = finish(identical_go(&old, &new, &["--explain", "0"]).args(SMALL)).exits(3);
    let source = format!(
        "source for both: {} of {OLD}",
        fs::canonicalize(&old).unwrap().display()
    );
    assert!(ran.stdout.contains(&source), "{ran:#?}");
    assert!(
        ran.stdout.contains("rule go-version was applied to 2"),
        "{ran:#?}"
    );
    // What imports something needs export data that the other release understands.
    let ran = finish(&mut identical_go(
        &old,
        &new,
        &["unicode/utf16", "internal/bytealg", "--json"],
    ));
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let notes = document["notes"].to_string();
    assert!(
        notes.contains("new imports what it compiled itself: go1.27.3 takes no objects"),
        "{notes}"
    );
    let outcomes = document["inputs"].as_array().unwrap();
    assert!(
        outcomes
            .iter()
            .all(|one| one["new"]["bytes"].as_u64() > Some(0)),
        "{document:#}"
    );
}

#[test]
fn a_clean_compiler_is_saved_and_restored() {
    let Some(root) = toolchain("saving a Go compiler", OLD) else {
        return;
    };
    // A toolchain whose compiler we may replace.
    let directory = scratch();
    let own = directory.path().join("go");
    let tools = own.join("pkg/tool/linux_amd64");
    fs::create_dir_all(&tools).unwrap();
    fs::create_dir(own.join("bin")).unwrap();
    for part in ["src", "pkg/include", "VERSION", "lib", "go.env"] {
        symlink(root.join(part), own.join(part)).unwrap();
    }
    fs::copy(root.join("bin/go"), own.join("bin/go")).unwrap();
    for tool in ["compile", "asm", "link"] {
        fs::copy(
            root.join("pkg/tool/linux_amd64").join(tool),
            tools.join(tool),
        )
        .unwrap();
    }
    let data = directory.path().join("data");
    let saved = |arguments: &[&str]| {
        let mut command = poise();
        command
            .arg("identical")
            .args(arguments)
            .env("XDG_DATA_HOME", &data);
        finish(&mut command)
    };
    let at = own.to_string_lossy();
    let ran = saved(&["--save", "clean", &at]).exits(0);
    assert!(
        ran.stdout
            .contains("saved compile, asm, link of go1.24.11 as @clean in "),
        "{ran:#?}"
    );
    saved(&["--save", "clean", &at]).refuses(2, &["saved as clean already", "rm -r"]);
    let ran = saved(&["--saved"]).exits(0);
    assert!(
        ran.stdout.starts_with("@clean  go1.24.11  saved "),
        "{ran:#?}"
    );
    // It compiles what the toolchain has, whatever becomes of the toolchain's own compiler.
    let mut command = identical_go("@clean".as_ref(), &own, &["internal/itoa"]);
    command.env("XDG_DATA_HOME", &data);
    finish(&mut command).exits(0);
    let changed = "#!/bin/sh\necho compile version go1.24.11\n";
    fs::write(tools.join("compile"), changed).unwrap();
    saved(&["--restore", "clean"]).exits(0);
    finish(&mut command).exits(0);
    saved(&["--restore", "other"]).refuses(5, &["no compiler is saved as other"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_replaced() {
    let Some(root) = toolchain("an unwritable cache", OLD) else {
        return;
    };
    let ran =
        finish(identical_go(&root, &root, &["internal/goarch"]).env("XDG_CACHE_HOME", "/dev/null"));
    let ran = ran.exits(0).says(&[
        "the cache /dev/null/counterpoise cannot be written",
        "thrown away",
    ]);
    assert!(ran.stdout.contains("1 identical"), "{ran:#?}");
    let mut command = identical_go(&root, &root, &["no/such/package"]);
    finish(&mut command).refuses(2, &["no/such/package"]);
}

#[test]
fn figures_are_exact() {
    let directory = source();
    let at = directory.path();
    let good = scripted(at, "good", r#"cp "$1" "$0""#);
    finish(&mut identical(
        at,
        &good,
        &good,
        &["-q", "loop.c", "-o", "records"],
    ))
    .exits(0)
    .silently();
    let records = whole_records(&at.join("records"));
    let figures: Vec<_> = samples(&records)
        .iter()
        .map(|one| one.figure("object-bytes").cloned())
        .collect();
    let bytes = Some(Figure::Exact(LOOP.len() as f64));
    assert_eq!(figures, [bytes.clone(), bytes]);
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let directory = source();
    let at = directory.path();
    let temporary = at.join("tmp");
    fs::create_dir(&temporary).unwrap();
    let left = || fs::read_dir(&temporary).unwrap().count();
    let hangs = scripted(at, "hangs", "echo $$ > pid; exec sleep 60");
    let mut command = identical(at, &hangs, &hangs, &["loop.c"]);
    let running = Running::start(command.env("TMPDIR", &temporary));
    let compiler = Descendant::told_in(&at.join("pid"));
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, None);
    assert_eq!(left(), 1);
    let good = scripted(at, "good", r#"cp "$1" "$0""#);
    let mut command = identical(at, &good, &good, &["-q", "loop.c"]);
    finish(command.env("TMPDIR", &temporary))
        .exits(0)
        .silently();
    assert_eq!(left(), 0);
    drop(compiler);
}

#[test]
fn gcc_is_known_by_the_compiler_that_it_calls() {
    if !has_gcc("the compiler proper of gcc") {
        return;
    }
    let directory = source();
    let mut command = identical(directory.path(), "gcc", "gcc", &["--json", "loop.c"]);
    let ran = finish(&mut command).exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let proper = &document["old"]["proper"];
    assert!(
        proper["program"].as_str().unwrap().ends_with("/cc1"),
        "{proper}"
    );
    assert_ne!(proper["sha256"], document["old"]["sha256"]);
    assert_eq!(proper["sha256"].as_str().unwrap().len(), 64);
}
