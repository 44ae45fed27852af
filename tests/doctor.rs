//! `knockd-rs doctor`: set-ups that were broken in one way, each of which is found and told with what to do; and whole
//! ones, of which nothing is.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{
    CABLE, GUARDED, KNOCK_PORT, KNOCKD, PLAIN, SERVER_NAME, SERVER4, SERVER6, World, install, ip, said,
    succeed,
};
use knockd_rs::sys::{KernelClock, kernel_clock};
use serde_json::Value;

/// What `doctor --json` printed.
struct Answer {
    lines: Vec<Value>,
    code: Option<i32>,
}

impl Answer {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let lines = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(output)));
        Self { lines, code: output.status.code() }
    }

    fn states(&self, state: &str) -> Vec<&str> {
        let of = |line: &&Value| line["state"] == state;
        self.lines.iter().filter(of).map(|line| line["check"].as_str().unwrap()).collect()
    }

    /// That these checks have a problem and no others, and that the exit code says so.
    #[track_caller]
    fn has_problems(&self, checks: &[&str]) -> &Self {
        assert_eq!(self.states("problem"), checks, "{:#?}", self.lines);
        assert_eq!(self.code, Some(i32::from(!checks.is_empty())));
        self
    }

    /// That a check found this, in this state, and advises that.
    #[track_caller]
    fn says(&self, check: &str, state: &str, found: &str, advice: &str) -> &Self {
        let is_so = |line: &Value| {
            line["check"] == check
                && line["state"] == state
                && line["found"].as_str().unwrap().contains(found)
                && line["advice"].as_str().unwrap_or_default().contains(advice)
        };
        assert!(
            self.lines.iter().any(is_so),
            "no {state} of {check} with {found:?}, {advice:?}: {:#?}",
            self.lines
        );
        self
    }
}

/// The client's doctor.
#[track_caller]
fn of_client(world: &World, more: &[&str]) -> Answer {
    Answer::of(&world.client(&[&["doctor", SERVER_NAME, "--json"], more].concat()))
}

/// The server's doctor, after shell commands in a mount namespace of its own.
#[track_caller]
fn of_server_after(world: &World, before: &str) -> Answer {
    let mut command = world.inside(&world.server);
    command.args(["sh", "-ec", &format!("{before}\nexec \"$@\""), "sh", KNOCKD, "doctor", "--json"]);
    Answer::of(&with_places(world, &mut command).output().unwrap())
}

#[track_caller]
fn of_server(world: &World) -> Answer {
    of_server_after(world, "")
}

fn with_places<'a>(world: &World, command: &'a mut Command) -> &'a mut Command {
    for (flag, name) in [("--config-dir", "etc"), ("--state-dir", "lib"), ("--runtime-dir", "run")] {
        command.arg(flag).arg(world.path(name));
    }
    command
}

/// A client that is enrolled at a server whose daemon does not run.
fn enrolled() -> World {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    world
}

// --- the client --------------------------------------------------------------------------------------------------

#[test]
fn a_healthy_client_has_no_problem_and_sends_no_knock() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    let ear = world.ear();
    let answer = of_client(&world, &[]);
    answer.has_problems(&[]);
    answer.says("port", "ok", "tcp/22 at 10.77.0.1 gives no answer", "");
    answer.says("route", "ok", "packets to 10.77.0.1 leave from 10.77.0.2", "");
    answer.says("methods", "ok", "spa: datagrams to 10.77.0.1 leave this machine", "");
    answer.says(
        "knock",
        "ok",
        "nothing was sent to the server but a try of tcp/22 and an empty datagram",
        "",
    );
    assert_eq!(ear.heard(), [Vec::<u8>::new()]);
    assert_eq!(daemon.counter("knocks accepted"), 0);
    assert!(!world.path("home/.local/state/knockd-rs/myserver.counter").exists(), "a counter was taken");
}

