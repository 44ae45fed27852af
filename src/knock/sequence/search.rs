//! Finding a message among the knocks of one source.
//!
//! They are read in two ways, for each voice and kind of message; each leaves at most one byte for a lane, and the code
//! puts right what it can.
//!
//! - *In order*: the longest run of knocks whose lanes rise, the order in which clients send them ([`rising`]).
//! - *In any order*: the newest byte of each lane among the last n+28 knocks, n, and k ([`newest`]).

use super::code::{self, Point};
use super::ground::{Inverse, Symbol};
use super::message::Kind;

/// A knock of a part, and its place among all knocks.
type Placed = (usize, Point);

/// The first of the messages in these knocks, oldest knock first, of which `open` makes something. `voices` is how many
/// voices there are; `fresh` how many of the knocks are new since the last search, which found nothing in what none of
/// them belongs to.
pub(super) fn find<T>(
    knocks: &[Symbol],
    voices: u8,
    fresh: usize,
    mut open: impl FnMut(Part, Vec<u8>) -> Option<T>,
) -> Option<T> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.voices <= voices);
    let parts = kinds.flat_map(|kind| (0..voices).map(move |voice| Part::new(kind, voice, voices)));
    let is_fresh = |part: &Part| knocks.iter().rev().take(fresh).any(|knock| part.point(*knock).is_some());
    // Made once for all parts: this is what junk in the span costs.
    let mut all = Vec::with_capacity(knocks.len());
    parts.filter(is_fresh).find_map(|part| {
        let Kind { k, n, .. } = part.kind;
        all.clear();
        all.extend(part.points(knocks));
        if all.len() < k {
            return None;
        }
        let last = |count| newest(&all, knocks.len().saturating_sub(count), k);
        // One after the other: the first is the one that a client's own knocks are found by.
        code::decode(&rising(&all, k), k)
            .and_then(|message| open(part, message))
            .or_else(|| code::decode(&last(n + SPARE), k).and_then(|message| open(part, message)))
            .or_else(|| code::decode(&last(n), k).and_then(|message| open(part, message)))
            .or_else(|| code::decode(&last(k), k).and_then(|message| open(part, message)))
    })
}

/// How much junk among the knocks of a message the reading in any order makes room for.
const SPARE: usize = 28;

/// What to listen to: a kind of message, and the first voice that plays it.
#[derive(Clone, Copy)]
pub(super) struct Part {
    kind: Kind,
    lanes: u8,
    voice: u8,
    voices: u8,
}

impl Part {
    fn new(kind: Kind, voice: u8, voices: u8) -> Self {
        Self { kind, lanes: kind.lanes(), voice, voices }
    }

    /// The knocks that belong to it, in the order in which they came.
    fn points(self, knocks: &[Symbol]) -> impl Iterator<Item = Placed> + '_ {
        let placed = move |(place, symbol): (usize, &Symbol)| Some((place, self.point(*symbol)?));
        knocks.iter().enumerate().filter_map(placed)
    }

    /// The lane and the byte of a knock that belongs to it.
    fn point(self, symbol: Symbol) -> Option<Point> {
        // Voices are counted from the first one of the part, going round.
        let voice = match symbol.voice.checked_sub(self.voice) {
            Some(voice) => voice,
            None => symbol.voice + self.voices - self.voice,
        };
        let is_part = voice < self.kind.voices && symbol.lane < self.lanes && symbol.voice < self.voices;
        is_part.then(|| (voice * self.lanes + symbol.lane, symbol.byte))
    }

    /// Where the knocks of a message go that was found here.
    pub(super) fn places(self, message: &[u8], inverse: &Inverse) -> Vec<u16> {
        let bytes = code::encode(message, self.kind.n);
        let is_part = |symbol| {
            self.point(symbol).is_some_and(|(lane, byte)| bytes.get(usize::from(lane)) == Some(&byte))
        };
        inverse.symbols().filter(|(_, symbol)| is_part(*symbol)).map(|(place, _)| place).collect()
    }
}

/// The longest run whose lanes rise, unless it is shorter than `least`: patience sorting, each card on the leftmost pile
/// whose top is not below it.
///
/// Of junk at random one knock in 128 is in a given lane of a voice, so that 256 knocks hold some 56 of a voice, and the
/// longest rising run among n random ones is about 2 * sqrt(n): hardly ever 18. A message's own knocks are such a run by
/// themselves, however much junk lies between them, and junk can only slip in between two neighbours.
fn rising(points: &[Placed], least: usize) -> Vec<Point> {
    // Of junk, nothing more is ever looked at than this.
    if run_length(points) < least {
        return Vec::new();
    }
    // The top of each pile, and for each point the top of the pile to the left when it came.
    let mut piles: Vec<(u8, usize)> = Vec::with_capacity(points.len());
    let mut before: Vec<Option<usize>> = Vec::with_capacity(points.len());
    for (place, (_, (lane, _))) in points.iter().enumerate() {
        let pile = piles.partition_point(|(top, _)| top < lane);
        before.push(pile.checked_sub(1).and_then(|left| piles.get(left)).map(|(_, top)| *top));
        match piles.get_mut(pile) {
            Some(top) => *top = (*lane, place),
            None => piles.push((*lane, place)),
        }
    }
    let last = piles.last().map(|(_, place)| *place);
    std::iter::successors(last, |place| before.get(*place).copied().flatten())
        .filter_map(|place| points.get(place).map(|(_, point)| *point))
        .collect()
}

/// How long that run is: as long as there are piles.
fn run_length(points: &[Placed]) -> usize {
    let mut tops: Vec<u8> = Vec::with_capacity(points.len());
    for (_, (lane, _)) in points {
        let pile = tops.partition_point(|top| top < lane);
        match tops.get_mut(pile) {
            Some(top) => *top = *lane,
            None => tops.push(*lane),
        }
    }
    tops.len()
}

/// The newest byte of each lane, from the place `since` on, unless those are fewer than `least` knocks: what a network or
/// a tool has shuffled is read so. The longest window has room for junk; the shorter ones leave out what an earlier
/// sequence that failed has left behind, which is as junk in just the lanes that were lost.
fn newest(points: &[Placed], since: usize, least: usize) -> Vec<Point> {
    let first = points.partition_point(|(place, _)| *place < since);
    let window = points.get(first..).filter(|window| window.len() >= least).unwrap_or_default();
    let mut lanes = 0u64;
    let mut is_new = |lane: u8| {
        let bit = 1u64 << (lane % 64);
        let new = lanes & bit == 0;
        lanes |= bit;
        new
    };
    window.iter().rev().filter(|(_, (lane, _))| is_new(*lane)).map(|(_, point)| *point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rising_run_is_found() {
        let points = [(3, 1), (0, 2), (1, 3), (7, 4), (2, 5), (2, 6), (9, 7), (5, 8)];
        let points: Vec<Placed> = points.into_iter().enumerate().collect();
        let mut run = rising(&points, 4);
        run.reverse();
        assert_eq!(run.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(rising(&points, 5), [], "shorter than what is asked for");
        assert_eq!(rising(&[], 0), []);
    }

    #[test]
    fn the_newest_byte_of_a_lane_counts() {
        let points = [(0, (3, 1)), (4, (0, 2)), (5, (3, 9)), (8, (7, 7))];
        assert_eq!(newest(&points, 0, 3), [(7, 7), (3, 9), (0, 2)]);
        assert_eq!(newest(&points, 5, 2), [(7, 7), (3, 9)]);
        assert_eq!(newest(&points, 5, 3), [], "fewer than what is asked for");
    }
}
