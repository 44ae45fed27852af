//! To the millisecond: when a grant ends, and that renewing it leaves no gap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    Answer, CABLE, CLIENT4, CLIENT6, Daemon, GUARDED, PATIENCE, SERVER4, SERVER6, World, attempt, ip,
    wait_for,
};

const TOLERANCE: Duration = Duration::from_millis(200);
const AT_ONCE: u8 = 25;

/// Addresses of the client's side, of both families in turn.
fn addresses(world: &World) -> Vec<(IpAddr, SocketAddr)> {
    let pair = |number: u8| {
        let v4 = IpAddr::from(Ipv4Addr::new(10, 77, 0, 100 + number));
        let v6 = IpAddr::from(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(number)));
        let (from, length, nodad, to) =
            if number % 2 == 0 { (v4, 24, "", SERVER4) } else { (v6, 64, " nodad", SERVER6) };
        ip(&format!("-n {} address add {from}/{length} dev {CABLE}{nodad}", world.client));
        (from, SocketAddr::new(to, 22))
    };
    (0..AT_ONCE).map(pair).collect()
}

/// When each grant was promised to end, by the status.
fn deadlines(daemon: &Daemon<'_>) -> impl Fn(IpAddr) -> Instant + use<> {
    let asked = Instant::now();
    let grants = daemon.grants();
    let told = asked + asked.elapsed() / 2;
    move |address| {
        let grant = grants.iter().find(|grant| grant["address"] == address.to_string()).unwrap();
        told + Duration::from_secs_f64(grant["expires_in"].as_f64().unwrap())
    }
}

/// Milliseconds from the deadline to the first connection that was not let in any more; asserts that the last one let in,
/// and this one, are within the tolerance.
fn end_of(from: IpAddr, to: SocketAddr, deadline: Instant) -> f64 {
    std::thread::sleep((deadline - Duration::from_millis(400)).saturating_duration_since(Instant::now()));
    let mut let_in = None;
    let refused = loop {
        let tried = Instant::now();
        match attempt(Some(from), to, PATIENCE) {
            Answer::Connected => let_in = Some(tried),
            _ => break tried,
        }
        assert!(tried < deadline + Duration::from_secs(3), "the grant of {from} does not end");
        std::thread::sleep(Duration::from_millis(3));
    };
    let last = let_in.unwrap_or_else(|| panic!("{from} was not let in at all"));
    assert!(refused + TOLERANCE > deadline, "{from}: closed {:?} too early", deadline - refused);
    assert!(last < deadline + TOLERANCE, "{from}: open {:?} too long", last - deadline);
    (refused.max(deadline) - deadline).as_secs_f64() * 1e3
        - (deadline.max(refused) - refused).as_secs_f64() * 1e3
}

#[test]
fn fifty_grants_of_two_seconds_end_on_time_whether_the_daemon_lives_or_not() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    world.amend("laptop", "max_grants = 64\n");
    let mut daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let all = addresses(&world);
    for is_killed in [false, true] {
        for (from, _) in &all {
            daemon.command(&["grant", "laptop", &from.to_string(), "tcp/22", "--many", "--for", "2s"]);
        }
        let deadline = deadlines(&daemon);
        if is_killed {
            daemon.kill9_both();
        }
        let mut ends = world.on_client(|| {
            std::thread::scope(|scope| {
                let probe = |&(from, to)| {
                    let deadline = deadline(from);
                    scope.spawn(move || end_of(from, to, deadline))
                };
                let probes: Vec<_> = all.iter().map(probe).collect();
                probes.into_iter().map(|probe| probe.join().unwrap()).collect::<Vec<f64>>()
            })
        });
        ends.sort_by(f64::total_cmp);
        println!(
            "{} grants of 2 s, daemon {}: found closed {:.0} to {:.0} ms after the deadline, median {:.0}",
            ends.len(),
            if is_killed { "killed" } else { "alive" },
            ends[0],
            ends[ends.len() - 1],
            ends[ends.len() / 2]
        );
    }
}

#[test]
fn renewing_a_grant_leaves_no_gap_for_either_family_nor_for_a_port_of_a_range() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--open", "tcp/8000-8010", "--many"]);
    let daemon = world.daemon(&GUARDED.replace("\"tcp/22\"", "\"tcp/22\", \"tcp/8000-8010\""));
    let _services = (world.listener(22), world.listener(8005));
    let renew = || {
        for address in [CLIENT4, CLIENT6] {
            daemon.command(&["grant", "laptop", &address.to_string(), "--many", "--for", "2s"]);
        }
    };
    renew();
    let is_over = AtomicBool::new(false);
    let probe = |from: IpAddr, to: SocketAddr| {
        let (mut attempts, mut failed) = (0, 0);
        while !is_over.load(Ordering::Relaxed) {
            attempts += 1;
            failed += usize::from(attempt(Some(from), to, PATIENCE) != Answer::Connected);
            std::thread::sleep(Duration::from_millis(5));
        }
        (attempts, failed)
    };
    let ways =
        [(CLIENT4, SERVER4, 22), (CLIENT6, SERVER6, 22), (CLIENT4, SERVER4, 8005), (CLIENT6, SERVER6, 8005)];
    let (renewals, found) = world.on_client(|| {
        std::thread::scope(|scope| {
            let probes = ways.map(|(from, to, port)| scope.spawn(move || probe(from, (to, port).into())));
            let (began, mut renewals) = (Instant::now(), 0);
            while began.elapsed() < Duration::from_secs(4) {
                renew();
                renewals += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            is_over.store(true, Ordering::Relaxed);
            (renewals, probes.map(|probe| probe.join().unwrap()))
        })
    });
    println!(
        "{renewals} renewals; attempts and failures over IPv4 and IPv6, one port and a range: {found:?}"
    );
    assert!(
        renewals > 5 && found.iter().all(|(attempts, failed)| *attempts > 50 && *failed == 0),
        "{found:?}"
    );
    assert!(wait_for(Duration::from_secs(4), || !world.can_connect(SERVER4, 22)), "they end all the same");
}
