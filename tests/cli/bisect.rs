//! `poise bisect` on real repositories: C programs that are really compiled and run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use counterpoise::sample::Record;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{Ran, Running, finish, poise, run, scratch};

/// What distinguishes the programs of commits.
#[derive(Clone, Copy, Default)]
struct Source {
    /// How often it writes 30000 bytes, one by one.
    rounds: u32,
    /// What it says that it allocates.
    allocs: u32,
    broken: bool,
    hangs: bool,
}

impl Source {
    fn text(&self, place: usize) -> String {
        let Source { rounds, allocs, .. } = self;
        let error = if self.broken { "#error broken" } else { "" };
        let hang = if self.hangs { "pause();" } else { "" };
        format!(
            "/* {place} */\n{error}\n#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\n\
             int main(void) {{\n  int null = open(\"/dev/null\", O_WRONLY);\n  {hang}\n\
             for (long i = 0; i < {rounds} * 30000L; i++) if (write(null, \"x\", 1) != 1) return 1;\n\
             printf(\"BenchmarkWrite 1 {allocs} allocs/op\\n\");\n  return 0;\n}}\n"
        )
    }
}

/// One commit to be made: its parents, by place, and its program.
struct Made {
    parents: Vec<usize>,
    source: Source,
}

/// A repository, the caches, and the log of one test.
struct Bed {
    directory: TempDir,
    /// By place.
    ids: Vec<String>,
}

/// Commits 0 … `count` − 1 in a row.
fn row(count: usize, source: impl Fn(usize) -> Source) -> Vec<Made> {
    (0..count)
        .map(|place| Made {
            parents: place.checked_sub(1).into_iter().collect(),
            source: source(place),
        })
        .collect()
}

/// Twice the time and one more allocation from `at` on.
fn step(at: usize) -> impl Fn(usize) -> Source {
    move |place| Source {
        rounds: if place < at { 1 } else { 2 },
        allocs: if place < at { 104 } else { 105 },
        ..Source::default()
    }
}

impl Bed {
    fn new(commits: &[Made]) -> Bed {
        let directory = scratch();
        let repository = directory.path().join("repository");
        fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch=main"]);
        let mut stream = String::new();
        for (place, made) in commits.iter().enumerate() {
            let text = made.source.text(place);
            let message = format!("commit {place}");
            let at = 1_700_000_000 + place;
            stream += &format!(
                "commit refs/heads/main\nmark :{}\ncommitter Ann <ann@example.org> {at} +0000\n\
                 data {}\n{message}\n",
                place + 1,
                message.len()
            );
            for (number, parent) in made.parents.iter().enumerate() {
                let word = if number == 0 { "from" } else { "merge" };
                stream += &format!("{word} :{}\n", parent + 1);
            }
            stream += &format!("M 100644 inline bench.c\ndata {}\n{text}\n", text.len());
            // A file that every third commit touches.
            if place % 3 == 0 {
                let note = place.to_string();
                stream += &format!("M 100644 inline note\ndata {}\n{note}\n", note.len());
            }
        }
        let marks = directory.path().join("marks");
        let mut import = Command::new("git")
            .args(["fast-import", "--quiet"])
            .arg(format!("--export-marks={}", marks.display()))
            .current_dir(&repository)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        import
            .stdin
            .take()
            .unwrap()
            .write_all(stream.as_bytes())
            .unwrap();
        assert!(import.wait().unwrap().success());
        let mut ids = vec![String::new(); commits.len()];
        for line in fs::read_to_string(&marks).unwrap().lines() {
            let (mark, id) = line.split_once(' ').unwrap();
            ids[mark[1..].parse::<usize>().unwrap() - 1] = id.to_owned();
        }
        git(&repository, &["reset", "--quiet", "--hard"]);
        Bed { directory, ids }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `poise bisect` of the range from `good` to `bad`, to be run in nobody's checkout.
    fn bisect(&self, good: usize, bad: usize) -> Command {
        let mut command = self.poise();
        command
            .arg(format!("{}..{}", self.ids[good], self.ids[bad]))
            .arg("-C")
            .arg(self.path("repository"))
            .args(["--build", "cc -O1 -o bench bench.c"])
            .arg("--dir")
            .arg(self.path("log"));
        command
    }

    fn poise(&self) -> Command {
        let mut command = poise();
        command
            .arg("bisect")
            .current_dir(self.directory.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_DATA_HOME", self.path("data"));
        command
    }

    /// Every file of the repository, with its content.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path("repository")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => open.push(entry.path()),
                    false => {
                        files.insert(entry.path(), fs::read(entry.path()).unwrap());
                    }
                }
            }
        }
        files
    }

    /// The runs that the log tells of.
    fn runs(&self) -> usize {
        let log = fs::File::open(self.path("log/log.jsonl")).unwrap();
        let is_run = |record: &Record| match record {
            Record::Sample(sample) => {
                sample.benchmark.base() == "bench" && !sample.config.contains_key("from")
            }
            _ => false,
        };
        counterpoise::format::Reader::new("log", log)
            .filter(is_run)
            .count()
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let ran = Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(ran.status.success(), "git {arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn by_allocs(command: &mut Command) -> Ran {
    finish(command.args(["--by", "allocs/op", "--", "./bench"]))
}

#[track_caller]
fn accuses(ran: &Ran, place: usize) {
    let line = ran.stdout.lines().next().unwrap_or_default();
    let subject = format!(" commit {place} did it");
    assert!(line.ends_with(&subject), "{ran:#?}");
}

#[test]
fn a_slow_commit_is_found_and_the_repository_left_as_it_was() {
    let bed = Bed::new(&row(220, step(137)));
    let before = bed.everything();
    let (markdown, log) = (bed.path("report.md"), bed.path("git.log"));
    let ran = finish(
        bed.bisect(0, 219)
            .arg("--markdown")
            .arg(&markdown)
            .arg("--git-log")
            .arg(&log)
            .args(["--", "./bench"]),
    )
    .exits(0);
    accuses(&ran, 137);
    assert!(ran.stdout.contains("Ann <ann@example.org>") && ran.stdout.contains("regressed"));
    assert_eq!(bed.everything(), before);
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("commit 137 did it") && markdown.contains(&bed.ids[137]));
    // git itself takes what we know of commits.
    let clone = bed.path("clone");
    let repository = bed.path("repository");
    git(
        bed.directory.path(),
        &["clone", "--quiet", &repository.to_string_lossy(), "clone"],
    );
    let said = git(&clone, &["bisect", "replay", &log.to_string_lossy()]);
    let first = format!("{} is the first bad commit", bed.ids[137]);
    assert!(said.contains(&first), "{said}");
}

