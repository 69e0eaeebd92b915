//! The workload that is a command: launched suspended, counted from its exec, reaped with its own usage. Never runs a shell unless that is the command.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::CpuSet;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{AccessFlags, Pid, access};

use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::wait::{Wait, Woken};
use super::{Error, Intervals, Observed, Outcome, Workload, c_string, cpus_used, exact};
use crate::perf;
use crate::perf::group::How;
use crate::perf::plan::Plan;
use crate::sample::{Figure, Name, Value, Warning};
use crate::sys::child::{Child, Exit, Launcher, Program, Usage, open_pidfd};
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
    /// Its standard output. With [`Output::Inherit`] its standard input and error are ours too;
    /// else input is empty, and of the error output the end is kept for the failure report.
    pub output: Output,
    /// A shell command that runs before every run, unmeasured.
    pub prepare: Option<String>,
    /// It is ended after this long.
    pub timeout: Option<Duration>,
    /// Counts are given once in this long, too.
    pub interval: Option<Duration>,
    /// The CPUs that it may run on.
    pub cpus: Option<Vec<usize>>,
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
    program: String,
    launcher: Launcher,
    own_group: bool,
    stderr: Option<OwnedFd>,
    plan: &'p Plan,
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
        // What owns the terminal must stay in our group.
        let own_group =
            options.output != Output::Inherit || !nix::unistd::isatty(io::stdin()).unwrap_or(false);
        let affinity = match &options.cpus {
            None => None,
            Some(cpus) => Some(cpu_set(cpus)?),
        };
        let program = Program {
            path,
            argv: options
                .argv
                .iter()
                .cloned()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            envp: super::environment()?,
            files,
            affinity,
            own_group,
        };
        let launcher = Launcher::new(program).map_err(system("prepare to launch"))?;
        let program = options.argv[0].to_string_lossy().into_owned();
        Ok(Command {
            options,
            name,
            variant: variant.to_owned(),
            program,
            launcher,
            own_group,
            stderr,
            plan,
        })
    }

    /// Waits for the end of `child` and, when it is time, brings it about; calls `tick` after
    /// every interval. Gives the tail of its standard error, too.
    fn attend(
        &self,
        child: &Child,
        mut wait: Wait<'_>,
        tick: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(Ending, Vec<u8>), Error> {
        let mut ending = Ending::ByItself;
        loop {
            let woken = wait.until(Some(child.pidfd()), self.stderr.as_ref());
            let signal = match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
                Woken::Ended => return Ok((ending, wait.into_tail())),
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
                    signal
                }
            };
            // It may have ended just now; then the next wait says so.
            let _ = child.signal(signal);
            wait.hurry(GRACE);
        }
    }

    fn uncounted(&self, error: &perf::Error) -> Error {
        Error::Count(self.plan.access().explain(error))
    }

    /// The values that do not come from perf.
    fn own_values(&self, wall: Duration, usage: &Usage) -> Vec<Value> {
        let sampled = |us: u64| {
            let value = us as f64 / 1e6;
            match self.options.tick_sec {
                Some(period_sec) => Figure::Sampled { value, period_sec },
                None => Figure::Exact(value),
            }
        };
        vec![
            exact("sec/op", wall.as_secs_f64()),
            Value::new("user-sec/op", sampled(usage.user_us)),
            Value::new("sys-sec/op", sampled(usage.system_us)),
            Value::new("peak-RSS-bytes", peak_rss(usage.peak_rss_kib)),
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

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        if let Some(prepare) = &self.options.prepare {
            run_prepare(prepare, interrupt)?;
        }
        if let Some(signal) = interrupt.caught() {
            return Ok(Outcome::Interrupted(signal));
        }
        let rotation = (!turn.only).then_some(turn.order.round);
        let child = self.launcher.start().map_err(Error::system(format!(
            "start a process for {}",
            self.program
        )))?;
        let how = How {
            inherit: true,
            enable_on_exec: true,
            user_access: false,
        };
        let counting = self
            .plan
            .open(rotation, Target::Thread(child.pid().as_raw()), how)
            .map_err(|error| self.uncounted(&error))?;
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
        let (ending, stderr) = self.attend(&child, wait, &mut || {
            partly(intervals.observe(read()?, self.options.interval)).map_err(Error::Output)
        })?;
        let wall = released.elapsed();
        let pid = child.pid();
        let exit = child.reap().map_err(Error::system("wait for the child"))?;
        if let Some(errno) = exit.exec_error {
            return Err(Error::Exec {
                program: self.program.clone(),
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
        let counted = self.plan.values(rotation, &readings);
        observed.values.extend(cpus_used(&counted, wall));
        observed
            .values
            .extend(counted.into_iter().map(|(_, value)| value));
        if self.own_group && killpg(pid, None).is_ok() {
            if ending != Ending::ByItself {
                let _ = killpg(pid, Signal::SIGKILL);
            }
            observed.warnings.push(Warning(
                "it left processes behind; what they do later is not counted".to_owned(),
            ));
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
            Ending::ByItself => failure(&exit),
        };
        match failure {
            None => Ok(Outcome::Observed(observed)),
            Some((why, code)) if turn.only || self.options.ignore_failure => {
                observed.warnings.push(Warning(why));
                observed.code = code;
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

/// How the wait for a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    ByItself,
    TimedOut,
    Interrupted(Signal),
}

/// How long a child that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// The kernel counts in what a child had resident before its exec, and that is our memory: below
/// our own peak it tells nothing of the child.
fn peak_rss(child_kib: u64) -> Figure {
    /// The kernel's counters of resident pages lag by some pages a CPU.
    const SLACK_KIB: u64 = 256;
    let own_kib = || {
        procfs::process::Process::myself()
            .and_then(|own| own.status())
            .ok()?
            .vmhwm
    };
    match own_kib() {
        Some(own_kib) if child_kib > own_kib + SLACK_KIB => {
            Figure::Exact(child_kib as f64 * 1024.0)
        }
        Some(own_kib) => Figure::absent(format!(
            "it stayed below the {own_kib} KiB of poise itself, which the kernel counts in until the exec"
        )),
        None => Figure::absent(
            "our own resident set, which the kernel counts in until the exec, cannot be read",
        ),
    }
}

/// Why and with which code an ended child is a failure.
pub(super) fn failure(exit: &Exit) -> Option<(String, u8)> {
    match (exit.code, exit.signal) {
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

/// Runs a preparation to its end, unless we are asked to stop: then it is passed the signal and
/// left alone.
fn run_prepare(command: &str, interrupt: &Interrupt) -> Result<(), Error> {
    let failed = || Error::system("run /bin/sh for --prepare");
    let mut shell = process::Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(process::Stdio::null())
        .stdout(process::Stdio::null())
        .spawn()
        .map_err(failed())?;
    let end = open_pidfd(shell.id() as i32).map_err(failed())?;
    let mut wait = Wait::new(Instant::now(), None, None, interrupt);
    let woken = wait.until(Some(end.as_fd()), None);
    if let Woken::Interrupted(signal) = woken.map_err(|errno| failed()(errno.into()))? {
        // At a terminal it got the signal itself, and may be gone.
        let _ = kill(Pid::from_raw(shell.id() as i32), signal);
        return Ok(());
    }
    let status = shell.wait().map_err(failed())?;
    match status.success() || interrupt.caught().is_some() {
        true => Ok(()),
        false => Err(Error::Prepare(format!(
            "the preparation `{command}` failed: {status}"
        ))),
    }
}

fn cpu_set(cpus: &[usize]) -> Result<CpuSet, Error> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)
            .map_err(|errno| Error::system(format!("choose CPU {cpu}"))(errno.into()))?;
    }
    Ok(set)
}

/// Where programs are looked for when nothing says where, as by execvp(3).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that a shell would execute for `program`.
fn find_program(program: &OsStr) -> Result<CString, Error> {
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
