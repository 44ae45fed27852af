//! A small certificate authority in a directory, for those who have none: keys are made by the clients, certificates
//! are good for knocking alone, and every one that was ever handed out stands in an index.
//!
//! ```text
//! ca.key                 the private key, PKCS#8, mode 0600
//! ca.pem                 the certificate, for `[certificate_authority] ca`
//! index.jsonl            what was issued and revoked, one JSON object a line, only ever appended to
//! crl.pem                the newest revocation list, for `[certificate_authority] crl`
//! certificates/*.pem     copies of what was handed out
//! ```
//! A certificate is in the index, on disk, before anybody gets it: what is not there cannot be revoked. The edge.

mod fetch;
mod index;
mod sign;

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::files::{self, Existing, FileError, Private, Rules};
use crate::text::Span;
use crate::time::Timestamp;
use crate::x509::request::Request;

pub use fetch::{FetchError, Fetched, fetch};
#[cfg(feature = "fuzzing")]
pub(crate) use index::check as check_index;
pub use index::{Entry, Index, State};
pub use sign::{Allow, REASONS, Reason, Wish, request};

/// The longest file of the authority's.
const LIMIT: u64 = 64 << 20;
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.pem";
const INDEX: &str = "index.jsonl";
const LIST: &str = "crl.pem";
const COPIES: &str = "certificates";

/// An authority that nobody else is using.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    signer: sign::Signer,
    index: Index,
    /// Locked until this is dropped.
    _lock: File,
}

/// What became of a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub pem: String,
    /// Its length as DER, in bytes: what counts in a knock.
    pub len: usize,
    /// What the index says of it.
    pub entry: Entry,
}

/// The names of the authority's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The certificate.
    pub certificate: PathBuf,
    /// The newest revocation list.
    pub list: PathBuf,
}

impl Authority {
    /// Makes an authority in a directory that is new or empty: key, certificate, index, an empty revocation list.
    ///
    /// - `days`: how long its certificate is valid.
    ///
    /// # Errors
    /// [`CaError`]; nothing that was there before is touched.
    pub fn init(dir: &Path, name: &str, days: u32, now: Timestamp) -> Result<Self, CaError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| at(dir, error))?;
        if std::fs::read_dir(dir).map_err(|error| at(dir, error))?.next().is_some() {
            return Err(CaError::NotEmpty(dir.to_owned()));
        }
        files::check_dir(dir, &files::own_owners()).map_err(CaError::File)?;
        let lock = lock(dir)?;
        let (signer, key) = sign::Signer::make(name, days, now)?;
        std::fs::create_dir(dir.join(COPIES)).map_err(|error| at(dir, error))?;
        files::write(&dir.join(KEY), key.as_bytes(), Private::NEW).map_err(CaError::File)?;
        let index = Index::create(&dir.join(INDEX), name).map_err(CaError::File)?;
        public(&dir.join(CERTIFICATE), signer.certificate_pem().as_bytes(), Existing::Refuse)?;
        let mut authority = Self { dir: dir.to_owned(), signer, index, _lock: lock };
        authority.write_list(DEFAULT_LIST, now)?;
        Ok(authority)
    }

    /// Opens an authority for this program alone.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let lock = lock(dir)?;
        let own = Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: LIMIT };
        files::check_dir(dir, &own.owners).map_err(CaError::File)?;
        let index = Index::open(&dir.join(INDEX), &own)?;
        let key = files::read_text(&dir.join(KEY), &own).map_err(CaError::File)?;
        let readable = Rules { forbidden: 0o022, mode: 0o644, ..own };
        let certificate = files::read(&dir.join(CERTIFICATE), &readable).map_err(CaError::File)?;
        let certificate = crate::x509::certificates(&certificate).into_iter().next();
        let certificate = certificate.ok_or_else(|| CaError::Damaged(dir.join(CERTIFICATE)))?;
        let signer = sign::Signer::open(&key, certificate, index.authority())?;
        Ok(Self { dir: dir.to_owned(), signer, index, _lock: lock })
    }

    /// Where its public files are.
    #[must_use]
    pub fn places(&self) -> Places {
        Places { certificate: self.dir.join(CERTIFICATE), list: self.dir.join(LIST) }
    }

    /// Everything that was issued, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.index.entries()
    }

    /// Certifies the key of a request. Only `wish` goes into the certificate.
    ///
    /// # Errors
    /// [`CaError`]; when the index cannot be written, there is no certificate.
    pub fn certify(&mut self, request: &Request, wish: &Wish, now: Timestamp) -> Result<Issued, CaError> {
        let signed = self.signer.certify(request, wish, now)?;
        let entry = Entry {
            serial: signed.serial,
            name: wish.name.clone(),
            allows: wish.allow.iter().map(ToString::to_string).collect(),
            issued: now.as_secs(),
            until: signed.until.as_secs(),
            revoked: None,
        };
        self.index.add(&entry).map_err(CaError::File)?;
        let copy = self.dir.join(COPIES).join(format!("{}.pem", entry.serial));
        public(&copy, signed.pem.as_bytes(), Existing::Refuse)?;
        Ok(Issued { pem: signed.pem, len: signed.len, entry })
    }

    /// Revokes the certificate with this serial number, or every one of this name that is still good, and writes a
    /// new list.
    ///
    /// # Errors
    /// [`CaError::Unknown`] when there is none.
    pub fn revoke(
        &mut self,
        which: &str,
        reason: Reason,
        list: Span,
        now: Timestamp,
    ) -> Result<Vec<Entry>, CaError> {
        let revoked = self.index.revoke(which, reason, now).map_err(CaError::File)?;
        // Also for what was revoked before: its list may not have been written.
        let before = self.index.revoked(which);
        if revoked.is_empty() && before.is_empty() {
            return Err(CaError::Unknown(which.to_owned()));
        }
        self.write_list(list, now)?;
        if revoked.is_empty() { Err(CaError::RevokedBefore(which.to_owned())) } else { Ok(revoked) }
    }

    /// Writes a revocation list with the next number; the number is on disk before the list is.
    ///
    /// # Errors
    /// [`CaError`]; the old list stays then.
    pub fn write_list(&mut self, valid: Span, now: Timestamp) -> Result<u64, CaError> {
        let before = self.index.listed();
        let number = self.index.next_list(now).map_err(CaError::File)?;
        let pem = self.signer.list(self.index.entries(), before, number, valid, now)?;
        public(&self.dir.join(LIST), pem.as_bytes(), Existing::Replace)?;
        Ok(number)
    }
}

