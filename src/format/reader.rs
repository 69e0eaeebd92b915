//! One reader for every format that is read: it looks at the beginning of the input to see which it is. Never goes by a file's name, never ends at a bad line.

use std::io::{self, Read};

use super::document::{Document, LONGEST_DOCUMENT};
use super::found::Found;
use super::lines::{Ending, LONGEST_LINE, Lines};
use super::{gobench, google, hyperfine, jsonl, perf_stat};
use crate::sample::Record;

/// So far into the input a reader looks for a line that tells its format.
const SNIFFED: usize = 64 << 10;

/// The formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Our own records, as JSON Lines.
    Jsonl,
    /// The Go benchmark format, of any tool.
    Gobench,
    /// The lines of `perf stat -j`.
    PerfStat,
    /// What hyperfine exports as JSON.
    Hyperfine,
    /// The JSON of Google Benchmark.
    GoogleBenchmark,
}

/// One thing that was read.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A benchmark line of the Go format, lent: [`gobench::Line::to_sample`] makes a record of it.
    Line(gobench::Line<'a>),
    /// Anything else, and samples of other formats.
    Record(Record),
}

/// Reads a stream record by record.
///
/// The iterator gives records of their own; [`Reader::entry`] lends the lines of the Go format
/// instead, which is several times as fast. What cannot be understood comes out as
/// [`Record::Syntax`], and reading goes on. An error of the input ends the stream and is found in
/// [`Reader::error`].
///
/// Lines are read as they come: memory is bounded by the longest line. The JSON documents of
/// hyperfine and Google Benchmark are held whole, up to 256 MiB.
///
/// Only our own records have headers, and only samples between a header and its end stand in
/// rounds; in all other formats the order counts the samples of the file and says no more.
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    form: Option<Form>,
    found: Found,
    error: Option<io::Error>,
    over: bool,
}

/// What each format remembers from line to line.
#[derive(Debug)]
enum Form {
    Jsonl(jsonl::Decoder),
    Gobench(gobench::Decoder),
    PerfStat(perf_stat::Decoder),
    Hyperfine(Option<Document>),
    GoogleBenchmark(Option<(Document, google::Decoder)>),
}

/// What one step forward gave.
enum Step {
    /// A benchmark line, which the decoder holds.
    Line,
    /// Perhaps records; more may come.
    More,
    /// The end of the input.
    End,
}

impl<R: Read> Reader<R> {
    /// A reader of `input`, in whatever format it turns out to be; `file` is its name in messages.
    /// Reads nothing yet.
    pub fn new(file: impl Into<String>, input: R) -> Reader<R> {
        Reader {
            lines: Lines::new(input),
            form: None,
            found: Found::new(file.into()),
            error: None,
            over: false,
        }
    }

    /// A reader of `input` that takes it for `source` without looking.
    pub fn of(source: Source, file: impl Into<String>, input: R) -> Reader<R> {
        Reader {
            form: Some(Form::new(source)),
            ..Reader::new(file, input)
        }
    }

    /// The format, once something was read.
    pub fn source(&self) -> Option<Source> {
        self.form.as_ref().map(Form::source)
    }

    /// Whether all that was read is whole: every line could be understood, and in our own records
    /// there was a run, every run stood between its header and its end, and the end's numbers of
    /// samples and failures are those that were read. Means something once the stream is over.
    pub fn whole(&self) -> bool {
        let complete = match &self.form {
            Some(Form::Jsonl(decoder)) => decoder.whole(),
            _ => self.lines.number() > 0,
        };
        self.found.sound() && self.error.is_none() && complete
    }

    /// The error of the input that ended the stream, if one did.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// The next thing in the stream, which may be lent until the one after it is asked for.
    pub fn entry(&mut self) -> Option<Entry<'_>> {
        loop {
            if let Some(record) = self.found.pop() {
                return Some(Entry::Record(record));
            }
            if self.over {
                return None;
            }
            match self.step() {
                Ok(Step::Line) => break,
                Ok(Step::More) => {}
                Ok(Step::End) => self.over = true,
                Err(error) => {
                    self.error = Some(error);
                    self.over = true;
                }
            }
        }
        match &self.form {
            Some(Form::Gobench(decoder)) => Some(Entry::Line(decoder.line(self.lines.text()))),
            _ => None,
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        let Reader {
            lines, form, found, ..
        } = self;
        let form = match form {
            Some(form) => form,
            None => form.insert(Form::new(sniff(lines)?)),
        };
        if let Form::Hyperfine(None) | Form::GoogleBenchmark(None) = form {
            return open(form, lines, found);
        }
        let more = |more| if more { Step::More } else { Step::End };
        match form {
            Form::Hyperfine(Some(document)) => {
                return Ok(more(hyperfine::decode(document, found)));
            }
            Form::GoogleBenchmark(Some((document, decoder))) => {
                return Ok(more(decoder.decode(document, found)));
            }
            _ => {}
        }
        let Some(ending) = lines.advance()? else {
            match form {
                Form::Gobench(decoder) => decoder.end(lines.number(), found),
                Form::PerfStat(decoder) => decoder.flush(found),
                _ => {}
            }
            return Ok(Step::End);
        };
        let (text, at) = (lines.text(), lines.number());
        match form {
            Form::Jsonl(decoder) => decoder.decode(text, ending, at, found),
            _ if ending == Ending::TooLong => found.syntax(at, too_long()),
            Form::Gobench(decoder) => {
                if decoder.decode(text, at, found) {
                    return Ok(Step::Line);
                }
            }
            Form::PerfStat(decoder) => decoder.decode(text, at, found),
            Form::Hyperfine(_) | Form::GoogleBenchmark(_) => {}
        }
        Ok(Step::More)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.entry().map(|entry| match entry {
            Entry::Line(line) => Record::Sample(line.to_sample()),
            Entry::Record(record) => record,
        })
    }
}

