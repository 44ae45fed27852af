//! `agent`: grants that are kept alive, wherever the client is.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{
    Answer, CABLE, CLIENT4, CLIENT6, Daemon, GUARDED, SERVER4, SERVER6, SOON, World, attempt, ip, wait_for,
};

const MANY: &[&str] = &["--open", "tcp/22", "--many", "--max-duration", "1h"];

/// A world whose client may have any number of connections.
fn world() -> World {
    let world = World::new();
    world.enrol("laptop", MANY);
    world
}

/// An agent that ends with its handle.
struct Agent<'a> {
    world: &'a World,
    log: String,
    child: Child,
}

impl<'a> Agent<'a> {
    fn start(world: &'a World, arguments: &[&str]) -> Self {
        Self::start_as(world, "agent", arguments, None)
    }

    fn start_as(world: &'a World, log: &str, arguments: &[&str], notify: Option<&str>) -> Self {
        let log = format!("home/{log}.log");
        let file = fs::File::create(world.path(&log)).unwrap();
        let mut command = world.client_command(&[&["agent", "myserver"], arguments].concat());
        if let Some(notify) = notify {
            command.env("NOTIFY_SOCKET", notify);
        }
        let child = command.stdin(Stdio::null()).stderr(file).spawn().unwrap();
        Self { world, log, child }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.world.path(&self.log)).unwrap()
    }

    #[track_caller]
    fn says(&self, words: &str, times: usize) {
        let is_said = wait_for(SOON, || self.said().matches(words).count() >= times);
        assert!(is_said, "not {times} times {words:?}:\n{}", self.said());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Tells it to end, and waits.
    #[track_caller]
    fn end(&mut self) {
        self.signal(Signal::TERM);
        let mut status = None;
        let is_over = wait_for(SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(is_over && status.unwrap().success(), "{status:?}\n{}", self.said());
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}---", self.log, self.said());
        }
    }
}

/// Attempts every 20 ms while something else happens: how many there were, and when those were that failed.
fn attempts<T>(world: &World, to: IpAddr, meanwhile: impl FnOnce() -> T) -> (usize, Vec<Instant>, T) {
    let is_over = AtomicBool::new(false);
    let probe = || {
        let (mut count, mut failed) = (0, Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            count += 1;
            if attempt(None, (to, 22).into(), Duration::from_millis(200)) != Answer::Connected {
                failed.push(began);
            }
            std::thread::sleep(Duration::from_millis(20).saturating_sub(began.elapsed()));
        }
        (count, failed)
    };
    std::thread::scope(|scope| {
        let probe = scope.spawn(|| world.on_client(probe));
        let value = meanwhile();
        is_over.store(true, Ordering::Relaxed);
        let (count, failed) = probe.join().unwrap();
        (count, failed, value)
    })
}

fn is_granted(daemon: &Daemon<'_>, address: IpAddr) -> bool {
    daemon.grants().iter().any(|grant| grant["address"] == address.to_string())
}

/// The longest that the kernel's set says a grant lasts from now on.
fn left(daemon: &Daemon<'_>) -> f64 {
    daemon.grants().iter().map(|grant| grant["expires_in"].as_f64().unwrap()).fold(0.0, f64::max)
}

#[test]
fn a_port_stays_open_over_several_windows_without_a_gap() {
    for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
        let world = world();
        world.retarget(&server.to_string());
        let daemon = world.daemon(GUARDED);
        let _ssh = world.listener(22);
        let agent = Agent::start(&world, &["--for", "3s"]);
        assert!(wait_for(SOON, || is_granted(&daemon, client)));
        let began = Instant::now();
        let (count, failed, least) = attempts(&world, server, || {
            let mut least = f64::MAX;
            while began.elapsed() < Duration::from_secs(12) {
                std::thread::sleep(Duration::from_millis(100));
                least = least.min(left(&daemon));
            }
            least
        });
        println!(
            "{count} attempts over four windows of 3 s, {} failed; least time left {least:.2} s",
            failed.len()
        );
        assert!(count > 100 && failed.is_empty(), "{count}, {failed:?}");
        assert!(least > 0.2 && left(&daemon) <= 3.0, "{least}");
        assert_eq!(agent.said().lines().count(), 2, "renewals are no news:\n{}", agent.said());
        let granted = daemon.logged("granted laptop");
        assert!((5..=10).contains(&granted), "{granted} grants in twelve seconds");
    }
}

