//! The Go packages of one source, as the toolchain that the source belongs to lists them, and what each needs to be compiled by whichever compiler. Never compiles a package.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::cache::{self, Cache};
use super::go::{Go, Toolchain};
use super::invocation::{Invocation, Limits, Words, first_line};
use super::scratch::Scratch;
use super::workbench::INPUTS;
use crate::sample::Cause;

/// Packages with all that they import, each after its imports.
#[derive(Debug)]
pub struct Source {
    /// The toolchain that they belong to.
    pub go: Go,
    /// All of them, imported ones too.
    pub packages: Vec<Package>,
    /// Export data by the compiler of that toolchain.
    pub exports: BTreeMap<String, PathBuf>,
}

/// One package: its files, all with absolute paths, and what it imports.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Package {
    /// Its import path.
    pub path: String,
    /// Whether it is a program, which the linker calls `main`.
    pub is_program: bool,
    /// The directory of its files.
    pub directory: PathBuf,
    /// Its Go files.
    pub go_files: Vec<PathBuf>,
    /// Its assembly.
    pub assembly: Vec<PathBuf>,
    /// Headers that its assembly may include.
    pub headers: Vec<PathBuf>,
    /// The packages that it imports, by their real paths.
    pub imports: Vec<String>,
    /// What stands in its files for the real path of an import.
    pub import_map: BTreeMap<String, String>,
    /// The language version that it is written in: `go1.24`.
    pub language: Option<String>,
    /// Whether it is part of the standard library.
    pub standard: bool,
    /// Whether it was asked for, and not only imported by what was.
    pub wanted: bool,
    /// Why the toolchain could not list or compile it.
    pub error: Option<String>,
    pub(super) embeds: Embeds,
}

/// The patterns of a package's `go:embed` lines and the files that they mean.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Embeds {
    patterns: Vec<String>,
    files: Vec<String>,
}

/// One package as `go list -json` prints it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Listed {
    import_path: String,
    name: String,
    dir: PathBuf,
    go_files: Vec<PathBuf>,
    s_files: Vec<PathBuf>,
    h_files: Vec<PathBuf>,
    imports: Vec<String>,
    import_map: BTreeMap<String, String>,
    embed_patterns: Vec<String>,
    embed_files: Vec<String>,
    export: PathBuf,
    standard: bool,
    dep_only: bool,
    module: Option<ListedModule>,
    error: Option<ListedError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct ListedModule {
    go_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct ListedError {
    err: String,
}

/// What programs say when the disk is full.
const NO_ROOM: &str = "no space left on device";

const FIELDS: &str = "ImportPath,Name,Dir,GoFiles,SFiles,HFiles,Imports,ImportMap,EmbedPatterns,\
EmbedFiles,Export,Standard,DepOnly,Module,Error";

impl Source {
    /// The packages that `patterns` mean in `directory` (`None` is our own working directory), with
    /// all that they import. Where the cache does not have their objects, with export data, they are
    /// built, by the toolchain's compiler with these `flags`.
    ///
    /// Errors: the toolchain does not know the patterns, or cannot build for lack of room.
    pub fn list(
        go: &Go,
        patterns: &[String],
        directory: Option<&Path>,
        flags: &[OsString],
        cache: &Cache,
        limits: Limits<'_>,
    ) -> Result<Source, Cause> {
        let toolchain = go.toolchain()?;
        let mut arguments: Vec<OsString> = ["list", "-e", "-deps", "-export", "-pgo=off"]
            .map(OsString::from)
            .into();
        arguments.extend(go.build_flags(flags)?);
        arguments.extend([format!("-json={FIELDS}").into(), "--".into()]);
        arguments.extend(patterns.iter().map(OsString::from));
        let scratch = Scratch::new()?;
        let list = scratch.path().join("list");
        let mut environment = toolchain.environment(cache)?;
        // Where it builds: what is stopped does not clear it away.
        super::set_variable(&mut environment, "TMPDIR", scratch.path());
        let invocation = Invocation {
            program: toolchain.go.clone(),
            arguments,
            environment,
            // The module of the standard library is the one that needs no other.
            directory: match is_standard(toolchain, patterns) {
                true => Some(toolchain.root.join("src")),
                false => directory.map(Path::to_owned),
            },
            words: Words::OutputTo(list.clone()),
            ..Invocation::default()
        };
        let ended = invocation.run(limits)?;
        let complaints = ended.text();
        let list = fs::read(&list)
            .map_err(|error| Cause::new(format!("cannot read what go list printed: {error}")))?;
        // With its errors in the list it succeeds all the same.
        let is_full = |text: &[u8]| memchr::memmem::find(text, NO_ROOM.as_bytes()).is_some();
        if is_full(complaints.as_bytes()) || is_full(&list) {
            let cause = Cause::new(format!("export data could not be built: {NO_ROOM}"));
            return Err(cause.cure("make room, or set XDG_CACHE_HOME and TMPDIR to another disk"));
        }
        if let Some(why) = ended.failure() {
            let line = ended.first_line();
            let said = line.map_or(String::new(), |line| format!(": {line}"));
            return Err(Cause::new(format!("go list failed, {why}{said}")));
        }
        let listed = serde_json::Deserializer::from_slice(&list).into_iter::<Listed>();
        let listed: Vec<Listed> = listed
            .collect::<Result<_, _>>()
            .map_err(|error| Cause::new(format!("go list printed what is no JSON: {error}")))?;
        let release = release(&go.version);
        let mut exports = BTreeMap::new();
        let mut packages = Vec::new();
        for one in listed {
            // Every compiler knows `unsafe`; where all files are tests there is nothing to compile.
            if one.import_path == "unsafe" || one.go_files.is_empty() && one.error.is_none() {
                continue;
            }
            if !one.export.as_os_str().is_empty() {
                exports.insert(one.import_path.clone(), one.export.clone());
            }
            packages.push(one.into_package(&release, &complaints));
        }
        if !packages.iter().any(|package| package.wanted) {
            let patterns = patterns.join(" ");
            return Err(Cause::new(format!("no package is called {patterns}")));
        }
        Ok(Source {
            go: go.clone(),
            packages,
            exports,
        })
    }

    /// The packages that were asked for.
    pub fn wanted(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.wanted)
    }
}

