//! Compilers as programs: found, asked what they are, and told what to compile. Never judges what they make, never goes through `go build` but to measure it.
//!
//! A Go compiler needs more than its input: a [`source::Source`] is what `go list` tells of
//! packages, and a [`workbench::Workbench`] joins it with one compiler; a [`linker::Linker`] joins it
//! with a whole other toolchain. All others make one file of another, by a
//! [`template::Template`].

pub mod cache;
pub mod go;
pub mod invocation;
pub mod linker;
pub mod parallel;
pub mod saved;
pub mod scratch;
pub mod source;
pub mod template;
pub mod workbench;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::sample::Cause;
use go::Go;
use invocation::{Invocation, Limits};
use template::Template;

/// A compiler of any kind.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// Go's, alone or with its toolchain.
    Go(Box<Go>),
    /// rustc.
    Rustc(Box<Template>),
    /// gcc, clang and their kin.
    C(Box<Template>),
    /// What a TOML file defines.
    Defined(Box<Template>),
}

/// The languages whose compilers we know how to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Go.
    Go,
    /// Rust.
    Rust,
    /// C and its kin.
    C,
}

/// One compilation: what to run, and the file that it makes.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to run.
    pub invocation: Invocation,
    /// What it makes.
    pub output: PathBuf,
}

impl Compiler {
    /// The compiler that a user names: a GOROOT, a Go compiler, the command line of any other, or
    /// a definition in TOML. Without a language its name decides.
    ///
    /// Errors: there is no such compiler, or it does not work here; the cause says which.
    pub fn find(
        named: &str,
        language: Option<Language>,
        limits: Limits<'_>,
    ) -> Result<Compiler, Cause> {
        let path = Path::new(named);
        if path.extension().is_some_and(|suffix| suffix == "toml") {
            return Ok(Compiler::Defined(Box::new(Template::defined(
                path, limits,
            )?)));
        }
        let go = |go: Go| Compiler::Go(Box::new(go));
        match language.unwrap_or_else(|| guess(named)) {
            Language::Go if path.is_file() && is_called(path, "go") => {
                let root = path.canonicalize().ok();
                let root = root
                    .as_deref()
                    .and_then(Path::parent)
                    .and_then(Path::parent);
                Go::in_root(root.unwrap_or(path), limits).map(go)
            }
            Language::Go if path.is_file() => Go::alone(path, limits).map(go),
            Language::Go => Go::in_root(path, limits).map(go),
            Language::Rust => Ok(Compiler::Rustc(Box::new(Template::rustc(named, limits)?))),
            Language::C => Ok(Compiler::C(Box::new(Template::c(named, limits)?))),
        }
    }

    /// What it calls itself.
    pub fn version(&self) -> &str {
        match self {
            Compiler::Go(go) => &go.version,
            Compiler::Rustc(template) | Compiler::C(template) | Compiler::Defined(template) => {
                &template.version
            }
        }
    }

    /// The file that is executed, and its hash.
    pub fn program(&self) -> (&Path, &str) {
        match self {
            Compiler::Go(go) => (&go.compile, &go.sha256),
            Compiler::Rustc(template) | Compiler::C(template) | Compiler::Defined(template) => {
                (&template.program, &template.sha256)
            }
        }
    }

    /// All files that do its work, and their hashes; the one that is executed first.
    pub fn programs(&self) -> Vec<(&Path, &str)> {
        let mut programs = vec![self.program()];
        if let Compiler::C(template) | Compiler::Rustc(template) = self {
            let proper = template.proper.iter();
            programs.extend(proper.map(|(path, sha256)| (&**path, &**sha256)));
        }
        programs
    }
}

/// The language of a compiler by its name: directories are GOROOTs.
fn guess(named: &str) -> Language {
    let words = shlex::split(named).unwrap_or_default();
    let program = Path::new(words.first().map_or(named, |word| word));
    if Path::new(named).is_dir() || is_called(program, "compile") || is_called(program, "go") {
        return Language::Go;
    }
    match program.file_name().and_then(|name| name.to_str()) {
        Some(name) if name.starts_with("rustc") => Language::Rust,
        // A path to nothing with no further words is rather a mistaken GOROOT than a C compiler.
        _ if words.len() == 1 && named.contains('/') && !program.exists() => Language::Go,
        _ => Language::C,
    }
}

/// Our environment as it was given to us.
pub(super) fn inherited() -> Vec<(OsString, OsString)> {
    crate::run::variables().unwrap_or_else(|_| std::env::vars_os().collect())
}

/// Gives a variable another value.
fn set_variable(environment: &mut Vec<(OsString, OsString)>, name: &str, value: &Path) {
    environment.retain(|(known, _)| known != name);
    environment.push((name.into(), value.into()));
}

fn is_called(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|last| last == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_guessed_by_their_names() {
        let check = |named, want| assert_eq!(guess(named), want, "{named}");
        check("gcc-12 -O1", Language::C);
        check("clang", Language::C);
        check("/usr/bin/env", Language::C);
        check("rustc", Language::Rust);
        check("/opt/rustc-1.95 -O", Language::Rust);
        check("/", Language::Go);
        check("/no/such/goroot", Language::Go);
        check("/x/pkg/tool/linux_amd64/compile", Language::Go);
        check("/x/bin/go", Language::Go);
    }
}
