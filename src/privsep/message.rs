//! What worker and monitor say to each other, as fixed-size bytes.
//!
//! Everything the worker says has one size, [`SAID_LEN`] bytes, a kind byte first; the monitor takes nothing
//! else from it. The other way go [`Order`]s of [`ORDER_LEN`] bytes. Integers are big-endian. Pure.
//!
//! ```text
//! worker says: 0 kind | 1.. body, zero-padded
//!   1 ready     landlock u8 | interface index u32             the capture is open and the worker confined
//!   2 request   264 bytes (see grant/request.rs)
//!   3 refused   profile index u32 | source 16 | name 20 | sentence, UTF-8
//!   4 pulse     id u64 | health bits u8 | counters, u64 each  the answer to `Ping`, from the capture loop
//!   5 farewell  reason u8 | sentence, UTF-8                   a planned end
//!   6 notice    sentence, UTF-8                               something about certificates, for the log
//!   7 revoked   count u8 | ids, 8 bytes each                  certificates whose grants may be ended
//! monitor orders: 0 kind | 1 id u64 | 9 verdict u8 | zero
//!   1 go | 2 ping | 3 answer | 4 retire
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::grant::{ProfileIndex, REQUEST_LEN, Request, ip_address, octets};

/// The size of everything the worker says.
pub const SAID_LEN: usize = 512;
/// The size of every order.
pub const ORDER_LEN: usize = 16;
/// How many certificates one message can name.
pub const MAX_REVOKED: usize = (SAID_LEN - 2) / 8;
/// How many counters a pulse can carry.
pub const MAX_COUNTERS: usize = 60;
const NAME_LEN: usize = 20;

/// What the worker can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The capture is open, the worker confined; it waits for [`Order::Go`].
    Ready(Ready),
    /// An opening is asked for.
    Request(Request),
    /// An authentic knock was refused.
    Refused(Refused),
    /// The capture loop turns.
    Pulse(Pulse),
    /// A planned end.
    Farewell(Farewell),
    /// What is wrong with certificates of authorities, or with their revocation lists; cut to fit.
    Notice(String),
    /// Certificates that are revoked, by their ids; at most [`MAX_REVOKED`].
    Revoked(Vec<[u8; 8]>),
}

/// How the worker stands when it has confined itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whether the kernel has Landlock and it is in force.
    pub landlock: bool,
    /// The index of the captured interface, 0 for none in particular.
    pub interface: u32,
}

/// An authentic knock that opened nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose.
    pub profile: ProfileIndex,
    /// Where it came from.
    pub source: IpAddr,
    /// The reason's fixed name, at most 20 bytes of ASCII.
    pub name: String,
    /// The reason as a sentence, cut to fit.
    pub sentence: String,
}

/// The state of the worker when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// The id of the [`Order::Ping`] that asked.
    pub id: u64,
    /// What is not as it should be.
    pub health: Health,
    /// Counters in the order of [`crate::privsep::counters::names`].
    pub counters: Vec<u64>,
}

/// What the worker cannot do at the moment, though it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Replay marks cannot be written to the runtime directory.
    pub runtime_unwritable: bool,
    /// Replay marks cannot be written to the state directory.
    pub state_unwritable: bool,
    /// The replay state was lost: knocks are refused for a while.
    pub quarantined: bool,
    /// The wall clock is not synchronised.
    pub clock_unsynchronised: bool,
    /// A revocation list is missing, wrong or past its date.
    pub certificates_in_doubt: bool,
}

/// A planned end of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Why.
    pub reason: Reason,
    /// The details as a sentence, cut to fit; empty when there are none.
    pub sentence: String,
}

/// Why a worker ends as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was told to, and has written its state.
    Retired,
    /// The interface it captured from is gone.
    CaptureLost,
    /// The capture could not be opened.
    CannotOpen,
    /// A capture file was read to its end.
    EndOfFile,
}

const REASONS: [(u8, Reason); 4] =
    [(1, Reason::Retired), (2, Reason::CaptureLost), (3, Reason::CannotOpen), (4, Reason::EndOfFile)];

