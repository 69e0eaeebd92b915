//! The commits between a good and a bad one, in order, as git tells them. Never changes a repository, never builds.

use crate::run::build::repository::{Commit, Repository};
use crate::run::compiler::invocation::Limits;
use crate::sample::Cause;

/// Commits in the order of their history: the good end first, the bad end last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The commits.
    pub commits: Vec<About>,
}

/// What git tells of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its whole name.
    pub id: String,
    /// The names of its parents.
    pub parents: Vec<String>,
    /// Who wrote it: name and address.
    pub author: String,
    /// When, RFC 3339.
    pub date: String,
    /// The first line of its message.
    pub subject: String,
}

/// The two ends of a range, and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The revision without the change.
    pub good: String,
    /// The revision with it.
    pub bad: String,
    /// Only commits that touch one of these; all when there are none.
    pub paths: Vec<String>,
}

impl About {
    /// It for whoever builds.
    pub fn commit(&self) -> Commit {
        Commit {
            id: self.id.clone(),
            subject: self.subject.clone(),
        }
    }

    /// Its name as people write it.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Whether it merges.
    pub fn is_merge(&self) -> bool {
        self.parents.len() > 1
    }

    /// Name and subject.
    pub fn title(&self) -> String {
        format!("{} {}", self.short(), self.subject)
    }
}

impl Line {
    /// The line from the good to the bad end, along first parents.
    ///
    /// Errors: an end is no commit, the range is empty or the wrong way round, or the good end is
    /// no ancestor of the bad one.
    pub fn read(
        repository: &Repository,
        wanted: &Wanted,
        limits: Limits<'_>,
    ) -> Result<Line, Cause> {
        let find = |revision: &str| {
            repository.commit(revision, limits).map_err(|cause| {
                match is_shallow(repository, limits) {
                    true => cause.cure(UNSHALLOW),
                    false => cause,
                }
            })
        };
        let (good, bad) = (find(&wanted.good)?, find(&wanted.bad)?);
        let range = format!("{}..{}", wanted.good, wanted.bad);
        if good.id == bad.id {
            return Err(Cause::new(format!(
                "the range {range} is empty: both ends are {}",
                good.id
            )));
        }
        let is_ancestor = |old: &Commit, new: &Commit| {
            let asked = ["merge-base", "--is-ancestor", &old.id, &new.id];
            repository.ask(&asked, limits).is_ok()
        };
        if !is_ancestor(&good, &bad) {
            let cause = Cause::new(format!("{} is no ancestor of {}", wanted.good, wanted.bad));
            return Err(match is_shallow(repository, limits) {
                _ if is_ancestor(&bad, &good) => {
                    Cause::new(format!("the range {range} is the wrong way round")).cure(format!(
                        "the older end comes first: {}..{}",
                        wanted.bad, wanted.good
                    ))
                }
                true => cause.cure(UNSHALLOW),
                false => cause.cure(format!(
                    "begin at their common ancestor, $(git merge-base {} {})",
                    wanted.good, wanted.bad
                )),
            });
        }
        let mut line = Line {
            commits: log(repository, &["--max-count=1", &good.id], &[], limits)?,
        };
        let between = format!("{}..{}", good.id, bad.id);
        let asked = ["--first-parent", "--reverse", &between];
        line.commits
            .extend(log(repository, &asked, &wanted.paths, limits)?);
        // A path may be touched last long before the end; but it is the end that has the change.
        if line.commits.last().is_none_or(|last| last.id != bad.id) {
            line.commits
                .extend(log(repository, &["--max-count=1", &bad.id], &[], limits)?);
        }
        Ok(line)
    }

    /// The commits with these names, as an earlier reading gave them.
    ///
    /// Errors: one of them is gone.
    pub fn again(
        repository: &Repository,
        ids: &[String],
        limits: Limits<'_>,
    ) -> Result<Line, Cause> {
        let mut commits = Vec::new();
        for part in ids.chunks(500) {
            let mut asked = vec!["--no-walk=unsorted"];
            asked.extend(part.iter().map(String::as_str));
            commits.extend(log(repository, &asked, &[], limits)?);
        }
        let same = commits.iter().map(|commit| &commit.id).eq(ids);
        match same {
            true => Ok(Line { commits }),
            false => Err(Cause::new(
                "commits of this bisection are gone from the repository",
            )),
        }
    }