/// Whether all patterns mean packages of the toolchain's own standard library or its commands.
fn is_standard(toolchain: &Toolchain, patterns: &[String]) -> bool {
    patterns.iter().all(|pattern| {
        let (first, _) = pattern.split_once("/...").unwrap_or((pattern, ""));
        ["std", "cmd"].contains(&first)
            || !first.starts_with('.') && toolchain.root.join("src").join(first).is_dir()
    })
}

/// The language version of a release: `go1.24` of `go1.24.11`.
fn release(version: &str) -> Option<String> {
    let word = version
        .split([' ', '-'])
        .find(|word| word.starts_with("go1."))?;
    let digits = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    Some(format!("go1.{}", digits(&word["go1.".len()..])))
}

impl Listed {
    fn into_package(self, release: &Option<String>, complaints: &str) -> Package {
        let within = |files: Vec<PathBuf>| files.iter().map(|file| self.dir.join(file)).collect();
        let unbuilt = self.export.as_os_str().is_empty();
        let complaint = || complaint(complaints, &self.import_path);
        Package {
            go_files: within(self.go_files),
            assembly: within(self.s_files),
            headers: within(self.h_files),
            // Not compiled, but part of the language.
            imports: self
                .imports
                .into_iter()
                .filter(|path| path != "unsafe" && path != "C")
                .collect(),
            import_map: self.import_map,
            language: match (self.standard, self.module) {
                (true, _) => release.clone(),
                (false, Some(module)) if !module.go_version.is_empty() => {
                    let version = module.go_version;
                    Some(format!("go{}", version))
                }
                _ => None,
            },
            standard: self.standard,
            wanted: !self.dep_only,
            error: match self.error {
                Some(error) => Some(first_line(&error.err).unwrap_or_else(complaint)),
                None if unbuilt => Some(complaint()),
                None => None,
            },
            embeds: Embeds {
                patterns: self.embed_patterns,
                files: self.embed_files,
            },
            path: self.import_path,
            is_program: self.name == "main",
            directory: self.dir,
        }
    }
}

