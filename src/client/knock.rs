//! Knocking: resolve, make the packets of the chosen way, send them, and see whether the port opens.
//!
//! Both address families are knocked when the name has both, since nobody knows which one the connection will
//! take. What a knock is made of is for each way to say, in a file of its own: `Salvo` is all that is seen here.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cert::Identity;
use super::counter::{self, Oddity};
use super::sequence::Style;
use super::server::Server;
use super::try_port::{Open, Tries, Trying};
use crate::crypto::{KeyPair, Secret};
use crate::enrol::Enrolment;
use crate::files::FileError;
use crate::knock::spa::{ClientIdentity, SealError};
use crate::knock::{Ask, Ground, sequence};
use crate::time::Timestamp;

/// How long to wait for an effect before another knock with a new counter.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server, and this client's way to knock at it.
#[derive(Debug)]
pub struct Knocker<'a> {
    pub(super) server: &'a Server,
    pub(super) identity: ClientIdentity,
    /// How many ports a sequence by the time has.
    pub(super) totp_count: u8,
    /// The ports that sequences are played on.
    pub ground: Ground,
    /// How to knock.
    pub way: Way,
    /// Where knocks go: at most one address of each family.
    pub addresses: Vec<SocketAddr>,
    /// Whether packets are good only from the address that this machine sends them from.
    pub pinned: bool,
    /// What was odd about the counter, once it was used.
    pub oddity: Option<Oddity>,
    /// Whether a certificate was too large for the packet, so that the server has to have it.
    pub by_hash: bool,
    /// The wall clock.
    pub(super) clock: fn() -> Timestamp,
    /// What is told while a knock of several packets goes out: how many of how many.
    pub progress: Option<fn(usize, usize)>,
}

/// How to knock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// One encrypted datagram.
    #[default]
    Spa,
    /// One SYN.
    Syn,
    /// Connection attempts at ports that follow from the time.
    Totp,
    /// An encoded sequence of ports.
    Sequence(Style),
    /// One encrypted datagram, signed with a certificate.
    Cert(Arc<Identity>),
}

/// One knock at each address, ready to be sent.
pub(super) trait Salvo {
    /// When the first packet and its copies are due, if any are sent.
    fn copies(&self, pace: Pace) -> &[Duration];

    /// How long to wait for an effect before another knock with a new counter.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// How long the knock itself takes, before an effect can be looked for.
    fn takes(&self) -> Duration {
        Duration::ZERO
    }

    /// Sends the next of them.
    ///
    /// # Errors
    /// When no packet could be sent at all.
    fn send(&mut self) -> Result<(), KnockError>;

    /// Sends all copies.
    ///
    /// # Errors
    /// When no packet could be sent at all.
    fn send_all(&mut self, pace: Pace) -> Result<(), KnockError> {
        let started = Instant::now();
        for at in self.copies(pace).to_vec() {
            std::thread::sleep(at.saturating_sub(started.elapsed()));
            self.send()?;
        }
        std::thread::sleep(self.settling());
        Ok(())
    }

    /// How long after the last copy the grant may take to be there; what the user does next comes after that.
    fn settling(&self) -> Duration {
        Duration::ZERO
    }
}

/// No knock, for so long.
pub(super) struct Silence(pub(super) Duration);

impl Salvo for Silence {
    fn copies(&self, _pace: Pace) -> &'static [Duration] {
        &[]
    }

    fn patience(&self) -> Duration {
        self.0
    }

    fn send(&mut self) -> Result<(), KnockError> {
        Ok(())
    }
}

/// How long apart copies are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing is known of the way.
    Usual,
    /// The way is known to be open: the knock that follows a try.
    Quick,
}

/// A port that opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where.
    pub address: SocketAddr,
    /// How long after the first packet.
    pub after: Duration,
}

/// A port that did not open in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillClosed {
    /// Whether the last answer was a refusal rather than silence.
    pub refused: bool,
}

impl<'a> Knocker<'a> {
    /// Looks the server's name up and makes ready.
    ///
    /// # Errors
    /// [`KnockError::Resolve`] when the name has no address.
    pub fn new(server: &'a Server, clock: fn() -> Timestamp) -> Result<Self, KnockError> {
        let access = server.access();
        let addresses = resolve(access.host.as_str(), access.port)?;
        Self::at(server, addresses, clock)
    }

    /// The same where the addresses are known: at most one of each family.
    ///
    /// # Errors
    /// [`KnockError::Random`].
    pub fn at(
        server: &'a Server,
        addresses: Vec<SocketAddr>,
        clock: fn() -> Timestamp,
    ) -> Result<Self, KnockError> {
        let access = server.access();
        Ok(Self {
            server,
            identity: identity(&server.enrolment)?,
            totp_count: access.totp_ports,
            ground: access.sequence.clone().without(access.port),
            way: Way::default(),
            addresses,
            pinned: false,
            oddity: None,
            by_hash: false,
            clock,
            progress: None,
        })
    }

