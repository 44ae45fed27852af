//! Replay marks on disk, journal and snapshot: never a panic, never more marks than bytes.
#![no_main]

use knockd_rs::fuzzing::marks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (journal, snapshot) = marks(bytes);
    assert!(journal.is_none_or(|count| count <= bytes.len() / 72), "a record has 72 bytes");
    assert!(snapshot.is_none_or(|count| count <= bytes.len() / 40), "a record has 40 bytes");
});
