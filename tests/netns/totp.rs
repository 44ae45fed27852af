//! Sequences by the time: by the program's own client, and by knockd's with printed ports.

use std::time::Duration;

use knockd_rs::client::store::{Dirs, load_server};
use knockd_rs::clock;
use knockd_rs::crypto::Secret;
use knockd_rs::knock::{Ground, totp};

use crate::common::{Daemon, GUARDED, SERVER4, SERVER6, World, said, succeed, wait_for};

/// A laptop that may knock by sequences alone, beside another method's.
fn daemon(world: &World) -> Daemon<'_> {
    world.enrol("laptop", &["--open", "tcp/22", "--method", "totp"]);
    world.daemon(GUARDED)
}

/// Knocks with knockd's client, which knows nothing of time.
fn knock(world: &World, server: &str, ports: &str) {
    let mut knock = world.inside(&world.client);
    knock.args(["knock", "-d", "30", if server.contains(':') { "-6" } else { "-4" }, server]);
    let output = knock.args(ports.split(' ')).output();
    succeed(
        &output.unwrap_or_else(|error| panic!("`knock` cannot be run ({error}): apt-get install knockd")),
    );
}

/// The ports of a step, some steps from now.
fn ports(world: &World, offset: i64) -> String {
    let home = world.path("home");
    let dirs = Dirs { config: home.join(".config/knockd-rs"), state: home.join(".local/state/knockd-rs") };
    let enrolment = load_server(&dirs, &"myserver".parse().unwrap()).unwrap();
    let psk = enrolment.access.psk.clone().unwrap_or_else(|| Secret::new([0; 32]));
    let key = totp::key(&enrolment.key_pair().unwrap(), &enrolment.access.server_key, &psk).unwrap();
    let step = totp::step(clock::wall()).checked_add_signed(offset).unwrap();
    let ports = totp::ports(&key, step, totp::DEFAULT_PORTS, &Ground::default());
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_client_gets_in_by_ports_alone_over_both_families() {
    for server in [SERVER4, SERVER6] {
        let world = World::new();
        let daemon = daemon(&world);
        world.retarget(&server.to_string());
        let _ssh = world.listener(22);
        let output = world.client(&["knock", "myserver", "--totp", "--timeout", "20s"]);
        succeed(&output);
        assert!(said(&output).contains("TCP ports by the time"), "{}", said(&output));
        assert!(said(&output).contains("tcp/22 at"), "{}", said(&output));
        assert!(world.can_connect(server, 22), "the last knock left one connection: {}", daemon.log());
        assert!(!world.can_connect(server, 22));
        assert_eq!(daemon.logged("granted laptop"), 2, "{}", daemon.log());
        assert_eq!(daemon.logged("refused "), 0, "{}", daemon.log());
    }
}

#[test]
fn knockds_own_client_gets_in_with_printed_ports_and_once_only() {
    let world = World::new();
    let daemon = daemon(&world);
    let _ssh = world.listener(22);
    let printed = succeed(&world.client(&["totp", "myserver"])).trim().to_owned();
    assert_eq!(printed.split(' ').count(), 6);
    knock(&world, "10.77.0.1", &printed);
    assert!(wait_for(Duration::from_secs(2), || daemon.logged("granted laptop") == 1), "{}", daemon.log());
    assert!(world.can_connect(SERVER4, 22));
    // The same again: from the same address, and over the other family.
    knock(&world, "10.77.0.1", &printed);
    daemon.await_log("refused laptop from 10.77.0.2: the knock's counter was used before");
    knock(&world, "fd77::1", &printed);
    daemon.await_log("refused laptop from fd77::2: the knock's counter was used before");
    assert!(daemon.grants().is_empty());
    // The next ones are others, and good.
    let next = succeed(&world.client(&["totp", "myserver"])).trim().to_owned();
    assert_ne!(next, printed);
    knock(&world, "fd77::1", &next);
    daemon.await_log("granted laptop from fd77::2");
}

#[test]
fn a_sequence_sent_again_after_a_restart_is_refused() {
    let world = World::new();
    let mut daemon = daemon(&world);
    let printed = succeed(&world.client(&["totp", "myserver"])).trim().to_owned();
    knock(&world, "10.77.0.1", &printed);
    daemon.await_log("granted laptop");
    daemon.restart();
    knock(&world, "10.77.0.1", &printed);
    daemon.await_log("refused laptop from 10.77.0.2: the knock's counter was used before");
    daemon.kill9_both();
    daemon.start_again();
    knock(&world, "10.77.0.1", &printed);
    daemon.await_log("refused laptop from 10.77.0.2: the knock's counter was used before");
}

#[test]
fn a_sequence_of_an_old_step_or_of_a_later_one_opens_nothing() {
    let world = World::new();
    let daemon = daemon(&world);
    for offset in [-3, 4] {
        knock(&world, "10.77.0.1", &ports(&world, offset));
    }
    knock(&world, "10.77.0.1", &ports(&world, 0));
    daemon.await_log("granted laptop");
    assert_eq!(daemon.logged("granted "), 1);
    assert!(daemon.counter("dropped: partial") >= 17);
}

#[test]
fn a_client_whose_profile_does_not_list_it_gets_nothing_and_is_told() {
    let world = World::new();
    world.enrol("other", &["--open", "tcp/22", "--method", "totp"]);
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    for words in [&["knock", "myserver", "--totp"][..], &["totp", "myserver"]] {
        let output = world.client(words);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("does not take"), "{}", said(&output));
    }
    // The ports that its keys would give, sent all the same.
    knock(&world, "10.77.0.1", &ports(&world, 0));
    assert!(wait_for(Duration::from_secs(2), || daemon.counter("dropped: partial") == 6));
    world.knock(&[]);
    daemon.await_log("granted laptop");
    assert_eq!(daemon.logged("granted "), 1);
}

#[test]
fn what_ports_cannot_say_is_told() {
    let world = World::new();
    let _daemon = daemon(&world);
    let output = world.client(&["knock", "myserver", "tcp/22", "--totp"]);
    assert!(said(&output).contains("a sequence by the time asks for everything"), "{}", said(&output));
}
