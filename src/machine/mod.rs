//! The machine that measurements are made on: what it is, and how busy it was. Never opens a perf event.

pub mod facts;

mod busy;

#[cfg(test)]
pub(crate) mod fake;

pub use busy::Busy;
pub use facts::{Facts, Roots};
