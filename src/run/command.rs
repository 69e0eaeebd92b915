//! The workload that is a command: launched suspended, counted from its exec, reaped with its own usage. Never runs a shell unless that is the command.

use std::cell::Cell;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, access};

use super::interrupt::Interrupt;
use super::ptraced::Ptraced;
use super::schedule::Turn;
use super::surroundings::Surroundings;
use super::wait::{Wait, Woken};
use super::{Error, Intervals, Observed, Outcome, Workload, c_string, cpus_used, exact};
use crate::perf;
use crate::perf::group::How;
use crate::perf::plan::{Plan, Readings};
use crate::sample::{Figure, Name, Part, Value, Warning};
use crate::sys::child::{Child, Launcher, Program, Usage, open_pidfd};
use crate::sys::perf_event::Target;

/// Where a command's standard output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To `/dev/null`.
    Null,
    /// Where ours goes.
    Inherit,
    /// To a file, which is truncated first and then appended to by every run.
    File(PathBuf),
}

/// What is run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Program and arguments; not empty.
    pub argv: Vec<OsString>,
    /// Its standard output. With [`Output::Inherit`] its standard input and error are ours too,
    /// and where there is a terminal it stays in our process group, so that it may use it;
    /// else input is empty, and of the error output the end is kept for the failure report.
    pub output: Output,
    /// A shell command that runs before every run, unmeasured.
    pub prepare: Option<String>,
    /// It is ended after this long.
    pub timeout: Option<Duration>,
    /// Counts are given once in this long, too.
    pub interval: Option<Duration>,
    /// What it is given that it would not inherit.
    pub surroundings: Surroundings,
    /// A run that ends badly is a sample all the same.
    pub ignore_failure: bool,
    /// Seconds between the ticks at which user and system time are sampled; `None` where the
    /// kernel times every transition.
    pub tick_sec: Option<f64>,
}

/// A command, ready to be launched again and again.
pub struct Command<'p> {
    options: Options,
    name: Name,
    variant: String,
    prepared: Prepared,
    /// Our own peak of resident memory when it was last looked at.
    own_peak_kib: Cell<u64>,
    plan: &'p Plan,
}

/// A program found, with everything that all its runs share.
pub(super) struct Prepared {
    pub(super) program: String,
    pub(super) launcher: Launcher,
    pub(super) own_session: bool,
    stderr: Option<OwnedFd>,
}

impl Prepared {
    /// Errors: [`Error::Exec`] when there is no such program, [`Error::System`] when its output
    /// cannot be opened.
    pub(super) fn new(options: &Options, environment: Vec<CString>) -> Result<Prepared, Error> {
        let path = find_program(&options.argv[0])?;
        let null = |write: bool| {
            OpenOptions::new()
                .read(!write)
                .write(write)
                .open("/dev/null")
                .map(OwnedFd::from)
        };
        let system = |action: &str| Error::system(action.to_owned());
        let (mut stderr, mut files) = (None, Vec::new());
        if options.output != Output::Inherit {
            let (read, write) = io::pipe().map_err(system("make a pipe"))?;
            nix::fcntl::fcntl(
                &read,
                nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
            )
            .map_err(|errno| system("set up a pipe")(errno.into()))?;
            stderr = Some(OwnedFd::from(read));
            let output = match &options.output {
                Output::File(path) => {
                    let opened =
                        File::create(path).and_then(|_| OpenOptions::new().append(true).open(path));
                    opened
                        .map(OwnedFd::from)
                        .map_err(Error::system(format!("open {}", path.display())))?
                }
                _ => null(true).map_err(system("open /dev/null"))?,
            };
            files = vec![
                Some(null(false).map_err(system("open /dev/null"))?),
                Some(output),
                Some(write.into()),
            ];
        }
        // A program that may use our terminal must be in its foreground group, whatever its
        // standard descriptors are: in another one it would be stopped.
        let interactive = options.output == Output::Inherit && File::open("/dev/tty").is_ok();
        let program = Program {
            path,
            argv: options
                .argv
                .iter()
                .cloned()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            envp: environment,
            files,
            entrance: options.surroundings.entrance.clone(),
            affinity: options.surroundings.affinity()?,
            settings: options.surroundings.settings,
            own_session: !interactive,
        };
        let launcher = Launcher::new(program).map_err(system("prepare to launch"))?;
        Ok(Prepared {
            program: options.argv[0].to_string_lossy().into_owned(),
            launcher,
            own_session: !interactive,
            stderr,
        })
    }

