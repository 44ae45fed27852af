//! Files that nobody else may read or change: opened without ever waiting, checked before they are believed,
//! replaced whole or not at all. Everything here is at the edge; what the bytes mean is for the caller.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

/// The system user and group of the daemon.
pub const SYSTEM_USER: &str = "knockd-rs";

/// What a file must be like to be read.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Mode bits that must not be set.
    pub forbidden: u32,
    /// The mode that the error recommends.
    pub mode: u32,
    /// The users one of whom must own the file; empty when the owner does not matter.
    pub owners: Vec<u32>,
    /// The longest file in bytes.
    pub limit: u64,
}

/// Who may own what the daemon reads: root, the user this runs as, and the daemon's user, since root may be the
/// one who looks at a file of the daemon's.
#[must_use]
pub fn system_owners() -> Vec<u32> {
    let mut owners = vec![0, geteuid().as_raw()];
    owners.extend(user(SYSTEM_USER).map(|account| account.user));
    owners
}

/// Who may own what a client reads: root and the user this runs as.
#[must_use]
pub fn own_owners() -> Vec<u32> {
    vec![0, geteuid().as_raw()]
}

/// Reads a whole file, after checking that it is a regular one, its owner and its mode. Symbolic links are
/// followed: what is checked is the file they end at, and [`check_dir`] sees to who can plant one. Never waits:
/// a FIFO or a device in the file's place is an error.
///
/// # Errors
/// [`FileError`], which names the file and says what to do.
pub fn read(path: &Path, rules: &Rules) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let fault = |fault| FileError { path: path.to_owned(), fault };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::empty()).map_err(|errno| fault(errno.into()))?;
    let stat = fs::fstat(&file).map_err(|errno| fault(errno.into()))?;
    check(&stat, rules, FileType::RegularFile).map_err(fault)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > rules.limit {
        return Err(fault(FileFault::TooLarge(rules.limit)));
    }
    // One allocation that holds the whole file: growing would leave copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1)));
    File::from(file)
        .take(rules.limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| fault(e.into()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > rules.limit {
        return Err(fault(FileFault::TooLarge(rules.limit)));
    }
    Ok(bytes)
}

/// Reads a whole file as text; otherwise like [`read`].
///
/// # Errors
/// As [`read`], and [`FileFault::NotText`].
pub fn read_text(path: &Path, rules: &Rules) -> Result<Zeroizing<String>, FileError> {
    let bytes = read(path, rules)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            Err(FileError { path: path.to_owned(), fault: FileFault::NotText { line } })
        }
    }
}

/// Checks that nobody but its owner can put files into a directory, and that the owner is one of `owners`.
/// Whoever can rename in it replaces every file in it, whatever their modes.
///
/// # Errors
/// [`FileError`], which names the directory and says what to do.
pub fn check_dir(path: &Path, owners: &[u32]) -> Result<(), FileError> {
    let fault = |fault| FileError { path: path.to_owned(), fault };
    let stat = fs::stat(path).map_err(|errno| fault(errno.into()))?;
    let rules = Rules { forbidden: 0o022, mode: 0o750, owners: owners.to_vec(), limit: 0 };
    check(&stat, &rules, FileType::Directory).map_err(fault)
}

fn check(stat: &Stat, rules: &Rules, wanted: FileType) -> Result<(), FileFault> {
    let found = FileType::from_raw_mode(stat.st_mode);
    if found != wanted {
        return Err(FileFault::Kind { found: kind(found), wanted: kind(wanted) });
    }
    if !rules.owners.is_empty() && !rules.owners.contains(&stat.st_uid) {
        return Err(FileFault::Owner(stat.st_uid));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & rules.forbidden != 0 {
        return Err(FileFault::Mode {
            mode,
            wanted: rules.mode,
            writable: mode & rules.forbidden & 0o022 != 0,
        });
    }
    Ok(())
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

/// What a written file is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Private {
    /// Mode bits, whatever the umask.
    pub mode: u32,
    /// The owner, when it is not to be the user this runs as.
    pub user: Option<u32>,
    /// The group, when it is not to be that of the user this runs as.
    pub group: Option<u32>,
    /// What to do about a file of this name.
    pub existing: Existing,
}

impl Private {
    /// A new file that only its owner can read: mode 0600.
    pub const NEW: Self = Self { mode: 0o600, user: None, group: None, existing: Existing::Refuse };
}

/// What to do when the file to be written is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and fail with [`FileFault::Exists`].
    #[default]
    Refuse,
    /// Put the new one in its place.
    Replace,
}

