//! The daemon's settings: never a panic, and every error names the file.
#![no_main]

use knockd_rs::fuzzing::settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for error in settings(text).unwrap_or_default() {
        assert!(error.starts_with("knockd-rs.toml") && !error.contains('\n'), "{error:?}");
    }
});