    /// Waits for the end of `child` and, when it is time, brings it about; calls `tick` after
    /// every interval. Gives the tail of its standard error, too. A `tracer`, if there is one, is
    /// told of what becomes of the child, and tells of its end.
    pub(super) fn attend(
        &self,
        child: &Child,
        mut wait: Wait<'_>,
        tick: &mut dyn FnMut() -> Result<(), Error>,
        mut tracer: Option<&mut Ptraced>,
    ) -> Result<(Ending, Vec<u8>), Error> {
        let mut ending = Ending::ByItself;
        loop {
            let watched = match &tracer {
                Some(tracer) => tracer.readable(),
                None => child.pidfd(),
            };
            let woken = wait.until(Some(watched), self.stderr.as_ref());
            let signal = match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
                Woken::Ended => {
                    let has_ended = match &mut tracer {
                        Some(tracer) => tracer.advance()?,
                        None => true,
                    };
                    match has_ended {
                        true => return Ok((ending, wait.into_tail())),
                        false => continue,
                    }
                }
                Woken::Tick => {
                    tick()?;
                    continue;
                }
                Woken::TimeUp if ending == Ending::ByItself => {
                    ending = Ending::TimedOut;
                    Signal::SIGTERM
                }
                // It was asked to end, and did not.
                Woken::TimeUp => Signal::SIGKILL,
                Woken::Interrupted(signal) => {
                    ending = Ending::Interrupted(signal);
                    if !self.own_session && matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
                        // The terminal has sent it to the child as well, which may know better
                        // than to end: a shell, a debugger.
                        continue;
                    }
                    signal
                }
            };
            // It may have ended just now; then the next wait says so.
            let _ = child.signal(signal);
            wait.hurry(GRACE);
        }
    }

    /// Does what comes before the run of this turn: the command of the user that prepares it, and
    /// the padding of the environment.
    pub(super) fn prepare(
        &mut self,
        options: &Options,
        turn: &Turn,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        if let Some(prepare) = &options.prepare {
            run_prepare(prepare, interrupt)?;
        }
        if let Some(bytes) = options.surroundings.padding_bytes(turn) {
            let padded = self.launcher.pad(bytes);
            padded.map_err(Error::system("lengthen the environment"))?;
        }
        Ok(())
    }

    /// The child of this program that waits for its release.
    pub(super) fn start(&mut self) -> Result<Child, Error> {
        let started = self.launcher.start();
        started.map_err(Error::system(format!(
            "start a process for {}",
            self.program
        )))
    }
}

