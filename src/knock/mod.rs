//! From a [`Segment`](crate::frame::Segment) to a [`Knock`]: the formats, one file each, and what they share.
//!
//! The [`Listener`] shows each segment to the decoders that may know its format, and checks what all knocks have in
//! common. A decoder is a pure function of segment, clock and its own bounded tables. It ends in an [`Outcome`]: a
//! knock, a silent drop (a stranger; counted, never logged), or a fault of a client that proved who it is.
#![forbid(unsafe_code)]

mod budget;
mod cache;
pub mod cert;
mod fault;
mod ground;
mod hash;
mod head;
mod listener;
mod method;
pub mod plain;
mod replay;
mod ring;
pub mod sequence;
pub mod spa;
mod steps;
pub mod syn;
pub mod totp;
mod turnstile;

use std::net::IpAddr;

use crate::crypto::{Mac1, sha256};
use crate::session::{Session, Uses};
use crate::text::{PortRange, Span, serde_as_text};
use crate::time::Timestamp;

pub use budget::Rates;
pub use fault::{CertificateFault, EntryFault, Fault};
pub use ground::{Ground, GroundError, MAX_EXCLUDED, VOICE};
pub use head::SealError;
pub use listener::Listener;
pub use method::{ClientId, MarkKey, Method};
pub use replay::{Freshness, MAX_JUMP};

/// What a client may ask for, whatever the format that carried it. A request, not a permission: the policy
/// intersects it with the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What to do.
    pub op: Op,
    /// For whom.
    pub target: Target,
    /// How many connections it should be for; `None` leaves it to the profile, which may insist on fewer.
    pub uses: Option<Uses>,
    /// What should hold for them besides.
    pub session: Session,
    /// Whether the whole network of the address is meant, as wide as the profile allows.
    pub wide: bool,
    /// How long the grant should last; `None` leaves it to the profile.
    pub duration: Option<Span>,
    /// Which ports.
    pub ports: Wanted,
}

impl Ask {
    /// Everything that the profile opens, as it opens it, for whoever knocks.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            op: Op::Open,
            target: Target::Source,
            uses: None,
            session: Session::default(),
            wide: false,
            duration: None,
            ports: Wanted::Defaults,
        }
    }
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

/// Eight hexadecimal digits, so that it can be a key in JSON.
impl std::fmt::Display for ServiceTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl std::str::FromStr for ServiceTag {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 16).map(|tag| Self(tag.to_be_bytes()))
    }
}

serde_as_text!(ServiceTag);

/// The tag of the service with this name.
///
/// A name whose hash begins with four zero bytes has the tag `00 00 00 01`. Two names may have one tag; the
/// configuration refuses them.
#[must_use]
pub fn service_tag(name: &str) -> ServiceTag {
    match sha256(&[b"knockd-rs service", name.as_bytes()]) {
        [0, 0, 0, 0, ..] => ServiceTag([0, 0, 0, 1]),
        [a, b, c, d, ..] => ServiceTag([a, b, c, d]),
    }
}

/// An authentic, fresh and new request. Only the [`Listener`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// The client.
    pub client: ClientId,
    /// How it knocked.
    pub method: Method,
    /// Where the packet came from.
    pub source: IpAddr,
    /// The client's counter: the time at which it knocked, strictly increasing for each method.
    pub counter: Timestamp,
    /// The end of a datagram, by which its copies are known; zeros where the knock was none.
    pub mac1: Mac1,
    /// What it asks for.
    pub ask: Ask,
}

impl Knock {
    /// Under which name its counter is kept.
    #[must_use]
    pub fn mark(&self) -> MarkKey {
        MarkKey::new(self.client, self.method)
    }
}

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A client asks for something.
    Knock(Knock),
    /// Nothing that a client proved to have sent: counted, never logged.
    Dropped(Drop),
    /// A client proved who it is, and its request cannot be granted whatever its profile says.
    Refused {
        /// The client.
        client: ClientId,
        /// How it knocked.
        method: Method,
        /// Where the packet came from.
        source: IpAddr,
        /// What is wrong with the request.
        fault: Fault,
    },
}

/// What a decoder makes of a segment that a client proved to have sent.
struct Authentic {
    client: ClientId,
    method: Method,
    /// How far its counter may be from the server's time; `None` when the format itself has settled that.
    freshness: Option<Freshness>,
    mac1: Mac1,
    /// What is asked for, and the counter.
    request: Result<(Ask, Timestamp), Fault>,
}

