//! `poise build`: revisions built beside the user's checkout, whose every byte stays as it was, whatever befalls the build.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Descendant, Ran, Running, eventually, finish, not_run, poise, scratch};

/// A repository, and the cache beside it.
struct Bench {
    directory: TempDir,
}

impl Bench {
    /// A repository with the commits `first`, which builds, and `second`, which does not; nothing
    /// when there is no git.
    fn new(what: &str) -> Option<Bench> {
        let bench = Bench {
            directory: scratch(),
        };
        if Command::new("git").arg("--version").output().is_err() {
            not_run(what, "there is no git");
            return None;
        }
        fs::create_dir(bench.repository()).unwrap();
        bench.git(&["init", "--quiet"]);
        // Runs at every checkout in this repository.
        let hook = bench.repository().join(".git/hooks/post-checkout");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, "#!/bin/sh\ntouch hooked\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        bench.commit("first", "recipe", "echo made it; echo built > out\n");
        bench.commit("second", "recipe", "echo broken here >&2; exit 3\n");
        Some(bench)
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]);
        let ran = git
            .args(arguments)
            .current_dir(self.repository())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:#?}");
    }

    fn commit(&self, tag: &str, file: &str, text: &str) {
        let path = self.repository().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", tag]);
        self.git(&["tag", tag]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = poise();
        command
            .arg("build")
            .args(arguments)
            .current_dir(self.repository());
        command.env("XDG_CACHE_HOME", self.directory.path().join("cache"));
        command.env_remove("GOROOT_BOOTSTRAP");
        command
    }

    fn build(&self, arguments: &[&str]) -> Ran {
        finish(&mut self.command(arguments))
    }

    /// Everything in the repository, checkout and `.git`, with content, mode and time.
    fn everything(&self) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut open = vec![self.repository()];
        while let Some(path) = open.pop() {
            let about = fs::symlink_metadata(&path).unwrap();
            let content = match about.is_dir() {
                true => Vec::new(),
                false => fs::read(&path).unwrap(),
            };
            if about.is_dir() {
                open.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            all.insert(
                path,
                (about.mode(), about.mtime(), about.mtime_nsec(), content),
            );
        }
        assert!(all.len() > 20, "{:?}", all.keys());
        all
    }

    /// What is kept, besides the places for builds that run at once.
    fn kept(&self) -> Vec<String> {
        let builds = self.directory.path().join("cache/counterpoise/builds");
        let entries = fs::read_dir(builds).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name != ".slots").collect()
    }
}

const RECIPE: [&str; 2] = ["--recipe", "sh recipe"];

