//! Options that several verbs share, and what the words in them mean. Never runs anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::Usage;
use crate::format::Format;
use crate::machine;
use crate::machine::facts::{CpuList, Facts, Roots};
use crate::perf::Access;
use crate::perf::catalog::Catalog;
use crate::perf::event::Group;
use crate::perf::plan::Plan;
use crate::run::surroundings::Surroundings;
use crate::sample::{Cause, Warning};
use crate::sys::child::{Scheduler, Settings};
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
    /// The chosen events, or `default`.
    pub(super) fn wanted(&self, default: &str) -> anyhow::Result<Vec<Group>> {
        let text = match self.event.is_empty() {
            true => default.to_owned(),
            false => self.event.join(","),
        };
        Ok(Catalog::default().parse(&text)?)
    }
}

/// Tries events on `target`. What could be had only in part comes back as a doubt about the whole
/// run.
pub(super) fn plan(wanted: &[Group], target: Target) -> (Plan, Vec<Warning>) {
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let plan = Plan::make(wanted, target, access);
    let doubts = user_only(&plan);
    (plan, doubts)
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

/// What the measured process is given that it would not inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "The measured process (what is not set here, it inherits)")]
pub(super) struct ChildOptions {
    /// Bind it to these CPUs, such as 0,2-5; auto is the one that is best to measure on, any is
    /// no binding.
    #[arg(long, value_name = "CPUS", value_parser = cpus)]
    pub(super) cpu_list: Option<Cpus>,

    /// Draw its addresses anew in every run, or give it the same ones.
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    aslr: Option<Switch>,

    /// Leave it the transparent huge pages that the machine gives, or keep it from all, whatever
    /// it asks for.
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    thp: Option<Switch>,

    /// Run it at this nice level: from -20, the most CPU time, to 19, the least.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-20..=19))]
    nice: Option<i8>,

    /// Schedule it as other, batch, idle, fifo or rr; the last two with a priority from 1 to 99,
    /// such as fifo:10.
    #[arg(long, value_name = "POLICY[:PRIORITY]", value_parser = scheduler)]
    sched: Option<Scheduler>,

    /// Lengthen its environment by 0 to 4080 bytes, drawn from the seed for every run: that moves
    /// its stack.
    #[arg(long)]
    env_padding: bool,

    /// Run it as root although sudo was called by somebody else.
    #[arg(long)]
    pub(super) as_root: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl ChildOptions {
    /// What they mean on this machine for a process that is bound so, and the doubts about that.
    pub(super) fn surroundings(
        &self,
        bound: &Bound,
    ) -> anyhow::Result<(Surroundings, Vec<Warning>)> {
        let is_on = |switch| switch == Switch::On;
        let surroundings = Surroundings {
            cpus: bound.cpus.clone(),
            entrance: bound.entrance.clone(),
            settings: Settings {
                aslr: self.aslr.map(is_on),
                thp: self.thp.map(is_on),
                scheduler: self.sched,
                nice: self.nice,
            },
            env_padding: self.env_padding,
        };
        let doubts = surroundings.check(&Facts::new(&Roots::default()))?;
        Ok((surroundings, doubts))
    }
}

/// A scheduling policy such as `batch` or `fifo:10`.
fn scheduler(text: &str) -> Result<Scheduler, String> {
    let (policy, priority) = match text.split_once(':') {
        Some((policy, priority)) => (policy, Some(priority)),
        None => (text, None),
    };
    let priority = match priority.map(str::parse::<u8>) {
        None => None,
        Some(Ok(priority @ 1..=99)) => Some(priority),
        Some(_) => return Err("a priority is a number from 1 to 99".to_owned()),
    };
    match (policy, priority) {
        ("other", None) => Ok(Scheduler::Other),
        ("batch", None) => Ok(Scheduler::Batch),
        ("idle", None) => Ok(Scheduler::Idle),
        ("fifo", Some(priority)) => Ok(Scheduler::Fifo(priority)),
        ("rr", Some(priority)) => Ok(Scheduler::RoundRobin(priority)),
        ("fifo" | "rr", None) => Err(format!("it takes a priority, such as {policy}:10")),
        ("other" | "batch" | "idle", _) => Err(format!("{policy} has no priorities")),
        _ => Err("the policies are other, batch, idle, fifo:N and rr:N".to_owned()),
    }
}

/// Where the records and the tables go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// Write the records to FILE; - is standard output.
    #[arg(
        short = 'o',
        long = "output-file",
        visible_alias = "log-file",
        value_name = "FILE"
    )]
    file: Option<PathBuf>,

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
    /// Records appended to a log of ours, and no table.
    pub(super) fn log(file: PathBuf, quiet: bool) -> OutputOptions {
        OutputOptions {
            file: Some(file),
            append: true,
            format: Some(Format::Jsonl),
            json: false,
            table: false,
            quiet,
        }
    }

    /// The file that records go to; `None` when it is standard output, or there is none.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// The format of the records, when they are wanted at all.
    pub(super) fn record_format(&self) -> Option<Format> {
        let wanted = self.file.is_some().then_some(Format::Jsonl);
        self.format
            .or(self.json.then_some(Format::Jsonl))
            .or(wanted)
    }

    /// Whether records go to standard output.
    pub(super) fn records_to_stdout(&self) -> bool {
        self.path().is_none() && self.record_format().is_some()
    }
}

