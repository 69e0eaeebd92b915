//! The files of records: written whole, kept when a run breaks off, read back whatever their state, and understood by others.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use counterpoise::sample::Record;

use crate::common::{
    Running, finish, not_run, poise, read_records, run, samples, scratch, whole_records, words,
};
use crate::raw;

/// Records of three runs, in `directory`.
fn recorded(directory: &Path) -> PathBuf {
    let file = directory.join("records");
    let mut command = poise();
    command.args(words("stat -q -r 3 -e task-clock,cpu-clock -o"));
    finish(command.arg(&file).args(["--", "true"])).exits(0);
    file
}

fn input(file: &Path, options: &str) -> crate::common::Ran {
    let mut command = poise();
    command.args(["stat", "--input"]).arg(file);
    finish(command.args(words(options)))
}

#[test]
fn a_file_of_records_is_whole() {
    let directory = scratch();
    let records = whole_records(&recorded(directory.path()));
    let Some(Record::Header(header)) = records.first() else {
        panic!("{records:#?}")
    };
    assert!(header.tool.starts_with("poise "));
    assert!(
        header
            .command
            .iter()
            .any(|word| word == "task-clock,cpu-clock")
    );
    assert!(header.machine.contains_key("kernel"), "{header:#?}");
    let described: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Unit(meta) => Some(meta.unit.clone()),
            _ => None,
        })
        .collect();
    for sample in samples(&records) {
        for value in &sample.values {
            let times = described.iter().filter(|unit| **unit == value.unit);
            assert_eq!(times.count(), 1, "{}", value.unit);
        }
    }
    let Some(Record::End(end)) = records.last() else {
        panic!("{records:#?}")
    };
    assert_eq!((end.samples, end.failures), (3, 0));
}

#[test]
fn runs_are_appended() {
    let directory = scratch();
    let file = recorded(directory.path());
    let mut command = poise();
    command.args(words("stat -q -r 2 -e dummy --append -o"));
    finish(command.arg(&file).args(["--", "sh", "-c", ":"])).exits(0);
    let records = whole_records(&file);
    let headers = records.iter().filter(|r| matches!(r, Record::Header(_)));
    assert_eq!((headers.count(), samples(&records).len()), (2, 5));
    input(&file, "")
        .exits(0)
        .shows(&["true (3 runs)", "sh_-c_: (2 runs)"]);
    // Without --append the file begins anew.
    let records = whole_records(&recorded(directory.path()));
    assert_eq!(samples(&records).len(), 3);
}

#[test]
fn recorded_runs_are_shown_as_they_were() {
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("stat -r 3 -e task-clock,cpu-clock -o"));
    let first = finish(command.arg(&file).args(["--", "true"])).exits(0);
    let again = input(&file, "").exits(0);
    assert_eq!((&first.stdout, ""), (&again.stdout, &*again.stderr));
    let mut command = poise();
    command
        .args(words("stat --input -"))
        .stdin(File::open(&file).unwrap());
    assert_eq!(finish(&mut command).exits(0).stdout, first.stdout);
    input(&file, "-j")
        .exits(0)
        .shows(&[r#""event":"task-clock""#]);
    input(&file, "-x,").exits(0).shows(&[",msec,cpu-clock,"]);
}

#[test]
fn recorded_runs_are_turned_into_other_formats() {
    let directory = scratch();
    let file = recorded(directory.path());
    let ran = input(&file, "--json").exits(0);
    assert_eq!(ran.stdout, fs::read_to_string(&file).unwrap());
    let ran = input(&file, "--format gobench --table").exits(0);
    assert_eq!(parse_gobench(&ran.stdout).len(), 3);
    ran.says(&["true (3 runs)"]);
    let ran = input(&file, "--format csv").exits(0);
    let mut rows = csv::Reader::from_reader(ran.stdout.as_bytes());
    assert!(rows.records().all(|row| row.unwrap().len() == 10));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = scratch();
    let at = |name: &str| directory.path().join(name);
    input(&at("missing"), "").refuses(1, &["missing", "No such file"]);
    input(directory.path(), "").refuses(1, &["Is a directory"]);
    fs::write(at("empty"), "").unwrap();
    input(&at("empty"), "").refuses(1, &["empty holds no samples"]);
    fs::write(at("text"), "hello\n").unwrap();
    let ran = input(&at("text"), "").exits(1);
    ran.says(&["text:1: ", "text holds no samples"]);
    // No more than a screen is said of a file that is something else altogether.
    let binary = input(env!("CARGO_BIN_EXE_poise").as_ref(), "").exits(1);
    assert!(binary.stderr.lines().count() < 10, "{}", binary.stderr);
    binary.says(&["holds no samples"]);
}

#[test]
fn files_without_permission_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = scratch();
    let file = recorded(directory.path());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&file).is_ok() {
        return not_run("unreadable input", "nothing is unreadable for this user");
    }
    input(&file, "").refuses(1, &["records", "Permission denied"]);
}

