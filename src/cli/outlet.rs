//! A file for results. It is made before anything is measured: whether it can be written must not turn out at the end, and what an earlier run has left must not be taken for this one's. Never appends.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::format::{Format, Writer};
use crate::machine::facts::{Facts, Roots};
use crate::sample::{Header, Record};

/// The file.
pub(super) struct Outlet {
    path: PathBuf,
    file: File,
}

impl Outlet {
    /// Makes the file at `path`, empty.
    pub(super) fn create(path: &Path) -> anyhow::Result<Outlet> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Outlet {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes all that there is to say.
    pub(super) fn write(mut self, text: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes the records that `records` makes of a header, `took` after it all began.
    pub(super) fn record(
        self,
        took: Duration,
        records: impl FnOnce(Header) -> Vec<Record>,
    ) -> anyhow::Result<()> {
        let header = Header {
            tool: concat!("poise ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: humantime::format_rfc3339_seconds(SystemTime::now() - took).to_string(),
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            machine: Facts::header(&Roots::default()),
            ..Header::default()
        };
        let mut writer = Writer::new(Format::Jsonl, BufWriter::new(&self.file));
        for record in records(header) {
            let written = writer.write(&record);
            written.with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(())
    }
}
