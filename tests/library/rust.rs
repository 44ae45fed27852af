//! The client in a program in Rust.

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use knockd_rs::client::{
    Dirs, Effort, Method, ReachError, ReachedUdp, Server, Uses, close, knock_for, reach, reach_udp,
};

use crate::build::example;
use crate::common::{
    Answer, PATIENCE, SERVER_NAME, SERVER4, SERVER6, SOON, STRANGER4, World, attempt, succeed, wait_for,
};

/// A world with a service at tcp/22, and one at udp/53 that sends back what it gets; both closed to strangers.
pub fn world(guard: &str, methods: &[&str]) -> World {
    let world = World::new();
    world.configure(&config(guard));
    let methods: Vec<&str> = methods.iter().flat_map(|method| ["--method", *method]).collect();
    world.enrol("laptop", &[&["--open", "tcp/22", "--open", "udp/53", "--many"][..], &methods[..]].concat());
    world
}

pub fn config(guard: &str) -> String {
    format!("[freshness]\nclock = \"trusted\"\n[guard]\n{guard} = [\"tcp/22\", \"udp/53\", \"udp/54\"]\n")
}

fn dirs(world: &World) -> Dirs {
    let home = world.path("home");
    Dirs { config: home.join(".config/knockd-rs"), state: home.join(".local/state/knockd-rs") }
}

fn server(world: &World) -> Server {
    Server::open(&dirs(world), SERVER_NAME).unwrap()
}

fn effort(server: &Server) -> Effort {
    Effort { timeout: SOON, ..Effort::one_connection(server.ways(None)) }
}

/// What the service sends back, copies of the probe passed over.
fn answers(reached: &ReachedUdp, probe: &[u8], word: &[u8]) -> bool {
    reached.socket.set_read_timeout(Some(SOON)).unwrap();
    reached.socket.send(word).unwrap();
    let mut bytes = [0; 64];
    loop {
        let length = reached.socket.recv(&mut bytes).unwrap();
        if &bytes[..length] != probe {
            return &bytes[..length] == word;
        }
    }
}

fn udp_is_reached(host: IpAddr, guard: &str) {
    let world = world(guard, &["spa"]);
    world.retarget(&host.to_string());
    let daemon = world.daemon(&config(guard));
    let _service = world.listener(53);
    let server = server(&world);
    let reached = world.on_client(|| reach_udp(&server, 53, Some(b"probe"), &effort(&server))).unwrap();
    assert_eq!(reached.by.as_ref().map(|way| way.method()), Some(Method::Spa), "{}", daemon.log());
    assert_eq!(reached.address, (host, 53).into());
    reached.socket.set_read_timeout(Some(SOON)).unwrap();
    let mut first = [0; 64];
    let length = reached.socket.recv(&mut first).unwrap();
    assert_eq!(&first[..length], b"probe", "the first thing to be received is the probe's answer");
    assert!(answers(&reached, b"probe", b"more"), "the socket is the one that the grant let in");
    assert!(!world.udp_answers(host, 53), "the grant was for one connection");
}

#[test]
fn a_udp_port_is_opened_with_a_probe_and_one_grant_for_one_connection() {
    udp_is_reached(SERVER4, "drop");
}

#[test]
fn a_udp_port_that_refuses_strangers_is_opened_likewise_over_ipv6() {
    udp_is_reached(SERVER6, "reject");
}

#[test]
fn a_udp_port_that_answers_is_not_knocked_for() {
    let world = world("drop", &["spa"]);
    let daemon = world.daemon(&config("drop"));
    let _service = world.listener(55);
    let server = server(&world);
    let reached = world.on_client(|| reach_udp(&server, 55, Some(b"probe"), &effort(&server))).unwrap();
    assert_eq!(reached.by, None);
    assert_eq!(daemon.counter("knocks accepted"), 0);
}

