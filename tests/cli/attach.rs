//! `poise stat` on what runs already: processes, threads, CPUs, the whole machine.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use counterpoise::sample::{Figure, Sample};
use nix::sys::signal::Signal;

use crate::common::{
    Ran, Running, counts, eventually, exact, exercise, finish, not_run, poise, read_records, run,
    samples, scratch, whole_records, words,
};

/// A process that is ended with the value.
struct Subject(Child);

impl Subject {
    fn start(command: &mut Command) -> Subject {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        Subject(command.spawn().unwrap())
    }

    /// Never idle, never ends.
    fn busy() -> Subject {
        Subject::start(Command::new("sh").args(["-c", "while :; do :; done"]))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures and gives the only sample.
fn only_sample(arguments: &str) -> Sample {
    let mut samples = crate::common::measure(words(arguments));
    assert_eq!(samples.len(), 1, "{samples:#?}");
    samples.remove(0)
}

/// Whether we may count everything on a CPU.
fn may_count_cpus(what: &str) -> bool {
    let ran = run(words("stat -q -a -e task-clock --timeout 1"));
    if ran.code != Some(0) {
        not_run(what, ran.stderr.trim());
    }
    ran.code == Some(0)
}

#[test]
fn running_processes_are_counted() {
    if !counts("running processes", "task-clock:u") {
        return;
    }
    let [one, other] = [Subject::busy(), Subject::busy()];
    let both = format!("{},{}", one.pid(), other.pid());
    for (option, ids, name) in [
        ("-p", one.pid(), format!("Attach/pid={}", one.pid())),
        (
            "--pid",
            both.clone(),
            format!("Attach/pid={}", both.replace(',', "+")),
        ),
        ("-t", one.pid(), format!("Attach/tid={}", one.pid())),
    ] {
        // Until they have run while we looked.
        eventually("a busy process to run", || {
            let arguments = format!("stat {option} {ids} -e task-clock:u --timeout 50");
            let sample = only_sample(&arguments);
            assert_eq!(sample.benchmark.to_string(), name);
            match sample
                .figure("task-clock:u-sec/op")
                .or(sample.values.last().map(|v| &v.figure))
            {
                Some(Figure::Exact(clock)) => (*clock > 0.0).then_some(()),
                Some(Figure::Absent { why }) => {
                    assert!(why.why.contains("did not run"), "{why:?}");
                    None
                }
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn the_count_ends_with_the_process_and_is_exact() {
    let what = "faults of a running process";
    let (Some(program), true) = (exercise(what), counts(what, "minor-faults:u")) else {
        return;
    };
    let faults = |pages: &str| {
        let directory = scratch();
        let file = directory.path().join("records");
        let mut subject = Subject::start(Command::new(program).args(["late", pages]));
        let mut command = poise();
        command
            .args(words("stat -q -I 10 -e minor-faults:u -o"))
            .arg(&file);
        let running = Running::start(command.args(["-p", &subject.pid()]));
        eventually("the first interval", || {
            let text = fs::read_to_string(&file).ok()?;
            text.contains(r#""record":"sample""#).then_some(())
        });
        subject.0.stdin.take().unwrap().write_all(b"x").unwrap();
        running.wait().exits(0).silently();
        let records = whole_records(&file);
        let samples = samples(&records);
        let (whole, intervals) = samples.split_last().unwrap();
        let count = |sample: &Sample| match sample.figure("minor-faults:u/op") {
            Some(Figure::Exact(count)) => *count,
            Some(Figure::Absent { .. }) => 0.0,
            other => panic!("{other:?}"),
        };
        let sum: f64 = intervals.iter().map(|sample| count(sample)).sum();
        assert_eq!(sum, count(whole));
        count(whole)
    };
    let more = faults("1000") - faults("0");
    assert_eq!(more, 1000.0);
}

#[test]
fn the_whole_machine_is_counted() {
    if !may_count_cpus("the whole machine") {
        return;
    }
    let Some(program) = exercise("the whole machine") else {
        return;
    };
    let program = program.display();
    let sample = only_sample(&format!(
        "stat -a -e minor-faults,task-clock -- {program} pages 1000"
    ));
    assert!(exact(&sample, "minor-faults/op") >= 1000.0, "{sample:#?}");
    assert!(exact(&sample, "task-clock-sec/op") > 0.0);
    assert!(sample.benchmark.to_string().starts_with("Attach/cpus="));
    let sample = only_sample("stat -a -e task-clock --timeout 5");
    assert!(exact(&sample, "sec/op") > 0.0);
}

#[test]
fn chosen_cpus_are_counted() {
    let what = "chosen CPUs";
    if !may_count_cpus(what) || Command::new("taskset").arg("-V").output().is_err() {
        return;
    }
    let Some(program) = exercise(what) else {
        return;
    };
    let status = procfs::process::Process::myself()
        .unwrap()
        .status()
        .unwrap();
    let cpu = status.cpus_allowed_list.unwrap()[0].0;
    let program = program.display();
    let bound = format!("taskset -c {cpu} {program} pages 1000");
    let sample = only_sample(&format!("stat -C {cpu} -e minor-faults -- {bound}"));
    assert_eq!(sample.benchmark.to_string(), format!("Attach/cpus={cpu}"));
    assert!(exact(&sample, "minor-faults/op") >= 1000.0, "{sample:#?}");
}

#[test]
fn a_command_beside_a_subject_is_the_timer() {
    if !counts("a timer", "task-clock:u") {
        return;
    }
    let subject = Subject::busy();
    let mut command = poise();
    command.args(["stat", "-q", "-e", "task-clock:u", "-p", &subject.pid()]);
    let ran = finish(command.args(["--", "echo", "beside"])).exits(0);
    assert_eq!(ran.stdout, "beside\n");
    let missing = format!("stat -e dummy -p {} -- /missing/timer", subject.pid());
    run(words(&missing)).refuses(127, &["/missing/timer: not found"]);
}

#[test]
fn who_is_not_there_is_named() {
    // Above the highest number that the kernel gives.
    let missing = (1 << 22) + 1;
    for option in ["-p", "-t"] {
        let ran = run(words(&format!("stat {option} {missing} --timeout 10")));
        ran.refuses(1, &[&missing.to_string(), "No such process"]);
    }
    let subject = Subject::busy();
    let both = format!("stat -p {},{missing} --timeout 10", subject.pid());
    run(words(&both)).refuses(1, &[&missing.to_string(), "No such process"]);
}

#[test]
fn a_stop_shows_what_was_counted() {
    if !counts("stopping the count of a process", "task-clock:u") {
        return;
    }
    let directory = scratch();
    let file = directory.path().join("records");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let _ = fs::remove_file(&file);
        let mut subject = Subject::busy();
        let mut command = poise();
        command.args(words("stat -e task-clock:u -o")).arg(&file);
        command.args(["-I", "10", "-p", &subject.pid()]);
        let running = Running::start(&mut command);
        eventually("the first interval", || {
            let text = fs::read_to_string(&file).ok()?;
            text.contains(r#""record":"sample""#).then_some(())
        });
        running.signal(signal);
        let ran: Ran = running.wait().exits(128 + signal as i32);
        ran.says(&[&format!("Attach/pid={} (1 run)", subject.pid())]);
        let (records, whole) = read_records(&file);
        assert!(!whole && samples(&records).len() >= 2);
        assert!(subject.0.try_wait().unwrap().is_none(), "it goes on");
    }
}

#[test]
fn what_cannot_be_counted_is_not_waited_for() {
    let subject = Subject::busy();
    let arguments = format!("stat -q -e cycles -p {} --timeout 10", subject.pid());
    let ran = run(words(&arguments));
    if ran.code == Some(0) {
        return not_run("a process without counters", "this machine counts cycles");
    }
    ran.refuses(5, &["cannot count: "]);
}
