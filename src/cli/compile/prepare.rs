//! Making compilers ready for the inputs that they have in common: what is made under which name, how, and what is left out and why. Never measures.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

mod go;

use super::proof::{self, Proof, Side};
use super::{Arguments, Variant, template};
use crate::cli::Usage;
use crate::cli::options::OutputOptions;
use crate::run::compilation::{Again, Jobs, Made, NOTHING_MADE};
use crate::run::compiler::cache::Cache;
use crate::run::compiler::invocation::{End, Limits};
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::template::Template;
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

/// What all variants make, under one name.
pub(super) struct Benchmark {
    pub(super) name: Name,
    /// One for each variant, in their order.
    pub(super) jobs: Vec<Jobs>,
}

/// What is to be made by all variants, in their order; each has done so once.
pub(super) struct Prepared {
    pub(super) benchmarks: Vec<Benchmark>,
    pub(super) facts: Vec<(String, String)>,
    pub(super) remarks: Vec<Warning>,
    pub(super) proofs: Vec<Proof>,
}

impl Preparation<'_> {
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
                verb: "compile",
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
                output: Some(Made::Object(job.output)),
                measured: job.invocation,
            })
        })?;
        let tools: Vec<Tool<'_>> = templates.iter().map(|one| Tool::Template(one)).collect();
        let files = inputs.iter().map(|one| (&one.name, Input::File(&one.what)));
        let proofs = self.proofs(&tools, files, &benchmarks);
        Ok(Prepared {
            benchmarks,
            facts: Vec::new(),
            remarks,
            proofs,
        })
    }

    /// Whether what is compiled for these benchmarks is identical, if that is to be proven.
    fn proofs<'i>(
        &self,
        tools: &[Tool<'_>],
        inputs: impl Iterator<Item = (&'i Name, Input<'i>)>,
        benchmarks: &[Benchmark],
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
        let inputs: Vec<(Name, Input<'_>)> = inputs
            .filter(|(name, _)| compiled(name))
            .map(|(name, input)| (name.clone(), input))
            .collect();
        self.progress
            .set_message("proving that the outputs are identical");
        proof::prove(&sides.collect::<Vec<_>>(), &inputs, self.limits)
    }

    /// Does what will be measured once. Errors: it fails, or has made nothing.
    fn once(&self, jobs: &Jobs) -> Result<(), Cause> {
        let ended = jobs.measured.run(self.limits)?;
        let is_made = || {
            jobs.output
                .as_ref()
                .is_none_or(|made| made.file().is_file())
        };
        match (ended.end, ended.failure()) {
            (_, None) if is_made() => Ok(()),
            (_, None) => Err(Cause::new(NOTHING_MADE)),
            (End::Interrupted(_), Some(why)) => Err(Cause::new(why)),
            (_, Some(why)) => Err(Cause::new(match ended.first_line() {
                Some(said) => format!("{why}, saying: {said}"),
                None => why,
            })),
        }
    }

    /// The jobs of those inputs that all variants make something of; why the others are left out.
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
            let refused = |at: usize, cause: Cause| {
                let name = &self.variants[at].name;
                let why = format!("{name} cannot {} {}: {}", input.verb, input.name, cause.why);
                Cause { why, ..cause }
            };
            // Names of one length: the compiler has to keep them.
            let made = (0..self.variants.len()).map(|at| {
                jobs(&input.what, at, &format!("{number:04}-{at:04}"))
                    .map_err(|cause| refused(at, cause))
            });
            // What is refused at once is so before others take their time.
            let tried = made.collect::<Result<Vec<Jobs>, Cause>>().and_then(|made| {
                for (at, jobs) in made.iter().enumerate() {
                    self.once(jobs).map_err(|cause| refused(at, cause))?;
                }
                Ok(made)
            });
            match tried {
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

/// An input under the name of its benchmark.
struct Named<T> {
    name: Name,
    what: T,
    /// What is done with it: compile.
    verb: &'static str,
}

/// What is done before anything is measured, on a terminal.
pub(super) fn spinner(output: &OutputOptions) -> ProgressBar {
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
