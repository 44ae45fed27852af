//! Many packets in a row, to a server that knows one client for each kind of sequence, from four sources: nobody gets in
//! who has not sent what has to be sent, from one address, in its order where that counts.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockd_rs::crypto::{KeyPair, Secret};
use knockd_rs::frame::{Body, Segment, Syn};
use knockd_rs::knock::spa::ClientIdentity;
use knockd_rs::knock::{
    Ask, ClientId, Freshness, Ground, Knock, Listener, Method, Outcome, Rates, plain, sequence, totp,
};
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVER: RefCell<Server> = RefCell::new(Server::new());
}

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

struct Server {
    listener: Listener,
    uptime: Duration,
    lanes: Vec<u16>,
    by_time: Vec<u16>,
}

const FIXED: [u16; 3] = [7000, 8000, 6000];

impl Server {
    fn new() -> Self {
        let (server, keys) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([3; 32]));
        let (psk, gate, ground) = (Secret::new([4; 32]), Secret::new([2; 32]), Ground::default());
        let public = keys.public();
        let client = sequence::ClientKeys {
            public,
            psk: psk.clone(),
            freshness: Freshness::default(),
            services: Vec::new(),
        };
        let identity = ClientIdentity { keys, psk, server: server.public(), gate: gate.clone() };
        let played =
            sequence::compose(&Ask::everything(), START, &identity, &ground, 0).expect("room for it");
        let knocks = FIXED.map(|port| format!("tcp/{port}").parse().expect("a port")).to_vec();
        let (gap, total) = (Duration::from_secs(5), Duration::from_secs(15));
        let key = Secret::new([6; 32]);
        let by_time = totp::ports(&key, totp::step(START), totp::DEFAULT_PORTS, &ground);
        let listener = Listener::new(Rates::default(), [9; 16], Timestamp::from_secs(1_700_000_000))
            .with_sequence(&server, &gate, ground.clone(), [client])
            .with_plain([plain::Sequence { client: ClientId([5; 32]), knocks, gap, total }])
            .with_totp(
                ground,
                [totp::ClientKeys { client: ClientId([6; 32]), key, ports: totp::DEFAULT_PORTS }],
            );
        Self { listener, uptime: Duration::ZERO, lanes: played.ports().collect(), by_time }
    }
}

/// What one source has sent, and when.
#[derive(Default)]
struct Sent(Vec<(u16, Duration)>);

impl Sent {
    /// Whether these ports are among those sent, in this order.
    fn has(&self, ports: &[u16]) -> bool {
        let mut sent = self.0.iter();
        ports.iter().all(|port| sent.any(|(other, _)| other == port))
    }

    fn lanes(&self, lanes: &[u16]) -> usize {
        self.0
            .iter()
            .map(|(port, _)| *port)
            .filter(|port| lanes.contains(port))
            .collect::<BTreeSet<_>>()
            .len()
    }
}

/// Of 28 knocks ten may be missing.
const LEAST_LANES: usize = 18;

fuzz_target!(|input: &[u8]| {
    SERVER.with_borrow_mut(|server| {
        // What was sent before is over.
        server.uptime += Duration::from_secs(3600);
        let mut sent: [Sent; 4] = Default::default();
        let mut next = [[0_usize; 3]; 4];
        for &[what, how] in input.as_chunks().0 {
            let source = usize::from(what & 3);
            let lists = [&server.lanes[..], &server.by_time, &FIXED];
            // The next port of a list, one of the same list, or any.
            let port = match (usize::from(what >> 2 & 3), what & 0x40 != 0) {
                (3, _) => u16::from_be_bytes([what, how]),
                (list, true) => lists[list][usize::from(how) % lists[list].len()],
                (list, false) => {
                    let place = &mut next[source][list];
                    *place += 1;
                    lists[list][(*place - 1) % lists[list].len()]
                }
            };
            server.uptime += Duration::from_millis(u64::from(how) * if what & 0x80 != 0 { 40 } else { 1 });
            sent[source].0.push((port, server.uptime));
            let address: IpAddr = Ipv4Addr::new(198, 51, 100, what & 3).into();
            let body = Body::Syn(Syn { sequence: 1, timestamp: None });
            let destination = Ipv4Addr::new(192, 0, 2, 1).into();
            let segment = Segment { source: address, destination, port, body };
            let now = Now { wall: START, uptime: server.uptime, trust: ClockTrust::Synchronised };
            match server.listener.receive(&segment, now) {
                Outcome::Dropped(_) => {}
                Outcome::Knock(Knock { method, source: from, .. }) => {
                    assert_eq!(from, address);
                    let is_earned = match method {
                        Method::Plain => sent[source].has(&FIXED),
                        Method::Totp => sent[source].has(&server.by_time),
                        Method::Sequence => sent[source].lanes(&server.lanes) >= LEAST_LANES,
                        _ => false,
                    };
                    assert!(is_earned, "{method} by {:?}", sent[source].0);
                }
                other => panic!("{other:?}"),
            }
        }
    });
});
