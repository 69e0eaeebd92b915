//! The rows of one table: which cells stand where, what the figures of each come to, and how they differ from those of the first column. Never judges rows together.

use std::borrow::Cow;

use super::{Change, Middle, Notes, Sparse, Summary};
use crate::compare::collection::NONE;
use crate::compare::{Cell, Collection, Judge, parallel};
use crate::query::{Key, Projection};
use crate::sample::UnitMeta;
use crate::stats::order;
use crate::unit::Assume;

/// Which cells stand where in a table.
pub(super) struct Grid {
    pub(super) rows: Vec<Key>,
    pub(super) columns: Vec<Key>,
    /// Row by row; [`NONE`] where there is no cell.
    slots: Vec<u32>,
}

impl Grid {
    pub(super) fn new(collection: &Collection, places: Vec<(u32, u32)>) -> Result<Grid, Sparse> {
        let query = &collection.query;
        let keys = |group: u32| collection.firsts[group as usize];
        let rows = in_order(&query.row, places.iter().map(|place| keys(place.0).0));
        let columns = in_order(&query.col, places.iter().map(|place| keys(place.0).1));
        let sparse = Sparse {
            rows: rows.len(),
            columns: columns.len(),
        };
        // Where each cell is filled that could be, there are as many; a few thousand do no harm.
        let size = rows.len().checked_mul(columns.len()).ok_or(sparse)?;
        if size > places.len() * 16 + 100_000 {
            return Err(sparse);
        }
        let index = |keys: &[Key]| -> Vec<usize> {
            let mut places = vec![0; keys.iter().map(|key| key.number() + 1).max().unwrap_or(0)];
            (0..)
                .zip(keys)
                .for_each(|(at, key)| places[key.number()] = at);
            places
        };
        let (row_at, column_at) = (index(&rows), index(&columns));
        let mut slots = vec![NONE; size];
        for (group, slot) in places {
            let (row, column, _) = keys(group);
            let (row, column) = (row_at[row.number()], column_at[column.number()]);
            slots[row * columns.len() + column] = slot;
        }
        Ok(Grid {
            rows,
            columns,
            slots,
        })
    }

    fn row(&self, at: usize) -> &[u32] {
        &self.slots[at * self.columns.len()..(at + 1) * self.columns.len()]
    }
}

fn in_order(projection: &Projection, keys: impl Iterator<Item = Key>) -> Vec<Key> {
    // Mostly they come in order, which makes sorting short.
    let mut seen = Vec::new();
    let mut is_new = |key: &Key| {
        if seen.len() <= key.number() {
            seen.resize(key.number() + 1, false);
        }
        !std::mem::replace(&mut seen[key.number()], true)
    };
    let mut keys: Vec<Key> = keys.filter(|key| is_new(key)).collect();
    projection.sort(&mut keys);
    keys
}

/// Makes the rows of one table.
pub(super) struct Maker<'a> {
    pub(super) collection: &'a Collection,
    pub(super) meta: UnitMeta,
    pub(super) grid: &'a Grid,
    pub(super) fixed: Judge,
    pub(super) sequential: Judge,
    pub(super) confidence: f64,
}

/// A summary whose notes have no places yet.
pub(super) struct Draft {
    count: usize,
    middle: Option<Middle>,
    notes: Vec<String>,
    change: Option<Box<Change>>,
}

