//! Set elements: what a grant or a guard looks like to the kernel. Pure, both directions.
//!
//! ```text
//! grants, once, ranges, counted, ends, solo   address (4 or 16) | protocol (1) 0 0 0 | port (2) 0 0
//! guarded                                                       | protocol (1) 0 0 0 | port (2) 0 0  →  goto chain
//! ```
//! Every field of a concatenated key is padded to four bytes. An interval set takes two keys, the lowest and the
//! highest. The note is user data: type 0 (`NFTNL_UDATA_SET_ELEM_COMMENT`), length with NUL, text, NUL.

use std::net::IpAddr;
use std::time::Duration;

use super::wire::{Attributes, attributes, find, find_text, find_u32, find_u64, octets};
use super::{Closed, Door, Guarded, LiveDoor, LiveGuard, Note, Session, Uses};
use crate::text::{PortRange, Protocol};

/// The longest lifetime that is passed to the kernel.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Which of the sets of grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Single ports, any number of connections.
    Grants,
    /// Single ports, one connection.
    Once,
    /// Port ranges, any number of connections.
    Ranges,
    /// Ports of which each range admits a number of connections; single ports, when it is more than one.
    Counted,
    /// Ports for all of a network, any number of connections.
    Wide,
    /// The same for a number of connections.
    WideCounted,
    /// Where connections end with the grant.
    Ends,
    /// Where they come one at a time.
    Solo,
}

impl Kind {
    /// The set for such a door.
    pub(super) fn of(uses: Uses, wide: bool, ports: PortRange) -> Self {
        if wide {
            return if uses == Uses::Many { Self::Wide } else { Self::WideCounted };
        }
        match (uses, ports.is_single()) {
            (Uses::Many, true) => Self::Grants,
            (Uses::Once, true) => Self::Once,
            (Uses::Many, false) => Self::Ranges,
            (Uses::Once, false) | (Uses::Few(_), _) => Self::Counted,
        }
    }

    /// Whether it lets anybody in; else it says something about those who are let in.
    pub(super) fn admits(self) -> bool {
        !matches!(self, Self::Ends | Self::Solo)
    }

    /// Whether its keys are intervals.
    pub(super) fn is_interval(self) -> bool {
        !matches!(self, Self::Grants | Self::Once)
    }

    /// Whether its keys are the lowest addresses of networks.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::Wide | Self::WideCounted)
    }

    /// Whether its elements have a limit of their own.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Counted | Self::WideCounted)
    }

    /// The interval set for a number of connections beside this one, and the one for any number.
    pub(super) fn pair(self) -> (Self, Self) {
        if self.is_wide() { (Self::WideCounted, Self::Wide) } else { (Self::Counted, Self::Ranges) }
    }

    pub(super) const ALL: [Self; 8] = [
        Self::Grants,
        Self::Once,
        Self::Ranges,
        Self::Counted,
        Self::Wide,
        Self::WideCounted,
        Self::Ends,
        Self::Solo,
    ];
}

