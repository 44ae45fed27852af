//! Knocks that are one datagram: `spa`, and `cert`.
//!
//! Each packet is sent three times, byte for byte the same: the server drops copies silently, so a lost packet costs
//! a quarter of a second instead of a failure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::counter;
use super::knock::{KnockError, Knocker, Pace, Salvo, random};
use crate::knock::spa::{DEFAULT_PAYLOAD, seal};
use crate::knock::{Ask, Target};
use crate::time::Timestamp;

/// When the copies of one packet are sent.
const COPIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];
/// The same where the way is known to be open.
const QUICK_COPIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(90)];

/// One datagram for each address.
pub(super) struct Datagrams(Vec<(UdpSocket, Vec<u8>)>);

impl Knocker<'_> {
    /// The packets of `spa`.
    pub(super) fn spa(&mut self, ask: &Ask, addresses: &[SocketAddr]) -> Result<Datagrams, KnockError> {
        let identity = self.identity.clone();
        self.datagrams(ask, addresses, |ask, counter| {
            seal(ask, counter, &identity, random()?, DEFAULT_PAYLOAD).map_err(KnockError::Seal)
        })
    }

    /// One packet for each address, each with a counter of its own: two packets with one counter would be one.
    pub(super) fn datagrams(
        &mut self,
        ask: &Ask,
        addresses: &[SocketAddr],
        mut seal: impl FnMut(&Ask, Timestamp) -> Result<Vec<u8>, KnockError>,
    ) -> Result<Datagrams, KnockError> {
        let mut packets = Vec::new();
        let mut unreachable = None;
        for address in addresses {
            let socket = match connect(*address) {
                Ok(socket) => socket,
                Err(error) => {
                    unreachable = Some(KnockError::Send { address: *address, error });
                    continue;
                }
            };
            let mut ask = ask.clone();
            if self.pinned && ask.target == Target::Source {
                let local =
                    socket.local_addr().map_err(|error| KnockError::Send { address: *address, error })?;
                ask.target = Target::SourceOnly(local.ip());
            }
            let counter = counter::take(&self.server.dirs, &self.server.name, (self.clock)())
                .map_err(KnockError::Counter)?;
            self.oddity = self.oddity.take().or(counter.warning);
            packets.push((socket, seal(&ask, counter.value)?));
        }
        match unreachable {
            Some(error) if packets.is_empty() => Err(error),
            _ => Ok(Datagrams(packets)),
        }
    }
}

impl Salvo for Datagrams {
    fn copies(&self, pace: Pace) -> &[Duration] {
        match pace {
            Pace::Usual => &COPIES,
            Pace::Quick => &QUICK_COPIES,
        }
    }

    /// One copy of each packet. An error may be the ICMP answer to the copy before, which the socket tells with the next
    /// call and only once: a closed port's, or that of a firewall which rejects what it has no rule for, whatever its
    /// kind. The daemon has heard that copy all the same. What stands in the way here is told twice.
    fn send(&mut self) -> Result<(), KnockError> {
        let mut failed = None;
        let mut sent = false;
        for (socket, packet) in &self.0 {
            match socket.send(packet).or_else(|_answer| socket.send(packet)) {
                Ok(_) => sent = true,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    let address = socket.peer_addr().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
                    failed = Some(KnockError::Send { address, error });
                }
            }
        }
        match failed {
            Some(error) if !sent => Err(error),
            _ => Ok(()),
        }
    }
}

/// A socket towards the address: only for its routing and its own address, nothing is received.
pub(super) fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}
