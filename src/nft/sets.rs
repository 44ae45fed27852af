//! The second mode: rules are the administrator's, and the daemon fills the sets they refer to.
//!
//! Each set is read back at start: a grant must never end up in a set that ignores its deadline or its port.
//! Guards are none of our business here.

use std::fmt;
use std::str::FromStr;

use super::elem::Message;
use super::entry::{Entry, Family, Kind, Shape};
use super::error::FirewallError;
use super::link::Link;
use super::plan::{Layout, Live, Slot, needs, plan, set_key, write};
use super::table::{elements, explain, open};
use super::wire::{Attributes, find_u32, kind};
use super::{Change, Firewall, LiveDoor, LiveGuard, LockOut, Session, Uses};

/// A set of the administrator's ruleset, written `family table set`: `inet filter knock4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetName {
    family: TableFamily,
    table: String,
    set: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableFamily {
    Inet = 1,
    Ip = 2,
    Ip6 = 10,
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
        };
        write!(f, "{family} {} {}", self.table, self.set)
    }
}

impl FromStr for SetName {
    type Err = SetNameError;

    fn from_str(text: &str) -> Result<Self, SetNameError> {
        let unreadable = || SetNameError(text.to_owned());
        let words: Vec<_> = text.split(' ').collect();
        let [family, table, set] = *words else { return Err(unreadable()) };
        let family = match family {
            "inet" => TableFamily::Inet,
            "ip" => TableFamily::Ip,
            "ip6" => TableFamily::Ip6,
            _ => return Err(unreadable()),
        };
        // What nft's scanner takes for an identifier; names end at 255 bytes (NFT_NAME_MAXLEN).
        let name = |word: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./\\".contains(&byte);
            (1..256).contains(&word.len()) && word.bytes().all(fits)
        };
        if !name(table) || !name(set) {
            return Err(unreadable());
        }
        Ok(Self { family, table: table.to_owned(), set: set.to_owned() })
    }
}

crate::text::serde_as_text!(SetName);

/// The text names no set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetNameError(String);

impl fmt::Display for SetNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.escape_debug();
        write!(
            f,
            "`{text}` names no set; write family, table and set, such as inet filter knock4 (inet, ip, ip6)"
        )
    }
}

impl std::error::Error for SetNameError {}

/// The sets to fill: `[firewall.sets]`. A grant without a set for it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetNames {
    /// Grants until a deadline, IPv4.
    pub timed_v4: Option<SetName>,
    /// Grants until a deadline, IPv6.
    pub timed_v6: Option<SetName>,
    /// Grants for one connection, IPv4.
    pub once_v4: Option<SetName>,
    /// Grants for one connection, IPv6.
    pub once_v6: Option<SetName>,
}

/// The administrator's sets, checked.
pub struct AdminSets {
    link: Link,
    timed: [Option<Slot>; 2],
    once: [Option<Slot>; 2],
}

impl AdminSets {
    /// Checks every set that is named.
    ///
    /// # Errors
    /// [`FirewallError::WrongSet`] with the command that makes a right one; other variants when the kernel
    /// does not answer.
    pub fn start(names: &SetNames) -> Result<Self, FirewallError> {
        let mut link = open(0)?;
        let mut check = |name: &Option<SetName>, uses, family| {
            name.as_ref().map(|name| checked(&mut link, name, uses, family)).transpose()
        };
        let timed = [
            check(&names.timed_v4, Uses::Many, Family::V4)?,
            check(&names.timed_v6, Uses::Many, Family::V6)?,
        ];
        let once =
            [check(&names.once_v4, Uses::Once, Family::V4)?, check(&names.once_v6, Uses::Once, Family::V6)?];
        Ok(Self { link, timed, once })
    }

    fn slot(&self, kind: Kind, family: Family) -> Option<&Slot> {
        let [v4, v6] = match kind {
            Kind::Grants | Kind::Ranges => &self.timed,
            Kind::Once => &self.once,
            _ => return None,
        };
        let slot = if family == Family::V4 { v4 } else { v6 };
        slot.as_ref().filter(|slot| slot.interval == kind.is_interval())
    }

    fn layout(&self) -> Layout {
        let interval = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.interval);
        let [v4, v6] = &self.timed;
        Layout { v4_interval: interval(v4), v6_interval: interval(v6), foreign: true }
    }

    fn entries(&mut self, kinds: &[Kind]) -> Result<Vec<Entry>, FirewallError> {
        let mut entries = Vec::new();
        for (kind, family) in kinds.iter().flat_map(|kind| Family::BOTH.map(|family| (*kind, family))) {
            let Some(slot) = self.slot(kind, family).cloned() else { continue };
            let elements = elements(&mut self.link, &slot)?;
            let parsed = elements.iter().filter_map(|e| Entry::parse(e, kind, slot.shape, family));
            // An element without a deadline is the administrator's own.
            entries.extend(parsed.filter(|entry| entry.timeout.is_some()));
        }
        Ok(entries)
    }

    /// Whether there is a set for this change, and one that says no more than the change does.
    fn admit(&self, change: &Change) -> Result<(), FirewallError> {
        let door = match change {
            Change::Open(door) => door,
            Change::Shut { .. } => return Ok(()),
            Change::Guard(_) | Change::Unguard(_) => return Err(FirewallError::GuardsAreTheAdmins),
            Change::LockOut(_) => return Err(FirewallError::SessionsAreTheAdmins),
            Change::Readmit(_) | Change::Cut { .. } => return Ok(()),
        };
        if door.wide
            || !door.forwards.is_empty()
            || door.session != Session::default()
            || matches!(door.uses, Uses::Few(_))
        {
            return Err(FirewallError::SessionsAreTheAdmins);
        }
        let family = Family::of(door.address);
        let kind = Kind::of(door.uses, false, door.ports);
        let single = if door.uses == Uses::Once { Kind::Once } else { Kind::Grants };
        let interval = (door.uses == Uses::Many).then(|| self.slot(Kind::Ranges, family)).flatten();
        match (self.slot(single, family), interval, kind.is_interval()) {
            (_, Some(_), _) | (Some(_), _, false) => Ok(()),
            (None, None, _) => Err(FirewallError::NoSet { key: set_key(door.uses, door.address) }),
            (Some(slot), None, true) => Err(FirewallError::WrongSet {
                set: name_of(slot),
                why: match door.uses {
                    Uses::Many => format!("has no flag interval and cannot hold the range {}", door.ports),
                    _ => format!(
                        "is for single connections and cannot hold the range {}: name single ports, \
                         or allow many connections with a set for ranges",
                        door.ports
                    ),
                },
                right: command(slot, family, "interval,timeout"),
            }),
        }
    }
}

