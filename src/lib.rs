//! `knockd-rs`: port knocking and single-packet authorization, enforced by the kernel.
//!
//! The modules in the order in which a packet meets them. Each stage takes the type that the stage before
//! produced, so holding a value is the proof that its check was made:
//!
//! `&[u8]` → [`frame::Segment`] → [`knock::Knock`] → [`grant::Grant`] → [`grant::Request`] (over the
//! socketpair) → [`grant::Opening`] → an element with a timeout in the kernel.
//!
//! The pure modules (`frame`, `knock`, `policy`, `grant`, `session`, `crypto`, `socks`, `text`, `time`) do no I/O, read
//! no clock and log nothing; `tests/layering.rs` keeps it so. `unsafe` stands in `sys`, `nft/elem.rs` and `capi.rs`
//! alone. Programs that knock by themselves begin at `client`.

// A packet's way.
#[cfg(feature = "daemon")]
pub mod capture;
pub mod frame;
pub mod grant;
pub mod knock;
#[cfg(feature = "daemon")]
pub mod nft;
pub mod policy;
pub mod session;

// Who runs what.
pub mod clock;
#[cfg(feature = "daemon")]
pub mod control;
#[cfg(feature = "daemon")]
pub mod log;
#[cfg(any(feature = "daemon", feature = "client"))]
pub mod notify;
#[cfg(feature = "daemon")]
pub mod privsep;
#[cfg(feature = "daemon")]
pub mod state;
pub mod sys;

// What people write, and the keys.
#[cfg(feature = "daemon")]
pub mod ca;
pub mod config;
pub mod crypto;
pub mod enrol;
pub mod files;
#[cfg(feature = "daemon")]
pub mod migrate;
pub mod passphrase;
pub mod profile;
pub mod text;
pub mod time;
pub mod x509;

// The other side.
#[cfg(feature = "capi")]
pub mod capi;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod doctor;
#[cfg(feature = "client")]
pub mod socks;

/// Ways into private parsers for `tests/fuzz`.
#[cfg(all(feature = "fuzzing", feature = "daemon", feature = "client"))]
#[doc(hidden)]
pub mod fuzzing;
