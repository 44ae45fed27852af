//! Clocks that differ, jump or cannot be believed: what becomes of knocks, and what the log says about it.
//!
//! The knocks are sealed here with counters of the test's choosing, as a client with such a clock would send them,
//! and go over the wire to the real daemon. The counter is the client's clock (protocol, "Freshness"):
//! `now - max_age <= counter <= now + max_ahead`, above the client's last one, and not while marks are lost.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod common;

use std::cell::Cell;
use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use common::{Daemon, GUARDED, KNOCK_PORT, Launch, SERVER_NAME, SERVER4, SOON, World, wait_for};
use knockd_rs::clock;
use knockd_rs::crypto::Secret;
use knockd_rs::enrol::Enrolment;
use knockd_rs::grant::Uses;
use knockd_rs::knock::Ask;
use knockd_rs::knock::spa::{ClientIdentity, seal};
use knockd_rs::time::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A client whose clock this test sets.
struct Client<'a> {
    world: &'a World,
    identity: ClientIdentity,
    /// For a fresh ephemeral key in every packet.
    sent: Cell<u8>,
}

impl<'a> Client<'a> {
    fn of(world: &'a World, server: &str) -> Self {
        let text = fs::read_to_string(world.path(&format!("home/.config/knockd-rs/{server}.toml"))).unwrap();
        let enrolment = Enrolment::parse("client.toml", &text).unwrap();
        let identity = ClientIdentity {
            keys: enrolment.key_pair().unwrap(),
            psk: enrolment.access.psk.clone().unwrap(),
            server: enrolment.access.server_key,
            gate: enrolment.access.gate_key.clone(),
        };
        Self { world, identity, sent: Cell::new(1) }
    }

    /// A packet of a client whose clock shows this.
    fn packet(&self, counter: Timestamp) -> Vec<u8> {
        let ask = Ask { uses: Some(Uses::Once), ..Ask::everything() };
        self.sent.set(self.sent.get() + 1);
        seal(&ask, counter, &self.identity, Secret::new([self.sent.get(); 32]), 64).unwrap()
    }

    /// Sends it once.
    fn send(&self, packet: &[u8]) {
        self.world.on_client(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(packet, (SERVER4, KNOCK_PORT)).unwrap();
        });
    }

    /// Sends one knock by this clock, waits for the one line that the daemon logs about it, and returns that.
    #[track_caller]
    fn knock(&self, daemon: &Daemon<'_>, counter: Timestamp) -> String {
        let before = daemon.log().len();
        self.send(&self.packet(counter));
        let line = || daemon.log()[before..].lines().next().map(str::to_owned);
        assert!(wait_for(SOON, || daemon.log()[before..].ends_with('\n')), "nothing was logged");
        line().unwrap()
    }
}

/// The time, so many seconds from now.
fn at(seconds: i64) -> Timestamp {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { clock::wall().saturating_sub(by) } else { clock::wall().saturating_add(by) }
}

/// A line of the log with its numbers replaced: how long a test takes is no part of the story.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for part in line.split_inclusive(' ') {
        let number = part.trim_end();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        shape.push_str(&if is_number { part.replace(number, "N") } else { part.to_owned() });
    }
    shape
}

/// The first number of a line.
fn number(line: &str) -> i64 {
    line.split(' ').find_map(|word| word.parse().ok()).unwrap()
}

const GRANTED: &str = "granted laptop from 10.77.0.2: tcp/22 for 15s, one connection";
const STALE: &str = "refused laptop from 10.77.0.2: the knock is N s older than this server's clock allows (at most \
                     N s); set the clocks of both, or raise max_age in the profile";
const AHEAD: &str = "refused laptop from 10.77.0.2: the knock is N s farther ahead than this server's clock allows \
                     (at most N s); set the clocks of both, or raise max_ahead in the profile";
const BEHIND: &str = "refused laptop from 10.77.0.2: the knock's counter is N s behind the client's last one: a copy \
                      of an old knock, or the client's clock was set back and its counter file lost; check the \
                      client's clock and knock again";
const AGAIN: &str = "refused laptop from 10.77.0.2: the knock's counter was used before: a copy, sent again by \
                     somebody, or two clients that share a key; give each client its own profile";
