//! Requests of a captured worker: whatever the monitor admits is inside of the profile.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use knockd_rs::grant::{Limits, ProfileLimits, REQUEST_LEN, Request, Session, Uses};
use knockd_rs::knock::ClientId;
use knockd_rs::policy::Rules;
use knockd_rs::privsep::message::{SAID_LEN, Said};
use knockd_rs::text::{Network, PortRange, Protocol, Span};
use knockd_rs::time::Timestamp;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static LIMITS: Limits = Limits::new(vec![profile(Uses::Once, false), profile(Uses::Many, true)]);
}

fn rules(connections: Uses, wide: bool) -> Rules {
    Rules {
        open: vec!["tcp/22".parse().expect("a port"), "udp/8000-8100".parse().expect("ports")],
        services: [].into(),
        duration: Span::from_secs(15),
        max_duration: Span::from_secs(60),
        connections,
        session: Session::default(),
        lockout: Span::from_secs(600),
        other_addresses: vec![elsewhere()],
        wide,
        max_grants: 4,
        expires: None,
    }
}

fn profile(connections: Uses, by_certificate: bool) -> ProfileLimits {
    ProfileLimits {
        name: if by_certificate { "staff".into() } else { "laptop".into() },
        client: ClientId([u8::from(by_certificate); 32]),
        previous: Vec::new(),
        rules: rules(connections, by_certificate).into(),
        by_certificate,
    }
}

fn elsewhere() -> Network {
    "10.0.0.0/8".parse().expect("a network")
}

/// Every single port, by number, as the profile's author would judge it.
fn is_open(range: &PortRange) -> bool {
    (range.first()..=range.last()).all(|port| match range.protocol() {
        Protocol::Tcp => port == 22,
        Protocol::Udp => (8000..=8100).contains(&port),
        _ => false,
    })
}

fn check(request: &Request) {
    LIMITS.with(|limits| {
        let admitted = limits.admit(request);
        let grant = &request.grant;
        let number = usize::try_from(grant.profile.0).expect("a number");
        assert!(number < 2 || admitted.is_err(), "a profile that is not there");
        assert_eq!(limits.still_allowed(request, limits).is_some(), admitted.is_ok());
        let Ok(opening) = admitted else { return };
        assert!(opening.ports.iter().all(is_open), "{opening:?}");
        assert!(Duration::from_secs(1) <= opening.lifetime.duration());
        assert!(opening.lifetime.duration() <= Duration::from_secs(60));
        assert!(opening.uses == Uses::Once || number == 1);
        assert!(grant.address == grant.source || elsewhere().contains(grant.address));
        assert!(opening.wide || opening.address == grant.address);
        assert!(!opening.wide || number == 1);
        let everybody: [IpAddr; 2] = [[0, 0, 0, 0].into(), [255, 255, 255, 255].into()];
        assert!(!everybody.contains(&opening.address) && !opening.address.is_multicast());
        assert_eq!(opening.holder.is_some(), number == 1);
        assert!(opening.within(Timestamp::default()).is_some());
    });
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    bytes.resize(REQUEST_LEN, 0);
    let request: [u8; REQUEST_LEN] = bytes.try_into().expect("resized");
    let Ok(request) = Request::decode(&request) else { return };
    check(&request);
    // The same on its way over the socketpair.
    let said: [u8; SAID_LEN] = Said::Request(request.clone()).encode();
    assert_eq!(Said::decode(&said), Ok(Said::Request(request)));
});
