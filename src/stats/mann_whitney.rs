//! The Mann–Whitney test and what comes of inverting it: do the figures of two groups that are not paired differ, by how much, and between what bounds. Never pairs, never assumes a distribution.
//!
//! Conventions, as programs differ in them:
//! - U counts the pairs of an old and a new figure in which the new one is greater, ties as half;
//! - the null distribution is that of all deals of the pooled figures *as they are*, ties included,
//!   and so it is exact with ties too;
//! - the two-sided p is twice the smaller tail, at most 1 (the doubled tail: with ties the sum of
//!   all deals at least as far from the middle would be another figure).
//!
//! Without ties all this is the textbook test, and what R calls exact. Only [where that would take
//! too long](MannWhitney::exact) the normal distribution takes its place.
//!
//! The interval comes from inverting the test (Hodges and Lehmann 1963): with D₍₁₎ ≤ … ≤ D₍mn₎ the
//! differences of every new and every old figure, it is [D₍c₊₁₎, D₍mn₋c₎] with the critical c of
//! [`critical`]; the estimate is their median. Closed like this, it holds its confidence with ties
//! too (Noether 1967).

use super::fourier::{RankSum, Tail};
use super::order::{middle, sorted};
use super::{Interval, normal, null};

/// The most differences that are listed to find some of them.
const MOST_LISTED: usize = 4096;

/// What the Mann–Whitney test says of two groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// The pairs of figures in which the new one is greater, ties as half.
    pub u: f64,
    /// Probability under the null of a U at most as large: small when new figures are lower.
    pub less: f64,
    /// Probability under the null of a U at least as large: small when new figures are higher.
    pub greater: f64,
    /// Twice the smaller of the two, at most 1. Never below [`least_p`].
    pub two_sided: f64,
    /// Whether the probabilities are exact. Else they are normal, with the variance corrected for
    /// ties and U for continuity: for a few figures against very many, for ties among many
    /// thousands, and where nearly all are tied to one value and 140 to 200 are not, or such a
    /// number on either side.
    pub exact: bool,
}

/// Tests whether the figures of `new` tend to be greater or less than those of `old`.
///
/// Takes some 1 µs for 20 figures a side (30 µs with ties), 7 ms for 100 with ties; 1 ms for 1000
/// without, and 1 to 30 with ties.
pub fn test(old: &[f64], new: &[f64]) -> Option<MannWhitney> {
    Some(test_sorted(&sorted(old)?, &sorted(new)?))
}

/// The Hodges–Lehmann estimate of the shift from `old` to `new`: the median of the differences of
/// every new and every old figure. Takes O((m + n) log(mn)) time.
pub fn hodges_lehmann(old: &[f64], new: &[f64]) -> Option<f64> {
    Some(Differences::new(&sorted(old)?, &sorted(new)?).middle())
}

/// The exact interval of the shift at `confidence` (0–1), which holds the estimate of
/// [`hodges_lehmann`].
///
/// `None` also with too few figures: when [`least_p`] is above 1 − `confidence`.
pub fn interval(old: &[f64], new: &[f64], confidence: f64) -> Option<Interval> {
    Differences::new(&sorted(old)?, &sorted(new)?).interval(confidence)
}

/// The largest U of `m` and `n` figures without ties that is significant at the two-sided level
/// `alpha` (0–1), and the p that it really has: 2·P(U ≤ c) ≤ `alpha`.
///
/// `None` when not even 0 is significant. Exact but for a few figures against very many.
pub fn critical(m: usize, n: usize, alpha: f64) -> Option<(usize, f64)> {
    if !(alpha > 0.0 && alpha < 1.0) || m == 0 || n == 0 {
        return None;
    }
    if m.max(n) > null::SMALL && 2.0 * null::one_deal(m, n) > alpha {
        return None;
    }
    if let Some(sum) = RankSum::of_groups(m, n) {
        return Some(sum.critical(alpha));
    }
    if null::is_long(m, n, m * n / 2) {
        let (mean, deviation) = moments(m, n);
        let c = mean - normal::two_sided(alpha) * deviation - 0.5;
        let c = c.max(0.0).floor();
        let p = 2.0 * normal::cumulative((c + 0.5 - mean) / deviation);
        return Some((c as usize, p));
    }
    let at_most = null::untied(m, n);
    let c = at_most
        .partition_point(|p| 2.0 * p <= alpha)
        .checked_sub(1)?;
    Some((c, 2.0 * at_most[c]))
}

