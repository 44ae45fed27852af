//! The firewall against the real kernel: two throw-away network namespaces, a veth pair between them, real
//! sockets, and `nft` to look at the result. Needs root; without it every test says so and passes.
#![cfg(feature = "daemon")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows both in tests, but helpers are no #[test]"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use knockd_rs::nft::{
    AdminSets, Change, Closed, Door, Firewall, FirewallError, Guarded, LiveDoor, LiveGuard, Owner, Ownership,
    Session, SetNames, Table, TableOptions, Uses,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const SERVER4: &str = "10.99.0.1";
const SERVER6: &str = "fd99::1";
const CLIENT4: &str = "10.99.0.2";
const CLIENT6: &str = "fd99::2";
/// How long a stranger waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Two namespaces and the veth pair between them; gone when dropped.
struct Net {
    server: String,
    client: String,
}

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Self { server: format!("kr2-s-{id}"), client: format!("kr2-c-{id}") };
        let (s, c) = (&net.server, &net.client);
        for line in [
            format!("netns add {s}"),
            format!("netns add {c}"),
            format!("-n {s} link set lo up"),
            format!("-n {s} link add veth0 type veth peer name veth0 netns {c}"),
            format!("-n {s} address add {SERVER4}/24 dev veth0"),
            format!("-n {s} address add {SERVER6}/64 dev veth0 nodad"),
            format!("-n {c} address add {CLIENT4}/24 dev veth0"),
            format!("-n {c} address add {CLIENT6}/64 dev veth0 nodad"),
            format!("-n {s} link set veth0 up"),
            format!("-n {c} link set veth0 up"),
        ] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
        }
        net
    }

    /// Runs a test in the server's namespace, where the firewall is.
    fn serve<T: Send>(&self, test: impl FnOnce(&Self) -> T + Send) -> T {
        within(&self.server, || test(self))
    }

    /// What a client meets at a TCP port.
    fn tcp(&self, server: &str, port: u16) -> Answer {
        let address = SocketAddr::new(server.parse().unwrap(), port);
        within(&self.client, move || match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(mut stream) => {
                let mut byte = [0];
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                Answer::Open
            }
            Err(error) => Answer::of(error.kind()),
        })
    }

    /// What a client meets at a UDP port, from a fresh source port.
    fn udp(&self, server: &str, port: u16) -> Answer {
        let address = SocketAddr::new(server.parse().unwrap(), port);
        within(&self.client, move || {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 8]).map_or_else(|error| Answer::of(error.kind()), |_| Answer::Open)
        })
    }

    fn nft(&self, arguments: &str) -> String {
        nft(&self.server, arguments)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Open,
    Silence,
    Refused,
}

impl Answer {
    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Silence,
            ErrorKind::ConnectionRefused => Self::Refused,
            other => panic!("unexpected answer: {other}"),
        }
    }
}

/// Runs `work` on a thread of its own inside a namespace: namespaces are a property of threads.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let result = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn nft(namespace: &str, arguments: &str) -> String {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(arguments.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { text(output.stdout) } else { format!("refused: {}", text(output.stderr)) }
}

/// Listens on these TCP ports, greets whoever connects, and echoes on the same UDP ports. Call inside the
/// server's namespace; lives as long as the process.
fn listen(ports: &[u16]) {
    for &port in ports {
        let listener = TcpListener::bind(("::", port)).unwrap();
        thread::spawn(move || {
            let mut open = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"!");
                open.push(stream);
            }
        });
        let socket = UdpSocket::bind(("::", port)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(buffer.get(..length).unwrap(), from);
            }
        });
    }
}

fn options(owner: Owner) -> TableOptions {
    TableOptions {
        owner,
        trusted_interfaces: vec!["lo".to_owned()],
        trusted_networks: vec![],
        behind: vec![],
    }
}

fn guard(ports: &str, closed: Closed) -> Guarded {
    Guarded { ports: ports.parse().unwrap(), closed, lifetime: None }
}

fn drop_on(ports: &str) -> Guarded {
    guard(ports, Closed::Drop)
}

