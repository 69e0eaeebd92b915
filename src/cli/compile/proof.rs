//! Whether each variant makes what the control makes, byte for byte: else what is called better may be another language. Leaves the comparison to [`identical`].

use std::ffi::OsString;

use crate::report::identical::describe;
use crate::run::compilation::Jobs;
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::{cache, parallel};
use crate::run::identical::{self, Input, Outcome, Pair, Rule, Tool};
use crate::sample::Name;

/// What came of comparing the outputs for one benchmark.
pub(super) struct Proof {
    pub(super) benchmark: Name,
    pub(super) variant: String,
    /// Why the outputs are not proven identical; `None` when they are.
    pub(super) failure: Option<String>,
}

/// A compiler and its flags, under its name.
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) tool: Tool<'a>,
    pub(super) flags: &'a [OsString],
}

/// Compiles every input twice by each side, and compares the outputs of each with the first's.
pub(super) fn prove(
    sides: &[Side<'_>],
    benchmarks: &[(Name, Input<'_>)],
    limits: Limits<'_>,
) -> Vec<Proof> {
    let [control, others @ ..] = sides else {
        return Vec::new();
    };
    let inputs: Vec<Input<'_>> = benchmarks.iter().map(|(_, input)| *input).collect();
    let mut proofs = Vec::new();
    for other in others {
        let pair = Pair {
            tools: [control.tool, other.tool],
            flags: [control.flags.to_vec(), other.flags.to_vec()],
            rules: Rule::ALL.to_vec(),
            limits,
        };
        let compared = identical::prove(&pair, &inputs, parallel::cpus(), &|_| {});
        for ((benchmark, _), one) in benchmarks.iter().zip(compared) {
            let is_proven = one.outcome == Outcome::Identical;
            proofs.push(Proof {
                benchmark: benchmark.clone(),
                variant: other.name.to_owned(),
                failure: (!is_proven).then(|| describe(&one.outcome)),
            });
        }
    }
    proofs
}

/// Makes for one benchmark once more what all variants have already made, and compares the files of
/// each with the first's.
pub(super) fn prove_again(
    benchmark: &Name,
    variants: &[&str],
    jobs: &[Jobs],
    limits: Limits<'_>,
) -> Vec<Proof> {
    let hashes: Vec<_> = jobs.iter().map(|jobs| made_twice(jobs, limits)).collect();
    let others = variants.iter().zip(&hashes).skip(1);
    let proofs = others.map(|(variant, own)| Proof {
        benchmark: benchmark.clone(),
        variant: (*variant).to_owned(),
        failure: match (&hashes[0], own) {
            (Err(why), _) | (_, Err(why)) => Some(why.clone()),
            (Ok(first), Ok(own)) => (first != own).then(|| "the programs differ".to_owned()),
        },
    });
    proofs.collect()
}

/// The hash of what is made, the same each time; or why there is none.
fn made_twice(jobs: &Jobs, limits: Limits<'_>) -> Result<String, String> {
    let made = jobs.output.as_ref();
    let file = made.ok_or("what it makes is not kept")?.file();
    let hash =
        || cache::sha256(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
    let first = hash()?;
    let again = jobs.measured.run(limits).map_err(|cause| cause.why)?;
    match again.failure() {
        Some(why) => Err(why),
        None if hash()? != first => Err("it makes other bytes each time".to_owned()),
        None => Ok(first),
    }
}
