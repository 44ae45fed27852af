//! A million mutated packets, twice: through the decoder, and over the wire at the real daemon. None may have an
//! effect of any kind: no panic, no byte sent, no log line, no memory.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod common;
mod packets;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use common::{CABLE, Daemon, KNOCK_PORT, SERVER4, STRANGER4, STRANGER6, World, ip, said, wait_for};
use knockd_rs::crypto::{Gate, KeyPair, Secret};
use knockd_rs::enrol::Enrolment;
use knockd_rs::frame::{Link, parse};
use knockd_rs::grant::Session;
use knockd_rs::knock::spa::{ClientIdentity, ClientKeys, MAX_LEN, MIN_LEN, PAYLOAD_STEP, seal};
use knockd_rs::knock::{Ask, Drop as Dropped, Freshness, Listener, Op, Outcome, Rates, Target, Wanted};
use knockd_rs::time::{ClockTrust, Now, Timestamp};
use packets::{DOT1Q, IPV4, IPV6, UDP, ethernet, udp};

const MILLION: usize = 1_000_000;

// --- packets that are no knocks --------------------------------------------------------------------------------

/// What a packet is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Random bytes of a length that knocks have.
    Noise,
    /// A knock with 1 to 16 of its bits flipped.
    Bits,
    /// A knock with 1 to 16 of its bytes changed.
    Bytes,
    /// A knock without its end.
    Short,
    /// A knock with something behind it.
    Long,
    /// Random bytes under a right mac1: from a robbed client, or one that was cut off. Costs a Diffie-Hellman.
    Gated,
    /// A mutated knock under a right mac1.
    GatedBits,
    /// Sealed by somebody whom no profile knows.
    Unknown,
    /// Sealed by the client with another psk.
    Psk,
    /// Sealed for another server.
    OtherServer,
    /// Another length or port.
    Elsewhere,
    /// In a frame whose headers are mutated.
    Frame,
}

/// How many in a hundred; those that cost this program Diffie-Hellmans are rare.
const MIX: [(Kind, u8); 12] = [
    (Kind::Noise, 16),
    (Kind::Bits, 16),
    (Kind::Bytes, 14),
    (Kind::Short, 10),
    (Kind::Long, 10),
    (Kind::Gated, 3),
    (Kind::GatedBits, 3),
    (Kind::Unknown, 1),
    (Kind::Psk, 1),
    (Kind::OtherServer, 1),
    (Kind::Elsewhere, 10),
    (Kind::Frame, 15),
];

/// xorshift64* (Vigna, 2016): the same packets in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.roll().to_le_bytes()[..chunk.len()]));
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }

    /// A length that the decoder takes up.
    fn length(&mut self) -> usize {
        let longer = if self.below(4) == 0 { self.below((MAX_LEN - MIN_LEN) / PAYLOAD_STEP + 1) } else { 0 };
        MIN_LEN + PAYLOAD_STEP * longer
    }
}

/// Makes packets that are nearly knocks.
struct Mutator {
    dice: Dice,
    client: ClientIdentity,
    gate: Gate,
    /// A knock that was never sent.
    good: Vec<u8>,
}

impl Mutator {
    fn new(client: ClientIdentity, counter: Timestamp) -> Self {
        let gate = Gate::new(&client.server, &client.gate);
        let good = sealed(&client, counter, [7; 32]);
        Self { dice: Dice(0x9e37_79b9_7f4a_7c15), client, gate, good }
    }

    fn kind(&mut self) -> Kind {
        let mut throw = self.dice.below(100);
        let found = MIX.iter().find(|(_, share)| match throw.checked_sub(usize::from(*share)) {
            Some(rest) => {
                throw = rest;
                false
            }
            None => true,
        });
        found.unwrap().0
    }

