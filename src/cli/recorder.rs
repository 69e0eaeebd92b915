//! Where records go as they are made: to the file, into the summary, and as one line of progress. Never changes a record.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Usage;
use super::hold::Stage;
use super::options::OutputOptions;
use crate::compare;
use crate::format::{Format, Writer};
use crate::machine::facts::{Facts, Roots};
use crate::report::summary::Stream;
use crate::run::{self, Tally};
use crate::sample::{Header, Record, UnitMeta, Warning};
use crate::unit::{Assume, Unit, human};

/// Takes the records of one run.
pub(super) struct Recorder {
    writer: Option<Writer<Box<dyn Write>>>,
    described: HashSet<Unit>,
    progress: Option<Progress>,
    quiet: bool,
    /// For the header, beside the machine's own.
    facts: Vec<(String, String)>,
    stream: Stream,
}

struct Progress {
    bar: ProgressBar,
    unit: Unit,
}

impl Recorder {
    /// Opens the file that the user wants, if any.
    pub(super) fn open(options: &OutputOptions) -> anyhow::Result<Recorder> {
        let writer = match options.record_format() {
            None => None,
            Some(format) => Some(open_output(format, options)?),
        };
        Ok(Recorder {
            writer,
            described: HashSet::new(),
            progress: None,
            quiet: options.quiet,
            facts: Vec::new(),
            stream: Stream::default(),
        })
    }

