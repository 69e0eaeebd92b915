//! Whose calls they were, or on what: the rows that threads, processes, names and types of descriptors have of their own. Never decides which there are.

use std::collections::{BTreeMap, HashMap};

use super::Profiler;
use crate::probe::profile::{By, Call, Part, REST};
use crate::probe::record::{FD_TYPES, PLACE_PROCESS, PLACE_WORDS, load};

impl Profiler {
    /// What each place called.
    pub(super) fn parts(&self, under_way: &BTreeMap<usize, Vec<u64>>) -> Vec<Part> {
        let Some(by) = self.options.by else {
            return Vec::new();
        };
        let mut names = Names::default();
        let parts = (0..self.places_taken()).filter_map(|place| {
            let calls = self.wanted().filter_map(|row| {
                let cell = match place {
                    0 => row,
                    _ => self.cell(place, row)?,
                };
                self.call(row, &[cell], under_way)
            });
            let calls: Vec<Call> = calls.collect();
            if calls.is_empty() {
                return None;
            }
            let word = |n| Some(load(&self.places, place * PLACE_WORDS + n));
            let (name, id, process) = match by {
                By::FdType => (FD_TYPES[place].to_owned(), None, None),
                _ if place == 0 => (REST.to_owned(), None, None),
                By::Command => (self.command(place), None, None),
                By::Thread | By::Process => {
                    let name = names.next(self.command(place));
                    (name, word(0), word(PLACE_PROCESS))
                }
            };
            Some(Part {
                by,
                place,
                name,
                id,
                process,
                calls,
            })
        });
        let mut parts: Vec<Part> = parts.collect();
        if self.options.processes {
            parts.extend(self.processes(&parts, under_way));
        }
        parts
    }

    /// What each process of these threads called, under the name of its first thread.
    fn processes(&self, threads: &[Part], under_way: &BTreeMap<usize, Vec<u64>>) -> Vec<Part> {
        let mut names = Names::default();
        let mut processes: Vec<(u64, Vec<&Part>)> = Vec::new();
        for thread in threads {
            let Some(process) = thread.process else {
                continue;
            };
            match processes.iter_mut().find(|(known, _)| *known == process) {
                Some((_, all)) => all.push(thread),
                None => processes.push((process, vec![thread])),
            }
        }
        let parts = processes.into_iter().map(|(process, threads)| {
            let is_leader = |thread: &&&Part| thread.id == Some(process);
            let leader = threads.iter().find(is_leader).unwrap_or(&threads[0]);
            let calls = self.wanted().filter_map(|row| {
                let cells = threads.iter().map(|thread| self.cell(thread.place, row));
                let cells: Vec<usize> = cells.flatten().collect();
                self.call(row, &cells, under_way)
            });
            Part {
                by: By::Process,
                place: threads[0].place,
                name: names.next(self.command(leader.place)),
                id: Some(process),
                process: Some(process),
                calls: calls.collect(),
            }
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
