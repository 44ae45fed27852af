//! What a sequence says, in 8, 12 or 24 bytes.
//!
//! ```text
//! 0  1   bits 7-6 version = 1 | bits 5-4 operation (0 open, 1 close, 2 renew, 3 query: refused)
//!        bits 3-2 address (0 the source, 1 IPv4, 2 IPv6) | bits 1-0 protocol (0 tcp, 1 udp, 2 both, 3 service)
//! 1  1   the low byte of the counter; its upper part is the step
//! 2  1   duration x: round(2^(x/8)) seconds; 0 = as the profile says
//! 3  2   first port                                     } protocol 3: the first 3 bytes of the service's tag,
//! 5  1   how many further ports, the last one's distance } 0 = everything that the profile opens
//! 6  1   bits 7-4 connections asked for, 2..15; 0 = one with bit 0 below, else as the profile says
//!        bits 3-0 session flags
//! 7  1   flags: bit 0 single connection | bit 1 only if sent from the address given
//!        bit 2 the whole network of the address | others zero
//! 8  ..  address: 0, 4 or 16 bytes
//! ```

use std::net::IpAddr;

use crate::session::{Session, Uses};
use crate::text::{PortRange, Protocol, Span};

use super::super::{Ask, EntryFault, Fault, Op, ServiceTag, Target, Wanted, head};
use super::SealError;

/// The version of the payload.
const VERSION: u8 = 1;

/// The bytes before the address.
pub(super) const HEAD_LEN: usize = 8;

const SINGLE: u8 = 1;
/// The largest number of connections that four bits hold.
const MOST: u8 = 15;
const SOURCE_ONLY: u8 = 1 << 1;
const WIDE: u8 = 1 << 2;
const UNKNOWN: u8 = !(SINGLE | SOURCE_ONLY | WIDE);

const TCP: u8 = 0;
const UDP: u8 = 1;
const BOTH: u8 = 2;
const SERVICE: u8 = 3;

/// The payload that asks for `ask`; `counter` is the low byte of the counter.
pub(super) fn encode(ask: &Ask, counter: u8) -> Result<Vec<u8>, SealError> {
    let op = match ask.op {
        Op::Open => 0,
        Op::Close => 1,
        Op::Renew => 2,
    };
    let (address, only) = match ask.target {
        Target::Source => (None, 0),
        Target::Address(address) => (Some(address.to_canonical()), 0),
        Target::SourceOnly(address) => (Some(address.to_canonical()), SOURCE_ONLY),
    };
    let kind = match address {
        None => 0,
        Some(address) if address.is_unspecified() => return Err(SealError::Address),
        Some(IpAddr::V4(_)) => 1,
        Some(IpAddr::V6(_)) => 2,
    };
    let (protocol, [p0, p1, further]) = ports(&ask.ports)?;
    let duration = ask.duration.map_or(Ok(0), code)?;
    let head = (VERSION << 6) | (op << 4) | (kind << 2) | protocol;
    let (single, connections) = match ask.uses {
        Some(Uses::Once) => (SINGLE, 0),
        Some(Uses::Few(count)) if count > MOST => return Err(SealError::Connections),
        Some(Uses::Few(count)) => (0, count),
        None | Some(Uses::Many) => (0, 0),
    };
    let wide = if ask.wide { WIDE } else { 0 };
    let (flags, session) = (only | single | wide, connections << 4 | ask.session.bits());
    let mut payload = vec![head, counter, duration, p0, p1, further, session, flags];
    match address {
        Some(IpAddr::V4(v4)) => payload.extend(v4.octets()),
        Some(IpAddr::V6(v6)) => payload.extend(v6.octets()),
        None => {}
    }
    Ok(payload)
}

