//! What a grant asks of its connections, and of its client afterwards. Most stories kill the daemon right after the
//! grant: it is the kernel that keeps the promise.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::{
    CLIENT4, CLIENT6, GUARDED, SERVER4, SERVER6, Talk, World, attempt, said, succeed, wait_for, within,
};
use crate::grants::{closes_at, deadline};

const BOTH: [(IpAddr, IpAddr); 2] = [(SERVER4, CLIENT4), (SERVER6, CLIENT6)];
const MANY: &str = "connections = \"many\"\nmax_duration = \"1h\"\n";

/// A world whose client `laptop` has a profile with these lines, which knows the server by this address.
fn world(lines: &str, server: IpAddr) -> World {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.amend("laptop", lines);
    world.retarget(&server.to_string());
    world
}

/// Whether the connection is cut within 300 ms of its deadline.
#[track_caller]
fn is_cut_at(deadline: Instant, mut talk: Talk) {
    closes_at(deadline, || talk.goes_on());
}

#[test]
fn a_connection_is_cut_when_its_grant_ends_although_the_daemon_is_dead() {
    for (server, _) in BOTH {
        let world = world(MANY, server);
        let mut daemon = world.daemon(GUARDED);
        let _ssh = world.mirror(22);
        world.knock(&["--many", "--for", "2s", "--end-with-grant"]);
        let ends = deadline(&daemon);
        daemon.kill9_both();
        let talk = world.talk(server, 22).unwrap();
        is_cut_at(ends, talk);
        assert!(world.talk(server, 22).is_none());
    }
}

#[test]
fn a_single_connection_is_cut_at_the_end_too_and_one_without_the_flag_goes_on() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--for", "1s"]);
    let mut on = world.talk(SERVER4, 22).unwrap();
    world.knock(&["--for", "2s", "--end-with-grant"]);
    let ends = deadline(&daemon);
    let talk = world.talk(SERVER4, 22).unwrap();
    assert!(world.talk(SERVER4, 22).is_none(), "a second connection");
    is_cut_at(ends, talk);
    assert!(on.goes_on());
}

#[test]
fn a_range_cuts_its_connections_as_a_single_port_does() {
    let world = world(MANY, SERVER6);
    world.amend("laptop", "open = [\"tcp/20-30\"]\n");
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["tcp/20-30", "--many", "--for", "2s", "--end-with-grant"]);
    let ends = deadline(&daemon);
    daemon.kill9_both();
    let talk = world.talk(SERVER6, 22).unwrap();
    is_cut_at(ends, talk);
}

#[test]
fn revoke_and_close_cut_such_connections_at_once() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    for how in ["revoke", "close"] {
        world.knock(&["--many", "--for", "1h", "--end-with-grant"]);
        let mut talk = world.talk(SERVER4, 22).unwrap();
        if how == "revoke" {
            let output = daemon.command(&["revoke", "laptop"]);
            assert!(output.contains("connections that are established are cut"), "{output}");
        } else {
            world.knock_until(&["--close"], || daemon.grants().is_empty());
        }
        assert!(!talk.goes_on(), "{how}");
    }
}

#[test]
fn a_revoke_cuts_a_connection_whose_grant_it_has_used_up() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    for how in [&["revoke", "laptop"][..], &["revoke", "10.77.0.2"], &["revoke", "all"]] {
        world.knock(&["--for", "1h", "--end-with-grant"]);
        let mut talk = world.talk(SERVER4, 22).unwrap();
        assert!(daemon.grants().is_empty(), "it is used up");
        assert_eq!(daemon.command(how), "connections of grants that were used up are cut\n");
        assert!(!talk.goes_on(), "{how:?}");
    }
    world.knock(&["--for", "1h", "--end-with-grant"]);
    let mut talk = world.talk(SERVER4, 22).unwrap();
    world.knock_until(&["--close"], || daemon.logged("closed laptop") > 0);
    assert!(!talk.goes_on());
}