impl Firewall for AdminSets {
    fn apply(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        changes.iter().try_for_each(|change| self.admit(change))?;
        let layout = self.layout();
        let doors = self.entries(&needs(changes, layout).doors)?;
        let mut live = Live::new(doors, Vec::new(), Vec::new());
        let edits = plan(changes, &mut live, layout)?;
        let written = write(&edits, None, None, |kind, family| self.slot(kind, family).cloned());
        self.link.batch(&written.messages).map_err(|refused| explain(refused, &written.sets))
    }

    fn doors(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        Ok(self.entries(&Kind::ALL)?.iter().map(|entry| entry.live_door(&[])).collect())
    }

    fn ending(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        Ok(Vec::new())
    }

    fn lockouts(&mut self) -> Result<Vec<LockOut>, FirewallError> {
        Ok(Vec::new())
    }

    fn guards(&mut self) -> Result<Vec<LiveGuard>, FirewallError> {
        Ok(Vec::new())
    }
}

/// Reads the set's declaration and says what is wrong with it.
fn checked(link: &mut Link, name: &SetName, uses: Uses, family: Family) -> Result<Slot, FirewallError> {
    let filter = Attributes::default().text(1, &name.table).text(2, &name.set);
    let number = name.family as u8;
    let mut slot = Slot {
        family: number,
        table: name.table.clone(),
        set: name.set.clone(),
        shape: Shape::Full,
        interval: false,
    };
    let flags = if uses == Uses::Once { "dynamic,timeout" } else { "timeout" };
    let right = command(&slot, family, flags);
    let wrong = |why: &str| FirewallError::WrongSet {
        set: name.to_string(),
        why: why.to_owned(),
        right: right.clone(),
    };
    let found = link
        .get(kind::GETSET, number, filter)
        .map_err(|error| {
            FirewallError::kernel(error, &format!("read the set {name}"), &format!("the set {name}"))
        })?
        .ok_or_else(|| wrong("does not exist"))?;
    let flags = find_u32(&found, NFTA_SET_FLAGS).unwrap_or(0);
    slot.interval = flags & NFT_SET_INTERVAL != 0;
    slot.shape = shape(find_u32(&found, NFTA_SET_KEY_TYPE).unwrap_or(0), family)
        .ok_or_else(|| wrong("has keys of another type"))?;
    if flags & NFT_SET_MAP != 0 {
        return Err(wrong("is a map"));
    }
    if flags & NFT_SET_TIMEOUT == 0 {
        return Err(wrong("has no flag timeout, so grants in it would never end"));
    }
    if uses == Uses::Once && (slot.interval || flags & NFT_SET_EVAL == 0) {
        return Err(wrong(
            "has no flag dynamic (or has interval), so no rule can take a used grant out of it",
        ));
    }
    if slot.interval && slot.shape != Shape::Full {
        return Err(wrong("is an interval set whose key lacks inet_proto or inet_service"));
    }
    // Names of legal length always fit; a message that did not would silently be left out.
    let longest = slot.table.len() + slot.set.len() + 512;
    if longest > Message::MAX { Err(wrong("has too long a name")) } else { Ok(slot) }
}

/// The layout of a key by its type number: nft packs one type of 6 bits per field (`TYPE_BITS`), the first in
/// the highest bits; 7 is ipv4_addr, 8 ipv6_addr, 12 inet_proto, 13 inet_service (`include/datatype.h` of nft).
fn shape(key_type: u32, family: Family) -> Option<Shape> {
    let address = if family == Family::V4 { 7 } else { 8 };
    let shapes = [
        (Shape::Address, address),
        (Shape::Port, address << 6 | 13),
        (Shape::Full, address << 12 | 12 << 6 | 13),
    ];
    shapes.into_iter().find(|(_, number)| *number == key_type).map(|(shape, _)| shape)
}

fn command(slot: &Slot, family: Family, flags: &str) -> String {
    let address = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
    format!(
        "nft 'add set {} {{ type {address} . inet_proto . inet_service; flags {flags}; }}'",
        name_of(slot)
    )
}

fn name_of(slot: &Slot) -> String {
    let family = match slot.family {
        1 => "inet",
        2 => "ip",
        _ => "ip6",
    };
    format!("{family} {} {}", slot.table, slot.set)
}

// `linux/netfilter/nf_tables.h`: enum nft_set_attributes, nft_set_flags.
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_named_by_family_table_and_set() {
        let name: SetName = "inet filter knock4".parse().unwrap();
        assert_eq!(name.to_string(), "inet filter knock4");
        for text in ["", "filter knock4", "inet filter", "bridge filter a", "inet filter a b", "inet a; b"] {
            assert_eq!(text.parse::<SetName>(), Err(SetNameError(text.into())), "{text}");
        }
    }
}
