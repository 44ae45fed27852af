//! `knockd-rs.toml`: which keys there are, what each accepts, and what holds when it is absent.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::str::FromStr;

use super::document::{Syntax, parse};
use super::error::Report;
use super::fields::{Found, Seen, Table};
use super::forwards;
use super::limits;
use super::ports::merged;
use crate::knock::{Ground, GroundError, MAX_EXCLUDED};
use crate::knock::{ServiceTag, service_tag};
use crate::text::{Network, PortRange, ServiceName};

mod types;
mod unit;

pub use types::{
    Capture, Clock, Control, Device, Doors, Firewall, Forward, Freshness, GroupName, Guard, Interface,
    Limits, Log, LogFormat, LogLevel, Mode, OnStop, Owner, Services, SetName, Sets, Settings, Trusted,
};
pub use unit::UnitName;

impl Settings {
    /// Reads the settings; what is wrong goes to the report, and a default takes its place. `None` when the text
    /// is no TOML.
    pub(crate) fn read(text: &str, report: &Report) -> Option<Self> {
        let node = parse(text, Syntax::Toml, report)?;
        let root = Table::root(&node, KEYS, report);
        let mut guard = guard(&root.table("guard", &["drop", "reject", "behind"]));
        let (mut services, doors) = services(&root.free_table("services"));
        let forwards = forwards::read(&root, &mut services, &mut guard);
        let settings = Self {
            capture: capture(&root.table("capture", &["device", "port"])),
            firewall: firewall(&root.table("firewall", FIREWALL_KEYS)),
            guard,
            services,
            forwards,
            doors,
            sequence: ground(&root.table("sequence", GROUND_KEYS)),
            freshness: Freshness::default(),
            clock: Clock::default(),
            limits: limit_settings(&root.table("limits", LIMIT_KEYS)),
            control: control(&root.table("control", &["group", "readers"])),
            log: log(&root.table("log", &["format", "level"])),
        };
        let table = root.table("freshness", &["max_age", "max_ahead", "clock"]);
        let clock = table.choice("clock", CLOCKS).map(value).unwrap_or_default();
        let settings = Self { freshness: freshness(&table, Freshness::default()), clock, ..settings };
        settings.check_together(&root);
        Some(settings)
    }

    /// What no key alone shows.
    fn check_together(&self, root: &Table<'_>) {
        let guard = root.free_table("guard");
        if matches!(self.firewall.mode, Mode::Sets(_)) {
            if !self.forwards.is_empty() || !self.guard.behind.is_empty() {
                root.error(
                    if self.forwards.is_empty() { "guard" } else { "forward" },
                    "needs the daemon's own table; do it by rules of your own, or use firewall.mode = \"table\"",
                );
                return;
            }
            for (key, ports) in [("drop", &self.guard.drop), ("reject", &self.guard.reject)] {
                if !ports.is_empty() {
                    guard.error(
                        key,
                        "nothing is guarded in firewall.mode \"sets\", where your own rules close the \
                        ports; remove it, or use firewall.mode = \"table\"",
                    );
                }
            }
        }
        let both =
            self.guard.drop.iter().flat_map(|d| self.guard.reject.iter().filter_map(|r| d.intersection(r)));
        for ports in both {
            guard.error("reject", format!("{ports} is in guard.drop too; keep it in one of them"));
        }
    }
}

/// Reads `max_age` and `max_ahead` from the table that may have them; `default` where it has not.
pub(crate) fn freshness(table: &Table<'_>, default: Freshness) -> Freshness {
    Freshness {
        max_age: table.span("max_age", limits::FRESHNESS).map_or(default.max_age, value),
        max_ahead: table.span("max_ahead", limits::FRESHNESS).map_or(default.max_ahead, value),
    }
}

/// Reads `base`, `span` and `excluded`: the ports that sequences are played on. The client's files have them too.
pub(crate) fn ground(table: &Table<'_>) -> Ground {
    let default = Ground::default();
    let number = |key| table.number(key, limits::PORT).and_then(|found| u16::try_from(found.value).ok());
    let excluded = table.list::<PortRange>("excluded", "\"tcp/25565\"");
    let ports = excluded.iter().flat_map(|found| found.value.first()..=found.value.last());
    let ground = Ground {
        base: number("base").unwrap_or(default.base),
        span: number("span").unwrap_or(default.span),
        excluded: ports.take(MAX_EXCLUDED + 1).collect(),
    };
    ground.check().unwrap_or_else(|error| {
        let key = match error {
            GroundError::Excluded => "excluded",
            GroundError::Span(_) => "span",
            GroundError::End { .. } if table.has("base") => "base",
            GroundError::End { .. } => "span",
        };
        table.error(key, error.to_string());
        default
    })
}

