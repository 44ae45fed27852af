//! Who is at the other end of a local connection, by the kernel's word: `SO_PEERCRED` for unix sockets, `sock_diag(7)`
//! for TCP.
//!
//! The question names all four of addresses and ports, and the answer has to name them again: where the kernel finds no
//! such connection it may answer with a listening socket. Whoever cannot be found is nobody; there is no second
//! way, such as reading `/proc/net/tcp`, which shows a torn picture while connections come and go.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// The user who made the socket at the other end of this connection, which has to be on this machine.
///
/// # Errors
/// `NotFound` when there is no such socket any more, and what the kernel says else.
pub(super) fn of_peer(stream: &TcpStream) -> io::Result<u32> {
    let (theirs, ours) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let socket = kernel()?;
    send(&socket, &question(theirs, ours), SendFlags::empty())?;
    let mut bytes = [0; 1024];
    let (length, _) = recv(&socket, &mut bytes, RecvFlags::DONTWAIT)?;
    answer(bytes.get(..length).unwrap_or_default(), theirs, ours)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the kernel knows no such connection"))
}

/// A socket that is connected with the kernel: nobody else can send to it, whatever capabilities they have.
fn kernel() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Whether this kernel answers: asked about a connection of this process with itself.
///
/// # Errors
/// What it says instead.
pub(super) fn try_out() -> io::Result<()> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let _theirs = TcpStream::connect(listener.local_addr()?)?;
    of_peer(&listener.accept()?.0)?;
    if is_one_user(rustix::process::geteuid().as_raw()) {
        return Ok(());
    }
    Err(io::Error::other("this user namespace shows everybody whom it does not know as this user"))
}

