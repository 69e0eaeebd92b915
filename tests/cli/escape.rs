//! `poise escape`: the decisions of real Go compilers about a small module, and compilers that crash and hang.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use counterpoise::sample::Record;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Ran, exact, finish, not_run, poise, samples, scratch, whole_records};
use crate::identical::{NEW, OLD, toolchain};

const SHAPES: &str = "package shapes

type Point struct{ X, Y int }

//go:noinline
func New(x, y int) *Point {
	p := Point{x, y}
	return &p
}

func copyOf(p Point) *Point { return &p }

//go:noinline
func Three(p *Point) [3]*Point {
	var all [3]*Point
	for i := range all {
		all[i] = copyOf(*p)
	}
	return all
}

//go:noinline
func Sum(n int) (sum int) {
	all := make([]byte, n)
	for i := 0; i < n; i++ {
		sum += int(all[n-1])
	}
	return sum
}
";

/// A directory with the module `example.com/shapes`.
fn module() -> TempDir {
    let directory = scratch();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("go.mod", "module example.com/shapes\n\ngo 1.24\n");
    write("shapes.go", SHAPES);
    directory
}

/// `poise escape` in `directory`, with a cache that is kept from test to test.
fn escape(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = poise();
    command.arg("escape").args(arguments).current_dir(directory);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
    command.env("XDG_CACHE_HOME", cache).env("COLUMNS", "160");
    command
}

fn told(directory: &Path, arguments: &[&str]) -> Ran {
    finish(&mut escape(directory, arguments))
}

/// The changes in a JSON document: side, kind, line, function and decision of each.
fn changes(ran: &Ran) -> Vec<(String, String, u64, String, String)> {
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let changes = document["changes"].as_array().unwrap().iter();
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or("—").to_owned();
    changes
        .map(|one| {
            let line = one["line"].as_u64().unwrap();
            (
                word(one, "only"),
                word(one, "kind"),
                line,
                word(one, "function"),
                word(one, "decision"),
            )
        })
        .collect()
}

fn change(
    side: &str,
    line: u64,
    function: &str,
    text: &str,
) -> (String, String, u64, String, String) {
    let kind = if text.starts_with("leaking") {
        "leak"
    } else {
        "heap"
    };
    let [side, kind, function, text] = [side, kind, function, text].map(str::to_owned);
    (side, kind, line, function, text)
}

/// The release, as an argument.
fn old(what: &str) -> Option<String> {
    toolchain(what, OLD).map(|root| root.to_string_lossy().into_owned())
}

