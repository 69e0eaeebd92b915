//! What is said of a change between two variants: by how much, between what bounds, with what verdict. Here for groups that are not paired and for figures that do not vary; [`paired`](super::paired) makes the same of pairs. Never knows which direction is the better one: whoever asks for a verdict says so.

use super::mann_whitney::Differences;
use super::order::{middle, sorted};
use super::sequential::Rule;
use super::{Interval, mann_whitney};

/// The runs of each variant that must agree before their figure is believed not to vary.
pub const EXACT_FROM: usize = 3;

/// In what changes are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As a share of the old figure: 0.05 is 5 % more. Worked out on logarithms.
    Ratio,
    /// As a difference in the unit of the figures: for counts that can be 0.
    Difference,
}

/// The direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The new figure is less.
    Lower,
    /// The new figure is more.
    Higher,
}

/// What the numbers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There is a change: its interval excludes 0, and the test agrees.
    Changed(Direction),
    /// There is no change as large as the margin: both one-sided tests against it say so.
    Equivalent,
    /// Neither.
    Inconclusive,
}

/// What it means to whoever wants the unit to be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Changed for the better.
    Improved,
    /// Changed for the worse.
    Regressed,
    /// Changed, in a unit without a better direction.
    Changed,
    /// No change as large as the margin.
    Equivalent,
    /// Not decided.
    Inconclusive,
    /// Decided or not, it must not be relied on: see [`voids_differ`].
    Untrustworthy,
}

/// Whether a change may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It is for the better, or less than the margin.
    Pass,
    /// All of its interval is for the worse and beyond the margin.
    Fail,
    /// Neither is certain.
    Undecided,
}

/// How a comparison was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Of figures that do not vary within either variant. Equivalent then means identical.
    Exact,
    /// By signed ranks of the differences of pairs.
    Pairs,
    /// By Mann–Whitney of two groups: effects of the order of runs cannot be excluded.
    Groups,
}

/// The change that still counts as none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// As a share of the old median.
    pub share: f64,
    /// At least so much in the unit of the figures.
    pub floor: f64,
}

/// A comparison of one unit of one benchmark in two variants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// How it was made.
    pub basis: Basis,
    /// In what the estimate, the intervals and the margin are.
    pub scale: Scale,
    /// The figures of the old and of the new variant that were compared.
    pub counts: [usize; 2],
    /// The change.
    pub estimate: f64,
    /// The interval of the change at 1 − the level for a difference, when there are figures
    /// enough for one.
    pub interval: Option<Interval>,
    /// The narrower one that is held against the margin: at 1 − twice that level.
    pub equivalence: Option<Interval>,
    /// The changes, lower and higher, between which there is none to speak of.
    pub margin: [f64; 2],
    /// The probability of so strong a sign of change when there is none, over all looks; after
    /// [`judge_family`], over the family too. `None` of exact figures.
    pub p: Option<f64>,
    /// Whether that p is a normal approximation: see [`mann_whitney::MannWhitney::exact`].
    pub approximate: bool,
    /// What that says.
    pub finding: Finding,
}

impl Scale {
    /// Ratios where every figure of both variants is above 0, else differences.
    pub fn of(old: &[f64], new: &[f64]) -> Scale {
        if old.iter().chain(new).all(|&x| x > 0.0) {
            Scale::Ratio
        } else {
            Scale::Difference
        }
    }

    /// What `x` is when it was worked out on this scale, logarithms and all.
    pub(super) fn change(self, x: f64) -> f64 {
        match self {
            Scale::Ratio => x.exp_m1(),
            Scale::Difference => x,
        }
    }

    /// The ends of `interval` as changes.
    pub(super) fn change_interval(self, interval: Interval) -> Interval {
        Interval {
            low: self.change(interval.low),
            high: self.change(interval.high),
            ..interval
        }
    }
}

impl Margin {
    /// For times, cycles and all that varies: 2 %.
    pub const NOISY: Margin = Margin::share(0.02);

    /// For counts that hardly vary, such as instructions in user mode: 0.1 %.
    pub const NEARLY_EXACT: Margin = Margin::share(0.001);

    /// A share of the old median.
    pub const fn share(share: f64) -> Margin {
        Margin { share, floor: 0.0 }
    }

