//! From a [`Segment`](crate::frame::Segment) to a [`Knock`]: the formats, one file each, and what they share.
//!
//! A decoder is a pure function of segment, clock and its own bounded tables. It ends in an [`Outcome`]: a
//! knock, a silent drop (a stranger; counted, never logged), or a fault of a client that proved who it is.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::text::{PortRange, Span};
use crate::time::Timestamp;

/// What a client may ask for, whatever the format that carried it. A request, not a permission: the policy
/// intersects it with the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What to do.
    pub op: Op,
    /// For whom.
    pub target: Target,
    /// Whether one connection is enough; the profile may insist on it.
    pub single: bool,
    /// How long the grant should last; `None` leaves it to the profile.
    pub duration: Option<Span>,
    /// Which ports.
    pub ports: Wanted,
}

/// The operation, bits 0-1 of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Open the ports.
    Open,
    /// End this client's grants on them now.
    Close,
    /// Give a live grant a new deadline; opens where there is none.
    Renew,
}

/// The address the grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whatever address the packet came from.
    Source,
    /// The packet's source, which must be this address: what was swallowed on the way and sent again from
    /// elsewhere opens nothing.
    SourceOnly(IpAddr),
    /// This address, whatever the packet's source.
    Address(IpAddr),
}

/// The ports asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything that the profile opens.
    Defaults,
    /// The service whose name has this tag.
    Service(ServiceTag),
    /// These ports: one to [`MAX_ENTRIES`].
    Ports(Vec<PortRange>),
}

/// How many port ranges one knock can name.
pub const MAX_ENTRIES: usize = 5;

/// The first four bytes of `SHA256("knockd-rs service" || name)`; never all-zero, which means "no service".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceTag(pub [u8; 4]);

/// An authentic, fresh and new request. Only this module's decoders make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// The client, as its static public key.
    pub client: [u8; 32],
    /// Where the packet came from.
    pub source: IpAddr,
    /// The client's counter: the time at which it knocked, strictly increasing.
    pub counter: Timestamp,
    /// What it asks for.
    pub ask: Ask,
}
