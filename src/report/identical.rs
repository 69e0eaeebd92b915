//! What is said of two compilers held against each other: as text, as JSON, and as records. Never compiles, never prints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::text::Style;
use crate::compare;
use crate::run::identical::{Compared, Listing, Outcome, Place, Row, Rule, SIDES, Verdict};
use crate::sample::{End, Failure, Figure, Header, Name, Order, Record, Sample, UnitMeta, Value};
use crate::unit::{Assume, Unit, human};

/// Everything that there is to say.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The old compiler and the new one.
    pub compilers: [Who; 2],
    /// Where what was compiled came from, and what else holds for all of it.
    pub notes: Vec<String>,
    /// The rules that could be applied.
    pub rules: &'a [Rule],
    /// What came of each input.
    pub results: &'a [Compared],
    /// Assembly of the first that differ, or why there is none; by their place in `results`.
    pub explained: Vec<(usize, Result<Option<Listing>, String>)>,
    /// How long it took.
    pub took: Duration,
}

/// One of the compilers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// What it calls itself.
    pub version: String,
    /// The file that was executed.
    pub program: String,
    /// Its hash.
    pub sha256: String,
    /// The name and the hash of the program that does its work, where that is another.
    pub proper: Option<(String, String)>,
    /// Its flags.
    pub flags: String,
}

/// Names that are told of symbols that differ.
const NAMED: usize = 3;

impl Report<'_> {
    /// The whole, for people. Inputs that are identical are counted and not listed.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        write_compilers(&mut text, &SIDES, &self.compilers, &self.notes);
        let told = |one: &&Compared| one.outcome != Outcome::Identical || one.log.is_some();
        let shown: Vec<&Compared> = self.results.iter().filter(told).collect();
        let longest = shown
            .iter()
            .map(|one| one.input.len())
            .max()
            .unwrap_or_default();
        for one in &shown {
            let _ = writeln!(text, "{:longest$}  {}", one.input, describe(&one.outcome));
            if let Some((line, old, new)) = &one.log {
                let _ = writeln!(
                    text,
                    "{:longest$}  line {line} of what they say: `{old}`, now `{new}`",
                    ""
                );
            }
        }
        if !shown.is_empty() {
            text.push('\n');
        }
        for (at, listing) in &self.explained {
            match listing {
                Ok(Some(listing)) => {
                    write_listing(&mut text, &self.results[*at], listing, style);
                }
                Ok(None) => {
                    let _ = writeln!(
                        text,
                        "{}: the assembly is the same",
                        self.results[*at].input
                    );
                }
                Err(why) => {
                    let _ = writeln!(text, "{}: {why}", self.results[*at].input);
                }
            }
            text.push('\n');
        }
        text + &self.summary()
    }

    /// The last lines: how many of which outcome, and the rules that were applied.
    fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for one in self.results {
            *counts.entry(word(&one.outcome)).or_default() += 1;
        }
        let order = [
            "identical",
            "differs",
            "refused",
            "nondeterministic",
            "failed",
            "stopped",
        ];
        let counted = order
            .iter()
            .filter_map(|word| Some(format!("{} {word}", counts.get(word)?)));
        let counted = counted.collect::<Vec<_>>().join(", ");
        let took = human(&Unit::named("sec"), self.took.as_secs_f64());
        let all = self.results.len();
        let inputs = if all == 1 { "input" } else { "inputs" };
        let mut text =
            format!("{all} {inputs}, each compiled twice by both in {took}: {counted}\n");
        let mut applied: BTreeMap<Rule, usize> = BTreeMap::new();
        for rule in self.results.iter().flat_map(|one| &one.rules) {
            *applied.entry(*rule).or_default() += 1;
        }
        match applied.is_empty() {
            true => text.push_str("no rule of normalisation was needed\n"),
            false => {
                for (rule, count) in applied {
                    let _ = writeln!(
                        text,
                        "rule {} was applied to {count}: {}",
                        rule.name(),
                        rule.about()
                    );
                }
            }
        }
        text
    }

    /// The whole, as one JSON document.
    pub fn json(&self) -> Json {
        json!({
            "schema": 1,
            "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
            "verdict": verdict_word(Verdict::of(self.results)),
            "old": self.compilers[0].json(),
            "new": self.compilers[1].json(),
            "notes": self.notes,
            "rules": self.rules.iter().map(|rule| rule.name()).collect::<Vec<_>>(),
            "seconds": self.took.as_secs_f64(),
            "inputs": self.results.iter().map(input_json).collect::<Vec<_>>(),
            "explained": self
                .explained
                .iter()
                .map(|(at, listing)| listing_json(&self.results[*at].input, listing))
                .collect::<Vec<_>>(),
        })
    }

    /// The whole as a stream of records: a sample for what each compiler made of each input, with
    /// the verdict in its settings, and a failure for what it could not compile.
    pub fn records(&self, header: Header) -> Vec<Record> {
        let mut records = vec![Record::Header(Header {
            machine: header.machine.into_iter().chain(self.facts()).collect(),
            ..header
        })];
        let bytes = Unit::named("object-bytes");
        records.push(Record::Unit(UnitMeta {
            better: bytes.better(),
            unit: bytes,
            assume: Assume::Exact,
        }));
        let mut end = End::default();
        for (round, one) in (0..).zip(self.results) {
            for (position, side) in (0..).zip(SIDES) {
                let order = Order {
                    sequence: end.samples + end.failures,
                    round,
                    position,
                };
                let benchmark = Name::new("Compile").with("input", &one.input);
                let side_at = position as usize;
                match (&one.made[side_at], failure(&one.outcome)) {
                    (Some(made), _) => {
                        end.samples += 1;
                        let rules: Vec<_> = one.rules.iter().map(|rule| rule.name()).collect();
                        let outcome = word(&one.outcome).to_owned();
                        let mut config = BTreeMap::from([("outcome".to_owned(), outcome)]);
                        if !rules.is_empty() {
                            config.insert("rules".to_owned(), rules.join(" "));
                        }
                        records.push(Record::Sample(Sample {
                            benchmark,
                            variant: side.to_owned(),
                            iterations: 1,
                            order,
                            config,
                            values: vec![Value::new(
                                "object-bytes",
                                Figure::Exact(made.bytes as f64),
                            )],
                            warnings: Vec::new(),
                        }));
                    }
                    (None, why) => {
                        end.failures += 1;
                        records.push(Record::Failure(Failure {
                            benchmark,
                            variant: side.to_owned(),
                            order,
                            why: why.unwrap_or("not compiled").to_owned(),
                            stderr: String::new(),
                        }));
                    }
                }
            }
        }
        // Without its end a stream is known to be cut short.
        let stopped = |one: &Compared| matches!(one.outcome, Outcome::Stopped(_));
        if !self.results.iter().any(stopped) {
            records.push(Record::End(end));
        }
        records
    }

    fn facts(&self) -> Vec<(String, String)> {
        let verdict = verdict_word(Verdict::of(self.results));
        let [old, new] = self.compilers.each_ref().map(|who| &*who.sha256);
        let mut facts = vec![
            ("identical".to_owned(), verdict.to_owned()),
            (compare::VARIANTS.to_owned(), json!(SIDES).to_string()),
            (
                compare::SHA256.to_owned(),
                json!({ "old": old, "new": new }).to_string(),
            ),
        ];
        for (side, who) in SIDES.iter().zip(&self.compilers) {
            facts.push((format!("{side}-compiler"), who.version.clone()));
            if !who.flags.is_empty() {
                facts.push((format!("{side}-flags"), who.flags.clone()));
            }
        }
        facts
    }
}

