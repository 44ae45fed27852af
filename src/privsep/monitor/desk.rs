//! The desk: where requests of the worker become openings in the kernel, and every change is written down.
//!
//! Admission by the limits, the count of live grants, one batch to the firewall, the ledger, the log. What admins
//! command is in `commands`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::guards::{Guard, GuardBook, Origin};
use super::report::plural;
use super::shield::Shield;
use crate::clock;
use crate::config::{Configuration, LogLevel};
use crate::grant::{Action, Breach, Entry, Ledger, Limits, Opening, ProfileIndex, Request, rule_of};
use crate::log::Event;
use crate::nft::{Change, Door, FirewallError, Guarded, LiveDoor, Note};
use crate::privsep::message::{Health, Pulse, Refused, Verdict};
use crate::text::PortRange;

/// How long to wait before another attempt to mend the table, first and at the longest; each pause is twice the one
/// before. Short, for guarded ports may be open meanwhile.
const MEND_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));
/// How much earlier than by our clock the kernel may end a grant by itself.
const CLOCKS_APART: Duration = Duration::from_millis(250);

/// The state of the firewall, and who changed it why.
pub(super) struct Desk {
    pub(super) shield: Shield,
    pub(super) ledger: Ledger,
    pub(super) guards: GuardBook,
    /// `limits.grants`.
    pub(super) total: usize,
    /// The subjects of certificates that have grants, by their labels.
    pub(super) subjects: HashMap<String, String>,
    /// Unix seconds of each profile's last accepted knock.
    pub(super) last_knocks: HashMap<String, u64>,
    pub(super) health: Health,
    /// What is wrong with the table, and when to try again.
    pub(super) broken: Option<(String, Duration)>,
    /// How long to wait after the next attempt that fails.
    pause: Duration,
    /// How often the table was made anew.
    pub(super) healed: u32,
    /// Why the guards could not be saved.
    pub(super) unsaved: Option<String>,
}

impl Desk {
    /// Puts the table in place with all guards, and takes over the grants that are in it.
    pub(super) fn open(config: &Configuration, state_dir: &Path) -> Result<Self, FirewallError> {
        let (mut guards, unsaved) = GuardBook::open(state_dir, &config.settings);
        let uptime = clock::uptime();
        let known = guards.wanted(uptime);
        let mut shield = Shield::open(&config.settings, &known, unsaved.is_some())?;
        for live in shield.firewall().guards()? {
            let closed = super::guards::closing(live.guard.closed);
            let origin = match live.guard.lifetime {
                Some(left) => Origin::Unconfirmed(uptime + left),
                None if known.iter().any(|guard| guard.ports == live.guard.ports) => continue,
                None => Origin::Command,
            };
            guards.note(Guard { ports: live.guard.ports, closed, origin });
        }
        let mut desk = Self {
            shield,
            ledger: Ledger::default(),
            guards,
            total: config.settings.limits.grants as usize,
            subjects: HashMap::new(),
            last_knocks: HashMap::new(),
            health: Health::default(),
            broken: None,
            pause: MEND_PAUSE.0,
            healed: 0,
            unsaved,
        };
        desk.read_kernel()?;
        Ok(desk)
    }

    /// Makes the ledger what the kernel has: grants that were used up are in it no more.
    pub(super) fn read_kernel(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        let doors = self.shield.firewall().doors()?;
        let uptime = clock::uptime();
        let entry = |live: &LiveDoor| Entry {
            profile: live.door.note.to_string(),
            address: live.door.address,
            ports: live.door.ports,
            uses: live.door.uses,
            deadline: uptime.saturating_add(live.door.lifetime),
        };
        self.ledger.replace(doors.iter().map(entry).collect());
        Ok(doors)
    }