/// What the monitor can tell the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin with the captured frames.
    Go,
    /// Say a [`Pulse`] with this id.
    Ping(u64),
    /// What became of the request with this id.
    Answer(u64, Verdict),
    /// Write the state, say farewell and end.
    Retire,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the kernel.
    Done,
    /// As many grants are live as the configuration allows, or the client or its address is barred.
    Full,
    /// The firewall did not take it.
    Failed,
}

const VERDICTS: [(u8, Verdict); 3] = [(1, Verdict::Done), (2, Verdict::Full), (3, Verdict::Failed)];

impl Said {
    /// The bytes on the socketpair.
    #[must_use]
    pub fn encode(&self) -> [u8; SAID_LEN] {
        let mut bytes = Vec::with_capacity(SAID_LEN);
        match self {
            Self::Ready(Ready { landlock, interface }) => {
                bytes.extend([1, u8::from(*landlock)]);
                bytes.extend(interface.to_be_bytes());
            }
            Self::Request(request) => {
                bytes.push(2);
                bytes.extend(request.encode());
            }
            Self::Refused(Refused { profile, source, name, sentence }) => {
                bytes.push(3);
                bytes.extend(profile.0.to_be_bytes());
                bytes.extend(octets(*source));
                let mut field = name.clone().into_bytes();
                field.resize(NAME_LEN, 0);
                bytes.extend(field);
                bytes.extend(cut(sentence, SAID_LEN - bytes.len()).as_bytes());
            }
            Self::Pulse(Pulse { id, health, counters }) => {
                bytes.push(4);
                bytes.extend(id.to_be_bytes());
                bytes.push(health.bits());
                counters.iter().take(MAX_COUNTERS).for_each(|counter| bytes.extend(counter.to_be_bytes()));
            }
            Self::Farewell(Farewell { reason, sentence }) => {
                bytes.push(5);
                bytes.push(code_of(&REASONS, *reason));
                bytes.extend(cut(sentence, SAID_LEN - bytes.len()).as_bytes());
            }
            Self::Notice(sentence) => {
                bytes.push(6);
                bytes.extend(cut(sentence, SAID_LEN - bytes.len()).as_bytes());
            }
            Self::Revoked(ids) => {
                bytes.extend([7, u8::try_from(ids.len().min(MAX_REVOKED)).unwrap_or(0)]);
                bytes.extend(ids.iter().take(MAX_REVOKED).flatten());
            }
        }
        let mut fixed = [0; SAID_LEN];
        fixed.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        fixed
    }

    /// Takes a message apart.
    ///
    /// # Errors
    /// [`NotSaid`] for anything that a worker of this program never says.
    pub fn decode(bytes: &[u8; SAID_LEN]) -> Result<Self, NotSaid> {
        let (kind, body) = bytes.split_first().ok_or(NotSaid)?;
        match kind {
            1 => Self::decode_ready(body),
            2 => {
                let (request, rest) = body.split_first_chunk::<REQUEST_LEN>().ok_or(NotSaid)?;
                all_zero(rest)?;
                Ok(Self::Request(Request::decode(request).map_err(|_| NotSaid)?))
            }
            3 => Self::decode_refused(body),
            4 => Self::decode_pulse(body),
            5 => {
                let (code, sentence) = body.split_first().ok_or(NotSaid)?;
                Ok(Self::Farewell(Farewell { reason: by_code(&REASONS, *code)?, sentence: text(sentence)? }))
            }
            6 => Ok(Self::Notice(text(body)?)),
            7 => Self::decode_revoked(body),
            _ => Err(NotSaid),
        }
    }

    fn decode_revoked(body: &[u8]) -> Result<Self, NotSaid> {
        let (count, rest) = body.split_first().ok_or(NotSaid)?;
        let (ids, rest) = rest.split_at_checked(8 * usize::from(*count)).ok_or(NotSaid)?;
        all_zero(rest)?;
        Ok(Self::Revoked(ids.chunks_exact(8).filter_map(|id| id.try_into().ok()).collect()))
    }

