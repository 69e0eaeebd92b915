//! The distribution of single operations, drawn. Never measures and never subtracts: what is drawn is what the clock said.

use hdrhistogram::Histogram;

use crate::unit::{Dimension, Scale};

/// A bar a power of √2 of nanoseconds, from the first to the last that was seen.
pub fn drawn(name: &str, histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{name}: {} operations as the clock saw them, its own cost not subtracted\n",
        histogram.len()
    );
    let bounds = bounds_ns(histogram.min(), histogram.max());
    let counts: Vec<u64> = bounds
        .windows(2)
        .map(|pair| histogram.count_between(pair[0], pair[1] - 1))
        .collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    for (pair, count) in bounds.windows(2).zip(counts) {
        text.push_str(&line(pair[0] as f64, count, most, WIDTH));
    }
    text
}

/// The columns of the longest bar.
const WIDTH: usize = 50;

/// The line of one bar, which begins at `from_ns`; the longest is that of `most`.
pub(super) fn line(from_ns: f64, count: u64, most: u64, width: usize) -> String {
    const BARS: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
    let eighths = (count as f64 / most as f64 * (width * 8) as f64).round() as usize;
    // What is there is never drawn as nothing.
    let eighths = if count > 0 { eighths.max(1) } else { 0 };
    let rest = if eighths.is_multiple_of(8) {
        ""
    } else {
        BARS[eighths % 8 - 1]
    };
    let from = Scale::for_figure(Dimension::Seconds, from_ns / 1e9).write(from_ns / 1e9);
    let bar = BARS[7].repeat(eighths / 8) + rest;
    format!("  {from:>9} {bar:<width$} {count}\n")
}

/// Rising bounds that hold every value from `least_ns` to `most_ns`.
fn bounds_ns(least_ns: u64, most_ns: u64) -> Vec<u64> {
    let bound = |step: i32| 2f64.powf(f64::from(step) / 2.0).ceil() as u64;
    let first = (0..).find(|&step| bound(step + 1) > least_ns).unwrap_or(0);
    let last = (first + 1..200)
        .find(|&step| bound(step) > most_ns)
        .unwrap_or(200);
    let mut bounds: Vec<u64> = (first..=last).map(bound).collect();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_one_bar() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for ns in [1, 2, 3, 150, 150, 151, 90_000] {
            histogram.record(ns).unwrap();
        }
        let text = drawn("X", &histogram);
        let counted: u64 = text
            .lines()
            .skip(1)
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(counted, 7, "{text}");
        assert!(
            text.lines().skip(1).all(|line| line.ends_with(" 0")
                || line.contains(['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█']))
        );
    }

    #[test]
    fn an_empty_histogram_draws_no_bar() {
        let text = drawn("X", &Histogram::<u64>::new(3).unwrap());
        assert!(!text.contains('█'), "{text}");
    }
}
