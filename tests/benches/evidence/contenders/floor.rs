//! The floor: one loop in one thread that captures datagrams of the right shape and adds an element to a set. It asks
//! for no proof and remembers nothing, so that nothing which opens ports by captured packets can be much cheaper. Its
//! ring and its niceness are those of knockd-rs.

use std::net::IpAddr;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use knockd_rs::frame::{self, Body, Link};
use knockd_rs::grant::{Session, Uses};
use knockd_rs::nft::{AdminSets, Change, Door, Firewall, Note, SetName, SetNames};

use super::Contender;
use crate::Outcome;
use crate::knocks::Knock;
use crate::machine::{Machines, Running};
use crate::traffic::{Junk, random_bytes};

/// The argument by which the harness starts itself as the floor.
pub const WORD: &str = "--as-the-floor";

const PORT: u16 = 23;
const KNOCKS: u16 = 62_202;
/// How a datagram begins that it takes for a knock.
const MARK: &[u8; 8] = b"open now";
const LENGTH: usize = 176;

const RULES: &str = "
table inet floor {
    set doors { type ipv4_addr . inet_proto . inet_service; flags timeout; }
    chain guard {
        type filter hook prerouting priority mangle; policy accept;
        ct state established,related accept
        tcp dport 23 ip saddr . meta l4proto . th dport @doors accept
        tcp dport 23 drop
    }
}";

struct Floor {
    running: Running,
}

pub(super) fn start(machines: &Machines) -> Outcome<Box<dyn Contender>> {
    let server = machines.server();
    std::fs::copy(std::env::current_exe()?, server.path("/usr/local/bin/floor"))?;
    server.run("nft delete table inet floor 2>/dev/null || true")?;
    let command = format!("{} /usr/local/bin/floor {WORD}", super::as_nice_as_the_unit()?);
    let mut running = server.start(&command, "/var/log/floor.log")?;
    running.await_ready(Duration::from_secs(10), |running| running.log().contains("ready"))?;
    Ok(Box::new(Floor { running }))
}

impl Contender for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn running(&self) -> &Running {
        &self.running
    }

    fn knock(&mut self) -> Outcome<Knock> {
        let mut datagram = MARK.to_vec();
        datagram.resize(LENGTH, 0);
        Ok(Knock(vec![(KNOCKS, datagram)]))
    }

    fn random_junk(&self) -> Outcome<Junk> {
        let payloads = (0..1024).map(|_| random_bytes(LENGTH)).collect::<Outcome<_>>()?;
        Ok(Junk::datagrams(KNOCKS, payloads))
    }
}

/// The loop itself, in a process of its own on the server.
pub fn serve() -> Outcome<()> {
    let status = Command::new("nft").arg(RULES).status()?;
    if !status.success() {
        return Err("nft does not take the floor's rules".into());
    }
    let name = SetName::from_str("inet floor doors").map_err(|error| error.to_string())?;
    let mut sets = AdminSets::start(&SetNames { timed_v4: Some(name), ..SetNames::default() })?;
    // A ring of as many frames as that of knockd-rs: libpcap's own takes 32.
    let capture = pcap::Capture::from_device("eth0")?.snaplen(1920).buffer_size(4 * 1024 * 1024);
    let mut capture = capture.immediate_mode(true).open()?;
    capture.filter(&format!("udp dst port {KNOCKS}"), true)?;
    capture.direction(pcap::Direction::In)?;
    println!("ready");
    loop {
        let packet = capture.next_packet()?;
        let Ok(segment) = frame::parse(Link::Ethernet, packet.data, packet.data.len()) else { continue };
        let Body::Datagram(payload) = segment.body else { continue };
        if payload.starts_with(MARK) {
            sets.apply(&[Change::Open(door(segment.source)?)])?;
        }
    }
}

fn door(address: IpAddr) -> Outcome<Door> {
    Ok(Door {
        address,
        ports: format!("tcp/{PORT}").parse()?,
        uses: Uses::Many,
        session: Session::default(),
        forwards: Vec::new(),
        wide: false,
        lifetime: Duration::from_secs(15),
        note: Note::default(),
    })
}
