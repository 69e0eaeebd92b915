//! The Go benchmark format, which benchstat reads. Written and read; what the format has no place for stands in `#` lines, which its readers skip.
//!
//! The format is <https://golang.org/design/14313-benchmark-format>; where it leaves a question
//! open, the reader of `golang.org/x/perf/benchfmt` decides.
//!
//! - **Trust.** The format has no labels, and benchstat pools all values of one unit. So the label
//!   is part of the unit: `scaled-cycles/op`, `partial-user_mode_only-cycles/op`,
//!   `sampled-user-sec/op` are units of their own beside `cycles/op`, and no estimate is ever
//!   averaged with a count. (A configuration line could not do that: it would hold for all values
//!   of the sample and split their tables too.) The exact share or period is not written.
//!   An absent value is left out, and its cause said once in a `#` line.
//! - **Configuration.** Facts of the machine, settings of the sample, and `variant` when it is not
//!   `base`, are `key: value` lines, written when they change. The start, the seed and the command
//!   differ between any two runs, the environment's padding between any two samples, and benchstat
//!   compares only what has the same configuration: they stand in `#` lines.
//! - **Names.** `-8` at the end of a name means GOMAXPROCS to Go tools, and they cut it off; in a
//!   name that ends so, the last `-` becomes `_`.
//! - **Units** with a direction that readers do not know by themselves get `Unit` lines.
//!
//! Read is what any tool writes, line by line as benchfmt does, with these differences: a value
//! of zero is brought to base units as others are (there it keeps `ns/op`, and gets a table of
//! its own); a negative number of iterations, hexadecimal numbers and text that is not UTF-8 are
//! errors of the line; a line may be longer than 64 KiB.
//!
//! - A benchmark line gives a sample with its configuration lines in `config`, `variant` and the
//!   facts of the machine among them: a file can change them at any line. There is no header,
//!   hence no rounds; the sequence counts the file's samples.
//! - Every number is `exact`: other tools do not say how far theirs can be trusted, and ours say
//!   it in the unit's name.

use std::collections::{BTreeMap, BTreeSet};

use super::{finite, number};
use crate::sample::{
    ENV_PADDING, Failure, Figure, Header, Name, Part, Record, Sample, UnitMeta, Warning,
};
use crate::unit::{Assume, Better, Unit};

mod read;

pub(super) use read::Decoder;
pub use read::{Config, Line, Measurement, Spelling};

/// The longest text taken over into a line: Go's line scanner gives up at 64 KiB.
const LONGEST: usize = 8192;

/// Turns records into lines; remembers what the lines written so far say.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Facts of the machine, cleaned.
    machine: BTreeMap<String, String>,
    /// The configuration that holds for the next benchmark line.
    config: BTreeMap<String, String>,
    /// Directions of the units declared so far.
    better: BTreeMap<Unit, Option<Better>>,
    /// Lines that are written once.
    said: BTreeSet<String>,
}

impl Encoder {
    /// The lines of `record`.
    pub(super) fn encode(&mut self, record: &Record) -> String {
        let mut lines = String::new();
        match record {
            Record::Header(header) => self.header(header, &mut lines),
            Record::Unit(meta) => self.unit(meta, &mut lines),
            Record::Sample(sample) => self.sample(sample, &mut lines),
            Record::Failure(failure) => failure_lines(failure, &mut lines),
            Record::Syntax(_) => {}
            Record::End(end) => {
                let (samples, failures) = (end.samples, end.failures);
                remark(
                    &format!("end: {samples} samples, {failures} failures"),
                    &mut lines,
                );
            }
        }
        lines
    }

    fn header(&mut self, header: &Header, lines: &mut String) {
        let Header {
            tool,
            started,
            seed,
            command,
            machine,
            warnings,
        } = header;
        remark(&format!("{tool}, started {started}, seed {seed}"), lines);
        if !command.is_empty() {
            let plain = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
            let quote = |word: &String| {
                if plain(word) {
                    word.clone()
                } else {
                    format!("{word:?}")
                }
            };
            let words: Vec<String> = command.iter().map(quote).collect();
            remark(&format!("command: {}", words.join(" ")), lines);
        }
        self.said.clear();
        warn(warnings, lines);
        self.machine = clean_config(machine);
        self.configure(self.machine.clone(), lines);
    }

    fn unit(&mut self, meta: &UnitMeta, lines: &mut String) {
        self.better.insert(meta.unit.clone(), meta.better);
        if (meta.better, meta.assume) != (known_direction(meta.unit.as_str()), Assume::Nothing) {
            lines.push_str(&unit_line(meta.unit.as_str(), meta.better, meta.assume));
        }
    }

