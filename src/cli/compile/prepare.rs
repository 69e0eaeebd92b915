//! Making compilers ready for the inputs that they have in common: what is compiled under which name, how, and what is left out and why. Never measures.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::proof::{self, Proof, Side};
use super::{Arguments, Variant, template};
use crate::cli::Usage;
use crate::cli::options::OutputOptions;
use crate::run;
use crate::run::compilation::{Again, Jobs, suite};
use crate::run::compiler::cache::Cache;
use crate::run::compiler::go::Go;
use crate::run::compiler::invocation::{End, Limits};
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::source::{Package, Source};
use crate::run::compiler::template::Template;
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Compiler, parallel};
use crate::run::identical::{Input, Tool};
use crate::sample::{Cause, Name, Warning};

/// All that is needed to make the compilers ready.
pub(super) struct Preparation<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) variants: &'a [Variant],
    pub(super) cache: &'a Cache,
    pub(super) scratch: &'a Scratch,
    pub(super) limits: Limits<'a>,
    pub(super) progress: ProgressBar,
}

/// What all variants compile, under one name.
pub(super) struct Benchmark {
    pub(super) name: Name,
    /// One for each variant, in their order.
    pub(super) jobs: Vec<Jobs>,
}

/// What is to be compiled by all variants, in their order; each has done so once.
pub(super) struct Prepared {
    pub(super) benchmarks: Vec<Benchmark>,
    pub(super) facts: Vec<(String, String)>,
    pub(super) remarks: Vec<Warning>,
    pub(super) proofs: Vec<Proof>,
}