fn door(address: &str, ports: &str, uses: Uses, millis: u64) -> Door {
    let (address, ports) = (address.parse().unwrap(), ports.parse().unwrap());
    Door {
        address,
        ports,
        uses,
        session: Session::default(),
        forwards: Vec::new(),
        wide: false,
        lifetime: Duration::from_millis(millis),
        note: "laptop".parse().unwrap(),
    }
}

fn open(address: &str, ports: &str, uses: Uses, millis: u64) -> Change {
    Change::Open(door(address, ports, uses, millis))
}

fn sleep(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// The ports of all grants in force.
fn granted(firewall: &mut impl Firewall) -> Vec<String> {
    let mut ports: Vec<_> =
        firewall.doors().unwrap().iter().map(|live| live.door.ports.to_string()).collect();
    ports.sort();
    ports
}

#[test]
fn a_guarded_port_is_closed_open_after_a_grant_and_closed_at_the_deadline() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 80]);
        let guards = [drop_on("tcp/22"), drop_on("udp/22")];
        let mut table = Table::start(options(Owner::Auto), &guards).unwrap();
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            assert_eq!(net.tcp(server, 22), Answer::Silence);
            assert_eq!(net.udp(server, 22), Answer::Silence);
            assert_eq!(net.tcp(server, 80), Answer::Open, "an unguarded port is untouched");
            assert_eq!(net.udp(server, 80), Answer::Open, "an unguarded port is untouched");

            let changes =
                [open(client, "tcp/22", Uses::Many, 1500), open(client, "udp/22", Uses::Many, 1500)];
            table.apply(&changes).unwrap();
            let deadline = Instant::now() + Duration::from_millis(1500);
            assert_eq!((net.tcp(server, 22), net.tcp(server, 22)), (Answer::Open, Answer::Open));
            assert_eq!((net.udp(server, 22), net.udp(server, 22)), (Answer::Open, Answer::Open));
            sleep(50);
            let live = table.doors().unwrap();
            let fresh = |l: &LiveDoor| l.granted.as_millis() == 1500 && l.door.lifetime < l.granted;
            assert!(live.iter().all(fresh), "{live:?}");
            assert!(live.iter().all(|l| l.door.note.as_str() == "laptop" && l.packets == 2 && l.bytes > 0));

            let mut last = Instant::now();
            while net.tcp(server, 22) == Answer::Open {
                last = Instant::now();
                sleep(10);
            }
            let late = last.saturating_duration_since(deadline);
            let early = deadline.saturating_duration_since(last);
            eprintln!("last connection {early:?} before, {late:?} after the deadline");
            assert!(late < Duration::from_millis(300) && early < Duration::from_millis(300));
            assert_eq!(net.udp(server, 22), Answer::Silence);
        }
    });
}

#[test]
fn a_grant_for_one_connection_admits_exactly_one() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 8000, 8001]);
        let guards = ["tcp/22", "udp/22", "tcp/8000-8100", "udp/8000-8100"].map(drop_on);
        let mut table = Table::start(options(Owner::Auto), &guards).unwrap();
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            table.apply(&[open(client, "tcp/22", Uses::Once, 9000)]).unwrap();
            assert_eq!((net.tcp(server, 22), net.tcp(server, 22)), (Answer::Open, Answer::Silence));
            table.apply(&[open(client, "udp/22", Uses::Once, 9000)]).unwrap();
            assert_eq!((net.udp(server, 22), net.udp(server, 22)), (Answer::Open, Answer::Silence));

            let range = open(client, "tcp/8000-8100", Uses::Once, 9000);
            table.apply(std::slice::from_ref(&range)).unwrap();
            assert_eq!(granted(&mut table), ["tcp/8000-8100"]);
            assert_eq!((net.tcp(server, 8001), net.tcp(server, 8000)), (Answer::Open, Answer::Silence));
            assert_eq!(net.tcp(server, 8001), Answer::Silence);
            assert_eq!(granted(&mut table), [] as [&str; 0], "a grant that is used up is not listed");
            table.apply(&[range]).unwrap();
            assert_eq!((net.tcp(server, 8000), net.tcp(server, 8000)), (Answer::Open, Answer::Silence));
            table
                .apply(&[Change::Shut {
                    wide: false,
                    address: client.parse().unwrap(),
                    ports: "tcp/8000-8100".parse().unwrap(),
                }])
                .unwrap();
        }
    });
}

