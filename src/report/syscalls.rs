//! Profiles of syscalls as tables for people, from their records. Never measures, never prints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::latency;
use super::text::Style;
use crate::probe::profile::{By, Histogram, Part};
use crate::run::syscalls::{EACH, Slowest, WHOLE, errno_name};
use crate::sample::{Figure, Name, Sample};
use crate::unit::{Dimension, Scale, Unit, human};

/// A column: its unit, its heading, and how early it goes where there is no room, 0 being never.
struct Column<'a> {
    unit: &'a str,
    heading: &'a str,
    spare: u8,
}

/// The columns beside the share and the name.
const COLUMNS: [Column<'_>; 11] = [
    column("total-sec", "total", 0),
    column("calls", "calls", 0),
    column("errors", "errors", 0),
    column("sec/op", "mean", 1),
    column("p50-sec", "p50", 3),
    column("p90-sec", "p90", 6),
    column("p99-sec", "p99", 4),
    column("p99.9-sec", "p99.9", 7),
    column("max-sec", "max", 2),
    column("off-CPU-sec", "off CPU", 5),
    column("bytes/op", "bytes/op", 8),
];

const fn column<'a>(unit: &'a str, heading: &'a str, spare: u8) -> Column<'a> {
    Column {
        unit,
        heading,
        spare,
    }
}

/// What stands between two columns.
const GAP: usize = 2;

/// The whole profile: what it is of, the table or those of its parts, and what it cost; `subject`
/// in the user's words.
pub fn profile(samples: &[Sample], parts: &[Part], subject: &str, style: Style) -> String {
    let whole = whole(samples);
    let mut text = String::new();
    if let Some(whole) = whole {
        let _ = writeln!(
            text,
            "{subject}: {}",
            summary(whole, calls(samples).count())
        );
    }
    if parts.is_empty() {
        let rows: Vec<(&str, &Sample)> = calls(samples).collect();
        text.push_str(&table(&rows, wall(whole), style));
    }
    text.push_str(&by_part(samples, parts, wall(whole), style));
    if let Some(whole) = whole {
        text.push_str(&notes(samples, whole));
    }
    text
}

/// One interval, as a line while the rest still runs: how many calls, and the dearest of them.
pub fn interval(samples: &[Sample], end: Duration) -> String {
    const DEAREST: usize = 4;
    let total = |unit| {
        calls(samples)
            .filter_map(|(_, sample)| number(sample, unit))
            .sum::<f64>()
    };
    let mut line = format!(
        "{:>9.3} s  {:>9.0} calls",
        end.as_secs_f64(),
        total("calls")
    );
    for (name, sample) in calls(samples).take(DEAREST) {
        let count = number(sample, "calls").unwrap_or(0.0);
        let _ = match number(sample, "total-sec") {
            Some(sec) => write!(
                line,
                "  {name} {count} ({})",
                human(&Unit::named("sec"), sec)
            ),
            None => write!(line, "  {name} {count}"),
        };
    }
    line + "\n"
}

/// The errors, most frequent first, with the calls that met them.
pub fn errors(samples: &[Sample]) -> String {
    let mut by_errno: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for (name, sample) in calls(samples) {
        for value in &sample.values {
            if let Some(errno) = value.unit.as_str().strip_prefix("errors:") {
                let count = value.figure.number().unwrap_or(0.0) as u64;
                by_errno.entry(errno).or_default().push((count, name));
            }
        }
    }
    let total = |of: &[(u64, &str)]| of.iter().map(|(count, _)| count).sum::<u64>();
    let mut lines: Vec<_> = by_errno.into_iter().collect();
    lines.sort_by_key(|(_, of)| std::cmp::Reverse(total(of)));
    let mut text = String::new();
    for (errno, mut of) in lines {
        of.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let total = total(&of);
        let of: Vec<String> = of
            .into_iter()
            .map(|(count, name)| format!("{name} {count}"))
            .collect();
        let _ = writeln!(text, "  {total:>9}  {errno}: {}", of.join(", "));
    }
    match text.is_empty() {
        true => "  no call failed\n".to_owned(),
        false => text,
    }
}

