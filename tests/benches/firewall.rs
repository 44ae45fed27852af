//! What the kernel's firewall costs the monitor: one `apply`, from the call to the kernel's answer.
//!
//! `cargo bench --bench firewall`, as root. Starts itself again in a network namespace of its own and never
//! touches the host's firewall.

mod measure;

use std::error::Error;
use std::fs::read_link;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use knockd_rs::nft::{Change, Closed, Door, Firewall, Guarded, Note, Session, Table, TableOptions, Uses};
use knockd_rs::text::{PortRange, Protocol};

use measure::Samples;

const ROUNDS: u32 = 1_000;
/// As many as `limits.grants` can allow.
const FULL: u32 = 65_535;
const INSIDE: &str = "inside";

fn main() -> Result<(), Box<dyn Error>> {
    if !rustix::process::geteuid().is_root() {
        println!("firewall: left out: it makes a network namespace, which needs root");
        return Ok(());
    }
    if std::env::args().any(|word| word == INSIDE) {
        return inside();
    }
    let status = Command::new("unshare").arg("--net").arg(std::env::current_exe()?).arg(INSIDE).status()?;
    if status.success() { Ok(()) } else { Err(format!("the benchmark in its namespace: {status}").into()) }
}

fn inside() -> Result<(), Box<dyn Error>> {
    let outer =
        format!("/proc/{}/ns/net", rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get()));
    if read_link("/proc/self/ns/net")? == read_link(outer)? {
        return Err("this is the host's own network namespace; run `cargo bench --bench firewall`".into());
    }
    let ssh: PortRange = "tcp/22".parse()?;
    let guard = Guarded { ports: ssh, closed: Closed::Drop, lifetime: None };
    let mut table = Table::start(TableOptions::default(), &[guard])?;
    Samples::heading("What one change of the firewall costs the monitor");
    let first = series(&mut table, "open a port, few grants live", ROUNDS, |place| open(place % 8, ssh))?;
    series(&mut table, "close it again", ROUNDS, |place| shut(place % 8, ssh))?;
    let mut way = Way::open(&mut table)?;
    let before = way.round_trips("a new flow to a granted port, few grants live")?;
    for place in (0..FULL).collect::<Vec<_>>().chunks(1000) {
        let changes: Vec<Change> = place.iter().map(|place| open(*place, ssh)).collect();
        table.apply(&changes)?;
    }
    let started = Instant::now();
    let live = table.doors()?.len();
    println!("  listing {live} grants takes {:.0} ms", started.elapsed().as_secs_f64() * 1000.0);
    let one = series(&mut table, &format!("renew one of {live} grants"), ROUNDS, |place| open(place, ssh))?;
    series(&mut table, "close one of them", ROUNDS, |place| shut(place, ssh))?;
    let after = way.round_trips(&format!("a new flow, {live} grants live"))?;
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!("  one more grant takes {:.2} times as long as the first", ratio(one, first));
    println!("  the way through the firewall takes {:.2} times as long as with few", ratio(after, before));
    Ok(())
}

/// A service behind a guard, and a client with a grant for it, on the loopback of this namespace.
struct Way {
    service: UdpSocket,
}

impl Way {
    fn open(table: &mut Table) -> Result<Self, Box<dyn Error>> {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        assert!(up.success(), "ip link set lo up: {up}");
        let service = UdpSocket::bind("127.0.0.1:0")?;
        let ports = PortRange::single(Protocol::Udp, service.local_addr()?.port())?;
        let guard = Guarded { ports, closed: Closed::Drop, lifetime: None };
        let Change::Open(door) = open(0, ports) else { unreachable!() };
        let door = Door { address: [127, 0, 0, 1].into(), uses: Uses::Many, ..door };
        table.apply(&[Change::Guard(guard), Change::Open(door)])?;
        Ok(Self { service })
    }

    /// One datagram there and one back, each time from another port: what is established passes by the sets.
    fn round_trips(&mut self, name: &str) -> Result<Duration, Box<dyn Error>> {
        let mut samples = Samples::default();
        for _ in 0..10 * ROUNDS {
            let client = UdpSocket::bind("127.0.0.1:0")?;
            client.set_read_timeout(Some(Duration::from_secs(1)))?;
            let started = Instant::now();
            client.send_to(b"x", self.service.local_addr()?)?;
            let (_, from) = self.service.recv_from(&mut [0; 8])?;
            self.service.send_to(b"y", from)?;
            client.recv(&mut [0; 8])?;
            samples.add(started.elapsed());
        }
        samples.print(name);
        Ok(samples.median())
    }
}

fn series(
    table: &mut Table,
    name: &str,
    rounds: u32,
    change: impl Fn(u32) -> Change,
) -> Result<Duration, Box<dyn Error>> {
    let mut samples = Samples::default();
    for place in 0..rounds {
        let change = [change(place)];
        let started = Instant::now();
        table.apply(&change)?;
        samples.add(started.elapsed());
    }
    samples.print(name);
    Ok(samples.median())
}

fn address(place: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + place))
}

fn open(place: u32, ports: PortRange) -> Change {
    let lifetime = Duration::from_secs(3_600);
    Change::Open(Door {
        address: address(place),
        ports,
        uses: Uses::Once,
        session: Session::default(),
        forwards: Vec::new(),
        wide: false,
        lifetime,
        note: Note::default(),
    })
}

fn shut(place: u32, ports: PortRange) -> Change {
    Change::Shut { address: address(place), wide: false, ports }
}
