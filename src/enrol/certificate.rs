//! Which certificate a client knocks with: the paths of its files, in the client's own file.

use std::path::{Path, PathBuf};

use crate::config::{Table, value};

/// Where a client has its certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCertificate {
    /// In two files.
    Pem {
        /// The certificate.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// In one PKCS#12 file.
    Pkcs12(PathBuf),
}

impl OwnCertificate {
    /// The paths that a client's file names; `None` when there are none, or they make no sense.
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let path =
            |key| table.read_with(key, "use the path of a file", |text| Ok(PathBuf::from(text))).map(value);
        let (certificate, key, pkcs12) = (path("certificate"), path("certificate_key"), path("pkcs12"));
        match (certificate, key, pkcs12) {
            (Some(certificate), Some(key), None) => Some(Self::Pem { certificate, key }),
            (None, None, Some(file)) => Some(Self::Pkcs12(file)),
            (None, None, None) => None,
            _ => {
                table.error(
                    "certificate",
                    "needs certificate_key, and no pkcs12 besides; import the bundle again",
                );
                None
            }
        }
    }

    /// The lines of a client's file.
    pub(super) fn to_toml(&self) -> String {
        let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
        match self {
            Self::Pem { certificate, key } => {
                format!("certificate = {}\ncertificate_key = {}\n", quoted(certificate), quoted(key))
            }
            Self::Pkcs12(file) => format!("pkcs12 = {}\n", quoted(file)),
        }
    }
}

/// The keys that are read here.
pub(super) const KEYS: &[&str] = &["certificate", "certificate_key", "pkcs12"];
