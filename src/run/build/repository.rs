//! A git repository as a source of revisions: read by the `git` program, never written. Not an index is refreshed, not a worktree registered, not a reference made.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::run::compiler::cache::{self, unwritable};
use crate::run::compiler::inherited;
use crate::run::compiler::invocation::{Ended, Invocation, Limits, Words};
use crate::run::compiler::scratch::Scratch;
use crate::sample::Cause;

/// Somebody's repository, with a checkout or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Where the user named it.
    path: PathBuf,
    /// The directory of its objects.
    objects: PathBuf,
    /// How its objects are named: `sha1`.
    format: String,
}

/// A commit, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its whole name, in hexadecimal digits.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

/// Variables that point git at a repository, as in a hook; those of its configuration may stay.
fn points_elsewhere(key: &str) -> bool {
    key.starts_with("GIT_") && !key.starts_with("GIT_CONFIG") && key != "GIT_EXEC_PATH"
}

/// The user's environment without what points git at a repository.
pub(super) fn environment() -> Vec<(OsString, OsString)> {
    let all = inherited().into_iter();
    all.filter(|(key, _)| !points_elsewhere(&key.to_string_lossy()))
        .collect()
}

fn git(arguments: &[&str], directory: &Path) -> Invocation {
    let calm = [
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("LC_ALL", "C"),
    ];
    let calm = calm.map(|(key, value)| (key.into(), value.into()));
    Invocation {
        program: "git".into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: environment().into_iter().chain(calm).collect(),
        directory: Some(directory.to_owned()),
        ..Invocation::default()
    }
}

/// What git says, which must succeed; its complaints are the cause when it does not.
fn ask(arguments: &[&str], directory: &Path, limits: Limits<'_>) -> Result<String, Cause> {
    let scratch = Scratch::new()?;
    let output = scratch.path().join("output");
    let invocation = Invocation {
        words: Words::OutputTo(output.clone()),
        ..git(arguments, directory)
    };
    let ended = invocation.run(limits).map_err(needs_git)?;
    match ended.failure() {
        Some(why) => {
            let cause = Cause::new(complaint(&ended, &why));
            Err(match cause.why.contains("dubious ownership") {
                true => {
                    cause.cure("it is another user's: git config --global --add safe.directory DIR")
                }
                false => cause,
            })
        }
        None => fs::read_to_string(&output)
            .map_err(|error| Cause::new(format!("cannot read what git said: {error}"))),
    }
}

fn needs_git(cause: Cause) -> Cause {
    match cause.why.contains("No such file") {
        true => Cause::new("there is no git program").cure("install git"),
        false => cause,
    }
}

fn complaint(ended: &Ended, why: &str) -> String {
    let text = ended.text();
    let line = text
        .lines()
        .find(|line| line.starts_with("fatal: ") || line.starts_with("error: "));
    let line = line.or_else(|| text.lines().next()).unwrap_or(why);
    let line = line
        .trim_start_matches("fatal: ")
        .trim_start_matches("error: ");
    format!("git: {line}")
}

impl Repository {
    /// The repository that `path` is in.
    ///
    /// Errors: there is none, or git refuses it.
    pub fn open(path: &Path, limits: Limits<'_>) -> Result<Repository, Cause> {
        if !path.is_dir() {
            return Err(Cause::new(format!(
                "there is no directory {}",
                path.display()
            )));
        }
        let asked = ["rev-parse", "--git-path", "objects", "--show-object-format"];
        let said = ask(&asked, path, limits)?;
        let mut lines = said.lines();
        let (Some(objects), Some(format)) = (lines.next(), lines.next()) else {
            return Err(Cause::new("git does not tell where its objects are"));
        };
        let objects = fs::canonicalize(path.join(objects))
            .map_err(|error| Cause::new(format!("cannot find the objects {objects}: {error}")))?;
        Ok(Repository {
            path: path.to_owned(),
            objects,
            format: format.to_owned(),
        })
    }

    /// What git says in this repository to these arguments, which must change nothing in it.
    ///
    /// Errors: git fails; its first complaint.
    pub fn ask(&self, arguments: &[&str], limits: Limits<'_>) -> Result<String, Cause> {
        ask(arguments, &self.path, limits)
    }

    /// The commit that a revision means.
    pub fn commit(&self, revision: &str, limits: Limits<'_>) -> Result<Commit, Cause> {
        let peeled = format!("{revision}^{{commit}}");
        let asked = [
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
            &peeled,
        ];
        let id = ask(&asked, &self.path, limits).map_err(|_| {
            Cause::new(format!(
                "no commit is called {revision} in {}",
                self.path.display()
            ))
        })?;
        let id = id.trim().to_owned();
        let subject = ask(
            &[
                "show",
                "--no-patch",
                "--no-show-signature",
                "--format=%s",
                &id,
            ],
            &self.path,
            limits,
        )?;
        Ok(Commit {
            subject: subject.lines().next().unwrap_or_default().to_owned(),
            id,
        })
    }

    /// Whether the commit has a file at this path.
    pub fn has(&self, commit: &Commit, file: &str, limits: Limits<'_>) -> bool {
        let object = format!("{}:{file}", commit.id);
        ask(&["cat-file", "-e", &object], &self.path, limits).is_ok()
    }

    /// Checks the commit out into `tree`, which is made: a repository of its own, which borrows the
    /// objects of this one and leaves no trace in it.
    pub fn check_out(&self, commit: &Commit, tree: &Path, limits: Limits<'_>) -> Result<(), Cause> {
        fs::create_dir_all(tree).map_err(|error| unwritable(tree, &error))?;
        let format = format!("--object-format={}", self.format);
        ask(&["init", "--quiet", "--template=", &format], tree, limits)?;
        let borrowed = [self.objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        let information = tree.join(".git/objects/info");
        fs::create_dir_all(&information).map_err(|error| unwritable(&information, &error))?;
        cache::write(&information.join("alternates"), &borrowed)?;
        let asked = [
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "advice.detachedHead=false",
            "checkout",
            "--quiet",
            "--force",
            "--detach",
            &commit.id,
        ];
        ask(&asked, tree, limits).map(drop)
    }
}
