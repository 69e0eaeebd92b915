//! `poise escape`: what Go compilers decide about a source, and where two of them, or two revisions of the source, decide otherwise. Decides the exit code; deciding is the compilers', reading it [`crate::run::escape`]'s.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufReader;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::compilers::{self, find, progress};
use super::identity::Identity;
use super::outlet::Outlet;
use super::{Stopped, Usage, exit, options};
use crate::format::pprof;
use crate::report::escape::{Report, Weighed, annotated};
use crate::report::text::Style;
use crate::run;
use crate::run::build::repository::Repository;
use crate::run::compiler::cache::Cache;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::source::{Package, Source};
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Compiler, Language, parallel};
use crate::run::escape::{self, Change, Outcome, Side, Surveyed};
use crate::run::identical::SIDES;
use crate::run::interrupt::Interrupt;

/// Show what escapes to the heap in Go packages, and what two compilers or two revisions decide
/// otherwise
///
/// Packages are compiled by each side with -m and -json, and the decisions of escape analysis that
/// one side has alone are listed by function and line, with the reason that the compiler gives.
/// Lines that moved with an edit count as the same. With the old compiler alone, all that escapes
/// is listed.
///
/// Exit codes: 0 no difference, 3 a difference, 1 some package could not be compiled.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  poise escape --old ~/go1.24 --new ~/go1.27 ./...
  poise escape --old ~/go --old-source HEAD~1 --profile mem.pprof ./...
  poise escape --old ~/go --new ~/go --new-flags=-l strconv
  poise escape --old ~/go --annotate tree.go")]
pub(super) struct Arguments {
    /// The compiler that the other is held against: a GOROOT, a Go compiler, or @NAME of one that
    /// poise identical saved.
    #[arg(long, value_name = "COMPILER")]
    old: String,

    /// The other compiler; the old one again where only flags or sources differ.
    #[arg(long, value_name = "COMPILER")]
    new: Option<String>,

    /// Packages, as go list names them: ./... unless some are named, and with --annotate that of
    /// its file.
    #[arg(value_name = "PACKAGES")]
    packages: Vec<String>,

    /// Flags for both compilers.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    flags: Vec<String>,

    /// Flags for the old compiler alone.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    old_flags: Vec<String>,

    /// Flags for the new compiler alone.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    new_flags: Vec<String>,

    /// Where the packages are: a directory, a GOROOT, or a revision of the git repository here.
    #[arg(long, value_name = "DIR|REV", default_value = ".")]
    source: String,

    /// Where those are that the old compiler compiles.
    #[arg(long, value_name = "DIR|REV")]
    old_source: Option<String>,

    /// Where those are that the new compiler compiles.
    #[arg(long, value_name = "DIR|REV")]
    new_source: Option<String>,

    /// Rank by what this allocation profile saw in the lines: what go test -memprofile leaves.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Print this file with all decisions beside its lines, inlining and checks included; of two
    /// sides only the lines on which they differ.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "profile"])]
    annotate: Option<PathBuf>,

    /// Show so many of each kind; --json has all.
    #[arg(long, value_name = "N", default_value_t = 40)]
    rows: usize,

    /// Packages that are compiled at once; all CPUs otherwise.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,

    /// Give a compilation up after so long (a bare number is seconds).
    #[arg(long, value_name = "TIME", default_value = "600", value_parser = options::patience)]
    timeout: Duration,

    /// Write how much was decided about each package, as records, to FILE.
    #[arg(short = 'o', long = "output-file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,

    /// Print no progress, no remarks, and nothing when nothing differs.
    #[arg(short, long)]
    quiet: bool,

    /// Compile as root although sudo was called by somebody else.
    #[arg(long)]
    as_root: bool,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
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
    let result = arguments.tell(limits);
    // Whatever was wrong then: it was stopped.
    match interrupt.caught() {
        Some(signal) => Err(Stopped(signal).into()),
        None => result,
    }
}

/// Where packages are.
struct Place {
    /// As the user named it.
    named: String,
    /// The toolchain that lists them.
    go: Go,
    /// Where it does; `None` for a GOROOT's own.
    directory: Option<PathBuf>,
    /// What holds the directory, if it is ours.
    checkout: Option<Scratch>,
}

