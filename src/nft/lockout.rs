//! Addresses that are refused for a while: `lockout` says until when, `spared` how long not yet. Pure.
//!
//! ```text
//! lockout, spared      address (4 or 16)      each element with the timeout of its own
//! ```
//! An address in the first set and not in the second is refused, so that the kernel begins and ends it by itself.

use std::net::IpAddr;
use std::time::Duration;

use super::LockOut;
use super::entry::{Family, Parsed, commented, keys, timed};
use super::wire::{Attributes, octets};

/// One of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockSet {
    /// Who is refused, and until when.
    Lockout,
    /// Of those, who is let in still, and until when.
    Spared,
}

impl LockSet {
    pub(super) const BOTH: [Self; 2] = [Self::Lockout, Self::Spared];

    /// The name in our table.
    pub(super) fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Lockout, Family::V4) => "lockout_v4",
            (Self::Lockout, Family::V6) => "lockout_v6",
            (Self::Spared, Family::V4) => "spared_v4",
            (Self::Spared, Family::V6) => "spared_v6",
        }
    }

    /// How long the address is in this set; `None` where it is not.
    pub(super) fn lifetime(self, lock: &LockOut) -> Option<Duration> {
        match self {
            Self::Lockout => Some(lock.until),
            Self::Spared => Some(lock.after).filter(|after| *after >= Duration::from_millis(1)),
        }
    }
}

/// The element for an address, alive for so long.
pub(super) fn attributes(lock: &LockOut, lifetime: Duration) -> Attributes {
    let element = timed(keys(octets(lock.address), None), Some(lifetime), None);
    commented(element, lock.note.as_str())
}

/// Puts the elements of both sets together.
pub(super) fn read(locked: &[Vec<u8>], spared: &[Vec<u8>], family: Family) -> Vec<LockOut> {
    let whose = |element: &Parsed<'_>| Some(family.split(element.key?)?.0);
    let spared: Vec<(IpAddr, Duration)> = spared
        .iter()
        .filter_map(|element| {
            let parsed = Parsed::of(element);
            Some((whose(&parsed)?, parsed.left?))
        })
        .collect();
    let lock = |element: &Vec<u8>| {
        let parsed = Parsed::of(element);
        let address = whose(&parsed)?;
        let after = spared.iter().find(|(other, _)| *other == address).map(|(_, left)| *left);
        let note = parsed.comment.and_then(|comment| comment.parse().ok()).unwrap_or_default();
        Some(LockOut { address, after: after.unwrap_or_default(), until: parsed.left?, note })
    };
    locked.iter().filter_map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockout_reads_back_as_it_was_written() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let lock = LockOut {
                address: address.parse().unwrap(),
                after: Duration::from_secs(15),
                until: Duration::from_secs(600),
                note: "laptop".parse().unwrap(),
            };
            let element = |set: LockSet| attributes(&lock, set.lifetime(&lock).unwrap()).into_bytes();
            let [locked, spared] = LockSet::BOTH.map(element);
            let family = Family::of(lock.address);
            assert_eq!(read(std::slice::from_ref(&locked), &[spared], family), std::slice::from_ref(&lock));
            let begun = LockOut { after: Duration::ZERO, ..lock };
            assert_eq!(read(&[locked], &[], family), std::slice::from_ref(&begun));
            assert_eq!(LockSet::Spared.lifetime(&begun), None);
        }
    }
}
