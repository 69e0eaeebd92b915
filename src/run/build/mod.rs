//! Projects built at a revision, each in a checkout of its own, and kept by commit and recipe. The user's repository is only read; a build that fails is a fact with its log, and one that was interrupted leaves nothing that is taken for a build.
//!
//! ```text
//! <cache>/builds/<commit>-<recipe>/tree     the checkout, built
//!                                  log      all that the recipe said
//!                                  about    what came of it; written last
//!                                  lock     held while it is built or used
//! ```

pub mod repository;
mod room;

use std::ffi::OsString;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::run::compiler::cache::{self, cache_home, unwritable};
use crate::run::compiler::invocation::{End, Invocation, Limits, Words};
use crate::sample::Cause;
use repository::{Commit, Repository};
use room::Room;

/// How a project is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Go's own `src/make.bash`.
    MakeBash {
        /// The GOROOT that builds the first compiler.
        bootstrap: PathBuf,
    },
    /// A command for the shell, run at the top of the checkout.
    Command(String),
}

/// The place where builds are kept.
#[derive(Clone, Debug)]
pub struct Builds {
    root: PathBuf,
}

/// What a build may take.
#[derive(Clone, Copy)]
pub struct Allowance<'a> {
    /// Builds that run at once, those of other processes included.
    pub jobs: NonZero<usize>,
    /// Whether one that is there, built or failed, is built again.
    pub again: bool,
    /// When it is given up.
    pub limits: Limits<'a>,
}

/// A build that is there. Nobody removes it while this lives.
#[derive(Clone, Debug)]
pub struct Build {
    /// The checkout.
    pub tree: PathBuf,
    /// All that the recipe said.
    pub log: PathBuf,
    /// What came of it.
    pub about: About,
    /// Whether it was there already.
    pub was_kept: bool,
    _room: Room,
}

/// What came of a build, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The commit.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// The recipe in words.
    pub recipe: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// When it was finished, RFC 3339 in UTC.
    pub finished: String,
    /// How long it took.
    pub seconds: u64,
    /// What it takes on the disk.
    pub disk_bytes: u64,
}

/// One entry of the place, for who lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its directory.
    pub path: PathBuf,
    /// What came of it; `None` while it is built, or when that was interrupted.
    pub about: Option<About>,
    /// Whether somebody builds or uses it now.
    pub in_use: bool,
    /// When it was built or used last.
    pub used: SystemTime,
    /// What it takes on the disk.
    pub disk_bytes: u64,
}

const ABOUT: &str = "about";

impl Recipe {
    /// The recipe that a commit of this repository suggests: `make.bash` where it has one.
    ///
    /// Errors: it suggests none, or there is no Go toolchain to begin with.
    pub fn suggested(
        repository: &Repository,
        commit: &Commit,
        bootstrap: Option<&Path>,
        limits: Limits<'_>,
    ) -> Result<Recipe, Cause> {
        if !repository.has(commit, "src/make.bash", limits) {
            let cause =
                Cause::new("it has no src/make.bash, and how else it is built is not known");
            return Err(cause.cure("say how with --recipe, such as --recipe 'make -j2'"));
        }
        let bootstrap = match bootstrap {
            Some(root) => root.to_owned(),
            None => bootstrap_root(limits)?,
        };
        let bootstrap = fs::canonicalize(&bootstrap).unwrap_or(bootstrap);
        match bootstrap.join("bin/go").is_file() {
            true => Ok(Recipe::MakeBash { bootstrap }),
            false => Err(Cause::new(format!(
                "{} is no GOROOT to begin with: it has no bin/go",
                bootstrap.display()
            ))
            .cure("set GOROOT_BOOTSTRAP to an installed Go")),
        }
    }

    /// The recipe in words; builds of one commit by the same words are the same.
    pub fn words(&self) -> &str {
        match self {
            Recipe::MakeBash { .. } => "make.bash",
            Recipe::Command(command) => command,
        }
    }

    fn invocation(&self, tree: &Path) -> Invocation {
        let users = repository::environment();
        match self {
            Recipe::Command(command) => Invocation {
                program: "/bin/sh".into(),
                arguments: vec!["-c".into(), command.into()],
                environment: users,
                directory: Some(tree.to_owned()),
                ..Invocation::default()
            },
            Recipe::MakeBash { bootstrap } => {
                let set = [
                    ("GOROOT_BOOTSTRAP", bootstrap.clone().into_os_string()),
                    ("GOTOOLCHAIN", "local".into()),
                    ("GOENV", "off".into()),
                    ("GOFLAGS", "".into()),
                    ("GOPROXY", "off".into()),
                ]
                .map(|(key, value)| (OsString::from(key), value));
                // GOOS, GOARCH and GOROOT would have it build for or from somewhere else.
                let users = users.into_iter();
                let users = users.filter(|(key, _)| !key.to_string_lossy().starts_with("GO"));
                Invocation {
                    program: "bash".into(),
                    arguments: vec!["./make.bash".into()],
                    environment: users.chain(set).collect(),
                    directory: Some(tree.join("src")),
                    ..Invocation::default()
                }
            }
        }
    }
}

