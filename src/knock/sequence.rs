//! `sequence`: a request played on closed ports, for clients that can do no more than call `connect` or `sendto`.
//!
//! The request becomes an encrypted message (`payload`, `message`), the message is spread over lanes by an erasure
//! code (`code`), and each lane's byte is one knock at one port (`ground`). What a knock carries, if anything,
//! counts for nothing; TCP and UDP are the same. Formats are drawn in those files.
//!
//! ```text
//! request -> payload 8, 12 or 24 bytes -> message 18, 22 or 34 -> 28, 32 or 54 lanes -> as many ports
//! ```
//!
//! The server remembers the last knocks of each source (`sources`) and looks for messages among them (`search`).

mod code;
mod field;
mod ground;
mod message;
mod payload;
mod search;
mod sources;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::crypto::{GateKey, KeyPair, Psk, PublicKey};
use crate::time::{Now, Timestamp};

use super::budget::Budget;
use super::hash::Seeded;
use super::ring::Ring;
use super::spa::ClientIdentity;
use super::{Ask, Authentic, Drop, Freshness, Method, Rates, ServiceTag};

pub use super::ground::{Ground, GroundError, MAX_EXCLUDED, VOICE};
pub use message::STEP;

use ground::{Inverse, PortKey, Scale, Symbol};
use message::{Client, Hints, Keys, Kind, Sealed, Tag};
use sources::Sources;

// --- the client's side ---------------------------------------------------------------------------------------

/// A request as the ports to knock at, with all that lies between, so that it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The client's counter.
    pub counter: Timestamp,
    /// The request in bytes.
    pub payload: Vec<u8>,
    /// The request as it goes out: hint, tag and ciphertext.
    pub message: Vec<u8>,
    /// The knocks, in the order in which to send them.
    pub notes: Vec<Note>,
}

/// One knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which value of the code it carries; the first ones are the message itself.
    pub lane: u8,
    /// The value.
    pub byte: u8,
    /// The number that stands for voice, lane and byte, and finds its port by the permutation of the step.
    pub symbol: u16,
    /// Where it goes; `None` where that port is left out.
    pub port: Option<u16>,
}

impl Sequence {
    /// The step, on which the permutation of the ports depends.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.counter.as_secs() / STEP
    }

    /// The ports to knock at, in this order.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.notes.iter().filter_map(|note| note.port)
    }

    /// How many knocks may be lost.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.ports().count().saturating_sub(self.message.len())
    }
}

/// The sequence that asks for `ask`.
///
/// - `counter`: from [`next_counter`], stored before the first knock is sent.
/// - `voice`: a random byte, so that two clients behind one address disturb each other less.
///
/// # Errors
/// [`SealError`] when the request has no form on these ports.
pub fn compose(
    ask: &Ask,
    counter: Timestamp,
    identity: &ClientIdentity,
    ground: &Ground,
    voice: u8,
) -> Result<Sequence, SealError> {
    play(payload::encode(ask, low_byte(counter))?, counter, identity, ground, voice)
}

fn play(
    payload: Vec<u8>,
    counter: Timestamp,
    identity: &ClientIdentity,
    ground: &Ground,
    voice: u8,
) -> Result<Sequence, SealError> {
    let shared = identity.keys.agree(&identity.server).ok_or(SealError::ServerKey)?;
    let keys = Keys::new(&shared, &identity.psk);
    let ports = PortKey::new(&identity.server, &identity.gate);
    let step = counter.as_secs() / STEP;
    let message = keys.seal(&ports, step, &payload);
    let kind = Kind::of(message.len()).ok_or(SealError::Address)?;
    let voices = ground.voices();
    if kind.voices > voices {
        return Err(SealError::Span(ground.span));
    }
    let scale = Scale::new(ground, &ports, step);
    let bytes = code::encode(&message, kind.n);
    let play = |voice: u8| -> Vec<Note> {
        let lanes = kind.lanes();
        let note = |(lane, byte): (u8, u8)| {
            let voice = voice.wrapping_add(lane / lanes) % voices;
            let symbol = Symbol { voice, lane: lane % lanes, byte };
            Note { lane, byte, symbol: symbol.number(), port: scale.port(symbol) }
        };
        (0u8..).zip(bytes.iter().copied()).map(note).collect()
    };
    let missing = |notes: &[Note]| notes.iter().filter(|note| note.port.is_none()).count();
    let notes = (0..voices).map(|other| play(voice % voices + other)).min_by_key(|notes| missing(notes));
    let notes = notes.ok_or(SealError::Span(ground.span))?;
    if missing(&notes) > (kind.n - kind.k) / 2 {
        return Err(SealError::Excluded(missing(&notes)));
    }
    Ok(Sequence { counter, payload, message, notes })
}

fn low_byte(counter: Timestamp) -> u8 {
    counter.as_secs().to_be_bytes()[7]
}

/// The counter of a client's next sequence: the time in seconds, or one more than its last one.
#[must_use]
pub fn next_counter(now: Timestamp, last: Option<Timestamp>) -> Timestamp {
    let after = last.map_or(0, |last| last.as_secs() + 1);
    Timestamp::from_secs(now.as_secs().max(after))
}