#[test]
fn a_real_knock_says_of_each_method_whether_it_works_and_leaves_nothing_open() {
    let world = World::new();
    let methods = ["spa", "syn", "sequence"].map(|method| ["--method", method]).concat();
    world.enrol("laptop", &[&["--open", "tcp/22"][..], &methods].concat());
    let daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    let answer = of_client(&world, &["--knock"]);
    answer.has_problems(&[]);
    for method in ["spa", "sequence", "syn"] {
        answer.says("knock", "ok", &format!("{method} works: the port opened after"), "");
    }
    assert_eq!(daemon.grants().len(), 0);
}

#[test]
fn a_real_knock_without_a_daemon_is_a_problem() {
    let world = enrolled();
    world.nft(&["add table inet mine; add chain inet mine in { type filter hook input priority 0; }; \
                 add rule inet mine in tcp dport 22 drop"]);
    of_client(&world, &["--knock"]).has_problems(&["knock"]).says(
        "knock",
        "problem",
        "spa had no effect: the port still gives no answer",
        "journalctl -u knockd-rs",
    );
}

#[test]
fn a_name_without_an_address_is_found() {
    let world = enrolled();
    world.retarget("no-such-host.invalid");
    of_client(&world, &[]).has_problems(&["name"]).says(
        "name",
        "problem",
        "no-such-host.invalid has no address",
        "--host ADDRESS",
    );
}

#[test]
fn a_server_file_that_others_can_read_is_found() {
    let world = enrolled();
    let file = world.path("home/.config/knockd-rs/myserver.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let advice = format!("run: chmod 0600 {}", file.display());
    of_client(&world, &[]).has_problems(&["enrolment"]).says(
        "enrolment",
        "problem",
        "mode 0644 lets other users read it",
        &advice,
    );
}

#[test]
fn a_counter_from_a_clock_that_was_ahead_is_found() {
    let world = enrolled();
    world.knock(&[]);
    let ahead = knockd_rs::clock::wall().saturating_add(Duration::from_secs(7230)).as_nanos();
    fs::write(world.path("home/.local/state/knockd-rs/myserver.counter"), format!("{ahead:020}\n")).unwrap();
    of_client(&world, &[]).has_problems(&[]).says(
        "counter",
        "warning",
        "myserver.counter was written by a clock 120 minutes ahead",
        "set this machine's clock",
    );
}

#[test]
fn a_counter_that_cannot_be_written_is_found() {
    let world = enrolled();
    world.knock(&[]);
    let file = world.path("home/.local/state/knockd-rs/myserver.counter");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    of_client(&world, &[]).has_problems(&["store"]).says(
        "store",
        "problem",
        "mode 0666 lets other users change it",
        "chmod 0600",
    );
}

#[test]
fn a_server_without_a_route_to_it_is_found() {
    let world = enrolled();
    world.retarget("192.0.2.1");
    of_client(&world, &[]).has_problems(&["route"]).says(
        "route",
        "problem",
        "there is no route to 192.0.2.1",
        "ip route get",
    );
}

#[test]
fn an_address_family_without_a_route_is_a_warning() {
    let world = enrolled();
    let hosts = Path::new("/etc/netns").join(&world.client);
    fs::create_dir_all(&hosts).unwrap();
    fs::write(hosts.join("hosts"), format!("{SERVER4} server.test\n2001:db8::1 server.test\n")).unwrap();
    world.retarget("server.test");
    let answer = of_client(&world, &[]);
    answer.has_problems(&[]);
    answer.says("name", "ok", "server.test is 10.77.0.1 and 2001:db8::1", "");
    answer.says("route", "warning", "there is no route to 2001:db8::1", "--host");
}

#[test]
fn a_port_that_is_open_without_a_knock_is_found() {
    let world = enrolled();
    let _service = world.listener(22);
    of_client(&world, &[]).has_problems(&[]).says(
        "port",
        "warning",
        "tcp/22 at 10.77.0.1 is open to this machine without a knock",
        "knockd-rs guard tcp/22 --confirm 2m",
    );
}

#[test]
fn a_firewall_on_the_client_that_rejects_knocks_is_found() {
    for (server, verdict) in [(SERVER4, "reject"), (SERVER6, "drop")] {
        let world = enrolled();
        world.retarget(&server.to_string());
        let rules = format!(
            "add table inet own; add chain inet own out {{ type filter hook output priority 0; }}; \
             add rule inet own out udp dport {KNOCK_PORT} {verdict}"
        );
        succeed(&world.inside(&world.client).args(["nft", &rules]).output().unwrap());
        of_client(&world, &[]).has_problems(&["methods"]).says(
            "methods",
            "problem",
            &format!("spa: a firewall on this machine rejects datagrams to {server}, UDP port 62201"),
            "allow UDP port 62201 to go out",
        );
    }
}

// --- the server --------------------------------------------------------------------------------------------------

#[test]
fn a_healthy_server_has_no_problem_and_looking_changes_nothing() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    let before = (world.nft(&["-s", "list", "ruleset"]), daemon.status()["counters"].clone());
    let answer = of_server(&world);
    answer.has_problems(&[]);
    for (check, found) in [
        ("rights", "everything could be looked at"),
        ("configuration", "sound"),
        ("daemon", "runs and is healthy"),
        ("table", "is what the daemon makes"),
        ("guards", "keeps strangers from tcp/22"),
        ("listeners", "somebody listens"),
        ("capture", CABLE),
        ("sandbox", "the worker has no capability"),
        ("firewalls", "no other firewall"),
        ("knock-port", "no program has bound UDP port 62201"),
    ] {
        answer.says(check, "ok", found, "");
    }
    // Started by hand, as root.
    answer.says("sandbox", "warning", "the monitor runs outside of its unit's sandbox", "systemctl start");
    assert_eq!(before, (world.nft(&["-s", "list", "ruleset"]), daemon.status()["counters"].clone()));
}

