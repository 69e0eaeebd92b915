//! `make bench`: what poise costs, as ratios to its peers that are measured in turn with it in this one run. Never fails on a missed target, for machines are noisy; fails when something is broken.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program of its own"
)]

mod comparison;
mod faulting;
mod tracing;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use counterpoise::format::Reader;
use counterpoise::perf::Access;
use counterpoise::perf::catalog::Catalog;
use counterpoise::perf::group::{Counters, How};
use counterpoise::sample::Record;
use counterpoise::stats::{Interval, order};
use counterpoise::sys::page::Page;
use counterpoise::sys::perf_event::Target;

/// Events that every kernel can count, whatever its machine.
const EIGHT_EVENTS: &str = "task-clock,page-faults,minor-faults,major-faults,context-switches,\
                            cpu-migrations,alignment-faults,emulation-faults";

fn main() -> ExitCode {
    match rows() {
        Ok(rows) => {
            print!("{}", table(&rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> anyhow::Result<Vec<Row>> {
    let poise = env::var_os("POISE").unwrap_or_else(|| env!("CARGO_BIN_EXE_poise").into());
    eprintln!("bench: measuring {}", poise.display());
    let hyperfine = Peer::find("hyperfine", &["--version"])?;
    let perf = Peer::find("perf", &["stat", "-o", "/dev/null", "--", "true"])?;
    let mut rows = repeated_runs(&poise, &hyperfine, &perf)?;
    rows.push(one_launch(&poise, &perf)?);
    rows.push(write_loop(&poise)?);
    rows.extend(counter_reads()?);
    rows.extend(tracing::rows(&poise)?);
    rows.extend(faulting::rows(&poise)?);
    rows.extend(comparison::rows(&poise)?);
    Ok(rows)
}

/// A line of the table.
struct Row {
    what: &'static str,
    target: Option<Goal>,
    measured: Measured,
}

/// A figure with its 95 % interval, or why there is none.
type Measured = Result<Estimate, String>;

struct Estimate {
    median: f64,
    low: f64,
    high: f64,
    form: Form,
    aside: String,
}

#[derive(Clone, Copy)]
enum Form {
    Ratio,
    Nanoseconds,
    Milliseconds,
}

#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    Below(f64, Form),
    Within(f64),
}

impl Estimate {
    /// The median of `figures`; its interval says how much they scatter, or their range where they
    /// are too few for one.
    fn of(figures: &[f64], form: Form) -> anyhow::Result<Estimate> {
        let median = order::median(figures).context("nothing was measured")?;
        let ends = |interval: Interval| (interval.low, interval.high);
        let range = || {
            let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
            (low, figures.iter().copied().fold(low, f64::max))
        };
        let interval = order::median_interval(figures, 0.95);
        let (low, high) = interval.map_or_else(range, ends);
        Ok(Estimate {
            median,
            low,
            high,
            form,
            aside: match interval {
                Some(_) => String::new(),
                None => format!("(range of {}) ", figures.len()),
            },
        })
    }

    fn with_aside(self, aside: String) -> Estimate {
        Estimate {
            aside: self.aside + &aside,
            ..self
        }
    }
}

impl Goal {
    fn is_reached(self, figure: f64) -> bool {
        match self {
            Goal::AtMost(limit) => figure <= limit,
            Goal::Below(limit, _) => figure < limit,
            Goal::Within(tolerance) => (figure - 1.0).abs() <= tolerance,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtMost(limit) => write!(f, "≤ {limit}"),
            Goal::Below(limit, Form::Ratio) => write!(f, "< {limit}"),
            Goal::Below(limit, Form::Nanoseconds) => write!(f, "< {limit} ns"),
            Goal::Below(limit, Form::Milliseconds) => write!(f, "< {limit} ms"),
            Goal::Within(tolerance) => write!(f, "1 ± {tolerance}"),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<58}  {:>9}  {:>8}  {:<17}  {}\n",
        "", "target", "median", "95 % interval", "reached"
    );
    for row in rows {
        let goal = row.target.map_or("—".to_owned(), |goal| goal.to_string());
        text.push_str(&format!("{:<58}  {goal:>9}  ", row.what));
        match &row.measured {
            Err(why) => text.push_str(&format!("not measured: {why}\n")),
            Ok(estimate) => {
                let show = |figure: f64| match estimate.form {
                    Form::Ratio => format!("{figure:.3}"),
                    Form::Nanoseconds => format!("{figure:.0} ns"),
                    Form::Milliseconds => format!("{figure:.1} ms"),
                };
                let interval = format!("{} … {}", show(estimate.low), show(estimate.high));
                let reached = match row.target.map(|goal| goal.is_reached(estimate.median)) {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "—",
                };
                let line = format!(
                    "{:>8}  {interval:<17}  {reached:<7}  {}",
                    show(estimate.median),
                    estimate.aside
                );
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}

/// Another tool, or why it cannot be measured.
struct Peer {
    program: OsString,
    refusal: Option<String>,
}

impl Peer {
    /// Tries the tool out.
    fn find(name: &'static str, trial: &[&str]) -> anyhow::Result<Peer> {
        Peer::find_at(name.as_ref(), name, trial, "make setup")
    }

    /// Tries out the tool `name`, which is `program`.
    fn find_at(program: &OsStr, name: &str, trial: &[&str], cure: &str) -> anyhow::Result<Peer> {
        let refusal = match Command::new(program)
            .args(trial)
            .stdin(Stdio::null())
            .output()
        {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("{name} is not installed ({cure})"))
            }
            Err(error) => Some(format!("{name} cannot be run: {error}")),
            Ok(tried) if tried.status.success() => None,
            Ok(tried) => {
                let stderr = String::from_utf8_lossy(&tried.stderr);
                let first = stderr.lines().find(|line| !line.trim().is_empty());
                Some(format!(
                    "{name} does not work here: {}",
                    first.unwrap_or("it does not say why").trim()
                ))
            }
        };
        if let Some(refusal) = &refusal {
            eprintln!("bench: {refusal}");
        }
        Ok(Peer {
            program: program.to_owned(),
            refusal,
        })
    }
}

/// Runs a command to its end and gives the seconds that it took.
fn timed<S: AsRef<OsStr>>(program: &OsStr, arguments: &[S]) -> anyhow::Result<f64> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let took = start.elapsed().as_secs_f64();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}

/// One thing that is measured in turn with others; it gives one figure each time.
type Measurement<'m> = Box<dyn FnMut() -> anyhow::Result<f64> + 'm>;

/// Measures all in turn, `rounds` times after one that does not count, each round beginning with
/// the next one, so that none always follows the same. Gives the figures of each, round by round.
fn in_turn(rounds: usize, things: &mut [Measurement<'_>]) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut figures = vec![Vec::with_capacity(rounds); things.len()];
    for round in 0..=rounds {
        for place in 0..things.len() {
            let which = (round + place) % things.len();
            let figure = things[which]()?;
            if round > 0 {
                figures[which].push(figure);
            }
        }
    }
    Ok(figures)
}

/// The quotients of figures of the same round.
fn quotients(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(a, b)| a / b).collect()
}

/// What 200 counted runs of a command that does nothing cost from beginning to end.
fn repeated_runs(poise: &OsStr, hyperfine: &Peer, perf: &Peer) -> anyhow::Result<Vec<Row>> {
    const ROUNDS: usize = 21;
    eprintln!("bench: 200 runs of true, {ROUNDS} times by each tool");
    let by_poise = |events: &[&str]| {
        let fixed = ["stat", "-r", "200", "--output", "null"];
        timed(poise, &[&fixed[..], events, &["--", "true"]].concat())
    };
    let mut things: Vec<Measurement<'_>> = vec![
        Box::new(|| by_poise(&[])),
        Box::new(|| by_poise(&["-e", EIGHT_EVENTS])),
    ];
    if hyperfine.refusal.is_none() {
        things.push(Box::new(|| {
            timed(
                "hyperfine".as_ref(),
                &["-N", "--runs", "200", "--style", "none", "true"],
            )
        }));
    }
    if perf.refusal.is_none() {
        things.push(Box::new(|| {
            timed(
                "perf".as_ref(),
                &["stat", "-r", "200", "-o", "/dev/null", "--", "true"],
            )
        }));
    }
    let figures = in_turn(ROUNDS, &mut things)?;
    let per_run = |figures: &[f64]| {
        let median = order::median(figures).unwrap_or(f64::NAN);
        format!("{:.0} µs", median / 200.0 * 1e6)
    };
    let against = |which: usize| -> anyhow::Result<Measured> {
        if let Some(refusal) = &hyperfine.refusal {
            return Ok(Err(refusal.clone()));
        }
        let aside = format!(
            "{} a run, against {}",
            per_run(&figures[which]),
            per_run(&figures[2])
        );
        let ratio = Estimate::of(&quotients(&figures[which], &figures[2]), Form::Ratio)?;
        Ok(Ok(ratio.with_aside(aside)))
    };
    let by_perf = match &perf.refusal {
        Some(refusal) => Err(refusal.clone()),
        None => against(figures.len() - 1)?,
    };
    let row = |what, target, measured| Row {
        what,
        target,
        measured,
    };
    let goal = Some(Goal::AtMost(1.3));
    Ok(vec![
        row(
            "poise stat -r 200 -- true, to hyperfine -N",
            goal,
            against(0)?,
        ),
        row("  the same with eight software events", goal, against(1)?),
        row("  perf stat -r 200 -- true, to hyperfine -N", None, by_perf),
    ])
}

/// What counting adds to one launch of a command that does nothing.
fn one_launch(poise: &OsStr, perf: &Peer) -> anyhow::Result<Row> {
    const ROUNDS: usize = 200;
    eprintln!("bench: one launch of true, {ROUNDS} times bare and by each tool");
    let counted = ["stat", "--", "true"];
    let mut things: Vec<Measurement<'_>> = vec![
        Box::new(|| timed::<&str>("true".as_ref(), &[])),
        Box::new(|| timed(poise, &counted)),
    ];
    if perf.refusal.is_none() {
        things.push(Box::new(|| timed(perf.program.as_os_str(), &counted)));
    }
    let figures = in_turn(ROUNDS, &mut things)?;
    let added = |which: usize| -> Vec<f64> {
        let pairs = figures[which].iter().zip(&figures[0]);
        pairs.map(|(counted, bare)| counted - bare).collect()
    };
    let measured = match &perf.refusal {
        Some(refusal) => Err(refusal.clone()),
        None => {
            let (by_poise, by_perf) = (added(1), added(2));
            let ms = |figures: &[f64]| order::median(figures).unwrap_or(f64::NAN) * 1e3;
            let aside = format!("{:.2} ms, against {:.2} ms", ms(&by_poise), ms(&by_perf));
            Ok(Estimate::of(&quotients(&by_poise, &by_perf), Form::Ratio)?.with_aside(aside))
        }
    };
    Ok(Row {
        what: "what poise stat -- true adds to a launch, to perf stat",
        target: Some(Goal::Below(0.25, Form::Ratio)),
        measured,
    })
}

/// One sample of `poise bench write`: seconds a write, and the writes of its small batch.
fn sample_of_write(poise: &OsStr) -> anyhow::Result<(f64, u64)> {
    let mut command = Command::new(poise);
    command.args(["bench", "write", "--runs", "1", "--quiet", "--json"]);
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    for record in Reader::new("poise bench write", output.stdout.as_slice()) {
        if let Record::Sample(sample) = record {
            let figure = sample.figure("sec/op").and_then(|figure| figure.number());
            let op_sec = figure.context("poise bench write gave no time")?;
            return Ok((op_sec, sample.iterations / 5));
        }
    }
    bail!("poise bench write gave no sample")
}

/// `poise bench write` beside the same loop in C.
fn write_loop(poise: &OsStr) -> anyhow::Result<Row> {
    const ROUNDS: usize = 150;
    let row = |measured| Row {
        what: "poise bench write, to the same loop in C",
        target: Some(Goal::Within(0.02)),
        measured,
    };
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let program: OsString = concat!(env!("CARGO_TARGET_TMPDIR"), "/write_loop").into();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/write_loop.c");
    let mut compile = Command::new(&compiler);
    // Linked as poise is: the call of a shared library's write costs a nanosecond or two more.
    let flags = env::var("CFLAGS").unwrap_or_default();
    compile
        .args(flags.split_whitespace())
        .args(["-O2", "-Wall", "-o"])
        .arg(&program)
        .arg(source);
    match compile.status() {
        Err(error) => {
            let why = format!("no C compiler: {}: {error}", compiler.display());
            return Ok(row(Err(why)));
        }
        Ok(status) => ensure!(status.success(), "{compile:?} ended with {status}"),
    }
    eprintln!("bench: the write loop, {ROUNDS} samples by poise and in C");
    let (_, small) = sample_of_write(poise)?;
    let small = small.to_string();
    let mut large_first = false;
    let mut things: [Measurement<'_>; 2] = [
        Box::new(|| sample_of_write(poise).map(|(op_sec, _)| op_sec)),
        Box::new(|| {
            large_first = !large_first;
            let mut command = Command::new(&program);
            command
                .arg(&small)
                .args(large_first.then_some("large-first"));
            let output = command.output()?;
            ensure!(
                output.status.success(),
                "{command:?} ended with {}",
                output.status
            );
            Ok(String::from_utf8(output.stdout)?.trim().parse()?)
        }),
    ];
    let figures = in_turn(ROUNDS, &mut things)?;
    let ns = |figures: &[f64]| order::median(figures).unwrap_or(f64::NAN) * 1e9;
    let aside = format!(
        "{:.1} ns, against {:.1} ns",
        ns(&figures[0]),
        ns(&figures[1])
    );
    let ratio = Estimate::of(&quotients(&figures[0], &figures[1]), Form::Ratio)?;
    Ok(row(Ok(ratio.with_aside(aside))))
}

/// What reading four counters costs, by the kernel and by the counter instruction.
fn counter_reads() -> anyhow::Result<Vec<Row>> {
    let hardware = "cycles:u,instructions:u,branches:u,branch-misses:u";
    let software = "task-clock:u,page-faults:u,minor-faults:u,major-faults:u";
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let open = |events: &str| -> anyhow::Result<Result<Counters, String>> {
        let parsed = Catalog::default().parse(events)?;
        let events: Vec<_> = parsed.into_iter().flat_map(|group| group.events).collect();
        let how = How {
            inherit: false,
            enable_on_exec: false,
            user_access: true,
        };
        let opened = Counters::open(&events, Target::Myself, how)
            .and_then(|counters| counters.enable().map(|()| counters));
        Ok(opened.map_err(|error| access.explain(&error).to_string()))
    };
    let on_pmu = open(hardware)?;
    let fallback = match &on_pmu {
        Ok(_) => None,
        Err(_) => Some(open(software)?),
    };
    let (counters, kind) = match (&on_pmu, &fallback) {
        (Ok(counters), _) => (Ok(counters), "hardware"),
        (_, Some(software)) => (software.as_ref(), "software"),
        (Err(why), None) => (Err(why), "hardware"),
    };
    let by_read = match counters {
        Err(why) => Err(why.clone()),
        Ok(counters) => {
            let leader = counters.fds().next().context("a group has a leader")?;
            let mut bytes = [0; 1024];
            let mut by_library = || drop(black_box(counters.read()));
            let mut by_kernel = || _ = black_box(nix::unistd::read(leader, &mut bytes));
            let [cost, bare] = costs_ns([&mut by_library, &mut by_kernel])?;
            counters.read()?;
            let aside = format!("{kind} events; the bare read(2): {:.0} ns", bare.median);
            Ok(cost.with_aside(aside))
        }
    };
    let by_instruction = match &on_pmu {
        Err(why) => Err(why.clone()),
        Ok(counters) => {
            let mapped = |fd| Page::map(fd).ok().filter(|page| page.count().is_some());
            match counters.fds().map(mapped).collect::<Option<Vec<Page>>>() {
                None => Err("the kernel does not let user space read these counters".to_owned()),
                Some(pages) => {
                    let [cost] = costs_ns([&mut || {
                        for page in &pages {
                            black_box(page.count());
                        }
                    }])?;
                    Ok(cost)
                }
            }
        }
    };
    let row = |what, limit_ns, measured| Row {
        what,
        target: Some(Goal::Below(limit_ns, Form::Nanoseconds)),
        measured,
    };
    Ok(vec![
        row(
            "reading a group of four counters by read(2)",
            1000.0,
            by_read,
        ),
        row(
            "reading four counters by the counter instruction",
            100.0,
            by_instruction,
        ),
    ])
}

/// What one call of each costs: the medians over batches of calls, taken in turn.
fn costs_ns<const N: usize>(mut calls: [&mut dyn FnMut(); N]) -> anyhow::Result<[Estimate; N]> {
    const BATCHES: usize = 201;
    const CALLS: u32 = 1000;
    let mut things: Vec<Measurement<'_>> = Vec::new();
    for call in &mut calls {
        things.push(Box::new(|| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS))
        }));
    }
    let costs_ns = in_turn(BATCHES, &mut things)?;
    let estimates = costs_ns
        .iter()
        .map(|costs_ns| Estimate::of(costs_ns, Form::Nanoseconds))
        .collect::<anyhow::Result<Vec<Estimate>>>()?;
    estimates
        .try_into()
        .map_err(|_| anyhow::anyhow!("as many costs as calls"))
}
