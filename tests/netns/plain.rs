//! Fixed sequences, sent by knockd's own client, by sockets, and by somebody who forges the client's address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

use crate::common::{
    Answer, CABLE, CLIENT4, CLIENT6, Daemon, GUARDED, KNOCKD, SERVER4, SERVER6, SOON, STRANGER4, World,
    attempt, said, succeed, wait_for,
};
use crate::frames::{IPV4, TCP, ethernet, ipv4_to, syn};

/// Two profiles: `phone`, and `tablet` with short limits.
fn profiles(world: &World) {
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.write_profile("phone", PHONE);
    world.write_profile("tablet", TABLET);
}

const PHONE: &str = "open = [\"tcp/22\"]\nmethods = [\"plain\"]\ninsecure = true\n\
    [plain]\nports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]\n";
const TABLET: &str = "open = [\"tcp/22\"]\nmethods = [\"plain\"]\ninsecure = true\n\
    [plain]\nports = [\"tcp/7100\", \"tcp/7101\", \"tcp/6100\"]\ngap = \"1s\"\ntotal = \"1s\"\n";

/// Runs knockd's client.
fn knock(world: &World, arguments: &[&str]) -> Output {
    let output = world.inside(&world.client).arg("knock").args(arguments).output();
    output.unwrap_or_else(|error| panic!("`knock` cannot be run ({error}): apt-get install knockd"))
}

/// One knock from an address, as a stock client sends it.
fn hit(world: &World, from: IpAddr, to: IpAddr, port: &str) {
    world.on_client(|| {
        let (protocol, number) = port.split_once('/').unwrap();
        let to = SocketAddr::new(to, number.parse().unwrap());
        if protocol == "tcp" {
            attempt(Some(from), to, Duration::from_millis(2));
        } else {
            let _ = UdpSocket::bind((from, 0)).unwrap().send_to(b"", to);
        }
    });
}

fn granted(daemon: &Daemon<'_>, count: usize) -> bool {
    wait_for(Duration::from_secs(2), || daemon.logged("granted ") >= count)
        && daemon.logged("granted ") == count
}

/// Nothing opens: waits until all of it was seen, which a good knock at the end proves.
#[track_caller]
fn opens_nothing(world: &World, daemon: &Daemon<'_>) {
    let before = daemon.logged("granted ");
    assert_eq!(world.try_tcp(None, SERVER4, 22), Answer::Silence);
    world.knock(&[]);
    daemon.await_log("granted laptop");
    assert_eq!(daemon.logged("granted "), before + 1, "{}", daemon.log());
}

#[test]
fn knockds_own_client_opens_a_port_over_both_families() {
    let world = World::new();
    profiles(&world);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for (count, (family, server)) in (1..).zip([("-4", SERVER4), ("-6", SERVER6)]) {
        assert!(!world.can_connect(server, 22));
        succeed(&knock(&world, &[family, &server.to_string(), "7000:tcp", "8000:udp", "6000:tcp"]));
        assert!(granted(&daemon, count), "{}", daemon.log());
        assert!(world.can_connect(server, 22), "one connection");
        assert!(!world.can_connect(server, 22), "and no other");
    }
    assert_eq!(daemon.logged("granted phone from 10.77.0.2: tcp/22 for 15s, one connection"), 1);
    assert_eq!(daemon.logged("granted phone from fd77::2: tcp/22 for 15s, one connection"), 1);
}

#[test]
fn a_start_and_a_reload_name_each_profile_that_is_replayable() {
    let world = World::new();
    profiles(&world);
    let daemon = world.daemon(GUARDED);
    let warned = |name: &str| {
        daemon.logged(&format!("profiles.d/{name}.toml:3: insecure: this profile can be opened"))
    };
    assert_eq!([warned("phone"), warned("tablet"), warned("laptop")], [1, 1, 0], "{}", daemon.log());
    daemon.reload();
    assert_eq!([warned("phone"), warned("tablet")], [2, 2], "{}", daemon.log());
}

#[test]
fn a_sequence_is_added_by_one_command_and_knocked_as_that_says() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let add = |words: &[&str]| {
        let mut add = std::process::Command::new(KNOCKD);
        add.args(["profile", "add"]).args(words).arg("--config-dir").arg(world.path("etc"));
        add.arg("--state-dir").arg(world.path("lib")).output().unwrap()
    };
    let said_in_order = said(&add(&["scan", "--open", "tcp/22", "--plain", "tcp/1,udp/2,tcp/3"]));
    assert!(said_in_order.contains("so that a port scan would open"), "{said_in_order}");
    let text = succeed(&add(&["phone", "--open", "tcp/22", "--plain", "tcp/7000,udp/8000,tcp/6000"]));
    assert!(text.contains("`knock SERVER 7000:tcp 8000:udp 6000:tcp`"), "{text}");
    let daemon = world.daemon(GUARDED);
    succeed(&knock(&world, &["10.77.0.1", "7000:tcp", "8000:udp", "6000:tcp"]));
    daemon.await_log("granted phone from 10.77.0.2");
}

