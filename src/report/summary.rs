//! Samples of one benchmark summed up, unit by unit, with the trust that the figures as a whole deserve. Never writes text.

use std::collections::BTreeSet;

use crate::sample::{
    Cause, Failure, Figure, Header, INTERVAL_END, Name, Part, Record, Sample, SyntaxError, Warning,
};
use crate::stats::{Interval, order, signed_rank};
use crate::unit::{Scale, Unit};

/// The confidence of all intervals shown.
pub const CONFIDENCE: f64 = 0.95;

/// The most samples that are summed up by their signed ranks.
const MOST_RANKED: usize = 1000;

/// All of a stream that is shown.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The header, when the stream has one (the last, in an appended file).
    pub header: Option<Header>,
    /// The benchmarks in order of appearance.
    pub benchmarks: Vec<Benchmark>,
    /// Runs that failed.
    pub failures: Vec<Failure>,
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
    /// The samples in time order.
    pub samples: Vec<Sample>,
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
    /// None could be counted.
    Absent(Cause),
}

impl Stream {
    /// Takes one more record in.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Header(header) => self.header = Some(header),
            Record::Sample(sample) => {
                let same =
                    |b: &&mut Benchmark| b.name == sample.benchmark && b.variant == sample.variant;
                match self.benchmarks.iter_mut().find(same) {
                    Some(benchmark) => benchmark.samples.push(sample),
                    None => self.benchmarks.push(Benchmark {
                        name: sample.benchmark.clone(),
                        variant: sample.variant.clone(),
                        samples: vec![sample],
                    }),
                }
            }
            Record::Failure(failure) => self.failures.push(failure),
            Record::Syntax(error) => self.syntax.push(error),
            Record::Unit(_) | Record::End(_) => {}
        }
    }
}

impl Benchmark {
    /// Whether its figures are slopes over batches of two sizes: then the sample carries what a
    /// batch cost beside its operations.
    pub fn is_loop(&self) -> bool {
        self.samples
            .iter()
            .any(|sample| sample.figure("tare-sec").is_some())
    }

    /// Whether its samples are intervals of longer runs.
    pub fn is_interval(&self) -> bool {
        self.samples
            .iter()
            .any(|sample| sample.config.contains_key(INTERVAL_END))
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
        let number = |sample: &Sample, unit: &str| sample.figure(unit)?.number();
        let both = |sample: &Sample| {
            let (slope, tare) = (number(sample, "sec/op")?, number(sample, "tare-sec")?);
            // A sample holds a small batch and one of four times as many operations.
            let large = sample.iterations as f64 * 0.8;
            Some((
                slope,
                (tare + large * slope - number(sample, "empty-sec")?) / large,
            ))
        };
        let (slopes, others): (Vec<f64>, Vec<f64>) = self.samples.iter().filter_map(both).unzip();
        let interval = |figures: &[f64]| signed_rank::interval(figures, CONFIDENCE);
        if slopes.len() > MOST_RANKED {
            return None;
        }
        let (of_slopes, of_others) = (interval(&slopes)?, interval(&others)?);
        let apart = of_slopes.high < of_others.low || of_others.high < of_slopes.low;
        let estimate = signed_rank::hodges_lehmann;
        apart.then(|| Some((estimate(&slopes)?, estimate(&others)?)))?
    }

    /// The name of the estimator of its rows.
    pub fn estimator(&self) -> &'static str {
        if self.is_loop() { "estimate" } else { "median" }
    }

    /// One row a unit, in the order in which the units first appear.
    pub fn rows(&self) -> Vec<Row> {
        let mut units: Vec<&Unit> = Vec::new();
        for value in self.samples.iter().flat_map(|sample| &sample.values) {
            if !units.contains(&&value.unit) {
                units.push(&value.unit);
            }
        }
        units.into_iter().map(|unit| self.row(unit)).collect()
    }

    fn row(&self, unit: &Unit) -> Row {
        let figures: Vec<&Figure> = self
            .samples
            .iter()
            .filter_map(|sample| sample.figure(unit.as_str()))
            .collect();
        let series: Vec<f64> = figures
            .iter()
            .filter_map(|figure| figure.number())
            .collect();
        let estimate = match series[..] {
            [] => Estimate::None,
            [only] => Estimate::Single(only),
            _ => self.middle(&series),
        };
        Row {
            unit: unit.clone(),
            estimate,
            trust: trust(&figures),
            series,
        }
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

    /// The doubts of all samples, each once, with the number of samples that have it.
    pub fn warnings(&self) -> Vec<(Warning, usize)> {
        let all: BTreeSet<&Warning> = self
            .samples
            .iter()
            .flat_map(|sample| &sample.warnings)
            .collect();
        let holders = |warning| {
            self.samples
                .iter()
                .filter(|sample| sample.warnings.contains(warning))
                .count()
        };
        all.into_iter()
            .map(|warning| (warning.clone(), holders(warning)))
            .collect()
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

fn trust(figures: &[&Figure]) -> Trust {
    let labels = figures.iter().map(|figure| match figure {
        Figure::Exact(_) => Trust::Exact,
        Figure::Scaled { running, .. } => Trust::Scaled(*running),
        Figure::Partial { part, .. } => Trust::Partial(part.clone()),
        Figure::Sampled { period_sec, .. } => Trust::Sampled(*period_sec),
        Figure::Absent { why } => Trust::Absent(why.clone()),
    });
    labels
        .reduce(Trust::weaker)
        .unwrap_or(Trust::Absent(Cause::new("no sample")))
}

impl Trust {
    /// The label for both; what is absent adds nothing to what is there.
    fn weaker(self, other: Trust) -> Trust {
        use Trust::{Absent, Exact, Partial, Sampled, Scaled};
        match (self, other) {
            (known, Absent(_)) | (Absent(_), known) => known,
            (Partial(part), _) | (_, Partial(part)) => Partial(part),
            (Scaled(a), Scaled(b)) => Scaled(a.min(b)),
            (Scaled(running), _) | (_, Scaled(running)) => Scaled(running),
            (Sampled(a), Sampled(b)) => Sampled(a.max(b)),
            (Sampled(period_sec), _) | (_, Sampled(period_sec)) => Sampled(period_sec),
            (Exact, Exact) => Exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Value;

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
            stream.benchmarks[0].warnings(),
            [(Warning("late".to_owned()), 2)]
        );
    }
}
