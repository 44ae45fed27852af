//! What a knock opens, for whom, and for how long.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    Answer, CLIENT4, CLIENT6, Daemon, GUARDED, PATIENCE, PLAIN, SERVER4, SERVER6, STRANGER4, World, attempt,
    said, succeed, udp_answers, wait_for,
};

/// How far from its deadline a grant may end.
const TOLERANCE: Duration = Duration::from_millis(300);

/// The deadline that the status tells, as a moment of this clock. The earliest, when there are several.
pub(crate) fn deadline(daemon: &Daemon<'_>) -> Instant {
    let grants = daemon.grants();
    let left = grants.iter().map(|grant| grant["expires_in"].as_f64().unwrap()).fold(f64::MAX, f64::min);
    assert!(!grants.is_empty(), "nothing is open:\n{}", daemon.log());
    Instant::now() + Duration::from_secs_f64(left)
}

/// Tries until the port is found closed, and holds that against the deadline.
#[track_caller]
pub(crate) fn closes_at(deadline: Instant, mut is_open: impl FnMut() -> bool) {
    let closed = loop {
        let tried = Instant::now();
        if !is_open() {
            break tried;
        }
        assert!(tried < deadline + Duration::from_secs(3), "the grant does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(closed + TOLERANCE > deadline, "closed {:?} too early", deadline - closed);
    assert!(closed < deadline + TOLERANCE, "closed {:?} too late", closed - deadline);
}

#[track_caller]
fn ports(daemon: &Daemon<'_>) -> Vec<Value> {
    let mut ports: Vec<Value> = daemon.grants().iter().map(|grant| grant["ports"].clone()).collect();
    ports.sort_by_key(ToString::to_string);
    ports
}

#[test]
fn a_port_is_closed_before_the_knock_and_open_after_it_for_one_connection_from_one_address() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
        world.retarget(&server.to_string());
        assert_eq!(world.try_tcp(None, server, 22), Answer::Silence);
        world.knock(&[]);
        let grants = daemon.grants();
        assert_eq!(grants.len(), 1);
        assert_eq!(grants[0]["address"], client.to_string());
        assert_eq!(grants[0]["granted_for"], 15.0);
        assert!(!world.can_stranger_connect(server, 22));
        assert!(world.can_connect(server, 22));
        assert_eq!(world.try_tcp(None, server, 22), Answer::Silence, "a second connection");
        assert_eq!(daemon.grants(), [json!(null); 0], "a used grant is listed");
    }
}

#[test]
fn a_waiting_client_says_how_long_it_took_and_leaves_a_connection_for_its_user() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let output = world.client(&["knock", "myserver"]);
    succeed(&output);
    assert!(said(&output).contains("tcp/22 at 10.77.0.1 opened after "), "{}", said(&output));
    assert!(world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22));
    drop(daemon);
}

#[test]
fn udp_and_tcp_on_both_families_close_again_at_the_deadline() {
    let world = World::new();
    world.configure("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\", \"udp/53\"]\n");
    world.enrol("laptop", &["--open", "tcp/22", "--open", "udp/53", "--many", "--duration", "3s"]);
    let daemon = world.daemon(&fs::read_to_string(world.path("etc/knockd-rs.toml")).unwrap());
    let (_ssh, _dns) = (world.listener(22), world.listener(53));
    let tcp = |server| world.on_client(|| attempt(None, (server, 22).into(), PATIENCE)) == Answer::Connected;
    let udp = |server| world.on_client(|| udp_answers((server, 53).into(), PATIENCE));
    let services: [(IpAddr, &dyn Fn(IpAddr) -> bool); 4] =
        [(SERVER4, &tcp), (SERVER6, &udp), (SERVER6, &tcp), (SERVER4, &udp)];
    for (server, is_open) in services {
        world.retarget(&server.to_string());
        assert!(!is_open(server));
        world.knock(&["--many"]);
        let deadline = deadline(&daemon);
        assert!(is_open(server));
        closes_at(deadline, || is_open(server));
    }
}

