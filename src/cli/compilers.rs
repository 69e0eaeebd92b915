//! What the verbs that hold two compilers against each other share: compilers as users name them, their flags, a bar, and where records go. Never compiles.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Usage;
use crate::report::identical::Who;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::saved::{MARK, Shelf};
use crate::run::compiler::{Compiler, Language};

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
    Ok(found.map_err(Usage::from)?)
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

/// The words of flags as a shell would divide them.
pub(super) fn words(text: &str) -> Result<Vec<OsString>, Usage> {
    let words = shlex::split(text);
    let words = words.ok_or_else(|| Usage::new(format!("`{text}` has an open quote")))?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// The flags of one side; those for both first.
pub(super) fn flags(both: &[String], own: &[String]) -> Result<Vec<OsString>, Usage> {
    let all = both.iter().chain(own).map(|text| words(text));
    Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
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