/// Protocol and ports: one range, or the same one for both protocols, or a service.
fn ports(wanted: &Wanted) -> Result<(u8, [u8; 3]), SealError> {
    let range = |first: u16, last: u16| {
        let [p0, p1] = first.to_be_bytes();
        Ok([p0, p1, u8::try_from(last - first).map_err(|_| SealError::Ports)?])
    };
    match wanted {
        Wanted::Defaults => Ok((SERVICE, [0; 3])),
        Wanted::Service(ServiceTag([0, 0, 0, _])) => Err(SealError::Service),
        Wanted::Service(ServiceTag([t0, t1, t2, _])) => Ok((SERVICE, [*t0, *t1, *t2])),
        Wanted::Ports(ranges) => match ranges.as_slice() {
            [one] if one.protocol() == Protocol::Tcp => Ok((TCP, range(one.first(), one.last())?)),
            [one] if one.protocol() == Protocol::Udp => Ok((UDP, range(one.first(), one.last())?)),
            [one, two]
                if (one.first(), one.last()) == (two.first(), two.last())
                    && one.protocol() != two.protocol()
                    && ![one, two].iter().any(|range| range.protocol() == Protocol::Sctp) =>
            {
                Ok((BOTH, range(one.first(), one.last())?))
            }
            _ => Err(SealError::Ports),
        },
    }
}

/// What a payload asks for. `services`: the tags that the client may name.
pub(super) fn decode(payload: &[u8], services: &[ServiceTag]) -> Result<Ask, Fault> {
    // A message is at least so long that this cannot fail.
    let (head, address) = payload.split_first_chunk::<HEAD_LEN>().ok_or(Fault::Padding)?;
    let &[head, _, duration, p0, p1, further, session, flags] = head;
    if head >> 6 != VERSION {
        return Err(Fault::Version(head >> 6));
    }
    if flags & UNKNOWN != 0 {
        return Err(Fault::Flags(flags & UNKNOWN));
    }
    let op = match (head >> 4) & 3 {
        0 => Op::Open,
        1 => Op::Close,
        2 => Op::Renew,
        _ => return Err(Fault::Query),
    };
    let uses = head::uses(flags & SINGLE != 0, session >> 4).ok_or(Fault::Connections(session >> 4))?;
    let target = target((head >> 2) & 3, flags & SOURCE_ONLY != 0, address)?;
    let range = |protocol| {
        let first = u16::from_be_bytes([p0, p1]);
        PortRange::new(protocol, first, first.wrapping_add(further.into()))
            .map_err(|error| Fault::Entries(EntryFault::Ports(error)))
    };
    let ports = match head & 3 {
        TCP => Wanted::Ports(vec![range(Protocol::Tcp)?]),
        UDP => Wanted::Ports(vec![range(Protocol::Udp)?]),
        BOTH => Wanted::Ports(vec![range(Protocol::Tcp)?, range(Protocol::Udp)?]),
        _ if [p0, p1, further] == [0; 3] => Wanted::Defaults,
        _ => Wanted::Service(service([p0, p1, further], services)),
    };
    let duration = (duration != 0).then(|| seconds(duration));
    Ok(Ask {
        op,
        target,
        uses,
        session: Session::from_bits(session & Session::BITS),
        wide: flags & WIDE != 0,
        duration,
        ports,
    })
}

fn target(kind: u8, only: bool, address: &[u8]) -> Result<Target, Fault> {
    let address: Option<IpAddr> = match (kind, address.len()) {
        (0, 0) => None,
        (1, 4) => address.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        (2, 16) => address.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
        (_, len) => return Err(Fault::Address { given: len != 0 }),
    };
    match (address, only) {
        (None, false) => Ok(Target::Source),
        (None, true) => Err(Fault::Address { given: false }),
        (Some(address), _) if address.is_unspecified() => Err(Fault::Address { given: false }),
        (Some(address), true) => Ok(Target::SourceOnly(address)),
        (Some(address), false) => Ok(Target::Address(address)),
    }
}

