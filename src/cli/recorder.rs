//! Where records go as they are made: to the file, into the summary, and as one line of progress. Never changes a record.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::OutputOptions;
use crate::format::Writer;
use crate::machine::facts::{Facts, Roots};
use crate::report::summary::Stream;
use crate::run::Tally;
use crate::sample::{Header, Record, UnitMeta, Warning};
use crate::unit::{Assume, Unit, human};

/// Takes the records of one run.
pub(super) struct Recorder {
    writer: Option<Writer<Box<dyn Write>>>,
    described: HashSet<Unit>,
    progress: Option<Progress>,
    quiet: bool,
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
            Some(format) => Some(Writer::new(format, open_output(options)?)),
        };
        Ok(Recorder {
            writer,
            described: HashSet::new(),
            progress: None,
            quiet: options.quiet,
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
            Some(_) => "{prefix} {wide_bar} {pos}/{len} eta {eta} {msg}",
            None => "{prefix} {spinner} {pos} {elapsed} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        self.progress = Some(Progress { bar, unit });
    }

    /// Says the doubts about the whole run and writes the header. The machine's facts are gathered
    /// only when somebody will read them.
    pub(super) fn begin(&mut self, seed: u64, warnings: Vec<Warning>) -> io::Result<()> {
        if !self.quiet {
            warnings
                .iter()
                .for_each(|Warning(doubt)| super::remark(doubt));
        }
        if self.writer.is_none() {
            return Ok(());
        }
        self.take(Record::Header(Header {
            tool: concat!("poise ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            seed,
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            machine: Facts::header(&Roots::default()),
            warnings,
        }))
    }

    /// Takes one record.
    pub(super) fn take(&mut self, record: Record) -> io::Result<()> {
        if let Some(writer) = &mut self.writer {
            if let Record::Sample(sample) = &record {
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
            writer.write(&record)?;
        }
        self.stream.take(record);
        if let Some(progress) = &self.progress {
            progress.advance(&self.stream);
        }
        Ok(())
    }

    /// Ends the run: writes the end unless it was cut short, and gives what was taken.
    pub(super) fn finish(mut self, tally: Option<&Tally>) -> io::Result<Stream> {
        if let Some(progress) = &self.progress {
            progress.bar.finish_and_clear();
        }
        if let (Some(writer), Some(tally)) = (&mut self.writer, tally)
            && tally.interrupted.is_none()
        {
            writer.write(&Record::End(tally.end))?;
        }
        Ok(self.stream)
    }
}

impl Progress {
    fn advance(&self, stream: &Stream) {
        self.bar.set_position(
            stream
                .benchmarks
                .iter()
                .map(|benchmark| benchmark.samples.len() as u64)
                .max()
                .unwrap_or(0),
        );
        let Some(benchmark) = stream.benchmarks.last() else {
            return;
        };
        self.bar.set_prefix(benchmark.name.to_string());
        // A recent window: the whole series would cost more and more.
        let recent = benchmark.samples.len().saturating_sub(32);
        let figures = benchmark.samples[recent..]
            .iter()
            .filter_map(|sample| sample.figure(self.unit.as_str())?.number());
        if let Some(median) = crate::stats::order::median(&figures.collect::<Vec<f64>>()) {
            self.bar
                .set_message(format!("{} {}", human(&self.unit, median), self.unit));
        }
    }
}

fn open_output(options: &OutputOptions) -> anyhow::Result<Box<dyn Write>> {
    let Some(path) = &options.file else {
        return Ok(Box::new(io::stdout()));
    };
    let opened = match options.append {
        true => open_to_append(path),
        false => File::create(path),
    };
    Ok(Box::new(opened.with_context(|| {
        format!("cannot write {}", path.display())
    })?))
}

/// Opens a file to append to. A line that was cut short there is ended first, so that it does not
/// swallow ours.
fn open_to_append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 && file.metadata()?.is_file() {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}
