//! What a knock may ask to be opened, and for which address, on both families. The daemon is killed right after each
//! grant: the kernel alone keeps to what was asked and ends it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::common::{
    Answer, CLIENT4, CLIENT6, Daemon, Echo, PATIENCE, SERVER4, SERVER6, STRANGER4, STRANGER6, World, attempt,
    udp_answers,
};
use crate::grants::{closes_at, deadline};

const CONFIG: &str = "[freshness]\nclock = \"trusted\"\n\
                      [guard]\ndrop = [\"tcp/22\", \"tcp/8000-8100\", \"tcp/53\", \"udp/53\"]\n";
const EVERYTHING: [&str; 4] = ["tcp/22", "tcp/8000-8050", "tcp/53", "udp/53"];
/// What it comes to, in the order of [`Targets::open`].
const AS_ASKED: [bool; 6] = [true, true, true, false, true, true];

/// A world with something at every port, whose client may ask for all of them.
struct Targets {
    world: World,
    _services: Vec<Echo>,
}

impl Targets {
    fn new(server: &str) -> Self {
        let world = World::new();
        world.configure(CONFIG);
        let open = ["--open", "tcp/22", "--open", "tcp/8000-8100", "--open", "tcp/53", "--open", "udp/53"];
        let others = ["--other-address", "10.77.0.3/32", "--other-address", "fd77::3/128"];
        world.enrol("laptop", &[&open[..], &others[..], &["--many"]].concat());
        world.retarget(server);
        let services = [22, 53, 8000, 8050, 8051].map(|port| world.listener(port)).into();
        Self { world, _services: services }
    }

    fn daemon(&self) -> Daemon<'_> {
        self.world.daemon(CONFIG)
    }

    /// Which of tcp/22, tcp/8000, tcp/8050, tcp/8051, tcp/53 and udp/53 the client reaches.
    fn open(&self, server: IpAddr) -> [bool; 6] {
        let tcp = |port| self.world.can_connect(server, port);
        [tcp(22), tcp(8000), tcp(8050), tcp(8051), tcp(53), self.world.udp_answers(server, 53)]
    }
}

#[test]
fn ports_ranges_and_both_protocols_open_by_one_knock_and_end_although_the_daemon_is_dead() {
    for server in [SERVER4, SERVER6] {
        let targets = Targets::new(&server.to_string());
        let world = &targets.world;
        let mut daemon = targets.daemon();
        assert_eq!(targets.open(server), [false; 6]);
        world.knock(&[&["--many", "--for", "4s"], &EVERYTHING[..]].concat());
        let ends = deadline(&daemon);
        daemon.kill9_both();
        assert_eq!(targets.open(server), AS_ASKED);
        assert!([22, 8000, 8050, 53].iter().all(|port| !world.can_stranger_connect(server, *port)));
        closes_at(ends, || {
            let udp = || world.on_client(|| udp_answers((server, 53).into(), PATIENCE));
            world.can_connect(server, 8050) || udp()
        });
        assert_eq!(targets.open(server), [false; 6]);
    }
}

#[test]
fn each_of_several_ports_is_for_one_connection_although_the_daemon_is_dead() {
    for server in [SERVER4, SERVER6] {
        let targets = Targets::new(&server.to_string());
        let mut daemon = targets.daemon();
        targets.world.knock(&["--for", "1h", "tcp/22", "tcp/53", "udp/53"]);
        daemon.kill9_both();
        assert_eq!(targets.open(server), [true, false, false, false, true, true]);
        assert_eq!(targets.open(server), [false; 6]);
    }
}

#[test]
fn another_address_has_the_grant_alone_and_until_its_end_although_the_daemon_is_dead() {
    for (server, stranger) in [(SERVER4, STRANGER4), (SERVER6, STRANGER6)] {
        let targets = Targets::new(&server.to_string());
        let world = &targets.world;
        let mut daemon = targets.daemon();
        world.knock(&["--many", "--for", "3s", "--address", &stranger.to_string(), "tcp/22"]);
        let ends = deadline(&daemon);
        daemon.kill9_both();
        assert_eq!(targets.open(server), [false; 6]);
        let theirs = || world.on_client(|| attempt(Some(stranger), (server, 22).into(), PATIENCE));
        assert_eq!(theirs(), Answer::Connected);
        closes_at(ends, || theirs() == Answer::Connected);
    }
}

#[test]
fn both_families_have_a_grant_when_the_servers_name_has_both_although_the_daemon_is_dead() {
    let targets = Targets::new("server.test");
    let world = &targets.world;
    let hosts = Path::new("/etc/netns").join(&world.client);
    fs::create_dir_all(&hosts).unwrap();
    fs::write(hosts.join("hosts"), format!("{SERVER4} server.test\n{SERVER6} server.test\n")).unwrap();
    let mut daemon = targets.daemon();
    world.knock(&["--many", "--for", "3s", "tcp/22"]);
    let addresses: Vec<Value> = daemon.grants().iter().map(|grant| grant["address"].clone()).collect();
    assert_eq!(addresses, [CLIENT4.to_string(), CLIENT6.to_string()]);
    let ends = deadline(&daemon);
    daemon.kill9_both();
    assert!(world.can_connect(SERVER4, 22) && world.can_connect(SERVER6, 22));
    closes_at(ends, || world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER6, 22));
}
