//! What two variants' figures say about each other: paired where the records tell which runs stood side by side, in groups where they do not. Never reads a file, never runs anything.
//!
//! A [`Cell`] holds the figures of one unit of one benchmark in one variant. Two cells are judged
//! by the kind of their figures: such as do not vary are compared exactly; figures of one run of
//! poise are paired by their rounds; all others are two groups, of which effects of the order of
//! runs cannot be excluded.

use std::borrow::Cow;
use std::collections::BTreeMap;

mod collection;
pub(crate) mod parallel;
pub mod sweep;
mod tables;

pub use collection::{COMPILERS, Collection, SHA256, STOP_RULE, VARIANTS};
pub use tables::{Change, Geomean, Middle, Options, Row, Sparse, Summary, Table, Tables};

use crate::sample::{Figure, INTERVAL_END, Record, Sample, UnitMeta, Warning};
use crate::stats::comparison::{self, Comparison, Direction, EXACT_FROM, Gate, Margin, Verdict};
use crate::stats::comparison::{Basis, Scale, Voids};
use crate::stats::paired::{Forecast, Pairs};
use crate::stats::sequential::{LOOKS, Rule};
use crate::stats::series;
use crate::unit::{Assume, Better, Dimension, Unit};

/// How comparisons are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judge {
    /// The level of certainty, and the looks at growing numbers of pairs.
    pub rule: Rule,
    /// The margin, if the user has one of his own; else what is usual for the unit.
    pub margin: Option<f64>,
}

/// The figures of one unit of one benchmark in one variant, in time order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The figures.
    figures: Vec<f64>,
    /// Where each of them stands, when all are of runs that tell it.
    places: Option<Vec<Place>>,
    /// Runs that gave no figure of this unit, and why the first of them did not.
    absent: Option<(usize, String)>,
    /// Figures that stand for less than they seem to: scaled, partial.
    weak: usize,
    /// Figures that were estimated by looking once every so often.
    sampled: usize,
}

/// Where a figure stands in a run of poise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which run of poise it was.
    pub run: u32,
    /// The round.
    pub round: u64,
    /// The place in the round.
    pub position: u32,
    /// Whether something outside the workload spoiled it: the rest of its round then counts as
    /// little as it does.
    pub void: bool,
}

/// What two cells say about each other.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The numbers.
    pub comparison: Comparison,
    /// What they mean.
    pub verdict: Verdict,
    /// The direction that is for the better.
    pub improvement: Option<Direction>,
    /// Pairs, or figures, that a decision needs, where there was none.
    pub forecast: Option<Box<Forecast>>,
    /// The doubts.
    pub doubts: Vec<String>,
}

/// The share of one CPU that others may take away during a run before it is void. Less than that is
/// noise, which pairs can bear; on a host with too many guests there is always some.
pub const MOST_STEAL: f64 = 0.25;

impl Default for Judge {
    fn default() -> Judge {
        Judge {
            rule: Rule::fixed(0.05),
            margin: None,
        }
    }
}

impl Cell {
    /// Takes in one more figure and where it stands; figures without a place can only be compared
    /// in groups.
    pub fn take(&mut self, figure: &Figure, place: Option<Place>) {
        let number = match figure {
            Figure::Absent { why } => {
                let first = self.absent.take().unwrap_or((0, why.to_string()));
                self.absent = Some((first.0 + 1, first.1));
                return;
            }
            Figure::Scaled { value, .. } | Figure::Partial { value, .. } => {
                self.weak += 1;
                *value
            }
            Figure::Sampled { value, .. } => {
                self.sampled += 1;
                *value
            }
            Figure::Exact(value) | Figure::Estimated { value, .. } => *value,
        };
        self.push(number, place);
    }

    /// Takes in a number that nobody doubts.
    pub fn push(&mut self, number: f64, place: Option<Place>) {
        match (place, self.figures.is_empty()) {
            (Some(place), true) => self.places = Some(vec![place]),
            (Some(place), false) => {
                if let Some(places) = &mut self.places {
                    places.push(place);
                }
            }
            (None, _) => self.places = None,
        }
        self.figures.push(number);
    }

