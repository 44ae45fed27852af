//! Configurations of knockd and fwknop: what they come to is bounded, in order, and says nothing to a terminal.
#![no_main]

use knockd_rs::fuzzing::migrate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = migrate(text);
});