/// An element of a set of grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) address: IpAddr,
    pub(super) ports: PortRange,
    /// How many connections it admits.
    pub(super) uses: Uses,
    /// The lifetime it was made with; `None` never expires.
    pub(super) timeout: Option<Duration>,
    /// What is left of it.
    pub(super) left: Option<Duration>,
    pub(super) note: Note,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn of(door: &Door) -> Self {
        Self {
            kind: Kind::of(door.uses, door.wide, door.ports),
            address: door.address,
            ports: door.ports,
            uses: door.uses,
            timeout: Some(door.lifetime),
            left: Some(door.lifetime),
            note: door.note.clone(),
            packets: 0,
            bytes: 0,
        }
    }

    /// What the door says besides, as an element of the set for it.
    pub(super) fn beside(&self, kind: Kind) -> Self {
        Self { kind, packets: 0, bytes: 0, ..self.clone() }
    }

    /// Whether all the connections it was for have been made.
    pub(super) fn is_spent(&self) -> bool {
        self.kind.counts() && self.uses.count().is_some_and(|count| self.packets >= count.into())
    }

    /// How many connections are left of it.
    fn remaining_uses(&self) -> Uses {
        let used = u8::try_from(self.packets).unwrap_or(u8::MAX);
        let left = self.uses.count().map(|count| count.saturating_sub(used).max(1));
        match self.kind {
            kind if kind.counts() => left.and_then(Uses::number).unwrap_or(self.uses),
            _ => self.uses,
        }
    }

    /// The grant; `beside`: what the sets that admit nobody hold.
    pub(super) fn live_door(&self, beside: &[Self]) -> LiveDoor {
        let has = |kind| {
            beside.iter().any(|other| {
                other.kind == kind
                    && other.address == self.address
                    && other.ports.intersection(&self.ports).is_some()
            })
        };
        let door = Door {
            address: self.address,
            wide: self.kind.is_wide(),
            ports: self.ports,
            uses: self.remaining_uses(),
            session: Session { alone: has(Kind::Solo), ends: has(Kind::Ends), ..Session::default() },
            forwards: Vec::new(),
            lifetime: self.left.unwrap_or(Duration::MAX),
            note: self.note.clone(),
        };
        let granted = self.timeout.unwrap_or(Duration::MAX);
        LiveDoor { door, granted, packets: self.packets, bytes: self.bytes }
    }

    /// The element with a key laid out as `shape`; intervals as the set's kind asks for.
    pub(super) fn attributes(&self, shape: Shape, interval: bool) -> Attributes {
        let key = |port| shape.key(Some(self.address), self.ports.protocol(), port);
        let keys = keys(key(self.ports.first()), interval.then(|| key(self.ports.last())));
        let comment = match shape {
            Shape::Full => self.note.as_str().to_owned(),
            // These keys do not say what was granted.
            Shape::Port | Shape::Address => format!("{} {}", self.note, self.ports).trim_start().to_owned(),
        };
        let counting = if self.kind.counts() { counting(keys, self.uses) } else { keys };
        commented(timed(counting, self.timeout, self.left), &comment)
    }

    /// Reads an element back; `None` for one that cannot be ours, such as another protocol's.
    pub(super) fn parse(element: &[u8], kind: Kind, shape: Shape, family: Family) -> Option<Self> {
        let parsed = Parsed::of(element);
        let (address, rest) = family.split(parsed.key?)?;
        let (note, recorded) = match parsed.comment.unwrap_or_default().split_once(' ') {
            Some((note, ports)) => (note, ports.parse().ok()),
            None if shape == Shape::Full => (parsed.comment.unwrap_or_default(), None),
            None => ("", parsed.comment.unwrap_or_default().parse().ok()),
        };
        let ports = match shape {
            Shape::Full => ports_of(rest, family.split(parsed.end.or(parsed.key)?)?.1)?,
            Shape::Port | Shape::Address => recorded?,
        };
        let (timeout, left) = (parsed.timeout, parsed.left);
        let note = note.parse().unwrap_or_default();
        let uses = match kind {
            Kind::Once => Uses::Once,
            kind if kind.counts() => burst(element).and_then(Uses::number).unwrap_or_default(),
            _ => Uses::Many,
        };
        Some(Self {
            kind,
            address,
            ports,
            uses,
            timeout,
            left,
            note,
            packets: parsed.packets,
            bytes: parsed.bytes,
        })
    }
}

/// A guard as an element of the verdict map `guarded`.
pub(super) fn guard_attributes(guard: &Guarded) -> Attributes {
    const NFT_GOTO: u32 = 0xffff_fffc;
    let key = |port| Shape::Full.key(None, guard.ports.protocol(), port);
    let keys = keys(key(guard.ports.first()), Some(key(guard.ports.last())));
    let verdict = Attributes::default().u32(1, NFT_GOTO).text(2, chain(guard.closed));
    let element = keys.nest(NFTA_SET_ELEM_DATA, Attributes::default().nest(NFTA_DATA_VERDICT, verdict));
    timed(element, guard.lifetime, guard.lifetime)
}