#[test]
fn a_daemon_that_does_not_run_is_found_with_all_that_lacks_for_it() {
    let world = enrolled();
    world.configure(GUARDED);
    let _service = world.listener(22);
    of_server(&world)
        .has_problems(&["daemon", "table", "guards"])
        .says("daemon", "problem", "no daemon listens at", "systemctl start knockd-rs")
        .says("table", "problem", "there is no table inet knockd-rs", "systemctl start knockd-rs")
        .says(
            "guards",
            "problem",
            "tcp/22 should be closed to strangers, and the kernel lets everybody in",
            "start",
        );
}

#[test]
fn a_broken_profile_is_found_with_its_line() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    world.write_profile("phone", "open = [\"tcp/0\"]\n");
    of_server(&world).says("configuration", "problem", "profiles.d/phone.toml:1: open: ", "").says(
        "profiles",
        "ok",
        "one profile may knock",
        "",
    );
}

#[test]
fn a_profile_that_was_not_loaded_yet_is_found() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    world.enrol("phone", &["--open", "tcp/443"]);
    of_server(&world)
        .has_problems(&[])
        .says("profiles", "warning", "does not know what the files say of phone", "knockd-rs reload")
        .says("guards", "warning", "profiles open tcp/443, which nothing closes", "knockd-rs guard tcp/443");
}

#[test]
fn a_server_without_a_profile_is_found() {
    let world = enrolled();
    world.configure(PLAIN);
    fs::remove_file(world.path("etc/profiles.d/laptop.toml")).unwrap();
    of_server(&world).says("profiles", "problem", "nobody can knock", "knockd-rs profile add");
}