#[test]
fn what_is_counted_exactly_takes_the_logarithm() {
    let bed = Bed::new(&row(220, step(137)));
    let ran = by_allocs(&mut bed.bisect(0, 219)).exits(0);
    accuses(&ran, 137);
    // log₂ 219 is 7.8; three runs of each end and of culprit and parent.
    assert!(bed.runs() <= 8 + 6 + 4, "{}", bed.runs());
    // A unit that does not change, beside one that does.
    let bed = Bed::new(&row(20, |place| Source {
        rounds: 1,
        ..step(11)(place)
    }));
    let ran =
        finish(
            bed.bisect(0, 19)
                .args(["--by", "minor-faults/op,allocs/op", "--", "./bench"]),
        );
    let text = &ran.stdout;
    assert!(
        text.contains("allocs/op: ") && text.contains("commit 11 did it"),
        "{ran:#?}"
    );
    assert!(!text.contains("minor-faults/op: 1"), "{ran:#?}");
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let bed = Bed::new(&row(220, step(70)));
    let before = bed.everything();
    let mut command = bed.bisect(0, 219);
    command.args(["--by", "allocs/op", "--", "./bench"]);
    let mut kills = 0;
    let ran = loop {
        let running = Running::start(&mut command);
        if kills == 12 {
            break running.wait().exits(0);
        }
        sleep(Duration::from_millis(20 + 37 * kills % 160));
        running.signal(Signal::SIGKILL);
        drop(running);
        kills += 1;
        assert_eq!(bed.everything(), before);
        if bed.path("log/plan.json").exists() {
            command = bed.poise();
            command.arg("--resume").arg(bed.path("log"));
        }
    };
    accuses(&ran, 70);
    assert!(bed.runs() <= 8 + 6 + 4, "{} runs", bed.runs());
    // What is finished stays so.
    let again = bed.runs();
    let ran = finish(bed.poise().arg("--resume").arg(bed.path("log"))).exits(0);
    accuses(&ran, 70);
    assert_eq!(bed.runs(), again);
}

#[test]
fn a_signal_ends_it_in_order() {
    let bed = Bed::new(&row(50, step(20)));
    let running = Running::start(bed.bisect(0, 49).args(["--", "./bench"]));
    sleep(Duration::from_millis(700));
    running.signal(Signal::SIGINT);
    let ran = running.wait().exits(130);
    assert!(ran.stderr.contains("--resume"), "{ran:#?}");
    let ran = finish(bed.poise().arg("--resume").arg(bed.path("log"))).exits(0);
    accuses(&ran, 20);
}

