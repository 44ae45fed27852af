//! From the knock to the open port, on the two machines that `tests/bench` makes; `make bench` runs it.
//!
//! Arguments: the process ids of the two machines' first processes, server and client, and the client's bundle.
//! Three ways into the server, measured one after the other over the same cable, each 100 times:
//! a port that is not guarded (what a TCP connection costs at all); the floor, which is a loop in one thread
//! that captures any datagram and adds an element, unasked and unchecked; and `knockd-rs`.

mod measure;

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use knockd_rs::clock;
use knockd_rs::crypto::Secret;
use knockd_rs::enrol::{Carried, load_carried};
use knockd_rs::frame::{self, Link};
use knockd_rs::grant::{Session, Uses};
use knockd_rs::knock::Ask;
use knockd_rs::knock::spa::{ClientIdentity, DEFAULT_PAYLOAD, next_counter, seal};
use knockd_rs::nft::{AdminSets, Change, Door, Firewall, Note, SetName, SetNames};
use knockd_rs::time::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use measure::{Samples, micros};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 100;
/// Time for the machine to fall asleep again, and under the daemon's limit of 50 knocks a second and source.
const PAUSE: Duration = Duration::from_millis(30);
/// A dropped SYN is not answered, and sent again only after a second: so another connection is tried this often.
const TRY_EVERY: Duration = Duration::from_micros(100);
/// When a knock counts as lost.
const PATIENCE: Duration = Duration::from_millis(60);

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const GUARDED: u16 = 22;
const FLOOR: u16 = 23;
const OPEN: u16 = 24;
const FLOOR_KNOCKS: u16 = 62202;

/// The floor's firewall: one guarded port and one set, without anything else in the way.
const FLOOR_RULES: &str = "
table inet floor {
    set doors { type ipv4_addr . inet_proto . inet_service; flags timeout; }
    chain guard {
        type filter hook prerouting priority mangle; policy accept;
        ct state established,related accept
        tcp dport 23 ip saddr . meta l4proto . th dport @doors accept
        tcp dport 23 drop
    }
}";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [server, client, bundle] = arguments.as_slice() else {
        println!("latency: left out: it needs two machines; `make bench` makes them and runs it");
        return Ok(());
    };
    let (server, client) = (namespace(server)?, namespace(client)?);
    enter(&server)?;
    serve()?;
    let elements = watch_elements()?;
    floor()?;
    enter(&client)?;

    let mut plain = Samples::default();
    for _ in 0..ROUNDS {
        sleep(PAUSE);
        plain.add(opened(OPEN, Instant::now())?.ok_or("the open port does not answer")?);
    }
    let socket = KnockSocket::new(FLOOR_KNOCKS)?;
    let floor = series(FLOOR, &elements, |_| socket.send(&[0; 176]))?;
    let socket = KnockSocket::new(62201)?;
    let identity = identity(Path::new(bundle))?;
    let mut last = None;
    // Sealed before the clock starts: the client's own cost is the decoder benchmark's business.
    let packets = (0..=ROUNDS).map(|_| packet(&identity, &mut last)).collect::<Outcome<Vec<_>>>()?;
    let knocks = series(GUARDED, &elements, |round| {
        socket.send(packets.get(round).ok_or("there is a packet for each round")?)
    })?;
    print(&plain, &floor, &knocks);
    Ok(())
}

/// What a way in cost: until its element was in the kernel, and until a connection was made.
#[derive(Default)]
struct Series {
    element: Samples,
    connected: Samples,
    lost: usize,
}

fn series(
    port: u16,
    elements: &Receiver<Instant>,
    mut knock: impl FnMut(usize) -> Outcome<()>,
) -> Outcome<Series> {
    let mut series = Series::default();
    if opened(port, Instant::now())?.is_some() {
        return Err(format!("tcp/{port} is open without a knock").into());
    }
    // The first one warms the caches up, and the daemon's secret shared with this client, and is left out.
    for round in 0..=ROUNDS {
        sleep(PAUSE);
        elements.try_iter().for_each(drop);
        let started = Instant::now();
        knock(round)?;
        let connected = opened(port, started)?;
        let element = elements.recv_timeout(PATIENCE).ok();
        match (connected, element) {
            _ if round == 0 => {}
            (Some(connected), Some(element)) => {
                series.connected.add(connected);
                series.element.add(element.saturating_duration_since(started));
            }
            _ => series.lost += 1,
        }
    }
    Ok(series)
}

fn print(plain: &Samples, floor: &Series, knocks: &Series) {
    Samples::heading(&format!("From the knock to the open port, {ROUNDS} times each, IPv4"));
    plain.print("a TCP connection to a port that is not guarded");
    floor.element.print("floor: any datagram is captured, an element added");
    floor.connected.print("floor: and a connection is made");
    knocks.element.print("knockd-rs: the knock is checked, an element added");
    knocks.connected.print("knockd-rs: and a connection is made");
    let (ours, theirs) = (knocks.connected.median(), floor.connected.median());
    println!(
        "\n  knockd-rs takes {:.1} times the floor: {} more for an X25519 operation, two processes and a journal",
        ours.as_secs_f64() / theirs.as_secs_f64().max(1e-9),
        micros(ours.saturating_sub(theirs)),
    );
    if floor.lost + knocks.lost > 0 {
        println!("  without effect within {PATIENCE:?}: floor {}, knockd-rs {}", floor.lost, knocks.lost);
    }
}

