//! Keeping a worker at its work: starting, replacing, asking for its pulse, following its interface.

use std::collections::BTreeSet;
use std::time::Duration;

use super::crew::{News, Terms};
use super::files::Watch;
use super::links::interface_index;
use super::report::plural;
use super::{Ended, Monitor};
use crate::clock;
use crate::config::{CertificateRule, Configuration, Device, LogLevel, read_trust};
use crate::files::system_owners;
use crate::grant::{Limits, ProfileLimits};
use crate::knock::{Method, sequence, syn, totp};
use crate::policy::{Alike, Rules};
use crate::privsep::brief::{Brief, Bytes, Certificates, Client, Plain, Previous};
use crate::profile::{self, Profile};
use crate::state;
use crate::sys;
use crate::text::{Moment, Span};

impl Monitor {
    /// Starts a worker with the present configuration. It serves once it is ready and the one before has ended.
    pub(super) fn begin_worker(&mut self) {
        let brief = brief(&self.config, &self.directories);
        let reads_a_file = matches!(self.config.settings.capture.device, Device::File(_));
        let terms = Terms { limits: limits(&self.config), generation: self.generation, reads_a_file };
        if let Err(error) = self.crew.start(&brief, terms) {
            self.capture_lost(&format!("a worker cannot be started: {error}"));
        }
        drop(brief);
        sys::return_freed_memory();
    }

    /// Watches the files of the authorities that the present configuration names, and reads them; whether there is
    /// something new in them.
    pub(super) fn watch_files(&mut self) -> bool {
        let authority = self.config.certificates.authority.as_ref();
        let (watch, complaints) = Watch::open(&self.directories.config, authority);
        self.files = watch;
        complaints.iter().for_each(|line| self.say(LogLevel::Warning, "certificates", line));
        // What changed between reading and watching went without a notice.
        self.read_trust_again()
    }

    /// A file in one of their directories has changed. Where it is one of theirs, a new worker gets the new bytes; the
    /// configuration is the same. A revocation list that cannot be read is none: without it, certificates are
    /// refused. Authorities that cannot be read stay as they were.
    fn read_trust_again(&mut self) -> bool {
        let Some(authority) = &self.config.certificates.authority else { return false };
        let dir = &self.directories.config;
        let (mut trust, faults) = read_trust(dir, authority, &system_owners());
        if faults.iter().any(|fault| authority.ca.iter().any(|path| dir.join(path) == fault.path)) {
            trust.authorities.clone_from(&self.config.trust.authorities);
        }
        if trust == self.config.trust {
            return false;
        }
        self.config.trust = trust;
        faults.iter().for_each(|fault| self.say(LogLevel::Error, "certificates", &fault.to_string()));
        self.say(LogLevel::Info, "certificates", "authorities and revocation lists were read again");
        self.begin_worker();
        true
    }

    pub(super) fn worker_serves(&mut self, landlock: bool) {
        let capture = &self.config.settings.capture;
        let text = format!(
            "knocks{} are awaited on {}, port {}",
            by_methods(&self.config),
            capture.device,
            capture.port
        );
        if let Some(lost) = self.lost.take() {
            self.say(LogLevel::Info, "recovered", &format!("no longer: {lost}"));
        }
        self.say(LogLevel::Info, "listening", &text);
        if !landlock {
            let text =
                "this kernel has no Landlock: the worker is confined by seccomp and its lack of capabilities";
            self.say(LogLevel::Warning, "sandbox", text);
        }
        self.notify.ready(&self.headline());
    }

    /// There is nothing to capture from. The daemon stays, opens nothing, and tries again.
    pub(super) fn capture_lost(&mut self, sentence: &str) {
        self.crew.retry_later();
        if self.lost.as_deref() != Some(sentence) {
            self.lost = Some(sentence.to_owned());
            self.say(LogLevel::Error, "degraded", &format!("{sentence}; trying again until it is there"));
        }
        // A machine that boots has its guards in force before its network: that is no failed start.
        self.notify.ready(&self.headline());
    }

    /// The line that `systemctl status` shows.
    pub(super) fn headline(&self) -> String {
        let (profiles, guards) = (self.config.profiles.len(), self.desk.guards.all().len());
        let state = if self.lost.is_some() { "degraded: no capture; " } else { "" };
        let profiles = match profiles {
            0 => "no profile yet: nobody can knock".to_owned(),
            count => format!("{count} {}", plural(count, "profile")),
        };
        match guards {
            0 => format!("{state}{profiles}; no port is guarded"),
            count => format!("{state}{profiles}; {count} guarded {}", plural(count, "port")),
        }
    }

