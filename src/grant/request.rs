//! A [`Grant`] as fixed-size bytes on the socketpair from worker to monitor.
//!
//! ```text
//! off  len  field (integers big-endian)
//!   0    1  action: 1 open, 2 close
//!   1    1  uses: the number of connections, or 0 for any number
//!   2    1  number of port ranges, 1 ..= 20
//!   3    1  bit 0: the knock came from outside this host; bit 1: it was made with a certificate;
//!           bit 2: for the whole network of the address;
//!           bits 4-7: session flags
//!   4    4  profile index
//!   8    8  id: counts up, names the answer
//!  16    8  counter of the knock, unix nanoseconds
//!  24    4  lifetime in seconds
//!  28   16  address let in (IPv6, or IPv4 mapped)
//!  44   16  source of the knock
//!  60  100  ranges: protocol u8, first u16, last u16; unused ones all zero
//! 160    8  the certificate's id, or zero
//! 168   96  its subject, UTF-8, filled up with zeros
//! ```
//!
//! Every byte has one meaning: an unknown value anywhere is [`Malformed`], and the monitor ends a worker that
//! sends one.

use std::net::{IpAddr, Ipv6Addr};

use super::{Action, Grant, Holder, MAX_RANGES, ProfileIndex, Session, Uses};
use crate::text::{PortRange, Protocol, Span};
use crate::time::Timestamp;

const RANGE_LEN: usize = 5;
const HEAD_LEN: usize = 60;
const RANGES_LEN: usize = MAX_RANGES * RANGE_LEN;
const OUTSIDE: u8 = 1;
const CERTIFICATE: u8 = 2;
const WIDE: u8 = 4;
const SESSION: u8 = 4;

/// The length of a request in bytes.
pub const REQUEST_LEN: usize = HEAD_LEN + RANGES_LEN + 8 + Holder::MAX_SUBJECT;

/// What the worker asks the monitor for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Counts up within one worker; the answer carries it back.
    pub id: u64,
    /// The knock's counter, for the log.
    pub counter: Timestamp,
    /// Whether the knock came over a network rather than from this host itself: only then does it confirm a
    /// guard that waits for confirmation.
    pub from_outside: bool,
    /// The grant itself.
    pub grant: Grant,
    /// The certificate that the knock was made with.
    pub holder: Option<Holder>,
}

