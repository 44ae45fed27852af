//! SIGKILL before each single system call on the way from a packet to its open port.
//!
//! A first packet shows which calls a thread makes; then one packet after another is on its way when the thread is
//! killed before the first, the second, .. of them, so that no boundary is left out, whatever the code looks like.
//! After each kill, restart and repetition a packet has opened once at most.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use super::trace::{Trace, record};
use super::{has_lost, opens};
use crate::common::{CLIENT4, Daemon, GUARDED, SERVER4, SOON, Sealer, World, wait_for};

/// What had become of a packet when its daemon was killed, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// Nobody has heard it: it is as good as new.
    Nothing,
    /// It is written down, and nothing is open: refused from then on, and the client knocks again.
    Book,
    /// Its element is in the kernel.
    Kernel,
}

/// Which thread dies, and how long it may take for its part.
struct Victim {
    thread: fn(&Daemon<'_>) -> Pid,
    patience: Duration,
}

/// A call by its name, and which one of that name it is.
type Call = (String, usize);

impl Victim {
    /// The calls that it makes for one knock, from the one that it sleeps in to the one that it sleeps in again.
    fn calls(&self, world: &World, daemon: &Daemon<'_>, sealer: &mut Sealer) -> Vec<Call> {
        settle(daemon);
        let names = record((self.thread)(daemon), &world.path("trace"), || {
            world.send(None, SERVER4, &sealer.knock(None));
            std::thread::sleep(self.patience);
        });
        assert!(world.can_connect(SERVER4, 22), "{}", daemon.log());
        let mut counts: HashMap<String, usize> = HashMap::new();
        let numbered = names.into_iter().map(|name| {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            (name, *count)
        });
        numbered.collect()
    }

    /// Sends a packet and kills before this call; whether it died of that.
    fn dies(&self, world: &World, daemon: &mut Daemon<'_>, packet: &[u8], call: &Call) -> bool {
        settle(daemon);
        let (name, number) = call;
        let trace = Trace::inject((self.thread)(daemon), &format!("{name}:signal=KILL:when={number}"));
        world.send(None, SERVER4, packet);
        let has_died = wait_for(self.patience, || !daemon.is_running());
        drop(trace);
        // It may have died in the last moment.
        has_died || wait_for(Duration::from_millis(200), || !daemon.is_running())
    }
}

/// Waits for the worker's pulse, by which it has begun with all its threads, and until both processes sleep.
fn settle(daemon: &Daemon<'_>) {
    daemon.status();
    std::thread::sleep(Duration::from_millis(100));
}

/// Kills before each call; what each packet had reached.
fn walk(victim: &Victim) -> Vec<(Call, Reached)> {
    let world = World::new();
    let mut daemon = world.daemon(&format!("{GUARDED}[limits]\nhandshakes_per_source = 5000\n"));
    let _ssh = world.listener(22);
    let mut sealer = world.sealer();
    let calls = victim.calls(&world, &daemon, &mut sealer);
    daemon.kill9_both();
    let mut reached = Vec::new();
    for call in &calls {
        forget_the_spent(&world);
        daemon.start_again();
        let packet = sealer.knock(None);
        if victim.dies(&world, &mut daemon, &packet, call) {
            reached.push((call.clone(), judge(&world, &mut daemon, &packet, call)));
        } else {
            // This time it came to the same by fewer calls: two packets of the network in one, for instance.
            assert_eq!(daemon.grants().len(), 1, "{call:?}:\n{}", daemon.log());
            daemon.kill9_both();
        }
    }
    assert!(reached.len() * 10 >= calls.len() * 8, "of {calls:?} it died at {reached:?}");
    reached
}

/// Elements of single connections stay until their time is over, and would look like the next packet's.
fn forget_the_spent(world: &World) {
    world.nft(&["flush", "set", "inet", "knockd-rs", "once_v4"]);
}

/// After the kill: either the element is there, or the port is closed; and the packet is good once in all.
fn judge(world: &World, daemon: &mut Daemon<'_>, packet: &[u8], call: &Call) -> Reached {
    let is_there = world.nft(&["list", "set", "inet", "knockd-rs", "once_v4"]).contains(&CLIENT4.to_string());
    daemon.start_again();
    assert_eq!(daemon.grants().len(), usize::from(is_there), "{call:?}:\n{}", daemon.log());
    assert_eq!(world.can_connect(SERVER4, 22), is_there, "{call:?}");
    assert!(!world.can_connect(SERVER4, 22), "{call:?}");
    let is_new = opens(world, daemon, packet);
    assert!(!(is_there && is_new), "{call:?}: one packet has opened twice:\n{}", daemon.log());
    assert_eq!(world.can_connect(SERVER4, 22), is_new, "{call:?}");
    assert!(!opens(world, daemon, packet), "{call:?}: good again at once");
    daemon.kill9_both();
    daemon.start_again();
    assert!(!opens(world, daemon, packet), "{call:?}: good again after another kill");
    assert!(!world.can_connect(SERVER4, 22), "{call:?}");
    daemon.kill9_both();
    match (is_there, is_new) {
        (true, _) => Reached::Kernel,
        (false, true) => Reached::Nothing,
        (false, false) => Reached::Book,
    }
}

#[test]
fn a_worker_killed_before_any_of_its_system_calls_never_lets_a_packet_be_good_twice() {
    let victim = Victim { thread: |daemon| daemon.worker(), patience: Duration::from_secs(2) };
    let reached = walk(&victim);
    for stage in [Reached::Nothing, Reached::Book, Reached::Kernel] {
        assert!(reached.iter().any(|(_, at)| *at == stage), "no kill came at {stage:?}: {reached:?}");
    }
    // The call that it sleeps in when strace comes is entered anew, or not: its number may mean either sleep.
    let reached: Vec<_> =
        reached.into_iter().filter(|((name, number), _)| (name.as_str(), *number) != ("ppoll", 1)).collect();
    // Up to the write of the mark it is new, from then on it is not.
    let written = reached.iter().position(|((name, _), _)| name == "write").expect("a write of the mark");
    let (before, after) = reached.split_at(written + 1);
    assert!(before.iter().all(|(_, at)| *at == Reached::Nothing), "{reached:?}");
    assert!(after.iter().all(|(_, at)| *at != Reached::Nothing), "{reached:?}");
}

#[test]
fn a_monitor_killed_before_any_of_its_system_calls_never_lets_a_packet_be_good_twice() {
    let victim = Victim { thread: |daemon| daemon.monitor(), patience: Duration::from_secs(2) };
    let reached = walk(&victim);
    // Of a request that it has not carried out, the mark alone is left.
    for stage in [Reached::Book, Reached::Kernel] {
        assert!(reached.iter().any(|(_, at)| *at == stage), "no kill came at {stage:?}: {reached:?}");
    }
}

/// The thread that writes the marks to the disk.
fn writer(daemon: &Daemon<'_>) -> Pid {
    let tasks = format!("/proc/{}/task", daemon.worker().as_raw_nonzero());
    let is_writer = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "snapshot\n")
    };
    let mut found = None;
    // A worker on a busy machine takes its time to begin.
    wait_for(SOON, || {
        found = fs::read_dir(&tasks).unwrap().flatten().find(is_writer);
        found.is_some()
    });
    let task = found.expect("a thread that writes the marks");
    Pid::from_raw(task.file_name().to_str().unwrap().parse().unwrap()).unwrap()
}

