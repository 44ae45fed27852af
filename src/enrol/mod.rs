//! Enrolment: what a client has to know of a server, on its way from one to the other.
//!
//! The server writes a [`Bundle`], the client keeps an [`Enrolment`] (`SERVER.toml`); both carry the same [`Access`].
//! A bundle travels as JSON (`NAME.knock`) or as one `line`, which may be under a passphrase and fits a QR code. Text
//! and checks here, pure; `file` reads and writes the bundle's file.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use zeroize::Zeroizing;

use self::compact::plays;
use crate::config::{
    ConfigError, GROUND_KEYS, Report, Syntax, Table, ground, key_hint, limits, merged, parse, value,
};
use crate::crypto::{GateKey, KeyPair, Psk, PublicKey, Secret};
use crate::knock::Ground;
use crate::profile::{DEFAULT_TOTP_PORTS, Method, TOTP_PORTS, is_weak, methods};
use crate::text::{Moment, PortRange, ProfileName, ServerName, ServiceName, Span};

mod certificate;
mod compact;
mod file;
mod host;
mod line;
mod png;
mod qr;

pub use certificate::OwnCertificate;
pub use file::{load_carried, read_carried, save_bundle, save_carried};
pub use host::Host;
#[cfg(feature = "fuzzing")]
pub(crate) use line::check as check_line;
pub use line::{Carried, LineError, Protected, ProtectedError, SCHEME};
pub use qr::{Picture, TooLong};

/// The format of the bundles that this program writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// How to reach a server, and what it opens. The same on both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where knocks are sent.
    pub host: Host,
    /// The UDP port they are sent to.
    pub port: u16,
    /// The client's name on the server.
    pub profile: ProfileName,
    /// The server's key.
    pub server_key: PublicKey,
    /// The secret of the server's first check.
    pub gate_key: GateKey,
    /// The secret that client and server share, if they do.
    pub psk: Option<Psk>,
    /// What the server opens for a knock that names nothing, services resolved.
    pub open: Vec<PortRange>,
    /// The services that a knock may name.
    pub services: BTreeMap<ServiceName, Vec<PortRange>>,
    /// The ways to knock.
    pub methods: Vec<Method>,
    /// How many ports a sequence by the time has.
    pub totp_ports: u8,
    /// The ports that sequences are played on.
    pub sequence: Ground,
    /// How long a grant lasts when the knock does not say, as far as the server told.
    pub duration: Option<Span>,
    /// How long a grant may last at most, as far as the server told.
    pub max_duration: Option<Span>,
    /// From when on the server refuses knocks, as far as it said.
    pub expires: Option<Moment>,
}

/// A bundle: what the server hands to a new client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What the client may call the server.
    pub server: ServerName,
    /// How to reach it.
    pub access: Access,
    /// The client's secret; absent where the client made its own key and gave the server the public half.
    pub private_key: Option<Secret<32>>,
}

/// What a client keeps of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// How to reach it.
    pub access: Access,
    /// The client's secret; a client with a certificate has none that the server knows.
    pub private_key: Option<Secret<32>>,
    /// The files with the client's certificate.
    pub certificate: Option<OwnCertificate>,
}

impl Access {
    /// Since when the server refuses knocks, if it does at this time.
    #[must_use]
    pub fn expired(&self, at: Moment) -> Option<Moment> {
        self.expires.filter(|expires| *expires <= at)
    }
}

impl Enrolment {
    /// The client's key pair, if it has one.
    #[must_use]
    pub fn key_pair(&self) -> Option<KeyPair> {
        self.private_key.as_ref().map(|key| KeyPair::from_seed(*key.expose()))
    }
}

