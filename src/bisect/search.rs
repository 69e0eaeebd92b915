//! The search of one range of a history: its ends, then what tells most, then the culprit and its parent. Never leaves its range.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Culprit, Doubt, Event, Order, Outcome, Pair, Settings, Step, survey};
use crate::compare::{Cell, Judgement, Place};
use crate::stats::comparison::{EXACT_FROM, Verdict};
use crate::stats::sequential::LOOKS;
use crate::stats::step::{Observed, Posterior, Prior, Split, entropy, information};
use crate::unit::{Assume, Dimension};

/// Pairs of each end before anything is concluded.
const AT_EACH_END: usize = 5;

/// The probability of no change above which only the ends are measured.
const NO_CHANGE: f64 = 0.01;

/// The same, above which no change is expected.
const EVEN: f64 = 0.5;

/// Pairs of the last place after which it is given up to become so certain.
const AT_AN_END: usize = 448;

/// The posterior at which a commit is held to be the culprit.
const SURE: f64 = 0.95;

/// The same, where a build costs no more than [`CHEAP`] pairs of runs.
const SURE_WHEN_CHEAP: f64 = 0.98;
const CHEAP: f64 = 2.0;

/// The pairs that the culprit and its parent have at least.
const AT_THE_CULPRIT: usize = 3;

/// Failed runs after which a commit is held to be unmeasurable, if more failed than did not.
const FAILURES: usize = 3;

/// The least separation, in σ, that is reckoned with: figures that are all the same by chance must
/// not make more of them look useless.
const LEAST_DISTANCE: f64 = 0.15;

/// The numbers of runs that a commit not yet built is weighed with.
const RUNS_WITH_A_BUILD: [usize; 6] = [1, 2, 3, 5, 8, 13];

/// The share of the change that the culprit must be able to account for.
const LEAST_SHARE: f64 = 0.5;

/// Commits that certainly are before the change, or behind it, have it with a probability below
/// this, or above one less this.
const CERTAIN: f64 = 0.01;

/// The verdicts that there is a change.
const CHANGED: [Verdict; 3] = [Verdict::Improved, Verdict::Regressed, Verdict::Changed];

/// One range under search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    first: usize,
    last: usize,
    ends_alone: bool,
    sites: Vec<Site>,
    /// Pairs of two places of this range, in time order.
    pairs: Vec<Pair>,
    /// The last verdicts on pairs of the same two places.
    judgements: BTreeMap<(usize, usize), Judgement>,
    /// Places that certainly did not make the change: they differ from their parent by less than
    /// half of it.
    cleared: Vec<usize>,
    prior: Prior,
    costs: Costs,
}

/// What comes next.
pub(super) enum Next {
    /// This is to be done.
    Ask(Step),
    /// The search is over.
    Over(Box<Outcome>),
}

/// One commit.
#[derive(Clone, Debug, Default)]
pub(super) struct Site {
    pub(super) state: State,
    /// Its figures and those of the reference beside them.
    pub(super) pairs: Vec<(f64, f64)>,
    /// Its figures, alone or in whatever pair.
    figures: Vec<f64>,
    failures: usize,
}

/// Whether a commit can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Unbuilt,
    Built,
    Out,
}

/// What was measured of costs.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    build_sec: f64,
    builds: u64,
    pair_sec: f64,
    pairs: u64,
}

impl Search {
    /// A search of `first` to `last`, of which nothing is known.
    pub(super) fn new(first: usize, last: usize, ends_alone: bool, settings: &Settings) -> Search {
        let mut sites = vec![Site::default(); last - first + 1];
        for &place in &settings.skipped {
            if first < place && place < last {
                sites[place - first].state = State::Out;
            }
        }
        let mut search = Search {
            first,
            last,
            ends_alone,
            sites,
            pairs: Vec::new(),
            judgements: BTreeMap::new(),
            cleared: Vec::new(),
            prior: Prior::new([]),
            costs: Costs::default(),
        };
        search.weigh();
        search
    }

