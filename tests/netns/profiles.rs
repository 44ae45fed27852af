//! The life of a profile: made while the daemon runs, given new keys, expired, removed.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Daemon, GUARDED, KNOCKD, PLAIN, SERVER4, SOON, World, said, succeed, wait_for};

/// Runs `knockd-rs profile ..` on the server, for the daemon of this world.
fn profile(world: &World, words: &[&str]) -> Output {
    let mut command = Command::new(KNOCKD);
    command.arg("profile").args(words).arg("--config-dir").arg(world.path("etc"));
    command.arg("--state-dir").arg(world.path("lib"));
    if !["list", "show"].contains(&words[0]) {
        command.arg("--runtime-dir").arg(world.path("run"));
    }
    command.output().unwrap()
}

/// Whether the kernel lets the client in.
fn is_in_the_kernel(world: &World) -> bool {
    world.nft(&["list", "table", "inet", "knockd-rs"]).contains("10.77.0.2 . tcp . 22")
}

#[test]
fn a_profile_that_is_made_while_the_daemon_runs_can_knock_at_once() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let bundle = world.path("phone.knock").display().to_string();
    let host = SERVER4.to_string();
    let words = ["add", "phone", "--open", "tcp/22", "--host", &host, "--server", "second", "--out", &bundle];
    let text = succeed(&profile(&world, &words));
    assert!(text.contains("the daemon knows it: the client may knock"), "{text}");
    succeed(&world.client(&["import", &bundle]));
    succeed(&world.client(&["knock", "second"]));
    assert!(daemon.log().contains("granted phone from 10.77.0.2"), "{}", daemon.log());
}

#[test]
fn a_profile_is_made_also_where_the_daemon_cannot_take_it_over() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    // A mode that only a restart can change.
    world.configure(&format!(
        "{PLAIN}[firewall]\nmode = \"sets\"\n[firewall.sets]\nonce_v4 = \"inet filter knock4\"\n"
    ));
    let bundle = world.path("phone.knock").display().to_string();
    let output = profile(&world, &["add", "phone", "--open", "tcp/22", "--out", &bundle]);
    assert!(
        output.status.success() && said(&output).contains("the configuration was not changed"),
        "{}",
        said(&output)
    );
    assert!(world.path("phone.knock").exists());
    drop(daemon);
    let output = profile(&world, &["add", "tablet", "--open", "tcp/22", "--out", &format!("{bundle}2")]);
    assert!(output.status.success() && said(&output).contains("no daemon listens at"), "{}", said(&output));
}

/// Every way to knock with keys.
const WAYS: [&[&str]; 4] = [&[], &["--syn"], &["--totp"], &["--sequence", "--fast"]];

fn knock(world: &World, server: &str, way: &[&str]) {
    succeed(&world.client(&[&["knock", server, "--no-wait", "--quiet"], way].concat()));
}

#[track_caller]
fn each_way(world: &World, daemon: &Daemon<'_>, server: &str, words: &str) {
    for way in WAYS {
        let before = daemon.logged(words);
        knock(world, server, way);
        assert!(wait_for(SOON, || daemon.logged(words) > before), "{server} {way:?}: {}", daemon.log());
    }
}

