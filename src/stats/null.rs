//! The null distribution of Mann and Whitney's U, which is that of all deals of the pooled figures as they are, ties included. Always exact; where that would take too long, it says so and gives nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::fourier::{RankSum, Tail};
use super::tied;

/// The most steps (upper bound; the recursion needs a sixth of them) that are taken over all deals.
const MOST_STEPS: usize = 200_000_000;

/// Up to so many steps, counting is faster than a transform.
const FEW_STEPS: usize = 60_000_000;

/// The most steps of counting beside a large tie: some 30 ms.
const MOST_CHOICES: usize = 60_000_000;

/// Groups up to this size are many in files, thousands of them of the same size.
pub(super) const SMALL: usize = 32;

/// Null distributions by the sizes of the groups.
type Nulls = HashMap<(usize, usize), Rc<Vec<f64>>>;

/// The exact tail of 2·U up to `near` in the lower half; `None` where it would take too long.
pub(super) fn tail(ties: &[usize], m: usize, n: usize, near: usize) -> Option<Tail> {
    if ties.len() == 1 {
        return Some(Tail {
            at_most: 1.0,
            at: 1.0,
        });
    }
    let counted = || Tail::ending(&with_ties(ties, m, n, near));
    if ties.len() < m + n {
        return match m.saturating_mul(n).saturating_mul(near) {
            ..=FEW_STEPS => Some(counted()),
            steps => beside_a_tie(ties, m, near)
                .or_else(|| tied::tail(ties, m, near))
                .or_else(|| (steps <= MOST_STEPS).then(counted)),
        };
    }
    let u = near / 2;
    if let Some(sum) = RankSum::of_groups(m, n) {
        return Some(sum.tail(u));
    }
    if is_long(m, n, near) {
        return None;
    }
    let null = untied(m, n);
    let below = u.checked_sub(1).map_or(0.0, |below| null[below]);
    Some(Tail {
        at_most: null[u],
        at: null[u] - below,
    })
}

/// 1 / C(m + n, m), the probability of one deal.
pub(super) fn one_deal(m: usize, n: usize) -> f64 {
    (1..=m.min(n)).fold(1.0, |p, k| p * k as f64 / (m.max(n) + k) as f64)
}

/// Whether counting up to `limit` would take too long.
pub(super) fn is_long(m: usize, n: usize, limit: usize) -> bool {
    m.saturating_mul(n).saturating_mul(limit) > MOST_STEPS
}

/// The probabilities of a U of at most 0 … mn/2 for `m` and `n` figures without ties.
pub(super) fn untied(m: usize, n: usize) -> Rc<Vec<f64>> {
    thread_local! {
        static KNOWN: RefCell<Nulls> = RefCell::default();
    }
    let sizes = (m.min(n), m.max(n));
    let small = sizes.1 <= SMALL;
    let known = KNOWN.with_borrow(|known| known.get(&sizes).filter(|_| small).cloned());
    known.unwrap_or_else(|| {
        let mut null = count_untied(sizes.0, sizes.1);
        let mut sum = 0.0;
        for p in &mut null {
            sum += *p;
            *p = sum;
        }
        let null = Rc::new(null);
        if small {
            KNOWN.with_borrow_mut(|known| known.insert(sizes, null.clone()));
        }
        null
    })
}

/// The probabilities of each of these U; `m` is not the larger.
fn count_untied(m: usize, n: usize) -> Vec<f64> {
    let (limit, deal) = (m * n / 2, one_deal(m, n));
    if deal * 2f64.powi(52) < 1.0 {
        return with_ties(&vec![1; m + n], m, n, limit);
    }
    // The number of deals for each U is the coefficient of qᵁ in ∏ (1 − qⁿ⁺ʲ)/(1 − qʲ) over
    // j = 1 … m (Mann and Whitney 1947): whole numbers that a double holds.
    let mut deals = vec![0.0; limit + 1];
    deals[0] = 1.0;
    for j in 1..=m {
        for u in (n + j..=limit).rev() {
            deals[u] -= deals[u - n - j];
        }
        for u in j..=limit {
            deals[u] += deals[u - j];
        }
    }
    deals.iter_mut().for_each(|count| *count *= deal);
    deals
}