#[test]
fn a_port_stays_open_across_a_change_of_address_with_a_gap_of_two_seconds_at_most() {
    let world = world();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let agent = Agent::start(&world, &[]);
    agent.says("is open for 10.77.0.2", 1);
    let mut gaps = Vec::new();
    for last in 20..23 {
        let new = IpAddr::from(Ipv4Addr::new(10, 77, 0, last));
        let client = &world.client;
        ip(&format!("-n {client} address flush dev {CABLE} scope global"));
        std::thread::sleep(Duration::from_millis(300));
        ip(&format!("-n {client} address add {new}/24 dev {CABLE}"));
        let changed = Instant::now();
        let from_there = || attempt(Some(new), (SERVER4, 22).into(), Duration::from_millis(20));
        let is_open = || world.on_client(from_there) == Answer::Connected;
        while !is_open() {
            assert!(changed.elapsed() < Duration::from_secs(2), "a gap of more than two seconds");
            std::thread::sleep(Duration::from_millis(20));
        }
        gaps.push(changed.elapsed().as_millis());
        assert!(is_granted(&daemon, new));
        agent.says(&format!("is open for {new}"), 1);
    }
    println!("milliseconds from a new address to a connection from it: {gaps:?}");
    assert_eq!(daemon.logged("granted laptop"), 4, "one knock for each change:\n{}", daemon.log());
}

#[test]
fn a_network_that_is_gone_and_comes_back_is_told_of_once_and_knocked_from() {
    let world = world();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let agent = Agent::start(&world, &["--for", "3s"]);
    agent.says("is open for 10.77.0.2", 1);
    let client = &world.client;
    ip(&format!("-n {client} link set {CABLE} down"));
    agent.says("no network leads to 10.77.0.1", 1);
    std::thread::sleep(Duration::from_secs(4));
    assert!(daemon.grants().is_empty());
    let back = Instant::now();
    ip(&format!("-n {client} link set {CABLE} up"));
    assert!(wait_for(SOON, || world.can_connect(SERVER4, 22)));
    println!("open {} ms after the link was up again", back.elapsed().as_millis());
    assert!(back.elapsed() < Duration::from_secs(2));
    agent.says("is open for 10.77.0.2", 2);
    assert_eq!(agent.said().matches("no network").count(), 1);
}

#[test]
fn a_network_that_comes_after_the_agent_is_enough() {
    let world = world();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    ip(&format!("-n {} link set {CABLE} down", world.client));
    let agent = Agent::start(&world, &[]);
    agent.says("no network leads to 10.77.0.1", 1);
    ip(&format!("-n {} link set {CABLE} up", world.client));
    assert!(wait_for(SOON, || is_granted(&daemon, CLIENT4)));
}

#[test]
fn what_is_open_is_closed_at_the_end_and_left_with_keep() {
    let world = world();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let mut agent = Agent::start(&world, &[]);
    agent.says("is open for", 1);
    agent.end();
    agent.says("closed tcp/22 at 10.77.0.1", 1);
    assert!(wait_for(SOON, || daemon.grants().is_empty()), "{:?}", daemon.grants());
    assert!(!world.can_connect(SERVER4, 22));

    let mut agent = Agent::start(&world, &["--keep"]);
    agent.says("is open for", 1);
    agent.end();
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_granted(&daemon, CLIENT4) && world.can_connect(SERVER4, 22));
}

#[test]
fn of_two_agents_the_last_one_closes_and_the_port_is_open_all_the_time() {
    let world = world();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let mut one = Agent::start_as(&world, "one", &["--for", "3s"], None);
    one.says("is open for", 1);
    let mut other = Agent::start_as(&world, "other", &["--for", "4s"], None);
    other.says("is open for", 1);
    let (count, failed, ()) = attempts(&world, SERVER4, || {
        std::thread::sleep(Duration::from_secs(5));
        one.end();
        std::thread::sleep(Duration::from_secs(5));
    });
    assert!(count > 100 && failed.is_empty(), "{count}, {failed:?}");
    other.end();
    assert!(wait_for(SOON, || daemon.grants().is_empty()));
    assert_eq!(daemon.logged("replay"), 0, "{}", daemon.log());
}