/// The least two-sided p that `m` and `n` figures can have: 2 / C(m + n, m).
pub fn least_p(m: usize, n: usize) -> f64 {
    (2.0 * null::one_deal(m, n)).min(1.0)
}

/// How many figures each of two groups of the same size needs to reach the two-sided level
/// `alpha`: 4 for 0.05. In a family of so many tests, ask for `alpha` divided by their number:
/// what one of them needs that is alone in having changed. `usize::MAX` when nothing does.
pub fn needs(alpha: f64) -> usize {
    // 550 a side have a p below the smallest double.
    (1..=550)
        .find(|&n| least_p(n, n) <= alpha && alpha > 0.0)
        .unwrap_or(usize::MAX)
}

/// [`test`] of figures in rising order.
pub(super) fn test_sorted(old: &[f64], new: &[f64]) -> MannWhitney {
    let (doubled, ties) = doubled_u(old, new);
    let (m, n) = (new.len(), old.len());
    let most = 2 * m * n;
    // The smaller of U and mn − U lies in the near tail. Seen from the other side the groups of
    // ties come in reverse order.
    let turned = doubled > most - doubled;
    let near = doubled.min(most - doubled);
    let mut seen = ties;
    if turned {
        seen.reverse();
    }
    let Some(Tail { at_most, at }) = null::tail(&seen, m, n, near) else {
        return normal_approximation(doubled as f64 / 2.0, m, n, &seen);
    };
    let far = (1.0 - (at_most - at)).min(1.0);
    let (less, greater) = if turned {
        (far, at_most)
    } else {
        (at_most, far)
    };
    MannWhitney {
        u: doubled as f64 / 2.0,
        less,
        greater,
        two_sided: (2.0 * less.min(greater)).min(1.0),
        exact: true,
    }
}

/// The differences of every new and every old figure, by rank.
///
/// Only some half a dozen ranks are asked for. So the differences are not sorted: each is put into
/// one of 256 buckets, which follow each other in rising order, and only a bucket that holds a
/// wanted rank is sorted.
pub(super) struct Differences<'a> {
    old: &'a [f64],
    new: &'a [f64],
    /// All of them, bucket by bucket, unless they are many.
    listed: Vec<f64>,
    /// Where each bucket ends.
    ends: [u16; 256],
}

impl Differences<'_> {
    /// Those of figures in rising order.
    pub(super) fn new<'a>(old: &'a [f64], new: &'a [f64]) -> Differences<'a> {
        let mut differences = Differences {
            old,
            new,
            listed: Vec::new(),
            ends: [0; 256],
        };
        if old.len() * new.len() <= MOST_LISTED && !old.is_empty() && !new.is_empty() {
            differences.list();
        }
        differences
    }

    /// Puts all of them into buckets.
    fn list(&mut self) {
        let Differences { old, new, .. } = *self;
        let (few_old, few_new) = (old.len() / 6, new.len() / 6);
        // Where the ranks that matter lie, whatever the outermost figures are.
        let low = new[few_new] - old[old.len() - 1 - few_old];
        let high = new[new.len() - 1 - few_new] - old[few_old];
        let scale = 255.0 / (high - low);
        // Each step follows the order, rounding and saturation included, and what is no number
        // (all are alike, or some are infinite) becomes 0 with all that is smaller.
        let bucket = |difference: f64| ((difference - low) * scale) as u8;
        let mut buckets = Vec::with_capacity(old.len() * new.len());
        for a in old {
            buckets.extend(new.iter().map(|b| bucket(b - a)));
        }
        for &bucket in &buckets {
            self.ends[usize::from(bucket)] += 1;
        }
        let mut begin = 0;
        for end in &mut self.ends {
            (*end, begin) = (begin, begin + *end);
        }
        self.listed.resize(buckets.len(), 0.0);
        let mut buckets = buckets.into_iter();
        for a in old {
            for (b, bucket) in new.iter().zip(&mut buckets) {
                let end = &mut self.ends[usize::from(bucket)];
                self.listed[usize::from(*end)] = b - a;
                *end += 1;
            }
        }
    }

    /// [`hodges_lehmann`].
    pub(super) fn middle(&mut self) -> f64 {
        middle(self.old.len() * self.new.len(), |rank| self.at(rank))
    }

    /// [`interval`].
    pub(super) fn interval(&mut self, confidence: f64) -> Option<Interval> {
        let (m, n) = (self.old.len(), self.new.len());
        let (below, p) = critical(m, n, 1.0 - confidence)?;
        Some(Interval {
            low: self.at(below + 1),
            high: self.at(m * n - below),
            confidence: 1.0 - p,
        })
    }

    /// The `rank`-th smallest, from 1.
    fn at(&mut self, rank: usize) -> f64 {
        if self.listed.is_empty() {
            return parted_difference(self.old, self.new, rank);
        }
        let bucket = self.ends.partition_point(|&end| usize::from(end) < rank);
        let begin = bucket.checked_sub(1).map_or(0, |before| self.ends[before]);
        let bucket = &mut self.listed[usize::from(begin)..usize::from(self.ends[bucket])];
        bucket.sort_unstable_by(f64::total_cmp);
        bucket[rank - 1 - usize::from(begin)]
    }
}

