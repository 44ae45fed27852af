use proptest::prelude::*;

use super::*;
use crate::frame::{Body, Segment};
use crate::knock::service_tag;
use crate::knock::{Fault, Knock, Listener, Outcome, Rates};
use crate::time::{ClockTrust, Now};

const NOON: u64 = 1_800_000_000;
const PORT: u16 = 62_201;

fn now(seconds: u64) -> Now {
    Now {
        wall: Timestamp::from_secs(NOON + seconds),
        uptime: Duration::from_secs(5000 + seconds),
        trust: ClockTrust::Synchronised,
    }
}

fn server() -> KeyPair {
    KeyPair::from_seed([0x11; 32])
}

fn client(number: u8) -> KeyPair {
    KeyPair::from_seed([number; 32])
}

fn member(number: u8) -> Member {
    let public = client(number).public();
    Member { client: public.into(), public, psk: Secret::new([0x44; 32]), services: vec![service_tag("ssh")] }
}

fn key(number: u8) -> CodeKey {
    CodeKey::new(&client(number).agree(&server().public()).unwrap(), &Secret::new([0x44; 32]))
}

fn members() -> Vec<Member> {
    vec![member(1), member(2)]
}

/// A listener with the tables for this time.
fn listener(at: Now) -> Listener {
    let mut listener =
        Listener::new(Rates::default(), [9; 16], Timestamp::from_secs(1)).with_syn(PORT, &members());
    let book = Book::new(&server(), &members());
    for step in listener.missing_steps(at.wall) {
        listener.install(book.table(step), at.wall);
    }
    listener
}

fn segment(syn: Syn) -> Segment<'static> {
    let address = |text: &str| text.parse().unwrap();
    Segment {
        source: address("192.0.2.7"),
        destination: address("198.51.100.1"),
        port: PORT,
        body: Body::Syn(syn),
    }
}

fn knocked(outcome: Outcome) -> Knock {
    match outcome {
        Outcome::Knock(knock) => knock,
        other => panic!("{other:?}"),
    }
}

fn slot(seconds: u64, slot: u8) -> Slot {
    Slot { step: step_of(now(seconds).wall), slot }
}

#[test]
fn a_code_is_what_another_implementation_computes() {
    // Python, hmac and hashlib alone: h2(k, m) = hmac.new(k, m, 'sha256').digest();
    // k = h2(h2(bytes(32), b'\x01'*32 + b'\x02'*32), b'knockd-rs v1 syn\x01');
    // h2(k, b'syn' + (60000000).to_bytes(8, 'big') + bytes([2]) + bytes.fromhex('7ebfe08c'))[:8]
    let key = CodeKey::new(&Secret::new([1; 32]), &Secret::new([2; 32]));
    let slot = Slot { step: 60_000_000, slot: 2 };
    assert_eq!(key.code(slot, Some(service_tag("ssh"))), 0xbcab_1c9b_634e_6066);
    assert_eq!(key.code(slot, None), 0xa531_6c57_c2a5_aeee);
    let syn = key.pack(slot, None);
    assert_eq!(u64::from(syn.sequence) << 32 | u64::from(syn.timestamp.unwrap()), 0xa531_6c57_c2a5_aeee);
}

#[test]
fn a_code_knocks_for_its_client_and_its_service() {
    let mut listener = listener(now(0));
    for (number, service) in [(1, None), (2, Some(service_tag("ssh")))] {
        let knock = knocked(listener.receive(&segment(key(number).pack(slot(0, 1), service)), now(0)));
        assert_eq!((knock.client, knock.method), (client(number).public().into(), Method::Syn));
        assert_eq!(knock.ask.ports, service.map_or(Wanted::Defaults, Wanted::Service));
        assert_eq!(knock.counter, slot(0, 1).counter());
        listener.spend(&knock);
    }
}

#[test]
fn a_code_is_good_in_its_step_and_the_ones_beside_it() {
    for (made, expected) in [(0, false), (30, true), (60, true), (90, true), (120, false)] {
        let syn = segment(key(1).pack(slot(made, 0), None));
        let outcome = listener(now(60)).receive(&syn, now(60));
        assert_eq!(matches!(outcome, Outcome::Knock(_)), expected, "{made}: {outcome:?}");
    }
}

