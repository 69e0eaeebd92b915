//! One step in a row of noisy places: where it probably is, how high, and whether there is one at all. Never chooses what to measure next, never knows what a place is.
//!
//! Places 0, 1, 2, … are commits in the order of their history. An observation at place c is
//! y = μ + Δ·1[c ≥ τ] + σ·t₄, where place τ made the change; it lies behind the first place that
//! was observed, and not behind the last one. [`Posterior`] says how probable each τ is, and that
//! there is no change at all. For every split between neighbouring places that were observed the
//! two levels and σ are fitted by iterated weights, which makes outliers harmless, and μ and Δ are
//! integrated out by Laplace's method. All places of a gap between two observed ones share what
//! their split has, by their prior weights.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use super::{Interval, normal};

/// The probability, before anything is observed, that nothing changed.
const NONE: f64 = 0.5;

/// The variance of Δ before anything is observed: changes of a fifth are usual.
const CHANGE_VARIANCE: f64 = 0.04;

/// The degrees of freedom of the noise.
const FREEDOM: f64 = 4.0;

/// The most rounds of weights.
const ROUNDS: usize = 12;

/// The change of σ from round to round, as a share, below which more rounds are of no use.
const SETTLED: f64 = 1e-3;

/// The least σ: figures that agree to so many digits by chance shall not be certain for ever.
const LEAST_SIGMA: f64 = 1e-6;

/// How probable it is beforehand that each place made the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// The sum of the weights of all places before each.
    before: Vec<f64>,
}

/// What was observed at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed<'a> {
    /// The place.
    pub place: usize,
    /// The observations there, in any order: logarithms of ratios.
    pub figures: &'a [f64],
}

/// What the observations say.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// The probability that nothing changed.
    pub none: f64,
    /// The gaps between neighbouring places that were observed, in order.
    pub splits: Vec<Split>,
    prior: Prior,
}

/// One gap, and the change if it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// The place before the gap, the last without the change.
    pub before: usize,
    /// The last place of the gap, which was observed and has the change.
    pub last: usize,
    /// The probability that the change is in this gap.
    pub probability: f64,
    /// Δ with the change here, shrunk towards 0 by what was known beforehand.
    pub change: f64,
    /// The standard deviation of that Δ.
    pub change_error: f64,
    /// σ with the change here.
    pub sigma: f64,
}

impl Prior {
    /// Weights of the places, none of them negative; that of place 0 counts for nothing, for
    /// what is before it is never observed.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Prior {
        let mut before = vec![0.0];
        let mut sum = 0.0;
        for weight in weights {
            sum += weight;
            before.push(sum);
        }
        Prior { before }
    }

    /// The weight of places `first` to `last`.
    fn weight(&self, first: usize, last: usize) -> f64 {
        let before = |place: usize| {
            let end = self.before.len() - 1;
            self.before[place.min(end)]
        };
        before(last + 1) - before(first)
    }

    /// The place in `range` that splits the weight of it nearest to `share`: the weight up to and
    /// including it is about that share. Nothing when no place in it has a weight.
    fn place_at(&self, range: RangeInclusive<usize>, share: f64) -> Option<usize> {
        let (first, last) = (*range.start(), *range.end());
        let whole = self.weight(first, last);
        if whole <= 0.0 || last + 1 >= self.before.len() {
            return None;
        }
        let wanted = self.before[first] + share * whole;
        let sums = &self.before[first + 1..=last + 1];
        let at = sums
            .partition_point(|&sum| sum < wanted)
            .min(sums.len() - 1);
        // The one before may be nearer.
        let nearer = at > 0 && wanted - sums[at - 1] < sums[at] - wanted;
        Some(first + at - usize::from(nearer))
    }
}