/// The mean of U under the null, and its standard deviation without ties.
fn moments(m: usize, n: usize) -> (f64, f64) {
    let mean = m as f64 * n as f64 / 2.0;
    (mean, (mean * (m + n + 1) as f64 / 6.0).sqrt())
}

/// Twice the U of two groups in rising order, and how many of the pooled figures share each value.
fn doubled_u(old: &[f64], new: &[f64]) -> (usize, Vec<usize>) {
    let (mut i, mut j, mut doubled) = (0, 0, 0);
    let mut ties = Vec::with_capacity(old.len() + new.len());
    while i < old.len() || j < new.len() {
        let value = match (old.get(i), new.get(j)) {
            (Some(&a), Some(&b)) => a.min(b),
            (Some(&only), None) | (None, Some(&only)) => only,
            (None, None) => break,
        };
        let count = |rest: &[f64]| rest.iter().take_while(|&&x| x == value).count();
        let (a, b) = (count(&old[i..]), count(&new[j..]));
        doubled += b * (2 * i + a);
        (i, j) = (i + a, j + b);
        ties.push(a + b);
    }
    (doubled, ties)
}

/// The null of U as if it were normal, with the variance corrected for ties and U for continuity.
fn normal_approximation(u: f64, m: usize, n: usize, ties: &[usize]) -> MannWhitney {
    let all = (m + n) as f64;
    let cubes = ties.iter().map(|&t| t as f64).map(|t| t * (t * t - 1.0));
    let tied = cubes.sum::<f64>() / (all * (all - 1.0) * (all + 1.0));
    let (mean, deviation) = moments(m, n);
    let deviation = deviation * (1.0 - tied).sqrt();
    let from_middle = u - mean;
    let less = normal::cumulative((from_middle + 0.5) / deviation);
    let greater = normal::cumulative((-from_middle + 0.5) / deviation);
    MannWhitney {
        u,
        less,
        greater,
        two_sided: (2.0 * less.min(greater)).min(1.0),
        exact: false,
    }
}