impl Arguments {
    fn tell(&self, limits: Limits<'_>) -> anyhow::Result<u8> {
        let began = Instant::now();
        let outlet = self.file.as_deref().map(Outlet::create).transpose()?;
        let profile = self.profile.as_deref().map(read_profile).transpose()?;
        let flags =
            [&self.old_flags, &self.new_flags].map(|own| compilers::flags(&self.flags, own));
        let [old_flags, new_flags] = flags;
        let flags: [Vec<OsString>; 2] = [old_flags?, new_flags?];
        let old = go(&self.old, limits)?;
        let new = self.new.as_deref().map(|named| go(named, limits));
        let new = new.transpose()?.unwrap_or_else(|| old.clone());
        let all = [old, new];
        let compilers = if self.is_one() { &all[..1] } else { &all[..] };
        let cache = Cache::open().map_err(run::Error::Refused)?;
        if let (Some(doubt), false) = (&cache.doubt, self.quiet) {
            super::remark(&doubt.0);
        }

        let bar = progress(
            self.quiet,
            "export data, which later runs find in the cache",
        );
        let places = self.places(compilers, limits)?;
        // Where each compiler's packages are, among the places.
        let place_of = |side: usize| side.min(places.len() - 1);
        let mut sources: Vec<Source> = Vec::new();
        for place in &places {
            sources.push(self.list(place, &cache, limits)?);
        }
        let jobs = self.jobs.unwrap_or_else(parallel::cpus);
        let mut benches = Vec::new();
        for (side, compiler) in compilers.iter().enumerate() {
            let bench = Workbench::new(&sources[place_of(side)], compiler, &cache, jobs, limits);
            benches.push(bench.map_err(run::Error::Refused)?);
        }
        let annotated_file = self.find_file(&places, &sources)?;
        let sides: Vec<Side<'_>> = (0..compilers.len())
            .map(|side| Side {
                packages: sources[place_of(side)]
                    .wanted()
                    .filter(|package| match &annotated_file {
                        Some((path, _)) => package.path == *path,
                        None => true,
                    })
                    .collect(),
                bench: &benches[side],
                flags: flags[side].clone(),
            })
            .collect();
        bar.set_length(
            sides
                .iter()
                .map(|side| side.packages.len())
                .max()
                .unwrap_or(0) as u64,
        );
        let told = |package: &str| {
            bar.inc(1);
            bar.set_message(package.to_owned());
        };
        let mut surveyed = escape::survey(&sides, jobs, limits, &told);
        bar.finish_and_clear();
        let mut notes = notes(&places, &benches);
        if compilers.len() == 2
            && compilers[0].sha256 != compilers[1].sha256
            && let Some((side, count)) = escape::leave_out_untold(&mut surveyed)
        {
            let (tells, other) = (SIDES[side], SIDES[1 - side]);
            notes.push(format!(
                "left out: what {tells} says of appends ({count}), of which {other} says nothing"
            ));
        }

        let mut changes: Vec<Change> = surveyed.iter().flat_map(Surveyed::changes).collect();
        let weighed = profile.map(|profile| {
            let [all, part] = escape::weigh(&mut changes, &profile);
            Weighed {
                profile: self
                    .profile
                    .as_ref()
                    .map_or_else(String::new, |file| file.display().to_string()),
                period_bytes: profile.period_bytes,
                all,
                part,
            }
        });
        let whos = compilers
            .iter()
            .zip(&flags)
            .map(|(go, flags)| compilers::who(&[(&go.compile, &go.sha256)], &go.version, flags));
        let report = Report {
            compilers: whos.collect(),
            notes,
            surveyed: &surveyed,
            changes: &changes,
            weighed,
            rows: self.rows,
            took: began.elapsed(),
        };
        if let Some(outlet) = outlet {
            let is_stopped = limits.interrupt.caught().is_some();
            outlet.record(report.took, |header| report.records(header, is_stopped))?;
        }
        self.show(&report, annotated_file.as_ref().map(|(_, name)| &**name))
    }