#[test]
fn a_renewed_grant_keeps_its_connection() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--many", "--for", "2s", "--end-with-grant"]);
    let mut talk = world.talk(SERVER4, 22).unwrap();
    let first = deadline(&daemon);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        world.knock(&["--many", "--for", "2s", "--end-with-grant"]);
        assert!(talk.goes_on());
    }
    let last = deadline(&daemon);
    assert!(last > first + Duration::from_secs(1));
    is_cut_at(last, talk);
}

#[test]
fn connections_come_one_at_a_time_although_the_daemon_is_dead() {
    for (server, _) in BOTH {
        let world = world(MANY, server);
        let mut daemon = world.daemon(GUARDED);
        let _ssh = world.mirror(22);
        world.knock(&["--many", "--for", "1h", "--one-at-a-time"]);
        daemon.kill9_both();
        for _ in 0..3 {
            let mut talk = world.talk(server, 22).unwrap();
            assert!(world.talk(server, 22).is_none(), "a second one beside the first");
            assert!(talk.goes_on());
            drop(talk);
            // Until both ends have said goodbye.
            assert!(wait_for(Duration::from_secs(3), || world.on_server(no_connections)));
        }
    }
}

/// Whether no connection to port 22 is established or being closed in this namespace.
fn no_connections() -> bool {
    let lines = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .map(|path| std::fs::read_to_string(path).unwrap());
    !lines.iter().flat_map(|text| text.lines()).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The local port 22 in any state but LISTEN.
        words.get(1).is_some_and(|local| local.ends_with(":0016")) && words.get(3) != Some(&"0A")
    })
}

#[test]
fn three_connections_are_three_although_the_daemon_is_dead() {
    for (server, _) in BOTH {
        for open in ["tcp/22", "tcp/20-30"] {
            let world = world(&format!("{MANY}open = [\"{open}\"]\n"), server);
            let mut daemon = world.daemon(GUARDED);
            let _ssh = world.mirror(22);
            world.knock(&[open, "--connections", "3", "--for", "1h"]);
            assert_eq!(daemon.grants()[0]["connections"], "3");
            daemon.kill9_both();
            let mut talks: Vec<Talk> = (0..3).map(|_| world.talk(server, 22).unwrap()).collect();
            assert!(world.talk(server, 22).is_none(), "{open}: a fourth");
            assert!(talks.iter_mut().all(Talk::goes_on));
        }
    }
}

#[test]
fn a_profile_sets_the_number_of_connections_and_a_knock_asks_for_no_more() {
    let world = world("connections = 2\n", SERVER4);
    let daemon = world.daemon(GUARDED);
    world.knock(&["--many"]);
    assert_eq!(daemon.grants()[0]["connections"], "2");
    world.knock(&["--connections", "9"]);
    assert_eq!(daemon.grants()[0]["connections"], "2");
    world.knock(&[]);
    assert!(daemon.grants().iter().any(|grant| grant["connections"] == "single"));
}

#[test]
fn what_is_left_of_three_connections_survives_a_restart() {
    let world = world(MANY, SERVER4);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--connections", "3", "--for", "1h"]);
    let _first = world.talk(SERVER4, 22).unwrap();
    daemon.restart();
    assert_eq!(daemon.grants()[0]["connections"], "2");
    let _rest = [world.talk(SERVER4, 22).unwrap(), world.talk(SERVER4, 22).unwrap()];
    assert!(world.talk(SERVER4, 22).is_none());
    assert!(daemon.grants().is_empty());
}

#[test]
fn after_its_grant_an_address_is_locked_out_as_long_as_the_profile_says() {
    for (server, client) in BOTH {
        let world = world(&format!("{MANY}lockout = \"4s\"\n"), server);
        let mut daemon = world.daemon(GUARDED);
        let _ssh = world.mirror(22);
        world.knock(&["--many", "--for", "2s", "--lock-out"]);
        let ends = deadline(&daemon);
        daemon.kill9_both();
        let mut talk = world.talk(server, 22).unwrap();
        closes_at(ends, || world.talk(server, 22).is_some());
        assert!(talk.goes_on(), "what is established goes on");
        // A grant that somebody else gives is of no use to the address.
        daemon.start_again();
        let refused = daemon.tell(&["grant", "laptop", &client.to_string()]);
        assert!(said(&refused).contains("is locked out for another"), "{}", said(&refused));
        world.knock_until(&[], || daemon.logged("refused laptop from") > 0);
        assert!(daemon.grants().is_empty());
        assert!(wait_for(Duration::from_secs(6), || daemon.status()["lockouts"] == serde_json::json!([])));
        world.knock(&["--many"]);
        assert!(world.talk(server, 22).is_some());
    }
}

