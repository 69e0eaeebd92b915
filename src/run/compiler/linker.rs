//! One source's programs under another toolchain: built by its go command and compiler, to be linked by its linker. Never measures, never runs what it links.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::cache::{Cache, unwritable};
use super::go::{Go, Toolchain};
use super::invocation::{Invocation, Limits};
use super::source::Source;
use super::workbench::INPUTS;
use super::{Job, set_variable};
use crate::sample::Cause;

/// A toolchain's linker, and what builds for it.
#[derive(Debug)]
pub struct Linker<'a> {
    source: &'a Go,
    /// The toolchain, with the source's packages in place of its own.
    go: Go,
    program: PathBuf,
    /// Of the compiler.
    flags: &'a [OsString],
    cache: &'a Cache,
    /// Of what it starts: what is stopped does not clear it away.
    temporary: PathBuf,
}

/// A program all of whose packages are built.
#[derive(Debug)]
pub struct Objects {
    main: PathBuf,
    configuration: PathBuf,
}

impl<'a> Linker<'a> {
    /// The linker of `own`'s toolchain; its compiler has these flags. In `directory`, which is new,
    /// the packages of `source` and that toolchain's programs are brought together.
    ///
    /// Errors: one of them is a compiler alone, or the directory cannot be written.
    pub fn new(
        source: &'a Go,
        own: &Go,
        flags: &'a [OsString],
        directory: &Path,
        cache: &'a Cache,
    ) -> Result<Linker<'a>, Cause> {
        let from = source.toolchain()?;
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
        // Where it looks for tools is fixed in the go command, but for the GOROOT.
        let tools = toolchain.tools.strip_prefix(&toolchain.root);
        let tools = directory.join(tools.unwrap_or(Path::new("pkg/tool")));
        let bin = toolchain.go.parent().unwrap_or(&toolchain.root);
        for (target, link) in [
            (from.root.join("src"), directory.join("src")),
            (from.root.join("lib"), directory.join("lib")),
            (from.root.join("pkg/include"), directory.join("pkg/include")),
            (toolchain.tools.clone(), tools.clone()),
            (bin.to_owned(), directory.join("bin")),
        ] {
            let above = link.parent().unwrap_or(directory);
            fs::create_dir_all(above)
                .and_then(|()| symlink(&target, &link))
                .map_err(|error| unwritable(&link, &error))?;
        }
        let temporary = directory.join("tmp");
        fs::create_dir(&temporary).map_err(|error| unwritable(&temporary, &error))?;
        let toolchain = Toolchain {
            root: directory.to_owned(),
            go: directory.join("bin/go"),
            tools,
            target: from.target.clone(),
        };
        Ok(Linker {
            source,
            go: Go {
                toolchain: Some(toolchain),
                ..own.clone()
            },
            program,
            flags,
            cache,
            temporary,
        })
    }

    /// Builds the program of this package, or of this file of the source's GOROOT.
    ///
    /// Errors: one of its packages cannot be built: it may be of another release, whose runtime this
    /// compiler does not know.
    pub fn objects(&self, program: &str, limits: Limits<'_>) -> Result<Objects, Cause> {
        let pattern = match program.ends_with(".go") {
            true => self.source.toolchain()?.root.join(program),
            false => PathBuf::from(program),
        };
        if pattern.is_absolute() && !pattern.is_file() {
            let why = "released toolchains do not have their tests";
            let named = pattern.display();
            return Err(Cause::new(format!("there is no {named}: {why}")));
        }
        let built = self.built(&pattern.display().to_string(), limits)?;
        let main = built.wanted().next();
        let main = main.and_then(|package| built.exports.get(&package.path));
        let main = main.ok_or_else(|| Cause::new(format!("{program} is no program")))?;
        let mut configuration = String::new();
        for (path, object) in &built.exports {
            // A String takes all that is written to it.
            let _ = writeln!(configuration, "packagefile {path}={}", object.display());
        }
        Ok(Objects {
            main: main.clone(),
            configuration: self.cache.keep(INPUTS, configuration.as_bytes())?,
        })
    }

    fn built(&self, pattern: &str, limits: Limits<'_>) -> Result<Source, Cause> {
        let src = self.go.toolchain()?.root.join("src");
        let patterns = [pattern.to_owned()];
        let built = Source::list(
            &self.go,
            &patterns,
            Some(&src),
            self.flags,
            self.cache,
            limits,
        )?;
        let failed = built.packages.iter().find_map(|package| {
            let why = package.error.as_ref()?;
            Some((&package.path, why))
        });
        let Some((path, why)) = failed else {
            return Ok(built);
        };
        let cause = Cause::new(format!("it cannot build the source's {path}: {why}"));
        Err(match self.go.version == self.source.version {
            true => cause,
            false => cause.cure("a toolchain builds the runtime of its own release only"),
        })
    }

    /// How to link a program, with these flags of the linker, into the file `output`.
    ///
    /// Errors: the cache cannot be written.
    pub fn job(&self, objects: &Objects, flags: &[OsString], output: &Path) -> Result<Job, Cause> {
        let mut arguments: Vec<OsString> = vec!["-o".into(), output.into()];
        arguments.extend(["-importcfg".into(), objects.configuration.clone().into()]);
        arguments.extend_from_slice(flags);
        arguments.push(objects.main.clone().into());
        // With the source's own place, which stands in what is linked.
        let mut environment = self.source.toolchain()?.environment(self.cache)?;
        set_variable(&mut environment, "TMPDIR", &self.temporary);
        Ok(Job {
            invocation: Invocation {
                program: self.program.clone(),
                arguments,
                environment,
                ..Invocation::default()
            },
            output: output.to_owned(),
        })
    }

    /// How to build the source's standard library and commands, all anew each time.
    ///
    /// Errors: not even its runtime can be built; or there is no room for it.
    pub fn build_all(&self, limits: Limits<'_>) -> Result<Invocation, Cause> {
        self.built("runtime", limits)?;
        let toolchain = self.go.toolchain()?;
        let src = toolchain.root.join("src");
        // What is measured runs where we do, and is to find no module of the user's there.
        let mut arguments: Vec<OsString> = vec!["build".into(), "-C".into()];
        arguments.extend([src.clone().into(), "-a".into()]);
        arguments.extend(self.go.build_flags(self.flags)?);
        arguments.extend(["std".into(), "cmd".into()]);
        // A cache of its own: it is of no use to anybody else.
        let mut environment = toolchain.environment(&Cache::at(self.temporary.clone()))?;
        set_variable(&mut environment, "TMPDIR", &self.temporary);
        set_variable(&mut environment, "PWD", &src);
        Ok(Invocation {
            program: toolchain.go.clone(),
            arguments,
            environment,
            ..Invocation::default()
        })
    }
}
