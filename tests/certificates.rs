//! Knocks with certificates, decoded: what opens, and each thing that can be wrong. Certificates and revocation lists
//! here are made by the real `openssl`, each test's in a directory of its own.
#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use knockd_rs::client::cert::Identity;
use knockd_rs::clock;
use knockd_rs::crypto::noise::nk::{Initiator, Responder};
use knockd_rs::crypto::{Gate, KeyPair, Secret};
use knockd_rs::frame::{Body, Segment};
use knockd_rs::grant::Uses;
use knockd_rs::knock::cert::{MAX_LEN, PROLOGUE, STEP, Sealed, Table, Trust, seal};
use knockd_rs::knock::spa::next_counter;
use knockd_rs::knock::{
    Ask, CertificateFault, Drop, Fault, Freshness, Knock, Listener, Method, Outcome, Rates,
};
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use knockd_rs::x509::chain::{Authorities, Numbers, Rejection};
use knockd_rs::x509::leaf::{Certificate, Leaf};
use knockd_rs::x509::scope::{Place, ScopeError};
use knockd_rs::x509::select::{KeyHash, Selector};
use knockd_rs::x509::{certificates, keystore, revocation_lists};

#[path = "common/pki.rs"]
mod pki;

use pki::{Authority, CLIENT, Issued};

const SERVER: [u8; 32] = [1; 32];
const GATE: Secret<32> = Secret::new([2; 32]);

fn wall() -> Timestamp {
    clock::wall()
}

fn now() -> Now {
    Now { wall: wall(), uptime: Duration::from_secs(5000), trust: ClockTrust::Synchronised }
}

fn ask() -> Ask {
    Ask { uses: Some(Uses::Once), ..Ask::everything() }
}

/// A directory, an authority in it, and what the server takes from both.
struct Office {
    dir: tempfile::TempDir,
    ca: Authority,
    lists: Vec<String>,
    seen: Numbers,
    grace: Duration,
    others: Vec<PathBuf>,
    leaves: Vec<Vec<u8>>,
    selectors: Vec<Selector>,
}