fn capture(table: &Table<'_>) -> Capture {
    let default = Capture::default();
    let port = table.number("port", limits::PORT).and_then(|found| u16::try_from(found.value).ok());
    Capture {
        device: table
            .parsed("device", "use \"any\" or the name of an interface")
            .map_or(default.device, value),
        port: port.unwrap_or(default.port),
    }
}

fn firewall(table: &Table<'_>) -> Firewall {
    let trusted = table.table("trusted", &["interfaces", "networks"]);
    let sets = table.table("sets", SET_KEYS);
    let on_stop = table.choice("on_stop", ON_STOP).map(value).unwrap_or_default();
    let owner = table.choice("owner", OWNERS).map(value).unwrap_or_default();
    let is_sets = table.choice("mode", &[("table", false), ("sets", true)]).is_some_and(value);
    let (read_sets, read_trusted) = (set_names(&sets), read_trusted(&trusted));
    let unused = |key, mode| table.warn(key, format!("has no effect in firewall.mode \"{mode}\""));
    if is_sets {
        ["owner", "trusted"].into_iter().filter(|key| table.has(key)).for_each(|key| unused(key, "sets"));
        if read_sets == Sets::default() {
            table.error(
                "mode",
                "\"sets\" needs [firewall.sets] with the sets to fill; name at least one of timed_v4, \
                timed_v6, once_v4, once_v6",
            );
        }
        return Firewall { mode: Mode::Sets(Box::new(read_sets)), on_stop };
    }
    if table.has("sets") {
        unused("sets", "table");
    }
    Firewall { mode: Mode::Table { owner, trusted: read_trusted }, on_stop }
}

fn read_trusted(table: &Table<'_>) -> Trusted {
    let default = Trusted::default();
    let interfaces = table.list::<Interface>("interfaces", "\"lo\"").into_iter().map(value).collect();
    let networks = table.list::<Network>("networks", "\"10.0.0.0/8\"").into_iter().map(value).collect();
    Trusted { interfaces: if table.has("interfaces") { interfaces } else { default.interfaces }, networks }
}

fn set_names(table: &Table<'_>) -> Sets {
    let mut seen = Seen::new();
    let mut set = |key: &'static str, foreign: &str| {
        let found: Found<SetName> = table.parsed(key, SET_HINT)?;
        if found.value.family() == foreign {
            table.error(key, format!("the family {foreign} does not see these addresses; use inet"));
        }
        if let Some(other) = seen.again(found.value.clone(), key) {
            table.error(key, format!("is the set of {other} too; each needs its own"));
        }
        Some(found.value)
    };
    Sets {
        timed_v4: set("timed_v4", "ip6"),
        timed_v6: set("timed_v6", "ip"),
        once_v4: set("once_v4", "ip6"),
        once_v6: set("once_v6", "ip"),
    }
}

fn guard(table: &Table<'_>) -> Guard {
    let ports = |key| merged(table.list(key, "\"tcp/22\"").into_iter().map(value).collect());
    let behind: Vec<Network> = table.list("behind", "\"192.168.1.0/24\"").into_iter().map(value).collect();
    if behind.len() > limits::BEHIND {
        table.error("behind", format!("{} networks; use at most {}", behind.len(), limits::BEHIND));
    }
    Guard { drop: ports("drop"), reject: ports("reject"), behind }
}

/// Services with a wrong list are kept, empty: the profiles that name them have done nothing wrong.
fn services(table: &Table<'_>) -> (Services, Doors) {
    let (mut services, mut doors, mut tags) = (BTreeMap::new(), BTreeMap::new(), Seen::new());
    if table.names().count() > limits::SERVICES {
        table.error("", format!("{} services; use at most {}", table.names().count(), limits::SERVICES));
        return (services, doors);
    }
    let mut names: Vec<_> = table.names().collect();
    names.sort_by_key(|(_, line)| *line);
    for (key, _) in names {
        let name = match ServiceName::from_str(key) {
            Ok(name) => name,
            Err(error) => {
                table.error(key, error.to_string());
                continue;
            }
        };
        if let Some(what) = tag_fault(service_tag(key), &mut tags, key) {
            table.error(key, what);
        }
        let ports = if table.is_table(key) {
            let service = table.table(key, &["ports", "unit"]);
            let unit = service.parsed("unit", "use \"postgresql.service\"").map(value);
            doors.extend(unit.map(|unit| (name.clone(), unit)));
            if !service.has("ports") {
                service.missing("ports", "name at least one, such as [\"tcp/22\"]");
            }
            service_ports(&service, "ports")
        } else {
            service_ports(table, key)
        };
        services.insert(name, ports);
    }
    (services, doors)
}

