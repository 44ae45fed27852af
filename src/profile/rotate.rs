//! New keys for a profile, in the text that an administrator wrote: the values of `public_key` and `psk` change, the old
//! ones go into a table at the end, and every other byte stays. Pure.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::{MAX_PREVIOUS, Previous, Profile, Server, read};
use crate::config::{Freshness, Report, Syntax};
use crate::crypto::{Psk, PublicKey};
use crate::text::Moment;

/// The keys that take the place of a profile's.
#[derive(Clone, Debug)]
pub struct NewKeys {
    /// The client's key.
    pub public_key: PublicKey,
    /// The secret shared with it; there is one if and only if the profile has one now.
    pub psk: Option<Psk>,
    /// Until when those that the profile has now are good.
    pub until: Moment,
}

/// The text of a profile with new keys; `now` tells which of the older ones are over and can go.
///
/// # Errors
/// [`RotateError`]; the text is then not to be touched.
pub fn rotated(text: &str, new: &NewKeys, now: Moment) -> Result<Zeroizing<String>, RotateError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let old = profile(text).ok_or(RotateError::Form)?;
    let present = Previous {
        public_key: old.public_key.ok_or(RotateError::NoKeys)?,
        psk: old.psk.clone(),
        until: new.until,
    };
    let (mut text, mut previous) = (Zeroizing::new(text.to_owned()), old.previous.clone());
    // A shorter overlap is meant for every older pair: whoever has one of them is not spared by an earlier rotation.
    for (number, keys) in previous.iter_mut().enumerate().filter(|(_, keys)| keys.until > new.until) {
        keys.until = new.until;
        text = with_value(&text, end_of(&text, number), &new.until.to_string())?;
    }
    while previous.len() >= MAX_PREVIOUS {
        let over = previous.iter().position(|keys| keys.until <= now).ok_or(RotateError::Full)?;
        previous.remove(over);
        text = without_table(&text, over);
    }
    previous.push(present.clone());
    let psk = new.psk.as_ref().map(Psk::to_base64);
    let mut text = with_value(&text, span(&text, "public_key"), &new.public_key.to_string())?;
    if let Some(psk) = &psk {
        text = with_value(&text, span(&text, "psk"), psk)?;
    }
    let text = with_table(&text, &present, old.has_psk());
    let expected = Profile {
        public_key: Some(new.public_key),
        psk: new.psk.clone().unwrap_or(Psk::new([0; 32])),
        previous,
        ..old
    };
    // Whatever form the file has: what is written says the same as before but for the keys, or is not written.
    if profile(&text) == Some(expected) { Ok(text) } else { Err(RotateError::Form) }
}

fn profile(text: &str) -> Option<Profile> {
    let report = Report::new("");
    let server = Server { services: None, freshness: Freshness::default() };
    let found = read("rotated".parse().ok()?, text, Syntax::Toml, server, &report)?;
    report.into_parts().0.is_empty().then_some(found.profile)
}

/// Puts a text in the place of a value.
fn with_value(
    text: &str,
    place: Option<Range<usize>>,
    value: &str,
) -> Result<Zeroizing<String>, RotateError> {
    let Range { start, end } = place.ok_or(RotateError::Form)?;
    let (before, after) = (text.get(..start), text.get(end..));
    let (Some(before), Some(after)) = (before, after) else { return Err(RotateError::Form) };
    // Room for all of it: growing would leave copies of secrets behind.
    let mut edited = Zeroizing::new(String::with_capacity(text.len() + value.len() + 2));
    [before, "\"", value, "\"", after].into_iter().for_each(|piece| edited.push_str(piece));
    Ok(edited)
}

fn span(text: &str, key: &str) -> Option<Range<usize>> {
    span_in(DeTable::parse(text).ok()?.get_ref(), key)
}

fn span_in(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let value = table.iter().find(|(name, _)| name.get_ref() == key);
    value.map(|(_, value)| value.span())
}

/// Where it stands until when an older pair is good.
fn end_of(text: &str, number: usize) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (_, tables) = table.get_ref().iter().find(|(name, _)| name.get_ref() == "previous")?;
    span_in(tables.get_ref().as_array()?.get(number)?.get_ref().as_table()?, "until")
}

/// Adds a table of replaced keys. At the end it belongs to no other table.
fn with_table(text: &str, keys: &Previous, has_psk: bool) -> Zeroizing<String> {
    let mut edited = Zeroizing::new(String::with_capacity(text.len() + 512));
    let mut add = |pieces: &[&str]| pieces.iter().for_each(|piece| edited.push_str(piece));
    let line = if text.ends_with('\n') { "" } else { "\n" };
    add(&[text, line, "\n", HEADER, "\n# ", COMMENT, "\n"]);
    add(&["public_key = \"", &keys.public_key.to_string(), "\"\n"]);
    if has_psk {
        add(&["psk = \"", &keys.psk.to_base64(), "\"\n"]);
    }
    add(&["until = \"", &keys.until.to_string(), "\"\n"]);
    edited
}

/// Leaves out one of the tables of replaced keys, as they are written here.
fn without_table(text: &str, number: usize) -> Zeroizing<String> {
    let (mut edited, mut seen) = (Zeroizing::new(String::with_capacity(text.len())), 0);
    let mut is_out = false;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            let is_table = line.trim() == HEADER;
            is_out = is_table && seen == number;
            seen += usize::from(is_table);
        }
        if !is_out {
            edited.push_str(line);
        }
    }
    edited
}

const HEADER: &str = "[[previous]]";
const COMMENT: &str =
    "Keys from before a rotation: good until then, for a client that has not imported the new bundle.";

