//! A connection to a guarded port: tried first, knocked for when it does not come, by one method after the other.
//!
//! The connection that succeeds is the one that is handed out, so that a grant for a single connection is enough. What
//! worked is remembered for the network that this machine is in; next time it comes first.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::counter::Oddity;
use super::knock::{KnockError, Knocker, Salvo, Silence, Way, watch};
use super::memory::{Lesson, recall, remember};
use super::network::Network;
use super::send::ask;
use super::server::Server;
use super::try_port::{Open, Tries, Trying};
use crate::clock;
use crate::knock::Op;
use crate::session::Uses;
use crate::text::{PortRange, Protocol, Span};
use crate::time::Timestamp;

/// How hard to try, and what to ask for.
#[derive(Clone, Debug)]
pub struct Effort {
    /// When to give up.
    pub timeout: Duration,
    /// How many knocks are sent at the most.
    pub knocks: u32,
    /// How long one knock may take to have an effect. A sequence takes its own time besides.
    pub patience: Duration,
    /// The ways to knock, in the order in which they are tried; see [`Server::ways`].
    pub ways: Vec<Way>,
    /// For how many connections; `None` for as many as the profile gives.
    pub uses: Option<Uses>,
    /// For how long; `None` for what the profile gives unless asked.
    pub duration: Option<Span>,
    /// The wall clock. Knocks carry its time.
    pub clock: fn() -> Timestamp,
}

impl Effort {
    /// One connection, by these ways, within 20 seconds and with six knocks at the most.
    #[must_use]
    pub fn one_connection(ways: Vec<Way>) -> Self {
        Self {
            timeout: Duration::from_secs(20),
            knocks: 6,
            patience: Duration::from_secs(2),
            ways,
            uses: Some(Uses::Once),
            duration: None,
            clock: clock::wall,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Reached {
    /// The connection itself, blocking.
    pub stream: TcpStream,
    /// Where it goes.
    pub address: SocketAddr,
    /// The way that opened the port; `None` when it was open.
    pub by: Option<Way>,
    /// How long it all took.
    pub after: Duration,
    /// What was odd about the counter.
    pub oddity: Option<Oddity>,
}

/// Connects to a TCP port of the server, at whatever address its name has; knocks if that is needed.
///
/// # Errors
/// [`ReachError`].
pub fn reach(server: &Server, port: u16, effort: &Effort) -> Result<Reached, ReachError> {
    let knocker = Knocker::new(server, effort.clock)?;
    let targets = knocker.targets(port);
    over_tcp(knocker, server, &targets, effort)
}

/// The same at one of the server's addresses.
///
/// # Errors
/// [`ReachError`].
pub fn reach_at(server: &Server, target: SocketAddr, effort: &Effort) -> Result<Reached, ReachError> {
    let mut knocker = Knocker::new(server, effort.clock)?;
    // A grant is for the address that the knock came from, which has the family of the one it went to.
    knocker.addresses = vec![SocketAddr::new(target.ip(), server.access().port)];
    over_tcp(knocker, server, &[target], effort)
}

fn over_tcp<'k>(
    mut knocker: Knocker<'k>,
    server: &'k Server,
    targets: &[SocketAddr],
    effort: &Effort,
) -> Result<Reached, ReachError> {
    let port = targets.first().map_or(0, SocketAddr::port);
    let tries = Tries::new(targets);
    let (open, taken) = Attempt::new(&mut knocker, server, tries, effort).run(Protocol::Tcp, port)?;
    Ok(reached(open, taken))
}

/// Connects to a host that needs no knock: every address of it at the same time.
///
/// # Errors
/// [`ReachError`].
pub fn pass_through(host: &str, port: u16, timeout: Duration) -> Result<Reached, ReachError> {
    let unknown = |error| KnockError::Resolve { host: host.to_owned(), error };
    let targets: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unknown)?.collect();
    let (started, mut tries) = (Instant::now(), Tries::new(&targets));
    tries.begin();
    while started.elapsed() < timeout && !tries.is_hopeless() {
        let left = timeout.saturating_sub(started.elapsed());
        if let Some(open) = tries.look(left).map_err(KnockError::Try)? {
            let taken = Taken { by: None, after: started.elapsed(), oddity: None };
            return Ok(reached(open, taken));
        }
    }
    Err(ReachError::Closed { knocks: 0, refused: tries.was_refused(), last: None })
}

/// What it took.
pub(super) struct Taken {
    pub(super) by: Option<Way>,
    pub(super) after: Duration,
    pub(super) oddity: Option<Oddity>,
}

/// One call of [`reach`], or of [`reach_udp`](super::reach_udp).
pub(super) struct Attempt<'a, 'k, T> {
    knocker: &'a mut Knocker<'k>,
    server: &'k Server,
    effort: &'a Effort,
    network: Option<Network>,
    known: Option<Lesson>,
    tries: T,
    started: Instant,
}

impl<'a, 'k, T: Trying> Attempt<'a, 'k, T> {
    pub(super) fn new(
        knocker: &'a mut Knocker<'k>,
        server: &'k Server,
        tries: T,
        effort: &'a Effort,
    ) -> Self {
        let (network, known) = knocker.lesson();
        Self { knocker, server, effort, network, known, tries, started: Instant::now() }
    }

