//! Fetching an authority's revocation list, for a timer under a user of its own: whoever gets hold of this process can
//! make the daemon believe no list that the authority did not sign.
//!
//! ```text
//! URL -> bytes, bounded -> one list -> signed by the authority -> of today -> not older than what is there -> replaced
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig};

use crate::files::{self, Existing, FileError, Private, Rules};
use crate::time::Timestamp;
use crate::x509::crl::{Crl, CrlError, MAX_CRL};
use crate::x509::{certificates, pem, revocation_lists};

/// The authorities that Debian trusts for the web (package ca-certificates).
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The longest answer: a list of [`MAX_CRL`] bytes as PEM.
const LIMIT: u64 = MAX_CRL as u64 / 2 * 3;
/// How many other places a server may send us to.
const REDIRECTS: u32 = 3;
/// How far the authority's clock may be ahead.
const LEEWAY: Duration = Duration::from_secs(300);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The list is newer than what was there, and has taken its place.
    Replaced,
    /// It is what was there already.
    Same,
}

/// Fetches the list at `url` (http, https or file), verifies it by the certificates in `authorities`, and puts it in
/// the place of `out`, as PEM of mode 0644, whole or not at all.
///
/// # Errors
/// [`FetchError`]; what was there stays then.
pub fn fetch(
    url: &str,
    authorities: &Path,
    out: &Path,
    timeout: Duration,
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let readable = |limit| Rules { forbidden: 0o022, mode: 0o644, owners: Vec::new(), limit };
    let trusted = certificates(&files::read(authorities, &readable(1 << 20)).map_err(FetchError::File)?);
    if trusted.is_empty() {
        return Err(FetchError::NoAuthority(authorities.display().to_string()));
    }
    let bytes = download(url, timeout)?;
    let (der, list) = one(&bytes)?;
    verify(&list, &trusted)?;
    if list.this_update > now.saturating_add(LEEWAY) {
        return Err(FetchError::Early(list.this_update.since(now)));
    }
    if list.next_update < now {
        return Err(FetchError::Late(now.since(list.next_update)));
    }
    if let Some(before) = in_place(out, &trusted, &readable(LIMIT))? {
        // Numbers of two authorities say nothing of one another: by way of the other's list an old one would return.
        if list.issuer != before.issuer {
            return Err(FetchError::OtherIssuer(out.display().to_string()));
        }
        match age(&list).cmp(&age(&before)) {
            Ordering::Less => {
                return Err(FetchError::Older { found: hex(&list.number), there: hex(&before.number) });
            }
            Ordering::Equal => return Ok(Fetched::Same),
            Ordering::Greater => {}
        }
    }
    let new = Private { mode: 0o644, existing: Existing::Replace, ..Private::NEW };
    files::write(out, pem("X509 CRL", &der).as_bytes(), new).map_err(FetchError::File)?;
    Ok(Fetched::Replaced)
}

/// What orders the lists of one authority: the number, big-endian without leading zeros; for those of an authority that
/// gave one number twice, when they were made.
fn age(list: &Crl) -> (usize, &[u8], Timestamp) {
    (list.number.len(), &list.number, list.this_update)
}

/// The one list in an answer.
fn one(bytes: &[u8]) -> Result<(Vec<u8>, Crl), FetchError> {
    let mut lists = revocation_lists(bytes);
    match (lists.pop(), lists.len()) {
        (Some(der), 0) => {
            let list = Crl::parse(&der).map_err(FetchError::List)?;
            Ok((der, list))
        }
        (None, _) => Err(FetchError::List(CrlError::Malformed)),
        (_, more) => Err(FetchError::Several(more + 1)),
    }
}

fn verify(list: &Crl, trusted: &[Vec<u8>]) -> Result<(), FetchError> {
    let mut wrong = CrlError::Issuer;
    for authority in trusted {
        match list.verify(authority) {
            Ok(()) => return Ok(()),
            Err(CrlError::Issuer) => {}
            Err(error) => wrong = error,
        }
    }
    Err(FetchError::List(wrong))
}

