//! `connect`: a connection for `ProxyCommand` of ssh, with a knock before it where one is needed.

use std::io::{IoSlice, stdin, stdout};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;

use clap::Args;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::Failure;
use super::client::{broken, dirs};
use super::exit::warn;
use super::expiry::patience;
use super::identity::CertificateFiles;
use crate::client::cert::Identity;
use crate::client::reach::{Effort, ReachError, Reached, pass_through, reach};
use crate::client::relay;
use crate::client::server::Server;
use crate::client::store::Dirs;
use crate::enrol::Host;
use crate::knock::Method;
use crate::text::Span;

/// Connect standard input and output with a TCP port, and knock first where that is needed.
///
/// HOST is a server that was imported, by its name here or by its host; then a port that the server opens is tried,
/// knocked for when it does not answer, and connected to as soon as it is open. Methods are tried one after the other,
/// and what worked in this network comes first the next time. Any other host or port is connected to without a knock.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, in ~/.ssh/config (`knockd-rs ssh-config myserver --install` writes it):
  ProxyCommand knockd-rs connect --fdpass %h %p      with ProxyUseFdpass yes: ssh is given the connection itself
  ProxyCommand knockd-rs connect %h %p               passes every byte on")]
pub(super) struct Connect {
    /// The server, or any other host.
    host: Host,
    /// The TCP port.
    port: u16,
    /// Hand the connection over instead of passing bytes on; ssh wants it with `ProxyUseFdpass yes`.
    #[arg(long)]
    fdpass: bool,
    /// Knock by this method alone: spa, syn, sequence, totp. Again for more, in the order to try.
    #[arg(long, value_name = "METHOD")]
    method: Vec<Method>,
    /// How long to try.
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    timeout: Span,
    /// Say what happens.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    certificate: CertificateFiles,
}

impl Connect {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dirs = dirs()?;
        let server =
            Server::for_host(&dirs, self.host.as_str(), self.port).map_err(|errors| broken(&errors))?;
        let reached = match &server {
            Some(server) => reach(server, self.port, &self.effort(server)?),
            None => pass_through(&self.other_host(&dirs), self.port, self.timeout.duration()),
        };
        let reached = reached.map_err(|error| self.failed(server.as_ref(), error))?;
        if let Some(oddity) = &reached.oddity {
            warn(&format!("knockd-rs: warning: {oddity}"));
        }
        if self.verbose {
            self.tell(&reached);
        }
        if self.fdpass { hand_over(&reached.stream) } else { pass_on(&reached.stream) }
    }

    /// Where to connect to without a knock: the host of a server's name that was given, since ssh knows it by that name
    /// whatever the port; else what was given.
    fn other_host(&self, dirs: &Dirs) -> String {
        let named = self.host.as_str().parse().ok();
        let server = named.and_then(|name| Server::load(dirs, &name).ok());
        server.map_or_else(|| self.host.to_string(), |server| server.access().host.to_string())
    }

    fn effort(&self, server: &Server) -> Result<Effort, Failure> {
        let mut effort = Effort::one_connection(server.ways(self.identity(server)?));
        effort.timeout = patience(server.access(), &server.name, self.timeout).duration();
        if !self.method.is_empty() {
            effort.ways.retain(|way| self.method.contains(&way.method()));
            effort.ways.sort_by_key(|way| self.method.iter().position(|method| *method == way.method()));
        }
        if effort.ways.is_empty() {
            let listed: Vec<String> = server.access().methods.iter().map(ToString::to_string).collect();
            return Err(Failure::Usage(format!(
                "{} takes knocks by {} from this client; `knockd-rs connect` needs one of spa, syn, sequence and totp, or a \
                 certificate",
                server.name,
                listed.join(", ")
            )));
        }
        Ok(effort)
    }

    /// The certificate that the command line names, or the one that was imported.
    fn identity(&self, server: &Server) -> Result<Option<Arc<Identity>>, Failure> {
        let named = self.certificate.named()?;
        let files = named.as_ref().or(server.enrolment.certificate.as_ref());
        files.map(|files| self.certificate.load(files)).transpose()
    }

    fn tell(&self, reached: &Reached) {
        let how = match &reached.by {
            Some(way) => format!("after a knock by {}", way.method()),
            None => "without a knock".to_owned(),
        };
        let millis = reached.after.as_secs_f64() * 1000.0;
        warn(&format!("knockd-rs: connected to {} {how}, in {millis:.1} ms", reached.address));
    }

    fn failed(&self, server: Option<&Server>, error: ReachError) -> Failure {
        let there = format!("tcp/{} at {}: {error}", self.port, self.host);
        match (server, error) {
            (_, ReachError::Knock(_)) => Failure::Failed(there),
            (None, _) => Failure::StillClosed(format!(
                "{there}; no knock was sent, since no server was imported that has this name or host and opens the port"
            )),
            (Some(server), _) => Failure::StillClosed(format!(
                "{there}; what to check is said by: knockd-rs doctor {}",
                server.name
            )),
        }
    }
}

fn pass_on(stream: &TcpStream) -> Result<(), Failure> {
    // Single keystrokes are not to wait for more.
    let _ = stream.set_nodelay(true);
    relay::splice(stdin().as_fd(), stdout().as_fd(), stream)
        .map_err(|error| Failure::Failed(format!("the connection was lost: {error}")))
}

/// Sends the connection's descriptor over standard output, which is a socket then (`ssh_config(5)`, `unix(7)`). One
/// byte goes with it: a message without any has no descriptors either.
fn hand_over(stream: &TcpStream) -> Result<(), Failure> {
    let fds = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = sendmsg(stdout(), &[IoSlice::new(&[0])], &mut control, SendFlags::empty());
    sent.map(drop).map_err(|error| {
        Failure::Usage(format!(
            "standard output takes no connection ({error}); --fdpass is for ssh with `ProxyUseFdpass yes`"
        ))
    })
}