    /// Interfaces have changed: the configured one may be back, or be another one than the worker has.
    pub(super) fn follow_interface(&mut self) {
        let Device::Interface(name) = &self.config.settings.capture.device else { return };
        let Some(now) = interface_index(name.as_str()) else { return };
        let captured = self.crew.ready().map(|ready| ready.interface);
        if captured != Some(now) && !self.crew.is_changing() {
            self.begin_worker();
        }
    }

    /// Does what is due.
    pub(super) fn keep_time(&mut self) -> Result<(), Ended> {
        let uptime = clock::uptime();
        if let Some(news) = self.crew.end_late(uptime) {
            match news {
                News::Lost { sentence } => self.capture_lost(&sentence),
                News::Died { sentence } => return Err(self.give_up(&sentence)),
                _ => {}
            }
        }
        if self.crew.is_retry_due(uptime) && self.can_capture() {
            self.begin_worker();
        }
        let nobody_serves = self.crew.pid().is_none() && (self.lost.is_some() || self.crew.is_changing());
        if self.notify.is_due(uptime) && !self.crew.ping(0) && nobody_serves {
            // There is no interface, or a worker is on its way and has a time limit of its own.
            self.notify.alive(uptime);
        }
        Ok(())
    }

    /// Whether another attempt has a chance: spares a process every few seconds while the interface is away.
    fn can_capture(&self) -> bool {
        match &self.config.settings.capture.device {
            Device::Interface(name) => interface_index(name.as_str()).is_some(),
            Device::Any | Device::Nflog(_) | Device::File(_) => true,
        }
    }
}

/// The methods that somebody may knock with, as a part of a sentence.
fn by_methods(config: &Configuration) -> String {
    let methods: BTreeSet<Method> =
        enabled(config).flat_map(|profile| profile.methods.iter().copied()).collect();
    let names: Vec<&str> = methods.into_iter().map(Method::name).collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) }
}

/// What a worker gets to know: the enabled profiles, in the order of their indices.
pub(in crate::privsep) fn brief(config: &Configuration, directories: &super::Directories) -> Brief {
    let settings = &config.settings;
    Brief {
        device: settings.capture.device.to_string(),
        port: settings.capture.port,
        ground: settings.sequence.clone().without(settings.capture.port),
        server_key: config.server.secret().clone(),
        gate_key: config.gate.clone(),
        clients: enabled(config).map(client).collect(),
        certificates: certificates(config),
        clock: settings.clock,
        quarantine: quarantine(config),
        handshakes_per_second: settings.limits.handshakes_per_second,
        handshakes_per_source: settings.limits.handshakes_per_source,
        runtime_dir: directories.runtime.join(state::FOLDER),
        state_dir: directories.state.join(state::FOLDER),
        boot: clock::boot(),
    }
}

/// What the worker gets to know of certificates: the files as they are, and which of its clients each rule means.
fn certificates(config: &Configuration) -> Option<Certificates> {
    let authority = config.certificates.authority.as_ref()?;
    let bytes = |files: &[Vec<u8>]| files.iter().cloned().map(Bytes).collect();
    let rules = config.certificates.rules.iter().filter(|rule| rule.profile.enabled);
    let index =
        |rule: &CertificateRule| enabled(config).position(|profile| std::ptr::eq(profile, &rule.profile));
    Some(Certificates {
        authorities: bytes(&config.trust.authorities),
        lists: bytes(&config.trust.lists),
        leaves: bytes(&config.trust.leaves),
        grace: authority.crl_grace,
        announce: authority.end_grants_on_revocation,
        rules: rules.filter_map(|rule| Some((rule.selector.clone(), index(rule)?))).collect(),
    })
}

fn client(profile: &Profile) -> Client {
    Client {
        id: profile.client(),
        public_key: profile.public_key,
        psk: profile.psk.clone(),
        previous: profile.previous.iter().map(previous).collect(),
        methods: profile.methods.clone(),
        max_age: profile.freshness.max_age,
        max_ahead: profile.freshness.max_ahead,
        rules: rules(profile),
        plain: profile.plain.as_ref().map(|plain| Plain {
            ports: plain.ports.clone(),
            gap: plain.gap,
            total: plain.total,
        }),
        totp_ports: profile.totp_ports,
    }
}

