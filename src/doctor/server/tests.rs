use super::super::finding::{State, examine};
use super::*;

fn ports(text: &str) -> PortRange {
    text.parse().unwrap()
}

/// A worker as the daemon confines it.
const CONFINED: Process = Process { user: 998, no_new_privs: true, is_filtered: true, capabilities: 0 };
/// A monitor in its unit.
const KEEPER: Process = Process { capabilities: 0x3000, ..CONFINED };

fn healthy() -> Facts {
    let rules = vec!["chain guard: ct state established accept".to_owned(), "chain guard: drop".to_owned()];
    Facts {
        is_root: true,
        kernel: Some(Kernel { release: "6.12.0".into(), ruleset: Ok(true), confines: Ok(true) }),
        wanted: Some(Wanted {
            port: 62_201,
            is_table: true,
            is_owned: true,
            guards: vec![ports("tcp/22")],
            profiles: vec![Profile { name: "laptop".into(), is_enabled: true, open: vec![ports("tcp/22")] }],
            ..Wanted::default()
        }),
        directories: vec![Directory {
            path: "/var/lib/knockd-rs".into(),
            role: Role::State,
            seen: Ok(Place { owner: 998, mode: 0o700, free: 1 << 30 }),
            written: Some(Ok(())),
        }],
        daemon: Daemon::Running(Box::new(running())),
        device: Some(Device::Any(vec!["eth0".into()])),
        packet_sockets: Some(Ok(())),
        listening: Some(vec![ports("tcp/22")]),
        table: Some(Table {
            seen: Some(SeenTable {
                is_owned: true,
                rules: rules.clone(),
                guards: vec![(ports("tcp/22"), None)],
                ..SeenTable::default()
            }),
            model: Some(rules),
        }),
        chains: Some(Vec::new()),
        units: Some(Units { daemon: "enabled".into(), lists: "inactive".into() }),
        ..Facts::default()
    }
}

fn running() -> Running {
    Running {
        version: "0.1.0".into(),
        own_version: "0.1.0".into(),
        is_settled: true,
        profiles: vec![("laptop".into(), true)],
        guards: vec![ports("tcp/22")],
        frames: (7, 0),
        is_here: Some(true),
        monitor_pid: 4711,
        monitor: Some(KEEPER),
        worker: Some(CONFINED),
        ..Running::default()
    }
}

/// The healthy server, changed in one thing, and what is then not ok: `check state: found`.
fn complaints(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = healthy();
    change(&mut facts);
    let lines = examine(CHECKS, &facts).into_iter().filter(|line| line.finding.state != State::Ok);
    lines
        .map(|line| format!("{} {}: {}", line.check, line.finding.state.name(), line.finding.found))
        .collect()
}

/// The same for what the daemon says of itself.
fn of_daemon(change: impl FnOnce(&mut Running)) -> Vec<String> {
    complaints(|facts| {
        let mut running = running();
        change(&mut running);
        facts.daemon = Daemon::Running(Box::new(running));
    })
}

fn table(facts: &mut Facts) -> &mut SeenTable {
    facts.table.as_mut().unwrap().seen.as_mut().unwrap()
}

fn wanted(facts: &mut Facts) -> &mut Wanted {
    facts.wanted.as_mut().unwrap()
}

#[test]
fn a_healthy_server_is_told_ok_by_every_check_that_applies() {
    assert_eq!(complaints(|_| ()), [""; 0]);
    let mut named: Vec<&str> = examine(CHECKS, &healthy()).iter().map(|line| line.check).collect();
    named.dedup();
    let all = CHECKS.iter().map(|check| check.name).filter(|name| *name != "certificates");
    assert_eq!(named, all.collect::<Vec<_>>());
}

#[test]
fn what_could_not_be_looked_at_is_one_line_and_nothing_else_is_guessed() {
    let facts =
        Facts { unseen: vec!["the firewall's tables".into(), "packet sockets".into()], ..Facts::default() };
    let lines = examine(CHECKS, &facts);
    let first = lines.first().unwrap();
    assert_eq!(first.finding.found, "could not be looked at: the firewall's tables and packet sockets");
    assert_eq!(first.finding.state.advice(), Some("run it as root: sudo knockd-rs doctor"));
    assert!(lines.iter().skip(1).all(|line| line.finding.state == State::Ok), "{lines:?}");
}

