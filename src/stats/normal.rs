//! The normal distribution, for bounds in time and forecasts; the tests themselves are exact. Never estimates anything.

use std::f64::consts::FRAC_1_SQRT_2;

/// The probability of a standard normal figure of at most `z`.
pub(super) fn cumulative(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// The z below which a standard normal figure lies with probability `p`, by bisection.
pub(super) fn quantile(p: f64) -> f64 {
    // Beyond 38.5 the tail is no double.
    let (mut low, mut high) = (-39.0, 39.0);
    // The interval halves down to neighbouring doubles.
    for _ in 0..100 {
        let mid: f64 = f64::midpoint(low, high);
        if cumulative(mid) < p {
            low = mid;
        } else {
            high = mid;
        }
    }
    high
}

/// The z that a two-sided test at `level` asks for: 1.96 at 0.05.
pub(super) fn two_sided(level: f64) -> f64 {
    -quantile(level / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::reference::assert_close;
    use super::*;

    #[test]
    fn quantiles_invert_the_distribution() {
        for z in [-30.0, -8.0, -1.959963984540054, -0.5, 1.0, 3.0] {
            assert_close(quantile(cumulative(z)), z, 1e-12, &format!("{z}"));
        }
        // Digits of qnorm(0.975) and of pnorm(-10) in R.
        assert_close(two_sided(0.05), 1.959963984540054, 1e-14, "z");
        assert_close(cumulative(-10.0), 7.619853024160526e-24, 1e-13, "tail");
        assert!(quantile(0.5).abs() < 1e-15);
    }
}
