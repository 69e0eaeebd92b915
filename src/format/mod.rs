//! File formats: records written as JSON Lines, in the Go benchmark format or as CSV; read back from the first two, and from what other tools write. Knows bytes and records alone: never opens a file, never computes with a figure but to bring it to base units.
//!
//! | format | written | read |
//! |---|---|---|
//! | [`jsonl`] | everything | everything, as it was |
//! | [`gobench`] | what benchstat can use, with the trust in the unit's name | of any tool |
//! | [`csv`] | one row a value with its trust, for spreadsheets | |
//! | [`perf_stat`] | | what `perf stat -j` prints |
//! | [`hyperfine`] | | what `--export-json` leaves |
//! | [`google`] | | the JSON of Google Benchmark |
//! | [`pprof`] | | where a Go program allocated, which is no stream of records |
//!
//! A [`Record::Syntax`] is what a reader makes of a bad line, not part of a stream: no format
//! writes it. A figure that is not a finite number is written and read as absent.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use crate::sample::{Figure, Record};

pub mod csv;
mod document;
mod found;
pub mod gobench;
pub mod google;
pub mod hyperfine;
pub mod jsonl;
mod lines;
pub mod perf_stat;
pub mod pprof;
mod reader;
mod wire;

pub use reader::{Entry, Reader, Source};

/// The formats that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// JSON Lines: the record stream itself.
    #[default]
    Jsonl,
    /// The Go benchmark format, for benchstat.
    Gobench,
    /// Comma-separated values, one row a value.
    Csv,
}

/// A word that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format `{0}`: the formats are jsonl, gobench and csv")]
pub struct UnknownFormat(pub String);

impl Format {
    /// The format of a file that begins so, if we have written it.
    pub fn of(beginning: &[u8]) -> Format {
        if beginning.starts_with(b"{") {
            Format::Jsonl
        } else if beginning.starts_with(csv::COLUMNS.join(",").as_bytes()) {
            Format::Csv
        } else {
            Format::Gobench
        }
    }

    /// The word by which a user names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Gobench => "gobench",
            Format::Csv => "csv",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Format, UnknownFormat> {
        let known = [Format::Jsonl, Format::Gobench, Format::Csv];
        let found = known.into_iter().find(|format| format.as_str() == word);
        found.ok_or_else(|| UnknownFormat(word.to_owned()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Writes records in one format. Every record is handed over whole and flushed, so that a run
/// that is cut short leaves what was measured.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    form: Form,
}

/// What each format remembers from record to record.
#[derive(Debug)]
enum Form {
    Jsonl,
    Gobench(gobench::Encoder),
    Csv(csv::Encoder),
}

impl<W: Write> Writer<W> {
    /// A writer at the beginning of a stream. Writes nothing yet.
    pub fn new(format: Format, out: W) -> Writer<W> {
        let form = match format {
            Format::Jsonl => Form::Jsonl,
            Format::Gobench => Form::Gobench(gobench::Encoder::default()),
            Format::Csv => Form::Csv(csv::Encoder::default()),
        };
        Writer { out, form }
    }

    /// A writer behind what an earlier one wrote in the same format: column names stand there
    /// already.
    pub fn resume(format: Format, out: W) -> Writer<W> {
        let mut writer = Writer::new(format, out);
        if let Form::Csv(encoder) = &mut writer.form {
            encoder.resume();
        }
        writer
    }

    /// Writes one record and flushes. After an error the record may stand there in part.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = match &mut self.form {
            Form::Jsonl => jsonl::encode(record)?,
            Form::Gobench(encoder) => encoder.encode(record),
            Form::Csv(encoder) => encoder.encode(record)?,
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// The figure as a file may hold it: absent when one of its numbers is not finite.
fn finite(figure: &Figure) -> Cow<'_, Figure> {
    let label = match *figure {
        Figure::Scaled { running, .. } => running,
        Figure::Sampled { period_sec, .. } => period_sec,
        Figure::Exact(_)
        | Figure::Partial { .. }
        | Figure::Estimated { .. }
        | Figure::Absent { .. } => 0.0,
    };
    if label.is_finite() && figure.number().is_none_or(f64::is_finite) {
        Cow::Borrowed(figure)
    } else {
        Cow::Owned(Figure::absent("not a finite number"))
    }
}

/// A number at full precision and as short as that goes: `2.06e-7`, `250000`, `0.5`.
fn number(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || (1e-4..1e16).contains(&size) {
        format!("{x}")
    } else {
        format!("{x:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Part;

    #[test]
    fn formats_go_by_their_words() {
        for format in [Format::Jsonl, Format::Gobench, Format::Csv] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown format `xml`: the formats are jsonl, gobench and csv"
        );
    }

    #[test]
    fn numbers_are_short_and_whole() {
        let check = |x: f64, want: &str| {
            assert_eq!(number(x), want);
            assert_eq!(number(x).parse(), Ok(x));
        };
        check(0.0, "0");
        check(250_000.0, "250000");
        check(2.06e-7, "2.06e-7");
        check(-0.1, "-0.1");
        check(1.0 / 3.0, "0.3333333333333333");
        check(1e300, "1e300");
        check(9_007_199_254_740_993.0, "9007199254740992");
        check(5e-324, "5e-324");
    }

    #[test]
    fn a_figure_that_is_no_number_is_absent() {
        let absent = Figure::absent("not a finite number");
        for figure in [
            Figure::Exact(f64::NAN),
            Figure::Scaled {
                value: f64::INFINITY,
                running: 0.5,
            },
            Figure::Scaled {
                value: 1.0,
                running: f64::NAN,
            },
            Figure::Partial {
                value: f64::NEG_INFINITY,
                part: Part("user mode only".into()),
            },
            Figure::Sampled {
                value: 1.0,
                period_sec: f64::INFINITY,
            },
        ] {
            assert_eq!(*finite(&figure), absent, "{figure:?}");
        }
        assert_eq!(*finite(&Figure::Exact(1.0)), Figure::Exact(1.0));
        assert_eq!(*finite(&Figure::absent("no PMU")), Figure::absent("no PMU"));
    }

    /// Takes some bytes and then no more, as a full disk does.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(taken)
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut writer = Writer::new(Format::Jsonl, Full(30));
        let error = writer.write(&Record::End(Default::default())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