#[test]
fn a_daemon_that_is_not_there_is_a_problem() {
    let found = complaints(|facts| facts.daemon = Daemon::Silent("no daemon listens at /run/x".into()));
    assert_eq!(found, ["daemon problem: no daemon listens at /run/x"]);
}

#[test]
fn what_the_daemon_complains_about_is_passed_on() {
    assert_eq!(
        of_daemon(|running| running.degraded = vec!["the state directory cannot be written: bad".into()]),
        ["daemon problem: the state directory cannot be written: bad"]
    );
    assert_eq!(
        of_daemon(
            |running| running.notes = vec!["the clock is off".into(), "another program changed it".into()]
        ),
        ["daemon warning: another program changed it"]
    );
    assert_eq!(
        of_daemon(|running| running.is_here = Some(false)),
        ["daemon problem: the daemon lives in another network namespace than this command"]
    );
}

#[test]
fn a_worker_with_any_right_left_is_a_problem() {
    for worker in [
        Process { capabilities: 1, ..CONFINED },
        Process { is_filtered: false, ..CONFINED },
        Process { no_new_privs: false, ..CONFINED },
    ] {
        let found = of_daemon(|running| running.worker = Some(worker));
        assert!(found.len() == 1 && found[0].starts_with("sandbox problem: the worker"), "{found:?}");
    }
}

#[test]
fn a_monitor_by_hand_is_a_warning_and_one_with_more_rights_a_problem() {
    let by_hand = Process { user: 0, ..KEEPER };
    let found = of_daemon(|running| running.monitor = Some(by_hand));
    assert!(
        found.len() == 1 && found[0].starts_with("sandbox warning: the monitor runs outside"),
        "{found:?}"
    );
    for free in [Process { is_filtered: false, ..KEEPER }, Process { no_new_privs: false, ..KEEPER }] {
        let found = of_daemon(|running| running.monitor = Some(free));
        assert!(
            found.len() == 1 && found[0].starts_with("sandbox problem: the monitor may make any"),
            "{found:?}"
        );
    }
    let mighty = Process { capabilities: u64::MAX, ..KEEPER };
    let found = of_daemon(|running| running.monitor = Some(mighty));
    assert!(
        found.len() == 1 && found[0].starts_with("sandbox problem: the monitor can do more"),
        "{found:?}"
    );
}

#[test]
fn a_changed_table_is_told_with_the_first_line_that_differs() {
    let found = complaints(|facts| drop(table(facts).rules.pop()));
    assert_eq!(
        found,
        ["table problem: the table inet knockd-rs lacks one line of the daemon's: chain guard: drop"]
    );
    let found = complaints(|facts| table(facts).rules.push("chain guard: accept".into()));
    assert_eq!(
        found,
        [
            "table problem: the table inet knockd-rs has one line that the daemon does not make: chain guard: accept"
        ]
    );
    let found = complaints(|facts| table(facts).rules.reverse());
    assert_eq!(
        found,
        ["table problem: the rules of table inet knockd-rs are in another order than the daemon's"]
    );
    let found = complaints(|facts| table(facts).is_dormant = true);
    assert_eq!(found, ["table problem: the table inet knockd-rs is switched off: nothing is guarded"]);
}

#[test]
fn a_table_without_its_owner_is_a_warning_where_the_kernel_could_have_one() {
    let found = complaints(|facts| table(facts).is_owned = false);
    assert!(found.len() == 1 && found[0].starts_with("table warning: nobody owns"), "{found:?}");
    let old = Kernel { release: "6.1.0".into(), ruleset: Ok(false), confines: Ok(true) };
    assert_eq!(complaints(|facts| (table(facts).is_owned, facts.kernel) = (false, Some(old))), [""; 0]);
}