    /// The figures in time order, void ones included.
    pub fn figures(&self) -> &[f64] {
        &self.figures
    }

    /// Why there is no figure at all.
    pub fn why_absent(&self) -> Option<&str> {
        let (_, why) = self.absent.as_ref()?;
        self.figures.is_empty().then_some(why)
    }

    /// How many figures were estimated by looking once every so often.
    pub fn sampled(&self) -> usize {
        self.sampled
    }

    /// The runs of poise that its figures are of; nothing when some are of none.
    fn runs(&self) -> impl Iterator<Item = u32> {
        self.places.iter().flatten().map(|place| place.run)
    }

    /// How many figures are void.
    pub fn voided(&self) -> usize {
        let places = self.places.iter().flatten();
        places.filter(|place| place.void).count()
    }

    /// The figures that are not void.
    pub fn valid(&self) -> Cow<'_, [f64]> {
        match &self.places {
            Some(places) if places.iter().any(|place| place.void) => {
                let both = self.figures.iter().zip(places);
                both.filter(|(_, place)| !place.void)
                    .map(|(&figure, _)| figure)
                    .collect()
            }
            _ => Cow::Borrowed(&self.figures),
        }
    }
}

impl Place {
    /// The place of `sample` in a run of poise.
    pub fn of(sample: &Sample, run: u32) -> Place {
        Place {
            run,
            round: sample.order.round,
            position: sample.order.position,
            void: is_void(sample),
        }
    }
}

/// Figures of two cells that were taken side by side.
struct Paired {
    old: Vec<f64>,
    new: Vec<f64>,
    /// Of each pair, whether the new variant ran first.
    new_first: Vec<bool>,
    /// Pairs left out since one of the two was void.
    voided: usize,
}

impl Paired {
    /// The pairs of two cells, the void ones too where it is said so; nothing when the cells are
    /// not of the same runs of poise.
    fn of(old: &Cell, new: &Cell, with_void: bool) -> Option<Paired> {
        let by_round = |cell: &Cell| -> Option<BTreeMap<(u32, u64), (f64, Place)>> {
            let places = cell.places.as_ref()?;
            let all = cell.figures.iter().zip(places);
            let map: BTreeMap<_, _> = all
                .map(|(&figure, &place)| ((place.run, place.round), (figure, place)))
                .collect();
            // Two figures in one round are no run and its partner.
            (map.len() == cell.figures.len()).then_some(map)
        };
        let (old, mut new) = (by_round(old)?, by_round(new)?);
        let mut paired = Paired {
            old: Vec::new(),
            new: Vec::new(),
            new_first: Vec::new(),
            voided: 0,
        };
        for (key, (figure, place)) in old {
            // A run that failed leaves its partner alone.
            let Some((other, other_place)) = new.remove(&key) else {
                continue;
            };
            if place.void || other_place.void {
                paired.voided += 1;
                if !with_void {
                    continue;
                }
            }
            paired.old.push(figure);
            paired.new.push(other);
            paired.new_first.push(other_place.position < place.position);
        }
        (!paired.old.is_empty()).then_some(paired)
    }
}

impl Judge {
    /// Compares `new` with `old`, by what the name of their unit tells of it. Nothing when either
    /// has no figure that could be used.
    pub fn judge(&self, unit: &Unit, old: &Cell, new: &Cell) -> Option<Judgement> {
        let meta = UnitMeta {
            unit: unit.clone(),
            better: unit.better(),
            assume: Assume::Nothing,
        };
        self.judge_as(&meta, old, new)
    }

