//! The recordings, each with what its server is set to: a packet of every kind of refusal, from fixed keys and times.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use knockd_rs::crypto::{Gate, KeyPair, Pseudonym, Secret, noise, pseudonym};
use knockd_rs::knock::syn::{CodeKey, Slot};
use knockd_rs::knock::{Ground, spa, totp};
use knockd_rs::time::Timestamp;

use crate::certificates::{self, cert_knocks, without_a_good_list};
use crate::packets::recording::{BEGIN, CLIENT, Recording, STRANGER};
use crate::packets::{
    DOT1Q, IPV4, IPV6, ROUTING, TCP, UDP, V6, ethernet, extension, ipv4, ipv6, syn, tcp, udp,
};

pub(crate) const PORT: u16 = 62201;
pub(crate) const SECOND: u64 = 1_000_000_000;

// --- a server and its clients ----------------------------------------------------------------------------------

/// 32 bytes that count up from here: the keys of knockd-rs-protocol(7).
pub(crate) fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|place| first + u8::try_from(place).unwrap())
}

pub(crate) fn server() -> KeyPair {
    KeyPair::from_seed(seed(0))
}

pub(crate) fn gate() -> Secret<32> {
    Secret::new(seed(0x20))
}

pub(crate) fn client() -> KeyPair {
    KeyPair::from_seed(seed(0x40))
}

pub(crate) fn psk() -> Secret<32> {
    Secret::new(seed(0x60))
}

/// The keys of `tablet`: those that a rotation has replaced, and those that have taken their place.
fn tablet() -> [KeyPair; 2] {
    [0xa0, 0xc0].map(|first| KeyPair::from_seed(seed(first)))
}

/// The methods of `laptop`.
pub(crate) const LAPTOP_METHODS: &str = "\"spa\", \"syn\", \"totp\", \"sequence\"";

