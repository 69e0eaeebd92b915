//! Running the program under test, reading what it left, and the little program that it measures.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use counterpoise::format::Reader;
use counterpoise::sample::{Figure, Record, Sample};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::raw;

/// Far longer than anything takes on the busiest machine: only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program under test, with nothing of our terminal's settings.
pub(crate) fn poise() -> Command {
    poise_at(env!("CARGO_BIN_EXE_poise").as_ref())
}

/// A copy of the program under test.
pub(crate) fn poise_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    for setting in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "SUDO_UID"] {
        command.env_remove(setting);
    }
    // Tests run side by side; who holds would make the others wait.
    command.env("POISE_NO_HOLD", "1");
    command.stdin(Stdio::null());
    raw::default_signals(&mut command);
    command
}

/// Runs the program to its end.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    finish(poise().args(arguments))
}

/// Runs `command` to its end.
pub(crate) fn finish(command: &mut Command) -> Ran {
    Running::start(command).wait()
}

/// The words of `text`, which has no quotes.
pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// A directory for one test, gone with the value.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A process and its output. Killed when it is dropped before its end.
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Output goes into files: unlike pipes they neither fill nor stay open in descendants.
    pub(crate) fn start(command: &mut Command) -> Running {
        let stdout = tempfile::tempfile().unwrap();
        command.stdout(stdout.try_clone().unwrap());
        Running::start_beside(command, stdout)
    }

    /// Leaves standard output as it was set.
    pub(crate) fn start_with_stdout(command: &mut Command, stdout: Stdio) -> Running {
        command.stdout(stdout);
        Running::start_beside(command, tempfile::tempfile().unwrap())
    }

    fn start_beside(command: &mut Command, stdout: File) -> Running {
        let stderr = tempfile::tempfile().unwrap();
        command.stderr(stderr.try_clone().unwrap());
        let child = command.spawn().unwrap();
        Running {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> Ran {
        let status = eventually("the end of a process", || self.child.try_wait().unwrap());
        let text = |mut file: &File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ran {
            code: status.code(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Standard error has all these words.
    #[track_caller]
    pub(crate) fn says(self, all: &[&str]) -> Ran {
        for text in all {
            assert!(self.stderr.contains(text), "no `{text}` in {self:#?}");
        }
        self
    }

    /// Standard output has all these words.
    #[track_caller]
    pub(crate) fn shows(self, all: &[&str]) -> Ran {
        for text in all {
            assert!(self.stdout.contains(text), "no `{text}` in {self:#?}");
        }
        self
    }

    /// Nothing was said and nothing shown.
    #[track_caller]
    pub(crate) fn silently(self) -> Ran {
        assert_eq!((&*self.stdout, &*self.said()), ("", ""), "{self:#?}");
        self
    }

    /// What was said, but for the remark that belongs to ordinary users.
    pub(crate) fn said(&self) -> String {
        let lines = self.stderr.split_inclusive('\n');
        lines
            .filter(|line| !line.contains("counted in user mode only"))
            .collect()
    }

    /// One line says what is wrong, at most one more what mends it, and nothing else is printed.
    #[track_caller]
    pub(crate) fn refuses(self, code: i32, all: &[&str]) -> Ran {
        let ran = self.exits(code).says(all);
        let words = ran.said();
        assert!(words.starts_with("poise: error: "), "{ran:#?}");
        assert!(words.lines().count() <= 2, "{ran:#?}");
        assert_eq!(ran.stdout, "", "{ran:#?}");
        ran
    }
}

/// All records of a file that must be whole.
#[track_caller]
pub(crate) fn whole_records(path: &Path) -> Vec<Record> {
    let (records, whole) = read_records(path);
    assert!(whole, "{} is not whole: {records:#?}", path.display());
    records
}

/// All records of a file, and whether it is whole. No line of it may be bad.
#[track_caller]
pub(crate) fn read_records(path: &Path) -> (Vec<Record>, bool) {
    let file = BufReader::new(File::open(path).unwrap());
    let mut reader = Reader::new(path.display().to_string(), file);
    let records: Vec<Record> = reader.by_ref().collect();
    for record in &records {
        assert!(!matches!(record, Record::Syntax(_)), "{record:?}");
    }
    (records, reader.whole())
}

/// The samples among `records`, in their order.
pub(crate) fn samples(records: &[Record]) -> Vec<&Sample> {
    let sample = records.iter().map(|record| match record {
        Record::Sample(sample) => Some(sample),
        _ => None,
    });
    sample.flatten().collect()
}

/// Measures with `arguments` and gives the samples.
#[track_caller]
pub(crate) fn measure<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Vec<Sample> {
    let directory = scratch();
    let file = directory.path().join("records");
    let arguments: Vec<A> = arguments.into_iter().collect();
    let (verb, rest) = arguments.split_first().unwrap();
    let mut command = poise();
    command.arg(verb).arg("-q").arg("-o").arg(&file).args(rest);
    finish(&mut command).exits(0).silently();
    let records = whole_records(&file);
    samples(&records).into_iter().cloned().collect()
}

/// The exact figure of `unit`.
#[track_caller]
pub(crate) fn exact(sample: &Sample, unit: &str) -> f64 {
    match sample.figure(unit) {
        Some(Figure::Exact(value)) => *value,
        other => panic!("{unit} is {other:?} in {sample:#?}"),
    }
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A process that a measured command told the number of. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Descendant(Pid);

impl Descendant {
    /// Waits until its number stands in `file`, on a whole line.
    #[track_caller]
    pub(crate) fn told_in(file: &Path) -> Descendant {
        let pid = eventually("the number of a process", || {
            let text = fs::read_to_string(file).ok()?;
            text.strip_suffix('\n')?.parse().ok()
        });
        Descendant(Pid::from_raw(pid))
    }

    pub(crate) fn is_gone(&self) -> bool {
        let stat = procfs::process::Process::new(self.0.as_raw()).and_then(|p| p.stat());
        // Where nobody reaps orphans, they stay as zombies.
        stat.map_or(true, |stat| ['Z', 'X'].contains(&stat.state))
    }

    #[track_caller]
    pub(crate) fn must_go(self) {
        eventually("the end of a descendant", || self.is_gone().then_some(()));
    }
}

impl Drop for Descendant {
    fn drop(&mut self) {
        if !self.is_gone() {
            let _ = kill(self.0, Signal::SIGKILL);
        }
    }
}

/// Says what was not tested and why; past the capture of test output, which hides what passes.
pub(crate) fn not_run(what: &str, why: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "not run: {what}: {why}");
}

/// Whether this machine counts `event`; says so when it does not.
pub(crate) fn counts(what: &str, event: &str) -> bool {
    let ran = run(["stat", "-q", "--json", "-e", event, "--", "true"]);
    let lines = ran.stdout.lines();
    let sample = lines
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|record| record["record"] == "sample");
    // What perf counts stands behind our own values.
    let value = sample.and_then(|sample| sample["values"].as_array()?.last().cloned());
    let why = match value {
        None => ran.stderr.trim().to_owned(),
        Some(value) if value["trust"] != "absent" => return true,
        Some(value) => format!("{event} is not counted: {}", value["why"]),
    };
    not_run(what, why);
    false
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program whose faults and system calls are known: `pages N` touches N fresh pages, `late N`
/// does so once it has read a byte, `writes N` calls write(2) N times.
const EXERCISE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long n = argc > 2 ? atol(argv[2]) : 0;
    long page = sysconf(_SC_PAGESIZE), most = 4096;
    char byte;
    if (n > most)
        return 2;
    if (!strcmp(argv[1], "writes")) {
        int null = open("/dev/null", O_WRONLY);
        for (long i = 0; i < n; i++)
            if (write(null, &byte, 1) != 1)
                return 1;
        return 0;
    }
    char *memory = mmap(NULL, most * page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    madvise(memory, most * page, MADV_NOHUGEPAGE);
    if (!strcmp(argv[1], "late") && read(0, &byte, 1) < 0)
        return 1;
    for (long i = 0; i < n; i++)
        ((volatile char *)memory)[i * page] = 1;
    return 0;
}
"#;

/// The program of [`EXERCISE`], compiled once; none, with a word about it, without a C compiler.
pub(crate) fn exercise(what: &str) -> Option<&'static Path> {
    static COMPILED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (source, program) = (directory.join("exercise.c"), directory.join("exercise"));
        fs::write(&source, EXERCISE).map_err(|error| error.to_string())?;
        // Without a dynamic loader its faults do not depend on the libraries' files.
        for linking in [&["-static"][..], &[]] {
            let mut compiler = Command::new("cc");
            compiler.args(linking).arg("-o").arg(&program).arg(&source);
            match compiler.output() {
                Err(error) => return Err(format!("no C compiler: {error}")),
                Ok(output) if output.status.success() => return Ok(program),
                Ok(_) => {}
            }
        }
        Err("the C compiler failed".to_owned())
    });
    match compiled {
        Ok(program) => Some(program),
        Err(why) => {
            not_run(what, why);
            None
        }
    }
}
