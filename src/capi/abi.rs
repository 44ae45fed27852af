//! The numbers that both sides of the C interface write down: `knockd_rs.h` has the same, and a test compares them.

use std::ffi::c_int;

/// What a call came to: `enum knockd_rs_result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Outcome {
    /// It was done.
    Done = 0,
    /// An argument that no call can do anything with.
    Invalid = 1,
    /// There is no such server, or its file or bundle is not to be used.
    Server = 2,
    /// No knock could be sent.
    NotSent = 3,
    /// The port did not open.
    Closed = 4,
    /// A mistake in this library.
    Bug = 5,
}

impl Outcome {
    /// The number that the caller gets.
    #[must_use]
    pub fn code(self) -> c_int {
        self as c_int
    }
}

/// What may be left to the library: `struct knockd_rs_options`. A field that is zero is left to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Options {
    /// How long this structure is where the caller was compiled.
    pub size: usize,
    /// A sum of the `KNOCKD_RS_METHOD_` numbers.
    pub methods: u32,
    /// When to give up, in milliseconds.
    pub timeout_ms: u32,
    /// How many knocks are sent at the most.
    pub knocks: u32,
    /// How long one knock may take to have an effect, in milliseconds.
    pub patience_ms: u32,
    /// For how many connections, or [`USES_PROFILE`].
    pub uses: u32,
    /// How long the grant is to last, in seconds.
    pub duration_s: u32,
}

/// As many connections as the profile gives.
pub const USES_PROFILE: u32 = u32::MAX;
/// One encrypted datagram.
pub const METHOD_SPA: u32 = 1;
/// One SYN.
pub const METHOD_SYN: u32 = 2;
/// An encoded sequence of ports.
pub const METHOD_SEQUENCE: u32 = 4;
/// Ports that follow from the time.
pub const METHOD_TOTP: u32 = 8;
