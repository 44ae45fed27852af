//! `[[forward]]` of `knockd-rs.toml`: ports of this host that lead clients to hosts behind it.

use std::net::SocketAddr;

use super::fields::Table;
use super::limits;
use super::settings::value;
use super::settings::{Forward, Guard, Services};
use crate::text::{PortRange, Protocol, ServiceName};

/// The keys of one.
pub(super) const KEYS: &[&str] = &["name", "listen", "to"];

/// Reads all of them. Each is a service besides, and its port is guarded: what strangers could use would need no knock.
pub(super) fn read(root: &Table<'_>, services: &mut Services, guard: &mut Guard) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for table in root.tables("forward", KEYS, limits::FORWARDS) {
        let (name, listen, to) = (name(&table), listen(&table), to(&table));
        let (Some(name), Some(listen)) = (name, listen) else { continue };
        if services.contains_key(&name) {
            table.error("name", format!("{name} is a service already; choose another name"));
            continue;
        }
        if let Some(other) = forwards.iter().find(|other| other.listen == listen) {
            table.error("listen", format!("{listen} leads to {} already; use another port", other.name));
            continue;
        }
        services.insert(name.clone(), vec![listen]);
        let is_guarded = |ports: &Vec<PortRange>| ports.iter().any(|ports| ports.contains(&listen));
        if !is_guarded(&guard.drop) && !is_guarded(&guard.reject) {
            guard.drop = super::ports::merged([guard.drop.clone(), vec![listen]].concat());
        }
        forwards.push(Forward { name, listen, to });
    }
    forwards
}

fn name(table: &Table<'_>) -> Option<ServiceName> {
    if !table.has("name") {
        table.missing("name", "name the service, such as name = \"nas\"");
    }
    table.parsed("name", "use \"nas\"").map(value)
}

fn listen(table: &Table<'_>) -> Option<PortRange> {
    if !table.has("listen") {
        table.missing("listen", "name the port of this host, such as listen = \"tcp/2222\"");
    }
    let ports: PortRange = table.parsed("listen", "use \"tcp/2222\"").map(value)?;
    if !ports.is_single() || !matches!(ports.protocol(), Protocol::Tcp | Protocol::Udp) {
        table.error("listen", format!("is {ports}; use a single port of TCP or UDP, such as \"tcp/2222\""));
        return None;
    }
    Some(ports)
}

fn to(table: &Table<'_>) -> Vec<SocketAddr> {
    let hint = "use \"10.0.0.5:22\", \"[fd00::5]:22\", or a list of both";
    let written = table.texts("to", "\"10.0.0.5:22\"");
    if written.is_empty() {
        table.missing("to", "name the host behind and its port, such as to = \"10.0.0.5:22\"");
    }
    let mut to: Vec<SocketAddr> = Vec::new();
    for text in &written {
        match text.parse::<SocketAddr>() {
            Ok(address)
                if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() =>
            {
                table.error("to", format!("{address} is no place to lead to; {hint}"));
            }
            Ok(address) if to.iter().any(|other| other.is_ipv4() == address.is_ipv4()) => {
                table.error("to", "has two addresses of one family; use one of each at most");
            }
            Ok(address) => to.push(address),
            Err(_) => {
                table.error("to", format!("`{}` is no address with a port; {hint}", text.escape_debug()))
            }
        }
    }
    to
}
