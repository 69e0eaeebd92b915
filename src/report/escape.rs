//! What is said of the decisions of Go compilers: lists of what escapes, a source with the decisions beside its lines, JSON and records. Never compiles, never prints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value as Json, json};
use similar::DiffOp;

use super::identical::{Who, write_compilers};
use super::text::Style;
use crate::compare;
use crate::run::escape::decisions::{Decision, Kind};
use crate::run::escape::difference::{self, Lines};
use crate::run::escape::{Allocated, Change, Decided, File, Outcome, Surveyed};
use crate::run::identical::SIDES;
use crate::sample::{End, Failure, Figure, Header, Name, Order, Record, Sample, UnitMeta, Value};
use crate::unit::{Assume, Unit, human};

/// Everything that there is to say.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The compilers: the old one and the new one, or one alone.
    pub compilers: Vec<Who>,
    /// Where what was compiled came from, and what else holds for all of it.
    pub notes: Vec<String>,
    /// What came of each package.
    pub surveyed: &'a [Surveyed],
    /// What differs, or what escapes where there is one compiler alone; in the order of weight
    /// where there is a profile.
    pub changes: &'a [Change],
    /// What a profile saw in all.
    pub weighed: Option<Weighed>,
    /// So many lines of each list are shown.
    pub rows: usize,
    /// How long it took.
    pub took: Duration,
}

/// A profile of allocations, beside what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// Its file.
    pub profile: String,
    /// A byte in so many was looked at; 1 is all.
    pub period_bytes: u64,
    /// What it saw.
    pub all: Allocated,
    /// What of it was in the lines that are told.
    pub part: Allocated,
}

