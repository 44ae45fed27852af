//! Our own table: made, adopted, checked, healed, removed.
//!
//! From Linux 6.9 a table can be owned by a netlink socket and outlive it (`owner`, `persist`): nobody else can
//! flush or change it while the socket is open, and when the daemon dies it stays, without an owner, until the
//! next start adopts it. `nft` cannot change an owned table either, so it is filled while it has no owner.
//! Elsewhere the table is a plain one and watched.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::elem::{Message, Object};
use super::entry::{Entry, Family, Kind, Shape, is_interval_end, parse_guard};
use super::error::FirewallError;
use super::forward::{Leading, map_name};
use super::link::{Link, Refused};
use super::lockout::{self, LockSet};
use super::plan::{Edit, Layout, Live, Maps, Slot, is_lifetime, needs, plan, reconcile, write};
use super::script::{Base, RULESET, load, script};
use super::snapshot::{Header, Snapshot, Watch};
use super::wire::{Attributes, attributes, find, kind};
use super::{Change, Door, Firewall, Guarded, LiveDoor, LiveGuard, LockOut, Uses};
use crate::text::Network;

/// The table's name.
pub(super) const NAME: &str = "knockd-rs";
/// `NFPROTO_INET`.
pub(super) const FAMILY: u8 = 1;

/// Whether the table is to be owned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Owned and persistent where the kernel has that.
    #[default]
    Auto,
    /// A plain table.
    Never,
}

/// How the table is protected against other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The kernel lets nobody else change it while this process lives.
    Owned,
    /// Anybody with CAP_NET_ADMIN can change it; the daemon watches and rebuilds it.
    Watched,
}

/// What the ruleset depends on.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Whether the table is to be owned.
    pub owner: Owner,
    /// Interfaces whose packets need no grant: loopback, as a rule.
    pub trusted_interfaces: Vec<String>,
    /// Source networks whose packets need no grant.
    pub trusted_networks: Vec<Network>,
    /// Networks behind this host whose ports are guarded as its own are.
    pub behind: Vec<Network>,
}

/// The table `inet knockd-rs` of this network namespace. Dropping it leaves the table in force.
pub struct Table {
    link: Link,
    watch: Watch,
    options: TableOptions,
    ownership: Ownership,
    loaded: Option<Snapshot>,
}

impl Table {
    /// Loads the ruleset, with `guards` in force from its first moment, or takes over the table that is there:
    /// rules are replaced in one step; grants stay; guards that are not among `guards` go, unless they expire
    /// by themselves. At no moment is a port open that is guarded before and after.
    ///
    /// # Errors
    /// [`FirewallError`] says what to do; a table that was there before is as it was.
    pub fn start(options: TableOptions, guards: &[Guarded]) -> Result<Self, FirewallError> {
        let (link, watch) = (open(0)?, Watch::open().map_err(opening)?);
        let mut table = Self { link, watch, options, ownership: Ownership::Watched, loaded: None };
        let existed = await_disowned(&mut table.link)?;
        let live = table.guards().or_else(or_none)?;
        let edits = reconcile(&live, guards)?;
        // Written once before anything is touched: a mistake in the options leaves no trace.
        script(Base::Nothing, &table.options, &edits)?;
        let found = table.prepare()?;
        let base = if found { Base::Kept } else { Base::Nothing };
        let text = script(base, &table.options, &edits)?;
        let loaded = load(&text).or_else(|refused| table.replace(refused, guards, &live));
        match loaded.and_then(|()| table.settle()) {
            Ok(()) => Ok(table),
            Err(error) => {
                let error = told_apart(error, &mut table.link);
                if !existed {
                    // What was made here is half a table at most; the reason for that is the error to report.
                    let _ = remove(&mut table.link);
                }
                Err(error)
            }
        }
    }

    /// How the table is protected.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Readable when somebody has changed some table of this network namespace; then ask
    /// [`changed`](Self::changed).
    #[must_use]
    pub fn watch_fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    /// Whether somebody else has touched our table since the last call. Never waits.
    pub fn changed(&mut self) -> bool {
        self.watch.heard(self.link.port())
    }