    /// How far off 0 the bounds lie on `scale` before [`Scale::change`], where the old median is
    /// `level`: ln(1 + m) to either side, so that old and new may change places.
    pub(super) fn bound(self, scale: Scale, level: f64) -> f64 {
        match scale {
            Scale::Ratio => self.share.max(self.floor / level).ln_1p(),
            Scale::Difference => (self.share * level.abs()).max(self.floor),
        }
    }
}

impl Comparison {
    /// The verdict, when a change in direction `improvement` is for the better.
    pub fn verdict(&self, improvement: Option<Direction>) -> Verdict {
        match self.finding {
            Finding::Changed(_) if improvement.is_none() => Verdict::Changed,
            Finding::Changed(direction) if Some(direction) == improvement => Verdict::Improved,
            Finding::Changed(_) => Verdict::Regressed,
            Finding::Equivalent => Verdict::Equivalent,
            Finding::Inconclusive => Verdict::Inconclusive,
        }
    }

    /// Whether the change may pass, when one in direction `improvement` is for the better; in a
    /// unit without a better direction no change beyond the margin may.
    ///
    /// A change for the worse that is certainly less than the margin passes; one that may be
    /// either less or more is undecided, however certain it is that there is one.
    pub fn gate(&self, improvement: Option<Direction>) -> Gate {
        match (self.verdict(improvement), self.interval) {
            (Verdict::Improved | Verdict::Equivalent, _) => Gate::Pass,
            (Verdict::Regressed | Verdict::Changed, Some(interval)) => {
                if interval.low > self.margin[1] || interval.high < self.margin[0] {
                    Gate::Fail
                } else if self.is_within_margin() {
                    Gate::Pass
                } else {
                    Gate::Undecided
                }
            }
            _ => Gate::Undecided,
        }
    }

    fn is_within_margin(&self) -> bool {
        let [low, high] = self.margin;
        self.equivalence.is_some_and(|interval| {
            low < interval.low && interval.high < high
                || (interval.low, interval.high) == (0.0, 0.0)
        })
    }

    /// Draws the conclusion at `alpha`.
    pub(super) fn conclude(&mut self, alpha: f64) {
        let direction = match self.interval {
            Some(interval) if interval.low > 0.0 => Some(Direction::Higher),
            Some(interval) if interval.high < 0.0 => Some(Direction::Lower),
            _ => None,
        };
        // With ties the test and the interval, either of them valid, need not agree. The levels
        // themselves are reached, up to rounding.
        let significant = self.p.is_none_or(|p| p <= alpha * (1.0 + 1e-9));
        self.finding = match direction {
            Some(direction) if significant => Finding::Changed(direction),
            _ if self.is_within_margin() => Finding::Equivalent,
            _ => Finding::Inconclusive,
        };
    }
}

/// Compares two groups of figures that are not paired: Mann–Whitney, with the Hodges–Lehmann
/// shift and its interval, of logarithms where that can be. The rule is a [fixed](Rule::fixed) one.
///
/// `None` when either is empty or has a figure that is not a finite number.
pub fn groups(old: &[f64], new: &[f64], rule: &Rule, margin: Margin) -> Option<Comparison> {
    let (old, new) = (sorted(old)?, sorted(new)?);
    // The smallest are the first.
    let scale = Scale::of(&old[..1], &new[..1]);
    // Logarithms could tie figures that differ in their last digit.
    let test = mann_whitney::test_sorted(&old, &new);
    let level = middle(old.len(), |rank| old[rank - 1]);
    let on_scale = |figures: Vec<f64>| match scale {
        Scale::Ratio => figures.into_iter().map(f64::ln).collect(),
        Scale::Difference => figures,
    };
    let counts = [old.len(), new.len()];
    let (old, new) = (on_scale(old), on_scale(new));
    let mut differences = Differences::new(&old, &new);
    let mut interval = |level: f64| Some(scale.change_interval(differences.interval(1.0 - level)?));
    let bound = margin.bound(scale, level);
    let (interval, equivalence) = (interval(rule.difference), interval(rule.equivalence));
    let mut comparison = Comparison {
        basis: Basis::Groups,
        scale,
        counts,
        estimate: scale.change(differences.middle()),
        interval,
        equivalence,
        margin: [scale.change(-bound), scale.change(bound)],
        p: Some(rule.adjusted(test.two_sided)),
        approximate: !test.exact,
        finding: Finding::Inconclusive,
    };
    comparison.conclude(rule.alpha);
    Some(comparison)
}

