//! Knocks, made before the clock starts and sent when it does, each from an address that has not knocked before: so
//! nobody has to wait for the end of the grant before.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::contenders::Contender;
use crate::machine::SERVER;
use crate::probe::{Opened, Probe};

/// A knock as the datagrams that it consists of, with their ports.
#[derive(Clone)]
pub struct Knock(pub Vec<(u16, Vec<u8>)>);

impl Knock {
    /// Sends it from an address.
    pub fn send(&self, from: Ipv4Addr) -> Outcome<()> {
        let socket = UdpSocket::bind((from, 0))?;
        for (port, datagram) in &self.0 {
            socket.send_to(datagram, (SERVER, *port))?;
        }
        Ok(())
    }
}

/// An address of the client's that has not been used, of the 65,536 of 10.78.0.0/16 that are routed to it.
pub fn fresh_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff;
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 78, 0, 0).to_bits() | number)
}

/// Knocks once and watches the port.
pub fn knock_and_probe<C: Contender + ?Sized>(
    contender: &mut C,
    every: Duration,
    patience: Duration,
) -> Outcome<Option<Opened>> {
    let knock = contender.knock()?;
    let from = fresh_source();
    let probe = Probe { from, port: contender.port(), every, patience };
    let started = Instant::now();
    knock.send(from)?;
    Ok(probe.opened(started)?)
}

/// Fails where the port is open without a knock: what follows would measure nothing.
pub fn ensure_closed<C: Contender + ?Sized>(contender: &C) -> Outcome<()> {
    let patience = Duration::from_millis(50);
    let probe =
        Probe { from: fresh_source(), port: contender.port(), every: Duration::from_millis(1), patience };
    match probe.opened(Instant::now())? {
        None => Ok(()),
        Some(_) => Err(format!("the port of {} is open without a knock", contender.name()).into()),
    }
}
