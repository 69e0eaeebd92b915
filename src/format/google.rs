//! The JSON of Google Benchmark. Read, never written; held whole in memory while it is read, up to 256 MiB.
//!
//! Every repetition is a sample; aggregates are computed from samples and are none. `real_time` is
//! `sec/op` and `cpu_time` is `cpu-sec/op`, brought to seconds; `bytes_per_second` is `B/s`,
//! `items_per_second` is `items/s`, and any other counter keeps its name and has no direction. A
//! benchmark that ended in an error, or was skipped, is a failure.
//!
//! In names, `size:4096` becomes the parameter `size=4096`. What the context says of the machine
//! and of the library, and a benchmark's label, are the sample's `config`; what differs between
//! any two runs, such as the date and the load, is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::document::{Document, Fault};
use super::finite;
use super::found::Found;
use crate::sample::{Failure, Figure, Name, Order, Record, Sample, UnitMeta, Value};
use crate::unit::{Assume, Better, Unit};

/// The array that holds the benchmarks.
pub(super) const ARRAY: &str = "benchmarks";

/// What the context says of the run itself.
const PASSING: [&str; 6] = [
    "date",
    "executable",
    "load_avg",
    "mhz_per_cpu",
    "caches",
    "json_schema_version",
];

/// One benchmark; whatever is not named here and is a number is a counter.
#[derive(Deserialize)]
struct Benchmark {
    name: String,
    run_type: Option<String>,
    iterations: Option<f64>,
    real_time: Option<f64>,
    cpu_time: Option<f64>,
    time_unit: Option<String>,
    label: Option<String>,
    #[serde(default)]
    error_occurred: bool,
    error_message: Option<String>,
    // Before 1.8, and since.
    #[serde(default)]
    skipped: bool,
    skip_message: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

/// Numbers that say which benchmark it is, and measure nothing.
const NO_COUNTERS: [&str; 5] = [
    "family_index",
    "per_family_instance_index",
    "repetitions",
    "repetition_index",
    "threads",
];

/// What holds for all benchmarks of a document.
#[derive(Debug)]
pub(super) struct Decoder {
    config: BTreeMap<String, String>,
    /// Counters that were declared.
    said: BTreeSet<Unit>,
}

impl Decoder {
    pub(super) fn new(document: &Document) -> Decoder {
        let context: BTreeMap<String, Json> = document.member("context").unwrap_or_default();
        let facts = context
            .into_iter()
            .filter(|(key, _)| !PASSING.contains(&key.as_str()));
        let facts = facts.filter_map(|(key, value)| match value {
            Json::String(text) => Some((key, text)),
            Json::Bool(_) | Json::Number(_) => Some((key, value.to_string())),
            Json::Null | Json::Array(_) | Json::Object(_) => None,
        });
        Decoder {
            config: facts.collect(),
            said: BTreeSet::new(),
        }
    }

    /// Takes the next benchmark out of `document`; `false` when there is none.
    pub(super) fn decode(&mut self, document: &mut Document, found: &mut Found) -> bool {
        match document.element() {
            None => return false,
            Some(Err(Fault { line, message })) => found.syntax(line, message),
            Some(Ok(benchmark)) if is_aggregate(&benchmark) => {}
            Some(Ok(benchmark)) => self.record(benchmark, found),
        }
        true
    }

