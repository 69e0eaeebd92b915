//! Comparing: two files of half a million lines beside benchstat, and two groups of a thousand figures. The files and figures are made here and always the same.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use counterpoise::format::Reader;
use counterpoise::sample::{Figure, Record};
use counterpoise::stats::{mann_whitney, order};

use crate::{Estimate, Form, Goal, Peer, Row, quotients};

const RUNS: usize = 20;

/// Seconds, seconds of CPU time and bytes of one run.
type Cost = [f64; 3];

/// What is compared.
#[derive(Clone, Copy, PartialEq)]
enum Results {
    /// Every figure scatters, in seven digits.
    Free,
    /// Times scatter, bytes do a little, and allocations do not.
    Tied,
}

/// So many lines compared, to benchstat's time and memory; and the tests of large groups.
pub(crate) fn rows(poise: &OsStr) -> anyhow::Result<Vec<Row>> {
    let benchstat = env::var_os("BENCHSTAT").unwrap_or_else(|| "benchstat".into());
    let benchstat = Peer::find_at(
        &benchstat,
        "benchstat",
        &["-h"],
        "or say where in $BENCHSTAT",
    )?;
    let mut rows = compared(
        poise,
        &benchstat,
        Results::Free,
        "poise compare, a million lines without ties, to benchstat",
    )?;
    rows.extend(compared(
        poise,
        &benchstat,
        Results::Tied,
        "poise compare, 250,000 lines, one unit with ties",
    )?);
    rows.extend(tested()?);
    Ok(rows)
}

fn compared(
    poise: &OsStr,
    benchstat: &Peer,
    results: Results,
    what: &'static str,
) -> anyhow::Result<Vec<Row>> {
    let rounds: usize = match env::var("ROUNDS") {
        Ok(rounds) => rounds.parse().context("$ROUNDS is not a number")?,
        Err(_) => 2,
    };
    // With ties it takes benchstat minutes.
    let names = if results == Results::Free {
        25_000
    } else {
        6_250
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let files = [("old.txt", 1), ("new.txt", 2)].map(|(name, seed)| (directory.join(name), seed));
    for (file, seed) in &files {
        write(file, *seed, results, names)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let files = files.map(|(file, _)| file);
    let lines = names * RUNS;
    eprintln!("bench: two files of {lines} lines, {rounds} times by each tool");
    let of = |program: &OsStr, verb: Option<&str>| cost(poise, program, verb, &files);
    let (mut by_poise, mut by_benchstat) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let ours = of(poise, Some("compare"))?;
        let theirs = match &benchstat.refusal {
            Some(_) => None,
            None => Some(of(benchstat.program.as_ref(), None)?),
        };
        if round > 0 {
            by_poise.push(ours);
            by_benchstat.extend(theirs);
        }
    }
    for file in files {
        std::fs::remove_file(file)?;
    }
    let row =
        |what, goal: Option<f64>, which: usize, show: fn(f64) -> String| -> anyhow::Result<Row> {
            let ours: Vec<f64> = by_poise.iter().map(|cost| cost[which]).collect();
            let theirs: Vec<f64> = by_benchstat.iter().map(|cost| cost[which]).collect();
            let middle = |figures: &[f64]| show(order::median(figures).unwrap_or(f64::NAN));
            let measured = match &benchstat.refusal {
                Some(refusal) => Err(format!("{refusal}; poise alone: {}", middle(&ours))),
                None => {
                    let aside = format!("{}, against {}", middle(&ours), middle(&theirs));
                    Ok(Estimate::of(&quotients(&ours, &theirs), Form::Ratio)?.with_aside(aside))
                }
            };
            Ok(Row {
                what,
                target: goal.map(Goal::AtMost),
                measured,
            })
        };
    let sec = |sec: f64| format!("{sec:.2} s");
    Ok(vec![
        row(what, Some(0.1), 0, sec)?,
        row("  its CPU time", None, 1, sec)?,
        // Of a few lines the program itself is the most.
        row(
            "  its peak memory",
            (results == Results::Free).then_some(0.2),
            2,
            |bytes| format!("{:.0} MB", bytes / 1e6),
        )?,
    ])
}

/// What the tests of two groups of a thousand figures cost.
fn tested() -> anyhow::Result<Vec<Row>> {
    const COUNT: usize = 1000;
    const ROUNDS: usize = 21;
    let mut draw = drawing(1);
    let mut groups = |figure: &dyn Fn(f64) -> f64| {
        let mut group = |most: f64| -> Vec<f64> {
            // Like a bell: the mean of four.
            let mut bell = || (0..4).map(|_| draw()).sum::<f64>() / 4.0;
            (0..COUNT).map(|_| figure(bell() * most)).collect()
        };
        [group(1.0), group(1.02)]
    };
    let free = groups(&|x| x);
    let kinds = [
        (
            "Mann-Whitney test, 1000 a side, exact, without ties",
            free.clone(),
        ),
        ("  rounded to two digits", groups(&|x| (x * 100.0).round())),
        (
            "  rounded to three digits",
            groups(&|x| (x * 1000.0).round()),
        ),
        ("  of three values", groups(&|x| (x * 3.0).floor())),
        (
            "  nine in ten of them zero",
            groups(&|x| (x * 2000.0 - 1370.0).ceil().max(0.0)),
        ),
    ];
    let timed = |what: &'static str, work: &dyn Fn()| -> anyhow::Result<Row> {
        let times: Vec<f64> = (0..=ROUNDS)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        Ok(Row {
            what,
            target: Some(Goal::Below(50.0, Form::Milliseconds)),
            measured: Ok(Estimate::of(&times[1..], Form::Milliseconds)?),
        })
    };
    let mut rows = Vec::new();
    for (what, [old, new]) in &kinds {
        let exact = mann_whitney::test(old, new).is_some_and(|test| test.exact);
        ensure!(exact, "{what} is not exact");
        rows.push(timed(what, &|| {
            black_box(mann_whitney::test(black_box(old), black_box(new)));
        })?);
    }
    rows.push(timed(
        "Hodges-Lehmann estimate and interval, 1000 a side",
        &|| {
            let [old, new] = black_box(&free);
            black_box(mann_whitney::hodges_lehmann(old, new));
            black_box(mann_whitney::interval(old, new, 0.95));
        },
    )?);
    Ok(rows)
}

