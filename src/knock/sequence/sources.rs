//! What is remembered of those who knocked: a fixed table, made once, that no flood makes grow.
//!
//! The first knock of a source leaves a note in the porch, one place for each hash, where the next stranger to come by
//! takes it. Only a second knock gets a seat in the hall, which holds the last [`MAX_KNOCKS`] knocks of a source in
//! their order. Seats come in rows; a source's hash says which row, and who needs a seat takes that of the source with
//! the fewest knocks in it. So a flood from sources that knock once never reaches the hall, and one from sources that
//! knock a few times takes seats from each other before it takes that of somebody half-way through. A seat on which
//! nobody knocked for [`PATIENCE`] is free.

use std::net::IpAddr;
use std::time::Duration;

use super::super::hash::Seeded;

/// How many sources can be on the way through a sequence.
pub(super) const MAX_SOURCES: usize = ROW * ROWS;
/// How many sources can have knocked once.
pub(super) const MAX_NOTES: usize = 16_384;
/// How many knocks of a source are remembered.
pub(super) const MAX_KNOCKS: u16 = 256;

const ROW: usize = 8;
const ROWS: usize = 128;
/// Longer than the slowest sequence, whose counter would be stale.
const PATIENCE: Duration = Duration::from_secs(600);

/// Seconds for which the knocks of a message that was heard are not heard again. Later ones may be those of another
/// message, one in 256 for each lane.
const ECHO: u32 = 2;

/// The table, of some 680 KiB.
pub(super) struct Sources {
    porch: Box<[Note]>,
    hall: Box<[Seat]>,
    hash: Seeded,
}

/// One knock of a source. All zero when there is none.
#[derive(Clone, Copy, Default)]
struct Note {
    /// A part of the source's hash that is not its place.
    source: u32,
    place: u16,
    taken: bool,
}

/// The last knocks of a source.
#[derive(Clone)]
pub(super) struct Seat {
    source: u64,
    /// Seconds of uptime at the last knock.
    seen: u32,
    len: u16,
    next: u16,
    /// How many of the oldest are there only so that they are not heard again.
    settled: u16,
    /// How many of the newest have not been looked at.
    fresh: u16,
    places: [u16; MAX_KNOCKS as usize],
}

impl Sources {
    pub(super) fn new(hash: Seeded) -> Self {
        Self {
            porch: vec![Note::default(); MAX_NOTES].into_boxed_slice(),
            hall: vec![Seat::EMPTY; MAX_SOURCES].into_boxed_slice(),
            hash,
        }
    }

    /// Takes note of a knock. The seat of its source, when there is something new in it.
    pub(super) fn note(&mut self, source: IpAddr, place: u16, uptime: Duration) -> Option<&mut Seat> {
        let source = self.hash.address(source);
        let now = u32::try_from(uptime.as_secs()).unwrap_or(u32::MAX);
        let first = usize::try_from(source % ROWS as u64).unwrap_or_default() * ROW;
        let row = self.hall.get_mut(first..first + ROW)?;
        let known = row.iter().position(|seat| seat.source == source && seat.is_taken(now));
        let seat = match known {
            Some(known) => row.get_mut(known)?,
            None => {
                let earlier = knocked_before(&mut self.porch, source, place)?;
                let seat = row.iter_mut().min_by_key(|seat| seat.worth(now))?;
                *seat = Seat { source, ..Seat::EMPTY };
                seat.push(earlier);
                seat
            }
        };
        if now.saturating_sub(seat.seen) > ECHO {
            seat.settle(&[]);
        }
        seat.seen = now;
        seat.push(place).then_some(seat)
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.porch) + size_of_val(&*self.hall)
    }
}

/// The knock that this source left a note of; leaves one where there is none.
fn knocked_before(porch: &mut [Note], source: u64, place: u16) -> Option<u16> {
    let (slot, name) = (source >> 32, source >> 16);
    let slot = usize::try_from(slot % MAX_NOTES as u64).ok()?;
    let name = u32::try_from(name & u64::from(u32::MAX)).ok()?;
    let note = porch.get_mut(slot)?;
    if note.taken && note.source == name {
        return Some(std::mem::take(note).place);
    }
    *note = Note { source: name, place, taken: true };
    None
}

impl Seat {
    const EMPTY: Self =
        Self { source: 0, seen: 0, len: 0, next: 0, settled: 0, fresh: 0, places: [0; MAX_KNOCKS as usize] };

