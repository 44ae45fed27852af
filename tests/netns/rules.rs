//! The rules in the kernel against other programs that change them, and the administrator's own rules.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{CLIENT4, CLIENT6, GUARDED, SERVER4, SERVER6, SOON, World, said, succeed, wait_for};
use crate::grants::{closes_at, deadline};

pub(crate) const WATCHED: &str =
    "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\"]\n[firewall]\nowner = \"never\"\n";

/// Another program that flushes all tables again and again: 200 times, or for 5 s.
fn storm(world: &World) -> usize {
    let until = Instant::now() + Duration::from_secs(5);
    let flush = |_: &usize| {
        world.nft(&["flush", "ruleset"]);
        std::thread::sleep(Duration::from_millis(12));
        Instant::now() < until
    };
    (1..200).take_while(flush).count() + 1
}

#[test]
fn two_hundred_flushes_of_the_ruleset_by_another_program_open_nothing_and_end_nothing() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--many", "--for", "10m"]);
    let sieges = [world.siege(SERVER4, 22), world.siege(SERVER6, 22)];
    let (flushes, knocks) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| storm(&world));
        let mut knocks = 0;
        while !storm.is_finished() {
            world.retarget(&[SERVER4, SERVER6][knocks % 2].to_string());
            world.knock(&["--many", "--for", "11m"]);
            assert!([SERVER4, SERVER6][..(knocks + 1).min(2)].iter().all(|to| world.can_connect(*to, 22)));
            knocks += 1;
        }
        (storm.join().unwrap(), knocks)
    });
    let table = ["delete", "table", "inet", "knockd-rs"];
    let denied = world.inside(&world.server).arg("nft").args(table).output().unwrap();
    assert!(said(&denied).contains("Operation not permitted"), "{}", said(&denied));
    for siege in sieges {
        let assault = siege.end();
        println!("{flushes} flushes, {knocks} knocks; a stranger: {assault:?}");
        assert!(assault.attempts > 20 && assault.connected == 0, "{assault:?}");
    }
    assert_eq!(daemon.grants().len(), 2);
    assert!(world.can_connect(SERVER4, 22));
    assert_eq!(daemon.logged("healed"), 0);
}

#[test]
fn a_watched_table_that_is_flushed_two_hundred_times_comes_back_with_what_was_left_of_each_grant() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    world.knock(&["--many", "--for", "10m"]);
    let before = deadline(&daemon);
    let siege = world.siege(SERVER4, 22);
    let began = Instant::now();
    let flushes = storm(&world);
    let took = began.elapsed();
    assert!(
        wait_for(SOON, || daemon.degraded().is_empty()
            && world.nft(&["list", "tables"]).contains("knockd-rs")),
        "{}",
        daemon.log()
    );
    let assault = siege.end();
    println!(
        "{flushes} flushes of a watched table in {took:?}, made anew {} times; a stranger's longest row of \
         connections took {:?} ({} of {} got in)",
        daemon.logged("healed: "),
        assault.longest,
        assault.connected,
        assault.attempts
    );
    assert!(assault.attempts > 20 && assault.longest < took + SOON, "{assault:?}");
    assert!(!world.can_stranger_connect(SERVER4, 22));
    assert!(world.can_connect(SERVER4, 22), "the grant did not come back\n{}", daemon.log());
    let after = deadline(&daemon);
    let apart = after.max(before) - after.min(before);
    assert!(apart < Duration::from_millis(500), "{apart:?}");
    let (healed, failed) = (daemon.logged("healed: "), daemon.logged("failed: "));
    assert!(healed > 0 && failed <= healed, "what stands in the way is said once until it is over");
}

