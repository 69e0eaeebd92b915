//! Comparing two files of half a million lines, beside benchstat. The files are made here and always the same.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use counterpoise::format::Reader;
use counterpoise::sample::{Figure, Record};
use counterpoise::stats::order;

use crate::{Estimate, Form, Goal, Peer, Row, quotients};

const NAMES: usize = 25_000;
const RUNS: usize = 20;

/// Seconds and bytes of one run.
type Cost = [f64; 2];

/// A million lines compared, to benchstat's time and memory.
pub(crate) fn rows(poise: &OsStr) -> anyhow::Result<[Row; 2]> {
    const ROUNDS: usize = 2;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let files = [("old.txt", 1), ("new.txt", 2)].map(|(name, seed)| (directory.join(name), seed));
    for (file, seed) in &files {
        results(file, *seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let files = files.map(|(file, _)| file);
    eprintln!("bench: two files of half a million lines, {ROUNDS} times by each tool");
    let benchstat = env::var_os("BENCHSTAT").unwrap_or_else(|| "benchstat".into());
    let benchstat = Peer::find_at(
        &benchstat,
        "benchstat",
        &["-h"],
        "or say where in $BENCHSTAT",
    )?;
    let of = |program: &OsStr, verb: Option<&str>| cost(poise, program, verb, &files);
    let (mut by_poise, mut by_benchstat) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
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
    let row = |what, goal, which: usize, show: fn(f64) -> String| -> anyhow::Result<Row> {
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
            target: Some(Goal::AtMost(goal)),
            measured,
        })
    };
    Ok([
        row(
            "poise compare, a million lines, to benchstat: time",
            0.1,
            0,
            |sec| format!("{sec:.2} s"),
        )?,
        row("  its peak memory", 0.2, 1, |bytes| {
            format!("{:.0} MB", bytes / 1e6)
        })?,
    ])
}

/// Results of as many benchmarks as a large program has: times scatter, bytes do a little, and
/// allocations do not.
fn results(file: &PathBuf, seed: u64) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut state = seed;
    let mut draw = || {
        // Knuth's MMIX generator; its high bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    writeln!(out, "goos: linux\ngoarch: amd64\npkg: example.com/bench")?;
    for name in 0..NAMES {
        for _ in 0..RUNS {
            let ns = (50 + name % 977) as f64 * (1.0 + 0.1 * draw());
            let bytes = 1000 + name % 4099 + (draw() * 100.0) as usize;
            writeln!(
                out,
                "BenchmarkName{name}/size={}-8   \t{:8}\t{ns:14.4} ns/op\t{bytes:8} B/op\t{:8} allocs/op",
                name % 7,
                (1e9 / ns) as u64,
                name % 13,
            )?;
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
    Ok([figure("sec/op")?, figure("peak-RSS-bytes")?])
}
