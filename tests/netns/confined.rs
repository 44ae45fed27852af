//! What the kernel itself says about the two processes, in `/proc`.

use std::collections::HashSet;
use std::fs;

use rustix::process::Pid;

use crate::common::{GUARDED, Launch, SOON, World, wait_for};

fn facts(pid: Pid, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

#[test]
fn the_worker_has_no_capability_and_the_monitor_none_in_effect_but_net_admin() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.knock(&[]);
    let check = || {
        let (monitor, worker) = (daemon.monitor(), daemon.worker());
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(facts(worker, set), "0000000000000000", "{set}");
        }
        assert_eq!((facts(worker, "NoNewPrivs"), facts(worker, "Seccomp")), ("1".into(), "2".into()));
        assert_eq!(facts(monitor, "CapEff"), "0000000000001000", "CAP_NET_ADMIN is bit 12");
        // CAP_NET_RAW (bit 13) is there to be handed to a new worker.
        assert_eq!(facts(monitor, "CapPrm"), "0000000000003000");
        assert_eq!(facts(monitor, "CapBnd"), "0000000000003000");
        assert_eq!(
            (facts(monitor, "CapInh"), facts(monitor, "CapAmb")),
            (facts(worker, "CapInh"), facts(worker, "CapAmb"))
        );
        assert_eq!(daemon.status()["landlock"], true);
    };
    check();
    daemon.reload();
    check();
    assert_eq!(daemon.workers().len(), 1, "the old worker is gone");
}

/// The inodes of the sockets that a process has open.
fn sockets(pid: Pid) -> HashSet<String> {
    let links = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    let inode = |link: String| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    let target =
        |entry: fs::DirEntry| inode(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned());
    links.flatten().filter_map(target).collect()
}

/// The inodes that a table of `/proc/net` lists, in the process's own network namespace.
fn listed(pid: Pid, table: &str, column: usize) -> HashSet<String> {
    let text = fs::read_to_string(format!("/proc/{}/net/{table}", pid.as_raw_nonzero())).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(column)).map(str::to_owned).collect()
}

#[test]
fn no_process_of_the_daemon_has_a_network_socket() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _busy = world.listener(22);
    world.knock(&[]);
    let (monitor, worker) = (daemon.monitor(), daemon.worker());
    let mine: HashSet<String> = sockets(monitor).union(&sockets(worker)).cloned().collect();
    // proc(5): the inode is the tenth column of these tables.
    for table in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"] {
        let inet = listed(monitor, table, 9);
        assert!(mine.is_disjoint(&inet), "{table}: {:?}", mine.intersection(&inet));
    }
    assert!(!listed(monitor, "tcp6", 9).is_empty(), "the listener of this test is not in the table");
    let (unix, packet, netlink) =
        (listed(monitor, "unix", 6), listed(monitor, "packet", 8), listed(monitor, "netlink", 9));
    let known =
        |inode: &&String| unix.contains(*inode) || packet.contains(*inode) || netlink.contains(*inode);
    let unknown: Vec<_> = mine.iter().filter(|inode| !known(inode)).collect();
    assert!(unknown.is_empty(), "sockets of another kind: {unknown:?}");
    assert!(sockets(monitor).is_disjoint(&packet), "the monitor sees packets");
    assert!(sockets(worker).is_disjoint(&netlink), "the worker reaches the firewall");
    assert!(!sockets(worker).is_disjoint(&packet));
}

#[test]
fn a_second_daemon_says_that_another_is_running() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let mut second = world.launch(GUARDED, Launch { is_not_awaited: true, ..Launch::default() });
    let status = second.ended();
    assert_eq!(status.code(), Some(1));
    assert!(
        second.log().contains("another knockd-rs is running already; `knockd-rs status` asks it"),
        "{}",
        second.log()
    );
    assert_eq!(daemon.status()["monitor_pid"], daemon.monitor().as_raw_nonzero().get());
    world.knock(&[]);
    assert_eq!(daemon.grants().len(), 1);
}

#[test]
fn a_second_daemon_with_other_directories_says_whose_the_table_is() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let before = format!("mount -t tmpfs tmpfs {}", world.path("run").display());
    let how = Launch { before, is_not_awaited: true };
    let mut second = world.launch(GUARDED, how);
    assert_eq!(second.ended().code(), Some(1));
    let words = "another process owns the table inet knockd-rs; stop the other knockd-rs daemon";
    assert!(wait_for(SOON, || second.log().contains(words)), "{}", second.log());
    assert_eq!(daemon.status()["degraded"], serde_json::json!([]));
}