/// Reads a guard back; `None` for an element whose verdict is none of ours.
pub(super) fn parse_guard(element: &[u8]) -> Option<LiveGuard> {
    let parsed = Parsed::of(element);
    let key = parsed.key?;
    let verdict = find(find(element, NFTA_SET_ELEM_DATA)?, NFTA_DATA_VERDICT)?;
    let name = find_text(verdict, 2)?;
    let closed = [Closed::Drop, Closed::Reject].into_iter().find(|closed| chain(*closed) == name)?;
    let ports = ports_of(key, parsed.end.unwrap_or(key))?;
    Some(LiveGuard { guard: Guarded { ports, closed, lifetime: parsed.left }, granted: parsed.timeout })
}

/// Reads bytes as an element of every kind, shape and family, and says how many of them it is.
#[cfg(feature = "fuzzing")]
pub(super) fn read_as_everything(element: &[u8]) -> usize {
    let mut found = usize::from(parse_guard(element).is_some()) + usize::from(is_interval_end(element));
    for kind in Kind::ALL {
        for shape in [Shape::Full, Shape::Port, Shape::Address] {
            for family in [Family::V4, Family::V6] {
                found += usize::from(Entry::parse(element, kind, shape, family).is_some());
            }
        }
    }
    found
}

/// The chain that a guarded port's packets go to.
pub(super) fn chain(closed: Closed) -> &'static str {
    match closed {
        Closed::Drop => "drop_strangers",
        Closed::Reject => "reject_strangers",
    }
}

/// How the key of a set is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `address . inet_proto . inet_service`
    Full,
    /// `address . inet_service`
    Port,
    /// `address`
    Address,
}

impl Shape {
    pub(super) fn key(self, address: Option<IpAddr>, protocol: Protocol, port: u16) -> Vec<u8> {
        let mut key = address.map(octets).unwrap_or_default();
        if self == Self::Full {
            key.extend_from_slice(&[protocol.number(), 0, 0, 0]);
        }
        if self != Self::Address {
            key.extend_from_slice(&port.to_be_bytes());
            key.extend_from_slice(&[0, 0]);
        }
        key
    }
}

/// Which addresses a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn split(self, key: &[u8]) -> Option<(IpAddr, &[u8])> {
        match self {
            Self::V4 => key.split_first_chunk::<4>().map(|(octets, rest)| ((*octets).into(), rest)),
            Self::V6 => key.split_first_chunk::<16>().map(|(octets, rest)| ((*octets).into(), rest)),
        }
    }
}

pub(super) fn ports_of(first: &[u8], last: &[u8]) -> Option<PortRange> {
    let port = |key: &[u8]| match *key {
        [protocol, _, _, _, high, low, _, _] => Some((protocol, u16::from_be_bytes([high, low]))),
        _ => None,
    };
    let ((protocol, first), (other, last)) = (port(first)?, port(last)?);
    let protocol = Protocol::from_number(protocol).filter(|_| protocol == other)?;
    PortRange::new(protocol, first, last).ok()
}

pub(super) fn keys(first: Vec<u8>, last: Option<Vec<u8>>) -> Attributes {
    let value = |bytes: Vec<u8>| Attributes::default().bytes(NFTA_DATA_VALUE, &bytes);
    let element = Attributes::default().nest(NFTA_SET_ELEM_KEY, value(first));
    match last {
        Some(last) => element.nest(NFTA_SET_ELEM_KEY_END, value(last)),
        None => element,
    }
}

pub(super) fn timed(element: Attributes, timeout: Option<Duration>, left: Option<Duration>) -> Attributes {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match (timeout, left) {
        (Some(timeout), Some(left)) if left < timeout => element
            .u64(NFTA_SET_ELEM_TIMEOUT, millis(timeout))
            .u64(NFTA_SET_ELEM_EXPIRATION, millis(left).max(1)),
        (Some(timeout), _) => element.u64(NFTA_SET_ELEM_TIMEOUT, millis(timeout)),
        (None, _) => element,
    }
}

