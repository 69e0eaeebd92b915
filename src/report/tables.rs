//! Tables of several sides' results: for people, as markdown, as CSV and as JSON. Never computes a statistic, never prints.

use std::fmt::{self, Write};
use std::ops::Range;

use serde_json::{Value, json};

use super::comparison::{self, amount, interval, judged, scale_word, word};
use super::text::{self, superscript};
use crate::compare::parallel::in_order;
use crate::compare::{Change, Row, Summary, Table, Tables};
use crate::stats::comparison::Basis;
use crate::unit::{Assume, Better, Scale, human};

/// Said when something was not paired.
const UNPAIRED: &str = "these runs were not paired, so effects of their order cannot be excluded; `poise ab` pairs them";

/// The tables for people, one text each, and what is to be said of them all.
pub fn text(tables: &Tables, style: text::Style) -> impl Iterator<Item = String> {
    let befores = std::iter::once(None).chain(tables.tables.iter().map(Some));
    let each = tables.tables.iter().zip(befores);
    let each = each.map(move |(table, before)| {
        let mut out = String::new();
        if before.is_some() {
            out.push('\n');
        }
        for line in config_lines(table, before) {
            let _ = writeln!(out, "{}", console::truncate_str(&line, style.width, "…"));
        }
        write_table(table, style, &mut out);
        for (number, note) in (1..).zip(shown_notes(table)) {
            let _ = writeln!(out, "{} {note}", superscript(number));
        }
        out
    });
    let remarks = remarks(tables);
    let mut last = String::new();
    if !tables.tables.is_empty() && !remarks.is_empty() {
        last.push('\n');
    }
    for remark in remarks {
        let _ = writeln!(last, "! {remark}");
    }
    each.chain(std::iter::once(last))
}

/// What is to be said of all tables together.
pub fn remarks(tables: &Tables) -> Vec<String> {
    let mut remarks = tables.doubts.clone();
    if tables.family > 1 {
        remarks.push(format!(
            "the verdicts hold for all {} comparisons together (Benjamini–Hochberg); each p is of one alone",
            tables.family
        ));
    }
    if tables.unpaired {
        remarks.push(UNPAIRED.to_owned());
    }
    remarks
}

/// The configuration, as far as it is not that of the table before.
fn config_lines(table: &Table, before: Option<&Table>) -> Vec<String> {
    let old = before.map_or(&[][..], |table| &table.config);
    let news = table.config.iter().filter(|pair| !old.contains(pair));
    let mut lines: Vec<String> = news.map(|(key, value)| format!("{key}: {value}")).collect();
    for (key, _) in old {
        if !table.config.iter().any(|(known, _)| known == key) {
            lines.push(format!("{key}:"));
        }
    }
    lines
}

/// What stands in a field of a table, by which it is aligned and left out where it is narrow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Center,
    Reach,
    Notes,
    Share,
    Interval,
    Basis,
    Verdict,
}

const FIRST: [Kind; 3] = [Kind::Center, Kind::Reach, Kind::Notes];
const OTHER: [Kind; 8] = [
    Kind::Center,
    Kind::Reach,
    Kind::Notes,
    Kind::Share,
    Kind::Interval,
    Kind::Basis,
    Kind::Verdict,
    Kind::Notes,
];

/// What is left out first where a line is too narrow.
const LEAST: [Kind; 3] = [Kind::Interval, Kind::Basis, Kind::Reach];

impl Kind {
    fn is_right(self) -> bool {
        matches!(self, Kind::Center | Kind::Share)
    }

    /// Spaces before it.
    fn gap(self) -> usize {
        match self {
            Kind::Name => 0,
            Kind::Reach | Kind::Notes => 1,
            _ => 2,
        }
    }
}

/// Between the fields of a line: many lines are held at once.
const BREAK: char = '\0';

