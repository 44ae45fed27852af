//! Events on their way out: to the log, and as the control socket tells them, at every level; of
//! refusals, which a client can cause at will, no more than the log takes.

use super::Monitor;
use crate::clock;
use crate::config::LogLevel;
use crate::control::{MAX_TEXT, Told};
use crate::log::Event;
use crate::time::Timestamp;

impl Monitor {
    pub(super) fn say(&mut self, level: LogLevel, event: &'static str, text: &str) {
        self.log_all(&[Event::new(level, event, text)]);
    }

    pub(super) fn log_all(&mut self, events: &[Event]) {
        let (wall, uptime) = (clock::wall(), clock::uptime());
        for event in events {
            if self.log.write(event, wall, uptime) {
                self.control.tell(told(event, wall), uptime);
            }
        }
    }
}

/// An event with its time, cut to a length that many of them may have.
fn told(event: &Event, wall: Timestamp) -> Told {
    let grant = event.grant.as_ref();
    Told {
        time: wall.as_secs_with_millis(),
        level: level(event.level).to_owned(),
        event: event.event.to_owned(),
        profile: event.profile.clone(),
        source: event.source,
        address: grant.map(|grant| grant.address),
        ports: grant.map(|grant| grant.ports.clone()).unwrap_or_default(),
        connections: grant.and_then(|grant| grant.connections),
        seconds: grant.and_then(|grant| grant.seconds),
        service: event.service.clone(),
        reason: event.reason.clone(),
        text: cut(&event.text),
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::GrantFacts;

    #[test]
    fn what_the_log_says_is_told_with_the_same_names() {
        let grant = GrantFacts {
            address: "192.0.2.1".parse().unwrap(),
            ports: vec!["tcp/22".parse().unwrap()],
            connections: Some(crate::grant::Uses::Once),
            seconds: Some(15),
        };
        let source = "192.0.2.9".parse().ok();
        let event = Event::new(LogLevel::Info, "granted", "tcp/22 for 15s").of("laptop", source).about(grant);
        let told = told(&event, Timestamp::from_nanos(1_800_000_000_250_000_000));
        assert_eq!(
            serde_json::to_string(&told).unwrap(),
            r#"{"time":1800000000.25,"level":"info","event":"granted","profile":"laptop","source":"192.0.2.9","address":"192.0.2.1","ports":["tcp/22"],"connections":"single","seconds":15,"text":"tcp/22 for 15s"}"#
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut(&"\u{fc}".repeat(600)).len(), 1000);
        assert_eq!(cut(&format!("a{}", "\u{fc}".repeat(600))).len(), 999);
    }
}
