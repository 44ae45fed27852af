//! From a decision to an opening: [`Grant`] (decided by the worker) → [`Request`] (its fixed-size form on the
//! socketpair) → [`Opening`] (admitted by the monitor's own [`Limits`]), and the [`Ledger`] of live openings.
//!
//! The worker decides, the monitor admits. The two never trust each other's arithmetic: the monitor computes
//! the bounds again from its own copy of the configuration. Pure.
#![forbid(unsafe_code)]

mod holder;
mod ledger;
mod limits;
mod request;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use holder::{Holder, label, rule_of};
pub use ledger::{Entry, Full, Ledger};
pub use limits::{Breach, Limits, Opening, ProfileLimits};
pub use request::{Malformed, REQUEST_LEN, Request};
#[cfg(feature = "daemon")]
pub(crate) use request::{ip_address, octets};

pub use crate::session::{Session, SessionFlag, Uses};
use crate::text::{PortRange, Span};

/// Which profile of the configuration that the worker was started with: an index, so that a request cannot
/// name a profile that does not exist in any but one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileIndex(pub u32);

impl ProfileIndex {
    /// No profile: whose certificate it is was proved, and no rule is for it.
    pub const NONE: Self = Self(u32::MAX);
}

/// What a grant does to the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets the address in until the deadline; an earlier deadline of a live grant moves to this one.
    Open,
    /// Ends this profile's grants on the ports now.
    Close,
}

/// How wide a grant for a network is: a carrier's NAT spreads its customers over an IPv4 network of 24 bits, and a host
/// changes its IPv6 address within one of 64 (RFC 8981).
#[must_use]
pub fn wide_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

/// The lowest address of the network that a wide grant for this address is for.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// How many disjoint port ranges a grant can hold: what [`crate::policy::MAX_OPEN`] ranges of a profile and
/// the [`crate::knock::MAX_ENTRIES`] ranges of a knock can cut each other into, at most.
pub const MAX_RANGES: usize = crate::policy::MAX_OPEN + crate::knock::MAX_ENTRIES - 1;

/// A decision: made by [`crate::policy::decide`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub profile: ProfileIndex,
    /// Open or close.
    pub action: Action,
    /// The address that the knock came from.
    pub source: IpAddr,
    /// The address that is let in.
    pub address: IpAddr,
    /// Whether its whole network is: see [`network_of`].
    pub wide: bool,
    /// To which ports: at least one range, disjoint, at most [`MAX_RANGES`].
    pub ports: Vec<PortRange>,
    /// For how many connections.
    pub uses: Uses,
    /// What holds for them besides.
    pub session: Session,
    /// For how long.
    pub lifetime: Span,
}
