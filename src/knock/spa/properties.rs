//! What holds for every knock, rather than for the examples in `tests.rs`.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::tests::{NOON, ask, decoder, ephemeral, identity, now, packet_of, segment};
use super::*;
use crate::knock::{MAX_ENTRIES, Op, Outcome, ServiceTag, Target, Wanted};
use crate::session::{Session, Uses};
use crate::text::{PortRange, Protocol, Span};

fn any_ask() -> impl Strategy<Value = Ask> {
    let op = prop_oneof![Just(Op::Open), Just(Op::Close), Just(Op::Renew)];
    let address = any::<IpAddr>()
        .prop_map(|address| address.to_canonical())
        .prop_filter("that of a machine", |address| !address.is_unspecified());
    let target = prop_oneof![
        Just(Target::Source),
        address.prop_map(Target::Address),
        Just(Target::SourceOnly(IpAddr::from([192, 0, 2, 7]))),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let range = (protocol, 1..=u16::MAX, 1..=u16::MAX)
        .prop_map(|(protocol, a, b)| PortRange::new(protocol, a.min(b), a.max(b)).unwrap());
    let tag = any::<[u8; 4]>().prop_filter("that of a service", |tag| *tag != [0; 4]);
    let ports = prop_oneof![
        Just(Wanted::Defaults),
        tag.prop_map(|tag| Wanted::Service(ServiceTag(tag))),
        vec(range, 1..=MAX_ENTRIES).prop_map(Wanted::Ports),
    ];
    let duration = option::of((1..=u32::MAX).prop_map(Span::from_secs));
    let uses = option::of((1..=Uses::MOST).prop_map(|count| Uses::number(count).unwrap()));
    let session = (0..=Session::BITS).prop_map(Session::from_bits);
    (op, target, uses, session, any::<bool>(), duration, ports).prop_map(
        |(op, target, uses, session, wide, duration, ports)| Ask {
            op,
            target,
            uses,
            session,
            wide,
            duration,
            ports,
        },
    )
}

/// A plaintext that is right here and there: random bytes alone would all fail at the version.
fn any_plain() -> impl Strategy<Value = Vec<u8>> {
    let head =
        (any_ask(), 4..=8usize).prop_map(|(ask, steps)| encode(&ask, NOON, 16 * steps).unwrap().to_vec());
    (head, vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(|(mut plain, changes)| {
        for (place, byte) in changes {
            let place = place.index(plain.len());
            plain[place] = byte;
        }
        plain
    })
}

proptest! {
    #[test]
    fn what_is_asked_is_what_arrives(ask in any_ask(), steps in 4..=70usize, number: u64, offset in 0..1_000_000_000u64) {
        let counter = NOON.saturating_add(Duration::from_nanos(offset));
        let packet = seal(&ask, counter, &identity(), ephemeral(number), 16 * steps).unwrap();
        let Outcome::Knock(knock) = decoder().receive(&segment(&packet), now()) else { panic!("refused") };
        prop_assert_eq!((knock.ask, knock.counter), (ask, counter));
    }

    #[test]
    fn a_damaged_packet_is_no_knock(
        edits in vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..8),
        len in option::of(0..=MIN_LEN + 32),
        mended: bool,
    ) {
        let whole = seal(&ask(), NOON, &identity(), ephemeral(1), DEFAULT_PAYLOAD).unwrap();
        let mut packet = whole.clone();
        for (place, difference) in edits {
            let place = place.index(packet.len());
            packet[place] ^= difference;
        }
        if let Some(len) = len {
            packet.resize(len, 0);
        }
        if let (true, Some((body, mac1))) = (mended, packet.split_last_chunk_mut::<MAC1_LEN>()) {
            // By somebody who holds the gate key and has seen a packet.
            *mac1 = Gate::new(&identity().server, &identity().gate).mac1(&identity().pseudonym(), body);
        }
        let outcome = decoder().receive(&segment(&packet), now());
        // Damage to mac1 alone is mended, and two edits may cancel each other.
        prop_assert!(packet == whole || matches!(outcome, Outcome::Dropped(_)), "{:?}", outcome);
    }

    #[test]
    fn noise_is_no_knock(bytes in vec(any::<u8>(), 0..=MAX_LEN + 64)) {
        prop_assert!(matches!(decoder().receive(&segment(&bytes), now()), Outcome::Dropped(Drop::Length | Drop::Mac)));
    }

    #[test]
    fn every_plaintext_that_is_understood_is_the_only_one_with_its_meaning(plain in any_plain()) {
        if let Ok((ask, counter)) = head::decode(&plain) {
            let mut canonical = plain.clone();
            // "Wants an answer" means nothing, and bit 2 nothing beside bit 3.
            canonical[1] &= !(1 << 4);
            if canonical[1] & head::SOURCE_ONLY != 0 {
                canonical[1] &= !head::EXPLICIT;
            }
            prop_assert_eq!(&*encode(&ask, counter, plain.len()).unwrap(), &canonical);
        }
    }

    #[test]
    fn no_plaintext_of_an_authentic_client_makes_the_decoder_panic(plain in vec(any::<u8>(), 64..=64), version: bool) {
        let plain = if version { [&[VERSION][..], &plain[1..]].concat() } else { plain };
        let outcome = decoder().receive(&segment(&packet_of(&plain)), now());
        prop_assert!(!matches!(outcome, Outcome::Dropped(_)), "{:?}", outcome);
    }
}

/// "Every byte of a knock looks random to anyone without the gate key": the same request, sent 4,000 times.
#[test]
fn no_bit_of_a_packet_tells_that_it_is_a_knock() {
    const PACKETS: usize = 4000;
    let packets =
        (0..PACKETS as u64).map(|n| seal(&ask(), NOON, &identity(), ephemeral(n), DEFAULT_PAYLOAD).unwrap());
    let packets: Vec<Vec<u8>> = packets.collect();
    // Six standard deviations of a fair coin: sqrt(4000) / 2 = 31.6 each.
    let expected = PACKETS / 2 - 190..=PACKETS / 2 + 190;
    for bit in 0..8 * MIN_LEN {
        let ones = packets.iter().filter(|packet| packet[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!(expected.contains(&ones), "bit {bit}: {ones} of {PACKETS}");
    }
    for offset in 0..MIN_LEN {
        let mut seen = [0usize; 256];
        packets.iter().for_each(|packet| seen[usize::from(packet[offset])] += 1);
        // Each value 15.6 times on average; a Poisson variable is above 50 once in 10^11.
        assert!(seen.iter().all(|count| *count < 50), "byte {offset}");
        assert!(seen.iter().filter(|count| **count > 0).count() > 250, "byte {offset}");
    }
}
