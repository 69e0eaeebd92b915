//! Samples of one benchmark summed up, unit by unit, with the trust that the figures as a whole deserve. Never writes text.

use std::collections::BTreeMap;

use crate::sample::{
    Cause, Failure, Figure, INTERVAL_END, Name, Part, Record, Rule, Sample, SyntaxError, Value,
    Warning,
};
use crate::stats::{Interval, order, signed_rank};
use crate::unit::{Scale, Unit};

/// The confidence of all intervals shown.
pub const CONFIDENCE: f64 = 0.95;

/// The most samples that are summed up by their signed ranks.
const MOST_RANKED: usize = 1000;

/// The most failures that are kept to be shown.
const MOST_FAILURES: usize = 3;

/// All of a stream that is shown: of each sample its figures alone, so that millions fit into
/// memory.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The benchmarks in order of appearance.
    pub benchmarks: Vec<Benchmark>,
    /// The first runs that failed.
    pub failures: Vec<Failure>,
    /// How many runs failed.
    pub failed: u64,
    /// Lines that could not be read.
    pub syntax: Vec<SyntaxError>,
}

/// All samples of one benchmark in one variant.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// Its name.
    pub name: Name,
    /// The variant.
    pub variant: String,
    /// How many samples there are.
    pub samples: usize,
    /// The units in order of appearance.
    pub series: Vec<Series>,
    /// The doubts, with the number of samples that have each.
    pub warnings: BTreeMap<Warning, usize>,
    /// When the last of its samples ended, if they are intervals of longer runs.
    pub interval_end: Option<String>,
    /// The time of an operation by the difference from an empty batch, of loops.
    against_empty: Vec<f64>,
}

/// The figures of one unit.
#[derive(Clone, Debug)]
pub struct Series {
    /// The unit.
    pub unit: Unit,
    /// The figures in time order.
    pub figures: Vec<f64>,
    /// The weakest of their labels.
    pub trust: Trust,
}

/// One unit of a benchmark, summed up.
#[derive(Clone, Debug)]
pub struct Row {
    /// The unit.
    pub unit: Unit,
    /// The figures in time order.
    pub series: Vec<f64>,
    /// What they say.
    pub estimate: Estimate,
    /// How far to trust it: the weakest label of its figures.
    pub trust: Trust,
}

/// The figure that stands for a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimate {
    /// No figure at all.
    None,
    /// The only figure.
    Single(f64),
    /// The middle of several.
    Middle {
        /// The median, or for slopes (of at most 1000 samples) the Hodges–Lehmann estimate.
        value: f64,
        /// Its interval, when the samples are enough for one.
        interval: Option<Interval>,
    },
}

/// How far to trust a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Trust {
    /// Every figure is exact.
    Exact,
    /// Some were extrapolated; the smallest share that was counted.
    Scaled(f64),
    /// Some cover a part only.
    Partial(Part),
    /// Some were sampled, once in so many seconds.
    Sampled(f64),
    /// Some were computed by a rule.
    Estimated(Rule),
    /// None could be counted.
    Absent(Cause),
}

impl Stream {
    /// Takes one more record in.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Sample(sample) => {
                let same =
                    |b: &Benchmark| b.name == sample.benchmark && b.variant == sample.variant;
                let at = self.benchmarks.iter().position(same).unwrap_or_else(|| {
                    self.benchmarks.push(Benchmark::of(&sample));
                    self.benchmarks.len() - 1
                });
                self.benchmarks[at].take(sample);
            }
            Record::Failure(failure) => {
                self.failed += 1;
                if self.failures.len() < MOST_FAILURES {
                    self.failures.push(failure);
                }
            }
            Record::Syntax(error) => self.syntax.push(error),
            Record::Header(_) | Record::Unit(_) | Record::End(_) => {}
        }
    }
}

impl Benchmark {
    /// The benchmark of `sample`, without samples.
    fn of(sample: &Sample) -> Benchmark {
        Benchmark {
            name: sample.benchmark.clone(),
            variant: sample.variant.clone(),
            samples: 0,
            series: Vec::new(),
            warnings: BTreeMap::new(),
            interval_end: None,
            against_empty: Vec::new(),
        }
    }

    fn take(&mut self, mut sample: Sample) {
        self.samples += 1;
        self.against_empty.extend(against_empty(&sample));
        for warning in sample.warnings {
            *self.warnings.entry(warning).or_default() += 1;
        }
        if let Some(end) = sample.config.remove(INTERVAL_END) {
            self.interval_end = Some(end);
        }
        for Value { unit, figure } in sample.values {
            let (number, trust) = (figure.number(), Trust::of(figure));
            match self.series.iter_mut().find(|series| series.unit == unit) {
                Some(series) => {
                    series.figures.extend(number);
                    series.trust.weaken(trust);
                }
                None => self.series.push(Series {
                    unit,
                    figures: number.into_iter().collect(),
                    trust,
                }),
            }
        }
    }