    /// The server that is knocked at.
    #[must_use]
    pub fn server(&self) -> &'a Server {
        self.server
    }

    /// Knocks, without looking for an effect.
    ///
    /// # Errors
    /// When no packet could be sent at all, or the counter could not be stored.
    pub fn knock(&mut self, ask: &Ask) -> Result<(), KnockError> {
        self.salvo(ask, &self.addresses.clone())?.send_all(Pace::Usual)
    }

    /// Knocks and tries `port` until it opens; knocks anew when there is no effect for a while. The try takes up
    /// a grant for a single connection, so a last knock gives the user one of their own.
    ///
    /// # Errors
    /// When no packet could be sent at all, or the counter could not be stored. That the port stays closed is the
    /// inner result.
    pub fn knock_and_wait(
        &mut self,
        ask: &Ask,
        port: u16,
        timeout: Duration,
    ) -> Result<Result<Opened, StillClosed>, KnockError> {
        let started = Instant::now();
        let targets: Vec<SocketAddr> =
            self.addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
        let (mut refused, mut knocked) = (false, false);
        while started.elapsed() < timeout {
            let mut salvo = match self.salvo(ask, &self.addresses.clone()) {
                // Nothing more can be said for now; what was said may still arrive.
                Err(KnockError::TooOften(wait)) if knocked => Box::new(Silence(wait)),
                other => other?,
            };
            knocked = true;
            let patience = salvo.patience().min(timeout.saturating_sub(started.elapsed()));
            // What was begun is played to its end.
            let patience = salvo.takes() + patience;
            let mut tries = Tries::new(&targets);
            if let Some(Open { address, .. }) = watch(&mut *salvo, &mut tries, patience)? {
                let after = started.elapsed();
                let there: Vec<SocketAddr> =
                    self.addresses.iter().filter(|known| known.ip() == address.ip()).copied().collect();
                drop(tries);
                self.last_salvo(ask, &there)?.send_all(Pace::Quick)?;
                return Ok(Ok(Opened { address, after }));
            }
            refused = tries.was_refused();
            self.insist();
        }
        Ok(Err(StillClosed { refused }))
    }

    /// The knock that the user is left with. Where codes are scarce it waits for the next one.
    fn last_salvo(&mut self, ask: &Ask, addresses: &[SocketAddr]) -> Result<Box<dyn Salvo>, KnockError> {
        match self.salvo(ask, addresses) {
            Err(KnockError::TooOften(wait)) => {
                std::thread::sleep(wait);
                self.salvo(ask, addresses)
            }
            other => other,
        }
    }

    /// Makes the next try the one that is most likely to get through.
    pub(super) fn insist(&mut self) {
        if let Way::Sequence(style) = &mut self.way {
            style.tempo = style.tempo.after_a_failure();
        }
    }

    /// The packets of one knock, by the way that was chosen. Other knocks at the server wait until the first of them is
    /// sent.
    pub(super) fn salvo(
        &mut self,
        ask: &Ask,
        addresses: &[SocketAddr],
    ) -> Result<Box<dyn Salvo>, KnockError> {
        let turn = counter::turn(&self.server.dirs, &self.server.name).map_err(KnockError::Counter)?;
        let salvo: Box<dyn Salvo> = match self.way.clone() {
            Way::Spa => Box::new(self.spa(ask, addresses)?),
            Way::Syn => Box::new(self.syns(ask, addresses)?),
            Way::Totp => Box::new(self.totp(ask, addresses)?),
            Way::Sequence(style) => Box::new(self.sequence(ask, addresses, style)?),
            Way::Cert(identity) => Box::new(self.cert(ask, addresses, &identity)?),
        };
        Ok(Box::new(InTurn { salvo, turn: Some(turn) }))
    }
}

/// A knock that holds others up until its first packet is sent.
struct InTurn {
    salvo: Box<dyn Salvo>,
    turn: Option<File>,
}

impl Salvo for InTurn {
    fn copies(&self, pace: Pace) -> &[Duration] {
        self.salvo.copies(pace)
    }

    fn patience(&self) -> Duration {
        self.salvo.patience()
    }

    fn takes(&self) -> Duration {
        self.salvo.takes()
    }

    fn send(&mut self) -> Result<(), KnockError> {
        let sent = self.salvo.send();
        self.turn = None;
        sent
    }

    fn settling(&self) -> Duration {
        self.salvo.settling()
    }
}

