//! `knockd.conf`: sections with a sequence of ports and a command (knockd(1)). A section whose command opens ports for the
//! address that knocked becomes a client with that sequence; one that takes the same back is not needed.

use super::command::{Effect, effect, protocol_of};
use super::{Client, Import, Left, MAX_CLIENTS, Sequence, name_like, number, seconds, shown};
use crate::policy::disjoint;
use crate::text::{PortRange, Span};

/// A section as written.
struct Section<'a> {
    title: &'a str,
    line: u32,
    /// Keys in small letters, with their values and lines.
    entries: Vec<(String, &'a str, u32)>,
    /// Whether it has more keys than are read.
    is_cut: bool,
}

impl<'a> Section<'a> {
    fn get(&self, keys: &[&str]) -> Option<(&'a str, u32)> {
        let found = self.entries.iter().rev().find(|(key, _, _)| keys.contains(&key.as_str()));
        found.map(|(_, value, line)| (*value, *line))
    }
}

/// What the text comes to.
pub(super) fn read(text: &str) -> Import {
    let mut import = Import::default();
    let sections = sections(text, &mut import.left);
    for section in &sections {
        if section.title.eq_ignore_ascii_case("options") {
            options(section, &mut import.left);
            continue;
        }
        match client(section, &import.clients, &sections) {
            Ok(Some((client, remarks))) => {
                import.clients.push(client);
                import.left.extend(remarks);
            }
            Ok(None) => {}
            Err(left) => import.left.push(left),
        }
    }
    import
}

fn sections<'a>(text: &'a str, left: &mut Vec<Left>) -> Vec<Section<'a>> {
    let mut sections: Vec<Section<'a>> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let (line, text) = (number(line), text.trim());
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            if sections.len() >= MAX_CLIENTS {
                left.push(Left {
                    line,
                    what: format!("more than {MAX_CLIENTS} sections; the rest is not read"),
                });
                break;
            }
            sections.push(Section { title: title.trim(), line, entries: Vec::new(), is_cut: false });
            continue;
        }
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match sections.last_mut() {
            Some(section) if section.entries.len() < MAX_ENTRIES => {
                section.entries.push((key.trim().to_ascii_lowercase(), value.trim(), line));
            }
            Some(section) => section.is_cut = true,
            None => left.push(Left { line, what: format!("`{}` is in no section", shown(text)) }),
        }
    }
    sections
}

fn options(section: &Section<'_>, left: &mut Vec<Left>) {
    for (key, value, line) in &section.entries {
        let what = match key.as_str() {
            "interface" => format!(
                "[options] interface: knocks are awaited on all interfaces; for this one alone write device = \"{}\" under \
                 [capture] in knockd-rs.toml",
                shown(value)
            ),
            "usesyslog" | "logfile" | "pidfile" => continue,
            other => format!("[options] {}: there is nothing like it here", shown(other)),
        };
        left.push(Left { line: *line, what });
    }
}

type Read = Result<Option<(Client, Vec<Left>)>, Left>;

/// The client of a section, and what it cannot say; none for one that closes what another section opens.
fn client(section: &Section<'_>, taken: &[Client], all: &[Section<'_>]) -> Read {
    let title = shown(section.title);
    let cannot = |line: u32, what: &str| Left { line, what: format!("[{title}] {what}") };
    if section.is_cut {
        // What was not read may be what keeps people out.
        return Err(cannot(section.line, &format!("has more than {MAX_ENTRIES} keys; it is left out")));
    }
    let (command, line) = section.get(START).ok_or_else(|| {
        cannot(section.line, "has no command, so that there is nothing to open; it is left out")
    })?;
    let open = match effect(command) {
        Some(Effect::Opens(ports)) => disjoint(ports),
        Some(Effect::Closes(ports))
            if all.iter().any(|other| opens(other) == Some(disjoint(ports.clone()))) =>
        {
            return Ok(None);
        }
        _ => {
            let what = format!(
                "command: `{}` does not say plainly which ports it opens for %IP%; it is left out: add it by hand with \
                 knockd-rs profile add, or run a command of yours by knockd-rs hook",
                shown(command)
            );
            return Err(cannot(line, &what));
        }
    };
    if let Some((_, line)) = section.get(&["one_time_sequences"]) {
        let what = "one_time_sequences: sequences that are good once are what \"totp\" has, without a list; it is left out: \
                    knockd-rs profile add NAME --open PORT --method totp";
        return Err(cannot(line, what));
    }
    if let Some((flags, line)) =
        section.get(&["tcpflags"]).filter(|(flags, _)| !flags.eq_ignore_ascii_case("syn"))
    {
        let what =
            format!("tcpflags: a knock by TCP is a SYN, and these are `{}`; it is left out", shown(flags));
        return Err(cannot(line, &what));
    }
    let (sequence, line) =
        section.get(&["sequence"]).ok_or_else(|| cannot(section.line, "has no sequence; it is left out"))?;
    let ports = ports(sequence).ok_or_else(|| {
        cannot(line, &format!("sequence: `{}` is none that can be read; it is left out", shown(sequence)))
    })?;
    let name = name_like(section.title, taken)
        .ok_or_else(|| cannot(section.line, "has no name that a profile can have; it is left out"))?;
    let (duration, total, remarks) = times(section, cannot)?;
    let sequence = Some(Sequence { ports, total });
    let client = Client {
        title: format!("[{title}]"),
        name,
        line: section.line,
        open,
        duration,
        max_duration: duration,
        expires: None,
        sequence,
    };
    Ok(Some((client, remarks)))
}

