//! Replay marks that survive: the newest counter of each client, written down before a port opens.
//!
//! They live twice. The journal lies in the runtime directory (memory-backed: survives a crash or kill of
//! the daemon, costs microseconds) and gets a record on every accepted knock, before the firewall is touched.
//! The snapshot lies in the state directory (survives a reboot) and is written by a thread of its own within
//! a second, and at a clean stop with a clean marker; so no `fsync` stands between a knock and its port.
//!
//! | journal | snapshot | then |
//! |---|---|---|
//! | good, not behind the snapshot | any | go on |
//! | none of this boot | clean | go on |
//! | none of this boot | unclean, damaged or none | quarantine: power was lost, or the state |
//! | damaged, or behind the snapshot | any | quarantine |
//!
//! In quarantine every knock is refused until all that could be replayed has gone stale. What cannot be written
//! is no reason to stop: the daemon goes on with what is writable, says so in its `Health`, and fails closed
//! (quarantine) at the next start.

mod journal;
mod snapshot;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub mod numbers;

pub use snapshot::initialise;

use crate::knock::MarkKey;
use crate::time::Timestamp;
use journal::Journal;
use snapshot::Writer;

/// Names the server key that marks belong to: a packet for another key can never be replayed here.
pub type Identity = [u8; 8];

/// Names a boot of the machine.
pub type Boot = [u8; 16];

/// The newest counter of each client.
pub type Marks = HashMap<MarkKey, Timestamp>;

/// One accepted knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub key: MarkKey,
    /// The knock's counter.
    pub counter: Timestamp,
    /// The packet's `mac1`: lets the next worker drop copies of this packet silently.
    pub mac1: [u8; 16],
}

/// The folder for marks in the runtime and in the state directory. The worker may write here and nowhere else: what
/// the monitor keeps beside it, the book of guards above all, is out of a captured worker's reach.
pub const FOLDER: &str = "replay";

/// Where the marks lie, and whose they are.
#[derive(Clone, Debug)]
pub struct Place {
    /// `/run/knockd-rs/replay`.
    pub runtime: PathBuf,
    /// `/var/lib/knockd-rs/replay`.
    pub state: PathBuf,
    /// The server key.
    pub identity: Identity,
    /// This boot: [`crate::clock::boot`].
    pub boot: Boot,
}

impl Place {
    /// Names the server key and the boot. A journal is written without `fsync`, so that one which outlived a power loss,
    /// as where the runtime directory lies on a disk, may lack its last marks: it is as good as none.
    fn journal(&self) -> Identity {
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.identity).chain_update(self.boot).finalize().into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

/// What was found at start.
#[derive(Debug)]
pub struct Recovered {
    /// The marks to go on from.
    pub marks: Marks,
    /// The `mac1` of the last accepted packets, oldest first.
    pub recent: Vec<[u8; 16]>,
    /// Until when (`CLOCK_BOOTTIME`) every knock is refused, and why.
    pub quarantine: Option<(Duration, &'static str)>,
}

/// The open state: takes marks until it is finished.
#[derive(Debug)]
pub struct State {
    place: Place,
    journal: Option<Journal>,
    writer: Writer,
    marks: Marks,
    sequence: u64,
    quarantined_until: Duration,
}

/// Reads the marks that are there and touches nothing. None where there is no state, or it is damaged.
#[must_use]
pub fn look(place: &Place) -> Marks {
    let mut marks = snapshot::read(place).unwrap_or_default().marks;
    for mark in journal::read(place).unwrap_or_default().marks {
        let newest = marks.entry(mark.key).or_default();
        *newest = mark.counter.max(*newest);
    }
    marks
}

impl State {
    /// Reads what is there and makes ready for writing. `quarantine` is how long to refuse knocks when marks
    /// were lost. Never fails: what cannot be read counts as lost, what cannot be written shows in
    /// [`is_runtime_writable`](Self::is_runtime_writable) and [`is_state_writable`](Self::is_state_writable).
    ///
    /// # Errors
    /// Only when the thread that writes the snapshot cannot be started.
    pub fn open(place: Place, uptime: Duration, quarantine: Duration) -> io::Result<(Self, Recovered)> {
        let journal = journal::read(&place);
        let snapshot = snapshot::read(&place);
        let lost = why_lost(&journal, &snapshot);
        let (journal, snapshot) = (journal.unwrap_or_default(), snapshot.unwrap_or_default());

        let mut marks = snapshot.marks;
        for mark in &journal.marks {
            let newest = marks.entry(mark.key).or_default();
            *newest = mark.counter.max(*newest);
        }
        let sequence = journal.sequence.max(snapshot.sequence);
        let until = match lost {
            Some(_) => uptime.saturating_add(quarantine),
            // Never longer than a quarantine that begins now, whatever the file says.
            None => journal.quarantined_until.min(uptime.saturating_add(quarantine)),
        };
        let why = lost.unwrap_or("the replay state was lost before the last restart");
        let recovered = Recovered {
            marks: marks.clone(),
            recent: journal.marks.iter().map(|mark| mark.mac1).filter(|mac1| *mac1 != [0; 16]).collect(),
            quarantine: (until > uptime).then_some((until, why)),
        };
        let journal = Journal::create(&place, &marks, sequence, until).ok();
        let writer = Writer::start(place.clone(), marks.clone(), sequence)?;
        Ok((Self { place, journal, writer, marks, sequence, quarantined_until: until }, recovered))
    }

