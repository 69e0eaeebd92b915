//! Whose calls they were, or on what: the rows that threads, processes, names and types of descriptors have of their own. Never decides which there are.

use std::collections::{BTreeMap, HashMap};

use super::Profiler;
use crate::probe::profile::{By, Call, Part, REST};
use crate::probe::record::{FD_TYPES, PLACE_PROCESS, PLACE_WORDS, load};

impl Profiler {
    /// What each place called; what a process did is also what its threads did.
    pub(super) fn parts(&self, under_way: &BTreeMap<usize, Vec<u64>>) -> Vec<Part> {
        let Some(by) = self.options.by else {
            return Vec::new();
        };
        let word = |place: usize, word: usize| load(&self.places, place * PLACE_WORDS + word);
        let process = |place| match word(place, PLACE_PROCESS) as usize {
            0 => None,
            process => Some(process),
        };
        let taken = self.places_taken();
        let mut threads: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for place in 1..taken {
            if let Some(process) = process(place) {
                threads.entry(process).or_default().push(place);
            }
        }
        let (mut names, mut names_of_processes) = (Names::default(), Names::default());
        let parts = (0..taken).filter_map(|place| {
            let (by, name, id) = match by {
                By::FdType => (by, FD_TYPES[place].to_owned(), None),
                _ if place == 0 => (by, REST.to_owned(), None),
                _ if word(place, 0) == 0 => return None,
                By::Command => (by, self.command(place), None),
                // Also of those that called nothing: else the names of the others would change.
                By::Thread if self.options.processes && process(place).is_none() => {
                    let name = names_of_processes.next(self.command(place));
                    (By::Process, name, Some(word(place, 0)))
                }
                By::Thread | By::Process => {
                    let name = names.next(self.command(place));
                    (by, name, Some(word(place, 0)))
                }
            };
            let members = threads.get(&place).into_iter().flatten();
            let members: Vec<usize> = [place].iter().chain(members).copied().collect();
            let calls = self.wanted().filter_map(|row| {
                let cells = members.iter().filter_map(|&place| match place {
                    0 => Some(row),
                    _ => self.cell(place, row),
                });
                self.call(row, &cells.collect::<Vec<_>>(), under_way)
            });
            let calls: Vec<Call> = calls.collect();
            (!calls.is_empty()).then(|| Part {
                by,
                place,
                name,
                id,
                process: process(place),
                calls,
            })
        });
        parts.collect()
    }

    /// The name of a place.
    fn command(&self, place: usize) -> String {
        let words = [1, 2].map(|n| load(&self.places, place * PLACE_WORDS + n));
        let bytes = words.map(u64::to_ne_bytes).concat();
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}

/// Names that were given, and how often.
#[derive(Default)]
struct Names(HashMap<String, usize>);

impl Names {
    /// This name, with a number where it was given before.
    fn next(&mut self, name: String) -> String {
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        match *count {
            1 => name,
            n => format!("{name}#{n}"),
        }
    }
}
