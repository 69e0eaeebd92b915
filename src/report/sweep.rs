//! A sweep for people and as JSON: each value with what it costs, the curves drawn, and what they say. Never computes a statistic, never prints.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::text::Style;
use crate::compare::Trial;
use crate::compare::sweep::{Best, CONFIDENCE, Cost};
use crate::sample::Warning;
use crate::stats::order::{median, median_interval};
use crate::unit::{Unit, human};

/// The units of the table, as far as there are figures, and what they are called there.
const COLUMNS: [(&str, &str); 6] = [
    ("sec/op", "wall"),
    ("user-sec/op", "user"),
    ("sys-sec/op", "sys"),
    ("page-faults/op", "faults"),
    ("GC-cycles/op", "GCs"),
    ("peak-RSS-bytes", "peak RSS"),
];

/// What is paid for faults and for collections.
const FAULTS: (&str, &str, &str) = ("a page fault", "page-faults/op", "sys-sec/op");
const COLLECTIONS: (&str, &str, &str) = ("a GC cycle", "GC-cycles/op", "user-sec/op");

/// The whole of what the shares are of.
const WHOLE: &str = "task-clock-sec/op";

/// From so strong a correlation on, faults and collections can hardly be told apart.
const ALIKE: f64 = 0.95;

/// Faults or collections that change by less than this from one value to another are not spoken of.
const LEAST: f64 = 0.5;

/// The value at `usual`, if the user has none, is what the others are held against.
pub struct Report<'a> {
    /// All runs; each value is a variant.
    pub trial: &'a Trial,
    /// The parameter.
    pub parameter: &'a str,
    /// The values without the parameter's name.
    pub values: &'a [String],
    /// The place of the value that a program would have by itself.
    pub usual: Option<usize>,
    /// The level at which a value is certainly worse than the best.
    pub alpha: f64,
}

