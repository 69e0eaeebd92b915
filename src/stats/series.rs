//! A series in time order: does it drift, does a figure depend on the one before, which figures lie far off. Marks and says; never drops a figure, never decides.

use super::order::{doubled_midranks, median};
use super::{normal, regression};

/// The most figures that a drift is fitted to; longer series are condensed first.
const MOST_FITTED: usize = 500;

/// The most figures whose orders are counted exactly; for more (and for ties) they are normal.
const MOST_COUNTED: usize = 60;

/// The modified z-score from which on a figure is an outlier (Iglewicz and Hoaglin 1993).
const OUTLYING: f64 = 3.5;

/// A steady change over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// The change in a unit of time, in the unit of the figures: the median of the slopes of all
    /// pairs (Theil 1950, Sen 1968).
    pub slope: f64,
    /// The probability of so strong a trend, either way, when there is none: Kendall's test.
    pub p: f64,
}

/// How far a figure depends on the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Autocorrelation {
    /// The coefficient of neighbours, −1 … 1, by their ranks.
    pub lag1: f64,
    /// The probability of so strong a dependence, either way, when there is none: the rank
    /// version of von Neumann's ratio (Bartels 1982), normal.
    pub p: f64,
}

/// The drift of `figures` over `times`, which need not be evenly spaced.
///
/// `None` when the lengths differ, with fewer than 3 figures, and when all times are the same.
/// Series of more than 500 are first condensed to the medians of stretches of equal length.
pub fn drift(times: &[f64], figures: &[f64]) -> Option<Drift> {
    let finite = |all: &[f64]| all.iter().all(|x| x.is_finite());
    if times.len() != figures.len() || figures.len() < 3 || !finite(times) || !finite(figures) {
        return None;
    }
    let stretch = figures.len().div_ceil(MOST_FITTED);
    let condense = |all: &[f64]| -> Option<Vec<f64>> { all.chunks(stretch).map(median).collect() };
    let (times, figures) = (condense(times)?, condense(figures)?);
    let n = figures.len();
    let slopes = regression::slopes(&times, &figures);
    let up = slopes.iter().filter(|&&slope| slope > 0.0).count();
    let down = slopes.iter().filter(|&&slope| slope < 0.0).count();
    let untied = up + down == n * (n - 1) / 2;
    let p = if untied && n <= MOST_COUNTED {
        let null = inversions(n);
        (2.0 * null[..=up.min(down)].iter().sum::<f64>()).min(1.0)
    } else {
        // The variance of Kendall's S with ties on both sides; 1 for continuity.
        let (a, b) = (Ties::of(&times), Ties::of(&figures));
        let m = n as f64;
        let variance = (m * (m - 1.0) * (2.0 * m + 5.0) - a.fives - b.fives) / 18.0
            + a.threes * b.threes / (9.0 * m * (m - 1.0) * (m - 2.0))
            + a.pairs * b.pairs / (2.0 * m * (m - 1.0));
        let s = (up.abs_diff(down) as f64 - 1.0).max(0.0);
        if variance > 0.0 {
            2.0 * normal::cumulative(-s / variance.sqrt())
        } else {
            1.0
        }
    };
    let slope = median(&slopes)?;
    Some(Drift { slope, p })
}

/// The dependence of neighbours in `figures`, which stand in time order.
///
/// `None` with fewer than 4 figures and when all are the same.
pub fn autocorrelation(figures: &[f64]) -> Option<Autocorrelation> {
    if figures.len() < 4 || !figures.iter().all(|x| x.is_finite()) {
        return None;
    }
    let n = figures.len() as f64;
    let ranks = doubled_midranks(figures);
    let off: Vec<f64> = ranks
        .iter()
        .map(|&r| r as f64 / 2.0 - (n + 1.0) / 2.0)
        .collect();
    let squares: f64 = off.iter().map(|x| x * x).sum();
    if squares == 0.0 {
        return None;
    }
    let lag1: f64 = off.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let steps: f64 = off.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    let variance = 4.0 * (n - 2.0) * (5.0 * n * n - 2.0 * n - 9.0)
        / (5.0 * n * (n + 1.0) * (n - 1.0) * (n - 1.0));
    let z = (steps / squares - 2.0) / variance.sqrt();
    Some(Autocorrelation {
        lag1: lag1 / squares,
        p: 2.0 * normal::cumulative(-z.abs()),
    })
}

