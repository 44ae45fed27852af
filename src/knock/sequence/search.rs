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

/// A knock and its place among all.
type Placed = (usize, Symbol);

/// The first of the messages in these knocks, oldest knock first, of which `open` makes something. `voices` is how many
/// voices there are; `fresh` how many of the knocks are new since the last search, which found nothing in what none of
/// them belongs to.
pub(super) fn find<T>(
    knocks: &[Symbol],
    voices: u8,
    fresh: usize,
    mut open: impl FnMut(Part, Vec<u8>) -> Option<T>,
) -> Option<T> {
    let of_voice =
        |voice| knocks.iter().copied().enumerate().filter(move |(_, symbol)| symbol.voice == voice);
    let by_voice: Vec<Vec<Placed>> = (0..voices).map(|voice| of_voice(voice).collect()).collect();
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.voices <= voices);
    let parts = kinds.flat_map(|kind| (0..voices).map(move |voice| Part { kind, voice, voices }));
    let is_fresh = |part: &Part| knocks.iter().rev().take(fresh).any(|knock| part.point(*knock).is_some());
    parts.filter(is_fresh).find_map(|part| {
        let Kind { k, n, .. } = part.kind;
        let all = part.points(&by_voice);
        // Too few knocks of a part are the usual case.
        if all.len() < k {
            return None;
        }
        let points: Vec<Point> = all.iter().map(|(_, point)| *point).collect();
        let last = |count| newest(&all, knocks.len().saturating_sub(count));
        // One after the other: the first is the one that a client's own knocks are found by.
        code::decode(&rising(&points), k)
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
    voice: u8,
    voices: u8,
}

impl Part {
    /// The knocks that belong to it, in the order in which they came.
    fn points(self, by_voice: &[Vec<Placed>]) -> Vec<(usize, Point)> {
        let own = (0..self.kind.voices)
            .filter_map(|next| by_voice.get(usize::from((self.voice + next).checked_rem(self.voices)?)));
        let mut points: Vec<(usize, Point)> =
            own.flatten().filter_map(|(place, symbol)| Some((*place, self.point(*symbol)?))).collect();
        points.sort_unstable_by_key(|(place, _)| *place);
        points
    }

    /// The lane and the byte of a knock that belongs to it.
    fn point(self, symbol: Symbol) -> Option<Point> {
        let lanes = self.kind.lanes();
        let voice = (symbol.voice + self.voices).checked_sub(self.voice)? % self.voices;
        let is_part = symbol.voice < self.voices && voice < self.kind.voices && symbol.lane < lanes;
        is_part.then_some((voice * lanes + symbol.lane, symbol.byte))
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

/// The longest run whose lanes rise: patience sorting, each card on the leftmost pile whose top is not below it.
///
/// Of junk at random one knock in 128 is in a given lane of a voice, so that 256 knocks hold some 56 of a voice, and the
/// longest rising run among n random ones is about 2 * sqrt(n): hardly ever 18. A message's own knocks are such a run by
/// themselves, however much junk lies between them, and junk can only slip in between two neighbours.
fn rising(points: &[Point]) -> Vec<Point> {
    // The top of each pile, and for each point the top of the pile to the left when it came.
    let mut piles: Vec<(u8, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(points.len());
    for (place, (lane, _)) in points.iter().enumerate() {
        let pile = piles.partition_point(|(top, _)| top < lane);
        before.push(pile.checked_sub(1).and_then(|left| piles.get(left)).map(|(_, top)| *top));
        match piles.get_mut(pile) {
            Some(top) => *top = (*lane, place),
            None => piles.push((*lane, place)),
        }
    }
    let last = piles.last().map(|(_, place)| *place);
    std::iter::successors(last, |place| before.get(*place).copied().flatten())
        .filter_map(|place| points.get(place).copied())
        .collect()
}

/// The newest byte of each lane, from the place `since` on: what a network or a tool has shuffled is read so. The longest window has room for
/// junk; the shorter ones leave out what an earlier sequence that failed has left behind, which is as junk in
/// just the lanes that were lost.
fn newest(points: &[(usize, Point)], since: usize) -> Vec<Point> {
    let mut lanes = 0u64;
    let mut is_new = |lane: u8| {
        let bit = 1u64 << (lane % 64);
        let new = lanes & bit == 0;
        lanes |= bit;
        new
    };
    let window = points.iter().rev().take_while(|(place, _)| *place >= since);
    window.filter(|(_, (lane, _))| is_new(*lane)).map(|(_, point)| *point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rising_run_is_found() {
        let points = [(3, 1), (0, 2), (1, 3), (7, 4), (2, 5), (2, 6), (9, 7), (5, 8)];
        let mut run = rising(&points);
        run.reverse();
        assert_eq!(run.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(rising(&[]), []);
    }

    #[test]
    fn the_newest_byte_of_a_lane_counts() {
        let points = [(0, (3, 1)), (4, (0, 2)), (5, (3, 9)), (8, (7, 7))];
        assert_eq!(newest(&points, 0), [(7, 7), (3, 9), (0, 2)]);
        assert_eq!(newest(&points, 5), [(7, 7), (3, 9)]);
    }
}