#[test]
fn allow_ends_a_lock_out_and_closing_a_grant_begins_it() {
    let world = world(&format!("{MANY}session = [\"lock-out\"]\n"), SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--many", "--for", "1h"]);
    let screen = daemon.command(&["status"]);
    assert!(
        screen.contains("locked out for 9m59s in 59m") || screen.contains("locked out for 10m in 59m"),
        "{screen}"
    );
    world.knock_until(&["--close"], || daemon.grants().is_empty());
    let lockouts = daemon.status()["lockouts"].clone();
    assert_eq!(
        (lockouts[0]["begins_in"].as_f64(), lockouts[0]["profile"].as_str()),
        (Some(0.0), Some("laptop"))
    );
    assert!(lockouts[0]["ends_in"].as_f64().unwrap() > 590.0);
    world.knock_until(&[], || daemon.logged("refused laptop from") > 0);
    assert!(daemon.command(&["allow", "laptop"]).contains("10.77.0.2 is not locked out any more"));
    world.knock(&["--many"]);
    assert!(world.talk(SERVER4, 22).is_some());
}

#[test]
fn a_last_knock_is_the_last_until_the_administrator_allows_another() {
    let world = world(MANY, SERVER4);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--many", "--for", "2s", "--last-knock"]);
    assert!(world.talk(SERVER4, 22).is_some());
    let ends = deadline(&daemon);
    daemon.kill9_both();
    closes_at(ends, || world.talk(SERVER4, 22).is_some());
    daemon.start_again();
    world.knock_until(&[], || daemon.logged("refused laptop from") > 0);
    assert!(daemon.grants().is_empty());
    assert!(daemon.command(&["status"]).contains("laptop                   has knocked for the last time"));
    assert_eq!(daemon.command(&["allow", "laptop"]), "laptop may knock again\n");
    world.knock(&["--many"]);
    assert!(world.talk(SERVER4, 22).is_some());
    assert_eq!(daemon.command(&["allow", "laptop"]), "nobody is barred there; nothing to allow\n");
}

#[test]
fn a_profile_insists_on_flags_that_no_knock_has_to_ask_for() {
    let world = world("session = [\"end-with-grant\", \"one-at-a-time\"]\nconnections = \"many\"\n", SERVER4);
    world.amend("laptop", "methods = [\"spa\", \"totp\"]\n");
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    world.knock(&["--many", "--for", "2s"]);
    assert_eq!(daemon.grants()[0]["session"], serde_json::json!(["one-at-a-time", "end-with-grant"]));
    let talk = world.talk(SERVER4, 22).unwrap();
    assert!(world.talk(SERVER4, 22).is_none());
    is_cut_at(deadline(&daemon), talk);
}

#[test]
fn a_table_that_was_flushed_comes_back_with_all_that_a_grant_asks_for() {
    let world = world(&format!("{MANY}lockout = \"1h\"\n"), SERVER4);
    let mut daemon = world.daemon(&format!("{GUARDED}[firewall]\nowner = \"never\"\n"));
    let _ssh = world.mirror(22);
    world.knock(&["--many", "--for", "4s", "--end-with-grant", "--one-at-a-time", "--lock-out"]);
    let ends = deadline(&daemon);
    world.nft(&["flush", "ruleset"]);
    daemon.await_log("was made anew");
    assert_eq!(daemon.grants()[0]["session"], serde_json::json!(["one-at-a-time", "end-with-grant"]));
    daemon.kill9_both();
    let talk = world.talk(SERVER4, 22).unwrap();
    assert!(world.talk(SERVER4, 22).is_none());
    is_cut_at(ends, talk);
    let locked = world.nft(&["list", "set", "inet", "knockd-rs", "lockout_v4"]);
    assert!(locked.contains("10.77.0.2 timeout"), "{locked}");
}

#[test]
fn what_is_left_of_three_connections_is_what_a_mended_table_gives() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(&format!("{GUARDED}[firewall]\nowner = \"never\"\n"));
    let _ssh = world.mirror(22);
    world.knock(&["--connections", "3", "--for", "1h"]);
    let _two = [world.talk(SERVER4, 22).unwrap(), world.talk(SERVER4, 22).unwrap()];
    // The guard alone: what is left of the grant can be read.
    world.nft(&["flush", "map", "inet", "knockd-rs", "guarded"]);
    daemon.await_log("was made anew");
    let _third = world.talk(SERVER4, 22).unwrap();
    assert!(world.talk(SERVER4, 22).is_none(), "a fourth");
}

