//! Order statistics: quantiles, the median and its distribution-free interval, ranks. Never assumes a distribution; sorting works on a copy.

use std::cell::Cell;

use super::{Interval, normal};

/// The ranks, from 1, between which an interval lies, and its confidence.
type Ranks = (usize, usize, f64);

/// The figures in rising order, or `None` when there are none or one is not a finite number.
pub fn sorted(figures: &[f64]) -> Option<Vec<f64>> {
    if figures.is_empty() || !figures.iter().all(|x| x.is_finite()) {
        return None;
    }
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(sorted)
}

/// The median: the middle figure, or the mean of the two middle ones.
pub fn median(figures: &[f64]) -> Option<f64> {
    let sorted = sorted(figures)?;
    Some(middle(sorted.len(), |rank| sorted[rank - 1]))
}

/// The quantile at `share` (0–1) by linear interpolation between order statistics: type 7 of
/// Hyndman and Fan (1996), the default of R and NumPy.
///
/// `None` also when `share` lies outside 0–1.
pub fn quantile(figures: &[f64], share: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&share) {
        return None;
    }
    let sorted = sorted(figures)?;
    let place = (sorted.len() - 1) as f64 * share;
    let below = place.floor();
    let (low, high) = (sorted[below as usize], sorted[place.ceil() as usize]);
    let part = place - below;
    Some(((1.0 - part) * low + part * high).clamp(low, high))
}

/// The distribution-free interval of the median: the k-th smallest and the k-th largest figure,
/// with the largest k that still covers the median with at least `confidence` (0–1).
///
/// Its coverage 1 − 2·P(Binomial(n, ½) < k) holds for every continuous distribution and is at
/// least that for any other (Thompson 1936). `None` also when there are fewer figures than
/// [`median_interval_needs`].
pub fn median_interval(figures: &[f64], confidence: f64) -> Option<Interval> {
    let sorted = sorted(figures)?;
    let (rank, coverage) = median_rank(sorted.len(), confidence)?;
    Some(Interval {
        low: sorted[rank - 1],
        high: sorted[sorted.len() - rank],
        confidence: coverage,
    })
}

/// The median with the interval that benchstat prints, for tables that are to equal its own.
///
/// It takes the stretches between neighbouring figures in the order of the probability that the
/// median lies in them, the lower first of two alike, until they hold `confidence`; so it may
/// reach one rank further down than up, and where there are too few figures it has an infinite
/// end. From 31 figures on the probabilities are normal, corrected for continuity.
/// `go-moremath` `stats.QuantileCI` at ½; where that, by rounding, takes the upper of two equal
/// stretches (n = 24 at 95 %), this does not.
pub fn benchstat_median(figures: &[f64], confidence: f64) -> Option<(f64, Interval)> {
    // Files hold thousands of benchmarks with the same number of runs.
    thread_local! {
        static LAST: Cell<(usize, f64, Ranks)> = const { Cell::new((0, 0.0, (0, 0, 0.0))) };
    }
    if !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let sorted = sorted(figures)?;
    let n = sorted.len();
    let ranks = match LAST.get() {
        (count, level, ranks) if (count, level) == (n, confidence) => ranks,
        _ => benchstat_ranks(n, confidence),
    };
    LAST.set((n, confidence, ranks));
    let (low, high, confidence) = ranks;
    let interval = Interval {
        low: if low == 0 {
            f64::NEG_INFINITY
        } else {
            sorted[low - 1]
        },
        high: if high > n {
            f64::INFINITY
        } else {
            sorted[high - 1]
        },
        confidence,
    };
    Some((middle(n, |rank| sorted[rank - 1]), interval))
}

/// The geometric mean; `None` also when a figure is not above 0.
pub fn geometric_mean(figures: &[f64]) -> Option<f64> {
    let positive = |x: &f64| x.is_finite() && *x > 0.0;
    if figures.is_empty() || !figures.iter().all(positive) {
        return None;
    }
    let logarithms: f64 = figures.iter().map(|x| x.ln()).sum();
    Some((logarithms / figures.len() as f64).exp())
}