/// Compares figures that do not vary: all of `old` are the same, and so are all of `new`.
///
/// `None` when they do vary, or when either has fewer than `at_least` ([`EXACT_FROM`], unless it
/// is known that the unit is exact): then they are to be compared as noisy ones are. Any
/// difference is a change; only the gate asks how large it is.
pub fn exact(old: &[f64], new: &[f64], at_least: usize, margin: Margin) -> Option<Comparison> {
    let only = |figures: &[f64]| {
        let first = *figures.first()?;
        let same = first.is_finite() && figures.iter().all(|&x| x == first);
        (same && figures.len() >= at_least).then_some(first)
    };
    let (old_figure, new_figure) = (only(old)?, only(new)?);
    let scale = Scale::of(&[old_figure], &[new_figure]);
    let estimate = match scale {
        Scale::Ratio => (new_figure - old_figure) / old_figure,
        Scale::Difference => new_figure - old_figure,
    };
    let bound = margin.bound(scale, old_figure);
    let point = Interval {
        low: estimate,
        high: estimate,
        confidence: 1.0,
    };
    let finding = match estimate {
        x if x > 0.0 => Finding::Changed(Direction::Higher),
        x if x < 0.0 => Finding::Changed(Direction::Lower),
        _ => Finding::Equivalent,
    };
    Some(Comparison {
        basis: Basis::Exact,
        scale,
        counts: [old.len(), new.len()],
        estimate,
        interval: Some(point),
        equivalence: Some(point),
        margin: [scale.change(-bound), scale.change(bound)],
        p: None,
        approximate: false,
        finding,
    })
}

/// Holds `comparisons` that are looked at together to `alpha` as a family: replaces each p by
/// that of [`benjamini_hochberg`], and takes back the changes that are no longer significant.
///
/// Exact ones have no p; they neither count nor change.
pub fn judge_family(comparisons: &mut [&mut Comparison], alpha: f64) {
    let p: Vec<f64> = comparisons.iter().filter_map(|c| c.p).collect();
    let adjusted = benjamini_hochberg(&p);
    let tested = comparisons.iter_mut().filter(|c| c.p.is_some());
    for (comparison, p) in tested.zip(adjusted) {
        comparison.p = Some(p);
        comparison.conclude(alpha);
    }
}

/// The p-values of a family, adjusted so that of those at most α in expectation a share of α is
/// wrong (Benjamini and Hochberg 1995), in the order given.
///
/// It holds for independent tests and for those that depend on each other as units of the same
/// run do (Benjamini and Yekutieli 2001).
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut falling: Vec<usize> = (0..p.len()).collect();
    falling.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 1.0_f64;
    for (above, &at) in falling.iter().enumerate() {
        let rank = p.len() - above;
        least = least.min(p[at] * (p.len() as f64 / rank as f64));
        adjusted[at] = least;
    }
    adjusted
}

/// How many runs of a variant there were, and how many of them had to be voided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voids {
    /// The runs, voided or not.
    pub runs: usize,
    /// Those that were voided, for a cause outside of the workload.
    pub voided: usize,
}

