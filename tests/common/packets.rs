//! Knocks as bytes: heard on the server, sealed without the client's pauses, sent again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use knockd_rs::client::store::{Dirs, load_server};
use knockd_rs::clock;
use knockd_rs::crypto::Secret;
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
            keys: enrolment.key_pair(),
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
            single: true,
            duration: None,
            ports: Wanted::Defaults,
        };
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        seal(&ask, counter, &self.identity, Secret::new(random), DEFAULT_PAYLOAD).unwrap()
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
