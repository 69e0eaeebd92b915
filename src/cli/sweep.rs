//! `poise sweep`: one parameter over its values, in rounds of a drawn order, and what it does to faults, collections and time. Never judges two programs.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

mod attribution;

use super::compile::or_stopped;
use super::compilers::words;
use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions, level};
use super::outlet::Outlet;
use super::recorder::Recorder;
use super::{Usage, stat};
use crate::compare::{self, Trial};
use crate::machine::Roots;
use crate::report::sweep::Report;
use crate::report::text;
use crate::run::compilation::{Again, Compilation, Conditions, Jobs};
use crate::run::compiler::cache::Cache;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::{Invocation, Limits, Words};
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::source::Source;
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Compiler, Language, parallel};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::Schedule;
use crate::run::{self, Workload, command, schedule};
use crate::sample::{Name, Record, Warning};
use crate::sys::perf_event::Target;
use crate::unit::Unit;
use attribution::Attribution;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "task-clock,page-faults,context-switches,instructions:u";

/// Sweep one parameter of a program over its values: what it does to time, faults and collections
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  poise sweep --param heap=8,32,128,512 --gc -- compile -d=gcstart={heap} -importcfg=cfg -o=x.a x.go
  poise sweep --param gogc=50,100,200,off --gc -- GOGC={gogc} ./server --selftest
  poise sweep go-heap --compiler ~/go --package go/types

Every round runs each value once, in an order drawn from the seed. go-heap varies the heap up to which a Go \
compiler collects no garbage: by -d=gcstart where the compiler knows it; where it does not, by -c, on which its \
start heap depends, as does how many functions it compiles at once; or by GOGC, which has it do without a start heap.")]
pub(super) struct Arguments {
    /// What to sweep, where it is known how.
    #[arg(value_name = "PRESET", value_enum, conflicts_with = "param")]
    preset: Option<Preset>,

    /// The parameter and its values, in the place of {NAME} in the command; words like KEY={NAME}
    /// before the program set its environment.
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = parameter, requires = "command")]
    param: Option<(String, Vec<String>)>,

    /// The command of --param.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "preset")]
    command: Vec<String>,

    /// Run each a second time, uncounted, with GODEBUG=gctrace=1, to count garbage collections; for
    /// Go programs.
    #[arg(long, requires = "param")]
    gc: bool,

    /// Tell where the page faults of each value come from, by kind and mapping: one more run of
    /// each, traced, after those that are measured.
    #[arg(long)]
    faults: bool,

    /// go-heap: the GOROOT of the compiler.
    #[arg(
        long,
        value_name = "GOROOT",
        required_if_eq("preset", "go-heap"),
        conflicts_with = "param"
    )]
    compiler: Option<String>,

    /// go-heap: the package to compile.
    #[arg(
        long,
        value_name = "PACKAGE",
        default_value = "go/types",
        conflicts_with = "param"
    )]
    package: String,

    /// go-heap: how to vary the heap. By default gcstart where the compiler knows it, else c.
    #[arg(long, value_name = "WAY", value_enum, conflicts_with = "param")]
    way: Option<Way>,

    /// go-heap: the values instead of the usual ones.
    #[arg(
        long,
        value_name = "VALUES",
        value_delimiter = ',',
        conflicts_with = "param"
    )]
    values: Vec<String>,

    /// go-heap: flags for the compiler.
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        conflicts_with = "param"
    )]
    flags: String,

    /// Run N rounds.
    #[arg(short = 'r', long, visible_alias = "repeat", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,

    /// Begin no new round after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    max_time: Option<Duration>,

    /// Run N rounds before those that count.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u64,

    /// End a run after this long, as failed.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = options::duration)]
    timeout: Duration,

    /// The share of comparisons with the best value that may be called worse without being so.
    #[arg(long, value_name = "LEVEL", default_value = "0.05", value_parser = level)]
    alpha: f64,

    /// Write what was found to FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    verdict: Option<PathBuf>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    #[command(flatten)]
    events: EventOptions,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// The start heap of a Go compiler.
    GoHeap,
}

/// How the heap of a Go compiler is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// -d=gcstart=MIB: it collects nothing below.
    Gcstart,
    /// -c=N: in compilers without gcstart the start heap is 32 + 8 N MiB.
    C,
    /// GOGC=PERCENT, which also keeps it from having a start heap.
    Gogc,
}

