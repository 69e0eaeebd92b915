//! `poise stat` on a command: every option, and the tables.

use std::fs;

use counterpoise::sample::{Figure, Record};

use crate::common::{
    Ran, counts, exact, finish, measure, not_run, poise, read_records, run, samples, scratch,
    whole_records, words,
};

/// The table with its figures and what depends on the machine left out.
fn golden(text: &str, check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d+(\.\d+)?(e-?\d+)? ([mµn]?s|[KMG]iB)\b", "[figure]");
    settings.add_filter(r" +\[figure\]", " [figure]");
    // What these are, and the footnotes, depends on the machine.
    settings.add_filter(
        r"\n  (user-sec|sys-sec|peak-RSS|others|steal|—|[¹²³⁴] ).*",
        "",
    );
    settings.add_filter(
        r"involuntary-switches/op .*",
        "involuntary-switches/op [switches]",
    );
    settings.add_filter(r"CPUs .*", "CPUs [figure]");
    settings.add_filter(r"[▁▂▃▄▅▆▇█]+", "[bars]");
    settings.add_filter(r"  +", "  ");
    assert!(!text.is_empty());
    settings.bind(check);
}

#[test]
fn one_run_is_a_table_on_standard_error() {
    if !counts("the table of one run", "task-clock") {
        return;
    }
    let ran = run(words("stat -e task-clock -- echo hello")).exits(0);
    assert_eq!(ran.stdout, "hello\n");
    golden(&ran.stderr, || {
        insta::assert_snapshot!(ran.stderr, @r"
        echo_hello (1 run)
          sec/op [figure]  exact
          involuntary-switches/op [switches]
          CPUs [figure]
          task-clock-sec/op [figure]  exact
        ");
    });
}

#[test]
fn repeated_runs_are_a_table_on_standard_output() {
    if !counts("the table of repeated runs", "task-clock") {
        return;
    }
    let ran = run(words("stat -r 6 -e task-clock -- echo hello")).exits(0);
    assert_eq!(ran.stderr, "");
    golden(&ran.stdout, || {
        insta::assert_snapshot!(ran.stdout, @r"
        echo_hello (6 runs)
          median  95 % interval  min  max  trust  in order
          sec/op [figure] [figure] … [figure] [figure] [figure]  exact  [bars]
          involuntary-switches/op [switches]
          CPUs [figure]
          task-clock-sec/op [figure] [figure] … [figure] [figure] [figure]  exact  [bars]
        ");
    });
}

#[test]
fn the_default_is_the_whole_of_what_a_run_costs() {
    let sample = &measure(words("stat -- true"))[0];
    let units: Vec<&str> = sample
        .values
        .iter()
        .map(|value| value.unit.as_str())
        .collect();
    for unit in [
        "sec/op",
        "user-sec/op",
        "sys-sec/op",
        "peak-RSS-bytes",
        "involuntary-switches/op",
        "CPUs",
        "task-clock-sec/op",
    ] {
        assert!(units.contains(&unit), "{unit} in {units:?}");
    }
    // Where the kernel's part may not be counted, the unit says so.
    for event in [
        "minor-faults",
        "major-faults",
        "context-switches",
        "cpu-migrations",
        "cycles",
        "instructions",
        "branches",
        "branch-misses",
    ] {
        let names = [format!("{event}/op"), format!("{event}:u/op")];
        assert!(
            names.iter().any(|name| units.contains(&name.as_str())),
            "{event} in {units:?}"
        );
    }
    assert!(exact(sample, "sec/op") > 0.0);
}

#[test]
fn details_are_more_events() {
    let units = |arguments: &str| measure(words(arguments))[0].values.len();
    let [none, one, two] = ["stat -- true", "stat -d -- true", "stat -dd -- true"].map(units);
    assert!(none < one && one < two, "{none} {one} {two}");
    let sample = &measure(words("stat -d -d -- true"))[0];
    for event in ["L1-dcache-load-misses", "iTLB-load-misses"] {
        let figure = sample.figure(&format!("{event}/op"));
        let user = sample.figure(&format!("{event}:u/op"));
        assert!(figure.or(user).is_some(), "{event} in {sample:#?}");
    }
}

#[test]
fn runs_are_repeated_in_order() {
    let samples = measure(words("stat -r 5 -e dummy -- true"));
    let order: Vec<u64> = samples.iter().map(|sample| sample.order.sequence).collect();
    assert_eq!(order, [0, 1, 2, 3, 4]);
    let rounds: Vec<u64> = samples.iter().map(|sample| sample.order.round).collect();
    assert_eq!(rounds, order);
    assert!(samples.iter().all(|s| s.benchmark.to_string() == "true"));
}

#[test]
fn events_may_be_given_more_than_once() {
    let arguments = "stat -e task-clock -e faults:u,{cs,dummy} --event cpu-clock -- true";
    let sample = &measure(words(arguments))[0];
    let units: Vec<&str> = sample
        .values
        .iter()
        .map(|value| value.unit.as_str())
        .collect();
    let own = units.iter().position(|unit| *unit == "task-clock-sec/op");
    let own = own.unwrap_or_else(|| panic!("{units:?}"));
    assert_eq!(units[own..].len(), 5, "{units:?}");
}

#[test]
fn warmup_runs_are_not_counted() {
    let directory = scratch();
    let output = directory.path().join("output");
    let mut command = poise();
    command
        .args(words("stat -r 2 --warmup 3 --json -q --output"))
        .arg(&output);
    let ran = finish(command.args(words("-- echo x"))).exits(0);
    assert_eq!(fs::read_to_string(&output).unwrap(), "x\n".repeat(5));
    assert_eq!(ran.stdout.matches(r#""record":"sample""#).count(), 2);
}

#[test]
fn preparations_run_before_every_run_and_outside_it() {
    let directory = scratch();
    let log = directory.path().join("log");
    let prepare = format!("echo prepare >> {}; echo said", log.display());
    let script = format!("echo run >> {}", log.display());
    let arguments = [
        "stat",
        "-r",
        "2",
        "--warmup",
        "1",
        "-q",
        "--prepare",
        &prepare,
    ];
    let ran = run(arguments.into_iter().chain(["--shell", &script])).exits(0);
    assert_eq!(ran.stdout, "");
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log, "prepare\nrun\n".repeat(3));
}

#[test]
fn a_failed_preparation_ends_the_run() {
    let arguments = ["stat", "-r", "3", "--prepare", "exit 4", "--", "true"];
    run(arguments).refuses(1, &["`exit 4` failed", "exit status: 4"]);
}

#[test]
fn output_goes_where_it_is_wanted() {
    let directory = scratch();
    let file = directory.path().join("file");
    let file = file.to_str().unwrap();
    let script = "read word; echo \"heard $word\"; echo beside >&2";
    let check = |options: &str, stdout: &str, stderr: &str| {
        let mut command = poise();
        command.arg("stat").arg("-q").args(words(options));
        command.args(["--", "sh", "-c", script]);
        let input = fs::write(format!("{file}.in"), "us\n");
        input.unwrap();
        command.stdin(fs::File::open(format!("{file}.in")).unwrap());
        let ran = finish(&mut command).exits(0);
        assert_eq!((&*ran.stdout, &*ran.stderr), (stdout, stderr), "{options}");
    };
    check("", "heard us\n", "beside\n");
    check("-r 1 --output inherit", "heard us\n", "beside\n");
    check("--output null", "", "");
    check("-r 2", "", "");
    check(
        "-r 2 --output inherit",
        "heard us\nheard \n",
        "beside\nbeside\n",
    );
    check(&format!("-r 2 --output {file}"), "", "");
    assert_eq!(fs::read_to_string(file).unwrap(), "heard \nheard \n");
    check(&format!("--output {file}"), "", "");
    assert_eq!(
        fs::read_to_string(file).unwrap(),
        "heard \n",
        "truncated first"
    );
    run(["stat", "--output", "/missing/file", "--", "true"])
        .refuses(1, &["/missing/file", "No such file"]);
}

#[test]
fn the_end_of_standard_error_is_kept_for_the_failure() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("stat -r 2 -e dummy -o")).arg(&file);
    let ran = finish(command.args(["--", "sh", "-c", script])).exits(3);
    ran.shows(&[
        "2 of the runs failed",
        "run 1: exit status 3",
        "| line 19999",
    ]);
    let records = whole_records(&file);
    let failures: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Failure(failure) => Some(failure),
            _ => None,
        })
        .collect();
    assert_eq!(failures.len(), 2);
    assert!(failures[1].stderr.ends_with("line 19998\nline 19999\n"));
    assert!(failures[1].stderr.len() <= 4096);
}

