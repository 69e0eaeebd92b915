//! Pairs of runs, one of each variant, side by side in time: what their differences say, how many more are needed, whether it matters which ran first. Never pairs anything itself, never drops a pair.

use super::comparison::{Basis, Comparison, Finding, Margin, Scale};
use super::order::median;
use super::sequential::Rule;
use super::{Interval, mann_whitney, normal, signed_rank};

/// The probability with which a forecast's number of pairs decides.
pub const POWER: f64 = 0.8;

/// The level of the interval that the noise is taken from: so narrow that few pairs give it.
const NOISE_LEVEL: f64 = 0.3;

/// The differences of pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    scale: Scale,
    differences: Vec<f64>,
    level: f64,
}

/// How many pairs a decision takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The pairs that show equivalence with probability [`POWER`] when nothing has changed:
    /// those that the margin needs. `usize::MAX` when no number does.
    pub if_unchanged: usize,
    /// The pairs that decide either way when the change is just as estimated.
    pub if_as_estimated: usize,
    /// The pairs that there are, which did not decide.
    pub had: usize,
    /// The most pairs that there may be.
    pub most: usize,
    /// The margin, as [`Comparison::estimate`] is measured, that so many would be enough for.
    pub margin: f64,
}

impl Forecast {
    /// The pairs that a decision takes at the soonest. Where there are as many already as an
    /// unchanged thing takes, it is not taken for unchanged any longer.
    pub fn pairs(&self) -> usize {
        let as_estimated = self.if_as_estimated.max(self.had + 1);
        match self.if_unchanged > self.had {
            true => as_estimated.min(self.if_unchanged),
            false => as_estimated,
        }
    }

    /// Whether a decision is unlikely with the pairs there may be, changed or not.
    pub fn is_hopeless(&self) -> bool {
        self.pairs() > self.most
    }
}

/// What running second instead of first does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionEffect {
    /// The change, as [`Comparison::estimate`] is measured.
    pub effect: f64,
    /// The probability of so strong an effect when there is none: Mann–Whitney's test.
    pub p: f64,
}

impl Pairs {
    /// The pairs of the figures of `old` and `new` that stand at the same place: d = ln(new/old)
    /// where all are above 0, else new − old.
    ///
    /// `None` when there are none, the numbers differ, or a figure is not a finite number.
    pub fn new(old: &[f64], new: &[f64]) -> Option<Pairs> {
        if old.len() != new.len() || !new.iter().all(|x| x.is_finite()) {
            return None;
        }
        let level = median(old)?;
        let scale = Scale::of(old, new);
        let difference = |(old, new): (&f64, &f64)| match scale {
            Scale::Ratio => new.ln() - old.ln(),
            Scale::Difference => new - old,
        };
        let differences = old.iter().zip(new).map(difference).collect();
        Some(Pairs {
            scale,
            differences,
            level,
        })
    }

    /// The differences in time order: of logarithms, where the scale is [`Scale::Ratio`].
    pub fn differences(&self) -> &[f64] {
        &self.differences
    }

    /// In what changes are measured.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Compares by signed ranks: the Hodges–Lehmann estimate, the exact test, and the intervals
    /// from the Walsh averages at the rule's levels.
    ///
    /// With [`Rule::sequential`] this is one look, to be taken when [`Rule::is_look`] says so or
    /// when nothing more will be measured; a finding other than inconclusive ends it.
    pub fn compare(&self, rule: &Rule, margin: Margin) -> Comparison {
        let scale = self.scale;
        let interval = |level: f64| Some(scale.change_interval(self.interval(1.0 - level)?));
        let p = signed_rank::test(&self.differences).map_or(1.0, |test| test.two_sided);
        let bound = margin.bound(scale, self.level);
        let mut comparison = Comparison {
            basis: Basis::Pairs,
            scale,
            counts: [self.differences.len(); 2],
            estimate: scale.change(self.estimate()),
            interval: interval(rule.difference),
            equivalence: interval(rule.equivalence),
            margin: [scale.change(-bound), scale.change(bound)],
            p: Some(rule.adjusted(p)),
            approximate: false,
            finding: Finding::Inconclusive,
        };
        comparison.conclude(rule.alpha);
        comparison
    }

