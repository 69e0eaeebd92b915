//! When to look, and how sure to be at each look so that all looks together err no more often than one would. Never takes a sample, never decides: [`Pairs::compare`](super::paired::Pairs::compare) does.

use std::f64::consts::PI;

use super::{Interval, normal, signed_rank};

/// The numbers of pairs after which the stop rule looks: each about 1.4 times the one before.
pub const LOOKS: [usize; 9] = [8, 10, 14, 20, 28, 40, 56, 80, 112];

/// From so many pairs on, [`anytime`] says something.
pub const ANYTIME_FROM: usize = 5;

/// The nominal levels at every look for 5 % and for 10 % overall. They are those of [`overall`],
/// a hundredth wider, as rank sums come in whole steps; checked by simulation with the rank sums
/// themselves, which err in 5.0–5.1 % with normal, Laplace and outlier noise.
const NOMINAL: [(f64, f64); 2] = [(0.05, 0.00988), (0.1, 0.02145)];

/// The level below which [`overall`] is not told from its bound.
const TINY: f64 = 1e-9;

/// How sure to be: the levels at which one comparison is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The probability, at most, of calling a change where there is none.
    pub alpha: f64,
    /// The two-sided level of the test for a change, at every look.
    pub difference: f64,
    /// The two-sided level of the interval for equivalence, at every look: both one-sided tests
    /// against the margin have half of it each, and err in at most `alpha`.
    pub equivalence: f64,
    /// Of [`overall`], which the nominal levels make not quite `alpha`. None with one look.
    scale: Option<f64>,
}

impl Rule {
    /// One look, at a number of samples that was fixed beforehand.
    pub fn fixed(alpha: f64) -> Rule {
        Rule {
            alpha,
            difference: alpha,
            equivalence: 2.0 * alpha,
            scale: None,
        }
    }

    /// Repeated looks after [`LOOKS`] pairs, and one more when time is up between two of them: it
    /// takes the place of those that are left out.
    ///
    /// Every look is at the same nominal level (Pocock 1977): for 5 % it is 0.00988, and 0.02145
    /// for equivalence. Intervals at these levels hold all at once (Jennison and Turnbull 1989):
    /// measuring on after a decision spoils nothing.
    pub fn sequential(alpha: f64) -> Rule {
        let difference = nominal(alpha);
        Rule {
            alpha,
            difference,
            equivalence: nominal(2.0 * alpha),
            scale: Some(alpha / overall(difference)),
        }
    }

    /// Whether to look after `pairs` pairs.
    pub fn is_look(&self, pairs: usize) -> bool {
        self.scale.is_some() && LOOKS.contains(&pairs)
    }

    /// The first look at `pairs` pairs or more; `None` beyond the last.
    pub fn look_from(&self, pairs: usize) -> Option<usize> {
        self.scale?;
        LOOKS.into_iter().find(|&look| look >= pairs)
    }

    /// The p over all looks of one look's `p`: the probability that, with nothing changed, some
    /// look has a p as small. It is `alpha` at the level of `difference`; never more than
    /// nine times p, and near that when p is small.
    pub fn adjusted(&self, p: f64) -> f64 {
        match self.scale {
            Some(scale) if p > 0.0 => {
                let over_all = scale * overall(p.max(TINY));
                over_all.min(LOOKS.len() as f64 * p).min(1.0)
            }
            _ => p,
        }
    }

    /// How many pairs it takes until a p over all looks can be as small as `alpha`; in a family
    /// of so many comparisons, ask for `alpha` divided by their number: what one of them needs
    /// that is alone in having changed. `usize::MAX` when nothing does.
    pub fn needs(&self, alpha: f64) -> usize {
        let least = signed_rank::needs(alpha);
        if least == usize::MAX {
            return least;
        }
        // Over nine looks it is at most nine times as much, and so four pairs more are enough.
        (least..least + 4)
            .find(|&n| self.adjusted(2f64.powi(1 - n as i32)) <= alpha)
            .unwrap_or(least + 4)
    }
}

/// What may be said at any number of pairs, and after each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anytime {
    /// Evidence against no change: at 1/α or more it may be rejected, whenever that happens.
    pub e: f64,
    /// The interval of the mean, which holds at all times at once; `None` while it is infinite.
    pub interval: Option<Interval>,
}

