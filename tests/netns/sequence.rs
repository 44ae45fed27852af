//! Encoded sequences through the real kernel: what they open, what they bear, and what opens nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, sendto, socket_with,
};

use crate::common::{
    CLIENT4, CLIENT6, Daemon, GUARDED, PATIENCE, PLAIN, SERVER_NAME, SERVER4, SERVER6, STRANGER4, World,
    attempt, said, succeed, wait_for, within,
};

/// The span is closed without an answer, as on a host whose firewall drops what it does not know.
const CLOSED: &str = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\", \"tcp/16384-49151\"]\n";

/// A world whose laptop may knock by sequences alone.
fn world() -> World {
    let world = World::new();
    world.configure(PLAIN);
    world.enrol("laptop", &["--open", "tcp/22"]);
    allow(&world, "\"sequence\"");
    world
}

/// Lets the profile knock so, and the client know it.
fn allow(world: &World, methods: &str) {
    world.amend(
        "laptop",
        &format!("methods = [{methods}]\nother_addresses = [\"10.77.0.0/24\", \"fd77::/64\"]\n"),
    );
    world.edit("home/.config/knockd-rs/myserver.toml", |text| {
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("methods", _)) => format!("methods = [{methods}]"),
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
}

/// The ports of one sequence, which counts as a knock.
fn ports(world: &World, arguments: &[&str]) -> Vec<u16> {
    let words = [&["sequence", SERVER_NAME, "--print"], arguments].concat();
    let printed = succeed(&world.client(&words));
    printed.lines().map(|line| line.split_once('/').unwrap().1.parse().unwrap()).collect()
}

/// What knocks at one port.
#[derive(Clone, Copy)]
enum Carrier {
    Tcp,
    Udp,
}

/// Knocks at these ports from the client's namespace, from another address where one is named.
fn knock_at(world: &World, from: Option<IpAddr>, to: IpAddr, ports: &[u16], carrier: Carrier) {
    world.on_client(|| {
        for port in ports {
            let to = SocketAddr::new(to, *port);
            let from = SocketAddr::new(from.unwrap_or(if to.is_ipv4() { CLIENT4 } else { CLIENT6 }), 0);
            match carrier {
                Carrier::Udp => drop(UdpSocket::bind(from).unwrap().send_to(b"x", to)),
                Carrier::Tcp => {
                    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                    let socket =
                        socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
                    bind(&socket, &from).unwrap();
                    assert!(matches!(connect(&socket, &to), Err(Errno::INPROGRESS | Errno::CONNREFUSED)));
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

fn accepted(daemon: &Daemon<'_>) -> u64 {
    daemon.counter("knocks accepted")
}

#[track_caller]
fn await_accepted(daemon: &Daemon<'_>, count: u64) {
    assert!(wait_for(Duration::from_secs(3), || accepted(daemon) == count), "{}", daemon.log());
}

/// Waits until all that was sent has been looked at.
fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

/// In the same way every time (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.roll(last + 1));
        }
    }
}

#[test]
fn a_sequence_opens_a_port_over_both_families_by_tcp_and_by_udp() {
    for (host, server, client) in [(SERVER4, SERVER4, CLIENT4), (SERVER6, SERVER6, CLIENT6)] {
        for carrier in [&[][..], &["--udp"]] {
            let world = world();
            world.retarget(&host.to_string());
            let daemon = world.daemon(CLOSED);
            let _ssh = world.listener(22);
            assert!(!world.can_connect(server, 22));
            let words = [&["knock", SERVER_NAME, "tcp/22", "--sequence", "--for", "1m"], carrier].concat();
            let output = world.client(&words);
            assert!(output.status.success(), "{}\n{}", said(&output), daemon.log());
            daemon.await_log(&format!("granted laptop from {client}: tcp/22 for 1m4s, one connection"));
            assert!(world.can_connect(server, 22) && !world.can_stranger_connect(server, 22));
        }
    }
}

#[test]
fn every_field_of_the_request_arrives() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    world.knock(&["--sequence", "--fast", "--many", "--for", "5m", "--address", "10.77.0.3"]);
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 to 10.77.0.3 for 5m4s");
    world.knock(&["--sequence", "--fast", "--close", "--address", "10.77.0.3"]);
    daemon.await_log("closed laptop from 10.77.0.2");
    assert!(daemon.grants().is_empty());
    // An IPv6 address asked for over IPv4: 54 knocks, of which 20 may be lost.
    world.knock(&["--sequence", "--fast", "--address", "fd77::3"]);
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 to fd77::3 for 15s");
    // Good from this address only.
    world.knock(&["--sequence", "--fast", "--pin"]);
    assert!(wait_for(Duration::from_secs(3), || daemon.grants().len() == 2), "{}", daemon.log());
}

#[test]
fn any_order_copies_and_eight_of_28_lost_open_the_port_all_at_once() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    let mut dice = Dice(11);
    for round in 1..=10 {
        let mut knocks = ports(&world, &[]);
        assert_eq!(knocks.len(), 28);
        dice.shuffle(&mut knocks);
        knocks.truncate(20);
        knocks = [knocks.clone(), knocks].concat();
        dice.shuffle(&mut knocks);
        let carrier = if round % 2 == 0 { Carrier::Tcp } else { Carrier::Udp };
        knock_at(&world, None, SERVER4, &knocks, carrier);
        await_accepted(&daemon, round);
    }
    assert_eq!(daemon.logged("refused"), 0, "{}", daemon.log());
}

#[test]
fn what_is_printed_opens_the_port_when_another_program_knocks() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    let bash = |script: &str| {
        let mut shell = world.inside(&world.client);
        shell.args(["bash", "-c", script]).env("HOME", world.path("home"));
        shell.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        succeed(&shell.output().unwrap());
    };
    let program = crate::common::KNOCKD;
    bash(&format!(
        "for p in $({program} sequence myserver --print --udp); do echo >/dev/udp/10.77.0.1/${{p#udp/}}; done"
    ));
    await_accepted(&daemon, 1);
    bash(&format!(
        "for p in $({program} sequence myserver --print); do (exec 3<>/dev/tcp/10.77.0.1/${{p#tcp/}}) & done; \
         sleep 0.3; kill $(jobs -p)"
    ));
    await_accepted(&daemon, 2);
}

#[test]
fn a_sequence_heard_once_opens_nothing_again_also_after_a_restart() {
    let world = world();
    let mut daemon = world.daemon(CLOSED);
    let knocks = ports(&world, &[]);
    knock_at(&world, None, SERVER4, &knocks, Carrier::Tcp);
    await_accepted(&daemon, 1);
    for from in [CLIENT4, STRANGER4] {
        knock_at(&world, Some(from), SERVER4, &knocks, Carrier::Udp);
    }
    settle();
    assert_eq!((accepted(&daemon), daemon.logged("refused")), (1, 0), "{}", daemon.log());
    daemon.restart();
    for from in [STRANGER4, CLIENT4] {
        knock_at(&world, Some(from), SERVER4, &knocks, Carrier::Udp);
    }
    daemon.await_log("refused laptop from 10.77.0.3: the knock's counter was used before");
    settle();
    assert_eq!((accepted(&daemon), daemon.logged("granted")), (0, 0), "{}", daemon.log());
}

#[test]
fn a_recorded_sequence_with_one_port_changed_opens_nothing_new() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    let knocks = ports(&world, &[]);
    knock_at(&world, None, SERVER4, &knocks, Carrier::Udp);
    await_accepted(&daemon, 1);
    let mut dice = Dice(77);
    for place in 0..knocks.len() {
        let mut changed = knocks.clone();
        changed[place] = u16::try_from(16_384 + dice.roll(32_768)).unwrap();
        knock_at(&world, Some(STRANGER4), SERVER4, &changed, Carrier::Udp);
    }
    settle();
    assert_eq!((accepted(&daemon), daemon.logged("10.77.0.3")), (1, 0), "{}", daemon.log());
}

