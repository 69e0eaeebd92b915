//! Tables for people: aligned text with every figure's trust beside it. Never computes a statistic, never prints.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::summary::{Benchmark, Estimate, Row, Stream, Trust};
use crate::sample::{Cause, Figure, INTERVAL_END, Sample, Value};
use crate::unit::{Dimension, Scale, Unit, human};

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
    text + &failures(stream)
}

/// The first runs that failed, with the end of their error output; empty when none did.
pub fn failures(stream: &Stream) -> String {
    let mut text = String::new();
    if stream.failed > 0 {
        let _ = writeln!(
            text,
            "{} of the runs failed and are not counted:",
            stream.failed
        );
        for failure in &stream.failures {
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

/// One interval, as a line while the rest still runs.
pub fn interval(sample: &Sample) -> String {
    let mut line = format!(
        "{:>9} s",
        sample.config.get(INTERVAL_END).map_or("", String::as_str)
    );
    for Value { unit, figure } in &sample.values {
        let _ = match figure.number() {
            Some(number) => write!(line, "  {} {unit}", human(unit, number)),
            None => write!(line, "  — {unit}"),
        };
        if matches!(
            figure,
            Figure::Scaled { .. }
                | Figure::Partial { .. }
                | Figure::Sampled { .. }
                | Figure::Estimated { .. }
        ) {
            let _ = write!(line, " ({})", figure.trust());
        }
    }
    line + "\n"
}

/// One benchmark's table.
pub fn table(benchmark: &Benchmark, style: Style) -> String {
    let rows = benchmark.rows();
    let repeated = benchmark.samples > 1;
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
    let (absent, present): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.estimate == Estimate::None);
    for row in present {
        let name = Cell::new(format!("  {}", row.unit));
        let trust = Cell::new(trust_text(row, benchmark.samples));
        match row.estimate {
            Estimate::Single(value) if !repeated => {
                let text = match benchmark.is_below_tare(row) {
                    true => "below tare".to_owned(),
                    false => human(&row.unit, value),
                };
                table.add_row([name, figure(text), trust]);
            }
            Estimate::None => {}
            Estimate::Single(value) | Estimate::Middle { value, .. } => {
                let scale = row.scale();
                let (min, max) = row.range();
                let middle = match benchmark.is_below_tare(row) {
                    true => "below tare".to_owned(),
                    false => scale.write(value),
                };
                table.add_row([
                    name,
                    figure(middle),
                    figure(interval_text(row, scale)),
                    figure(scale.write(min)),
                    figure(scale.write(max)),
                    trust,
                    Cell::new(sparkline(&row.series, 20)),
                ]);
            }
        }
    }
    let runs = match benchmark.samples {
        1 => "1 run".to_owned(),
        n => format!("{n} runs"),
    };
    let mut text = format!("{} ({runs})\n", benchmark.name);
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let mut notes = Footnotes::default();
    for row in absent {
        if let Trust::Absent(cause) = &row.trust {
            notes.mention(cause, row.unit.as_str());
        }
    }
    text.push_str(&notes.text());
    if let Some((slope, other)) = benchmark.empty_loop_disagrees() {
        let (unit, write) = (Unit::named("sec/op"), |figure| {
            human(&Unit::named("sec/op"), figure)
        });
        let _ = writeln!(
            text,
            "  warning: against an empty batch it would be {} {unit}, not {}: the first operations of a batch differ from the rest",
            write(other),
            write(slope),
        );
    }
    for (warning, holders) in &benchmark.warnings {
        let _ = match benchmark.samples {
            1 => writeln!(text, "  warning: {}", warning.0),
            all => writeln!(text, "  warning: {} ({holders} of {all} runs)", warning.0),
        };
    }
    text
}

/// What is absent from a table, under it: each cause once, numbered, with the units it kept out.
#[derive(Default)]
struct Footnotes(Vec<(Cause, Vec<String>)>);

impl Footnotes {
    fn mention(&mut self, cause: &Cause, unit: &str) {
        match self.0.iter_mut().find(|(known, _)| known == cause) {
            Some((_, units)) => units.push(unit.to_owned()),
            None => self.0.push((cause.clone(), vec![unit.to_owned()])),
        }
    }

    fn text(&self) -> String {
        let mut lines = String::new();
        for ((_, units), number) in self.0.iter().zip(1..) {
            let _ = writeln!(
                lines,
                "  — absent {}  {}",
                superscript(number),
                units.join(", ")
            );
        }
        for ((cause, _), number) in self.0.iter().zip(1..) {
            let _ = writeln!(lines, "  {} {cause}", superscript(number));
        }
        lines
    }
}

pub(super) fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number
        .to_string()
        .bytes()
        .map(|digit| DIGITS[usize::from(digit - b'0')])
        .collect()
}

fn interval_text(row: &Row, scale: Scale) -> String {
    let (min, max) = row.range();
    match row.estimate {
        Estimate::Middle { .. } if min == max => "all equal".to_owned(),
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
    }
}

fn trust_text(row: &Row, samples: usize) -> String {
    let label = match &row.trust {
        Trust::Exact => "exact".to_owned(),
        Trust::Scaled(running) => format!("scaled, ran {:.3} %", running * 100.0),
        Trust::Partial(part) => format!("partial: {}", part.0),
        Trust::Estimated(rule) => format!("estimated: {}", rule.0),
        Trust::Sampled(period_sec) => format!(
            "sampled each {}",
            Scale::for_figure(Dimension::Seconds, *period_sec).write(*period_sec)
        ),
        Trust::Absent(_) => "absent".to_owned(),
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
    fn what_is_absent_is_told_once_a_cause() {
        let mut notes = Footnotes::default();
        for (why, unit) in [("a", "x/op"), ("b", "y/op"), ("a", "z/op")] {
            notes.mention(&Cause::new(why).cure("mend"), unit);
        }
        assert_eq!(
            notes.text(),
            "  — absent ¹  x/op, z/op\n  — absent ²  y/op\n  ¹ a; mend\n  ² b; mend\n"
        );
        assert_eq!(superscript(10), "¹⁰");
    }
}
