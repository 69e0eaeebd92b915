//! Running a program once that is not measured: within a time, stopped whole, all that it says kept. Never decides what its words mean.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::run::interrupt::Interrupt;
use crate::sample::Cause;

/// Bytes of its words that are kept; what a program says beyond them is counted and dropped.
const LOG_BYTES: usize = 256 << 20;

/// A program, its arguments, and all that it finds when it starts.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// The file to execute.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; `None` is our own working directory.
    pub directory: Option<PathBuf>,
    /// Its standard input; `None` is empty.
    pub stdin: Option<Arc<File>>,
    /// Where its words go.
    pub words: Words,
}

/// Where a program's words go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// All into the log that it leaves.
    #[default]
    Kept,
    /// Standard output into this file, standard error into the log.
    OutputTo(PathBuf),
    /// All into this file, which exists, behind what is there.
    AppendedTo(PathBuf),
}

/// What ends a program before it ends by itself.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// How long it may run.
    pub timeout: Duration,
    /// The user's wish to stop.
    pub interrupt: &'a Interrupt,
}

impl Limits<'_> {
    /// The same for what compiles much: an hour at least.
    pub fn for_much(self) -> Self {
        let timeout = self.timeout.max(Duration::from_secs(3600));
        Limits { timeout, ..self }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// By us: it ran too long.
    TimedOut(Duration),
    /// By us: we were asked to stop.
    Interrupted(Signal),
}

/// What a program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output, unless that went to a file, and to standard error.
    pub log: Vec<u8>,
    /// Bytes that it wrote beyond those.
    pub unkept_bytes: usize,
}

impl Ended {
    /// Why it did not end well; `None` when it did.
    pub fn failure(&self) -> Option<String> {
        match self.end {
            End::Exited(0) => None,
            End::Exited(status) => Some(format!("exit status {status}")),
            End::Killed(signal) => Some(match Signal::try_from(signal) {
                Ok(signal) => format!("killed by {signal}"),
                Err(_) => format!("killed by signal {signal}"),
            }),
            End::TimedOut(after) => Some(format!(
                "killed: it did not end within {}",
                humantime::format_duration(after)
            )),
            End::Interrupted(signal) => Some(format!("stopped by {signal}")),
        }
    }

    /// What it said, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    /// The first line that says something, for a message of one line.
    pub fn first_line(&self) -> Option<String> {
        first_line(&self.text())
    }
}

/// The first line of a text that says something: rather none of those that tools of Go print also
/// when nothing is wrong, which are headings, phases, and a notice.
pub(super) fn first_line(text: &str) -> Option<String> {
    const IDLE: [&str; 3] = ["# ", "Benchmark", "loadinternal: "];
    let is_idle = |line: &&str| IDLE.iter().any(|idle| line.starts_with(idle));
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty()).peekable();
    let first = lines.peek().copied();
    lines
        .find(|line| !is_idle(line))
        .or(first)
        .map(str::to_owned)
}

