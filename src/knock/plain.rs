//! `plain`: a fixed sequence of ports, for clients that can do nothing but send to ports.
//!
//! ```text
//! knock 1 .. knock n     n = 2 to 16: a bare SYN to a TCP port, or any datagram to a UDP port, in this order
//! ```
//!
//! Nothing is secret about it to anybody who sees it, and whoever sends it opens the ports: it is replayable as often
//! as one likes, and no counter can change that. What else comes from the same source, in between or twice, does no
//! harm; see `steps`.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::frame::Segment;
use crate::text::PortRange;
use crate::time::Now;

use super::budget::{Budget, Rates};
use super::hash::Seeded;
use super::steps::{Door, Sources, Steps};
use super::{Ask, Authentic, ClientId, Drop, Method};

/// How many knocks a sequence has at least.
pub const MIN_KNOCKS: usize = 2;
/// How many it has at most.
pub const MAX_KNOCKS: usize = super::steps::MAX_STEPS;
/// The longest that a sequence may take, and the longest pause in it.
pub const MAX_TOTAL: Duration = super::steps::MAX_TOTAL;

/// The sequence of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Whose.
    pub client: ClientId,
    /// [`MIN_KNOCKS`] to [`MAX_KNOCKS`] single ports, in order. The last one is the last one of no other sequence.
    pub knocks: Vec<PortRange>,
    /// The longest pause between two knocks.
    pub gap: Duration,
    /// The longest time from the first to the last.
    pub total: Duration,
}

/// A sequence as it is looked for.
struct Known {
    client: ClientId,
    doors: Vec<Door>,
    gap: Duration,
    total: Duration,
}

/// Hits on ports in, requests out.
///
/// Memory is bounded by the number of sequences, and by the table of sources, of 2.3 MiB, and 128 KiB for the budget.
pub(super) struct Decoder {
    known: Vec<Known>,
    /// All ports that are part of a sequence.
    doors: Vec<Door>,
    /// The sequence that ends at a port.
    ends: HashMap<Door, u32, Seeded>,
    sources: Sources,
    completions: Budget,
}

/// How many times a second sequences are completed, by one network and by all: each costs a request and a line in the
/// log, and whoever has seen one can send it again as often as he likes.
const COMPLETIONS: Rates =
    Rates { all: const { NonZeroU32::new(30).unwrap() }, source: const { NonZeroU32::new(10).unwrap() } };

impl Decoder {
    pub(super) fn new(sequences: impl IntoIterator<Item = Sequence>, hash: Seeded) -> Self {
        let mut decoder = Self {
            known: Vec::new(),
            doors: Vec::new(),
            ends: HashMap::with_hasher(hash),
            sources: Sources::new(hash),
            completions: Budget::new(COMPLETIONS, hash),
        };
        for (number, Sequence { client, knocks, gap, total }) in (0..).zip(sequences) {
            let doors: Vec<Door> = knocks.iter().map(door).collect();
            decoder.doors.extend(&doors);
            decoder.ends.extend(doors.last().map(|last| (*last, number)));
            decoder.known.push(Known { client, doors, gap, total });
        }
        decoder.doors.sort_unstable();
        decoder.doors.dedup();
        decoder
    }

    /// One hit; a request when it is the last one of a sequence whose others came before it, in time.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, now: Now) -> Result<Authentic, Drop> {
        let door = Door::from(segment.protocol().number()) << 16 | Door::from(segment.port);
        if self.doors.binary_search(&door).is_err() {
            return Err(Drop::Method);
        }
        let seat = self.sources.note(segment.source, door, now.uptime).ok_or(Drop::Partial)?;
        let number = *self.ends.get(&door).ok_or(Drop::Partial)?;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let known = self.known.get(place).ok_or(Drop::Partial)?;
        if !seat.completes(&Steps { number, doors: &known.doors, gap: known.gap, total: known.total }) {
            return Err(Drop::Partial);
        }
        seat.settle(number);
        if !self.completions.admit(segment.source, now.uptime) {
            return Err(Drop::Budget);
        }
        let ask = Ask::everything();
        Ok(Authentic {
            client: known.client,
            method: Method::Plain,
            freshness: None,
            mac1: [0; 16],
            request: Ok((ask, now.wall)),
        })
    }
}