fn service_ports(table: &Table<'_>, key: &str) -> Vec<PortRange> {
    let written = table.list::<PortRange>(key, "\"tcp/22\"");
    if written.is_empty() && table.is_empty_list(key) {
        table.error(key, "has no ports; name at least one, such as \"tcp/22\"");
    }
    merged(written.into_iter().map(value).collect())
}

fn control(table: &Table<'_>) -> Control {
    let default = Control::default();
    Control {
        group: table.parsed("group", "use \"root\"").map_or(default.group, value),
        readers: table.parsed("readers", "use \"knockd-rs-readers\"").map_or(default.readers, value),
    }
}

/// What is wrong with a service's tag: knocks carry four bytes of a hash in place of the name.
fn tag_fault<'a>(tag: ServiceTag, seen: &mut Seen<ServiceTag, &'a str>, name: &'a str) -> Option<String> {
    if tag == ServiceTag([0; 4]) {
        return Some("has the tag 00000000, which means no service; choose another name".into());
    }
    let other = seen.again(tag, name)?;
    Some(format!(
        "has the same tag as the service `{other}`, so that a knock cannot tell them apart; rename one"
    ))
}

fn limit_settings(table: &Table<'_>) -> Limits {
    let default = Limits::default();
    let number = |key, bounds, default| table.number(key, bounds).map_or(default, value);
    let limits = Limits {
        grants: number("grants", limits::GRANTS, default.grants),
        handshakes_per_second: number(
            "handshakes_per_second",
            limits::HANDSHAKES,
            default.handshakes_per_second,
        ),
        handshakes_per_source: number(
            "handshakes_per_source",
            limits::HANDSHAKES,
            default.handshakes_per_source,
        ),
    };
    if limits.handshakes_per_source > limits.handshakes_per_second {
        let key = if table.has("handshakes_per_source") {
            "handshakes_per_source"
        } else {
            "handshakes_per_second"
        };
        table.error(key, format!(
            "one source's share of {} is more than the {} for all; use handshakes_per_source <= handshakes_per_second",
            limits.handshakes_per_source, limits.handshakes_per_second
        ));
    }
    limits
}

fn log(table: &Table<'_>) -> Log {
    Log {
        format: table.choice("format", FORMATS).map(value).unwrap_or_default(),
        level: table.choice("level", LEVELS).map(value).unwrap_or_default(),
    }
}

pub(crate) fn value<T>(found: Found<T>) -> T {
    found.value
}

pub(crate) const GROUND_KEYS: &[&str] = &["base", "span", "excluded"];
const KEYS: &[&str] = &[
    "capture",
    "firewall",
    "guard",
    "services",
    "sequence",
    "freshness",
    "limits",
    "control",
    "log",
    "forward",
    // Read by `certificates`.
    "certificate_authority",
    "certificates",
];
const FIREWALL_KEYS: &[&str] = &["mode", "on_stop", "owner", "trusted", "sets"];
const SET_KEYS: &[&str] = &["timed_v4", "timed_v6", "once_v4", "once_v6"];
const LIMIT_KEYS: &[&str] = &["grants", "handshakes_per_second", "handshakes_per_source"];
const SET_HINT: &str = "use \"family table set\", such as \"inet filter knock4\"";
const ON_STOP: &[(&str, OnStop)] = &[("keep", OnStop::Keep), ("remove", OnStop::Remove)];
const OWNERS: &[(&str, Owner)] = &[("auto", Owner::Auto), ("never", Owner::Never)];
const CLOCKS: &[(&str, Clock)] =
    &[("auto", Clock::Auto), ("trusted", Clock::Trusted), ("untrusted", Clock::Untrusted)];
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warning", LogLevel::Warning),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];
