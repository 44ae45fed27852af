//! Knocks with certificates: those of `tests/data/certificates`, made by openssl, with fixed keys and dates.

use std::fs;
use std::path::{Path, PathBuf};

use knockd_rs::client::cert::Identity;
use knockd_rs::crypto::noise::nk::{Initiator, Responder};
use knockd_rs::crypto::{Gate, KeyPair, Secret};
use knockd_rs::grant::{Session, Uses};
use knockd_rs::knock::cert::{PROLOGUE, seal};
use knockd_rs::knock::{Ask, Op, Target, Wanted};
use knockd_rs::state::numbers;
use knockd_rs::time::Timestamp;
use knockd_rs::x509::chain::{Authorities, Numbers};
use knockd_rs::x509::{certificates, keystore, revocation_lists};

use crate::packets::recording::{CLIENT, Recording};
use crate::recordings::{PORT, gate, seed, server};

/// Where the certificates are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/certificates")
}

/// What the settings say about certificates, with these lists.
pub(crate) fn settings(lists: &str) -> String {
    let open: Vec<String> = (10..26).map(|n| format!("\"tcp/{}-{}\"", 100 * n + 1, 100 * n + 90)).collect();
    format!(
        "[limits]\nhandshakes_per_source = 1\n[certificate_authority]\nca = \"ca.pem\"\ncrl = \"{lists}\"\n\
         [[certificates]]\nname = \"staff\"\nsubject = \"O=Example, CN=*\"\nopen = [\"tcp/22\"]\n\
         [[certificates]]\nname = \"pieces\"\nsubject = \"O=Pieces, CN=*\"\nopen = [{}]\n",
        open.join(", ")
    )
}

/// Remembers in this state directory that the newest list was in force.
pub(crate) fn remember_lists(dir: &Path) {
    let read = |name: &str| fs::read(folder().join(name)).unwrap();
    let (authorities, lists) = (certificates(&read("ca.pem")), revocation_lists(&read("crl.pem")));
    let (authorities, _) = Authorities::new(&authorities, &lists, &Numbers::new(), std::time::Duration::ZERO);
    let seen = authorities.numbers().map(|(id, number)| (id, number.to_vec())).collect();
    numbers::write(dir, &seen).unwrap();
}

fn certificate(name: &str) -> Vec<u8> {
    certificates(&fs::read(folder().join(format!("{name}.pem"))).unwrap()).remove(0)
}

/// A knock that shows one certificate, signed with the key of another or the same.
pub(crate) fn knock(shown: &str, signer: &str, recording: &Recording, ports: Wanted) -> Vec<u8> {
    let key = fs::read(folder().join(format!("{signer}.key"))).unwrap();
    let key = keystore::read_key(&key, || Err::<_, keystore::KeyError>(keystore::KeyError::NoKey)).unwrap();
    let signer = Identity::new(&key, &[certificate(signer)]).unwrap();
    let ask = Ask {
        op: Op::Open,
        target: Target::Source,
        uses: Some(Uses::Once),
        session: Session::default(),
        wide: false,
        duration: None,
        ports,
    };
    let counter = Timestamp::from_nanos(recording.nanos());
    let ephemeral = Secret::new(ephemeral(recording));
    seal(&ask, counter, &server().public(), &gate(), &certificate(shown), &signer, ephemeral).unwrap().packet
}

/// Another one for each time.
fn ephemeral(recording: &Recording) -> [u8; 32] {
    let mut bytes = seed(0xa0);
    bytes[..8].copy_from_slice(&recording.nanos().to_be_bytes());
    bytes
}

