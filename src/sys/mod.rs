//! The kernel's doors: thin, safe wrappers round system calls and machine instructions. The only hand-written `unsafe` of the crate; decides nothing and knows no word of the floors above.
#![allow(unsafe_code)]

pub mod bpf;
pub mod child;
pub mod clock;
pub mod descriptor;
pub mod echo;
pub mod fork;
pub mod futex;
pub mod memory;
pub mod page;
pub mod perf_event;
pub mod privilege;
pub mod ptrace;
pub mod ring;
pub mod shared;
pub mod signal;
pub mod spin;
