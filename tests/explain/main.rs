//! `knockd-rs explain` on recordings with a packet of every kind of refusal.
//!
//! The recordings are made here, from fixed keys and times, and lie in `tests/data/pcap` too, so that other programs
//! can read them. After a change of what they hold: `cargo test --test explain -- --ignored`.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod certificates;
#[path = "../packets/mod.rs"]
mod packets;
mod recordings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use knockd_rs::capture::Miss;
use knockd_rs::frame::Refused;
use knockd_rs::knock::{Drop, MarkKey, Method};
use knockd_rs::state::{Mark, Place, State};
use knockd_rs::time::Timestamp;
use packets::recording::{BEGIN, Recording};
use recordings::{STRICT, client, recordings, server_dir, spa_knocks};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pcap").join(format!("{name}.pcap"))
}

fn explain(server: &Path, file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knockd-rs"));
    command.arg("explain").arg(file).args(arguments).arg("--config-dir").arg(server);
    command.arg("--state-dir").arg(server.join("lib")).arg("--runtime-dir").arg(server.join("run"));
    command.env_remove("CREDENTIALS_DIRECTORY").output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn said(object: &Value) -> String {
    let word = |key: &str| object[key].as_str().unwrap().to_owned();
    [word("verdict"), word("step"), word("reason")].join(" ")
}

// --- the tests -----------------------------------------------------------------------------------------------------

#[test]
fn each_packet_is_explained_with_the_step_at_which_it_ended() {
    for (name, settings, recording) in recordings() {
        let server = server_dir(&settings);
        // A list is older than another only for somebody who remembers the other.
        let remembers = name == "crl-rolled-back";
        let state = server.path().join("lib/replay");
        if remembers {
            fs::create_dir_all(&state).unwrap();
            certificates::remember_lists(&state);
        }
        let arguments = ["--json", "--marks"];
        let output = explain(server.path(), &fixture(name), &arguments[..1 + usize::from(remembers)]);
        assert!(output.status.success(), "{}", stderr(&output));
        let (sums, packets) =
            objects(&output).split_last().map(|(sums, rest)| (sums.clone(), rest.to_vec())).unwrap();
        assert_eq!(packets.len(), recording.frames().len());
        for (packet, frame) in packets.iter().zip(recording.frames()) {
            assert_eq!(said(packet), frame.expected, "{name}: {packet}");
            let millis = BEGIN * 1000 + frame.millis;
            assert_eq!(packet["time"], format!("{}.{:03}000000", millis / 1000, millis % 1000));
            assert!(packet["sentence"].as_str().unwrap().len() > 15, "{packet}");
        }
        assert_eq!(sums["packets"], packets.len());
        assert!(
            server.path().join("lib").exists() == remembers && !server.path().join("run").exists(),
            "nothing is written"
        );
    }
}

/// The fixed names that a `fn name(&self)` in this source returns.
fn names_in_source(source: &str) -> Vec<String> {
    let bodies = source.split("fn name(&self) -> &'static str").skip(1);
    let lines = bodies.flat_map(|body| body.split("\n    }\n").next().unwrap().lines());
    let names = lines.filter_map(|line| line.split_once("=> \"")?.1.split_once('"'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn there_is_a_packet_for_every_reason_that_a_packet_can_be_refused_for() {
    let recordings = recordings();
    let seen: BTreeSet<&str> = recordings
        .iter()
        .flat_map(|(_, _, recording)| recording.frames())
        .map(|frame| frame.expected.rsplit(' ').next().unwrap())
        .collect();
    let mut all: BTreeSet<String> = BTreeSet::new();
    all.extend(Refused::ALL.iter().map(|reason| reason.name().to_owned()));
    all.extend(Drop::ALL.iter().map(|reason| reason.name().to_owned()));
    all.extend(Miss::ALL.iter().map(|reason| reason.name().to_owned()));
    all.extend(names_in_source(include_str!("../../src/knock/fault.rs")));
    all.extend(names_in_source(include_str!("../../src/policy.rs")));
    all.extend(names_in_source(include_str!("../../src/x509/rejection.rs")));
    let missing: Vec<&str> = all.iter().map(String::as_str).filter(|name| !seen.contains(name)).collect();
    // The filter is as strict as the decoders about ports and lengths; a recording does not begin in quarantine.
    assert_eq!(missing, ["length", "method", "quarantine"]);
}

#[test]
fn the_recordings_in_the_repository_are_those_that_are_made_here() {
    for (name, _, recording) in recordings() {
        let file = fs::read(fixture(name)).unwrap();
        assert!(file == recording.file(), "{name}: run `cargo test --test explain -- --ignored`");
    }
}

#[test]
#[ignore = "writes tests/data/pcap anew"]
fn write_the_recordings() {
    for (name, _, recording) in recordings() {
        fs::create_dir_all(fixture(name).parent().unwrap()).unwrap();
        fs::write(fixture(name), recording.file()).unwrap();
    }
}

#[test]
fn people_get_a_line_for_each_packet_a_sentence_below_it_and_sums() {
    let server = server_dir(STRICT);
    let output = explain(server.path(), &fixture("plain"), &[]);
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[6..8],
        [
            "    4  2026-01-01 00:00:00.600Z  192.0.2.7 -> 198.51.100.1 tcp/6000  granted, done: granted  phone by plain",
            "       would open tcp/443 to 192.0.2.7 for 15s, one connection"
        ]
    );
    assert!(text.contains("\n9 packets: 1 granted, 7 noted, 0 refused, 1 dropped\n"), "{text}");
    assert!(stderr(&output).contains("within this recording alone"), "{}", stderr(&output));
}

#[test]
fn of_one_profile_its_own_packets_are_shown_and_those_that_nobody_can_tell() {
    let server = server_dir(STRICT);
    let of = |profile| objects(&explain(server.path(), &fixture("spa"), &["--json", "--profile", profile]));
    let (laptop, phone) = (of("laptop"), of("phone"));
    assert_eq!(laptop.len(), spa_knocks().frames().len() + 1);
    assert!(phone.iter().all(|packet| packet["profile"].is_null()));
    let reasons: Vec<&str> = phone.iter().filter_map(|packet| packet["reason"].as_str()).collect();
    assert_eq!(reasons, ["repeat", "mac", "unknown-client", "unknown-client", "budget", "key"]);
    let output = explain(server.path(), &fixture("spa"), &["--profile", "nobody"]);
    assert_eq!(stderr(&output), "knockd-rs: there is no profile `nobody`; see `knockd-rs profile list`\n");
}

#[test]
fn with_marks_what_the_daemon_has_heard_is_refused_and_its_record_is_left_as_it_is() {
    let server = server_dir(STRICT);
    let dirs = ["run", "lib"].map(|name| server.path().join(name).join("replay"));
    dirs.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    let [runtime, state] = dirs.clone();
    let place = Place {
        runtime,
        state,
        identity: recordings::server().public().identity(),
        boot: knockd_rs::clock::boot(),
    };
    let (mut state, _) = State::open(place, Duration::from_secs(9), Duration::from_secs(9)).unwrap();
    let key = MarkKey::new(client().public().into(), Method::Spa);
    state.persist(&Mark { key, counter: Timestamp::from_secs(BEGIN), mac1: [1; 16] });
    state.finish(Duration::from_secs(10));
    let files = || -> Vec<Vec<u8>> {
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    };
    let before = files();
    for (arguments, expected) in
        [(&["--json"][..], "granted done granted"), (&["--json", "--marks"], "refused replay replayed")]
    {
        let output = explain(server.path(), &fixture("spa"), arguments);
        assert_eq!(said(&objects(&output)[0]), expected);
    }
    assert!(files() == before && !before.is_empty());
}

#[test]
fn of_a_file_that_is_cut_off_everything_before_is_explained() {
    let server = server_dir(STRICT);
    let whole = fs::read(fixture("plain")).unwrap();
    let cut = server.path().join("cut.pcap");
    fs::write(&cut, &whole[..whole.len() - 3]).unwrap();
    let output = explain(server.path(), &cut, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(objects(&output).len(), 9);
    assert!(stderr(&output).contains("what is after packet 8 cannot be read"), "{}", stderr(&output));
}

#[test]
fn what_is_no_recording_is_told() {
    let server = server_dir(STRICT);
    let bad = server.path().join("bad.pcap");
    let mut wireless = Recording::ethernet().file();
    wireless[20] = 105;
    for (bytes, what) in [
        (&b"this is no recording, is it? no, it is not"[..], "cannot be opened: "),
        (b"", "cannot be opened: "),
        (&wireless, "has link-layer type 105, which is not read here"),
    ] {
        fs::write(&bad, bytes).unwrap();
        let output = explain(server.path(), &bad, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
    }
    let output = explain(server.path(), Path::new("/nowhere.pcap"), &[]);
    assert_eq!(stderr(&output), "knockd-rs: there is no file /nowhere.pcap\n");
}

#[test]
fn without_the_right_to_read_the_keys_it_says_so() {
    assert!(rustix::process::geteuid().is_root(), "this test runs the program as nobody, which needs root");
    let server = server_dir(STRICT);
    // A copy that nobody can reach, wherever this program was built.
    let program = server.path().join("knockd-rs");
    // By a process of its own: a file that is open for writing, if only in a child that another test is about to start,
    // cannot be run (`ETXTBSY`).
    Command::new("install").arg(env!("CARGO_BIN_EXE_knockd-rs")).arg(&program).status().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    let output =
        command.args(["explain", "/nowhere.pcap", "--config-dir"]).arg(server.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).ends_with("explaining takes the server's keys, so run it as root\n"),
        "{}",
        stderr(&output)
    );
}