impl Who {
    /// As part of a JSON document.
    pub(super) fn json(&self) -> Json {
        json!({
            "version": self.version,
            "program": self.program,
            "sha256": self.sha256,
            "proper": self.proper.as_ref().map(|(program, sha256)| {
                json!({ "program": program, "sha256": sha256 })
            }),
            "flags": self.flags,
        })
    }
}

/// A line for each compiler, and one for each note on all of them.
pub(super) fn write_compilers(text: &mut String, labels: &[&str], all: &[Who], notes: &[String]) {
    for (label, who) in labels.iter().zip(all) {
        let flags = match who.flags.as_str() {
            "" => String::new(),
            flags => format!("  {flags}"),
        };
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        let mut hash = format!("{}…", short(&who.sha256));
        if let Some((program, sha256)) = &who.proper {
            let name = program.rsplit('/').next().unwrap_or(program);
            let _ = write!(hash, ", {name} {}…", short(sha256));
        }
        // A String takes all that is written to it.
        let _ = writeln!(
            text,
            "{label}  {}  {} (sha256 {hash}){flags}",
            who.version, who.program
        );
    }
    for note in notes {
        let _ = writeln!(text, "     {note}");
    }
    text.push('\n');
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Identical => "identical",
        Verdict::Unproven => "unproven",
        Verdict::Nondeterministic => "nondeterministic",
        Verdict::Different => "different",
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Identical => "identical",
        Outcome::Differs(_) => "differs",
        Outcome::Refused { .. } => "refused",
        Outcome::Nondeterministic { .. } => "nondeterministic",
        Outcome::Failed { .. } => "failed",
        Outcome::Stopped(_) => "stopped",
    }
}

fn failure(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Refused { why, .. } | Outcome::Failed { why, .. } => Some(why),
        _ => None,
    }
}