#[test]
fn a_code_works_once_and_an_older_one_never_after_it() {
    let mut listener = listener(now(0));
    let (second, first) = (segment(key(1).pack(slot(0, 1), None)), segment(key(1).pack(slot(0, 0), None)));
    let knock = knocked(listener.receive(&second, now(0)));
    listener.spend(&knock);
    assert_eq!(listener.receive(&second, now(0)), Outcome::Dropped(Drop::Repeat));
    let outcome = listener.receive(&first, now(0));
    assert!(matches!(outcome, Outcome::Refused { fault: Fault::Replayed { .. }, .. }), "{outcome:?}");
}

#[test]
fn a_used_code_is_refused_after_a_restart() {
    let syn = segment(key(1).pack(slot(0, 1), None));
    let mut before = listener(now(0));
    let knock = knocked(before.receive(&syn, now(0)));
    before.spend(&knock);
    let mut after = listener(now(0));
    after.seed(before.marks().collect::<Vec<_>>());
    let outcome = after.receive(&syn, now(0));
    assert!(matches!(outcome, Outcome::Refused { fault: Fault::Replayed { .. }, .. }), "{outcome:?}");
}

#[test]
fn a_knock_by_spa_and_one_by_syn_do_not_age_each_other() {
    let mut listener = listener(now(0));
    let spa = crate::knock::MarkKey::new(client(1).public().into(), Method::Spa);
    listener.seed([(spa, now(3600).wall)]);
    knocked(listener.receive(&segment(key(1).pack(slot(0, 0), None)), now(0)));
}

#[test]
fn a_code_of_somebody_else_for_something_else_or_of_another_server_is_none() {
    let mut listener = listener(now(0));
    let other_server = CodeKey::new(
        &client(1).agree(&KeyPair::from_seed([0x12; 32]).public()).unwrap(),
        &Secret::new([0x44; 32]),
    );
    let other_psk = CodeKey::new(&client(1).agree(&server().public()).unwrap(), &Secret::new([0x45; 32]));
    let unknown = [
        key(3).pack(slot(0, 0), None),
        key(1).pack(slot(0, 0), Some(service_tag("web"))),
        key(1).pack(slot(0, SLOTS), None),
        other_server.pack(slot(0, 0), None),
        other_psk.pack(slot(0, 0), None),
        Syn { timestamp: None, ..key(1).pack(slot(0, 0), None) },
    ];
    for syn in unknown {
        assert_eq!(listener.receive(&segment(syn), now(0)), Outcome::Dropped(Drop::Code));
    }
}

#[test]
fn a_syn_to_another_port_is_no_knock() {
    let syn = Segment { port: 443, ..segment(key(1).pack(slot(0, 0), None)) };
    assert_eq!(listener(now(0)).receive(&syn, now(0)), Outcome::Dropped(Drop::Method));
}

#[test]
fn every_flipped_bit_is_an_unknown_code() {
    let mut listener = listener(now(0));
    let code = key(1).code(slot(0, 0), None);
    for bit in 0..64 {
        let [a, b] = [32, 0].map(|shift| u32::try_from((code ^ 1 << bit) >> shift & 0xffff_ffff).unwrap());
        let syn = segment(Syn { sequence: a, timestamp: Some(b) });
        assert_eq!(listener.receive(&syn, now(0)), Outcome::Dropped(Drop::Code), "bit {bit}");
    }
}

#[test]
fn the_tables_follow_the_clock_and_heal_after_a_jump() {
    let (mut listener, book) = (listener(now(0)), Book::new(&server(), &members()));
    let story = [(10, 0), (30, 1), (30, 0), (60, 1), (7200, 3), (30, 3)];
    for (place, (seconds, expected)) in (0..).map(|place| place % SLOTS).zip(story) {
        let missing = listener.missing_steps(now(seconds).wall);
        assert_eq!(missing.len(), expected, "at {seconds}");
        for step in missing {
            listener.install(book.table(step), now(seconds).wall);
        }
        knocked(listener.receive(&segment(key(1).pack(slot(seconds, place), None)), now(seconds)));
    }
}

#[test]
fn a_table_made_ahead_is_kept_until_its_step_comes() {
    let (mut listener, book) = (listener(now(0)), Book::new(&server(), &members()));
    listener.install(book.table(step_of(now(60).wall)), now(20).wall);
    assert_eq!(listener.missing_steps(now(30).wall), [0; 0]);
}

