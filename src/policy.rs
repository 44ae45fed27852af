//! [`Knock`] → [`Grant`]: what this profile may open, for whom, for how long.
//!
//! The request is intersected with the profile's [`Rules`] and never widened: fewer ports, a shorter time, one
//! connection instead of many. Where nothing is left, the knock is refused with the reason. Pure.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::grant::{Action, Grant, MAX_RANGES, ProfileIndex, Session, Uses};
use crate::knock::{Ask, Knock, Op, ServiceTag, Target, Wanted, service_tag};
use crate::text::{Moment, Network, PortRange, Span};
use crate::time::Timestamp;
use crate::x509::scope::{Place, Scope};

/// What one profile allows, complete and checked: made by the configuration, carried to the worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rules {
    /// Everything the client may open: at least one range, disjoint, ascending, at most [`MAX_OPEN`].
    pub open: Vec<PortRange>,
    /// The services a knock may name, by their tags.
    pub services: BTreeMap<ServiceTag, Vec<PortRange>>,
    /// How long a grant lasts when the knock does not say.
    pub duration: Span,
    /// How long a grant may last at most.
    pub max_duration: Span,
    /// How many connections a grant may be asked for.
    pub connections: Uses,
    /// What holds for every grant besides; a knock may ask for more of it.
    pub session: Session,
    /// How long an address is locked out after a grant, where that is asked for.
    pub lockout: Span,
    /// Addresses other than its own for which the client may ask.
    pub other_addresses: Vec<Network>,
    /// Whether a grant may be for the whole network of its address, as far as [`crate::grant::wide_prefix`] goes.
    pub wide: bool,
    /// How many grants of this profile may be live at a time.
    pub max_grants: u16,
    /// From when on its knocks are refused; no grant lasts longer.
    pub expires: Option<Moment>,
}

impl Rules {
    /// The same for keys that another pair has taken the place of, and that are good until then. No grant that they ask
    /// for lasts longer.
    #[must_use]
    pub fn until(&self, end: Moment) -> Self {
        Self { expires: Some(self.expires.map_or(end, |expires| expires.min(end))), ..self.clone() }
    }
}

/// Rules of which equal ones are kept once: of many profiles, most allow the same.
#[derive(Debug, Default)]
pub struct Alike(BTreeSet<Rc<Rules>>);

impl Alike {
    /// These rules, or those equal to them that were here before.
    pub fn share(&mut self, rules: Rules) -> Rc<Rules> {
        if let Some(known) = self.0.get(&rules) {
            return Rc::clone(known);
        }
        let rules = Rc::new(rules);
        self.0.insert(Rc::clone(&rules));
        rules
    }
}

/// What is left at `at` of a time that ends at `expires`: all that was wanted, less, or nothing.
#[must_use]
pub fn within(wanted: Span, expires: Option<Moment>, at: Timestamp) -> Option<Span> {
    let Some(expires) = expires else { return Some(wanted) };
    // Rounded down: what ends a little early has not outlasted anything.
    let left = Timestamp::from_secs(expires.as_secs()).since(at).as_secs();
    let left = Span::from_secs(u32::try_from(left).unwrap_or(u32::MAX));
    (left > Span::from_secs(0)).then(|| wanted.min(left))
}

/// How many disjoint port ranges one profile may open.
pub const MAX_OPEN: usize = 16;

/// Decides what `knock` gets under `rules` at the time `at`; `profile` is the index that the request to the monitor
/// carries.
///
/// # Errors
/// The [`Refusal`] that ends the knock, when the profile allows nothing of what it asks for.
pub fn decide(profile: ProfileIndex, rules: &Rules, knock: &Knock, at: Timestamp) -> Result<Grant, Refusal> {
    let Knock { ask, source, .. } = knock;
    let lifetime = ask.duration.unwrap_or(rules.duration).min(rules.max_duration);
    let lifetime = within(lifetime, rules.expires, at)
        .ok_or(Refusal::Expired { since: rules.expires.unwrap_or_default() })?;
    let address = address(rules, ask.target, *source)?;
    // Nobody locks another address out than his own, unless the profile wants it.
    let asked = Session { lock_out: ask.session.lock_out && address == *source, ..ask.session };
    let session = rules.session.and(asked);
    Ok(Grant {
        profile,
        action: action(ask.op),
        source: *source,
        address,
        // Connections can be cut or counted one by one for a single address only.
        wide: ask.wide && rules.wide && is_plain(session),
        ports: ports(rules, &ask.ports)?,
        uses: uses(rules, ask),
        session,
        lifetime,
    })
}

