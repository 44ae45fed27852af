//! `knockd-rs`: port knocking and single-packet authorization, enforced by the kernel.
//!
//! The modules in the order in which a packet meets them. Each stage takes the type that the stage before
//! produced, so holding a value is the proof that its check was made:
//!
//! `&[u8]` → [`frame::Segment`] → [`knock::Knock`] → [`grant::Grant`] → [`grant::Request`] (over the
//! socketpair) → [`grant::Opening`] → an element with a timeout in the kernel.

pub mod crypto;
pub mod frame;
pub mod knock;
pub mod text;
pub mod time;