    /// Prints the report and gives the exit code.
    fn show(&self, report: &Report<'_>, annotated_file: Option<&str>) -> anyhow::Result<u8> {
        let style = Style {
            width: super::columns(),
        };
        let is_one = report.compilers.len() == 1;
        let mut differs = !is_one && !report.changes.is_empty();
        let mut text = String::new();
        if let (Some(name), Some(surveyed)) = (annotated_file, report.surveyed.first()) {
            let nothing = escape::File::default();
            let decided = surveyed.sides.iter().map(|outcome| match outcome {
                Outcome::Decided(decided) => Some(decided.0.get(name).unwrap_or(&nothing)),
                Outcome::Missing => Some(&nothing),
                Outcome::Failed(_) => None,
            });
            text = report.heading();
            if let Some(files) = decided.collect::<Option<Vec<_>>>() {
                let (lines, differing) = annotated(&files, style);
                differs = differing;
                text = text + &lines + "\n";
            }
            text += &report.summary();
        } else if !self.json {
            text = report.text(style);
        }
        if self.json {
            super::print(&(serde_json::to_string_pretty(&report.json())? + "\n"))?;
        } else if is_one || differs || !report.is_whole() || !self.quiet {
            super::print(&text)?;
        }
        Ok(match (differs, report.is_whole()) {
            (true, _) => exit::DIFFERENT,
            (false, false) => exit::FAILURE,
            (false, true) => 0,
        })
    }

    /// Whether there is one side only.
    fn is_one(&self) -> bool {
        let flags = [&self.old_flags, &self.new_flags];
        let sources = [&self.old_source, &self.new_source];
        self.new.is_none()
            && flags.iter().all(|flags| flags.is_empty())
            && sources.iter().all(|source| source.is_none())
    }

    /// Where the packages of the compilers are; one place where it is the same for both.
    fn places(&self, compilers: &[Go], limits: Limits<'_>) -> anyhow::Result<Vec<Place>> {
        let named = [&self.old_source, &self.new_source];
        let named = named.map(|own| own.as_ref().unwrap_or(&self.source));
        let is_shared = named[0] == named[1];
        let count = if is_shared { 1 } else { compilers.len() };
        let mut places = Vec::new();
        for (side, named) in named.into_iter().enumerate().take(count) {
            // Its own toolchain first.
            let mut all = compilers[side..].iter().chain(compilers);
            let usual = all.find(|go| go.toolchain.is_some());
            places.push(place(named, usual, limits)?);
        }
        Ok(places)
    }

    fn list(&self, place: &Place, cache: &Cache, limits: Limits<'_>) -> anyhow::Result<Source> {
        let patterns = match (&self.packages[..], &self.annotate) {
            ([], None) => vec!["./...".to_owned()],
            ([], Some(file)) => vec![directory_of(file)],
            (named, _) => named.to_vec(),
        };
        let source = Source::list(
            &place.go,
            &patterns,
            place.directory.as_deref(),
            &[],
            cache,
            limits.for_much(),
        );
        let source = source.map_err(run::Error::Refused)?;
        if let Some(missing) = source.wanted().find(|package| !package.directory.is_dir()) {
            let why = missing.error.clone();
            let message = why.unwrap_or_else(|| format!("no package is called {}", missing.path));
            return Err(Usage::new(message).into());
        }
        // A tree of Go's own source that is no toolchain would be passed over in silence.
        let foreign = source.wanted().find(|package| package.standard);
        if let (Some(package), Some(_), true) = (foreign, &place.directory, place.named != ".") {
            return Err(Usage {
                message: format!(
                    "{} is a package of the toolchain {}, not of {}",
                    package.path, source.go.version, place.named
                ),
                hint: Some(
                    "name a GOROOT as its source: poise build makes one of a revision".to_owned(),
                ),
            }
            .into());
        }
        Ok(source)
    }

    /// The package and the name of the file that is to be annotated, in whichever source has it.
    fn find_file(
        &self,
        places: &[Place],
        sources: &[Source],
    ) -> anyhow::Result<Option<(String, String)>> {
        let Some(file) = &self.annotate else {
            return Ok(None);
        };
        for (place, source) in places.iter().zip(sources) {
            let directory = place.directory.as_deref().unwrap_or(Path::new(""));
            let Ok(path) = fs::canonicalize(directory.join(file)) else {
                continue;
            };
            let has = |package: &&Package| {
                let mut files = package.go_files.iter();
                files.any(|own| fs::canonicalize(own).is_ok_and(|own| own == path))
            };
            if let (Some(package), Some(name)) = (source.wanted().find(has), path.file_name()) {
                let name = name.to_string_lossy().into_owned();
                return Ok(Some((package.path.clone(), name)));
            }
        }
        let named = file.display();
        if !file.exists() {
            return Err(Usage::new(format!("there is no file {named}")).into());
        }
        Err(Usage {
            message: format!("{named} is in none of the packages that are compiled"),
            hint: Some(
                "name its package behind it; tests, and files for other systems, are in none"
                    .to_owned(),
            ),
        }
        .into())
    }
}

