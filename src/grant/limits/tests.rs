use proptest::prelude::*;

use super::*;
use crate::grant::ProfileIndex;
use crate::text::Protocol;
use crate::time::Timestamp;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limits() -> Limits {
    let rules = Rules {
        open: vec!["tcp/22".parse().unwrap(), "udp/8000-8100".parse().unwrap()],
        services: [].into(),
        duration: Span::from_secs(15),
        max_duration: Span::from_secs(60),
        connections: Uses::Once,
        session: Session::from_bits(0b1000),
        lockout: Span::from_secs(600),
        other_addresses: vec!["10.0.0.0/8".parse().unwrap()],
        wide: false,
        max_grants: 4,
        expires: None,
    };
    let client = ClientId([1; 32]);
    Limits::new(vec![ProfileLimits {
        name: "laptop".into(),
        client,
        previous: Vec::new(),
        rules: Rc::new(rules),
        by_certificate: false,
    }])
}

fn grant() -> Grant {
    Grant {
        profile: ProfileIndex(0),
        action: Action::Open,
        source: ip("198.51.100.7"),
        address: ip("198.51.100.7"),
        wide: false,
        ports: vec!["tcp/22".parse().unwrap()],
        uses: Uses::Once,
        session: Session::from_bits(0b1010),
        lifetime: Span::from_secs(15),
    }
}

fn admit(grant: Grant) -> Result<Opening, Breach> {
    limits().admit(&Request {
        id: 1,
        counter: Timestamp::from_secs(1),
        from_outside: true,
        grant,
        holder: None,
    })
}

