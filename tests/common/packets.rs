//! Knocks as bytes: heard on the server, made without the client's pauses, sent again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, eth, ipproto, recv, sendto, socket_with,
};

use knockd_rs::client::store::{Dirs, load_server};
use knockd_rs::clock;
use knockd_rs::crypto::Secret;
use knockd_rs::grant::{Session, Uses};
use knockd_rs::knock::spa::{ClientIdentity, DEFAULT_PAYLOAD, next_counter, seal};
use knockd_rs::knock::{Ask, Op, Target, Wanted};
use knockd_rs::time::Timestamp;

use super::{KNOCK_PORT, SOON, wait_for};

/// Hears what is sent to the knock port, as somebody on the way would. The daemon itself has no socket there.
pub struct Ear(UdpSocket);

impl Ear {
    /// Listens, in the namespace of this thread.
    pub fn open() -> Self {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, KNOCK_PORT)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// Every different packet that has come since the last call, in order.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let mut packets: Vec<Vec<u8>> = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(len) = self.0.recv(&mut buffer) {
            if !packets.iter().any(|known| known == &buffer[..len]) {
                packets.push(buffer[..len].to_vec());
            }
        }
        packets
    }

    /// The one packet that has come, or is about to.
    pub fn one(&self) -> Vec<u8> {
        let mut packets = Vec::new();
        assert!(
            wait_for(SOON, || {
                packets.extend(self.heard());
                !packets.is_empty()
            }),
            "nothing was sent to the knock port"
        );
        packets.swap_remove(0)
    }
}

/// Makes knocks with the client's keys, and counters of its own, each above the last.
pub struct Sealer {
    identity: ClientIdentity,
    last: Option<Timestamp>,
}

impl Sealer {
    /// With what the client under this home knows of a server.
    pub fn load(home: &Path, server: &str) -> Self {
        let dirs =
            Dirs { config: home.join(".config/knockd-rs"), state: home.join(".local/state/knockd-rs") };
        let enrolment = load_server(&dirs, &server.parse().unwrap()).unwrap();
        let access = &enrolment.access;
        let psk = access.psk.clone().unwrap_or_else(|| Secret::new([0; 32]));
        let identity = ClientIdentity {
            keys: enrolment.key_pair().expect("a profile with a key"),
            psk,
            server: access.server_key,
            gate: access.gate_key.clone(),
        };
        Self { identity, last: None }
    }

    /// A packet that asks for what the profile opens by itself, for this address or for its source.
    pub fn knock(&mut self, target: Option<IpAddr>) -> Vec<u8> {
        let counter = next_counter(clock::wall(), self.last);
        self.last = Some(counter);
        let ask = Ask {
            op: Op::Open,
            target: target.map_or(Target::Source, Target::Address),
            uses: Some(Uses::Once),
            session: Session::default(),
            wide: false,
            duration: None,
            ports: Wanted::Defaults,
        };
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        seal(&ask, counter, &self.identity, Secret::new(random), DEFAULT_PAYLOAD).unwrap()
    }
}

/// Sees every IP packet of a namespace, coming and going.
pub struct Tap(OwnedFd);

impl Tap {
    /// Taps the namespace of this thread.
    pub fn open() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Self(socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(eth::ALL)).unwrap())
    }

    /// The TCP segments that came or went since the last call, each with its IP header, after a moment for the last.
    pub fn tcp(&self) -> Vec<Vec<u8>> {
        std::thread::sleep(Duration::from_millis(100));
        let mut packets = Vec::new();
        let mut buffer = vec![0; 2048];
        while let Ok((len, _)) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
            let packet = &buffer[..len];
            let transport = match packet[0] >> 4 {
                4 => packet[9],
                6 => packet[6],
                _ => 0,
            };
            if transport == 6 {
                packets.push(packet.to_vec());
            }
        }
        packets
    }
}

/// Sends whole IP packets, from the namespace of the thread that made it.
pub struct Raw(OwnedFd, IpAddr);

impl Raw {
    /// For packets to this address.
    pub fn open(to: IpAddr) -> Self {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        Self(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).unwrap(), to)
    }

    /// Sends one.
    pub fn send(&self, packet: &[u8]) {
        sendto(&self.0, packet, SendFlags::empty(), &SocketAddr::new(self.1, 0)).unwrap();
    }
}

/// Sends bytes to the knock port, from the namespace of this thread.
pub fn send(from: Option<IpAddr>, to: IpAddr, packet: &[u8]) {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0)).unwrap();
    // The server may answer that nobody listens there; that is not what is asked here.
    let _ = socket.send_to(packet, (to, KNOCK_PORT));
    std::thread::sleep(Duration::from_millis(1));
}