/// What holds for all packages.
fn notes(places: &[Place], benches: &[Workbench<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let whose = match (places.len(), benches.len()) {
            (2, _) => format!("{} source", SIDES[at]),
            (_, 2) => "source for both".to_owned(),
            _ => "source".to_owned(),
        };
        let toolchain = place.go.toolchain.as_ref();
        let root = toolchain.map_or(Path::new("?"), |toolchain| &toolchain.root);
        notes.push(format!(
            "{whose}: {} (std of {})",
            match &place.directory {
                Some(directory) if place.checkout.is_none() => directory.display().to_string(),
                Some(_) => place.named.clone(),
                None => root.display().to_string(),
            },
            place.go.version
        ));
    }
    for (bench, side) in benches.iter().zip(SIDES) {
        if let Some(why) = bench.own_exports_because() {
            notes.push(format!("{side} imports what it compiled itself: {why}"));
        }
    }
    notes
}

/// The Go compiler that the user named.
fn go(named: &str, limits: Limits<'_>) -> anyhow::Result<Go> {
    match find(named, Some(Language::Go), limits)? {
        Compiler::Go(go) => Ok(*go),
        _ => Err(Usage::new(format!(
            "{named} is no Go compiler: only those tell what escapes"
        ))
        .into()),
    }
}

/// The place that the user named; `usual` lists the packages where that is no GOROOT.
fn place(named: &str, usual: Option<&Go>, limits: Limits<'_>) -> anyhow::Result<Place> {
    let path = Path::new(named);
    if path.join("bin/go").is_file() {
        return Ok(Place {
            named: named.to_owned(),
            go: Go::in_root(path, limits).map_err(Usage::from)?,
            directory: None,
            checkout: None,
        });
    }
    let go = usual.cloned().ok_or_else(|| Usage {
        message: "the compilers stand alone, without a go command to list packages".to_owned(),
        hint: Some("name the GOROOT whose packages shall be compiled with --source".to_owned()),
    })?;
    if path.is_dir() {
        return Ok(Place {
            named: named.to_owned(),
            go,
            directory: Some(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())),
            checkout: None,
        });
    }
    let mistaken = |why: String| Usage {
        message: format!("{named} is no directory, nor a revision: {why}"),
        hint: None,
    };
    let repository = Repository::open(Path::new("."), limits);
    let repository = repository.map_err(|cause| mistaken(cause.to_string()))?;
    let commit = repository.commit(named, limits);
    let commit = commit.map_err(|cause| mistaken(cause.to_string()))?;
    let prefix = repository.ask(&["rev-parse", "--show-prefix"], limits);
    let prefix = prefix.map_err(run::Error::Refused)?;
    let checkout = Scratch::new().map_err(run::Error::Refused)?;
    let tree = checkout.path().join("tree");
    repository
        .check_out(&commit, &tree, limits)
        .map_err(run::Error::Refused)?;
    let short = commit.id.get(..12).unwrap_or(&commit.id);
    Ok(Place {
        named: format!("{short} {}", commit.subject),
        go,
        directory: Some(tree.join(prefix.trim_end())),
        checkout: Some(checkout),
    })
}

/// The directory of a file, as a pattern of go list.
fn directory_of(file: &Path) -> String {
    let directory = file.parent().unwrap_or(Path::new("")).display();
    match file.is_absolute() {
        true => directory.to_string(),
        false => format!("./{directory}"),
    }
}

fn read_profile(path: &Path) -> anyhow::Result<pprof::Profile> {
    let named = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {named}"))?;
    let profile = pprof::read(BufReader::new(file));
    profile.map_err(|why| {
        anyhow::Error::new(Usage {
            message: format!("{named} is no allocation profile: {why}"),
            hint: Some(
                "go test -memprofile FILE leaves one, and /debug/pprof/allocs is one".to_owned(),
            ),
        })
    })
}
