//! `totp`: ports to be hit in order, derived from a shared key and the time (as RFC 6238 derives digits).
//!
//! ```text
//! K_totp = HKDF(X25519(client, server) || psk, info "knockd-rs v1 totp")      step = unix time / 30 s
//! draws  = HMAC(K_totp, "totp" || u64 step || u8 position)                    eight numbers of 4 bytes
//! port   = base + draw mod span, by the first draw whose port is neither left out nor earlier in the sequence;
//!          if there is none, the next such port after that of the last draw, going round in the span
//! ```
//!
//! n ports, 6 unless configured, TCP or UDP alike. The steps before and after the present one are good as well. A
//! client's step counts once: it is the counter of the knock, and the [`Listener`](super::Listener) refuses one that
//! is not above the last.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto::{KeyPair, Psk, PublicKey, Secret, code, derive, keyed};
use crate::time::{Now, Timestamp};

use super::ground::Ground;
use super::hash::Seeded;
use super::steps::{Door, Sources, Steps};
use super::{Ask, Authentic, ClientId, Drop, Method};

/// How long one sequence is the present one, in seconds.
pub const STEP: u64 = 30;
/// The ports of a sequence unless configured.
pub const DEFAULT_PORTS: u8 = 6;
/// The fewest; where there are many clients, or few ports to choose from, more are asked for: see [`guessing_bits`].
pub const MIN_PORTS: u8 = 4;
/// The most.
pub const MAX_PORTS: u8 = 12;
/// The longest pause between two hits.
pub const GAP: Duration = Duration::from_secs(5);
/// The longest time for all of them.
pub const TOTAL: Duration = Duration::from_secs(15);

/// How hard sequences have to be to guess: 2^40 packets are four months at 100,000 a second.
pub const LEAST_BITS: u32 = 40;

/// How many packets at random open a port, as a power of two, rounded down: `span^ports` sequences, of which there are
/// three good ones for each client; and each hit may be the last of any choice from the hits of its source before it.
#[must_use]
pub fn guessing_bits(ports: u8, span: u16, clients: usize) -> u32 {
    let others = u32::from(ports.saturating_sub(1));
    let hits = u32::try_from(super::steps::MAX_HITS - 1).unwrap_or(u32::MAX);
    // Hits choose others, as a logarithm.
    let choices: f64 = (0..others).map(|taken| (f64::from(hits - taken) / f64::from(taken + 1)).log2()).sum();
    let good = (3.0 * f64::from(u32::try_from(clients.max(1)).unwrap_or(u32::MAX))).log2();
    let bits = f64::from(ports) * f64::from(span.max(1)).log2() - choices - good;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 192")]
    let whole = bits.clamp(0.0, 255.0) as u32;
    whole
}

/// The key of a client's sequences; the same from either side. `None` for a weak public key.
#[must_use]
pub fn key(own: &KeyPair, other: &PublicKey, psk: &Psk) -> Option<Secret<32>> {
    Some(derive(&own.agree(other)?, psk, b"knockd-rs v1 totp"))
}

/// The step of a time.
#[must_use]
pub fn step(time: Timestamp) -> u64 {
    time.as_secs() / STEP
}

/// When a step begins; the counter of its knock.
#[must_use]
pub fn time(step: u64) -> Timestamp {
    Timestamp::from_secs(step.saturating_mul(STEP))
}

/// The step of a client's next knock: the present one, or the one after its last.
///
/// # Errors
/// How long to wait, when that one is farther ahead than the server accepts. A last step that is farther ahead still
/// was taken by a wrong clock, and is not gone on from.
pub fn next_step(now: Timestamp, last: Option<u64>) -> Result<u64, Duration> {
    let present = step(now);
    match last {
        Some(last) if last == present => Ok(present + 1),
        Some(last) if last == present + 1 => Err(time(present + 1).since(now)),
        _ => Ok(present),
    }
}

/// The ports of a step.
#[must_use]
pub fn ports(key: &Secret<32>, step: u64, count: u8, ground: &Ground) -> Vec<u16> {
    let key = keyed(key.expose());
    let mut ports: Vec<u16> = Vec::with_capacity(usize::from(count));
    for position in 0..count {
        let draws = code(&key, &[b"totp", &step.to_be_bytes(), &[position]]);
        let draws = draws.expose().chunks_exact(4).filter_map(|four| four.try_into().ok());
        let draws: Vec<u32> = draws.map(u32::from_be_bytes).collect();
        // Going round is for a chance of 1 in 2^50, and for a span that the configuration would refuse.
        let round = draws.last().copied().unwrap_or_default() % u32::from(ground.span.max(1));
        let places = draws.iter().copied().chain(round..=round + u32::from(ground.span));
        let found = places
            .map(|place| ground.port(place))
            .find(|port| ground.place(*port).is_some() && !ports.contains(port));
        ports.extend(found);
    }
    ports
}

