//! A disk that takes its time. Full, read-only and lost ones are in `state.rs`.

use std::time::{Duration, Instant};

use super::trace::Trace;
use super::{opens, serves};
use crate::common::{GUARDED, SERVER4, World};

#[test]
fn a_disk_that_takes_a_second_to_write_delays_no_port() {
    let world = World::new();
    let mut daemon = world.daemon(&format!("{GUARDED}[limits]\nhandshakes_per_source = 5000\n"));
    let _ssh = world.listener(22);
    let mut sealer = world.sealer();
    let trace =
        Trace::attach(daemon.worker(), &["-f", "-o", "/dev/null", "-e", "inject=fsync:delay_enter=1000000"]);
    let mut packets = Vec::new();
    for _ in 0..8 {
        let packet = sealer.knock(None);
        let begun = Instant::now();
        world.send(None, SERVER4, &packet);
        while !world.can_connect(SERVER4, 22) {
            assert!(begun.elapsed() < Duration::from_millis(900), "the port waits for the disk");
        }
        packets.push(packet);
        std::thread::sleep(Duration::from_millis(150));
    }
    // All of them are in the journal, whatever is on the disk.
    daemon.kill9_both();
    drop(trace);
    daemon.start_again();
    for packet in packets {
        assert!(!opens(&world, &daemon, &packet));
    }
    serves(&world, &daemon);
}

#[test]
fn a_slow_disk_keeps_a_stop_and_a_reload_waiting_and_loses_no_mark() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let packet = world.sealer().knock(None);
    for stopped in [false, true] {
        let trace = Trace::attach(
            daemon.worker(),
            &["-f", "-o", "/dev/null", "-e", "inject=fsync:delay_enter=700000"],
        );
        if stopped {
            assert!(daemon.stop().success());
            drop(trace);
            daemon.start_again();
        } else {
            assert!(opens(&world, &daemon, &packet));
            assert!(world.can_connect(SERVER4, 22));
            daemon.reload();
            drop(trace);
        }
        assert!(!opens(&world, &daemon, &packet), "{}", daemon.log());
        assert_eq!(daemon.degraded(), [""; 0]);
    }
    serves(&world, &daemon);
}
