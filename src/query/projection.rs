//! Projections: the part of a result that decides into which table, row or column it goes, as a small key. Interns what it sees, and never keeps a result.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::order::{Order, Rank};
use super::syntax::{Expect, Fault, Kind, Lexer, Token};
use super::view::{Source, View, name_parts};

/// One part of a projection expression.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) key: String,
    pub(super) order: Order,
    /// Byte of the key.
    pub(super) offset: usize,
}

/// A tuple of values that one [`Projection`] made; equal when all the values are. Means nothing to
/// another projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(usize);

impl Key {
    /// Its number: a projection counts its keys from 0.
    pub fn number(self) -> usize {
        self.0
    }
}

/// Makes [`Key`]s of results, and knows their values and their order.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    /// As typed; decides the order of fields.
    steps: Vec<Step>,
    /// The plain fields in the order in which they were made. Groups make more of them on the way,
    /// so older rows may be shorter: what a row lacks is empty.
    fields: Vec<Field>,
    keys: HashMap<Arc<[usize]>, Key>,
    rows: Vec<Arc<[usize]>>,
    /// The row being made, which is that of the last key until the next one is.
    row: Vec<usize>,
    last: Option<Key>,
    /// The key of all views with that context; only when no field is of the name.
    known: Option<(u64, Key)>,
    scratch: String,
}

#[derive(Clone, Debug)]
enum Step {
    One { source: Source, field: usize },
    Group(Group),
}

