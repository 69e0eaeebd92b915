//! Reads the Go benchmark format. Lends what a line says without copying it; never keeps a line.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::super::finite;
use super::super::found::Found;
use super::known_direction;
use crate::sample::{Figure, Name, Order, Record, Sample, UnitMeta, Value};
use crate::unit::{Assume, BadUnit, Better, Unit};

/// The configuration lines that hold for a benchmark line.
pub type Config = BTreeMap<String, String>;

/// So many spellings of units are remembered; real files have a dozen.
const SPELLINGS: usize = 1024;

/// What one benchmark line says, for as long as the reader stands on it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The full name without `Benchmark`, with `/key=value` parts and `-N`: `Write/size=512-8`.
    pub name: &'a str,
    /// Operations that the values were measured over.
    pub iterations: u64,
    /// The configuration in force. Lines between which nothing changed share one: who keeps a
    /// clone of it knows by [`Arc::ptr_eq`] that it is still the same.
    pub config: &'a Arc<Config>,
    /// The numbers, in the order of the line.
    pub values: &'a [Measurement],
    /// Counts the benchmark lines of the file from 0.
    pub sequence: u64,
}

/// One number of a benchmark line.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// In base units. The format allows what is not finite.
    pub value: f64,
    /// The unit; the same spelling is mostly the same [`Arc`].
    pub spelling: Arc<Spelling>,
}

/// A unit as a file spells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spelling {
    /// As it stands in the file: `ns/op`.
    pub written: String,
    /// In base units: `sec/op`.
    pub unit: Unit,
    /// What brings a number from the former to the latter.
    pub factor: f64,
}

impl Line<'_> {
    /// The line as a sample of its own.
    pub fn to_sample(&self) -> Sample {
        let value = |measurement: &Measurement| Value {
            unit: measurement.spelling.unit.clone(),
            figure: finite(&Figure::Exact(measurement.value)).into_owned(),
        };
        Sample {
            benchmark: Name::parse(self.name),
            variant: "base".to_owned(),
            iterations: self.iterations,
            order: Order {
                sequence: self.sequence,
                ..Order::default()
            },
            config: BTreeMap::clone(self.config),
            values: self.values.iter().map(value).collect(),
            warnings: Vec::new(),
        }
    }
}

/// Understands line after line.
#[derive(Debug, Default)]
pub(in super::super) struct Decoder {
    config: Arc<Config>,
    units: HashMap<Unit, BTreeMap<String, String>>,
    spellings: HashMap<String, Arc<Spelling>>,
    /// The numbers of the last benchmark line. Their spellings are the first guess at the next's.
    values: Vec<Measurement>,
    /// Where in the last benchmark line its name stands.
    name: Range<usize>,
    iterations: u64,
    /// Benchmark lines so far.
    lines: u64,
    /// Whether any line was one of the format's.
    known: bool,
}

impl Decoder {
    /// Whether `text` is a benchmark line, which is then to be had from [`Decoder::line`].
    pub(in super::super) fn decode(&mut self, text: &[u8], at: u64, found: &mut Found) -> bool {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let first = text.first().copied().unwrap_or(b'\n');
        match first {
            b'B' if text.starts_with(BENCHMARK) => {
                self.known = true;
                let read = utf8(text).and_then(|text| self.benchmark(text));
                match read {
                    Ok(read) => return read,
                    Err(message) => found.syntax(at, message),
                }
            }
            b'U' if text.starts_with(b"Unit") => match utf8(text).map(split_field) {
                Ok(("Unit", rest)) => {
                    self.known = true;
                    self.unit(rest, at, found);
                }
                Ok(_) => {}
                Err(message) => found.syntax(at, message),
            },
            // A key begins with a small letter.
            b'a'..=b'z' | 0x80.. => {
                let text = String::from_utf8_lossy(text);
                if let Some((key, value)) = split_key(&text) {
                    self.known = true;
                    self.configure(key, value);
                }
            }
            _ => {}
        }
        false
    }

    /// What is wrong with the file as a whole, once it is over.
    pub(in super::super) fn end(&self, lines: u64, found: &mut Found) {
        if !self.known && lines > 0 {
            found.syntax(
                1,
                "no line of this file is in a format that is known here".to_owned(),
            );
        }
    }

