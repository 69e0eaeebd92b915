//! Sorts results into tables, rows and columns and keeps of each its figure alone. Never keeps a record, never compares.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Cell, Place};
use crate::format::gobench::{Config, Line, Spelling};
use crate::format::{Entry, gobench};
use crate::query::{Key, Query, UnitNames, View};
use crate::sample::{
    ENV_PADDING, Failure, Figure, Header, INTERVAL_END, Record, Sample, SyntaxError, UnitMeta,
};
use crate::unit::{Assume, Better, Dimension, Unit};

/// The fact of a header that tells by which rule its pairs are to be judged.
pub const STOP_RULE: &str = "stop-rule";

/// The fact of a header that names the variants, the control first, as a JSON array.
pub const VARIANTS: &str = "variants";

/// The fact of a header that tells what the variants' programs hold, as a JSON object.
pub const SHA256: &str = "sha256";

/// The fact of a header that tells which compilers its variants are, as a JSON object.
pub const COMPILERS: &str = "compilers";

/// Facts of a header that tell of the run, not of the machine: results that differ in them are
/// still comparable.
const OF_THE_RUN: [&str; 4] = [STOP_RULE, VARIANTS, SHA256, COMPILERS];

/// Results, sorted by a [`Query`].
///
/// Memory: 8 bytes a figure and some dozens a cell, name and configuration; figures of our own
/// records take 24 more, for their places.
#[derive(Debug)]
pub struct Collection {
    pub(super) query: Query,
    file: String,
    /// Counts the configurations that were met.
    context: u64,
    config: Option<Arc<Config>>,
    groups: HashMap<[Key; 3], u32>,
    group: Option<([Key; 3], u32)>,
    /// The first cell of each group.
    pub(super) firsts: Vec<(Key, Key, u32)>,
    pub(super) slots: Vec<Slot>,
    pub(super) cells: Vec<Cell>,
    pub(super) stores: Vec<Store>,
    by_table: HashMap<Key, u32>,
    /// What the values of the last lines were, place by place in the line.
    guesses: Vec<Guess>,
    last: Last,
    /// Cells whose results differ in what is not shown, with the keys of that.
    pub(super) mixed: HashMap<u32, Vec<Key>>,
    pub(super) metas: HashMap<Unit, UnitMeta>,
    /// Runs of poise that went on until they were certain.
    pub(super) sequential: BTreeSet<u32>,
    pub(super) failures: BTreeMap<(String, String), u64>,
    machine: BTreeMap<String, String>,
    runs: u32,
    is_running: bool,
    /// Whether the run has variants, `base` perhaps among them.
    is_trial: bool,
    /// Which values of a result passed the filter.
    chosen: Vec<bool>,
    /// Results that were kept, and that came.
    kept: u64,
    seen: u64,
}

/// The figures of one table.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) key: Key,
    pub(super) unit: Unit,
    chunks: Vec<Chunk>,
}

/// A cell, and where its figures stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Of the same row and column, the cell of the next table.
    pub(super) next: u32,
    pub(super) table: u32,
    figures: Figures,
    residue: Key,
}

/// Lines, of which there are many, leave bare numbers; records leave a [`Cell`].
#[derive(Clone, Copy, Debug)]
enum Figures {
    Chunks { first: u32, last: u32, count: u32 },
    Cell(u32),
}

/// Some figures of one cell, and where more of them stand.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    figures: [f64; CHUNK],
    next: u32,
}

const CHUNK: usize = 7;
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Guess {
    base: Key,
    spelling: Arc<Spelling>,
    table: u32,
}

/// The last line, where it stood. Mostly the next one is of the same benchmark.
#[derive(Debug, Default)]
struct Last {
    name: String,
    spellings: Vec<Arc<Spelling>>,
    /// The cells of its values; [`NONE`] of those that are not chosen.
    slots: Vec<u32>,
}

