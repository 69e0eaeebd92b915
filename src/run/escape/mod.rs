//! What Go compilers decide about packages: what escapes to the heap, what is inlined, which checks are kept; and which of it two compilers or two sources do not share. Compiles each package once a side; never links, never runs what it compiled.

pub mod decisions;
pub mod difference;
pub mod functions;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::path::Path;

use crate::format::pprof::{Allocation, Profile};
use crate::run::compiler::invocation::Limits;
use crate::run::compiler::parallel;
use crate::run::compiler::scratch::Scratch;
use crate::run::compiler::source::Package;
use crate::run::compiler::workbench::Workbench;
use crate::sample::Cause;
use decisions::{Decision, Kind};
use difference::Lines;
use functions::Functions;

/// A compiler, and what it compiles.
pub struct Side<'a> {
    /// The packages.
    pub packages: Vec<&'a Package>,
    /// The compiler, set up for them.
    pub bench: &'a Workbench<'a>,
    /// Its flags.
    pub flags: Vec<OsString>,
}

/// What came of one package.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Its import path.
    pub package: String,
    /// What the linker calls it, as profiles do.
    pub linked: String,
    /// What each side made of it.
    pub sides: Vec<Outcome>,
}

/// What one side made of a package.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was compiled, and this was decided.
    Decided(Decided),
    /// This side's source does not have it.
    Missing,
    /// It could not be compiled, and why.
    Failed(String),
}

/// The decisions about one package, by the names of its files.
#[derive(Clone, Debug, Default)]
pub struct Decided(pub BTreeMap<String, File>);

/// A file and what was decided about it.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// All of it; empty for what a `//line` directive names.
    pub text: String,
    /// Its functions.
    pub functions: Functions,
    /// The decisions, in the order of the text.
    pub decisions: Vec<Decision>,
}

/// A decision of escape analysis that one side has alone.
#[derive(Clone, Debug)]
pub struct Change {
    /// The import path of its package.
    pub package: String,
    /// What the linker calls that.
    pub linked: String,
    /// Which side has it.
    pub side: usize,
    /// The name of its file.
    pub file: String,
    /// The function that it is in, if in any.
    pub function: Option<String>,
    /// The decision.
    pub decision: Decision,
    /// What is inlined otherwise in that line: the words, and which side has them.
    pub inlining: Vec<(usize, String)>,
    /// What a profile saw allocated in that line.
    pub allocated: Option<Allocated>,
}

/// What was allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allocated {
    /// Objects.
    pub objects: f64,
    /// Bytes.
    pub bytes: f64,
}

/// Has each side compile each of its packages, `jobs` at once. `told` hears of each package as it is
/// done; the results are ordered by import path.
pub fn survey(
    sides: &[Side<'_>],
    jobs: NonZero<usize>,
    limits: Limits<'_>,
    told: &(dyn Fn(&str) + Sync),
) -> Vec<Surveyed> {
    let packages = sides.iter().flat_map(|side| &side.packages);
    let paths: BTreeSet<&str> = packages.map(|package| &*package.path).collect();
    let paths: Vec<&str> = paths.into_iter().collect();
    let is_program = |path: &str| {
        let mut packages = sides.iter().flat_map(|side| &side.packages);
        packages.any(|package| package.path == path && package.is_program)
    };
    let alone = vec![Vec::new(); paths.len()];
    parallel::in_order(&alone, jobs, |at| {
        let path = paths[at];
        let decide = |side: &Side<'_>| {
            let Some(package) = side.packages.iter().find(|package| package.path == path) else {
                return Outcome::Missing;
            };
            match decide(side, package, limits) {
                Ok(decided) => Outcome::Decided(decided),
                Err(cause) => Outcome::Failed(cause.to_string()),
            }
        };
        let surveyed = Surveyed {
            package: path.to_owned(),
            linked: match is_program(path) {
                true => "main".to_owned(),
                false => path.to_owned(),
            },
            sides: sides.iter().map(decide).collect(),
        };
        told(path);
        surveyed
    })
}