impl Bundle {
    /// The client's own file. `private_key` is the client's, for a bundle that has none.
    ///
    /// # Errors
    /// [`EnrolError`] when there is no private key, or there are two different ones.
    pub fn into_enrolment(self, private_key: Option<Secret<32>>) -> Result<Enrolment, EnrolError> {
        let private_key = match (self.private_key, private_key) {
            (Some(bundled), Some(own)) if bundled != own => return Err(EnrolError::TwoKeys),
            (Some(key), _) | (None, Some(key)) => Some(key),
            // Whoever has a certificate brings it to each knock, or names it at the import.
            (None, None) if self.access.methods == [Method::Cert] => None,
            (None, None) => return Err(EnrolError::NoKey),
        };
        Ok(Enrolment { access: self.access, private_key, certificate: None })
    }

    /// The bundle's text. Wiped on drop, since it has the client's secrets in it.
    ///
    /// # Errors
    /// None in practice; serde_json's signature has one.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let Access { host, port, profile, server_key, gate_key, psk, open, services, methods, .. } =
            &self.access;
        let (gate_key, private_key) =
            (gate_key.to_base64(), self.private_key.as_ref().map(Secret::to_base64));
        let psk = psk.as_ref().map(Psk::to_base64);
        let text = BundleText {
            version: VERSION,
            server: &self.server,
            host: host.as_str(),
            port: *port,
            profile,
            server_key,
            gate_key: &gate_key,
            private_key: private_key.as_ref().map(|key| key.as_str()),
            psk: psk.as_ref().map(|key| key.as_str()),
            open,
            services,
            methods: methods.iter().map(ToString::to_string).collect(),
            totp_ports: self.access.totp_ports,
            sequence: plays(methods).then(|| GroundText::new(&self.access.sequence)),
            duration: self.access.duration,
            max_duration: self.access.max_duration,
            expires: self.access.expires,
        };
        // Room for all of it: growing would leave copies of secrets behind.
        let ports: usize = services.values().map(|ports| 64 + 24 * ports.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096 + 24 * open.len() + ports));
        serde_json::to_writer_pretty(&mut *bytes, &text)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a bundle; `file` is its name in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it; for a version that this program does not know, that alone.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let report = Report::new(file);
        let bundle = Self::read(text, &report);
        finish(bundle, report)
    }

    fn read(text: &str, report: &Report) -> Option<Self> {
        let node = parse(text, Syntax::Json, report)?;
        if !is_known_version(&Table::free_root(&node, report)) {
            return None;
        }
        let table = Table::root(&node, &[&["knockd-rs", "server"], ACCESS_KEYS].concat(), report);
        let (access, private_key) = (read_access(&table), secret(&table, "private_key"));
        let server = required(&table, "server", "name the server", |text| text.parse().map_err(said))?;
        Some(Self { server, access: access?, private_key })
    }
}

fn is_known_version(table: &Table<'_>) -> bool {
    if !table.has("knockd-rs") {
        table.missing("knockd-rs", "this is no bundle of `knockd-rs profile add`");
        return false;
    }
    let every = crate::config::Bounds { least: 0, greatest: u32::MAX };
    let Some(version) = table.number("knockd-rs", every) else { return false };
    if version.value != VERSION {
        let what = format!(
            "version {}; this program reads version {VERSION}: upgrade the older side",
            version.value
        );
        table.error("knockd-rs", what);
    }
    version.value == VERSION
}

