//! The builds of a bisection, and what a benchmark finds of them. Never runs a benchmark.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{BENCH, Made, Session};
use crate::bisect::record::BUILD;
use crate::run;
use crate::run::build::{Allowance, Build, Recipe};
use crate::run::compiler::invocation::{Invocation, Limits};
use crate::run::compiler::parallel;
use crate::sample::{Failure, Figure, Name, Record, Sample, Value};

impl Session<'_> {
    /// Builds commits, at once as far as the user wants it. One that fails is tried once more: it
    /// may have been bad luck.
    pub(super) fn build(&mut self, places: &[usize]) -> anyhow::Result<Made> {
        let arguments = self.setting.arguments;
        let limits = Limits {
            timeout: arguments.build_timeout,
            interrupt: self.setting.interrupt,
        };
        let (line, repository) = (&self.line, self.setting.repository);
        let (builds, recipe, jobs) = (&self.builds, &self.recipe, arguments.jobs);
        let alone = vec![Vec::new(); places.len()];
        let results = parallel::in_order(&alone, jobs, |at| {
            let commit = line.commits[places[at]].commit();
            let began = Instant::now();
            let attempt = |again| {
                let allowance = Allowance {
                    // Others who build may have slots of their own.
                    jobs: jobs.saturating_add(1).max(NonZero::<usize>::MIN),
                    again,
                    limits,
                };
                builds.build(repository, &commit, recipe, allowance)
            };
            let built = match attempt(false) {
                Ok(failed) if failed.about.failure.is_some() => {
                    drop(failed);
                    attempt(true)
                }
                built => built,
            };
            (built, began.elapsed())
        });
        if let Some(signal) = self.setting.interrupt.caught() {
            return Ok(Made::Stopped(signal));
        }
        for (&place, (built, took)) in places.iter().zip(results) {
            let mut build = built.map_err(run::Error::Refused)?;
            let mut failure = build.about.failure.take();
            let said = build.last_words(5).join("\n");
            if failure.is_none() {
                failure = self.compile(place, &build)?;
            }
            let variant = self.line.commits[place].id.clone();
            let sec = match build.was_kept {
                true => build.about.seconds as f64,
                false => took.as_secs_f64(),
            };
            let record = match failure {
                None => {
                    let order = self.order(0);
                    self.built.insert(place, build);
                    Record::Sample(Sample {
                        benchmark: Name::new(BUILD),
                        variant,
                        iterations: 1,
                        order,
                        config: BTreeMap::new(),
                        values: vec![Value::new("sec/op", Figure::Exact(sec))],
                        warnings: Vec::new(),
                    })
                }
                Some(why) => Record::Failure(Failure {
                    benchmark: Name::new(BUILD),
                    variant,
                    order: self.order(0),
                    why: format!("it cannot be built: {why}"),
                    stderr: said,
                }),
            };
            self.record(record)?;
        }
        // What the machine did meanwhile is nobody's run.
        self.noise.look();
        Ok(Made::Well)
    }

    /// Where Go itself is bisected: the test binary of the benchmark's directory, made by this
    /// toolchain. Why it cannot be made, if it cannot.
    fn compile(&self, place: usize, build: &Build) -> anyhow::Result<Option<String>> {
        let Some(directory) = self.compiles() else {
            return Ok(None);
        };
        let limits = Limits {
            timeout: self.setting.arguments.build_timeout,
            interrupt: self.setting.interrupt,
        };
        let set = self.environment(place, &build.tree);
        let users = std::env::vars_os();
        let users = users.filter(|(key, _)| !set.iter().any(|(name, _)| key == name));
        let set = set
            .iter()
            .map(|(key, value)| (OsString::from(key), value.clone()));
        let output = self.binary(place);
        let ended = Invocation {
            program: build.tree.join("bin/go"),
            arguments: ["test", "-c", "-o"]
                .into_iter()
                .map(OsString::from)
                .chain([output.into_os_string(), ".".into()])
                .collect(),
            environment: users.chain(set).collect(),
            directory: Some(directory.to_owned()),
            ..Invocation::default()
        }
        .run(limits)
        .map_err(run::Error::Refused)?;
        Ok(ended.failure().map(|why| {
            let said = ended.first_line().unwrap_or_default();
            format!("go test -c: {why}: {said}")
        }))
    }

    /// The directory whose test binary is to be made, if any is.
    fn compiles(&self) -> Option<&Path> {
        let arguments = self.setting.arguments;
        let is_go = matches!(self.recipe, Recipe::MakeBash { .. });
        let wants = |word: &OsString| word.to_string_lossy().contains(BENCH);
        let is_wanted = is_go && arguments.benchmark.iter().any(wants);
        is_wanted.then(|| arguments.benchmark_dir.as_deref().unwrap_or(".".as_ref()))
    }

    pub(super) fn binary(&self, place: usize) -> PathBuf {
        let name = format!("bench-{}", self.line.commits[place].short());
        self.directory.join(name)
    }

    /// What the benchmark finds in its environment.
    pub(super) fn environment(&self, place: usize, tree: &Path) -> Vec<(&'static str, OsString)> {
        let mut set = vec![
            ("POISE_TREE", tree.as_os_str().to_owned()),
            ("POISE_COMMIT", self.line.commits[place].id.clone().into()),
        ];
        if let Recipe::MakeBash { .. } = self.recipe {
            let users = std::env::var_os("PATH").unwrap_or_default();
            let users = std::env::split_paths(&users).collect::<Vec<_>>();
            let paths = std::iter::once(tree.join("bin")).chain(users);
            set.push(("GOROOT", tree.as_os_str().to_owned()));
            set.push(("GOTOOLCHAIN", "local".into()));
            // A path with a colon cannot stand there.
            set.extend(std::env::join_paths(paths).map(|joined| ("PATH", joined)));
        }
        set
    }
}