    /// Whether the table is, object by object, the one that was loaded: same rules, chains, hook, policy and
    /// sets, not switched off, and still owned where it was. Elements are not compared; see
    /// [`guards`](Firewall::guards).
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list it.
    pub fn verify(&mut self) -> Result<bool, FirewallError> {
        let owner = Header::read(&mut self.link).map_err(reading)?.and_then(|header| header.owner);
        let owned = owner == Some(self.link.port());
        let now = Snapshot::read(&mut self.link).map_err(reading)?;
        Ok(now.is_some() && now == self.loaded && owned == (self.ownership == Ownership::Owned))
    }

    /// Loads everything again, whatever is left of the table: ruleset, guards, grants and lock-outs in one transaction.
    /// A lifetime is what remains of it; doors and guards without one left, and doors that never end, which
    /// nobody here has opened, are left out.
    ///
    /// # Errors
    /// [`FirewallError`] says what to do; what was left of the table is as it was, but owned by nobody.
    pub fn rebuild(
        &mut self,
        doors: &[Door],
        guards: &[Guarded],
        lockouts: &[LockOut],
    ) -> Result<(), FirewallError> {
        let edits = everything(doors, guards, lockouts)?;
        // An owned table is closed to nft; a new socket owns nothing.
        self.link = open(0)?;
        self.ownership = Ownership::Watched;
        self.loaded = None;
        await_disowned(&mut self.link)?;
        let found = self.prepare()?;
        let persistent =
            Header::read(&mut self.link).map_err(reading)?.is_some_and(|header| header.is_persistent());
        let base = match (found, persistent) {
            (false, _) => Base::Nothing,
            (true, true) => Base::Refilled,
            (true, false) => Base::Replaced,
        };
        if let Err(error) = load(&script(base, &self.options, &edits)?) {
            if base == Base::Replaced
                || matches!(error, FirewallError::NotPermitted | FirewallError::NftMissing)
            {
                return Err(error);
            }
            load(&script(Base::Replaced, &self.options, &edits)?)?;
        }
        self.settle()
    }

    /// Replaces the trusted interfaces and networks, and those behind; grants and guards stay.
    ///
    /// # Errors
    /// [`FirewallError`] says what to do; the table is as it was, possibly without its owner.
    pub fn retrust(
        &mut self,
        interfaces: Vec<String>,
        networks: Vec<Network>,
        behind: Vec<Network>,
    ) -> Result<(), FirewallError> {
        let options = TableOptions {
            owner: self.options.owner,
            trusted_interfaces: interfaces,
            trusted_networks: networks,
            behind,
        };
        let text = script(Base::Kept, &options, &[])?;
        self.link = open(0)?;
        self.ownership = Ownership::Watched;
        let loaded = load(&text);
        if loaded.is_ok() {
            self.options = options;
        }
        self.settle()?;
        loaded
    }

    /// Deletes the table: nothing is guarded any more, and no trace is left of it.
    ///
    /// # Errors
    /// [`FirewallError::NotPermitted`], or what else the kernel says.
    pub fn remove(mut self) -> Result<(), FirewallError> {
        remove(&mut self.link)
    }

    /// Deletes the table that an earlier daemon left behind, if there is one.
    ///
    /// # Errors
    /// [`FirewallError::OwnedElsewhere`] while a daemon that owns it is running, [`FirewallError::NotPermitted`].
    pub fn purge() -> Result<(), FirewallError> {
        let mut link = open(0)?;
        await_disowned(&mut link)?;
        remove(&mut link)
    }

    /// The guards of the table that an earlier daemon left behind; none when there is no table.
    ///
    /// # Errors
    /// [`FirewallError`] when the kernel does not list them.
    pub fn leftover() -> Result<Vec<LiveGuard>, FirewallError> {
        let mut link = open(0)?;
        let listed = elements(&mut link, &guard_slot()).or_else(or_none)?;
        Ok(listed.iter().filter_map(|element| parse_guard(element)).collect())
    }

    /// Makes sure that there is a table to fill, and says whether nft has to leave out `add table`.
    fn prepare(&mut self) -> Result<bool, FirewallError> {
        if Header::read(&mut self.link).map_err(reading)?.is_some() {
            return Ok(true);
        }
        if self.options.owner == Owner::Never {
            return Ok(false);
        }
        // On a socket of its own, whose end leaves the table without an owner, for nft to fill.
        let mut maker = open(0)?;
        match claim(&mut maker) {
            Ok(()) => Ok(true),
            Err(Refused { error, .. }) if is_unsupported(&error) => Ok(false),
            Err(Refused { error, .. }) => Err(FirewallError::kernel(error, "make the table", TABLE)),
        }
    }