// --- the client's machine -------------------------------------------------------------------------------------

/// How long after `started` a connection to `port` was made; `None` when it was not within the patience.
fn opened(port: u16, started: Instant) -> io::Result<Option<Duration>> {
    let mut attempts: Vec<OwnedFd> = Vec::new();
    let pause = Timespec { tv_sec: 0, tv_nsec: TRY_EVERY.subsec_nanos().into() };
    while started.elapsed() < PATIENCE {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &SocketAddr::new(SERVER, port)) {
            Ok(()) | Err(Errno::INPROGRESS) => attempts.push(socket),
            Err(error) => return Err(error.into()),
        }
        let mut fds: Vec<PollFd<'_>> =
            attempts.iter().map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
        poll(&mut fds, Some(&pause))?;
        let after = started.elapsed();
        if let Some((_, socket)) = fds.iter().zip(&attempts).find(|(fd, _)| !fd.revents().is_empty()) {
            sockopt::socket_error(socket)??;
            return Ok(Some(after));
        }
    }
    Ok(None)
}

/// Where datagrams to `port` are sent from. Whoever answers that nothing listens there makes the next `send` fail.
struct KnockSocket(UdpSocket);

impl KnockSocket {
    fn new(port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((SERVER, port))?;
        Ok(Self(socket))
    }

    fn send(&self, packet: &[u8]) -> Outcome<()> {
        // Takes the answer to the one before out of the way.
        drop(self.0.take_error());
        self.0.send(packet)?;
        Ok(())
    }
}

fn identity(bundle: &Path) -> Outcome<ClientIdentity> {
    let broken = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let Carried::Open(bundle) = load_carried(bundle).map_err(broken)? else {
        return Err("the bundle is under a passphrase".into());
    };
    let enrolment = bundle.into_enrolment(None)?;
    Ok(ClientIdentity {
        keys: enrolment.key_pair().ok_or("the bundle has no key")?,
        psk: enrolment.access.psk.unwrap_or_else(|| Secret::new([0; 32])),
        server: enrolment.access.server_key,
        gate: enrolment.access.gate_key,
    })
}

fn packet(identity: &ClientIdentity, last: &mut Option<Timestamp>) -> Outcome<Vec<u8>> {
    let ask = Ask { uses: Some(Uses::Once), ..Ask::everything() };
    let counter = next_counter(clock::wall(), *last);
    *last = Some(counter);
    let mut ephemeral = [0; 32];
    getrandom::fill(&mut ephemeral)?;
    Ok(seal(&ask, counter, identity, Secret::new(ephemeral), DEFAULT_PAYLOAD)?)
}

// --- the server's machine -------------------------------------------------------------------------------------

fn namespace(process: &str) -> io::Result<File> {
    File::open(format!("/proc/{process}/ns/net"))
}

/// Moves the calling thread, and the threads that it starts from now on.
fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Takes every connection and ends it.
fn serve() -> io::Result<()> {
    for port in [GUARDED, FLOOR, OPEN] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        spawn(move || listener.incoming().for_each(drop));
    }
    Ok(())
}

/// The moments at which the kernel says that an element was added to a set (`NFNLGRP_NFTABLES`).
fn watch_elements() -> Outcome<Receiver<Instant>> {
    const GROUP: u32 = 1 << (7 - 1);
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM`, the second field of `struct nlmsghdr`.
    const NEW_ELEMENT: u16 = 10 << 8 | 12;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
    let (sender, receiver) = channel();
    spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((length, _)) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            let now = Instant::now();
            let message = buffer.get(..length).unwrap_or_default();
            if let [_, _, _, _, kind @ ..] = message.get(..6).unwrap_or_default() {
                if kind == NEW_ELEMENT.to_ne_bytes() && sender.send(now).is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

/// The floor: capture and add, in one thread that knows nobody and remembers nothing.
fn floor() -> Outcome<()> {
    let status = Command::new("nft").arg(FLOOR_RULES).status()?;
    if !status.success() {
        return Err("nft does not take the floor's rules".into());
    }
    let (sender, receiver) = channel();
    spawn(move || {
        if let Err(error) = capture_and_add(&sender) {
            eprintln!("floor: {error}");
        }
    });
    // An error hangs up, and has been printed.
    receiver.recv().map_err(|_| "the floor did not start".into())
}

fn capture_and_add(ready: &Sender<()>) -> Outcome<()> {
    let name = SetName::from_str("inet floor doors").map_err(|error| error.to_string())?;
    let mut sets = AdminSets::start(&SetNames { timed_v4: Some(name), ..SetNames::default() })?;
    let mut capture = pcap::Capture::from_device("eth0")?.immediate_mode(true).open()?;
    capture.filter(&format!("udp dst port {FLOOR_KNOCKS}"), true)?;
    capture.direction(pcap::Direction::In)?;
    let ports = format!("tcp/{FLOOR}").parse()?;
    ready.send(())?;
    loop {
        let packet = capture.next_packet()?;
        let Ok(segment) = frame::parse(Link::Ethernet, packet.data, packet.data.len()) else { continue };
        let (address, uses) = (segment.source, Uses::Many);
        // Closed again before the next round.
        let lifetime = PAUSE / 2;
        sets.apply(&[Change::Open(Door {
            address,
            ports,
            uses,
            session: Session::default(),
            forwards: Vec::new(),
            wide: false,
            lifetime,
            note: Note::default(),
        })])?;
    }
}
