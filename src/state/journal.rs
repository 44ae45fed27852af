//! The journal: a record for each accepted knock, appended with one `write(2)`.
//!
//! ```text
//! header  16 magic "knockd-rs jrnl 1" | 8 identity of the server key and the boot | 8 quarantined until (CLOCK_BOOTTIME, ns)
//! record  32 client | 8 counter | 16 mac1 | 8 sequence | 8 check = SHA256(identity || the 64 bytes before)[0..8]
//! ```
//! Integers are big-endian. A new journal begins with one record for every client, all with the sequence it
//! starts from; so one good journal holds everything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Identity, Mark, Marks, Place};
use crate::knock::MarkKey;
use crate::time::Timestamp;

const MAGIC: [u8; 16] = *b"knockd-rs jrnl 1";
const RECORD_LEN: usize = 72;
/// How many records beyond one for each client a journal may hold before it is written anew.
const MAX_APPENDED: usize = 4096;

/// A journal that takes records.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    identity: Identity,
    appended: usize,
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) marks: Vec<Mark>,
    pub(super) sequence: u64,
    pub(super) quarantined_until: Duration,
}

/// Why a journal says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Absent,
    Damaged,
}

fn path(place: &Place) -> PathBuf {
    place.runtime.join("replay.journal")
}

impl Journal {
    /// A new journal that holds `marks`, in place of any old one.
    pub(super) fn create(place: &Place, marks: &Marks, sequence: u64, until: Duration) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        let identity = place.journal();
        bytes.extend(identity);
        bytes.extend(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
        for (client, counter) in marks {
            let mark = Mark { key: *client, counter: *counter, mac1: [0; 16] };
            bytes.extend(record(&identity, &mark, sequence));
        }
        let (new, path) = (place.runtime.join("replay.journal.new"), path(place));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, &path)?;
        Ok(Self { file, identity, appended: 0 })
    }

    /// Adds a record with one write: a kill leaves all of it or nothing.
    pub(super) fn append(&mut self, mark: &Mark, sequence: u64) -> io::Result<()> {
        self.appended += 1;
        self.file.write_all(&record(&self.identity, mark, sequence))
    }

    pub(super) fn is_full(&self) -> bool {
        self.appended >= MAX_APPENDED
    }
}

fn record(identity: &Identity, mark: &Mark, sequence: u64) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    let fields =
        [&mark.key.0[..], &mark.counter.as_nanos().to_be_bytes(), &mark.mac1, &sequence.to_be_bytes()];
    bytes.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
    if let Some((body, check)) = bytes.split_last_chunk_mut::<8>() {
        *check = checksum(identity, body);
    }
    bytes
}

/// Guards against damage, not against forgery: whoever can write here is the daemon or root.
fn checksum(identity: &Identity, body: &[u8]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::new().chain_update(identity).chain_update(body).finalize().into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// Reads the journal whole. One of another server key, or of another boot, is as good as none.
pub(super) fn read(place: &Place) -> Result<Contents, Unusable> {
    let bytes = super::read(&path(place)).map_err(|_| Unusable::Damaged)?.ok_or(Unusable::Absent)?;
    decode(&bytes, &place.journal())
}

/// The bytes of a journal.
pub(super) fn decode(bytes: &[u8], own: &Identity) -> Result<Contents, Unusable> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(Unusable::Damaged)?;
    let (identity, rest) = rest.split_first_chunk().ok_or(Unusable::Damaged)?;
    let (until, records) = rest.split_first_chunk().ok_or(Unusable::Damaged)?;
    if *magic != MAGIC || records.len() % RECORD_LEN != 0 {
        return Err(Unusable::Damaged);
    }
    if identity != own {
        return Err(Unusable::Absent);
    }
    let mut contents = Contents {
        quarantined_until: Duration::from_nanos(u64::from_be_bytes(*until)),
        ..Contents::default()
    };
    for bytes in records.chunks_exact(RECORD_LEN) {
        let (mark, sequence) = parse(identity, bytes).ok_or(Unusable::Damaged)?;
        contents.marks.push(mark);
        contents.sequence = sequence.max(contents.sequence);
    }
    Ok(contents)
}

fn parse(identity: &Identity, bytes: &[u8]) -> Option<(Mark, u64)> {
    let (body, check) = bytes.split_last_chunk::<8>()?;
    let (client, rest) = body.split_first_chunk()?;
    let (counter, rest) = rest.split_first_chunk()?;
    let (mac1, rest) = rest.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    let counter = Timestamp::from_nanos(u64::from_be_bytes(*counter));
    let mark = Mark { key: MarkKey(*client), counter, mac1: *mac1 };
    (*check == checksum(identity, body)).then_some((mark, u64::from_be_bytes(*sequence)))
}

/// Makes sure that a journal which could not be written is not believed later: gone if possible, else empty
/// (which is damaged). On a file system that takes neither, the snapshot's higher sequence tells.
pub(super) fn spoil(place: &Place) {
    if fs::remove_file(path(place)).is_err() {
        let _ = OpenOptions::new().write(true).truncate(true).open(path(place));
    }
}
