//! Too few file descriptors: for a start, for a crowd at the control socket, for a reload.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Pid;

use super::serves;
use crate::common::{Daemon, GUARDED, Launch, SERVER4, SOON, World, said, wait_for};

fn with(descriptors: usize) -> Launch {
    Launch { before: format!("ulimit -n {descriptors}"), ..Launch::default() }
}

/// How much processor time a process has had, in ticks of 10 ms.
fn ticks(pid: Pid) -> u64 {
    // proc_pid_stat(5): the 14th and 15th field; counted from the name's closing bracket the 12th and 13th.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    words[11..13].iter().map(|word| word.parse::<u64>().unwrap()).sum()
}

fn open(daemon: &Daemon<'_>) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.monitor().as_raw_nonzero())).unwrap().count()
}

#[test]
fn a_start_with_too_few_descriptors_says_so_and_opens_nothing() {
    for few in [4, 8, 12] {
        let world = World::new();
        let how = Launch { is_not_awaited: true, ..with(few) };
        let mut daemon = world.launch(GUARDED, how);
        let ended =
            wait_for(Duration::from_secs(5), || !daemon.is_running() || daemon.log().contains("listening: "));
        assert!(
            ended || daemon.log().contains("os error 24"),
            "{few}: it hangs in silence:\n{}",
            daemon.log()
        );
        if !daemon.is_running() {
            assert!(!daemon.ended().success(), "{few}");
            assert!(!daemon.log().trim().is_empty(), "{few}: it ended without a word");
        }
        drop(daemon);
        let daemon = world.daemon(GUARDED);
        let _ssh = world.listener(22);
        assert!(!world.can_connect(SERVER4, 22), "{few}");
        serves(&world, &daemon);
    }
}

#[test]
fn a_crowd_at_the_control_socket_takes_all_descriptors_and_no_knock_and_no_processor() {
    let world = World::new();
    let daemon = world.launch(GUARDED, with(24));
    let _ssh = world.listener(22);
    let before = open(&daemon);
    let crowd: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(world.path("run/control.sock")).unwrap()).collect();
    assert!(wait_for(SOON, || open(&daemon) > before + 3));
    let (begun, monitor) = (ticks(daemon.monitor()), daemon.monitor());
    let log = daemon.log();
    world.knock_until(&[], || daemon.log().contains("granted"));
    assert!(world.can_connect(SERVER4, 22), "{log}\n{}", daemon.log());
    std::thread::sleep(Duration::from_secs(2));
    let spent = ticks(monitor) - begun;
    assert!(spent < 60, "{spent} of 200 ticks went into waiting");
    drop(crowd);
    assert!(wait_for(SOON, || open(&daemon) <= before));
    daemon.reload();
    serves(&world, &daemon);
}

#[test]
fn a_reload_without_a_descriptor_left_keeps_the_worker_that_is_there_and_comes_right_by_itself() {
    let world = World::new();
    let daemon = world.launch(GUARDED, with(64));
    let _ssh = world.listener(22);
    let limit = |descriptors: usize| {
        let pid = daemon.monitor().as_raw_nonzero().to_string();
        let arguments = ["--pid", &pid, &format!("--nofile={descriptors}:64")];
        let output = std::process::Command::new("prlimit").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let worker = daemon.worker();
    limit(open(&daemon));
    daemon.signal(rustix::process::Signal::HUP);
    assert!(wait_for(SOON, || daemon.log().contains("os error 24")), "{}", daemon.log());
    assert_eq!(daemon.worker(), worker);
    limit(64);
    assert!(
        wait_for(SOON, || {
            world.knock(&[]);
            world.can_connect(SERVER4, 22)
        }),
        "{}",
        daemon.log()
    );
    assert!(wait_for(SOON, || daemon.degraded().is_empty()), "{:?}", daemon.degraded());
    daemon.reload();
    serves(&world, &daemon);
}