/// How long it opens, how long the sequence may take, and what else the section says.
fn times(section: &Section<'_>, cannot: impl Fn(u32, &str) -> Left) -> Result<(Span, Span, Vec<Left>), Left> {
    let mut remarks = Vec::new();
    // A time that cannot be read must not become a longer one.
    let time = |key: &str, usual: Span| match section.get(&[key]) {
        Some((text, line)) => seconds(text).map(|span| (span, line)).ok_or_else(|| {
            cannot(line, &format!("{key}: `{}` is no number of seconds; it is left out", shown(text)))
        }),
        None => Ok((usual, section.line)),
    };
    let (written, line) = time("seq_timeout", SEQ_TIMEOUT)?;
    let total = written.clamp(Span::from_secs(1), LONGEST_SEQUENCE);
    if total != written {
        let what = format!(
            "seq_timeout: {written} is outside of what a sequence may take here, and becomes {total}"
        );
        remarks.push(cannot(line, &what));
    }
    let (timeout, _) = time("cmd_timeout", CMD_TIMEOUT)?;
    let duration = match section.get(STOP) {
        Some((command, line)) => {
            if !matches!(effect(command), Some(Effect::Closes(_))) {
                remarks.push(cannot(line, "stop_command: is not run; the kernel ends the grant by itself"));
            }
            timeout.max(Span::from_secs(1))
        }
        None => {
            let what = format!(
                "opens until another sequence closes it; here a grant ends by itself, after {UNTIL_CLOSED} unless you \
                 change `duration`"
            );
            remarks.push(cannot(section.line, &what));
            UNTIL_CLOSED
        }
    };
    if let Some((target, line)) = section.get(&["target"]) {
        let what = format!(
            "target: the sequence counts at every address of this host, not at {} alone",
            shown(target)
        );
        remarks.push(cannot(line, &what));
    }
    for (key, _, line) in section.entries.iter().filter(|(key, _, _)| !KNOWN.contains(&key.as_str())) {
        remarks.push(cannot(*line, &format!("{}: there is nothing like it here", shown(key))));
    }
    Ok((duration, total, remarks))
}

/// What a section opens, if that is plain.
fn opens(section: &Section<'_>) -> Option<Vec<PortRange>> {
    match effect(section.get(START)?.0)? {
        Effect::Opens(ports) => Some(disjoint(ports)),
        Effect::Closes(_) => None,
    }
}

/// `7000,8000:udp,9000:tcp`.
fn ports(text: &str) -> Option<Vec<PortRange>> {
    let port = |text: &str| {
        let (port, protocol) = text.trim().split_once(':').unwrap_or((text.trim(), "tcp"));
        let protocol = protocol_of(&protocol.trim().to_ascii_lowercase())?;
        PortRange::single(protocol, port.trim().parse().ok()?).ok()
    };
    let ports: Option<Vec<PortRange>> = text.split(',').take(MAX_ENTRIES + 1).map(port).collect();
    ports.filter(|ports| ports.len() <= MAX_ENTRIES)
}

/// How many keys a section can have, and knocks a sequence.
const MAX_ENTRIES: usize = 64;
/// What holds where a section says nothing, by knockd's manual.
const SEQ_TIMEOUT: Span = Span::from_secs(25);
const CMD_TIMEOUT: Span = Span::from_secs(10);
/// The longest time that a sequence may take here.
const LONGEST_SEQUENCE: Span = Span::from_secs(60);
/// How long a grant lasts that a second sequence would end.
const UNTIL_CLOSED: Span = Span::from_secs(3600);
const START: &[&str] = &["start_command", "command"];
const STOP: &[&str] = &["stop_command"];
const KNOWN: &[&str] = &[
    "sequence",
    "seq_timeout",
    "tcpflags",
    "start_command",
    "command",
    "stop_command",
    "cmd_timeout",
    "one_time_sequences",
    "target",
];
