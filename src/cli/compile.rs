//! `poise compile`: compilers side by side on the same source, until it is certain whether one got better. Never compiles different sources, never goes through `go build` but to measure it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use regex_lite::Regex;

mod prepare;
mod proof;
mod sheets;

use super::compilers::{Lang, words};
use super::contest::{Contest, ContestOptions, Outlets, Rounds};
use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions};
use super::{Stopped, Usage};
use crate::compare;
use crate::run::compilation::{Compilation, Conditions};
use crate::run::compiler::cache::{self, Cache};
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::template::Template;
use crate::run::compiler::{Compiler, Language};
use crate::run::interrupt::Interrupt;
use crate::run::{self, Workload};
use crate::sample::{Cause, Name, Warning};
use crate::sys::perf_event::Target;
use prepare::{Preparation, Prepared, spinner};
use sheets::Sheets;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "task-clock,page-faults,major-faults,context-switches,cycles,\
                              instructions,instructions:u,instructions:k,branch-misses";

/// The units that decide unless the user says which; only those that can be had here.
const USUAL_UNITS: [&str; 4] = ["allocs/op", "B/op", "instructions:u/op", "sec/op"];

/// Compare compilers: what they cost, on the same source
#[derive(Debug, Args)]
#[command(
    after_help = "`poise help compile` has the whole manual.",
    after_long_help = MANUAL
)]
pub(super) struct Arguments {
    /// Go packages to compile instead of compilebench's; or the files for all other compilers.
    #[arg(value_name = "PACKAGES|FILES")]
    inputs: Vec<String>,

    /// A compiler with a name: a GOROOT, a compile binary, 'gcc-12 -O2', rustc, or a definition in
    /// a .toml; flags may stand behind it. The first is the control.
    #[arg(long, visible_alias = "compiler", value_name = "NAME=COMPILER", value_parser = variant, required = true)]
    variant: Vec<(String, String)>,

    /// The language, where the compilers' names do not tell it.
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    lang: Option<Lang>,

    /// The GOROOT whose packages are compiled. By default that of the first variant.
    #[arg(long, value_name = "GOROOT")]
    source: Option<PathBuf>,

    /// Only the benchmarks that this matches anywhere, such as 'Template|XML' or '^LinkCompiler$'.
    #[arg(long, value_name = "PATTERN")]
    run: Option<String>,

    /// Pass these to all compilers: --flags='-c=1 -l'.
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    flags: String,

    /// Leave out the second compilation of each sample, and with it allocations, garbage
    /// collections, and the phases of gcc.
    #[arg(long)]
    no_alloc: bool,

    /// Call nothing improved whose output is not proven identical to the control's, as poise
    /// identical proves it.
    #[arg(long)]
    prove: bool,

    /// Run exactly N rounds instead of as many as a decision takes.
    #[arg(short = 'r', long, visible_alias = "repeat", visible_alias = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    runs: Option<u64>,

    /// Begin no new round after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    max_time: Option<Duration>,

    /// Run at most N rounds.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000_000), conflicts_with = "runs")]
    max_runs: u64,

    /// End a compilation after this long, as failed.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = options::duration)]
    timeout: Duration,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    #[command(flatten)]
    contest: ContestOptions,

    #[command(flatten)]
    events: EventOptions,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output: OutputOptions,
}

const MANUAL: &str = "\
A Go compiler compiles packages of one source, as compilebench does and by its names for them: Template, Unicode, \
GoTypes, Compiler, SSA, Flate, GoParser, Reflect, Tar, XML; or those that are named as PACKAGES. Each sample is two \
compilations: one is measured, with -bench for the times of its phases; the other, with -memprofile, counts \
allocations and garbage collections, for that would disturb the measurement. Where a compiler does not understand \
the export data of the source's toolchain, it first makes its own from the same source. All other compilers make \
one object of each of FILES.

