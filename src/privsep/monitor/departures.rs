//! What became of grants that are in the ledger no more: their time was over, or the kernel gave them to a connection.
//!
//! The kernel ends both by itself and tells nobody. The first is noticed at the deadline; the second when the daemon
//! reads the kernel for some other reason. A grant that was used stays on the list until its deadline, so that looking
//! at the status does not change what else follows from it.

use std::time::Duration;

use super::Monitor;
use super::commands::means;
use crate::config::LogLevel;
use crate::control::{Command, Reply};
use crate::grant::{Action, Entry, Ledger, Limits, Request, Uses, label};
use crate::log::{Event, GrantFacts};

/// How far the kernel's deadline may be from the ledger's: it counts in ticks.
const SLACK: Duration = Duration::from_millis(250);

/// What follows from grants that have ended.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Gone from the kernel before their time: their connections were made. Bounded like the ledger that they come from.
    used: Vec<Entry>,
    /// Counts changes of it.
    revision: u64,
}

impl Departures {
    /// Says which grants have ended by themselves since the last look.
    pub(super) fn follow(&mut self, ledger: &mut Ledger, uptime: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        for entry in ledger.departed() {
            let over = entry.deadline <= uptime + SLACK;
            events.push(ended(&entry, over));
            if !over && self.used.len() < MAX_USED {
                self.used.push(entry);
                self.revision += 1;
            }
        }
        self.release(|entry| entry.deadline <= uptime || ledger.covers(entry));
        events
    }

    /// Grants whose connection was made, and whose time is not over.
    pub(super) fn used(&self) -> &[Entry] {
        &self.used
    }

    /// Forgets the used ones for which `chosen` holds: somebody wants them to be over.
    pub(super) fn release(&mut self, chosen: impl Fn(&Entry) -> bool) {
        let before = self.used.len();
        self.used.retain(|entry| !chosen(entry));
        self.revision += u64::from(self.used.len() != before);
    }

    /// The same for those that a client closes.
    pub(super) fn release_closed(&mut self, limits: &Limits, request: &Request) {
        let grant = &request.grant;
        let Some(profile) = limits.profile(grant.profile).filter(|_| grant.action == Action::Close) else {
            return;
        };
        let name =
            request.holder.as_ref().map_or_else(|| profile.name.clone(), |h| label(&profile.name, h.id));
        let touches =
            |entry: &Entry| grant.ports.iter().any(|range| range.intersection(&entry.ports).is_some());
        self.release(|entry| entry.profile == name && entry.address == grant.address && touches(entry));
    }

    /// The same number as before where nothing has changed.
    pub(super) fn revision(&self, ledger: &Ledger) -> u64 {
        self.revision + ledger.revision()
    }

    /// When the next of them is over.
    pub(super) fn next_end(&self, ledger: &Ledger) -> Option<Duration> {
        self.used.iter().map(|entry| entry.deadline).chain(ledger.next_end()).min()
    }
}

impl Monitor {
    /// Carries out a command that changes the firewall.
    pub(super) fn carry_out(&mut self, command: Command) -> Reply {
        let revoked = if let Command::Revoke { what } = &command { Some(what.clone()) } else { None };
        let (reply, events) = self.desk.command(&self.config, command);
        self.log_all(&events);
        if let Some(what) = revoked {
            // After a look at those that the command found to be used.
            self.settle();
            self.departures.release(|entry| means(&what, entry));
        }
        reply
    }
}

/// As many as there can be grants: `limits.grants` has no greater value.
const MAX_USED: usize = 65_535;

