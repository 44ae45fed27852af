//! Two processes, so that what reads the network can do nothing, and what can do something reads no network.
//!
//! ```text
//!               frames                                     set elements
//!   network ──────────► worker ── Request (160 bytes) ──► monitor ──────────► kernel
//!                       no capability,                    CAP_NET_ADMIN,
//!                       no_new_privs, seccomp,            keys, configuration,
//!                       Landlock                          control socket
//!                              ◄──── Brief, Order ────
//! ```
//!
//! The worker is this program executed again, with an empty environment and the socketpair as standard input. It
//! opens libpcap while it still may, then gives everything up. The monitor admits each request by its own limits; a
//! request outside them ends the worker and the service.

mod almanac;
mod brief;
pub mod capabilities;
mod certificates;
mod channel;
pub mod confine;
pub mod counters;
pub mod explain;
pub mod message;
mod monitor;
mod pipeline;
pub mod syscalls;
mod worker;

use std::io;
use std::os::fd::AsFd;

pub use monitor::{Directories, Ended, run};

/// Runs the worker on standard input, which `run` has connected to the monitor.
///
/// # Errors
/// When standard input is no such socket, or the monitor is gone.
pub fn work() -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    worker::run(&channel::ToMonitor::new(socket))
}

/// For the fuzzer: the brief of a worker.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_brief(bytes: &[u8]) {
    brief::check(bytes);
}

/// For the fuzzer: the books that the monitor keeps.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_books(bytes: &[u8]) {
    monitor::check_books(bytes);
}