#[test]
fn a_syn_sent_again_belongs_to_the_connection_that_used_the_grant() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        // Before conntrack, so that it sees no answer either.
        let mute = "add table inet mute; add chain inet mute out { type filter hook output priority -300; }\n\
                    add rule inet mute out tcp sport 22 drop\n\
                    add chain inet mute in { type filter hook input priority 0; }\n\
                    add rule inet mute in tcp dport 22 tcp flags & (syn | ack) == syn counter\n";
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        assert_eq!(net.nft(mute), "");
        table.apply(&[open(CLIENT4, "tcp/22", Uses::Once, 20_000)]).unwrap();
        thread::scope(|scope| {
            let connection = scope.spawn(|| {
                within(&net.client, || {
                    let address = SocketAddr::new(SERVER4.parse().unwrap(), 22);
                    TcpStream::connect_timeout(&address, Duration::from_secs(12)).is_ok()
                })
            });
            sleep(1500);
            let chain = net.nft("list chain inet mute in");
            assert!(chain.contains("packets 2 "), "the second SYN did not pass: {chain}");
            assert_eq!(net.tcp(SERVER4, 22), Answer::Silence, "another connection has no grant");
            net.nft("delete table inet mute");
            assert!(connection.join().unwrap());
        });
    });
}

#[test]
fn the_same_source_port_does_not_get_a_second_connection() {
    let net = Net::new();
    net.serve(|net| {
        // Nobody listens: the connection ends at once with a reset, which leaves its port free for another.
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        table.apply(&[open(CLIENT4, "tcp/22", Uses::Once, 9000)]).unwrap();
        let attempt = || {
            within(&net.client, || {
                let mut command = Command::new("timeout");
                let program = "import socket;s=socket.socket();s.setsockopt(1,2,1);s.bind(('',4022));s.settimeout(.3);\
                               print(s.connect_ex(('10.99.0.1',22)))";
                let output = command.args(["5", "/usr/bin/python3", "-c", program]).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            })
        };
        assert_eq!(attempt(), "111", "refused by the host: the guard let it through");
        assert_eq!(attempt(), "11", "no answer: the guard did not");
    });
}

#[test]
fn many_connections_at_once_find_one_place() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        for _ in 0..5 {
            table.apply(&[open(CLIENT4, "tcp/22", Uses::Once, 9000)]).unwrap();
            let answers = thread::scope(|scope| {
                let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| net.tcp(SERVER4, 22))).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(answers.iter().filter(|answer| **answer == Answer::Open).count(), 1);
        }
    });
}

#[test]
fn a_range_opens_its_ports_and_overlapping_ranges_keep_the_later_deadline() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[8000, 8005, 8010]);
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/8000-8100")]).unwrap();
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            table.apply(&[open(client, "tcp/8000-8009", Uses::Many, 9000)]).unwrap();
            assert_eq!(net.tcp(server, 8005), Answer::Open);
            assert_eq!(net.tcp(server, 8010), Answer::Silence);
            table.apply(&[open(client, "tcp/8005-8010", Uses::Many, 1000)]).unwrap();
            assert_eq!(granted(&mut table), ["tcp/8000-8009", "tcp/8010"]);
            assert_eq!(net.tcp(server, 8010), Answer::Open);
            sleep(1100);
            assert_eq!((net.tcp(server, 8005), net.tcp(server, 8010)), (Answer::Open, Answer::Silence));
            let address = client.parse().unwrap();
            table
                .apply(&[Change::Shut { wide: false, address, ports: "tcp/8005".parse().unwrap() }])
                .unwrap();
            assert_eq!((net.tcp(server, 8005), net.tcp(server, 8000)), (Answer::Silence, Answer::Open));
            assert_eq!(granted(&mut table), ["tcp/8000-8004", "tcp/8006-8009"]);
            table
                .apply(&[Change::Shut { wide: false, address, ports: "tcp/1-65535".parse().unwrap() }])
                .unwrap();
            assert_eq!(granted(&mut table), [] as [&str; 0]);
        }
    });
}

