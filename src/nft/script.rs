//! The ruleset as text, what goes with it into the same transaction, and the `nft` that loads it.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::entry::{Entry, Family, Kind, chain};
use super::error::FirewallError;
use super::forward::{Leading, map_name};
use super::lockout::LockSet;
use super::plan::Edit;
use super::table::{NAME, TableOptions, set_name};
use super::{Guarded, LockOut};
use crate::text::PortRange;

/// The file, as shipped.
pub(super) const RULESET: &str = include_str!("../../nft/knockd-rs.nft");
const ADD_TABLE: &str = "add table inet knockd-rs\n";

/// What is there before the script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// No table.
    Nothing,
    /// Our table; its elements stay. It is not added again: nft 1.0.6 spells no `persist`, and adding a
    /// persistent table without that flag is refused (EOPNOTSUPP).
    Kept,
    /// Our table; its elements are replaced by those of the script.
    Refilled,
    /// A table that is to be made anew, as a plain one.
    Replaced,
}

/// Everything for `nft -f -`, one transaction.
pub(super) fn script(base: Base, options: &TableOptions, edits: &[Edit]) -> Result<String, FirewallError> {
    let mut text = String::new();
    match base {
        Base::Nothing => text.push_str(RULESET),
        Base::Kept | Base::Refilled => text.push_str(&RULESET.replacen(ADD_TABLE, "", 1)),
        // `delete` fails where there is nothing; after `add` there is something.
        Base::Replaced => {
            let _ = write!(text, "{ADD_TABLE}delete table inet {NAME}\n{RULESET}");
        }
    }
    if base == Base::Refilled {
        let _ = writeln!(text, "flush map inet {NAME} guarded");
        for (kind, family) in Kind::ALL.into_iter().flat_map(|kind| Family::BOTH.map(|family| (kind, family)))
        {
            let _ = writeln!(text, "flush set inet {NAME} {}", set_name(kind, family));
        }
        for family in Family::BOTH {
            let _ = writeln!(text, "flush map inet {NAME} {}", map_name(family));
        }
        for (set, family) in
            LockSet::BOTH.into_iter().flat_map(|set| Family::BOTH.map(|family| (set, family)))
        {
            let _ = writeln!(text, "flush set inet {NAME} {}", set.name(family));
        }
    }
    trusted(&mut text, options)?;
    edits.iter().for_each(|edit| line(&mut text, edit));
    Ok(text)
}

fn trusted(text: &mut String, options: &TableOptions) -> Result<(), FirewallError> {
    for set in ["trusted_interfaces", "trusted_v4", "trusted_v6", "behind_v4", "behind_v6"] {
        let _ = writeln!(text, "flush set inet {NAME} {set}");
    }
    for name in &options.trusted_interfaces {
        if !is_interface(name) {
            return Err(FirewallError::Interface(name.clone()));
        }
        let _ = writeln!(text, "add element inet {NAME} trusted_interfaces {{ \"{name}\" }}");
    }
    networks_of(text, "trusted", &options.trusted_networks);
    networks_of(text, "behind", &options.behind);
    Ok(())
}

/// Prefixes nest or are disjoint; an interval set takes neither nested nor repeated ones.
fn networks_of(text: &mut String, name: &str, networks: &[crate::text::Network]) {
    let inside = |a: &crate::text::Network, b: &crate::text::Network| {
        b.prefix() <= a.prefix() && b.contains(a.address())
    };
    for (place, network) in networks.iter().enumerate() {
        let covered = networks.iter().enumerate().any(|(other, wide)| {
            other != place && inside(network, wide) && (wide != network || other < place)
        });
        if !covered {
            let family = if network.address().is_ipv4() { "v4" } else { "v6" };
            let _ = writeln!(text, "add element inet {NAME} {name}_{family} {{ {network} }}");
        }
    }
}

/// Linux takes names of 1 to 15 bytes without `/`, `:` and white space (`dev_valid_name`); of those, the ones
/// that mean nothing to nft.
fn is_interface(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+=,".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(fits) && name != "." && name != ".."
}

fn line(text: &mut String, edit: &Edit) {
    match edit {
        Edit::Add(entry) => element(text, "add", entry),
        Edit::Remove(entry) => {
            element(text, "add", entry);
            element(text, "delete", entry);
        }
        Edit::Guard(guard) => guard_line(text, "add", guard),
        Edit::Unguard(guard) => {
            guard_line(text, "add", guard);
            guard_line(text, "delete", guard);
        }
        Edit::LockOut(lock) => {
            for set in LockSet::BOTH {
                if let Some(lifetime) = set.lifetime(lock) {
                    lock_line(text, set, lock, lifetime);
                }
            }
        }
        Edit::Lead(leading) => lead_line(text, leading),
        // Only sets that were just made or flushed are filled this way: there is nothing to take back.
        Edit::Unlead(_) | Edit::Readmit(_) => {}
    }
}