impl Preparation<'_> {
    /// Packages of one Go source.
    pub(super) fn go(&self, first: &Go) -> anyhow::Result<Prepared> {
        let of_source = match &self.arguments.source {
            Some(root) => Some(Go::in_root(root, self.limits).map_err(Usage::from)?),
            None => None,
        };
        let of_source = of_source.as_ref().unwrap_or(first);
        let (packages, mut remarks) = self.packages()?;
        let patterns: Vec<String> = packages.iter().map(|input| input.what.clone()).collect();
        self.progress
            .set_message("listing the packages, and building what they import");
        let source = Source::list(of_source, &patterns, None, self.cache, self.limits)
            .map_err(run::Error::Refused)?;
        let mut benches = Vec::new();
        for variant in self.variants {
            let Compiler::Go(go) = &variant.compiler else {
                bail!("{} is no Go compiler", variant.name);
            };
            let bench = Workbench::new(&source, go, self.cache, parallel::cpus(), self.limits);
            let bench = bench.map_err(run::Error::Refused)?;
            if let Some(why) = bench.own_exports_because() {
                remarks.push(Warning(format!(
                    "{} imports export data of its own, of the same source: {why}",
                    variant.name
                )));
            }
            benches.push(bench);
        }
        let inputs = named(&source, packages);
        let tried = self.tried(&inputs, |package, at, stem| {
            if let Some(why) = &package.error {
                return Err(Cause::new(why.clone()));
            }
            let file = |suffix: &str| self.scratch.path().join(format!("{stem}{suffix}"));
            let (output, phases, profile) = (file(".a"), file(".bench"), file(".mem"));
            let job = |option: &str, into: &Path| {
                let mut flag = OsString::from(option);
                flag.push(into);
                let flags: Vec<OsString> = self.variants[at]
                    .flags
                    .iter()
                    .cloned()
                    .chain([flag])
                    .collect();
                let job = benches[at].job(package, &flags, &output, self.limits);
                // Who compiles nothing at all said why at the first trial.
                job.map_err(|cause| match benches[at].own_exports_because() {
                    Some(first) => Cause {
                        why: format!("{}; at first it said: {first}", cause.why),
                        ..cause
                    },
                    None => cause,
                })
            };
            let again = match self.arguments.no_alloc {
                true => None,
                false => {
                    let profiled = job("-memprofile=", &profile)?.invocation;
                    Some(Again::Profiled(profiled, profile))
                }
            };
            Ok(Jobs {
                measured: job("-bench=", &phases)?.invocation,
                output: Some(output.clone()),
                phases: Some(phases),
                again,
            })
        });
        let (benchmarks, failures) = tried?;
        remarks.extend(failures);
        let tools: Vec<Tool<'_>> = benches.iter().map(Tool::Go).collect();
        let proofs = self.proofs(&tools, &inputs, &benchmarks, Input::Package);
        Ok(Prepared {
            benchmarks,
            facts: vec![("source".to_owned(), of_source.version.clone())],
            remarks,
            proofs,
        })
    }

    /// The packages to compile, by benchmark; and what is not to be had.
    fn packages(&self) -> anyhow::Result<(Vec<Named<String>>, Vec<Warning>)> {
        let pattern = self.arguments.pattern()?;
        let is_wanted = |name: &str| pattern.as_ref().is_none_or(|one| one.is_match(name));
        if !self.arguments.inputs.is_empty() {
            let all = self.arguments.inputs.iter().map(|path| Named {
                name: Name::new(path),
                what: path.clone(),
            });
            return Ok((all.collect(), Vec::new()));
        }
        let known = suite::PACKAGES.iter().filter(|(name, _)| is_wanted(name));
        let known: Vec<Named<String>> = known
            .map(|(name, path)| Named {
                name: Name::new(name),
                what: (*path).to_owned(),
            })
            .collect();
        let others = suite::OTHERS.iter().filter(|(name, _)| is_wanted(name));
        let missing: Vec<String> = others.map(|(name, why)| format!("{name}: {why}")).collect();
        if known.is_empty() {
            let names = suite::PACKAGES.map(|(name, _)| name).join(", ");
            let message = match missing.is_empty() {
                true => "--run matches no benchmark".to_owned(),
                false => format!("not to be had: {}", missing.join("; ")),
            };
            return Err(Usage {
                message,
                hint: Some(format!("there are {names}")),
            }
            .into());
        }
        // Who asks for all of them does not miss these.
        let missing = missing.into_iter().filter(|_| pattern.is_some());
        let remarks = missing.map(|what| Warning(format!("not to be had: {what}")));
        Ok((known, remarks.collect()))
    }

    /// Files, each made into one object.
    pub(super) fn others(&self) -> anyhow::Result<Prepared> {
        let templates: Vec<&Template> = self.variants.iter().filter_map(template).collect();
        if self.arguments.inputs.is_empty() {
            return Err(Usage::new("there is no file to compile").into());
        }
        if self.arguments.source.is_some() {
            return Err(Usage::new("--source is for Go compilers").into());
        }
        let mut inputs = Vec::new();
        for file in &self.arguments.inputs {
            let path = Path::new(file);
            if let Err(error) = std::fs::File::open(path) {
                bail!("cannot read {file}: {error}");
            }
            let unfit = |one: &&(&Template, &Variant)| !one.0.takes(path);
            let both: Vec<_> = templates.iter().copied().zip(self.variants).collect();
            if let Some((_, variant)) = both.iter().find(unfit) {
                return Err(Usage::new(format!(
                    "{file} is nothing that {} compiles",
                    variant.name
                ))
                .into());
            }
            inputs.push(Named {
                name: Name::new(file),
                what: path.to_owned(),
            });
        }
        let (benchmarks, remarks) = self.tried(&inputs, |file, at, stem| {
            let (template, flags) = (templates[at], &self.variants[at].flags);
            let output = format!("{stem}.{}", template.output_suffix());
            let job = template.job(file, flags, &self.scratch.path().join(output));
            let again = template.phases.clone();
            let again = again.filter(|_| !self.arguments.no_alloc).map(|pattern| {
                let flags = [&flags[..], &template.phase_flags].concat();
                let job = template.job(file, &flags, &job.output);
                Again::Logged(job.invocation, pattern)
            });
            Ok(Jobs {
                again,
                phases: None,
                output: Some(job.output),
                measured: job.invocation,
            })
        })?;
        let tools: Vec<Tool<'_>> = templates.iter().map(|one| Tool::Template(one)).collect();
        let proofs = self.proofs(&tools, &inputs, &benchmarks, |file| Input::File(file));
        Ok(Prepared {
            benchmarks,
            facts: Vec::new(),
            remarks,
            proofs,
        })
    }

    /// Whether the outputs for these benchmarks are identical, if that is to be proven.
    fn proofs<'i, T>(
        &self,
        tools: &[Tool<'_>],
        inputs: &'i [Named<T>],
        benchmarks: &[Benchmark],
        input: impl Fn(&'i T) -> Input<'i>,
    ) -> Vec<Proof> {
        if !self.arguments.prove {
            return Vec::new();
        }
        let sides = self.variants.iter().zip(tools).map(|(variant, tool)| Side {
            name: &variant.name,
            tool: *tool,
            flags: &variant.flags,
        });
        let compiled = |name: &Name| benchmarks.iter().any(|one| one.name == *name);
        let inputs = inputs.iter().filter(|one| compiled(&one.name));
        let inputs: Vec<(Name, Input<'_>)> = inputs
            .map(|one| (one.name.clone(), input(&one.what)))
            .collect();
        self.progress
            .set_message("proving that the outputs are identical");
        proof::prove(&sides.collect::<Vec<_>>(), &inputs, self.limits)
    }

    /// The jobs of those inputs that all variants compile; why the others are left out.
    /// Errors: there is none, or we were asked to stop.
    fn tried<T>(
        &self,
        inputs: &[Named<T>],
        jobs: impl Fn(&T, usize, &str) -> Result<Jobs, Cause>,
    ) -> anyhow::Result<(Vec<Benchmark>, Vec<Warning>)> {
        let (mut benchmarks, mut remarks) = (Vec::new(), Vec::new());
        let pattern = self.arguments.pattern()?;
        let is_wanted = |one: &&Named<T>| {
            let name = one.name.to_string();
            pattern.as_ref().is_none_or(|one| one.is_match(&name))
        };
        for (number, input) in inputs.iter().filter(is_wanted).enumerate() {
            self.progress
                .set_message(format!("{} for the first time", input.name));
            let tries = self.variants.iter().enumerate().map(|(at, variant)| {
                // Names of one length: the compiler has to keep them.
                let stem = format!("{number:04}-{at:04}");
                let tried = jobs(&input.what, at, &stem).and_then(|made| {
                    let ended = made.measured.run(self.limits)?;
                    match (ended.end, ended.failure()) {
                        (_, None) => Ok(made),
                        (End::Interrupted(_), Some(why)) => Err(Cause::new(why)),
                        (_, Some(why)) => Err(Cause::new(match ended.first_line() {
                            Some(said) => format!("{why}, saying: {said}"),
                            None => why,
                        })),
                    }
                });
                tried.map_err(|cause| Cause {
                    why: format!(
                        "{} cannot compile {}: {}",
                        variant.name, input.name, cause.why
                    ),
                    ..cause
                })
            });
            match tries.collect::<Result<Vec<Jobs>, Cause>>() {
                Ok(made) => benchmarks.push(Benchmark {
                    name: input.name.clone(),
                    jobs: made,
                }),
                Err(cause) => remarks.push(cause),
            }
        }
        match (benchmarks.is_empty(), remarks.first()) {
            (true, Some(first)) => bail!("{first}"),
            (true, None) => Err(Usage::new("--run matches no benchmark").into()),
            _ => {
                let left_out = remarks
                    .iter()
                    .map(|why| Warning(format!("left out: {why}")));
                Ok((benchmarks, left_out.collect()))
            }
        }
    }
}

/// The listed packages with the names of their benchmarks; a pattern of several has one for each.
fn named(source: &Source, asked: Vec<Named<String>>) -> Vec<Named<Package>> {
    let name = |package: &Package| {
        let known = asked.iter().find(|input| input.what == package.path);
        known.map_or_else(|| Name::new(&package.path), |input| input.name.clone())
    };
    let place = |package: &Package| asked.iter().position(|input| input.what == package.path);
    let mut wanted: Vec<&Package> = source.wanted().collect();
    wanted.sort_by_key(|package| place(package).unwrap_or(usize::MAX));
    let inputs = wanted.into_iter().map(|package| Named {
        name: name(package),
        what: package.clone(),
    });
    inputs.collect()
}

/// An input under the name of its benchmark.
struct Named<T> {
    name: Name,
    what: T,
}

/// What is done before anything is measured, on a terminal.
pub(super) fn progress(output: &OutputOptions) -> ProgressBar {
    if output.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