    fn sample(&mut self, sample: &Sample, lines: &mut String) {
        let mut values = String::new();
        for value in &sample.values {
            let (unit, figure) = (&value.unit, finite(&value.figure));
            if let Figure::Absent { why } = figure.as_ref() {
                self.say_once(
                    format!("# {}\n", one_line(&format!("{unit} absent: {why}"))),
                    lines,
                );
            }
            let Some(x) = figure.number() else { continue };
            let labelled = labelled(unit, &figure);
            if labelled != unit.as_str()
                && let Some(&better) = self.better.get(unit)
            {
                // Estimates vary even where the count does not: never `assume=exact`.
                self.say_once(unit_line(&labelled, better, Assume::Nothing), lines);
            }
            values.push_str(&format!(" {} {labelled}", number(x)));
        }
        warn(&sample.warnings, lines);
        if values.is_empty() {
            return;
        }
        let mut config = self.machine.clone();
        let mut own = sample.config.clone();
        if let Some(bytes) = own.remove(ENV_PADDING) {
            remark(&format!("{ENV_PADDING}: {bytes}"), lines);
        }
        config.extend(clean_config(&own));
        if sample.variant != "base" {
            config.extend(clean_config(
                &[("variant".to_owned(), sample.variant.clone())].into(),
            ));
        }
        self.configure(config, lines);
        // Go reads the number of iterations into an int.
        let iterations = sample.iterations.min(i64::MAX as u64);
        lines.push_str(&format!(
            "Benchmark{} {iterations}{values}\n",
            go_name(&sample.benchmark)
        ));
    }

    /// Writes the lines that turn the configuration in force into `wanted`.
    fn configure(&mut self, wanted: BTreeMap<String, String>, lines: &mut String) {
        for key in self.config.keys().filter(|&key| !wanted.contains_key(key)) {
            lines.push_str(&format!("{key}:\n"));
        }
        for (key, value) in wanted
            .iter()
            .filter(|&(key, value)| self.config.get(key) != Some(value))
        {
            lines.push_str(&format!("{key}: {value}\n"));
        }
        self.config = wanted;
    }

    fn say_once(&mut self, line: String, lines: &mut String) {
        if !self.said.contains(&line) {
            lines.push_str(&line);
            self.said.insert(line);
        }
    }
}

fn failure_lines(failure: &Failure, lines: &mut String) {
    let Failure {
        benchmark,
        variant,
        order: _,
        why,
        stderr,
    } = failure;
    remark(&format!("failure: {benchmark} ({variant}): {why}"), lines);
    stderr
        .lines()
        .for_each(|line| remark(&format!("| {line}"), lines));
}

fn warn(warnings: &[Warning], lines: &mut String) {
    warnings
        .iter()
        .for_each(|Warning(text)| remark(&format!("warning: {text}"), lines));
}

/// A line that every reader of the format skips.
fn remark(text: &str, lines: &mut String) {
    lines.push_str(&format!("# {}\n", one_line(text)));
}

/// The text in one line of bounded length, without control characters or space at its ends.
fn one_line(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(LONGEST)];
    let clean: String = cut
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clean.trim().to_owned()
}

