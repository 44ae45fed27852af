//! Files that change while the daemon reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::serves;
use crate::common::{GUARDED, SERVER4, SERVER6, World, said};

/// Puts bytes in a file's place in one step, as editors and configuration managers do.
fn replace(world: &World, name: &str, bytes: &[u8]) {
    let (path, new) = (world.path(name), world.path("new"));
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(new, path).unwrap();
}

/// What is no configuration, in several ways, and what is one.
fn rubbish(good: &str) -> Vec<Vec<u8>> {
    vec![
        vec![0xff; 5000],
        b"[guard".to_vec(),
        b"[guard]\ndrop = [\"tcp/0\"]\n".to_vec(),
        b"=".repeat(2_000_000),
        format!("{good}\nunheard_of = 1\n").into_bytes(),
        vec![0; 4096],
        good.as_bytes().to_vec(),
    ]
}

#[test]
fn files_that_turn_to_rubbish_during_reloads_open_nothing_end_nothing_and_are_named() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let profile = fs::read_to_string(world.path("etc/profiles.d/laptop.toml")).unwrap();
    let sieges = [world.siege(SERVER4, 22), world.siege(SERVER6, 22)];
    let done = AtomicBool::new(false);
    let (mut kept, mut read) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (settings, profiles) = (rubbish(GUARDED), rubbish(&profile));
            for (one, other) in settings.iter().cycle().zip(profiles.iter().cycle().skip(3)) {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                replace(&world, "etc/knockd-rs.toml", one);
                replace(
                    &world,
                    "etc/profiles.d/laptop.toml",
                    if kept_whole(one) { profile.as_bytes() } else { other },
                );
                std::thread::sleep(Duration::from_millis(7));
            }
        });
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            let output = daemon.tell(&["reload"]);
            match output.status.code() {
                Some(0) => read += 1,
                Some(6) => kept += 1,
                other => panic!("{other:?}: {}", said(&output)),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(kept > 5, "{kept} reloads met rubbish, {read} did not");
    for siege in sieges {
        assert_eq!(siege.end().connected, 0, "{kept} refused, {read} read");
    }
    replace(&world, "etc/knockd-rs.toml", GUARDED.as_bytes());
    replace(&world, "etc/profiles.d/laptop.toml", profile.as_bytes());
    daemon.reload();
    serves(&world, &daemon);
}

#[test]
fn settings_cut_off_to_nothing_take_no_guard_away() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    replace(&world, "etc/knockd-rs.toml", b"");
    let output = daemon.tell(&["reload"]);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains("knockd-rs.toml: the file is empty, as if cut off"), "{}", said(&output));
    assert!(!world.can_stranger_connect(SERVER4, 22));
    daemon.kill9_both();
    // A reboot.
    world.nft(&["delete", "table", "inet", "knockd-rs"]);
    daemon.start_again();
    daemon.await_log("the daemon runs with the last settings that were good");
    assert!(!world.can_stranger_connect(SERVER4, 22));
    serves(&world, &daemon);
    // Who means it says so.
    replace(&world, "etc/knockd-rs.toml", b"# nothing\n");
    daemon.reload();
    assert!(world.can_stranger_connect(SERVER4, 22));
}

/// Whether this is a piece of the cycle that is a good configuration: then its profile is good as well, so that some
/// reloads succeed.
fn kept_whole(bytes: &[u8]) -> bool {
    bytes == GUARDED.as_bytes()
}
