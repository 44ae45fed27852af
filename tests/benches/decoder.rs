//! What a packet costs: the client that seals it, and the worker that takes it apart. One core, no I/O.
//!
//! `cargo bench --bench decoder`

mod measure;

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Body, Segment};
use knockd_rs::grant::Uses;
use knockd_rs::knock::spa::{ClientIdentity, ClientKeys, DEFAULT_PAYLOAD, QUANTUM, SealError, seal};
use knockd_rs::knock::{Ask, Drop, Freshness, Listener, Outcome, Rates};
use knockd_rs::time::{ClockTrust, Now, Timestamp};

use measure::each;

const KNOCKS: u64 = 5_000;
const JUNK: u32 = 1_000_000;
const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const NOW: Now = Now { wall: NOON, uptime: Duration::from_secs(1_000), trust: ClockTrust::Synchronised };

fn main() -> Result<(), Box<dyn Error>> {
    println!("\nWhat a packet costs, one core");
    let known = identity(1);
    each("the client seals a knock", 0..KNOCKS, |place| {
        black_box(knock(&known, place).ok());
    });
    let packets = (0..KNOCKS).map(|place| knock(&known, place)).collect::<Result<Vec<_>, _>>()?;
    let stranger = identity(9);
    let strange = (0..KNOCKS).map(|place| knock(&stranger, place)).collect::<Result<Vec<_>, _>>()?;
    let mut decoder = decoder(&known)?;

    let mut junk = packets.first().cloned().unwrap_or_default();
    let mut told = Told::default();
    each("a stranger's packet: mac1 is wrong", 0..JUNK, |number| {
        junk.splice(32..36, number.to_be_bytes());
        told.count(&decoder.receive(&segment(&junk), NOW));
    });
    told.print();
    each("a packet with a right mac1 in nobody's name: one HMAC", &strange, |packet| {
        told.count(&decoder.receive(&segment(packet), NOW));
    });
    told.print();
    each("a client's knock, accepted", &packets, |packet| {
        let outcome = decoder.receive(&segment(packet), NOW);
        if let Outcome::Knock(knock) = &outcome {
            decoder.spend(knock);
        }
        told.count(&outcome);
    });
    told.print();
    // The last ones, which the ring still knows: older ones cost what a knock costs, and are refused as replays.
    each("a copy of a recent knock", packets.iter().rev().take(2_000), |packet| {
        told.count(&decoder.receive(&segment(packet), NOW));
    });
    told.print();
    Ok(())
}

/// What became of the packets, so that a benchmark of the wrong thing shows.
#[derive(Default)]
struct Told {
    accepted: usize,
    refused: usize,
    dropped: std::collections::BTreeMap<Drop, usize>,
}

impl Told {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Knock(_) => self.accepted += 1,
            Outcome::Refused { .. } => self.refused += 1,
            Outcome::Dropped(reason) => *self.dropped.entry(*reason).or_default() += 1,
        }
    }

    /// Prints the counts and starts again.
    fn print(&mut self) {
        let Self { accepted, refused, dropped } = std::mem::take(self);
        let dropped = dropped.iter().map(|(reason, count)| format!(", {count} {}", reason.name()));
        println!("    {accepted} accepted, {refused} refused{}", dropped.collect::<String>());
    }
}

fn server() -> KeyPair {
    KeyPair::from_seed([2; 32])
}

fn identity(seed: u8) -> ClientIdentity {
    ClientIdentity {
        keys: KeyPair::from_seed([seed; 32]),
        psk: Secret::new([3; 32]),
        server: server().public(),
        gate: Secret::new([4; 32]),
    }
}

fn decoder(client: &ClientIdentity) -> Result<Listener, Box<dyn Error>> {
    // So high that no packet of these is over budget.
    let rate = NonZeroU32::new(1_000_000_000).ok_or("not zero")?;
    let client =
        ClientKeys { public: client.keys.public(), psk: client.psk.clone(), freshness: Freshness::default() };
    let rates = Rates { all: rate, source: rate };
    Ok(Listener::new(rates, [5; 16], Timestamp::from_secs(0)).with_spa(
        server(),
        &Secret::new([4; 32]),
        [client],
    ))
}

fn knock(client: &ClientIdentity, place: u64) -> Result<Vec<u8>, SealError> {
    let ask = Ask { uses: Some(Uses::Once), ..Ask::everything() };
    let counter = NOON.saturating_add(Duration::from_nanos(place * QUANTUM));
    let mut ephemeral = [6; 32];
    ephemeral.iter_mut().zip(place.to_be_bytes()).for_each(|(byte, own)| *byte = own);
    seal(&ask, counter, client, Secret::new(ephemeral), DEFAULT_PAYLOAD)
}

fn segment(payload: &[u8]) -> Segment<'_> {
    let (source, destination) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(198, 51, 100, 1));
    Segment {
        source: IpAddr::V4(source),
        destination: IpAddr::V4(destination),
        port: 62201,
        body: Body::Datagram(payload),
    }
}
