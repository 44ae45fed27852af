use proptest::prelude::*;

use super::*;

const HOME: &str = "198.51.100.7";
const DOORS: [Door; 3] = [7000, 8000, 9000];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn sources() -> Sources {
    Sources::new(Seeded::new([1; 16]))
}

fn steps(doors: &[Door]) -> Steps<'_> {
    Steps { number: 0, doors, gap: Duration::from_secs(5), total: Duration::from_secs(15) }
}

/// Plays hits of one source, `(seconds, door)`, and settles what is complete; says at which hits that was.
fn completed(sources: &mut Sources, source: &str, hits: &[(u64, Door)]) -> Vec<usize> {
    let hit = |(number, (second, door)): (usize, &(u64, Door))| {
        let seat = sources.note(ip(source), *door, Duration::from_secs(100 + second))?;
        let done = seat.completes(&steps(&DOORS));
        if done {
            seat.settle(0);
        }
        done.then_some(number)
    };
    hits.iter().enumerate().filter_map(hit).collect()
}

/// What it is about, the hits, and at which of them the sequence is complete.
type Story<'a> = (&'a str, &'a [(u64, Door)], &'a [usize]);

#[test]
fn stories_of_one_source() {
    let stories: [Story<'_>; 12] = [
        ("in order", &[(0, 7000), (1, 8000), (2, 9000)], &[2]),
        ("out of order", &[(0, 7000), (1, 9000), (2, 8000)], &[]),
        ("backwards", &[(0, 9000), (1, 8000), (2, 7000)], &[]),
        ("a wrong port in between", &[(0, 7000), (1, 1), (2, 8000), (3, 1), (4, 9000)], &[4]),
        (
            "each twice, as a SYN is sent again",
            &[(0, 7000), (1, 7000), (2, 8000), (3, 8000), (4, 9000)],
            &[4],
        ),
        ("the last one early", &[(0, 7000), (1, 9000), (2, 8000), (3, 9000)], &[3]),
        ("the first one again", &[(0, 7000), (1, 8000), (2, 7000), (3, 9000)], &[3]),
        ("a pause that is just short enough", &[(0, 7000), (5, 8000), (10, 9000)], &[2]),
        ("a pause that is too long", &[(0, 7000), (6, 8000), (7, 9000)], &[]),
        ("begun anew after a pause", &[(0, 7000), (6, 7000), (7, 8000), (8, 9000)], &[3]),
        ("sent again after it was complete", &[(0, 7000), (1, 8000), (2, 9000), (3, 9000)], &[2]),
        ("two times", &[(0, 7000), (1, 8000), (2, 9000), (3, 7000), (4, 8000), (5, 9000)], &[2, 5]),
    ];
    for (story, hits, expected) in stories {
        assert_eq!(completed(&mut sources(), HOME, hits), expected, "{story}");
    }
}

#[test]
fn what_was_sent_twice_counts_once() {
    let hits = [7000, 7000, 8000, 8000, 9000, 9000, 9000].map(|door| (0, door));
    assert_eq!(completed(&mut sources(), HOME, &hits), [4]);
}

#[test]
fn the_whole_sequence_has_a_time_of_its_own() {
    let doors = [1, 2, 3, 4, 5];
    for (pause, expected) in [(3750, true), (3751, false)] {
        let mut sources = sources();
        let mut done = false;
        for (number, door) in (0..).zip(doors) {
            let at = Duration::from_millis(1000 + pause * number);
            done = sources.note(ip(HOME), door, at).is_some_and(|seat| seat.completes(&steps(&doors)));
        }
        assert_eq!(done, expected, "{pause}");
    }
}

#[test]
fn a_port_may_come_again_in_a_sequence() {
    let doors = [7, 8, 7];
    let mut sources = sources();
    let mut play = |at, door| {
        sources
            .note(ip(HOME), door, Duration::from_secs(at))
            .is_some_and(|seat| seat.completes(&steps(&doors)))
    };
    assert_eq!([play(1, 7), play(2, 8), play(3, 7)], [false, false, true]);
}

#[test]
fn two_sources_at_once_do_not_touch_each_other() {
    let mut sources = sources();
    for (second, door) in (0..).zip(DOORS) {
        for source in [HOME, "2001:db8::7"] {
            let done = completed(&mut sources, source, &[(second, door)]);
            assert_eq!(done.len(), usize::from(door == 9000), "{source} {door}");
        }
    }
}