/// The probabilities of 2·U = 0 … `limit` when `m` of m + n figures are dealt to the group that U
/// is counted for, with `ties` the numbers of equal figures, by rising value; those of U when all
/// are 1.
///
/// The figures are dealt value by value. Of each number of figures dealt to either group it
/// carries only those sums that can still end within the limit: whoever is dealt later to the
/// first group lies above all that the second has by then.
fn with_ties(ties: &[usize], m: usize, n: usize, limit: usize) -> Vec<f64> {
    let unit = if ties.iter().all(|&t| t == 1) { 1 } else { 2 };
    // The greatest sum of a figures against b that matters, if any does.
    let top = |a: usize, b: usize| {
        let to_come = unit * (m - a) * b;
        (b <= n && to_come <= limit).then(|| (unit * a * b).min(limit - to_come))
    };
    let width = limit + 1;
    // Numbers of deals: doubles hold them, if not to the last digit.
    let mut now = vec![0.0; (m + 1) * width];
    let mut next = now.clone();
    now[0] = 1.0;
    let mut dealt = 0;
    for &t in ties {
        // The ways to choose 0, 1, … of those that are equal.
        let mut ways = vec![1.0];
        for s in 1..=t.min(m) {
            ways.push(ways[s - 1] * (t - s + 1) as f64 / s as f64);
        }
        for a in (dealt + t).saturating_sub(n)..=m.min(dealt + t) {
            let Some(reach) = top(a, dealt + t - a) else {
                continue;
            };
            let row = &mut next[a * width..][..=reach];
            row.fill(0.0);
            for (s, ways) in ways.iter().enumerate().take(a + 1) {
                if s + dealt < a {
                    continue;
                }
                let (had, had_other) = (a - s, dealt + s - a);
                let Some(from) = top(had, had_other) else {
                    continue;
                };
                let step = unit * s * had_other + unit * s * (t - s) / 2;
                let source = &now[had * width..][..=from];
                if let Some(target) = row.get_mut(step..) {
                    for (to, from) in target.iter_mut().zip(source) {
                        *to += ways * from;
                    }
                }
            }
        }
        std::mem::swap(&mut now, &mut next);
        dealt += t;
    }
    let deal = one_deal(m, n);
    let mut null = now.split_off(m * width);
    null.iter_mut().for_each(|count| *count *= deal);
    null
}

