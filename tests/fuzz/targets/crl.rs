//! Revocation lists, and files of several.
#![no_main]

use knockd_rs::fuzzing::revocations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| revocations(input));
