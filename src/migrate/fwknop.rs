//! `access.conf` of fwknop's server: stanzas that begin with `SOURCE`, a variable and its value on each line (fwknopd(8)).
//! A stanza that opens ports becomes a client with keys of its own; fwknop's are for another protocol.

use super::{Client, Import, LONGEST, Left, MAX_CLIENTS, name_like, number, seconds, shown};
use crate::policy::disjoint;
use crate::text::{Moment, PortRange, Span, days};

/// A stanza as written.
struct Stanza<'a> {
    line: u32,
    entries: Vec<(&'a str, &'a str, u32)>,
    /// Whether it has more lines than are read.
    is_cut: bool,
}

impl<'a> Stanza<'a> {
    fn get(&self, name: &str) -> Option<(&'a str, u32)> {
        let found = self.entries.iter().rev().find(|(variable, _, _)| *variable == name);
        found.map(|(_, value, line)| (*value, *line))
    }

    fn is_on(&self, name: &str) -> Option<u32> {
        self.get(name).filter(|(value, _)| value.starts_with(['Y', 'y'])).map(|(_, line)| line)
    }
}

/// What the text comes to.
pub(super) fn read(text: &str) -> Import {
    let mut import = Import::default();
    for stanza in stanzas(text, &mut import.left) {
        match client(&stanza, &import.clients) {
            Ok(client) => {
                import.left.extend(remarks(&stanza));
                import.clients.push(client);
            }
            Err(left) => import.left.push(left),
        }
    }
    import
}

fn stanzas<'a>(text: &'a str, left: &mut Vec<Left>) -> Vec<Stanza<'a>> {
    let mut stanzas: Vec<Stanza<'a>> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let (line, text) = (number(line), text.trim());
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (variable, value) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let variable = variable.trim_end_matches(':');
        let value = value.trim().trim_end_matches(';').trim();
        if variable == "SOURCE" {
            if stanzas.len() >= MAX_CLIENTS {
                left.push(Left {
                    line,
                    what: format!("more than {MAX_CLIENTS} stanzas; the rest is not read"),
                });
                break;
            }
            stanzas.push(Stanza { line, entries: Vec::new(), is_cut: false });
        }
        match stanzas.last_mut() {
            _ if variable.starts_with('%') => {
                let what = format!("{}: is not followed; import that file as well", shown(text));
                left.push(Left { line, what });
            }
            Some(stanza) if stanza.entries.len() < MAX_ENTRIES => {
                stanza.entries.push((variable, value, line))
            }
            Some(stanza) => stanza.is_cut = true,
            None => left.push(Left { line, what: format!("{} is in no stanza", shown(variable)) }),
        }
    }
    stanzas
}

fn client(stanza: &Stanza<'_>, taken: &[Client]) -> Result<Client, Left> {
    let cannot =
        |line: u32, what: String| Left { line, what: format!("the stanza of line {}: {what}", stanza.line) };
    if stanza.is_cut {
        // What was not read may be what takes ports or time away.
        return Err(cannot(stanza.line, format!("has more than {MAX_ENTRIES} lines; it is left out")));
    }
    for (variable, instead) in OTHER_MEANING {
        let set = stanza.get(variable).filter(|(value, _)| !value.starts_with(['N', 'n']));
        if let Some((_, line)) = set {
            return Err(cannot(line, format!("{variable}: {instead}; it is left out")));
        }
    }
    let Some((open, line)) = stanza.get("OPEN_PORTS") else {
        let what = "without OPEN_PORTS it lets its client ask for every port; it is left out: add it by hand with knockd-rs \
                    profile add, and name the ports";
        return Err(cannot(stanza.line, what.to_owned()));
    };
    let unreadable =
        |line, text: &str| cannot(line, format!("`{}` is no list of ports; it is left out", shown(text)));
    let mut open = disjoint(ports(open).ok_or_else(|| unreadable(line, open))?);
    if let Some((text, line)) = stanza.get("RESTRICT_PORTS") {
        let closed = ports(text).ok_or_else(|| unreadable(line, text))?;
        open.retain(|port| closed.iter().all(|closed| closed.intersection(port).is_none()));
    }
    if open.is_empty() {
        return Err(cannot(line, "opens no port; it is left out".to_owned()));
    }
    let title = stanza.get("REQUIRE_USERNAME").map_or("fwknop", |(name, _)| name);
    let name = name_like(title, taken).or_else(|| name_like("fwknop", taken));
    let name = name.ok_or_else(|| cannot(stanza.line, "there is no name left for it".to_owned()))?;
    let (duration, max_duration) = times(stanza).map_err(|(line, text)| {
        cannot(line, format!("`{}` is no number of seconds; it is left out", shown(text)))
    })?;
    Ok(Client {
        title: format!("the stanza of line {}", stanza.line),
        name,
        line: stanza.line,
        open,
        duration,
        max_duration,
        expires: expires(stanza).map_err(|(line, text)| {
            cannot(line, format!("`{}` is no date that can be read; it is left out", shown(text)))
        })?,
        sequence: None,
    })
}

