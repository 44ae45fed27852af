//! The configuration directory → [`Configuration`]: finds the files, reads them, and makes the checks that need
//! more than one of them. The edge.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::certificates::{self, Certificates};
use super::document::Syntax;
use super::error::{ConfigError, ConfigWarning, Report};
use super::fields::Seen;
use super::keys;
use super::limits;
use super::settings::Settings;
use super::together;
use super::trust::{Trust, read_trust};
use zeroize::Zeroizing;

use crate::crypto::{GateKey, KeyPair};
use crate::files::{self, FileFault, Rules};
use crate::profile::{self, Profile, ReadProfile, Server};
use crate::text::{Moment, ProfileName};

/// Where the configuration of the system's daemon is.
pub const CONFIG_DIR: &str = "/etc/knockd-rs";
/// The daemon's settings, in the configuration directory.
pub const SETTINGS_FILE: &str = "knockd-rs.toml";
/// The directory with one file for each client, in the configuration directory.
pub const PROFILES_DIR: &str = "profiles.d";

/// What complaints about the files of `[certificate_authority]` name in place of a file.
pub const AUTHORITIES: &str = "[certificate_authority]";

/// A whole configuration: every value checked by itself and with the others.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The daemon's settings.
    pub settings: Settings,
    /// The clients, by name; no two have the same name or key.
    pub profiles: Vec<Profile>,
    /// The server's key pair.
    pub server: KeyPair,
    /// The secret of the first check.
    pub gate: GateKey,
    /// What the settings say about certificates.
    pub certificates: Certificates,
    /// The files of `[certificate_authority]`.
    pub trust: Trust,
    /// What works and may not be what was meant.
    pub warnings: Vec<ConfigWarning>,
}

impl Configuration {
    /// A sentence about each profile whose time is over.
    #[must_use]
    pub fn expired(&self, at: Moment) -> Vec<String> {
        let over = self.profiles.iter().filter(|profile| profile.enabled && profile.is_over(at));
        let sentence = |profile: &Profile| {
            let (name, expires) = (&profile.name, profile.expires.unwrap_or_default());
            format!(
                "the profile `{name}` was good until {expires}: its knocks are refused; set a later `expires`, or remove it: \
                 knockd-rs profile remove {name}"
            )
        };
        over.map(sentence).collect()
    }
}

/// Loads `/etc/knockd-rs` or another directory like it. Keys come from `$CREDENTIALS_DIRECTORY` (`systemd.exec(5)`)
/// where that has them. No settings file means all defaults.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines.
pub fn load(dir: &Path) -> Result<Configuration, Vec<ConfigError>> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    load_from(dir, credentials.as_deref())
}

/// As [`load`], with the directory of credentials as an argument.
///
/// # Errors
/// As [`load`].
pub fn load_from(dir: &Path, credentials: Option<&Path>) -> Result<Configuration, Vec<ConfigError>> {
    match load_sound_from(dir, credentials, None) {
        Ok((configuration, errors)) if errors.is_empty() => Ok(configuration),
        Ok((_, errors)) | Err(errors) => Err(errors),
    }
}

/// As [`load`], for a start, where there is no old configuration to go on with, and where not to start would leave
/// ports unguarded or nobody able to knock. Profiles that are broken are left out; in place of broken settings those
/// in `last_good` are taken, the copy that [`keep_good`] made. What is wrong is told.
///
/// # Errors
/// As [`load`], when the keys are wrong, or there is no good copy of broken settings.
pub fn load_sound(
    dir: &Path,
    last_good: &Path,
) -> Result<(Configuration, Vec<ConfigError>), Vec<ConfigError>> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    load_sound_from(dir, credentials.as_deref(), Some(last_good))
}

/// Keeps a copy of settings that were accepted, for a start that finds broken ones. There is no secret in them.
///
/// # Errors
/// [`FileError`](files::FileError) when the copy cannot be written.
pub fn keep_good(dir: &Path, last_good: &Path) -> Result<(), files::FileError> {
    let rules = Rules { forbidden: 0o022, mode: 0o644, owners: files::system_owners(), limit: limits::FILE };
    let text = match files::read_text(&dir.join(SETTINGS_FILE), &rules) {
        Ok(text) => text,
        Err(error) if error.is_missing() => Zeroizing::new(String::new()),
        Err(error) => return Err(error),
    };
    let private = files::Private { existing: files::Existing::Replace, ..files::Private::NEW };
    files::write(last_good, text.as_bytes(), private)
}

