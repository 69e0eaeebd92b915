//! What one parameter does to a program: its values side by side in rounds, what a fault and a collection cost by slopes within rounds, and which value is best. Never runs anything.

use std::collections::BTreeMap;

use super::{Cell, Judge, Judgement, Trial, as_family};
use crate::stats::comparison::Verdict;
use crate::stats::order::median;
use crate::stats::sequential::Rule;
use crate::stats::{Interval, regression, signed_rank};
use crate::unit::Unit;

/// How certain all intervals are.
pub const CONFIDENCE: f64 = 0.95;

/// What one more of something costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The Hodges–Lehmann estimate of the rounds' slopes, in units of what is paid with.
    pub each: f64,
    /// Its interval, where the rounds are enough for one.
    pub interval: Option<Interval>,
    /// The rounds that have a slope.
    pub rounds: usize,
}

/// The best value, and those that are not certainly worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Best {
    /// The one with the lowest median.
    pub value: usize,
    /// It, and all that are not certainly higher, in order.
    pub candidates: Vec<usize>,
}

/// What changes in the middle from one value to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// How many more there are, or fewer.
    pub more: f64,
    /// What they cost, or save.
    pub costs: f64,
    /// That as a share of all that the other value pays.
    pub share: f64,
}

impl Trial {
    /// What one more of `cause` costs in `unit`, over all values: in each round the line through its
    /// values (Theil and Sen), so that what changes from round to round drops out; then the middle
    /// of the rounds' slopes. `None` where no round has one.
    pub fn cost(&self, unit: &Unit, cause: &Unit) -> Option<Cost> {
        let paid = self.rounds(unit);
        let slope = |(round, causes): (u64, Vec<(usize, f64)>)| {
            let paid = paid.get(&round)?;
            let both = causes.into_iter().filter_map(|(value, x)| {
                let (_, y) = paid.iter().find(|(other, _)| *other == value)?;
                Some((x, *y))
            });
            let (x, y): (Vec<f64>, Vec<f64>) = both.unzip();
            regression::theil_sen(&x, &y).map(|line| line.slope)
        };
        let slopes: Vec<f64> = self.rounds(cause).into_iter().filter_map(slope).collect();
        Some(Cost {
            each: signed_rank::hodges_lehmann(&slopes)?,
            interval: signed_rank::interval(&slopes, CONFIDENCE),
            rounds: slopes.len(),
        })
    }

    /// The figures of `unit` that are not void, with their values, round by round.
    fn rounds(&self, unit: &Unit) -> BTreeMap<u64, Vec<(usize, f64)>> {
        let mut rounds: BTreeMap<u64, Vec<(usize, f64)>> = BTreeMap::new();
        for (value, cell) in self.cells(unit).iter().enumerate() {
            let places = cell.places.iter().flatten();
            for (&figure, place) in cell.figures.iter().zip(places) {
                if !place.void {
                    rounds.entry(place.round).or_default().push((value, figure));
                }
            }
        }
        rounds
    }

    /// What `cost` makes of the difference in `cause` from value `from` to value `to`, of all that
    /// `to` pays in `whole`.
    pub fn share(
        &self,
        cost: &Cost,
        cause: &Unit,
        whole: &Unit,
        [from, to]: [usize; 2],
    ) -> Option<Share> {
        let middle = |unit: &Unit, value: usize| median(&self.cells(unit).get(value)?.valid());
        let more = middle(cause, to)? - middle(cause, from)?;
        let costs = more * cost.each;
        Some(Share {
            more,
            costs,
            share: costs / middle(whole, to)?,
        })
    }

    /// How two units go together over all values, −1 … 1, by their medians.
    pub fn correlation(&self, a: &Unit, b: &Unit) -> Option<f64> {
        let middles = |unit: &Unit| -> Option<Vec<f64>> {
            let cells = self.cells(unit).iter();
            cells.map(|cell| median(&cell.valid())).collect()
        };
        regression::correlation(&middles(a)?, &middles(b)?)
    }

