//! The distribution of a rank sum from its generating function, for many ranks, where counting takes too long: exact to rounding (relative 1e-12), not an approximation. Never for ranks with ties.

use std::f64::consts::PI;

use num_complex::Complex64;

use super::normal;

/// The saddle from which on a tail is far out: at half a turn, the generating function rises again
/// to some exp(−1.2/saddle) of what it is at its peak.
const FAR_OUT: f64 = 1.0 / 32.0;

/// A distribution over 0, 1, … that is symmetric and whose generating function is, but for a
/// constant, a product of factors (1 − qᵃ)/(1 − qᵇ).
///
/// On a circle |q| < 1 through the saddle point near the wanted sum, a discrete Fourier transform
/// gives probabilities with a small relative error however far out they lie; and it needs only
/// the few frequencies at which the function has not vanished yet.
pub(super) struct RankSum {
    factors: Vec<(f64, f64)>,
    mean: f64,
}

/// The probability of a sum of at most something, and of just that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) at_most: f64,
    pub(super) at: f64,
}

/// 1 − qᵏ on the circle: what does not depend on the angle.
struct Circle {
    k: f64,
    /// |q|ᵏ.
    radius: f64,
    /// 1 − |q|ᵏ, without the loss that subtracting would bring.
    rest: f64,
}

impl RankSum {
    /// Mann and Whitney's U of `m` and `n` figures: ∏ (1 − qⁿ⁺ʲ)/(1 − qʲ) over j = 1 … m.
    ///
    /// `None` when the groups are too small: of large ones the function vanishes, to e⁻³⁹ and
    /// less, before it first rises again.
    pub(super) fn of_groups(m: usize, n: usize) -> Option<RankSum> {
        let (m, n) = (m.min(n), m.max(n));
        let factor = |j: usize| ((n + j) as f64, j as f64);
        (m * n >= 24 * (m + n)).then(|| RankSum::of((1..=m).map(factor).collect()))
    }

    /// Wilcoxon's sum of `n` signed ranks: ∏ (1 + qᵏ) over k = 1 … n. `None` when they are too
    /// few, as for [`RankSum::of_groups`].
    pub(super) fn of_signed(n: usize) -> Option<RankSum> {
        let factor = |k: usize| (2.0 * k as f64, k as f64);
        (n >= 120).then(|| RankSum::of((1..=n).map(factor).collect()))
    }

    fn of(factors: Vec<(f64, f64)>) -> RankSum {
        let degree: f64 = factors.iter().map(|(a, b)| a - b).sum();
        RankSum {
            factors,
            mean: degree / 2.0,
        }
    }

    fn deviation(&self) -> f64 {
        let variance: f64 = self.factors.iter().map(|(a, b)| a * a - b * b).sum();
        (variance / 12.0).sqrt()
    }

    /// The tail up to `sum`, which lies in the lower half.
    pub(super) fn tail(&self, sum: usize) -> Tail {
        let sum = sum as f64;
        let target = (sum + 0.5).min(self.mean - 2.0 * self.deviation());
        let saddle = self.saddle(target);
        let circle = |k: f64| Circle {
            k,
            radius: (saddle * k).exp(),
            rest: -(saddle * k).exp_m1(),
        };
        let circles: Vec<(Circle, Circle)> = self
            .factors
            .iter()
            .map(|&(a, b)| (circle(a), circle(b)))
            .collect();
        let spread: f64 = circles.iter().map(|(a, b)| b.spread() - a.spread()).sum();
        let deviation = spread.max(0.0).sqrt();
        // What lies a period further adds to the sum: 17 standard deviations away, and e⁻³⁷.
        // It is odd, so that all frequencies but 0 come with their opposites.
        let period = 2.0 * (8.5 * deviation).max(-18.5 / saddle).ceil() + 41.0;
        let most = (period - 1.0) as usize / 2;
        let (mut at_most, mut at) = (0.0, 0.0);
        for frequency in 0..=most {
            let angle = 2.0 * PI * frequency as f64 / period;
            let value = circles.iter().fold(Complex64::ONE, |product, (a, b)| {
                product * a.turned(angle) / b.turned(angle)
            });
            // Far out, where the transform is short, the function does rise again.
            if value.norm() < 1e-17 && saddle > -FAR_OUT {
                break;
            }
            let term = value * Complex64::cis(-angle * sum);
            let weight = if frequency == 0 { 1.0 } else { 2.0 };
            let one = circle(1.0);
            at += weight * term.re;
            at_most += weight * (term / (one.turned(angle) * one.rest)).re;
        }
        let logarithm = |(a, b): &(Circle, Circle)| (a.rest / a.k * b.k / b.rest).ln();
        let height = circles.iter().map(logarithm).sum::<f64>() - saddle * sum;
        let scale = height.exp() / period;
        Tail {
            at_most: at_most * scale,
            at: at * scale,
        }
    }

    /// The largest sum whose doubled tail is at most `alpha`, and that p; the sum 0 must be
    /// significant. From the normal guess by Newton's method.
    pub(super) fn critical(&self, alpha: f64) -> (usize, f64) {
        let middle = self.mean.floor();
        let guess = self.mean - normal::two_sided(alpha) * self.deviation();
        let mut sum = guess.floor().clamp(0.0, middle);
        loop {
            let Tail { at_most, at } = self.tail(sum as usize);
            let excess = 2.0 * at_most - alpha;
            if excess <= 0.0 {
                if sum >= middle {
                    return (sum as usize, 2.0 * at_most);
                }
                // Newton's step, rounded up to the first sum that is too large.
                sum = (sum + (-excess / (2.0 * at)).ceil().max(1.0)).min(middle);
            } else if sum < 1.0 || excess <= 2.0 * at {
                return ((sum - 1.0).max(0.0) as usize, 2.0 * (at_most - at));
            } else {
                sum = (sum - (excess / (2.0 * at)).floor().max(1.0)).max(0.0);
            }
        }
    }

    /// The logarithm of the radius on which the distribution is centred at `target`, or near that.
    fn saddle(&self, target: f64) -> f64 {
        let centre = |saddle: f64| -> f64 {
            let mean = |k: f64| k / (-saddle * k).exp_m1();
            self.factors.iter().map(|&(a, b)| mean(b) - mean(a)).sum()
        };
        let (mut low, mut high) = (-50.0_f64, -1e-12);
        for _ in 0..16 {
            // By ratio: it may be of any order.
            let mid = -(low * high).sqrt();
            if centre(mid) < target {
                low = mid;
            } else {
                high = mid;
            }
        }
        low
    }
}

impl Tail {
    /// That of a distribution which is known up to the sum.
    pub(super) fn ending(null: &[f64]) -> Tail {
        Tail {
            at_most: null.iter().sum(),
            at: null.last().copied().unwrap_or(0.0),
        }
    }
}

impl Circle {
    /// What 1/(1 − qᵏ) adds to the variance.
    fn spread(&self) -> f64 {
        (self.k / self.rest).powi(2) * self.radius
    }

    /// The factor at `angle`, relative to that at angle 0.
    fn turned(&self, angle: f64) -> Complex64 {
        let (sin, cos) = (self.k * angle / 2.0).sin_cos();
        let drop = 2.0 * self.radius / self.rest * sin;
        Complex64::new(1.0 + drop * sin, -drop * cos)
    }
}