/// Why a stranger's packet was let go of, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// No method in use knocks with such a packet.
    Method,
    /// No knock has this length.
    Length,
    /// Made without the gate key, or for another server, or damaged on the way.
    Mac,
    /// A copy of a recent packet. Clients send each knock up to three times.
    Repeat,
    /// More Diffie-Hellmans than the limits allow, of this client or network or altogether.
    Budget,
    /// Not sealed to this server's key, or not by the client that it names, or with another psk.
    Key,
    /// In the name of a client that no profile has, or sealed by another key than that of the client which it names.
    UnknownClient,
    /// A SYN that carries no code which is good now.
    Code,
    /// One knock of a sequence, which is not complete yet, or never will be.
    Partial,
    /// Sealed to this server, and what is inside is no knock with a certificate.
    Body,
    /// Made for another server, which it was opened by: somebody sealed it again for this one.
    OtherServer,
    /// Names a certificate by its hash that is not in the directory of large ones.
    UnknownLeaf,
    /// Shows a certificate that cannot be read, or whose key is of another kind than clients may have.
    Certificate,
    /// Not signed by the owner of the certificate that it shows, or signed for another packet.
    Signature,
    /// Shows a certificate that none of our authorities issued.
    Issuer,
}

impl Drop {
    /// Every reason; a reason's place here is its [`index`](Self::index).
    pub const ALL: [Self; 15] = [
        Self::Method,
        Self::Length,
        Self::Mac,
        Self::Repeat,
        Self::Budget,
        Self::Key,
        Self::UnknownClient,
        Self::Code,
        Self::Partial,
        Self::Body,
        Self::OtherServer,
        Self::UnknownLeaf,
        Self::Certificate,
        Self::Signature,
        Self::Issuer,
    ];

    /// A number below `ALL.len()`, for an array of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Length => "length",
            Self::Mac => "mac",
            Self::Repeat => "repeat",
            Self::Budget => "budget",
            Self::Key => "key",
            Self::UnknownClient => "unknown-client",
            Self::Code => "code",
            Self::Partial => "partial",
            Self::Body => "body",
            Self::OtherServer => "other-server",
            Self::UnknownLeaf => "unknown-leaf",
            Self::Certificate => "certificate",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
        }
    }

    /// What it means, and what to do, for whoever looks for a knock that did not work.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Method => {
                "no method in use knocks with such a packet; list the method in a profile, then reload"
            }
            Self::Length => {
                "no knock has this length; it comes from another program, or from another release"
            }
            Self::Mac => {
                "not made with this server's gate key, or damaged on the way; if it is a client of this server, make \
                 a new bundle for it"
            }
            Self::Repeat => "a copy of a packet that came before it; clients send each knock three times",
            Self::Budget => {
                "over the limit on handshakes, of this client or network or of all; raise handshakes_per_source or \
                 handshakes_per_second if these are your clients"
            }
            Self::Key => {
                "not sealed to this server, or not by the client that it names, or with another psk; make a new \
                 bundle for the client"
            }
            Self::UnknownClient => {
                "from a client that no enabled profile with this method has; look at the profile's public_key, psk, \
                 enabled and methods"
            }
            Self::Code => {
                "a SYN to the knock port without a code that is good now; if a client sent it, look at both clocks, and \
                 for a firewall that rewrites sequence numbers or timestamps"
            }
            Self::Partial => {
                "one knock of a sequence, which this one does not complete; if none does, look at the order, the \
                 protocols and the time limits"
            }
            Self::Body => {
                "sealed to this server, and what is inside is no knock with a certificate; bring both to the same release"
            }
            Self::OtherServer => {
                "a knock with a certificate that was made for another server, opened there and sealed again for this \
                 one; somebody with that server's key and this one's gate key did it"
            }
            Self::UnknownLeaf => {
                "names its certificate by a hash that is not among [certificate_authority] leaves; put the certificate \
                 there"
            }
            Self::Certificate => {
                "shows a certificate that cannot be read, or a key that clients cannot have; use Ed25519, P-256, P-384 \
                 or RSA of 2048 to 4096 bits"
            }
            Self::Signature => {
                "not signed by the owner of the certificate that it shows, or signed for another packet; if a client \
                 sent it, look whether its key belongs to its certificate"
            }
            Self::Issuer => {
                "shows a certificate that none of the authorities issued; add the authority to [certificate_authority] \
                 ca if it is one of yours"
            }
        }
    }

    /// At which of the steps of a packet's way it was let go of.
    #[must_use]
    pub const fn step(self) -> &'static str {
        match self {
            Self::UnknownClient => "client",
            Self::Partial => "sequence",
            Self::Body
            | Self::OtherServer
            | Self::UnknownLeaf
            | Self::Certificate
            | Self::Signature
            | Self::Issuer => "certificate",
            other => other.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_its_own_counter_and_name() {
        for (index, drop) in Drop::ALL.iter().enumerate() {
            assert_eq!(drop.index(), index);
            assert!(Drop::ALL.iter().all(|other| other == drop || other.name() != drop.name()));
        }
    }

    #[test]
    fn a_service_tag_is_the_beginning_of_a_hash() {
        // printf 'knockd-rs servicessh' | sha256sum
        assert_eq!(service_tag("ssh"), ServiceTag([0x7e, 0xbf, 0xe0, 0x8c]));
        assert_ne!(service_tag("ssh"), service_tag("web"));
    }
}
