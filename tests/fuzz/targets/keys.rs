//! Private keys: PKCS#8, PKCS#1 and SEC1, encrypted ones, PKCS#12.
#![no_main]

use knockd_rs::fuzzing::keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| keys(input));
