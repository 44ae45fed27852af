//! Two daemons that are started in the same moment. A second one beside one that runs is in `confined.rs`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use super::serves;
use crate::common::{Daemon, GUARDED, Launch, SERVER4, SOON, World, wait_for};

/// Starts two, and returns the one that is left and the exit code of the other.
fn race<'a>(world: &'a World, second: &Launch) -> (Daemon<'a>, Option<i32>) {
    let first = Launch { is_not_awaited: true, ..Launch::default() };
    let mut both = [world.launch(GUARDED, first), world.launch(GUARDED, second.clone())];
    assert!(wait_for(SOON, || both.iter_mut().any(|daemon| !daemon.is_running())), "{}", both[0].log());
    let [mut one, other] = both;
    let (mut left, mut gone) = if one.is_running() { (one, other) } else { (other, one) };
    let code = gone.ended().code();
    left.await_listening();
    (left, code)
}

#[test]
fn of_two_daemons_started_at_once_one_serves_and_the_other_says_that_it_does() {
    for _ in 0..3 {
        let world = World::new();
        // Neither finds keys, so both make them.
        DirBuilder::new().mode(0o750).create(world.path("etc/profiles.d")).unwrap();
        let how = Launch { is_not_awaited: true, ..Launch::default() };
        let (daemon, code) = race(&world, &how);
        assert_eq!(code, Some(1), "{}", daemon.log());
        assert!(daemon.log().contains("another knockd-rs is running already"), "{}", daemon.log());
        let _ssh = world.listener(22);
        assert!(!world.can_connect(SERVER4, 22));
        // The keys are those that it has: a client that is enrolled now is heard.
        world.enrol("laptop", &["--open", "tcp/22"]);
        daemon.reload();
        serves(&world, &daemon);
    }
}

#[test]
fn of_two_daemons_with_other_directories_in_one_network_one_has_the_table() {
    for _ in 0..3 {
        let world = World::new();
        world.enrol("laptop", &["--open", "tcp/22"]);
        let mount = |name: &str| {
            let dir = world.path(name).display().to_string();
            format!("mount -t tmpfs -o mode=711 tmpfs {dir}\n")
        };
        let how = Launch { before: mount("run") + &mount("lib"), is_not_awaited: true };
        let (daemon, code) = race(&world, &how);
        assert_eq!(code, Some(1), "{}", daemon.log());
        let words = "another process owns the table inet knockd-rs; stop the other knockd-rs daemon";
        assert!(daemon.log().contains(words), "{}", daemon.log());
        let _ssh = world.listener(22);
        assert!(!world.can_stranger_connect(SERVER4, 22));
        assert_eq!(daemon.status()["guards"][0]["ports"], "tcp/22");
    }
}
