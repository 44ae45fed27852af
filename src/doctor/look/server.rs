//! What can be seen of a server. What takes root is left out without it, and named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};

use super::{disk, process, sockets};
use crate::clock::{self, Clocks, RELEASED};
use crate::config::{self, Configuration, Mode, Owner};
use crate::control::{self, Reply, Status};
use crate::doctor::server::{
    Chain, Clock, Daemon, Device, Facts, Hook, Kernel, Profile, Role, Running, SeenTable, Table, Units,
    Wanted,
};
use crate::nft::{self, FirewallError, Ownership};
use crate::privsep::confine::{self, Landlock};
use crate::sys;
use crate::time::ClockTrust;
use crate::x509;
use crate::x509::chain::{Authorities, Numbers};

/// The directories of an installation.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Settings, keys and profiles.
    pub config: PathBuf,
    /// What outlives a reboot.
    pub state: PathBuf,
    /// What outlives a restart.
    pub runtime: PathBuf,
}

/// Looks at this server. Changes nothing: what is tried out is tried in a namespace of its own.
#[must_use]
pub fn look(places: &Directories) -> Facts {
    let is_root = rustix::process::geteuid().is_root();
    let mut facts = Facts { is_root, ..Facts::default() };
    let configuration = configuration(places, &mut facts);
    let (kernel, model) = kernel(&mut facts);
    facts.kernel = kernel;
    let roles = [
        (&places.config, Role::Configuration),
        (&places.state, Role::State),
        (&places.runtime, Role::Runtime),
    ];
    facts.directories = roles.map(|(path, role)| disk::look(path, role, is_root)).into();
    facts.daemon = daemon(&places.runtime, &mut facts.unseen);
    firewall(&mut facts, model);
    facts.packet_sockets = packet_sockets(&mut facts.unseen);
    facts.listening = sockets::listening();
    facts.units = units(places);
    facts.clock = clock(configuration.as_ref().map(|read| read.settings.clock).unwrap_or_default());
    if let Some(configuration) = configuration {
        facts.port_users = sockets::users_of(configuration.settings.capture.port);
        facts.device = Some(device(&configuration.settings.capture.device));
        facts.certificates = certificate_troubles(&configuration);
        facts.wanted = Some(wanted(&configuration));
    }
    facts
}

/// Reads the configuration as a start would, and notes all that is wrong with it.
fn configuration(places: &Directories, facts: &mut Facts) -> Option<Configuration> {
    let read = config::load_sound(&places.config, &places.state.join("last-good.toml"));
    let (configuration, errors) = match read {
        Ok((configuration, errors)) => (Some(configuration), errors),
        Err(errors) => (None, errors),
    };
    let denied = !facts.is_root
        && fs::read_dir(&places.config).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if denied {
        facts.unseen.push("the configuration".to_owned());
        return None;
    }
    facts.errors = errors.iter().map(ToString::to_string).collect();
    if let Some(configuration) = &configuration {
        facts.warnings = configuration.warnings.iter().map(ToString::to_string).collect();
    }
    configuration
}

fn wanted(configuration: &Configuration) -> Wanted {
    let settings = &configuration.settings;
    let profiles = configuration.profiles.iter();
    let rules = configuration.certificates.rules.iter().map(|rule| &rule.profile);
    let profile = |profile: &crate::profile::Profile| Profile {
        name: profile.name.to_string(),
        is_enabled: profile.enabled,
        open: profile.open.clone(),
    };
    let authority = configuration.certificates.authority.as_ref();
    Wanted {
        port: settings.capture.port,
        is_table: matches!(settings.firewall.mode, Mode::Table { .. }),
        is_owned: matches!(settings.firewall.mode, Mode::Table { owner: Owner::Auto, .. }),
        guards: settings.guard.drop.iter().chain(&settings.guard.reject).copied().collect(),
        forwards: settings.forwards.iter().map(|forward| forward.listen).collect(),
        is_gateway: !settings.guard.behind.is_empty(),
        profiles: profiles.chain(rules).map(profile).collect(),
        lists: authority
            .map(|authority| authority.crl.iter().map(|path| path.display().to_string()).collect()),
    }
}

/// What is wrong with the files of the authorities, which the daemon leaves to its worker to read.
#[must_use]
pub fn certificate_troubles(configuration: &Configuration) -> Vec<String> {
    let Some(authority) = &configuration.certificates.authority else { return Vec::new() };
    let all = |files: &[Vec<u8>], read: fn(&[u8]) -> Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        files.iter().flat_map(|file| read(file)).collect()
    };
    let (authorities, mut troubles) = Authorities::new(
        &all(&configuration.trust.authorities, x509::certificates),
        &all(&configuration.trust.lists, x509::revocation_lists),
        &Numbers::new(),
        authority.crl_grace.duration(),
    );
    troubles.extend(authorities.troubles(clock::wall()).into_iter().map(|(_, trouble)| trouble));
    troubles
}

