//! A profile: a client known to the server, and what it may open. From the text of `profiles.d/NAME.toml` to a
//! value here, pure; `store` writes and removes the files.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::config::{
    Freshness, Report, Services, Syntax, Table, freshness, key_hint, limits, merged, parse, value,
};
use crate::crypto::{Psk, PublicKey, Secret};
use crate::grant::{Session, SessionFlag, Uses};
use crate::knock::{ClientId, ServiceTag, service_tag};
use crate::text::{Moment, Network, PortError, PortRange, ProfileName, ServiceName, Span};

mod ports;
mod previous;
mod rotate;
mod store;
pub(crate) mod weak;

pub use crate::knock::Method;
pub use ports::Plain;
pub(crate) use ports::{DEFAULT_TOTP_PORTS, TOTP_PORTS};
pub use previous::{MAX_PREVIOUS, Previous};
pub use rotate::{NewKeys, RotateError, rotated};
pub use store::{
    NewPlain, NewProfile, StoreError, refused_profile, remove_profile, rotate_profile, write_plain,
    write_profile,
};
pub use weak::is_weak;

/// A client known to the server, and what it may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The file's name without its ending.
    pub name: ProfileName,
    /// Who the client is; `None` only where no method of the profile needs a key.
    pub public_key: Option<PublicKey>,
    /// The secret shared with it besides; all-zero when there is none.
    pub psk: Psk,
    /// The keys that these have taken the place of, some of them still good; the oldest first.
    pub previous: Vec<Previous>,
    /// From when on its knocks are refused.
    pub expires: Option<Moment>,
    /// What `open` says, as written.
    pub opens: Vec<Opens>,
    /// All ports of `open`, services resolved: sorted, disjoint, neighbours joined.
    pub open: Vec<PortRange>,
    /// The services of `open`, by the tag that a knock carries.
    pub services: BTreeMap<ServiceTag, Service>,
    /// How long a grant lasts when the knock does not say.
    pub duration: Span,
    /// The longest grant.
    pub max_duration: Span,
    /// How many connections a grant is for.
    pub connections: Uses,
    /// What holds for every grant besides.
    pub session: Session,
    /// How long an address is locked out after a grant that asks for it.
    pub lockout: Span,
    /// The addresses besides the packet's own source that the client may open ports for.
    pub other_addresses: Vec<Network>,
    /// Whether a grant may be for the whole network of an address.
    pub wide: bool,
    /// Live grants that this profile may have.
    pub max_grants: u32,
    /// Whether it may knock; else its knocks count as a stranger's.
    pub enabled: bool,
    /// The ways in which it may knock; at least one.
    pub methods: Vec<Method>,
    /// How old or early its knocks may be: its own, or the server's.
    pub freshness: Freshness,
    /// Its fixed sequence, where it knocks by one.
    pub plain: Option<Plain>,
    /// How many ports its sequences by the time have.
    pub totp_ports: u8,
}

impl Profile {
    /// Whether client and server share a secret besides their keys.
    #[must_use]
    pub fn has_psk(&self) -> bool {
        self.psk != Secret::new([0; 32])
    }

    /// Who knocks when this profile's client does: its key, or its name where it has none.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.public_key.map_or_else(|| ClientId::named(&self.name), ClientId::from)
    }

    /// The keys that it may knock with: the present ones, and those before them.
    pub(crate) fn public_keys(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.public_key.into_iter().chain(self.previous.iter().map(|keys| keys.public_key))
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, at: Moment) -> bool {
        self.expires.is_some_and(|expires| expires <= at)
    }

    /// The key as people compare it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let without = if self.methods.contains(&Method::Cert) { "certificates" } else { "no key" };
        self.public_key.map_or_else(|| without.to_owned(), |key| key.fingerprint())
    }
}

/// A service that a profile may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its ports, merged.
    pub ports: Vec<PortRange>,
}

/// One entry of `open`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opens {
    /// Ports: `tcp/22`.
    Ports(PortRange),
    /// A service by its name: `ssh`.
    Service(ServiceName),
}

impl fmt::Display for Opens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(ports) => write!(f, "{ports}"),
            Self::Service(name) => write!(f, "{name}"),
        }
    }
}

impl FromStr for Opens {
    type Err = String;

    /// What has a slash, or no letter, is meant as ports.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') || !text.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return text.parse().map(Self::Ports).map_err(|error: PortError| error.to_string());
        }
        let wrong =
            |_| format!("`{}` is neither ports nor a service; write tcp/22, or ssh", text.escape_debug());
        text.parse().map(Self::Service).map_err(wrong)
    }
}

/// A profile, and the lines that checks across files have to name.
#[derive(Debug)]
pub(crate) struct ReadProfile {
    pub(crate) profile: Profile,
    pub(crate) key_line: u32,
    pub(crate) previous_line: u32,
    pub(crate) connections_line: u32,
    pub(crate) plain_line: u32,
    pub(crate) totp_line: u32,
}

