//! A guarded UDP port. Nothing answers the beginning of a conversation by itself, so whether the port is open is told by
//! a payload of the caller's that its service answers: it is sent again until an answer is there. Without one a knock is
//! sent and believed in.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::counter::Oddity;
use super::datagram;
use super::knock::{KnockError, Knocker, Way};
use super::reach::{Attempt, Effort, ReachError, Taken};
use super::send::{Sent, send};
use super::server::Server;
use super::try_port::{Open, Rhythm, Trying, ready};
use crate::knock::Op;
use crate::text::{PortRange, Protocol};

/// A UDP socket that is connected with the server's port.
#[derive(Debug)]
pub struct ReachedUdp {
    /// The socket, blocking. After a probe its answer is the first thing to be received; answers to copies of the probe
    /// may follow it.
    pub socket: UdpSocket,
    /// Where it goes.
    pub address: SocketAddr,
    /// The way that was knocked by; `None` when the probe was answered without a knock.
    pub by: Option<Way>,
    /// How long it all took.
    pub after: Duration,
    /// What was odd about the counter.
    pub oddity: Option<Oddity>,
}

/// Opens a UDP port of the server, at whatever address its name has.
///
/// With a `probe`, as [`reach`](super::reach()) does for TCP: it is sent first without a knock, then again and again with
/// knocks in between, until any datagram comes back. It has to be one that the service answers and that does no harm
/// when it arrives more than once. The socket that was answered is the one that is handed out, so that a grant for a
/// single connection is enough.
///
/// Without a probe, a knock is sent as by [`knock_for`](super::knock_for) and nothing is looked for; the socket goes to
/// the first of the server's addresses.
///
/// # Errors
/// [`ReachError`].
pub fn reach_udp(
    server: &Server,
    port: u16,
    probe: Option<&[u8]>,
    effort: &Effort,
) -> Result<ReachedUdp, ReachError> {
    let started = Instant::now();
    let mut knocker = Knocker::new(server, effort.clock)?;
    let targets = knocker.targets(port);
    let Some(probe) = probe else { return unseen(&mut knocker, &targets, effort, started) };
    let probes = Probes::new(&targets, probe)?;
    let ports = PortRange::single(Protocol::Udp, port).map_err(|_| KnockError::Unsayable)?;
    let (open, taken) = Attempt::new(knocker, ports, probes, effort).run()?;
    let (Open { socket, address, .. }, Taken { by, after, oddity, .. }) = (open, taken);
    Ok(ReachedUdp { socket, address, by, after, oddity })
}

/// Knocks and hopes.
fn unseen(
    knocker: &mut Knocker<'_>,
    targets: &[SocketAddr],
    effort: &Effort,
    started: Instant,
) -> Result<ReachedUdp, ReachError> {
    let address = *targets.first().ok_or(KnockError::NoWay)?;
    let ports = PortRange::single(Protocol::Udp, address.port()).map_err(|_| KnockError::Unsayable)?;
    let socket = datagram::connect(address).map_err(|error| KnockError::Send { address, error })?;
    let Sent { by, oddity } = send(knocker, Op::Open, &[ports], effort)?;
    Ok(ReachedUdp { socket, address, by: Some(by), after: started.elapsed(), oddity })
}

/// Sockets that a probe is sent from, each connected with one address. A grant for one connection is used up by the
/// first probe that it lets in, and what follows from the same socket belongs to that.
struct Probes {
    probes: Vec<Probe>,
    payload: Vec<u8>,
    rhythm: Rhythm,
    /// When the first probe was sent, as long as there was no other.
    first: Option<Instant>,
    /// Whether any was.
    begun: bool,
    refused: bool,
}

struct Probe {
    socket: UdpSocket,
    address: SocketAddr,
    was_refused: bool,
}

/// The first pause between two probes. The service sees each of them once the port is open, so there are fewer than of
/// connection attempts.
const FIRST: Duration = Duration::from_millis(20);

impl Probes {
    fn new(targets: &[SocketAddr], payload: &[u8]) -> Result<Self, KnockError> {
        let mut probes = Vec::new();
        let mut unreachable = None;
        for address in targets {
            match bound(*address) {
                Ok(socket) => probes.push(Probe { socket, address: *address, was_refused: false }),
                Err(error) => unreachable = Some(KnockError::Send { address: *address, error }),
            }
        }
        match unreachable {
            Some(error) if probes.is_empty() => Err(error),
            _ => Ok(Self {
                probes,
                payload: payload.to_vec(),
                rhythm: Rhythm::new(FIRST),
                first: None,
                begun: false,
                refused: false,
            }),
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = datagram::connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Trying for Probes {
    type Socket = UdpSocket;

    fn rhythm(&mut self) -> &mut Rhythm {
        &mut self.rhythm
    }

    fn begin(&mut self) {
        // Whose answer comes after two of them nobody can tell (Karn and Partridge 1987).
        self.first = (!std::mem::replace(&mut self.begun, true)).then(Instant::now);
        for probe in &mut self.probes {
            // An error may be the answer to the probe before, which the socket tells with the next call and only once.
            let send = || probe.socket.send(&self.payload);
            let outcome = send().or_else(|_answer| send());
            probe.was_refused = outcome.is_err();
            self.refused |= outcome.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        }
    }

    fn look(&mut self, wait: Duration) -> io::Result<Option<Open<UdpSocket>>> {
        let sockets: Vec<&UdpSocket> = self.probes.iter().map(|probe| &probe.socket).collect();
        let ready = ready(&sockets, PollFlags::IN, wait)?;
        let mut answered = None;
        for (place, probe) in
            self.probes.iter_mut().enumerate().filter(|(place, _)| ready.get(*place) == Some(&true))
        {
            // What has come stays in the socket, for the caller.
            match probe.socket.peek(&mut [0]) {
                Ok(_) => answered = answered.or(Some(place)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    probe.was_refused = true;
                    self.refused = error.kind() == io::ErrorKind::ConnectionRefused;
                }
            }
        }
        let Some(place) = answered else { return Ok(None) };
        let Probe { socket, address, .. } = self.probes.swap_remove(place);
        socket.set_nonblocking(false)?;
        Ok(Some(Open { socket, address, round_trip: self.first.map(|sent| sent.elapsed()) }))
    }

    fn said(&self) -> Option<io::ErrorKind> {
        self.refused.then_some(io::ErrorKind::ConnectionRefused)
    }

    fn is_hopeless(&self) -> bool {
        self.probes.iter().all(|probe| probe.was_refused)
    }
}