#[test]
fn many_gives_any_number_of_connections_where_the_profile_says_so_and_one_where_not() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    world.enrol_as("strict", "desk", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    succeed(&world.client(&["knock", "strict", "--many", "--no-wait"]));
    assert_eq!(daemon.grants()[0]["connections"], "single");
    assert!(world.can_connect(SERVER4, 22));
    assert!(!world.can_connect(SERVER4, 22));
    world.knock(&["--many"]);
    assert_eq!(daemon.grants()[0]["connections"], "many");
    assert!((0..5).all(|_| world.can_connect(SERVER4, 22)));
    assert!(daemon.grants()[0]["packets"].as_u64().unwrap() >= 5);
}

#[test]
fn a_longer_time_than_the_profile_allows_is_cut_to_what_it_allows() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--duration", "5s", "--max-duration", "20s"]);
    let daemon = world.daemon(GUARDED);
    for (asked, given) in [("10s", 10.0), ("1h", 20.0)] {
        world.knock(&["--for", asked]);
        assert_eq!(daemon.grants()[0]["granted_for"], given, "{asked}");
    }
    daemon.await_log("granted laptop from 10.77.0.2: tcp/22 for 20s, one connection");
}

#[test]
fn a_service_is_opened_by_its_name_with_all_its_ports_and_no_others() {
    let world = World::new();
    let config = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\", \"tcp/80\", \"tcp/443\"]\n\
                  [services]\nweb = [\"tcp/80\", \"tcp/443\"]\nssh = [\"tcp/22\"]\n";
    world.configure(config);
    world.enrol("laptop", &["--open", "ssh", "--open", "web"]);
    let daemon = world.daemon(config);
    let _web = (world.listener(80), world.listener(443), world.listener(22));
    world.knock(&["web"]);
    assert_eq!(ports(&daemon), ["tcp/443", "tcp/80"]);
    assert!(world.can_connect(SERVER4, 80) && world.can_connect(SERVER4, 443));
    assert!(!world.can_connect(SERVER4, 22));
}

#[test]
fn a_port_range_is_opened_from_end_to_end_and_not_beyond() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/8000-8100", "--many"]);
    let daemon = world.daemon("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/7999-8101\"]\n");
    let _services: Vec<_> = [7999, 8000, 8050, 8100, 8101].map(|port| world.listener(port)).into();
    let open = || [7999, 8000, 8050, 8100, 8101].map(|port| world.can_connect(SERVER4, port));
    assert_eq!(open(), [false; 5]);
    world.knock(&["--many"]);
    assert_eq!(ports(&daemon), ["tcp/8000-8100"]);
    assert_eq!(open(), [false, true, true, true, false]);
    world.knock(&["--close"]);
    world.knock(&["--many", "tcp/8050-9000"]);
    assert_eq!(ports(&daemon), ["tcp/8050-8100"]);
    assert_eq!(open(), [false, false, true, true, false]);
}

#[test]
fn a_udp_service_is_opened_for_one_flow() {
    let world = World::new();
    world.enrol("laptop", &["--open", "udp/5300"]);
    let _daemon = world.daemon("[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"udp/5300\"]\n");
    let _service = world.listener(5300);
    for server in [SERVER4, SERVER6] {
        world.retarget(&server.to_string());
        assert!(!world.udp_answers(server, 5300));
        world.knock(&[]);
        assert!(world.udp_answers(server, 5300));
        assert!(!world.udp_answers(server, 5300), "a second flow");
    }
}

#[test]
fn a_closing_knock_ends_the_clients_own_grants() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--many", "--for", "1h"]);
    assert!(world.can_connect(SERVER4, 22));
    world.knock(&["--close"]);
    assert!(!world.can_connect(SERVER4, 22));
    assert!(daemon.grants().is_empty());
    assert!(daemon.log().contains("closed laptop from 10.77.0.2: tcp/22 for 10.77.0.2, as the client asked"));
}

#[test]
fn another_address_is_let_in_only_where_the_profile_allows_it() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--other-address", "10.77.0.3/32"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--address", &STRANGER4.to_string()]);
    assert!(!world.can_connect(SERVER4, 22));
    assert!(world.can_stranger_connect(SERVER4, 22));
    assert!(daemon.log().contains("granted laptop from 10.77.0.2: tcp/22 to 10.77.0.3 for 15s"));
    world.knock(&["--address", "10.77.0.4"]);
    daemon.await_log(
        "refused laptop from 10.77.0.2: the profile's other_addresses do not hold 10.77.0.4; add its",
    );
    assert!(daemon.grants().is_empty());
}

