//! # counterpoise: how the house is built
//!
//! `poise` measures what programs cost on Linux and says how far to trust every number. This page
//! is for whoever carries the work on; the README is for users.

pub mod cli;
pub mod doctor;
pub mod format;
pub mod machine;
pub mod perf;
pub mod report;
pub mod run;
pub mod sample;
pub mod stats;
pub mod sys;
pub mod unit;
