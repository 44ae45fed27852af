//! How many Diffie-Hellmans packets may cost: a rate for all of them, and a share of it for each network, or for each client
//! where packets say whose they are.
//!
//! Over budget means that this packet is let go of, nothing else: no network is ever banned, because a ban is
//! what a forged source address would be used for. A client's share needs no address at all, and cannot be spent by who
//! forges one.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::hash::Seeded;

/// How many handshakes a second are worked on. Each rate allows a burst of one second's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// All together. One costs an X25519 operation, a client's first one two; each is some 0.05 ms.
    pub all: NonZeroU32,
    /// In the name of one client; where packets name none, from one IPv4 address, or from one IPv6 network with a prefix
    /// of 56 bits.
    pub source: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { all: const { NonZeroU32::new(5000).unwrap() }, source: const { NonZeroU32::new(50).unwrap() } }
    }
}

/// Token buckets, each a single number: when the bucket will be full again (the "generic cell rate algorithm"
/// of ITU-T I.371, annex A). 128 KiB, made once.
///
/// A network's bucket is found by a seeded hash of its prefix and holds no name: nothing is evicted, and a
/// flood from many sources cannot win fresh buckets. Two networks share a bucket with a chance of 1 in
/// [`MAX_BUCKETS`], which nobody can aim at.
pub(super) struct Budget {
    whole: Whole,
    source_due: Box<[u64]>,
    hash: Seeded,
}

/// How many networks are told apart.
pub(super) const MAX_BUCKETS: usize = 16_384;

impl Budget {
    pub(super) fn new(rates: Rates, hash: Seeded) -> Self {
        Self { whole: Whole::new(rates), source_due: vec![0; MAX_BUCKETS].into_boxed_slice(), hash }
    }

    /// Whether a packet from `source` may cost a Diffie-Hellman now. Only an admitted packet counts.
    pub(super) fn admit(&mut self, source: IpAddr, uptime: Duration) -> bool {
        let slot = slot(&self.hash, source);
        self.source_due.get_mut(slot).is_some_and(|due| self.whole.admit(due, uptime))
    }

    /// Takes so many handshakes more, for a packet that was admitted and costs more than one. Where there are none left
    /// the packets after it wait.
    pub(super) fn charge(&mut self, source: IpAddr, uptime: Duration, handshakes: u32) {
        let now = nanos(uptime);
        let slot = slot(&self.hash, source);
        let later = |due: u64, pace: Pace| {
            due.max(now).saturating_add(pace.interval.saturating_mul(handshakes.into()))
        };
        self.whole.all_due = later(self.whole.all_due, self.whole.all);
        if let Some(due) = self.source_due.get_mut(slot) {
            *due = later(*due, self.whole.share);
        }
    }
}

/// The bucket of all, and how fast those of the shares are filled, which lie elsewhere.
pub(super) struct Whole {
    all: Pace,
    all_due: u64,
    share: Pace,
}

impl Whole {
    pub(super) fn new(rates: Rates) -> Self {
        Self { all: Pace::new(rates.all), all_due: 0, share: Pace::new(rates.source) }
    }

    /// Whether a packet may cost a Diffie-Hellman now, when `due` is the bucket of the share that it falls into.
    pub(super) fn admit(&mut self, due: &mut u64, uptime: Duration) -> bool {
        let now = nanos(uptime);
        // Its own bucket first: who has used up his share takes nothing from the others.
        match (self.share.next(*due, now), self.all.next(self.all_due, now)) {
            (Some(share_due), Some(all_due)) => {
                (*due, self.all_due) = (share_due, all_due);
                true
            }
            _ => false,
        }
    }
}

fn nanos(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX)
}

/// Where the bucket of `source` is. IPv6: the first 56 bits, the most that one customer usually gets (RFC 6177).
fn slot(hash: &Seeded, source: IpAddr) -> usize {
    let place = match source {
        IpAddr::V4(v4) => hash.hash_one((4u8, u64::from(v4.to_bits()))),
        IpAddr::V6(v6) => hash.hash_one((6u8, (v6.to_bits() >> 72) as u64)),
    };
    usize::try_from(place % MAX_BUCKETS as u64).unwrap_or_default()
}

