//! Which server a destination belongs to, and at which of its addresses. The files are read each time: what was
//! imported a moment ago counts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::names::Names;
use crate::client::server::Server;
use crate::client::store::{Dirs, servers};
use crate::config::ConfigError;
use crate::socks::{Destination, Host};
use crate::text::Protocol;

/// How long the resolver may take to say whether an address is a server's.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server that opens this port of this host; `None` when no knock is needed.
pub(super) fn meant(
    dirs: &Dirs,
    names: &Arc<Names>,
    to: &Destination,
) -> Result<Option<Server>, Vec<ConfigError>> {
    let by_name = Server::for_host(dirs, &to.host.to_string(), to.port)?;
    match &to.host {
        Host::Address(address) if by_name.is_none() => Ok(by_address(dirs, names, *address, to.port)),
        _ => Ok(by_name),
    }
}

/// A server whose name has this address.
fn by_address(dirs: &Dirs, names: &Arc<Names>, address: IpAddr, port: u16) -> Option<Server> {
    let known = servers(dirs).unwrap_or_default();
    // Broken files are about somebody else.
    let candidates: Vec<Server> = known
        .iter()
        .filter_map(|name| Server::load(dirs, name).ok())
        .filter(|server| server.opens(Protocol::Tcp, port))
        .collect();
    // All of them are asked for at once, and waited for together.
    candidates.iter().for_each(|server| names.ask(server.access().host.as_str()));
    let until = Instant::now() + PATIENCE;
    candidates.into_iter().find(|server| {
        let found = names.addresses(server.access().host.as_str(), until);
        found.iter().any(|known| known.ip().to_canonical() == address.to_canonical())
    })
}

/// Where to connect to: the address that was asked for, else the first of each family that the server's name has.
pub(super) fn addresses(
    server: &Server,
    names: &Arc<Names>,
    host: &Host,
    patience: Duration,
) -> Vec<SocketAddr> {
    if let Host::Address(address) = host {
        return vec![SocketAddr::new(address.to_canonical(), 0)];
    }
    let found = names.addresses(server.access().host.as_str(), Instant::now() + patience);
    let first = |is_v4: bool| found.iter().find(|address| address.is_ipv4() == is_v4);
    first(true).into_iter().chain(first(false)).copied().collect()
}