impl<'p> Command<'p> {
    /// Finds the program and prepares everything that all its runs share.
    ///
    /// Errors: [`Error::Exec`] when there is no such program, [`Error::System`] when its output
    /// cannot be opened.
    pub fn new(
        name: Name,
        variant: &str,
        options: Options,
        plan: &'p Plan,
    ) -> Result<Command<'p>, Error> {
        Command::in_environment(name, variant, options, super::environment()?, plan)
    }

    /// The same, with another environment than ours: `KEY=value` for each variable.
    ///
    /// Errors: those of [`Command::new`].
    pub fn in_environment(
        name: Name,
        variant: &str,
        options: Options,
        environment: Vec<CString>,
        plan: &'p Plan,
    ) -> Result<Command<'p>, Error> {
        let prepared = Prepared::new(&options, environment)?;
        Ok(Command {
            options,
            name,
            variant: variant.to_owned(),
            prepared,
            own_peak_kib: Cell::new(0),
            plan,
        })
    }

    /// The kernel counts in what a child had resident before its exec, and that is our memory:
    /// below our own peak it tells nothing of the child.
    fn peak_rss(&self, child_kib: u64) -> Figure {
        // Our peak only grows: what is below an old one is below the present one.
        if child_kib > self.own_peak_kib.get() + SLACK_KIB {
            let own = procfs::process::Process::myself().and_then(|own| own.status());
            let Some(own_kib) = own.ok().and_then(|status| status.vmhwm) else {
                return Figure::absent(
                    "our own resident set, which the kernel counts in until the exec, cannot be read",
                );
            };
            self.own_peak_kib.set(own_kib);
        }
        match self.own_peak_kib.get() {
            own_kib if child_kib > own_kib + SLACK_KIB => Figure::Exact(child_kib as f64 * 1024.0),
            own_kib => Figure::absent(format!(
                "it stayed below the {own_kib} KiB of poise itself, which the kernel counts in until the exec"
            )),
        }
    }

    fn uncounted(&self, error: &perf::Error) -> Error {
        Error::Count(self.plan.access().explain(error))
    }

    /// Why no counters could be opened on `child`: it may not have lived so long.
    fn unopened(&self, child: Child, error: &perf::Error) -> Error {
        let _ = child.signal(Signal::SIGKILL);
        match child.reap().map(|exit| exit.setup_error) {
            Ok(Some((step, errno))) => self.options.surroundings.failed(step, errno),
            _ => self.uncounted(error),
        }
    }

    /// The values that do not come from perf.
    fn own_values(&self, wall: Duration, usage: &Usage) -> Vec<Value> {
        let [user, system] = cpu_values(usage, self.options.tick_sec);
        vec![
            exact("sec/op", wall.as_secs_f64()),
            user,
            system,
            Value::new("peak-RSS-bytes", self.peak_rss(usage.peak_rss_kib)),
            exact("involuntary-switches/op", usage.involuntary_switches as f64),
        ]
    }
}

impl Workload for Command<'_> {
    fn benchmark(&self) -> &Name {
        &self.name
    }

    fn variant(&self) -> &str {
        &self.variant
    }

    fn config(&self, turn: &Turn) -> Vec<(String, String)> {
        self.options.surroundings.config(turn)
    }

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        self.prepared.prepare(&self.options, turn, interrupt)?;
        if let Some(signal) = interrupt.caught() {
            return Ok(Outcome::Interrupted(signal));
        }
        let rotation = (!turn.only).then_some(turn.order.round);
        let child = self.prepared.start()?;
        let how = How {
            inherit: true,
            enable_on_exec: true,
            user_access: false,
        };
        let target = Target::Thread(child.pid().as_raw());
        let counting = match self.plan.open(rotation, target, how) {
            Ok(counting) => counting,
            Err(error) => return Err(self.unopened(child, &error)),
        };
        let read = || counting.read().map_err(|error| self.uncounted(&error));

        let released = Instant::now();
        child.release();
        let mut intervals = Intervals::new(self.plan, rotation, released);
        let wait = Wait::new(
            released,
            self.options.timeout,
            self.options.interval,
            interrupt,
        );
        let (ending, stderr) = self.prepared.attend(
            &child,
            wait,
            &mut || {
                partly(intervals.observe(read()?, self.options.interval)).map_err(Error::Output)
            },
            None,
        )?;
        let wall = released.elapsed();
        let pid = child.pid();
        let exit = child.reap().map_err(Error::system("wait for the child"))?;
        if let Some((step, errno)) = exit.setup_error {
            return Err(self.options.surroundings.failed(step, errno));
        }
        if let Some(errno) = exit.exec_error {
            return Err(Error::Exec {
                program: self.prepared.program.clone(),
                errno,
            });
        }
        let mut observed = Observed {
            iterations: 1,
            ..Observed::default()
        };
        observed.values = self.own_values(wall, &exit.usage);
        let readings = read()?;
        if self.options.interval.is_some() {
            // The last one is shorter; with it the intervals add up to the whole.
            partly(intervals.observe(readings.clone(), self.options.interval))
                .map_err(Error::Output)?;
        }
        let mut counted = self.plan.values(rotation, &readings);
        if counters_were_lost(&readings, &exit.usage) {
            for (_, value) in &mut counted {
                value.figure = only_before_loss(value.figure.clone());
            }
        }
        observed.values.extend(cpus_used(&counted, wall));
        observed
            .values
            .extend(counted.into_iter().map(|(_, value)| value));
        if self.prepared.own_session && killpg(pid, None).is_ok() {
            if ending == Ending::ByItself {
                observed.warnings.push(Warning(
                    "it left processes behind; what they do later is not counted".to_owned(),
                ));
            } else {
                let _ = killpg(pid, Signal::SIGKILL);
            }
        }
        let failure = match ending {
            Ending::Interrupted(signal) => {
                if turn.only && self.options.interval.is_none() {
                    observed
                        .warnings
                        .push(Warning(format!("cut short by {signal}")));
                    partly(observed).map_err(Error::Output)?;
                }
                return Ok(Outcome::Interrupted(signal));
            }
            Ending::TimedOut => Some(("it ran longer than --timeout".to_owned(), 124)),
            Ending::ByItself => failure(exit.code, exit.signal),
        };
        match failure {
            None => Ok(Outcome::Observed(observed)),
            Some((why, code)) if turn.only || self.options.ignore_failure => {
                observed.warnings.push(Warning(why));
                observed.code = if self.options.ignore_failure { 0 } else { code };
                Ok(Outcome::Observed(observed))
            }
            Some((why, code)) => Ok(Outcome::Failed {
                why,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
                code,
            }),
        }
    }
}

