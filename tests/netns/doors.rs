//! Files that tell which services are open, and what waits for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::grants::deadline;
use crate::common::{KNOCKD, SERVER4, SOON, World, wait_for};

const CONFIG: &str = "[freshness]\nclock = \"trusted\"\n[firewall]\nowner = \"never\"\n\
                      [guard]\ndrop = [\"tcp/22\", \"tcp/5432\"]\n\
                      [services]\nssh = [\"tcp/22\"]\n\
                      db = { ports = [\"tcp/5432\", \"udp/5432\"], unit = \"postgresql.service\" }\n";

fn world() -> World {
    let world = World::new();
    world.configure(CONFIG);
    world.enrol("laptop", &["--open", "db", "--open", "ssh", "--many", "--max-duration", "1h"]);
    world
}

fn is_open(world: &World) -> bool {
    world.path("run/open/db").exists()
}

#[track_caller]
fn comes_to(world: &World, open: bool) {
    assert!(
        wait_for(SOON, || is_open(world) == open),
        "the door file is {}there",
        if open { "not " } else { "" }
    );
}

#[test]
fn the_first_grant_opens_the_door_and_the_end_of_the_last_one_closes_it() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    world.knock(&["ssh", "--many"]);
    assert!(
        !daemon.grants().is_empty() && !world.path("run/open").exists(),
        "a service without a unit has a file"
    );
    world.knock(&["db", "--for", "2s", "--many"]);
    comes_to(&world, true);
    let names: Vec<_> =
        fs::read_dir(world.path("run/open")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["db"]);
    assert_eq!(fs::metadata(world.path("run/open")).unwrap().permissions().mode() & 0o7777, 0o755);
    daemon.command(&["grant", "laptop", "10.77.0.9", "udp/5432", "--for", "4s", "--many"]);
    let first = deadline(&daemon);
    assert!(wait_for(SOON, || Instant::now() > first + Duration::from_millis(700)) && is_open(&world));
    // Nobody asks the daemon anything from here on: it wakes by itself.
    comes_to(&world, false);
    let late = Instant::now().saturating_duration_since(first + Duration::from_secs(2));
    assert!(late < Duration::from_secs(1), "{late:?} too late");
    // It is logged once it is done.
    let logged = || (daemon.logged("door-opened: "), daemon.logged("door-closed: ")) == (1, 1);
    assert!(wait_for(SOON, logged), "{}", daemon.log());
}

#[test]
fn a_grant_that_its_connection_used_up_keeps_the_door_open_until_its_deadline_whoever_looks() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    let _db = world.listener(5432);
    world.knock(&["db", "--for", "4s"]);
    let deadline = deadline(&daemon);
    assert!(world.can_connect(SERVER4, 5432));
    assert!(wait_for(SOON, || daemon.grants().iter().all(|grant| grant["ports"] != "tcp/5432")));
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_open(&world), "looking at the status closed the door");
    assert!(Instant::now() < deadline, "the machine is too slow for this test");
    comes_to(&world, false);
    assert!(Instant::now() + Duration::from_millis(300) > deadline);
}

#[test]
fn revoking_closing_and_removing_the_profile_close_the_door_at_once() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    let _db = world.listener(5432);
    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    world.knock(&["db", "--close"]);
    comes_to(&world, false);

    // Used up, found out by a status, and still nobody's any more after a revocation.
    world.knock(&["db", "--for", "1h"]);
    comes_to(&world, true);
    assert!(world.can_connect(SERVER4, 5432));
    daemon.command(&["revoke", "all"]);
    comes_to(&world, false);

    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    fs::remove_file(world.path("etc/profiles.d/laptop.toml")).unwrap();
    daemon.reload();
    comes_to(&world, false);
}

#[test]
fn a_service_that_loses_its_unit_loses_its_file() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    world.configure(&CONFIG.replace(", unit = \"postgresql.service\"", ""));
    daemon.reload();
    comes_to(&world, false);
    world.configure(CONFIG);
    daemon.reload();
    comes_to(&world, true);
}

#[test]
fn a_restart_finds_the_door_as_the_grants_are_and_a_stopped_daemon_leaves_no_file() {
    let world = world();
    let mut daemon = world.daemon(CONFIG);
    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    daemon.stop();
    assert!(!is_open(&world));
    daemon.start_again();
    comes_to(&world, true);
    daemon.kill9_both();
    assert!(is_open(&world), "nobody was there to remove it");
    world.nft(&["flush", "set", "inet", "knockd-rs", "grants_v4"]);
    daemon.start_again();
    comes_to(&world, false);
}

#[test]
fn a_table_that_was_made_anew_keeps_the_door_open() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
    daemon.await_log("healed: ");
    assert!(is_open(&world));
    assert_eq!(daemon.logged("door-closed"), 0, "{}", daemon.log());
}

fn waiter(world: &World, grace: &str) -> Child {
    let mut command = Command::new(KNOCKD);
    command.args(["door", "db", "--grace", grace, "--runtime-dir"]).arg(world.path("run"));
    command.spawn().unwrap()
}

#[test]
fn what_waits_at_the_door_ends_after_the_grace_and_not_when_a_grant_came_within_it() {
    let world = world();
    let daemon = world.daemon(CONFIG);
    let started = Instant::now();
    assert!(waiter(&world, "1s").wait().unwrap().success(), "without a file it ends after the grace");
    assert!(started.elapsed() >= Duration::from_secs(1));

    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    let mut waiter = waiter(&world, "2s");
    let is_waiting = |waiter: &mut Child| waiter.try_wait().unwrap().is_none();
    std::thread::sleep(Duration::from_millis(500));
    daemon.command(&["revoke", "all"]);
    std::thread::sleep(Duration::from_secs(1));
    world.knock(&["db", "--for", "1h", "--many"]);
    comes_to(&world, true);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(is_waiting(&mut waiter), "it ended while the door was open");
    daemon.command(&["revoke", "all"]);
    let closed = Instant::now();
    assert!(waiter.wait().unwrap().success());
    assert!(closed.elapsed() > Duration::from_millis(1800) && closed.elapsed() < Duration::from_secs(4));
}
