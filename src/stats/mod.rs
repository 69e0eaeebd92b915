//! Statistics: what can be said of a set of figures, exactly and without assuming a distribution. Pure functions of `&[f64]`: never knows a format, a kernel or a sample, never drops a figure, never reorders its input.
//!
//! Every function returns `None` for a set that it can say nothing of: an empty one, or one with
//! a figure that is not a finite number. Nothing here panics on figures.
//!
//! Whoever compares two variants needs three of the modules: [`paired::Pairs`] when every run of
//! one stands beside a run of the other, [`comparison`] for groups, for figures that do not vary,
//! for families and verdicts, and [`sequential::Rule`] for the levels. Below them lie the tests
//! ([`signed_rank`], [`mann_whitney`]) and [`order`] statistics; [`series`] looks at one series in
//! time order, [`regression`] at one figure against another, [`step`] for the place of one change
//! in a history.

pub mod comparison;
mod fourier;
pub mod mann_whitney;
mod normal;
mod null;
pub mod order;
pub mod paired;
pub mod regression;
pub mod sequential;
pub mod series;
pub mod signed_rank;
pub mod step;
mod tied;

/// An interval that holds the estimated quantity with a known probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end, in the unit of the figures; it belongs to the interval.
    pub low: f64,
    /// Upper end, likewise.
    pub high: f64,
    /// The probability with which such an interval holds the true quantity: at least the
    /// confidence asked for, mostly a little more, because ranks come in whole steps.
    pub confidence: f64,
}

impl Interval {
    /// Whether `figure` lies in the interval, ends included.
    pub fn contains(&self, figure: f64) -> bool {
        self.low <= figure && figure <= self.high
    }
}

#[cfg(test)]
mod reference {
    //! The reference vectors under `benchdata/`.

    /// The rows of `ref_r.csv` under `test`: case, key, values.
    pub(super) fn r_rows(test: &str) -> Vec<(String, String, Vec<f64>)> {
        let rows = include_str!("../../benchdata/ref_r.csv").lines();
        rows.filter_map(|row| row.strip_prefix(test)?.strip_prefix(','))
            .map(|row| {
                let (case, rest) = row.split_once(',').unwrap();
                let (key, values) = rest.rsplit_once(',').unwrap();
                let values = values.split_whitespace().map(|v| v.parse().unwrap());
                (case.to_owned(), key.to_owned(), values.collect())
            })
            .collect()
    }

    /// Fails unless both are the same to `relative`.
    #[track_caller]
    pub(super) fn assert_close(got: f64, want: f64, relative: f64, of: &str) {
        let error = (got - want).abs();
        assert!(error <= relative * want.abs(), "{of}: {got} is not {want}");
    }
}
