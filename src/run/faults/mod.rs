//! Page faults of a command or a running process, watched and summed up as samples; and what one costs here. Never prints.

pub mod cost;
pub mod profile;
pub mod watch;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use procfs::process::Process;

use self::profile::{Measure, Timeline};
use self::watch::{LOOK, Watch};
use super::interrupt::Interrupt;
use super::symbols::Symbols;
use super::traced::{Failed, Traced};
use super::wait::{Wait, Woken};
use super::{Error, exact};
use crate::perf;
use crate::perf::group::How;
use crate::perf::plan::{self, Counting, Plan, Readings};
use crate::probe::Rung;
use crate::sample::{Cause, Figure, Name, Order, Rule, Sample, Value, Warning};
use crate::sys::child::open_pidfd;
use crate::sys::perf_event::Target;
use crate::sys::privilege;

/// The name of the sample that is about the whole run.
pub const WHOLE: &str = "Faults";

/// Counted beside the faults, which are seen one by one.
pub const EVENTS: &str = "task-clock";

/// Whose faults.
pub enum Subject {
    /// Those of a command and all that it creates, from its exec on.
    Command(Box<Traced>),
    /// Those of a running process and of what it creates from now on.
    Process {
        /// It.
        pid: i32,
        /// For how long at most.
        timeout: Option<Duration>,
    },
}

/// What was seen.
pub struct Observation {
    /// In which way.
    pub rung: Rung,
    /// Whether the processor's reason for each fault was seen, which tells its kind.
    pub sees_reasons: bool,
    /// The whole, then faults by what they are.
    pub measures: Vec<Measure>,
    /// Faults over time.
    pub timeline: Timeline,
    /// When it ended, as the timeline counts.
    pub end_ns: u64,
    /// The exit code that stands for a command's end.
    pub code: u8,
    /// That a command did not end well.
    pub failed: Option<Failed>,
    /// What is doubtful.
    pub warnings: Vec<Warning>,
    /// The signal by which we were asked to stop.
    pub interrupted: Option<Signal>,
}

/// So many call sites are told.
const SITES: usize = 100;

/// Watches `subject` from its beginning to its end; `plan` is that of [`EVENTS`].
pub fn observe(
    subject: &mut Subject,
    mut watch: Watch,
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<Observation, Error> {
    let mut warnings = Vec::new();
    let (mut code, interrupted);
    let mut failed = None;
    let (wall, readings);
    match subject {
        Subject::Command(traced) => {
            let child = traced.start()?;
            let pid = child.pid().as_raw();
            let counting = count(plan, &[pid], true)?;
            watch.begin(pid, &[pid], true)?;
            let ended = traced.run(child, interrupt, &mut || watch.look())?;
            watch.end()?;
            readings = read(plan, &counting)?;
            wall = ended.wall;
            code = ended.code;
            failed = ended.failed;
            warnings = ended.warnings;
            interrupted = ended.interrupted;
        }
        &mut Subject::Process { pid, timeout } => {
            let ended = |errno: Errno| Error::system(format!("watch process {pid}"))(errno.into());
            let pidfd = open_pidfd(pid).map_err(Error::system(format!("watch process {pid}")))?;
            let tasks = Process::new(pid).and_then(|process| process.tasks());
            let tasks = tasks.map_err(|_| ended(Errno::ESRCH))?;
            let threads: Vec<i32> = tasks.flatten().map(|task| task.tid).collect();
            let counting = privilege::lend(Capability::CAP_SYS_PTRACE, || {
                let counting = count(plan, &threads, false)?;
                watch.begin(pid, &threads, false)?;
                Ok(counting)
            })?;
            let began = Instant::now();
            let mut wait = Wait::new(began, timeout, Some(LOOK), interrupt);
            interrupted = loop {
                let woken = wait.until(Some(pidfd.as_fd()), None);
                match woken.map_err(|errno| Error::system("wait")(errno.into()))? {
                    Woken::Tick => watch.look()?,
                    Woken::Ended | Woken::TimeUp => break None,
                    Woken::Interrupted(signal) => break Some(signal),
                }
            };
            watch.end()?;
            readings = read(plan, &counting)?;
            wall = began.elapsed();
            code = 0;
        }
    }
    if let Some(signal) = interrupted {
        code = 128 + signal as u8;
    }
    let profile = watch.profile();
    let trust = watch.trust();
    let counted: Vec<Value> = plan
        .values(None, &readings)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let cpu_sec = find(&counted, "task-clock-sec/op").and_then(Figure::number);
    let total = profile.total();
    let mut values = vec![exact("sec/op", wall.as_secs_f64())];
    values.extend(counted.clone());
    // One run is one operation here: the mean stands with the kinds.
    let told = total.values(&trust, cpu_sec).into_iter();
    values.extend(told.filter(|value| value.unit.as_str() != "sec/op"));
    let waiting_sec = total.waiting_ns as f64 / 1e9;
    values.push(trust.time("waiting-sec", waiting_sec));
    let lost = watch.lost()?;
    let losses = lost
        .iter()
        .filter(|value| value.unit.as_str() != "unseen-faults");
    warnings.extend(losses.filter_map(|value| {
        let count = value.figure.number().filter(|&count| count > 0.0)?;
        let unit = value.unit.as_str().replace('-', " ");
        Some(Warning(format!("{count} {unit}")))
    }));
    values.extend(lost);
    let mut measures = vec![Measure {
        name: Name::new(WHOLE),
        iterations: 1,
        values,
    }];
    measures.extend(profile.measures(&trust, cpu_sec));
    measures.extend(sites(&watch, cpu_sec));
    Ok(Observation {
        rung: watch.rung(),
        sees_reasons: watch.sees_reasons(),
        measures,
        timeline: profile.timeline.clone(),
        end_ns: watch.end_ns(),
        code,
        failed,
        warnings,
        interrupted,
    })
}

/// What one fault costs here, in seconds of CPU time: the figure and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The median over blocks.
    pub sec: f64,
    /// The lower end of its interval.
    pub low_sec: f64,
    /// The upper end.
    pub high_sec: f64,
}

