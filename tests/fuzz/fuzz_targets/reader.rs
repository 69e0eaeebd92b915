//! Any input: its format is told by its beginning.

#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|text: &[u8]| common::read(None, text));
