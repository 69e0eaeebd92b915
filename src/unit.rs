//! Units: a value's name and dimension in one word, and how figures in it are written for people. Never measures, never does I/O.
//!
//! A unit is spelled as in the Go benchmark format: `sec/op`, `cycles/op`, `instructions:u/op`,
//! `peak-RSS-bytes`. Figures are always in base units (seconds, bytes, plain counts); only
//! [`Scale`] turns them into milliseconds or mebibytes, at the very end.

use std::fmt;

/// A unit's name: not empty, without white space or control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit(String);

/// A text that cannot be a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a unit: a unit is one word without spaces")]
pub struct BadUnit(pub String);

/// Which direction of change is an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better: times, faults, bytes held.
    Lower,
    /// More is better: throughput, instructions per cycle.
    Higher,
}

/// What may be assumed of a unit's noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Assume {
    /// Nothing: the figures vary from run to run.
    #[default]
    Nothing,
    /// Every run gives the same figure unless something really changed.
    Exact,
}

/// What a unit's figures are made of; decides how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Seconds, scaled by powers of 1000.
    Seconds,
    /// Bytes, scaled by powers of 1024.
    Bytes,
    /// A count, scaled by powers of 1000.
    Count,
    /// A quotient of two figures of the same kind: never scaled.
    Ratio,
}

impl Unit {
    /// Checks `text` and makes it a unit.
    pub fn new(text: impl Into<String>) -> Result<Unit, BadUnit> {
        let text = text.into();
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(BadUnit(text));
        }
        Ok(Unit(text))
    }

    /// A unit whose spelling stands in this program; what cannot stand in a unit becomes `_`.
    pub fn named(spelling: &str) -> Unit {
        let clean = |c: char| {
            if c.is_whitespace() || c.is_control() {
                '_'
            } else {
                c
            }
        };
        Unit(spelling.chars().map(clean).collect())
    }

    /// The unit of an event counted once an operation: `cycles:u` gives `cycles:u/op`.
    pub fn per_op(event: &str) -> Unit {
        Unit::named(&format!("{event}/op"))
    }

    /// The unit in base units of what `spelling` may have scaled already, and the factor that
    /// brings its figures there: `ns/op` gives `sec/op` and 1e-9, `MB/s` gives `B/s` and 1e6.
    ///
    /// As `golang.org/x/perf/benchunit` does it: `ns` and `MB` are replaced wherever they are a
    /// whole word of the numerator, `x-ns/op` and `MB*MB/s` included, and nothing else is.
    pub fn tidy(spelling: &str) -> Result<(Unit, f64), BadUnit> {
        let (mut tidied, mut factor) = (String::with_capacity(spelling.len() + 1), 1.0);
        let mut denominator = false;
        for part in spelling.split_inclusive(['-', '/', '*']) {
            let word = part.trim_end_matches(['-', '/', '*']);
            match word {
                "ns" if !denominator => {
                    tidied.push_str("sec");
                    factor /= 1e9;
                }
                "MB" if !denominator => {
                    tidied.push('B');
                    factor *= 1e6;
                }
                _ => tidied.push_str(word),
            }
            let separator = &part[word.len()..];
            tidied.push_str(separator);
            match separator {
                "/" => denominator = true,
                "*" => denominator = false,
                _ => {}
            }
        }
        Ok((Unit::new(tidied)?, factor))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The direction that is an improvement, as far as the name alone tells.
    ///
    /// Rates (`B/s`, `IPC`) are better when higher; everything counted or timed once an
    /// operation, and every amount held, is better when lower. `CPUs` has no direction.
    pub fn better(&self) -> Option<Better> {
        let (stem, _) = split_modifier(&self.0);
        match stem {
            "IPC" => Some(Better::Higher),
            "CPUs" | "CPU-Hz" => None,
            s if s.ends_with("/s") => Some(Better::Higher),
            _ => Some(Better::Lower),
        }
    }

    /// What the figures are made of, from the words of the name.
    pub fn dimension(&self) -> Dimension {
        let (stem, _) = split_modifier(&self.0);
        if stem == "IPC"
            || stem.ends_with("CPUs")
            || stem.ends_with("-rate")
            || stem.ends_with("-share")
        {
            return Dimension::Ratio;
        }
        // The last slash: names of events such as `power/energy-pkg/` have slashes of their own.
        let numerator = stem
            .rsplit_once('/')
            .map_or(stem, |(numerator, _)| numerator);
        match numerator.rsplit('-').next().unwrap_or(numerator) {
            "sec" => Dimension::Seconds,
            "B" | "bytes" => Dimension::Bytes,
            _ => Dimension::Count,
        }
    }
}

/// `IPC:u` → (`IPC`, `u`); names without a trailing modifier come back whole.
fn split_modifier(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((stem, modifier)) if !modifier.contains('/') => (stem, modifier),
        _ => (name, ""),
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A power of the dimension's base that makes a set of figures readable, chosen once a row so
/// that the figures of a row can be compared by eye.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    factor: f64,
    suffix: &'static str,
}