/// A configuration directory with these settings; `laptop` may open tcp/22 and tcp/8000, `tablet` tcp/22 for a minute.
pub(crate) fn server_dir(settings: &str) -> tempfile::TempDir {
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
            "{keys}open = [\"tcp/22\", \"tcp/8000\"]\nmethods = [{LAPTOP_METHODS}]\nother_addresses = [\"198.51.100.0/24\", \"224.0.0.0/4\"]\n"
        ),
    );
    write(
        "profiles.d/phone.toml",
        "open = [\"tcp/443\"]\nmethods = [\"plain\"]\ninsecure = true\n[plain]\nports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]\n",
    );
    let [old, new] = tablet().map(|keys| keys.public());
    write(
        "profiles.d/tablet.toml",
        &format!(
            "public_key = \"{new}\"\nopen = [\"tcp/22\"]\nexpires = \"2026-01-01T00:01:00Z\"\n\
             [[previous]]\npublic_key = \"{old}\"\nuntil = \"2026-01-01T00:00:20Z\"\n"
        ),
    );
    for entry in fs::read_dir(certificates::folder()).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "pem") {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

// --- the recordings ----------------------------------------------------------------------------------------------

/// A plaintext of 64 bytes that asks for everything (knockd-rs-protocol(7)).
pub(crate) fn plaintext(counter: u64) -> [u8; 64] {
    let mut plain = [0; 64];
    plain[0] = 1;
    plain[2..10].copy_from_slice(&counter.to_be_bytes());
    plain
}

/// Seals any plaintext, the wrong ones too.
pub(crate) fn sealed(own: &KeyPair, psk: &Secret<32>, ephemeral: u8, plain: &[u8]) -> Vec<u8> {
    let known_by = pseudonym(&server().public(), &gate(), &own.public(), psk);
    sealed_in_the_name_of(&known_by, own, psk, ephemeral, plain)
}

/// The same, by somebody who holds the gate key and has seen a packet of that client.
fn sealed_in_the_name_of(
    known_by: &Pseudonym,
    own: &KeyPair,
    psk: &Secret<32>,
    ephemeral: u8,
    plain: &[u8],
) -> Vec<u8> {
    let ephemeral = KeyPair::from_seed([ephemeral; 32]);
    let message = noise::write(spa::PROLOGUE, own, &server().public(), psk, &ephemeral, plain).unwrap();
    let gate = Gate::new(&server().public(), &gate());
    let tag: [u8; 16] = *message.last_chunk().unwrap();
    let masked = gate.mask(&tag, message.first_chunk().unwrap());
    let body = [&masked[..], &message[32..]].concat();
    [&body[..], &gate.mac1(known_by, &body)].concat()
}

/// Frames that hold no segment, and segments that no method would send.
pub(crate) fn frames() -> Recording {
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
const REQUESTS: [(&str, Change); 14] = [
    ("refused fields version", |plain| plain[0] = 2),
    ("refused fields flags", |plain| plain[1] = 0x80),
    ("refused fields query", |plain| plain[1] = 3),
    ("refused fields session-flags", |plain| plain[11] = 0x80),
    ("refused fields connections", |plain| plain[10] = 1),
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
pub(crate) fn spa_knocks() -> Recording {
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
    let known_by = pseudonym(&server().public(), &gate(), &own.public(), &psk);
    let of_stranger = sealed_in_the_name_of(&known_by, &stranger, &none, 8, &plaintext(recording.nanos()));
    recording.after(1).datagram("dropped client unknown-client", STRANGER, PORT, &of_stranger);
    let at_once = sealed(&own, &psk, 4, &plaintext(recording.nanos()));
    recording.after(1).datagram("dropped budget budget", CLIENT, PORT, &at_once);
    let other_psk = sealed_in_the_name_of(&known_by, &own, &none, 5, &plaintext(recording.nanos()));
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

/// Keys that are replaced after 20 seconds, and a profile that is over after a minute.
fn times_of_a_profile() -> Recording {
    let ([old, new], none) = (tablet(), Secret::new([0; 32]));
    let mut recording = Recording::ethernet();
    let mut knock = |number, keys: &KeyPair, expected| {
        let plain = plaintext(recording.nanos());
        recording.datagram(expected, CLIENT, PORT, &sealed(keys, &none, number, &plain));
        recording.after(15_000);
    };
    knock(1, &old, "granted done granted");
    knock(2, &new, "granted done granted");
    knock(3, &old, "refused policy rotated");
    knock(4, &new, "granted done granted");
    knock(5, &new, "refused policy expired");
    knock(6, &old, "refused policy rotated");
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

pub(crate) const STRICT: &str = "[limits]\nhandshakes_per_source = 1\n";

/// A sequence that carries a request, as `sequence-vector.py` composed it; and the same again.
fn sequences() -> Recording {
    let vector: serde_json::Value =
        serde_json::from_str(include_str!("../data/sequence-vector.json")).unwrap();
    let ports =
        vector["ports"].as_array().unwrap().iter().map(|port| u16::try_from(port.as_u64().unwrap()).unwrap());
    let mut recording = Recording::ethernet();
    for round in 0..2 {
        for (place, port) in ports.clone().enumerate() {
            let expected = match (round, place) {
                (0, 17) => "granted done granted",
                _ => "noted sequence partial",
            };
            recording.after(40).packet(expected, CLIENT, TCP, &syn(port, 1, 1));
        }
    }
    recording
}

/// Every recording, with its file's name and the settings of its server.
pub(crate) fn recordings() -> Vec<(&'static str, String, Recording)> {
    let strict = || STRICT.to_owned();
    let mut recordings = vec![
        ("frames", strict(), frames()),
        ("spa", strict(), spa_knocks()),
        ("profile-times", strict(), times_of_a_profile()),
        ("clock-in-doubt", "[freshness]\nclock = \"untrusted\"\n".to_owned(), clock_in_doubt()),
        ("syn", strict(), syn_knocks()),
        ("plain", strict(), plain_sequences()),
        ("totp", strict(), totp_sequences()),
        ("sequence", strict(), sequences()),
        ("cert", certificates::settings("crl.pem"), cert_knocks()),
    ];
    for (name, lists, expected) in [
        ("crl-missing", "stranger-crl.pem", "refused certificate crl-missing"),
        ("crl-expired", "expired-crl.pem", "refused certificate crl-expired"),
        ("crl-forged", "forged-crl.pem", "refused certificate crl-forged"),
        ("crl-rolled-back", "older-crl.pem", "refused certificate crl-rolled-back"),
    ] {
        recordings.push((name, certificates::settings(lists), without_a_good_list(expected)));
    }
    recordings
}