/// The tail of 2·U up to `limit` where one value has so many of the figures that only few are
/// beside it, such as zeros; `None` where they are not few.
///
/// How many of those below the large tie are dealt, and how many of those above, decides all but
/// what happens within these two, and they know nothing of each other.
fn beside_a_tie(ties: &[usize], m: usize, limit: usize) -> Option<Tail> {
    let (at, &large) = ties.iter().enumerate().max_by_key(|tie| tie.1)?;
    let (below, above) = (&ties[..at], &ties[at + 1..]);
    let [low, high]: [usize; 2] = [below, above].map(|part| part.iter().sum());
    let choices_of = |count: usize| count.saturating_pow(4) / 6;
    let steps = high.saturating_mul(low.saturating_pow(3)) / 3;
    if steps
        .saturating_add(choices_of(low))
        .saturating_add(choices_of(high))
        > MOST_CHOICES
    {
        return None;
    }
    let (below, mut above) = (choices(below), choices(above));
    for row in &mut above {
        let mut sum = 0.0;
        row.iter_mut().for_each(|ways| {
            sum += *ways;
            *ways = sum;
        });
    }
    // The ways to deal what is left out of the large tie, relative to those that are usual.
    let others = low + high;
    let (least, most) = (m.saturating_sub(large), others.min(m));
    let usual = (m * others / (others + large)).clamp(least, most);
    let mut ways = vec![0.0; others + 1];
    ways[usual] = 1.0;
    for k in usual..most {
        ways[k + 1] = ways[k] * (m - k) as f64 / (large + k + 1 - m) as f64;
    }
    for k in (least..usual).rev() {
        ways[k] = ways[k + 1] * (large + k + 1 - m) as f64 / (m - k) as f64;
    }
    let (mut total, mut chosen) = (0.0, 1.0);
    for (k, ways) in ways.iter().enumerate() {
        total += chosen * ways;
        chosen *= (others - k) as f64 / (k + 1) as f64;
    }
    let at_most = |limit: usize| -> f64 {
        let mut sum = 0.0;
        for (a, low_ways) in below.iter().enumerate() {
            for (b, high_ways) in above.iter().enumerate() {
                if a + b < least || a + b > most {
                    continue;
                }
                let (in_tie, left_below) = (m - a - b, low - a);
                let left_in_tie = large - in_tie;
                let fixed =
                    in_tie * (2 * left_below + left_in_tie) + 2 * b * (left_below + left_in_tie);
                let Some(free) = limit.checked_sub(fixed) else {
                    continue;
                };
                let low_ways = &low_ways[..low_ways.len().min(free + 1)];
                let up_to = |sum: usize| high_ways[sum.min(high_ways.len() - 1)];
                let both = low_ways
                    .iter()
                    .enumerate()
                    .map(|(u, ways)| ways * up_to(free - u));
                sum += ways[a + b] * both.sum::<f64>();
            }
        }
        sum / total
    };
    let all = at_most(limit);
    Some(Tail {
        at_most: all,
        at: all - limit.checked_sub(1).map_or(0.0, at_most),
    })
}

