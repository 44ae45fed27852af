//! What became of grants that are in the ledger no more: their time was over, or the kernel gave them to a connection.
//!
//! The kernel ends both by itself and tells nobody. The first is noticed at the deadline; the second when the daemon
//! reads the kernel for some other reason. A grant that was used stays on the list until its deadline, so that looking
//! at the status does not change what else follows from it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Monitor;
use super::commands::means;
use crate::config::LogLevel;
use crate::control::{Command, Reply};
use crate::grant::{Action, Entry, Limits, Request, Uses, label};
use crate::log::{Event, GrantFacts};
use crate::text::PortRange;

/// How far the kernel's deadline may be from the ledger's: it counts in ticks.
const SLACK: Duration = Duration::from_millis(250);

/// The grants that were known at the last look.
#[derive(Debug, Default)]
pub(super) struct Departures {
    known: Vec<Entry>,
    /// Gone from the kernel before their time: one connection was made. Bounded like the ledger that they come from.
    used: Vec<Entry>,
    /// Counts changes of either.
    revision: u64,
}

/// What tells grants apart: deadlines that were read from the kernel are never quite the same.
type Key<'a> = (&'a str, IpAddr, PortRange, Uses);

impl Departures {
    /// The grants that were found at a start: nobody is told of them.
    pub(super) fn adopt(live: &[Entry]) -> Self {
        Self { known: live.to_vec(), ..Self::default() }
    }

    /// Compares what is live with what was, and says which grants have ended by themselves. Those that were `put_out`
    /// have been told of by whoever did it.
    pub(super) fn follow(&mut self, live: &[Entry], put_out: &[Entry], uptime: Duration) -> Vec<Event> {
        self.release(|entry| entry.deadline <= uptime);
        if self.known == live {
            return Vec::new();
        }
        self.revision += 1;
        let gone = self.take_over(live);
        let live = Live::new(live, gone.len() + self.used.len());
        self.release(|entry| live.has_successor_of(entry));
        let out: HashSet<Key<'_>> = put_out.iter().map(key).collect();
        let has_left = |entry: &Entry| !out.contains(&key(entry)) && !live.has_successor_of(entry);
        let mut events = Vec::new();
        for entry in gone.into_iter().filter(has_left) {
            let over = entry.deadline <= uptime + SLACK;
            events.push(ended(&entry, over));
            if !over && self.used.len() < MAX_USED {
                self.used.push(entry);
            }
        }
        events
    }

