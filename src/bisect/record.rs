//! A bisection's log: records of builds and runs, and the events that they are. Never reads a file.
//!
//! A build is a sample of the benchmark [`BUILD`], or a failure of it; its variant is the commit.
//! Every process leaves one sample, and one more for each benchmark in its output. Those of a pair
//! stand in one round, and those of the commit name the one that it stands against.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Event, Pair};
use crate::compare::Place;
use crate::sample::{Order, Record, Sample};
use crate::stats::order;
use crate::unit::Unit;

/// The benchmark that a build is.
pub const BUILD: &str = "build";

/// The setting that names the commit that a run stands against.
pub const AGAINST: &str = "against";

/// The setting of samples that were read from a process's output.
pub const FROM: &str = "from";

/// What [`FROM`] says.
pub const OUTPUT: &str = "output";

/// The setting of a run that stands alone.
pub const ALONE: &str = "alone";

/// Makes events of records, for one unit.
#[derive(Clone, Debug)]
pub struct Decoder {
    unit: Unit,
    /// The places of the commits.
    commits: Rc<BTreeMap<String, usize>>,
    /// Header by header.
    stream: u64,
    run: Vec<Sample>,
    /// The run before, if it waits for its partner.
    waiting: Option<Run>,
}

/// One process.
#[derive(Clone, Debug)]
struct Run {
    stream: u64,
    order: Order,
    place: usize,
    against: Option<usize>,
    figure: f64,
    void: bool,
    sec: f64,
}

impl Decoder {
    /// A decoder at the beginning of a log of these commits, with their places.
    pub fn new(unit: Unit, commits: Rc<BTreeMap<String, usize>>) -> Decoder {
        Decoder {
            unit,
            commits,
            stream: 0,
            run: Vec::new(),
            waiting: None,
        }
    }

    /// The events that are complete with this record. Samples of one process come one after
    /// another; the first record that is none of them completes it.
    pub fn take(&mut self, record: &Record) -> Vec<Event> {
        let mut events = Vec::new();
        let continues = match (record, self.run.first()) {
            (Record::Sample(sample), Some(first)) => sample.order == first.order,
            // Units are told where their first figure is.
            (Record::Unit(_), _) => true,
            _ => false,
        };
        if !continues {
            events.extend(self.flush());
        }
        match record {
            Record::Header(_) => {
                self.stream += 1;
                self.waiting = None;
            }
            Record::Sample(sample) if sample.benchmark.base() == BUILD => {
                if let Some(&place) = self.commits.get(&sample.variant) {
                    let sec = sample.figure("sec/op").and_then(|figure| figure.number());
                    events.push(Event::Built { place, sec });
                }
            }
            Record::Sample(sample) => self.run.push(sample.clone()),
            Record::Failure(failure) => {
                self.waiting = None;
                if let Some(&place) = self.commits.get(&failure.variant) {
                    events.push(match failure.benchmark.base() == BUILD {
                        true => Event::Unbuildable { place },
                        false => Event::Failed { place },
                    });
                }
            }
            Record::Unit(_) | Record::Syntax(_) | Record::End(_) => {}
        }
        events
    }

    /// The event that the last process makes, once it is known to be complete.
    pub fn flush(&mut self) -> Option<Event> {
        let samples = std::mem::take(&mut self.run);
        let first = samples.first()?;
        let &place = self.commits.get(&first.variant)?;
        let Some(figure) = figure(&samples, &self.unit) else {
            self.waiting = None;
            return Some(Event::Failed { place });
        };
        let against = first.config.get(AGAINST);
        let run = Run {
            stream: self.stream,
            order: first.order,
            place,
            against: against.and_then(|id| self.commits.get(id)).copied(),
            figure,
            void: Place::of(first, 0).void,
            sec: first
                .figure("sec/op")
                .and_then(|figure| figure.number())
                .unwrap_or(0.0),
        };
        if first.config.contains_key(ALONE) {
            self.waiting = None;
            return Some(Event::Single { place, figure });
        }
        let partner = self.waiting.take();
        let same = |one: &Run| one.stream == run.stream && one.order.round == run.order.round;
        match partner.filter(same) {
            Some(partner) => pair(partner, run),
            None => {
                self.waiting = Some(run);
                None
            }
        }
    }
}

fn pair(one: Run, two: Run) -> Option<Event> {
    let (run, other) = match one.against {
        Some(_) => (one, two),
        None => (two, one),
    };
    let against = run.against.filter(|&against| against == other.place)?;
    Some(Event::Pair(Pair {
        place: run.place,
        against,
        figure: run.figure,
        other: other.figure,
        first: run.order.position < other.order.position,
        void: run.void || other.void,
        sec: run.sec + other.sec,
    }))
}

