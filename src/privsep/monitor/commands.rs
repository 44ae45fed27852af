//! What admins command at the control socket: grant, revoke, guard, unguard; and what a reload changes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::desk::{Desk, forwards, list};
use super::guards::{Guard, Origin};
use super::report::plural;
use super::upkeep::moment;
use crate::clock;
use crate::config::{Configuration, LogLevel};
use crate::control::{Closing, Command, Reply, Revoked};
use crate::grant::{Action, Entry, Opening, Uses, rule_of};
use crate::log::{Event, GrantFacts};
use crate::nft::{Change, FirewallError, Guarded};
use crate::policy::disjoint;
use crate::privsep::message::Verdict;
use crate::profile::{Opens, Profile};
use crate::text::{PortRange, Span};

/// How many grants that a command ended are told one by one.
const MAX_TOLD: usize = 100;

/// How much later than its profile a grant may seem to end: both are counted in whole seconds.
const SLACK: Duration = Duration::from_secs(1);

/// A command's answer and what the log says about it.
type Outcome = (Reply, Vec<Event>);

fn refused(text: impl Into<String>) -> Outcome {
    (Reply::Refused(vec![text.into()]), Vec::new())
}

impl Desk {
    /// Carries out a command that changes the firewall.
    pub(super) fn command(&mut self, config: &Configuration, command: Command) -> Outcome {
        match command {
            Command::Grant { profile, address, open, duration, connections } => {
                let Some(found) = config.profiles.iter().find(|known| known.name.as_str() == profile) else {
                    return refused(format!(
                        "there is no profile {profile:?}; `knockd-rs profile list` shows them"
                    ));
                };
                match ports_of(config, found, &open) {
                    Ok(ports) => {
                        let opening = Opening {
                            profile,
                            holder: None,
                            max_grants: u16::try_from(found.max_grants).unwrap_or(u16::MAX),
                            action: Action::Open,
                            address,
                            wide: false,
                            ports,
                            uses: connections.unwrap_or(found.connections),
                            session: found.session.of_connections(),
                            lockout: found.lockout,
                            lifetime: duration.unwrap_or(found.duration),
                            expires: found.expires,
                        };
                        self.grant(&opening)
                    }
                    Err(text) => refused(text),
                }
            }
            Command::Revoke { what } => self.revoke(&what),
            Command::Allow { what } => self.allow(&what),
            Command::Guard { ports, closed, confirm } => self.guard(config, &ports, closed, confirm),
            Command::Unguard { ports } => self.unguard(&ports),
            Command::Status {} | Command::Reload {} | Command::Remove { .. } | Command::Events { .. } => {
                refused("not a command for the firewall")
            }
        }
    }

    fn grant(&mut self, opening: &Opening) -> Outcome {
        if opening.lifetime == Span::from_secs(0) {
            return refused("a grant of 0s opens nothing; use 1s or longer");
        }
        let (verdict, events) = self.open_doors(opening, None);
        let lines = events.iter().map(|event| event.text.clone()).collect();
        let reply = if verdict == Verdict::Done { Reply::Done(lines) } else { Reply::Refused(lines) };
        (reply, events)
    }

    fn revoke(&mut self, what: &Revoked) -> Outcome {
        if let Err(error) = self.read_kernel() {
            return refused(error.to_string());
        }
        let ended = self.ledger.select(|entry| means(what, entry));
        match self.end(&ended).and_then(|()| self.cut(|entry| means(what, entry))) {
            Ok(0) if ended.is_empty() => {
                (Reply::Done(vec!["no grant is live there; nothing to revoke".into()]), Vec::new())
            }
            Ok(_) if ended.is_empty() => {
                let text = "connections of grants that were used up are cut".to_owned();
                let event = Event::new(LogLevel::Info, "revoked", text.clone());
                (Reply::Done(vec![text]), vec![event])
            }
            Ok(_) => {
                let shown = ended.get(..MAX_TOLD).unwrap_or(&ended);
                let mut lines: Vec<String> = shown.iter().map(revoked).collect();
                let mut events: Vec<Event> = shown.iter().map(revocation).collect();
                if ended.len() > shown.len() {
                    let more = format!("and {} more grants", ended.len() - shown.len());
                    events.push(Event::new(LogLevel::Info, "revoked", more.clone()));
                    lines.push(more);
                }
                (Reply::Done(lines), events)
            }
            Err(error) => refused(error.to_string()),
        }
    }

