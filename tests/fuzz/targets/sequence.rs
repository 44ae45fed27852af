//! A payload of `sequence`, and lanes as they may arrive: what is read is what would be written again.
#![no_main]

use knockd_rs::fuzzing::sequence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sequence(bytes));
