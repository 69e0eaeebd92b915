//! `poise compare`: benchstat's numbers on its own inputs, our verdicts beside them, and everything that can be wrong with files.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Ran, Running, finish, poise, scratch, words};

fn peers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benchdata/peers")
        .join(name)
}

/// Compares what stands in `files`, by their names in `directory`.
fn compare(directory: &Path, arguments: &str) -> Ran {
    let mut command = poise();
    command.current_dir(directory).arg("compare");
    finish(command.args(words(arguments)))
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

/// Ten runs of a benchmark about `sec`, spread by some per mille.
fn runs(name: &str, sec: f64, unit: &str) -> String {
    let line = |k: u32| {
        let figure = sec * (1.0 + f64::from(k * 7 % 10) / 1000.0);
        format!("Benchmark{name} 1 {figure} {unit}\n")
    };
    (0..10).map(line).collect()
}

/// What benchstat printed as CSV for two files, and what we say of the same.
fn equals_benchstat(pair: &str, old: &str, new: &str) {
    let side = |label: &str, file: &str| format!("{label}={}", peers(file).display());
    let mut command = poise();
    command
        .args(["compare", "--format", "json"])
        .args([side("old", old), side("new", new)]);
    let ours = json(&finish(&mut command).exits(0));
    let theirs = fs::read_to_string(peers(&format!("benchstat-{pair}.csv"))).unwrap();
    let mut tables = ours["tables"].as_array().unwrap().iter();
    let (mut table, mut rows, mut compared) = (&Value::Null, [].iter(), 0);
    let close = |got: &Value, want: &str, of: &str| {
        let (got, want): (f64, f64) = (got.as_f64().unwrap(), want.parse().unwrap());
        assert!(
            (got - want).abs() <= 1e-12 * want.abs(),
            "{of}: {got}, benchstat: {want}"
        );
    };
    let percent = |ratio: &Value| format!("{:+.2}%", (ratio.as_f64().unwrap() - 1.0) * 100.0);
    for line in theirs.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        match fields[..] {
            [_] => {}
            ["", "old", ..] => {
                table = tables.next().unwrap();
                rows = [].iter();
            }
            ["", unit, "CI", ..] => {
                assert_eq!(table["unit"], unit);
                rows = table["rows"].as_array().unwrap().iter();
            }
            ["geomean", old, "", new, "", change, ..] => {
                assert!(rows.next().is_none(), "{table}");
                for (column, want) in [old, new].into_iter().enumerate() {
                    let mean = &table["geomean"][column]["mean"];
                    match want {
                        "" => assert!(mean.is_null()),
                        _ => close(mean, want, line),
                    }
                }
                assert_eq!(percent(&table["geomean"][1]["ratio"]), change, "{line}");
            }
            [name, old, old_reach, new, new_reach, change, p] => {
                let row = rows.next().unwrap();
                assert_eq!(row["name"], name);
                for (column, center, reach) in [(0, old, old_reach), (1, new, new_reach)] {
                    let cell = &row["cells"][column];
                    close(&cell["center"], center, line);
                    assert_eq!(reach_of(cell), reach, "{line}");
                }
                let comparison = &row["cells"][1]["comparison"];
                if change != "~" {
                    assert_eq!(percent(&comparison["ratio"]), change, "{line}");
                    assert_eq!(comparison["verdict"], "regressed", "{line}");
                }
                let n = row["cells"][1]["n"].as_u64().unwrap();
                match comparison["p_alone"].as_f64() {
                    Some(ours) => assert_eq!(p, format!("p={ours:.3} n={n}")),
                    // All the same: there it is a test without a result.
                    None => assert_eq!(p, format!("p=1.000 n={n}")),
                }
                compared += 1;
            }
            _ => panic!("{line}"),
        }
    }
    assert!(tables.next().is_none() && compared >= 4);
}