    /// The figures of `unit`, if any sample has it.
    pub fn series(&self, unit: &str) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.unit.as_str() == unit)
    }

    /// Whether its figures are slopes over batches of two sizes: then the sample carries what a
    /// batch cost beside its operations.
    pub fn is_loop(&self) -> bool {
        self.series("tare-sec").is_some()
    }

    /// Whether a slope cannot be told from nothing: its interval holds 0 and it varies, or the
    /// only one is not above 0.
    pub fn is_below_tare(&self, row: &Row) -> bool {
        let is_slope = self.is_loop() && row.unit.as_str().ends_with("/op");
        let (min, max) = row.range();
        is_slope
            && match row.estimate {
                Estimate::Middle {
                    interval: Some(interval),
                    ..
                } => interval.contains(0.0) && min < max,
                Estimate::Single(only) => only < 0.0,
                _ => false,
            }
    }

    /// The time of an operation by slope and by the difference from an empty batch, when their
    /// intervals do not meet.
    pub fn empty_loop_disagrees(&self) -> Option<(f64, f64)> {
        let (slopes, others) = (&self.series("sec/op")?.figures, &self.against_empty);
        if slopes.len() > MOST_RANKED {
            return None;
        }
        let interval = |figures: &[f64]| signed_rank::interval(figures, CONFIDENCE);
        let (of_slopes, of_others) = (interval(slopes)?, interval(others)?);
        let apart = of_slopes.high < of_others.low || of_others.high < of_slopes.low;
        let estimate = signed_rank::hodges_lehmann;
        apart.then(|| Some((estimate(slopes)?, estimate(others)?)))?
    }

    /// The name of the estimator of its rows.
    pub fn estimator(&self) -> &'static str {
        if self.is_loop() { "estimate" } else { "median" }
    }

    /// One row a unit, in the order in which the units first appear.
    pub fn rows(&self) -> Vec<Row> {
        let row = |series: &Series| Row {
            unit: series.unit.clone(),
            estimate: match series.figures[..] {
                [] => Estimate::None,
                [only] => Estimate::Single(only),
                _ => self.middle(&series.figures),
            },
            trust: series.trust.clone(),
            series: series.figures.clone(),
        };
        self.series.iter().map(row).collect()
    }

    fn middle(&self, series: &[f64]) -> Estimate {
        // Beyond so many samples the median says as much, and the signed ranks take cubic time.
        let by_ranks = self.is_loop() && series.len() <= MOST_RANKED;
        let (value, interval) = match by_ranks {
            true => (
                signed_rank::hodges_lehmann(series),
                signed_rank::interval(series, CONFIDENCE),
            ),
            false => (
                order::median(series),
                order::median_interval(series, CONFIDENCE),
            ),
        };
        value.map_or(Estimate::None, |value| Estimate::Middle { value, interval })
    }
}

impl Row {
    /// The scale on which all figures of the row are written.
    pub fn scale(&self) -> Scale {
        let typical = match self.estimate {
            Estimate::Single(value) | Estimate::Middle { value, .. } if value != 0.0 => value,
            // Mostly nothing, now and then something: that something must be readable.
            _ => self.series.iter().copied().fold(0.0, |most, figure| {
                if figure.abs() > f64::abs(most) {
                    figure
                } else {
                    most
                }
            }),
        };
        Scale::for_figure(self.unit.dimension(), typical)
    }

    /// The smallest and the largest figure; not numbers when there is none.
    pub fn range(&self) -> (f64, f64) {
        let by = |pick: fn(f64, f64) -> f64| {
            self.series.iter().copied().reduce(pick).unwrap_or(f64::NAN)
        };
        (by(f64::min), by(f64::max))
    }
}

/// The time of an operation by the large batch less an empty one, of a loop's sample.
fn against_empty(sample: &Sample) -> Option<f64> {
    let number = |unit| sample.figure(unit)?.number();
    let (slope, tare, empty) = (number("sec/op")?, number("tare-sec")?, number("empty-sec")?);
    // A sample holds a small batch and one of four times as many operations.
    let large = sample.iterations as f64 * 0.8;
    Some((tare + large * slope - empty) / large)
}

impl Trust {
    fn of(figure: Figure) -> Trust {
        match figure {
            Figure::Exact(_) => Trust::Exact,
            Figure::Scaled { running, .. } => Trust::Scaled(running),
            Figure::Partial { part, .. } => Trust::Partial(part),
            Figure::Sampled { period_sec, .. } => Trust::Sampled(period_sec),
            Figure::Estimated { rule, .. } => Trust::Estimated(rule),
            Figure::Absent { why } => Trust::Absent(why),
        }
    }

    fn weaken(&mut self, other: Trust) {
        let known = std::mem::replace(self, Trust::Exact);
        *self = known.weaker(other);
    }