/// CPU time in user mode and in the kernel; `tick_sec` as in [`Options`].
pub(super) fn cpu_values(usage: &Usage, tick_sec: Option<f64>) -> [Value; 2] {
    let cpu_sec = (usage.user_us + usage.system_us) as f64 / 1e6;
    let split = |us: u64| {
        let value = us as f64 / 1e6;
        match tick_sec {
            None => Figure::Exact(value),
            Some(tick_sec) if cpu_sec < LEAST_TICKS * tick_sec => Figure::absent(format!(
                "the run used less CPU time than {LEAST_TICKS} ticks of {} ms, at which the kernel tells user from system",
                tick_sec * 1e3
            )),
            Some(period_sec) => Figure::Sampled { value, period_sec },
        }
    };
    [
        Value::new("user-sec/op", split(usage.user_us)),
        Value::new("sys-sec/op", split(usage.system_us)),
    ]
}

/// Whether the command ran on without its counters: the kernel takes them off a process that
/// executes a set-user-ID program, and whoever has no privilege over that.
fn counters_were_lost(readings: &Readings, usage: &Usage) -> bool {
    /// What the process may use before its exec, where the counters start, and a tick.
    const SLACK_NS: u64 = 10_000_000;
    let enabled_ns = readings.iter().flatten().map(|reading| reading.enabled_ns);
    let used_ns = (usage.user_us + usage.system_us) * 1000;
    // Enabled time is the time on a CPU, of all descendants; the usage is that of some of them.
    enabled_ns
        .max()
        .is_some_and(|ns| used_ns > ns + ns / 8 + SLACK_NS)
}

fn only_before_loss(figure: Figure) -> Figure {
    match figure.number() {
        None => figure,
        Some(value) => Figure::Partial {
            value,
            part: Part("until a set-user-ID program, which may not be counted".to_owned()),
        },
    }
}

/// How the wait for a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    ByItself,
    TimedOut,
    Interrupted(Signal),
}

/// Ticks of CPU time below which their split into user and system time is a coin's throw.
const LEAST_TICKS: f64 = 2.0;

/// The kernel's counters of resident pages lag by some pages a CPU.
const SLACK_KIB: u64 = 256;

/// How long a child that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Why and with which exit code the end of a child, by a code or by a signal, is a failure.
pub(super) fn failure(code: Option<i32>, signal: Option<i32>) -> Option<(String, u8)> {
    match (code, signal) {
        (Some(0), _) => None,
        (Some(code), _) => Some((format!("exit status {code}"), code as u8)),
        (None, Some(number)) => {
            let name = Signal::try_from(number)
                .map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            Some((
                format!("killed by {name}"),
                128u8.saturating_add(number as u8),
            ))
        }
        (None, None) => Some(("an end without status".to_owned(), 125)),
    }
}

