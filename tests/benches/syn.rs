//! What a knock by one SYN costs: a stranger's, a client's, and the tables of codes. One core, no I/O.
//!
//! `cargo bench --bench syn`

mod measure;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Body, Segment, Syn};
use knockd_rs::knock::syn::{Book, CodeKey, Member, SLOTS, Slot, step_of};
use knockd_rs::knock::{Listener, Outcome, Rates};
use knockd_rs::time::{ClockTrust, Now, Timestamp};

use measure::each;

const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const PORT: u16 = 62_201;

fn main() {
    println!("\nWhat a knock by one SYN costs, one core");
    let server = KeyPair::from_seed([1; 32]);
    for count in [1, 1000, 100_000_u32] {
        println!("with {count} profiles");
        let clients: Vec<KeyPair> = (0..count).map(|number| KeyPair::from_seed(seed(number))).collect();
        let members: Vec<Member> = clients.iter().map(member).collect();
        let mut listener =
            Listener::new(Rates::default(), [5; 16], Timestamp::from_secs(1)).with_syn(PORT, &members);
        let mut book = None;
        each("  the keys of all clients, at a start, beside the packets' way", 0..1, |_| {
            book = Some(Book::new(&server, &members));
        });
        let Some(book) = book else { continue };
        for step in listener.missing_steps(NOON) {
            let mut table = None;
            if step == step_of(NOON) {
                each("  the codes of a step, beside the packets' way", 0..1, |_| {
                    table = Some(book.table(step))
                });
            }
            listener.install(table.unwrap_or_else(|| book.table(step)), NOON);
        }
        each("  a stranger's SYN", 0..1_000_000_u32, |number| {
            let code = Syn { sequence: number.wrapping_mul(2_654_435_761), timestamp: Some(number) };
            black_box(listener.receive(&segment(code), now()));
        });
        let keys: Vec<CodeKey> = clients
            .iter()
            .filter_map(|client| Some(CodeKey::new(&client.agree(&server.public())?, &Secret::new([4; 32]))))
            .collect();
        let step = step_of(NOON) - 1;
        let slots = (0..12).map(|slot| Slot { step: step + u64::from(slot / SLOTS), slot: slot % SLOTS });
        let knocks: Vec<Syn> =
            slots.flat_map(|slot| keys.iter().map(move |key| key.pack(slot, None))).take(100_000).collect();
        let mut accepted = 0;
        each("  a client's SYN, accepted", &knocks, |knock| {
            if let Outcome::Knock(knock) = listener.receive(&segment(*knock), now()) {
                listener.spend(&knock);
                accepted += 1;
            }
        });
        println!("    {accepted} of {} accepted", knocks.len());
    }
}

fn seed(number: u32) -> [u8; 32] {
    let mut seed = [7; 32];
    seed.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    seed
}

fn member(keys: &KeyPair) -> Member {
    let public = keys.public();
    Member { client: public.into(), public, psk: Secret::new([4; 32]), services: Vec::new() }
}

fn now() -> Now {
    Now { wall: NOON, uptime: Duration::from_secs(1000), trust: ClockTrust::Synchronised }
}

fn segment(syn: Syn) -> Segment<'static> {
    Segment {
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        destination: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        port: PORT,
        body: Body::Syn(syn),
    }
}
