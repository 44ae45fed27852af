//! The counter of a client's knocks: one file for each server, locked while it is read, raised and written, so that
//! no two knocks carry the same number, however many programs knock at once. The edge.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{self, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::store::{Dirs, make_private_dir};
use crate::files::{self, FileError, FileFault};
use crate::knock::sequence;
use crate::knock::spa::next_counter;
use crate::knock::syn::Slot;
use crate::knock::totp;
use crate::text::ServerName;
use crate::time::Timestamp;

/// The number for the next knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The number; on disk when this is returned.
    pub value: Timestamp,
    /// What was odd about the number before it.
    pub warning: Option<Oddity>,
}

/// What was odd about a stored counter; the knock goes on with the clock's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It was this far ahead of the clock.
    Ahead(Duration),
    /// The file held something else.
    Unreadable(String),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(
                f,
                "the last knock was sent by a clock {} minutes ahead of what it says now; if knocks have no effect, the \
                 server remembers that time and hears this client again once it has passed; if it refused that knock, \
                 whoever recorded it can use it then, unless this client has knocked later",
                by.as_secs() / 60
            ),
            Self::Unreadable(path) => {
                write!(f, "{path} did not hold a counter; it was begun anew from the clock")
            }
        }
    }
}

/// Takes the next counter for a knock at `server`: later than every one before, and on disk.
///
/// # Errors
/// [`FileError`] when the file cannot be read, written, or locked within five seconds.
pub fn take(dirs: &Dirs, server: &ServerName, now: Timestamp) -> Result<Counter, FileError> {
    count(dirs, &dirs.counter_file(server), now, next_counter)
}

/// The same for sequences, which count seconds and for themselves.
///
/// # Errors
/// As [`take`].
pub fn take_second(dirs: &Dirs, server: &ServerName, now: Timestamp) -> Result<Counter, FileError> {
    count(dirs, &dirs.sequence_counter_file(server), now, sequence::next_counter)
}

/// Takes the counter that is `after` the one in the file.
fn count(
    dirs: &Dirs,
    path: &Path,
    now: Timestamp,
    after: fn(Timestamp, Option<Timestamp>) -> Timestamp,
) -> Result<Counter, FileError> {
    let next = |stored: Stored| {
        let (last, warning) = match stored {
            Stored::Nothing => (Timestamp::default(), None),
            Stored::Last(last) => (last, None),
            Stored::Garbage => (Timestamp::default(), Some(Oddity::Unreadable(path.display().to_string()))),
        };
        let ahead = last.since(now);
        let counter = if ahead > FAR_AHEAD {
            Counter { value: after(now, None), warning: Some(Oddity::Ahead(ahead)) }
        } else {
            Counter { value: after(now, Some(last)), warning }
        };
        (Some(counter.value), counter)
    };
    advance(dirs, path, next)
}

/// Takes the next slot for a SYN to `server`, likewise. The inner error is how long to wait for one.
///
/// # Errors
/// As [`take`].
pub fn take_slot(
    dirs: &Dirs,
    server: &ServerName,
    now: Timestamp,
) -> Result<Result<Slot, Duration>, FileError> {
    let next = |stored: Stored| {
        let last = match stored {
            Stored::Last(last) => Some(Slot::of(last)),
            Stored::Nothing | Stored::Garbage => None,
        };
        let slot = Slot::next(now, last);
        (slot.ok().map(Slot::counter), slot)
    };
    advance(dirs, &dirs.slot_file(server), next)
}

/// Takes the next step for a sequence of ports at `server`, likewise. The inner error is how long to wait for one.
///
/// # Errors
/// As [`take`].
pub fn take_step(
    dirs: &Dirs,
    server: &ServerName,
    now: Timestamp,
) -> Result<Result<u64, Duration>, FileError> {
    let next = |stored: Stored| {
        let last = match stored {
            Stored::Last(last) => Some(totp::step(last)),
            Stored::Nothing | Stored::Garbage => None,
        };
        let step = totp::next_step(now, last);
        (step.ok().map(totp::time), step)
    };
    advance(dirs, &dirs.step_file(server), next)
}

/// Waits for this program's turn to knock at `server`, which lasts until the file is closed. A server refuses a counter
/// below the last one it saw, so knocks that are made at the same time have to leave in the order of their counters.
///
/// # Errors
/// As [`take`].
pub(super) fn turn(dirs: &Dirs, server: &ServerName) -> Result<File, FileError> {
    make_private_dir(&dirs.state)?;
    locked(&dirs.turn_file(server), OFlags::CREATE)
}

