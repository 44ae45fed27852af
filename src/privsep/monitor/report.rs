//! How things stand: the answer to `status`, made when the worker's pulse has arrived or is overdue.

use std::net::IpAddr;
use std::time::Duration;

use super::Monitor;
use super::guards::{Guard, Origin};
use super::sessions::Lock;
use super::upkeep::PULSE_PATIENCE;
use crate::clock;
use crate::control::{GrantStatus, GuardStatus, LockoutStatus, ProfileStatus, Reply, Status, Ticket};
use crate::grant::wide_prefix;
use crate::nft::{Door, LiveDoor};
use crate::privsep::counters;
use crate::privsep::message::Health;

/// A status that waits for the worker's pulse.
pub(super) struct Pending {
    ticket: Ticket,
    /// The ping's id.
    id: u64,
    until: Duration,
}

impl Monitor {
    /// Asks the worker how it is; the answer to the admin follows when it has said so.
    pub(super) fn ask_for_status(&mut self, ticket: Ticket) {
        self.pings += 1;
        let until =
            if self.crew.ping(self.pings) { clock::uptime() + PULSE_PATIENCE } else { Duration::ZERO };
        self.pending.push(Pending { ticket, id: self.pings, until });
    }

    pub(super) fn pulse_arrived(&mut self, id: u64) {
        for pending in self.pending.iter_mut().filter(|pending| pending.id == id) {
            pending.until = Duration::ZERO;
        }
    }

    /// Answers every status that need not wait any longer.
    pub(super) fn answer_pending(&mut self) {
        let uptime = clock::uptime();
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.until <= uptime);
        self.pending = waiting;
        for pending in due {
            let status = self.status(uptime);
            self.control.reply(pending.ticket, &Reply::Status(Box::new(status)));
        }
    }

    fn status(&mut self, uptime: Duration) -> Status {
        let mut degraded = self.troubles();
        let grants = match self.desk.read_kernel() {
            Ok(doors) => doors.iter().map(|live| self.grant(live)).collect(),
            Err(error) => {
                degraded.push(error.to_string());
                Vec::new()
            }
        };
        let counted = counters::names().into_iter().zip(self.crew.totals());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            monitor_pid: std::process::id(),
            worker_pid: self.crew.pid(),
            running_for: uptime.saturating_sub(self.started).as_secs(),
            configuration: self.generation,
            serving: self.crew.generation().unwrap_or(0),
            degraded,
            notes: self.notes(),
            capture: format!(
                "{}, UDP port {}",
                self.config.settings.capture.device, self.config.settings.capture.port
            ),
            firewall: self.desk.shield.describe().to_owned(),
            landlock: self.crew.ready().is_some_and(|ready| ready.landlock),
            profiles: self.profiles(),
            guards: self.desk.guards.all().iter().map(|guard| guard_status(guard, uptime)).collect(),
            grants,
            lockouts: self.desk.sessions.locks(uptime).iter().map(|lock| lockout(lock, uptime)).collect(),
            last_knocks: self.desk.sessions.over().map(str::to_owned).collect(),
            counters: counted.filter(|(_, number)| *number > 0).collect(),
        }
    }

    fn grant(&self, live: &LiveDoor) -> GrantStatus {
        grant(live, self.desk.subjects.get(live.door.note.as_str()).cloned())
    }

    fn profiles(&self) -> Vec<ProfileStatus> {
        let status = |profile: &crate::profile::Profile| ProfileStatus {
            name: profile.name.to_string(),
            enabled: profile.enabled,
            open: profile.open.clone(),
            duration: profile.duration,
            max_duration: profile.max_duration,
            connections: profile.connections,
            fingerprint: profile.fingerprint(),
            last_knock: self.desk.last_knocks.get(profile.name.as_str()).copied(),
        };
        let rules = self.config.certificates.rules.iter().map(|rule| &rule.profile);
        self.config.profiles.iter().chain(rules).map(status).collect()
    }

    /// Sentences about all that is not as it should be.
    fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.lost.iter().chain(&self.left_out).cloned().collect();
        if self.crew.pid().is_some() {
            troubles.extend(worker_troubles(self.desk.health).into_iter().map(str::to_owned));
        }
        troubles.extend(self.desk.broken.iter().map(|(text, _)| text.clone()));
        troubles.extend(self.desk.unsaved.iter().chain(&self.desk.sessions.damaged).cloned());
        troubles.extend(self.doors.trouble().cloned());
        troubles.extend(self.control.trouble());
        troubles
    }

    /// Sentences about what is worth knowing.
    fn notes(&self) -> Vec<String> {
        let ready = self.crew.ready();
        let healed = self.desk.healed;
        let notes = [
            (
                healed > 0,
                format!(
                    "another program changed the table {healed} {}, and it was made anew each time; the log says when",
                    plural(healed as usize, "time")
                ),
            ),
            (
                ready.is_some() && self.desk.health.clock_unsynchronised,
                format!("the clock is {CLOCK_IN_DOUBT}"),
            ),
            (
                ready.is_some_and(|ready| !ready.landlock),
                "this kernel has no Landlock: seccomp and the lack of capabilities hold the worker"
                    .to_owned(),
            ),
        ];
        notes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
    }
}

/// What it means that the wall clock is not believed, after "the clock is".
pub(super) const CLOCK_IN_DOUBT: &str = "not synchronised: the order of knocks is judged, not their age";

/// What the worker's health bits mean.
pub(super) fn worker_troubles(health: Health) -> Vec<&'static str> {
    let Health { runtime_unwritable, state_unwritable, quarantined, certificates_in_doubt, .. } = health;
    let troubles = [
        (
            runtime_unwritable,
            "the runtime directory cannot be written: after a restart knocks are refused for a while",
        ),
        (
            state_unwritable,
            "the state directory cannot be written: after a reboot knocks are refused for a while",
        ),
        (
            quarantined,
            "the replay state was lost: knocks are refused until old ones can no longer be replayed",
        ),
        (
            certificates_in_doubt,
            "a revocation list is missing, wrong or past its date: the log says which, and what that means",
        ),
    ];
    troubles.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
}

fn guard_status(guard: &Guard, uptime: Duration) -> GuardStatus {
    GuardStatus {
        ports: guard.ports,
        closed: guard.closed,
        from_file: guard.origin == Origin::File,
        unconfirmed_for: match guard.origin {
            Origin::Unconfirmed(until) => Some(until.saturating_sub(uptime).as_secs_f64()),
            Origin::File | Origin::Command => None,
        },
    }
}

fn lockout((address, lock): &(IpAddr, Lock), uptime: Duration) -> LockoutStatus {
    LockoutStatus {
        profile: lock.profile.clone(),
        address: *address,
        begins_in: lock.since.saturating_sub(uptime).as_secs_f64(),
        ends_in: lock.until.saturating_sub(uptime).as_secs_f64(),
    }
}

fn prefix(door: &Door) -> u8 {
    match (door.wide, door.address.is_ipv4()) {
        (true, _) => wide_prefix(door.address),
        (false, true) => 32,
        (false, false) => 128,
    }
}

fn grant(live: &LiveDoor, subject: Option<String>) -> GrantStatus {
    GrantStatus {
        profile: live.door.note.to_string(),
        subject,
        address: live.door.address,
        prefix: prefix(&live.door),
        ports: live.door.ports,
        connections: live.door.uses,
        session: live.door.session.flags(),
        expires_in: live.door.lifetime.as_secs_f64(),
        granted_for: live.granted.as_secs_f64(),
        packets: live.packets,
        bytes: live.bytes,
    }
}

/// `1 profile`, `2 profiles`.
pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}
