//! The log: one line for each event that an authenticated client or an admin caused; strangers are counters.
//!
//! Under systemd lines go to standard error with a priority in front (`sd-daemon(3)`), on a terminal without,
//! elsewhere to syslog. Control characters are escaped, and a budget keeps even a client that went wild from
//! filling the disk.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::config::{LogFormat, LogLevel};
use crate::grant::{Entry, Opening, Uses};
use crate::text::PortRange;
use crate::time::Timestamp;

/// The event that a client can cause at will.
const REFUSED: &str = "refused";

/// How many lines may come at once, and how many a second after that.
const BURST: f64 = 200.0;
const PER_SECOND: f64 = 20.0;

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// How urgent.
    #[serde(rename = "level")]
    pub level: LogLevel,
    /// A fixed name, for machines: `granted`, `refused`, `revoked`, `healed`, ...
    pub event: &'static str,
    /// The profile concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Where the knock came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The fixed name of the reason, for a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The service concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The grant concerned.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantFacts>,
    /// The event as a sentence.
    pub text: String,
}

/// What a grant lets pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantFacts {
    /// Who is let in.
    pub address: IpAddr,
    /// To which ports.
    pub ports: Vec<PortRange>,
    /// For how many connections; absent where a client closed what it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Uses>,
    /// For how many seconds, for one that began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

impl GrantFacts {
    /// A grant that begins.
    #[must_use]
    pub fn opened(opening: &Opening) -> Self {
        let seconds = Some(opening.lifetime.as_secs());
        Self { connections: Some(opening.uses), seconds, ..Self::closed(opening) }
    }

    /// What a client closed.
    #[must_use]
    pub fn closed(opening: &Opening) -> Self {
        let Opening { address, ports, .. } = opening;
        Self { address: *address, ports: ports.clone(), connections: None, seconds: None }
    }

    /// A grant that ends.
    #[must_use]
    pub fn ended(entry: &Entry) -> Self {
        let Entry { address, ports, uses, .. } = entry;
        Self { address: *address, ports: vec![*ports], connections: Some(*uses), seconds: None }
    }
}

impl Event {
    /// An event that concerns no client.
    #[must_use]
    pub fn new(level: LogLevel, event: &'static str, text: impl Into<String>) -> Self {
        Self {
            level,
            event,
            profile: None,
            source: None,
            reason: None,
            service: None,
            grant: None,
            text: text.into(),
        }
    }

    /// The same for a client's profile and, where a packet was the cause, its source.
    #[must_use]
    pub fn of(mut self, profile: &str, source: Option<IpAddr>) -> Self {
        self.profile = Some(profile.to_owned());
        self.source = source;
        self
    }

    /// The same with the reason's fixed name.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// The same about a grant.
    #[must_use]
    pub fn about(mut self, grant: GrantFacts) -> Self {
        self.grant = Some(grant);
        self
    }

    /// The same about a service.
    #[must_use]
    pub fn at(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    /// `granted laptop from 198.51.100.7: tcp/22 for 15s`.
    fn line(&self) -> String {
        let mut line = String::from(self.event);
        if let Some(profile) = &self.profile {
            let _ = write!(line, " {profile}");
        }
        if let Some(source) = &self.source {
            let _ = write!(line, " from {source}");
        }
        let _ = write!(line, ": {}", self.text);
        line
    }
}

/// Where lines go.
enum Sink {
    /// Standard error, read by journald: a priority in front of each line.
    Journal,
    /// Standard error, read by a person or a file.
    Plain,
    /// The system's syslog.
    Syslog(Box<Logger<LoggerBackend, Formatter3164>>),
}

/// The open log.
pub struct Log {
    sink: Sink,
    format: LogFormat,
    level: LogLevel,
    /// For refusals, which a client can cause at will.
    refusals: Budget,
    /// For all else: one client's refusals must not hide a grant or an attack.
    others: Budget,
}

/// A token bucket for lines.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    refilled: Duration,
    suppressed: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: BURST, refilled: Duration::ZERO, suppressed: 0 }
    }
}

