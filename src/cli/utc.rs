//! Times as people read them.

use crate::text::date;
use crate::time::Timestamp;

/// `2026-01-01 00:00:00.000Z`: UTC, so that it is the same wherever it is read.
pub(super) fn time(at: Timestamp) -> String {
    let (days, second) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let millis = at.as_nanos() % 1_000_000_000 / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{millis:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        // date -u -d @SECONDS
        let table = [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_399, "2000-02-28 23:59:59.000Z"),
            (951_782_400, "2000-02-29 00:00:00.000Z"),
            (951_868_800, "2000-03-01 00:00:00.000Z"),
            (1_767_225_599, "2025-12-31 23:59:59.000Z"),
            (4_107_542_400, "2100-03-01 00:00:00.000Z"),
        ];
        for (seconds, expected) in table {
            assert_eq!(time(Timestamp::from_secs(seconds)), expected);
        }
        assert_eq!(time(Timestamp::from_nanos(1_234_567_891)), "1970-01-01 00:00:01.234Z");
    }
}