/// The places in `figures` of those that lie far from the others: more than 3.5 times
/// 1.4826·MAD from the median, with MAD the median distance from it; when that is 0, as more than
/// half are the same, 3.5 times 1.2533 times the mean distance (Iglewicz and Hoaglin 1993).
///
/// They are to be marked and kept: cutting them brings an interval that should hold in 95 % to
/// some 60 %.
pub fn outliers(figures: &[f64]) -> Vec<usize> {
    let Some(centre) = median(figures) else {
        return Vec::new();
    };
    let distances: Vec<f64> = figures.iter().map(|x| (x - centre).abs()).collect();
    let spread = match median(&distances) {
        Some(mad) if mad > 0.0 => 1.4826 * mad,
        _ => 1.2533 * distances.iter().sum::<f64>() / distances.len() as f64,
    };
    let far = |&at: &usize| distances[at] > OUTLYING * spread;
    (0..figures.len()).filter(far).collect()
}

/// The probabilities of 0, 1, … inversions in a random order of `n` things (Kendall 1938).
fn inversions(n: usize) -> Vec<f64> {
    let mut null = vec![1.0];
    for k in 2..=n {
        // The k-th thing goes before 0 … k − 1 others.
        let mut next = vec![0.0; null.len() + k - 1];
        for (at, probability) in null.iter().enumerate() {
            next[at..at + k]
                .iter_mut()
                .for_each(|to| *to += probability / k as f64);
        }
        null = next;
    }
    null
}

/// What ties take from the variance of Kendall's S: sums over groups of t equal figures.
struct Ties {
    /// t(t − 1)(2t + 5).
    fives: f64,
    /// t(t − 1)(t − 2).
    threes: f64,
    /// t(t − 1).
    pairs: f64,
}