/// Whether runs of one variant were voided so much more often than those of the other (p < 0.05)
/// that what is left must not be trusted.
///
/// Fisher's exact test, with the smaller tail doubled: Mann–Whitney's of yes and no.
pub fn voids_differ(old: Voids, new: Voids) -> bool {
    let runs = |voids: Voids| -> Vec<f64> {
        (0..voids.runs)
            .map(|run| f64::from(u8::from(run < voids.voided)))
            .collect()
    };
    mann_whitney::test(&runs(old), &runs(new)).is_some_and(|test| test.two_sided < 0.05)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{assert_close, r_rows};
    use super::*;

    const LESS_IS_BETTER: Option<Direction> = Some(Direction::Lower);

    fn fixed(old: &[f64], new: &[f64]) -> Comparison {
        groups(old, new, &Rule::fixed(0.05), Margin::NOISY).unwrap()
    }

    fn around(centre: f64, spread: f64, count: usize) -> Vec<f64> {
        let place = |k: usize| (k * 7 % count) as f64 / (count - 1) as f64 - 0.5;
        (0..count).map(|k| centre + spread * place(k)).collect()
    }

    #[test]
    fn groups_are_judged_by_interval_and_margin() {
        let check = |new: &[f64], want, gate| {
            let got = fixed(&around(100.0, 2.0, 20), new);
            assert_eq!(got.verdict(LESS_IS_BETTER), want, "{got:?}");
            assert_eq!(got.gate(LESS_IS_BETTER), gate, "{got:?}");
            assert_eq!((got.basis, got.scale), (Basis::Groups, Scale::Ratio));
        };
        check(&around(100.0, 2.0, 20), Verdict::Equivalent, Gate::Pass);
        check(&around(90.0, 2.0, 20), Verdict::Improved, Gate::Pass);
        check(&around(110.0, 2.0, 20), Verdict::Regressed, Gate::Fail);
        check(&around(101.0, 2.0, 20), Verdict::Regressed, Gate::Pass);
        check(&around(102.0, 2.0, 20), Verdict::Regressed, Gate::Undecided);
        check(
            &around(100.0, 40.0, 20),
            Verdict::Inconclusive,
            Gate::Undecided,
        );
        check(&[110.0], Verdict::Inconclusive, Gate::Undecided);
        let higher = fixed(&around(100.0, 2.0, 20), &around(110.0, 2.0, 20));
        assert_eq!(higher.verdict(Some(Direction::Higher)), Verdict::Improved);
        assert_eq!(higher.verdict(None), Verdict::Changed);
        assert_eq!(higher.gate(Some(Direction::Higher)), Gate::Pass);
        assert_eq!(higher.gate(None), Gate::Fail);
        assert!((higher.estimate - 0.1).abs() < 1e-3);
    }

    #[test]
    fn counts_with_zeros_are_compared_by_their_difference() {
        let old = [0.0, 1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 0.0];
        let new = old.map(|x| x + 5.0);
        let got = groups(&old, &new, &Rule::fixed(0.05), Margin::NOISY).unwrap();
        assert_eq!((got.scale, got.estimate), (Scale::Difference, 5.0));
        assert_eq!(got.finding, Finding::Changed(Direction::Higher));
        let margin = Margin {
            share: 0.02,
            floor: 3.0,
        };
        let same = groups(&old, &old, &Rule::fixed(0.05), margin).unwrap();
        assert_eq!(
            (same.margin, same.finding),
            ([-3.0, 3.0], Finding::Equivalent)
        );
        // No margin at all: only an interval of nothing but 0 lies within.
        let zeros = groups(&[0.0; 9], &[0.0; 9], &Rule::fixed(0.05), Margin::NOISY).unwrap();
        assert_eq!((zeros.p, zeros.finding), (Some(1.0), Finding::Equivalent));
    }

    #[test]
    fn exact_figures_are_compared_as_they_are() {
        let check = |old: &[f64], new: &[f64], want: Option<(f64, Finding)>| {
            let got = exact(old, new, EXACT_FROM, Margin::NEARLY_EXACT);
            assert_eq!(
                got.map(|got| (got.estimate, got.finding)),
                want,
                "{old:?} {new:?}"
            );
            assert!(got.is_none_or(|got| got.p.is_none() && got.basis == Basis::Exact));
        };
        check(&[8.0; 3], &[8.0; 4], Some((0.0, Finding::Equivalent)));
        check(
            &[8.0; 3],
            &[10.0; 3],
            Some((0.25, Finding::Changed(Direction::Higher))),
        );
        check(
            &[8.0; 3],
            &[6.0; 3],
            Some((-0.25, Finding::Changed(Direction::Lower))),
        );
        check(
            &[0.0; 3],
            &[2.0; 3],
            Some((2.0, Finding::Changed(Direction::Higher))),
        );
        check(&[0.0; 3], &[0.0; 3], Some((0.0, Finding::Equivalent)));
        check(&[8.0; 2], &[8.0; 3], None);
        check(&[8.0, 8.0, 9.0], &[8.0; 3], None);
        check(&[f64::NAN; 3], &[8.0; 3], None);
        check(&[], &[], None);
        let little = exact(&[1e6], &[1e6 + 1.0], 1, Margin::NEARLY_EXACT).unwrap();
        assert_eq!(little.verdict(LESS_IS_BETTER), Verdict::Regressed);
        assert_eq!(little.gate(LESS_IS_BETTER), Gate::Pass);
    }

    #[test]
    fn adjusted_p_values_are_those_of_r() {
        let rows = r_rows("padjust");
        let mut compared = 0;
        for (case, _, p) in rows.iter().filter(|row| row.1 == "p") {
            let want = rows
                .iter()
                .find(|row| &row.0 == case && row.1 == "BH")
                .unwrap();
            for (got, want) in benjamini_hochberg(p).into_iter().zip(&want.2) {
                assert_close(got, *want, 1e-12, case);
                compared += 1;
            }
        }
        assert_eq!(compared, 31);
        assert_eq!(benjamini_hochberg(&[]), [] as [f64; 0]);
    }

    #[test]
    fn a_family_takes_back_what_chance_explains() {
        let old = around(100.0, 2.0, 10);
        let mut changed = fixed(&old, &around(101.0, 2.0, 10));
        let mut clear = fixed(&old, &around(120.0, 2.0, 10));
        let mut same: Vec<Comparison> = (0..20).map(|_| fixed(&old, &old)).collect();
        let mut exact = exact(&[1.0; 3], &[2.0; 3], EXACT_FROM, Margin::NOISY).unwrap();
        assert_eq!(changed.finding, Finding::Changed(Direction::Higher));
        let mut family: Vec<&mut Comparison> = same.iter_mut().collect();
        family.extend([&mut changed, &mut exact, &mut clear]);
        judge_family(&mut family, 0.05);
        assert_ne!(changed.finding, Finding::Changed(Direction::Higher));
        assert_eq!(clear.finding, Finding::Changed(Direction::Higher));
        assert_eq!(
            (exact.p, exact.finding),
            (None, Finding::Changed(Direction::Higher))
        );
        // A family of one is nothing but itself.
        let alone = fixed(&old, &around(101.0, 2.0, 10));
        let mut judged = alone;
        judge_family(&mut [&mut judged], 0.05);
        assert_eq!(judged, alone);
    }

    #[test]
    fn voids_of_one_variant_are_suspicious() {
        let check = |old: usize, new: usize, want| {
            let voids = |voided| Voids { runs: 40, voided };
            assert_eq!(voids_differ(voids(old), voids(new)), want, "{old} {new}");
        };
        check(0, 0, false);
        check(3, 3, false);
        check(0, 5, false);
        check(0, 6, true);
        check(6, 0, true);
        check(40, 40, false);
        let none = Voids { runs: 0, voided: 0 };
        assert!(!voids_differ(none, none));
    }

    proptest! {
        #[test]
        fn old_and_new_may_change_places(
            old in prop::collection::vec(0.5..2.0, 1..25),
            new in prop::collection::vec(0.5..2.0, 1..25),
            scale in 1e-9..1e9,
        ) {
            let there = fixed(&old, &new);
            let back = fixed(&new, &old);
            let turned = match there.finding {
                Finding::Changed(Direction::Lower) => Finding::Changed(Direction::Higher),
                Finding::Changed(Direction::Higher) => Finding::Changed(Direction::Lower),
                other => other,
            };
            prop_assert_eq!(back.finding, turned);
            prop_assert!(((1.0 + there.estimate) * (1.0 + back.estimate) - 1.0).abs() < 1e-12);
            let scaled: Vec<f64> = new.iter().map(|x| x * scale).collect();
            let old_scaled: Vec<f64> = old.iter().map(|x| x * scale).collect();
            let got = fixed(&old_scaled, &scaled);
            prop_assert!((got.estimate - there.estimate).abs() < 1e-9);
            if let Some(interval) = there.interval {
                prop_assert!(interval.contains(there.estimate));
            }
            let family = benjamini_hochberg(&[there.p.unwrap(), 0.2, 0.03]);
            prop_assert!(family[0] >= there.p.unwrap() && family[0] <= 1.0);
        }
    }
}