fn load_sound_from(
    dir: &Path,
    credentials: Option<&Path>,
    last_good: Option<&Path>,
) -> Result<(Configuration, Vec<ConfigError>), Vec<ConfigError>> {
    let mut loader = Loader { dir, owners: files::system_owners(), errors: Vec::new(), warnings: Vec::new() };
    if !dir.exists() {
        let report = Report::new(&dir.display().to_string());
        report.error(
            None,
            "",
            "there is no such directory; name another one, or make it and run: knockd-rs init",
        );
        return Err(report.into_parts().0);
    }
    loader.check_dir(dir, ".");
    let mut settings = loader.settings();
    let mut is_tolerable: fn(&ConfigError) -> bool =
        |error| is_about_a_profile(error) || is_about_files(error);
    if loader.errors.iter().any(is_about_settings) {
        if let Some(good) = last_good.and_then(|path| loader.last_good(path)) {
            settings = Some(good);
            is_tolerable =
                |error| is_about_a_profile(error) || is_about_settings(error) || is_about_files(error);
        }
    }
    let (server, report) = keys::server(dir, credentials, &loader.owners);
    loader.take(report);
    let (gate, report) = keys::gate(dir, credentials, &loader.owners);
    loader.take(report);
    let profiles = loader.profiles(settings.as_ref().map(|(settings, _)| settings));
    let (settings, certificates) = settings.map_or((None, Certificates::default()), |(s, c)| (Some(s), c));
    let trust = loader.trust(&certificates);
    let (settings_of, server_of) = (settings.as_ref(), server.as_ref());
    loader.take(together::rules(settings_of, &certificates.rules, &profiles));
    if profiles.is_empty() && certificates.rules.is_empty() && loader.errors.is_empty() {
        loader.take(together::nobody());
    }
    together::profiles(settings_of, server_of, &profiles).into_iter().for_each(|report| loader.take(report));
    let Loader { mut errors, mut warnings, .. } = loader;
    errors.sort();
    warnings.sort();
    match (settings, server, gate) {
        (Some(settings), Some(server), Some(gate)) if errors.iter().all(is_tolerable) => {
            let is_sound = |file: &str| errors.iter().all(|error| error.place.file != file);
            let sound = profiles.into_iter().filter(|(file, _)| is_sound(file));
            let profiles = sound.map(|(_, read)| read.profile).collect();
            Ok((Configuration { settings, profiles, server, gate, certificates, trust, warnings }, errors))
        }
        _ => Err(errors),
    }
}

fn is_about_a_profile(error: &ConfigError) -> bool {
    error.place.file.strip_prefix(PROFILES_DIR).is_some_and(|rest| rest.starts_with('/'))
}

/// Without its authorities' files a start goes on: nobody knocks with a certificate then, and all others do.
fn is_about_files(error: &ConfigError) -> bool {
    error.place.file == AUTHORITIES
}

fn is_about_settings(error: &ConfigError) -> bool {
    error.place.file == SETTINGS_FILE
}

struct Loader<'a> {
    dir: &'a Path,
    owners: Vec<u32>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
}