    pub(super) fn range(&self) -> RangeInclusive<usize> {
        self.first..=self.last
    }

    /// Whether it compares its ends and no more.
    pub(super) fn ends_alone(&self) -> bool {
        self.ends_alone
    }

    pub(super) fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Takes in an event, if it is about this range.
    pub(super) fn take(&mut self, event: &Event, settings: &Settings) {
        match *event {
            Event::Built { place, sec } => {
                if let Some(sec) = sec {
                    self.costs.build_sec += sec;
                    self.costs.builds += 1;
                }
                if let Some(site) = self.site(place)
                    && site.state == State::Unbuilt
                {
                    site.state = State::Built;
                }
            }
            Event::Unbuildable { place } => {
                if let Some(site) = self.site(place) {
                    site.state = State::Out;
                    self.weigh();
                }
            }
            Event::Failed { place } => {
                if let Some(site) = self.site(place) {
                    site.failures += 1;
                    if site.failures >= FAILURES && site.failures > site.figures.len() {
                        site.state = State::Out;
                        self.weigh();
                    }
                }
            }
            Event::Single { place, figure } => {
                if let Some(site) = self.site(place) {
                    site.figures.push(figure);
                }
            }
            Event::Pair(pair) => self.take_pair(pair, settings),
        }
    }

    fn take_pair(&mut self, pair: Pair, settings: &Settings) {
        self.costs.pair_sec += pair.sec;
        self.costs.pairs += 1;
        if pair.void {
            return;
        }
        let first = self.first;
        let Pair { place, against, .. } = pair;
        if let Some(site) = self.site(against) {
            site.figures.push(pair.other);
        }
        let Some(site) = self.site(place) else { return };
        if place != against {
            site.figures.push(pair.figure);
        }
        if against == first {
            site.pairs.push((pair.figure, pair.other));
        }
        if against < first {
            return;
        }
        self.pairs.push(pair);
        let both = (place, against);
        let count = self.count(both);
        if place != against
            && settings.judge.rule.is_look(count)
            && let Some(judgement) = self.judge(both, settings)
        {
            self.clear(both, &judgement);
            self.judgements.insert(both, judgement);
        }
    }

    /// What is to be done next.
    pub(super) fn next(&self, settings: &Settings) -> Next {
        for end in [self.first, self.last] {
            match self.sites[end - self.first].state {
                State::Unbuilt => return Next::Ask(Step::Build(end)),
                State::Out => return over(Outcome::Unmeasurable(end)),
                State::Built => {}
            }
        }
        if self.first == self.last {
            return over(Outcome::Undecided(Doubt::Exhausted));
        }
        if settings.order != Order::Posterior && !self.ends_alone {
            return match survey::next(self, settings) {
                Some(step) => Next::Ask(step),
                None => self.conclude(settings),
            };
        }
        self.exactly(settings)
            .or_else(|| self.at_the_ends())
            .unwrap_or_else(|| self.inside(settings))
    }

    /// The posterior, as soon as there is one.
    pub(super) fn posterior(&self) -> Option<Posterior> {
        // Counts may be 0, of which there is no logarithm.
        let measured = || self.sites.iter().filter(|site| site.state == State::Built);
        let zero = measured().any(|site| site.pairs.iter().any(|&(x, y)| x <= 0.0 || y <= 0.0));
        let shift = if zero { 1.0 } else { 0.0 };
        let of = |&(figure, other): &(f64, f64)| ((figure + shift) / (other + shift)).ln();
        let ratios: Vec<(usize, Vec<f64>)> = (self.first..)
            .zip(&self.sites)
            .filter(|(_, site)| site.state == State::Built && !site.pairs.is_empty())
            .map(|(place, site)| (place, site.pairs.iter().map(of).collect()))
            .collect();
        let observed: Vec<Observed> = ratios
            .iter()
            .map(|(place, figures)| Observed {
                place: *place,
                figures,
            })
            .collect();
        Posterior::new(&observed, &self.prior)
    }

