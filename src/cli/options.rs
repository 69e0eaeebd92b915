//! Options that several verbs share, and what the words in them mean. Never runs anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Usage;
use crate::format::Format;
use crate::machine;
use crate::machine::facts::{CpuList, Facts, Roots};
use crate::perf::Access;
use crate::perf::catalog::Catalog;
use crate::perf::plan::Plan;
use crate::sample::{Cause, Warning};
use crate::sys::perf_event::Target;

/// What to count.
#[derive(Debug, Args)]
#[command(next_help_heading = "Counting")]
pub(super) struct EventOptions {
    /// Events to count, as `perf list` spells them; may be given more than once.
    #[arg(
        short,
        long = "event",
        value_name = "EVENTS",
        allow_hyphen_values = true
    )]
    pub(super) event: Vec<String>,
}

impl EventOptions {
    /// Tries the chosen events, or `default`, on `target`. What could be had only in part comes
    /// back as a doubt about the whole run.
    pub(super) fn plan(
        &self,
        default: &str,
        target: Target,
    ) -> anyhow::Result<(Plan, Vec<Warning>)> {
        let text = match self.event.is_empty() {
            true => default.to_owned(),
            false => self.event.join(","),
        };
        let wanted = Catalog::default().parse(&text)?;
        let plan = Plan::make(
            &wanted,
            target,
            Access::look("/proc".as_ref(), "/sys".as_ref()),
        );
        let doubts = user_only(&plan);
        Ok((plan, doubts))
    }
}

/// Which events are counted in user mode only, once a cause.
fn user_only(plan: &Plan) -> Vec<Warning> {
    let mut by_cause: BTreeMap<&Cause, Vec<&str>> = BTreeMap::new();
    for (wanted, cause) in &plan.user_only {
        by_cause.entry(cause).or_default().push(wanted);
    }
    let doubt = |(cause, wanted): (&Cause, Vec<&str>)| {
        let wanted = wanted.join(", ");
        Warning(format!(
            "counted in user mode only, with :u in the name: {wanted}: {cause}"
        ))
    };
    by_cause.into_iter().map(doubt).collect()
}

/// Where the records and the tables go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// Write the records to FILE.
    #[arg(
        short = 'o',
        long = "output-file",
        visible_alias = "log-file",
        value_name = "FILE"
    )]
    pub(super) file: Option<PathBuf>,

    /// Append to FILE instead of overwriting it.
    #[arg(long, requires = "file")]
    pub(super) append: bool,

    /// Write the records as jsonl, gobench (for benchstat) or csv; to standard output without -o.
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,

    /// Write the records as JSON Lines to standard output: --format jsonl.
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,

    /// Print the table although records go to standard output.
    #[arg(long)]
    pub(super) table: bool,

    /// Print no table, no progress and no remarks.
    #[arg(short, long, conflicts_with = "table")]
    pub(super) quiet: bool,
}

impl OutputOptions {
    /// The format of the records, when they are wanted at all.
    pub(super) fn record_format(&self) -> Option<Format> {
        let wanted = self.file.is_some().then_some(Format::Jsonl);
        self.format
            .or(self.json.then_some(Format::Jsonl))
            .or(wanted)
    }

    /// Whether records go to standard output.
    pub(super) fn records_to_stdout(&self) -> bool {
        self.file.is_none() && self.record_format().is_some()
    }
}

/// A duration such as `100ms`, `2s` or `1m`; a bare number is milliseconds, as in perf.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(milliseconds) => Duration::from_millis(milliseconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 500ms, 2s or 1m"))?,
    };
    match parsed.is_zero() {
        true => Err("it must be longer than nothing".to_owned()),
        false => Ok(parsed),
    }
}

/// How long to wait; a bare number is seconds, and 0 is not at all.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => duration(text),
    }
}

/// A list of CPUs such as `0,2-5`.
pub(super) fn cpu_list(text: &str) -> Result<CpuList, String> {
    CpuList::parse(text)
        .filter(|cpus| !cpus.is_empty())
        .ok_or_else(|| "write CPUs as 0 or 0,2-5".to_owned())
}

/// Where a measured process may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cpus {
    /// On the one that is best to measure on.
    Auto,
    /// Wherever it is put.
    Any,
    /// On these.
    List(CpuList),
}