const JUMP: &str = "refused laptop from 10.77.0.2: the knock is dated N days farther ahead than is believed (at most \
                    400) while this server's clock is not synchronised; set the clock of the client, or of the server";
const QUARANTINE: &str = "refused laptop from 10.77.0.2: this server lost its record of used knocks and refuses all \
                          for another N s; knock again after that";

#[test]
fn clocks_may_differ_by_three_minutes_and_each_side_of_that_has_its_own_reason() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _listener = world.listener(22);
    let client = Client::of(&world, SERVER_NAME);
    let line = client.knock(&daemon, at(-190));
    assert_eq!(shape(&line), STALE);
    assert!((10..13).contains(&number(&line)) && line.contains("(at most 180 s)"), "{line}");
    let line = client.knock(&daemon, at(190));
    assert_eq!(shape(&line), AHEAD);
    assert!((8..=11).contains(&number(&line)) && line.contains("(at most 180 s)"), "{line}");
    // Neither was spent: a client whose clock ran ahead for a moment is not shut out (CVE-2021-46873).
    for seconds in [-170, 0, 170] {
        assert_eq!(client.knock(&daemon, at(seconds)), GRANTED, "{seconds}");
    }
    assert!(world.can_connect(SERVER4, 22));
}

#[test]
fn a_clock_that_jumps_is_refused_far_off_and_heard_again_once_it_is_right() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let client = Client::of(&world, SERVER_NAME);
    let story = [
        (0, GRANTED),
        (HOUR, AHEAD),
        (10 * 365 * DAY, AHEAD),
        (1, GRANTED),
        (-HOUR, BEHIND),
        (-10 * 365 * DAY, BEHIND),
        (2, GRANTED),
    ];
    for (seconds, told) in story {
        assert_eq!(shape(&client.knock(&daemon, at(seconds))), shape(told), "{seconds}");
    }
    // The end of all time, and the beginning of it.
    assert_eq!(shape(&client.knock(&daemon, Timestamp::from_nanos(u64::MAX))), AHEAD);
    assert_eq!(shape(&client.knock(&daemon, Timestamp::default())), BEHIND);
    assert_eq!(daemon.status()["counters"].to_string().matches("\"knocks refused\",6").count(), 1);
}

#[test]
fn an_older_counter_an_equal_one_and_the_same_packet_are_told_apart() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let client = Client::of(&world, SERVER_NAME);
    let now = at(0);
    let packet = client.packet(now);
    client.send(&packet);
    daemon.await_log(GRANTED);
    let line = client.knock(&daemon, at(-100));
    assert_eq!(shape(&line), BEHIND);
    assert!((99..=102).contains(&number(&line)), "{line}");
    assert_eq!(client.knock(&daemon, now), AGAIN);
    // The same bytes again are what every client sends: no line, a number.
    let (log, repeats) = (daemon.log(), daemon.counter("dropped: repeat"));
    client.send(&packet);
    assert!(wait_for(SOON, || daemon.counter("dropped: repeat") == repeats + 1));
    assert_eq!(daemon.log(), log);
}

#[test]
fn a_profile_may_be_stricter_or_more_patient_than_the_server() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.amend("laptop", "max_age = \"2h\"\nmax_ahead = \"10s\"");
    world.enrol_as("other", "phone", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    let (laptop, phone) = (Client::of(&world, SERVER_NAME), Client::of(&world, "other"));
    let line = laptop.knock(&daemon, at(-2 * HOUR - 30));
    assert!(shape(&line) == STALE && line.contains("(at most 7200 s)"), "{line}");
    let line = laptop.knock(&daemon, at(20));
    assert!(shape(&line) == AHEAD && line.contains("(at most 10 s)"), "{line}");
    assert_eq!(laptop.knock(&daemon, at(-HOUR)), GRANTED);
    assert_eq!(laptop.knock(&daemon, at(0)), GRANTED);
    assert_eq!(shape(&phone.knock(&daemon, at(-HOUR))), STALE.replace("laptop", "phone"));
    assert_eq!(phone.knock(&daemon, at(20)), GRANTED.replace("laptop", "phone"));
}

