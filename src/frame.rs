//! Link-layer bytes → [`Segment`]: the first thing done with what a stranger sent.
//!
//! [`parse`] takes a frame apart to a UDP payload or a bare SYN, or says why not. It allocates nothing, keeps
//! nothing and never fails otherwise. Fragments are refused, never put together: a knock fits one packet, and
//! reassembly is state that strangers could grow. Checksums are not looked at: receive offload leaves them
//! unfinished on local traffic, and a knock is authenticated by what it carries.
#![forbid(unsafe_code)]

#[cfg(feature = "daemon")]
mod parse;

use std::fmt;
use std::net::IpAddr;

use crate::text::Protocol;

#[cfg(feature = "daemon")]
pub use parse::{MAX_EXTENSIONS, MAX_TAGS, parse};

/// A whole UDP datagram or a bare TCP SYN, in a whole, unfragmented IP packet: all that a knock can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it, as far as the packet says.
    pub source: IpAddr,
    /// To which address.
    pub destination: IpAddr,
    /// To which port.
    pub port: u16,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a [`Segment`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The payload of a UDP datagram.
    Datagram(&'a [u8]),
    /// The fields of a TCP segment that asks for a connection.
    Syn(Syn),
}

/// What is read of a TCP segment whose flags are SYN without ACK, RST and FIN, and which carries no data (RFC 9293
/// section 3.1). ECE and CWR may be set: they offer congestion notification (RFC 3168 section 6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// The initial sequence number.
    pub sequence: u32,
    /// TSval of the timestamp option (RFC 7323 section 3.2), where the options are well-formed and hold one.
    pub timestamp: Option<u32>,
}

impl<'a> Segment<'a> {
    /// TCP for a SYN, UDP for a datagram.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.body {
            Body::Datagram(_) => Protocol::Udp,
            Body::Syn(_) => Protocol::Tcp,
        }
    }

    /// The payload, if this is a datagram.
    #[must_use]
    pub fn datagram(&self) -> Option<&'a [u8]> {
        match self.body {
            Body::Datagram(payload) => Some(payload),
            Body::Syn(_) => None,
        }
    }

    /// The fields of a SYN, if this is one.
    #[must_use]
    pub fn syn(&self) -> Option<Syn> {
        match self.body {
            Body::Syn(syn) => Some(syn),
            Body::Datagram(_) => None,
        }
    }
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
    /// Another transport than UDP and TCP.
    Transport,
    /// The UDP length is not exactly what the IP packet carries.
    UdpLength,
    /// A TCP header that is cut short, or longer than what the IP packet carries.
    TcpHeader,
    /// A TCP segment that is no bare SYN: other flags, or data.
    NotSyn,
}

impl Refused {
    const COUNT: usize = Self::NotSyn as usize + 1;

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
        Self::Transport,
        Self::UdpLength,
        Self::TcpHeader,
        Self::NotSyn,
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
            Self::Transport => "transport",
            Self::UdpLength => "udp-length",
            Self::TcpHeader => "tcp-header",
            Self::NotSyn => "not-syn",
        }
    }

    /// What it means, and what to do, for whoever looks for a knock that did not work.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Truncated => {
                "longer on the wire than what was captured; record whole packets: tcpdump -s 0"
            }
            Self::Link => {
                "the link-layer header is cut short, or of another form than the file says; record it anew"
            }
            Self::Tags => "more than two VLAN tags, or one that is cut short; a knock may carry two at most",
            Self::NotIp => "neither IPv4 nor IPv6; nothing to do",
            Self::Header => {
                "the IP header contradicts itself or the length of the packet; it was damaged on the way"
            }
            Self::Fragment => {
                "a fragment of an IP packet; a knock must come in one piece, so raise the MTU on its way"
            }
            Self::Extension => "an IPv6 extension header that is not read; let the client send without it",
            Self::Source => "a source address that no host has; nothing could be opened for it",
            Self::Transport => "another transport than UDP and TCP; nothing to do",
            Self::UdpLength => "the UDP length is not that of the packet; it was damaged on the way",
            Self::TcpHeader => "a TCP header that is cut short; it was damaged on the way",
            Self::NotSyn => "a TCP segment that is no bare SYN: a part of a connection; nothing to do",
        }
    }

    /// At which of the steps of a packet's way it was refused.
    #[must_use]
    pub const fn step(self) -> &'static str {
        match self {
            Self::Truncated | Self::Link | Self::Tags => "link",
            Self::NotIp | Self::Header | Self::Fragment | Self::Extension | Self::Source => "ip",
            Self::Transport | Self::UdpLength | Self::TcpHeader | Self::NotSyn => "transport",
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
