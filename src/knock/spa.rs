//! `spa`: single-packet authorization. One encrypted UDP datagram is the whole knock, and nothing is answered.
//!
//! Noise `IKpsk1`, message 1 ([`noise`]), inside an envelope that looks random to anyone
//! without the gate key. All integers are big-endian; P is 64 by default, any multiple of 16 up to 1120.
//!
//! ```text
//! packet, 112+P bytes: 176 by default, 1232 at most (an IPv6 packet of 1280 bytes, RFC 8200 section 5)
//! off    len   field
//! 0      32    e_masked     the ephemeral public key XOR HMAC(K_mask, tag), tag = last 16 bytes of enc_payload
//! 32     48    enc_s        the client's static public key, sealed under es
//! 80     P+16  enc_payload  the plaintext, sealed under es, ss and psk
//! 96+P   16    mac1         HMAC(K_mac1, everything before it)[0..16]
//!
//! prologue = "knockd-rs/1" || 0x01     S = the server's public key, G = the gate key
//! K_mac1 = SHA256("knockd-rs v1 mac1" || S || G)     K_mask = SHA256("knockd-rs v1 mask" || S || G)
//!
//! plaintext, P bytes
//! 0      1     version = 1
//! 1      1     flags: bits 0-1 op (0 open, 1 close, 2 renew, 3 query: refused)
//!              bit 2 for the address given | bit 3 only if sent from the address given; it wins over bit 2
//!              bit 4 wants an answer: accepted, and never answered | bit 5 single connection | bits 6-7 zero
//! 2      8     counter: unix time in ns, a multiple of 2^20 (the receiver requires only that it increases)
//! 10     2     session flags: zero; whatever this version does not enforce is refused
//! 12     4     seconds asked for; 0 = as the profile says
//! 16     16    address, IPv6 or v4-mapped; all-zero, and only then bits 2 and 3 clear: the packet's source
//! 32     4     service tag: SHA256("knockd-rs service" || name)[0..4]; 0 = the entries, or the defaults if none
//! 36     1     number n of entries, 0..5; 0 with a service tag
//! 37     5n    entries: IP protocol (6 or 17), first port (2), last port (2)
//! 37+5n  ..    zero
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::noise::{self, Psk, Responder, SEALED_KEY_LEN, TAG_LEN};
use crate::crypto::{Gate, GateKey, KeyPair, MAC1_LEN, Mac1, PublicKey, Secret};
use crate::text::{PortRange, Protocol, Span};
use crate::time::{Now, Timestamp};

use super::hash::Seeded;
use super::turnstile::Turnstile;
use super::{
    Ask, Authentic, Drop, EntryFault, Fault, Freshness, MAX_ENTRIES, Method, Op, ServiceTag, Target, Wanted,
};

/// The version of the plaintext, and of the protocol.
pub const VERSION: u8 = 1;

/// The length of the plaintext unless the client pads it further, and the least there is.
pub const DEFAULT_PAYLOAD: usize = 64;

/// The longest plaintext.
pub const MAX_PAYLOAD: usize = 1120;

/// What the length of a plaintext is a multiple of.
pub const PAYLOAD_STEP: usize = 16;

/// The length of a packet whose plaintext is empty.
pub const OVERHEAD: usize = 32 + SEALED_KEY_LEN + TAG_LEN + MAC1_LEN;

/// The shortest packet, and the usual one.
pub const MIN_LEN: usize = OVERHEAD + DEFAULT_PAYLOAD;

/// The longest packet.
pub const MAX_LEN: usize = OVERHEAD + MAX_PAYLOAD;

/// The Noise prologue: what both sides must agree on before the first byte.
pub const PROLOGUE: &[u8] = b"knockd-rs/1\x01";

/// Counters are multiples of this many nanoseconds, about a millisecond: finer would tell how exactly the
/// client's clock runs, which identifies a machine.
pub const QUANTUM: u64 = 1 << 20;

const HEAD_LEN: usize = 37;
const ENTRY_LEN: usize = 5;

const OP: u8 = 0b0000_0011;
const EXPLICIT: u8 = 1 << 2;
const SOURCE_ONLY: u8 = 1 << 3;
const SINGLE: u8 = 1 << 5;
const UNKNOWN: u8 = 0b1100_0000;

// --- the client's side ---------------------------------------------------------------------------------------

