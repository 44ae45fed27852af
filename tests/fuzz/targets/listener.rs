//! Packets as a stranger sends them, to a server that knows one client: never a knock, since the fuzzer has no key.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Link, parse};

use knockd_rs::knock::spa::ClientKeys;
use knockd_rs::knock::syn::{Book, Member};
use knockd_rs::knock::{
    ClientId, Freshness, Ground, Knock, Listener, Method, Outcome, Rates, cert, plain, sequence, totp,
};
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use knockd_rs::x509::chain::{Authorities, Numbers};
use knockd_rs::x509::select::Selector;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static LISTENER: RefCell<(Listener, u64)> = RefCell::new((listener(), 0));
}

fn listener() -> Listener {
    let (server, public) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([3; 32]).public());
    let client = ClientKeys { public, psk: Secret::new([4; 32]), freshness: Freshness::default() };
    let sequence = sequence::ClientKeys {
        public,
        psk: Secret::new([4; 32]),
        freshness: Freshness::default(),
        services: Vec::new(),
    };
    let member = Member { client: public.into(), public, psk: Secret::new([4; 32]), services: Vec::new() };
    let book = Book::new(&server, std::slice::from_ref(&member));
    let (authorities, complaints) = Authorities::new(
        &[include_bytes!("../corpus/cert/ca_certificate").to_vec()],
        &[include_bytes!("../corpus/cert/crl").to_vec()],
        &Numbers::new(),
        Duration::from_secs(60),
    );
    assert!(complaints.is_empty(), "{complaints:?}");
    let table = cert::Table { selector: Selector::default(), freshness: Freshness::default() };
    let leaves = vec![include_bytes!("../corpus/cert/certificate").to_vec()];
    let trust = cert::Trust { authorities, leaves, tables: vec![table] };
    let mut listener = Listener::new(Rates::default(), [9; 16], Timestamp::from_secs(1_700_000_000))
        .with_sequence(&server, &Secret::new([2; 32]), Ground::default(), [sequence])
        .with_certificates(server.clone(), &Secret::new([2; 32]), trust)
        .with_spa(server, &Secret::new([2; 32]), [client])
        .with_syn(62201, &[member])
        .with_plain([fixed()])
        .with_totp(Ground::default(), [laptop()]);
    for step in listener.missing_steps(START) {
        listener.install(book.table(step), START);
    }
    listener
}

/// Who sends these three knocks one after the other has found it out, and is a client.
fn fixed() -> plain::Sequence {
    let knocks = ["tcp/7000", "udp/8000", "tcp/6000"].map(|text| text.parse().expect("a port"));
    let (gap, total) = (Duration::from_secs(5), Duration::from_secs(15));
    plain::Sequence { client: ClientId([5; 32]), knocks: knocks.to_vec(), gap, total }
}

fn laptop() -> totp::ClientKeys {
    totp::ClientKeys { client: ClientId([6; 32]), key: Secret::new([6; 32]), ports: totp::DEFAULT_PORTS }
}

/// The clock stands, so that the codes of SYNs stay good however long this runs.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fuzz_target!(|packet: &[u8]| {
    let Ok(segment) = parse(Link::RawIp, packet, packet.len()) else { return };
    LISTENER.with_borrow_mut(|(listener, millis)| {
        *millis += 1;
        let now =
            Now { wall: START, uptime: Duration::from_millis(*millis), trust: ClockTrust::Synchronised };
        match listener.receive(&segment, now) {
            Outcome::Dropped(_) => {}
            Outcome::Knock(Knock { method: Method::Plain, .. }) if segment.port == 6000 => {}
            other => panic!("{other:?}"),
        }
    });
});
