//! Events as they are told on the control socket, and the client's end of a connection that listens to them.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Command, NOT_PERMITTED, PATIENCE, Reply, socket_path};
use crate::grant::Uses;
use crate::text::PortRange;

/// One thing that happened: the JSON of `events --json`. Keys that say nothing are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Seconds since 1970 UTC, to the millisecond.
    pub time: f64,
    /// How urgent: `error`, `warning`, `info` or `debug`.
    pub level: String,
    /// A fixed name: `granted`, `ended`, `refused`, ...
    pub event: String,
    /// The client concerned; for a certificate its table and which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Where a knock came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The address that a grant is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The ports that a grant is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// For how many connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Uses>,
    /// For how many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// The service whose door it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The fixed name of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The event as a sentence.
    pub text: String,
}

/// The longest text of an event, in bytes: what is kept of many must be bounded.
pub const MAX_TEXT: usize = 1000;

/// A connection on which the daemon tells events.
#[derive(Debug)]
pub struct Listening {
    stream: UnixStream,
    unread: Vec<u8>,
}

/// No line of the daemon's is longer.
const MAX_LINE: usize = 64 * 1024;

impl Listening {
    /// Asks for the events that the daemon remembers, or, with `follow`, for those that are to come.
    ///
    /// # Errors
    /// When no daemon listens.
    pub fn begin(runtime_dir: &Path, follow: bool) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket_path(runtime_dir))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(&Command::Events { follow })?;
        line.push(b'\n');
        match stream.write_all(&line) {
            // Who may not ask is answered before the question is read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Waits for the daemon to say something, and returns what is complete of it: nothing, maybe.
    ///
    /// # Errors
    /// `UnexpectedEof` when the daemon has hung up, `PermissionDenied` when this user may not ask.
    pub fn hear(&mut self) -> io::Result<Vec<Reply>> {
        let mut buffer = [0; 16 * 1024];
        let len = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            read => read?,
        };
        self.unread.extend_from_slice(buffer.get(..len).unwrap_or_default());
        let mut heard = Vec::new();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if line == NOT_PERMITTED.as_bytes() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            heard.push(serde_json::from_slice(&line)?);
        }
        if self.unread.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the daemon's line has no end"));
        }
        Ok(heard)
    }
}

/// Has a daemon say these bytes and hang up: what is heard of them, until the first that is nothing a daemon says.
#[cfg(feature = "fuzzing")]
pub(crate) fn hear(bytes: &[u8]) -> io::Result<Vec<Reply>> {
    let (mut daemon, stream) = UnixStream::pair()?;
    daemon.write_all(bytes)?;
    drop(daemon);
    let mut listening = Listening { stream, unread: Vec::new() };
    let mut heard = Vec::new();
    while let Ok(replies) = listening.hear() {
        heard.extend(replies);
    }
    Ok(heard)
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
