//! Who knocked at which ports, and whether that holds a sequence: the memory that `plain` and `totp` share.
//!
//! The last [`MAX_HITS`] hits of a source are kept in their order. Whether a sequence is among them is found when its
//! last port is hit, by dynamic programming: for every position the latest start from which it was reached in time,
//! and when. A later start with a later end is better in every way, so that one pair for each position is all there
//! is to know. A wrong, repeated, early or forged hit is one more hit, and takes nothing back.
//!
//! The first hit of a source leaves a note in the porch; the second one gets it a seat in the hall. Both come in rows
//! of [`ROW`]: a seeded hash says which row is a source's, and who needs a place takes the oldest note of the row, or
//! the seat with the fewest hits. So a flood of sources that knock once never reaches the hall, and one of sources that
//! knock twice takes seats from each other before it takes that of somebody half-way through.

use std::net::IpAddr;
use std::time::Duration;

use super::hash::Seeded;

/// How many hits of a source are remembered. It is also what keeps a scan from being a knock: whoever has to hit more
/// ports than this to pass all of a sequence in its order does not get through by trying them all.
pub(super) const MAX_HITS: usize = 128;
/// How many sources can have knocked twice or more.
pub(super) const MAX_SOURCES: usize = ROW * 128;
/// How many sources can have knocked once.
pub(super) const MAX_NOTES: usize = ROW * 4096;
/// The most ports of a sequence.
pub(super) const MAX_STEPS: usize = 16;
/// The longest that a sequence may take. A seat on which nobody knocked for so long is free.
pub(super) const MAX_TOTAL: Duration = Duration::from_secs(60);

/// Milliseconds for which hits on one door in a row are one or two. Time limits are exact to as much.
const RUN: u64 = 250;

/// Places in one row.
const ROW: usize = 8;

/// What was hit: a port, with its protocol where that counts. Below [`SETTLED`].
pub(super) type Door = u32;

/// Set in a hit that is none: it says that a sequence was completed here, by its number.
const SETTLED: u32 = 1 << 31;

/// A sequence of doors, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps<'a> {
    /// Its number, by which it is settled; below [`SETTLED`].
    pub(super) number: u32,
    /// Which doors, in which order.
    pub(super) doors: &'a [Door],
    /// The longest pause between two hits.
    pub(super) gap: Duration,
    /// The longest time from the first to the last.
    pub(super) total: Duration,
}

/// The memory: 0.8 MiB of notes and 1.5 MiB of seats, made once.
pub(super) struct Sources {
    porch: Box<[Note]>,
    hall: Box<[Seat]>,
    hash: Seeded,
}

/// The only hit of a source so far. Source 0 is nobody.
#[derive(Clone, Copy, Default)]
struct Note {
    source: u64,
    hit: Hit,
}

/// A door, and when it was hit in milliseconds of uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hit {
    door: Door,
    at: u64,
}

/// The last hits of a source, in a ring.
#[derive(Clone)]
pub(super) struct Seat {
    source: u64,
    /// Apart from their times, so that one of them is found fast.
    doors: [Door; MAX_HITS],
    times: [u64; MAX_HITS],
    len: usize,
    /// Where the next one goes.
    next: usize,
}

impl Sources {
    pub(super) fn new(hash: Seeded) -> Self {
        Self {
            porch: vec![Note::default(); MAX_NOTES].into_boxed_slice(),
            hall: vec![Seat::of(0); MAX_SOURCES].into_boxed_slice(),
            hash,
        }
    }

    /// Takes note of a hit. `None` when it is the first of its source, so that nothing can be complete.
    pub(super) fn note(&mut self, source: IpAddr, door: Door, uptime: Duration) -> Option<&mut Seat> {
        let source = self.hash.address(source).max(1);
        let hit = Hit { door, at: millis(uptime) };
        let row = row(&mut self.hall, source);
        let seated = row.iter().position(|seat| seat.source == source && !seat.is_free(hit.at));
        let seat = match seated {
            Some(place) => row.get_mut(place)?,
            None => {
                let first = earlier(row_of_notes(&mut self.porch, source), source, hit)?;
                let seat = row.iter_mut().min_by_key(|seat| seat.worth(hit.at))?;
                *seat = Seat::of(source);
                seat.push(first);
                seat
            }
        };
        seat.push(hit);
        Some(seat)
    }
}

fn row(hall: &mut [Seat], source: u64) -> &mut [Seat] {
    let first = place(source, MAX_SOURCES);
    hall.get_mut(first..first + ROW).unwrap_or_default()
}

fn row_of_notes(porch: &mut [Note], source: u64) -> &mut [Note] {
    let first = place(source >> 32, MAX_NOTES);
    porch.get_mut(first..first + ROW).unwrap_or_default()
}