    /// How many pairs a decision by `rule` takes with this noise, when there may be `most`.
    ///
    /// It takes the estimate as normal about the change, with a standard error that falls as
    /// 1/√n. After 8 pairs the number is right to a factor of 2, after 20 to one of 1.6. `None`
    /// with fewer than 3 pairs.
    pub fn forecast(&self, rule: &Rule, margin: Margin, most: usize) -> Option<Forecast> {
        let noise = self.noise()?;
        let bound = margin.bound(self.scale, self.level);
        let pairs = |change: f64| pairs_to_decide(noise, change, bound, rule);
        let reach = normal::two_sided(rule.equivalence) + normal::two_sided(1.0 - POWER);
        Some(Forecast {
            if_unchanged: pairs(0.0),
            if_as_estimated: pairs(self.estimate()),
            had: self.differences.len(),
            most,
            margin: self.scale.change(reach * noise / (most as f64).sqrt()),
        })
    }

    /// The least change (as [`Comparison::estimate`] is measured) that `pairs` pairs find with
    /// probability [`POWER`] at one look of `rule`, with this noise.
    pub fn detectable(&self, rule: &Rule, pairs: usize) -> Option<f64> {
        let reach = normal::two_sided(rule.difference) + normal::quantile(POWER);
        let change = reach * self.noise()? / (pairs as f64).sqrt();
        Some(self.scale.change(change))
    }

    /// The effect of running second; `new_first` says of each pair whether the new variant ran
    /// first.
    ///
    /// Coins keep it out of the comparison, which it only widens. `None` when the numbers differ
    /// or the coins all fell alike.
    pub fn position_effect(&self, new_first: &[bool]) -> Option<PositionEffect> {
        if new_first.len() != self.differences.len() {
            return None;
        }
        let part = |first: bool| -> Vec<f64> {
            let all = self.differences.iter().zip(new_first);
            all.filter(|pair| *pair.1 == first)
                .map(|pair| *pair.0)
                .collect()
        };
        let (first, second) = (part(true), part(false));
        // A pair's difference holds the effect once this way and once that way.
        let twice = mann_whitney::hodges_lehmann(&first, &second)?;
        Some(PositionEffect {
            effect: self.scale.change(twice / 2.0),
            p: mann_whitney::test(&first, &second)?.two_sided,
        })
    }

    fn estimate(&self) -> f64 {
        // There is a pair, and all of them are finite.
        signed_rank::hodges_lehmann(&self.differences).unwrap_or(0.0)
    }

    fn interval(&self, confidence: f64) -> Option<Interval> {
        signed_rank::interval(&self.differences, confidence)
    }

    /// The standard error of the estimate times √n, from the width of a narrow interval; as
    /// signed ranks see it, so that outliers count for little.
    fn noise(&self) -> Option<f64> {
        let interval = self.interval(1.0 - NOISE_LEVEL)?;
        let width = interval.high - interval.low;
        let z = normal::two_sided(1.0 - interval.confidence);
        Some(width / (2.0 * z) * (self.differences.len() as f64).sqrt())
    }
}

