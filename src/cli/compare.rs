//! `poise compare`: what changed between files of results, whoever wrote them. Measures nothing, and never writes to a file but the verdicts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::options::{level, share};
use super::outlet::Outlet;
use super::{Usage, verdict};
use crate::compare::{Collection, Options, STOP_RULE, Tables, VARIANTS};
use crate::format::{Entry, Reader, Source};
use crate::query::{Expressions, Query};
use crate::report::{tables, text};
use crate::sample::Record;

/// Compare files of benchmark results: what changed, by how much, how certain that is
#[derive(Debug, Args)]
#[command(
    after_help = "One file alone is shown as it is; that of `poise ab` is compared by its variants. \
`poise help compare` has the whole manual.",
    after_long_help = MANUAL
)]
pub(super) struct Arguments {
    /// Results: records of poise, the Go benchmark format, `perf stat -j`, or the JSON of hyperfine
    /// and Google Benchmark; - is standard input. LABEL=FILE names the column; files with one
    /// label are one column.
    #[arg(value_name = "[LABEL=]FILE", required = true)]
    files: Vec<OsString>,

    /// Use only what this selects, such as '/size:4k .unit:(sec/op OR B/op)'.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "*",
        allow_hyphen_values = true,
        help_heading = "Selection"
    )]
    filter: String,

    /// Split results into rows by these keys.
    #[arg(
        long,
        value_name = "KEYS",
        default_value = ".fullname",
        help_heading = "Selection"
    )]
    row: String,

    /// Compare results that differ in these keys; .file, or the variant of one `poise ab`.
    #[arg(long, value_name = "KEYS", help_heading = "Selection")]
    col: Option<String>,

    /// Split results into tables by these keys.
    #[arg(
        long,
        value_name = "KEYS",
        default_value = ".config",
        help_heading = "Selection"
    )]
    table: String,

    /// Let results differ in these keys.
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "",
        hide_default_value = true,
        help_heading = "Selection"
    )]
    ignore: String,

    /// The change that still counts as none. By default 2 %, and 0.1 % of what hardly varies.
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    margin: Option<f64>,

    /// The share of changes found that may be none.
    #[arg(long, value_name = "LEVEL", default_value = "0.05", value_parser = level)]
    alpha: f64,

    /// How certain the intervals of the medians are.
    #[arg(long, value_name = "LEVEL", default_value = "0.95", value_parser = confidence)]
    confidence: f64,

    /// Print a table for people, markdown, CSV with a line for each cell, or JSON.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,

    /// Let the exit code tell the verdict.
    #[arg(long)]
    gate: bool,

    /// Write the verdicts to FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    verdict: Option<PathBuf>,
}

const MANUAL: &str = "\
Files are read once, as streams. A line that cannot be understood is reported with its place and the rest \
is used; a file that is missing, or has no result in it, is an error.

Keys: .name, .fullname, /KEY (a parameter of the name), .file, KEY (of the configuration), .config (all \
of it), in filters also .unit. A key of --row, --col, --table takes an order: KEY@alpha, KEY@num, or \
KEY@(a b c), which keeps only these. Filters: key:value, key:/regexp/, key:(a OR b), joined by AND (or \
nothing) and OR, with - for not. The spellings of benchstat with one dash (-filter, -row, -col, -table, \
-ignore, -alpha, -confidence, -format) are understood.

Tables: a row has the median of each column with the farther end of its 95 % interval, and for all \
columns but the first the change of the medians, the 95 % interval of the change, p, the number of runs, \
and the verdict. ~ stands where no change is certain. Medians, their intervals, quotients and geometric means are those \
of benchstat. Narrow terminals show less; $COLUMNS says how wide one is.

Verdicts: improved and regressed, changed (of a unit that does not tell what is better), equivalent (certainly \
less than the margin), inconclusive, and untrustworthy (runs of one side were voided more often). With --gate the \
exit code is 0 when everything that was compared improved or is equivalent, 3 when something regressed beyond \
the margin, 4 when something is undecided or missing on one side. Choose what counts with --filter.

Where verdicts differ from benchstat's:
- Pairs: runs of one `poise ab` are compared within their rounds, by signed ranks. What else changed from \
round to round drops out. Records say whether the run went on until it was certain; then p counts all looks.
- Order: all other runs are two groups. Whatever changed on the machine between them looks like a \
change of the program, and no test can tell. That is said under the tables.
- Ties: the Mann-Whitney test is exact with ties too; benchstat's is not symmetric there.
- Families: of many comparisons some are significant by chance. All that are shown are judged together, \
by Benjamini and Hochberg's method; p in the tables is that of one comparison, as in benchstat.
- The change that the verdict is about is Hodges and Lehmann's estimate with its interval, not the quotient of medians.
- Equivalence: benchstat has ~ for both no change and too little known.
- Exact figures (three or more runs a side, all the same, but for times) are compared as they are, \
with no p. A unit that its file calls assume=exact is so with one run.";

