//! The settings as values: what holds when nothing is written is each type's `Default`.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::unit::UnitName;
use crate::knock::Ground;
use crate::text::{Network, PortRange, ServiceName, Span};

/// Everything that `knockd-rs.toml` says, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where knocks are looked for.
    pub capture: Capture,
    /// Where grants go.
    pub firewall: Firewall,
    /// The ports closed to strangers for as long as the file says so.
    pub guard: Guard,
    /// Names for sets of ports, those of `forward` among them.
    pub services: Services,
    /// Ports that lead to other hosts.
    pub forwards: Vec<Forward>,
    /// The services that systemd starts and stops with their grants.
    pub doors: Doors,
    /// The ports that encoded sequences are played on.
    pub sequence: Ground,
    /// How old or early a knock may be, unless its profile says otherwise.
    pub freshness: Freshness,
    /// Whether the wall clock is believed.
    pub clock: Clock,
    /// What strangers and clients can use up.
    pub limits: Limits,
    /// Who may use the control socket.
    pub control: Control,
    /// How much is logged, and how.
    pub log: Log,
}

/// Services by name, each with its ports merged; never empty ones once the configuration was accepted.
pub type Services = BTreeMap<ServiceName, Vec<PortRange>>;

/// The services that have a unit: a file tells systemd whether they are open.
pub type Doors = BTreeMap<ServiceName, UnitName>;

/// `[capture]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Where frames come from.
    pub device: Device,
    /// The UDP port that spa knocks are sent to.
    pub port: u16,
}

impl Default for Capture {
    fn default() -> Self {
        Self { device: Device::Any, port: 62_201 }
    }
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Every interface: `any`.
    Any,
    /// One interface: `eth0`.
    Interface(Interface),
    /// A group of the kernel's packet log: `nflog:5`.
    Nflog(u16),
    /// A recorded file, for tests and `explain`: `file:/path.pcap`.
    File(PathBuf),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Interface(name) => write!(f, "{name}"),
            Self::Nflog(group) => write!(f, "nflog:{group}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        if let Some(group) = text.strip_prefix("nflog:") {
            let number = group.parse().ok().filter(|_| group.bytes().all(|byte| byte.is_ascii_digit()));
            return number
                .map(Self::Nflog)
                .ok_or_else(|| format!("`{}`; use nflog:0 to nflog:65535", text.escape_debug()));
        }
        match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(_) => {
                Err(format!("`{}`; use a whole path, such as file:/tmp/knocks.pcap", text.escape_debug()))
            }
            None => text.parse().map(Self::Interface),
        }
    }
}

/// The name of a network interface, as the kernel accepts it: `dev_valid_name` in `net/core/dev.c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

impl Interface {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:\"\\*".contains(&byte);
        if (1..=15).contains(&text.len()) && text.bytes().all(plain) && !matches!(text, "." | "..") {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is no interface; use its name, such as eth0: 1 to 15 characters, no blanks, / : or *",
            text.escape_debug()
        ))
    }
}

/// `[firewall]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Whose table holds the grants.
    pub mode: Mode,
    /// What a stopping daemon leaves behind.
    pub on_stop: OnStop,
}

/// Whose table holds the grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The daemon's own, `inet knockd-rs`: it closes and opens.
    Table {
        /// Whether the table is protected from other programs.
        owner: Owner,
        /// Who is never kept out.
        trusted: Trusted,
    },
    /// The administrator's: its rules close, the daemon fills the sets they look into.
    Sets(Box<Sets>),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Table { owner: Owner::default(), trusted: Trusted::default() }
    }
}

/// `on_stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// Guarded ports stay closed, live grants end in time.
    #[default]
    Keep,
    /// Everything that the daemon added is taken away: guarded ports are open to all.
    Remove,
}

/// `owner`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Owned and persistent where the kernel has both flags (Linux 6.9).
    #[default]
    Auto,
    /// A plain table that every program may change.
    Never,
}

/// `[firewall.trusted]`: what comes from here passes guarded ports without a knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Interfaces; loopback unless the file says otherwise.
    pub interfaces: Vec<Interface>,
    /// Source networks.
    pub networks: Vec<Network>,
}

impl Default for Trusted {
    fn default() -> Self {
        Self { interfaces: vec![Interface("lo".into())], networks: Vec::new() }
    }
}

