//! `--cert`, `--key`, `--pkcs12`: the certificate that a client knocks with, from its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use zeroize::Zeroizing;

use super::Failure;
use crate::client::cert::Identity;
use crate::enrol::OwnCertificate;
use crate::files::{self, FileError, Rules};
use crate::passphrase;
use crate::x509::keystore::{self, KeyError};

/// The longest file of keys and certificates.
const LIMIT: u64 = 256 << 10;

/// Which certificate to knock with.
#[derive(Debug, Args)]
pub(super) struct CertificateFiles {
    /// Knock with this certificate: PEM or DER; further ones in the file are passed over.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key: PEM, encrypted or not.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Knock with the certificate in this PKCS#12 file.
    #[arg(long, value_name = "FILE", conflicts_with = "cert")]
    pkcs12: Option<PathBuf>,
    /// The file whose first line opens the key; else it is asked for.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

impl CertificateFiles {
    /// The files that the command line names, made absolute so that they are found from everywhere.
    pub(super) fn named(&self) -> Result<Option<OwnCertificate>, Failure> {
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
        };
        match (&self.cert, &self.key, &self.pkcs12) {
            (Some(certificate), Some(key), _) => {
                Ok(Some(OwnCertificate::Pem { certificate: whole(certificate)?, key: whole(key)? }))
            }
            (.., Some(file)) => Ok(Some(OwnCertificate::Pkcs12(whole(file)?))),
            _ => Ok(None),
        }
    }

    /// Reads key and certificate.
    pub(super) fn load(&self, files: &OwnCertificate) -> Result<Arc<Identity>, Failure> {
        load(files, &|of| {
            let what = format!("Passphrase of {}", of.display());
            passphrase::read(self.passphrase_file.as_deref(), &what)
        })
    }
}

/// Reads key and certificate; `passphrase` is asked for that of a file, if it has one.
pub(super) fn load(files: &OwnCertificate, passphrase: &Passphrase<'_>) -> Result<Arc<Identity>, Failure> {
    let passphrase = |of: &Path| passphrase(of).map_err(Unread::Passphrase);
    let (key, certificates, place) = match files {
        OwnCertificate::Pem { certificate, key } => {
            let bytes = secret(key)?;
            let opened = keystore::read_key(&bytes, || passphrase(key));
            let opened = opened.map_err(|error: Unread| error.about(key))?;
            let certificates = crate::x509::certificates(&public(certificate)?);
            (opened, certificates, certificate)
        }
        OwnCertificate::Pkcs12(file) => {
            let passphrase = passphrase(file).map_err(|error| error.about(file))?;
            let store = keystore::read_pkcs12(&secret(file)?, &passphrase);
            let store = store.map_err(|error| Unread::Key(error).about(file))?;
            (store.key, store.certificates, file)
        }
    };
    let identity = Identity::new(&key, &certificates);
    identity.map(Arc::new).map_err(|error| Failure::Broken(vec![format!("{}: {error}", place.display())]))
}

/// Gives the passphrase of a file.
pub(super) type Passphrase<'a> = dyn Fn(&Path) -> Result<Zeroizing<Vec<u8>>, FileError> + 'a;

/// Why there is no key.
enum Unread {
    Key(KeyError),
    Passphrase(FileError),
}

impl From<KeyError> for Unread {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl Unread {
    fn about(self, file: &Path) -> Failure {
        match self {
            Self::Key(error) => Failure::Broken(vec![format!("{}: {error}", file.display())]),
            Self::Passphrase(error) => {
                Failure::Failed(format!("{error}; name a file with --passphrase-file"))
            }
        }
    }
}

/// A file that its owner alone may read.
fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let rules = Rules { forbidden: 0o077, mode: 0o600, owners: files::own_owners(), limit: LIMIT };
    files::read(path, &rules).map_err(|error| Failure::Broken(vec![error.to_string()]))
}

/// A file that everybody may read.
fn public(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let rules = Rules { forbidden: 0o022, mode: 0o644, owners: Vec::new(), limit: LIMIT };
    files::read(path, &rules).map_err(|error| Failure::Broken(vec![error.to_string()]))
}
