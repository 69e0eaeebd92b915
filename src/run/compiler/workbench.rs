//! All that one Go compiler needs to compile the packages of one source: import configurations, and export data that it understands. Invokes the compiler itself, never `go build`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::Job;
use super::cache::{self, Cache};
use super::go::{Go, Toolchain};
use super::invocation::{End, Invocation, Limits};
use super::parallel;
use super::scratch::Scratch;
use super::source::{Package, Source};
use crate::sample::Cause;

/// A compiler set up for the packages of a source.
#[derive(Debug)]
pub struct Workbench<'a> {
    source: &'a Source,
    compiler: &'a Go,
    cache: &'a Cache,
    toolchain: &'a Toolchain,
    environment: Vec<(OsString, OsString)>,
    exports: Exports,
}

/// The export data that a compiler imports.
#[derive(Clone, Debug)]
enum Exports {
    /// That of the source's own toolchain.
    Shared,
    /// Its own, of the same source.
    Own {
        /// What it said to the toolchain's.
        why: String,
        files: BTreeMap<String, PathBuf>,
        failures: BTreeMap<String, String>,
    },
}

/// Where export data that we build ourselves is kept.
const EXPORTS: &str = "exports";

/// Where small files for compilers are kept.
pub(super) const INPUTS: &str = "inputs";