    /// The payload of a datagram, and the port it goes to.
    fn datagram(&mut self, kind: Kind) -> (Vec<u8>, u16) {
        let dice = &mut self.dice;
        let mut bytes = match kind {
            Kind::Noise | Kind::Gated => {
                let length = dice.length();
                dice.bytes(length)
            }
            Kind::Unknown | Kind::Psk | Kind::OtherServer => self.sealed_wrongly(kind),
            Kind::Elsewhere => {
                let length = [0, 1, 15, 16, 111, 175, 177, 191, 1231, 1233, 1400][dice.below(11)];
                dice.bytes(length)
            }
            _ => self.good.clone(),
        };
        let dice = &mut self.dice;
        let times = 1 + dice.below(16);
        match kind {
            Kind::Bits | Kind::GatedBits | Kind::Frame => {
                // Each bit once, or they would undo one another; those of a mac1 that is made anew are not among them.
                let length = if kind == Kind::GatedBits { bytes.len() - 16 } else { bytes.len() };
                let first = dice.below(length * 8 - times);
                (first..first + times).for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
            }
            Kind::Bytes => {
                let first = dice.below(bytes.len() - times);
                bytes[first..first + times]
                    .iter_mut()
                    .for_each(|byte| *byte ^= 1 + (dice.roll() % 255) as u8);
            }
            Kind::Short => bytes.truncate(dice.below(MIN_LEN)),
            Kind::Long => {
                let more = dice.below(200) + 1;
                bytes.extend(dice.bytes(more));
            }
            _ => {}
        }
        if matches!(kind, Kind::Gated | Kind::GatedBits) {
            let body = bytes.len() - 16;
            let mac1 = self.gate.mac1(&self.client.pseudonym(), &bytes[..body]);
            bytes[body..].copy_from_slice(&mac1);
        }
        let other = (1 + dice.below(65_535)) as u16;
        let elsewhere = kind == Kind::Elsewhere && dice.below(2) == 0;
        (bytes, if elsewhere { other } else { KNOCK_PORT })
    }

    fn sealed_wrongly(&mut self, kind: Kind) -> Vec<u8> {
        let mut client = self.client.clone();
        let mut seed = [0; 32];
        self.dice.fill(&mut seed);
        let known_by = client.pseudonym();
        match kind {
            Kind::Unknown => client.keys = KeyPair::from_seed(seed),
            Kind::Psk => client.psk = Secret::new(seed),
            _ => client.server = KeyPair::from_seed(seed).public(),
        }
        self.dice.fill(&mut seed);
        let mut packet = sealed(&client, Timestamp::from_secs(self.dice.roll() >> 32), seed);
        if kind != Kind::OtherServer && self.dice.below(2) == 0 {
            // In the name of the client, by somebody who holds the gate key and has seen its packets.
            let body = packet.len() - 16;
            let mac1 = self.gate.mac1(&known_by, &packet[..body]);
            packet[body..].copy_from_slice(&mac1);
        }
        packet
    }

    /// An Ethernet frame from a stranger. With [`Kind::Frame`] its headers are changed too, and its payload is
    /// never a knock.
    fn frame(&mut self, kind: Kind, to: [u8; 6]) -> Vec<u8> {
        let (payload, port) = self.datagram(kind);
        assert!(payload != self.good, "{kind:?} has left the knock as it was");
        let dice = &mut self.dice;
        let datagram = udp(port, &payload);
        let is_v6 = dice.below(2) == 0;
        let (ether_type, packet) =
            if is_v6 { (IPV6, ipv6_packet(&datagram)) } else { (IPV4, ipv4_packet(&datagram)) };
        let tags: &[(u16, u16)] = if dice.below(50) == 0 { &[(DOT1Q, 5)] } else { &[] };
        let mut frame = ethernet(tags, ether_type, &packet);
        frame[..6].copy_from_slice(&to);
        if kind == Kind::Frame {
            for _ in 0..=dice.below(6) {
                // The destination stays, so that it arrives; and so does the payload, or chance would now and then
                // mend what was broken in it, and the packet would be a knock.
                let place = 12 + dice.below(frame.len() - payload.len() - 12);
                frame[place] = dice.roll() as u8;
            }
            if dice.below(8) == 0 {
                // What comes next, by the IPv6 header: an extension header that is none.
                frame[20] = [0, 43, 44, 50, 51, 60, 135, 139][dice.below(8)];
            }
            if dice.below(4) == 0 {
                frame.truncate(14 + dice.below(frame.len() - 14));
            }
        }
        frame
    }
}