/// Fields that come as results bring them.
#[derive(Clone, Debug)]
struct Group {
    kind: GroupKind,
    order: Order,
    /// Keys that other projections mention, which are left out here.
    mentioned: Vec<String>,
    members: Vec<Member>,
    places: HashMap<String, usize>,
    /// The member behind the one found last: results bring their keys in the same order.
    next: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupKind {
    /// `.config`
    Config,
    /// The parts of a name, each for itself.
    NameParts,
}

#[derive(Clone, Debug)]
struct Member {
    key: String,
    /// `None` when the key is mentioned elsewhere.
    field: Option<usize>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    order: Order,
    values: Vec<Value>,
    ids: HashMap<Arc<str>, usize>,
    /// The value found last.
    last: usize,
    /// The empty text's id, once it has been observed.
    empty: Option<usize>,
}

#[derive(Clone, Debug)]
struct Value {
    text: Arc<str>,
    rank: Rank,
}

/// Stands in a row while a field has no value yet.
const UNSET: usize = usize::MAX;

impl Projection {
    /// The key of a result. Allocates only when the key or a value of it is new.
    pub fn project<'a, C>(&mut self, view: &View<'a, C>) -> Key
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        match self.known {
            Some((context, key)) if view.context == Some(context) => return key,
            _ => self.fill(view),
        }
        let key = self.intern();
        let named = |step: &Step| match step {
            Step::One { source, .. } => source.is_of_name(),
            Step::Group(group) => group.kind == GroupKind::NameParts,
        };
        if let Some(context) = view.context
            && !self.steps.iter().any(named)
        {
            self.known = Some((context, key));
        }
        key
    }

    /// The key that differs from `key` by its unit alone. Only a table's keys have one; others
    /// come back as they are.
    pub fn with_unit(&mut self, key: Key, unit: &str) -> Key {
        let is_unit = |step: &Step| match step {
            Step::One { source, field } if *source == Source::Unit => Some(*field),
            _ => None,
        };
        let Some(field) = self.steps.iter().find_map(is_unit) else {
            return key;
        };
        self.row.clear();
        self.row
            .extend(self.rows.get(key.0).into_iter().flat_map(|r| r.iter()));
        self.row.resize(self.fields.len(), UNSET);
        self.row[field] = self.fields[field].intern(unit);
        self.intern()
    }

    /// The fields of a key with their values, in the order in which they sort; the value is empty
    /// where the result had none. `.config` is given as the keys seen so far that it consists of.
    pub fn values(&self, key: Key) -> impl Iterator<Item = (&str, &str)> {
        self.order()
            .map(move |field| (self.fields[field].name.as_str(), self.text(key, field)))
    }

    /// The value of one field of a key; empty when there is no such field.
    pub fn value(&self, key: Key, field: &str) -> &str {
        let mut values = self.values(key);
        values.find(|(name, _)| *name == field).map_or("", |v| v.1)
    }

    /// The values of a key that are not empty, separated by spaces.
    pub fn label(&self, key: Key) -> String {
        let texts = self.values(key).map(|(_, text)| text);
        let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
        texts.join(" ")
    }

    /// The order of two keys: by one field after the other, each in the order that was asked for.
    /// Equal only when the keys are.
    pub fn compare(&self, a: Key, b: Key) -> Ordering {
        let fields = self.order().map(|field| self.compare_in(field, a, b));
        fields.fold(Ordering::Equal, Ordering::then)
    }

    /// Sorts keys by [`Projection::compare`].
    pub fn sort(&self, keys: &mut [Key]) {
        let order: Vec<usize> = self.order().collect();
        keys.sort_unstable_by(|&a, &b| {
            let mut fields = order.iter().map(|&field| self.compare_in(field, a, b));
            fields.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
    }

    /// The fields in which the keys differ. Of the [residue](super::Query::residue) keys of results
    /// that are shown as one, these are the settings that showing them so hides.
    pub fn varying(&self, keys: &[Key]) -> Vec<&str> {
        let Some((&first, others)) = keys.split_first() else {
            return Vec::new();
        };
        let varies = |field: &usize| {
            let text = self.text(first, *field);
            others.iter().any(|&key| self.text(key, *field) != text)
        };
        let fields = self.order().filter(varies);
        fields
            .map(|field| self.fields[field].name.as_str())
            .collect()
    }

    pub(super) fn push(&mut self, name: &str, source: Source, order: Order) {
        let field = self.fields.len();
        self.fields.push(Field::new(name, order));
        self.steps.push(Step::One { source, field });
    }

    pub(super) fn push_group(&mut self, kind: GroupKind, order: Order, mentioned: Vec<String>) {
        self.steps.push(Step::Group(Group {
            kind,
            order,
            mentioned,
            members: Vec::new(),
            places: HashMap::new(),
            next: 0,
        }));
    }

    /// Makes the row of a result.
    fn fill<'a, C>(&mut self, view: &View<'a, C>)
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        let Projection {
            steps,
            fields,
            rows,
            row,
            scratch,
            ..
        } = self;
        row.clear();
        row.resize(fields.len(), UNSET);
        for step in steps {
            match step {
                Step::One { source, field } => {
                    row[*field] = fields[*field].intern(source.text(view, scratch));
                }
                Step::Group(group) => {
                    group.next = 0;
                    let known = !rows.is_empty();
                    match group.kind {
                        GroupKind::Config => {
                            for (key, value) in view.config.clone() {
                                if let Some(field) = group.field(key, fields, known) {
                                    row.resize(fields.len(), UNSET);
                                    row[field] = fields[field].intern(value);
                                }
                            }
                        }
                        GroupKind::NameParts => name_parts(view, scratch, |key, value| {
                            let Some(field) = group.field(key, fields, known) else {
                                return true;
                            };
                            row.resize(fields.len(), UNSET);
                            let free = row[field] == UNSET;
                            if free {
                                row[field] = fields[field].intern(value);
                            }
                            free
                        }),
                    }
                }
            }
        }
    }

    /// The fields in the order in which they sort.
    fn order(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().flat_map(|step| {
            let (one, members): (_, &[Member]) = match step {
                Step::One { field, .. } => (Some(*field), &[]),
                Step::Group(group) => (None, &group.members),
            };
            one.into_iter()
                .chain(members.iter().filter_map(|member| member.field))
        })
    }

    fn entry(&self, key: Key, field: usize) -> Option<&Value> {
        let field_values = &self.fields[field];
        let id = self.rows.get(key.0).and_then(|row| row.get(field).copied());
        field_values.values.get(id.or(field_values.empty)?)
    }

    fn text(&self, key: Key, field: usize) -> &str {
        self.entry(key, field).map_or("", |value| &value.text)
    }

    fn compare_in(&self, field: usize, a: Key, b: Key) -> Ordering {
        match (self.entry(a, field), self.entry(b, field)) {
            (Some(a), Some(b)) => a.rank.compare(b.rank).then_with(|| a.text.cmp(&b.text)),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }

    /// The key of `self.row`.
    fn intern(&mut self) -> Key {
        for (id, field) in self.row.iter_mut().zip(&mut self.fields) {
            if *id == UNSET {
                *id = field.intern("");
            }
        }
        // The keys of a lone field are its values.
        if let [Step::One { .. }] = *self.steps
            && let [id] = *self.row
        {
            if id == self.rows.len() {
                self.rows.push(self.row.as_slice().into());
            }
            return Key(id);
        }
        // Rows from before a field was made equal those in which it is empty.
        while let Some(&id) = self.row.last()
            && self.fields[self.row.len() - 1].empty == Some(id)
        {
            self.row.pop();
        }
        if let Some(last) = self.last
            && self.rows.get(last.0).is_some_and(|row| **row == *self.row)
        {
            return last;
        }
        let key = match self.keys.get(self.row.as_slice()) {
            Some(&key) => key,
            None => {
                let key = Key(self.rows.len());
                let row: Arc<[usize]> = self.row.as_slice().into();
                self.rows.push(Arc::clone(&row));
                self.keys.insert(row, key);
                key
            }
        };
        self.last = Some(key);
        key
    }
}

