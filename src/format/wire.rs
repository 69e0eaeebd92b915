//! The lines of the JSON Lines format as they stand in a file, apart from the records that they mean. Field names and their order are decided here; never reads or writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::finite;
use crate::sample::{
    Cause, End, Failure, Figure, Header, Name, Order, Part, Record, Rule, SCHEMA, Sample, UnitMeta,
    Value, Warning,
};
use crate::unit::{Assume, Better, Unit};

/// Any line of a stream.
#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(super) enum Line {
    Header(HeaderLine),
    Unit(UnitLine),
    Sample(SampleLine),
    Failure(FailureLine),
    End(EndLine),
}

/// What a header of any schema has.
#[derive(Deserialize)]
pub(super) struct Start {
    pub(super) record: String,
    pub(super) schema: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderLine {
    pub(super) schema: u32,
    tool: String,
    started: String,
    seed: u64,
    command: Vec<String>,
    machine: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitLine {
    unit: String,
    better: Option<BetterWord>,
    assume: AssumeWord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BetterWord {
    Lower,
    Higher,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AssumeWord {
    Nothing,
    Exact,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleLine {
    benchmark: String,
    variant: String,
    iterations: u64,
    order: OrderFields,
    config: BTreeMap<String, String>,
    values: Vec<ValueFields>,
    warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderFields {
    sequence: u64,
    round: u64,
    position: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueFields {
    unit: String,
    value: Option<f64>,
    trust: Trust,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    period: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Trust {
    Exact,
    Scaled,
    Partial,
    Sampled,
    Estimated,
    Absent,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailureLine {
    benchmark: String,
    variant: String,
    order: OrderFields,
    why: String,
    stderr: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    samples: u64,
    failures: u64,
}

impl Line {
    /// The line of a record; `None` for a syntax error, which is not part of a stream.
    pub(super) fn new(record: &Record) -> Option<Line> {
        Some(match record {
            Record::Header(header) => Line::Header(header.into()),
            Record::Unit(meta) => Line::Unit(meta.into()),
            Record::Sample(sample) => Line::Sample(sample.into()),
            Record::Failure(failure) => Line::Failure(failure.into()),
            Record::End(end) => Line::End(EndLine {
                samples: end.samples,
                failures: end.failures,
            }),
            Record::Syntax(_) => return None,
        })
    }

    /// The record of a line, or what is wrong with its fields.
    pub(super) fn into_record(self) -> Result<Record, String> {
        Ok(match self {
            Line::Header(line) => Record::Header(Header {
                tool: line.tool,
                started: line.started,
                seed: line.seed,
                command: line.command,
                machine: line.machine,
                warnings: line.warnings.into_iter().map(Warning).collect(),
            }),
            Line::Unit(line) => Record::Unit(line.into_meta()?),
            Line::Sample(line) => Record::Sample(line.into_sample()?),
            Line::Failure(line) => Record::Failure(Failure {
                benchmark: parse_name(&line.benchmark)?,
                variant: line.variant,
                order: line.order.into(),
                why: line.why,
                stderr: line.stderr,
            }),
            Line::End(line) => Record::End(End {
                samples: line.samples,
                failures: line.failures,
            }),
        })
    }
}

impl From<&Header> for HeaderLine {
    fn from(header: &Header) -> HeaderLine {
        HeaderLine {
            schema: SCHEMA,
            tool: header.tool.clone(),
            started: header.started.clone(),
            seed: header.seed,
            command: header.command.clone(),
            machine: header.machine.clone(),
            warnings: texts(&header.warnings),
        }
    }
}

impl From<&UnitMeta> for UnitLine {
    fn from(meta: &UnitMeta) -> UnitLine {
        UnitLine {
            unit: meta.unit.to_string(),
            better: meta.better.map(|better| match better {
                Better::Lower => BetterWord::Lower,
                Better::Higher => BetterWord::Higher,
            }),
            assume: match meta.assume {
                Assume::Nothing => AssumeWord::Nothing,
                Assume::Exact => AssumeWord::Exact,
            },
        }
    }
}

impl UnitLine {
    fn into_meta(self) -> Result<UnitMeta, String> {
        Ok(UnitMeta {
            unit: parse_unit(self.unit)?,
            better: self.better.map(|better| match better {
                BetterWord::Lower => Better::Lower,
                BetterWord::Higher => Better::Higher,
            }),
            assume: match self.assume {
                AssumeWord::Nothing => Assume::Nothing,
                AssumeWord::Exact => Assume::Exact,
            },
        })
    }
}

impl From<&Sample> for SampleLine {
    fn from(sample: &Sample) -> SampleLine {
        SampleLine {
            benchmark: sample.benchmark.to_string(),
            variant: sample.variant.clone(),
            iterations: sample.iterations,
            order: sample.order.into(),
            config: sample.config.clone(),
            values: sample.values.iter().map(ValueFields::from).collect(),
            warnings: texts(&sample.warnings),
        }
    }
}

impl SampleLine {
    fn into_sample(self) -> Result<Sample, String> {
        Ok(Sample {
            benchmark: parse_name(&self.benchmark)?,
            variant: self.variant,
            iterations: self.iterations,
            order: self.order.into(),
            config: self.config,
            values: self
                .values
                .into_iter()
                .map(ValueFields::into_value)
                .collect::<Result<_, _>>()?,
            warnings: self.warnings.into_iter().map(Warning).collect(),
        })
    }
}

impl From<&Failure> for FailureLine {
    fn from(failure: &Failure) -> FailureLine {
        FailureLine {
            benchmark: failure.benchmark.to_string(),
            variant: failure.variant.clone(),
            order: failure.order.into(),
            why: failure.why.clone(),
            stderr: failure.stderr.clone(),
        }
    }
}

impl From<Order> for OrderFields {
    fn from(order: Order) -> OrderFields {
        OrderFields {
            sequence: order.sequence,
            round: order.round,
            position: order.position,
        }
    }
}

impl From<OrderFields> for Order {
    fn from(order: OrderFields) -> Order {
        Order {
            sequence: order.sequence,
            round: order.round,
            position: order.position,
        }
    }
}

impl From<&Value> for ValueFields {
    fn from(value: &Value) -> ValueFields {
        let figure = finite(&value.figure);
        let trust = match figure.as_ref() {
            Figure::Exact(_) => Trust::Exact,
            Figure::Scaled { .. } => Trust::Scaled,
            Figure::Partial { .. } => Trust::Partial,
            Figure::Sampled { .. } => Trust::Sampled,
            Figure::Estimated { .. } => Trust::Estimated,
            Figure::Absent { .. } => Trust::Absent,
        };
        let mut fields = ValueFields {
            unit: value.unit.to_string(),
            value: figure.number(),
            trust,
            running: None,
            part: None,
            period: None,
            rule: None,
            why: None,
            cure: None,
        };
        match figure.into_owned() {
            Figure::Exact(_) => {}
            Figure::Scaled { running, .. } => fields.running = Some(running),
            Figure::Partial {
                part: Part(part), ..
            } => fields.part = Some(part),
            Figure::Sampled { period_sec, .. } => fields.period = Some(period_sec),
            Figure::Estimated {
                rule: Rule(rule), ..
            } => fields.rule = Some(rule),
            Figure::Absent {
                why: Cause { why, cure },
            } => {
                fields.why = Some(why);
                fields.cure = cure;
            }
        }
        fields
    }
}

impl ValueFields {
    fn into_value(self) -> Result<Value, String> {
        let ValueFields {
            unit,
            value,
            trust,
            running,
            part,
            period,
            rule,
            why,
            cure,
        } = self;
        let unit = parse_unit(unit)?;
        let wrong = |needed| {
            Err(format!(
                "`{unit}`: a value of this trust has {needed} and no more"
            ))
        };
        let detail = (running, part, period, rule);
        let figure = match (trust, value, detail, (why, cure)) {
            (Trust::Exact, Some(value), (None, None, None, None), (None, None)) => {
                Figure::Exact(value)
            }
            (Trust::Scaled, Some(value), (Some(running), None, None, None), (None, None)) => {
                Figure::Scaled { value, running }
            }
            (Trust::Partial, Some(value), (None, Some(part), None, None), (None, None)) => {
                Figure::Partial {
                    value,
                    part: Part(part),
                }
            }
            (Trust::Sampled, Some(value), (None, None, Some(period_sec), None), (None, None)) => {
                Figure::Sampled { value, period_sec }
            }
            (Trust::Estimated, Some(value), (None, None, None, Some(rule)), (None, None)) => {
                Figure::Estimated {
                    value,
                    rule: Rule(rule),
                }
            }
            (Trust::Absent, None, (None, None, None, None), (Some(why), cure)) => Figure::Absent {
                why: Cause { why, cure },
            },
            (Trust::Exact, ..) => return wrong("a number"),
            (Trust::Scaled, ..) => return wrong("a number and `running`"),
            (Trust::Partial, ..) => return wrong("a number and `part`"),
            (Trust::Sampled, ..) => return wrong("a number and `period`"),
            (Trust::Estimated, ..) => return wrong("a number and `rule`"),
            (Trust::Absent, ..) => return wrong("`why`, perhaps `cure`, no number"),
        };
        Ok(Value { unit, figure })
    }
}

fn texts(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(|Warning(text)| text.clone()).collect()
}

fn parse_unit(text: String) -> Result<Unit, String> {
    Unit::new(text).map_err(|error| error.to_string())
}

/// The name, if it is one that a writer could have written.
fn parse_name(text: &str) -> Result<Name, String> {
    let name = Name::parse(text);
    if name.to_string() == text {
        Ok(name)
    } else {
        Err(format!("`{text}` is not a benchmark's name"))
    }
}
