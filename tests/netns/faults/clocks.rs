//! The clock that counts on through a suspend (`CLOCK_BOOTTIME`), in time namespaces: what was written by one clock is
//! read by another.
//!
//! No process can be given another wall clock: there is no namespace for it, and the vDSO tells it without a call that
//! could be changed. What a wall clock that was set does to knocks is the same as what their counters do to a clock that
//! stands, and `tests/clock.rs` shows that; `src/knock/replay.rs` has 1970, with the clock as an argument.

use std::fs;
use std::time::Duration;

use super::{has_lost, opens, serves};
use crate::common::{GUARDED, Launch, SERVER4, World, wait_for};
use crate::grants::closes_at;

/// Starts the daemon in a time namespace whose clock since boot is so many seconds ahead.
fn ahead(seconds: i64) -> Launch {
    let before = format!("set -- unshare --time --boottime {seconds} -- \"$@\"");
    Launch { before, ..Launch::default() }
}

/// Seconds since boot, by this test's own clock.
fn uptime() -> i64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

const BRIEF: &str =
    "[freshness]\nclock = \"trusted\"\nmax_age = \"2s\"\nmax_ahead = \"1s\"\n[guard]\ndrop = [\"tcp/22\"]\n";

#[test]
fn after_a_suspend_of_a_day_a_killed_daemon_knows_its_marks_and_refuses_a_used_packet() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = world.sealer().knock(None);
    assert!(opens(&world, &daemon, &packet));
    assert!(world.can_connect(SERVER4, 22));
    daemon.kill9_both();
    drop(daemon);
    let slept = world.launch(GUARDED, ahead(86_400));
    assert_eq!(slept.degraded(), [""; 0]);
    assert!(!opens(&world, &slept, &packet));
    serves(&world, &slept);
}

#[test]
fn a_quarantine_ends_with_the_time_that_a_machine_sleeps_and_never_lasts_longer_by_another_clock() {
    for (seconds, is_over) in [(86_400, true), (100 - uptime(), false)] {
        let world = World::new();
        let mut daemon = world.daemon(BRIEF);
        let _ssh = world.listener(22);
        let packet = world.sealer().knock(None);
        assert!(opens(&world, &daemon, &packet));
        assert!(world.can_connect(SERVER4, 22));
        daemon.kill9_both();
        fs::remove_dir_all(world.path("run/replay")).unwrap();
        daemon.start_again();
        has_lost(&daemon);
        daemon.kill9_both();
        drop(daemon);
        // Its journal says until when, by the clock before.
        let daemon = world.launch(BRIEF, ahead(seconds));
        let has_settled = || daemon.degraded().is_empty() == is_over;
        assert!(wait_for(Duration::from_secs(2), has_settled), "{seconds}: {:?}", daemon.degraded());
        // In the namespace that slept a day the wall clock did not: there the packet would still be fresh.
        assert!(is_over || !opens(&world, &daemon, &packet), "{seconds}");
        assert!(wait_for(Duration::from_secs(6), || daemon.degraded().is_empty()), "{seconds}");
        assert!(is_over || !opens(&world, &daemon, &packet), "{seconds}");
        serves(&world, &daemon);
    }
}

#[test]
fn a_grant_ends_by_the_kernels_clock_whatever_the_daemons_says() {
    for seconds in [86_400, 100 - uptime()] {
        let world = World::new();
        world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "3s"]);
        let mut daemon = world.daemon(GUARDED);
        let _ssh = world.listener(22);
        world.knock(&["--many"]);
        let deadline = crate::grants::deadline(&daemon);
        daemon.kill9_both();
        drop(daemon);
        let daemon = world.launch(GUARDED, ahead(seconds));
        assert_eq!(daemon.grants().len(), 1, "{seconds}");
        assert!(world.can_connect(SERVER4, 22), "{seconds}");
        closes_at(deadline, || world.can_connect(SERVER4, 22));
        assert!(daemon.grants().is_empty(), "{seconds}");
    }
}