#[test]
fn no_shell_unless_asked_for() {
    let line = "echo a b | tr a c; exit 3";
    let ran = run(["stat", "-q", "--shell", line]).exits(3);
    assert_eq!(ran.stdout, "c b\n");
    run(["stat", "-q", line]).refuses(127, &["not found", "sh -c"]);
}

#[test]
fn failed_runs_are_samples_only_on_request() {
    let directory = scratch();
    let marks = directory.path().join("marks");
    let file = directory.path().join("records");
    // The first and every second run after it fail.
    let script = format!(
        "echo >> {0}; exit $(( $(wc -l < {0}) % 2 * 6 ))",
        marks.display()
    );
    let go = |options: &str, code| {
        let _ = fs::remove_file(&marks);
        let mut command = poise();
        command.args(words(options)).arg("-o").arg(&file);
        finish(command.args(["--", "sh", "-c", &script])).exits(code);
        whole_records(&file)
    };
    let records = go("stat -q -r 4 -e dummy", 6);
    assert_eq!(samples(&records).len(), 2);
    let Some(Record::End(end)) = records.last() else {
        panic!("{records:#?}")
    };
    assert_eq!((end.samples, end.failures), (2, 2));

    let records = go("stat -q -r 4 -e dummy --ignore-failure", 0);
    let doubts: Vec<usize> = samples(&records).iter().map(|s| s.warnings.len()).collect();
    assert_eq!(doubts, [1, 0, 1, 0]);
}

