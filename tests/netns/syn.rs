//! Knocks by one SYN: what is on the wire, what opens, what never does.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use knockd_rs::clock;
use knockd_rs::crypto::{KeyPair, PublicKey, Secret};
use knockd_rs::frame::Syn;
use knockd_rs::knock::syn::{CodeKey, LEEWAY, SLOTS, STEP, Slot, step_of};
use serde_json::json;

use crate::common::{
    Answer, CLIENT4, CLIENT6, Daemon, GUARDED, KNOCK_PORT, KNOCKD, Raw, SERVER4, SERVER6, SOON, Tap, World,
    ip, said, succeed, wait_for,
};

/// A world whose only profile knocks by SYN alone; the knock port is guarded, so that the kernel does not answer.
fn world() -> World {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--method", "syn"]);
    world
}

fn serve(world: &World) -> Daemon<'_> {
    let daemon = world.daemon(GUARDED);
    daemon.command(&["guard", &format!("tcp/{KNOCK_PORT}")]);
    daemon
}

/// The SYNs to the knock port.
fn syns(packets: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    packets.iter().filter(|packet| packet[tcp(packet) + 2..][..2] == KNOCK_PORT.to_be_bytes()).collect()
}

/// Where the TCP header begins.
fn tcp(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 }
}

/// The one SYN that the client sends when it knocks.
fn recorded(world: &World, arguments: &[&str]) -> Vec<u8> {
    let tap = world.on_server(Tap::open);
    succeed(&world.client(&[&["knock", "myserver", "--syn", "--no-wait"][..], arguments].concat()));
    let packets = tap.tcp();
    assert_eq!(packets.len(), 1, "one packet, and no answer: {packets:x?}");
    assert_eq!(syns(&packets).len(), 1);
    packets[0].clone()
}

#[test]
fn one_syn_opens_the_port_on_both_families_and_nothing_answers() {
    let world = world();
    let daemon = serve(&world);
    let _ssh = world.listener(22);
    for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
        world.retarget(&server.to_string());
        assert_eq!(world.try_tcp(None, server, 22), Answer::Silence);
        recorded(&world, &[]);
        assert!(wait_for(SOON, || !daemon.grants().is_empty()), "{}", daemon.log());
        assert_eq!(daemon.grants()[0]["address"], client.to_string());
        assert!(!world.can_stranger_connect(server, 22));
        assert!(world.can_connect(server, 22));
        assert_eq!(world.try_tcp(None, server, 22), Answer::Silence, "a second connection");
    }
}

#[test]
fn a_waiting_client_knocks_by_syn_and_leaves_a_connection_for_its_user() {
    let world = world();
    let _daemon = serve(&world);
    let _ssh = world.listener(22);
    let output = world.client(&["knock", "myserver", "--syn"]);
    assert!(succeed(&output).is_empty());
    assert!(said(&output).contains("TCP port 62201\ntcp/22 at 10.77.0.1 opened after "), "{}", said(&output));
    assert!(world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22));
}

/// The places at which a packet may differ from the kernel's own.
fn own_places(packet: &[u8]) -> Vec<usize> {
    let tcp = tcp(packet);
    let ip: Vec<usize> = match packet[0] >> 4 {
        // Identification and header checksum.
        4 => vec![4, 5, 10, 11],
        // 20 bits of flow label, of which the highest four share a byte with the traffic class.
        _ => vec![1, 2, 3],
    };
    let timestamp = (tcp + 20..packet.len())
        .find(|place| packet[*place..].starts_with(&[8, 10]))
        .expect("the kernel sends timestamps");
    // Source port, sequence number, checksum, TSval.
    let ranges = [tcp..tcp + 2, tcp + 4..tcp + 8, tcp + 16..tcp + 18, timestamp + 2..timestamp + 6];
    ip.into_iter().chain(ranges.into_iter().flatten()).collect()
}