impl Office {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new(dir.path(), "Root");
        let lists = vec![ca.crl()];
        Self {
            dir,
            ca,
            lists,
            seen: Numbers::new(),
            grace: Duration::ZERO,
            others: Vec::new(),
            leaves: Vec::new(),
            selectors: vec![Selector::default()],
        }
    }

    fn authorities(&self) -> (Authorities, Vec<String>) {
        let files = [self.ca.certificate()].into_iter().chain(self.others.iter().cloned());
        let der: Vec<Vec<u8>> = files.flat_map(|path| certificates(&fs::read(path).unwrap())).collect();
        let lists: Vec<Vec<u8>> =
            self.lists.iter().flat_map(|list| revocation_lists(list.as_bytes())).collect();
        Authorities::new(&der, &lists, &self.seen, self.grace)
    }

    fn listener(&self) -> Listener {
        let table =
            |selector: &Selector| Table { selector: selector.clone(), freshness: Freshness::default() };
        let trust = Trust {
            authorities: self.authorities().0,
            leaves: self.leaves.clone(),
            tables: self.selectors.iter().map(table).collect(),
        };
        let listener = Listener::new(Rates::default(), [9; 16], Timestamp::from_secs(1_700_000_000));
        listener.with_certificates(KeyPair::from_seed(SERVER), &GATE, trust)
    }

    /// What becomes of a knock with this certificate.
    fn knock(&self, issued: &Issued) -> Outcome {
        receive(&mut self.listener(), &packet(issued), now())
    }

    /// The name of what is wrong with it, and the sentence.
    #[track_caller]
    fn refused(&self, issued: &Issued) -> (&'static str, String) {
        match self.knock(issued) {
            Outcome::Refused { fault, .. } => (fault.name(), fault.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

fn der(issued: &Issued) -> Vec<u8> {
    certificates(&fs::read(&issued.certificate).unwrap()).remove(0)
}

fn identity(issued: &Issued) -> Identity {
    let key = fs::read(&issued.key).unwrap();
    let key = keystore::read_key(&key, || Err::<_, keystore::KeyError>(keystore::KeyError::NoKey)).unwrap();
    Identity::new(&key, &[der(issued)]).unwrap()
}

fn sealed_for(server: [u8; 32], issued: &Issued) -> Sealed {
    let counter = next_counter(wall(), None);
    let server = KeyPair::from_seed(server).public();
    let mut random = [0; 32];
    getrandom::fill(&mut random).unwrap();
    seal(&ask(), counter, &server, &GATE, &der(issued), &identity(issued), Secret::new(random)).unwrap()
}

fn packet(issued: &Issued) -> Vec<u8> {
    sealed_for(SERVER, issued).packet
}

fn receive(listener: &mut Listener, packet: &[u8], now: Now) -> Outcome {
    let segment = Segment {
        source: "192.0.2.7".parse().unwrap(),
        destination: "192.0.2.1".parse().unwrap(),
        port: 62201,
        body: Body::Datagram(packet),
    };
    listener.receive(&segment, now)
}

/// The body of a packet, laid open with the server's key as only the server can.
fn open(server: [u8; 32], packet: &[u8]) -> Vec<u8> {
    let keys = KeyPair::from_seed(server);
    let (message, _) = packet.split_last_chunk::<16>().unwrap();
    let (masked, sealed) = message.split_first_chunk().unwrap();
    let ephemeral = Gate::of_certificates(&keys.public(), &GATE).mask(sealed.last_chunk().unwrap(), masked);
    Responder::new(PROLOGUE, keys).open(&ephemeral, sealed).unwrap().1.to_vec()
}

/// A body sealed to the server by whoever knows the gate key.
fn reseal(body: &[u8]) -> Vec<u8> {
    let (server, ephemeral) = (KeyPair::from_seed(SERVER).public(), KeyPair::from_seed([77; 32]));
    let message = Initiator::new(PROLOGUE, &server, &ephemeral).unwrap().seal(body).unwrap();
    Gate::of_certificates(&server, &GATE).wrap(message)
}

#[test]
fn every_kind_of_key_knocks_in_one_datagram_or_by_its_hash() {
    let mut office = Office::new();
    for (kind, by_hash) in
        [("ed25519", false), ("p256", false), ("p384", false), ("rsa2048", false), ("rsa4096", true)]
    {
        let issued = office.ca.issue(kind, kind, CLIENT);
        let sealed = sealed_for(SERVER, &issued);
        assert_eq!(sealed.by_hash, by_hash, "{kind}");
        assert!(sealed.packet.len() <= MAX_LEN && sealed.packet.len() % STEP == 0, "{kind}");
        if by_hash {
            let outcome = receive(&mut office.listener(), &sealed.packet, now());
            assert_eq!(outcome, Outcome::Dropped(Drop::UnknownLeaf));
            office.leaves = vec![der(&issued)];
        }
        let mut listener = office.listener();
        let outcome = receive(&mut listener, &sealed.packet, now());
        let Outcome::Knock(Knock { ask: asked, method, .. }) = outcome else { panic!("{kind}: {outcome:?}") };
        assert_eq!((asked, method), (ask(), Method::Cert));
        assert_eq!(listener.shown().unwrap().subject, format!("O=Example, CN={kind}"));
        // The second knock finds the chain in the cache.
        assert!(matches!(receive(&mut listener, &packet(&issued), now()), Outcome::Knock(_)), "{kind}");
    }
}

#[test]
fn a_key_of_another_kind_is_a_strangers() {
    let office = Office::new();
    let (p521, p256) = (office.ca.issue("p521", "p521", CLIENT), office.ca.issue("p256", "p256", CLIENT));
    let signer = identity(&p256);
    let counter = next_counter(wall(), None);
    let server = KeyPair::from_seed(SERVER).public();
    let sealed = seal(&ask(), counter, &server, &GATE, &der(&p521), &signer, Secret::new([4; 32])).unwrap();
    assert_eq!(receive(&mut office.listener(), &sealed.packet, now()), Outcome::Dropped(Drop::Certificate));
}

#[test]
fn a_certificate_that_its_authority_revoked_is_refused_with_its_subject() {
    let mut office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)));
    office.ca.revoke(&issued);
    office.lists = vec![office.ca.crl()];
    let (name, sentence) = office.refused(&issued);
    assert_eq!(name, "cert-revoked");
    assert!(sentence.starts_with("the certificate of O=Example, CN=alice is refused: "), "{sentence}");
}

