//! The brief, which the monitor hands to a new worker.
#![no_main]

use knockd_rs::fuzzing::brief;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| brief(input));