#[test]
fn the_same_request_twice_goes_to_other_ports() {
    let world = world();
    let (one, two) = (ports(&world, &["tcp/22"]), ports(&world, &["tcp/22"]));
    let common = one.iter().filter(|port| two.contains(port)).count();
    assert!(common <= 3, "{one:?} {two:?}");
}

#[test]
fn a_profile_that_does_not_list_sequences_opens_nothing_by_them() {
    let world = world();
    let knocks = ports(&world, &[]);
    allow(&world, "\"spa\"");
    let daemon = world.daemon(CLOSED);
    knock_at(&world, None, SERVER4, &knocks, Carrier::Udp);
    settle();
    // Not even the packet filter lets the knocks through.
    assert_eq!((accepted(&daemon), daemon.counter("frames")), (0, 0), "{}", daemon.log());
    let output = world.client(&["knock", SERVER_NAME, "--sequence"]);
    assert!(
        said(&output).contains("does not take knocks by sequence from this client, only by spa"),
        "{}",
        said(&output)
    );
    // Beside a profile that does, it is a stranger.
    world.enrol_as("other", "tablet", &["--open", "tcp/22"]);
    world.amend("tablet", "methods = [\"sequence\"]\n");
    daemon.reload();
    knock_at(&world, None, SERVER4, &knocks, Carrier::Udp);
    settle();
    assert_eq!((accepted(&daemon), daemon.counter("dropped: partial")), (0, 28), "{}", daemon.log());
}

