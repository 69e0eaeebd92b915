//! What a contest of compilers comes to: tables of what decides, of what was counted besides, and of phases; and what that means to whoever runs us. Never prints.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde_json::Value;

use super::proof::Proof;
use crate::cli::contest::ContestOptions;
use crate::cli::parts::collection;
use crate::cli::verdict;
use crate::compare::{Collection, Tables, percent};
use crate::format::Entry;
use crate::report::{comparison, tables, text};
use crate::run;
use crate::run::compilation::PHASE;
use crate::sample::{Header, Name, Record, Sample, Value as Figured, Warning};
use crate::stats::comparison::{Gate, Verdict};
use crate::unit::Unit;

/// Phases that take less of all that their benchmark takes are not shown.
const LEAST_SHARE: f64 = 0.02;

/// Sorts the samples of a contest as they come.
pub(super) struct Sheets {
    chosen: Vec<Unit>,
    has_events: bool,
    decides: Collection,
    beside: Collection,
    header: Header,
    phases: Vec<Sample>,
    doubts: BTreeMap<(String, Warning), u64>,
}

/// The tables.
pub(super) struct Told {
    decides: Tables,
    beside: Tables,
    phases: Tables,
    gate: Gate,
    doubts: Vec<String>,
}

impl Sheets {
    /// For a contest that is decided by the `chosen` units and of which `facts` are known. Besides
    /// them the usual units are shown, and where the user `has_events` of his own, all.
    pub(super) fn new(
        chosen: &[Unit],
        has_events: bool,
        facts: [(String, String); 2],
    ) -> anyhow::Result<Sheets> {
        let header = Header {
            machine: facts.into(),
            ..Header::default()
        };
        Ok(Sheets {
            chosen: chosen.to_vec(),
            has_events,
            decides: collection(&header)?,
            beside: collection(&header)?,
            header,
            phases: Vec::new(),
            doubts: BTreeMap::new(),
        })
    }

    pub(super) fn take(&mut self, record: &Record) {
        let sample = match record {
            Record::Sample(sample) => sample,
            Record::Failure(failure) => {
                let failed = Record::Failure(failure.clone());
                self.decides.take(Entry::Record(failed));
                return;
            }
            _ => return,
        };
        if is_phase(sample) {
            self.phases.push(sample.clone());
            return;
        }
        for warning in &sample.warnings {
            let whose = (sample.variant.clone(), warning.clone());
            *self.doubts.entry(whose).or_default() += 1;
        }
        let is_chosen = |value: &&Figured| self.chosen.contains(&value.unit);
        let (mut decides, mut beside): (Vec<&Figured>, Vec<&Figured>) =
            sample.values.iter().partition(is_chosen);
        let place = |value: &&Figured| self.chosen.iter().position(|unit| *unit == value.unit);
        decides.sort_by_key(place);
        let all = self.has_events;
        beside.retain(|value| rank(&value.unit) < usize::MAX || all && !run::is_aside(&value.unit));
        beside.sort_by_key(|value| rank(&value.unit));
        for (values, collection) in [(decides, &mut self.decides), (beside, &mut self.beside)] {
            let part = Sample {
                values: values.into_iter().cloned().collect(),
                ..sample.clone()
            };
            collection.take(Entry::Record(Record::Sample(part)));
        }
    }

    /// Makes the tables of all that came.
    /// No improvement stands whose proof failed. Rows have the order of `benchmarks`.
    pub(super) fn told(
        self,
        options: &ContestOptions,
        proofs: &[Proof],
        benchmarks: &[Name],
    ) -> anyhow::Result<Told> {
        let mut phases = collection(&self.header)?;
        for sample in matter(self.phases) {
            phases.take(Entry::Record(Record::Sample(sample)));
        }
        let made = options.tables();
        let (mut decides, mut beside) = (self.decides.tables(&made)?, self.beside.tables(&made)?);
        let mut phases = phases.tables(&made)?;
        for tables in [&mut decides, &mut beside, &mut phases] {
            refuse(tables, proofs);
            for table in &mut tables.tables {
                // They came in a drawn order.
                table.rows.sort_by_cached_key(|row| {
                    let name = Name::parse(&row.name);
                    benchmarks
                        .iter()
                        .position(|known| known.base() == name.base())
                });
            }
        }
        let is_missing = |unit: &Unit| !decides.tables.iter().any(|table| table.meta.unit == *unit);
        let is_undecided = options.has_chosen() && self.chosen.iter().any(is_missing);
        let gate = match decides.gate() {
            Gate::Pass if is_undecided => Gate::Undecided,
            gate => gate,
        };
        let doubts = self.doubts.into_iter();
        let doubts = doubts.map(|((variant, Warning(warning)), count)| {
            let runs = if count == 1 { "run" } else { "runs" };
            format!("{variant}: {warning} ({count} {runs})")
        });
        Ok(Told {
            gate,
            decides,
            beside,
            phases,
            doubts: doubts.chain(proven(proofs)).collect(),
        })
    }
}

