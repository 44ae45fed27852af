//! The C interface, `capi/knockd_rs.h`: pointers become values here, `calls` does the rest and has no `unsafe` in it.
//!
//! A pointer that may be null and is used for one value is an `Option` of a reference or of a box, which has the same form
//! in C. No panic leaves: it would be an answer, [`Outcome::Bug`].
#![allow(
    unsafe_code,
    reason = "raw pointers from C, and names that no other crate has: all begin with knockd_rs_"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use calls::Failure;

pub mod abi;
mod calls;

use abi::{Options, Outcome};

/// A server: `knockd_rs_server`.
#[derive(Debug)]
pub struct Handle(crate::client::Server);

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn knockd_rs_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Reads what is known of a server.
///
/// # Safety
/// As the header says: texts end with a zero byte, `out` has room for a pointer, `error` for `error_len` bytes; any of them
/// may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_open(
    config_dir: *const c_char,
    state_dir: *const c_char,
    server: *const c_char,
    out: Option<&mut MaybeUninit<*mut Handle>>,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or a text, says the caller.
    let config_dir = unsafe { text(config_dir) };
    // SAFETY: likewise.
    let state_dir = unsafe { text(state_dir) };
    // SAFETY: likewise.
    let server = unsafe { text(server) };
    reason.of(|| hand_out(out, || calls::open(config_dir, state_dir, server)))
}

/// Takes a server from the text of a bundle.
///
/// # Safety
/// As [`knockd_rs_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_open_bundle(
    state_dir: *const c_char,
    bundle: *const c_char,
    out: Option<&mut MaybeUninit<*mut Handle>>,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or a text, says the caller.
    let state_dir = unsafe { text(state_dir) };
    // SAFETY: likewise.
    let bundle = unsafe { text(bundle) };
    reason.of(|| hand_out(out, || calls::open_bundle(state_dir, bundle)))
}

/// Connects to a TCP port.
///
/// # Safety
/// As [`knockd_rs_open`]; `server` is one that it handed out and that was not freed, `options` begins with its own size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_connect(
    server: Option<&Handle>,
    port: u16,
    options: *const Options,
    fd: Option<&mut MaybeUninit<c_int>>,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or as long as it says, says the caller.
    let options = unsafe { known(options) };
    reason.of(|| descriptor(fd, || calls::connect(server, port, options?)))
}

/// Opens a UDP port.
///
/// # Safety
/// As [`knockd_rs_connect`]; `probe` is null or has `probe_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_connect_udp(
    server: Option<&Handle>,
    port: u16,
    probe: *const c_void,
    probe_len: usize,
    options: *const Options,
    fd: Option<&mut MaybeUninit<c_int>>,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or so many bytes, says the caller.
    let probe = unsafe { bytes(probe, probe_len) };
    // SAFETY: null or as long as it says, says the caller.
    let options = unsafe { known(options) };
    reason.of(|| descriptor(fd, || calls::connect_udp(server, port, probe, options?)))
}

/// Knocks, without looking for an effect.
///
/// # Safety
/// As [`knockd_rs_connect`]; `ports` is null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_knock(
    server: Option<&Handle>,
    ports: *const c_char,
    options: *const Options,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or a text, says the caller.
    let ports = unsafe { text(ports) };
    // SAFETY: null or as long as it says, says the caller.
    let options = unsafe { known(options) };
    reason.of(|| calls::knock(server, ports, options?))
}

/// Ends this client's grants.
///
/// # Safety
/// As [`knockd_rs_knock`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn knockd_rs_close_grants(
    server: Option<&Handle>,
    ports: *const c_char,
    options: *const Options,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    // SAFETY: null or room for so many bytes, says the caller.
    let reason = unsafe { Reason::new(error, error_len) };
    // SAFETY: null or a text, says the caller.
    let ports = unsafe { text(ports) };
    // SAFETY: null or as long as it says, says the caller.
    let options = unsafe { known(options) };
    reason.of(|| calls::close(server, ports, options?))
}

/// Forgets a server: null, or one that [`knockd_rs_open`] handed out, for the last time.
#[unsafe(no_mangle)]
pub extern "C" fn knockd_rs_free(server: Option<Box<Handle>>) {
    // A panic on the way would leave memory behind, which is better than ending the program.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(server)));
}

/// Where the reason of a failure goes.
struct Reason {
    at: *mut c_char,
    room: usize,
}

impl Reason {
    /// # Safety
    /// `at` is null, or `room` bytes there may be written for as long as this lives.
    unsafe fn new(at: *mut c_char, room: usize) -> Self {
        Self { at, room: if at.is_null() { 0 } else { room } }
    }

