//! The daemon's settings, and a profile beside them: never a panic, and every error names its file.
#![no_main]

use knockd_rs::fuzzing::settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for error in settings(text).unwrap_or_default() {
        assert!(
            (error.starts_with("knockd-rs.toml") || error.starts_with("profiles.d")) && !error.contains('\n'),
            "{error:?}"
        );
    }
});