/// Takes back the improvements of which it is not proven that they are of the same work.
fn refuse(tables: &mut Tables, proofs: &[Proof]) {
    for table in &mut tables.tables {
        for row in &mut table.rows {
            // Also of its phases.
            let base = Name::parse(&row.name);
            for (column, cell) in table.columns.iter().zip(&mut row.cells).skip(1) {
                let failed = proofs.iter().find(|proof| {
                    proof.benchmark.base() == base.base() && proof.variant == **column
                });
                let failed = failed.and_then(|proof| proof.failure.as_ref());
                let change = cell.as_mut().and_then(|cell| cell.change.as_deref_mut());
                if let (Some(_), Some(change)) = (failed, change)
                    && change.judgement.verdict == Verdict::Improved
                {
                    change.judgement.verdict = Verdict::Untrustworthy;
                    let place = table.notes.iter().position(|note| note == REFUSED);
                    let place = place.unwrap_or_else(|| {
                        table.notes.push(REFUSED.to_owned());
                        table.notes.len() - 1
                    });
                    change.notes.push(place as u32);
                }
            }
        }
    }
}

const REFUSED: &str = "it would be improved, but the output is not proven identical";

/// What was proven, and what was not.
fn proven(proofs: &[Proof]) -> Vec<String> {
    let failures = proofs.iter().filter_map(|proof| {
        let Proof {
            benchmark, variant, ..
        } = proof;
        let why = proof.failure.as_ref()?;
        Some(format!("{variant}, {benchmark}: not proven: {why}"))
    });
    let mut told: Vec<String> = failures.collect();
    if !proofs.is_empty() {
        let good = proofs.len() - told.len();
        told.push(format!(
            "proven identical, made twice a side: {good} of {} outputs",
            proofs.len()
        ));
    }
    told
}

fn is_phase(sample: &Sample) -> bool {
    let mut parameters = sample.benchmark.parameters().iter();
    parameters.any(|(key, _)| key == PHASE)
}

fn seconds(sample: &Sample) -> f64 {
    let figure = sample.figure("sec/op").and_then(|figure| figure.number());
    figure.unwrap_or_default()
}

/// The phases that take a share of their benchmark that is worth a line, in any variant.
fn matter(samples: Vec<Sample>) -> Vec<Sample> {
    let mut sums: HashMap<(String, String), f64> = HashMap::new();
    let mut wholes = sums.clone();
    for sample in &samples {
        let variant = &sample.variant;
        let phase = (sample.benchmark.to_string(), variant.clone());
        *sums.entry(phase).or_default() += seconds(sample);
        let whole = (sample.benchmark.base().to_owned(), variant.clone());
        *wholes.entry(whole).or_default() += seconds(sample);
    }
    let mut shown: Vec<String> = Vec::new();
    for ((phase, variant), sum) in sums {
        let base = phase.split('/').next().unwrap_or_default().to_owned();
        let whole = wholes.get(&(base, variant)).copied().unwrap_or_default();
        if sum >= LEAST_SHARE * whole {
            shown.push(phase);
        }
    }
    let mut samples = samples;
    samples.retain(|sample| shown.contains(&sample.benchmark.to_string()));
    samples
}

/// How far units are to be trusted, the most first, and why.
const TRUST: [(&str, &[&str]); 5] = [
    (
        "counted by the compiler's runtime, in a run of its own",
        &["allocs/op", "B/op", "GC-cycles/op"],
    ),
    (
        "read from what it wrote",
        &["object-bytes", "exe-bytes", "export-bytes", "text-bytes"],
    ),
    (
        "counted by the CPU, the same but for interrupts",
        &["instructions:u/op", "instructions/op"],
    ),
    (
        "counted; the kernel has its part in them",
        &[
            "page-faults/op",
            "major-faults/op",
            "instructions:k/op",
            "peak-RSS-bytes",
        ],
    ),
    (
        "they depend on all that the machine does",
        &["sec/op", "task-clock-sec/op", "user-sec/op", "sys-sec/op"],
    ),
];

fn rank(unit: &Unit) -> usize {
    let known = TRUST.iter().flat_map(|(_, units)| *units);
    let place = known.enumerate().find(|(_, name)| is_called(unit, name));
    place.map_or(usize::MAX, |(place, _)| place)
}