impl Budget {
    /// Whether a line may be written now; if so, how many were left out before it.
    fn admit(&mut self, uptime: Duration) -> Option<u64> {
        let refill = uptime.saturating_sub(self.refilled).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + refill).min(BURST);
        self.refilled = uptime;
        if self.tokens < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Log {
    /// Opens the log that fits the place the daemon runs in.
    #[must_use]
    pub fn open(format: LogFormat, level: LogLevel) -> Self {
        Self { sink: sink(), format, level, refusals: Budget::default(), others: Budget::default() }
    }

    /// Takes over changed settings.
    pub fn configure(&mut self, format: LogFormat, level: LogLevel) {
        self.format = format;
        self.level = level;
    }

    /// Writes one line, if the level and the budget allow. Errors of the log itself have nowhere to go. `false` for a
    /// refusal that is over its budget: nobody else should be told either.
    pub fn write(&mut self, event: &Event, wall: Timestamp, uptime: Duration) -> bool {
        let is_refusal = event.event == REFUSED;
        let is_shown = event.level <= self.level;
        if !is_shown && !is_refusal {
            return true;
        }
        let budget = if is_refusal { &mut self.refusals } else { &mut self.others };
        let Some(left_out) = budget.admit(uptime) else { return !is_refusal };
        if is_shown && left_out > 0 {
            let text = format!("{left_out} lines were left out: too many at once");
            self.put(&Event::new(LogLevel::Warning, "suppressed", text), wall);
        }
        if is_shown {
            self.put(event, wall);
        }
        true
    }

    fn put(&mut self, event: &Event, wall: Timestamp) {
        let line = match self.format {
            LogFormat::Text => escape(&event.line()).into_owned(),
            LogFormat::Json => json(event, wall),
        };
        match &mut self.sink {
            Sink::Journal => drop(writeln!(std::io::stderr(), "<{}>{line}", event.level.priority())),
            Sink::Plain => drop(writeln!(std::io::stderr(), "{line}")),
            Sink::Syslog(logger) => drop(match event.level {
                LogLevel::Error => logger.err(line),
                LogLevel::Warning => logger.warning(line),
                LogLevel::Info => logger.info(line),
                LogLevel::Debug => logger.debug(line),
            }),
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("format", &self.format)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// systemd sets `JOURNAL_STREAM` for what journald reads (`systemd.exec(5)`).
fn sink() -> Sink {
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        return Sink::Journal;
    }
    let to_file = rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        matches!(kind, rustix::fs::FileType::RegularFile | rustix::fs::FileType::Fifo)
    });
    if std::io::stderr().is_terminal() || to_file {
        return Sink::Plain;
    }
    let formatter = Formatter3164 {
        facility: Facility::LOG_AUTH,
        hostname: None,
        process: "knockd-rs".into(),
        pid: std::process::id(),
    };
    syslog::unix(formatter).map_or(Sink::Plain, |logger| Sink::Syslog(Box::new(logger)))
}

/// The text on one line: what a terminal or a log reader would obey becomes visible instead.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_obeyed(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, line separators, and what turns the direction of writing round.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[derive(Serialize)]
struct Timed<'a> {
    /// Seconds since 1970 UTC, to the millisecond.
    time: f64,
    #[serde(flatten)]
    event: &'a Event,
}

fn json(event: &Event, wall: Timestamp) -> String {
    serde_json::to_string(&Timed { time: wall.as_secs_with_millis(), event }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_log() {
        assert_eq!(escape("a\nb\u{1b}[31mc"), "a\\nb\\u{1b}[31mc");
        assert_eq!(escape("a\u{202e}b\u{2028}"), "a\\u{202e}b\\u{2028}");
        assert_eq!(escape("plain ü"), "plain ü");
    }

    #[test]
    fn an_event_is_one_sentence() {
        let event =
            Event::new(LogLevel::Info, "granted", "tcp/22 for 15s").of("laptop", "192.0.2.1".parse().ok());
        assert_eq!(event.line(), "granted laptop from 192.0.2.1: tcp/22 for 15s");
    }

    #[test]
    fn machines_get_json() {
        let event =
            Event::new(LogLevel::Info, "refused", "used before").of("laptop", None).because("replayed");
        assert_eq!(
            json(&event, Timestamp::from_nanos(1_800_000_000_250_000_000)),
            r#"{"time":1800000000.25,"level":"info","event":"refused","profile":"laptop","reason":"replayed","text":"used before"}"#
        );
    }

    #[test]
    fn refusals_over_the_budget_are_told_to_nobody_and_all_else_is() {
        let mut log = Log::open(LogFormat::Text, LogLevel::Error);
        let mut told = |name| {
            let event = Event::new(LogLevel::Warning, name, "not written at this level");
            (0..1000).filter(|_| log.write(&event, Timestamp::default(), Duration::from_secs(1))).count()
        };
        assert_eq!((told("refused"), told("granted")), (200, 1000));
    }

    #[test]
    fn a_client_that_went_wild_does_not_fill_the_disk() {
        let mut budget = Budget::default();
        let admitted = |budget: &mut Budget, seconds| {
            (0..1000).filter(|_| budget.admit(Duration::from_secs(seconds)).is_some()).count()
        };
        assert_eq!(admitted(&mut budget, 1), 200);
        assert_eq!(admitted(&mut budget, 2), 20);
        assert_eq!(budget.admit(Duration::from_secs(3)), Some(980));
        assert_eq!(budget.admit(Duration::from_secs(3)), Some(0));
    }
}
