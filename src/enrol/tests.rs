use super::*;

fn bundle() -> Bundle {
    Bundle {
        server: "home".parse().unwrap(),
        access: Access {
            host: "server.example.org".parse().unwrap(),
            port: 62_201,
            profile: "laptop".parse().unwrap(),
            server_key: KeyPair::from_seed([1; 32]).public(),
            gate_key: GateKey::new([2; 32]),
            psk: Some(Psk::new([3; 32])),
            open: vec!["tcp/22".parse().unwrap(), "udp/60000-61000".parse().unwrap()],
            services: [(
                "web.v2".parse().unwrap(),
                vec!["tcp/80".parse().unwrap(), "tcp/443".parse().unwrap()],
            )]
            .into(),
            methods: vec![Method::Spa],
            totp_ports: 6,
            sequence: Ground::default(),
            duration: Some(Span::from_secs(15)),
            max_duration: Some(Span::from_secs(3600)),
            expires: None,
        },
        private_key: Some(Secret::new([4; 32])),
    }
}

fn json(bundle: &Bundle) -> String {
    String::from_utf8(bundle.to_json().unwrap().to_vec()).unwrap()
}

fn complaints(text: &str) -> Vec<String> {
    Bundle::parse("b.knock", text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_bundle_reads_back_as_it_was_written() {
    assert_eq!(Bundle::parse("b.knock", &json(&bundle())), Ok(bundle()));
    let strict = Bundle { private_key: None, ..bundle() };
    assert!(!json(&strict).contains("private_key"));
    assert_eq!(Bundle::parse("b.knock", &json(&strict)), Ok(strict));
}

#[test]
fn a_clients_file_reads_back_as_it_was_written() {
    let enrolment = bundle().into_enrolment(None).unwrap();
    assert_eq!(Enrolment::parse("home.toml", &enrolment.to_toml()), Ok(enrolment));
    let mut bare = bundle();
    (bare.access.psk, bare.access.open, bare.access.services) = (None, Vec::new(), BTreeMap::new());
    let enrolment = bare.into_enrolment(None).unwrap();
    assert_eq!(Enrolment::parse("home.toml", &enrolment.to_toml()), Ok(enrolment));
}

#[test]
fn the_ports_of_sequences_travel_with_the_method_and_only_then() {
    assert!(!json(&bundle()).contains("sequence"));
    let mut with = bundle();
    with.access.methods = vec![Method::Spa, Method::Sequence];
    with.access.sequence = Ground { base: 20_000, span: 8192, excluded: vec![25_565] };
    assert_eq!(Bundle::parse("b.knock", &json(&with)), Ok(with.clone()));
    let enrolment = with.into_enrolment(None).unwrap();
    assert_eq!(Enrolment::parse("home.toml", &enrolment.to_toml()), Ok(enrolment));
}

#[test]
fn a_bundle_of_another_version_is_refused_for_that_alone() {
    let newer = json(&bundle()).replace("\"knockd-rs\": 1", "\"knockd-rs\": 2").replace("host", "hosts");
    assert_eq!(
        complaints(&newer),
        ["b.knock:2: knockd-rs: version 2; this program reads version 1: upgrade the older side"]
    );
    assert_eq!(
        complaints("{}"),
        ["b.knock: knockd-rs: is missing; this is no bundle of `knockd-rs profile add`"]
    );
}

#[test]
fn everything_wrong_with_a_bundle_is_said_at_once_and_no_key_with_it() {
    let key = KeyPair::from_seed([1; 32]).public().to_string();
    let broken = json(&bundle())
        .replace(&key, "c2VjcmV0")
        .replace("server.example.org", "[::1]:22")
        .replace("62201", "0");
    assert_eq!(
        complaints(&broken),
        [
            "b.knock:4: host: `[::1]:22` is no host; use a name or an address, without brackets or port",
            "b.knock:5: port: 0; use 1 to 65535",
            "b.knock:7: server_key: 8 characters that are no key; use 32 bytes in base64: 44 characters, the last of \
             them =",
        ]
    );
}

#[test]
fn the_strict_way_needs_the_clients_own_key_and_the_other_takes_none() {
    let strict = || Bundle { private_key: None, ..bundle() };
    assert_eq!(strict().into_enrolment(None), Err(EnrolError::NoKey));
    assert_eq!(
        strict().into_enrolment(Some(Secret::new([9; 32]))).unwrap().private_key,
        Some(Secret::new([9; 32]))
    );
    assert_eq!(bundle().into_enrolment(Some(Secret::new([9; 32]))), Err(EnrolError::TwoKeys));
}

#[test]
fn who_knocks_with_a_certificate_needs_no_key_and_finds_his_files_again() {
    let mut bundle = Bundle { private_key: None, ..bundle() };
    bundle.access.methods = vec![Method::Cert];
    let mut enrolment = bundle.into_enrolment(None).unwrap();
    assert_eq!(enrolment.private_key, None);
    let pem = OwnCertificate::Pem { certificate: "/a b/c\".pem".into(), key: "/k.pem".into() };
    for files in [None, Some(pem), Some(OwnCertificate::Pkcs12("/alice.p12".into()))] {
        enrolment.certificate = files;
        assert_eq!(Enrolment::parse("s.toml", &enrolment.to_toml()), Ok(enrolment.clone()));
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_nothing_else() {
    for text in ["server", "a.example.org.", "192.0.2.7", "2001:db8::7", "fe80::1%eth0", "_x.example"] {
        assert!(text.parse::<Host>().is_ok(), "{text}");
    }
    for text in ["", "a b", "[::1]", "h:22", "-oProxy", "a..b", "user@h", "h\n", "::1%\"", "\u{e4}.example"] {
        assert!(text.parse::<Host>().is_err(), "{text:?}");
    }
}

#[test]
fn a_bundle_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("laptop.knock");
    let carried = Carried::Open(Box::new(bundle()));
    save_carried(&path, &carried).unwrap();
    assert_eq!(load_carried(&path), Ok(carried.clone()));
    assert!(save_carried(&path, &carried).is_err(), "an old bundle is left alone");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let shown = path.display();
    assert_eq!(
        load_carried(&path).unwrap_err().first().unwrap().to_string(),
        format!("{shown}: mode 0644 lets other users read it; run: chmod 0600 {shown}")
    );
}

#[test]
fn what_an_older_version_wrote_says_nothing_of_how_long_grants_last_and_is_read() {
    let mut older = bundle();
    (older.access.duration, older.access.max_duration) = (None, None);
    assert!(!json(&older).contains("duration"));
    assert_eq!(Bundle::parse("b.knock", &json(&older)), Ok(older.clone()));
    let enrolment = older.into_enrolment(None).unwrap();
    assert!(!enrolment.to_toml().contains("duration"));
    assert_eq!(Enrolment::parse("home.toml", &enrolment.to_toml()), Ok(enrolment));
}
