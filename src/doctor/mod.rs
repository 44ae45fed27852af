//! Diagnosis: what is wrong with a client or a server, and what to do about it.
//!
//! [`look`] gathers facts and is the edge; `client` and `server` judge them and are pure. A [`Check`] is a name and a
//! function from the facts to [`Finding`]s, and the two tables of them are the whole of `knockd-rs doctor`. Nothing that
//! is looked at is changed, and nothing is believed because something else is so: each check stands for itself.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
mod finding;
pub mod look;
#[cfg(feature = "daemon")]
pub mod server;

pub use finding::{Check, Finding, Line, State, examine};
