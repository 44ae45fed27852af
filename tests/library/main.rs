//! The client for programs that embed it, in Rust and in C; and the client alone, without the daemon's libraries and
//! without any privilege. Needs root for its worlds, and a C compiler.
#![allow(unreachable_pub, reason = "its files see each other")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

#[path = "../common/mod.rs"]
mod common;

mod alone;
mod build;
mod c;
mod rust;
