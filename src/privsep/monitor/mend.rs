//! Keeping the table as it was left: what other programs did to it is noticed, told, and made good.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::desk::Desk;
use super::guards::Guard;
use super::report::plural;
use crate::clock;
use crate::config::LogLevel;
use crate::grant::{Entry, Uses};
use crate::log::{Event, GrantFacts};
use crate::nft::{Door, LiveDoor};

/// How long to wait before another attempt to mend the table, first and at the longest; each pause is twice the one
/// before. Short, for guarded ports may be open meanwhile.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));
/// How much earlier than by our clock the kernel may end a grant by itself.
const CLOCKS_APART: Duration = Duration::from_millis(250);

impl Desk {
    /// Looks whether the table is as it was left, when the kernel says that rulesets changed or a mending has
    /// failed; makes it anew where it is not.
    pub(super) fn mend(&mut self) -> Vec<Event> {
        let uptime = clock::uptime();
        let mut events: Vec<Event> = self.guards.expire(uptime).iter().map(unconfirmed).collect();
        let again = self.broken.as_ref().is_some_and(|(_, at)| *at <= uptime);
        if !self.shield.has_changed() && !again {
            return events;
        }
        if self.shield.is_intact(&self.guards.wanted(uptime)) {
            if self.broken.take().is_some() {
                events.push(Event::new(LogLevel::Info, "recovered", "the firewall is as it should be again"));
            }
            events.extend(self.notice_ended(uptime));
            return events;
        }
        events.extend(self.heal(uptime));
        events
    }

    /// Grants whose elements somebody deleted by hand: they are over, and no later mending of the table brings them
    /// back. One for a single connection that is gone may have been used; nothing is said of it.
    fn notice_ended(&mut self, uptime: Duration) -> Vec<Event> {
        let Ok(listed) = self.shield.firewall().doors() else { return Vec::new() };
        let mut of_address: HashMap<IpAddr, Vec<&LiveDoor>> = HashMap::new();
        listed.iter().for_each(|live| of_address.entry(live.door.address).or_default().push(live));
        let is_listed = |entry: &Entry| {
            let same = |live: &&LiveDoor| {
                live.door.wide == entry.wide
                    && live.door.uses == entry.uses
                    && live.door.ports.intersection(&entry.ports).is_some()
            };
            of_address.get(&entry.address).is_some_and(|doors| doors.iter().any(same))
        };
        let ended = self.ledger.select(|entry| {
            entry.uses == Uses::Many && entry.remaining(uptime) > CLOCKS_APART && !is_listed(entry)
        });
        self.ledger.forget(&ended);
        ended.iter().map(ended_by_hand).collect()
    }

    /// Makes the table anew. Single-connection grants come back only where the kernel still lists them: of one
    /// that is gone nobody knows whether it was used. What stands in the way is said once.
    fn heal(&mut self, uptime: Duration) -> Option<Event> {
        let listed = self.shield.firewall().doors().unwrap_or_default();
        let listed: HashMap<_, Uses> = listed
            .iter()
            .filter(|live| live.door.uses != Uses::Many)
            .map(|live| ((live.door.address, live.door.wide, live.door.ports), live.door.uses))
            .collect();
        let left = |entry: &Entry| listed.get(&(entry.address, entry.wide, entry.ports)).copied();
        self.ledger.expire(uptime);
        let lost = self.ledger.select(|entry| entry.uses != Uses::Many && left(entry).is_none());
        self.ledger.lose(&lost);
        let door = |entry: &Entry| {
            let uses = if entry.uses == Uses::Many { None } else { left(entry) };
            Door { uses: uses.unwrap_or(entry.uses), ..self.door(entry, uptime) }
        };
        let doors: Vec<Door> = self.ledger.entries().map(door).collect();
        let locks = self.sessions.locks(uptime);
        let locks: Vec<_> = locks.iter().map(|(address, lock)| lock.change(*address, uptime)).collect();
        match self.shield.rebuild(&doors, &self.guards.wanted(uptime), &locks) {
            Ok(()) => {
                self.broken = None;
                self.pause = PAUSE.0;
                self.healed = self.healed.saturating_add(1);
                let mut text = format!(
                    "another program had changed the table; it was made anew with {} {}",
                    doors.len(),
                    plural(doors.len(), "grant")
                );
                if !lost.is_empty() {
                    text += &format!(
                        " ({} for a number of connections {} not restored: knock again)",
                        lost.len(),
                        if lost.len() == 1 { "was" } else { "were" }
                    );
                }
                Some(Event::new(LogLevel::Warning, "healed", text))
            }
            Err(error) => {
                let text = format!(
                    "the firewall table was changed by another program and cannot be mended: {error}"
                );
                let is_known = self.broken.as_ref().is_some_and(|(known, _)| *known == text);
                self.broken = Some((text.clone(), clock::uptime() + self.pause));
                self.pause = (self.pause * 2).min(PAUSE.1);
                (!is_known).then(|| Event::new(LogLevel::Error, "failed", text))
            }
        }
    }
}

fn ended_by_hand(entry: &Entry) -> Event {
    let text = format!(
        "another program took {} for {} out of the table; the grant is over",
        entry.ports, entry.address
    );
    let event = Event::new(LogLevel::Warning, "revoked", text).of(&entry.profile, None);
    event.about(GrantFacts::ended(entry))
}

fn unconfirmed(guard: &Guard) -> Event {
    let text = format!(
        "the guard of {} was not confirmed in time: the port is open to everybody again",
        guard.ports
    );
    Event::new(LogLevel::Warning, "unguarded", text)
}
