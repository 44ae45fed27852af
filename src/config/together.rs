//! What only all files together show: profiles that clash with each other, with the settings, or with the server's key.

use std::collections::HashMap;

use super::certificates::CertificateRule;
use super::error::Report;
use super::load::{PROFILES_DIR, SETTINGS_FILE};
use super::settings::{Mode, Settings};
use crate::crypto::{KeyPair, Psk, PublicKey};
use crate::grant::{Session, Uses};
use crate::knock::{ClientId, Method, totp};
use crate::profile::{Plain, Profile, ReadProfile};
use crate::text::ProfileName;

/// Profiles by the names of their files.
type Profiles<'a> = &'a [(String, ReadProfile)];

/// That there is nobody to knock.
pub(super) fn nobody() -> Report {
    let report = Report::new(PROFILES_DIR);
    report.warn(None, "", "there is no profile, so nobody can knock; see: knockd-rs profile add --help");
    report
}

/// What is wrong with each profile in the company of the others.
pub(super) fn profiles(
    settings: Option<&Settings>,
    server: Option<&KeyPair>,
    profiles: Profiles<'_>,
) -> Vec<Report> {
    let clients = profiles.iter().filter(|(_, read)| is_by_time(read));
    let clients = clients.map(|(_, read)| read.profile.public_keys().count()).sum();
    let mut keys = HashMap::new();
    let mut reports = Vec::with_capacity(profiles.len());
    for (file, read) in profiles {
        let report = Report::new(file);
        let ReadProfile { profile, connections_line, .. } = read;
        one_client_each(read, server, &mut keys, &report);
        if let Some(settings) = settings {
            if let Some(what) = missing_set(settings, profile) {
                report.error(*connections_line, "connections", what);
            }
            sequences_of_one(read, settings, clients, &report);
        }
        reports.push(report);
    }
    reports.extend(sequences_of_two(profiles));
    reports
}

/// Keys that are the server's own, or another profile's, or twice in one.
fn one_client_each<'a>(
    read: &'a ReadProfile,
    server: Option<&KeyPair>,
    keys: &mut HashMap<Own, &'a ProfileName>,
    report: &Report,
) {
    let ReadProfile { profile, key_line, previous_line, .. } = read;
    // The likeness of a key costs as much as a handshake, which is much for 100,000 of them.
    let names_nobody = |method: &Method| matches!(method, Method::Syn | Method::Sequence | Method::Totp);
    let is_judged = profile.methods.iter().any(names_nobody);
    let alike = |key, psk| if is_judged { alike(key, psk) } else { None };
    let present = (profile.client(), alike(profile.public_key, &profile.psk), *key_line, "public_key");
    let previous = profile.previous.iter().map(|keys| {
        let client = keys.public_key.into();
        (client, alike(Some(keys.public_key), &keys.psk), *previous_line, "previous")
    });
    for (client, alike, line, key) in std::iter::once(present).chain(previous) {
        if server.is_some_and(|server| ClientId::from(server.public()) == client) {
            report.error(line, key, "is this server's own key; use the client's");
        }
        let same = keys.insert(Own::Key(client), &profile.name);
        let alike = alike.and_then(|alike| keys.insert(alike, &profile.name));
        match (same, alike) {
            (Some(other), _) | (None, Some(other)) if *other == profile.name => {
                report.error(line, key, "is one of this profile's keys again; remove it");
            }
            (Some(other), _) => {
                let what = format!("is the key of the profile `{other}` too; each client needs its own");
                report.error(line, key, what);
            }
            (None, Some(other)) => {
                let what = format!(
                    "is the key of the profile `{other}` in other bytes, and neither has a psk; each client needs its own"
                );
                report.error(line, key, what);
            }
            (None, None) => {}
        }
    }
}

/// What no two clients may have in common.
#[derive(PartialEq, Eq, Hash)]
enum Own {
    /// The bytes of a key: datagrams name their client by them.
    Key(ClientId),
    /// What the secret is made of that SYNs and sequences are recognised by, which name nobody.
    Secret([u8; 32]),
}

/// What two keys have in common that make the same secret with the server's. A psk tells them apart.
fn alike(key: Option<PublicKey>, psk: &Psk) -> Option<Own> {
    let without = *psk == Psk::new([0; 32]);
    key.filter(|_| without)?.likeness().map(Own::Secret)
}

