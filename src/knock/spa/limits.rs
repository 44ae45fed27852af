//! The known limits: that they are what the manual says, and no more.

use super::tests::{decoder, decoder_with, fault, knock, later, now, packet, rates, segment, segment_from};
use super::*;
use crate::knock::ring::MAX_RING;
use crate::knock::{Fault, Outcome};
use crate::time::ClockTrust;

#[test]
fn copies_that_outlived_the_ring_cost_their_client_its_share_wherever_they_come_from() {
    let mut decoder = decoder_with(rates(100, 1));
    let recorded = packet(0);
    let first = knock(decoder.receive(&segment(&recorded), now()));
    decoder.spend(&first);
    for number in 0..MAX_RING {
        decoder.seed_ring((number as u128).to_be_bytes());
    }
    let copy = decoder.receive(&segment_from("203.0.113.66", &recorded), later(1));
    assert!(matches!(fault(copy), Fault::Replayed { .. }));
    let next = packet(1);
    assert_eq!(decoder.receive(&segment(&next), later(1)), Outcome::Dropped(Drop::Budget));
    knock(decoder.receive(&segment(&next), later(2)));
}

#[test]
fn a_knock_from_a_clock_ahead_is_good_once_when_its_time_comes_unless_its_client_knocked_later() {
    let day = 86_400;
    let (mut seen, dated) = (decoder(), packet(day));
    assert!(matches!(fault(seen.receive(&segment(&dated), now())), Fault::Ahead { .. }));
    assert_eq!(seen.receive(&segment(&dated), later(day)), Outcome::Dropped(Drop::Repeat));
    // A worker that was started since does not know it.
    let mut next = decoder();
    next.seed(seen.marks());
    let stolen = knock(next.receive(&segment_from("203.0.113.66", &dated), later(day)));
    next.spend(&stolen);
    let mut again = decoder();
    again.seed(next.marks());
    assert_eq!(
        fault(again.receive(&segment(&dated), later(day))),
        Fault::Replayed { behind: Duration::ZERO }
    );
    let mut used = decoder();
    let first = knock(used.receive(&segment(&packet(day + 1)), later(day)));
    used.spend(&first);
    assert!(matches!(fault(used.receive(&segment(&dated), later(day))), Fault::Replayed { .. }));
}

#[test]
fn a_knock_whose_mark_was_lost_is_good_again_while_the_clock_is_in_doubt_and_not_with_a_clock() {
    // The power went right after the last of two knocks: the snapshot has the mark of the first one.
    let mut before = decoder();
    let first = knock(before.receive(&segment(&packet(0)), now()));
    before.spend(&first);
    let marks: Vec<_> = before.marks().collect();
    let last = packet(1);
    knock(before.receive(&segment(&last), later(1)));
    let after = |trust| {
        let mut listener = decoder();
        listener.seed(marks.iter().copied());
        listener.quarantine(later(361).uptime);
        listener.receive(&segment(&last), Now { trust, ..later(361) })
    };
    assert!(matches!(fault(after(ClockTrust::Synchronised)), Fault::Stale { .. }));
    knock(after(ClockTrust::Unsynchronised));
}
