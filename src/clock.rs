//! The clocks, read: once per frame, then handed down as [`Now`].

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::Clock;
use crate::sys;
use crate::time::{ClockTrust, Now, Timestamp};

/// When this release was made. A wall clock that shows an earlier time is wrong.
pub const RELEASED: Timestamp = Timestamp::from_secs(1_795_132_800); // 2026-11-20 00:00:00 UTC

/// What systemd-timesyncd leaves behind: the directory when it runs, the file once it has set the clock.
const TIMESYNC: &str = "/run/systemd/timesync";

/// The wall clock.
#[must_use]
pub fn wall() -> Timestamp {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The time since boot, through suspend: `CLOCK_BOOTTIME`.
#[must_use]
pub fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Which boot of the machine this is, by the random name that the kernel gives each. Zeros where it does not say; then
/// all boots are one.
#[must_use]
pub fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

/// How long an answer to "is the clock synchronised" is good for: asking costs system calls, and a flood of junk
/// must not buy one for each packet.
const TRUST_LASTS: Duration = Duration::from_secs(1);

/// All clocks at once, under the admin's setting.
#[derive(Debug)]
pub struct Clocks {
    setting: Clock,
    trust: ClockTrust,
    asked: Option<Duration>,
}

impl Clocks {
    /// Clocks that were not read yet.
    #[must_use]
    pub fn new(setting: Clock) -> Self {
        Self { setting, trust: ClockTrust::Unsynchronised, asked: None }
    }

    /// What they say now.
    pub fn read(&mut self) -> Now {
        let (wall, uptime) = (wall(), uptime());
        if self.asked.is_none_or(|asked| uptime >= asked + TRUST_LASTS) {
            self.asked = Some(uptime);
            self.trust = match self.setting {
                Clock::Trusted => ClockTrust::Synchronised,
                Clock::Untrusted => ClockTrust::Unsynchronised,
                Clock::Auto => kernel_trust(),
            };
        }
        let trust = if wall < RELEASED { ClockTrust::Unsynchronised } else { self.trust };
        Now { wall, uptime, trust }
    }
}

/// What the kernel says (`adjtimex(2)`). Where that call is denied, as under systemd's `ProtectClock=`, what
/// timesyncd says; where that does not run either, the clock is believed: judging freshness by it can only refuse
/// more.
fn kernel_trust() -> ClockTrust {
    let synchronised = match sys::kernel_clock() {
        Ok(sys::KernelClock::Synchronised) => true,
        Ok(sys::KernelClock::Unsynchronised) => false,
        Ok(sys::KernelClock::NotPermitted) | Err(_) => {
            !Path::new(TIMESYNC).exists() || Path::new(TIMESYNC).join("synchronized").exists()
        }
    };
    if synchronised { ClockTrust::Synchronised } else { ClockTrust::Unsynchronised }
}