/// The `rank`-th smallest difference of a new and an old figure, from 1, without listing them.
///
/// The differences to one old figure rise with the new one: of each such row a range of candidates
/// is left, and the middle of the middle row parts them.
fn parted_difference(old: &[f64], new: &[f64], rank: usize) -> f64 {
    let mut low = vec![0; old.len()];
    let mut high = vec![new.len(); old.len()];
    let (mut below, mut up_to) = (low.clone(), low.clone());
    loop {
        let candidates: usize = low.iter().zip(&high).map(|(l, h)| h - l).sum();
        let mut before = 0;
        let row = (0..old.len()).find(|&i| {
            before += high[i] - low[i];
            2 * before >= candidates && high[i] > low[i]
        });
        let Some(row) = row else { return f64::NAN };
        let pivot = new[low[row].midpoint(high[row])] - old[row];
        // The larger the old figure, the more differences are small: one sweep counts them all.
        let (mut less, mut at_most) = (0, 0);
        for (i, x) in old.iter().enumerate() {
            while less < new.len() && new[less] - x < pivot {
                less += 1;
            }
            while at_most < new.len() && new[at_most] - x <= pivot {
                at_most += 1;
            }
            (below[i], up_to[i]) = (less, at_most);
        }
        if rank <= below.iter().sum() {
            (0..old.len()).for_each(|i| high[i] = high[i].min(below[i]).max(low[i]));
        } else if rank > up_to.iter().sum() {
            (0..old.len()).for_each(|i| low[i] = low[i].max(up_to[i]).min(high[i]));
        } else {
            return pivot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::reference::{assert_close, r_rows};
    use super::*;

    #[test]
    fn p_values_estimates_and_intervals_are_those_of_r() {
        let mut groups: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
        let mut compared = 0;
        for (case, key, row) in r_rows("mwu") {
            let of = format!("{case} {key}");
            let [x, y] = groups.entry(case).or_default();
            let places = [("x", &mut *x), ("y", &mut *y)];
            if let Some((_, place)) = places.into_iter().find(|(name, _)| *name == key) {
                *place = row;
                continue;
            }
            // R subtracts its second argument, and counts for the first.
            let result = test(y, x).unwrap();
            let normal = || {
                let (_, ties) = doubled_u(&sorted(y).unwrap(), &sorted(x).unwrap());
                normal_approximation(result.u, x.len(), y.len(), &ties)
            };
            let got = match key.as_str() {
                "W(=U of x)" => result.u,
                "exact.p.two.sided" | "perm.2min.p" => result.two_sided,
                "exact.p.less" => result.less,
                "exact.p.greater" => result.greater,
                "norm.cc.p.less" => normal().less,
                "norm.cc.p.greater" => normal().greater,
                "norm.cc.p.two.sided" => normal().two_sided,
                "HL(x-y)" => hodges_lehmann(y, x).unwrap(),
                "HL.ci95.exact" => {
                    // Of 3 and 3 figures no interval has 95 %: R gives the range at 90 %.
                    match interval(y, x, 0.95) {
                        Some(got) => {
                            assert_close(got.low, row[0], 1e-12, &of);
                            assert_close(got.high, row[1], 1e-12, &of);
                            assert!(got.confidence >= 0.95, "{of}");
                        }
                        None => assert!(least_p(x.len(), y.len()) > 0.05, "{of}"),
                    }
                    compared += 1;
                    continue;
                }
                // Without a correction for continuity, and another way to double tails.
                _ => continue,
            };
            assert!(result.exact);
            assert_close(got, row[0], 1e-12, &of);
            compared += 1;
        }
        assert_eq!(compared, 63);
    }

    #[test]
    fn benchstats_p_of_0_is_not_repeated() {
        // Its exact test of ties gives 0 for this order of the groups, and 0.0952 for the other.
        let (a, b) = ([2.0, 1.0, 3.0, 5.0], [1.0; 5]);
        let (p, q) = (test(&a, &b).unwrap(), test(&b, &a).unwrap());
        assert_close(p.two_sided, 2.0 * 6.0 / 126.0, 1e-14, "ties");
        assert_eq!(p.two_sided, q.two_sided);
    }

    #[test]
    fn few_figures_cannot_be_significant() {
        for (case, _, row) in r_rows("qwilcox") {
            let n: usize = case[1..].parse().unwrap();
            assert_close(least_p(n, n), row[0], 1e-12, &case);
            let rising: Vec<f64> = (1..=2 * n).map(|x| x as f64).collect();
            let got = test(&rising[..n], &rising[n..]).unwrap();
            assert_close(got.two_sided, row[0], 1e-12, &case);
            if row[0] < 1.0 {
                assert_eq!(critical(n, n, row[0] * 1.001).unwrap().0, 0, "{case}");
                assert_eq!(critical(n, n, row[0] * 0.999), None, "{case}");
            }
        }
        let check = |alpha, want| assert_eq!(needs(alpha), want, "{alpha}");
        check(1.0, 1);
        check(0.05, 4);
        check(0.01, 5);
        check(0.05 / 100.0, 8);
        check(1e-300, 502);
        check(0.0, usize::MAX);
        check(f64::NAN, usize::MAX);
    }

    #[test]
    fn sets_without_a_meaning_say_nothing() {
        for bad in [&[] as &[f64], &[f64::NAN], &[1.0, f64::INFINITY]] {
            assert_eq!(test(bad, &[1.0]), None);
            assert_eq!(test(&[1.0], bad), None);
            assert_eq!(hodges_lehmann(bad, &[1.0]), None);
            assert_eq!(interval(&[1.0; 9], bad, 0.95), None);
        }
        assert_eq!(interval(&[1.0; 9], &[1.0; 9], 1.0), None);
        assert_eq!(interval(&[1.0; 9], &[1.0; 9], f64::NAN), None);
        assert_eq!(critical(0, 5, 0.5), None);
        let same = test(&[1.0; 5000], &[1.0; 3000]).unwrap();
        assert_eq!((same.two_sided, same.exact), (1.0, true));
    }

    fn figures(seed: u64, count: usize, values: f64) -> Vec<f64> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let draw = |_| (random.random::<f64>() * values).floor();
        (0..count).map(draw).collect()
    }

    #[test]
    fn many_figures_are_tested_exactly_without_ties() {
        let (old, new) = (figures(1, 1000, 1e15), figures(2, 1000, 1.1e15));
        let got = test(&old, &new).unwrap();
        let normal = normal_approximation(got.u, 1000, 1000, &[1; 2000]);
        assert!(got.exact);
        assert!((got.two_sided / normal.two_sided - 1.0).abs() < 0.02);
        assert!((got.less + got.greater - 1.0) > 0.0);
        // All below: one deal of all that there are.
        let apart = test(&old[..200], &[-1.0; 1].repeat(200)).unwrap();
        assert_close(
            apart.less,
            null::one_deal(200, 200),
            1e-9,
            "tied group below",
        );
        let below: Vec<f64> = (0..200).map(|k| f64::from(k) - 1000.0).collect();
        let apart = test(&old[..200], &below).unwrap();
        assert_close(apart.less, null::one_deal(200, 200), 1e-11, "below");
        let interval = interval(&old, &new, 0.95).unwrap();
        assert!((0.95..0.9501).contains(&interval.confidence));
        assert!(interval.contains(hodges_lehmann(&old, &new).unwrap()));
    }

    #[test]
    fn many_ties_are_approximated_and_that_is_said() {
        // A few against so many.
        let (old, new) = (figures(1, 100_000, 1000.0), figures(2, 10, 1000.0));
        assert!(!test(&old, &new).unwrap().exact);
        let (old, new) = (figures(1, 400, 30.0), figures(2, 400, 30.0));
        assert!(test(&old, &new).unwrap().exact);
        let (old, new) = (&old[..60], &new[..60]);
        let got = test(old, new).unwrap();
        let (_, ties) = doubled_u(&sorted(old).unwrap(), &sorted(new).unwrap());
        let normal = normal_approximation(got.u, 60, 60, &ties);
        assert!(got.exact);
        assert!((got.less - normal.less).abs() < 1e-3, "{got:?} {normal:?}");
    }

    fn all_differences(old: &[f64], new: &[f64]) -> Vec<f64> {
        let pairs = old.iter().flat_map(|a| new.iter().map(move |b| b - a));
        let mut differences: Vec<f64> = pairs.collect();
        differences.sort_by(f64::total_cmp);
        differences
    }

    /// Ties, figures close together, and such whose differences are infinite or lose digits.
    fn figure() -> impl Strategy<Value = f64> {
        prop_oneof![
            3 => (-4..4).prop_map(f64::from),
            3 => -3.0..3.0,
            1 => prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
            1 => prop::sample::select(&[f64::MAX, -f64::MAX, 1e300, -0.0, 1e-300]),
        ]
    }

    fn group(values: i32, most: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-values..values).prop_map(f64::from), 1..=most)
    }

    proptest! {
        #[test]
        fn differences_have_the_ranks_that_sorting_gives(
            old in prop::collection::vec(figure(), 1..70),
            new in prop::collection::vec(figure(), 1..70),
            stride in 1_usize..60,
        ) {
            let (a, b) = (sorted(&old).unwrap(), sorted(&new).unwrap());
            let all = all_differences(&old, &new);
            let mut differences = Differences::new(&a, &b);
            // Outermost ones, and others from the highest down.
            let some = (0..all.len()).rev().step_by(stride).take(40);
            for at in some.chain([0, all.len() / 2]) {
                prop_assert_eq!(differences.at(at + 1), all[at], "{} of {}", at, all.len());
                prop_assert_eq!(parted_difference(&a, &b, at + 1), all[at]);
            }
        }

        #[test]
        fn the_test_is_that_of_all_deals(old in group(4, 6), new in group(4, 6)) {
            let pooled = [new.as_slice(), &old].concat();
            let u_of = |dealt: usize| {
                let is_new = |at: usize| dealt >> at & 1 == 1;
                let mut doubled = 0;
                for i in (0..pooled.len()).filter(|&i| is_new(i)) {
                    for j in (0..pooled.len()).filter(|&j| !is_new(j)) {
                        doubled += 1 + i32::from(pooled[i] > pooled[j])
                            - i32::from(pooled[i] < pooled[j]);
                    }
                }
                doubled
            };
            let observed = u_of((1 << new.len()) - 1);
            let (mut deals, mut less, mut greater) = (0, 0, 0);
            for dealt in 0_usize..1 << pooled.len() {
                if dealt.count_ones() as usize == new.len() {
                    let u = u_of(dealt);
                    deals += 1;
                    less += i32::from(u <= observed);
                    greater += i32::from(u >= observed);
                }
            }
            let got = test(&old, &new).unwrap();
            prop_assert_eq!(got.u, f64::from(observed) / 2.0);
            prop_assert!((got.less - f64::from(less) / f64::from(deals)).abs() < 1e-13);
            prop_assert!((got.greater - f64::from(greater) / f64::from(deals)).abs() < 1e-13);
        }

        #[test]
        fn results_follow_shift_scale_sides_and_order(
            old in group(1000, 25),
            new in group(1000, 25),
            shift in -1000_i32..1000,
            power in -3_i32..4,
        ) {
            let follow = |x: &f64| x * 2f64.powi(power) + f64::from(shift);
            let moved = |x: &[f64]| x.iter().rev().map(follow).collect::<Vec<f64>>();
            let (p, back) = (test(&old, &new).unwrap(), test(&new, &old).unwrap());
            prop_assert_eq!(test(&moved(&old), &moved(&new)), Some(p));
            prop_assert!((p.less - back.greater).abs() < 1e-13);
            prop_assert!((p.greater - back.less).abs() < 1e-13);
            let further: Vec<f64> = new.iter().map(|x| x + 3.0).collect();
            prop_assert!(test(&old, &further).unwrap().u >= p.u);
            let scale = 2f64.powi(power);
            let centre = hodges_lehmann(&old, &new).unwrap();
            prop_assert_eq!(hodges_lehmann(&moved(&old), &moved(&new)), Some(centre * scale));
            prop_assert_eq!(hodges_lehmann(&new, &old), Some(-centre));
            let ends = |a: &[f64], b: &[f64]| interval(a, b, 0.95).map(|i| (i.low, i.high));
            let plain = ends(&old, &new);
            prop_assert_eq!(plain.is_some(), least_p(old.len(), new.len()) <= 0.05);
            prop_assert_eq!(
                plain.map(|(low, high)| (low * scale, high * scale)),
                ends(&moved(&old), &moved(&new))
            );
            prop_assert_eq!(plain.map(|(low, high)| (-high, -low)), ends(&new, &old));
        }

        #[test]
        fn intervals_hold_the_estimate_and_agree_with_the_test(
            old in prop::collection::vec(-10.0..10.0, 1..20),
            new in prop::collection::vec(-10.0..10.0, 1..20),
            confidence in 0.01..0.999,
        ) {
            if let Some(got) = interval(&old, &new, confidence) {
                prop_assert!(got.confidence >= confidence);
                prop_assert!(got.contains(hodges_lehmann(&old, &new).unwrap()));
                let p = test(&old, &new).unwrap().two_sided;
                prop_assert_eq!(got.contains(0.0), p > 1.0 - confidence, "{} {:?}", p, got);
            }
        }
    }
}
