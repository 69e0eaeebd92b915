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

use std::io::{self, BufRead};

use super::wire::{Line, Start};
use crate::sample::{End, Record, SCHEMA, SyntaxError};

/// The longest line that is read, in bytes.
const LONGEST_LINE: usize = 16 << 20;

/// Reads a stream record by record.
///
/// A line that cannot be understood comes out as [`Record::Syntax`], and reading goes on. An
/// error of the input ends the iteration and is found in [`Reader::error`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    file: String,
    line: u64,
    text: Vec<u8>,
    run: Run,
    /// Whether a run came to its end.
    ended: bool,
    /// Whether nothing was wrong so far.
    sound: bool,
    error: Option<io::Error>,
    over: bool,
}

/// Where in the file the reader stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Run {
    /// Before a header.
    Outside,
    /// After a header; what was read since.
    Open(End),
    /// After the header of a schema that this program does not know: passed over.
    Foreign,
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Newline,
    /// The input ended before a newline came.
    Cut,
    /// It was longer than [`LONGEST_LINE`], and its text was not kept.
    TooLong,
}

impl<R: BufRead> Reader<R> {
    /// A reader of `input`; `file` is its name in messages.
    pub fn new(file: impl Into<String>, input: R) -> Reader<R> {
        Reader {
            input,
            file: file.into(),
            line: 0,
            text: Vec::new(),
            run: Run::Outside,
            ended: false,
            sound: true,
            error: None,
            over: false,
        }
    }

    /// Whether all that was read is whole: there was a run, every run stood between its header
    /// and its end, the end's numbers of samples and failures are those that were read, and no
    /// line was bad. Means something once the iteration is over.
    pub fn whole(&self) -> bool {
        self.sound && self.ended && self.run == Run::Outside && self.error.is_none()
    }

    /// The error of the input that ended the iteration, if one did.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Takes the next line into `self.text`, without its newline. `None` at the end of input.
    fn read_line(&mut self) -> io::Result<Option<Ending>> {
        self.text.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                let ending = if too_long {
                    Ending::TooLong
                } else {
                    Ending::Cut
                };
                return Ok(any.then_some(ending));
            }
            any = true;
            let newline = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            too_long |= self.text.len() + part.len() > LONGEST_LINE;
            if too_long {
                self.text = Vec::new();
            } else {
                self.text.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(newline.is_some());
            self.input.consume(taken);
            if newline.is_some() {
                return Ok(Some(if too_long {
                    Ending::TooLong
                } else {
                    Ending::Newline
                }));
            }
        }
    }

    /// What the line just read says; `None` when it belongs to a run that is passed over.
    fn understand(&mut self, ending: Ending) -> Option<Record> {
        let read = match ending {
            Ending::TooLong => Err(format!("longer than {} MiB", LONGEST_LINE >> 20).into()),
            Ending::Newline | Ending::Cut => decode(&self.text),
        };
        match read {
            Err(Problem::Foreign(message)) => {
                self.run = Run::Foreign;
                Some(self.syntax(message))
            }
            _ if self.run == Run::Foreign && !matches!(read, Ok(Record::Header(_))) => None,
            Ok(record) => {
                self.follow(&record);
                Some(record)
            }
            Err(Problem::Bad(message)) if ending == Ending::Cut => {
                Some(self.syntax(format!("cut short in the middle of a line ({message})")))
            }
            Err(Problem::Bad(message)) => Some(self.syntax(message)),
        }
    }

    fn syntax(&mut self, message: String) -> Record {
        self.sound = false;
        Record::Syntax(SyntaxError {
            file: self.file.clone(),
            line: self.line,
            message,
        })
    }

    /// Keeps account of what is needed to tell whether the stream is whole.
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
        if !in_place {
            self.sound = false;
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while !self.over {
            match self.read_line() {
                Ok(Some(ending)) => {
                    self.line += 1;
                    // An empty line says nothing, wherever it comes from.
                    if ending != Ending::TooLong && self.text.trim_ascii().is_empty() {
                        continue;
                    }
                    if let Some(record) = self.understand(ending) {
                        return Some(record);
                    }
                }
                Ok(None) => self.over = true,
                Err(error) => {
                    self.error = Some(error);
                    self.over = true;
                }
            }
        }
        None
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

/// The message without its line, which is always the first.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => format!("{message} (column {})", error.column()),
        None => text,
    }
}

#[cfg(test)]
pub(super) mod tests;