/// Has one side compile one package.
///
/// Errors: it does not, whatever the reason.
fn decide(side: &Side<'_>, package: &Package, limits: Limits<'_>) -> Result<Decided, Cause> {
    if let Some(signal) = limits.interrupt.caught() {
        return Err(Cause::new(format!("stopped by {signal}")));
    }
    let scratch = Scratch::new()?;
    let log = scratch.path().join("log");
    let mut into_log = OsString::from("-json=0,");
    into_log.push(&log);
    let flags = [&side.flags[..], &["-m=1".into(), into_log]].concat();
    let output = scratch.path().join("out.a");
    let job = side.bench.job(package, &flags, &output, limits)?;
    let ended = job.invocation.run(limits)?;
    let words = ended.text();
    if let Some(why) = ended.failure() {
        let said = decisions::complaint(&words);
        let said = said.map_or(String::new(), |said| format!(": {said}"));
        return Err(Cause::new(format!("{why}{said}")));
    }
    let mut files = BTreeMap::new();
    for path in &package.go_files {
        let text = fs::read_to_string(path)
            .map_err(|error| Cause::new(format!("cannot read {}: {error}", path.display())))?;
        let file = File {
            functions: Functions::of(&text),
            text,
            decisions: Vec::new(),
        };
        files.insert(name(&path.to_string_lossy()), file);
    }
    let mut decided = Decided(files);
    decided.fill(&words, &logs(&log));
    Ok(decided)
}

/// The files that `-json` left: one directory a package.
fn logs(directory: &Path) -> Vec<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries(directory).flat_map(|package| entries(&package.path()));
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.collect()
}

/// The last component: a package has its files in one directory.
fn name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

impl Decided {
    fn fill(&mut self, words: &str, logs: &[String]) {
        let Decided(files) = self;
        for (file, decision) in decisions::said(words) {
            // What the compiler makes itself stands in no file.
            if !file.starts_with('<') {
                let file = files.entry(name(&file)).or_default();
                file.decisions.push(decision);
            }
        }
        for logged in logs.iter().filter_map(|log| decisions::logged(log)) {
            let Some(file) = files.get_mut(&name(&logged.file)) else {
                continue;
            };
            for one in &mut file.decisions {
                if one.kind == Kind::Heap {
                    one.why = logged.reasons.get(&(one.line, one.column)).cloned();
                }
            }
            file.decisions.extend(logged.decisions);
        }
        for file in files.values_mut() {
            file.decisions.sort();
            // A function with types is compiled for several.
            file.decisions.dedup();
        }
    }

    /// How many decisions are of this kind.
    pub fn count(&self, is_counted: impl Fn(Kind) -> bool) -> usize {
        let decisions = self.0.values().flat_map(|file| &file.decisions);
        decisions.filter(|one| is_counted(one.kind)).count()
    }
}

impl Surveyed {
    /// The decisions of escape analysis that one side has alone, those of the old one first. Where
    /// there is one side only, all that escapes.
    pub fn changes(&self) -> Vec<Change> {
        match &self.sides[..] {
            [Outcome::Decided(only)] => {
                let none = Decided::default();
                let heap = |kind| kind == Kind::Heap;
                self.between([only, &none], heap)
            }
            [Outcome::Decided(old), Outcome::Decided(new)] => {
                self.between([old, new], Kind::is_escape)
            }
            _ => Vec::new(),
        }
    }

    fn between(&self, sides: [&Decided; 2], is_meant: fn(Kind) -> bool) -> Vec<Change> {
        let mut changes: [Vec<(bool, Change)>; 2] = Default::default();
        let names: BTreeSet<&String> = sides.iter().flat_map(|side| side.0.keys()).collect();
        let nothing = File::default();
        for name in names {
            let files = sides.map(|side| side.0.get(name).unwrap_or(&nothing));
            let lines = Lines::of(&files[0].text, &files[1].text);
            // A file that has no text has lines all the same.
            let is_same = files[0].text == files[1].text;
            let image = |side: usize, line: u32| match (is_same, side) {
                (true, _) => Some(line),
                (_, 0) => lines.new_of(line),
                _ => lines.old_of(line),
            };
            let alone = |is_meant: &dyn Fn(Kind) -> bool| {
                let [old, new] = files.map(|file| {
                    let meant = file.decisions.iter().filter(|one| is_meant(one.kind));
                    meant.collect::<Vec<_>>()
                });
                difference::alone(&old, &new, |line| image(0, line))
            };
            let inlined = match self.sides.len() {
                1 => Default::default(),
                _ => alone(&|kind| kind == Kind::InlinedCall),
            };
            for (side, all) in alone(&is_meant).into_iter().enumerate() {
                for decision in all {
                    let there = image(side, decision.line);
                    let mut inlining = Vec::new();
                    for (other, inlined) in inlined.iter().enumerate() {
                        let line = if other == side {
                            Some(decision.line)
                        } else {
                            there
                        };
                        let same_line = inlined.iter().filter(|one| Some(one.line) == line);
                        inlining.extend(same_line.map(|one| (other, one.text.clone())));
                    }
                    let function = files[side].functions.at(decision.line);
                    let change = Change {
                        package: self.package.clone(),
                        linked: self.linked.clone(),
                        side,
                        file: name.clone(),
                        function: function.map(str::to_owned),
                        decision: decision.clone(),
                        inlining,
                        allocated: None,
                    };
                    changes[side].push((there.is_none(), change));
                }
            }
        }
        let [old, mut new] = changes;
        // In lines that were changed or moved, the same of the same function is the same.
        let mut all = Vec::new();
        for (is_moved, change) in old {
            let is_partner = |(moved, other): &(bool, Change)| {
                let key = |one: &Change| {
                    let decision = &one.decision;
                    (one.function.clone(), decision.kind, decision.text.clone())
                };
                is_moved && *moved && key(other) == key(&change)
            };
            match new.iter().position(is_partner) {
                Some(partner) => drop(new.remove(partner)),
                None => all.push(change),
            }
        }
        all.extend(new.into_iter().map(|(_, change)| change));
        all
    }
}

