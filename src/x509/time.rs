//! Times in certificates (RFC 5280, section 4.1.2.5): to the second, in UTC, with a `Z`.

use crate::text::{days, second_of_day};
use crate::time::Timestamp;

use super::der::{Cursor, tag};

/// The next element, a UTCTime or a GeneralizedTime. What lies before 1970 is 1970, what does not fit is the latest
/// time there is ("99991231235959Z" means "never").
pub(super) fn time(cursor: &mut Cursor<'_>) -> Option<Timestamp> {
    let element = cursor.any()?;
    let (century, rest) = match (element.tag, element.content) {
        (tag::GENERALIZED_TIME, [a, b, rest @ ..]) => (two(*a, *b)?, rest),
        // Years of two digits: 50 to 99 are of the last century.
        (tag::UTC_TIME, [a, b, ..]) => (if two(*a, *b)? >= 50 { 19 } else { 20 }, element.content),
        _ => return None,
    };
    let &[y1, y2, m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z'] = rest else { return None };
    let (year, month, day) = (century * 100 + two(y1, y2)?, two(m1, m2)?, two(d1, d2)?);
    let (hour, minute, second) = (two(h1, h2)?, two(n1, n2)?, two(s1, s2)?);
    let seconds = days(year, month, day)?.checked_mul(86_400)?;
    let seconds = seconds.checked_add_unsigned(second_of_day(hour, minute, second)?)?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    // Nanoseconds in 64 bits end in 2554.
    Some(Timestamp::from_secs(seconds.min(u64::MAX / 1_000_000_000)))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, text: &str) -> Option<u64> {
        let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.bytes());
        time(&mut Cursor::new(&bytes)).map(Timestamp::as_secs)
    }

    #[test]
    fn times_are_those_of_date_1() {
        // date -u -d '2026-11-21 03:04:05' +%s, and so on.
        assert_eq!(read(tag::UTC_TIME, "261121030405Z"), Some(1_795_230_245));
        assert_eq!(read(tag::UTC_TIME, "000229000000Z"), Some(951_782_400));
        assert_eq!(read(tag::UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(tag::UTC_TIME, "500101000000Z"), Some(0), "1950");
        assert_eq!(read(tag::GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(read(tag::GENERALIZED_TIME, "99991231235959Z"), Some(u64::MAX / 1_000_000_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "261121030405",
            "2611210304Z",
            "261321030405Z",
            "260230000000Z",
            "261121240000Z",
            "26112103040xZ",
        ] {
            assert_eq!(read(tag::UTC_TIME, text), None, "{text}");
        }
        assert_eq!(read(tag::GENERALIZED_TIME, "20261121030405.5Z"), None);
        assert_eq!(read(tag::UTF8, "261121030405Z"), None);
    }
}
