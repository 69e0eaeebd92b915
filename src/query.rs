//! benchstat's language: which results are used, and how they are laid out in tables, rows and columns. Pure: never reads a file, never computes with a figure.
//!
//! The language is that of `golang.org/x/perf/benchproc/syntax`.
//!
//! | key | value |
//! |---|---|
//! | `.name` | the benchmark's name without parameters |
//! | `.fullname` | the whole name; in projections without the parts that are mentioned elsewhere |
//! | `/key` | a parameter of the name; `/gomaxprocs` also is the `-8` at its end |
//! | `.file` | the file or its label |
//! | `key` | one key of the configuration |
//! | `.config` | in projections: all keys of the configuration that are not mentioned elsewhere |
//! | `.unit` | in filters: the unit of one value; in `table`: where the unit sorts |
//!
//! - **Filters**: `key:value`, `key:"quoted"`, `key:/regexp/`, `key:(a OR b)`, `*`; joined by
//!   nothing, `AND` or `OR`, with `-` for not and parentheses.
//! - **Projections**: keys separated by commas or spaces, each with its order: none (as first
//!   observed), `@alpha`, `@num` (`2k` < `1Mi`), or `@(a b c)`, which also keeps only these.
//!
//! What differs from benchstat:
//!
//! - A `:` inside a filter's value needs no quotes: `.unit:cycles:u/op`.
//! - `.unit` may stand in `table`, with an order. A table always has one unit; where `table` does
//!   not say so, the unit is its last field.
//! - A key that begins with a dot and is none of the above is refused; there it matches nothing.
//! - What is hidden is told more precisely: files count, and names are told by their parts.
//! - The keys of `.config` sort as first observed, as benchstat's manual says; its code sorts
//!   them by their letters.
//! - `.fullname@(…)` lists names as they are shown, without the parts mentioned elsewhere.
//! - `@num` sees the sign of `-2k`.
//! - Regular expressions refuse classes of Unicode (`\pL`), `\Q…\E`, and an unescaped `[` in
//!   brackets; `(?i)` folds the case of ASCII alone.

mod filter;
mod order;
mod projection;
mod syntax;
mod view;

pub use filter::{Filter, UnitNames};
pub use projection::{Key, Projection};
pub use syntax::QueryError;
pub use view::View;

use filter::{Expr, Pattern};
use order::Order;
use projection::{GroupKind, Part};
use syntax::Fault;
use view::Source;

/// The expressions as they were typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expressions<'a> {
    /// Which results and values are used.
    pub filter: &'a str,
    /// What splits results into tables, besides the unit.
    pub table: &'a str,
    /// What splits a table into rows.
    pub row: &'a str,
    /// What is compared.
    pub col: &'a str,
    /// What may vary unseen.
    pub ignore: &'a str,
}

impl Default for Expressions<'_> {
    /// benchstat's: rows are full names, columns are files, and each configuration has its table.
    fn default() -> Self {
        Expressions {
            filter: "*",
            table: ".config",
            row: ".fullname",
            col: ".file",
            ignore: "",
        }
    }
}

/// What is done with every result: it is filtered, and what passes is projected four times.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which results and values are used; the lists of orders `@(…)` are part of it.
    pub filter: Filter,
    /// The table of a result; [`Projection::with_unit`] makes it that of a value.
    pub table: Projection,
    /// Its row.
    pub row: Projection,
    /// Its column.
    pub col: Projection,
    /// What no expression mentions. Results of one cell whose residues differ may not be
    /// comparable: [`Projection::varying`] says in what.
    pub residue: Projection,
}

impl Query {
    /// Reads the expressions.
    pub fn new(typed: &Expressions<'_>) -> Result<Query, QueryError> {
        let mut query = Query {
            filter: Filter::new(typed.filter)?,
            table: Projection::default(),
            row: Projection::default(),
            col: Projection::default(),
            residue: Projection::default(),
        };
        let read = |expression, text| {
            let parts = projection::parts(text).map_err(|fault| fault.within(expression, text))?;
            Ok((expression, text, parts))
        };
        let dimensions = [
            read("table", typed.table)?,
            read("row", typed.row)?,
            read("col", typed.col)?,
            read("ignore", typed.ignore)?,
        ];
        let parts = dimensions.iter().flat_map(|(_, _, parts)| parts);
        let mentioned = Mentioned(parts.map(|part| part.key.clone()).collect());

        let mut ignored = Projection::default();
        let mut listed = Vec::new();
        for (expression, text, parts) in dimensions {
            let projection = match expression {
                "table" => &mut query.table,
                "row" => &mut query.row,
                "col" => &mut query.col,
                _ => &mut ignored,
            };
            let mut has_unit = false;
            for part in parts {
                if part.key == ".unit" {
                    if expression != "table" || has_unit {
                        let message = "`.unit` can stand in `table` alone, and there once: \
                                       a table always has one unit";
                        return Err(Fault::new(part.offset, message).within(expression, text));
                    }
                    has_unit = true;
                }
                let only = mentioned
                    .add(part, projection)
                    .map_err(|fault| fault.within(expression, text))?;
                listed.extend(only);
            }
            if expression == "table" && !has_unit {
                projection.push(".unit", Source::Unit, Order::First);
            }
        }
        query.filter.and(listed);
        mentioned.rest(&mut query.residue);
        Ok(query)
    }
}

/// All keys of all projections.
struct Mentioned(Vec<String>);

impl Mentioned {
    /// Adds a part to its projection; returns what its list of values leaves.
    fn add(&self, part: Part, projection: &mut Projection) -> Result<Option<Expr>, Fault> {
        let Part { key, order, offset } = part;
        if key == ".config" {
            if matches!(order, Order::Fixed(_)) {
                let message = "`.config` is many keys: list the values of one of them";
                return Err(Fault::new(offset, message));
            }
            projection.push_group(GroupKind::Config, order, self.0.clone());
            return Ok(None);
        }
        let source = match Source::new(&key).map_err(|message| Fault::new(offset, message))? {
            Source::FullName(_) => Source::FullName(self.name_keys()),
            source => source,
        };
        let only = match &order {
            Order::Fixed(values) => {
                Some(Expr::Term(source.clone(), Pattern::OneOf(values.clone())))
            }
            _ => None,
        };
        projection.push(&key, source, order);
        Ok(only)
    }

    /// Adds what is mentioned nowhere.
    fn rest(&self, residue: &mut Projection) {
        if !self.has(".config") {
            residue.push_group(GroupKind::Config, Order::First, self.0.clone());
        }
        if !self.has(".fullname") {
            residue.push_group(GroupKind::NameParts, Order::First, self.name_keys());
        }
        if !self.has(".file") {
            residue.push(".file", Source::File, Order::First);
        }
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|k| k == key)
    }

    fn name_keys(&self) -> Vec<String> {
        let of_names = |key: &&String| *key == ".name" || key.starts_with('/');
        self.0.iter().filter(of_names).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
