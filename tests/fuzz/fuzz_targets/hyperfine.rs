//! Input that is taken for the format, whatever it is.

#![no_main]

mod common;

use counterpoise::format::Source;
libfuzzer_sys::fuzz_target!(|text: &[u8]| common::read(Some(Source::Hyperfine), text));
