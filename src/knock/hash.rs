//! A hash for tables whose keys come from strangers.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;

/// The standard library's hash (SipHash) started from random bytes that strangers do not know, so that they
/// cannot choose keys which meet in one place. `RandomState` would do the same, but draws its own randomness.
#[derive(Clone, Copy)]
pub(super) struct Seeded([u8; 16]);

impl Seeded {
    /// `seed`: 16 random bytes, drawn once per process.
    pub(super) const fn new(seed: [u8; 16]) -> Self {
        Self(seed)
    }

    /// The hash of an address, in one piece. No segment's source is an IPv4 address dressed as IPv6.
    pub(super) fn address(&self, address: IpAddr) -> u64 {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        self.hash_one(bits)
    }
}

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.0);
        hasher
    }
}
