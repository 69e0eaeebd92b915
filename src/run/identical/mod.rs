//! Whether two compilers make the same of the same inputs, byte for byte, and where they first do not. Each compiles every input twice, so that a compiler that varies by itself is not taken for one that changed. Never prints, never counts events.

mod listing;
mod output;
mod rules;
mod symbols;

use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::run::compiler::cache::{hex, unwritable};
use crate::run::compiler::invocation::{End, Limits};
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::source::Package;
use crate::run::compiler::template::Template;
use crate::run::compiler::workbench::Workbench;
use crate::run::compiler::{Job, parallel};
use crate::sample::Cause;
use listing::Style;
pub use listing::{Listing, Row};
use output::{Kind, take_apart};
pub use rules::Rule;
use rules::Taken;

/// The old compiler and the new one.
pub const SIDES: [&str; 2] = ["old", "new"];

/// One of the two compilers, ready to compile.
#[derive(Clone, Copy, Debug)]
pub enum Tool<'a> {
    /// Go's, for packages.
    Go(&'a Workbench<'a>),
    /// Any other, for files.
    Template(&'a Template),
}

/// What is compiled.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A Go package.
    Package(&'a Package),
    /// A file.
    File(&'a Path),
}

/// Two compilers to be held against each other.
#[derive(Clone)]
pub struct Pair<'a> {
    /// The old one and the new one.
    pub tools: [Tool<'a>; 2],
    /// Flags of each.
    pub flags: [Vec<OsString>; 2],
    /// The rules by which outputs may differ.
    pub rules: Vec<Rule>,
    /// When a compilation is given up.
    pub limits: Limits<'a>,
}

/// What came of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Its import path or file name.
    pub input: String,
    /// Whether the outputs are the same.
    pub outcome: Outcome,
    /// What each side made, where it made something.
    pub made: [Option<Made>; 2],
    /// The rules without which the outputs would differ more.
    pub rules: Vec<Rule>,
    /// The first line in which the compilers' words differ, where both compiled.
    pub log: Option<(usize, String, String)>,
}

/// What one side made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The length of the output.
    pub bytes: u64,
    /// Its hash, before any rule.
    pub sha256: String,
}

/// Whether the outputs are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are, but for what the rules pass over.
    Identical,
    /// They are not.
    Differs(Place),
    /// One compiler compiles the input and the other refuses it or breaks.
    Refused {
        /// Which does not, of [`SIDES`].
        side: usize,
        /// How it ended, and what it said.
        why: String,
    },
    /// One compiler made different things of the same input, so nothing can be said of the two.
    Nondeterministic {
        /// Which, of [`SIDES`].
        side: usize,
        /// Where its own outputs differ.
        place: Place,
    },
    /// Nothing can be said: it was not compiled, for want of time, of room, or at all.
    Failed {
        /// Which side failed, of [`SIDES`]; the old one when both did.
        side: usize,
        /// How it ended, and what it said.
        why: String,
    },
    /// We were asked to stop.
    Stopped(Signal),
}

/// Where two outputs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first part that differs: `_go_.o`, `section .text`, `layout`.
    pub part: String,
    /// The offset in it of the first differing byte.
    pub offset: usize,
    /// What stands there in the old output and in the new one, where it is words: `align 1`.
    pub words: Option<[String; 2]>,
    /// The functions that differ, in the order of the old output.
    pub functions: Vec<String>,
    /// The other symbols that differ.
    pub data: Vec<String>,
}

/// What all inputs together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All outputs are identical.
    Identical,
    /// Some input could not be compiled, and none differs.
    Unproven,
    /// Some output varies by itself, and none differs otherwise.
    Nondeterministic,
    /// Some output differs.
    Different,
}

impl Outcome {
    /// What this outcome makes of the whole.
    pub fn verdict(&self) -> Verdict {
        match self {
            Outcome::Identical => Verdict::Identical,
            Outcome::Failed { .. } | Outcome::Stopped(_) => Verdict::Unproven,
            Outcome::Nondeterministic { .. } => Verdict::Nondeterministic,
            Outcome::Differs(_) | Outcome::Refused { .. } => Verdict::Different,
        }
    }
}

impl Verdict {
    /// The verdict on all of them; none prove nothing.
    pub fn of(all: &[Compared]) -> Verdict {
        let verdicts = all.iter().map(|one| one.outcome.verdict());
        verdicts.max().unwrap_or(Verdict::Unproven)
    }
}