/// How the tables are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(alias = "text")]
    Table,
    Markdown,
    Csv,
    Json,
}

/// Lines that are reported of one file, before the others are only counted.
const MOST_REPORTED: u64 = 100;

/// benchstat's spellings with one dash, which is all that it has.
const ONE_DASH: [&str; 8] = [
    "filter",
    "row",
    "col",
    "table",
    "ignore",
    "alpha",
    "confidence",
    "format",
];

/// The command line with two dashes where benchstat has one.
pub(super) fn spelled(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    if words.get(1).is_none_or(|verb| verb != "compare") {
        return words;
    }
    for word in words.iter_mut().skip(2).take_while(|word| *word != "--") {
        let Some(option) = word.to_str().and_then(|word| word.strip_prefix('-')) else {
            continue;
        };
        let name = option.split('=').next().unwrap_or(option);
        if ONE_DASH.contains(&name) {
            *word = format!("--{option}").into();
        }
    }
    words
}

/// A file and what it is called.
struct Input {
    label: String,
    path: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    // What is wrong with the expressions is said before any file is read.
    arguments.query(Columns::Files)?;
    let inputs: Vec<Input> = arguments.files.iter().map(Input::new).collect();
    for input in &inputs {
        input.check()?;
    }
    let outlet = arguments
        .verdict
        .as_deref()
        .map(Outlet::create)
        .transpose()?;
    let one = inputs.iter().all(|input| input.label == inputs[0].label);
    let mut collection = None;
    for input in &inputs {
        let mut reader = Reader::new(input.shown(), input.open()?);
        let before = collection.as_ref().map_or(0, Collection::seen);
        let mut bad = 0;
        let mut fresh = true;
        while let Some(entry) = reader.entry() {
            if collection.is_none() {
                let columns = Columns::of(&entry, one);
                collection = Some(Collection::new(arguments.query(columns)?));
            }
            let Some(collection) = &mut collection else {
                continue;
            };
            if std::mem::take(&mut fresh) {
                collection.begin(&input.label);
            }
            if let Some(error) = collection.take(entry) {
                bad += 1;
                if bad <= MOST_REPORTED {
                    super::remark(&error.to_string());
                }
            }
        }
        if bad > MOST_REPORTED {
            let more = bad - MOST_REPORTED;
            super::remark(&format!(
                "{}: {more} more lines were not understood",
                input.shown()
            ));
        }
        if let Some(error) = reader.error() {
            bail!("cannot read {}: {error}", input.shown());
        }
        if collection.as_ref().map_or(0, Collection::seen) == before {
            bail!("there is no benchmark result in {}", input.shown());
        }
        if reader.source() == Some(Source::Jsonl) && !reader.whole() && bad == 0 {
            super::remark(&format!(
                "{}: the records break off; what is there is used",
                input.shown()
            ));
        }
    }
    let Some(collection) = collection else {
        return Err(Usage::new("there is no file to compare").into());
    };
    if collection.kept() == 0 {
        bail!("none of the {} results is selected", collection.seen());
    }
    let options = Options {
        alpha: arguments.alpha,
        margin: arguments.margin,
        confidence: arguments.confidence,
    };
    let tables = collection
        .tables(&options)
        .context("choose --row and --col otherwise")?;
    arguments.print(&tables)?;
    let gate = tables.gate();
    if let Some(outlet) = outlet {
        outlet.write(&verdict::document(gate, tables::verdicts(&tables))?)?;
    }
    Ok(if arguments.gate {
        verdict::code(gate)
    } else {
        0
    })
}

/// What is compared, unless the user says otherwise.
#[derive(Clone, Copy, Debug)]
enum Columns {
    /// The files, or what the user calls them.
    Files,
    /// The files; the names that their variants were given are only names.
    FilesOfOneVariant,
    /// The variants in the one file that there is.
    Variants,
}

impl Columns {
    /// Those of files of which the first begins so; `one` when there is but one.
    fn of(first: &Entry<'_>, one: bool) -> Columns {
        let Entry::Record(Record::Header(header)) = first else {
            return Columns::Files;
        };
        let names = header.machine.get(VARIANTS);
        let names = names.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
        let is_contest = header.machine.contains_key(STOP_RULE);
        match names.map_or(usize::from(is_contest), |names| names.len()) {
            0 => Columns::Files,
            _ if one => Columns::Variants,
            1 => Columns::FilesOfOneVariant,
            _ => Columns::Files,
        }
    }
}

