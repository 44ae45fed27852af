//! A server's side: can the daemon do its work here, does it, and does its work have the effect that is meant? Pure:
//! facts in, findings out.

mod daemon;
mod firewall;
mod host;
mod network;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::finding::Check;
use crate::text::PortRange;

/// What was seen of a server. What could not be looked at is `None`, and named in `unseen`.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What could not be looked at, and why: `packet sockets`.
    pub unseen: Vec<String>,
    /// Whether this is root.
    pub is_root: bool,
    /// What the kernel can do.
    pub kernel: Option<Kernel>,
    /// What is wrong with the configuration, and what may be.
    pub errors: Vec<String>,
    /// Its warnings.
    pub warnings: Vec<String>,
    /// What it says, as far as it could be read.
    pub wanted: Option<Wanted>,
    /// The daemon's directories.
    pub directories: Vec<Directory>,
    /// The clock.
    pub clock: Clock,
    /// The running daemon.
    pub daemon: Daemon,
    /// Where frames come from.
    pub device: Option<Device>,
    /// Whether packet sockets can be made.
    pub packet_sockets: Option<Result<(), String>>,
    /// The programs that have bound the knock port, by name and number where these are known.
    pub port_users: Vec<String>,
    /// The ports on which somebody listens.
    pub listening: Option<Vec<PortRange>>,
    /// Our table, as the kernel has it.
    pub table: Option<Table>,
    /// Other firewalls' chains.
    pub chains: Option<Vec<Chain>>,
    /// Tables of the old iptables, which nftables does not show.
    pub legacy: Vec<String>,
    /// What is wrong with the files of the authorities.
    pub certificates: Vec<String>,
    /// What systemd says; `None` where it does not run, or has nothing to do with these directories.
    pub units: Option<Units>,
}

/// What the kernel can do.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release.
    pub release: String,
    /// Whether it took the ruleset in a namespace of its own, and whether a table can be owned; else why not.
    pub ruleset: Result<bool, String>,
    /// Whether it confines a process as the worker is, with Landlock or without; else why not.
    pub confines: Result<bool, String>,
}

/// What the configuration asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The knock port.
    pub port: u16,
    /// Whether guards are ours: `firewall.mode = "table"`.
    pub is_table: bool,
    /// Whether the table is to be owned where it can be.
    pub is_owned: bool,
    /// The guarded ports of the file.
    pub guards: Vec<PortRange>,
    /// Ports that lead to other hosts.
    pub forwards: Vec<PortRange>,
    /// Whether hosts behind this one are guarded.
    pub is_gateway: bool,
    /// The clients.
    pub profiles: Vec<Profile>,
    /// Whether certificates knock, and where their lists are.
    pub lists: Option<Vec<String>>,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Whether it may knock.
    pub is_enabled: bool,
    /// What it may open.
    pub open: Vec<PortRange>,
}

/// One of the daemon's directories.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it is.
    pub path: String,
    /// What it is for.
    pub role: Role,
    /// Its owner, mode and space; else what is wrong with it.
    pub seen: Result<Place, String>,
    /// Whether a file could be written there and made safe, where that was tried.
    pub written: Option<Result<(), String>>,
}

/// What a directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Settings, keys and profiles.
    Configuration,
    /// What outlives a reboot.
    State,
    /// What outlives a restart.
    Runtime,
}

/// What a directory is like.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Who owns it.
    pub owner: u32,
    /// Its mode bits.
    pub mode: u32,
    /// The bytes that are left on its file system.
    pub free: u64,
}

/// The clock, and what the settings make of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// A time service keeps it.
    #[default]
    Kept,
    /// Nobody vouches for it.
    InDoubt,
    /// It shows a time before this release was made.
    Wrong,
    /// `freshness.clock = "trusted"`, and nobody vouches for it.
    TrustedInDoubt,
    /// `freshness.clock = "untrusted"`.
    Untrusted,
}

