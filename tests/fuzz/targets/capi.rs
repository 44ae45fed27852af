//! The C interface as a program in C may call it: bundles, words for ports, options of other versions, and room for the
//! reason. No call goes so far that a packet is sent. With `run --asan` every byte beside a buffer is watched.
#![no_main]

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::ptr::null;

use knockd_rs::capi::abi::Options;
use knockd_rs::capi::{
    Handle, knockd_rs_close_grants, knockd_rs_connect, knockd_rs_free, knockd_rs_knock, knockd_rs_open_bundle,
};
use libfuzzer_sys::fuzz_target;

const BUNDLE: &str = include_str!("../corpus/bundle/knock");

/// A buffer for a reason, of exactly so many bytes.
struct Reason(Vec<c_char>);

impl Reason {
    fn new(room: u8) -> Self {
        Self(vec![0x55; room.into()])
    }

    fn check(&self, outcome: i32) {
        assert!((0..=5).contains(&outcome) && outcome != 5, "outcome {outcome}");
        let Some(end) = self.0.iter().position(|byte| *byte == 0) else {
            assert!(self.0.is_empty(), "no end");
            return;
        };
        let bytes: Vec<u8> = self.0.iter().take(end).map(|byte| byte.cast_unsigned()).collect();
        assert!(std::str::from_utf8(&bytes).is_ok(), "half a character");
        assert!(outcome != 0 || end == 0, "a reason for success");
    }
}

fn opened(bundle: &CStr, room: u8) -> Option<Box<Handle>> {
    let (mut out, mut reason) = (MaybeUninit::uninit(), Reason::new(room));
    // SAFETY: texts with an end, a place for the handle, and as much room as is said.
    let outcome = unsafe {
        knockd_rs_open_bundle(
            c"/nonexistent".as_ptr(),
            bundle.as_ptr(),
            Some(&mut out),
            reason.0.as_mut_ptr(),
            reason.0.len(),
        )
    };
    reason.check(outcome);
    // SAFETY: done means that it was written.
    (outcome == 0).then(|| unsafe { Box::from_raw(out.assume_init()) })
}

/// Options as another version may know them: any length, which they say themselves, and methods that nobody knows, with
/// which nothing is sent.
fn options(bytes: &[u8]) -> Vec<u64> {
    let mut words: Vec<u64> =
        bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_ne_bytes).collect();
    let size = 8 * (words.len() as u64 + 1) - bytes.first().map_or(0, |byte| u64::from(byte & 7));
    words.insert(0, size);
    if let Some(methods) = words.get_mut(1) {
        *methods |= 0x8000_0000;
    }
    words
}

fuzz_target!(|input: &[u8]| {
    let Some((&[room, length], rest)) = input.split_first_chunk() else { return };
    let (options_bytes, text) = rest.split_at(rest.len().min(length.into()));
    let Ok(text) = CString::new(text) else { return };
    if let Some(handle) = opened(&text, room) {
        knockd_rs_free(Some(handle));
    }
    let bundle = CString::new(BUNDLE).expect("no zero byte");
    let handle = opened(&bundle, room).expect("a good bundle");
    let options = options(options_bytes);
    // Without the word for methods nothing would stop a knock.
    let options: *const Options =
        if options.len() > 1 && options[0] >= 12 { options.as_ptr().cast() } else { null() };
    let mut reason = Reason::new(room);
    let (at, room) = (reason.0.as_mut_ptr(), reason.0.len());
    let mut outcomes = Vec::new();
    if !options.is_null() {
        // SAFETY: a text with an end, options that say how long they are, and as much room as is said.
        outcomes.push(unsafe { knockd_rs_knock(Some(&handle), text.as_ptr(), options, at, room) });
        // SAFETY: likewise.
        outcomes.push(unsafe { knockd_rs_close_grants(Some(&handle), text.as_ptr(), options, at, room) });
    }
    let mut fd = MaybeUninit::uninit();
    // SAFETY: likewise; port 0 is refused.
    outcomes.push(unsafe { knockd_rs_connect(Some(&handle), 0, options, Some(&mut fd), at, room) });
    // SAFETY: likewise; no server is no server.
    outcomes.push(unsafe { knockd_rs_knock(None, text.as_ptr(), null(), at, room) });
    assert!(outcomes.iter().all(|outcome| *outcome == 1), "{outcomes:?}");
    reason.check(1);
    knockd_rs_free(Some(handle));
});