/// Runs `command` to its end, or until we are asked to stop, which is no failure of it.
fn run_prepare(command: &str, interrupt: &Interrupt) -> Result<(), Error> {
    let mut shell = process::Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .envs(super::variables()?)
        .stdin(process::Stdio::null())
        .stdout(process::Stdio::null())
        .spawn()
        .map_err(Error::system("run /bin/sh for --prepare"))?;
    let woken = open_pidfd(shell.id() as i32).and_then(|pidfd| {
        let mut wait = Wait::new(Instant::now(), None, None, interrupt);
        Ok(wait.until(Some(pidfd.as_fd()), None)?)
    });
    if !matches!(woken, Ok(Woken::Ended)) {
        // It may have ended just now.
        let _ = shell.kill();
    }
    let status = shell.wait().map_err(Error::system("wait for --prepare"))?;
    woken.map_err(Error::system("wait for --prepare"))?;
    match status.success() || interrupt.caught().is_some() {
        true => Ok(()),
        false => Err(Error::Prepare(format!(
            "the preparation `{command}` failed: {status}"
        ))),
    }
}

/// Where programs are looked for when nothing says where, as by execvp(3).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that a shell would execute for `program`.
///
/// Errors: [`Error::Exec`].
pub fn find_program(program: &OsStr) -> Result<CString, Error> {
    let failed = |errno| Error::Exec {
        program: program.to_string_lossy().into_owned(),
        errno,
    };
    let executable = |path: &Path| match std::fs::metadata(path) {
        Err(error) => Err(Errno::from_raw(
            error.raw_os_error().unwrap_or(libc::ENOENT),
        )),
        Ok(file) if !file.is_file() => Err(Errno::EACCES),
        Ok(_) => access(path, AccessFlags::X_OK),
    };
    if program.is_empty() {
        return Err(failed(Errno::ENOENT));
    }
    if program.as_bytes().contains(&b'/') {
        executable(Path::new(program)).map_err(failed)?;
        return c_string(program.to_owned());
    }
    let mut refusal = Errno::ENOENT;
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    // No name is no program, though joined to a directory it would name that.
    for directory in std::env::split_paths(&path).filter(|_| !program.is_empty()) {
        // An empty element of $PATH is the current directory.
        let path = Path::new(".").join(directory).join(program);
        match executable(&path) {
            Ok(()) => return c_string(path.into_os_string()),
            // Not where the directory itself is closed to us.
            Err(Errno::EACCES) if path.is_file() => refusal = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(failed(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::reading::Reading;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let check = |program: &str, want: Result<(), Errno>| {
            let found = find_program(program.as_ref()).map(drop);
            let got = found.map_err(|error| match error {
                Error::Exec { errno, .. } => errno,
                other => panic!("{other}"),
            });
            assert_eq!(got, want, "{program:?}");
        };
        check("sh", Ok(()));
        check("/bin/sh", Ok(()));
        check("", Err(Errno::ENOENT));
        check("no-such-program-here", Err(Errno::ENOENT));
        check("/no/such/program", Err(Errno::ENOENT));
        check("/etc/passwd", Err(Errno::EACCES));
        check("/etc", Err(Errno::EACCES));
    }

    #[test]
    fn lost_counters_are_known_by_the_time_that_they_missed() {
        let check = |enabled_ms: u64, used_ms: u64, want| {
            let reading = Reading {
                enabled_ns: enabled_ms * 1_000_000,
                ..Reading::default()
            };
            let usage = Usage {
                user_us: used_ms * 1000,
                ..Usage::default()
            };
            let readings = vec![vec![reading], vec![Reading::default()]];
            assert_eq!(counters_were_lost(&readings, &usage), want);
        };
        check(0, 280, true);
        check(50, 280, true);
        check(280, 280, false);
        check(560, 280, false);
        check(0, 5, false);
        assert!(!counters_were_lost(&Vec::new(), &Usage::default()));
    }

    #[test]
    fn a_preparation_runs_to_its_end() {
        let interrupt = Interrupt::listen().unwrap();
        assert!(run_prepare("exit 0", &interrupt).is_ok());
        let failed = run_prepare("exit 3", &interrupt).unwrap_err();
        assert_eq!(
            failed.to_string(),
            "the preparation `exit 3` failed: exit status: 3"
        );
    }
}