impl Maker<'_> {
    /// Hands over the rows in their order.
    pub(super) fn rows(&self, mut sink: impl FnMut(Key, Vec<Option<Draft>>)) {
        let mut keys = self.grid.rows.iter();
        parallel::in_order(
            self.grid.rows.len(),
            256,
            |range| -> Vec<_> { range.map(|at| self.row(at)).collect() },
            |rows| {
                keys.by_ref()
                    .zip(rows)
                    .for_each(|(&key, row)| sink(key, row))
            },
        );
    }

    fn row(&self, at: usize) -> Vec<Option<Draft>> {
        let slots = self.grid.row(at);
        let Collection {
            slots: all,
            stores,
            cells,
            ..
        } = self.collection;
        let read = |&slot: &u32| {
            (slot != NONE).then(|| {
                let mut cell = all[slot as usize].read(stores, cells);
                // Bare numbers stand in no rounds. All that is worked out sorts them, which it
                // need not do again.
                if let Cow::Owned(bare) = &mut cell {
                    bare.figures.sort_unstable_by(f64::total_cmp);
                }
                cell
            })
        };
        let mut drafts = Vec::with_capacity(slots.len());
        let base = read(&slots[0]);
        drafts.push(base.as_deref().map(|cell| self.draft(slots[0], cell)));
        for slot in &slots[1..] {
            let draft = read(slot).map(|cell| {
                let mut draft = self.draft(*slot, &cell);
                if let (Some(base), Some(base_draft)) = (&base, &drafts[0]) {
                    draft.change = self.change((base, base_draft), (&cell, &draft));
                }
                draft
            });
            drafts.push(draft);
        }
        drafts
    }

    fn draft(&self, slot: u32, cell: &Cell) -> Draft {
        let figures = cell.figures();
        let middle = match self.meta.assume {
            Assume::Exact => most_frequent(figures),
            Assume::Nothing => self.median(figures),
        };
        let mut notes = Vec::new();
        if let Some(keys) = self.collection.mixed.get(&slot) {
            let fields = self.collection.query.residue.varying(keys);
            notes.push(format!("benchmarks vary in {}", fields.join(", ")));
        }
        match middle {
            None => notes.extend(cell.absent.as_ref().map(|(_, why)| why.clone())),
            Some(Middle { low, high, .. }) if self.meta.assume == Assume::Exact => {
                if low < high {
                    notes.push(format!(
                        "said to be exact, but they go from {low} to {high}"
                    ));
                }
            }
            Some(Middle { low, high, .. }) if !(low.is_finite() && high.is_finite()) => {
                let needs = order::median_interval_needs(self.confidence);
                let percent = self.confidence * 100.0;
                notes.push(format!("a {percent} % interval takes {needs} runs"));
            }
            Some(_) => {}
        }
        if cell.sampled() > 0 {
            notes.push("estimated at the ticks of the scheduler, not counted".to_owned());
        }
        Draft {
            count: figures.len(),
            middle,
            notes,
            change: None,
        }
    }

    fn median(&self, figures: &[f64]) -> Option<Middle> {
        let (center, interval) = order::benchstat_median(figures, self.confidence)?;
        Some(Middle {
            center,
            low: interval.low,
            high: interval.high,
        })
    }

    fn change(&self, old: (&Cell, &Draft), new: (&Cell, &Draft)) -> Option<Box<Change>> {
        let sequential = &self.collection.sequential;
        let by_looks = !sequential.is_empty() && old.0.runs().any(|run| sequential.contains(&run));
        let judge = if by_looks {
            &self.sequential
        } else {
            &self.fixed
        };
        let judgement = judge.judge_as(&self.meta, old.0, new.0)?;
        Some(Box::new(Change {
            share: quotient(old.1.middle?.center, new.1.middle?.center).unwrap_or(f64::NAN) - 1.0,
            p: judgement.comparison.p,
            judgement,
            by_looks,
            notes: Vec::new(),
        }))
    }
}

/// The quotient of two middles; nothing when only the old one is 0.
pub(super) fn quotient(old: f64, new: f64) -> Option<f64> {
    match old == new {
        true => Some(1.0),
        false => (old != 0.0).then(|| new / old),
    }
}

/// The figure that came most often, the least one of several, and the range of all.
pub(super) fn most_frequent(figures: &[f64]) -> Option<Middle> {
    let sorted = order::sorted(figures)?;
    let runs = sorted.chunk_by(|a, b| a == b);
    let longest = runs.rev().max_by_key(|run| run.len())?;
    Some(Middle {
        center: longest[0],
        low: sorted[0],
        high: sorted[sorted.len() - 1],
    })
}

impl Draft {
    pub(super) fn noted(mut self, notes: &mut Notes) -> Summary {
        if let Some(change) = &mut self.change {
            change.notes = notes.places(std::mem::take(&mut change.judgement.doubts));
        }
        Summary {
            count: self.count,
            middle: self.middle,
            notes: notes.places(self.notes).into(),
            change: self.change,
        }
    }
}