impl Scale {
    /// The scale for figures of `dimension`, chosen so that `typical` lies in [1, base).
    pub fn for_figure(dimension: Dimension, typical: f64) -> Scale {
        const SECONDS: &[(f64, &str)] = &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
        const COUNT: &[(f64, &str)] = &[(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
        const BYTES: &[(f64, &str)] = &[
            (1_099_511_627_776.0, "TiB"),
            (1_073_741_824.0, "GiB"),
            (1_048_576.0, "MiB"),
            (1024.0, "KiB"),
            (1.0, "B"),
        ];
        let steps = match dimension {
            Dimension::Seconds => SECONDS,
            Dimension::Bytes => BYTES,
            Dimension::Count => COUNT,
            Dimension::Ratio => &[(1.0, "")],
        };
        let size = typical.abs();
        let smallest = steps[steps.len() - 1];
        let pick = |&&(factor, _): &&(f64, &str)| size >= factor;
        let unscaled = *steps.iter().find(|s| s.0 == 1.0).unwrap_or(&smallest);
        let (factor, suffix) = match steps.iter().find(pick) {
            Some(&step) => step,
            None if size == 0.0 || !size.is_finite() => unscaled,
            None => smallest,
        };
        Scale { factor, suffix }
    }

    /// Writes `figure` with about four significant digits and the scale's suffix.
    pub fn write(&self, figure: f64) -> String {
        let scaled = figure / self.factor;
        let digits = match scaled.abs() {
            x if x == 0.0 || !x.is_finite() => 0,
            // A whole count that is written unscaled has no digits to add.
            x if self.factor == 1.0 && self.suffix.is_empty() && x.fract() == 0.0 => 0,
            x if x >= 999.5 => 0,
            x if x >= 99.95 => 1,
            x if x >= 9.995 => 2,
            x if x >= 0.9995 => 3,
            x => (3.0 - x.log10().floor()).min(9.0) as usize,
        };
        let space =
            if self.suffix.is_empty() || self.suffix.len() == 1 && "TGMk".contains(self.suffix) {
                ""
            } else {
                " "
            };
        format!("{scaled:.digits$}{space}{}", self.suffix)
    }
}

/// Writes one figure of `unit` on a scale of its own: `2.060 µs`, `5.013M`, `0.9871`.
pub fn human(unit: &Unit, figure: f64) -> String {
    Scale::for_figure(unit.dimension(), figure).write(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> Unit {
        Unit::new(name).unwrap()
    }

    #[test]
    fn a_unit_is_one_word() {
        assert!(Unit::new("sec/op").is_ok());
        for bad in ["", "ns op", "a\tb", "a\u{7f}b"] {
            assert_eq!(Unit::new(bad), Err(BadUnit(bad.to_owned())), "{bad:?}");
        }
        assert_eq!(Unit::per_op("cycles:u").as_str(), "cycles:u/op");
    }

    #[test]
    fn dimension_comes_from_the_words() {
        let check = |name, want| assert_eq!(unit(name).dimension(), want, "{name}");
        check("sec/op", Dimension::Seconds);
        check("user-sec/op", Dimension::Seconds);
        check("task-clock-sec/op", Dimension::Seconds);
        check("tare-sec", Dimension::Seconds);
        check("peak-RSS-bytes", Dimension::Bytes);
        check("B/op", Dimension::Bytes);
        check("B/s", Dimension::Bytes);
        check("cycles:u/op", Dimension::Count);
        check("page-faults/op", Dimension::Count);
        check("uncore_imc/data_reads/-bytes/op", Dimension::Bytes);
        check("msr/tsc//op", Dimension::Count);
        check("IPC", Dimension::Ratio);
        check("IPC:u", Dimension::Ratio);
        check("branch-miss-rate", Dimension::Ratio);
        check("others-CPUs", Dimension::Ratio);
    }

    #[test]
    fn scaled_units_are_brought_to_base_units() {
        let check = |spelling, want: &str, factor| {
            assert_eq!(Unit::tidy(spelling), Ok((unit(want), factor)), "{spelling}")
        };
        check("ns/op", "sec/op", 1e-9);
        check("ns", "sec", 1e-9);
        check("x-ns/op", "x-sec/op", 1e-9);
        check("MB/s", "B/s", 1e6);
        check("x-MB/s", "x-B/s", 1e6);
        check("B/op", "B/op", 1.0);
        check("x-allocs/op", "x-allocs/op", 1.0);
        check("op/ns", "op/ns", 1.0);
        check("MB*MB/s", "B*B/s", 1e12);
        check("MB/MB", "B/MB", 1e6);
        check("MB/s*ns", "B/s*sec", 1e-3);
        check("nsx/MBx-/", "nsx/MBx-/", 1.0);
        assert_eq!(Unit::tidy("n s"), Err(BadUnit("n s".to_owned())));
    }

    #[test]
    fn direction_comes_from_the_name() {
        let check = |name, want| assert_eq!(unit(name).better(), want, "{name}");
        check("sec/op", Some(Better::Lower));
        check("B/s", Some(Better::Higher));
        check("IPC:u", Some(Better::Higher));
        check("CPUs", None);
        check("syscalls:sys_enter_write/op", Some(Better::Lower));
    }

    #[test]
    fn figures_are_written_for_people() {
        let check = |name, figure, want: &str| {
            assert_eq!(human(&unit(name), figure), want, "{name} {figure}")
        };
        check("sec/op", 2.06e-7, "206.0 ns");
        check("sec/op", 1.5e-3, "1.500 ms");
        check("sec/op", 12.0, "12.00 s");
        check("sec/op", 1e-10, "0.1000 ns");
        check("sec/op", 0.0, "0 s");
        check("cycles/op", 5_013_000.0, "5.013M");
        check("page-faults/op", 49.0, "49");
        check("page-faults/op", 49.5, "49.50");
        check("instructions/op", 2.0, "2");
        check("peak-RSS-bytes", 1536.0 * 1024.0, "1.500 MiB");
        check("IPC", 0.98712, "0.9871");
        check("cycles/op", -1500.0, "-1.500k");
    }
}