#[test]
fn the_syn_is_the_kernels_own_in_every_field_but_those_of_a_new_connection() {
    let world = world();
    let _daemon = serve(&world);
    let settings = [
        ("mtu 1500", "net.ipv4.tcp_ecn=2"),
        ("mtu 1400", "net.ipv4.tcp_ecn=2"),
        ("mtu 9000", "net.ipv4.tcp_ecn=1"),
        ("mtu 1500", "net.ipv4.ip_default_ttl=77"),
        ("mtu 1500", "net.ipv6.conf.veth0.hop_limit=55"),
        ("mtu 1500", "net.ipv4.tcp_window_scaling=0"),
        ("mtu 1500", "net.ipv4.tcp_sack=0"),
        ("mtu 1500", "net.ipv4.tcp_rmem=4096 65536 33554432"),
        ("mtu 1500", "net.ipv6.auto_flowlabels=0"),
    ];
    for (link, setting) in settings {
        ip(&format!("-n {} link set veth0 {link}", world.client));
        ip(&format!("-n {} link set veth0 {link}", world.server));
        let set = world.inside(&world.client).args(["sysctl", "-qw", setting]).status();
        assert!(set.unwrap().success(), "{setting}");
        for server in [SERVER4, SERVER6] {
            world.retarget(&server.to_string());
            let tap = world.on_server(Tap::open);
            world.on_client(|| {
                let to = SocketAddr::new(server, KNOCK_PORT);
                assert!(TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_err());
            });
            let kernels = syns(&tap.tcp())[0].clone();
            fs::remove_file(world.path("home/.local/state/knockd-rs/myserver.syn")).ok();
            let ours = recorded(&world, &[]);
            let own = own_places(&kernels);
            let differences: Vec<usize> = (0..kernels.len().max(ours.len()))
                .filter(|place| kernels.get(*place) != ours.get(*place) && !own.contains(place))
                .collect();
            assert_eq!(differences, [0; 0], "{link}, {setting}, {server}:\n{kernels:02x?}\n{ours:02x?}");
            // The traffic class beside the flow label, and whether there is a label at all.
            if server.is_ipv6() {
                assert_eq!(kernels[1] & 0xf0, ours[1] & 0xf0);
                let has_label = |packet: &[u8]| packet[1] & 15 != 0 || packet[2..4] != [0, 0];
                assert_eq!(has_label(&kernels), has_label(&ours));
            } else {
                assert_ne!(ours[4..6], [0, 0]);
            }
        }
    }
}

#[test]
fn a_replayed_syn_opens_nothing_at_once_after_a_restart_or_after_a_kill() {
    let world = world();
    let mut daemon = serve(&world);
    let _ssh = world.listener(22);
    let syn = recorded(&world, &[]);
    assert!(wait_for(SOON, || !daemon.grants().is_empty()), "{}", daemon.log());
    assert!(world.can_connect(SERVER4, 22));
    let replay = |daemon: &Daemon<'_>| {
        world.on_client(|| Raw::open(SERVER4).send(&syn));
        let heard = || daemon.counter("dropped: repeat") + daemon.counter("knocks refused");
        assert!(wait_for(SOON, || heard() == 1), "{}", daemon.log());
        assert_eq!(daemon.grants(), [json!(null); 0]);
        assert!(!world.can_connect(SERVER4, 22));
    };
    replay(&daemon);
    daemon.restart();
    replay(&daemon);
    assert_eq!(daemon.logged("used before"), 1, "{}", daemon.log());
    daemon.kill9_both();
    daemon.start_again();
    replay(&daemon);
}