    /// Compares `new` with `old`, by what is said of their unit.
    pub fn judge_as(&self, meta: &UnitMeta, old: &Cell, new: &Cell) -> Option<Judgement> {
        let unit = &meta.unit;
        let margin = self.margin_of(unit);
        let paired = Paired::of(old, new, false);
        let (old_valid, new_valid) = (old.valid(), new.valid());
        let exact = || {
            // Clocks are never exact; that they agree is their coarseness.
            let is_time = unit.dimension() == Dimension::Seconds;
            let least = match meta.assume {
                Assume::Exact => 1,
                Assume::Nothing if is_time => usize::MAX,
                Assume::Nothing => EXACT_FROM,
            };
            comparison::exact(&old_valid, &new_valid, least, margin)
        };
        let pairs = paired.as_ref().and_then(|p| Pairs::new(&p.old, &p.new));
        let comparison = match (exact(), &pairs) {
            (Some(comparison), _) => comparison,
            (None, Some(pairs)) => pairs.compare(&self.rule, margin),
            (None, None) => {
                let rule = Rule::fixed(self.rule.alpha);
                comparison::groups(&old_valid, &new_valid, &rule, margin)?
            }
        };
        let improvement = meta.better.map(|better| match better {
            Better::Lower => Direction::Lower,
            Better::Higher => Direction::Higher,
        });
        let mut judgement = Judgement {
            verdict: comparison.verdict(improvement),
            comparison,
            improvement,
            forecast: None,
            doubts: doubts_about(old, new),
        };
        if comparison.approximate {
            let doubt = "p is a normal approximation: with so many figures and ties, an exact one takes too long";
            judgement.doubts.push(doubt.to_owned());
        }
        if judgement.verdict == Verdict::Inconclusive {
            judgement.forecast = pairs
                .as_ref()
                .and_then(|pairs| pairs.forecast(&self.rule, margin, LOOKS[LOOKS.len() - 1]))
                .map(Box::new);
        }
        if let (Some(paired), Some(pairs)) = (&paired, &pairs) {
            judgement.doubts.extend(order_matters(paired, pairs));
            if paired.voided > 0 {
                let all = Paired::of(old, new, true);
                let all = all.and_then(|all| Pairs::new(&all.old, &all.new));
                let with_void = all.map(|all| all.compare(&self.rule, margin).finding);
                let differs = with_void.is_some_and(|finding| finding != comparison.finding);
                judgement
                    .doubts
                    .push(void_doubt(paired.voided, old, new, differs));
            }
            let voids = [old, new].map(|cell| Voids {
                runs: cell.figures.len(),
                voided: cell.voided(),
            });
            if comparison::voids_differ(voids[0], voids[1]) {
                judgement.verdict = Verdict::Untrustworthy;
            }
        }
        Some(judgement)
    }

    /// Whether more pairs of `unit` are to be run: until there is a verdict that can be trusted, or
    /// with `by_gate` until it is certain whether the change may pass, at a look that the rule
    /// foresees; and no further than its last one.
    pub fn needs_more(&self, unit: &Unit, judgement: &Judgement, by_gate: bool) -> bool {
        let pairs = judgement.comparison.counts[0];
        // What varies has figures that agree too, by chance: those have to wait for a look.
        let is_exact = judgement.comparison.basis == Basis::Exact && hardly_varies(unit);
        let is_look = is_exact || self.rule.is_look(pairs);
        let is_open = match by_gate {
            true => judgement.gate() == Gate::Undecided,
            false => matches!(
                judgement.verdict,
                Verdict::Inconclusive | Verdict::Untrustworthy
            ),
        };
        pairs < LOOKS[LOOKS.len() - 1] && (!is_look || is_open)
    }

    fn margin_of(&self, unit: &Unit) -> Margin {
        match self.margin {
            Some(share) => Margin::share(share),
            None if hardly_varies(unit) => Margin::NEARLY_EXACT,
            None => Margin::NOISY,
        }
    }
}