#[test]
fn a_port_guarded_with_reject_answers_like_a_port_without_a_listener() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let guards = [guard("tcp/22", Closed::Reject), guard("udp/22", Closed::Reject)];
        let mut table = Table::start(options(Owner::Auto), &guards).unwrap();
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            assert_eq!((net.tcp(server, 22), net.udp(server, 22)), (Answer::Refused, Answer::Refused));
            table.apply(&[open(client, "tcp/22", Uses::Many, 9000)]).unwrap();
            assert_eq!((net.tcp(server, 22), net.udp(server, 22)), (Answer::Open, Answer::Refused));
        }
    });
}

#[test]
fn a_renewal_really_extends_also_with_an_equal_lifetime() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 8000, 8100]);
        let mut table =
            Table::start(options(Owner::Auto), &[drop_on("tcp/22"), drop_on("tcp/8000-8200")]).unwrap();
        let changes = [
            open(CLIENT4, "tcp/22", Uses::Many, 1500),
            open(CLIENT4, "tcp/8000-8050", Uses::Many, 1500),
            open(CLIENT4, "tcp/8100-8150", Uses::Once, 1500),
        ];
        table.apply(&changes).unwrap();
        sleep(1000);
        table.apply(&changes).unwrap();
        sleep(800);
        assert_eq!([22, 8000, 8100].map(|port| net.tcp(SERVER4, port)), [Answer::Open; 3]);
        sleep(800);
        assert_eq!([22, 8000, 8100].map(|port| net.tcp(SERVER4, port)), [Answer::Silence; 3]);
    });
}

#[test]
fn flushing_the_ruleset_does_not_open_a_guarded_port() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        if table.ownership() != Ownership::Owned {
            eprintln!("skipped: this kernel has no persistent tables");
            return;
        }
        table.apply(&[open(CLIENT6, "tcp/22", Uses::Many, 9000)]).unwrap();
        net.nft("flush ruleset");
        assert!(net.nft("delete table inet knockd-rs").contains("Operation not permitted"));
        assert!(matches!(Table::start(options(Owner::Auto), &[]), Err(FirewallError::OwnedElsewhere)));
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 22)), (Answer::Silence, Answer::Open));
        assert!(table.verify().unwrap());
        drop(table);
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 22)), (Answer::Silence, Answer::Open));
    });
}

#[test]
fn a_plain_table_that_was_flushed_is_noticed_and_rebuilt_with_the_remaining_time() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 8000]);
        let guards = [drop_on("tcp/22"), drop_on("tcp/8000-8100")];
        let mut table = Table::start(options(Owner::Never), &guards).unwrap();
        assert_eq!(table.ownership(), Ownership::Watched);
        assert!(!table.changed() && table.verify().unwrap());
        table
            .apply(&[
                open(CLIENT4, "tcp/22", Uses::Many, 2500),
                open(CLIENT4, "tcp/8000-8009", Uses::Once, 2500),
            ])
            .unwrap();
        assert!(!table.changed(), "our own changes are not somebody else's");
        net.nft("add table inet other");
        assert!(!table.changed(), "other tables are not ours");
        sleep(500);
        let doors: Vec<_> = table.doors().unwrap().into_iter().map(|live| live.door).collect();

        net.nft("flush ruleset");
        assert_eq!(net.tcp(SERVER6, 22), Answer::Open);
        assert!(table.changed() && !table.verify().unwrap());
        let begin = Instant::now();
        table.rebuild(&doors, &guards, &[]).unwrap();
        eprintln!("rebuilt in {:?}", begin.elapsed());
        assert!(!table.changed() && table.verify().unwrap());
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 22)), (Answer::Open, Answer::Silence));
        assert_eq!((net.tcp(SERVER4, 8000), net.tcp(SERVER4, 8000)), (Answer::Open, Answer::Silence));
        sleep(1700);
        assert_eq!(net.tcp(SERVER4, 22), Answer::Silence);
    });
}