#[test]
fn two_releases_decide_otherwise_about_one_source() {
    let what = "what two releases of Go let escape";
    let (Some(old), Some(new)) = (old(what), toolchain(what, NEW)) else {
        return;
    };
    let new = new.to_string_lossy().into_owned();
    let module = module();
    let both = ["--old", &old, "--new", &new];
    let ran = told(module.path(), &[&both[..], &["--json"]].concat()).exits(3);
    // From Go 1.25 on, what is small enough when it runs stays on the stack.
    let text = "make([]byte, n) escapes to heap";
    assert_eq!(changes(&ran), [change("old", 24, "Sum", text)]);
    let ran = told(module.path(), &[&both[..], &["-o", "records"]].concat()).exits(3);
    ran.shows(&[
        "no longer escapes, 1:\n  example.com/shapes/shapes.go:24  Sum  make([]byte, n) escapes",
        "\n    from make([]byte, n) (non-constant size)\n",
        "escapes 4 → 3, leaking parameters 0 → 0, inlined calls 1 → 1",
    ]);
    let records = whole_records(&module.path().join("records"));
    let told: Vec<_> = samples(&records)
        .iter()
        .map(|one| {
            (
                one.variant.clone(),
                exact(one, "escapes"),
                exact(one, "inlined-calls"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("old".to_owned(), 4.0, 1.0), ("new".to_owned(), 3.0, 1.0)]
    );
}

#[test]
fn one_compiler_alone_tells_all_and_with_itself_nothing() {
    let Some(root) = old("what one Go compiler lets escape") else {
        return;
    };
    let module = module();
    let ran = told(module.path(), &["--old", &root, "--json"]).exits(0);
    let want = [
        change("base", 7, "New", "moved to heap: p"),
        change("base", 11, "copyOf", "moved to heap: p"),
        change("base", 17, "Three", "moved to heap: p"),
        change("base", 24, "Sum", "make([]byte, n) escapes to heap"),
    ];
    assert_eq!(changes(&ran), want);
    told(module.path(), &["--old", &root, "--new", &root, "-q"])
        .exits(0)
        .silently();
    // Nothing is inlined, so one copy less is made.
    let flags = ["--old", &root, "--new-flags=-l"];
    told(module.path(), &flags).exits(3).shows(&[
        "no longer escapes, 1:",
        "shapes.go:17  Three  moved to heap: p",
        "copyOf is no longer inlined there",
    ]);
}

#[test]
fn a_file_is_annotated_with_every_decision() {
    let Some(root) = old("a Go file with its decisions") else {
        return;
    };
    let module = module();
    let lines = |arguments: &[&str], code: i32| -> Vec<String> {
        let all = [&["--old", &root, "--annotate", "shapes.go"], arguments].concat();
        let ran = told(module.path(), &all).exits(code);
        let lines = ran.stdout.lines();
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let all = lines(&[], 0);
    let has = |all: &[String], line: &str| {
        assert!(all.iter().any(|one| one == line), "no `{line}` in {all:#?}");
    };
    has(&all, "1 package shapes");
    has(
        &all,
        "7 p := Point{x, y} | moved to heap: p (from return &p (return))",
    );
    has(
        &all,
        "11 func copyOf(p Point) *Point { return &p } | can be inlined (cost: 3)",
    );
    has(&all, "| inlining call to copyOf");
    has(&all, "26 sum += int(all[n-1]) | index check kept");
    has(
        &all,
        "6 func New(x, y int) *Point { | cannot be inlined (marked go:noinline)",
    );
    let differing = lines(&["--new-flags=-B"], 3);
    has(
        &differing,
        "26 sum += int(all[n-1]) | old: index check kept",
    );
    let numbered = differing.iter().filter(|line| line.contains(" | "));
    assert_eq!(numbered.count(), 1, "{differing:#?}");
    lines(&["--new", &root], 0);
    // By its absolute name, from elsewhere, with its package.
    let file = Path::new(&root).join("src/internal/itoa/itoa.go");
    let elsewhere = scratch();
    let file = file.to_string_lossy();
    let rest = ["--old", &root, "--annotate", &file, "internal/itoa"];
    told(elsewhere.path(), &rest)
        .exits(0)
        .shows(&["func Itoa(val int) string"]);
}

#[test]
fn two_revisions_differ_where_a_decision_changed_and_not_where_lines_moved() {
    let what = "what two revisions of a module let escape";
    let Some(root) = old(what) else {
        return;
    };
    let module = module();
    let git = |arguments: &[&str]| {
        let user = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
        let mut git = Command::new("git");
        let ran = git.args(user).args(arguments).current_dir(module.path());
        ran.output().is_ok_and(|ran| ran.status.success())
    };
    if !git(&["init", "--quiet"]) {
        not_run(what, "there is no git");
        return;
    }
    assert!(git(&["add", "."]) && git(&["commit", "--quiet", "-m", "first"]));
    // All lines move, one is edited, and Sum keeps its slice.
    let changed = SHAPES
        .replace("type Point", "var kept []byte\n\ntype Point")
        .replace("p := Point{x, y}", "p := Point{X: x, Y: y}")
        .replace("return sum", "kept = make([]byte, 8)\n\treturn sum");
    fs::write(module.path().join("shapes.go"), &changed).unwrap();
    let want = [change("new", 30, "Sum", "make([]byte, 8) escapes to heap")];
    let with = |rest: &[&str]| told(module.path(), &[&["--old", &root, "--json"], rest].concat());
    assert_eq!(changes(&with(&["--old-source", "HEAD"]).exits(3)), want);
    assert!(git(&["commit", "--quiet", "-am", "second"]));
    let both = ["--old-source", "HEAD~1", "--new-source", "HEAD"];
    assert_eq!(changes(&with(&both).exits(3)), want);
    let annotated = [&both[..], &["--old", &root, "--annotate", "shapes.go"]].concat();
    told(module.path(), &annotated).exits(3).shows(&[
        "+30      kept = make([]byte, 8)",
        "new: make([]byte, 8) escapes to heap",
        "source: ",
        " first (std of go1.24.11)",
    ]);
    // A package that only one has.
    fs::create_dir(module.path().join("more")).unwrap();
    fs::write(module.path().join("more/more.go"), "package more\n").unwrap();
    told(module.path(), &["--old", &root, "--old-source", "HEAD"])
        .exits(0)
        .shows(&["example.com/shapes/more  is in the new source only"]);
    with(&["--old-source", "no-such"]).refuses(2, &["no-such is no directory, nor a revision"]);
    with(&["--old-source", "HEAD", "internal/itoa"]).refuses(
        2,
        &["internal/itoa is a package of the toolchain", "poise build"],
    );
}

#[test]
fn a_profile_ranks_what_escapes() {
    let Some(root) = old("a real profile of allocations") else {
        return;
    };
    let module = module();
    let test = "package shapes\n\nimport \"testing\"\n\nvar sink [3]*Point\n\n\
        func TestAll(t *testing.T) {\n\tfor i := 0; i < 1000; i++ {\n\
        \t\tsink = Three(New(i, i))\n\t}\n}\n";
    fs::write(module.path().join("shapes_test.go"), test).unwrap();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache/test");
    let mut go = Command::new(Path::new(&root).join("bin/go"));
    go.args([
        "test",
        "-memprofile",
        "mem.pprof",
        "-memprofilerate",
        "1",
        ".",
    ]);
    go.env("GOCACHE", &cache).env("GOPATH", cache.join("path"));
    for (key, value) in [
        ("GOTOOLCHAIN", "local"),
        ("GOFLAGS", ""),
        ("GOENV", "off"),
        ("CGO_ENABLED", "0"),
    ] {
        go.env(key, value);
    }
    finish(go.current_dir(module.path())).exits(0);
    let profile = ["--old", &root, "--profile", "mem.pprof"];
    let ran = told(module.path(), &[&profile[..], &["--json"]].concat()).exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let ranked: Vec<_> = document["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["line"].as_u64().unwrap(),
                one["allocs"].as_f64().unwrap(),
            )
        })
        .collect();
    // Every byte was looked at.
    assert_eq!(document["profile"]["period-bytes"], 1);
    assert_eq!(ranked, [(17, 3000.0), (7, 1000.0), (11, 0.0), (24, 0.0)]);
    told(module.path(), &profile).exits(0).shows(&[
        "allocs",
        "3.000k",
        "4.000k (",
        "are in these lines; all were seen",
    ]);
    let check = |name: &str, bytes: &[u8], want: &str| {
        fs::write(module.path().join(name), bytes).unwrap();
        let arguments = ["--old", &root, "--profile", name];
        told(module.path(), &arguments).refuses(2, &[want, "-memprofile"]);
    };
    let whole = fs::read(module.path().join("mem.pprof")).unwrap();
    check("cut", &whole[..whole.len() / 2], "it cannot be unpacked");
    check("text", b"heap profile: 1: 2 [3: 4] @ heap/1\n", "as text");
    check("empty", b"", "names no kind of values");
    told(module.path(), &["--old", &root, "--profile", "nowhere"])
        .refuses(1, &["cannot read nowhere"]);
}

/// A Go compiler alone that is a line of shell, once it has told its version.
fn scripted(directory: &Path, name: &str, script: &str) -> String {
    let file: PathBuf = directory.join(name);
    let text = format!(
        "#!/bin/sh\ncase $1 in -V=full) echo compile version go1.24.11; exit;; esac\n{script}\n"
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_string_lossy().into_owned()
}

#[test]
fn a_compiler_that_fails_is_a_fact_of_its_package() {
    let Some(root) = old("Go compilers that crash and hang") else {
        return;
    };
    let module = module();
    let at = module.path();
    let check = |new: &str, want: &str| {
        let ran = told(at, &["--old", &root, "--new", new, "--timeout", "5"]).exits(1);
        ran.shows(&[&format!(
            "example.com/shapes  failed with the new compiler: {want}\n"
        )]);
    };
    check(
        &scripted(at, "crashes", "echo panic: bad; kill -SEGV $$"),
        "killed by SIGSEGV: panic: bad",
    );
    check(
        &scripted(at, "hangs", "sleep 60"),
        "killed: it did not end within 5s",
    );
    // The other package is told all the same.
    fs::create_dir(at.join("bad")).unwrap();
    fs::write(at.join("bad/bad.go"), "package bad\n\nvar x int = \"y\"\n").unwrap();
    let ran = told(at, &["--old", &root, "-o", "records"]).exits(1);
    ran.shows(&[
        "example.com/shapes/bad  failed: exit status 2: ",
        "bad.go:3:13: cannot use \"y\"",
        "escapes, 4:",
    ]);
    let records = whole_records(&at.join("records"));
    let failures = records
        .iter()
        .filter(|record| matches!(record, Record::Failure(_)));
    assert_eq!(failures.count(), 1);
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let directory = scratch();
    let at = directory.path();
    let refused = |arguments: &[&str], all: &[&str]| {
        told(at, arguments).refuses(2, all);
    };
    refused(&["--old", "/no/goroot"], &["no Go toolchain at /no/goroot"]);
    refused(&["--old", "/"], &["/ is not a GOROOT", "go env GOROOT"]);
    told(at, &["./..."]).exits(2).says(&["--old"]);
    let alone = scripted(at, "alone", "exit 1");
    refused(
        &["--old", &alone],
        &["the compilers stand alone", "--source"],
    );
    let Some(root) = old("annotating what is not there") else {
        return;
    };
    let module = module();
    let at = module.path();
    fs::write(at.join("shapes_test.go"), "package shapes\n").unwrap();
    let refused = |arguments: &[&str], all: &[&str]| {
        told(at, &[&["--old", &root], arguments].concat()).refuses(2, all);
    };
    refused(
        &["--annotate", "nowhere.go"],
        &["there is no file nowhere.go"],
    );
    refused(
        &["--annotate", "shapes_test.go"],
        &["shapes_test.go is in none of the packages", "tests"],
    );
    refused(&["--old-flags='"], &["open quote"]);
    refused(&["--source", "/no/where"], &["/no/where is no directory"]);
    let ran = finish(escape(at, &["--old", &root]).env("XDG_CACHE_HOME", "/dev/null"));
    ran.exits(0)
        .says(&[
            "the cache /dev/null/counterpoise cannot be written",
            "thrown away",
        ])
        .shows(&["escapes, 4:"]);
}
