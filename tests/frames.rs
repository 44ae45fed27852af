//! Frames of every kind, whole and broken, and what the parser and the packet filter make of them.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod packets;

use std::net::{IpAddr, Ipv6Addr};

use knockd_rs::capture::{Filter, Source, open};
use knockd_rs::frame::{Body, Link, Refused, Segment, Syn, parse};
use packets::{
    AUTHENTICATION, DESTINATION, DOT1AD, DOT1Q, FRAGMENT, HOP_BY_HOP, IPV4, IPV6, ROUTING, SYN, TCP, UDP, V4,
    V6, ethernet, extension, ipv4, ipv6, ipv6_chain, ipv6_with, knock4, knock6, linux_options, nflog,
    pcap_file, sll, sll2, syn, tcp, udp,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

const PORT: u16 = 62201;

fn whole(link: Link, frame: &[u8]) -> Result<Segment<'_>, Refused> {
    parse(link, frame, frame.len())
}

fn raw(packet: &[u8]) -> Result<Segment<'_>, Refused> {
    whole(Link::RawIp, packet)
}

const PAYLOAD: [u8; 176] = [0x5a; 176];

fn segment4() -> Segment<'static> {
    Segment { source: V4[0].into(), destination: V4[1].into(), port: PORT, body: Body::Datagram(&PAYLOAD) }
}

fn segment6() -> Segment<'static> {
    Segment { source: V6[0].into(), destination: V6[1].into(), port: PORT, body: Body::Datagram(&PAYLOAD) }
}

#[test]
fn both_families_are_read_on_every_kind_of_link() {
    let (v4, v6) = (knock4(PORT, 176), knock6(PORT, 176));
    let ring = |family: &[u8], packet: &[u8]| [family, packet].concat();
    let frames: [(Link, Vec<u8>, Vec<u8>); 8] = [
        (Link::Ethernet, ethernet(&[], IPV4, &v4), ethernet(&[], IPV6, &v6)),
        (Link::LinuxSll, sll(IPV4, &v4), sll(IPV6, &v6)),
        (Link::LinuxSll2, sll2(IPV4, &v4), sll2(IPV6, &v6)),
        (Link::RawIp, v4.clone(), v6.clone()),
        (Link::Loopback, ring(&[2, 0, 0, 0], &v4), ring(&[10, 0, 0, 0], &v6)),
        (Link::Loopback, ring(&[0, 0, 0, 2], &v4), ring(&[0, 0, 0, 30], &v6)),
        (Link::Nflog, nflog(2, &v4), nflog(10, &v6)),
        (Link::Nflog, nflog(7, &v4), nflog(7, &v6)),
    ];
    for (link, frame4, frame6) in &frames {
        assert_eq!(whole(*link, frame4), Ok(segment4()), "{link:?}");
        assert_eq!(whole(*link, frame6), Ok(segment6()), "{link:?}");
    }
}

#[test]
fn one_vlan_tag_or_two_are_read_and_a_third_is_refused() {
    let tags = [(DOT1AD, 200), (DOT1Q, 100), (DOT1Q, 7)];
    for count in 0..=2 {
        let frame = ethernet(&tags[..count], IPV4, &knock4(PORT, 176));
        assert_eq!(whole(Link::Ethernet, &frame), Ok(segment4()), "{count} tags");
    }
    let frame = ethernet(&tags, IPV4, &knock4(PORT, 176));
    assert_eq!(whole(Link::Ethernet, &frame), Err(Refused::Tags));
    // libpcap writes the tag that the kernel took out back into a cooked frame of version 1.
    let tagged = sll(DOT1Q, &[&[0, 100, 8, 0], &knock4(PORT, 176)[..]].concat());
    assert_eq!(whole(Link::LinuxSll, &tagged), Ok(segment4()));
    assert_eq!(whole(Link::Ethernet, &ethernet(&[(DOT1Q, 100)], 0, &[])[..15]), Err(Refused::Tags));
}

#[test]
fn ipv4_options_are_skipped() {
    let packet = ipv4(V4[0], 0, &[148, 4, 0, 0, 1, 1, 1, 0], UDP, &udp(PORT, &PAYLOAD));
    assert_eq!(raw(&packet), Ok(segment4()));
}