#[test]
fn a_certificate_counts_between_its_dates_only() {
    let office = Office::new();
    let past = office.ca.issue_between("past", "p256", CLIENT, ("20200101000000Z", "20210101000000Z"));
    let future = office.ca.issue_between("future", "p256", CLIENT, ("20400101000000Z", "20450101000000Z"));
    assert_eq!([office.refused(&past).0, office.refused(&future).0], ["cert-expired", "cert-early"]);
}

#[test]
fn only_certificates_for_clients_knock() {
    let office = Office::new();
    let refused =
        |name: &str, extensions: &str| office.refused(&office.ca.issue(name, "ed25519", extensions)).0;
    assert_eq!(
        refused("server", "basicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n"),
        "cert-usage"
    );
    assert_eq!(refused("none", "basicConstraints = CA:FALSE\n"), "cert-usage");
    let any = "basicConstraints = CA:FALSE\nextendedKeyUsage = anyExtendedKeyUsage\n";
    assert_eq!(refused("any", any), "cert-usage");
    let authority = "basicConstraints = critical, CA:TRUE\nextendedKeyUsage = clientAuth\n";
    assert_eq!(refused("authority", authority), "cert-is-ca");
    let critical = format!("{CLIENT}1.2.3.4 = critical, ASN1:NULL\n");
    assert_eq!(refused("critical", &critical), "cert-critical");
    let scope = format!("{CLIENT}subjectAltName = URI:knock:tcp/none\n");
    assert_eq!(refused("scope", &scope), "cert-scope");
}

#[test]
fn a_strangers_certificate_is_let_go_of_in_silence() {
    let office = Office::new();
    let other = Authority::new(office.dir.path(), "Other");
    let same_name = Authority::named(office.dir.path(), "forger", "Root");
    for ca in [&other, &same_name] {
        assert_eq!(office.knock(&ca.issue("eve", "p256", CLIENT)), Outcome::Dropped(Drop::Issuer));
    }
}

#[test]
fn a_signature_by_another_key_is_let_go_of_in_silence() {
    let office = Office::new();
    let (alice, eve) =
        (office.ca.issue("alice", "ed25519", CLIENT), office.ca.issue("eve", "ed25519", CLIENT));
    let server = KeyPair::from_seed(SERVER).public();
    let counter = next_counter(wall(), None);
    let signer = identity(&eve);
    let sealed = seal(&ask(), counter, &server, &GATE, &der(&alice), &signer, Secret::new([4; 32])).unwrap();
    let mut listener = office.listener();
    assert_eq!(receive(&mut listener, &sealed.packet, now()), Outcome::Dropped(Drop::Signature));
    assert!(matches!(receive(&mut listener, &packet(&alice), now()), Outcome::Knock(_)));
    let sealed = seal(&ask(), counter, &server, &GATE, &der(&alice), &signer, Secret::new([5; 32])).unwrap();
    let outcome = receive(&mut listener, &sealed.packet, now());
    assert_eq!(outcome, Outcome::Dropped(Drop::Signature), "with the chain in the cache");
}

