//! What a client keeps: counters and networks.
#![no_main]

use knockd_rs::fuzzing::memory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| memory(input));
