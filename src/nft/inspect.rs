//! The firewall as somebody else finds it: our table, one that was just made to compare with, and others' chains.
//! Nothing here changes the firewall of a namespace that anybody uses.

use std::io;
use std::process::Stdio;

use super::error::FirewallError;
use super::link::Link;
use super::script::nft;
use super::snapshot::Header;
use super::table::{FAMILY, NAME, open};
use super::wire::{Attributes, find, find_text, find_u32, kind};
use super::{LiveGuard, Ownership, Table, TableOptions};

/// Our table, as the kernel has it.
#[derive(Clone, Debug)]
pub struct FoundTable {
    /// Whether a process owns it.
    pub is_owned: bool,
    /// Whether it is switched off.
    pub is_dormant: bool,
    /// What it is made of but for elements, line by line: `chain guard: ct state established accept`.
    pub rules: Vec<String>,
    /// The guards in it.
    pub guards: Vec<LiveGuard>,
}

/// Looks for our table.
///
/// # Errors
/// [`FirewallError`] when the kernel does not show it, or `nft` does not list it.
pub fn found_table() -> Result<Option<FoundTable>, FirewallError> {
    let Some(header) = Header::read(&mut open(0)?).map_err(reading)? else { return Ok(None) };
    Ok(Some(FoundTable {
        is_owned: header.owner.is_some(),
        is_dormant: header.flags & Header::DORMANT != 0,
        rules: listing()?,
        guards: Table::leftover()?,
    }))
}

/// Makes our table anew, and says how the kernel protects it and what it is made of. For a network namespace that
/// nobody uses: the table is left behind there.
///
/// # Errors
/// [`FirewallError`], as the daemon would meet it.
pub fn model() -> Result<(Ownership, Vec<String>), FirewallError> {
    let table = Table::start(TableOptions::default(), &[])?;
    Ok((table.ownership(), listing()?))
}

/// Where a base chain hooks in, as far as it can be in a grant's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// To others.
    Forward,
}

/// A base chain of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The family of its table.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it hooks in.
    pub hook: Hook,
    /// Its priority.
    pub priority: i32,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
    /// Whether chains stand beside it in its table that have names as ufw gives them.
    pub is_ufw: bool,
}

/// The base chains of others that see packets after our guard, by family and table.
///
/// # Errors
/// [`FirewallError`] when the kernel does not list them.
pub fn base_chains() -> Result<Vec<BaseChain>, FirewallError> {
    // NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6.
    const FAMILIES: [(u8, &str); 3] = [(FAMILY, "inet"), (2, "ip"), (10, "ip6")];
    let mut link = open(0)?;
    let mut found = Vec::new();
    for (number, family) in FAMILIES {
        found.extend(of_family(&mut link, number, family).map_err(reading)?);
    }
    Ok(found)
}

fn of_family(link: &mut Link, number: u8, family: &'static str) -> io::Result<Vec<BaseChain>> {
    /// `NF_IP_PRI_MANGLE`, where our guard stands.
    const OURS: i32 = -150;
    let chains = link.dump(kind::GETCHAIN, number, &Attributes::default())?;
    let name = |chain: &[u8], attribute| find_text(chain, attribute).unwrap_or_default().to_owned();
    let with_ufw: Vec<String> =
        chains.iter().filter(|chain| is_of_ufw(&name(chain, 3))).map(|chain| name(chain, 1)).collect();
    let read = |chain: &Vec<u8>| {
        let (table, hook) = (name(chain, 1), find(chain, 4)?);
        // Priorities are signed, and go over the wire as the same bits.
        let priority = i32::from_ne_bytes(find_u32(hook, 2)?.to_ne_bytes());
        let hook = match find_u32(hook, 1)? {
            0 if priority > OURS => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            _ => return None,
        };
        let is_ours = number == FAMILY && table == NAME;
        let is_ufw = with_ufw.contains(&table);
        // NF_DROP.
        let drops = find_u32(chain, 5) == Some(0);
        (!is_ours).then(|| BaseChain { family, name: name(chain, 3), table, hook, priority, drops, is_ufw })
    };
    Ok(chains.iter().filter_map(read).collect())
}

fn is_of_ufw(chain: &str) -> bool {
    chain.starts_with("ufw-") || chain.starts_with("ufw6-")
}

/// Our table as `nft` lists it, without elements and counted numbers.
fn listing() -> Result<Vec<String>, FirewallError> {
    let failed = |error: io::Error| FirewallError::Kernel { doing: "run nft".to_owned(), error };
    let child = nft(&["-s", "-t", "list", "table", "inet", NAME], Stdio::piped)?;
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(taken_apart(&text)),
        false => Err(FirewallError::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The lines of a listing, each after the block that it stands in. What depends on who owns the table is left out, and
/// comments, in which newer versions count elements.
fn taken_apart(text: &str) -> Vec<String> {
    let mut block = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let depth = line.chars().take_while(|character| *character == '\t').count();
        let line = line.split(" #").next().unwrap_or_default().split("\t#").next().unwrap_or_default().trim();
        match (depth, line.strip_suffix(" {")) {
            (0, _) | (_, None) if depth < 2 => {}
            (1, Some(head)) => head.clone_into(&mut block),
            (_, _) if line.is_empty() || line == "}" => {}
            _ => lines.push(format!("{block}: {line}")),
        }
    }
    lines
}

/// For the fuzzer: nothing that is not in the listing.
#[cfg(feature = "fuzzing")]
pub(super) fn check(text: &str) {
    let lines = taken_apart(text);
    assert!(lines.len() <= text.lines().count());
    assert!(lines.iter().flat_map(|line| line.split(": ")).all(|part| text.contains(part)), "{lines:?}");
}

fn reading(error: io::Error) -> FirewallError {
    FirewallError::kernel(error, "list the firewall's chains", "the table inet knockd-rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_taken_apart_without_owner_comments_and_braces() {
        let text = "table inet knockd-rs { # progname knockd-rs\n\tflags owner,persist\n\n\tset a {\n\t\ttype ipv4_addr\n\
                    \t\tsize 65536\t# count 3\n\t}\n\n\tchain guard {\n\t\ttype filter hook prerouting\n\
                    \t\tct state { new } drop\n\t}\n}\n";
        assert_eq!(
            taken_apart(text),
            [
                "set a: type ipv4_addr",
                "set a: size 65536",
                "chain guard: type filter hook prerouting",
                "chain guard: ct state { new } drop",
            ]
        );
    }

    #[test]
    fn chains_of_ufw_are_known_by_their_names() {
        assert!(is_of_ufw("ufw-user-input") && is_of_ufw("ufw6-before-input"));
        assert!(!is_of_ufw("INPUT") && !is_of_ufw("ufwx"));
    }
}