#[test]
fn another_table_that_drops_by_its_policy_is_found_and_named() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    world.nft(&["add table inet mine; add chain inet mine input { type filter hook input priority 5; policy drop; }; \
                 add table inet firewalld; add chain inet firewalld filter_INPUT { type filter hook input priority 10; }; \
                 add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }; \
                 add chain ip filter ufw-user-input"]);
    of_server(&world)
        .has_problems(&[])
        .says(
            "firewalls",
            "warning",
            "table inet mine drops what its chain input",
            "nft insert rule inet mine input",
        )
        .says("firewalls", "warning", "(hook input, priority 5)", "")
        .says("firewalls", "warning", "firewalld: table inet firewalld", "firewall-cmd")
        .says("firewalls", "warning", "ufw: table ip filter", "ufw allow");
}

#[test]
fn a_table_that_was_deleted_or_tampered_with_is_found() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    // With the daemon dead nobody mends it.
    daemon.kill9_both();
    of_server(&world).has_problems(&["daemon"]).says("table", "ok", "is what the daemon makes", "");
    world.nft(&["insert rule inet knockd-rs guard tcp dport 22 accept"]);
    of_server(&world).has_problems(&["daemon", "table"]).says(
        "table",
        "problem",
        "has one line that the daemon does not make: chain guard: tcp dport 22 accept",
        "systemctl restart knockd-rs",
    );
    world.nft(&["flush chain inet knockd-rs drop_strangers"]);
    of_server(&world).has_problems(&["daemon", "table"]).says(
        "table",
        "problem",
        "lacks 2 lines of the daemon's: chain drop_strangers: ",
        "",
    );
    world.nft(&["delete table inet knockd-rs"]);
    of_server(&world).has_problems(&["daemon", "table", "guards"]).says(
        "table",
        "problem",
        "there is no table inet knockd-rs",
        "start",
    );
}

#[test]
fn a_table_that_nobody_owns_is_found_where_the_kernel_could_protect_it() {
    let world = World::new();
    let _daemon = world.daemon(&format!("{GUARDED}[firewall]\nowner = \"never\"\n"));
    let _service = world.listener(22);
    of_server(&world).has_problems(&[]).says(
        "table",
        "ok",
        "is what the daemon makes, and watched by it",
        "",
    );
    world.configure(GUARDED);
    let answer = of_server(&world);
    answer.has_problems(&[]);
    let kernel = answer.lines.iter().find(|line| line["check"] == "kernel").unwrap();
    match kernel["found"].as_str().unwrap().contains("lets it own its table") {
        true => answer.says(
            "table",
            "warning",
            "nobody owns the table inet knockd-rs",
            "systemctl restart knockd-rs",
        ),
        false => answer.says("table", "ok", "watched by it", ""),
    };
}

#[test]
fn a_guard_that_the_kernel_has_lost_is_found() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    daemon.kill9_both();
    world.nft(&["flush map inet knockd-rs guarded"]);
    of_server(&world).has_problems(&["daemon", "guards"]).says(
        "guards",
        "problem",
        "tcp/22 should be closed to strangers",
        "start the daemon",
    );
}

#[test]
fn an_interface_that_does_not_exist_and_one_that_is_down_are_found() {
    let world = enrolled();
    world.configure("[capture]\ndevice = \"eth7\"\n");
    of_server(&world).says("capture", "problem", "there is no interface eth7", "capture.device");
    world.configure(&format!("[capture]\ndevice = \"{CABLE}\"\n"));
    of_server(&world).says("capture", "ok", "knocks are awaited on veth0, which is up", "");
    ip(&format!("-n {} link set {CABLE} down", world.server));
    of_server(&world).says(
        "capture",
        "problem",
        "veth0, where knocks are awaited, is down",
        "ip link set veth0 up",
    );
}

#[test]
fn a_state_directory_that_is_full_read_only_or_somebody_elses_is_found() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    let lib = world.path("lib").display().to_string();
    let full = format!(
        "mount -t tmpfs -o size=64k,mode=700 none {lib}; head -c 128k /dev/zero >{lib}/all 2>/dev/null || true"
    );
    of_server_after(&world, &full).has_problems(&["space"]).says(
        "space",
        "problem",
        &format!("nothing can be written in {lib}: No space left on device"),
        "make room there",
    );
    let fixed = format!("mount --bind {lib} {lib}; mount -o remount,bind,ro {lib}");
    of_server_after(&world, &fixed).has_problems(&["space"]).says(
        "space",
        "problem",
        "Read-only file system",
        "mount it writable",
    );
    chown(&lib, Some(12_345), None).unwrap();
    let advice = format!("chown 0 {lib}");
    of_server(&world).has_problems(&["directories"]).says(
        "directories",
        "problem",
        "belongs to user 12345",
        &advice,
    );
}

