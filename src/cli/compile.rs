//! `poise compile`: compilers side by side on the same source, until it is certain whether one got better. Never compiles different sources, never goes through `go build`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use regex_lite::Regex;
use tempfile::TempDir;

mod proof;
mod sheets;

use super::contest::{Contest, ContestOptions, Outlets, Rounds};
use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions};
use super::{Stopped, Usage};
use crate::compare;
use crate::run::compilation::{Again, Compilation, Conditions, Jobs, suite};
use crate::run::compiler::cache::{self, Cache};
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::{End, Limits};
use crate::run::compiler::source::{Package, Source};
use crate::run::compiler::template::Template;
use crate::run::compiler::workbench::{self, Workbench};
use crate::run::compiler::{Compiler, Language, parallel};
use crate::run::identical::{Input, Tool};
use crate::run::interrupt::Interrupt;
use crate::run::{self, Workload};
use crate::sample::{Cause, Name, Warning};
use crate::sys::perf_event::Target;
use proof::{Proof, Side};
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

    /// Only the benchmarks that this matches, such as 'Template|XML'.
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

    /// Leave out the second compilation of each sample, and with it allocations and garbage
    /// collections.
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

What is compared stands side by side: in every round each benchmark is compiled by all variants, one after the \
other, in an order drawn from the seed. A benchmark is run no further once all its units that decide are decided \
(--by, and --max-runs). All these comparisons are one family.

The source is that of one toolchain for all variants: to compare each release on its own packages would be to \
compare the packages, too. The compilers are called themselves, with no go command between: PATH, GOFLAGS and the \
go command's cache do not matter, but GOOS, GOARCH and GOEXPERIMENT do.

How far to trust the units, from the most to the least: allocs/op and B/op are counted by the compiler's runtime, \
and depend on the machine by the scheduling of its threads alone (with --flags=-c=1 less so); GC-cycles/op follow from them. \
object-bytes, export-bytes and text-bytes are read from what it wrote. instructions:u/op are counted by the CPU and \
hardly vary. Page faults and peak RSS depend on the kernel as well. Times depend on all that the machine does: hold it.

With --gate the exit code is 0 when all that decides improved or is equivalent, 3 when something regressed beyond the \
margin, 4 when something is undecided. Records that are kept with -o are read by poise compare, and as \
--format gobench by benchstat; phases are benchmarks with /phase=NAME there.";

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Lang {
    Go,
    C,
    Rust,
}

/// One of the compilers compared.
struct Variant {
    name: String,
    compiler: Compiler,
    /// Flags of its own, and those of all.
    flags: Vec<OsString>,
}

/// What is compiled, under one name.
struct Named<T> {
    name: Name,
    what: T,
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
    let cache = Cache::open().map_err(refused)?;
    doubts.extend(cache.doubt.clone());
    let scratch = workbench::scratch().map_err(refused)?;
    let variants = or_stopped(arguments.variants(limits), &interrupt)?;
    doubts.extend(same_compiler(&variants));