/// The ways to choose 0, 1, … of the figures of `ties`, for each number by twice the U of those
/// chosen against those left.
fn choices(ties: &[usize]) -> Vec<Vec<f64>> {
    let mut rows = vec![vec![1.0]];
    for &t in ties {
        let before = rows.len() - 1;
        let row = |chosen: usize| vec![0.0; 2 * chosen * (before + t - chosen) + 1];
        let mut next: Vec<Vec<f64>> = (0..=before + t).map(row).collect();
        for (had, source) in rows.iter().enumerate() {
            let mut ways = 1.0;
            for s in 0..=t {
                let step = s * (2 * (before - had) + t - s);
                let target = &mut next[had + s][step..];
                for (to, from) in target.iter_mut().zip(source) {
                    *to += ways * from;
                }
                ways *= (t - s) as f64 / (s + 1) as f64;
            }
        }
        rows = next;
    }
    rows
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::mann_whitney::critical;
    use super::super::reference::assert_close;
    use super::*;

    #[test]
    fn all_ways_to_count_deals_agree() {
        for (m, n) in [
            (48, 48),
            (64, 64),
            (30, 140),
            (90, 61),
            (1, 7),
            (20, 20),
            (24, 29),
        ] {
            let null = with_ties(&vec![1; m + n], m, n, m * n / 2);
            let plain = count_untied(m.min(n), m.max(n));
            let (mut at_most, sum) = (0.0, RankSum::of_groups(m, n));
            for (u, &at) in null.iter().enumerate() {
                at_most += at;
                let of = format!("{m} {n} {u}");
                assert_close(plain[u], at, 1e-12, &of);
                if let Some(sum) = sum.as_ref().filter(|_| u % 397 < 2 || u + 2 > null.len()) {
                    let got = sum.tail(u);
                    assert_close(got.at, at, 1e-11, &of);
                    assert_close(got.at_most, at_most, 1e-11, &of);
                }
            }
            for alpha in [0.3, 0.05, 0.0098, 1e-6] {
                let Some((c, p)) = critical(m, n, alpha) else {
                    assert!(2.0 * null[0] > alpha);
                    continue;
                };
                let want: f64 = 2.0 * null[..=c].iter().sum::<f64>();
                assert_close(p, want, 1e-11, "critical");
                assert!(
                    p <= alpha && p + 2.0 * null[c + 1] > alpha,
                    "{m} {n} {alpha}"
                );
            }
        }
    }

    /// Groups of sizes as they come when figures are rounded, and such as make a transform hard.
    fn kinds_of_ties(all: usize) -> Vec<Vec<usize>> {
        let mut random = Pcg64Mcg::seed_from_u64(all as u64);
        let mut kinds = vec![
            [vec![2; all / 2], vec![1; all % 2]].concat(),
            [vec![1; all - 2], vec![2]].concat(),
            [vec![3], vec![2; all / 2 - 2], vec![1 + all % 2]].concat(),
            [vec![1; all / 4], vec![all - all / 4]].concat(),
            vec![all / 2, all - all / 2],
            vec![all / 3, 1, all - all / 3 - 1],
            vec![1, all - 1],
        ];
        for most in [3, 10, all / 4] {
            let mut ties = Vec::new();
            while ties.iter().sum::<usize>() < all {
                let rest = all - ties.iter().sum::<usize>();
                ties.push(random.random_range(1..=most.min(rest)));
            }
            kinds.push(ties);
        }
        kinds
    }

    #[test]
    fn ties_are_counted_and_transformed_alike() {
        for (m, n) in [(16, 16), (20, 33), (40, 26)] {
            for ties in kinds_of_ties(m + n) {
                let null = with_ties(&ties, m, n, m * n);
                let (mut at_most, mut told) = (0.0, 0.0);
                for (doubled, &at) in null.iter().enumerate() {
                    at_most += at;
                    // Some of them, at all orders of magnitude.
                    if at > 0.0 && at_most > 1e3 * told {
                        told = at_most;
                        let of = format!("{m} {n} {doubled} {ties:?}");
                        for got in [tied::tail, beside_a_tie].map(|way| way(&ties, m, doubled)) {
                            let got = got.unwrap();
                            assert_close(got.at_most, at_most, 1e-11, &of);
                            // It may have far fewer deals than the sums beside it.
                            assert!((got.at - at).abs() <= 1e-11 * at_most, "{of}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_thousand_figures_a_side_are_tested_exactly_with_ties() {
        // ln(k!) up to 2000.
        let mut logs = vec![0.0_f64];
        (1..=2000).for_each(|k| logs.push(logs[k - 1] + (k as f64).ln()));
        let choose = |t: usize, s: usize| logs[t] - logs[s] - logs[t - s];
        let check = |[low, middle, high]: [usize; 3], near: usize, order: f64| {
            let mut want = 0.0;
            for a in 0..=low {
                for b in 0..=middle {
                    let Some(c) = 1000_usize.checked_sub(a + b).filter(|&c| c <= high) else {
                        continue;
                    };
                    let doubled = a * (low - a)
                        + b * (2 * (low - a) + middle - b)
                        + c * (2 * (low - a) + 2 * (middle - b) + high - c);
                    if doubled <= near {
                        let ways = choose(low, a) + choose(middle, b) + choose(high, c);
                        want += (ways - choose(2000, 1000)).exp();
                    }
                }
            }
            let of = format!("{low} {middle} {high} {near}");
            assert!(want < order && want > order / 100.0, "{of}: {want:e}");
            let got = tail(&[low, middle, high], 1000, 1000, near).unwrap();
            assert_close(got.at_most, want, 1e-9, &of);
        };
        check([611, 702, 687], 990_000, 0.5);
        check([611, 702, 687], 900_000, 1e-4);
        check([611, 702, 687], 600_000, 1e-62);
        check([40, 1910, 50], 990_000, 0.5);
        check([40, 1910, 50], 970_000, 1e-2);
    }
}
