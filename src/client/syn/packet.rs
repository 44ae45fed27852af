//! One connection's SYN out of another's: addresses, ports, numbers and checksums changed, every other byte as it was.
//! Pure.

use std::net::{IpAddr, SocketAddr};

use super::template::Template;
use crate::frame::Syn;

const TCP: u8 = 6;
/// FIN, SYN, RST and ACK, of which only SYN is set.
const FLAGS: u8 = 0x17;
const SYN: u8 = 2;

/// What is another connection's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) source: IpAddr,
    pub(super) destination: SocketAddr,
    pub(super) hops: u8,
    /// For the IPv4 identification, or the IPv6 flow label.
    pub(super) random: u32,
    pub(super) syn: Syn,
}

/// Whether this is an IP packet with a SYN to `port`.
pub(super) fn is_syn_to(packet: &[u8], port: u16) -> bool {
    let segment = split(packet).map(|(_, segment)| segment);
    matches!(segment, Some([_, _, p0, p1, _, _, _, _, _, _, _, _, _, flags, ..])
        if u16::from_be_bytes([*p0, *p1]) == port && flags & FLAGS == SYN)
}

/// The packet with these changes. The source port stays: the kernel chose it. `None` when the template has no
/// timestamp, where half of the code goes, or belongs to the other family.
pub(super) fn rewritten(template: &Template, change: &Change) -> Option<Vec<u8>> {
    let (header, segment) = split(&template.0)?;
    let (mut header, mut segment) = (header.to_vec(), segment.to_vec());
    match (template.0.first()? >> 4, change.source, change.destination.ip()) {
        (4, IpAddr::V4(source), IpAddr::V4(destination)) => {
            // A raw socket puts a number of its own in place of 0 (raw(7)).
            let id = u16::try_from(change.random >> 16).ok()?.max(1);
            put(&mut header, 4, &id.to_be_bytes())?;
            put(&mut header, 8, &[change.hops])?;
            // The kernel fills the header's checksum in.
            put(&mut header, 10, &[0, 0])?;
            put(&mut header, 12, &source.octets())?;
            put(&mut header, 16, &destination.octets())?;
        }
        (6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            let first = u32::from_be_bytes(*header.first_chunk()?);
            // 20 bits, and none where the kernel sets none (`net.ipv6.auto_flowlabels`).
            let label = if first & 0xf_ffff == 0 { 0 } else { (change.random & 0xf_ffff).max(1) };
            put(&mut header, 0, &(first & !0xf_ffff | label).to_be_bytes())?;
            put(&mut header, 7, &[change.hops])?;
            put(&mut header, 8, &source.octets())?;
            put(&mut header, 24, &destination.octets())?;
        }
        _ => return None,
    }
    put(&mut segment, 2, &change.destination.port().to_be_bytes())?;
    put(&mut segment, 4, &change.syn.sequence.to_be_bytes())?;
    let place = timestamp(&segment)?;
    put(&mut segment, place, &change.syn.timestamp?.to_be_bytes())?;
    put(&mut segment, 16, &[0, 0])?;
    let sum = checksum(change.source, change.destination.ip(), &segment);
    put(&mut segment, 16, &sum.to_be_bytes())?;
    header.extend(segment);
    Some(header)
}