impl Observation {
    /// Adds to the whole what the faults cost by the price of one on fresh memory (`base`) and of one
    /// that makes a huge page. Those that waited for a device are left out: what they cost is the
    /// device's.
    pub fn price(&mut self, base: Price, huge: Option<Price>) {
        let mut total = [0.0; 3];
        for measure in &self.measures {
            if measure.name.base() != "FaultKind" {
                continue;
            }
            let kind = &measure.name.parameters()[0].1;
            let price = match kind.as_str() {
                "major" => continue,
                "huge-page" => huge.unwrap_or(base),
                _ => base,
            };
            let faults = measure.iterations as f64;
            total[0] += faults * price.sec;
            total[1] += faults * price.low_sec;
            total[2] += faults * price.high_sec;
        }
        let Some(whole) = self.measures.first_mut() else {
            return;
        };
        let cpu_sec = find(&whole.values, "task-clock-sec/op").and_then(Figure::number);
        let rule = || Rule("faults times what one on fresh memory costs here".to_owned());
        let estimated = |value| Figure::Estimated {
            value,
            rule: rule(),
        };
        let [sec, low_sec, high_sec] = total;
        let mut add = |unit: &str, value| whole.values.push(Value::new(unit, estimated(value)));
        add("priced-sec", sec);
        add("priced-low-sec", low_sec);
        add("priced-high-sec", high_sec);
        if let Some(cpu_sec) = cpu_sec.filter(|&cpu_sec| cpu_sec > 0.0) {
            add("priced-CPU-share", sec / cpu_sec);
        }
    }

    /// The records of it; the doubts are those of the whole.
    pub fn samples(&self, variant: &str) -> Vec<Sample> {
        let sample = |(measure, sequence): (&Measure, u64)| Sample {
            benchmark: measure.name.clone(),
            variant: variant.to_owned(),
            iterations: measure.iterations,
            order: Order {
                sequence,
                ..Order::default()
            },
            config: Default::default(),
            values: measure.values.clone(),
            warnings: match sequence {
                0 => self.warnings.clone(),
                _ => Vec::new(),
            },
        };
        self.measures.iter().zip(0..).map(sample).collect()
    }
}

/// The call sites by the names of their functions, those that took longest first.
fn sites(watch: &Watch, cpu_sec: Option<f64>) -> Vec<Measure> {
    let mut symbols = Symbols::default();
    let mut sites: Vec<(String, profile::Sum)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (places, sum) in watch.profile().sites() {
        let words: Vec<String> = places.iter().map(|place| symbols.word(place)).collect();
        let at = *known.entry(words.join("<")).or_insert_with_key(|site| {
            sites.push((site.clone(), profile::Sum::default()));
            sites.len() - 1
        });
        sites[at].1.merge(sum);
    }
    sites.sort_by(|a, b| b.1.handler_ns.cmp(&a.1.handler_ns).then(a.0.cmp(&b.0)));
    sites.truncate(SITES);
    let trust = watch.trust();
    let measure = |(site, sum): (String, profile::Sum)| Measure {
        name: Name::new("FaultSite").with("site", site),
        iterations: sum.faults,
        values: sum.values(&trust, cpu_sec),
    };
    sites.into_iter().map(measure).collect()
}

fn find<'v>(values: &'v [Value], unit: &str) -> Option<&'v Figure> {
    let value = values.iter().find(|value| value.unit.as_str() == unit);
    value.map(|value| &value.figure)
}

/// Opens the counters of the plan on these threads and all that they create.
fn count(plan: &Plan, threads: &[i32], at_exec: bool) -> Result<Vec<Counting>, Error> {
    let how = How {
        inherit: true,
        enable_on_exec: at_exec,
        user_access: false,
    };
    let mut counted = Vec::new();
    for &tid in threads {
        match plan.open(None, Target::Thread(tid), how) {
            Ok(counting) => {
                if !at_exec {
                    counting.enable().map_err(|error| refused(plan, &error))?;
                }
                counted.push(counting);
            }
            // A thread may end between our look and our open.
            Err(error) if error.errno == Errno::ESRCH && threads.len() > 1 => {}
            Err(error) => return Err(refused(plan, &error)),
        }
    }
    Ok(counted)
}

fn read(plan: &Plan, counted: &[Counting]) -> Result<Readings, Error> {
    let mut sum: Option<Readings> = None;
    for counting in counted {
        let one = counting.read().map_err(|error| refused(plan, &error))?;
        sum = Some(match sum {
            None => one,
            Some(sum) => plan::plus(&sum, &one),
        });
    }
    sum.ok_or_else(|| Error::Count(Cause::new("nothing is left to count")))
}

fn refused(plan: &Plan, error: &perf::Error) -> Error {
    Error::Count(plan.access().explain(error))
}