/// The seconds that a grant lasts when so many are asked for: the next one of the steps of 9 per cent in which a
/// sequence says it. `None` where it cannot.
#[must_use]
pub fn rounded(duration: crate::text::Span) -> Option<crate::text::Span> {
    payload::code(duration).ok().map(payload::seconds)
}

/// Why a request cannot be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// More than one range of at most 256 ports.
    Ports,
    /// The service's tag begins with three zero bytes, which stand for none.
    Service,
    /// 0.0.0.0 or ::.
    Address,
    /// More connections than it has bits for.
    Connections,
    /// A duration of zero seconds.
    NoDuration,
    /// A duration of more than 124 years.
    Duration,
    /// The span has no room for an IPv6 address.
    Span(u16),
    /// So many of the knocks would go to ports that are left out.
    Excluded(usize),
    /// The server's public key is one of the few that share no secret with anybody.
    ServerKey,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports => f.write_str(
                "a sequence can name one range of at most 256 ports, or the same one for tcp and udp; knock once for \
                 each, or name a service",
            ),
            Self::Service => {
                f.write_str("this service's tag has no form in a sequence; name its ports, or rename it on the server")
            }
            Self::Address => f.write_str("the address is that of no machine; name the one to open for"),
            Self::Connections => f.write_str("a sequence can ask for at most 15 connections; ask for fewer, or for many"),
            Self::NoDuration => f.write_str("a grant of 0s is none; use 1s or more, or leave the duration out"),
            Self::Duration => f.write_str("a grant cannot last longer than 124 years; ask for less"),
            Self::Span(span) => write!(
                f,
                "a span of {span} ports has no room for an IPv6 address, which takes {}; knock from that address, by \
                 another method, or let the server use a larger span",
                2 * VOICE
            ),
            Self::Excluded(count) => write!(
                f,
                "{count} of the knocks would go to ports that the server left out; wait a second and knock again, or let \
                 the server leave out fewer"
            ),
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
    /// How far its clock may be from the server's; never more than a step or two counts.
    pub freshness: Freshness,
    /// The services that it may name.
    pub services: Vec<ServiceTag>,
}

/// How many searches a second one network and all together may cost. A sequence takes some ten; under junk they come
/// every 10 ms, in which time 10,000 knocks a second do not wash a sequence out of the memory.
const SEARCHES: Rates =
    Rates { all: const { NonZeroU32::new(5000).unwrap() }, source: const { NonZeroU32::new(100).unwrap() } };
/// How many times a second the keys of a client are tried, for one network and for all. The hint lets through one
/// search of a thousand clients in 65, so that junk seldom comes to this.
const TRIALS: Rates =
    Rates { all: const { NonZeroU32::new(2000).unwrap() }, source: const { NonZeroU32::new(64).unwrap() } };

/// Knocks in, requests out. A stranger's knock costs one look at a table of fixed size, and within limits a search.
///
/// What it bears:
///
/// - *Losses*: 10 knocks of 28 or 32, 20 of 54.
/// - *Any order and copies*: a knock says which lane it is, and a port that is remembered is not heard again.
/// - *Junk in the client's own name*, which resets nothing. What decides is not how many knocks there are a second but
///   how many between the first and the last of the sequence: the memory of a source is its last 256 knocks. No code
///   helps against more. All ports hit while 28 knocks go out 40 ms apart, with 10,000 forged ones a second among
///   them, are 28 per cent of the span: then a knock tells log2(1/0.28) = 1.8 bits, and 28 of them tell 50 of the 144
///   that the message has. A client therefore answers junk by speed (`--fast`): back to back, 28 knocks take some
///   milliseconds, and of 10,000 a second there are 20 to 200 among them.
/// - *Many clients*: a hint that changes with each step names the client, and one in 65,536 of the others besides.
///
/// Memory: 680 KiB for the sources, 256 KiB for both budgets, three permutations of two bytes for each port of the
/// span, 4,096 names of messages heard, and some 300 bytes for each client.
pub(super) struct Decoder {
    ground: Ground,
    ports: PortKey,
    clients: Vec<Client>,
    steps: Vec<Step>,
    sources: Sources,
    searches: Budget,
    trials: Budget,
    heard: Ring,
}

/// What changes with the step.
struct Step {
    number: u64,
    inverse: Inverse,
    hints: Hints,
}

/// A payload, and who sealed it when.
struct Opened {
    client: usize,
    step: u64,
    tag: Tag,
    payload: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(
        server: &KeyPair,
        gate: &GateKey,
        ground: Ground,
        clients: impl IntoIterator<Item = ClientKeys>,
        hash: Seeded,
    ) -> Self {
        let client = |known: ClientKeys| {
            let shared = server.agree(&known.public)?;
            let keys = Keys::new(&shared, &known.psk);
            let ClientKeys { public, freshness, services, .. } = known;
            Some(Client { id: public.into(), keys, freshness, services })
        };
        Self {
            ports: PortKey::new(&server.public(), gate),
            ground,
            clients: clients.into_iter().filter_map(client).collect(),
            steps: Vec::new(),
            sources: Sources::new(hash),
            searches: Budget::new(SEARCHES, hash),
            trials: Budget::new(TRIALS, hash),
            heard: Ring::new(hash),
        }
    }

