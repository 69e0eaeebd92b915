//! The program as its users meet it: the real binary, its options, its bad cases, and what it counts on the real kernel.

mod ab;
mod attach;
mod bench;
mod bisect;
mod build;
mod common;
mod compare;
mod ends;
mod exactness;
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
mod terminal;
mod usage;
