//! How fast lines of the Go benchmark format are read: a million of them, with three units each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::time::Instant;

use counterpoise::format::{Entry, Reader, Source};
use counterpoise::sample::Record;

/// Benchmarks, and lines of each.
const NAMES: u32 = 25_000;
const RUNS: u32 = 40;

/// Reads the file in one way; gives the number of lines.
type Way = fn(&File) -> usize;

fn main() -> anyhow::Result<()> {
    let mut file = write(tempfile::tempfile()?)?;
    let bytes = file.metadata()?.len();
    let ways: [(&str, Way); 3] = [
        ("lent lines", lent),
        ("lent lines, their numbers gathered by name", gathered),
        ("records", records),
    ];
    for (what, read) in ways {
        file.rewind()?;
        let start = Instant::now();
        let lines = read(&file);
        let elapsed_sec = start.elapsed().as_secs_f64();
        anyhow::ensure!(lines == (NAMES * RUNS) as usize, "{what}: {lines} lines");
        let per_sec = bytes as f64 / 1e6 / elapsed_sec;
        writeln!(
            std::io::stdout(),
            "{what}: {lines} lines in {elapsed_sec:.3} s, {per_sec:.0} MB/s"
        )?;
    }
    Ok(())
}

fn write(file: File) -> anyhow::Result<File> {
    let mut out = BufWriter::new(file);
    writeln!(
        out,
        "goos: linux\ngoarch: amd64\npkg: example.com/x\ncpu: any"
    )?;
    let mut random = 1_u64;
    for line in 0..NAMES * RUNS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (name, size) = (line / RUNS, line / RUNS % 7);
        let iterations = 1000 + (random >> 40) % 100_000;
        let ns = 100.0 + ((random >> 33) % 10_000) as f64 / 10.0;
        let (bytes, allocs) = ((random >> 50) % 512, random >> 60);
        writeln!(
            out,
            "BenchmarkName{name:05}/size={size}-8   \t{iterations:>8}\t{ns:>10.1} ns/op\t\
             {bytes:>8} B/op\t{allocs:>8} allocs/op"
        )?;
    }
    Ok(out.into_inner()?)
}

fn lent(file: &File) -> usize {
    let mut reader = Reader::of(Source::Gobench, "lines", file);
    let mut lines = 0;
    while let Some(entry) = reader.entry() {
        lines += usize::from(matches!(entry, Entry::Line(line) if line.values.len() == 3));
    }
    lines
}

fn gathered(file: &File) -> usize {
    let mut reader = Reader::of(Source::Gobench, "lines", file);
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut series: Vec<[Vec<f64>; 3]> = Vec::new();
    while let Some(entry) = reader.entry() {
        let Entry::Line(line) = entry else { continue };
        let place = match places.get(line.name) {
            Some(&place) => place,
            None => {
                places.insert(line.name.to_owned(), series.len());
                series.push(Default::default());
                series.len() - 1
            }
        };
        for (numbers, measurement) in series[place].iter_mut().zip(line.values) {
            numbers.push(measurement.value);
        }
    }
    series.iter().map(|numbers| numbers[0].len()).sum()
}

fn records(file: &File) -> usize {
    let reader = Reader::of(Source::Gobench, "lines", file);
    reader
        .filter(|record| matches!(record, Record::Sample(_)))
        .count()
}