#[test]
fn every_way_of_tampering_is_noticed_and_healed() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let guards = [drop_on("tcp/22")];
        let mut table = Table::start(options(Owner::Never), &guards).unwrap();
        for tampering in [
            "flush chain inet knockd-rs guard",
            "insert rule inet knockd-rs guard accept",
            "add rule inet knockd-rs admit accept",
            "add table inet knockd-rs { flags dormant; }",
            "add chain inet knockd-rs guard { policy drop; }",
            "delete table inet knockd-rs; add table inet knockd-rs; add map inet knockd-rs guarded { type mark : mark; }",
        ] {
            let said = net.nft(tampering);
            assert_eq!(said, "", "{tampering}");
            assert!(table.changed(), "{tampering}");
            assert!(!table.verify().unwrap(), "{tampering}");
            table.rebuild(&[], &guards, &[]).unwrap();
            assert!(table.verify().unwrap(), "{tampering}");
            assert_eq!(net.tcp(SERVER4, 22), Answer::Silence, "{tampering}");
        }
    });
}

#[test]
fn a_restart_keeps_grants_and_guards_and_is_never_open_to_strangers() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 23, 8000]);
        for owner in [Owner::Auto, Owner::Never] {
            let before = [drop_on("tcp/22"), drop_on("tcp/23"), drop_on("tcp/8000-8100")];
            let mut table = Table::start(options(owner), &before).unwrap();
            table
                .apply(&[
                    open(CLIENT4, "tcp/22", Uses::Many, 60_000),
                    open(CLIENT4, "tcp/8000-8010", Uses::Many, 60_000),
                    open(CLIENT4, "udp/22", Uses::Once, 60_000),
                ])
                .unwrap();
            let after = [drop_on("tcp/22"), guard("tcp/8000-8100", Closed::Reject)];
            let stop = std::sync::atomic::AtomicBool::new(false);
            drop(table);
            let mut table = thread::scope(|scope| {
                let stranger = scope.spawn(|| {
                    let mut tries = 0;
                    let begin = Instant::now();
                    while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(30) {
                        assert_eq!(net.tcp(SERVER6, 22), Answer::Silence);
                        tries += 1;
                    }
                    tries
                });
                for _ in 0..4 {
                    sleep(100);
                    drop(Table::start(options(owner), &after).unwrap());
                }
                sleep(100);
                let begin = Instant::now();
                let table = Table::start(options(owner), &after);
                eprintln!("restarted in {:?}", begin.elapsed());
                stop.store(true, Ordering::Relaxed);
                assert!(stranger.join().unwrap() > 0);
                table.unwrap()
            });
            let ports: Vec<_> = table.guards().unwrap().into_iter().map(|live| live.guard).collect();
            assert_eq!(ports.len(), 2);
            assert!(after.iter().all(|guard| ports.contains(guard)), "{ports:?}");
            assert_eq!(granted(&mut table), ["tcp/22", "tcp/8000-8010", "udp/22"]);
            assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER4, 8000)), (Answer::Open, Answer::Open));
            assert_eq!((net.tcp(SERVER6, 23), net.tcp(SERVER6, 8000)), (Answer::Open, Answer::Refused));
            table.remove().unwrap();
            assert_eq!(net.tcp(SERVER6, 22), Answer::Open);
        }
    });
}

#[test]
fn a_guard_that_is_not_confirmed_opens_by_itself_and_one_that_is_stays() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 23]);
        let mut table = Table::start(options(Owner::Auto), &[]).unwrap();
        let timed = |ports| Guarded { lifetime: Some(Duration::from_millis(1500)), ..drop_on(ports) };
        table.apply(&[Change::Guard(timed("tcp/22")), Change::Guard(timed("tcp/23"))]).unwrap();
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 23)), (Answer::Silence, Answer::Silence));
        let LiveGuard { guard, granted } = table.guards().unwrap().remove(0);
        assert!(guard.lifetime.unwrap() <= Duration::from_millis(1500));
        assert_eq!(granted, Some(Duration::from_millis(1500)));
        drop(table);
        let mut table = Table::start(options(Owner::Auto), &[]).unwrap();
        assert_eq!(table.guards().unwrap().len(), 2, "a restart is no answer to the question");
        table.apply(&[Change::Guard(drop_on("tcp/23"))]).unwrap();
        sleep(1500);
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 23)), (Answer::Open, Answer::Silence));
        table.apply(&[Change::Unguard("tcp/23".parse().unwrap())]).unwrap();
        assert_eq!(net.tcp(SERVER6, 23), Answer::Open);
    });
}