#[test]
fn what_nearly_always_fails_is_given_up() {
    let directory = scratch();
    let file = directory.path().join("records");
    let mut command = poise();
    command.args(words("stat -r 1000 -e dummy -o")).arg(&file);
    finish(command.args(["--", "sh", "-c", "exit 9"]))
        .exits(9)
        .says(&["3 of 3 runs failed; the last: exit status 9"]);
    let (records, whole) = read_records(&file);
    let failures = records.iter().filter(|r| matches!(r, Record::Failure(_)));
    assert_eq!(failures.count(), 3);
    assert!(!whole, "a run that was given up has no end");
}

#[test]
fn time_limits_the_number_of_runs() {
    let samples = measure(words("stat -r 100000000 --time 50ms -e dummy -- true"));
    assert!(!samples.is_empty());
    let samples = measure(words("stat -r 3 --time 1h -e dummy -- true"));
    assert_eq!(samples.len(), 3);
}

#[test]
fn the_command_is_bound_to_its_cpus() {
    let allowed = procfs::process::Process::myself()
        .unwrap()
        .status()
        .unwrap();
    let allowed = allowed.cpus_allowed_list.unwrap();
    let last = allowed.last().unwrap().1.to_string();
    let script = "grep Cpus_allowed_list /proc/self/status";
    let ran = run(["stat", "-q", "--cpu-list", &last, "--shell", script]).exits(0);
    assert_eq!(ran.stdout, format!("Cpus_allowed_list:\t{last}\n"));
}

#[test]
fn intervals_come_before_the_whole() {
    let samples = measure(words("stat -I 20 -e task-clock -- sleep 0.1"));
    let (whole, intervals) = samples.split_last().unwrap();
    assert_eq!(whole.benchmark.to_string(), "sleep_0.1");
    assert!(!intervals.is_empty());
    for interval in intervals {
        assert_eq!(interval.benchmark.to_string(), "sleep_0.1/interval=20ms");
        assert!(
            interval.config.contains_key("interval-end"),
            "{interval:#?}"
        );
    }
}