/// The tag that begins so. Where there is none, or more than one, it is one that no service has, which the policy
/// then refuses.
fn service(begin: [u8; 3], services: &[ServiceTag]) -> ServiceTag {
    let [b0, b1, b2] = begin;
    let mut known = services.iter().filter(|tag| tag.0.starts_with(&begin));
    match (known.next(), known.next()) {
        (Some(tag), None) => *tag,
        _ => ServiceTag([b0, b1, b2, 0]),
    }
}

/// 2^(i/8) * 2^60, rounded.
const EIGHTHS: [u128; 8] = [
    1_152_921_504_606_846_976,
    1_257_269_815_929_830_109,
    1_371_062_456_318_104_878,
    1_495_154_210_581_915_421,
    1_630_477_228_166_597_777,
    1_778_048_025_250_290_524,
    1_938_975_120_585_633_119,
    2_114_467_362_444_183_334,
];

/// round(2^(x/8)) seconds, up to 124 years; more than enough of them are there for the steps to be 9 per cent.
pub(super) fn seconds(code: u8) -> Span {
    let eighth = EIGHTHS.get(usize::from(code % 8)).copied().unwrap_or_default();
    let scaled = eighth << (code / 8);
    Span::from_secs(u32::try_from((scaled + (1 << 59)) >> 60).unwrap_or(u32::MAX))
}