impl Enrolment {
    /// The text of the client's file, each key with its meaning. Wiped on drop.
    #[must_use]
    pub fn to_toml(&self) -> Zeroizing<String> {
        let Access { host, port, profile, server_key, gate_key, psk, open, services, methods, .. } =
            &self.access;
        let list = |ports: &[PortRange]| {
            let quoted: Vec<String> = ports.iter().map(|ports| format!("\"{ports}\"")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let ports: usize = services.values().map(|ports| 64 + 24 * ports.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(4096 + 24 * open.len() + ports));
        let mut add = |pieces: &[&str]| pieces.iter().for_each(|piece| text.push_str(piece));
        add(&[
            "# A server to knock at, written by knockd-rs import. Keep it to yourself: it has keys in it.\n\n",
        ]);
        add(&[
            "# Where knocks go, and under which name the server knows this client.\nhost = \"",
            host.as_str(),
        ]);
        add(&["\"\nport = ", &port.to_string(), "\nprofile = \"", profile.as_str(), "\"\n\n"]);
        add(&["# The server's public key, and the secret that all its clients know.\nserver_key = \""]);
        add(&[&server_key.to_string(), "\"\ngate_key = \"", &gate_key.to_base64(), "\"\n\n"]);
        if let Some(key) = &self.private_key {
            add(&["# This client's own secrets.\nprivate_key = \"", &key.to_base64(), "\"\n"]);
        }
        if let Some(certificate) = &self.certificate {
            add(&["# This client's certificate and its key.\n", &certificate.to_toml()]);
        }
        if let Some(psk) = psk {
            add(&["psk = \"", &psk.to_base64(), "\"\n"]);
        }
        add(&[
            "\n# What the server opens, and how it may be asked. For this program's messages: the server decides.\n",
        ]);
        let quoted: Vec<String> = methods.iter().map(|method| format!("\"{method}\"")).collect();
        add(&["open = ", &list(open), "\nmethods = [", &quoted.join(", "), "]\n"]);
        add(&["totp_ports = ", &self.access.totp_ports.to_string(), "\n"]);
        for (key, span) in [("duration", self.access.duration), ("max_duration", self.access.max_duration)] {
            span.iter().for_each(|span| add(&[key, " = \"", &span.to_string(), "\"\n"]));
        }
        if let Some(expires) = self.access.expires {
            add(&["expires = \"", &expires.to_string(), "\"\n"]);
        }
        if plays(methods) {
            let GroundText { base, span, excluded } = GroundText::new(&self.access.sequence);
            add(&["\n# The ports that sequences are played on.\n[sequence]\nbase = ", &base.to_string()]);
            add(&["\nspan = ", &span.to_string(), "\n", &format!("excluded = {excluded:?}\n")]);
        }
        add(&["\n[services]\n"]);
        for (name, ports) in services {
            // Quoted: a bare key with a dot in it would be a table.
            add(&["\"", name.as_str(), "\" = ", &list(ports), "\n"]);
        }
        text
    }

    /// Reads a client's file; `file` is its name in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let report = Report::new(file);
        let enrolment = Self::read(text, &report);
        finish(enrolment, report)
    }

    fn read(text: &str, report: &Report) -> Option<Self> {
        let node = parse(text, Syntax::Toml, report)?;
        let table = Table::root(&node, &[ACCESS_KEYS, certificate::KEYS].concat(), report);
        let access = read_access(&table);
        let key = secret(&table, "private_key");
        let by_certificate = access.as_ref().is_some_and(|access| access.methods == [Method::Cert]);
        if !table.has("private_key") && !by_certificate {
            table.missing("private_key", KEY_HINT);
        }
        let certificate = OwnCertificate::read(&table);
        Some(Self { access: access?, private_key: key, certificate })
    }
}

fn finish<T>(value: Option<T>, report: Report) -> Result<T, Vec<ConfigError>> {
    let (errors, _) = report.into_parts();
    value.filter(|_| errors.is_empty()).ok_or(errors)
}

fn read_access(table: &Table<'_>) -> Option<Access> {
    let host = required(table, "host", "use the server's name or address", |text| text.parse());
    let profile =
        required(table, "profile", "use the client's name on the server", |text| text.parse().map_err(said));
    let server_key = required(table, "server_key", KEY_HINT, |text| text.parse().map_err(|_| key_hint(text)));
    if server_key.as_ref().is_some_and(is_weak) {
        table.error("server_key", "is a weak key, which no server has; have the bundle made again");
    }
    let gate_key =
        required(table, "gate_key", KEY_HINT, |text| GateKey::from_base64(text).map_err(|_| key_hint(text)));
    if !table.has("port") {
        table.missing("port", "use the UDP port that knocks are sent to: 1 to 65535");
    }
    let port = table.number("port", limits::PORT).and_then(|found| u16::try_from(found.value).ok());
    let psk = secret(table, "psk");
    let open: Vec<PortRange> = table.list("open", "\"tcp/22\"").into_iter().map(value).collect();
    let (services, methods) = (services(&table.free_table("services")), methods(table));
    Some(Access {
        host: host?,
        port: port?,
        profile: profile?,
        server_key: server_key?,
        gate_key: gate_key?,
        psk,
        open: merged(open),
        services,
        methods,
        totp_ports: table
            .number("totp_ports", TOTP_PORTS)
            .and_then(|n| n.value.try_into().ok())
            .unwrap_or(DEFAULT_TOTP_PORTS),
        sequence: ground(&table.table("sequence", GROUND_KEYS)),
        duration: table.span("duration", limits::GRANT).map(value),
        max_duration: table.span("max_duration", limits::GRANT).map(value),
        expires: table.parsed("expires", "use a time in UTC: \"2027-01-31T12:00:00Z\"").map(value),
    })
}

fn services(table: &Table<'_>) -> BTreeMap<ServiceName, Vec<PortRange>> {
    let mut services = BTreeMap::new();
    if table.names().count() > limits::SERVICES {
        table.error("", format!("{} services; use at most {}", table.names().count(), limits::SERVICES));
        return services;
    }
    for (key, _) in table.names() {
        let ports: Vec<PortRange> = table.list(key, "\"tcp/22\"").into_iter().map(value).collect();
        match ServiceName::from_str(key) {
            Ok(name) => drop(services.insert(name, merged(ports))),
            Err(error) => table.error(key, error.to_string()),
        }
    }
    services
}

fn secret(table: &Table<'_>, key: &str) -> Option<Secret<32>> {
    table.read_with(key, KEY_HINT, |text| Secret::from_base64(text).map_err(|_| key_hint(text))).map(value)
}

fn required<T>(
    table: &Table<'_>,
    key: &str,
    hint: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    if !table.has(key) {
        table.missing(key, hint);
    }
    table.read_with(key, hint, read).map(value)
}

fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Why a bundle gives no enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolError {
    /// Neither the bundle nor the client has a private key.
    NoKey,
    /// The bundle has one, and the client another.
    TwoKeys,
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => {
                "the bundle has no private key; give the one of your keygen with --private-key FILE"
            }
            Self::TwoKeys => "the bundle brings its own private key; leave out --private-key",
        })
    }
}