#[test]
fn sessions_of_one_address_are_none_of_anothers() {
    let world = world(MANY, SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.mirror(22);
    succeed(&daemon.tell(&[
        "grant",
        "laptop",
        &crate::common::STRANGER4.to_string(),
        "--many",
        "--for",
        "1h",
    ]));
    world.knock(&["--many", "--for", "1s", "--one-at-a-time", "--end-with-grant", "--lock-out"]);
    let _talk = world.talk(SERVER4, 22).unwrap();
    let theirs = || {
        within(&world.client, || {
            attempt(Some(crate::common::STRANGER4), (SERVER4, 22).into(), Duration::from_millis(300))
        }) == crate::common::Answer::Connected
    };
    assert!(theirs() && theirs());
    std::thread::sleep(Duration::from_millis(1300));
    assert!(theirs());
}

#[test]
fn a_wide_grant_is_for_the_network_where_the_profile_allows_it_and_for_the_address_where_not() {
    for (server, client) in BOTH {
        let world = world(MANY, server);
        let mut daemon = world.daemon(GUARDED);
        let _ssh = world.listener(22);
        world.knock(&["--many", "--wide", "--for", "1h"]);
        assert_eq!(daemon.grants()[0]["address"], client.to_string(), "not allowed");
        daemon.command(&["revoke", "laptop"]);
        world.amend("laptop", "wide = true\n");
        daemon.reload();
        world.knock(&["--many", "--wide", "--for", "3s"]);
        let grants = daemon.grants();
        let (network, prefix) = if server.is_ipv4() { ("10.77.0.0", 24) } else { ("fd77::", 64) };
        assert_eq!(
            (grants[0]["address"].as_str(), grants[0]["prefix"].as_u64()),
            (Some(network), Some(prefix))
        );
        assert!(daemon.command(&["status"]).contains(&format!("{network}/{prefix} ")));
        let ends = deadline(&daemon);
        daemon.kill9_both();
        // The stranger of this world is in the same network.
        assert!(world.can_connect(server, 22) && world.can_stranger_connect(server, 22));
        closes_at(ends, || world.can_stranger_connect(server, 22));
    }
}

#[test]
fn a_wide_grant_counts_its_connections_and_is_closed_by_its_client() {
    let world = world(&format!("{MANY}wide = true\n"), SERVER4);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--connections", "2", "--wide", "--for", "1h"]);
    assert!(world.can_connect(SERVER4, 22) && world.can_stranger_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22) && !world.can_stranger_connect(SERVER4, 22));
    world.knock(&["--many", "--wide", "--for", "1h"]);
    assert!(world.can_connect(SERVER4, 22));
    world.knock_until(&["--close"], || daemon.grants().is_empty());
    assert!(!world.can_connect(SERVER4, 22));
    // What is kept for single addresses makes it one for the address.
    world.knock(&["--many", "--wide", "--end-with-grant"]);
    assert_eq!(daemon.grants()[0]["prefix"], 32);
}