impl Posterior {
    /// What `observed`, in the order of its places, says of the step under `prior`. Nothing when
    /// fewer than two places have observations or one of them is no finite number.
    pub fn new(observed: &[Observed], prior: &Prior) -> Option<Posterior> {
        let mut figures = Vec::new();
        // The places, and where the figures of each begin.
        let mut places: Vec<(usize, usize)> = Vec::new();
        for one in observed.iter().filter(|one| !one.figures.is_empty()) {
            places.push((one.place, figures.len()));
            figures.extend_from_slice(one.figures);
        }
        let (&(first, _), &(last, _)) = (places.first()?, places.last()?);
        let ordered = places.is_sorted_by(|a, b| a.0 < b.0);
        let whole = prior.weight(first + 1, last);
        if first == last || !ordered || !figures.iter().all(|x| x.is_finite()) || whole <= 0.0 {
            return None;
        }

        let (flat, weights) = fit(&figures, figures.len(), vec![1.0; figures.len()]);
        let mut evidence = vec![NONE.ln() + flat.evidence];
        let mut splits = Vec::new();
        for pair in places.windows(2) {
            let ((before, _), (last, begin)) = (pair[0], pair[1]);
            let share = prior.weight(before + 1, last) / whole;
            let (split, _) = fit(&figures, begin, weights.clone());
            let variance = split.variance;
            let known = CHANGE_VARIANCE / (CHANGE_VARIANCE + variance);
            let change = split.right - split.left;
            let total = CHANGE_VARIANCE + variance;
            evidence.push(
                (1.0 - NONE).ln() + share.ln() + split.evidence + 0.5 * (variance / total).ln()
                    - change * change / (2.0 * total),
            );
            splits.push(Split {
                before,
                last,
                probability: 0.0,
                change: known * change,
                change_error: (known * variance).sqrt(),
                sigma: split.sigma,
            });
        }
        let most = evidence.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let odds: Vec<f64> = evidence.iter().map(|e| (e - most).exp()).collect();
        let sum: f64 = odds.iter().sum();
        for (split, odds) in splits.iter_mut().zip(&odds[1..]) {
            split.probability = odds / sum;
        }
        Some(Posterior {
            none: odds[0] / sum,
            splits,
            prior: prior.clone(),
        })
    }

    /// The most probable gap.
    pub fn best(&self) -> Split {
        let mut best = self.splits[0];
        for &split in &self.splits[1..] {
            if split.probability > best.probability {
                best = split;
            }
        }
        best
    }

    /// The probability that `place` made the change.
    pub fn at(&self, place: usize) -> f64 {
        let of = |split: &&Split| split.before < place && place <= split.last;
        let Some(split) = self.splits.iter().find(of) else {
            return 0.0;
        };
        let whole = self.prior.weight(split.before + 1, split.last);
        match whole > 0.0 {
            true => split.probability * self.prior.weight(place, place) / whole,
            false => 0.0,
        }
    }

    /// The probability that `place` has the change, given that there is one: that it or one before
    /// made it.
    pub fn has(&self, place: usize) -> f64 {
        let (mut sum, mut has) = (0.0, 0.0);
        for split in &self.splits {
            sum += split.probability;
            if split.last <= place {
                has += split.probability;
            } else if split.before < place {
                let whole = self.prior.weight(split.before + 1, split.last);
                let part = self.prior.weight(split.before + 1, place);
                has += split.probability * if whole > 0.0 { part / whole } else { 0.0 };
            }
        }
        match sum > 0.0 {
            true => (has / sum).min(1.0),
            false => 0.5,
        }
    }

    /// The place inside of `split`, not its last one, that has the change with a probability
    /// nearest to `share`, given that there is one.
    pub fn halving(&self, split: &Split, share: f64) -> Option<usize> {
        if split.last - split.before < 2 {
            return None;
        }
        let (low, high) = (self.has(split.before), self.has(split.last));
        let within = match high > low {
            true => ((share - low) / (high - low)).clamp(0.0, 1.0),
            false => 0.5,
        };
        let gap = split.before + 1..=split.last;
        let place = self.prior.place_at(gap, within)?;
        Some(place.clamp(split.before + 1, split.last - 1))
    }

    /// The fewest gaps that hold the change with `confidence`, given that there is one; those that
    /// touch are one range.
    pub fn credible(&self, confidence: f64) -> Vec<RangeInclusive<usize>> {
        let mut by_density: Vec<&Split> = self.splits.iter().collect();
        let density = |split: &Split| {
            let whole = self.prior.weight(split.before + 1, split.last);
            split.probability / whole.max(f64::MIN_POSITIVE)
        };
        by_density.sort_by(|a, b| density(b).total_cmp(&density(a)));
        let all: f64 = by_density.iter().map(|split| split.probability).sum();
        let mut held = 0.0;
        let mut ranges = Vec::new();
        for split in by_density {
            if held >= confidence * all {
                break;
            }
            held += split.probability;
            ranges.push(split.before + 1..=split.last);
        }
        ranges.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<usize>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.end() + 1 == *range.start() => {
                    *last = *last.start()..=*range.end();
                }
                _ => joined.push(range),
            }
        }
        joined
    }

    /// Δ given that there is a change, wherever it is: its median, and the interval that holds it
    /// with `confidence`.
    pub fn change(&self, confidence: f64) -> (f64, Interval) {
        let all: f64 = self.splits.iter().map(|split| split.probability).sum();
        let below = |x: f64| -> f64 {
            let part = |split: &Split| {
                let z = (x - split.change) / split.change_error.max(f64::MIN_POSITIVE);
                split.probability * normal::cumulative(z)
            };
            self.splits.iter().map(part).sum::<f64>() / all
        };
        let quantile = |p: f64| {
            let reach = |split: &Split| split.change.abs() + 40.0 * split.change_error;
            let most = self.splits.iter().map(reach).fold(0.0, f64::max);
            let (mut low, mut high) = (-most, most);
            for _ in 0..60 {
                let mid = f64::midpoint(low, high);
                if below(mid) < p {
                    low = mid;
                } else {
                    high = mid;
                }
            }
            high
        };
        let tail = (1.0 - confidence) / 2.0;
        let interval = Interval {
            low: quantile(tail),
            high: quantile(1.0 - tail),
            confidence,
        };
        (quantile(0.5), interval)
    }
}

