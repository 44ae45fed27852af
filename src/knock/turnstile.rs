//! What every datagram passes between its mac1 and the first Diffie-Hellman, whatever its format.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto::Mac1;

use super::budget::{Budget, Whole};
use super::hash::Seeded;
use super::ring::Ring;
use super::{Drop, Rates};

/// The recent packets, and how many may cost a Diffie-Hellman. Packets that name their client and packets that name nobody
/// draw from two budgets of the same size: of the latter a single robbed client can make any number from any number of
/// addresses, and is to take nothing from the former.
pub(super) struct Turnstile {
    ring: Ring,
    clients: Whole,
    networks: Budget,
}

/// What one client has spent of its share.
#[derive(Default)]
pub(super) struct Spent(u64);

impl Turnstile {
    pub(super) fn new(rates: Rates, hash: Seeded) -> Self {
        Self { ring: Ring::new(hash), clients: Whole::new(rates), networks: Budget::new(rates, hash) }
    }

    /// Lets a packet with a right mac1 that names nobody through once.
    ///
    /// # Errors
    /// [`Drop::Repeat`] for a copy of a recent packet, [`Drop::Budget`] when its network, or everybody, has spent
    /// what there is.
    pub(super) fn pass(&mut self, mac1: &Mac1, source: IpAddr, uptime: Duration) -> Result<(), Drop> {
        self.once(mac1, |turnstile| turnstile.networks.admit(source, uptime))
    }

    /// The same for a packet in the name of a client, which has spent this.
    pub(super) fn pass_client(
        &mut self,
        mac1: &Mac1,
        spent: &mut Spent,
        uptime: Duration,
    ) -> Result<(), Drop> {
        self.once(mac1, |turnstile| turnstile.clients.admit(&mut spent.0, uptime))
    }

    fn once(&mut self, mac1: &Mac1, admit: impl FnOnce(&mut Self) -> bool) -> Result<(), Drop> {
        if self.ring.contains(mac1) {
            return Err(Drop::Repeat);
        }
        if !admit(self) {
            return Err(Drop::Budget);
        }
        // Not earlier: the copies of a knock that was over budget are its second chance.
        self.ring.insert(*mac1);
        Ok(())
    }

    /// Takes more of the budget, for a packet that names nobody, was let through, and costs so many handshakes besides.
    pub(super) fn charge(&mut self, source: IpAddr, uptime: Duration, handshakes: u32) {
        self.networks.charge(source, uptime, handshakes);
    }

    /// Takes a packet for one that was seen.
    pub(super) fn note(&mut self, mac1: Mac1) {
        self.ring.insert(mac1);
    }
}