/// What the server knows of a client.
#[derive(Clone, Debug)]
pub struct ClientKeys {
    /// Who it is.
    pub client: ClientId,
    /// The key of its sequences.
    pub key: Secret<32>,
    /// How many ports its sequences have.
    pub ports: u8,
}

/// Hits on ports in, requests out. A hit costs a search by halves among the last ports of all sequences.
///
/// Memory: for each client 65 bytes, and 3 x 32 bytes for its sequences of three steps, 16 MB for 100,000 clients;
/// and the table of sources, of 2.3 MiB. With the first hit in a step the sequences of the next one are computed, one
/// HMAC for each port: 3 us for each client, and 0.3 s for 100,000 of them, in which packets wait in the kernel's ring.
pub(super) struct Decoder {
    ground: Ground,
    clients: Vec<ClientKeys>,
    steps: Vec<Step>,
    /// The step that they belong to.
    present: Option<u64>,
    sources: Sources,
}

/// The sequences of all clients in one step.
struct Step {
    number: u64,
    /// Those of each client, in the order of the clients.
    ports: Vec<[u16; MAX_PORTS as usize]>,
    /// The last port of each sequence and its client's place, sorted.
    ends: Vec<(u16, u32)>,
}

impl Decoder {
    pub(super) fn new(ground: Ground, clients: impl IntoIterator<Item = ClientKeys>, hash: Seeded) -> Self {
        Self {
            ground,
            clients: clients.into_iter().collect(),
            steps: Vec::new(),
            present: None,
            sources: Sources::new(hash),
        }
    }

    /// One hit; a request when it is the last one of a sequence whose others came before it, in time.
    pub(super) fn receive(&mut self, port: u16, source: IpAddr, now: Now) -> Result<Authentic, Drop> {
        if self.ground.place(port).is_none() {
            return Err(Drop::Method);
        }
        self.turn(step(now.wall));
        let seat = self.sources.note(source, Door::from(port), now.uptime).ok_or(Drop::Partial)?;
        for step in &self.steps {
            let first = step.ends.partition_point(|(end, _)| *end < port);
            let ends = step.ends.iter().skip(first).take_while(|(end, _)| *end == port);
            for (_, number) in ends {
                let place = usize::try_from(*number).unwrap_or(usize::MAX);
                let (Some(client), Some(ports)) = (self.clients.get(place), step.ports.get(place)) else {
                    continue;
                };
                let doors = ports.map(Door::from);
                let doors = doors.get(..usize::from(client.ports)).unwrap_or_default();
                if seat.completes(&Steps { number: *number, doors, gap: GAP, total: TOTAL }) {
                    seat.settle(*number);
                    return Ok(authentic(client.client, step.number));
                }
            }
        }
        Err(Drop::Partial)
    }

    /// Makes the sequences of this step, the one before and the next one; drops others.
    fn turn(&mut self, now: u64) {
        if self.present == Some(now) {
            return;
        }
        self.present = Some(now);
        let wanted = [now.saturating_sub(1), now, now.saturating_add(1)];
        self.steps.retain(|step| wanted.contains(&step.number));
        for number in wanted {
            if self.steps.iter().all(|step| step.number != number) {
                self.steps.push(Step::new(number, &self.clients, &self.ground));
            }
        }
    }
}

impl Step {
    fn new(number: u64, clients: &[ClientKeys], ground: &Ground) -> Self {
        let mut step = Self {
            number,
            ports: Vec::with_capacity(clients.len()),
            ends: Vec::with_capacity(clients.len()),
        };
        for (place, client) in (0..).zip(clients) {
            let ports = ports(&client.key, number, client.ports.min(MAX_PORTS), ground);
            step.ends.extend(ports.last().map(|end| (*end, place)));
            let mut fixed = [0; MAX_PORTS as usize];
            fixed.iter_mut().zip(ports).for_each(|(to, port)| *to = port);
            step.ports.push(fixed);
        }
        step.ends.sort_unstable();
        step
    }
}

fn authentic(client: ClientId, step: u64) -> Authentic {
    let ask = Ask::everything();
    Authentic {
        client,
        method: Method::Totp,
        // A step is good while it is near the present one, or its ports would not have been known.
        freshness: None,
        mac1: [0; 16],
        request: Ok((ask, time(step))),
    }
}

#[cfg(test)]
mod tests;