/// Two levels (or one) fitted to the figures.
struct Fit {
    left: f64,
    right: f64,
    sigma: f64,
    /// The variance of the difference of the levels.
    variance: f64,
    /// The logarithm of the likelihood, with the common level integrated out.
    evidence: f64,
}

/// Fits one level to the figures before `begin` and one to those from there on, beginning with
/// `weights`; with none there, one level to all. The weights come back.
fn fit(figures: &[f64], begin: usize, mut weights: Vec<f64>) -> (Fit, Vec<f64>) {
    let (before, behind) = figures.split_at(begin);
    let mut sigma2 = 0.0_f64;
    let (mut left, mut right) = ((0.0, 0.0), (0.0, 0.0));
    for round in 0..=ROUNDS {
        let (w_before, w_behind) = weights.split_at_mut(begin);
        left = level(before, w_before);
        right = level(behind, w_behind);
        let squares = squares(before, w_before, left.0) + squares(behind, w_behind, right.0);
        let last = sigma2;
        sigma2 = (squares / (left.1 + right.1)).max(LEAST_SIGMA * LEAST_SIGMA);
        let settled = (sigma2 - last).abs() <= 2.0 * SETTLED * sigma2;
        if round == ROUNDS || round > 0 && settled {
            break;
        }
        reweigh(before, w_before, left.0, sigma2);
        reweigh(behind, w_behind, right.0, sigma2);
    }
    let logs = log_kernel(before, left.0, sigma2) + log_kernel(behind, right.0, sigma2);
    // Of t₄ the density is 3/8 · (1 + r²/4)^(−5/2).
    let density = figures.len() as f64 * (0.375_f64.ln() - 0.5 * sigma2.ln()) - 2.5 * logs;
    let whole = left.1 + right.1;
    let fit = Fit {
        left: left.0,
        right: right.0,
        sigma: sigma2.sqrt(),
        variance: sigma2 * (1.0 / left.1 + 1.0 / right.1),
        evidence: density + 0.5 * (2.0 * PI * sigma2 / whole).ln(),
    };
    (fit, weights)
}

// Loops by index: all time goes here, and tests run them unoptimised.

/// The weighted mean, and the sum of the weights.
fn level(figures: &[f64], weights: &[f64]) -> (f64, f64) {
    let (mut sum, mut whole, mut at) = (0.0, 0.0, 0);
    while at < figures.len() {
        sum += weights[at] * figures[at];
        whole += weights[at];
        at += 1;
    }
    (if whole > 0.0 { sum / whole } else { 0.0 }, whole)
}

/// The weighted sum of squares about `level`.
fn squares(figures: &[f64], weights: &[f64], level: f64) -> f64 {
    let (mut sum, mut at) = (0.0, 0);
    while at < figures.len() {
        let r = figures[at] - level;
        sum += weights[at] * r * r;
        at += 1;
    }
    sum
}

fn reweigh(figures: &[f64], weights: &mut [f64], level: f64, sigma2: f64) {
    let mut at = 0;
    while at < figures.len() {
        let r = figures[at] - level;
        weights[at] = (FREEDOM + 1.0) / (FREEDOM + r * r / sigma2);
        at += 1;
    }
}