With --run, what compilebench links and builds can be had as well: LinkCompiler, LinkWithoutDebugCompiler, \
ExternalLinkCompiler, HelloSize and CmdGoSize link one program of the source, built before by the variant's own \
toolchain and flags, without cgo and without a profile that guides it. The linker tells its phases, and its second run \
counts allocations; ExternalLinkCompiler takes gcc from PATH, and links no runtime/cgo. StdCmd is the go command that \
builds the standard library and all commands, for minutes a run, and takes 2 GB in TMPDIR. For all of them a variant \
must be a whole toolchain, and one of the source's release, for it has to build the source's runtime. With --prove what \
was linked is linked again and compared; StdCmd leaves nothing that could prove it.

What is compared stands side by side: in every round each benchmark is compiled by all variants, one after the \
other, in an order drawn from the seed. A benchmark is run no further once all its units that decide are decided \
(--by, and --max-runs). All these comparisons are one family.

The source is that of one toolchain for all variants: to compare each release on its own packages would be to \
compare the packages, too. The compilers are called themselves, with no go command between but for what links and \
builds: PATH, GOFLAGS and the go command's cache do not matter, but GOOS, GOARCH and GOEXPERIMENT do.

How far to trust the units, from the most to the least: allocs/op and B/op are counted by the compiler's runtime, \
and depend on the machine by the scheduling of its threads alone (with --flags=-c=1 less so); GC-cycles/op follow from them. \
object-bytes, exe-bytes, export-bytes and text-bytes are read from what it wrote. instructions:u/op are counted by the CPU and \
hardly vary. Page faults and peak RSS depend on the kernel as well. Times depend on all that the machine does: hold it.

With --gate the exit code is 0 when all that decides improved or is equivalent, 3 when something regressed beyond the \
margin, 4 when something is undecided. Records that are kept with -o are read by poise compare, and as \
--format gobench by benchstat; phases are benchmarks with /phase=NAME there.";

/// One of the compilers compared.
struct Variant {
    name: String,
    compiler: Compiler,
    /// The linker of a Go toolchain, and its hash.
    linker: Option<(PathBuf, String)>,
    /// Flags of its own, and those of all.
    flags: Vec<OsString>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    arguments.check()?;
    let chosen = arguments.contest.chosen(&USUAL_UNITS)?;
    let wanted = arguments.events.wanted(DEFAULT_EVENTS)?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::set(&arguments.hold, &arguments.child, Bound::usual, &interrupt)?;
    let (plan, mut doubts) = options::plan(&wanted, Target::Myself);
    let outlets = Outlets::create(&arguments.contest)?;
    let limits = Limits {
        timeout: arguments.timeout,
        interrupt: &interrupt,
    };
    let cache = Cache::open().map_err(run::Error::Refused)?;
    doubts.extend(cache.doubt.clone());
    let scratch = Scratch::new().map_err(run::Error::Refused)?;
    let variants = or_stopped(arguments.variants(limits), &interrupt)?;
    doubts.extend(same_compiler(&variants));

