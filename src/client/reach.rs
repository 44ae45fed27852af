//! A connection to a guarded port: tried first, knocked for when it does not come, by one method after the other.
//!
//! The connection that succeeds is the one that is handed out, so that a grant for a single connection is enough. What
//! worked is remembered for the network that this machine is in; next time it comes first.

use std::fmt;
use std::io;
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
    /// How many knocks it took.
    pub knocks: u32,
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
    Approach::new(Knocker::new(server, effort.clock)?, port, effort)?.run()
}

/// The same at one of the server's addresses.
///
/// # Errors
/// [`ReachError`].
pub fn reach_at(server: &Server, target: SocketAddr, effort: &Effort) -> Result<Reached, ReachError> {
    Approach::at(server, &[target], target.port(), effort)?.run()
}

/// Connects to a host that needs no knock, at all its addresses in the order of the resolver, the families in turn:
/// each a little after the one before, or as soon as that has failed (RFC 8305, section 5).
///
/// # Errors
/// [`ReachError`].
pub fn pass_through(host: &str, port: u16, timeout: Duration) -> Result<Reached, ReachError> {
    let unknown = |error| KnockError::Resolve { host: host.to_owned(), error };
    let targets: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unknown)?.collect();
    let (started, mut tries) = (Instant::now(), Tries::new(&targets));
    let mut waiting = in_turn(targets).into_iter().peekable();
    while started.elapsed() < timeout && !(waiting.peek().is_none() && tries.is_hopeless()) {
        let left = timeout.saturating_sub(started.elapsed());
        let wait = match waiting.next() {
            Some(target) => {
                tries.begin_at(target);
                if waiting.peek().is_some() { APART.min(left) } else { left }
            }
            None => left,
        };
        let until = Instant::now() + wait;
        while Instant::now() < until && !tries.is_hopeless() {
            let wait = until.saturating_duration_since(Instant::now());
            if let Some(open) = tries.look(wait).map_err(KnockError::Try)? {
                let taken = Taken { by: None, knocks: 0, after: started.elapsed(), oddity: None };
                return Ok(reached(open, taken));
            }
        }
    }
    // An address that has not answered is silent, whatever was said of another.
    let said = if tries.is_hopeless() { tries.said() } else { None };
    Err(ReachError::Closed { knocks: 0, said, last: None })
}

/// The first of one family, the first of the other, the second of the one, and so on, as many as are tried: each try holds
/// a descriptor until the end, and whoever owns a name says how many addresses it has.
fn in_turn(targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = targets.first().map(SocketAddr::is_ipv4);
    let (one, other): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| Some(target.is_ipv4()) == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair.iter().all(Option::is_none) || all.len() >= MOST_ADDRESSES {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// A connection to a server's port in the making, for who has more of them to think of: [`look`](Self::look), and
/// [`knock`](Self::knock) when that came to nothing.
pub struct Approach<'a>(Attempt<'a, Tries>);

impl<'a> Approach<'a> {
    /// To this port of these addresses of the server, at most one of each family.
    ///
    /// # Errors
    /// [`ReachError::Knock`] when there are no random numbers, or the port is 0.
    pub fn at(
        server: &'a Server,
        addresses: &[SocketAddr],
        port: u16,
        effort: &'a Effort,
    ) -> Result<Self, ReachError> {
        // A grant is for the address that the knock came from, which has the family of the one it went to.
        let knocks = addresses.iter().map(|address| with_port(*address, server.access().port)).collect();
        Self::new(Knocker::at(server, knocks, effort.clock)?, port, effort)
    }

    fn new(knocker: Knocker<'a>, port: u16, effort: &'a Effort) -> Result<Self, ReachError> {
        let ports = PortRange::single(Protocol::Tcp, port).map_err(|_| KnockError::Unsayable)?;
        let tries = Tries::new(&knocker.targets(port));
        Ok(Self(Attempt::new(knocker, ports, tries, effort)))
    }

    fn run(mut self) -> Result<Reached, ReachError> {
        self.0.run().map(|(open, taken)| reached(open, taken))
    }

    /// Counts the time that the effort gives from now on, and goes by what was learnt in the meantime.
    pub fn restart(&mut self) {
        self.0.started = Instant::now();
        self.0.known = self.0.network.and_then(|network| recall(self.0.knocker.server, network));
    }

    /// Gives up the attempts of looks that came to nothing, before others are waited for.
    pub fn give_up(&mut self) {
        self.0.tries.give_up();
    }

    /// How long an open port may take to answer. A closed port does not answer, so that a look takes as long: a few
    /// times what it took in this network before.
    #[must_use]
    pub fn usual(&self) -> Duration {
        self.0.usual()
    }

    /// Whether the port is open without a knock.
    ///
    /// # Errors
    /// [`ReachError::Knock`] when it cannot be tried.
    pub fn look(&mut self, patience: Duration) -> Result<Option<Reached>, ReachError> {
        Ok(self.0.look(patience)?.map(|(open, taken)| reached(open, taken)))
    }

    /// Knocks by one way after the other, and connects as soon as the port opens.
    ///
    /// # Errors
    /// [`ReachError::Closed`] when it does not.
    pub fn knock(&mut self) -> Result<Reached, ReachError> {
        self.0.knock().map(|(open, taken)| reached(open, taken))
    }
}

/// What it took.
pub(super) struct Taken {
    pub(super) by: Option<Way>,
    pub(super) knocks: u32,
    pub(super) after: Duration,
    pub(super) oddity: Option<Oddity>,
}

/// A port of either protocol in the making.
pub(super) struct Attempt<'a, T> {
    knocker: Knocker<'a>,
    ports: PortRange,
    effort: &'a Effort,
    network: Option<Network>,
    known: Option<Lesson>,
    tries: T,
    started: Instant,
}