/// As [`decide`], for a client whose certificate names the places where it may go: of what the rules grant, only
/// those, and no longer than the certificate says of any of them.
///
/// # Errors
/// The [`Refusal`] of the rules, or of the certificate.
pub fn decide_within(
    profile: ProfileIndex,
    rules: &Rules,
    scope: &Scope,
    knock: &Knock,
    at: Timestamp,
) -> Result<Grant, Refusal> {
    let grant = decide(profile, rules, knock, at)?;
    if scope.allowances.is_empty() {
        return Ok(grant);
    }
    let places: Vec<(&[PortRange], Option<Span>)> =
        scope.allowances.iter().map(|allowance| (ports_of(rules, &allowance.place), allowance.max)).collect();
    let allowed: Vec<PortRange> = places.iter().flat_map(|(ports, _)| ports.iter().copied()).collect();
    let ports = intersect(&grant.ports, &allowed);
    if ports.is_empty() {
        return Err(Refusal::Certificate { asked: grant.ports });
    }
    if ports.len() > MAX_RANGES {
        return Err(Refusal::Scattered { ranges: ports.len() });
    }
    let concerned = places.iter().filter(|(places, _)| !intersect(places, &ports).is_empty());
    let longest = concerned.filter_map(|(_, max)| *max).min();
    Ok(Grant { ports, lifetime: longest.map_or(grant.lifetime, |max| max.min(grant.lifetime)), ..grant })
}

/// Where a certificate's place is; nowhere when these rules know no such service.
fn ports_of<'a>(rules: &'a Rules, place: &'a Place) -> &'a [PortRange] {
    match place {
        Place::Ports(ports) => std::slice::from_ref(ports),
        Place::Service(name) => rules.services.get(&service_tag(name.as_str())).map_or(&[], Vec::as_slice),
    }
}

fn action(op: Op) -> Action {
    match op {
        Op::Open | Op::Renew => Action::Open,
        Op::Close => Action::Close,
    }
}

/// The address that the grant is for: unicast, and the source itself unless the profile allows others.
fn address(rules: &Rules, target: Target, source: IpAddr) -> Result<IpAddr, Refusal> {
    let address = match target {
        // The decoder has seen to it that a named source is the source.
        Target::Source | Target::SourceOnly(_) => source,
        Target::Address(address) if address == source => source,
        Target::Address(address) if rules.other_addresses.iter().any(|network| network.contains(address)) => {
            address
        }
        Target::Address(address) => return Err(Refusal::Address { address }),
    };
    let broadcast = IpAddr::from([255; 4]);
    if address.is_unspecified() || address.is_multicast() || address == broadcast {
        return Err(Refusal::NoHost { address });
    }
    Ok(address)
}

/// What is both asked for and allowed.
fn ports(rules: &Rules, wanted: &Wanted) -> Result<Vec<PortRange>, Refusal> {
    let asked = match wanted {
        Wanted::Defaults => return Ok(rules.open.clone()),
        Wanted::Service(tag) => rules.services.get(tag).ok_or(Refusal::Service)?,
        Wanted::Ports(ranges) => ranges,
    };
    let both = intersect(asked, &rules.open);
    if both.is_empty() { Err(Refusal::Ports { asked: asked.clone() }) } else { Ok(both) }
}

/// Whether a grant with these flags can be for a network: what they ask for is kept for single addresses.
fn is_plain(session: Session) -> bool {
    !(session.alone || session.ends || session.lock_out)
}

fn uses(rules: &Rules, ask: &Ask) -> Uses {
    ask.uses.map_or(rules.connections, |uses| uses.min(rules.connections))
}

/// The ports in both lists, disjoint and ascending.
#[must_use]
pub fn intersect(asked: &[PortRange], allowed: &[PortRange]) -> Vec<PortRange> {
    let pairs = asked.iter().flat_map(|a| allowed.iter().filter_map(|b| a.intersection(b)));
    disjoint(pairs)
}

