//! The last packets that were worth a Diffie-Hellman, so that their copies are not.

use std::collections::{HashSet, VecDeque};

use crate::crypto::Mac1;

use super::hash::Seeded;

/// How many packets are remembered.
pub(super) const MAX_RING: usize = 4096;

/// The `mac1` values of the last [`MAX_RING`] packets; the oldest makes room for the newest. A shield for the
/// processor, not for the port: a copy that outlives its place here still meets the client's counter.
pub(super) struct Ring {
    order: VecDeque<Mac1>,
    known: HashSet<Mac1, Seeded>,
}

impl Ring {
    pub(super) fn new(hash: Seeded) -> Self {
        // A set that is never more than half full cleans up in place instead of growing.
        let known = HashSet::with_capacity_and_hasher(2 * MAX_RING, hash);
        Self { order: VecDeque::with_capacity(MAX_RING), known }
    }

    pub(super) fn contains(&self, mac1: &Mac1) -> bool {
        self.known.contains(mac1)
    }

    pub(super) fn insert(&mut self, mac1: Mac1) {
        if !self.known.insert(mac1) {
            return;
        }
        if self.order.len() == MAX_RING {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        self.order.push_back(mac1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac1(number: usize) -> Mac1 {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn the_oldest_packet_is_forgotten_first() {
        let mut ring = Ring::new(Seeded::new([1; 16]));
        for number in 0..MAX_RING {
            ring.insert(mac1(number));
        }
        assert!(ring.contains(&mac1(0)));
        ring.insert(mac1(MAX_RING));
        assert!(!ring.contains(&mac1(0)));
        assert!(ring.contains(&mac1(1)) && ring.contains(&mac1(MAX_RING)));
    }

    #[test]
    fn a_packet_seen_again_takes_no_second_place() {
        let mut ring = Ring::new(Seeded::new([1; 16]));
        ring.insert(mac1(1));
        ring.insert(mac1(2));
        ring.insert(mac1(1));
        assert_eq!(ring.order, [mac1(1), mac1(2)]);
    }

    #[test]
    fn a_flood_does_not_make_the_ring_grow() {
        let mut ring = Ring::new(Seeded::new([1; 16]));
        let (order, known) = (ring.order.capacity(), ring.known.capacity());
        for number in 0..50 * MAX_RING {
            ring.insert(mac1(number));
        }
        assert!(ring.order.capacity() <= order && ring.known.capacity() <= known);
        assert_eq!((ring.order.len(), ring.known.len()), (MAX_RING, MAX_RING));
    }
}