fn ipv4_packet(datagram: &[u8]) -> Vec<u8> {
    let IpAddr::V4(from) = STRANGER4 else { unreachable!() };
    let mut packet = packets::ipv4(from.octets(), 0, &[], UDP, datagram);
    let IpAddr::V4(to) = SERVER4 else { unreachable!() };
    packet[16..20].copy_from_slice(&to.octets());
    // The checksum of the header, with the destination changed (RFC 1071).
    packet[10..12].fill(0);
    let sum: u32 = packet[..20].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn ipv6_packet(datagram: &[u8]) -> Vec<u8> {
    let IpAddr::V6(from) = STRANGER6 else { unreachable!() };
    let mut packet = packets::ipv6(from.octets(), UDP, datagram);
    let IpAddr::V6(to) = common::SERVER6 else { unreachable!() };
    packet[24..40].copy_from_slice(&to.octets());
    packet
}

fn sealed(client: &ClientIdentity, counter: Timestamp, ephemeral: [u8; 32]) -> Vec<u8> {
    let ask = Ask {
        op: Op::Open,
        target: Target::Source,
        uses: None,
        session: Session::default(),
        wide: false,
        duration: None,
        ports: Wanted::Ports(vec!["tcp/22".parse().unwrap()]),
    };
    seal(&ask, counter, client, Secret::new(ephemeral), 64).unwrap()
}

// --- through the decoder ---------------------------------------------------------------------------------------

#[test]
fn a_million_mutated_packets_through_the_decoder_are_no_knock_and_leave_no_mark() {
    let noon = Timestamp::from_secs(1_800_000_000);
    let server = KeyPair::from_seed([1; 32]);
    let client = ClientIdentity {
        keys: KeyPair::from_seed([2; 32]),
        psk: Secret::new([3; 32]),
        server: server.public(),
        gate: Secret::new([4; 32]),
    };
    let known =
        ClientKeys { public: client.keys.public(), psk: client.psk.clone(), freshness: Freshness::default() };
    let rates = Rates { all: u32::MAX.try_into().unwrap(), source: u32::MAX.try_into().unwrap() };
    let mut decoder =
        Listener::new(rates, [9; 16], Timestamp::from_secs(1)).with_spa(server, &client.gate, [known]);
    let mut mutator = Mutator::new(client, noon);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..MILLION {
        let now = Now {
            wall: noon,
            uptime: Duration::from_micros(number as u64),
            trust: if number % 2 == 0 { ClockTrust::Synchronised } else { ClockTrust::Unsynchronised },
        };
        let kind = mutator.kind();
        let frame = mutator.frame(kind, [0xff; 6]);
        let reason = match parse(Link::Ethernet, &frame, frame.len()) {
            Err(refused) => refused.name(),
            Ok(segment) if segment.port != KNOCK_PORT => "elsewhere",
            Ok(segment) => match decoder.receive(&segment, now) {
                Outcome::Dropped(reason) => reason.name(),
                other => panic!("{kind:?}, packet {number}: {other:?}"),
            },
        };
        *seen.entry(reason).or_default() += 1;
    }
    println!("{seen:?}");
    assert_eq!(seen.values().sum::<usize>(), MILLION);
    // Every check was reached; a copy and a flood are other tests' subjects.
    for reason in [Dropped::Length, Dropped::Mac, Dropped::Key, Dropped::UnknownClient] {
        assert!(seen.contains_key(reason.name()), "{reason:?} never came up");
    }
    for reason in ["not-ip", "header", "fragment", "extension", "transport", "udp-length"] {
        assert!(seen.contains_key(reason), "{reason} never came up");
    }
    assert_eq!(decoder.marks().count(), 0);
    // Among all of this the knock that they were made from is still good, once.
    let (frame, now) = (
        ethernet(&[], IPV4, &ipv4_packet(&udp(KNOCK_PORT, &mutator.good))),
        Now { wall: noon, uptime: Duration::from_secs(9), trust: ClockTrust::Synchronised },
    );
    let segment = parse(Link::Ethernet, &frame, frame.len()).unwrap();
    assert!(matches!(decoder.receive(&segment, now), Outcome::Knock(_)));
    assert_eq!(decoder.receive(&segment, now), Outcome::Dropped(Dropped::Repeat));
}

// --- over the wire ---------------------------------------------------------------------------------------------

/// One hundred thousand handshakes a second, so that the memory behind every check is filled.
const CONFIG: &str = "\
[capture]
device = \"veth0\"
[freshness]
clock = \"trusted\"
[guard]
drop = [\"tcp/22\"]
[limits]
handshakes_per_second = 100000
handshakes_per_source = 100000
";

/// What the kernel itself would say to strangers, ICMP errors and answers to ARP and neighbour discovery aside,
/// is kept off the cable by another table: what is counted then is what the daemon sends.
const QUIET: &str = "\
table inet quiet {
    chain in { type filter hook prerouting priority -500; iifname veth0 drop; }
    chain out { type filter hook output priority -500; meta l4proto { icmp, icmpv6 } drop; }
}
table arp quiet {
    chain out { type filter hook output priority 0; drop; }
}
";

#[test]
fn a_million_mutated_packets_on_the_wire_have_no_effect_on_the_daemon() {
    let world = World::new();
    let mut daemon = world.daemon(CONFIG);
    let _listener = world.listener(22);
    // The honest client need not ask where the server is.
    let mac = fs_of(&world, "address");
    ip(&format!("-n {} neighbour replace {SERVER4} lladdr {mac} dev {CABLE} nud permanent", world.client));
    fs::write(world.path("quiet.nft"), QUIET).unwrap();
    world.nft(&["-f", world.path("quiet.nft").to_str().unwrap()]);
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mac: [u8; 6] = mac.try_into().unwrap();
    let mut mutator = Mutator::new(identity(&world), knockd_rs::clock::wall());

    let warm = flood(&world, &daemon, &mut mutator, mac, MILLION / 10);
    let before = Witness::of(&world, &daemon);
    let started = Instant::now();
    // The first half, a knock in the midst of the second, and the rest.
    let first = flood(&world, &daemon, &mut mutator, mac, MILLION / 2);
    assert_eq!(Witness::of(&world, &daemon).without_memory(), before.without_memory());
    let second = std::thread::scope(|scope| {
        let flooded =
            scope.spawn(|| flood(&world, &daemon, &mut mutator, mac, MILLION - MILLION / 2 - MILLION / 10));
        std::thread::sleep(Duration::from_millis(500));
        world.knock(&["--for", "1m"]);
        assert!(!flooded.is_finished(), "the knock came too late to be in the midst of it");
        flooded.join().unwrap()
    });
    let took = started.elapsed();
    let after = Witness::of(&world, &daemon);
    assert_eq!((after.processes, after.sent), (before.processes, before.sent));
    let lines: Vec<&str> = after.log[before.log.len()..].lines().collect();
    assert!(
        matches!(lines.as_slice(), [line] if line.contains("granted laptop from 10.77.0.2")),
        "{lines:?}"
    );
    let grown: Vec<i64> =
        after.memory.iter().zip(before.memory).map(|(after, before)| after - before).collect();
    let counters = daemon.status()["counters"].to_string();
    println!(
        "{} packets on the wire, the last {} of them in {took:.1?}; resident memory of monitor and worker: {:?} KiB, \
         grown by {grown:?}; {counters}",
        warm + first + second,
        first + second,
        after.memory,
    );
    assert!(grown.iter().all(|grown| *grown <= 512), "memory grew by {grown:?} KiB");
    // The worker has seen nearly all of what the kernel's filter lets through.
    let (frames, lost) = (daemon.counter("frames"), daemon.counter("lost by the kernel"));
    assert!(frames > (MILLION / 2) as u64 && lost < frames / 10, "{frames} seen, {lost} lost");
    for reason in [Dropped::Mac, Dropped::Key, Dropped::UnknownClient].map(Dropped::name) {
        assert!(daemon.counter(&format!("dropped: {reason}")) > 0, "{reason} never came up: {counters}");
    }
    world.nft(&["delete", "table", "inet", "quiet"]);
    world.nft(&["delete", "table", "arp", "quiet"]);
    assert!(world.can_connect(SERVER4, 22), "the knock in the midst of it opened nothing");
    assert!(Witness::of(&world, &daemon).sent > after.sent, "what leaves the server is not counted");
    assert!(!world.can_stranger_connect(SERVER4, 22));
    world.knock(&["--close"]);
    world.knock_until(&[], || world.can_connect(SERVER4, 22));
    assert!(daemon.stop().success());
}

#[test]
fn no_key_is_in_the_log_the_status_or_what_other_users_see_of_the_processes() {
    let world = World::new();
    let daemon = world.daemon(&CONFIG.replace("[limits]", "[log]\nlevel = \"debug\"\n[limits]"));
    let client = identity(&world);
    world.knock(&[]);
    daemon.await_log("granted laptop");
    let counters = [Timestamp::from_secs(1), Timestamp::from_nanos(u64::MAX)];
    world.on_client(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for (seed, counter) in (40..).zip(counters) {
            socket.send_to(&sealed(&client, counter, [seed; 32]), (SERVER4, KNOCK_PORT)).unwrap();
        }
    });
    assert!(wait_for(common::SOON, || daemon.logged("refused laptop") == 2), "{}", daemon.log());
    daemon.reload();
    let mut seen = daemon.log() + &daemon.command(&["status"]) + &daemon.status().to_string();
    for process in [daemon.monitor(), daemon.worker()].map(|pid| pid.as_raw_nonzero().get()) {
        for file in ["cmdline", "environ", "comm"] {
            seen += &String::from_utf8_lossy(&fs::read(format!("/proc/{process}/{file}")).unwrap());
        }
    }
    let keys = ["etc/server.key", "etc/gate.key"].map(|file| fs::read_to_string(world.path(file)).unwrap());
    let mut secrets: Vec<String> = keys.iter().map(|key| key.trim().to_owned()).collect();
    secrets.extend([client.psk.to_base64().to_string(), client.keys.secret().to_base64().to_string()]);
    for secret in secrets {
        assert_eq!(secret.len(), 44);
        assert!(!seen.contains(&secret[..32]), "{seen}");
    }
}