    pub(super) fn run(
        mut self,
        protocol: Protocol,
        port: u16,
    ) -> Result<(Open<T::Socket>, Taken), ReachError> {
        let ports = PortRange::single(protocol, port).map_err(|_| KnockError::Unsayable)?;
        self.tries.begin();
        if let Some(open) = self.look()? {
            return Ok(self.done(open, None));
        }
        let ways = in_order(&self.effort.ways, self.known);
        let (mut sent, mut last) = (0, ways.is_empty().then_some(KnockError::NoWay));
        for way in ways.iter().cycle() {
            let left = self.effort.timeout.saturating_sub(self.started.elapsed());
            if sent >= self.effort.knocks || left.is_zero() {
                break;
            }
            sent += 1;
            match self.by(way, ports, left) {
                Ok(Some(open)) => return Ok(self.done(open, Some(way.clone()))),
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(ReachError::Closed { knocks: sent, refused: self.tries.was_refused(), last })
    }

    /// Whether the port is open without a knock. A closed port does not answer, so that takes as long as an answer may
    /// take: a few times what it took in this network before.
    fn look(&mut self) -> Result<Option<Open<T::Socket>>, ReachError> {
        let usual = self.known.map_or(UNKNOWN, |known| (known.round_trip * PATIENT).clamp(LEAST, MOST));
        let until = self.started + usual.min(self.effort.timeout);
        while Instant::now() < until && !self.tries.is_hopeless() {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(open) = self.tries.look(left).map_err(KnockError::Try)? {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// One knock, and what comes of it.
    fn by(
        &mut self,
        way: &Way,
        ports: PortRange,
        left: Duration,
    ) -> Result<Option<Open<T::Socket>>, KnockError> {
        let ask = ask(self.server, way, Op::Open, &[ports], self.effort).ok_or(KnockError::Unsayable)?;
        self.knocker.way = way.clone();
        let addresses = self.knocker.addresses.clone();
        let mut salvo: Box<dyn Salvo> = match self.knocker.salvo(&ask, &addresses) {
            // Nothing more can be said this way for now; what was said may still arrive.
            Err(KnockError::TooOften(wait)) if self.effort.ways.len() == 1 => Box::new(Silence(wait)),
            other => other?,
        };
        self.tries.hurry();
        // What was begun is played to its end.
        let patience = salvo.takes() + self.effort.patience.min(left);
        let open = watch(&mut *salvo, &mut self.tries, patience)?;
        self.knocker.insist();
        Ok(open)
    }

    fn done(&mut self, open: Open<T::Socket>, by: Option<Way>) -> (Open<T::Socket>, Taken) {
        if let Some(network) = self.network {
            let lesson = Lesson {
                network,
                method: by.as_ref().map(Way::method),
                round_trip: open
                    .round_trip
                    .or(self.known.map(|known| known.round_trip))
                    .unwrap_or(UNKNOWN / PATIENT),
                when: (self.effort.clock)(),
            };
            // The next connection takes a little longer, and that is all.
            let _ = remember(self.server, lesson);
        }
        let taken = Taken { by, after: self.started.elapsed(), oddity: self.knocker.oddity.take() };
        (open, taken)
    }
}

impl Knocker<'_> {
    /// A port at each of the server's addresses.
    pub(super) fn targets(&self, port: u16) -> Vec<SocketAddr> {
        self.addresses.iter().map(|known| SocketAddr::new(known.ip(), port)).collect()
    }

    /// The network that leads to the server now, and what is known of it.
    pub(super) fn lesson(&self) -> (Option<Network>, Option<Lesson>) {
        let network = self.addresses.first().and_then(|address| Network::towards(*address));
        (network, network.and_then(|network| recall(self.server, network)))
    }
}

/// The ways in the order to try them: the one that worked last time first.
pub(super) fn in_order(ways: &[Way], known: Option<Lesson>) -> Vec<Way> {
    let mut ways = ways.to_vec();
    let worked = known.and_then(|known| known.method);
    ways.sort_by_key(|way| Some(way.method()) != worked);
    ways
}

fn reached(open: Open<TcpStream>, taken: Taken) -> Reached {
    let (Open { socket, address, .. }, Taken { by, after, oddity }) = (open, taken);
    Reached { stream: socket, address, by, after, oddity }
}

/// How long an open port may take to answer where nothing is known.
const UNKNOWN: Duration = Duration::from_millis(300);
/// How many times what it took before an answer may take.
const PATIENT: u32 = 4;
/// Bounds for the same where something is known.
const LEAST: Duration = Duration::from_millis(5);
/// The longest.
const MOST: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug)]
pub enum ReachError {
    /// Before anything could be tried.
    Knock(KnockError),
    /// The port did not open.
    Closed {
        /// How many knocks were tried.
        knocks: u32,
        /// Whether the last answer was a refusal rather than silence.
        refused: bool,
        /// Why the last knock that could not be sent was not.
        last: Option<KnockError>,
    },
}

impl From<KnockError> for ReachError {
    fn from(error: KnockError) -> Self {
        Self::Knock(error)
    }
}

impl fmt::Display for ReachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (knocks, refused, last) = match self {
            Self::Knock(error) => return error.fmt(f),
            Self::Closed { knocks, refused, last } => (knocks, refused, last),
        };
        let answer = if *refused { "refused the connection" } else { "did not answer" };
        match knocks {
            0 => write!(f, "the port {answer}")?,
            1 => write!(f, "the port {answer}, also after a knock")?,
            more => write!(f, "the port {answer}, also after {more} knocks")?,
        }
        match last {
            Some(error) => write!(f, "; one could not be sent: {error}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ReachError {}
