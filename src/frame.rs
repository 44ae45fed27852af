//! Link-layer bytes → [`Segment`]: the first thing done with what a stranger sent.
//!
//! [`parse`] takes a frame apart to the UDP payload, or says why not. It allocates nothing, keeps nothing and
//! never fails otherwise. Fragments are refused, never put together: a knock fits one packet, and reassembly
//! is state that strangers could grow. The UDP checksum is not looked at: receive offload leaves it unfinished
//! on local traffic, and a knock is authenticated as a whole.
#![forbid(unsafe_code)]

#[cfg(feature = "daemon")]
mod parse;

use std::fmt;
use std::net::IpAddr;

#[cfg(feature = "daemon")]
pub use parse::{MAX_EXTENSIONS, MAX_TAGS, parse};

/// A whole UDP datagram in a whole, unfragmented IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it, as far as the packet says.
    pub source: IpAddr,
    /// To which address.
    pub destination: IpAddr,
    /// To which UDP port.
    pub port: u16,
    /// The datagram's payload.
    pub payload: &'a [u8],
}

/// What stands before the IP packet in a frame: libpcap's link-layer types (`pcap-linktype(7)`), as far as
/// this program reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// `LINKTYPE_ETHERNET`: 14 bytes, then up to two VLAN tags.
    Ethernet,
    /// `LINKTYPE_LINUX_SLL`: the 16 bytes of the device `any`.
    LinuxSll,
    /// `LINKTYPE_LINUX_SLL2`: 20 bytes, with the number of the interface.
    LinuxSll2,
    /// `LINKTYPE_RAW`, `LINKTYPE_IPV4`, `LINKTYPE_IPV6`: nothing (tun, WireGuard).
    RawIp,
    /// `LINKTYPE_NULL` and `LINKTYPE_LOOP`: four bytes of address family.
    Loopback,
    /// `LINKTYPE_NFLOG`: what the firewall's `log group N` handed over.
    Nflog,
}

impl Link {
    /// Every kind of link.
    pub const ALL: [Self; 6] =
        [Self::Ethernet, Self::LinuxSll, Self::LinuxSll2, Self::RawIp, Self::Loopback, Self::Nflog];
}

/// Why a frame is no [`Segment`]. Counted, never logged: all of it is what anybody can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The frame was longer on the wire than what was captured.
    Truncated,
    /// The link-layer header is too short, or of a form that the link type does not have.
    Link,
    /// More than two VLAN tags, or a tag cut short.
    Tags,
    /// Something other than IPv4 or IPv6.
    NotIp,
    /// An IP header that contradicts itself or the length of the frame.
    Header,
    /// A fragment, or an IPv6 packet with a fragment header: even an atomic one (RFC 6946), which nobody who
    /// sends whole packets writes.
    Fragment,
    /// An extension header other than hop-by-hop, routing or destination options, more than
    /// 256 bytes of them, or a routing header that has further stations to visit.
    Extension,
    /// A source that cannot be answered: unspecified, multicast, broadcast, or IPv4 dressed as IPv6
    /// (`::ffff:0:0/96`, RFC 4291 section 2.5.5.2), which would slip past rules made for IPv4.
    Source,
    /// Another transport than UDP.
    NotUdp,
    /// The UDP length is not exactly what the IP packet carries.
    UdpLength,
}

impl Refused {
    const COUNT: usize = Self::UdpLength as usize + 1;

    /// Every reason, each at its own [`index`](Self::index).
    pub const ALL: [Self; Self::COUNT] = [
        Self::Truncated,
        Self::Link,
        Self::Tags,
        Self::NotIp,
        Self::Header,
        Self::Fragment,
        Self::Extension,
        Self::Source,
        Self::NotUdp,
        Self::UdpLength,
    ];

    /// The place of this reason in [`ALL`](Self::ALL), for an array of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name under which `status` counts it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Link => "link",
            Self::Tags => "tags",
            Self::NotIp => "not-ip",
            Self::Header => "header",
            Self::Fragment => "fragment",
            Self::Extension => "extension",
            Self::Source => "source",
            Self::NotUdp => "not-udp",
            Self::UdpLength => "udp-length",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        for (place, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert_eq!(Refused::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }
}