impl Input<'_> {
    /// Its import path or file name.
    pub fn name(&self) -> String {
        match self {
            Input::Package(package) => package.path.clone(),
            Input::File(file) => file.display().to_string(),
        }
    }
}

/// Compiles every input with both compilers, twice each, `jobs` inputs at once, and compares the
/// outputs. `told` hears of each as it is done, in no order; the results are in that of the inputs.
///
/// After the wish to stop the rest is [`Outcome::Stopped`]. What befalls one input is its own
/// outcome and ends nothing.
pub fn prove(
    pair: &Pair<'_>,
    inputs: &[Input<'_>],
    jobs: NonZero<usize>,
    told: &(dyn Fn(&Compared) + Sync),
) -> Vec<Compared> {
    let alone = vec![Vec::new(); inputs.len()];
    parallel::in_order(&alone, jobs, |at| {
        let mut compared = Compared {
            input: inputs[at].name(),
            outcome: Outcome::Identical,
            made: [None, None],
            rules: Vec::new(),
            log: None,
        };
        compared.outcome = match pair.limits.interrupt.caught() {
            Some(signal) => Outcome::Stopped(signal),
            None => pair
                .compare(&inputs[at], &mut compared)
                .unwrap_or_else(|cause| Outcome::Failed {
                    side: 0,
                    why: cause.to_string(),
                }),
        };
        compared.rules.sort_unstable();
        compared.rules.dedup();
        told(&compared);
        compared
    })
}

/// One compilation's end.
enum Build {
    Made {
        output: Vec<u8>,
        directory: PathBuf,
        log: String,
    },
    /// It ended without an output.
    Failed {
        why: String,
        is_own_doing: bool,
    },
    Stopped(Signal),
}

impl Pair<'_> {
    /// Compiles one input with both, twice each, and notes what is found beside the outcome.
    ///
    /// Errors: there is no room for temporary files.
    fn compare(&self, input: &Input<'_>, compared: &mut Compared) -> Result<Outcome, Cause> {
        let scratch = Scratch::new()?;
        let mut builds: [Vec<Build>; 2] = [Vec::new(), Vec::new()];
        // Interleaved, so that what changes meanwhile befalls both alike.
        for again in 1..=2 {
            for (side, builds) in builds.iter_mut().enumerate() {
                // All paths are equally long.
                let directory = scratch.path().join(format!("{}{again}", SIDES[side]));
                let build = self.build(side, input, &directory)?;
                if let Build::Stopped(signal) = build {
                    return Ok(Outcome::Stopped(signal));
                }
                builds.push(build);
            }
        }
        for (side, builds) in builds.iter().enumerate() {
            let [first, second] = &builds[..] else {
                continue;
            };
            if let (Build::Made { output, .. }, Build::Made { .. }) = (first, second) {
                compared.made[side] = Some(Made {
                    bytes: output.len() as u64,
                    sha256: hex(&Sha256::digest(output)),
                });
                if let Some(place) = self.difference(first, second, &mut compared.rules) {
                    return Ok(Outcome::Nondeterministic { side, place });
                }
            }
        }
        let [old, new] = &builds;
        Ok(self.judge(old, new, compared))
    }

    /// Compares what two compilers made, each of which made the same twice.
    fn judge(&self, old: &[Build], new: &[Build], compared: &mut Compared) -> Outcome {
        let failed = |builds: &[Build]| {
            builds.iter().find_map(|build| match build {
                Build::Failed { why, is_own_doing } => Some((why.clone(), *is_own_doing)),
                _ => None,
            })
        };
        let worked = |builds: &[Build]| {
            builds
                .iter()
                .any(|build| matches!(build, Build::Made { .. }))
        };
        for (side, builds) in [old, new].into_iter().enumerate() {
            if let (Some((why, true)), true) = (failed(builds), worked(builds)) {
                let place = Place {
                    part: format!("the compilation itself, which failed once: {why}"),
                    offset: 0,
                    words: None,
                    functions: Vec::new(),
                    data: Vec::new(),
                };
                return Outcome::Nondeterministic { side, place };
            }
        }
        match (failed(old), failed(new)) {
            (Some((why, true)), None) => Outcome::Refused { side: 0, why },
            (None, Some((why, true))) => Outcome::Refused { side: 1, why },
            (Some((why, _)), _) => Outcome::Failed { side: 0, why },
            (None, Some((why, _))) => Outcome::Failed { side: 1, why },
            (None, None) => {
                if let (Build::Made { log, .. }, Build::Made { log: other, .. }) =
                    (&old[0], &new[0])
                {
                    compared.log = listing::first_line(log, other);
                }
                match self.difference(&old[0], &new[0], &mut compared.rules) {
                    None => Outcome::Identical,
                    Some(place) => Outcome::Differs(place),
                }
            }
        }
    }

    fn build(&self, side: usize, input: &Input<'_>, directory: &Path) -> Result<Build, Cause> {
        let tidy = |error| unwritable(directory, &error);
        fs::create_dir(directory).map_err(tidy)?;
        let job = match self.job(side, input, &[], directory) {
            Ok(job) => job,
            Err(cause) => {
                return Ok(match self.limits.interrupt.caught() {
                    Some(signal) => Build::Stopped(signal),
                    None => Build::Failed {
                        why: cause.to_string(),
                        is_own_doing: false,
                    },
                });
            }
        };
        let ended = match job.invocation.run(self.limits) {
            Ok(ended) => ended,
            Err(cause) => {
                return Ok(Build::Failed {
                    why: cause.to_string(),
                    is_own_doing: false,
                });
            }
        };
        let log = ended.text().replace(&*directory.to_string_lossy(), "$OUT");
        if let End::Interrupted(signal) = ended.end {
            return Ok(Build::Stopped(signal));
        }
        if let Some(why) = ended.failure() {
            let full = log.to_lowercase().contains("no space left on device");
            let said = log.lines().map(str::trim).find(|line| !line.is_empty());
            return Ok(Build::Failed {
                why: said.map_or(why.clone(), |said| format!("{why}: {said}")),
                // Who runs out of time, memory or disk says nothing of the compilers.
                is_own_doing: match ended.end {
                    End::Exited(_) => !full,
                    End::Killed(signal) => signal != Signal::SIGKILL as i32,
                    End::TimedOut(_) | End::Interrupted(_) => false,
                },
            });
        }
        Ok(match fs::read(&job.output) {
            Ok(output) => Build::Made {
                output,
                directory: directory.to_owned(),
                log,
            },
            Err(error) => Build::Failed {
                why: format!("it succeeded and left no output: {error}"),
                is_own_doing: true,
            },
        })
    }

    fn job(
        &self,
        side: usize,
        input: &Input<'_>,
        more: &[OsString],
        directory: &Path,
    ) -> Result<Job, Cause> {
        let flags = [&self.flags[side], more].concat();
        match (self.tools[side], input) {
            (Tool::Go(bench), Input::Package(package)) => {
                bench.job(package, &flags, &directory.join("out.a"), self.limits)
            }
            (Tool::Template(template), Input::File(file)) => {
                let output = directory
                    .join("out")
                    .with_extension(template.output_suffix());
                Ok(template.job(file, &flags, &output))
            }
            _ => Err(Cause::new(
                "a Go compiler takes packages, any other takes files",
            )),
        }
    }

    /// Where two outputs differ, if they do when the rules have been applied.
    fn difference(&self, a: &Build, b: &Build, applied: &mut Vec<Rule>) -> Option<Place> {
        let (
            Build::Made {
                output: one,
                directory: at,
                ..
            },
            Build::Made {
                output: other,
                directory: there,
                ..
            },
        ) = (a, b)
        else {
            return None;
        };
        if one == other {
            return None;
        }
        let taken = |output: &[u8], directory: &Path| Taken {
            parts: take_apart(output),
            directory: directory.as_os_str().as_bytes().to_vec(),
        };
        let (mut a, mut b) = (taken(one, at), taken(other, there));
        let rules = rules::apply(&self.rules, &mut a, &mut b);
        let place = place(&a, &b).or_else(|| {
            // All parts are the same, and nothing was passed over: then it is how they are put
            // together.
            let layout = || Place::at("layout", one, other);
            rules.is_empty().then(layout)
        });
        applied.extend(rules);
        let mut place = place?;
        let (of_one, of_other) = (symbols_of(one), symbols_of(other));
        for symbol in symbols::differing(&of_one, &of_other) {
            match symbol.is_function {
                true => place.functions.push(symbol.name),
                false => place.data.push(symbol.name),
            }
        }
        Some(place)
    }

    /// Has the compilers print assembly for an input whose outputs differ, and lays the listings
    /// side by side at the first function in which they do; the two of one compiler, where that
    /// varies by itself. `None` when they do not differ, or the outcome is another.
    ///
    /// Errors: a compiler cannot print assembly, or failed at it.
    pub fn explain(&self, input: &Input<'_>, outcome: &Outcome) -> Result<Option<Listing>, Cause> {
        let (sides, place) = match outcome {
            Outcome::Differs(place) => ([0, 1], place),
            Outcome::Nondeterministic { side, place } => ([*side; 2], place),
            _ => return Ok(None),
        };
        let scratch = Scratch::new()?;
        let mut listings = [String::new(), String::new()];
        for (at, (listing, side)) in listings.iter_mut().zip(sides).enumerate() {
            let output = scratch.path().join(at.to_string());
            fs::create_dir(&output).map_err(|error| unwritable(&output, &error))?;
            let (job, prints) = match (self.tools[side], input) {
                (Tool::Template(template), Input::File(file)) => {
                    let job = template.listing(file, &self.flags[side], &output.join("out.s"));
                    let job = job.ok_or_else(|| Cause::new("its definition has no listing"))?;
                    (job, false)
                }
                _ => (self.job(side, input, &["-S".into()], &output)?, true),
            };
            let ended = job.invocation.run(self.limits)?;
            if let Some(why) = ended.failure() {
                return Err(Cause::new(format!(
                    "no assembly from {}: {why}",
                    SIDES[side]
                )));
            }
            *listing = match prints {
                true => ended.text(),
                false => {
                    String::from_utf8_lossy(&fs::read(&job.output).unwrap_or_default()).into_owned()
                }
            };
        }
        let style = match input {
            Input::Package(_) => Style::Go,
            Input::File(_) => Style::Assembler,
        };
        let wanted = place.functions.first().map(String::as_str);
        Ok(listing::side_by_side(
            &listings[0],
            &listings[1],
            style,
            wanted,
        ))
    }
}