/// A good knock whose body was changed by somebody who knows the server's key, and sealed again.
fn changed(recording: &Recording, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let packet = knock("alice", "alice", recording, Wanted::Defaults);
    let envelope = Gate::of_certificates(&server().public(), &gate());
    let (message, _) = packet.split_last_chunk::<16>().unwrap();
    let (masked, sealed) = message.split_first_chunk().unwrap();
    let bytes = envelope.mask(sealed.last_chunk().unwrap(), masked);
    let mut body = Responder::new(PROLOGUE, server()).open(&bytes, sealed).unwrap().1.to_vec();
    change(&mut body);
    let ephemeral = KeyPair::from_seed(ephemeral(recording));
    let initiator = Initiator::new(PROLOGUE, &server().public(), &ephemeral).unwrap();
    envelope.wrap(initiator.seal(&body).unwrap())
}

/// Whose certificate is shown, and what comes of it.
const SHOWN: [(&str, &str); 12] = [
    ("alice", "granted done granted"),
    ("revoked", "refused certificate cert-revoked"),
    ("expired", "refused certificate cert-expired"),
    ("early", "refused certificate cert-early"),
    ("usage", "refused certificate cert-usage"),
    ("authority", "refused certificate cert-is-ca"),
    ("critical", "refused certificate cert-critical"),
    ("scope", "refused certificate cert-scope"),
    ("guest", "refused certificate cert-unmapped"),
    ("of-old", "refused certificate ca-expired"),
    ("of-fired", "refused certificate ca-revoked"),
    ("of-deep", "refused certificate cert-path"),
];

/// A knock with each certificate, what a stranger could send, and what only somebody with the server's key could.
pub(crate) fn cert_knocks() -> Recording {
    let mut recording = Recording::ethernet();
    for (name, expected) in SHOWN {
        let packet = knock(name, name, recording.after(11_000), Wanted::Defaults);
        recording.datagram(expected, CLIENT, PORT, &packet);
    }
    let stranger = knock("eve", "eve", recording.after(11_000), Wanted::Defaults);
    recording.datagram("dropped certificate issuer", CLIENT, PORT, &stranger);
    let borrowed = knock("alice", "guest", recording.after(11_000), Wanted::Defaults);
    recording.datagram("dropped certificate signature", CLIENT, PORT, &borrowed);
    let other_kind = knock("p521", "alice", recording.after(11_000), Wanted::Defaults);
    recording.datagram("dropped certificate certificate", CLIENT, PORT, &other_kind);
    let ports = Wanted::Ports(vec!["tcp/23".parse().unwrap()]);
    let elsewhere = knock("alice", "alice", recording.after(11_000), ports);
    recording.datagram("refused policy ports", CLIENT, PORT, &elsewhere);
    let elsewhere = knock("elsewhere", "elsewhere", recording.after(11_000), Wanted::Defaults);
    recording.datagram("refused policy cert-ports", CLIENT, PORT, &elsewhere);
    let pieces = knock("pieces", "pieces", recording.after(11_000), Wanted::Defaults);
    recording.datagram("refused policy scattered", CLIENT, PORT, &pieces);
    let nothing = changed(recording.after(11_000), |body| body.fill(0xff));
    recording.datagram("dropped certificate body", CLIENT, PORT, &nothing);
    // The server's mark, and the kind of what is shown with its length: knockd-rs-protocol(7).
    let other_server = changed(recording.after(11_000), |body| body[37] ^= 1);
    recording.datagram("dropped certificate other-server", CLIENT, PORT, &other_server);
    let by_hash = changed(recording.after(11_000), |body| {
        body.truncate(41);
        body.extend([&[2, 1, 0, 32][..], &[0x5a; 32], &[0, 64], &[0; 64]].concat());
        body.resize(body.len().next_multiple_of(16), 0);
    });
    recording.datagram("dropped certificate unknown-leaf", CLIENT, PORT, &by_hash);
    recording
}

/// One good knock, for a server whose lists are not as they should be.
pub(crate) fn without_a_good_list(expected: &'static str) -> Recording {
    let mut recording = Recording::ethernet();
    let packet = knock("alice", "alice", &recording, Wanted::Defaults);
    recording.datagram(expected, CLIENT, PORT, &packet);
    recording
}
