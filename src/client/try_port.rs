//! Trying a TCP port until it opens: several connection attempts at a time, each started a little later than the
//! one before, so that the answer comes soon after the grant on a fast network and is not given up on a slow one.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// The first pause between two attempts; each is twice the one before, up to the longest.
const FIRST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);
/// The first pause where an answer is expected.
const CALM: Duration = Duration::from_millis(300);

/// A port that is tried again and again until it opens.
pub(super) trait Trying {
    /// What an open port gives.
    type Socket;

    /// When the next attempt is due.
    fn rhythm(&mut self) -> &mut Rhythm;

    /// Starts an attempt now.
    fn begin(&mut self);

    /// Waits for this long at the most, without starting an attempt.
    fn look(&mut self, wait: Duration) -> io::Result<Option<Open<Self::Socket>>>;

    /// What was said to the last attempt that ended; nothing while none has.
    fn said(&self) -> Option<io::ErrorKind>;

    /// Whether that was a refusal.
    fn was_refused(&self) -> bool {
        self.said() == Some(io::ErrorKind::ConnectionRefused)
    }

    /// Whether every address that could be tried has said no by now.
    fn is_hopeless(&self) -> bool;

    /// Makes attempts as often as at first, since something has happened.
    fn hurry(&mut self) {
        let first = self.rhythm().first;
        *self.rhythm() = Rhythm::new(first);
    }

    /// Starts an attempt if one is due, waits for the next one or as long as this, and says where the port has
    /// opened.
    fn turn(&mut self, at_most: Duration) -> io::Result<Option<Open<Self::Socket>>> {
        if Instant::now() >= self.rhythm().next {
            self.begin();
            self.rhythm().slow_down();
        }
        let left = self.rhythm().next.saturating_duration_since(Instant::now());
        self.look(at_most.min(left))
    }
}

/// When attempts are due: soon after one another at first, then less and less often.
pub(super) struct Rhythm {
    first: Duration,
    pause: Duration,
    next: Instant,
}

impl Rhythm {
    /// The first attempt is due after the first pause.
    pub(super) fn new(first: Duration) -> Self {
        Self { first, pause: first, next: Instant::now() + first }
    }

    fn slow_down(&mut self) {
        self.pause = (self.pause * 2).min(LONGEST);
        self.next = Instant::now() + self.pause;
    }
}

/// The attempts under way.
pub(super) struct Tries {
    targets: Vec<SocketAddr>,
    attempts: Vec<Attempt>,
    rhythm: Rhythm,
    said: Option<Errno>,
}

struct Attempt {
    socket: OwnedFd,
    address: SocketAddr,
    began: Instant,
}

/// A port that opened.
#[derive(Debug)]
pub(super) struct Open<S> {
    /// The connection.
    pub(super) socket: S,
    /// Where it goes.
    pub(super) address: SocketAddr,
    /// How long it took from its first SYN on; `None` when it is not known which packet was answered.
    pub(super) round_trip: Option<Duration>,
}

impl Tries {
    /// The first attempt is due after the first pause.
    pub(super) fn new(targets: &[SocketAddr]) -> Self {
        Self { targets: targets.to_vec(), attempts: Vec::new(), rhythm: Rhythm::new(FIRST), said: None }
    }

    /// For a port that should be open: an attempt now, and further ones only where answers take long, since each of
    /// them may be a connection that the server has to accept.
    pub(super) fn calm(targets: &[SocketAddr]) -> Self {
        let mut tries = Self::new(targets);
        tries.begin();
        tries.rhythm = Rhythm { first: FIRST, pause: CALM / 2, next: Instant::now() + CALM };
        tries
    }

    /// What becomes ready when an attempt has ended.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attempts.iter().map(|attempt| attempt.socket.as_fd())
    }

    /// How long until another attempt is due.
    pub(super) fn due_in(&self) -> Duration {
        self.rhythm.next.saturating_duration_since(Instant::now())
    }

    /// Starts an attempt at this address.
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

    /// Ends the attempts that are done; the first that succeeded wins.
    fn harvest(&mut self, done: &[bool]) -> io::Result<Option<Open<TcpStream>>> {
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

impl Trying for Tries {
    type Socket = TcpStream;

    fn rhythm(&mut self) -> &mut Rhythm {
        &mut self.rhythm
    }

    fn begin(&mut self) {
        for address in self.targets.clone() {
            self.begin_at(address);
        }
    }

    fn look(&mut self, wait: Duration) -> io::Result<Option<Open<TcpStream>>> {
        let sockets: Vec<&OwnedFd> = self.attempts.iter().map(|attempt| &attempt.socket).collect();
        let done = ready(&sockets, PollFlags::OUT, wait)?;
        self.harvest(&done)
    }

    fn said(&self) -> Option<io::ErrorKind> {
        self.said.map(|errno| io::Error::from(errno).kind())
    }

    fn is_hopeless(&self) -> bool {
        self.attempts.is_empty()
    }
}

/// Which of these sockets are ready, after this long at the most.
pub(super) fn ready(sockets: &[impl AsFd], what: PollFlags, wait: Duration) -> io::Result<Vec<bool>> {
    let timeout = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    };
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket, what)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

impl Attempt {
    /// The connection, if there is one.
    fn opened(self) -> io::Result<Option<Open<TcpStream>>> {
        let (stream, round_trip) = (TcpStream::from(self.socket), Some(self.began.elapsed()));
        if stream.peer_addr().is_err() {
            return Ok(None);
        }
        stream.set_nonblocking(false)?;
        Ok(Some(Open { socket: stream, address: self.address, round_trip }))
    }
}