/// It gathers marks for 0.3 s before it writes.
const WRITER: Victim = Victim { thread: writer, patience: Duration::from_secs(2) };

#[test]
fn a_kill_before_any_system_call_that_writes_marks_to_the_disk_costs_none() {
    let reached = walk(&WRITER);
    for name in ["write", "fsync", "rename"] {
        let at = reached.iter().find(|((call, _), _)| call == name).map(|(_, at)| *at);
        assert_eq!(at, Some(Reached::Kernel), "{name}: {reached:?}");
    }
}

/// A quarantine of four seconds.
const BRIEF: &str =
    "[freshness]\nclock = \"trusted\"\nmax_age = \"2s\"\nmax_ahead = \"1s\"\n[guard]\ndrop = [\"tcp/22\"]\n";

#[test]
fn a_power_loss_before_any_system_call_that_writes_marks_to_the_disk_makes_no_packet_good_again() {
    let world = World::new();
    let mut daemon = world.daemon(BRIEF);
    let _ssh = world.listener(22);
    let mut sealer = world.sealer();
    let calls = WRITER.calls(&world, &daemon, &mut sealer);
    let mut deaths = 0;
    for call in &calls {
        let packet = sealer.knock(None);
        if !WRITER.dies(&world, &mut daemon, &packet, call) {
            continue;
        }
        deaths += 1;
        // What a power loss takes: the journal, and the table with all that is open.
        fs::remove_dir_all(world.path("run")).unwrap();
        world.nft(&["delete", "table", "inet", "knockd-rs"]);
        daemon.start_again();
        has_lost(&daemon);
        assert!(!opens(&world, &daemon, &packet), "{call:?}:\n{}", daemon.log());
        assert!(wait_for(Duration::from_secs(6), || daemon.degraded().is_empty()));
        assert!(!opens(&world, &daemon, &packet), "{call:?}:\n{}", daemon.log());
    }
    assert!(deaths * 10 >= calls.len() * 8, "{deaths} deaths at {calls:?}");
}