/// The anytime-valid t for runs so dear that one wants to look after every pair: of the mean of
/// `differences` (those of [`Pairs`](super::paired::Pairs)), as a mixture over normal effects of
/// one standard deviation (Lai 1976; Wang and Ramdas 2023).
///
/// E = (1+n)^(−½) · [(1+t²/ν) / (1+t²/(ν(1+n)))]^(n/2), with t = mean·√n/s and ν = n − 1. Outliers
/// weaken it, unlike the signed ranks. `None` with fewer than [`ANYTIME_FROM`] differences or
/// when all are the same.
pub fn anytime(differences: &[f64], alpha: f64) -> Option<Anytime> {
    let n = differences.len() as f64;
    if differences.len() < ANYTIME_FROM || !(alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    let mean = differences.iter().sum::<f64>() / n;
    let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
    let (free, wide) = (n - 1.0, 1.0 + n);
    let error = (squares / free / n).sqrt();
    if !(error > 0.0 && error.is_finite()) {
        return None;
    }
    let t2 = (mean / error).powi(2) / free;
    let log_e = n / 2.0 * (t2.ln_1p() - (t2 / wide).ln_1p()) - 0.5 * wide.ln();
    let k = (2.0 / n * (0.5 * wide.ln() - alpha.ln())).exp();
    let reach = ((k - 1.0) / (1.0 - k / wide) * free).sqrt() * error;
    Some(Anytime {
        e: log_e.exp(),
        interval: (k < wide).then_some(Interval {
            low: mean - reach,
            high: mean + reach,
            confidence: 1.0 - alpha,
        }),
    })
}

/// The nominal two-sided level at each of the [`LOOKS`] that makes `alpha` overall.
fn nominal(alpha: f64) -> f64 {
    if let Some((_, level)) = NOMINAL.into_iter().find(|known| known.0 == alpha) {
        return level;
    }
    if !(alpha > 0.0 && alpha < 1.0) {
        return alpha;
    }
    let (mut low, mut high) = (alpha / LOOKS.len() as f64, alpha);
    for _ in 0..40 {
        let mid = low.midpoint(high);
        if overall(mid) < alpha {
            low = mid;
        } else {
            high = mid;
        }
    }
    low
}

/// The probability that some of the [`LOOKS`] has a two-sided p of `level` or less when nothing
/// has changed, for sums of normal figures.
///
/// By recursion over the density of the sums that have not crossed the bound yet (Armitage,
/// McPherson and Rowe 1969), with Simpson's rule; to 1e-5 of itself.
fn overall(level: f64) -> f64 {
    let z = normal::two_sided(level.min(1.0));
    let normal_density =
        |x: f64, variance: f64| (-x * x / (2.0 * variance)).exp() / (2.0 * PI * variance).sqrt();
    // So many to either side that steps are well below what is added between two looks.
    let half = (4.0 * z).ceil().max(16.0) as usize;
    let places = |bound: f64| -> Vec<(f64, f64)> {
        let step = bound / half as f64;
        let place = |k: usize| {
            let weight = match k {
                0 => 1.0,
                k if k == 2 * half => 1.0,
                k if k % 2 == 1 => 4.0,
                _ => 2.0,
            };
            (k as f64 * step - bound, weight * step / 3.0)
        };
        (0..=2 * half).map(place).collect()
    };
    let mut crossed = level;
    let mut now = places(z * (LOOKS[0] as f64).sqrt());
    for (x, mass) in &mut now {
        *mass *= normal_density(*x, LOOKS[0] as f64);
    }
    for pair in LOOKS.windows(2) {
        let variance = (pair[1] - pair[0]) as f64;
        let bound = z * (pair[1] as f64).sqrt();
        let beyond = |x: f64| {
            normal::cumulative((x - bound) / variance.sqrt())
                + normal::cumulative((-bound - x) / variance.sqrt())
        };
        crossed += now.iter().map(|&(x, mass)| mass * beyond(x)).sum::<f64>();
        let mut next = places(bound);
        for (y, mass) in &mut next {
            let arriving = now
                .iter()
                .map(|&(x, from)| from * normal_density(*y - x, variance));
            *mass *= arriving.sum::<f64>();
        }
        now = next;
    }
    crossed.min(1.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::reference::assert_close;
    use super::*;

    #[test]
    fn nominal_levels_add_up() {
        // The reference constant is for ten looks, from 6 pairs on; with nine it gives less.
        assert!((overall(0.008890143967497016) - 0.045998).abs() < 4e-6);
        assert!((overall(0.00988) - 0.050586).abs() < 4e-6);
        assert!((overall(0.02145) - 0.100693).abs() < 4e-6);
        for alpha in [0.001, 0.01, 0.02, 0.05, 0.1, 0.2] {
            let rule = Rule::sequential(alpha);
            let share = rule.difference / nominal(alpha * (1.0 + 1e-9));
            assert!((1.0..1.02).contains(&(share + 1e-6)), "{alpha}: {share}");
            assert_close(rule.adjusted(rule.difference), alpha, 1e-6, "adjusted");
            assert!(alpha / 9.0 < rule.difference && rule.difference < rule.equivalence);
        }
        assert_eq!(Rule::sequential(0.05).difference, 0.00988);
        assert_eq!(Rule::sequential(0.05).equivalence, 0.02145);
    }

    #[test]
    fn p_over_all_looks_rises_with_p_and_stays_within_bounds() {
        let (rule, fixed) = (Rule::sequential(0.05), Rule::fixed(0.05));
        let mut last = 0.0;
        for p in [
            0.0, 1e-300, 1e-12, 1e-6, 0.001, 0.00988, 0.02, 0.05, 0.3, 0.9, 1.0,
        ] {
            let got = rule.adjusted(p);
            assert!(
                p * 0.98 <= got && got <= 9.0 * p && got <= 1.0,
                "{p}: {got}"
            );
            assert!(last <= got);
            last = got;
            assert_eq!(fixed.adjusted(p), p);
        }
        assert!(rule.adjusted(1e-12) > 6.0 * 1e-12);
    }

    #[test]
    fn looks_are_a_ladder() {
        let (rule, fixed) = (Rule::sequential(0.05), Rule::fixed(0.05));
        assert!(rule.is_look(8) && rule.is_look(112) && !rule.is_look(9));
        assert_eq!(rule.look_from(0), Some(8));
        assert_eq!(rule.look_from(15), Some(20));
        assert_eq!(rule.look_from(113), None);
        assert!(!fixed.is_look(8));
        assert_eq!(fixed.look_from(8), None);
    }

    #[test]
    fn small_levels_take_pairs() {
        let check = |rule: Rule, alpha, want| assert_eq!(rule.needs(alpha), want, "{alpha}");
        check(Rule::fixed(0.05), 0.05, 6);
        check(Rule::fixed(0.05), 0.05 / 40.0, 11);
        check(Rule::fixed(0.05), 1.0, 1);
        check(Rule::sequential(0.05), 0.05, 8);
        check(Rule::sequential(0.05), 0.05 / 40.0, 14);
        check(Rule::sequential(0.05), 0.0, usize::MAX);
        check(Rule::sequential(0.05), f64::NAN, usize::MAX);
    }

    #[test]
    fn senseless_levels_do_no_harm() {
        for alpha in [0.0, 1.0, -3.0, 7.0, f64::NAN, f64::INFINITY] {
            let rule = Rule::sequential(alpha);
            let _ = (rule.adjusted(0.3), rule.needs(0.01));
        }
    }

    #[test]
    fn anytime_evidence_is_that_of_the_reference() {
        let text = include_str!("../../benchdata/ref_exact.json");
        let cases: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let mut compared = 0;
        for (name, case) in cases.iter().filter(|case| case.0.starts_with("avt/")) {
            let d = case["d"].as_array().unwrap();
            let d: Vec<f64> = d.iter().map(|d| d.as_f64().unwrap()).collect();
            let got = anytime(&d, 0.05).unwrap();
            let interval = got.interval.unwrap();
            for (key, got) in [("E", got.e), ("lo", interval.low), ("hi", interval.high)] {
                assert_close(got, case[key].as_f64().unwrap(), 1e-12, name);
                compared += 1;
            }
            let against: Vec<f64> = d.iter().map(|d| -d).collect();
            assert_close(anytime(&against, 0.05).unwrap().e, got.e, 1e-12, name);
            assert_eq!(interval.contains(0.0), got.e < 20.0, "{name}");
        }
        assert_eq!(compared, 9);
        assert_eq!(anytime(&[1.0, 2.0, 3.0, 4.0], 0.05), None);
        assert_eq!(anytime(&[1.0; 9], 0.05), None);
        assert_eq!(anytime(&[1.0, 2.0, 3.0, 4.0, f64::NAN], 0.05), None);
        assert_eq!(
            anytime(&[1.0, 2.0, 3.0, 4.0, 5.0], 1e-9).unwrap().interval,
            None
        );
    }
}