#[test]
fn a_table_that_is_only_watched_is_made_anew_with_what_was_left_of_each_grant() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "8s"]);
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    world.knock(&["--many"]);
    let before = deadline(&daemon);
    let mut worst = Duration::ZERO;
    for round in 1..=5 {
        assert_eq!(daemon.logged("healed: "), round - 1, "it was made anew without need");
        let siege = world.siege(SERVER4, 22);
        world.nft(&["flush", "ruleset"]);
        assert!(wait_for(Duration::from_secs(3), || daemon.logged("healed: ") == round), "{}", daemon.log());
        let assault = siege.end();
        worst = worst.max(assault.open_for);
        assert!(!world.can_stranger_connect(SERVER4, 22), "round {round}");
        assert!(world.can_connect(SERVER4, 22), "round {round}");
    }
    println!("a stranger reached the port for {worst:?} in the worst of 5 flushes of a watched table");
    assert!(daemon.log().contains("another program had changed the table; it was made anew with 1 grant"));
    let after = deadline(&daemon);
    let apart = after.max(before) - after.min(before);
    assert!(apart < Duration::from_millis(300), "{apart:?}");
    closes_at(before, || world.can_connect(SERVER4, 22));
}

#[test]
fn a_single_connection_grant_is_not_given_twice_by_making_the_table_anew() {
    let world = World::new();
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    world.knock(&["--for", "1m"]);
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
    daemon.await_log("1 for a number of connections was not restored: knock again");
    assert!(!world.can_connect(SERVER4, 22));
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
}

#[test]
fn a_guard_that_another_program_deletes_comes_back() {
    let world = World::new();
    let daemon = world.daemon(WATCHED);
    let _ssh = world.listener(22);
    world.nft(&["flush", "map", "inet", "knockd-rs", "guarded"]);
    daemon.await_log("healed: ");
    assert!(!world.can_connect(SERVER4, 22));
}

#[test]
fn the_administrators_own_sets_are_filled_and_nothing_else_is_touched() {
    let world = World::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("nft/examples/sets.nft");
    world.nft(&["-f", &example.display().to_string()]);
    // What belongs to connections is the kernel's own doing.
    let rules = || {
        let text = world.nft(&["-s", "list", "table", "inet", "filter"]);
        text.lines().filter(|line| !line.contains("elements = ")).collect::<Vec<_>>().join("\n")
    };
    let before = rules();
    world.enrol("laptop", &["--open", "tcp/22", "--open", "udp/53", "--many", "--duration", "3s"]);
    let config = "[freshness]\nclock = \"trusted\"\n[firewall]\nmode = \"sets\"\n[firewall.sets]\n\
                  timed_v4 = \"inet filter knock4\"\ntimed_v6 = \"inet filter knock6\"\n\
                  once_v4 = \"inet filter knock_once4\"\nonce_v6 = \"inet filter knock_once6\"\n";
    let daemon = world.daemon(config);
    let _services = (world.listener(22), world.listener(53));
    for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
        world.retarget(&server.to_string());
        assert!(!world.can_connect(server, 22) && !world.udp_answers(server, 53));
        world.knock(&["--many"]);
        assert!(daemon.grants().iter().all(|grant| grant["address"] == client.to_string()));
        let deadline = deadline(&daemon);
        assert!(world.can_connect(server, 22) && world.udp_answers(server, 53));
        closes_at(deadline, || world.can_connect(server, 22));
        world.knock(&["tcp/22"]);
        assert!(world.can_connect(server, 22));
        assert!(!world.can_connect(server, 22), "a second connection");
    }
    let refused = daemon.tell(&["guard", "tcp/22"]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(said(&refused).contains("your own rules close the ports"), "{}", said(&refused));
    assert!(wait_for(Duration::from_secs(5), || daemon.grants().is_empty()));
    assert_eq!(rules(), before);
    assert!(!world.nft(&["list", "tables"]).contains("knockd-rs"));
}

#[test]
fn stopping_keeps_the_table_or_removes_it_as_configured() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    assert!(daemon.stop().success());
    assert!(daemon.log().contains("stopped: guarded ports stay closed, live grants end on time"));
    assert!(!world.can_connect(SERVER4, 22));
    drop(daemon);
    let mut daemon = world.daemon(&format!("{GUARDED}[firewall]\non_stop = \"remove\"\n"));
    assert!(!world.can_connect(SERVER4, 22));
    succeed(&daemon.tell(&["status"]));
    assert!(daemon.stop().success());
    assert!(world.can_connect(SERVER4, 22));
    assert_eq!(world.nft(&["list", "tables"]), "");
}