#[test]
fn a_batch_takes_effect_as_a_whole_or_not_at_all_and_leaves_nothing_for_the_next() {
    let net = Net::new();
    net.serve(|_| {
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/8000-8100")]).unwrap();
        let bad = [open(CLIENT4, "tcp/22", Uses::Many, 9000), Change::Guard(drop_on("tcp/8050"))];
        let error = table.apply(&bad).unwrap_err();
        assert_eq!(error.to_string(), "tcp/8050 is already guarded by tcp/8000-8100");
        assert_eq!(granted(&mut table), [] as [&str; 0]);
        let good = open(CLIENT4, "tcp/22", Uses::Many, 9000);
        let begin = Instant::now();
        for _ in 0..200 {
            table.apply(std::slice::from_ref(&good)).unwrap();
        }
        eprintln!("one apply: {:?}", begin.elapsed() / 200);
        let many: Vec<_> = (1..=500).map(|n| open(CLIENT6, &format!("tcp/{n}"), Uses::Many, 9000)).collect();
        table.apply(&many).unwrap();
        assert_eq!(granted(&mut table).len(), 501);
    });
}

#[test]
fn a_table_of_another_version_is_made_anew_and_its_grants_live_on() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let other = "add table inet knockd-rs; add set inet knockd-rs once_v4 { type ipv4_addr; }\n\
                     add set inet knockd-rs grants_v4 { type ipv4_addr . inet_proto . inet_service; flags timeout; }\n\
                     add element inet knockd-rs grants_v4 { 10.99.0.2 . tcp . 22 timeout 60s comment \"laptop\" }\n";
        assert_eq!(net.nft(other), "");
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        assert_eq!(table.ownership(), Ownership::Watched, "nft makes no persistent table");
        assert!(table.verify().unwrap());
        assert_eq!(granted(&mut table), ["tcp/22"]);
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 22)), (Answer::Open, Answer::Silence));
    });
}

#[test]
fn trusted_interfaces_and_networks_need_no_grant() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22]);
        let mut table = Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        assert!(TcpStream::connect_timeout(&"127.0.0.1:22".parse().unwrap(), PATIENCE).is_ok());
        table.retrust(vec![], vec!["10.99.0.0/24".parse().unwrap()], vec![]).unwrap();
        assert!(table.verify().unwrap());
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 22)), (Answer::Open, Answer::Silence));
        assert!(TcpStream::connect_timeout(&"127.0.0.1:22".parse().unwrap(), PATIENCE).is_err());
    });
}

#[test]
fn a_full_life_leaves_the_rest_of_the_ruleset_as_it_was() {
    let net = Net::new();
    net.serve(|net| {
        let other = "add table inet filter; add set inet filter s { type ipv4_addr; elements = { 192.0.2.1 }; }\n\
                     add chain inet filter input { type filter hook input priority 0; policy accept; }\n\
                     add rule inet filter input ip saddr @s drop\n";
        assert_eq!(net.nft(other), "");
        let before = net.nft("list ruleset");
        for owner in [Owner::Auto, Owner::Never] {
            let mut table = Table::start(options(owner), &[drop_on("tcp/22")]).unwrap();
            table.apply(&[open(CLIENT4, "tcp/22", Uses::Many, 9000)]).unwrap();
            let shown = net.nft("list table inet knockd-rs");
            // Without /etc/protocols nft prints numbers.
            let guarded = ["tcp . 22 : goto drop_strangers", "6 . 22 : goto drop_strangers"];
            assert!(guarded.iter().any(|text| shown.contains(text)), "{shown}");
            assert!(shown.contains("comment \"laptop\""), "{shown}");
            table.rebuild(&[], &[], &[]).unwrap();
            table.remove().unwrap();
            assert_eq!(net.nft("list ruleset"), before);
        }
        Table::start(options(Owner::Auto), &[drop_on("tcp/22")]).unwrap();
        assert_eq!(Table::leftover().unwrap().len(), 1);
        Table::purge().unwrap();
        Table::purge().unwrap();
        assert_eq!(Table::leftover().unwrap(), []);
        assert_eq!(net.nft("list ruleset"), before);
        assert_eq!(net.nft("list ruleset"), before);
    });
}