/// The GOROOT that make.bash begins with: `$GOROOT_BOOTSTRAP`, or that of the `go` in `$PATH`.
fn bootstrap_root(limits: Limits<'_>) -> Result<PathBuf, Cause> {
    if let Some(root) = std::env::var_os("GOROOT_BOOTSTRAP").filter(|root| !root.is_empty()) {
        return Ok(root.into());
    }
    let asked = Invocation {
        program: "go".into(),
        arguments: vec!["env".into(), "GOROOT".into()],
        environment: std::env::vars_os()
            .chain([("GOTOOLCHAIN".into(), "local".into())])
            .collect(),
        ..Invocation::default()
    };
    let none = || {
        Cause::new("make.bash needs an installed Go to begin with, and none is in $PATH")
            .cure("set GOROOT_BOOTSTRAP to one")
    };
    let ended = asked.run(limits).map_err(|_| none())?;
    match (ended.failure(), ended.first_line()) {
        (None, Some(root)) => Ok(root.into()),
        _ => Err(none()),
    }
}

impl Builds {
    /// The user's: `$XDG_CACHE_HOME/counterpoise/builds`.
    ///
    /// Errors: neither that variable nor HOME is set.
    pub fn usual() -> Result<Builds, Cause> {
        let home = cache_home(|key| std::env::var_os(key)).ok_or_else(|| {
            Cause::new("there is no place for builds").cure("set HOME or XDG_CACHE_HOME")
        })?;
        Ok(Builds::at(home.join("builds")))
    }

    /// One in this directory.
    pub fn at(root: PathBuf) -> Builds {
        Builds { root }
    }

    /// The commit built by the recipe: as it is kept, or built now.
    ///
    /// Errors: it could not be tried, for want of room or of the commit, or was stopped. A recipe
    /// that fails is no error: [`About::failure`] tells.
    pub fn build(
        &self,
        repository: &Repository,
        commit: &Commit,
        recipe: &Recipe,
        allowance: Allowance<'_>,
    ) -> Result<Build, Cause> {
        let hash = cache::hex(&Sha256::digest(recipe.words()));
        let short = |text: &str, digits| text.get(..digits).unwrap_or(text).to_owned();
        let name = format!("{}-{}", short(&commit.id, 12), short(&hash, 8));
        let kept = |path: &Path| {
            about(path).filter(|about| {
                !allowance.again && about.commit == commit.id && about.recipe == recipe.words()
            })
        };
        let path = self.root.join(name);
        let interrupt = allowance.limits.interrupt;
        let room = Room::enter(&path, interrupt, |path| kept(path).is_some())?;
        if let Some(about) = kept(&path) {
            // For who prunes what was not used for long.
            let file = File::open(path.join(ABOUT));
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
            return Build::of(room, about, true);
        }
        let _slot = self.slot(allowance)?;
        let began = Instant::now();
        let tried = self.attempt(repository, commit, recipe, (&room, allowance.limits));
        let failure = match tried {
            Ok(failure) => failure,
            Err(cause) => {
                // Half a build is of no use to anybody.
                let _ = room.demolish();
                return Err(cause);
            }
        };
        let tree = room.path.join("tree");
        if failure.is_some() {
            room::remove(&tree).map_err(|error| unwritable(&tree, &error))?;
        }
        let about = About {
            commit: commit.id.clone(),
            subject: commit.subject.clone(),
            recipe: recipe.words().to_owned(),
            failure,
            finished: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            seconds: began.elapsed().as_secs(),
            disk_bytes: room::disk_bytes(&room.path),
        };
        let text = serde_json::to_string_pretty(&about)
            .map_err(|error| Cause::new(format!("cannot describe the build: {error}")))?;
        cache::write(&room.path.join(ABOUT), text.as_bytes())?;
        Build::of(room, about, false)
    }