#[test]
fn without_a_table_its_guards_are_missing_too() {
    let found = complaints(|facts| facts.table.as_mut().unwrap().seen = None);
    assert_eq!(
        found,
        [
            "table problem: there is no table inet knockd-rs, though the daemon runs: nothing is guarded",
            "guards problem: tcp/22 should be closed to strangers, and the kernel lets everybody in",
        ]
    );
}

#[test]
fn ports_that_profiles_open_and_nobody_closes_are_a_warning() {
    let found = complaints(|facts| wanted(facts).profiles[0].open.push(ports("tcp/443")));
    assert_eq!(found, ["guards warning: profiles open tcp/443, which nothing closes to strangers"]);
    let forwarded = complaints(|facts| {
        wanted(facts).profiles[0].open.push(ports("tcp/2222"));
        wanted(facts).forwards.push(ports("tcp/2222"));
    });
    assert_eq!(forwarded, [""; 0]);
}

#[test]
fn a_guard_on_trial_says_when_it_ends() {
    let found = complaints(|facts| table(facts).guards[0].1 = Some(Duration::from_secs(90)));
    assert_eq!(
        found,
        ["guards warning: tcp/22 opens to everybody in 90 s, unless a knock from outside confirms the guard"]
    );
}

#[test]
fn an_unguarded_server_and_one_without_profiles_are_told_so() {
    let found = complaints(|facts| {
        wanted(facts).guards.clear();
        table(facts).guards.clear();
        facts.daemon = Daemon::Running(Box::new(Running { guards: Vec::new(), ..running() }));
    });
    assert_eq!(found, ["guards warning: no port is guarded: every port is as open as without knockd-rs"]);
    let found = complaints(|facts| wanted(facts).profiles[0].is_enabled = false);
    assert_eq!(found, ["profiles problem: no profile is enabled: nobody can knock"]);
}

#[test]
fn profiles_that_the_daemon_has_not_read_yet_ask_for_a_reload() {
    let found =
        of_daemon(|running| running.profiles = vec![("laptop".into(), false), ("phone".into(), true)]);
    assert_eq!(
        found,
        ["profiles warning: the running daemon does not know what the files say of laptop and phone"]
    );
}

fn chain(family: &str, table: &str, name: &str, drops: bool, is_ufw: bool) -> Chain {
    let (family, table, name) = (family.to_owned(), table.to_owned(), name.to_owned());
    Chain { family, table, name, hook: Hook::Input, priority: 0, drops, is_ufw }
}

#[test]
fn other_firewalls_are_named_by_what_they_call_their_tables() {
    let cases = [
        (chain("inet", "firewalld", "filter_INPUT", false, false), "firewalld: ", "firewall-cmd"),
        (chain("ip", "filter", "INPUT", true, true), "ufw: ", "ufw allow"),
        (chain("ip6", "filter", "INPUT", true, false), "iptables: ", "ip6tables"),
        (chain("inet", "mine", "input", true, false), "table inet mine", "nft insert rule inet mine input"),
    ];
    for (chain, found, advice) in cases {
        let mut facts = healthy();
        facts.chains = Some(vec![chain]);
        let lines = examine(CHECKS, &facts);
        let line = lines.iter().find(|line| line.check == "firewalls").unwrap();
        assert!(line.finding.found.starts_with(found), "{line:?}");
        assert!(line.finding.state.advice().unwrap().contains(advice), "{line:?}");
        assert_eq!(line.finding.state.name(), "warning");
    }
}

#[test]
fn a_chain_that_accepts_by_its_policy_is_no_complaint_and_its_rules_are_not_judged() {
    let accepting = chain("inet", "filter", "input", false, false);
    assert_eq!(complaints(|facts| facts.chains = Some(vec![accepting])), [""; 0]);
    // What goes to others does not concern a server that is no gateway.
    let forward = Chain { hook: Hook::Forward, ..chain("ip", "filter", "FORWARD", true, false) };
    assert_eq!(complaints(|facts| facts.chains = Some(vec![forward.clone()])), [""; 0]);
    let gateway = complaints(|facts| {
        facts.chains = Some(vec![forward]);
        wanted(facts).forwards.push(ports("tcp/2222"));
    });
    assert_eq!(gateway.len(), 1, "{gateway:?}");
    assert_eq!(complaints(|facts| facts.legacy = vec!["filter (IPv4)".into()]).len(), 1);
}

