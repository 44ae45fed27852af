//! A packet that was accepted once opens nothing ever again, whoever sends it and whatever happened in between.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{
    Answer, CLIENT4, Daemon, GUARDED, PLAIN, SERVER4, SERVER6, SOON, STRANGER4, STRANGER6, World, wait_for,
};

/// Knocks, uses the grant up, and returns the packet as it was on the wire.
fn spent(world: &World, daemon: &Daemon<'_>) -> Vec<u8> {
    let ear = world.ear();
    world.knock(&[]);
    let packet = ear.one();
    assert!(world.can_connect(SERVER4, 22));
    assert!(daemon.grants().is_empty());
    packet
}

/// Sends the packet again, from the client's address and from another, on both families; nothing may open.
#[track_caller]
fn opens_nothing(world: &World, daemon: &Daemon<'_>, packet: &[u8]) {
    let frames = daemon.counter("frames");
    for (from, to) in
        [(None, SERVER4), (Some(STRANGER4), SERVER4), (None, SERVER6), (Some(STRANGER6), SERVER6)]
    {
        world.send(from, to, packet);
    }
    assert!(wait_for(SOON, || daemon.counter("frames") == frames + 4), "the copies did not arrive");
    assert!(daemon.grants().is_empty(), "a copy opened something:\n{}", daemon.log());
    assert_eq!(world.try_tcp(None, SERVER4, 22), Answer::Silence);
    assert!(!world.can_stranger_connect(SERVER4, 22) && !world.can_stranger_connect(SERVER6, 22));
}

#[test]
fn a_packet_sent_again_at_once_is_dropped_silently_from_wherever_it_comes() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = spent(&world, &daemon);
    let (log, repeats) = (daemon.log(), daemon.counter("dropped: repeat"));
    opens_nothing(&world, &daemon, &packet);
    assert_eq!(daemon.counter("dropped: repeat"), repeats + 4);
    assert_eq!(daemon.log(), log);
}

#[test]
fn a_packet_sent_again_after_a_restart_is_refused() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = spent(&world, &daemon);
    // The first run after it still knows the packet, later ones know its counter.
    for _ in 0..2 {
        assert!(daemon.stop().success());
        daemon.start_again();
        opens_nothing(&world, &daemon, &packet);
    }
    assert_eq!(daemon.logged("refused laptop from 10.77.0.2: the knock's counter was used before"), 1);
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22), "after all that the client itself gets in");
}

#[test]
fn a_packet_sent_again_after_a_reboot_is_refused() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = spent(&world, &daemon);
    daemon.stop();
    // What a reboot clears.
    fs::remove_dir_all(world.path("run")).unwrap();
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
    daemon.start_again();
    assert_eq!(daemon.logged("quarantine"), 0);
    opens_nothing(&world, &daemon, &packet);
    assert_eq!(daemon.logged("the knock's counter was used before"), 1);
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22), "no quarantine after a clean stop");
}

#[test]
fn a_packet_is_refused_after_all_was_killed_between_its_acceptance_and_the_opening() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let ear = world.ear();
    let journal = || fs::metadata(world.path("run/replay/replay.journal")).map_or(0, |file| file.len());
    let before = journal();
    // The monitor sleeps; the worker accepts, writes the mark down and asks. Nobody answers.
    daemon.signal(Signal::STOP);
    world.knock_until(&[], || journal() > before);
    let packet = ear.one();
    daemon.kill9_both();
    assert!(!world.nft(&["list", "table", "inet", "knockd-rs"]).contains(&CLIENT4.to_string()));
    for _ in 0..2 {
        daemon.start_again();
        assert!(daemon.grants().is_empty(), "nothing had been opened");
        opens_nothing(&world, &daemon, &packet);
        assert_eq!(daemon.logged("granted"), 0);
        daemon.kill9_both();
    }
    assert_eq!(daemon.logged("refused laptop from 10.77.0.2: the knock's counter was used before"), 1);
}

#[test]
fn a_packet_is_refused_when_all_was_killed_right_after_the_opening() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--duration", "2s"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let ear = world.ear();
    for _ in 0..2 {
        world.knock_until(&[], || daemon.log().contains("granted"));
        let packet = ear.one();
        daemon.kill9_both();
        daemon.start_again();
        assert!(wait_for(Duration::from_secs(4), || daemon.grants().is_empty()));
        opens_nothing(&world, &daemon, &packet);
        daemon.restart();
        opens_nothing(&world, &daemon, &packet);
        ear.heard();
    }
}

#[test]
fn an_older_packet_that_never_arrived_is_refused_after_a_newer_one() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let mut sealer = world.sealer();
    let held_back = sealer.knock(None);
    world.send(None, SERVER4, &sealer.knock(None));
    daemon.await_log("granted laptop from 10.77.0.2");
    assert!(world.can_connect(SERVER4, 22));
    world.send(Some(STRANGER4), SERVER4, &held_back);
    daemon.await_log("refused laptop from 10.77.0.3: the knock's counter is");
    assert!(daemon.grants().is_empty());
}

#[test]
fn a_packet_sent_again_after_a_reload_is_refused() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = spent(&world, &daemon);
    for _ in 0..3 {
        daemon.reload();
        opens_nothing(&world, &daemon, &packet);
    }
    assert_eq!(daemon.logged("granted"), 1);
}

#[test]
fn a_knock_that_the_policy_refused_is_used_up_too() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    let ear = world.ear();
    world.knock(&["--address", "10.77.0.9"]);
    let packet = ear.one();
    daemon.await_log("refused laptop from 10.77.0.2: the profile's other_addresses do not hold 10.77.0.9");
    world.amend("laptop", "other_addresses = [\"10.77.0.0/24\"]\n");
    daemon.reload();
    world.send(None, SERVER4, &packet);
    world.knock(&[]);
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 for 15s");
    assert_eq!(daemon.logged("to 10.77.0.9"), 0);
}