/// How long a grant lasts, and at most. A time that cannot be read must not become another.
fn times<'a>(stanza: &Stanza<'a>) -> Result<(Span, Span), (u32, &'a str)> {
    let time = |name: &str| match stanza.get(name) {
        Some((text, line)) => seconds(text).map(Some).ok_or((line, text)),
        None => Ok(None),
    };
    let duration = time("FW_ACCESS_TIMEOUT")?.unwrap_or(TIMEOUT).max(Span::from_secs(1));
    // 0 is no limit there.
    let longest = time("MAX_FW_TIMEOUT")?.filter(|longest| longest.as_secs() > 0).unwrap_or(duration);
    Ok((duration.min(longest), longest.min(LONGEST)))
}

/// `ACCESS_EXPIRE 12/31/2027`, to the beginning of that day, or seconds since 1970 in `ACCESS_EXPIRE_EPOCH`; the earlier of
/// both. One that cannot be read must not become none.
fn expires<'a>(stanza: &Stanza<'a>) -> Result<Option<Moment>, (u32, &'a str)> {
    let read = |name: &str, read: fn(&str) -> Option<u64>| match stanza.get(name) {
        Some((text, line)) => read(text).map(|at| Some(Moment::from_secs(at))).ok_or((line, text)),
        None => Ok(None),
    };
    let ends = [read("ACCESS_EXPIRE_EPOCH", |text| text.parse().ok())?, read("ACCESS_EXPIRE", midnight)?];
    Ok(ends.into_iter().flatten().min())
}

/// When a day begins, in seconds since 1970.
fn midnight(text: &str) -> Option<u64> {
    let mut parts = text.split('/').map(|part| part.parse::<i64>().ok());
    let (month, day, year) = (parts.next()??, parts.next()??, parts.next()??);
    let days = u64::try_from(days(year, month, day)?).ok()?;
    parts.next().is_none().then_some(days * 86_400)
}

/// What a stanza says that a profile cannot, and that takes nothing from what it opens.
fn remarks(stanza: &Stanza<'_>) -> Vec<Left> {
    let remark =
        |line: u32, what: String| Left { line, what: format!("the stanza of line {}: {what}", stanza.line) };
    let mut remarks = Vec::new();
    if let Some((source, line)) =
        stanza.get("SOURCE").filter(|(source, _)| !source.eq_ignore_ascii_case("any"))
    {
        let what = format!(
            "SOURCE: a knock counts wherever it comes from, not from {} alone; it is the key that tells the client",
            shown(source)
        );
        remarks.push(remark(line, what));
    }
    if let Some(line) = stanza.is_on("REQUIRE_SOURCE_ADDRESS") {
        let what = "REQUIRE_SOURCE_ADDRESS: is the client's choice here: knockd-rs knock --pin".to_owned();
        remarks.push(remark(line, what));
    }
    if let Some(line) = stanza.is_on("ENABLE_CMD_EXEC") {
        let what = "ENABLE_CMD_EXEC: a knock runs no command of its sender's; for one of your own see knockd-rs hook";
        remarks.push(remark(line, what.to_owned()));
    }
    let keys = |variable: &str| variable.contains("KEY") || variable.starts_with("GPG_");
    if let Some((variable, _, line)) = stanza.entries.iter().find(|(variable, _, _)| keys(variable)) {
        let what =
            format!("{}: keys of fwknop are for another protocol; the client gets new ones", shown(variable));
        remarks.push(remark(*line, what));
    }
    let is_new = |variable: &str| !KNOWN.contains(&variable) && !keys(variable);
    for (variable, _, line) in stanza.entries.iter().filter(|(variable, _, _)| is_new(variable)) {
        remarks.push(remark(*line, format!("{}: there is nothing like it here", shown(variable))));
    }
    remarks
}

/// `tcp/22, udp/53`.
fn ports(text: &str) -> Option<Vec<PortRange>> {
    let ports: Option<Vec<PortRange>> =
        text.split(',').take(MAX_ENTRIES + 1).map(|port| port.trim().parse().ok()).collect();
    ports.filter(|ports| ports.len() <= MAX_ENTRIES)
}

/// How many lines a stanza can have, and ports a line.
const MAX_ENTRIES: usize = 128;
/// What holds where a stanza says nothing, by fwknopd's manual.
const TIMEOUT: Span = Span::from_secs(30);

/// With these a stanza means something else than opening ports of this host.
const OTHER_MEANING: &[(&str, &str)] = &[
    ("FORCE_NAT", "leads its client to another host; write a [[forward]] table in knockd-rs.toml"),
    ("FORCE_SNAT", "changes the client's address, which nothing here does"),
    ("CMD_CYCLE_OPEN", "runs a command in place of opening a port; see knockd-rs hook"),
    (
        "FORWARD_ALL",
        "opens everything that this host forwards; name ports, and see [guard] behind in knockd-rs.toml",
    ),
];

/// What is carried over, is said above, or has no counterpart because it needs none.
const KNOWN: &[&str] = &[
    "SOURCE",
    "OPEN_PORTS",
    "RESTRICT_PORTS",
    "FW_ACCESS_TIMEOUT",
    "MAX_FW_TIMEOUT",
    "REQUIRE_USERNAME",
    "REQUIRE_SOURCE_ADDRESS",
    "ENABLE_CMD_EXEC",
    "ACCESS_EXPIRE",
    "ACCESS_EXPIRE_EPOCH",
    "HMAC_DIGEST_TYPE",
    "ENCRYPTION_MODE",
    "FORCE_NAT",
    "FORCE_SNAT",
    "CMD_CYCLE_OPEN",
    "FORWARD_ALL",
];