    /// Loading over the table that is there has failed, an upgrade with other sets for instance: makes it
    /// anew, in one transaction, with all that is in force, as a plain one (nft cannot spell the flags). `refused` is reported where that fails, too.
    fn replace(
        &mut self,
        refused: FirewallError,
        guards: &[Guarded],
        live: &[LiveGuard],
    ) -> Result<(), FirewallError> {
        if matches!(refused, FirewallError::NotPermitted | FirewallError::NftMissing) {
            return Err(refused);
        }
        let mut all = guards.to_vec();
        let apart =
            |live: &&LiveGuard| guards.iter().all(|g| g.ports.intersection(&live.guard.ports).is_none());
        let expiring = live.iter().filter(|live| live.guard.lifetime.is_some()).filter(apart);
        all.extend(expiring.map(|live| live.guard.clone()));
        // Another version's table may lack a set; the grants in the others live on all the same.
        let entries = self.entries(&Kind::ALL, or_none)?;
        let doors: Vec<_> = live_doors(&entries).into_iter().map(|live| live.door).collect();
        let lockouts = self.locked(or_none)?;
        let everything = everything(&doors, &all, &lockouts)?;
        load(&script(Base::Replaced, &self.options, &everything)?).map_err(|_| refused)
    }

    /// After loading: takes ownership, and takes down what the table is made of.
    fn settle(&mut self) -> Result<(), FirewallError> {
        let header = Header::read(&mut self.link).map_err(reading)?;
        let persistent = header.is_some_and(|header| header.is_persistent());
        if self.options.owner == Owner::Auto && persistent {
            let failed = |refused: Refused| FirewallError::kernel(refused.error, "adopt the table", TABLE);
            claim(&mut self.link).map_err(failed)?;
        }
        // Before the look: what happens after it is then heard.
        self.watch.forget();
        let owner = Header::read(&mut self.link).map_err(reading)?.and_then(|header| header.owner);
        self.ownership = if owner == Some(self.link.port()) { Ownership::Owned } else { Ownership::Watched };
        // What somebody has had his hands in already is nothing to compare with later.
        let now = Snapshot::read(&mut self.link).map_err(reading)?;
        self.loaded = now.filter(|snapshot| snapshot.is_complete(RULESET));
        self.loaded.is_some().then_some(()).ok_or(FirewallError::Unstable)
    }

    /// All grants; `absent` decides what a missing set means.
    fn entries(&mut self, kinds: &[Kind], absent: Absent) -> Result<Vec<Entry>, FirewallError> {
        let mut entries = Vec::new();
        for (kind, family) in kinds.iter().flat_map(|kind| Family::BOTH.map(|family| (*kind, family))) {
            let slot = slot(kind, family);
            let elements = elements(&mut self.link, &slot).or_else(absent)?;
            entries.extend(elements.iter().filter_map(|e| Entry::parse(e, kind, slot.shape, family)));
        }
        Ok(entries)
    }

    fn leading(&mut self) -> Result<Vec<Leading>, FirewallError> {
        let mut leading = Vec::new();
        for family in Family::BOTH {
            let elements = elements(&mut self.link, &forward_slot(family))?;
            leading.extend(elements.iter().filter_map(|element| Leading::parse(element, family)));
        }
        Ok(leading)
    }

    fn locked(&mut self, absent: Absent) -> Result<Vec<LockOut>, FirewallError> {
        let mut locked = Vec::new();
        for family in Family::BOTH {
            let mut listed = |set| elements(&mut self.link, &lock_slot(set, family)).or_else(absent);
            let (until, after) = (listed(LockSet::Lockout)?, listed(LockSet::Spared)?);
            locked.extend(lockout::read(&until, &after, family));
        }
        Ok(locked)
    }
}

/// The grants among the entries, but those that are used up.
fn live_doors(entries: &[Entry]) -> Vec<LiveDoor> {
    let (admitting, beside): (Vec<_>, Vec<_>) =
        entries.iter().cloned().partition(|entry| entry.kind.admits());
    admitting.iter().filter(|entry| !entry.is_spent()).map(|entry| entry.live_door(&beside)).collect()
}

