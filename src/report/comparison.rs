//! Verdicts for people, for markdown and as JSON: what changed, by how much, how certain that is. Never computes a statistic, never prints.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::text;
use crate::compare::{self, Judgement, Trial, percent};
use crate::sample::Warning;
use crate::stats::Interval;
use crate::stats::comparison::{Comparison, Scale, Verdict};
use crate::stats::order::median;
use crate::unit::{Unit, human};

/// What came of one unit of a trial.
pub struct Judged {
    /// The unit.
    pub unit: Unit,
    /// Whether the trial was made for it; the others were counted besides.
    pub is_chosen: bool,
    /// Each variant but the control.
    pub variants: Vec<Option<Judgement>>,
}

/// Characters of a drawn distribution.
const DRAWN: usize = 16;

/// The tables of a trial: one for each chosen unit, one for all others, and the doubts.
pub fn trial(trial: &Trial, judged: &[Judged], style: text::Style) -> String {
    let mut out = String::new();
    let labels = labels(trial);
    for (runs, label) in trial.variants().iter().zip(&labels) {
        if *label != runs.name {
            let _ = writeln!(out, "{label}: {}", runs.name);
        }
    }
    let (chosen, others): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().partition(|judged| judged.is_chosen);
    for one in &chosen {
        out.push_str(&unit_table(trial, &labels, one, style));
    }
    if !others.is_empty() {
        out.push_str("beside (each judged by itself)\n");
        out.push_str(&beside_table(trial, &labels, &others, style));
    }
    for doubt in doubts(trial, &labels, judged) {
        let _ = writeln!(out, "  ! {doubt}");
    }
    out
}

fn unit_table(trial: &Trial, labels: &[String], judged: &Judged, style: text::Style) -> String {
    let cells = trial.cells(&judged.unit);
    let all = || cells.iter().flat_map(|cell| cell.figures()).copied();
    let low = all().fold(f64::INFINITY, f64::min);
    let high = all().fold(f64::NEG_INFINITY, f64::max);
    let mut table = plain_table();
    table.set_header([
        judged.unit.as_str(),
        "median",
        "change",
        "interval",
        "verdict",
        "",
        "distribution",
    ]);
    for (at, label) in labels.iter().enumerate() {
        let figures = cells.get(at).map_or(&[][..], |cell| cell.figures());
        let judgement = at
            .checked_sub(1)
            .and_then(|at| judged.variants[at].as_ref());
        let mut row = vec![
            Cell::new(format!("  {label}")),
            Cell::new(middle(&judged.unit, figures)).set_alignment(CellAlignment::Right),
        ];
        match judgement {
            Some(judgement) => row.extend(
                [
                    change(&judged.unit, &judgement.comparison),
                    interval(&judged.unit, &judgement.comparison),
                    word(judgement.verdict).to_owned(),
                    judgement.basis(),
                ]
                .map(Cell::new),
            ),
            None if at == 0 => row.extend(["", "", "control", ""].map(Cell::new)),
            None => row.extend(["", "", "not compared", ""].map(Cell::new)),
        }
        row.push(Cell::new(histogram(figures, low, high)));
        table.add_row(row);
    }
    written(table, style)
}

fn beside_table(
    trial: &Trial,
    labels: &[String],
    judged: &[&Judged],
    style: text::Style,
) -> String {
    let mut table = plain_table();
    for one in judged {
        let cells = trial.cells(&one.unit);
        let old = cells.first().map_or(&[][..], |cell| cell.figures());
        let others = labels.iter().skip(1);
        for ((at, label), judgement) in (1..).zip(others).zip(&one.variants) {
            let Some(judgement) = judgement else { continue };
            let name = if labels.len() > 2 { label } else { "" };
            table.add_row([
                format!("  {}", one.unit),
                name.to_owned(),
                format!(
                    "{} → {}",
                    middle(&one.unit, old),
                    middle(&one.unit, cells[at].figures())
                ),
                change(&one.unit, &judgement.comparison),
                interval(&one.unit, &judgement.comparison),
                word(judgement.verdict).to_owned(),
            ]);
        }
    }
    written(table, style)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn written(mut table: Table, style: text::Style) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = String::new();
    for line in table.lines() {
        let narrow = console::truncate_str(line.trim_end(), style.width, "…").into_owned();
        let _ = writeln!(out, "{}", coloured_line(&narrow));
    }
    out
}

fn middle(unit: &Unit, figures: &[f64]) -> String {
    median(figures).map_or("—".to_owned(), |median| human(unit, median))
}

