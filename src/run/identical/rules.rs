//! The rules by which outputs may differ and still count as the same: named, listed, applied only where outputs differ, and told when they were. Never touches a part that no rule names.

use super::output::{Kind, Part};

/// A difference that is not the compiler's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The version in a Go object's first line.
    GoVersion,
    /// The experiments in a Go object's first line.
    GoExperiments,
    /// Build ids of Go objects and of ELF.
    BuildId,
    /// Date, owner and mode of an archive's members.
    ArchiveHeader,
    /// The compiler's name in ELF.
    CompilerName,
    /// The path of the directory that an output was written to.
    Paths,
}

impl Rule {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Rule; 6] = [
        Rule::GoVersion,
        Rule::GoExperiments,
        Rule::BuildId,
        Rule::ArchiveHeader,
        Rule::CompilerName,
        Rule::Paths,
    ];

    /// What is not normalised but the same from the start, for whoever lists the rules.
    pub const HELD: [&str; 4] = [
        "both compilers get the same source, by the same absolute paths, and one GOROOT",
        "SOURCE_DATE_EPOCH stands for the time in __DATE__ and __TIME__ (0, unless it is set)",
        "LC_ALL is C",
        "outputs go to directories whose paths are equally long",
    ];

    /// The name by which it is told.
    pub fn name(self) -> &'static str {
        match self {
            Rule::GoVersion => "go-version",
            Rule::GoExperiments => "go-experiments",
            Rule::BuildId => "build-id",
            Rule::ArchiveHeader => "archive-header",
            Rule::CompilerName => "compiler-name",
            Rule::Paths => "paths",
        }
    }

    /// What it passes over.
    pub fn about(self) -> &'static str {
        match self {
            Rule::GoVersion => "the compiler's version in the first line of a Go object",
            Rule::GoExperiments => "the list of experiments in the first line of a Go object",
            Rule::BuildId => {
                "build ids: in the second line of a Go object, in .note.gnu.build-id and .note.go.buildid"
            }
            Rule::ArchiveHeader => "date, owner and mode of the members of an archive",
            Rule::CompilerName => "the compiler's name and version in the section .comment",
            Rule::Paths => {
                "the directory that the output was written to, where it stands in the output"
            }
        }
    }

    /// What this rule compares of a part, and what it passes over; `directory` is where the
    /// output was written to.
    fn divide(self, part: &Part, directory: &[u8]) -> Option<Divided> {
        let bytes = &part.bytes;
        let cut = |from: usize, to: usize| Divided {
            kept: [&bytes[..from], &bytes[to..]].concat(),
            passed_over: bytes[from..to].to_vec(),
        };
        let all = || cut(0, bytes.len());
        match (self, part.kind) {
            (Rule::GoVersion, Kind::GoHeader) => {
                let (from, length) = go_version(bytes)?;
                Some(cut(from, from + length))
            }
            (Rule::GoExperiments, Kind::GoHeader) => {
                let line = bytes.iter().position(|&byte| byte == b'\n')?;
                let from = memchr::memmem::rfind(&bytes[..line], b" X:")?;
                Some(cut(from, line))
            }
            (Rule::BuildId, Kind::GoHeader) => {
                let from = memchr::memmem::find(bytes, b"\nbuild id \"")?;
                let length = bytes[from + 1..].iter().position(|&byte| byte == b'\n')?;
                Some(cut(from, from + 1 + length))
            }
            (Rule::BuildId, Kind::ElfSection) => {
                let ids = ["section .note.gnu.build-id", "section .note.go.buildid"];
                ids.iter().any(|id| part.name.starts_with(id)).then(all)
            }
            (Rule::ArchiveHeader, Kind::ArchiveHeader) => Some(all()),
            (Rule::CompilerName, Kind::ElfSection | Kind::ElfHeader) => {
                let comment = ["section .comment", "header of section .comment"];
                comment
                    .iter()
                    .any(|one| part.name.starts_with(one))
                    .then(all)
            }
            (Rule::Paths, _) => {
                let mut kept = bytes.clone();
                let found: Vec<usize> = memchr::memmem::find_iter(bytes, directory).collect();
                for &at in &found {
                    kept[at..at + directory.len()].fill(b'~');
                }
                (!found.is_empty()).then(|| Divided {
                    kept,
                    passed_over: directory.to_vec(),
                })
            }
            _ => None,
        }
    }
}