impl Form {
    fn new(source: Source) -> Form {
        match source {
            Source::Jsonl => Form::Jsonl(jsonl::Decoder::default()),
            Source::Gobench => Form::Gobench(gobench::Decoder::default()),
            Source::PerfStat => Form::PerfStat(perf_stat::Decoder::default()),
            Source::Hyperfine => Form::Hyperfine(None),
            Source::GoogleBenchmark => Form::GoogleBenchmark(None),
        }
    }

    fn source(&self) -> Source {
        match self {
            Form::Jsonl(_) => Source::Jsonl,
            Form::Gobench(_) => Source::Gobench,
            Form::PerfStat(_) => Source::PerfStat,
            Form::Hyperfine(_) => Source::Hyperfine,
            Form::GoogleBenchmark(_) => Source::GoogleBenchmark,
        }
    }
}

/// Takes in the whole document of a form that has one.
fn open<R: Read>(form: &mut Form, lines: &mut Lines<R>, found: &mut Found) -> io::Result<Step> {
    let Some(text) = lines.rest(LONGEST_DOCUMENT)? else {
        found.syntax(1, format!("longer than {} MiB", LONGEST_DOCUMENT >> 20));
        return Ok(Step::End);
    };
    let array = match form {
        Form::Hyperfine(_) => hyperfine::ARRAY,
        _ => google::ARRAY,
    };
    let document = match Document::new(text, array) {
        Ok(document) => document,
        Err(fault) => {
            found.syntax(fault.line, fault.message);
            return Ok(Step::End);
        }
    };
    match form {
        Form::Hyperfine(inside) => *inside = Some(document),
        Form::GoogleBenchmark(inside) => {
            let decoder = google::Decoder::new(&document);
            *inside = Some((document, decoder));
        }
        Form::Jsonl(_) | Form::Gobench(_) | Form::PerfStat(_) => {}
    }
    Ok(Step::More)
}

pub(super) fn too_long() -> String {
    format!("longer than {} MiB", LONGEST_LINE >> 20)
}

/// The format of what comes, from its first line that tells; the Go format when none does, for
/// that passes over whatever it does not know.
fn sniff<R: Read>(lines: &mut Lines<R>) -> io::Result<Source> {
    let mut wanted = 1;
    loop {
        let seen = lines.peek(wanted)?;
        let all = seen.len() < wanted;
        let seen = &seen[..seen.len().min(SNIFFED)];
        match tell(seen, all || seen.len() == SNIFFED) {
            Told::Source(source) => return Ok(source),
            Told::More => wanted = seen.len() + 1,
        }
    }
}

enum Told {
    Source(Source),
    /// More has to be seen.
    More,
}

/// What `text` tells; `all` when more of it cannot be had.
fn tell(text: &[u8], all: bool) -> Told {
    let mut rest = text;
    loop {
        let newline = memchr::memchr(b'\n', rest);
        if newline.is_none() && !all {
            return Told::More;
        }
        let line = &rest[..newline.unwrap_or(rest.len())];
        let begin = line.trim_ascii_start();
        if begin.starts_with(b"Benchmark") {
            return Told::Source(Source::Gobench);
        }
        if begin.starts_with(b"{") {
            let object = &rest[line.len() - begin.len()..];
            match first_key(object) {
                None if !all => return Told::More,
                None => {}
                Some(key) => return Told::Source(by_key(key, line)),
            }
        }
        match newline {
            Some(at) => rest = &rest[at + 1..],
            None => return Told::Source(Source::Gobench),
        }
    }
}

/// The format of a JSON object that begins with `key`, in the line `line`.
fn by_key(key: &[u8], line: &[u8]) -> Source {
    let has = |word: &[u8]| memchr::memmem::find(line, word).is_some();
    match key {
        b"results" => Source::Hyperfine,
        b"context" | b"benchmarks" => Source::GoogleBenchmark,
        b"record" => Source::Jsonl,
        _ if has(b"\"counter-value\"") || has(b"\"metric-value\"") => Source::PerfStat,
        _ => Source::Jsonl,
    }
}

/// The first key of the object that begins `text`, when it stands there whole.
fn first_key(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"{")?.trim_ascii_start();
    let key = inside.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', key)?;
    Some(&key[..end])
}

#[cfg(test)]
pub(super) mod tests;
