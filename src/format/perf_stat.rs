//! The JSON lines of `perf stat -j`. Read, never written here; perf's derived metrics, which may join events that were not counted together, are left out.
//!
//! Lines that belong together make one sample: all of a run, or of one interval of `-I`. perf does
//! not say what it measured, so the benchmark is called `perf-stat`; what `-A`, `--per-core` and
//! their like tell apart, and `--for-each-cgroup`, is a parameter of it: `perf-stat/cpu=3`. Units
//! are named as our own records name them: `cycles/op`, `task-clock-sec/op`, and `sec/op` for
//! `duration_time`, where an operation is the whole run or interval.
//!
//! An event that ran for part of its time was scaled up by perf, and is labelled `scaled`.
//! `<not counted>` and `<not supported>` are absent. After `-r` perf gives means alone: such a
//! sample carries a warning.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::document::message;
use super::found::Found;
use super::{finite, number};
use crate::sample::{Figure, INTERVAL_END, Name, Order, Record, Sample, Value, Warning};
use crate::unit::Unit;

/// What a sample is told that stands for several runs.
const MEANS: &str = "means of several runs, as `perf stat -r` gives them: their spread is lost";

/// The fields of a line that are used. perf adds others from version to version.
#[derive(Deserialize)]
struct Line {
    interval: Option<f64>,
    cpu: Option<Json>,
    thread: Option<Json>,
    core: Option<Json>,
    cluster: Option<Json>,
    cache: Option<Json>,
    die: Option<Json>,
    socket: Option<Json>,
    node: Option<Json>,
    cgroup: Option<Json>,
    #[serde(rename = "counter-value")]
    counter_value: Option<Json>,
    unit: Option<String>,
    event: Option<String>,
    variance: Option<f64>,
    #[serde(rename = "pcnt-running")]
    percent_running: Option<f64>,
}

/// Gathers lines to samples.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    interval: Option<f64>,
    samples: Vec<Sample>,
    /// Which of the samples is of which benchmark.
    places: BTreeMap<Name, usize>,
    /// The values that the samples have.
    known: BTreeSet<(Name, Unit)>,
}

impl Decoder {
    pub(super) fn decode(&mut self, text: &[u8], at: u64, found: &mut Found) {
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            return;
        }
        if !text.starts_with(b"{") {
            return found.syntax(at, "not a JSON object".to_owned());
        }
        match serde_json::from_slice::<Line>(text) {
            Ok(line) => {
                if let Err(message) = self.take(line, found) {
                    found.syntax(at, message);
                }
            }
            Err(error) if has_decimal_comma(text) => found.syntax(
                at,
                format!(
                    "{}: numbers with a decimal comma; run perf with LC_ALL=C",
                    message(&error)
                ),
            ),
            Err(error) => found.syntax(at, message(&error)),
        }
    }

    /// Gives away what was gathered.
    pub(super) fn flush(&mut self, found: &mut Found) {
        self.places.clear();
        self.known.clear();
        for mut sample in self.samples.drain(..) {
            sample.order.sequence = found.next_number();
            found.push(Record::Sample(sample));
        }
    }

    fn take(&mut self, line: Line, found: &mut Found) -> Result<(), String> {
        // A line without an event carries a further metric of the one before.
        let (Some(event), Some(counted)) = (&line.event, &line.counter_value) else {
            return Ok(());
        };
        let counted = match counted {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (unit, factor) = unit_of(event, line.unit.as_deref().unwrap_or_default());
        let figure = figure(&counted, factor, line.percent_running)?;
        let name = name_of(&line);
        let key = (name, unit);
        if self.interval != line.interval || self.known.contains(&key) {
            self.flush(found);
            self.interval = line.interval;
        }
        self.known.insert(key.clone());
        let (name, unit) = key;
        let place = *self
            .places
            .entry(name.clone())
            .or_insert(self.samples.len());
        if place == self.samples.len() {
            let interval = line
                .interval
                .map(|end| (INTERVAL_END.to_owned(), number(end)));
            self.samples.push(Sample {
                benchmark: name,
                variant: "base".to_owned(),
                iterations: 1,
                order: Order::default(),
                config: interval.into_iter().collect(),
                values: Vec::new(),
                warnings: Vec::new(),
            });
        }
        if let Some(sample) = self.samples.get_mut(place) {
            sample.values.push(Value { unit, figure });
            if line.variance.is_some() && sample.warnings.is_empty() {
                sample.warnings.push(Warning(MEANS.to_owned()));
            }
        }
        Ok(())
    }
}

fn name_of(line: &Line) -> Name {
    let parts = [
        ("cpu", &line.cpu),
        ("thread", &line.thread),
        ("core", &line.core),
        ("cluster", &line.cluster),
        ("cache", &line.cache),
        ("die", &line.die),
        ("socket", &line.socket),
        ("node", &line.node),
        ("cgroup", &line.cgroup),
    ];
    let parts = parts.into_iter().filter_map(|(key, value)| match value {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) => Some((key, text.clone())),
        Some(other) => Some((key, other.to_string())),
    });
    parts.fold(Name::new("perf-stat"), |name, (key, value)| {
        name.with(key, value)
    })
}

fn figure(counted: &str, factor: f64, percent_running: Option<f64>) -> Result<Figure, String> {
    let value = match counted {
        "<not counted>" => return Ok(Figure::absent("never counted, says perf stat")),
        "<not supported>" => return Ok(Figure::absent("not supported, says perf stat")),
        text => text
            .parse::<f64>()
            .map_err(|_| format!("`counter-value` is `{text}`, which is no number"))?,
    };
    let value = value * factor;
    let figure = match percent_running {
        Some(percent) if percent > 0.0 && percent < 100.0 => Figure::Scaled {
            value,
            running: percent / 100.0,
        },
        _ => Figure::Exact(value),
    };
    Ok(finite(&figure).into_owned())
}

