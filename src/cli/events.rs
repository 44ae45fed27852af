//! `events`: shows what happens, for people and for machines.

use std::io::{self, Write as _};

use clap::Args;

use super::Failure;
use super::control::Daemon;
use super::doctor::inert;
use super::utc::time;
use crate::control::{Reply, Told};
use crate::log::escape;
use crate::time::Timestamp;

/// Show what has happened lately: what was opened, closed, ended, refused.
///
/// The daemon remembers its last 256 events until it ends. With --follow those that are to come are shown instead,
/// until Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs events                                what has happened lately
  knockd-rs events --follow --event refused       the refusals that are to come
  knockd-rs events --json | jq -r .address        for machines, one object a line")]
pub(super) struct Events {
    /// Show what happens from now on.
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Only events of this name; may be given more than once.
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Events {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut listening = self.daemon.listen(self.follow)?;
        loop {
            let replies = listening.hear().map_err(|error| self.lost(&error))?;
            for reply in replies {
                match reply {
                    Reply::Event(told) if !is_wanted(&self.events, &told) => {}
                    Reply::Event(told) if self.show(&told)? => {}
                    Reply::Event(_) => return Ok(()),
                    // To a follower: from here on nothing is missed.
                    Reply::Done(_) if self.follow => {}
                    Reply::Done(_) => return Ok(()),
                    Reply::Refused(lines) => return Err(Failure::Refused(lines)),
                    Reply::Status(_) => {
                        return Err(Failure::Failed("the daemon answered another question".into()));
                    }
                }
            }
        }
    }

    /// Whether somebody still reads.
    fn show(&self, told: &Told) -> Result<bool, Failure> {
        let line = if self.json { json(told) } else { line(told) };
        match writeln!(io::stdout(), "{line}") {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::Failed(format!("standard output cannot be written: {error}"))),
        }
    }

    fn lost(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::NoDaemon("the daemon has ended".into()),
            _ => self.daemon.unheard(error),
        }
    }
}

/// Whether an event is one of those that were named; without names all are.
pub(super) fn is_wanted(names: &[String], told: &Told) -> bool {
    names.is_empty() || names.contains(&told.event)
}

fn json(told: &Told) -> String {
    inert(&serde_json::to_string(told).unwrap_or_default())
}

/// `2026-01-01 00:00:00.000Z granted laptop from 192.0.2.1: tcp/22 for 15s, one connection`.
fn line(told: &Told) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest number there is"
    )]
    let at = Timestamp::from_nanos(((told.time * 1000.0).round() as u64).saturating_mul(1_000_000));
    let profile = told.profile.as_ref().map(|profile| format!(" {profile}"));
    let source = told.source.map(|source| format!(" from {source}"));
    let words = [Some(told.event.clone()), profile, source, Some(format!(": {}", told.text))];
    format!("{} {}", time(at), escape(&words.into_iter().flatten().collect::<String>()))
}

/// What is shown of an event is one line, of which a terminal obeys nothing.
#[cfg(feature = "fuzzing")]
pub(super) fn check(told: &Told) {
    for line in [line(told), json(told)] {
        assert_eq!(escape(&line), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_at_a_time_that_no_clock_shows_is_shown_at_the_end_of_time() {
        for time in ["1e300", "1e15", "-1e300"] {
            let told = format!(r#"{{"time":{time},"level":"info","event":"granted","text":"a"}}"#);
            let shown = line(&serde_json::from_str(&told).unwrap());
            assert!(shown.starts_with(if time == "-1e300" { "1970-" } else { "2554-" }), "{shown}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_of_an_event_in_json_and_machines_read_what_was_meant() {
        let told = Told { text: "\u{9b}2J \u{202e}txt\u{7f}".to_owned(), ..Told::default() };
        assert_eq!(escape(&json(&told)), json(&told));
        assert_eq!(serde_json::from_str::<Told>(&json(&told)).unwrap(), told);
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let told: Told = serde_json::from_str(
            r#"{"time":1800000000.25,"level":"info","event":"granted","profile":"laptop","source":"192.0.2.1","text":"a\nb"}"#,
        )
        .unwrap();
        assert_eq!(line(&told), "2027-01-15 08:00:00.250Z granted laptop from 192.0.2.1: a\\nb");
        assert!(is_wanted(&[], &told) && is_wanted(&["ended".into(), "granted".into()], &told));
        assert!(!is_wanted(&["ended".into()], &told));
    }
}
