//! Doors to hosts behind this one: by DNAT to an inner host, and by guarding what is only passed on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::common::{Echo, GUARDED, SERVER4, SERVER6, STRANGER4, World, ip, succeed, wait_for, within};
use crate::grants::{closes_at, deadline};

const INNER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 5));
const INNER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 5));
/// A port of the server that leads to the inner host's port 80.
const FORWARD: &str =
    "[[forward]]\nname = \"nas\"\nlisten = \"tcp/8080\"\nto = [\"10.78.0.5:80\", \"[fd78::5]:80\"]\n";

/// A host behind the server, with a service at port 80.
struct Inner {
    namespace: String,
    _service: Echo,
}

impl Inner {
    fn behind(world: &World) -> Self {
        let (server, namespace) = (&world.server, format!("{}i", world.server));
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {server} link add inner type veth peer name uplink netns {namespace}"));
        for (name, device, four, six) in [
            (server, "inner", "10.78.0.1/24", "fd78::1/64"),
            (&namespace, "uplink", "10.78.0.5/24", "fd78::5/64"),
        ] {
            ip(&format!("-n {name} address add {four} dev {device}"));
            ip(&format!("-n {name} address add {six} dev {device} nodad"));
            ip(&format!("-n {name} link set {device} up"));
        }
        ip(&format!("-n {namespace} route add default via 10.78.0.1"));
        ip(&format!("-n {namespace} -6 route add default via fd78::1"));
        world.on_server(|| {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/{key}"), "1").unwrap();
            }
        });
        let service = within(&namespace, || Echo::start(80));
        Self { namespace, _service: service }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.namespace));
    }
}

#[test]
fn a_knock_opens_the_inner_service_for_its_client_alone_and_until_the_deadline() {
    for (server, inner) in [(SERVER4, INNER4), (SERVER6, INNER6)] {
        let world = World::new();
        let host = Inner::behind(&world);
        world.configure(&format!("{GUARDED}{FORWARD}"));
        world.enrol("laptop", &["--open", "nas"]);
        world.amend("laptop", "connections = \"many\"\n");
        world.retarget(&server.to_string());
        let mut daemon = world.daemon(&format!("{GUARDED}{FORWARD}"));
        assert!(!world.can_connect(server, 8080), "before the knock");
        world.knock(&["nas", "--many", "--for", "3s"]);
        let ends = deadline(&daemon);
        daemon.kill9_both();
        // The inner host's neighbours have to be found first.
        assert!(wait_for(Duration::from_secs(1), || world.can_connect(server, 8080)));
        assert!(world.can_connect(server, 8080));
        assert!(!world.can_stranger_connect(server, 8080));
        assert!(!world.can_connect(inner, 80), "there is no other way in: the client has no route");
        closes_at(ends, || world.can_connect(server, 8080));
        drop(host);
    }
}

#[test]
fn a_single_connection_to_an_inner_service_is_one_and_a_close_ends_the_rest() {
    let world = World::new();
    let _host = Inner::behind(&world);
    world.configure(&format!("{GUARDED}{FORWARD}"));
    world.enrol("laptop", &["--open", "nas"]);
    let daemon = world.daemon(&format!("{GUARDED}{FORWARD}"));
    world.knock(&["nas"]);
    assert!(world.can_connect(SERVER4, 8080) && !world.can_connect(SERVER4, 8080));
    world.knock(&["nas"]);
    let listed = || world.nft(&["list", "map", "inet", "knockd-rs", "forwards_v4"]);
    assert!(listed().contains(" : 10.78.0.5 . 80"), "{}", listed());
    world.knock_until(&["nas", "--close"], || daemon.grants().is_empty());
    assert!(!world.can_connect(SERVER4, 8080));
    assert!(!listed().contains("10.78.0.5"), "{}", listed());
}

#[test]
fn a_flushed_table_leads_to_the_inner_service_again() {
    let world = World::new();
    let _host = Inner::behind(&world);
    let config = format!("{GUARDED}{FORWARD}[firewall]\nowner = \"never\"\n");
    world.configure(&config);
    world.enrol("laptop", &["--open", "nas"]);
    world.amend("laptop", "connections = \"many\"\nmax_duration = \"1h\"\n");
    let daemon = world.daemon(&config);
    world.knock(&["nas", "--many", "--for", "1h"]);
    world.nft(&["flush", "ruleset"]);
    daemon.await_log("was made anew");
    assert!(world.can_connect(SERVER4, 8080));
    assert!(!world.can_stranger_connect(SERVER4, 8080));
}

#[test]
fn the_ports_of_hosts_behind_are_guarded_on_their_way_through() {
    let world = World::new();
    let _host = Inner::behind(&world);
    let route = |via: &str| ip(&format!("-n {} route add {via}", world.client));
    route("10.78.0.0/24 via 10.77.0.1");
    world.enrol("laptop", &["--open", "tcp/80"]);
    world.amend("laptop", "connections = \"many\"\n");
    let guarded = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/80\"]\n";
    let daemon = world.daemon(guarded);
    assert!(
        world.can_stranger_connect(INNER4, 80),
        "what is passed on is none of our business unless it is said"
    );
    world.configure(&format!("{guarded}behind = [\"10.78.0.0/24\", \"fd78::/64\"]\n"));
    daemon.reload();
    assert!(!world.can_stranger_connect(INNER4, 80) && !world.can_connect(INNER4, 80));
    world.knock(&["--many", "--for", "2s"]);
    let ends = deadline(&daemon);
    assert!(world.can_connect(INNER4, 80) && !world.can_stranger_connect(INNER4, 80));
    closes_at(ends, || world.can_connect(INNER4, 80));
}

#[test]
fn a_port_that_a_container_engine_publishes_is_guarded() {
    let world = World::new();
    let _host = Inner::behind(&world);
    world.enrol("laptop", &["--open", "tcp/8081"]);
    world.amend("laptop", "connections = \"many\"\n");
    // As Docker writes it.
    for rule in [
        "add table ip nat",
        "add chain ip nat PREROUTING { type nat hook prerouting priority dstnat; }",
        "add rule ip nat PREROUTING fib daddr type local tcp dport 8081 dnat to 10.78.0.5:80",
    ] {
        world.nft(&rule.split(' ').collect::<Vec<_>>());
    }
    assert!(world.can_stranger_connect(SERVER4, 8081));
    let daemon = world.daemon("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/8081\"]\n");
    assert!(!world.can_stranger_connect(SERVER4, 8081) && !world.can_connect(SERVER4, 8081));
    world.knock(&["--many", "--for", "2s"]);
    let ends = deadline(&daemon);
    assert!(world.can_connect(SERVER4, 8081) && !world.can_stranger_connect(SERVER4, 8081));
    closes_at(ends, || world.can_connect(SERVER4, 8081));
    std::thread::sleep(Duration::from_millis(10));
    succeed(&daemon.tell(&["grant", "laptop", &STRANGER4.to_string()]));
    assert!(world.can_stranger_connect(SERVER4, 8081));
}
