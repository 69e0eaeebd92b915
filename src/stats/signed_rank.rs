//! Wilcoxon's signed-rank procedure: is the centre of symmetric figures (differences of pairs) zero, what is it, and between what bounds does it lie. Always the exact null distribution, never a normal approximation.
//!
//! Conventions, as programs differ in them:
//! - equal magnitudes share their midrank, and the null distribution is that of the ranks as they
//!   are: every sign pattern equally likely (the conditional sign-flip distribution);
//! - zeros are ranked with the others and then left out (Pratt 1959);
//! - the two-sided p is twice the smaller tail, at most 1.
//!
//! Without ties and zeros all this is the textbook test, and what R calls exact.
//!
//! The interval comes from inverting the test (Hodges and Lehmann 1963): with W₍₁₎ ≤ … ≤ W₍M₎ the
//! M = n(n+1)/2 Walsh averages (xᵢ + xⱼ)/2, i ≤ j, it is [W₍c₊₁₎, W₍M₋c₎] with the critical c of
//! [`critical`]; the estimate is their median.

use super::Interval;
use super::fourier::{RankSum, Tail};
use super::order::{doubled_midranks, middle, sorted};

/// What the signed-rank test says of a set of differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// The sum of the ranks of the positive differences (R's V; half ranks occur with ties).
    pub positive: f64,
    /// Differences that are not zero.
    pub ranked: usize,
    /// Probability under the null of a sum at most as large: small when differences are negative.
    pub less: f64,
    /// Probability under the null of a sum at least as large: small when they are positive.
    pub greater: f64,
    /// Twice the smaller of the two, at most 1. Never below 2/2ⁿ with n differences ranked.
    pub two_sided: f64,
}

/// Tests whether `differences` are symmetric about zero.
///
/// All differences zero give a p of 1. Takes O(n·m) time, with m the smaller of the two rank
/// sums, at most n(n+1)/4 (twice that when midranks are halves): 0.1 s at worst for 1000 with ties
/// or zeros; without them, a few milliseconds.
pub fn test(differences: &[f64]) -> Option<SignedRank> {
    if differences.is_empty() || !differences.iter().all(|x| x.is_finite()) {
        return None;
    }
    let sizes: Vec<f64> = differences.iter().map(|x| x.abs()).collect();
    let signed: Vec<(usize, bool)> = doubled_midranks(&sizes)
        .into_iter()
        .zip(differences)
        .filter(|&(_, &difference)| difference != 0.0)
        .map(|(rank, &difference)| (rank, difference > 0.0))
        .collect();
    let doubled: usize = signed
        .iter()
        .filter(|&&(_, positive)| positive)
        .map(|s| s.0)
        .sum();
    // Without half ranks the distribution has gaps at every second sum: halve it.
    let unit = if signed.iter().all(|s| s.0 % 2 == 0) {
        2
    } else {
        1
    };
    let mut ranks: Vec<usize> = signed.iter().map(|s| s.0 / unit).collect();
    ranks.sort_unstable();
    let sum = doubled / unit;
    let total: usize = ranks.iter().sum();
    // The distribution is symmetric, so the smaller of both sums gives both tails:
    // P(S ≥ sum) = P(S ≤ total − sum), and P(S ≥ small) = 1 − P(S < small).
    let small = sum.min(total - sum);
    let untied = ranks.iter().copied().eq(1..=ranks.len());
    let Tail { at_most: near, at } = match RankSum::of_signed(ranks.len()).filter(|_| untied) {
        Some(ranks) => ranks.tail(small),
        None => Tail::ending(&null_distribution(&ranks, small)),
    };
    let far = (1.0 - (near - at)).min(1.0);
    let (less, greater) = if sum == small {
        (near, far)
    } else {
        (far, near)
    };
    Some(SignedRank {
        positive: doubled as f64 / 2.0,
        ranked: ranks.len(),
        less,
        greater,
        two_sided: (2.0 * near).min(1.0),
    })
}

