//! `poise bisect`: finds the commit that changed a noisy figure, by building and running few of them. Chooses nothing itself: [`crate::bisect`] does.

mod live;
mod report;
mod session;
mod simulate;

use std::ffi::OsString;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Parser};
use serde::{Deserialize, Serialize};

use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions};
use super::outlet::Outlet;
use super::{Cli, Usage, Verb, exit, remark};
use crate::bisect::history::{self, Line, Wanted};
use crate::bisect::{Order, Outcome, Settings};
use crate::compare::Judge;
use crate::run;
use crate::run::build::repository::Repository;
use crate::run::compiler::cache::data_home;
use crate::run::compiler::invocation::Limits;
use crate::run::interrupt::Interrupt;
use crate::sample::UnitMeta;
use crate::stats::sequential::Rule;
use crate::unit::{Assume, Unit};
use session::{Ended, Session};

/// Find the commit that made a benchmark slower, by few builds and paired runs
///
/// Both ends are measured until it is certain that they differ; then commits in between are built
/// and run where that tells most for its cost; and the culprit is confirmed against its parent.
/// Every run stands beside one of the good end. Figures that do not vary are found out as such, and
/// searched by halves. Commits are built beside your checkout, as `poise build` does it: your
/// repository is only read.
///
/// The benchmark is any command. It runs in the commit's tree (or in --benchmark-dir), with
/// POISE_TREE and POISE_COMMIT in its environment; `{tree}` in its words is the tree. When its
/// output has benchmarks (in the Go format, our records), their figures count; else what is
/// measured of the process.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 there is an answer (a culprit, or no change), 4 it is not decided, 5 it could not be \
tried, 1 an end can be neither built nor measured.

Examples:
  poise bisect v1.0..main --build 'make -j2' -- ./bench
  poise bisect go1.24..go1.25 -C ~/go --benchmark-dir ~/bench --by sec/op,allocs/op -- {bench} -test.bench=.
  poise bisect --simulate --step 5% --noise 5%")]
pub(super) struct Arguments {
    /// The range: a revision without the change, and one with it.
    #[arg(value_name = "GOOD..BAD", required_unless_present_any = ["resume", "simulate"])]
    range: Option<String>,

    /// The benchmark and its arguments.
    #[arg(last = true, value_name = "BENCHMARK")]
    benchmark: Vec<OsString>,

    /// The repository.
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,

    /// How a commit is built: a command for the shell, run at the top of its tree. Go itself is
    /// built by its make.bash.
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,

    /// Run the benchmark here instead of in the commit's tree. Where Go itself is bisected, `{bench}`
    /// in the benchmark's words is the test binary of this directory, made by each toolchain.
    #[arg(long, value_name = "DIR")]
    benchmark_dir: Option<PathBuf>,

    /// The units that are searched for a change, one after the other.
    #[arg(
        long,
        value_name = "UNITS",
        value_delimiter = ',',
        default_value = "sec/op"
    )]
    by: Vec<String>,

    /// Only commits that touch this path; may be given more than once.
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,

    /// Build none of these commits; may be given more than once.
    #[arg(long, value_name = "REV|RANGE")]
    skip: Vec<String>,

    /// In which order commits are measured; all but posterior measure each --iterations times.
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Orders::Posterior)]
    order: Orders,

    /// Pairs of runs of each commit, where the order is not posterior.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    iterations: u32,

    /// Go on at both sides of a culprit, until no part of the range has a change.
    #[arg(long)]
    all: bool,

    /// When the ends do not differ, compare K commits in between with the good end: changes may
    /// cancel.
    #[arg(long, value_name = "K", default_value_t = 0)]
    scan: usize,

    /// When the culprit is a merge, bisect what it brought in.
    #[arg(long)]
    descend: bool,

    /// The change that still counts as none. By default 2 %, and 0.1 % of what hardly varies.
    #[arg(long, value_name = "PERCENT", value_parser = options::share)]
    margin: Option<f64>,

    /// Take at most N runs; a run and that of the reference beside it are one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_runs: Option<u64>,

    /// Begin nothing new after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    max_time: Option<Duration>,

    /// Run each build N times uncounted first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u64,

    /// End a run after this long, as failed. By default 20 times the good end's, 10 s at least.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Give a build up after this long.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = options::duration)]
    build_timeout: Duration,

    /// Builds that run at once: those that will probably be needed next are made ahead. Nothing is
    /// measured meanwhile.
    #[arg(short, long, value_name = "N", default_value = "1")]
    jobs: NonZero<usize>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Keep the log here; by default under ~/.local/share/counterpoise/bisect.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Go on with the bisection whose log is here; needs no other argument.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["range", "benchmark", "simulate", "dir"])]
    resume: Option<PathBuf>,

    /// Write the report to FILE, as markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write what is known of commits to FILE, as git bisect log does; git bisect replay reads it.
    #[arg(long, value_name = "FILE")]
    git_log: Option<PathBuf>,

    /// Read FILE, if it is there, as benchmany's bench.log, and append to it.
    #[arg(long, value_name = "FILE")]
    bench_log: Option<PathBuf>,

    /// Print no progress and no remarks.
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    events: EventOptions,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    simulation: simulate::Options,
}

