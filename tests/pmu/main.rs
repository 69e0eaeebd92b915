//! Counting on a real PMU, by exact numbers where they are exact. `tests/vm/test.sh` runs this in a virtual machine whose PMU counts without error; elsewhere what cannot run says why.

mod bed;
mod command;
mod faulting;
mod frequency;
mod itself;
mod permission;
mod sampling;
mod tracing;
