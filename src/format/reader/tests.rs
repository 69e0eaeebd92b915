use std::io::BufReader;

use proptest::prelude::*;

use super::super::jsonl::tests::{header, records, sample};
use super::super::{Format, Writer, number};
use super::*;
use crate::sample::{End, Figure, Sample, Warning};

/// The records that `source` gives; what it says must not end in an error.
pub(in super::super) fn read(source: Source, text: &[u8]) -> Vec<Record> {
    let mut reader = Reader::of(source, "f", text);
    let records = reader.by_ref().collect();
    assert!(reader.error().is_none());
    records
}

/// One line a record, for comparison.
pub(in super::super) fn table(records: &[Record]) -> Vec<String> {
    records.iter().map(row).collect()
}

fn row(record: &Record) -> String {
    match record {
        Record::Sample(sample) => sample_row(sample),
        Record::Failure(failure) => format!("failure of {}: {}", failure.benchmark, failure.why),
        Record::Unit(meta) => {
            let exact = match meta.assume {
                crate::unit::Assume::Exact => " exact",
                crate::unit::Assume::Nothing => "",
            };
            format!("unit {} {:?}{exact}", meta.unit, meta.better)
        }
        Record::Syntax(error) => error.to_string(),
        Record::Header(header) => format!("header of {}", header.tool),
        Record::End(End { samples, failures }) => format!("end {samples} {failures}"),
    }
}

fn sample_row(sample: &Sample) -> String {
    let config = sample
        .config
        .iter()
        .map(|(key, value)| format!(" {key}={value}"));
    let values = sample.values.iter().map(|value| match &value.figure {
        Figure::Exact(x) => format!("{} {}", short(*x), value.unit),
        Figure::Scaled { value: x, running } => {
            format!("{} {} scaled {running}", short(*x), value.unit)
        }
        Figure::Absent { why } => format!("{} absent: {why}", value.unit),
        other => format!("{other:?} {}", value.unit),
    });
    let doubts = sample
        .warnings
        .iter()
        .map(|Warning(text)| format!(" ({text})"));
    format!(
        "{} ×{}{} {}{}",
        sample.benchmark,
        sample.iterations,
        config.collect::<String>(),
        values.collect::<Vec<_>>().join(", "),
        doubts.collect::<String>(),
    )
}

/// Without the last digits, which a factor's rounding makes.
fn short(x: f64) -> String {
    number(format!("{x:.12e}").parse::<f64>().unwrap())
        .parse::<f64>()
        .map_or_else(|_| x.to_string(), |x| x.to_string())
}

#[test]
fn the_format_is_told_by_the_beginning() {
    let check = |text: &str, want| {
        let mut reader = Reader::new("f", text.as_bytes());
        assert_eq!(reader.source(), None);
        reader.next();
        assert_eq!(reader.source(), Some(want), "{text}");
    };
    check("", Source::Gobench);
    check("PASS\n", Source::Gobench);
    check("goos: linux\nBenchmarkA 1 1 ns/op\n", Source::Gobench);
    check(
        "# {\"record\n\nBenchmarkA 1 1 ns/op\n{\"record\"",
        Source::Gobench,
    );
    check("{\"record\":\"end\"}", Source::Jsonl);
    check("\n  {\"samples\":0,\"record\":\"end\"}\n", Source::Jsonl);
    check("{\"counter-value\" : \"1\"}", Source::PerfStat);
    check(
        "# started on\n\nnoise: of the program\n{\"interval\" : 1.0, \"counter-value\" : \"1\"}\n",
        Source::PerfStat,
    );
    check("{\"results\":[]}", Source::Hyperfine);
    check("{\n  \"results\": [\n", Source::Hyperfine);
    check("{\r\n\t\"context\": {", Source::GoogleBenchmark);
    check("{\"benchmarks\":[]}", Source::GoogleBenchmark);
    check("{\n", Source::Gobench);
    check(
        &format!("{}{{\"results\":[]}}", "x\n".repeat(SNIFFED)),
        Source::Gobench,
    );
}

#[test]
fn what_is_no_format_is_told_once() {
    let told = "f:1: no line of this file is in a format that is known here";
    let check = |text: &[u8], want: &[&str]| {
        let mut reader = Reader::new("f", text);
        assert_eq!(table(&reader.by_ref().collect::<Vec<_>>()), want);
        assert!(!reader.whole());
    };
    check(b"", &[]);
    check(b"hello\nworld\n", &[told]);
    check(b"\xff\xfe\0\n", &[told]);
}

#[test]
fn a_line_may_be_too_long() {
    let long = "x".repeat(LONGEST_LINE + 1);
    let text = format!("{{\"counter-value\" : \"1\", \"event\" : \"a\"}}\n{long}\n");
    let mut reader = Reader::new("f", BufReader::new(text.as_bytes()));
    let want = ["f:2: longer than 16 MiB", "perf-stat ×1 1 a/op"];
    assert_eq!(table(&reader.by_ref().collect::<Vec<_>>()), want);
}