fn breached(grant: Grant) -> &'static str {
    match admit(grant) {
        Err(Breach::Rules { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_profile_allows_is_admitted() {
    let opening = admit(grant()).unwrap();
    assert_eq!((opening.profile.as_str(), opening.address), ("laptop", ip("198.51.100.7")));
    assert!(admit(Grant { address: ip("10.1.2.3"), ..grant() }).is_ok());
}

#[test]
fn a_certificate_is_named_where_there_has_to_be_one_and_nowhere_else() {
    let holder = Some(Holder::new([0xab; 8], "CN=alice"));
    let request =
        Request { id: 1, counter: Timestamp::from_secs(1), from_outside: true, grant: grant(), holder };
    let without = Request { holder: None, ..request.clone() };
    assert!(matches!(limits().admit(&request), Err(Breach::Rules { .. })));
    let mut certificates = limits();
    certificates.profiles.iter_mut().for_each(|profile| profile.by_certificate = true);
    assert!(matches!(certificates.admit(&without), Err(Breach::Rules { .. })));
    assert_eq!(certificates.admit(&request).unwrap().profile, "laptop.abababababababab");
}

#[test]
fn a_worker_with_an_older_configuration_opens_nothing_that_the_newer_one_forbids() {
    let request =
        Request { id: 1, counter: Timestamp::from_secs(1), from_outside: true, grant: grant(), holder: None };
    let newer = |change: fn(&mut ProfileLimits)| {
        let mut newer = limits();
        newer.profiles.iter_mut().for_each(change);
        limits().still_allowed(&request, &newer)
    };
    assert!(newer(|_| ()).is_some());
    assert_eq!(limits().still_allowed(&request, &Limits::default()), None);
    assert_eq!(newer(|profile| profile.client = ClientId([2; 32])), None);
    assert_eq!(
        newer(|profile| Rc::make_mut(&mut profile.rules).open = vec!["tcp/23".parse().unwrap()]),
        None
    );
    assert_eq!(newer(|profile| Rc::make_mut(&mut profile.rules).max_duration = Span::from_secs(5)), None);
}

#[test]
fn a_request_outside_the_configuration_is_a_breach() {
    let ports = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<PortRange>>();
    assert_eq!(admit(Grant { profile: ProfileIndex(1), ..grant() }), Err(Breach::Profile { index: 1 }));
    assert_eq!(breached(Grant { ports: ports(&["tcp/23"]), ..grant() }), "a port is outside the profile");
    assert_eq!(
        breached(Grant { ports: ports(&["udp/7999-8000"]), ..grant() }),
        "a port is outside the profile"
    );
    assert_eq!(
        breached(Grant { ports: ports(&["tcp/22", "tcp/22"]), ..grant() }),
        "its port ranges overlap or are out of order"
    );
    assert_eq!(
        breached(Grant { uses: Uses::Many, ..grant() }),
        "it asks for more connections than the profile allows"
    );
    for seconds in [0, 61, u32::MAX] {
        assert_eq!(
            breached(Grant { lifetime: Span::from_secs(seconds), ..grant() }),
            "it lasts longer than the profile allows, or not at all"
        );
    }
    assert_eq!(
        breached(Grant { address: ip("192.0.2.1"), ..grant() }),
        "it is for an address that the profile does not allow"
    );
    assert_eq!(
        breached(Grant { address: ip("224.0.0.1"), source: ip("224.0.0.1"), ..grant() }),
        "it is for an address that no host has"
    );
}

proptest! {
    #[test]
    fn no_request_whatsoever_opens_a_port_outside_the_profile(
        index in 0u32..3, udp in any::<bool>(), first in 1u16.., length in 0u16..200, many in any::<bool>(),
        seconds in 0u32..100, address in any::<u32>(), same in any::<bool>(),
    ) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let range = PortRange::new(protocol, first, first.saturating_add(length)).unwrap();
        let address = IpAddr::from(address.to_be_bytes());
        let request = Grant {
            profile: ProfileIndex(index),
            address,
            source: if same { address } else { ip("198.51.100.7") },
            ports: vec![range],
            uses: if many { Uses::Many } else { Uses::Once },
            lifetime: Span::from_secs(seconds),
            ..grant()
        };
        if let Ok(opening) = admit(request) {
            let rules = limits().profiles[0].rules.clone();
            prop_assert!(rules.open.iter().any(|open| open.contains(&range)));
            prop_assert!(opening.lifetime <= rules.max_duration && opening.uses == Uses::Once);
            prop_assert!(same || address == ip("198.51.100.7") || rules.other_addresses[0].contains(address));
        }
    }
}

#[test]
fn a_request_with_keys_that_were_replaced_since_and_are_still_good_is_the_same_clients() {
    let request =
        Request { id: 1, counter: Timestamp::from_secs(1), from_outside: true, grant: grant(), holder: None };
    let mut newer = limits();
    newer.profiles.iter_mut().for_each(|profile| profile.client = ClientId([2; 32]));
    assert_eq!(limits().still_allowed(&request, &newer), None);
    let until = Moment::from_secs(100);
    newer.profiles.iter_mut().for_each(|profile| profile.previous = vec![(ClientId([1; 32]), until)]);
    // What they open ends with them, or with the profile.
    let end = |newer: &Limits| limits().still_allowed(&request, newer).map(|opening| opening.expires);
    assert_eq!(end(&newer), Some(Some(until)));
    let sooner = Moment::from_secs(50);
    newer.profiles.iter_mut().for_each(|profile| Rc::make_mut(&mut profile.rules).expires = Some(sooner));
    assert_eq!(end(&newer), Some(Some(sooner)));
    newer.profiles.iter_mut().for_each(|profile| profile.name = "phone".into());
    assert_eq!(limits().still_allowed(&request, &newer), None);
}

#[test]
fn an_opening_ends_with_its_profile_whatever_the_worker_asks_for() {
    let mut limits = limits();
    limits
        .profiles
        .iter_mut()
        .for_each(|profile| Rc::make_mut(&mut profile.rules).expires = Some(Moment::from_secs(100)));
    let request =
        Request { id: 1, counter: Timestamp::from_secs(1), from_outside: true, grant: grant(), holder: None };
    let opening = limits.admit(&request).unwrap();
    let lifetime = |at| opening.within(Timestamp::from_secs(at)).map(|opening| opening.lifetime.as_secs());
    assert_eq!(
        [80, 85, 90, 99, 100, 5000].map(lifetime),
        [Some(15), Some(15), Some(10), Some(1), None, None]
    );
}