impl Arguments {
    /// How results are sorted, by these columns unless the user says otherwise.
    fn query(&self, columns: Columns) -> Result<Query, Usage> {
        let (col, passed_over) = match columns {
            Columns::Files => (".file", ""),
            Columns::FilesOfOneVariant => (".file", "variant"),
            Columns::Variants => ("variant", ""),
        };
        let is_named = |keys: &String| keys.contains("variant");
        let is_chosen = [&self.table, &self.row, &self.ignore]
            .into_iter()
            .any(is_named);
        let ignore = match self.ignore.is_empty() && !is_chosen && self.col.is_none() {
            true => passed_over.to_owned(),
            false => self.ignore.clone(),
        };
        let expressions = Expressions {
            filter: &self.filter,
            table: &self.table,
            row: &self.row,
            col: self.col.as_deref().unwrap_or(col),
            ignore: &ignore,
        };
        Query::new(&expressions).map_err(|error| Usage::new(error.to_string()))
    }

    fn print(&self, tables: &Tables) -> anyhow::Result<()> {
        match self.format {
            Format::Table => {
                let style = text::Style { width: width() };
                tables::text(tables, style).try_for_each(|text| super::print(&text))
            }
            Format::Markdown => super::print(&tables::markdown(tables)),
            Format::Csv => {
                super::print(&String::from_utf8_lossy(&tables::csv(tables)?))?;
                for remark in tables::remarks(tables) {
                    super::remark(&remark);
                }
                Ok(())
            }
            Format::Json => {
                let document = json!({
                    "schema": 1,
                    "tool": concat!("poise ", env!("CARGO_PKG_VERSION")),
                    "alpha": self.alpha,
                    "confidence": self.confidence,
                    "gate": verdict::word(tables.gate()),
                    "tables": tables.tables.iter().map(tables::json).collect::<Vec<_>>(),
                    "remarks": tables::remarks(tables),
                });
                super::print(&(serde_json::to_string_pretty(&document)? + "\n"))
            }
        }
    }
}

impl Input {
    fn new(word: &OsString) -> Input {
        let labelled = word.to_str().and_then(|word| word.split_once('='));
        match labelled {
            // A label has no slash: ./a=b is a file.
            Some((label, path)) if !label.is_empty() && !label.contains('/') => Input {
                label: label.to_owned(),
                path: path.into(),
            },
            _ => Input {
                label: word.to_string_lossy().into_owned(),
                path: word.into(),
            },
        }
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    fn shown(&self) -> String {
        match self.is_stdin() {
            true => "standard input".to_owned(),
            false => self.path.display().to_string(),
        }
    }

    /// Whether it is there at all: before the others are read.
    fn check(&self) -> anyhow::Result<()> {
        if self.is_stdin() {
            return Ok(());
        }
        let cannot = || format!("cannot read {}", self.shown());
        let metadata = fs::metadata(&self.path).with_context(cannot)?;
        match metadata.is_dir() {
            true => bail!("cannot read {}: it is a directory", self.shown()),
            false => Ok(()),
        }
    }

    fn open(&self) -> anyhow::Result<Box<dyn Read>> {
        Ok(match self.is_stdin() {
            true => Box::new(io::stdin().lock()),
            false => {
                let cannot = || format!("cannot read {}", self.shown());
                Box::new(File::open(&self.path).with_context(cannot)?)
            }
        })
    }
}

/// Columns that a line may take: in a file nothing is cut off.
fn width() -> usize {
    let is_narrow = std::env::var_os("COLUMNS").is_some() || io::stdout().is_terminal();
    match is_narrow {
        true => super::columns(),
        false => usize::MAX,
    }
}

/// A probability such as `0.95` or `95%`.
fn confidence(text: &str) -> Result<f64, String> {
    let problem = || "write 95% or 0.95".to_owned();
    share(text)
        .ok()
        .filter(|&level| level > 0.0)
        .ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_as_good_as_two() {
        let check = |line: &str, want: &str| {
            let words = spelled(line.split(' ').map(OsString::from));
            let want: Vec<OsString> = want.split(' ').map(OsString::from).collect();
            assert_eq!(words, want);
        };
        check(
            "poise compare -filter -x a b",
            "poise compare --filter -x a b",
        );
        check(
            "poise compare -col=/a --row x",
            "poise compare --col=/a --row x",
        );
        check("poise compare -- -row", "poise compare -- -row");
        check("poise stat -row x", "poise stat -row x");
    }

    #[test]
    fn labels_stand_before_files() {
        let check = |word: &str, label: &str, path: &str| {
            let input = Input::new(&word.into());
            assert_eq!((&*input.label, input.path), (label, path.into()));
        };
        check("a.txt", "a.txt", "a.txt");
        check("old=dir/a=b.txt", "old", "dir/a=b.txt");
        check("./a=b.txt", "./a=b.txt", "./a=b.txt");
        check("=b", "=b", "=b");
        check("new=-", "new", "-");
    }
}