#[test]
fn seeds_are_kept() {
    let ran = run(words("stat --json -q --seed 12345 -- true")).exits(0);
    ran.shows(&[r#""seed":12345"#, r#""command":["#, r#""--seed","12345"#]);
}

#[test]
fn quiet_says_nothing_and_json_only_records() {
    run(words("stat -q -- true")).exits(0).silently();
    run(words("stat -q -r 3 -- true")).exits(0).silently();
    let ran = run(words("stat --json -- true")).exits(0);
    assert_eq!(ran.said(), "");
    for line in ran.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let ran = run(words("stat --json --table -- true")).exits(0);
    ran.says(&["true (1 run)", "sec/op"])
        .shows(&[r#"{"record":"end""#]);
}

/// The fields of the line for `event`.
fn separated_line(ran: &Ran, separator: char, event: &str) -> Vec<String> {
    let lines = ran.stderr.lines().chain(ran.stdout.lines());
    let mut lines = lines.map(|line| line.split(separator).map(str::to_owned).collect());
    lines
        .find(|fields: &Vec<String>| fields.get(2).is_some_and(|field| field == event))
        .unwrap_or_else(|| panic!("no {event} in {ran:#?}"))
}

#[test]
fn separated_values_are_those_of_perf() {
    if !counts("perf's separated values", "task-clock") {
        return;
    }
    for (options, separator) in [("-x,", ','), ("-x ;", ';'), ("--field-separator=|", '|')] {
        let mut arguments = words("stat -e task-clock");
        arguments.extend(words(options));
        arguments.extend(["--", "true"]);
        let ran = run(arguments).exits(0);
        let fields = separated_line(&ran, separator, "task-clock");
        assert_eq!(fields.len(), 7, "{fields:?}");
        assert!(fields[0].parse::<f64>().unwrap() > 0.0, "{fields:?}");
        assert_eq!(fields[1], "msec", "{fields:?}");
        assert_eq!(fields[4], "100.00", "{fields:?}");
        let clock = separated_line(&ran, separator, "duration_time");
        assert_eq!(clock[1], "ns", "{clock:?}");
        assert!(clock[0].parse::<f64>().unwrap() > 0.0, "{clock:?}");
    }
}

#[test]
fn json_values_are_those_of_perf() {
    if !counts("perf's JSON values", "task-clock") {
        return;
    }
    let ran = run(words("stat -j -r 2 -e task-clock -- true")).exits(0);
    assert_eq!(ran.stderr, "");
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let clock = lines
        .iter()
        .find(|line| line["event"] == "task-clock")
        .unwrap();
    let value = clock["counter-value"].as_str().unwrap();
    assert!(value.parse::<f64>().unwrap() > 0.0, "{clock}");
    assert_eq!(clock["unit"], "msec");
    assert_eq!(clock["pcnt-running"], 100.0);
}

#[test]
fn a_warm_up_that_fails_is_told_with_its_last_words() {
    let script = "echo first >&2; echo last >&2; exit 3";
    run(["stat", "-r", "2", "--warmup", "1", "--", "sh", "-c", script])
        .refuses(1, &["the warm-up failed: exit status 3, saying: last"]);
}

#[test]
fn a_benchmark_can_be_named() {
    let sample = &measure(words("stat --name Compile/opt=2 -- true"))[0];
    assert_eq!(sample.benchmark.to_string(), "Compile/opt=2");
    assert_eq!(sample.benchmark.parameters().len(), 1);
}

#[test]
fn colours_are_for_those_who_want_them() {
    let escape = "\u{1b}[";
    let plain = run(words("stat -- /missing/program"));
    assert!(!plain.stderr.contains(escape), "{plain:#?}");
    let coloured = run(words("--color always stat -- /missing/program"));
    assert!(coloured.stderr.contains(escape), "{coloured:#?}");
    let coloured = run(words("doctor --color=always")).exits(0);
    assert!(coloured.stdout.contains(escape), "{coloured:#?}");
    let mut command = poise();
    command.env("NO_COLOR", "1").args(["doctor"]);
    assert!(!finish(&mut command).stdout.contains(escape));
}

#[test]
fn absent_is_said_in_every_form() {
    let sample = &measure(words("stat -e cycles -- true"))[0];
    let Some(Figure::Absent { why }) = sample.figure("cycles/op") else {
        return not_run("absent events", "this machine counts cycles");
    };
    assert!(!why.why.is_empty());
    let ran = run(words("stat -e cycles --json -- true")).exits(0);
    ran.shows(&[r#""unit":"cycles/op","value":null,"trust":"absent","why":""#]);
    let ran = run(words("stat -e cycles -- true"))
        .exits(0)
        .says(&[&why.why]);
    let row = ran.stderr.lines().find(|line| line.contains("cycles/op"));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["—", "absent"]);
    let ran = run(words("stat -e cycles -r 3 -- true"))
        .exits(0)
        .shows(&[&why.why]);
    let row = ran.stdout.lines().find(|line| line.contains("cycles/op"));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["—", "absent"]);
    let ran = run(words("stat -e cycles -j -- true")).exits(0);
    ran.says(&[r#"{"counter-value":"<not supported>","event":"cycles""#]);
    let ran = run(words("stat -e cycles -x, -- true")).exits(0);
    let fields = separated_line(&ran, ',', "cycles");
    assert_eq!(fields[0], "<not supported>");
    let ran = run(words("stat -e cycles --format csv -- true")).exits(0);
    ran.shows(&["cycles/op,,absent,"]);
    let ran = run(words("stat -e cycles --format gobench -- true")).exits(0);
    let line = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("Benchmark"));
    assert!(!line.unwrap().contains("cycles"), "{ran:#?}");
}
