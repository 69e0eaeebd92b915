//! A command whose syscalls or page faults are seen, run after run, as a workload: each run tells of the whole and of what was found in it. Never looks itself, never compares.

use std::io;

use super::command::Options;
use super::faults::watch::Watch;
use super::interrupt::Interrupt;
use super::schedule::Turn;
use super::syscalls::How;
use super::traced::Traced;
use super::{Error, Observed, Outcome, Scope, Workload, faults, syscalls};
use crate::perf::plan::Plan;
use crate::sample::{Name, Sample, Warning};

/// What is looked for.
pub enum Profile<'p> {
    /// Syscalls, in this way.
    Syscalls(How),
    /// Page faults, beside which the plan of [`faults::EVENTS`] counts.
    Faults(&'p Plan),
}

impl Profile<'_> {
    /// The benchmark that tells of a whole run.
    pub fn whole(&self) -> &'static str {
        match self {
            Profile::Syscalls(_) => syscalls::WHOLE,
            Profile::Faults(_) => faults::WHOLE,
        }
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
    /// Finds the program.
    ///
    /// Errors: those of [`Traced::new`].
    pub fn new(
        variant: &str,
        options: Options,
        profile: &'p Profile<'p>,
    ) -> Result<Profiled<'p>, Error> {
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
        let (interrupted, failed, code, samples) = match self.profile {
            Profile::Syscalls(how) => {
                let mut subject = syscalls::Subject::Command(traced);
                let seen = syscalls::observe(&mut subject, how, interrupt, &mut |_, _| Ok(()))?;
                let samples = seen.samples(&self.variant);
                (seen.interrupted, seen.failed, seen.code, samples)
            }
            Profile::Faults(plan) => {
                let (watch, why) = Watch::choose(None, false)?;
                let mut subject = faults::Subject::Command(traced);
                let mut seen = faults::observe(&mut subject, watch, plan, interrupt)?;
                let missed = why.map(|cause| format!("seen by counters alone: {cause}"));
                seen.warnings.extend(missed.map(Warning));
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