#[test]
fn without_a_probe_a_udp_port_is_knocked_for_and_handed_out_unseen() {
    let world = world("drop", &["spa", "sequence"]);
    let _daemon = world.daemon(&config("drop"));
    let _service = world.listener(53);
    let server = server(&world);
    for method in [Method::Spa, Method::Sequence] {
        let mut effort = effort(&server);
        effort.ways.retain(|way| way.method() == method);
        let reached = world.on_client(|| reach_udp(&server, 53, None, &effort)).unwrap();
        assert_eq!(reached.by.as_ref().map(|way| way.method()), Some(method));
        assert!(answers(&reached, b"", b"word"), "{method}");
    }
}

#[test]
fn a_udp_port_that_stays_closed_is_given_up_in_time_and_after_the_number_of_knocks_that_was_allowed() {
    let world = world("drop", &["spa"]);
    let daemon = world.daemon(&config("drop"));
    let _service = world.listener(54);
    let server = server(&world);
    let patience = Duration::from_millis(500);
    let effort = Effort { timeout: Duration::from_secs(5), knocks: 2, patience, ..effort(&server) };
    let started = Instant::now();
    let error = world.on_client(|| reach_udp(&server, 54, Some(b"probe"), &effort)).unwrap_err();
    assert!(matches!(error, ReachError::Closed { knocks: 2, said: None, last: None }), "{error:?}");
    assert_eq!(error.to_string(), "the port did not answer, also after 2 knocks");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(daemon.logged("refused"), 2, "{}", daemon.log());
}

#[test]
fn a_bundle_in_memory_is_enough_and_leaves_nothing_but_counters() {
    let world = world("drop", &["spa"]);
    let _daemon = world.daemon(&config("drop"));
    let _service = world.listener(22);
    let text = fs::read_to_string(world.path("laptop-myserver.knock")).unwrap();
    let dirs = Dirs { config: "/nonexistent".into(), state: world.path("state") };
    let server = Server::from_bundle(&dirs, &text, None).unwrap();
    let mut reached = world.on_client(|| reach(&server, 22, &effort(&server))).unwrap();
    let mut greeting = String::new();
    reached.stream.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "hello\n");
    let left = fs::read_dir(&dirs.state).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["myserver.counter", "myserver.lock", "myserver.networks"]);
}

#[test]
fn the_example_in_rust_prints_what_the_services_say() {
    let world = world("drop", &["spa"]);
    let _daemon = world.daemon(&config("drop"));
    let (_ssh, _dns) = (world.listener(22), world.listener(53));
    let example = example(&world.path("lib"));
    for (words, answer) in [(&["22"][..], "hello\n"), (&["53", "probe"], "probe")] {
        let mut command = world.inside(&world.client);
        command.arg(&example).arg(SERVER_NAME).args(words).env_clear().env("HOME", world.path("home"));
        assert_eq!(
            succeed(&command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()),
            answer
        );
    }
}

#[test]
fn a_knock_alone_opens_what_was_asked_for_and_another_one_ends_it() {
    let world = world("drop", &["spa"]);
    let daemon = world.daemon(&config("drop"));
    let _service = world.listener(22);
    let server = server(&world);
    let effort = Effort { uses: Some(Uses::Many), duration: Some("5m".parse().unwrap()), ..effort(&server) };
    let both = ["tcp/22".parse().unwrap(), "udp/53".parse().unwrap()];
    let sent = world.on_client(|| knock_for(&server, &both, &effort)).unwrap();
    assert_eq!(sent.by.method(), Method::Spa);
    assert!(world.can_connect(SERVER4, 22) && world.can_connect(SERVER4, 22), "{}", daemon.log());
    assert_eq!(world.on_client(|| attempt(Some(STRANGER4), (SERVER4, 22).into(), PATIENCE)), Answer::Silence);
    world.on_client(|| close(&server, &both, &effort)).unwrap();
    assert!(wait_for(SOON, || daemon.grants().is_empty()), "{}", daemon.log());
    assert!(!world.can_connect(SERVER4, 22));
}
