//! What knocks that are a datagram ask for, as bytes: the beginning of the plaintext of `spa` and of `cert`.
//!
//! ```text
//! 0      1     version = 1
//! 1      1     flags: bits 0-1 op (0 open, 1 close, 2 renew, 3 query: refused)
//!              bit 2 for the address given | bit 3 only if sent from the address given; it wins over bit 2
//!              bit 4 wants an answer: accepted, and never answered | bit 5 single connection | bits 6-7 zero
//! 2      8     counter: unix time in ns, a multiple of 2^20 (the receiver requires only that it increases)
//! 10     1     connections asked for, 2..250; 0 = one with bit 5, else as the profile says
//! 11     1     session flags: bits 0-3 (`session.rs`) | bit 4 the whole network of the address | others zero
//! 12     4     seconds asked for; 0 = as the profile says
//! 16     16    address, IPv6 or v4-mapped; all-zero, and only then bits 2 and 3 clear: the packet's source
//! 32     4     service tag: SHA256("knockd-rs service" || name)[0..4]; 0 = the entries, or the defaults if none
//! 36     1     number n of entries, 0..5; 0 with a service tag
//! 37     5n    entries: IP protocol (6, 17 or 132), first port (2), last port (2)
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use zeroize::Zeroizing;

use crate::session::{Session, Uses};
use crate::text::{PortRange, Protocol, Span};
use crate::time::Timestamp;

use super::{Ask, EntryFault, Fault, MAX_ENTRIES, Op, ServiceTag, Target, Wanted};

/// The version of the plaintext, and of the protocol.
pub const VERSION: u8 = 1;

const FIXED_LEN: usize = 37;
const ENTRY_LEN: usize = 5;

const OP: u8 = 0b0000_0011;
pub(super) const EXPLICIT: u8 = 1 << 2;
pub(super) const SOURCE_ONLY: u8 = 1 << 3;
const SINGLE: u8 = 1 << 5;
const UNKNOWN: u8 = 0b1100_0000;
const WIDE: u8 = 1 << 4;

/// The bytes of a request, without padding.
pub(super) fn encode(ask: &Ask, counter: Timestamp) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let op = match ask.op {
        Op::Open => 0,
        Op::Close => 1,
        Op::Renew => 2,
    };
    let (target, address) = match ask.target {
        Target::Source => (0, Ipv6Addr::UNSPECIFIED),
        Target::Address(address) => (EXPLICIT, field(address)?),
        Target::SourceOnly(address) => (SOURCE_ONLY, field(address)?),
    };
    let (single, connections) = match ask.uses {
        Some(Uses::Once) => (SINGLE, 0),
        Some(Uses::Few(count)) => (0, count),
        None | Some(Uses::Many) => (0, 0),
    };
    let seconds = match ask.duration.map(Span::as_secs) {
        Some(0) => return Err(SealError::NoDuration),
        seconds => seconds.unwrap_or(0),
    };
    let (service, ports) = match &ask.ports {
        Wanted::Defaults => ([0; 4], [].as_slice()),
        Wanted::Service(ServiceTag([0, 0, 0, 0])) => return Err(SealError::Service),
        Wanted::Service(ServiceTag(tag)) => (*tag, [].as_slice()),
        Wanted::Ports(ports) => ([0; 4], ports.as_slice()),
    };
    let count = match (&ask.ports, u8::try_from(ports.len())) {
        (Wanted::Ports(_), Ok(0)) => return Err(SealError::Ports(0)),
        (_, Ok(count)) if ports.len() <= MAX_ENTRIES => count,
        _ => return Err(SealError::Ports(ports.len())),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(FIXED_LEN + ENTRY_LEN * ports.len()));
    plain.extend_from_slice(&[VERSION, op | target | single]);
    plain.extend_from_slice(&counter.as_nanos().to_be_bytes());
    let wide = if ask.wide { WIDE } else { 0 };
    plain.extend_from_slice(&[connections, ask.session.bits() | wide]);
    plain.extend_from_slice(&seconds.to_be_bytes());
    plain.extend_from_slice(&address.octets());
    plain.extend_from_slice(&service);
    plain.push(count);
    for range in ports {
        plain.push(range.protocol().number());
        plain.extend_from_slice(&range.first().to_be_bytes());
        plain.extend_from_slice(&range.last().to_be_bytes());
    }
    Ok(plain)
}

/// An address as the 16 bytes of its field.
fn field(address: IpAddr) -> Result<Ipv6Addr, SealError> {
    let address = address.to_canonical();
    match address {
        _ if address.is_unspecified() => Err(SealError::Address),
        IpAddr::V4(v4) => Ok(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => Ok(v6),
    }
}

/// Why a request has no form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The length of the plaintext.
    Padding(usize),
    /// The number of port ranges.
    Ports(usize),
    /// A service tag of zeros, which no service has.
    Service,
    /// 0.0.0.0 or ::.
    Address,
    /// A duration of zero seconds.
    NoDuration,
    /// The server's public key is one of the few that share no secret with anybody.
    ServerKey,
    /// The certificate's key did not sign.
    Signature,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Padding(len) => {
                write!(f, "a knock cannot be padded to {len} bytes; use a multiple of 16 from 64 to 1120")
            }
            Self::Ports(count) => {
                write!(f, "{count} port ranges asked for; name 1 to {MAX_ENTRIES}, or a service")
            }
            Self::Service => f.write_str("a service tag of zeros stands for no service; name the service"),
            Self::Address => f.write_str("the address is that of no machine; name the one to open for"),
            Self::NoDuration => {
                f.write_str("a grant of 0s is none; use 1s or more, or leave the duration out")
            }
            Self::ServerKey => {
                f.write_str("the server's public key is not a usable one; import its bundle again")
            }
            Self::Signature => f.write_str("the knock could not be signed with the certificate's key"),
        }
    }
}

