//! `[plain]` and `[totp]` of a profile: sequences of ports.
#![forbid(unsafe_code)]

use crate::config::{Bounds, Table, limits, value};
use crate::knock::plain::{MAX_KNOCKS, MIN_KNOCKS};
use crate::knock::{Method, totp};
use crate::text::{PortRange, Protocol, Span};

/// A fixed sequence of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The ports in order, each single.
    pub ports: Vec<PortRange>,
    /// The longest pause between two knocks.
    pub gap: Span,
    /// The longest time from the first knock to the last.
    pub total: Span,
}

impl Plain {
    /// Whether knocking this sequence knocks the other one as well: it has all of its ports, in its order.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        let mut ours = self.ports.iter();
        other.ports.iter().all(|port| ours.any(|own| own == port))
    }
}

/// `[plain]` and `insecure`: the sequence, for a profile whose methods name it.
pub(super) fn plain(table: &Table<'_>, methods: &[Method], open: &[PortRange]) -> Option<Plain> {
    let insecure = table.boolean("insecure").is_some_and(value);
    let of_plain = table.table("plain", PLAIN_KEYS);
    let uses = methods.contains(&Method::Plain);
    match (uses, table.has("plain")) {
        (false, false) if insecure => {
            table.error("insecure", "is for the method \"plain\" alone; leave it out");
            return None;
        }
        (false, false) => return None,
        (false, true) => {
            table.error("plain", "is a sequence for the method \"plain\"; add it to methods, or leave the table out");
            return None;
        }
        (true, _) if !insecure => {
            let what = "\"plain\" is replayable: whoever sees the sequence once can open these ports from then on; use \
                        \"totp\" or \"spa\", or write insecure = true";
            table.error("methods", what);
        }
        (true, _) => table.warn(
            "insecure",
            "this profile can be opened by anybody who has seen its sequence once: \"plain\" is replayable; use \
             \"totp\" where the client can",
        ),
    }
    if !table.has("plain") {
        table.missing(
            "plain",
            "write the sequence: [plain] and ports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]",
        );
        return None;
    }
    let found = of_plain.list::<PortRange>("ports", "\"tcp/7000\"");
    let ports: Vec<PortRange> = found.into_iter().map(value).collect();
    if let Some(what) = fault(&ports, open) {
        of_plain.error("ports", what);
    }
    let gap = of_plain.span("gap", limits::SEQUENCE).map_or(DEFAULT_GAP, value);
    let total = of_plain.span("total", limits::SEQUENCE).map_or(DEFAULT_TOTAL, value);
    if gap > total {
        of_plain.error("gap", format!("{gap} is more than total, {total}; use at most that"));
    }
    Some(Plain { ports, gap, total })
}

/// What is wrong with a sequence by itself.
fn fault(ports: &[PortRange], open: &[PortRange]) -> Option<String> {
    let numbers: Vec<u16> = ports.iter().map(PortRange::first).collect();
    let opened = |port: &PortRange| open.iter().any(|range| range.contains(port));
    if !(MIN_KNOCKS..=MAX_KNOCKS).contains(&ports.len()) {
        return Some(format!("{} ports; use {MIN_KNOCKS} to {MAX_KNOCKS} single ports", ports.len()));
    }
    if let Some(range) = ports.iter().find(|range| !range.is_single()) {
        return Some(format!("{range} is more than one port; name each knock by itself"));
    }
    if let Some(range) = ports.iter().find(|range| range.protocol() == Protocol::Sctp) {
        return Some(format!("{range} cannot be knocked at; use ports of TCP and UDP"));
    }
    if numbers.is_sorted() || numbers.is_sorted_by(|a, b| a >= b) {
        return Some(
            "the ports are in the order of their numbers, so that a port scan would open; mix them".into(),
        );
    }
    if let Some([port, _]) = ports.windows(2).find(|two| two.first() == two.last()) {
        return Some(format!(
            "{port} stands twice in a row, and a packet that is sent again would be both knocks; put another between"
        ));
    }
    let opened = ports.iter().find(|port| opened(port))?;
    Some(format!(
        "{opened} is what this profile opens, so that connecting to it would be a knock; use another port"
    ))
}