/// Why a profile cannot get new keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateError {
    /// It knocks by a fixed sequence alone.
    NoKeys,
    /// It was rotated so often that all of its older keys are still good.
    Full,
    /// Its text cannot be edited without changing more than the keys.
    Form,
}

impl fmt::Display for RotateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => f.write_str(
                "the profile has no keys: its sequence is its secret; write another one into [plain], then reload",
            ),
            Self::Full => write!(
                f,
                "{MAX_PREVIOUS} rotations are not over yet; remove the [[previous]] tables that no client needs any more"
            ),
            Self::Form => f.write_str(
                "the file is broken, or written in a form that cannot be edited here; see `knockd-rs check`, or write new \
                 keys and a [[previous]] table by hand",
            ),
        }
    }
}

impl std::error::Error for RotateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KeyPair, Secret};

    const NOW: Moment = Moment::from_secs(1_800_000_000);

    fn key(seed: u8) -> PublicKey {
        KeyPair::from_seed([seed; 32]).public()
    }

    fn new(seed: u8, until: u64) -> NewKeys {
        NewKeys { public_key: key(seed), psk: Some(Secret::new([seed; 32])), until: Moment::from_secs(until) }
    }

    fn written(seed: u8) -> String {
        format!(
            "# Mine. public_key = \"no\"\nopen = ['tcp/22'] # ssh\n  public_key='{}'   # a comment\npsk = \"{}\"\n\
             duration = \"20s\"\nmethods = [\"spa\", \"totp\"]\n[totp]\nports = 7",
            key(seed),
            *Secret::new([seed; 32]).to_base64()
        )
    }

    #[test]
    fn only_the_keys_change_and_the_old_ones_are_kept_at_the_end() {
        let until = NOW.as_secs() + 60;
        let text = rotated(&written(1), &new(2, until), NOW).unwrap();
        let expected = written(2).replace(&format!("'{}'", key(2)), &format!("\"{}\"", key(2)));
        let tail = format!(
            "\n\n[[previous]]\n# {COMMENT}\npublic_key = \"{}\"\npsk = \"{}\"\nuntil = \"{}\"\n",
            key(1),
            *Secret::new([1; 32]).to_base64(),
            Moment::from_secs(until)
        );
        assert_eq!(*text, expected + &tail);
    }

    #[test]
    fn a_client_that_missed_a_rotation_still_has_keys_and_those_that_are_over_go() {
        let mut text = Zeroizing::new(written(1));
        for seed in 2..=5 {
            text = rotated(&text, &new(seed, NOW.as_secs() + u64::from(seed)), NOW).unwrap();
        }
        let of = |text: &str| profile(text).unwrap().previous.iter().map(|keys| keys.public_key).collect();
        let keys: Vec<PublicKey> = of(&text);
        assert_eq!(keys, [1, 2, 3, 4].map(key));
        assert_eq!(rotated(&text, &new(6, NOW.as_secs() + 99), NOW), Err(RotateError::Full));
        let later = Moment::from_secs(NOW.as_secs() + 2);
        let keys: Vec<PublicKey> = of(&rotated(&text, &new(6, NOW.as_secs() + 99), later).unwrap());
        assert_eq!(keys, [2, 3, 4, 5].map(key));
    }

    #[test]
    fn a_shorter_overlap_ends_every_older_pair_and_a_longer_one_prolongs_none() {
        let mut text = Zeroizing::new(written(1));
        for (seed, until) in [(2, 700), (3, 50), (4, 900), (5, 800)] {
            text = rotated(&text, &new(seed, NOW.as_secs() + until), NOW).unwrap();
        }
        let ends = |text: &str| -> Vec<u64> {
            let previous = profile(text).unwrap().previous;
            previous.iter().map(|keys| keys.until.as_secs() - NOW.as_secs()).collect()
        };
        assert_eq!(ends(&text), [50, 50, 800, 800]);
        // At once, also where the profile has as many older pairs as it may have.
        let text = rotated(&text, &new(6, NOW.as_secs()), NOW).unwrap();
        assert_eq!(ends(&text), [0; 4]);
        // However they are written.
        let text = text.replace("[[previous]]", "[[ previous ]] # mine").replace("until = ", "'until'  =\t");
        let other = text.replace(&Moment::from_secs(NOW.as_secs()).to_string(), "2099-01-01");
        let until = NOW.as_secs() + 5;
        assert_eq!(rotated(&other, &new(7, until), NOW), Err(RotateError::Full));
        let first = other.find("[[ previous ]]").unwrap();
        let one = &other[..other[first + 1..].find("[[ previous ]]").unwrap() + first + 1];
        assert_eq!(ends(&rotated(one, &new(7, until), NOW).unwrap()), [5, 5]);
    }

    #[test]
    fn what_cannot_be_edited_is_left_alone() {
        let plain = "open = [\"tcp/22\"]\nmethods = [\"plain\"]\ninsecure = true\n\
                     [plain]\nports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]\n";
        assert_eq!(rotated(plain, &new(2, 0), NOW), Err(RotateError::NoKeys));
        assert_eq!(rotated("open = [", &new(2, 0), NOW), Err(RotateError::Form));
        let inline = format!(
            "{}\n",
            written(1).replace(
                "duration",
                &format!("previous = [{{ public_key = \"{}\", until = \"2027-01-31\" }}]\nduration", key(9))
            )
        );
        assert_eq!(rotated(&inline, &new(2, 0), NOW), Err(RotateError::Form));
        // A secret that the client would not learn of.
        assert_eq!(rotated(&written(1), &NewKeys { psk: None, ..new(2, 0) }, NOW), Err(RotateError::Form));
    }
}
