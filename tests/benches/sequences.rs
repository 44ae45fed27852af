//! What a hit on a port costs where sequences are listened to, and what a new step costs. One core, no I/O.
//!
//! `cargo bench --bench sequences`

mod measure;

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockd_rs::crypto::Secret;
use knockd_rs::frame::{Body, Segment, Syn};
use knockd_rs::knock::{ClientId, Ground, Listener, Outcome, Rates, plain, totp};
use knockd_rs::text::PortError;
use knockd_rs::time::{ClockTrust, Now, Timestamp};

use measure::each;

const HITS: u32 = 1_000_000;
const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    println!("\nWhat a hit on a port costs, one core");
    let mut listener = listener().with_plain([sequence()?]);
    each("plain: a first port from ever new sources", 0..HITS, |number| {
        black_box(listener.receive(&syn(number, 7000), now(number / 1000)));
    });
    each("plain: the last port from one source, over and over", 0..HITS, |number| {
        black_box(listener.receive(&syn(7, 6000), now(number / 1000)));
    });
    let mut opened = 0u32;
    each("plain: a whole sequence of three ports, accepted", 0..10_000, |number| {
        for port in [7000, 8000, 6000] {
            if let Outcome::Knock(knock) = listener.receive(&syn(number, port), now(2000 + number)) {
                listener.spend(&knock);
                opened += 1;
            }
        }
    });
    println!("    {opened} accepted");
    for clients in [1, 1000, 100_000] {
        let mut listener = self::listener().with_totp(Ground::default(), members(clients));
        println!("totp with {clients} profiles");
        each("  the first hit: three steps are computed", 0..1, |_| {
            black_box(listener.receive(&syn(1, 20_000), now(0)));
        });
        each("  a new step", 1..2, |step| {
            black_box(listener.receive(&syn(1, 20_000), now(30_000 * step)));
        });
        each("  junk in the span from ever new sources", 0..HITS, |number| {
            black_box(listener.receive(&syn(number, port(number)), now(30_000)));
        });
        each("  junk in the span from one source", 0..HITS, |number| {
            black_box(listener.receive(&syn(7, port(number)), now(30_000)));
        });
    }
    Ok(())
}

/// A port of the span, one after the other in no order.
fn port(number: u32) -> u16 {
    u16::try_from(16_384 + number.wrapping_mul(2_654_435_761) % 32_768).unwrap_or(20_000)
}

fn listener() -> Listener {
    Listener::new(Rates::default(), [5; 16], Timestamp::from_secs(0))
}

fn sequence() -> Result<plain::Sequence, PortError> {
    let knocks =
        ["tcp/7000", "tcp/8000", "tcp/6000"].iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (gap, total) = (Duration::from_secs(5), Duration::from_secs(15));
    Ok(plain::Sequence { client: ClientId([1; 32]), knocks, gap, total })
}

fn members(count: u32) -> impl Iterator<Item = totp::ClientKeys> {
    (0..count).map(|number| {
        let mut key = [0; 32];
        key.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        totp::ClientKeys { client: ClientId(key), key: Secret::new(key), ports: totp::DEFAULT_PORTS }
    })
}

fn now(millis: u32) -> Now {
    let since = Duration::from_millis(u64::from(millis));
    Now {
        wall: NOON.saturating_add(since),
        uptime: Duration::from_secs(1000) + since,
        trust: ClockTrust::Synchronised,
    }
}

fn syn(source: u32, port: u16) -> Segment<'static> {
    Segment {
        source: IpAddr::V4(Ipv4Addr::from_bits(source)),
        destination: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        port,
        body: Body::Syn(Syn { sequence: 1, timestamp: None }),
    }
}
