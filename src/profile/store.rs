//! Writing and removing profile files, for `knockd-rs profile add` and `remove`.

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ports::{DEFAULT_GAP, DEFAULT_TOTAL};
use super::{
    DEFAULT_DURATION, DEFAULT_GRANTS, DEFAULT_MAX, Method, NewKeys, Opens, RotateError, Server, read, rotated,
};
use crate::config::{ConfigError, PROFILES_DIR, Report, Settings, Syntax};
use crate::crypto::{Psk, PublicKey};
use crate::files::{self, FileError, Private, SYSTEM_USER};
use crate::grant::Uses;
use crate::text::{Moment, Network, PortRange, ProfileName, Span};

/// What a new profile is to say; `None` leaves a key out, with its default in a comment.
#[derive(Clone, Debug)]
pub struct NewProfile {
    /// The client's key.
    pub public_key: PublicKey,
    /// The shared secret, if there is to be one.
    pub psk: Option<Psk>,
    /// What it may open; at least one.
    pub open: Vec<Opens>,
    /// How long a grant lasts by default.
    pub duration: Option<Span>,
    /// The longest grant.
    pub max_duration: Option<Span>,
    /// How many connections a grant is for.
    pub connections: Uses,
    /// For which other addresses it may ask.
    pub other_addresses: Vec<Network>,
    /// How it may knock; none for the default.
    pub methods: Vec<Method>,
    /// From when on its knocks are refused.
    pub expires: Option<Moment>,
}

impl NewProfile {
    /// The file's text: every key with its meaning, those left out as comments.
    #[must_use]
    pub fn to_toml(&self, name: &ProfileName) -> Zeroizing<String> {
        let (open, others) = (list(&self.open), list(&self.other_addresses));
        let longest = DEFAULT_MAX.max(self.duration.unwrap_or_default());
        let durations = [
            span("duration", self.duration, DEFAULT_DURATION),
            span("max_duration", self.max_duration, longest),
        ];
        let methods = match self.methods.as_slice() {
            [] => format!("#methods = {}", list(&[Method::Spa])),
            methods => format!("methods = {}", list(methods)),
        };
        let rest = format!("#max_grants = {DEFAULT_GRANTS}\n#enabled = true\n{methods}");
        let entries = [
            (PUBLIC_KEY, format!("public_key = \"{}\"", self.public_key)),
            (OPEN, format!("open = {open}")),
            (DURATIONS, durations.join("\n")),
            (CONNECTIONS, format!("connections = \"{}\"", self.connections)),
            (OTHER_ADDRESSES, format!("other_addresses = {others}")),
            (REST, rest),
            (EXPIRES, expires(self.expires)),
            (FRESHNESS, "#max_age = \"3m\"\n#max_ahead = \"3m\"".to_owned()),
        ];
        // Room for all of it: growing would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(4096 + open.len() + others.len()));
        let mut add = |pieces: &[&str]| pieces.iter().for_each(|piece| text.push_str(piece));
        add(&[
            "# Client `",
            name.as_str(),
            "` of knockd-rs; see knockd-rs-profile(5). In force after: knockd-rs reload\n",
        ]);
        for (comment, line) in &entries {
            add(&["\n# ", comment, "\n", line, "\n"]);
            if *comment == PUBLIC_KEY {
                match self.psk.as_ref().map(Psk::to_base64) {
                    Some(psk) => add(&["\n# ", PSK, "\npsk = \"", &psk, "\"\n"]),
                    None => add(&["\n# ", NO_PSK, "\n#psk = \"\"\n"]),
                }
            }
        }
        text
    }
}

/// A key with the value wanted, or as a comment with its default.
fn span(key: &str, wanted: Option<Span>, default: Span) -> String {
    match wanted {
        Some(span) => format!("{key} = \"{span}\""),
        None => format!("#{key} = \"{default}\""),
    }
}

