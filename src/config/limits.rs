//! The table of limits: every number that a configuration may name, and how far it may go.
#![forbid(unsafe_code)]

use std::fmt;

use crate::text::Span;

/// The least and the greatest value accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds<T> {
    /// The least.
    pub least: T,
    /// The greatest.
    pub greatest: T,
}

impl<T: PartialOrd> Bounds<T> {
    /// Whether `value` is accepted.
    #[must_use]
    pub fn contains(&self, value: &T) -> bool {
        (&self.least..=&self.greatest).contains(&value)
    }
}

impl<T: fmt::Display> fmt::Display for Bounds<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.least, self.greatest)
    }
}

const fn numbers(least: u32, greatest: u32) -> Bounds<u32> {
    Bounds { least, greatest }
}

const fn spans(least: u32, greatest: u32) -> Bounds<Span> {
    Bounds { least: Span::from_secs(least), greatest: Span::from_secs(greatest) }
}

const DAY: u32 = 86_400;

/// Bytes of any configuration file: what is longer is something else, put there by mistake.
pub(crate) const FILE: u64 = 1 << 20;
/// Bytes of a key file: 44 characters, a newline, and room for a stray blank.
pub(crate) const KEY_FILE: u64 = 1024;
/// Profiles of one server: a bound on memory and on the time that a reload takes.
pub(crate) const PROFILES: usize = 200_000;
/// Entries of one list.
pub(crate) const ENTRIES: usize = 1024;
/// Services of one server.
pub(crate) const SERVICES: usize = 1024;

/// UDP and TCP ports.
pub(crate) const PORT: Bounds<u32> = numbers(1, 65_535);
/// `duration` and `max_duration`. Longer than a month is no knock but a firewall rule.
pub(crate) const GRANT: Bounds<Span> = spans(1, 30 * DAY);
/// `max_age` and `max_ahead`. Below a second no clock is good enough; beyond a day a swallowed packet
/// stays usable too long.
pub(crate) const FRESHNESS: Bounds<Span> = spans(1, DAY);
/// `gap` and `total` of a fixed sequence: no longer than its hits are remembered.
pub(crate) const SEQUENCE: Bounds<Span> = spans(1, 60);
/// Above this `max_duration` is worth a warning.
pub(crate) const LONG_GRANT: Span = Span::from_secs(DAY);
/// Live grants of all profiles together: elements of the kernel's sets.
pub(crate) const GRANTS: Bounds<u32> = numbers(1, 65_535);
/// Live grants of one profile.
pub(crate) const PROFILE_GRANTS: Bounds<u32> = numbers(1, 65_535);
/// `[[certificates]]` tables: they are tried one after the other.
pub(crate) const CERTIFICATE_RULES: usize = 256;
/// `connections` as a number: what the kernel counts for one grant.
pub(crate) const CONNECTIONS: Bounds<u32> = numbers(1, crate::grant::Uses::MOST as u32);
/// `lockout`.
pub(crate) const LOCKOUT: Bounds<Span> = spans(1, 30 * DAY);
/// `[[forward]]` tables.
pub(crate) const FORWARDS: usize = 256;
/// Networks behind this host.
pub(crate) const BEHIND: usize = 256;
/// `crl_grace`. More than a month late is no list.
pub(crate) const CRL_GRACE: Bounds<Span> = spans(0, 30 * DAY);
/// Diffie-Hellman computations a second: about 50 us each.
pub(crate) const HANDSHAKES: Bounds<u32> = numbers(1, 1_000_000);