/// Holds all of `judgements` to the level of `judge` as a family; what is untrustworthy stays so.
pub fn as_family(judgements: &mut [&mut Judgement], judge: &Judge) {
    let mut comparisons: Vec<&mut Comparison> = judgements
        .iter_mut()
        .map(|judgement| &mut judgement.comparison)
        .collect();
    comparison::judge_family(&mut comparisons, judge.rule.alpha);
    for judgement in judgements {
        if judgement.verdict != Verdict::Untrustworthy {
            judgement.verdict = judgement.comparison.verdict(judgement.improvement);
        }
    }
}

/// What several gates come to: one that fails fails them all.
pub fn gate_of(gates: impl IntoIterator<Item = Gate>) -> Gate {
    let mut all = Gate::Pass;
    for gate in gates {
        match gate {
            Gate::Fail => return Gate::Fail,
            Gate::Undecided => all = Gate::Undecided,
            Gate::Pass => {}
        }
    }
    all
}

impl Judgement {
    /// Whether the change may pass; an untrustworthy one is undecided.
    pub fn gate(&self) -> Gate {
        match self.verdict {
            Verdict::Untrustworthy => Gate::Undecided,
            _ => self.comparison.gate(self.improvement),
        }
    }

    /// What was compared: `10 pairs`, `20 + 20 runs`, `exact`.
    pub fn basis(&self) -> String {
        let [old, new] = self.comparison.counts;
        match self.comparison.basis {
            Basis::Exact => format!("exact, {old} + {new} runs"),
            Basis::Pairs => format!("{old} pairs"),
            Basis::Groups => format!("{old} + {new} runs"),
        }
    }
}

/// Several variants of one workload, as their records come in.
#[derive(Clone, Debug)]
pub struct Trial {
    variants: Vec<Runs>,
    /// The units in order of appearance, each with a cell for every variant.
    units: Vec<(Unit, Vec<Cell>)>,
}

/// One variant of a trial.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Its name.
    pub name: String,
    /// Runs that gave a sample.
    pub runs: u64,
    /// Runs that failed.
    pub failures: u64,
    /// The doubts about its runs, with the number of runs that have each.
    pub warnings: BTreeMap<Warning, u64>,
}

impl Trial {
    /// A trial of `variants`, the first of which is the control.
    pub fn of(variants: impl IntoIterator<Item = String>) -> Trial {
        let fresh = |name| Runs {
            name,
            runs: 0,
            failures: 0,
            warnings: BTreeMap::new(),
        };
        Trial {
            variants: variants.into_iter().map(fresh).collect(),
            units: Vec::new(),
        }
    }

    /// Takes in one record; those of other variants, and intervals, are none of its own.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::Sample(sample) if !sample.config.contains_key(INTERVAL_END) => {
                self.take_sample(sample)
            }
            Record::Failure(failure) => {
                let of = |runs: &&mut Runs| runs.name == failure.variant;
                if let Some(runs) = self.variants.iter_mut().find(of) {
                    runs.failures += 1;
                }
            }
            _ => {}
        }
    }

    fn take_sample(&mut self, sample: &Sample) {
        let named = |runs: &Runs| runs.name == sample.variant;
        let Some(at) = self.variants.iter().position(named) else {
            return;
        };
        self.variants[at].runs += 1;
        for warning in &sample.warnings {
            *self.variants[at]
                .warnings
                .entry(warning.clone())
                .or_default() += 1;
        }
        let place = Place::of(sample, 0);
        for value in &sample.values {
            let known = self.units.iter().position(|(unit, _)| *unit == value.unit);
            let unit = known.unwrap_or_else(|| {
                let cells = vec![Cell::default(); self.variants.len()];
                self.units.push((value.unit.clone(), cells));
                self.units.len() - 1
            });
            self.units[unit].1[at].take(&value.figure, Some(place));
        }
    }

    /// The variants, the control first.
    pub fn variants(&self) -> &[Runs] {
        &self.variants
    }

    /// The units that were seen.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.units.iter().map(|(unit, _)| unit)
    }

    /// The figures of `unit`, variant by variant.
    pub fn cells(&self, unit: &Unit) -> &[Cell] {
        let known = self.units.iter().find(|(known, _)| known == unit);
        known.map_or(&[], |(_, cells)| cells)
    }

    /// Each variant but the control, judged by `unit`.
    pub fn judge(&self, judge: &Judge, unit: &Unit) -> Vec<Option<Judgement>> {
        match self.cells(unit) {
            [] => self.variants.iter().skip(1).map(|_| None).collect(),
            [control, others @ ..] => others
                .iter()
                .map(|other| judge.judge(unit, control, other))
                .collect(),
        }
    }
}

