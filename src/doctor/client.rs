//! A client's side: can it knock from here, and does a knock have an effect? Pure: facts in, findings out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::finding::{Check, Finding, listed};
use crate::knock::Method;
use crate::text::{PortRange, Protocol};

/// What was seen of a client and of its way to one server.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The server's name here.
    pub name: String,
    /// What is known of it, or all that is wrong with its file.
    pub server: Result<Server, Vec<String>>,
    /// Whether the directory and the files of counters can be written and locked; else why not.
    pub store: Result<String, String>,
    /// The counters that are ahead of the clock, by file, and by how much.
    pub ahead: Vec<(String, Duration)>,
    /// What is to be thought of the clock.
    pub clock: Clock,
    /// The addresses of the server's name with the way to each, or what the resolver said.
    pub ways: Result<Vec<Way>, String>,
    /// Whether this process may send packets of its own making: `CAP_NET_RAW`.
    pub has_raw: bool,
    /// What real knocks came to, where they were asked for.
    pub knocks: Option<Vec<(Method, Knocked)>>,
}

/// What an enrolment says.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its file.
    pub file: String,
    /// Where knocks go.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// The client's name on the server.
    pub profile: String,
    /// How it may knock.
    pub methods: Vec<Method>,
    /// What a knock opens.
    pub opens: Vec<PortRange>,
}

impl Server {
    /// The TCP port whose opening can be seen from here.
    #[must_use]
    pub fn visible(&self) -> Option<u16> {
        let tcp = |ports: &&PortRange| ports.protocol() == Protocol::Tcp;
        self.opens.iter().find(tcp).map(PortRange::first)
    }

    fn takes_datagrams(&self) -> bool {
        self.methods.iter().any(|method| matches!(method, Method::Spa | Method::Cert))
    }
}

/// What is to be thought of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// A time service keeps it.
    Kept,
    /// Nobody vouches for it.
    InDoubt,
    /// It shows a time before this release was made.
    Wrong,
}

/// The way to one address.
#[derive(Clone, Debug)]
pub struct Way {
    /// The address with the knock port.
    pub address: SocketAddr,
    /// The address that packets leave from, or why none can.
    pub source: Result<IpAddr, String>,
    /// Whether the empty datagram that lives for one hop got past this machine.
    pub datagram: Option<Datagram>,
    /// What the connection to the port that knocks open came to.
    pub port: Option<Tried>,
}

/// What became of a datagram on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// It left.
    Sent,
    /// A firewall here took it (`EPERM`).
    Forbidden,
    /// Anything else.
    Failed(String),
}

/// What a connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It was accepted.
    Open,
    /// It was answered by a refusal.
    Refused,
    /// Nothing came back.
    Silent,
    /// It could not be begun.
    Failed(String),
}

/// What a real knock came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knocked {
    /// The port opened after so long.
    Opened(Duration),
    /// It did not; whether the last answer was a refusal.
    Closed(bool),
    /// No knock could be made.
    Failed(String),
    /// It was not tried.
    Untried(&'static str),
}

/// The checks of a client, in the order of a knock's way.
pub const CHECKS: &[Check<Facts>] = &[
    Check { name: "enrolment", judge: enrolment },
    Check { name: "store", judge: store },
    Check { name: "counter", judge: counter },
    Check { name: "clock", judge: clock },
    Check { name: "name", judge: name },
    Check { name: "route", judge: route },
    Check { name: "methods", judge: methods },
    Check { name: "port", judge: port },
    Check { name: "knock", judge: knock },
];

fn enrolment(facts: &Facts) -> Vec<Finding> {
    match &facts.server {
        Ok(server) => {
            let opens: Vec<String> = server.opens.iter().map(ToString::to_string).collect();
            vec![Finding::ok(format!(
                "{} is sound: as {} at {}, UDP port {}, for {}",
                server.file,
                server.profile,
                server.host,
                server.port,
                listed(&opens)
            ))]
        }
        Err(errors) => {
            let finding = |error: &String| {
                Finding::from_error(error, "mend the file, or import the server's bundle again with --force")
            };
            errors.iter().map(finding).collect()
        }
    }
}

fn store(facts: &Facts) -> Vec<Finding> {
    vec![match &facts.store {
        Ok(place) => Finding::ok(format!("counters can be written and locked in {place}")),
        Err(error) => {
            Finding::from_error(error, "make it writable for this user: without a counter no knock is sent")
        }
    }]
}

