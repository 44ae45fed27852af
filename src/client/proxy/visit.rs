//! One connection: whose it is, what it asks for, how that is reached, and the bytes from then on.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::flights::{Door, Families, Lead, Turn};
use super::{Client, Proxy, owner, servers};
use crate::client::knock::{KnockError, Way};
use crate::client::reach::{Approach, Effort, ReachError, Reached, pass_through};
use crate::client::relay::{self, Side};
use crate::client::server::Server;
use crate::socks::{Destination, Fault, Handshake, MAX_HEARD, Outcome, Step};

/// How long a client may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may wait for the knocks of others.
const QUEUE: Duration = Duration::from_secs(60);
/// How long a port that somebody has just knocked at may take to answer, on a machine that has much to do.
const JUST_OPENED: Duration = Duration::from_secs(1);
/// When the other side is asked whether it is still there: after so long, so often, at the most so many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// One end of a connection to this proxy.
trait Guest: Side {
    /// Who made it.
    fn owner(&self) -> io::Result<u32>;
    /// Whether a password can take the place of the owner.
    fn may_be_anybodys(&self) -> bool;
    fn set_patience(&self, time: Option<Duration>) -> io::Result<()>;
    fn keep_alive(&self) -> io::Result<()>;
}

impl Guest for TcpStream {
    fn owner(&self) -> io::Result<u32> {
        owner::of_peer(self)
    }

    fn may_be_anybodys(&self) -> bool {
        true
    }

    fn set_patience(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }

    fn keep_alive(&self) -> io::Result<()> {
        watched(self)
    }
}