/// Takes away what a compiler of another release does not tell at all: whether an `append`, which
/// may have to grow, does so on the heap. Gives the side that tells it, and how much there was.
pub fn leave_out_untold(surveyed: &mut [Surveyed]) -> Option<(usize, usize)> {
    let is_append = |one: &Decision| one.text.starts_with("append ");
    let mut counts = [0; 2];
    let of_appends = |one: &mut Surveyed, act: &mut dyn FnMut(usize, &mut Vec<Decision>)| {
        for (side, outcome) in one.sides.iter_mut().enumerate() {
            if let Outcome::Decided(decided) = outcome {
                let files = decided.0.values_mut();
                files.for_each(|file| act(side, &mut file.decisions));
            }
        }
    };
    for one in &mut *surveyed {
        of_appends(one, &mut |side, all| {
            counts[side] += all.iter().filter(|one| is_append(one)).count();
        });
    }
    let told = match counts {
        [0, count] if count > 0 => (1, count),
        [count, 0] if count > 0 => (0, count),
        _ => return None,
    };
    for one in surveyed {
        of_appends(one, &mut |_, all| all.retain(|one| !is_append(one)));
    }
    Some(told)
}

/// Notes what the profile saw allocated in the lines of the changes, inlined or not, and orders them
/// by it. Gives what it saw in all, and of that what was in these lines.
pub fn weigh(changes: &mut [Change], profile: &Profile) -> [Allocated; 2] {
    let place = |change: &Change| {
        let package = change.linked.clone();
        (package, change.file.clone(), change.decision.line)
    };
    let mut lines: BTreeMap<(String, String, u32), Allocated> = BTreeMap::new();
    // A leak allocates nothing itself.
    for change in changes.iter().filter(|one| one.decision.kind == Kind::Heap) {
        lines.entry(place(change)).or_default();
    }
    let [mut all, mut part] = [Allocated::default(); 2];
    for one in &profile.allocations {
        all.add(one);
        let mut is_here = false;
        for place in &one.places {
            let package = place.package();
            let key = (package, name(&place.file), place.line);
            if let Some(sum) = lines.get_mut(&key) {
                sum.add(one);
                is_here = true;
            }
        }
        if is_here {
            part.add(one);
        }
    }
    for change in &mut *changes {
        if change.decision.kind == Kind::Heap {
            change.allocated = lines.get(&place(change)).copied();
        }
    }
    let weight = |change: &Change| change.allocated.unwrap_or_default();
    changes.sort_by(|a, b| {
        let (a, b) = (weight(a), weight(b));
        let by_objects = b.objects.total_cmp(&a.objects);
        by_objects.then(b.bytes.total_cmp(&a.bytes))
    });
    [all, part]
}

