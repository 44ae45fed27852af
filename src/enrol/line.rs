//! A bundle as one line, `knock:1:...`, to be pasted or scanned; in the clear or under a passphrase.
//!
//! ```text
//!   knock:1:<base32 of RFC 4648, section 6, in lower case without padding, of what follows>
//!     kind       1   0 in the clear, 1 under a passphrase
//!     body       n   kind 0: the bundle, as in `compact`
//!                    kind 1: cost 3, salt 16, the bundle sealed n, its tag 16
//!     check sum  4   the first bytes of SHA-256("knock:1:" || kind || body)
//! ```
//!
//! Base32 is read in either case, and in capitals takes less of a QR code than base64 does. The check sum is there to
//! tell a slip of the hand from anything else, and keeps no secret. `cost`, see [`Cost`], salt and all before them are
//! the header that the seal is bound to.

use std::fmt;

use zeroize::Zeroizing;

use super::{Bundle, compact};
use crate::config::limits;
use crate::crypto::passphrase::{self, Cost, SALT_LEN, SealError};
use crate::crypto::sha256;

/// How a line begins: the scheme and the version of what follows.
pub const SCHEME: &str = "knock:1:";

const IN_THE_CLEAR: u8 = 0;
const UNDER_A_PASSPHRASE: u8 = 1;
const CHECK_LEN: usize = 4;

/// A bundle on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// As everybody can read it who has it.
    Open(Box<Bundle>),
    /// Under a passphrase.
    Protected(Protected),
}

impl Carried {
    /// The line. Wiped on drop.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let (kind, body) = match self {
            Self::Open(bundle) => (IN_THE_CLEAR, compact::encode(bundle)),
            Self::Protected(protected) => (UNDER_A_PASSPHRASE, Zeroizing::new(protected.body())),
        };
        let check = check_sum(kind, &body);
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + body.len() + CHECK_LEN));
        bytes.push(kind);
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&check);
        let mut line = Zeroizing::new(String::with_capacity(SCHEME.len() + bytes.len().div_ceil(5) * 8));
        line.push_str(SCHEME);
        base32(&bytes, &mut line);
        line
    }

    /// Reads a line, without anything before or after it.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        let rest = strip(line, "knock:").ok_or(LineError::NoLine)?;
        let (version, text) = rest.split_once(':').ok_or(LineError::NoLine)?;
        if version != "1" {
            return Err(LineError::Version(version.chars().take(16).collect()));
        }
        if u64::try_from(text.len()).map_or(true, |length| length > limits::FILE) {
            return Err(LineError::TooLong);
        }
        let bytes = unbase32(text)?;
        let (rest, check) = bytes.split_last_chunk::<CHECK_LEN>().ok_or(LineError::Damaged)?;
        let (kind, body) = rest.split_first().ok_or(LineError::Damaged)?;
        if check_sum(*kind, body) != *check {
            return Err(LineError::Damaged);
        }
        match *kind {
            IN_THE_CLEAR => Ok(Self::Open(Box::new(compact::decode(body).map_err(LineError::Content)?))),
            UNDER_A_PASSPHRASE => Protected::read(body).map(Self::Protected),
            _ => Err(LineError::Content("kind")),
        }
    }

    /// Whether a text wants to be a line, right or wrong.
    #[must_use]
    pub fn is_line(text: &str) -> bool {
        strip(text, "knock:").is_some()
    }
}

/// A bundle under a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    cost: Cost,
    salt: [u8; SALT_LEN],
    sealed: Vec<u8>,
}

impl Protected {
    /// Seals a bundle. The salt is random, and new each time.
    ///
    /// # Errors
    /// [`ProtectedError::Memory`].
    pub fn seal(
        bundle: &Bundle,
        passphrase: &[u8],
        salt: [u8; SALT_LEN],
        cost: Cost,
    ) -> Result<Self, ProtectedError> {
        let plain = compact::encode(bundle);
        let sealed = passphrase::seal(passphrase, &salt, cost, &header(cost, &salt), &plain);
        Ok(Self { cost, salt, sealed: sealed.map_err(ProtectedError::from)? })
    }

    /// The bundle. Takes as long as it is meant to take whoever guesses.
    ///
    /// # Errors
    /// [`ProtectedError`].
    pub fn open(&self, passphrase: &[u8]) -> Result<Bundle, ProtectedError> {
        let header = header(self.cost, &self.salt);
        let plain = passphrase::open(passphrase, &self.salt, self.cost, &header, &self.sealed)?;
        compact::decode(&plain).map_err(ProtectedError::Content)
    }

    fn body(&self) -> Vec<u8> {
        [self.cost.to_bytes().as_slice(), &self.salt, &self.sealed].concat()
    }

    fn read(body: &[u8]) -> Result<Self, LineError> {
        let (cost, rest) = body.split_first_chunk::<3>().ok_or(LineError::Content("cost"))?;
        let (salt, sealed) = rest.split_first_chunk().ok_or(LineError::Content("salt"))?;
        let cost = Cost::from_bytes(*cost).ok_or(LineError::Cost)?;
        Ok(Self { cost, salt: *salt, sealed: sealed.to_vec() })
    }
}

fn header(cost: Cost, salt: &[u8; SALT_LEN]) -> Vec<u8> {
    [SCHEME.as_bytes(), &[UNDER_A_PASSPHRASE], &cost.to_bytes(), salt].concat()
}

fn check_sum(kind: u8, body: &[u8]) -> [u8; CHECK_LEN] {
    let hash = sha256(&[SCHEME.as_bytes(), &[kind], body]);
    hash.first_chunk().copied().unwrap_or_default()
}

