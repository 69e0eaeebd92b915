//! Compilers side by side: real Go toolchains and gcc where there are any, and compilers that crash, hang and lie.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use counterpoise::sample::{Record, Sample};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Ran, exact, finish, not_run, poise, run, samples, scratch, whole_records};
use crate::identical::{OLD, toolchain};

fn has_gcc(what: &str) -> bool {
    let said = Command::new("gcc").arg("--version").output();
    let has = said.is_ok_and(|said| said.status.success());
    if !has {
        not_run(what, "there is no gcc");
    }
    has
}

/// `poise compile` in `directory`, of variants called as they are given.
fn compile(directory: &Path, variants: &[&str], rest: &[&str]) -> Command {
    let mut command = poise();
    command.arg("compile").current_dir(directory);
    for variant in variants {
        command.args(["--variant", variant]);
    }
    command.args(rest).env("COLUMNS", "200");
    command
}

/// A directory with `a.c` and `b.c`, and compilers that are lines of shell: `$0` is their output, `$1`
/// their input.
fn scripted(compilers: &[(&str, &str)]) -> TempDir {
    let directory = scratch();
    for file in ["a.c", "b.c"] {
        fs::write(directory.path().join(file), "int f(void) { return 1; }\n").unwrap();
    }
    for (name, script) in compilers {
        let text = format!(
            "command = [\"sh\", \"-c\", '''{script}''', \"{{output}}\", \"{{input}}\"]\n\
             [phases]\npattern = '^(?<name>\\w+) took (?<sec>[0-9.]+)$'\n"
        );
        fs::write(directory.path().join(format!("{name}.toml")), text).unwrap();
    }
    directory
}

fn of<'a>(samples: &[&'a Sample], benchmark: &str, variant: &str) -> Vec<&'a Sample> {
    let wanted =
        |sample: &&&Sample| sample.benchmark.to_string() == benchmark && sample.variant == variant;
    samples.iter().filter(wanted).copied().collect()
}

fn recorded(directory: &Path) -> Vec<Record> {
    whole_records(&directory.join("records"))
}

#[test]
fn files_are_compiled_side_by_side_with_their_phases_and_sizes() {
    let script = "echo parse took 0.5; echo code took 1.25; echo code took 0.25; head -c 5 $1 >$0";
    let directory = scripted(&[("old", script), ("new", "cat $1 $1 >$0")]);
    let ran = finish(&mut compile(
        directory.path(),
        &["old=old.toml", "new=new.toml"],
        &[
            "a.c",
            "b.c",
            "-r",
            "6",
            "-o",
            "records",
            "--by",
            "object-bytes",
            "--gate",
        ],
    ));
    let ran = ran.exits(3);
    ran.shows(&[
        "object-bytes",
        "a.c/phase=code",
        "regressed",
        "trust first: object-bytes (read from what it wrote)",
    ]);
    let records = recorded(directory.path());
    let samples = samples(&records);
    for (benchmark, variant, bytes) in [("a.c", "old", 5.0), ("b.c", "new", 52.0)] {
        let own = of(&samples, benchmark, variant);
        assert_eq!(own.len(), 6, "{benchmark} {variant}");
        assert!(own.iter().all(|one| exact(one, "object-bytes") == bytes));
    }
    let phases = of(&samples, "b.c/phase=code", "old");
    assert_eq!(phases.len(), 6);
    assert!(phases.iter().all(|one| exact(one, "sec/op") == 1.5));
    // What is compared ran side by side.
    for round in 0..6 {
        let whole = samples
            .iter()
            .filter(|one| one.order.round == round && one.benchmark.parameters().is_empty());
        let order: Vec<&str> = whole.map(|one| one.benchmark.base()).collect();
        assert_eq!(order.len(), 4);
        assert_eq!((order[0], order[2]), (order[1], order[3]), "{order:?}");
    }
    let compared = finish(
        poise()
            .args(["compare", "records"])
            .current_dir(directory.path()),
    );
    compared.exits(0).shows(&["a.c/phase=code", "object-bytes"]);
}

