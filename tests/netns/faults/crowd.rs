//! Ten thousand profiles.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::common::{GUARDED, SERVER4, World};

const PROFILES: u64 = 10_000;

/// Profiles of clients that never knock, each with a key of its own.
fn fill(world: &World) {
    for number in 1..PROFILES {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = knockd_rs::crypto::KeyPair::from_seed(seed).public();
        let mut text = String::new();
        write!(text, "public_key = \"{key}\"\nopen = [\"tcp/{}\"]\n", 1024 + number).unwrap();
        let path = world.path(&format!("etc/profiles.d/client-{number}.toml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    }
}

#[test]
fn with_ten_thousand_profiles_the_daemon_starts_reloads_and_hears_the_last_of_them() {
    let world = World::new();
    // By name the last of all.
    world.enrol("zuletzt", &["--open", "tcp/22"]);
    fill(&world);
    let begun = Instant::now();
    let daemon = world.daemon(GUARDED);
    let started = begun.elapsed();
    let _ssh = world.listener(22);
    assert_eq!(daemon.status()["profiles"].as_array().unwrap().len() as u64, PROFILES);
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22), "{}", daemon.log());
    let begun = Instant::now();
    daemon.reload();
    let reloaded = begun.elapsed();
    assert!(crate::common::wait_for(crate::common::SOON, || daemon.status()["serving"] == 2));
    let begun = Instant::now();
    world.knock_until(&[], || world.can_connect(SERVER4, 22));
    let knocked = begun.elapsed();
    let memory = |pid: rustix::process::Pid| {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    };
    let (monitor, worker) = (memory(daemon.monitor()), memory(daemon.worker()));
    println!("monitor {monitor} MiB, worker {worker} MiB at the most");
    // The unit allows both and the next worker 256 MiB together.
    assert!(monitor + 2 * worker < 256, "{monitor}, {worker}");
    println!("start {started:?}, reload {reloaded:?}, knock to connection {knocked:?}");
    assert!(
        started < Duration::from_secs(10) && reloaded < Duration::from_secs(10),
        "{started:?}, {reloaded:?}"
    );
}
