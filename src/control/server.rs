//! The daemon's side: accepts, checks who asks, reads one line, writes one line. Never waits for a peer.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::socket_peercred;

use super::{Command, MAX_COMMAND_LEN, NOT_PERMITTED, Reply, socket_path};
use crate::sys;

/// How many commands can be under way at a time; the oldest gives way to one more.
const MAX_CONNECTIONS: usize = 16;
/// How long a peer may take for its line, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Names a connection that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    group: u32,
    connections: Vec<Connection>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    ticket: Ticket,
    stream: UnixStream,
    since: Duration,
    input: Vec<u8>,
    output: Vec<u8>,
    state: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Waiting,
    Writing,
    Over,
}

impl Server {
    /// Listens in the runtime directory. Everybody may connect; who may ask is decided at the connection.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(runtime_dir: &Path, group: u32) -> io::Result<Self> {
        let path = socket_path(runtime_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, group, connections: Vec::new(), next: 0 })
    }

    /// Lets members of another group ask from now on.
    pub fn set_group(&mut self, group: u32) {
        self.group = group;
    }

    /// What to poll for.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN);
        std::iter::once(listener).chain(self.connections.iter().map(|connection| {
            let flags = match connection.state {
                Stage::Reading => PollFlags::IN,
                Stage::Writing => PollFlags::OUT,
                Stage::Waiting | Stage::Over => PollFlags::empty(),
            };
            PollFd::from_borrowed_fd(connection.stream.as_fd(), flags)
        }))
    }

    /// Accepts, reads and writes as far as it goes without waiting; returns the commands that are complete.
    pub fn turn(&mut self, uptime: Duration) -> Vec<(Ticket, Command)> {
        while let Ok((stream, _)) = self.listener.accept() {
            self.admit(stream, uptime);
        }
        let mut commands = Vec::new();
        for connection in &mut self.connections {
            if uptime.saturating_sub(connection.since) > PATIENCE {
                connection.state = Stage::Over;
            }
            commands.extend(connection.read());
            connection.write();
        }
        self.connections.retain(|connection| connection.state != Stage::Over);
        commands
    }

    /// Sends the answer to a command and ends its connection.
    pub fn reply(&mut self, ticket: Ticket, reply: &Reply) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.ticket == ticket) {
            connection.answer(reply);
        }
    }

    /// Whether any connection is open: then the loop wakes up now and then to end those that hang.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.connections.is_empty()
    }

    fn admit(&mut self, mut stream: UnixStream, uptime: Duration) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if !may_ask(stream.as_fd(), self.group) {
            let _ = stream.write_all(NOT_PERMITTED.as_bytes());
            return;
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            self.connections.remove(0);
        }
        self.next += 1;
        self.connections.push(Connection {
            ticket: Ticket(self.next),
            stream,
            since: uptime,
            input: Vec::new(),
            output: Vec::new(),
            state: Stage::Reading,
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Root, the daemon's own user, and members of the group.
fn may_ask(peer: BorrowedFd<'_>, group: u32) -> bool {
    let Ok(who) = socket_peercred(peer) else { return false };
    who.uid.is_root()
        || who.uid == rustix::process::geteuid()
        || who.gid.as_raw() == group
        || sys::peer_groups(peer).is_ok_and(|groups| groups.contains(&group))
}

impl Connection {
    fn read(&mut self) -> Option<(Ticket, Command)> {
        if self.state != Stage::Reading {
            return None;
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.state = Stage::Over;
                    return None;
                }
                Ok(len) => self.input.extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.state = Stage::Over;
                    return None;
                }
            }
            if self.input.contains(&b'\n') || self.input.len() > MAX_COMMAND_LEN {
                return self.parse();
            }
        }
    }

    fn parse(&mut self) -> Option<(Ticket, Command)> {
        self.state = Stage::Waiting;
        let line = self.input.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match serde_json::from_slice(line) {
            Ok(command) => Some((self.ticket, command)),
            Err(error) => {
                self.answer(&Reply::Refused(vec![format!(
                    "this is no command that this daemon knows: {error}"
                )]));
                None
            }
        }
    }

    fn answer(&mut self, reply: &Reply) {
        self.output = serde_json::to_vec(reply).unwrap_or_default();
        self.output.push(b'\n');
        self.state = Stage::Writing;
        self.write();
    }

    fn write(&mut self) {
        while self.state == Stage::Writing {
            match self.stream.write(&self.output) {
                Ok(0) => self.state = Stage::Over,
                Ok(len) => {
                    self.output.drain(..len);
                    if self.output.is_empty() {
                        self.state = Stage::Over;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.state = Stage::Over,
            }
        }
    }
}