/// What a client knows: itself and its server.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The client's own key pair.
    pub keys: KeyPair,
    /// The key shared with the server; zeros where there is none.
    pub psk: Psk,
    /// The server's public key.
    pub server: PublicKey,
    /// The server's gate key.
    pub gate: GateKey,
}

/// The packet that asks for `ask`.
///
/// - `counter`: from [`next_counter`], stored before the packet is sent.
/// - `ephemeral`: 32 fresh random bytes, never used again: two packets with the same ones could be read.
/// - `payload_len`: P, the length that the plaintext is padded to; [`DEFAULT_PAYLOAD`].
///
/// # Errors
/// [`SealError`] when the request has no form on the wire.
pub fn seal(
    ask: &Ask,
    counter: Timestamp,
    client: &ClientIdentity,
    ephemeral: Secret<32>,
    payload_len: usize,
) -> Result<Vec<u8>, SealError> {
    let plain = encode(ask, counter, payload_len)?;
    let message =
        noise::write(PROLOGUE, &client.keys, &client.server, &client.psk, &KeyPair::from(ephemeral), &plain);
    Ok(wrap(&Gate::new(&client.server, &client.gate), message.ok_or(SealError::ServerKey)?))
}

/// The envelope: masks the ephemeral key and puts mac1 behind it all.
fn wrap(gate: &Gate, mut message: Vec<u8>) -> Vec<u8> {
    let tag = message.last_chunk::<TAG_LEN>().copied();
    if let (Some(tag), Some(ephemeral)) = (tag, message.first_chunk_mut::<32>()) {
        *ephemeral = gate.mask(&tag, ephemeral);
    }
    let mac1 = gate.mac1(&message);
    message.extend_from_slice(&mac1);
    message
}

/// The counter of a client's next knock: the time, or just above its last counter where the clock was set back.
///
/// A result far ahead of `now` means that the clock ran ahead when the client knocked last. A server whose own
/// clock is right refuses it and never took the last one either, so that the remedy is to forget `last`; whether
/// it is `now` that is wrong, only a person can tell.
#[must_use]
pub fn next_counter(now: Timestamp, last: Option<Timestamp>) -> Timestamp {
    let quantised = |time: Timestamp| Timestamp::from_nanos(time.as_nanos() / QUANTUM * QUANTUM);
    let after = last.map(|last| quantised(last).saturating_add(Duration::from_nanos(QUANTUM)));
    quantised(now).max(after.unwrap_or_default())
}

fn encode(ask: &Ask, counter: Timestamp, payload_len: usize) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if !(DEFAULT_PAYLOAD..=MAX_PAYLOAD).contains(&payload_len) || payload_len % PAYLOAD_STEP != 0 {
        return Err(SealError::Padding(payload_len));
    }
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
    let single = if ask.single { SINGLE } else { 0 };
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
    let mut plain = Zeroizing::new(Vec::with_capacity(payload_len));
    plain.extend_from_slice(&[VERSION, op | target | single]);
    plain.extend_from_slice(&counter.as_nanos().to_be_bytes());
    plain.extend_from_slice(&[0, 0]);
    plain.extend_from_slice(&seconds.to_be_bytes());
    plain.extend_from_slice(&address.octets());
    plain.extend_from_slice(&service);
    plain.push(count);
    for range in ports {
        plain.push(range.protocol().number());
        plain.extend_from_slice(&range.first().to_be_bytes());
        plain.extend_from_slice(&range.last().to_be_bytes());
    }
    plain.resize(payload_len, 0);
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
        }
    }
}

impl std::error::Error for SealError {}

// --- the server's side ---------------------------------------------------------------------------------------

/// What the server knows of a client.
#[derive(Clone, Debug)]
pub struct ClientKeys {
    /// The client's static public key.
    pub public: PublicKey,
    /// The key shared with it; zeros where there is none.
    pub psk: Psk,
    /// How far its clock may be from the server's.
    pub freshness: Freshness,
}

/// A client, and the secret shared with it once it was computed.
struct Client {
    psk: Psk,
    freshness: Freshness,
    shared: Option<Secret<32>>,
}

/// Datagrams in, requests out. Cheapest check first; a stranger's packet costs one HMAC.
///
/// Memory is bounded by the number of clients.
pub(super) struct Decoder {
    gate: Gate,
    responder: Responder,
    clients: HashMap<PublicKey, Client, Seeded>,
}

