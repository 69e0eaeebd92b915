//! The workload that is a built-in loop: one fresh process a sample, and the slope of a small and a large batch as its figure. Never runs a loop in this process.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::signal::Signal;

use super::batch::{self, Batch, Job, Report, Request};
use super::interrupt::Interrupt;
use super::loops::LoopSpec;
use super::schedule::Turn;
use super::surroundings::Surroundings;
use super::{Error, Observed, Outcome, Workload, exact};
use crate::perf::plan::{Kind, Plan};
use crate::sample::{Cause, Figure, Name, Part, Value, Warning};
use crate::unit::Unit;

/// How long the small batch should take; the large one takes four times as long. Long against
/// the cost of reading clocks and counters, short against the drift of a machine.
const BATCH: Duration = Duration::from_millis(10);

/// Ticks that user and system time must span to be worth showing.
const LEAST_TICKS: f64 = 5.0;

/// A loop, calibrated and ready to be sampled again and again.
pub struct Looped<'p> {
    spec: LoopSpec,
    name: Name,
    variant: String,
    plan: &'p Plan,
    surroundings: &'p Surroundings,
    iterations: u64,
    scratch: PathBuf,
    tick_sec: Option<f64>,
    latencies: Option<Rc<RefCell<Histogram<u64>>>>,
}

impl<'p> Looped<'p> {
    /// Finds out how many operations make a batch in `surroundings`. With `latencies`, every operation is timed on
    /// its own instead, and counted there.
    pub fn calibrate(
        spec: LoopSpec,
        plan: &'p Plan,
        surroundings: &'p Surroundings,
        tick_sec: Option<f64>,
        latencies: Option<Rc<RefCell<Histogram<u64>>>>,
        interrupt: &Interrupt,
    ) -> Result<Result<Looped<'p>, Signal>, Error> {
        let name = spec.name();
        let mut looped = Looped {
            spec,
            name,
            variant: "base".to_owned(),
            plan,
            surroundings,
            iterations: 0,
            scratch: std::env::temp_dir(),
            tick_sec,
            latencies,
        };
        let job = Job::Calibrate {
            target_ns: BATCH.as_nanos() as u64,
        };
        match looped.run(Vec::new(), job, None, interrupt)? {
            Ok(Report::Calibrated { iterations }) => {
                looped.iterations = iterations;
                Ok(Ok(looped))
            }
            Ok(_) => Err(Error::Prepare(
                "the measured process answered another question".to_owned(),
            )),
            Err(signal) => Ok(Err(signal)),
        }
    }

    /// The same loop as one variant of the benchmark `name`.
    pub fn as_variant(self, name: Name, variant: String) -> Looped<'p> {
        Looped {
            name,
            variant,
            ..self
        }
    }

    /// Runs one job in a fresh process; the inner error is the signal that stopped us.
    fn run(
        &self,
        groups: Vec<Vec<String>>,
        job: Job,
        turn: Option<&Turn>,
        interrupt: &Interrupt,
    ) -> Result<Result<Report, Signal>, Error> {
        let request = Request {
            spec: self.spec.to_string(),
            groups,
            scratch: self.scratch.clone(),
            job,
        };
        batch::ask(&request, self.surroundings, turn, interrupt)
    }

    fn slopes(&self, rotation: Option<u64>, [empty, small, large]: [Batch; 3]) -> Observed {
        let operations = (large.iterations - small.iterations) as f64;
        let slope = |large: u64, small: u64| (large as f64 - small as f64) / operations;
        let op_sec = slope(large.wall_ns, small.wall_ns) / 1e9;
        let cpu_sec = slope(large.cpu_ns, small.cpu_ns) / 1e9;
        let cpu = match self.spec.counts_children() {
            false => Figure::Exact(cpu_sec),
            true => Figure::Partial {
                value: cpu_sec,
                part: Part("without its child processes".to_owned()),
            },
        };
        let mut values = vec![exact("sec/op", op_sec), Value::new("cpu-sec/op", cpu)];
        let both = |of: fn(&Batch) -> i64| (of(&small) + of(&large)) as f64 / 1e6;
        let batches_sec = (small.wall_ns + large.wall_ns) as f64 / 1e9;
        for (unit, seconds) in [
            ("user-sec/op", both(|b| b.user_us)),
            ("sys-sec/op", both(|b| b.system_us)),
        ] {
            let per_op = seconds / (small.iterations + large.iterations) as f64;
            let figure = match self.tick_sec {
                None => Figure::Exact(per_op),
                Some(tick_sec) if batches_sec < LEAST_TICKS * tick_sec => Figure::absent(
                    Cause::new("the batches are too short for the ticks at which it is sampled"),
                ),
                Some(period_sec) => Figure::Sampled {
                    value: per_op,
                    period_sec,
                },
            };
            values.push(Value::new(unit, figure));
        }
        if let Some(bytes) = self.spec.bytes_per_op() {
            // Noise can make a slope of nearly nothing negative.
            values.push(match op_sec > 0.0 {
                true => exact("B/s", bytes as f64 / op_sec),
                false => Value::new(
                    "B/s",
                    Figure::absent("the batches took no time that could be told from noise"),
                ),
            });
        }
        let in_large = self.plan.values(rotation, &large.readings());
        let in_small = self.plan.values(rotation, &small.readings());
        for ((kind, large), (_, small)) in in_large.into_iter().zip(in_small) {
            let figure = match kind {
                Kind::Ratio => large.figure,
                Kind::Total => large
                    .figure
                    .weaker(small.figure, |large, small| (large - small) / operations),
            };
            values.push(Value {
                unit: large.unit,
                figure,
            });
        }
        values.push(exact(
            "tare-sec",
            small.wall_ns as f64 / 1e9 - op_sec * small.iterations as f64,
        ));
        values.push(exact("empty-sec", empty.wall_ns as f64 / 1e9));
        Observed {
            iterations: small.iterations + large.iterations,
            warnings: self.miscount(&values).into_iter().collect(),
            values,
            ..Observed::default()
        }
    }

    /// A doubt when a count that is known beforehand is another: then the counters are not to be
    /// trusted here, or something disturbed them.
    fn miscount(&self, values: &[Value]) -> Option<Warning> {
        let (event, expected) = self.spec.expected()?;
        let unit = Unit::per_op(event);
        let counted = values
            .iter()
            .find(|value| value.unit == unit)?
            .figure
            .number()?;
        let is_off = (counted - expected).abs() > 0.01 * expected.max(0.1);
        is_off.then(|| {
            Warning(format!(
                "{unit} should be {expected}: the counters are off, or were disturbed"
            ))
        })
    }

    fn percentiles(
        &self,
        counts: &[(u64, u64)],
        clock_ns: f64,
        step_ns: u64,
    ) -> Result<Observed, Error> {
        let mut histogram = batch::new_histogram();
        for &(ns, count) in counts {
            histogram.saturating_record_n(ns, count);
        }
        let middle_ns = histogram.value_at_quantile(0.5) as f64;
        if step_ns as f64 > middle_ns / 2.0 || clock_ns > 0.9 * middle_ns {
            return Err(Error::Count(Cause::new(format!(
                "the clock is too coarse to time one operation: it steps by {step_ns} ns and costs {clock_ns:.0} ns a \
                 reading, and half of the operations seem to take less than {middle_ns} ns"
            )).cure("without --latency the slope over batches needs no such clock")));
        }
        if let Some(all) = &self.latencies {
            // Equal bounds and digits: it always fits.
            let _ = all.borrow_mut().add(&histogram);
        }
        let net = |ns: u64| (ns as f64 - clock_ns) / 1e9;
        let percentile = |(name, quantile): (&str, f64)| {
            let unit = format!("{name}-sec");
            // Below so many operations it is the slowest one under another name.
            let needed = (1.0 / (1.0 - quantile)).round();
            let figure = match histogram.len() as f64 >= needed {
                true => Figure::Exact(net(histogram.value_at_quantile(quantile))),
                false => Figure::absent(format!("it takes {needed} operations a sample")),
            };
            Value::new(&unit, figure)
        };
        let mut values: Vec<Value> = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
            .map(percentile)
            .into();
        values.push(exact("max-sec", net(histogram.max())));
        values.push(exact("clock-sec", clock_ns / 1e9));
        Ok(Observed {
            iterations: histogram.len(),
            values,
            ..Observed::default()
        })
    }
}

