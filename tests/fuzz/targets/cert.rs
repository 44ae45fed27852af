//! What knocks with certificates read: bodies, certificates, revocation lists, key files.
#![no_main]

use knockd_rs::fuzzing::certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| certificate(bytes));