impl Invocation {
    /// Runs it to its end or to a limit. It leads a process group of its own, which ends with it.
    ///
    /// Errors: it could not be started or listened to; the cause has its name.
    pub fn run(&self, limits: Limits<'_>) -> Result<Ended, Cause> {
        let named = self.program.display();
        self.attempt(limits)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOEXEC) => Cause::new(format!(
                    "{named} is not a program that this machine can execute"
                )),
                Some(libc::EACCES) => Cause::new(format!("{named} is not executable"))
                    .cure(format!("chmod +x {named}")),
                _ => Cause::new(format!("cannot run {named}: {error}")),
            })
    }

    fn attempt(&self, limits: Limits<'_>) -> io::Result<Ended> {
        let (mut words, end_of_child) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(match &self.stdin {
                Some(file) => Stdio::from(file.try_clone()?),
                None => Stdio::null(),
            })
            .process_group(0);
        let [stdout, stderr] = match &self.words {
            Words::Kept => [end_of_child.try_clone()?.into(), end_of_child.into()],
            Words::OutputTo(file) => [Stdio::from(File::create(file)?), end_of_child.into()],
            Words::AppendedTo(file) => {
                drop(end_of_child);
                let file = File::options().append(true).open(file)?;
                [Stdio::from(file.try_clone()?), Stdio::from(file)]
            }
        };
        command.stdout(stdout).stderr(stderr);
        if let Some(directory) = &self.directory {
            // By links, too, it is to be called as we call it.
            command.current_dir(directory).env("PWD", directory);
        }
        let mut group = Group(command.spawn()?);
        // Our ends of the pipe: else it never comes to its end.
        drop(command);
        let deadline = Instant::now().checked_add(limits.timeout);
        let mut ended = Ended {
            end: End::Exited(0),
            log: Vec::new(),
            unkept_bytes: 0,
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(end) = stop(deadline, limits) {
                return Ok(Ended { end, ..ended });
            }
            let mut ready = [
                PollFd::new(words.as_fd(), PollFlags::POLLIN),
                PollFd::new(limits.interrupt.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut ready, remaining(deadline)).or_else(ignore_eintr)?;
            if !ready[0].any().unwrap_or_default() {
                continue;
            }
            match words.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    let kept = read.min(LOG_BYTES - ended.log.len());
                    ended.log.extend_from_slice(&buffer[..kept]);
                    ended.unkept_bytes += read - kept;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Nobody can say anything more, but it may still run.
        let mut pause = Duration::from_micros(100);
        let status = loop {
            if let Some(status) = group.0.try_wait()? {
                break status;
            }
            if let Some(end) = stop(deadline, limits) {
                return Ok(Ended { end, ..ended });
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        ended.end = end_of(status);
        Ok(ended)
    }
}

/// A program whose group does not outlive this.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Before it is reaped its number is nobody else's; its descendants keep the group's.
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Whether a limit has been reached.
fn stop(deadline: Option<Instant>, limits: Limits<'_>) -> Option<End> {
    if let Some(signal) = limits.interrupt.caught() {
        return Some(End::Interrupted(signal));
    }
    let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    late.then_some(End::TimedOut(limits.timeout))
}

fn remaining(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: nothing is asked again and again within the last millisecond.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

fn ignore_eintr(errno: nix::errno::Errno) -> nix::Result<i32> {
    match errno {
        nix::errno::Errno::EINTR => Ok(0),
        errno => Err(errno),
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Killed(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Ended {
        let interrupt = Interrupt::listen().unwrap();
        let invocation = Invocation {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            ..Invocation::default()
        };
        let limits = Limits {
            timeout,
            interrupt: &interrupt,
        };
        invocation.run(limits).unwrap()
    }

    #[test]
    fn ends_are_told_apart() {
        let check = |script: &str, end: End, log: &str| {
            let ended = shell(script, Duration::from_secs(60));
            assert_eq!((ended.end, &*ended.text()), (end, log), "{script}");
        };
        check("echo out; echo err >&2", End::Exited(0), "out\nerr\n");
        check("exit 3", End::Exited(3), "");
        check("kill -SEGV $$", End::Killed(11), "");
        check("exec >&- 2>&-; sleep 0.05; exit 4", End::Exited(4), "");
        check("cat", End::Exited(0), "");
    }

    #[test]
    fn the_first_line_that_says_something_is_found() {
        let check = |text: &str, want: Option<&str>| assert_eq!(first_line(text).as_deref(), want);
        check("\n  \nno such file\nmore\n", Some("no such file"));
        check("# runtime\na.s:1: no\n", Some("a.s:1: no"));
        check(
            "BenchmarkLibinit 1 2 ns/op\nloadinternal: x\nlink: no\n",
            Some("link: no"),
        );
        check("# all that there is\n", Some("# all that there is"));
        check(" \n", None);
    }

    #[test]
    fn what_hangs_is_ended_with_its_descendants() {
        let timeout = Duration::from_millis(200);
        let began = Instant::now();
        for script in ["echo begun; sleep 60 & wait", "exec >&- 2>&-; sleep 60"] {
            let ended = shell(script, timeout);
            assert_eq!(ended.end, End::TimedOut(timeout));
            let why = ended.failure().unwrap();
            assert_eq!(why, "killed: it did not end within 200ms");
        }
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_cannot_be_started_has_a_cause() {
        let interrupt = Interrupt::listen().unwrap();
        let limits = Limits {
            timeout: Duration::from_secs(1),
            interrupt: &interrupt,
        };
        let mut invocation = Invocation {
            program: "/etc/passwd".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            ..Invocation::default()
        };
        let cause = invocation.run(limits).unwrap_err();
        assert!(cause.why.contains("not executable"), "{cause}");
        invocation.program = "/nowhere/compile".into();
        let cause = invocation.run(limits).unwrap_err();
        assert!(
            cause.why.starts_with("cannot run /nowhere/compile"),
            "{cause}"
        );
    }
}