    let preparation = Preparation {
        arguments: &arguments,
        variants: &variants,
        cache: &cache,
        scratch: &scratch,
        limits,
        progress: spinner(&arguments.output),
    };
    let prepared = match &variants[0].compiler {
        Compiler::Go(first) => preparation.go(first),
        _ => preparation.others(),
    };
    preparation.progress.finish_and_clear();
    let Prepared {
        benchmarks,
        facts,
        remarks,
        proofs,
    } = or_stopped(prepared, &interrupt)?;
    doubts.extend(remarks);
    let conditions = Conditions {
        surroundings: stage.surroundings.clone(),
        timeout: arguments.timeout,
        tick_sec: options::tick_sec(stage.surroundings.cpus.as_ref()),
    };
    let order: Vec<Name> = benchmarks.iter().map(|one| one.name.clone()).collect();
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for benchmark in benchmarks {
        for (variant, jobs) in variants.iter().zip(benchmark.jobs) {
            let name = &benchmark.name;
            let compilation = Compilation::new(name, &variant.name, jobs, &conditions, &plan)?;
            workloads.push(Box::new(compilation));
        }
    }
    let unchanged = || unchanged(&variants);
    let contest = Contest {
        options: &arguments.contest,
        output: &arguments.output,
        seed: options::seed(arguments.seed),
        rounds: match arguments.runs {
            Some(runs) => Rounds::Exactly(runs),
            None => Rounds::AsNeeded(Some(arguments.max_runs)),
        },
        time: arguments.max_time,
        // Each has compiled each once already.
        warmup: 0,
        facts: [variants_told(&variants)?, facts].concat(),
        doubts,
        valid: &unchanged,
    };
    let names: Vec<String> = variants.iter().map(|one| one.name.clone()).collect();
    let has_events = !arguments.events.event.is_empty();
    let mut sheets = Sheets::new(&chosen, has_events, contest.of_contest(&names)?)?;
    let mut take = |record: &_| sheets.take(record);
    let played = contest.play(&chosen, &stage, &mut workloads, &interrupt, &mut take)?;
    let told = sheets.told(&arguments.contest, &proofs, &order)?;
    contest.show(|| told.text(super::columns()))?;
    contest.tell_failures(&played.stream)?;
    let tally = played.ended?;
    outlets.write(&told.document()?, &told.markdown(), &told.annotations())?;
    Ok(contest.code(&tally, told.gate()))
}

impl Arguments {
    /// What is wrong with them alone, before anything is looked at.
    fn check(&self) -> Result<(), Usage> {
        if self.variant.len() < 2 {
            return Err(Usage {
                message: "it takes two compilers to compare".to_owned(),
                hint: Some(
                    "poise compile --variant old=/usr/lib/go-1.24 --variant new=$HOME/go"
                        .to_owned(),
                ),
            });
        }
        for (at, (name, _)) in self.variant.iter().enumerate() {
            if self.variant[..at].iter().any(|(other, _)| other == name) {
                return Err(Usage::new(format!("two variants are called `{name}`")));
            }
        }
        self.pattern().map(drop)
    }

    fn pattern(&self) -> Result<Option<Regex>, Usage> {
        let read = |text: &String| {
            Regex::new(text).map_err(|error| Usage::new(format!("--run {text}: {error}")))
        };
        self.run.as_ref().map(read).transpose()
    }

    /// Finds the compilers.
    fn variants(&self, limits: Limits<'_>) -> anyhow::Result<Vec<Variant>> {
        let language = self.lang.map(Language::from);
        let common = words(&self.flags)?;
        let mut variants: Vec<Variant> = Vec::new();
        for (name, command) in &self.variant {
            let (named, own) = split(command);
            let compiler = Compiler::find(&named, language, limits);
            let compiler = compiler.map_err(|cause| {
                Usage::from(Cause {
                    why: format!("{name}: {}", cause.why),
                    ..cause
                })
            })?;
            let flags = own.into_iter().map(OsString::from).chain(common.clone());
            variants.push(Variant {
                name: name.clone(),
                flags: flags.collect(),
                linker: linker(&compiler),
                compiler,
            });
        }
        let is_go = |variant: &Variant| matches!(variant.compiler, Compiler::Go(_));
        let first = is_go(&variants[0]);
        if let Some(other) = variants.iter().find(|one| is_go(one) != first) {
            let [a, b] = [&variants[0], other]
                .map(|one| format!("{} ({})", one.name, one.compiler.version()));
            return Err(Usage::new(format!("{a} and {b} do not compile the same")).into());
        }
        Ok(variants)
    }
}

/// A Go compiler may have flags behind it, too; all others take theirs themselves.
fn split(command: &str) -> (String, Vec<String>) {
    let path = Path::new(command);
    let words = shlex::split(command).unwrap_or_default();
    match words.split_first() {
        Some((first, rest)) if !path.exists() && is_goroot(first) => (first.clone(), rest.to_vec()),
        _ => (command.to_owned(), Vec::new()),
    }
}