#[test]
fn commits_that_cannot_be_measured_are_named() {
    let trouble = |place: usize| (27..=31).contains(&place);
    let with = |broken, hangs| {
        row(60, move |place| Source {
            broken: broken && trouble(place),
            hangs: hangs && trouble(place),
            ..step(30)(place)
        })
    };
    for (broken, hangs, why) in [(true, false, "cannot be built"), (false, true, "--timeout")] {
        let bed = Bed::new(&with(broken, hangs));
        let ran = by_allocs(bed.bisect(0, 59).args(["--timeout", "400ms"])).exits(0);
        let text = &ran.stdout;
        assert!(
            text.contains("commit 32 did it, or one of the 5 before it"),
            "{ran:#?}"
        );
        assert!(text.contains(why), "{ran:#?}");
    }
    // An end that cannot be measured is one clear line.
    let bed = Bed::new(&row(5, |place| Source {
        broken: place == 0,
        ..step(3)(place)
    }));
    let ran = by_allocs(&mut bed.bisect(0, 4)).exits(1);
    assert!(ran.stdout.contains("cannot be built"), "{ran:#?}");
}

#[test]
fn a_build_that_fails_by_bad_luck_is_tried_again() {
    let bed = Bed::new(&row(40, step(25)));
    let luck = bed.path("luck");
    fs::create_dir(&luck).unwrap();
    let build = format!(
        "m={}/$(git rev-parse HEAD); test -e $m || {{ touch $m; exit 1; }}; cc -O1 -o bench bench.c",
        luck.display()
    );
    let ran = by_allocs(bed.bisect(0, 39).args(["--build", &build])).exits(2);
    assert!(
        ran.stderr.contains("--build"),
        "it is given twice: {ran:#?}"
    );
    let mut command = bed.poise();
    command
        .arg(format!("{}..{}", bed.ids[0], bed.ids[39]))
        .arg("-C")
        .arg(bed.path("repository"))
        .args(["--build", &build, "-j2"]);
    let ran = by_allocs(&mut command).exits(0);
    accuses(&ran, 25);
    assert!(ran.stdout.contains("and 0 that failed"), "{ran:#?}");
}

#[test]
fn merges_are_descended_into() {
    // 0 … 9 in a row; 10 … 15 branch off at 4; 16 merges them into 9; 17 … 20 follow.
    let commits: Vec<Made> = (0..=20)
        .map(|place: usize| Made {
            parents: match place {
                0 => Vec::new(),
                10 => vec![4],
                16 => vec![9, 15],
                _ => vec![place - 1],
            },
            source: step(13)(place),
        })
        .collect();
    let bed = Bed::new(&commits);
    let ran = by_allocs(&mut bed.bisect(0, 20)).exits(0);
    accuses(&ran, 16);
    assert!(ran.stdout.contains("--descend"), "{ran:#?}");
    let mut command = bed.poise();
    command
        .arg(format!("{}..{}", bed.ids[0], bed.ids[20]))
        .arg("-C")
        .arg(bed.path("repository"))
        .args(["--build", "cc -O1 -o bench bench.c", "--descend"]);
    let ran = by_allocs(&mut command).exits(0);
    accuses(&ran, 16);
    let within = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("within the merge"));
    assert!(
        within.is_some_and(|line| line.ends_with("commit 13 did it")),
        "{ran:#?}"
    );
}

#[test]
fn paths_skips_and_orders() {
    let bed = Bed::new(&row(31, step(16)));
    // Of those that touch the note, the first with the change is 18.
    let ran = by_allocs(bed.bisect(0, 30).args(["--path", "note"])).exits(0);
    accuses(&ran, 18);
    let check = |options: &[&str], want: &str| {
        let mut command = bed.poise();
        command
            .arg(format!("{}..{}", bed.ids[0], bed.ids[30]))
            .arg("-C")
            .arg(bed.path("repository"))
            .args(["--build", "cc -O1 -o bench bench.c"])
            .args(options);
        let ran = by_allocs(&mut command).exits(0);
        assert!(ran.stdout.contains(want), "{options:?}: {ran:#?}");
    };
    let skip = format!("{}..{}", bed.ids[14], bed.ids[16]);
    check(
        &["--skip", &skip],
        "commit 17 did it, or one of the 2 before it",
    );
    // benchmany's log is written, and read: nothing is run twice.
    let log = bed.path("bench.log");
    let path = log.to_string_lossy();
    check(&["--bench-log", &path], "commit 16 did it");
    let first = fs::read_to_string(&log).unwrap();
    assert!(first.contains(&format!("commit: {}\n", bed.ids[0])));
    check(&["--bench-log", &path], "commit 16 did it");
    assert_eq!(fs::read_to_string(&log).unwrap(), first);
}

