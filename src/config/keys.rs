//! `server.key` and `gate.key`: one line of base64 each, read from the configuration directory or from systemd's
//! credentials, made when they are missing. The edge.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::Report;
use super::fields::key_hint;
use super::limits;
use crate::crypto::{GateKey, KeyPair, Secret};
use crate::files::{self, FileError, FileFault, Private, Rules, SYSTEM_USER};

/// The file with the server's X25519 secret.
pub const SERVER_KEY: &str = "server.key";
/// The file with the secret that every client of this server knows.
pub const GATE_KEY: &str = "gate.key";

/// Reads `server.key`; what is wrong goes to the report.
pub(super) fn server(dir: &Path, credentials: Option<&Path>, owners: &[u32]) -> (Option<KeyPair>, Report) {
    let report = Report::new(SERVER_KEY);
    let secret = read(dir, credentials, SERVER_KEY, owners, &report);
    (secret.map(|secret| KeyPair::from_seed(*secret.expose())), report)
}

/// Reads `gate.key`; what is wrong goes to the report.
pub(super) fn gate(dir: &Path, credentials: Option<&Path>, owners: &[u32]) -> (Option<GateKey>, Report) {
    let report = Report::new(GATE_KEY);
    (read(dir, credentials, GATE_KEY, owners, &report), report)
}

fn read(
    dir: &Path,
    credentials: Option<&Path>,
    name: &str,
    owners: &[u32],
    report: &Report,
) -> Option<Secret<32>> {
    let text = match find(dir, credentials, name, owners) {
        Ok(text) => text,
        Err(error) => {
            let what = if error.is_missing() {
                "there is no such key; make it with: knockd-rs init".to_owned()
            } else {
                error.what()
            };
            report.error(None, "", what);
            return None;
        }
    };
    let line = text.trim_ascii();
    match Secret::<32>::from_base64(line) {
        Ok(secret) if secret == Secret::new([0; 32]) => {
            report.error(1, "", "is all zero, which is no secret; remove it and run: knockd-rs init");
            None
        }
        Ok(secret) => Some(secret),
        Err(_) => {
            report.error(1, "", key_hint(line));
            None
        }
    }
}

/// The key's text: the service manager's where it has passed one on, else the file's.
fn find(
    dir: &Path,
    credentials: Option<&Path>,
    name: &str,
    owners: &[u32],
) -> Result<Zeroizing<String>, FileError> {
    if let Some(credentials) = credentials {
        // systemd owns these and shows its access list as group bits (0440): only the world is kept out.
        let rules = Rules { forbidden: 0o007, mode: 0o400, owners: Vec::new(), limit: limits::KEY_FILE };
        match files::read_text(&credentials.join(name), &rules) {
            Err(error) if error.is_missing() => {}
            other => return other,
        }
    }
    let rules = Rules { forbidden: 0o177, mode: 0o600, owners: owners.to_vec(), limit: limits::KEY_FILE };
    files::read_text(&dir.join(name), &rules)
}

/// Which keys were made, and which had been there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeKeys {
    /// The files made.
    pub made: Vec<PathBuf>,
    /// The files left as they were.
    pub kept: Vec<PathBuf>,
}

/// Makes `server.key` and `gate.key` in `dir` where they are missing: mode 0600, owned by the daemon's user when
/// this runs as root and that user exists. A key that is there is never touched, good or bad.
///
/// # Errors
/// [`FileError`] when a file cannot be written, or when the system has no random bytes to give.
pub fn make_keys_if_missing(dir: &Path) -> Result<MadeKeys, FileError> {
    let root = rustix::process::geteuid().is_root();
    let owner = root.then(|| files::user(SYSTEM_USER)).flatten();
    let private = Private {
        user: owner.map(|account| account.user),
        group: owner.map(|account| account.group),
        ..Private::NEW
    };
    let mut keys = MadeKeys::default();
    for name in [SERVER_KEY, GATE_KEY] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            keys.kept.push(path);
            continue;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| FileError {
            path: path.clone(),
            fault: FileFault::Other(std::io::Error::other(error)),
        })?;
        let mut line = Zeroizing::new(String::with_capacity(64));
        line.push_str(&Secret::<32>::new(*bytes).to_base64());
        line.push('\n');
        match files::write(&path, line.as_bytes(), private) {
            // Somebody else made it in this moment.
            Err(FileError { fault: FileFault::Exists, .. }) => keys.kept.push(path),
            other => other.map(|()| keys.made.push(path))?,
        }
    }
    Ok(keys)
}

/// Names the server key that is in force: what replay marks are bound to.
///
/// # Errors
/// What is wrong with `server.key`.
pub fn server_identity(dir: &Path) -> Result<[u8; 8], Vec<super::ConfigError>> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let (keys, report) = server(dir, credentials.as_deref(), &files::system_owners());
    keys.map(|keys| keys.public().identity()).ok_or_else(|| report.into_parts().0)
}
