//! A bundle's file: mode 0600 when it is written and when it is read. The edge.

use std::path::Path;

use super::Bundle;
use crate::config::{ConfigError, Place, limits};
use crate::files::{self, FileError, FileFault, Private, Rules};

/// Writes a bundle, readable by its owner alone; a file that is there is left alone.
///
/// # Errors
/// [`FileError`].
pub fn save_bundle(path: &Path, bundle: &Bundle) -> Result<(), FileError> {
    let json = bundle
        .to_json()
        .map_err(|error| FileError { path: path.to_owned(), fault: FileFault::Other(error.into()) })?;
    files::write(path, &json, Private::NEW)
}

/// Reads a bundle. One that others can read is refused: its private key is theirs as well.
///
/// # Errors
/// Everything that is wrong with the file or with what is in it.
pub fn load_bundle(path: &Path) -> Result<Bundle, Vec<ConfigError>> {
    let file = path.display().to_string();
    let rules = Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: limits::FILE };
    match files::read_text(path, &rules) {
        Ok(text) => Bundle::parse(&file, &text),
        Err(error) => {
            Err(vec![ConfigError { place: Place { file, ..Place::default() }, what: error.what() }])
        }
    }
}