/// The same ports as disjoint ranges in ascending order, neighbours joined.
#[must_use]
pub fn disjoint(ranges: impl IntoIterator<Item = PortRange>) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ranges.into_iter().collect();
    sorted.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut().and_then(|last| Some((last.join(&range)?, last))) {
            Some((whole, last)) => *last = whole,
            None => joined.push(range),
        }
    }
    joined
}

/// Why a profile allows nothing of what an authentic knock asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The profile does not allow grants for this other address.
    Address {
        /// The address asked for.
        address: IpAddr,
    },
    /// The address is none that a host can have.
    NoHost {
        /// The address asked for.
        address: IpAddr,
    },
    /// The profile opens no service with this tag.
    Service,
    /// None of the ports asked for are among those that the profile opens.
    Ports {
        /// What was asked for.
        asked: Vec<PortRange>,
    },
    /// The profile's time is over.
    Expired {
        /// Since when.
        since: Moment,
    },
    /// The keys that the knock was made with have been replaced, and the time in which both were good is over.
    Rotated {
        /// Since when.
        since: Moment,
    },
    /// None of the ports that the rules would have granted are among those that the certificate names.
    Certificate {
        /// What the rules would have granted.
        asked: Vec<PortRange>,
    },
    /// What rules and certificate have in common is more ranges than one grant can have.
    Scattered {
        /// How many.
        ranges: usize,
    },
}