    /// Deals with a request: admits it by the limits that its worker was started with, and, where the configuration
    /// has changed since, by the `newer` ones; then carries it out.
    ///
    /// # Errors
    /// The breach, when the worker asks for what it can never be given.
    pub(super) fn admit(
        &mut self,
        limits: &Limits,
        newer: Option<&Limits>,
        request: &Request,
    ) -> Result<(Verdict, Vec<Event>), Breach> {
        let mut opening = limits.admit(request)?;
        if let Some(newer) = newer {
            let Some(allowed) = limits.still_allowed(request, newer) else {
                let text = "the configuration has changed since, and does not allow this any more";
                let event = Event::new(LogLevel::Warning, "refused", text);
                let source = Some(request.grant.source);
                return Ok((Verdict::Failed, vec![event.of(&opening.profile, source).because("reloaded")]));
            };
            opening = allowed;
        }
        let rule = rule_of(&opening.profile).map_or(opening.profile.as_str(), |(rule, _)| rule);
        self.last_knocks.insert(rule.to_owned(), clock::wall().as_secs());
        self.remember(&opening);
        let source = Some(request.grant.source);
        Ok(match opening.action {
            Action::Close => self.close(&opening, source),
            Action::Open => {
                let (verdict, mut events) = self.open_doors(&opening, source);
                if verdict == Verdict::Done && request.from_outside {
                    events.extend(self.confirm(&opening.ports));
                }
                (verdict, events)
            }
        })
    }

    /// Keeps the subject of a certificate for as long as it has grants, for people who look at the status. Bounded by
    /// the number of grants.
    fn remember(&mut self, opening: &Opening) {
        if let Some(holder) = &opening.holder {
            let Self { ledger, subjects, .. } = self;
            subjects.retain(|label, _| ledger.entries().iter().any(|entry| entry.profile == *label));
            subjects.insert(opening.profile.clone(), holder.subject.clone());
        }
    }

    /// Ends the live grants of certificates that were revoked.
    pub(super) fn end_revoked(&mut self, ids: &[[u8; 8]]) -> Vec<Event> {
        let is_revoked = |entry: &Entry| rule_of(&entry.profile).is_some_and(|(_, id)| ids.contains(&id));
        let ended = self.ledger.select(is_revoked);
        if ended.is_empty() {
            return Vec::new();
        }
        match self.end(&ended) {
            Ok(()) => ended.iter().map(|entry| self.was_revoked(entry)).collect(),
            Err(error) => vec![Event::new(LogLevel::Error, "failed", error.to_string())],
        }
    }

    fn was_revoked(&self, entry: &Entry) -> Event {
        let subject = self.subjects.get(&entry.profile).map_or("", String::as_str);
        let text = format!(
            "{} for {} ended: the certificate of {subject} was revoked by its authority",
            entry.ports, entry.address
        );
        Event::new(LogLevel::Warning, "revoked", text).of(&entry.profile, None)
    }

    /// Opens the doors of an admitted opening.
    pub(super) fn open_doors(&mut self, opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
        let uptime = clock::uptime();
        self.ledger.expire(uptime);
        let mut planned = self.ledger.plan(opening, self.total, uptime);
        if planned.is_err() && self.read_kernel().is_ok() {
            planned = self.ledger.plan(opening, self.total, uptime);
        }
        let added = match planned {
            Ok(added) => added,
            Err(full) => {
                let event = Event::new(LogLevel::Warning, "refused", full.to_string());
                return (Verdict::Full, vec![event.of(&opening.profile, source).because(full.name())]);
            }
        };
        let changes: Vec<Change> = added.iter().map(|entry| Change::Open(door(entry, uptime))).collect();
        if let Err(error) = self.shield.firewall().apply(&changes) {
            let event = Event::new(LogLevel::Error, "failed", error.to_string());
            return (Verdict::Failed, vec![event.of(&opening.profile, source).because("firewall")]);
        }
        let known = added.is_empty();
        self.ledger.commit(added);
        let event = Event::new(LogLevel::Info, "granted", sentence(opening, source, known));
        (Verdict::Done, vec![event.of(&opening.profile, source)])
    }

    /// Ends a client's own grants.
    fn close(&mut self, opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
        let ended = self.ledger.of_client(&opening.profile, opening.address, &opening.ports);
        match self.end(&ended) {
            Ok(()) => {
                let text = format!("{} for {}, as the client asked", list(&opening.ports), opening.address);
                (Verdict::Done, vec![Event::new(LogLevel::Info, "closed", text).of(&opening.profile, source)])
            }
            Err(error) => {
                let event = Event::new(LogLevel::Error, "failed", error.to_string());
                (Verdict::Failed, vec![event.of(&opening.profile, source).because("firewall")])
            }
        }
    }

