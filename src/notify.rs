//! What systemd is told (`sd_notify(3)`), and when its watchdog expects a word.

use std::time::Duration;

use sd_notify::NotifyState;

/// The line to the service manager; without one, nothing is said.
#[derive(Debug)]
pub struct Notify {
    /// A third of `WATCHDOG_USEC`: two pulses may be late before systemd loses patience.
    interval: Option<Duration>,
    /// When the worker is to be asked for a pulse again.
    next: Option<Duration>,
}

impl Notify {
    /// Reads what the service manager set in the environment.
    #[must_use]
    pub fn open() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|time| time / 3);
        Self { interval, next: interval.map(|_| Duration::ZERO) }
    }

    /// The daemon works.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// A reload has begun; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The daemon ends as it was told to.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The capture loop has turned: so says the worker's pulse, or there is no worker because there is no
    /// interface.
    pub fn alive(&mut self, uptime: Duration) {
        if let Some(interval) = self.interval {
            tell(&[NotifyState::Watchdog]);
            self.next = Some(uptime + interval);
        }
    }

    /// When the worker is to be asked for its pulse.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Whether it is time to ask; if so, the next time is one interval later.
    pub fn is_due(&mut self, uptime: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= uptime);
        if due {
            self.next = self.interval.map(|interval| uptime + interval);
        }
        due
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell; with one that does not listen, nothing to do about it.
    let _ = sd_notify::notify(states);
}
