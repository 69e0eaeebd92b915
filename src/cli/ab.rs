//! `poise ab`: runs commands side by side until it is certain whether something changed. Never compares what was not measured in the same rounds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use sha2::{Digest, Sha256};

use super::Usage;
use super::contest::{Contest, ContestOptions, Rounds};
use super::hold::{MeasureOptions, Stage};
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions};
use super::parts::Parts;
use crate::compare;
use crate::perf::catalog::Catalog;
use crate::run::command::{self, Command, Output};
use crate::run::interrupt::Interrupt;
use crate::run::profiled::{Profile, Profiled, Sought};
use crate::run::{self, Workload, faults, syscalls};
use crate::sample::{Name, Warning};
use crate::sys::perf_event::Target;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "task-clock,minor-faults,context-switches,cycles,instructions,\
                              instructions:u,branch-misses";

/// Compare commands by interleaved runs, until it is certain whether something changed
#[derive(Debug, Args)]
#[command(
    after_help = "Every round runs each variant once, in an order drawn from the seed; the first variant is the \
control. With --gate the exit code is 0 when all chosen units improved or are equivalent, 3 when one \
regressed beyond the margin, 4 when one is undecided."
)]
pub(super) struct Arguments {
    /// The commands, each as one word: 'gcc -O1 -c main.c' 'gcc -O2 -c main.c'.
    #[arg(value_name = "COMMAND")]
    commands: Vec<String>,

    /// The command of --param.
    #[arg(last = true, value_name = "TEMPLATE")]
    template: Vec<String>,

    /// A variant with a name: --variant old='./old --bench'.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = variant)]
    variant: Vec<(String, String)>,

    /// A variant for each value, in the place of {NAME} in the one command behind --.
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = parameter, requires = "template", conflicts_with_all = ["commands", "variant"])]
    param: Option<(String, Vec<String>)>,

    /// Run exactly N rounds instead of as many as a decision takes.
    #[arg(short = 'r', long, visible_alias = "repeat", value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    runs: Option<u64>,

    /// Begin no new round after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    max_time: Option<Duration>,

    /// Run at most N rounds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000), conflicts_with = "runs")]
    max_runs: Option<u64>,

    /// Run N rounds before those that count.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u64,

    /// Run this shell command before every run, uncounted.
    #[arg(long, value_name = "COMMAND")]
    prepare: Option<String>,

    /// End a run after this long, as failed.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Give each command, as one string, to /bin/sh -c.
    #[arg(long)]
    shell: bool,

    /// Profile the syscalls or the page faults of every run, as poise syscalls and poise faults do,
    /// and compare those.
    #[arg(long, value_name = "syscalls|faults", value_enum, hide_possible_values = true, conflicts_with_all = ["event", "name"])]
    profile: Option<ProfileOption>,

    /// Call the benchmark NAME instead of the commands' program.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

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

/// What is profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProfileOption {
    Syscalls,
    Faults,
}

impl ProfileOption {
    /// The unit of the whole that decides unless the user says which.
    fn usual(self) -> &'static str {
        match self {
            ProfileOption::Syscalls => "calls",
            ProfileOption::Faults => "faults",
        }
    }

    /// Which parts are told, and which units of them.
    fn parts(self, facts: [(String, String); 2]) -> Parts {
        match self {
            ProfileOption::Syscalls => {
                Parts::new(&[syscalls::EACH], &["calls", "total-sec"], facts)
            }
            ProfileOption::Faults => Parts::new(
                &["FaultKind", "FaultMapping"],
                &["faults", "handler-sec"],
                facts,
            ),
        }
    }
}

/// One of the things compared.
struct Variant {
    name: String,
    argv: Vec<OsString>,
}

/// What of a variant must not change while it runs: the program's file and its content.
#[derive(PartialEq)]
struct Binary {
    path: PathBuf,
    sha256: String,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let variants = arguments.variants()?;
    let wanted = match arguments.profile {
        None => arguments.events.wanted(DEFAULT_EVENTS)?,
        Some(_) => Catalog::default().parse(faults::EVENTS)?,
    };
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::set(&arguments.hold, &arguments.child, Bound::usual, &interrupt)?;
    let (plan, mut doubts) = options::plan(&wanted, Target::Myself);
    let binaries: Vec<Option<Binary>> = variants
        .iter()
        .map(|variant| Binary::of(&variant.argv[0]))
        .collect::<Result<_, _>>()?;
    doubts.extend(same_program(&variants, &binaries));

    let name = match &arguments.name {
        Some(name) => Name::parse(name),
        None => Name::new(&program_name(&variants)),
    };
    let tick_sec = options::tick_sec(stage.surroundings.cpus.as_ref());
    let profile = arguments.profile.map(|profile| match profile {
        ProfileOption::Syscalls => Profile::new(Sought::Syscalls, &plan),
        ProfileOption::Faults => Profile::new(Sought::Faults, &plan),
    });
    let mut workloads: Vec<Box<dyn Workload + '_>> = Vec::new();
    for variant in &variants {
        let options = command::Options {
            argv: variant.argv.clone(),
            output: Output::Null,
            prepare: arguments.prepare.clone(),
            timeout: arguments.timeout,
            interval: None,
            surroundings: stage.surroundings.clone(),
            ignore_failure: false,
            tick_sec,
        };
        workloads.push(match &profile {
            None => Box::new(Command::new(name.clone(), &variant.name, options, &plan)?),
            Some(profile) => Box::new(Profiled::new(&variant.name, options, profile)?),
        });
    }