/// The list that is there; one that nobody would believe counts as none.
fn in_place(out: &Path, trusted: &[Vec<u8>], rules: &Rules) -> Result<Option<Crl>, FetchError> {
    match files::read(out, rules) {
        Ok(bytes) => Ok(one(&bytes).ok().map(|(_, list)| list).filter(|list| verify(list, trusted).is_ok())),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(FetchError::File(error)),
    }
}

fn download(url: &str, timeout: Duration) -> Result<Vec<u8>, FetchError> {
    if let Some(path) = url.strip_prefix("file://") {
        let rules = Rules { forbidden: 0, mode: 0o644, owners: Vec::new(), limit: LIMIT };
        return files::read(Path::new(path), &rules).map(|bytes| bytes.to_vec()).map_err(FetchError::File);
    }
    let secure = url.starts_with("https://");
    if !secure && !url.starts_with("http://") {
        return Err(FetchError::Scheme(url.to_owned()));
    }
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(REDIRECTS)
        // What began in secret goes on in secret.
        .https_only(secure)
        .user_agent(concat!("knockd-rs/", env!("CARGO_PKG_VERSION")));
    // Also for what begins without: it may be told to go on at a place with TLS.
    let config = config.tls_config(tls(secure)?);
    let failed = |error: ureq::Error| FetchError::Network(url.to_owned(), error.to_string());
    let mut answer = config.build().new_agent().get(url).call().map_err(failed)?;
    answer.body_mut().with_config().limit(LIMIT).read_to_vec().map_err(failed)
}

/// TLS by rustls and ring, for the authorities that the system trusts.
fn tls(needed: bool) -> Result<TlsConfig, FetchError> {
    let rules = Rules { forbidden: 0o022, mode: 0o644, owners: Vec::new(), limit: 4 << 20 };
    let file = match files::read(Path::new(SYSTEM_AUTHORITIES), &rules) {
        Ok(file) => file,
        // Then nobody at a place with TLS is believed.
        Err(_) if !needed => Default::default(),
        Err(error) => return Err(FetchError::File(error)),
    };
    let roots = ureq::tls::parse_pem(&file).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let roots = RootCerts::Specific(Arc::new(roots.collect()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
}

fn hex(number: &[u8]) -> String {
    let digits: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
    if digits.is_empty() { "0".to_owned() } else { digits }
}

/// Why there is no new list.
#[derive(Debug)]
pub enum FetchError {
    /// A file.
    File(FileError),
    /// The file of authorities holds none.
    NoAuthority(String),
    /// A way of fetching that is not known.
    Scheme(String),
    /// The network, or the server at the other end.
    Network(String, String),
    /// What came is no list that can be believed.
    List(CrlError),
    /// More than one list came.
    Several(usize),
    /// The list that is there is of another authority.
    OtherIssuer(String),
    /// The list is from the future.
    Early(Duration),
    /// The list was over when it came.
    Late(Duration),
    /// The list is older than the one that is there.
    Older {
        /// Its number, hexadecimal.
        found: String,
        /// The number of the other.
        there: String,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NoAuthority(path) => {
                write!(f, "{path} holds no certificate; give the authority's with --ca")
            }
            Self::Scheme(url) => {
                write!(f, "`{}` cannot be fetched; use http://, https:// or file:///", url.escape_debug())
            }
            Self::Network(url, error) => write!(f, "{}: {error}", url.escape_debug()),
            Self::List(error) => write!(f, "what was fetched {error}"),
            Self::Several(count) => write!(f, "{count} lists were fetched; give each a command of its own"),
            Self::OtherIssuer(path) => write!(
                f,
                "{path} holds the list of another authority; give each its own --out, or remove that file"
            ),
            Self::Early(by) => write!(
                f,
                "the list was made {} s in the future; set this machine's clock, or the authority's",
                by.as_secs()
            ),
            Self::Late(by) => {
                write!(f, "the list is over since {} s; let the authority make a new one", by.as_secs())
            }
            Self::Older { found, there } => write!(
                f,
                "the list has number {found}, and number {there}, which is newer, is here: somebody hands out an old \
                 one; what is here stays"
            ),
        }
    }
}

impl std::error::Error for FetchError {}
