use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::crypto::{GateKey, KeyPair, Psk, Secret};
use crate::enrol::Access;
use crate::knock::Ground;
use crate::profile::Method;
use crate::text::{Moment, PortRange, Protocol, Span};

const VECTOR: &str = include_str!("../../../tests/data/bundle-vector.json");
/// As little as is accepted: tests wait for it.
const CHEAP: Cost = Cost::LEAST;

fn vector(name: &str) -> serde_json::Value {
    let vector: serde_json::Value = serde_json::from_str(VECTOR).unwrap();
    vector.get(name).unwrap().clone()
}

fn line_of_vector(name: &str) -> String {
    vector(name).as_str().unwrap().to_owned()
}

fn open(carried: Carried) -> Bundle {
    match carried {
        Carried::Open(bundle) => *bundle,
        Carried::Protected(_) => panic!("it is under a passphrase"),
    }
}

fn json(bundle: &Bundle) -> String {
    String::from_utf8(bundle.to_json().unwrap().to_vec()).unwrap()
}

#[test]
fn a_line_that_was_made_elsewhere_is_the_bundle_that_its_json_is() {
    let bundle = Bundle::parse("vector", &vector("json").to_string()).unwrap();
    let carried = Carried::from_line(&line_of_vector("line")).unwrap();
    assert_eq!(carried.to_line().as_str(), line_of_vector("line"));
    assert_eq!(open(carried), bundle);
}

#[test]
fn a_protected_line_that_was_made_elsewhere_opens_and_is_made_here_too() {
    let bundle = Bundle::parse("vector", &vector("json").to_string()).unwrap();
    let carried = Carried::from_line(&line_of_vector("protected")).unwrap();
    assert_eq!(carried.to_line().as_str(), line_of_vector("protected"));
    let Carried::Protected(protected) = carried else { panic!("it is in the clear") };
    let passphrase = line_of_vector("passphrase");
    assert_eq!(protected.open(passphrase.as_bytes()), Ok(bundle.clone()));
    let again = Protected::seal(&bundle, passphrase.as_bytes(), *b"sixteen of salt.", Cost::USUAL);
    assert_eq!(again, Ok(protected));
}

#[test]
fn a_line_is_read_in_either_case_since_a_qr_code_has_capitals() {
    let line = line_of_vector("line");
    assert_eq!(Carried::from_line(&line.to_ascii_uppercase()), Carried::from_line(&line));
}

#[test]
fn each_character_of_a_line_counts() {
    let line = line_of_vector("line");
    for place in SCHEME.len()..line.len() {
        let mut other = line.clone().into_bytes();
        other[place] = if other[place] == b'a' { b'b' } else { b'a' };
        let other = String::from_utf8(other).unwrap();
        assert_eq!(Carried::from_line(&other), Err(LineError::Damaged), "{place}");
        let (start, end) = (&line[..place], &line[place + 1..]);
        assert_eq!(Carried::from_line(&format!("{start}{end}")), Err(LineError::Damaged), "without {place}");
    }
    for cut in SCHEME.len()..line.len() {
        assert_eq!(Carried::from_line(&line[..cut]), Err(LineError::Damaged), "cut at {cut}");
    }
    assert_eq!(Carried::from_line(&format!("{line}a")), Err(LineError::Damaged));
}

#[test]
fn what_is_no_line_is_told_why() {
    let line = line_of_vector("line");
    let cases = [
        (String::new(), LineError::NoLine),
        ("knock".into(), LineError::NoLine),
        ("http://example.org".into(), LineError::NoLine),
        ("knock:".into(), LineError::NoLine),
        ("knock:1:".into(), LineError::Damaged),
        (line.replace("knock:1:", "knock:2:"), LineError::Version("2".into())),
        (line.replace("knock:1:", "knock:01:"), LineError::Version("01".into())),
        (format!("{line}\n"), LineError::Character { place: line.len() + 1 }),
        (line.replacen('a', "1", 1), LineError::Character { place: line.find('a').unwrap() + 1 }),
        (line.replacen('a', "\u{e4}", 1), LineError::Character { place: line.find('a').unwrap() + 1 }),
        (format!("knock:1:{}", "a".repeat((1 << 20) + 1)), LineError::TooLong),
    ];
    for (text, error) in cases {
        assert_eq!(Carried::from_line(&text), Err(error), "{}", &text[..text.len().min(40)]);
    }
}