#[test]
fn old_and_new_keys_both_open_during_the_overlap_and_the_old_are_refused_after_it() {
    let world = World::new();
    let methods = ["spa", "syn", "totp", "sequence"].map(|method| ["--method", method]).concat();
    world.enrol("laptop", &[&["--open", "tcp/22", "--many"], &methods[..]].concat());
    world.edit("etc/profiles.d/laptop.toml", |text| format!("# The admin's own words.\n{text}"));
    let daemon = world.daemon(GUARDED);
    let bundle = world.path("new.knock").display().to_string();
    let host = SERVER4.to_string();
    let words = ["rotate", "laptop", "--overlap", "1h", "--host", &host, "--server", "new", "--out", &bundle];
    let text = succeed(&profile(&world, &words));
    assert!(text.contains("the daemon takes the new keys, and the old ones until 2"), "{text}");
    succeed(&world.client(&["import", &bundle]));
    let file = world.path("etc/profiles.d/laptop.toml");
    assert!(
        std::fs::read_to_string(&file).unwrap().starts_with("# The admin's own words.\n# Client `laptop`")
    );

    each_way(&world, &daemon, "myserver", "granted laptop from 10.77.0.2");
    each_way(&world, &daemon, "new", "granted laptop from 10.77.0.2");
    let grants = daemon.grants();
    assert!(grants.len() == 1 && grants[0]["profile"] == "laptop", "one client, one grant: {grants:?}");

    // The hour is over.
    world.edit("etc/profiles.d/laptop.toml", |text| {
        let lines = text
            .lines()
            .map(|line| if line.starts_with("until = ") { "until = \"2026-01-01\"" } else { line });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    daemon.reload();
    let refused = "refused laptop from 10.77.0.2: made with the keys from before a rotation, which were good until \
                   2026-01-02T00:00:00Z";
    each_way(&world, &daemon, "myserver", refused);
    each_way(&world, &daemon, "new", "granted laptop from 10.77.0.2");
}

#[test]
fn a_knock_with_the_old_keys_during_a_rotation_is_neither_lost_nor_taken_twice() {
    let world = World::new();
    let daemon = world.daemon(&format!("{GUARDED}[limits]\nhandshakes_per_source = 5000\n"));
    let mut sealer = world.sealer();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let knocks = scope.spawn(|| {
            let mut sent = 0_u64;
            while !done.load(Ordering::Relaxed) {
                world.send(None, SERVER4, &sealer.knock(None));
                sent += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            sent
        });
        for number in 0..4 {
            let bundle = world.path(&format!("{number}.knock")).display().to_string();
            succeed(&profile(&world, &["rotate", "laptop", "--out", &bundle]));
        }
        done.store(true, Ordering::Relaxed);
        knocks.join().unwrap()
    });
    let accepted = || daemon.counter("knocks accepted");
    assert!(sent > 20 && wait_for(SOON, || accepted() >= sent), "{} of {sent}", accepted());
    assert_eq!((accepted(), daemon.counter("knocks refused")), (sent, 0), "{}", daemon.log());
    assert_eq!(daemon.logged("refused "), 0, "{}", daemon.log());
    assert_eq!(daemon.grants().len(), 1);
    // A fifth pair beside four that are still good would cut somebody off.
    let bundle = world.path("5.knock").display().to_string();
    let output = profile(&world, &["rotate", "laptop", "--out", &bundle]);
    assert!(said(&output).contains("4 rotations are not over yet"), "{}", said(&output));
}

#[test]
fn an_overlap_ends_by_the_clock_and_so_does_what_the_old_keys_opened() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "10m"]);
    let mut daemon = world.daemon(GUARDED);
    let bundle = world.path("new.knock").display().to_string();
    succeed(&profile(&world, &["rotate", "laptop", "--overlap", "6s", "--out", &bundle]));
    world.knock(&["--many"]);
    let seconds = daemon.grants()[0]["granted_for"].as_f64().unwrap();
    assert!((1.0..=6.0).contains(&seconds), "{seconds}");
    daemon.kill9_both();
    assert!(is_in_the_kernel(&world));
    assert!(
        wait_for(Duration::from_secs(8), || !is_in_the_kernel(&world)),
        "the kernel keeps the promise alone"
    );
    daemon.start_again();
    world.knock(&[]);
    daemon.await_log("refused laptop from 10.77.0.2: made with the keys from before a rotation");
}

#[test]
fn a_removed_profiles_grants_are_gone_from_the_kernel_when_the_command_returns() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.enrol_as("second", "phone", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    world.knock(&["--for", "10m"]);
    assert!(wait_for(SOON, || is_in_the_kernel(&world)));
    let text = succeed(&profile(&world, &["remove", "laptop"]));
    assert!(!is_in_the_kernel(&world), "{text}");
    assert!(text.contains("1 live grant of laptop ended; its knocks are refused from now on"), "{text}");
    assert!(daemon.log().contains("revoked laptop: tcp/22 for 10.77.0.2"), "{}", daemon.log());
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.counter("dropped: unknown-client") > 0), "{}", daemon.log());
    assert_eq!((daemon.grants().len(), daemon.logged("granted ")), (0, 1));
}