impl Group {
    /// The field of a key, made when the key is new; `None` when another projection mentions it.
    /// `known` tells that there are rows already, in all of which a new field is empty.
    fn field(&mut self, key: &str, fields: &mut Vec<Field>, known: bool) -> Option<usize> {
        let guessed = self.members.get(self.next).is_some_and(|m| m.key == key);
        let place = match self.places.get(key) {
            _ if guessed => self.next,
            Some(&place) => place,
            None => {
                let place = self.members.len();
                let mentioned = self.mentioned.iter().any(|m| m == key);
                let field = (!mentioned).then(|| {
                    let mut field = Field::new(key, self.order.clone());
                    if known {
                        field.intern("");
                    }
                    fields.push(field);
                    fields.len() - 1
                });
                self.places.insert(key.to_owned(), place);
                let key = key.to_owned();
                self.members.push(Member { key, field });
                place
            }
        };
        self.next = place + 1;
        self.members[place].field
    }
}

impl Field {
    fn new(name: &str, order: Order) -> Field {
        Field {
            name: name.to_owned(),
            order,
            values: Vec::new(),
            ids: HashMap::new(),
            last: 0,
            empty: None,
        }
    }

    fn intern(&mut self, text: &str) -> usize {
        let same = |value: &Value| *value.text == *text;
        if self.values.get(self.last).is_some_and(same) {
            return self.last;
        }
        self.last = match self.ids.get(text) {
            Some(&id) => id,
            None => {
                let id = self.values.len();
                let rank = self.order.rank(text, id);
                let text: Arc<str> = text.into();
                if text.is_empty() {
                    self.empty = Some(id);
                }
                self.ids.insert(Arc::clone(&text), id);
                self.values.push(Value { text, rank });
                id
            }
        };
        self.last
    }
}

/// Reads a projection expression.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, Fault> {
    const EXPECT: Expect = Expect::Projection;
    let mut lexer = Lexer::new(text);
    let mut parts = Vec::new();
    loop {
        let mut token = lexer.next(EXPECT)?;
        match token.kind {
            Kind::End => return Ok(parts),
            Kind::Operator(',') if !parts.is_empty() => token = lexer.next(EXPECT)?,
            _ => {}
        }
        let Kind::Word(key) = token.kind else {
            return Err(token.instead_of("a key"));
        };
        let mut order = Order::First;
        if lexer.peek(EXPECT)?.kind == Kind::Operator('@') {
            lexer.next(EXPECT)?;
            order = sort_order(lexer.next(EXPECT)?, &mut lexer)?;
        }
        parts.push(Part {
            key: key.into_owned(),
            order,
            offset: token.offset,
        });
    }
}

/// The sort order that begins with `token`.
fn sort_order(token: Token<'_>, lexer: &mut Lexer<'_>) -> Result<Order, Fault> {
    match &token.kind {
        Kind::Word(word) => match word.as_ref() {
            "alpha" => Ok(Order::Alpha),
            "num" => Ok(Order::Num),
            "first" => Ok(Order::First),
            word => {
                let message = format!(
                    "unknown order {word:?}: the orders are alpha, num, first and a list of \
                     values in parentheses"
                );
                Err(Fault::new(token.offset, message))
            }
        },
        Kind::Operator('(') => {
            let mut listed = Vec::new();
            loop {
                let token = lexer.next(Expect::Projection)?;
                match token.kind {
                    Kind::Word(word) => listed.push(word.into_owned()),
                    Kind::Operator(')') if !listed.is_empty() => return Ok(Order::Fixed(listed)),
                    _ if listed.is_empty() => return Err(token.instead_of("a value")),
                    _ => return Err(token.instead_of("a value or `)`")),
                }
            }
        }
        _ => Err(token.instead_of("an order (alpha, num or a list of values in parentheses)")),
    }
}