/// A unit, and the decisions that it counts.
type Counted = (&'static str, fn(Kind) -> bool);

/// What is counted of each package and side.
const COUNTED: [Counted; 5] = [
    ("escapes", |kind| kind == Kind::Heap),
    ("leaking-parameters", |kind| kind == Kind::Leak),
    ("inlined-calls", |kind| kind == Kind::InlinedCall),
    ("bounds-checks", |kind| {
        matches!(kind, Kind::IndexCheck | Kind::SliceCheck)
    }),
    ("nil-checks", |kind| kind == Kind::NilCheck),
];

impl Report<'_> {
    /// The whole, for people.
    pub fn text(&self, style: Style) -> String {
        let mut text = self.heading();
        let lists: &[(&str, usize, Kind)] = match self.compilers.len() {
            1 => &[("escapes", 0, Kind::Heap)],
            _ => &[
                ("newly escapes", 1, Kind::Heap),
                ("no longer escapes", 0, Kind::Heap),
                ("leaks now", 1, Kind::Leak),
                ("leaked before", 0, Kind::Leak),
            ],
        };
        for (title, side, kind) in lists {
            let meant = |one: &&Change| one.side == *side && one.decision.kind == *kind;
            let changes: Vec<&Change> = self.changes.iter().filter(meant).collect();
            if !changes.is_empty() {
                // A String takes all that is written to it.
                let _ = writeln!(text, "{title}, {}:", changes.len());
                self.write_list(&mut text, &changes, style);
                text.push('\n');
            }
        }
        text + &self.summary()
    }

    /// The compilers, what holds for all, and what could not be compiled.
    pub fn heading(&self) -> String {
        let mut text = String::new();
        let labels: &[&str] = match self.compilers.len() {
            1 => &["by "],
            _ => &SIDES,
        };
        write_compilers(&mut text, labels, &self.compilers, &self.notes);
        let mut failed = false;
        for (package, side, why) in self.failures() {
            failed = true;
            let by = match self.compilers.len() {
                1 => String::new(),
                _ => format!(" with the {} compiler", SIDES[side]),
            };
            let _ = writeln!(text, "{package}  failed{by}: {why}");
        }
        for one in self.surveyed {
            if let [old, new] = &one.sides[..] {
                for (side, outcome) in [old, new].into_iter().enumerate() {
                    if matches!(outcome, Outcome::Missing) {
                        let _ = writeln!(
                            text,
                            "{}  is in the {} source only",
                            one.package,
                            SIDES[1 - side]
                        );
                        failed = true;
                    }
                }
            }
        }
        if failed {
            text.push('\n');
        }
        text
    }

    fn write_list(&self, text: &mut String, changes: &[&Change], style: Style) {
        let rows: Vec<[String; 5]> = changes
            .iter()
            .take(self.rows)
            .map(|change| {
                let [objects, bytes] = match change.allocated {
                    Some(allocated) => written(allocated),
                    None => Default::default(),
                };
                let place = format!("{}/{}", change.package, place(change));
                let function = change.function.clone().unwrap_or_else(|| "—".to_owned());
                [
                    objects,
                    bytes,
                    place,
                    function,
                    change.decision.text.clone(),
                ]
            })
            .collect();
        let width = |column: usize| {
            let widths = rows
                .iter()
                .map(|row| console::measure_text_width(&row[column]));
            widths.max().unwrap_or_default()
        };
        let [objects, bytes, place, function] = [0, 1, 2, 3].map(width);
        let is_weighed = rows.iter().any(|row| !row[0].is_empty());
        let (objects, bytes) = match is_weighed {
            true => (objects.max(6), bytes.max(5)),
            false => (0, 0),
        };
        if is_weighed {
            let _ = writeln!(text, "  {:>objects$}  {:>bytes$}", "allocs", "bytes");
        }
        for (row, change) in rows.iter().zip(changes) {
            let mut line = match is_weighed {
                true => format!("  {:>objects$}  {:>bytes$}", row[0], row[1]),
                false => String::new(),
            };
            let _ = write!(
                line,
                "  {:place$}  {:function$}  {}",
                row[2], row[3], row[4]
            );
            let _ = writeln!(text, "{}", console::truncate_str(&line, style.width, "…"));
            let indent = if is_weighed { 8 + objects + bytes } else { 4 };
            for reason in reasons(change) {
                let line = format!("{:indent$}{reason}", "");
                let _ = writeln!(text, "{}", console::truncate_str(&line, style.width, "…"));
            }
        }
        let left = changes.len().saturating_sub(rows.len());
        if left > 0 {
            let _ = writeln!(text, "  … and {left} more");
        }
    }

    /// The last lines: what was counted, and what a profile says of it.
    pub fn summary(&self) -> String {
        let took = human(&Unit::named("sec"), self.took.as_secs_f64());
        let all = self.surveyed.len();
        let packages = if all == 1 { "package" } else { "packages" };
        // Of what all sides compiled.
        let common: Vec<Vec<&Decided>> = self
            .surveyed
            .iter()
            .filter_map(|one| one.sides.iter().map(decided).collect())
            .collect();
        let counted = COUNTED.iter().map(|(unit, is_counted)| {
            let sums = (0..self.compilers.len()).map(|side| {
                let counts = common.iter().map(|sides| sides[side].count(*is_counted));
                counts.sum::<usize>().to_string()
            });
            format!(
                "{} {}",
                unit.replace('-', " "),
                sums.collect::<Vec<_>>().join(" → ")
            )
        });
        let counted = counted.collect::<Vec<_>>().join(", ");
        let mut text = match common.is_empty() {
            true => format!("{all} {packages} in {took}: nothing to count\n"),
            false => format!("{all} {packages} in {took}: {counted}\n"),
        };
        if let Some(weighed) = &self.weighed {
            let [objects, bytes] = written(weighed.part);
            let [all_objects, all_bytes] = written(weighed.all);
            let trust = match weighed.period_bytes {
                1 => "all were seen".to_owned(),
                period => {
                    let period = human(&Unit::named("bytes"), period as f64);
                    format!("estimated: looked at once in {period}")
                }
            };
            let _ = writeln!(
                text,
                "of the {all_objects} allocations ({all_bytes}) in {}, {objects} ({bytes}) are in these lines; {trust}",
                weighed.profile,
            );
        }
        text
    }

    /// What could not be compiled: package, side and why.
    fn failures(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.surveyed.iter().flat_map(|one| {
            let sides = one.sides.iter().enumerate();
            sides.filter_map(|(side, outcome)| match outcome {
                Outcome::Failed(why) => Some((&*one.package, side, &**why)),
                _ => None,
            })
        })
    }

    /// Whether everything was compiled.
    pub fn is_whole(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The whole, as one JSON document.
    pub fn json(&self) -> Json {
        let packages = self.surveyed.iter().map(|one| {
            let sides = one.sides.iter().zip(self.labels());
            let sides = sides.map(|(outcome, label)| {
                let told = match outcome {
                    Outcome::Decided(decided) => {
                        let counts = COUNTED.iter().map(|(unit, is_counted)| {
                            ((*unit).to_owned(), json!(decided.count(*is_counted)))
                        });
                        Json::Object(counts.collect())
                    }
                    Outcome::Missing => json!({ "missing": true }),
                    Outcome::Failed(why) => json!({ "failed": why }),
                };
                (label.to_owned(), told)
            });
            let sides: serde_json::Map<String, Json> = sides.collect();
            json!({ "package": one.package, "sides": sides })
        });
        let compilers = self.labels().zip(&self.compilers);
        let compilers = compilers.map(|(label, who)| (label.to_owned(), who.json()));
        json!({
            "schema": 1,
            "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
            "compilers": compilers.collect::<serde_json::Map<String, Json>>(),
            "notes": self.notes,
            "seconds": self.took.as_secs_f64(),
            "packages": packages.collect::<Vec<_>>(),
            "profile": self.weighed.as_ref().map(|weighed| json!({
                "file": weighed.profile,
                "period-bytes": weighed.period_bytes,
                "allocs": weighed.all.objects,
                "bytes": weighed.all.bytes,
            })),
            "changes": self.changes.iter().map(|one| self.change_json(one)).collect::<Vec<_>>(),
        })
    }

    fn change_json(&self, change: &Change) -> Json {
        let decision = &change.decision;
        let label = self.labels().nth(change.side);
        let inlining = change.inlining.iter();
        json!({
            "only": label,
            "kind": if decision.kind == Kind::Leak { "leak" } else { "heap" },
            "package": change.package,
            "file": change.file,
            "line": decision.line,
            "column": decision.column,
            "function": change.function,
            "decision": decision.text,
            "why": decision.why,
            "inlining": inlining
                .map(|(side, text)| json!({ "only": SIDES[*side], "decision": text }))
                .collect::<Vec<_>>(),
            "allocs": change.allocated.map(|allocated| allocated.objects),
            "bytes": change.allocated.map(|allocated| allocated.bytes),
        })
    }

    /// How the compilers are called.
    fn labels(&self) -> impl Iterator<Item = &'static str> {
        let only = self.compilers.len() == 1;
        SIDES
            .into_iter()
            .map(move |side| if only { "base" } else { side })
    }

    /// The whole as a stream of records: a sample for what each compiler decided about each
    /// package, and a failure for what it could not compile. Without its `end` when it was stopped.
    pub fn records(&self, header: Header, is_stopped: bool) -> Vec<Record> {
        let mut records = vec![Record::Header(Header {
            machine: header.machine.into_iter().chain(self.facts()).collect(),
            ..header
        })];
        for (unit, _) in COUNTED {
            let unit = Unit::named(unit);
            records.push(Record::Unit(UnitMeta {
                better: unit.better().filter(|_| unit.as_str() != "inlined-calls"),
                unit,
                assume: Assume::Exact,
            }));
        }
        let mut end = End::default();
        for (round, one) in (0..).zip(self.surveyed) {
            let sides = one.sides.iter().zip(self.labels());
            for (position, (outcome, label)) in (0..).zip(sides) {
                let benchmark = Name::new("Escape").with("package", &one.package);
                let order = Order {
                    sequence: end.samples + end.failures,
                    round,
                    position,
                };
                match outcome {
                    Outcome::Missing => {}
                    Outcome::Decided(decided) => {
                        end.samples += 1;
                        let value = |(unit, is_counted): &Counted| {
                            let count = decided.count(*is_counted);
                            Value::new(unit, Figure::Exact(count as f64))
                        };
                        records.push(Record::Sample(Sample {
                            benchmark,
                            variant: label.to_owned(),
                            iterations: 1,
                            order,
                            config: BTreeMap::new(),
                            values: COUNTED.iter().map(value).collect(),
                            warnings: Vec::new(),
                        }));
                    }
                    Outcome::Failed(why) => {
                        end.failures += 1;
                        records.push(Record::Failure(Failure {
                            benchmark,
                            variant: label.to_owned(),
                            order,
                            why: why.clone(),
                            stderr: String::new(),
                        }));
                    }
                }
            }
        }
        if !is_stopped {
            records.push(Record::End(end));
        }
        records
    }

    fn facts(&self) -> Vec<(String, String)> {
        let labelled = || self.labels().zip(&self.compilers);
        let labels: Vec<&str> = labelled().map(|(label, _)| label).collect();
        let hashes: BTreeMap<&str, &str> = labelled()
            .map(|(label, who)| (label, &*who.sha256))
            .collect();
        let mut facts = vec![
            (compare::VARIANTS.to_owned(), json!(labels).to_string()),
            (compare::SHA256.to_owned(), json!(hashes).to_string()),
        ];
        for (label, who) in labelled() {
            facts.push((format!("{label}-compiler"), who.version.clone()));
            if !who.flags.is_empty() {
                facts.push((format!("{label}-flags"), who.flags.clone()));
            }
        }
        facts
    }
}