    /// Writes a mark down. Returns when it is in the journal, or when there is nowhere to write it: then the
    /// memory of this process still refuses the packet, and the next start begins in quarantine.
    pub fn persist(&mut self, mark: &Mark) {
        self.sequence += 1;
        let newest = self.marks.entry(mark.key).or_default();
        *newest = mark.counter.max(*newest);
        let written =
            self.journal.as_mut().is_some_and(|journal| journal.append(mark, self.sequence).is_ok());
        if !written || self.journal.as_ref().is_some_and(Journal::is_full) {
            self.rewrite_journal();
        }
        self.writer.note(*mark, self.sequence);
    }

    /// A new journal in place of one that has grown or could not be written. Where that fails too, the old one
    /// is removed or emptied: a journal that lacks a mark must not be believed after a restart.
    fn rewrite_journal(&mut self) {
        let made = Journal::create(&self.place, &self.marks, self.sequence, self.quarantined_until);
        self.journal = made.ok();
        if self.journal.is_none() {
            journal::spoil(&self.place);
        }
    }

    /// Tries again to write a journal that could not be written. For whoever asks how things stand: room on the
    /// disk is noticed without a knock.
    pub fn retry(&mut self) {
        if self.journal.is_none() {
            self.rewrite_journal();
        }
    }

    /// Whether the last mark is in the runtime directory.
    #[must_use]
    pub fn is_runtime_writable(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether the last snapshot is in the state directory.
    #[must_use]
    pub fn is_state_writable(&self) -> bool {
        self.writer.is_writable()
    }

    /// A clean end: the snapshot gets its clean marker, unless a quarantine was still running.
    pub fn finish(self, uptime: Duration) {
        self.writer.finish(uptime >= self.quarantined_until);
    }
}

/// What the table in the module's documentation says.
fn why_lost(
    journal: &Result<journal::Contents, journal::Unusable>,
    snapshot: &Result<snapshot::Contents, snapshot::Unusable>,
) -> Option<&'static str> {
    match (journal, snapshot) {
        (Err(journal::Unusable::Damaged), _) => Some("the journal of replay marks is damaged"),
        (Ok(journal), Ok(snapshot)) if journal.sequence < snapshot.sequence => {
            Some("the journal of replay marks is older than the saved state")
        }
        (Ok(_), _) => None,
        (Err(journal::Unusable::Absent), Ok(snapshot)) if snapshot.clean => None,
        (Err(journal::Unusable::Absent), Ok(_)) => {
            Some("the last run did not end cleanly and its journal is gone")
        }
        (Err(journal::Unusable::Absent), Err(snapshot::Unusable::Damaged)) => {
            Some("the saved replay state is damaged")
        }
        (Err(journal::Unusable::Absent), Err(snapshot::Unusable::Absent)) => {
            Some("there is no saved replay state")
        }
    }
}

/// No file of marks is larger: 200,000 clients take 15 MB.
const MAX_FILE_LEN: u64 = 64 * 1024 * 1024;

/// Reads a small file whole. `None` when there is none; unreadable counts as damaged, and that is the caller's to
/// say.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    match file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)? {
        read if read as u64 > MAX_FILE_LEN => Err(io::ErrorKind::InvalidData.into()),
        _ => Ok(Some(bytes)),
    }
}

/// Reads bytes as a journal and as a snapshot, and says how many marks each holds.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_bytes(bytes: &[u8]) -> (Option<usize>, Option<usize>) {
    let own = bytes.get(16..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    let journal = journal::decode(bytes, &own).ok().map(|contents| contents.marks.len());
    (journal, snapshot::decode(bytes).map(|(_, contents)| contents.marks.len()))
}

#[cfg(test)]
mod tests;
