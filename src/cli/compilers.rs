//! What the verbs that hold two compilers against each other share: compilers as users name them, their flags, a bar, and where records go. Never compiles.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Usage;
use crate::format::{Format, Writer};
use crate::machine::facts::{Facts, Roots};
use crate::report::identical::Who;
use crate::run;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::saved::{MARK, Shelf};
use crate::run::compiler::{Compiler, Language};
use crate::sample::{Cause, Header, Record};

/// A language, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Lang {
    Go,
    C,
    Rust,
}

impl From<Lang> for Language {
    fn from(lang: Lang) -> Language {
        match lang {
            Lang::Go => Language::Go,
            Lang::C => Language::C,
            Lang::Rust => Language::Rust,
        }
    }
}

/// The compiler that the user named; one that is saved by its mark.
pub(super) fn find(
    named: &str,
    language: Option<Language>,
    limits: Limits<'_>,
) -> anyhow::Result<Compiler> {
    let found = match named.strip_prefix(MARK) {
        None => Compiler::find(named, language, limits),
        Some(name) => Shelf::usual().and_then(|shelf| {
            let saved = shelf.find(name)?;
            let go = Go::alone(&shelf.compiler(&saved), limits)?;
            Ok(Compiler::Go(Box::new(go)))
        }),
    };
    found.map_err(usage)
}

/// A compiler with its flags, as reports tell of it.
pub(super) fn who(programs: &[(&Path, &str)], version: &str, flags: &[OsString]) -> Who {
    let flags = flags.iter().map(|flag| flag.to_string_lossy());
    let told =
        |(program, sha256): &(&Path, &str)| (program.display().to_string(), (*sha256).to_owned());
    let (program, sha256) = programs.first().map(told).unwrap_or_default();
    Who {
        version: version.to_owned(),
        program,
        sha256,
        proper: programs.get(1).map(told),
        flags: flags.collect::<Vec<_>>().join(" "),
    }
}

/// The words of flags as a shell would divide them; those for both first.
pub(super) fn words(both: &[String], own: &[String]) -> anyhow::Result<Vec<OsString>> {
    let mut all = Vec::new();
    for flags in both.iter().chain(own) {
        let words = shlex::split(flags)
            .ok_or_else(|| Usage::new(format!("a quote is not closed in `{flags}`")))?;
        all.extend(words.into_iter().map(OsString::from));
    }
    Ok(all)
}

pub(super) fn usage(cause: Cause) -> anyhow::Error {
    anyhow::Error::new(Usage {
        message: cause.why,
        hint: cause.cure,
    })
}

pub(super) fn refused(cause: Cause) -> anyhow::Error {
    anyhow::Error::new(run::Error::Refused(cause))
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress(quiet: bool, message: &'static str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Where the records go: made before anything is compiled, for whether it can be written must not
/// turn out at the end.
pub(super) struct Outlet {
    path: PathBuf,
    file: File,
}

impl Outlet {
    pub(super) fn create(path: &Path) -> anyhow::Result<Outlet> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Outlet {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes what a report makes of a header, `took` after it all began.
    pub(super) fn write(
        &mut self,
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
