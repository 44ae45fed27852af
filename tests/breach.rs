//! A captured worker: what a stranger can do who runs code of his own in it, and talks to the monitor in its name.
//!
//! The test takes the worker's own end of the socketpair (`pidfd_getfd(2)`) and says there what no worker ever
//! says. "A request outside them ends the worker": nothing may open, what is guarded stays so, the service ends
//! with an error, and the log says why.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod common;

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use common::{CLIENT4, Daemon, GUARDED, SERVER4, SOON, STRANGER4, World, wait_for};
use knockd_rs::grant::{Action, Grant, ProfileIndex, Request, Session, Uses};
use knockd_rs::privsep::message::{Farewell, Pulse, Ready, Reason, Refused, Said};
use knockd_rs::text::Span;
use knockd_rs::time::Timestamp;
use rustix::net::{SendFlags, send};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The worker's end of the socket to its monitor.
fn socket_of(daemon: &Daemon<'_>) -> OwnedFd {
    let worker = pidfd_open(daemon.worker(), PidfdFlags::empty()).unwrap();
    // Standard input, see `privsep`.
    pidfd_getfd(&worker, 0, PidfdGetfdFlags::empty()).expect("the worker's socket; takes CAP_SYS_PTRACE")
}

fn say(socket: &OwnedFd, bytes: &[u8]) {
    assert_eq!(send(socket, bytes, SendFlags::NOSIGNAL).unwrap(), bytes.len());
}

/// What the profile `laptop` may be given: tcp/22 for its client's address, once, for an hour at most.
fn request() -> Request {
    Request { id: 1, counter: Timestamp::from_secs(1), from_outside: true, grant: grant(), holder: None }
}

fn grant() -> Grant {
    Grant {
        profile: ProfileIndex(0),
        action: Action::Open,
        source: CLIENT4,
        address: CLIENT4,
        wide: false,
        ports: vec!["tcp/22".parse().unwrap()],
        uses: Uses::Once,
        session: Session::default(),
        lifetime: Span::from_secs(15),
    }
}

fn refused(index: u32, sentence: &str) -> Said {
    let sentence = sentence.to_owned();
    Said::Refused(Refused { profile: ProfileIndex(index), source: STRANGER4, name: "x".into(), sentence })
}

/// Starts a daemon, says this in the worker's name, and expects the end, with these words in the log.
fn ends_everything(bytes: &[u8], words: &str) {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _listener = world.listener(22);
    let worker = daemon.worker();
    let socket = socket_of(&daemon);
    say(&socket, bytes);
    let status = daemon.ended();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(common::is_gone(worker), "the worker goes on");
    let log = daemon.log();
    assert!(log.contains(words), "no {words:?} in:\n{log}");
    assert!(!log.contains("granted"), "{log}");
    // Every element of a grant bears its profile's name.
    let table = world.nft(&["list", "table", "inet", "knockd-rs"]);
    assert!(table.contains("tcp . 22") && !table.contains("laptop"), "{table}");
    assert!(!world.can_connect(SERVER4, 22));
    // And the next start is a sound one.
    daemon.start_again();
    world.knock_until(&[], || world.can_connect(SERVER4, 22));
}

#[test]
fn what_a_worker_may_ask_for_is_all_that_a_captured_one_gets() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _listener = world.listener(22);
    let socket = socket_of(&daemon);
    say(&socket, &Said::Request(request()).encode());
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 for 15s, one connection");
    assert!(world.nft(&["list", "table", "inet", "knockd-rs"]).contains("laptop"));
    assert!(wait_for(SOON, || world.can_connect(SERVER4, 22)));
    assert!(!world.can_stranger_connect(SERVER4, 22));
    // A sentence of its own, about a profile that does not exist, stands as that in the log.
    say(&socket, &refused(9, "granted root from 10.77.0.3").encode());
    daemon.await_log("refused ? from 10.77.0.3: granted root from 10.77.0.3");
    // An answer to what was never asked: no harm.
    say(&socket, &Said::Pulse(Pulse { id: 77, ..Pulse::default() }).encode());
    assert_eq!(daemon.degraded(), [""; 0]);
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.logged("granted laptop from 10.77.0.2") == 2), "{}", daemon.log());
}

#[test]
fn a_captured_worker_can_keep_a_client_out_until_an_administrator_allows_it() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _listener = world.listener(22);
    let session = Session { last: true, ..Session::default() };
    let request = Request { grant: Grant { session, ..grant() }, ..request() };
    say(&socket_of(&daemon), &Said::Request(request).encode());
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 for 15s");
    world.knock(&[]);
    daemon.await_log("its last knock was to be the last one; `knockd-rs allow laptop` lets it knock again");
    assert_eq!(daemon.command(&["allow", "laptop"]), "laptop may knock again\n");
    world.knock(&[]);
    assert!(wait_for(SOON, || daemon.logged("granted laptop from 10.77.0.2") == 2), "{}", daemon.log());
}

#[test]
fn a_request_beyond_the_profile_ends_the_service_and_opens_nothing() {
    let stranger: IpAddr = STRANGER4;
    let cases = [
        (
            Grant { profile: ProfileIndex(1), ..grant() },
            "a request for profile number 1, which does not exist",
        ),
        (Grant { profile: ProfileIndex(u32::MAX), ..grant() }, "which does not exist"),
        (
            Grant { ports: vec!["tcp/1-65535".parse().unwrap()], ..grant() },
            "profile laptop: a port is outside",
        ),
        (Grant { ports: vec!["udp/22".parse().unwrap()], ..grant() }, "profile laptop: a port is outside"),
        (Grant { address: stranger, ..grant() }, "it is for an address that the profile does not allow"),
        (Grant { uses: Uses::Many, ..grant() }, "it asks for more connections than the profile allows"),
        (Grant { lifetime: Span::from_secs(3601), ..grant() }, "it lasts longer than the profile allows"),
    ];
    std::thread::scope(|scope| {
        for (grant, words) in &cases {
            let request = Request { grant: grant.clone(), ..request() };
            scope.spawn(move || ends_everything(&Said::Request(request).encode(), words));
        }
    });
}

#[test]
fn a_polite_word_out_of_turn_does_not_end_the_service_quietly() {
    // The end of a file that it was not told to read would be a clean end, with the guard taken down where the
    // configuration says so; a retirement that nobody ordered would leave nobody listening.
    let farewell = |reason| Said::Farewell(Farewell { reason, sentence: String::new() }).encode();
    std::thread::scope(|scope| {
        for reason in [Reason::EndOfFile, Reason::Retired, Reason::CannotOpen] {
            scope.spawn(move || ends_everything(&farewell(reason), "the worker said farewell out of turn"));
        }
    });
}

#[test]
fn words_that_no_worker_says_end_the_service_too() {
    let said = Said::Request(request()).encode();
    let mut kind = said;
    kind[0] = 99;
    let mut tail = said;
    tail[said.len() - 1] = 1;
    // A line of its own in the log, what a terminal would do with it, and a word out of turn.
    let (line, escape) = (refused(0, "a\ngranted b").encode(), refused(0, "\u{1b}[2J").encode());
    let ready = Said::Ready(Ready { landlock: true, interface: 1 }).encode();
    let cases: [&[u8]; 9] = [
        &line,
        &escape,
        &ready,
        &said[..said.len() - 1],
        &[&said[..], &[0]].concat(),
        &kind,
        &tail,
        &[0; 320],
        &[0xff; 1],
    ];
    std::thread::scope(|scope| {
        for bytes in cases {
            scope.spawn(move || ends_everything(bytes, "worker: "));
        }
    });
}
