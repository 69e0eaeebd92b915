//! The page faults of a run on one screen: by kind, by mapping, by call site, over time. Never sums anything up but what is left out.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::text::{Style, sparkline};
use crate::probe::Rung;
use crate::run::faults::profile::{Sum, Timeline};
use crate::sample::{Cause, Figure, Sample};
use crate::unit::{Dimension, Scale, Unit, human};

/// What stands beside the samples.
pub struct Aside<'a> {
    /// In which way faults were seen.
    pub rung: Rung,
    /// Whether the processor's reason for each was.
    pub sees_reasons: bool,
    /// Why there was no better way.
    pub why: Option<&'a Cause>,
    /// Faults over time, and when that ended.
    pub timeline: Option<(&'a Timeline, u64)>,
}

/// The samples of one run.
pub fn screen(samples: &[Sample], aside: &Aside<'_>, style: Style) -> String {
    let mut text = String::new();
    let Some(whole) = samples.first() else {
        return text;
    };
    text.push_str(&headline(whole, aside));
    let of = |base: &str| -> Vec<&Sample> {
        let own = samples
            .iter()
            .filter(|sample| sample.benchmark.base() == base);
        own.collect()
    };
    for (base, title, most) in [
        ("FaultKind", "kind", usize::MAX),
        ("FaultMapping", "mapping", 12),
    ] {
        text.push_str(&table(title, &of(base), most, style.width));
    }
    text.push_str(&sites(&of("FaultSite"), style.width));
    text.push_str(&populated(&of("Populate")));
    if let Some((timeline, end_ns)) = aside.timeline {
        text.push_str(&over_time(timeline, end_ns, style.width));
    }
    let rest = priced(whole, &of("FaultKind")) + &notes(whole, aside);
    rest.lines()
        .for_each(|line| wrap(&mut text, line, style.width));
    text
}

/// Several runs side by side, one a column: by kind and by mapping, how many faults and how long in
/// their handlers.
pub fn side_by_side(runs: &[(String, Vec<Sample>)], aside: &Aside<'_>, style: Style) -> String {
    /// So many mappings are told, those that took longest.
    const MOST: usize = 10;
    let way = way(aside.rung);
    let mut text = format!("where the faults come from: one more run of each, seen by {way}\n");
    for (base, title, most) in [
        ("FaultKind", "kind", usize::MAX),
        ("FaultMapping", "mapping", MOST),
    ] {
        let mut rows: Vec<(String, Vec<Option<[f64; 2]>>)> = Vec::new();
        for (run, (_, samples)) in runs.iter().enumerate() {
            let own = samples
                .iter()
                .filter(|sample| sample.benchmark.base() == base);
            for sample in own {
                let mode = match parameter(sample, "mode").as_str() {
                    "kernel" => " (kernel)",
                    _ => "",
                };
                let name = format!("{}{mode}", cut(&parameter(sample, title), LONGEST));
                let row = rows.iter().position(|(known, _)| *known == name);
                let row = row.unwrap_or_else(|| {
                    rows.push((name, vec![None; runs.len()]));
                    rows.len() - 1
                });
                let figure = |unit| number(sample, unit).unwrap_or(0.0);
                rows[row].1[run] = Some([figure("faults"), figure("handler-sec")]);
            }
        }
        let weight = |cells: &[Option<[f64; 2]>]| -> f64 {
            cells.iter().flatten().map(|[_, sec]| sec).sum()
        };
        rows.sort_by(|a, b| weight(&b.1).total_cmp(&weight(&a.1)));
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let head = runs.iter().map(|(value, _)| right(value.clone()));
        table.set_header(std::iter::once(Cell::new(title)).chain(head));
        for (name, cells) in rows.iter().take(most) {
            let cell = |cell: &Option<[f64; 2]>| {
                right(cell.map_or("—".to_owned(), |[faults, sec]| {
                    let time = human(&Unit::named("sec"), sec);
                    format!("{} {time:>8}", human(&Unit::named("faults"), faults))
                }))
            };
            table.add_row(std::iter::once(Cell::new(name)).chain(cells.iter().map(cell)));
        }
        for line in table.lines() {
            let line = console::truncate_str(line.trim_end(), style.width, "…").into_owned();
            let _ = writeln!(text, " {line}");
        }
        if let Some(more @ 1..) = rows.len().checked_sub(most) {
            let _ = writeln!(text, "  and {more} more");
        }
    }
    for (value, samples) in runs {
        let Some(whole) = samples.first() else {
            continue;
        };
        for warning in &whole.warnings {
            let _ = writeln!(text, "! {value}: {}", warning.0);
        }
    }
    if let Some(why) = aside.why {
        wrap(
            &mut text,
            &format!("! why not by programs: {why}"),
            style.width,
        );
    }
    text
}

