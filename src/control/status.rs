//! How things stand, as the daemon tells it: the JSON of `status --json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Closing;
use crate::grant::{SessionFlag, Uses};
use crate::text::{PortRange, Span};

/// Everything that `knockd-rs status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The monitor's process id.
    pub monitor_pid: u32,
    /// The worker's process id, while there is one.
    pub worker_pid: Option<u32>,
    /// Seconds since the daemon started.
    pub running_for: u64,
    /// Counts the configurations loaded since the daemon started, and the workers that serve them: the same
    /// number in both means that a reload is complete.
    pub configuration: u64,
    /// The configuration that the running worker has.
    pub serving: u64,
    /// Sentences about all that is not as it should be. Empty when all is well.
    pub degraded: Vec<String>,
    /// Sentences about what is worth knowing and works as it is.
    pub notes: Vec<String>,
    /// Where knocks are awaited.
    pub capture: String,
    /// How the firewall is kept.
    pub firewall: String,
    /// Whether the worker runs under Landlock.
    pub landlock: bool,
    /// The clients.
    pub profiles: Vec<ProfileStatus>,
    /// The ports closed to strangers.
    pub guards: Vec<GuardStatus>,
    /// What is open, as the kernel has it.
    pub grants: Vec<GrantStatus>,
    /// The addresses that are or will be locked out.
    #[serde(default)]
    pub lockouts: Vec<LockoutStatus>,
    /// The profiles and certificates that have knocked for the last time.
    #[serde(default)]
    pub last_knocks: Vec<String>,
    /// What was counted since the daemon started, by name; zeros left out.
    pub counters: Vec<(String, u64)>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// Its name.
    pub name: String,
    /// Whether it may knock.
    pub enabled: bool,
    /// What it may open.
    pub open: Vec<PortRange>,
    /// For how long when it does not say.
    pub duration: Span,
    /// For how long at most.
    pub max_duration: Span,
    /// For how many connections.
    pub connections: Uses,
    /// Its public key's fingerprint.
    pub fingerprint: String,
    /// Unix seconds of its last accepted knock since the daemon started.
    pub last_knock: Option<u64>,
}

/// One guarded port or range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// The ports.
    pub ports: PortRange,
    /// Drop or reject.
    pub closed: Closing,
    /// Whether the configuration file says so; else a command did.
    pub from_file: bool,
    /// Seconds until it opens again by itself, when it waits for confirmation.
    pub unconfirmed_for: Option<f64>,
}

/// One address that is refused for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockoutStatus {
    /// On whose account.
    pub profile: String,
    /// Who is refused.
    pub address: IpAddr,
    /// Seconds until it begins: zero when it has.
    pub begins_in: f64,
    /// Seconds until it ends.
    pub ends_in: f64,
}

/// One live grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// Whose; empty when the element was not made by this daemon.
    pub profile: String,
    /// The subject of the certificate that it was granted to, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who is let in; of a network, its lowest address.
    pub address: IpAddr,
    /// How many bits of the address count: all but for networks.
    pub prefix: u8,
    /// To which ports.
    pub ports: PortRange,
    /// For how many connections.
    pub connections: Uses,
    /// What holds for them besides.
    #[serde(default)]
    pub session: Vec<SessionFlag>,
    /// Seconds until it ends.
    pub expires_in: f64,
    /// Seconds it was given for.
    pub granted_for: f64,
    /// Packets let in that began a connection.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}
