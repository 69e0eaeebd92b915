//! What tracing the syscalls of a write loop costs, beside the other tracers that are installed: CPU time a write, to that of the loop untraced.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use counterpoise::format::Reader;
use counterpoise::sample::{Record, Sample};
use counterpoise::stats::order;
use counterpoise::sys::clock::monotonic_ns;

use crate::{Estimate, Form, Goal, Measured, Measurement, Peer, Row, in_turn, quotients};

const TRACEFS: &str = "/sys/kernel/tracing";

/// tracefs, which bpftrace needs; mounted until this is dropped, unless it was there already or we
/// may not.
pub(crate) struct Tracefs {
    is_ours: bool,
}

impl Tracefs {
    pub(crate) fn mount() -> Tracefs {
        let has_events = || fs::read_dir(format!("{TRACEFS}/events")).is_ok();
        if has_events() {
            return Tracefs { is_ours: false };
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tracefs", "tracefs", TRACEFS]);
        let _ = mount.stderr(Stdio::null()).status();
        Tracefs {
            is_ours: has_events(),
        }
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = Command::new("umount").arg(TRACEFS).status();
        }
    }
}

pub(crate) fn rows(poise: &OsStr) -> anyhow::Result<Vec<Row>> {
    const ROUNDS: usize = 15;
    let goal = |what, target| Row {
        what,
        target,
        measured: Err(String::new()),
    };
    let mut rows = vec![
        goal(
            "the write loop under poise syscalls",
            Some(Goal::AtMost(2.1)),
        ),
        goal("  under poise syscalls --count", Some(Goal::AtMost(1.45))),
        goal(
            "  under poise syscalls --duty 5%, for longer",
            Some(Goal::AtMost(1.06)),
        ),
        goal(
            "  untraced beside poise syscalls: more a write",
            Some(Goal::Below(150.0, Form::Nanoseconds)),
        ),
        goal(
            "  poise syscalls: its start to the first traced call",
            Some(Goal::Below(100.0, Form::Milliseconds)),
        ),
        goal(
            "  two of it at once under poise syscalls, none lost: time a call",
            Some(Goal::Below(500.0, Form::Nanoseconds)),
        ),
    ];
    let trial = Command::new(poise)
        .args(["syscalls", "-q", "--rung", "bpf", "true"])
        .output()?;
    if !trial.status.success() {
        let why = String::from_utf8_lossy(&trial.stderr);
        for row in &mut rows {
            row.measured = Err(why
                .lines()
                .next()
                .unwrap_or("it does not say why")
                .to_owned());
        }
        return Ok(rows);
    }
    let program = match compiled("write_loop.c", "traced_loop")? {
        Ok(program) => program,
        Err(why) => {
            for row in &mut rows {
                row.measured = Err(why.clone());
            }
            return Ok(rows);
        }
    };
    let _mounted = Tracefs::mount();
    let peers: Vec<(&'static str, Peer, Vec<OsString>)> = [
        ("  under strace -c -f", "strace", "-c -f -o /dev/null"),
        ("  under perf trace -s", "perf", "trace -s -o /dev/null --"),
        (
            "  under perf stat -e raw_syscalls:sys_enter",
            "perf",
            "stat -o /dev/null -e raw_syscalls:sys_enter --",
        ),
    ]
    .into_iter()
    .map(|(what, tool, line)| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let trial: Vec<&str> = line.split(' ').chain(["true"]).collect();
        Ok((what, Peer::find(tool, &trial)?, words))
    })
    .collect::<anyhow::Result<_>>()?;
    let trial = "tracepoint:raw_syscalls:sys_enter { exit() }";
    let bpftrace = Peer::find("bpftrace", &["-e", trial])?;
    eprintln!("bench: the write loop {ROUNDS} times untraced and under each tracer");
    let mut things: Vec<Measurement<'_>> = vec![
        Box::new(|| write_ns(&mut Command::new(&program), WRITES)),
        Box::new(|| {
            write_ns(
                Command::new(poise)
                    .args(["syscalls", "-q", "--"])
                    .arg(&program),
                WRITES,
            )
        }),
        Box::new(|| {
            let mut command = Command::new(poise);
            write_ns(
                command
                    .args(["syscalls", "-q", "--count", "--"])
                    .arg(&program),
                WRITES,
            )
        }),
        Box::new(|| {
            let mut command = Command::new(poise);
            command.args(["syscalls", "-q", "--duty", "5%", "--"]);
            write_ns(command.arg(&program), LONG_WRITES)
        }),
        Box::new(|| beside(poise, &program)),
        Box::new(|| start_ms(poise, &program)),
        Box::new(|| two_at_once_ns(poise)),
    ];
    for (_, peer, words) in &peers {
        if peer.refusal.is_none() {
            let program = &program;
            things.push(Box::new(move || {
                let mut command = Command::new(&peer.program);
                // strace and perf trace take a hundred times as long.
                write_ns(command.args(words).arg(program), WRITES / 50)
            }));
        }
    }
    if bpftrace.refusal.is_none() {
        things.push(Box::new(|| {
            let mut command = Command::new(&bpftrace.program);
            let script = "tracepoint:raw_syscalls:sys_enter /pid == cpid/ { @s[tid] = nsecs; } \
                          tracepoint:raw_syscalls:sys_exit /@s[tid]/ { \
                          @h[args->id] = hist(nsecs - @s[tid]); delete(@s[tid]); }";
            let line = format!("{} {} cpu", program.display(), WRITES / 4);
            let output = command.args(["-q", "-e", script, "-c", &line]).output()?;
            first_number(&String::from_utf8_lossy(&output.stdout))
        }));
    }
    let figures = in_turn(ROUNDS, &mut things)?;
    drop(things);
    let untraced = &figures[0];
    let ns = |figures: &[f64]| order::median(figures).unwrap_or(f64::NAN);
    let ratio = |which: usize| -> anyhow::Result<Measured> {
        let aside = format!(
            "{:.0} ns, against {:.0} ns",
            ns(&figures[which]),
            ns(untraced)
        );
        let ratio = Estimate::of(&quotients(&figures[which], untraced), Form::Ratio)?;
        Ok(Ok(ratio.with_aside(aside)))
    };
    rows[0].measured = ratio(1)?;
    rows[1].measured = ratio(2)?;
    rows[2].measured = ratio(3)?;
    let more: Vec<f64> = figures[4]
        .iter()
        .zip(untraced)
        .map(|(a, b)| a - b)
        .collect();
    rows[3].measured = Ok(Estimate::of(&more, Form::Nanoseconds)?);
    rows[4].measured = Ok(Estimate::of(&figures[5], Form::Milliseconds)?);
    let rate = format!("{:.1} million calls a second", 1e3 / ns(&figures[6]));
    rows[5].measured = Ok(Estimate::of(&figures[6], Form::Nanoseconds)?.with_aside(rate));
    let mut next = 7;
    for (what, peer, _) in &peers {
        let mut row = goal(what, None);
        row.measured = match &peer.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => {
                next += 1;
                ratio(next - 1)?
            }
        };
        rows.push(row);
    }
    let mut row = goal("  under bpftrace, a histogram a syscall", None);
    row.measured = match bpftrace.refusal {
        Some(refusal) => Err(refusal),
        None => ratio(next)?,
    };
    rows.push(row);
    Ok(rows)
}