fn element(text: &mut String, verb: &str, entry: &Entry) {
    let set = set_name(entry.kind, Family::of(entry.address));
    let _ = write!(text, "{verb} element inet {NAME} {set} {{ {} . {}", entry.address, ports(entry.ports));
    if entry.kind.counts() {
        let count = entry.uses.count().unwrap_or(1);
        let _ = write!(text, " limit rate 1/week burst {count} packets counter packets 0 bytes 0");
    }
    if let Some(timeout) = entry.timeout {
        let left = entry.left.unwrap_or(timeout).min(timeout).as_millis().max(1);
        let _ = write!(text, " timeout {}ms expires {left}ms", timeout.as_millis());
    }
    if !entry.note.as_str().is_empty() {
        let _ = write!(text, " comment \"{}\"", entry.note);
    }
    text.push_str(" }\n");
}

fn lead_line(text: &mut String, leading: &Leading) {
    let Leading { address, forward, left, note } = leading;
    let name = map_name(Family::of(*address));
    let timeout = left.as_millis().max(1);
    let _ = write!(
        text,
        "add element inet {NAME} {name} {{ {address} . {} timeout {timeout}ms",
        ports(forward.ports)
    );
    if !note.as_str().is_empty() {
        let _ = write!(text, " comment \"{note}\"");
    }
    let _ = writeln!(text, " : {} . {} }}", forward.to.ip(), forward.to.port());
}

fn lock_line(text: &mut String, set: LockSet, lock: &LockOut, lifetime: Duration) {
    let name = set.name(Family::of(lock.address));
    let _ =
        write!(text, "add element inet {NAME} {name} {{ {} timeout {}ms", lock.address, lifetime.as_millis());
    if !lock.note.as_str().is_empty() {
        let _ = write!(text, " comment \"{}\"", lock.note);
    }
    text.push_str(" }\n");
}

fn guard_line(text: &mut String, verb: &str, guard: &Guarded) {
    let _ = write!(text, "{verb} element inet {NAME} guarded {{ {}", ports(guard.ports));
    if let Some(lifetime) = guard.lifetime {
        let _ = write!(text, " timeout {}ms", lifetime.as_millis().max(1));
    }
    let _ = writeln!(text, " : goto {} }}", chain(guard.closed));
}

fn ports(ports: PortRange) -> String {
    let (protocol, first, last) = (ports.protocol(), ports.first(), ports.last());
    if ports.is_single() { format!("{protocol} . {first}") } else { format!("{protocol} . {first}-{last}") }
}

/// Runs `nft -f -` in this thread's network namespace and waits for it.
pub(super) fn load(script: &str) -> Result<(), FirewallError> {
    let failed = |error: io::Error| FirewallError::Kernel { doing: "run nft".to_owned(), error };
    let mut child = nft(&["-f", "-"], Stdio::null)?;
    let input = child.stdin.take();
    let said = thread::scope(|scope| {
        // In a thread of its own, lest nft block on a full pipe of messages while we block on its input.
        scope.spawn(|| {
            // Where nft gives up early, what it says is worth more than our broken pipe.
            let _ = input.map(|mut input| input.write_all(script.as_bytes()));
        });
        let mut said = String::new();
        let read = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        read.transpose().map(|_| said)
    });
    let status = child.wait().map_err(failed)?;
    let said = said.map_err(failed)?;
    match (status.success(), said) {
        (true, _) => Ok(()),
        (false, said) if said.contains("Operation not permitted") => Err(FirewallError::NotPermitted),
        (false, said) if said.trim().is_empty() => Err(FirewallError::Nft(status.to_string())),
        (false, said) => {
            Err(FirewallError::Nft(said.lines().take(3).map(str::trim).collect::<Vec<_>>().join(" ")))
        }
    }
}

/// Starts the `nft` of the system in this thread's network namespace, with pipes to talk to it by.
pub(super) fn nft(arguments: &[&str], output: fn() -> Stdio) -> Result<Child, FirewallError> {
    for program in ["/usr/sbin/nft", "/sbin/nft"] {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::piped()).stdout(output()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(FirewallError::Kernel { doing: format!("run {program}"), error }),
        }
    }
    Err(FirewallError::NftMissing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(interfaces: &[&str], networks: &[&str]) -> TableOptions {
        TableOptions {
            trusted_interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            trusted_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            ..TableOptions::default()
        }
    }

    #[test]
    fn the_table_is_added_by_exactly_one_line_of_the_file() {
        assert_eq!(RULESET.matches(ADD_TABLE).count(), 1);
        assert!(!script(Base::Kept, &options(&[], &[]), &[]).unwrap().contains(ADD_TABLE));
    }

    #[test]
    fn trusted_networks_inside_others_are_left_out() {
        let options = options(&["lo"], &["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "2001:db8::/32", "::/0"]);
        let text = script(Base::Nothing, &options, &[]).unwrap();
        let added: Vec<_> = text.lines().filter(|line| line.starts_with("add element")).collect();
        assert_eq!(
            added,
            [
                "add element inet knockd-rs trusted_interfaces { \"lo\" }",
                "add element inet knockd-rs trusted_v4 { 10.0.0.0/8 }",
                "add element inet knockd-rs trusted_v6 { ::/0 }",
            ]
        );
    }

    #[test]
    fn an_interface_name_that_would_be_nft_code_is_refused() {
        for name in ["", "eth*", "a b", "a\" }; flush ruleset", "eth0\n", "abcdefghijklmnop"] {
            let result = script(Base::Nothing, &options(&[name], &[]), &[]);
            assert!(matches!(result, Err(FirewallError::Interface(_))), "{name:?}");
        }
    }
}
