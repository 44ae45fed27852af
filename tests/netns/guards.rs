//! Guarded ports, and what admins do by hand at the control socket.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{
    Answer, CLIENT4, Daemon, GUARDED, KNOCKD, PLAIN, SERVER4, SERVER6, World, install, said, succeed,
    wait_for,
};

#[test]
fn a_guard_that_rejects_answers_as_a_port_without_a_service_does() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    let (_ssh, _dns) = (world.listener(22), world.listener(53));
    daemon.command(&["guard", "tcp/22", "udp/53", "--reject"]);
    for server in [SERVER4, SERVER6] {
        assert_eq!(world.try_tcp(None, server, 22), Answer::Refused);
        let error = world.on_client(|| {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = std::net::UdpSocket::bind(any).unwrap();
            socket.connect((server, 53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.send(b"hello").unwrap();
            socket.recv(&mut [0; 16]).unwrap_err()
        });
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
}

#[test]
fn an_unconfirmed_guard_ends_by_itself_and_a_knock_from_outside_makes_it_stay() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    let _ssh = world.listener(22);
    assert!(world.can_connect(SERVER4, 22), "nothing is guarded until an admin says so");
    daemon.command(&["guard", "tcp/22", "--confirm", "2s"]);
    let deadline = Instant::now() + Duration::from_secs(2);
    assert!(!world.can_connect(SERVER4, 22));
    assert!(wait_for(Duration::from_secs(4), || world.can_connect(SERVER4, 22)));
    assert!(Instant::now() + Duration::from_millis(400) > deadline, "it ended early");
    daemon.await_log("the guard of tcp/22 was not confirmed in time: the port is open to everybody again");
    assert_eq!(daemon.status()["guards"], json!([]));

    daemon.command(&["guard", "tcp/22", "--confirm", "2s"]);
    world.knock(&[]);
    daemon.await_log("confirmed: the guard of tcp/22 stays: a knock from outside opened it");
    std::thread::sleep(Duration::from_millis(2200));
    assert!(!world.can_stranger_connect(SERVER4, 22));
    assert_eq!(
        daemon.status()["guards"],
        json!([{"ports": "tcp/22", "closed": "drop", "from_file": false, "unconfirmed_for": null}])
    );
}

#[test]
fn a_knock_from_the_host_itself_confirms_nothing() {
    let world = World::new();
    let daemon = world.daemon(PLAIN);
    let _ssh = world.listener(22);
    daemon.command(&["guard", "tcp/22", "--confirm", "3s"]);
    for host in ["10.77.0.1", "127.0.0.1", "fd77::1"] {
        world.retarget(host);
        let mut client = world.inside(&world.server);
        client.args([KNOCKD, "knock", "myserver", "--no-wait"]).env("HOME", world.path("home"));
        succeed(&client.output().unwrap());
        daemon.await_log(&format!("granted laptop from {host}"));
    }
    assert!(wait_for(Duration::from_secs(5), || world.can_stranger_connect(SERVER4, 22)));
    assert_eq!(daemon.logged("confirmed: "), 0);
}

#[test]
fn admins_open_and_close_by_hand() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--open", "tcp/80"]);
    let daemon = world.daemon("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\", \"tcp/80\"]\n");
    let _services = (world.listener(22), world.listener(80));
    daemon.command(&["grant", "laptop", &CLIENT4.to_string(), "tcp/22", "--many", "--for", "1m"]);
    assert!((0..3).all(|_| world.can_connect(SERVER4, 22)));
    assert!(!world.can_connect(SERVER4, 80));
    for what in ["laptop", "10.77.0.2", "all"] {
        daemon.command(&["grant", "laptop", "10.77.0.2", "--many"]);
        assert!(world.can_connect(SERVER4, 80));
        let told = daemon.command(&["revoke", what]);
        assert!(told.contains("tcp/80 for 10.77.0.2; connections that are established go on"), "{told}");
        assert!(!world.can_connect(SERVER4, 22) && !world.can_connect(SERVER4, 80), "{what}");
        assert!(daemon.grants().is_empty());
    }
    assert_eq!(daemon.command(&["revoke", "all"]), "no grant is live there; nothing to revoke\n");
    refuses(&daemon, &["grant", "nobody", "10.77.0.2"], "there is no profile \"nobody\"");
    refuses(&daemon, &["grant", "laptop", "10.77.0.2", "web"], "there is no service web");
    daemon.await_log("revoked laptop: tcp/22 for 10.77.0.2");
}