/// The sum of ln(1 + r²/4σ²). Logarithms are dear: one for many factors.
fn log_kernel(figures: &[f64], level: f64, sigma2: f64) -> f64 {
    let (mut logs, mut product, mut at) = (0.0, 1.0_f64, 0);
    while at < figures.len() {
        let r = figures[at] - level;
        product *= 1.0 + r * r / (FREEDOM * sigma2);
        if product > 1e200 {
            logs += product.ln();
            product = 1.0;
        }
        at += 1;
    }
    logs + product.ln()
}

/// What an observation with separation `distance` (in σ) tells of a thing whose probability is
/// `p`, in nats: the mutual information of the two through Gaussian noise, by 21 points.
pub fn information(p: f64, distance: f64) -> f64 {
    if !(p > 0.0 && p < 1.0) || distance <= 0.0 {
        return 0.0;
    }
    const REACH: f64 = 5.0;
    const STEP: f64 = REACH / 10.0;
    let half = distance * distance / 2.0;
    let (mut told, mut whole) = (0.0, 0.0);
    for point in -10..=10 {
        let z = f64::from(point) * STEP;
        let density = (-z * z / 2.0).exp();
        // How much less probable the observation would be were it the other way round.
        let other = (-distance * z - half).exp();
        told -= density * (p * (p + (1.0 - p) * other).ln());
        told -= density * ((1.0 - p) * (1.0 - p + p * other).ln());
        whole += density;
    }
    (told / whole).clamp(0.0, entropy(p))
}

/// How often plain bisection must measure each place to be right with `confidence` after `steps`
/// of them, where the step is `distance` in σ: against the middle of the ends' means, which are no
/// better known.
pub fn plain_measurements(distance: f64, steps: usize, confidence: f64) -> f64 {
    let z = normal::quantile(1.0 - (1.0 - confidence) / steps.max(1) as f64);
    (1.5 * (2.0 * z / distance.abs()).powi(2)).max(1.0).ceil()
}