fn counter(facts: &Facts) -> Vec<Finding> {
    if facts.server.is_err() || facts.store.is_err() {
        return Vec::new();
    }
    if facts.ahead.is_empty() {
        return vec![Finding::ok("no counter is ahead of this machine's clock")];
    }
    let finding = |(file, by): &(String, Duration)| {
        Finding::warning(
            format!("{file} was written by a clock {} minutes ahead of what it says now", by.as_secs() / 60),
            "set this machine's clock; if knocks have no effect, the server remembers that time: wait until it has \
             passed, or have the profile made again there and import the new bundle",
        )
    };
    facts.ahead.iter().map(finding).collect()
}

fn clock(facts: &Facts) -> Vec<Finding> {
    const ADVICE: &str =
        "start a time service, such as: timedatectl set-ntp true; knocks that are minutes off are refused";
    vec![match facts.clock {
        Clock::Kept => Finding::ok("this machine's clock is synchronised"),
        Clock::InDoubt => {
            Finding::warning("nobody vouches for this machine's clock: it is not synchronised", ADVICE)
        }
        Clock::Wrong => {
            Finding::problem("this machine's clock shows a time before this program was made", ADVICE)
        }
    }]
}

fn name(facts: &Facts) -> Vec<Finding> {
    let Ok(server) = &facts.server else { return Vec::new() };
    vec![match &facts.ways {
        Ok(ways) => {
            let addresses: Vec<String> = ways.iter().map(|way| way.address.ip().to_string()).collect();
            match addresses.as_slice() {
                [one] if *one == server.host => {
                    Finding::ok(format!("{one} is an address: no name has to be looked up"))
                }
                _ => Finding::ok(format!("{} is {}", server.host, listed(&addresses))),
            }
        }
        Err(error) => Finding::problem(
            format!("{} has no address: {error}", server.host),
            "check the name and this machine's resolver, or import the bundle again with --host ADDRESS --force",
        ),
    }]
}

fn route(facts: &Facts) -> Vec<Finding> {
    let Ok(ways) = &facts.ways else { return Vec::new() };
    let any = ways.iter().any(|way| way.source.is_ok());
    let finding = |way: &Way| {
        let to = way.address.ip();
        match &way.source {
            Ok(source) if is_private(*source) && !is_private(to) => Finding::ok(format!(
                "packets to {to} leave from {source}, a private address: behind NAT a grant is for everybody there, and \
                 --pin opens nothing"
            )),
            Ok(source) => Finding::ok(format!("packets to {to} leave from {source}")),
            Err(error) if any => Finding::warning(
                format!("there is no route to {to}: {error}"),
                "knocks go by the other address; programs that try this one first wait in vain: add a route, or import \
                 the bundle again with --host and the address that works",
            ),
            Err(error) => Finding::problem(
                format!("there is no route to {to}: {error}"),
                "connect this machine to a network that reaches it: see `ip route get` with the address",
            ),
        }
    };
    ways.iter().map(finding).collect()
}

/// Whether an address is good in one place only: RFC 1918, RFC 6598, RFC 4193, link-local and loopback.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            v6.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

fn methods(facts: &Facts) -> Vec<Finding> {
    let (Ok(server), Ok(ways)) = (&facts.server, &facts.ways) else { return Vec::new() };
    let ways: Vec<&Way> = ways.iter().filter(|way| way.source.is_ok()).collect();
    if ways.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if server.takes_datagrams() {
        findings.extend(ways.iter().filter_map(|way| datagram(server, way)));
    }
    for method in &server.methods {
        findings.extend(match method {
            Method::Spa | Method::Cert => None,
            Method::Syn if facts.has_raw => Some(Finding::ok("syn: packets of one's own making can be sent")),
            Method::Syn => Some(Finding::warning(
                "syn: this process may send no packets of its own making",
                "run it as root, or: setcap cap_net_raw+ep $(command -v knockd-rs); the other methods need neither",
            )),
            Method::Sequence | Method::Totp => {
                Some(Finding::ok(format!("{method}: connections can be begun; whether they arrive only a knock shows")))
            }
            Method::Plain => Some(Finding::ok("plain: any program that connects will do; this one does not knock so")),
        });
    }
    findings
}