impl Allocated {
    fn add(&mut self, allocation: &Allocation) {
        self.objects += allocation.objects;
        self.bytes += allocation.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pprof::Place;

    fn decided(text: &str, words: &str) -> Outcome {
        let file = File {
            text: text.to_owned(),
            functions: Functions::of(text),
            decisions: Vec::new(),
        };
        let mut decided = Decided(BTreeMap::from([("a.go".to_owned(), file)]));
        decided.fill(words, &[]);
        Outcome::Decided(decided)
    }

    fn changes(sides: Vec<Outcome>) -> Vec<(usize, Option<String>, u32, String)> {
        let surveyed = Surveyed {
            package: "p".to_owned(),
            linked: "p".to_owned(),
            sides,
        };
        let changes = surveyed.changes().into_iter();
        changes
            .map(|one| (one.side, one.function, one.decision.line, one.decision.text))
            .collect()
    }

    const TEXT: &str = "package p\nfunc f() {\n\tx := 1\n\ty := 2\n}\nfunc g() {\n\tz := 3\n}\n";

    #[test]
    fn changes_are_told_by_function() {
        let old = "/p/a.go:3:2: moved to heap: x\n/p/a.go:7:2: z does not escape\n";
        let new = "/p/a.go:3:2: moved to heap: x\n/p/a.go:7:2: moved to heap: z\n";
        let told = changes(vec![decided(TEXT, old), decided(TEXT, new)]);
        let want = (1, Some("g".to_owned()), 7, "moved to heap: z".to_owned());
        assert_eq!(told, [want]);
        let told = changes(vec![decided(TEXT, new)]);
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn what_moved_with_its_lines_did_not_change() {
        let old = "/p/a.go:3:2: moved to heap: x\n/p/a.go:4:2: moved to heap: y\n";
        // f stands behind g, and x is written otherwise.
        let moved = "package p\nfunc g() {\n\tz := 3\n}\nfunc f() {\n\tx := int(1)\n\ty := 2\n}\n";
        let new = "/p/a.go:3:2: moved to heap: z\n/p/a.go:6:2: moved to heap: x\n\
            /p/a.go:7:2: moved to heap: y\n";
        let told = changes(vec![decided(TEXT, old), decided(moved, new)]);
        let want = (1, Some("g".to_owned()), 3, "moved to heap: z".to_owned());
        assert_eq!(told, [want]);
        // In lines that stayed it did.
        let other = "/p/a.go:4:2: moved to heap: x\n";
        let told = changes(vec![decided(TEXT, old), decided(TEXT, other)]);
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn what_a_release_does_not_tell_is_left_out() {
        let surveyed = |words: [&str; 2]| Surveyed {
            package: "p".to_owned(),
            linked: "p".to_owned(),
            sides: words.map(|words| decided(TEXT, words)).into(),
        };
        let append = "/p/a.go:3:2: append escapes to heap\n";
        let both = format!("{append}/p/a.go:7:2: moved to heap: z\n");
        let mut all = [surveyed(["", &both]), surveyed(["", append])];
        assert_eq!(leave_out_untold(&mut all), Some((1, 2)));
        let left = [&all[0], &all[1]].map(|one| one.changes().len());
        assert_eq!(left, [1, 0]);
        let stays = "/p/a.go:4:2: append does not escape\n";
        let mut all = [surveyed([stays, append])];
        assert_eq!(leave_out_untold(&mut all), None);
        assert_eq!(all[0].changes().len(), 1);
    }

    #[test]
    fn allocations_weigh_the_lines_they_are_in() {
        let place = |(function, line): (&str, u32)| Place {
            function: function.to_owned(),
            file: "/elsewhere/a.go".to_owned(),
            line,
        };
        let allocation = |places: &[(&str, u32)], objects| Allocation {
            places: places.iter().copied().map(place).collect(),
            objects,
            bytes: objects * 8.0,
        };
        let profile = Profile {
            period_bytes: 1,
            allocations: vec![
                allocation(&[("p.f", 4), ("q.Test", 9)], 5.0),
                allocation(&[("p.f", 4), ("p.f", 3)], 1.0),
                allocation(&[("p.f", 4)], 1.0),
                allocation(&[("q.f", 3)], 100.0),
            ],
        };
        let words = "/p/a.go:3:2: moved to heap: x\n/p/a.go:4:2: moved to heap: y\n";
        let surveyed = Surveyed {
            package: "p".to_owned(),
            linked: "p".to_owned(),
            sides: vec![decided(TEXT, words)],
        };
        let mut changes = surveyed.changes();
        let [all, part] = weigh(&mut changes, &profile);
        assert_eq!((all.objects, part.objects, part.bytes), (107.0, 7.0, 56.0));
        let told: Vec<_> = changes
            .iter()
            .map(|one| (one.decision.line, one.allocated.unwrap().objects))
            .collect();
        assert_eq!(told, [(4, 7.0), (3, 1.0)]);
    }
}