    /// Shows progress on a terminal: `rounds` if known, and the current estimate of `unit`.
    pub(super) fn show_progress(
        &mut self,
        options: &OutputOptions,
        rounds: Option<u64>,
        unit: Unit,
    ) {
        if options.quiet || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(rounds, ProgressDrawTarget::stderr_with_hz(8));
        let template = match rounds {
            Some(_) => "{prefix} {wide_bar} {pos}/{len} {left} {msg}",
            None => "{prefix} {spinner} {pos} {elapsed} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("left", left));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        self.progress = Some(Progress { bar, unit });
    }

    /// Keeps one more fact of the run for its header.
    pub(super) fn fact(&mut self, key: &str, value: String) {
        self.facts.push((key.to_owned(), value));
    }

    /// Tells in the header that all is of the variant with this name, if the user has named it.
    pub(super) fn variant(&mut self, name: &str) -> anyhow::Result<()> {
        if name != "base" {
            self.fact(compare::VARIANTS, serde_json::to_string(&[name])?);
        }
        Ok(())
    }

    /// Says how the stage is set and what else is doubtful of the whole run, and writes the header.
    /// The machine's facts are gathered only when somebody will read them; what the stage changes
    /// of them stands as it changes it.
    pub(super) fn begin(
        &mut self,
        seed: u64,
        stage: &Stage,
        doubts: Vec<Warning>,
    ) -> io::Result<()> {
        if !self.quiet {
            stage.remark();
            doubts
                .iter()
                .for_each(|Warning(doubt)| super::remark(doubt));
        }
        if self.writer.is_none() {
            return Ok(());
        }
        let roots = Roots::default();
        let mut machine = Facts::header(&roots);
        machine.extend(stage.surroundings.header(&Facts::new(&roots)));
        machine.insert("hold".to_owned(), stage.held.words());
        machine.insert("user".to_owned(), stage.identity.word());
        machine.extend(self.facts.drain(..));
        self.take(Record::Header(Header {
            tool: concat!("poise ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            seed,
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            machine,
            warnings: [&stage.doubts[..], &doubts].concat(),
        }))
    }

    /// Takes one record. What cannot be written is in the summary all the same.
    pub(super) fn take(&mut self, record: Record) -> io::Result<()> {
        let written = self.write(&record);
        self.stream.take(record);
        if let Some(progress) = &self.progress {
            progress.advance(&self.stream);
        }
        written
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        if let Record::Sample(sample) = record {
            for value in &sample.values {
                if self.described.insert(value.unit.clone()) {
                    let (unit, better) = (value.unit.clone(), value.unit.better());
                    writer.write(&Record::Unit(UnitMeta {
                        unit,
                        better,
                        assume: Assume::Nothing,
                    }))?;
                }
            }
        }
        writer.write(record)
    }

    /// Ends the run: writes the end unless it was cut short, and gives what was taken together
    /// with how it went.
    pub(super) fn finish(
        mut self,
        driven: Result<Tally, run::Error>,
    ) -> (Stream, Result<Tally, run::Error>) {
        if let Some(progress) = &self.progress {
            progress.bar.finish_and_clear();
        }
        let ended = driven.and_then(|tally| {
            if tally.interrupted.is_none() {
                let end = self.write(&Record::End(tally.end));
                end.map_err(run::Error::Output)?;
            }
            Ok(tally)
        });
        (self.stream, ended)
    }
}

impl Progress {
    fn advance(&self, stream: &Stream) {
        self.bar.set_position(
            stream
                .benchmarks
                .iter()
                .map(|benchmark| benchmark.samples as u64)
                .max()
                .unwrap_or(0),
        );
        let Some(benchmark) = stream.benchmarks.last() else {
            return;
        };
        self.bar.set_prefix(benchmark.name.to_string());
        let Some(series) = benchmark.series(self.unit.as_str()) else {
            return;
        };
        // A recent window: the whole series would cost more and more.
        let recent = series.figures.len().saturating_sub(32);
        if let Some(median) = crate::stats::order::median(&series.figures[recent..]) {
            self.bar
                .set_message(format!("{} {}", human(&self.unit, median), self.unit));
        }
    }
}

/// How long it will still take, as soon as something is done to tell it from.
fn left(state: &ProgressState, text: &mut dyn fmt::Write) {
    if state.pos() > 0 {
        let _ = write!(text, "eta {:#}", HumanDuration(state.eta()));
    }
}

fn open_output(format: Format, options: &OutputOptions) -> anyhow::Result<Writer<Box<dyn Write>>> {
    let Some(path) = options.path() else {
        return Ok(Writer::new(format, Box::new(io::stdout())));
    };
    // A limit on the size of files shall fail the write, not end us; programs that we execute have
    // the signal's default again.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    let opened = match options.append {
        true => {
            let old = beginning(path);
            let kind = Format::of(&old);
            if !old.is_empty() && kind != format {
                let path = path.display();
                return Err(Usage {
                    message: format!("{path} holds {kind}, to which {format} cannot be appended"),
                    hint: Some(format!("--format {kind}, or another file")),
                }
                .into());
            }
            open_to_append(path)
        }
        false => File::create(path),
    };
    let file = opened.with_context(|| format!("cannot write {}", path.display()))?;
    match file.metadata() {
        Ok(facts) if facts.len() > 0 => Ok(Writer::resume(format, Box::new(file))),
        _ => Ok(Writer::new(format, Box::new(file))),
    }
}

/// The first bytes of a file; none of what is no file, or cannot be read.
fn beginning(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if path.is_file()
        && let Ok(file) = File::open(path)
    {
        // What could not be read is taken for what we want to write.
        let _ = file.take(512).read_to_end(&mut bytes);
    }
    bytes
}

/// Opens `path` so that what is written begins a line, also behind a line that was cut short.
fn open_to_append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let about = file.metadata()?;
    let mut last = *b"\n";
    if about.is_file() && about.len() > 0 {
        // A file that we may write but not read is taken to be whole.
        let _ = File::open(path).and_then(|old| old.read_exact_at(&mut last, about.len() - 1));
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_begins_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let check = |before: Option<&str>, want: &str| {
            if let Some(before) = before {
                std::fs::write(&path, before).unwrap();
            }
            open_to_append(&path).unwrap().write_all(b"new").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), want);
        };
        check(None, "new");
        check(Some(""), "new");
        check(Some("old\n"), "old\nnew");
        check(Some("cut sho"), "cut sho\nnew");
        assert!(open_to_append("/dev/null".as_ref()).is_ok());
    }
}
