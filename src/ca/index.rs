//! What an authority has issued and revoked: lines that are only ever appended, each on disk before it counts.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CaError, Reason};
use crate::files::{self, FileError, Rules};
use crate::time::Timestamp;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    /// The first one.
    Authority { name: String },
    /// A certificate was issued; times are unix seconds.
    Issued { serial: String, name: String, allows: Vec<String>, issued: u64, until: u64 },
    /// A certificate was revoked.
    Revoked { serial: String, at: u64, reason: Reason },
    /// A list with this number was made.
    List { number: u64, at: u64 },
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The serial number, hexadecimal.
    pub serial: String,
    /// Whose it is.
    pub name: String,
    /// What it lets its owner open, as it stands in the certificate; empty for what the server's tables say.
    pub allows: Vec<String>,
    /// When it was issued, unix seconds.
    pub issued: u64,
    /// Until when it is valid.
    pub until: u64,
    /// When and why it was revoked.
    pub revoked: Option<(u64, Reason)>,
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is good.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Entry {
    /// How it stands at this time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match self.revoked {
            Some(_) => State::Revoked,
            None if self.until < now.as_secs() => State::Expired,
            None => State::Valid,
        }
    }
}

/// The index of one authority.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    authority: String,
    entries: Vec<Entry>,
    /// The number of the newest list.
    list: u64,
    /// When the newest list was made.
    listed: u64,
}

impl Index {
    pub(super) fn create(path: &Path, authority: &str) -> Result<Self, FileError> {
        let index = Self {
            path: path.to_owned(),
            authority: authority.to_owned(),
            entries: Vec::new(),
            list: 0,
            listed: 0,
        };
        index.append(&[Line::Authority { name: authority.to_owned() }])?;
        Ok(index)
    }

    pub(super) fn open(path: &Path, rules: &Rules) -> Result<Self, CaError> {
        Self::parse(path, &files::read_text(path, rules).map_err(CaError::File)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CaError> {
        let mut index =
            Self { path: path.to_owned(), authority: String::new(), entries: Vec::new(), list: 0, listed: 0 };
        // A last line that was cut off by a power loss was never acted upon.
        let cut_off = if text.ends_with('\n') { 0 } else { text.lines().count() };
        for (number, line) in (1..).zip(text.lines()) {
            if number > 1 && number == cut_off {
                break;
            }
            let line = serde_json::from_str(line).map_err(|_| CaError::Index(path.to_owned(), number))?;
            if matches!(line, Line::Authority { .. }) != (number == 1) {
                return Err(CaError::Index(path.to_owned(), number));
            }
            index.take(line);
        }
        if index.authority.is_empty() {
            return Err(CaError::Index(path.to_owned(), 1));
        }
        Ok(index)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Authority { name } => self.authority = name,
            Line::Issued { serial, name, allows, issued, until } => {
                self.entries.push(Entry { serial, name, allows, issued, until, revoked: None });
            }
            Line::Revoked { serial, at, reason } => {
                let mut known = false;
                for entry in self.entries.iter_mut().filter(|entry| entry.serial == serial) {
                    entry.revoked.get_or_insert((at, reason));
                    known = true;
                }
                // Whoever lost the line of its issue still has it revoked, for good.
                if !known {
                    let revoked = Some((at, reason));
                    let (name, allows) = (String::new(), Vec::new());
                    self.entries.push(Entry { serial, name, allows, issued: at, until: u64::MAX, revoked });
                }
            }
            Line::List { number, at } => {
                self.list = number.max(self.list);
                self.listed = at.max(self.listed);
            }
        }
    }

    /// The authority's name.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), FileError> {
        let Entry { serial, name, allows, issued, until, .. } = entry.clone();
        self.commit(vec![Line::Issued { serial, name, allows, issued, until }])
    }

    /// Revokes by serial number, or by name whatever is still good; what was revoked by this.
    pub(super) fn revoke(
        &mut self,
        which: &str,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Vec<Entry>, FileError> {
        let serial = which.replace(':', "").to_lowercase();
        let good: BTreeMap<String, Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.serial == serial || entry.name == which)
            .filter(|entry| entry.state(now) == State::Valid)
            .map(|entry| (entry.serial.clone(), entry.clone()))
            .collect();
        let at = now.as_secs();
        self.commit(
            good.keys().map(|serial| Line::Revoked { serial: serial.clone(), at, reason }).collect(),
        )?;
        Ok(good.into_values().collect())
    }

    /// What was revoked of this serial number or name.
    pub(super) fn revoked(&self, which: &str) -> Vec<&Entry> {
        let serial = which.replace(':', "").to_lowercase();
        let named = self.entries.iter().filter(|entry| entry.serial == serial || entry.name == which);
        named.filter(|entry| entry.revoked.is_some()).collect()
    }

    /// When the newest list was made, unix seconds; 0 before the first.
    pub(super) fn listed(&self) -> u64 {
        self.listed
    }

