//! The SYN that this kernel sends, learnt from the kernel itself: a table of systems would be wrong after the next
//! update, and whoever looks for knocks looks for what differs.
//!
//! A connection is tried over loopback with the segment size of the real way, and its SYN is read back from a packet
//! socket. Window, scale, options and their order, flags, TTL and type of service come out as they would towards the
//! server: they follow from settings of the whole machine and from the segment size alone (`tcp_connect_init` and
//! `tcp_select_initial_window` in `net/ipv4/tcp_output.c`). What a single route can set otherwise (`ip route ... window`)
//! is not seen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, connect, eth, getsockname, recv,
    socket_with, sockopt,
};

use crate::sys;

/// How long the SYN may take to come back over loopback.
const PATIENCE: Duration = Duration::from_secs(1);
/// The headers of IP and TCP without options.
const HEADERS: (u32, u32) = (40, 60);

/// What the kernel knows of the way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The address that packets leave from.
    pub(super) source: IpAddr,
    /// The largest packet, in bytes.
    mtu: u32,
    /// The hop limit, or TTL.
    pub(super) hops: u8,
}

impl Route {
    /// Asks the kernel, by a datagram socket that sends nothing.
    ///
    /// # Errors
    /// When there is no way.
    pub(super) fn to(address: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        let (mtu, hops) = match address {
            SocketAddr::V4(_) => {
                (sockopt::ip_mtu(&socket)?, u8::try_from(sockopt::ip_ttl(&socket)?).unwrap_or(64))
            }
            SocketAddr::V6(_) => (sockopt::ipv6_mtu(&socket)?, sockopt::ipv6_unicast_hops(&socket)?),
        };
        Ok(Self { source: socket.local_addr()?.ip(), mtu, hops })
    }

    /// The largest segment that the kernel offers on this way (`ipv4_default_advmss`, `ip6_default_advmss`).
    fn segment_size(&self) -> u32 {
        let headers = if self.source.is_ipv4() { HEADERS.0 } else { HEADERS.1 };
        self.mtu.saturating_sub(headers).min(u32::from(u16::MAX) - headers)
    }
}

/// A whole IP packet: the kernel's SYN for a way like this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<u8>);

impl Template {
    /// Has the kernel make one. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability; `TimedOut` when the SYN does not come back, as when a firewall
    /// stands on loopback.
    pub(super) fn learn(route: &Route) -> io::Result<Self> {
        let (loopback, family, protocol): (IpAddr, _, Protocol) = match route.source {
            IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), AddressFamily::INET, eth::IP),
            IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), AddressFamily::INET6, eth::IPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Before the connection, so that its SYN is not missed.
        let heard = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(protocol))?;
        // A port on which nothing listens and that nobody else gets.
        let closed = socket_with(family, SocketType::STREAM, flags, None)?;
        bind(&closed, &SocketAddr::new(loopback, 0))?;
        let target = SocketAddr::try_from(getsockname(&closed)?)?;
        let caller = socket_with(family, SocketType::STREAM, flags, None)?;
        sys::set_segment_size(caller.as_fd(), route.segment_size())?;
        match connect(&caller, &target) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        read(&heard, target.port())
    }
}

/// The SYN to this port, among whatever else is on its way on this machine.
fn read(heard: &OwnedFd, port: u16) -> io::Result<Template> {
    let begun = Instant::now();
    let mut bytes = vec![0; 256];
    loop {
        let left = PATIENCE.checked_sub(begun.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
        let timeout =
            Timespec { tv_sec: 0, tv_nsec: left.min(Duration::from_millis(999)).subsec_nanos().into() };
        match poll(&mut [PollFd::new(heard, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match recv(heard, bytes.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                let packet = bytes.get(..length).unwrap_or_default();
                if super::packet::is_syn_to(packet, port) {
                    return Ok(Template(packet.to_vec()));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_over_loopback_is_known() {
        let v4 = Route::to("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!((v4.source, v4.segment_size() >= 65_495), ("127.0.0.1".parse().unwrap(), true));
    }
}
