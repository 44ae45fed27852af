//! What an agent waits for: its deadline, signals, answers of the resolver, connections, and word from the kernel that
//! the network or the clock is another one.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// The groups of `linux/rtnetlink.h`, one bit each: links, and of both families addresses, routes and rules.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x4_0000;
/// How many messages are read before anything else is looked at.
const AT_ONCE: usize = 64;
/// A time that does not come: 2100-01-01.
const NEVER: i64 = 4_102_444_800;

/// Everything that wakes an agent.
pub(super) struct Wake {
    network: OwnedFd,
    deadline: OwnedFd,
    clock: OwnedFd,
    bell: UnixStream,
    rope: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// Why it woke. Deadlines, answers and connections need no word: whoever waits for them looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// The network may be another one.
    pub(super) network: bool,
    /// The clock was set, or the machine was asleep.
    pub(super) clock: bool,
    /// To end.
    pub(super) stop: bool,
    /// To read files again.
    pub(super) reload: bool,
}

impl Wake {
    /// Begins to listen.
    pub(super) fn install() -> io::Result<Self> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, seen) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            flag::register(signal, Arc::clone(seen))?;
            pipe::register(signal, rope.try_clone()?)?;
        }
        let timer = |clock| timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        let clock = timer(TimerfdClockId::Realtime)?;
        // It is cancelled when the clock is set, which it is after a sleep too: timerfd_create(2).
        let how = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&clock, how, &once(Timespec { tv_sec: NEVER, tv_nsec: 0 }))?;
        // This clock counts through sleep, as grants on the server do.
        Ok(Self {
            network: network()?,
            deadline: timer(TimerfdClockId::Boottime)?,
            clock,
            bell,
            rope,
            stop,
            reload,
        })
    }

    /// Something that wakes the agent when a byte is written to it.
    pub(super) fn rope(&self) -> io::Result<UnixStream> {
        self.rope.try_clone()
    }

    /// Waits until this time, a signal, an answer, a connection on one of these sockets, or a change.
    pub(super) fn wait(&self, until: Option<Duration>, sockets: &[BorrowedFd<'_>]) -> io::Result<Woken> {
        let at = until.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |until| Timespec {
            tv_sec: i64::try_from(until.as_secs()).unwrap_or(NEVER),
            // All zero would be never.
            tv_nsec: i64::from(until.subsec_nanos()).max(1),
        });
        timerfd_settime(&self.deadline, TimerfdTimerFlags::ABSTIME, &once(at))?;
        let own = [self.network.as_fd(), self.deadline.as_fd(), self.clock.as_fd(), self.bell.as_fd()];
        let waiting = own.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let trying = sockets.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::OUT));
        let mut fds: Vec<PollFd<'_>> = waiting.chain(trying).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        let mut drained = [0; 64];
        while matches!((&self.bell).read(&mut drained), Ok(1..)) {}
        let _ = read(&self.deadline, &mut drained);
        Ok(Woken {
            network: has_news(&self.network),
            clock: read(&self.clock, &mut drained) == Err(Errno::CANCELED),
            stop: self.stop.load(Ordering::SeqCst),
            reload: self.reload.swap(false, Ordering::SeqCst),
        })
    }
}

fn once(it_value: Timespec) -> Itimerspec {
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value }
}

/// A socket that hears of every change of links, addresses, routes and rules (`rtnetlink(7)`).
fn network() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // No protocol is number 0, which is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Whether something was said. What it was is not read: it is a hint to look, and so is that messages were lost
/// (`ENOBUFS`).
fn has_news(socket: &OwnedFd) -> bool {
    let mut message = [0; 4096];
    (0..AT_ONCE).take_while(|_| matches!(read(socket, &mut message), Ok(_) | Err(Errno::NOBUFS))).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::io::Write as _;
    use std::time::Instant;

    #[test]
    fn an_agent_sleeps_until_its_deadline_and_no_longer_than_until_the_bell_rings() {
        let wake = Wake::install().unwrap();
        let started = Instant::now();
        wake.wait(Some(clock::uptime() + Duration::from_millis(50)), &[]).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(45));
        wake.rope().unwrap().write_all(&[1]).unwrap();
        let woken = wake.wait(None, &[]).unwrap();
        assert!(!woken.stop && !woken.reload);
    }

    #[test]
    fn a_deadline_that_is_over_wakes_at_once() {
        let wake = Wake::install().unwrap();
        wake.wait(Some(Duration::ZERO), &[]).unwrap();
    }
}