impl std::error::Error for EnrolError {}

#[derive(Serialize)]
struct BundleText<'a> {
    #[serde(rename = "knockd-rs")]
    version: u32,
    server: &'a ServerName,
    host: &'a str,
    port: u16,
    profile: &'a ProfileName,
    server_key: &'a PublicKey,
    gate_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psk: Option<&'a str>,
    open: &'a [PortRange],
    services: &'a BTreeMap<ServiceName, Vec<PortRange>>,
    methods: Vec<String>,
    totp_ports: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<GroundText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_duration: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Moment>,
}

#[derive(Serialize)]
struct GroundText {
    base: u16,
    span: u16,
    excluded: Vec<String>,
}

impl GroundText {
    fn new(ground: &Ground) -> Self {
        let excluded = ground.excluded.iter().map(|port| format!("tcp/{port}")).collect();
        Self { base: ground.base, span: ground.span, excluded }
    }
}

const KEY_HINT: &str = "use 32 bytes in base64";
const ACCESS_KEYS: &[&str] = &[
    "host",
    "port",
    "profile",
    "server_key",
    "gate_key",
    "private_key",
    "psk",
    "open",
    "services",
    "methods",
    "totp_ports",
    "sequence",
    "duration",
    "max_duration",
    "expires",
];

#[cfg(test)]
mod tests;