fn write_table(table: &Table, style: text::Style, out: &mut String) {
    let mut kinds = vec![Kind::Name];
    for column in 0..table.columns.len() {
        kinds.extend(if column == 0 { &FIRST[..] } else { &OTHER });
    }
    let mut widths = vec![0; kinds.len()];
    let mut blocks = Vec::new();
    lines(table, |block| {
        for line in block.lines() {
            for (width, text) in widths.iter_mut().zip(line.split(BREAK)) {
                *width = (*width).max(width_of(text));
            }
        }
        blocks.push(block);
    });
    let heads = heads(table, &kinds);
    let mut left_out = 0;
    let (widths, is_shown) = loop {
        let mut wide = widths.clone();
        let is_shown: Vec<bool> = (0..kinds.len())
            .map(|at| {
                heads[at].is_some() || wide[at] > 0 && !LEAST[..left_out].contains(&kinds[at])
            })
            .collect();
        widen(&heads, &kinds, &is_shown, &mut wide);
        let shown = (0..kinds.len()).filter(|&at| is_shown[at]);
        let total: usize = shown.map(|at| kinds[at].gap() + wide[at]).sum();
        if total <= style.width || left_out == LEAST.len() {
            break (wide, is_shown);
        }
        left_out += 1;
    };
    let (mut begin, mut column) = (0, 0);
    let mut head = String::new();
    for (at, text) in heads.iter().enumerate().filter(|(at, _)| is_shown[*at]) {
        if let Some(text) = text {
            let fill = (begin + kinds[at].gap()).saturating_sub(column);
            head.extend(std::iter::repeat_n(' ', fill));
            head.push_str(text);
            column += fill + width_of(text);
        }
        begin += kinds[at].gap() + widths[at];
    }
    push_line(&head, style, out);
    let verdicts =
        comparison::VERDICTS.map(|verdict| (word(verdict), comparison::coloured(verdict)));
    let coloured = |text| verdicts.iter().find(|(word, _)| *word == text);
    let write = |range: Range<usize>| {
        let (mut out, mut line) = (String::new(), String::new());
        for fields in blocks[range].iter().flat_map(|block| block.lines()) {
            line.clear();
            for (at, text) in fields
                .split(BREAK)
                .enumerate()
                .filter(|(at, _)| is_shown[*at])
            {
                let fill = widths[at].saturating_sub(width_of(text));
                let before = kinds[at].gap() + if kinds[at].is_right() { fill } else { 0 };
                line.extend(std::iter::repeat_n(' ', before));
                match kinds[at] {
                    Kind::Verdict => line.push_str(coloured(text).map_or(text, |(_, text)| text)),
                    _ => line.push_str(text),
                }
                if !kinds[at].is_right() {
                    line.extend(std::iter::repeat_n(' ', fill));
                }
            }
            push_line(&line, style, &mut out);
        }
        out
    };
    in_order(blocks.len(), 1, write, |lines| out.push_str(&lines));
}

fn push_line(line: &str, style: text::Style, out: &mut String) {
    let line = line.trim_end();
    // No character is wider than it is long.
    match line.len() <= style.width {
        true => out.push_str(line),
        false => out.push_str(&console::truncate_str(line, style.width, "…")),
    }
    out.push('\n');
}

/// The notes that the table's lines refer to: not those of the geometric means, which come last,
/// where these are not shown.
fn shown_notes(table: &Table) -> &[String] {
    let of_rows = table.rows.iter().flat_map(|row| row.cells.iter().flatten());
    let of_rows = of_rows.flat_map(|cell| {
        let of_change = cell.change.iter().flat_map(|change| &change.notes);
        cell.notes.iter().chain(of_change)
    });
    let last = of_rows.max().map_or(0, |&last| last as usize + 1);
    match has_geomean(table) {
        true => &table.notes,
        false => &table.notes[..last.min(table.notes.len())],
    }
}

fn width_of(text: &str) -> usize {
    // Nothing else than these is written into most fields.
    let is_narrow =
        |c: char| matches!(c, ' '..='~' | '±' | '…' | '∞' | 'µ' | '¹' | '²' | '³' | '⁰'..='⁹');
    match text.chars().all(is_narrow) {
        true => text.chars().count(),
        false => console::measure_text_width(text),
    }
}

/// What stands above each field, if anything does.
fn heads(table: &Table, kinds: &[Kind]) -> Vec<Option<String>> {
    let mut columns = table.columns.iter();
    let head = |kind: &Kind| match kind {
        Kind::Name => Some(table.meta.unit.to_string()),
        Kind::Center => columns.next().map(|name| shortened(name)),
        Kind::Share => Some(format!("vs {}", shortened(&table.columns[0]))),
        _ => None,
    };
    kinds.iter().map(head).collect()
}

/// The end of a name that is too long to stand above a column: files differ at the end.
fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    let count = name.chars().count();
    match count > MOST {
        false => name.to_owned(),
        true => std::iter::once('…')
            .chain(name.chars().skip(count + 1 - MOST))
            .collect(),
    }
}