impl Workload for Looped<'_> {
    fn benchmark(&self) -> &Name {
        &self.name
    }

    fn variant(&self) -> &str {
        &self.variant
    }

    fn config(&self, turn: &Turn) -> Vec<(String, String)> {
        self.surroundings.config(turn)
    }

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        _partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        let rotation = (!turn.only).then_some(turn.order.round);
        let (groups, job) = match self.latencies {
            Some(_) => (
                Vec::new(),
                Job::Latency {
                    iterations: self.iterations,
                },
            ),
            None => (
                self.plan.spellings(rotation),
                Job::Pair {
                    iterations: self.iterations,
                    large_first: turn.coin,
                },
            ),
        };
        match self.run(groups, job, Some(turn), interrupt)? {
            Err(signal) => Ok(Outcome::Interrupted(signal)),
            Ok(Report::Pair {
                empty,
                small,
                large,
            }) => Ok(Outcome::Observed(
                self.slopes(rotation, [empty, small, large]),
            )),
            Ok(Report::Latency {
                counts,
                clock_ns,
                step_ns,
            }) => self
                .percentiles(&counts, clock_ns, step_ns)
                .map(Outcome::Observed),
            Ok(_) => Err(Error::Prepare(
                "the measured process answered another question".to_owned(),
            )),
        }
    }
}
