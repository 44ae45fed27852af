//! `[plain]` and `[totp]` of a profile: sequences of ports.
#![forbid(unsafe_code)]

use super::Opens;
use crate::config::{Bounds, Table, limits, value};
use crate::knock::plain::{MAX_KNOCKS, MIN_KNOCKS};
use crate::knock::{Method, totp};
use crate::text::{PortRange, Span};

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
pub(super) fn plain(table: &Table<'_>, methods: &[Method], opens: &[Opens]) -> Option<Plain> {
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
    if let Some(what) = fault(&ports, opens) {
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
fn fault(ports: &[PortRange], opens: &[Opens]) -> Option<String> {
    let numbers: Vec<u16> = ports.iter().map(PortRange::first).collect();
    let opened = |port: &PortRange| {
        opens.iter().any(|opens| matches!(opens, Opens::Ports(range) if range.contains(port)))
    };
    if !(MIN_KNOCKS..=MAX_KNOCKS).contains(&ports.len()) {
        return Some(format!("{} ports; use {MIN_KNOCKS} to {MAX_KNOCKS} single ports", ports.len()));
    }
    if let Some(range) = ports.iter().find(|range| !range.is_single()) {
        return Some(format!("{range} is more than one port; name each knock by itself"));
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
    ports.and_then(|ports| u8::try_from(ports).ok()).unwrap_or(totp::DEFAULT_PORTS)
}

const DEFAULT_GAP: Span = Span::from_secs(5);
const DEFAULT_TOTAL: Span = Span::from_secs(15);
/// How many ports a sequence by the time may have.
pub(crate) const TOTP_PORTS: Bounds<u32> =
    Bounds { least: totp::MIN_PORTS as u32, greatest: totp::MAX_PORTS as u32 };
const PLAIN_KEYS: &[&str] = &["ports", "gap", "total"];
const TOTP_KEYS: &[&str] = &["ports"];
