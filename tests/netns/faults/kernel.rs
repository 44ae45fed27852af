//! A kernel that refuses, loses an answer, or has no room, on the monitor's netlink socket.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use super::serves;
use super::trace::Trace;
use crate::common::{Daemon, GUARDED, SERVER4, World, wait_for};

/// The monitor's descriptors that are netlink sockets, as strace names paths.
fn netlink(monitor: Pid) -> Vec<String> {
    let pid = monitor.as_raw_nonzero();
    let table = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
    let inodes: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9)).collect();
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let names =
        links.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    names
        .filter(|name| {
            let inode = name.strip_prefix("socket:[").and_then(|name| name.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
        .collect()
}

/// Lets one call on a netlink socket of the monitor fail.
fn failing(daemon: &Daemon<'_>, call: &str, error: &str, when: usize) -> Trace {
    let inject = format!("inject={call}:error={error}:when={when}");
    let sockets = netlink(daemon.monitor());
    assert!(sockets.len() >= 2, "{sockets:?}");
    let mut arguments = vec!["-o", "/dev/null", "-e", &inject];
    sockets.iter().for_each(|socket| arguments.extend(["-P", socket]));
    Trace::attach(daemon.monitor(), &arguments)
}

#[test]
fn whatever_netlink_call_fails_what_is_open_is_told_and_the_next_knock_opens() {
    let world = World::new();
    let daemon = world.daemon(&format!("{GUARDED}[limits]\nhandshakes_per_source = 5000\n"));
    let _ssh = world.listener(22);
    let mut sealer = world.sealer();
    let mut failures = 0;
    for (call, error) in [
        ("sendto", "ENOBUFS"),
        ("sendto", "EPERM"),
        ("sendto", "EAGAIN"),
        ("recvfrom", "ENOBUFS"),
        // As if there were no answer.
        ("recvfrom", "EAGAIN"),
        ("recvfrom", "EINTR"),
    ] {
        for when in 1..=8 {
            let what = format!("{call} {error} {when}");
            let (granted, failed) = (daemon.logged("granted laptop"), daemon.logged("failed"));
            let trace = failing(&daemon, call, error, when);
            world.send(None, SERVER4, &sealer.knock(None));
            let answered = || daemon.logged("granted laptop") > granted || daemon.logged("failed") > failed;
            assert!(wait_for(Duration::from_secs(2), answered), "{what}: no word:\n{}", daemon.log());
            drop(trace);
            // Whether a failure was one, where no answer came, the status knows alone.
            let was_granted = match daemon.logged("granted laptop") > granted {
                false if call == "recvfrom" => !daemon.grants().is_empty(),
                was_granted => was_granted,
            };
            failures += usize::from(!was_granted);
            assert_eq!(daemon.grants().len(), usize::from(was_granted), "{what}:\n{}", daemon.log());
            assert_eq!(world.can_connect(SERVER4, 22), was_granted, "{what}:\n{}", daemon.log());
            assert!(!world.can_connect(SERVER4, 22), "{what}");
            assert!(!world.can_stranger_connect(SERVER4, 22), "{what}");
            assert!(wait_for(Duration::from_secs(2), || daemon.degraded().is_empty()), "{what}");
        }
    }
    assert!(failures > 2, "no fault has reached the firewall: {failures}");
    serves(&world, &daemon);
}

#[test]
fn notices_that_the_kernel_could_not_deliver_make_the_daemon_look_for_itself() {
    let world = World::new();
    let daemon = world.daemon(crate::rules::WATCHED);
    let _ssh = world.listener(22);
    let trace = failing(&daemon, "recvfrom", "ENOBUFS", 1);
    world.nft(&["delete element inet knockd-rs guarded { tcp . 22 }"]);
    daemon.await_log("healed: ");
    drop(trace);
    assert!(!world.can_connect(SERVER4, 22));
    serves(&world, &daemon);
}
