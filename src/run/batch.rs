//! The measured process of a built-in loop: one fresh process that runs batches with counters round them and leaves a report. Never decides how many batches or what they mean.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use super::Error;
use super::interrupt::Interrupt;
use super::loops::{self, Point, Prepared};
use super::schedule::Turn;
use super::surroundings::Surroundings;
use super::wait::{Wait, Woken};
use crate::perf::catalog::Catalog;
use crate::perf::plan::Readings;
use crate::perf::reading::Reading;
use crate::perf::selfread::{Mark, SelfCounters};
use crate::sys::child::{Child, Launcher, Program};
use crate::sys::{clock, descriptor, privilege};

/// The word by which we execute ourselves for it; no verb for users.
pub const VERB: &str = "__batch";

/// The descriptor on which the process reports.
const REPORT_FD: i32 = 3;

/// What the process is to do; its argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The loop, as [`loops::parse`] reads it.
    pub spec: String,
    /// Spellings of the events to count, group by group.
    pub groups: Vec<Vec<String>>,
    /// A directory for files.
    pub scratch: PathBuf,
    /// What to run.
    pub job: Job,
}

/// What to run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Finds how many operations take `target_ns`.
    Calibrate {
        /// Nanoseconds that a batch should take.
        target_ns: u64,
    },
    /// A batch of `iterations`, one of four times as many, and an empty one.
    Pair {
        /// Operations of the small batch.
        iterations: u64,
        /// Whether the large batch runs first.
        large_first: bool,
    },
    /// Times each of `iterations` operations on its own.
    Latency {
        /// Operations timed.
        iterations: u64,
    },
    /// The heap loop over many sizes.
    Sweep {
        /// Their order is drawn from it.
        seed: u64,
    },
}

/// What the process found; what it writes, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Of [`Job::Calibrate`].
    Calibrated {
        /// Operations that take about the wanted time.
        iterations: u64,
    },
    /// Of [`Job::Pair`].
    Pair {
        /// No operations at all: what reading clocks and counters costs.
        empty: Batch,
        /// N operations.
        small: Batch,
        /// 4 N operations.
        large: Batch,
    },
    /// Of [`Job::Latency`].
    Latency {
        /// How often each duration in nanoseconds was seen, in buckets of three digits.
        counts: Vec<(u64, u64)>,
        /// Nanoseconds that one reading of the clock costs.
        clock_ns: f64,
        /// The clock's smallest step in nanoseconds.
        step_ns: u64,
    },
    /// Of [`Job::Sweep`].
    Swept {
        /// What was measured, in the order in which it ran.
        points: Vec<Point>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// One batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// Operations.
    pub iterations: u64,
    /// Wall time.
    pub wall_ns: u64,
    /// CPU time of the process by its clock.
    pub cpu_ns: u64,
    /// User time of the process by getrusage(2).
    pub user_us: i64,
    /// System time of the process by getrusage(2).
    pub system_us: i64,
    /// Count, enabled and running nanoseconds of every event, group by group.
    pub readings: Vec<Vec<(u64, u64, u64)>>,
}

impl Batch {
    /// The readings in the form that a plan takes.
    pub fn readings(&self) -> Readings {
        let reading = |&(count, enabled_ns, running_ns): &_| Reading {
            count,
            enabled_ns,
            running_ns,
        };
        self.readings
            .iter()
            .map(|group| group.iter().map(reading).collect())
            .collect()
    }
}

/// A measured process that was started and not yet heard.
pub struct Started<'s> {
    child: Child,
    surroundings: &'s Surroundings,
    /// A file in memory, shared with the process: unlike a pipe it never fills, and its end is
    /// the process's end.
    report: File,
}

