//! SIGKILL for the monitor, the worker or both, in every state: the kernel keeps what was promised, and the next
//! start goes on from there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::common::{CLIENT4, Daemon, GUARDED, PATIENCE, PLAIN, SERVER4, SERVER6, World, wait_for};
use crate::grants::{closes_at, deadline};

#[derive(Clone, Copy, Debug)]
enum Victim {
    Monitor,
    Worker,
    Both,
}

const ALL: [Victim; 3] = [Victim::Monitor, Victim::Worker, Victim::Both];

/// Kills, and returns when no process of the daemon is left.
#[track_caller]
fn kill(daemon: &mut Daemon<'_>, victim: Victim) {
    match victim {
        Victim::Monitor => daemon.kill9_monitor(),
        Victim::Both => daemon.kill9_both(),
        Victim::Worker => assert!(!daemon.kill9_worker().success(), "the death of a worker is an error"),
    }
}

#[test]
fn the_death_of_the_worker_ends_the_daemon_with_an_error_and_one_clear_line() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let status = daemon.kill9_worker();
    assert_eq!(status.code(), Some(1));
    assert_eq!(daemon.logged("the worker died unasked: signal: 9 (SIGKILL)"), 1, "{}", daemon.log());
}

#[test]
fn killed_in_idleness_nothing_opens_and_a_restart_serves_again() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for victim in ALL {
        let sieges = [world.siege(SERVER4, 22), world.siege(SERVER6, 22)];
        kill(&mut daemon, victim);
        std::thread::sleep(Duration::from_millis(200));
        daemon.start_again();
        std::thread::sleep(Duration::from_millis(100));
        for siege in sieges {
            let assault = siege.end();
            assert!(assault.attempts > 20 && assault.connected == 0, "{victim:?}: {assault:?}");
        }
        world.knock(&[]);
        assert!(world.can_connect(SERVER4, 22), "{victim:?}:\n{}", daemon.log());
    }
}

#[test]
fn a_live_grant_ends_on_time_while_no_daemon_runs() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "3s"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for victim in ALL {
        world.knock(&["--many"]);
        let deadline = deadline(&daemon);
        kill(&mut daemon, victim);
        assert!(world.can_connect(SERVER4, 22), "{victim:?}");
        assert!(!world.can_stranger_connect(SERVER4, 22), "{victim:?}");
        closes_at(deadline, || world.can_connect(SERVER4, 22));
        daemon.start_again();
    }
}

#[test]
fn a_restart_keeps_a_live_grant_and_its_deadline() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "4s"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for victim in ALL {
        world.knock(&["--many"]);
        let before = deadline(&daemon);
        kill(&mut daemon, victim);
        daemon.start_again();
        assert_eq!(daemon.grants()[0]["profile"], "laptop");
        let after = deadline(&daemon);
        let apart = after.max(before) - after.min(before);
        assert!(apart < Duration::from_millis(300), "{victim:?}: {apart:?}");
        assert!(world.can_connect(SERVER4, 22), "{victim:?}");
        closes_at(before, || world.can_connect(SERVER4, 22));
    }
}

#[test]
fn a_restart_keeps_a_single_connection_grant_for_one_connection() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--duration", "1m"]);
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&[]);
    daemon.kill9_both();
    daemon.start_again();
    assert_eq!(daemon.grants()[0]["address"], CLIENT4.to_string());
    assert!(world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22));
    daemon.restart();
    assert!(daemon.grants().is_empty(), "what was used is not given again");
    assert!(!world.can_connect(SERVER4, 22));
}

#[test]
fn an_established_connection_outlives_its_grant_and_the_daemon() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--duration", "1s"]);
    let mut daemon = world.daemon(GUARDED);
    let listener = world.on_server(|| TcpListener::bind((SERVER4, 22)).unwrap());
    world.knock_until(&[], || daemon.log().contains("granted"));
    let mut client = world.on_client(|| TcpStream::connect((SERVER4, 22)).unwrap());
    let mut server = listener.accept().unwrap().0;
    let mut passes = |what: &[u8]| {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(what).unwrap();
        let mut bytes = vec![0; what.len()];
        server.read_exact(&mut bytes).is_ok() && bytes == what
    };
    assert!(passes(b"during the grant"));
    assert!(wait_for(Duration::from_secs(3), || !world.can_connect(SERVER4, 22)));
    assert!(passes(b"after its end"));
    kill(&mut daemon, Victim::Both);
    assert!(passes(b"without a daemon"));
    daemon.start_again();
    assert!(passes(b"after a restart"));
    daemon.reload();
    daemon.command(&["revoke", "all"]);
    assert!(passes(b"after a reload"));
}