/// The least number of pairs with which `rule` decides with probability [`POWER`] when the change
/// is `change` and the margin `bound`, both before [`Scale::change`].
fn pairs_to_decide(noise: f64, change: f64, bound: f64, rule: &Rule) -> usize {
    let change = change.abs();
    let (z, z_margin) = (
        normal::two_sided(rule.difference),
        normal::two_sided(rule.equivalence),
    );
    let decides = |n: usize| {
        let error = noise / (n as f64).sqrt();
        let room = bound - z_margin * error;
        let within = normal::cumulative((room - change) / error)
            - normal::cumulative((-room - change) / error);
        let beyond = if change > 0.0 {
            normal::cumulative(change / error - z)
        } else {
            0.0
        };
        within.max(0.0) + beyond >= POWER
    };
    let least = rule.needs(rule.alpha);
    if noise == 0.0 || least == usize::MAX {
        return least;
    }
    let Some(far) = (0..40).map(|k| least << k).find(|&n| decides(n)) else {
        return usize::MAX;
    };
    let (mut few, mut enough) = (least - 1, far);
    while enough - few > 1 {
        let mid = few.midpoint(enough);
        if decides(mid) {
            enough = mid;
        } else {
            few = mid;
        }
    }
    enough
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::comparison::Direction;
    use super::super::sequential::LOOKS;
    use super::*;

    /// What the machine adds to run after run, in the order in which they run.
    #[derive(Clone, Copy, Debug)]
    enum Noise {
        Normal,
        Outliers,
        Autoregressive,
        Drift,
        Period,
    }

    impl Noise {
        /// `count` figures of standard deviation 0.02, before what the kind of noise adds.
        fn draw(self, random: &mut Pcg64Mcg, count: usize) -> Vec<f64> {
            let mut last = 0.0;
            let mut draw = |at: usize| {
                let (u, turn): (f64, f64) = (random.random(), random.random());
                let z = (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * PI * turn).cos();
                0.02 * match self {
                    Noise::Normal => z,
                    Noise::Outliers if random.random::<f64>() < 0.05 => 5.0 * z.abs(),
                    Noise::Outliers => z,
                    Noise::Autoregressive => {
                        last = 0.9 * last + z * (1.0 - 0.81_f64).sqrt();
                        last
                    }
                    Noise::Drift => z + 0.1 * at as f64,
                    Noise::Period => z + if at.is_multiple_of(2) { 1.5 } else { 0.0 },
                }
            };
            (0..count).map(&mut draw).collect()
        }
    }

    /// Measures as `ab` does until a look decides: the finding and the pairs it took.
    fn measure(random: &mut Pcg64Mcg, noise: Noise, change: f64, rule: &Rule) -> (Finding, usize) {
        let noise = noise.draw(random, 2 * LOOKS[8]);
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for pair in noise.chunks(2) {
            let first = usize::from(random.random::<bool>());
            old.push(pair[first].exp());
            new.push(pair[1 - first].exp() * (1.0 + change));
            if rule.is_look(old.len()) {
                let look = Pairs::new(&old, &new).unwrap().compare(rule, Margin::NOISY);
                if look.finding != Finding::Inconclusive {
                    return (look.finding, old.len());
                }
            }
        }
        (Finding::Inconclusive, old.len())
    }

    #[test]
    fn the_stop_rule_errs_as_often_as_it_says() {
        let mut random = Pcg64Mcg::seed_from_u64(11);
        let rule = Rule::sequential(0.05);
        let mut simulate = |noise, change, tries| {
            let (mut changed, mut equivalent, mut pairs) = (0, 0, 0);
            for _ in 0..tries {
                let (finding, taken) = measure(&mut random, noise, change, &rule);
                changed += i32::from(finding == Finding::Changed(Direction::Higher))
                    + i32::from(finding == Finding::Changed(Direction::Lower));
                equivalent += i32::from(finding == Finding::Equivalent);
                pairs += taken;
            }
            let share = |count: i32| f64::from(count) / f64::from(tries);
            (
                share(changed),
                share(equivalent),
                pairs as f64 / f64::from(tries),
            )
        };
        // No change: 8000 tries each with such noise gave 0.9 to 5.3 %, mostly less than 5 % as
        // looks end at equivalence too. Of 150 tries, 5 % and three standard errors are 10.3 %.
        for noise in [
            Noise::Normal,
            Noise::Outliers,
            Noise::Autoregressive,
            Noise::Drift,
            Noise::Period,
        ] {
            let (changed, equivalent, pairs) = simulate(noise, 0.0, 150);
            assert!(changed <= 0.103, "{noise:?}: {changed}");
            match noise {
                // 96 % equivalent after 24 to 26 pairs in the mean; three standard errors are 5
                // points and 4 pairs.
                Noise::Normal | Noise::Drift => {
                    assert!(equivalent >= 0.91, "{noise:?}: {equivalent}");
                    assert!((20.0..32.0).contains(&pairs), "{noise:?}: {pairs}");
                }
                _ => assert!(equivalent >= 0.8, "{noise:?}: {equivalent}"),
            }
        }
        // A change at the margin: 97 % found, and equivalent by error in 5 % at most; of 100
        // tries three standard errors are 5 and 6.5 points.
        let (found, wrong, _) = simulate(Noise::Normal, 0.02, 100);
        assert!(found >= 0.92 && wrong <= 0.115, "{found} {wrong}");
        // A large one: found always, after 8.8 pairs in the mean.
        let (found, _, pairs) = simulate(Noise::Normal, 0.05, 100);
        assert!(found == 1.0 && pairs < 10.0, "{found} {pairs}");
    }

    #[test]
    fn a_fixed_number_of_pairs_errs_as_often_as_it_says() {
        let mut random = Pcg64Mcg::seed_from_u64(12);
        let rule = Rule::fixed(0.05);
        let mut share = |count: usize, change: f64| {
            let mut found = [0; 2];
            for _ in 0..1000 {
                let noise = Noise::Normal.draw(&mut random, 2 * count);
                let (old, new) = noise.split_at(count);
                let old: Vec<f64> = old.iter().map(|x| x.exp()).collect();
                let new: Vec<f64> = new.iter().map(|x| x.exp() * (1.0 + change)).collect();
                let got = Pairs::new(&old, &new)
                    .unwrap()
                    .compare(&rule, Margin::NOISY);
                let within = |i: Interval| -0.02 / 1.02 < i.low && i.high < 0.02;
                found[0] += i32::from(got.finding == Finding::Changed(Direction::Higher));
                found[1] += i32::from(got.equivalence.is_some_and(within));
            }
            found.map(|count| f64::from(count) / 1000.0)
        };
        let check = |got: f64, want: f64| {
            let error = (want * (1.0 - want) / 1000.0).sqrt();
            // Three standard errors here, and the rounding of the figures to whole points.
            assert!((got - want).abs() < 3.0 * error + 0.005, "{got} {want}");
        };
        // Either half of 5 %; equivalent with a power of 28, 81 and 96 %.
        check(share(10, 0.0)[0], 0.0245);
        check(share(10, 0.0)[1], 0.28);
        check(share(20, 0.0)[1], 0.81);
        check(share(30, 0.0)[1], 0.96);
        // At the margin 3.7 to 5 % are equivalent by error.
        check(share(20, 0.02)[1], 0.044);
    }

    #[test]
    fn forecasts_are_of_the_right_order() {
        let mut random = Pcg64Mcg::seed_from_u64(13);
        let rule = Rule::sequential(0.05);
        let mut pairs = |count: usize, noise: f64, change: f64| {
            let drawn = Noise::Normal.draw(&mut random, 2 * count);
            let drawn: Vec<f64> = drawn.iter().map(|x| (x * noise / 0.02).exp()).collect();
            let (old, new) = drawn.split_at(count);
            let new: Vec<f64> = new.iter().map(|x| x * (1.0 + change)).collect();
            Pairs::new(old, &new).unwrap()
        };
        // The mean that simulations took is 26.
        let got = pairs(40, 0.02, 0.0)
            .forecast(&rule, Margin::NOISY, 112)
            .unwrap();
        assert!((15..50).contains(&got.if_unchanged), "{got:?}");
        assert!((0.007..0.014).contains(&got.margin), "{got:?}");
        assert!(!got.is_hopeless());
        // Five times the noise takes 25 times the pairs.
        let noisy = pairs(40, 0.1, 0.0)
            .forecast(&rule, Margin::NOISY, 112)
            .unwrap();
        assert!(
            (400..1100).contains(&noisy.if_unchanged) && noisy.is_hopeless(),
            "{noisy:?}"
        );
        let far = pairs(40, 0.1, 0.5)
            .forecast(&rule, Margin::NOISY, 112)
            .unwrap();
        assert!(far.if_as_estimated < 20 && !far.is_hopeless(), "{far:?}");
        // What has as many pairs as an unchanged thing takes is hardly unchanged.
        let near = pairs(60, 0.02, 0.012)
            .forecast(&rule, Margin::NOISY, 112)
            .unwrap();
        assert!(near.if_unchanged <= 60 && near.pairs() > 60, "{near:?}");
        // 3.4 standard errors of 0.0289/√112.
        let least = pairs(40, 0.02, 0.0).detectable(&rule, 112).unwrap();
        assert!((0.007..0.013).contains(&least), "{least}");
        let still = Pairs::new(&[1.0; 9], &[1.0; 9]).unwrap();
        assert_eq!(
            still
                .forecast(&rule, Margin::NOISY, 112)
                .unwrap()
                .if_unchanged,
            8
        );
        assert_eq!(
            pairs(2, 0.02, 0.0).forecast(&rule, Margin::NOISY, 112),
            None
        );
        let none = still.forecast(&rule, Margin::share(0.0), 112).unwrap();
        assert!(none.if_unchanged >= 8);
    }

    #[test]
    fn it_shows_whether_running_second_matters() {
        let first: Vec<bool> = (0..20).map(|k| k % 3 == 0).collect();
        let old: Vec<f64> = first.iter().map(|&f| if f { 1.1 } else { 1.0 }).collect();
        let new: Vec<f64> = first.iter().map(|&f| if f { 1.0 } else { 1.1 }).collect();
        let jitter = |x: &[f64]| -> Vec<f64> {
            x.iter()
                .enumerate()
                .map(|(k, x)| x * (1.0 + 1e-6 * k as f64))
                .collect()
        };
        let pairs = Pairs::new(&jitter(&old), &new).unwrap();
        let got = pairs.position_effect(&first).unwrap();
        assert!((got.effect - 0.1).abs() < 1e-4 && got.p < 0.001, "{got:?}");
        assert_eq!(pairs.position_effect(&first[1..]), None);
        assert_eq!(pairs.position_effect(&[true; 20]), None);
    }

    #[test]
    fn pairs_without_a_meaning_are_none() {
        assert_eq!(Pairs::new(&[], &[]), None);
        assert_eq!(Pairs::new(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(Pairs::new(&[f64::NAN], &[1.0]), None);
        assert_eq!(Pairs::new(&[1.0], &[f64::INFINITY]), None);
        let few = Pairs::new(&[1.0, 2.0], &[9.0, 9.0]).unwrap();
        let got = few.compare(&Rule::sequential(0.05), Margin::NOISY);
        assert_eq!((got.interval, got.finding), (None, Finding::Inconclusive));
        let counts = Pairs::new(&[0.0, 2.0], &[1.0, 1.0]).unwrap();
        assert_eq!(
            (counts.scale(), counts.differences()),
            (Scale::Difference, &[1.0, -1.0][..])
        );
    }

    proptest! {
        #[test]
        fn old_and_new_may_change_places(
            figures in prop::collection::vec((0.5..2.0, 0.5..2.0), 1..40),
            factor in 1e-9..1e9,
        ) {
            let (old, new): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
            let rule = Rule::fixed(0.05);
            let compare = |old: &[f64], new: &[f64]| {
                Pairs::new(old, new).unwrap().compare(&rule, Margin::NOISY)
            };
            let (there, back) = (compare(&old, &new), compare(&new, &old));
            let turned = match there.finding {
                Finding::Changed(Direction::Lower) => Finding::Changed(Direction::Higher),
                Finding::Changed(Direction::Higher) => Finding::Changed(Direction::Lower),
                other => other,
            };
            prop_assert_eq!(back.finding, turned);
            prop_assert!(((1.0 + there.estimate) * (1.0 + back.estimate) - 1.0).abs() < 1e-12);
            prop_assert_eq!(there.p, back.p);
            let scale = |x: &[f64]| x.iter().map(|x| x * factor).collect::<Vec<f64>>();
            let scaled = compare(&scale(&old), &scale(&new));
            prop_assert!((scaled.estimate - there.estimate).abs() < 1e-9);
            if let Some(interval) = there.interval {
                prop_assert!(interval.contains(there.estimate));
                let narrow = there.equivalence.unwrap();
                prop_assert!(interval.low <= narrow.low && narrow.high <= interval.high);
                let excluded = !interval.contains(0.0);
                prop_assert_eq!(excluded, there.p.unwrap() <= 0.05);
                prop_assert_eq!(excluded, matches!(there.finding, Finding::Changed(_)));
            }
        }
    }
}
