//! Knocks that are a sequence of ports: one `connect` or `sendto` for each, which takes no privilege.
//!
//! A TCP socket is closed as soon as its SYN is out: the kernel would send it again after a second. Nothing waits for an
//! answer. The pauses are log-normal, as those of people and networks are, around the middle that the tempo gives.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::counter::{self, Counter};
use super::datagram;
use super::knock::{KnockError, Knocker, Pace, Salvo, identity};
use super::store::Dirs;
use crate::enrol::Enrolment;
use crate::knock::sequence::{Sequence, compose};
use crate::knock::{Ask, Target};
use crate::text::{Protocol, ServerName};
use crate::time::Timestamp;

/// How a sequence goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// What the knocks are: SYNs, or datagrams of one byte.
    pub carrier: Protocol,
    /// How fast.
    pub tempo: Tempo,
}

/// How fast a sequence goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tempo {
    /// 40 ms from knock to knock.
    #[default]
    Usual,
    /// Without a pause, and all of it three times: through the junk that somebody sends in this machine's name.
    Fast,
    /// Two minutes for all of it. The server refuses a counter that is older than three.
    Slow,
}

impl Tempo {
    /// The tempo of the next try.
    pub(super) fn after_a_failure(self) -> Self {
        match self {
            Self::Slow => Self::Slow,
            Self::Usual | Self::Fast => Self::Fast,
        }
    }
}

/// The middle of the pauses.
const PAUSE: Duration = Duration::from_millis(40);
/// How long a slow sequence takes.
const SLOW: Duration = Duration::from_secs(120);
/// How much the pauses differ: the standard deviation of their logarithms.
const SPREAD: f64 = 0.35;
/// When a fast sequence is sent. This machine may be busy with something else in the middle of one.
const FAST: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];

/// One sequence for each address.
pub(super) struct Sequences {
    plays: Vec<Play>,
    carrier: Protocol,
    schedule: Vec<Duration>,
    next: usize,
    progress: Option<fn(usize, usize)>,
}

/// A sequence and where it goes.
struct Play {
    address: IpAddr,
    ports: Vec<u16>,
    socket: UdpSocket,
}

impl Knocker<'_> {
    /// One sequence for each address, each with a counter of its own.
    pub(super) fn sequence(
        &mut self,
        ask: &Ask,
        addresses: &[SocketAddr],
        style: Style,
    ) -> Result<Sequences, KnockError> {
        let mut plays = Vec::new();
        let mut unreachable = None;
        for address in addresses {
            let send = |error| KnockError::Send { address: *address, error };
            let here = match datagram::connect(*address).and_then(|socket| socket.local_addr()) {
                Ok(here) => here.ip(),
                Err(error) => {
                    unreachable = Some(send(error));
                    continue;
                }
            };
            let mut ask = ask.clone();
            if self.pinned && ask.target == Target::Source {
                ask.target = Target::SourceOnly(here);
            }
            let Counter { value, warning } =
                counter::take_second(&self.server.dirs, &self.server.name, (self.clock)())
                    .map_err(KnockError::Counter)?;
            self.oddity = self.oddity.take().or(warning);
            let sequence = compose(&ask, value, &self.identity, &self.ground, random_byte()?)
                .map_err(KnockError::Sequence)?;
            // A socket of its own: one that is connected sends to one port.
            let socket = UdpSocket::bind((here, 0)).map_err(send)?;
            plays.push(Play { address: address.ip(), ports: sequence.ports().collect(), socket });
        }
        match unreachable {
            Some(error) if plays.is_empty() => Err(error),
            _ => Sequences::new(plays, style, self.progress),
        }
    }
}

impl Sequences {
    fn new(plays: Vec<Play>, style: Style, progress: Option<fn(usize, usize)>) -> Result<Self, KnockError> {
        let knocks = plays.iter().map(|play| play.ports.len()).max().unwrap_or(0);
        let schedule = schedule(style.tempo, knocks)?;
        Ok(Self { plays, carrier: style.carrier, schedule, next: 0, progress })
    }

    /// How many knocks each round has.
    fn round(&self) -> usize {
        self.plays.iter().map(|play| play.ports.len()).max().unwrap_or(0)
    }
}

impl Salvo for Sequences {
    /// After a try that succeeded one round is enough; what is left of the schedule are the others.
    fn copies(&self, pace: Pace) -> &[Duration] {
        match pace {
            Pace::Usual => &self.schedule,
            Pace::Quick => self.schedule.get(..self.round()).unwrap_or(&self.schedule),
        }
    }

    fn takes(&self) -> Duration {
        self.schedule.last().copied().unwrap_or_default()
    }