impl Decoder {
    /// A decoder that knows these clients.
    pub(super) fn new(
        server: KeyPair,
        gate: Gate,
        clients: impl IntoIterator<Item = ClientKeys>,
        hash: Seeded,
    ) -> Self {
        let mut table = HashMap::with_hasher(hash);
        for ClientKeys { public, psk, freshness } in clients {
            table.insert(public, Client { psk, freshness, shared: None });
        }
        Self { gate, responder: Responder::new(PROLOGUE, server), clients: table }
    }

    /// Length, mac1, turnstile, keys: everything that a stranger's packet can fail at. Then version, flags, entries
    /// and padding, which a client's packet can fail at.
    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        source: IpAddr,
        now: Now,
        turnstile: &mut Turnstile,
    ) -> Result<Authentic, Drop> {
        let packet = Packet::split(payload).ok_or(Drop::Length)?;
        if !self.gate.verify(packet.body, packet.mac1) {
            return Err(Drop::Mac);
        }
        turnstile.pass(packet.mac1, source, now.uptime)?;
        let ephemeral = self.gate.mask(packet.tag, packet.masked);
        let claim = self.responder.claim(&ephemeral, packet.sealed_key).ok_or(Drop::Key)?;
        let client = self.clients.get_mut(&claim.client()).ok_or(Drop::UnknownClient)?;
        let shared = match &client.shared {
            Some(shared) => shared,
            None => client.shared.insert(self.responder.shared(&claim.client()).ok_or(Drop::Key)?),
        };
        let (public, freshness) = (claim.client(), client.freshness);
        let plain = claim.open(shared, &client.psk, packet.sealed_payload).ok_or(Drop::Key)?;
        Ok(Authentic {
            client: public.into(),
            method: Method::Spa,
            freshness: Some(freshness),
            mac1: *packet.mac1,
            request: decode(&plain),
        })
    }
}

/// The fields of a packet of a possible length.
struct Packet<'a> {
    masked: &'a [u8; 32],
    sealed_key: &'a [u8; SEALED_KEY_LEN],
    sealed_payload: &'a [u8],
    tag: &'a [u8; TAG_LEN],
    body: &'a [u8],
    mac1: &'a Mac1,
}

impl<'a> Packet<'a> {
    fn split(bytes: &'a [u8]) -> Option<Self> {
        if !(MIN_LEN..=MAX_LEN).contains(&bytes.len()) || (bytes.len() - OVERHEAD) % PAYLOAD_STEP != 0 {
            return None;
        }
        let (body, mac1) = bytes.split_last_chunk()?;
        let (masked, rest) = body.split_first_chunk()?;
        let (sealed_key, sealed_payload) = rest.split_first_chunk()?;
        let tag = sealed_payload.last_chunk()?;
        Some(Self { masked, sealed_key, sealed_payload, tag, body, mac1 })
    }
}

fn decode(plain: &[u8]) -> Result<(Ask, Timestamp), Fault> {
    // A packet is at least so long that this cannot fail.
    let (head, rest) = plain.split_first_chunk::<HEAD_LEN>().ok_or(Fault::Padding)?;
    let &[version, flags, c0, c1, c2, c3, c4, c5, c6, c7, s0, s1, d0, d1, d2, d3, ref rest_of_head @ ..] =
        head;
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
    let session = u16::from_be_bytes([s0, s1]);
    if session != 0 {
        return Err(Fault::SessionFlags(session));
    }
    let target = target(flags, *address)?;
    let ports = wanted([t0, t1, t2, t3], count, rest)?;
    let seconds = u32::from_be_bytes([d0, d1, d2, d3]);
    let duration = (seconds != 0).then(|| Span::from_secs(seconds));
    let counter = Timestamp::from_nanos(u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]));
    Ok((Ask { op, target, single: flags & SINGLE != 0, duration, ports }, counter))
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

/// What was taken from a plaintext, written again and taken again, is the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_plaintext(plain: &[u8]) {
    if let Ok((ask, counter)) = decode(plain) {
        let written = encode(&ask, counter, DEFAULT_PAYLOAD);
        assert!(written.is_ok_and(|written| decode(&written) == Ok((ask, counter))), "{plain:?}");
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
