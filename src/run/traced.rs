//! A command under a probe: launched suspended, so that the probe is there before its exec, and followed to its end. Never knows what the probe looks for.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};

use super::Error;
use super::command::{Ending, Options, Prepared, failure};
use super::interrupt::Interrupt;
use super::ptraced::Ptraced;
use super::schedule::Turn;
use super::wait::Wait;
use crate::sample::Warning;
use crate::sys::child::{Child, Usage};

/// A command, ready to be launched under a probe.
pub struct Traced {
    options: Options,
    prepared: Prepared,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// From its release to its end.
    pub wall: Duration,
    /// What it used, with the descendants that it waited for.
    pub usage: Usage,
    /// The exit code that stands for its end.
    pub code: u8,
    /// What is doubtful of the run.
    pub warnings: Vec<Warning>,
    /// That it did not end well.
    pub failed: Option<Failed>,
    /// The signal by which we were asked to stop it.
    pub interrupted: Option<Signal>,
}

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `exit status 1`, `killed by SIGSEGV`.
    pub why: String,
    /// The end of its standard error, where that was not ours.
    pub stderr: String,
}

impl Traced {
    /// Finds the program. Of the options those count that say how it is launched, and how long it
    /// may run.
    ///
    /// Errors: [`Error::Exec`] when there is no such program, [`Error::System`] when its output
    /// cannot be opened.
    pub fn new(options: Options) -> Result<Traced, Error> {
        Traced::in_environment(options, super::variables()?)
    }

    /// The same, with these variables for its environment instead of ours.
    ///
    /// Errors: those of [`Traced::new`].
    pub fn in_environment(
        options: Options,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Traced, Error> {
        let prepared = Prepared::new(&options, super::joined(variables)?)?;
        Ok(Traced { options, prepared })
    }

    /// Does what comes before the run of this turn: the command of the user that prepares it, and
    /// the padding of the environment.
    ///
    /// Errors: [`Error::Prepare`] when the user's command fails.
    pub fn prepare(&mut self, turn: &Turn, interrupt: &Interrupt) -> Result<(), Error> {
        self.prepared.prepare(&self.options, turn, interrupt)
    }

    /// How its CPU time is told apart, as in [`Options`].
    pub fn tick_sec(&self) -> Option<f64> {
        self.options.tick_sec
    }

    /// Starts it, suspended before its exec.
    pub fn start(&mut self) -> Result<Child, Error> {
        self.prepared.start()
    }

    /// Releases it and waits for its end; calls `tick` after every interval.
    pub fn run(
        &self,
        child: Child,
        interrupt: &Interrupt,
        tick: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Ended, Error> {
        self.run_by(child, interrupt, tick, None)
    }

    /// As [`Traced::run`], with somebody who lets the child go on whenever it stops.
    pub(super) fn run_by(
        &self,
        child: Child,
        interrupt: &Interrupt,
        tick: &mut dyn FnMut() -> Result<(), Error>,
        tracer: Option<&mut Ptraced>,
    ) -> Result<Ended, Error> {
        let released = Instant::now();
        child.release();
        let (timeout, interval) = (self.options.timeout, self.options.interval);
        let wait = Wait::new(released, timeout, interval, interrupt);
        let (ending, stderr) = self.prepared.attend(&child, wait, tick, tracer)?;
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
        let mut warnings = Vec::new();
        let mut warn = |text: &str| warnings.push(Warning(text.to_owned()));
        if self.prepared.own_session && killpg(pid, None).is_ok() {
            if ending == Ending::ByItself {
                warn("it left processes behind; what they do later is not seen");
            } else {
                let _ = killpg(pid, Signal::SIGKILL);
            }
        }
        let mut interrupted = None;
        let failure = match ending {
            Ending::Interrupted(signal) => {
                interrupted = Some(signal);
                Some((format!("cut short by {signal}"), 128 + signal as u8))
            }
            Ending::TimedOut => Some(("it ran longer than --timeout".to_owned(), 124)),
            Ending::ByItself => failure(exit.code, exit.signal),
        };
        let code = failure.as_ref().map_or(0, |(_, code)| *code);
        let failed = failure.map(|(why, _)| {
            warn(&why);
            Failed {
                why,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }
        });
        Ok(Ended {
            wall,
            usage: exit.usage,
            code,
            warnings,
            failed,
            interrupted,
        })
    }
}
