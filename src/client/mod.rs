//! The knocking side: what a client keeps of its servers, and how it knocks. Needs no root, and no library but libc.

pub mod cert;
pub mod counter;
mod datagram;
pub mod knock;
pub mod memory;
pub mod network;
pub mod proxy;
pub mod reach;
pub mod relay;
pub mod sequence;
pub mod server;
pub mod store;
mod syn;
mod totp;
mod try_port;