/// A rate: nanoseconds for one handshake, and how far ahead of the clock a bucket may be drawn.
#[derive(Clone, Copy)]
struct Pace {
    interval: u64,
    slack: u64,
}

impl Pace {
    fn new(rate: NonZeroU32) -> Self {
        let interval = (1_000_000_000 / u64::from(rate.get())).max(1);
        Self { interval, slack: 1_000_000_000 - interval }
    }

    /// When the bucket will be full again if one more handshake is taken from it now; `None` when it is empty.
    fn next(&self, due: u64, now: u64) -> Option<u64> {
        let due = due.max(now);
        (due - now <= self.slack).then(|| due.saturating_add(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(all: u32, source: u32) -> Budget {
        let rates = Rates { all: NonZeroU32::new(all).unwrap(), source: NonZeroU32::new(source).unwrap() };
        Budget::new(rates, Seeded::new([1; 16]))
    }

    /// How many of `tries` packets from `source` are admitted at `at`.
    fn admitted(budget: &mut Budget, source: &str, at: Duration, tries: usize) -> usize {
        (0..tries).filter(|_| budget.admit(source.parse().unwrap(), at)).count()
    }

    const NOON: Duration = Duration::from_secs(1000);

    #[test]
    fn one_address_gets_its_share_and_leaves_the_rest_to_others() {
        let mut budget = budget(5000, 50);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON, 100_000), 50);
        assert_eq!(admitted(&mut budget, "192.0.2.2", NOON, 100), 50);
    }

    #[test]
    fn a_packet_that_costs_more_takes_it_from_those_after_it() {
        let mut budget = budget(5000, 50);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON, 1), 1);
        budget.charge("192.0.2.1".parse().unwrap(), NOON, 39);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON, 100), 10);
        budget.charge("192.0.2.2".parse().unwrap(), NOON, 100);
        assert_eq!(admitted(&mut budget, "192.0.2.2", NOON, 1), 0);
        assert_eq!(admitted(&mut budget, "192.0.2.2", NOON + Duration::from_secs(2), 1), 1);
    }

    #[test]
    fn a_flooding_address_takes_nothing_beyond_its_share_from_the_whole() {
        let mut budget = budget(60, 50);
        admitted(&mut budget, "192.0.2.1", NOON, 100_000);
        assert_eq!(admitted(&mut budget, "192.0.2.2", NOON, 100), 10);
    }

    #[test]
    fn a_bucket_fills_again_with_time_and_never_beyond_one_second() {
        let mut budget = budget(5000, 50);
        admitted(&mut budget, "192.0.2.1", NOON, 100);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON + Duration::from_millis(19), 9), 0);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON + Duration::from_millis(20), 9), 1);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON + Duration::from_millis(120), 9), 5);
        assert_eq!(admitted(&mut budget, "192.0.2.1", NOON + Duration::from_secs(900), 1000), 50);
    }

    #[test]
    fn many_sources_together_are_held_to_the_whole_rate() {
        let mut budget = budget(100, 50);
        let sources = (0..255).map(|host| IpAddr::from([198, 51, 100, host]));
        assert_eq!(sources.filter(|source| budget.admit(*source, NOON)).count(), 100);
    }

    #[test]
    fn an_ipv6_customer_is_one_source_and_his_neighbour_another() {
        let mut budget = budget(5000, 50);
        assert_eq!(admitted(&mut budget, "2001:db8:0:1::1", NOON, 30), 30);
        assert_eq!(admitted(&mut budget, "2001:db8:0:ff::2", NOON, 30), 20);
        assert_eq!(admitted(&mut budget, "2001:db8:0:100::1", NOON, 30), 30);
    }

    #[test]
    fn where_networks_meet_depends_on_the_seed() {
        let places = |seed: u8| -> Vec<usize> {
            let hash = Seeded::new([seed; 16]);
            (0..8).map(|host| slot(&hash, IpAddr::from([192, 0, 2, host]))).collect()
        };
        assert_ne!(places(1), places(2));
    }

    #[test]
    fn a_rate_of_one_admits_one() {
        let mut budget = budget(1, 1);
        assert_eq!(admitted(&mut budget, "192.0.2.1", Duration::ZERO, 5), 1);
        assert_eq!(admitted(&mut budget, "192.0.2.1", Duration::from_secs(1), 5), 1);
    }
}