    /// At most `count` commits that will probably have to be built.
    pub(super) fn ahead(&self, count: usize) -> Vec<usize> {
        let mut places = Vec::new();
        let flat = || {
            // Of the ends alone nothing tells more than that it lies in between.
            let of = |place| Observed {
                place,
                figures: &[0.0],
            };
            Posterior::new(&[of(self.first), of(self.last)], &self.prior)
        };
        let Some(posterior) = self.posterior().or_else(flat) else {
            return places;
        };
        let mut parts = 2;
        while places.len() < count && parts <= 64 {
            for part in (1..parts).step_by(2) {
                let share = f64::from(part) / f64::from(parts);
                let split = posterior
                    .splits
                    .iter()
                    .find(|split| posterior.has(split.last) >= share);
                let place = split.and_then(|split| self.halving(&posterior, split, share));
                if let Some(place) = place
                    && self.sites[place - self.first].state == State::Unbuilt
                    && !places.contains(&place)
                {
                    places.push(place);
                }
            }
            parts *= 2;
        }
        places.truncate(count);
        places
    }

    /// How many builds and pairs it will probably still take.
    pub(super) fn remaining(&self) -> Option<(usize, usize)> {
        let posterior = self.posterior()?;
        let places: usize = posterior
            .credible(SURE)
            .into_iter()
            .map(|range| range.filter(|&place| posterior.at(place) > 0.0).count())
            .sum();
        let best = posterior.best();
        let distance = (best.change.abs() / best.sigma).max(LEAST_DISTANCE);
        // Beside the culprit, its parent is needed.
        let open = self
            .sites
            .iter()
            .filter(|site| site.state == State::Unbuilt);
        let builds = ((places as f64).log2().ceil() as usize).min(open.count());
        let share = information(0.5, distance);
        let pairs = (places.max(1) as f64).ln() / share + LOOKS[0] as f64 / share.min(0.5);
        Some((builds, pairs.ceil() as usize))
    }

    /// Whether no place between `before` and `place` can be measured.
    pub(super) fn adjacent(&self, before: usize, place: usize) -> bool {
        let between = &self.sites[before + 1 - self.first..place - self.first];
        between.iter().all(|site| site.state == State::Out)
    }

    fn site(&mut self, place: usize) -> Option<&mut Site> {
        let at = place.checked_sub(self.first)?;
        self.sites.get_mut(at)
    }

    /// Works the prior out anew. Who cannot be measured has its share with the next that can; who
    /// is cleared has none.
    fn weigh(&mut self) {
        let mut waiting = 0.0;
        let mut weights = vec![0.0; self.first];
        for (place, site) in (self.first..).zip(&self.sites) {
            waiting += 1.0;
            if site.state == State::Out && place != self.last {
                weights.push(0.0);
                continue;
            }
            weights.push(match self.cleared.contains(&place) {
                true => 0.0,
                false => waiting,
            });
            waiting = 0.0;
        }
        self.prior = Prior::new(weights);
    }

    /// Clears a place whose difference from its parent is not the change.
    fn clear(&mut self, (place, parent): (usize, usize), judgement: &Judgement) {
        if !self.adjacent(parent, place) || place == self.last && parent == self.first {
            return;
        }
        let (Some(found), Some(interval)) = (self.posterior(), judgement.comparison.interval)
        else {
            return;
        };
        let change = found.best().change.exp_m1();
        let ends = [interval.low / change, interval.high / change];
        if ends.into_iter().all(|share| share < LEAST_SHARE) && !self.cleared.contains(&place) {
            self.cleared.push(place);
            self.weigh();
        }
    }

    fn count(&self, (place, against): (usize, usize)) -> usize {
        let same = |pair: &&Pair| pair.place == place && pair.against == against;
        self.pairs.iter().filter(same).count()
    }

