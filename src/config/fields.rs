//! A table's keys → typed values. Whatever is wrong goes to the [`Report`], and reading goes on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::document::{Node, Value};
use super::error::Report;
use super::limits::{self, Bounds};
use crate::text::Span;

/// A value and its line, for checks that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) line: u32,
    pub(crate) value: T,
}

/// A table being read. An absent one reads like an empty one.
#[derive(Clone)]
pub(crate) struct Table<'a> {
    entries: &'a [(String, Node)],
    path: String,
    line: u32,
    report: &'a Report,
}

impl<'a> Table<'a> {
    /// The whole document, whose keys must be among `accepted`.
    pub(crate) fn root(node: &'a Node, accepted: &[&str], report: &'a Report) -> Self {
        let table = Self::free_root(node, report);
        table.refuse_unknown(accepted);
        table
    }

    /// The whole document, whatever its keys.
    pub(crate) fn free_root(node: &'a Node, report: &'a Report) -> Self {
        let entries = match &node.value {
            Value::Table(entries) => entries.as_slice(),
            _ => &[],
        };
        Self { entries, path: String::new(), line: node.line, report }
    }

    /// The table `key`, whose keys must be among `accepted`.
    pub(crate) fn table(&self, key: &str, accepted: &[&str]) -> Self {
        let table = self.free_table(key);
        table.refuse_unknown(accepted);
        table
    }

    /// The table `key` with names of the writer's own choice.
    pub(crate) fn free_table(&self, key: &str) -> Self {
        let node = self.node(key);
        let entries = match node.map(|node| &node.value) {
            Some(Value::Table(entries)) => entries.as_slice(),
            Some(other) => {
                let path = self.path_of(key);
                self.error(key, format!("is {}; write it as a table: [{path}]", other.kind()));
                &[]
            }
            None => &[],
        };
        Self {
            entries,
            path: self.path_of(key),
            line: node.map_or(self.line, |node| node.line),
            report: self.report,
        }
    }

