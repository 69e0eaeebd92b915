//! Where the faults of each value come from: one more run of each, traced, outside of the measured ones. Never measures what it traces.

use std::time::Duration;

use crate::cli::hold::Stage;
use crate::cli::options;
use crate::perf::catalog::Catalog;
use crate::report::faults::{Aside, side_by_side};
use crate::report::text::Style;
use crate::run::command::{self, Output};
use crate::run::compiler::invocation::Invocation;
use crate::run::faults::watch::{LOOK, Watch};
use crate::run::faults::{self, Subject};
use crate::run::interrupt::Interrupt;
use crate::run::traced::Traced;
use crate::run::{Error, Sink, Tally};
use crate::sample::{Cause, Record, Sample};
use crate::sys::perf_event::Target;

/// What is the same for the traced runs of all values.
pub(super) struct Conditions<'a> {
    pub(super) stage: &'a Stage,
    pub(super) timeout: Duration,
    pub(super) interrupt: &'a Interrupt,
}

/// The faults of each value.
pub(super) struct Attribution {
    values: Vec<(String, Vec<Sample>)>,
    rung: crate::probe::Rung,
    sees_reasons: bool,
    why: Option<Cause>,
}

/// Runs each value once more, watched in the best way that is to be had, and hands the records on;
/// nothing when there are no values or it was stopped.
pub(super) fn attribute(
    jobs: &[(String, Invocation)],
    conditions: &Conditions<'_>,
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Option<Attribution>> {
    let wanted = Catalog::default().parse(faults::EVENTS)?;
    let (plan, _) = options::plan(&wanted, Target::Myself);
    let mut told: Option<Attribution> = None;
    for (variant, job) in jobs {
        let (watch, why) = Watch::choose(None, false)?;
        let program = job.program.clone().into_os_string();
        let options = command::Options {
            argv: std::iter::once(program)
                .chain(job.arguments.iter().cloned())
                .collect(),
            output: Output::Null,
            prepare: None,
            timeout: Some(conditions.timeout),
            interval: Some(LOOK),
            surroundings: conditions.stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec: None,
        };
        let traced = Traced::in_environment(options, job.environment.clone())?;
        let mut subject = Subject::Command(Box::new(traced));
        let observed = faults::observe(&mut subject, watch, &plan, conditions.interrupt)?;
        if observed.interrupted.is_some() {
            tally.interrupted = observed.interrupted;
            return Ok(None);
        }
        let mut samples = observed.samples(variant);
        for sample in &mut samples {
            sample.order.sequence = tally.end.samples + tally.end.failures;
            tally.end.samples += 1;
            sink(Record::Sample(sample.clone())).map_err(Error::Output)?;
        }
        let value = variant.split_once('=').map_or("", |(_, value)| value);
        let told = told.get_or_insert(Attribution {
            values: Vec::new(),
            rung: observed.rung,
            sees_reasons: observed.sees_reasons,
            why,
        });
        told.values.push((value.to_owned(), samples));
    }
    Ok(told)
}

impl Attribution {
    /// All of it, for people.
    pub(super) fn text(&self, style: Style) -> String {
        let aside = Aside {
            rung: self.rung,
            sees_reasons: self.sees_reasons,
            why: self.why.as_ref(),
            timeline: None,
        };
        side_by_side(&self.values, &aside, style)
    }
}
