//! JSON Lines: the record stream itself, one record a line, written and read back. Never loses a digit, never ends at a bad line.
//!
//! ```json
//! {"record":"header","schema":1,"tool":"poise 0.1.0","started":"…Z","seed":7,"command":[…],"machine":{"cpu":"…"}}
//! {"record":"unit","unit":"cycles/op","better":"lower","assume":"nothing"}
//! {"record":"sample","benchmark":"Write/size=512","variant":"base","iterations":250000,
//!  "order":{"sequence":17,"round":8,"position":1},"config":{"cpu":"3"},"values":[…],"warnings":[]}
//! {"record":"failure","benchmark":"…","variant":"…","order":{…},"why":"exit status 1","stderr":"…"}
//! {"record":"end","samples":120,"failures":0}
//! ```
//!
//! A value is one of
//!
//! ```json
//! {"unit":"sec/op","value":2.06e-7,"trust":"exact"}
//! {"unit":"cycles/op","value":612.5,"trust":"scaled","running":0.62}
//! {"unit":"cycles/op","value":380.0,"trust":"partial","part":"user mode only"}
//! {"unit":"user-sec/op","value":1.2e-7,"trust":"sampled","period":0.004}
//! {"unit":"cycles/op","value":null,"trust":"absent","why":"no hardware PMU","cure":"…"}
//! ```
//!
//! Fields that the schema does not know are errors. Several runs may stand in one file, each from
//! its header to its end.

use std::io;

use super::document::message;
use super::found::Found;
use super::lines::Ending;
use super::reader::too_long;
use super::wire::{Line, Start};
use crate::sample::{End, Record, SCHEMA};

/// Understands line after line, and keeps account of what is needed to tell whether the stream is
/// whole.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    run: Run,
    /// Whether a run came to its end.
    ended: bool,
    /// Whether a record stood where none of its kind can.
    misplaced: bool,
}

/// Where in the file the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Run {
    /// Before a header.
    #[default]
    Outside,
    /// After a header; what was read since.
    Open(End),
    /// After the header of a schema that this program does not know: passed over.
    Foreign,
}

impl Decoder {
    /// Whether there was a run, and every run stood whole between its header and its end.
    pub(super) fn whole(&self) -> bool {
        !self.misplaced && self.ended && self.run == Run::Outside
    }

    /// What the line `at` says; nothing when it belongs to a run that is passed over.
    pub(super) fn decode(&mut self, text: &[u8], ending: Ending, at: u64, found: &mut Found) {
        // An empty line says nothing, wherever it comes from.
        if ending != Ending::TooLong && text.trim_ascii().is_empty() {
            return;
        }
        let read = match ending {
            Ending::TooLong => Err(too_long().into()),
            Ending::Newline | Ending::Cut => decode(text),
        };
        match read {
            Err(Problem::Foreign(message)) => {
                self.run = Run::Foreign;
                found.syntax(at, message);
            }
            _ if self.run == Run::Foreign && !matches!(read, Ok(Record::Header(_))) => {}
            Ok(record) => {
                self.follow(&record);
                found.push(record);
            }
            Err(Problem::Bad(message)) if ending == Ending::Cut => {
                found.syntax(at, format!("cut short in the middle of a line ({message})"))
            }
            Err(Problem::Bad(message)) => found.syntax(at, message),
        }
    }

    fn follow(&mut self, record: &Record) {
        let in_place = match (record, &mut self.run) {
            (Record::Header(_), run) => {
                let before = std::mem::replace(run, Run::Open(End::default()));
                before == Run::Outside
            }
            (Record::Sample(_), Run::Open(read)) => {
                read.samples += 1;
                true
            }
            (Record::Failure(_), Run::Open(read)) => {
                read.failures += 1;
                true
            }
            (Record::End(end), run) => {
                let before = std::mem::replace(run, Run::Outside);
                self.ended = true;
                before == Run::Open(*end)
            }
            (_, run) => matches!(run, Run::Open(_)),
        };
        self.misplaced |= !in_place;
    }
}

/// The line of `record` with its newline; nothing for a syntax error.
pub(super) fn encode(record: &Record) -> io::Result<String> {
    let Some(line) = Line::new(record) else {
        return Ok(String::new());
    };
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    Ok(text)
}

/// Why a line gave no record.
enum Problem {
    /// It cannot be understood.
    Bad(String),
    /// It begins a run in another schema.
    Foreign(String),
}

impl From<String> for Problem {
    fn from(message: String) -> Problem {
        Problem::Bad(message)
    }
}

/// Reads one line.
fn decode(text: &[u8]) -> Result<Record, Problem> {
    let text = str::from_utf8(text)
        .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned().into());
    }
    match serde_json::from_str(text) {
        Ok(Line::Header(header)) if header.schema != SCHEMA => Err(foreign(header.schema.into())),
        Ok(line) => Ok(line.into_record()?),
        // A header of another schema need not look like ours: ask for its number alone.
        Err(error) => match serde_json::from_str::<Start>(text) {
            Ok(Start { record, schema }) if record == "header" && schema != u64::from(SCHEMA) => {
                Err(foreign(schema))
            }
            _ => Err(describe(&error).into()),
        },
    }
}

fn foreign(schema: u64) -> Problem {
    let age = if schema > u64::from(SCHEMA) {
        "newer than"
    } else {
        "not"
    };
    let message =
        format!("schema {schema} is {age} the {SCHEMA} that is read here; this run is left out");
    Problem::Foreign(message)
}

/// The message with its column: the line is always the first.
fn describe(error: &serde_json::Error) -> String {
    match error.line() {
        0 => message(error),
        _ => format!("{} (column {})", message(error), error.column()),
    }
}

#[cfg(test)]
pub(super) mod tests;