/// What follows, where the text begins so, in either case.
fn strip<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// Appends the digits of these bytes: 5 bits each, the last filled up with zeros.
fn base32(bytes: &[u8], to: &mut String) {
    for group in bytes.chunks(5) {
        let bits = (0..5).fold(0u64, |bits, at| (bits << 8) | u64::from(group.get(at).copied().unwrap_or(0)));
        let digits = (8 * group.len()).div_ceil(5);
        to.extend(
            (0..digits).map(|at| char::from(digit(u8::try_from((bits >> (35 - 5 * at)) & 31).unwrap_or(0)))),
        );
    }
}

/// The digit of a value below 32, without a table and without a branch, so that time and cache tell nothing about it.
fn digit(value: u8) -> u8 {
    // 0xff for 26 and above, whose digits `2` to `7` lie 73 below where the letters would go on.
    let is_number = (25u8.wrapping_sub(value) >> 7).wrapping_neg();
    (b'a' + value).wrapping_sub(73 & is_number)
}

/// The value of a digit in the same way; 0xff for anything else.
fn value(digit: u8) -> u8 {
    let (letter, number) = ((digit | 0x20).wrapping_sub(b'a'), digit.wrapping_sub(b'2'));
    let is_below = |value: u8, end: u8| {
        let [borrowed, _] = u16::from(value).wrapping_sub(u16::from(end)).to_be_bytes();
        borrowed
    };
    let (is_letter, is_number) = (is_below(letter, 26), is_below(number, 6));
    (letter & is_letter) | (number.wrapping_add(26) & is_number) | !(is_letter | is_number)
}

fn unbase32(text: &str) -> Result<Zeroizing<Vec<u8>>, LineError> {
    let text = text.as_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 8 * 5 + 5));
    for (group, digits) in text.chunks(8).enumerate() {
        let mut bits = 0u64;
        for (at, digit) in digits.iter().enumerate() {
            let value = value(*digit);
            if value > 31 {
                return Err(LineError::Character { place: SCHEME.len() + 8 * group + at + 1 });
            }
            bits |= u64::from(value) << (35 - 5 * at);
        }
        let whole = digits.len() * 5 / 8;
        // The one text that stands for so many bytes: no digit too many, no bit set behind the last byte.
        if (8 * whole).div_ceil(5) != digits.len()
            || bits.checked_shl(24 + 8 * u32::try_from(whole).unwrap_or(5)).unwrap_or(0) != 0
        {
            return Err(LineError::Damaged);
        }
        bytes.extend(bits.to_be_bytes().iter().skip(3).take(whole));
    }
    Ok(bytes)
}

/// Why a text is no line with a bundle. The text is not repeated, since there may be keys in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It does not begin as one.
    NoLine,
    /// Of another version.
    Version(String),
    /// Longer than any bundle.
    TooLong,
    /// With a character that none has.
    Character {
        /// Which, counted from 1.
        place: usize,
    },
    /// The check sum does not fit.
    Damaged,
    /// Whole, and says something that this program does not know or would not write.
    Content(&'static str),
    /// Whole, and asks for too much memory or time to be opened, or so little that guessing is cheap.
    Cost,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLine => write!(f, "is no bundle; a bundle's line begins with {SCHEME}"),
            Self::Version(version) => write!(
                f,
                "is a bundle of version `{}`; this program reads {SCHEME}, so upgrade the older side",
                version.escape_debug()
            ),
            Self::TooLong => write!(f, "is longer than {} KiB", limits::FILE / 1024),
            Self::Character { place } => write!(
                f,
                "has a character at place {place} that no bundle has; copy the line again, whole and as one line"
            ),
            Self::Damaged => f.write_str(
                "is damaged, its check sum does not fit; copy it again, whole: not a character more or less",
            ),
            Self::Content(what) => write!(
                f,
                "was not damaged on its way, and says something of `{what}` that this program does not know; \
                 upgrade the older side"
            ),
            Self::Cost => f.write_str(
                "asks for more memory or time to be opened than this program gives, or for so little that anybody \
                 could guess its passphrase; have it made again",
            ),
        }
    }
}

impl std::error::Error for LineError {}

/// Why a bundle under a passphrase does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectedError {
    /// Another passphrase, or somebody has changed the bundle on purpose.
    Refused,
    /// This machine has not the memory that it takes.
    Memory,
    /// Opened, and says something that this program does not know.
    Content(&'static str),
}

impl From<SealError> for ProtectedError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Memory => Self::Memory,
            SealError::Refused => Self::Refused,
        }
    }
}

impl fmt::Display for ProtectedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str(
                "does not open: the passphrase is another one. Or somebody has changed the bundle on purpose, which \
                 looks the same; it was not damaged by accident, since its check sum fits",
            ),
            Self::Memory => f.write_str("takes more memory to open than this machine has"),
            Self::Content(what) => LineError::Content(what).fmt(f),
        }
    }
}

impl std::error::Error for ProtectedError {}

/// What is read from these bytes, given the check sum that they need, is written back to the same line, and an open
/// bundle to JSON and back.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(kind: u8, body: &[u8]) {
    let mut line = SCHEME.to_owned();
    base32(&[&[kind], body, &check_sum(kind, body)].concat(), &mut line);
    let Ok(carried) = Carried::from_line(&line) else { return };
    assert_eq!(carried.to_line().as_str(), line);
    if let Carried::Open(bundle) = carried {
        let json = bundle.to_json().unwrap_or_default();
        let again = Bundle::parse("fuzz.knock", std::str::from_utf8(&json).unwrap_or_default());
        assert_eq!(again, Ok(*bundle));
    }
}

#[cfg(test)]
mod tests;