#[test]
fn a_scan_of_many_ports_again_and_again_completes_nothing() {
    let doors = [40_000, 20_000, 30_000];
    let mut sources = sources();
    for port in (0..10).flat_map(|_| 16_384..49_152) {
        let seat = sources.note(ip(HOME), port, Duration::from_secs(9));
        assert!(!seat.is_some_and(|seat| seat.completes(&steps(&doors))));
    }
}

#[test]
fn a_flood_of_sources_that_knock_once_does_not_push_out_who_has_knocked_twice() {
    let mut sources = sources();
    completed(&mut sources, HOME, &[(0, 7000), (0, 8000)]);
    for number in 0..1_000_000u32 {
        let stranger = IpAddr::from(number.to_be_bytes());
        assert!(sources.note(stranger, 7000, Duration::from_secs(101)).is_none());
    }
    assert_eq!(completed(&mut sources, HOME, &[(3, 9000)]), [0]);
    let bytes = size_of_val(&*sources.hall) + size_of_val(&*sources.porch);
    assert!(bytes < 3 << 20, "{bytes}");
}

#[test]
fn ten_thousand_strangers_a_second_leave_a_first_knock_its_place_for_a_pause() {
    let mut lost = 0;
    for round in 0..100u64 {
        let mut sources = Sources::new(Seeded::new([u8::try_from(round).unwrap(); 16]));
        sources.note(ip(HOME), 7000, Duration::from_millis(1000));
        for number in 0..2000u32 {
            sources.note(IpAddr::from(number.to_be_bytes()), 7000, Duration::from_millis(1200));
        }
        lost += usize::from(sources.note(ip(HOME), 8000, Duration::from_millis(1200)).is_none());
    }
    assert_eq!(lost, 0);
}

#[test]
fn strangers_with_two_hits_take_seats_from_each_other_before_one_with_three() {
    let mut sources = sources();
    completed(&mut sources, HOME, &[(0, 7000), (0, 7000), (0, 8000)]);
    for number in 0..100_000u32 {
        for _ in 0..2 {
            sources.note(IpAddr::from(number.to_be_bytes()), 7000, Duration::from_secs(101));
        }
    }
    assert_eq!(completed(&mut sources, HOME, &[(2, 9000)]), [0]);
}

#[test]
fn a_stream_to_one_port_does_not_wash_a_sequence_out() {
    let mut sources = sources();
    completed(&mut sources, HOME, &[(0, 7000), (0, 8000)]);
    for millis in 0..4000 {
        sources.note(ip(HOME), 6000, Duration::from_millis(100_000 + millis));
    }
    assert_eq!(completed(&mut sources, HOME, &[(4, 9000)]), [0]);
}

#[test]
fn a_seat_is_free_after_a_minute() {
    let mut sources = sources();
    completed(&mut sources, HOME, &[(0, 7000), (1, 8000)]);
    assert!(sources.note(ip(HOME), 9000, Duration::from_secs(162)).is_none());
}

/// Whether some of the hits, in their order and the last one among them, are the sequence; by trying everything.
fn by_force(hits: &[(u64, Door)], doors: &[Door]) -> bool {
    fn from(hits: &[(u64, Door)], doors: &[Door], started: Option<(u64, u64)>) -> bool {
        let Some((door, rest)) = doors.split_first() else { return hits.is_empty() };
        hits.iter().enumerate().any(|(number, (at, hit))| {
            let in_time = started.is_none_or(|(start, last)| at - last <= 5000 && at - start <= 15_000);
            let begun = started.map_or(*at, |(start, _)| start);
            let is_last = rest.is_empty();
            hit == door
                && in_time
                && (!is_last || number + 1 == hits.len())
                && from(&hits[number + 1..], rest, Some((begun, *at)))
        })
    }
    from(hits, doors, None)
}

proptest! {
    #[test]
    fn what_is_found_is_what_trying_everything_finds(
        pauses in prop::collection::vec((126u64..7000, 0u32..4), 1..14),
        doors in prop::collection::vec(0u32..4, 2..5),
    ) {
        let mut sources = sources();
        let mut at = 1000;
        let mut hits = Vec::new();
        for (pause, door) in pauses {
            at += pause;
            hits.push((at, door));
            let seat = sources.note(ip(HOME), door, Duration::from_millis(at));
            let found = seat.is_some_and(|seat| seat.completes(&steps(&doors)));
            prop_assert_eq!(found, by_force(&hits, &doors), "{:?}", &hits);
        }
    }
}