/// One line on an outcome.
pub fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Identical => "identical".to_owned(),
        Outcome::Differs(place) => format!("differs {}", place_words(place)),
        Outcome::Refused { side, why } => {
            format!("only the {} compiler fails: {why}", SIDES[*side])
        }
        Outcome::Nondeterministic { side, place } => format!(
            "nondeterministic: the {} compiler makes different things of it {}",
            SIDES[*side],
            place_words(place)
        ),
        Outcome::Failed { side, why } => {
            format!("failed with the {} compiler: {why}", SIDES[*side])
        }
        Outcome::Stopped(signal) => format!("stopped by {signal}"),
    }
}

fn place_words(place: &Place) -> String {
    let names = |kind: &str, all: &[String]| match all {
        [] => None,
        [one] => Some(format!("{kind} {one}")),
        all => {
            let first = all
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            Some(match all.len().saturating_sub(NAMED) {
                0 => format!("{kind}s {first}"),
                more => format!("{kind}s {first} and {more} more"),
            })
        }
    };
    let functions = names("function", &place.functions);
    // What functions differ takes their data with it.
    let symbols = functions.or_else(|| names("symbol", &place.data));
    let symbols = symbols.map_or(String::new(), |symbols| format!(": {symbols}"));
    let there = match &place.words {
        Some([old, new]) => format!("`{old}`, now `{new}`"),
        None => format!("byte {}", place.offset),
    };
    format!("in {}, {there}{symbols}", place.part)
}

fn write_listing(text: &mut String, one: &Compared, listing: &Listing, style: Style) {
    let _ = writeln!(text, "{}: {}", one.input, listing.function);
    let [old, new] = match one.outcome {
        Outcome::Nondeterministic { .. } => ["once", "again"],
        _ => SIDES,
    };
    let width = (style.width.clamp(60, 200) - 5) / 2;
    let cell = |line: &str| {
        // Tabs are as wide as the terminal pleases.
        let line = line.trim_start_matches('\t').replace('\t', " ");
        let line = console::truncate_str(&line, width, "…").into_owned();
        console::pad_str(&line, width, console::Alignment::Left, None).into_owned()
    };
    let _ = writeln!(text, "  {} | {new}", cell(old));
    for row in &listing.rows {
        let mark = mark(row);
        let line = format!("  {} {mark} {}", cell(&row.old), cell(&row.new));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if listing.left_out > 0 {
        let _ = writeln!(text, "  … and {} more rows", listing.left_out);
    }
    if let Some((line, first, second)) = &listing.first_line {
        let first = first.trim().replace('\t', " ");
        let second = second.trim().replace('\t', " ");
        let _ = writeln!(text, "  first differing line of the assembly, {line}:");
        let _ = writeln!(text, "    {old}: {first}\n    {new}: {second}");
    }
}

fn mark(row: &Row) -> char {
    match (row.same, row.old.is_empty(), row.new.is_empty()) {
        (true, ..) => ' ',
        (false, true, _) => '>',
        (false, _, true) => '<',
        (false, false, false) => '|',
    }
}

fn place_json(place: &Place) -> Json {
    json!({
        "part": place.part,
        "offset": place.offset,
        "words": place.words,
        "functions": place.functions,
        "data": place.data,
    })
}

fn input_json(one: &Compared) -> Json {
    let made = |side: usize| {
        let made = one.made[side].as_ref();
        made.map(|made| json!({ "bytes": made.bytes, "sha256": made.sha256 }))
    };
    let (side, place, why) = match &one.outcome {
        Outcome::Identical | Outcome::Stopped(_) => (None, None, None),
        Outcome::Differs(place) => (None, Some(place), None),
        Outcome::Nondeterministic { side, place } => (Some(*side), Some(place), None),
        Outcome::Refused { side, why } | Outcome::Failed { side, why } => {
            (Some(*side), None, Some(why))
        }
    };
    json!({
        "input": one.input,
        "outcome": word(&one.outcome),
        "side": side.map(|side| SIDES[side]),
        "place": place.map(place_json),
        "why": why,
        "rules": one.rules.iter().map(|rule| rule.name()).collect::<Vec<_>>(),
        "log": one.log.as_ref().map(line_json),
        "old": made(0),
        "new": made(1),
    })
}

fn line_json((line, old, new): &(usize, String, String)) -> Json {
    json!({ "line": line, "old": old, "new": new })
}

fn listing_json(input: &str, listing: &Result<Option<Listing>, String>) -> Json {
    match listing {
        Ok(Some(listing)) => json!({
            "input": input,
            "function": listing.function,
            "rows": listing
                .rows
                .iter()
                .map(|row| json!({ "old": row.old, "new": row.new, "same": row.same }))
                .collect::<Vec<_>>(),
            "left_out": listing.left_out,
            "first_line": listing.first_line.as_ref().map(line_json),
        }),
        Ok(None) => json!({ "input": input }),
        Err(why) => json!({ "input": input, "why": why }),
    }
}