/// Whether something outside the workload spoiled a run. The rule is fixed beforehand and looks
/// at causes, never at the figure itself.
fn is_void(sample: &Sample) -> bool {
    let steal = sample.figure("steal-CPUs").and_then(Figure::number);
    steal.is_some_and(|cpus| cpus > MOST_STEAL)
}

/// Whether a unit counts what a program does of itself, the same in every run or nearly so.
pub fn hardly_varies(unit: &Unit) -> bool {
    let name = unit.as_str();
    let stem = name.strip_suffix("/op").unwrap_or(name);
    stem.ends_with(":u") && stem.starts_with("instructions")
        || [
            "allocs",
            "B",
            "object-bytes",
            "exe-bytes",
            "export-bytes",
            "text-bytes",
            "data-bytes",
        ]
        .contains(&stem)
}

fn doubts_about(old: &Cell, new: &Cell) -> Vec<String> {
    let mut doubts = Vec::new();
    for (which, cell) in [("old", old), ("new", new)] {
        if let Some((runs, why)) = &cell.absent {
            doubts.push(format!(
                "{runs} runs of the {which} one could not be counted: {why}"
            ));
        }
        if cell.weak > 0 {
            doubts.push(format!(
                "{} of {} figures of the {which} one are scaled or partial",
                cell.weak,
                cell.figures.len()
            ));
        }
    }
    doubts
}

/// A doubt when it matters which of a pair ran first. It does not bias the comparison, for which
/// the coins care, but the machine remembers one run in the next.
fn order_matters(paired: &Paired, pairs: &Pairs) -> Option<String> {
    const LEVEL: f64 = 0.01;
    let effect = pairs.position_effect(&paired.new_first)?;
    (effect.p < LEVEL).then(|| {
        let change = match pairs.scale() {
            Scale::Ratio => percent(effect.effect),
            Scale::Difference => format!("{:+}", effect.effect),
        };
        format!("running second changes it by {change}")
    })
}

fn void_doubt(pairs: usize, old: &Cell, new: &Cell, differs: bool) -> String {
    let with_them = match differs {
        true => "; with them the verdict would be another",
        false => "; with them the verdict is the same",
    };
    format!(
        "{pairs} pairs are void, for others took CPU time away ({} runs of the old one, {} of the new one){with_them}",
        old.voided(),
        new.voided()
    )
}

/// A share as a change: `+5.12 %`, with as many digits as matter.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        size if !size.is_finite() => "?".to_owned(),
        size if size >= 100.0 => format!("{percent:+.0} %"),
        size if size >= 10.0 => format!("{percent:+.1} %"),
        _ => format!("{percent:+.2} %"),
    }
}

/// How a series of figures behaved: outliers that are marked and kept, and a drift.
pub fn marks(cell: &Cell) -> Vec<String> {
    const LEVEL: f64 = 0.01;
    let figures = cell.figures();
    let mut marks = Vec::new();
    let outliers = series::outliers(figures).len();
    if outliers > 0 {
        marks.push(format!("{outliers} outliers, kept"));
    }
    let times: Vec<f64> = (0..figures.len()).map(|at| at as f64).collect();
    if series::drift(&times, figures).is_some_and(|drift| drift.p < LEVEL) {
        marks.push("drifts".to_owned());
    }
    if series::autocorrelation(figures).is_some_and(|memory| memory.p < LEVEL) {
        marks.push("one run is like the run before".to_owned());
    }
    marks
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests;