    /// The value with the lowest `unit`, and those that are not certainly higher: each is held
    /// against the lowest one in pairs of a round, all of them one family at `alpha`. `None` with
    /// fewer than two values that have figures.
    pub fn best(&self, unit: &Unit, alpha: f64) -> Option<Best> {
        let cells = self.cells(unit);
        let middle = |cell: &Cell| median(&cell.valid());
        let middles: Vec<Option<f64>> = cells.iter().map(middle).collect();
        let known = middles.iter().enumerate();
        let known = known.filter_map(|(value, middle)| Some((value, (*middle)?)));
        let (value, _) = known.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let judge = Judge {
            rule: Rule::fixed(alpha),
            // Any difference counts that is certain.
            margin: Some(0.0),
        };
        let others = (0..cells.len()).filter(|&other| other != value);
        let mut judged: Vec<(usize, Judgement)> = others
            .filter_map(|other| Some((other, judge.judge(unit, &cells[value], &cells[other])?)))
            .collect();
        if judged.is_empty() {
            return None;
        }
        as_family(
            &mut judged.iter_mut().map(|(_, one)| one).collect::<Vec<_>>(),
            &judge,
        );
        let likely = judged
            .iter()
            .filter(|(_, one)| one.verdict != Verdict::Regressed);
        let mut candidates: Vec<usize> = likely.map(|(other, _)| *other).chain([value]).collect();
        candidates.sort_unstable();
        Some(Best { value, candidates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Figure, Name, Order, Record, Sample, Value};

    /// Three values that make 10, 20 and 40 of a cause, at 2 sec each, in rounds that are ever slower.
    fn trial(rounds: u64) -> Trial {
        let mut trial = Trial::of(["a", "b", "c"].map(str::to_owned));
        for round in 0..rounds {
            for (variant, cause) in [("a", 10.0), ("b", 20.0), ("c", 40.0)] {
                let wobble = ((round * 7 + cause as u64) % 5) as f64 * 0.01;
                let sec = 100.0 + round as f64 * 50.0 + cause * 2.0 + wobble;
                trial.take(&Record::Sample(Sample {
                    benchmark: Name::new("x"),
                    variant: variant.to_owned(),
                    iterations: 1,
                    order: Order {
                        round,
                        ..Order::default()
                    },
                    config: BTreeMap::new(),
                    values: vec![
                        Value::new("sec/op", Figure::Exact(sec)),
                        Value::new("page-faults/op", Figure::Exact(cause)),
                    ],
                    warnings: Vec::new(),
                }));
            }
        }
        trial
    }

    #[test]
    fn what_changes_from_round_to_round_is_no_cost() {
        let (sec, faults) = (Unit::named("sec/op"), Unit::named("page-faults/op"));
        let all = trial(12);
        let cost = all.cost(&sec, &faults).unwrap();
        assert!((cost.each - 2.0).abs() < 0.01, "{cost:?}");
        let interval = cost.interval.unwrap();
        assert!(interval.contains(cost.each) && interval.high - interval.low < 0.02);
        assert_eq!(cost.rounds, 12);
        let share = all.share(&cost, &faults, &sec, [0, 2]).unwrap();
        assert_eq!(share.more, 30.0);
        assert!((share.costs - 60.0).abs() < 0.5, "{share:?}");
        assert_eq!(all.cost(&Unit::named("none"), &faults), None);
        assert_eq!(all.cost(&faults, &Unit::named("none")), None);
        assert!(all.correlation(&sec, &faults).unwrap() > 0.99);
    }

    #[test]
    fn the_best_is_told_with_those_that_may_be() {
        let sec = Unit::named("sec/op");
        let best = trial(12).best(&sec, 0.05).unwrap();
        assert_eq!((best.value, best.candidates), (0, vec![0]));
        // Too few rounds to exclude any.
        let best = trial(3).best(&sec, 0.05).unwrap();
        assert_eq!((best.value, best.candidates), (0, vec![0, 1, 2]));
        assert_eq!(Trial::of(["a".to_owned()]).best(&sec, 0.05), None);
    }
}