/// Writes a file so that a reader, now or after a crash, finds the old contents or the new ones, and so that
/// no other user can read a byte of it at any time: created with its final mode under a random name in the same
/// directory, flushed, renamed, and the directory flushed. A symbolic link of that name is replaced, not followed.
///
/// # Errors
/// [`FileError`]; the directory then is as it was before.
pub fn write(path: &Path, bytes: &[u8], private: Private) -> Result<(), FileError> {
    let fault = |fault| FileError { path: path.to_owned(), fault };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let (Some(name), Ok(token)) = (path.file_name(), getrandom::u64()) else {
        return Err(fault(FileFault::Other(io::ErrorKind::InvalidInput.into())));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{token:016x}.new"));
    let temporary = dir.join(temporary);
    let done = fill(&temporary, bytes, private).and_then(|()| place(&temporary, path, private.existing));
    if let Err(FileFault::Missing) = done {
        return Err(fault(FileFault::NoDirectory));
    }
    if let Err(error) = done {
        // Best effort: the file has a dot in front, so no reader here takes it for anything.
        let _ = fs::unlink(&temporary);
        return Err(fault(error));
    }
    sync_dir(dir).map_err(|error| fault(error.into()))
}

fn fill(temporary: &Path, bytes: &[u8], private: Private) -> Result<(), FileFault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::open(temporary, flags, Mode::RUSR | Mode::WUSR)?;
    if private.user.is_some() || private.group.is_some() {
        let user = private.user.map(rustix::process::Uid::from_raw);
        let group = private.group.map(rustix::process::Gid::from_raw);
        fs::fchown(&file, user, group)?;
    }
    // After the owner: a change of owner clears bits, and the umask has had its say before.
    fs::fchmod(&file, Mode::from_raw_mode(private.mode))?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

fn place(temporary: &Path, path: &Path, existing: Existing) -> Result<(), FileFault> {
    if existing == Existing::Replace {
        return Ok(fs::rename(temporary, path)?);
    }
    match fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // File systems without RENAME_NOREPLACE (rename(2)): a hard link fails just as well when the name is taken.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::linkat(CWD, temporary, CWD, path, AtFlags::empty())?;
            Ok(fs::unlink(temporary)?)
        }
        other => Ok(other?),
    }
}

/// Flushes a directory, so that what was created, renamed or removed in it survives a power loss.
///
/// # Errors
/// Whatever the system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fs::fsync(dir)?)
}

/// A user's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub user: u32,
    /// The number of its group.
    pub group: u32,
}

/// The local user of this name, from `/etc/passwd` (`passwd(5)`). Directory services are not asked: that would
/// take the C library's loadable modules into a privileged process.
#[must_use]
pub fn user(name: &str) -> Option<Account> {
    account_in(&std::fs::read_to_string("/etc/passwd").ok()?, name)
}

/// The number of the local group of this name, from `/etc/group` (`group(5)`).
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    group_in(&std::fs::read_to_string("/etc/group").ok()?, name)
}

/// For the fuzzer: the system's lists of users and groups.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_accounts(text: &str) {
    let found = account_in(text, "knockd-rs").is_some() || group_in(text, "knockd-rs").is_some();
    assert!(!found || text.contains("knockd-rs:"));
}

fn account_in(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

fn group_in(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// A file could not be read or written.
#[derive(Debug)]
pub struct FileError {
    /// Which one.
    pub path: PathBuf,
    /// Why.
    pub fault: FileFault,
}

impl FileError {
    /// The error without the file's name, for places that have named it already; commands to run carry the whole
    /// path.
    #[must_use]
    pub fn what(&self) -> String {
        let path = quoted(&self.path);
        match &self.fault {
            FileFault::Missing => "there is no such file".into(),
            FileFault::NoDirectory => {
                let dir = self.path.parent().map(quoted).unwrap_or_default();
                format!("its directory is not there; run: mkdir -p {dir}")
            }
            FileFault::Exists => "is there already; remove it or choose another name".into(),
            FileFault::Denied => {
                format!("user {} has no right to it; run this as root", geteuid().as_raw())
            }
            FileFault::Kind { found, wanted } => format!("is {found}, and should be {wanted}"),
            FileFault::TooLarge(limit) => format!("is larger than {} KiB", limit / 1024),
            FileFault::Owner(user) => {
                format!(
                    "belongs to user {user}, who could change it; run: chown {} {path}",
                    geteuid().as_raw()
                )
            }
            FileFault::Mode { mode, wanted, writable } => {
                let can = if *writable { "change" } else { "read" };
                format!("mode {mode:04o} lets other users {can} it; run: chmod {wanted:04o} {path}")
            }
            FileFault::NotText { .. } => "is not UTF-8 text".into(),
            FileFault::Other(error) => error.to_string(),
        }
    }

    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.fault, FileFault::Missing)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display().to_string().escape_debug(), self.what())
    }
}

impl std::error::Error for FileError {}

/// What is wrong with a file.
#[derive(Debug)]
pub enum FileFault {
    /// It is not there, or a link to it leads nowhere.
    Missing,
    /// The directory that it was to be written to is not there.
    NoDirectory,
    /// It is there, and must not be overwritten.
    Exists,
    /// This user may not.
    Denied,
    /// Not of the right kind: a directory, a FIFO, a device.
    Kind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Longer than this many bytes.
    TooLarge(u64),
    /// It belongs to this user, who has no business with it.
    Owner(u32),
    /// Others can read or change it.
    Mode {
        /// The mode bits that it has.
        mode: u32,
        /// The mode bits that it should have.
        wanted: u32,
        /// Whether others can change it, rather than read it.
        writable: bool,
    },
    /// Its bytes are no UTF-8.
    NotText {
        /// The line with the first wrong byte.
        line: u32,
    },
    /// Anything else that the system reports.
    Other(io::Error),
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Other(error),
        }
    }
}

impl From<Errno> for FileFault {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// The path as a shell takes it: a command in an error message is there to be pasted.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match text.bytes().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace(char::is_control, "?").replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests;
