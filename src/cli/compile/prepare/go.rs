//! Making Go toolchains ready for one source: its packages to compile, its programs to link, all of it to build. Never measures.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::{Benchmark, Named, Preparation, Prepared, proof};
use crate::cli::Usage;
use crate::run;
use crate::run::compilation::suite::{self, Program};
use crate::run::compilation::{Again, Jobs, Made, Phases};
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::Invocation;
use crate::run::compiler::linker::Linker;
use crate::run::compiler::source::{Package, Source};
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Compiler, parallel};
use crate::run::identical::{Input, Tool};
use crate::sample::{Cause, Name, Warning};

/// What a benchmark has done.
enum Task<'s> {
    Compile(&'s Package),
    Link(&'static Program),
    /// Build the standard library and all commands.
    StdCmd,
}

/// What the user asked for.
struct Asked {
    /// Packages to compile.
    packages: Vec<Named<String>>,
    /// Programs to link, and all of it to build.
    whole: Vec<Named<Task<'static>>>,
}

impl Preparation<'_> {
    /// What the variants make of one Go source.
    pub(in crate::cli::compile) fn go(&self, first: &Go) -> anyhow::Result<Prepared> {
        let of_source = match &self.arguments.source {
            Some(root) => Some(Go::in_root(root, self.limits).map_err(Usage::from)?),
            None => None,
        };
        let of_source = of_source.as_ref().unwrap_or(first);
        let Asked { packages, whole } = self.asked()?;
        let mut remarks = Vec::new();

        let source = match packages.is_empty() {
            true => None,
            false => Some(self.source(of_source, &packages)?),
        };
        let benches = match &source {
            None => Vec::new(),
            Some(source) => self.workbenches(source, &mut remarks)?,
        };
        let linkers = match whole.is_empty() {
            true => Vec::new(),
            false => self.linkers(of_source)?,
        };
        let compiled = source.iter().flat_map(|source| named(source, &packages));
        let inputs: Vec<Named<Task<'_>>> = compiled.chain(whole).collect();
        let (benchmarks, failures) = self.tried(&inputs, |task, at, stem| {
            let linker = || linkers[at].as_ref().map_err(Cause::clone);
            match task {
                Task::Compile(package) => self.compile(&benches[at], package, at, stem),
                Task::Link(program) => self.link(linker()?, program, stem),
                Task::StdCmd => self.build(linker()?),
            }
        })?;
        remarks.extend(failures);
        let tools: Vec<Tool<'_>> = benches.iter().map(Tool::Go).collect();
        let packages = inputs.iter().filter_map(|one| match &one.what {
            Task::Compile(package) => Some((&one.name, Input::Package(package))),
            Task::Link(_) | Task::StdCmd => None,
        });
        let mut proofs = self.proofs(&tools, packages, &benchmarks);
        if self.arguments.prove {
            let variants: Vec<&str> = self.variants.iter().map(|one| &*one.name).collect();
            let is_compiled =
                |one: &&Benchmark| proofs.iter().any(|proof| proof.benchmark == one.name);
            let whole: Vec<&Benchmark> =
                benchmarks.iter().filter(|one| !is_compiled(one)).collect();
            for one in whole {
                let own = proof::prove_again(&one.name, &variants, &one.jobs, self.limits);
                proofs.extend(own);
            }
        }
        let mut facts = vec![("source".to_owned(), of_source.version.clone())];
        if !linkers.is_empty() {
            let hashes = self.variants.iter().filter_map(|variant| {
                let (_, sha256) = variant.linker.as_ref()?;
                Some((&*variant.name, &**sha256))
            });
            let hashes: BTreeMap<&str, &str> = hashes.collect();
            facts.push(("linkers".to_owned(), serde_json::to_string(&hashes)?));
        }
        Ok(Prepared {
            benchmarks,
            facts,
            remarks,
            proofs,
        })
    }

    /// What the user asked for: whole programs only by name.
    fn asked(&self) -> anyhow::Result<Asked> {
        let package = |name: &str, path: &str| Named {
            name: Name::new(name),
            what: path.to_owned(),
            verb: "compile",
        };
        if !self.arguments.inputs.is_empty() {
            let all = self.arguments.inputs.iter();
            return Ok(Asked {
                packages: all.map(|path| package(path, path)).collect(),
                whole: Vec::new(),
            });
        }
        let pattern = self.arguments.pattern()?;
        let matches = |name: &str| pattern.as_ref().map(|pattern| pattern.is_match(name));
        let packages = suite::PACKAGES.iter();
        let packages: Vec<Named<String>> = packages
            .filter(|(name, _)| matches(name) != Some(false))
            .map(|(name, path)| package(name, path))
            .collect();
        let programs = suite::PROGRAMS.iter();
        let programs = programs.map(|one| (one.name, Task::Link(one), "link"));
        let whole: Vec<Named<Task<'_>>> = programs
            .chain([(suite::STD_CMD, Task::StdCmd, "build")])
            .filter(|(name, _, _)| matches(name) == Some(true))
            .map(|(name, what, verb)| Named {
                name: Name::new(name),
                what,
                verb,
            })
            .collect();
        if packages.is_empty() && whole.is_empty() {
            let packages = suite::PACKAGES.iter().map(|(name, _)| *name);
            let programs = suite::PROGRAMS.iter().map(|program| program.name);
            let names: Vec<&str> = packages.chain(programs).chain([suite::STD_CMD]).collect();
            return Err(Usage {
                message: "--run matches no benchmark".to_owned(),
                hint: Some(format!("there are {}", names.join(", "))),
            }
            .into());
        }
        Ok(Asked { packages, whole })
    }

    fn source(&self, go: &Go, packages: &[Named<String>]) -> Result<Source, run::Error> {
        let patterns: Vec<String> = packages.iter().map(|input| input.what.clone()).collect();
        self.progress
            .set_message("listing the packages, and building what they import");
        Source::list(go, &patterns, None, &[], self.cache, self.limits).map_err(run::Error::Refused)
    }

    /// One for each variant.
    fn workbenches<'s>(
        &'s self,
        source: &'s Source,
        remarks: &mut Vec<Warning>,
    ) -> anyhow::Result<Vec<Workbench<'s>>> {
        let mut benches = Vec::new();
        for (go, name) in self.compilers()? {
            let bench = Workbench::new(source, go, self.cache, parallel::cpus(), self.limits);
            let bench = bench.map_err(run::Error::Refused)?;
            if let Some(why) = bench.own_exports_because() {
                remarks.push(Warning(format!(
                    "{name} imports export data of its own, of the same source: {why}"
                )));
            }
            benches.push(bench);
        }
        Ok(benches)
    }

    /// One for each variant, or why it has none.
    fn linkers<'s>(&'s self, of_source: &'s Go) -> anyhow::Result<Vec<Result<Linker<'s>, Cause>>> {
        of_source.toolchain().map_err(run::Error::Refused)?;
        let linkers = self
            .compilers()?
            .into_iter()
            .enumerate()
            .map(|(at, (go, _))| {
                let directory = self.scratch.path().join(format!("goroot-{at:04}"));
                Linker::new(
                    of_source,
                    go,
                    &self.variants[at].flags,
                    &directory,
                    self.cache,
                )
            });
        Ok(linkers.collect())
    }

    /// Each variant's compiler, and its name.
    fn compilers(&self) -> anyhow::Result<Vec<(&Go, &str)>> {
        let compilers = self.variants.iter().map(|variant| match &variant.compiler {
            Compiler::Go(go) => Ok((&**go, &*variant.name)),
            _ => bail!("{} is no Go compiler", variant.name),
        });
        compilers.collect()
    }

    fn file(&self, stem: &str, suffix: &str) -> PathBuf {
        self.scratch.path().join(format!("{stem}{suffix}"))
    }

    fn compile(
        &self,
        bench: &Workbench<'_>,
        package: &Package,
        at: usize,
        stem: &str,
    ) -> Result<Jobs, Cause> {
        if let Some(why) = &package.error {
            return Err(Cause::new(why.clone()));
        }
        let [output, phases, profile] =
            [".a", ".bench", ".mem"].map(|suffix| self.file(stem, suffix));
        let job = |option: OsString| {
            let flags = [&self.variants[at].flags[..], &[option]].concat();
            let job = bench.job(package, &flags, &output, self.limits);
            // Who compiles nothing at all said why at the first trial.
            let job = job.map_err(|cause| match bench.own_exports_because() {
                Some(first) => Cause {
                    why: format!("{}; at first it said: {first}", cause.why),
                    ..cause
                },
                None => cause,
            })?;
            Ok(job.invocation)
        };
        let measured = job(option("-bench=", &phases))?;
        let again = self.again(profile, job)?;
        Ok(Jobs {
            measured,
            output: Some(Made::Object(output)),
            phases: Some(Phases::Written(phases)),
            again,
        })
    }

    fn link(&self, linker: &Linker<'_>, program: &Program, stem: &str) -> Result<Jobs, Cause> {
        self.progress.set_message(format!(
            "building {} and all its packages for {}",
            program.path, program.name
        ));
        let [output, phases, profile] =
            [".exe", ".bench", ".mem"].map(|suffix| self.file(stem, suffix));
        let objects = linker.objects(program.path, self.limits)?;
        let job = |option: OsString| {
            let flags = program.flags.iter().map(OsString::from);
            let flags: Vec<OsString> = flags.chain([option]).collect();
            let job = linker.job(&objects, &flags, &output)?;
            Ok(job.invocation)
        };
        let measured = job("-benchmark=cpu".into())?;
        let again = self.again(profile, job)?;
        Ok(Jobs {
            measured,
            output: Some(Made::Program(output)),
            phases: Some(Phases::Printed(phases)),
            again,
        })
    }

    fn build(&self, linker: &Linker<'_>) -> Result<Jobs, Cause> {
        Ok(Jobs {
            measured: linker.build_all(self.limits)?,
            output: None,
            phases: None,
            again: None,
        })
    }

    /// The repetition with a memory profile, unless it is not wanted.
    fn again(
        &self,
        profile: PathBuf,
        job: impl Fn(OsString) -> Result<Invocation, Cause>,
    ) -> Result<Option<Again>, Cause> {
        if self.arguments.no_alloc {
            return Ok(None);
        }
        let profiled = job(option("-memprofile=", &profile))?;
        Ok(Some(Again::Profiled(profiled, profile)))
    }
}

/// An option with the file that belongs to it.
fn option(name: &str, file: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(file);
    option
}

/// The listed packages with the names of their benchmarks; a pattern of several has one for each.
fn named<'s>(source: &'s Source, asked: &[Named<String>]) -> Vec<Named<Task<'s>>> {
    let place = |package: &Package| asked.iter().position(|input| input.what == package.path);
    let mut wanted: Vec<&Package> = source.wanted().collect();
    wanted.sort_by_key(|package| place(package).unwrap_or(usize::MAX));
    let inputs = wanted.into_iter().map(|package| Named {
        name: match place(package) {
            Some(at) => asked[at].name.clone(),
            None => Name::new(&package.path),
        },
        what: Task::Compile(package),
        verb: "compile",
    });
    inputs.collect()
}