#[test]
fn what_is_whole_in_a_cut_file_is_shown() {
    let directory = scratch();
    let file = recorded(directory.path());
    let text = fs::read_to_string(&file).unwrap();
    let cut = directory.path().join("cut");
    // In the middle of the last sample, and before the end.
    let last = text.rfind(r#"{"record":"sample""#).unwrap();
    fs::write(&cut, &text[..last + 40]).unwrap();
    let ran = input(&cut, "").exits(1).shows(&["true (2 runs)"]);
    ran.says(&["cut:", "cut short in the middle of a line"]);
    let end = text.rfind(r#"{"record":"end""#).unwrap();
    fs::write(&cut, &text[..end]).unwrap();
    let ran = input(&cut, "").exits(0).shows(&["true (3 runs)"]);
    ran.says(&["cut was cut short"]);
    // One bad line costs that line alone.
    let garbled = text.replacen(r#""record":"sample""#, r#""record":"smaple""#, 1);
    fs::write(&cut, garbled).unwrap();
    let ran = input(&cut, "").exits(1).shows(&["true (2 runs)"]);
    ran.says(&["cut:"]);
    // A later version of the format is not guessed at.
    fs::write(&cut, text.replacen(r#""schema":1"#, r#""schema":2"#, 1)).unwrap();
    input(&cut, "").exits(1).says(&["holds no samples", "2"]);
}

#[test]
fn records_that_cannot_be_written_are_an_error_before_anything_runs() {
    let directory = scratch();
    let mark = directory.path().join("mark");
    for file in ["/missing/directory/file", "/dev/full", "/"] {
        let mut command = poise();
        command.args(["stat", "-o", file, "--", "touch"]).arg(&mark);
        finish(&mut command).refuses(1, &["cannot write"]);
        assert!(!mark.exists(), "{file}");
        run(["bench", "-r", "1", "-o", file, "getppid"]).refuses(1, &["cannot write"]);
    }
    run(["stat", "-o", "/missing/file", "--", "true"])
        .refuses(1, &["/missing/file", "No such file or directory"]);
    run(["stat", "-o", "/dev/full", "--", "true"]).says(&["No space left on device"]);
}

#[test]
fn a_disk_that_fills_up_costs_the_file_and_not_the_result() {
    let directory = scratch();
    let file = directory.path().join("records");
    // The header fits, and some samples; then nothing more.
    for bytes in [3000, 6000] {
        let mut command = poise();
        command.args(words("stat -r 1000 -e dummy -o")).arg(&file);
        raw::small_disk(command.args(["--", "true"]), bytes);
        let ran = finish(&mut command).exits(1);
        let ran = ran.says(&["cannot write the records", "File too large"]);
        let (kept, whole) = cut_records(&file);
        assert!(!whole);
        // What was measured last could not be kept, but is shown.
        ran.shows(&[&match kept + 1 {
            1 => "true (1 run)".to_owned(),
            n => format!("true ({n} runs)"),
        }]);
        input(&file, "").says(&["cut short"]);
    }
}

/// The number of samples in a file whose last line was cut, and whether it is whole.
fn cut_records(file: &Path) -> (usize, bool) {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.rfind('\n').map_or("", |end| &text[..=end]);
    fs::write(file.with_extension("lines"), lines).unwrap();
    let (records, whole) = read_records(&file.with_extension("lines"));
    (samples(&records).len(), whole)
}

#[test]
fn results_that_cannot_be_printed_are_an_error() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for arguments in [
        "stat -r 2 -- true",
        "stat --json -- true",
        "stat --format csv -q -- true",
        "bench --list",
        "events",
        "doctor",
        "completions bash",
    ] {
        let mut command = poise();
        command.args(words(arguments));
        let ran = Running::start_with_stdout(&mut command, full()).wait();
        ran.refuses(1, &["cannot write", "No space left on device"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for arguments in [
        "stat -r 3 -- true",
        "events",
        "doctor --json",
        "bench --list",
        "completions zsh",
    ] {
        let mut command = poise();
        command.args(words(arguments));
        let ran = Running::start_with_stdout(&mut command, gone()).wait();
        ran.exits(0).silently();
    }
    // Records are wanted by nobody then: measuring ends, as other programs end by SIGPIPE.
    for arguments in [
        "stat --json -r 100000 -e dummy -- true",
        "stat --format gobench -q -- true",
        "bench --json -r 100000 getppid",
    ] {
        let mut command = poise();
        command.args(words(arguments));
        let ran = Running::start_with_stdout(&mut command, gone()).wait();
        ran.exits(128 + nix::libc::SIGPIPE).silently();
    }
}

/// A line of results: the benchmark, its iterations, and value and unit by turns.
type Line = (String, u64, Vec<(f64, String)>);

/// Reads the Go benchmark format as its design document has it, and nothing else.
fn parse_gobench(text: &str) -> Vec<Line> {
    let mut results = Vec::new();
    let mut units: HashMap<String, String> = HashMap::new();
    assert!(text.ends_with('\n'));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(rest) = line.strip_prefix("Unit ") {
            let mut fields = rest.split(' ');
            let unit = fields.next().unwrap();
            for field in fields {
                let (key, value) = field.split_once('=').unwrap();
                let legal = match key {
                    "better" => ["lower", "higher"].contains(&value),
                    "assume" => ["nothing", "exact"].contains(&value),
                    _ => false,
                };
                assert!(legal, "{line}");
                let before = units.insert(format!("{unit} {key}"), value.to_owned());
                assert!(before.is_none_or(|before| before == value), "{line}");
            }
        } else if let Some(rest) = line.strip_prefix("Benchmark") {
            let fields: Vec<&str> = rest.split(' ').collect();
            let name = fields[0];
            assert!(name.starts_with(|c: char| !c.is_lowercase()), "{line}");
            assert!(
                fields.len() >= 4 && fields.len().is_multiple_of(2),
                "{line}"
            );
            let values = fields[2..].chunks(2).map(|pair| {
                let unit = pair[1];
                assert!(
                    !unit.is_empty() && !unit.contains(char::is_whitespace),
                    "{line}"
                );
                (pair[0].parse().unwrap(), unit.to_owned())
            });
            results.push((
                name.to_owned(),
                fields[1].parse().unwrap(),
                values.collect(),
            ));
        } else if !line.is_empty() {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            assert!(key.starts_with(|c: char| c.is_lowercase()), "{line}");
            assert!(
                !key.contains(|c: char| c.is_whitespace() || c.is_uppercase()),
                "{line}"
            );
            assert!(!value.is_empty(), "{line}");
        }
    }
    results
}

#[test]
fn go_benchmark_format_is_the_go_benchmark_format() {
    let ran = run(words(
        "stat --format gobench -r 6 -e task-clock,cpu-clock,cycles -- true",
    ));
    let results = parse_gobench(&ran.exits(0).stdout);
    assert_eq!(results.len(), 6);
    for (name, iterations, values) in &results {
        assert_eq!((name.as_str(), *iterations), ("True", 1));
        let units: Vec<&str> = values.iter().map(|(_, unit)| unit.as_str()).collect();
        assert!(units.contains(&"sec/op"), "{units:?}");
        assert!(values.iter().all(|(value, _)| value.is_finite()));
    }
    let ran = run(words("bench --format gobench -r 2 getppid write/size=4096"));
    let results = parse_gobench(&ran.exits(0).stdout);
    let mut names: Vec<&str> = results.iter().map(|(name, ..)| name.as_str()).collect();
    names.sort_unstable();
    let write = "Write/size=4096";
    assert_eq!(names, ["Getppid", "Getppid", write, write]);
    assert!(results.iter().all(|(_, iterations, _)| *iterations > 1));
}

#[test]
fn benchstat_reads_it() {
    let directory = scratch();
    let file = directory.path().join("results");
    let ran = run(words(
        "stat --format gobench -r 6 -e task-clock,cpu-clock -- true",
    ))
    .exits(0);
    fs::write(&file, &ran.stdout).unwrap();
    match Command::new("benchstat").arg(&file).output() {
        Err(error) => not_run("benchstat on our results", format!("benchstat: {error}")),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{errors}");
            assert!(text.contains("sec/op") && text.contains("True"), "{text}");
        }
    }
}

#[test]
fn tables_for_spreadsheets_are_comma_separated() {
    let directory = scratch();
    let file = directory.path().join("table.csv");
    let mut command = poise();
    command
        .args(words("stat -q -r 2 -e dummy --format csv -o"))
        .arg(&file);
    // A name that needs quotes.
    finish(command.args(["--", "sh", "-c", ": 'a,b' \"c\""])).exits(0);
    let mut rows = csv::Reader::from_path(&file).unwrap();
    let columns: Vec<String> = rows.headers().unwrap().iter().map(str::to_owned).collect();
    let column = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(|row| row.unwrap()).collect();
    let wanted: Vec<&csv::StringRecord> = rows
        .iter()
        .filter(|row| &row[column("unit")] == "sec/op")
        .collect();
    assert_eq!(wanted.len(), 2);
    for row in wanted {
        assert!(row[column("value")].parse::<f64>().unwrap() > 0.0);
        assert_eq!(&row[column("trust")], "exact");
        assert_eq!(&row[column("benchmark")], "sh_-c_:_'a,b'_\"c\"");
    }
}

#[test]
fn a_dash_is_standard_output() {
    let directory = scratch();
    let mut command = poise();
    command.current_dir(directory.path());
    let ran = finish(command.args(words("stat -e dummy --format csv -o - -- true"))).exits(0);
    ran.shows(&["sequence,round,"]);
    assert!(!directory.path().join("-").exists());
}

#[test]
fn appended_tables_have_one_row_of_names() {
    let directory = scratch();
    let file = directory.path().join("table.csv");
    for _ in 0..2 {
        let mut command = poise();
        command.args(words("stat -q -e dummy --format csv --append -o"));
        finish(command.arg(&file).args(["--", "true"])).exits(0);
    }
    let before = fs::read(&file).unwrap();
    for other in ["jsonl", "gobench"] {
        let mut command = poise();
        command.args(words(&format!("stat -q --format {other} --append -o")));
        finish(command.arg(&file).args(["--", "true"]))
            .exits(2)
            .says(&["holds csv", "--format csv"]);
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    let mut rows = csv::Reader::from_path(&file).unwrap();
    for row in rows.records() {
        let row = row.unwrap();
        assert!(row[0].parse::<u64>().is_ok(), "{row:?}");
    }
}

#[test]
fn records_go_to_pipes_as_they_are_made() {
    let directory = scratch();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = poise();
    command.args(words("stat -q -e dummy -r 2 -o")).arg(&fifo);
    let running = Running::start(command.args(["--", "true"]));
    let text = fs::read_to_string(&fifo).unwrap();
    running.wait().exits(0).silently();
    let copy = directory.path().join("copy");
    File::create(&copy)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert_eq!(samples(&whole_records(&copy)).len(), 2);
}
