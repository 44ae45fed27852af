use std::net::IpAddr;

use super::*;
use crate::crypto::sha256;
use crate::frame::{Body, Segment};
use crate::knock::{EntryFault, Fault, Knock, Listener, Op, Outcome, Rates, ServiceTag, Target, Wanted};
use crate::session::{Session, Uses};
use crate::text::{PortError, PortRange, Span};
use crate::time::ClockTrust;

pub(super) const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const BUILT: Timestamp = Timestamp::from_secs(1_700_000_000);

pub(super) fn now() -> Now {
    Now { wall: NOON, uptime: Duration::from_secs(5000), trust: ClockTrust::Synchronised }
}

pub(super) fn later(seconds: u64) -> Now {
    let (wall, uptime) = (NOON.as_secs() + seconds, Duration::from_secs(5000 + seconds));
    Now { wall: Timestamp::from_secs(wall), uptime, ..now() }
}

fn server() -> KeyPair {
    KeyPair::from_seed([0x11; 32])
}

pub(super) fn identity() -> ClientIdentity {
    ClientIdentity {
        keys: KeyPair::from_seed([0x33; 32]),
        psk: Secret::new([0x44; 32]),
        server: server().public(),
        gate: Secret::new([0x22; 32]),
    }
}

pub(super) fn rates(all: u32, source: u32) -> Rates {
    Rates { all: all.try_into().unwrap(), source: source.try_into().unwrap() }
}

pub(super) fn decoder_with(rates: Rates) -> Listener {
    let ClientIdentity { keys, psk, gate, .. } = identity();
    let client = ClientKeys { public: keys.public(), psk, freshness: Freshness::default() };
    Listener::new(rates, [9; 16], BUILT).with_spa(server(), &gate, [client])
}

/// Without limits on the rate, for tests that send thousands of packets at one moment.
pub(super) fn decoder() -> Listener {
    decoder_with(rates(u32::MAX, u32::MAX))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn segment(payload: &[u8]) -> Segment<'_> {
    Segment {
        source: address("192.0.2.7"),
        destination: address("198.51.100.1"),
        port: 62201,
        body: Body::Datagram(payload),
    }
}

pub(super) fn segment_from<'a>(source: &str, payload: &'a [u8]) -> Segment<'a> {
    Segment { source: address(source), ..segment(payload) }
}

pub(super) fn ephemeral(number: u64) -> Secret<32> {
    Secret::new(sha256(&[b"ephemeral", &number.to_be_bytes()]))
}

pub(super) fn ask() -> Ask {
    Ask::everything()
}

/// The usual client's packet, made at `seconds` after noon.
pub(super) fn packet(seconds: u64) -> Vec<u8> {
    let counter = next_counter(later(seconds).wall, None);
    seal(&ask(), counter, &identity(), ephemeral(seconds), DEFAULT_PAYLOAD).unwrap()
}

/// A packet with this plaintext, sealed by the usual client.
pub(super) fn packet_of(plain: &[u8]) -> Vec<u8> {
    let ClientIdentity { keys, psk, server, .. } = identity();
    let message = noise::write(PROLOGUE, &keys, &server, &psk, &KeyPair::from(ephemeral(0)), plain).unwrap();
    in_its_name(message)
}

/// A message as a packet in the name of the usual client, by somebody who holds the gate key and has seen one of its packets.
fn in_its_name(message: Vec<u8>) -> Vec<u8> {
    let ClientIdentity { server, gate, .. } = identity();
    Gate::new(&server, &gate).wrap_for(&identity().pseudonym(), message)
}

/// The usual plaintext with some bytes changed.
fn plain_with(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut plain = encode(&ask(), next_counter(NOON, None), DEFAULT_PAYLOAD).unwrap().to_vec();
    for (offset, byte) in changes {
        plain[*offset] = *byte;
    }
    plain
}

