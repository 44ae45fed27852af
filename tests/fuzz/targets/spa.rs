//! The plaintext of `spa`, sealed by a client with the right keys: what is taken is what `seal` would write again.
#![no_main]

use knockd_rs::fuzzing::spa_plaintext;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plain: &[u8]| spa_plaintext(plain));