/// What is swept.
struct Swept {
    parameter: String,
    values: Vec<String>,
    /// The place of the value that the program would have by itself.
    usual: Option<usize>,
    name: Name,
    jobs: Vec<Jobs>,
    facts: Vec<(String, String)>,
    doubts: Vec<Warning>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    if arguments.preset.is_none() && arguments.param.is_none() {
        return Err(Usage {
            message: "there is nothing to sweep".to_owned(),
            hint: Some(
                "poise sweep --param n=1,2,4 -- COMMAND {n}, or poise sweep go-heap".to_owned(),
            ),
        }
        .into());
    }
    let wanted = arguments.events.wanted(DEFAULT_EVENTS)?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::set(&arguments.hold, &arguments.child, Bound::usual, &interrupt)?;
    let (plan, mut doubts) = options::plan(&wanted, Target::Myself);
    let limits = Limits {
        timeout: arguments.timeout,
        interrupt: &interrupt,
    };
    let outlet = arguments.verdict.as_deref().map(Outlet::create);
    let outlet = outlet.transpose()?;
    let scratch = Scratch::new().map_err(run::Error::Refused)?;
    let swept = match &arguments.param {
        Some((key, values)) => arguments.commands(key, values),
        None => arguments.go_heap(&scratch, limits),
    };
    let swept = or_stopped(swept, &interrupt)?;
    doubts.extend(swept.doubts);
    let conditions = Conditions {
        surroundings: stage.surroundings.clone(),
        timeout: arguments.timeout,
        tick_sec: options::tick_sec(stage.surroundings.cpus.as_ref()),
    };
    let names: Vec<String> = swept
        .values
        .iter()
        .map(|value| format!("{}={value}", swept.parameter))
        .collect();
    let measured = swept.jobs.iter().map(|jobs| jobs.measured.clone());
    let measured: Vec<_> = names.iter().cloned().zip(measured).collect();
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for (variant, jobs) in names.iter().zip(swept.jobs) {
        let one = Compilation::new(&swept.name, variant, jobs, &conditions, &plan)?;
        workloads.push(Box::new(one));
    }
    let seed = options::seed(arguments.seed);
    let limits = schedule::Limits {
        rounds: arguments.runs,
        time: arguments.max_time,
    };
    let mut schedule = Schedule::new(seed, workloads.len(), limits);
    let mut recorder = Recorder::open(&arguments.output)?;
    recorder.fact(compare::VARIANTS, serde_json::to_string(&names)?);
    let rule = format!("fixed {} alpha {}", arguments.runs, arguments.alpha);
    recorder.fact(compare::STOP_RULE, rule);
    for (key, value) in &swept.facts {
        recorder.fact(key, value.clone());
    }
    recorder
        .begin(seed, &stage, doubts)
        .map_err(run::Error::Output)?;
    recorder.show_progress(
        &arguments.output,
        Some(arguments.runs),
        Unit::named("sec/op"),
    );
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    let trial = RefCell::new(Trial::of(names.iter().cloned()));
    let mut driven = run::drive(
        &mut schedule,
        arguments.warmup,
        &mut workloads,
        &interrupt,
        &mut noise,
        &mut |record: Record| {
            // Its phases are no runs of their own.
            let is_whole = |name: &Name| *name == swept.name;
            if matches!(&record, Record::Sample(sample) if is_whole(&sample.benchmark))
                || matches!(record, Record::Failure(_))
            {
                trial.borrow_mut().take(&record);
            }
            recorder.take(record)
        },
    );
    let mut attributed = None;
    if let (true, Ok(tally)) = (arguments.faults, &mut driven)
        && tally.interrupted.is_none()
    {
        let conditions = attribution::Conditions {
            stage: &stage,
            timeout: arguments.timeout,
            interrupt: &interrupt,
        };
        let mut take = |record| recorder.take(record);
        attributed = match attribution::attribute(&measured, &conditions, tally, &mut take) {
            Ok(attributed) => attributed,
            // What was measured stands all the same.
            Err(error) => {
                super::remark(&format!("no faults are attributed: {error:#}"));
                None
            }
        };
    }
    let (stream, ended) = recorder.finish(driven);
    let trial = trial.into_inner();
    let report = Report {
        trial: &trial,
        parameter: &swept.parameter,
        values: &swept.values,
        usual: swept.usual,
        alpha: arguments.alpha,
    };
    let any = trial.units().next().is_some();
    arguments.tell(&report, attributed.as_ref(), any)?;
    if !arguments.output.quiet && stream.failed > 0 {
        super::print_aside(&text::failures(&stream))?;
    }
    let tally = ended?;
    if let Some(outlet) = outlet {
        outlet.write(&(serde_json::to_string_pretty(&report.json())? + "\n"))?;
    }
    Ok(stat::code(&tally))
}

