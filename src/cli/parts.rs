//! What was found in the runs of a contest (each syscall, each kind of fault), the variants side by side. Never decides anything.

use std::collections::{BTreeMap, BTreeSet};

use super::contest::ContestOptions;
use crate::compare::{Collection, Row, Summary, Tables};
use crate::format::Entry;
use crate::query::{Expressions, Query};
use crate::sample::{Figure, Header, Name, Record, Sample, UnitMeta, Value};
use crate::stats::comparison::Verdict;
use crate::unit::{Assume, Unit};

/// Takes samples as they come.
pub(super) struct Parts {
    benchmarks: &'static [&'static str],
    units: Vec<Unit>,
    header: Header,
    /// Whole runs, and what was found in them.
    runs: Vec<Sample>,
    found: Vec<Sample>,
}

impl Parts {
    /// Of the benchmarks with these base names, these units, of which there is nothing in a run
    /// that does not tell of them; `facts` of the contest are known.
    pub(super) fn new(
        benchmarks: &'static [&'static str],
        units: &[&'static str],
        facts: [(String, String); 2],
    ) -> Parts {
        Parts {
            benchmarks,
            units: units.iter().map(|unit| Unit::named(unit)).collect(),
            header: Header {
                machine: facts.into(),
                ..Header::default()
            },
            runs: Vec::new(),
            found: Vec::new(),
        }
    }

    /// `whole` is the benchmark of whole runs.
    pub(super) fn take(&mut self, record: &Record, whole: &Name) {
        let Record::Sample(sample) = record else {
            return;
        };
        let with = |values| Sample {
            values,
            config: Default::default(),
            ..sample.clone()
        };
        if sample.benchmark == *whole {
            self.runs.push(with(Vec::new()));
        } else if self.benchmarks.contains(&sample.benchmark.base()) {
            let wanted = sample.values.iter();
            let wanted = wanted.filter(|value| self.units.contains(&value.unit));
            self.found.push(with(wanted.cloned().collect()));
        }
    }

    /// Whether there are runs of several variants.
    pub(super) fn can_be_compared(&self) -> bool {
        let mut variants = self.runs.iter().map(|run| &run.variant);
        let first = variants.next();
        variants.any(|other| Some(other) != first)
    }

    /// The tables of them, judged as a family of its own.
    pub(super) fn tables(mut self, options: &ContestOptions) -> anyhow::Result<Tables> {
        let mut collection = collection(&self.header)?;
        for unit in &self.units {
            collection.take(Entry::Record(Record::Unit(UnitMeta {
                unit: unit.clone(),
                better: unit.better(),
                assume: Assume::Nothing,
            })));
        }
        let nothing = self.nothing();
        self.found.extend(nothing);
        for sample in self.found {
            collection.take(Entry::Record(Record::Sample(sample)));
        }
        Ok(collection.tables(&options.tables())?)
    }

    /// What was not found in a run is nothing of it there. But what one variant always has and
    /// another never is left to stand alone: it appeared, or vanished.
    fn nothing(&self) -> Vec<Sample> {
        let mut runs_with: BTreeMap<(&Name, &str), BTreeSet<u64>> = BTreeMap::new();
        for sample in &self.found {
            let runs = runs_with.entry((&sample.benchmark, &sample.variant));
            runs.or_default().insert(sample.order.sequence);
        }
        let mut runs_of: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &self.runs {
            *runs_of.entry(&run.variant).or_default() += 1;
        }
        let mut units_of: BTreeMap<&Name, BTreeSet<&Unit>> = BTreeMap::new();
        for sample in &self.found {
            let units = sample.values.iter().map(|value| &value.unit);
            units_of.entry(&sample.benchmark).or_default().extend(units);
        }
        let count = |name, variant| runs_with.get(&(name, variant)).map_or(0, BTreeSet::len);
        let mut nothing = Vec::new();
        for (name, units) in units_of {
            let mut variants = runs_of.iter();
            let is_always = variants.any(|(variant, &runs)| count(name, variant) == runs);
            for run in &self.runs {
                let there = runs_with.get(&(name, &run.variant));
                let is_there = there.is_some_and(|runs| runs.contains(&run.order.sequence));
                if is_there || is_always && there.is_none() {
                    continue;
                }
                let values = units.iter().map(|&unit| Value {
                    unit: unit.clone(),
                    figure: Figure::Exact(0.0),
                });
                nothing.push(Sample {
                    benchmark: name.clone(),
                    values: values.collect(),
                    ..run.clone()
                });
            }
        }
        nothing
    }
}