#[test]
fn the_sets_of_an_administrators_ruleset_are_filled() {
    let net = Net::new();
    net.serve(|net| {
        listen(&[22, 8000]);
        assert_eq!(net.nft(include_str!("../nft/examples/sets.nft")), "");
        assert_eq!((net.tcp(SERVER4, 22), net.tcp(SERVER6, 8000)), (Answer::Silence, Answer::Silence));
        let name = |set: &str| Some(format!("inet filter {set}").parse().unwrap());
        let names = SetNames {
            timed_v4: name("knock4"),
            timed_v6: name("knock6"),
            once_v4: name("knock_once4"),
            once_v6: name("knock_once6"),
        };
        let mut sets = AdminSets::start(&names).unwrap();
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            sets.apply(&[
                open(client, "tcp/8000-8100", Uses::Many, 1000),
                open(client, "tcp/22", Uses::Once, 9000),
            ])
            .unwrap();
            assert_eq!((net.tcp(server, 22), net.tcp(server, 22)), (Answer::Open, Answer::Silence));
            assert_eq!(net.tcp(server, 8000), Answer::Open);
            assert_eq!(granted(&mut sets), ["tcp/8000-8100"]);
            sleep(1000);
            assert_eq!(net.tcp(server, 8000), Answer::Silence);
        }
        let refused = sets.apply(&[Change::Guard(drop_on("tcp/22"))]).unwrap_err().to_string();
        assert!(refused.contains("the rules are yours"));
        let refused = sets.apply(&[open(CLIENT4, "tcp/1-9", Uses::Once, 9000)]).unwrap_err().to_string();
        assert!(refused.contains("name single ports"), "{refused}");
    });
}

#[test]
fn a_set_that_would_not_keep_the_promise_is_refused_with_the_command_for_a_right_one() {
    let net = Net::new();
    net.serve(|net| {
        let sets = "add table inet filter\n\
                    add set inet filter eternal { type ipv4_addr . inet_proto . inet_service; }\n\
                    add set inet filter six { type ipv6_addr . inet_proto . inet_service; flags timeout; }\n\
                    add set inet filter tiny { type ipv4_addr . inet_service; flags timeout; size 2; }\n\
                    add set inet filter address { type ipv4_addr; flags timeout; }\n";
        assert_eq!(net.nft(sets), "");
        let timed = |set: &str| {
            let timed_v4 = Some(format!("inet filter {set}").parse().unwrap());
            AdminSets::start(&SetNames { timed_v4, ..SetNames::default() })
        };
        let refused = |set| timed(set).err().unwrap().to_string();
        let right = "make it with: nft 'add set inet filter absent { type ipv4_addr . inet_proto . inet_service; \
                     flags timeout; }'";
        assert_eq!(refused("absent"), format!("the set inet filter absent does not exist; {right}"));
        assert!(refused("eternal").contains("has no flag timeout"));
        assert!(refused("six").contains("keys of another type"));

        let mut tiny = timed("tiny").unwrap();
        tiny.apply(&[open(CLIENT4, "tcp/22", Uses::Many, 9000), open(CLIENT4, "tcp/23", Uses::Many, 9000)]).unwrap();
        let full = tiny.apply(&[open(CLIENT4, "tcp/24", Uses::Many, 9000)]).unwrap_err();
        assert!(full.to_string().starts_with("the set is full"), "{full}");
        assert_eq!(granted(&mut tiny), ["tcp/22", "tcp/23"]);
        let error = tiny.apply(&[open(CLIENT6, "tcp/22", Uses::Many, 9000)]).unwrap_err().to_string();
        assert_eq!(
            error,
            "[firewall.sets] names no set for this grant; set timed_v6 = \"family table set\""
        );

        let mut address = timed("address").unwrap();
        address.apply(&[open(CLIENT4, "tcp/22", Uses::Many, 9000)]).unwrap();
        assert_eq!(granted(&mut address), ["tcp/22"]);
        let shut = Change::Shut { wide: false, address: CLIENT4.parse().unwrap(), ports: "tcp/22".parse().unwrap() };
        address.apply(&[shut]).unwrap();
        assert_eq!(granted(&mut address), [] as [&str; 0]);
    });
}