/// Appends `line`, broken between words where it is too long; what follows stands under its first word.
fn wrap(text: &mut String, line: &str, width: usize) {
    let indent = line.len() - line.trim_start().len();
    let mut written = 0;
    for (at, word) in line.split_whitespace().enumerate() {
        let room = word.chars().count();
        if at > 0 && written + 1 + room <= width {
            text.push(' ');
            written += 1;
        } else {
            if at > 0 {
                text.push('\n');
            }
            text.push_str(&" ".repeat(indent));
            written = indent;
        }
        text.push_str(word);
        written += room;
    }
    text.push('\n');
}

/// What the faults cost by the price of one on fresh memory, and where their handlers say otherwise.
fn priced(whole: &Sample, kinds: &[&Sample]) -> String {
    /// Exception entry and exit lie outside the handler: so much less is no disagreement.
    const OUTSIDE: f64 = 0.25;
    let value = |unit| number(whole, unit);
    let (Some(sec), Some(low), Some(high)) = (
        value("priced-sec"),
        value("priced-low-sec"),
        value("priced-high-sec"),
    ) else {
        return String::new();
    };
    let write = |sec| human(&Unit::named("sec"), sec);
    let handled = value("handler-sec").unwrap_or(0.0) - value("waiting-sec").unwrap_or(0.0);
    let mut text = format!(
        "\n  at the price of a fault on fresh memory: {} ({} … {})",
        write(sec),
        write(low),
        write(high),
    );
    if let Some(share) = value("priced-CPU-share") {
        let _ = write!(text, ", {} of the CPU time", percent(share));
    }
    let _ = write!(text, "\n  by handler time: {}", write(handled));
    if (low * (1.0 - OUTSIDE)..=high).contains(&handled) {
        text.push_str("; the two agree, for entering and leaving the kernel is no part of it\n");
        return text;
    }
    let faults: f64 = kinds.iter().filter_map(|kind| number(kind, "faults")).sum();
    let price = sec / faults.max(1.0);
    let mut apart: Vec<(f64, String)> = Vec::new();
    for kind in kinds {
        let (Some(mean), Some(faults)) = (number(kind, "sec/op"), number(kind, "faults")) else {
            continue;
        };
        let word = parameter(kind, "kind");
        if word != "major" {
            let told = format!("{} for {word} ({})", write(mean), parameter(kind, "mode"));
            apart.push((((mean - price) * faults).abs(), told));
        }
    }
    apart.sort_by(|a, b| b.0.total_cmp(&a.0));
    let most: Vec<String> = apart.into_iter().take(3).map(|(_, told)| told).collect();
    let _ = writeln!(
        text,
        "; the two disagree: where the price of one is {}, the mean of the handlers was {}",
        write(price),
        most.join(", ")
    );
    text
}

fn headline(whole: &Sample, aside: &Aside<'_>) -> String {
    let faults = number(whole, "faults").unwrap_or(0.0);
    let seconds = |unit| number(whole, unit).map(|sec| human(&Unit::named("sec"), sec));
    let mut text = format!(
        "{} page faults in {}, {} in their handlers",
        grouped(faults),
        seconds("sec/op").unwrap_or_default(),
        seconds("handler-sec").unwrap_or_default(),
    );
    if let Some(waiting) =
        seconds("waiting-sec").filter(|_| number(whole, "waiting-sec") > Some(0.0))
    {
        let _ = write!(text, " ({waiting} of it waiting for devices)");
    }
    if let (Some(share), Some(cpu)) = (number(whole, "CPU-share"), seconds("task-clock-sec/op")) {
        let _ = write!(text, ": {} of {cpu} of CPU time", percent(share));
    }
    let _ = writeln!(text, "\nseen by {}", way(aside.rung));
    text
}

