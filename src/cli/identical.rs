//! `poise identical`: whether two compilers make the same of the same inputs, and where they first do not. Decides the exit code; the proof is [`crate::run::identical`]'s.

use std::ffi::OsString;
use std::fmt::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::compilers::{self, Lang, find, flags, progress};
use super::identity::Identity;
use super::outlet::Outlet;
use super::{Stopped, Usage, exit, options};
use crate::report::identical::{Report, Who};
use crate::report::text::Style;
use crate::run;
use crate::run::compiler::cache::Cache;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::saved::{MARK, Shelf};
use crate::run::compiler::source::Source;
use crate::run::compiler::template::Template;
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Compiler, Language, parallel};
use crate::run::identical::{self, Compared, Input, Outcome, Pair, Rule, Tool, Verdict};
use crate::run::interrupt::Interrupt;

/// Prove that two compilers make the same of the same inputs, or show where they first do not
///
/// Every input is compiled twice by each compiler, so that one that varies by itself is told from
/// one that changed. For Go the inputs are packages: the whole standard library unless some are
/// named, both compilers on the same source. For other compilers they are files.
///
/// Exit codes: 0 identical, 3 different, 4 nondeterministic, 1 not proven (something could not be
/// compiled).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  poise identical --old ~/go-before --new ~/go-after
  poise identical --old ~/go --new ~/go --new-flags=-N strconv fmt
  poise identical --save clean ~/go && poise identical --old @clean --new ~/go
  poise identical --old 'gcc-12 -O1' --new 'gcc-12 -O2' *.c")]
pub(super) struct Arguments {
    /// The compiler that is held to be right: a GOROOT, a Go compiler, @NAME of a saved one, the
    /// command of any other (gcc-12, 'clang -O2', rustc), or its definition in a .toml file.
    #[arg(long, value_name = "COMPILER", required_unless_present_any = ["list_rules", "saved", "save", "restore"])]
    old: Option<String>,

    /// The compiler that is held against it.
    #[arg(long, value_name = "COMPILER", required_unless_present_any = ["list_rules", "saved", "save", "restore"])]
    new: Option<String>,

    /// Packages or files; a GOROOT for --save and --restore.
    #[arg(value_name = "PACKAGES|FILES")]
    inputs: Vec<String>,

    /// Flags for both compilers.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    flags: Vec<String>,

    /// Flags for the old compiler alone.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    old_flags: Vec<String>,

    /// Flags for the new compiler alone.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    new_flags: Vec<String>,

    /// The language, where the compilers' names do not tell it.
    #[arg(
        long,
        value_enum,
        value_name = "go|c|rust",
        hide_possible_values = true
    )]
    lang: Option<Lang>,

    /// The GOROOT whose packages both compile: that of the old compiler, unless it has none.
    #[arg(long, value_name = "GOROOT")]
    source: Option<PathBuf>,

    /// Inputs that are compiled at once; all CPUs otherwise.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,

    /// Give a compilation up after so long (a bare number is seconds).
    #[arg(long, value_name = "TIME", default_value = "600", value_parser = options::patience)]
    timeout: Duration,

    /// How many of the inputs that differ are shown in assembly.
    #[arg(long, value_name = "N", default_value_t = 1)]
    explain: usize,

    /// Pass over nothing: apply no rule of normalisation.
    #[arg(long)]
    strict: bool,

    /// List the rules of normalisation.
    #[arg(long)]
    list_rules: bool,

    /// Keep the compiler of a GOROOT under this name, to be named @NAME later.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["old", "new", "restore", "saved"])]
    save: Option<String>,

    /// List what --save has kept, and where.
    #[arg(long)]
    saved: bool,

    /// Put a saved compiler back to where it was, or into another GOROOT.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["old", "new"])]
    restore: Option<String>,

    /// Write the result as records to FILE.
    #[arg(short = 'o', long = "output-file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,

    /// Print no progress, no remarks, and nothing when all is identical.
    #[arg(short, long)]
    quiet: bool,

    /// Compile as root although sudo was called by somebody else.
    #[arg(long)]
    as_root: bool,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.list_rules {
        super::print(&rules())?;
        return Ok(0);
    }
    let identity = Identity::look(arguments.as_root)?;
    identity.settle()?;
    if !arguments.quiet {
        identity.remark();
    }
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let limits = Limits {
        timeout: arguments.timeout,
        interrupt: &interrupt,
    };
    let shelf = || Shelf::usual().map_err(run::Error::Refused);
    if arguments.saved {
        super::print(&listed(&shelf()?))?;
        return Ok(0);
    }
    if let Some(name) = &arguments.save {
        return save(&shelf()?, name, &arguments.inputs, limits);
    }
    if let Some(name) = &arguments.restore {
        return restore(&shelf()?, name, &arguments.inputs, limits);
    }
    let result = compare(arguments, limits);
    // Whatever was wrong then: it was stopped.
    match interrupt.caught() {
        Some(signal) => Err(Stopped(signal).into()),
        None => result,
    }
}

