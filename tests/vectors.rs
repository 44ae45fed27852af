//! The knock against bytes that were made elsewhere: a published Noise vector, a packet computed with OpenSSL,
//! and `snow`, an independent implementation of Noise, both ways.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::net::IpAddr;
use std::time::Duration;

use knockd_rs::crypto::noise::{self, Responder};
use knockd_rs::crypto::{Gate, KeyPair, PublicKey, Secret};
use knockd_rs::frame::{Body, Segment};
use knockd_rs::grant::{Session, Uses};
use knockd_rs::knock::sequence::{Ground, compose};
use knockd_rs::knock::spa::{ClientIdentity, ClientKeys, DEFAULT_PAYLOAD, MAX_PAYLOAD, PROLOGUE, seal};
use knockd_rs::knock::{Ask, Freshness, Knock, Listener, Op, Outcome, Rates, Target, Wanted};
use knockd_rs::text::Span;
use knockd_rs::time::{ClockTrust, Now, Timestamp};

const NAME: &str = "Noise_IKpsk1_25519_AESGCM_SHA256";

/// The values of one data file, all of them text.
struct Vector(serde_json::Value);

impl Vector {
    fn noise() -> Self {
        Self(serde_json::from_str(include_str!("data/noise-ikpsk1.json")).unwrap())
    }

    fn spa() -> Self {
        Self(serde_json::from_str(include_str!("data/spa-vector.json")).unwrap())
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

    fn secret(&self, name: &str) -> Secret<32> {
        Secret::new(self.key(name))
    }

    fn identity(&self) -> ClientIdentity {
        ClientIdentity {
            keys: self.pair("client_private"),
            psk: self.secret("psk"),
            server: PublicKey(self.key("server_public")),
            gate: self.secret("gate_key"),
        }
    }

    fn counter(&self) -> Timestamp {
        Timestamp::from_nanos(self.text("counter").parse().unwrap())
    }

    fn decoder(&self) -> Listener {
        let ClientIdentity { keys, psk, gate, .. } = self.identity();
        let client = ClientKeys { public: keys.public(), psk, freshness: Freshness::default() };
        let server = self.pair("server_private");
        Listener::new(Rates::default(), [0; 16], Timestamp::from_secs(1_700_000_000)).with_spa(
            server,
            &gate,
            [client],
        )
    }

    fn now(&self) -> Now {
        Now { wall: self.counter(), uptime: Duration::from_secs(60), trust: ClockTrust::Synchronised }
    }
}

/// What the packet of `spa-vector.json` asks for, as the file says in words.
fn vector_ask() -> Ask {
    Ask {
        op: Op::Open,
        target: Target::Address("192.0.2.7".parse().unwrap()),
        uses: Some(Uses::Once),
        session: Session::default(),
        wide: false,
        duration: Some(Span::from_secs(3600)),
        ports: Wanted::Ports(vec!["tcp/22".parse().unwrap(), "udp/60000-61000".parse().unwrap()]),
    }
}

fn segment(payload: &[u8]) -> Segment<'_> {
    let address = |last| IpAddr::from([198, 51, 100, last]);
    Segment { source: address(9), destination: address(1), port: 62201, body: Body::Datagram(payload) }
}

fn knock(outcome: Outcome) -> Knock {
    match outcome {
        Outcome::Knock(knock) => knock,
        other => panic!("{other:?}"),
    }
}

/// The published message, as its three parts.
fn parts(message: &[u8]) -> (&[u8; 32], &[u8; 48], &[u8]) {
    let (ephemeral, rest) = message.split_first_chunk().unwrap();
    let (sealed_key, sealed_payload) = rest.split_first_chunk().unwrap();
    (ephemeral, sealed_key, sealed_payload)
}

#[test]
fn the_initiator_writes_the_published_message() {
    let vector = Vector::noise();
    assert_eq!(vector.text("protocol_name"), NAME);
    let message = noise::write(
        &vector.bytes("prologue"),
        &vector.pair("init_static"),
        &PublicKey(vector.key("resp_static_public")),
        &vector.secret("psk"),
        &vector.pair("init_ephemeral"),
        &vector.bytes("payload"),
    );
    assert_eq!(message, Some(vector.bytes("ciphertext")));
}

#[test]
fn the_responder_reads_the_published_message() {
    let vector = Vector::noise();
    let responder = Responder::new(&vector.bytes("prologue"), vector.pair("resp_static"));
    let message = vector.bytes("ciphertext");
    let (ephemeral, sealed_key, sealed_payload) = parts(&message);
    let claim = responder.claim(ephemeral, sealed_key).unwrap();
    assert_eq!(claim.client(), vector.pair("init_static").public());
    let shared = responder.shared(&claim.client()).unwrap();
    assert_eq!(*claim.open(&shared, &vector.secret("psk"), sealed_payload).unwrap(), vector.bytes("payload"));
}

#[test]
fn the_published_packet_is_sealed_byte_by_byte() {
    let vector = Vector::spa();
    let ephemeral = vector.secret("ephemeral_private");
    let packet = seal(&vector_ask(), vector.counter(), &vector.identity(), ephemeral, DEFAULT_PAYLOAD);
    assert_eq!(packet, Ok(vector.bytes("packet")));
}

