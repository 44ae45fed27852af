//! What an adversarial reading found: each story is a way in, or a way to lock the admin out, that is closed.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use crate::common::{GUARDED, PLAIN, SERVER4, World, said};

/// Deletes the table, as a reboot does: nothing in the kernel is left to go on from.
fn forget_the_table(world: &World) {
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
}

#[test]
fn broadcast_and_multicast_are_no_way_round_a_guard() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    let service = world.on_server(|| {
        let service = UdpSocket::bind("0.0.0.0:5300").unwrap();
        service.join_multicast_v4(&"239.7.7.7".parse().unwrap(), &"10.77.0.1".parse().unwrap()).unwrap();
        service.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        service
    });
    let arrives = |to: &str| {
        world.on_client(|| {
            let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(b"hello", (to, 5300)).unwrap();
        });
        service.recv(&mut [0; 16]).is_ok()
    };
    let ways = ["10.77.0.1", "10.77.0.255", "239.7.7.7"];
    world.on_client(|| {
        let added =
            std::process::Command::new("ip").args(["route", "add", "239.7.7.7", "dev", "veth0"]).status();
        assert!(added.unwrap().success());
    });
    assert_eq!(ways.map(arrives), [true; 3], "nothing is guarded yet");
    daemon.command(&["guard", "udp/5300"]);
    assert_eq!(ways.map(arrives), [false; 3]);
}

#[test]
fn trying_a_guard_out_again_does_not_take_the_good_one_away() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    daemon.command(&["guard", "tcp/22"]);
    let again = daemon.tell(&["guard", "tcp/22", "--confirm", "1s"]);
    assert_eq!(again.status.code(), Some(6));
    assert!(
        said(&again).contains("tcp/22 is guarded for good already; unguard it first"),
        "{}",
        said(&again)
    );
    assert!(daemon.status()["guards"][0]["unconfirmed_for"].is_null());
}

#[test]
fn a_damaged_book_of_guards_opens_no_port_and_stops_no_daemon() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    daemon.command(&["guard", "tcp/23"]);
    let (_ssh, _telnet) = (world.listener(22), world.listener(23));
    let book = world.path("lib").join("guards.json");
    daemon.stop();
    fs::write(&book, "{\"guards\":[{").unwrap();
    // A restart: the kernel still knows what was guarded, and so does the daemon afterwards.
    daemon.start_again();
    assert!(!world.can_stranger_connect(SERVER4, 22) && !world.can_stranger_connect(SERVER4, 23));
    assert!(daemon.degraded()[0].contains("guards.json"), "{:?}", daemon.degraded());
    // A reboot: what the configuration file guards is guarded.
    daemon.stop();
    forget_the_table(&world);
    fs::write(&book, "{\"guards\":[{").unwrap();
    daemon.start_again();
    assert!(!world.can_stranger_connect(SERVER4, 22));
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
}

#[test]
fn broken_settings_at_a_boot_leave_no_port_open_and_lock_nobody_out() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    daemon.stop();
    forget_the_table(&world);
    world.configure("[guard]\ndrop = [\"tcp/0\"]\n");
    daemon.start_again();
    assert!(!world.can_stranger_connect(SERVER4, 22));
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
    assert!(
        daemon.degraded()[0].starts_with("knockd-rs.toml:2: guard.drop: port 0 cannot be opened"),
        "{:?}",
        daemon.degraded()
    );
}

#[test]
fn the_grants_of_a_profile_that_was_removed_end_with_the_restart_too() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--many", "--for", "1h"]);
    assert!(world.can_connect(SERVER4, 22));
    daemon.stop();
    fs::remove_file(world.path("etc").join("profiles.d/laptop.toml")).unwrap();
    daemon.start_again();
    assert!(!world.can_connect(SERVER4, 22));
    assert!(daemon.grants().is_empty());
}

#[test]
fn a_removed_profile_opens_nothing_through_a_worker_that_could_not_be_replaced() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    fs::remove_file(world.path("etc").join("profiles.d/laptop.toml")).unwrap();
    world.configure(&format!("{GUARDED}[capture]\ndevice = \"nope0\"\n"));
    assert!(said(&daemon.tell(&["reload"])).contains("0 profiles"));
    let knocked = world.client(&["knock", "myserver", "--timeout", "1s"]);
    assert_eq!(knocked.status.code(), Some(5));
    daemon.await_log("refused laptop from 10.77.0.2: the configuration has changed since");
    assert!(!world.can_connect(SERVER4, 22));
}
