//! What a grant means for its client afterwards: addresses that are locked out, and clients whose last knock it was.
//!
//! Lock-outs are elements of the kernel's sets, which begin and end them; they are read back at a start. The clients
//! that have knocked for the last time are in `last-knocks.json` in the state directory, on the disk before the
//! firewall is touched.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::Revoked;
use crate::files::{self, Existing, Private};
use crate::grant::{Entry, rule_of};
use crate::nft::LockOut;
use crate::text::Span;

const FILE: &str = "last-knocks.json";
/// No file is larger: 65,536 names.
const MAX_LEN: u64 = 4 * 1024 * 1024;

/// When an address is locked out, on the clock that counts from boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    /// On whose account.
    pub(super) profile: String,
    /// From then on.
    pub(super) since: Duration,
    /// Until then.
    pub(super) until: Duration,
}

impl Lock {
    /// The same as the kernel takes it.
    pub(super) fn change(&self, address: IpAddr, uptime: Duration) -> LockOut {
        LockOut {
            address,
            after: self.since.saturating_sub(uptime),
            until: self.until.saturating_sub(uptime),
            note: self.profile.parse().unwrap_or_default(),
        }
    }
}

/// Why an earlier grant keeps a client or an address from another.
#[derive(Debug)]
pub(super) enum Bar {
    /// The address is locked out.
    LockedOut {
        /// Which.
        address: IpAddr,
        /// On whose account.
        profile: String,
        /// For how long.
        left: Span,
    },
    /// The client has knocked for the last time.
    LastKnock {
        /// Its name.
        profile: String,
    },
    /// This would be the last knock, and that cannot be written down.
    Unsaved(files::FileError),
}

impl Bar {
    /// That of a lock-out.
    pub(super) fn of(address: IpAddr, lock: &Lock, uptime: Duration) -> Self {
        let left = lock.until.saturating_sub(uptime).as_secs() + 1;
        let left = Span::from_secs(u32::try_from(left).unwrap_or(u32::MAX));
        Self::LockedOut { address, profile: lock.profile.clone(), left }
    }

    /// A short, fixed name for machines.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::LockedOut { .. } => "locked-out",
            Self::LastKnock { .. } => "last-knock",
            Self::Unsaved(_) => "unsaved",
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockedOut { address, profile, left } => write!(
                f,
                "{address} is locked out for another {left}, after a grant of {profile}; `knockd-rs allow {address}` ends \
                 that"
            ),
            Self::LastKnock { profile } => write!(
                f,
                "its last knock was to be the last one; `knockd-rs allow {profile}` lets it knock again"
            ),
            Self::Unsaved(error) => write!(
                f,
                "this is to be its last knock, and that cannot be written down: {error}; make room there, or let it knock \
                 without"
            ),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    clients: BTreeSet<String>,
    /// Whether a file before this one could not be read, so that there may be more.
    #[serde(default)]
    incomplete: bool,
}

/// Both books.
pub(super) struct Sessions {
    path: PathBuf,
    last: BTreeSet<String>,
    /// Why `last` may not be all of them.
    pub(super) damaged: Option<String>,
    locks: HashMap<IpAddr, Lock>,
    /// How many locks make it worth looking for those that have ended.
    crowd: usize,
}

impl Sessions {
    /// Reads what was saved; and takes over the lock-outs that the kernel has.
    pub(super) fn open(state_dir: &Path, locked: Vec<LockOut>, uptime: Duration) -> Self {
        let path = state_dir.join(FILE);
        let (last, damaged) = match read(&path) {
            Ok(Saved { clients, incomplete: false }) => (clients, None),
            Ok(Saved { clients, .. }) => {
                (clients, Some(told(&path, &io::Error::other("the file before it was damaged"))))
            }
            Err(error) => (BTreeSet::new(), Some(told(&path, &error))),
        };
        let lock = |found: LockOut| {
            let (since, until) = (uptime + found.after, uptime + found.until);
            (found.address, Lock { profile: found.note.to_string(), since, until })
        };
        let locks = locked.into_iter().map(lock).collect();
        Self { path, last, damaged, locks, crowd: 1024 }
    }

    /// Whether this client has knocked for the last time. `insists`: its profile makes every knock the last one, so that
    /// a book which cannot be read is taken to hold it.
    pub(super) fn is_over(&self, profile: &str, insists: bool) -> bool {
        self.last.contains(profile) || (insists && self.damaged.is_some())
    }