#[test]
fn a_knock_port_that_another_program_has_bound_is_found_with_the_program() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let _service = world.listener(22);
    let _socket = world.on_server(|| UdpSocket::bind(("0.0.0.0", KNOCK_PORT)).unwrap());
    let holder = format!("(process {})", std::process::id());
    of_server(&world).has_problems(&[]).says("knock-port", "warning", &holder, "capture.port");
}

#[test]
fn a_clock_that_nobody_vouches_for_is_found() {
    let world = enrolled();
    let (setting, found) = match kernel_clock().unwrap() {
        KernelClock::Unsynchronised => ("auto", "the clock is not synchronised"),
        _ => ("untrusted", "freshness.clock = \"untrusted\""),
    };
    world.configure(&format!("[freshness]\nclock = \"{setting}\"\n"));
    of_server(&world).says("clock", "warning", found, "");
    world.configure(PLAIN);
    assert!(!of_server(&world).states("warning").contains(&"clock"));
}

#[test]
fn a_guarded_port_without_a_listener_and_one_on_trial_are_found() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    of_server(&world).has_problems(&[]).says(
        "listeners",
        "warning",
        "nobody listens on tcp/22",
        "start the service",
    );
    daemon.command(&["guard", "tcp/80", "--confirm", "2m"]);
    of_server(&world).has_problems(&[]).says(
        "guards",
        "warning",
        "tcp/80 opens to everybody in 1",
        "--confirm",
    );
}

#[test]
fn a_daemon_of_another_network_namespace_is_found() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let mut command = world.inside(&world.client);
    command.args([KNOCKD, "doctor", "--json"]);
    Answer::of(&with_places(&world, &mut command).output().unwrap()).says(
        "daemon",
        "problem",
        "the daemon lives in another network namespace",
        "nsenter",
    );
}

#[test]
fn without_root_it_says_what_it_could_not_look_at() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let program = world.path("knockd-rs");
    install(Path::new(KNOCKD), &program);
    let mut command = world.inside(&world.server);
    command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["doctor", "--json"]);
    let answer = Answer::of(&with_places(&world, &mut command).output().unwrap());
    for what in
        ["what the kernel's firewall can do", "the running daemon", "the firewall's tables", "packet sockets"]
    {
        answer.says("rights", "warning", what, "sudo knockd-rs doctor");
    }
    answer.has_problems(&[]);
}

#[test]
fn on_a_client_without_a_servers_name_it_says_which_name_was_meant() {
    let world = enrolled();
    let nowhere = world.path("nowhere").display().to_string();
    let output = world.client(&["doctor", "--config-dir", &nowhere]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("knockd-rs doctor myserver"), "{}", said(&output));
}

// --- what people see ---------------------------------------------------------------------------------------------

#[test]
fn people_get_a_line_for_each_finding_its_advice_below_it_and_a_verdict() {
    let world = enrolled();
    world.retarget("192.0.2.1");
    let output = world.client(&["doctor", SERVER_NAME]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let screen = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = screen.lines().collect();
    let problem = lines.iter().position(|line| line.starts_with("problem  route ")).unwrap();
    assert!(lines[problem].contains("there is no route to 192.0.2.1"), "{screen}");
    let advice = lines[problem + 1];
    assert!(advice.starts_with("                          connect this machine"), "{screen}");
    assert!(lines.last().unwrap().starts_with("1 problem"), "{screen}");
    assert!(!screen.contains('\x1b'), "colours went into a pipe");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
