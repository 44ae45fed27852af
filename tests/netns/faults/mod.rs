//! What breaks around a daemon that works: killed between two system calls, stopped, out of descriptors, without a
//! disk that answers, with a kernel that says no. SECURITY.md has the table of these stories and of their kin.

mod clocks;
mod cores;
mod crowd;
mod descriptors;
mod disk;
mod kernel;
mod restored;
mod rubbish;
mod steps;
mod trace;
mod twice;
mod watchdog;

use rustix::process::Pid;

use crate::common::{Daemon, SERVER4, SOON, World, wait_for};

/// One of the two processes.
#[derive(Clone, Copy, Debug)]
enum Half {
    Monitor,
    Worker,
}

impl Half {
    fn pid(self, daemon: &Daemon<'_>) -> Pid {
        match self {
            Self::Monitor => daemon.monitor(),
            Self::Worker => daemon.worker(),
        }
    }
}

/// Sends a packet and waits until the daemon has seen it; whether anything is open then.
#[track_caller]
fn opens(world: &World, daemon: &Daemon<'_>, packet: &[u8]) -> bool {
    let frames = daemon.counter("frames");
    world.send(None, SERVER4, packet);
    assert!(
        wait_for(SOON, || daemon.counter("frames") > frames),
        "the packet did not arrive:\n{}",
        daemon.log()
    );
    !daemon.grants().is_empty()
}

/// It says that it has lost its marks.
#[track_caller]
fn has_lost(daemon: &Daemon<'_>) {
    let lost = || daemon.degraded().iter().any(|line| line.contains("the replay state was lost"));
    assert!(wait_for(SOON, lost), "{:?}\n{}", daemon.degraded(), daemon.log());
}

/// The client gets in by a knock of its own, once.
#[track_caller]
fn serves(world: &World, daemon: &Daemon<'_>) {
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22), "{}", daemon.log());
    assert!(!world.can_connect(SERVER4, 22), "{}", daemon.log());
}