/// The interval as benchstat writes it.
fn reach_of(cell: &Value) -> String {
    // Infinite ends are null.
    let ends = (cell["low"].as_f64(), cell["high"].as_f64());
    match (cell["center"].as_f64().unwrap(), ends) {
        (center, (Some(low), Some(high))) if center != 0.0 => {
            let share = (high / center - 1.0).max(1.0 - low / center);
            format!("{:.0}%", share * 100.0)
        }
        (_, (Some(_), Some(_))) => "0%".to_owned(),
        _ => "∞".to_owned(),
    }
}

#[test]
fn medians_quotients_and_means_are_those_of_benchstat() {
    equals_benchstat(
        "compilebench",
        "compilebench-1.24.11.txt",
        "compilebench-1.27.3.txt",
    );
    equals_benchstat(
        "compilebench3",
        "compilebench3-1.21.13.txt",
        "compilebench3-1.27.3.txt",
    );
    equals_benchstat("gowrite", "gowrite-1.19.8.txt", "gowrite-1.27.3.txt");
}

#[test]
fn a_table_tells_what_changed() {
    let mut command = poise();
    let side = |label: &str, file: &str| format!("{label}={}", peers(file).display());
    command
        .arg("compare")
        .arg(side("old", "compilebench-1.24.11.txt"))
        .arg(side("new", "compilebench-1.27.3.txt"));
    let wide = finish(command.env("COLUMNS", "120")).exits(0);
    let lines: Vec<&str> = wide.stdout.lines().take(4).collect();
    assert_eq!(
        lines,
        [
            "sec/op   old             new             vs old",
            "Unicode  158.8 ms ± 41%  187.1 ms ± 41%         ~  -15.0 % … +54.5 %  p=0.180 n=6  inconclusive",
            "Flate    229.1 ms ± 34%  619.5 ms ± 12%  +170.46%  +151 % … +279 %    p=0.002 n=6  regressed",
            "geomean  190.8 ms        340.5 ms         +78.49%",
        ]
    );
    let said = ["all 10 comparisons together", "order cannot be excluded"];
    let wide = wide.shows(&said);
    assert_eq!(wide.stderr, "");
    for columns in [80, 60, 40, 10, 1] {
        let narrow = finish(command.env("COLUMNS", columns.to_string())).exits(0);
        for line in narrow.stdout.lines().take(4) {
            assert!(line.chars().count() <= columns, "{line}");
        }
        if columns >= 60 {
            narrow.shows(&["regressed", "inconclusive", "+170.46%"]);
        }
    }
    let coloured = finish(command.env("COLUMNS", "120").args(["--color", "always"])).exits(0);
    coloured.shows(&["\u{1b}[31mregressed\u{1b}[0m"]);
    finish(command.arg("--gate")).exits(3);
    finish(command.args(["--filter", ".unit:sec/op .name:Unicode"])).exits(4);
}

#[test]
fn few_runs_are_said_to_be_too_few() {
    let mut command = poise();
    let old = peers("compilebench3-1.21.13.txt");
    let new = peers("compilebench3-1.27.3.txt");
    finish(command.arg("compare").arg(old).arg(new))
        .exits(0)
        .shows(&[
            "± ∞ ¹",
            "¹ a 95 % interval takes 6 runs",
            "² no change is significant at 0.05 with fewer than 4 runs a side",
        ]);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let directory = scratch();
    let at = directory.path();
    write(at, "good", &runs("A", 1.0, "sec/op"));
    write(at, "empty", "");
    write(at, "text", "this is\nno benchmark\n");
    write(at, "name", "BenchmarkA\n");
    write(at, "bytes", "\0\u{1}\u{2}");
    fs::create_dir(at.join("directory")).unwrap();
    let check = |file: &str, said: &[&str]| {
        for both in [
            format!("good {file}"),
            format!("{file} good"),
            file.to_owned(),
        ] {
            let ran = compare(at, &both).exits(1).says(said);
            assert_eq!(ran.stdout, "", "{ran:#?}");
            assert_eq!(ran.stderr.matches("poise: error").count(), 1, "{ran:#?}");
        }
    };
    check("missing", &["cannot read missing: No such file"]);
    check("x=missing", &["cannot read missing: No such file"]);
    check("directory", &["cannot read directory: it is a directory"]);
    check("empty", &["there is no benchmark result in empty"]);
    check("text", &["there is no benchmark result in text"]);
    check("name", &["there is no benchmark result in name"]);
    check("bytes", &["there is no benchmark result in bytes"]);
    compare(at, "").exits(2);
    compare(at, "good --filter bad(").refuses(2, &["filter"]);
    compare(at, "good --row .nonsense").refuses(2, &[".nonsense"]);
    compare(at, "good --alpha 2").exits(2);
    compare(at, "good --format xml").exits(2);
    compare(at, "good --filter .name:B").refuses(1, &["none of the 10 results is selected"]);
}