fn way(rung: Rung) -> &'static str {
    match rung {
        Rung::Programs => "programs in the kernel",
        _ => "software events, in user mode only",
    }
}

/// A line a sample, the columns that the width has room for.
fn table(title: &str, samples: &[&Sample], most: usize, width: usize) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let shown = &samples[..samples.len().min(most)];
    let mut columns: Vec<(&str, Vec<String>)> = vec![(title, Vec::new())];
    let name = |sample: &&Sample| cut(&parameter(sample, title), LONGEST);
    columns[0].1.extend(shown.iter().map(name));
    if title == "kind" {
        let modes = shown.iter().map(|sample| parameter(sample, "mode"));
        columns.push(("mode", modes.collect()));
    }
    let of = |write: &dyn Fn(&Sample) -> String| shown.iter().map(|sample| write(sample)).collect();
    let count = |sample: &Sample| grouped(number(sample, "faults").unwrap_or(0.0));
    columns.push(("faults", of(&count)));
    let time = |unit: &'static str| {
        move |sample: &Sample| {
            let sec = number(sample, unit);
            sec.map_or("-".to_owned(), |sec| human(&Unit::named("sec"), sec))
        }
    };
    columns.push(("time", of(&time("handler-sec"))));
    let share = |sample: &Sample| number(sample, "CPU-share").map_or("-".to_owned(), percent);
    columns.push(("of CPU", of(&share)));
    for (name, unit) in [
        ("mean", "sec/op"),
        ("p50", "p50-sec"),
        ("p99", "p99-sec"),
        ("max", "max-sec"),
    ] {
        columns.push((name, of(&time(unit))));
    }
    let words = columns.iter().filter(|(name, _)| is_word(name)).count();
    let mut text = String::from("\n");
    for line in 0..=shown.len() {
        let mut written = String::new();
        for (at, (name, cells)) in columns.iter().enumerate() {
            let widest = cells
                .iter()
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0);
            let room = widest.max(name.len());
            let cell = match line {
                0 => name,
                line => cells[line - 1].as_str(),
            };
            if at >= words + 2 && written.chars().count() + 2 + room > width {
                break;
            }
            let _ = match is_word(name) {
                true => write!(written, "  {cell:<room$}"),
                false => write!(written, "  {cell:>room$}"),
            };
        }
        let _ = writeln!(text, "{}", written.trim_end());
    }
    let rest = &samples[shown.len()..];
    if !rest.is_empty() {
        let sum = |unit| rest.iter().filter_map(|sample| number(sample, unit)).sum();
        let (faults, sec): (f64, f64) = (sum("faults"), sum("handler-sec"));
        let _ = writeln!(
            text,
            "  and {} more: {} faults, {}",
            rest.len(),
            grouped(faults),
            human(&Unit::named("sec"), sec)
        );
    }
    text
}

/// Longer names of mappings are cut.
const LONGEST: usize = 32;

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

fn is_word(column: &str) -> bool {
    matches!(column, "kind" | "mode" | "mapping")
}

