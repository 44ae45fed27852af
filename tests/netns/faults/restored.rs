//! A state directory from a backup: SECURITY.md, "Known limits", says not to, and what it costs.

use std::process::Command;
use std::time::Duration;

use super::{has_lost, opens};
use crate::common::{Daemon, GUARDED, SERVER4, World, succeed, wait_for};

const BRIEF: &str =
    "[freshness]\nclock = \"trusted\"\nmax_age = \"3s\"\nmax_ahead = \"1s\"\n[guard]\ndrop = [\"tcp/22\"]\n";

fn copy(world: &World, from: &str, to: &str) {
    let (from, to) = (world.path(from), world.path(to));
    let _ = std::fs::remove_dir_all(&to);
    succeed(&Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap());
}

fn lose(world: &World, name: &str) {
    std::fs::remove_dir_all(world.path(name)).unwrap();
}

/// Knocks by a packet of its own making, uses the grant up, and returns the packet.
#[track_caller]
fn spent(world: &World, daemon: &Daemon<'_>) -> Vec<u8> {
    let packet = world.sealer().knock(None);
    assert!(opens(world, daemon, &packet), "{}", daemon.log());
    assert!(world.can_connect(SERVER4, 22));
    packet
}

#[test]
fn older_marks_beside_the_journal_of_this_boot_make_no_packet_good_again() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for is_clean in [false, true] {
        daemon.restart();
        daemon.stop();
        copy(&world, "lib/replay", "backup");
        daemon.start_again();
        let packet = spent(&world, &daemon);
        if is_clean {
            daemon.stop();
        } else {
            daemon.kill9_both();
        }
        copy(&world, "backup", "lib/replay");
        daemon.start_again();
        assert!(!opens(&world, &daemon, &packet), "{is_clean}:\n{}", daemon.log());
    }
}

#[test]
fn older_marks_that_were_copied_from_a_running_daemon_are_not_believed_after_a_reboot() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    // Its pulse: the worker has begun, and with that the marks on the disk are of a running daemon.
    daemon.status();
    copy(&world, "lib/replay", "backup");
    let packet = spent(&world, &daemon);
    daemon.stop();
    copy(&world, "backup", "lib/replay");
    lose(&world, "run");
    daemon.start_again();
    has_lost(&daemon);
    assert!(!opens(&world, &daemon, &packet));
}

#[test]
fn older_marks_of_a_clean_stop_let_a_packet_in_once_more_while_it_is_fresh_and_never_later() {
    for is_fresh in [true, false] {
        let world = World::new();
        let mut daemon = world.daemon(BRIEF);
        let _ssh = world.listener(22);
        daemon.stop();
        copy(&world, "lib/replay", "backup");
        daemon.start_again();
        let packet = spent(&world, &daemon);
        daemon.stop();
        copy(&world, "backup", "lib/replay");
        lose(&world, "run");
        if !is_fresh {
            std::thread::sleep(Duration::from_millis(3500));
        }
        daemon.start_again();
        assert_eq!(opens(&world, &daemon, &packet), is_fresh, "{}", daemon.log());
        assert_eq!(world.can_connect(SERVER4, 22), is_fresh);
        assert!(!opens(&world, &daemon, &packet), "{}", daemon.log());
    }
}

#[test]
fn without_the_restored_marks_the_daemon_waits_until_nothing_old_is_good() {
    let world = World::new();
    let mut daemon = world.daemon(BRIEF);
    let _ssh = world.listener(22);
    let packet = spent(&world, &daemon);
    daemon.stop();
    lose(&world, "lib/replay");
    lose(&world, "run");
    daemon.start_again();
    assert!(!opens(&world, &daemon, &packet));
    assert!(wait_for(Duration::from_secs(8), || daemon.degraded().is_empty()));
    assert!(!opens(&world, &daemon, &packet));
}