impl Refusal {
    /// A short, fixed name for counters and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Address { .. } => "address",
            Self::NoHost { .. } => "no-host",
            Self::Service => "service",
            Self::Ports { .. } => "ports",
            Self::Expired { .. } => "expired",
            Self::Rotated { .. } => "rotated",
            Self::Certificate { .. } => "cert-ports",
            Self::Scattered { .. } => "scattered",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address } => {
                write!(
                    f,
                    "the profile's other_addresses do not hold {address}; add its network there to allow it"
                )
            }
            Self::NoHost { address } => write!(f, "{address} is no host's address"),
            Self::Service => f.write_str(
                "the profile opens no such service; add its name to the profile's `open` to allow it",
            ),
            Self::Ports { asked } => {
                f.write_str("the profile's `open` holds none of")?;
                asked.iter().try_for_each(|range| write!(f, " {range}"))
            }
            Self::Expired { since } => write!(
                f,
                "the profile is good until {since} and no longer; set a later `expires` in it and reload to let the client \
                 in again"
            ),
            Self::Rotated { since } => write!(
                f,
                "made with the keys from before a rotation, which were good until {since}; let the client import the \
                 bundle that the rotation made"
            ),
            Self::Certificate { asked } => {
                f.write_str("the certificate's knock: URIs allow none of")?;
                asked.iter().try_for_each(|range| write!(f, " {range}"))
            }
            Self::Scattered { ranges } => write!(
                f,
                "what the rules and the certificate allow is {ranges} separate ranges, and one grant has at most \
                 {MAX_RANGES}; ask for fewer ports"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::{ClientId, Method};
    use crate::time::Timestamp;
    use crate::x509::scope::Allowance;

    const HOME: &str = "198.51.100.7";
    const OTHER: &str = "203.0.113.9";
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ranges(texts: &[&str]) -> Vec<PortRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn rules() -> Rules {
        Rules {
            open: ranges(&["tcp/22", "tcp/8000-8100"]),
            services: [(ServiceTag([1; 4]), ranges(&["tcp/22"]))].into(),
            duration: Span::from_secs(15),
            max_duration: Span::from_secs(60),
            connections: Uses::Once,
            session: Session::default(),
            lockout: Span::from_secs(600),
            other_addresses: vec!["203.0.113.0/24".parse().unwrap()],
            wide: false,
            max_grants: 4,
            expires: None,
        }
    }

    fn ask() -> Ask {
        Ask::everything()
    }

    fn decided(rules: &Rules, ask: Ask) -> Result<Grant, Refusal> {
        let knock = Knock {
            client: ClientId([7; 32]),
            method: Method::Spa,
            source: ip(HOME),
            counter: Timestamp::from_secs(1),
            mac1: [0; 16],
            ask,
        };
        decide(ProfileIndex(3), rules, &knock, NOW)
    }

    #[test]
    fn rules_that_allow_the_same_are_kept_once() {
        let mut alike = Alike::default();
        let [one, another] = [(), ()].map(|()| alike.share(rules()));
        let other = alike.share(Rules { wide: true, ..rules() });
        assert!(Rc::ptr_eq(&one, &another));
        assert_eq!((&*one, &*other), (&rules(), &Rules { wide: true, ..rules() }));
    }

    #[test]
    fn a_bare_knock_gets_what_the_profile_opens_by_default() {
        let grant = decided(&rules(), ask()).unwrap();
        assert_eq!(grant.ports, ranges(&["tcp/22", "tcp/8000-8100"]));
        assert_eq!((grant.address, grant.lifetime, grant.uses), (ip(HOME), Span::from_secs(15), Uses::Once));
    }

    #[test]
    fn a_request_is_cut_down_to_the_profile_and_never_widened() {
        let asked = Wanted::Ports(ranges(&["tcp/20-30", "tcp/8090-8200", "udp/22"]));
        let ask = Ask { ports: asked, duration: Some(Span::from_secs(9_999)), ..ask() };
        let grant = decided(&rules(), ask).unwrap();
        assert_eq!(grant.ports, ranges(&["tcp/22", "tcp/8090-8100"]));
        assert_eq!((grant.lifetime, grant.uses), (Span::from_secs(60), Uses::Once));
    }

    #[test]
    fn a_client_may_ask_for_one_connection_where_many_are_allowed() {
        let rules = Rules { connections: Uses::Many, ..rules() };
        assert_eq!(decided(&rules, ask()).unwrap().uses, Uses::Many);
        assert_eq!(
            decided(
                &rules,
                Ask { uses: Some(Uses::Once), session: Session::default(), wide: false, ..ask() }
            )
            .unwrap()
            .uses,
            Uses::Once
        );
    }

    #[test]
    fn a_grant_ends_with_its_profile_and_a_knock_after_that_is_refused() {
        let end = NOW.as_secs();
        let decided = |after: u64| {
            let expires = Some(Moment::from_secs(end.saturating_add(after)));
            decided(&Rules { expires, ..rules() }, ask()).map(|grant| grant.lifetime)
        };
        assert_eq!(decided(3600), Ok(Span::from_secs(15)));
        assert_eq!(decided(7), Ok(Span::from_secs(7)));
        assert_eq!(decided(0), Err(Refusal::Expired { since: Moment::from_secs(end) }));
        assert_eq!(super::within(Span::from_secs(9), Some(Moment::from_secs(end)), NOW), None);
        // Less than a second is left: a grant of 0s would open nothing.
        let almost = NOW.saturating_sub(std::time::Duration::from_millis(900));
        assert_eq!(super::within(Span::from_secs(9), Some(Moment::from_secs(end)), almost), None);
    }

    #[test]
    fn replaced_keys_are_good_until_the_earlier_of_two_ends() {
        let end = |seconds| Some(Moment::from_secs(seconds));
        let rules = Rules { expires: end(50), ..rules() };
        assert_eq!([40, 60].map(|at| rules.until(Moment::from_secs(at)).expires), [end(40), end(50)]);
    }

    #[test]
    fn ports_outside_the_profile_are_refused() {
        let asked = ranges(&["tcp/23"]);
        let ask = Ask { ports: Wanted::Ports(asked.clone()), ..ask() };
        assert_eq!(decided(&rules(), ask), Err(Refusal::Ports { asked }));
    }

    #[test]
    fn a_service_opens_its_ports_and_an_unknown_one_nothing() {
        let service = |tag| Ask { ports: Wanted::Service(ServiceTag(tag)), ..ask() };
        assert_eq!(decided(&rules(), service([1; 4])).unwrap().ports, ranges(&["tcp/22"]));
        assert_eq!(decided(&rules(), service([2; 4])), Err(Refusal::Service));
    }

    fn within(scope: &[(&str, Option<u32>)], wanted: &[&str]) -> Result<Grant, Refusal> {
        let allowance = |(place, max): &(&str, Option<u32>)| Allowance {
            place: match place.strip_prefix("svc/") {
                Some(name) => Place::Service(name.parse().unwrap()),
                None => Place::Ports(place.parse().unwrap()),
            },
            max: max.map(Span::from_secs),
        };
        let scope = Scope { allowances: scope.iter().map(allowance).collect() };
        let rules = Rules { services: [(service_tag("ssh"), ranges(&["tcp/22"]))].into(), ..rules() };
        let ports = if wanted.is_empty() { Wanted::Defaults } else { Wanted::Ports(ranges(wanted)) };
        let knock = Knock {
            client: ClientId([7; 32]),
            method: Method::Cert,
            source: ip(HOME),
            counter: Timestamp::from_secs(1),
            mac1: [0; 16],
            ask: Ask { ports, duration: Some(Span::from_secs(50)), ..ask() },
        };
        decide_within(ProfileIndex(3), &rules, &scope, &knock, NOW)
    }

    #[test]
    fn a_certificate_narrows_what_the_rules_allow_and_never_widens_it() {
        assert_eq!(within(&[], &[]).unwrap().ports, ranges(&["tcp/22", "tcp/8000-8100"]));
        assert_eq!(within(&[("tcp/8090-9000", None)], &[]).unwrap().ports, ranges(&["tcp/8090-8100"]));
        assert_eq!(within(&[("svc/ssh", None), ("svc/web", None)], &[]).unwrap().ports, ranges(&["tcp/22"]));
        let asked = ranges(&["tcp/22"]);
        assert_eq!(within(&[("tcp/8000", None)], &["tcp/22"]), Err(Refusal::Certificate { asked }));
        let asked = ranges(&["tcp/23"]);
        assert_eq!(within(&[("tcp/23", None)], &["tcp/23"]), Err(Refusal::Ports { asked }));
        assert!(matches!(within(&[("svc/web", None)], &[]), Err(Refusal::Certificate { .. })));
    }

    #[test]
    fn a_certificate_shortens_a_grant_to_the_least_that_it_says_of_the_ports() {
        let scope = [("tcp/22", Some(30)), ("tcp/8000-8100", Some(3600)), ("udp/53", Some(1))];
        assert_eq!(within(&scope, &["tcp/22"]).unwrap().lifetime, Span::from_secs(30));
        assert_eq!(within(&scope, &["tcp/8000"]).unwrap().lifetime, Span::from_secs(50));
        assert_eq!(within(&scope, &[]).unwrap().lifetime, Span::from_secs(30));
    }

    #[test]
    fn what_falls_into_too_many_pieces_is_refused() {
        let open: Vec<String> = (0..16).map(|n| format!("tcp/{}-{}", 100 * n + 1, 100 * n + 90)).collect();
        let rules = Rules { open: open.iter().map(|text| text.parse().unwrap()).collect(), ..rules() };
        let place = |n: u16| format!("tcp/{}-{}", 100 * n + 50, 100 * n + 120).parse().unwrap();
        let allowances = (0..16).map(|n| Allowance { place: Place::Ports(place(n)), max: None }).collect();
        let knock = Knock {
            client: ClientId([7; 32]),
            method: Method::Cert,
            source: ip(HOME),
            counter: Timestamp::from_secs(1),
            mac1: [0; 16],
            ask: ask(),
        };
        let decided = decide_within(ProfileIndex(3), &rules, &Scope { allowances }, &knock, NOW);
        assert_eq!(decided, Err(Refusal::Scattered { ranges: 31 }));
    }

    #[test]
    fn another_address_is_granted_only_inside_the_networks_named() {
        let for_address = |text| Ask { target: Target::Address(ip(text)), ..ask() };
        assert_eq!(decided(&rules(), for_address(OTHER)).unwrap().address, ip(OTHER));
        assert_eq!(decided(&rules(), for_address(HOME)).unwrap().address, ip(HOME));
        assert_eq!(
            decided(&rules(), for_address("192.0.2.1")),
            Err(Refusal::Address { address: ip("192.0.2.1") })
        );
    }

    #[test]
    fn no_grant_is_for_an_address_that_no_host_has() {
        let rules = Rules { other_addresses: vec!["0.0.0.0/0".parse().unwrap()], ..rules() };
        for text in ["255.255.255.255", "224.0.0.1", "0.0.0.0"] {
            let ask = Ask { target: Target::Address(ip(text)), ..ask() };
            assert_eq!(decided(&rules, ask), Err(Refusal::NoHost { address: ip(text) }));
        }
    }

    #[test]
    fn ranges_become_disjoint_and_neighbours_join() {
        let mixed = ranges(&["tcp/30", "tcp/10-20", "tcp/15-25", "tcp/26", "udp/10"]);
        assert_eq!(disjoint(mixed), ranges(&["tcp/10-26", "tcp/30", "udp/10"]));
    }
}
