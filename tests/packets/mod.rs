//! Packets, written out byte by byte so that they do not come from the code that reads them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its share")]

pub mod recording;

pub const V4: [[u8; 4]; 2] = [[192, 0, 2, 7], [198, 51, 100, 1]];
pub const V6: [[u8; 16]; 2] = [
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
    [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const DOT1Q: u16 = 0x8100;
pub const DOT1AD: u16 = 0x88a8;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION: u8 = 60;

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}

/// From port 40000; checksum 0.
pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    [&40000_u16.to_be_bytes(), &port.to_be_bytes(), &short(payload.len() + 8), &[0, 0], payload].concat()
}

pub const SYN: u8 = 2;

/// The options of Linux: maximum segment size, SACK permitted, timestamps, no operation, window scale.
pub fn linux_options(timestamp: u32) -> Vec<u8> {
    [&[2, 4, 5, 180, 4, 2, 8, 10], &timestamp.to_be_bytes()[..], &[0, 0, 0, 0, 1, 3, 3, 7]].concat()
}

/// From port 40000; checksum 0.
pub fn tcp(port: u16, sequence: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let ports = [40000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    let rest = [&[0, 0, 0, 0, words << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0], options, data].concat();
    [&ports[..], &sequence.to_be_bytes(), &rest].concat()
}

/// A SYN as Linux sends it.
pub fn syn(port: u16, sequence: u32, timestamp: u32) -> Vec<u8> {
    tcp(port, sequence, SYN, &linux_options(timestamp), &[])
}

/// An IPv4 packet to this address.
pub fn ipv4_to(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_packet([source, destination], 0, &[], protocol, payload)
}

pub fn ipv4(source: [u8; 4], fragment: u16, options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_packet([source, V4[1]], fragment, options, protocol, payload)
}

/// With a right checksum, so that it also passes a real stack.
fn ipv4_packet(
    [source, destination]: [[u8; 4]; 2],
    fragment: u16,
    options: &[u8],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let length = short(20 + options.len() + payload.len());
    let start = [&[0x40 | words, 0][..], &length, &[0, 1], &fragment.to_be_bytes(), &[64, protocol]].concat();
    let rest = [&source[..], &destination, options].concat();
    let sum: u32 =
        [&start[..], &rest].concat().chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !(u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap());
    [&start[..], &sum.to_be_bytes(), &rest, payload].concat()
}

pub fn ipv6(source: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x60, 0, 0, 0], &short(payload.len())[..], &[next, 64], &source, &V6[1], payload].concat()
}

/// An extension header of eight bytes, padded with PadN: what comes next, four bytes of its own.
pub fn extension(next: u8, own: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[next, 0], &own[..], &[0, 0, 0, 0], payload].concat()
}

/// An IPv6 packet with a chain of eight-byte extension headers before the UDP header.
pub fn ipv6_with(chain: &[u8], port: u16, payload: &[u8]) -> Vec<u8> {
    ipv6_chain(chain, UDP, udp(port, payload))
}

/// The same before any transport.
pub fn ipv6_chain(chain: &[u8], transport: u8, mut packet: Vec<u8>) -> Vec<u8> {
    let mut next = transport;
    for header in chain.iter().rev() {
        let own = if *header == ROUTING { [4, 0] } else { [1, 4] };
        packet = extension(next, own, &packet);
        next = *header;
    }
    ipv6(V6[0], next, &packet)
}

pub fn knock4(port: u16, length: usize) -> Vec<u8> {
    ipv4(V4[0], 0, &[], UDP, &udp(port, &vec![0x5a; length]))
}

pub fn knock6(port: u16, length: usize) -> Vec<u8> {
    ipv6(V6[0], UDP, &udp(port, &vec![0x5a; length]))
}

/// To the broadcast address, so that any interface takes it.
pub fn ethernet(tags: &[(u16, u16)], ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 7]].concat();
    for (tpid, id) in tags {
        frame.extend([tpid.to_be_bytes(), id.to_be_bytes()].concat());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    frame
}

pub fn sll(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&[0, 0, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &ether_type.to_be_bytes()[..], packet].concat()
}

pub fn sll2(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&ether_type.to_be_bytes()[..], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 7, 0, 0], packet].concat()
}

/// A prefix attribute of an odd length before the payload, as the kernel writes them.
pub fn nflog(family: u8, packet: &[u8]) -> Vec<u8> {
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(value.len() + 4).unwrap();
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value, &padding].concat()
    };
    [&[family, 0, 0, 5][..], &attribute(10, b"knock\0"), &attribute(9, packet)].concat()
}

/// A capture file: microseconds, this machine's byte order (pcap-savefile(5)).
pub fn pcap_file(linktype: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [
        0xa1b2_c3d4,
        if cfg!(target_endian = "little") { 0x0004_0002 } else { 0x0002_0004 },
        0,
        0,
        65535,
        linktype,
    ] {
        file.extend(u32::to_ne_bytes(word));
    }
    for (second, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        file.extend([second, 0, length, length].map(u32::to_ne_bytes).concat());
        file.extend(frame);
    }
    file
}
