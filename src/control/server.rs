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

use super::followers::Followers;
use super::{Command, MAX_COMMAND_LEN, NOT_PERMITTED, Reply, Told, socket_path};
use crate::sys;

/// How many commands can be under way at a time; the oldest gives way to one more.
const MAX_CONNECTIONS: usize = 16;
/// How long a peer may take for its line, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long nobody is let in after no descriptor was left.
const PAUSE: Duration = Duration::from_millis(100);

/// Names a connection that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// How long to wait before another attempt at a socket that could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// Whose members may ask, besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// For everything.
    pub commanders: u32,
    /// For what changes nothing; nobody where there is no such group.
    pub readers: Option<u32>,
}

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Server {
    listener: Result<UnixListener, Trouble>,
    path: PathBuf,
    groups: Groups,
    connections: Vec<Connection>,
    followers: Followers,
    next: u64,
    /// Until when nobody is let in, since no descriptor was left for one more.
    full: Option<Duration>,
}

/// Why nobody can ask, and when to try again. A full disk takes no socket, and must not keep the daemon from opening
/// ports for those who knock.
#[derive(Debug)]
struct Trouble {
    error: io::Error,
    again: Duration,
}

#[derive(Debug)]
struct Connection {
    ticket: Ticket,
    stream: UnixStream,
    access: Access,
    since: Duration,
    input: Vec<u8>,
    output: Vec<u8>,
    state: Stage,
}

/// What a peer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Everything,
    Looking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Waiting,
    Writing,
    Over,
}

impl Server {
    /// Listens in the runtime directory, as soon as that takes a socket. Everybody may connect; who may ask is decided
    /// at the connection.
    #[must_use]
    pub fn new(runtime_dir: &Path, groups: Groups, uptime: Duration) -> Self {
        let path = socket_path(runtime_dir);
        let listener = listen(&path, uptime);
        Self {
            listener,
            path,
            groups,
            connections: Vec::new(),
            followers: Followers::default(),
            next: 0,
            full: None,
        }
    }

    /// Why nobody can ask, if so: a sentence.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let Trouble { error, .. } = self.listener.as_ref().err()?;
        Some(format!("the control socket {} cannot be made: {error}", self.path.display()))
    }

    /// When another attempt at the socket is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.retry().into_iter().chain(self.full).chain(self.followers.next_deadline()).min()
    }

    fn retry(&self) -> Option<Duration> {
        self.listener.as_ref().err().map(|trouble| trouble.again)
    }

    /// Lets members of other groups ask from now on.
    pub fn set_groups(&mut self, groups: Groups) {
        self.groups = groups;
    }

    /// Tells an event to those who follow, and remembers it for those who ask.
    pub fn tell(&mut self, told: Told, uptime: Duration) {
        self.followers.tell(told, uptime);
    }

    /// Answers with the events that are remembered, or makes a follower of the connection.
    pub fn events(&mut self, ticket: Ticket, follow: bool) {
        let Some(index) = self.connections.iter().position(|connection| connection.ticket == ticket) else {
            return;
        };
        if !follow {
            if let Some(connection) = self.connections.get_mut(index) {
                connection.send(self.followers.recent());
            }
        } else if self.followers.has_room() {
            self.followers.add(self.connections.remove(index).stream);
        } else {
            let text = "as many follow the events as can; end one of them, or ask again later";
            self.reply(ticket, &Reply::Refused(vec![text.to_owned()]));
        }
    }

    /// What to poll for.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        // One that waits to be let in would wake the loop again and again.
        let listener = self.listener.as_ref().ok().filter(|_| self.full.is_none());
        let listener = listener.map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
        let connections = self.connections.iter().map(|connection| {
            let flags = match connection.state {
                Stage::Reading => PollFlags::IN,
                Stage::Writing => PollFlags::OUT,
                Stage::Waiting | Stage::Over => PollFlags::empty(),
            };
            PollFd::from_borrowed_fd(connection.stream.as_fd(), flags)
        });
        listener.into_iter().chain(connections).chain(self.followers.fds())
    }

    /// Accepts, reads and writes as far as it goes without waiting; returns the commands that are complete.
    pub fn turn(&mut self, uptime: Duration) -> Vec<(Ticket, Command)> {
        if self.retry().is_some_and(|again| again <= uptime) {
            self.listener = listen(&self.path, uptime);
        }
        self.full = self.full.filter(|until| *until > uptime);
        for _ in 0..MAX_CONNECTIONS {
            let Ok(listener) = &self.listener else { break };
            if self.full.is_some() {
                break;
            }
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, uptime),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.full = Some(uptime + PAUSE),
            }
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
        self.followers.turn(uptime);
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
        let Some(access) = access(stream.as_fd(), self.groups) else {
            let _ = stream.write_all(NOT_PERMITTED.as_bytes());
            return;
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            // Those who may only look make room first: they cannot keep out who commands.
            let looking = self.connections.iter().position(|one| one.access == Access::Looking);
            self.connections.remove(looking.unwrap_or(0));
        }
        self.next += 1;
        self.connections.push(Connection {
            ticket: Ticket(self.next),
            stream,
            access,
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

/// Has a peer say these bytes, who may change things or not: the command that comes of it, and what is answered to one
/// that is none.
#[cfg(feature = "fuzzing")]
pub(crate) fn hear(bytes: &[u8], may_change: bool) -> io::Result<(Option<Command>, Vec<u8>)> {
    let (mut peer, stream) = UnixStream::pair()?;
    stream.set_nonblocking(true)?;
    let access = if may_change { Access::Everything } else { Access::Looking };
    let mut connection = Connection {
        ticket: Ticket(0),
        stream,
        access,
        since: Duration::ZERO,
        input: Vec::new(),
        output: Vec::new(),
        state: Stage::Reading,
    };
    peer.write_all(bytes)?;
    let command = connection.read().map(|(_, command)| command);
    drop(connection);
    let mut answer = Vec::new();
    // What was not read is thrown away with the connection, which the peer hears of as an error.
    let _ = peer.read_to_end(&mut answer);
    Ok((command, answer))
}

fn listen(path: &Path, uptime: Duration) -> Result<UnixListener, Trouble> {
    let bind = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| Trouble { error, again: uptime + RETRY })
}

/// Root, the daemon's own user, and members of the groups.
fn access(peer: BorrowedFd<'_>, groups: Groups) -> Option<Access> {
    let who = socket_peercred(peer).ok()?;
    if who.uid.is_root() || who.uid == rustix::process::geteuid() {
        return Some(Access::Everything);
    }
    let mut member_of = sys::peer_groups(peer).unwrap_or_default();
    member_of.push(who.gid.as_raw());
    if member_of.contains(&groups.commanders) {
        return Some(Access::Everything);
    }
    groups.readers.filter(|readers| member_of.contains(readers)).map(|_| Access::Looking)
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
        match serde_json::from_slice::<Command>(line) {
            Ok(command) if self.access == Access::Everything || command.is_look() => {
                Some((self.ticket, command))
            }
            Ok(_) => {
                let text = "members of control.readers in knockd-rs.toml may look at status and events, and change nothing";
                self.answer(&Reply::Refused(vec![text.to_owned()]));
                None
            }
            Err(error) => {
                self.answer(&Reply::Refused(vec![format!(
                    "this is no command that this daemon knows: {error}"
                )]));
                None
            }
        }
    }

    fn answer(&mut self, reply: &Reply) {
        let mut line = serde_json::to_vec(reply).unwrap_or_default();
        line.push(b'\n');
        self.send(line);
    }

    fn send(&mut self, output: Vec<u8>) {
        self.output = output;
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
