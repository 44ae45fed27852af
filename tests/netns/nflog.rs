//! `capture.device = "nflog:5"` with the example ruleset: the firewall chooses what the daemon sees.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::common::{Daemon, SERVER4, SERVER6, SOON, World, succeed, wait_for};

const NFLOG: &str =
    "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\"]\n[capture]\ndevice = \"nflog:5\"\n";

/// Loads the example, with or without the rules that are commented out, and starts the daemon behind it.
fn behind_the_example<'a>(world: &'a World, with_sequences: bool, method: &str) -> Daemon<'a> {
    let mut rules = include_str!("../../nft/examples/nflog.nft").to_owned();
    if with_sequences {
        rules = rules.replace("        #tcp ", "        tcp ").replace("        #udp ", "        udp ");
    }
    let file = world.path("nflog.nft");
    std::fs::write(&file, rules).unwrap();
    world.nft(&["-c", "-f", file.to_str().unwrap()]);
    world.nft(&["-f", file.to_str().unwrap()]);
    world.enrol("laptop", &["--open", "tcp/22", "--method", method]);
    world.daemon(NFLOG)
}

#[test]
fn knocks_open_at_once_over_both_families() {
    let world = World::new();
    let daemon = behind_the_example(&world, false, "spa");
    let _ssh = world.listener(22);
    for server in [SERVER4, SERVER6] {
        world.retarget(&server.to_string());
        assert!(!world.can_connect(server, 22));
        let before = (Instant::now(), daemon.logged("granted"));
        world.knock_until(&[], || daemon.logged("granted") > before.1);
        assert!(before.0.elapsed() < Duration::from_millis(900), "the kernel held the packet back");
        assert!(world.can_connect(server, 22));
    }
}

#[test]
fn a_syn_is_handed_over_too() {
    let world = World::new();
    let daemon = behind_the_example(&world, false, "syn");
    let _ssh = world.listener(22);
    succeed(&world.client(&["knock", "myserver", "--syn", "--no-wait", "--quiet"]));
    daemon.await_log("granted laptop");
    assert!(world.can_connect(SERVER4, 22));
}

#[test]
fn sequences_are_handed_over_where_their_rules_are_in_force() {
    for with_sequences in [true, false] {
        let world = World::new();
        let daemon = behind_the_example(&world, with_sequences, "totp");
        succeed(&world.client(&["knock", "myserver", "--totp", "--no-wait", "--quiet"]));
        if with_sequences {
            daemon.await_log("granted laptop");
        } else {
            assert_eq!((daemon.counter("frames"), daemon.logged("granted")), (0, 0));
        }
    }
}

#[test]
fn what_is_no_candidate_is_not_handed_over_and_a_flood_is_rationed() {
    let world = World::new();
    let daemon = behind_the_example(&world, false, "spa");
    let send = |length: usize, count: usize| {
        world.on_client(|| {
            let socket = UdpSocket::bind("10.77.0.3:0").unwrap();
            (0..count).for_each(|_| drop(socket.send_to(&vec![7; length], (SERVER4, 62201))));
        });
    };
    for length in [0, 175, 177, 184, 1233, 1248] {
        send(length, 1);
    }
    let _ = world.try_tcp(None, SERVER4, 4711);
    send(176, 5000);
    assert!(wait_for(SOON, || daemon.counter("frames") >= 100));
    // One hundred at once, and fifty a second for as long as the flood took.
    let handed_over = daemon.counter("frames");
    assert!(handed_over < 1000, "{handed_over} of 5000 were handed over");
    assert_eq!(daemon.counter("dropped: mac"), handed_over);
    world.knock(&[]);
    daemon.await_log("granted laptop from 10.77.0.2");
}