/// Writes of the small batch; the large one has four times as many.
const WRITES: u32 = 50_000;

/// So many that there are some slices in them.
const LONG_WRITES: u32 = 2_000_000;

/// The loop of this source, compiled; or why it is not.
pub(crate) fn compiled(
    source: &str,
    name: &str,
) -> anyhow::Result<Result<std::path::PathBuf, String>> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let program = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bench")
        .join(source);
    let mut compile = Command::new(&compiler);
    match compile
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(source)
        .status()
    {
        Err(error) => Ok(Err(format!(
            "no C compiler: {}: {error}",
            compiler.display()
        ))),
        Ok(status) => {
            ensure!(status.success(), "{compile:?} ended with {status}");
            Ok(Ok(program))
        }
    }
}

/// CPU time a write, in ns, of the loop that `command` ends with.
fn write_ns(command: &mut Command, writes: u32) -> anyhow::Result<f64> {
    command
        .arg(writes.to_string())
        .arg("cpu")
        .stdin(Stdio::null());
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {stderr}",
        output.status
    );
    first_number(&String::from_utf8_lossy(&output.stdout))
}

/// The seconds that the loop tells, in ns.
pub(crate) fn first_number(text: &str) -> anyhow::Result<f64> {
    let mut words = text.split_whitespace();
    let seconds = words.find_map(|word| word.parse::<f64>().ok());
    Ok(seconds.with_context(|| format!("no number in {text:?}"))? * 1e9)
}

