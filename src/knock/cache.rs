//! A table of fixed size in which the oldest entry makes room for the newest.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::hash::Seeded;

/// Entries by key, in the order in which they came.
pub(super) struct Cache<K, V> {
    max: usize,
    order: VecDeque<K>,
    known: HashMap<K, V, Seeded>,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(max: usize, hash: Seeded) -> Self {
        Self { max, order: VecDeque::new(), known: HashMap::with_hasher(hash) }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key)
    }

    /// A key that is there already keeps its place and gets the new value.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.known.insert(key, value).is_some() {
            return;
        }
        if self.order.len() == self.max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        self.order.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_what_comes_again_takes_no_second_place() {
        let mut cache = Cache::new(2, Seeded::new([1; 16]));
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        cache.insert(1, 'c');
        cache.insert(3, 'd');
        assert_eq!([1, 2, 3].map(|key| cache.get(&key).copied()), [None, Some('b'), Some('d')]);
        assert_eq!((cache.order.len(), cache.known.len()), (2, 2));
    }
}