/// What a profile takes from the daemon's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server<'a> {
    /// The services that `open` may name; `None` when they could not be read, so that nothing is said of them.
    pub(crate) services: Option<&'a Services>,
    /// What holds where the profile says nothing.
    pub(crate) freshness: Freshness,
}

/// Reads one profile; what is wrong goes to the report. `None` when there is too little to go on with.
pub(crate) fn read(
    name: ProfileName,
    text: &str,
    syntax: Syntax,
    server: Server<'_>,
    report: &Report,
) -> Option<ReadProfile> {
    let node = parse(text, syntax, report)?;
    let table = Table::root(&node, KEYS, report);
    let methods = methods(&table);
    if methods.contains(&Method::Cert) {
        let what = "\"cert\" is for clients with certificates, which have no profile; see [[certificates]] in knockd-rs.toml(5)";
        table.error("methods", what);
    }
    // A plain sequence is its own and only secret.
    let keyless = !methods.is_empty() && methods.iter().all(|method| *method == Method::Plain);
    let needs_key = !keyless || table.has("public_key");
    let public_key = needs_key.then(|| public_key(&table)).flatten();
    let psk = psk(&table);
    let (opens, open, services) = open(&table, server.services);
    let (duration, max_duration) = durations(&table);
    let plain = ports::plain(&table, &methods, &open);
    let profile = Profile {
        name,
        public_key,
        psk,
        previous: previous::previous(&table),
        expires: previous::expires(&table),
        opens,
        open,
        services,
        duration,
        max_duration,
        connections: connections(&table),
        session: session(&table),
        lockout: table.span("lockout", limits::LOCKOUT).map_or(DEFAULT_LOCKOUT, value),
        other_addresses: other_addresses(&table),
        wide: table.boolean("wide").is_some_and(value),
        max_grants: table.number("max_grants", limits::PROFILE_GRANTS).map_or(DEFAULT_GRANTS, value),
        enabled: table.boolean("enabled").is_none_or(value),
        plain,
        totp_ports: ports::totp_ports(&table, &methods),
        methods,
        freshness: freshness(&table, server.freshness),
    };
    if !profile.enabled {
        table.warn("enabled", "this profile is switched off: its knocks count as a stranger's");
    }
    if needs_key {
        public_key?;
    }
    Some(ReadProfile {
        profile,
        key_line: table.line("public_key"),
        previous_line: table.line("previous"),
        connections_line: table.line("connections"),
        plain_line: table.line("plain"),
        totp_line: table.line("totp"),
    })
}

/// Reads what a `[[certificates]]` table opens: a profile whose clients are told by their certificates.
pub(crate) fn read_rules(name: ProfileName, table: &Table<'_>, server: Server<'_>) -> Profile {
    let (opens, open, services) = open(table, server.services);
    let (duration, max_duration) = durations(table);
    Profile {
        name,
        public_key: None,
        psk: Secret::new([0; 32]),
        previous: Vec::new(),
        expires: None,
        opens,
        open,
        services,
        duration,
        max_duration,
        connections: connections(table),
        session: session(table),
        lockout: table.span("lockout", limits::LOCKOUT).map_or(DEFAULT_LOCKOUT, value),
        other_addresses: other_addresses(table),
        wide: table.boolean("wide").is_some_and(value),
        max_grants: table.number("max_grants", limits::PROFILE_GRANTS).map_or(DEFAULT_GRANTS, value),
        enabled: table.boolean("enabled").is_none_or(value),
        methods: vec![Method::Cert],
        plain: None,
        totp_ports: DEFAULT_TOTP_PORTS,
        freshness: freshness(table, server.freshness),
    }
}

pub(crate) fn public_key(table: &Table<'_>) -> Option<PublicKey> {
    let hint = "use the client's public key in base64, as `knockd-rs keygen` prints it";
    if !table.has("public_key") {
        table.missing("public_key", hint);
    }
    let read = |text: &str| text.parse::<PublicKey>().map_err(|_| key_hint(text));
    let key = table.read_with("public_key", hint, read)?.value;
    if is_weak(&key) {
        table.error(
            "public_key",
            "a weak key: every secret made with it is known to all; make another with \
            `knockd-rs keygen`",
        );
    }
    Some(key)
}

fn psk(table: &Table<'_>) -> Psk {
    let none = Secret::new([0; 32]);
    let read = |text: &str| Psk::from_base64(text).map_err(|_| key_hint(text));
    let hint = "use 32 random bytes in base64, or leave it out";
    match table.read_with("psk", hint, read) {
        Some(found) if found.value == none => {
            table.error(
                "psk",
                "is all zero, which is no secret; use 32 random bytes in base64, or leave it out",
            );
            none
        }
        found => found.map_or(none, value),
    }
}

type OpenPorts = (Vec<Opens>, Vec<PortRange>, BTreeMap<ServiceTag, Service>);

