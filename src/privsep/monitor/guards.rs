//! The book of guarded ports: those of the configuration file, and those that `knockd-rs guard` added, which are
//! kept in the state directory as `guards.json`. A guard that waits for its confirmation is in the kernel alone:
//! its element's timeout is the whole of commit-confirm, and needs no daemon to run out.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::control::Closing;
use crate::files::{self, Existing, Private};
use crate::nft::{Closed, Guarded};
use crate::text::PortRange;

const FILE: &str = "guards.json";

/// One guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) ports: PortRange,
    pub(super) closed: Closing,
    pub(super) origin: Origin,
}

/// Who wants a port guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration file.
    File,
    /// `knockd-rs guard`, confirmed or without condition.
    Command,
    /// `knockd-rs guard --confirm`, until then (`CLOCK_BOOTTIME`).
    Unconfirmed(Duration),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    guards: Vec<SavedGuard>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedGuard {
    ports: PortRange,
    closed: Closing,
}

/// All guards.
#[derive(Debug)]
pub(super) struct GuardBook {
    path: PathBuf,
    guards: Vec<Guard>,
}

impl GuardBook {
    /// Reads what was saved and adds what the file says. With a book that cannot be read comes the reason: the caller
    /// then keeps whatever the kernel guards, because to forget a guard would open a port that an admin closed.
    pub(super) fn open(state_dir: &Path, settings: &Settings) -> (Self, Option<String>) {
        let path = state_dir.join(FILE);
        let (saved, damage) = match read(&path) {
            Ok(saved) => (saved, None),
            Err(error) => (Saved { guards: Vec::new() }, Some(damaged(&path, &error))),
        };
        let guards = saved
            .guards
            .into_iter()
            .map(|SavedGuard { ports, closed }| Guard { ports, closed, origin: Origin::Command })
            .collect();
        let mut book = Self { path, guards };
        book.follow(settings);
        (book, damage)
    }

    /// Takes over what the configuration file says now. Where a command guards the same ports, the file wins.
    pub(super) fn follow(&mut self, settings: &Settings) {
        self.guards.retain(|guard| guard.origin != Origin::File);
        let drop = settings.guard.drop.iter().map(|ports| (*ports, Closing::Drop));
        let reject = settings.guard.reject.iter().map(|ports| (*ports, Closing::Reject));
        for (ports, closed) in drop.chain(reject) {
            self.guards.retain(|guard| guard.ports.intersection(&ports).is_none());
            self.guards.push(Guard { ports, closed, origin: Origin::File });
        }
    }

    /// Goes back to what was before a reload that failed.
    pub(super) fn restore(&mut self, guards: Vec<Guard>) {
        self.guards = guards;
    }

    pub(super) fn all(&self) -> &[Guard] {
        &self.guards
    }

    /// What the kernel is to hold at `uptime`.
    pub(super) fn wanted(&self, uptime: Duration) -> Vec<Guarded> {
        let lifetime = |guard: &Guard| match guard.origin {
            Origin::File | Origin::Command => Some(None),
            Origin::Unconfirmed(until) => (until > uptime).then(|| Some(until - uptime)),
        };
        let guarded = |guard: &Guard| {
            Some(Guarded { ports: guard.ports, closed: closed(guard.closed), lifetime: lifetime(guard)? })
        };
        self.guards.iter().filter_map(guarded).collect()
    }

    /// Forgets guards that were not confirmed in time; returns them.
    pub(super) fn expire(&mut self, uptime: Duration) -> Vec<Guard> {
        let over = |guard: &Guard| matches!(guard.origin, Origin::Unconfirmed(until) if until <= uptime);
        let (gone, kept) = std::mem::take(&mut self.guards).into_iter().partition(over);
        self.guards = kept;
        gone
    }

    /// When the next guard ends unless it is confirmed by then.
    pub(super) fn next_end(&self) -> Option<Duration> {
        let end = |guard: &Guard| match guard.origin {
            Origin::Unconfirmed(until) => Some(until),
            Origin::File | Origin::Command => None,
        };
        self.guards.iter().filter_map(end).min()
    }

    /// The guard on any of these ports.
    pub(super) fn on(&self, ports: PortRange) -> Option<&Guard> {
        self.guards.iter().find(|guard| guard.ports.intersection(&ports).is_some())
    }

    /// Notes a guard, in place of one on the same ports.
    pub(super) fn note(&mut self, guard: Guard) {
        self.forget(guard.ports);
        self.guards.push(guard);
    }

    pub(super) fn forget(&mut self, ports: PortRange) {
        self.guards.retain(|guard| guard.ports != ports);
    }

