//! Tables of a collection: rows, the geometric means under them, and what all changes mean as one family. Never writes a text but its notes, never looks at a record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

mod rows;

use self::rows::{Grid, Maker, quotient};
use super::collection::{NONE, Slot, usual};
use super::{Collection, Judge, Judgement, as_family};
use crate::query::{Key, Projection};
use crate::sample::UnitMeta;
use crate::stats::comparison::{Basis, Gate, Verdict};
use crate::stats::sequential::Rule;
use crate::stats::{mann_whitney, order};

/// How tables are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The level at which a change is certain, for all comparisons together.
    pub alpha: f64,
    /// The change that still counts as none, unless it is what is usual for the unit.
    pub margin: Option<f64>,
    /// The probability of the medians' intervals.
    pub confidence: f64,
}

/// All tables of a collection.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The tables, in order.
    pub tables: Vec<Table>,
    /// How many comparisons were tested, and so judged together.
    pub family: usize,
    /// Whether some of them are of groups.
    pub unpaired: bool,
    /// What speaks against all of it.
    pub doubts: Vec<String>,
}

/// The figures of one unit under one configuration.
#[derive(Clone, Debug)]
pub struct Table {
    /// The unit, and what was said of it.
    pub meta: UnitMeta,
    /// The keys of the table with their values, without the unit.
    pub config: Vec<(String, String)>,
    /// What is compared; the first is what the others are held against.
    pub columns: Vec<Arc<str>>,
    /// The rows in order.
    pub rows: Vec<Row>,
    /// The geometric mean of each column.
    pub geomeans: Vec<Geomean>,
    /// The texts of notes.
    pub notes: Vec<String>,
}

impl Table {
    /// Leaves only the rows that are to be kept, with their notes. There are no means any longer:
    /// those of chosen rows tell nothing.
    pub fn retain(&mut self, keep: impl FnMut(&Row) -> bool) {
        self.rows.retain(keep);
        self.geomeans.clear();
        let mut kept = Vec::new();
        let mut renumber = |note: &mut u32| {
            let at = kept.iter().position(|old| old == note);
            let at = at.unwrap_or_else(|| {
                kept.push(*note);
                kept.len() - 1
            });
            *note = at as u32;
        };
        let cells = self.rows.iter_mut().flat_map(|row| row.cells.iter_mut());
        for cell in cells.flatten() {
            let of_change = cell.change.iter_mut().flat_map(|change| &mut change.notes);
            cell.notes
                .iter_mut()
                .chain(of_change)
                .for_each(&mut renumber);
        }
        let text = |note: u32| self.notes[note as usize].clone();
        self.notes = kept.into_iter().map(text).collect();
    }
}

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: Arc<str>,
    /// A cell for each column; none where there was no such result.
    pub cells: Box<[Option<Summary>]>,
}

/// What the figures of one cell come to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// Their middle; none when all are absent.
    pub middle: Option<Middle>,
    /// Places in [`Table::notes`].
    pub notes: Box<[u32]>,
    /// How they differ from the first column's.
    pub change: Option<Box<Change>>,
}

/// A middle and its interval, whose ends may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Middle {
    /// The median; of a unit that was said to be exact, the figure that came most often.
    pub center: f64,
    /// Lower end of the interval that benchstat shows; of an exact unit, the least figure.
    pub low: f64,
    /// Upper end, or the greatest figure.
    pub high: f64,
}

/// How a cell differs from that of the first column.
#[derive(Clone, Debug)]
pub struct Change {
    /// The quotient of the two middles, less 1: what benchstat shows. Not a number when the first
    /// is 0 and the other is not.
    pub share: f64,
    /// The p of this comparison alone; none where both are exact.
    pub p: Option<f64>,
    /// What the figures say, all comparisons of all tables together being one family.
    pub judgement: Judgement,
    /// Whether it is of runs that went on until they were certain.
    by_looks: bool,
    /// Places in [`Table::notes`].
    pub notes: Vec<u32>,
}

/// The geometric mean of a column.
#[derive(Clone, Debug, Default)]
pub struct Geomean {
    /// Of the middles.
    pub mean: Option<f64>,
    /// Of the quotients to the first column, less 1.
    pub share: Option<f64>,
    /// Places in [`Table::notes`].
    pub notes: Vec<u32>,
}

/// A table with so many rows and columns that hardly any cell of it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table would have {rows} rows and {columns} columns, nearly all of it empty")]
pub struct Sparse {
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
}