#[test]
fn out_of_order_too_slow_or_with_another_protocol_it_opens_nothing() {
    let world = World::new();
    profiles(&world);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let server = SERVER4.to_string();
    for wrong in [
        ["8000:udp", "7000:tcp", "6000:tcp"],
        ["7000:tcp", "6000:tcp", "8000:udp"],
        ["6000:tcp", "8000:udp", "7000:tcp"],
    ] {
        succeed(&knock(&world, &[&[server.as_str()], &wrong[..]].concat()));
        // What came before is forgotten only with time, and would go on with the next one.
        sleep(Duration::from_millis(5200));
    }
    for wrong in [["7000:tcp", "8000:tcp", "6000:tcp"], ["7000:udp", "8000:udp", "6000:udp"]] {
        succeed(&knock(&world, &[&[server.as_str()], &wrong[..]].concat()));
    }
    // One second between two knocks, and one for all of them.
    succeed(&knock(&world, &["-d", "1300", &server, "7100:tcp", "7101:tcp", "6100:tcp"]));
    sleep(Duration::from_millis(1300));
    succeed(&knock(&world, &["-d", "700", &server, "7100:tcp", "7101:tcp", "6100:tcp"]));
    opens_nothing(&world, &daemon);
    succeed(&knock(&world, &["-d", "300", &server, "7100:tcp", "7101:tcp", "6100:tcp"]));
    daemon.await_log("granted tablet from 10.77.0.2");
}

#[test]
fn two_clients_that_pause_between_their_knocks_both_get_in_twenty_times_of_twenty() {
    let world = World::new();
    world.write_profile("phone", &format!("max_grants = 2\nconnections = \"many\"\n{PHONE}"));
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for round in 1..=20 {
        for port in ["tcp/7000", "udp/8000", "tcp/6000"] {
            hit(&world, CLIENT4, SERVER4, port);
            sleep(Duration::from_millis(100));
            hit(&world, STRANGER4, SERVER4, port);
            sleep(Duration::from_millis(100));
        }
        assert!(granted(&daemon, 2 * round), "round {round}: {}", daemon.log());
    }
    assert!(world.can_connect(SERVER4, 22) && world.can_stranger_connect(SERVER4, 22));
}

#[test]
fn forged_packets_in_the_clients_name_do_not_matter() {
    let world = World::new();
    world.write_profile("phone", &format!("connections = \"many\"\n{PHONE}"));
    let daemon = world.daemon(GUARDED);
    let mut cable = world.on_client(|| pcap::Capture::from_device(CABLE).unwrap().open().unwrap());
    let mut forge = |port| {
        let packet = ipv4_to([10, 77, 0, 2], [10, 77, 0, 1], TCP, &syn(port, 1, 1));
        cable.sendpacket(&ethernet(&[], IPV4, &packet)[..]).unwrap();
    };
    for round in 1..=20 {
        for port in ["tcp/7000", "udp/8000", "tcp/6000"] {
            // A wrong port, the first one, the last one too early.
            [5, 7000, 6000].into_iter().for_each(&mut forge);
            hit(&world, CLIENT4, SERVER4, port);
            sleep(Duration::from_millis(20));
        }
        assert!(granted(&daemon, round), "round {round}: {}", daemon.log());
    }
    assert!(daemon.counter("dropped: partial") > 20 * 6, "the forged ones were seen");
}

#[test]
fn a_profile_that_does_not_list_the_method_has_no_sequence() {
    let world = World::new();
    profiles(&world);
    let daemon = world.daemon(GUARDED);
    for name in ["phone", "tablet"] {
        std::fs::remove_file(world.path(&format!("etc/profiles.d/{name}.toml"))).unwrap();
    }
    daemon.reload();
    let seen = daemon.counter("frames");
    for from in [CLIENT4, CLIENT6] {
        let server = if from.is_ipv4() { SERVER4 } else { SERVER6 };
        ["tcp/7000", "udp/8000", "tcp/6000"].into_iter().for_each(|port| hit(&world, from, server, port));
    }
    assert_eq!(daemon.counter("frames"), seen, "the kernel's filter lets none of it through");
    opens_nothing(&world, &daemon);
    assert!(wait_for(SOON, || daemon.counter("frames") > seen));
}