#[test]
fn bad_lines_are_told_and_passed_over() {
    let directory = scratch();
    let at = directory.path();
    let good = runs("A", 1.0, "sec/op");
    write(
        at,
        "old",
        &format!("{good}BenchmarkA 1 x sec/op\nBenchmarkA 1 2\n"),
    );
    // A line that is far too long, in the middle.
    let mut long = File::create(at.join("new")).unwrap();
    writeln!(long, "BenchmarkA 1 {}", "1".repeat(80 << 20)).unwrap();
    write!(
        long,
        "{good}BenchmarkA 1 NaN sec/op\nBenchmarkA 1 +Inf sec/op\n"
    )
    .unwrap();
    drop(long);
    let ran = compare(at, "old new")
        .exits(0)
        .says(&["old:11: ", "old:12: ", "new:1: longer than"]);
    assert_eq!(ran.stderr.lines().count(), 3, "{ran:#?}");
    // What is not finite is no figure.
    ran.shows(&[
        "n=10",
        "2 runs of the new one could not be counted: not a finite number",
    ]);
    let many = "BenchmarkA 1 x sec/op\n".repeat(1000);
    write(at, "bad", &(many + &good));
    let ran = compare(at, "bad")
        .exits(0)
        .says(&["bad: 900 more lines were not understood"]);
    assert_eq!(ran.stderr.lines().count(), 101);
}