/// What there is to know of a thing whose probability is `p`, in nats.
pub fn entropy(p: f64) -> f64 {
    let part = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    part(p) + part(1.0 - p)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn plain_bisection_takes_what_simulations_say() {
        // They took 38 to 55 measurements of each place for a step as high as σ, and 3 to 5 where
        // it is four times as high.
        let check = |distance, low: f64, high: f64| {
            let got = plain_measurements(distance, 11, 0.95);
            assert!((low..=high).contains(&got), "{distance}: {got}");
        };
        check(0.976, 34.0, 55.0);
        check(3.65, 3.0, 5.0);
        check(1000.0, 1.0, 1.0);
    }

    type Data = Vec<(usize, Vec<f64>)>;

    fn posterior_by(data: &Data, prior: &Prior) -> Posterior {
        let observed: Vec<Observed> = data
            .iter()
            .map(|(place, figures)| Observed {
                place: *place,
                figures,
            })
            .collect();
        Posterior::new(&observed, prior).unwrap()
    }

    fn posterior(data: &Data) -> Posterior {
        posterior_by(data, &Prior::new(vec![1.0; 1000]))
    }

    /// Figures about 0 before place `step`, about `change` from there on.
    fn noisy(seed: u64, places: &[usize], count: usize, step: usize, change: f64) -> Data {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut figure = |place: usize| {
            let (u, v): (f64, f64) = (random.random(), random.random());
            let z = (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * PI * v).cos();
            0.05 * z + if place >= step { change } else { 0.0 }
        };
        places
            .iter()
            .map(|&place| (place, (0..count).map(|_| figure(place)).collect()))
            .collect()
    }

    /// The logarithms of the odds of each gap against no change, by summing over a grid of the
    /// level, of Δ and of σ.
    fn directly(data: &Data, prior: &Prior) -> Vec<f64> {
        const POINTS: i32 = 41;
        let all: Vec<(usize, f64)> = data
            .iter()
            .flat_map(|(place, figures)| figures.iter().map(|&figure| (*place, figure)))
            .collect();
        let (first, last) = (data[0].0, data[data.len() - 1].0);
        let grid = |low: f64, high: f64| {
            (0..POINTS).map(move |at| low + (high - low) * f64::from(at) / f64::from(POINTS - 1))
        };
        let likelihood = |begin: usize, level: f64, change: f64, sigma: f64| -> f64 {
            let density = |&(place, y): &(usize, f64)| {
                let mean = level + if place >= begin { change } else { 0.0 };
                let r = (y - mean) / sigma;
                0.375 / sigma * (1.0 + r * r / 4.0).powf(-2.5)
            };
            all.iter().map(density).product()
        };
        let (changes, step) = (-0.6, 1.2 / f64::from(POINTS - 1));
        let mut flat = 0.0;
        let mut splits = vec![0.0; data.len() - 1];
        for log_sigma in grid((0.01_f64).ln(), (0.4_f64).ln()) {
            for level in grid(-0.3, 0.5) {
                flat += likelihood(usize::MAX, level, 0.0, log_sigma.exp());
                for (split, pair) in splits.iter_mut().zip(data.windows(2)) {
                    let begin = pair[1].0;
                    let share = prior.weight(pair[0].0 + 1, begin) / prior.weight(first + 1, last);
                    let density = |d: f64| (-d * d / 0.08).exp() / (2.0 * PI * 0.04).sqrt();
                    let sum: f64 = grid(changes, -changes)
                        .map(|d| density(d) * likelihood(begin, level, d, log_sigma.exp()))
                        .sum();
                    *split += share * sum * step;
                }
            }
        }
        splits.iter().map(|split| (split / flat).ln()).collect()
    }

    #[test]
    fn it_is_what_a_direct_sum_gives() {
        let prior = Prior::new((0..100).map(|place| 1.0 + f64::from(place % 3)));
        for (seed, step, change) in [(1, 10, 0.1), (2, 40, -0.2), (3, 1000, 0.0), (4, 20, 0.06)] {
            let mut data = noisy(seed, &[0, 10, 37, 90], 5, step, change);
            data[1].1[0] += 0.4;
            let got = posterior_by(&data, &prior);
            for (split, want) in got.splits.iter().zip(directly(&data, &prior)) {
                let odds = (split.probability / got.none).ln();
                // Laplace's method and the fitted σ are no more exact for so few figures.
                assert!(
                    (odds - want).abs() < 0.5,
                    "{seed}: {odds} is not {want}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn a_clear_step_is_found() {
        let data = noisy(5, &[0, 100, 500, 501, 999], 8, 501, 0.2);
        let got = posterior(&data);
        assert!(got.none < 1e-6 && got.at(501) > 0.99, "{got:?}");
        assert_eq!((got.best().before, got.best().last), (500, 501));
        assert_eq!(got.credible(0.95), [501..=501]);
        assert!(got.has(500) < 0.01 && got.has(501) > 0.99);
        let (change, interval) = got.change(0.95);
        assert!(interval.contains(0.2) && interval.contains(change));
        assert!(interval.high - interval.low < 0.1, "{interval:?}");
        assert_eq!(got.halving(&got.best(), 0.5), None);
    }

    #[test]
    fn without_a_change_none_becomes_probable() {
        let got = posterior(&noisy(6, &[0, 999], 100, 5000, 0.0));
        assert!(got.none > 0.9, "{got:?}");
    }

    #[test]
    fn gaps_have_what_their_length_gives_them() {
        // Nothing tells the two gaps apart: what is in between lies in the middle.
        let data: Data = vec![
            (0, vec![0.0, 0.01, -0.01]),
            (30, vec![0.05, 0.06, 0.04]),
            (120, vec![0.1, 0.11, 0.09]),
        ];
        let got = posterior(&data);
        let [short, long] = got.splits[..] else {
            panic!("{got:?}");
        };
        let ratio = long.probability / short.probability;
        assert!((ratio - 3.0).abs() < 0.01, "{ratio}");
        // Nobody has asked for more than the whole.
        assert_eq!(got.credible(0.95), [1..=120]);
        let sum: f64 = (0..=120).map(|place| got.at(place)).sum();
        assert!((sum + got.none - 1.0).abs() < 1e-9);
        let half = got.halving(&long, 0.5).unwrap();
        assert!((got.has(half) - 0.5).abs() < 0.01, "{half}");
        // Weights of the user's: nothing happened in the long gap but at its end.
        let weights = (0..=120).map(|place| f64::from(u8::from(!(31..120).contains(&place))));
        let got = posterior_by(&data, &Prior::new(weights));
        let ratio = got.splits[1].probability / got.splits[0].probability;
        assert!((ratio - 1.0 / 30.0).abs() < 0.01, "{ratio}");
        assert_eq!((got.at(77), got.at(120)), (0.0, got.splits[1].probability));
    }

    #[test]
    fn what_says_nothing_gives_nothing() {
        let prior = Prior::new(vec![1.0; 10]);
        let check = |observed: &[Observed]| assert_eq!(Posterior::new(observed, &prior), None);
        let of = |place, figures| Observed { place, figures };
        check(&[]);
        check(&[of(0, &[1.0])]);
        check(&[of(0, &[1.0]), of(9, &[])]);
        check(&[of(0, &[1.0]), of(9, &[f64::NAN])]);
        check(&[of(9, &[1.0]), of(0, &[1.0])]);
        // Figures that are all the same are no trouble.
        let same = [of(0, &[0.0; 5]), of(9, &[0.0; 5])];
        assert!(Posterior::new(&same, &prior).unwrap().none > 0.5);
        let apart = [of(0, &[0.0; 5]), of(9, &[0.1; 5])];
        assert!(Posterior::new(&apart, &prior).unwrap().none < 1e-6);
    }

    #[test]
    fn information_is_what_an_integral_gives() {
        // Capacity of the binary-input Gaussian channel, by a fine sum.
        for (p, distance) in [(0.5, 1.0), (0.5, 0.2), (0.1, 2.0), (0.9, 2.0), (0.5, 6.0)] {
            let mut want = 0.0;
            for at in -4000..=4000 {
                let y = f64::from(at) / 200.0;
                let of = |mean: f64| (-(y - mean).powi(2) / 2.0).exp() / (2.0 * PI).sqrt();
                let (zero, one) = (of(0.0), of(distance));
                let both = p * one + (1.0 - p) * zero;
                for (share, density) in [(p, one), (1.0 - p, zero)] {
                    if density > 0.0 {
                        want += share * density * (density / both).ln() / 200.0;
                    }
                }
            }
            let got = information(p, distance);
            assert!((got - want).abs() < 2e-3, "{p} {distance}: {got} {want}");
        }
        assert_eq!(information(0.0, 1.0), 0.0);
        assert_eq!(information(0.5, 0.0), 0.0);
        assert!((entropy(0.5) - 2f64.ln()).abs() < 1e-15);
    }

    fn some_data() -> impl Strategy<Value = Data> {
        let places = prop::collection::btree_set(0..1000_usize, 2..8);
        places.prop_flat_map(|places| {
            let places: Vec<usize> = places.into_iter().collect();
            let figures = prop::collection::vec(-0.3..0.3, 1..9);
            prop::collection::vec(figures, places.len())
                .prop_map(move |all| places.iter().copied().zip(all).collect())
        })
    }

    #[track_caller]
    fn assert_same(a: &Posterior, b: &Posterior) {
        let all = |of: &Posterior| -> Vec<f64> {
            let splits = of.splits.iter().map(|split| split.probability);
            std::iter::once(of.none).chain(splits).collect()
        };
        let (a, b) = (all(a), all(b));
        let same = a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(same && a.len() == b.len(), "{a:?} {b:?}");
    }

    proptest! {
        #[test]
        fn all_together_are_one(data in some_data()) {
            let got = posterior(&data);
            let sum: f64 = got.splits.iter().map(|split| split.probability).sum();
            prop_assert!((sum + got.none - 1.0).abs() < 1e-9);
            let (change, interval) = got.change(0.9);
            prop_assert!(interval.contains(change));
            let held: f64 = got
                .credible(0.9)
                .into_iter()
                .flat_map(|range| range.map(|place| got.at(place)).collect::<Vec<_>>())
                .sum();
            prop_assert!(held >= 0.9 * sum - 1e-9);
            let firsts = got.splits.iter().map(|split| got.has(split.last));
            prop_assert!(firsts.collect::<Vec<_>>().is_sorted());
        }

        #[test]
        fn a_shift_of_all_changes_nothing(data in some_data(), shift in -2.0..2.0) {
            let shifted = data.iter().map(|(place, figures)| {
                (*place, figures.iter().map(|x| x + shift).collect())
            });
            assert_same(&posterior(&data), &posterior(&shifted.collect()));
        }

        #[test]
        fn the_mirror_image_has_the_mirrored_posterior(data in some_data()) {
            let turned: Data = data.iter().rev().map(|(place, figures)| {
                (999 - place, figures.clone())
            }).collect();
            let (there, mut back) = (posterior(&data), posterior(&turned));
            back.splits.reverse();
            assert_same(&there, &back);
            let upside_down: Data = data.iter().map(|(place, figures)| {
                (*place, figures.iter().map(|x| -x).collect())
            }).collect();
            assert_same(&there, &posterior(&upside_down));
        }

        #[test]
        fn the_order_of_observations_does_not_matter(data in some_data()) {
            let turned = data.iter().map(|(place, figures)| {
                (*place, figures.iter().rev().copied().collect())
            });
            assert_same(&posterior(&data), &posterior(&turned.collect()));
        }
    }
}