#[test]
fn the_command_behind_two_dashes_runs_after_the_knock_and_its_exit_code_is_the_clients() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let script = "read line < /dev/tcp/10.77.0.1/22 && echo \"it says $line\"; exit 9";
    let output = world.client(&["knock", "myserver", "--", "bash", "-c", script]);
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it says hello\n");
}

#[test]
fn waiting_in_vain_ends_with_code_5_and_names_what_to_check() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.amend("laptop", "enabled = false\n");
    let _daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    let output = world.client(&["knock", "myserver", "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    for words in [
        "tcp/22 at myserver did not open within 1s; there was no answer at all",
        "`knockd-rs status`",
        "drops UDP port 62201",
        "this machine's clock",
    ] {
        assert!(said(&output).contains(words), "no {words:?} in: {}", said(&output));
    }
}

#[test]
fn one_address_too_many_is_refused_and_the_log_says_why() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--other-address", "10.77.0.0/24"]);
    world.amend("laptop", "max_grants = 2\n");
    let daemon = world.daemon(GUARDED);
    world.knock(&["--address", "10.77.0.7"]);
    world.knock(&["--address", "10.77.0.8"]);
    world.knock(&["--address", "10.77.0.9"]);
    daemon.await_log(
        "refused laptop from 10.77.0.2: the profile has 2 addresses let in, as many as its max_grants allows; \
         wait until one ends, revoke one, or raise max_grants",
    );
    assert_eq!(daemon.grants().len(), 2);
    // Renewing takes no further place.
    world.knock(&["--address", "10.77.0.8", "--for", "1m"]);
    assert_eq!(daemon.grants().len(), 2);
}

#[test]
fn a_grant_that_ended_makes_room_for_another() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--other-address", "10.77.0.0/24", "--duration", "1s"]);
    world.amend("laptop", "max_grants = 1\n");
    let daemon = world.daemon(PLAIN);
    world.knock(&["--address", "10.77.0.7"]);
    assert!(wait_for(Duration::from_secs(3), || daemon.grants().is_empty()));
    world.knock(&["--address", "10.77.0.8"]);
    assert_eq!(daemon.logged("refused"), 0, "{}", daemon.log());
    assert_eq!(daemon.logged("granted"), 2);
}

#[test]
fn sixty_five_thousand_grants_are_shown_in_pages_and_leave_room_for_one_more() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world.amend("laptop", "max_grants = 65535\n");
    let mut daemon = world.daemon(&format!("{GUARDED}[limits]\ngrants = 65535\n"));
    let _ssh = world.listener(22);
    daemon.kill9_both();
    // As a daemon before would have left them.
    let elements: Vec<String> = (0..65_000u32)
        .map(|place| {
            let address = std::net::Ipv4Addr::from(0x6440_0000 + place);
            format!("{address} . tcp . 22 timeout 1h comment \"laptop\"")
        })
        .collect();
    let script = world.path("many.nft");
    let adding =
        |part: &[String]| format!("add element inet knockd-rs grants_v4 {{ {} }}\n", part.join(", "));
    fs::write(&script, elements.chunks(1000).map(adding).collect::<String>()).unwrap();
    world.nft(&["-f", script.to_str().unwrap()]);
    daemon.start_again();
    let screen = daemon.command(&["status"]);
    assert!(
        screen.contains("  page 1 of 1625, 65000 grants; --page NUMBER shows another, --json all\n"),
        "{screen}"
    );
    assert!(screen.lines().count() < 70, "{screen}");
    let last = daemon.command(&["status", "--page", "1625"]);
    assert!(last.contains("page 1625 of 1625"), "{last}");
    world.knock(&[]);
    assert!(world.can_connect(SERVER4, 22));
    daemon.command(&["revoke", "all"]);
    assert_eq!(daemon.grants(), [json!(null); 0]);
}
