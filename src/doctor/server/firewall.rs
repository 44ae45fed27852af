//! Our table as the kernel has it, and what other firewalls do to packets that it lets in.

use super::super::finding::{Finding, listed};
use super::network::guarded;
use super::{Chain, Daemon, Facts, Hook, SeenTable, Wanted};
use crate::text::PortRange;

const RESTART: &str =
    "make it anew: systemctl restart knockd-rs; established connections and live grants stay";

pub(super) fn table(facts: &Facts) -> Vec<Finding> {
    let (Some(wanted), Some(table)) = (&facts.wanted, &facts.table) else { return Vec::new() };
    if !wanted.is_table {
        return vec![Finding::ok("firewall.mode = \"sets\": the rules are the administrator's own")];
    }
    let is_running = matches!(facts.daemon, Daemon::Running(_));
    let Some(seen) = &table.seen else {
        return match is_running {
            true => vec![Finding::problem(
                "there is no table inet knockd-rs, though the daemon runs: nothing is guarded",
                RESTART,
            )],
            false => vec![Finding::problem(
                "there is no table inet knockd-rs: nothing is guarded",
                "start the daemon, which makes it: systemctl start knockd-rs",
            )],
        };
    };
    let mut findings = Vec::new();
    if seen.is_dormant {
        findings
            .push(Finding::problem("the table inet knockd-rs is switched off: nothing is guarded", RESTART));
    }
    if let Some(model) = &table.model {
        findings.extend(difference(seen, model));
    }
    let can_own = facts.kernel.as_ref().is_some_and(|kernel| kernel.ruleset == Ok(true));
    if is_running && wanted.is_owned && can_own && !seen.is_owned {
        findings.push(Finding::warning(
            "nobody owns the table inet knockd-rs, so that other programs can change it, though this kernel could forbid that",
            RESTART,
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(match (table.model.is_some(), seen.is_owned) {
            (true, true) => "the table inet knockd-rs is what the daemon makes, and owned by it",
            (true, false) if is_running => {
                "the table inet knockd-rs is what the daemon makes, and watched by it"
            }
            (true, false) => "the table inet knockd-rs is what the daemon makes, and nobody watches it now",
            (false, _) => "there is a table inet knockd-rs",
        }));
    }
    findings
}

/// What was taken out of the table or put into it, compared with one that was just made.
fn difference(seen: &SeenTable, model: &[String]) -> Option<Finding> {
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        let mut others = others.to_vec();
        let is_extra = |line: &&String| match others.iter().position(|other| other == *line) {
            Some(place) => {
                others.swap_remove(place);
                false
            }
            None => true,
        };
        all.iter().filter(is_extra).cloned().collect()
    };
    let (missing, foreign) = (without(model, &seen.rules), without(&seen.rules, model));
    let example = |lines: &[String]| lines.first().cloned().unwrap_or_default();
    let found = match (missing.len(), foreign.len()) {
        (0, 0) if seen.rules == model => return None,
        (0, 0) => "the rules of table inet knockd-rs are in another order than the daemon's".to_owned(),
        (0, more) => format!(
            "the table inet knockd-rs has {} that the daemon does not make: {}",
            lines(more),
            example(&foreign)
        ),
        (less, _) => {
            format!("the table inet knockd-rs lacks {} of the daemon's: {}", lines(less), example(&missing))
        }
    };
    Some(Finding::problem(found, format!("find out who changed it, and {RESTART}")))
}

fn lines(count: usize) -> String {
    if count == 1 { "one line".to_owned() } else { format!("{count} lines") }
}

pub(super) fn guards(facts: &Facts) -> Vec<Finding> {
    let (Some(wanted), Some(table)) = (&facts.wanted, &facts.table) else { return Vec::new() };
    if !wanted.is_table {
        return Vec::new();
    }
    let empty = SeenTable::default();
    let seen = table.seen.as_ref().unwrap_or(&empty);
    let mut findings = missing(facts, wanted, seen);
    for (ports, left) in &seen.guards {
        if let Some(left) = left {
            findings.push(Finding::warning(
                format!(
                    "{ports} opens to everybody in {} s, unless a knock from outside confirms the guard",
                    left.as_secs()
                ),
                "knock from outside by then, or guard it without --confirm",
            ));
        }
    }
    findings.extend(unguarded(facts, wanted));
    if guarded(facts).is_empty() {
        findings.push(Finding::warning(
            "no port is guarded: every port is as open as without knockd-rs",
            "close one so that a mistake undoes itself: knockd-rs guard tcp/22 --confirm 2m",
        ));
    }
    if findings.is_empty() {
        let ports: Vec<String> = guarded(facts).iter().map(ToString::to_string).collect();
        findings.push(Finding::ok(format!("the kernel keeps strangers from {}", listed(&ports))));
    }
    findings
}