    /// Lets clients knock again, and addresses in, that an earlier grant bars.
    fn allow(&mut self, what: &Revoked) -> Outcome {
        let uptime = clock::uptime();
        let (clients, addresses) = self.sessions.concerned(what, uptime);
        let changes: Vec<Change> = addresses.iter().map(|address| Change::Readmit(*address)).collect();
        if let Err(error) = self.shield.firewall().apply(&changes) {
            return refused(error.to_string());
        }
        let damaged = self.sessions.damaged.is_some();
        if let Err(error) = self.sessions.allow(&clients, &addresses, *what == Revoked::All) {
            return refused(format!(
                "that cannot be written down, and would be forgotten at a restart: {error}"
            ));
        }
        let again = clients.iter().map(|client| (client.as_str(), format!("{client} may knock again")));
        let again = again
            .chain(addresses.iter().map(|address| ("", format!("{address} is not locked out any more"))));
        let again: Vec<(&str, String)> = again.collect();
        let mut lines: Vec<String> = again.iter().map(|(_, line)| line.clone()).collect();
        if lines.is_empty() {
            let line = if damaged && *what == Revoked::All {
                "the book of last knocks is written anew"
            } else {
                "nobody is barred there; nothing to allow"
            };
            lines.push(line.to_owned());
        }
        let event = |(client, text): &(&str, String)| {
            let event = Event::new(LogLevel::Info, "allowed", text.clone());
            if client.is_empty() { event } else { event.of(client, None) }
        };
        let events = again.iter().map(event).collect();
        (Reply::Done(lines), events)
    }

    fn guard(
        &mut self,
        config: &Configuration,
        ports: &[PortRange],
        closed: Closing,
        confirm: Option<Span>,
    ) -> Outcome {
        if !self.shield.can_guard() {
            return refused("in firewall.mode \"sets\" your own rules close the ports; guard them there");
        }
        if confirm == Some(Span::from_secs(0)) {
            return refused("0s leaves no time to confirm; use --confirm 2m");
        }
        let uptime = clock::uptime();
        let wanted = disjoint(ports.iter().copied());
        for ports in &wanted {
            if let Some(other) =
                self.guards.on(*ports).filter(|other| other.ports != *ports || other.origin == Origin::File)
            {
                let how = if other.origin == Origin::File { " by knockd-rs.toml" } else { "" };
                return refused(format!("{ports} is guarded already{how}, as {}", other.ports));
            }
        }
        let for_good =
            |ports: &&PortRange| self.guards.on(**ports).is_some_and(|other| other.origin == Origin::Command);
        if let Some(ports) = wanted.iter().find(for_good).filter(|_| confirm.is_some()) {
            return refused(format!(
                "{ports} is guarded for good already; unguard it first to try it out anew"
            ));
        }
        let origin = confirm.map_or(Origin::Command, |time| Origin::Unconfirmed(uptime + time.duration()));
        let changes: Vec<Change> = wanted
            .iter()
            .map(|ports| {
                let lifetime = confirm.map(Span::duration);
                Change::Guard(Guarded { ports: *ports, closed: super::guards::closed(closed), lifetime })
            })
            .collect();
        if let Err(error) = self.shield.firewall().apply(&changes) {
            return refused(error.to_string());
        }
        wanted.iter().for_each(|ports| self.guards.note(Guard { ports: *ports, closed, origin }));
        let mut lines = Vec::new();
        let mut events = vec![Event::new(LogLevel::Info, "guarded", guarded(&wanted, confirm))];
        lines.push(guarded(&wanted, confirm));
        if let Some(event) = self.save_guards() {
            lines.push(event.text.clone());
            events.push(event);
        }
        lines.extend(wanted.iter().filter_map(|ports| nobody_opens(config, *ports)));
        (Reply::Done(lines), events)
    }

