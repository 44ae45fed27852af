//! A profile in TOML and in JSON: never a panic, and every error is one line that names the file.
#![no_main]

use knockd_rs::fuzzing::profile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for json in [false, true] {
        for error in profile(text, json).unwrap_or_default() {
            assert!(error.starts_with("profiles.d/fuzz.toml") && !error.contains('\n'), "{error:?}");
        }
    }
});