/// What a new decoder says to the usual plaintext with some bytes changed.
fn asked(changes: &[(usize, u8)]) -> Result<Ask, Fault> {
    match decoder().receive(&segment(&packet_of(&plain_with(changes))), now()) {
        Outcome::Knock(knock) => Ok(knock.ask),
        Outcome::Refused { client, source, fault, .. } => {
            assert_eq!((client, source), (identity().keys.public().into(), address("192.0.2.7")));
            Err(fault)
        }
        Outcome::Dropped(drop) => panic!("{drop:?}"),
    }
}

pub(super) fn fault(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Refused { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

pub(super) fn knock(outcome: Outcome) -> Knock {
    match outcome {
        Outcome::Knock(knock) => knock,
        other => panic!("{other:?}"),
    }
}

// --- what gets through ---

#[test]
fn a_knock_says_who_asks_from_where_and_for_what() {
    let asks = Ask {
        op: Op::Renew,
        target: Target::Address(address("203.0.113.9")),
        uses: Some(Uses::Once),
        session: Session::default(),
        wide: false,
        duration: Some(Span::from_secs(90)),
        ports: Wanted::Ports(vec!["tcp/22".parse().unwrap(), "udp/8000-8100".parse().unwrap()]),
    };
    let packet = seal(&asks, next_counter(NOON, None), &identity(), ephemeral(1), 64).unwrap();
    let expected = Knock {
        client: identity().keys.public().into(),
        method: Method::Spa,
        source: address("192.0.2.7"),
        counter: next_counter(NOON, None),
        mac1: *packet.last_chunk().unwrap(),
        ask: asks,
    };
    assert_eq!(decoder().receive(&segment(&packet), now()), Outcome::Knock(expected));
}

#[test]
fn a_knock_may_be_padded_to_any_multiple_of_sixteen_up_to_the_ipv6_minimum_packet() {
    for len in (DEFAULT_PAYLOAD..=MAX_PAYLOAD).step_by(PAYLOAD_STEP) {
        let packet = seal(&ask(), NOON, &identity(), ephemeral(1), len).unwrap();
        assert_eq!(packet.len(), OVERHEAD + len);
        assert_eq!(knock(decoder().receive(&segment(&packet), now())).ask, ask());
    }
    // IPv6 and UDP headers are 48 bytes.
    assert_eq!((MIN_LEN, MAX_LEN, MAX_LEN + 48), (176, 1232, 1280));
}

#[test]
fn a_client_without_a_psk_has_one_of_zeros() {
    let client = ClientIdentity { psk: Secret::new([0; 32]), ..identity() };
    let keys =
        ClientKeys { public: client.keys.public(), psk: client.psk.clone(), freshness: Freshness::default() };
    let mut decoder =
        Listener::new(Rates::default(), [9; 16], BUILT).with_spa(server(), &client.gate, [keys]);
    let packet = seal(&ask(), NOON, &client, ephemeral(1), 64).unwrap();
    knock(decoder.receive(&segment(&packet), now()));
}

#[test]
fn a_client_that_wants_an_answer_gets_its_port_and_no_answer() {
    assert_eq!(asked(&[(1, 0b1_0000)]), Ok(ask()));
}

#[test]
fn the_address_that_must_match_the_source_wins_over_the_explicit_one() {
    let here: Vec<(usize, u8)> = [(1, 0b1100), (26, 0xff), (27, 0xff), (28, 192), (30, 2), (31, 7)].to_vec();
    assert_eq!(asked(&here), Ok(Ask { target: Target::SourceOnly(address("192.0.2.7")), ..ask() }));
}

#[test]
fn counters_are_quantised_and_always_rise() {
    let nanos = Timestamp::from_nanos;
    assert_eq!(next_counter(nanos(3 * QUANTUM + 5), None), nanos(3 * QUANTUM));
    assert_eq!(next_counter(nanos(3 * QUANTUM + 5), Some(nanos(QUANTUM))), nanos(3 * QUANTUM));
    assert_eq!(next_counter(nanos(3 * QUANTUM + 5), Some(nanos(3 * QUANTUM))), nanos(4 * QUANTUM));
    assert_eq!(
        next_counter(nanos(0), Some(nanos(8 * QUANTUM))),
        nanos(9 * QUANTUM),
        "the clock was set back"
    );
}

#[test]
fn what_has_no_form_on_the_wire_is_not_sealed() {
    let sealed = |ask: &Ask, len| seal(ask, NOON, &identity(), ephemeral(1), len).map(drop);
    let port: PortRange = "tcp/22".parse().unwrap();
    for len in [0, 48, 65, 1136] {
        assert_eq!(sealed(&ask(), len), Err(SealError::Padding(len)));
    }
    let story = [
        (Ask { ports: Wanted::Ports(vec![port; 6]), ..ask() }, SealError::Ports(6)),
        (Ask { ports: Wanted::Ports(vec![port; 300]), ..ask() }, SealError::Ports(300)),
        (Ask { ports: Wanted::Ports(vec![]), ..ask() }, SealError::Ports(0)),
        (Ask { ports: Wanted::Service(ServiceTag([0; 4])), ..ask() }, SealError::Service),
        (Ask { target: Target::Address(address("0.0.0.0")), ..ask() }, SealError::Address),
        (Ask { target: Target::SourceOnly(address("::")), ..ask() }, SealError::Address),
        (Ask { duration: Some(Span::from_secs(0)), ..ask() }, SealError::NoDuration),
    ];
    for (ask, error) in story {
        assert_eq!(sealed(&ask, 64), Err(error));
        assert!(error.to_string().contains(';'), "{error}");
    }
    let client = ClientIdentity { server: PublicKey([0; 32]), ..identity() };
    assert_eq!(seal(&ask(), NOON, &client, ephemeral(1), 64), Err(SealError::ServerKey));
}

// --- what is dropped ---

#[test]
fn a_packet_of_another_length_is_dropped_before_anything_is_computed() {
    let long = seal(&ask(), NOON, &identity(), ephemeral(1), MAX_PAYLOAD).unwrap();
    for len in (0..MIN_LEN).chain((MIN_LEN + 1)..(MIN_LEN + 16)).chain([1231]) {
        assert_eq!(decoder().receive(&segment(&long[..len]), now()), Outcome::Dropped(Drop::Length), "{len}");
    }
    let too_long = [long.as_slice(), &[0; 16]].concat();
    assert_eq!(decoder().receive(&segment(&too_long), now()), Outcome::Dropped(Drop::Length));
}

#[test]
fn every_flipped_bit_is_noticed_at_the_gate() {
    let (mut decoder, packet) = (decoder(), packet(0));
    for bit in 0..8 * packet.len() {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // The last eight bytes say who it is from, and nobody is there of that name.
        let expected = if bit / 8 < packet.len() - 8 { Drop::Mac } else { Drop::UnknownClient };
        assert_eq!(decoder.receive(&segment(&flipped), now()), Outcome::Dropped(expected), "bit {bit}");
    }
    knock(decoder.receive(&segment(&packet), now()));
}

#[test]
fn every_flipped_bit_is_noticed_behind_the_gate_too() {
    let (mut decoder, packet) = (decoder(), packet(0));
    let gate = Gate::new(&server().public(), &identity().gate);
    for bit in 0..8 * (packet.len() - MAC1_LEN) {
        let mut flipped = packet[..packet.len() - MAC1_LEN].to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mac1 = gate.mac1(&identity().pseudonym(), &flipped);
        flipped.extend_from_slice(&mac1);
        assert_eq!(decoder.receive(&segment(&flipped), now()), Outcome::Dropped(Drop::Key), "bit {bit}");
    }
    knock(decoder.receive(&segment(&packet), now()));
}

#[test]
fn whoever_holds_one_key_too_few_is_dropped() {
    let other = KeyPair::from_seed([0x55; 32]);
    let story = [
        ("gate", ClientIdentity { gate: Secret::new([0x23; 32]), ..identity() }, Drop::Mac),
        ("server", ClientIdentity { server: other.public(), ..identity() }, Drop::Mac),
        ("psk", ClientIdentity { psk: Secret::new([0x45; 32]), ..identity() }, Drop::Key),
        ("no psk", ClientIdentity { psk: Secret::new([0; 32]), ..identity() }, Drop::Key),
        ("client", ClientIdentity { keys: other.clone(), ..identity() }, Drop::UnknownClient),
    ];
    let plain = encode(&ask(), NOON, 64).unwrap();
    for (missing, client, drop) in story {
        let packet = seal(&ask(), NOON, &client, ephemeral(1), 64).unwrap();
        let at_the_gate = if drop == Drop::Mac { drop } else { Drop::UnknownClient };
        assert_eq!(decoder().receive(&segment(&packet), now()), Outcome::Dropped(at_the_gate), "{missing}");
        if drop != Drop::Mac {
            // The same, where the pseudonym is known.
            let ClientIdentity { keys, psk, server, .. } = client;
            let message = noise::write(PROLOGUE, &keys, &server, &psk, &KeyPair::from(ephemeral(1)), &plain);
            let packet = in_its_name(message.unwrap());
            assert_eq!(decoder().receive(&segment(&packet), now()), Outcome::Dropped(drop), "{missing}");
        }
    }
    // The right gate, and another server's key inside.
    let ClientIdentity { keys, psk, .. } = identity();
    let message =
        noise::write(PROLOGUE, &keys, &other.public(), &psk, &KeyPair::from(ephemeral(1)), &plain).unwrap();
    assert_eq!(decoder().receive(&segment(&in_its_name(message)), now()), Outcome::Dropped(Drop::Key));
}

#[test]
fn a_message_of_another_version_of_the_protocol_is_dropped() {
    let ClientIdentity { keys, psk, server, .. } = identity();
    let plain = encode(&ask(), NOON, 64).unwrap();
    let message =
        noise::write(b"knockd-rs/1\x02", &keys, &server, &psk, &KeyPair::from(ephemeral(1)), &plain).unwrap();
    assert_eq!(decoder().receive(&segment(&in_its_name(message)), now()), Outcome::Dropped(Drop::Key));
}

#[test]
fn an_ephemeral_key_of_small_order_is_dropped() {
    let mut message = packet(0)[..MIN_LEN - MAC1_LEN].to_vec();
    message[..32].fill(0);
    assert_eq!(decoder().receive(&segment(&in_its_name(message)), now()), Outcome::Dropped(Drop::Key));
}

#[test]
fn a_profile_whose_key_is_of_small_order_lets_nobody_in() {
    let ClientIdentity { keys: own, psk, server: public, gate } = identity();
    let keys =
        ClientKeys { public: PublicKey([0; 32]), psk: Secret::new([0; 32]), freshness: Freshness::default() };
    let known_by = pseudonym(&public, &gate, &keys.public, &keys.psk);
    let mut decoder = Listener::new(Rates::default(), [9; 16], BUILT).with_spa(server(), &gate, [keys]);
    assert!(server().agree(&PublicKey([0; 32])).is_none());
    assert_eq!(decoder.receive(&segment(&packet(0)), now()), Outcome::Dropped(Drop::UnknownClient));
    let plain = encode(&ask(), NOON, 64).unwrap();
    let message = noise::write(PROLOGUE, &own, &public, &psk, &KeyPair::from(ephemeral(1)), &plain).unwrap();
    let packet = Gate::new(&public, &gate).wrap_for(&known_by, message);
    assert_eq!(decoder.receive(&segment(&packet), now()), Outcome::Dropped(Drop::UnknownClient));
}

#[test]
fn the_copies_that_a_client_sends_are_dropped_silently() {
    let (mut decoder, packet) = (decoder(), packet(0));
    knock(decoder.receive(&segment(&packet), now()));
    for source in ["192.0.2.7", "203.0.113.66"] {
        assert_eq!(decoder.receive(&segment_from(source, &packet), now()), Outcome::Dropped(Drop::Repeat));
    }
}

#[test]
fn a_copy_that_outlives_the_ring_meets_the_counter() {
    let (mut decoder, packet) = (decoder(), packet(0));
    let first = knock(decoder.receive(&segment(&packet), now()));
    decoder.spend(&first);
    for number in 0..super::super::ring::MAX_RING {
        decoder.seed_ring((number as u128).to_be_bytes());
    }
    assert_eq!(fault(decoder.receive(&segment(&packet), now())), Fault::Replayed { behind: Duration::ZERO });
}

#[test]
fn a_flooding_client_leaves_the_others_their_share_wherever_it_sends_from() {
    let other = ClientIdentity { keys: KeyPair::from_seed([0x55; 32]), ..identity() };
    let keys = [identity(), other.clone()].map(|ClientIdentity { keys, psk, .. }| ClientKeys {
        public: keys.public(),
        psk,
        freshness: Freshness::default(),
    });
    let mut decoder = Listener::new(rates(20, 5), [9; 16], BUILT).with_spa(server(), &identity().gate, keys);
    // One robbed client, a thousand addresses, that of the honest one among them.
    for number in 0..1000u64 {
        let [.., high, low] = number.to_be_bytes();
        let source = IpAddr::from([203, 0, high, low]);
        let packet = packet(number);
        let outcome = decoder.receive(&Segment { source, ..segment(&packet) }, now());
        let expected = |outcome: &Outcome| match number {
            0..5 => matches!(outcome, Outcome::Knock(_)),
            _ => *outcome == Outcome::Dropped(Drop::Budget),
        };
        assert!(expected(&outcome), "{number}: {outcome:?}");
    }
    let packet = seal(&ask(), NOON, &other, ephemeral(2000), DEFAULT_PAYLOAD).unwrap();
    knock(decoder.receive(&segment_from("203.0.0.1", &packet), now()));
}

#[test]
fn all_clients_together_are_held_to_the_whole_rate() {
    let mut decoder = decoder_with(rates(3, 3));
    for number in 0..3 {
        knock(decoder.receive(&segment(&packet(number)), now()));
    }
    assert_eq!(decoder.receive(&segment(&packet(3)), now()), Outcome::Dropped(Drop::Budget));
}

#[test]
fn the_copy_of_a_knock_that_was_over_budget_is_its_second_chance() {
    let mut decoder = decoder_with(rates(1, 1));
    knock(decoder.receive(&segment(&packet(0)), now()));
    let second = packet(1);
    assert_eq!(decoder.receive(&segment(&second), now()), Outcome::Dropped(Drop::Budget));
    knock(decoder.receive(&segment(&second), later(1)));
}

#[test]
fn strangers_never_reach_the_budget_and_former_clients_neither() {
    let mut decoder = decoder_with(rates(1, 1));
    let former = ClientIdentity { keys: KeyPair::from_seed([0x55; 32]), ..identity() };
    for number in 0..100u8 {
        assert_eq!(decoder.receive(&segment(&[number; 176]), now()), Outcome::Dropped(Drop::Mac));
        // It still holds the gate key, and no profile holds it.
        let packet = seal(&ask(), NOON, &former, ephemeral(number.into()), DEFAULT_PAYLOAD).unwrap();
        assert_eq!(decoder.receive(&segment(&packet), now()), Outcome::Dropped(Drop::UnknownClient));
    }
    knock(decoder.receive(&segment(&packet(0)), now()));
}

// --- what is refused ---

#[test]
fn a_plaintext_of_another_version_is_refused() {
    assert_eq!(asked(&[(0, 2)]), Err(Fault::Version(2)));
    assert_eq!(asked(&[(0, 0)]), Err(Fault::Version(0)));
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    assert_eq!(asked(&[(1, 0b0100_0000)]), Err(Fault::Flags(0b0100_0000)));
    assert_eq!(asked(&[(1, 0b1010_0000)]), Err(Fault::Flags(0b1000_0000)));
    assert_eq!(asked(&[(1, 3)]), Err(Fault::Query));
}

#[test]
fn session_flags_are_refused_rather_than_ignored() {
    for bit in 5..8 {
        assert_eq!(asked(&[(11, 1 << bit)]), Err(Fault::SessionFlags(1 << bit)));
    }
}

#[test]
fn a_number_of_connections_stands_alone_and_is_counted() {
    for (bit, count) in [(0, 1), (0, 251), (0x20, 2)] {
        assert_eq!(asked(&[(1, bit), (10, count)]), Err(Fault::Connections(count)));
    }
}

#[test]
fn padding_that_is_not_zero_is_refused_to_the_last_byte() {
    for offset in 37..64 {
        assert_eq!(asked(&[(offset, 1)]), Err(Fault::Padding), "{offset}");
    }
    // Behind an entry: tcp/22-22.
    let entry = [(36, 1), (37, 6), (39, 22), (41, 22)];
    assert_eq!(asked(&entry), Ok(Ask { ports: Wanted::Ports(vec!["tcp/22".parse().unwrap()]), ..ask() }));
    assert_eq!(asked(&[&entry[..], &[(42, 1)]].concat()), Err(Fault::Padding));
}

#[test]
fn entries_that_name_no_ports_are_refused() {
    let refused = |changes: &[(usize, u8)], fault| assert_eq!(asked(changes), Err(Fault::Entries(fault)));
    refused(&[(36, 6)], EntryFault::Count(6));
    refused(&[(36, 255)], EntryFault::Count(255));
    refused(&[(36, 1)], EntryFault::Protocol(0));
    refused(&[(36, 1), (37, 1)], EntryFault::Protocol(1));
    refused(&[(36, 1), (37, 6)], EntryFault::Ports(PortError::Zero));
    let backwards = EntryFault::Ports(PortError::Backwards { first: 22, last: 21 });
    refused(&[(36, 1), (37, 6), (39, 22), (41, 21)], backwards);
    refused(&[(32, 1), (36, 1), (37, 6), (39, 22), (41, 22)], EntryFault::WithService);
}

#[test]
fn an_address_and_its_flag_come_together() {
    let mapped_zero = [(26, 0xff), (27, 0xff)];
    assert_eq!(asked(&[(16, 0x20)]), Err(Fault::Address { given: true }));
    assert_eq!(asked(&mapped_zero), Err(Fault::Address { given: true }));
    for flag in [0b0100, 0b1000, 0b1100] {
        assert_eq!(asked(&[(1, flag)]), Err(Fault::Address { given: false }));
        assert_eq!(asked(&[&mapped_zero[..], &[(1, flag)]].concat()), Err(Fault::Address { given: false }));
    }
}

#[test]
fn a_knock_sent_on_from_elsewhere_is_refused() {
    let ask = Ask { target: Target::SourceOnly(address("192.0.2.7")), ..ask() };
    let packet = seal(&ask, NOON, &identity(), ephemeral(1), 64).unwrap();
    let (named, source) = (address("192.0.2.7"), address("203.0.113.66"));
    let outcome = decoder().receive(&segment_from("203.0.113.66", &packet), now());
    assert_eq!(fault(outcome), Fault::SourceMismatch { named, source });
    assert_eq!(knock(decoder().receive(&segment(&packet), now())).ask, ask);
}

#[test]
fn a_counter_that_was_spent_is_refused_after_a_restart() {
    let mut before = decoder();
    let first = knock(before.receive(&segment(&packet(9)), now()));
    before.spend(&first);
    let mut after = decoder();
    after.seed(before.marks());
    assert_eq!(fault(after.receive(&segment(&packet(9)), now())), Fault::Replayed { behind: Duration::ZERO });
    assert!(matches!(fault(after.receive(&segment(&packet(8)), now())), Fault::Replayed { .. }));
    knock(after.receive(&segment(&packet(10)), now()));
}

#[test]
fn what_one_decoder_has_seen_can_be_carried_over_to_the_next() {
    let mut before = decoder();
    let first = knock(before.receive(&segment(&packet(0)), now()));
    before.spend(&first);
    let mut after = decoder();
    after.seed(before.marks());
    after.seed_ring(first.mac1);
    after.quarantine(Duration::from_secs(5009));
    assert_eq!(after.receive(&segment(&packet(0)), now()), Outcome::Dropped(Drop::Repeat));
    let remaining = Duration::from_secs(8);
    assert_eq!(fault(after.receive(&segment(&packet(1)), later(1))), Fault::Quarantine { remaining });
    assert_eq!(after.marks().count(), 1);
}

#[test]
fn a_knock_is_refused_when_the_clocks_differ_by_more_than_the_window() {
    let second = Duration::from_secs(1);
    // The client's clock is quantised downwards by up to a millisecond, hence the limits of a second.
    assert!(
        matches!(fault(decoder().receive(&segment(&packet(0)), later(182))), Fault::Stale { by, .. } if by >= second)
    );
    assert!(
        matches!(fault(decoder().receive(&segment(&packet(182)), now())), Fault::Ahead { by, .. } if by >= second)
    );
    knock(decoder().receive(&segment(&packet(179)), now()));
    knock(decoder().receive(&segment(&packet(0)), later(179)));
}

#[test]
fn a_server_that_woke_up_in_1970_takes_the_order_of_knocks_and_refuses_wild_ones() {
    let in_1970 = Now { wall: Timestamp::from_secs(3), trust: ClockTrust::Unsynchronised, ..now() };
    let counter = |days: u64| BUILT.saturating_add(Duration::from_secs(days * 86_400));
    let mut decoder = decoder();
    let mut receive = |days, number| {
        let packet = seal(&ask(), counter(days), &identity(), ephemeral(number), 64).unwrap();
        let outcome = decoder.receive(&segment(&packet), in_1970);
        if let Outcome::Knock(knock) = &outcome {
            decoder.spend(knock);
        }
        outcome
    };
    knock(receive(300, 1));
    assert_eq!(fault(receive(300, 2)), Fault::Replayed { behind: Duration::ZERO });
    assert_eq!(fault(receive(701, 3)), Fault::Jump { by: Duration::from_secs(86_400) });
    knock(receive(700, 4));
}

#[test]
fn what_was_refused_in_quarantine_is_not_good_afterwards() {
    let (mut decoder, mut after) = (decoder(), decoder());
    decoder.quarantine(Duration::from_secs(5010));
    let refused = packet(5);
    let remaining = Duration::from_secs(10);
    assert_eq!(fault(decoder.receive(&segment(&refused), now())), Fault::Quarantine { remaining });
    after.seed(decoder.marks());
    assert!(matches!(fault(after.receive(&segment(&refused), later(10))), Fault::Replayed { .. }));
    knock(after.receive(&segment(&packet(6)), later(10)));
}

#[test]
fn every_fault_says_what_to_do_and_gives_the_figures() {
    let (seconds, source) = (Duration::from_secs, address("192.0.2.7"));
    let half = Duration::from_millis(411_500);
    let story: [(Fault, &str); 19] = [
        (Fault::Version(2), "version 2"),
        (Fault::Flags(0x40), "0x40"),
        (Fault::SessionFlags(0x80), "0x80"),
        (Fault::Connections(1), "asks for 1 connections"),
        (Fault::Query, "`knockd-rs status`"),
        (Fault::Padding, "padding"),
        (Fault::Entries(EntryFault::Count(6)), "6 port ranges; name at most 5"),
        (Fault::Entries(EntryFault::Protocol(1)), "IP protocol 1;"),
        (Fault::Entries(EntryFault::Ports(PortError::Zero)), "port 0 cannot be opened"),
        (Fault::Entries(EntryFault::WithService), "a service and ports"),
        (Fault::Address { given: true }, "without a flag"),
        (Fault::Address { given: false }, "names none"),
        (Fault::SourceMismatch { named: address("::1"), source }, "from ::1, and came from 192.0.2.7"),
        (Fault::Replayed { behind: seconds(0) }, "used before"),
        (Fault::Replayed { behind: seconds(7) }, "7 s behind"),
        (
            Fault::Stale { by: half, max_age: seconds(180) },
            "412 s older than this server's clock allows (at most 180 s)",
        ),
        (
            Fault::Ahead { by: half, max_ahead: seconds(60) },
            "412 s farther ahead than this server's clock allows (at most 60 s)",
        ),
        (Fault::Jump { by: seconds(86_401) }, "2 days farther"),
        (Fault::Quarantine { remaining: seconds(30) }, "another 30 s"),
    ];
    for (fault, expected) in story {
        let sentence = fault.to_string();
        assert!(sentence.contains(expected) && sentence.contains("; "), "{sentence}");
        assert!(!sentence.ends_with('.') && !sentence.contains("  "), "{sentence}");
    }
}