    fn decode_ready(body: &[u8]) -> Result<Self, NotSaid> {
        let (&[landlock, a, b, c, d], rest) = body.split_first_chunk().ok_or(NotSaid)?;
        all_zero(rest)?;
        let landlock = match landlock {
            0 => false,
            1 => true,
            _ => return Err(NotSaid),
        };
        Ok(Self::Ready(Ready { landlock, interface: u32::from_be_bytes([a, b, c, d]) }))
    }

    fn decode_refused(body: &[u8]) -> Result<Self, NotSaid> {
        let (profile, rest) = body.split_first_chunk().ok_or(NotSaid)?;
        let (source, rest) = rest.split_first_chunk().ok_or(NotSaid)?;
        let (name, sentence) = rest.split_first_chunk::<NAME_LEN>().ok_or(NotSaid)?;
        Ok(Self::Refused(Refused {
            profile: ProfileIndex(u32::from_be_bytes(*profile)),
            source: ip_address(*source),
            name: text(name)?,
            sentence: text(sentence)?,
        }))
    }

    fn decode_pulse(body: &[u8]) -> Result<Self, NotSaid> {
        let (id, rest) = body.split_first_chunk().ok_or(NotSaid)?;
        let (health, rest) = rest.split_first().ok_or(NotSaid)?;
        let number = |chunk: &[u8]| chunk.try_into().map(u64::from_be_bytes).unwrap_or_default();
        let counters = rest.chunks_exact(8).take(MAX_COUNTERS).map(number).collect();
        Ok(Self::Pulse(Pulse { id: u64::from_be_bytes(*id), health: Health::from_bits(*health)?, counters }))
    }
}

impl Order {
    /// The bytes on the socketpair.
    #[must_use]
    pub fn encode(&self) -> [u8; ORDER_LEN] {
        let (kind, id, verdict) = match self {
            Self::Go => (1, 0, 0),
            Self::Ping(id) => (2, *id, 0),
            Self::Answer(id, verdict) => (3, *id, code_of(&VERDICTS, *verdict)),
            Self::Retire => (4, 0, 0),
        };
        let [a, b, c, d, e, f, g, h] = u64::to_be_bytes(id);
        [kind, a, b, c, d, e, f, g, h, verdict, 0, 0, 0, 0, 0, 0]
    }

    /// Takes an order apart.
    ///
    /// # Errors
    /// [`NotSaid`] for anything that a monitor of this program never orders.
    pub fn decode(bytes: &[u8; ORDER_LEN]) -> Result<Self, NotSaid> {
        let &[kind, a, b, c, d, e, f, g, h, verdict, 0, 0, 0, 0, 0, 0] = bytes else { return Err(NotSaid) };
        let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        match (kind, id, verdict) {
            (1, 0, 0) => Ok(Self::Go),
            (2, id, 0) => Ok(Self::Ping(id)),
            (3, id, code) => Ok(Self::Answer(id, by_code(&VERDICTS, code)?)),
            (4, 0, 0) => Ok(Self::Retire),
            _ => Err(NotSaid),
        }
    }
}

impl Health {
    fn bits(self) -> u8 {
        let Self {
            runtime_unwritable,
            state_unwritable,
            quarantined,
            clock_unsynchronised,
            certificates_in_doubt,
        } = self;
        [runtime_unwritable, state_unwritable, quarantined, clock_unsynchronised, certificates_in_doubt]
            .into_iter()
            .rev()
            .fold(0, |bits, set| bits << 1 | u8::from(set))
    }

    fn from_bits(bits: u8) -> Result<Self, NotSaid> {
        if bits > 31 {
            return Err(NotSaid);
        }
        Ok(Self {
            runtime_unwritable: bits & 1 != 0,
            state_unwritable: bits & 2 != 0,
            quarantined: bits & 4 != 0,
            clock_unsynchronised: bits & 8 != 0,
            certificates_in_doubt: bits & 16 != 0,
        })
    }
}