/// The figure of one process: of the benchmarks in its output that have the unit, their geometric
/// mean (the mean where one is not above 0); else its own.
pub fn figure(samples: &[Sample], unit: &Unit) -> Option<f64> {
    let of = |sample: &Sample| {
        let value = sample.values.iter().find(|value| value.unit == *unit)?;
        value.figure.number().filter(|number| number.is_finite())
    };
    let is_output = |sample: &&Sample| sample.config.get(FROM).is_some_and(|from| from == OUTPUT);
    let output: Vec<f64> = samples.iter().filter(is_output).filter_map(of).collect();
    match output.is_empty() {
        true => samples
            .iter()
            .find(|sample| !is_output(sample))
            .and_then(of),
        false => order::geometric_mean(&output)
            .or_else(|| Some(output.iter().sum::<f64>() / output.len() as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Failure, Figure, Header, Name, UnitMeta, Value};
    use crate::unit::Assume;

    fn sample(
        variant: &str,
        round: u64,
        position: u32,
        config: &[(&str, &str)],
        value: f64,
    ) -> Record {
        Record::Sample(Sample {
            benchmark: Name::new("bench"),
            variant: variant.to_owned(),
            iterations: 1,
            order: Order {
                sequence: 2 * round + u64::from(position),
                round,
                position,
            },
            config: config
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            values: vec![Value::new("sec/op", Figure::Exact(value))],
            warnings: Vec::new(),
        })
    }

    fn events(records: &[Record]) -> Vec<Event> {
        let unit = Unit::named("sec/op");
        let commits = ["a", "b", "c"].into_iter().zip(0..);
        let commits = commits.map(|(id, place)| (id.to_owned(), place)).collect();
        let mut decoder = Decoder::new(unit, Rc::new(commits));
        let mut events: Vec<Event> = records.iter().flat_map(|r| decoder.take(r)).collect();
        events.extend(decoder.flush());
        events
    }

    #[test]
    fn records_are_the_events_that_they_tell() {
        let header = || Record::Header(Header::default());
        let against = &[(AGAINST, "a")][..];
        let from = &[(FROM, OUTPUT)][..];
        let failure = |benchmark: &str| {
            Record::Failure(Failure {
                benchmark: Name::new(benchmark),
                variant: "b".to_owned(),
                order: Order::default(),
                why: String::new(),
                stderr: String::new(),
            })
        };
        let pair = |place, figure, other, first| {
            Event::Pair(Pair {
                place,
                against: 0,
                figure,
                other,
                first,
                void: false,
                sec: figure + other,
            })
        };
        let check = |records: &[Record], want: &[Event]| assert_eq!(events(records), want);
        check(
            &[
                header(),
                sample("b", 0, 0, against, 2.0),
                sample("a", 0, 1, &[], 1.0),
            ],
            &[pair(1, 2.0, 1.0, true)],
        );
        check(
            &[sample("a", 0, 0, &[], 1.0), sample("a", 0, 1, against, 3.0)],
            &[pair(0, 3.0, 1.0, false)],
        );
        // One half of a pair is nothing, nor are halves of two streams one.
        check(&[sample("a", 0, 0, &[], 1.0)], &[]);
        check(
            &[
                sample("a", 0, 0, &[], 1.0),
                header(),
                sample("b", 0, 1, against, 3.0),
            ],
            &[],
        );
        check(
            &[
                sample("a", 0, 0, &[], 1.0),
                failure("bench"),
                sample("b", 1, 1, against, 3.0),
            ],
            &[Event::Failed { place: 1 }],
        );
        check(&[failure(BUILD)], &[Event::Unbuildable { place: 1 }]);
        check(
            &[sample("c", 0, 0, &[(ALONE, "1")], 4.0)],
            &[Event::Single {
                place: 2,
                figure: 4.0,
            }],
        );
        // What a program says of itself comes before its own time.
        check(
            &[
                sample("b", 0, 0, &[(ALONE, "1")], 100.0),
                Record::Unit(UnitMeta {
                    unit: Unit::named("allocs/op"),
                    better: None,
                    assume: Assume::Nothing,
                }),
                sample("b", 0, 0, from, 2.0),
                sample("b", 0, 0, from, 8.0),
            ],
            &[Event::Single {
                place: 1,
                figure: 4.0,
            }],
        );
        check(&[sample("nobody's", 0, 0, &[(ALONE, "1")], 4.0)], &[]);
    }
}