    /// The clients that have.
    pub(super) fn over(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    /// Writes down that this knock is the client's last one.
    ///
    /// # Errors
    /// Whatever the disk says; the client may knock again then.
    pub(super) fn end(&mut self, profile: &str) -> Result<(), files::FileError> {
        if !self.last.insert(profile.to_owned()) {
            return Ok(());
        }
        self.save().inspect_err(|_| {
            self.last.remove(profile);
        })
    }

    /// Takes that back, of a knock that opened nothing.
    pub(super) fn resume(&mut self, profile: &str) {
        if self.last.remove(profile) {
            // What the disk keeps is the safe side: `allow` takes it back.
            let _ = self.save();
        }
    }

    /// The lock-out of an address that is in force at `uptime`.
    pub(super) fn lock_of(&self, address: IpAddr, uptime: Duration) -> Option<&Lock> {
        self.locks.get(&address).filter(|lock| lock.since <= uptime && uptime < lock.until)
    }

    /// The lock-out that is to follow a grant, or one that is to follow another and lasts longer.
    pub(super) fn following(&self, profile: &str, address: IpAddr, end: Duration, lockout: Duration) -> Lock {
        let mut lock = Lock { profile: profile.to_owned(), since: end, until: end.saturating_add(lockout) };
        if let Some(before) = self.locks.get(&address) {
            lock.since = lock.since.max(before.since);
            lock.until = lock.until.max(before.until);
        }
        lock
    }

    /// The lock-outs on account of these grants, begun now: they have ended before their time.
    pub(super) fn begun(&self, ended: &[Entry], uptime: Duration) -> Vec<(IpAddr, Lock)> {
        let whose: BTreeSet<(IpAddr, &str)> =
            ended.iter().map(|entry| (entry.address, entry.profile.as_str())).collect();
        let early = |(address, profile): &(IpAddr, &str)| {
            let is_its = |lock: &&Lock| lock.since > uptime && lock.profile == *profile;
            let lock = self.locks.get(address).filter(is_its)?;
            let until = uptime + lock.until.saturating_sub(lock.since);
            Some((*address, Lock { since: uptime, until, ..lock.clone() }))
        };
        whose.iter().filter_map(early).collect()
    }

    /// Notes a lock-out that the kernel has.
    pub(super) fn note(&mut self, address: IpAddr, lock: Lock, uptime: Duration) {
        self.locks.insert(address, lock);
        if self.locks.len() > self.crowd {
            self.locks.retain(|_, lock| lock.until > uptime);
            self.crowd = 1024.max(2 * self.locks.len());
        }
    }

    /// Whether there is room for one more among so many.
    pub(super) fn has_room(&self, address: IpAddr, total: usize, uptime: Duration) -> bool {
        self.locks.contains_key(&address)
            || self.locks.len() < total
            || self.locks.values().filter(|lock| lock.until > uptime).count() < total
    }

    /// All that are or will be in force.
    pub(super) fn locks(&self, uptime: Duration) -> Vec<(IpAddr, Lock)> {
        let live = self.locks.iter().filter(|(_, lock)| lock.until > uptime);
        let mut live: Vec<_> = live.map(|(address, lock)| (*address, lock.clone())).collect();
        live.sort_by_key(|(address, _)| *address);
        live
    }

    /// Whom an `allow` concerns: clients that may knock again, and addresses that are let in again.
    pub(super) fn concerned(&self, what: &Revoked, uptime: Duration) -> (Vec<String>, Vec<IpAddr>) {
        let named = |label: &str| match what {
            Revoked::All => true,
            // The name of a table of certificates means all of them.
            Revoked::Profile(name) => label == name || rule_of(label).is_some_and(|(rule, _)| rule == name),
            Revoked::Address(_) => false,
        };
        let addresses = self.locks(uptime).into_iter().filter(|(address, lock)| {
            named(&lock.profile) || matches!(what, Revoked::Address(wanted) if wanted == address)
        });
        let clients = self.last.iter().filter(|label| named(label)).cloned();
        (clients.collect(), addresses.map(|(address, _)| address).collect())
    }

    /// Lets clients knock again, and addresses in, that the kernel does not refuse any more.
    ///
    /// # Errors
    /// Whatever the disk says; after a restart the clients could not knock.
    pub(super) fn allow(
        &mut self,
        clients: &[String],
        addresses: &[IpAddr],
        all: bool,
    ) -> Result<(), files::FileError> {
        addresses.iter().for_each(|address| {
            self.locks.remove(address);
        });
        clients.iter().for_each(|client| {
            self.last.remove(client);
        });
        if clients.is_empty() && !(all && self.damaged.is_some()) {
            return Ok(());
        }
        let damaged = self.damaged.take().filter(|_| !all);
        self.damaged.clone_from(&damaged);
        self.save()
    }

    fn save(&mut self) -> Result<(), files::FileError> {
        let saved = Saved { clients: self.last.clone(), incomplete: self.damaged.is_some() };
        let json = serde_json::to_vec_pretty(&saved).unwrap_or_default();
        files::write(&self.path, &json, Private { existing: Existing::Replace, ..Private::NEW })
    }
}

fn read(path: &Path) -> io::Result<Saved> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Saved { clients: BTreeSet::new(), incomplete: false });
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// For the fuzzer: what is read is what would be written.
#[cfg(feature = "fuzzing")]
pub(super) fn check(bytes: &[u8]) {
    let print = |saved: &Saved| serde_json::to_vec(saved).unwrap_or_default();
    if let Ok(saved) = serde_json::from_slice::<Saved>(bytes) {
        let again = serde_json::from_slice::<Saved>(&print(&saved));
        assert!(again.is_ok_and(|again| print(&again) == print(&saved)));
    }
}

