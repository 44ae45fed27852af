//! The desk: where requests of the worker become openings in the kernel, and every change is written down.
//!
//! Admission by the limits, the count of live grants, one batch to the firewall, the ledger, the log. What admins
//! command is in `commands`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::guards::{Guard, GuardBook, Origin};
use super::removal::expired;
use super::sessions::{Bar, Sessions};
use super::shield::Shield;
use crate::clock;
use crate::config::{Configuration, LogLevel, Settings};
use crate::grant::{
    Action, Breach, Entry, Full, Ledger, Limits, Opening, ProfileIndex, Request, Uses, rule_of,
};
use crate::log::{Event, GrantFacts};
use crate::nft::{Change, Door, FirewallError, Forward, Guarded, LiveDoor, Note};
use crate::privsep::message::{Health, Pulse, Refused, Verdict};
use crate::text::PortRange;

/// How often a limit that is reached makes the monitor look which grants are used up.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How many grants are ended by one batch.
const MAX_PART: usize = 500;

/// The state of the firewall, and who changed it why.
pub(super) struct Desk {
    pub(super) shield: Shield,
    pub(super) ledger: Ledger,
    pub(super) guards: GuardBook,
    /// `limits.grants`.
    pub(super) total: usize,
    /// Ports that lead to other hosts.
    pub(super) forwards: Vec<Forward>,
    /// The subjects of certificates that have grants, by their labels.
    pub(super) subjects: HashMap<String, String>,
    /// Unix seconds of each profile's last accepted knock.
    pub(super) last_knocks: HashMap<String, u64>,
    pub(super) health: Health,
    /// What is wrong with the table, and when to try again.
    pub(super) broken: Option<(String, Duration)>,
    /// How long to wait after the next attempt that fails.
    pub(super) pause: Duration,
    /// How often the table was made anew.
    pub(super) healed: u32,
    /// Why the guards could not be saved.
    pub(super) unsaved: Option<String>,
    /// Who is refused on account of an earlier grant.
    pub(super) sessions: Sessions,
    /// When the kernel was last asked what is used up, because a limit was reached.
    looked: Option<Duration>,
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
        let locked = shield.firewall().lockouts()?;
        let mut desk = Self {
            shield,
            ledger: Ledger::default(),
            guards,
            total: config.settings.limits.grants as usize,
            forwards: forwards(&config.settings),
            subjects: HashMap::new(),
            last_knocks: HashMap::new(),
            health: Health::default(),
            broken: None,
            pause: super::mend::PAUSE.0,
            healed: 0,
            unsaved,
            sessions: Sessions::open(state_dir, locked, uptime),
            looked: None,
        };
        desk.read_kernel()?;
        Ok(desk)
    }

    /// Makes the ledger what the kernel has: grants that were used up are in it no more.
    pub(super) fn read_kernel(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        let doors = self.shield.firewall().doors()?;
        let uptime = clock::uptime();
        self.ledger.replace(doors.iter().map(|live| entry_of(live, uptime)).collect());
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
                let (verdict, mut events) = self.knocked(&opening, limits_insist(limits, request), source);
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
            if subjects.len() > 2 * ledger.holders() + 16 {
                subjects.retain(|label, _| ledger.holds(label));
            }
            subjects.insert(opening.profile.clone(), holder.subject.clone());
        }
    }

    /// Ends the live grants of certificates that were revoked.
    pub(super) fn end_revoked(&mut self, ids: &[[u8; 8]]) -> Vec<Event> {
        let ended = self.ledger.select(|entry| is_of(entry, ids));
        match self.end(&ended).and_then(|()| self.cut(|entry| is_of(entry, ids))) {
            Ok(_) => ended.iter().map(|entry| self.was_revoked(entry)).collect(),
            Err(error) => vec![Event::new(LogLevel::Error, "failed", error.to_string())],
        }
    }

    fn was_revoked(&self, entry: &Entry) -> Event {
        let subject = self.subjects.get(&entry.profile).map_or("", String::as_str);
        let text = format!(
            "{} for {} ended: the certificate of {subject} was revoked by its authority",
            entry.ports, entry.address
        );
        Event::new(LogLevel::Warning, "revoked", text)
            .of(&entry.profile, None)
            .about(GrantFacts::ended(entry))
    }

    /// Opens what a knock asks for, unless an earlier one bars its client, and notes what is to follow the grant.
    fn knocked(&mut self, opening: &Opening, insists: bool, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
        let profile = &opening.profile;
        if self.sessions.is_over(profile, insists) {
            return barred(&Bar::LastKnock { profile: profile.clone() }, opening, source);
        }
        if opening.session.last {
            // On the disk before the firewall is touched: a crash in between bars one knock too many, not one too few.
            if let Err(error) = self.sessions.end(profile) {
                return barred(&Bar::Unsaved(error), opening, source);
            }
        }
        let (verdict, events) = self.open_doors(opening, source);
        if opening.session.last && verdict != Verdict::Done {
            self.sessions.resume(profile);
        }
        (verdict, events)
    }

    /// Opens the doors of an admitted opening.
    pub(super) fn open_doors(&mut self, opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
        let uptime = clock::uptime();
        let Some(opening) = &opening.within(clock::wall().max(clock::RELEASED)) else {
            return expired(opening, source);
        };
        if let Some(lock) = self.sessions.lock_of(opening.address, uptime) {
            return barred(&Bar::of(opening.address, lock, uptime), opening, source);
        }
        let mut planned = self.ledger.plan(opening, self.total, uptime);
        if planned.is_err() && self.may_look(uptime) && self.read_kernel().is_ok() {
            planned = self.ledger.plan(opening, self.total, uptime);
        }
        let added = match planned {
            Ok(added) => added,
            Err(full) => {
                let event = Event::new(LogLevel::Warning, "refused", full.to_string());
                return (Verdict::Full, vec![event.of(&opening.profile, source).because(full.name())]);
            }
        };
        if opening.session.lock_out && !self.sessions.has_room(opening.address, self.total, uptime) {
            let full = Full::Total { limit: self.total };
            let event = Event::new(LogLevel::Warning, "refused", full.to_string());
            return (Verdict::Full, vec![event.of(&opening.profile, source).because(full.name())]);
        }
        let lock = opening.session.lock_out.then(|| {
            let end = uptime.saturating_add(opening.lifetime.duration());
            self.sessions.following(&opening.profile, opening.address, end, opening.lockout.duration())
        });
        let kept = self.ledger.outlasting(&added);
        let opened = added.iter().chain(&kept).map(|entry| Change::Open(self.door(entry, uptime)));
        let locked = lock.iter().map(|lock| Change::LockOut(lock.change(opening.address, uptime)));
        let changes: Vec<Change> = opened.chain(locked).collect();
        if let Err(error) = self.shield.firewall().apply(&changes) {
            // Where the kernel's answer was lost its work may be done: the ledger has what is there.
            let _ = self.read_kernel();
            let event = Event::new(LogLevel::Error, "failed", error.to_string());
            return (Verdict::Failed, vec![event.of(&opening.profile, source).because("firewall")]);
        }
        let known = added.is_empty();
        self.ledger.commit(added);
        if let Some(lock) = lock {
            self.sessions.note(opening.address, lock, uptime);
        }
        let event = Event::new(LogLevel::Info, "granted", sentence(opening, source, known));
        (Verdict::Done, vec![event.of(&opening.profile, source).about(GrantFacts::opened(opening))])
    }

    /// Whether the kernel may be asked what is used up: listing many grants takes a while, and a client that is at its
    /// limit could ask for it with every knock.
    fn may_look(&mut self, uptime: Duration) -> bool {
        let may = self.looked.is_none_or(|at| uptime.saturating_sub(at) >= LOOK_PAUSE);
        if may {
            self.looked = Some(uptime);
        }
        may
    }

    /// Ends a client's own grants.
    fn close(&mut self, opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
        let ended = self.ledger.of_client(&opening.profile, opening.address, &opening.ports);
        let its = |entry: &Entry| {
            entry.profile == opening.profile
                && entry.address == opening.address
                && opening.ports.iter().any(|range| range.intersection(&entry.ports).is_some())
        };
        match self.end(&ended).and_then(|()| self.cut(its)) {
            Ok(_) => {
                let text = format!("{} for {}, as the client asked", list(&opening.ports), opening.address);
                let event = Event::new(LogLevel::Info, "closed", text).of(&opening.profile, source);
                (Verdict::Done, vec![event.about(GrantFacts::closed(opening))])
            }
            Err(error) => {
                let event = Event::new(LogLevel::Error, "failed", error.to_string());
                (Verdict::Failed, vec![event.of(&opening.profile, source).because("firewall")])
            }
        }
    }

    /// Takes entries out of the kernel, as many at a time as one batch holds. What another profile has open for the same
    /// address stays open.
    pub(super) fn end(&mut self, ended: &[Entry]) -> Result<(), FirewallError> {
        let mut ended = ended.to_vec();
        ended.sort_by_key(|entry| entry.address);
        // Those of one address go together, and with what stays open for it.
        let mut part: Vec<Entry> = Vec::new();
        for of_address in ended.chunk_by(|a, b| a.address == b.address) {
            if part.len() >= MAX_PART {
                self.end_part(&part)?;
                part.clear();
            }
            part.extend_from_slice(of_address);
        }
        self.end_part(&part)
    }

    fn end_part(&mut self, ended: &[Entry]) -> Result<(), FirewallError> {
        let uptime = clock::uptime();
        let shut = ended.iter().map(|entry| Change::Shut {
            address: entry.address,
            wide: entry.wide,
            ports: entry.ports,
        });
        let again = self.kept(ended, uptime)?.into_iter().map(Change::Open);
        let begun = self.sessions.begun(ended, uptime);
        let locked = begun.iter().map(|(address, lock)| Change::LockOut(lock.change(*address, uptime)));
        let changes: Vec<Change> = shut.chain(again).chain(locked).collect();
        self.shield.firewall().apply(&changes)?;
        self.ledger.forget(ended);
        begun.into_iter().for_each(|(address, lock)| self.sessions.note(address, lock, uptime));
        Ok(())
    }

    /// What others have open where grants end, with as many connections as the kernel has left of it.
    fn kept(&mut self, ended: &[Entry], uptime: Duration) -> Result<Vec<Door>, FirewallError> {
        let kept = self.ledger.shared_with(ended, uptime);
        let last_counts = |mut doors: Vec<Door>| {
            doors.sort_by_key(|door| (door.uses == Uses::Many, door.lifetime));
            doors
        };
        if kept.iter().all(|entry| entry.uses == Uses::Many) {
            return Ok(last_counts(kept.iter().map(|entry| self.door(entry, uptime)).collect()));
        }
        let listed = self.shield.firewall().doors()?;
        let left = |entry: &Entry| {
            let same = |live: &&LiveDoor| {
                let door = &live.door;
                (door.address, door.wide, door.ports) == (entry.address, entry.wide, entry.ports)
                    && (door.uses == Uses::Many) == (entry.uses == Uses::Many)
            };
            listed.iter().find(same).map(|live| live.door.uses)
        };
        let door = |entry: &Entry| {
            let uses = if entry.uses == Uses::Many { Some(Uses::Many) } else { left(entry) };
            Some(Door { uses: uses?, ..self.door(entry, uptime) })
        };
        Ok(last_counts(kept.iter().filter_map(door).collect()))
    }

    /// Cuts the connections of grants that end with them, also where the grant itself is used up; how many places there
    /// were.
    pub(super) fn cut(&mut self, chosen: impl Fn(&Entry) -> bool) -> Result<usize, FirewallError> {
        let ending = self.shield.firewall().ending()?;
        let uptime = clock::uptime();
        let chosen = ending.iter().map(|live| entry_of(live, uptime)).filter(chosen);
        let changes: Vec<Change> =
            chosen.map(|entry| Change::Cut { address: entry.address, ports: entry.ports }).collect();
        for part in changes.chunks(MAX_PART) {
            self.shield.firewall().apply(part)?;
        }
        Ok(changes.len())
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

    /// Removes the table: nothing is guarded any more.
    pub(super) fn remove_table(self) -> Result<(), FirewallError> {
        self.shield.remove()
    }

    /// When something is due here.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.broken.as_ref().map(|(_, at)| *at).into_iter().chain(self.guards.next_end()).min()
    }
}

