//! What a certificate lets its owner open: URIs among its alternative names, or the strings of sKnock.
//!
//! ```text
//! knock:tcp/22   knock:tcp/8000-8010   knock:svc/ssh      each may end in ?max=3600, seconds
//! 1.2000,0.8000                                           sKnock: 1 is TCP, 0 is UDP; a list
//! ```
//! Such names narrow what the server allows and never widen it. One that cannot be read makes the certificate
//! useless: a limit that is not understood must not become no limit.

use std::fmt;

use crate::text::{PortRange, Protocol, ServiceName, Span};

/// What a certificate lets its owner open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The places; none at all is no limit.
    pub allowances: Vec<Allowance>,
}

/// One place, and for how long at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Where.
    pub place: Place,
    /// The longest grant; `None` leaves it to the server.
    pub max: Option<Span>,
}

/// Where a certificate's owner may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To these ports.
    Ports(PortRange),
    /// To what the server calls by this name.
    Service(ServiceName),
}

/// How many places one certificate can name.
pub const MAX_ALLOWANCES: usize = 16;

impl Scope {
    /// `uris`: those of `knock:`. `sknock`: the other names of sKnock.
    pub(super) fn read(uris: &[&str], sknock: &[&str]) -> Result<Self, ScopeError> {
        let mut allowances = Vec::new();
        for uri in uris {
            allowances.push(of_uri(uri).ok_or_else(|| ScopeError::Text(shown(uri)))?);
        }
        for item in sknock.iter().flat_map(|list| list.split(',')) {
            let ports = of_sknock(item.trim()).ok_or_else(|| ScopeError::Text(shown(item)))?;
            allowances.push(Allowance { place: Place::Ports(ports), max: None });
        }
        if allowances.len() > MAX_ALLOWANCES {
            return Err(ScopeError::Many(allowances.len()));
        }
        Ok(Self { allowances })
    }
}

fn of_uri(uri: &str) -> Option<Allowance> {
    let path = uri.get(6..)?;
    let (path, max) = match path.split_once('?') {
        None => (path, None),
        Some((path, query)) => {
            let digits = query.strip_prefix("max=")?;
            let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            let seconds = digits.parse().ok().filter(|seconds| plain && *seconds > 0)?;
            (path, Some(Span::from_secs(seconds)))
        }
    };
    let place = match path.strip_prefix("svc/") {
        Some(name) => Place::Service(name.parse().ok()?),
        None => Place::Ports(path.parse().ok()?),
    };
    Some(Allowance { place, max })
}

fn of_sknock(item: &str) -> Option<PortRange> {
    let (protocol, port) = item.split_once('.')?;
    let protocol = match protocol {
        "1" => Protocol::Tcp,
        "0" => Protocol::Udp,
        _ => return None,
    };
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
    PortRange::single(protocol, port).ok()
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

/// Why the names that limit a certificate cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeError {
    /// This one has no meaning.
    Text(String),
    /// There are so many.
    Many(usize),
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => {
                write!(f, "names `{text}`, which is none of knock:tcp/22, knock:svc/ssh and the like")
            }
            Self::Many(count) => write!(f, "names {count} places, and at most {MAX_ALLOWANCES} are read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(uris: &[&str], sknock: &[&str]) -> Result<Vec<String>, ScopeError> {
        let text = |allowance: Allowance| {
            let max = allowance.max.map(|max| format!(" max {max}")).unwrap_or_default();
            match allowance.place {
                Place::Ports(ports) => format!("{ports}{max}"),
                Place::Service(name) => format!("svc {name}{max}"),
            }
        };
        Scope::read(uris, sknock).map(|scope| scope.allowances.into_iter().map(text).collect())
    }

    #[test]
    fn uris_name_ports_ranges_services_and_times() {
        let uris = ["knock:tcp/22", "KNOCK:udp/8000-8010?max=3600", "knock:svc/ssh?max=60"];
        let expected = ["tcp/22", "udp/8000-8010 max 1h", "svc ssh max 1m"];
        assert_eq!(texts(&uris, &[]).unwrap(), expected);
    }

    #[test]
    fn the_strings_of_sknock_are_understood() {
        assert_eq!(texts(&[], &["1.2000,0.8000", " 1.22"]).unwrap(), ["tcp/2000", "udp/8000", "tcp/22"]);
    }

    #[test]
    fn a_limit_that_is_not_understood_does_not_become_no_limit() {
        for uri in [
            "knock:",
            "knock:tcp",
            "knock:tcp/0",
            "knock:icmp/1",
            "knock:svc/",
            "knock:tcp/22?max=",
            "knock:tcp/22?max=0",
            "knock:tcp/22?max=1h",
            "knock:tcp/22?min=1",
            "knock:tcp/22?max=1&x=2",
            "knock:tcp/22-20",
        ] {
            assert_eq!(texts(&[uri], &[]), Err(ScopeError::Text(uri.into())), "{uri}");
        }
        for item in ["2.22", "1.0", "1.65536", "1", "", "1.+22"] {
            assert!(texts(&[], &[item]).is_err(), "{item}");
        }
        assert_eq!(texts(&["knock:tcp/22"; 17], &[]), Err(ScopeError::Many(17)));
    }
}