    /// The unconfirmed guards on any of these ports.
    pub(super) fn awaiting(&self, ports: &[PortRange]) -> Vec<Guard> {
        let concerns = |guard: &&Guard| ports.iter().any(|range| range.intersection(&guard.ports).is_some());
        let unconfirmed = |guard: &&Guard| matches!(guard.origin, Origin::Unconfirmed(_));
        self.guards.iter().filter(unconfirmed).filter(concerns).cloned().collect()
    }

    /// Writes down what commands have guarded for good.
    pub(super) fn save(&self) -> Result<(), files::FileError> {
        let guards = self
            .guards
            .iter()
            .filter(|guard| guard.origin == Origin::Command)
            .map(|Guard { ports, closed, .. }| SavedGuard { ports: *ports, closed: *closed })
            .collect();
        let json = serde_json::to_vec_pretty(&Saved { guards }).unwrap_or_default();
        files::write(&self.path, &json, Private { existing: Existing::Replace, ..Private::NEW })
    }
}

/// No book is larger: a thousand guards take 50 KB.
const MAX_LEN: u64 = 1024 * 1024;

fn read(path: &Path) -> io::Result<Saved> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved { guards: Vec::new() }),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// For the fuzzer: what is read of this book, or of the other one, is what would be written.
#[cfg(feature = "fuzzing")]
pub(in crate::privsep) fn check(bytes: &[u8]) {
    super::sessions::check(bytes);
    let print = |saved: &Saved| serde_json::to_vec(saved).unwrap_or_default();
    if let Ok(saved) = serde_json::from_slice::<Saved>(bytes) {
        let again = serde_json::from_slice::<Saved>(&print(&saved));
        assert!(again.is_ok_and(|again| print(&again) == print(&saved)));
    }
}

fn damaged(path: &Path, error: &io::Error) -> String {
    format!(
        "{}: {error}; the ports that were guarded before are guarded on, where the kernel still knows them. Guard all \
         that should be with `knockd-rs guard`: that writes the file anew",
        path.display()
    )
}

pub(super) fn closed(closing: Closing) -> Closed {
    match closing {
        Closing::Drop => Closed::Drop,
        Closing::Reject => Closed::Reject,
    }
}

pub(super) fn closing(closed: Closed) -> Closing {
    match closed {
        Closed::Drop => Closing::Drop,
        Closed::Reject => Closing::Reject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> PortRange {
        text.parse().unwrap()
    }

    fn settings(drop: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.guard.drop = drop.iter().map(|text| ports(text)).collect();
        settings
    }

    #[test]
    fn what_a_command_guarded_is_guarded_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut book, _) = GuardBook::open(dir.path(), &settings(&["tcp/80"]));
        book.note(Guard { ports: ports("tcp/22"), closed: Closing::Reject, origin: Origin::Command });
        let unconfirmed = Origin::Unconfirmed(Duration::from_secs(9));
        book.note(Guard { ports: ports("tcp/23"), closed: Closing::Drop, origin: unconfirmed });
        book.save().unwrap();
        let (again, _) = GuardBook::open(dir.path(), &settings(&[]));
        assert_eq!(
            again.wanted(Duration::ZERO),
            [Guarded { ports: ports("tcp/22"), closed: Closed::Reject, lifetime: None }]
        );
    }

    #[test]
    fn a_damaged_book_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"guards\":[{\"ports\":\"tcp/0\",\"closed\":\"drop\"}]}")
            .unwrap();
        let (book, damage) = GuardBook::open(dir.path(), &settings(&["tcp/80"]));
        assert!(damage.unwrap().contains("guards.json"));
        assert_eq!(book.all().len(), 1, "what the configuration file guards is guarded");
    }

    #[test]
    fn an_unconfirmed_guard_is_wanted_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (mut book, _) = GuardBook::open(dir.path(), &settings(&[]));
        let until = Duration::from_secs(100);
        book.note(Guard {
            ports: ports("tcp/22"),
            closed: Closing::Drop,
            origin: Origin::Unconfirmed(until),
        });
        assert_eq!(book.wanted(Duration::from_secs(70))[0].lifetime, Some(Duration::from_secs(30)));
        assert_eq!(book.awaiting(&[ports("tcp/20-30")]).len(), 1);
        assert_eq!(book.awaiting(&[ports("udp/20-30")]).len(), 0);
        assert_eq!(book.next_end(), Some(until));
        assert_eq!(book.expire(until).len(), 1);
        assert_eq!(book.next_end(), None);
        assert_eq!(book.wanted(until), []);
    }

    #[test]
    fn the_file_wins_over_a_command_for_the_same_port() {
        let dir = tempfile::tempdir().unwrap();
        let (mut book, _) = GuardBook::open(dir.path(), &settings(&[]));
        book.note(Guard { ports: ports("tcp/22"), closed: Closing::Reject, origin: Origin::Command });
        book.follow(&settings(&["tcp/20-30"]));
        assert_eq!(book.all().len(), 1);
        assert_eq!(book.all()[0].ports, ports("tcp/20-30"));
    }
}
