//! The control socket: how an admin's commands reach the running daemon, and what comes back.
//!
//! One JSON line each way on a unix stream socket; the daemon closes it after the answer, and tells who follows its
//! events one more line for each. Who may ask is decided by the kernel's word on who the peer is (`SO_PEERCRED`,
//! `unix(7)`): root, members of one group, and for looking those of another. Anybody else gets an empty line.

mod events;
mod followers;
mod server;
mod status;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use events::{Listening, MAX_TEXT, Told};
pub use server::{Groups, Server, Ticket};
pub use status::{GrantStatus, GuardStatus, LockoutStatus, ProfileStatus, Status};

use crate::grant::Uses;
use crate::text::{PortRange, Span};

#[cfg(feature = "fuzzing")]
pub(crate) use events::hear as hear_daemon;
#[cfg(feature = "fuzzing")]
pub(crate) use server::hear as hear_peer;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "control.sock";
/// No command is longer.
const MAX_COMMAND_LEN: usize = 64 * 1024;
/// No answer is longer: 65,535 grants take about 15 MB.
const MAX_REPLY_LEN: u64 = 64 * 1024 * 1024;
/// The answer to a peer that may not ask.
const NOT_PERMITTED: &str = "\n";
/// How long a command waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an admin can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// How things stand.
    Status {},
    /// Opens ports by hand.
    Grant {
        /// Whose grant it is to be.
        profile: String,
        /// The address to let in.
        address: IpAddr,
        /// Port ranges or service names; empty for all that the profile opens.
        open: Vec<String>,
        /// For how long; absent for the profile's default.
        duration: Option<Span>,
        /// For how many connections; absent for what the profile allows.
        connections: Option<Uses>,
    },
    /// Ends grants now.
    Revoke {
        /// Which.
        what: Revoked,
    },
    /// Lets clients knock again that had knocked for the last time, and addresses in that are locked out.
    Allow {
        /// Which.
        what: Revoked,
    },
    /// Closes ports to strangers.
    Guard {
        /// Which.
        ports: Vec<PortRange>,
        /// Whether strangers get an answer.
        closed: Closing,
        /// Undo it after this time unless a knock from outside confirms it.
        confirm: Option<Span>,
    },
    /// Opens guarded ports to everybody again.
    Unguard {
        /// Which: exactly as they were guarded.
        ports: Vec<PortRange>,
    },
    /// Reads the configuration again.
    Reload {},
    /// Forgets a profile whose file is gone, and ends its grants, whatever else is wrong with the configuration.
    Remove {
        /// Its name.
        profile: String,
    },
    /// What has happened lately, or, to a follower, what happens from now on.
    Events {
        /// Whether to follow.
        follow: bool,
    },
}

impl Command {
    /// Whether it changes nothing: those who may only look may ask for it.
    #[must_use]
    pub fn is_look(&self) -> bool {
        matches!(self, Self::Status {} | Self::Events { .. })
    }
}

/// Whose grants end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoked {
    /// All.
    All,
    /// Those of one profile.
    Profile(String),
    /// Those of one address.
    Address(IpAddr),
}

/// What a stranger at a guarded port notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Closing {
    /// Nothing.
    Drop,
    /// TCP reset, or ICMP port unreachable.
    Reject,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Done; each line says what.
    Done(Vec<String>),
    /// How things stand.
    Status(Box<Status>),
    /// Something happened.
    Event(Box<Told>),
    /// Not done; each line says why and what to do.
    Refused(Vec<String>),
}

/// Where a daemon with this runtime directory listens.
#[must_use]
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// Sends one command to the daemon and waits for its answer.
///
/// # Errors
/// When no daemon listens, when this user may not ask, or when no answer comes.
pub fn call(runtime_dir: &Path, command: &Command) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket_path(runtime_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // Who may not ask is answered before the question is read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_REPLY_LEN)).read_line(&mut answer)?;
    match answer.as_str() {
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon ended before it answered")),
        NOT_PERMITTED => Err(io::ErrorKind::PermissionDenied.into()),
        answer => Ok(serde_json::from_str(answer)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_readable_line_of_json() {
        let guard = Command::Guard {
            ports: vec!["tcp/22".parse().unwrap()],
            closed: Closing::Drop,
            confirm: Some(Span::from_secs(120)),
        };
        let line = r#"{"command":"guard","ports":["tcp/22"],"closed":"drop","confirm":"2m"}"#;
        assert_eq!(serde_json::to_string(&guard).unwrap(), line);
        assert_eq!(serde_json::from_str::<Command>(line).unwrap(), guard);
    }

    #[test]
    fn an_unknown_command_or_key_is_refused() {
        for line in [r#"{"command":"open"}"#, r#"{"command":"reload","now":true}"#, "{}", "[]"] {
            assert!(serde_json::from_str::<Command>(line).is_err(), "{line}");
        }
    }
}