    /// The benchmark line that `text` is.
    pub(in super::super) fn line<'a>(&'a self, text: &'a [u8]) -> Line<'a> {
        let name = text.get(self.name.clone()).unwrap_or_default();
        Line {
            name: str::from_utf8(name).unwrap_or_default(),
            iterations: self.iterations,
            config: &self.config,
            values: &self.values,
            sequence: self.lines.saturating_sub(1),
        }
    }

    /// Takes a benchmark line apart; `false` when it is a name alone, as `go test -v` prints it.
    fn benchmark(&mut self, text: &str) -> Result<bool, String> {
        let text = &text[BENCHMARK.len()..];
        let (name, rest) = split_field(text);
        if name.len() == text.len() {
            return Ok(false);
        }
        let (iterations, mut rest) = split_field(rest);
        if iterations.is_empty() {
            return Err("missing iteration count".to_owned());
        }
        self.iterations = parse_iterations(iterations)?;
        let mut count = 0;
        while !rest.is_empty() {
            let (number, after) = split_number(rest)?;
            let same = self.values.get_mut(count).and_then(|last| {
                let behind = after.strip_prefix(&*last.spelling.written)?;
                let is_over = matches!(behind.as_bytes().first(), None | Some(b' ' | b'\t'));
                is_over.then(|| (last, after_space(behind, 0)))
            });
            match same {
                Some((last, after)) => {
                    last.value = number * last.spelling.factor;
                    rest = after;
                }
                None => {
                    let (written, after) = split_field(after);
                    if written.is_empty() {
                        return Err("missing units".to_owned());
                    }
                    rest = after;
                    let spelling =
                        spell(&mut self.spellings, written).map_err(|error| error.to_string())?;
                    let value = number * spelling.factor;
                    let measurement = Measurement { value, spelling };
                    match self.values.get_mut(count) {
                        Some(last) => *last = measurement,
                        None => self.values.push(measurement),
                    }
                }
            }
            count += 1;
        }
        if count == 0 {
            return Err("missing measurements".to_owned());
        }
        self.values.truncate(count);
        self.name = BENCHMARK.len()..BENCHMARK.len() + name.len();
        self.lines += 1;
        Ok(true)
    }

    /// A `Unit` line: what it says of the unit beside what was said before.
    fn unit(&mut self, text: &str, at: u64, found: &mut Found) {
        let (written, mut rest) = split_field(text);
        if written.is_empty() {
            return found.syntax(at, "missing unit".to_owned());
        }
        let unit = match Unit::tidy(written) {
            Ok((unit, _)) => unit,
            Err(error) => return found.syntax(at, error.to_string()),
        };
        let said = self.units.entry(unit.clone()).or_default();
        let mut news = false;
        loop {
            let (pair, after) = split_field(rest);
            if pair.is_empty() {
                break;
            }
            rest = after;
            match pair.split_once('=') {
                None | Some(("", _)) => found.syntax(at, "expected key=value".to_owned()),
                Some((key, value)) => match said.get(key) {
                    None => {
                        said.insert(key.to_owned(), value.to_owned());
                        news |= key == "better" || key == "assume";
                    }
                    Some(before) if before == value => {}
                    Some(before) => found.syntax(
                        at,
                        format!("metadata {key} of unit {written} already set to {before}"),
                    ),
                },
            }
        }
        if news {
            found.push(Record::Unit(UnitMeta {
                better: match said.get("better").map(String::as_str) {
                    Some("lower") => Some(Better::Lower),
                    Some("higher") => Some(Better::Higher),
                    Some(_) => None,
                    None => known_direction(unit.as_str()),
                },
                assume: match said.get("assume").map(String::as_str) {
                    Some("exact") => Assume::Exact,
                    _ => Assume::Nothing,
                },
                unit,
            }));
        }
    }

    /// A configuration line. What a consumer has kept of the configuration stays as it was.
    fn configure(&mut self, key: &str, value: &str) {
        if self.config.get(key).map_or("", String::as_str) == value {
            return;
        }
        let config = Arc::make_mut(&mut self.config);
        if value.is_empty() {
            config.remove(key);
        } else {
            config.insert(key.to_owned(), value.to_owned());
        }
    }
}

