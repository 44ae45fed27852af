//! When a port opens: connections are tried again and again until one is made.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::machine::SERVER;

/// How a port is watched.
#[derive(Clone, Copy)]
pub struct Probe {
    /// Who tries.
    pub from: Ipv4Addr,
    /// Which port of the server.
    pub port: u16,
    /// How long it sleeps between two tries; a try itself takes some 0.03 ms.
    pub every: Duration,
    /// When it gives up.
    pub patience: Duration,
}

/// The fastest there is: with the try itself and the kernel's slack of timers, 0.2 ms.
pub const FINE: Duration = Duration::from_micros(80);
/// For where processors are contended: it leaves them to those who are measured.
pub const COARSE: Duration = Duration::from_millis(1);

/// A port that opened.
#[derive(Clone, Copy)]
pub struct Opened {
    /// How long after the start.
    pub after: Duration,
    /// The longest pause between two tries.
    pub longest_gap: Duration,
}

/// How many tries are kept for an answer. A dropped SYN is not answered and sent again only after a second, so that
/// what is older than these has no answer to expect.
const KEPT: usize = 100;

impl Probe {
    /// Waits until a connection is made; `None` when none was within the patience.
    pub fn opened(&self, started: Instant) -> io::Result<Option<Opened>> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut tries: VecDeque<OwnedFd> = VecDeque::new();
        let mut first = 0_u64;
        let mut longest_gap = Duration::ZERO;
        let mut last = started;
        let nanos = i64::from(self.every.subsec_nanos());
        let pause = Timespec { tv_sec: 0, tv_nsec: nanos };
        while started.elapsed() < self.patience {
            longest_gap = longest_gap.max(last.elapsed());
            last = Instant::now();
            if tries.len() == KEPT {
                drop(tries.pop_front());
                first += 1;
            }
            let socket = self.try_once()?;
            let number = first + u64::try_from(tries.len()).unwrap_or(0);
            epoll::add(&ready, &socket, epoll::EventData::new_u64(number), epoll::EventFlags::OUT)?;
            tries.push_back(socket);
            if poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&pause))? == 0 {
                continue;
            }
            let after = started.elapsed();
            let mut events = Vec::with_capacity(8);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), Some(&now))?;
            for event in &events {
                let place = usize::try_from(event.data.u64().saturating_sub(first)).unwrap_or(usize::MAX);
                let Some(socket) = tries.get(place) else { continue };
                match sockopt::socket_error(socket)? {
                    Ok(()) => return Ok(Some(Opened { after, longest_gap })),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(None)
    }

    /// Connects to a port that is open: how long that took.
    pub fn round_trip(&self) -> io::Result<Duration> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::new(IpAddr::V4(self.from), 0))?;
        let started = Instant::now();
        connect(&socket, &SocketAddr::new(IpAddr::V4(SERVER), self.port))?;
        Ok(started.elapsed())
    }

    fn try_once(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::new(IpAddr::V4(self.from), 0))?;
        match connect(&socket, &SocketAddr::new(IpAddr::V4(SERVER), self.port)) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }
}