pub(super) fn commented(element: Attributes, comment: &str) -> Attributes {
    let Ok(length) = u8::try_from(comment.len() + 1) else { return element };
    if comment.is_empty() {
        return element;
    }
    let userdata = [&[UDATA_COMMENT, length], comment.as_bytes(), &[0]].concat();
    element.bytes(NFTA_SET_ELEM_USERDATA, &userdata)
}

/// The two expressions of the set `counted`, with a limit of the element's own: so many packets, and the next after a
/// week, which is longer than a grant lasts.
fn counting(element: Attributes, uses: Uses) -> Attributes {
    const WEEK: u64 = 7 * 86_400;
    let expression = |name: &str, data: Attributes| {
        let named = Attributes::default().text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data);
        named.into_bytes()
    };
    let limit = Attributes::default()
        .u64(NFTA_LIMIT_RATE, 1)
        .u64(NFTA_LIMIT_UNIT, WEEK)
        .u32(NFTA_LIMIT_BURST, uses.count().unwrap_or(1).into())
        .u32(NFTA_LIMIT_TYPE, 0)
        .u32(NFTA_LIMIT_FLAGS, 0);
    let counter = Attributes::default().u64(NFTA_COUNTER_BYTES, 0).u64(NFTA_COUNTER_PACKETS, 0);
    let list = [expression("limit", limit), expression("counter", counter)]
        .into_iter()
        .fold(Attributes::default(), |list, bytes| list.nested(NFTA_LIST_ELEM, &bytes));
    element.nest(NFTA_SET_ELEM_EXPRESSIONS, list)
}

/// The attributes of an element that are of use here.
pub(super) struct Parsed<'a> {
    pub(super) key: Option<&'a [u8]>,
    end: Option<&'a [u8]>,
    timeout: Option<Duration>,
    pub(super) left: Option<Duration>,
    pub(super) comment: Option<&'a str>,
    packets: u64,
    bytes: u64,
}

impl<'a> Parsed<'a> {
    pub(super) fn of(element: &'a [u8]) -> Self {
        let value = |name| find(find(element, name)?, NFTA_DATA_VALUE);
        let time = |name| find_u64(element, name).map(Duration::from_millis);
        let timeout = time(NFTA_SET_ELEM_TIMEOUT).filter(|timeout| !timeout.is_zero());
        let (packets, bytes) = counter(element).unwrap_or_default();
        Self {
            key: value(NFTA_SET_ELEM_KEY),
            end: value(NFTA_SET_ELEM_KEY_END),
            timeout,
            left: timeout.map(|timeout| time(NFTA_SET_ELEM_EXPIRATION).unwrap_or(timeout)),
            comment: find(element, NFTA_SET_ELEM_USERDATA).and_then(comment),
            packets,
            bytes,
        }
    }
}

/// The comment in user data: a list of type (1), length (1), value.
fn comment(userdata: &[u8]) -> Option<&str> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let (value, next) = tail.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        rest = next;
    }
    None
}

/// The data of the element's expression of this name, alone (`NFTA_SET_ELEM_EXPR`) or in a list of expressions.
fn expression<'a>(element: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let alone = find(element, NFTA_SET_ELEM_EXPR).into_iter();
    let listed =
        find(element, NFTA_SET_ELEM_EXPRESSIONS).into_iter().flat_map(attributes).map(|(_, expr)| expr);
    find(alone.chain(listed).find(|expr| find_text(expr, NFTA_EXPR_NAME) == Some(name))?, NFTA_EXPR_DATA)
}

/// Packets and bytes of the element's counter.
fn counter(element: &[u8]) -> Option<(u64, u64)> {
    let data = expression(element, "counter")?;
    Some((find_u64(data, NFTA_COUNTER_PACKETS)?, find_u64(data, NFTA_COUNTER_BYTES)?))
}

/// The burst of the element's limit.
fn burst(element: &[u8]) -> Option<u8> {
    u8::try_from(find_u32(expression(element, "limit")?, NFTA_LIMIT_BURST)?).ok()
}

