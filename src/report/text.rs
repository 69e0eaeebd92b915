//! Tables for people: aligned text with every figure's trust beside it. Never computes a statistic, never prints.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::summary::{Benchmark, Estimate, Row, Stream, Trust};
use crate::sample::Cause;
use crate::unit::{Dimension, Scale, human};

/// How the text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns that a line may take.
    pub width: usize,
}

/// The stream's tables: one a benchmark, with footnotes and warnings under it.
pub fn stream(stream: &Stream, style: Style) -> String {
    let mut text = String::new();
    for benchmark in &stream.benchmarks {
        text.push_str(&table(benchmark, style));
        text.push('\n');
    }
    if !stream.failures.is_empty() {
        let _ = writeln!(
            text,
            "{} of the runs failed and are not counted:",
            stream.failures.len()
        );
        for failure in stream.failures.iter().take(3) {
            let _ = writeln!(
                text,
                "  run {}: {}",
                failure.order.sequence + 1,
                failure.why
            );
            for line in failure
                .stderr
                .lines()
                .rev()
                .take(5)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                let _ = writeln!(text, "    | {line}");
            }
        }
    }
    text
}

/// One benchmark's table.
pub fn table(benchmark: &Benchmark, style: Style) -> String {
    let rows = benchmark.rows();
    let repeated = benchmark.samples.len() > 1;
    let mut notes = Footnotes::default();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_width(style.width.try_into().unwrap_or(u16::MAX));
    if repeated {
        table.set_header([
            "",
            benchmark.estimator(),
            "95 % interval",
            "min",
            "max",
            "trust",
            "in order",
        ]);
    }
    let figure = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for row in &rows {
        let name = Cell::new(format!("  {}", row.unit));
        let scale = row.scale();
        let trust = Cell::new(trust_text(row, benchmark.samples.len(), &mut notes));
        match row.estimate {
            _ if !repeated => {
                let value = row
                    .series
                    .first()
                    .map_or("—".to_owned(), |&only| human(&row.unit, only));
                table.add_row([name, figure(value), trust]);
            }
            Estimate::None => {
                let blank = || figure(String::new());
                table.add_row([
                    name,
                    figure("—".to_owned()),
                    blank(),
                    blank(),
                    blank(),
                    trust,
                ]);
            }
            Estimate::Single(value) | Estimate::Middle { value, .. } => {
                let interval = match row.estimate {
                    Estimate::Middle {
                        interval: Some(interval),
                        ..
                    } => {
                        format!(
                            "{} … {}",
                            scale.write(interval.low),
                            scale.write(interval.high)
                        )
                    }
                    _ => "too few runs".to_owned(),
                };
                let (min, max) = row.range();
                table.add_row([
                    name,
                    figure(scale.write(value)),
                    figure(interval),
                    figure(scale.write(min)),
                    figure(scale.write(max)),
                    trust,
                    Cell::new(sparkline(&row.series, 20)),
                ]);
            }
        }
    }
    let runs = match benchmark.samples.len() {
        1 => "1 run".to_owned(),
        n => format!("{n} runs"),
    };
    let mut text = format!("{} ({runs})\n", benchmark.name);
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str(&notes.text());
    for (warning, holders) in benchmark.warnings() {
        let _ = match benchmark.samples.len() {
            1 => writeln!(text, "  warning: {}", warning.0),
            all => writeln!(text, "  warning: {} ({holders} of {all} runs)", warning.0),
        };
    }
    text
}

/// Causes under a table, numbered in order of mention.
#[derive(Default)]
struct Footnotes(Vec<Cause>);

impl Footnotes {
    fn mark(&mut self, cause: &Cause) -> String {
        let at = self
            .0
            .iter()
            .position(|known| known == cause)
            .unwrap_or_else(|| {
                self.0.push(cause.clone());
                self.0.len() - 1
            });
        superscript(at + 1)
    }

    fn text(&self) -> String {
        self.0
            .iter()
            .zip(1..)
            .map(|(cause, number)| format!("  {} {cause}\n", superscript(number)))
            .collect()
    }
}

fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number
        .to_string()
        .bytes()
        .map(|digit| DIGITS[usize::from(digit - b'0')])
        .collect()
}

fn trust_text(row: &Row, samples: usize, notes: &mut Footnotes) -> String {
    let label = match &row.trust {
        Trust::Exact => "exact".to_owned(),
        Trust::Scaled(running) => format!("scaled, ran {:.3} %", running * 100.0),
        Trust::Partial(part) => format!("partial: {}", part.0),
        Trust::Sampled(period_sec) => format!(
            "sampled each {}",
            Scale::for_figure(Dimension::Seconds, *period_sec).write(*period_sec)
        ),
        Trust::Absent(cause) => return format!("absent {}", notes.mark(cause)),
    };
    match row.series.len() {
        counted if counted == samples => label,
        counted => format!("{label}, {counted} of {samples}"),
    }
}

/// The series in time order as at most `width` bars, each the mean of its share of the samples,
/// between the smallest and the largest sample.
pub fn sparkline(series: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bars = series.len().min(width);
    let means: Vec<f64> = (0..bars)
        .map(|bar| {
            let share = &series[bar * series.len() / bars..(bar + 1) * series.len() / bars];
            share.iter().sum::<f64>() / share.len() as f64
        })
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |mean: f64| match high > low {
        true => BARS[(((mean - low) / (high - low) * 7.0).round() as usize).min(7)],
        false => BARS[0],
    };
    means.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_show_the_shape() {
        let check =
            |series: &[f64], want: &str| assert_eq!(sparkline(series, 4), want, "{series:?}");
        check(&[], "");
        check(&[5.0, 5.0], "▁▁");
        check(&[0.0, 1.0], "▁█");
        check(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 8.0, 8.0], "▁▂▃█");
    }

    #[test]
    fn footnotes_are_shared_by_equal_causes() {
        let mut notes = Footnotes::default();
        let marks = ["a", "b", "a"].map(|why| notes.mark(&Cause::new(why).cure("mend")));
        assert_eq!(marks, ["¹", "²", "¹"]);
        assert_eq!(notes.text(), "  ¹ a; mend\n  ² b; mend\n");
        assert_eq!(superscript(10), "¹⁰");
    }
}
