//! What a knock with a certificate shows: its body, certificates, and requests for one.
#![no_main]

use knockd_rs::fuzzing::certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| certificate(bytes));