/// How many figures an interval of the median at `confidence` takes: 6 at 95 %, 8 at 99 %.
///
/// It is the least n with 1 − 2/2ⁿ ≥ `confidence`, and so it is also what the interval of
/// [`signed_rank`](super::signed_rank) takes. `usize::MAX` for a confidence that no number
/// reaches: 1 and more, or not a number.
pub fn median_interval_needs(confidence: f64) -> usize {
    if confidence.is_nan() || confidence >= 1.0 {
        return usize::MAX;
    }
    // A confidence below 1 is at most 1 − 2⁻⁵³, which n = 54 reaches.
    (1..=54)
        .find(|&n| 1.0 - 2f64.powi(1 - n) >= confidence)
        .map_or(usize::MAX, |n| n as usize)
}

/// Twice the midrank of every figure among all of them, in their own order: equal figures share
/// the mean of the ranks that they take up, and doubling keeps that a whole number.
///
/// Figures that are not numbers rank by [`f64::total_cmp`].
pub fn doubled_midranks(figures: &[f64]) -> Vec<usize> {
    let mut by_size: Vec<usize> = (0..figures.len()).collect();
    by_size.sort_unstable_by(|&a, &b| figures[a].total_cmp(&figures[b]));
    let mut ranks = vec![0; figures.len()];
    let mut before = 0;
    for tied in by_size.chunk_by(|&a, &b| figures[a] == figures[b]) {
        // Ranks before+1 … before+len have the mean before + (len + 1)/2.
        tied.iter()
            .for_each(|&at| ranks[at] = 2 * before + tied.len() + 1);
        before += tied.len();
    }
    ranks
}

/// The median of `count` ordered figures, of which `at(rank)` gives the rank-th smallest, from 1.
pub(super) fn middle(count: usize, mut at: impl FnMut(usize) -> f64) -> f64 {
    let low = at(count.div_ceil(2));
    if count % 2 == 1 {
        return low;
    }
    low.midpoint(at(count / 2 + 1))
}

/// The largest k with 1 − 2·P(Binomial(n, ½) < k) ≥ `confidence`, and that coverage.
fn median_rank(n: usize, confidence: f64) -> Option<(usize, f64)> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    // C(n, k) and the sum of those below are kept in units of 2^exponent, so that neither
    // 2⁻ⁿ nor the coefficients leave the range of a double. Powers of two cost no precision.
    const STEP: i32 = 500;
    let step = 2f64.powi(-STEP);
    let (mut coefficient, mut below, mut exponent) = (1.0_f64, 0.0_f64, -(n as f64));
    let mut best = None;
    for k in 1..=n.div_ceil(2) {
        below += coefficient;
        let coverage = 1.0 - 2.0 * below * exponent.exp2();
        if coverage < confidence {
            break;
        }
        best = Some((k, coverage));
        coefficient = coefficient * (n - k + 1) as f64 / k as f64;
        if coefficient > 1.0 / step {
            coefficient *= step;
            below *= step;
            exponent += f64::from(STEP);
        }
    }
    best
}

