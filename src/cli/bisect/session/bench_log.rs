//! benchmany's bench.log, read once and appended to. Never decides what is run.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use super::super::super::remark;
use super::Session;
use crate::bisect::record::{ALONE, BUILD, FROM, OUTPUT};
use crate::format::{Reader, Source};
use crate::sample::{Failure, Figure, Name, Record, Sample};

impl Session<'_> {
    /// Appends a run to the user's bench.log: what it printed when that has benchmarks, else its
    /// own time as one.
    pub(super) fn write_bench_log(
        &self,
        sample: &Sample,
        samples: &[Sample],
        output: &Path,
    ) -> anyhow::Result<()> {
        if self.setting.arguments.bench_log.is_none() {
            return Ok(());
        }
        let text = match samples.is_empty() {
            false => String::from_utf8_lossy(&fs::read(output)?).into_owned(),
            true => {
                let sec = sample
                    .figure("sec/op")
                    .and_then(Figure::number)
                    .unwrap_or(0.0);
                format!("Benchmark{} 1 {} ns/op\n", sample.benchmark, sec * 1e9)
            }
        };
        let commit = self
            .line
            .place(&sample.variant)
            .map(|place| &self.line.commits[place]);
        let date = commit.map_or("", |commit| &commit.date);
        self.bench_log(&format!(
            "commit: {}\ncommit-time: {date}\n\n{text}\n",
            sample.variant
        ))
    }

    pub(super) fn bench_log(&self, text: &str) -> anyhow::Result<()> {
        let Some(path) = &self.setting.arguments.bench_log else {
            return Ok(());
        };
        let file = File::options().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Learns what a bench.log tells that is there already. Its runs stood beside nothing, so they
    /// count only where figures do not vary.
    pub(super) fn import(&mut self) -> anyhow::Result<()> {
        let Some(path) = &self.setting.arguments.bench_log else {
            return Ok(());
        };
        let Ok(text) = fs::read_to_string(path) else {
            return Ok(());
        };
        let mut runs = 0;
        for block in text
            .split_inclusive('\n')
            .fold(Vec::<String>::new(), |mut blocks, line| {
                let begins = ["commit: ", "# FAILED at ", "# BUILD FAILED at "];
                if begins.iter().any(|begin| line.starts_with(begin)) || blocks.is_empty() {
                    blocks.push(String::new());
                }
                if let Some(last) = blocks.last_mut() {
                    last.push_str(line);
                }
                blocks
            })
        {
            let first = block.lines().next().unwrap_or_default();
            let order = self.order(0);
            if let Some(id) = first.strip_prefix("# BUILD FAILED at ") {
                self.record(Record::Failure(Failure {
                    benchmark: Name::new(BUILD),
                    variant: id.to_owned(),
                    order,
                    why: format!("it cannot be built, says {}", path.display()),
                    stderr: String::new(),
                }))?;
            } else if let Some(id) = first.strip_prefix("commit: ") {
                let reader = Reader::of(Source::Gobench, path.to_string_lossy(), block.as_bytes());
                for record in reader {
                    let Record::Sample(mut sample) = record else {
                        continue;
                    };
                    sample.variant = id.to_owned();
                    sample.order = order;
                    sample.config = [(FROM, OUTPUT), (ALONE, "yes")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into();
                    self.record(Record::Sample(sample))?;
                }
                self.flush();
                runs += 1;
            }
        }
        if runs > 0 && !self.setting.arguments.quiet {
            remark(&format!("{} tells of {runs} runs", path.display()));
        }
        Ok(())
    }
}