    fn unguard(&mut self, ports: &[PortRange]) -> Outcome {
        for ports in ports {
            match self.guards.on(*ports) {
                Some(guard) if guard.ports != *ports => {
                    return refused(format!("{ports} is guarded as {}; name exactly that", guard.ports));
                }
                Some(guard) if guard.origin == Origin::File => {
                    return refused(format!(
                        "{ports} is guarded by knockd-rs.toml; remove it there, then `knockd-rs reload`"
                    ));
                }
                Some(_) => {}
                None => return refused(format!("{ports} is not guarded; `knockd-rs status` shows what is")),
            }
        }
        let changes: Vec<Change> = ports.iter().map(|ports| Change::Unguard(*ports)).collect();
        if let Err(error) = self.shield.firewall().apply(&changes) {
            return refused(error.to_string());
        }
        ports.iter().for_each(|ports| self.guards.forget(*ports));
        let text = format!("{} is open to everybody again", list(ports));
        let mut events = vec![Event::new(LogLevel::Info, "unguarded", text.clone())];
        let mut lines = vec![text];
        if let Some(event) = self.save_guards() {
            lines.push(event.text.clone());
            events.push(event);
        }
        (Reply::Done(lines), events)
    }

    /// Takes over a new configuration: guards, trusted networks, and the end of grants whose profile is gone.
    ///
    /// # Errors
    /// Why guards or trusted networks cannot be changed; both are as they were then.
    pub(super) fn reconfigure(
        &mut self,
        old: &Configuration,
        new: &Configuration,
    ) -> Result<Vec<Event>, FirewallError> {
        let uptime = clock::uptime();
        let (before, book) = (self.guards.wanted(uptime), self.guards.all().to_vec());
        self.guards.follow(&new.settings);
        let after = self.guards.wanted(uptime);
        let mut changed = self.shield.firewall().apply(&difference(&before, &after));
        let table =
            |of: &Configuration| (of.settings.firewall.mode.clone(), of.settings.guard.behind.clone());
        if changed.is_ok() && table(old) != table(new) {
            changed = self.shield.reconfigure(&new.settings);
            if changed.is_err() {
                self.shield.firewall().apply(&difference(&after, &before))?;
            }
        }
        if let Err(error) = changed {
            self.guards.restore(book);
            return Err(error);
        }
        self.total = new.settings.limits.grants as usize;
        self.forwards = forwards(&new.settings);
        let mut events = self.end_unknown(new, &[]);
        events.extend(self.save_guards());
        Ok(events)
    }

    /// Ends the grants of profiles that are gone, disabled or over, and those that would outlast their profile. `spared`
    /// are there and could not be read.
    pub(super) fn end_unknown(&mut self, config: &Configuration, spared: &[String]) -> Vec<Event> {
        let (at, uptime) = (moment(), clock::uptime());
        let left = |profile: &Profile| {
            let left = profile.expires.map(|expires| expires.as_secs().saturating_sub(at.as_secs()));
            (profile.name.to_string(), left.map_or(Duration::MAX, Duration::from_secs))
        };
        let enabled = |profile: &&Profile| profile.enabled;
        let profiles: HashMap<String, Duration> = config.profiles.iter().filter(enabled).map(left).collect();
        let rules = config.certificates.rules.iter().map(|rule| &rule.profile).filter(enabled);
        let rules: HashSet<&str> = rules.map(|profile| profile.name.as_str()).collect();
        let may_stay = |entry: &Entry| {
            let name = &entry.profile;
            profiles.get(name).is_some_and(|left| entry.remaining(uptime) <= left.saturating_add(SLACK))
                || rule_of(name).is_some_and(|(rule, _)| rules.contains(rule))
                || spared.iter().any(|spared| spared == name)
        };
        self.end_all(|entry| !entry.profile.is_empty() && !may_stay(entry))
    }

    /// Ends the grants of a profile.
    pub(super) fn end_profile(&mut self, name: &str) -> Vec<Event> {
        self.end_all(|entry| entry.profile == name)
    }

