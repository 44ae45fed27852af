//! The files that `[certificate_authority]` names, as bytes: what is in them is for the worker to read. The edge.

use std::path::{Path, PathBuf};

use super::certificates::CertificateAuthority;
use crate::files::{self, FileError, Rules};

/// The bytes of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Authorities' certificates.
    pub authorities: Vec<Vec<u8>>,
    /// Revocation lists.
    pub lists: Vec<Vec<u8>>,
    /// Clients' certificates that are too large for a packet.
    pub leaves: Vec<Vec<u8>>,
}

/// The longest file of authorities.
const AUTHORITIES: u64 = 1 << 20;
/// The longest file of revocation lists: one of 4 MiB as PEM.
const LISTS: u64 = 6 << 20;
/// The longest file of one certificate.
const LEAF: u64 = 16 << 10;
/// How many files the directory of certificates may hold.
const MAX_LEAVES: usize = 1024;

/// Reads what there is; what could not be read is told. A file of authorities has to belong to the system's users, as
/// whoever writes it decides who may knock. Lists and clients' certificates are signed: theirs may be anybody's.
#[must_use]
pub fn read_trust(dir: &Path, authority: &CertificateAuthority, owners: &[u32]) -> (Trust, Vec<FileError>) {
    let mut faults = Vec::new();
    let mut read = |path: &Path, owners: &[u32], limit| {
        let rules = Rules { forbidden: 0o022, mode: 0o644, owners: owners.to_vec(), limit };
        match files::read(path, &rules) {
            Ok(bytes) => Some(bytes.to_vec()),
            Err(fault) => {
                faults.push(fault);
                None
            }
        }
    };
    // All of them or none: one that cannot be read could be the one that has revoked another.
    let authorities: Option<Vec<Vec<u8>>> = {
        let read: Vec<_> =
            authority.ca.iter().map(|path| read(&dir.join(path), owners, AUTHORITIES)).collect();
        read.into_iter().collect()
    };
    let authorities = authorities.unwrap_or_default();
    let lists = authority.crl.iter().filter_map(|path| read(&dir.join(path), &[], LISTS)).collect();
    let leaves: Vec<PathBuf> =
        authority.leaves.as_ref().map(|path| leaf_files(&dir.join(path))).unwrap_or_default();
    let leaves = leaves.iter().filter_map(|path| read(path, &[], LEAF)).collect();
    (Trust { authorities, lists, leaves }, faults)
}

/// The files that end in .pem, .crt, .cer or .der, by name. A directory that is not there has none.
fn leaf_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let ends = |path: &PathBuf| {
        path.extension()
            .is_some_and(|ending| ["pem", "crt", "cer", "der"].iter().any(|known| ending == *known))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(ends).take(MAX_LEAVES).collect();
    files.sort();
    files
}
