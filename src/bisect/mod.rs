//! Which commit made it slower: what to build and what to run next, and what the figures say so far. Never builds, runs or reads anything: it is asked for the next step and told what came of it.
//!
//! A [`Bisection`] knows commits as places 0, 1, 2, … of a history. All that it knows is a
//! function of the [`Event`]s it was told, in their order: told the same again, it goes on where
//! it was.
//!
//! Each range of places is one search. It measures the two ends until it is certain
//! that they differ, or that they are equivalent; then it asks for what tells most of where the
//! change is for what it costs, by the posterior of [`step`](crate::stats::step). Every run of a
//! commit stands beside one of the reference, which is the first of the range: drift is in both.
//! Last, the culprit is compared with its parent in pairs of their own. Figures that do not vary
//! need none of that: they are searched by halves, one run a commit.

pub mod history;
pub mod record;
mod search;
mod simulation;
mod survey;

pub use simulation::{History, Noise, Strategy, Trial, simulate};

use std::ops::RangeInclusive;

use crate::compare::{Judge, Judgement};
use crate::sample::UnitMeta;
use crate::stats::Interval;
use crate::stats::step::Posterior;
use search::Search;

/// What is searched, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many commits the history has, both ends among them.
    pub places: usize,
    /// Places that shall not be measured.
    pub skipped: Vec<usize>,
    /// The unit that decides.
    pub unit: UnitMeta,
    /// How the ends, and the culprit and its parent, are compared.
    pub judge: Judge,
    /// In which order commits are measured.
    pub order: Order,
    /// Runs of each commit, where the order is not [`Order::Posterior`].
    pub iterations: usize,
    /// The most runs, pairs counted once.
    pub most_runs: Option<u64>,
    /// Whether to go on at both sides of a culprit.
    pub all: bool,
    /// How many commits in between are compared with the first when the ends do not differ.
    pub scan: usize,
}

/// In which order commits are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By what tells most for its cost.
    Posterior,
    /// All commits, one iteration after the other.
    Sequential,
    /// All commits, so that those measured are spread evenly at any time.
    Spread,
    /// Halfway between the neighbours that differ most, until these are next to each other.
    Metric,
}

/// What was done and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A commit was built, in so many seconds; none when it was there already.
    Built {
        /// The commit.
        place: usize,
        /// How long it took.
        sec: Option<f64>,
    },
    /// A commit cannot be built.
    Unbuildable {
        /// The commit.
        place: usize,
    },
    /// A run of a commit and one of another, side by side.
    Pair(Pair),
    /// A run of a commit alone.
    Single {
        /// The commit.
        place: usize,
        /// Its figure.
        figure: f64,
    },
    /// A run of a commit failed, or gave no figure.
    Failed {
        /// The commit.
        place: usize,
    },
}

/// A run of a commit and one of an earlier commit, or of the same, side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The commit.
    pub place: usize,
    /// The one that it is compared with.
    pub against: usize,
    /// The figure of the commit.
    pub figure: f64,
    /// The figure of the other.
    pub other: f64,
    /// Whether the commit ran before the other.
    pub first: bool,
    /// Whether something outside spoiled them: one rule for both, fixed beforehand.
    pub void: bool,
    /// How long both took.
    pub sec: f64,
}

/// What is to be done next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Build a commit.
    Build(usize),
    /// Run a commit and another side by side, in the order of a coin. Both are built.
    Pair {
        /// The commit.
        place: usize,
        /// The one that it is compared with.
        against: usize,
    },
    /// Run a commit, which is built, alone.
    Single(usize),
    /// Nothing: this came of it, for each range that was searched.
    Done(Vec<Finding>),
}

/// What came of one range.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The places, the reference first.
    pub range: RangeInclusive<usize>,
    /// What came of it.
    pub outcome: Outcome,
    /// Where the change is if there is one, as far as there are figures that vary.
    pub posterior: Option<Posterior>,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This commit did it.
    Found(Culprit),
    /// The ends are equivalent.
    NoChange(Judgement),
    /// The ends differ; asked for nothing more (a scan).
    Differs(Judgement),
    /// Not decided.
    Undecided(Doubt),
    /// An end, at this place, can be neither built nor measured.
    Unmeasurable(usize),
}

/// The commit that made the change.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// It, and before it commits that could not be measured and may have done it as well.
    pub places: RangeInclusive<usize>,
    /// The last before them, with which it was compared.
    pub parent: usize,
    /// How probable it is that it was these; 1 where figures do not vary.
    pub probability: f64,
    /// The change, as a share, with the interval that holds it with 95 %.
    pub change: Option<(f64, Interval)>,
    /// The verdict on it against its parent.
    pub judgement: Judgement,
}

/// Why nothing was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The ends can be told neither apart nor equivalent, though the last look was taken.
    Ends,
    /// As many runs as there may be.
    Limit,
    /// The most probable commit, at this place, and its parent can be told neither apart nor
    /// equivalent.
    Unconfirmed(usize),
    /// All is measured, and no commit stands out.
    Exhausted,
}