/// Those of them that a reader wants to see: what changed, what there is in one variant alone, and
/// what is undecided of the rest, if it is of some weight; and how many others there are.
pub(super) fn that_matter(tables: &Tables) -> (Tables, usize) {
    let mut shown = tables.clone();
    let mut hidden = 0;
    for table in &mut shown.tables {
        let middle = |cell: &Option<Summary>| cell.as_ref()?.middle.map(|middle| middle.center);
        let sum = |row: &Row| row.cells.iter().filter_map(middle).sum::<f64>();
        let least = table.rows.iter().map(sum).sum::<f64>() * LEAST_SHARE;
        let before = table.rows.len();
        table.retain(|row| {
            let verdicts = row.cells.iter().skip(1).map(|cell| {
                let change = cell.as_ref()?.change.as_ref()?;
                Some(change.judgement.verdict)
            });
            verdicts.into_iter().any(|verdict| match verdict {
                Some(Verdict::Equivalent) => false,
                Some(Verdict::Inconclusive) => sum(row) >= least,
                _ => true,
            })
        });
        hidden += before - table.rows.len();
    }
    shown.tables.retain(|table| !table.rows.is_empty());
    (shown, hidden)
}

/// What is undecided and less than this of all is not shown.
const LEAST_SHARE: f64 = 0.02;

/// An empty collection whose columns are variants, of a run that begins with `header`.
pub(super) fn collection(header: &Header) -> anyhow::Result<Collection> {
    let expressions = Expressions {
        col: "variant",
        ..Expressions::default()
    };
    let mut collection = Collection::new(Query::new(&expressions)?);
    collection.begin("this run");
    collection.take(Entry::Record(Record::Header(header.clone())));
    Ok(collection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Order;

    fn sample(benchmark: &str, variant: &str, sequence: u64, units: &[&str]) -> Sample {
        let value = |unit: &&str| Value::new(unit, Figure::Exact(7.0));
        Sample {
            benchmark: Name::parse(benchmark),
            variant: variant.to_owned(),
            iterations: 1,
            order: Order {
                sequence,
                round: sequence / 2,
                position: (sequence % 2) as u32,
            },
            config: BTreeMap::new(),
            values: units.iter().map(value).collect(),
            warnings: Vec::new(),
        }
    }

    /// Two runs of each of two variants, in which these parts were found.
    fn parts(found: &[(&str, u64)], units: &[&str]) -> Parts {
        let mut parts = Parts::new(&["Part"], &["calls", "total-sec"], Default::default());
        let whole = Name::new("Whole");
        let variant = |run: u64| if run.is_multiple_of(2) { "old" } else { "new" };
        for run in 0..4 {
            let taken = sample("Whole", variant(run), run, &["calls"]);
            parts.take(&Record::Sample(taken), &whole);
        }
        for (name, run) in found {
            let part = sample(&format!("Part/name={name}"), variant(*run), *run, units);
            parts.take(&Record::Sample(part), &whole);
        }
        parts
    }

    fn nothing(found: &[(&str, u64)], units: &[&str]) -> Vec<(u64, Vec<String>)> {
        let of = |sample: Sample| {
            let units = sample.values.iter().map(|value| value.unit.to_string());
            (sample.order.sequence, units.collect())
        };
        let mut all: Vec<_> = parts(found, units).nothing().into_iter().map(of).collect();
        all.sort();
        all
    }

    #[test]
    fn what_a_run_does_not_tell_of_is_nothing_of_it() {
        let calls = || vec!["calls".to_owned()];
        // In some runs of each.
        let some = [("a", 0), ("a", 1)];
        assert_eq!(nothing(&some, &["calls"]), [(2, calls()), (3, calls())]);
        // In all of one and some of the other.
        let most = [("a", 0), ("a", 2), ("a", 1)];
        assert_eq!(nothing(&most, &["calls"]), [(3, calls())]);
        // In all of one and none of the other: it vanished, or appeared.
        assert_eq!(nothing(&[("a", 0), ("a", 2)], &["calls"]), []);
        assert_eq!(nothing(&[("a", 1), ("a", 3)], &["calls"]), []);
        // In a single run of all: no variant has it, or lacks it.
        let rest = [(0, calls()), (1, calls()), (2, calls())];
        assert_eq!(nothing(&[("a", 3)], &["calls"]), rest);
    }

    #[test]
    fn what_was_not_measured_is_nowhere() {
        let both = nothing(&[("a", 0), ("a", 1)], &["calls", "total-sec", "max-sec"]);
        assert_eq!(both[0].1, ["calls", "total-sec"]);
        let only = nothing(&[("a", 0), ("a", 1)], &["calls"]);
        assert!(
            only.iter().all(|(_, units)| units == &["calls"]),
            "{only:?}"
        );
    }
}