impl Last {
    /// Whether `line`, under the same configuration, has its values in the same cells.
    fn is_like(&self, line: &Line<'_>) -> bool {
        let spellings = line.values.iter().map(|value| &value.spelling);
        self.name == line.name
            && self.spellings.len() == line.values.len()
            && self
                .spellings
                .iter()
                .zip(spellings)
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Collection {
    /// Nothing, yet, that `query` has sorted.
    pub fn new(query: Query) -> Collection {
        Collection {
            query,
            file: String::new(),
            context: 0,
            config: None,
            groups: HashMap::new(),
            group: None,
            firsts: Vec::new(),
            slots: Vec::new(),
            cells: Vec::new(),
            stores: Vec::new(),
            by_table: HashMap::new(),
            guesses: Vec::new(),
            last: Last::default(),
            mixed: HashMap::new(),
            metas: HashMap::new(),
            sequential: BTreeSet::new(),
            failures: BTreeMap::new(),
            machine: BTreeMap::new(),
            runs: 0,
            is_running: false,
            is_trial: false,
            chosen: Vec::new(),
            kept: 0,
            seen: 0,
        }
    }

    /// Says that what comes is of `file`, by its name or the label that the user gave it.
    pub fn begin(&mut self, file: &str) {
        file.clone_into(&mut self.file);
        self.config = None;
        self.machine.clear();
        self.is_running = false;
        self.is_trial = false;
    }

    /// Takes in what was read. Lines that could not be understood come back.
    pub fn take(&mut self, entry: Entry<'_>) -> Option<SyntaxError> {
        match entry {
            Entry::Line(line) => self.line(&line),
            Entry::Record(Record::Sample(sample)) => self.sample(&sample),
            Entry::Record(Record::Header(header)) => self.header(header),
            Entry::Record(Record::Unit(meta)) => self.meta(meta),
            Entry::Record(Record::Failure(failure)) => self.failure(&failure),
            Entry::Record(Record::End(_)) => self.is_running = false,
            Entry::Record(Record::Syntax(error)) => return Some(error),
        }
        None
    }

    /// Gives back what only taking in needs.
    pub(super) fn close(&mut self) {
        self.groups = HashMap::new();
        self.group = None;
    }

    /// How many results came so far, kept or not.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How many of them passed the filter.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    fn line(&mut self, line: &Line<'_>) {
        self.seen += 1;
        let same = |config: &Arc<Config>| Arc::ptr_eq(config, line.config);
        if !self.config.as_ref().is_some_and(same) {
            self.config = Some(Arc::clone(line.config));
            self.context += 1;
            self.last = Last::default();
        }
        if !self.last.is_like(line) {
            self.sort(line);
        }
        self.kept += u64::from(self.last.slots.iter().any(|&slot| slot != NONE));
        for (at, measurement) in line.values.iter().enumerate() {
            match self.last.slots.get(at) {
                Some(&slot) if slot != NONE => self.push(slot, measurement.value),
                _ => {}
            }
        }
    }

    /// Finds the cells of a line's values.
    fn sort(&mut self, line: &Line<'_>) {
        let spellings = line.values.iter().map(|value| Arc::clone(&value.spelling));
        self.last = Last {
            name: line.name.to_owned(),
            spellings: spellings.collect(),
            slots: Vec::new(),
        };
        let config = line.config.iter();
        let view = View {
            name: line.name,
            gomaxprocs: true,
            file: &self.file,
            config: config.map(|(key, value)| (key.as_str(), value.as_str())),
            context: Some(self.context),
        };
        let units = line.values.iter().map(|measurement| UnitNames {
            unit: measurement.spelling.unit.as_str(),
            original: Some(&measurement.spelling.written),
        });
        let Some(keys) = sorted(&mut self.query, &view, units, &mut self.chosen) else {
            return;
        };
        let group = self.group(keys.group());
        for (at, measurement) in line.values.iter().enumerate() {
            let slot = match self.chosen[at] {
                true => {
                    let table = self.table_of(at, keys.base, &measurement.spelling);
                    self.slot(group, table, keys.residue)
                }
                false => NONE,
            };
            self.last.slots.push(slot);
        }
    }

    /// The table of the value at place `at` of a line; mostly that of the line before.
    fn table_of(&mut self, at: usize, base: Key, spelling: &Arc<Spelling>) -> u32 {
        if let Some(guess) = self.guesses.get(at)
            && guess.base == base
            && Arc::ptr_eq(&guess.spelling, spelling)
        {
            return guess.table;
        }
        let table = self.table(base, &spelling.unit);
        let guess = Guess {
            base,
            spelling: Arc::clone(spelling),
            table,
        };
        match self.guesses.len() {
            known if at < known => self.guesses[at] = guess,
            known if at == known => self.guesses.push(guess),
            _ => {}
        }
        table
    }

    fn table(&mut self, base: Key, unit: &Unit) -> u32 {
        let key = self.query.table.with_unit(base, unit.as_str());
        *self.by_table.entry(key).or_insert_with(|| {
            self.stores.push(Store {
                key,
                unit: unit.clone(),
                chunks: Vec::new(),
            });
            self.stores.len() as u32 - 1
        })
    }

    /// The group of cells with these keys of table, row and column.
    fn group(&mut self, keys: [Key; 3]) -> u32 {
        if let Some((last, group)) = self.group
            && last == keys
        {
            return group;
        }
        let group = *self.groups.entry(keys).or_insert_with(|| {
            self.firsts.push((keys[1], keys[2], NONE));
            self.firsts.len() as u32 - 1
        });
        self.group = Some((keys, group));
        group
    }

    /// The cell of `table` in `group`.
    fn slot(&mut self, group: u32, table: u32, residue: Key) -> u32 {
        let (mut slot, mut before) = (self.firsts[group as usize].2, NONE);
        while slot != NONE && self.slots[slot as usize].table != table {
            before = slot;
            slot = self.slots[slot as usize].next;
        }
        if slot == NONE {
            slot = self.slots.len() as u32;
            self.slots.push(Slot {
                next: NONE,
                table,
                figures: Figures::Chunks {
                    first: NONE,
                    last: NONE,
                    count: 0,
                },
                residue,
            });
            match before {
                NONE => self.firsts[group as usize].2 = slot,
                _ => self.slots[before as usize].next = slot,
            }
        } else if self.slots[slot as usize].residue != residue {
            let first = self.slots[slot as usize].residue;
            let keys = self.mixed.entry(slot).or_insert_with(|| vec![first]);
            if keys.last() != Some(&residue) && !keys.contains(&residue) {
                keys.push(residue);
            }
        }
        slot
    }

    /// Adds a bare number to a cell.
    fn push(&mut self, slot: u32, number: f64) {
        let Slot { table, figures, .. } = &mut self.slots[slot as usize];
        match figures {
            Figures::Cell(at) => take_number(&mut self.cells[*at as usize], number),
            _ if !number.is_finite() => take_number(self.cell(slot), number),
            Figures::Chunks { first, last, count } => {
                let chunks = &mut self.stores[*table as usize].chunks;
                let place = *count as usize % CHUNK;
                if place == 0 {
                    let fresh = chunks.len() as u32;
                    chunks.push(Chunk {
                        figures: [0.0; CHUNK],
                        next: NONE,
                    });
                    match *last {
                        NONE => *first = fresh,
                        before => chunks[before as usize].next = fresh,
                    }
                    *last = fresh;
                }
                chunks[*last as usize].figures[place] = number;
                *count += 1;
            }
        }
    }

    /// A cell that can hold more than bare numbers.
    fn cell(&mut self, slot: u32) -> &mut Cell {
        let at = match self.slots[slot as usize].figures {
            Figures::Cell(at) => at,
            Figures::Chunks { .. } => {
                let cell = self.slots[slot as usize].bare(&self.stores);
                self.cells.push(cell);
                let at = self.cells.len() as u32 - 1;
                self.slots[slot as usize].figures = Figures::Cell(at);
                at
            }
        };
        &mut self.cells[at as usize]
    }

    fn sample(&mut self, sample: &Sample) {
        if sample.config.contains_key(INTERVAL_END) {
            return;
        }
        self.seen += 1;
        let name = sample.benchmark.to_string();
        let variant = (self.is_trial || sample.variant != "base").then_some(&*sample.variant);
        let config = settings(&self.machine, &sample.config, variant);
        let view = View {
            name: &name,
            gomaxprocs: false,
            file: &self.file,
            config: config.iter().copied(),
            context: None,
        };
        let units = sample.values.iter().map(|value| UnitNames {
            unit: value.unit.as_str(),
            original: None,
        });
        let Some(keys) = sorted(&mut self.query, &view, units, &mut self.chosen) else {
            return;
        };
        self.kept += 1;
        let place = self.is_running.then(|| Place::of(sample, self.runs));
        let group = self.group(keys.group());
        for (at, value) in sample.values.iter().enumerate() {
            if !self.chosen[at] {
                continue;
            }
            let table = self.table(keys.base, &value.unit);
            let slot = self.slot(group, table, keys.residue);
            let cell = self.cell(slot);
            match value.figure.number() {
                Some(number) if !number.is_finite() => take_number(cell, number),
                _ => cell.take(&value.figure, place),
            }
        }
    }

    fn header(&mut self, header: Header) {
        self.runs += 1;
        self.is_running = true;
        let rule = header.machine.get(STOP_RULE);
        self.is_trial = rule.is_some();
        if rule.is_some_and(|rule| rule.starts_with("sequential")) {
            self.sequential.insert(self.runs);
        }
        let variants = header.machine.get(VARIANTS);
        let variants = variants.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
        // Rounds are in a drawn order, but columns in that of the command line.
        for variant in variants.iter().flatten() {
            self.query.col.project(&View {
                name: "",
                gomaxprocs: false,
                file: &self.file,
                config: std::iter::once(("variant", variant.as_str())),
                context: None,
            });
        }
        self.machine = header.machine;
        let is_of_the_run = |key: &String| OF_THE_RUN.contains(&key.as_str());
        self.machine.retain(|key, _| !is_of_the_run(key));
    }

    /// What is said first of a unit holds, as in the Go format.
    fn meta(&mut self, meta: UnitMeta) {
        self.metas.entry(meta.unit.clone()).or_insert(meta);
    }

    fn failure(&mut self, failure: &Failure) {
        let whose = (self.file.clone(), failure.variant.clone());
        *self.failures.entry(whose).or_default() += 1;
    }
}

/// What a result's cells have in common.
struct Keys {
    base: Key,
    row: Key,
    col: Key,
    residue: Key,
}

impl Keys {
    fn group(&self) -> [Key; 3] {
        [self.base, self.row, self.col]
    }
}

/// The keys of a result, unless none of its values is `chosen`.
fn sorted<'a, C>(
    query: &mut Query,
    view: &View<'a, C>,
    units: impl Iterator<Item = UnitNames<'a>>,
    chosen: &mut Vec<bool>,
) -> Option<Keys>
where
    C: Iterator<Item = (&'a str, &'a str)> + Clone,
{
    let whole = query.filter.keeps(view);
    chosen.clear();
    chosen.extend(units.map(|names| whole.unwrap_or_else(|| query.filter.keeps_unit(view, names))));
    chosen.contains(&true).then(|| Keys {
        base: query.table.project(view),
        row: query.row.project(view),
        col: query.col.project(view),
        residue: query.residue.project(view),
    })
}

