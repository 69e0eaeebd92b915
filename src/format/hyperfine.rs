//! The JSON that hyperfine exports. Read, never written; held whole in memory while it is read, up to 256 MiB.
//!
//! Every run in `times` is a sample in `sec/op`, with `peak-RSS-bytes` where hyperfine kept that.
//! `user` and `system` are means over all runs and no values of any one of them, so they are left
//! out. A run that did not exit with 0 is a failure. The command is the benchmark's name, and
//! hyperfine's parameters are the name's.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::document::{Document, Fault};
use super::finite;
use super::found::Found;
use crate::sample::{Failure, Figure, Name, Order, Record, Sample, Value};

/// The array that holds the benchmarks.
pub(super) const ARRAY: &str = "results";

/// The fields of a benchmark that are used; the others are summaries of these.
#[derive(Deserialize)]
struct Benchmark {
    command: String,
    times: Option<Vec<f64>>,
    exit_codes: Option<Vec<Option<i64>>>,
    memory_usage_byte: Option<Vec<f64>>,
    parameters: Option<BTreeMap<String, Json>>,
}

/// Takes the next benchmark out of `document`; `false` when there is none.
pub(super) fn decode(document: &mut Document, found: &mut Found) -> bool {
    match document.element() {
        None => return false,
        Some(Err(Fault { line, message })) => found.syntax(line, message),
        Some(Ok(benchmark)) => records(benchmark, found),
    }
    true
}

fn records(benchmark: Benchmark, found: &mut Found) {
    let codes = benchmark.exit_codes.unwrap_or_default();
    let memory = benchmark.memory_usage_byte.unwrap_or_default();
    let parameters = benchmark.parameters.unwrap_or_default();
    let name =
        parameters.iter().fold(
            Name::new(&benchmark.command),
            |name, (key, value)| match value {
                Json::String(text) => name.with(key, text),
                other => name.with(key, other),
            },
        );
    for (run, &seconds) in benchmark.times.unwrap_or_default().iter().enumerate() {
        let order = Order {
            sequence: found.next_number(),
            ..Order::default()
        };
        let (benchmark, variant) = (name.clone(), "base".to_owned());
        let why = match codes.get(run) {
            None | Some(Some(0)) => None,
            Some(Some(code)) => Some(format!("exit status {code}")),
            Some(None) => Some("killed by a signal".to_owned()),
        };
        if let Some(why) = why {
            found.push(Record::Failure(Failure {
                benchmark,
                variant,
                order,
                why,
                stderr: String::new(),
            }));
            continue;
        }
        let exact = |unit, x| Value::new(unit, finite(&Figure::Exact(x)).into_owned());
        let seconds = exact("sec/op", seconds);
        let memory = memory.get(run).map(|&bytes| exact("peak-RSS-bytes", bytes));
        found.push(Record::Sample(Sample {
            benchmark,
            variant,
            iterations: 1,
            order,
            config: BTreeMap::new(),
            values: [seconds].into_iter().chain(memory).collect(),
            warnings: Vec::new(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::reader::tests::{read, table};

    fn check(text: &str, want: &[&str]) {
        assert_eq!(
            table(&read(Source::Hyperfine, text.as_bytes())),
            want,
            "{text}"
        );
    }

    #[test]
    fn every_run_that_succeeded_is_a_sample() {
        check(
            r#"{
  "results": [
    {
      "command": "sleep 0.1", "mean": 0.2, "stddev": null, "user": 0.001, "system": 0.002,
      "times": [0.1, 0.2, 0.3, 0.4],
      "exit_codes": [0, 1, null],
      "memory_usage_byte": [4096],
      "parameters": {"n": "0.1"}
    },
    {"command": "true", "times": [0.5]}
  ]
}"#,
            &[
                "sleep_0.1/n=0.1 ×1 0.1 sec/op, 4096 peak-RSS-bytes",
                "failure of sleep_0.1/n=0.1: exit status 1",
                "failure of sleep_0.1/n=0.1: killed by a signal",
                "sleep_0.1/n=0.1 ×1 0.4 sec/op",
                "true ×1 0.5 sec/op",
            ],
        );
    }

    #[test]
    fn bad_results_are_told_and_the_rest_is_used() {
        check(
            "{\"results\": [\n{\"times\": [1]},\n{\"command\": \"a\", \"times\": [1]},\n{\"command\"",
            &[
                "f:2: missing field `command`",
                "a ×1 1 sec/op",
                "f:4: cut short in the middle of the document",
            ],
        );
        check("{\"results\": 7}", &["f:1: `results` is no array"]);
        check("{}", &["f:1: there is no `results`"]);
    }
}