/// The Hodges–Lehmann estimate of the centre: the median of all Walsh averages. Takes
/// O(n log n) time.
pub fn hodges_lehmann(figures: &[f64]) -> Option<f64> {
    let sorted = sorted(figures)?;
    Some(middle(walsh_count(sorted.len()), |rank| {
        walsh_average(&sorted, rank)
    }))
}

/// The exact interval of the centre at `confidence` (0–1), which holds the estimate of
/// [`hodges_lehmann`].
///
/// `None` also with fewer figures than
/// [`median_interval_needs`](super::order::median_interval_needs). The test rejects a centre
/// outside it at p ≤ 1 − `confidence`. Takes the time of [`critical`].
pub fn interval(figures: &[f64], confidence: f64) -> Option<Interval> {
    let sorted = sorted(figures)?;
    let (below, p) = critical(sorted.len(), 1.0 - confidence)?;
    let average = |rank| walsh_average(&sorted, rank);
    Some(Interval {
        low: average(below + 1),
        high: average(walsh_count(sorted.len()) - below),
        confidence: 1.0 - p,
    })
}

/// The largest rank sum c of `n` differences without ties and zeros that is significant at the
/// two-sided level `alpha` (0–1), and the p that it really has: 2·P(V ≤ c) ≤ `alpha`.
///
/// `None` when not even 0 is significant: 2/2ⁿ > `alpha`. Takes 0.1 ms for 112 differences, some
/// 5 ms for 1000.
pub fn critical(n: usize, alpha: f64) -> Option<(usize, f64)> {
    if !(alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    if let Some(sum) = RankSum::of_signed(n) {
        return (needs(alpha) <= n).then(|| sum.critical(alpha));
    }
    let ranks: Vec<usize> = (1..=n).collect();
    let mut p = 0.0;
    let mut found = None;
    for (sum, probability) in null_distribution(&ranks, walsh_count(n) / 2)
        .iter()
        .enumerate()
    {
        p += 2.0 * probability;
        if p > alpha {
            break;
        }
        found = Some((sum, p));
    }
    found
}

/// How many differences it takes until a p can be as small as `alpha`: the least n with
/// 2/2ⁿ ≤ `alpha`. `usize::MAX` when nothing does.
pub fn needs(alpha: f64) -> usize {
    // The p of 1075 differences is no double any more.
    (1..=1074)
        .find(|&n| 2f64.powi(1 - n) <= alpha && alpha > 0.0)
        .map_or(usize::MAX, |n| n as usize)
}

/// The probabilities of the rank sums 0 … `limit` when every one of the rising `ranks` counts or
/// not with a chance of ½ each.
///
/// Exact but for rounding (relative 1e-13 at n = 1000); below 1e-308 they vanish.
fn null_distribution(ranks: &[usize], limit: usize) -> Vec<f64> {
    let mut now = vec![0.0; limit + 1];
    let mut next = now.clone();
    now[0] = 1.0;
    let mut reach = 0;
    for &rank in ranks {
        reach = (reach + rank).min(limit);
        let without = rank.min(reach + 1);
        for (to, from) in next[..without].iter_mut().zip(&now) {
            *to = 0.5 * from;
        }
        let pairs = now[without..].iter().zip(&now);
        for (to, (stay, step)) in next[without..=reach].iter_mut().zip(pairs) {
            *to = 0.5 * (stay + step);
        }
        std::mem::swap(&mut now, &mut next);
    }
    now
}

/// How many Walsh averages `n` figures have.
fn walsh_count(n: usize) -> usize {
    n * (n + 1) / 2
}

/// The `rank`-th smallest Walsh average of `sorted`, from 1, without listing them: bisection over
/// the doubles between the smallest and the largest figure, which ends at the very average.
fn walsh_average(sorted: &[f64], rank: usize) -> f64 {
    let ends = (sorted.first(), sorted.last());
    let (Some(&first), Some(&last)) = ends else {
        return f64::NAN;
    };
    let (mut low, mut high) = (order_key(first), order_key(last));
    while low < high {
        let mid = low.midpoint(high);
        if walsh_at_most(sorted, from_order_key(mid)) >= rank {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    // Averages of opposite figures are +0; bisection finds −0, which equals it and comes first.
    from_order_key(low) + 0.0
}

/// How many Walsh averages are at most `bound`.
fn walsh_at_most(sorted: &[f64], bound: f64) -> usize {
    // The larger xᵢ, the fewer partners xⱼ keep the average within the bound: one sweep from
    // both ends counts them all.
    let mut partners = sorted.len();
    let mut count = 0;
    for (i, x) in sorted.iter().enumerate() {
        while partners > i && x.midpoint(sorted[partners - 1]) > bound {
            partners -= 1;
        }
        if partners <= i {
            break;
        }
        count += partners - i;
    }
    count
}

/// A whole number for every double, rising as [`f64::total_cmp`] does.
fn order_key(x: f64) -> u64 {
    let bits = x.to_bits();
    if x.is_sign_negative() {
        !bits
    } else {
        bits | 1 << 63
    }
}

/// The double of an [`order_key`].
fn from_order_key(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 {
        key & !(1 << 63)
    } else {
        !key
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::order::{median, median_interval_needs};
    use super::super::reference::{assert_close, r_rows};
    use super::*;

    #[test]
    fn p_values_estimates_and_intervals_are_those_of_r() {
        let mut figures = BTreeMap::new();
        let mut compared = 0;
        for (case, key, row) in r_rows("signedrank") {
            let of = format!("{case} {key}");
            if key == "x" {
                figures.insert(case, row);
                continue;
            }
            let x = figures[&case].as_slice();
            let result = test(x).unwrap();
            let got = match key.as_str() {
                "exact.p.two.sided" => result.two_sided,
                "exact.p.less" => result.less,
                "exact.p.greater" => result.greater,
                "HL" => hodges_lehmann(x).unwrap(),
                // R drops zeros before it ranks, Pratt's way ranks them.
                "V" if !x.contains(&0.0) => result.positive,
                "HL.ci0.9" | "HL.ci0.95" | "HL.ci0.99" => {
                    let confidence: f64 = key["HL.ci".len()..].parse().unwrap();
                    match interval(x, confidence) {
                        Some(got) => {
                            assert_close(got.low, row[0], 1e-12, &of);
                            assert_close(got.high, row[1], 1e-12, &of);
                            assert!(got.confidence >= confidence, "{of}");
                        }
                        // R then gives the range at a lower confidence than was asked for.
                        None => assert!(x.len() < median_interval_needs(confidence), "{of}"),
                    }
                    compared += 1;
                    continue;
                }
                // R's normal approximations, and its confidence rounded to two digits.
                _ => continue,
            };
            assert_close(got, row[0], 1e-12, &of);
            compared += 1;
        }
        assert_eq!(compared, 24);
    }

    #[test]
    fn ties_and_zeros_are_those_of_the_exact_reference() {
        let text = include_str!("../../benchdata/ref_exact.json");
        let cases: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let mut compared = 0;
        for (name, case) in cases.iter().filter(|case| case.0.starts_with("signflip/")) {
            let drop_zeros = name.ends_with("/wilcox");
            let all = case["d"]
                .as_array()
                .unwrap()
                .iter()
                .map(|d| d.as_f64().unwrap());
            let d: Vec<f64> = all.filter(|&d| !drop_zeros || d != 0.0).collect();
            let got = test(&d).unwrap();
            assert_eq!(got.positive, case["W"], "{name}");
            for (key, got) in [
                ("p_two", got.two_sided),
                ("p_less", got.less),
                ("p_greater", got.greater),
            ] {
                assert_close(got, case[key].as_f64().unwrap(), 1e-12, name);
                compared += 1;
            }
        }
        assert_eq!(compared, 18);
    }

    #[test]
    fn critical_sums_are_those_of_the_stop_rule() {
        let looks = [8, 10, 14, 20, 28, 40, 56, 80, 112];
        let check = |alpha, want: [usize; 9]| {
            let got = looks.map(|n| critical(n, alpha).unwrap().0);
            assert_eq!(got, want, "{alpha}");
        };
        check(0.00988, [0, 3, 12, 37, 91, 220, 484, 1085, 2279]);
        check(0.02145, [1, 5, 16, 43, 102, 239, 517, 1142, 2373]);
    }

    #[test]
    fn few_differences_cannot_be_significant() {
        for (case, _, row) in r_rows("qwilcox") {
            let n: usize = case[1..].parse().unwrap();
            let rising: Vec<f64> = (1..=n).map(|x| x as f64).collect();
            assert_close(test(&rising).unwrap().two_sided, row[1], 1e-12, &case);
            if row[1] < 1.0 {
                assert_eq!(critical(n, row[1]), Some((0, row[1])), "{case}");
                assert_eq!(critical(n, row[1] * 0.999), None, "{case}");
            }
        }
        assert_eq!(critical(0, 0.5), None);
        assert_eq!(critical(20, f64::NAN), None);
    }

    #[test]
    fn sets_without_a_meaning_say_nothing() {
        for figures in [&[] as &[f64], &[f64::NAN], &[1.0, f64::INFINITY]] {
            assert_eq!(test(figures), None);
            assert_eq!(hodges_lehmann(figures), None);
            assert_eq!(interval(figures, 0.95), None);
        }
        let zeros = test(&[0.0, -0.0, 0.0]).unwrap();
        assert_eq!(
            (zeros.two_sided, zeros.less, zeros.greater, zeros.ranked),
            (1.0, 1.0, 1.0, 0)
        );
        assert_eq!(hodges_lehmann(&[f64::MAX; 4]), Some(f64::MAX));
        assert_eq!(hodges_lehmann(&[-3.0, 3.0]).map(f64::to_bits), Some(0));
    }

    #[test]
    fn the_fourier_sum_is_the_recursion() {
        for n in [120_usize, 121, 150, 200] {
            let ranks: Vec<usize> = (1..=n).collect();
            let null = null_distribution(&ranks, walsh_count(n) / 2);
            let (mut at_most, sum) = (0.0, RankSum::of_signed(n).unwrap());
            for (v, &at) in null.iter().enumerate() {
                at_most += at;
                if v % 1497 < 2 || v + 2 > null.len() {
                    let (got, of) = (sum.tail(v), format!("{n} {v}"));
                    assert_close(got.at, at, 1e-11, &of);
                    assert_close(got.at_most, at_most, 1e-11, &of);
                }
            }
            for alpha in [0.3, 0.05, 0.00988, 1e-12, 1e-30] {
                let (c, p) = critical(n, alpha).unwrap();
                let want: f64 = 2.0 * null[..=c].iter().sum::<f64>();
                assert_close(p, want, 1e-11, "critical");
                assert!(p <= alpha && p + 2.0 * null[c + 1] > alpha, "{n} {alpha}");
            }
        }
        let rising: Vec<f64> = (1..=400).map(f64::from).collect();
        assert_close(
            test(&rising).unwrap().two_sided,
            2f64.powi(-399),
            1e-11,
            "all positive",
        );
    }

    #[test]
    fn the_null_distribution_of_many_is_whole() {
        // 2⁻ⁿ is below the smallest double here, and the middle must not suffer from it.
        let n = 1100;
        let near: Vec<usize> = (1..=n).map(|rank| rank % 7 + 1).collect();
        let total: usize = near.iter().sum();
        let null = null_distribution(&near, total);
        assert_close(null.iter().sum(), 1.0, 1e-12, "sum");
        assert_close(null[total / 2], null[total - total / 2], 1e-12, "symmetry");
    }

    fn walsh_averages(figures: &[f64]) -> Vec<f64> {
        let pairs = (0..figures.len()).flat_map(|i| (i..figures.len()).map(move |j| (i, j)));
        let mut averages: Vec<f64> = pairs
            .map(|(i, j)| figures[i].midpoint(figures[j]))
            .collect();
        averages.sort_by(f64::total_cmp);
        averages
    }

    proptest! {
        #[test]
        fn bisection_finds_every_walsh_average(
            figures in prop::collection::vec(
                prop_oneof![prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL, -3.0..3.0,
                    (-4_i32..4).prop_map(f64::from)],
                1..14,
            ),
        ) {
            let sorted = sorted(&figures).unwrap();
            for (at, want) in walsh_averages(&figures).into_iter().enumerate() {
                prop_assert_eq!(walsh_average(&sorted, at + 1), want);
            }
        }

        #[test]
        fn the_test_is_that_of_all_sign_patterns(
            differences in prop::collection::vec((-5_i32..6).prop_map(f64::from), 1..11),
        ) {
            let sizes: Vec<f64> = differences.iter().map(|x| x.abs()).collect();
            let ranks = doubled_midranks(&sizes);
            let ranked: Vec<(usize, f64)> =
                ranks.into_iter().zip(differences.iter().copied()).filter(|r| r.1 != 0.0).collect();
            let sum: usize = ranked.iter().filter(|r| r.1 > 0.0).map(|r| r.0).sum();
            let patterns = 1_usize << ranked.len();
            let sums = (0..patterns).map(|signs| {
                ranked.iter().enumerate().filter(|(at, _)| signs >> at & 1 == 1).map(|(_, r)| r.0).sum()
            });
            let (mut less, mut greater) = (0, 0);
            for other in sums {
                let other: usize = other;
                less += usize::from(other <= sum);
                greater += usize::from(other >= sum);
            }
            let got = test(&differences).unwrap();
            prop_assert!((got.less - less as f64 / patterns as f64).abs() < 1e-12);
            prop_assert!((got.greater - greater as f64 / patterns as f64).abs() < 1e-12);
        }

        #[test]
        fn results_follow_shift_scale_sign_and_order(
            whole in prop::collection::vec(-1000_i32..1000, 1..40),
            shift in -1000_i32..1000,
            power in -3_i32..4,
        ) {
            let scale = 2f64.powi(power);
            let follow = |x: f64| x * scale + f64::from(shift);
            let plain: Vec<f64> = whole.iter().map(|&x| f64::from(x)).collect();
            let moved: Vec<f64> = plain.iter().rev().map(|&x| follow(x)).collect();
            let scaled: Vec<f64> = plain.iter().rev().map(|&x| x * scale).collect();
            let turned: Vec<f64> = plain.iter().map(|&x| -x).collect();
            let centre = hodges_lehmann(&plain).unwrap();
            prop_assert_eq!(hodges_lehmann(&moved), Some(follow(centre)));
            prop_assert_eq!(hodges_lehmann(&turned), Some(-centre));
            prop_assert_eq!(test(&scaled), test(&plain));
            let (p, q) = (test(&plain).unwrap(), test(&turned).unwrap());
            prop_assert_eq!((p.two_sided, p.less, p.greater), (q.two_sided, q.greater, q.less));
            let ends = |x: &[f64]| interval(x, 0.95).map(|i| (i.low, i.high));
            let plain = ends(&plain);
            prop_assert_eq!(plain.map(|(low, high)| (follow(low), follow(high))), ends(&moved));
            prop_assert_eq!(plain.map(|(low, high)| (-high, -low)), ends(&turned));
        }

        #[test]
        fn intervals_hold_the_estimate_grow_with_confidence_and_agree_with_the_test(
            figures in prop::collection::vec(-10.0..10.0, 1..30),
            a in 0.01..0.999,
            b in 0.01..0.999,
        ) {
            let (less, more) = if a < b { (a, b) } else { (b, a) };
            let (narrow, wide) = (interval(&figures, less), interval(&figures, more));
            prop_assert_eq!(narrow.is_some(), figures.len() >= median_interval_needs(less));
            let centre = hodges_lehmann(&figures).unwrap();
            if let (Some(narrow), Some(wide)) = (narrow, wide) {
                prop_assert!(narrow.confidence >= less && wide.confidence >= more);
                prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
                prop_assert!(narrow.contains(centre));
                let p = test(&figures).unwrap().two_sided;
                prop_assert_eq!(narrow.contains(0.0), p > 1.0 - less, "{} {:?}", p, narrow);
            }
            if figures.len() < 3 {
                prop_assert!((centre - median(&figures).unwrap()).abs() < 1e-9);
            }
        }
    }
}