/// The change in percent, or in the unit where figures can be 0.
/// The change that `comparison` found of `unit`: `-3.1%`, or where a share says nothing `+2.4 KiB`.
pub fn change(unit: &Unit, comparison: &Comparison) -> String {
    amount(unit, comparison.scale, comparison.estimate)
}

pub(super) fn amount(unit: &Unit, scale: Scale, amount: f64) -> String {
    match scale {
        Scale::Ratio => percent(amount),
        Scale::Difference if amount < 0.0 => format!("-{}", human(unit, -amount)),
        Scale::Difference => format!("+{}", human(unit, amount)),
    }
}

pub(super) fn interval(unit: &Unit, comparison: &Comparison) -> String {
    match comparison.interval {
        None => "too few runs".to_owned(),
        Some(Interval { low, high, .. }) if low == high => String::new(),
        Some(Interval { low, high, .. }) => {
            let of = |x| amount(unit, comparison.scale, x);
            format!("{} … {}", of(low), of(high))
        }
    }
}

/// The verdict's word.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Improved => "improved",
        Verdict::Regressed => "regressed",
        Verdict::Changed => "changed",
        Verdict::Equivalent => "equivalent",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Untrustworthy => "untrustworthy",
    }
}

/// All that a verdict can be.
pub(super) const VERDICTS: [Verdict; 6] = [
    Verdict::Improved,
    Verdict::Regressed,
    Verdict::Changed,
    Verdict::Equivalent,
    Verdict::Inconclusive,
    Verdict::Untrustworthy,
];

/// A line of a table with its verdict in colour: codes would have been counted as characters.
fn coloured_line(line: &str) -> String {
    let place = |verdict| Some((line.rfind(&format!("  {}", word(verdict)))? + 2, verdict));
    let last = VERDICTS
        .into_iter()
        .filter_map(place)
        .max_by_key(|found| found.0);
    match last {
        None => line.to_owned(),
        Some((at, verdict)) => {
            let (before, rest) = line.split_at(at);
            let after = &rest[word(verdict).len()..];
            format!("{before}{}{after}", coloured(verdict))
        }
    }
}