/// Makes room for what stands above: each head has the fields up to the next one, and the last
/// one has all the rest of the line.
fn widen(heads: &[Option<String>], kinds: &[Kind], is_shown: &[bool], widths: &mut [usize]) {
    let mut wanted = 0;
    let mut last = 0;
    for at in (0..heads.len()).filter(|&at| is_shown[at]) {
        if let Some(head) = &heads[at] {
            widths[last] += wanted;
            wanted = kinds[at].gap() + width_of(head);
        }
        wanted = wanted.saturating_sub(kinds[at].gap() + widths[at]);
        last = at;
    }
}

/// The fields of each row, and of the geometric means where there are several: some hundred lines
/// at a time.
fn lines(table: &Table, mut sink: impl FnMut(String)) {
    let some = |range: Range<usize>| {
        let mut lines = String::new();
        for row in &table.rows[range] {
            write_fields(table, row, &mut lines);
            lines.push('\n');
        }
        lines.shrink_to_fit();
        lines
    };
    in_order(table.rows.len(), 256, some, &mut sink);
    if has_geomean(table) {
        sink(geomean_fields(table).join("\0"));
    }
}

fn has_geomean(table: &Table) -> bool {
    table.rows.len() > 1 && !table.geomeans.is_empty()
}

fn write_fields(table: &Table, row: &Row, line: &mut String) {
    // Neither begins another field, or line.
    line.push_str(&row.name.replace([BREAK, '\n'], " "));
    let mut field = |text: fmt::Arguments<'_>| {
        line.push(BREAK);
        let _ = line.write_fmt(text);
    };
    let scale = scale_of(table, row);
    for (column, cell) in row.cells.iter().enumerate() {
        match cell {
            None => field(format_args!("{BREAK}{BREAK}")),
            Some(cell) => {
                match cell.middle {
                    None => field(format_args!("absent{BREAK}")),
                    Some(middle) => {
                        field(format_args!("{}", scale.write(middle.center)));
                        field(format_args!("± {}", reach(cell)));
                    }
                }
                field(format_args!("{}", marks(&cell.notes)));
            }
        }
        if column == 0 {
            continue;
        }
        match cell.as_ref().and_then(|cell| cell.change.as_deref()) {
            None => {
                let word = match (&row.cells[0], cell) {
                    (None, Some(_)) => "appeared",
                    (Some(_), None) => "vanished",
                    _ => "",
                };
                field(format_args!("{BREAK}{BREAK}{BREAK}{word}{BREAK}"));
            }
            Some(change) => {
                field(format_args!("{}", share(table, change)));
                field(format_args!("{}", bounds(table, change)));
                field(format_args!("{}", basis(change)));
                field(format_args!("{}", word(change.judgement.verdict)));
                field(format_args!("{}", marks(&change.notes)));
            }
        }
    }
}

fn geomean_fields(table: &Table) -> Vec<String> {
    let mut fields = vec!["geomean".to_owned()];
    let none = String::new;
    for (column, geomean) in table.geomeans.iter().enumerate() {
        let mean = geomean.mean.map(|mean| human(&table.meta.unit, mean));
        let notes = marks(&geomean.notes);
        fields.extend([mean.unwrap_or_default(), none()]);
        match column {
            0 => fields.push(notes),
            _ => {
                let share = geomean.share.map_or("?".to_owned(), percent);
                fields.extend([none(), share, none(), none(), none(), notes]);
            }
        }
    }
    fields
}

/// One scale for all of a row: that of its least figure.
fn scale_of(table: &Table, row: &Row) -> Scale {
    let centers = row.cells.iter().flatten().filter_map(|cell| cell.middle);
    let sizes = centers
        .map(|middle| middle.center.abs())
        .filter(|&size| size > 0.0);
    let least = sizes.fold(f64::INFINITY, f64::min);
    let typical = if least.is_finite() { least } else { 0.0 };
    Scale::for_figure(table.meta.unit.dimension(), typical)
}

fn reach(cell: &Summary) -> String {
    let endless = |cell: &Summary| {
        let middle = cell.middle?;
        Some(middle.low.is_infinite() || middle.high.is_infinite())
    };
    match cell.reach() {
        Some(share) => format!("{:.0}%", share * 100.0),
        None if endless(cell) == Some(true) => "∞".to_owned(),
        None => "?".to_owned(),
    }
}

fn marks(notes: &[u32]) -> String {
    let marks: Vec<String> = notes
        .iter()
        .map(|&note| superscript(note as usize + 1))
        .collect();
    marks.join(" ")
}