/// The orders by their words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Orders {
    /// What tells most for its cost.
    Posterior,
    /// All, one iteration after the other.
    Seq,
    /// All, spread evenly at any time.
    Spread,
    /// Halfway between the neighbours that differ most.
    Metric,
}

/// What a bisection is, as it stands beside its log: enough to go on with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    schema: u32,
    /// The words behind `poise`.
    arguments: Vec<String>,
    /// Where they were typed.
    directory: PathBuf,
    /// The commits, the good end first.
    commits: Vec<String>,
    /// For all that is drawn.
    seed: u64,
}

/// The file of the plan, and that of the log.
const PLAN: &str = "plan.json";
const LOG: &str = "log.jsonl";

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    if arguments.simulation.simulate {
        return simulate::main(&arguments.simulation, arguments.seed);
    }
    match &arguments.resume {
        None => {
            let words = std::env::args_os().skip(1).map(OsString::into_string);
            let words: Result<Vec<String>, _> = words.collect();
            begin(
                arguments,
                words.map_err(|word| {
                    Usage::new(format!(
                        "{} is not UTF-8, which the plan must be",
                        word.display()
                    ))
                })?,
            )
        }
        Some(directory) => resume(directory),
    }
}

/// Goes on with the bisection in `directory`.
fn resume(directory: &Path) -> anyhow::Result<u8> {
    let directory = fs::canonicalize(directory)
        .with_context(|| format!("there is no bisection in {}", directory.display()))?;
    let plan = read_plan(&directory)?;
    let words = std::iter::once("poise".to_owned()).chain(plan.arguments.iter().cloned());
    let typed = Cli::try_parse_from(words)?;
    let Verb::Bisect(arguments) = typed.verb else {
        return Err(anyhow!("{} is no bisection's plan", directory.display()));
    };
    std::env::set_current_dir(&plan.directory)
        .with_context(|| format!("cannot enter {}", plan.directory.display()))?;
    run(*arguments, directory, Some(plan), Vec::new())
}

/// Begins a bisection, whose `words` were typed.
fn begin(arguments: Arguments, words: Vec<String>) -> anyhow::Result<u8> {
    if arguments.benchmark.is_empty() {
        return Err(Usage {
            message: "there is no benchmark to run".to_owned(),
            hint: Some("poise bisect GOOD..BAD --build 'make' -- ./benchmark".to_owned()),
        }
        .into());
    }
    let directory = match &arguments.dir {
        Some(directory) => directory.clone(),
        None => {
            let home = data_home(|key| std::env::var_os(key)).ok_or_else(|| Usage {
                message: "there is no place for the log".to_owned(),
                hint: Some("set HOME, or say --dir DIR".to_owned()),
            })?;
            let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
            let name = format!("{now}-{}", std::process::id()).replace(':', "");
            home.join("bisect").join(name)
        }
    };
    run(arguments, directory, None, words)
}

/// Runs a bisection to its end, from its plan or from the beginning.
fn run(
    arguments: Arguments,
    directory: PathBuf,
    plan: Option<Plan>,
    words: Vec<String>,
) -> anyhow::Result<u8> {
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let wanted = arguments.wanted()?;
    let units = arguments.units()?;
    let stage = Stage::set(&arguments.hold, &arguments.child, Bound::usual, &interrupt)?;
    let limits = Limits {
        timeout: arguments.build_timeout,
        interrupt: &interrupt,
    };
    let repository = Repository::open(&arguments.repository, limits).map_err(Usage::from)?;
    let line = match &plan {
        None => Line::read(&repository, &wanted, limits).map_err(Usage::from)?,
        Some(plan) => {
            Line::again(&repository, &plan.commits, limits).map_err(run::Error::Refused)?
        }
    };
    let seed = plan
        .as_ref()
        .map_or_else(|| options::seed(arguments.seed), |plan| plan.seed);
    if plan.is_none() {
        if !arguments.quiet && history::is_dirty(&repository, limits) {
            remark("what is not committed is no part of any build");
        }
        let plan = Plan {
            schema: 1,
            arguments: words,
            directory: std::env::current_dir().context("cannot tell where we are")?,
            commits: line
                .commits
                .iter()
                .map(|commit| commit.id.clone())
                .collect(),
            seed,
        };
        write_plan(&directory, &plan)?;
    }
    let directory = fs::canonicalize(&directory)
        .with_context(|| format!("cannot enter {}", directory.display()))?;
    let outlet = |path: &Option<PathBuf>| path.as_deref().map(Outlet::create).transpose();
    let (markdown, git_log) = (outlet(&arguments.markdown)?, outlet(&arguments.git_log)?);

    let skipped = line
        .skipped(&repository, &arguments.skip, limits)
        .map_err(Usage::from)?;
    let setting = session::Setting {
        arguments: &arguments,
        repository: &repository,
        stage: &stage,
        interrupt: &interrupt,
        seed,
    };
    let settings = |line: &Line, skipped: Vec<usize>| {
        let of = |unit: &UnitMeta| arguments.settings(unit.clone(), line.commits.len(), &skipped);
        units.iter().map(of).collect::<Vec<Settings>>()
    };
    let mut session = Session::open(&setting, line.clone(), settings(&line, skipped), &directory)?;
    let ended = session.run()?;
    let mut report = session.report(&ended);
    let mut code = code(&ended);
    if arguments.descend && ended.stopped.is_none() {
        for merge in session.merges(&ended) {
            let inner = match Line::merged(&repository, &merge, limits) {
                Ok(inner) => inner,
                Err(cause) => {
                    remark(&format!(
                        "{} cannot be descended into: {cause}",
                        merge.title()
                    ));
                    continue;
                }
            };
            let skipped = inner
                .skipped(&repository, &arguments.skip, limits)
                .map_err(Usage::from)?;
            let directory = directory.join(format!("merge-{}", merge.short()));
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot write {}", directory.display()))?;
            let settings = settings(&inner, skipped);
            let mut below = Session::open(&setting, inner, settings, &directory)?;
            let ended = below.run()?;
            report.descend(&merge, below.report(&ended));
            code = code.max(self::code(&ended));
        }
    }
    super::print(&report.text(super::columns()))?;
    if let Some(outlet) = markdown {
        outlet.write(&report.markdown())?;
    }
    if let Some(outlet) = git_log {
        outlet.write(&report.git_log())?;
    }
    if (ended.stopped.is_some() || code == exit::INCONCLUSIVE) && !arguments.quiet {
        remark(&format!(
            "go on with poise bisect --resume {}",
            directory.display()
        ));
    }
    Ok(code)
}