/// Whether this number means one user, and not everybody whom this process's user namespace does not know
/// (`user_namespaces(7)`).
pub(super) fn is_one_user(user: u32) -> bool {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    is_one(user, &read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid"))
}

fn is_one(user: u32, map: &str, overflow: &str) -> bool {
    let knows_all = map.split_whitespace().eq(["0", "0", "4294967295"]);
    knows_all || user != overflow.trim().parse().unwrap_or(OVERFLOW)
}

/// Who is shown in place of unknown users, unless the kernel was told otherwise.
const OVERFLOW: u32 = 65_534;

/// An IPv4 address as such, however the socket has it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`: one that may still listen to an answer.
const LIVE: [u8; 3] = [1, 4, 5];

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, all in the order of the machine but for ports and addresses.
fn question(theirs: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 16 + 56;
    let family = if theirs.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = Vec::new();
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender: one question, one socket.
    bytes.extend([0; 8]);
    // No extension; every state.
    bytes.extend([family, IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    bytes.extend(pair(theirs, ours));
    // Any interface; INET_DIAG_NOCOOKIE.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// The head of `struct inet_diag_sockid`: ports and addresses of both ends.
fn pair(theirs: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    };
    let ports = [theirs.port().to_be_bytes(), ours.port().to_be_bytes()].concat();
    [&ports[..], &address(theirs.ip()), &address(ours.ip())].concat()
}

/// The user in `struct nlmsghdr` and `struct inet_diag_msg`, when it is about this very connection, in use by a process.
fn answer(bytes: &[u8], theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk::<16>()?;
    let [_, _, _, _, kind @ .., _, _, _, _, _, _, _, _, _, _] = head;
    let (&[family, state, _timer, _retransmits], rest) = rest.split_first_chunk()?;
    let (ports, rest) = rest.split_first_chunk::<4>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    // Interface and cookie; then how long it lives, and what waits in its two queues.
    let (_, rest) = rest.split_first_chunk::<{ 12 + 12 }>()?;
    let (user, rest) = rest.split_first_chunk::<4>()?;
    let (inode, _) = rest.split_first_chunk::<4>()?;
    let [a, b, c, d] = *ports;
    let end = |address: &[u8; 16], port| SocketAddr::new(read(family, address), u16::from_be_bytes(port));
    let is_it = u16::from_ne_bytes(*kind) == SOCK_DIAG_BY_FAMILY
        && (end(source, [a, b]), end(destination, [c, d])) == (theirs, ours)
        && LIVE.contains(&state)
        // A connection that no process holds any more says that its user is 0.
        && u32::from_ne_bytes(*inode) != 0;
    is_it.then_some(u32::from_ne_bytes(*user))
}

fn read(family: u8, address: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *address;
    if family == AF_INET { IpAddr::from([a, b, c, d]) } else { Ipv6Addr::from(*address).to_canonical() }
}

/// For the fuzzer: an answer that counts names both ends.
#[cfg(feature = "fuzzing")]
pub(super) fn check(bytes: &[u8]) {
    let [theirs, ours] = [([127, 0, 0, 1], 40_000), ([127, 0, 0, 1], 1080)].map(SocketAddr::from);
    if answer(bytes, theirs, ours).is_some() {
        assert!(bytes.get(20..24) == pair(theirs, ours).get(..4), "other ports");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(is_one(0, "0 0 4294967295", text) || !is_one(OVERFLOW, text, ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::geteuid;

    fn connected(listen: &str, host: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let theirs = TcpStream::connect((host, port)).unwrap();
        (theirs, listener.accept().unwrap().0)
    }

    #[test]
    fn the_owner_is_found_on_both_families_and_where_one_is_mapped_into_the_other() {
        for (listen, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let (_theirs, ours) = connected(listen, host);
            assert_eq!(of_peer(&ours).unwrap(), geteuid().as_raw(), "{listen}");
        }
        try_out().unwrap();
    }

    #[test]
    fn who_has_hung_up_already_is_nobody() {
        for host in ["127.0.0.1", "::1"] {
            let (theirs, ours) = connected(&SocketAddr::new(host.parse().unwrap(), 0).to_string(), host);
            drop(theirs);
            assert_eq!(of_peer(&ours).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_listening_socket_on_the_port_of_one_that_is_gone_is_not_taken_for_it() {
        let (theirs, ours) = connected("127.0.0.1:0", "127.0.0.1");
        let address = theirs.local_addr().unwrap();
        // Ended by a reset, so that nothing keeps the port.
        rustix::net::sockopt::set_socket_linger(&theirs, Some(std::time::Duration::ZERO)).unwrap();
        drop(theirs);
        let _listener = TcpListener::bind(address).unwrap();
        assert!(of_peer(&ours).is_err());
    }

    #[test]
    fn where_a_number_stands_for_all_unknown_users_it_is_nobodys() {
        let (all, one, none) = ("         0          0 4294967295\n", "0 1000 1\n", "");
        assert!(is_one(65_534, all, "65534\n"), "that is nobody, and no one else");
        assert!(is_one(1000, one, "65534\n"));
        for (map, overflow) in [(one, "65534\n"), (none, "65534\n"), (none, "")] {
            assert!(!is_one(65_534, map, overflow), "{map:?}, {overflow:?}");
        }
        assert!(!is_one(99, none, "99\n"));
    }

    #[test]
    fn nobody_but_the_kernel_can_answer() {
        let asked = kernel().unwrap();
        let own = SocketAddrNetlink::try_from(rustix::net::getsockname(&asked).unwrap()).unwrap();
        let any = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG));
        let to = SocketAddrNetlink::new(own.pid(), 0);
        rustix::net::sendto(any.unwrap(), &[0; 128], SendFlags::empty(), &to).unwrap_err();
        assert_eq!(recv(&asked, &mut [0; 128], RecvFlags::DONTWAIT).unwrap_err(), rustix::io::Errno::AGAIN);
    }

    #[test]
    fn only_an_answer_about_this_very_connection_counts() {
        let (theirs, ours) = ("127.0.0.1:1000".parse().unwrap(), "127.0.0.1:1080".parse().unwrap());
        let said = |kind: u16, state: u8, theirs, user: u32, inode: u32| {
            let mut bytes = [0; 16].to_vec();
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend([AF_INET, state, 0, 0]);
            bytes.extend(pair(theirs, ours));
            bytes.extend([0; 24]);
            bytes.extend(user.to_ne_bytes());
            bytes.extend(inode.to_ne_bytes());
            answer(&bytes, theirs, ours).filter(|_| answer(&bytes[..bytes.len() - 1], theirs, ours).is_none())
        };
        assert_eq!(said(20, 1, theirs, 1000, 7), Some(1000));
        assert_eq!(said(2, 1, theirs, 1000, 7), None, "an error");
        assert_eq!(said(20, 6, theirs, 0, 0), None, "one that waits for its end");
        assert_eq!(said(20, 1, theirs, 0, 0), None, "one without a process");
        assert_eq!(said(20, 10, theirs, 1000, 7), None, "one that listens");
        let other: SocketAddr = "127.0.0.1:1001".parse().unwrap();
        let mut bytes = [0; 16].to_vec();
        bytes[4..6].copy_from_slice(&20_u16.to_ne_bytes());
        bytes.extend([AF_INET, 1, 0, 0]);
        bytes.extend(pair(other, ours));
        bytes.extend([1; 32]);
        assert_eq!(answer(&bytes, theirs, ours), None, "another connection");
    }
}