fn is_goroot(named: &str) -> bool {
    let path = Path::new(named);
    path.is_dir()
        || path
            .file_name()
            .is_some_and(|name| name == "compile" || name == "go")
}

fn linker(compiler: &Compiler) -> Option<(PathBuf, String)> {
    let Compiler::Go(go) = compiler else {
        return None;
    };
    let file = go.toolchain.as_ref()?.tools.join("link");
    let sha256 = cache::sha256(&file).ok()?;
    Some((file, sha256))
}

fn template(variant: &Variant) -> Option<&Template> {
    match &variant.compiler {
        Compiler::Go(_) => None,
        Compiler::Rustc(one) | Compiler::C(one) | Compiler::Defined(one) => Some(one),
    }
}

/// Facts of the variants for the header: what their programs hold, and what they call themselves.
fn variants_told(variants: &[Variant]) -> anyhow::Result<Vec<(String, String)>> {
    // Of who does the work.
    let hashes = variants
        .iter()
        .filter_map(|one| Some((&*one.name, one.compiler.programs().last()?.1)));
    let hashes: BTreeMap<&str, &str> = hashes.collect();
    let versions = variants
        .iter()
        .map(|one| (&*one.name, one.compiler.version()));
    let versions: BTreeMap<&str, &str> = versions.collect();
    Ok(vec![
        (compare::SHA256.to_owned(), serde_json::to_string(&hashes)?),
        (
            compare::COMPILERS.to_owned(),
            serde_json::to_string(&versions)?,
        ),
    ])
}

/// Doubts about variants that are the same compiler with the same flags.
fn same_compiler(variants: &[Variant]) -> Vec<Warning> {
    let command = |one: &Variant| {
        let always = template(one).map(|template| template.name.clone());
        let always = always
            .and_then(|name| shlex::split(&name))
            .unwrap_or_default();
        (
            one.compiler
                .programs()
                .last()
                .map(|(_, sha256)| sha256.to_string()),
            always.get(1..).map(<[String]>::to_vec),
            one.flags.clone(),
        )
    };
    let twin = |(at, variant): (usize, &Variant)| {
        let twin = variants[..at]
            .iter()
            .find(|other| command(other) == command(variant))?;
        let hashes = [twin, variant].map(|one| one.linker.as_ref().map(|(_, sha256)| sha256));
        Some(Warning(format!(
            "{} and {} are the same compiler, to the byte, with the same flags{}",
            twin.name,
            variant.name,
            match hashes {
                [Some(one), Some(other)] if one != other => "; their linkers differ",
                _ => "",
            }
        )))
    };
    variants.iter().enumerate().filter_map(twin).collect()
}

/// An error when a compiler or linker is no longer what it was.
fn unchanged(variants: &[Variant]) -> Result<(), run::Error> {
    for variant in variants {
        let is_same =
            |(path, hash): (&Path, &str)| cache::sha256(path).ok().as_deref() == Some(hash);
        let linker = variant.linker.iter();
        let linker = linker.map(|(path, sha256)| (&**path, &**sha256));
        if !variant
            .compiler
            .programs()
            .into_iter()
            .chain(linker)
            .all(is_same)
        {
            let name = &variant.name;
            let text = format!("a program of {name} has changed while it was measured");
            return Err(run::Error::Prepare(text));
        }
    }
    Ok(())
}

/// The user's wish to stop explains every failure.
pub(super) fn or_stopped<T>(result: anyhow::Result<T>, interrupt: &Interrupt) -> anyhow::Result<T> {
    match (result, interrupt.caught()) {
        (_, Some(signal)) => Err(Stopped(signal).into()),
        (result, None) => result,
    }
}

fn variant(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, compiler)) if !name.is_empty() && !compiler.is_empty() => {
            Ok((name.to_owned(), compiler.to_owned()))
        }
        _ => Err("write NAME=COMPILER".to_owned()),
    }
}