impl<'s> Started<'s> {
    /// Executes ourselves for `request`, in `surroundings`, in their turn if it has one.
    pub fn start(
        request: &Request,
        surroundings: &'s Surroundings,
        turn: Option<&Turn>,
    ) -> Result<Started<'s>, Error> {
        let failed = |action: &str| Error::system(action.to_owned());
        let null = || {
            File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
        };
        let report = memfd_create(c"poise-report", MFdFlags::MFD_CLOEXEC);
        let report =
            File::from(report.map_err(|errno| failed("make a file in memory")(errno.into()))?);
        let shared = report
            .try_clone()
            .map_err(failed("share a file in memory"))?;
        let null = || null().map(Some).map_err(failed("open /dev/null"));
        let request = serde_json::to_string(request)
            .map_err(|error| failed("pass the request")(error.into()))?;
        let argv = ["poise", VERB, &request]
            .map(CString::new)
            .into_iter()
            .collect::<Result<Vec<_>, _>>();
        let program = Program {
            // Ourselves, even when our file was replaced meanwhile.
            path: c"/proc/self/exe".to_owned(),
            argv: argv.map_err(|error| failed("pass the request")(error.into()))?,
            envp: super::environment()?,
            files: vec![null()?, null()?, None, Some(shared.into())],
            entrance: surroundings.entrance.clone(),
            affinity: surroundings.affinity()?,
            settings: surroundings.settings,
            own_session: true,
        };
        let mut launcher = Launcher::new(program).map_err(failed("prepare to launch"))?;
        if let Some(bytes) = turn.and_then(|turn| surroundings.padding_bytes(turn)) {
            let padded = launcher.pad(bytes);
            padded.map_err(failed("lengthen the environment"))?;
        }
        // What counts here must be able to count there.
        let child = privilege::hand_on(|| launcher.start())
            .flatten()
            .map_err(failed("start a process"))?;
        child.release();
        Ok(Started {
            child,
            surroundings,
            report,
        })
    }

    /// Polls readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// Reaps it, which waits for its end, and reads its report.
    pub fn hear(mut self) -> Result<Report, Error> {
        let exit = self
            .child
            .reap()
            .map_err(Error::system("wait for the measured process"))?;
        if let Some((step, errno)) = exit.setup_error {
            return Err(self.surroundings.failed(step, errno));
        }
        if let Some(errno) = exit.exec_error {
            // Most likely /proc is not mounted.
            return Err(Error::system("execute ourselves by /proc/self/exe")(
                errno.into(),
            ));
        }
        let mut text = String::new();
        let read = self
            .report
            .rewind()
            .and_then(|()| self.report.read_to_string(&mut text));
        read.map_err(Error::system("read the measured process's report"))?;
        match serde_json::from_str(&text) {
            Ok(Report::Failed { error }) => Err(Error::Prepare(error)),
            Ok(report) => Ok(report),
            Err(_) => {
                let end = super::command::failure(exit.code, exit.signal)
                    .map_or("no report".to_owned(), |(why, _)| why);
                Err(Error::Prepare(format!(
                    "the measured process ended early: {end}"
                )))
            }
        }
    }
}

/// Has a fresh process do what `request` says, in its turn if it has one; the inner error is the
/// signal that stopped us.
pub(super) fn ask(
    request: &Request,
    surroundings: &Surroundings,
    turn: Option<&Turn>,
    interrupt: &Interrupt,
) -> Result<Result<Report, Signal>, Error> {
    let started = Started::start(request, surroundings, turn)?;
    let mut wait = Wait::new(Instant::now(), None, None, interrupt);
    match wait
        .until(Some(started.pidfd()), None)
        .map_err(|errno| Error::system("wait")(errno.into()))?
    {
        // Dropped, the process is killed and reaped.
        Woken::Interrupted(signal) => Ok(Err(signal)),
        _ => started.hear().map(Ok),
    }
}

/// The measured process's life: does what `request` says and reports.
pub fn serve(request: &str) -> io::Result<()> {
    let mut report = descriptor::inherited(REPORT_FD)?;
    let found = serde_json::from_str::<Request>(request)
        .map_err(|error| error.to_string())
        .and_then(|request| perform(&request));
    let found = found.unwrap_or_else(|error| Report::Failed { error });
    report.write_all(serde_json::to_string(&found)?.as_bytes())
}

fn perform(request: &Request) -> Result<Report, String> {
    let specs = loops::parse(&request.spec).map_err(|error| error.to_string())?;
    let [spec] = &specs[..] else {
        return Err(format!("`{}` names several loops", request.spec));
    };
    // Before the loop is made ready: a partner process that it forks then is counted too.
    let counters = open_counters(&request.groups, spec.counts_children())?;
    let mut work = spec
        .prepare(&request.scratch)
        .map_err(|error| error.to_string())?;
    let granularity = spec.granularity();
    match request.job {
        Job::Calibrate { target_ns } => calibrate(&mut work, granularity, target_ns),
        Job::Pair {
            iterations,
            large_first,
        } => {
            // Caches, branch predictors and page tables are warm in both batches, or in neither.
            run(
                &mut work,
                (iterations / 4)
                    .next_multiple_of(granularity)
                    .max(granularity),
            )?;
            let empty = measure(&mut work, 0, &counters)?;
            let [first, second] = if large_first { [4, 1] } else { [1, 4] };
            let first = measure(&mut work, first * iterations, &counters)?;
            let second = measure(&mut work, second * iterations, &counters)?;
            let (small, large) = if large_first {
                (second, first)
            } else {
                (first, second)
            };
            Ok(Report::Pair {
                empty,
                small,
                large,
            })
        }
        Job::Latency { iterations } => time_each(&mut work, iterations),
        Job::Sweep { seed } => {
            let points = spec.sweep(seed).map_err(|error| error.to_string())?;
            Ok(Report::Swept { points })
        }
    }
}

