//! `agent`: keeps what a server opens open for this machine.

use std::sync::Arc;

use clap::Args;

use super::Failure;
use super::client::{broken, dirs, wanted};
use super::exit::warn;
use super::identity::CertificateFiles;
use crate::client::agent::{Job, Surroundings, run};
use crate::client::cert::Identity;
use crate::client::server::Server;
use crate::knock::Method;
use crate::notify::Notify;
use crate::profile::Opens;
use crate::text::{ServerName, Span};

/// Keep what a server opens open for this machine, wherever it is, until this ends.
///
/// Knocks, renews each grant well before its end, and knocks again at once when this machine's address or network
/// changes. A TCP port is tried to see whether it opened; methods are tried one after the other until it does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs agent myserver                           what the profile opens
  knockd-rs agent myserver tcp/22 --for 5m           one port; a lost machine keeps it open for five minutes at most
  systemctl --user enable --now knockd-rs-agent@myserver")]
pub(super) struct Agent {
    /// The server, by the name under which it was imported.
    server: ServerName,
    /// Ports such as tcp/22, or services such as ssh.
    #[arg(value_name = "PORT|SERVICE")]
    open: Vec<Opens>,
    /// How long each grant is to last; at most what the server's profile allows.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Span>,
    /// Leave what is open to lapse at the end, instead of closing it.
    #[arg(long)]
    keep: bool,
    /// Knock by this method alone: spa, syn, sequence, totp. Again for more, in the order to try.
    #[arg(long, value_name = "METHOD")]
    method: Vec<Method>,
    #[command(flatten)]
    certificate: CertificateFiles,
}

impl Agent {
    pub(super) fn run(self) -> Result<(), Failure> {
        let job = self.job()?;
        let mut console = Console { notify: Notify::open(), agent: &self };
        run(job, &mut console).map_err(|error| Failure::Failed(error.to_string()))?;
        console.notify.stopping();
        Ok(())
    }

    fn job(&self) -> Result<Job, Failure> {
        let server = Server::load(&dirs()?, &self.server).map_err(|errors| broken(&errors))?;
        if self.duration.is_some_and(|duration| duration < LEAST) {
            return Err(Failure::Usage(format!(
                "--for is too short to be renewed in time; use {LEAST} or more"
            )));
        }
        let (wanted, ports) = wanted(&self.open, &self.server, server.access())?;
        let mut ways = server.ways(self.identity(&server)?);
        if !self.method.is_empty() {
            ways.retain(|way| self.method.contains(&way.method()));
            ways.sort_by_key(|way| self.method.iter().position(|method| *method == way.method()));
        }
        if ways.is_empty() {
            let listed: Vec<String> = server.access().methods.iter().map(ToString::to_string).collect();
            return Err(Failure::Usage(format!(
                "{} takes knocks by {} from this client; an agent needs one of spa, syn, sequence and totp, or a \
                 certificate",
                server.name,
                listed.join(", ")
            )));
        }
        Ok(Job { server, ways, wanted, ports, duration: self.duration, keep: self.keep })
    }

    /// The certificate that the command line names, or the one that was imported.
    fn identity(&self, server: &Server) -> Result<Option<Arc<Identity>>, Failure> {
        let named = self.certificate.named()?;
        let files = named.as_ref().or(server.enrolment.certificate.as_ref());
        files.map(|files| self.certificate.load(files)).transpose()
    }
}

/// The shortest grant that leaves time for a renewal and its copies.
const LEAST: Span = Span::from_secs(3);

/// Standard error, systemd, and the files.
struct Console<'a> {
    notify: Notify,
    agent: &'a Agent,
}

impl Surroundings for Console<'_> {
    fn say(&mut self, line: &str) {
        warn(&format!("knockd-rs: {line}"));
    }

    fn ready(&mut self, status: &str) {
        self.notify.ready(status);
    }

    fn status(&mut self, status: &str) {
        self.notify.status(status);
    }

    fn reload(&mut self) -> Result<Job, Vec<String>> {
        self.agent.job().map_err(|failure| failure.lines().to_vec())
    }
}
