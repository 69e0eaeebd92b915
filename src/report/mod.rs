//! What is said of records: summaries and their text. Never measures, never prints: it gives strings to the door.

pub mod comparison;
pub mod escape;
pub mod faults;
pub mod identical;
pub mod latency;
pub mod perf_stat;
pub mod summary;
pub mod sweep;
pub mod syscalls;
pub mod tables;
pub mod text;
