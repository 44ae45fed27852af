//! `totp`: the ports of a sequence by the time, for any tool that can send them.

use clap::Args;

use super::Failure;
use super::client::{broken, dirs};
use super::exit::print;
use crate::client::knock::Knocker;
use crate::client::server::Server;
use crate::client::store::Dirs;
use crate::clock;
use crate::knock::Method;
use crate::text::ServerName;

/// Print the ports to knock at now, in order, so that any tool can send them.
///
/// They are good for a minute and a half at most, and once.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  knock -d 100 myserver $(knockd-rs totp myserver)")]
pub(super) struct Totp {
    /// The server, by the name under which it was imported.
    server: ServerName,
}

impl Totp {
    pub(super) fn run(self) -> Result<(), Failure> {
        print(&ports(&dirs()?, &self.server)?)
    }
}

/// The ports of the next step that was not used, separated by blanks.
pub(super) fn ports(dirs: &Dirs, server: &ServerName) -> Result<String, Failure> {
    let known = Server::load(dirs, server).map_err(|errors| broken(&errors))?;
    if !known.access().methods.contains(&Method::Totp) {
        return Err(Failure::Usage(format!(
            "{server} does not take sequences by the time from this client; `methods` in the profile says what it takes"
        )));
    }
    let knocker = Knocker::new(&known, clock::wall).map_err(|error| Failure::Failed(error.to_string()))?;
    let ports = knocker.totp_ports().map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}
