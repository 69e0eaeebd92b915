//! The built-in loops of `poise bench`: what is run inside the measured process. Never counts, never computes a figure from what it ran.
//!
//! A loop is chosen with [`parse`], made ready with [`LoopSpec::prepare`] and run with
//! [`Prepared::run`], which is what the counters are read around. Everything that is not the
//! operation itself is done when it is made ready, and errors are checked at every operation.
//!
//! Loops are named as Go names benchmarks: `open-close` gives `OpenClose`, and parameters follow as
//! `/key=value`. A parameter that says how much work an operation is always stands in the name
//! (`Write/size=512`), the others only when they differ from their default
//! (`Write/size=512/to=pipe`).

mod spec;
mod sweep;
mod work;

pub use spec::{LoopError, LoopInfo, LoopSpec, Parameter, Values, catalog, parse};
pub use sweep::Point;
pub use work::Prepared;