#[test]
fn a_port_that_is_guarded_no_more_is_open_to_everybody() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _services = (world.listener(22), world.listener(80));
    daemon.command(&["guard", "tcp/80"]);
    assert!(!world.can_connect(SERVER4, 80));
    daemon.command(&["unguard", "tcp/80"]);
    assert!(world.can_connect(SERVER4, 80));
    refuses(&daemon, &["unguard", "tcp/80"], "tcp/80 is not guarded; `knockd-rs status` shows what is");
    refuses(&daemon, &["unguard", "tcp/22"], "tcp/22 is guarded by knockd-rs.toml; remove it there");
    refuses(&daemon, &["guard", "tcp/20-30"], "tcp/20-30 is guarded already by knockd-rs.toml, as tcp/22");
}

#[track_caller]
fn refuses(daemon: &Daemon<'_>, command: &[&str], words: &str) {
    let output = daemon.tell(command);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains(words), "{}", said(&output));
}

#[test]
fn the_status_tells_profiles_guards_grants_and_counters() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    world.knock(&["--for", "1m"]);
    world.send(None, SERVER4, &[0; 176]);
    let status = daemon.status();
    assert_eq!(status["monitor_pid"], daemon.monitor().as_raw_nonzero().get());
    assert_eq!(status["worker_pid"], daemon.worker().as_raw_nonzero().get());
    assert_eq!(status["degraded"], json!([]));
    assert_eq!(status["capture"], "any, UDP port 62201");
    assert_eq!(status["landlock"], true);
    assert_eq!((&status["configuration"], &status["serving"]), (&json!(1), &json!(1)));
    let profile = &status["profiles"][0];
    assert_eq!(profile["name"], "laptop");
    assert_eq!(profile["open"], json!(["tcp/22"]));
    assert_eq!((&profile["duration"], &profile["max_duration"]), (&json!("15s"), &json!("1h")));
    assert!(profile["last_knock"].as_u64().unwrap() > 1_700_000_000);
    let guard = json!({"ports": "tcp/22", "closed": "drop", "from_file": true, "unconfirmed_for": null});
    assert_eq!(status["guards"], json!([guard]));
    let grant = &status["grants"][0];
    assert_eq!((&grant["profile"], &grant["address"]), (&json!("laptop"), &json!("10.77.0.2")));
    assert_eq!((&grant["ports"], &grant["connections"]), (&json!("tcp/22"), &json!("single")));
    let left = grant["expires_in"].as_f64().unwrap();
    assert!(grant["granted_for"] == 60.0 && left > 50.0 && left <= 60.0, "{grant}");
    for (name, number) in [("frames", 4), ("knocks accepted", 1), ("dropped: repeat", 2), ("dropped: mac", 1)]
    {
        assert_eq!(daemon.counter(name), number, "{name}: {}", status["counters"]);
    }
    assert_eq!(daemon.logged("10.77.0.2"), 1, "a stranger's packet is in the log:\n{}", daemon.log());
}

#[test]
fn only_root_and_the_configured_group_command_the_daemon() {
    let world = World::new();
    // 65534 is `nogroup` or `nobody`, whatever the distribution calls it.
    let group = succeed(&std::process::Command::new("getent").args(["group", "65534"]).output().unwrap());
    let group = group.split(':').next().unwrap();
    let daemon = world.daemon(PLAIN);
    // The program where everybody may run it: the build directory may be private.
    let program = world.path("knockd-rs");
    install(Path::new(KNOCKD), &program);
    let ask = |ids: &[&str]| -> Output {
        let mut command = std::process::Command::new("setpriv");
        command.args(ids).arg(&program).args(["status", "--json", "--runtime-dir"]).arg(world.path("run"));
        command.output().unwrap()
    };
    let stranger = ["--reuid=12345", "--regid=12345", "--clear-groups"];
    let primary = ["--reuid=12345", "--regid=65534", "--clear-groups"];
    let supplementary = ["--reuid=12345", "--regid=12345", "--groups=65534"];
    for ids in [stranger, primary, supplementary] {
        let output = ask(&ids);
        assert_eq!(output.status.code(), Some(7), "{}", said(&output));
        assert!(said(&output).contains("only root and the members of control.group"), "{}", said(&output));
    }
    world.configure(&format!("{PLAIN}[control]\ngroup = {group:?}\n"));
    daemon.reload();
    assert_eq!(ask(&stranger).status.code(), Some(7));
    succeed(&ask(&primary));
    succeed(&ask(&supplementary));
}