/// What the go command complained of about one package.
fn complaint(complaints: &str, path: &str) -> String {
    let heading = format!("# {path}");
    let lines = complaints.lines().skip_while(|line| *line != heading);
    lines
        .skip(1)
        .find_map(first_line)
        .or_else(|| first_line(complaints))
        .unwrap_or_else(|| "it was not compiled, and no reason given".to_owned())
}

impl Package {
    /// The compiler's import configuration: where the export data of each import is.
    ///
    /// Errors: there is none for an import.
    pub fn import_configuration(
        &self,
        exports: &BTreeMap<String, PathBuf>,
    ) -> Result<String, Cause> {
        let mut text = "# import config\n".to_owned();
        for (written, real) in &self.import_map {
            // A String takes all that is written to it.
            let _ = writeln!(text, "importmap {written}={real}");
        }
        for import in self.imports.iter().collect::<BTreeSet<_>>() {
            let file = exports.get(import).ok_or_else(|| {
                Cause::new(format!("it imports {import}, which could not be compiled"))
            })?;
            let _ = writeln!(text, "packagefile {import}={}", file.display());
        }
        Ok(text)
    }

    /// The compiler's configuration of embedded files, where the package embeds any.
    pub(super) fn embed_configuration(&self) -> Option<String> {
        if self.embeds.patterns.is_empty() {
            return None;
        }
        let patterns: BTreeMap<&str, Vec<&String>> = self
            .embeds
            .patterns
            .iter()
            .map(|pattern| {
                let files = self.embeds.files.iter();
                (
                    pattern.as_str(),
                    files.filter(|file| embeds(pattern, file)).collect(),
                )
            })
            .collect();
        let files: BTreeMap<&String, PathBuf> = self
            .embeds
            .files
            .iter()
            .map(|file| (file, self.directory.join(file)))
            .collect();
        Some(json!({ "Patterns": patterns, "Files": files }).to_string())
    }

    /// A hash of all that stands in its files.
    pub(super) fn hash(&self) -> Result<Vec<u8>, Cause> {
        let mut hash = Sha256::new();
        let embedded = self
            .embeds
            .files
            .iter()
            .map(|file| self.directory.join(file));
        let own = [&self.go_files, &self.assembly, &self.headers];
        for file in own.into_iter().flatten().cloned().chain(embedded) {
            let content = fs::read(&file)
                .map_err(|error| Cause::new(format!("cannot read {}: {error}", file.display())))?;
            hash.update(format!("{} {}\n", file.display(), content.len()));
            hash.update(content);
        }
        Ok(hash.finalize().to_vec())
    }

    /// What the assembler tells the compiler of the package's assembly, kept by content; `None`
    /// where there is no assembly.
    ///
    /// Errors: the assembler does not understand it, or the cache cannot be written.
    pub(super) fn assembly_symbols(
        &self,
        toolchain: &Toolchain,
        cache: &Cache,
        limits: Limits<'_>,
    ) -> Result<Option<PathBuf>, Cause> {
        if self.assembly.is_empty() {
            return Ok(None);
        }
        let scratch = Scratch::new()?;
        let output = scratch.path().join("symabis");
        // What the compiler would write there is not known before it has run.
        let header = scratch.path().join("go_asm.h");
        fs::write(&header, "").map_err(|error| cache::unwritable(&header, &error))?;
        let mut arguments: Vec<OsString> = vec!["-p".into(), self.path.clone().into()];
        for directory in [scratch.path(), &toolchain.root.join("pkg/include")] {
            arguments.extend(["-I".into(), directory.into()]);
        }
        for (key, value) in &toolchain.target {
            arguments.extend(["-D".into(), format!("{key}_{value}").into()]);
        }
        arguments.extend(["-gensymabis".into(), "-o".into(), output.clone().into()]);
        arguments.extend(self.assembly.iter().map(OsString::from));
        let assembler = Invocation {
            program: toolchain.tools.join("asm"),
            arguments,
            environment: toolchain.environment(cache)?,
            directory: Some(self.directory.clone()),
            ..Invocation::default()
        };
        let ended = assembler.run(limits)?;
        if let Some(why) = ended.failure() {
            let said = ended.first_line().unwrap_or(why);
            return Err(Cause::new(format!(
                "its assembly is not understood: {said}"
            )));
        }
        let symbols = fs::read(&output)
            .map_err(|error| Cause::new(format!("cannot read {}: {error}", output.display())))?;
        cache.keep(INPUTS, &symbols).map(Some)
    }
}