impl Loader<'_> {
    fn take(&mut self, report: Report) {
        let (errors, warnings) = report.into_parts();
        self.errors.extend(errors);
        self.warnings.extend(warnings);
    }

    fn check_dir(&mut self, path: &Path, name: &str) {
        if let Err(error) = files::check_dir(path, &self.owners) {
            if !error.is_missing() {
                let report = Report::new(name);
                report.error(None, "", error.what());
                self.take(report);
            }
        }
    }

    /// `None` when the file cannot be understood at all.
    fn settings(&mut self) -> Option<(Settings, Certificates)> {
        let rules = Rules { forbidden: 0o022, mode: 0o644, owners: self.owners.clone(), limit: limits::FILE };
        let path = self.dir.join(SETTINGS_FILE);
        // A link that leads nowhere is a mistake, and not "no settings".
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Some((Settings::default(), Certificates::default()));
        }
        let report = Report::new(SETTINGS_FILE);
        let text = self.text(SETTINGS_FILE, &rules, &report);
        if text.as_ref().is_some_and(|text| text.is_empty()) {
            // What a file is for a moment that is written in place, or for good after a crash: no wish to guard nothing.
            report.error(None, "", EMPTY);
        }
        let settings = text.and_then(|text| read(&text, &report));
        self.take(report);
        settings
    }

    /// The copy of settings that were good once; `None` when there is none, or this release does not accept it.
    fn last_good(&self, path: &Path) -> Option<(Settings, Certificates)> {
        let rules = Rules { forbidden: 0o022, mode: 0o644, owners: self.owners.clone(), limit: limits::FILE };
        let text = files::read_text(path, &rules).ok()?;
        let report = Report::new(SETTINGS_FILE);
        let settings = read(&text, &report)?;
        report.into_parts().0.is_empty().then_some(settings)
    }

    fn text(&self, file: &str, rules: &Rules, report: &Report) -> Option<Zeroizing<String>> {
        let read = files::read_text(&self.dir.join(file), rules);
        let complain = |error: files::FileError| {
            let line = if let FileFault::NotText { line } = error.fault { Some(line) } else { None };
            report.error(line, "", error.what());
        };
        read.map_err(complain).ok()
    }

    fn profiles(&mut self, settings: Option<&Settings>) -> Vec<(String, ReadProfile)> {
        self.check_dir(&self.dir.join(PROFILES_DIR), PROFILES_DIR);
        let server = Server {
            services: settings.map(|settings| &settings.services),
            freshness: settings.map(|settings| settings.freshness).unwrap_or_default(),
        };
        let rules = Rules { forbidden: 0o027, mode: 0o640, owners: self.owners.clone(), limit: limits::FILE };
        let mut profiles = Vec::new();
        for (name, file, syntax) in self.profile_files() {
            let report = Report::new(&file);
            let text = self.text(&file, &rules, &report);
            let read = text.and_then(|text| profile::read(name, &text, syntax, server, &report));
            profiles.extend(read.map(|read| (file, read)));
            self.take(report);
        }
        profiles
    }

    /// The files of the authorities. Without their certificates nobody can knock with one: an error. What else is
    /// missing keeps people out, and may come later: a warning.
    fn trust(&mut self, certificates: &Certificates) -> Trust {
        let Some(authority) = &certificates.authority else { return Trust::default() };
        let (trust, faults) = read_trust(self.dir, authority, &self.owners);
        let report = Report::new(AUTHORITIES);
        for fault in faults {
            let is_authority = authority.ca.iter().any(|path| self.dir.join(path) == fault.path);
            match is_authority {
                true => report.error(None, "", fault.to_string()),
                false => report.warn(None, "", fault.to_string()),
            }
        }
        self.take(report);
        trust
    }

    /// The files that hold profiles, by name; complains about the others.
    fn profile_files(&mut self) -> Vec<(ProfileName, String, Syntax)> {
        let report = Report::new(PROFILES_DIR);
        let names = match names_in(&self.dir.join(PROFILES_DIR)) {
            Ok(names) => names,
            Err(what) => {
                report.error(None, "", what);
                self.take(report);
                return Vec::new();
            }
        };
        self.take(report);
        let (mut files, mut seen) = (Vec::new(), Seen::new());
        for name in names {
            let file = format!("{PROFILES_DIR}/{name}");
            let report = Report::new(&file);
            match classify(&name) {
                Entry::Leftover => {}
                Entry::Foreign => {
                    report.warn(None, "", "is not read; profiles are named NAME.toml or NAME.json")
                }
                Entry::Profile(stem, syntax) => match stem.parse::<ProfileName>() {
                    Ok(stem) => match seen.again(stem.clone(), file.clone()) {
                        Some(other) => {
                            report.error(
                                None,
                                "",
                                format!("is the profile `{stem}` again, after {other}; remove one"),
                            );
                        }
                        None => files.push((stem, file.clone(), syntax)),
                    },
                    Err(error) => report.error(None, "", error.to_string()),
                },
            }
            self.take(report);
        }
        files
    }
}

