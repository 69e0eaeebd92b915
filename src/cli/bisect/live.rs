//! A bisection on a terminal while it goes on: the line of commits with the probability drawn over it, what is done now, and how long it may take. Never decides anything.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::{columns, remark};
use crate::bisect::history::Line;
use crate::bisect::{Bisection, Step};
use crate::stats::step::Posterior;
use crate::unit::Unit;

/// The view, or none where nobody looks.
pub(super) enum Live {
    /// On a terminal.
    Drawn(ProgressBar),
    /// A line for every build.
    Lines,
    Nothing,
}

impl Live {
    pub(super) fn new(quiet: bool) -> Live {
        if quiet {
            return Live::Nothing;
        }
        if !io::stderr().is_terminal() {
            return Live::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Live::Drawn(bar)
    }

    /// Shows what is done now.
    pub(super) fn show(
        &self,
        line: &Line,
        unit: &Unit,
        bisection: &Bisection,
        step: &Step,
        elapsed: Duration,
    ) {
        let title = |place: usize| line.commits[place].title();
        let now = match step {
            Step::Build(place) => format!("building {}", title(*place)),
            Step::Pair { place, against } if place == against => {
                format!("running {} against itself", line.commits[*place].short())
            }
            Step::Pair { place, against } => format!(
                "running {} against {}",
                title(*place),
                line.commits[*against].short()
            ),
            Step::Single(place) => format!("running {}", title(*place)),
            Step::Done(_) => return,
        };
        match self {
            Live::Nothing => {}
            Live::Lines => {
                if let Step::Build(_) = step {
                    remark(&now);
                }
            }
            Live::Drawn(bar) => {
                let mut text = format!("{now}\n");
                if let Some((range, posterior)) = bisection.posterior() {
                    text += &drawn(&range, &posterior, columns().min(100));
                }
                let done = bisection.runs();
                let _ = write!(text, "\n{unit}: {done} runs");
                if let Some((builds, runs)) = bisection.remaining() {
                    let each = elapsed.as_secs_f64() / (done.max(1) as f64);
                    let left = Duration::from_secs((each * runs as f64) as u64);
                    let left = humantime::format_duration(left);
                    let _ = write!(text, "; about {builds} builds and {runs} runs more, {left}");
                }
                bar.set_message(text);
            }
        }
    }

    pub(super) fn clear(&self) {
        if let Live::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// The probability over the commits, a column for some of them each: the highest column is full.
pub(super) fn drawn(range: &RangeInclusive<usize>, posterior: &Posterior, width: usize) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (first, last) = (*range.start(), *range.end());
    let places = last - first + 1;
    let width = width.min(places).max(1);
    let mut columns = vec![(0.0, 0); width];
    for place in first..=last {
        let (mass, count) = &mut columns[(place - first) * width / places];
        *mass += posterior.at(place);
        *count += 1;
    }
    // Some columns have one commit more than others.
    let mean = |(mass, count): &(f64, i32)| mass / f64::from(*count);
    let most = columns.iter().map(mean).fold(f64::MIN_POSITIVE, f64::max);
    let bar = |column: &(f64, i32)| {
        let height = (mean(column) / most * 8.0 - 0.01).ceil() as usize;
        BARS[height.min(8)]
    };
    columns.iter().map(bar).collect()
}