/// What one side decided, if it did.
fn decided(outcome: &Outcome) -> Option<&Decided> {
    match outcome {
        Outcome::Decided(decided) => Some(decided),
        _ => None,
    }
}

fn written(allocated: Allocated) -> [String; 2] {
    [
        human(&Unit::named("allocs"), allocated.objects),
        human(&Unit::named("bytes"), allocated.bytes),
    ]
}

fn place(change: &Change) -> String {
    format!("{}:{}", change.file, change.decision.line)
}

/// Why a change came about, as far as the compilers tell.
fn reasons(change: &Change) -> Vec<String> {
    let why = change.decision.why.iter().map(|why| format!("from {why}"));
    let inlining = change.inlining.iter().map(|(side, text)| {
        let call = text.trim_start_matches("inlining call to ");
        match side {
            0 => format!("{call} is no longer inlined there"),
            _ => format!("{call} is inlined there now"),
        }
    });
    why.chain(inlining).collect()
}

/// One line of a source, and what stands beside it.
struct Beside<'a> {
    /// Its number and ` `, or `-` and `+` for what one source has alone.
    number: String,
    text: &'a str,
    decisions: Vec<String>,
}

/// A source with the decisions of one compiler beside its lines; with those of two, only the lines
/// on which they differ. The flag says whether there are any such.
pub fn annotated(sides: &[&File], style: Style) -> (String, bool) {
    let (rows, differs) = match sides {
        [old, new] => {
            let rows = differing(old, new);
            let differs = !rows.is_empty();
            (rows, differs)
        }
        [only, ..] => (all_of(only), false),
        [] => (Vec::new(), false),
    };
    (beside(&rows, style), differs)
}