/// Where the row of a source begins in a table of so many places.
fn place(hash: u64, places: usize) -> usize {
    usize::try_from(hash % (places / ROW) as u64).unwrap_or_default() * ROW
}

/// The note of this source, taken out; or `None`, and the hit is noted in place of the oldest.
fn earlier(row: &mut [Note], source: u64, hit: Hit) -> Option<Hit> {
    let is_recent = |note: &Note| hit.at.saturating_sub(note.hit.at) <= millis(MAX_TOTAL);
    if let Some(note) = row.iter_mut().find(|note| note.source == source && is_recent(note)) {
        return Some(std::mem::take(note).hit);
    }
    if let Some(oldest) = row.iter_mut().min_by_key(|note| (note.source != 0, note.hit.at)) {
        *oldest = Note { source, hit };
    }
    None
}

impl Seat {
    fn of(source: u64) -> Self {
        Self { source, doors: [0; MAX_HITS], times: [0; MAX_HITS], len: 0, next: 0 }
    }

    /// Of a run on one door within [`RUN`] the first and the last are kept, so that a stream of packets to one port does
    /// not wash the others out.
    fn push(&mut self, hit: Hit) {
        let before = |count: usize| {
            let place = (self.next + MAX_HITS - count) % MAX_HITS;
            self.doors.get(place).copied().zip(self.times.get(place).copied())
        };
        let is_run = |(door, at): (Door, u64)| door == hit.door && hit.at.saturating_sub(at) <= RUN;
        if self.len >= 2 && before(1).is_some_and(is_run) && before(2).is_some_and(is_run) {
            self.next = (self.next + MAX_HITS - 1) % MAX_HITS;
            self.len -= 1;
        }
        if let (Some(door), Some(time)) = (self.doors.get_mut(self.next), self.times.get_mut(self.next)) {
            (*door, *time) = (hit.door, hit.at);
        }
        self.next = (self.next + 1) % MAX_HITS;
        self.len = (self.len + 1).min(MAX_HITS);
    }

    /// All hits, the oldest first.
    fn hits(&self) -> impl Iterator<Item = Hit> + '_ {
        let all = self.doors.iter().zip(&self.times).cycle().skip(self.next).take(MAX_HITS);
        all.skip(MAX_HITS - self.len).map(|(door, at)| Hit { door: *door, at: *at })
    }

    fn seen(&self) -> u64 {
        let last = (self.next + MAX_HITS - 1) % MAX_HITS;
        self.times.get(last).copied().unwrap_or(0)
    }

    fn is_free(&self, now: u64) -> bool {
        self.source == 0 || now.saturating_sub(self.seen()) > millis(MAX_TOTAL)
    }

    /// What a seat is worth to its source; the least is taken by another.
    fn worth(&self, now: u64) -> (bool, usize, u64) {
        (!self.is_free(now), self.len, self.seen())
    }

    /// Whether the last hit completes this sequence.
    pub(super) fn completes(&self, steps: &Steps<'_>) -> bool {
        // The dear look is for those who have been at the door before the last.
        let [.., before, _] = steps.doors else { return false };
        if !self.doors.contains(before) {
            return false;
        }
        let (gap, total, count) = (millis(steps.gap), millis(steps.total), steps.doors.len());
        let mut reached: [Option<Reached>; MAX_STEPS] = [None; MAX_STEPS];
        let mut done = false;
        for hit in self.hits() {
            done = false;
            if hit.door == SETTLED | steps.number {
                reached = [None; MAX_STEPS];
                continue;
            }
            // From the end, so that one hit is not taken for two positions in a row.
            for position in (0..count.min(MAX_STEPS)).rev() {
                if steps.doors.get(position) != Some(&hit.door) {
                    continue;
                }
                let start = match position.checked_sub(1) {
                    None => Some(hit.at),
                    Some(before) => reached.get(before).copied().flatten().and_then(|reached| {
                        let in_time = hit.at.saturating_sub(reached.last) <= gap
                            && hit.at.saturating_sub(reached.start) <= total;
                        in_time.then_some(reached.start)
                    }),
                };
                if let (Some(start), Some(slot)) = (start, reached.get_mut(position)) {
                    *slot = Some(Reached { start, last: hit.at });
                    done |= position + 1 == count;
                }
            }
        }
        done
    }

    /// Takes note that this sequence was completed: no hit before now counts for it again.
    pub(super) fn settle(&mut self, number: u32) {
        self.push(Hit { door: SETTLED | number, at: self.seen() });
    }
}

/// How a position was reached: when its sequence began, and when it was hit.
#[derive(Clone, Copy)]
struct Reached {
    start: u64,
    last: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