#[test]
fn an_unconfirmed_guard_opens_again_on_time_while_no_daemon_runs() {
    let world = World::new();
    let mut daemon = world.daemon(PLAIN);
    let _ssh = world.listener(22);
    for victim in ALL {
        daemon.command(&["guard", "tcp/22", "--confirm", "2s"]);
        let end = Instant::now() + Duration::from_secs(2);
        kill(&mut daemon, victim);
        assert!(!world.can_connect(SERVER4, 22), "{victim:?}");
        assert!(wait_for(Duration::from_secs(4), || world.can_connect(SERVER4, 22)), "{victim:?}");
        assert!(Instant::now() + Duration::from_millis(400) > end, "{victim:?}: it opened early");
        daemon.start_again();
        assert!(world.can_connect(SERVER4, 22), "{victim:?}: the restart guards it anew");
    }
}

#[test]
fn a_restart_knows_an_unconfirmed_guard_and_a_knock_still_confirms_it() {
    for victim in ALL {
        let world = World::new();
        let mut daemon = world.daemon(PLAIN);
        let _ssh = world.listener(22);
        daemon.command(&["guard", "tcp/22", "--confirm", "5s"]);
        kill(&mut daemon, victim);
        daemon.start_again();
        let guard = &daemon.status()["guards"][0];
        let left = guard["unconfirmed_for"].as_f64().unwrap();
        assert!(guard["ports"] == "tcp/22" && left > 0.0 && left < 5.0, "{victim:?}: {guard}");
        world.knock(&[]);
        daemon.await_log("confirmed: the guard of tcp/22 stays");
        kill(&mut daemon, victim);
        daemon.start_again();
        assert!(daemon.status()["guards"][0]["unconfirmed_for"].is_null(), "{victim:?}");
        std::thread::sleep(Duration::from_secs(4));
        assert!(!world.can_stranger_connect(SERVER4, 22), "{victim:?}");
    }
}

#[test]
fn what_was_guarded_by_command_is_guarded_after_a_reboot() {
    let world = World::new();
    let mut daemon = world.daemon(PLAIN);
    let _services = (world.listener(22), world.listener(80));
    daemon.command(&["guard", "tcp/22", "--reject"]);
    daemon.command(&["guard", "tcp/80", "--confirm", "1m"]);
    world.knock(&["--for", "1m"]);
    daemon.kill9_both();
    // A reboot forgets the table, and with it what was never confirmed.
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
    std::fs::remove_dir_all(world.path("run")).unwrap();
    daemon.start_again();
    assert!(!world.can_connect(SERVER4, 22));
    assert!(world.can_connect(SERVER4, 80));
    assert_eq!(daemon.status()["guards"][0]["closed"], "reject");
}

#[test]
fn killed_during_a_reload_nothing_opens_and_grants_and_guards_are_kept() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let mut daemon = world.daemon(GUARDED);
    let _services = (world.listener(22), world.listener(80));
    daemon.command(&["guard", "tcp/80"]);
    daemon.command(&["grant", "laptop", "10.77.0.2", "tcp/22", "--many", "--for", "10m"]);
    for (round, victim) in (0..9).zip(ALL.into_iter().cycle()) {
        let sieges = [world.siege(SERVER4, 22), world.siege(SERVER6, 80)];
        daemon.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis([0, 3, 6, 10, 15, 20, 30, 45, 70][round]));
        match victim {
            Victim::Monitor => daemon.kill9_monitor(),
            Victim::Both => daemon.kill9_both(),
            Victim::Worker => {
                let newest = daemon.workers().pop().unwrap();
                let _ = kill_process(newest, Signal::KILL);
                // With a worker dies the daemon, unless it was the one that was to go anyway.
                if wait_for(Duration::from_secs(1), || !daemon.is_running()) {
                    assert!(!daemon.ended().success());
                } else {
                    assert_eq!(daemon.status()["serving"], 2);
                    daemon.kill9_both();
                }
            }
        }
        assert!(world.can_connect(SERVER4, 22), "round {round}: {victim:?}");
        daemon.start_again();
        for siege in sieges {
            assert_eq!(siege.end().connected, 0, "round {round}: {victim:?}");
        }
        assert_eq!(daemon.grants().len(), 1, "round {round}: {victim:?}");
        assert_eq!(daemon.status()["guards"].as_array().unwrap().len(), 2, "round {round}: {victim:?}");
        assert!(world.can_connect(SERVER4, 22), "round {round}: {victim:?}");
    }
}