fn all_of(file: &File) -> Vec<Beside<'_>> {
    let lines = (1_u32..).zip(file.text.lines());
    lines
        .map(|(number, text)| {
            let there = file.decisions.iter().filter(|one| one.line == number);
            Beside {
                number: number.to_string(),
                text,
                decisions: there.map(words).collect(),
            }
        })
        .collect()
}

fn differing<'a>(old: &'a File, new: &'a File) -> Vec<Beside<'a>> {
    let (old_lines, new_lines): (Vec<_>, Vec<_>) =
        (old.text.lines().collect(), new.text.lines().collect());
    let lines = Lines::of(&old.text, &new.text);
    let decisions = [old, new].map(|file| file.decisions.iter().collect::<Vec<_>>());
    let [gone, come] = difference::alone(&decisions[0], &decisions[1], |line| lines.new_of(line));
    let at = |all: &[&Decision], line: usize, side: &str| -> Vec<String> {
        let there = all.iter().filter(|one| one.line as usize == line + 1);
        there.map(|one| format!("{side}: {}", words(one))).collect()
    };
    let mut rows = Vec::new();
    let mut push = |sign: &str, line: usize, text, decisions: Vec<String>| {
        if !decisions.is_empty() {
            rows.push(Beside {
                number: format!("{sign}{}", line + 1),
                text,
                decisions,
            });
        }
    };
    for operation in lines.operations() {
        let (old_range, new_range) = (operation.old_range(), operation.new_range());
        if let DiffOp::Equal { .. } = operation {
            for (was, is) in old_range.zip(new_range) {
                let both = [at(&gone, was, SIDES[0]), at(&come, is, SIDES[1])].concat();
                push("", is, new_lines[is], both);
            }
            continue;
        }
        for was in old_range {
            push("-", was, old_lines[was], at(&gone, was, SIDES[0]));
        }
        for is in new_range {
            push("+", is, new_lines[is], at(&come, is, SIDES[1]));
        }
    }
    rows
}