/// The slowest single calls, with what they were given and what they returned, and who called them.
pub fn slowest(slowest: &Slowest) -> String {
    let mut text = String::new();
    for (call, callers) in &slowest.calls {
        let took_sec = call.took_ns as f64 / 1e9;
        let took = Scale::for_figure(Dimension::Seconds, took_sec).write(took_sec);
        let arguments: Vec<String> = call.arguments.iter().map(|word| short(*word)).collect();
        let result = match u16::try_from(-call.result) {
            Ok(errno @ 1..) => errno_name(errno),
            _ => short(call.result as u64),
        };
        let _ = writeln!(
            text,
            "  {took:>9}  {}({}) = {result}  {}/{}",
            call.number.name(),
            arguments.join(", "),
            call.command,
            call.tid
        );
        for caller in callers {
            let _ = writeln!(text, "             ← {caller}");
        }
    }
    match slowest.all.saturating_sub(slowest.calls.len()) {
        _ if slowest.all == 0 => return "  no call was that slow\n".to_owned(),
        0 => {}
        more => {
            let _ = writeln!(text, "  and {more} more that were as slow");
        }
    }
    text + "  callers are found by frame pointers: a function that keeps none hides its caller\n"
}

/// A register: small numbers as such, negative ones too, and addresses.
fn short(word: u64) -> String {
    match word as i64 {
        small @ -4096..=0xf_ffff => small.to_string(),
        _ => format!("{word:#x}"),
    }
}

/// How long the calls of one syscall took, drawn: a bar half an octave.
pub fn histogram(name: &str, histogram: &Histogram, style: Style) -> String {
    const BUCKETS: usize = 4;
    /// What a line has beside its bar.
    const REST: usize = 24;
    let mut bars: Vec<(f64, u64)> = histogram
        .0
        .chunks(BUCKETS)
        .zip((0..).step_by(BUCKETS))
        .map(|(counts, first)| (Histogram::bounds_ns(first).0, counts.iter().sum()))
        .collect();
    let seen = |(_, count): &(f64, u64)| *count > 0;
    bars.truncate(bars.iter().rposition(seen).map_or(0, |last| last + 1));
    bars.drain(..bars.iter().position(seen).unwrap_or(0));
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let width = style.width.saturating_sub(REST).clamp(8, 50);
    let mut text = format!("{name}: how long its {} calls took\n", histogram.count());
    for (from_ns, count) in bars {
        text.push_str(&latency::line(from_ns, count, most, width));
    }
    text
}

fn whole(samples: &[Sample]) -> Option<&Sample> {
    let mut samples = samples.iter();
    samples.find(|sample| sample.benchmark.base() == WHOLE)
}

fn wall(whole: Option<&Sample>) -> Option<f64> {
    whole.and_then(|whole| number(whole, "sec/op"))
}

/// The samples that are about one syscall each, with its name.
fn calls(samples: &[Sample]) -> impl Iterator<Item = (&str, &Sample)> {
    let named = samples.iter().filter(|sample| part(sample).is_none());
    named.filter_map(|sample| Some((syscall(sample)?, sample)))
}

fn syscall(sample: &Sample) -> Option<&str> {
    let (_, name) = sample.benchmark.parameters().first()?;
    (sample.benchmark.base() == EACH).then_some(name)
}

/// Of which part a sample is: of what kind, and its name.
fn part(sample: &Sample) -> Option<&(String, String)> {
    let mut parameters = sample.benchmark.parameters().iter();
    parameters.find(|(key, _)| By::ALL.iter().any(|by| by.word() == key))
}

/// The syscalls of a part, by their names.
type Rows<'a> = Vec<(&'a str, &'a Sample)>;