impl Guest for UnixStream {
    fn owner(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(self)?.uid.as_raw())
    }

    fn may_be_anybodys(&self) -> bool {
        false
    }

    fn set_patience(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }

    fn keep_alive(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Proxy {
    /// Serves a client to its end.
    pub(super) fn serve(&self, client: &Client) {
        let done = match client {
            Client::Tcp(stream) => self.visit(stream),
            Client::Unix(stream) => self.visit(stream),
        };
        if let Err(error) = done {
            self.tell(|| format!("a connection was lost: {error}"));
        }
    }

    fn visit(&self, guest: &impl Guest) -> io::Result<()> {
        if let Err(why) = self.admit(guest) {
            self.complain(&format!("a connection was refused: {why}"));
            return Ok(());
        }
        guest.keep_alive()?;
        let mut handshake = Handshake::new(self.settings.password.as_ref());
        let (to, early) = match hear(guest, &mut handshake)? {
            Ok(asked) => asked,
            Err(why) => {
                self.complain(&format!("a client was turned away: {why}"));
                return Ok(());
            }
        };
        let reached = self.connect(&to);
        let outcome = match &reached {
            Ok(reached) => reached.stream.local_addr().map_or(Outcome::Failed, Outcome::Connected),
            Err(outcome) => *outcome,
        };
        guest.bytes().write_all(&handshake.answer(outcome))?;
        let Ok(Reached { stream, .. }) = reached else { return Ok(()) };
        guest.set_patience(None)?;
        watched(&stream)?;
        (&stream).write_all(&early)?;
        relay::join(guest, &stream)
    }

    /// Lets in the user who runs this; by TCP, where there is a password, whoever will know it.
    fn admit(&self, guest: &impl Guest) -> Result<(), String> {
        if self.settings.password.is_some() && guest.may_be_anybodys() {
            return Ok(());
        }
        let owner = guest.owner().map_err(|error| format!("whose it is cannot be found out: {error}"))?;
        let own = rustix::process::geteuid().as_raw();
        match owner == own {
            true if owner::is_one_user(own) => Ok(()),
            true => {
                Err(format!("user {own} is anybody in this user namespace; map this proxy's user into it"))
            }
            false => Err(format!("it is user {owner}'s, and this proxy is user {own}'s")),
        }
    }

    fn connect(&self, to: &Destination) -> Result<Reached, Outcome> {
        let server = servers::meant(&self.settings.dirs, &self.names, to).map_err(|errors| {
            errors.iter().for_each(|error| self.complain(&error.to_string()));
            Outcome::Failed
        })?;
        let reached = match &server {
            Some(server) => self.guarded(server, to),
            None => pass_through(&to.host.to_string(), to.port, self.settings.timeout).map_err(|error| {
                self.tell(|| format!("{}, tcp/{}: {error}", to.host, to.port));
                outcome(&error)
            }),
        }?;
        self.tell(|| {
            let (how, millis) = (how(&reached), reached.after.as_secs_f64() * 1000.0);
            format!("{}, tcp/{}: connected to {} {how}, in {millis:.1} ms", to.host, to.port, reached.address)
        });
        Ok(reached)
    }

    /// A connection to a port that a server opens: tried first, and knocked for by one for all who want there.
    fn guarded(&self, server: &Server, to: &Destination) -> Result<Reached, Outcome> {
        let addresses = servers::addresses(server, &self.names, &to.host, self.settings.timeout);
        if addresses.is_empty() {
            (self.settings.say)(&format!("{}: {} has no address", server.name, server.access().host));
            return Err(Outcome::HostUnreachable);
        }
        let ways = match (self.settings.identify)(server) {
            Ok(identity) => server.ways(identity),
            Err(why) => {
                self.complain(&format!("{}: {why}", server.name));
                // The port may be open all the same.
                Vec::new()
            }
        };
        let mut effort = Effort::one_connection(ways);
        // As many connections as the profile gives.
        (effort.uses, effort.timeout) = (None, self.settings.timeout);
        let approach = Approach::at(server, &addresses, to.port, &effort);
        let reached = approach.and_then(|approach| self.in_turn(approach, server, &addresses, to.port));
        reached.map_err(|error| {
            self.names.doubt(server.access().host.as_str());
            outcome(&error)
        })?
    }

    /// The inner result is what others have come to.
    fn in_turn(
        &self,
        mut approach: Approach<'_>,
        server: &Server,
        addresses: &[SocketAddr],
        port: u16,
    ) -> Result<Result<Reached, Outcome>, ReachError> {
        let has = |is_v4| addresses.iter().any(|address| address.is_ipv4() == is_v4);
        let families = Families { v4: has(true), v6: has(false) };
        let door = Door { server: server.name.clone(), port };
        let (until, mut patience) = (Instant::now() + QUEUE, approach.usual());
        let (mut seen, mut was_opened) = (self.flights.seen(&door), false);
        loop {
            if let Some(reached) = approach.look(patience)? {
                return Ok(Ok(reached));
            }
            approach.give_up();
            if was_opened {
                self.flights.is_one_each(&door);
            }
            match self.flights.turn(&door, families, seen, until) {
                Turn::Lead(lead) => return self.lead(lead, &mut approach, &door).map(Ok),
                Turn::Failed(outcome) => return Ok(Err(outcome)),
                Turn::Retry(now) => {
                    (seen, was_opened) = (now, true);
                    patience = approach.usual().max(JUST_OPENED);
                }
            }
        }
    }

    /// The knock that others wait for, and what is told of it.
    fn lead(&self, lead: Lead<'_>, approach: &mut Approach<'_>, door: &Door) -> Result<Reached, ReachError> {
        approach.restart();
        let usual = approach.usual();
        let already = if lead.waited { approach.look(usual)? } else { None };
        let reached = already.map_or_else(|| approach.knock(), Ok);
        lead.end(reached.as_ref().map(drop).map_err(outcome));
        let Door { server, port } = door;
        match &reached {
            Err(error) => (self.settings.say)(&format!(
                "{server}, tcp/{port}: {error}; what to check is said by: knockd-rs doctor {server}"
            )),
            Ok(reached) if reached.by.is_some() => {
                let millis = reached.after.as_secs_f64() * 1000.0;
                let how = how(reached);
                (self.settings.say)(&format!("{server}, tcp/{port}: open {how}, in {millis:.1} ms"));
            }
            Ok(_) => {}
        }
        if let Some(oddity) = reached.as_ref().ok().and_then(|reached| reached.oddity.as_ref()) {
            (self.settings.say)(&format!("warning: {oddity}"));
        }
        reached
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.settings.is_verbose {
            (self.settings.say)(&what());
        }
    }
}

/// Hears what a client wants, and what it says already to whom it wants to speak with.
fn hear(
    guest: &impl Guest,
    handshake: &mut Handshake<'_>,
) -> io::Result<Result<(Destination, Vec<u8>), Fault>> {
    let until = Instant::now() + HANDSHAKE;
    let (mut heard, mut buffer) = (Vec::new(), [0; MAX_HEARD]);
    loop {
        match handshake.next(&heard) {
            Step::Say { taken, answer } => {
                heard.drain(..taken);
                guest.bytes().write_all(&answer)?;
            }
            Step::Connect { taken, destination } => {
                heard.drain(..taken);
                return Ok(Ok((destination, heard)));
            }
            Step::End { answer, why } => {
                guest.bytes().write_all(&answer)?;
                return Ok(Err(why));
            }
            Step::Wait => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                guest.set_patience(Some(left))?;
                let room = buffer.get_mut(heard.len()..).unwrap_or_default();
                let length = guest.bytes().read(room)?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                heard.extend_from_slice(room.get(..length).unwrap_or_default());
            }
        }
    }
}

/// Has the kernel notice when the other side is gone without a word, and send each byte at once.
fn watched(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    let socket = stream.as_fd();
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, interval)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    Ok(())
}

/// What a client is told of it.
fn outcome(error: &ReachError) -> Outcome {
    match error {
        ReachError::Knock(KnockError::Resolve { .. }) => Outcome::HostUnreachable,
        ReachError::Knock(_) => Outcome::Failed,
        ReachError::Closed { said, .. } => match said {
            Some(io::ErrorKind::ConnectionRefused) => Outcome::Refused,
            Some(io::ErrorKind::NetworkUnreachable) => Outcome::NetworkUnreachable,
            Some(io::ErrorKind::HostUnreachable) => Outcome::HostUnreachable,
            None | Some(io::ErrorKind::TimedOut) => Outcome::TimedOut,
            // Of this machine, such as descriptors that have run out.
            Some(_) => Outcome::Failed,
        },
    }
}

fn how(reached: &Reached) -> String {
    match (reached.by.as_ref().map(Way::method), reached.knocks) {
        (None, _) => "without a knock".to_owned(),
        (Some(method), 0 | 1) => format!("after a knock by {method}"),
        (Some(method), knocks) => format!("after {knocks} knocks, the last by {method}"),
    }
}
