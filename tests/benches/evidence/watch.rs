//! The server's side of a knock: when its last packet came to the interface, and when the kernel said that a set has a
//! new element (`NFNLGRP_NFTABLES`). Both by the clock of the wall, since the kernel stamps packets with it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, SystemTime};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::Outcome;
use crate::machine::Machines;

/// Both kinds of moments, as they come.
pub struct Watch {
    packets: Receiver<Duration>,
    elements: Receiver<Duration>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(machines: &Machines) -> Outcome<Self> {
        machines.on_server(|| Ok(Self { packets: packets()?, elements: elements()? }))
    }

    /// Forgets what came before.
    pub fn forget(&self) {
        self.packets.try_iter().chain(self.elements.try_iter()).for_each(drop);
    }

    /// From the packet to the element of the knock that was sent since; `None` where one of them is missing.
    pub fn packet_to_element(&self) -> Option<Duration> {
        let soon = Duration::from_millis(100);
        let packet = self.packets.recv_timeout(soon).ok()?;
        self.elements.recv_timeout(soon).ok()?.checked_sub(packet)
    }
}

fn packets() -> Outcome<Receiver<Duration>> {
    let mut capture = pcap::Capture::from_device("eth0")?.immediate_mode(true).timeout(100).open()?;
    capture.filter("udp dst portrange 62201-62202", true)?;
    capture.direction(pcap::Direction::In)?;
    let (sender, receiver) = channel();
    spawn(move || {
        loop {
            let stamp = match capture.next_packet() {
                Ok(packet) => packet.header.ts,
                Err(pcap::Error::TimeoutExpired) => continue,
                Err(_) => return,
            };
            let [seconds, micros] =
                [stamp.tv_sec, stamp.tv_usec].map(|part| u64::try_from(part).unwrap_or(0));
            let at = Duration::from_secs(seconds) + Duration::from_micros(micros);
            if sender.send(at).is_err() {
                return;
            }
        }
    });
    // libpcap has its socket already; the kernel may still be filling in the ring.
    sleep(Duration::from_millis(20));
    Ok(receiver)
}

fn elements() -> Outcome<Receiver<Duration>> {
    const GROUP: u32 = 1 << (7 - 1);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
    let (sender, receiver) = channel();
    spawn(move || notices(&socket, &sender));
    Ok(receiver)
}

fn notices(socket: &std::os::fd::OwnedFd, sender: &Sender<Duration>) {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM`, the second field of `struct nlmsghdr`.
    const NEW_ELEMENT: u16 = 10 << 8 | 12;
    let mut buffer = [0; 65_536];
    while let Ok((length, _)) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let message = buffer.get(..length).unwrap_or_default();
        if let [_, _, _, _, kind @ ..] = message.get(..6).unwrap_or_default() {
            if kind == NEW_ELEMENT.to_ne_bytes() && sender.send(now).is_err() {
                return;
            }
        }
    }
}
