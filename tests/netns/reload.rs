//! Reading the configuration again: a broken one changes nothing, a good one costs no knock.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{CLIENT4, Daemon, GUARDED, KNOCKD, PLAIN, SERVER4, World, said, succeed, wait_for};

const KEPT: &str = "the configuration was not changed: the daemon goes on with the old one";

#[test]
fn a_broken_configuration_keeps_the_old_one_and_is_named_by_file_line_and_key() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.configure("[freshness]\nclock = \"trusted\"\n[capture]\nport = 0\n");
    let output = daemon.tell(&["reload"]);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    let fault = "knockd-rs.toml:4: capture.port: ";
    assert!(said(&output).contains(fault) && said(&output).contains(KEPT), "{}", said(&output));
    assert!(daemon.log().contains(fault) && daemon.log().contains(KEPT), "{}", daemon.log());
    still_serves(&world, &daemon);

    world.configure(GUARDED);
    world.amend("laptop", "max_duration = \"0s\"\n");
    daemon.signal(Signal::HUP);
    daemon.await_log("profiles.d/laptop.toml:");
    daemon.await_log("max_duration: ");
    assert!(wait_for(Duration::from_secs(5), || daemon.logged(KEPT) == 2));
    still_serves(&world, &daemon);
    assert_eq!(daemon.status()["configuration"], 1);

    world.amend("laptop", "max_duration = \"7s\"\n");
    world.amend("laptop", "duration = \"5s\"\n");
    daemon.signal(Signal::HUP);
    daemon.await_log("reloaded: the configuration was read again: 1 profile");
    assert!(wait_for(Duration::from_secs(5), || daemon.status()["serving"] == 2));
    world.knock(&["--for", "1h"]);
    assert_eq!(daemon.grants()[0]["granted_for"], 7.0);
}

#[track_caller]
fn still_serves(world: &World, daemon: &Daemon<'_>) {
    assert!(!world.can_connect(SERVER4, 22));
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22), "{}", daemon.log());
}

#[test]
fn a_new_profile_can_knock_after_a_reload_and_a_removed_ones_grants_end() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.enrol_as("second", "phone", &["--open", "tcp/22", "--many"]);
    succeed(&world.client(&["knock", "second", "--no-wait"]));
    assert!(daemon.grants().is_empty(), "the daemon does not know the profile yet");
    assert!(daemon.counter("dropped: unknown-client") > 0);
    daemon.reload();
    succeed(&world.client(&["knock", "second", "--no-wait", "--many", "--for", "10m"]));
    assert_eq!(daemon.grants()[0]["profile"], "phone");
    assert!(world.can_connect(SERVER4, 22));
    daemon.command(&["grant", "laptop", "10.77.0.9"]);
    let mut remove = Command::new(KNOCKD);
    remove.args(["profile", "remove", "phone", "--config-dir"]).arg(world.path("etc"));
    succeed(&remove.output().unwrap());
    daemon.reload();
    let grants = daemon.grants();
    assert!(grants.len() == 1 && grants[0]["profile"] == "laptop", "{grants:?}");
    assert!(!world.can_connect(SERVER4, 22));
    assert!(daemon.log().contains("revoked phone: tcp/22 for 10.77.0.2"));
}

#[test]
fn guards_follow_the_file_and_other_guards_stay() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _services = (world.listener(22), world.listener(80), world.listener(443));
    daemon.command(&["guard", "tcp/443"]);
    let open = || [22, 80, 443].map(|port| world.can_connect(SERVER4, port));
    assert_eq!(open(), [false, true, false]);
    world.configure(&format!("{PLAIN}[guard]\nreject = [\"tcp/80\"]\n"));
    daemon.reload();
    assert_eq!(open(), [true, false, false]);
    world.configure(GUARDED);
    daemon.reload();
    assert_eq!(open(), [false, true, false]);
}

#[test]
fn a_knock_during_a_reload_is_neither_lost_nor_taken_twice() {
    let world = World::new();
    let config = format!("{GUARDED}[limits]\nhandshakes_per_source = 5000\n");
    let daemon = world.daemon(&config);
    let mut sealer = world.sealer();
    let done = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let knocks = scope.spawn(|| {
            let mut sent = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                world.send(None, SERVER4, &sealer.knock(None));
                sent += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        (0..30).for_each(|_| drop(daemon.reload()));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        knocks.join().unwrap()
    });
    assert!(sent > 30, "{sent}");
    let accepted = || daemon.counter("knocks accepted");
    assert!(wait_for(Duration::from_secs(5), || accepted() >= sent), "{} of {sent}", accepted());
    assert_eq!(accepted(), sent);
    assert_eq!(daemon.counter("knocks refused"), 0, "{}", daemon.log());
    assert_eq!(daemon.status()["serving"], 31);
    let grants = daemon.grants();
    assert!(grants.len() == 1 && grants[0]["address"] == CLIENT4.to_string(), "{grants:?}");
}

#[test]
fn another_knock_port_is_listened_to_after_a_reload() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.configure(&format!("{GUARDED}[capture]\nport = 5555\n"));
    daemon.reload();
    world.knock(&[]);
    assert!(daemon.grants().is_empty());
    world.edit("home/.config/knockd-rs/myserver.toml", |text| text.replace("port = 62201", "port = 5555"));
    world.knock(&[]);
    assert_eq!(daemon.grants().len(), 1);
}