/// What an attempt comes to.
type Done<T> = (Open<<T as Trying>::Socket>, Taken);

impl<'a, T: Trying> Attempt<'a, T> {
    pub(super) fn new(knocker: Knocker<'a>, ports: PortRange, tries: T, effort: &'a Effort) -> Self {
        let (network, known) = knocker.lesson();
        Self { knocker, ports, effort, network, known, tries, started: Instant::now() }
    }

    pub(super) fn run(&mut self) -> Result<Done<T>, ReachError> {
        match self.look(self.usual())? {
            Some(done) => Ok(done),
            None => self.knock(),
        }
    }

    fn usual(&self) -> Duration {
        self.known.map_or(UNKNOWN, |known| (known.round_trip * PATIENT).clamp(LEAST, MOST))
    }

    fn look(&mut self, patience: Duration) -> Result<Option<Done<T>>, ReachError> {
        self.tries.begin();
        let until = Instant::now() + patience.min(self.effort.timeout);
        while Instant::now() < until && !self.tries.is_hopeless() {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(open) = self.tries.look(left).map_err(KnockError::Try)? {
                return Ok(Some(self.done(open, None, 0)));
            }
        }
        Ok(None)
    }

    fn knock(&mut self) -> Result<Done<T>, ReachError> {
        let ways = in_order(&self.effort.ways, self.known);
        let (mut sent, mut last) = (0, ways.is_empty().then_some(KnockError::NoWay));
        for way in ways.iter().cycle() {
            let left = self.effort.timeout.saturating_sub(self.started.elapsed());
            if sent >= self.effort.knocks || left.is_zero() {
                break;
            }
            sent += 1;
            match self.by(way, left) {
                Ok(Some(open)) => return Ok(self.done(open, Some(way.clone()), sent)),
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(ReachError::Closed { knocks: sent, said: self.tries.said(), last })
    }

    /// One knock, and what comes of it.
    fn by(&mut self, way: &Way, left: Duration) -> Result<Option<Open<T::Socket>>, KnockError> {
        let ask = ask(self.knocker.server, way, Op::Open, &[self.ports], self.effort)
            .ok_or(KnockError::Unsayable)?;
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

    fn done(&mut self, open: Open<T::Socket>, by: Option<Way>, knocks: u32) -> Done<T> {
        let when = (self.effort.clock)();
        let is_news = by.is_some() || self.known.is_none_or(|known| when.since(known.when) > FRESH);
        if let Some(network) = self.network.filter(|_| is_news) {
            let before = self.known.map(|known| known.round_trip);
            let round_trip = open.round_trip.or(before).unwrap_or(UNKNOWN / PATIENT);
            let lesson = Lesson { network, method: by.as_ref().map(Way::method), round_trip, when };
            // The next connection takes a little longer, and that is all.
            let _ = remember(self.knocker.server, lesson);
        }
        let oddity = self.knocker.oddity.take();
        (open, Taken { by, knocks, after: self.started.elapsed(), oddity })
    }
}

impl Knocker<'_> {
    /// A port at each of the server's addresses.
    pub(super) fn targets(&self, port: u16) -> Vec<SocketAddr> {
        self.addresses.iter().map(|known| with_port(*known, port)).collect()
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

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn reached(open: Open<TcpStream>, taken: Taken) -> Reached {
    let (Open { socket, address, .. }, Taken { by, knocks, after, oddity }) = (open, taken);
    Reached { stream: socket, address, by, knocks, after, oddity }
}

/// How many addresses of a host are tried, or one more.
const MOST_ADDRESSES: usize = 16;
/// How long one address is tried before the next (RFC 8305, section 8).
const APART: Duration = Duration::from_millis(250);
/// How long what was learnt without a knock is not written down again.
const FRESH: Duration = Duration::from_secs(60);
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
        /// The last answer: a refusal, or that the host cannot be reached; `None` for silence.
        said: Option<io::ErrorKind>,
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
        let (knocks, said, last) = match self {
            Self::Knock(error) => return error.fmt(f),
            Self::Closed { knocks, said, last } => (knocks, said, last),
        };
        let answer = match said {
            Some(io::ErrorKind::ConnectionRefused) => "refused the connection",
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "cannot be reached",
            _ => "did not answer",
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_in_the_order_of_the_resolver() {
        let all = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|host| SocketAddr::new(host.parse().unwrap(), 80)).collect()
        };
        assert_eq!(in_turn(all("::1 ::2 ::3 1.1.1.1")), all("::1 1.1.1.1 ::2 ::3"));
        assert_eq!(in_turn(all("1.1.1.1 ::1 1.1.1.2 ::2")), all("1.1.1.1 ::1 1.1.1.2 ::2"));
        assert_eq!(in_turn(Vec::new()), []);
    }

    #[test]
    fn a_name_with_a_thousand_addresses_takes_no_thousand_descriptors() {
        let many = (1..=1000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        assert_eq!(in_turn(many).len(), MOST_ADDRESSES);
    }
}
