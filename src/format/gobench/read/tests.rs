use proptest::prelude::*;

use super::super::super::reader::tests::{read, table};
use super::super::super::{Entry, Reader, Source};
use super::*;

fn check(text: &str, want: &[&str]) {
    assert_eq!(
        table(&read(Source::Gobench, text.as_bytes())),
        want,
        "{text}"
    );
}

#[test]
fn benchmark_lines_are_samples() {
    check(
        "goos: linux\npkg: a/b\nBenchmarkOne 100 1 ns/op 2 B/op\nBenchmarkTwo-8   \t 300\t4.5 MB/s\r\nPASS\nok  \ta/b\t1.2s\n",
        &[
            "One ×100 goos=linux pkg=a/b 0.000000001 sec/op, 2 B/op",
            "Two-8 ×300 goos=linux pkg=a/b 4500000 B/s",
        ],
    );
    check(
        "BenchmarkEm\u{2003}1\u{2003}1\u{2003}x\u{2003}\nBenchmarkHuge 1 9999999999999999999999999999999 x\n\
         Benchmark/k=v/sub-4 +7 .5 x -1e-3 y 1. z inf v\nBenchmarkzero 0 0 ns/op\n",
        &[
            "Em ×1 1 x",
            "Huge ×1 10000000000000000000000000000000 x",
            "_/k=v/sub-4 ×7 0.5 x, -0.001 y, 1 z, v absent: not a finite number",
            "zero ×0 0 sec/op",
        ],
    );
}

#[test]
fn names_stay_what_they_are() {
    let text = "Benchmark/k=v//x-4 1 1 x\n";
    let mut reader = Reader::new("f", text.as_bytes());
    let Some(Entry::Line(line)) = reader.entry() else {
        panic!("no line")
    };
    assert_eq!(
        (line.name, line.iterations, line.sequence),
        ("/k=v//x-4", 1, 0)
    );
}

#[test]
fn configuration_holds_until_it_is_changed() {
    check(
        "key1:    \t value\n: not a key\nab:not a key\na b: also not a key\nKey: nor this\nkey2: a: b \n\
         key3:\nübel: ja\nBenchmarkA 1 1 x\nkey2:\nkey1: \t\nBenchmarkB 1 1 x\nkey1: \u{2003}\n\
         übel:\nBenchmarkC 1 1 x\n",
        &[
            "A ×1 key1=value key2=a: b  übel=ja 1 x",
            "B ×1 übel=ja 1 x",
            "C ×1 key1=\u{2003} 1 x",
        ],
    );
}

#[test]
fn bad_lines_are_told() {
    check(
        "not a benchmark\nBenchmarkAlone\nBenchmarkSpace \nBenchmarkX abc\n\
         BenchmarkX 9999999999999999999999999999999\nBenchmarkX 9223372036854775808 1 x\nBenchmarkX -1 1 x\n\
         BenchmarkX 100\nBenchmarkX 100 abc\nBenchmarkX 100 1e999 x\nBenchmarkX 100 1\nBenchmarkX 100 1 ns/op 2\n\
         BenchmarkX 1 1 a\u{7f}b\nBenchmarkX 1 1 x\n",
        &[
            "f:3: missing iteration count",
            "f:4: parsing iteration count: invalid syntax",
            "f:5: parsing iteration count: value out of range",
            "f:6: parsing iteration count: value out of range",
            "f:7: parsing iteration count: invalid syntax",
            "f:8: missing measurements",
            "f:9: parsing measurement: invalid syntax",
            "f:10: parsing measurement: value out of range",
            "f:11: missing units",
            "f:12: missing units",
            "f:13: `a\u{7f}b` is not a unit: a unit is one word without spaces",
            "X ×1 1 x",
        ],
    );
    let text = b"BenchmarkX\xff 1 1 x\nBenchmarkX 1 1 x\nkey: \xff\n";
    let want = ["f:1: not UTF-8 from byte 11 on", "X ×1 1 x"];
    assert_eq!(table(&read(Source::Gobench, text)), want);
}

#[test]
fn units_are_described() {
    check(
        "Unit\nUnit ns/op blah\nUnitx\nUnit ns/op a=1\nUnit ns/op a=2\nUnit ns/op assume=exact\n\
         Unit sec/op assume=exact\nUnit IPC better=higher bad assume=nothing\nUnit IPC better=lower\n\
         Unit y better=sideways\nUnit z assume=exact\nUnit sec/op better=higher\n",
        &[
            "f:1: missing unit",
            "f:2: expected key=value",
            "f:5: metadata a of unit ns/op already set to 1",
            "unit sec/op Some(Lower) exact",
            "f:8: expected key=value",
            "unit IPC Some(Higher)",
            "f:9: metadata better of unit IPC already set to higher",
            "unit y None",
            "unit z None exact",
            "unit sec/op Some(Higher) exact",
        ],
    );
}

#[test]
fn a_kept_configuration_does_not_change() {
    let text =
        "k: 1\nBenchmarkA 1 1 ns/op\nk: 1\nBenchmarkA 1 2 ns/op 3 x\nk: 2\nBenchmarkA 1 4 x\n";
    let mut reader = Reader::new("f", text.as_bytes());
    let mut kept: Vec<(Arc<Config>, Vec<Measurement>)> = Vec::new();
    while let Some(entry) = reader.entry() {
        let Entry::Line(line) = entry else {
            panic!("{entry:?}")
        };
        kept.push((Arc::clone(line.config), line.values.to_vec()));
    }
    assert!(Arc::ptr_eq(&kept[0].0, &kept[1].0));
    assert!(Arc::ptr_eq(&kept[0].1[0].spelling, &kept[1].1[0].spelling));
    assert!(Arc::ptr_eq(&kept[1].1[1].spelling, &kept[2].1[0].spelling));
    assert_eq!((&*kept[0].0["k"], &*kept[2].0["k"]), ("1", "2"));
}

proptest! {
    #[test]
    fn a_line_is_split_at_white_space(fields in prop::collection::vec("[!-~µ]{1,9}", 1..9), space in "[ \t\u{b}\u{85}\u{2003}]{1,3}") {
        let text = fields.join(&space);
        let mut rest = &text[..];
        for want in &fields {
            let (field, after) = split_field(rest);
            prop_assert_eq!(field, want);
            rest = after;
        }
        prop_assert_eq!(rest, "");
    }

    #[test]
    fn numbers_are_those_of_the_standard_library(
        x in any::<f64>(),
        n in any::<u64>(),
        plain in "0{0,3}[0-9]{0,17}(\\.[0-9]{0,17})?",
    ) {
        let check = |text: &str, want: f64| {
            let text = format!("{text} y");
            prop_assert_eq!(split_number(&text), Ok((want, "y")));
            Ok(())
        };
        check(&n.to_string(), n as f64)?;
        if !x.is_nan() {
            check(&format!("{x:e}"), x)?;
        }
        match plain.parse() {
            Ok(want) => check(&plain, want)?,
            Err(_) => prop_assert!(split_number(&plain).is_err()),
        }
    }
}