#[test]
fn a_server_that_does_not_believe_its_clock_says_so_once_and_judges_order_alone() {
    let world = World::new();
    let daemon = world.daemon(&GUARDED.replace("trusted", "untrusted"));
    let told = "clock: not synchronised: the order of knocks is judged, not their age";
    daemon.await_log(told);
    let client = Client::of(&world, SERVER_NAME);
    let story = [
        // A board without a battery after a year in a drawer: any time is good as long as it grows.
        (-365 * DAY, GRANTED),
        (-366 * DAY, BEHIND),
        (-30 * DAY, GRANTED),
        (0, GRANTED),
        // 400 days from what is known, and no more.
        (405 * DAY, JUMP),
        (399 * DAY, GRANTED),
        (805 * DAY, JUMP),
        (0, BEHIND),
    ];
    for (seconds, line) in story {
        assert_eq!(shape(&client.knock(&daemon, at(seconds))), shape(line), "{} days", seconds / DAY);
    }
    // Rounded up: six days, and what this test has taken so far.
    assert_eq!(number(&client.knock(&daemon, at(805 * DAY))), 7);
    assert_eq!(daemon.logged(told), 1);
    let notes = daemon.status()["notes"].to_string();
    assert!(
        notes.contains("the clock is not synchronised: the order of knocks is judged, not their age"),
        "{notes}"
    );
    assert_eq!(daemon.degraded(), [""; 0]);
}

#[test]
fn after_a_loss_of_its_marks_a_server_counts_down_in_every_refusal_and_takes_none_of_them_later() {
    let world = World::new();
    let mut daemon = world.daemon(&GUARDED.replace("clock", "max_age = \"4s\"\nmax_ahead = \"1s\"\nclock"));
    daemon.stop();
    for dir in ["run", "lib"] {
        fs::remove_dir_all(world.path(dir)).unwrap();
        fs::create_dir(world.path(dir)).unwrap();
    }
    daemon.start_again();
    daemon.await_log(
        "degraded: the replay state was lost: knocks are refused until old ones can no longer be replayed",
    );
    let client = Client::of(&world, SERVER_NAME);
    let packet = client.packet(at(0));
    client.send(&packet);
    assert!(
        wait_for(SOON, || daemon.log().lines().any(|line| shape(line) == QUARANTINE)),
        "{}",
        daemon.log()
    );
    let line = client.knock(&daemon, at(0));
    assert_eq!(shape(&line), QUARANTINE);
    assert!((1..=6).contains(&number(&line)), "{line}");
    // Too old is too old, also now: the reason that lasts comes first.
    assert_eq!(shape(&client.knock(&daemon, at(-60))), BEHIND);
    assert!(wait_for(SOON, || daemon.degraded().is_empty()), "{:?}", daemon.degraded());
    daemon.await_log("recovered: no longer: the replay state was lost");
    client.send(&packet);
    assert_eq!(client.knock(&daemon, at(0)), GRANTED);
    assert_eq!(daemon.logged("granted"), 1);
}

/// Each way to knock with a key, as the command line asks for it.
const WAYS: [&[&str]; 4] = [&[], &["--syn"], &["--sequence", "--fast"], &["--totp"]];

fn world_of_all_ways() -> World {
    let world = World::new();
    let methods = ["spa", "syn", "sequence", "totp"].map(|method| ["--method", method]).concat();
    world.enrol("laptop", &[&["--open", "tcp/22"][..], &methods].concat());
    world
}