impl Arguments {
    fn tell(
        &self,
        report: &Report<'_>,
        attributed: Option<&Attribution>,
        any: bool,
    ) -> anyhow::Result<()> {
        let to_stdout = self.output.records_to_stdout();
        if !any || self.output.quiet || to_stdout && !self.output.table {
            return Ok(());
        }
        let style = text::Style {
            width: super::columns(),
        };
        let mut text = report.text(style);
        if let Some(attributed) = attributed {
            text = text + "\n" + &attributed.text(style);
        }
        match to_stdout {
            true => super::print_aside(&text),
            false => super::print(&text),
        }
    }

    /// Any command, with the values in their places.
    fn commands(&self, key: &str, values: &[String]) -> anyhow::Result<Swept> {
        let hole = format!("{{{key}}}");
        if !self.command.iter().any(|word| word.contains(&hole)) {
            return Err(Usage::new(format!("{hole} does not stand in the command")).into());
        }
        let mut name = None;
        let mut jobs = Vec::new();
        for value in values {
            let filled: Vec<String> = self
                .command
                .iter()
                .map(|word| word.replace(&hole, value))
                .collect();
            let settings = filled.iter().take_while(|word| is_setting(word)).count();
            let (settings, words) = filled.split_at(settings);
            let Some((program, rest)) = words.split_first() else {
                return Err(Usage::new("the command has no program").into());
            };
            let path = command::find_program(program.as_ref())?;
            let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
            for (key, value) in settings.iter().filter_map(|word| word.split_once('=')) {
                set(&mut environment, key, value);
            }
            let measured = Invocation {
                program: path.to_string_lossy().into_owned().into(),
                arguments: rest.iter().map(OsString::from).collect(),
                environment,
                words: Words::OutputTo("/dev/null".into()),
                ..Invocation::default()
            };
            let base = Path::new(program).file_name().unwrap_or_default();
            name.get_or_insert_with(|| Name::new(&base.to_string_lossy()));
            jobs.push(Jobs {
                again: self.gc.then(|| Again::Traced(traced(&measured))),
                measured,
                output: None,
                phases: None,
            });
        }
        Ok(Swept {
            parameter: key.to_owned(),
            values: values.to_vec(),
            usual: None,
            name: name.unwrap_or_else(|| Name::new("")),
            jobs,
            facts: Vec::new(),
            doubts: Vec::new(),
        })
    }

    /// The heap of a Go compiler.
    fn go_heap(&self, scratch: &Scratch, limits: Limits<'_>) -> anyhow::Result<Swept> {
        let named = self.compiler.as_deref().unwrap_or_default();
        let Compiler::Go(go) =
            Compiler::find(named, Some(Language::Go), limits).map_err(Usage::from)?
        else {
            bail!("{named} is no Go compiler");
        };
        let knows = knows_gcstart(&go, limits)?;
        let way = match (self.way, knows) {
            (Some(Way::Gcstart), false) => {
                return Err(Usage {
                    message: format!("{} knows no -d=gcstart", go.version),
                    hint: Some("vary its heap by --way c or --way gogc".to_owned()),
                }
                .into());
            }
            (Some(way), _) => way,
            (None, true) => Way::Gcstart,
            (None, false) => Way::C,
        };
        let cache = Cache::open().map_err(run::Error::Refused)?;
        let source = Source::list(
            &go,
            std::slice::from_ref(&self.package),
            None,
            &[],
            &cache,
            limits,
        )
        .map_err(run::Error::Refused)?;
        let bench = Workbench::new(&source, &go, &cache, parallel::cpus(), limits)
            .map_err(run::Error::Refused)?;
        let (Some(package), None) = (source.wanted().next(), source.wanted().nth(1)) else {
            return Err(Usage::new(format!("{} is not one package", self.package)).into());
        };
        let flags = words(&self.flags)?;
        let values = match self.values.is_empty() {
            true => way.values().map(str::to_owned).into(),
            false => self.values.clone(),
        };
        let mut jobs = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let file = |suffix: &str| scratch.path().join(format!("{at:04}{suffix}"));
            let (output, profile) = (file(".a"), file(".mem"));
            let job = |more: &[OsString]| {
                let flags = [&flags[..], &way.flags(value), more].concat();
                let mut job = bench
                    .job(package, &flags, &output, limits)
                    .map_err(run::Error::Refused)?;
                if way == Way::Gogc {
                    set(&mut job.invocation.environment, "GOGC", value);
                }
                anyhow::Ok(job.invocation)
            };
            let mut option = OsString::from("-memprofile=");
            option.push(&profile);
            jobs.push(Jobs {
                measured: job(&[])?,
                again: Some(Again::Profiled(job(&[option])?, profile)),
                output: None,
                phases: None,
            });
        }
        let usual = way.usual(&flags);
        Ok(Swept {
            parameter: way.parameter().to_owned(),
            usual: values
                .iter()
                .position(|value| Some(value) == usual.as_ref()),
            values,
            name: Name::new(&self.package),
            jobs,
            facts: vec![("compiler".to_owned(), go.version.clone())],
            doubts: [cache.doubt.clone(), way.doubt(&go)]
                .into_iter()
                .flatten()
                .collect(),
        })
    }
}