#[test]
fn what_is_decided_is_not_run_further() {
    let directory = scripted(&[
        ("old", "printf 12345 >$0"),
        (
            "new",
            "case $1 in a.c) printf 1234567 >$0;; *) head -c $(($$ % 90 + 1)) /dev/zero >$0;; esac",
        ),
    ]);
    let options = [
        "a.c",
        "b.c",
        "--max-runs",
        "10",
        "-o",
        "records",
        "--by",
        "object-bytes",
        "-q",
    ];
    let mut command = compile(
        directory.path(),
        &["old=old.toml", "new=new.toml"],
        &options,
    );
    finish(&mut command).exits(0);
    let records = recorded(directory.path());
    let samples = samples(&records);
    assert_eq!(of(&samples, "a.c", "new").len(), 3);
    let varying = of(&samples, "b.c", "new").len();
    assert!(varying >= 8, "{varying} rounds");
}

#[test]
fn nothing_is_improved_without_proof() {
    let directory = scripted(&[
        ("old", "printf 1234567 >$0; sleep 0.02"),
        ("same", "printf 1234567 >$0"),
        ("other", "printf 1 >$0"),
    ]);
    let verdict = directory.path().join("verdict");
    let options = [
        "a.c",
        "--prove",
        "-r",
        "8",
        "--verdict",
        "verdict",
        "--gate",
    ];
    let check = |new: &str, by: &str, code, want: &str, shown: &str| {
        let new = format!("new={new}.toml");
        let rest = [&options[..], &["--by", by]].concat();
        let ran = finish(&mut compile(
            directory.path(),
            &["old=old.toml", &new],
            &rest,
        ));
        ran.exits(code).shows(&[shown]);
        let told: Value = serde_json::from_str(&fs::read_to_string(&verdict).unwrap()).unwrap();
        assert_eq!(told["verdicts"][0]["verdict"], want, "{told:#}");
    };
    check(
        "same",
        "sec/op",
        0,
        "improved",
        "proven identical, made twice a side: 1 of 1",
    );
    check(
        "other",
        "object-bytes",
        4,
        "untrustworthy",
        "new, a.c: not proven: differs",
    );
}