#[test]
fn output_may_be_full_or_closed() {
    let directory = scratch();
    let at = directory.path();
    let all: String = (0..3000)
        .map(|k| runs(&format!("A{k}"), 1.0, "sec/op"))
        .collect();
    write(at, "a", &all);
    for format in ["table", "markdown", "csv", "json"] {
        let mut command = poise();
        command
            .current_dir(at)
            .args(["compare", "a", "--format", format]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ran = Running::start_with_stdout(&mut command, full.into()).wait();
        ran.exits(1).says(&["cannot write to standard output"]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Running::start_with_stdout(&mut command, Stdio::from(writer)).wait();
        assert_eq!(
            (ran.code, ran.stderr.contains("panic")),
            (Some(0), false),
            "{ran:#?}"
        );
    }
    compare(at, "a --verdict /nonexistent/file")
        .exits(1)
        .says(&["/nonexistent/file"]);
}

#[test]
fn formats_can_be_mixed() {
    let directory = scratch();
    let at = directory.path();
    let times: Vec<String> = (0..10)
        .map(|k| format!("{}", 2.0 + f64::from(k) / 1000.0))
        .collect();
    let hyperfine = format!(
        r#"{{"results": [{{"command": "A", "times": [{}]}}]}}"#,
        times.join(", ")
    );
    write(at, "go", &runs("A", 1.0, "sec/op"));
    write(at, "hyperfine", &hyperfine);
    let ran = compare(at, "go hyperfine --format json").exits(0);
    let tables = json(&ran);
    let cells = &tables["tables"][0]["rows"][0]["cells"];
    assert_eq!(
        (&cells[0]["n"], &cells[1]["n"]),
        (&10.into(), &10.into()),
        "{tables:#}"
    );
    assert_eq!(cells[1]["comparison"]["verdict"], "regressed");
}

#[test]
fn tables_have_what_there_is() {
    let directory = scratch();
    let at = directory.path();
    let (a, b) = (runs("A", 1.0, "sec/op"), runs("B", 1.0, "sec/op"));
    write(at, "a", &a);
    write(at, "b", &b);
    write(at, "ab", &format!("{a}{b}"));
    write(at, "units", &runs("A", 1.0, "B/op"));
    write(at, "linux", &format!("goos: linux\n{a}"));
    write(at, "plan9", &format!("goos: plan9\n{a}"));
    // One column alone has nothing to be compared with.
    compare(at, "a")
        .exits(0)
        .shows(&["sec/op  a\n", "A       1.004 s ± 0%\n"]);
    compare(at, "a --gate").exits(4);
    for (files, why) in [
        ("a b", "no row has figures in two columns\n"),
        ("a units", "no row has figures in two columns\n"),
        ("linux plan9", "the tables differ in --ignore goos\n"),
        ("a linux", "the tables differ in --ignore goos\n"),
    ] {
        compare(at, files)
            .exits(0)
            .shows(&["nothing was compared", why]);
        compare(at, &format!("{files} --gate")).exits(4);
    }
    compare(at, "linux plan9 --ignore goos")
        .exits(0)
        .shows(&["equivalent"]);
    compare(at, "-ignore=goos -row .name linux plan9 --gate").exits(0);
    // A benchmark that is gone is undecided, a new one is none of the gate's.
    compare(at, "ab a --gate").exits(4);
    compare(at, "a ab --gate")
        .exits(0)
        .shows(&["other benchmarks than a"]);
    // Files with one label are one side.
    let both = json(&compare(at, "x=a x=a y=a --format json").exits(0));
    let cells = &both["tables"][0]["rows"][0]["cells"];
    assert_eq!((&cells[0]["n"], &cells[1]["n"]), (&20.into(), &10.into()));
    compare(at, "ab --row .file --col .name")
        .exits(0)
        .shows(&["vs A", "equivalent"]);
    compare(at, "ab --row .file")
        .exits(0)
        .shows(&["benchmarks vary in .name"]);
    let many: String = (0..2000)
        .map(|k| format!("Benchmark{k} 1 1 sec/op\n"))
        .collect();
    write(at, "many", &many);
    // One row may be as long as it likes.
    let wide = compare(at, "many --col .fullname --row .file").exits(0);
    wide.shows(&["vs 0", "1999"]);
    compare(at, "many --col .fullname").refuses(1, &["2000 rows and 2000 columns"]);
}

#[test]
fn units_are_what_their_files_say() {
    let directory = scratch();
    let at = directory.path();
    let exact = "Unit text-bytes better=lower assume=exact\nUnit qps better=higher\n";
    let line = |bytes, qps: f64| format!("{exact}BenchmarkA 1 {bytes} text-bytes {qps} qps\n");
    write(at, "old", &line(1000, 1.0));
    write(at, "new", &line(1001, 2.0));
    write(
        at,
        "mixed",
        &(line(1000, 1.0) + &line(1001, 1.0) + &line(1001, 1.0)),
    );
    compare(at, "old new")
        .exits(0)
        .shows(&["+0.10%", "exact   n=1  regressed"]);
    compare(at, "old mixed")
        .exits(0)
        .shows(&["said to be exact, but they go from 1000 to 1001"]);
    let sides = |unit: &str| {
        write(at, "slow", &(exact.to_owned() + &runs("A", 1.0, unit)));
        write(at, "fast", &(exact.to_owned() + &runs("A", 2.0, unit)));
        json(&compare(at, "slow fast --format json").exits(0))["tables"][0]["rows"][0]["cells"][1]
            ["comparison"]["verdict"]
            .clone()
    };
    assert_eq!(sides("qps"), "improved");
    assert_eq!(sides("MB/s"), "improved");
    assert_eq!(sides("ns/op"), "regressed");
    // Nobody has said what is better.
    assert_eq!(sides("frobs"), "changed");
}

#[test]
fn a_family_is_judged_together() {
    let directory = scratch();
    let at = directory.path();
    let side = |shift: f64| -> String {
        let mut text = String::new();
        for name in 0..20 {
            for k in 0..4 {
                let shift = if name == 0 { shift } else { 0.0 };
                let _ = writeln!(
                    text,
                    "BenchmarkN{name} 1 {} x/op",
                    100.0 + f64::from(k) + shift
                );
            }
        }
        text
    };
    write(at, "old", &side(0.0));
    write(at, "new", &side(50.0));
    compare(at, "old new").exits(0).shows(&[
        "p=0.029 n=4  inconclusive",
        "significant alone, but not among 20 comparisons; the only one to have changed takes 6 runs a side there",
    ]);
    compare(at, "old new --filter .name:N0")
        .exits(0)
        .shows(&["p=0.029 n=4  regressed"]);
}

#[test]
fn records_of_ab_are_paired() {
    let directory = scratch();
    let at = directory.path();
    // Ten rounds that drift far more than the variants differ.
    let records = |rule: &str| {
        let mut text = format!(
            r#"{{"record":"header","schema":1,"tool":"poise","started":"2026-01-01T00:00:00Z","seed":1,"command":[],"machine":{{"kernel":"6","sha256":"x"{rule}}},"warnings":[]}}"#
        );
        text.push('\n');
        for round in 0..10 {
            for (position, variant) in ["slow", "fast"].into_iter().enumerate() {
                let noise = f64::from((round * 7 + position as i32 * 3) % 5) / 1000.0;
                let drift = f64::from(1 + round) * (1.0 + noise);
                let figure = if variant == "fast" {
                    drift * 0.9
                } else {
                    drift
                };
                let sequence = round * 2 + position as i32;
                let _ = writeln!(
                    text,
                    r#"{{"record":"sample","benchmark":"A","variant":"{variant}","iterations":1,"order":{{"sequence":{sequence},"round":{round},"position":{position}}},"config":{{"env-padding":"{sequence}"}},"values":[{{"unit":"sec/op","value":{figure},"trust":"exact"}},{{"unit":"cycles/op","value":null,"trust":"absent","why":"no PMU"}}],"warnings":[]}}"#
                );
            }
        }
        text + "{\"record\":\"end\",\"samples\":20,\"failures\":0}\n"
    };
    write(
        at,
        "looks",
        &records(r#","stop-rule":"sequential alpha 0.05""#),
    );
    write(
        at,
        "fixed",
        &records(r#","stop-rule":"fixed 10 alpha 0.05""#),
    );
    write(at, "plain", &records(""));
    let of = |file: &str| {
        let ran = compare(at, &format!("{file} --format json")).exits(0);
        let tables = json(&ran);
        assert_eq!(tables["tables"].as_array().unwrap().len(), 1, "{tables:#}");
        assert_eq!(
            tables["remarks"],
            serde_json::json!(["absent: cycles/op: no PMU"])
        );
        tables["tables"][0]["rows"][0]["cells"][1]["comparison"].clone()
    };
    let (looks, fixed) = (of("looks"), of("fixed"));
    assert_eq!(
        (&looks["basis"], &fixed["basis"]),
        (&"10 pairs".into(), &"10 pairs".into())
    );
    assert_eq!(
        (&looks["verdict"], &fixed["verdict"]),
        (&"improved".into(), &"improved".into())
    );
    // 2/2¹⁰ for one look; for all looks together it is more.
    assert_eq!(fixed["p_alone"], 2.0 / 1024.0);
    assert!(looks["p_alone"].as_f64() > fixed["p_alone"].as_f64());
    compare(at, "looks")
        .exits(0)
        .shows(&["vs slow", "10 pairs", "improved"]);
    // Variants are told apart by --col alone, and groups drown in the drift.
    compare(at, "fixed --col variant --gate").exits(0);
    let groups = compare(at, "looks --col .file --table .unit").exits(0);
    groups.shows(&["benchmarks vary in variant"]);
    let ran = compare(at, "a=looks b=looks --filter variant:slow").exits(0);
    ran.shows(&["inconclusive", "order cannot be excluded"]);
    // Cut short: what is there is used.
    let text = records("");
    let cut: String = text
        .lines()
        .take(7)
        .map(|line| format!("{line}\n"))
        .collect();
    write(at, "cut", &cut);
    compare(at, "cut --col variant")
        .exits(0)
        .says(&["the records break off"]);
}

#[test]
fn verdicts_are_written_for_machines() {
    let directory = scratch();
    let at = directory.path();
    write(at, "old", &runs("A", 1.0, "sec/op"));
    write(at, "new", &runs("A", 1.5, "sec/op"));
    compare(at, "old new --gate --verdict verdict.json").exits(3);
    let verdict: Value =
        serde_json::from_str(&fs::read_to_string(at.join("verdict.json")).unwrap()).unwrap();
    assert_eq!(
        (&verdict["schema"], &verdict["gate"]),
        (&1.into(), &"fail".into())
    );
    let one = &verdict["verdicts"][0];
    let found = ["benchmark", "control", "variant", "unit", "verdict"].map(|key| &one[key]);
    assert_eq!(found, ["A", "old", "new", "sec/op", "regressed"]);
    compare(at, "new old --gate").exits(0);
    compare(at, "old old --gate").exits(4);
    compare(at, "old x=old --gate")
        .exits(0)
        .shows(&["equivalent"]);
    // A margin that forgives.
    compare(at, "old new --gate --margin 80%")
        .exits(0)
        .shows(&["regressed"]);
}

#[test]
fn other_programs_can_read_it() {
    let directory = scratch();
    let at = directory.path();
    write(
        at,
        "old",
        &(String::from("pkg: a|b\n") + &runs("A|B,C", 1.0, "sec/op")),
    );
    write(
        at,
        "new",
        &(String::from("pkg: a|b\n") + &runs("A|B,C", 1.5, "sec/op")),
    );
    let ran = compare(at, "old new --format csv")
        .exits(0)
        .says(&["order cannot be excluded"]);
    let mut reader = csv::Reader::from_reader(ran.stdout.as_bytes());
    let head = reader.headers().unwrap().clone();
    let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    let field = |line: usize, name: &str| {
        let at = head.iter().position(|head| head == name).unwrap();
        lines[line][at].to_owned()
    };
    assert_eq!(
        (field(0, "row"), field(0, "n")),
        ("A|B,C".into(), "10".into())
    );
    assert_eq!(
        (field(1, "base"), field(1, "verdict")),
        ("old".into(), "regressed".into())
    );
    assert_eq!(field(1, "ratio").parse::<f64>().unwrap(), 1.5);
    compare(at, "old new --format markdown").exits(0).shows(&[
        "| sec/op | old | new | vs old | | verdict |\n|---|--:|--:|--:|---|---|\n",
        "| A\\|B,C | 1.004 s ± 0% | 1.507 s ± 0% | +50.00% |",
        "| **regressed** |\n",
    ]);
}

#[test]
fn standard_input_is_a_file() {
    let directory = scratch();
    let at = directory.path();
    write(at, "old", &runs("A", 1.0, "sec/op"));
    let mut command = poise();
    command.current_dir(at).args(["compare", "old", "new=-"]);
    command.stdin(File::open(at.join("old")).unwrap());
    finish(&mut command)
        .exits(0)
        .shows(&["old", "new", "equivalent"]);
}

#[test]
fn what_was_recorded_here_can_be_compared() {
    let directory = scratch();
    let at = directory.path();
    let mut command = poise();
    let ab = "ab -q -r 4 -o ab.jsonl -e task-clock --name x --variant a=true --variant b=true";
    finish(command.current_dir(at).args(words(ab))).exits(0);
    let ran = compare(at, "ab.jsonl --format json").exits(0);
    let tables = json(&ran);
    let mut all = tables["tables"].as_array().unwrap().iter();
    let times = all.find(|table| table["unit"] == "sec/op").unwrap();
    assert_eq!(times["columns"], serde_json::json!(["a", "b"]));
    let comparison = &times["rows"][0]["cells"][1]["comparison"];
    assert_eq!(comparison["basis"], "4 pairs");
}
