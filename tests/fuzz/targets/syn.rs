//! A packet of which a knock by SYN is made.
#![no_main]

use knockd_rs::fuzzing::syn;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| syn(input));