impl Firewall for Table {
    fn apply(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        let needs = needs(changes, Layout::default());
        let doors = self.entries(&needs.doors, Err)?;
        let guards = if needs.guards { self.guards()? } else { Vec::new() };
        let leading = if needs.leading { self.leading()? } else { Vec::new() };
        let mut live = Live::new(doors, guards.into_iter().map(|live| live.guard).collect(), leading);
        let edits = plan(changes, &mut live, Layout::default())?;
        let written =
            write(&edits, Some(&guard_slot()), Some(&MAPS), |kind, family| Some(slot(kind, family)));
        self.link.batch(&written.messages).map_err(|refused| explain(refused, &written.sets))
    }

    fn doors(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        Ok(live_doors(&self.entries(&Kind::ALL, Err)?))
    }

    fn ending(&mut self) -> Result<Vec<LiveDoor>, FirewallError> {
        Ok(self.entries(&[Kind::Ends], Err)?.iter().map(|entry| entry.live_door(&[])).collect())
    }

    fn lockouts(&mut self) -> Result<Vec<LockOut>, FirewallError> {
        self.locked(Err)
    }

    fn guards(&mut self) -> Result<Vec<LiveGuard>, FirewallError> {
        Ok(elements(&mut self.link, &guard_slot())?
            .iter()
            .filter_map(|element| parse_guard(element))
            .collect())
    }
}

impl Header {
    fn is_persistent(self) -> bool {
        self.flags & Self::PERSIST != 0
    }
}

/// Tells a refused batch by the set that its message was about.
pub(super) fn explain(refused: Refused, sets: &[String]) -> FirewallError {
    let set = refused.message.and_then(|place| sets.get(place)).map_or("the table", String::as_str);
    FirewallError::kernel(refused.error, &format!("change the set {set}"), &format!("the set {set}"))
}

/// The elements of a set, as attributes.
pub(super) fn elements(link: &mut Link, slot: &Slot) -> Result<Vec<Vec<u8>>, FirewallError> {
    let set = format!("the set {}", slot.set);
    let messages = link
        .dump(kind::GETSETELEM, slot.family, &slot.names())
        .map_err(|error| FirewallError::kernel(error, &format!("list {set}"), &set))?;
    let lists = messages.iter().filter_map(|message| find(message, 3));
    let elements = lists.flat_map(attributes).map(|(_, element)| element.to_vec());
    Ok(elements.filter(|element| !is_interval_end(element)).collect())
}

/// The name of one of our sets.
pub(super) fn set_name(kind: Kind, family: Family) -> &'static str {
    match (kind, family) {
        (Kind::Grants, Family::V4) => "grants_v4",
        (Kind::Grants, Family::V6) => "grants_v6",
        (Kind::Once, Family::V4) => "once_v4",
        (Kind::Once, Family::V6) => "once_v6",
        (Kind::Ranges, Family::V4) => "ranges_v4",
        (Kind::Ranges, Family::V6) => "ranges_v6",
        (Kind::Counted, Family::V4) => "counted_v4",
        (Kind::Counted, Family::V6) => "counted_v6",
        (Kind::Wide, Family::V4) => "wide_v4",
        (Kind::Wide, Family::V6) => "wide_v6",
        (Kind::WideCounted, Family::V4) => "wide_counted_v4",
        (Kind::WideCounted, Family::V6) => "wide_counted_v6",
        (Kind::Ends, Family::V4) => "ends_v4",
        (Kind::Ends, Family::V6) => "ends_v6",
        (Kind::Solo, Family::V4) => "solo_v4",
        (Kind::Solo, Family::V6) => "solo_v6",
    }
}

/// Opens a socket; `groups` to listen to.
pub(super) fn open(groups: u32) -> Result<Link, FirewallError> {
    Link::open(groups).map_err(opening)
}

fn slot(kind: Kind, family: Family) -> Slot {
    let set = set_name(kind, family).to_owned();
    Slot { family: FAMILY, table: NAME.to_owned(), set, shape: Shape::Full, interval: kind.is_interval() }
}

const MAPS: Maps = Maps { locks: lock_slot, forwards: forward_slot };

