//! Points in time as values. Reading a clock is `clock.rs`; here is arithmetic only, so that everything which
//! decides by time can be tested with the time written out.
#![forbid(unsafe_code)]

use std::time::Duration;

/// A point on the wall clock: nanoseconds since 1970-01-01 00:00:00 UTC, without leap seconds (`time(7)`).
/// Good until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From seconds since the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Seconds since 1970 to the millisecond, as JSON has them.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 fit 53 bits until the year 287396"
    )]
    pub fn as_secs_with_millis(self) -> f64 {
        (self.0 / 1_000_000) as f64 / 1000.0
    }

    /// This much later, or the end of time.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// This much earlier, or the epoch.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the clocks said when a frame was taken up: read once per frame, handed down as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME`: never set, never stops, counts through suspend.
    pub uptime: Duration,
    /// Whether the wall clock can be believed.
    pub trust: ClockTrust,
}

/// Whether the server's wall clock is good enough to judge how fresh a knock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// Kept by a time source, as far as can be told: freshness is judged.
    Synchronised,
    /// Not synchronised, or earlier than this program was built: only the order of knocks is judged.
    Unsynchronised,
}
