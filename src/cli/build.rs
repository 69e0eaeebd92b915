//! `poise build`: a project at a revision, built beside the user's checkout. Prints where it is, decides the exit code; building is [`crate::run::build`]'s.

use std::fmt::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::identity::Identity;
use super::{Stopped, Usage, exit, options};
use crate::run;
use crate::run::build::repository::{Commit, Repository};
use crate::run::build::{Allowance, Build, Builds, Kept, Recipe};
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::parallel;
use crate::run::interrupt::Interrupt;
use crate::unit::{Unit, human};

/// Build a project at a git revision, beside your checkout, and print where it is
///
/// Each revision is checked out into a directory of its own under the cache, and built there; your
/// repository is only read. What was built once by the same recipe is kept. A Go source tree is
/// built by its make.bash; anything else takes a --recipe.
///
/// Exit codes: 0 built, 1 a build failed (its log is kept), 5 it could not be tried.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  GOROOT=$(poise build -C ~/go master)
  poise build --recipe 'make -j2' HEAD~3 HEAD
  poise build --prune 5G")]
pub(super) struct Arguments {
    /// Revisions, as git names them.
    #[arg(value_name = "REV", required_unless_present_any = ["list", "prune"])]
    revisions: Vec<String>,

    /// The repository.
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,

    /// How it is built: a command for the shell, run at the top of the checkout.
    #[arg(long, value_name = "COMMAND")]
    recipe: Option<String>,

    /// The GOROOT that make.bash begins with: otherwise $GOROOT_BOOTSTRAP, or that of the go in
    /// $PATH.
    #[arg(long, value_name = "GOROOT", conflicts_with = "recipe")]
    bootstrap: Option<PathBuf>,

    /// Build again what is there.
    #[arg(long)]
    again: bool,

    /// Builds that run at once, those of other poise processes included.
    #[arg(short, long, value_name = "N", default_value = "1")]
    jobs: NonZero<usize>,

    /// Give a build up after so long (a bare number is seconds).
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = options::patience)]
    timeout: Duration,

    /// Afterwards keep at most so much on the disk: what was used longest ago goes.
    #[arg(long, value_name = "SIZE", default_value = "20G", value_parser = size)]
    keep: u64,

    /// List what is kept, and what it takes.
    #[arg(long)]
    list: bool,

    /// Remove what was used longest ago until the rest takes at most SIZE; without it, all.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "0", value_parser = size, conflicts_with_all = ["revisions", "list"])]
    prune: Option<u64>,

    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,

    /// Print no remarks.
    #[arg(short, long)]
    quiet: bool,

    /// Build as root although sudo was called by somebody else.
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
    let builds = Builds::usual().map_err(run::Error::Refused)?;
    if arguments.list {
        super::print(&listed(&builds.list(), arguments.json)?)?;
        return Ok(0);
    }
    if let Some(keep_bytes) = arguments.prune {
        let removed = builds.prune(keep_bytes).map_err(run::Error::Refused)?;
        super::print(&format!("{}\n", pruned(&removed)))?;
        return Ok(0);
    }
    let result = build(arguments, &builds, limits);
    match interrupt.caught() {
        Some(signal) => Err(Stopped(signal).into()),
        None => result,
    }
}