/// `auto`, `any`, or a list of CPUs.
pub(super) fn cpus(text: &str) -> Result<Cpus, String> {
    match text {
        "auto" => Ok(Cpus::Auto),
        "any" => Ok(Cpus::Any),
        list => CpuList::parse(list)
            .filter(|cpus| !cpus.is_empty())
            .map(Cpus::List)
            .ok_or_else(|| "write auto, any, or CPUs as 0 or 0,2-5".to_owned()),
    }
}

/// The CPUs that a measured process is bound to.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Them; `None` when it is bound to none.
    pub(super) cpus: Option<CpuList>,
    /// What was said of them: `CPU 3 (isolated)`.
    pub(super) what: Option<String>,
    /// What speaks against them.
    pub(super) doubt: Option<Warning>,
}

/// From so busy siblings on, they are a doubt.
const BUSY_SIBLINGS: f64 = 0.1;

impl Bound {
    /// Chooses as `cpus` says.
    pub(super) fn choose(cpus: &Cpus) -> Result<Bound, Usage> {
        let list = match cpus {
            Cpus::Any => return Ok(Bound::default()),
            Cpus::List(list) => {
                must_be_online(list)?;
                let cpus = if list.len() == 1 { "CPU" } else { "CPUs" };
                return Ok(Bound {
                    what: Some(format!("{cpus} {list}")),
                    cpus: Some(list.clone()),
                    doubt: None,
                });
            }
            Cpus::Auto => machine::choose(&Roots::default()),
        };
        let Some(choice) = list else {
            return Ok(Bound::default());
        };
        let kind = if choice.isolated { " (isolated)" } else { "" };
        let busy = choice.siblings_busy.filter(|&busy| busy > BUSY_SIBLINGS);
        Ok(Bound {
            cpus: Some(CpuList::from_iter([choice.cpu])),
            what: Some(format!("CPU {}{kind}", choice.cpu)),
            doubt: busy.map(|busy| {
                Warning(format!(
                    "CPU {} shares its core, which others kept {:.0} % busy just now",
                    choice.cpu,
                    busy * 100.0
                ))
            }),
        })
    }

    /// What a command is bound to unless the user says it: to the isolated CPUs if there are any,
    /// for whoever has set them apart wants it there; else to none, for it may be parallel.
    pub(super) fn usual() -> Cpus {
        let roots = Roots::default();
        let facts = Facts::new(&roots);
        let isolated = facts.isolated().unwrap_or_default();
        let allowed = facts.myself().map(|me| me.cpus).unwrap_or_default();
        let both: CpuList = allowed
            .iter()
            .filter(|&cpu| isolated.contains(cpu))
            .collect();
        match both.is_empty() {
            true => Cpus::Any,
            false => Cpus::List(both),
        }
    }
}

/// Refuses CPUs that are missing or offline; where nobody knows which are online, none.
pub(super) fn must_be_online(cpus: &CpuList) -> Result<(), Usage> {
    let Some(online) = Facts::new(&Roots::default()).online() else {
        return Ok(());
    };
    match cpus.iter().find(|cpu| !online.contains(*cpu)) {
        None => Ok(()),
        Some(cpu) => Err(Usage {
            message: format!("CPU {cpu} is not online"),
            hint: Some(format!("online: {online}")),
        }),
    }
}

/// How often the kernel looks whether a program on `cpus`, or on ours, is in user or system mode;
/// `None` where it times every change.
pub(super) fn tick_sec(cpus: Option<&CpuList>) -> Option<f64> {
    let roots = Roots::default();
    let facts = Facts::new(&roots);
    let accounting = facts.accounting();
    let own = || facts.myself().map(|myself| myself.cpus).unwrap_or_default();
    match cpus {
        // Where no CPU times every change, it does not matter which are ours.
        None if accounting.timed.is_empty() => accounting.tick_sec,
        None => accounting.period_sec(&own()),
        Some(cpus) => accounting.period_sec(cpus),
    }
}

/// A seed for all that is drawn: the user's, or the clock's.
pub(super) fn seed(chosen: Option<u64>) -> u64 {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Below 2^53, so that every JSON reader keeps it whole.
    chosen.unwrap_or(clock.as_nanos() as u64 & ((1 << 53) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, want_ms| {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(want_ms),
                "{text}"
            )
        };
        check("250", 250);
        check("2s", 2000);
        check("1m", 60_000);
        for bad in ["", "0", "0s", "-1", "soon", "99999999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