/// What must not change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Witness {
    processes: (i32, i32),
    /// Packets and bytes that left the server's end of the cable.
    sent: (u64, u64),
    log: String,
    /// Resident memory of monitor and worker in KiB.
    memory: [i64; 2],
}

impl Witness {
    fn of(world: &World, daemon: &Daemon<'_>) -> Self {
        let (monitor, worker) =
            (daemon.monitor().as_raw_nonzero().get(), daemon.worker().as_raw_nonzero().get());
        let number = |name: &str| fs_of(world, &format!("statistics/{name}")).parse().unwrap();
        Self {
            processes: (monitor, worker),
            sent: (number("tx_packets"), number("tx_bytes")),
            log: daemon.log(),
            memory: [resident(monitor), resident(worker)],
        }
    }

    fn without_memory(&self) -> Self {
        Self { memory: [0; 2], ..self.clone() }
    }
}

/// A property of the server's end of the cable.
fn fs_of(world: &World, name: &str) -> String {
    let output = world
        .inside(&world.server)
        .args(["cat", &format!("/sys/class/net/{CABLE}/{name}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn resident(process: i32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The client's keys, as a robber finds them.
fn identity(world: &World) -> ClientIdentity {
    let path = world.path("home/.config/knockd-rs/myserver.toml");
    let enrolment = Enrolment::parse("myserver.toml", &fs::read_to_string(path).unwrap()).unwrap();
    ClientIdentity {
        keys: enrolment.key_pair().unwrap(),
        psk: enrolment.access.psk.clone().unwrap(),
        server: enrolment.access.server_key,
        gate: enrolment.access.gate_key.clone(),
    }
}

/// Sends so many packets from the client's end of the cable, never many more than the worker has taken up.
fn flood(world: &World, daemon: &Daemon<'_>, mutator: &mut Mutator, to: [u8; 6], count: usize) -> usize {
    let worker = daemon.worker().as_raw_nonzero().get();
    world.on_client(|| {
        let mut cable = pcap::Capture::from_device(CABLE).unwrap().snaplen(64).open().unwrap();
        cable.filter("ether proto 0xffff", true).unwrap();
        for number in 0..count {
            let kind = mutator.kind();
            let frame = mutator.frame(kind, to);
            cable.sendpacket(frame).unwrap();
            if number % 500 == 0 {
                wait_for(Duration::from_millis(200), || is_asleep(worker));
            }
        }
    });
    wait_for(Duration::from_secs(2), || is_asleep(worker));
    count
}

/// Whether the process waits for something: its ring is empty then.
fn is_asleep(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('S')
}

#[test]
fn the_addresses_in_the_frames_are_those_of_the_cable() {
    assert_eq!(STRANGER4, IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3)));
    assert_eq!(STRANGER6, IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3)));
    let packet = ipv4_packet(&[]);
    let sum: u32 = packet[..20].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
}