    let preparation = Preparation {
        arguments: &arguments,
        variants: &variants,
        cache: &cache,
        scratch: &scratch,
        limits,
        progress: progress(&arguments.output),
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
    let order: Vec<Name> = benchmarks.iter().map(|(name, _)| name.clone()).collect();
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for (name, all) in benchmarks {
        for (variant, jobs) in variants.iter().zip(all) {
            let compilation = Compilation::new(&name, &variant.name, jobs, &conditions, &plan)?;
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
        let language = self.lang.map(|lang| match lang {
            Lang::Go => Language::Go,
            Lang::C => Language::C,
            Lang::Rust => Language::Rust,
        });
        let common = words(&self.flags, "--flags")?;
        let mut variants: Vec<Variant> = Vec::new();
        for (name, command) in &self.variant {
            let (named, own) = split(command);
            let compiler = Compiler::find(&named, language, limits);
            let compiler = compiler.map_err(|cause| {
                mistaken(Cause {
                    why: format!("{name}: {}", cause.why),
                    ..cause
                })
            })?;
            let flags = own.into_iter().map(OsString::from).chain(common.clone());
            variants.push(Variant {
                name: name.clone(),
                flags: flags.collect(),
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

pub(super) fn words(text: &str, option: &str) -> Result<Vec<OsString>, Usage> {
    let words = shlex::split(text);
    let words = words.ok_or_else(|| Usage::new(format!("{option} has an open quote")))?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// All that is needed to make the compilers ready.
struct Preparation<'a> {
    arguments: &'a Arguments,
    variants: &'a [Variant],
    cache: &'a Cache,
    scratch: &'a TempDir,
    limits: Limits<'a>,
    progress: ProgressBar,
}

/// What is to be compiled by all variants, in their order; each has done so once.
struct Prepared {
    benchmarks: Vec<(Name, Vec<Jobs>)>,
    facts: Vec<(String, String)>,
    remarks: Vec<Warning>,
    proofs: Vec<Proof>,
}

impl Preparation<'_> {
    /// Packages of one Go source.
    fn go(&self, first: &Go) -> anyhow::Result<Prepared> {
        let of_source = match &self.arguments.source {
            Some(root) => Some(Go::in_root(root, self.limits).map_err(mistaken)?),
            None => None,
        };
        let of_source = of_source.as_ref().unwrap_or(first);
        let (packages, mut remarks) = self.packages()?;
        let patterns: Vec<String> = packages.iter().map(|input| input.what.clone()).collect();
        self.progress
            .set_message("listing the packages, and building what they import");
        let source =
            Source::list(of_source, &patterns, self.cache, self.limits).map_err(refused)?;
        let mut benches = Vec::new();
        for variant in self.variants {
            let Compiler::Go(go) = &variant.compiler else {
                bail!("{} is no Go compiler", variant.name);
            };
            let bench = Workbench::new(&source, go, self.cache, parallel::cpus(), self.limits);
            let bench = bench.map_err(refused)?;
            if let Some(why) = bench.own_exports_because() {
                remarks.push(Warning(format!(
                    "{} imports export data of its own, of the same source: {why}",
                    variant.name
                )));
            }
            benches.push(bench);
        }
        let inputs = named(&source, packages);
        let tried = self.tried(&inputs, |package, at, stem| {
            if let Some(why) = &package.error {
                return Err(Cause::new(why.clone()));
            }
            let file = |suffix: &str| self.scratch.path().join(format!("{stem}{suffix}"));
            let (output, phases, profile) = (file(".a"), file(".bench"), file(".mem"));
            let job = |option: &str, into: &Path| {
                let mut flag = OsString::from(option);
                flag.push(into);
                let flags: Vec<OsString> = self.variants[at]
                    .flags
                    .iter()
                    .cloned()
                    .chain([flag])
                    .collect();
                let job = benches[at].job(package, &flags, &output, self.limits);
                // Who compiles nothing at all said why at the first trial.
                job.map_err(|cause| match benches[at].own_exports_because() {
                    Some(first) => Cause {
                        why: format!("{}; at first it said: {first}", cause.why),
                        ..cause
                    },
                    None => cause,
                })
            };
            let again = match self.arguments.no_alloc {
                true => None,
                false => {
                    let profiled = job("-memprofile=", &profile)?.invocation;
                    Some(Again::Profiled(profiled, profile))
                }
            };
            Ok(Jobs {
                measured: job("-bench=", &phases)?.invocation,
                output: Some(output.clone()),
                phases: Some(phases),
                again,
            })
        });
        let (benchmarks, failures) = tried?;
        remarks.extend(failures);
        let tools: Vec<Tool<'_>> = benches.iter().map(Tool::Go).collect();
        let proofs = self.proofs(&tools, &inputs, &benchmarks, Input::Package)?;
        Ok(Prepared {
            benchmarks,
            facts: vec![("source".to_owned(), of_source.version.clone())],
            remarks,
            proofs,
        })
    }

    /// The packages to compile, by benchmark; and what is not to be had.
    fn packages(&self) -> anyhow::Result<(Vec<Named<String>>, Vec<Warning>)> {
        let pattern = self.arguments.pattern()?;
        let is_wanted = |name: &str| pattern.as_ref().is_none_or(|one| one.is_match(name));
        if !self.arguments.inputs.is_empty() {
            let all = self.arguments.inputs.iter().map(|path| Named {
                name: Name::new(path),
                what: path.clone(),
            });
            return Ok((all.collect(), Vec::new()));
        }
        let known = suite::PACKAGES.iter().filter(|(name, _)| is_wanted(name));
        let known: Vec<Named<String>> = known
            .map(|(name, path)| Named {
                name: Name::new(name),
                what: (*path).to_owned(),
            })
            .collect();
        let others = suite::OTHERS.iter().filter(|(name, _)| is_wanted(name));
        let missing: Vec<String> = others.map(|(name, why)| format!("{name}: {why}")).collect();
        if known.is_empty() {
            let names = suite::PACKAGES.map(|(name, _)| name).join(", ");
            let message = match missing.is_empty() {
                true => "--run matches no benchmark".to_owned(),
                false => format!("not to be had: {}", missing.join("; ")),
            };
            return Err(Usage {
                message,
                hint: Some(format!("there are {names}")),
            }
            .into());
        }
        // Who asks for all of them does not miss these.
        let missing = missing.into_iter().filter(|_| pattern.is_some());
        let remarks = missing.map(|what| Warning(format!("not to be had: {what}")));
        Ok((known, remarks.collect()))
    }

    /// Files, each made into one object.
    fn others(&self) -> anyhow::Result<Prepared> {
        let templates: Vec<&Template> = self.variants.iter().filter_map(template).collect();
        if self.arguments.inputs.is_empty() {
            return Err(Usage::new("there is no file to compile").into());
        }
        if self.arguments.source.is_some() {
            return Err(Usage::new("--source is for Go compilers").into());
        }
        let mut inputs = Vec::new();
        for file in &self.arguments.inputs {
            let path = Path::new(file);
            if let Err(error) = std::fs::File::open(path) {
                bail!("cannot read {file}: {error}");
            }
            let unfit = |one: &&(&Template, &Variant)| !one.0.takes(path);
            let both: Vec<_> = templates.iter().copied().zip(self.variants).collect();
            if let Some((_, variant)) = both.iter().find(unfit) {
                return Err(Usage::new(format!(
                    "{file} is nothing that {} compiles",
                    variant.name
                ))
                .into());
            }
            inputs.push(Named {
                name: Name::new(file),
                what: path.to_owned(),
            });
        }
        let (benchmarks, remarks) = self.tried(&inputs, |file, at, stem| {
            let (template, flags) = (templates[at], &self.variants[at].flags);
            let output = format!("{stem}.{}", template.output_suffix());
            let job = template.job(file, flags, &self.scratch.path().join(output));
            let again = template.phases.clone();
            Ok(Jobs {
                again: again.map(|pattern| Again::Logged(job.invocation.clone(), pattern)),
                phases: None,
                output: Some(job.output),
                measured: job.invocation,
            })
        })?;
        let tools: Vec<Tool<'_>> = templates.iter().map(|one| Tool::Template(one)).collect();
        let proofs = self.proofs(&tools, &inputs, &benchmarks, |file| Input::File(file))?;
        Ok(Prepared {
            benchmarks,
            facts: Vec::new(),
            remarks,
            proofs,
        })
    }

    /// Whether the outputs for these benchmarks are identical, if that is to be proven.
    fn proofs<'i, T>(
        &self,
        tools: &[Tool<'_>],
        inputs: &'i [Named<T>],
        benchmarks: &[(Name, Vec<Jobs>)],
        input: impl Fn(&'i T) -> Input<'i>,
    ) -> anyhow::Result<Vec<Proof>> {
        if !self.arguments.prove {
            return Ok(Vec::new());
        }
        let sides = self.variants.iter().zip(tools).map(|(variant, tool)| Side {
            name: &variant.name,
            tool: *tool,
            flags: &variant.flags,
        });
        let compiled = |name: &Name| benchmarks.iter().any(|(known, _)| known == name);
        let inputs = inputs.iter().filter(|one| compiled(&one.name));
        let inputs: Vec<(Name, Input<'_>)> = inputs
            .map(|one| (one.name.clone(), input(&one.what)))
            .collect();
        self.progress
            .set_message("proving that the outputs are identical");
        proof::prove(&sides.collect::<Vec<_>>(), &inputs, self.limits).map_err(refused)
    }

    /// The jobs of those inputs that all variants compile; why the others are left out.
    /// Errors: there is none, or we were asked to stop.
    fn tried<T>(
        &self,
        inputs: &[Named<T>],
        jobs: impl Fn(&T, usize, &str) -> Result<Jobs, Cause>,
    ) -> anyhow::Result<(Vec<(Name, Vec<Jobs>)>, Vec<Warning>)> {
        let (mut benchmarks, mut remarks) = (Vec::new(), Vec::new());
        for (number, input) in inputs.iter().enumerate() {
            self.progress
                .set_message(format!("{} for the first time", input.name));
            let tries = self.variants.iter().enumerate().map(|(at, variant)| {
                // Names of one length: the compiler has to keep them.
                let stem = format!("{number:04}-{at:04}");
                let tried = jobs(&input.what, at, &stem).and_then(|made| {
                    let ended = made.measured.run(self.limits)?;
                    match (ended.end, ended.failure()) {
                        (_, None) => Ok(made),
                        (End::Interrupted(_), Some(why)) => Err(Cause::new(why)),
                        (_, Some(why)) => Err(Cause::new(match ended.first_line() {
                            Some(said) => format!("{why}, saying: {said}"),
                            None => why,
                        })),
                    }
                });
                tried.map_err(|cause| Cause {
                    why: format!(
                        "{} cannot compile {}: {}",
                        variant.name, input.name, cause.why
                    ),
                    ..cause
                })
            });
            match tries.collect::<Result<Vec<Jobs>, Cause>>() {
                Ok(made) => benchmarks.push((input.name.clone(), made)),
                Err(cause) => remarks.push(cause),
            }
        }
        match (benchmarks.is_empty(), remarks.first()) {
            (true, Some(first)) => bail!("{first}"),
            _ => {
                let left_out = remarks
                    .iter()
                    .map(|why| Warning(format!("left out: {why}")));
                Ok((benchmarks, left_out.collect()))
            }
        }
    }
}

/// The listed packages with the names of their benchmarks; a pattern of several has one for each.
fn named(source: &Source, asked: Vec<Named<String>>) -> Vec<Named<Package>> {
    let name = |package: &Package| {
        let known = asked.iter().find(|input| input.what == package.path);
        known.map_or_else(|| Name::new(&package.path), |input| input.name.clone())
    };
    let place = |package: &Package| asked.iter().position(|input| input.what == package.path);
    let mut wanted: Vec<&Package> = source.wanted().collect();
    wanted.sort_by_key(|package| place(package).unwrap_or(usize::MAX));
    let inputs = wanted.into_iter().map(|package| Named {
        name: name(package),
        what: package.clone(),
    });
    inputs.collect()
}

fn template(variant: &Variant) -> Option<&Template> {
    match &variant.compiler {
        Compiler::Go(_) => None,
        Compiler::Rustc(one) | Compiler::C(one) | Compiler::Defined(one) => Some(one),
    }
}

/// Facts of the variants for the header: what their programs hold, and what they call themselves.
fn variants_told(variants: &[Variant]) -> anyhow::Result<Vec<(String, String)>> {
    let hashes = variants
        .iter()
        .map(|one| (&*one.name, one.compiler.program().1));
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
            one.compiler.program().1.to_owned(),
            always.get(1..).map(<[String]>::to_vec),
            one.flags.clone(),
        )
    };
    let twin = |(at, variant): (usize, &Variant)| {
        let twin = variants[..at]
            .iter()
            .find(|other| command(other) == command(variant))?;
        Some(Warning(format!(
            "{} and {} are the same compiler, to the byte, with the same flags",
            twin.name, variant.name
        )))
    };
    variants.iter().enumerate().filter_map(twin).collect()
}

/// An error when a compiler is no longer what it was.
fn unchanged(variants: &[Variant]) -> Result<(), run::Error> {
    for variant in variants {
        let (path, hash) = variant.compiler.program();
        if cache::sha256(path).ok().as_deref() != Some(hash) {
            let name = &variant.name;
            let text = format!("the compiler of {name} has changed while it was measured");
            return Err(run::Error::Prepare(text));
        }
    }
    Ok(())
}

/// What the user named is not there, or is not what it should be.
pub(super) fn mistaken(cause: Cause) -> anyhow::Error {
    let Cause { why, cure } = cause;
    anyhow::Error::new(Usage {
        message: why,
        hint: cure,
    })
}

pub(super) fn refused(cause: Cause) -> anyhow::Error {
    run::Error::Refused(cause).into()
}

/// What is done before anything is measured, on a terminal.
fn progress(output: &OutputOptions) -> ProgressBar {
    if output.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
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