impl Ties {
    fn of(figures: &[f64]) -> Ties {
        let mut ranks = doubled_midranks(figures);
        ranks.sort_unstable();
        let groups = ranks
            .chunk_by(|a, b| a == b)
            .map(|group| group.len() as f64);
        let zero = Ties {
            fives: 0.0,
            threes: 0.0,
            pairs: 0.0,
        };
        groups.fold(zero, |sum, t| Ties {
            fives: sum.fives + t * (t - 1.0) * (2.0 * t + 5.0),
            threes: sum.threes + t * (t - 1.0) * (t - 2.0),
            pairs: sum.pairs + t * (t - 1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::reference::{assert_close, r_rows};
    use super::*;

    #[test]
    fn slope_and_p_are_those_of_r() {
        let rows = r_rows("theilsen");
        let row = |key: &str| rows.iter().find(|row| row.1 == key).unwrap().2.clone();
        let got = drift(&row("x"), &row("y")).unwrap();
        assert_close(got.slope, row("median slope")[0], 1e-12, "slope");
        // R takes it from 1 less the other tail.
        assert_close(got.p, row("kendall p exact")[0], 1e-9, "p");
        assert_close(got.p, 2.0 / 40320.0, 1e-14, "p");
    }

    #[test]
    fn the_ways_to_count_orders_agree() {
        // 40 figures, two neighbours in size the same or not: normal here, exact there.
        let times: Vec<f64> = (0..40).map(f64::from).collect();
        let mut figures: Vec<f64> = (0..40)
            .map(|k| f64::from(k * 17 % 41) + f64::from(k) / 4.1)
            .collect();
        let exact = drift(&times, &figures).unwrap().p;
        let (mut by_size, last) = (figures.clone(), figures[39]);
        by_size.sort_by(f64::total_cmp);
        figures[39] = *by_size.iter().rfind(|&&x| x < last).unwrap();
        let normal = drift(&times, &figures).unwrap().p;
        assert!((exact - normal).abs() < 0.01, "{exact} {normal}");
        assert_close(inversions(9).iter().sum(), 1.0, 1e-14, "sum");
    }

    #[test]
    fn sets_without_a_meaning_say_nothing() {
        assert_eq!(drift(&[1.0, 2.0], &[1.0, 2.0]), None);
        assert_eq!(drift(&[1.0; 5], &[1.0; 5]), None);
        assert_eq!(drift(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 3.0]), None);
        let flat = drift(&[1.0, 2.0, 3.0], &[5.0; 3]).unwrap();
        assert_eq!((flat.slope, flat.p), (0.0, 1.0));
        assert_eq!(autocorrelation(&[1.0; 20]), None);
        assert_eq!(autocorrelation(&[1.0, 2.0, 3.0]), None);
        assert_eq!(outliers(&[]), [] as [usize; 0]);
        assert_eq!(outliers(&[f64::NAN, 1.0]), [] as [usize; 0]);
    }

    #[test]
    fn outliers_are_marked_where_they_stand() {
        let check = |figures: &[f64], want: &[usize]| assert_eq!(outliers(figures), want);
        check(&[10.0, 10.1, 15.0, 9.9, 10.2, 9.8], &[2]);
        check(&[10.0, 10.1, 9.9, 10.2, 9.8], &[]);
        check(&[-90.0, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0], &[0, 6]);
        check(&[7.0; 9], &[]);
        check(&[7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 8.0], &[7]);
    }

    /// `count` figures of which each holds `kept` of the one before.
    fn autoregressive(random: &mut Pcg64Mcg, count: usize, kept: f64) -> Vec<f64> {
        let mut last = 0.0;
        let mut next = |_| {
            last = kept * last + random.random::<f64>() + random.random::<f64>() - 1.0;
            last
        };
        (0..count).map(&mut next).collect()
    }

    #[test]
    fn tests_err_as_often_as_they_say_and_find_what_is_there() {
        let mut random = Pcg64Mcg::seed_from_u64(4);
        let times: Vec<f64> = (0..30).map(f64::from).collect();
        let mut share = |kept: f64, slope: f64| {
            let (mut drifts, mut depends) = (0, 0);
            for _ in 0..400 {
                let mut figures = autoregressive(&mut random, 30, kept);
                figures
                    .iter_mut()
                    .zip(&times)
                    .for_each(|(x, t)| *x += slope * t);
                drifts += u32::from(drift(&times, &figures).unwrap().p < 0.05);
                depends += u32::from(autocorrelation(&figures).unwrap().p < 0.05);
            }
            (f64::from(drifts) / 400.0, f64::from(depends) / 400.0)
        };
        // Three standard errors of 5 % in 400 tries are 3.3 points.
        let (drifts, depends) = share(0.0, 0.0);
        assert!((0.017..0.083).contains(&drifts), "{drifts}");
        assert!((0.017..0.083).contains(&depends), "{depends}");
        assert!(share(0.0, 0.05).0 > 0.9);
        assert!(share(0.7, 0.0).1 > 0.9);
        assert!(share(-0.7, 0.0).1 > 0.9);
    }

    proptest! {
        #[test]
        fn results_follow_shift_scale_and_direction(
            figures in prop::collection::vec(-1000_i32..1000, 4..40),
            shift in -1000_i32..1000,
            power in -3_i32..4,
        ) {
            let scale = 2f64.powi(power);
            let plain: Vec<f64> = figures.iter().map(|&x| f64::from(x)).collect();
            let moved: Vec<f64> = plain.iter().map(|x| x * scale + f64::from(shift)).collect();
            let back: Vec<f64> = plain.iter().rev().copied().collect();
            let times: Vec<f64> = (0..plain.len()).map(|t| t as f64).collect();
            let (a, b) = (drift(&times, &plain).unwrap(), drift(&times, &moved).unwrap());
            let c = drift(&times, &back).unwrap();
            prop_assert_eq!((a.slope * scale, a.p), (b.slope, b.p));
            prop_assert_eq!((-a.slope, a.p), (c.slope, c.p));
            prop_assert_eq!(outliers(&plain), outliers(&moved));
            let (a, b) = (autocorrelation(&plain), autocorrelation(&back));
            prop_assert_eq!(a.is_some(), b.is_some());
            prop_assert_eq!(a, autocorrelation(&moved));
            if let (Some(a), Some(b)) = (a, b) {
                prop_assert!((a.lag1 - b.lag1).abs() < 1e-12 && (a.p - b.p).abs() < 1e-9);
                prop_assert!(a.lag1.abs() <= 1.0 && (0.0..=1.0).contains(&a.p));
            }
        }
    }
}