#[test]
fn what_another_server_opened_and_sealed_again_is_worth_nothing_here() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "p256", CLIENT);
    let mut body = open([55; 32], &sealed_for([55; 32], &issued).packet);
    assert_eq!(receive(&mut office.listener(), &reseal(&body), now()), Outcome::Dropped(Drop::OtherServer));
    // The mark alone protects nothing: the signature does.
    let own = open(SERVER, &packet(&issued));
    body[37..41].copy_from_slice(&own[37..41]);
    assert_eq!(receive(&mut office.listener(), &reseal(&body), now()), Outcome::Dropped(Drop::Signature));
    let outcome = receive(&mut office.listener(), &reseal(&own), now());
    assert_eq!(outcome, Outcome::Dropped(Drop::Signature), "not even in another packet to this server");
}

#[test]
fn a_knock_counts_once() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let (mut listener, packet) = (office.listener(), packet(&issued));
    let Outcome::Knock(knock) = receive(&mut listener, &packet, now()) else { panic!() };
    listener.spend(&knock);
    assert_eq!(receive(&mut listener, &packet, now()), Outcome::Dropped(Drop::Repeat));
    // After a restart the ring is empty and the mark is there.
    let mut restarted = office.listener();
    restarted.seed(listener.marks());
    let outcome = receive(&mut restarted, &packet, now());
    assert!(matches!(outcome, Outcome::Refused { fault: Fault::Replayed { .. }, .. }), "{outcome:?}");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let office = Office::new();
    let packet = packet(&office.ca.issue("alice", "ed25519", CLIENT));
    let mut listener = office.listener();
    for bit in 0..8 * packet.len() {
        let mut changed = packet.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(receive(&mut listener, &changed, now()), Outcome::Dropped(Drop::Mac));
    }
}

#[test]
fn every_flipped_bit_inside_is_noticed_too() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let body = open(SERVER, &packet(&issued));
    for bit in 0..8 * body.len() {
        let mut changed = body.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let outcome = receive(&mut office.listener(), &reseal(&changed), now());
        assert!(matches!(outcome, Outcome::Dropped(_)), "bit {bit}: {outcome:?}");
    }
}

#[test]
fn without_a_good_revocation_list_nobody_knocks() {
    let mut office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    office.lists.clear();
    assert_eq!(office.refused(&issued).0, "crl-missing");
    office.lists = vec![Authority::named(office.dir.path(), "forger", "Root").crl()];
    assert_eq!(office.refused(&issued).0, "crl-forged");
    office.lists = vec![office.ca.crl_between("20200101000000Z", "20200201000000Z")];
    assert_eq!(office.refused(&issued).0, "crl-expired");
    office.grace = Duration::from_secs(100 * 365 * 86_400);
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)), "the grace");
    let (kinds, _): (Vec<_>, Vec<_>) = office.authorities().0.troubles(wall()).into_iter().unzip();
    assert_eq!(kinds.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), ["crl-late"]);
}

#[test]
fn of_two_lists_the_one_with_the_higher_number_counts_in_either_order() {
    let mut office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let old = office.ca.crl();
    office.ca.revoke(&issued);
    let new = office.ca.crl();
    for lists in [[&old, &new], [&new, &old]] {
        office.lists = lists.map(Clone::clone).into();
        assert_eq!(office.refused(&issued).0, "cert-revoked");
    }
    // A number with more digits is higher, whatever its first digit.
    office.ca.number_next("0100000000000000000001");
    let long = office.ca.crl();
    office.lists = vec![long, new];
    assert_eq!(office.refused(&issued).0, "cert-revoked");
    let highest = office.authorities().0.numbers().map(|(_, number)| number.len()).collect::<Vec<_>>();
    assert_eq!(highest, [11]);
}

#[test]
fn a_list_with_a_lower_number_than_one_before_is_refused() {
    let mut office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let old = office.ca.crl();
    office.lists = vec![office.ca.crl()];
    office.seen = office.authorities().0.numbers().map(|(id, number)| (id, number.to_vec())).collect();
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)), "the same list again is no step back");
    office.lists = vec![old];
    assert_eq!(office.refused(&issued).0, "crl-rolled-back");
}

