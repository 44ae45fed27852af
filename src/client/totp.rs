//! Knocks that are a sequence of ports by the time: plain connection attempts, which need no privilege.
//!
//! Each attempt is begun and given up at once, so that the kernel sends exactly one SYN.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::counter;
use super::knock::{KnockError, Knocker, Pace, Salvo};
use crate::knock::{Ask, Op, Target, Wanted, totp};

/// The pause between two ports: they have to arrive in their order.
const PAUSE: Duration = Duration::from_millis(40);

/// The ports for each address.
pub(super) struct Sequences(Vec<(SocketAddr, Vec<u16>)>);

impl Knocker<'_> {
    /// A sequence for each address, each of a step of its own: two of one step would be one.
    pub(super) fn totp(&mut self, ask: &Ask, addresses: &[SocketAddr]) -> Result<Sequences, KnockError> {
        let is_sayable = matches!(
            ask,
            Ask { op: Op::Open, target: Target::Source, duration: None, ports: Wanted::Defaults, .. }
        );
        if !is_sayable || self.pinned {
            return Err(KnockError::MoreThanPorts);
        }
        let mut sequences = Vec::new();
        for address in addresses {
            match self.totp_ports() {
                Ok(ports) => sequences.push((*address, ports)),
                // One of the addresses is knocked at, the other one in another try.
                Err(KnockError::TooOften(_)) if !sequences.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Sequences(sequences))
    }

    /// The ports of the next step that this client has not used; it is used after this.
    ///
    /// # Errors
    /// [`KnockError::TooOften`] when the server would not know it yet.
    pub fn totp_ports(&self) -> Result<Vec<u16>, KnockError> {
        let key = totp::key(&self.identity.keys, &self.identity.server, &self.identity.psk);
        let key = key.ok_or(KnockError::ServerKey)?;
        let step = counter::take_step(&self.server.dirs, &self.server.name, (self.clock)())
            .map_err(KnockError::Counter)?;
        let step = step.map_err(KnockError::TooOften)?;
        Ok(totp::ports(&key, step, self.totp_count, &self.ground))
    }
}

impl Salvo for Sequences {
    fn copies(&self, _pace: Pace) -> &'static [Duration] {
        &[Duration::ZERO]
    }

    /// A step is good once, and there are two at a time: what can be said is said in one go.
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
        for (address, ports) in &self.0 {
            for (number, port) in ports.iter().enumerate() {
                if number > 0 {
                    sleep(PAUSE);
                }
                match hit(SocketAddr::new(address.ip(), *port)) {
                    Ok(()) => sent = true,
                    Err(error) => {
                        failed = Some(KnockError::Send { address: *address, error });
                        break;
                    }
                }
            }
        }
        match failed {
            Some(error) if !sent => Err(error),
            _ => Ok(()),
        }
    }
}

/// Begins to connect, which sends a SYN, and gives up, which sends nothing where nobody has answered yet.
fn hit(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &address) {
        // Over loopback the refusal is there at once.
        Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