#[test]
fn several_changes_are_all_found() {
    let allocs = |of: fn(usize) -> u32| {
        row(25, move |place| Source {
            rounds: 1,
            allocs: of(place),
            ..Source::default()
        })
    };
    let bed = Bed::new(&allocs(|place| {
        100 + u32::from(place >= 7) + u32::from(place >= 18)
    }));
    let ran = by_allocs(bed.bisect(0, 24).arg("--all")).exits(0);
    let found = |place: usize| ran.stdout.contains(&format!(" commit {place} did it"));
    assert!(found(7) && found(18), "{ran:#?}");
    // One takes back what the other brought: the ends are the same.
    let bed = Bed::new(&allocs(|place| 100 + u32::from((7..18).contains(&place))));
    let ran = by_allocs(&mut bed.bisect(0, 24)).exits(0);
    assert!(ran.stdout.starts_with("allocs/op: no change"), "{ran:#?}");
    let bed = Bed::new(&allocs(|place| 100 + u32::from((7..18).contains(&place))));
    let ran = by_allocs(bed.bisect(0, 24).args(["--scan", "4"])).exits(0);
    let found = |place: usize| ran.stdout.contains(&format!(" commit {place} did it"));
    assert!(found(7) || found(18), "{ran:#?}");
}

#[test]
fn builds_made_ahead_change_nothing() {
    let bed = Bed::new(&row(40, step(23)));
    let ran = by_allocs(bed.bisect(0, 39).args(["-j", "3"])).exits(0);
    accuses(&ran, 23);
    assert!(bed.runs() <= 6 + 6 + 4, "{}", bed.runs());
}

#[test]
fn ranges_that_are_none_are_told() {
    let bed = Bed::new(&row(5, step(3)));
    let repository = bed.path("repository");
    let check = |range: &str, at: &Path, want: &[&str]| {
        let mut command = bed.poise();
        command
            .arg(range)
            .arg("-C")
            .arg(at)
            .args(["--build", "true", "--", "true"]);
        let ran = finish(&mut command).exits(2);
        for word in want {
            assert!(ran.stderr.contains(word), "{range}: {ran:#?}");
        }
    };
    check("main..main", &repository, &["empty"]);
    check(
        "main..main~2",
        &repository,
        &["wrong way round", "main~2..main"],
    );
    check("main", &repository, &["GOOD..BAD"]);
    check("nothing..main", &repository, &["nothing"]);
    check(
        "main~2..main",
        bed.directory.path(),
        &["not a git repository"],
    );
    let from = format!("file://{}", repository.display());
    git(
        bed.directory.path(),
        &["clone", "--quiet", "--depth=2", &from, "shallow"],
    );
    check(
        "main~4..main",
        &bed.path("shallow"),
        &["shallow", "--unshallow"],
    );
    let first = git(&repository, &["rev-parse", "main~4"]);
    git(&repository, &["checkout", "--quiet", "--orphan", "other"]);
    git(&repository, &["commit", "--quiet", "-m", "other"]);
    check("main..other", &repository, &["no ancestor"]);
    assert_eq!(first.trim(), bed.ids[0]);
}

#[test]
fn what_is_not_committed_is_told_and_left_alone() {
    let bed = Bed::new(&row(20, step(7)));
    let source = bed.path("repository/bench.c");
    fs::write(&source, "nonsense").unwrap();
    let before = bed.everything();
    let ran = by_allocs(&mut bed.bisect(0, 19)).exits(0);
    accuses(&ran, 7);
    assert!(ran.stderr.contains("not committed"), "{ran:#?}");
    assert_eq!(bed.everything(), before);
}

#[test]
fn nothing_changed_and_no_figures() {
    let bed = Bed::new(&row(9, step(100)));
    let ran = by_allocs(&mut bed.bisect(0, 8)).exits(0);
    assert!(ran.stdout.starts_with("allocs/op: no change"), "{ran:#?}");
    let bed = Bed::new(&row(9, step(5)));
    let ran = finish(bed.bisect(0, 8).args(["--by", "cups/op", "--", "./bench"])).exits(1);
    assert!(
        ran.stdout.contains("no figure of cups/op; there are"),
        "{ran:#?}"
    );
    let bed = Bed::new(&row(9, step(5)));
    let ran = finish(bed.bisect(0, 8).args(["--", "./no-such-benchmark"])).exits(1);
    assert!(
        ran.stdout
            .contains("cannot run ./no-such-benchmark: not found"),
        "{ran:#?}"
    );
}

#[test]
fn a_simulation_shows_what_to_expect() {
    let line = "bisect --simulate --trials 8 --commits 200 --step 20% --noise 5%";
    let ran = run(line.split(' ')).exits(0);
    let row = |name: &str| {
        ran.stdout
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
    };
    assert!(row("posterior").contains("100.0 %"), "{ran:#?}");
    assert!(
        row("git bisect, mean of k pairs").contains("k = "),
        "{ran:#?}"
    );
    run("bisect --trials 8 HEAD~1..HEAD -- true".split(' ')).exits(2);
}
