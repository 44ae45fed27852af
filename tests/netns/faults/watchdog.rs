//! A daemon that hangs: who stops telling systemd that all is well, and what systemd's answer comes to.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::{Half, serves};
use crate::common::{Daemon, GUARDED, Launch, SERVER4, World};

/// systemd's end of the line, with a watchdog of 0.9 s: a word is due every 0.3 s.
struct Systemd(UnixDatagram);

const PATIENCE: Duration = Duration::from_millis(900);

impl Systemd {
    fn start(world: &World) -> (Self, Daemon<'_>) {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let before =
            format!("export NOTIFY_SOCKET={} WATCHDOG_USEC={}", path.display(), PATIENCE.as_micros());
        let daemon = world.launch(GUARDED, Launch { before, ..Launch::default() });
        (Self(socket), daemon)
    }

    /// How many signs of life come in this time.
    fn count(&self, time: Duration) -> usize {
        let (until, mut count, mut buffer) = (Instant::now() + time, 0, [0; 4096]);
        while Instant::now() < until {
            if let Ok(len) = self.0.recv(&mut buffer) {
                count +=
                    usize::from(buffer[..len].split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1"));
            }
        }
        count
    }
}

#[test]
fn a_stopped_worker_or_monitor_is_missed_by_the_watchdog_and_goes_on_when_it_may() {
    let world = World::new();
    let (systemd, daemon) = Systemd::start(&world);
    let _ssh = world.listener(22);
    assert!(systemd.count(3 * PATIENCE) >= 6);
    for process in [daemon.worker(), daemon.monitor()] {
        kill_process(process, Signal::STOP).unwrap();
        // What was under way when it was stopped.
        systemd.count(Duration::from_millis(100));
        assert_eq!(systemd.count(3 * PATIENCE), 0, "{process:?}");
        assert!(!world.can_connect(SERVER4, 22));
        kill_process(process, Signal::CONT).unwrap();
        assert!(systemd.count(2 * PATIENCE) >= 3, "{process:?}");
        serves(&world, &daemon);
    }
}

#[test]
fn a_hanging_daemon_that_systemd_aborts_leaves_no_worker_no_open_port_and_no_core() {
    for hanging in [Half::Worker, Half::Monitor] {
        let world = World::new();
        let (systemd, mut daemon) = Systemd::start(&world);
        let _ssh = world.listener(22);
        let workers = daemon.workers();
        kill_process(hanging.pid(&daemon), Signal::STOP).unwrap();
        systemd.count(Duration::from_millis(100));
        assert_eq!(systemd.count(PATIENCE), 0);
        // WatchdogSignal= is SIGABRT, to the main process; a stopped one takes it when it is killed or goes on.
        daemon.signal(Signal::ABORT);
        daemon.signal(Signal::CONT);
        let status = daemon.ended();
        assert!(!status.success());
        assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status));
        for worker in workers {
            assert!(crate::common::wait_for(crate::common::SOON, || crate::common::is_gone(worker)));
        }
        assert!(!world.can_connect(SERVER4, 22));
        daemon.start_again();
        serves(&world, &daemon);
    }
}

#[test]
fn while_the_worker_is_stopped_the_status_answers_and_grants_end_on_time() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "2s"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--many"]);
    let worker = daemon.worker();
    kill_process(worker, Signal::STOP).unwrap();
    assert!(world.can_connect(SERVER4, 22));
    assert_eq!(daemon.grants().len(), 1);
    std::thread::sleep(Duration::from_millis(2200));
    assert!(!world.can_connect(SERVER4, 22));
    assert!(daemon.grants().is_empty());
    // Admins get in and out without it.
    daemon.command(&["grant", "laptop", "10.77.0.2", "tcp/22", "--many"]);
    assert!(world.can_connect(SERVER4, 22));
    daemon.command(&["revoke", "all"]);
    assert!(!world.can_connect(SERVER4, 22));
    // A knock that came meanwhile waits in the kernel's ring and is judged when the worker goes on.
    world.knock(&["--many"]);
    assert!(!world.can_connect(SERVER4, 22));
    kill_process(worker, Signal::CONT).unwrap();
    assert!(crate::common::wait_for(crate::common::SOON, || world.can_connect(SERVER4, 22)));
}
