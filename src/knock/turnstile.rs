//! What every datagram passes between its mac1 and the first Diffie-Hellman, whatever its format.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto::Mac1;

use super::budget::Budget;
use super::hash::Seeded;
use super::ring::Ring;
use super::{Drop, Rates};

/// The recent packets, and how many may cost a Diffie-Hellman: one for all formats, so that a second format gives
/// nobody a second share.
pub(super) struct Turnstile {
    ring: Ring,
    budget: Budget,
}

impl Turnstile {
    pub(super) fn new(rates: Rates, hash: Seeded) -> Self {
        Self { ring: Ring::new(hash), budget: Budget::new(rates, hash) }
    }

    /// Lets a packet with a right mac1 through once.
    ///
    /// # Errors
    /// [`Drop::Repeat`] for a copy of a recent packet, [`Drop::Budget`] when its network, or everybody, has spent
    /// what there is.
    pub(super) fn pass(&mut self, mac1: &Mac1, source: IpAddr, uptime: Duration) -> Result<(), Drop> {
        if self.ring.contains(mac1) {
            return Err(Drop::Repeat);
        }
        if !self.budget.admit(source, uptime) {
            return Err(Drop::Budget);
        }
        // Not earlier: the copies of a knock that was over budget are its second chance.
        self.ring.insert(*mac1);
        Ok(())
    }

    /// Takes more of the budget, for a packet that was let through and costs so many handshakes besides.
    pub(super) fn charge(&mut self, source: IpAddr, uptime: Duration, handshakes: u32) {
        self.budget.charge(source, uptime, handshakes);
    }

    /// Takes a packet for one that was seen.
    pub(super) fn note(&mut self, mac1: Mac1) {
        self.ring.insert(mac1);
    }
}