/// Hands what the file holds to `next`, and writes down what that returns first, if anything: all of it under a lock,
/// and on disk before this returns.
fn advance<T>(
    dirs: &Dirs,
    path: &Path,
    next: impl FnOnce(Stored) -> (Option<Timestamp>, T),
) -> Result<T, FileError> {
    make_private_dir(&dirs.state)?;
    let fault = |fault: FileFault| FileError { path: path.to_owned(), fault };
    let file = locked(path, OFlags::CREATE)?;
    let (number, taken) = next(stored(&file).map_err(|error| fault(error.into()))?);
    let Some(number) = number else { return Ok(taken) };
    // One write of fixed length over the old number: a rename would leave the lock on a file that is gone.
    let line = print(number);
    file.write_all_at(line.as_bytes(), 0)
        .and_then(|()| file.set_len(u64::try_from(line.len()).unwrap_or(0)))
        .and_then(|()| file.sync_all())
        .and_then(|()| files::sync_dir(&dirs.state))
        .map_err(|error| fault(error.into()))?;
    Ok(taken)
}

/// Opens a file of a counter, checks it and locks it.
fn locked(path: &Path, how: OFlags) -> Result<File, FileError> {
    let fault = |fault: FileFault| FileError { path: path.to_owned(), fault };
    let flags = how | OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| fault(errno.into()))?;
    let stat = fs::fstat(&file).map_err(|errno| fault(errno.into()))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(fault(FileFault::Kind { found: "something else", wanted: "a file" }));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o177 != 0 {
        return Err(fault(FileFault::Mode { mode, wanted: 0o600, writable: mode & 0o022 != 0 }));
    }
    let file = File::from(file);
    lock(&file).map_err(fault)?;
    Ok(file)
}

/// The counters of a server that are farther ahead of the clock than the server allows, and by how much. Takes none.
///
/// # Errors
/// [`FileError`] when a file that is there could not be used for a knock.
pub fn look(dirs: &Dirs, server: &ServerName, now: Timestamp) -> Result<Vec<(PathBuf, Duration)>, FileError> {
    let files = [
        dirs.counter_file(server),
        dirs.sequence_counter_file(server),
        dirs.slot_file(server),
        dirs.step_file(server),
    ];
    let mut ahead = Vec::new();
    for path in files {
        let file = match locked(&path, OFlags::empty()) {
            Err(error) if error.is_missing() => continue,
            other => other?,
        };
        let held = stored(&file).map_err(|error| FileError { path: path.clone(), fault: error.into() })?;
        if let Stored::Last(last) = held {
            ahead.push((path, last.since(now)));
        }
    }
    ahead.retain(|(_, by)| *by > FAR_AHEAD);
    Ok(ahead)
}

enum Stored {
    Nothing,
    Last(Timestamp),
    Garbage,
}

fn stored(file: &File) -> io::Result<Stored> {
    if file.metadata()?.len() == 0 {
        return Ok(Stored::Nothing);
    }
    let mut line = [0; DIGITS + 1];
    match file.read_exact_at(&mut line, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Stored::Garbage),
        other => other?,
    }
    Ok(parse(&line).map_or(Stored::Garbage, Stored::Last))
}

fn parse(line: &[u8; DIGITS + 1]) -> Option<Timestamp> {
    match line.split_last() {
        Some((b'\n', digits)) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok().map(Timestamp::from_nanos)
        }
        _ => None,
    }
}

fn print(number: Timestamp) -> String {
    format!("{:0width$}\n", number.as_nanos(), width = DIGITS)
}

/// For the fuzzer: what is read is what would be written, and whatever was stored, every kind of knock is later than the
/// one before or waits, and none is far ahead of the clock.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(line: &[u8; DIGITS + 1], now: Timestamp) {
    let Some(last) = parse(line) else { return };
    assert_eq!(print(last).as_bytes(), line);
    let latest = now.saturating_add(FAR_AHEAD + Duration::from_secs(60));
    if last.since(now) <= FAR_AHEAD && latest < Timestamp::from_nanos(u64::MAX) {
        for counter in [next_counter(now, Some(last)), sequence::next_counter(now, Some(last))] {
            assert!(counter > last && counter <= latest);
        }
    }
    if let Ok(slot) = Slot::next(now, Some(Slot::of(last))) {
        assert!(slot.counter() <= latest);
    }
    if let Ok(step) = totp::next_step(now, Some(totp::step(last))) {
        assert!(totp::time(step) <= latest && step != totp::step(last));
    }
}

/// Locks the file until it is closed (`flock(2)`). Gives up after five seconds: locks are held for one write, or for the
/// first packet of a knock.
fn lock(file: &File) -> Result<(), FileFault> {
    for _ in 0..500 {
        match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(Duration::from_millis(10)),
            other => return Ok(other?),
        }
    }
    Err(FileFault::Other(io::Error::other("another program has held it for five seconds; try again")))
}