    /// Whether knocks at this port are part of sequences.
    pub(super) fn wants(&self, port: u16) -> bool {
        self.ground.place(port).is_some()
    }

    /// One knock; a request when it is the one that makes a message readable.
    pub(super) fn receive(&mut self, port: u16, source: IpAddr, now: Now) -> Result<Authentic, Drop> {
        let place = self.ground.place(port).ok_or(Drop::Method)?;
        self.turn(now.wall.as_secs() / STEP);
        let seat = self.sources.note(source, place, now.uptime).ok_or(Drop::Partial)?;
        if seat.len() < Kind::LEAST {
            return Err(Drop::Partial);
        }
        if !self.searches.admit(source, now.uptime) {
            return Err(Drop::Budget);
        }
        let (places, fresh) = (seat.knocks().collect::<Vec<u16>>(), seat.looked());
        let mut may_try = || self.trials.admit(source, now.uptime);
        let voices = self.ground.voices();
        let found = self.steps.iter().find_map(|step| {
            let knocks: Vec<Symbol> = places.iter().filter_map(|place| step.inverse.symbol(*place)).collect();
            search::find(&knocks, voices, fresh, |part, message| {
                let opened = step.open(&message, &self.ports, &self.clients, &mut may_try)?;
                Some((opened, part.places(&message, &step.inverse)))
            })
        });
        let (opened, heard) = found.ok_or(Drop::Partial)?;
        seat.settle(&heard);
        self.authentic(opened)
    }

    /// What a message asks for, unless it was heard before: what was played twice, or is left over of it, or came by
    /// two ways, is one knock.
    fn authentic(&mut self, opened: Opened) -> Result<Authentic, Drop> {
        let Opened { client, step, tag, payload } = opened;
        let name = name(tag);
        if self.heard.contains(&name) {
            return Err(Drop::Repeat);
        }
        self.heard.insert(name);
        let client = self.clients.get(client).ok_or(Drop::UnknownClient)?;
        let counter = step * STEP + u64::from(payload.get(1).copied().unwrap_or_default());
        let ask = payload::decode(&payload, &client.services);
        Ok(Authentic {
            client: client.id,
            method: Method::Sequence,
            freshness: Some(client.freshness),
            mac1: [0; 16],
            request: ask.map(|ask| (ask, Timestamp::from_secs(counter))),
        })
    }

    /// Makes what this step and its neighbours need: some 2 ms, once in four minutes. The clients' clocks decide which
    /// of the three a sequence is played in.
    fn turn(&mut self, now: u64) {
        if self.steps.first().is_some_and(|step| step.number == now) {
            return;
        }
        let numbers = [now, now.saturating_sub(1), now + 1];
        let mut known = std::mem::take(&mut self.steps);
        self.steps = numbers
            .into_iter()
            .map(|number| match known.iter().position(|step| step.number == number) {
                Some(place) => known.swap_remove(place),
                None => Step {
                    number,
                    inverse: Inverse::new(&self.ports, number, self.ground.span),
                    hints: Hints::new(self.clients.iter().map(|client| &client.keys), number),
                },
            })
            .collect();
    }
}

impl Step {
    /// The payload of a message, if it is one that a client sealed in this step.
    fn open(
        &self,
        message: &[u8],
        ports: &PortKey,
        clients: &[Client],
        may_try: &mut impl FnMut() -> bool,
    ) -> Option<Opened> {
        let sealed = Sealed::split(message, ports, self.number)?;
        self.hints.clients(&sealed).take_while(|_| may_try()).find_map(|client| {
            let payload = message::open(&clients.get(client)?.keys, self.number, &sealed)?;
            Some(Opened { client, step: self.number, tag: sealed.tag, payload })
        })
    }
}

/// A tag in the place of the longer codes that datagrams are remembered by.
fn name(tag: Tag) -> [u8; 16] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tag;
    [t0, t1, t2, t3, t4, t5, t6, t7, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// For the fuzzer: the rest as a payload, which must read the same when it is written again, and as points of the code,
/// of which most must agree with what it makes of them.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(ask) = payload::decode(bytes, &[]) {
        let written = payload::encode(&ask, 0);
        assert!(written.is_ok_and(|written| payload::decode(&written, &[]) == Ok(ask)), "{bytes:?}");
    }
    for kind in Kind::ALL {
        let points: Vec<(u8, u8)> = (0u8..).zip(bytes.iter().copied().take(kind.n)).collect();
        let Some(message) = code::decode(&points, kind.k) else { continue };
        let lanes = code::encode(&message, points.len());
        let wrong = points.iter().zip(&lanes).filter(|((_, byte), lane)| byte != *lane).count();
        assert!(2 * wrong <= points.len() - kind.k, "{wrong} of {} wrong", points.len());
    }
}

#[cfg(test)]
mod tests;