impl std::error::Error for SealError {}

/// The request and what follows it; `None` when the bytes are too few, or the number of entries is none.
pub(super) fn split(plain: &[u8]) -> Option<(&[u8], &[u8])> {
    let [.., count] = plain.first_chunk::<FIXED_LEN>()?;
    let count = usize::from(*count);
    if count > MAX_ENTRIES {
        return None;
    }
    plain.split_at_checked(FIXED_LEN + ENTRY_LEN * count)
}

/// Takes a request apart; whatever follows its entries has to be zero.
pub(super) fn decode(plain: &[u8]) -> Result<(Ask, Timestamp), Fault> {
    // A packet is at least so long that this cannot fail.
    let (head, rest) = plain.split_first_chunk::<FIXED_LEN>().ok_or(Fault::Padding)?;
    let &[
        version,
        flags,
        c0,
        c1,
        c2,
        c3,
        c4,
        c5,
        c6,
        c7,
        connections,
        session,
        d0,
        d1,
        d2,
        d3,
        ref rest_of_head @ ..,
    ] = head;
    let &[ref address @ .., t0, t1, t2, t3, count] = rest_of_head;
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if flags & UNKNOWN != 0 {
        return Err(Fault::Flags(flags & UNKNOWN));
    }
    let op = match flags & OP {
        0 => Op::Open,
        1 => Op::Close,
        2 => Op::Renew,
        _ => return Err(Fault::Query),
    };
    if session & !(Session::BITS | WIDE) != 0 {
        return Err(Fault::SessionFlags(session & !(Session::BITS | WIDE)));
    }
    let uses = uses(flags & SINGLE != 0, connections).ok_or(Fault::Connections(connections))?;
    let target = target(flags, *address)?;
    let ports = wanted([t0, t1, t2, t3], count, rest)?;
    let seconds = u32::from_be_bytes([d0, d1, d2, d3]);
    let duration = (seconds != 0).then(|| Span::from_secs(seconds));
    let counter = Timestamp::from_nanos(u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]));
    Ok((
        Ask {
            op,
            target,
            uses,
            session: Session::from_bits(session),
            wide: session & WIDE != 0,
            duration,
            ports,
        },
        counter,
    ))
}

/// How many connections a request is for, of two fields that have to agree; `None` where they do not.
pub(super) fn uses(single: bool, connections: u8) -> Option<Option<Uses>> {
    match (single, connections) {
        (false, 0) => Some(None),
        (true, 0) => Some(Some(Uses::Once)),
        (false, count) if count > 1 => Uses::number(count).map(Some),
        _ => None,
    }
}

fn target(flags: u8, field: [u8; 16]) -> Result<Target, Fault> {
    let address = Ipv6Addr::from(field).to_canonical();
    match (flags & SOURCE_ONLY != 0, flags & EXPLICIT != 0) {
        (false, false) if field == [0; 16] => Ok(Target::Source),
        (false, false) => Err(Fault::Address { given: true }),
        _ if address.is_unspecified() => Err(Fault::Address { given: false }),
        (true, _) => Ok(Target::SourceOnly(address)),
        (false, true) => Ok(Target::Address(address)),
    }
}

/// `rest`: everything after the head, entries and padding.
fn wanted(service: [u8; 4], count: u8, mut rest: &[u8]) -> Result<Wanted, Fault> {
    if usize::from(count) > MAX_ENTRIES {
        return Err(Fault::Entries(EntryFault::Count(count)));
    }
    let mut ports = Vec::with_capacity(MAX_ENTRIES);
    for _ in 0..count {
        // There is room for five entries in the shortest plaintext.
        let (entry, tail) =
            rest.split_first_chunk::<ENTRY_LEN>().ok_or(Fault::Entries(EntryFault::Count(count)))?;
        let &[number, f0, f1, l0, l1] = entry;
        let protocol = Protocol::from_number(number).ok_or(Fault::Entries(EntryFault::Protocol(number)))?;
        let range = PortRange::new(protocol, u16::from_be_bytes([f0, f1]), u16::from_be_bytes([l0, l1]));
        ports.push(range.map_err(|error| Fault::Entries(EntryFault::Ports(error)))?);
        rest = tail;
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Fault::Padding);
    }
    match (service, ports.is_empty()) {
        ([0, 0, 0, 0], true) => Ok(Wanted::Defaults),
        ([0, 0, 0, 0], false) => Ok(Wanted::Ports(ports)),
        (tag, true) => Ok(Wanted::Service(ServiceTag(tag))),
        (_, false) => Err(Fault::Entries(EntryFault::WithService)),
    }
}