    /// The line that `merge` brought in: from where it left the first parent's to the second
    /// parent.
    pub fn merged(
        repository: &Repository,
        merge: &About,
        limits: Limits<'_>,
    ) -> Result<Line, Cause> {
        let [ours, theirs, ..] = &merge.parents[..] else {
            return Err(Cause::new(format!("{} is no merge", merge.short())));
        };
        let base = repository.ask(&["merge-base", ours, theirs], limits)?;
        let wanted = Wanted {
            good: base.trim().to_owned(),
            bad: theirs.clone(),
            paths: Vec::new(),
        };
        Line::read(repository, &wanted, limits)
    }

    /// The place of the commit with this name.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.commits.iter().position(|commit| commit.id == id)
    }

    /// The places of the commits that these revisions and ranges name. The ends stay, and what is
    /// not on the line is nobody's.
    pub fn skipped(
        &self,
        repository: &Repository,
        revisions: &[String],
        limits: Limits<'_>,
    ) -> Result<Vec<usize>, Cause> {
        let mut places = Vec::new();
        for revision in revisions {
            let walk = match revision.contains("..") {
                true => "--topo-order",
                false => "--no-walk",
            };
            let said = repository.ask(&["rev-list", walk, revision, "--"], limits)?;
            let found = said.lines().filter_map(|id| self.place(id));
            places.extend(found.filter(|&place| place > 0 && place + 1 < self.commits.len()));
        }
        Ok(places)
    }
}

const UNSHALLOW: &str = "the clone is shallow: git fetch --unshallow";

fn is_shallow(repository: &Repository, limits: Limits<'_>) -> bool {
    let said = repository.ask(&["rev-parse", "--is-shallow-repository"], limits);
    said.is_ok_and(|said| said.trim() == "true")
}

/// What is changed in the checkout beside its commit, if anything; nothing where there is no
/// checkout.
pub fn is_dirty(repository: &Repository, limits: Limits<'_>) -> bool {
    let asked = ["status", "--porcelain", "--untracked-files=no"];
    let said = repository.ask(&asked, limits);
    said.is_ok_and(|said| !said.trim().is_empty())
}

fn log(
    repository: &Repository,
    arguments: &[&str],
    paths: &[String],
    limits: Limits<'_>,
) -> Result<Vec<About>, Cause> {
    let mut asked = vec![
        "log",
        "--no-show-signature",
        "--no-color",
        "--no-patch",
        "--format=%H%x1f%P%x1f%an <%ae>%x1f%aI%x1f%s%x1e",
    ];
    asked.extend(arguments);
    asked.push("--");
    asked.extend(paths.iter().map(String::as_str));
    parse(&repository.ask(&asked, limits)?)
}

fn parse(said: &str) -> Result<Vec<About>, Cause> {
    let records = said.split('\x1e').map(str::trim);
    let records = records.filter(|record| !record.is_empty());
    let one = |record: &str| {
        let fields: Vec<&str> = record.split('\x1f').collect();
        match fields[..] {
            [id, parents, author, date, subject] => Ok(About {
                id: id.to_owned(),
                parents: parents.split_whitespace().map(str::to_owned).collect(),
                author: author.to_owned(),
                date: date.to_owned(),
                subject: subject.to_owned(),
            }),
            _ => Err(Cause::new(format!("git tells `{record}` of a commit"))),
        }
    };
    records.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_read_as_git_tells_them() {
        let said = "a1\x1f\x1fAnn <a@b>\x1f2024-01-01T00:00:00Z\x1ffirst\x1e\n\
                    b2\x1fa1 c3\x1fBob <b@c>\x1f2024-01-02T00:00:00Z\x1f\x1e\n";
        let commits = parse(said).unwrap();
        assert_eq!(commits.len(), 2);
        assert_eq!(commits[0].title(), "a1 first");
        assert!(commits[1].is_merge() && !commits[0].is_merge());
        assert_eq!(commits[1].subject, "");
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("fatal: no").is_err());
    }
}