/// The ranks of [`benchstat_median`]. Rank 0 and n + 1 are infinitely far.
fn benchstat_ranks(n: usize, confidence: f64) -> Ranks {
    if n <= 30 {
        // Stretch k lies between the k-th figure and the next.
        let mut chances = vec![0.5_f64.powi(n as i32)];
        for k in 1..=n {
            chances.push(chances[k - 1] * (n - k + 1) as f64 / k as f64);
        }
        let (mut low, mut high) = (n / 2, n / 2 + 1);
        let mut held = chances[n / 2];
        while held < confidence && high - low <= n {
            // Alike are those as far from both ends.
            if low > 0 && low + high > n {
                low -= 1;
                held += chances[low];
            } else {
                held += chances[high];
                high += 1;
            }
        }
        return (low, high, held);
    }
    let (middle, deviation) = (n as f64 / 2.0, (n as f64).sqrt() / 2.0);
    let below = |rank: f64| normal::cumulative((rank - 0.5 - middle) / deviation);
    let held = |low: f64, high: f64| below(high) - below(low);
    let reach = normal::two_sided(1.0 - confidence) * deviation;
    let low = (middle - reach + 0.5).floor().max(0.0);
    let high = n as f64 + 1.0 - low;
    let biased = held(low, high - 1.0);
    let (high, held) = if biased >= confidence {
        (high - 1.0, biased)
    } else {
        (high, held(low, high))
    };
    (low as usize, high as usize, held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{assert_close, r_rows};
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let check = |figures: &[f64], share, want| {
            assert_eq!(quantile(figures, share), want, "{figures:?} {share}");
        };
        check(&[4.0, 1.0, 3.0, 2.0], 0.0, Some(1.0));
        check(&[4.0, 1.0, 3.0, 2.0], 0.25, Some(1.75));
        check(&[4.0, 1.0, 3.0, 2.0], 0.5, Some(2.5));
        check(&[4.0, 1.0, 3.0, 2.0], 1.0, Some(4.0));
        check(&[7.0], 0.9, Some(7.0));
        check(&[-f64::MAX, f64::MAX], 0.5, Some(0.0));
        check(&[], 0.5, None);
        check(&[1.0, f64::NAN], 0.5, None);
        check(&[1.0, f64::INFINITY], 0.5, None);
        check(&[1.0], 1.5, None);
        check(&[1.0], f64::NAN, None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 3.0, 1.0, 2.0]), Some(2.5));
        assert_eq!(median(&[f64::MAX, f64::MAX]), Some(f64::MAX));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN]), None);
    }

    #[test]
    fn median_intervals_are_those_of_the_reference() {
        for (case, _, row) in r_rows("medianci") {
            let n: usize = case[1..].parse().unwrap();
            let got = median_rank(n, 0.95);
            if row[0] == 0.0 {
                assert_eq!(got, None, "{case}");
                continue;
            }
            let (rank, coverage) = got.unwrap();
            assert_eq!([rank as f64, (n + 1 - rank) as f64], row[..2], "{case}");
            assert_close(coverage, row[2], 1e-12, &case);
        }
    }

    #[test]
    fn benchstats_intervals_are_those_of_the_reference() {
        for row in include_str!("../../benchdata/benchstat_medianci.csv").lines() {
            let row: Vec<&str> = row.split(',').collect();
            let n: usize = row[1].parse().unwrap();
            let rising: Vec<f64> = (1..=n).map(|x| x as f64).collect();
            let (_, got) = benchstat_median(&rising, 0.95).unwrap();
            let end = |at: usize| match row[at].parse::<f64>().unwrap() {
                0.0 => f64::NEG_INFINITY,
                rank if rank > n as f64 => f64::INFINITY,
                rank => rank,
            };
            // There rounding decides between two equal stretches.
            let turned = if n == 24 { 1.0 } else { 0.0 };
            assert_eq!(
                [got.low, got.high].map(|x| x + turned),
                [end(2), end(3)],
                "{n}"
            );
            assert_close(got.confidence, row[4].parse().unwrap(), 1e-12, row[1]);
        }
        assert_eq!(benchstat_median(&[1.0], 1.0), None);
        let (_, single) = benchstat_median(&[1.0], 0.95).unwrap();
        assert_eq!(
            (single.low, single.high),
            (f64::NEG_INFINITY, f64::INFINITY)
        );
    }

    #[test]
    fn geometric_means_are_of_positive_figures() {
        let check = |figures: &[f64], want| assert_eq!(geometric_mean(figures), want);
        check(&[4.0], Some(4.0));
        check(&[], None);
        check(&[1.0, 0.0], None);
        check(&[1.0, -1.0], None);
        check(&[1.0, f64::INFINITY], None);
        // Medians and mean of the column `sec/op` of benchstat's table of two compile benchmarks.
        let got = geometric_mean(&[0.15884482500000002, 0.22906464050000003]).unwrap();
        assert_close(got, 0.19075044622204798, 1e-14, "benchstat");
    }

    #[test]
    fn a_median_interval_takes_enough_figures() {
        let check = |confidence, want| {
            assert_eq!(median_interval_needs(confidence), want, "{confidence}");
            if want < 100 {
                let figures: Vec<f64> = (0..want).map(|x| x as f64).collect();
                assert!(
                    median_interval(&figures, confidence).is_some(),
                    "{confidence}"
                );
                assert_eq!(
                    median_interval(&figures[1..], confidence),
                    None,
                    "{confidence}"
                );
            }
        };
        check(0.5, 2);
        check(0.9, 5);
        check(0.95, 6);
        check(0.96875, 6);
        check(0.99, 8);
        check(1.0 - f64::EPSILON / 2.0, 54);
        check(1.0, usize::MAX);
        check(f64::NAN, usize::MAX);
    }

    #[test]
    fn median_intervals_of_many_figures_are_near_the_normal_ones() {
        // k ≈ n/2 − 1.96·√n/2: neither 2⁻ⁿ nor C(n, k) is a double here.
        for n in [1000_usize, 2000, 10_000, 1_000_000] {
            let (rank, coverage) = median_rank(n, 0.95).unwrap();
            let normal = n as f64 / 2.0 - 1.959964 * (n as f64).sqrt() / 2.0;
            assert!((rank as f64 - normal).abs() < 1.5, "{n}: {rank} {normal}");
            assert!((0.95..0.955).contains(&coverage), "{n}: {coverage}");
        }
    }

    #[test]
    fn ties_share_their_ranks() {
        let check = |figures: &[f64], want: &[usize]| assert_eq!(doubled_midranks(figures), want);
        check(&[30.0, 10.0, 20.0], &[6, 2, 4]);
        check(&[1.0, 2.0, 1.0, 1.0], &[4, 8, 4, 4]);
        check(&[0.0, -0.0, 5.0], &[3, 3, 6]);
        check(&[], &[]);
    }

    proptest! {
        #[test]
        fn the_median_follows_shift_scale_and_order(
            mut figures in prop::collection::vec(-1000_i32..1000, 1..60),
            shift in -1000_i32..1000,
            power in -3_i32..4,
        ) {
            let scale = 2f64.powi(power);
            let plain: Vec<f64> = figures.iter().map(|&x| f64::from(x)).collect();
            figures.reverse();
            let moved: Vec<f64> =
                figures.iter().map(|&x| f64::from(x) * scale + f64::from(shift)).collect();
            let follow = |x: f64| x * scale + f64::from(shift);
            prop_assert_eq!(median(&plain).map(follow), median(&moved));
            prop_assert_eq!(median(&plain), quantile(&plain, 0.5));
            let (a, b) = (median_interval(&plain, 0.95), median_interval(&moved, 0.95));
            prop_assert_eq!(a.map(|i| (follow(i.low), follow(i.high))), b.map(|i| (i.low, i.high)));
        }

        #[test]
        fn intervals_hold_the_median_and_grow_with_confidence(
            figures in prop::collection::vec(-1e9..1e9, 1..80),
            a in 0.01..0.999,
            b in 0.01..0.999,
        ) {
            let (less, more) = if a < b { (a, b) } else { (b, a) };
            let narrow = median_interval(&figures, less);
            let wide = median_interval(&figures, more);
            prop_assert_eq!(narrow.is_some(), figures.len() >= median_interval_needs(less));
            if let (Some(narrow), Some(wide)) = (narrow, wide) {
                prop_assert!(narrow.confidence >= less && wide.confidence >= more);
                prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
                prop_assert!(narrow.contains(median(&figures).unwrap()));
            }
        }

        #[test]
        fn quantiles_rise_and_stay_in_range(
            figures in prop::collection::vec(prop::num::f64::NORMAL, 1..30),
            a in 0_u8..=100,
            b in 0_u8..=100,
        ) {
            let (low, high) = (f64::from(a.min(b)) / 100.0, f64::from(a.max(b)) / 100.0);
            let sorted = sorted(&figures).unwrap();
            let (low, high) = (quantile(&figures, low).unwrap(), quantile(&figures, high).unwrap());
            prop_assert!(low <= high && sorted[0] <= low && high <= sorted[sorted.len() - 1]);
        }
    }
}
