use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use proptest::prelude::*;

use super::super::lines::LONGEST_LINE;
use super::super::{Format, Reader, Source, Writer};
use super::*;
use crate::sample::{
    Cause, Failure, Figure, Header, Name, Order, Part, Rule, Sample, SyntaxError, UnitMeta, Value,
    Warning,
};
use crate::unit::{Assume, Better, Unit};

pub(in super::super) fn header() -> Header {
    Header {
        tool: "poise 0.1.0".to_owned(),
        started: "2026-01-02T03:04:05Z".to_owned(),
        seed: 7,
        command: ["poise", "bench", "a b"].map(str::to_owned).to_vec(),
        machine: [("cpu", "AMD EPYC"), ("kernel", "6.1"), ("governor", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        warnings: Vec::new(),
    }
}

pub(in super::super) fn sample() -> Sample {
    let unit = |name: &str| Unit::new(name).unwrap();
    let part = Part("user mode only".to_owned());
    let why = Cause::new("no hardware PMU, virtual machine").cure("use real hardware");
    Sample {
        benchmark: Name::parse("Write/size=512"),
        variant: "base".to_owned(),
        iterations: 250_000,
        order: Order {
            sequence: 17,
            round: 8,
            position: 1,
        },
        config: BTreeMap::from([("cpu".to_owned(), "3".to_owned())]),
        values: [
            ("sec/op", Figure::Exact(2.06e-7)),
            (
                "cycles/op",
                Figure::Scaled {
                    value: 612.5,
                    running: 0.62,
                },
            ),
            (
                "instructions/op",
                Figure::Partial {
                    value: 1490.0,
                    part,
                },
            ),
            (
                "user-sec/op",
                Figure::Sampled {
                    value: 1.2e-7,
                    period_sec: 0.004,
                },
            ),
            ("branches/op", Figure::Absent { why }),
        ]
        .map(|(name, figure)| Value {
            unit: unit(name),
            figure,
        })
        .to_vec(),
        warnings: vec![Warning("steal time rose".to_owned())],
    }
}

pub(in super::super) fn failure() -> Failure {
    Failure {
        benchmark: Name::parse("Write/size=512"),
        variant: "base".to_owned(),
        order: Order {
            sequence: 18,
            round: 9,
            position: 0,
        },
        why: "exit status 1".to_owned(),
        stderr: "cannot open\ngiving up\n".to_owned(),
    }
}

fn write(records: &[Record]) -> String {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Format::Jsonl, &mut bytes);
    records
        .iter()
        .for_each(|record| writer.write(record).unwrap());
    String::from_utf8(bytes).unwrap()
}

/// The records of `bytes`, and whether they are whole.
fn read(bytes: &[u8]) -> (Vec<Record>, bool) {
    let mut reader = Reader::of(Source::Jsonl, "f.jsonl", bytes);
    let records = reader.by_ref().collect();
    assert!(reader.error().is_none());
    (records, reader.whole())
}

fn complaint(record: &Record) -> String {
    match record {
        Record::Syntax(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

const HEADER: &str = concat!(
    r#"{"record":"header","schema":1,"tool":"poise 0.1.0","started":"2026-01-02T03:04:05Z","#,
    r#""seed":7,"command":["poise","bench","a b"],"#,
    r#""machine":{"cpu":"AMD EPYC","governor":"","kernel":"6.1"}}"#,
);
const END: &str = r#"{"record":"end","samples":0,"failures":0}"#;

#[test]
fn a_stream_is_written_as_it_is_documented() {
    let unit = Unit::new("sec/op").unwrap();
    let records = [
        Record::Header(header()),
        Record::Unit(UnitMeta {
            unit,
            better: Some(Better::Lower),
            assume: Assume::Nothing,
        }),
        Record::Sample(sample()),
        Record::Failure(failure()),
        Record::End(End {
            samples: 1,
            failures: 1,
        }),
    ];
    let want = [
        HEADER,
        r#"{"record":"unit","unit":"sec/op","better":"lower","assume":"nothing"}"#,
        concat!(
            r#"{"record":"sample","benchmark":"Write/size=512","variant":"base","#,
            r#""iterations":250000,"order":{"sequence":17,"round":8,"position":1},"#,
            r#""config":{"cpu":"3"},"values":["#,
            r#"{"unit":"sec/op","value":2.06e-7,"trust":"exact"},"#,
            r#"{"unit":"cycles/op","value":612.5,"trust":"scaled","running":0.62},"#,
            r#"{"unit":"instructions/op","value":1490.0,"trust":"partial","part":"user mode only"},"#,
            r#"{"unit":"user-sec/op","value":1.2e-7,"trust":"sampled","period":0.004},"#,
            r#"{"unit":"branches/op","value":null,"trust":"absent","#,
            r#""why":"no hardware PMU, virtual machine","cure":"use real hardware"}],"#,
            r#""warnings":["steal time rose"]}"#,
        ),
        concat!(
            r#"{"record":"failure","benchmark":"Write/size=512","variant":"base","#,
            r#""order":{"sequence":18,"round":9,"position":0},"#,
            r#""why":"exit status 1","stderr":"cannot open\ngiving up\n"}"#,
        ),
        r#"{"record":"end","samples":1,"failures":1}"#,
    ];
    let text = write(&records);
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
    assert_eq!(read(text.as_bytes()), (records.to_vec(), true));
}

#[test]
fn a_figure_that_is_no_number_is_written_as_absent() {
    let unit = Unit::new("IPC").unwrap();
    let values = vec![Value {
        unit: unit.clone(),
        figure: Figure::Exact(f64::NAN),
    }];
    let text = write(&[Record::Sample(Sample { values, ..sample() })]);
    assert!(
        text.contains(
            r#"[{"unit":"IPC","value":null,"trust":"absent","why":"not a finite number"}]"#
        )
    );
}

#[test]
fn a_syntax_record_is_not_written() {
    let error = SyntaxError {
        file: "f".to_owned(),
        line: 1,
        message: "bad".to_owned(),
    };
    assert_eq!(write(&[Record::Syntax(error)]), "");
}

#[test]
fn bad_lines_are_records_and_reading_goes_on() {
    let check = |line: &[u8], want: &str| {
        let text = [HEADER.as_bytes(), line, END.as_bytes(), b""].join(&b'\n');
        let (records, whole) = read(&text);
        assert_eq!(records.len(), 3, "{want}");
        let got = complaint(&records[1]);
        assert!(got.starts_with(&format!("f.jsonl:2: {want}")), "{got}");
        assert!(matches!(records[2], Record::End(_)) && !whole, "{want}");
    };
    let value = |value: &str| {
        format!(
            r#"{{"record":"sample","benchmark":"a","variant":"base","iterations":1,"order":{{"sequence":0,"round":0,"position":0}},"config":{{}},"values":[{value}],"warnings":[]}}"#
        )
    };
    check(b"PASS", "not a JSON object");
    check(b"[\"end\",0,0]", "not a JSON object");
    check(b"{", "EOF while parsing an object (column 1)");
    check(b"{\"record\":\"end\",\xff", "not UTF-8 from byte 17 on");
    check(
        br#"{"record":"verdict"}"#,
        "unknown variant `verdict`, expected one of",
    );
    check(br#"{"samples":1,"failures":0}"#, "missing field `record`");
    check(
        br#"{"record":"end","samples":1}"#,
        "missing field `failures`",
    );
    check(
        br#"{"record":"end","samples":-1,"failures":0}"#,
        "invalid value: integer `-1`",
    );
    check(
        br#"{"record":"end","samples":0,"failures":0,"x":1}"#,
        "unknown field `x`",
    );
    check(
        br#"{"record":"unit","unit":"a b","better":null,"assume":"nothing"}"#,
        "`a b` is not a unit",
    );
    check(
        value(r#"{"unit":"B/s","trust":"exact","value":1e999}"#).as_bytes(),
        "number out of range",
    );
    check(
        value(r#"{"unit":"B/s","trust":"exact","value":null}"#).as_bytes(),
        "`B/s`: a value of this trust has a number and no more",
    );
    check(
        value(r#"{"unit":"B/s","trust":"exact","value":1,"running":0.5}"#).as_bytes(),
        "`B/s`: a value of this trust has a number and no more",
    );
    check(
        value(r#"{"unit":"B/s","trust":"scaled","value":1}"#).as_bytes(),
        "`B/s`: a value of this trust has a number and `running`",
    );
    check(
        value(r#"{"unit":"B/s","trust":"absent","value":0,"why":"x"}"#).as_bytes(),
        "`B/s`: a value of this trust has `why`",
    );
    check(
        value(r#"{"unit":"B/s","trust":"sure","value":0}"#).as_bytes(),
        "unknown variant `sure`",
    );
    check(
        value("").replace("\"a\"", "\"a b\"").as_bytes(),
        "`a b` is not a benchmark's name",
    );
    check(
        "[".repeat(100_000).replacen('[', "{\"a\":", 1).as_bytes(),
        "",
    );
}

#[test]
fn a_stream_without_its_end_is_not_whole() {
    let check = |text: &str, whole: bool| assert_eq!(read(text.as_bytes()).1, whole, "{text}");
    let sample = write(&[Record::Sample(sample())]);
    let run = format!("{HEADER}\n{END}\n");
    check(&run, true);
    check(&run.replace('\n', "\r\n\n"), true);
    check(run.trim_end(), true);
    check(&run.repeat(2), true);
    check("", false);
    check(HEADER, false);
    check(END, false);
    check(&format!("{HEADER}\n{run}"), false);
    check(&format!("{run}{HEADER}\n"), false);
    check(&format!("{run}{END}\n"), false);
    check(&format!("{run}{sample}"), false);
    check(&format!("{HEADER}\n{sample}{END}\n"), false);
    check(
        &format!("{HEADER}\n{sample}{}\n", END.replacen('0', "1", 1)),
        true,
    );
}

#[test]
fn a_line_that_was_cut_short_is_said_to_be() {
    let (records, whole) = read(format!("{HEADER}\n{}", &END[..20]).as_bytes());
    assert_eq!(
        complaint(&records[1]),
        "f.jsonl:2: cut short in the middle of a line (EOF while parsing a string (column 20))",
    );
    assert!(!whole);
}

#[test]
fn a_run_in_a_newer_schema_is_left_out() {
    let newer = r#"{"record":"header","schema":2,"tool":["new"]}"#;
    let sample = write(&[Record::Sample(sample())]);
    let text = format!("{newer}\n{sample}nonsense\n{END}\n{HEADER}\n{END}\n");
    let (records, whole) = read(text.as_bytes());
    let want = "f.jsonl:1: schema 2 is newer than the 1 that is read here; this run is left out";
    assert_eq!(complaint(&records[0]), want);
    let rest = [Record::Header(header()), Record::End(End::default())];
    assert_eq!((&records[1..], whole), (&rest[..], false));
    for (from, to) in [("1", "2"), ("1", "5000000000"), ("1", "0")] {
        let other = HEADER.replacen(&format!("schema\":{from}"), &format!("schema\":{to}"), 1);
        let (records, _) = read(other.as_bytes());
        assert!(
            complaint(&records[0]).contains(&format!("schema {to} is n")),
            "{to}"
        );
    }
}

#[test]
fn very_long_lines_are_passed_over() {
    let long = std::io::repeat(b'x').take(LONGEST_LINE as u64 + 1);
    let fits = std::io::repeat(b'x').take(LONGEST_LINE as u64);
    let input = long
        .chain(&b"\n"[..])
        .chain(fits)
        .chain(&b"\n"[..])
        .chain(END.as_bytes());
    let records: Vec<Record> = Reader::of(Source::Jsonl, "f", BufReader::new(input)).collect();
    assert_eq!(complaint(&records[0]), "f:1: longer than 16 MiB");
    assert_eq!(complaint(&records[1]), "f:2: not a JSON object");
    assert_eq!(records[2], Record::End(End::default()));
}

/// Fails once the bytes are read.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            Err(io::ErrorKind::StaleNetworkFileHandle.into())
        } else {
            self.0.read(buffer)
        }
    }
}

#[test]
fn an_error_of_the_input_ends_the_iteration() {
    let text = format!("{HEADER}\n{END}\n{{");
    let mut reader = Reader::of(Source::Jsonl, "f", BufReader::new(Broken(text.as_bytes())));
    assert_eq!(reader.by_ref().count(), 2);
    assert_eq!(
        reader.error().map(io::Error::kind),
        Some(io::ErrorKind::StaleNetworkFileHandle)
    );
    assert!(!reader.whole() && reader.next().is_none());
}

fn figures() -> impl Strategy<Value = Figure> {
    let real = || prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let cause = (any::<String>(), any::<Option<String>>());
    prop_oneof![
        real().prop_map(Figure::Exact),
        (real(), 0.0..=1.0).prop_map(|(value, running)| Figure::Scaled { value, running }),
        (real(), any::<String>()).prop_map(|(value, part)| Figure::Partial {
            value,
            part: Part(part)
        }),
        (real(), real()).prop_map(|(value, period_sec)| Figure::Sampled { value, period_sec }),
        (real(), any::<String>()).prop_map(|(value, rule)| Figure::Estimated {
            value,
            rule: Rule(rule),
        }),
        cause.prop_map(|(why, cure)| Figure::Absent {
            why: Cause { why, cure }
        }),
    ]
}

fn names() -> impl Strategy<Value = Name> {
    let parameters = prop::collection::vec(("[a-z]{1,4}", any::<String>()), 0..3);
    (any::<String>(), parameters).prop_map(|(base, parameters)| {
        parameters
            .iter()
            .fold(Name::new(&base), |name, (key, value)| name.with(key, value))
    })
}

fn units() -> impl Strategy<Value = Unit> {
    "[!-~µ]{1,12}".prop_map(|text| Unit::new(text).unwrap())
}

fn orders() -> impl Strategy<Value = Order> {
    any::<(u64, u64, u32)>().prop_map(|(sequence, round, position)| Order {
        sequence,
        round,
        position,
    })
}

fn warnings() -> impl Strategy<Value = Vec<Warning>> {
    prop::collection::vec(any::<String>().prop_map(Warning), 0..3)
}

fn configs() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(any::<String>(), any::<String>(), 0..3)
}

fn samples() -> impl Strategy<Value = Record> {
    let values = (units(), figures()).prop_map(|(unit, figure)| Value { unit, figure });
    let values = prop::collection::vec(values, 0..4);
    let parts = (
        names(),
        any::<String>(),
        any::<u64>(),
        orders(),
        configs(),
        values,
        warnings(),
    );
    parts.prop_map(
        |(benchmark, variant, iterations, order, config, values, warnings)| {
            Record::Sample(Sample {
                benchmark,
                variant,
                iterations,
                order,
                config,
                values,
                warnings,
            })
        },
    )
}

fn headers() -> impl Strategy<Value = Record> {
    let command = prop::collection::vec(any::<String>(), 0..3);
    let parts = (
        any::<String>(),
        any::<String>(),
        any::<u64>(),
        command,
        configs(),
        warnings(),
    );
    parts.prop_map(|(tool, started, seed, command, machine, warnings)| {
        Record::Header(Header {
            tool,
            started,
            seed,
            command,
            machine,
            warnings,
        })
    })
}

fn failures() -> impl Strategy<Value = Record> {
    let parts = (
        names(),
        any::<String>(),
        orders(),
        any::<String>(),
        any::<String>(),
    );
    parts.prop_map(|(benchmark, variant, order, why, stderr)| {
        Record::Failure(Failure {
            benchmark,
            variant,
            order,
            why,
            stderr,
        })
    })
}

fn metas() -> impl Strategy<Value = Record> {
    let better = prop_oneof![
        Just(None),
        Just(Some(Better::Lower)),
        Just(Some(Better::Higher))
    ];
    let assume = prop_oneof![Just(Assume::Nothing), Just(Assume::Exact)];
    (units(), better, assume).prop_map(|(unit, better, assume)| {
        Record::Unit(UnitMeta {
            unit,
            better,
            assume,
        })
    })
}

pub(in super::super) fn records() -> impl Strategy<Value = Record> {
    prop_oneof![
        headers(),
        metas(),
        samples(),
        failures(),
        any::<(u64, u64)>().prop_map(|(samples, failures)| Record::End(End { samples, failures }))
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(records in prop::collection::vec(records(), 0..6)) {
        let text = write(&records);
        prop_assert_eq!(text.lines().count(), records.len());
        prop_assert_eq!(read(text.as_bytes()).0, records);
    }

    #[test]
    fn a_truncated_stream_gives_its_whole_lines(
        records in prop::collection::vec(records(), 1..4),
        share in 0.0..1.0,
    ) {
        let text = write(&records);
        let cut = &text.as_bytes()[..(text.len() as f64 * share) as usize];
        let lines = cut.iter().filter(|&&byte| byte == b'\n').count();
        let (got, _) = read(cut);
        prop_assert_eq!(&got[..lines], &records[..lines]);
        // Beside them at most the last line: cut within, or just before its newline.
        prop_assert!(got.len() <= lines + 1);
    }

    #[test]
    fn any_bytes_are_read(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in prop::collection::vec("[{}\\[\\]\":,a-z0-9\n\\\\ ]{0,60}", 0..5),
    ) {
        read(&bytes);
        read(lines.concat().as_bytes());
    }

    #[test]
    fn a_damaged_line_is_read(record in records(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = write(&[record]).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert!(read(&bytes).0.len() <= 2);
    }

    #[test]
    fn other_formats_write_any_record(records in prop::collection::vec(records(), 0..4)) {
        for format in [Format::Gobench, Format::Csv] {
            let mut writer = Writer::new(format, io::sink());
            for record in &records {
                prop_assert!(writer.write(record).is_ok());
            }
        }
    }
}
