//! What verdicts mean to whoever runs us: an exit code, and a file for machines. Never judges.

use std::fs;
use std::path::Path;

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

/// Writes `verdicts` to the file at `path`, as JSON.
pub(super) fn write(path: &Path, gate: Gate, verdicts: Vec<Value>) -> anyhow::Result<()> {
    let document = json!({
        "schema": 1,
        "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
        "gate": word(gate),
        "verdicts": verdicts,
    });
    let text = serde_json::to_string_pretty(&document)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