#[test]
fn a_thousand_lost_knocks_leave_nothing_out_of_step() {
    let mut last = None;
    let mut waited = 0;
    let mut time = now(0).wall;
    for _ in 0..1000 {
        let next = loop {
            match Slot::next(time, last) {
                Ok(next) => break next,
                Err(wait) => {
                    assert!(wait <= STEP && wait > Duration::ZERO);
                    time = time.saturating_add(wait);
                    waited += 1;
                }
            }
        };
        assert!(last.is_none_or(|last| next > last));
        last = Some(next);
    }
    assert!(waited > 100, "{waited}");
    let at = Now { wall: time, ..now(0) };
    let mut listener = listener(at);
    knocked(listener.receive(&segment(key(1).pack(last.unwrap(), None)), at));
}

#[test]
fn a_clock_that_was_set_back_a_little_goes_on_and_one_far_ahead_is_forgotten() {
    let at = |seconds| now(seconds).wall;
    let last = Some(Slot { slot: 1, ..slot(30, 0) });
    assert_eq!(Slot::next(at(29), last), Ok(Slot { slot: 2, ..slot(30, 0) }));
    assert_eq!(Slot::next(at(0), Some(slot(3600, 0))), Ok(slot(0, 0)));
    assert_eq!(Slot::next(at(3600), last), Ok(slot(3600, 0)));
    assert_eq!(Slot::next(at(0), Some(Slot { slot: 3, ..slot(30, 0) })), Err(Duration::from_secs(30)));
}

#[test]
fn a_code_that_two_clients_share_lets_neither_in() {
    let mut table = Table::new(7, vec![(5, 1), (9, 2), (5, 3), (9, 4), (9, 5), (1 << 60, 6)]);
    assert_eq!([5, 9, 1 << 60].map(|code| table.take(code)), [None, None, Some(Some(6))]);
}

#[test]
fn a_key_of_small_order_keeps_nobody_from_his_place() {
    let weak = Member { public: PublicKey([0; 32]), client: ClientId([0; 32]), ..member(9) };
    let members = [weak, member(1)];
    let mut listener =
        Listener::new(Rates::default(), [9; 16], Timestamp::from_secs(1)).with_syn(PORT, &members);
    let book = Book::new(&server(), &members);
    for step in listener.missing_steps(now(0).wall) {
        listener.install(book.table(step), now(0).wall);
    }
    let knock = knocked(listener.receive(&segment(key(1).pack(slot(0, 0), None)), now(0)));
    assert_eq!(knock.client, client(1).public().into());
}

#[test]
fn a_table_takes_no_more_memory_than_is_promised() {
    for count in [8_u64, 1000, 65_536, 65_537, 100_000] {
        let random = |number: u64| {
            u64::from_be_bytes(*crate::crypto::sha256(&[&number.to_be_bytes()]).first_chunk().unwrap())
        };
        let table = Table::new(1, (0..count).map(|number| (random(number), 0)).collect());
        assert_eq!(table.len() as u64, count);
        assert!(table.size() <= table.len() * BYTES_PER_CODE + 64, "{count}: {}", table.size());
    }
}

proptest! {
    #[test]
    fn a_counter_and_its_slot_are_the_same(step in 0_u64..400_000_000, place in 0..SLOTS) {
        let slot = Slot { step, slot: place };
        prop_assert_eq!(Slot::of(slot.counter()), slot);
        prop_assert_eq!(step_of(slot.counter()), step);
    }

    #[test]
    fn what_is_in_a_table_is_found_in_it_once_and_nothing_else(
        codes in prop::collection::hash_set(any::<u64>(), 0..300), others in prop::collection::vec(any::<u64>(), 50),
    ) {
        let entries: Vec<(u64, u32)> = codes.iter().copied().zip(0..).collect();
        let mut table = Table::new(1, entries.clone());
        for (code, whose) in entries {
            prop_assert_eq!(table.take(code), Some(Some(whose)));
            prop_assert_eq!(table.take(code), Some(None));
        }
        for code in others.into_iter().filter(|code| !codes.contains(code)) {
            prop_assert_eq!(table.take(code), None);
        }
    }
}
