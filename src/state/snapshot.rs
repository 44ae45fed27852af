//! The snapshot: all marks in one file, replaced whole by a thread of its own.
//!
//! ```text
//! 16 magic "knockd-rs mark 1" | 8 identity of the server key | 8 sequence | 1 clean | 7 zero | 8 count
//! count times: 32 client | 8 counter
//! 32 SHA256 of everything before
//! ```
//! Integers are big-endian. Written to a new file, `fsync`, rename, `fsync` of the directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Identity, Mark, Marks, Place};
use crate::knock::MarkKey;
use crate::time::Timestamp;

const MAGIC: [u8; 16] = *b"knockd-rs mark 1";
const RECORD_LEN: usize = 40;
/// How long marks may gather before they are written: many knocks, one `fsync`.
const GATHER: Duration = Duration::from_millis(300);
/// How long to wait after a failure before it is tried again: room on the disk is noticed without a knock.
const RETRY: Duration = Duration::from_secs(5);

/// What a snapshot says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) marks: Marks,
    pub(super) sequence: u64,
    pub(super) clean: bool,
}

/// Why a snapshot says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Absent,
    Damaged,
}

fn path(state: &Path) -> PathBuf {
    state.join("replay.marks")
}

/// A clean snapshot without marks, for a server key that was made just now: no packet for it can exist yet, so
/// the first start needs no quarantine.
///
/// `owner` is the daemon's user and group, where root makes this for it.
///
/// # Errors
/// When the folder cannot be written.
pub fn initialise(state: &Path, identity: Identity, owner: Option<(u32, u32)>) -> io::Result<()> {
    write(state, &identity, &Contents { clean: true, ..Contents::default() })?;
    match owner {
        Some((user, group)) => std::os::unix::fs::chown(path(state), Some(user), Some(group)),
        None => Ok(()),
    }
}

fn write(state: &Path, identity: &Identity, contents: &Contents) -> io::Result<()> {
    let (new, path) = (state.join("replay.marks.new"), path(state));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&encode(identity, contents))?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(state)?.sync_all()
}

fn encode(identity: &Identity, contents: &Contents) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(identity);
    bytes.extend(contents.sequence.to_be_bytes());
    bytes.extend([u8::from(contents.clean), 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(u64::try_from(contents.marks.len()).unwrap_or(u64::MAX).to_be_bytes());
    for (client, counter) in &contents.marks {
        bytes.extend(client.0);
        bytes.extend(counter.as_nanos().to_be_bytes());
    }
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    bytes.extend(digest);
    bytes
}

/// Reads the snapshot. One of another server key is as good as none.
pub(super) fn read(place: &Place) -> Result<Contents, Unusable> {
    let bytes = super::read(&path(&place.state)).map_err(|_| Unusable::Damaged)?.ok_or(Unusable::Absent)?;
    let (identity, contents) = decode(&bytes).ok_or(Unusable::Damaged)?;
    if identity == place.identity { Ok(contents) } else { Err(Unusable::Absent) }
}

pub(super) fn decode(bytes: &[u8]) -> Option<(Identity, Contents)> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if *digest != <[u8; 32]>::from(Sha256::digest(body)) {
        return None;
    }
    let (magic, rest) = body.split_first_chunk::<16>()?;
    let (identity, rest) = rest.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (&[clean, 0, 0, 0, 0, 0, 0, 0], rest) = rest.split_first_chunk()? else { return None };
    let (count, records) = rest.split_first_chunk()?;
    let count = usize::try_from(u64::from_be_bytes(*count)).ok()?;
    if *magic != MAGIC || clean > 1 || records.len() != count.checked_mul(RECORD_LEN)? {
        return None;
    }
    let mark = |record: &[u8]| {
        let (client, counter) = record.split_first_chunk::<32>()?;
        Some((MarkKey(*client), Timestamp::from_nanos(u64::from_be_bytes(counter.try_into().ok()?))))
    };
    let marks = records.chunks_exact(RECORD_LEN).map(mark).collect::<Option<Marks>>()?;
    Some((*identity, Contents { marks, sequence: u64::from_be_bytes(*sequence), clean: clean == 1 }))
}

/// The thread that writes snapshots, and what it is to write.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    wake: Condvar,
    writable: AtomicBool,
}

#[derive(Debug)]
struct Work {
    contents: Contents,
    dirty: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes an unclean snapshot at once, so that a power loss from now on is seen at the next start; then
    /// starts the thread.
    pub(super) fn start(place: Place, marks: Marks, sequence: u64) -> io::Result<Self> {
        let contents = Contents { marks, sequence, clean: false };
        let writable = AtomicBool::new(write(&place.state, &place.identity, &contents).is_ok());
        let work = Mutex::new(Work { contents, dirty: false, stop: false });
        let shared = Arc::new(Shared { work, wake: Condvar::new(), writable });
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("snapshot".into()).spawn(move || run(&place, &theirs))?;
        Ok(Self { shared, thread })
    }

    /// Notes a mark; it is on disk within a second.
    pub(super) fn note(&self, mark: Mark, sequence: u64) {
        let mut work = self.shared.lock();
        let newest = work.contents.marks.entry(mark.key).or_default();
        *newest = mark.counter.max(*newest);
        work.contents.sequence = sequence;
        work.dirty = true;
        self.shared.wake.notify_one();
    }

    pub(super) fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }

    /// Writes a last snapshot and waits for it.
    pub(super) fn finish(self, clean: bool) {
        {
            let mut work = self.shared.lock();
            work.contents.clean = clean;
            work.stop = true;
            self.shared.wake.notify_one();
        }
        let _ = self.thread.join();
    }
}

fn run(place: &Place, shared: &Shared) {
    loop {
        let (contents, stop) = {
            let idle = |work: &mut Work| !work.dirty && !work.stop;
            let patience = if shared.writable.load(Ordering::Relaxed) { Duration::MAX } else { RETRY };
            let (work, _) = shared
                .wake
                .wait_timeout_while(shared.lock(), patience, idle)
                .unwrap_or_else(PoisonError::into_inner);
            let gathering = |work: &mut Work| !work.stop;
            let (mut work, _) = shared
                .wake
                .wait_timeout_while(work, GATHER, gathering)
                .unwrap_or_else(PoisonError::into_inner);
            work.dirty = false;
            let Contents { marks, sequence, clean } = &work.contents;
            (Contents { marks: marks.clone(), sequence: *sequence, clean: *clean }, work.stop)
        };
        shared.writable.store(write(&place.state, &place.identity, &contents).is_ok(), Ordering::Relaxed);
        if stop {
            return;
        }
    }
}
