//! What a knock with a certificate costs the client that signs it and the worker that takes it apart. One core, no
//! I/O; the certificates are made by the real `openssl`.
//!
//! `cargo bench --bench cert`
#![expect(clippy::unwrap_used, reason = "a benchmark without its certificates measures nothing")]

mod measure;
#[path = "../common/pki.rs"]
mod pki;

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use knockd_rs::client::cert::Identity;
use knockd_rs::clock;
use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Body, Segment};
use knockd_rs::grant::Uses;
use knockd_rs::knock::cert::{Table, Trust, seal};
use knockd_rs::knock::spa::{ClientKeys, QUANTUM};
use knockd_rs::knock::{Ask, Freshness, Listener, Outcome, Rates};
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use knockd_rs::x509::chain::{Authorities, Numbers};
use knockd_rs::x509::select::Selector;
use knockd_rs::x509::{certificates, keystore, revocation_lists};

use measure::each;

const KNOCKS: u64 = 2_000;
const JUNK: u32 = 1_000_000;

fn main() {
    println!("\nWhat a knock with a certificate costs, one core");
    let dir = tempfile::tempdir().unwrap();
    let ca = pki::Authority::new(dir.path(), "Root");
    let der = certificates(&fs::read(ca.certificate()).unwrap());
    let lists = revocation_lists(ca.crl().as_bytes());
    for kind in ["ed25519", "p256", "rsa2048"] {
        let issued = ca.issue(kind, kind, pki::CLIENT);
        // A certificate is valid from the moment at which it was issued.
        let start = clock::wall();
        let now = Now { wall: start, uptime: Duration::from_secs(1_000), trust: ClockTrust::Synchronised };
        let certificate = certificates(&fs::read(&issued.certificate).unwrap()).remove(0);
        let key = keystore::read_key(&fs::read(&issued.key).unwrap(), || {
            Err::<_, keystore::KeyError>(keystore::KeyError::NoKey)
        });
        let identity = Identity::new(&key.unwrap(), std::slice::from_ref(&certificate)).unwrap();
        let mut packets = Vec::new();
        each(&format!("{kind}: the client signs and seals"), 0..KNOCKS, |place| {
            packets.push(packet(&certificate, &identity, start, place));
        });
        each(&format!("{kind}: accepted, the chain verified anew"), 0..200_usize, |place| {
            let outcome = listener(&der, &lists).receive(&segment(packets.get(place).unwrap()), now);
            assert!(matches!(black_box(outcome), Outcome::Knock(_)));
        });
        let mut listener = listener(&der, &lists);
        each(&format!("{kind}: accepted, the chain in the cache"), &packets, |packet| {
            let Outcome::Knock(knock) = listener.receive(&segment(packet), now) else {
                unreachable!("every knock is good")
            };
            listener.spend(&knock);
        });
        let mut junk = packets.first().cloned().unwrap();
        each(
            &format!("{kind}: a stranger's packet of {} bytes: both mac1 are wrong", junk.len()),
            0..JUNK,
            |number| {
                junk.splice(32..36, number.to_be_bytes());
                assert!(matches!(listener.receive(&segment(&junk), now), Outcome::Dropped(_)));
            },
        );
    }
}

fn listener(authorities: &[Vec<u8>], lists: &[Vec<u8>]) -> Listener {
    let rate = NonZeroU32::new(1_000_000_000).unwrap();
    let (authorities, _) = Authorities::new(authorities, lists, &Numbers::new(), Duration::ZERO);
    let tables = vec![Table { selector: Selector::default(), freshness: Freshness::default() }];
    let client = ClientKeys {
        public: KeyPair::from_seed([1; 32]).public(),
        psk: Secret::new([3; 32]),
        freshness: Freshness::default(),
    };
    let gate = Secret::new([4; 32]);
    // With spa as well: a packet meets both.
    Listener::new(Rates { all: rate, source: rate }, [5; 16], Timestamp::from_secs(0))
        .with_spa(server(), &gate, [client])
        .with_certificates(server(), &gate, Trust { authorities, leaves: Vec::new(), tables })
}

fn server() -> KeyPair {
    KeyPair::from_seed([2; 32])
}

fn packet(certificate: &[u8], identity: &Identity, start: Timestamp, place: u64) -> Vec<u8> {
    let ask = Ask { uses: Some(Uses::Once), ..Ask::everything() };
    let counter = start.saturating_add(Duration::from_nanos(place * QUANTUM));
    let mut ephemeral = [6; 32];
    ephemeral.iter_mut().zip(place.to_be_bytes()).for_each(|(byte, own)| *byte = own);
    let (server, gate) = (server().public(), Secret::new([4; 32]));
    seal(&ask, counter, &server, &gate, certificate, identity, Secret::new(ephemeral)).unwrap().packet
}

fn segment(payload: &[u8]) -> Segment<'_> {
    let (source, destination) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(198, 51, 100, 1));
    Segment {
        source: IpAddr::V4(source),
        destination: IpAddr::V4(destination),
        port: 62201,
        body: Body::Datagram(payload),
    }
}
