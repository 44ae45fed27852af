//! What is wrong with a configuration, and where: `profiles.d/laptop.toml:7: max_duration: 0s; use 1s to 30d`.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;

/// A place in the configuration. Prints as `file:line: key: `, without what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, relative to the configuration directory.
    pub file: String,
    /// The line, counted from 1; `None` where the whole file is meant.
    pub line: Option<u32>,
    /// The key with the tables it is in: `capture.port`.
    pub key: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // File names and keys are other people's text: no escape sequence reaches the reader's terminal.
        write!(f, "{}:", self.file.escape_debug())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        match &self.key {
            Some(key) => write!(f, " {}: ", key.escape_debug()),
            None => f.write_str(" "),
        }
    }
}

/// Something in the configuration that must be changed before the daemon uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What is wrong, and what is accepted instead.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.what)
    }
}

impl std::error::Error for ConfigError {}

/// Something in the configuration that works, and may not be what was meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigWarning {
    /// Where.
    pub place: Place,
    /// What to think about.
    pub what: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.what)
    }
}

/// Collects what is found in one file. Shared by the readers of its tables, hence the cells.
#[derive(Debug, Default)]
pub(crate) struct Report {
    file: String,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigWarning>>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    pub(crate) fn error(&self, line: impl Into<Option<u32>>, key: &str, what: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError { place: self.place(line.into(), key), what: what.into() });
    }

    pub(crate) fn warn(&self, line: impl Into<Option<u32>>, key: &str, what: impl Into<String>) {
        self.warnings
            .borrow_mut()
            .push(ConfigWarning { place: self.place(line.into(), key), what: what.into() });
    }

    /// The errors and the warnings, each in the order of their lines.
    pub(crate) fn into_parts(self) -> (Vec<ConfigError>, Vec<ConfigWarning>) {
        let (mut errors, mut warnings) = (self.errors.into_inner(), self.warnings.into_inner());
        errors.sort();
        errors.dedup();
        warnings.sort();
        (errors, warnings)
    }

    fn place(&self, line: Option<u32>, key: &str) -> Place {
        Place { file: self.file.clone(), line, key: (!key.is_empty()).then(|| key.to_owned()) }
    }
}
