//! The program as its users meet it: the real binary, its options, its bad cases, and what it counts on the real kernel.

mod ab;
mod attach;
mod bench;
mod bisect;
mod build;
mod common;
mod compare;
mod compile;
mod ends;
mod escape;
mod exactness;
mod faults;
mod hold;
mod identical;
mod inheritance;
mod listing;
mod permission;
mod privilege;
mod raw;
mod records;
mod stat;
mod surroundings;
mod sweep;
mod syscalls;
mod terminal;
mod usage;
