//! What the kernel and other programs say of this machine.
#![no_main]

use knockd_rs::fuzzing::system;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| system(input));