#[test]
fn a_revision_is_built_once_and_the_repository_stays_as_it_was() {
    let Some(bench) = Bench::new("building a revision") else {
        return;
    };
    let before = bench.everything();
    let ran = bench.build(&[&RECIPE[..], &["first"]].concat()).exits(0);
    let ran = ran.says(&["poise: first (", " first) was built in "]);
    let tree = PathBuf::from(ran.stdout.trim());
    assert_eq!(fs::read_to_string(tree.join("out")).unwrap(), "built\n");
    assert!(!tree.join("hooked").exists());
    fs::write(tree.join("mark"), "").unwrap();
    let again = bench
        .build(&[&RECIPE[..], &["second~1"]].concat())
        .exits(0)
        .says(&["was built on "]);
    assert_eq!(again.stdout, ran.stdout);
    assert!(tree.join("mark").exists());
    // Another recipe is another build, and so is the same once more.
    let other = bench.build(&["--recipe", "sh ./recipe", "first"]).exits(0);
    assert_ne!(other.stdout, ran.stdout);
    let ran = bench
        .build(&[&RECIPE[..], &["--again", "first", "second~1"]].concat())
        .exits(0)
        .says(&["was built in"]);
    // Two names of one commit.
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(!tree.join("mark").exists());
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_failing_build_is_a_fact_with_its_log() {
    let Some(bench) = Bench::new("a failing build") else {
        return;
    };
    let before = bench.everything();
    let ran = bench
        .build(&[&RECIPE[..], &["first", "second", "--json"]].concat())
        .exits(1);
    let ran = ran.says(&[
        "second (",
        "could not be built: exit status 3",
        "| broken here",
        "its log: ",
    ]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let [good, bad] = &document["builds"].as_array().unwrap()[..] else {
        panic!("{document:#}")
    };
    assert_eq!(
        (&good["outcome"], &bad["outcome"]),
        (&"built".into(), &"failed".into())
    );
    assert_eq!(bad["tree"], Value::Null);
    let log = fs::read_to_string(bad["log"].as_str().unwrap()).unwrap();
    assert_eq!(log, "broken here\n");
    let ran = bench.build(&[&RECIPE[..], &["second"]].concat()).exits(1);
    assert_eq!(ran.says(&["--again tries once more"]).stdout, "");
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_killed_build_leaves_nothing_behind() {
    let Some(bench) = Bench::new("a build that is killed") else {
        return;
    };
    let told = bench.directory.path().join("told");
    let flag = bench.directory.path().join("flag");
    let recipe = format!(
        "echo $$ > {told}; test -e {flag} || sleep 60; test ! -e half && touch half",
        told = told.display(),
        flag = flag.display()
    );
    let arguments = ["--recipe", &*recipe, "first"];
    let before = bench.everything();
    let running = Running::start(&mut bench.command(&arguments));
    let left_over = Descendant::told_in(&told);
    running.signal(Signal::SIGKILL);
    running.wait();
    assert_eq!(bench.everything(), before);
    assert!(!left_over.is_gone());
    let ran = bench.build(&["--list"]).exits(0);
    assert!(ran.stdout.starts_with("being built"), "{ran:#?}");
    // The next one ends what was left running, and begins anew.
    fs::write(&flag, "").unwrap();
    bench.build(&arguments).exits(0).says(&["was built in"]);
    left_over.must_go();
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_build_that_is_stopped_leaves_nothing_behind() {
    let Some(bench) = Bench::new("a build that is stopped") else {
        return;
    };
    let told = bench.directory.path().join("told");
    let recipe = format!("sleep 60 & echo $! > {}; wait", told.display());
    let before = bench.everything();
    let running = Running::start(&mut bench.command(&["--recipe", &recipe, "first"]));
    let left_over = Descendant::told_in(&told);
    running.signal(Signal::SIGINT);
    running.wait().exits(130).silently();
    left_over.must_go();
    assert_eq!(bench.kept(), [""; 0]);
    let late = bench
        .build(&["--recipe", "sleep 60", "--timeout", "0.2", "first"])
        .exits(1);
    late.says(&["could not be built: killed: it did not end within 200ms"]);
    assert_eq!(bench.everything(), before);
}

#[test]
fn two_build_the_same_once() {
    let Some(bench) = Bench::new("two builds at once") else {
        return;
    };
    let count = bench.directory.path().join("count");
    let recipe = format!("echo x >> {}; sleep 0.3", count.display());
    let mut command = bench.command(&["--recipe", &recipe, "first"]);
    let both = [Running::start(&mut command), Running::start(&mut command)];
    for one in both {
        one.wait().exits(0);
    }
    assert_eq!(fs::read_to_string(&count).unwrap(), "x\n");
    // Several in one go, as many at once as are allowed.
    let recipe = format!(
        "echo in >> {count}; sleep 0.2; echo out >> {count}",
        count = count.display()
    );
    let revisions = ["first", "second"];
    fs::remove_file(&count).unwrap();
    bench
        .build(&[&["--recipe", &recipe][..], &revisions].concat())
        .exits(0);
    assert_eq!(fs::read_to_string(&count).unwrap(), "in\nout\nin\nout\n");
    fs::remove_file(&count).unwrap();
    bench
        .build(&[&["--recipe", &recipe, "--again", "-j2"][..], &revisions].concat())
        .exits(0);
    assert_eq!(fs::read_to_string(&count).unwrap(), "in\nin\nout\nout\n");
}

#[test]
fn the_disk_is_bounded() {
    let Some(bench) = Bench::new("pruning builds") else {
        return;
    };
    let big = "head -c 3000000 /dev/urandom > big";
    bench.build(&["--recipe", big, "first"]).exits(0);
    let ran = bench
        .build(&["--recipe", big, "second"])
        .exits(0)
        .says(&["2.9"]);
    let newest = PathBuf::from(ran.stdout.trim());
    let ran = bench.build(&["--list"]).exits(0);
    assert!(ran.stdout.contains("\n2 builds kept, 5."), "{ran:#?}");
    let ran = bench.build(&["--prune", "4M"]).exits(0);
    assert!(ran.stdout.starts_with("removed 1 build, 2."), "{ran:#?}");
    assert!(newest.exists());
    // What was built just now stays, however little may be kept.
    let ran = bench
        .build(&["--recipe", big, "--keep", "1K", "first"])
        .exits(0);
    let ran = ran.says(&["removed 1 build"]);
    assert!(Path::new(ran.stdout.trim()).exists() && !newest.exists());
    bench.build(&["--prune"]).exits(0);
    assert_eq!(bench.kept(), [""; 0]);
    bench.build(&["--prune", "4X"]).exits(2).says(&["no size"]);
}

#[test]
fn make_bash_is_recognised() {
    let Some(bench) = Bench::new("recognising make.bash") else {
        return;
    };
    let script =
        "pwd; echo $GOROOT_BOOTSTRAP $GOTOOLCHAIN $GOPROXY \"<$GOFLAGS$GOOS>\" > ../told\n";
    bench.commit("go", "src/make.bash", script);
    let go = bench.directory.path().join("bootstrap/bin/go");
    fs::create_dir_all(go.parent().unwrap()).unwrap();
    fs::write(&go, "").unwrap();
    let root = bench.directory.path().join("bootstrap");
    let mut command = bench.command(&["go"]);
    command
        .env("GOROOT_BOOTSTRAP", &root)
        .env("GOFLAGS", "-x")
        .env("GOOS", "plan9");
    let ran = finish(&mut command).exits(0);
    let told = fs::read_to_string(Path::new(ran.stdout.trim()).join("told")).unwrap();
    let want = format!(
        "{} local off <>\n",
        fs::canonicalize(&root).unwrap().display()
    );
    assert_eq!(told, want);
    let at = root.join("bin");
    let nowhere = ["--bootstrap", at.to_str().unwrap(), "go"];
    bench
        .build(&nowhere)
        .refuses(2, &["is no GOROOT to begin with", "GOROOT_BOOTSTRAP"]);
    let mut command = bench.command(&["go", "--again"]);
    command.env("PATH", "/usr/bin:/bin");
    if !["/usr/bin/go", "/bin/go"]
        .iter()
        .any(|go| Path::new(go).exists())
    {
        finish(&mut command).refuses(2, &["make.bash needs an installed Go", "GOROOT_BOOTSTRAP"]);
    }
}

#[test]
fn any_repository_will_do() {
    let Some(bench) = Bench::new("bare repositories and worktrees") else {
        return;
    };
    let beside = |name: &str| {
        bench
            .directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (bare, linked) = (beside("bare.git"), beside("linked"));
    bench.git(&["clone", "--quiet", "--bare", ".", &bare]);
    bench.git(&["worktree", "add", "--quiet", &linked, "first"]);
    let before = bench.everything();
    for place in [&bare, &linked] {
        bench
            .build(&[&RECIPE[..], &["--again", "-C", place, "first"]].concat())
            .exits(0);
    }
    // As in a hook of another repository.
    let mut command = bench.command(&[&RECIPE[..], &["--again", "first"]].concat());
    command
        .env("GIT_DIR", &bare)
        .env("GIT_INDEX_FILE", "/nowhere/index");
    finish(&mut command).exits(0);
    assert_eq!(bench.everything(), before);
}

#[test]
fn what_cannot_be_built_is_refused() {
    let Some(bench) = Bench::new("what cannot be built") else {
        return;
    };
    bench
        .build(&["first"])
        .refuses(2, &["no src/make.bash", "--recipe"]);
    bench
        .build(&["--recipe", "true", "third"])
        .refuses(2, &["no commit is called third"]);
    bench
        .build(&["--recipe", "true", "--", "-x"])
        .refuses(2, &["no commit is called -x"]);
    bench
        .build(&["-C", "/nowhere", "first"])
        .refuses(2, &["no directory /nowhere"]);
    bench
        .build(&["-C", "/proc", "first"])
        .refuses(2, &["git: not a git repository"]);
    bench.build(&[]).exits(2).says(&["REV"]);
    // A full disk is no fact of the commit.
    let full = "echo write: No space left on device; exit 1";
    bench
        .build(&["--recipe", full, "first"])
        .refuses(5, &["is full", "--prune"]);
    assert_eq!(bench.kept(), [""; 0]);
    let mut command = bench.command(&["--recipe", "true", "first"]);
    command.env("XDG_CACHE_HOME", "/dev/null");
    finish(&mut command).refuses(5, &["cannot write /dev/null/counterpoise/builds"]);
    eventually("no build", || bench.kept().is_empty().then_some(()));
}