fn forward_slot(family: Family) -> Slot {
    let set = map_name(family).to_owned();
    Slot { family: FAMILY, table: NAME.to_owned(), set, shape: Shape::Full, interval: false }
}

fn lock_slot(set: LockSet, family: Family) -> Slot {
    let set = set.name(family).to_owned();
    Slot { family: FAMILY, table: NAME.to_owned(), set, shape: Shape::Address, interval: false }
}

fn guard_slot() -> Slot {
    let (table, set) = (NAME.to_owned(), "guarded".to_owned());
    Slot { family: FAMILY, table, set, shape: Shape::Full, interval: true }
}

/// The edits that fill empty sets.
fn everything(doors: &[Door], guards: &[Guarded], lockouts: &[LockOut]) -> Result<Vec<Edit>, FirewallError> {
    let guards: Vec<_> =
        guards.iter().filter(|guard| guard.lifetime.is_none_or(is_lifetime)).cloned().collect();
    let mut edits = reconcile(&[], &guards)?;
    // Where several are for one port the last one counts: that for many connections, and of those the longest.
    let mut doors: Vec<&Door> = doors.iter().filter(|door| is_lifetime(door.lifetime)).collect();
    doors.sort_by_key(|door| (door.uses == Uses::Many, door.lifetime));
    let changes: Vec<_> = doors.into_iter().cloned().map(Change::Open).collect();
    // Planned like any other opening, so that doors which overlap do not make the kernel refuse them all.
    edits.extend(plan(&changes, &mut Live::default(), Layout::default())?);
    edits.extend(lockouts.iter().filter(|lock| is_lifetime(lock.until)).cloned().map(Edit::LockOut));
    Ok(edits)
}

/// Waits until nobody owns the table, for a moment: the socket of a process that has just ended can live on in a
/// child of it that is about to call `exec`. Says whether there is a table.
fn await_disowned(link: &mut Link) -> Result<bool, FirewallError> {
    for _ in 0..20 {
        let header = Header::read(link).map_err(reading)?;
        if header.is_none_or(|header| header.owner.is_none()) {
            return Ok(header.is_some());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(FirewallError::OwnedElsewhere)
}

/// The kernel refuses to change another process's table with the same error as to a process without privileges: a
/// daemon that is started in the same moment finds no owner, and meets one a moment later.
fn told_apart(error: FirewallError, link: &mut Link) -> FirewallError {
    let is_owned = Header::read(link).is_ok_and(|header| header.is_some_and(|header| header.owner.is_some()));
    match error {
        FirewallError::NotPermitted if is_owned => FirewallError::OwnedElsewhere,
        other => other,
    }
}

/// Creates or adopts the table for `link`'s socket.
fn claim(link: &mut Link) -> Result<(), Refused> {
    let attributes = Attributes::default().text(1, NAME).u32(2, Header::OWNER | Header::PERSIST);
    let message = Message::new(Object::Table, FAMILY, attributes);
    link.batch(&message.map(|message| (message, nftnl::MsgType::Add)).into_iter().collect::<Vec<_>>())
}

fn remove(link: &mut Link) -> Result<(), FirewallError> {
    let message = Message::new(Object::Table, FAMILY, Attributes::default().text(1, NAME));
    match link.batch(&message.map(|message| (message, nftnl::MsgType::Del)).into_iter().collect::<Vec<_>>()) {
        Ok(()) => Ok(()),
        Err(Refused { error, .. }) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
        Err(Refused { error, .. }) => Err(FirewallError::kernel(error, "delete the table", TABLE)),
    }
}

/// Kernels before 5.12 know neither flag, those before 6.9 know `owner` alone: both refuse what they do not know.
fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::INVAL))
}

type Absent = fn(FirewallError) -> Result<Vec<Vec<u8>>, FirewallError>;

fn or_none<T>(error: FirewallError) -> Result<Vec<T>, FirewallError> {
    if matches!(error, FirewallError::Missing(_)) { Ok(Vec::new()) } else { Err(error) }
}

fn opening(error: io::Error) -> FirewallError {
    FirewallError::kernel(error, "open a netlink socket", "netlink")
}

fn reading(error: io::Error) -> FirewallError {
    FirewallError::kernel(error, "read the table inet knockd-rs", TABLE)
}

const TABLE: &str = "the table inet knockd-rs";