/// `[firewall.sets]`: the administrator's sets, one for each kind of grant and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// IPv4 grants for any number of connections.
    pub timed_v4: Option<SetName>,
    /// IPv6 grants for any number of connections.
    pub timed_v6: Option<SetName>,
    /// IPv4 grants for one connection.
    pub once_v4: Option<SetName>,
    /// IPv6 grants for one connection.
    pub once_v6: Option<SetName>,
}

impl Sets {
    /// Whether there is a set for any number of connections.
    #[must_use]
    pub fn has_timed(&self) -> bool {
        self.timed_v4.is_some() || self.timed_v6.is_some()
    }

    /// Whether there is a set for one connection.
    #[must_use]
    pub fn has_once(&self) -> bool {
        self.once_v4.is_some() || self.once_v6.is_some()
    }
}

/// A set of the kernel's: `inet filter knock4`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName {
    family: &'static str,
    table: String,
    set: String,
}

impl SetName {
    /// The address family: `ip`, `ip6` or `inet`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The set's name.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.set)
    }
}

impl FromStr for SetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is no set; use \"family table set\" with the family inet, ip or ip6, such as \"inet filter knock4\"",
                text.escape_debug()
            )
        };
        // The words of nft's scanner: a letter, then letters, digits and / \ _ . (scanner.l, "string").
        let word = |text: &&str| {
            text.len() < 128
                && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte))
        };
        let mut words = text.split_whitespace();
        let family = ["inet", "ip", "ip6"].into_iter().find(|known| words.clone().next() == Some(*known));
        let (family, _) = family.zip(words.next()).ok_or_else(wrong)?;
        match (words.next().filter(word), words.next().filter(word), words.next()) {
            (Some("knockd-rs"), Some(_), None) => {
                Err("the table knockd-rs is the daemon's own; name a table of yours".into())
            }
            (Some(table), Some(set), None) => Ok(Self { family, table: table.into(), set: set.into() }),
            _ => Err(wrong()),
        }
    }
}

/// `[guard]`: ports closed to strangers, each list merged; no port is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Closed without an answer.
    pub drop: Vec<PortRange>,
    /// Closed like a port on which nothing listens.
    pub reject: Vec<PortRange>,
    /// Networks behind this host, to which the same ports are closed on their way through it.
    pub behind: Vec<Network>,
}

/// One `[[forward]]`: a port of this host that leads clients to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The service that profiles name.
    pub name: ServiceName,
    /// The port of this host: a single one.
    pub listen: PortRange,
    /// Where it leads: one place for each address family at most.
    pub to: Vec<SocketAddr>,
}

/// `[freshness]`, or a profile's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// How old a knock may be.
    pub max_age: Span,
    /// How far the client's clock may be ahead.
    pub max_ahead: Span,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { max_age: Span::from_secs(180), max_ahead: Span::from_secs(180) }
    }
}

/// `freshness.clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Believed when the kernel says that it is synchronised.
    #[default]
    Auto,
    /// Always believed.
    Trusted,
    /// Never believed: only the order of knocks is judged.
    Untrusted,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live grants of all profiles together.
    pub grants: u32,
    /// Diffie-Hellman computations a second for everybody together.
    pub handshakes_per_second: u32,
    /// Diffie-Hellman computations a second for one source: an IPv4 address or an IPv6 /56.
    pub handshakes_per_source: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { grants: 4096, handshakes_per_second: 5000, handshakes_per_source: 50 }
    }
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The group whose members may use the control socket, besides root.
    pub group: GroupName,
    /// The group whose members may look and change nothing.
    pub readers: GroupName,
}

impl Default for Control {
    fn default() -> Self {
        Self { group: GroupName("root".into()), readers: GroupName("knockd-rs-readers".into()) }
    }
}

/// The name of a local group, or its number. Whether it exists is for the daemon to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(String);

impl GroupName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{}` is no group; use its name, such as adm", text.escape_debug()))
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least important message that is still written.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Sentences.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`, the most important first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What stops the daemon from doing its work.
    Error,
    /// What somebody should look at.
    Warning,
    /// Knocks and grants.
    #[default]
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    /// The priority of `syslog(3)`.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}
