//! `poise doctor`: what can be measured here and what cannot, with cause and cure. Changes nothing.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::aa;
use super::hold::MeasureOptions;
use super::identity::Identity;
use super::options::{self, ChildOptions};
use crate::doctor::{self, Finding, PmuFindings, Status};
use crate::machine::facts::{Facts, Roots};
use crate::perf::catalog::Catalog;
use crate::perf::selfread::SelfCounters;
use crate::perf::{Access, plan};
use crate::run::frequency;
use crate::sample::Cause;

/// Tell what can be measured on this machine and what cannot, and what would mend it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One JSON object a finding.
    #[arg(long)]
    json: bool,

    /// Measure a loop and a command against themselves for so long (a bare number is seconds),
    /// and tell the smallest change that this machine can detect.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "20", value_parser = options::patience, conflicts_with = "json")]
    aa: Option<Duration>,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,
}

/// The events that people ask for first.
const USUAL: [&str; 14] = [
    "cycles",
    "instructions",
    "branches",
    "branch-misses",
    "cache-references",
    "cache-misses",
    "L1-dcache-load-misses",
    "dTLB-load-misses",
    "task-clock",
    "page-faults",
    "minor-faults",
    "major-faults",
    "context-switches",
    "cpu-migrations",
];

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if let Some(time) = arguments.aa {
        return aa::main(time, &arguments.hold, &arguments.child);
    }
    let roots = Roots::default();
    let mut findings = doctor::examine(&roots, &pmu_findings(&roots));
    // Beside what we ourselves may do.
    let own = findings.iter().position(|one| one.topic == "capabilities");
    findings.insert(own.map_or(0, |at| at + 1), user(Identity::look(false)));
    let text: String = match arguments.json {
        true => findings.iter().map(json).collect(),
        false => findings.iter().map(line).collect(),
    };
    super::print(&text)?;
    Ok(0)
}

/// As whom commands run.
fn user(identity: anyhow::Result<Identity>) -> Finding {
    let (status, what, cause, cure) = match identity {
        Ok(identity) => (Status::Note, identity.about(), None, None),
        Err(error) => {
            let what = "stat and bench do not know as whom to run".to_owned();
            let cure = "unset SUDO_UID, or use --as-root".to_owned();
            (Status::Missing, what, Some(error.to_string()), Some(cure))
        }
    };
    Finding {
        topic: "user",
        status,
        what,
        cause,
        cure,
    }
}

/// CPUs whose real frequency is measured, at most: each takes some 20 ms.
const MEASURED_CPUS: usize = 8;

/// Tries the usual events, the number of counters, reading them without a system call, and what
/// CPUs spread over those that we may run on do under load.
fn pmu_findings(roots: &Roots) -> PmuFindings {
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let catalog = Catalog::default();
    let rdpmc = || -> Result<(), Cause> {
        let groups = catalog
            .parse("instructions:u")
            .map_err(|error| Cause::new(error.to_string()))?;
        let events: Vec<_> = groups.into_iter().flat_map(|group| group.events).collect();
        let counters =
            SelfCounters::open(&events, false).map_err(|error| access.explain(&error))?;
        counters.enable().map_err(|error| access.explain(&error))?;
        match counters.reads_in_user_space() {
            true => Ok(()),
            false => Err(Cause::new("the kernel does not allow it for this event")),
        }
    };
    let myself = Facts::new(roots).myself();
    let cpus = myself.map(|me| me.cpus).unwrap_or_default();
    let spread = cpus
        .iter()
        .step_by(cpus.len().div_ceil(MEASURED_CPUS).max(1));
    PmuFindings {
        events: USUAL
            .iter()
            .map(|&name| match plan::try_out(name, &catalog, &access) {
                Ok(counted) => (counted.spelling(), Ok(())),
                Err(cause) => (name.to_owned(), Err(cause)),
            })
            .collect(),
        counters: Some(plan::counter_budget(&access)),
        rdpmc: Some(rdpmc()),
        frequencies_hz: spread
            .filter_map(|cpu| {
                let figure = frequency::measured(cpu, &catalog, &access);
                Some((cpu, figure.number()?))
            })
            .collect(),
    }
}

fn json(finding: &Finding) -> String {
    let object = serde_json::json!({
        "topic": finding.topic,
        "status": finding.status.word(),
        "what": finding.what,
        "cause": finding.cause,
        "cure": finding.cure,
    });
    format!("{object}\n")
}

fn line(finding: &Finding) -> String {
    let colour = match finding.status {
        Status::Good => AnsiColor::Green,
        Status::Limited => AnsiColor::Yellow,
        Status::Missing => AnsiColor::Red,
        Status::Note => AnsiColor::Blue,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let mut text = format!(
        "{style}{:<8}{style:#} {:<14} {}\n",
        finding.status.word(),
        finding.topic,
        finding.what
    );
    for (label, note) in [("because", &finding.cause), ("mend", &finding.cure)] {
        if let Some(note) = note {
            let _ = writeln!(text, "{:24}{label}: {note}", "");
        }
    }
    text
}