fn is_by_time(read: &ReadProfile) -> bool {
    read.profile.enabled && read.profile.methods.contains(&Method::Totp)
}

/// A sequence that could be guessed, and one that shares a port with another format.
fn sequences_of_one(read: &ReadProfile, settings: &Settings, clients: usize, report: &Report) {
    let (ports, span, port) = (read.profile.totp_ports, settings.sequence.span, settings.capture.port);
    let is_enough = |ports: &u8| totp::guessing_bits(*ports, span, clients) >= totp::LEAST_BITS;
    if is_by_time(read) && !is_enough(&ports) {
        let enough = (ports..=totp::MAX_PORTS).find(is_enough).unwrap_or(totp::MAX_PORTS);
        let knocking = if clients == 1 { "client knocks" } else { "clients knock" };
        let what = format!(
            "{ports} ports on a span of {span} can be guessed where {clients} {knocking} by them; use at least {enough} in \
             all such profiles, or a larger span in [sequence]"
        );
        report.error(read.totp_line, "totp", what);
    }
    let at_knock_port = |plain: &Plain| plain.ports.iter().any(|knock| knock.first() == port);
    if read.profile.plain.as_ref().is_some_and(at_knock_port) {
        let what =
            format!("holds {port}, the knock port, so that one packet could be two knocks; use another port");
        report.error(read.plain_line, "plain.ports", what);
    }
}

/// Fixed sequences that would be knocked together.
fn sequences_of_two(profiles: Profiles<'_>) -> Vec<Report> {
    let plain: Vec<_> =
        profiles.iter().filter_map(|(file, read)| Some((file, read, read.profile.plain.as_ref()?))).collect();
    let mut reports = Vec::new();
    for (file, read, sequence) in &plain {
        let others = plain.iter().filter(|(_, other, _)| other.profile.name != read.profile.name);
        let clash = others.filter_map(|(_, other, theirs)| {
            let name = &other.profile.name;
            if sequence.holds(theirs) {
                Some(format!("has all knocks of the profile `{name}` in its order, so that it knocks for both; change one"))
            } else if sequence.ports.last() == theirs.ports.last() && read.profile.name > other.profile.name {
                Some(format!("ends with the same knock as that of the profile `{name}`, so that one packet would be both; change one"))
            } else {
                None
            }
        });
        let report = Report::new(file);
        clash.take(1).for_each(|what| report.error(read.plain_line, "plain.ports", what));
        reports.push(report);
    }
    reports
}

/// The names of `[[certificates]]` tables and what goes on in the firewall.
pub(super) fn rules(
    settings: Option<&Settings>,
    rules: &[CertificateRule],
    profiles: Profiles<'_>,
) -> Report {
    let report = Report::new(SETTINGS_FILE);
    for CertificateRule { profile, .. } in rules {
        let name = profile.name.as_str();
        let taken = profiles.iter().any(|(_, read)| {
            let rest = read.profile.name.as_str().strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if taken {
            let what = format!("{name} is a profile's name too, or begins one; rename it");
            report.error(None, "certificates", what);
        }
        if let Some(what) = settings.and_then(|settings| missing_set(settings, profile)) {
            report.error(None, "certificates", format!("{name}: connections = {what}"));
        }
    }
    report
}

/// What the administrator's own sets cannot do.
fn missing_set(settings: &Settings, profile: &Profile) -> Option<&'static str> {
    let Mode::Sets(sets) = &settings.firewall.mode else { return None };
    match profile.connections {
        _ if profile.wide => Some(
            "grants for networks need the daemon's own table; leave wide out, or use firewall.mode = \"table\"",
        ),
        _ if profile.session != Session::default() => Some(
            "session flags need the daemon's own table; leave session out, or use firewall.mode = \"table\"",
        ),
        Uses::Few(_) => Some(
            "a number of connections needs the daemon's own table; use \"single\" or \"many\", or firewall.mode = \
             \"table\"",
        ),
        Uses::Once if !sets.has_once() => Some(
            "\"single\" (the default) needs a set for single connections; name once_v4 or once_v6 in \
             [firewall.sets], or use \"many\"",
        ),
        Uses::Many if !sets.has_timed() => Some(
            "\"many\" needs a set for any number of connections; name timed_v4 or timed_v6 in [firewall.sets], or \
             use \"single\"",
        ),
        _ => None,
    }
}