/// Tries the ruleset in a network namespace that ends with the try, and the confinement on a thread that does. Also
/// returns the lines of the ruleset.
fn kernel(facts: &mut Facts) -> (Option<Kernel>, Option<Vec<String>>) {
    let tried = thread::spawn(|| sys::leave_network().map(|()| nft::model()));
    let tried = tried.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    let (ruleset, model) = match tried {
        Err(_) => {
            facts.unseen.push("what the kernel's firewall can do".to_owned());
            return (None, None);
        }
        Ok(Ok((ownership, lines))) => (Ok(ownership == Ownership::Owned), Some(lines)),
        Ok(Err(error)) => (Err(error.to_string()), None),
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let confines =
        confine::try_out().map(|landlock| landlock != Landlock::Missing).map_err(|error| error.to_string());
    (Some(Kernel { release, ruleset, confines }), model)
}

fn clock(setting: config::Clock) -> Clock {
    let is_kept = Clocks::new(config::Clock::Auto).read().trust == ClockTrust::Synchronised;
    match setting {
        _ if clock::wall() < RELEASED => Clock::Wrong,
        config::Clock::Untrusted => Clock::Untrusted,
        _ if is_kept => Clock::Kept,
        config::Clock::Trusted => Clock::TrustedInDoubt,
        config::Clock::Auto => Clock::InDoubt,
    }
}

fn daemon(runtime: &Path, unseen: &mut Vec<String>) -> Daemon {
    let path = control::socket_path(runtime);
    match control::call(runtime, &control::Command::Status {}) {
        Ok(Reply::Status(status)) => Daemon::Running(Box::new(running(*status))),
        Ok(_) => Daemon::Silent(format!("{}: the daemon answered another question", path.display())),
        Err(error) => match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                if !rustix::process::geteuid().is_root() =>
            {
                unseen.push("the running daemon".to_owned());
                Daemon::Unasked
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Daemon::Silent(format!("no daemon listens at {}", path.display()))
            }
            _ => Daemon::Silent(format!("the daemon at {} does not answer: {error}", path.display())),
        },
    }
}

fn running(status: Status) -> Running {
    let counted =
        |name: &str| status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, number)| *number);
    Running {
        frames: (counted("frames"), counted("lost by the kernel")),
        is_settled: status.configuration == status.serving,
        is_here: process::is_here(status.monitor_pid),
        monitor_pid: status.monitor_pid,
        monitor: process::look(status.monitor_pid),
        worker: status.worker_pid.and_then(process::look),
        version: status.version,
        own_version: env!("CARGO_PKG_VERSION").to_owned(),
        degraded: status.degraded,
        notes: status.notes,
        profiles: status.profiles.into_iter().map(|profile| (profile.name, profile.enabled)).collect(),
        guards: status.guards.iter().map(|guard| guard.ports).collect(),
    }
}

/// The tables of this network namespace.
fn firewall(facts: &mut Facts, model: Option<Vec<String>>) {
    let seen = nft::found_table().and_then(|seen| Ok((seen, nft::base_chains()?)));
    let (seen, chains) = match seen {
        Ok(seen) => seen,
        Err(FirewallError::NotPermitted) => {
            facts.unseen.push("the firewall's tables".to_owned());
            return;
        }
        Err(error) => {
            facts.unseen.push(format!("the firewall's tables ({error})"));
            return;
        }
    };
    let seen = seen.map(|table| SeenTable {
        is_owned: table.is_owned,
        is_dormant: table.is_dormant,
        rules: table.rules,
        guards: table.guards.into_iter().map(|live| (live.guard.ports, live.guard.lifetime)).collect(),
    });
    facts.table = Some(Table { seen, model });
    facts.chains = Some(chains.into_iter().map(chain).collect());
    facts.legacy = legacy();
}

fn chain(chain: nft::BaseChain) -> Chain {
    Chain {
        family: chain.family.to_owned(),
        table: chain.table,
        name: chain.name,
        hook: match chain.hook {
            nft::Hook::Prerouting => Hook::Prerouting,
            nft::Hook::Input => Hook::Input,
            nft::Hook::Forward => Hook::Forward,
        },
        priority: chain.priority,
        drops: chain.drops,
        is_ufw: chain.is_ufw,
    }
}

/// The tables of the old iptables that can drop what comes in; its other tables only rewrite.
fn legacy() -> Vec<String> {
    let names = |file: &str, family: &str| -> Vec<String> {
        let text = fs::read_to_string(Path::new("/proc/net").join(file)).unwrap_or_default();
        text.lines().filter(|name| *name == "filter").map(|name| format!("{name} ({family})")).collect()
    };
    [names("ip_tables_names", "IPv4"), names("ip6_tables_names", "IPv6")].concat()
}

fn packet_sockets(unseen: &mut Vec<String>) -> Option<Result<(), String>> {
    match socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(eth::ALL)) {
        Ok(_) => Some(Ok(())),
        Err(rustix::io::Errno::PERM) => {
            unseen.push("packet sockets".to_owned());
            None
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

/// The interface as `/sys/class/net` has it.
fn device(device: &config::Device) -> Device {
    let is_up = |name: &str| -> Option<bool> {
        let flags = fs::read_to_string(format!("/sys/class/net/{name}/flags")).ok()?;
        // IFF_UP (`netdevice(7)`).
        u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok().map(|flags| flags & 1 != 0)
    };
    match device {
        config::Device::Any => {
            let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut up: Vec<String> =
                names.filter(|name| name != "lo" && is_up(name) == Some(true)).collect();
            up.sort();
            Device::Any(up)
        }
        config::Device::Interface(name) => Device::Interface(name.to_string(), is_up(name.as_str())),
        other => Device::Other(other.to_string()),
    }
}

/// What systemd says of the package's units, where it runs them and these directories are theirs.
fn units(places: &Directories) -> Option<Units> {
    let is_theirs = places.runtime == Path::new("/run/knockd-rs");
    let runs = Path::new("/run/systemd/system").is_dir();
    (is_theirs && runs).then_some(())?;
    let ask = |verb: &str, unit: &str| -> Option<String> {
        let output = Command::new("/usr/bin/systemctl").args([verb, unit]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|state| !state.is_empty())
    };
    Some(Units {
        daemon: ask("is-enabled", "knockd-rs.service").unwrap_or_else(|| "not installed".to_owned()),
        lists: ask("is-active", "knockd-rs-crl.timer").unwrap_or_else(|| "not installed".to_owned()),
    })
}
