//! Bundles and clients' files: what is read is written back to the same value.
#![no_main]

use knockd_rs::enrol::{Bundle, Enrolment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(bundle) = Bundle::parse("fuzz.knock", text) {
        let json = bundle.to_json().expect("a bundle has a JSON form");
        let again = std::str::from_utf8(&json).expect("JSON is UTF-8");
        assert_eq!(Bundle::parse("fuzz.knock", again), Ok(bundle));
    }
    if let Ok(enrolment) = Enrolment::parse("fuzz.toml", text) {
        assert_eq!(Enrolment::parse("fuzz.toml", &enrolment.to_toml()), Ok(enrolment));
    }
});
