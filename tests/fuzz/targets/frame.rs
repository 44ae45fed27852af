//! A captured frame of any link type: never a panic, and a payload that is a part of the frame.
#![no_main]

use knockd_rs::frame::{Link, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, frame)) = input.split_first() else { return };
    let link = Link::ALL[usize::from(*kind) % Link::ALL.len()];
    if let Ok(segment) = parse(link, frame, frame.len()) {
        assert!(!segment.source.is_unspecified() && !segment.source.is_multicast());
        if let Some(payload) = segment.datagram() {
            assert!(frame.len() >= payload.len() + 28);
            let (start, end) = (frame.as_ptr_range().start, frame.as_ptr_range().end);
            let range = payload.as_ptr_range();
            assert!(payload.is_empty() || (start <= range.start && range.end <= end));
        }
    }
    assert!(parse(link, frame, frame.len() + 1).is_err(), "a frame that was cut short");
});
