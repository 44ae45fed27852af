//! What encoded sequences cost: the client that composes one, and the worker that hears them, and junk among them. One
//! core, no I/O.
//!
//! `cargo bench --bench encoded`

mod measure;

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Body, Segment, Syn};
use knockd_rs::grant::Uses;
use knockd_rs::knock::sequence::{ClientKeys, Ground, SealError, Sequence, compose};
use knockd_rs::knock::spa::ClientIdentity;
use knockd_rs::knock::{Ask, Freshness, Listener, Outcome, Rates};
use knockd_rs::time::{ClockTrust, Now, Timestamp};

use measure::each;

const CLIENTS: u16 = 1_000;
const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    println!("\nWhat a sequence costs with {CLIENTS} clients, one core");
    let known = identity(7);
    each("the client composes a sequence", 0..50, |place| {
        black_box(sequence(&known, place).ok());
    });
    let sequences = (0..150).map(|place| sequence(&known, place)).collect::<Result<Vec<_>, _>>()?;
    let mut world = World::new();
    each("the first knock of a step: three permutations, 3,000 hints", 0..1, |_| {
        world.knock(1, 20_000);
    });
    each("a knock from ever new sources", 0..1_000_000u32, |number| {
        world.knock(0x0b00_0000 + number, junk(number));
    });
    for (name, rate) in [("10,000", 10_000), ("1,000,000", 1_000_000u32)] {
        each(&format!("a knock from one source, {name} a second"), 0..rate, |number| {
            world.knock(2, junk(number));
            world.wait(Duration::from_secs(1) / rate);
        });
    }
    world.wait(Duration::from_secs(10));
    let mut heard = 0;
    let mut source = 0x0c00_0000;
    each("a sequence of 28 knocks, heard", &sequences, |sequence| {
        source += 1;
        heard += sequence.ports().filter(|port| world.knock(source, *port)).count();
    });
    println!("    {heard} heard");
    Ok(())
}

struct World {
    listener: Listener,
    now: Now,
}

impl World {
    fn new() -> Self {
        let clients = (0..CLIENTS).map(|number| {
            let identity = identity(number);
            ClientKeys {
                public: identity.keys.public(),
                psk: identity.psk,
                freshness: Freshness::default(),
                services: Vec::new(),
            }
        });
        let listener = Listener::new(Rates::default(), [5; 16], Timestamp::from_secs(0));
        let listener = listener.with_sequence(&server(), &Secret::new([4; 32]), Ground::default(), clients);
        let uptime = Duration::from_secs(1_000);
        Self { listener, now: Now { wall: NOON, uptime, trust: ClockTrust::Synchronised } }
    }

    fn wait(&mut self, time: Duration) {
        self.now.uptime += time;
    }

    fn knock(&mut self, source: u32, port: u16) -> bool {
        let body = Body::Syn(Syn { sequence: 1, timestamp: None });
        let (source, destination) = (IpAddr::V4(source.into()), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)));
        let outcome = self.listener.receive(&Segment { source, destination, port, body }, self.now);
        if let Outcome::Knock(knock) = &outcome {
            self.listener.spend(knock);
        }
        matches!(outcome, Outcome::Knock(_))
    }
}

/// A port of the span, which jumps about (Knuth's multiplicative hash).
fn junk(number: u32) -> u16 {
    let [upper, lower, ..] = number.wrapping_mul(2_654_435_761).to_be_bytes();
    16_384 + (u16::from_be_bytes([upper, lower]) >> 1)
}

fn server() -> KeyPair {
    KeyPair::from_seed([2; 32])
}

fn identity(number: u16) -> ClientIdentity {
    let mut seed = [9; 32];
    seed.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, own)| *byte = own);
    ClientIdentity {
        keys: KeyPair::from_seed(seed),
        psk: Secret::new([3; 32]),
        server: server().public(),
        gate: Secret::new([4; 32]),
    }
}

fn sequence(client: &ClientIdentity, place: u64) -> Result<Sequence, SealError> {
    let ask = Ask { uses: Some(Uses::Once), ..Ask::everything() };
    compose(&ask, NOON.saturating_add(Duration::from_secs(place)), client, &Ground::default(), 1)
}
