//! Where a client keeps what it knows: `~/.config/knockd-rs/SERVER.toml` for keys, `~/.local/state/knockd-rs` for
//! counters (XDG Base Directory Specification). The edge.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Place, limits};
use crate::enrol::Enrolment;
use crate::files::{self, Existing, FileError, Private, Rules};
use crate::text::ServerName;

/// The client's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// For `SERVER.toml`.
    pub config: PathBuf,
    /// For the counters of each server's knocks, and what worked in which network.
    pub state: PathBuf,
}

impl Dirs {
    /// From the environment: `XDG_CONFIG_HOME` and `XDG_STATE_HOME` where they are absolute, else below `HOME`.
    /// `variable` is [`std::env::var_os`] outside tests. `None` when `HOME` is needed and is no absolute path.
    #[must_use]
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = |name, below| absolute(name).or_else(|| Some(absolute("HOME")?.join(below)));
        Some(Self {
            config: base("XDG_CONFIG_HOME", ".config")?.join("knockd-rs"),
            state: base("XDG_STATE_HOME", ".local/state")?.join("knockd-rs"),
        })
    }

    /// The file with what is known of a server.
    #[must_use]
    pub fn server_file(&self, server: &ServerName) -> PathBuf {
        self.config.join(format!("{server}.toml"))
    }

    /// The file with the last counter sent to a server.
    #[must_use]
    pub fn counter_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.counter"))
    }

    /// The file with the last step of a sequence of ports sent to a server.
    #[must_use]
    pub fn step_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.totp"))
    }

    /// The file with the last slot of a SYN sent to a server.
    #[must_use]
    pub fn slot_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.syn"))
    }

    /// The file that is locked while a knock is made and its first packet sent.
    #[must_use]
    pub fn turn_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.lock"))
    }

    /// The file with what worked in which network.
    #[must_use]
    pub fn networks_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.networks"))
    }

    /// The file that agents for a server hold a lock on.
    #[must_use]
    pub fn agent_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.agent"))
    }

    /// The file with the counter of the last sequence.
    #[must_use]
    pub fn sequence_counter_file(&self, server: &ServerName) -> PathBuf {
        self.state.join(format!("{server}.sequence"))
    }
}

/// Reads what is known of a server. The file must be readable by its owner alone.
///
/// # Errors
/// Everything that is wrong with the file or with what is in it.
pub fn load_server(dirs: &Dirs, server: &ServerName) -> Result<Enrolment, Vec<ConfigError>> {
    let path = dirs.server_file(server);
    let file = path.display().to_string();
    let rules = Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: limits::FILE };
    let dir = files::check_dir(&dirs.config, &rules.owners);
    let error = match dir.and_then(|()| files::read_text(&path, &rules)) {
        Ok(text) => return Enrolment::parse(&file, &text),
        Err(error) => error,
    };
    let file = if error.is_missing() { file } else { error.path.display().to_string() };
    let what = match error.is_missing() {
        true => format!("there is no server `{server}` here; import its bundle with: knockd-rs import FILE"),
        false => error.what(),
    };
    Err(vec![ConfigError { place: Place { file, ..Place::default() }, what }])
}

/// Writes what is known of a server, mode 0600 in a directory of mode 0700, both made where they are missing.
///
/// # Errors
/// [`FileError`]; with [`Existing::Refuse`] also when the server is known already.
pub fn save_server(
    dirs: &Dirs,
    server: &ServerName,
    enrolment: &Enrolment,
    existing: Existing,
) -> Result<PathBuf, FileError> {
    make_private_dir(&dirs.config)?;
    let path = dirs.server_file(server);
    files::write(&path, enrolment.to_toml().as_bytes(), Private { existing, ..Private::NEW })?;
    Ok(path)
}

/// The servers that this client knows, by name.
///
/// # Errors
/// [`FileError`] when the directory is there and cannot be read.
pub fn servers(dirs: &Dirs) -> Result<Vec<ServerName>, FileError> {
    let fault = |error: io::Error| FileError { path: dirs.config.clone(), fault: error.into() };
    let entries = match std::fs::read_dir(&dirs.config) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fault)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".toml")?.parse::<ServerName>().ok()));
    }
    names.sort();
    Ok(names)
}

