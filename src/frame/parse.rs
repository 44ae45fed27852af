//! The parser, outermost header first. `etherparse` reads Ethernet, VLAN tags, IP, UDP and TCP; the cooked, loopback
//! and NFLOG headers it does not know (or not for every kind of interface) are slice patterns here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Slice, IpNumber, IpPayloadSlice, Ipv4Slice, Ipv6ExtensionSlice, Ipv6Slice,
    SingleVlanSlice, TcpOptionElement, TcpSlice, UdpHeaderSlice,
};

use super::{Body, Link, Refused, Segment, Syn};

/// How many VLAN tags a frame may carry: one (802.1Q) or two (802.1ad, "QinQ").
pub const MAX_TAGS: usize = 2;

/// How many bytes of IPv6 extension headers a packet may carry. A knock needs none; this leaves room for what
/// networks add on the way, and bounds what one packet can make the parser walk through.
pub const MAX_EXTENSIONS: usize = 256;

/// Takes a captured frame apart. `wire_len` is the frame's length on the wire in bytes, which is more than
/// `frame` holds when the capture cut it short.
///
/// # Errors
/// The reason why this is no whole UDP datagram or bare SYN from an address that can be answered.
pub fn parse(link: Link, frame: &[u8], wire_len: usize) -> Result<Segment<'_>, Refused> {
    if frame.len() != wire_len {
        return Err(Refused::Truncated);
    }
    match link {
        Link::Ethernet => ethernet(frame),
        Link::LinuxSll => linux_sll(frame),
        Link::LinuxSll2 => linux_sll2(frame),
        Link::RawIp => raw_ip(frame),
        Link::Loopback => loopback(frame),
        Link::Nflog => nflog(frame),
    }
}

fn ethernet(frame: &[u8]) -> Result<Segment<'_>, Refused> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).map_err(|_| Refused::Link)?;
    tagged(ethernet.ether_type(), ethernet.payload_slice())
}

/// `LINKTYPE_LINUX_SLL`: packet type, ARPHRD type, address length (2 bytes each), address (8), protocol (2).
/// Not etherparse's reader: that one knows five ARPHRD types, and tun, PPP and tunnels have others.
fn linux_sll(frame: &[u8]) -> Result<Segment<'_>, Refused> {
    let (header, rest) = frame.split_first_chunk::<16>().ok_or(Refused::Link)?;
    let [.., high, low] = *header;
    tagged(EtherType(u16::from_be_bytes([high, low])), rest)
}

/// `LINKTYPE_LINUX_SLL2`: protocol (2), reserved (2), interface (4), ARPHRD type (2), packet type (1), address
/// length (1), address (8).
fn linux_sll2(frame: &[u8]) -> Result<Segment<'_>, Refused> {
    let (header, rest) = frame.split_first_chunk::<20>().ok_or(Refused::Link)?;
    let [high, low, ..] = *header;
    tagged(EtherType(u16::from_be_bytes([high, low])), rest)
}

fn raw_ip(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        _ => Err(Refused::NotIp),
    }
}

/// `LINKTYPE_NULL` has the family in the byte order of whoever wrote the capture, `LINKTYPE_LOOP` in network
/// order: either is read. `AF_INET` is 2 everywhere, `AF_INET6` 10, 24, 28 or 30.
fn loopback(frame: &[u8]) -> Result<Segment<'_>, Refused> {
    match frame {
        [2, 0, 0, 0, packet @ ..] | [0, 0, 0, 2, packet @ ..] => ipv4(packet),
        [10 | 24 | 28 | 30, 0, 0, 0, packet @ ..] | [0, 0, 0, 10 | 24 | 28 | 30, packet @ ..] => ipv6(packet),
        [_, _, _, _, ..] => Err(Refused::NotIp),
        _ => Err(Refused::Link),
    }
}

/// `LINKTYPE_NFLOG`: family (1), version (1, zero), group (2), then attributes: length (2, with its own four
/// bytes), type (2), value, padding to four bytes. Lengths and types are in host order (libpcap swaps them when
/// it reads a file). The packet is the value of `NFULA_PAYLOAD` (`linux/netfilter/nfnetlink_log.h`).
fn nflog(frame: &[u8]) -> Result<Segment<'_>, Refused> {
    const NFULA_PAYLOAD: u16 = 9;
    const TYPE_MASK: u16 = 0x3fff;
    let [family, 0, _, _, attributes @ ..] = frame else { return Err(Refused::Link) };
    let mut attributes = attributes;
    while let [l0, l1, t0, t1, rest @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = length.checked_sub(4).and_then(|length| rest.get(..length)).ok_or(Refused::Link)?;
        if u16::from_ne_bytes([*t0, *t1]) & TYPE_MASK == NFULA_PAYLOAD {
            return match family {
                2 => ipv4(value),
                10 => ipv6(value),
                _ => raw_ip(value),
            };
        }
        attributes = rest.get(value.len().next_multiple_of(4)..).unwrap_or_default();
    }
    Err(Refused::Link)
}

