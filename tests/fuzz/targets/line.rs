//! Bundles as lines: from text, and from bytes with the check sum that they need. What is read is written back to the
//! same line. And lines as they are typed.
#![no_main]

use knockd_rs::enrol::Carried;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    knockd_rs::fuzzing::line(bytes);
    knockd_rs::fuzzing::typed(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(carried) = Carried::from_line(text) {
        assert_eq!(carried.to_line().as_str(), text.to_ascii_lowercase());
    }
});