    /// The number of the next list, written down.
    pub(super) fn next_list(&mut self, now: Timestamp) -> Result<u64, FileError> {
        let number = self.list.saturating_add(1);
        self.commit(vec![Line::List { number, at: now.as_secs() }])?;
        Ok(number)
    }

    fn commit(&mut self, lines: Vec<Line>) -> Result<(), FileError> {
        self.append(&lines)?;
        lines.into_iter().for_each(|line| self.take(line));
        Ok(())
    }

    /// Appends and flushes. What a power loss cut off before is cut off for good, so that no line is joined to it.
    fn append(&self, lines: &[Line]) -> Result<(), FileError> {
        let fault = |error: std::io::Error| FileError { path: self.path.clone(), fault: error.into() };
        let mut text = String::new();
        for line in lines {
            text += &serde_json::to_string(line).map_err(|error| fault(error.into()))?;
            text.push('\n');
        }
        let mut file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map_err(fault)?;
        whole_lines(&self.path, &file).map_err(fault)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        files::sync_dir(dir).map_err(fault)
    }
}

/// For the fuzzer: what is read is never more than the lines say, and reads the same without a line that was cut off.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(text: &str) {
    let Ok(index) = Index::parse(Path::new("index"), text) else { return };
    assert!(index.entries.len() < text.lines().count());
    let whole = text.rfind('\n').map_or(text, |end| text.get(..=end).unwrap_or_default());
    let again = Index::parse(Path::new("index"), whole);
    assert!(again.is_ok_and(|again| again.entries == index.entries && again.list == index.list));
}

fn whole_lines(path: &Path, file: &File) -> std::io::Result<()> {
    let bytes = std::fs::read(path)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    if end < bytes.len() { file.set_len(u64::try_from(end).unwrap_or(0)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(serial: &str, name: &str) -> Entry {
        let (serial, name) = (serial.to_owned(), name.to_owned());
        Entry { serial, name, allows: vec!["knock:tcp/22".into()], issued: 100, until: 1000, revoked: None }
    }

    fn rules() -> Rules {
        Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: 1 << 20 }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn what_was_issued_and_revoked_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        let mut index = Index::create(&path, "Example").unwrap();
        for (serial, name) in [("01", "alice"), ("02", "alice"), ("03", "bob")] {
            index.add(&entry(serial, name)).unwrap();
        }
        assert_eq!(index.revoke("02", Reason::Unspecified, at(200)).unwrap(), [entry("02", "alice")]);
        assert_eq!(index.revoke("alice", Reason::KeyCompromise, at(300)).unwrap(), [entry("01", "alice")]);
        assert_eq!(index.revoke("alice", Reason::KeyCompromise, at(300)).unwrap(), []);
        assert_eq!(index.revoke("bob", Reason::KeyCompromise, at(2000)).unwrap(), [], "expired");
        assert_eq!([index.next_list(at(300)).unwrap(), index.next_list(at(301)).unwrap()], [1, 2]);
        let mut again = Index::open(&path, &rules()).unwrap();
        assert_eq!((again.authority(), again.entries()), ("Example", index.entries()));
        assert_eq!(again.entries()[1].revoked, Some((200, Reason::Unspecified)));
        assert_eq!(again.next_list(at(302)).unwrap(), 3);
    }

    #[test]
    fn a_line_that_a_power_loss_cut_off_is_left_out_and_not_joined_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        let mut index = Index::create(&path, "Example").unwrap();
        index.add(&entry("01", "alice")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"event\":\"issued\",\"serial\":\"02");
        std::fs::write(&path, text).unwrap();
        let mut again = Index::open(&path, &rules()).unwrap();
        again.add(&entry("03", "bob")).unwrap();
        let serials: Vec<String> = Index::open(&path, &rules())
            .unwrap()
            .entries()
            .iter()
            .map(|entry| entry.serial.clone())
            .collect();
        assert_eq!(serials, ["01", "03"]);
    }

    #[test]
    fn a_long_index_whose_last_line_was_cut_off_is_read_as_fast_as_any() {
        let line = "{\"event\":\"list\",\"number\":7,\"at\":1}\n";
        let text = format!("{{\"event\":\"authority\",\"name\":\"Example\"}}\n{}cut", line.repeat(20_000));
        let begun = std::time::Instant::now();
        assert_eq!(Index::parse(Path::new("index"), &text).unwrap().list, 7);
        assert!(begun.elapsed().as_secs() < 5, "once through for each line takes minutes");
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_issued_without_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        Index::create(&path, "Example").unwrap();
        let head = std::fs::read_to_string(&path).unwrap();
        for (text, line) in [
            (format!("{head}what\n"), 2),
            (format!("{head}{head}"), 2),
            (String::new(), 1),
            ("{\"event\":\"list\",\"number\":1,\"at\":1}\n".into(), 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Index::open(&path, &rules()).unwrap_err();
            assert!(matches!(error, CaError::Index(_, found) if found == line), "{error}");
        }
    }
}