    /// Makes `known` what is live, and returns what is there no more, or in another place. The ledger drops entries
    /// and adds some at its end, so that walking both side by side finds most of them where they were.
    fn take_over(&mut self, live: &[Entry]) -> Vec<Entry> {
        let (mut next, mut gone) = (0, Vec::new());
        let stays = |entry: Entry| {
            if live.get(next) == Some(&entry) {
                next += 1;
                return Some(entry);
            }
            gone.push(entry);
            None
        };
        self.known = std::mem::take(&mut self.known).into_iter().filter_map(stays).collect();
        self.known.extend_from_slice(live.get(next..).unwrap_or_default());
        gone
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
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// When the next of them is over.
    pub(super) fn next_end(&self, live: &[Entry]) -> Option<Duration> {
        live.iter().chain(&self.used).map(|entry| entry.deadline).min()
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

fn key(entry: &Entry) -> Key<'_> {
    (&entry.profile, entry.address, entry.ports, entry.uses)
}

/// What is live, to be asked about.
struct Live<'a> {
    entries: &'a [Entry],
    /// The ports of each client and address, where there are many questions.
    index: Option<HashMap<(&'a str, IpAddr), Vec<PortRange>>>,
}

impl<'a> Live<'a> {
    fn new(entries: &'a [Entry], questions: usize) -> Self {
        let index = || {
            let mut index: HashMap<(&str, IpAddr), Vec<PortRange>> = HashMap::new();
            entries.iter().for_each(|e| index.entry((&e.profile, e.address)).or_default().push(e.ports));
            index
        };
        Self { entries, index: (questions > FEW).then(index) }
    }

    /// Whether a grant of the same client is there in the place of this one, or this one still.
    fn has_successor_of(&self, entry: &Entry) -> bool {
        let Some(index) = &self.index else {
            let mut same = self.entries.iter().filter(|other| other.address == entry.address);
            return same.any(|other| other.profile == entry.profile && other.ports.contains(&entry.ports));
        };
        let ports = index.get(&(entry.profile.as_str(), entry.address));
        ports.is_some_and(|ports| ports.iter().any(|ports| ports.contains(&entry.ports)))
    }
}

/// As many questions are answered by looking at everything.
const FEW: usize = 16;

fn ended(entry: &Entry, over: bool) -> Event {
    let (reason, why) = match (over, entry.uses) {
        (true, _) => ("expired", "its time was over"),
        (false, Uses::Once) => ("used", "its connection was made"),
        (false, Uses::Many) => ("gone", "another program took it out of the firewall"),
    };
    let text = format!("{} for {}: {why}", entry.ports, entry.address);
    let event = Event::new(LogLevel::Debug, "ended", text).of(&entry.profile, None).because(reason);
    event.about(GrantFacts::ended(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn entry(profile: &str, ports: &str, uses: Uses, deadline: u64) -> Entry {
        let (address, ports) = ("192.0.2.1".parse().unwrap(), ports.parse().unwrap());
        Entry { profile: profile.into(), address, ports, uses, deadline: at(deadline) }
    }

    /// The reasons and profiles of what has ended.
    fn told(events: &[Event]) -> Vec<(&str, &str)> {
        events.iter().map(|e| (e.reason.as_deref().unwrap(), e.profile.as_deref().unwrap())).collect()
    }

    #[test]
    fn a_grant_whose_time_is_over_is_told_of_once() {
        let mut departures = Departures::default();
        let ssh = entry("laptop", "tcp/22", Uses::Many, 15);
        assert_eq!(told(&departures.follow(std::slice::from_ref(&ssh), &[], at(1))), []);
        assert_eq!(departures.next_end(std::slice::from_ref(&ssh)), Some(at(15)));
        assert_eq!(told(&departures.follow(&[], &[], at(15))), [("expired", "laptop")]);
        assert_eq!(told(&departures.follow(&[], &[], at(16))), []);
        assert_eq!(departures.next_end(&[]), None);
    }

    #[test]
    fn a_used_grant_counts_until_its_deadline_and_a_revoked_one_does_not() {
        let mut departures = Departures::default();
        let once = entry("laptop", "tcp/22", Uses::Once, 15);
        departures.follow(std::slice::from_ref(&once), &[], at(1));
        assert_eq!(told(&departures.follow(&[], &[], at(2))), [("used", "laptop")]);
        assert_eq!((departures.used(), departures.next_end(&[])), (&[once.clone()][..], Some(at(15))));
        departures.follow(&[], &[], at(15));
        assert_eq!(departures.used(), []);

        departures.follow(std::slice::from_ref(&once), &[], at(1));
        assert_eq!(told(&departures.follow(&[], std::slice::from_ref(&once), at(2))), []);
        assert_eq!(departures.used(), []);
    }

    #[test]
    fn a_used_grant_is_over_when_somebody_says_so() {
        let mut departures = Departures::default();
        let once = [entry("laptop", "tcp/22", Uses::Once, 15), entry("phone", "tcp/22", Uses::Once, 15)];
        departures.follow(&once, &[], at(1));
        departures.follow(&[], &[], at(2));
        departures.release(|entry| entry.profile == "laptop");
        assert_eq!(departures.used(), &once[1..]);
    }

    #[test]
    fn a_renewed_grant_has_not_ended() {
        let mut departures = Departures::default();
        departures.follow(&[entry("laptop", "tcp/22", Uses::Once, 15)], &[], at(1));
        let wider = [entry("laptop", "tcp/22-30", Uses::Many, 60)];
        assert_eq!(told(&departures.follow(&wider, &[], at(2))), []);
        assert_eq!(departures.used(), []);
    }

    #[test]
    fn many_at_once_are_told_of_like_one() {
        let mut departures = Departures::default();
        let entries: Vec<Entry> = (0..500)
            .map(|number| entry(&format!("client{number}"), "tcp/22", Uses::Once, 15 + number))
            .collect();
        assert_eq!(told(&departures.follow(&entries, &[], at(1))), []);
        // Another order is no departure; every second one is, the first three of them on somebody's word.
        let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
        assert_eq!(told(&departures.follow(&reversed, &[], at(2))), []);
        let half: Vec<Entry> = reversed.iter().step_by(2).cloned().collect();
        let gone: Vec<Entry> = reversed.iter().skip(1).step_by(2).cloned().collect();
        let events = departures.follow(&half, &gone[..3], at(2));
        let names: Vec<(&str, &str)> =
            gone[3..].iter().map(|entry| ("used", entry.profile.as_str())).collect();
        assert_eq!((told(&events), departures.used()), (names, &gone[3..]));
        assert_eq!(departures.next_end(&half), Some(at(15)));
    }

    #[test]
    fn the_jitter_of_deadlines_read_from_the_kernel_ends_nothing() {
        let mut departures = Departures::adopt(&[entry("laptop", "tcp/22", Uses::Many, 15)]);
        let mut again = entry("laptop", "tcp/22", Uses::Many, 15);
        again.deadline += Duration::from_millis(3);
        assert_eq!(told(&departures.follow(&[again], &[], at(2))), []);
        assert_eq!(told(&departures.follow(&[], &[], at(15))), [("expired", "laptop")]);
    }
}