/// A duration such as `100ms`, `2s` or `1m`; a bare number is milliseconds, as in perf.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(milliseconds) => Duration::from_millis(milliseconds),
        Err(_) => with_unit(text)?,
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
        Err(_) => with_unit(text),
    }
}

fn with_unit(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 500ms, 2s or 1m"))
}

/// A list of CPUs such as `0,2-5`.
pub(super) fn cpu_list(text: &str) -> Result<CpuList, String> {
    CpuList::parse(text)
        .filter(|cpus| !cpus.is_empty())
        .ok_or_else(|| "write CPUs as 0 or 0,2-5".to_owned())
}

/// A share such as `2%` or `0.02`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let parsed = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    parsed
        .ok()
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "write 2% or 0.02".to_owned())
}

/// A level between 0 and ½.
pub(super) fn level(text: &str) -> Result<f64, String> {
    share(text).and_then(|level| match level > 0.0 && level < 0.5 {
        true => Ok(level),
        false => Err("it lies between 0 and 0.5".to_owned()),
    })
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
    /// The `cgroup.procs` by which it enters where they are set apart; `None` when they are not.
    pub(super) entrance: Option<Arc<File>>,
}

/// From so busy siblings on, they are a doubt.
const BUSY_SIBLINGS: f64 = 0.1;

impl Bound {
    /// Chooses as `cpus` says.
    pub(super) fn choose(cpus: &Cpus) -> Bound {
        let list = match cpus {
            Cpus::Any => return Bound::default(),
            Cpus::List(list) => {
                let cpus = if list.len() == 1 { "CPU" } else { "CPUs" };
                return Bound {
                    what: Some(format!("{cpus} {list}")),
                    cpus: Some(list.clone()),
                    ..Bound::default()
                };
            }
            Cpus::Auto => machine::choose(&Roots::default()),
        };
        let Some(choice) = list else {
            return Bound::default();
        };
        let kind = if choice.isolated { " (isolated)" } else { "" };
        let busy = choice.siblings_busy.filter(|&busy| busy > BUSY_SIBLINGS);
        Bound {
            cpus: Some(CpuList::from_iter([choice.cpu])),
            what: Some(format!("CPU {}{kind}", choice.cpu)),
            doubt: busy.map(|busy| {
                Warning(format!(
                    "CPU {} shares its core, which others kept {:.0} % busy just now",
                    choice.cpu,
                    busy * 100.0
                ))
            }),
            entrance: None,
        }
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
    fn policies_are_read_as_they_are_told() {
        for text in ["other", "batch", "idle", "fifo:1", "fifo:99", "rr:50"] {
            assert_eq!(scheduler(text).unwrap().to_string(), text);
        }
        for bad in [
            "", "fifo", "fifo:", "fifo:0", "rr:100", "rr:-1", "batch:1", "FIFO:1", "deadline",
        ] {
            assert!(scheduler(bad).is_err(), "{bad}");
        }
    }

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
        for (text, want_ms) in [("0", 0), ("0s", 0), ("1.5", 1500), ("20ms", 20)] {
            assert_eq!(patience(text), Ok(Duration::from_millis(want_ms)), "{text}");
        }
        for bad in ["", "-1", "nan", "inf", "soon"] {
            assert!(patience(bad).is_err(), "{bad}");
        }
    }
}