/// The call sites, each with as many of its callers as a line has room for.
fn sites(samples: &[&Sample], width: usize) -> String {
    const MOST: usize = 15;
    let mut text = String::new();
    for sample in samples.iter().take(MOST) {
        if text.is_empty() {
            text.push_str("\n    faults        time  call site ← callers\n");
        }
        let faults = grouped(number(sample, "faults").unwrap_or(0.0));
        let sec = number(sample, "handler-sec").unwrap_or(0.0);
        let time = human(&Unit::named("sec"), sec);
        let site = parameter(sample, "site").replace('<', " ← ");
        let line = format!("  {faults:>8}  {time:>10}  {site}");
        let _ = writeln!(text, "{}", cut(&line, width.max(40)));
    }
    if let Some(more @ 1..) = samples.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

fn populated(samples: &[&Sample]) -> String {
    let mut text = String::new();
    for sample in samples {
        if text.is_empty() {
            text.push_str(
                "\n  pages made without faults, by mmap(MAP_POPULATE), madvise and mlock\n",
            );
        }
        let value = |unit| number(sample, unit).unwrap_or(0.0);
        let _ = writeln!(
            text,
            "  {}: {} calls made {} pages in {}, {} each",
            parameter(sample, "mapping"),
            grouped(value("calls")),
            grouped(value("pages")),
            human(&Unit::named("sec"), value("call-sec")),
            human(&Unit::named("sec"), value("sec/op")),
        );
    }
    text
}

fn over_time(timeline: &Timeline, end_ns: u64, width: usize) -> String {
    let room = width.saturating_sub(12).clamp(10, 60);
    let (parts, each_ns) = timeline.parts(end_ns, room);
    let each_sec = each_ns as f64 / 1e9;
    let drawn = |of: fn(&Sum) -> f64| {
        let series: Vec<f64> = parts.iter().map(of).collect();
        sparkline(&series, room)
    };
    let each = Scale::for_figure(Dimension::Seconds, each_sec).write(each_sec);
    let most = parts.iter().map(|part| part.faults).max().unwrap_or(0);
    let busiest = parts.iter().map(|part| part.handler_ns).max().unwrap_or(0) as f64 / 1e9;
    let busiest = human(&Unit::named("sec"), busiest);
    format!(
        "\n  over time, {each} a bar: up to {} faults and {busiest} in their handlers\n  faults  {}\n  time    {}\n",
        grouped(most as f64),
        drawn(|part| part.faults as f64),
        drawn(|part| part.handler_ns as f64),
    )
}

/// What is not seen, and what would show it.
fn notes(whole: &Sample, aside: &Aside<'_>) -> String {
    let mut notes: Vec<String> = Vec::new();
    if aside.rung != Rung::Programs {
        notes.push(
            "kinds, faults in the kernel's own accesses and pages made by mmap are not seen; times hold what writing a record costs"
                .to_owned(),
        );
        notes.extend(
            aside
                .why
                .map(|cause| format!("why not by programs: {cause}")),
        );
    } else if !aside.sees_reasons {
        notes.push(
            "this kernel has no tracepoint at the exception, so that zero-filled and copied pages are not told apart"
                .to_owned(),
        );
    }
    if let Some(unseen @ 1.0..) = number(whole, "unseen-faults") {
        let unseen = grouped(unseen);
        notes.push(match aside.rung {
            Rung::Programs => format!("{unseen} more faults were counted and not seen one by one: of the exec, and of what began before"),
            _ => format!("{unseen} more faults were counted and not seen one by one"),
        });
    }
    notes.extend(
        whole
            .warnings
            .iter()
            .map(|warning| format!("warning: {}", warning.0)),
    );
    let mut text = String::new();
    for note in notes {
        let _ = writeln!(text, "{}{note}", if text.is_empty() { "\n" } else { "" });
    }
    text
}

fn number(sample: &Sample, unit: &str) -> Option<f64> {
    sample.figure(unit).and_then(Figure::number)
}

fn parameter(sample: &Sample, key: &str) -> String {
    let parameters = sample.benchmark.parameters();
    let found = parameters.iter().find(|(known, _)| known == key);
    found.map_or(String::new(), |(_, value)| value.clone())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `32,768`
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let check = |line: &str, want: &str| {
            let mut text = String::new();
            wrap(&mut text, line, 12);
            assert_eq!(text, want);
        };
        check("", "\n");
        check("  one two three", "  one two\n  three\n");
        check("one two six", "one two six\n");
        check("averyveryverylong word", "averyveryverylong\nword\n");
    }

    #[test]
    fn names_and_numbers_are_written_to_be_read() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        let check = |count, want: &str| assert_eq!(grouped(count), want);
        check(0.0, "0");
        check(999.0, "999");
        check(1000.0, "1,000");
        check(1_234_567.0, "1,234,567");
    }
}