/// Digits of a `u64`.
const DIGITS: usize = 20;
/// A stored counter farther ahead than this was made by a wrong clock. Less is a burst of knocks or a clock that
/// was set back a little, and going on from it is what the server accepts. It is the lead that servers allow unless
/// told otherwise: more was refused, and would be refused again until that time has come.
const FAR_AHEAD: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const STEP: u64 = 1 << 20;

    struct Home(Dirs, #[expect(dead_code, reason = "removed on drop")] tempfile::TempDir);

    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        Home(Dirs { config: dir.path().join("c/knockd-rs"), state: dir.path().join("s/knockd-rs") }, dir)
    }

    fn taken(home: &Home, now: Timestamp) -> Counter {
        take(&home.0, &"home".parse().unwrap(), now).unwrap()
    }

    fn put(home: &Home, text: &[u8]) {
        taken(home, NOW);
        std::fs::write(home.0.counter_file(&"home".parse().unwrap()), text).unwrap();
    }

    #[test]
    fn every_counter_is_later_than_the_one_before() {
        let home = home();
        let first = taken(&home, NOW);
        assert_eq!(
            first,
            Counter { value: Timestamp::from_nanos(NOW.as_nanos() & !(STEP - 1)), warning: None }
        );
        let second = taken(&home, NOW).value;
        assert_eq!(second.as_nanos(), first.value.as_nanos() + STEP);
        let set_back = taken(&home, NOW.saturating_sub(Duration::from_secs(60)));
        assert_eq!((set_back.value.as_nanos(), set_back.warning), (second.as_nanos() + STEP, None));
    }

    #[test]
    fn sequences_count_seconds_and_for_themselves() {
        let home = home();
        taken(&home, NOW.saturating_add(Duration::from_secs(5)));
        let take = |now| take_second(&home.0, &"home".parse().unwrap(), now).unwrap().value;
        assert_eq!(take(NOW), NOW);
        assert_eq!(take(NOW), Timestamp::from_secs(NOW.as_secs() + 1));
        let later = NOW.saturating_add(Duration::from_secs(9));
        assert_eq!(take(later), later);
    }

    #[test]
    fn a_counter_from_a_wrong_clock_gives_way_to_the_clock_with_a_warning() {
        let home = home();
        taken(&home, NOW.saturating_add(Duration::from_secs(1230)));
        let counter = taken(&home, NOW);
        assert_eq!(counter.value.as_nanos(), NOW.as_nanos() & !(STEP - 1));
        assert!(counter.warning.unwrap().to_string().contains("20 minutes ahead"));
        assert_eq!(taken(&home, NOW).warning, None);
    }

    #[test]
    fn what_a_server_refused_as_too_far_ahead_is_not_gone_on_from() {
        let home = home();
        taken(&home, NOW.saturating_add(Duration::from_secs(179)));
        assert!(taken(&home, NOW).value > NOW);
        let home = self::home();
        taken(&home, NOW.saturating_add(Duration::from_secs(182)));
        let counter = taken(&home, NOW);
        assert!(counter.value <= NOW && counter.warning.is_some());
    }

    #[test]
    fn a_damaged_file_is_begun_anew_with_a_warning() {
        for text in
            [&b"12\n"[..], b"hello, this is no number", b"99999999999999999999\n", &[0xff; 21], &[0; 4096]]
        {
            let home = home();
            put(&home, text);
            let counter = taken(&home, NOW);
            assert!(matches!(counter.warning, Some(Oddity::Unreadable(_))), "{text:?}");
            assert_eq!(counter.value.as_nanos(), NOW.as_nanos() & !(STEP - 1));
            assert_eq!(taken(&home, NOW).warning, None);
        }
    }

    #[test]
    fn no_two_of_many_knocks_at_once_get_the_same_counter() {
        let home = home();
        let home = &home;
        let mut values: Vec<Timestamp> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..5).map(|_| taken(home, NOW).value).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 40);
    }

    #[test]
    fn a_counter_that_others_can_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let home = home();
        taken(&home, NOW);
        let path = home.0.counter_file(&"home".parse().unwrap());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let error = take(&home.0, &"home".parse().unwrap(), NOW).unwrap_err();
        assert_eq!(
            error.what(),
            format!("mode 0666 lets other users change it; run: chmod 0600 {}", path.display())
        );
    }

    #[test]
    fn slots_are_taken_one_after_the_other_until_there_are_none_that_the_server_knows() {
        let home = home();
        let take = |now| take_slot(&home.0, &"home".parse().unwrap(), now).unwrap();
        let slots: Vec<Slot> = (0..8).map(|_| take(NOW).unwrap()).collect();
        assert!(slots.is_sorted() && slots.first() == Some(&Slot::of(NOW)));
        assert_eq!(take(NOW), Err(Duration::from_secs(30)));
        let later = NOW.saturating_add(Duration::from_secs(30));
        assert_eq!(take(later), Ok(Slot { step: Slot::of(later).step + 1, slot: 0 }));
        // Apart from the counter of datagrams.
        assert_eq!(taken(&home, NOW).warning, None);
    }

    #[test]
    fn directories_follow_the_environment() {
        let dirs = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Dirs::from_env(move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.into()))
        };
        let below = dirs(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")]).unwrap();
        assert_eq!(
            below,
            Dirs { config: "/h/.config/knockd-rs".into(), state: "/h/.local/state/knockd-rs".into() }
        );
        let set = dirs(&[("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s")]).unwrap();
        assert_eq!(set, Dirs { config: "/c/knockd-rs".into(), state: "/s/knockd-rs".into() });
        assert_eq!(dirs(&[("HOME", "")]), None);
    }
}
