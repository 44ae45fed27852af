//! A passphrase: from a file, from the service manager, or asked for on the terminal without showing it. Never from the
//! command line, where everybody on the machine could read it (`ps`).

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::files::{self, FileError, Rules};

/// The name under which a service manager passes one on (`systemd.exec(5)`, `LoadCredential=`).
pub const CREDENTIAL: &str = "knockd-rs.passphrase";

/// The longest passphrase.
const MAX: u64 = 1024;
/// The longest line that is pasted.
const MAX_LINE: usize = 64 << 10;
/// The shortest passphrase that is taken for something new.
pub const LEAST: usize = 8;

/// Reads the first line of `file` if one is named, else of the credential if there is one, else asks for `what`.
///
/// # Errors
/// [`FileError`] when the file, the credential or the terminal cannot be read.
pub fn read(file: Option<&Path>, what: &str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    match given(file)? {
        Some(passphrase) => Ok(passphrase),
        None => ask(what, usize::try_from(MAX).unwrap_or(0)).map_err(at_terminal),
    }
}

/// The same without asking; `None` where nothing gives one.
///
/// # Errors
/// [`FileError`] when the file or the credential cannot be read.
pub fn given(file: Option<&Path>) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    if let Some(file) = file {
        return line_of(file, 0o177, files::own_owners()).map(Some);
    }
    let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else { return Ok(None) };
    // systemd owns these and shows its access list as group bits (0440).
    match line_of(&dir.join(CREDENTIAL), 0o007, Vec::new()) {
        Err(error) if error.is_missing() => Ok(None),
        other => other.map(Some),
    }
}

/// Reads a new passphrase: the first line of `file` if one is named, else what is typed twice.
///
/// # Errors
/// [`NewError`].
pub fn read_new(file: Option<&Path>, what: &str) -> Result<Zeroizing<Vec<u8>>, NewError> {
    let passphrase = match file {
        Some(file) => line_of(file, 0o177, files::own_owners())?,
        None => {
            let max = usize::try_from(MAX).unwrap_or(0);
            let first = ask(what, max).map_err(at_terminal)?;
            let again = ask("The same again", max).map_err(at_terminal)?;
            if first != again {
                return Err(NewError::Different);
            }
            first
        }
    };
    if passphrase.len() < LEAST {
        return Err(NewError::TooShort);
    }
    Ok(passphrase)
}

/// Asks for a line with a secret in it, which is not shown.
///
/// # Errors
/// [`FileError`] when there is no terminal.
pub fn paste(what: &str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    ask(what, MAX_LINE).map_err(at_terminal)
}

/// Why there is no new passphrase.
#[derive(Debug)]
pub enum NewError {
    /// The file or the terminal cannot be read.
    File(FileError),
    /// Two different ones were typed.
    Different,
    /// Not long enough.
    TooShort,
}

impl From<FileError> for NewError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "{error}; name a file with --passphrase-file"),
            Self::Different => f.write_str("the two passphrases differ; try again"),
            Self::TooShort => {
                write!(
                    f,
                    "the passphrase is too short; use {LEAST} characters or more, better six words by chance"
                )
            }
        }
    }
}

impl std::error::Error for NewError {}

fn at_terminal(error: io::Error) -> FileError {
    FileError { path: TERMINAL.into(), fault: error.into() }
}

fn line_of(file: &Path, forbidden: u32, owners: Vec<u32>) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let bytes = files::read(file, &Rules { forbidden, mode: 0o600, owners, limit: MAX })?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Zeroizing::new(line.to_vec()))
}

const TERMINAL: &str = "/dev/tty";

/// Asks on the terminal, whatever standard input and output are, with the echo switched off. So are the keys that make
/// signals: one that ended this program here would leave the terminal without an echo.
fn ask(what: &str, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = File::options().read(true).write(true).open(TERMINAL)?;
    write!(terminal, "{what}: ")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let _echo = Echo { terminal: terminal.try_clone()?, before };
    let line = typed(&mut terminal, max);
    writeln!(terminal)?;
    line
}

/// What is typed up to the end of the line, with the keys that take back a character and a line.
fn typed(terminal: &mut impl io::Read, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const KILL: u8 = 0x15;
    const QUIT: u8 = 0x1c;
    const DELETE: u8 = 0x7f;
    let mut line = Zeroizing::new(Vec::with_capacity(max));
    let mut byte = [0];
    while terminal.read(&mut byte)? == 1 && line.len() < max {
        match byte {
            [b'\n' | b'\r' | END] => break,
            [INTERRUPT | QUIT] => return Err(io::ErrorKind::Interrupted.into()),
            [BACKSPACE | DELETE] => {
                line.pop();
            }
            [KILL] => line.clear(),
            [other] => line.push(other),
        }
    }
    Ok(line)
}

/// For the fuzzer: a line has an end, and no more room than there is.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(line) = typed(&mut io::Cursor::new(bytes), 64) {
        assert!(line.len() <= 64 && line.len() <= bytes.len());
        assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 3 | 4 | 8 | 0x15 | 0x1c | 0x7f)));
    }
}

/// Switches the echo on again, however this ends.
struct Echo {
    terminal: File,
    before: Termios,
}

impl Drop for Echo {
    fn drop(&mut self) {
        // What was typed or pasted after the line is no command for the shell, and may be a secret. There is nobody to
        // tell when the terminal is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[u8]) -> io::Result<Vec<u8>> {
        typed(&mut &*keys, 64).map(|line| line.to_vec())
    }

    #[test]
    fn keys_take_back_what_was_typed_and_end_the_line() {
        assert_eq!(read(b"secret\nmore").unwrap(), b"secret");
        assert_eq!(read(b"wrong\x15sec\x7f\x08cret\r").unwrap(), b"scret");
        assert_eq!(read(b"\x7f\x04").unwrap(), b"");
        assert_eq!(read(b"sec\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
