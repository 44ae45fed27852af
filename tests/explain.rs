//! `knockd-rs explain` on recordings with a packet of every kind of refusal.
//!
//! The recordings are made here, from fixed keys and times, and lie in `tests/data/pcap` too, so that other programs
//! can read them. After a change of what they hold: `cargo test --test explain -- --ignored`.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod packets;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use knockd_rs::capture::Miss;
use knockd_rs::crypto::{Gate, KeyPair, Secret, noise};
use knockd_rs::frame::Refused;
use knockd_rs::knock::syn::{CodeKey, Slot};
use knockd_rs::knock::{Drop, Ground, MarkKey, Method, spa, totp};
use knockd_rs::state::{Mark, Place, State};
use knockd_rs::time::Timestamp;
use packets::recording::{BEGIN, CLIENT, Recording, STRANGER};
use packets::{DOT1Q, IPV4, IPV6, ROUTING, TCP, UDP, V6, ethernet, extension, ipv4, ipv6, syn, tcp, udp};
use serde_json::Value;

const PORT: u16 = 62201;
const SECOND: u64 = 1_000_000_000;

// --- a server and its clients ----------------------------------------------------------------------------------

/// 32 bytes that count up from here: the keys of knockd-rs-protocol(7).
fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|place| first + u8::try_from(place).unwrap())
}

fn server() -> KeyPair {
    KeyPair::from_seed(seed(0))
}

fn gate() -> Secret<32> {
    Secret::new(seed(0x20))
}

fn client() -> KeyPair {
    KeyPair::from_seed(seed(0x40))
}

fn psk() -> Secret<32> {
    Secret::new(seed(0x60))
}

/// A configuration directory with these settings; `laptop` may open tcp/22 and tcp/8000.
fn server_dir(settings: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join("profiles.d")).unwrap();
    fs::set_permissions(dir.path().join("profiles.d"), fs::Permissions::from_mode(0o750)).unwrap();
    let write = |name: &str, text: &str| {
        let mut file =
            fs::File::options().write(true).create_new(true).mode(0o600).open(dir.path().join(name)).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    write("server.key", &format!("{}\n", *server().secret().to_base64()));
    write("gate.key", &format!("{}\n", *gate().to_base64()));
    write("knockd-rs.toml", settings);
    let keys = format!("public_key = \"{}\"\npsk = \"{}\"\n", client().public(), *psk().to_base64());
    write(
        "profiles.d/laptop.toml",
        &format!(
            "{keys}open = [\"tcp/22\", \"tcp/8000\"]\nmethods = [\"spa\", \"syn\", \"totp\"]\nother_addresses = [\"198.51.100.0/24\", \"224.0.0.0/4\"]\n"
        ),
    );
    write(
        "profiles.d/phone.toml",
        "open = [\"tcp/443\"]\nmethods = [\"plain\"]\ninsecure = true\n[plain]\nports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]\n",
    );
    dir
}

// --- the recordings ----------------------------------------------------------------------------------------------

/// A plaintext of 64 bytes that asks for everything (knockd-rs-protocol(7)).
fn plaintext(counter: u64) -> [u8; 64] {
    let mut plain = [0; 64];
    plain[0] = 1;
    plain[2..10].copy_from_slice(&counter.to_be_bytes());
    plain
}

/// Seals any plaintext, the wrong ones too.
fn sealed(own: &KeyPair, psk: &Secret<32>, ephemeral: u8, plain: &[u8]) -> Vec<u8> {
    let ephemeral = KeyPair::from_seed([ephemeral; 32]);
    let message = noise::write(spa::PROLOGUE, own, &server().public(), psk, &ephemeral, plain).unwrap();
    let gate = Gate::new(&server().public(), &gate());
    let tag: [u8; 16] = *message.last_chunk().unwrap();
    let masked = gate.mask(&tag, message.first_chunk().unwrap());
    let body = [&masked[..], &message[32..]].concat();
    [&body[..], &gate.mac1(&body)].concat()
}