    /// The verdict on the pairs of two places.
    fn judge(&self, (place, against): (usize, usize), settings: &Settings) -> Option<Judgement> {
        let (mut old, mut new) = (Cell::default(), Cell::default());
        let same = |pair: &&Pair| pair.place == place && pair.against == against;
        for (round, pair) in (0..).zip(self.pairs.iter().filter(same)) {
            let at = |position: bool| {
                Some(Place {
                    run: 0,
                    round,
                    position: u32::from(position),
                    void: false,
                })
            };
            old.push(pair.other, at(pair.first));
            new.push(pair.figure, at(!pair.first));
        }
        settings.judge.judge_as(&settings.unit, &old, &new)
    }

    /// One more pair of two places, until it is certain that they differ; nothing when it is, or the
    /// last look was taken.
    fn compare(&self, place: usize, against: usize) -> Option<Step> {
        let settled = |judgement: &Judgement| CHANGED.contains(&judgement.verdict);
        let open = !self.judgements.get(&(place, against)).is_some_and(settled);
        let more = open && self.count((place, against)) < LOOKS[LOOKS.len() - 1];
        more.then_some(Step::Pair { place, against })
    }

    /// The search by halves, where figures do not vary; nothing where they do, or may.
    fn exactly(&self, settings: &Settings) -> Option<Next> {
        let unit = &settings.unit;
        let is_time = unit.unit.dimension() == Dimension::Seconds;
        if is_time && unit.assume != Assume::Exact {
            return None;
        }
        let agree = |site: &Site| site.figures.windows(2).all(|pair| pair[0] == pair[1]);
        if !self.sites.iter().all(agree) {
            return None;
        }
        let of = |place: usize| &self.sites[place - self.first].figures;
        let more = |place: usize| of(place).len() < EXACT_FROM;
        for end in [self.first, self.last] {
            if more(end) {
                return Some(Next::Ask(Step::Single(end)));
            }
        }
        let (good, bad) = (of(self.first)[0], of(self.last)[0]);
        let judge = |place: usize, against: usize| {
            let cell = |place: usize| {
                let mut cell = Cell::default();
                of(place).iter().for_each(|&figure| cell.push(figure, None));
                cell
            };
            settings.judge.judge_as(unit, &cell(against), &cell(place))
        };
        let ends = judge(self.last, self.first)?;
        if good == bad {
            return Some(over(Outcome::NoChange(ends)));
        }
        if self.ends_alone {
            return Some(over(Outcome::Differs(ends)));
        }
        // Where there are several steps, a figure in between belongs to the nearer end.
        let has = |figure: f64| (figure - bad).abs() < (figure - good).abs();
        let (mut before, mut made) = (self.first, self.last);
        for (place, site) in (self.first..).zip(&self.sites) {
            if let (State::Built, Some(&figure)) = (site.state, site.figures.first())
                && before < place
                && place < made
            {
                match has(figure) {
                    true => made = place,
                    false => before = place,
                }
            }
        }
        let middle = (before + made) / 2;
        if let Some(place) = self.nearest(middle, before, made) {
            return Some(Next::Ask(match self.sites[place - self.first].state {
                State::Built => Step::Single(place),
                _ => Step::Build(place),
            }));
        }
        if let Some(place) = [before, made].into_iter().find(|&place| more(place)) {
            return Some(Next::Ask(Step::Single(place)));
        }
        Some(over(Outcome::Found(Culprit {
            places: before + 1..=made,
            parent: before,
            probability: 1.0,
            change: None,
            judgement: judge(made, before)?,
        })))
    }