fn code_of<T: PartialEq>(table: &[(u8, T)], value: T) -> u8 {
    table.iter().find(|(_, known)| *known == value).map_or(0, |(code, _)| *code)
}

fn by_code<T: Copy>(table: &[(u8, T)], code: u8) -> Result<T, NotSaid> {
    table.iter().find(|(known, _)| *known == code).map(|(_, value)| *value).ok_or(NotSaid)
}

/// As much of the text as fits `len` bytes, cut between characters.
fn cut(text: &str, len: usize) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    text.get(..(0..=len.min(text.len())).rev().find(fits).unwrap_or(0)).unwrap_or_default()
}

/// Zero-padded UTF-8 without control characters.
fn text(bytes: &[u8]) -> Result<String, NotSaid> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (used, unused) = bytes.split_at_checked(end).ok_or(NotSaid)?;
    all_zero(unused)?;
    let text = std::str::from_utf8(used).map_err(|_| NotSaid)?;
    if text.chars().any(char::is_control) { Err(NotSaid) } else { Ok(text.to_owned()) }
}

fn all_zero(bytes: &[u8]) -> Result<(), NotSaid> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(NotSaid) }
}

/// Bytes that the other process never says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSaid;

impl fmt::Display for NotSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message that this program never sends")
    }
}

impl std::error::Error for NotSaid {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn everything_said() -> Vec<Said> {
        vec![
            Said::Ready(Ready { landlock: true, interface: 7 }),
            Said::Refused(Refused {
                profile: ProfileIndex(3),
                source: "198.51.100.7".parse().unwrap(),
                name: "replayed".into(),
                sentence: "the knock was used before".into(),
            }),
            Said::Pulse(Pulse {
                id: 9,
                health: Health { quarantined: true, ..Health::default() },
                counters: (0..60).collect(),
            }),
            Said::Farewell(Farewell { reason: Reason::CaptureLost, sentence: "eth0 is gone".into() }),
            Said::Notice("the revocation list is past its date".into()),
            Said::Revoked(vec![[1; 8]; MAX_REVOKED]),
            Said::Revoked(Vec::new()),
        ]
    }

    #[test]
    fn what_the_worker_says_arrives_as_it_was_said() {
        for said in everything_said() {
            assert_eq!(Said::decode(&said.encode()), Ok(said));
        }
    }

    #[test]
    fn orders_arrive_as_they_were_given() {
        for order in [Order::Go, Order::Ping(7), Order::Answer(u64::MAX, Verdict::Full), Order::Retire] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        assert_eq!(Order::decode(&[9; ORDER_LEN]), Err(NotSaid));
        assert_eq!(Order::decode(&[0; ORDER_LEN]), Err(NotSaid));
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let sentence = "ü".repeat(400);
        let said = Said::Farewell(Farewell { reason: Reason::CannotOpen, sentence });
        let Ok(Said::Farewell(Farewell { sentence, .. })) = Said::decode(&said.encode()) else { panic!() };
        assert_eq!(sentence, "ü".repeat((SAID_LEN - 2) / 2));
    }

    #[test]
    fn a_sentence_with_control_characters_is_not_said() {
        let said =
            Said::Farewell(Farewell { reason: Reason::Retired, sentence: "fine\nfake log line".into() });
        assert_eq!(Said::decode(&said.encode()), Err(NotSaid));
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(
            bytes in prop::collection::vec(any::<u8>(), SAID_LEN), kind in 0u8..9, zero_from in 1usize..SAID_LEN,
        ) {
            let mut fixed: [u8; SAID_LEN] = bytes.try_into().unwrap();
            fixed[0] = kind;
            fixed[zero_from..].fill(0);
            if let Ok(said) = Said::decode(&fixed) {
                if !matches!(said, Said::Pulse(_)) {
                    prop_assert_eq!(said.encode(), fixed);
                }
            }
        }
    }
}