#[test]
fn an_interface_that_is_not_there_and_one_that_is_down_are_problems() {
    for (is_up, found) in [
        (None, "capture problem: there is no interface eth7, where knocks are to be awaited"),
        (Some(false), "capture problem: eth7, where knocks are awaited, is down"),
    ] {
        assert_eq!(complaints(|facts| facts.device = Some(Device::Interface("eth7".into(), is_up))), [found]);
    }
    assert_eq!(complaints(|facts| facts.device = Some(Device::Any(Vec::new()))).len(), 1);
    assert_eq!(
        of_daemon(|running| running.frames = (9, 2)),
        ["capture warning: the kernel had no room for 2 frames, besides 9 that came"]
    );
}

#[test]
fn a_guarded_port_on_which_nobody_listens_is_a_warning() {
    let found = complaints(|facts| facts.listening = Some(vec![ports("udp/22")]));
    assert_eq!(found, ["listeners warning: nobody listens on tcp/22: a client that knocks is refused there"]);
}

#[test]
fn a_state_directory_is_judged_by_owner_writing_and_room() {
    let place = |facts: &mut Facts, owner: u32, free: u64| {
        facts.directories[0].seen = Ok(Place { owner, mode: 0o700, free });
    };
    assert_eq!(
        complaints(|facts| place(facts, 0, 1 << 30)),
        ["directories problem: /var/lib/knockd-rs belongs to user 0, and the daemon runs as user 998"]
    );
    assert_eq!(
        complaints(|facts| place(facts, 998, 1 << 20)),
        ["space warning: 1024 KiB are left in /var/lib/knockd-rs"]
    );
    assert_eq!(
        complaints(|facts| facts.directories[0].written = Some(Err("No space left on device".into()))),
        ["space problem: nothing can be written in /var/lib/knockd-rs: No space left on device"]
    );
}

#[test]
fn the_clock_is_judged_by_what_the_settings_make_of_it() {
    for (clock, states) in [
        (Clock::Kept, 0),
        (Clock::TrustedInDoubt, 0),
        (Clock::InDoubt, 1),
        (Clock::Untrusted, 1),
        (Clock::Wrong, 1),
    ] {
        assert_eq!(complaints(|facts| facts.clock = clock).len(), states, "{clock:?}");
    }
}

#[test]
fn the_timer_of_lists_matters_only_where_lists_are_fetched() {
    let listed = |path: &str| {
        let path = path.to_owned();
        complaints(|facts| wanted(facts).lists = Some(vec![path]))
    };
    assert_eq!(listed("/etc/knockd-rs/crl.pem"), [""; 0]);
    assert_eq!(
        listed("/var/lib/knockd-rs-crl/crl.pem"),
        [
            "certificates warning: knockd-rs-crl.timer is inactive, and the revocation list lies where it would put it"
        ]
    );
}

#[test]
fn a_kernel_that_takes_no_ruleset_or_confines_nobody_is_a_problem() {
    let kernel = |ruleset: Result<bool, String>, confines: Result<bool, String>| {
        complaints(|facts| facts.kernel = Some(Kernel { release: "5.4".into(), ruleset, confines }))
    };
    assert_eq!(
        kernel(Err("nft refused the ruleset: no fib".into()), Ok(true)),
        [
            "kernel problem: the daemon's ruleset was not taken in a namespace of its own: nft refused the ruleset: no fib"
        ]
    );
    assert_eq!(
        kernel(Ok(true), Err("no seccomp".into())),
        ["kernel problem: a process cannot be confined: no seccomp"]
    );
    assert_eq!(kernel(Ok(true), Ok(false)).len(), 1);
}

#[test]
fn a_unit_that_does_not_start_with_the_system_is_a_warning() {
    let units = Units { daemon: "disabled".into(), lists: "inactive".into() };
    assert_eq!(
        complaints(|facts| facts.units = Some(units)),
        ["unit warning: knockd-rs.service is disabled: after a reboot nothing is guarded"]
    );
}