/// The least code that stands for this time or more; 0 stands for none.
pub(super) fn code(span: Span) -> Result<u8, SealError> {
    if span.as_secs() == 0 {
        return Err(SealError::NoDuration);
    }
    (1..=u8::MAX).find(|code| seconds(*code) >= span).ok_or(SealError::Duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            op: Op::Open,
            target: Target::Source,
            uses: Some(Uses::Once),
            session: Session::default(),
            wide: false,
            duration: Some(Span::from_secs(304)),
            ports: Wanted::Ports(vec!["tcp/22".parse().unwrap()]),
        }
    }

    fn payload() -> Vec<u8> {
        encode(&ask(), 0x42).unwrap()
    }

    fn changed(place: usize, value: u8) -> Result<Ask, Fault> {
        let mut payload = payload();
        payload[place] = value;
        decode(&payload, &[])
    }

    #[test]
    fn a_payload_is_laid_out_as_drawn() {
        assert_eq!(payload(), [0b0100_0000, 0x42, 66, 0, 22, 0, 0, 1]);
        let ask = Ask {
            op: Op::Close,
            target: Target::SourceOnly("192.0.2.7".parse().unwrap()),
            uses: Some(Uses::Few(12)),
            session: Session::from_bits(5),
            wide: true,
            duration: None,
            ports: Wanted::Ports(vec!["udp/60000-60010".parse().unwrap()]),
        };
        assert_eq!(encode(&ask, 0).unwrap(), [0b0101_0101, 0, 0, 0xea, 0x60, 10, 0xc5, 6, 192, 0, 2, 7]);
    }

    #[test]
    fn what_is_asked_is_what_arrives() {
        let ports = |list: &[&str]| Wanted::Ports(list.iter().map(|text| text.parse().unwrap()).collect());
        let tag = ServiceTag([0x7e, 0xbf, 0xe0, 0x8c]);
        let targets = [
            Target::Source,
            Target::Address("192.0.2.7".parse().unwrap()),
            Target::SourceOnly("2001:db8::7".parse().unwrap()),
            Target::Address("2001:db8::7".parse().unwrap()),
        ];
        let wanted = [
            Wanted::Defaults,
            Wanted::Service(tag),
            ports(&["tcp/1"]),
            ports(&["udp/65280-65535"]),
            ports(&["tcp/53", "udp/53"]),
        ];
        for target in targets {
            for ports in &wanted {
                for op in [Op::Open, Op::Close, Op::Renew] {
                    for duration in [None, Some(Span::from_secs(1)), Some(Span::from_secs(304))] {
                        let ask = Ask {
                            op,
                            target,
                            uses: None,
                            session: Session::default(),
                            wide: false,
                            duration,
                            ports: ports.clone(),
                        };
                        assert_eq!(decode(&encode(&ask, 1).unwrap(), &[tag]), Ok(ask));
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_form_is_not_sent() {
        let seal = |change: fn(&mut Ask)| {
            let mut ask = ask();
            change(&mut ask);
            encode(&ask, 0).unwrap_err()
        };
        let many = |ask: &mut Ask| {
            ask.ports = Wanted::Ports(vec!["tcp/1".parse().unwrap(), "tcp/3".parse().unwrap()])
        };
        assert_eq!(seal(many), SealError::Ports);
        assert_eq!(
            seal(|ask| ask.ports = Wanted::Ports(vec!["tcp/1-257".parse().unwrap()])),
            SealError::Ports
        );
        assert_eq!(seal(|ask| ask.ports = Wanted::Ports(vec![])), SealError::Ports);
        assert_eq!(seal(|ask| ask.ports = Wanted::Service(ServiceTag([0, 0, 0, 1]))), SealError::Service);
        assert_eq!(seal(|ask| ask.target = Target::Address([0, 0, 0, 0].into())), SealError::Address);
        assert_eq!(seal(|ask| ask.duration = Some(Span::from_secs(0))), SealError::NoDuration);
        assert_eq!(seal(|ask| ask.duration = Some(Span::from_secs(u32::MAX))), SealError::Duration);
    }

    #[test]
    fn what_means_nothing_here_is_refused_with_its_reason() {
        assert_eq!(changed(0, 0b1000_0000), Err(Fault::Version(2)));
        assert_eq!(changed(0, 0b0111_0000), Err(Fault::Query));
        assert_eq!(changed(0, 0b0100_0100), Err(Fault::Address { given: false }));
        assert_eq!(changed(7, 0b11), Err(Fault::Address { given: false }));
        assert_eq!(changed(7, 0x81), Err(Fault::Flags(0x80)));
        assert_eq!(changed(6, 0x10), Err(Fault::Connections(1)));
        assert!(matches!(changed(4, 0), Err(Fault::Entries(EntryFault::Ports(_)))), "port 0");
        let mut long = payload();
        long.extend([192, 0, 2, 7]);
        assert_eq!(decode(&long, &[]), Err(Fault::Address { given: true }));
        let mut nowhere = payload();
        nowhere[0] |= 0b0100;
        nowhere.extend([0; 4]);
        assert_eq!(decode(&nowhere, &[]), Err(Fault::Address { given: false }));
        let mut beyond = payload();
        beyond[3..6].copy_from_slice(&[0xff, 0xff, 1]);
        assert!(matches!(decode(&beyond, &[]), Err(Fault::Entries(EntryFault::Ports(_)))), "past 65535");
    }

    #[test]
    fn a_service_is_known_by_three_bytes_unless_two_begin_so() {
        let (a, b) = (ServiceTag([1, 2, 3, 4]), ServiceTag([1, 2, 3, 5]));
        assert_eq!(service([1, 2, 3], &[a]), a);
        assert_eq!(service([1, 2, 3], &[a, b]), ServiceTag([1, 2, 3, 0]));
        assert_eq!(service([1, 2, 4], &[a, b]), ServiceTag([1, 2, 4, 0]));
    }

    #[test]
    fn a_duration_is_never_cut_and_at_most_a_tenth_longer() {
        // python3: round(2 ** (x / 8))
        for (code, secs) in [
            (1, 1),
            (8, 2),
            (47, 59),
            (48, 64),
            (66, 304),
            (95, 3756),
            (174, 3_526_975),
            (255, 3_938_502_376),
        ] {
            assert_eq!(seconds(code), Span::from_secs(secs), "{code}");
        }
        for secs in [1, 2, 15, 60, 300, 3600, 86_400, 2_592_000] {
            let meant = seconds(code(Span::from_secs(secs)).unwrap()).as_secs();
            assert!(meant >= secs && meant <= secs + secs / 10, "{secs}: {meant}");
        }
    }
}