/// Sends the copies when they are due, and looks at the tries in between.
pub(super) fn watch<T: Trying>(
    salvo: &mut dyn Salvo,
    tries: &mut T,
    patience: Duration,
) -> Result<Option<Open<T::Socket>>, KnockError> {
    let started = Instant::now();
    let mut due = salvo.copies(Pace::Usual).to_vec().into_iter().peekable();
    while started.elapsed() < patience {
        while due.next_if(|at| started.elapsed() >= *at).is_some() {
            salvo.send()?;
        }
        let next = due.peek().map_or(patience, |at| *at).min(patience);
        if let Some(open) = tries.turn(next.saturating_sub(started.elapsed())).map_err(KnockError::Try)? {
            return Ok(Some(open));
        }
    }
    Ok(None)
}

/// What a client's knocks are made with.
pub(super) fn identity(enrolment: &Enrolment) -> Result<ClientIdentity, KnockError> {
    let access = &enrolment.access;
    Ok(ClientIdentity {
        // Who knocks with a certificate has no key that the server knows; this one is used for nothing.
        keys: match enrolment.key_pair() {
            Some(keys) => keys,
            None => KeyPair::from(random()?),
        },
        psk: access.psk.clone().unwrap_or_else(|| Secret::new([0; 32])),
        server: access.server_key,
        gate: access.gate_key.clone(),
    })
}

/// The first address of each family.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, KnockError> {
    let failed = |error| KnockError::Resolve { host: host.to_owned(), error };
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    let v4 = found.iter().find(|address| address.is_ipv4());
    let v6 = found.iter().find(|address| address.is_ipv6());
    let both: Vec<SocketAddr> = v4.into_iter().chain(v6).copied().collect();
    if both.is_empty() { Err(failed(io::ErrorKind::NotFound.into())) } else { Ok(both) }
}

pub(super) fn random() -> Result<Secret<32>, KnockError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| KnockError::Random)?;
    Ok(Secret::new(bytes))
}

/// Why nothing was sent.
#[derive(Debug)]
pub enum KnockError {
    /// The server's name has no address.
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// No packet left this machine.
    Send {
        /// Where it was to go.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The counter could not be stored, so the knock might be taken for a replay.
    Counter(FileError),
    /// The knock asks for something that has no form.
    Seal(SealError),
    /// The same of a sequence.
    Sequence(sequence::SealError),
    /// The port could not be tried.
    Try(io::Error),
    /// The kernel gave no random numbers.
    Random,
    /// The server's public key is one of the few that share no secret with anybody.
    ServerKey,
    /// The request has more in it than a SYN can carry.
    Unsayable,
    /// The request has more in it than a sequence of ports by the time can carry.
    MoreThanPorts,
    /// This process may not send packets of its own making.
    NoRawSocket,
    /// This kernel sends no timestamps.
    NoTimestamps,
    /// All codes that the server knows by now were used; carries how long to wait.
    TooOften(Duration),
    /// There is no way to knock among those to try.
    NoWay,
}

impl fmt::Display for KnockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, error } => write!(
                f,
                "{host} has no address ({error}); check the name, or import the bundle again with --host ADDRESS"
            ),
            Self::Send { address, error } => write!(f, "no knock could be sent to {address}: {error}"),
            Self::Counter(error) => write!(f, "{error}"),
            Self::Seal(error) => write!(f, "{error}"),
            Self::Sequence(error) => write!(f, "{error}"),
            Self::Try(error) => write!(f, "the port cannot be tried: {error}"),
            Self::Random => f.write_str("the kernel gives no random numbers"),
            Self::ServerKey => SealError::ServerKey.fmt(f),
            Self::Unsayable => f.write_str(
                "a SYN can ask for one service, or for everything that the profile opens, from this machine's own \
                 address; for ports, a duration, another address or an end use spa",
            ),
            Self::MoreThanPorts => f.write_str(
                "a sequence by the time asks for everything that the profile opens, from this machine's own address; for \
                 ports, services, a duration, another address or an end use spa",
            ),
            Self::NoRawSocket => f.write_str(
                "a SYN of one's own making takes the capability CAP_NET_RAW; run this as root, or give the program \
                 the capability with: setcap cap_net_raw+ep $(command -v knockd-rs); spa needs neither",
            ),
            Self::NoTimestamps => f.write_str(
                "this kernel sends no TCP timestamps, where half of the code goes; switch them on with: \
                 sysctl net.ipv4.tcp_timestamps=1; or use spa",
            ),
            Self::TooOften(wait) => write!(
                f,
                "all codes of this half minute are used up; knock again in {} s, or use spa",
                wait.as_secs() + 1
            ),
            Self::NoWay => f.write_str(
                "there is no method to knock by: name one of those that the server takes from this client, or a certificate",
            ),
        }
    }
}

impl std::error::Error for KnockError {}