    /// Does it, and tells the caller what came of it.
    fn of(self, call: impl FnOnce() -> Result<(), Failure>) -> c_int {
        let panicked = |_| Err(Failure::bug());
        match catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked) {
            Ok(()) => {
                self.write("");
                Outcome::Done.code()
            }
            Err(Failure { outcome, reason }) => {
                self.write(&reason);
                outcome.code()
            }
        }
    }

    /// Writes as many whole characters as there is room for, and a zero byte.
    fn write(self, reason: &str) {
        let Some(most) = self.room.checked_sub(1) else { return };
        let length =
            (0..=most.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        // A zero byte in the middle would end it there.
        let mut bytes: Vec<u8> = reason.bytes().take(length).map(|byte| byte.max(1)).collect();
        bytes.push(0);
        // SAFETY: there is room for `room` bytes, promised to `new`, and these are no more; a fresh `Vec` does not overlap
        // them.
        unsafe { self.at.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// A text of the caller's.
///
/// # Safety
/// It is null, or ends with a zero byte and stays as it is for `'a`, which is the call.
unsafe fn text<'a>(at: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null here, and the rest is what our caller promises.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) })
}

/// A datagram of the caller's.
///
/// # Safety
/// It is null, or `length` bytes may be read there and stay as they are for `'a`, which is the call.
unsafe fn bytes<'a>(at: *const c_void, length: usize) -> Option<&'a [u8]> {
    if at.is_null() {
        return None;
    }
    // SAFETY: not null here, and the rest is what our caller promises.
    Some(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) })
}

/// The options that both sides know. A caller of another version may know fewer, which are left to us then, or more, which
/// it has to leave to us.
///
/// # Safety
/// It is null, or begins with a size and may be read for as many bytes.
unsafe fn known(at: *const Options) -> Result<Options, Failure> {
    if at.is_null() {
        return Ok(Options::default());
    }
    // SAFETY: not null, and it begins with a size, says our caller.
    let size = unsafe { at.cast::<usize>().read() };
    if !(size_of::<usize>()..=MOST).contains(&size) {
        return Err(Failure::invalid("the options have no size; begin with KNOCKD_RS_OPTIONS_INIT"));
    }
    let mut options = Options::default();
    let both = size.min(size_of::<Options>());
    // SAFETY: `both` bytes may be read, since the size says so, and written, since that is the size of `Options`, in which
    // any bytes are a value.
    unsafe { (&raw mut options).cast::<u8>().copy_from_nonoverlapping(at.cast(), both) };
    // SAFETY: what follows up to `size` may be read, too, says our caller.
    let newer = unsafe { std::slice::from_raw_parts(at.cast::<u8>().wrapping_add(both), size - both) };
    if newer.iter().any(|byte| *byte != 0) {
        return Err(Failure::invalid("the options have more in them than this version of the library knows"));
    }
    Ok(options)
}

/// No version of the options will be longer: a larger size was never set.
const MOST: usize = 4096;

fn hand_out(
    out: Option<&mut MaybeUninit<*mut Handle>>,
    open: impl FnOnce() -> Result<crate::client::Server, Failure>,
) -> Result<(), Failure> {
    let out = out.ok_or_else(|| Failure::null("out"))?;
    out.write(Box::into_raw(Box::new(Handle(open()?))));
    Ok(())
}

fn descriptor(
    fd: Option<&mut MaybeUninit<c_int>>,
    connect: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<(), Failure> {
    let fd = fd.ok_or_else(|| Failure::null("fd"))?;
    fd.write(connect()?.into_raw_fd());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer_and_does_not_leave() {
        let mut error = [b'#'; 64];
        // SAFETY: the array has so many bytes and outlives the call.
        let reason = unsafe { Reason::new(error.as_mut_ptr().cast(), error.len()) };
        assert_eq!(reason.of(|| Option::<()>::None.map(Ok).unwrap()), Outcome::Bug.code());
        assert_eq!(
            CStr::from_bytes_until_nul(&error).unwrap().to_str(),
            Ok("a mistake in knockd-rs ended this call; please report it")
        );
    }

    #[test]
    fn a_reason_has_an_end_and_whole_characters_however_little_room_there_is() {
        for (room, expected) in
            [(0, ""), (1, "\0"), (2, "\0"), (3, "\u{fc}\0"), (4, "\u{fc}b\0"), (9, "\u{fc}b\0")]
        {
            let mut bytes = vec![b'#'; room];
            // SAFETY: there are so many bytes.
            unsafe { Reason::new(bytes.as_mut_ptr().cast(), room) }.write("\u{fc}b");
            assert_eq!(bytes.get(..expected.len()), Some(expected.as_bytes()), "{room}");
            assert!(bytes.iter().skip(expected.len()).all(|byte| *byte == b'#'), "{room}");
        }
    }

    #[test]
    fn options_of_other_versions_are_read_as_far_as_both_sides_know_them() {
        let ours = size_of::<Options>();
        let read = |size: usize, rest: u64| {
            let mut words = vec![rest; size.div_ceil(8).max(1)];
            words[0] = size as u64;
            // SAFETY: as long as it says, and for a size that is wrong nothing but that is read.
            unsafe { known(words.as_ptr().cast()) }.map_err(|failure| failure.reason)
        };
        let short = read(16, u64::MAX).unwrap();
        assert_eq!((short.methods, short.timeout_ms, short.knocks), (u32::MAX, u32::MAX, 0));
        assert_eq!(read(ours, 0), Ok(Options { size: ours, ..Options::default() }));
        assert_eq!(read(ours + 24, 0).map(|options| options.methods), Ok(0));
        assert!(read(ours + 24, 1).unwrap_err().contains("more in them"));
        for wrong in [0, 7, MOST + 8, usize::MAX / 2 + 1] {
            let words = [wrong as u64];
            // SAFETY: a size alone, which is refused.
            assert!(unsafe { known(words.as_ptr().cast()) }.is_err());
        }
        // SAFETY: null is allowed.
        let none = unsafe { known(std::ptr::null()) };
        assert_eq!(none.map_err(|failure| failure.reason), Ok(Options::default()));
    }
}