/// Frames that hold no segment, and segments that no method would send.
fn frames() -> Recording {
    let knock = udp(PORT, &[0x5a; 176]);
    let v4 = |fragment, transport, payload: &[u8]| {
        ethernet(&[], IPV4, &ipv4(CLIENT, fragment, &[], transport, payload))
    };
    let v6 = |packet: Vec<u8>| ethernet(&[], IPV6, &packet);
    let mut wrong_length = knock.clone();
    wrong_length[5] += 1;
    let mut recording = Recording::ethernet();
    let mut next = |expected, frame| {
        recording.after(10).frame(expected, frame);
    };
    next("dropped link link", vec![0xff; 13]);
    next("dropped link tags", ethernet(&[(DOT1Q, 1), (DOT1Q, 2), (DOT1Q, 3)], IPV4, &[]));
    next("dropped ip not-ip", ethernet(&[], 0x0806, &[0; 28]));
    next("dropped ip header", ethernet(&[], IPV4, &ipv4(CLIENT, 0, &[], UDP, &knock)[..30]));
    next("dropped ip fragment", v4(0x2000, UDP, &knock));
    next("dropped ip extension", v6(ipv6(V6[0], ROUTING, &extension(UDP, [4, 1], &knock))));
    next("dropped ip source", ethernet(&[], IPV4, &ipv4([0; 4], 0, &[], UDP, &knock)));
    next("dropped transport transport", v4(0, 1, &[8, 0, 0, 0, 0, 0, 0, 0]));
    next("dropped transport udp-length", v4(0, UDP, &wrong_length));
    next("dropped transport tcp-header", v4(0, TCP, &[0; 19]));
    next("dropped transport not-syn", v4(0, TCP, &tcp(22, 1, 0x10, &[], b"data")));
    next("dropped filter other-port", v4(0, TCP, &syn(22, 1, 1)));
    next("dropped filter other-port", v6(ipv6(V6[0], UDP, &udp(53, &[0; 40]))));
    next("dropped filter other-length", v4(0, UDP, &udp(PORT, b"hello")));
    recording.after(10).part("dropped link truncated", v4(0, UDP, &knock)[..60].to_vec(), 218);
    recording
}

/// A byte or more of a plaintext, changed.
type Change = fn(&mut [u8; 64]);

/// Requests of a client that proved who it is, and what is wrong with each.
const REQUESTS: [(&str, Change); 13] = [
    ("refused fields version", |plain| plain[0] = 2),
    ("refused fields flags", |plain| plain[1] = 0x80),
    ("refused fields query", |plain| plain[1] = 3),
    ("refused fields session-flags", |plain| plain[11] = 1),
    ("refused fields address-field", |plain| plain[1] = 4),
    ("refused fields entries", |plain| plain[36] = 6),
    ("refused fields padding", |plain| plain[63] = 1),
    ("refused fields source-mismatch", |plain| {
        plain[1] = 8;
        plain[26..32].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 8]);
    }),
    ("refused policy address", |plain| {
        plain[1] = 4;
        plain[26..32].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 1]);
    }),
    ("refused policy no-host", |plain| {
        plain[1] = 4;
        plain[26..32].copy_from_slice(&[0xff, 0xff, 224, 0, 0, 1]);
    }),
    ("refused policy service", |plain| plain[32] = 9),
    ("refused policy ports", |plain| {
        plain[36] = 1;
        plain[37..42].copy_from_slice(&[6, 0, 23, 0, 23]);
    }),
    ("granted done closed", |plain| plain[1] = 1),
];

