//! The records that everything is made of: samples, their values, and what surrounds them in a stream. Pure data: never reads the machine, a file or a clock.

use std::collections::BTreeMap;
use std::fmt;

use crate::unit::{Assume, Better, Unit};

/// The version of the record schema written by this program.
pub const SCHEMA: u32 = 1;

/// The setting of a sample that is one interval of a longer run: when it ended, in seconds from
/// the beginning.
pub const INTERVAL_END: &str = "interval-end";

/// The setting of a sample by how many bytes the environment of its process was longer: drawn anew
/// for every sample, and no part of what was measured.
pub const ENV_PADDING: &str = "env-padding";

/// One number of a sample and how far to trust it. The number can only be had together with
/// its label.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// Counted or timed the whole time it was enabled.
    Exact(f64),
    /// Multiplexed and extrapolated: `running` is the share (0–1) of its enabled time in which
    /// it was really counted.
    Scaled {
        /// The extrapolated figure, in base units.
        value: f64,
        /// Share of the enabled time in which it was counted, in (0, 1).
        running: f64,
    },
    /// Counted only in part; the part is named.
    Partial {
        /// The figure of the part, in base units.
        value: f64,
        /// Which part was counted.
        part: Part,
    },
    /// Estimated by looking once every `period_sec` (such as the scheduler tick), not counted.
    /// Trustworthy only where the figure is much longer than the period.
    Sampled {
        /// The estimate, in base units.
        value: f64,
        /// Seconds between two looks.
        period_sec: f64,
    },
    /// Computed from what was counted or timed, by a rule that is named; no better than that.
    Estimated {
        /// The estimate, in base units.
        value: f64,
        /// The rule, as a noun phrase: `within 12.5 %`.
        rule: Rule,
    },
    /// Not counted, and why. Not a number, and never a zero.
    Absent {
        /// What stood in the way, and what would mend it.
        why: Cause,
    },
}

impl Figure {
    /// The number whatever its label, `None` when absent. Callers that show it show
    /// [`Figure::trust`] too.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Figure::Exact(value)
            | Figure::Scaled { value, .. }
            | Figure::Partial { value, .. }
            | Figure::Sampled { value, .. }
            | Figure::Estimated { value, .. } => Some(value),
            Figure::Absent { .. } => None,
        }
    }

    /// The label's word, as it stands in files: `exact`, `scaled`, `partial`, `sampled`,
    /// `estimated`, `absent`.
    pub fn trust(&self) -> &'static str {
        match self {
            Figure::Exact(_) => "exact",
            Figure::Scaled { .. } => "scaled",
            Figure::Partial { .. } => "partial",
            Figure::Sampled { .. } => "sampled",
            Figure::Estimated { .. } => "estimated",
            Figure::Absent { .. } => "absent",
        }
    }

    /// The same label with `f` applied to the number; absent stays absent.
    pub fn map(self, f: impl FnOnce(f64) -> f64) -> Figure {
        match self {
            Figure::Exact(value) => Figure::Exact(f(value)),
            Figure::Scaled { value, running } => Figure::Scaled {
                value: f(value),
                running,
            },
            Figure::Partial { value, part } => Figure::Partial {
                value: f(value),
                part,
            },
            Figure::Sampled { value, period_sec } => Figure::Sampled {
                value: f(value),
                period_sec,
            },
            Figure::Estimated { value, rule } => Figure::Estimated {
                value: f(value),
                rule,
            },
            Figure::Absent { why } => Figure::Absent { why },
        }
    }

    /// One figure made of two by `f`, with the weaker of their labels.
    pub fn weaker(self, other: Figure, f: impl FnOnce(f64, f64) -> f64) -> Figure {
        use Figure::{Absent, Estimated, Exact, Partial, Sampled, Scaled};
        let (Some(a), Some(b)) = (self.number(), other.number()) else {
            return if self.number().is_none() { self } else { other };
        };
        let value = f(a, b);
        match (self, other) {
            (Absent { why }, _) | (_, Absent { why }) => Absent { why },
            (Partial { part, .. }, _) | (_, Partial { part, .. }) => Partial { value, part },
            (Scaled { running: a, .. }, Scaled { running: b, .. }) => Scaled {
                value,
                running: a.min(b),
            },
            (Scaled { running, .. }, _) | (_, Scaled { running, .. }) => Scaled { value, running },
            (Sampled { period_sec, .. }, _) | (_, Sampled { period_sec, .. }) => {
                Sampled { value, period_sec }
            }
            (Estimated { rule, .. }, _) | (_, Estimated { rule, .. }) => Estimated { value, rule },
            (Exact(_), Exact(_)) => Exact(value),
        }
    }

    /// An absent figure with its cause.
    pub fn absent(why: impl Into<Cause>) -> Figure {
        Figure::Absent { why: why.into() }
    }
}