impl<'a> Workbench<'a> {
    /// Sets `compiler` up for `source`. Where it does not understand the export data of the
    /// source's toolchain, it compiles its own from the same source, `jobs` packages at once.
    ///
    /// Errors: the cache cannot be written, or we were asked to stop.
    pub fn new(
        source: &'a Source,
        compiler: &'a Go,
        cache: &'a Cache,
        jobs: NonZero<usize>,
        limits: Limits<'_>,
    ) -> Result<Workbench<'a>, Cause> {
        let toolchain = source.go.toolchain()?;
        for part in [EXPORTS, INPUTS] {
            cache.tidy(part);
        }
        let mut bench = Workbench {
            source,
            compiler,
            cache,
            toolchain,
            environment: toolchain.environment(cache)?,
            exports: Exports::Shared,
        };
        if compiler.sha256 != source.go.sha256
            && let Some(why) = bench.trial(limits)?
        {
            bench.exports = bench.own_exports(why, jobs, limits)?;
        }
        Ok(bench)
    }

    /// What compiles here.
    pub fn compiler(&self) -> &'a Go {
        self.compiler
    }

    /// Why this compiler has export data of its own; `None` where it shares the toolchain's.
    pub fn own_exports_because(&self) -> Option<&str> {
        match &self.exports {
            Exports::Shared => None,
            Exports::Own { why, .. } => Some(why),
        }
    }

    /// How to compile `package` with these further flags into the archive `output`.
    ///
    /// Errors: an import has no export data, the package's assembly is not understood, or the
    /// cache cannot be written.
    pub fn job(
        &self,
        package: &Package,
        flags: &[OsString],
        output: &Path,
        limits: Limits<'_>,
    ) -> Result<Job, Cause> {
        let (files, failures) = match &self.exports {
            Exports::Shared => (&self.source.exports, None),
            Exports::Own {
                files, failures, ..
            } => (files, Some(failures)),
        };
        let failed = |import: &&String| failures.is_some_and(|all| all.contains_key(*import));
        if let Some(import) = package.imports.iter().find(failed) {
            let why = failures
                .and_then(|all| all.get(import))
                .map_or("", |why| why);
            return Err(Cause::new(format!(
                "it imports {import}, which this compiler cannot compile: {why}"
            )));
        }
        let inputs = self.inputs(package, files, limits)?;
        Ok(self.assemble(package, &inputs, flags, output))
    }

    /// The arguments with which the compiler finds what belongs to a package.
    fn inputs(
        &self,
        package: &Package,
        exports: &BTreeMap<String, PathBuf>,
        limits: Limits<'_>,
    ) -> Result<Vec<OsString>, Cause> {
        if package.go_files.is_empty() {
            let why = package
                .error
                .as_deref()
                .unwrap_or("it has no Go files here");
            return Err(Cause::new(why));
        }
        let configuration = package.import_configuration(exports)?;
        let configuration = self.cache.keep(INPUTS, configuration.as_bytes())?;
        let mut arguments: Vec<OsString> = vec!["-importcfg".into(), configuration.into()];
        if let Some(symbols) = package.assembly_symbols(self.toolchain, self.cache, limits)? {
            arguments.extend(["-symabis".into(), symbols.into()]);
        }
        if let Some(embeds) = package.embed_configuration() {
            let embeds = self.cache.keep(INPUTS, embeds.as_bytes())?;
            arguments.extend(["-embedcfg".into(), embeds.into()]);
        }
        Ok(arguments)
    }

    fn assemble(
        &self,
        package: &Package,
        inputs: &[OsString],
        flags: &[OsString],
        output: &Path,
    ) -> Job {
        let mut arguments: Vec<OsString> = vec!["-o".into(), output.into()];
        arguments.extend(["-p".into(), package.path.clone().into()]);
        if let Some(language) = &package.language {
            arguments.push(format!("-lang={language}").into());
        }
        if package.standard {
            arguments.push("-std".into());
        }
        // As many as the go command would give it.
        arguments.push(format!("-c={}", parallel::cpus().get().min(4)).into());
        arguments.push("-pack".into());
        arguments.extend_from_slice(inputs);
        arguments.extend_from_slice(flags);
        arguments.extend(package.go_files.iter().map(OsString::from));
        Job {
            invocation: Invocation {
                program: self.compiler.compile.clone(),
                arguments,
                environment: self.environment.clone(),
                ..Invocation::default()
            },
            output: output.to_owned(),
        }
    }

    /// Has the compiler import something of the toolchain's, and gives what it has against it.
    fn trial(&self, limits: Limits<'_>) -> Result<Option<String>, Cause> {
        let packages = &self.source.packages;
        let imported = packages.iter().rev().find(|one| {
            let is_imported = packages
                .iter()
                .any(|other| other.imports.contains(&one.path));
            is_imported && self.source.exports.contains_key(&one.path)
        });
        let Some(imported) = imported else {
            return Ok(None);
        };
        let scratch = Scratch::new()?;
        let file = scratch.path().join("trial.go");
        let text = format!("package trial\n\nimport _ {:?}\n", imported.path);
        cache::write(&file, text.as_bytes())?;
        let trial = Package {
            path: "trial".to_owned(),
            go_files: vec![file],
            imports: vec![imported.path.clone()],
            ..Package::default()
        };
        let job = self.job(&trial, &[], &scratch.path().join("trial.a"), limits)?;
        let ended = job.invocation.run(limits)?;
        Ok(ended.failure().map(|why| {
            let said = ended.first_line().unwrap_or(why);
            match said.split_once("could not import ") {
                Some((_, said)) if said.contains("object is [") => {
                    format!(
                        "{} takes no objects of another version",
                        self.compiler.version
                    )
                }
                // Behind the place in a file that the user never wrote.
                Some((_, said)) => format!("could not import {said}"),
                None => said,
            }
        }))
    }

    /// Compiles all that is imported, each package after its imports.
    fn own_exports(
        &self,
        why: String,
        jobs: NonZero<usize>,
        limits: Limits<'_>,
    ) -> Result<Exports, Cause> {
        let directory = self.cache.part(EXPORTS)?;
        let packages = &self.source.packages;
        let place: BTreeMap<&str, usize> = packages
            .iter()
            .enumerate()
            .map(|(place, package)| (&*package.path, place))
            .collect();
        let imports: Vec<Vec<usize>> = packages
            .iter()
            .map(|package| {
                let imports = package.imports.iter();
                imports
                    .filter_map(|path| place.get(&**path).copied())
                    .collect()
            })
            .collect();
        let is_imported = |at: usize| imports.iter().any(|all| all.contains(&at));
        let built: Vec<OnceLock<Result<Export, String>>> =
            packages.iter().map(|_| OnceLock::new()).collect();
        let results = parallel::in_order(&imports, jobs, |at| {
            if !is_imported(at) {
                return Ok(());
            }
            let of_imports = imports[at].iter().map(|&one| {
                let export = built[one].get().and_then(|built| built.as_ref().ok());
                (packages[one].path.clone(), export.cloned())
            });
            let export = self.export(&packages[at], of_imports.collect(), &directory, limits)?;
            built[at].get_or_init(|| export);
            Ok(())
        });
        results.into_iter().collect::<Result<Vec<()>, Cause>>()?;
        let (mut files, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for (package, built) in packages.iter().zip(built) {
            match built.into_inner() {
                Some(Ok(export)) => drop(files.insert(package.path.clone(), export.file)),
                Some(Err(why)) => drop(failures.insert(package.path.clone(), why)),
                None => {}
            }
        }
        Ok(Exports::Own {
            why,
            files,
            failures,
        })
    }

    /// Export data of one package, from the cache or from the compiler; or why it cannot be had.
    ///
    /// Errors: what would befall all packages alike.
    fn export(
        &self,
        package: &Package,
        imports: BTreeMap<String, Option<Export>>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<Result<Export, String>, Cause> {
        if let Some((path, _)) = imports.iter().find(|(_, export)| export.is_none()) {
            return Ok(Err(format!("it imports {path}")));
        }
        let imports: BTreeMap<String, Export> = imports
            .into_iter()
            .filter_map(|(path, export)| Some((path, export?)))
            .collect();
        let files = imports
            .iter()
            .map(|(path, export)| (path.clone(), export.file.clone()));
        let inputs = match self.inputs(package, &files.collect(), limits) {
            Ok(inputs) => inputs,
            Err(cause) => return Ok(Err(cause.to_string())),
        };
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.compiler.sha256, package.path));
        hash.update(format!("{:?} {}\n", package.language, package.standard));
        hash.update(package.hash()?);
        for (key, value) in &self.environment {
            // Those of Go that can matter; where we keep things does not.
            let key = key.to_string_lossy();
            if key.starts_with("GO") && !["GOCACHE", "GOPATH", "GOMODCACHE"].contains(&&*key) {
                hash.update(format!("{key}={}\n", value.to_string_lossy()));
            }
        }
        for input in inputs.iter().skip(2) {
            hash.update(format!("{}\n", input.to_string_lossy()));
        }
        for (path, export) in &imports {
            hash.update(format!("{path} {}\n", export.key));
        }
        let key = cache::hex(&hash.finalize());
        let file = directory.join(format!("{key}.a"));
        if !cache::used(&file) {
            let scratch = Scratch::within(directory)?;
            let output = scratch.path().join("export.a");
            let ended = self
                .assemble(package, &inputs, &[], &output)
                .invocation
                .run(limits)?;
            if let End::Interrupted(signal) = ended.end {
                return Err(Cause::new(format!("stopped by {signal}")));
            }
            if let Some(why) = ended.failure() {
                return Ok(Err(ended.first_line().unwrap_or(why)));
            }
            std::fs::rename(&output, &file).map_err(|error| cache::unwritable(&file, &error))?;
        }
        Ok(Ok(Export { key, file }))
    }
}

/// Export data that we built ourselves.
#[derive(Clone, Debug)]
struct Export {
    /// A hash of all that it is made from.
    key: String,
    file: PathBuf,
}