impl Place {
    fn at(part: &str, a: &[u8], b: &[u8]) -> Place {
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        Place {
            part: part.to_owned(),
            offset: same,
            words: None,
            functions: Vec::new(),
            data: Vec::new(),
        }
    }
}

/// The first part that is not the same in both; code before all else, for what is told of code
/// (tables of lines, sizes, exported bodies) follows from it.
fn place(a: &Taken, b: &Taken) -> Option<Place> {
    let mut places = Vec::new();
    for part in &a.parts {
        let twin = b.parts.iter().find(|twin| twin.name == part.name);
        if twin != Some(part) {
            let theirs = twin.map_or(&[][..], |twin| &twin.bytes);
            let mut place = Place::at(&part.name, &part.bytes, theirs);
            if matches!(part.kind, Kind::ElfHeader | Kind::GoHeader) {
                place.words = differing_words(&part.bytes, theirs);
            }
            places.push((part.kind, place));
        }
    }
    for part in &b.parts {
        if !a.parts.iter().any(|twin| twin.name == part.name) {
            places.push((part.kind, Place::at(&part.name, &[], &part.bytes)));
        }
    }
    let is_code = |(kind, place): &(Kind, Place)| {
        *kind == Kind::GoObject || place.part.starts_with("section .text")
    };
    let first = places.iter().position(is_code).unwrap_or_default();
    let found = places.into_iter().nth(first);
    found.map(|(_, place)| place)
}

/// The first words in which two texts differ, with what stands before them.
fn differing_words(a: &[u8], b: &[u8]) -> Option<[String; 2]> {
    let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (a, b) = (words(&a), words(&b));
    let at = (0..a.len().max(b.len())).find(|&at| a.get(at) != b.get(at))?;
    let there = |all: &[String]| {
        all[at.saturating_sub(1).min(all.len())..(at + 1).min(all.len())].join(" ")
    };
    Some([there(&a), there(&b)])
}

fn symbols_of(output: &[u8]) -> Vec<symbols::Symbol> {
    let parts = take_apart(output);
    match parts.iter().find(|part| part.kind == Kind::GoObject) {
        Some(object) => symbols::of_go(&object.bytes),
        None => symbols::of_elf(output),
    }
}