/// A port with its protocol.
fn door(knock: &PortRange) -> Door {
    Door::from(knock.protocol().number()) << 16 | Door::from(knock.first())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::frame::{Body, Syn};
    use crate::knock::{Knock, Listener, Outcome, Rates};
    use crate::text::Protocol;
    use crate::time::{ClockTrust, Timestamp};

    const ALICE: ClientId = ClientId([1; 32]);
    const BOB: ClientId = ClientId([2; 32]);

    fn sequence(client: ClientId, knocks: &[&str]) -> Sequence {
        Sequence {
            client,
            knocks: knocks.iter().map(|text| text.parse().unwrap()).collect(),
            gap: Duration::from_secs(5),
            total: Duration::from_secs(15),
        }
    }

    fn decoder() -> Decoder {
        let sequences = [
            sequence(ALICE, &["tcp/7000", "udp/8000", "tcp/6000"]),
            sequence(BOB, &["tcp/7000", "tcp/8000", "tcp/6001"]),
        ];
        Decoder::new(sequences, Seeded::new([1; 16]))
    }

    /// Plays knocks of one source, each a second after the one before; who knocked, or why nobody did.
    fn play(decoder: &mut Decoder, source: &str, knocks: &[&str]) -> Vec<Result<ClientId, Drop>> {
        let knock = |(second, text): (u64, &&str)| {
            let knock: PortRange = text.parse().unwrap();
            let body = match knock.protocol() {
                Protocol::Tcp => Body::Syn(Syn { sequence: 1, timestamp: None }),
                _ => Body::Datagram(b"anything"),
            };
            let (source, destination) =
                (source.parse::<IpAddr>().unwrap(), "192.0.2.1".parse::<IpAddr>().unwrap());
            let now = Now {
                wall: Timestamp::from_secs(second),
                uptime: Duration::from_secs(second),
                trust: ClockTrust::Synchronised,
            };
            let segment = Segment { source, destination, port: knock.first(), body };
            decoder.receive(&segment, now).map(|authentic| authentic.client)
        };
        (100..).zip(knocks).map(knock).collect()
    }

    const PARTIAL: Result<ClientId, Drop> = Err(Drop::Partial);

    #[test]
    fn a_sequence_is_its_clients_knock() {
        let said = play(&mut decoder(), "192.0.2.7", &["tcp/7000", "udp/8000", "tcp/6000"]);
        assert_eq!(said, [PARTIAL, PARTIAL, Ok(ALICE)]);
    }

    #[test]
    fn each_port_counts_with_its_protocol() {
        let said = play(&mut decoder(), "192.0.2.7", &["tcp/7000", "tcp/8000", "tcp/6000"]);
        assert_eq!(said, [PARTIAL; 3]);
        assert_eq!(play(&mut decoder(), "192.0.2.7", &["udp/7000"]), [Err(Drop::Method)]);
    }

    #[test]
    fn two_clients_behind_one_address_knock_at_once() {
        let knocks = ["tcp/7000", "tcp/7000", "udp/8000", "tcp/8000", "tcp/6001", "tcp/6000"];
        let said = play(&mut decoder(), "2001:db8::7", &knocks);
        assert_eq!(said, [PARTIAL, PARTIAL, PARTIAL, PARTIAL, Ok(BOB), Ok(ALICE)]);
    }

    #[test]
    fn a_sequence_is_good_again_also_when_the_servers_clock_was_set_back_and_not_in_quarantine() {
        let sequences = [sequence(ALICE, &["tcp/7000", "tcp/6000"])];
        let mut listener =
            Listener::new(Rates::default(), [1; 16], Timestamp::from_secs(1_000_000)).with_plain(sequences);
        let mut knock = |wall, uptime, quarantine: Option<u64>| {
            quarantine.into_iter().for_each(|until| listener.quarantine(Duration::from_secs(until)));
            let (source, destination) = ([192, 0, 2, 7].into(), [192, 0, 2, 1].into());
            let now = Now {
                wall: Timestamp::from_secs(wall),
                uptime: Duration::from_secs(uptime),
                trust: ClockTrust::Synchronised,
            };
            let body = Body::Syn(Syn { sequence: 1, timestamp: None });
            let hits = [7000, 6000].map(|port| Segment { source, destination, port, body });
            let [_, outcome] = hits.map(|segment| listener.receive(&segment, now));
            if let Outcome::Knock(knock) = &outcome {
                listener.spend(knock);
            }
            matches!(outcome, Outcome::Knock(Knock { client: ALICE, method: Method::Plain, .. }))
        };
        assert!(knock(2_000_000, 100, None) && knock(2_000_000, 101, None));
        assert!(knock(1_900_000, 102, None), "the clock was set back");
        assert!(!knock(2_000_000, 103, Some(200)) && knock(2_000_000, 200, None));
    }

    #[test]
    fn whoever_plays_a_recorded_sequence_over_and_over_costs_a_request_now_and_then() {
        let mut decoder = decoder();
        let mut completed = 0;
        for source in 0..100u32 {
            let source = IpAddr::from((0x0a00_0000 + source).to_be_bytes()).to_string();
            for _ in 0..10 {
                let said = play(&mut decoder, &source, &["tcp/7000", "udp/8000", "tcp/6000"]);
                completed += said.iter().filter(|said| said.is_ok()).count();
            }
        }
        // All in one second of the decoder's time.
        assert_eq!(completed, 30);
    }

    #[test]
    fn a_port_of_no_sequence_is_not_looked_at() {
        assert_eq!(play(&mut decoder(), "192.0.2.7", &["tcp/7001"]), [Err(Drop::Method)]);
    }
}