fn ended(entry: &Entry, over: bool) -> Event {
    let (reason, why) = match (over, entry.uses) {
        (true, _) => ("expired", "its time was over"),
        (false, Uses::Once) => ("used", "its connection was made"),
        (false, Uses::Few(_)) => ("used", "its connections were made"),
        (false, Uses::Many) => ("gone", "another program took it out of the firewall"),
    };
    let text = format!("{} for {}: {why}", entry.ports, entry.address);
    let event = Event::new(LogLevel::Debug, "ended", text).of(&entry.profile, None).because(reason);
    event.about(GrantFacts::ended(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Session;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn entry(profile: &str, ports: &str, uses: Uses, deadline: u64) -> Entry {
        let (address, ports) = ("192.0.2.1".parse().unwrap(), ports.parse().unwrap());
        let session = Session::default();
        Entry { profile: profile.into(), address, wide: false, ports, uses, session, deadline: at(deadline) }
    }

    /// The reasons and profiles of what has ended.
    fn told(events: &[Event]) -> Vec<(&str, &str)> {
        events.iter().map(|e| (e.reason.as_deref().unwrap(), e.profile.as_deref().unwrap())).collect()
    }

    /// A ledger that the kernel has filled.
    fn ledger(entries: &[Entry]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.replace(entries.to_vec());
        ledger
    }

    #[test]
    fn a_grant_whose_time_is_over_is_told_of_once() {
        let mut departures = Departures::default();
        let mut ledger = ledger(&[entry("laptop", "tcp/22", Uses::Many, 15)]);
        assert_eq!(told(&departures.follow(&mut ledger, at(1))), []);
        assert_eq!(departures.next_end(&ledger), Some(at(15)));
        ledger.expire(at(15));
        assert_eq!(told(&departures.follow(&mut ledger, at(15))), [("expired", "laptop")]);
        assert_eq!(told(&departures.follow(&mut ledger, at(16))), []);
        assert_eq!(departures.next_end(&ledger), None);
    }

    #[test]
    fn a_used_grant_counts_until_its_deadline_and_a_revoked_one_does_not() {
        let mut departures = Departures::default();
        let once = entry("laptop", "tcp/22", Uses::Once, 15);
        let mut ledger = ledger(std::slice::from_ref(&once));
        ledger.replace(Vec::new());
        let before = departures.revision(&ledger);
        assert_eq!(told(&departures.follow(&mut ledger, at(2))), [("used", "laptop")]);
        assert_ne!(departures.revision(&ledger), before);
        assert_eq!((departures.used(), departures.next_end(&ledger)), (&[once.clone()][..], Some(at(15))));
        departures.follow(&mut ledger, at(15));
        assert_eq!(departures.used(), []);

        ledger.replace(vec![once.clone()]);
        ledger.forget(std::slice::from_ref(&once));
        assert_eq!(told(&departures.follow(&mut ledger, at(2))), []);
        assert_eq!(departures.used(), []);
    }

    #[test]
    fn a_used_grant_is_over_when_somebody_says_so() {
        let mut departures = Departures::default();
        let once = [entry("laptop", "tcp/22", Uses::Once, 15), entry("phone", "tcp/22", Uses::Few(3), 15)];
        let mut ledger = ledger(&once);
        ledger.replace(Vec::new());
        departures.follow(&mut ledger, at(2));
        departures.release(|entry| entry.profile == "laptop");
        assert_eq!(departures.used(), &once[1..]);
    }

    #[test]
    fn a_renewed_grant_has_not_ended() {
        let mut departures = Departures::default();
        let mut ledger = ledger(&[entry("laptop", "tcp/22", Uses::Once, 15)]);
        ledger.replace(Vec::new());
        departures.follow(&mut ledger, at(1));
        assert_eq!(departures.used().len(), 1);
        ledger.commit(vec![entry("laptop", "tcp/22-30", Uses::Many, 60)]);
        assert_eq!(told(&departures.follow(&mut ledger, at(2))), []);
        assert_eq!(departures.used(), []);
    }

    #[test]
    fn the_jitter_of_deadlines_read_from_the_kernel_ends_nothing() {
        let mut departures = Departures::default();
        let mut ledger = ledger(&[entry("laptop", "tcp/22", Uses::Many, 15)]);
        let mut again = entry("laptop", "tcp/22", Uses::Many, 15);
        again.deadline += Duration::from_millis(3);
        ledger.replace(vec![again]);
        assert_eq!(told(&departures.follow(&mut ledger, at(2))), []);
        ledger.expire(at(16));
        assert_eq!(told(&departures.follow(&mut ledger, at(16))), [("expired", "laptop")]);
    }
}