/// Encrypted datagrams: good ones, and one for each check that they can fail at. Eleven seconds lie between two that
/// cost a handshake, since the settings allow one a second.
fn spa_knocks() -> Recording {
    let (own, psk, none) = (client(), psk(), Secret::new([0; 32]));
    let mut recording = Recording::ethernet();
    let good = sealed(&own, &psk, 1, &plaintext(recording.nanos()));
    recording.datagram("granted done granted", CLIENT, PORT, &good);
    recording.after(250).datagram("dropped repeat repeat", CLIENT, PORT, &good);
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    recording.after(250).datagram("dropped mac mac", CLIENT, PORT, &damaged);
    let older = plaintext(recording.nanos() - 60 * SECOND);
    recording.after(11_000).datagram("refused replay replayed", CLIENT, PORT, &sealed(&own, &psk, 2, &older));
    let stranger = KeyPair::from_seed([7; 32]);
    let of_stranger = sealed(&stranger, &none, 3, &plaintext(recording.nanos()));
    recording.after(11_000).datagram("dropped client unknown-client", STRANGER, PORT, &of_stranger);
    let at_once = sealed(&stranger, &none, 4, &plaintext(recording.nanos()));
    recording.after(1).datagram("dropped budget budget", STRANGER, PORT, &at_once);
    let other_psk = sealed(&own, &none, 5, &plaintext(recording.nanos()));
    recording.after(11_000).datagram("dropped key key", CLIENT, PORT, &other_psk);
    for (number, by, expected) in
        [(6, -3600, "refused freshness stale"), (7, 3600, "refused freshness ahead")]
    {
        recording.after(3_700_000);
        let counter = recording.nanos().saturating_add_signed(by * 1_000_000_000);
        recording.datagram(expected, CLIENT, PORT, &sealed(&own, &psk, number, &plaintext(counter)));
    }
    for (number, (expected, change)) in (20..).zip(REQUESTS) {
        recording.after(11_000);
        let mut plain = plaintext(recording.nanos());
        change(&mut plain);
        recording.datagram(expected, CLIENT, PORT, &sealed(&own, &psk, number, &plain));
    }
    recording
}

/// For a server whose clock is in doubt.
fn clock_in_doubt() -> Recording {
    let mut recording = Recording::ethernet();
    let early = sealed(&client(), &psk(), 1, &plaintext(recording.nanos() - 3600 * SECOND));
    recording.datagram("granted done granted", CLIENT, PORT, &early);
    recording.after(11_000);
    let late = sealed(&client(), &psk(), 2, &plaintext(recording.nanos() + 401 * 86_400 * SECOND));
    recording.datagram("refused freshness jump", CLIENT, PORT, &late);
    recording
}

/// SYNs with a code: a good one, the same again, and one whose code is nobody's.
fn syn_knocks() -> Recording {
    let key = CodeKey::new(&client().agree(&server().public()).unwrap(), &psk());
    let code = key.pack(Slot::of(Timestamp::from_secs(BEGIN)), None);
    let good = syn(PORT, code.sequence, code.timestamp.unwrap());
    let mut recording = Recording::ethernet();
    recording.packet("granted done granted", CLIENT, TCP, &good);
    recording.after(1000).packet("dropped repeat repeat", CLIENT, TCP, &good);
    recording.after(1000).packet("dropped code code", CLIENT, TCP, &syn(PORT, 1, 1));
    recording
}

/// A fixed sequence: one that is good, with a stranger's packet in the client's name; and one that is out of order.
fn plain_sequences() -> Recording {
    let mut recording = Recording::ethernet();
    recording.packet("noted sequence partial", CLIENT, TCP, &syn(7000, 1, 1));
    recording.after(200).packet("noted sequence partial", CLIENT, TCP, &syn(6000, 1, 1));
    recording.after(200).datagram("noted sequence partial", CLIENT, 8000, b"");
    recording.after(200).packet("granted done granted", CLIENT, TCP, &syn(6000, 1, 1));
    recording.after(1000).packet("noted sequence partial", CLIENT, TCP, &syn(6000, 1, 1));
    recording.after(200).datagram("noted sequence partial", STRANGER, 8000, b"");
    recording.after(200).packet("noted sequence partial", STRANGER, TCP, &syn(7000, 1, 1));
    recording.after(200).packet("noted sequence partial", STRANGER, TCP, &syn(6000, 1, 1));
    recording.after(200).packet("dropped filter other-port", STRANGER, TCP, &syn(8000, 1, 1));
    recording
}