#[test]
fn compilers_that_crash_hang_or_refuse_are_told_in_a_line() {
    let directory = scripted(&[
        ("good", "cp $1 $0"),
        ("crash", "kill -SEGV $$"),
        ("hang", "sleep 60"),
        ("refuse", "echo a.c:1: no >&2; exit 3"),
        ("lie", "exit 0"),
        ("picky", "test $1 = b.c && cp $1 $0"),
    ]);
    let check = |bad: &str, all: &[&str]| {
        let bad = format!("new={bad}.toml");
        let options = ["a.c", "--timeout", "300ms"];
        let ran = finish(&mut compile(
            directory.path(),
            &["old=good.toml", &bad],
            &options,
        ));
        ran.refuses(1, all);
    };
    check("crash", &["new cannot compile a.c: killed by SIGSEGV"]);
    check(
        "hang",
        &["new cannot compile a.c: killed: it did not end within 300ms"],
    );
    check(
        "refuse",
        &["new cannot compile a.c: exit status 3, saying: a.c:1: no"],
    );
    check("lie", &["new cannot compile a.c: it made nothing"]);
    // What the others can compare is compared.
    let options = ["a.c", "b.c", "-r", "2", "-o", "records"];
    let ran = finish(&mut compile(
        directory.path(),
        &["old=good.toml", "new=picky.toml"],
        &options,
    ));
    ran.exits(0)
        .says(&["left out: new cannot compile a.c"])
        .shows(&["b.c"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let directory = scripted(&[("good", "cp $1 $0")]);
    let check = |variants: &[&str], rest: &[&str], code, all: &[&str]| {
        finish(&mut compile(directory.path(), variants, rest)).refuses(code, all);
    };
    let both = ["old=good.toml", "new=good.toml"];
    check(&["a=gcc"], &["a.c"], 2, &["two compilers"]);
    check(
        &["a=gcc", "a=gcc"],
        &["a.c"],
        2,
        &["two variants are called `a`"],
    );
    check(
        &["a=/no/such/root", "b=good.toml"],
        &[],
        2,
        &["a: no Go toolchain at /no/such/root"],
    );
    check(
        &["a=no-such-compiler", "b=good.toml"],
        &["a.c"],
        2,
        &["no compiler no-such-compiler"],
    );
    let here = format!("a={}", directory.path().display());
    check(
        &[&here, "b=good.toml"],
        &[],
        2,
        &["is not a GOROOT", "go env GOROOT"],
    );
    check(&both, &[], 2, &["there is no file to compile"]);
    check(&both, &["none.c"], 1, &["cannot read none.c"]);
    check(
        &both,
        &["a.c", "--source", "/x"],
        2,
        &["--source is for Go"],
    );
    check(&both, &["a.c", "--run", "("], 2, &["--run ("]);
    check(&both, &["a.c", "--flags", "'"], 2, &["open quote"]);
    check(
        &both,
        &["a.c", "-o", "/proc/none"],
        1,
        &["cannot write /proc/none"],
    );
}

#[test]
fn gcc_compares_with_itself_by_its_flags() {
    if !has_gcc("gcc -O0 against gcc -O2") {
        return;
    }
    let directory = scratch();
    let source =
        "int sum(int *a, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i]; return s; }\n";
    fs::write(directory.path().join("sum.c"), source).unwrap();
    let variants = ["small=gcc -Os", "fast=gcc -O3"];
    let options = ["sum.c", "-r", "3", "-o", "records", "--by", "text-bytes"];
    let ran = finish(&mut compile(directory.path(), &variants, &options)).exits(0);
    ran.shows(&["text-bytes", "sum.c", "regressed"]);
    let records = recorded(directory.path());
    let Record::Header(header) = &records[0] else {
        panic!("{:?}", records[0])
    };
    assert!(header.machine["compilers"].contains("gcc"), "{header:?}");
    let twins = ["a=gcc -O1", "b=gcc -O1"];
    let ran = finish(&mut compile(
        directory.path(),
        &twins,
        &["sum.c", "-r", "2"],
    ))
    .exits(0);
    ran.says(&["a and b are the same compiler, to the byte, with the same flags"]);
}

#[test]
fn go_compilers_tell_allocations_collections_sizes_and_phases() {
    let Some(root) = toolchain("packages of Go", OLD) else {
        return;
    };
    let directory = scratch();
    let variants = ["plain", "noinline"].map(|name| {
        let flags = if name == "plain" { "" } else { " -l" };
        format!("{name}={}{flags}", root.display())
    });
    let variants = variants.each_ref().map(String::as_str);
    let options = [
        "errors",
        "no/such/package",
        "-r",
        "3",
        "-o",
        "records",
        "--flags=-c=1",
    ];
    let mut command = compile(directory.path(), &variants, &options);
    // Of this test alone: what another user has built cannot be relied on.
    command.env(
        "XDG_CACHE_HOME",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"),
    );
    let ran: Ran = finish(&mut command).exits(0);
    let ran = ran.says(&["left out: plain cannot compile no_such_package"]);
    ran.shows(&[
        "allocs/op",
        "B/op",
        "text-bytes",
        "errors/phase=be:compilefuncs",
        "trust first: allocs/op",
    ]);
    let records = recorded(directory.path());
    let samples = samples(&records);
    let (plain, noinline) = (
        of(&samples, "errors", "plain"),
        of(&samples, "errors", "noinline"),
    );
    assert_eq!((plain.len(), noinline.len()), (3, 3));
    for sample in &plain {
        assert!(exact(sample, "allocs/op") > 1000.0);
        assert!(exact(sample, "B/op") > exact(sample, "allocs/op"));
        assert!(exact(sample, "export-bytes") < exact(sample, "object-bytes"));
        assert!(exact(sample, "GC-cycles/op") >= 0.0);
    }
    let text = |sample: &Sample| exact(sample, "text-bytes");
    assert_ne!(text(plain[0]), text(noinline[0]));
    assert_eq!(of(&samples, "errors/phase=fe:parse", "plain").len(), 3);
    let Record::Header(header) = &records[0] else {
        panic!("{:?}", records[0])
    };
    assert!(
        header.machine["source"].starts_with("go") || header.machine["source"].starts_with("devel")
    );
}

#[test]
fn a_go_compiler_that_cannot_compile_is_told_and_benchmarks_have_names() {
    let Some(root) = toolchain("a broken Go compiler", OLD) else {
        return;
    };
    let directory = scratch();
    let broken = directory.path().join("compile");
    let script =
        "#!/bin/sh\ncase $1 in -V=full) echo compile version go1.99;; *) kill -SEGV $$;; esac\n";
    fs::write(&broken, script).unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let good = format!("good={}", root.display());
    let variants = [good.as_str(), "broken=./compile"];
    let mut command = compile(directory.path(), &variants, &["errors"]);
    command.env(
        "XDG_CACHE_HOME",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"),
    );
    finish(&mut command).refuses(1, &["broken cannot compile errors", "killed by SIGSEGV"]);
    let check = |pattern: &str, code: i32, all: &[&str]| {
        let options = ["--run", pattern];
        finish(&mut compile(directory.path(), &variants, &options)).refuses(code, all);
    };
    check(
        "Hello",
        1,
        &[
            "good cannot link HelloSize: there is no",
            "released toolchains do not have their tests",
        ],
    );
    check(
        "Nonsense",
        2,
        &["--run matches no benchmark", "Template", "LinkCompiler"],
    );
    let alone = ["a=./compile", "b=./compile"];
    finish(&mut compile(directory.path(), &alone, &["errors"])).says(&["--source"]);
}

/// A GOROOT in `directory` that borrows all from another, but for these tools, which are scripts; and
/// it has the program that HelloSize links.
fn borrowed(real: &Path, directory: &Path, scripts: &[(&str, String)]) {
    let tools = fs::read_dir(real.join("pkg/tool")).unwrap().next();
    let tools = tools.unwrap().unwrap().path();
    let own = directory.join("pkg/tool").join(tools.file_name().unwrap());
    for made in [&own, &directory.join("bin"), &directory.join("test")] {
        fs::create_dir_all(made).unwrap();
    }
    for part in ["src", "lib", "pkg/include"] {
        symlink(real.join(part), directory.join(part)).unwrap();
    }
    let hello = "package main\n\nfunc main() { print(\"hello, world\\n\") }\n";
    fs::write(directory.join("test/helloworld.go"), hello).unwrap();
    let tools = fs::read_dir(tools)
        .unwrap()
        .map(|tool| tool.unwrap().path());
    for tool in tools.chain([real.join("bin/go")]) {
        let name = tool.file_name().unwrap().to_str().unwrap();
        let place = if name == "go" { "bin".as_ref() } else { &*own };
        let link = directory.join(place).join(name);
        match scripts.iter().find(|(script, _)| *script == name) {
            None => symlink(&tool, link).unwrap(),
            Some((_, script)) => {
                let script = script.replace("REAL", tool.to_str().unwrap());
                fs::write(&link, format!("#!/bin/sh\n{script}\n")).unwrap();
                fs::set_permissions(link, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }
}

fn walkdir(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let below = entries.map(|path| match path.is_dir() {
        true => walkdir(&path),
        false => vec![path],
    });
    below.flatten().collect()
}

#[test]
fn programs_are_linked_by_the_variants_own_toolchain() {
    let Some(real) = toolchain("programs of Go", OLD) else {
        return;
    };
    let directory = scratch();
    let place = |name| directory.path().join(name);
    borrowed(&real, &place("plain"), &[]);
    borrowed(
        &real,
        &place("stripped"),
        &[("link", "exec REAL -w \"$@\"".to_owned())],
    );
    let options = "--run ^HelloSize$ -r 6 --prove --by exe-bytes,B/op -o records";
    let options: Vec<&str> = options.split(' ').collect();
    let variants = ["plain=./plain", "stripped=./stripped"];
    let mut command = compile(directory.path(), &variants, &options);
    finish(command.env("XDG_CACHE_HOME", place("cache")))
        .exits(0)
        .says(&["are the same compiler, to the byte, with the same flags; their linkers differ"])
        .shows(&[
            "HelloSize/phase=Pclntab",
            "stripped, HelloSize: not proven: the programs differ",
            "untrustworthy",
            "exe-bytes, text-bytes (read from what it wrote)",
        ]);
    let records = recorded(directory.path());
    let samples = samples(&records);
    let bytes = |variant| {
        let own = of(&samples, "HelloSize", variant);
        assert_eq!(own.len(), 6);
        for sample in &own {
            assert!(exact(sample, "allocs/op") > 1000.0);
            assert!(exact(sample, "text-bytes") > 100_000.0);
        }
        exact(own[0], "exe-bytes")
    };
    assert!(bytes("stripped") < bytes("plain"));
    // The place of the source stands in nothing that was built: it serves whoever comes next.
    let sources = real.join("src").into_os_string().into_encoded_bytes();
    let built = place("cache/counterpoise/go/build");
    let objects = walkdir(&built)
        .into_iter()
        .map(|file| fs::read(file).unwrap());
    let objects: Vec<Vec<u8>> = objects.filter(|object| object.len() > 10_000).collect();
    assert!(objects.len() > 20, "{} in {built:?}", objects.len());
    let has_place = |object: &Vec<u8>| memchr::memmem::find(object, &sources).is_some();
    assert!(!objects.iter().any(has_place));
    // What links is the same, what compiles is not: that has no linker at all.
    let compiler = fs::read_dir(place("plain/pkg/tool")).unwrap().next();
    let compiler = compiler.unwrap().unwrap().path().join("compile");
    let alone = format!("alone={}", compiler.display());
    let variants = ["plain=./plain", alone.as_str()];
    let mut command = compile(directory.path(), &variants, &["--run", "HelloSize"]);
    finish(&mut command).refuses(1, &["alone cannot link HelloSize", "without a linker"]);
}

#[test]
fn all_is_built_anew_by_the_go_command_of_the_variant() {
    let Some(real) = toolchain("the go command", OLD) else {
        return;
    };
    let directory = scratch();
    let log = directory.path().join("log");
    let script = |status: i32| {
        let log = log.display();
        let build = format!("echo $GOCACHE $* >>{log}; echo '# cmd'; echo broken; exit {status}");
        format!("case $1 in build) {build};; *) exec REAL \"$@\";; esac")
    };
    for (name, status) in [("old", 0), ("new", 0), ("broken", 1)] {
        let place = directory.path().join(name);
        borrowed(&real, &place, &[("go", script(status))]);
    }
    let options = ["--run", "StdCmd", "-r", "2", "-o", "records"];
    let variants = ["old=./old", "new=./new -l"];
    finish(&mut compile(directory.path(), &variants, &options)).exits(0);
    let built = fs::read_to_string(&log).unwrap();
    let built: Vec<&str> = built.lines().collect();
    // Each once before it is measured.
    assert_eq!(built.len(), 6, "{built:?}");
    assert!(
        built
            .iter()
            .all(|line| line.ends_with(" std cmd") && line.contains(" -a "))
    );
    let flags = built.iter().filter(|line| line.contains(" -l -asmflags"));
    assert_eq!(flags.count(), 3, "{built:?}");
    let cache = |line: &&str| line.split(' ').next().unwrap().to_owned();
    assert_eq!(built.iter().map(cache).collect::<BTreeSet<_>>().len(), 2);
    let records = recorded(directory.path());
    assert_eq!(of(&samples(&records), "StdCmd", "new").len(), 2);
    let variants = ["old=./old", "broken=./broken"];
    finish(&mut compile(directory.path(), &variants, &options)).refuses(
        1,
        &["broken cannot build StdCmd: exit status 1, saying: broken"],
    );
}

#[test]
fn the_help_tells_what_is_compiled() {
    run(["compile", "--help"])
        .exits(0)
        .shows(&["Template, Unicode", "How far to trust"]);
}

#[test]
fn gcc_tells_its_phases_and_is_held_against_clang() {
    let what = "the phases of gcc, and clang beside it";
    let clang = ["clang", "clang-14"].into_iter().find(|clang| {
        let said = Command::new(clang).arg("--version").output();
        said.is_ok_and(|said| said.status.success())
    });
    let Some(clang) = clang.filter(|_| has_gcc(what)) else {
        not_run(what, "it takes gcc and clang");
        return;
    };
    let directory = scripted(&[]);
    // It leaves out phases that took no time by its clock of hundredths of a second.
    let function = |at| {
        format!(
            "int f{at}(int *a, int n) {{ int s = {at}; while (n--) s += a[n] * {at}; return s; }}\n"
        )
    };
    let text: String = (0..60).map(function).collect();
    fs::write(directory.path().join("a.c"), text).unwrap();
    let new = format!("new={clang}");
    let run = |rest: &[&str]| {
        let options = [
            "a.c",
            "--lang",
            "c",
            "--flags=-O2",
            "-r",
            "2",
            "-o",
            "records",
        ];
        let variants = ["old=gcc", &new];
        let mut command = compile(directory.path(), &variants, &[&options[..], rest].concat());
        finish(&mut command).exits(0);
        recorded(directory.path())
    };
    let records = run(&[]);
    let all = samples(&records);
    let name = "a.c/phase=opt_and_generate";
    let own = of(&all, name, "old");
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|one| exact(one, "sec/op") > 0.0));
    // clang's passes are no phases: they run within one another.
    assert_eq!(of(&all, name, "new").len(), 0);
    assert!(exact(of(&all, "a.c", "new")[0], "object-bytes") > 100.0);
    let records = run(&["--no-alloc"]);
    let has_phase = |one: &&Sample| !one.benchmark.parameters().is_empty();
    assert!(!samples(&records).iter().any(has_phase));
}
