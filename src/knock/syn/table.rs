//! All codes of one step, found by their own value: they are random, and so their first bits are the hash.

use std::collections::HashSet;

use crate::knock::hash::Seeded;

/// What a code costs in memory: itself, whose it is, and its share of the index. Measured by a test.
pub const BYTES_PER_CODE: usize = 20;

/// The codes of one step. Built once, then only read, but for the note of which codes were used.
pub struct Table {
    step: u64,
    /// Ascending.
    codes: Vec<u64>,
    /// Whose each code is.
    whose: Vec<u32>,
    /// For every value of the first bits, where the codes begin that start with it; one more at the end. About one code
    /// for each value, so that a look-up is two reads of memory, whatever is looked up.
    starts: Vec<u32>,
    /// How many of the first bits count.
    bits: u32,
    used: HashSet<u64, Seeded>,
}

impl Table {
    /// `codes`: each with whose it is. A code that two share, by a chance of one in 2^64 for each pair, is left out: it
    /// would let one client in for the other.
    pub(super) fn new(step: u64, mut codes: Vec<(u64, u32)>) -> Self {
        codes.sort_unstable();
        let shared = |place: usize| {
            let code = |place: usize| codes.get(place).map(|(code, _)| *code);
            code(place) == code(place + 1) || (place > 0 && code(place) == code(place - 1))
        };
        let alone: Vec<(u64, u32)> =
            codes.iter().enumerate().filter(|(place, _)| !shared(*place)).map(|(_, entry)| *entry).collect();
        let (codes, whose): (Vec<u64>, Vec<u32>) = alone.into_iter().unzip();
        let bits = codes.len().next_power_of_two().trailing_zeros().max(1);
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        let mut place = 0;
        for (index, code) in codes.iter().enumerate() {
            let (prefix, index) = (prefix(*code, bits), u32::try_from(index).unwrap_or(u32::MAX));
            while place <= prefix {
                starts.push(index);
                place += 1;
            }
        }
        starts.resize((1 << bits) + 1, u32::try_from(codes.len()).unwrap_or(u32::MAX));
        Self { step, codes, whose, starts, bits, used: HashSet::with_hasher(Seeded::new([0; 16])) }
    }

    /// The same, with a hash that strangers do not know for the note of used codes.
    pub(super) fn with_hash(self, hash: Seeded) -> Self {
        Self { used: HashSet::with_hasher(hash), ..self }
    }

    /// The step whose codes these are.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Looks a code up and notes that it was used: `None` for an unknown one, `Some(None)` for one that was taken
    /// before, else whose it is.
    pub(super) fn take(&mut self, code: u64) -> Option<Option<u32>> {
        let prefix = prefix(code, self.bits);
        let first = usize::try_from(*self.starts.get(prefix)?).ok()?;
        let last = usize::try_from(*self.starts.get(prefix + 1)?).ok()?;
        let place = first + self.codes.get(first..last)?.binary_search(&code).ok()?;
        let whose = *self.whose.get(place)?;
        Some(self.used.insert(code).then_some(whose))
    }

    /// The bytes that the table takes without the note of used codes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        8 * self.codes.capacity() + 4 * (self.whose.capacity() + self.starts.capacity())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }
}

fn prefix(code: u64, bits: u32) -> usize {
    usize::try_from(code >> (64 - bits)).unwrap_or(usize::MAX)
}