/// Makes a directory, and those above it, for this user alone. One that is there is closed to others: it belongs
/// to this program.
pub(super) fn make_private_dir(path: &Path) -> Result<(), FileError> {
    let fault = |error: io::Error| FileError { path: path.to_owned(), fault: error.into() };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?;
    let mode = path.metadata().map_err(fault)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(fault)?;
    }
    files::check_dir(path, &files::own_owners())
}

/// A server called `home` in a directory of a test's.
#[cfg(test)]
pub(crate) fn example(base: &Path) -> super::server::Server {
    let dirs = Dirs { config: base.join("config/knockd-rs"), state: base.join("state/knockd-rs") };
    super::server::Server { dirs, name: "home".parse().unwrap(), enrolment: tests::enrolment() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{GateKey, KeyPair, Secret};
    use crate::enrol::Access;
    use crate::knock::Method;

    pub(super) fn enrolment() -> Enrolment {
        Enrolment {
            access: Access {
                host: "192.0.2.7".parse().unwrap(),
                port: 62_201,
                profile: "laptop".parse().unwrap(),
                server_key: KeyPair::from_seed([1; 32]).public(),
                gate_key: GateKey::new([2; 32]),
                psk: None,
                open: Vec::new(),
                services: [].into(),
                methods: vec![Method::Spa],
                totp_ports: 6,
                sequence: crate::knock::Ground::default(),
                duration: None,
                max_duration: None,
                expires: None,
            },
            private_key: Some(Secret::new([4; 32])),
            certificate: None,
        }
    }

    fn dirs(base: &Path) -> Dirs {
        Dirs { config: base.join("config/knockd-rs"), state: base.join("state/knockd-rs") }
    }

    #[test]
    fn a_server_is_saved_for_its_owner_alone_and_reads_back() {
        let base = tempfile::tempdir().unwrap();
        let (dirs, home) = (dirs(base.path()), "home".parse().unwrap());
        let path = save_server(&dirs, &home, &enrolment(), Existing::Refuse).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&dirs.config)), (0o600, 0o700));
        assert_eq!(load_server(&dirs, &home), Ok(enrolment()));
        assert_eq!(servers(&dirs).unwrap(), std::slice::from_ref(&home));
        assert!(save_server(&dirs, &home, &enrolment(), Existing::Refuse).is_err());
        save_server(&dirs, &home, &enrolment(), Existing::Replace).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_believed() {
        let base = tempfile::tempdir().unwrap();
        let (dirs, home) = (dirs(base.path()), "home".parse().unwrap());
        save_server(&dirs, &home, &enrolment(), Existing::Refuse).unwrap();
        std::fs::set_permissions(&dirs.config, PermissionsExt::from_mode(0o777)).unwrap();
        let shown = dirs.config.display();
        assert_eq!(
            load_server(&dirs, &home).unwrap_err().first().unwrap().to_string(),
            format!("{shown}: mode 0777 lets other users change it; run: chmod 0750 {shown}")
        );
    }

    #[test]
    fn an_unknown_server_is_told_how_to_get_known() {
        let base = tempfile::tempdir().unwrap();
        let dirs = dirs(base.path());
        let errors = load_server(&dirs, &"home".parse().unwrap()).unwrap_err();
        let path = dirs.config.join("home.toml");
        assert_eq!(
            errors.first().unwrap().to_string(),
            format!(
                "{}: there is no server `home` here; import its bundle with: knockd-rs import FILE",
                path.display()
            )
        );
        assert!(servers(&dirs).unwrap().is_empty());
    }

    #[test]
    fn a_server_file_that_others_can_read_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let (dirs, home) = (dirs(base.path()), "home".parse().unwrap());
        let path = save_server(&dirs, &home, &enrolment(), Existing::Refuse).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let shown = path.display();
        assert_eq!(
            load_server(&dirs, &home).unwrap_err().first().unwrap().to_string(),
            format!("{shown}: mode 0640 lets other users read it; run: chmod 0600 {shown}")
        );
    }
}