fn percent(share: f64) -> String {
    format!("{:+.2}%", share * 100.0)
}

/// The change of the middles, when it is certain that there is one.
fn share(table: &Table, change: &Change) -> String {
    let comparison = &change.judgement.comparison;
    match change.is_certain() {
        false => "~".to_owned(),
        true if change.share.is_finite() => percent(change.share),
        true => amount(&table.meta.unit, comparison.scale, comparison.estimate),
    }
}

/// Between what bounds the change lies.
fn bounds(table: &Table, change: &Change) -> String {
    let comparison = &change.judgement.comparison;
    match comparison.interval {
        None => String::new(),
        Some(_) => interval(&table.meta.unit, comparison),
    }
}

/// On what it rests: `p=0.002 n=6`.
fn basis(change: &Change) -> String {
    let comparison = &change.judgement.comparison;
    let [old, new] = comparison.counts;
    let n = match comparison.basis {
        Basis::Pairs => format!("{old} pairs"),
        _ if old == new => format!("n={old}"),
        _ => format!("n={old}+{new}"),
    };
    match change.p {
        None => format!("exact   {n}"),
        Some(p) if p < 0.0005 => format!("p<0.001 {n}"),
        Some(p) => format!("p={p:.3} {n}"),
    }
}

/// The tables as markdown.
pub fn markdown(tables: &Tables) -> String {
    let escaped = |text: &str| text.replace('|', "\\|");
    let mut out = String::new();
    let mut before = None;
    for table in &tables.tables {
        let news = config_lines(table, before);
        if !news.is_empty() {
            let _ = writeln!(out, "{}\n", news.join(" · "));
        }
        before = Some(table);
        let mut head = format!("| {} |", table.meta.unit);
        let mut rule = "|---|".to_owned();
        for (column, name) in table.columns.iter().enumerate() {
            let _ = write!(head, " {} |", escaped(name));
            rule.push_str("--:|");
            if column > 0 {
                let _ = write!(head, " vs {} | | verdict |", escaped(&table.columns[0]));
                rule.push_str("--:|---|---|");
            }
        }
        let _ = writeln!(out, "{head}\n{rule}");
        lines(table, |block| {
            for line in block.lines() {
                let texts: Vec<String> = line.split(BREAK).map(escaped).collect();
                let joined = |texts: &[String]| -> String {
                    let some = texts.iter().filter(|text| !text.is_empty());
                    some.cloned().collect::<Vec<_>>().join(" ")
                };
                let _ = write!(out, "| {} | {} |", texts[0], joined(&texts[1..4]));
                for other in texts[4..].chunks(OTHER.len()) {
                    let verdict = match other[6].is_empty() {
                        true => other[7].clone(),
                        false => format!("**{}** {}", other[6], other[7]),
                    };
                    let _ = write!(
                        out,
                        " {} | {} | {} | {} |",
                        joined(&other[..3]),
                        other[3],
                        joined(&other[4..6]),
                        verdict.trim_end()
                    );
                }
                out.push('\n');
            }
        });
        out.push('\n');
        for (number, note) in (1..).zip(shown_notes(table)) {
            let _ = writeln!(out, "{} {note}  ", superscript(number));
        }
        if !shown_notes(table).is_empty() {
            out.push('\n');
        }
    }
    for remark in remarks(tables) {
        let _ = writeln!(out, "- {remark}");
    }
    out
}