#[test]
fn explain_shows_the_way_to_the_ports_and_counts_nothing() {
    let world = world();
    let before = ports(&world, &[]);
    let shown = succeed(&world.client(&["sequence", SERVER_NAME, "--explain", "tcp/22", "--for", "5m"]));
    for line in [
        "request  open tcp/22 for the knocks' source",
        "payload  8 bytes",
        "304 s",
        "message  18 bytes",
        "28 knocks, of which any 18 are enough",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert_eq!(
        shown.lines().filter(|line| line.contains("tcp/") && !line.starts_with("request")).count(),
        28
    );
    let counter =
        || std::fs::read_to_string(world.path("home/.local/state/knockd-rs/myserver.sequence")).unwrap();
    let counted = counter();
    succeed(&world.client(&["sequence", SERVER_NAME, "--explain", "--json"]));
    assert_eq!((counter(), before.len()), (counted, 28));
    // It may be shown to others: whoever knocks at these ports opens nothing.
    let ports: Vec<u16> = shown
        .lines()
        .filter_map(|line| line.rsplit_once("tcp/")?.1.trim().parse().ok().filter(|port| *port > 1024))
        .collect();
    assert_eq!(ports.len(), 28);
    let daemon = world.daemon(GUARDED);
    world.on_client(|| {
        for port in &ports {
            let _ = attempt(None, (SERVER4, *port).into(), Duration::from_millis(20));
        }
    });
    assert!(wait_for(PATIENCE, || daemon.counter("dropped: partial") == 28), "{}", daemon.log());
    assert!(daemon.grants().is_empty());
}

/// Forged SYNs from the client's own address to random ports of the span, so many a second.
struct Junk<'a> {
    stop: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl Junk<'_> {
    fn pour(&self, rate: u64) {
        let socket =
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
                .unwrap();
        let (started, mut dice) = (Instant::now(), Dice(4711));
        while !self.stop.load(Ordering::Relaxed) {
            let due = u64::try_from(started.elapsed().as_micros()).unwrap() * rate / 1_000_000;
            let sent = self.sent.load(Ordering::Relaxed);
            for _ in sent..due.min(sent + 200) {
                let port = u16::try_from(16_384 + dice.roll(32_768)).unwrap();
                let packet = syn(CLIENT4, SERVER4, u16::try_from(1024 + dice.roll(60_000)).unwrap(), port);
                let _ = sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(SERVER4, 0));
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// A bare SYN (RFC 9293, section 3.1) in an IPv4 packet; the kernel fills in length, id and IP checksum (raw(7)).
fn syn(from: IpAddr, to: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(source_port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn sequences_arrive_within_two_tries_through_ten_thousand_forged_knocks_a_second() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let junk = Junk { stop: &stop, sent: &sent };
    let (mut first, mut second, mut never) = (0, 0, 0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| within(&world.client, || junk.pour(10_000)));
        let _end = OnDrop(&stop);
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..100 {
            let before = daemon.logged("granted");
            let try_once = || {
                let words = ["knock", SERVER_NAME, "--sequence", "--fast", "--no-wait", "--quiet"];
                let mut child = world.client_command(&words).spawn().unwrap();
                let arrived = wait_for(Duration::from_millis(1500), || daemon.logged("granted") > before);
                // What it would still send of the same sequence is not needed any more.
                let _ = child.kill();
                child.wait().unwrap();
                arrived
            };
            match () {
                () if try_once() => first += 1,
                () if try_once() => second += 1,
                () => never += 1,
            }
        }
    });
    let rate = sent.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let lost = daemon.counter("lost by the kernel");
    println!("{first} at the first try, {second} at the second, {never} never");
    println!("{rate:.0} forged knocks a second; {lost} packets of all were lost before they were looked at");
    assert!(rate > 9_000.0, "{rate} forged knocks a second are too few to show anything");
    assert!(first + second >= 99, "{first} + {second} of 100\n{}", daemon.log());
    assert_eq!(daemon.logged("refused"), 0, "{}", daemon.log());
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The default tempo has 28 knocks among eleven thousand; the client sees that nothing opens and hurries by itself.
#[test]
fn a_client_that_waits_for_the_port_gets_it_through_ten_thousand_forged_knocks_a_second() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    let _ssh = world.listener(22);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let junk = Junk { stop: &stop, sent: &sent };
    std::thread::scope(|scope| {
        scope.spawn(|| within(&world.client, || junk.pour(10_000)));
        let _end = OnDrop(&stop);
        let output = world.client(&["knock", SERVER_NAME, "--sequence", "--timeout", "20s"]);
        assert!(output.status.success(), "{}\n{}", said(&output), daemon.log());
    });
}

#[test]
fn memory_stays_as_it_is_under_a_flood_from_many_sources() {
    let world = world();
    let daemon = world.daemon(CLOSED);
    world.knock(&["--sequence", "--fast"]);
    await_accepted(&daemon, 1);
    let resident = || {
        let worker = daemon.worker().as_raw_nonzero();
        let statm = std::fs::read_to_string(format!("/proc/{worker}/statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    };
    let before = resident();
    let mut dice = Dice(8);
    world.on_client(|| {
        let socket =
            socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
                .unwrap();
        for number in 0..200_000u32 {
            let from = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
            let packet = syn(from, SERVER4, 4000, u16::try_from(16_384 + dice.roll(32_768)).unwrap());
            let _ = sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(SERVER4, 0));
        }
    });
    let after = resident();
    println!("{before} KiB resident before, {after} KiB after");
    assert!(daemon.counter("dropped: partial") > 50_000, "the flood did not arrive");
    assert!(after < before + 2048, "{before} KiB before, {after} KiB after");
    world.knock(&["--sequence", "--fast"]);
    await_accepted(&daemon, 2);
}