fn expires(wanted: Option<Moment>) -> String {
    wanted
        .map_or_else(|| "#expires = \"2027-01-31T12:00:00Z\"".to_owned(), |at| format!("expires = \"{at}\""))
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

const PUBLIC_KEY: &str = "The client's X25519 public key.";
const PSK: &str = "A secret shared with the client: keeps knocks safe should X25519 ever be broken.";
const NO_PSK: &str =
    "32 random bytes in base64, shared with the client: keeps knocks safe should X25519 be broken.";
const OPEN: &str = "What it may open: services from knockd-rs.toml, or ports such as tcp/22.";
const DURATIONS: &str = "How long a port stays open when the knock does not say, and at most: 1s to 30d.";
const CONNECTIONS: &str =
    "\"single\": each grant lets one connection in. \"many\": the client may ask for any number.";
const OTHER_ADDRESSES: &str = "Networks, besides the address it knocks from, for which it may open ports.";
const REST: &str = "Live grants at one time, whether its knocks are heard, and how it may knock.";
const EXPIRES: &str = "From when on its knocks are refused, and no grant of it lasts longer; in UTC.";
const FRESHNESS: &str =
    "How old, or how far ahead of this server's clock, a knock may be: [freshness] unless set here.";

/// Writes `profiles.d/NAME.toml` for `profile add`: mode 0640, and group `knockd-rs` where this runs as root and
/// that group exists. The text is read back before it is written, by the rules of [`crate::config::load`].
///
/// # Errors
/// [`StoreError`]: the name is taken, the profile would be refused, or the file cannot be written.
pub fn write_profile(
    dir: &Path,
    name: &ProfileName,
    profile: &NewProfile,
    settings: &Settings,
) -> Result<PathBuf, StoreError> {
    write_text(dir, name, &profile.to_toml(name), settings)
}

/// What a new profile without a key is to say: a fixed sequence.
#[derive(Clone, Debug)]
pub struct NewPlain {
    /// The sequence.
    pub ports: Vec<PortRange>,
    /// What it opens; at least one.
    pub open: Vec<Opens>,
    /// How long a grant lasts.
    pub duration: Option<Span>,
    /// How many connections a grant is for.
    pub connections: Uses,
    /// The longest pause between two knocks, and the longest time for all; defaults where there is none.
    pub times: (Option<Span>, Option<Span>),
    /// From when on its knocks are refused.
    pub expires: Option<Moment>,
}

impl NewPlain {
    /// The file's text. The table comes last, as TOML has it.
    #[must_use]
    pub fn to_toml(&self, name: &ProfileName) -> String {
        format!(
            "# Client `{name}` of knockd-rs; see knockd-rs-profile(5). In force after: knockd-rs reload\n\n\
             # {OPEN}\nopen = {}\n\n# How long a port stays open: 1s to 30d.\n{}\n\n# {CONNECTIONS}\nconnections = \"{}\"\n\n\
             # {INSECURE}\nmethods = [\"plain\"]\ninsecure = true\n\n\
             # {EXPIRES}\n{}\n\n# {SEQUENCE}\n[plain]\nports = {}\n{}\n{}\n",
            list(&self.open),
            span("duration", self.duration, DEFAULT_DURATION),
            self.connections,
            expires(self.expires),
            list(&self.ports),
            span("gap", self.times.0, DEFAULT_GAP),
            span("total", self.times.1, DEFAULT_TOTAL),
        )
    }
}

const INSECURE: &str =
    "A fixed sequence is replayable: whoever sees it once can open these ports from then on.";
const SEQUENCE: &str =
    "The ports in their order, the longest pause between two knocks, and the longest time for all.";

/// As [`write_profile`], for a profile without a key.
///
/// # Errors
/// As [`write_profile`].
pub fn write_plain(
    dir: &Path,
    name: &ProfileName,
    profile: &NewPlain,
    settings: &Settings,
) -> Result<PathBuf, StoreError> {
    write_text(dir, name, &profile.to_toml(name), settings)
}

/// Why this text cannot become the profile of this name: the name is taken, or the daemon would refuse it. Without
/// settings nothing is said of services.
#[must_use]
pub fn refused_profile(
    dir: &Path,
    name: &ProfileName,
    text: &str,
    settings: Option<&Settings>,
) -> Option<StoreError> {
    let report = Report::new(&format!("{PROFILES_DIR}/{name}.toml"));
    let server = Server {
        services: settings.map(|settings| &settings.services),
        freshness: settings.map(|settings| settings.freshness).unwrap_or_default(),
    };
    read(name.clone(), text, Syntax::Toml, server, &report);
    let (errors, _) = report.into_parts();
    if !errors.is_empty() {
        return Some(StoreError::Refused(errors));
    }
    let file = |ending| dir.join(PROFILES_DIR).join(format!("{name}.{ending}"));
    let is_taken = ["toml", "json"].into_iter().any(|ending| file(ending).symlink_metadata().is_ok());
    is_taken.then(|| StoreError::Taken(name.clone()))
}

fn write_text(
    dir: &Path,
    name: &ProfileName,
    text: &str,
    settings: &Settings,
) -> Result<PathBuf, StoreError> {
    if let Some(error) = refused_profile(dir, name, text, Some(settings)) {
        return Err(error);
    }
    make_dir(&dir.join(PROFILES_DIR))?;
    let path = dir.join(PROFILES_DIR).join(format!("{name}.toml"));
    let private = Private { mode: 0o640, group: daemon_group(), ..Private::NEW };
    match files::write(&path, text.as_bytes(), private) {
        Err(FileError { fault: files::FileFault::Exists, .. }) => Err(StoreError::Taken(name.clone())),
        other => Ok(other.map(|()| path)?),
    }
}

/// Gives a profile new keys: the file is replaced whole, with its owner and mode, and says the same but for the keys. Where
/// the daemon would refuse the directory with it, the file is put back.
///
/// # Errors
/// [`StoreError`]; the file is then as it was.
pub fn rotate_profile(
    dir: &Path,
    name: &ProfileName,
    keys: &NewKeys,
    now: Moment,
) -> Result<PathBuf, StoreError> {
    let profiles = dir.join(PROFILES_DIR);
    if profiles.join(format!("{name}.json")).exists() {
        return Err(StoreError::Json(name.clone()));
    }
    // A link's own place is for the link.
    let link = profiles.join(format!("{name}.toml"));
    let path = std::fs::canonicalize(&link).map_err(|_| StoreError::Unknown(name.clone()))?;
    let failed = |error: io::Error| FileError { path: path.clone(), fault: error.into() };
    let rules = files::Rules {
        forbidden: 0o027,
        mode: 0o640,
        owners: files::system_owners(),
        limit: crate::config::limits::FILE,
    };
    let before = files::read_text(&path, &rules)?;
    let text = rotated(&before, keys, now).map_err(StoreError::Rotate)?;
    let was = std::fs::metadata(&path).map_err(failed)?;
    let is_root = rustix::process::geteuid().is_root();
    let private = Private {
        mode: was.mode() & 0o7777,
        user: is_root.then(|| was.uid()),
        group: is_root.then(|| was.gid()),
        existing: files::Existing::Replace,
    };
    files::write(&path, text.as_bytes(), private)?;
    // A key that another profile has, and what else a daemon would refuse of all files together.
    if let Err(errors) = crate::config::load(dir) {
        files::write(&path, before.as_bytes(), private)?;
        return Err(StoreError::Refused(errors));
    }
    Ok(link)
}

/// Removes a profile's file, whichever its ending; both where there are two, of which the other would be in force.
///
/// # Errors
/// [`StoreError::Unknown`] when there is none, [`StoreError::File`] when it cannot be removed.
pub fn remove_profile(dir: &Path, name: &ProfileName) -> Result<PathBuf, StoreError> {
    let profiles = dir.join(PROFILES_DIR);
    let paths = ["toml", "json"].map(|ending| profiles.join(format!("{name}.{ending}")));
    // symlink_metadata: a link that leads nowhere is there all the same.
    let mut removed = Err(StoreError::Unknown(name.clone()));
    for path in paths.into_iter().filter(|path| path.symlink_metadata().is_ok()) {
        let gone = std::fs::remove_file(&path).and_then(|()| files::sync_dir(&profiles));
        gone.map_err(|error| FileError { path: path.clone(), fault: error.into() })?;
        removed = removed.or(Ok(path));
    }
    removed
}

/// The daemon's group, where this runs as root and so can give files to it.
fn daemon_group() -> Option<u32> {
    rustix::process::geteuid().is_root().then(|| files::group(SYSTEM_USER)).flatten()
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new().mode(0o750).create(path);
    match made {
        Ok(()) => {
            let given =
                daemon_group().map_or(Ok(()), |group| std::os::unix::fs::chown(path, None, Some(group)));
            Ok(given.map_err(|error| FileError { path: path.to_owned(), fault: error.into() })?)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FileError { path: path.to_owned(), fault: error.into() }.into()),
    }
}

/// A profile could not be added or removed.
#[derive(Debug)]
pub enum StoreError {
    /// There is a profile of this name.
    Taken(ProfileName),
    /// There is no profile of this name.
    Unknown(ProfileName),
    /// Its file is JSON, which a tool writes.
    Json(ProfileName),
    /// It cannot get new keys.
    Rotate(RotateError),
    /// The daemon would refuse it.
    Refused(Vec<ConfigError>),
    /// The file cannot be written or removed.
    File(FileError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(name) => {
                write!(
                    f,
                    "there is a profile `{name}`; remove it first (knockd-rs profile remove {name}) or choose another name"
                )
            }
            Self::Unknown(name) => write!(f, "there is no profile `{name}`; see: knockd-rs profile list"),
            Self::Json(name) => write!(
                f,
                "{PROFILES_DIR}/{name}.json belongs to the tool that writes it; let that write new keys, and the old ones \
                 under \"previous\""
            ),
            Self::Rotate(error) => error.fmt(f),
            Self::Refused(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}
