//! Crashes with core dumps allowed: the memory of either process holds keys, so none may be written.
//!
//! What root reads from a living process (`gcore`, `/proc/PID/mem`) is a different matter: root can read the key files.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::Half;
use crate::common::{Daemon, GUARDED, Launch, SOON, World, wait_for};

/// Core files would be written to this folder, where the host's `core_pattern` names no other.
fn launch(world: &World) -> Daemon<'_> {
    let folder = world.path("cores");
    fs::create_dir(&folder).unwrap();
    let before = format!("ulimit -c unlimited; cd {}", folder.display());
    world.launch(GUARDED, Launch { before, ..Launch::default() })
}

fn files(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("cores")).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// How a program ends that takes no precautions, in the same circumstances.
fn careless(world: &World, signal: &str) -> ExitStatus {
    let folder = world.path("elsewhere");
    let script = format!("mkdir -p {0}; cd {0}; ulimit -c unlimited; kill -{signal} $$", folder.display());
    Command::new("sh").args(["-c", &script]).status().unwrap()
}

#[test]
fn a_crash_leaves_no_core_of_the_monitor_and_none_of_the_worker() {
    for (signal, name) in [(Signal::ABORT, "ABRT"), (Signal::SEGV, "SEGV")] {
        for victim in [Half::Monitor, Half::Worker] {
            let world = World::new();
            assert!(
                careless(&world, name).core_dumped(),
                "this host writes no cores: the test shows nothing"
            );
            let mut daemon = launch(&world);
            world.knock(&[]);
            let victim = victim.pid(&daemon);
            // Rust's handler takes the first SIGSEGV that is no fault of an address, and gives way to the next.
            let has_ended = wait_for(SOON, || {
                let _ = kill_process(victim, signal);
                std::thread::sleep(Duration::from_millis(50));
                !daemon.is_running()
            });
            assert!(has_ended, "SIG{name}:\n{}", daemon.log());
            let status = daemon.ended();
            assert!(!status.core_dumped(), "the monitor left a core at SIG{name}: {status}");
            assert!(
                !daemon.log().contains("core dumped"),
                "the worker left a core at SIG{name}:\n{}",
                daemon.log()
            );
            assert_eq!(files(&world), [""; 0], "SIG{name}");
        }
    }
}

#[test]
fn neither_process_may_write_a_core_at_all() {
    let world = World::new();
    let daemon = launch(&world);
    for process in [daemon.monitor(), daemon.worker()] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.as_raw_nonzero())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
}