/// Numbers from 0 to 1, always the same.
fn drawing(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        // Knuth's MMIX generator; its high bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Results of as many benchmarks as a large program has.
fn write(file: &PathBuf, seed: u64, results: Results, names: usize) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut draw = drawing(seed);
    writeln!(out, "goos: linux\ngoarch: amd64\npkg: example.com/bench")?;
    for name in 0..names {
        for _ in 0..RUNS {
            let mut around = |middle: usize| middle as f64 * (1.0 + 0.1 * draw());
            let ns = around(50 + name % 977);
            write!(
                out,
                "BenchmarkName{name}/size={}-8   \t{:8}\t",
                name % 7,
                (1e9 / ns) as u64
            )?;
            match results {
                Results::Free => writeln!(
                    out,
                    "{ns:16.6} ns/op\t{:16.6} MB/s\t{:16.6} req/op",
                    around(1000 + name % 4099),
                    around(10 + name % 13),
                )?,
                Results::Tied => writeln!(
                    out,
                    "{ns:14.4} ns/op\t{:8} B/op\t{:8} allocs/op",
                    1000 + name % 4099 + (draw() * 100.0) as usize,
                    name % 13,
                )?,
            }
        }
    }
    out.flush()
}

/// What a program costs that compares the files.
fn cost(
    poise: &OsStr,
    program: &OsStr,
    verb: Option<&str>,
    files: &[PathBuf],
) -> anyhow::Result<Cost> {
    let mut command = Command::new(poise);
    command
        .args(["stat", "--quiet", "--json", "--output", "null", "--"])
        .arg(program)
        .args(verb)
        .args(files);
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let mut records = Reader::new("poise stat", output.stdout.as_slice());
    let sample = records.find_map(|record| match record {
        Record::Sample(sample) => Some(sample),
        _ => None,
    });
    let sample = sample.context("poise stat gave no sample")?;
    let figure = |unit| {
        let number = sample.figure(unit).and_then(Figure::number);
        number.with_context(|| format!("poise stat gave no {unit}"))
    };
    let cpu = figure("user-sec/op")? + figure("sys-sec/op")?;
    Ok([figure("sec/op")?, cpu, figure("peak-RSS-bytes")?])
}
