use super::super::finding::{State, examine};
use super::*;

fn way(address: &str, source: Result<&str, &str>) -> Way {
    Way {
        address: address.parse().unwrap(),
        source: source.map(|source| source.parse().unwrap()).map_err(str::to_owned),
        datagram: source.is_ok().then_some(Datagram::Sent),
        port: source.is_ok().then_some(Tried::Silent),
    }
}

fn healthy() -> Facts {
    Facts {
        name: "home".into(),
        server: Ok(Server {
            file: "home.toml".into(),
            host: "vpn.example.org".into(),
            port: 62_201,
            profile: "laptop".into(),
            methods: vec![Method::Spa],
            opens: vec!["tcp/22".parse().unwrap()],
        }),
        store: Ok("state".into()),
        ahead: Vec::new(),
        clock: Clock::Kept,
        ways: Ok(vec![way("192.0.2.1:62201", Ok("192.0.2.9"))]),
        has_raw: false,
        knocks: None,
    }
}

/// The lines that are not ok, as `check state: found`.
fn complaints(facts: &Facts) -> Vec<String> {
    let lines = examine(CHECKS, facts).into_iter().filter(|line| line.finding.state != State::Ok);
    lines
        .map(|line| format!("{} {}: {}", line.check, line.finding.state.name(), line.finding.found))
        .collect()
}

#[test]
fn a_healthy_client_is_told_ok_by_every_check() {
    let facts = healthy();
    assert_eq!(complaints(&facts), [""; 0]);
    let named: Vec<&str> = examine(CHECKS, &facts).iter().map(|line| line.check).collect();
    assert_eq!(named, CHECKS.iter().map(|check| check.name).collect::<Vec<_>>());
}

#[test]
fn a_file_that_cannot_be_read_ends_what_needs_it_and_nothing_else() {
    let error = "home.toml: mode 0644 lets other users read it; run: chmod 0600 home.toml".to_owned();
    let facts =
        Facts { server: Err(vec![error]), ways: Err("no name".into()), clock: Clock::InDoubt, ..healthy() };
    assert_eq!(
        complaints(&facts),
        [
            "enrolment problem: home.toml: mode 0644 lets other users read it",
            "clock warning: nobody vouches for this machine's clock: it is not synchronised",
        ]
    );
}

#[test]
fn an_address_without_a_route_is_a_problem_only_where_it_is_the_only_one() {
    let (lost, good) =
        (way("[2001:db8::1]:62201", Err("unreachable")), way("192.0.2.1:62201", Ok("192.0.2.9")));
    let facts = Facts { ways: Ok(vec![good, lost.clone()]), ..healthy() };
    assert_eq!(complaints(&facts), ["route warning: there is no route to 2001:db8::1: unreachable"]);
    let facts = Facts { ways: Ok(vec![lost]), ..healthy() };
    assert_eq!(complaints(&facts), ["route problem: there is no route to 2001:db8::1: unreachable"]);
}

#[test]
fn a_private_source_is_worth_a_word_only_towards_a_public_address() {
    let said = |address: &str, source: &str| {
        let facts = Facts { ways: Ok(vec![way(address, Ok(source))]), ..healthy() };
        let lines = examine(CHECKS, &facts);
        lines.iter().any(|line| line.check == "route" && line.finding.found.contains("NAT"))
    };
    assert!(said("192.0.2.1:62201", "192.168.1.7"));
    assert!(said("192.0.2.1:62201", "100.64.0.7"));
    assert!(!said("192.0.2.1:62201", "198.51.100.7"));
    assert!(!said("192.168.1.1:62201", "192.168.1.7"));
    assert!(!said("[2001:db8::1]:62201", "2001:db8::7"));
    assert!(said("[2001:db8::1]:62201", "fd00::7"));
}

#[test]
fn a_firewall_here_is_told_with_the_methods_that_are_left() {
    let mut facts = healthy();
    if let (Ok(ways), Ok(server)) = (&mut facts.ways, &mut facts.server) {
        ways[0].datagram = Some(Datagram::Forbidden);
        server.methods = vec![Method::Spa, Method::Sequence];
    }
    let line = examine(CHECKS, &facts).into_iter().find(|line| line.finding.state.is_problem()).unwrap();
    assert_eq!(line.check, "methods");
    assert_eq!(line.finding.state.advice(), Some("allow UDP port 62201 to go out, or knock with --sequence"));
}

#[test]
fn an_open_port_is_a_warning_and_a_refusal_is_none() {
    for (tried, complains) in [(Tried::Open, true), (Tried::Refused, false), (Tried::Silent, false)] {
        let mut facts = healthy();
        if let Ok(ways) = &mut facts.ways {
            ways[0].port = Some(tried);
        }
        assert_eq!(!complaints(&facts).is_empty(), complains);
    }
}

#[test]
fn a_method_without_effect_is_a_problem_unless_another_has_one() {
    let knocks =
        |knocks: &[(Method, Knocked)]| complaints(&Facts { knocks: Some(knocks.to_vec()), ..healthy() });
    let opened = (Method::Sequence, Knocked::Opened(Duration::from_millis(3)));
    let closed = (Method::Spa, Knocked::Closed(false));
    assert_eq!(knocks(std::slice::from_ref(&opened)), [""; 0]);
    assert_eq!(
        knocks(std::slice::from_ref(&closed)),
        ["knock problem: spa had no effect: the port still gives no answer"]
    );
    assert_eq!(
        knocks(&[opened, closed]),
        ["knock warning: spa had no effect: the port still gives no answer"]
    );
}

#[test]
fn a_counter_ahead_of_the_clock_is_told_in_minutes() {
    let facts = Facts { ahead: vec![("home.counter".into(), Duration::from_secs(7200))], ..healthy() };
    assert_eq!(
        complaints(&facts),
        ["counter warning: home.counter was written by a clock 120 minutes ahead of what it says now"]
    );
}

#[test]
fn a_syn_needs_a_capability_and_a_clock_before_the_release_is_wrong() {
    let mut facts = healthy();
    if let Ok(server) = &mut facts.server {
        server.methods.push(Method::Syn);
    }
    assert_eq!(
        complaints(&facts),
        ["methods warning: syn: this process may send no packets of its own making"]
    );
    facts.has_raw = true;
    facts.clock = Clock::Wrong;
    assert_eq!(
        complaints(&facts),
        ["clock problem: this machine's clock shows a time before this program was made"]
    );
}