/// A table a part, the dearest first, each process before its threads where it has several.
fn by_part(samples: &[Sample], parts: &[Part], wall: Option<f64>, style: Style) -> String {
    const PARTS: usize = 12;
    const THREADS: usize = 4;
    let mut rows: BTreeMap<(String, String), Rows<'_>> = BTreeMap::new();
    for sample in samples {
        if let (Some(part), Some(name)) = (part(sample), syscall(sample)) {
            rows.entry(part.clone()).or_default().push((name, sample));
        }
    }
    let mut parts: Vec<(&Part, Rows<'_>)> = parts
        .iter()
        .filter_map(|part| {
            // As it stands in the samples.
            let name = Name::new(EACH).with(part.by.word(), &part.name);
            Some((part, rows.remove(name.parameters().first()?)?))
        })
        .collect();
    let weight = |rows: &Rows<'_>| (sum(rows, "total-sec"), sum(rows, "calls"));
    parts.sort_by(|(_, a), (_, b)| {
        let (a, b) = (weight(a), weight(b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    let mut threads: BTreeMap<usize, Vec<(&Part, Rows<'_>)>> = BTreeMap::new();
    let mut heads = Vec::new();
    for (part, rows) in parts {
        match part.process {
            Some(process) => threads.entry(process).or_default().push((part, rows)),
            None => heads.push((part, rows)),
        }
    }
    let more = |rest: &[(&Part, Rows<'_>)], what: &str| {
        let rows: Rows<'_> = rest.iter().flat_map(|(_, rows)| rows.clone()).collect();
        format!("\nand {} {what}: {}\n", rest.len(), total(&rows))
    };
    let mut text = String::new();
    for (part, rows) in heads.iter().take(PARTS) {
        text.push_str(&of_part(part, rows, wall, style));
        let Some(threads @ [_, _, ..]) = threads.get(&part.place).map(Vec::as_slice) else {
            continue;
        };
        for (part, rows) in threads.iter().take(THREADS) {
            text.push_str(&of_part(part, rows, wall, style));
        }
        if let Some(rest @ [_, ..]) = threads.get(THREADS..) {
            text.push_str(&more(rest, "threads more"));
        }
    }
    if let Some(rest @ [_, ..]) = heads.get(PARTS..) {
        text.push_str(&more(rest, "more"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn of_part(part: &Part, rows: &[(&str, &Sample)], wall: Option<f64>, style: Style) -> String {
    const ROWS: usize = 10;
    let id = part.id.map_or(String::new(), |id| format!(" ({id})"));
    let (word, name) = (part.by.word(), &part.name);
    let mut text = format!("\n{word} {name}{id}: {}\n", total(rows));
    text.push_str(&table(&rows[..rows.len().min(ROWS)], wall, style));
    if let Some(rest @ [_, ..]) = rows.get(ROWS..) {
        let _ = writeln!(text, "  and {} syscalls more: {}", rest.len(), total(rest));
    }
    text
}

fn sum(rows: &[(&str, &Sample)], unit: &str) -> f64 {
    let numbers = rows.iter().filter_map(|(_, sample)| number(sample, unit));
    numbers.sum()
}

/// How many calls these are, and how long they took.
fn total(rows: &[(&str, &Sample)]) -> String {
    let calls = sum(rows, "calls");
    let sec = sum(rows, "total-sec");
    let mut text = format!("{calls:.0} {}", if calls == 1.0 { "call" } else { "calls" });
    if sec > 0.0 {
        let _ = write!(text, ", {} in them", human(&Unit::named("sec"), sec));
    }
    text
}

fn number(sample: &Sample, unit: &str) -> Option<f64> {
    sample.figure(unit)?.number()
}

fn summary(whole: &Sample, kinds: usize) -> String {
    let number = |unit| number(whole, unit);
    let seconds = |sec| human(&Unit::named("sec"), sec);
    let wall = number("sec/op").unwrap_or(0.0);
    let calls = number("calls").unwrap_or(0.0);
    let mut text = format!("{}, {calls:.0} calls of {kinds} syscalls", seconds(wall));
    if let (Some(low), Some(high)) = (number("calls-low"), number("calls-high")) {
        let _ = write!(text, " (95 % interval {low:.0} … {high:.0})");
    }
    if let Some(threads) = number("threads") {
        let noun = if threads == 1.0 { "thread" } else { "threads" };
        let _ = write!(text, " in {threads} {noun}");
    }
    if let Some(failed) = number("errors").filter(|failed| *failed > 0.0) {
        let _ = write!(text, ", {failed:.0} failed");
    }
    if let Some(total) = number("total-sec") {
        let _ = write!(text, "; {} in them", seconds(total));
        if let Some(off) = number("off-CPU-sec").filter(|off| *off > 0.0) {
            let _ = write!(text, ", of which {} off the CPU", seconds(off));
        }
    }
    text
}

fn table(calls: &[(&str, &Sample)], wall: Option<f64>, style: Style) -> String {
    let mut rows: Vec<(usize, Vec<String>)> = Vec::new();
    let used = |column: &Column<'_>| {
        let mut calls = calls.iter();
        calls.any(|(_, sample)| number(sample, column.unit).is_some())
    };
    let columns = COLUMNS.into_iter().filter(used);
    let columns: Vec<Column<'_>> = columns.chain(counted(calls)).collect();
    let is_timed = columns.iter().any(|column| column.unit == "total-sec");
    let mut heading: Vec<String> = columns.iter().map(|c| c.heading.to_owned()).collect();
    if is_timed {
        heading.insert(0, "of wall".to_owned());
    }
    heading.push("syscall".to_owned());
    rows.push((usize::MAX, heading));
    for (name, sample) in calls {
        let mut cells: Vec<String> = columns
            .iter()
            .map(|column| cell(column.unit, sample))
            .collect();
        if is_timed {
            let share = number(sample, "total-sec").zip(wall);
            let share = share.filter(|(_, wall)| *wall > 0.0);
            cells.insert(
                0,
                share.map_or(String::new(), |(total, wall)| {
                    format!("{:.2} %", total / wall * 100.0)
                }),
            );
        }
        cells.push((*name).to_owned());
        rows.push((0, cells));
    }
    let width_of = |n: usize| {
        let cells = rows.iter().filter_map(|(_, cells)| cells.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let first = usize::from(is_timed);
    let last = columns.len() + first;
    let mut kept: Vec<usize> = (0..=last).collect();
    let room = |kept: &[usize]| kept.iter().map(|n| width_of(*n) + GAP).sum::<usize>();
    while room(&kept) > style.width.max(1) {
        // What can be spared most goes first.
        let spare = |n: &&usize| match n.checked_sub(first).and_then(|n| columns.get(n)) {
            Some(column) => column.spare,
            None => 0,
        };
        match kept.iter().max_by_key(spare).copied() {
            Some(n) if spare(&&n) > 0 => kept.retain(|kept| *kept != n),
            _ => break,
        }
    }
    let mut text = String::new();
    for (_, cells) in &rows {
        let mut line = String::new();
        for &n in &kept {
            let width = width_of(n);
            let cell = cells.get(n).map_or("", String::as_str);
            let _ = match n == last {
                true => write!(line, "  {cell}"),
                false => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The columns of what was counted in calls.
fn counted<'a>(calls: &[(&str, &'a Sample)]) -> Vec<Column<'a>> {
    let first = calls.iter().map(|(_, sample)| &sample.values);
    let values = first.max_by_key(|values| values.len());
    let units: Vec<&str> = values
        .into_iter()
        .flatten()
        .map(|value| value.unit.as_str())
        .collect();
    let is_counted = |name: &str| units.contains(&format!("total-{name}").as_str());
    let columns = units
        .iter()
        .filter_map(|&unit| match unit.strip_suffix("/op") {
            Some(name) if is_counted(name) && name != "sec" => Some(column(unit, unit, 0)),
            _ => unit.starts_with("IPC").then(|| column(unit, unit, 0)),
        });
    columns.collect()
}

fn cell(unit: &str, sample: &Sample) -> String {
    let Some(figure) = sample.figure(unit) else {
        return String::new();
    };
    match (unit, figure.number()) {
        (_, None) => "-".to_owned(),
        ("errors", Some(0.0)) => String::new(),
        ("calls" | "errors", Some(count)) => format!("{count:.0}"),
        ("off-CPU-sec", Some(0.0)) => String::new(),
        (unit, Some(number)) => {
            let text = human(&Unit::named(unit), number);
            match sample.figure(unit) {
                Some(Figure::Scaled { .. }) => format!("~{text}"),
                _ => text,
            }
        }
    }
}

/// What is to be known of the figures.
fn notes(samples: &[Sample], whole: &Sample) -> String {
    let mut text = String::new();
    let unfinished: Vec<String> = calls(samples)
        .filter_map(|(name, sample)| {
            let count = number(sample, "unfinished-calls")?;
            Some(format!("{name} {count}"))
        })
        .collect();
    if !unfinished.is_empty() {
        let _ = writeln!(text, "  never returned: {}", unfinished.join(", "));
    }
    let rule = calls(samples).find_map(|(_, sample)| match sample.figure("p50-sec")? {
        Figure::Estimated { rule, .. } => Some(&rule.0),
        _ => None,
    });
    if let Some(rule) = rule {
        let _ = writeln!(
            text,
            "  percentiles are right {rule}; times are what the trace saw"
        );
    }
    let number = |unit| number(whole, unit);
    let seconds = |sec| human(&Unit::named("sec"), sec);
    if let (Some(untraced), Some(traced), Some(bystander)) = (
        number("null-untraced-sec"),
        number("null-traced-sec"),
        number("null-bystander-sec"),
    ) {
        let _ = write!(
            text,
            "  tare: a call that does nothing takes {}, traced {}",
            seconds(untraced),
            seconds(traced)
        );
        if let Some(recorded) = number("null-recorded-sec") {
            let _ = write!(text, " ({} by the trace)", seconds(recorded));
        }
        let _ = write!(text, ", of others meanwhile {}", seconds(bystander));
        if let Some(cost) = number("tracing-sec") {
            let _ = write!(text, "; tracing took about {} of this run", seconds(cost));
        }
        text.push('\n');
    }
    for warning in &whole.warnings {
        let _ = writeln!(text, "  warning: {}", warning.0);
    }
    text
}