#[test]
fn an_authority_between_needs_lists_of_both() {
    let mut office = Office::new();
    let between = office.ca.below("Between");
    let issued = between.issue("alice", "p256", CLIENT);
    office.others = vec![between.certificate()];
    assert_eq!(office.refused(&issued).0, "crl-missing");
    office.lists.push(between.crl());
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)));
    office.ca.revoke(&Issued { certificate: between.certificate(), key: PathBuf::new() });
    office.lists[0] = office.ca.crl();
    assert_eq!(office.refused(&issued).0, "ca-revoked");
}

#[test]
fn without_a_root_that_can_be_used_nobody_below_it_is_trusted() {
    let mut office = Office::new();
    let between = office.ca.below("Between");
    let issued = between.issue("alice", "p256", CLIENT);
    office.ca.revoke(&Issued { certificate: between.certificate(), key: PathBuf::new() });
    office.lists = vec![office.ca.crl(), between.crl()];
    office.others = vec![between.certificate()];
    assert_eq!(office.refused(&issued).0, "ca-revoked");
    // One byte of the root's file is another.
    let good = fs::read_to_string(office.ca.certificate()).unwrap();
    for damage in [good.replacen("MII", "!II", 1), good.replacen("-----END", "----END", 1)] {
        fs::write(office.ca.certificate(), damage).unwrap();
        assert_eq!(office.knock(&issued), Outcome::Dropped(Drop::Issuer));
        let complaints = office.authorities().1;
        assert!(complaints[0].contains("no certificate is accepted"), "{complaints:?}");
    }
}

#[test]
fn a_root_whose_signatures_cannot_be_checked_makes_what_it_certified_no_root() {
    let mut office = Office::new();
    // Of the same name, so that the one between is said to be its.
    let other = Authority::named(office.dir.path(), "other", "Root");
    let between = other.below("Between");
    office.others = vec![between.certificate()];
    office.lists.push(between.crl());
    assert_eq!(office.knock(&between.issue("alice", "p256", CLIENT)), Outcome::Dropped(Drop::Issuer));
    let complaints = office.authorities().1;
    assert!(complaints[0].contains("that has not signed it"), "{complaints:?}");
}

#[test]
fn two_authorities_of_one_name_are_each_judged_by_their_own_list() {
    let mut office = Office::new();
    let new = Authority::named(office.dir.path(), "rollover", "Root");
    let issued = [office.ca.issue("alice", "p256", CLIENT), new.issue("bob", "p256", CLIENT)];
    let revoked = new.issue("eve", "p256", CLIENT);
    new.revoke(&revoked);
    office.others = vec![new.certificate()];
    office.lists.push(new.crl());
    for _ in 0..10 {
        assert!(issued.iter().all(|issued| matches!(office.knock(issued), Outcome::Knock(_))));
        assert_eq!(office.refused(&revoked).0, "cert-revoked");
    }
}

#[test]
fn a_clock_that_nobody_vouches_for_is_as_late_as_a_list_at_least() {
    let office = Office::new();
    let past = office.ca.issue_between("past", "ed25519", CLIENT, ("20200101000000Z", "20250101000000Z"));
    let before = Timestamp::from_secs(1_720_000_000);
    let story = [(ClockTrust::Synchronised, "cert"), (ClockTrust::Unsynchronised, "cert-expired")];
    for (trust, expected) in story {
        let now = Now { wall: before, trust, ..now() };
        let outcome = receive(&mut office.listener(), &packet(&past), now);
        let Outcome::Refused { fault, .. } = outcome else { panic!("{outcome:?}") };
        if trust == ClockTrust::Unsynchronised {
            assert_eq!(fault.name(), expected);
        } else {
            assert_ne!(fault.name(), "cert-expired", "a clock that is believed is believed");
        }
    }
}

#[test]
fn an_authority_between_is_trusted_where_it_stands_alone() {
    let mut office = Office::new();
    let between = office.ca.below("Between");
    let issued = between.issue("alice", "p256", CLIENT);
    office.ca = between;
    office.lists = vec![office.ca.crl()];
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)));
}

