//! A command whose syscalls or page faults are seen, run after run, as a workload: each run tells of the whole and of what was found in it. Never looks itself, never compares.

use std::cell::OnceCell;
use std::io;

use super::command::Options;
use super::faults::watch::{LOOK, Watch};
use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::syscalls::How;
use super::traced::Traced;
use super::{Error, Observed, Outcome, Scope, Workload, faults, syscalls};
use crate::perf::plan::Plan;
use crate::probe::Rung;
use crate::sample::{Cause, Name, Sample};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Syscalls.
    Syscalls,
    /// Page faults.
    Faults,
}

/// How all runs of a comparison are profiled: on the rung that the first one found, for what
/// different rungs see cannot be compared.
pub struct Profile<'p> {
    sought: Sought,
    /// Beside page faults.
    plan: &'p Plan,
    chosen: OnceCell<Chosen>,
}

/// A rung, and the better ones that could not be had.
struct Chosen {
    rung: Rung,
    missed: Vec<(Rung, Cause)>,
}

impl<'p> Profile<'p> {
    /// Of `plan`, which is that of [`faults::EVENTS`], what is to be counted beside page faults.
    pub fn new(sought: Sought, plan: &'p Plan) -> Profile<'p> {
        Profile {
            sought,
            plan,
            chosen: OnceCell::new(),
        }
    }

    /// The benchmark that tells of a whole run.
    fn whole(&self) -> &'static str {
        match self.sought {
            Sought::Syscalls => syscalls::WHOLE,
            Sought::Faults => faults::WHOLE,
        }
    }

    fn rung(&self) -> Option<Rung> {
        self.chosen.get().map(|chosen| chosen.rung)
    }

    /// Those that could not be had, of a run on `rung` that missed these itself.
    fn missed(&self, rung: Rung, missed: Vec<(Rung, Cause)>) -> Vec<(Rung, Cause)> {
        let chosen = self.chosen.get_or_init(|| Chosen { rung, missed });
        chosen.missed.clone()
    }
}

/// The command.
pub struct Profiled<'p> {
    name: Name,
    variant: String,
    options: Options,
    profile: &'p Profile<'p>,
}

impl<'p> Profiled<'p> {
    /// Finds the program. How often is looked is the profile's to say, not that of the options.
    ///
    /// Errors: those of [`Traced::new`].
    pub fn new(
        variant: &str,
        mut options: Options,
        profile: &'p Profile<'p>,
    ) -> Result<Profiled<'p>, Error> {
        options.interval = (profile.sought == Sought::Faults).then_some(LOOK);
        Traced::new(options.clone())?;
        Ok(Profiled {
            name: Name::new(profile.whole()),
            variant: variant.to_owned(),
            options,
            profile,
        })
    }
}

impl Workload for Profiled<'_> {
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
        let mut traced = Traced::new(self.options.clone())?;
        traced.prepare(turn, interrupt)?;
        if let Some(signal) = interrupt.caught() {
            return Ok(Outcome::Interrupted(signal));
        }
        let traced = Box::new(traced);
        let profile = self.profile;
        let (interrupted, failed, code, samples) = match profile.sought {
            Sought::Syscalls => {
                let how = How {
                    rung: profile.rung(),
                    ..How::default()
                };
                let mut subject = syscalls::Subject::Command(traced);
                let mut seen =
                    syscalls::observe(&mut subject, &how, interrupt, &mut |_, _| Ok(()))?;
                seen.missed = profile.missed(seen.rung, seen.missed);
                let samples = seen.samples(&self.variant);
                (seen.interrupted, seen.failed, seen.code, samples)
            }
            Sought::Faults => {
                let (watch, why) = Watch::choose(profile.rung(), false)?;
                let mut subject = faults::Subject::Command(traced);
                let mut seen = faults::observe(&mut subject, watch, profile.plan, interrupt)?;
                let why = why.map(|cause| (Rung::Programs, cause));
                let missed = profile.missed(seen.rung, why.into_iter().collect());
                seen.warnings
                    .extend(missed.iter().map(|(rung, cause)| rung.missed(cause)));
                let samples = seen.samples(&self.variant);
                (seen.interrupted, seen.failed, seen.code, samples)
            }
        };
        if let Some(signal) = interrupted {
            return Ok(Outcome::Interrupted(signal));
        }
        if let Some(failed) = failed {
            return Ok(Outcome::Failed {
                why: failed.why,
                stderr: failed.stderr,
                code,
            });
        }
        let mut whole = Observed::default();
        for sample in samples {
            let name = sample.benchmark.clone();
            match name == self.name {
                true => whole = observed(sample, Scope::Run),
                false => partly(observed(sample, Scope::Within(name))).map_err(Error::Output)?,
            }
        }
        Ok(Outcome::Observed(whole))
    }
}

fn observed(sample: Sample, scope: Scope) -> Observed {
    Observed {
        scope,
        iterations: sample.iterations,
        config: sample.config.into_iter().collect(),
        values: sample.values,
        warnings: sample.warnings,
        code: 0,
    }
}