/// Flags of an element: the end of an interval in sets of the old kind, which is no element of its own.
pub(super) fn is_interval_end(element: &[u8]) -> bool {
    find_u32(element, NFTA_SET_ELEM_FLAGS).is_some_and(|flags| flags & 1 != 0)
}

// `linux/netfilter/nf_tables.h`: enum nft_set_elem_attributes, nft_data_attributes, nft_expr_attributes.
const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
// enum nft_limit_attributes, nft_counter_attributes.
const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_LIMIT_TYPE: u16 = 4;
const NFTA_LIMIT_FLAGS: u16 = 5;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
// `libnftnl/udata.h`: enum nftnl_udata_set_elem_types.
const UDATA_COMMENT: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, ports: &str, uses: Uses) -> Entry {
        let (address, ports) = (address.parse().unwrap(), ports.parse().unwrap());
        let note = "laptop".parse().unwrap();
        let session = Session::default();
        let forwards = Vec::new();
        Entry::of(&Door {
            address,
            wide: false,
            ports,
            uses,
            session,
            forwards,
            lifetime: Duration::from_secs(15),
            note,
        })
    }

    #[test]
    fn an_element_reads_back_as_it_was_written() {
        let stories = [
            ("192.0.2.7", "tcp/22", Uses::Many),
            ("192.0.2.7", "tcp/22", Uses::Once),
            ("192.0.2.7", "tcp/22", Uses::Few(3)),
            ("2001:db8::7", "udp/8000-8100", Uses::Many),
            ("2001:db8::7", "udp/8000-8100", Uses::Once),
        ];
        for (address, ports, uses) in stories {
            let entry = entry(address, ports, uses);
            let family = Family::of(entry.address);
            let bytes = entry.attributes(Shape::Full, entry.kind.is_interval()).into_bytes();
            assert_eq!(Entry::parse(&bytes, entry.kind, Shape::Full, family), Some(entry));
        }
    }

    #[test]
    fn a_set_without_ports_in_its_key_keeps_them_in_the_comment() {
        for shape in [Shape::Port, Shape::Address] {
            let mut entry = entry("192.0.2.7", "tcp/22", Uses::Many);
            let bytes = entry.attributes(shape, false).into_bytes();
            assert_eq!(Entry::parse(&bytes, entry.kind, shape, Family::V4), Some(entry.clone()));
            entry.note = Note::default();
            let bytes = entry.attributes(shape, false).into_bytes();
            assert_eq!(Entry::parse(&bytes, entry.kind, shape, Family::V4), Some(entry));
        }
    }

    #[test]
    fn a_key_is_laid_out_as_nft_lays_it_out() {
        let key = Shape::Full.key(Some("1.2.3.4".parse().unwrap()), Protocol::Tcp, 22);
        assert_eq!(key, [1, 2, 3, 4, 6, 0, 0, 0, 0, 22, 0, 0]);
    }

    #[test]
    fn a_guard_reads_back_with_its_lifetime() {
        for (closed, lifetime) in [(Closed::Drop, None), (Closed::Reject, Some(Duration::from_secs(120)))] {
            let guard = Guarded { ports: "tcp/22".parse().unwrap(), closed, lifetime };
            let bytes = guard_attributes(&guard).into_bytes();
            assert_eq!(parse_guard(&bytes), Some(LiveGuard { guard, granted: lifetime }));
        }
    }

    #[test]
    fn elements_of_other_protocols_and_broken_ones_are_passed_over() {
        let entry = entry("192.0.2.7", "tcp/22", Uses::Many);
        let bytes = entry.attributes(Shape::Full, false).into_bytes();
        for end in 0..bytes.len() {
            let _ = Entry::parse(&bytes[..end], Kind::Grants, Shape::Full, Family::V4);
            let _ = parse_guard(&bytes[..end]);
        }
        let icmp = keys(vec![192, 0, 2, 7, 1, 0, 0, 0, 0, 22, 0, 0], None).into_bytes();
        assert_eq!(Entry::parse(&icmp, Kind::Grants, Shape::Full, Family::V4), None);
    }
}
