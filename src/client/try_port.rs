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
    attempts: Vec<(OwnedFd, SocketAddr)>,
    next: Duration,
    pause: Duration,
    refused: bool,
}

impl Tries {
    pub(super) fn new(targets: &[SocketAddr]) -> Self {
        let next = PAUSE.0;
        Self { targets: targets.to_vec(), attempts: Vec::new(), next, pause: PAUSE.0, refused: false }
    }

    /// Whether the last attempt that ended was refused.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Starts an attempt if one is due, waits until `until` after `started` at the longest, and says where the
    /// port has opened.
    pub(super) fn turn(&mut self, started: Instant, until: Duration) -> io::Result<Option<SocketAddr>> {
        if started.elapsed() >= self.next {
            self.begin();
            self.pause = (self.pause * 2).min(PAUSE.1);
            self.next = started.elapsed() + self.pause;
        }
        let wait = self.next.min(until).saturating_sub(started.elapsed());
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut fds: Vec<PollFd<'_>> =
            self.attempts.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::OUT)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let done: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.harvest(&done)
    }

    /// Ends the attempts that are done; the first that succeeded wins.
    fn harvest(&mut self, done: &[bool]) -> io::Result<Option<SocketAddr>> {
        let mut open = None;
        let mut left = Vec::new();
        for ((socket, address), done) in std::mem::take(&mut self.attempts).into_iter().zip(done) {
            if !done {
                left.push((socket, address));
                continue;
            }
            match sockopt::socket_error(&socket)? {
                Ok(()) if TcpStream::from(socket).peer_addr().is_ok() => open = open.or(Some(address)),
                Ok(()) => {}
                Err(error) => self.refused = error == Errno::CONNREFUSED,
            }
        }
        self.attempts = left;
        Ok(open)
    }

    fn begin(&mut self) {
        for address in &self.targets {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let Ok(socket) = socket_with(family, SocketType::STREAM, flags, None) else { continue };
            match connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS) => self.attempts.push((socket, *address)),
                Err(error) => self.refused = error == Errno::CONNREFUSED,
            }
        }
    }
}
