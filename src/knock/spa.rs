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
//! 96+P   16    mac1         HMAC(K_mac1, everything before it)[0..16] XOR (8 zero bytes || pseudonym)
//!
//! prologue = "knockd-rs/1" || 0x01     S = the server's public key, G = the gate key
//! K_mac1 = SHA256("knockd-rs v1 mac1" || S || G)     K_mask = SHA256("knockd-rs v1 mask" || S || G)
//! pseudonym = HMAC(psk, "knockd-rs v1 client" || S || G || C)[0..8]     C = the client's public key
//!
//! plaintext, P bytes
//! 0      37+5n the request: see `head.rs`
//! 37+5n  ..    zero
//! ```

use std::collections::HashMap;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::noise::{self, Psk, Responder, SEALED_KEY_LEN, TAG_LEN};
use crate::crypto::{Code, Gate, GateKey, KeyPair, MAC1_LEN, Mac1, Pseudonym, PublicKey, Secret, pseudonym};
use crate::time::{Now, Timestamp};

use super::hash::Seeded;
use super::turnstile::{Spent, Turnstile};
use super::{Ask, Authentic, Drop, Freshness, Method, head};

pub use head::{SealError, VERSION};

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
    let gate = Gate::new(&client.server, &client.gate);
    Ok(gate.wrap_for(&client.pseudonym(), message.ok_or(SealError::ServerKey)?))
}

impl ClientIdentity {
    /// What the server knows this client by before it has opened a packet.
    #[must_use]
    pub fn pseudonym(&self) -> Pseudonym {
        pseudonym(&self.server, &self.gate, &self.keys.public(), &self.psk)
    }
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
    let mut plain = Zeroizing::new(Vec::with_capacity(payload_len));
    plain.extend_from_slice(&head::encode(ask, counter)?);
    plain.resize(payload_len, 0);
    Ok(plain)
}

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

/// A client, the secret shared with it once it was computed, and what it has spent of its share of handshakes.
struct Client {
    public: PublicKey,
    psk: Psk,
    freshness: Freshness,
    shared: Option<Secret<32>>,
    spent: Spent,
}

/// Datagrams in, requests out. Cheapest check first; a stranger's packet costs one HMAC.
///
/// Memory is bounded by the number of clients.
pub(super) struct Decoder {
    gate: Gate,
    responder: Responder,
    clients: HashMap<Pseudonym, Client, Seeded>,
}

impl Decoder {
    /// A decoder that knows these clients.
    pub(super) fn new(
        server: KeyPair,
        gate: &GateKey,
        clients: impl IntoIterator<Item = ClientKeys>,
        hash: Seeded,
    ) -> Self {
        let mut table = HashMap::with_hasher(hash);
        for ClientKeys { public, psk, freshness } in clients {
            let known_by = pseudonym(&server.public(), gate, &public, &psk);
            table.insert(known_by, Client { public, psk, freshness, shared: None, spent: Spent::default() });
        }
        let gate = Gate::new(&server.public(), gate);
        Self { gate, responder: Responder::new(PROLOGUE, server), clients: table }
    }

    /// What the mac1 of a packet of a possible length has to be.
    pub(super) fn code(&self, payload: &[u8]) -> Result<Code, Drop> {
        Packet::split(payload).map(|packet| self.gate.code(packet.body)).ok_or(Drop::Length)
    }

    /// Length, mac1 and whose it is, turnstile, keys: everything that a stranger's packet can fail at. Then version, flags, entries
    /// and padding, which a client's packet can fail at.
    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        code: &Code,
        now: Now,
        turnstile: &mut Turnstile,
    ) -> Result<Authentic, Drop> {
        let packet = Packet::split(payload).ok_or(Drop::Length)?;
        let claimed = self.gate.claimed(code, packet.mac1).ok_or(Drop::Mac)?;
        let client = self.clients.get_mut(&claimed).ok_or(Drop::UnknownClient)?;
        turnstile.pass_client(packet.mac1, &mut client.spent, now.uptime)?;
        let ephemeral = self.gate.mask(packet.tag, packet.masked);
        let claim = self.responder.claim(&ephemeral, packet.sealed_key).ok_or(Drop::Key)?;
        if claim.client() != client.public {
            return Err(Drop::UnknownClient);
        }
        let shared = match &client.shared {
            Some(shared) => shared,
            None => client.shared.insert(self.responder.shared(&client.public).ok_or(Drop::Key)?),
        };
        let (public, freshness) = (client.public, client.freshness);
        let plain = claim.open(shared, &client.psk, packet.sealed_payload).ok_or(Drop::Key)?;
        Ok(Authentic {
            client: public.into(),
            method: Method::Spa,
            freshness: Some(freshness),
            mac1: *packet.mac1,
            request: head::decode(&plain),
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

/// What was taken from a plaintext, written again and taken again, is the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_plaintext(plain: &[u8]) {
    if let Ok((ask, counter)) = head::decode(plain) {
        let written = encode(&ask, counter, DEFAULT_PAYLOAD);
        assert!(written.is_ok_and(|written| head::decode(&written) == Ok((ask, counter))), "{plain:?}");
    }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