    let unchanged = || {
        for (variant, binary) in variants.iter().zip(&binaries) {
            let now = Binary::of(&variant.argv[0]).ok().flatten();
            if now != *binary {
                let name = &variant.name;
                let text = format!("the program of {name} has changed while it was measured");
                return Err(run::Error::Prepare(text));
            }
        }
        Ok(())
    };
    let mut contest = Contest {
        options: &arguments.contest,
        output: &arguments.output,
        seed: options::seed(arguments.seed),
        rounds: match (arguments.runs, arguments.max_runs) {
            (Some(runs), _) => Rounds::Exactly(runs),
            (None, most) => Rounds::AsNeeded(most),
        },
        time: arguments.max_time,
        warmup: arguments.warmup,
        facts: Vec::new(),
        doubts,
        valid: &unchanged,
    };
    let hashes = variants.iter().zip(&binaries);
    let hashes =
        hashes.filter_map(|(variant, binary)| Some((&variant.name, &binary.as_ref()?.sha256)));
    let hashes: BTreeMap<&String, &String> = hashes.collect();
    contest
        .facts
        .push((compare::SHA256.to_owned(), serde_json::to_string(&hashes)?));
    let names: Vec<String> = variants.iter().map(|one| one.name.clone()).collect();
    let facts = contest.of_contest(&names)?;
    let parts = arguments.profile.map(|profile| profile.parts(facts));
    let usual = arguments.profile.map_or("sec/op", ProfileOption::usual);
    contest.run(&[usual], parts, &stage, &mut workloads, &interrupt)
}

impl Arguments {
    fn variants(&self) -> anyhow::Result<Vec<Variant>> {
        let named = |name: String, command: &str| -> anyhow::Result<Variant> {
            let argv = match self.shell {
                true => vec!["/bin/sh".into(), "-c".into(), command.into()],
                false => split(command)?.into_iter().map(OsString::from).collect(),
            };
            Ok(Variant { name, argv })
        };
        let variants: Vec<Variant> = match &self.param {
            Some((key, values)) => {
                let hole = format!("{{{key}}}");
                if !self.template.iter().any(|word| word.contains(&hole)) {
                    let message = format!("{hole} does not stand in the command");
                    return Err(Usage::new(message).into());
                }
                let filled = |value: &String| {
                    let words = self.template.iter().map(|word| word.replace(&hole, value));
                    match self.shell {
                        true => named(
                            format!("{key}={value}"),
                            &words.collect::<Vec<_>>().join(" "),
                        ),
                        false => Ok(Variant {
                            name: format!("{key}={value}"),
                            argv: words.map(OsString::from).collect(),
                        }),
                    }
                };
                values.iter().map(filled).collect::<Result<_, _>>()?
            }
            None => {
                let with_name = self.variant.iter();
                let with_name = with_name.map(|(name, command)| named(name.clone(), command));
                let without = self.commands.iter();
                let without = without.map(|command| named(command.clone(), command));
                with_name.chain(without).collect::<Result<_, _>>()?
            }
        };
        if variants.len() < 2 {
            return Err(Usage {
                message: "it takes two variants to compare".to_owned(),
                hint: Some(
                    "quote each command: poise ab 'gcc -O1 -c x.c' 'gcc -O2 -c x.c'".to_owned(),
                ),
            }
            .into());
        }
        for (at, variant) in variants.iter().enumerate() {
            if variants[..at]
                .iter()
                .any(|other| other.name == variant.name)
            {
                return Err(Usage {
                    message: format!("two variants are called `{}`", variant.name),
                    hint: Some("tell them apart: --variant NAME=COMMAND".to_owned()),
                }
                .into());
            }
        }
        Ok(variants)
    }
}

impl Binary {
    /// The file that `program` is now; nothing when it cannot be read.
    fn of(program: &OsString) -> Result<Option<Binary>, run::Error> {
        let path = command::find_program(program)?;
        let path = PathBuf::from(OsString::from(path.to_string_lossy().into_owned()));
        let Ok(mut file) = File::open(&path) else {
            return Ok(None);
        };
        let mut hash = Sha256::new();
        let mut part = vec![0; 1 << 16];
        loop {
            match file.read(&mut part) {
                Ok(0) => break,
                Ok(read) => hash.update(&part[..read]),
                Err(_) => return Ok(None),
            }
        }
        let digest = hash.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Binary { path, sha256 }))
    }
}

/// Doubts about variants that run the same program with the same arguments.
fn same_program(variants: &[Variant], binaries: &[Option<Binary>]) -> Vec<Warning> {
    let mut doubts = Vec::new();
    for (at, variant) in variants.iter().enumerate() {
        let twin = (0..at).find(|&other| {
            let hash = |at: usize| binaries[at].as_ref().map(|binary| &binary.sha256);
            hash(other).is_some()
                && hash(other) == hash(at)
                && variants[other].argv[1..] == variant.argv[1..]
        });
        if let Some(twin) = twin {
            doubts.push(Warning(format!(
                "{} and {} are the same program, to the byte, with the same arguments",
                variants[twin].name, variant.name
            )));
        }
    }
    doubts
}

/// The name of the program that all variants run, or of the first.
fn program_name(variants: &[Variant]) -> String {
    let first = Path::new(&variants[0].argv[0]);
    let name = first.file_name().unwrap_or(first.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The words of a command, quotes and all, but without a shell's other services.
fn split(command: &str) -> Result<Vec<String>, Usage> {
    let words = shlex::split(command).ok_or_else(|| Usage {
        message: format!("`{command}` has an open quote"),
        hint: None,
    })?;
    match words.is_empty() {
        true => Err(Usage::new("a command is empty")),
        false => Ok(words),
    }
}

fn variant(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err("write NAME=COMMAND".to_owned()),
    }
}

fn parameter(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, values) = variant(text).map_err(|_| "write NAME=VALUE,VALUE".to_owned())?;
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    match values.len() {
        0 | 1 => Err("it takes two values to compare".to_owned()),
        _ => Ok((name, values)),
    }
}
