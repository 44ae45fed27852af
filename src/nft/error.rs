//! What can go wrong between us and the kernel, in the reader's words.

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::entry::LONGEST;
use crate::text::PortRange;

/// Why the firewall did not do what it was asked to. Nothing has changed where this comes back.
#[derive(Debug)]
#[non_exhaustive]
pub enum FirewallError {
    /// The process lacks CAP_NET_ADMIN (EPERM).
    NotPermitted,
    /// Another process owns our table.
    OwnedElsewhere,
    /// No `nft` program where one is expected.
    NftMissing,
    /// `nft` ran and refused.
    Nft(String),
    /// Our table, or a set in it, is gone (ENOENT).
    Missing(String),
    /// Something else holds what was to be deleted (EBUSY).
    Busy(String),
    /// A set holds as many elements as it can (ENFILE, ENOSPC).
    Full(String),
    /// More changes than one atomic batch can carry.
    TooMany,
    /// The ports to guard share some with a guard in force.
    GuardOverlaps {
        /// What was to be guarded.
        wanted: PortRange,
        /// What is guarded.
        by: PortRange,
    },
    /// The ports are guarded as a part of others.
    GuardedAsPart {
        /// What was to be unguarded.
        wanted: PortRange,
        /// What is guarded.
        by: PortRange,
    },
    /// The ports are not guarded.
    NotGuarded(PortRange),
    /// A lifetime of zero or beyond the kernel's or our limit.
    Lifetime,
    /// Text that cannot name an interface.
    Interface(String),
    /// Guarding is not ours in `sets` mode.
    GuardsAreTheAdmins,
    /// Session flags and numbers of connections are not ours in `sets` mode.
    SessionsAreTheAdmins,
    /// No set is configured for such a grant.
    NoSet {
        /// The key of `[firewall.sets]`.
        key: &'static str,
    },
    /// A set of the administrator's ruleset is of no use for this.
    WrongSet {
        /// The set as configured.
        set: String,
        /// What is wrong with it.
        why: String,
        /// The nft command that would make a right one.
        right: String,
    },
    /// After loading, the table was not what was loaded: somebody else is changing it.
    Unstable,
    /// Any other answer of the kernel.
    Kernel {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl FirewallError {
    /// Sorts an error of the kernel; `doing` completes "could not ...", `object` is the table or set at hand.
    pub(super) fn kernel(error: io::Error, doing: &str, object: &str) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM | Errno::ACCESS) => Self::NotPermitted,
            Some(Errno::NOENT) => Self::Missing(object.to_owned()),
            Some(Errno::BUSY) => Self::Busy(object.to_owned()),
            Some(Errno::NFILE | Errno::NOSPC) => Self::Full(object.to_owned()),
            Some(Errno::MSGSIZE) => Self::TooMany,
            _ => Self::Kernel { doing: doing.to_owned(), error },
        }
    }
}

impl fmt::Display for FirewallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str(
                "the kernel refuses changes of the firewall; the daemon needs CAP_NET_ADMIN in this network namespace",
            ),
            Self::OwnedElsewhere => f.write_str(
                "another process owns the table inet knockd-rs; stop the other knockd-rs daemon of this network namespace",
            ),
            Self::NftMissing => f.write_str(
                "there is no /usr/sbin/nft and no /sbin/nft; install the package nftables",
            ),
            Self::Nft(said) => write!(f, "nft refused the ruleset: {said}"),
            Self::Missing(object) => write!(f, "{object} is gone; it has to be loaded again"),
            Self::Busy(object) => write!(f, "{object} is in use by other rules; remove the rules that refer to it"),
            Self::Full(object) => write!(
                f,
                "the set is full: {object} holds as many elements as it can; wait until grants expire, or revoke some"
            ),
            Self::TooMany => f.write_str("too many changes for one batch; make them in several"),
            Self::GuardOverlaps { wanted, by } if by.contains(wanted) => {
                write!(f, "{wanted} is already guarded by {by}")
            }
            Self::GuardOverlaps { wanted, by } => {
                write!(f, "{wanted} overlaps the guarded {by}; unguard {by} first, or guard the ports that are missing")
            }
            Self::GuardedAsPart { wanted, by } => {
                write!(f, "{wanted} is guarded as a part of {by}; unguard {by} instead")
            }
            Self::NotGuarded(ports) => write!(f, "{ports} is not guarded"),
            Self::Lifetime => write!(f, "a grant lasts from 1 ms to {} days", LONGEST.as_secs() / 86_400),
            Self::Interface(name) => write!(
                f,
                "`{}` is no interface name; write it as `ip link` shows it, without patterns",
                name.escape_debug()
            ),
            Self::GuardsAreTheAdmins => f.write_str(
                "with firewall.mode = \"sets\" the rules are yours: close the ports in your own ruleset",
            ),
            Self::SessionsAreTheAdmins => f.write_str(
                "with firewall.mode = \"sets\" there are no numbers of connections and no session flags; ask for one or for \
                 many connections without flags",
            ),
            Self::NoSet { key } => write!(
                f,
                "[firewall.sets] names no set for this grant; set {key} = \"family table set\""
            ),
            Self::WrongSet { set, why, right } => write!(f, "the set {set} {why}; make it with: {right}"),
            Self::Unstable => f.write_str(
                "the table inet knockd-rs changed while it was being loaded; another program rewrites the firewall",
            ),
            Self::Kernel { doing, error } => write!(f, "could not {doing}: {error}"),
        }
    }
}

impl std::error::Error for FirewallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_kernel_is_told_as_what_to_do() {
        let told = |errno: Errno| {
            FirewallError::kernel(errno.into(), "open tcp/22", "the set grants_v4").to_string()
        };
        assert!(told(Errno::PERM).contains("CAP_NET_ADMIN"));
        assert!(told(Errno::NOENT).starts_with("the set grants_v4 is gone"));
        assert!(told(Errno::BUSY).contains("in use"));
        assert!(told(Errno::NFILE).starts_with("the set is full"));
        assert!(told(Errno::NOSPC).starts_with("the set is full"));
        assert!(told(Errno::INVAL).starts_with("could not open tcp/22: "));
    }

    #[test]
    fn a_guard_in_the_way_is_named() {
        let ports = |text: &str| text.parse::<PortRange>().unwrap();
        let error = FirewallError::GuardOverlaps { wanted: ports("tcp/8050"), by: ports("tcp/8000-8100") };
        assert_eq!(error.to_string(), "tcp/8050 is already guarded by tcp/8000-8100");
    }
}