#[test]
fn ipv6_extension_headers_are_followed_to_the_datagram() {
    for chain in
        [&[HOP_BY_HOP][..], &[DESTINATION], &[ROUTING], &[HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION]]
    {
        assert_eq!(raw(&ipv6_with(chain, PORT, &PAYLOAD)), Ok(segment6()), "{chain:?}");
    }
}

#[test]
fn extension_headers_that_a_knock_never_has_are_refused() {
    let datagram = udp(PORT, &PAYLOAD);
    let with = |first, own, inner: &[u8]| ipv6(V6[0], first, &extension(UDP, own, inner));
    // The packet is still on its way to another host.
    assert_eq!(raw(&with(ROUTING, [4, 1], &datagram)), Err(Refused::Extension));
    // The authentication header counts its length in units of four, less two: 16 bytes.
    let authentication = [&[UDP, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9], &datagram[..]].concat();
    assert_eq!(raw(&ipv6(V6[0], AUTHENTICATION, &authentication)), Err(Refused::Extension));
    assert_eq!(raw(&ipv4(V4[0], 0, &[], AUTHENTICATION, &authentication)), Err(Refused::Extension));
    // 32 headers of 8 bytes are the limit, 33 are too many.
    assert_eq!(raw(&ipv6_with(&[DESTINATION; 32], PORT, &PAYLOAD)), Ok(segment6()));
    assert_eq!(raw(&ipv6_with(&[DESTINATION; 33], PORT, &PAYLOAD)), Err(Refused::Extension));
    // Hop-by-hop comes first or not at all (RFC 8200 section 4.1).
    assert_eq!(raw(&ipv6_with(&[DESTINATION, HOP_BY_HOP], PORT, &PAYLOAD)), Err(Refused::Header));
    // No next header.
    assert_eq!(raw(&ipv6(V6[0], 59, &datagram)), Err(Refused::Transport));
}

#[test]
fn fragments_are_refused_first_later_and_atomic() {
    let datagram = udp(PORT, &PAYLOAD);
    for fragment in [0x2000, 0x0001, 0x3fff] {
        assert_eq!(raw(&ipv4(V4[0], fragment, &[], UDP, &datagram)), Err(Refused::Fragment), "{fragment:#x}");
    }
    let dont_fragment = 0x4000;
    assert_eq!(raw(&ipv4(V4[0], dont_fragment, &[], UDP, &datagram)), Ok(segment4()));
    for own in [[0, 0], [0, 1], [0, 8]] {
        let packet = ipv6(V6[0], FRAGMENT, &extension(UDP, own, &datagram));
        assert_eq!(raw(&packet), Err(Refused::Fragment), "{own:?}");
    }
}

#[test]
fn a_frame_that_was_captured_in_part_is_refused() {
    let frame = ethernet(&[], IPV4, &knock4(PORT, 176));
    assert_eq!(parse(Link::Ethernet, &frame, frame.len() + 1), Err(Refused::Truncated));
    for length in 0..frame.len() {
        let refused = whole(Link::Ethernet, &frame[..length]).unwrap_err();
        assert_eq!(refused, if length < 14 { Refused::Link } else { Refused::Header }, "{length} bytes");
    }
}

#[test]
fn padding_after_the_ip_packet_is_ignored_and_inside_it_refused() {
    let frame = [&ethernet(&[], IPV4, &knock4(PORT, 176))[..], &[0; 20]].concat();
    assert_eq!(whole(Link::Ethernet, &frame), Ok(segment4()));
    let inside = |datagram: &[u8]| [ipv4(V4[0], 0, &[], UDP, datagram), ipv6(V6[0], UDP, datagram)];
    let mut longer = udp(PORT, &PAYLOAD);
    longer.push(0);
    let mut shorter = udp(PORT, &PAYLOAD);
    shorter.pop();
    let mut none = udp(PORT, &PAYLOAD);
    none[4..6].fill(0);
    for packet in [longer, shorter, none, vec![0; 7]].iter().flat_map(|datagram| inside(datagram)) {
        assert_eq!(raw(&packet), Err(Refused::UdpLength));
    }
}

#[test]
fn a_jumbogram_is_refused() {
    let mut packet = knock6(PORT, 176);
    packet[4..6].fill(0);
    assert_eq!(raw(&packet), Err(Refused::Header));
}