/// A process that is ended with the value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time a write of the loop while something else is traced.
fn beside(poise: &OsStr, program: &std::path::Path) -> anyhow::Result<f64> {
    let other = Ended(Command::new("sleep").arg("60").spawn()?);
    let mut tracer = Command::new(poise);
    tracer.args(["syscalls", "-q", "-p", &other.0.id().to_string()]);
    let tracer = Ended(tracer.stdin(Stdio::null()).spawn()?);
    let links = format!("/proc/{}/fd", tracer.0.id());
    let is_attached = || {
        let descriptors = fs::read_dir(&links).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().contains("bpf_link"))
            .count()
            >= 6
    };
    let patience = (0..500).find(|_| {
        sleep(Duration::from_millis(10));
        is_attached()
    });
    patience.context("poise syscalls -p attaches nothing")?;
    // It measures its tare then.
    sleep(Duration::from_millis(50));
    write_ns(&mut Command::new(program), WRITES)
}

/// From the start of poise to the first call of what it traces, in ms.
fn start_ms(poise: &OsStr, program: &std::path::Path) -> anyhow::Result<f64> {
    let began_ns = monotonic_ns() as f64;
    let mut command = Command::new(poise);
    command
        .args(["syscalls", "-q", "--"])
        .arg(program)
        .args(["1", "now"]);
    let output = command.stdin(Stdio::null()).output()?;
    Ok((first_number(&String::from_utf8_lossy(&output.stdout))? - began_ns) / 1e6)
}

/// Time a traced call, in ns, while two loops make as many as they can.
///
/// Errors: a single call is missing.
fn two_at_once_ns(poise: &OsStr) -> anyhow::Result<f64> {
    const CALLS: u64 = 4_000_000;
    let copy = format!(
        "dd if=/dev/zero of=/dev/null bs=1 count={} status=none",
        CALLS / 4
    );
    let mut command = Command::new(poise);
    command.args(["syscalls", "--json", "-e", "read,write", "--", "sh", "-c"]);
    command.arg(format!("{copy} & {copy} & wait"));
    let output = command.stdin(Stdio::null()).output()?;
    let mut reader = Reader::new("the records", &output.stdout[..]);
    let samples: Vec<Sample> = std::iter::from_fn(|| reader.next())
        .filter_map(|record| match record {
            Record::Sample(sample) => Some(sample),
            _ => None,
        })
        .collect();
    let figure = |name: &str, unit: &str| {
        let mut samples = samples.iter();
        let sample = samples.find(|sample| sample.benchmark.to_string() == name);
        let figure = sample.and_then(|sample| sample.figure(unit)?.number());
        figure.with_context(|| format!("no {unit} of {name} in {samples:?}"))
    };
    let writes = figure("Syscall/name=write", "calls")?;
    ensure!(
        writes == (CALLS / 2) as f64,
        "{writes} writes were seen of {}",
        CALLS / 2
    );
    ensure!(samples[0].warnings.is_empty(), "{:?}", samples[0].warnings);
    Ok(figure("Syscalls", "sec/op")? * 1e9 / figure("Syscalls", "calls")?)
}