fn run(work: &mut Prepared, iterations: u64) -> Result<(), String> {
    work.run(iterations).map_err(|error| error.to_string())
}

fn calibrate(work: &mut Prepared, granularity: u64, target_ns: u64) -> Result<Report, String> {
    let mut time_ns = |iterations| -> Result<u64, String> {
        let start_ns = clock::monotonic_ns();
        run(work, iterations)?;
        Ok((clock::monotonic_ns() - start_ns).max(1))
    };
    let mut iterations = granularity;
    let mut took_ns = time_ns(iterations)?;
    while took_ns < target_ns / 4 && iterations < 1 << 40 {
        iterations *= 2;
        took_ns = time_ns(iterations)?;
    }
    // The fastest of a few: a busy machine must not make the batches too short.
    for _ in 0..2 {
        took_ns = took_ns.min(time_ns(iterations)?);
    }
    let wanted = target_ns as f64 * iterations as f64 / took_ns as f64;
    Ok(Report::Calibrated {
        iterations: (wanted.ceil() as u64).next_multiple_of(granularity),
    })
}

fn open_counters(groups: &[Vec<String>], inherit: bool) -> Result<Vec<SelfCounters>, String> {
    let catalog = Catalog::default();
    let open = |spellings: &Vec<String>| -> Result<SelfCounters, String> {
        let parsed = catalog
            .parse(&spellings.join(","))
            .map_err(|error| error.to_string())?;
        let events: Vec<_> = parsed.into_iter().flat_map(|group| group.events).collect();
        let counters = SelfCounters::open(&events, inherit).map_err(|error| error.to_string())?;
        counters.enable().map_err(|error| error.to_string())?;
        Ok(counters)
    };
    groups.iter().map(open).collect()
}

/// Runs one batch. Counters are marked outside the clocks, so that the clocks see no counter
/// being read; the counters then see the clocks, whose cost the slope removes.
fn measure(
    work: &mut Prepared,
    iterations: u64,
    counters: &[SelfCounters],
) -> Result<Batch, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let times = || -> Result<(u64, i64, i64), String> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(|error| text(&error))?;
        let cpu_ns = clock::process_cpu_ns().map_err(|error| text(&error))?;
        Ok((
            cpu_ns,
            usage.user_time().num_microseconds(),
            usage.system_time().num_microseconds(),
        ))
    };
    let before = times()?;
    let opened: Vec<Mark> = counters
        .iter()
        .map(SelfCounters::before)
        .collect::<Result<_, _>>()
        .map_err(|e| text(&e))?;
    let start_ns = clock::monotonic_ns();
    run(work, iterations)?;
    let wall_ns = clock::monotonic_ns() - start_ns;
    let closed: Vec<Mark> = counters
        .iter()
        .map(SelfCounters::after)
        .collect::<Result<_, _>>()
        .map_err(|e| text(&e))?;
    let after = times()?;
    let marks = closed.iter().zip(&opened);
    let plain = |reading: Reading| (reading.count, reading.enabled_ns, reading.running_ns);
    Ok(Batch {
        iterations,
        wall_ns,
        cpu_ns: after.0 - before.0,
        user_us: after.1 - before.1,
        system_us: after.2 - before.2,
        readings: marks
            .map(|(closed, opened)| closed.since(opened).into_iter().map(plain).collect())
            .collect(),
    })
}

fn time_each(work: &mut Prepared, iterations: u64) -> Result<Report, String> {
    let mut histogram = new_histogram();
    work.run_timed(iterations / 10 + 1, |_| {})
        .map_err(|error| error.to_string())?;
    work.run_timed(iterations, |ns| histogram.saturating_record(ns))
        .map_err(|error| error.to_string())?;
    Ok(Report::Latency {
        counts: histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
            .collect(),
        clock_ns: clock::cost_ns(),
        step_ns: clock::step_ns(),
    })
}

/// A histogram of nanoseconds up to a minute, true to three digits.
pub fn new_histogram() -> hdrhistogram::Histogram<u64> {
    // The bounds are constant and legal, so there is always a histogram.
    hdrhistogram::Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!())
}
