//! The firewall: a static ruleset, and set elements that hold all state and carry their own deadlines.
//!
//! [`Table`] keeps our own table `inet knockd-rs` (`nft/knockd-rs.nft`); [`AdminSets`] fills sets of an
//! administrator's ruleset. Both are a [`Firewall`]: changes go in as one atomic batch, what is in force is
//! read back from the kernel, nothing is remembered here. Every call needs CAP_NET_ADMIN in effect.
//!
//! `Change` → `plan` (pure) → `entry` (pure) → `wire` (pure) → `elem` → `link` → kernel.

mod elem;
mod entry;
mod error;
mod forward;
mod inspect;
mod link;
mod lockout;
mod overlap;
mod plan;
mod script;
mod sets;
mod snapshot;
mod table;
mod wire;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

pub use error::FirewallError;
pub use inspect::{BaseChain, FoundTable, Hook, base_chains, found_table, model};
pub use sets::{AdminSets, SetName, SetNames};
pub use table::{Owner, Ownership, Table, TableOptions};

pub use crate::grant::{Session, Uses};
use crate::text::PortRange;

/// What the daemon asks of the kernel.
pub trait Firewall {
    /// Makes all changes, in order, as one atomic batch: all of them take effect, or none.
    ///
    /// # Errors
    /// [`FirewallError`] says what stood in the way; nothing has changed then.
    fn apply(&mut self, changes: &[Change]) -> Result<(), FirewallError>;

    /// The grants in force, as the kernel has them. Grants that are used up or expired are not among them.
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list them.
    fn doors(&mut self) -> Result<Vec<LiveDoor>, FirewallError>;

    /// Where connections end with a grant, as the kernel has it, used up or not.
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list them.
    fn ending(&mut self) -> Result<Vec<LiveDoor>, FirewallError>;

    /// The guarded ports, as the kernel has them; none where guarding is the administrator's business.
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list them.
    fn guards(&mut self) -> Result<Vec<LiveGuard>, FirewallError>;

    /// The addresses that are or will be locked out, as the kernel has them.
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list them.
    fn lockouts(&mut self) -> Result<Vec<LockOut>, FirewallError>;
}

/// A grant: `address` may reach `ports` for `lifetime` from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Who may come in; of a network, its lowest address.
    pub address: IpAddr,
    /// Whether it is a network: of 24 bits for IPv4, of 64 for IPv6. Its connections are neither counted one at a time
    /// nor cut, and lead to no other host.
    pub wide: bool,
    /// Where to.
    pub ports: PortRange,
    /// How often.
    pub uses: Uses,
    /// What holds for the connections: one at a time, and cut at the end. The other flags mean nothing here.
    pub session: Session,
    /// Which of the ports lead to another host. The kernel's list of live doors does not say.
    pub forwards: Vec<Forward>,
    /// For how long: 1 ms to 366 days, in whole milliseconds.
    pub lifetime: Duration,
    /// For whom: shown by `nft` as the element's comment.
    pub note: Note,
}

/// A port of this host that stands for one of another: destination NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// A single port.
    pub ports: PortRange,
    /// Where it leads, for clients of this address family.
    pub to: SocketAddr,
}

/// What a stranger's packet to a guarded port meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// Nothing.
    Drop,
    /// A TCP reset, or ICMP port unreachable: what a port without a listener answers.
    Reject,
}

/// Ports that are closed to strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Which ports.
    pub ports: PortRange,
    /// What strangers meet there.
    pub closed: Closed,
    /// When the kernel opens them again by itself; `None` is never.
    pub lifetime: Option<Duration>,
}

/// One change of the firewall's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Opens a door, or gives an open one a new deadline, sooner or later. Where ranges of one address overlap
    /// without being the same, each port keeps the later deadline. A range for one connection replaces the
    /// other such ranges of this address that it overlaps, as pieces of one would admit a connection each.
    Open(Door),
    /// Ends every grant of `address` on `ports`; a range for one connection ends as a whole. Established
    /// connections go on.
    Shut {
        /// Whose grants.
        address: IpAddr,
        /// Whether those of the network that begins with this address.
        wide: bool,
        /// On which ports.
        ports: PortRange,
    },
    /// Ends what holds for the connections of `address` on `ports`: those that were to end with their grant are cut, if no
    /// other grant is open for them.
    Cut {
        /// Whose.
        address: IpAddr,
        /// On which ports.
        ports: PortRange,
    },
    /// Guards ports, or changes how or for how long exactly these ports are guarded.
    Guard(Guarded),
    /// Ends a guard; names exactly the ports it was made with.
    Unguard(PortRange),
    /// Refuses an address from later on, whatever is open for it then; replaces an earlier such change.
    LockOut(LockOut),
    /// Takes that back, for an address of which it holds.
    Readmit(IpAddr),
}

/// An address that is refused for a while, with a time of grace before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOut {
    /// Who is refused.
    pub address: IpAddr,
    /// When it begins, from now on; zero is at once.
    pub after: Duration,
    /// When it ends, from now on.
    pub until: Duration,
    /// On whose account.
    pub note: Note,
}

/// A grant in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveDoor {
    /// The grant; its `lifetime` is what remains, [`Duration::MAX`] where somebody else added it without one.
    pub door: Door,
    /// The lifetime it was opened with.
    pub granted: Duration,
    /// New connections' packets it let in. Packets of established connections are not counted.
    pub packets: u64,
    /// The bytes in those packets.
    pub bytes: u64,
}

/// A guard in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveGuard {
    /// The guard; its `lifetime` is what remains.
    pub guard: Guarded,
    /// The lifetime it was made with.
    pub granted: Option<Duration>,
}

/// A short label for a grant: a profile's name, or nothing. It ends up in nft's language, so its alphabet is
/// that of profile names: up to 32 of `a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note(String);

impl Note {
    /// The longest label.
    pub const MAX: usize = 32;

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= Self::MAX
            && text.bytes().all(|byte| word(byte) || b"._-".contains(&byte))
            && text.bytes().next().is_none_or(word);
        if fits { Ok(Self(text.to_owned())) } else { Err(NoteError(text.to_owned())) }
    }
}

/// The text is no label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteError(String);

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.escape_debug();
        write!(f, "`{text}` cannot label a grant; use up to 32 of a-z 0-9 . _ -, a letter or digit first")
    }
}

impl std::error::Error for NoteError {}

/// Reads a netlink datagram as every kind of element that the kernel lists, and says how many there are.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_datagram(datagram: &[u8]) -> usize {
    let elements = |message: &wire::Received<'_>| {
        let (_, element) = (message.errno(), message.body());
        let of_family = |family| {
            let one = [element.to_vec()];
            let leading = usize::from(forward::Leading::parse(element, family).is_some());
            leading + lockout::read(&one, &one, family).len()
        };
        let others: usize = [entry::Family::V4, entry::Family::V6].map(of_family).iter().sum();
        others + entry::read_as_everything(element)
    };
    wire::Received::all(datagram).map(|message| elements(&message)).sum()
}

/// Reads text as `nft` lists our table.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_listing(text: &str) {
    inspect::check(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_nothing_that_means_something_to_nft() {
        for text in ["", "laptop", "a.b_c-1", "0"] {
            assert_eq!(text.parse::<Note>().unwrap().as_str(), text);
        }
        for text in ["-a", "a b", "a\"", "a}", "A", "a;b", "a\nb", &"a".repeat(33)] {
            assert_eq!(text.parse::<Note>(), Err(NoteError(text.into())), "{text}");
        }
    }
}
