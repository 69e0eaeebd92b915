//! The kernel's doors: thin, safe wrappers round system calls and machine instructions. The only hand-written `unsafe` of the crate; decides nothing and knows no word of the floors above.
#![allow(unsafe_code)]

pub mod perf_event;
pub mod child;
pub mod signal;
pub mod page;
pub mod descriptor;
