//! Commands for the running daemon: `guard`, `unguard`, `grant`, `revoke`, `allow`, `reload`.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use super::exit::print;
use crate::control::{Closing, Command, Listening, Reply, Revoked, Status, call, socket_path};
use crate::grant::Uses;
use crate::log::escape;
use crate::profile::Opens;
use crate::text::{PortRange, Span};

/// Where the system's daemon has its socket.
const RUNTIME_DIR: &str = "/run/knockd-rs";

/// Where the daemon's socket is.
#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// The daemon's runtime directory.
    #[arg(long, value_name = "DIR", default_value = RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

impl Daemon {
    /// The one of the system.
    pub(super) fn usual() -> Self {
        Self::at(RUNTIME_DIR.into())
    }

    /// The one with this runtime directory.
    pub(super) fn at(runtime_dir: PathBuf) -> Self {
        Self { runtime_dir }
    }

    /// Has it read its configuration again, and waits until a worker goes by that.
    pub(super) fn reload(&self) -> Result<Vec<String>, Failure> {
        let lines = self.tell(&Command::Reload {})?;
        self.await_serving()?;
        Ok(lines)
    }

    /// Waits until the worker serves the configuration that the daemon has.
    pub(super) fn await_serving(&self) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < RELOAD_PATIENCE {
            let status = self.status()?;
            if status.serving == status.configuration {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::Failed(
            "the daemon has read it, but no worker serves it yet; see `knockd-rs status`".into(),
        ))
    }

    /// Sends a command and returns the lines of the answer.
    pub(super) fn tell(&self, command: &Command) -> Result<Vec<String>, Failure> {
        match self.ask(command)? {
            Reply::Done(lines) => Ok(lines),
            Reply::Refused(lines) => Err(Failure::Refused(lines)),
            Reply::Status(_) | Reply::Event(_) => Err(another_question()),
        }
    }

    pub(super) fn status(&self) -> Result<Status, Failure> {
        match self.ask(&Command::Status {})? {
            Reply::Status(status) => Ok(*status),
            Reply::Refused(lines) => Err(Failure::Refused(lines)),
            Reply::Done(_) | Reply::Event(_) => Err(another_question()),
        }
    }

    /// Listens to the daemon's events.
    pub(super) fn listen(&self, follow: bool) -> Result<Listening, Failure> {
        Listening::begin(&self.runtime_dir, follow).map_err(|error| self.unheard(&error))
    }

    fn ask(&self, command: &Command) -> Result<Reply, Failure> {
        call(&self.runtime_dir, command).map(tamed).map_err(|error| self.unheard(&error))
    }

    /// Why there was no answer.
    pub(super) fn unheard(&self, error: &io::Error) -> Failure {
        let path = socket_path(&self.runtime_dir);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::NoDaemon(format!(
                "no daemon listens at {}; `systemctl start knockd-rs` starts it",
                path.display()
            )),
            // The daemon hangs up on whom it does not know, before it has read the command.
            io::ErrorKind::PermissionDenied | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                if !rustix::process::geteuid().is_root() =>
            {
                Failure::NotPermitted(NOT_PERMITTED.into())
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Failure::NoDaemon(format!("the daemon at {} does not answer; see its log", path.display()))
            }
            _ => Failure::NoDaemon(format!("{}: {error}", path.display())),
        }
    }
}

/// The daemon's sentences without what a terminal would obey.
fn tamed(reply: Reply) -> Reply {
    let tame = |lines: Vec<String>| lines.iter().map(|line| escape(line).into_owned()).collect();
    match reply {
        Reply::Done(lines) => Reply::Done(tame(lines)),
        Reply::Refused(lines) => Reply::Refused(tame(lines)),
        other => other,
    }
}

fn another_question() -> Failure {
    Failure::Failed("the daemon answered another question".into())
}

const NOT_PERMITTED: &str =
    "only root and the members of control.group in knockd-rs.toml may command the daemon; use sudo";

fn print_all(lines: &[String]) -> Result<(), Failure> {
    lines.iter().try_for_each(|line| print(line))
}

