//! `30s`, `2h`, `1m30s`, `1d`: whole seconds as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::serde_as_text;

const UNITS: [(u8, u64); 4] = [(b'd', 86_400), (b'h', 3_600), (b'm', 60), (b's', 1)];

/// A length of time in whole seconds, at most [`Span::MAX`]. `0s` is a value; whether it makes sense is for
/// the place that reads it to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u32);

impl Span {
    /// About 136 years: what fits the `requested seconds` field of a knock.
    pub const MAX: Self = Self(u32::MAX);

    /// This many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The length in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// The length as the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::from(self.0);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, seconds) in UNITS {
            if rest >= seconds {
                write!(f, "{}{}", rest / seconds, char::from(unit))?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = SpanError;

    /// One or more numbers, each with its unit, larger units first: `1d`, `1m30s`.
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let unreadable = || SpanError(text.to_owned());
        let (mut total, mut rest, mut units) = (0u64, text, UNITS.iter());
        while !rest.is_empty() {
            let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).ok_or_else(unreadable)?;
            let (digits, tail) = rest.split_at(end);
            let unit = *tail.as_bytes().first().ok_or_else(unreadable)?;
            let (_, seconds) = units.find(|(name, _)| *name == unit).ok_or_else(unreadable)?;
            let number: u64 = digits.parse().map_err(|_| unreadable())?;
            total = number.checked_mul(*seconds).and_then(|n| total.checked_add(n)).ok_or_else(unreadable)?;
            rest = tail.get(1..).unwrap_or_default();
        }
        match u32::try_from(total) {
            Ok(seconds) if !text.is_empty() => Ok(Self(seconds)),
            _ => Err(unreadable()),
        }
    }
}

serde_as_text!(Span);

/// The text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanError(String);

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no duration; write a number with its unit, such as 15s, 5m, 2h or 1d",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for SpanError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_they_were_written() {
        for text in ["0s", "15s", "5m", "2h", "1d", "1m30s", "1d2h3m4s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn larger_numbers_print_in_larger_units() {
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m30s");
        assert_eq!("3600s".parse::<Span>().unwrap(), Span::from_secs(3600));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "15", "s", "15 s", "-1s", "1.5h", "30s1m", "1m1m", "5w", "99999999999d", "1s\n"] {
            assert_eq!(text.parse::<Span>(), Err(SpanError(text.into())), "{text:?}");
        }
    }
}