/// A part as a rule sees it.
struct Divided {
    kept: Vec<u8>,
    passed_over: Vec<u8>,
}

/// Where the version begins in a Go object's first line, and how long it is: it can have spaces.
fn go_version(header: &[u8]) -> Option<(usize, usize)> {
    let line = header.split(|&byte| byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?;
    let (at, _) = line.match_indices(' ').nth(3)?;
    let rest = &line[at + 1..];
    // Behind it stands the processor's level or the experiments.
    let end = [" GO", " X:"]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min();
    Some((at + 1, end.unwrap_or(rest.len())))
}

/// An output taken apart, and the directory that it was written to.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) parts: Vec<Part>,
    pub(super) directory: Vec<u8>,
}

/// Applies `rules` to the parts in which two outputs differ, as long as they do, and gives those
/// that passed over something in which they did.
pub(super) fn apply(rules: &[Rule], a: &mut Taken, b: &mut Taken) -> Vec<Rule> {
    let mut applied = Vec::new();
    for &rule in rules {
        let mut changed = false;
        let (one, other) = (a.directory.clone(), b.directory.clone());
        // By names: one output may have a section that the other lacks.
        for part in &mut a.parts {
            let Some(twin) = b.parts.iter_mut().find(|twin| twin.name == part.name) else {
                continue;
            };
            if part == twin {
                continue;
            }
            let whole = |part: &Part| Divided {
                kept: part.bytes.clone(),
                passed_over: Vec::new(),
            };
            let mine = rule.divide(part, &one).unwrap_or_else(|| whole(part));
            let theirs = rule.divide(twin, &other).unwrap_or_else(|| whole(twin));
            if mine.passed_over != theirs.passed_over {
                (part.bytes, twin.bytes) = (mine.kept, theirs.kept);
                changed = true;
            }
        }
        if changed {
            applied.push(rule);
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::super::output::{take_apart, tests::archive};
    use super::*;

    fn taken(output: &[u8], directory: &str) -> Taken {
        Taken {
            parts: take_apart(output),
            directory: directory.as_bytes().to_vec(),
        }
    }

    #[test]
    fn each_rule_passes_over_what_it_names_and_nothing_else() {
        let object = |first: &str, id: &str, body: &str| {
            let text = format!("go object linux amd64 {first}\nbuild id \"{id}\"\n\n!\n{body}");
            archive(0, &[("_go_.o", text.as_bytes())])
        };
        let release = "go1.24.11 GOAMD64=v1 X:a,b";
        let check = |a: &[u8], b: &[u8], want: &[Rule], same: bool| {
            let (mut a, mut b) = (taken(a, "/out/old1"), taken(b, "/out/new1"));
            assert_eq!(apply(&Rule::ALL, &mut a, &mut b), want);
            assert_eq!(a.parts == b.parts, same);
        };
        let old = object(release, "x", "code");
        check(&old, &old, &[], true);
        let devel = "devel go1.25-1a2b Tue Nov 4 GOAMD64=v1 X:a,b";
        check(&old, &object(devel, "x", "code"), &[Rule::GoVersion], true);
        let bare = object("go1.24.11", "x", "code");
        check(
            &bare,
            &object("go1.25", "x", "code"),
            &[Rule::GoVersion],
            true,
        );
        let other = "go1.24.11 GOAMD64=v1 X:a";
        check(
            &old,
            &object(other, "x", "code"),
            &[Rule::GoExperiments],
            true,
        );
        let level = "go1.24.11 GOAMD64=v3 X:a,b";
        check(&old, &object(level, "x", "code"), &[], false);
        check(&old, &object(release, "x", "edoc"), &[], false);
        check(&old, &object(release, "y", "code"), &[Rule::BuildId], true);
        let (early, late) = (archive(1, &[("a", b"x")]), archive(2, &[("a", b"x")]));
        check(&early, &late, &[Rule::ArchiveHeader], true);
        check(b"at /out/old1/x", b"at /out/new1/x", &[Rule::Paths], true);
        check(b"at /out/old1/x", b"at /out/new1/y", &[Rule::Paths], false);
        check(b"x", b"y", &[], false);
    }

    #[test]
    fn names_are_told_once() {
        let mut names = Rule::ALL.map(Rule::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Rule::ALL.len());
    }
}