const EMPTY: &str = "the file is empty, as if cut off; write it again, or for no settings at all remove it or put a comment in it";

/// Settings and what they say of certificates.
fn read(text: &str, report: &Report) -> Option<(Settings, Certificates)> {
    let settings = Settings::read(text, report)?;
    let certificates = certificates::read(text, &settings, report);
    Some((settings, certificates))
}

/// For the fuzzer: settings, and a profile beside them. Every error as it is printed; `None` for settings that are no TOML.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(settings: &str, profile: Option<&str>) -> Option<Vec<String>> {
    let report = Report::new(SETTINGS_FILE);
    let read = read(settings, &report);
    let mut errors = report.into_parts().0;
    let (settings, certificates) = read?;
    let server = Server { services: Some(&settings.services), freshness: settings.freshness };
    let report = Report::new("profiles.d/fuzz.toml");
    let name = "fuzz".parse().ok()?;
    let profile = profile.and_then(|text| profile::read(name, text, Syntax::Toml, server, &report));
    errors.extend(report.into_parts().0);
    let profiles: Vec<_> = profile.into_iter().map(|read| (report_name(), read)).collect();
    errors.extend(together::rules(Some(&settings), &certificates.rules, &profiles).into_parts().0);
    for report in together::profiles(Some(&settings), None, &profiles) {
        errors.extend(report.into_parts().0);
    }
    Some(errors.iter().map(ToString::to_string).collect())
}

#[cfg(feature = "fuzzing")]
fn report_name() -> String {
    "profiles.d/fuzz.toml".to_owned()
}

/// The names in the directory, sorted; none when it is not there.
fn names_in(dir: &Path) -> Result<Vec<String>, String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(files::FileError { path: dir.to_owned(), fault: error.into() }.what()),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no UTF-8 has no ending that is read, whatever stands for its bytes.
        let entry = entry.map_err(|error| error.to_string())?;
        names.push(entry.file_name().to_string_lossy().into_owned());
        if names.len() > limits::PROFILES {
            return Err(format!("more than {} files; use fewer profiles", limits::PROFILES));
        }
    }
    names.sort();
    Ok(names)
}

/// What a file in `profiles.d` is by its name.
enum Entry<'a> {
    Profile(&'a str, Syntax),
    /// What editors, package managers and this program leave behind, and what people keep beside: passed over.
    Leftover,
    /// Anything else: a warning, since it may be a profile with a slip in its name.
    Foreign,
}

fn classify(name: &str) -> Entry<'_> {
    let leftover = name.starts_with(['.', '#'])
        || name.ends_with('~')
        || name.starts_with("README")
        || LEFTOVERS.iter().any(|ending| name.ends_with(ending))
        || Path::new(name).extension().and_then(OsStr::to_str).is_some_and(|ext| ext.starts_with("dpkg-"));
    if leftover {
        return Entry::Leftover;
    }
    match name.rsplit_once('.') {
        Some((stem, "toml")) => Entry::Profile(stem, Syntax::Toml),
        Some((stem, "json")) => Entry::Profile(stem, Syntax::Json),
        _ => Entry::Foreign,
    }
}

const LEFTOVERS: [&str; 9] =
    [".bak", ".disabled", ".example", ".orig", ".rej", ".rpmnew", ".rpmsave", ".swp", ".ucf-old"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_editors_and_package_managers_are_passed_over() {
        for name in
            ["a.toml~", ".a.toml.swp", "a.swp", "a.toml.dpkg-old", "a.toml.dpkg-dist", "#a.toml#", "README"]
        {
            assert!(matches!(classify(name), Entry::Leftover), "{name}");
        }
        for name in ["a.tml", "a", "a.TOML", "a.conf"] {
            assert!(matches!(classify(name), Entry::Foreign), "{name}");
        }
        assert!(matches!(classify("a.b.toml"), Entry::Profile("a.b", Syntax::Toml)));
        assert!(matches!(classify("a.json"), Entry::Profile("a", Syntax::Json)));
    }
}