fn datagram(server: &Server, way: &Way) -> Option<Finding> {
    let (name, to) = (if server.methods.contains(&Method::Spa) { "spa" } else { "cert" }, way.address.ip());
    let others: Vec<String> = server
        .methods
        .iter()
        .filter(|method| !matches!(method, Method::Spa | Method::Cert | Method::Plain))
        .map(|method| format!("--{method}"))
        .collect();
    let instead = match others.as_slice() {
        [] => "or have `sequence` or `syn` listed in the profile's methods on the server".to_owned(),
        others => format!("or knock with {}", others.join(" or ")),
    };
    Some(match way.datagram.as_ref()? {
        Datagram::Sent => Finding::ok(format!("{name}: datagrams to {to} leave this machine")),
        Datagram::Forbidden => Finding::problem(
            format!("{name}: a firewall on this machine rejects datagrams to {to}, UDP port {}", server.port),
            format!("allow UDP port {} to go out, {instead}", server.port),
        ),
        Datagram::Failed(error) => Finding::problem(
            format!("{name}: no datagram to {to} leaves this machine: {error}"),
            format!("see `ip route get {to}` and this machine's firewall, {instead}"),
        ),
    })
}

fn port(facts: &Facts) -> Vec<Finding> {
    let (Ok(server), Ok(ways)) = (&facts.server, &facts.ways) else { return Vec::new() };
    let Some(port) = server.visible() else {
        return vec![Finding::ok("no TCP port is opened by a knock, so that none can be tried from here")];
    };
    let finding = |way: &Way| {
        let at = format!("tcp/{port} at {}", way.address.ip());
        Some(match way.port.as_ref()? {
            Tried::Open => Finding::warning(
                format!("{at} is open to this machine without a knock"),
                format!(
                    "if no knock opened it just now: guard it on the server with `knockd-rs guard tcp/{port} --confirm 2m`, \
                     unless this machine is among those that firewall.trusted lets in"
                ),
            ),
            Tried::Refused => Finding::ok(format!(
                "{at} refuses connections: it is guarded with reject, or nothing listens there"
            )),
            Tried::Silent => Finding::ok(format!("{at} gives no answer to who has not knocked")),
            Tried::Failed(error) => Finding::warning(
                format!("{at} could not be tried: {error}"),
                "see `ip route get` and this machine's firewall: ssh will meet the same",
            ),
        })
    };
    ways.iter().filter_map(finding).collect()
}

fn knock(facts: &Facts) -> Vec<Finding> {
    let Ok(server) = &facts.server else { return Vec::new() };
    let Some(knocks) = &facts.knocks else {
        return vec![Finding::ok(match server.visible() {
            Some(port) => format!(
                "nothing was sent to the server but a try of tcp/{port} and an empty datagram that no router passes on; \
                 --knock knocks"
            ),
            None => "nothing was sent to the server but an empty datagram that no router passes on; --knock knocks"
                .to_owned(),
        })];
    };
    if knocks.is_empty() {
        return vec![Finding::warning(
            "no knock was sent: none of the client's methods has an effect that shows from here",
            "look at `knockd-rs status` on the server while you knock",
        )];
    }
    let any = knocks.iter().any(|(_, knocked)| matches!(knocked, Knocked::Opened(_)));
    knocks.iter().map(|(method, knocked)| effect(facts, *method, knocked, any)).collect()
}

/// A method that has no effect is a problem only where no other has one.
fn effect(facts: &Facts, method: Method, knocked: &Knocked, any: bool) -> Finding {
    let bad = |found: String, advice: String| match any {
        true => Finding::warning(found, advice),
        false => Finding::problem(found, advice),
    };
    match knocked {
        Knocked::Opened(after) => Finding::ok(format!(
            "{method} works: the port opened after {:.1} ms",
            after.as_secs_f64() * 1000.0
        )),
        Knocked::Closed(refused) => bad(
            format!(
                "{method} had no effect: {}",
                if *refused {
                    "the port still refuses connections"
                } else {
                    "the port still gives no answer"
                }
            ),
            format!(
                "on the server look at `knockd-rs doctor`, and at `journalctl -u knockd-rs` for the reason of a refusal; if \
                 nothing is there, a firewall on the way drops {}",
                match method {
                    Method::Spa | Method::Cert => "the UDP port",
                    Method::Syn => "the TCP port, or rewrites SYNs",
                    _ => "ports that a sequence needs",
                }
            ),
        ),
        Knocked::Failed(error) => bad(
            format!("{method} could not knock: {error}"),
            format!("mend this, or leave {method} to others"),
        ),
        Knocked::Untried(why) => Finding::warning(
            format!("{method} was not tried: {why}"),
            format!("try it by hand later: knockd-rs knock {} with the flag of this method", facts.name),
        ),
    }
}

#[cfg(test)]
mod tests;