/// `[totp]`: how many ports a sequence has.
pub(super) fn totp_ports(table: &Table<'_>, methods: &[Method]) -> u8 {
    let of_totp = table.table("totp", TOTP_KEYS);
    if table.has("totp") && !methods.contains(&Method::Totp) {
        table.error("totp", "is for the method \"totp\"; add it to methods, or leave the table out");
    }
    let ports = of_totp.number("ports", TOTP_PORTS).map(value);
    ports.and_then(|ports| u8::try_from(ports).ok()).unwrap_or(DEFAULT_TOTP_PORTS)
}

/// How many it has where nothing is said.
pub(crate) const DEFAULT_TOTP_PORTS: u8 = totp::DEFAULT_PORTS;
pub(super) const DEFAULT_GAP: Span = Span::from_secs(5);
pub(super) const DEFAULT_TOTAL: Span = Span::from_secs(15);
/// How many ports a sequence by the time may have.
pub(crate) const TOTP_PORTS: Bounds<u32> =
    Bounds { least: totp::MIN_PORTS as u32, greatest: totp::MAX_PORTS as u32 };
const PLAIN_KEYS: &[&str] = &["ports", "gap", "total"];
const TOTP_KEYS: &[&str] = &["ports"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Freshness, Report, Syntax};
    use crate::profile::{Profile, Server, read};

    const PLAIN: &str = "open = [\"tcp/22\"]\nmethods = [\"plain\"]\ninsecure = true\n[plain]\n";

    /// A profile of this text, and what is said of it.
    fn phone(text: &str) -> (Option<Profile>, Vec<String>, Vec<String>) {
        let report = Report::new("phone.toml");
        let services = [].into();
        let server = Server { services: Some(&services), freshness: Freshness::default() };
        let read = read("phone".parse().unwrap(), text, Syntax::Toml, server, &report);
        let (errors, warnings) = report.into_parts();
        let texts = (errors.iter().map(ToString::to_string), warnings.iter().map(ToString::to_string));
        (read.map(|read| read.profile), texts.0.collect(), texts.1.collect())
    }

    fn refused(lines: &str, expected: &str) {
        let (_, errors, _) = phone(&format!("{PLAIN}{lines}"));
        assert_eq!(errors, [format!("phone.toml:{expected}")], "{lines}");
    }

    #[test]
    fn a_sequence_needs_no_key_and_has_limits_of_its_own() {
        let (profile, errors, warnings) =
            phone(&format!("{PLAIN}ports = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]\n"));
        let profile = profile.unwrap();
        assert_eq!((errors.len(), profile.public_key), (0, None));
        let plain = profile.plain.unwrap();
        assert_eq!((plain.ports.len(), plain.gap, plain.total), (3, Span::from_secs(5), Span::from_secs(15)));
        assert!(
            warnings[0].starts_with("phone.toml:3: insecure: this profile can be opened by anybody"),
            "{warnings:?}"
        );
    }

    #[test]
    fn sequences_that_would_open_by_accident_are_refused() {
        let ports = "the ports are in the order of their numbers, so that a port scan would open; mix them";
        refused("ports = [\"tcp/1\", \"udp/2\", \"tcp/3\"]", &format!("5: plain.ports: {ports}"));
        refused("ports = [\"tcp/3\", \"udp/2\", \"tcp/1\"]", &format!("5: plain.ports: {ports}"));
        refused("ports = [\"tcp/3\", \"udp/3\"]", &format!("5: plain.ports: {ports}"));
        refused(
            "ports = [\"tcp/3\", \"tcp/9\", \"tcp/9\", \"tcp/4\"]",
            "5: plain.ports: tcp/9 stands twice in a row, and a packet that is sent again would be both knocks; put \
             another between",
        );
        refused(
            "ports = [\"tcp/3\", \"tcp/22\", \"tcp/4\"]",
            "5: plain.ports: tcp/22 is what this profile opens, so that connecting to it would be a knock; use another \
             port",
        );
    }

    #[test]
    fn sequences_of_another_length_or_form_are_refused() {
        refused("ports = [\"tcp/3\"]", "5: plain.ports: 1 ports; use 2 to 16 single ports");
        refused("", "4: plain.ports: 0 ports; use 2 to 16 single ports");
        refused(
            "ports = [\"tcp/5-6\", \"tcp/3\", \"tcp/4\"]",
            "5: plain.ports: tcp/5-6 is more than one port; name each knock by itself",
        );
        let good = "ports = [\"tcp/3\", \"tcp/1\", \"tcp/4\"]\n";
        refused(&format!("{good}gap = \"61s\""), "6: plain.gap: 1m1s; use 1s to 1m");
        refused(
            &format!("{good}total = \"4s\""),
            "4: plain.gap: 5s is more than total, 4s; use at most that",
        );
    }

    #[test]
    fn it_must_be_called_insecure_and_be_meant() {
        let good = "[plain]\nports = [\"tcp/3\", \"tcp/1\", \"tcp/4\"]\n";
        let said = |text: &str| phone(&format!("open = [\"tcp/22\"]\n{text}")).1;
        let insecure = "phone.toml:2: methods: \"plain\" is replayable: whoever sees the sequence once can open these \
                        ports from then on; use \"totp\" or \"spa\", or write insecure = true";
        assert_eq!(said(&format!("methods = [\"plain\"]\n{good}")), [insecure]);
        assert_eq!(said(&format!("methods = [\"plain\"]\ninsecure = false\n{good}")), [insecure]);
        let missing = "phone.toml: plain: is missing; write the sequence: [plain] and ports = [\"tcp/7000\", \
                       \"udp/8000\", \"tcp/6000\"]";
        assert_eq!(said("methods = [\"plain\"]\ninsecure = true\n"), [missing]);
        let key = "public_key = \"kzHlnvzm4iFRnA8ol8mM6ZW4WYVZ7aTPoM7CYzyD+kM=\"\n";
        assert_eq!(
            said(&format!("{key}insecure = true\n")),
            ["phone.toml:3: insecure: is for the method \"plain\" alone; leave it out"]
        );
        assert_eq!(
            said(&format!("{key}{good}")),
            [
                "phone.toml:3: plain: is a sequence for the method \"plain\"; add it to methods, or leave the table out"
            ]
        );
        assert_eq!(
            said(&format!("{key}[totp]\nports = 6\n")),
            ["phone.toml:3: totp: is for the method \"totp\"; add it to methods, or leave the table out"]
        );
        assert_eq!(
            said(&format!("{key}methods = [\"totp\"]\n[totp]\nports = 3\n")),
            ["phone.toml:5: totp.ports: 3; use 4 to 12"]
        );
    }

    #[test]
    fn one_sequence_holds_another_when_it_has_its_ports_in_its_order() {
        let plain = |texts: &[&str]| Plain {
            ports: texts.iter().map(|text| text.parse().unwrap()).collect(),
            gap: DEFAULT_GAP,
            total: DEFAULT_TOTAL,
        };
        let long = plain(&["tcp/1", "tcp/2", "udp/3", "tcp/2"]);
        for (other, expected) in [
            (&["tcp/1", "udp/3"][..], true),
            (&["tcp/2", "tcp/2"], true),
            (&["tcp/1", "tcp/3"], false),
            (&["udp/3", "tcp/1"], false),
            (&["tcp/2", "tcp/2", "tcp/2"], false),
        ] {
            assert_eq!(long.holds(&plain(other)), expected, "{other:?}");
        }
    }
}