/// A bisection under way.
#[derive(Clone, Debug)]
pub struct Bisection {
    settings: Settings,
    log: Vec<Event>,
    /// The ranges to be searched, after those that have been.
    searches: Vec<Search>,
    findings: Vec<Finding>,
}

impl Bisection {
    /// A bisection of which nothing is known.
    pub fn new(settings: Settings) -> Bisection {
        let mut bisection = Bisection {
            searches: Vec::new(),
            findings: Vec::new(),
            log: Vec::new(),
            settings,
        };
        bisection.begin(0, bisection.settings.places.saturating_sub(1), false);
        bisection
    }

    /// Takes in what was done.
    pub fn take(&mut self, event: Event) {
        self.log.push(event);
        for search in &mut self.searches {
            search.take(&event, &self.settings);
        }
    }

    /// What is to be done next. Whoever tells it of the past asks for it after each event, too.
    pub fn step(&mut self) -> Step {
        loop {
            let at = self.findings.len();
            let Some(search) = self.searches.get(at) else {
                return Step::Done(self.findings.clone());
            };
            match search.next(&self.settings) {
                search::Next::Ask(step) => {
                    let late = |most: u64| self.runs() >= most;
                    let is_build = matches!(step, Step::Build(_));
                    if is_build || !self.settings.most_runs.is_some_and(late) {
                        return step;
                    }
                    self.conclude(Outcome::Undecided(Doubt::Limit));
                }
                search::Next::Over(outcome) => self.conclude(*outcome),
            }
        }
    }

    /// The posterior of the range that is searched now, and that range.
    pub fn posterior(&self) -> Option<(RangeInclusive<usize>, Posterior)> {
        let search = self.searches.get(self.findings.len())?;
        Some((search.range(), search.posterior()?))
    }

    /// How many builds and runs (pairs counted once) it will probably still take: half of what
    /// there is to know with each build, and of what is left so much with every run as it tells.
    pub fn remaining(&self) -> Option<(usize, usize)> {
        self.searches.get(self.findings.len())?.remaining()
    }

    /// What is known of the ranges that were searched.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Runs so far, pairs counted once.
    pub fn runs(&self) -> u64 {
        let is_run = |event: &&Event| matches!(event, Event::Pair(_) | Event::Single { .. });
        self.log.iter().filter(is_run).count() as u64
    }

    /// At most `count` commits that will probably have to be built, the most probable first.
    pub fn ahead(&self, count: usize) -> Vec<usize> {
        match self.searches.get(self.findings.len()) {
            Some(search) => search.ahead(count),
            None => Vec::new(),
        }
    }

    /// Adds a range to those to be searched, or to be compared at its ends alone.
    fn begin(&mut self, first: usize, last: usize, ends_alone: bool) {
        let mut search = Search::new(first, last, ends_alone, &self.settings);
        for event in &self.log {
            search.take(event, &self.settings);
        }
        self.searches.push(search);
    }

    /// Ends the present search, and begins what follows from it.
    fn conclude(&mut self, outcome: Outcome) {
        let search = &self.searches[self.findings.len()];
        let range = search.range();
        let (first, last) = (*range.start(), *range.end());
        let is_whole = self.findings.is_empty();
        let finding = Finding {
            posterior: search.posterior(),
            outcome: outcome.clone(),
            range,
        };
        self.findings.push(finding);
        match outcome {
            Outcome::Found(culprit) if self.settings.all => {
                if culprit.parent > first {
                    self.begin(first, culprit.parent, false);
                }
                let made = *culprit.places.end();
                if made < last {
                    self.begin(made, last, false);
                }
            }
            Outcome::NoChange(_) | Outcome::Undecided(Doubt::Ends) if is_whole => {
                self.scan(first, last);
            }
            Outcome::Differs(_) => {
                // What else was to be compared with the first is compared with this one.
                let rest = self.searches.split_off(self.findings.len());
                let before = self.scanned_before(first, last);
                self.begin(before, last, false);
                for search in rest {
                    match search.ends_alone() {
                        false => self.searches.push(search),
                        true if self.settings.all => self.begin(last, *search.range().end(), true),
                        true => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// Begins to compare commits between the ends with the first.
    fn scan(&mut self, first: usize, last: usize) {
        let parts = self.settings.scan + 1;
        let mut before = first;
        for part in 1..parts {
            let place = first + (last - first) * part / parts;
            if place > before {
                self.begin(first, place, true);
                before = place;
            }
        }
    }

    /// The last place before `place` that was compared with `first` and does not differ from it.
    fn scanned_before(&self, first: usize, place: usize) -> usize {
        let with_first = self.findings.iter().map(|finding| &finding.range);
        let with_first = with_first.filter(|range| *range.start() == first);
        let ends = with_first.map(|range| *range.end());
        ends.filter(|&end| end < place).max().unwrap_or(first)
    }
}

#[cfg(test)]
mod tests;