    /// Takes entries out of the kernel. What another profile has open for the same address stays open.
    pub(super) fn end(&mut self, ended: &[Entry]) -> Result<(), FirewallError> {
        let uptime = clock::uptime();
        let shut = ended.iter().map(|entry| Change::Shut { address: entry.address, ports: entry.ports });
        let kept = self.ledger.shared_with(ended, uptime);
        let again = kept.iter().map(|entry| Change::Open(door(entry, uptime)));
        let changes: Vec<Change> = shut.chain(again).collect();
        self.shield.firewall().apply(&changes)?;
        self.ledger.forget(ended);
        Ok(())
    }

    /// A knock from outside opened these ports: guards on them that wait for confirmation stay for good.
    fn confirm(&mut self, ports: &[PortRange]) -> Vec<Event> {
        let awaiting = self.guards.awaiting(ports);
        let mut events = Vec::new();
        for guard in awaiting {
            let guarded =
                Guarded { ports: guard.ports, closed: super::guards::closed(guard.closed), lifetime: None };
            match self.shield.firewall().apply(&[Change::Guard(guarded)]) {
                Ok(()) => {
                    let text = format!("the guard of {} stays: a knock from outside opened it", guard.ports);
                    events.push(Event::new(LogLevel::Info, "confirmed", text));
                    self.guards.note(Guard { origin: Origin::Command, ..guard });
                    events.extend(self.save_guards());
                }
                Err(error) => events.push(Event::new(LogLevel::Error, "failed", error.to_string())),
            }
        }
        events
    }

    /// Writes the book of guards. Where that fails the guards stay in force and the status says so.
    pub(super) fn save_guards(&mut self) -> Option<Event> {
        self.unsaved =
            self.guards.save().err().map(|error| {
                format!("guarded ports cannot be saved and would be open after a reboot: {error}")
            });
        self.unsaved.clone().map(|text| Event::new(LogLevel::Error, "degraded", text))
    }

    /// An authentic knock was refused by the worker.
    pub(super) fn refused(&self, limits: &Limits, refused: &Refused) -> Vec<Event> {
        let nobody = if refused.profile == ProfileIndex::NONE { "-" } else { "?" };
        let profile = limits.profile(refused.profile).map_or(nobody, |profile| profile.name.as_str());
        let event = Event::new(LogLevel::Warning, "refused", refused.sentence.clone());
        vec![event.of(profile, Some(refused.source)).because(&refused.name)]
    }