    /// What is to be done at the ends, until it is certain that they differ.
    fn at_the_ends(&self) -> Option<Next> {
        let (first, last) = (self.first, self.last);
        let at = |place: usize| self.sites[place - first].pairs.len();
        let ask = |place: usize| {
            let against = first;
            Some(Next::Ask(Step::Pair { place, against }))
        };
        if self.ends_alone {
            return Some(match (self.of_the_ends(), self.compare(last, first)) {
                (Outcome::Undecided(_), Some(step)) => Next::Ask(step),
                (outcome, _) => over(outcome),
            });
        }
        if at(last) < AT_EACH_END {
            return ask(last);
        }
        if at(first) < AT_EACH_END {
            return ask(first);
        }
        let none = self.posterior()?.none;
        if none <= NO_CHANGE {
            return None;
        }
        let looked = at(last) >= LOOKS[LOOKS.len() - 1];
        match self.of_the_ends() {
            Outcome::NoChange(judgement) => return Some(over(Outcome::NoChange(judgement))),
            // The levels themselves take more than that they differ, and high noise takes more
            // than the looks. Who expects no change after them waits no longer.
            ends if looked => {
                let hopeful = none < EVEN || matches!(ends, Outcome::Differs(_));
                if at(last) >= AT_AN_END || !hopeful {
                    return Some(over(Outcome::Undecided(Doubt::Ends)));
                }
            }
            _ => {}
        }
        // Both levels are to be known, but only pairs with the last can have a verdict.
        ask(if 2 * at(first) < at(last) {
            first
        } else {
            last
        })
    }

    fn of_the_ends(&self) -> Outcome {
        match self.judgements.get(&(self.last, self.first)) {
            Some(judgement) => match judgement.verdict {
                Verdict::Equivalent => Outcome::NoChange(judgement.clone()),
                Verdict::Inconclusive | Verdict::Untrustworthy => Outcome::Undecided(Doubt::Ends),
                _ => Outcome::Differs(judgement.clone()),
            },
            None => Outcome::Undecided(Doubt::Ends),
        }
    }

    /// What is to be done inside of the range.
    fn inside(&self, settings: &Settings) -> Next {
        let Some(posterior) = self.posterior() else {
            return over(Outcome::Undecided(Doubt::Exhausted));
        };
        let sure = match self.costs.build_sec() <= CHEAP * self.costs.pair_sec() {
            true => SURE_WHEN_CHEAP,
            false => SURE,
        };
        let best = posterior.best();
        let count = |place: usize| self.sites[place - self.first].pairs.len();
        if self.adjacent(best.before, best.last) && best.probability >= sure {
            let thin = [best.before, best.last]
                .into_iter()
                .find(|&place| count(place) < AT_THE_CULPRIT);
            return match thin {
                Some(place) => Next::Ask(Step::Pair {
                    place,
                    against: self.first,
                }),
                None => self.confirm(&best, &posterior),
            };
        }
        match self.choose(&posterior, &best) {
            Some(step) => Next::Ask(step),
            None => self.conclude(settings),
        }
    }

    /// Compares the culprit with its parent.
    fn confirm(&self, split: &Split, posterior: &Posterior) -> Next {
        let (place, parent) = (split.last, split.before);
        if let Some(step) = self.compare(place, parent) {
            return Next::Ask(step);
        }
        let Some(judgement) = self.judgements.get(&(place, parent)) else {
            return over(Outcome::Undecided(Doubt::Unconfirmed(place)));
        };
        let is_changed = CHANGED.contains(&judgement.verdict);
        let same_direction = judgement.comparison.estimate * split.change > 0.0;
        if !is_changed || !same_direction {
            return over(Outcome::Undecided(Doubt::Unconfirmed(place)));
        }
        let (change, interval) = posterior.change(0.95);
        let mut shares = interval;
        (shares.low, shares.high) = (interval.low.exp_m1(), interval.high.exp_m1());
        over(Outcome::Found(Culprit {
            places: parent + 1..=place,
            parent,
            probability: split.probability,
            change: Some((change.exp_m1(), shares)),
            judgement: judgement.clone(),
        }))
    }

    /// What there is to say when nothing more will be chosen.
    fn conclude(&self, settings: &Settings) -> Next {
        let Some(posterior) = self.posterior() else {
            return over(Outcome::Undecided(Doubt::Exhausted));
        };
        let best = match settings.order {
            Order::Metric => survey::steepest(self)
                .and_then(|(before, last)| {
                    let is = |split: &&Split| split.before == before && split.last == last;
                    posterior.splits.iter().find(is).copied()
                })
                .unwrap_or(posterior.best()),
            _ => posterior.best(),
        };
        match self.adjacent(best.before, best.last) {
            true => self.confirm(&best, &posterior),
            false => over(Outcome::Undecided(Doubt::Exhausted)),
        }
    }