/// Whether a unit is the one with this name, or that as ordinary users have it: in user mode only.
fn is_called(unit: &Unit, name: &str) -> bool {
    unit.as_str() == name || unit.as_str() == name.replace("/op", ":u/op")
}

impl Told {
    pub(super) fn gate(&self) -> Gate {
        self.gate
    }

    /// All of it, for people.
    pub(super) fn text(&self, width: usize) -> String {
        let style = text::Style { width };
        let mut out: String = tables::text(&self.decides, style).collect();
        for (title, tables) in [
            ("beside, a family of its own", &self.beside),
            ("phases, a family of its own", &self.phases),
        ] {
            if !tables.tables.is_empty() {
                let _ = write!(out, "\n-- {title}\n\n");
                out.extend(tables::text(tables, style));
            }
        }
        for doubt in &self.doubts {
            let _ = writeln!(out, "! {doubt}");
        }
        out + &self.trust(width)
    }

    /// The units that there are, by how far they are to be trusted.
    fn trust(&self, width: usize) -> String {
        let all = [&self.decides, &self.beside].into_iter();
        let all: Vec<&Unit> = all
            .flat_map(|tables| &tables.tables)
            .map(|table| &table.meta.unit)
            .collect();
        let mut out = String::new();
        for (why, units) in TRUST {
            let named = |name: &&str| {
                let exactly = all.iter().find(|unit| unit.as_str() == *name);
                exactly.or_else(|| all.iter().find(|unit| is_called(unit, name)))
            };
            let mut there: Vec<&str> = units
                .iter()
                .filter_map(named)
                .map(|unit| unit.as_str())
                .collect();
            there.dedup();
            if !there.is_empty() {
                let head = if out.is_empty() {
                    "\ntrust first:"
                } else {
                    "then:"
                };
                let line = format!("{head} {} ({why})", there.join(", "));
                let _ = writeln!(out, "{}", console::truncate_str(&line, width, "…"));
            }
        }
        out
    }

    /// All verdicts, as JSON.
    pub(super) fn document(&self) -> anyhow::Result<String> {
        let mut all: Vec<Value> = Vec::new();
        for (tables, is_chosen) in [
            (&self.decides, true),
            (&self.beside, false),
            (&self.phases, false),
        ] {
            all.extend(verdict::of(tables, is_chosen));
        }
        verdict::document(self.gate, all)
    }

    /// What decides, as markdown.
    pub(super) fn markdown(&self) -> String {
        tables::markdown(&self.decides)
    }

    /// Lines that GitHub shows beside a change.
    pub(super) fn annotations(&self) -> String {
        let mut out = String::new();
        for table in &self.decides.tables {
            for row in &table.rows {
                let cells = table.columns.iter().zip(&row.cells).skip(1);
                for (column, cell) in cells {
                    let change = cell.as_ref().and_then(|cell| cell.change.as_deref());
                    let gate = change.map_or(Gate::Undecided, |one| one.judgement.gate());
                    let what = change.map_or("not compared".to_owned(), |change| {
                        let word = comparison::word(change.judgement.verdict);
                        format!("{word} by {}", percent(change.share))
                    });
                    let about = format!("{column}, {}, {}: {what}", row.name, table.meta.unit);
                    out += &verdict::annotation(gate, &about);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Figure;

    fn phase(benchmark: &str, variant: &str, name: &str, sec: f64) -> Sample {
        Sample {
            benchmark: Name::new(benchmark).with(PHASE, name),
            variant: variant.to_owned(),
            iterations: 1,
            order: Default::default(),
            config: BTreeMap::new(),
            values: vec![Figured::new("sec/op", Figure::Exact(sec))],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn phases_are_shown_that_take_their_share_in_any_variant() {
        let samples = vec![
            phase("XML", "old", "parse", 1.0),
            phase("XML", "old", "init", 0.001),
            phase("XML", "old", "escapes", 0.001),
            phase("XML", "new", "parse", 1.0),
            phase("XML", "new", "init", 0.001),
            phase("XML", "new", "escapes", 0.1),
            phase("Tar", "new", "init", 0.001),
        ];
        let shown = matter(samples);
        let shown: Vec<String> = shown.iter().map(|one| one.benchmark.to_string()).collect();
        let want = [
            "XML/phase=parse",
            "XML/phase=escapes",
            "XML/phase=parse",
            "XML/phase=escapes",
            "Tar/phase=init",
        ];
        assert_eq!(shown, want);
    }
}