/// The configuration with keys and values as the format takes them. An empty value would delete
/// its key, and so does not stand there.
fn clean_config(config: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let pairs = config
        .iter()
        .map(|(key, value)| (config_key(key), one_line(value)));
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// The key in lower case, beginning with a letter, without space and colons.
fn config_key(key: &str) -> String {
    let fits = |c: char| !(c.is_whitespace() || c.is_control() || c.is_uppercase() || c == ':');
    let clean = |c| if fits(c) { c } else { '-' };
    let key: String = key.to_lowercase().chars().map(clean).collect();
    if key.starts_with(|c: char| c.is_ascii_lowercase()) {
        key
    } else {
        format!("x-{key}")
    }
}

/// The name with a capital, as Go's own benchmarks have, and without a number that would be taken
/// for GOMAXPROCS.
fn go_name(name: &Name) -> String {
    let name = name.to_string();
    let mut letters = name.chars();
    let mut name: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    name.push_str(letters.as_str());
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match stem.strip_suffix('-') {
        Some(before) if stem.len() < name.len() => format!("{before}_{}", &name[stem.len()..]),
        _ => name,
    }
}

/// The unit's name with the label of the figure, unless that is exact.
fn labelled(unit: &Unit, figure: &Figure) -> String {
    match figure {
        Figure::Exact(_) | Figure::Absent { .. } => unit.to_string(),
        Figure::Scaled { .. } | Figure::Sampled { .. } | Figure::Estimated { .. } => {
            format!("{}-{unit}", figure.trust())
        }
        Figure::Partial {
            part: Part(part), ..
        } => {
            // `/` and `*` would begin another factor of the unit.
            let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '*';
            let word = one_line(part).replace(breaks, "_");
            format!("{}-{word}-{unit}", figure.trust())
        }
    }
}

fn unit_line(unit: &str, better: Option<Better>, assume: Assume) -> String {
    let better = match better {
        Some(Better::Lower) => " better=lower",
        Some(Better::Higher) => " better=higher",
        None => "",
    };
    let assume = match assume {
        Assume::Nothing => "nothing",
        Assume::Exact => "exact",
    };
    format!("Unit {unit}{better} assume={assume}\n")
}

/// The direction that readers of the format give a unit without being told by a `Unit` line.
pub fn known_direction(unit: &str) -> Option<Better> {
    match unit {
        "sec/op" | "ns/op" | "B/op" | "allocs/op" => Some(Better::Lower),
        "B/s" | "MB/s" => Some(Better::Higher),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::jsonl::tests::{failure, header, records, sample};
    use super::super::{Format, Writer};
    use super::*;
    use crate::sample::{Cause, End, Value};

    fn write(records: &[Record]) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(Format::Gobench, &mut bytes);
        records
            .iter()
            .for_each(|record| writer.write(record).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    fn meta(unit: &str, better: Option<Better>, assume: Assume) -> Record {
        Record::Unit(UnitMeta {
            unit: Unit::new(unit).unwrap(),
            better,
            assume,
        })
    }

    fn exact(values: &[(&str, f64)]) -> Vec<Value> {
        let value = |&(unit, x)| Value {
            unit: Unit::new(unit).unwrap(),
            figure: Figure::Exact(x),
        };
        values.iter().map(value).collect()
    }

    #[test]
    fn a_stream_is_written_for_benchstat() {
        let second = Sample {
            variant: "new".to_owned(),
            config: BTreeMap::new(),
            values: exact(&[("sec/op", 1.9e-7)]),
            warnings: Vec::new(),
            ..sample()
        };
        let got = write(&[
            Record::Header(header()),
            meta("sec/op", Some(Better::Lower), Assume::Nothing),
            meta("cycles/op", Some(Better::Lower), Assume::Nothing),
            meta("instructions/op", Some(Better::Lower), Assume::Exact),
            meta("CPUs", None, Assume::Nothing),
            Record::Sample(sample()),
            Record::Sample(sample()),
            Record::Failure(failure()),
            Record::Sample(second),
            Record::End(End {
                samples: 3,
                failures: 1,
            }),
        ]);
        let want = "\
# poise 0.1.0, started 2026-01-02T03:04:05Z, seed 7
# command: poise bench \"a b\"
cpu: AMD EPYC
kernel: 6.1
Unit cycles/op better=lower assume=nothing
Unit instructions/op better=lower assume=exact
Unit scaled-cycles/op better=lower assume=nothing
Unit partial-user_mode_only-instructions/op better=lower assume=nothing
# branches/op absent: no hardware PMU, virtual machine; use real hardware
# warning: steal time rose
cpu: 3
BenchmarkWrite/size=512 250000 2.06e-7 sec/op 612.5 scaled-cycles/op \
1490 partial-user_mode_only-instructions/op 1.2e-7 sampled-user-sec/op
# warning: steal time rose
BenchmarkWrite/size=512 250000 2.06e-7 sec/op 612.5 scaled-cycles/op \
1490 partial-user_mode_only-instructions/op 1.2e-7 sampled-user-sec/op
# failure: Write/size=512 (base): exit status 1
# | cannot open
# | giving up
cpu: AMD EPYC
variant: new
BenchmarkWrite/size=512 250000 1.9e-7 sec/op
# end: 3 samples, 1 failures
";
        assert_eq!(got, want);
    }

    #[test]
    fn a_second_run_takes_back_the_settings_of_the_first() {
        let first = Sample {
            variant: "new".to_owned(),
            ..sample()
        };
        let plain = Sample {
            values: exact(&[("sec/op", 1.0)]),
            config: BTreeMap::new(),
            ..sample()
        };
        let second = Header {
            machine: BTreeMap::new(),
            command: Vec::new(),
            ..header()
        };
        let got = write(&[
            Record::Sample(first),
            Record::Header(second),
            Record::Sample(plain),
        ]);
        let tail = got.split_once("seed 7\n").unwrap().1;
        assert_eq!(
            tail,
            "cpu:\nvariant:\n# warning: steal time rose\nBenchmarkWrite/size=512 250000 1 sec/op\n"
        );
    }

    #[test]
    fn a_sample_without_a_number_is_left_out() {
        let figure = Figure::absent(Cause::new("no\nPMU"));
        let values = vec![Value {
            unit: Unit::new("cycles/op").unwrap(),
            figure,
        }];
        let empty = Sample {
            values,
            warnings: Vec::new(),
            ..sample()
        };
        assert_eq!(
            write(&[Record::Sample(empty)]),
            "# cycles/op absent: no PMU\n"
        );
    }

    #[test]
    fn names_are_not_mistaken_for_gomaxprocs() {
        let check = |name: &str, want: &str| assert_eq!(go_name(&Name::parse(name)), want);
        check("write/size=512", "Write/size=512");
        check("gcc-12", "Gcc_12");
        check("gcc-12/opt=2", "Gcc-12/opt=2");
        check("add/by=-5", "Add/by=_5");
        check("a-1-2", "A-1_2");
        check("a-", "A-");
        check("-8", "_8");
        check("123", "123");
        check("ßeta", "SSeta");
        check("./a.out", "./a.out");
    }

    #[test]
    fn configuration_is_made_to_fit() {
        let check = |key: &str, want: &str| assert_eq!(config_key(key), want);
        check("cpu", "cpu");
        check("L3 Cache", "l3-cache");
        check("a:b", "a-b");
        check("5g", "x-5g");
        check("", "x-");
        let config = clean_config(
            &[("a", " x\r\ny "), ("b", ""), ("c", "\t")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        assert_eq!(
            config,
            BTreeMap::from([("a".to_owned(), "x  y".to_owned())])
        );
        assert!(one_line(&"é".repeat(100_000)).len() <= LONGEST);
    }

    #[test]
    fn known_units_are_declared_only_where_they_differ() {
        let check = |unit, better, assume, want: &str| {
            assert_eq!(write(&[meta(unit, better, assume)]), want, "{unit}");
        };
        check("B/s", Some(Better::Higher), Assume::Nothing, "");
        check("allocs/op", Some(Better::Lower), Assume::Nothing, "");
        let want = "Unit allocs/op better=lower assume=exact\n";
        check("allocs/op", Some(Better::Lower), Assume::Exact, want);
        check("CPUs", None, Assume::Nothing, "");
        check(
            "IPC",
            Some(Better::Higher),
            Assume::Nothing,
            "Unit IPC better=higher assume=nothing\n",
        );
    }

    /// The configuration and the units that a reader of the format finds at every benchmark line.
    fn results(text: &str) -> Vec<(BTreeMap<String, String>, Vec<String>)> {
        let (mut config, mut results) = (BTreeMap::new(), Vec::new());
        for line in text.split_terminator('\n') {
            assert!(line.len() < 65_536 && !line.contains('\r'), "{line:?}");
            let fields: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with('#') {
                continue;
            } else if line.starts_with("Benchmark") {
                assert!(
                    fields.len() >= 4 && fields.len().is_multiple_of(2),
                    "{line}"
                );
                assert!(fields[1].parse::<i64>().is_ok(), "{line}");
                let pairs = fields[2..].chunks(2);
                let unit = |pair: &[&str]| {
                    assert!(pair[0].parse::<f64>().is_ok_and(f64::is_finite), "{line}");
                    pair[1].to_owned()
                };
                results.push((config.clone(), pairs.map(unit).collect()));
            } else if fields[0] == "Unit" {
                assert!(
                    fields.len() >= 3 && fields[2..].iter().all(|f| f.contains('=')),
                    "{line}"
                );
            } else {
                let (key, value) = line.split_once(':').expect(line);
                let bad = |c: char| c.is_whitespace() || c.is_uppercase();
                assert!(
                    key.starts_with(char::is_lowercase) && !key.contains(bad),
                    "{line}"
                );
                match value.strip_prefix(' ') {
                    Some(value) => config.insert(key.to_owned(), value.to_owned()),
                    None => config.remove(key),
                };
            }
        }
        results
    }

    proptest! {
        #[test]
        fn every_record_is_well_formed(records in prop::collection::vec(records(), 0..8)) {
            let mut machine = BTreeMap::new();
            let mut want = Vec::new();
            for record in &records {
                match record {
                    Record::Header(header) => machine = clean_config(&header.machine),
                    Record::Sample(sample) => {
                        let mut config = machine.clone();
                        config.extend(clean_config(&sample.config));
                        let variant = one_line(&sample.variant);
                        if !variant.is_empty() && sample.variant != "base" {
                            config.insert("variant".to_owned(), variant);
                        }
                        let values = sample.values.iter().filter(|v| v.figure.number().is_some());
                        let units: Vec<String> =
                            values.map(|v| labelled(&v.unit, &v.figure)).collect();
                        if !units.is_empty() {
                            want.push((config, units));
                        }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(results(&write(&records)), want);
        }
    }
}
