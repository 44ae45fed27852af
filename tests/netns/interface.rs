//! Interfaces that go down, vanish, change their names and come back.

use std::time::Duration;

use crate::common::{CABLE, Daemon, SERVER4, SOON, World, ip, wait_for};

const ON_THE_CABLE: &str =
    "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\"]\n[capture]\ndevice = \"veth0\"\n";

#[track_caller]
fn serves(world: &World, daemon: &Daemon<'_>) {
    assert!(wait_for(SOON, || daemon.degraded().is_empty()), "{:?}\n{}", daemon.degraded(), daemon.log());
    // A fresh link needs a moment until packets pass.
    assert!(wait_for(SOON, || {
        world.knock(&[]);
        world.can_connect(SERVER4, 22)
    }));
    assert!(!world.can_connect(SERVER4, 22));
}

#[test]
fn knocks_are_heard_again_after_the_link_was_down() {
    let world = World::new();
    let daemon = world.daemon(ON_THE_CABLE);
    let _ssh = world.listener(22);
    for _ in 0..2 {
        ip(&format!("-n {} link set {CABLE} down", world.server));
        std::thread::sleep(Duration::from_millis(300));
        ip(&format!("-n {} link set {CABLE} up", world.server));
        serves(&world, &daemon);
    }
}

#[test]
fn a_removed_interface_is_reported_and_used_again_when_it_is_back() {
    let world = World::new();
    let daemon = world.daemon(ON_THE_CABLE);
    let _ssh = world.listener(22);
    serves(&world, &daemon);
    for round in 1..=2 {
        ip(&format!("-n {} link delete {CABLE}", world.server));
        assert!(wait_for(SOON, || daemon.degraded().iter().any(|line| line.contains(CABLE))));
        assert!(
            wait_for(SOON, || daemon.logged("degraded: the interface veth0 was removed") == round),
            "{}",
            daemon.log()
        );
        assert_eq!(daemon.status()["guards"][0]["ports"], "tcp/22");
        world.plug_in();
        serves(&world, &daemon);
        assert_eq!(daemon.logged("recovered: "), round, "{}", daemon.log());
    }
}

#[test]
fn an_interface_with_another_name_is_followed_there_and_back() {
    let world = World::new();
    let daemon = world.daemon(ON_THE_CABLE);
    let _ssh = world.listener(22);
    for (from, to) in [(CABLE, "elsewhere"), ("elsewhere", CABLE)] {
        ip(&format!("-n {} link set {from} down", world.server));
        ip(&format!("-n {} link set {from} name {to}", world.server));
        ip(&format!("-n {} link set {to} up", world.server));
        serves(&world, &daemon);
    }
}

#[test]
fn a_new_interface_under_the_configured_name_takes_the_place_of_one_that_was_renamed() {
    let world = World::new();
    let daemon = world.daemon(ON_THE_CABLE);
    let _ssh = world.listener(22);
    for namespace in [&world.server, &world.client] {
        ip(&format!("-n {namespace} link set {CABLE} down"));
        ip(&format!("-n {namespace} address flush dev {CABLE}"));
        ip(&format!("-n {namespace} link set {CABLE} name old0"));
    }
    world.plug_in();
    serves(&world, &daemon);
}

#[test]
fn a_start_without_the_interface_guards_at_once_and_listens_when_it_appears() {
    let world = World::new();
    ip(&format!("-n {} link delete {CABLE}", world.server));
    let how = crate::common::Launch { is_not_awaited: true, ..Default::default() };
    let mut daemon = world.launch(ON_THE_CABLE, how);
    assert!(wait_for(SOON, || daemon.log().contains("degraded: ")), "{}", daemon.log());
    let _ssh = world.listener(22);
    world.plug_in();
    assert!(!world.can_stranger_connect(SERVER4, 22));
    daemon.await_listening();
    serves(&world, &daemon);
}

#[test]
fn a_start_before_there_is_any_address_guards_at_once_and_serves_when_the_network_is_up() {
    for config in [ON_THE_CABLE, crate::common::GUARDED] {
        let world = World::new();
        for namespace in [&world.server, &world.client] {
            ip(&format!("-n {namespace} link set {CABLE} down"));
            ip(&format!("-n {namespace} address flush dev {CABLE}"));
        }
        let how = crate::common::Launch { is_not_awaited: true, ..Default::default() };
        let mut daemon = world.launch(config, how);
        let _ssh = world.listener(22);
        let is_up = || daemon.log().contains("listening: ") || daemon.log().contains("degraded: ");
        assert!(wait_for(SOON, is_up), "{}", daemon.log());
        world.bring_up();
        assert!(!world.can_stranger_connect(SERVER4, 22));
        daemon.await_listening();
        serves(&world, &daemon);
    }
}