/// A decision in words.
fn words(decision: &Decision) -> String {
    match &decision.why {
        None => decision.text.clone(),
        Some(why) if decision.kind == Kind::Heap => format!("{} (from {why})", decision.text),
        Some(why) => format!("{} ({why})", decision.text),
    }
}

/// Numbered lines, with words to their right; below them where there is no room.
fn beside(rows: &[Beside<'_>], style: Style) -> String {
    let number = rows.iter().map(|row| row.number.len()).max();
    let number = number.unwrap_or_default();
    let text_width = (style.width / 2).max(20);
    let mut text = String::new();
    for row in rows {
        let source = row.text.replace('\t', "    ");
        let mut line = format!("{:>number$}  {source}", row.number);
        let column = number + 2 + text_width;
        for words in &row.decisions {
            if console::measure_text_width(&line) > column {
                let _ = writeln!(text, "{line}");
                line = String::new();
            }
            let padding = column - console::measure_text_width(&line);
            let _ = writeln!(text, "{line}{:padding$}  | {words}", "");
            line = String::new();
        }
        if row.decisions.is_empty() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, decisions: &[(u32, Kind, &str, Option<&str>)]) -> File {
        let decision = |&(line, kind, text, why): &(u32, Kind, &str, Option<&str>)| Decision {
            line,
            column: 2,
            kind,
            text: text.to_owned(),
            why: why.map(str::to_owned),
        };
        File {
            text: text.to_owned(),
            decisions: decisions.iter().map(decision).collect(),
            ..File::default()
        }
    }

    const STYLE: Style = Style { width: 60 };

    #[test]
    fn decisions_stand_beside_their_lines() {
        let long = "x := \"long enough that nothing can stand beside it\"";
        let text = format!("a\n\tp := 1\n{long}\n");
        let heap = (
            2,
            Kind::Heap,
            "moved to heap: p",
            Some("return &p (return)"),
        );
        let one = file(
            &text,
            &[
                heap,
                (2, Kind::NilCheck, "nil check kept", None),
                (3, Kind::Stack, "x does not escape", None),
            ],
        );
        let (told, differs) = annotated(&[&one], STYLE);
        let gap = " ".repeat(33);
        let want = format!(
            "1  a\n2      p := 1{}  | moved to heap: p (from return &p (return))\n\
            {gap}  | nil check kept\n3  {long}\n{gap}  | x does not escape\n",
            " ".repeat(20)
        );
        assert_eq!((told, differs), (want, false));
    }

    #[test]
    fn of_two_compilers_only_what_differs_is_shown() {
        let old = file(
            "a\nb\nc\n",
            &[
                (1, Kind::Heap, "moved to heap: x", None),
                (2, Kind::Heap, "moved to heap: y", None),
            ],
        );
        let new = file(
            "a\nnew\nc\n",
            &[
                (1, Kind::Heap, "moved to heap: x", None),
                (2, Kind::IndexCheck, "index check kept", None),
                (3, Kind::InlinedCall, "inlining call to f", None),
            ],
        );
        let (told, differs) = annotated(&[&old, &new], STYLE);
        let lines: Vec<Vec<&str>> = told
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let want = [
            "-2 b | old: moved to heap: y",
            "+2 new | new: index check kept",
            "3 c | new: inlining call to f",
        ];
        let want = want.map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!((lines, differs), (want.to_vec(), true));
        assert_eq!(annotated(&[&old, &old], STYLE), (String::new(), false));
    }
}