    fn end_all(&mut self, chosen: impl Fn(&Entry) -> bool) -> Vec<Event> {
        let ended = self.ledger.select(&chosen);
        match self.end(&ended).and_then(|()| self.cut(&chosen)) {
            Ok(_) => ended.iter().map(revocation).collect(),
            Err(error) => vec![Event::new(LogLevel::Error, "failed", error.to_string())],
        }
    }
}

/// What a change from one list of guards to another means to the kernel: first what goes, then what comes.
fn difference(before: &[Guarded], after: &[Guarded]) -> Vec<Change> {
    let same =
        |a: &Guarded, b: &Guarded| a.ports == b.ports && a.closed == b.closed && a.lifetime == b.lifetime;
    let gone = before.iter().filter(|old| !after.iter().any(|new| new.ports == old.ports));
    let come = after.iter().filter(|new| !before.iter().any(|old| same(old, new)));
    gone.map(|old| Change::Unguard(old.ports)).chain(come.map(|new| Change::Guard(new.clone()))).collect()
}

/// The ports that an admin's `grant` names, for people who write services too.
fn ports_of(config: &Configuration, profile: &Profile, open: &[String]) -> Result<Vec<PortRange>, String> {
    if open.is_empty() {
        return Ok(profile.open.clone());
    }
    let mut ports = Vec::new();
    for text in open {
        match text.parse::<Opens>()? {
            Opens::Ports(range) => ports.push(range),
            Opens::Service(name) => ports.extend(
                config
                    .settings
                    .services
                    .get(&name)
                    .ok_or_else(|| format!("there is no service {name}; [services] names them"))?,
            ),
        }
    }
    Ok(disjoint(ports))
}

fn guarded(ports: &[PortRange], confirm: Option<Span>) -> String {
    let ports = list(ports);
    match confirm {
        None => format!("{ports} is closed to strangers"),
        Some(time) => format!(
            "{ports} is closed to strangers for {time}, and stays closed if a knock from outside opens it by then; \
             otherwise the kernel opens it to everybody again"
        ),
    }
}

/// Whether this grant's profile is gone or disabled.
pub(super) fn is_orphan(config: &Configuration, entry: &Entry) -> bool {
    let name = entry.profile.as_str();
    let mut rules = config.certificates.rules.iter().map(|rule| &rule.profile);
    let rule = rule_of(name).map(|(rule, _)| rule);
    let is_known = config.profiles.iter().any(|profile| profile.enabled && profile.name.as_str() == name)
        || rules.any(|profile| profile.enabled && rule == Some(profile.name.as_str()));
    !name.is_empty() && !is_known
}

/// Whether a revocation is meant for this grant.
pub(super) fn means(what: &Revoked, entry: &Entry) -> bool {
    match what {
        Revoked::All => true,
        // The name of a table of certificates means all of them.
        Revoked::Profile(name) => {
            entry.profile == *name || rule_of(&entry.profile).is_some_and(|(rule, _)| rule == name)
        }
        Revoked::Address(address) => entry.is_for(*address),
    }
}

fn revocation(entry: &Entry) -> Event {
    let event = Event::new(LogLevel::Info, "revoked", revoked(entry)).of(&entry.profile, None);
    event.about(GrantFacts::ended(entry))
}

fn revoked(entry: &Entry) -> String {
    let Entry { address, ports, uses, session, .. } = entry;
    let uses = if *uses == Uses::Many { String::new() } else { format!(", {}", uses.phrase()) };
    let then = if session.ends { "are cut" } else { "go on" };
    format!("{ports} for {address}{uses}; connections that are established {then}")
}

/// A warning for the admin who is about to lock himself out.
fn nobody_opens(config: &Configuration, ports: PortRange) -> Option<String> {
    let opens = |profile: &&Profile| {
        profile.enabled && profile.open.iter().any(|open| open.intersection(&ports).is_some())
    };
    let count = config.profiles.iter().filter(opens).count();
    (count == 0).then(|| {
        format!(
            "warning: no enabled profile may open {ports}, so nobody can get in; `knockd-rs profile add NAME --open \
             {ports}` makes one ({} {} known)",
            config.profiles.len(),
            plural(config.profiles.len(), "profile")
        )
    })
}
