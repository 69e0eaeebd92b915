//! What verdicts mean to whoever runs us: an exit code, and a file for machines. Never judges.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::exit;
use crate::stats::comparison::Gate;

/// The exit code that tells the gate.
pub(super) fn code(gate: Gate) -> u8 {
    match gate {
        Gate::Pass => 0,
        Gate::Fail => exit::REGRESSED,
        Gate::Undecided => exit::INCONCLUSIVE,
    }
}

/// The gate's word in files.
pub(super) fn word(gate: Gate) -> &'static str {
    match gate {
        Gate::Pass => "pass",
        Gate::Fail => "fail",
        Gate::Undecided => "undecided",
    }
}

/// A file that verdicts go to. It is made before anything is measured: whether it can be written
/// must not turn out at the end, and what an earlier run has left must not be taken for this one's.
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
}

/// `verdicts` as a JSON document.
pub(super) fn document(gate: Gate, verdicts: Vec<Value>) -> anyhow::Result<String> {
    let document = json!({
        "schema": 1,
        "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
        "gate": word(gate),
        "verdicts": verdicts,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