    /// Checks out and builds in an empty room; gives why the recipe failed, if it did.
    fn attempt(
        &self,
        repository: &Repository,
        commit: &Commit,
        recipe: &Recipe,
        (room, limits): (&Room, Limits<'_>),
    ) -> Result<Option<String>, Cause> {
        room.empty()?;
        let (tree, log) = (room.path.join("tree"), room.path.join("log"));
        fs::write(&log, "").map_err(|error| unwritable(&log, &error))?;
        repository.check_out(commit, &tree, limits)?;
        let ended = Invocation {
            stdin: Some(room.lock.clone()),
            words: Words::AppendedTo(log.clone()),
            ..recipe.invocation(&tree)
        }
        .run(limits)?;
        let Some(why) = ended.failure() else {
            return Ok(None);
        };
        if let End::Interrupted(_) = ended.end {
            return Err(Cause::new(why));
        }
        let said = last_lines(&log, 64 << 10).to_lowercase();
        let words = ["no space left on device", "disk quota exceeded"];
        // Where there was no room for these words either, the disk is asked.
        if words.iter().any(|words| said.contains(words)) || is_full(&room.path) {
            let cause = Cause::new(format!("the disk of {} is full", self.root.display()));
            return Err(cause.cure("make room there; poise build --prune removes old builds"));
        }
        Ok(Some(why))
    }

    /// One of the places for builds that run at once, when one is free.
    fn slot(&self, allowance: Allowance<'_>) -> Result<File, Cause> {
        let slots = self.root.join(".slots");
        fs::create_dir_all(&slots).map_err(|error| unwritable(&slots, &error))?;
        loop {
            for number in 0..allowance.jobs.get() {
                let path = slots.join(number.to_string());
                let slot = File::create(&path).map_err(|error| unwritable(&path, &error))?;
                if slot.try_lock().is_ok() {
                    return Ok(slot);
                }
            }
            if let Some(signal) = allowance.limits.interrupt.caught() {
                return Err(Cause::new(format!("stopped by {signal}")));
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// All that is kept, what was used last first.
    pub fn list(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut all: Vec<Kept> = entries
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| {
                let path = entry.path();
                let about = about(&path);
                let last = fs::metadata(path.join(ABOUT)).or_else(|_| fs::metadata(&path));
                let used = last.and_then(|last| last.modified());
                Kept {
                    disk_bytes: match &about {
                        Some(about) => about.disk_bytes,
                        None => room::disk_bytes(&path),
                    },
                    in_use: !matches!(Room::look(&path), Ok(Some(_))),
                    used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                    about,
                    path,
                }
            })
            .collect();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.used));
        all
    }

    /// Removes what was interrupted, and then what was used longest ago until the rest takes at
    /// most `keep_bytes` of the disk. What is in use stays. Gives what was removed.
    ///
    /// Errors: something could not be removed.
    pub fn prune(&self, keep_bytes: u64) -> Result<Vec<Kept>, Cause> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(room::RUBBLE)
            {
                // Another may be at it.
                let _ = room::remove(&entry.path());
            }
        }
        let (mut removed, mut total_bytes) = (Vec::new(), 0);
        for kept in self.list() {
            let fits = total_bytes + kept.disk_bytes <= keep_bytes && kept.about.is_some();
            let room = match fits {
                true => None,
                false => Room::look(&kept.path).ok().flatten(),
            };
            match room {
                None => total_bytes += kept.disk_bytes,
                Some(room) => {
                    room.demolish()
                        .map_err(|error| unwritable(&kept.path, &error))?;
                    removed.push(kept);
                }
            }
        }
        Ok(removed)
    }
}

impl Build {
    fn of(room: Room, about: About, was_kept: bool) -> Result<Build, Cause> {
        room.share()
            .map_err(|error| unwritable(&room.path, &error))?;
        Ok(Build {
            tree: room.path.join("tree"),
            log: room.path.join("log"),
            about,
            was_kept,
            _room: room,
        })
    }

    /// The last lines of the log.
    pub fn last_words(&self, lines: usize) -> Vec<String> {
        let text = last_lines(&self.log, 64 << 10);
        let all: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        all[all.len().saturating_sub(lines)..]
            .iter()
            .map(|&line| line.to_owned())
            .collect()
    }
}

fn about(room: &Path) -> Option<About> {
    let text = fs::read(room.join(ABOUT)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Whether there is hardly any room left on the disk of this directory.
fn is_full(path: &Path) -> bool {
    let disk = nix::sys::statvfs::statvfs(path);
    disk.is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() < 1 << 20)
}

/// The end of a log, at most so many bytes.
fn last_lines(log: &Path, bytes: u64) -> String {
    use std::os::unix::fs::FileExt;
    let read = || -> std::io::Result<Vec<u8>> {
        let file = File::open(log)?;
        let length = file.metadata()?.len();
        let mut end = vec![0; length.min(bytes) as usize];
        file.read_exact_at(&mut end, length.saturating_sub(bytes))?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