fn told(path: &Path, error: &io::Error) -> String {
    format!(
        "{}: {error}; which clients have knocked for the last time is not known, so those whose profile says \
         \"last-knock\" are refused: `knockd-rs allow all` lets them knock and writes the file anew",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn home() -> IpAddr {
        [192, 0, 2, 7].into()
    }

    fn open(dir: &Path) -> Sessions {
        Sessions::open(dir, Vec::new(), at(0))
    }

    #[test]
    fn a_last_knock_is_remembered_after_a_restart_until_it_is_allowed_again() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).end("laptop").unwrap();
        let mut sessions = open(dir.path());
        assert!(sessions.is_over("laptop", false) && !sessions.is_over("phone", true));
        let (clients, addresses) = sessions.concerned(&Revoked::Profile("laptop".into()), at(1));
        sessions.allow(&clients, &addresses, false).unwrap();
        assert!(!open(dir.path()).is_over("laptop", true));
    }

    #[test]
    fn a_damaged_book_refuses_those_alone_whose_profile_insists() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let mut sessions = open(dir.path());
        assert!(sessions.is_over("laptop", true) && !sessions.is_over("laptop", false));
        // Not made whole by what others do.
        sessions.end("phone").unwrap();
        assert!(open(dir.path()).is_over("laptop", true));
        sessions.allow(&[], &[], true).unwrap();
        assert!(!open(dir.path()).is_over("laptop", true));
    }

    #[test]
    fn where_it_cannot_be_written_down_the_knock_is_not_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut sessions = open(&dir.path().join("gone"));
        assert!(sessions.end("laptop").is_err());
        assert!(!sessions.is_over("laptop", false));
    }

    #[test]
    fn a_lock_out_begins_when_the_grant_ends_and_a_longer_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut sessions = open(dir.path());
        let lock = sessions.following("laptop", home(), at(15), at(60));
        sessions.note(home(), lock, at(0));
        assert_eq!(sessions.lock_of(home(), at(14)), None);
        assert_eq!(sessions.lock_of(home(), at(15)).map(|lock| lock.until), Some(at(75)));
        assert_eq!(sessions.lock_of(home(), at(75)), None);
        let shorter = sessions.following("phone", home(), at(10), at(5));
        assert_eq!((shorter.since, shorter.until), (at(15), at(75)));
    }

    #[test]
    fn a_grant_that_ends_early_is_followed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut sessions = open(dir.path());
        let lock = sessions.following("laptop", home(), at(15), at(60));
        sessions.note(home(), lock, at(0));
        let session = crate::grant::Session::default();
        let (ports, uses) = ("tcp/22".parse().unwrap(), crate::grant::Uses::Many);
        let mut entry = Entry {
            profile: "phone".into(),
            address: home(),
            wide: false,
            ports,
            uses,
            session,
            deadline: at(15),
        };
        assert_eq!(sessions.begun(std::slice::from_ref(&entry), at(5)), [], "another's grant");
        entry.profile = "laptop".into();
        let begun = sessions.begun(&[entry], at(5));
        assert_eq!(
            begun.iter().map(|(_, lock)| (lock.since, lock.until)).collect::<Vec<_>>(),
            [(at(5), at(65))]
        );
    }
}