/// The verdict's word in its colour.
pub(super) fn coloured(verdict: Verdict) -> String {
    let colour = match verdict {
        Verdict::Improved => AnsiColor::Green,
        Verdict::Regressed => AnsiColor::Red,
        Verdict::Changed => AnsiColor::Magenta,
        Verdict::Equivalent => AnsiColor::Blue,
        Verdict::Inconclusive | Verdict::Untrustworthy => AnsiColor::Yellow,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", word(verdict))
}

/// How many of `figures` lie in each part of the range from `low` to `high`.
fn histogram(figures: &[f64], low: f64, high: f64) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut counts = [0usize; DRAWN];
    for figure in figures {
        let share = if high > low {
            (figure - low) / (high - low)
        } else {
            0.5
        };
        counts[((share * DRAWN as f64) as usize).min(DRAWN - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bar = |&count: &usize| BARS[(count * 8).div_ceil(most)];
    counts.iter().map(bar).collect()
}

/// What the variants are called in tables: their names, or letters where one would not fit.
fn labels(trial: &Trial) -> Vec<String> {
    const LONGEST: usize = 32;
    let names = names(trial);
    let letter = |at: usize| match u8::try_from(at) {
        Ok(at @ 0..26) => char::from(b'A' + at).to_string(),
        _ => format!("#{}", at + 1),
    };
    match names.iter().all(|name| name.chars().count() <= LONGEST) {
        true => names,
        false => (0..names.len()).map(letter).collect(),
    }
}

fn names(trial: &Trial) -> Vec<String> {
    trial
        .variants()
        .iter()
        .map(|runs| runs.name.clone())
        .collect()
}

/// What speaks against the verdicts, or what they still need.
fn doubts(trial: &Trial, labels: &[String], judged: &[Judged]) -> Vec<String> {
    let mut doubts = Vec::new();
    for (runs, label) in trial.variants().iter().zip(labels) {
        if runs.failures > 0 {
            doubts.push(format!("{label}: {} runs failed", runs.failures));
        }
        let of_runs = runs.warnings.iter();
        doubts.extend(of_runs.map(|(Warning(warning), count)| {
            format!("{label}: {warning} ({count} of {} runs)", runs.runs)
        }));
    }
    for one in judged.iter().filter(|one| one.is_chosen) {
        for (judgement, label) in one.variants.iter().zip(&labels[1..]) {
            let Some(judgement) = judgement else {
                let cells = trial.cells(&one.unit);
                let why = cells.iter().find_map(|cell| cell.why_absent());
                let why = why.unwrap_or("there is no such figure");
                doubts.push(format!(
                    "{label}: {} could not be compared: {why}",
                    one.unit
                ));
                continue;
            };
            let about = judgement
                .doubts
                .iter()
                .cloned()
                .chain(needs(&one.unit, judgement));
            doubts.extend(about.map(|doubt| format!("{label}, {}: {doubt}", one.unit)));
        }
        for (label, cell) in labels.iter().zip(trial.cells(&one.unit)) {
            let marks = compare::marks(cell).into_iter();
            doubts.extend(marks.map(|mark| format!("{label}, {}: {mark}", one.unit)));
        }
    }
    doubts
}

/// What a decision would take.
pub fn needs(unit: &Unit, judgement: &Judgement) -> Option<String> {
    let forecast = judgement.forecast.as_ref()?;
    let scale = judgement.comparison.scale;
    let pairs = forecast.pairs();
    Some(if pairs <= forecast.most {
        format!("a decision takes about {pairs} pairs")
    } else if forecast.if_unchanged <= forecast.most {
        let had = forecast.had;
        format!(
            "open after {had} pairs, so near is the change to the margin: about {pairs} would decide"
        )
    } else {
        format!(
            "hopeless at this noise: {} pairs tell changes from ±{} on; hold the machine still, or widen --margin",
            forecast.most,
            amount(unit, scale, forecast.margin).trim_start_matches('+')
        )
    })
}

/// The tables of the chosen units as markdown.
pub fn markdown(trial: &Trial, judged: &[Judged]) -> String {
    let mut out = String::new();
    for one in judged.iter().filter(|one| one.is_chosen) {
        let _ = writeln!(
            out,
            "| {} | median | change | interval | verdict | |\n|---|--:|--:|---|---|---|",
            one.unit
        );
        for (at, runs) in trial.variants().iter().enumerate() {
            let figures = trial.cells(&one.unit).get(at);
            let figures = figures.map_or(&[][..], |cell| cell.figures());
            let judgement = at.checked_sub(1).and_then(|at| one.variants[at].as_ref());
            let rest = match judgement {
                Some(judgement) => format!(
                    "{} | {} | **{}** | {}",
                    change(&one.unit, &judgement.comparison),
                    interval(&one.unit, &judgement.comparison),
                    word(judgement.verdict),
                    judgement.basis()
                ),
                None if at == 0 => " | | control | ".to_owned(),
                None => " | | not compared | ".to_owned(),
            };
            let name = runs.name.replace('|', "\\|");
            let _ = writeln!(
                out,
                "| `{name}` | {} | {rest} |",
                middle(&one.unit, figures)
            );
        }
        out.push('\n');
    }
    let names = names(trial);
    for doubt in doubts(trial, &names, judged) {
        let _ = writeln!(out, "- {doubt}");
    }
    out
}

/// One verdict as JSON; changes are shares of the old figure, or in the unit where `scale` says
/// so.
pub fn json(trial: &Trial, one: &Judged, at: usize) -> Value {
    let (control, variant) = (&trial.variants()[0].name, &trial.variants()[at + 1].name);
    let Some(judgement) = &one.variants[at] else {
        return json!({
            "unit": one.unit.as_str(), "control": control, "variant": variant, "verdict": null,
        });
    };
    let mut value = judged(&one.unit, judgement);
    value["control"] = json!(control);
    value["variant"] = json!(variant);
    value["chosen"] = json!(one.is_chosen);
    value["needs"] = json!(needs(&one.unit, judgement));
    value
}

/// What was judged of two cells, whoever they are.
pub(super) fn judged(unit: &Unit, judgement: &Judgement) -> Value {
    let comparison = &judgement.comparison;
    json!({
        "unit": unit.as_str(),
        "verdict": word(judgement.verdict),
        "scale": scale_word(comparison.scale),
        "change": comparison.estimate,
        "interval": comparison.interval.map(|i| [i.low, i.high]),
        "confidence": comparison.interval.map(|i| i.confidence),
        "margin": comparison.margin,
        "p": comparison.p,
        "basis": judgement.basis(),
        "counts": comparison.counts,
        "doubts": judgement.doubts,
    })
}

/// The word for what a change is measured in.
pub(super) fn scale_word(scale: Scale) -> &'static str {
    match scale {
        Scale::Ratio => "share",
        Scale::Difference => "difference",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_drawn_on_one_range() {
        assert_eq!(histogram(&[], 0.0, 1.0), " ".repeat(DRAWN));
        assert_eq!(histogram(&[0.0, 0.0, 1.0], 0.0, 1.0), "█              ▄");
        assert_eq!(histogram(&[3.0], 3.0, 3.0), "        █       ");
    }
}