/// A SYN made here rather than by the client: the daemon looks at addresses, port and code alone.
fn packet(from: IpAddr, to: IpAddr, syn: Syn) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 alone") };
    let ip = [&[0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0][..], &from.octets(), &to.octets()].concat();
    let ports = [40_000_u16.to_be_bytes(), KNOCK_PORT.to_be_bytes()].concat();
    let flags = [0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 0xb4, 4, 2, 8, 10];
    let rest = [&syn.timestamp.unwrap().to_be_bytes()[..], &[0, 0, 0, 0, 1, 3, 3, 7]].concat();
    [&ip[..], &ports, &syn.sequence.to_be_bytes(), &flags, &rest].concat()
}

fn server_key(world: &World) -> PublicKey {
    let text = fs::read_to_string(world.path("etc/server.key")).unwrap();
    KeyPair::from(Secret::from_base64(text.trim()).unwrap()).public()
}

/// Many profiles of our own making, with the keys of their codes.
fn crowd(world: &World, count: u32) -> Vec<CodeKey> {
    let server = server_key(world);
    let psk = Secret::new([0; 32]);
    (0..count)
        .map(|number| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let keys = KeyPair::from_seed(seed);
            let path = world.path(&format!("etc/profiles.d/crowd{number}.toml"));
            let text = format!(
                "public_key = \"{}\"\nopen = [\"tcp/22\"]\nmethods = [\"syn\"]\nconnections = \"many\"\n",
                keys.public()
            );
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            CodeKey::new(&keys.agree(&server).unwrap(), &psk)
        })
        .collect()
}

/// Sleeps until a step has just begun, so that none ends while codes are being sent.
fn await_fresh_step() -> u64 {
    loop {
        let now = clock::wall();
        let step = step_of(now);
        let left = Slot { step: step + 1, slot: 0 }.counter().since(now);
        if left > Duration::from_secs(12) {
            return step;
        }
        std::thread::sleep(left + Duration::from_millis(50));
    }
}

#[test]
fn ten_thousand_knocks_all_verify() {
    let world = world();
    let keys = crowd(&world, 840);
    let daemon = serve(&world);
    let step = await_fresh_step();
    let slots =
        (step - LEEWAY..=step + LEEWAY).flat_map(|step| (0..SLOTS).map(move |slot| Slot { step, slot }));
    let mut sent = 0;
    let accepted = || daemon.counter("knocks accepted");
    world.on_client(|| {
        let raw = Raw::open(SERVER4);
        for slot in slots {
            for key in &keys {
                raw.send(&packet(CLIENT4, SERVER4, key.pack(slot, None)));
                sent += 1;
                // The kernel's ring holds about a thousand; nothing here is about speed.
                if sent % 500 == 0 {
                    wait_for(SOON, || accepted() == sent);
                }
            }
        }
    });
    assert_eq!(sent, 10_080);
    wait_for(SOON, || accepted() == sent);
    let counters = &daemon.status()["counters"];
    assert_eq!((accepted(), daemon.counter("dropped: code")), (sent, 0), "{counters}");
    assert!(step_of(clock::wall()) <= step + 1, "it took longer than the codes are good for");
}

#[test]
fn a_code_of_another_service_step_profile_or_server_opens_nothing() {
    let world = world();
    let _key = crowd(&world, 1);
    let daemon = serve(&world);
    let step = await_fresh_step();
    let server = server_key(&world);
    let key = |seed: u8| {
        CodeKey::new(&KeyPair::from_seed([seed; 32]).agree(&server).unwrap(), &Secret::new([0; 32]))
    };
    let mine = {
        let mut seed = [7; 32];
        seed[..4].fill(0);
        CodeKey::new(&KeyPair::from_seed(seed).agree(&server).unwrap(), &Secret::new([0; 32]))
    };
    let slot = |step| Slot { step, slot: 0 };
    let stranger = key(99).pack(slot(step), None);
    let service = mine.pack(slot(step), Some(knockd_rs::knock::service_tag("web")));
    let codes = [stranger, service, mine.pack(slot(step - 2), None), mine.pack(slot(step + 2), None)];
    let with_psk = CodeKey::new(&KeyPair::from_seed([7; 32]).agree(&server).unwrap(), &Secret::new([1; 32]));
    world.on_client(|| {
        let raw = Raw::open(SERVER4);
        codes.iter().for_each(|syn| raw.send(&packet(CLIENT4, SERVER4, *syn)));
        raw.send(&packet(CLIENT4, SERVER4, with_psk.pack(slot(step), None)));
    });
    assert!(wait_for(SOON, || daemon.counter("dropped: code") == 5), "{}", daemon.status());
    assert_eq!(daemon.grants(), [json!(null); 0]);
    world.on_client(|| Raw::open(SERVER4).send(&packet(CLIENT4, SERVER4, mine.pack(slot(step), None))));
    assert!(wait_for(SOON, || daemon.grants().len() == 1), "the right one does: {}", daemon.log());
}