/// Ports that the file or a command closes, and the kernel does not.
fn missing(facts: &Facts, wanted: &Wanted, seen: &SeenTable) -> Vec<Finding> {
    let mut meant = wanted.guards.clone();
    if let Daemon::Running(running) = &facts.daemon {
        meant.extend(&running.guards);
    }
    meant.sort_unstable();
    meant.dedup();
    let is_kept = |ports: &PortRange| seen.guards.iter().any(|guard| guard.0.contains(ports));
    let finding = |ports: &PortRange| {
        Finding::problem(
            format!("{ports} should be closed to strangers, and the kernel lets everybody in"),
            match facts.daemon {
                Daemon::Running(_) => {
                    "put the file in force: knockd-rs reload; if that does not help: systemctl restart knockd-rs"
                }
                _ => "start the daemon: systemctl start knockd-rs",
            },
        )
    };
    meant.iter().filter(|ports| !is_kept(ports)).map(finding).collect()
}

/// Ports that profiles open though nobody has closed them.
fn unguarded(facts: &Facts, wanted: &Wanted) -> Option<Finding> {
    let closed = guarded(facts);
    if closed.is_empty() {
        return None;
    }
    let is_open = |ports: &PortRange| {
        let meets = |others: &[PortRange]| others.iter().any(|other| other.intersection(ports).is_some());
        !meets(&closed) && !meets(&wanted.forwards)
    };
    let enabled = wanted.profiles.iter().filter(|profile| profile.is_enabled);
    let mut open: Vec<PortRange> = enabled.flat_map(|profile| profile.open.clone()).filter(is_open).collect();
    open.sort_unstable();
    open.dedup();
    let names: Vec<String> = open.iter().map(ToString::to_string).collect();
    let first = names.first()?;
    Some(Finding::warning(
        format!("profiles open {}, which nothing closes to strangers", listed(&names)),
        format!("guard it, if it is not closed elsewhere: knockd-rs guard {first} --confirm 2m"),
    ))
}

pub(super) fn firewalls(facts: &Facts) -> Vec<Finding> {
    let Some(chains) = &facts.chains else { return Vec::new() };
    let is_gateway =
        facts.wanted.as_ref().is_some_and(|wanted| wanted.is_gateway || !wanted.forwards.is_empty());
    let matters = |chain: &&Chain| chain.hook != Hook::Forward || is_gateway;
    let mut findings: Vec<Finding> = chains.iter().filter(matters).filter_map(judged).collect();
    findings.extend(facts.legacy.iter().map(|table| {
        Finding::warning(
            format!("the old iptables has a table {table}, which nftables does not show"),
            "see `iptables-legacy -S` and `ip6tables-legacy -S`: what they drop stays closed after a knock",
        )
    }));
    if findings.is_empty() {
        findings.push(Finding::ok(match chains.len() {
            0 => "no other firewall is in the way of a grant".to_owned(),
            _ => "other firewalls are there, and none drops by its policy; their rules are not judged"
                .to_owned(),
        }));
    }
    findings
}

/// What a chain of another table may do to a packet that ours lets in. Its rules are not looked at: sets, marks and
/// jumps decide there.
fn judged(chain: &Chain) -> Option<Finding> {
    let Chain { family, table, name, hook, priority, drops, .. } = chain;
    let whose = whose(chain);
    // firewalld rejects by a last rule in place of a policy.
    let rejects = whose == Whose::Firewalld && *hook == Hook::Input;
    if !drops && !rejects {
        return None;
    }
    let hook = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
    };
    let advice = match whose {
        Whose::Firewalld => "have it accept the ports that grants open, which the guard closes to strangers: \
                             firewall-cmd --permanent --add-service=ssh, or --add-port, and firewall-cmd --reload"
            .to_owned(),
        Whose::Ufw => "have it accept the ports that grants open, which the guard closes to strangers: ufw allow 22/tcp"
            .to_owned(),
        Whose::Iptables => format!(
            "accept the ports that grants open in {name}, which the guard closes to strangers: \
             iptables -I {name} -p tcp --dport 22 -j ACCEPT, and the same with ip6tables"
        ),
        Whose::Other => format!(
            "accept the ports that grants open there, which the guard closes to strangers: \
             nft insert rule {family} {table} {name} tcp dport 22 accept"
        ),
    };
    Some(Finding::warning(
        format!(
            "{}table {family} {table} drops what its chain {name} does not accept (hook {hook}, priority {priority}), \
             after a grant too",
            match whose {
                Whose::Firewalld => "firewalld: ",
                Whose::Ufw => "ufw: ",
                Whose::Iptables => "iptables: ",
                Whose::Other => "",
            }
        ),
        advice,
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Firewalld,
    Ufw,
    Iptables,
    Other,
}

/// Whose a base chain is, by the names that each of these programs gives.
fn whose(chain: &Chain) -> Whose {
    let is_iptables = matches!(chain.family.as_str(), "ip" | "ip6")
        && matches!(chain.table.as_str(), "filter" | "mangle" | "raw" | "security")
        && matches!(chain.name.as_str(), "INPUT" | "FORWARD" | "PREROUTING");
    match chain.table.as_str() {
        "firewalld" => Whose::Firewalld,
        _ if is_iptables && chain.is_ufw => Whose::Ufw,
        _ if is_iptables => Whose::Iptables,
        _ => Whose::Other,
    }
}