impl Request {
    /// The bytes on the socketpair.
    ///
    /// # Panics
    /// Never: a [`Grant`] holds at most [`MAX_RANGES`] ranges, and ranges beyond are left out.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let Grant { profile, action, source, address, wide, ports, uses, session, lifetime } = &self.grant;
        let mut bytes = Vec::with_capacity(REQUEST_LEN);
        bytes.push(match action {
            Action::Open => 1,
            Action::Close => 2,
        });
        bytes.push(uses.count().unwrap_or(0));
        bytes.push(u8::try_from(ports.len().min(MAX_RANGES)).unwrap_or(0));
        let holder = if self.holder.is_some() { CERTIFICATE } else { 0 };
        let outside = if self.from_outside { OUTSIDE } else { 0 };
        let wide = if *wide { WIDE } else { 0 };
        bytes.push(outside | holder | wide | session.bits() << SESSION);
        bytes.extend(profile.0.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.counter.as_nanos().to_be_bytes());
        bytes.extend(lifetime.as_secs().to_be_bytes());
        bytes.extend(octets(*address));
        bytes.extend(octets(*source));
        for range in ports.iter().take(MAX_RANGES) {
            bytes.push(range.protocol().number());
            bytes.extend(range.first().to_be_bytes());
            bytes.extend(range.last().to_be_bytes());
        }
        if let Some(Holder { id, subject }) = &self.holder {
            bytes.resize(HEAD_LEN + RANGES_LEN, 0);
            bytes.extend(id);
            bytes.extend(subject.bytes().take(Holder::MAX_SUBJECT));
        }
        let mut fixed = [0; REQUEST_LEN];
        fixed.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        fixed
    }

    /// Takes the bytes apart, to the last one.
    ///
    /// # Errors
    /// [`Malformed`] when any byte has a value that [`encode`](Self::encode) never writes.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<Self, Malformed> {
        let (&[action, uses, count, flags], rest) = bytes.split_first_chunk().ok_or(Malformed)?;
        let (profile, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (id, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (counter, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (lifetime, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (address, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (source, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (fields, rest) = rest.split_first_chunk::<RANGES_LEN>().ok_or(Malformed)?;
        let grant = Grant {
            profile: ProfileIndex(u32::from_be_bytes(*profile)),
            action: match action {
                1 => Action::Open,
                2 => Action::Close,
                _ => return Err(Malformed),
            },
            uses: match uses {
                0 => Uses::Many,
                count => Uses::number(count).ok_or(Malformed)?,
            },
            session: Session::from_bits(flags >> SESSION),
            wide: flags & WIDE != 0,
            lifetime: Span::from_secs(u32::from_be_bytes(*lifetime)),
            address: ip_address(*address),
            source: ip_address(*source),
            ports: ranges(usize::from(count), fields)?,
        };
        if flags & !(OUTSIDE | CERTIFICATE | WIDE | Session::BITS << SESSION) != 0 {
            return Err(Malformed);
        }
        let from_outside = flags & OUTSIDE != 0;
        let holder = holder(flags & CERTIFICATE != 0, rest)?;
        let counter = Timestamp::from_nanos(u64::from_be_bytes(*counter));
        Ok(Self { id: u64::from_be_bytes(*id), counter, from_outside, grant, holder })
    }
}

fn holder(is_there: bool, bytes: &[u8]) -> Result<Option<Holder>, Malformed> {
    if !is_there {
        return if bytes.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(Malformed) };
    }
    let (id, subject) = bytes.split_first_chunk().ok_or(Malformed)?;
    let end = subject.iter().position(|byte| *byte == 0).unwrap_or(subject.len());
    let (used, unused) = subject.split_at_checked(end).ok_or(Malformed)?;
    let subject = std::str::from_utf8(used).map_err(|_| Malformed)?;
    if unused.iter().any(|byte| *byte != 0) || subject.chars().any(char::is_control) {
        return Err(Malformed);
    }
    Ok(Some(Holder { id: *id, subject: subject.to_owned() }))
}

fn ranges(count: usize, bytes: &[u8]) -> Result<Vec<PortRange>, Malformed> {
    if !(1..=MAX_RANGES).contains(&count) {
        return Err(Malformed);
    }
    let (used, unused) = bytes.split_at_checked(count * RANGE_LEN).ok_or(Malformed)?;
    if unused.iter().any(|byte| *byte != 0) {
        return Err(Malformed);
    }
    used.chunks_exact(RANGE_LEN)
        .map(|chunk| match *chunk {
            [protocol, a, b, c, d] => {
                let protocol = Protocol::from_number(protocol).ok_or(Malformed)?;
                let (first, last) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                PortRange::new(protocol, first, last).map_err(|_| Malformed)
            }
            _ => Err(Malformed),
        })
        .collect()
}

/// The address as 16 bytes: IPv6, or IPv4 mapped into it (RFC 4291 section 2.5.5.2).
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that [`octets`] wrote.
pub(crate) fn ip_address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

/// The bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes that are no request")
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> Request {
        Request {
            id: 7,
            counter: Timestamp::from_secs(1_800_000_000),
            from_outside: true,
            grant: Grant {
                profile: ProfileIndex(2),
                action: Action::Open,
                source: "198.51.100.7".parse().unwrap(),
                address: "2001:db8::7".parse().unwrap(),
                wide: true,
                ports: vec!["tcp/22".parse().unwrap(), "udp/8000-8100".parse().unwrap()],
                uses: Uses::Once,
                session: Session::from_bits(0b1001),
                lifetime: Span::from_secs(15),
            },
            holder: None,
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        assert_eq!(Request::decode(&request().encode()), Ok(request()));
        for subject in ["", "O=Example, CN=alice", &"\u{fc}".repeat(48)] {
            let with = Request { holder: Some(Holder::new([9; 8], subject)), ..request() };
            assert_eq!(Request::decode(&with.encode()), Ok(with));
        }
    }

    #[test]
    fn a_byte_without_meaning_makes_a_request_malformed() {
        for (at, value) in [
            (0, 0),
            (0, 3),
            (1, 251),
            (1, 255),
            (2, 0),
            (2, 21),
            (3, 8),
            (60, 1),
            (70, 1),
            (159, 9),
            (160, 1),
            (263, 1),
        ] {
            let mut bytes = request().encode();
            bytes[at] = value;
            assert_eq!(Request::decode(&bytes), Err(Malformed), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_subject_holds_no_control_characters_and_nothing_after_its_end() {
        let with = Request { holder: Some(Holder::new([9; 8], "CN=alice")), ..request() };
        for (at, value) in [(168, 0x1b), (169, 0), (168, 0xff)] {
            let mut bytes = with.encode();
            bytes[at] = value;
            assert_eq!(Request::decode(&bytes), Err(Malformed), "byte {at} = {value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(
            bytes in prop::collection::vec(any::<u8>(), REQUEST_LEN), count in 0u8..4,
        ) {
            let mut fixed: [u8; REQUEST_LEN] = bytes.try_into().unwrap();
            fixed[0] %= 4;
            fixed[1] %= 4;
            fixed[2] = count;
            fixed[3] &= 0xf7;
            fixed[60 + usize::from(count) * 5..].fill(0);
            for range in 0..usize::from(count) {
                fixed[60 + range * 5] = if fixed[60 + range * 5] % 2 == 0 { 6 } else { 17 };
            }
            if let Ok(request) = Request::decode(&fixed) {
                prop_assert_eq!(request.encode(), fixed);
            }
        }
    }
}