#[test]
fn a_service_is_knocked_for_by_its_name() {
    let world = World::new();
    let services = format!("{GUARDED}[services]\nssh = [\"tcp/22\"]\nweb = [\"tcp/443\"]\n");
    world.configure(&services);
    world.enrol("laptop", &["--open", "ssh", "--open", "web", "--method", "syn", "--method", "spa"]);
    let daemon = world.daemon(&services);
    for (name, port) in [("web", "tcp/443"), ("ssh", "tcp/22")] {
        succeed(&world.client(&["knock", "myserver", name, "--syn", "--no-wait"]));
        assert!(
            wait_for(SOON, || daemon.grants().iter().any(|grant| grant["ports"] == port)),
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn no_method_works_that_the_profile_does_not_list() {
    let world = world();
    let daemon = serve(&world);
    // The client says so by itself, and one that does not is not heard.
    let output = world.client(&["knock", "myserver"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("does not take knocks by spa from this client, only by syn"),
        "{}",
        said(&output)
    );
    let mut sealer = world.sealer();
    world.send(None, SERVER4, &sealer.knock(None));
    succeed(&world.client(&["knock", "myserver", "--syn", "--no-wait"]));
    assert!(wait_for(SOON, || daemon.counter("knocks accepted") == 1), "{}", daemon.log());
    assert_eq!(daemon.counter("frames"), 1, "the datagram did not come through the filter");
    drop(daemon);

    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let output = world.client(&["knock", "myserver", "--syn"]);
    assert!(said(&output).contains("only by spa"), "{}", said(&output));
    world.edit("home/.config/knockd-rs/myserver.toml", |text| text.replace("\"spa\"", "\"spa\", \"syn\""));
    succeed(&world.client(&["knock", "myserver", "--syn", "--no-wait"]));
    world.knock(&[]);
    assert_eq!((daemon.counter("frames"), daemon.counter("knocks accepted")), (3, 1), "{}", daemon.status());
}

#[test]
fn without_the_capability_the_client_says_what_to_do() {
    let world = world();
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &world.client,
        "setpriv",
        "--bounding-set=-net_raw",
        "--inh-caps=-net_raw",
    ]);
    command.arg(KNOCKD).args(["knock", "myserver", "--syn"]).env("HOME", world.path("home"));
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("takes the capability CAP_NET_RAW; run this as root"),
        "{}",
        said(&output)
    );
    assert!(!world.path("home/.local/state/knockd-rs/myserver.syn").exists(), "no code was spent on it");
}

#[test]
fn more_knocks_than_there_are_codes_are_told_how_long_to_wait() {
    let world = world();
    let _daemon = serve(&world);
    let mut waits = Vec::new();
    for _ in 0..=2 * SLOTS {
        let output = world.client(&["knock", "myserver", "--syn", "--no-wait"]);
        if !output.status.success() {
            waits.push(said(&output));
        }
    }
    // A step may have begun in between.
    assert!(waits.len() <= 1, "{waits:?}");
    assert!(waits.iter().all(|text| text.contains("knock again in ")), "{waits:?}");
    assert!(STEP == Duration::from_secs(30));
}