#[test]
fn a_server_that_was_down_is_knocked_at_again_and_each_change_is_said_once() {
    let world = world();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let agent = Agent::start(&world, &["--for", "3s"]);
    agent.says("is open for", 1);
    daemon.kill9_both();
    agent.says("does not open", 1);
    std::thread::sleep(Duration::from_secs(5));
    daemon.start_again();
    let back = Instant::now();
    let is_back = wait_for(Duration::from_secs(20), || is_granted(&daemon, CLIENT4));
    println!("a grant {} ms after the server was back", back.elapsed().as_millis());
    assert!(is_back, "{}", agent.said());
    agent.says("is open for", 2);
    let said = agent.said();
    assert_eq!(
        (said.matches("does not open").count(), said.matches("before its time").count()),
        (1, 1),
        "{said}"
    );
}

#[test]
fn a_profile_that_gives_less_than_the_bundle_says_is_found_out() {
    let world = world();
    world.amend("laptop", "max_duration = \"5s\"\n");
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let agent = Agent::start(&world, &["--for", "12s"]);
    agent.says("before its time", 1);
    agent.says("is open for", 2);
    let (count, failed, ()) = attempts(&world, SERVER4, || std::thread::sleep(Duration::from_secs(11)));
    assert!(count > 100 && failed.is_empty(), "{count}, {failed:?}");
    assert_eq!(agent.said().matches("before its time").count(), 1, "{}", daemon.log());
}

#[test]
fn what_cannot_be_tried_is_kept_open_all_the_same() {
    let world = World::new();
    world.enrol("laptop", &["--open", "udp/53", "--many", "--max-duration", "1h"]);
    let daemon = world.daemon(&GUARDED.replace("tcp/22", "udp/53"));
    let _dns = world.listener(53);
    let agent = Agent::start(&world, &["--for", "3s"]);
    assert!(wait_for(SOON, || is_granted(&daemon, CLIENT4)));
    for _ in 0..14 {
        std::thread::sleep(Duration::from_millis(500));
        assert!(world.udp_answers(SERVER4, 53), "{}", agent.said());
    }
    let said = agent.said();
    assert!(said.contains("nothing there shows") && said.lines().count() == 2, "{said}");
}

#[test]
fn a_way_that_does_not_get_through_is_left_for_one_that_does_and_remembered() {
    let world = world();
    world.amend("laptop", "methods = [\"spa\", \"sequence\"]\n");
    world.edit("home/.config/knockd-rs/myserver.toml", |text| {
        text.replace("methods = [\"spa\"]", "methods = [\"spa\", \"sequence\"]")
    });
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.inside(&world.client).args(["nft", "add", "table", "inet", "wall"]).status().unwrap();
    let rules = "add chain inet wall out { type filter hook output priority 0; }; \
                 add rule inet wall out udp dport 62201 drop";
    assert!(world.inside(&world.client).args(["nft", rules]).status().unwrap().success());
    let mut agent = Agent::start(&world, &["--for", "20s"]);
    agent.says("by sequence", 1);
    assert!(is_granted(&daemon, CLIENT4));
    agent.end();
    let again = Instant::now();
    let agent = Agent::start(&world, &["--for", "20s"]);
    agent.says("by sequence", 1);
    assert!(again.elapsed() < Duration::from_secs(4), "the datagram was tried first again");
}

#[test]
fn a_hangup_reads_the_file_again_and_systemd_is_told_what_is_open() {
    let world = world();
    let _daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let path = world.path("home/notify").display().to_string();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let agent = Agent::start_as(&world, "agent", &[], Some(&path));
    let mut heard = String::new();
    let mut hear = |words: &str| {
        let mut bytes = [0; 512];
        while !heard.contains(words) {
            let length = socket.recv(&mut bytes).unwrap_or_else(|_| panic!("no {words:?} in {heard:?}"));
            heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        heard.clear();
    };
    hear("READY=1");
    hear("STATUS=tcp/22 is open for 10.77.0.2 until ");
    world.retarget("not an address");
    agent.signal(Signal::HUP);
    agent.says("nothing has changed", 1);
    world.retarget(&SERVER6.to_string());
    agent.signal(Signal::HUP);
    hear("STATUS=tcp/22 is open for fd77::2 until ");
}

#[test]
fn more_than_the_bundle_gives_is_not_counted_on() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--max-duration", "4s"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let agent = Agent::start(&world, &["--for", "1h"]);
    agent.says("a grant lasts 4s, which is all that the server gives", 1);
    assert!(wait_for(SOON, || is_granted(&daemon, CLIENT4)));
    let (count, failed, ()) = attempts(&world, SERVER4, || std::thread::sleep(Duration::from_secs(9)));
    assert!(count > 100 && failed.is_empty(), "{count}, {failed:?}");
}
