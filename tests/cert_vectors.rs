//! The knock with a certificate against bytes that were made elsewhere: a published Noise vector, a packet computed
//! with OpenSSL, and `snow`, an independent implementation of Noise, both ways.
#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::net::IpAddr;
use std::time::Duration;

use knockd_rs::client::cert::Identity;
use knockd_rs::crypto::noise::nk::{Initiator, Responder};
use knockd_rs::crypto::{Gate, KeyPair, PublicKey, Secret};
use knockd_rs::frame::{Body, Segment};
use knockd_rs::grant::{Session, Uses};
use knockd_rs::knock::cert::{MAX_LEN, OVERHEAD, PROLOGUE, Table, Trust, seal};
use knockd_rs::knock::{Ask, Freshness, Listener, Op, Outcome, Rates, Target, Wanted};
use knockd_rs::text::Span;
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use knockd_rs::x509::chain::{Authorities, Numbers};
use knockd_rs::x509::select::Selector;

const NAME: &str = "Noise_NK_25519_AESGCM_SHA256";

/// The values of one data file, all of them text.
struct Vector(serde_json::Value);

impl Vector {
    fn noise() -> Self {
        Self(serde_json::from_str(include_str!("data/noise-nk.json")).unwrap())
    }

    fn cert() -> Self {
        Self(serde_json::from_str(include_str!("data/cert-vector.json")).unwrap())
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("no {name}"))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let text = self.text(name);
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn key(&self, name: &str) -> [u8; 32] {
        self.bytes(name).try_into().unwrap()
    }

    fn pair(&self, name: &str) -> KeyPair {
        KeyPair::from_seed(self.key(name))
    }

    fn gate(&self) -> Gate {
        Gate::of_certificates(&PublicKey(self.key("server_public")), &Secret::new(self.key("gate_key")))
    }

    fn counter(&self) -> Timestamp {
        Timestamp::from_nanos(self.text("counter").parse().unwrap())
    }

    fn listener(&self) -> Listener {
        let (authorities, complaints) = Authorities::new(
            &[self.bytes("ca_certificate")],
            &[self.bytes("crl")],
            &Numbers::new(),
            Duration::ZERO,
        );
        assert_eq!(complaints, [""; 0]);
        let tables = vec![Table { selector: Selector::default(), freshness: Freshness::default() }];
        let trust = Trust { authorities, leaves: Vec::new(), tables };
        let listener = Listener::new(Rates::default(), [0; 16], Timestamp::from_secs(1_700_000_000));
        listener.with_certificates(self.pair("server_private"), &Secret::new(self.key("gate_key")), trust)
    }

    fn receive(&self, packet: &[u8]) -> (Outcome, Listener) {
        let address = |last| IpAddr::from([198, 51, 100, last]);
        let (source, destination) = (address(9), address(1));
        let segment = Segment { source, destination, port: 62201, body: Body::Datagram(packet) };
        let now =
            Now { wall: self.counter(), uptime: Duration::from_secs(60), trust: ClockTrust::Synchronised };
        let mut listener = self.listener();
        (listener.receive(&segment, now), listener)
    }
}

/// What the packet of `cert-vector.json` asks for, as the file says in words.
fn vector_ask() -> Ask {
    Ask {
        op: Op::Open,
        target: Target::Address("192.0.2.7".parse().unwrap()),
        uses: Some(Uses::Once),
        session: Session::default(),
        wide: false,
        duration: Some(Span::from_secs(3600)),
        ports: Wanted::Ports(vec!["tcp/22".parse().unwrap()]),
    }
}

#[test]
fn the_initiator_writes_the_published_message_and_the_responder_reads_it() {
    let vector = Vector::noise();
    assert_eq!(vector.text("protocol_name"), NAME);
    let server = PublicKey(vector.key("resp_static_public"));
    let initiator =
        Initiator::new(&vector.bytes("prologue"), &server, &vector.pair("init_ephemeral")).unwrap();
    let binding = initiator.binding();
    let message = initiator.seal(&vector.bytes("payload")).unwrap();
    assert_eq!(message, vector.bytes("ciphertext"));
    let responder = Responder::new(&vector.bytes("prologue"), vector.pair("resp_static"));
    let (ephemeral, sealed) = message.split_first_chunk().unwrap();
    let (bound, payload) = responder.open(ephemeral, sealed).unwrap();
    assert_eq!((bound, payload.to_vec()), (binding, vector.bytes("payload")));
}