fn tagged(mut ether_type: EtherType, mut payload: &[u8]) -> Result<Segment<'_>, Refused> {
    for _ in 0..=MAX_TAGS {
        match ether_type {
            EtherType::IPV4 => return ipv4(payload),
            EtherType::IPV6 => return ipv6(payload),
            EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME => {
                let tag = SingleVlanSlice::from_slice(payload).map_err(|_| Refused::Tags)?;
                (ether_type, payload) = (tag.ether_type(), tag.payload_slice());
            }
            _ => return Err(Refused::NotIp),
        }
    }
    Err(Refused::Tags)
}

fn ipv4(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    let packet = Ipv4Slice::from_slice(packet).map_err(|_| Refused::Header)?;
    if packet.is_payload_fragmented() {
        return Err(Refused::Fragment);
    }
    if packet.extensions().auth.is_some() {
        return Err(Refused::Extension);
    }
    let header = packet.header();
    let source = answerable_v4(header.source_addr())?;
    transport(source.into(), header.destination_addr().into(), packet.payload().clone())
}

fn ipv6(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    let packet = Ipv6Slice::from_slice(packet).map_err(|_| Refused::Header)?;
    let header = packet.header();
    if header.payload_length() == 0 {
        // Nothing, or a jumbogram (RFC 2675); etherparse would take the rest of the frame.
        return Err(Refused::Header);
    }
    let extensions = packet.extensions();
    if extensions.slice().len() > MAX_EXTENSIONS {
        return Err(Refused::Extension);
    }
    extensions.clone().into_iter().try_for_each(|extension| is_harmless(&extension))?;
    let source = answerable_v6(header.source_addr())?;
    transport(source.into(), header.destination_addr().into(), packet.payload().clone())
}

fn is_harmless(extension: &Ipv6ExtensionSlice<'_>) -> Result<(), Refused> {
    match extension {
        Ipv6ExtensionSlice::HopByHop(_) | Ipv6ExtensionSlice::DestinationOptions(_) => Ok(()),
        // Next header, length, type, segments left (RFC 8200 section 4.4): the last station has none left.
        Ipv6ExtensionSlice::Routing(routing) => match routing.slice() {
            [_, _, _, 0, ..] => Ok(()),
            _ => Err(Refused::Extension),
        },
        Ipv6ExtensionSlice::Fragment(_) => Err(Refused::Fragment),
        Ipv6ExtensionSlice::Authentication(_) => Err(Refused::Extension),
    }
}

fn answerable_v4(source: Ipv4Addr) -> Result<Ipv4Addr, Refused> {
    let no_host = source.is_unspecified() || source.is_multicast() || source.is_broadcast();
    if no_host { Err(Refused::Source) } else { Ok(source) }
}

fn answerable_v6(source: Ipv6Addr) -> Result<Ipv6Addr, Refused> {
    let no_host = source.is_unspecified() || source.is_multicast() || source.to_ipv4_mapped().is_some();
    if no_host { Err(Refused::Source) } else { Ok(source) }
}

fn transport(
    source: IpAddr,
    destination: IpAddr,
    carried: IpPayloadSlice<'_>,
) -> Result<Segment<'_>, Refused> {
    let (port, body) = match carried.ip_number {
        IpNumber::UDP => udp(carried.payload)?,
        IpNumber::TCP => tcp(carried.payload)?,
        _ => return Err(Refused::Transport),
    };
    Ok(Segment { source, destination, port, body })
}

fn udp(carried: &[u8]) -> Result<(u16, Body<'_>), Refused> {
    let header = UdpHeaderSlice::from_slice(carried).map_err(|_| Refused::UdpLength)?;
    if usize::from(header.length()) != carried.len() {
        return Err(Refused::UdpLength);
    }
    let payload = carried.get(header.slice().len()..).ok_or(Refused::UdpLength)?;
    Ok((header.destination_port(), Body::Datagram(payload)))
}

/// A SYN with data (RFC 7413, TCP Fast Open) is not what a kernel sends unasked, and nothing reads the data.
fn tcp(carried: &[u8]) -> Result<(u16, Body<'_>), Refused> {
    let segment = TcpSlice::from_slice(carried).map_err(|_| Refused::TcpHeader)?;
    let bare = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
    if !bare || !segment.payload().is_empty() {
        return Err(Refused::NotSyn);
    }
    Ok((
        segment.destination_port(),
        Body::Syn(Syn { sequence: segment.sequence_number(), timestamp: timestamp(&segment) }),
    ))
}

/// TSval, if every option before it is well-formed.
fn timestamp(segment: &TcpSlice<'_>) -> Option<u32> {
    segment.options_iterator().map_while(Result::ok).find_map(|option| match option {
        TcpOptionElement::Timestamp(value, _) => Some(value),
        _ => None,
    })
}
