//! Stories in network namespaces: the real daemon, client, kernel and `nft`. Needs root, and fails without it.
//!
//! Every test has a world of its own, and most of its time is spent waiting for deadlines: run them side by side,
//! with more threads than processors (`RUST_TEST_THREADS=8`).
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../packets/mod.rs"]
mod frames;

mod adversary;
mod agent;
mod calls;
mod cert;
mod confined;
mod corner;
mod doors;
mod events;
mod faults;
mod firewalls;
mod gateway;
mod grants;
mod guards;
mod interface;
mod kill;
mod memory;
mod migrate;
mod nflog;
mod plain;
mod profiles;
mod proxy;
mod reload;
mod replay;
mod rules;
mod sctp;
mod sequence;
mod sessions;
mod ssh;
mod state;
mod syn;
mod tampering;
mod targets;
mod timing;
mod totp;