#[test]
fn sources_that_cannot_be_answered_are_refused() {
    for source in [[0; 4], [255; 4], [224, 0, 0, 1], [239, 255, 255, 250]] {
        assert_eq!(raw(&ipv4(source, 0, &[], UDP, &udp(PORT, &PAYLOAD))), Err(Refused::Source), "{source:?}");
    }
    for source in ["::", "ff02::1", "::ffff:192.0.2.7"] {
        let octets = source.parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(raw(&ipv6(octets, UDP, &udp(PORT, &PAYLOAD))), Err(Refused::Source), "{source}");
    }
    // A host may well have these.
    for source in ["fe80::7", "::1"] {
        let octets = source.parse::<Ipv6Addr>().unwrap().octets();
        let packet = ipv6(octets, UDP, &udp(PORT, &PAYLOAD));
        assert_eq!(raw(&packet).unwrap().source, source.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn what_is_neither_udp_nor_tcp_over_ip_is_named() {
    assert_eq!(whole(Link::Ethernet, &ethernet(&[], 0x0806, &[0; 28])), Err(Refused::NotIp));
    assert_eq!(whole(Link::LinuxSll2, &sll2(4, &[0; 28])), Err(Refused::NotIp));
    assert_eq!(raw(&[0x50; 40]), Err(Refused::NotIp));
    assert_eq!(whole(Link::Loopback, &[7, 0, 0, 0, 0x45]), Err(Refused::NotIp));
    assert_eq!(raw(&ipv4(V4[0], 0, &[], 132, &[0; 20])), Err(Refused::Transport));
    // The version inside has to be the one that the outer header promised.
    assert_eq!(whole(Link::Ethernet, &ethernet(&[], IPV4, &knock6(PORT, 176))), Err(Refused::Header));
    assert_eq!(whole(Link::Nflog, &[2, 1, 0, 5]), Err(Refused::Link));
    assert_eq!(whole(Link::Nflog, &[2, 0, 0, 5, 3, 0, 9, 0]), Err(Refused::Link));
    assert_eq!(whole(Link::Nflog, &[2, 0, 0, 5]), Err(Refused::Link));
    for (link, length) in [(Link::LinuxSll, 16), (Link::LinuxSll2, 20), (Link::Loopback, 4), (Link::Nflog, 4)]
    {
        assert_eq!(whole(link, &vec![0; length - 1]), Err(Refused::Link), "{link:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_whatever_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for link in Link::ALL {
            let _ = whole(link, &bytes);
        }
    }

    /// Arbitrary bytes seldom get past the first header, so a real frame is damaged too.
    #[test]
    fn no_damage_makes_the_parser_panic_or_read_past_the_packet(
        which in 0..4_usize,
        damage in prop::collection::vec((0..96_usize, any::<u8>()), 1..6),
        cut in 0..320_usize,
    ) {
        let chain = [HOP_BY_HOP, ROUTING, DESTINATION];
        let packet = [knock4(PORT, 176), knock6(PORT, 176), ipv6_with(&chain, PORT, &PAYLOAD),
            ipv4(V4[0], 0, &[1; 12], UDP, &udp(PORT, &PAYLOAD))][which].clone();
        let family = if matches!(which, 0 | 3) { (IPV4, 2) } else { (IPV6, 10) };
        let frames = [(Link::Ethernet, ethernet(&[(DOT1Q, 1)], family.0, &packet)), (Link::LinuxSll, sll(family.0, &packet)),
            (Link::LinuxSll2, sll2(family.0, &packet)), (Link::RawIp, packet.clone()), (Link::Nflog, nflog(family.1, &packet)),
            (Link::Loopback, [&[family.1, 0, 0, 0], &packet[..]].concat())];
        for (link, mut frame) in frames {
            for (place, value) in &damage {
                frame[*place] = *value;
            }
            frame.truncate(cut.max(96));
            if let Ok(segment) = whole(link, &frame) {
                let payload = segment.datagram().unwrap_or_default();
                prop_assert!(payload.len() + 28 <= frame.len());
                prop_assert!(frame.windows(payload.len().max(1)).any(|part| part == payload) || payload.is_empty());
            }
        }
    }
}

#[test]
fn a_bare_syn_is_read_with_its_timestamp_in_both_families() {
    let body = Body::Syn(Syn { sequence: 0x0102_0304, timestamp: Some(0x0506_0708) });
    let segment = syn(443, 0x0102_0304, 0x0506_0708);
    let v4 = Segment { source: V4[0].into(), destination: V4[1].into(), port: 443, body };
    let v6 = Segment { source: V6[0].into(), destination: V6[1].into(), ..v4 };
    assert_eq!(raw(&ipv4(V4[0], 0, &[], TCP, &segment)), Ok(v4));
    assert_eq!(raw(&ipv6(V6[0], TCP, &segment)), Ok(v6));
    assert_eq!(raw(&ipv6_chain(&[HOP_BY_HOP, DESTINATION], TCP, segment)), Ok(v6));
}

#[test]
fn a_syn_that_offers_congestion_notification_is_one_and_every_other_flag_makes_it_none() {
    let with =
        |flags| raw(&ipv4(V4[0], 0, &[], TCP, &tcp(443, 7, flags, &linux_options(9), &[]))).map(|_| ());
    let (fin, rst, psh, ack, ece, cwr) = (1, 4, 8, 16, 64, 128);
    for flags in [SYN, SYN | ece | cwr, SYN | psh] {
        assert_eq!(with(flags), Ok(()), "{flags:#x}");
    }
    for flags in [0, ack, SYN | ack, SYN | fin, SYN | rst, rst, fin | ack] {
        assert_eq!(with(flags), Err(Refused::NotSyn), "{flags:#x}");
    }
}

#[test]
fn a_syn_without_a_sound_timestamp_has_none_and_one_with_data_is_refused() {
    let of = |options: &[u8], data: &[u8]| {
        raw(&ipv4(V4[0], 0, &[], TCP, &tcp(443, 7, SYN, options, data))).map(|segment| segment.syn())
    };
    let timestamp = |options: &[u8]| of(options, &[]).unwrap().unwrap().timestamp;
    assert_eq!(timestamp(&linux_options(9)), Some(9));
    assert_eq!(timestamp(&[]), None);
    // An option that is longer than what is left, before the timestamp.
    assert_eq!(timestamp(&[3, 200, 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1]), None);
    // The end of the options, before the timestamp.
    assert_eq!(timestamp(&[0, 0, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0]), None);
    assert_eq!(of(&linux_options(9), b"hello"), Err(Refused::NotSyn));
}

#[test]
fn a_tcp_header_that_is_cut_short_is_refused() {
    let segment = syn(443, 7, 9);
    for length in [0, 12, 19, 20, 39] {
        assert_eq!(raw(&ipv4(V4[0], 0, &[], TCP, &segment[..length])), Err(Refused::TcpHeader), "{length}");
    }
}

// The filter, as libpcap runs it: over a capture file of each link type.

/// Lengths of a knock: 176 to 1232 bytes in steps of 16.
fn filter() -> Filter {
    Filter::default().datagrams(PORT, 176..=1232, 16)
}

/// What passes the filter, as places in `frames`.
fn passing(linktype: u32, frames: &[Vec<u8>]) -> Vec<usize> {
    passing_by(&filter(), linktype, frames)
}

fn passing_by(filter: &Filter, linktype: u32, frames: &[Vec<u8>]) -> Vec<usize> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    std::fs::write(&path, pcap_file(linktype, frames)).unwrap();
    let opened = open(&Source::File(path), filter).unwrap();
    let Ok(mut replay) = opened.replay() else { panic!("a file is no device") };
    let mut places = Vec::new();
    while let Some(frame) = replay.next_frame().unwrap() {
        // Equal frames: the first place that is not taken yet.
        let place = (0..frames.len()).find(|place| frames[*place] == frame.bytes && !places.contains(place));
        places.push(place.unwrap());
    }
    places
}

/// Packets, and whether the filter lets them through.
fn sieved() -> Vec<(&'static str, u16, Vec<u8>, bool)> {
    let datagram = udp(PORT, &PAYLOAD);
    let options = ipv4(V4[0], 0, &[1; 40], UDP, &datagram);
    let other_protocol = ipv4(V4[0], 0, &[], 6, &datagram);
    vec![
        ("the shortest", IPV4, knock4(PORT, 176), true),
        ("the shortest, v6", IPV6, knock6(PORT, 176), true),
        ("one step more", IPV4, knock4(PORT, 192), true),
        ("the longest", IPV4, knock4(PORT, 1232), true),
        ("the longest, v6", IPV6, knock6(PORT, 1232), true),
        ("too short", IPV4, knock4(PORT, 160), false),
        ("too short, v6", IPV6, knock6(PORT, 160), false),
        ("too long", IPV4, knock4(PORT, 1248), false),
        ("too long, v6", IPV6, knock6(PORT, 1248), false),
        ("between steps", IPV4, knock4(PORT, 177), false),
        ("between steps, v6", IPV6, knock6(PORT, 184), false),
        ("another port", IPV4, knock4(PORT + 1, 176), false),
        ("another port, v6", IPV6, knock6(PORT + 1, 176), false),
        ("IPv4 options", IPV4, options, true),
        ("a first fragment", IPV4, ipv4(V4[0], 0x2000, &[], UDP, &datagram), false),
        ("a later fragment", IPV4, ipv4(V4[0], 5, &[], UDP, &datagram), false),
        ("a fragment header", IPV6, ipv6(V6[0], FRAGMENT, &extension(UDP, [0, 0], &datagram)), false),
        ("TCP", IPV4, other_protocol, false),
        ("hop-by-hop options", IPV6, ipv6_with(&[HOP_BY_HOP], PORT, &PAYLOAD), true),
        ("every extension", IPV6, ipv6_with(&[HOP_BY_HOP, DESTINATION, ROUTING], PORT, &[9; 1232]), true),
        ("as many as can be", IPV6, ipv6_with(&[DESTINATION; 32], PORT, &[9; 1232]), true),
        ("too many", IPV6, ipv6_with(&[DESTINATION; 33], PORT, &[9; 1232]), false),
        ("an extension and nothing", IPV6, ipv6_with(&[HOP_BY_HOP], PORT, &[9; 160]), false),
        // Not followed by the filter: user space looks at the port.
        ("another port behind an extension", IPV6, ipv6_with(&[HOP_BY_HOP], PORT + 1, &PAYLOAD), true),
    ]
}

#[test]
fn the_kernels_filter_lets_knocks_through_and_little_else_on_every_link() {
    let loopback = |ether_type: u16, packet: &[u8]| {
        // In a file libpcap takes the families of the BSDs alone, which are those that write this link type.
        let family = if ether_type == IPV4 { 2 } else { 30 };
        [&[family, 0, 0, 0], packet].concat()
    };
    let raw = |_: u16, packet: &[u8]| packet.to_vec();
    let plain = |ether_type: u16, packet: &[u8]| ethernet(&[], ether_type, packet);
    let tagged = |ether_type: u16, packet: &[u8]| ethernet(&[(DOT1Q, 100)], ether_type, packet);
    let twice = |ether_type: u16, packet: &[u8]| ethernet(&[(DOT1AD, 9), (DOT1Q, 100)], ether_type, packet);
    type Wrap<'a> = &'a dyn Fn(u16, &[u8]) -> Vec<u8>;
    let links: [(&str, u32, Wrap<'_>); 7] = [
        ("ethernet", 1, &plain),
        ("one tag", 1, &tagged),
        ("two tags", 1, &twice),
        ("cooked", 113, &sll),
        ("cooked 2", 276, &sll2),
        ("raw", 101, &raw),
        ("loopback", 0, &loopback),
    ];
    for (link, linktype, wrap) in links {
        let packets = sieved();
        let frames: Vec<_> =
            packets.iter().map(|(_, ether_type, packet, _)| wrap(*ether_type, packet)).collect();
        let through = passing(linktype, &frames);
        for (place, (name, _, _, expected)) in packets.iter().enumerate() {
            assert_eq!(through.contains(&place), *expected, "{link}: {name}");
        }
    }
}

#[test]
fn what_the_filter_lets_through_is_judged_exactly_in_user_space() {
    for (name, _, packet, through) in sieved() {
        let admitted = raw(&packet).is_ok_and(|segment| filter().admits(&segment));
        let sieve_is_coarse = name == "another port behind an extension";
        assert_eq!(admitted, through && !sieve_is_coarse, "{name}");
    }
}

/// SYNs to the knock port, and any small packet inside a span and to two ports beside it.
fn wide() -> Filter {
    ["tcp/62201", "tcp/16384-49151", "udp/16384-49151", "tcp/7000", "udp/8000"]
        .iter()
        .fold(filter(), |filter, ports| filter.ports(ports.parse().unwrap()))
}

#[test]
fn syns_and_spans_are_sieved_by_protocol_port_and_flags() {
    let syn4 = |port| ipv4(V4[0], 0, &[], TCP, &syn(port, 7, 9));
    let syn6 = |port| ipv6(V6[0], TCP, &syn(port, 7, 9));
    let answer = tcp(PORT, 7, SYN | 16, &linux_options(9), &[]);
    let packets: [(&str, Vec<u8>, bool); 16] = [
        ("the knock port", syn4(PORT), true),
        ("the knock port, v6", syn6(PORT), true),
        ("an answer", ipv4(V4[0], 0, &[], TCP, &answer), false),
        ("an answer, v6", ipv6(V6[0], TCP, &answer), false),
        ("with IPv4 options", ipv4(V4[0], 0, &[1; 8], TCP, &syn(PORT, 7, 9)), true),
        ("a fragment", ipv4(V4[0], 0x2000, &[], TCP, &syn(PORT, 7, 9)), false),
        ("below the span", syn4(16383), false),
        ("the first of the span", syn4(16384), true),
        ("the last of the span, v6", syn6(49151), true),
        ("above the span, v6", syn6(49152), false),
        ("a datagram in the span", knock4(20000, 1), true),
        ("a datagram in the span, v6", knock6(20000, 0), true),
        ("a port by TCP", syn4(7000), true),
        ("the same by UDP", knock4(7000, 1), false),
        ("another by UDP, v6", knock6(8000, 1), true),
        ("the same by TCP, v6", syn6(8000), false),
    ];
    let frames: Vec<_> = packets.iter().map(|(_, packet, _)| packet.clone()).collect();
    let through = passing_by(&wide(), 101, &frames);
    for (place, (name, packet, expected)) in packets.iter().enumerate() {
        assert_eq!(through.contains(&place), *expected, "{name}");
        assert_eq!(raw(packet).is_ok_and(|segment| wide().admits(&segment)), *expected, "{name}");
    }
}

#[test]
fn a_filter_for_nothing_lets_nothing_through() {
    let frames = [knock4(PORT, 176), ipv6_with(&[HOP_BY_HOP], PORT, &PAYLOAD)];
    assert_eq!(passing_by(&Filter::default(), 101, &frames), [0; 0]);
    assert!(frames.iter().all(|frame| !Filter::default().admits(&raw(frame).unwrap())));
}

#[test]
fn a_filter_for_many_scattered_ports_still_fits_the_kernel_and_drops_none_of_them() {
    let ports: Vec<u16> = (0..3000).map(|place| 1000 + place * 17).collect();
    let filter = ports.iter().fold(filter(), |filter, port| {
        filter.ports(format!("tcp/{port}").parse().unwrap()).ports(format!("udp/{port}").parse().unwrap())
    });
    // The kernel's limit is 4,096 instructions; without libpcap's answer `open` would have failed.
    let frames: Vec<_> = ports.iter().map(|port| ipv4(V4[0], 0, &[], TCP, &syn(*port, 7, 9))).collect();
    let wrapped: Vec<_> = frames.iter().map(|frame| ethernet(&[(DOT1Q, 7)], IPV4, frame)).collect();
    assert_eq!(passing_by(&filter, 1, &wrapped[..50]).len(), 50);
    let program = pcap::Capture::dead(pcap::Linktype::ETHERNET)
        .unwrap()
        .compile(&filter.text(Link::Ethernet).unwrap(), true)
        .unwrap();
    assert!(program.get_instructions().len() <= 4096, "{}", program.get_instructions().len());
}

#[test]
fn nflog_is_left_to_the_rule_that_logged() {
    assert_eq!(filter().text(Link::Nflog), None);
    assert_eq!(passing(239, &[nflog(2, &knock4(PORT, 176)), nflog(2, &knock4(9, 9))]), [0, 1]);
}

#[test]
fn a_file_of_another_link_type_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wireless.pcap");
    std::fs::write(&path, pcap_file(105, &[])).unwrap();
    let error = open(&Source::File(path), &filter()).err().unwrap().to_string();
    assert!(error.contains("link-layer type 105") && error.contains("use an Ethernet"), "{error}");
}

#[test]
fn a_file_that_is_missing_or_damaged_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    let error = || open(&Source::File(path.clone()), &filter()).err().unwrap().to_string();
    assert!(error().starts_with("there is no file"), "{}", error());
    std::fs::write(&path, b"no capture").unwrap();
    assert!(error().contains("cannot be opened"), "{}", error());
}