fn previous(keys: &profile::Previous) -> Previous {
    Previous { public_key: keys.public_key, psk: keys.psk.clone(), until: keys.until }
}

/// The time by which the monitor judges what has expired. A clock that shows less than the date of this program is wrong.
pub(super) fn moment() -> Moment {
    Moment::from_secs(clock::wall().max(clock::RELEASED).as_secs())
}

/// The bounds for the requests of a worker with this configuration: the same profiles in the same order as in
/// its brief.
pub(super) fn limits(config: &Configuration) -> Limits {
    let at = moment();
    let is_good = |keys: &&profile::Previous| keys.until > at;
    let mut alike = Alike::default();
    let limits = |profile: &Profile| ProfileLimits {
        name: profile.name.to_string(),
        client: profile.client(),
        previous: profile
            .previous
            .iter()
            .filter(is_good)
            .map(|keys| (keys.public_key.into(), keys.until))
            .collect(),
        rules: alike.share(rules(profile)),
        by_certificate: profile.methods.contains(&Method::Cert),
    };
    Limits::new(enabled(config).map(limits).collect())
}

/// Everybody who may knock: the profiles, then the tables of certificates.
pub(in crate::privsep) fn enabled(config: &Configuration) -> impl Iterator<Item = &Profile> {
    let of_certificates = config.certificates.rules.iter().map(|rule| &rule.profile);
    config.profiles.iter().chain(of_certificates).filter(|profile| profile.enabled)
}

fn rules(profile: &Profile) -> Rules {
    Rules {
        open: profile.open.clone(),
        services: profile.services.iter().map(|(tag, service)| (*tag, service.ports.clone())).collect(),
        duration: profile.duration,
        max_duration: profile.max_duration,
        connections: profile.connections,
        session: profile.session,
        lockout: profile.lockout,
        wide: profile.wide,
        other_addresses: profile.other_addresses.clone(),
        max_grants: u16::try_from(profile.max_grants).unwrap_or(u16::MAX),
        expires: profile.expires,
    }
}

/// After this time no knock that was recorded before can be fresh, whatever its profile. A second more than the limits on
/// its age, which both count as fresh themselves, and which go by a clock that may run a little slower than this time.
fn quarantine(config: &Configuration) -> Span {
    let window = |freshness: &crate::config::Freshness| {
        freshness.max_age.as_secs().saturating_add(freshness.max_ahead.as_secs())
    };
    // A code of the time is good in its step and the ones beside it, whatever the profile says; with a clock in doubt
    // so is a sequence, which else has the profile's window too.
    let steps = |method: &Method| match method {
        Method::Syn => 3 * syn::STEP.as_secs(),
        Method::Totp => 3 * totp::STEP,
        Method::Sequence => 3 * sequence::STEP,
        Method::Spa | Method::Cert | Method::Plain => 0,
    };
    let of_methods = enabled(config).flat_map(|profile| profile.methods.iter().map(steps)).max().unwrap_or(0);
    let longest = enabled(config).map(|profile| window(&profile.freshness)).max().unwrap_or(0);
    let of_methods = u32::try_from(of_methods).unwrap_or(u32::MAX);
    Span::from_secs(longest.max(window(&config.settings.freshness)).max(of_methods).saturating_add(1))
}

/// How long a status may wait for the worker's pulse.
pub(super) const PULSE_PATIENCE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    #[test]
    fn a_quarantine_lasts_until_no_code_of_the_time_is_good_any_more() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        crate::config::make_keys_if_missing(dir.path()).unwrap();
        let short = "[freshness]\nmax_age = \"5s\"\nmax_ahead = \"5s\"\n";
        std::fs::write(dir.path().join("knockd-rs.toml"), short).unwrap();
        let profiles = dir.path().join("profiles.d");
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o750)
            .create(profiles)
            .unwrap();
        let key = crate::crypto::KeyPair::from_seed([7; 32]).public();
        let quarantine = |methods: &str| {
            let text = format!("public_key = \"{key}\"\nopen = [\"tcp/22\"]\nmethods = {methods}\n");
            let file = dir.path().join("profiles.d/laptop.toml");
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
            super::quarantine(&crate::config::load_from(dir.path(), None).unwrap()).as_secs()
        };
        assert_eq!(quarantine("[\"spa\"]"), 11);
        assert_eq!(quarantine("[\"spa\", \"syn\"]"), 91);
        assert_eq!(quarantine("[\"totp\"]"), 91);
        assert_eq!(quarantine("[\"syn\", \"sequence\"]"), 769);
    }
}