/// The configuration of a sample of ours, as the Go format would have it.
fn settings<'a>(
    machine: &'a BTreeMap<String, String>,
    own: &'a BTreeMap<String, String>,
    variant: Option<&'a str>,
) -> Vec<(&'a str, &'a str)> {
    let own = own.iter().filter(|(key, _)| *key != ENV_PADDING);
    let all = machine.iter().chain(own);
    let mut all: Vec<(&str, &str)> = all.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    all.extend(variant.map(|variant| ("variant", variant)));
    all
}

/// A number without label and place, which may be none.
fn take_number(cell: &mut Cell, number: f64) {
    match number.is_finite() {
        true => cell.push(number, None),
        false => cell.take(&Figure::absent("not a finite number"), None),
    }
}

impl Slot {
    /// The cell, of whichever kind.
    pub(super) fn read<'a>(&self, stores: &[Store], cells: &'a [Cell]) -> Cow<'a, Cell> {
        match self.figures {
            Figures::Cell(at) => Cow::Borrowed(&cells[at as usize]),
            Figures::Chunks { .. } => Cow::Owned(self.bare(stores)),
        }
    }

    fn bare(&self, stores: &[Store]) -> Cell {
        let mut cell = Cell::default();
        if let Figures::Chunks { first, count, .. } = self.figures {
            let chunks = &stores[self.table as usize].chunks;
            let (mut at, mut left) = (first, count as usize);
            cell.figures.reserve_exact(left);
            while at != NONE {
                let chunk = &chunks[at as usize];
                let some = left.min(CHUNK);
                cell.figures.extend_from_slice(&chunk.figures[..some]);
                left -= some;
                at = chunk.next;
            }
        }
        cell
    }
}

