//! Counting with perf events: what can be counted, how it is named, opened and read. Never runs a workload, never scales a count in silence.

pub mod catalog;
pub mod event;
#[cfg(test)]
mod fake;
pub mod grammar;
pub mod listing;
pub mod pmu;
mod symbol;
pub mod tracefs;