const BENCHMARK: &[u8] = b"Benchmark";

fn utf8(text: &[u8]) -> Result<&str, String> {
    str::from_utf8(text)
        .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))
}

fn spell(
    spellings: &mut HashMap<String, Arc<Spelling>>,
    written: &str,
) -> Result<Arc<Spelling>, BadUnit> {
    if let Some(spelling) = spellings.get(written) {
        return Ok(Arc::clone(spelling));
    }
    let (unit, factor) = Unit::tidy(written)?;
    let spelling = Arc::new(Spelling {
        written: written.to_owned(),
        unit,
        factor,
    });
    if spellings.len() >= SPELLINGS {
        spellings.clear();
    }
    spellings.insert(written.to_owned(), Arc::clone(&spelling));
    Ok(spelling)
}

/// The key and the value of a configuration line.
fn split_key(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(char::is_lowercase) {
        return None;
    }
    let end = text.find(|c: char| c == ':' || c.is_whitespace() || c.is_uppercase())?;
    let value = text[end..].strip_prefix(':')?;
    let trimmed = value.trim_start_matches([' ', '\t']);
    // A value is set apart from the key by space; only where there is none does it not matter.
    (value.is_empty() || trimmed.len() < value.len()).then_some((&text[..end], trimmed))
}

/// What stands before the first white space, and what begins after it.
fn split_field(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        end += match byte {
            b'!'..=b'~' => 1,
            _ => match width(text, end) {
                (width, false) => width,
                (_, true) => break,
            },
        };
    }
    (&text[..end], after_space(text, end))
}

/// What begins after the white space at `begin`.
fn after_space(text: &str, mut begin: usize) -> &str {
    while let Some(&byte) = text.as_bytes().get(begin) {
        begin += match byte {
            b' ' | b'\t' => 1,
            b'!'..=b'~' => break,
            _ => match width(text, begin) {
                (width, true) => width,
                (_, false) => break,
            },
        };
    }
    &text[begin..]
}

/// How many bytes the character at `at` has, and whether it is white space.
fn width(text: &str, at: usize) -> (usize, bool) {
    let next = text[at..].chars().next();
    next.map_or((1, true), |c| (c.len_utf8(), c.is_whitespace()))
}

fn parse_iterations(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(iterations) if iterations <= i64::MAX as u64 => Ok(iterations),
        Err(error) if *error.kind() != std::num::IntErrorKind::PosOverflow => {
            Err("parsing iteration count: invalid syntax".to_owned())
        }
        _ => Err("parsing iteration count: value out of range".to_owned()),
    }
}

/// The number that `text` begins with, and what begins after the white space behind it.
fn split_number(text: &str) -> Result<(f64, &str), String> {
    if let Some((number, end)) = plain_number(text.as_bytes()) {
        return Ok((number, after_space(text, end)));
    }
    let (number, after) = split_field(text);
    let error = |what| Err(format!("parsing measurement: {what}"));
    match number.parse::<f64>() {
        Ok(x) if x.is_infinite() && number.bytes().any(|byte| byte.is_ascii_digit()) => {
            error("value out of range")
        }
        Ok(x) => Ok((x, after)),
        Err(_) => error("invalid syntax"),
    }
}

/// A number like most: digits, perhaps with a point, no more than 15 of them, and where it ends.
///
/// The digits and the power of ten are then whole numbers that a double holds, and so one division
/// gives the double that is nearest to their quotient (Clinger 1990).
fn plain_number(bytes: &[u8]) -> Option<(f64, usize)> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let mut number = 0_u64;
    let mut digits = |mut at: usize| {
        while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            at += 1;
        }
        at
    };
    let whole = digits(0);
    let (end, places) = match bytes.get(whole) {
        Some(b'.') => {
            let end = digits(whole + 1);
            (end, end - whole - 1)
        }
        _ => (whole, 0),
    };
    let is_over = matches!(bytes.get(end), None | Some(b' ' | b'\t'));
    let is_plain = is_over && (1..POWERS.len()).contains(&(whole + places));
    is_plain.then(|| (number as f64 / POWERS[places], end))
}

#[cfg(test)]
mod tests;