impl Store {
    /// Gives the memory back, once the table is made.
    pub(super) fn clear(&mut self) {
        self.chunks = Vec::new();
    }
}

/// What is known of a unit that no file describes. A name that others gave has a direction only
/// where it tells one: per operation, per second, time, memory.
pub(super) fn usual(unit: &Unit) -> UnitMeta {
    let name = unit.as_str();
    let tells = name.ends_with("/op")
        || name.ends_with("/s")
        || name.starts_with("IPC")
        || matches!(unit.dimension(), Dimension::Seconds | Dimension::Bytes);
    let better: Option<Better> =
        gobench::known_direction(name).or(if tells { unit.better() } else { None });
    UnitMeta {
        unit: unit.clone(),
        better,
        assume: Assume::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::format::Reader;
    use crate::query::Expressions;

    /// What `text` leaves, cell by cell: unit, row, column, figures.
    fn collected(text: &str) -> Vec<(String, String, String, Vec<f64>)> {
        let mut collection = Collection::new(Query::new(&Expressions::default()).unwrap());
        collection.begin("file");
        let mut reader = Reader::new("file", text.as_bytes());
        while let Some(entry) = reader.entry() {
            assert_eq!(collection.take(entry), None);
        }
        let mut cells = Vec::new();
        for &(row, column, first) in &collection.firsts {
            let mut at = first;
            while at != NONE {
                let slot = collection.slots[at as usize];
                let cell = slot.read(&collection.stores, &collection.cells);
                cells.push((
                    collection.stores[slot.table as usize].unit.to_string(),
                    collection.query.row.label(row),
                    collection.query.col.label(column),
                    cell.figures().to_vec(),
                ));
                at = slot.next;
            }
        }
        cells.sort_by(|a, b| a.partial_cmp(b).unwrap());
        cells
    }

    proptest! {
        /// However the lines stand between each other.
        #[test]
        fn figures_come_to_their_cells_in_order(
            lines in prop::collection::vec((0_u8..4, 0_u8..3, 0_u8..2), 0..200),
        ) {
            let mut text = String::new();
            let mut want: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
            for (nth, &(name, units, pkg)) in lines.iter().enumerate() {
                // The same benchmark again, in another package.
                let _ = write!(text, "pkg: {pkg}\nBenchmarkN{name} 1 {nth} a");
                let mut add = |unit: &str, figure| {
                    let key = (unit.to_owned(), format!("{pkg} N{name}"));
                    want.entry(key).or_default().push(figure);
                };
                add("a", nth as f64);
                if units > 0 {
                    let _ = write!(text, " -{nth} b");
                    add("b", -(nth as f64));
                }
                if units > 1 {
                    // Twice in one line.
                    let _ = write!(text, " {nth} a");
                    add("a", nth as f64);
                }
                text.push('\n');
            }
            let mut got: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
            let counts: usize = want.values().map(Vec::len).sum();
            let mut seen = 0;
            for (unit, row, column, figures) in collected(&text) {
                prop_assert_eq!(column, "file");
                seen += figures.len();
                // Packages have tables of their own, so that cells of one name are two.
                for pkg in 0..2 {
                    let key = (unit.clone(), format!("{pkg} {row}"));
                    if want.get(&key) == Some(&figures) {
                        got.insert(key, figures.clone());
                    }
                }
            }
            prop_assert_eq!((got, seen), (want, counts));
        }
    }

    #[test]
    fn what_is_no_number_is_absent() {
        let figures = |text: &str| collected(text).pop().unwrap().3;
        assert_eq!(
            figures("BenchmarkA 1 1 x\nBenchmarkA 1 NaN x\nBenchmarkA 1 2 x\n"),
            [1.0, 2.0]
        );
        assert!(figures("BenchmarkA 1 Inf x\n").is_empty());
    }

    #[test]
    fn units_of_others_have_a_direction_where_their_name_tells_it() {
        let check = |unit, want| assert_eq!(usual(&Unit::named(unit)).better, want, "{unit}");
        check("sec/op", Some(Better::Lower));
        check("B/s", Some(Better::Higher));
        check("frobs/op", Some(Better::Lower));
        check("frobs", None);
        check("text-bytes", Some(Better::Lower));
        check("IPC", Some(Better::Higher));
        check("CPUs", None);
    }
}
