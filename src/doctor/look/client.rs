//! What a client can see of itself, of its way to a server, and, where it is asked to, of a knock's effect.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::net::sockopt;
use rustix::thread::{CapabilitySet, capabilities};

use crate::client::counter;
use crate::client::knock::Knocker;
use crate::client::server::Server as Known;
use crate::client::store::Dirs;
use crate::clock::{self, Clocks, RELEASED};
use crate::doctor::client::{Clock, Datagram, Facts, Knocked, Server, Tried, Way};
use crate::files;
use crate::grant::Uses;
use crate::knock::{Ask, Method, Op};
use crate::text::ServerName;
use crate::time::ClockTrust;

/// How long the port may take to answer who has not knocked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a knock of one method may take to have an effect.
const EFFECT: Duration = Duration::from_secs(8);

/// Looks at this client and its way to a server. Knocks only `with_knocks`, once for each method, and for the last
/// time with one that works.
#[must_use]
pub fn look(dirs: &Dirs, name: &ServerName, with_knocks: bool) -> Facts {
    let known = Known::load(dirs, name);
    let server = match &known {
        Ok(known) => Ok(server(known)),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    };
    let (ahead, store) = match counter::look(dirs, name, clock::wall()) {
        Ok(ahead) => (ahead, writable(&dirs.state)),
        Err(error) => (Vec::new(), Err(error.to_string())),
    };
    let ways = server.as_ref().map_or_else(|_| Err(String::new()), ways);
    let knocks = match (&known, &server) {
        (Ok(known), Ok(server)) if with_knocks => Some(knocks(known, server.visible())),
        _ => None,
    };
    Facts {
        name: name.to_string(),
        server,
        store,
        ahead: ahead.into_iter().map(|(path, by)| (path.display().to_string(), by)).collect(),
        clock: believed(),
        ways,
        has_raw: capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_RAW)),
        knocks,
    }
}

fn server(known: &Known) -> Server {
    let access = known.access();
    Server {
        file: known.dirs.server_file(&known.name).display().to_string(),
        host: access.host.to_string(),
        port: access.port,
        profile: access.profile.to_string(),
        methods: match known.enrolment.private_key {
            Some(_) => access.methods.clone(),
            None => vec![Method::Cert],
        },
        opens: access.open.clone(),
    }
}

fn believed() -> Clock {
    if clock::wall() < RELEASED {
        return Clock::Wrong;
    }
    match Clocks::new(crate::config::Clock::Auto).read().trust {
        ClockTrust::Synchronised => Clock::Kept,
        ClockTrust::Unsynchronised => Clock::InDoubt,
    }
}

/// Whether files can be made in the directory, or it in the nearest one that is there.
fn writable(dir: &Path) -> Result<String, String> {
    let shown = || dir.display().to_string();
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    if there == dir {
        files::check_dir(dir, &files::own_owners()).map_err(|error| error.to_string())?;
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map(|()| shown())
        .map_err(|error| format!("{}: this user cannot write there: {error}", there.display()))
}

/// The first address of each family, as knocks take them.
fn ways(server: &Server) -> Result<Vec<Way>, String> {
    let found = (server.host.as_str(), server.port).to_socket_addrs().map_err(|error| error.to_string())?;
    let found: Vec<SocketAddr> = found.collect();
    let of = |is_v4: bool| found.iter().find(|address| address.is_ipv4() == is_v4).copied();
    let both: Vec<SocketAddr> = of(true).into_iter().chain(of(false)).collect();
    if both.is_empty() {
        return Err("the name is there, and has none".to_owned());
    }
    let port = server.visible();
    let looks: Vec<_> = both.into_iter().map(|address| thread::spawn(move || way(address, port))).collect();
    let ways = looks.into_iter().filter_map(|look| look.join().ok());
    Ok(ways.collect())
}

fn way(address: SocketAddr, port: Option<u16>) -> Way {
    match towards(address) {
        Ok((socket, source)) => Way {
            address,
            source: Ok(source),
            datagram: Some(datagram(&socket, address)),
            port: port.map(|port| connection(SocketAddr::new(address.ip(), port))),
        },
        Err(error) => Way { address, source: Err(error.to_string()), datagram: None, port: None },
    }
}

/// A socket towards an address, and the address that it sends from: asks the kernel for a route, and sends nothing.
fn towards(address: SocketAddr) -> io::Result<(UdpSocket, IpAddr)> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let source = socket.local_addr()?.ip();
    Ok((socket, source))
}

/// An empty datagram that lives for one hop: it meets this machine's firewall, and the first router ends it.
fn datagram(socket: &UdpSocket, address: SocketAddr) -> Datagram {
    let limited = match address {
        SocketAddr::V4(_) => socket.set_ttl(1),
        SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(socket, Some(1)).map_err(io::Error::from),
    };
    match limited.and_then(|()| socket.send(&[])) {
        Ok(_) => Datagram::Sent,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Datagram::Forbidden,
        Err(error) => Datagram::Failed(error.to_string()),
    }
}

fn connection(to: SocketAddr) -> Tried {
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(_) => Tried::Open,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Tried::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Tried::Silent,
            _ => Tried::Failed(error.to_string()),
        },
    }
}

/// What real knocks come to. Each method is tried at a closed port: what one has opened, a further knock closes before
/// the next one, and where that cannot be, no other is tried. Certificates are left out: they may ask for a passphrase.
fn knocks(known: &Known, port: Option<u16>) -> Vec<(Method, Knocked)> {
    let Some(port) = port else { return Vec::new() };
    let mut outcomes = Vec::new();
    for way in known.ways(None) {
        let method = way.method();
        let outcome = match Knocker::new(known, clock::wall) {
            Ok(mut knocker) => {
                knocker.way = way;
                effect(&mut knocker, method, port)
            }
            Err(error) => Knocked::Failed(error.to_string()),
        };
        if matches!(outcome, Knocked::Opened(_)) {
            close(known);
        }
        outcomes.push((method, outcome));
    }
    outcomes
}

fn effect(knocker: &mut Knocker<'_>, method: Method, port: u16) -> Knocked {
    let is_open = |address: &SocketAddr| connection(SocketAddr::new(address.ip(), port)) == Tried::Open;
    if knocker.addresses.iter().any(is_open) {
        return Knocked::Untried("the port is open without it, so that its effect would not show");
    }
    // SYNs and sequences by the time cannot say how many connections they ask for.
    let uses = matches!(method, Method::Spa | Method::Sequence).then_some(Uses::Once);
    match knocker.knock_and_wait(&Ask { uses, ..Ask::everything() }, port, EFFECT) {
        Ok(Ok(opened)) => Knocked::Opened(opened.after),
        Ok(Err(closed)) => Knocked::Closed(closed.refused),
        Err(error) => Knocked::Failed(error.to_string()),
    }
}

/// Ends what a try has opened, by a method that can say so.
fn close(known: &Known) {
    let can_close = |method| matches!(method, Method::Spa | Method::Sequence);
    let way = known.ways(None).into_iter().find(|way| can_close(way.method()));
    if let (Some(way), Ok(mut knocker)) = (way, Knocker::new(known, clock::wall)) {
        knocker.way = way;
        // A grant that is left ends by itself; the next method's try sees whether the port is closed.
        let _ = knocker.knock(&Ask { op: Op::Close, ..Ask::everything() });
    }
}
