//! One source's programs under another toolchain: built by its go command and compiler, to be linked by its linker. Never measures, never runs what it links.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Job;
use super::cache::{Cache, unwritable};
use super::go::{Go, Toolchain};
use super::invocation::{Invocation, Limits};
use super::source::Source;
use super::workbench::INPUTS;
use crate::sample::Cause;

/// A toolchain's linker, and what builds for it.
#[derive(Debug)]
pub struct Linker<'a> {
    source: &'a Toolchain,
    cache: &'a Cache,
    /// The toolchain, with the source's packages in place of its own.
    go: Go,
    toolchain: Toolchain,
    program: PathBuf,
    /// Of the compiler.
    flags: &'a [OsString],
}

impl<'a> Linker<'a> {
    /// The linker of `own`'s toolchain; its compiler has these flags. In `directory`, which is new,
    /// the packages of `source` and that toolchain's programs are brought together.
    ///
    /// Errors: there is a compiler alone, or the directory cannot be written.
    pub fn new(
        source: &'a Toolchain,
        own: &Go,
        flags: &'a [OsString],
        directory: &Path,
        cache: &'a Cache,
    ) -> Result<Linker<'a>, Cause> {
        let Some(toolchain) = &own.toolchain else {
            let named = own.compile.display();
            return Err(Cause::new(format!(
                "{named} is a compiler alone, without a linker"
            )));
        };
        let program = toolchain.tools.join("link");
        if !program.is_file() {
            let named = program.display();
            return Err(Cause::new(format!("there is no {named}")));
        }
        // Its own place for tools is fixed in the go command, but for the GOROOT.
        let tools = toolchain.tools.strip_prefix(&toolchain.root);
        let tools = directory.join(tools.unwrap_or(Path::new("pkg/tool")));
        let include = directory.join("pkg/include");
        let bin = toolchain.go.parent().unwrap_or(&toolchain.root);
        for (target, link) in [
            (source.root.join("src"), directory.join("src")),
            (source.root.join("lib"), directory.join("lib")),
            (source.root.join("pkg/include"), include),
            (toolchain.tools.clone(), tools.clone()),
            (bin.to_owned(), directory.join("bin")),
        ] {
            let above = link.parent().unwrap_or(directory);
            fs::create_dir_all(above)
                .and_then(|()| symlink(&target, &link))
                .map_err(|error| unwritable(&link, &error))?;
        }
        let toolchain = Toolchain {
            root: directory.to_owned(),
            go: directory.join("bin/go"),
            tools,
            target: source.target.clone(),
        };
        Ok(Linker {
            source,
            cache,
            go: Go {
                toolchain: Some(toolchain.clone()),
                ..own.clone()
            },
            toolchain,
            program,
            flags,
        })
    }

    /// How to link the program of this package, or of this file of the source's GOROOT, with these
    /// flags of the linker, into the file `output`. All its packages are built before.
    ///
    /// Errors: one of them cannot be built: it may be of another release, whose runtime this
    /// compiler does not know.
    pub fn job(
        &self,
        program: &str,
        flags: &[OsString],
        output: &Path,
        limits: Limits<'_>,
    ) -> Result<Job, Cause> {
        let pattern = match program.ends_with(".go") {
            true => self.source.root.join(program).display().to_string(),
            false => program.to_owned(),
        };
        if pattern.starts_with('/') && !Path::new(&pattern).is_file() {
            let why = "released toolchains do not have their tests";
            return Err(Cause::new(format!("there is no {pattern}: {why}")));
        }
        let built = Source::list(&self.go, &[pattern], None, self.flags, self.cache, limits)?;
        let failed = built.packages.iter().find_map(|package| {
            let why = package.error.as_ref()?;
            Some((&package.path, why))
        });
        if let Some((path, why)) = failed {
            let cause = Cause::new(format!("it cannot build the source's {path}: {why}"));
            return Err(cause.cure("a toolchain builds the runtime of its own release only"));
        }
        let main = built.wanted().next();
        let main = main.and_then(|package| built.exports.get(&package.path));
        let main = main.ok_or_else(|| Cause::new(format!("{program} is no program")))?;
        let mut configuration = String::new();
        for (path, object) in &built.exports {
            // A String takes all that is written to it.
            let _ = writeln!(configuration, "packagefile {path}={}", object.display());
        }
        let configuration = self.cache.keep(INPUTS, configuration.as_bytes())?;
        let mut arguments: Vec<OsString> = vec!["-o".into(), output.into()];
        arguments.extend(["-importcfg".into(), configuration.into()]);
        arguments.extend_from_slice(flags);
        arguments.push(main.into());
        Ok(Job {
            invocation: Invocation {
                program: self.program.clone(),
                arguments,
                // The source's own place, which stands in what is linked.
                environment: self.source.environment(self.cache)?,
                ..Invocation::default()
            },
            output: output.to_owned(),
        })
    }

    /// How to build the source's standard library and commands, all anew each time; what is built
    /// goes to `cache`, which is of this alone.
    ///
    /// Errors: the cache cannot be written.
    pub fn everything(&self, cache: &Cache) -> Result<Invocation, Cause> {
        let mut arguments: Vec<OsString> = vec!["build".into(), "-C".into()];
        arguments.extend([self.toolchain.root.join("src").into(), "-a".into()]);
        arguments.extend(self.go.build_flags(self.flags)?);
        arguments.extend(["std".into(), "cmd".into()]);
        Ok(Invocation {
            program: self.toolchain.go.clone(),
            arguments,
            environment: self.toolchain.environment(cache)?,
            ..Invocation::default()
        })
    }
}