/// A line with these bytes in it and the check sum that they need.
fn line_with(kind: u8, body: &[u8]) -> String {
    let mut line = SCHEME.to_owned();
    base32(&[&[kind], body, &check_sum(kind, body)].concat(), &mut line);
    line
}

#[test]
fn what_a_newer_version_may_write_and_what_costs_too_much_is_refused() {
    let body = compact::encode(&Bundle::parse("vector", &vector("json").to_string()).unwrap());
    let read = |kind, body: &[u8]| Carried::from_line(&line_with(kind, body));
    assert!(read(0, &body).is_ok());
    assert_eq!(read(2, &body), Err(LineError::Content("kind")));
    let mut newer = body.to_vec();
    newer[0] |= 0x80;
    assert_eq!(read(0, &newer), Err(LineError::Content("version")));
    assert_eq!(read(0, &[&**body, &[0]].concat()), Err(LineError::Content("end")));
    let mut weak = body.to_vec();
    weak[1..33].fill(0);
    assert_eq!(read(0, &weak), Err(LineError::Content("server_key")));
    for (cost, expected) in
        [([18, 8, 4], None), ([31, 3, 1], Some(LineError::Cost)), ([16, 200, 1], Some(LineError::Cost))]
    {
        let body = [&cost[..], &[7; 16], &[9; 32]].concat();
        assert_eq!(read(1, &body).err(), expected, "{cost:?}");
    }
    assert_eq!(read(1, &[16, 3, 1, 0]), Err(LineError::Content("salt")));
}

#[test]
fn a_usual_bundle_fits_a_code_of_57_columns_and_29_rows() {
    let mut bundle = Bundle::parse("vector", &vector("json").to_string()).unwrap();
    (bundle.access.methods, bundle.access.services) = (vec![Method::Spa], [].into());
    bundle.access.open = vec!["tcp/22".parse().unwrap()];
    let size = |carried: &Carried| crate::enrol::Picture::of(&carried.to_line()).unwrap().size();
    assert_eq!(size(&Carried::Open(Box::new(bundle.clone()))), (57, 29));
    let sealed = Protected::seal(&bundle, b"correct horse", [7; 16], CHEAP).unwrap();
    assert_eq!(size(&Carried::Protected(sealed)), (61, 31));
    (bundle.access.psk, bundle.private_key) = (None, None);
    assert_eq!(size(&Carried::Open(Box::new(bundle))), (45, 23));
}

#[test]
fn a_bundle_with_more_ports_than_a_code_holds_is_told_so() {
    let mut bundle = Bundle::parse("vector", &vector("json").to_string()).unwrap();
    bundle.access.open = (1..1000).map(|n| PortRange::single(Protocol::Tcp, 2 * n).unwrap()).collect();
    let carried = Carried::Open(Box::new(bundle));
    assert_eq!(Carried::from_line(&carried.to_line()), Ok(carried.clone()));
    assert!(crate::enrol::Picture::of(&carried.to_line()).is_err());
}

prop_compose! {
    fn any_ports(most: usize)(
        ports in vec((0..3usize, 1..=u16::MAX, 0..50u16), 0..most),
    ) -> Vec<PortRange> {
        let range = |(protocol, first, more): (usize, u16, u16)| {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol];
            PortRange::new(protocol, first, first.saturating_add(more)).unwrap()
        };
        crate::config::merged(ports.into_iter().map(range).collect())
    }
}

prop_compose! {
    fn any_ground()(base in 1..=57_000u16, more in 0..=300u16, excluded in vec(1..=u16::MAX, 0..5)) -> Ground {
        Ground { base, span: 8192 + more, excluded }
    }
}