#[test]
fn the_first_rule_that_is_for_a_certificate_decides() {
    let mut office = Office::new();
    let san = "subjectAltName = URI:spiffe://example.org/staff/alice, URI:knock:tcp/22?max=60\n";
    let issued = office.ca.issue("alice", "ed25519", &format!("{CLIENT}{san}"));
    let uri = |text: &str| Selector { uri: Some(text.parse().unwrap()), ..Selector::default() };
    let name = |text: &str| Selector { subject: Some(text.parse().unwrap()), ..Selector::default() };
    office.selectors = vec![uri("spiffe://example.org/guests/*"), name("CN=alice")];
    assert_eq!(office.refused(&issued).0, "cert-unmapped");
    office.selectors.extend([uri("spiffe://example.org/staff/*"), name("O=Example, CN=*")]);
    let mut listener = office.listener();
    assert!(matches!(receive(&mut listener, &packet(&issued), now()), Outcome::Knock(_)));
    let shown = listener.shown().unwrap();
    assert_eq!((shown.table, shown.scope.allowances.len()), (Some(2), 1));
    let key = Leaf::read(&Certificate::parse(&der(&issued)).unwrap()).unwrap().key_sha256;
    office.selectors = vec![Selector { key: Some(KeyHash(key)), ..Selector::default() }];
    assert!(matches!(office.knock(&issued), Outcome::Knock(_)));
}

#[test]
fn the_names_of_sknock_are_read_from_a_certificate() {
    let office = Office::new();
    let san = "subjectAltName = @names\n[names]\notherName.1 = 1.3.6.1.4.1.19518;UTF8:1.2000,0.8000\n";
    let issued = office.ca.issue("alice", "p256", &format!("{CLIENT}{san}"));
    let leaf = Leaf::read(&Certificate::parse(&der(&issued)).unwrap()).unwrap();
    let scope = leaf.scope.unwrap();
    let places: Vec<Place> = scope.allowances.into_iter().map(|allowance| allowance.place).collect();
    assert_eq!(places, ["tcp/2000", "udp/8000"].map(|ports| Place::Ports(ports.parse().unwrap())));
}

#[test]
fn a_chain_is_forgotten_when_its_list_passes_its_date() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let mut listener = office.listener();
    assert!(matches!(receive(&mut listener, &packet(&issued), now()), Outcome::Knock(_)));
    let later = Now { wall: wall().saturating_add(Duration::from_secs(29 * 86_400)), ..now() };
    let outcome = receive(&mut listener, &packet(&issued), later);
    assert!(matches!(outcome, Outcome::Refused { fault: Fault::Stale { .. }, .. }), "{outcome:?}");
    let later = Now { wall: wall().saturating_add(Duration::from_secs(31 * 86_400)), ..now() };
    let outcome = receive(&mut listener, &packet(&issued), later);
    let Outcome::Refused { fault: Fault::Certificate { why, .. }, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(*why, CertificateFault::Rejected(Rejection::Expired { .. })), "{why:?}");
}

#[test]
fn what_is_no_body_is_let_go_of() {
    let office = Office::new();
    for body in [vec![0; 112], vec![0xff; 112], vec![0x30; 1168], (0..112).collect()] {
        let outcome = receive(&mut office.listener(), &reseal(&body), now());
        assert!(matches!(outcome, Outcome::Dropped(Drop::Body | Drop::OtherServer)), "{outcome:?}");
    }
}

#[test]
fn a_limit_that_cannot_be_read_is_told_as_written() {
    let error = ScopeError::Text("knock:tcp/none".into());
    let why = Box::new(CertificateFault::Scope(error));
    let fault = Fault::Certificate { subject: "CN=alice".into(), why };
    assert_eq!(
        fault.to_string(),
        "the certificate of CN=alice is refused: it names `knock:tcp/none`, which is none of knock:tcp/22, \
         knock:svc/ssh and the like; issue a new one"
    );
}
