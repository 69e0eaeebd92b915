//! What verdicts mean to whoever runs us: an exit code, and a file for machines. Never judges.

use serde_json::{Value, json};

use super::exit;
use crate::compare::Tables;
use crate::report::tables;
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

/// The line by which GitHub shows `message` beside a change: as an error, a warning, or not at all.
pub(super) fn annotation(gate: Gate, message: &str) -> String {
    let kind = match gate {
        Gate::Pass => return String::new(),
        Gate::Fail => "error",
        Gate::Undecided => "warning",
    };
    let escaped = message
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A");
    format!("::{kind}::{escaped}\n")
}

/// The verdicts of all `tables`.
pub(super) fn of(tables: &Tables, are_chosen: bool) -> impl Iterator<Item = Value> {
    tables::verdicts(tables).into_iter().map(move |mut one| {
        one["chosen"] = json!(are_chosen);
        one
    })
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
