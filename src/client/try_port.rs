//! Trying a TCP port until it opens: several connection attempts at a time, each started a little later than the
//! one before, so that the answer comes soon after the grant on a fast network and is not given up on a slow one.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// The first pause between two attempts; each is twice the one before, up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));

/// The attempts under way.
pub(super) struct Tries {
    targets: Vec<SocketAddr>,
    attempts: Vec<Attempt>,
    next: Instant,
    pause: Duration,
    said: Option<Errno>,
}

struct Attempt {
    socket: OwnedFd,
    address: SocketAddr,
    began: Instant,
}

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Open {
    /// The connection.
    pub(super) stream: TcpStream,
    /// Where it goes.
    pub(super) address: SocketAddr,
    /// How long it took from its first SYN on.
    pub(super) round_trip: Duration,
}

impl Tries {
    /// The first attempt is due after the first pause.
    pub(super) fn new(targets: &[SocketAddr]) -> Self {
        let next = Instant::now() + PAUSE.0;
        Self { targets: targets.to_vec(), attempts: Vec::new(), next, pause: PAUSE.0, said: None }
    }

    /// Whether the last attempt that ended was refused.
    pub(super) fn was_refused(&self) -> bool {
        self.said == Some(Errno::CONNREFUSED)
    }

    /// What was said to the last attempt that ended; nothing while none has.
    pub(super) fn said(&self) -> Option<Errno> {
        self.said
    }

    /// Whether every address that could be tried has said no by now.
    pub(super) fn is_hopeless(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Starts an attempt at every address now.
    pub(super) fn begin(&mut self) {
        for address in self.targets.clone() {
            self.begin_at(address);
        }
    }

    /// Starts an attempt at this one.
    pub(super) fn begin_at(&mut self, address: SocketAddr) {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let began = Instant::now();
        let socket = socket_with(family, SocketType::STREAM, flags, None);
        let begun = socket.and_then(|socket| match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        });
        match begun {
            Ok(socket) => self.attempts.push(Attempt { socket, address, began }),
            Err(error) => self.said = Some(error),
        }
    }

    /// Gives up what is under way: a grant for one connection is not to go to one that nobody waits for.
    pub(super) fn give_up(&mut self) {
        self.attempts.clear();
    }

    /// Makes attempts as often as at first, since something has happened.
    pub(super) fn hurry(&mut self) {
        (self.pause, self.next) = (PAUSE.0, Instant::now() + PAUSE.0);
    }

    /// Starts an attempt if one is due, waits for the next one or as long as this, and says where the port has
    /// opened.
    pub(super) fn turn(&mut self, at_most: Duration) -> io::Result<Option<Open>> {
        if Instant::now() >= self.next {
            self.begin();
            self.pause = (self.pause * 2).min(PAUSE.1);
            self.next = Instant::now() + self.pause;
        }
        self.look(at_most.min(self.next.saturating_duration_since(Instant::now())))
    }

    /// Waits for this long at the most, without starting an attempt.
    pub(super) fn look(&mut self, wait: Duration) -> io::Result<Option<Open>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut fds: Vec<PollFd<'_>> =
            self.attempts.iter().map(|attempt| PollFd::new(&attempt.socket, PollFlags::OUT)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let done: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.harvest(&done)
    }

    /// Ends the attempts that are done; the first that succeeded wins.
    fn harvest(&mut self, done: &[bool]) -> io::Result<Option<Open>> {
        let mut open = None;
        let mut left = Vec::new();
        for (attempt, done) in std::mem::take(&mut self.attempts).into_iter().zip(done) {
            if !done {
                left.push(attempt);
                continue;
            }
            match sockopt::socket_error(&attempt.socket)? {
                Ok(()) => open = open.or(attempt.opened()?),
                Err(error) => self.said = Some(error),
            }
        }
        self.attempts = left;
        Ok(open)
    }
}

impl Attempt {
    /// The connection, if there is one.
    fn opened(self) -> io::Result<Option<Open>> {
        let (stream, round_trip) = (TcpStream::from(self.socket), self.began.elapsed());
        if stream.peer_addr().is_err() {
            return Ok(None);
        }
        stream.set_nonblocking(false)?;
        Ok(Some(Open { stream, address: self.address, round_trip }))
    }
}
