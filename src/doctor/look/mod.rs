//! The edge of the diagnosis: what is so on this machine, gathered and not judged.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
mod disk;
#[cfg(feature = "daemon")]
mod process;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
mod sockets;

/// For the fuzzer: what the kernel says of processes and sockets.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(text: &str) {
    process::check(text);
    sockets::check(text);
}