fn code(ended: &Ended) -> u8 {
    if let Some(signal) = ended.stopped {
        return 128 + signal as u8;
    }
    let outcomes = ended.all.iter().flat_map(|one| &one.findings);
    let outcomes: Vec<&Outcome> = outcomes.map(|finding| &finding.outcome).collect();
    let is = |test: fn(&Outcome) -> bool| outcomes.iter().any(|outcome| test(outcome));
    match () {
        () if is(|outcome| matches!(outcome, Outcome::Found(_))) => 0,
        () if is(|outcome| matches!(outcome, Outcome::Unmeasurable(_))) => exit::FAILURE,
        () if is(|outcome| matches!(outcome, Outcome::Undecided(_))) || ended.is_cut => {
            exit::INCONCLUSIVE
        }
        () => 0,
    }
}

impl Arguments {
    fn wanted(&self) -> Result<Wanted, Usage> {
        let range = self.range.as_deref().unwrap_or_default();
        let ends = range
            .split_once("..")
            .filter(|(good, bad)| !good.is_empty() && !bad.is_empty() && !bad.starts_with('.'));
        let Some((good, bad)) = ends else {
            return Err(Usage {
                message: format!("`{range}` is no range"),
                hint: Some("write GOOD..BAD, such as v1.0..main".to_owned()),
            });
        };
        Ok(Wanted {
            good: good.to_owned(),
            bad: bad.to_owned(),
            paths: self.path.clone(),
        })
    }

    fn units(&self) -> Result<Vec<UnitMeta>, Usage> {
        let meta = |name: &String| {
            let (unit, _) =
                Unit::tidy(name).map_err(|error| Usage::new(format!("--by {name}: {error}")))?;
            Ok(UnitMeta {
                better: unit.better(),
                unit,
                assume: Assume::Nothing,
            })
        };
        self.by.iter().map(meta).collect()
    }

    fn settings(&self, unit: UnitMeta, places: usize, skipped: &[usize]) -> Settings {
        Settings {
            places,
            skipped: skipped.to_vec(),
            unit,
            judge: Judge {
                rule: Rule::sequential(0.05),
                margin: self.margin,
            },
            order: match self.order {
                Orders::Posterior => Order::Posterior,
                Orders::Seq => Order::Sequential,
                Orders::Spread => Order::Spread,
                Orders::Metric => Order::Metric,
            },
            iterations: self.iterations as usize,
            most_runs: self.max_runs,
            all: self.all,
            scan: self.scan,
        }
    }
}

fn read_plan(directory: &Path) -> anyhow::Result<Plan> {
    let path = directory.join(PLAN);
    let file = File::open(&path)
        .with_context(|| format!("there is no bisection in {}", directory.display()))?;
    serde_json::from_reader(file).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes the directory and writes the plan, all of it or nothing.
fn write_plan(directory: &Path, plan: &Plan) -> anyhow::Result<()> {
    let path = directory.join(PLAN);
    if path.exists() {
        return Err(Usage {
            message: format!("{} has a bisection already", directory.display()),
            hint: Some(format!(
                "--resume {}, or another --dir",
                directory.display()
            )),
        }
        .into());
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot write {}", directory.display()))?;
    let text = serde_json::to_string_pretty(plan)?;
    crate::run::compiler::cache::write(&path, text.as_bytes()).map_err(run::Error::Refused)?;
    Ok(())
}