/// Whether the grant is one of these certificates'.
pub(super) fn is_of(entry: &Entry, ids: &[[u8; 8]]) -> bool {
    rule_of(&entry.profile).is_some_and(|(_, id)| ids.contains(&id))
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

/// What the kernel has, as the ledger knows it.
fn entry_of(live: &LiveDoor, uptime: Duration) -> Entry {
    Entry {
        profile: live.door.note.to_string(),
        address: live.door.address,
        wide: live.door.wide,
        ports: live.door.ports,
        uses: live.door.uses,
        session: live.door.session,
        deadline: uptime.saturating_add(live.door.lifetime),
    }
}

/// Whether the profile makes every knock of its clients the last one.
fn limits_insist(limits: &Limits, request: &Request) -> bool {
    limits.profile(request.grant.profile).is_some_and(|profile| profile.rules.session.last)
}

fn barred(bar: &Bar, opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
    let event = Event::new(LogLevel::Warning, "refused", bar.to_string());
    let verdict = if matches!(bar, Bar::Unsaved(_)) { Verdict::Failed } else { Verdict::Full };
    (verdict, vec![event.of(&opening.profile, source).because(bar.name())])
}

/// The ports that lead to other hosts, as the firewall takes them.
pub(super) fn forwards(settings: &Settings) -> Vec<Forward> {
    let all = settings.forwards.iter();
    all.flat_map(|forward| forward.to.iter().map(|to| Forward { ports: forward.listen, to: *to })).collect()
}

impl Desk {
    /// The entry as the firewall takes it.
    pub(super) fn door(&self, entry: &Entry, uptime: Duration) -> Door {
        let leads = |forward: &&Forward| {
            entry.ports.contains(&forward.ports) && forward.to.is_ipv4() == entry.address.is_ipv4()
        };
        Door {
            address: entry.address,
            wide: entry.wide,
            ports: entry.ports,
            uses: entry.uses,
            session: entry.session,
            forwards: self.forwards.iter().filter(leads).copied().collect(),
            lifetime: entry.remaining(uptime).max(Duration::from_millis(1)),
            note: entry.profile.parse::<Note>().unwrap_or_default(),
        }
    }
}

/// `tcp/22 for 15s, one connection`; with the address where it is not the knock's source.
fn sentence(opening: &Opening, source: Option<IpAddr>, known: bool) -> String {
    let Opening { address, ports, uses, session, lifetime, .. } = opening;
    let whom = if source == Some(*address) { String::new() } else { format!(" to {address}") };
    let known = if known { " (open for longer already)" } else { "" };
    let holder = opening.holder.as_ref().map(|holder| format!(", certificate of {}", holder.subject));
    let (uses, session, holder) = (uses.phrase(), session.phrase(), holder.unwrap_or_default());
    format!("{}{whom} for {lifetime}, {uses}{session}{known}{holder}", list(ports))
}

pub(super) fn list(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
