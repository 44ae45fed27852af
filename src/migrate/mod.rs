//! Configurations of other programs → what a profile here has to say to mean the same, and what cannot be said. Texts in,
//! values out; total and bounded. Who reads the files and writes the profiles is `cli`.
#![forbid(unsafe_code)]

mod command;
mod fwknop;
mod knockd;

use std::fmt;

use crate::text::{Moment, PortRange, ProfileName, Span};

/// What a file comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// What can be carried over.
    pub clients: Vec<Client>,
    /// What cannot, in the order of the lines.
    pub left: Vec<Left>,
}

/// A client that the other program lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it is called there.
    pub title: String,
    /// Its name here.
    pub name: ProfileName,
    /// The line where it begins.
    pub line: u32,
    /// What it may open; at least one.
    pub open: Vec<PortRange>,
    /// How long a grant lasts when nothing else is asked for, and at most.
    pub duration: Span,
    /// The longest grant.
    pub max_duration: Span,
    /// From when on it is refused.
    pub expires: Option<Moment>,
    /// Its fixed sequence; without one it gets keys.
    pub sequence: Option<Sequence>,
}

/// A sequence of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The ports in order.
    pub ports: Vec<PortRange>,
    /// The longest time for all of them.
    pub total: Span,
}

/// Something that is not carried over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// Its line.
    pub line: u32,
    /// What it is, why, and what to do.
    pub what: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Whose configuration a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// knockd's.
    Knockd,
    /// The access file of fwknop's server.
    Fwknop,
}

impl Kind {
    /// Told by what is in it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let lines = || text.lines().map(str::trim);
        if lines().any(|line| line.starts_with('[') && line.ends_with(']')) {
            return Some(Self::Knockd);
        }
        let is_source = |line: &str| line.split([' ', '\t', ':']).next() == Some("SOURCE");
        lines().any(is_source).then_some(Self::Fwknop)
    }

    /// The program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Knockd => "knockd",
            Self::Fwknop => "fwknop",
        }
    }

    /// What its text comes to.
    #[must_use]
    pub fn read(self, text: &str) -> Import {
        let mut import = match self {
            Self::Knockd => knockd::read(text),
            Self::Fwknop => fwknop::read(text),
        };
        import.left.sort();
        import
    }
}

/// The longest text that is read.
pub const MAX_TEXT: u64 = 256 << 10;
/// How many clients one text can have.
pub const MAX_CLIENTS: usize = 256;
/// The longest grant that a profile can have.
const LONGEST: Span = Span::from_secs(30 * 86_400);

/// A name that a profile may have, as near as can be to this one, and none of those that are taken.
fn name_like(title: &str, taken: &[Client]) -> Option<ProfileName> {
    let letter =
        |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' };
    let name: String =
        title.chars().map(letter).skip_while(|c| !c.is_ascii_alphanumeric()).take(28).collect();
    let numbered = (2..=MAX_CLIENTS).map(|number| format!("{name}-{number}"));
    let names = std::iter::once(name.clone()).chain(numbered);
    names.filter_map(|name| name.parse().ok()).find(|name| taken.iter().all(|client| client.name != *name))
}

/// A text of the file as people can bear to read it: no control characters, and not without an end.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Seconds as both programs write them; more than a profile can have is cut to that.
fn seconds(text: &str) -> Option<Span> {
    let seconds: u64 = text.parse().ok()?;
    Some(Span::from_secs(u32::try_from(seconds).unwrap_or(u32::MAX)).min(LONGEST))
}

fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests;