fn build(arguments: &Arguments, builds: &Builds, limits: Limits<'_>) -> anyhow::Result<u8> {
    let repository = Repository::open(&arguments.repository, limits).map_err(Usage::from)?;
    // All of them are found before the first is built.
    let mut wanted: Vec<(&String, Commit, Recipe)> = Vec::new();
    for revision in &arguments.revisions {
        let commit = repository.commit(revision, limits).map_err(Usage::from)?;
        // Two names of one commit are one build.
        if wanted.iter().any(|(_, known, _)| *known == commit) {
            continue;
        }
        let recipe = match &arguments.recipe {
            Some(command) => Recipe::Command(command.clone()),
            None => Recipe::suggested(&repository, &commit, arguments.bootstrap.as_deref(), limits)
                .map_err(Usage::from)?,
        };
        wanted.push((revision, commit, recipe));
    }
    let allowance = Allowance {
        jobs: arguments.jobs,
        again: arguments.again,
        limits,
    };
    let alone = vec![Vec::new(); wanted.len()];
    let built = parallel::in_order(&alone, arguments.jobs, |at| {
        let (_, commit, recipe) = &wanted[at];
        builds.build(&repository, commit, recipe, allowance)
    });
    if let Some(signal) = limits.interrupt.caught() {
        return Err(Stopped(signal).into());
    }
    let built: Vec<Build> = built
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(run::Error::Refused)?;
    let named = wanted.iter().map(|(revision, ..)| revision).zip(&built);
    for (revision, build) in named.clone() {
        if let Some(why) = &build.about.failure {
            super::remark(&failed(revision, build, why));
        } else if !arguments.quiet {
            super::remark(&done(revision, build));
        }
    }
    match arguments.json {
        true => {
            let all: Vec<Value> = named
                .map(|(revision, build)| document(revision, build))
                .collect();
            let whole = json!({ "schema": 1, "tool": concat!("poise ", env!("CARGO_PKG_VERSION")), "builds": all });
            super::print(&(serde_json::to_string_pretty(&whole)? + "\n"))?;
        }
        false => {
            let good = built.iter().filter(|build| build.about.failure.is_none());
            let trees: String = good
                .map(|build| format!("{}\n", build.tree.display()))
                .collect();
            super::print(&trees)?;
        }
    }
    // What was built now is in use and stays.
    let removed = builds.prune(arguments.keep).map_err(run::Error::Refused)?;
    if !removed.is_empty() && !arguments.quiet {
        super::remark(&pruned(&removed));
    }
    let all_good = built.iter().all(|build| build.about.failure.is_none());
    Ok(if all_good { 0 } else { exit::FAILURE })
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn took(build: &Build) -> String {
    humantime::format_duration(Duration::from_secs(build.about.seconds)).to_string()
}

fn done(revision: &str, build: &Build) -> String {
    let (commit, subject) = (short(&build.about.commit), &build.about.subject);
    let how = match build.was_kept {
        true => format!("was built on {}", build.about.finished),
        false => format!("was built in {}", took(build)),
    };
    format!(
        "{revision} ({commit} {subject}) {how}, {}",
        on_disk(build.about.disk_bytes)
    )
}

fn failed(revision: &str, build: &Build, why: &str) -> String {
    let mut text = format!(
        "{revision} ({}) could not be built: {why}",
        short(&build.about.commit)
    );
    if build.was_kept {
        // A String takes all that is written to it.
        let _ = write!(
            text,
            ", on {}; --again tries once more",
            build.about.finished
        );
    }
    for line in build.last_words(5) {
        let _ = write!(text, "\n       | {line}");
    }
    let _ = write!(text, "\n       its log: {}", build.log.display());
    text
}

fn document(revision: &str, build: &Build) -> Value {
    json!({
        "revision": revision,
        "commit": build.about.commit,
        "subject": build.about.subject,
        "recipe": build.about.recipe,
        "outcome": if build.about.failure.is_none() { "built" } else { "failed" },
        "why": build.about.failure,
        "tree": build.about.failure.is_none().then_some(&build.tree),
        "log": build.log,
        "kept": build.was_kept,
        "finished": build.about.finished,
        "seconds": build.about.seconds,
        "disk_bytes": build.about.disk_bytes,
    })
}

fn on_disk(bytes: u64) -> String {
    human(&Unit::named("disk-bytes"), bytes as f64)
}

fn listed(all: &[Kept], as_json: bool) -> anyhow::Result<String> {
    let state = |kept: &Kept| match (&kept.about, kept.in_use) {
        (Some(about), _) if about.failure.is_some() => "failed",
        (Some(_), _) => "built",
        (None, true) => "being built",
        (None, false) => "interrupted",
    };
    if as_json {
        let one = |kept: &Kept| json!({ "path": kept.path, "state": state(kept), "in_use": kept.in_use, "disk_bytes": kept.disk_bytes, "about": kept.about });
        let all: Vec<Value> = all.iter().map(one).collect();
        return Ok(serde_json::to_string_pretty(&json!({ "schema": 1, "kept": all }))? + "\n");
    }
    let mut text = String::new();
    for kept in all {
        let used = humantime::format_rfc3339_seconds(kept.used);
        let what = kept.about.as_ref().map_or(String::new(), |about| {
            format!(
                "{} {} ({})",
                short(&about.commit),
                about.subject,
                about.recipe
            )
        });
        let size = on_disk(kept.disk_bytes);
        let _ = writeln!(
            text,
            "{:11}  {size:>11}  used {used}  {}  {what}",
            state(kept),
            kept.path.display()
        );
    }
    let total = all.iter().map(|kept| kept.disk_bytes).sum();
    let _ = writeln!(text, "{} kept, {}", count(all.len()), on_disk(total));
    Ok(text)
}

fn pruned(removed: &[Kept]) -> String {
    let bytes = removed.iter().map(|kept| kept.disk_bytes).sum();
    format!("removed {}, {}", count(removed.len()), on_disk(bytes))
}

fn count(builds: usize) -> String {
    format!("{builds} {}", if builds == 1 { "build" } else { "builds" })
}

/// A size on the disk: `512M`, `20G`, `5GiB`; a bare number is bytes.
fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size: write 512M or 20G");
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(at);
    let power = match suffix.trim_end_matches("iB").to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << (10 * power)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let check = |text, want: Option<u64>| assert_eq!(size(text).ok(), want, "{text}");
        check("0", Some(0));
        check("512M", Some(512 << 20));
        check("5GiB", Some(5 << 30));
        check("1t", Some(1 << 40));
        check("", None);
        check("G", None);
        check("5X", None);
        check("99999999999T", None);
    }
}
