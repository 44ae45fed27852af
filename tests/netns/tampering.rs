//! Hands in a table that is only watched: what the daemon mends, what it takes for a decision, and what it says.

use std::time::Duration;

use crate::common::{CLIENT4, Daemon, GUARDED, SERVER4, STRANGER4, World, said, wait_for};
use crate::rules::WATCHED;

/// Runs nft commands in one transaction.
fn nft(world: &World, commands: &[&str]) {
    world.nft(&[&commands.join("; ")]);
}

fn grant(daemon: &Daemon<'_>, address: std::net::IpAddr, time: &str) {
    daemon.command(&["grant", "laptop", &address.to_string(), "tcp/22", "--many", "--for", time]);
}

#[test]
fn a_grant_that_is_deleted_by_hand_is_over_is_told_and_does_not_come_back() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    grant(&daemon, CLIENT4, "10m");
    grant(&daemon, STRANGER4, "10m");
    nft(&world, &["delete element inet knockd-rs grants_v4 { 10.77.0.2 . tcp . 22 }"]);
    daemon.await_log(
        "revoked laptop: another program took tcp/22 for 10.77.0.2 out of the table; the grant is over",
    );
    assert_eq!(daemon.logged("healed: "), 0, "{}", daemon.log());
    assert!(!world.can_connect(SERVER4, 22) && world.can_stranger_connect(SERVER4, 22));
    world.nft(&["flush", "ruleset"]);
    daemon.await_log("it was made anew with 1 grant");
    assert!(!world.can_connect(SERVER4, 22), "what somebody had ended came back");
    assert!(world.can_stranger_connect(SERVER4, 22), "the other one is not concerned");
}

#[test]
fn a_grant_that_ends_by_itself_is_not_put_down_to_another_program() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(WATCHED);
    grant(&daemon, CLIENT4, "1s");
    for _ in 0..24 {
        nft(&world, &["add element inet knockd-rs trusted_v4 { 192.0.2.1 }"]);
        nft(&world, &["delete element inet knockd-rs trusted_v4 { 192.0.2.1 }"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(wait_for(Duration::from_secs(2), || daemon.grants().is_empty()));
    assert_eq!(daemon.logged("another program"), 0, "{}", daemon.log());
}

#[test]
fn a_guard_a_set_a_rule_or_the_whole_table_that_another_program_takes_away_comes_back_and_is_told() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    grant(&daemon, CLIENT4, "10m");
    let ways: [&[&str]; 7] = [
        &["delete element inet knockd-rs guarded { tcp . 22 }"],
        // With a timeout, the kernel would open the port later and tell nobody.
        &[
            "delete element inet knockd-rs guarded { tcp . 22 }",
            "add element inet knockd-rs guarded { tcp . 22 timeout 1s : goto drop_strangers }",
        ],
        &["flush chain inet knockd-rs admit", "delete set inet knockd-rs once_v4"],
        &["insert rule inet knockd-rs guard accept"],
        &["delete chain inet knockd-rs guard"],
        &["add table inet knockd-rs { flags dormant; }"],
        &["delete table inet knockd-rs"],
    ];
    for (round, way) in (1..).zip(ways) {
        nft(&world, way);
        assert!(
            wait_for(Duration::from_secs(3), || daemon.logged("healed: ") == round),
            "{way:?}: {}",
            daemon.log()
        );
        assert!(!world.can_stranger_connect(SERVER4, 22), "{way:?}");
        assert!(world.can_connect(SERVER4, 22), "{way:?}");
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(!world.can_stranger_connect(SERVER4, 22));
    let notes = daemon.status()["notes"].to_string();
    assert!(notes.contains("another program changed the table 7 times"), "{notes}");
}

#[test]
fn nothing_of_an_owned_table_can_be_changed_by_hand() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.knock(&[]);
    for command in [
        "delete element inet knockd-rs guarded { tcp . 22 }",
        "delete element inet knockd-rs once_v4 { 10.77.0.2 . tcp . 22 }",
        "add element inet knockd-rs trusted_v4 { 0.0.0.0/0 }",
        "insert rule inet knockd-rs guard accept",
        "flush chain inet knockd-rs guard",
        "add table inet knockd-rs { flags dormant; }",
        "delete table inet knockd-rs",
    ] {
        let refused = world.inside(&world.server).args(["nft", command]).output().unwrap();
        assert!(!refused.status.success(), "{command}");
        assert!(said(&refused).contains("Operation not permitted"), "{command}: {}", said(&refused));
    }
    assert_eq!(daemon.grants().len(), 1);
    assert_eq!(daemon.status()["notes"], serde_json::json!([]));
}

#[test]
fn a_stricter_table_behind_ours_stays_in_force_and_the_grants_packets_tell_that_it_is_not_us() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let table = "table inet late { chain input { type filter hook input priority 0; tcp dport 22 drop; }; }";
    world.nft(&[table]);
    world.knock(&["--many"]);
    assert!(!world.can_connect(SERVER4, 22), "what another table drops is not ours to let in");
    let let_in = daemon.grants()[0]["packets"].as_u64().unwrap();
    assert!(let_in >= 1, "our table let the connection's packet in, and counts it");
    world.nft(&["delete", "table", "inet", "late"]);
    assert!(world.can_connect(SERVER4, 22));
}
