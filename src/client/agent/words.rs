//! What an agent says: each change once, and nothing while nothing changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Surroundings;
use super::job::Job;
use super::line::{Line, News};
use crate::client::knock::KnockError;
use crate::clock;
use crate::time::Timestamp;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Of each line.
    lines: BTreeMap<SocketAddr, Told>,
    is_unknown: bool,
    is_away: bool,
    status: String,
}

/// What was said last of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Open(IpAddr),
    Lost,
    Failed,
}

impl Words {
    /// What is about to be kept open.
    pub(super) fn begin(&self, job: &Job, around: &mut dyn Surroundings) {
        let asked = job.length().asked();
        around.say(&match job.duration {
            Some(wanted) if wanted > asked => format!(
                "{}: keeping {} open; a grant lasts {asked}, which is all that the server gives, not {wanted}",
                job.server.name,
                job.ports()
            ),
            _ => format!("{}: keeping {} open, {asked} at a time", job.server.name, job.ports()),
        });
    }

    /// What has come of a line.
    pub(super) fn tell(
        &mut self,
        job: &Job,
        line: &Line,
        news: &News,
        around: &mut dyn Surroundings,
        now: Duration,
    ) {
        let told = match news {
            News::Open { source, .. } => Told::Open(*source),
            News::Renewed => return,
            News::Lost => Told::Lost,
            News::Failed { .. } => Told::Failed,
        };
        if self.lines.insert(line.address, told) == Some(told) {
            return;
        }
        let ports = job.ports();
        let sentence = match news {
            News::Renewed => return,
            News::Open { source, by, is_seen } => {
                let until = line.open().map_or(now, |(_, until)| until);
                let hope = if *is_seen { "" } else { " (nothing there shows whether it is)" };
                format!(
                    "{ports} is open for {source}{hope}, by {}, until {}; renewed before that",
                    by.method(),
                    time(until, now)
                )
            }
            News::Lost => format!("{ports} at {} is closed before its time; knocking", line.address.ip()),
            News::Failed { refused, error } => {
                let answer = if *refused { "refuses connections" } else { "does not open" };
                let why = error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
                format!(
                    "{ports} at {} {answer}{why}; trying again, at least every minute; what to check is said by: \
                     knockd-rs doctor {}",
                    line.address.ip(),
                    job.server.name
                )
            }
        };
        around.say(&format!("{}: {sentence}", job.server.name));
    }

    /// Whether anything leads to the server.
    pub(super) fn tell_ways(&mut self, job: &Job, lines: &[Line], around: &mut dyn Surroundings) {
        if lines.is_empty() {
            return;
        }
        self.is_unknown = false;
        let is_away = !lines.iter().any(Line::has_way);
        if is_away && !self.is_away {
            self.lines.clear();
            let host = job.server.access().host.as_str();
            around.say(&format!("{}: no network leads to {host}; waiting for one", job.server.name));
        }
        self.is_away = is_away;
    }

    /// The name has no address.
    pub(super) fn tell_unknown(&mut self, job: &Job, error: &KnockError, around: &mut dyn Surroundings) {
        if !self.is_unknown {
            around.say(&format!("{}: {error}; trying again, at least every minute", job.server.name));
        }
        self.is_unknown = true;
    }

    /// What was closed at the end.
    pub(super) fn tell_closed(
        &self,
        job: &Job,
        line: &Line,
        error: Option<&KnockError>,
        around: &mut dyn Surroundings,
    ) {
        let (name, ports, there) = (&job.server.name, job.ports(), line.address.ip());
        around.say(&match error {
            None => format!("{name}: closed {ports} at {there}"),
            Some(error) => format!("{name}: {ports} at {there} ends by itself: {error}"),
        });
    }

    /// Shows what is open until when, if it is something else than before.
    pub(super) fn show(&mut self, job: &Job, lines: &[Line], around: &mut dyn Surroundings) {
        let status = self.status(job, lines);
        if status != self.status {
            around.status(&status);
            self.status = status;
        }
    }

    /// What is open until when.
    pub(super) fn status(&self, job: &Job, lines: &[Line]) -> String {
        let now = clock::uptime();
        let open: Vec<String> = lines
            .iter()
            .filter_map(Line::open)
            .map(|(source, until)| format!("for {source} until {}", time(until, now)))
            .collect();
        let ports = job.ports();
        if !open.is_empty() {
            return format!("{ports} is open {}", open.join(", "));
        }
        let host = job.server.access().host.as_str();
        match (lines.is_empty(), self.is_away) {
            (true, _) if self.is_unknown => format!("{ports} is closed: {host} has no address"),
            (true, _) => format!("looking up {host}"),
            (_, true) => format!("{ports} is closed: no network leads to {host}"),
            _ => format!("{ports} is closed; knocking at {host}"),
        }
    }
}

/// The time of day in UTC, so that it is the same wherever it is read.
fn time(until: Duration, now: Duration) -> String {
    of_day(clock::wall(), until.saturating_sub(now))
}

fn of_day(wall: Timestamp, left: Duration) -> String {
    // Half a second on, since the seconds of two clocks do not begin together.
    let second =
        (Duration::from_nanos(wall.as_nanos()) + left + Duration::from_millis(500)).as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_times_of_the_day() {
        let at = |seconds: u64, left: u64| of_day(Timestamp::from_secs(seconds), Duration::from_secs(left));
        assert_eq!((at(0, 600), at(86_399, 2)), ("00:10:00 UTC".to_owned(), "00:00:01 UTC".to_owned()));
        assert_eq!(at(1_767_225_599, 0), "23:59:59 UTC");
    }
}