    /// The label for both; what is absent adds nothing to what is there.
    fn weaker(self, other: Trust) -> Trust {
        use Trust::{Absent, Estimated, Exact, Partial, Sampled, Scaled};
        match (self, other) {
            (known, Absent(_)) | (Absent(_), known) => known,
            (Partial(part), _) | (_, Partial(part)) => Partial(part),
            (Scaled(a), Scaled(b)) => Scaled(a.min(b)),
            (Scaled(running), _) | (_, Scaled(running)) => Scaled(running),
            (Sampled(a), Sampled(b)) => Sampled(a.max(b)),
            (Sampled(period_sec), _) | (_, Sampled(period_sec)) => Sampled(period_sec),
            (Estimated(rule), _) | (_, Estimated(rule)) => Estimated(rule),
            (Exact, Exact) => Exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(figures: &[Figure]) -> Stream {
        let mut stream = Stream::default();
        for figure in figures {
            let unit = Unit::named("sec/op");
            stream.take(Record::Sample(Sample {
                benchmark: Name::new("x"),
                variant: "base".to_owned(),
                iterations: 1,
                order: Default::default(),
                config: Default::default(),
                values: vec![Value {
                    unit,
                    figure: figure.clone(),
                }],
                warnings: vec![Warning("late".to_owned())],
            }));
        }
        stream
    }

    fn row(figures: &[Figure]) -> Row {
        stream(figures).benchmarks[0].rows().remove(0)
    }

    #[test]
    fn the_weakest_label_is_shown() {
        let absent = Figure::absent("no PMU");
        let scaled = |running| Figure::Scaled {
            value: 1.0,
            running,
        };
        let check =
            |figures: &[Figure], want: Trust| assert_eq!(row(figures).trust, want, "{figures:?}");
        check(&[Figure::Exact(1.0), Figure::Exact(2.0)], Trust::Exact);
        check(
            &[absent.clone(), absent.clone()],
            Trust::Absent("no PMU".into()),
        );
        check(&[absent.clone(), Figure::Exact(1.0)], Trust::Exact);
        check(
            &[scaled(0.5), Figure::Exact(1.0), scaled(0.25)],
            Trust::Scaled(0.25),
        );
        check(
            &[
                Figure::Exact(1.0),
                Figure::Sampled {
                    value: 1.0,
                    period_sec: 0.004,
                },
            ],
            Trust::Sampled(0.004),
        );
        let part = || Part("user mode only".to_owned());
        let partial = Figure::Partial {
            value: 1.0,
            part: part(),
        };
        check(
            &[partial.clone(), scaled(0.5), absent],
            Trust::Partial(part()),
        );
        check(&[scaled(0.5), partial], Trust::Partial(part()));
    }

    #[test]
    fn absent_figures_are_not_zeros() {
        let row = row(&[Figure::absent("no PMU"), Figure::Exact(3.0)]);
        assert_eq!(
            (row.series, row.estimate),
            (vec![3.0], Estimate::Single(3.0))
        );
    }

    #[test]
    fn an_interval_needs_enough_samples() {
        let of =
            |n: u32| row(&(1..=n).map(|i| Figure::Exact(i.into())).collect::<Vec<_>>()).estimate;
        assert_eq!(
            of(5),
            Estimate::Middle {
                value: 3.0,
                interval: None
            }
        );
        let Estimate::Middle {
            value,
            interval: Some(interval),
        } = of(11)
        else {
            panic!("{:?}", of(11))
        };
        assert_eq!(value, 6.0);
        assert!(
            interval.contains(value) && interval.low > 1.0,
            "{interval:?}"
        );
    }

    #[test]
    fn many_slopes_are_summed_up_in_time() {
        let mut stream = stream(&[]);
        for i in 0..20_001 {
            let value = |unit| Value::new(unit, Figure::Exact(f64::from(i)));
            stream.take(Record::Sample(Sample {
                benchmark: Name::new("x"),
                variant: "base".to_owned(),
                iterations: 1,
                order: Default::default(),
                config: Default::default(),
                values: vec![value("sec/op"), value("tare-sec")],
                warnings: Vec::new(),
            }));
        }
        let began = std::time::Instant::now();
        let row = stream.benchmarks[0].rows().remove(0);
        assert!(
            matches!(
                row.estimate,
                Estimate::Middle {
                    value: 10_000.0,
                    interval: Some(_)
                }
            ),
            "{:?}",
            row.estimate
        );
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn warnings_are_counted() {
        let stream = stream(&[Figure::Exact(1.0), Figure::Exact(1.0)]);
        assert_eq!(
            stream.benchmarks[0]
                .warnings
                .clone()
                .into_iter()
                .collect::<Vec<_>>(),
            [(Warning("late".to_owned()), 2)]
        );
    }
}
