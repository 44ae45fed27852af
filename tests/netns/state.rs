//! Directories that are full, read-only or lost: the admin gets in, and the status says what is wrong.

use std::fs;
use std::time::Duration;

use crate::common::{Daemon, GUARDED, Launch, SERVER4, SOON, World, wait_for};

const STATE: &str = "the state directory cannot be written";
const RUNTIME: &str = "the runtime directory cannot be written";

/// Puts small file systems of their own where the daemon writes, with what is there already.
fn small(world: &World, names: &[&str]) -> Launch {
    let mount = |name: &&str| {
        let dir = world.path(name).display().to_string();
        format!(
            "cp -a {dir} {dir}.copy; mount -t tmpfs -o size=64k,mode=711 tmpfs {dir}; cp -a {dir}.copy/. {dir}/; \
             rm -r {dir}.copy\n"
        )
    };
    Launch { before: names.iter().map(mount).collect(), ..Launch::default() }
}

fn fill(world: &World, daemon: &Daemon<'_>, name: &str) {
    let file = world.path(name).join("fill");
    daemon.in_its_mounts(&format!(
        "dd if=/dev/zero of={} bs=1k oflag=append conv=notrunc 2>/dev/null || true",
        file.display()
    ));
}

fn remount(world: &World, daemon: &Daemon<'_>, name: &str, how: &str) {
    daemon.in_its_mounts(&format!("mount -o remount,{how} {}", world.path(name).display()));
}

#[track_caller]
fn knocks_work(world: &World) {
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22));
}

#[track_caller]
fn complains(daemon: &Daemon<'_>, of: &[&str]) {
    let so = || {
        let degraded = daemon.degraded();
        degraded.len() == of.len() && of.iter().all(|words| degraded.iter().any(|line| line.contains(words)))
    };
    assert!(wait_for(SOON, so), "expected {of:?}, it is {:?}:\n{}", daemon.degraded(), daemon.log());
}

#[test]
fn with_a_full_state_directory_knocks_work_and_the_status_says_so_until_there_is_room() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.launch(GUARDED, small(&world, &["lib"]));
    let _ssh = world.listener(22);
    complains(&daemon, &[]);
    fill(&world, &daemon, "lib");
    knocks_work(&world);
    complains(&daemon, &[STATE]);
    daemon.await_log("degraded: the state directory cannot be written: after a reboot knocks are refused");
    fs::remove_file(daemon.own_path("lib").join("fill")).unwrap();
    complains(&daemon, &[]);
    daemon.await_log("recovered: no longer: the state directory cannot be written");
    knocks_work(&world);
}

#[test]
fn with_an_unwritable_runtime_directory_knocks_work_and_the_status_says_so_until_it_is_mended() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.launch(BUSY, small(&world, &["run"]));
    let _ssh = world.listener(22);
    complains(&daemon, &[]);
    let mended = block_the_journal(&world, &daemon);
    complains(&daemon, &[RUNTIME]);
    daemon.await_log("degraded: the runtime directory cannot be written: after a restart knocks are refused");
    knocks_work(&world);
    complains(&daemon, &[RUNTIME]);
    daemon.in_its_mounts(&mended);
    complains(&daemon, &[]);
    daemon.await_log("recovered: no longer: the runtime directory cannot be written");
    knocks_work(&world);
}

/// For more handshakes from one address than a client needs.
const BUSY: &str = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\"]\n\
                    [limits]\nhandshakes_per_source = 5000\n";

/// Fills the journal's file system, and the page of memory that the journal has already: some 55 marks. A mount
/// above its folder keeps the daemon from giving that page back to itself. Returns the commands that end it.
fn block_the_journal(world: &World, daemon: &Daemon<'_>) -> String {
    let folder = world.path("run/replay").display().to_string();
    daemon.in_its_mounts(&format!("mount -t tmpfs -o ro tmpfs {folder}"));
    fill(world, daemon, "run");
    let before = daemon.counter("knocks accepted");
    let mut sealer = world.sealer();
    (0..60).for_each(|_| world.send(None, SERVER4, &sealer.knock(None)));
    assert!(wait_for(SOON, || daemon.counter("knocks accepted") == before + 60));
    daemon.command(&["revoke", "all"]);
    format!("umount {folder}; rm {}", world.path("run/fill").display())
}