/// The named compilers, and the words by which they are told.
fn compare(arguments: &Arguments, limits: Limits<'_>) -> anyhow::Result<u8> {
    let named = [&arguments.old, &arguments.new].map(|one| one.as_deref().unwrap_or_default());
    let outlet = arguments.file.as_deref().map(Outlet::create).transpose()?;
    let language = arguments.lang.map(Language::from);
    let [old, new] = [
        find(named[0], language, limits)?,
        find(named[1], language, limits)?,
    ];
    let flags =
        [&arguments.old_flags, &arguments.new_flags].map(|own| flags(&arguments.flags, own));
    let [old_flags, new_flags] = flags;
    let job = Job {
        arguments,
        limits,
        flags: [old_flags?, new_flags?],
        jobs: arguments.jobs.unwrap_or_else(parallel::cpus),
    };
    let compilers = [(&old, &job.flags[0]), (&new, &job.flags[1])]
        .map(|(one, flags)| compilers::who(&one.programs(), one.version(), flags));
    match (&old, &new) {
        (Compiler::Go(old), Compiler::Go(new)) => job.packages([old, new], compilers, outlet),
        (Compiler::Go(_), _) | (_, Compiler::Go(_)) => {
            let message = "one compiler is Go's and the other is not: nothing that both compile";
            Err(Usage::new(message).into())
        }
        (
            Compiler::C(old) | Compiler::Rustc(old) | Compiler::Defined(old),
            Compiler::C(new) | Compiler::Rustc(new) | Compiler::Defined(new),
        ) => job.files([old, new], compilers, outlet),
    }
}

/// What the options say, once they are understood.
struct Job<'a> {
    arguments: &'a Arguments,
    limits: Limits<'a>,
    flags: [Vec<OsString>; 2],
    jobs: NonZero<usize>,
}