#[test]
fn time_zones_make_no_difference_to_any_way_of_knocking_on_either_side() {
    let world = world_of_all_ways();
    let how = Launch { before: "export TZ=America/St_Johns".to_owned(), ..Launch::default() };
    let daemon =
        world.launch(&GUARDED.replace("clock", "max_age = \"20s\"\nmax_ahead = \"20s\"\nclock"), how);
    for (count, zone) in (1..).zip(["Asia/Kolkata", "America/New_York", "UTC"]) {
        for way in WAYS {
            let words = [&["knock", SERVER_NAME, "--no-wait", "--quiet"], way].concat();
            let output = world.client_command(&words).env("TZ", zone).output().unwrap();
            // A zone that knocks by the time a second time in one half minute has to wait for the next.
            let too_often = common::said(&output).contains("knock again in");
            assert!(output.status.success() || too_often, "{zone} {way:?}: {}", common::said(&output));
            if too_often {
                std::thread::sleep(Duration::from_secs(31));
                assert!(world.client_command(&words).env("TZ", zone).status().unwrap().success());
            }
        }
        let heard = || daemon.counter("knocks accepted") == count * 4;
        assert!(wait_for(SOON, heard), "{zone}: {}\n{}", daemon.counter("knocks accepted"), daemon.log());
    }
}

#[test]
fn a_client_whose_zone_goes_over_to_summer_time_is_heard_before_during_and_after() {
    let world = world_of_all_ways();
    let daemon = world.daemon(GUARDED);
    let now = clock::wall().as_secs();
    // A zone of POSIX (tzset(3)) whose summer time begins two seconds from now, and ends a day later.
    let of_day = now % 86_400 + 2;
    let begins = format!("{:02}:{:02}:{:02}", of_day / 3600 % 24, of_day / 60 % 60, of_day % 60);
    let day = day_of_year(now);
    let zone = format!("WIN0SUM,J{day}/{begins},J{}/{begins}", day % 365 + 1);
    for (count, way) in (1..).zip([WAYS[0], WAYS[1], WAYS[0], WAYS[2], WAYS[3], WAYS[0], WAYS[1]]) {
        let words = [&["knock", SERVER_NAME, "--no-wait", "--quiet"], way].concat();
        let output = world.client_command(&words).env("TZ", &zone).output().unwrap();
        assert!(output.status.success(), "{zone} {way:?}: {}", common::said(&output));
        assert!(wait_for(SOON, || daemon.counter("knocks accepted") == count), "{way:?}: {}", daemon.log());
    }
    let took = clock::wall().as_secs() - now;
    assert!(took >= 2, "it was over after {took} s, before summer began");
}

/// The day of the year, from 1, not counting 29 February: as `J` counts in a zone of POSIX.
fn day_of_year(unix: u64) -> u64 {
    let output =
        std::process::Command::new("date").args(["-u", "-d", &format!("@{unix}"), "+%-j %Y"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let (day, year) = text.trim().split_once(' ').unwrap();
    let (day, year): (u64, u64) = (day.parse().unwrap(), year.parse().unwrap());
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if leap && day >= 60 { (day - 1).max(1) } else { day }
}

#[test]
fn a_client_whose_clock_ran_ahead_and_was_set_right_is_heard_at_once() {
    for minutes in [1, 4, 9, 60] {
        let world = World::new();
        let daemon = world.daemon(GUARDED);
        world.knock(&[]);
        daemon.await_log(GRANTED);
        // What the client's file holds after a knock by such a clock.
        let counter = format!("{:020}\n", at(minutes * MINUTE).as_nanos());
        fs::write(world.path("home/.local/state/knockd-rs/myserver.counter"), counter).unwrap();
        let output = world.client(&["knock", SERVER_NAME, "--no-wait"]);
        assert!(output.status.success());
        assert!(wait_for(SOON, || daemon.logged(GRANTED) == 2), "{minutes} minutes: {}", daemon.log());
        let is_warned = common::said(&output).contains("minutes ahead of what it says now");
        assert_eq!(is_warned, minutes > 3, "{minutes}: {}", common::said(&output));
    }
}

#[test]
fn a_client_whose_clock_was_set_back_goes_on_from_its_last_counter() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let client = Client::of(&world, SERVER_NAME);
    // Two minutes ahead is heard, and then the clock is set right: the file makes up for it.
    let ahead = at(2 * MINUTE);
    assert_eq!(client.knock(&daemon, ahead), GRANTED);
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.log().lines().any(|line| shape(line) == BEHIND)), "{}", daemon.log());
    fs::write(
        world.path("home/.local/state/knockd-rs/myserver.counter"),
        format!("{:020}\n", ahead.as_nanos()),
    )
    .unwrap();
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.logged(GRANTED) == 2), "{}", daemon.log());
}