/// Whether an embedded file, which some pattern of the package means, is meant by this one: the
/// pattern matches it or a directory that it is in.
fn embeds(pattern: &str, file: &str) -> bool {
    let pattern: Vec<&str> = pattern
        .strip_prefix("all:")
        .unwrap_or(pattern)
        .split('/')
        .collect();
    let file: Vec<&str> = file.split('/').collect();
    pattern == ["."]
        || pattern.len() <= file.len()
            && pattern
                .iter()
                .zip(&file)
                .all(|(pattern, name)| matches(pattern.as_bytes(), name.as_bytes()))
}

/// Go's `path.Match` within one component, without its character classes' errors.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        [b'?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
        [b'[', rest @ ..] => {
            let (Some(end), Some((&byte, others))) = (
                rest.iter().skip(1).position(|&byte| byte == b']'),
                name.split_first(),
            ) else {
                return false;
            };
            let (class, after) = (&rest[..=end], &rest[end + 2..]);
            let (negated, class) = match class.strip_prefix(b"^") {
                Some(class) => (true, class),
                None => (false, class),
            };
            let mut found = false;
            let mut left = class;
            while let [first, more @ ..] = left {
                left = match more {
                    [b'-', last, beyond @ ..] => {
                        found |= (*first..=*last).contains(&byte);
                        beyond
                    }
                    _ => {
                        found |= *first == byte;
                        more
                    }
                };
            }
            found != negated && matches(after, others)
        }
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
            name.first() == Some(byte) && matches(rest, &name[1..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_that_of_the_release() {
        let check = |version, want: Option<&str>| {
            assert_eq!(release(version).as_deref(), want, "{version}");
        };
        check("go1.24.11", Some("go1.24"));
        check("go1.27rc1", Some("go1.27"));
        check("devel go1.26-0a1b2c3 Tue Nov 4 2025", Some("go1.26"));
        check("go1.26-devel_0a1b2c3", Some("go1.26"));
        check("devel +0a1b2c3", None);
    }

    #[test]
    fn imports_are_configured_by_their_real_paths() {
        let package = Package {
            imports: vec!["vendor/x/y".into(), "fmt".into(), "fmt".into()],
            import_map: [("x/y".to_owned(), "vendor/x/y".to_owned())].into(),
            ..Package::default()
        };
        let exports = ["fmt", "vendor/x/y", "os"]
            .map(|path| (path.to_owned(), PathBuf::from("/e").join(path)));
        let mut exports = BTreeMap::from(exports);
        let want = "# import config\nimportmap x/y=vendor/x/y\npackagefile fmt=/e/fmt\n\
            packagefile vendor/x/y=/e/vendor/x/y\n";
        assert_eq!(package.import_configuration(&exports).unwrap(), want);
        exports.remove("fmt");
        let cause = package.import_configuration(&exports).unwrap_err();
        assert_eq!(cause.why, "it imports fmt, which could not be compiled");
    }

    #[test]
    fn embedded_files_are_dealt_to_their_patterns() {
        let check =
            |pattern, file, want| assert_eq!(embeds(pattern, file), want, "{pattern} {file}");
        check("a.txt", "a.txt", true);
        check("a.txt", "b.txt", false);
        check("data", "data/x/y", true);
        check("all:data", "data/.hidden", true);
        check("data/*.txt", "data/a.txt", true);
        check("data/*.txt", "data/a.bin", false);
        check("data/*/x", "data/a/x", true);
        check("*", "data/a", true);
        check("t?st[a-c].go", "testb.go", true);
        check("t?st[^a-c].go", "testb.go", false);
        check("data/x", "data", false);
    }

    #[test]
    fn a_complaint_is_found_by_its_heading() {
        let complaints = "# a\na.go:1: bad\n# b\nb.go:2: worse\n";
        assert_eq!(complaint(complaints, "b"), "b.go:2: worse");
        assert_eq!(complaint("go: no room\n", "b"), "go: no room");
    }
}