/// IP header and TCP segment, of a packet whose version and transport are known here.
fn split(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *packet.first()?;
    let (transport, length) = match first >> 4 {
        4 => (*packet.get(9)?, usize::from(first & 15) * 4),
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let (header, segment) = packet.split_at_checked(length)?;
    (transport == TCP && segment.len() >= 20).then_some((header, segment))
}

/// Where TSval stands in a segment: kind 8, length 10, the value (RFC 7323 section 3.2).
fn timestamp(segment: &[u8]) -> Option<usize> {
    let end = usize::from(*segment.get(12)? >> 4) * 4;
    let mut place = 20;
    while place < end {
        match segment.get(place..end)? {
            [0, ..] => return None,
            [1, ..] => place += 1,
            [8, 10, ..] => return Some(place + 2),
            [_, length, ..] if *length >= 2 => place += usize::from(*length),
            _ => return None,
        }
    }
    None
}

fn put(bytes: &mut [u8], place: usize, new: &[u8]) -> Option<()> {
    bytes.get_mut(place..place + new.len())?.copy_from_slice(new);
    Some(())
}

/// The checksum of TCP (RFC 9293 section 3.1) over the pseudo-header and a segment whose own field is zero.
fn checksum(source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX).to_be_bytes();
    let whole = [&octets(source), &octets(destination), &length[..], &[0, 0, 0, TCP], segment].concat();
    let word = |pair: &[u8]| match pair {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(*high) << 8,
        _ => 0,
    };
    let mut sum: u64 = whole.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// For the fuzzer: what is made of a SYN carries the code to where it is meant to go, and the rest as it was.
#[cfg(feature = "fuzzing")]
pub(super) fn check(packet: &[u8], change: &Change) {
    use crate::frame::{Link, parse};

    let template = Template(packet.to_vec());
    let Some(made) = rewritten(&template, change) else { return };
    assert_eq!(made.len(), packet.len());
    assert!(is_syn_to(&made, change.destination.port()) || !is_syn(packet));
    if let Ok(segment) = parse(Link::RawIp, &made, made.len()) {
        assert_eq!((segment.source, segment.destination), (change.source, change.destination.ip()));
        assert_eq!(segment.port, change.destination.port());
        let read = segment.syn().map(|syn| (syn.sequence, syn.timestamp));
        assert!(
            read == Some((change.syn.sequence, change.syn.timestamp))
                || read.is_some_and(|(_, t)| t.is_none())
        );
    }
}

/// Whether the flags are those of a SYN.
#[cfg(feature = "fuzzing")]
fn is_syn(packet: &[u8]) -> bool {
    let flags = split(packet).and_then(|(_, segment)| segment.get(13).copied());
    flags.is_some_and(|flags| flags & FLAGS == SYN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 sent to 127.0.0.1 with TCP_MAXSEG 1460, as tcpdump wrote it down.
    const V4: &str = "4500003ca5f440004006 96c5 7f000001 7f000001 9c40 1f90 aabbccdd 00000000 a002 faf0 fe30 0000 \
        020405b4 0402080a 11223344 00000000 01030307";
    const V6: &str = "600a1b2c 0028 0640 00000000000000000000000000000001 00000000000000000000000000000001 \
        9c40 1f90 aabbccdd 00000000 a002 fd20 0030 0000 020405a0 0402080a 11223344 00000000 01030307";

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap())
            .collect()
    }

    fn change(source: &str, destination: &str) -> Change {
        Change {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            hops: 61,
            random: 0x1234_5678,
            syn: Syn { sequence: 0x0102_0304, timestamp: Some(0x0506_0708) },
        }
    }

    /// The places at which two packets differ.
    fn differences(a: &[u8], b: &[u8]) -> Vec<usize> {
        assert_eq!(a.len(), b.len());
        (0..a.len()).filter(|place| a[*place] != b[*place]).collect()
    }

    #[test]
    fn only_what_is_a_connections_own_is_changed() {
        let (template, change) = (bytes(V4), change("192.0.2.7", "198.51.100.1:62201"));
        let packet = rewritten(&Template(template.clone()), &change).unwrap();
        let allowed = |place: usize| {
            let ip = [4..6, 8..9, 10..12, 12..20].iter().any(|range| range.contains(&place));
            let tcp = [22..28, 36..38, 48..52].iter().any(|range| range.contains(&place));
            ip || tcp
        };
        assert!(differences(&template, &packet).into_iter().all(allowed));
        assert_eq!(&packet[20..28], &bytes("9c40 f2f9 01020304")[..]);
        assert_eq!(&packet[48..52], &bytes("05060708")[..]);
        assert_eq!(&packet[4..6], &bytes("1234")[..]);
    }

    #[test]
    fn an_ipv6_packet_gets_a_label_of_its_own_if_it_had_one() {
        let (template, change) = (bytes(V6), change("2001:db8::7", "[2001:db8:1::1]:62201"));
        let packet = rewritten(&Template(template.clone()), &change).unwrap();
        assert_eq!(&packet[..8], &bytes("60045678 0028 063d")[..]);
        let mut unlabelled = template;
        unlabelled[1..4].fill(0);
        assert_eq!(&rewritten(&Template(unlabelled), &change).unwrap()[..4], &bytes("60000000")[..]);
    }

    #[test]
    fn the_identification_is_never_zero() {
        let change = Change { random: 0x0000_ffff, ..change("192.0.2.7", "198.51.100.1:62201") };
        let packet = rewritten(&Template(bytes(V4)), &change).unwrap();
        assert_eq!(&packet[4..6], &[0, 1]);
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        for (template, change) in [
            (V4, change("192.0.2.7", "198.51.100.1:62201")),
            (V6, change("2001:db8::7", "[2001:db8:1::1]:62201")),
        ] {
            let packet = rewritten(&Template(bytes(template)), &change).unwrap();
            let (_, segment) = split(&packet).unwrap();
            // Over a segment with its checksum in place, the sum is all ones.
            assert_eq!(checksum(change.source, change.destination.ip(), segment), 0);
        }
    }

    #[test]
    fn a_syn_without_timestamps_cannot_carry_a_code() {
        let mut template = bytes(V4);
        template[46] = 254;
        let change = change("192.0.2.7", "198.51.100.1:62201");
        assert_eq!(rewritten(&Template(template), &change), None);
        assert_eq!(rewritten(&Template(bytes(V6)), &change), None, "another family");
    }

    #[test]
    fn a_syn_is_told_from_what_else_is_on_loopback() {
        assert!(is_syn_to(&bytes(V4), 8080) && is_syn_to(&bytes(V6), 8080));
        let mut answer = bytes(V4);
        answer[33] |= 16;
        let mut datagram = bytes(V6);
        datagram[6] = 17;
        let cut = &bytes(V4)[..39];
        for packet in [&answer[..], &datagram, cut, &[], &[0x4f; 20]] {
            assert!(!is_syn_to(packet, 8080), "{packet:?}");
        }
        assert!(!is_syn_to(&bytes(V4), 80));
    }
}