    /// The knocks from the oldest to the newest.
    pub(super) fn knocks(&self) -> impl Iterator<Item = u16> + '_ {
        let (newer, older) = self.used().split_at(usize::from(self.next).min(usize::from(self.len)));
        older.iter().chain(newer).copied().skip(self.settled.into())
    }

    /// How many have come since the last look, which this is.
    pub(super) fn looked(&mut self) -> usize {
        std::mem::take(&mut self.fresh).into()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.len - self.settled)
    }

    /// Takes out the knocks of a message that was heard, so that those still to come are copies of it and no junk to
    /// the next one. The other knocks stay: they may be somebody else's behind the same address.
    pub(super) fn settle(&mut self, heard: &[u16]) {
        let others: Vec<u16> = self.knocks().filter(|place| !heard.contains(place)).collect();
        let room = usize::from(MAX_KNOCKS).saturating_sub(heard.len());
        *self = Self { source: self.source, seen: self.seen, ..Self::EMPTY };
        for place in heard.iter().chain(others.split_at(others.len().saturating_sub(room)).1) {
            self.push(*place);
        }
        self.settled = u16::try_from(heard.len()).unwrap_or_default().min(self.len);
    }

    /// Remembers one; `false` for a copy of one that is remembered already.
    fn push(&mut self, place: u16) -> bool {
        if self.used().contains(&place) {
            return false;
        }
        if let Some(slot) = self.places.get_mut(usize::from(self.next)) {
            *slot = place;
        }
        self.next = (self.next + 1) % MAX_KNOCKS;
        self.fresh = (self.fresh + 1).min(MAX_KNOCKS);
        if self.len == MAX_KNOCKS {
            self.settled = self.settled.saturating_sub(1);
        }
        self.len = (self.len + 1).min(MAX_KNOCKS);
        true
    }

    fn used(&self) -> &[u16] {
        self.places.split_at(self.len.into()).0
    }

    fn is_taken(&self, now: u32) -> bool {
        self.len > 0 && u64::from(now.saturating_sub(self.seen)) < PATIENCE.as_secs()
    }

    /// Who has less of it loses the seat: free ones first, then those with few knocks, then those silent for longer.
    fn worth(&self, now: u32) -> (u16, u32) {
        if self.is_taken(now) { (self.len - self.settled, self.seen) } else { (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(1000);

    fn sources() -> Sources {
        Sources::new(Seeded::new([1; 16]))
    }

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn knocks(sources: &mut Sources, source: IpAddr, places: impl IntoIterator<Item = u16>) -> Vec<u16> {
        let mut seen = Vec::new();
        for place in places {
            if let Some(seat) = sources.note(source, place, NOON) {
                seen = seat.knocks().collect();
            }
        }
        seen
    }

    #[test]
    fn knocks_are_kept_in_their_order_and_the_oldest_goes_first() {
        let mut sources = sources();
        assert_eq!(knocks(&mut sources, host(1), [5, 3, 9]), [5, 3, 9]);
        let all = knocks(&mut sources, host(1), 100..400);
        assert_eq!((all.len(), all.first(), all.last()), (MAX_KNOCKS.into(), Some(&144), Some(&399)));
    }

    #[test]
    fn a_copy_of_a_knock_changes_nothing() {
        let mut sources = sources();
        assert_eq!(knocks(&mut sources, host(1), [5, 3, 5, 3, 9, 5]), [5, 3, 9]);
    }

    #[test]
    fn the_knocks_of_a_message_that_was_heard_are_not_heard_again_and_others_are_kept() {
        let mut sources = sources();
        knocks(&mut sources, host(1), [5, 3, 9, 4]);
        sources.note(host(1), 6, NOON).unwrap().settle(&[3, 4, 7]);
        assert_eq!(knocks(&mut sources, host(1), [7, 3, 8]), [5, 9, 6, 8]);
        let all = knocks(&mut sources, host(1), 100..400);
        assert_eq!((all.len(), all.first()), (MAX_KNOCKS.into(), Some(&144)), "and give way in their turn");
    }

    #[test]
    fn a_million_strangers_who_knock_once_take_no_seat() {
        let mut sources = sources();
        let memory = sources.memory();
        assert_eq!(knocks(&mut sources, host(1), 0..17).len(), 17);
        for stranger in 2..1_000_002 {
            assert!(sources.note(host(stranger), 7, NOON).is_none());
        }
        assert_eq!(knocks(&mut sources, host(1), 17..18).len(), 18);
        assert!(memory < 700 * 1024, "{memory}");
    }

    #[test]
    fn two_hundred_thousand_strangers_who_knock_five_times_do_not_take_the_seat_of_one_half_way_through() {
        let mut sources = sources();
        knocks(&mut sources, host(1), 0..17);
        for stranger in 2..200_002 {
            knocks(&mut sources, host(stranger), 0..5);
        }
        assert_eq!(knocks(&mut sources, host(1), 17..18).len(), 18);
    }

    #[test]
    fn a_seat_is_free_when_nobody_knocked_for_ten_minutes() {
        let mut sources = sources();
        knocks(&mut sources, host(1), 0..17);
        let later = NOON + PATIENCE;
        assert!(sources.note(host(1), 17, later).is_none(), "begins anew, in the porch");
        assert_eq!(sources.note(host(1), 18, later).map(|seat| seat.len()), Some(2));
    }
}