impl Collection {
    /// Makes the tables.
    pub fn tables(mut self, options: &Options) -> Result<Tables, Sparse> {
        let rule = |rule| Judge {
            rule,
            margin: options.margin,
        };
        let fixed = rule(Rule::fixed(options.alpha));
        let sequential = match self.sequential.is_empty() {
            true => fixed,
            false => rule(Rule::sequential(options.alpha)),
        };
        self.close();
        let mut tables = Tables {
            doubts: self.failures_told(),
            ..Tables::default()
        };
        let mut keys: Vec<(Key, usize)> =
            (0..).zip(&self.stores).map(|(at, s)| (s.key, at)).collect();
        keys.sort_unstable_by(|a, b| self.query.table.compare(a.0, b.0));
        let mut places = self.by_table();
        let (mut row_names, mut column_names) = (Names::default(), Names::default());
        let mut absent: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, at) in keys {
            let grid = Grid::new(&self, std::mem::take(&mut places[at]))?;
            let unit = &self.stores[at].unit;
            let maker = Maker {
                collection: &self,
                meta: self.metas.get(unit).cloned().unwrap_or_else(|| usual(unit)),
                grid: &grid,
                fixed,
                sequential,
                confidence: options.confidence,
            };
            let mut notes = Notes::default();
            let mut rows = Vec::with_capacity(grid.rows.len());
            maker.rows(|row, cells| {
                let cells = cells.into_iter().map(|cell| Some(cell?.noted(&mut notes)));
                rows.push(Row {
                    name: row_names.of(&self.query.row, row),
                    cells: cells.collect(),
                });
            });
            let columns = grid.columns.iter();
            let table = Table {
                meta: maker.meta,
                config: config(&self.query.table, key),
                columns: columns
                    .map(|&c| column_names.of(&self.query.col, c))
                    .collect(),
                rows,
                geomeans: Vec::new(),
                notes: notes.texts,
            };
            self.stores[at].clear();
            match table.why_absent() {
                Some(why) => absent
                    .entry(why)
                    .or_default()
                    .push(table.meta.unit.to_string()),
                None => tables.tables.push(table),
            }
        }
        for (why, mut units) in absent {
            units.dedup();
            tables
                .doubts
                .push(format!("absent: {}: {why}", units.join(", ")));
        }
        tables.judge_together(&fixed, &sequential);
        for table in &mut tables.tables {
            table.sum_up();
        }
        tables.doubts.extend(tables.nothing_compared());
        Ok(tables)
    }

    /// The cells of each table: group and slot.
    fn by_table(&mut self) -> Vec<Vec<(u32, u32)>> {
        let mut places = vec![Vec::new(); self.stores.len()];
        for (group, (_, _, first)) in (0..).zip(&self.firsts) {
            let mut slot = *first;
            while slot != NONE {
                let Slot { table, next, .. } = self.slots[slot as usize];
                places[table as usize].push((group, slot));
                slot = next;
            }
        }
        places
    }

    fn failures_told(&self) -> Vec<String> {
        let told = |((file, variant), count): (&(String, String), &u64)| {
            let runs = if *count == 1 { "run" } else { "runs" };
            format!("{file}: {count} {runs} of {variant} failed")
        };
        self.failures.iter().map(told).collect()
    }
}