fn open(table: &Table<'_>, services: Option<&Services>) -> OpenPorts {
    let written = table.list::<Opens>("open", "\"tcp/22\"");
    if !table.has("open") {
        table.missing("open", "name at least one service or port, such as open = [\"tcp/22\"]");
    } else if table.is_empty_list("open") {
        table.error("open", "is empty; name at least one service or port, such as \"tcp/22\"");
    }
    let (mut ports, mut named) = (Vec::new(), BTreeMap::new());
    for found in &written {
        match (&found.value, services) {
            (Opens::Ports(range), _) => ports.push(*range),
            (Opens::Service(_), None) => {}
            (Opens::Service(name), Some(services)) => match services.get(name) {
                Some(of_service) => {
                    ports.extend(of_service);
                    let service = Service { name: name.clone(), ports: of_service.clone() };
                    named.insert(service_tag(name.as_str()), service);
                }
                None => table.error_at(found.line, "open", unknown_service(name, services)),
            },
        }
    }
    // They are collected into the room of what was found, most of which each profile would keep.
    let mut opens: Vec<Opens> = written.into_iter().map(value).collect();
    opens.shrink_to_fit();
    (opens, merged(ports), named)
}

fn unknown_service(name: &ServiceName, services: &Services) -> String {
    if services.is_empty() {
        return format!(
            "no service `{name}`; add it to [services] in knockd-rs.toml, or write ports: tcp/22"
        );
    }
    let known: Vec<&str> = services.keys().take(20).map(ServiceName::as_str).collect();
    let more = if services.len() > known.len() { ", ..." } else { "" };
    format!("no service `{name}`; use {}{more}, or ports: tcp/22", known.join(", "))
}

/// `duration` and `max_duration`. Where only one is written, the other gives way to it.
fn durations(table: &Table<'_>) -> (Span, Span) {
    let duration = table.span("duration", limits::GRANT);
    let max = table.span("max_duration", limits::GRANT);
    if let (Some(duration), Some(max)) = (duration, max) {
        if duration.value > max.value {
            table.error(
                "duration",
                format!("{} is more than max_duration, {}; use at most that", duration.value, max.value),
            );
        }
    }
    let written = duration.map_or(DEFAULT_DURATION, value);
    let longest = max.map_or(DEFAULT_MAX.max(written), value);
    if longest > limits::LONG_GRANT {
        let key = if max.is_some() { "max_duration" } else { "duration" };
        table.warn(key, format!("{longest} is long for an open port; a knock can renew a shorter grant"));
    }
    (written.min(longest), longest)
}

fn other_addresses(table: &Table<'_>) -> Vec<Network> {
    let found = table.list::<Network>("other_addresses", "\"10.0.0.0/8\"");
    for network in found.iter().filter(|found| found.value.prefix() == 0) {
        table.warn(
            "other_addresses",
            format!("{} lets this client open ports to every address", network.value),
        );
    }
    found.into_iter().map(value).collect()
}

/// `"single"`, a number, or `"many"`.
fn connections(table: &Table<'_>) -> Uses {
    if table.is_number("connections") {
        let number = table.number("connections", limits::CONNECTIONS).map(value);
        return number.and_then(|number| Uses::number(u8::try_from(number).ok()?)).unwrap_or_default();
    }
    table.parsed("connections", "use \"single\", \"many\", or a number").map(value).unwrap_or_default()
}

fn session(table: &Table<'_>) -> Session {
    let flags = table.list::<SessionFlag>("session", "\"end-with-grant\"");
    flags.into_iter().fold(Session::default(), |session, flag| session.and(flag.value.0))
}

pub(crate) fn methods(table: &Table<'_>) -> Vec<Method> {
    if !table.has("methods") {
        return vec![Method::Spa];
    }
    if table.is_empty_list("methods") {
        table.error("methods", "is empty, so that no knock is heard; use [\"spa\"], or enabled = false");
    }
    let mut methods: Vec<Method> = table.list("methods", "\"spa\"").into_iter().map(value).collect();
    methods.sort();
    methods.dedup();
    methods
}

/// Short: a grant is there to let one connection begin, which then lives on without it.
pub const DEFAULT_DURATION: Span = Span::from_secs(15);
/// What a client gets at most when its profile does not say.
pub const DEFAULT_MAX: Span = Span::from_secs(3_600);
/// How long an address is locked out when its profile does not say.
pub const DEFAULT_LOCKOUT: Span = Span::from_secs(600);
/// Live grants of a profile that does not say.
pub const DEFAULT_GRANTS: u32 = 16;

const KEYS: &[&str] = &[
    "public_key",
    "psk",
    "open",
    "duration",
    "max_duration",
    "connections",
    "session",
    "lockout",
    "other_addresses",
    "wide",
    "max_grants",
    "enabled",
    "methods",
    "max_age",
    "max_ahead",
    "insecure",
    "plain",
    "totp",
    "expires",
    "previous",
];
