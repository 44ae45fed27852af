//! `2027-01-31T12:00:00Z`: a moment as people write it, to the second and in UTC, so that it is the same wherever it is
//! read. The Gregorian calendar is here, for everything that prints or reads a date.

use std::fmt;
use std::str::FromStr;

use super::serde_as_text;

/// A moment: seconds since 1970-01-01 00:00:00 UTC, without leap seconds; at most [`Moment::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The last one with a year of four digits.
    pub const MAX: Self = Self(253_402_300_799);

    /// This many seconds after 1970 began; the latest moment where that is later.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// Seconds since 1970 began.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

/// As RFC 3339 has it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / 86_400);
        let second = self.0 % 86_400;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    /// A date and a time with a `T` or a blank between and a `Z` at the end; or a date alone, which means its end.
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let wrong = || MomentError(text.to_owned());
        let bytes = text.as_bytes();
        let (date, time) = bytes.split_first_chunk::<10>().ok_or_else(wrong)?;
        let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return Err(wrong()) };
        let number = |digits: &[u8]| number(digits).ok_or_else(wrong);
        let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
        let days = days(year, month, day).filter(|_| year >= 1970).ok_or_else(wrong)?;
        let second = match time {
            [] => 86_400,
            &[b'T' | b' ', h1, h2, b':', n1, n2, b':', s1, s2, b'Z'] => {
                second_of_day(number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        let seconds = u64::try_from(days).map_err(|_| wrong())? * 86_400 + second;
        Ok(Self::from_secs(seconds))
    }
}

serde_as_text!(Moment);

/// The text is no moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomentError(String);

impl fmt::Display for MomentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no moment; write a date, which means its end, or a time in UTC: 2027-01-31, 2027-01-31T12:00:00Z",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for MomentError {}

fn number(digits: &[u8]) -> Option<i64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    digits.iter().try_fold(0, |number, byte| Some(10 * number + digit(byte)?))
}

/// The second of a day, of a time that there is. No leap seconds.
#[must_use]
pub fn second_of_day(hour: i64, minute: i64, second: i64) -> Option<u64> {
    let right = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    u64::try_from(hour * 3600 + minute * 60 + second).ok().filter(|_| right)
}

/// Days from 1970-01-01 to a date that there is; negative before. Years begin in March, so that leap days come last.
#[must_use]
pub fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The date so many days after 1970-01-01, as in "Euclidean affine functions" (Neri and Schneider, 2022).
#[must_use]
pub fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (century, of_century) = ((4 * days + 3) / 146_097, (4 * days + 3) % 146_097 / 4);
    let (year, of_year) = ((4 * of_century + 3) / 1461, (4 * of_century + 3) % 1461 / 4);
    let (month, day) = ((5 * of_year + 2) / 153, (5 * of_year + 2) % 153 / 5 + 1);
    if month < 10 {
        (100 * century + year, month + 3, day)
    } else {
        (100 * century + year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_date_1_and_read_back() {
        // date -u -d @SECONDS
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_230_245, "2026-11-21T03:04:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in table {
            assert_eq!(Moment::from_secs(seconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Moment(seconds)));
            assert_eq!(text.replace('T', " ").parse(), Ok(Moment(seconds)));
        }
        assert_eq!(Moment::from_secs(u64::MAX), Moment::MAX);
    }

    #[test]
    fn a_date_alone_means_its_end() {
        assert_eq!("2027-01-31".parse::<Moment>().unwrap().to_string(), "2027-02-01T00:00:00Z");
        assert_eq!("9999-12-31".parse(), Ok(Moment::MAX));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2027",
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-1-31",
            "27-01-31",
            "1969-12-31",
            "2027-01-31T12:00:00",
            "2027-01-31T12:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T12:60:00Z",
            "2027-01-31T12:00:00+01:00",
            "2027-01-31T12:00:00.5Z",
            "2027-01-31\n",
            "２027-01-31",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError(text.into())), "{text:?}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_reads_back() {
        for day in 0..292_194 {
            let (year, month, of_month) = date(day);
            let signed = |number: u64| i64::try_from(number).unwrap();
            assert_eq!(days(signed(year), signed(month), signed(of_month)), Some(signed(day)));
        }
    }
}
