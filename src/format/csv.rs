//! CSV in long form: one row a value, with its trust. Written, never read; settings of machine and sample are left out.
//!
//! The columns are `sequence,round,position,benchmark,variant,iterations,unit,value,trust,detail`.
//! `value` is empty where a figure is absent; `detail` is what the trust needs: the share of time
//! counted of a `scaled` value, the part of a `partial` one, the period in seconds of a `sampled`
//! one, the cause of an `absent` one. A run that gave no sample is one row with the trust
//! `failed`, its cause in `detail`, and no unit.

use std::io;

use super::{finite, number};
use crate::sample::{Failure, Figure, Part, Record, Sample};

pub(super) const COLUMNS: [&str; 10] = [
    "sequence",
    "round",
    "position",
    "benchmark",
    "variant",
    "iterations",
    "unit",
    "value",
    "trust",
    "detail",
];

/// Turns records into rows; remembers whether the row of column names was written.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    begun: bool,
}

impl Encoder {
    /// The column names stand there already.
    pub(super) fn resume(&mut self) {
        self.begun = true;
    }

    /// The rows of `record`, after the column names when it is the first.
    pub(super) fn encode(&mut self, record: &Record) -> io::Result<String> {
        let mut rows = ::csv::Writer::from_writer(Vec::new());
        if !self.begun {
            rows.write_record(COLUMNS)?;
            self.begun = true;
        }
        match record {
            Record::Sample(sample) => {
                for row in sample_rows(sample) {
                    rows.write_record(row)?;
                }
            }
            Record::Failure(failure) => rows.write_record(failure_row(failure))?,
            Record::Header(_) | Record::Unit(_) | Record::Syntax(_) | Record::End(_) => {}
        }
        let bytes = rows.into_inner().map_err(|error| error.into_error())?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}

fn sample_rows(sample: &Sample) -> impl Iterator<Item = [String; 10]> {
    sample.values.iter().map(|value| {
        let figure = finite(&value.figure);
        let detail = match figure.as_ref() {
            Figure::Exact(_) => String::new(),
            Figure::Scaled { running, .. } => number(*running),
            Figure::Partial {
                part: Part(part), ..
            } => part.clone(),
            Figure::Sampled { period_sec, .. } => number(*period_sec),
            Figure::Absent { why } => why.to_string(),
        };
        [
            sample.order.sequence.to_string(),
            sample.order.round.to_string(),
            sample.order.position.to_string(),
            sample.benchmark.to_string(),
            sample.variant.clone(),
            sample.iterations.to_string(),
            value.unit.to_string(),
            figure.number().map(number).unwrap_or_default(),
            figure.trust().to_owned(),
            detail,
        ]
    })
}

fn failure_row(failure: &Failure) -> [String; 10] {
    [
        failure.order.sequence.to_string(),
        failure.order.round.to_string(),
        failure.order.position.to_string(),
        failure.benchmark.to_string(),
        failure.variant.clone(),
        String::new(),
        String::new(),
        String::new(),
        "failed".to_owned(),
        failure.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::jsonl::tests::{failure, header, sample};
    use super::super::{Format, Writer};
    use crate::sample::{End, Record};

    #[test]
    fn every_value_is_a_row() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(Format::Csv, &mut bytes);
        for record in [
            Record::Header(header()),
            Record::Sample(sample()),
            Record::Failure(failure()),
            Record::End(End {
                samples: 1,
                failures: 1,
            }),
        ] {
            writer.write(&record).unwrap();
        }
        let want = "\
sequence,round,position,benchmark,variant,iterations,unit,value,trust,detail
17,8,1,Write/size=512,base,250000,sec/op,2.06e-7,exact,
17,8,1,Write/size=512,base,250000,cycles/op,612.5,scaled,0.62
17,8,1,Write/size=512,base,250000,instructions/op,1490,partial,user mode only
17,8,1,Write/size=512,base,250000,user-sec/op,1.2e-7,sampled,0.004
17,8,1,Write/size=512,base,250000,branches/op,,absent,\"no hardware PMU, virtual machine; use real hardware\"
18,9,0,Write/size=512,base,,,,failed,exit status 1
";
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
    }
}
