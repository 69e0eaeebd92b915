//! Summaries in the forms of `perf stat -x` and `perf stat -j`, for scripts that read those. Never in a table.

use serde_json::{Map, Value as Json, json};

use super::summary::{Benchmark, Estimate, Row, Stream, Trust};

/// `perf stat -x`: value (whole unless it is a time in milliseconds, as in perf), unit, event, run
/// time, share of time counted, metric value, metric unit (perf-stat(1), "CSV FORMAT"); an
/// interval's end stands before them. With repeated runs the value is the median.
pub fn separated(stream: &Stream, separator: &str) -> String {
    lines(stream, |line| {
        let whole = line.unit != "msec";
        let fields = [
            match line.value {
                Ok(value) if whole => format!("{value:.0}"),
                Ok(value) => format!("{value:.6}"),
                Err(why) => why.to_owned(),
            },
            line.unit.to_owned(),
            line.event.clone(),
            line.runtime_ns
                .map_or(String::new(), |ns| format!("{ns:.0}")),
            format!("{:.2}", line.running * 100.0),
            String::new(),
            String::new(),
        ];
        let end = line.interval_end.iter().cloned();
        end.chain(fields).collect::<Vec<_>>().join(separator)
    })
}

/// `perf stat -j`: one object a line with perf's own keys.
pub fn json(stream: &Stream) -> String {
    lines(stream, |line| {
        let mut object = Map::new();
        let value = match line.value {
            Ok(value) => format!("{value:.6}"),
            Err(why) => why.to_owned(),
        };
        if let Some(Ok(end_sec)) = line.interval_end.as_ref().map(|end| end.parse::<f64>()) {
            object.insert("interval".to_owned(), json!(end_sec));
        }
        object.insert("counter-value".to_owned(), json!(value));
        object.insert("unit".to_owned(), json!(line.unit));
        object.insert("event".to_owned(), json!(line.event));
        if let Some(ns) = line.runtime_ns {
            object.insert("event-runtime".to_owned(), json!(ns.round() as u64));
        }
        object.insert(
            "pcnt-running".to_owned(),
            json!((line.running * 1e4).round() / 100.0),
        );
        Json::Object(object).to_string()
    })
}

/// What both forms tell of an event.
struct Line {
    /// The figure, or perf's word for its absence.
    value: Result<f64, &'static str>,
    unit: &'static str,
    event: String,
    /// The task's time while the event was counted; known when the task's clock was counted.
    runtime_ns: Option<f64>,
    running: f64,
    /// When the interval ended, of a single interval.
    interval_end: Option<String>,
}

fn lines(stream: &Stream, write: impl Fn(&Line) -> String) -> String {
    let mut text = String::new();
    for benchmark in &stream.benchmarks {
        let rows = benchmark.rows();
        let clock = rows
            .iter()
            .find(|row| row.unit.as_str() == "task-clock-sec/op")
            .and_then(middle);
        for line in rows.iter().filter_map(|row| line(row, benchmark, clock)) {
            text.push_str(&write(&line));
            text.push('\n');
        }
    }
    text
}

/// The line of an event's row; rows that perf has no event for have none.
fn line(row: &Row, benchmark: &Benchmark, clock_sec: Option<f64>) -> Option<Line> {
    let name = row.unit.as_str().strip_suffix("/op")?;
    let (event, unit, factor) = match name {
        "sec" => ("duration_time".to_owned(), "ns", 1e9),
        "user-sec" => ("user_time".to_owned(), "ns", 1e9),
        "sys-sec" => ("system_time".to_owned(), "ns", 1e9),
        "involuntary-switches" => return None,
        _ => match name.strip_suffix("-sec") {
            Some(clock) => (clock.to_owned(), "msec", 1e3),
            None => (name.to_owned(), "", 1.0),
        },
    };
    let running = match row.trust {
        Trust::Scaled(running) => running,
        _ => 1.0,
    };
    let value = match (middle(row), &row.trust) {
        (Some(value), _) => Ok(value * factor),
        (None, Trust::Absent(cause)) if cause.why.contains("never") => Err("<not counted>"),
        (None, _) => Err("<not supported>"),
    };
    let counted = value.is_ok();
    let runtime_ns = clock_sec.filter(|_| counted).map(|sec| sec * 1e9 * running);
    Some(Line {
        value,
        unit,
        event,
        runtime_ns: runtime_ns.or((!counted).then_some(0.0)),
        running,
        interval_end: match benchmark.samples {
            1 => benchmark.interval_end.clone(),
            _ => None,
        },
    })
}

fn middle(row: &Row) -> Option<f64> {
    match row.estimate {
        Estimate::None => None,
        Estimate::Single(value) | Estimate::Middle { value, .. } => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Figure, Name, Record, Sample, Value};

    #[test]
    fn scripts_read_whole_counts_and_milliseconds() {
        let mut stream = Stream::default();
        let exact = |unit, figure| Value::new(unit, Figure::Exact(figure));
        stream.take(Record::Sample(Sample {
            benchmark: Name::new("x"),
            variant: "base".to_owned(),
            iterations: 1,
            order: Default::default(),
            config: Default::default(),
            values: vec![
                exact("sec/op", 0.002),
                exact("task-clock-sec/op", 0.0015),
                exact("page-faults/op", 49.0),
                Value::new("cycles/op", Figure::absent("no PMU")),
                exact("CPUs", 0.75),
            ],
            warnings: Vec::new(),
        }));
        assert_eq!(
            separated(&stream, ","),
            "2000000,ns,duration_time,1500000,100.00,,\n\
             1.500000,msec,task-clock,1500000,100.00,,\n\
             49,,page-faults,1500000,100.00,,\n\
             <not supported>,,cycles,0,100.00,,\n"
        );
        let first = json(&stream).lines().next().map(str::to_owned);
        let first: Json = serde_json::from_str(&first.unwrap()).unwrap();
        assert_eq!(first["counter-value"], "2000000.000000");
    }
}