/// Sequences by the time: one that is good, the same once more, and one of an old step.
fn totp_sequences() -> Recording {
    let key = totp::key(&client(), &server().public(), &psk()).unwrap();
    let mut recording = Recording::ethernet();
    let now = totp::step(Timestamp::from_secs(BEGIN));
    let stories = [
        (now, "granted done granted"),
        (now, "refused replay replayed"),
        (now - 2, "noted sequence partial"),
    ];
    for (step, expected) in stories {
        let ports = totp::ports(&key, step, totp::DEFAULT_PORTS, &Ground::default());
        let (last, first) = ports.split_last().unwrap();
        for port in first {
            recording.after(40).packet("noted sequence partial", CLIENT, TCP, &syn(*port, 1, 1));
        }
        recording.after(40).packet(expected, CLIENT, TCP, &syn(*last, 1, 1));
    }
    recording
}

const STRICT: &str = "[limits]\nhandshakes_per_source = 1\n";

/// Every recording, with the settings of its server.
fn recordings() -> [(&'static str, &'static str, Recording); 6] {
    [
        ("frames", STRICT, frames()),
        ("spa", STRICT, spa_knocks()),
        ("clock-in-doubt", "[freshness]\nclock = \"untrusted\"\n", clock_in_doubt()),
        ("syn", STRICT, syn_knocks()),
        ("plain", STRICT, plain_sequences()),
        ("totp", STRICT, totp_sequences()),
    ]
}

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
        let server = server_dir(settings);
        let output = explain(server.path(), &fixture(name), &["--json"]);
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
            !server.path().join("lib").exists() && !server.path().join("run").exists(),
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
    all.extend(names_in_source(include_str!("../src/knock/fault.rs")));
    all.extend(names_in_source(include_str!("../src/policy.rs")));
    let missing: Vec<&str> = all.iter().map(String::as_str).filter(|name| !seen.contains(name)).collect();
    // Certificates have dates, and their reasons a program of their own, which makes them by `openssl`: certificates.rs.
    let by_certificate = include_str!("certificates.rs");
    let told = [
        "body",
        "cert-scope",
        "cert-unmapped",
        "certificate",
        "issuer",
        "other-server",
        "signature",
        "unknown-leaf",
    ];
    let missing: Vec<&str> = missing.into_iter().filter(|name| !told.contains(name)).collect();
    assert!(by_certificate.contains("cert-scope") && by_certificate.contains("Drop::OtherServer"));
    // The filter is as strict as the decoders about ports and lengths; a recording does not begin in quarantine. The
    // last two are of the policy alone, and told apart in its own tests.
    assert_eq!(missing, ["cert-ports", "length", "method", "quarantine", "scattered"]);
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
    assert_eq!(reasons, ["repeat", "mac", "unknown-client", "budget", "key"]);
    let output = explain(server.path(), &fixture("spa"), &["--profile", "nobody"]);
    assert_eq!(stderr(&output), "knockd-rs: there is no profile `nobody`; see `knockd-rs profile list`\n");
}

#[test]
fn with_marks_what_the_daemon_has_heard_is_refused_and_its_record_is_left_as_it_is() {
    let server = server_dir(STRICT);
    let dirs = ["run", "lib"].map(|name| server.path().join(name).join("replay"));
    dirs.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    let [runtime, state] = dirs.clone();
    let place = Place { runtime, state, identity: self::server().public().identity() };
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
    fs::copy(env!("CARGO_BIN_EXE_knockd-rs"), &program).unwrap();
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
