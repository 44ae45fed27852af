//! SCTP ports, on a kernel that has no sockets for it: packets by hand, and who gets them past the guard.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

use crate::common::{CLIENT4, CLIENT6, SERVER4, SERVER6, STRANGER4, STRANGER6, World, is_ready, within};
use crate::grants::{closes_at, deadline};

const PORT: u16 = 3868;

fn raw(address: IpAddr) -> OwnedFd {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let sctp = Protocol::from_raw(132.try_into().unwrap());
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(sctp)).unwrap();
    bind(&socket, &SocketAddr::new(address, 0)).unwrap();
    socket
}

/// CRC32c, RFC 9260, appendix A: bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// An INIT to the port (RFC 9260, section 3.3.2).
fn init(from: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), PORT.to_be_bytes()].concat();
    // Verification tag 0, check sum to come; then the chunk: type 1, 20 bytes, tag, window, streams, TSN.
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// Whether an INIT from this address comes past the guard.
fn arrives(world: &World, from: IpAddr, server: IpAddr) -> bool {
    static PORTS: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(20_000);
    let port = PORTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let ear = world.on_server(|| raw(server));
    within(&world.client, || {
        sendto(raw(from), &init(port), SendFlags::empty(), &SocketAddr::new(server, 0)).unwrap();
    });
    while is_ready(&ear, PollFlags::IN, Duration::from_millis(150)) {
        let mut bytes = [0; 256];
        let (len, _) = recv(&ear, &mut bytes, RecvFlags::empty()).unwrap();
        if bytes[..len].windows(2).any(|pair| pair == port.to_be_bytes()) {
            return true;
        }
    }
    false
}

#[test]
fn a_guarded_sctp_port_opens_for_its_client_until_the_deadline() {
    for (server, client, stranger) in [(SERVER4, CLIENT4, STRANGER4), (SERVER6, CLIENT6, STRANGER6)] {
        let world = World::new();
        world.enrol("laptop", &["--open", "sctp/3868"]);
        world.amend("laptop", "connections = \"many\"\n");
        world.retarget(&server.to_string());
        let mut daemon = world.daemon("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"sctp/3868\"]\n");
        assert!(!arrives(&world, client, server));
        world.knock(&["sctp/3868", "--many", "--for", "3s"]);
        let ends = deadline(&daemon);
        daemon.kill9_both();
        assert!(arrives(&world, client, server) && !arrives(&world, stranger, server));
        std::thread::sleep(ends.saturating_duration_since(std::time::Instant::now()));
        closes_at(ends, || arrives(&world, client, server));
    }
}
