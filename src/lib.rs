//! # counterpoise: how the house is built
//!
//! `poise` measures what programs cost on Linux and says how far to trust every number. This page
//! is for whoever carries the work on; the README is for users.
pub mod perf;
pub mod run;
pub mod sample;
pub mod sys;
pub mod unit;