impl Report<'_> {
    /// All of it, for people.
    pub fn text(&self, style: Style) -> String {
        let mut out = self.table(style);
        out.push_str(&self.curves());
        out.push('\n');
        for line in self.findings() {
            let _ = writeln!(out, "{line}");
        }
        for doubt in self.doubts() {
            let _ = writeln!(out, "! {doubt}");
        }
        out
    }

    /// The unit, or what ordinary users have in its place: counted in user mode only.
    fn unit(&self, name: &str) -> Unit {
        let (all, user) = (
            Unit::named(name),
            Unit::named(&name.replace("/op", ":u/op")),
        );
        match self.trial.cells(&all).is_empty() && !self.trial.cells(&user).is_empty() {
            true => user,
            false => all,
        }
    }

    fn figures(&self, unit: &str) -> Vec<Vec<f64>> {
        let cells = self.trial.cells(&self.unit(unit));
        cells.iter().map(|cell| cell.valid().into_owned()).collect()
    }

    fn middles(&self, unit: &str) -> Vec<Option<f64>> {
        self.figures(unit).iter().map(|all| median(all)).collect()
    }

    fn has(&self, unit: &str) -> bool {
        self.middles(unit).iter().any(Option::is_some)
    }

    fn table(&self, style: Style) -> String {
        let columns: Vec<_> = COLUMNS
            .into_iter()
            .filter(|(unit, _)| self.has(unit))
            .collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut head = vec![Cell::new(self.parameter)];
        for (_, name) in &columns {
            head.push(Cell::new(name).set_alignment(CellAlignment::Right));
            head.push(Cell::new(""));
        }
        table.set_header(head);
        for (at, value) in self.values.iter().enumerate() {
            let mark = if self.usual == Some(at) {
                " (usual)"
            } else {
                ""
            };
            let mut row = vec![Cell::new(format!("{value}{mark}"))];
            for (unit, _) in &columns {
                let all = self.figures(unit);
                let figures = all.get(at).map_or(&[][..], Vec::as_slice);
                let (middle, interval) = written(&Unit::named(unit), figures);
                row.push(Cell::new(middle).set_alignment(CellAlignment::Right));
                row.push(Cell::new(interval));
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
        let mut out = String::new();
        for line in table.lines() {
            let line = console::truncate_str(line.trim_end(), style.width, "…").into_owned();
            let _ = writeln!(out, "{line}");
        }
        out
    }

    /// Each unit's medians from the first value to the last, on a scale of its own.
    fn curves(&self) -> String {
        let mut out = String::new();
        let (Some(first), Some(last)) = (self.values.first(), self.values.last()) else {
            return out;
        };
        let _ = writeln!(out, "\n{} from {first} to {last}", self.parameter);
        for (unit, name) in COLUMNS {
            let middles = self.middles(unit);
            let known: Vec<f64> = middles.iter().flatten().copied().collect();
            let low = known.iter().copied().fold(f64::INFINITY, f64::min);
            let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if low < high {
                let unit = Unit::named(unit);
                let curve = drawn(&middles, low, high);
                let (low, high) = (human(&unit, low), human(&unit, high));
                let _ = writeln!(out, "  {name:<8} {curve}  {low} … {high}");
            }
        }
        out
    }

    fn cost(&self, (_, cause, paid): (&str, &str, &str)) -> Option<Cost> {
        self.trial.cost(&self.unit(paid), &self.unit(cause))
    }

    fn best(&self, unit: &str) -> Option<Best> {
        self.trial.best(&Unit::named(unit), self.alpha)
    }

    /// The values between which shares are told: from the one with the fewest faults to the usual
    /// one, or to the one with the most.
    fn ends(&self) -> Option<[usize; 2]> {
        let faults = self.middles(FAULTS.1);
        let known = || {
            faults
                .iter()
                .enumerate()
                .filter_map(|(at, one)| Some((at, (*one)?)))
        };
        let (least, _) = known().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let (most, _) = known().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let to = self.usual.unwrap_or(most);
        (to != least).then_some([least, to])
    }

    fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for what in [FAULTS, COLLECTIONS] {
            let (name, cause, paid) = what;
            let Some(cost) = self.cost(what) else {
                continue;
            };
            let unit = Unit::named("sec/op");
            let interval = cost
                .interval
                .map_or("too few rounds for an interval".to_owned(), |one| {
                    format!("{} … {}", human(&unit, one.low), human(&unit, one.high))
                });
            let sure = cost.interval.is_some_and(|one| one.low > 0.0);
            let begin = match sure {
                true => format!("{name} costs"),
                false => format!("what {name} costs is not certain:"),
            };
            lines.push(format!(
                "{begin} {} of {paid} here ({interval}; slopes within {} rounds)",
                human(&unit, cost.each),
                cost.rounds
            ));
            if let (true, Some(ends)) = (sure, self.ends())
                && let Some(share) =
                    self.trial
                        .share(&cost, &self.unit(cause), &self.unit(WHOLE), ends)
                && share.more.abs() >= LEAST
            {
                let [from, to] = ends.map(|at| &self.values[at]);
                let many = human(&self.unit(cause), share.more.abs());
                let which = if share.more > 0.0 { "more" } else { "fewer" };
                let verb = if share.costs > 0.0 { "cost" } else { "save" };
                lines.push(format!(
                    "  at {to}, {many} {which} than at {from} {verb} {}, {:.1} % of its CPU time",
                    human(&unit, share.costs.abs()),
                    share.share.abs() * 100.0
                ));
            }
        }
        for (unit, name) in [("sec/op", "wall time"), (WHOLE, "CPU time")] {
            let Some(best) = self.best(unit) else {
                continue;
            };
            let value = &self.values[best.value];
            let others = best.candidates.iter().filter(|&&one| one != best.value);
            let others: Vec<&str> = others.map(|&one| self.values[one].as_str()).collect();
            lines.push(match &others[..] {
                [] => format!("best by {name}: {value}; all others are certainly worse"),
                others => format!(
                    "best by {name}: {value}; not certainly worse: {}",
                    others.join(", ")
                ),
            });
        }
        lines
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, cause, paid) in [FAULTS, COLLECTIONS] {
            if self.cost((name, cause, paid)).is_some() {
                continue;
            }
            let why = [cause, paid].into_iter().find_map(|unit| {
                let cells = self.trial.cells(&self.unit(unit));
                let why = cells.iter().find_map(|cell| cell.why_absent());
                match why {
                    Some(why) => Some(format!("{unit}: {why}")),
                    None if cells.is_empty() => Some(format!("{unit} was not counted")),
                    None => None,
                }
            });
            let why = why.unwrap_or(format!("{cause} is the same at all values"));
            doubts.push(format!("what {name} costs cannot be told: {why}"));
        }
        let both = (self.unit(FAULTS.1), self.unit(COLLECTIONS.1));
        let together = self.trial.correlation(&both.0, &both.1);
        if let Some(r) = together.filter(|r| r.abs() > ALIKE) {
            doubts.push(format!(
                "faults and GC cycles go together (r = {r:.2}): what is paid for one may be for the other"
            ));
        }
        if self.has("sys-sec/op")
            && self
                .trial
                .cells(&Unit::named("sys-sec/op"))
                .iter()
                .any(|cell| cell.sampled() > 0)
        {
            doubts.push(
                "user and sys are estimated at the ticks of the scheduler, not counted".to_owned(),
            );
        }
        for runs in self.trial.variants() {
            if runs.failures > 0 {
                doubts.push(format!("{}: {} runs failed", runs.name, runs.failures));
            }
            doubts.extend(runs.warnings.iter().map(|(Warning(warning), count)| {
                format!("{}: {warning} ({count} of {} runs)", runs.name, runs.runs)
            }));
        }
        doubts
    }

    /// All of it as JSON: medians with their intervals, costs, and the best.
    pub fn json(&self) -> Value {
        let row = |(at, value): (usize, &String)| {
            let units = COLUMNS.iter().map(|(unit, _)| *unit).chain([WHOLE]);
            let told = units.filter(|unit| self.has(unit)).map(|unit| {
                let all = self.figures(unit);
                let figures = all.get(at).map_or(&[][..], Vec::as_slice);
                let interval = median_interval(figures, CONFIDENCE);
                let told = json!({
                    "median": median(figures),
                    "interval": interval.map(|one| [one.low, one.high]),
                    "runs": figures.len(),
                });
                (unit.to_owned(), told)
            });
            json!({ "value": value, "units": told.collect::<serde_json::Map<_, _>>() })
        };
        let cost = |what| {
            self.cost(what).map(|cost| {
                json!({
                    "sec": cost.each,
                    "interval": cost.interval.map(|one| [one.low, one.high]),
                    "rounds": cost.rounds,
                })
            })
        };
        let best = |unit| {
            self.best(unit).map(|best| {
                let names = best.candidates.iter().map(|&one| &self.values[one]);
                json!({
                    "value": self.values[best.value],
                    "not-certainly-worse": names.collect::<Vec<_>>(),
                })
            })
        };
        json!({
            "schema": 1,
            "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
            "parameter": self.parameter,
            "usual": self.usual.map(|at| &self.values[at]),
            "values": self.values.iter().enumerate().map(row).collect::<Vec<_>>(),
            "cost": { "page-fault": cost(FAULTS), "GC-cycle": cost(COLLECTIONS) },
            "best": { "sec/op": best("sec/op"), WHOLE: best(WHOLE) },
            "doubts": self.doubts(),
        })
    }
}

