//! A bundle's file: mode 0600 when it is written and when it is read. The edge.

use std::path::Path;

use super::{Bundle, Carried};
use crate::config::{ConfigError, Place, limits};
use crate::files::{self, FileError, FileFault, Private, Rules};

/// Writes a bundle as JSON, readable by its owner alone; a file that is there is left alone.
///
/// # Errors
/// [`FileError`].
pub fn save_bundle(path: &Path, bundle: &Bundle) -> Result<(), FileError> {
    let json = bundle
        .to_json()
        .map_err(|error| FileError { path: path.to_owned(), fault: FileFault::Other(error.into()) })?;
    files::write(path, &json, Private::NEW)
}

/// The same for a bundle that may be under a passphrase: that one is kept as its line.
///
/// # Errors
/// [`FileError`].
pub fn save_carried(path: &Path, carried: &Carried) -> Result<(), FileError> {
    match carried {
        Carried::Open(bundle) => save_bundle(path, bundle),
        Carried::Protected(_) => {
            files::write(path, format!("{}\n", *carried.to_line()).as_bytes(), Private::NEW)
        }
    }
}

/// Reads a bundle. One that others can read is refused: its private key is theirs as well.
///
/// # Errors
/// Everything that is wrong with the file or with what is in it.
pub fn load_carried(path: &Path) -> Result<Carried, Vec<ConfigError>> {
    let file = path.display().to_string();
    let rules = Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: limits::FILE };
    match files::read_text(path, &rules) {
        Ok(text) => read_carried(&file, &text),
        Err(error) => Err(complaint(file, error.what())),
    }
}

/// Reads a bundle from its text, JSON or a line; `file` is its name in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_carried(file: &str, text: &str) -> Result<Carried, Vec<ConfigError>> {
    let line = text.trim_ascii();
    if Carried::is_line(line) {
        return Carried::from_line(line).map_err(|error| complaint(file.to_owned(), error.to_string()));
    }
    Bundle::parse(file, text).map(|bundle| Carried::Open(Box::new(bundle)))
}

fn complaint(file: String, what: String) -> Vec<ConfigError> {
    vec![ConfigError { place: Place { file, ..Place::default() }, what }]
}