/// The keys of a table with their values, without the unit.
fn config(projection: &Projection, key: Key) -> Vec<(String, String)> {
    let told = projection.values(key);
    told.filter(|&(key, value)| key != ".unit" && !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What keys are called, by their numbers; each name is kept once.
#[derive(Default)]
struct Names(Vec<Option<Arc<str>>>);

impl Names {
    fn of(&mut self, projection: &Projection, key: Key) -> Arc<str> {
        if self.0.len() <= key.number() {
            self.0.resize(key.number() + 1, None);
        }
        let label = || match projection.label(key) {
            label if label.is_empty() => "(none)".into(),
            label => label.into(),
        };
        Arc::clone(self.0[key.number()].get_or_insert_with(label))
    }
}

/// Texts that are kept once.
#[derive(Default)]
struct Notes {
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl Notes {
    fn place(&mut self, text: String) -> u32 {
        if let Some(&place) = self.places.get(&text) {
            return place;
        }
        let place = self.texts.len() as u32;
        self.texts.push(text.clone());
        self.places.insert(text, place);
        place
    }

    fn places(&mut self, texts: Vec<String>) -> Vec<u32> {
        texts.into_iter().map(|text| self.place(text)).collect()
    }
}

impl Summary {
    /// The interval as benchstat tells it: its farther end, as a share of the middle. `None` when
    /// an end is infinite or on the other side of 0.
    pub fn reach(&self) -> Option<f64> {
        let Middle { center, low, high } = self.middle?;
        let sign = |x: f64| (x > 0.0, x < 0.0);
        let alike = sign(low) == sign(center) && sign(high) == sign(center);
        match center {
            _ if !alike || !low.is_finite() || !high.is_finite() => None,
            0.0 => Some(0.0),
            _ => Some((high / center - 1.0).max(1.0 - low / center)),
        }
    }
}

impl Change {
    /// Whether a change is certain.
    pub fn is_certain(&self) -> bool {
        use Verdict::{Changed, Improved, Regressed};
        matches!(self.judgement.verdict, Changed | Improved | Regressed)
    }
}

impl Table {
    /// The cells that are held against another, with their base.
    fn compared(&self) -> impl Iterator<Item = (&Summary, Option<&Summary>)> {
        self.rows.iter().flat_map(|row| {
            let base = row.cells.first().and_then(Option::as_ref);
            let base = base.filter(|base| base.middle.is_some());
            let others = row.cells.get(1..).unwrap_or_default();
            base.into_iter()
                .flat_map(move |base| others.iter().map(move |other| (base, other.as_ref())))
        })
    }

    /// All changes of the table.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.compared()
            .filter_map(|(_, new)| new?.change.as_deref())
    }

    fn changes_mut(&mut self) -> impl Iterator<Item = &mut Change> {
        let cells = self.rows.iter_mut().flat_map(|row| &mut row.cells);
        cells.filter_map(|cell| cell.as_mut()?.change.as_deref_mut())
    }

    /// Why there is no figure in all of the table.
    fn why_absent(&self) -> Option<String> {
        let mut cells = self.rows.iter().flat_map(|row| row.cells.iter().flatten());
        let none = cells.all(|cell| cell.middle.is_none());
        none.then(|| self.notes.first().cloned().unwrap_or_default())
    }

    /// Makes the geometric means.
    fn sum_up(&mut self) {
        let mut notes = Notes::default();
        for text in std::mem::take(&mut self.notes) {
            notes.place(text);
        }
        let center = |cell: &Option<Summary>| Some(cell.as_ref()?.middle?.center);
        let bases = self
            .rows
            .iter()
            .filter(|row| center(&row.cells[0]).is_some());
        let bases = bases.count();
        self.geomeans = (0..self.columns.len())
            .map(|column| {
                let middles: Vec<f64> = self
                    .rows
                    .iter()
                    .filter_map(|row| center(&row.cells[column]))
                    .collect();
                let mut geomean = Geomean {
                    mean: order::geometric_mean(&middles),
                    ..Geomean::default()
                };
                let mut note = |text: String| geomean.notes.push(notes.place(text));
                if column > 0 {
                    let both =
                        |row: &Row| Some((center(&row.cells[0])?, center(&row.cells[column])?));
                    let quotients: Vec<Option<f64>> = self
                        .rows
                        .iter()
                        .filter_map(both)
                        .map(|(old, new)| quotient(old, new))
                        .collect();
                    if quotients.len() != bases || middles.len() != bases {
                        note(format!(
                            "other benchmarks than {}: their means are not comparable",
                            self.columns[0]
                        ));
                    }
                    let all: Option<Vec<f64>> = quotients.into_iter().collect();
                    let mean = all.as_deref().and_then(order::geometric_mean);
                    geomean.share = mean.map(|mean| mean - 1.0);
                }
                if geomean.mean.is_none() && !middles.is_empty() {
                    geomean
                        .notes
                        .push(notes.place("a geometric mean takes figures above 0".to_owned()));
                }
                geomean
            })
            .collect();
        self.notes = notes.texts;
    }
}

impl Tables {
    /// Whether all changes may pass, together. A row without its counterpart is undecided, and so
    /// is it when there is nothing to compare.
    pub fn gate(&self) -> Gate {
        let gates = || {
            self.tables.iter().flat_map(|table| {
                table.compared().map(|(_, new)| {
                    let change = new.and_then(|new| new.change.as_ref());
                    change.map_or(Gate::Undecided, |change| change.judgement.gate())
                })
            })
        };
        match gates().next() {
            None => Gate::Undecided,
            Some(_) => super::gate_of(gates()),
        }
    }

    /// Judges all comparisons as one family, and says which could not be significant at all.
    fn judge_together(&mut self, fixed: &Judge, sequential: &Judge) {
        let changes = || self.tables.iter().flat_map(Table::changes);
        self.family = changes().filter(|change| change.p.is_some()).count();
        self.unpaired = changes().any(|change| change.judgement.comparison.basis == Basis::Groups);
        let mut judgements: Vec<&mut Judgement> = self
            .tables
            .iter_mut()
            .flat_map(Table::changes_mut)
            .map(|change| &mut change.judgement)
            .collect();
        as_family(&mut judgements, fixed);
        let needs = Needs::new(fixed.rule.alpha, self.family);
        for table in &mut self.tables {
            let mut texts = std::mem::take(&mut table.notes);
            for change in table.changes_mut() {
                let rule = if change.by_looks { sequential } else { fixed };
                if let Some(text) = needs.told(change, &rule.rule) {
                    let known = texts.iter().position(|known| *known == text);
                    let place = known.unwrap_or_else(|| {
                        texts.push(text);
                        texts.len() - 1
                    });
                    change.notes.push(place as u32);
                }
            }
            table.notes = texts;
        }
    }

    /// A doubt when there are columns, but no row with figures in two of them.
    fn nothing_compared(&self) -> Option<String> {
        let columns: BTreeSet<&str> = self
            .tables
            .iter()
            .flat_map(|table| table.columns.iter().map(|column| &**column))
            .collect();
        if columns.len() < 2
            || self
                .tables
                .iter()
                .any(|table| table.changes().next().is_some())
        {
            return None;
        }
        let mut values: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for (key, value) in self.tables.iter().flat_map(|table| &table.config) {
            *values.entry(key).or_default().entry(value).or_default() += 1;
        }
        // Some have another value, or none.
        let all = self.tables.len();
        let differ = values
            .iter()
            .filter(|(_, seen)| !seen.values().any(|&times| times == all));
        let differ: Vec<&str> = differ.map(|(key, _)| *key).collect();
        let mut text = "nothing was compared: no row has figures in two columns".to_owned();
        if !differ.is_empty() {
            text += &format!("; the tables differ in --ignore {}", differ.join(","));
        }
        Some(text)
    }
}

/// How many runs a change takes to be significant.
struct Needs {
    alpha: f64,
    family: usize,
    alone: usize,
    /// When it is the only one of the family.
    in_family: usize,
}

impl Needs {
    fn new(alpha: f64, family: usize) -> Needs {
        Needs {
            alpha,
            family,
            alone: mann_whitney::needs(alpha),
            in_family: mann_whitney::needs(alpha / family.max(1) as f64),
        }
    }

    fn told(&self, change: &Change, rule: &Rule) -> Option<String> {
        let comparison = &change.judgement.comparison;
        let p = change.p?;
        if change.judgement.verdict != Verdict::Inconclusive {
            return None;
        }
        let [old, new] = comparison.counts;
        let alpha = self.alpha;
        let pairs = comparison.basis == Basis::Pairs;
        let (too_few, alone, in_family, what) = match pairs {
            true => {
                let alone = rule.needs(alpha);
                let in_family = rule.needs(alpha / self.family.max(1) as f64);
                (old < alone, alone, in_family, "pairs")
            }
            false => {
                let too_few = old.min(new) < self.alone && mann_whitney::least_p(old, new) > alpha;
                (too_few, self.alone, self.in_family, "runs a side")
            }
        };
        if too_few {
            return Some(format!(
                "no change is significant at {alpha} with fewer than {alone} {what}"
            ));
        }
        if p <= alpha {
            let mut text = format!(
                "significant alone, but not among {} comparisons",
                self.family
            );
            if old.min(new) < in_family {
                text += &format!("; the only one to have changed takes {in_family} {what} there");
            }
            return Some(text);
        }
        let forecast = change.judgement.forecast.as_ref()?;
        Some(match forecast.is_hopeless() {
            true => format!(
                "undecided by so many pairs at this noise: more than {} would be needed",
                forecast.most
            ),
            false => format!("a decision takes about {} pairs", forecast.pairs()),
        })
    }
}

#[cfg(test)]
mod tests;