    fn record(&mut self, benchmark: Benchmark, found: &mut Found) {
        let order = Order {
            sequence: found.next_number(),
            ..Order::default()
        };
        let (name, variant) = (name_of(&benchmark.name), "base".to_owned());
        if benchmark.error_occurred || benchmark.skipped {
            let why = benchmark.error_message.or(benchmark.skip_message);
            let why = why.filter(|why| !why.is_empty());
            return found.push(Record::Failure(Failure {
                benchmark: name,
                variant,
                order,
                why: why.unwrap_or_else(|| "skipped".to_owned()),
                stderr: String::new(),
            }));
        }
        let second = match benchmark.time_unit.as_deref() {
            Some("s") => 1.0,
            Some("ms") => 1e-3,
            Some("us") => 1e-6,
            _ => 1e-9,
        };
        let times = [
            ("sec/op", benchmark.real_time),
            ("cpu-sec/op", benchmark.cpu_time),
        ];
        let mut values: Vec<(Unit, f64)> = times
            .into_iter()
            .filter_map(|(unit, time)| Some((Unit::named(unit), time? * second)))
            .collect();
        for (key, value) in &benchmark.rest {
            let Some(x) = value
                .as_f64()
                .filter(|_| !NO_COUNTERS.contains(&key.as_str()))
            else {
                continue;
            };
            let (unit, better) = match key.as_str() {
                "bytes_per_second" => (Unit::named("B/s"), Some(Better::Higher)),
                "items_per_second" => (Unit::named("items/s"), Some(Better::Higher)),
                "" => continue,
                name => (Unit::named(name), None),
            };
            if !self.said.contains(&unit) {
                self.said.insert(unit.clone());
                let (unit, assume) = (unit.clone(), Assume::Nothing);
                found.push(Record::Unit(UnitMeta {
                    unit,
                    better,
                    assume,
                }));
            }
            values.push((unit, x));
        }
        let mut config = self.config.clone();
        config.extend(benchmark.label.map(|label| ("label".to_owned(), label)));
        let value = |(unit, x)| Value {
            unit,
            figure: finite(&Figure::Exact(x)).into_owned(),
        };
        found.push(Record::Sample(Sample {
            benchmark: name,
            variant,
            // It is written as a whole number, and a float holds what a process can count.
            iterations: benchmark.iterations.unwrap_or(1.0) as u64,
            order,
            config,
            values: values.into_iter().map(value).collect(),
            warnings: Vec::new(),
        }));
    }
}

/// Whether it was computed from other benchmarks of the document.
fn is_aggregate(benchmark: &Benchmark) -> bool {
    match benchmark.run_type.as_deref() {
        Some(kind) => kind != "iteration",
        // Before 1.5 only the name told.
        None => ["_mean", "_median", "_stddev", "_cv", "_BigO", "_RMS"]
            .iter()
            .any(|end| benchmark.name.ends_with(end)),
    }
}

/// `BM_copy/size:4096/real_time` as `BM_copy/size=4096/real_time`.
fn name_of(full: &str) -> Name {
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut parts = full.split('/');
    let base = Name::new(parts.next().unwrap_or_default());
    parts.fold(base, |name, part| match part.split_once(':') {
        Some((key, value)) if word(key) && !value.starts_with(':') => name.with(key, value),
        _ => name.with("", part),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::reader::tests::{read, table};
    use super::*;

    fn check(text: &str, want: &[&str]) {
        assert_eq!(
            table(&read(Source::GoogleBenchmark, text.as_bytes())),
            want,
            "{text}"
        );
    }

    #[test]
    fn every_repetition_is_a_sample() {
        check(
            r#"{
  "context": {"date": "2026-11-22T02:36:05+00:00", "host_name": "vm", "num_cpus": 2,
    "cpu_scaling_enabled": false, "caches": [{"type": "Data"}], "load_avg": [3.0]},
  "benchmarks": [
    {"name": "BM_copy/size:64/repeats:2", "run_name": "BM_copy/size:64/repeats:2",
      "family_index": 0, "run_type": "iteration", "repetitions": 2, "repetition_index": 0,
      "threads": 1, "iterations": 643769, "real_time": 5.0e+01, "cpu_time": 1.9e+01,
      "time_unit": "ns", "allocs": 2.0, "bytes_per_second": 3.0e+09, "label": "heap"},
    {"name": "BM_copy/size:64/repeats:2_mean", "run_type": "aggregate", "aggregate_name": "mean",
      "iterations": 2, "real_time": 4.7, "cpu_time": 1.7, "time_unit": "ns"},
    {"name": "BM_old_median", "iterations": 2, "real_time": 4.7},
    {"name": "BM_err", "run_type": "iteration", "error_occurred": true,
      "error_message": "no \"data\"", "iterations": 1, "real_time": 0.0},
    {"name": "BM_skip", "run_type": "iteration", "skipped": true, "skip_message": "", "iterations": 0},
    {"name": "BM_ms/1/real_time", "iterations": 6, "real_time": 5.5, "time_unit": "ms"}
  ]
}"#,
            &[
                "unit allocs None",
                "unit B/s Some(Higher)",
                "BM_copy/size=64/repeats=2 ×643769 cpu_scaling_enabled=false host_name=vm \
                 label=heap num_cpus=2 0.00000005 sec/op, 0.000000019 cpu-sec/op, 2 allocs, 3000000000 B/s",
                "failure of BM_err: no \"data\"",
                "failure of BM_skip: skipped",
                "BM_ms/1/real_time ×6 cpu_scaling_enabled=false host_name=vm num_cpus=2 0.0055 sec/op",
            ],
        );
    }

    #[test]
    fn a_number_that_json_cannot_hold_costs_one_benchmark() {
        check(
            "{\"benchmarks\": [\n{\"name\": \"a\", \"real_time\": 1, \"time_unit\": \"s\", \"x\": NaN},\n\
             {\"name\": \"b\", \"real_time\": 1, \"time_unit\": \"s\"}]}",
            &["f:2: expected value", "b ×1 1 sec/op"],
        );
    }

    #[test]
    fn arguments_become_parameters() {
        let check = |full, want: &str| assert_eq!(name_of(full).to_string(), want);
        check("BM_f/8/threads:2", "BM_f/8/threads=2");
        check(
            "std::map<int>/n:3/process_time",
            "std::map<int>/n=3/process_time",
        );
        check("F/std::map", "F/std::map");
        check("F/:x", "F/:x");
    }
}
