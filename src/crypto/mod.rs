//! Keys and the primitives made from them: [`Secret`], X25519 key pairs, Noise, the `mac1` gate.
//!
//! Pure: no I/O, no clock; randomness is an argument.
#![forbid(unsafe_code)]

mod secret;

pub use secret::Secret;