/// The tables as CSV, one line a cell.
pub fn csv(tables: &Tables) -> Result<Vec<u8>, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "table",
        "unit",
        "row",
        "column",
        "n",
        "center",
        "low",
        "high",
        "base",
        "ratio",
        "change",
        "change low",
        "change high",
        "scale",
        "p",
        "family p",
        "basis",
        "verdict",
        "notes",
    ])?;
    let number = |x: f64| {
        if x.is_finite() {
            x.to_string()
        } else {
            String::new()
        }
    };
    let optional = |x: Option<f64>| x.map_or(String::new(), number);
    for table in &tables.tables {
        let config = table
            .config
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let config = config.collect::<Vec<_>>().join("; ");
        for row in &table.rows {
            for (column, cell) in table.columns.iter().zip(&row.cells) {
                let Some(cell) = cell else { continue };
                let of =
                    |f: fn(&crate::compare::Middle) -> f64| optional(cell.middle.as_ref().map(f));
                let mut line = vec![
                    config.clone(),
                    table.meta.unit.to_string(),
                    row.name.to_string(),
                    column.to_string(),
                    cell.count.to_string(),
                    of(|middle| middle.center),
                    of(|middle| middle.low),
                    of(|middle| middle.high),
                ];
                let mut notes: Vec<u32> = cell.notes.to_vec();
                match &cell.change {
                    None => line.extend(std::iter::repeat_n(String::new(), 10)),
                    Some(change) => {
                        let comparison = &change.judgement.comparison;
                        let end = |f: fn(&crate::stats::Interval) -> f64| {
                            optional(comparison.interval.as_ref().map(f))
                        };
                        notes.extend(&change.notes);
                        line.extend([
                            table.columns[0].to_string(),
                            number(change.share + 1.0),
                            number(comparison.estimate),
                            end(|interval| interval.low),
                            end(|interval| interval.high),
                            scale_word(comparison.scale).to_owned(),
                            optional(change.p),
                            optional(comparison.p),
                            change.judgement.basis(),
                            word(change.judgement.verdict).to_owned(),
                        ]);
                    }
                }
                let texts = notes
                    .iter()
                    .filter_map(|&note| table.notes.get(note as usize));
                line.push(texts.cloned().collect::<Vec<_>>().join("; "));
                out.write_record(line)?;
            }
        }
    }
    out.into_inner().map_err(|error| error.into_error().into())
}

/// One table as JSON.
pub fn json(table: &Table) -> Value {
    let texts = |notes: &[u32]| -> Vec<&String> {
        let texts = notes
            .iter()
            .filter_map(|&note| table.notes.get(note as usize));
        texts.collect()
    };
    let cell = |(column, cell): (&std::sync::Arc<str>, &Option<Summary>)| {
        let cell = cell.as_ref()?;
        // What is not finite becomes null.
        Some(json!({
            "column": **column,
            "n": cell.count,
            "center": cell.middle.map(|middle| middle.center),
            "low": cell.middle.map(|middle| middle.low),
            "high": cell.middle.map(|middle| middle.high),
            "notes": texts(&cell.notes),
            "comparison": cell.change.as_deref().map(|change| {
                let mut value = judged(&table.meta.unit, &change.judgement);
                value["ratio"] = json!(change.share + 1.0);
                value["p_alone"] = json!(change.p);
                value["doubts"] = json!(texts(&change.notes));
                value
            }),
        }))
    };
    let row = |row: &Row| {
        let cells: Vec<Value> = table
            .columns
            .iter()
            .zip(&row.cells)
            .filter_map(cell)
            .collect();
        json!({ "name": *row.name, "cells": cells })
    };
    let geomeans = table
        .columns
        .iter()
        .zip(&table.geomeans)
        .map(|(column, geomean)| {
            json!({
                "column": **column,
                "mean": geomean.mean,
                "ratio": geomean.share.map(|share| share + 1.0),
                "notes": texts(&geomean.notes),
            })
        });
    let config: serde_json::Map<String, Value> = table
        .config
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    json!({
        "unit": table.meta.unit.as_str(),
        "better": table.meta.better.map(|better| match better {
            Better::Lower => "lower",
            Better::Higher => "higher",
        }),
        "assume": match table.meta.assume {
            Assume::Exact => "exact",
            Assume::Nothing => "nothing",
        },
        "config": config,
        "columns": table.columns.iter().map(|column| &**column).collect::<Vec<_>>(),
        "rows": table.rows.iter().map(row).collect::<Vec<_>>(),
        "geomean": geomeans.collect::<Vec<_>>(),
    })
}

/// The verdicts, one for each cell that is held against another.
pub fn verdicts(tables: &Tables) -> Vec<Value> {
    let mut verdicts = Vec::new();
    for table in &tables.tables {
        for row in &table.rows {
            let others = table.columns.iter().zip(&row.cells).skip(1);
            for (column, cell) in others {
                let Some(change) = cell.as_ref().and_then(|cell| cell.change.as_deref()) else {
                    continue;
                };
                let mut value = judged(&table.meta.unit, &change.judgement);
                value["benchmark"] = json!(*row.name);
                value["control"] = json!(*table.columns[0]);
                value["variant"] = json!(**column);
                let texts = change
                    .notes
                    .iter()
                    .filter_map(|&note| table.notes.get(note as usize));
                value["doubts"] = json!(texts.collect::<Vec<_>>());
                verdicts.push(value);
            }
        }
    }
    verdicts
}
