//! How a command ends: the exit codes, and the sentences that go with them.

use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::process::ExitCode;

/// Every exit code and its meaning, as the manual lists them.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed; standard error says why"),
    (2, "the command line has no such form"),
    (3, "the configuration, a bundle or a key file is broken; standard error names file, line and key"),
    (4, "no daemon answers"),
    (5, "the knock was sent, and the port did not open in time"),
    (6, "the daemon refused the command"),
    (7, "this user may not do that"),
];

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Anything without a code of its own.
    Failed(String),
    /// The same, where the log has the sentence already.
    Reported,
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// Files are broken; one line for each mistake.
    Broken(Vec<String>),
    /// The daemon does not answer.
    NoDaemon(String),
    /// The port stayed closed.
    StillClosed(String),
    /// The daemon said no.
    Refused(Vec<String>),
    /// Not this user.
    NotPermitted(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Reported => 1,
            Self::Usage(_) => 2,
            Self::Broken(_) => 3,
            Self::NoDaemon(_) => 4,
            Self::StillClosed(_) => 5,
            Self::Refused(_) => 6,
            Self::NotPermitted(_) => 7,
        }
    }

    /// Why, in sentences.
    pub(super) fn lines(&self) -> &[String] {
        match self {
            Self::Failed(line)
            | Self::Usage(line)
            | Self::NoDaemon(line)
            | Self::StillClosed(line)
            | Self::NotPermitted(line) => std::slice::from_ref(line),
            Self::Broken(lines) | Self::Refused(lines) => lines,
            Self::Reported => &[],
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

/// Prints a line for people or pipes. A reader that went away, such as `head`, is no failure; the macros of the
/// standard library would panic.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error, if that is there.
pub(super) fn warn(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Reports a failure, once and here, and turns the result into an exit code.
pub(super) fn code(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.lines().iter().for_each(|line| warn(&format!("knockd-rs: {line}")));
            ExitCode::from(failure.code())
        }
    }
}
