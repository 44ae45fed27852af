//! The firewall in either of its modes, and the privileges that its calls need.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use crate::config::{Mode, Sets, Settings};
use crate::nft::{
    AdminSets, Door, Firewall, FirewallError, Guarded, LiveGuard, LockOut, Owner, Ownership, SetName,
    SetNames, Table, TableOptions,
};
use crate::privsep::capabilities::with_ambient;

/// Our own table, or the administrator's sets.
pub(super) enum Shield {
    Table(Box<Table>),
    Sets(Box<AdminSets>),
}

impl Shield {
    /// Puts the table in place, or finds the administrator's sets. With `keep_guards`, guards that the kernel has and
    /// `guards` does not name are kept: the book that should name them cannot be read.
    pub(super) fn open(
        settings: &Settings,
        guards: &[Guarded],
        keep_guards: bool,
    ) -> Result<Self, FirewallError> {
        match &settings.firewall.mode {
            Mode::Sets(sets) => {
                // Left behind by a daemon that kept a table: its guards would stay closed, with no door in them.
                Table::purge()?;
                Ok(Self::Sets(Box::new(AdminSets::start(&names(sets))?)))
            }
            Mode::Table { owner, trusted } => {
                let options = TableOptions {
                    owner: match owner {
                        crate::config::Owner::Auto => Owner::Auto,
                        crate::config::Owner::Never => Owner::Never,
                    },
                    trusted_interfaces: trusted.interfaces.iter().map(ToString::to_string).collect(),
                    trusted_networks: trusted.networks.clone(),
                    behind: settings.guard.behind.clone(),
                };
                let mut guards = guards.to_vec();
                if keep_guards {
                    let is_new = |live: &LiveGuard| {
                        guards.iter().all(|guard| guard.ports.intersection(&live.guard.ports).is_none())
                    };
                    let kept: Vec<Guarded> =
                        Table::leftover()?.into_iter().filter(is_new).map(|live| live.guard).collect();
                    guards.extend(kept);
                }
                Ok(Self::Table(Box::new(with_nft(|| Table::start(options, &guards))?)))
            }
        }
    }

    pub(super) fn firewall(&mut self) -> &mut dyn Firewall {
        match self {
            Self::Table(table) => &mut **table,
            Self::Sets(sets) => &mut **sets,
        }
    }

    /// Whether guards are ours to keep.
    pub(super) fn can_guard(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    pub(super) fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Table(table) => Some(table.watch_fd()),
            Self::Sets(_) => None,
        }
    }

    pub(super) fn has_changed(&mut self) -> bool {
        match self {
            Self::Table(table) => table.changed(),
            Self::Sets(_) => false,
        }
    }

    /// Whether ruleset and guards are what they should be.
    pub(super) fn is_intact(&mut self, wanted: &[Guarded]) -> bool {
        let Self::Table(table) = self else { return true };
        let guarded =
            |live: &[LiveGuard]| wanted.iter().all(|want| live.iter().any(|have| is_same(&have.guard, want)));
        table.verify().unwrap_or(false) && table.guards().is_ok_and(|live| guarded(&live))
    }

    pub(super) fn rebuild(
        &mut self,
        doors: &[Door],
        guards: &[Guarded],
        lockouts: &[LockOut],
    ) -> Result<(), FirewallError> {
        match self {
            Self::Table(table) => with_nft(|| table.rebuild(doors, guards, lockouts)),
            Self::Sets(_) => Ok(()),
        }
    }

    /// Takes over changed settings, as far as a running daemon can.
    pub(super) fn reconfigure(&mut self, settings: &Settings) -> Result<(), FirewallError> {
        match (self, &settings.firewall.mode) {
            (Self::Table(table), Mode::Table { trusted, .. }) => {
                let interfaces = trusted.interfaces.iter().map(ToString::to_string).collect();
                with_nft(|| {
                    table.retrust(interfaces, trusted.networks.clone(), settings.guard.behind.clone())
                })
            }
            (Self::Sets(sets), Mode::Sets(named)) => {
                **sets = AdminSets::start(&names(named))?;
                Ok(())
            }
            // The caller has refused a change of mode.
            _ => Ok(()),
        }
    }

    pub(super) fn remove(self) -> Result<(), FirewallError> {
        match self {
            Self::Table(table) => table.remove(),
            Self::Sets(_) => Ok(()),
        }
    }

    /// How the firewall is kept, for people.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Table(table) => match table.ownership() {
                Ownership::Owned => "table inet knockd-rs, which the kernel lets no other program change",
                Ownership::Watched => {
                    "table inet knockd-rs, watched and made anew when another program changes it"
                }
            },
            Self::Sets(_) => "the administrator's own sets",
        }
    }
}

/// Whether a guard is the one that is wanted, and ends when that one ends: with a timeout that somebody else gave it,
/// the kernel would open the port without a word.
fn is_same(have: &Guarded, want: &Guarded) -> bool {
    const CLOCKS_APART: Duration = Duration::from_secs(1);
    let ends_alike = match (have.lifetime, want.lifetime) {
        (None, None) => true,
        (Some(have), Some(want)) => have.abs_diff(want) <= CLOCKS_APART,
        _ => false,
    };
    have.ports == want.ports && have.closed == want.closed && ends_alike
}

/// Runs what starts `nft`, which needs `CAP_NET_ADMIN` like the monitor itself.
fn with_nft<T>(call: impl FnOnce() -> Result<T, FirewallError>) -> Result<T, FirewallError> {
    let result = with_ambient(CapabilitySet::NET_ADMIN, || Ok::<_, io::Error>(call()));
    result.unwrap_or(Err(FirewallError::NotPermitted))
}

fn names(sets: &Sets) -> SetNames {
    let name = |set: &Option<crate::config::SetName>| {
        set.as_ref().and_then(|set| set.to_string().parse::<SetName>().ok())
    };
    SetNames {
        timed_v4: name(&sets.timed_v4),
        timed_v6: name(&sets.timed_v6),
        once_v4: name(&sets.once_v4),
        once_v6: name(&sets.once_v6),
    }
}
