//! Work: what is run to be measured, and in which order. Never interprets a figure, never prints.

pub mod loops;
