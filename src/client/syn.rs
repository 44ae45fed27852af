//! Knocks that are one SYN: the kernel's own in everything but the two fields that carry the code.
//!
//! The SYN is learnt from the running kernel ([`template`]), changed where a new connection's would differ
//! ([`packet`]), and sent by a raw socket, which takes `CAP_NET_RAW`. One packet a knock, and no copies: a second SYN
//! with the same numbers would be what a kernel sends that got no answer, a second later.

mod packet;
mod template;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use super::counter;
use super::knock::{KnockError, Knocker, Pace, Salvo, random};
use crate::knock::syn::CodeKey;
use crate::knock::{Ask, Op, ServiceTag, Target, Wanted};
use packet::Change;
use template::{Route, Template};

/// One SYN for each address.
pub(super) struct Syns(Vec<(OwnedFd, SocketAddr, Vec<u8>)>);

impl Knocker<'_> {
    /// One SYN for each address, each in a slot of its own.
    pub(super) fn syns(&mut self, ask: &Ask, addresses: &[SocketAddr]) -> Result<Syns, KnockError> {
        let service = sayable(ask).filter(|_| !self.pinned).ok_or(KnockError::Unsayable)?;
        let shared = self.identity.keys.agree(&self.identity.server).ok_or(KnockError::ServerKey)?;
        let key = CodeKey::new(&shared, &self.identity.psk);
        let mut syns = Vec::new();
        let mut failed = None;
        for address in addresses {
            let prepared = Route::to(*address)
                .and_then(|route| Ok((raw_socket(*address)?, Template::learn(&route)?, route)))
                .map_err(|error| cannot(*address, error));
            let (socket, template, route) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let slot = counter::take_slot(&self.server.dirs, &self.server.name, (self.clock)())
                .map_err(KnockError::Counter)?;
            let slot = slot.map_err(KnockError::TooOften)?;
            let [a, b, c, d, ..] = *random()?.expose();
            let change = Change {
                source: route.source,
                destination: *address,
                hops: route.hops,
                random: u32::from_be_bytes([a, b, c, d]),
                syn: key.pack(slot, service),
            };
            let bytes = packet::rewritten(&template, &change).ok_or(KnockError::NoTimestamps)?;
            syns.push((socket, *address, bytes));
        }
        match failed {
            Some(error) if syns.is_empty() => Err(error),
            _ => Ok(Syns(syns)),
        }
    }
}

/// The service, or everything, if that is all that is asked for.
fn sayable(ask: &Ask) -> Option<Option<ServiceTag>> {
    match (ask.op, ask.target, ask.duration, &ask.ports) {
        (Op::Open, Target::Source, None, Wanted::Defaults) => Some(None),
        (Op::Open, Target::Source, None, Wanted::Service(tag)) => Some(Some(*tag)),
        _ => None,
    }
}

fn cannot(address: SocketAddr, error: io::Error) -> KnockError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => KnockError::NoRawSocket,
        _ => KnockError::Send { address, error },
    }
}

/// A socket that sends whole packets: `IPPROTO_RAW` means that the header is ours (`raw(7)`).
fn raw_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?)
}

impl Salvo for Syns {
    fn copies(&self, _pace: Pace) -> &'static [Duration] {
        &[Duration::ZERO]
    }

    /// Longer than where knocks cost nothing: a step has four slots, and two families take two of them.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// A connection that comes too early tries again only after a second.
    fn settling(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn send(&mut self) -> Result<(), KnockError> {
        let mut failed = None;
        let mut sent = false;
        for (socket, address, packet) in &self.0 {
            // The port in a raw socket's address must be zero (`ipv6(7)`, `raw(7)`).
            let to = SocketAddr::new(address.ip(), 0);
            match sendto(socket, packet, SendFlags::empty(), &to) {
                Ok(_) => sent = true,
                Err(error) => failed = Some(cannot(*address, error.into())),
            }
        }
        match failed {
            Some(error) if !sent => Err(error),
            _ => Ok(()),
        }
    }
}

/// For the fuzzer: another connection's SYN out of this one's.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_packet(
    packet: &[u8],
    source: std::net::IpAddr,
    destination: SocketAddr,
    syn: crate::frame::Syn,
) {
    packet::check(packet, &Change { source, destination, hops: 64, random: 0x1234_5678, syn });
}