impl Way {
    fn parameter(self) -> &'static str {
        match self {
            Way::Gcstart => "gcstart",
            Way::C => "c",
            Way::Gogc => "GOGC",
        }
    }

    fn values(self) -> [&'static str; 8] {
        match self {
            Way::Gcstart => ["8", "16", "32", "64", "128", "256", "512", "1024"],
            Way::C => ["1", "2", "4", "8", "16", "32", "64", "128"],
            Way::Gogc => ["25", "50", "100", "200", "400", "800", "1600", "off"],
        }
    }

    fn flags(self, value: &str) -> Vec<OsString> {
        match self {
            Way::Gcstart => vec![format!("-d=gcstart={value}").into()],
            Way::C => vec![format!("-c={value}").into()],
            Way::Gogc => Vec::new(),
        }
    }

    /// What the compiler would do by itself, called as we call it with these flags.
    fn usual(self, flags: &[OsString]) -> Option<String> {
        let workers = parallel::cpus().get().min(4);
        let is_serial = flags.iter().any(|flag| flag == "-c=1") || workers == 1;
        match self {
            // cmd/compile/internal/gc.Main: none without concurrency.
            Way::Gcstart => (!is_serial).then(|| "128".to_owned()),
            Way::C => Some(workers.to_string()),
            Way::Gogc => None,
        }
    }

    fn doubt(self, go: &Go) -> Option<Warning> {
        let text = match self {
            Way::Gcstart => return None,
            Way::C => format!(
                "{} has no -d=gcstart: its start heap is 32 + 8 c MiB, and with -c varies how many functions it compiles at once",
                go.version
            ),
            Way::Gogc => "where GOGC is set, the compiler has no start heap at all".to_owned(),
        };
        Some(Warning(text))
    }
}

/// Whether the compiler lists gcstart among its debug settings.
fn knows_gcstart(go: &Go, limits: Limits<'_>) -> anyhow::Result<bool> {
    let asked = Invocation {
        program: go.compile.clone(),
        arguments: vec!["-d=help".into()],
        ..Invocation::default()
    };
    let said = asked.run(limits).map_err(run::Error::Refused)?.text();
    Ok(said
        .lines()
        .any(|line| line.split_whitespace().next() == Some("gcstart")))
}

/// The same with a line for each garbage collection on standard error.
fn traced(measured: &Invocation) -> Invocation {
    let mut again = measured.clone();
    let known = again.environment.iter().find(|(key, _)| key == "GODEBUG");
    let before = known.map(|(_, value)| value.to_string_lossy().into_owned() + ",");
    let value = before.unwrap_or_default() + "gctrace=1";
    set(&mut again.environment, "GODEBUG", &value);
    again
}

/// Sets one variable of an environment.
fn set(environment: &mut Vec<(OsString, OsString)>, key: &str, value: &str) {
    environment.retain(|(known, _)| known != key);
    environment.push((key.into(), value.into()));
}

/// Whether a word before a program sets a variable, as in a shell.
fn is_setting(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn parameter(text: &str) -> Result<(String, Vec<String>), String> {
    let Some((name, values)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("write NAME=VALUE,VALUE".to_owned());
    };
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    match values.len() {
        0 | 1 => Err("it takes two values to compare".to_owned()),
        _ if (1..values.len()).any(|at| values[..at].contains(&values[at])) => {
            Err("a value stands there twice".to_owned())
        }
        _ => Ok((name.to_owned(), values)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_from_programs() {
        let check = |word, want| assert_eq!(is_setting(word), want, "{word}");
        check("GOGC=off", true);
        check("_a1=", true);
        check("./a=b", false);
        check("1=2", false);
        check("=x", false);
        check("make", false);
    }

    #[test]
    fn traces_keep_what_the_user_debugs() {
        let plain = Invocation {
            program: "x".into(),
            environment: vec![("GODEBUG".into(), "madvdontneed=1".into())],
            ..Invocation::default()
        };
        let again = traced(&plain);
        let want: (OsString, OsString) = ("GODEBUG".into(), "madvdontneed=1,gctrace=1".into());
        assert_eq!(again.environment, [want]);
    }
}