    /// The tables of the array of tables `key`, whose keys must be among `accepted`; at most `most` of them.
    pub(crate) fn tables(&self, key: &str, accepted: &[&str], most: usize) -> Vec<Self> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let items = match &node.value {
            Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Table(_))) => items,
            other => {
                self.error(
                    key,
                    format!("is {}; write each one as a table: [[{}]]", other.kind(), self.path_of(key)),
                );
                return Vec::new();
            }
        };
        if items.len() > most {
            self.error(key, format!("{} tables; use at most {most}", items.len()));
            return Vec::new();
        }
        let table = |(index, item): (usize, &'a Node)| {
            let Value::Table(entries) = &item.value else { return None };
            let path = format!("{}[{index}]", self.path_of(key));
            let line = entries.iter().map(|(_, node)| node.line).min().unwrap_or(item.line);
            let table = Self { entries, path, line, report: self.report };
            table.refuse_unknown(accepted);
            Some(table)
        };
        items.iter().enumerate().filter_map(table).collect()
    }

    /// One text, or a list of texts; none of them empty.
    pub(crate) fn texts(&self, key: &str, hint: &str) -> Vec<String> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let items = match &node.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        let hint = format!("use {hint}");
        let text = |item: &&'a Node| self.text(key, item, &hint).map(str::to_owned);
        let texts: Vec<String> = items.iter().filter_map(text).collect();
        if texts.iter().any(String::is_empty) {
            self.error(key, format!("is empty; {hint}"));
        }
        texts
    }

    /// The names in this table with their lines.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&'a str, u32)> + use<'a> {
        self.entries.iter().map(|(key, node)| (key.as_str(), node.line))
    }

    /// Whether the key is there, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// A text that `T` reads. `hint` says what to write in place of something that is no text.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, key: &str, hint: &str) -> Option<Found<T>> {
        let node = self.node(key)?;
        let value = self.read(key, node, hint)?;
        Some(Found { line: node.line, value })
    }

    /// A text that `read` understands; what it returns instead is the complaint.
    pub(crate) fn read_with<T>(
        &self,
        key: &str,
        hint: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let node = self.node(key)?;
        let text = self.text(key, node, hint)?;
        match read(text) {
            Ok(value) => Some(Found { line: node.line, value }),
            Err(what) => {
                self.error(key, what);
                None
            }
        }
    }

    /// A list of texts that `T` reads; an absent one is empty.
    pub(crate) fn list<T: FromStr<Err: Display>>(&self, key: &str, hint: &str) -> Vec<Found<T>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.error(key, format!("is {}; use a list: [{hint}]", node.value.kind()));
            return Vec::new();
        };
        if items.len() > limits::ENTRIES {
            self.error(key, format!("{} entries; use at most {}", items.len(), limits::ENTRIES));
            return Vec::new();
        }
        let hint = format!("use {hint}");
        let found = |item: &'a Node| Some(Found { line: item.line, value: self.read(key, item, &hint)? });
        items.iter().filter_map(found).collect()
    }

    /// Whether the key is there with a list of nothing.
    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.node(key), Some(Node { value: Value::List(items), .. }) if items.is_empty())
    }

    /// Whether the key is there with a table.
    pub(crate) fn is_table(&self, key: &str) -> bool {
        matches!(self.node(key), Some(Node { value: Value::Table(_), .. }))
    }

    /// A duration within bounds.
    pub(crate) fn span(&self, key: &str, bounds: Bounds<Span>) -> Option<Found<Span>> {
        let found =
            self.parsed::<Span>(key, &format!("use \"{}\" to \"{}\"", bounds.least, bounds.greatest))?;
        self.bounded(key, found, bounds)
    }

    /// Whether the key is there with a number.
    pub(crate) fn is_number(&self, key: &str) -> bool {
        matches!(self.node(key), Some(Node { value: Value::Number(_), .. }))
    }

    /// A number within bounds.
    pub(crate) fn number(&self, key: &str, bounds: Bounds<u32>) -> Option<Found<u32>> {
        let node = self.node(key)?;
        let Value::Number(number) = &node.value else {
            self.error(key, format!("is {}; use a number from {bounds}", node.value.kind()));
            return None;
        };
        let bounds = Bounds { least: i64::from(bounds.least), greatest: i64::from(bounds.greatest) };
        let found = self.bounded(key, Found { line: node.line, value: *number }, bounds)?;
        Some(Found { line: node.line, value: u32::try_from(found.value).ok()? })
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &str) -> Option<Found<bool>> {
        let node = self.node(key)?;
        let Value::Boolean(value) = node.value else {
            self.error(key, format!("is {}; use true or false, without quotes", node.value.kind()));
            return None;
        };
        Some(Found { line: node.line, value })
    }

    /// One of the words in the table `choices`.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<Found<T>> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let hint = format!("use {}", words.join(" or "));
        self.read_with(key, &hint, |text| {
            let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            chosen.ok_or_else(|| format!("`{}`; {hint}", text.escape_debug()))
        })
    }

    /// Reports something about a key, at its line or, where it is absent, at the line of this table.
    pub(crate) fn error(&self, key: &str, what: impl Into<String>) {
        self.report.error(self.line(key), &self.path_of(key), what);
    }

    /// Reports something about a key at a line of its own: that of a list's entry.
    pub(crate) fn error_at(&self, line: u32, key: &str, what: impl Into<String>) {
        self.report.error(line, &self.path_of(key), what);
    }

    /// Warns about a key.
    pub(crate) fn warn(&self, key: &str, what: impl Into<String>) {
        self.report.warn(self.line(key), &self.path_of(key), what);
    }

    /// Reports that a key must be there.
    pub(crate) fn missing(&self, key: &str, what: &str) {
        self.report.error(None, &self.path_of(key), format!("is missing; {what}"));
    }

    /// The line of the key, or the table's own.
    pub(crate) fn line(&self, key: &str) -> u32 {
        self.node(key).map_or(self.line, |node| node.line)
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", _) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, _) => format!("{path}.{key}"),
        }
    }

    fn text(&self, key: &str, node: &'a Node, hint: &str) -> Option<&'a str> {
        let Value::Text(text) = &node.value else {
            self.error_at(node.line, key, format!("is {}; {hint}", node.value.kind()));
            return None;
        };
        Some(text)
    }

    fn read<T: FromStr<Err: Display>>(&self, key: &str, node: &'a Node, hint: &str) -> Option<T> {
        let value = self.text(key, node, hint)?.parse();
        value.map_err(|error: T::Err| self.error_at(node.line, key, error.to_string())).ok()
    }

    fn bounded<T: PartialOrd + Display>(
        &self,
        key: &str,
        found: Found<T>,
        bounds: Bounds<T>,
    ) -> Option<Found<T>> {
        if bounds.contains(&found.value) {
            return Some(found);
        }
        self.error(key, format!("{}; use {bounds}", found.value));
        None
    }

    fn refuse_unknown(&self, accepted: &[&str]) {
        for (key, line) in self.names().filter(|(key, _)| !accepted.contains(key)) {
            let near =
                nearest(key, accepted).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
            self.error_at(line, key, format!("unknown key; {near}use {}", accepted.join(", ")));
        }
    }
}

/// What to write for a key of 32 bytes. Never with the text in it, which may be nearly right, and secret.
pub(crate) fn key_hint(text: &str) -> String {
    let length = text.chars().count();
    format!("{length} characters that are no key; use 32 bytes in base64: 44 characters, the last of them =")
}

/// The accepted word that a slip of the fingers would have made into this one.
pub(crate) fn nearest<'a>(word: &str, accepted: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let distances = accepted.iter().map(|other| (distance(&word, other), *other));
    distances.filter(|(steps, other)| *steps <= 2.min(other.len() / 3)).min().map(|(_, other)| other)
}

/// How many insertions, deletions and replacements lead from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    // Nobody means `duration` by a thousand characters.
    if from.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.bytes()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Names that must differ, and where each was first seen.
#[derive(Debug)]
pub(crate) struct Seen<K, V>(BTreeMap<K, V>);

impl<K: Ord, V: Clone> Seen<K, V> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Remembers `key`; when it was there before, says where.
    pub(crate) fn again(&mut self, key: K, place: V) -> Option<V> {
        match self.0.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => Some(entry.get().clone()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(place);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_its_key_and_another_word_finds_none() {
        let keys = ["open", "duration", "max_duration", "psk"];
        assert_eq!(nearest("durration", &keys), Some("duration"));
        assert_eq!(nearest("max-duration", &keys), Some("max_duration"));
        assert_eq!(nearest("Opne", &keys), None);
        assert_eq!(nearest("opens", &keys), Some("open"));
        assert_eq!(nearest("timeout", &keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), &keys), None);
    }

    #[test]
    fn the_distance_counts_single_letters() {
        assert_eq!([distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")], [3, 3, 0]);
    }
}