/// The median and its interval.
fn written(unit: &Unit, figures: &[f64]) -> (String, String) {
    let Some(middle) = median(figures) else {
        return ("—".to_owned(), String::new());
    };
    let interval = median_interval(figures, CONFIDENCE).map_or(String::new(), |one| {
        match one.low == one.high {
            true => String::new(),
            // On the scale of the median: the eye compares them.
            false => {
                let scale = crate::unit::Scale::for_figure(unit.dimension(), middle);
                let bare = |figure| {
                    let text = scale.write(figure);
                    let end = text.find(|c: char| c != '.' && c != '-' && !c.is_ascii_digit());
                    text[..end.unwrap_or(text.len())].to_owned()
                };
                format!("{}–{}", bare(one.low), bare(one.high))
            }
        }
    });
    (human(unit, middle), interval)
}

/// A curve in characters, three columns a value.
fn drawn(middles: &[Option<f64>], low: f64, high: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |middle: &Option<f64>| match middle {
        None => ' ',
        Some(middle) => BARS[((middle - low) / (high - low) * 7.0).round() as usize % 8],
    };
    middles.iter().flat_map(|one| [bar(one); 3]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_from_the_lowest_to_the_highest() {
        assert_eq!(drawn(&[Some(1.0), None, Some(8.0)], 1.0, 8.0), "▁▁▁   ███");
        assert_eq!(drawn(&[Some(2.0), Some(1.5)], 1.0, 2.0), "███▅▅▅");
    }

    #[test]
    fn intervals_stand_on_the_scale_of_their_median() {
        let sec = Unit::named("sec/op");
        let figures: Vec<f64> = (0..9).map(|i| 0.999 + 0.001 * f64::from(i)).collect();
        let (middle, interval) = written(&sec, &figures);
        assert_eq!(
            (middle.as_str(), interval.as_str()),
            ("1.003 s", "1.000–1.006")
        );
        assert_eq!(written(&sec, &[]), ("—".to_owned(), String::new()));
        assert_eq!(written(&sec, &[0.5; 9]).1, "");
    }
}
