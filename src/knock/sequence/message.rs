//! The message that is spread over the lanes: the payload, encrypted and authenticated without room for a nonce.
//!
//! ```text
//! 0   2  hint  HMAC(K_hint, "hint" || u64 step)[0..2] XOR HMAC(K_ports, "veil" || u64 step || tag || ct)[0..2]
//! 2   8  tag   HMAC(K_a, "seq" || u64 step || payload)[0..8]
//! 10  n  ct    payload XOR AES-256-CTR(K_e, iv = tag || 0^8)
//!
//! K_a, K_e, K_hint = HKDF(X25519(client, server) || psk, "knockd-rs v1 seq mac", ".. seq enc", ".. seq hint")
//! step = counter / 256, rounded down
//! ```
//!
//! The shape is that of SIV (RFC 5297): the tag of the payload is the nonce of its encryption, and since the counter is
//! a part of both, no two messages of a client have one nonce. A short tag of HMAC says nothing about its key; one of
//! GCM would.

use subtle::ConstantTimeEq;

use crate::crypto::{Keyed, Psk, Secret, code, derive, keyed, xor_stream};

use super::super::ServiceTag;
use super::ground::PortKey;
use super::payload::HEAD_LEN;

/// The bytes before the payload.
pub(super) const OVERHEAD: usize = HINT_LEN + TAG_LEN;
const HINT_LEN: usize = 2;
const TAG_LEN: usize = 8;

/// The seconds of one step; the counter's low byte counts them.
pub const STEP: u64 = 256;

/// The code that begins a message's ciphertext: its name, since no two have the same.
pub(super) type Tag = [u8; TAG_LEN];

/// How a message is cut into knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The bytes of the message.
    pub(super) k: usize,
    /// The lanes that it is spread over.
    pub(super) n: usize,
    /// How many voices side by side it takes.
    pub(super) voices: u8,
}

impl Kind {
    /// By the length of the address: none, IPv4, IPv6. Ten knocks of the first two may be lost, twenty of the last.
    pub(super) const ALL: [Self; 3] = [
        Self { k: OVERHEAD + HEAD_LEN, n: 28, voices: 1 },
        Self { k: OVERHEAD + HEAD_LEN + 4, n: 32, voices: 1 },
        Self { k: OVERHEAD + HEAD_LEN + 16, n: 54, voices: 2 },
    ];

    /// The fewest knocks that a message can be put together from.
    pub(super) const LEAST: usize = OVERHEAD + HEAD_LEN;

    /// The one for messages of this length.
    pub(super) fn of(len: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.k == len)
    }

    /// How many lanes of each voice are used.
    pub(super) fn lanes(self) -> u8 {
        u8::try_from(self.n / usize::from(self.voices.max(1))).unwrap_or(u8::MAX)
    }
}

/// What one client and the server share for sequences.
pub(super) struct Keys {
    mac: Keyed,
    stream: Secret<32>,
    hint: Keyed,
}

impl Keys {
    pub(super) fn new(shared: &Secret<32>, psk: &Psk) -> Self {
        Self {
            mac: keyed(derive(shared, psk, b"knockd-rs v1 seq mac").expose()),
            stream: derive(shared, psk, b"knockd-rs v1 seq enc"),
            hint: keyed(derive(shared, psk, b"knockd-rs v1 seq hint").expose()),
        }
    }

    /// By which the server finds the client, in this step.
    pub(super) fn hint(&self, step: u64) -> [u8; 2] {
        let [h0, h1, ..] = *code(&self.hint, &[b"hint", &step.to_be_bytes()]).expose();
        [h0, h1]
    }

    fn tag(&self, step: u64, payload: &[u8]) -> Tag {
        let [t0, t1, t2, t3, t4, t5, t6, t7, ..] =
            *code(&self.mac, &[b"seq", &step.to_be_bytes(), payload]).expose();
        [t0, t1, t2, t3, t4, t5, t6, t7]
    }

    fn xor(&self, tag: Tag, data: &mut [u8]) {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = tag;
        xor_stream(&self.stream, [t0, t1, t2, t3, t4, t5, t6, t7, 0, 0, 0, 0, 0, 0, 0, 0], data);
    }

    /// The message that carries `payload`.
    pub(super) fn seal(&self, ports: &PortKey, step: u64, payload: &[u8]) -> Vec<u8> {
        let tag = self.tag(step, payload);
        let mut rest = [&tag, payload].concat();
        self.xor(tag, rest.split_at_mut(TAG_LEN).1);
        [&ports.veil(step, self.hint(step), &rest), rest.as_slice()].concat()
    }

    /// The payload behind the hint, if this client sealed it in this step.
    fn open(&self, step: u64, rest: &[u8]) -> Option<Vec<u8>> {
        let (tag, sealed) = rest.split_first_chunk::<TAG_LEN>()?;
        let mut payload = sealed.to_vec();
        self.xor(*tag, &mut payload);
        bool::from(self.tag(step, &payload).ct_eq(tag)).then_some(payload)
    }
}

/// A message that came out of the lanes, before anything about it is known.
pub(super) struct Sealed<'a> {
    hint: [u8; 2],
    rest: &'a [u8],
    /// Its name.
    pub(super) tag: Tag,
}

impl<'a> Sealed<'a> {
    /// The parts of a message of a possible length, with the hint laid open.
    pub(super) fn split(message: &'a [u8], ports: &PortKey, step: u64) -> Option<Self> {
        Kind::of(message.len())?;
        let (hint, rest) = message.split_first_chunk::<HINT_LEN>()?;
        let tag = *rest.first_chunk()?;
        Some(Self { hint: ports.veil(step, *hint, rest), rest, tag })
    }
}

/// The hints of all clients in one step, by which a message finds its client without a trial of every key.
pub(super) struct Hints(Vec<([u8; 2], usize)>);

impl Hints {
    pub(super) fn new<'a>(clients: impl Iterator<Item = &'a Keys>, step: u64) -> Self {
        let mut hints: Vec<_> = clients.map(|keys| keys.hint(step)).zip(0..).collect();
        hints.sort_unstable();
        Self(hints)
    }

    /// The places of the clients that may have sealed this message: of 1,000 clients one and a half hundredth besides
    /// the right one, on average.
    pub(super) fn clients(&self, sealed: &Sealed<'_>) -> impl Iterator<Item = usize> + '_ {
        let hint = sealed.hint;
        let first = self.0.partition_point(|(known, _)| *known < hint);
        self.0.iter().skip(first).take_while(move |(known, _)| *known == hint).map(|(_, client)| *client)
    }
}

/// Opens `sealed` with the keys of a client.
pub(super) fn open(keys: &Keys, step: u64, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
    keys.open(step, sealed.rest)
}

/// What the server knows of a client.
pub(super) struct Client {
    pub(super) id: super::super::ClientId,
    pub(super) keys: Keys,
    pub(super) freshness: super::super::Freshness,
    pub(super) services: Vec<ServiceTag>,
}