#[test]
fn a_document_is_read_from_any_input() {
    let text = b"{\"results\": [{\"command\": \"a\", \"times\": [1, 2]}]}\n";
    for size in [1, 7, 100] {
        let mut reader = Reader::new("f", BufReader::with_capacity(size, &text[..]));
        let want = ["a ×1 1 sec/op", "a ×1 2 sec/op"];
        assert_eq!(table(&reader.by_ref().collect::<Vec<_>>()), want);
    }
}

#[test]
fn files_of_every_format_are_known_and_read() {
    let check = |file: &str, source, want: [usize; 3]| {
        let path = format!("{}/benchdata/fuzz/{file}", env!("CARGO_MANIFEST_DIR"));
        let mut reader = Reader::new(file, std::fs::File::open(path).unwrap());
        let records: Vec<Record> = reader.by_ref().collect();
        assert_eq!(reader.source(), Some(source), "{file}");
        let count = |kind: fn(&Record) -> bool| records.iter().filter(|r| kind(r)).count();
        let got = [
            count(|record| matches!(record, Record::Sample(_))),
            count(|record| matches!(record, Record::Failure(_))),
            count(|record| matches!(record, Record::Syntax(_))),
        ];
        assert_eq!(got, want, "{file}: {records:#?}");
    };
    check("gobench/gowrite.txt", Source::Gobench, [8, 0, 0]);
    check("gobench/compilebench.txt", Source::Gobench, [4, 0, 0]);
    check("gobench/everything.txt", Source::Gobench, [2, 0, 4]);
    check("jsonl/run.jsonl", Source::Jsonl, [1, 1, 1]);
    check("perf_stat/repeated.json", Source::PerfStat, [1, 0, 0]);
    check("perf_stat/intervals.json", Source::PerfStat, [3, 0, 0]);
    check("hyperfine/runs.json", Source::Hyperfine, [4, 0, 0]);
    check("hyperfine/failed.json", Source::Hyperfine, [2, 2, 0]);
    check("google/all.json", Source::GoogleBenchmark, [3, 1, 0]);
}

const SOURCES: [Source; 5] = [
    Source::Jsonl,
    Source::Gobench,
    Source::PerfStat,
    Source::Hyperfine,
    Source::GoogleBenchmark,
];

/// Pieces of which inputs are made that are nearly right.
const PIECES: [&str; 40] = [
    "Benchmark",
    "Unit ",
    "A/k=v-8",
    " 1",
    " 2.5",
    " ns/op",
    " better=",
    "lower",
    "\n",
    "\r\n",
    "key: ",
    "key:",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\"results\":",
    "\"times\":",
    "\"command\":\"c\"",
    "\"benchmarks\":",
    "\"context\":",
    "\"name\":\"n\"",
    "\"real_time\":1e999",
    "\"exit_codes\":[0,null]",
    "\"counter-value\":\"1\"",
    "\"event\":\"e\"",
    "\"interval\":1",
    "\"record\":\"end\"",
    "#",
    " ",
    "\u{2003}",
    "NaN",
    "-1",
    "99999999999999999999",
    "\u{fffd}",
    "\0",
];

proptest! {
    #[test]
    fn no_bytes_are_a_panic(
        source in prop::sample::select(&SOURCES[..]),
        text in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)
                .prop_map(|pieces| pieces.concat().into_bytes()),
        ],
    ) {
        let lines = text.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        for reader in [Reader::new("f", &text[..]), Reader::of(source, "f", &text[..])] {
            for record in reader {
                if let Record::Syntax(error) = record {
                    prop_assert!((1..=lines).contains(&error.line), "{error} of {lines}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_for_benchstat_is_read_back(
        written in prop::collection::vec(records(), 0..8),
    ) {
        let mut text = Vec::new();
        let mut writer = Writer::new(Format::Gobench, &mut text);
        writer.write(&Record::Header(header())).unwrap();
        for record in &written {
            writer.write(record).unwrap();
        }
        writer.write(&Record::Sample(sample())).unwrap();
        let read = read(Source::Gobench, &text);
        let mut again = Vec::new();
        let mut writer = Writer::new(Format::Gobench, &mut again);
        for record in &read {
            let contradiction = |error: &crate::sample::SyntaxError| error.message.contains("already set to");
            match record {
                // Nothing keeps made-up records from declaring a unit twice.
                Record::Syntax(error) => prop_assert!(contradiction(error), "{error}"),
                record => writer.write(record).unwrap(),
            }
        }
        // The lines that carry numbers are the same; remarks are not read.
        prop_assert_eq!(benchmark_lines(&again), benchmark_lines(&text));
    }
}

/// Benchmark lines, each with the configuration in force.
fn benchmark_lines(text: &[u8]) -> Vec<(Vec<String>, String)> {
    let mut config = std::collections::BTreeMap::new();
    let mut lines = Vec::new();
    for line in str::from_utf8(text).unwrap().split_terminator('\n') {
        if line.starts_with("Benchmark") {
            let config = config.iter().map(|(key, value)| format!("{key}: {value}"));
            lines.push((config.collect(), line.to_owned()));
        } else if !line.starts_with(['#', 'U']) {
            let (key, value) = line.split_once(':').unwrap();
            match value.strip_prefix(' ') {
                Some(value) => drop(config.insert(key, value)),
                None => drop(config.remove(key)),
            }
        }
    }
    lines
}