    /// Says what has broken or healed in the worker since its last pulse, and whether it believes the clock.
    pub(super) fn pulse(&mut self, pulse: &Pulse) -> Vec<Event> {
        let before = std::mem::replace(&mut self.health, pulse.health);
        let (had, has) =
            (super::report::worker_troubles(before), super::report::worker_troubles(pulse.health));
        let new = has.iter().filter(|trouble| !had.contains(trouble));
        let gone = had.iter().filter(|trouble| !has.contains(trouble));
        new.map(|trouble| Event::new(LogLevel::Warning, "degraded", *trouble))
            .chain(
                gone.map(|trouble| Event::new(LogLevel::Info, "recovered", format!("no longer: {trouble}"))),
            )
            .chain(clock(before, pulse.health))
            .collect()
    }

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
        let is_listed = |entry: &Entry| {
            let same = |live: &LiveDoor| {
                live.door.address == entry.address
                    && live.door.uses == entry.uses
                    && live.door.ports.intersection(&entry.ports).is_some()
            };
            listed.iter().any(same)
        };
        let ended = self.ledger.select(|entry| {
            entry.uses == crate::grant::Uses::Many
                && entry.remaining(uptime) > CLOCKS_APART
                && !is_listed(entry)
        });
        self.ledger.forget(&ended);
        ended.iter().map(ended_by_hand).collect()
    }

    /// Makes the table anew. Single-connection grants come back only where the kernel still lists them: of one
    /// that is gone nobody knows whether it was used. What stands in the way is said once.
    fn heal(&mut self, uptime: Duration) -> Option<Event> {
        let listed = self.shield.firewall().doors().unwrap_or_default();
        let is_listed = |entry: &Entry| {
            listed.iter().any(|live| live.door.address == entry.address && live.door.ports == entry.ports)
        };
        self.ledger.expire(uptime);
        let lost = self.ledger.select(|entry| entry.uses == crate::grant::Uses::Once && !is_listed(entry));
        self.ledger.forget(&lost);
        let doors: Vec<Door> = self.ledger.entries().iter().map(|entry| door(entry, uptime)).collect();
        match self.shield.rebuild(&doors, &self.guards.wanted(uptime)) {
            Ok(()) => {
                self.broken = None;
                self.pause = MEND_PAUSE.0;
                self.healed = self.healed.saturating_add(1);
                let mut text = format!(
                    "another program had changed the table; it was made anew with {} {}",
                    doors.len(),
                    plural(doors.len(), "grant")
                );
                if !lost.is_empty() {
                    text +=
                        &format!(" ({} for a single connection were not restored: knock again)", lost.len());
                }
                Some(Event::new(LogLevel::Warning, "healed", text))
            }
            Err(error) => {
                let text = format!(
                    "the firewall table was changed by another program and cannot be mended: {error}"
                );
                let is_known = self.broken.as_ref().is_some_and(|(known, _)| *known == text);
                self.broken = Some((text.clone(), clock::uptime() + self.pause));
                self.pause = (self.pause * 2).min(MEND_PAUSE.1);
                (!is_known).then(|| Event::new(LogLevel::Error, "failed", text))
            }
        }
    }

    /// Removes the table: nothing is guarded any more.
    pub(super) fn remove_table(self) -> Result<(), FirewallError> {
        self.shield.remove()
    }

    /// When something is due here.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.broken.as_ref().map(|(_, at)| *at).into_iter().chain(self.guards.next_end()).min()
    }
}

/// One line when the clock comes in doubt, and one when it can be believed again.
fn clock(before: Health, now: Health) -> Option<Event> {
    match (before.clock_unsynchronised, now.clock_unsynchronised) {
        (false, true) => Some(Event::new(LogLevel::Warning, "clock", super::report::CLOCK_IN_DOUBT)),
        (true, false) => {
            Some(Event::new(LogLevel::Info, "clock", "synchronised: the age of knocks is judged again"))
        }
        _ => None,
    }
}

fn unconfirmed(guard: &Guard) -> Event {
    let text = format!(
        "the guard of {} was not confirmed in time: the port is open to everybody again",
        guard.ports
    );
    Event::new(LogLevel::Warning, "unguarded", text)
}

fn ended_by_hand(entry: &Entry) -> Event {
    let text = format!(
        "another program took {} for {} out of the table; the grant is over",
        entry.ports, entry.address
    );
    Event::new(LogLevel::Warning, "revoked", text).of(&entry.profile, None)
}

/// The entry as the firewall takes it.
pub(super) fn door(entry: &Entry, uptime: Duration) -> Door {
    Door {
        address: entry.address,
        ports: entry.ports,
        uses: entry.uses,
        lifetime: entry.remaining(uptime).max(Duration::from_millis(1)),
        note: entry.profile.parse::<Note>().unwrap_or_default(),
    }
}

/// `tcp/22 for 15s, one connection`; with the address where it is not the knock's source.
fn sentence(opening: &Opening, source: Option<IpAddr>, known: bool) -> String {
    let Opening { address, ports, uses, lifetime, .. } = opening;
    let whom = if source == Some(*address) { String::new() } else { format!(" to {address}") };
    let known = if known { " (open for longer already)" } else { "" };
    let holder = opening.holder.as_ref().map(|holder| format!(", certificate of {}", holder.subject));
    format!("{}{whom} for {lifetime}, {}{known}{}", list(ports), uses.phrase(), holder.unwrap_or_default())
}

pub(super) fn list(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