/// The part that a partial figure covers, as a noun phrase: `user mode only`, `cpu_core only`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part(pub String);

/// The rule by which a figure was computed, as a noun phrase: `within 12.5 %`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub String);

/// Why something could not be counted or done, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause {
    /// One clause without a full stop: `no hardware PMU (virtual machine)`.
    pub why: String,
    /// A command or step that mends it, when there is one.
    pub cure: Option<String>,
}

impl Cause {
    /// A cause that nothing on this machine mends.
    pub fn new(why: impl Into<String>) -> Cause {
        Cause {
            why: why.into(),
            cure: None,
        }
    }

    /// The same cause with the step that mends it.
    pub fn cure(self, cure: impl Into<String>) -> Cause {
        Cause {
            cure: Some(cure.into()),
            ..self
        }
    }
}

impl From<&str> for Cause {
    fn from(why: &str) -> Cause {
        Cause::new(why)
    }
}

impl From<String> for Cause {
    fn from(why: String) -> Cause {
        Cause::new(why)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cure {
            Some(cure) => write!(f, "{}; {cure}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// One number of a sample: its unit and its labelled figure, in base units.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Name and dimension.
    pub unit: Unit,
    /// The number and its label.
    pub figure: Figure,
}

impl Value {
    /// A value of a unit whose spelling stands in this program.
    pub fn new(unit: &str, figure: Figure) -> Value {
        Value {
            unit: Unit::named(unit),
            figure,
        }
    }
}

/// A benchmark's name: the workload's name and its `/key=value` parameters, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    base: String,
    parameters: Vec<(String, String)>,
}

impl Name {
    /// A name from free text. White space and control characters become `_`, and so does `/`,
    /// which separates parameters: what comes out can stand in a line of the Go benchmark format.
    pub fn new(base: &str) -> Name {
        let clean = clean_word(base);
        Name {
            base: if clean.is_empty() {
                "_".to_owned()
            } else {
                clean
            },
            parameters: Vec::new(),
        }
    }

    /// The same name with one more parameter; key and value are cleaned as the base is, and a
    /// `=` in the key becomes `_`.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Name {
        let key = clean_word(key).replace('=', "_");
        self.parameters.push((key, clean_word(&value.to_string())));
        self
    }

    /// The workload's name without parameters.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The parameters in order.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// Reads a full name such as `Write/size=512/to=pipe` back; parts after a `/` that have no
    /// `=` become parameters with an empty key, as the Go format's subtest names do.
    pub fn parse(full: &str) -> Name {
        let mut parts = full.split('/');
        let mut name = Name::new(parts.next().unwrap_or_default());
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or(("", part));
            name = name.with(key, value);
        }
        name
    }
}

fn clean_word(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_whitespace() || c.is_control() || c == '/' {
                '_'
            } else {
                c
            }
        })
        .collect()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)?;
        for (key, value) in &self.parameters {
            match key.as_str() {
                "" => write!(f, "/{value}")?,
                _ => write!(f, "/{key}={value}")?,
            }
        }
        Ok(())
    }
}

/// Where a sample stands in the run: its number, its round, and its place in that round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Order {
    /// Counts samples and failures from 0.
    pub sequence: u64,
    /// Counts rounds from 0; samples of one round were taken next to each other.
    pub round: u64,
    /// Place in the round, from 0.
    pub position: u32,
}

/// A doubt that travels with the result it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Warning(pub String);