prop_compose! {
    fn any_access()(
        (host, profile) in ("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", "[a-z][a-z0-9._-]{0,31}"),
        port in 1..=u16::MAX,
        (seed, gate, psk) in (any::<[u8; 32]>(), any::<[u8; 32]>(), of(any::<[u8; 32]>())),
        (open, services) in (any_ports(9), btree_map("[a-z][a-z0-9._-]{0,31}", any_ports(4), 0..5)),
        methods in 1..64u8,
        (totp_ports, sequence) in (4..=12u8, any_ground()),
        (duration, max_duration) in (of(1..=2_592_000u32), of(1..=2_592_000u32)),
        expires in of(0..=253_402_300_799u64),
    ) -> Access {
        let methods: Vec<Method> = Method::ALL
            .iter()
            .zip(0..)
            .filter(|(_, bit)| methods >> bit & 1 == 1)
            .map(|((_, method), _)| *method)
            .collect();
        // Where no method plays on them, neither form carries them.
        let sequence = if crate::enrol::plays(&methods) { sequence } else { Ground::default() };
        Access {
            host: host.parse().unwrap(),
            port,
            profile: format!("x{profile}").chars().take(32).collect::<String>().parse().unwrap(),
            server_key: KeyPair::from_seed(seed).public(),
            gate_key: GateKey::new(gate),
            psk: psk.map(Psk::new),
            open,
            services: services.into_iter().map(|(name, ports)| (name.parse().unwrap(), ports)).collect(),
            methods,
            totp_ports,
            sequence,
            duration: duration.map(Span::from_secs),
            max_duration: max_duration.map(Span::from_secs),
            expires: expires.map(Moment::from_secs),
        }
    }
}

prop_compose! {
    fn any_bundle()(
        server in "[a-z0-9][a-z0-9._-]{0,63}",
        is_same in any::<bool>(),
        access in any_access(),
        private_key in of(any::<[u8; 32]>()),
    ) -> Bundle {
        let server = if is_same { access.host.to_string() } else { server };
        Bundle { server: server.parse().unwrap(), access, private_key: private_key.map(Secret::new) }
    }
}

proptest! {
    #[test]
    fn a_line_and_the_json_carry_the_same(bundle in any_bundle()) {
        let line = Carried::Open(Box::new(bundle.clone())).to_line();
        prop_assert_eq!(open(Carried::from_line(&line).unwrap()), bundle.clone());
        prop_assert_eq!(Bundle::parse("b.knock", &json(&bundle)), Ok(bundle));
        let unreserved = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        prop_assert!(line[SCHEME.len()..].bytes().all(unreserved));
    }

    #[test]
    fn bytes_read_back_from_their_digits(bytes in vec(any::<u8>(), 0..64)) {
        let mut text = String::new();
        base32(&bytes, &mut text);
        prop_assert_eq!(unbase32(&text).unwrap().to_vec(), bytes);
    }

    #[test]
    fn whatever_is_read_is_written_the_same(kind in 0..3u8, body in vec(any::<u8>(), 0..300)) {
        let line = line_with(kind, &body);
        if let Ok(carried) = Carried::from_line(&line) {
            prop_assert_eq!(carried.to_line().to_string(), line);
        }
    }

    #[test]
    fn a_changed_body_is_another_bundle_or_none(
        bundle in any_bundle(),
        place in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut body = compact::encode(&bundle).to_vec();
        let place = place.index(body.len());
        body[place] ^= 1 << bit;
        if let Ok(other) = compact::decode(&body) {
            prop_assert_ne!(&other, &bundle);
            prop_assert_eq!(compact::encode(&other).to_vec(), body);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", digits in "[a-zA-Z0-9]{0,200}") {
        let _ = Carried::from_line(&text);
        let _ = Carried::from_line(&format!("knock:1:{digits}"));
        let _ = Carried::from_line(&format!("knock:1:{text}"));
    }
}