#[test]
fn with_both_directories_unwritable_knocks_work_and_a_packet_is_not_taken_twice() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.launch(BUSY, small(&world, &["lib", "run"]));
    let _ssh = world.listener(22);
    remount(&world, &daemon, "lib", "ro");
    let mended = block_the_journal(&world, &daemon);
    let ear = world.ear();
    knocks_work(&world);
    let packet = ear.one();
    complains(&daemon, &[RUNTIME, STATE]);
    let accepted = daemon.counter("knocks accepted");
    world.send(None, SERVER4, &packet);
    assert!(!world.can_connect(SERVER4, 22));
    assert_eq!(daemon.counter("knocks accepted"), accepted);
    remount(&world, &daemon, "lib", "rw");
    daemon.in_its_mounts(&mended);
    complains(&daemon, &[]);
}

#[test]
fn a_start_with_a_read_only_state_directory_serves_and_says_so() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let mut how = small(&world, &["lib"]);
    how.before += &format!("mount -o remount,ro {}\n", world.path("lib").display());
    let daemon = world.launch(GUARDED, how);
    let _ssh = world.listener(22);
    complains(&daemon, &[STATE]);
    knocks_work(&world);
    let told = daemon.command(&["guard", "tcp/80"]);
    assert!(told.contains("guarded ports cannot be saved and would be open after a reboot"), "{told}");
}

#[test]
fn a_lost_state_refuses_knocks_until_old_ones_are_stale_and_a_first_start_does_not() {
    let world = World::new();
    let config = "[freshness]\nclock = \"trusted\"\nmax_age = \"3s\"\nmax_ahead = \"2s\"\n[guard]\ndrop = [\"tcp/22\"]\n";
    let mut daemon = world.daemon(config);
    let _ssh = world.listener(22);
    complains(&daemon, &[]);
    let ear = world.ear();
    knocks_work(&world);
    let packet = ear.one();
    daemon.kill9_both();
    fs::remove_dir_all(world.path("lib/replay")).unwrap();
    fs::remove_dir_all(world.path("run/replay")).unwrap();
    daemon.start_again();
    complains(
        &daemon,
        &["the replay state was lost: knocks are refused until old ones can no longer be replayed"],
    );
    world.send(None, SERVER4, &packet);
    daemon.await_log("refused laptop from 10.77.0.2: this server lost its record of used knocks and refuses all for another");
    assert!(daemon.grants().is_empty());
    // It is over by itself, and the packet is stale or used by then.
    complains(&daemon, &[]);
    world.send(None, SERVER4, &packet);
    knocks_work(&world);
    assert_eq!(daemon.logged("granted"), 1);
}

#[test]
fn a_power_loss_refuses_knocks_for_a_while_and_a_crash_does_not() {
    let world = World::new();
    let config = "[freshness]\nclock = \"trusted\"\nmax_age = \"3s\"\nmax_ahead = \"2s\"\n[guard]\ndrop = [\"tcp/22\"]\n";
    let mut daemon = world.daemon(config);
    let _ssh = world.listener(22);
    knocks_work(&world);
    daemon.kill9_both();
    daemon.start_again();
    complains(&daemon, &[]);
    knocks_work(&world);
    daemon.kill9_both();
    // The runtime directory is in memory: a power loss takes it.
    fs::remove_dir_all(world.path("run")).unwrap();
    daemon.start_again();
    complains(&daemon, &["the replay state was lost"]);
    world.knock(&[]);
    assert!(!world.can_connect(SERVER4, 22));
    assert!(wait_for(Duration::from_secs(8), || daemon.degraded().is_empty()));
    knocks_work(&world);
}