/// How long a list is good unless said otherwise.
pub const DEFAULT_LIST: Span = Span::from_secs(7 * 86_400);

/// A file that everybody may read, replaced whole.
fn public(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), CaError> {
    files::write(path, bytes, Private { existing, mode: 0o644, ..Private::NEW }).map_err(CaError::File)
}

fn at(path: &Path, error: io::Error) -> CaError {
    CaError::File(FileError { path: path.to_owned(), fault: error.into() })
}

/// Two programs at once would give one number to two lists.
fn lock(dir: &Path) -> Result<File, CaError> {
    let file = File::open(dir).map_err(|error| at(dir, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CaError::Busy(dir.to_owned())),
        Err(error) => Err(at(dir, error.into())),
    }
}

/// Why the authority could not do it.
#[derive(Debug)]
pub enum CaError {
    /// A file.
    File(FileError),
    /// There is something in the directory already.
    NotEmpty(PathBuf),
    /// Another program is at it.
    Busy(PathBuf),
    /// A file does not hold what it should.
    Damaged(PathBuf),
    /// The line of the index that cannot be read.
    Index(PathBuf, usize),
    /// The key is not that of the certificate.
    OtherKey,
    /// What was wished for has no form.
    Wish(String),
    /// All that have this serial number or name were revoked before; the list is new all the same.
    RevokedBefore(String),
    /// No certificate has this serial number or name, or all that do are revoked.
    Unknown(String),
    /// A serial number in the index is none.
    Serial(String),
    /// The signing itself.
    Signing(String),
}

impl std::fmt::Display for CaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NotEmpty(dir) => {
                write!(f, "{} is not empty; choose another directory for the authority", dir.display())
            }
            Self::Busy(dir) => {
                write!(f, "{} is in use by another `knockd-rs ca`; wait for it", dir.display())
            }
            Self::Damaged(path) => {
                write!(f, "{} is damaged; put it back from a backup", path.display())
            }
            Self::Index(path, line) => write!(
                f,
                "{}:{line} cannot be read; what was issued is not known any more: put the file back from a backup",
                path.display()
            ),
            Self::OtherKey => f.write_str(
                "ca.key is not the key of ca.pem, or ca.pem was not made here; put both back from one backup",
            ),
            Self::Serial(serial) => write!(
                f,
                "the index has `{}` for a serial number, so that the list would lack a certificate; put the index back \
                 from a backup",
                serial.escape_debug()
            ),
            Self::Wish(sentence) | Self::Signing(sentence) => f.write_str(sentence),
            Self::RevokedBefore(which) => write!(
                f,
                "{} was revoked before; a new list that says so has been written",
                which.escape_debug()
            ),
            Self::Unknown(which) => write!(
                f,
                "no certificate that is good has the name or serial number {}; `knockd-rs ca list` shows all",
                which.escape_debug()
            ),
        }
    }
}

impl std::error::Error for CaError {}