/// The unit of an event's figures and what brings them to base units.
fn unit_of(event: &str, measured_in: &str) -> (Unit, f64) {
    // The clocks run in user and kernel mode alike, whatever modifiers they are given.
    let clock = |name: &&str| event.split(':').next() == Some(name);
    let event = ["task-clock", "cpu-clock"]
        .into_iter()
        .find(clock)
        .unwrap_or(event);
    let (base, factor) = match measured_in {
        "" => ("", 1.0),
        "ns" | "nsec" => ("sec", 1e-9),
        "usec" => ("sec", 1e-6),
        "msec" => ("sec", 1e-3),
        "Bytes" => ("bytes", 1.0),
        "KiB" => ("bytes", 1024.0),
        "MiB" => ("bytes", 1_048_576.0),
        "GiB" => ("bytes", 1_073_741_824.0),
        other => (other, 1.0),
    };
    let name = match (event, base) {
        ("duration_time", "sec") => "sec".to_owned(),
        ("user_time", "sec") => "user-sec".to_owned(),
        ("system_time", "sec") => "sys-sec".to_owned(),
        (event, "") => event.to_owned(),
        (event, base) => format!("{event}-{base}"),
    };
    (Unit::per_op(&name), factor)
}

/// Whether a number stands there as in a locale that writes `100,00`, which is no JSON.
fn has_decimal_comma(text: &[u8]) -> bool {
    let digit_comma_digit =
        |w: &[u8]| w[0].is_ascii_digit() && w[1] == b',' && w[2].is_ascii_digit();
    text.windows(3).any(digit_comma_digit)
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::reader::tests::{read, table};

    fn check(text: &str, want: &[&str]) {
        assert_eq!(
            table(&read(Source::PerfStat, text.as_bytes())),
            want,
            "{text}"
        );
    }

    #[test]
    fn a_run_is_one_sample() {
        check(
            r#"# started on Sun Nov 22 02:32:57 2026

{"counter-value" : "0.722816", "unit" : "msec", "event" : "task-clock:u", "event-runtime" : 722816, "pcnt-running" : 100.00, "metric-value" : 0.548131, "metric-unit" : "CPUs utilized"}
{"counter-value" : "1869400.000000", "unit" : "", "event" : "msr/tsc/", "event-runtime" : 722816, "pcnt-running" : 40.00, "metric-value" : 2.586274, "metric-unit" : "G/sec"}
{"metric-value" : 2.586274, "metric-unit" : "of all things"}
{"counter-value" : "<not supported>", "unit" : "", "event" : "cycles", "event-runtime" : 0, "pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"counter-value" : "<not counted>", "unit" : "", "event" : "branches", "event-runtime" : 0, "pcnt-running" : 0.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"counter-value" : "2.500000", "unit" : "Joules", "event" : "power/energy-pkg/"}
{"counter-value" : "1401655.000000", "unit" : "ns", "event" : "duration_time"}
"#,
            &[
                "perf-stat ×1 0.000722816 task-clock-sec/op, 1869400 msr/tsc//op scaled 0.4, \
               cycles/op absent: not supported, says perf stat, \
               branches/op absent: never counted, says perf stat, \
               2.5 power/energy-pkg/-Joules/op, 0.001401655 sec/op",
            ],
        );
    }

    #[test]
    fn intervals_and_cpus_are_samples_of_their_own() {
        let line = |interval, cpu, event| {
            format!(
                "{{\"interval\" : {interval}, \"cpu\" : \"{cpu}\", \"counter-value\" : \"7.000000\", \"unit\" : \"\", \"event\" : \"{event}\"}}\n"
            )
        };
        let of = |interval| {
            line(interval, 0, "a")
                + &line(interval, 1, "a")
                + &line(interval, 0, "b")
                + &line(interval, 1, "b")
        };
        let text = of("0.100") + &of("0.200");
        check(
            &text,
            &[
                "perf-stat/cpu=0 ×1 interval-end=0.1 7 a/op, 7 b/op",
                "perf-stat/cpu=1 ×1 interval-end=0.1 7 a/op, 7 b/op",
                "perf-stat/cpu=0 ×1 interval-end=0.2 7 a/op, 7 b/op",
                "perf-stat/cpu=1 ×1 interval-end=0.2 7 a/op, 7 b/op",
            ],
        );
    }

    #[test]
    fn appended_runs_are_told_apart_and_means_are_doubted() {
        let line =
            |event, more| format!("{{\"counter-value\" : \"7\", \"event\" : \"{event}\"{more}}}\n");
        let text = line("a", "") + &line("b", "") + &line("a", ", \"variance\" : 1.18");
        check(
            &text,
            &[
                "perf-stat ×1 7 a/op, 7 b/op",
                "perf-stat ×1 7 a/op (means of several runs, as `perf stat -r` gives them: their spread is lost)",
            ],
        );
    }

    #[test]
    fn bad_lines_are_told_and_the_rest_is_used() {
        check(
            "{\"counter-value\" : \"7\", \"event\" : \"a\"}\nnoise\n{\"counter-value\" : 3\n\
             {\"counter-value\" : \"many\", \"event\" : \"b\"}\n\
             {\"counter-value\" : \"7,0\", \"event\" : \"b\", \"pcnt-running\" : 100,00}\n",
            &[
                "f:2: not a JSON object",
                "f:3: EOF while parsing an object",
                "f:4: `counter-value` is `many`, which is no number",
                "f:5: key must be a string: numbers with a decimal comma; run perf with LC_ALL=C",
                "perf-stat ×1 7 a/op",
            ],
        );
    }
}