    /// The run, or the build, that tells most for its cost.
    fn choose(&self, posterior: &Posterior, best: &Split) -> Option<Step> {
        let distance = (best.change.abs() / best.sigma).max(LEAST_DISTANCE);
        let pair_sec = self.costs.pair_sec();
        let build_sec = self.costs.build_sec();
        let (mut sure_before, mut sure_behind) = (0, 0);
        let mut chosen: Option<(f64, usize)> = None;
        let mut weigh = |has: f64, distance: f64, cost: f64, place: usize| {
            let most = chosen.map_or(0.0, |(value, _)| value);
            // Nothing tells more than there is to know: most need not be worked out.
            if entropy(has) / cost > most {
                let value = information(has, distance) / cost;
                if value > most {
                    chosen = Some((value, place));
                }
            }
        };
        for (place, site) in (self.first..).zip(&self.sites) {
            if site.state != State::Built || site.pairs.is_empty() {
                continue;
            }
            let has = posterior.has(place);
            match has {
                _ if has < CERTAIN => sure_before += site.pairs.len(),
                _ if has > 1.0 - CERTAIN => sure_behind += site.pairs.len(),
                _ => weigh(has, distance, pair_sec, place),
            }
        }
        for split in &posterior.splits {
            let Some(place) = self.halving(posterior, split, 0.5) else {
                continue;
            };
            let build_sec = match self.sites[place - self.first].state {
                State::Built => 0.0,
                _ => build_sec,
            };
            let has = posterior.has(place);
            let cost = |runs: usize| build_sec + runs as f64 * pair_sec;
            for runs in RUNS_WITH_A_BUILD {
                let distance = distance * (runs as f64).sqrt();
                weigh(has, distance, cost(runs), place);
            }
        }
        let (_, place) = chosen?;
        let site = &self.sites[place - self.first];
        // What is certain must be known better than what is not, else noise at an end is taken
        // for the change.
        let thinner = sure_before.min(sure_behind);
        let against = self.first;
        Some(match site.state {
            _ if site.pairs.len() >= thinner => {
                let place = match sure_before < sure_behind {
                    true => self.first,
                    false => self.last,
                };
                Step::Pair { place, against }
            }
            State::Built => Step::Pair { place, against },
            _ => Step::Build(place),
        })
    }

    /// The place within `split`, its ends apart, that can be measured and has the change with a
    /// probability near to `share`.
    fn halving(&self, posterior: &Posterior, split: &Split, share: f64) -> Option<usize> {
        let place = posterior.halving(split, share)?;
        self.nearest(place, split.before, split.last)
    }

    /// The place nearest to `place` between two others that can be measured.
    pub(super) fn nearest(&self, place: usize, before: usize, behind: usize) -> Option<usize> {
        let is_in = |&at: &usize| {
            before < at && at < behind && self.sites[at - self.first].state != State::Out
        };
        (0..behind - before).find_map(|off| {
            let sides = [place.checked_sub(off), Some(place + off)];
            sides.into_iter().flatten().find(is_in)
        })
    }
}

impl Costs {
    /// What one more build will take: before one was measured, as much as ten pairs.
    fn build_sec(&self) -> f64 {
        match self.builds {
            0 => 10.0 * self.pair_sec(),
            builds => self.build_sec / builds as f64,
        }
    }

    /// What one more pair of runs will take.
    fn pair_sec(&self) -> f64 {
        match self.pairs {
            0 => 1.0,
            pairs => (self.pair_sec / pairs as f64).max(1e-9),
        }
    }
}

fn over(outcome: Outcome) -> Next {
    Next::Over(Box::new(outcome))
}
