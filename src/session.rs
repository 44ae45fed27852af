//! What a grant asks of its connections, and of its client afterwards: how many, and the session flags, each of which
//! narrows.
//!
//! ```text
//! bit 0   at most one connection at a time
//! bit 1   the client's last knock, until an administrator allows it again
//! bit 2   after the grant its address is locked out for a while
//! bit 3   connections end with the grant
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::serde_as_text;

/// How many connections a grant is good for. As text it is what profiles write: `single`, a number, or `many`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uses {
    /// One, to whichever of its ports comes first; the kernel takes the grant away with it. Further packets of
    /// that connection pass as long as connection tracking knows it, or for 30 s while it is unanswered.
    #[default]
    Once,
    /// So many, 2 to [`Uses::MOST`]; the kernel counts them.
    Few(u8),
    /// Any number until the deadline.
    Many,
}

impl Uses {
    /// The largest number that is counted.
    pub const MOST: u8 = 250;

    /// So many; `None` for none, and for more than are counted.
    #[must_use]
    pub fn number(count: u8) -> Option<Self> {
        match count {
            1 => Some(Self::Once),
            2..=Self::MOST => Some(Self::Few(count)),
            _ => None,
        }
    }

    /// How many; `None` for any number.
    #[must_use]
    pub fn count(self) -> Option<u8> {
        match self {
            Self::Once => Some(1),
            Self::Few(count) => Some(count),
            Self::Many => None,
        }
    }

    /// The same for a sentence.
    #[must_use]
    pub fn phrase(self) -> String {
        match self {
            Self::Once => "one connection".to_owned(),
            Self::Few(count) => format!("{count} connections"),
            Self::Many => "any number of connections".to_owned(),
        }
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("single"),
            Self::Few(count) => write!(f, "{count}"),
            Self::Many => f.write_str("many"),
        }
    }
}

impl FromStr for Uses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().ok().and_then(Self::number);
        match text {
            "single" => Ok(Self::Once),
            "many" => Ok(Self::Many),
            _ => number().ok_or_else(|| {
                format!(
                    "`{}`; use \"single\", \"many\", or a number from 1 to {}",
                    text.escape_debug(),
                    Self::MOST
                )
            }),
        }
    }
}

serde_as_text!(Uses);

/// What holds for a grant besides its deadline and its number of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// Another connection is refused while one is open.
    pub alone: bool,
    /// No further knock of this client counts until an administrator says so.
    pub last: bool,
    /// The address is refused for a while after the grant.
    pub lock_out: bool,
    /// Connections that it let in are cut when it ends.
    pub ends: bool,
}

impl Session {
    /// The bits that have a meaning.
    pub const BITS: u8 = 0b1111;

    /// The bits of the wire.
    #[must_use]
    pub fn bits(self) -> u8 {
        let Self { alone, last, lock_out, ends } = self;
        u8::from(alone) | u8::from(last) << 1 | u8::from(lock_out) << 2 | u8::from(ends) << 3
    }

    /// The flags in these bits; those without a meaning are left out.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        let has = |bit: u8| bits & (1 << bit) != 0;
        Self { alone: has(0), last: has(1), lock_out: has(2), ends: has(3) }
    }

    /// All that either of them asks for.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::from_bits(self.bits() | other.bits())
    }

    /// Whether it asks for all that `other` does.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.bits() & other.bits() == other.bits()
    }

    /// Each flag that is set.
    #[must_use]
    pub fn flags(self) -> Vec<SessionFlag> {
        (0..4)
            .map(|bit| Self::from_bits(self.bits() & (1 << bit)))
            .filter(|flag| flag.bits() != 0)
            .map(SessionFlag)
            .collect()
    }

    /// What of it the kernel enforces on the grant's connections.
    #[must_use]
    pub fn of_connections(self) -> Self {
        Self { last: false, lock_out: false, ..self }
    }

    /// The flags for a sentence: `, one at a time, connections end with it`.
    #[must_use]
    pub fn phrase(self) -> String {
        let Self { alone, last, lock_out, ends } = self;
        let phrases = [
            (alone, ", one at a time"),
            (ends, ", connections end with it"),
            (lock_out, ", locked out afterwards"),
            (last, ", the last knock"),
        ];
        phrases.into_iter().filter(|(is_set, _)| *is_set).map(|(_, phrase)| phrase).collect()
    }
}

/// One session flag, as configurations write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionFlag(pub Session);

/// The names of the flags.
const NAMES: [&str; 4] = ["one-at-a-time", "last-knock", "lock-out", "end-with-grant"];

impl FromStr for SessionFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bit = NAMES.iter().position(|name| *name == text).and_then(|bit| u8::try_from(bit).ok());
        let wrong = || format!("`{}` is no session flag; use {}", text.escape_debug(), NAMES.join(", "));
        bit.map(|bit| Self(Session::from_bits(1 << bit))).ok_or_else(wrong)
    }
}

impl fmt::Display for SessionFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = usize::try_from(self.0.bits().trailing_zeros()).unwrap_or(NAMES.len());
        f.write_str(NAMES.get(bit).copied().unwrap_or_default())
    }
}

serde_as_text!(SessionFlag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_their_bits_and_their_names() {
        for bits in 0..=Session::BITS {
            assert_eq!(Session::from_bits(bits).bits(), bits);
        }
        for (bit, name) in (0..).zip(NAMES) {
            let flag: SessionFlag = name.parse().unwrap();
            assert_eq!((flag.0.bits(), flag.to_string()), (1 << bit, name.to_owned()));
        }
        assert!("forever".parse::<SessionFlag>().unwrap_err().contains("one-at-a-time"));
    }

    #[test]
    fn flags_are_only_ever_added() {
        let (a, b) = (Session::from_bits(0b0101), Session::from_bits(0b1001));
        assert_eq!(a.and(b).bits(), 0b1101);
        assert!(a.and(b).covers(a) && !a.covers(b));
        assert_eq!(a.and(b).phrase(), ", one at a time, connections end with it, locked out afterwards");
    }
}