/// Close ports to strangers; clients that knock still get in.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs guard tcp/22 --confirm 2m    the kernel opens it again unless a knock from outside comes in time
  knockd-rs guard udp/51820 --reject     strangers get an ICMP error instead of silence")]
pub(super) struct Guard {
    /// Ports such as tcp/22 or tcp/8000-8100.
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<PortRange>,
    /// Answer strangers with a TCP reset or ICMP port unreachable, as a port without a service does.
    #[arg(long)]
    reject: bool,
    /// Undo it after this time unless a knock from outside has opened the port by then.
    #[arg(long, value_name = "DURATION")]
    confirm: Option<Span>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Guard {
    pub(super) fn run(self) -> Result<(), Failure> {
        let closed = if self.reject { Closing::Reject } else { Closing::Drop };
        let command = Command::Guard { ports: self.ports, closed, confirm: self.confirm };
        print_all(&self.daemon.tell(&command)?)?;
        if self.confirm.is_some() {
            print(
                "now knock from outside: knockd-rs knock SERVER; `knockd-rs status` shows the confirmation",
            )?;
        }
        Ok(())
    }
}

/// Open guarded ports to everybody again.
#[derive(Debug, Args)]
pub(super) struct Unguard {
    /// Ports exactly as they were guarded.
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<PortRange>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Unguard {
    pub(super) fn run(self) -> Result<(), Failure> {
        print_all(&self.daemon.tell(&Command::Unguard { ports: self.ports })?)?;
        Ok(())
    }
}

/// Open ports for an address by hand, without a knock.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs grant laptop 203.0.113.9                  what laptop's own knock would open
  knockd-rs grant laptop 203.0.113.9 tcp/22 --for 1h --many")]
pub(super) struct Grant {
    /// The profile that the grant is counted and shown under.
    profile: String,
    /// The address to let in.
    address: IpAddr,
    /// Ports or services; without any, all that the profile opens.
    #[arg(value_name = "PORT|SERVICE")]
    open: Vec<Opens>,
    /// For how long; the profile's default otherwise.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Span>,
    /// For any number of connections instead of one.
    #[arg(long)]
    many: bool,
    /// For this number of connections.
    #[arg(long, value_name = "NUMBER", conflicts_with = "many")]
    connections: Option<Uses>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Grant {
    pub(super) fn run(self) -> Result<(), Failure> {
        let command = Command::Grant {
            profile: self.profile,
            address: self.address,
            open: self.open.iter().map(ToString::to_string).collect(),
            duration: self.duration,
            connections: Some(if self.many { Uses::Many } else { self.connections.unwrap_or_default() }),
        };
        print_all(&self.daemon.tell(&command)?)?;
        Ok(())
    }
}

/// End grants now. Connections that are established go on, unless they were to end with the grant.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// A profile's name, an address, or `all`.
    #[arg(value_name = "PROFILE|ADDRESS|all")]
    what: String,
    #[command(flatten)]
    daemon: Daemon,
}

impl Revoke {
    pub(super) fn run(self) -> Result<(), Failure> {
        print_all(&self.daemon.tell(&Command::Revoke { what: whose(&self.what) })?)?;
        Ok(())
    }
}

/// Let a client knock again after its last knock, or an address in that is locked out.
#[derive(Debug, Args)]
pub(super) struct Allow {
    /// A profile's name, an address, or `all`.
    #[arg(value_name = "PROFILE|ADDRESS|all")]
    what: String,
    #[command(flatten)]
    daemon: Daemon,
}

impl Allow {
    pub(super) fn run(self) -> Result<(), Failure> {
        print_all(&self.daemon.tell(&Command::Allow { what: whose(&self.what) })?)
    }
}

fn whose(what: &str) -> Revoked {
    match (what, what.parse()) {
        ("all", _) => Revoked::All,
        (_, Ok(address)) => Revoked::Address(address),
        (name, Err(_)) => Revoked::Profile(name.to_owned()),
    }
}

/// Make the daemon read its configuration again.
///
/// A broken configuration changes nothing: the daemon goes on with the old one and says what is wrong.
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    daemon: Daemon,
}

/// How long a reload may take until the new worker serves.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        print_all(&self.daemon.tell(&Command::Reload {})?)?;
        self.daemon.await_serving()
    }
}
