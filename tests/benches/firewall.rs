//! What the kernel's firewall costs the monitor: one `apply`, from the call to the kernel's answer.
//!
//! `cargo bench --bench firewall`, as root. Starts itself again in a network namespace of its own and never
//! touches the host's firewall.

mod measure;

use std::error::Error;
use std::fs::read_link;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use knockd_rs::nft::{Change, Closed, Door, Firewall, Guarded, Note, Session, Table, TableOptions, Uses};
use knockd_rs::text::PortRange;

use measure::Samples;

const ROUNDS: u32 = 1_000;
/// As many as `limits.grants` allows unless the configuration says otherwise.
const FULL: u32 = 4_096;
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
    series(&mut table, "open a port, few grants live", ROUNDS, |place| open(place % 8, ssh))?;
    series(&mut table, "close it again", ROUNDS, |place| shut(place % 8, ssh))?;
    for place in 0..FULL {
        table.apply(&[open(place, ssh)])?;
    }
    let live = table.doors()?.len();
    series(&mut table, &format!("renew one of {live} grants"), ROUNDS, |place| open(place, ssh))?;
    Ok(())
}

fn series(
    table: &mut Table,
    name: &str,
    rounds: u32,
    change: impl Fn(u32) -> Change,
) -> Result<(), Box<dyn Error>> {
    let mut samples = Samples::default();
    for place in 0..rounds {
        let change = [change(place)];
        let started = Instant::now();
        table.apply(&change)?;
        samples.add(started.elapsed());
    }
    samples.print(name);
    Ok(())
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
        lifetime,
        note: Note::default(),
    })
}

fn shut(place: u32, ports: PortRange) -> Change {
    Change::Shut { address: address(place), ports }
}