/// One observation of one benchmark in one variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was run.
    pub benchmark: Name,
    /// Which of the compared things it was; `base` when nothing is compared.
    pub variant: String,
    /// Operations that the values were measured over.
    pub iterations: u64,
    /// Where it stands in the run.
    pub order: Order,
    /// Settings that belong to this sample alone (`pinned-cpu`, `env-padding`, …).
    pub config: BTreeMap<String, String>,
    /// The numbers, in the order in which they are shown.
    pub values: Vec<Value>,
    /// Doubts about this sample.
    pub warnings: Vec<Warning>,
}

impl Sample {
    /// The figure of `unit`, when this sample has that unit.
    pub fn figure(&self, unit: &str) -> Option<&Figure> {
        self.values
            .iter()
            .find(|v| v.unit.as_str() == unit)
            .map(|v| &v.figure)
    }
}

/// What is known of the whole stream before its first sample.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Header {
    /// Program and version that wrote the stream.
    pub tool: String,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// The seed from which all orders are drawn.
    pub seed: u64,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// Facts of the machine as the measured process found it, and what was set for that (`nice`,
    /// `sched`), by the keys of the Go benchmark format's configuration lines.
    pub machine: BTreeMap<String, String>,
    /// Doubts about the whole run.
    pub warnings: Vec<Warning>,
}

/// What is known of a unit: its direction and what may be assumed of its noise.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitMeta {
    /// The unit.
    pub unit: Unit,
    /// The direction of improvement, if it has one.
    pub better: Option<Better>,
    /// What may be assumed of its noise.
    pub assume: Assume,
}

/// A run that gave no sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What was run.
    pub benchmark: Name,
    /// In which variant.
    pub variant: String,
    /// Where it stands in the run.
    pub order: Order,
    /// `exit status 1`, `killed by SIGSEGV`, …
    pub why: String,
    /// The last lines of its standard error, if they were kept.
    pub stderr: String,
}

/// A line of input that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The file as the user named it.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// The last record of a whole stream. A stream without it was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct End {
    /// Samples written.
    pub samples: u64,
    /// Failures written.
    pub failures: u64,
}

/// One element of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The beginning of a run.
    Header(Header),
    /// Metadata of a unit.
    Unit(UnitMeta),
    /// One observation.
    Sample(Sample),
    /// A run that gave no observation.
    Failure(Failure),
    /// A line that a reader could not understand.
    Syntax(SyntaxError),
    /// The end of a whole run.
    End(End),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_stand_in_a_go_benchmark_line() {
        let name = Name::new("gcc -c a/b.c")
            .with("size", 512)
            .with("to", "/dev/null");
        assert_eq!(name.to_string(), "gcc_-c_a_b.c/size=512/to=_dev_null");
        assert_eq!(Name::new("").to_string(), "_");
    }

    #[test]
    fn names_are_read_back() {
        for full in ["Write/size=512/to=pipe", "Spin", "Sub/test/k=v"] {
            assert_eq!(Name::parse(full).to_string(), full);
        }
        assert_eq!(
            Name::parse("Write/size=512").parameters(),
            [("size".to_owned(), "512".to_owned())]
        );
    }

    #[test]
    fn an_absent_figure_has_no_number() {
        let figure = Figure::absent(Cause::new("no PMU").cure("use real hardware"));
        assert_eq!(figure.number(), None);
        assert_eq!(figure.clone().map(|x| x + 1.0), figure);
        assert_eq!(Figure::Exact(2.0).map(|x| x / 2.0).number(), Some(1.0));
    }

    #[test]
    fn the_weaker_label_wins() {
        let scaled = |value, running| Figure::Scaled { value, running };
        let absent = || Figure::absent("no PMU");
        let check =
            |a: Figure, b: Figure, want: Figure| assert_eq!(a.weaker(b, |a, b| a - b), want);
        check(Figure::Exact(5.0), Figure::Exact(3.0), Figure::Exact(2.0));
        check(Figure::Exact(5.0), scaled(3.0, 0.5), scaled(2.0, 0.5));
        check(scaled(5.0, 0.25), scaled(3.0, 0.5), scaled(2.0, 0.25));
        check(absent(), Figure::Exact(3.0), absent());
        check(Figure::Exact(3.0), absent(), absent());
    }
}