#[test]
fn a_profile_is_removed_also_where_another_file_is_broken() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.enrol_as("second", "phone", &["--open", "tcp/22"]);
    daemon.reload();
    world.knock(&["--for", "10m"]);
    assert!(wait_for(SOON, || is_in_the_kernel(&world)));
    world.amend("phone", "duration = \"soon\"\n");
    let text = succeed(&profile(&world, &["remove", "laptop"]));
    assert!(!is_in_the_kernel(&world), "{text}");
    assert!(
        text.contains("1 live grant of laptop ended") && text.contains("profiles.d/phone.toml:"),
        "{text}"
    );
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.counter("dropped: unknown-client") > 0), "{}", daemon.log());
    // The others go on by what was in force.
    succeed(&world.client(&["knock", "second", "--no-wait"]));
    daemon.await_log("granted phone from 10.77.0.2");
}

#[test]
fn a_daemon_that_still_has_a_profile_does_not_say_that_it_was_removed() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    std::fs::create_dir_all(world.path("other/profiles.d")).unwrap();
    std::fs::write(world.path("other/profiles.d/laptop.toml"), "").unwrap();
    let (other, run) = (world.path("other").display().to_string(), world.path("run").display().to_string());
    let words = ["profile", "remove", "laptop", "--config-dir", &other, "--runtime-dir", &run];
    let text = said(&Command::new(KNOCKD).args(words).output().unwrap());
    assert!(text.contains("laptop is still a profile of this daemon"), "{text}");
    assert!(!text.contains("refused from now on"), "{text}");
    world.knock(&[]);
    daemon.await_log("granted laptop from 10.77.0.2");
}

#[test]
fn without_a_daemon_a_removal_says_that_nobody_was_told() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let output = profile(&world, &["remove", "laptop"]);
    assert!(output.status.success() && said(&output).contains("no daemon listens at"), "{}", said(&output));
    assert!(said(&output).contains("its live grants go on until"), "{}", said(&output));
}

#[test]
fn an_expired_profile_is_refused_and_its_grants_ended_with_it() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many", "--duration", "10m", "--expires", "7s"]);
    let mut daemon = world.daemon(GUARDED);
    world.knock(&["--many"]);
    let seconds = daemon.grants()[0]["granted_for"].as_f64().unwrap();
    assert!((1.0..=7.0).contains(&seconds), "{seconds}");
    let granted = daemon.command(&["grant", "laptop", "10.77.0.9", "--for", "1h"]);
    assert!(!granted.contains("for 1h"), "an admin's grant ends with the profile as well: {granted}");
    daemon.kill9_both();
    assert!(
        wait_for(Duration::from_secs(9), || !is_in_the_kernel(&world)),
        "the kernel keeps the promise alone"
    );
    // The grant was cut to whole seconds, and so ended a little before its profile.
    std::thread::sleep(Duration::from_secs(2));
    daemon.start_again();
    daemon.await_log("the profile `laptop` was good until 2");
    let output = world.client(&["knock", "myserver", "--no-wait"]);
    assert!(said(&output).contains("takes no knocks of this client since 2"), "{}", said(&output));
    daemon.await_log("refused laptop from 10.77.0.2: the profile is good until 2");
    assert_eq!((daemon.grants().len(), daemon.counter("knocks refused")), (0, 1));
    assert!(!daemon.tell(&["grant", "laptop", "10.77.0.9"]).status.success());
    let listed = succeed(&profile(&world, &["list"]));
    assert!(listed.contains("  (expired 2"), "{listed}");
    let bundle = world.path("laptop-myserver.knock").display().to_string();
    let output = world.client(&["import", &bundle, "--force"]);
    assert!(said(&output).contains("the server takes no knocks by this bundle since 2"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn an_earlier_end_in_the_file_ends_grants_that_would_outlast_it() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.knock(&["--for", "10m"]);
    assert!(wait_for(SOON, || is_in_the_kernel(&world)));
    let far = "expires = \"2099-01-01\"\n";
    world.amend("laptop", far);
    daemon.reload();
    assert!(is_in_the_kernel(&world), "nothing outlasts that");
    world.amend("laptop", "expires = \"2026-01-01\"\n");
    daemon.reload();
    assert!(!is_in_the_kernel(&world));
}