    /// The next knock of each sequence.
    fn send(&mut self) -> Result<(), KnockError> {
        let place = self.next.checked_rem(self.round()).unwrap_or(0);
        self.next += 1;
        let mut failed = None;
        let mut sent = false;
        for play in &self.plays {
            let Some(port) = play.ports.get(place) else { continue };
            let address = SocketAddr::new(play.address, *port);
            match play.knock(address, self.carrier) {
                Ok(()) => sent = true,
                Err(error) => failed = Some(KnockError::Send { address, error }),
            }
        }
        if let Some(progress) = self.progress {
            progress(place + 1, self.round());
        }
        match failed {
            Some(error) if !sent => Err(error),
            _ => Ok(()),
        }
    }
}

impl Play {
    fn knock(&self, address: SocketAddr, carrier: Protocol) -> io::Result<()> {
        match carrier {
            Protocol::Udp => self.socket.send_to(&[0], address).map(drop),
            _ => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket = socket_with(family, SocketType::STREAM, flags, None)?;
                match connect(&socket, &address) {
                    // A refusal is what a closed port answers, and no failure.
                    Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// When the knocks are due.
fn schedule(tempo: Tempo, knocks: usize) -> Result<Vec<Duration>, KnockError> {
    let middle = match tempo {
        Tempo::Fast => {
            return Ok(FAST.map(|at| vec![at; knocks]).concat());
        }
        Tempo::Usual => PAUSE,
        Tempo::Slow => SLOW / u32::try_from(knocks.max(1)).unwrap_or(u32::MAX),
    };
    let (mut at, mut times) = (Duration::ZERO, Vec::with_capacity(knocks));
    for _ in 0..knocks {
        times.push(at);
        at += middle.mul_f64((SPREAD * normal()?).exp());
    }
    Ok(times)
}

/// A number of the normal distribution (Box and Muller 1958), cut off where its logarithm would be infinite.
fn normal() -> Result<f64, KnockError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| KnockError::Random)?;
    let [a0, a1, a2, a3, b0, b1, b2, b3] = bytes;
    let unit = |bytes| (f64::from(u32::from_be_bytes(bytes)) + 0.5) / 4_294_967_296.0;
    let (radius, angle): (f64, f64) = (unit([a0, a1, a2, a3]), unit([b0, b1, b2, b3]));
    Ok((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos())
}

fn random_byte() -> Result<u8, KnockError> {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_err(|_| KnockError::Random)?;
    Ok(byte[0])
}

/// A sequence to be sent by other means, and what was odd about its counter, which it uses up.
///
/// # Errors
/// When the request has no form, or the counter could not be stored.
pub fn take(
    dirs: &Dirs,
    server: &ServerName,
    enrolment: &Enrolment,
    ask: &Ask,
    now: Timestamp,
) -> Result<(Sequence, Option<counter::Oddity>), KnockError> {
    let Counter { value, warning } = counter::take_second(dirs, server, now).map_err(KnockError::Counter)?;
    Ok((at(enrolment, ask, value)?, warning))
}

/// The time of sequences that are only looked at: before any server's, so that nobody can play them who gets to see
/// them. 2000-01-01 00:00:00 UTC.
pub const SHOWN_AT: Timestamp = Timestamp::from_secs(946_684_800);

/// A sequence to be looked at, as it would have gone out at [`SHOWN_AT`].
///
/// # Errors
/// When the request has no form.
pub fn show(enrolment: &Enrolment, ask: &Ask) -> Result<Sequence, KnockError> {
    at(enrolment, ask, SHOWN_AT)
}

fn at(enrolment: &Enrolment, ask: &Ask, now: Timestamp) -> Result<Sequence, KnockError> {
    let access = &enrolment.access;
    let ground = access.sequence.clone().without(access.port);
    compose(ask, now, &identity(enrolment)?, &ground, random_byte()?).map_err(KnockError::Sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_takes_about_a_second_and_a_slow_one_less_than_a_counter_lives() {
        for (tempo, least, most) in [(Tempo::Usual, 700, 2000), (Tempo::Slow, 75_000, 175_000)] {
            for knocks in [28, 54] {
                let times = schedule(tempo, knocks).unwrap();
                assert_eq!(times.len(), knocks);
                assert!(times.is_sorted());
                let last = times.last().unwrap().as_millis() * 28
                    / if tempo == Tempo::Usual { knocks as u128 } else { 28 };
                assert!((least..most).contains(&last), "{tempo:?}, {knocks}: {last} ms");
            }
        }
    }

    #[test]
    fn no_two_sequences_have_the_same_rhythm() {
        assert_ne!(schedule(Tempo::Usual, 28).unwrap(), schedule(Tempo::Usual, 28).unwrap());
    }

    #[test]
    fn a_fast_sequence_has_no_pause_and_goes_out_three_times() {
        let times = schedule(Tempo::Fast, 28).unwrap();
        assert_eq!(times.len(), 84);
        assert!(times.iter().enumerate().all(|(place, at)| *at == FAST[place / 28]));
    }
}
