//! What the two processes keep of memory while nobody knocks, as the kernel counts it (`proc_pid_smaps(5)`).
//!
//! The bounds are generous: they are for a table that is touched at the start, for what was read and is kept, and for a
//! ring of another size, and not for a few pages more or less.

use std::fs;

use rustix::process::Pid;

use crate::common::{Daemon, GUARDED, SOON, World, wait_for};

/// In KiB, for both: heap, stacks, and what the linker has written to. A build without optimization has more of all.
const OWN: u64 = 3 * 1024;
/// In KiB: the ring that frames arrive in. With frames that a page holds one of instead of two it is twice as large.
const RING: u64 = 4 * 1024 + 256;

#[test]
fn an_idle_daemon_keeps_little_memory_of_its_own() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    // The worker gives back what it needed for its start just after it was told to begin.
    let is_little = wait_for(SOON, || own(&daemon) < OWN);
    assert!(is_little, "{} KiB", own(&daemon));
    println!("{} KiB", own(&daemon));
}

#[test]
fn the_ring_takes_no_more_memory_than_its_frames() {
    let world = World::new();
    for device in ["", "[capture]\ndevice = \"any\"\n"] {
        let daemon = world.daemon(&format!("{GUARDED}{device}"));
        let ring = ring(daemon.worker());
        assert!((2048..RING).contains(&ring), "{device:?}: {ring} KiB");
    }
}

#[test]
fn what_a_reload_took_is_given_back() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let reload = |times: u64| {
        for _ in 0..times {
            let serving = daemon.status()["serving"].as_u64().unwrap();
            daemon.reload();
            assert!(wait_for(SOON, || daemon.status()["serving"] == serving + 1));
        }
    };
    reload(2);
    let first = own(&daemon);
    reload(20);
    let is_back = wait_for(SOON, || own(&daemon) < first + 256);
    assert!(is_back, "{first} KiB after two reloads, {} KiB after twenty more", own(&daemon));
}

/// What both processes have that is in no file and nobody else's.
fn own(daemon: &Daemon<'_>) -> u64 {
    daemon
        .workers()
        .into_iter()
        .chain([daemon.monitor()])
        .map(|pid| sum(&read(pid, "smaps"), "Anonymous:"))
        .sum()
}

/// The mapping of the packet socket.
fn ring(pid: Pid) -> u64 {
    let maps = read(pid, "smaps");
    maps.split("VmFlags:").filter(|map| map.contains(" socket:[")).map(|map| sum(map, "Rss:")).sum()
}

fn read(pid: Pid, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", pid.as_raw_nonzero())).unwrap()
}

/// The numbers of the lines that begin so, in KiB.
fn sum(text: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok();
    text.lines().filter_map(number).sum()
}
