//! The machine that measurements are made on: what it is, how busy it was, and how it is held still. Never opens a perf event.

pub mod facts;
pub mod hold;

mod busy;
mod choice;

#[cfg(test)]
pub(crate) mod fake;

pub use busy::Busy;
pub use choice::{Choice, choose};
pub use facts::{Facts, Roots};