#[test]
fn the_published_packet_is_understood() {
    let vector = Vector::spa();
    let packet = vector.bytes("packet");
    let knock = knock(vector.decoder().receive(&segment(&packet), vector.now()));
    assert_eq!((knock.client.0, knock.counter), (vector.key("client_public"), vector.counter()));
    assert_eq!(knock.ask, vector_ask());
    assert_eq!(knock.mac1[..], packet[160..]);
}

#[test]
fn the_published_intermediate_values_lead_from_the_plaintext_to_the_packet() {
    let vector = Vector::spa();
    let client = vector.identity();
    let ephemeral = vector.pair("ephemeral_private");
    assert_eq!(client.keys.public().0, vector.key("client_public"));
    assert_eq!(ephemeral.public().0, vector.key("ephemeral_public"));
    assert_eq!(vector.pair("server_private").public(), client.server);
    let plain = vector.bytes("plaintext");
    let message =
        noise::write(PROLOGUE, &client.keys, &client.server, &client.psk, &ephemeral, &plain).unwrap();
    assert_eq!(message, vector.bytes("noise_message"));
    let (gate, packet) = (Gate::new(&client.server, &client.gate), vector.bytes("packet"));
    assert_eq!(gate.mask(message.last_chunk().unwrap(), message.first_chunk().unwrap())[..], packet[..32]);
    assert_eq!(message[32..], packet[32..160]);
    assert_eq!(client.pseudonym()[..], vector.bytes("pseudonym"));
    assert_eq!(gate.mac1(&client.pseudonym(), &packet[..160])[..], packet[160..]);
}

#[test]
fn a_message_of_snow_is_a_knock() {
    let vector = Vector::spa();
    let client = vector.identity();
    let (secret, psk) = (client.keys.secret().expose(), client.psk.expose());
    for len in [DEFAULT_PAYLOAD, MAX_PAYLOAD] {
        let builder =
            snow::Builder::new(NAME.parse().unwrap()).prologue(PROLOGUE).unwrap().psk(1, psk).unwrap();
        let builder = builder.local_private_key(secret).unwrap().remote_public_key(&client.server.0).unwrap();
        let mut snow = builder.build_initiator().unwrap();
        let (mut plain, mut packet) = (vector.bytes("plaintext"), vec![0; 2000]);
        plain.resize(len, 0);
        let written = snow.write_message(&plain, &mut packet).unwrap();
        packet.truncate(written);

        let gate = Gate::new(&client.server, &client.gate);
        let masked = gate.mask(packet.last_chunk().unwrap(), packet.first_chunk().unwrap());
        packet[..32].copy_from_slice(&masked);
        packet.extend(gate.mac1(&client.pseudonym(), &packet));
        assert_eq!(knock(vector.decoder().receive(&segment(&packet), vector.now())).ask, vector_ask());
    }
}

#[test]
fn a_knock_is_a_message_that_snow_reads() {
    let vector = Vector::spa();
    let client = vector.identity();
    let server = vector.pair("server_private");
    for len in [DEFAULT_PAYLOAD, MAX_PAYLOAD] {
        let packet = seal(&vector_ask(), vector.counter(), &client, Secret::new([0xa7; 32]), len).unwrap();
        let gate = Gate::new(&client.server, &client.gate);
        let mut message = packet[..packet.len() - 16].to_vec();
        let ephemeral = gate.mask(message.last_chunk().unwrap(), message.first_chunk().unwrap());
        message[..32].copy_from_slice(&ephemeral);

        let builder = snow::Builder::new(NAME.parse().unwrap()).prologue(PROLOGUE).unwrap();
        let builder = builder.psk(1, client.psk.expose()).unwrap();
        let mut snow =
            builder.local_private_key(server.secret().expose()).unwrap().build_responder().unwrap();
        let mut plain = vec![0; 2000];
        let read = snow.read_message(&message, &mut plain).unwrap();
        assert_eq!(snow.get_remote_static(), Some(&client.keys.public().0[..]));
        let mut expected = vector.bytes("plaintext");
        expected.resize(len, 0);
        assert_eq!(plain[..read], expected);
    }
}

#[test]
fn a_sequence_is_that_of_another_program() {
    let vector: serde_json::Value = serde_json::from_str(include_str!("data/sequence-vector.json")).unwrap();
    let ask = Ask {
        op: Op::Open,
        target: Target::Source,
        uses: Some(Uses::Once),
        session: Session::default(),
        wide: false,
        duration: Some(Span::from_secs(3600)),
        ports: Wanted::Ports(vec!["tcp/22".parse().unwrap()]),
    };
    let counter = Timestamp::from_secs(vector["counter"].as_u64().unwrap());
    let identity = Vector::spa().identity();
    let sequence = compose(&ask, counter, &identity, &Ground::default(), 1).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&sequence.payload), vector["payload"]);
    let message = ["hint", "tag", "ct"].map(|name| vector[name].as_str().unwrap()).concat();
    assert_eq!(hex(&sequence.message), message);
    let lanes: Vec<u8> = sequence.notes.iter().map(|note| note.byte).collect();
    assert_eq!(hex(&lanes), vector["lanes"]);
    assert_eq!(serde_json::json!(sequence.ports().collect::<Vec<u16>>()), vector["ports"]);
}
