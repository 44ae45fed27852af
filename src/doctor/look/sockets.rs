//! Who listens where: `/proc/net/tcp` and its like, and the programs behind them (`proc_pid_net(5)`).

use std::fs;
use std::path::Path;

use crate::text::{PortRange, Protocol};

/// A socket that awaits what comes from everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    port: u16,
    inode: u64,
}

/// The ports on which somebody listens; `None` where the kernel does not list them.
pub(super) fn listening() -> Option<Vec<PortRange>> {
    let mut ports = Vec::new();
    for (protocol, names) in [(Protocol::Tcp, ["tcp", "tcp6"]), (Protocol::Udp, ["udp", "udp6"])] {
        let found = bound(names, protocol)?;
        ports.extend(found.iter().filter_map(|socket| PortRange::single(protocol, socket.port).ok()));
    }
    // Who listens by SCTP is listed only where the module is there.
    let table = fs::read_to_string("/proc/net/sctp/eps").unwrap_or_default();
    let sctp = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(5)?.parse().ok());
    ports.extend(sctp.filter_map(|port| PortRange::single(Protocol::Sctp, port).ok()));
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

/// The programs that have bound a UDP port: `dnsmasq (process 812)`.
pub(super) fn users_of(port: u16) -> Vec<String> {
    let sockets = bound(["udp", "udp6"], Protocol::Udp).unwrap_or_default();
    let mut users: Vec<String> =
        sockets.iter().filter(|socket| socket.port == port).map(|socket| holder(socket.inode)).collect();
    users.sort();
    users.dedup();
    users
}

/// The kernel may know only one of the families.
fn bound(names: [&str; 2], protocol: Protocol) -> Option<Vec<Bound>> {
    let tables: Vec<String> =
        names.iter().filter_map(|name| fs::read_to_string(Path::new("/proc/net").join(name)).ok()).collect();
    (!tables.is_empty()).then(|| tables.iter().flat_map(|table| read(table, protocol)).collect())
}

/// `sl local_address rem_address st ... inode`, addresses as `0100007F:0016`.
fn read(table: &str, protocol: Protocol) -> Vec<Bound> {
    // TCP_LISTEN, and TCP_CLOSE for a UDP socket without a peer (`include/net/tcp_states.h`).
    let state = if protocol == Protocol::Tcp { "0A" } else { "07" };
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let is_awaiting = *fields.get(3)? == state;
        is_awaiting.then_some(())?;
        Some(Bound { port: u16::from_str_radix(port, 16).ok()?, inode: fields.get(9)?.parse().ok()? })
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// The process that has this socket open.
fn holder(inode: u64) -> String {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if descriptors
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| link.as_os_str() == wanted.as_str())
        {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return format!("{} (process {})", name.trim(), process.file_name().to_string_lossy());
        }
    }
    "a program that this user may not look at".to_owned()
}

/// For the fuzzer: no more sockets than lines.
#[cfg(feature = "fuzzing")]
pub(super) fn check(text: &str) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert!(read(text, protocol).len() <= text.lines().count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_await_strangers_count() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100\n\
                   1: 0100007F:1F90 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100\n";
        assert_eq!(read(tcp, Protocol::Tcp), [Bound { port: 22, inode: 77 }]);
        let udp = "header\n 9: 00000000000000000000000000000000:F2F9 0:0000 07 0:0 00:0 0 0 0 90 2 0 0\n\
                   10: 0100007F:0035 0100007F:0036 01 0:0 00:0 0 0 0 91 2 0 0\nbroken\n";
        assert_eq!(read(udp, Protocol::Udp), [Bound { port: 62_201, inode: 90 }]);
    }
}
