//! One figure as a straight line of another, robustly: no single point can move the slope far. Never assumes a distribution of the noise, never drops a point.

use super::order::median;

/// A straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// How much `y` rises with one of `x`.
    pub slope: f64,
    /// `y` where `x` is 0.
    pub intercept: f64,
}

/// The line whose slope is the median of the slopes of all pairs of points with different `x`
/// (Theil 1950, Sen 1968), and whose intercept is the median of what the slope leaves (SciPy's
/// `theilslopes` with `method="joint"`). It holds with up to 29 % of the points anywhere.
///
/// `None` when the lengths differ, when a figure is not finite, and when all `x` are the same. It
/// looks at all pairs: time and memory are quadratic.
pub fn theil_sen(x: &[f64], y: &[f64]) -> Option<Line> {
    let finite = |all: &[f64]| all.iter().all(|figure| figure.is_finite());
    if x.len() != y.len() || !finite(x) || !finite(y) {
        return None;
    }
    let slope = median(&slopes(x, y))?;
    let left: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - slope * x).collect();
    let intercept = median(&left)?;
    Some(Line { slope, intercept })
}

/// The slopes of all pairs of points with different `x`.
pub(super) fn slopes(x: &[f64], y: &[f64]) -> Vec<f64> {
    let pairs = (0..x.len().min(y.len())).flat_map(|i| (0..i).map(move |j| (i, j)));
    let steps = pairs.map(|(i, j)| (x[i] - x[j], y[i] - y[j]));
    let apart = steps.filter(|(run, _)| *run != 0.0);
    apart.map(|(run, rise)| rise / run).collect()
}

/// Pearson's coefficient of correlation, −1 … 1: at 1 nothing tells apart what `x` and what `y`
/// cause.
///
/// `None` when the lengths differ, when a figure is not finite, and when one of them does not vary.
pub fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() {
        return None;
    }
    let about_mean = |all: &[f64]| -> Vec<f64> {
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter().map(|figure| figure - mean).collect()
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (x, y) = (about_mean(x), about_mean(y));
    let norm = (product(&x, &x) * product(&y, &y)).sqrt();
    let coefficient = product(&x, &y) / norm;
    // 0/0 where one does not vary.
    coefficient
        .is_finite()
        .then(|| coefficient.clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{assert_close, r_rows};
    use super::*;

    #[test]
    fn the_slope_is_that_of_r() {
        let rows = r_rows("theilsen");
        let row = |key| &rows.iter().find(|(_, known, _)| known == key).unwrap().2;
        let line = theil_sen(row("x"), row("y")).unwrap();
        assert_eq!(line.slope, row("median slope")[0]);
    }

    #[test]
    fn correlations_are_those_of_the_textbook() {
        // Anscombe's quartet has r = 0.816 four times; this is the first.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [
            8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68,
        ];
        assert_close(correlation(&x, &y).unwrap(), 0.81642051634484, 1e-13, "r");
        assert_eq!(correlation(&x, &x.map(|x| -2.0 * x)), Some(-1.0));
        assert_eq!(correlation(&x, &[1.0; 11]), None);
        assert_eq!(correlation(&x, &y[1..]), None);
        assert_eq!(correlation(&[], &[]), None);
        assert_eq!(correlation(&[1.0, f64::NAN], &[1.0, 2.0]), None);
    }

    #[test]
    fn sets_without_a_line_say_nothing() {
        assert_eq!(theil_sen(&[], &[]), None);
        assert_eq!(theil_sen(&[1.0], &[1.0]), None);
        assert_eq!(theil_sen(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(theil_sen(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(theil_sen(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
    }

    proptest! {
        #[test]
        fn a_fifth_of_the_points_cannot_move_the_line(
            slope in -100_i32..100,
            intercept in -100_i32..100,
            wild in prop::collection::vec(-1e6_f64..1e6, 2),
        ) {
            let (slope, intercept) = (f64::from(slope), f64::from(intercept));
            let x: Vec<f64> = (0..10).map(f64::from).collect();
            let mut y: Vec<f64> = x.iter().map(|x| slope * x + intercept).collect();
            (y[3], y[7]) = (wild[0], wild[1]);
            prop_assert_eq!(theil_sen(&x, &y), Some(Line { slope, intercept }));
        }

        #[test]
        fn lines_follow_shift_and_scale(
            points in prop::collection::vec((-100_i32..100, -100_i32..100), 2..20),
            shift in -100_i32..100,
            power in -3_i32..4,
        ) {
            let x: Vec<f64> = points.iter().map(|(x, _)| f64::from(*x)).collect();
            let y: Vec<f64> = points.iter().map(|(_, y)| f64::from(*y)).collect();
            let scale = 2f64.powi(power);
            let moved: Vec<f64> = y.iter().map(|y| y * scale + f64::from(shift)).collect();
            let (plain, moved) = (theil_sen(&x, &y), theil_sen(&x, &moved));
            prop_assert_eq!(plain.is_some(), moved.is_some());
            if let (Some(plain), Some(moved)) = (plain, moved) {
                prop_assert_eq!(plain.slope * scale, moved.slope);
                let wanted = plain.intercept * scale + f64::from(shift);
                prop_assert!((moved.intercept - wanted).abs() <= 1e-9 * (1.0 + wanted.abs()));
            }
        }
    }
}