/// The running daemon.
#[derive(Clone, Debug, Default)]
pub enum Daemon {
    /// Not asked: this user may not.
    #[default]
    Unasked,
    /// It does not answer.
    Silent(String),
    /// It runs.
    Running(Box<Running>),
}

/// What a running daemon says of itself, and the kernel of it.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// This program's.
    pub own_version: String,
    /// What it complains about.
    pub degraded: Vec<String>,
    /// What it finds worth knowing.
    pub notes: Vec<String>,
    /// Whether the worker serves the configuration that was read last.
    pub is_settled: bool,
    /// The profiles that it knows, with whether they may knock.
    pub profiles: Vec<(String, bool)>,
    /// The guards that it keeps.
    pub guards: Vec<PortRange>,
    /// Frames that came, and frames that the kernel had no room for.
    pub frames: (u64, u64),
    /// Whether it lives in the network namespace of this process, where that can be told.
    pub is_here: Option<bool>,
    /// The monitor's process.
    pub monitor_pid: u32,
    /// What the kernel says of its two processes.
    pub monitor: Option<Process>,
    /// The one that reads packets.
    pub worker: Option<Process>,
}

/// What `/proc` says of a process (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Whose it is.
    pub user: u32,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`: whether calls are filtered.
    pub is_filtered: bool,
    /// `CapPrm` and `CapEff` together.
    pub capabilities: u64,
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Every interface; those that are up, loopback aside.
    Any(Vec<String>),
    /// One interface, if it is there, and whether it is up.
    Interface(String, Option<bool>),
    /// A group of the kernel's packet log, or a recording.
    Other(String),
}

/// Our table, as the kernel has it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What is there; `None` when there is no table.
    pub seen: Option<SeenTable>,
    /// What the daemon would make: the lines of the ruleset, where a table could be made to compare with.
    pub model: Option<Vec<String>>,
}

/// A table that is there.
#[derive(Clone, Debug, Default)]
pub struct SeenTable {
    /// Whether a process owns it.
    pub is_owned: bool,
    /// Whether it is switched off.
    pub is_dormant: bool,
    /// Its rules, sets and chains, a line each with the block that it stands in.
    pub rules: Vec<String>,
    /// Its guards, and when the kernel ends them.
    pub guards: Vec<(PortRange, Option<Duration>)>,
}

/// A base chain of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table: `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it hooks in.
    pub hook: Hook,
    /// Its priority.
    pub priority: i32,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
    /// Whether chains of ufw stand beside it.
    pub is_ufw: bool,
}

/// Where a chain hooks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing: where our own guard is.
    Prerouting,
    /// To this host.
    Input,
    /// To others.
    Forward,
}

/// What systemd says of the package's units.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// `systemctl is-enabled knockd-rs`.
    pub daemon: String,
    /// `systemctl is-active knockd-rs-crl.timer`.
    pub lists: String,
}

/// The checks of a server: what it stands on, the daemon, and what comes of it.
pub const CHECKS: &[Check<Facts>] = &[
    Check { name: "rights", judge: host::rights },
    Check { name: "kernel", judge: host::kernel },
    Check { name: "clock", judge: host::clock },
    Check { name: "configuration", judge: host::configuration },
    Check { name: "profiles", judge: host::profiles },
    Check { name: "certificates", judge: host::certificates },
    Check { name: "directories", judge: host::directories },
    Check { name: "space", judge: host::space },
    Check { name: "daemon", judge: daemon::daemon },
    Check { name: "sandbox", judge: daemon::sandbox },
    Check { name: "unit", judge: daemon::unit },
    Check { name: "capture", judge: network::capture },
    Check { name: "knock-port", judge: network::knock_port },
    Check { name: "table", judge: firewall::table },
    Check { name: "guards", judge: firewall::guards },
    Check { name: "listeners", judge: network::listeners },
    Check { name: "firewalls", judge: firewall::firewalls },
];