impl Job<'_> {
    fn packages(
        &self,
        compilers: [&Go; 2],
        who: [Who; 2],
        outlet: Option<Outlet>,
    ) -> anyhow::Result<u8> {
        let began = Instant::now();
        let home = match &self.arguments.source {
            Some(root) => Some(Go::in_root(root, self.limits).map_err(Usage::from)?),
            None => compilers
                .into_iter()
                .find(|go| go.toolchain.is_some())
                .cloned(),
        };
        let home = home.ok_or_else(|| Usage {
            message: "both compilers stand alone, without packages to compile".to_owned(),
            hint: Some("name the GOROOT whose packages shall be compiled with --source".to_owned()),
        })?;
        let cache = Cache::open().map_err(run::Error::Refused)?;
        if let (Some(doubt), false) = (&cache.doubt, self.arguments.quiet) {
            super::remark(&doubt.0);
        }
        let whole = ["std".to_owned()];
        let patterns = match &self.arguments.inputs[..] {
            [] => &whole[..],
            patterns => patterns,
        };
        let progress = progress(
            self.arguments.quiet,
            "export data, which later runs find in the cache",
        );
        let source = Source::list(&home, patterns, None, &[], &cache, self.limits.for_much())
            .map_err(run::Error::Refused)?;
        if let Some(missing) = source.wanted().find(|package| !package.directory.is_dir()) {
            let why = missing.error.clone();
            let message = why.unwrap_or_else(|| format!("no package is called {}", missing.path));
            return Err(Usage::new(message).into());
        }
        let bench = |go| Workbench::new(&source, go, &cache, self.jobs, self.limits);
        let [old, new] = [bench(compilers[0]), bench(compilers[1])];
        let benches = [
            old.map_err(run::Error::Refused)?,
            new.map_err(run::Error::Refused)?,
        ];
        progress.finish_and_clear();
        let root = home.toolchain().map_err(Usage::from)?;
        let mut notes = vec![format!(
            "source for both: {} of {}",
            root.root.display(),
            home.version
        )];
        for (bench, side) in benches.iter().zip(identical::SIDES) {
            if let Some(why) = bench.own_exports_because() {
                notes.push(format!("{side} imports what it compiled itself: {why}"));
            }
        }
        let tools = [Tool::Go(&benches[0]), Tool::Go(&benches[1])];
        let inputs: Vec<Input<'_>> = source.wanted().map(Input::Package).collect();
        self.prove(tools, &inputs, (who, notes, began), outlet)
    }

    fn files(
        &self,
        templates: [&Template; 2],
        who: [Who; 2],
        outlet: Option<Outlet>,
    ) -> anyhow::Result<u8> {
        let files: Vec<&Path> = self.arguments.inputs.iter().map(Path::new).collect();
        if files.is_empty() {
            return Err(Usage::new("which files shall be compiled?").into());
        }
        for file in &files {
            if !file.is_file() {
                return Err(Usage::new(format!("there is no file {}", file.display())).into());
            }
            if let Some(template) = templates.iter().find(|template| !template.takes(file)) {
                let (name, file) = (&template.name, file.display());
                return Err(
                    Usage::new(format!("{name} does not compile files such as {file}")).into(),
                );
            }
        }
        let inputs: Vec<Input<'_>> = files.into_iter().map(Input::File).collect();
        let tools = templates.map(Tool::Template);
        self.prove(tools, &inputs, (who, Vec::new(), Instant::now()), outlet)
    }

    fn prove(
        &self,
        tools: [Tool<'_>; 2],
        inputs: &[Input<'_>],
        (compilers, notes, began): ([Who; 2], Vec<String>, Instant),
        outlet: Option<Outlet>,
    ) -> anyhow::Result<u8> {
        let rules: &[Rule] = if self.arguments.strict {
            &[]
        } else {
            &Rule::ALL
        };
        let pair = Pair {
            tools,
            flags: self.flags.clone(),
            rules: rules.to_vec(),
            limits: self.limits,
        };
        let progress = progress(self.arguments.quiet, "");
        progress.set_length(inputs.len() as u64);
        let told = |one: &Compared| {
            progress.inc(1);
            progress.set_message(one.input.clone());
        };
        let results = identical::prove(&pair, inputs, self.jobs, &told);
        let differing = (0..).zip(&results).filter(|(_, one)| {
            let outcome = &one.outcome;
            matches!(
                outcome,
                Outcome::Differs(_) | Outcome::Nondeterministic { .. }
            )
        });
        let explained = differing
            .take(self.arguments.explain)
            .map(|(at, one)| {
                let listing = pair.explain(&inputs[at], &one.outcome);
                (at, listing.map_err(|cause| cause.to_string()))
            })
            .collect();
        progress.finish_and_clear();
        let report = Report {
            compilers,
            notes,
            rules,
            results: &results,
            explained,
            took: began.elapsed(),
        };
        if let Some(outlet) = outlet {
            outlet.record(report.took, |header| report.records(header))?;
        }
        let verdict = Verdict::of(&results);
        if self.arguments.json {
            super::print(&(serde_json::to_string_pretty(&report.json())? + "\n"))?;
        } else if !(self.arguments.quiet && verdict == Verdict::Identical) {
            let style = Style {
                width: super::columns(),
            };
            super::print(&report.text(style))?;
        }
        Ok(match verdict {
            Verdict::Identical => 0,
            Verdict::Unproven => exit::FAILURE,
            Verdict::Nondeterministic => exit::NONDETERMINISTIC,
            Verdict::Different => exit::DIFFERENT,
        })
    }
}

fn rules() -> String {
    let mut text = "Passed over, and told, where outputs differ only in this:\n".to_owned();
    for rule in Rule::ALL {
        // A String takes all that is written to it.
        let _ = writeln!(text, "  {:<14}  {}", rule.name(), rule.about());
    }
    text.push_str("\nThe same for both from the start:\n");
    for held in Rule::HELD {
        let _ = writeln!(text, "  {held}");
    }
    text
}

fn one_root(inputs: &[String], what: &str) -> anyhow::Result<Option<PathBuf>> {
    match inputs {
        [] => Ok(None),
        [root] => Ok(Some(root.into())),
        _ => Err(Usage::new(format!("{what} takes one GOROOT")).into()),
    }
}

fn save(shelf: &Shelf, name: &str, inputs: &[String], limits: Limits<'_>) -> anyhow::Result<u8> {
    let root = one_root(inputs, "--save")?.ok_or_else(|| Usage {
        message: "of which GOROOT shall the compiler be saved?".to_owned(),
        hint: Some(format!("poise identical --save {name} GOROOT")),
    })?;
    let compiler = Compiler::find(&root.to_string_lossy(), None, limits).map_err(Usage::from)?;
    let saved = shelf.save(name, &compiler).map_err(Usage::from)?;
    let files: Vec<_> = saved.files.iter().map(|file| &*file.name).collect();
    super::print(&format!(
        "saved {} of {} as {MARK}{name} in {}\n",
        files.join(", "),
        saved.version,
        shelf.directory(name).display()
    ))?;
    Ok(0)
}

fn restore(shelf: &Shelf, name: &str, inputs: &[String], limits: Limits<'_>) -> anyhow::Result<u8> {
    let to = one_root(inputs, "--restore")?;
    let to = to
        .map(|root| Go::in_root(&root, limits))
        .transpose()
        .map_err(Usage::from)?;
    let restored = shelf
        .restore(name, to.as_ref())
        .map_err(run::Error::Refused)?;
    for file in restored {
        super::print(&format!("restored {}\n", file.display()))?;
    }
    Ok(0)
}

fn listed(shelf: &Shelf) -> String {
    let mut text = String::new();
    for saved in shelf.list() {
        let from = saved
            .root
            .as_deref()
            .or(saved.files.first().map(|file| &*file.origin));
        let from = from.unwrap_or(Path::new("?")).display();
        let directory = shelf.directory(&saved.name);
        let (name, version, when) = (&saved.name, &saved.version, &saved.saved);
        let _ = writeln!(
            text,
            "{MARK}{name}  {version}  saved {when} from {from} in {}",
            directory.display()
        );
    }
    text
}