#[test]
fn the_published_packet_is_sealed_byte_by_byte() {
    let vector = Vector::cert();
    // PKCS#8 of an Ed25519 seed (RFC 8410, section 7).
    let mut key = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    key.extend(vector.bytes("client_private"));
    let identity = Identity::new(&key, &[vector.bytes("certificate")]).unwrap();
    let sealed = seal(
        &vector_ask(),
        vector.counter(),
        &PublicKey(vector.key("server_public")),
        &Secret::new(vector.key("gate_key")),
        &vector.bytes("certificate"),
        &identity,
        Secret::new(vector.key("ephemeral_private")),
    )
    .unwrap();
    assert_eq!((sealed.packet, sealed.by_hash), (vector.bytes("packet"), false));
}

#[test]
fn the_published_packet_is_understood() {
    let vector = Vector::cert();
    let (outcome, listener) = vector.receive(&vector.bytes("packet"));
    let Outcome::Knock(knock) = outcome else { panic!("{outcome:?}") };
    assert_eq!((knock.ask, knock.counter), (vector_ask(), vector.counter()));
    let shown = listener.shown().unwrap();
    assert_eq!((shown.subject.as_str(), shown.scope.allowances.len()), ("O=Example, CN=alice", 1));
}

#[test]
fn the_published_intermediate_values_lead_from_the_body_to_the_packet() {
    let vector = Vector::cert();
    let (server, ephemeral) = (vector.pair("server_private").public(), vector.pair("ephemeral_private"));
    assert_eq!(server.0, vector.key("server_public"));
    assert_eq!(ephemeral.public().0, vector.key("ephemeral_public"));
    let initiator = Initiator::new(PROLOGUE, &server, &ephemeral).unwrap();
    assert_eq!(initiator.binding(), vector.key("binding"));
    let message = initiator.seal(&vector.bytes("body")).unwrap();
    assert_eq!(vector.gate().wrap(message), vector.bytes("packet"));
}

#[test]
fn a_body_that_snow_sealed_is_a_knock() {
    let vector = Vector::cert();
    let server = vector.key("server_public");
    let builder = snow::Builder::new(NAME.parse().unwrap()).prologue(PROLOGUE).unwrap();
    // The signature covers the ephemeral key, so it has to be the vector's.
    let ephemeral = vector.key("ephemeral_private");
    let builder =
        builder.remote_public_key(&server).unwrap().fixed_ephemeral_key_for_testing_only(&ephemeral);
    let mut snow = builder.build_initiator().unwrap();
    let mut message = vec![0; 2000];
    let written = snow.write_message(&vector.bytes("body"), &mut message).unwrap();
    message.truncate(written);
    let (outcome, _) = vector.receive(&vector.gate().wrap(message));
    assert!(matches!(outcome, Outcome::Knock(_)), "{outcome:?}");
}

#[test]
fn a_knock_is_a_message_that_snow_reads_at_every_length() {
    let vector = Vector::cert();
    let (server, ephemeral) = (vector.pair("server_private"), KeyPair::from_seed([0xa7; 32]));
    for len in [112, MAX_LEN - OVERHEAD] {
        let body = vec![0x5a; len];
        let initiator = Initiator::new(PROLOGUE, &server.public(), &ephemeral).unwrap();
        let message = initiator.seal(&body).unwrap();
        let builder = snow::Builder::new(NAME.parse().unwrap()).prologue(PROLOGUE).unwrap();
        let mut snow =
            builder.local_private_key(server.secret().expose()).unwrap().build_responder().unwrap();
        let mut plain = vec![0; 2000];
        let read = snow.read_message(&message, &mut plain).unwrap();
        assert_eq!(plain[..read], body);
    }
}
