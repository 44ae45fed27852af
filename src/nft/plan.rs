//! From changes to edits of sets, and from edits to messages. Pure: what the sets hold now is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use nftnl::MsgType;

use super::elem::{Message, Object};
use super::entry::{Entry, Family, Kind, LONGEST, Shape, guard_attributes};
use super::error::FirewallError;
use super::forward::Leading;
use super::lockout::{self, LockSet};
use super::overlap::{Splice, Stretch, without};
use super::wire::Attributes;
use super::{Change, Door, Guarded, LiveGuard, LockOut, Note, Session, Uses};
use crate::text::PortRange;

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Adds an element that is not there.
    Add(Entry),
    /// Makes sure that there is no such element.
    Remove(Entry),
    /// Guards ports that are not guarded.
    Guard(Guarded),
    /// Makes sure that exactly these ports are no element of `guarded`.
    Unguard(Guarded),
    /// Leads a port to another host that led nowhere.
    Lead(Leading),
    /// Makes sure that it does not.
    Unlead(Leading),
    /// Locks an address out that was not locked out.
    LockOut(LockOut),
    /// Makes sure that an address is not.
    Readmit(LockOut),
}

/// What the sets hold, as far as a plan has to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// By address: those of one address have nothing to do with those of another.
    doors: HashMap<IpAddr, Vec<Entry>>,
    guards: Vec<Guarded>,
    leading: Vec<Leading>,
}

impl Live {
    pub(super) fn new(entries: Vec<Entry>, guards: Vec<Guarded>, leading: Vec<Leading>) -> Self {
        let mut doors: HashMap<IpAddr, Vec<Entry>> = HashMap::new();
        for entry in entries {
            doors.entry(entry.address).or_default().push(entry);
        }
        Self { doors, guards, leading }
    }
}

/// Which parts of [`Live`] a plan for these changes reads.
pub(super) struct Needs {
    pub(super) doors: Vec<Kind>,
    pub(super) guards: bool,
    pub(super) leading: bool,
}

/// How the sets differ from our own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// Single IPv4 ports, too, go to an interval set.
    pub(super) v4_interval: bool,
    /// The same for IPv6.
    pub(super) v6_interval: bool,
    /// A key may say less than the grant, so that only a look tells what an element is for.
    pub(super) foreign: bool,
}

impl Layout {
    fn kind(self, door: &Door) -> Kind {
        match Kind::of(door.uses, door.wide, door.ports) {
            Kind::Grants if self.is_interval(door.address) => Kind::Ranges,
            kind => kind,
        }
    }

    fn is_interval(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4_interval } else { self.v6_interval }
    }
}

/// Says what has to be known first. Opening a single port, the common case, needs no look at the sets, and ending it
/// none at those where most grants are.
pub(super) fn needs(changes: &[Change], layout: Layout) -> Needs {
    let of_change = |change: &Change| -> Vec<Kind> {
        match change {
            Change::Open(door) => of_door(door, layout),
            Change::Shut { wide: true, .. } => vec![Kind::Wide, Kind::WideCounted],
            Change::Shut { ports, .. } if ports.is_single() && !layout.foreign => {
                vec![Kind::Ranges, Kind::Counted, Kind::Ends, Kind::Solo]
            }
            Change::Shut { .. } => Kind::ALL.to_vec(),
            Change::Cut { .. } => vec![Kind::Ends, Kind::Solo],
            _ => Vec::new(),
        }
    };
    let mut doors: Vec<Kind> = changes.iter().flat_map(of_change).collect();
    doors.sort_unstable();
    doors.dedup();
    let guards = |change: &Change| matches!(change, Change::Guard(_) | Change::Unguard(_));
    let leading = |change: &Change| match change {
        Change::Open(door) => !door.forwards.is_empty(),
        Change::Shut { .. } => true,
        _ => false,
    };
    Needs { doors, guards: changes.iter().any(guards), leading: changes.iter().any(leading) }
}

fn of_door(door: &Door, layout: Layout) -> Vec<Kind> {
    let interval = layout.kind(door).is_interval() || layout.is_interval(door.address);
    let (counted, timed) = layout.kind(door).pair();
    let main = if interval { vec![timed, counted] } else { Vec::new() };
    let beside = [(door.session.ends, Kind::Ends), (door.session.alone, Kind::Solo)];
    main.into_iter().chain(beside.into_iter().filter(|(is_so, _)| *is_so).map(|(_, kind)| kind)).collect()
}

/// Works the changes off in order; `live` is brought along, so that later ones see what earlier ones did.
pub(super) fn plan(changes: &[Change], live: &mut Live, layout: Layout) -> Result<Vec<Edit>, FirewallError> {
    let mut edits = Vec::new();
    for change in changes {
        match change {
            Change::Open(door) => {
                if !is_lifetime(door.lifetime) {
                    return Err(FirewallError::Lifetime);
                }
                let entry = Entry { kind: layout.kind(door), ..Entry::of(door) };
                let here = live.doors.entry(door.address).or_default();
                for (_, kind) in [(door.session.ends, Kind::Ends), (door.session.alone, Kind::Solo)]
                    .iter()
                    .filter(|(is_so, _)| *is_so)
                {
                    widen(entry.beside(*kind), here, &mut edits);
                }
                open(entry, here, &mut edits);
                Leading::of(door).for_each(|new| lead(new, &mut live.leading, &mut edits));
            }
            Change::Shut { address, wide, ports } => {
                let here = live.doors.entry(*address).or_default();
                if *wide {
                    shut_wide(*address, *ports, here, &mut edits);
                    continue;
                }
                shut(*address, *ports, layout, here, &mut edits);
                let hit = |one: &Leading| {
                    one.address == *address && one.forward.ports.intersection(ports).is_some()
                };
                let (gone, kept) = std::mem::take(&mut live.leading).into_iter().partition(hit);
                live.leading = kept;
                let gone: Vec<Leading> = gone;
                edits.extend(gone.into_iter().map(Edit::Unlead));
            }
            Change::Cut { address, ports } => {
                let here = live.doors.entry(*address).or_default();
                for kind in [Kind::Ends, Kind::Solo] {
                    splice(Splice::cutting(&stretches(kind, here, *address), *ports), here, &mut edits);
                }
            }
            Change::LockOut(lock) => {
                if !is_lifetime(lock.until) {
                    return Err(FirewallError::Lifetime);
                }
                edits.extend([Edit::Readmit(lock.clone()), Edit::LockOut(lock.clone())]);
            }
            Change::Readmit(address) => edits.push(Edit::Readmit(LockOut {
                address: *address,
                after: Duration::from_secs(1),
                until: Duration::from_secs(1),
                note: Note::default(),
            })),
            Change::Guard(guard) => add_guard(guard, &mut live.guards, &mut edits)?,
            Change::Unguard(ports) => remove_guard(*ports, &mut live.guards, &mut edits)?,
        }
    }
    Ok(edits)
}

fn open(entry: Entry, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    let same = |other: &Entry| other.address == entry.address;
    match entry.kind {
        Kind::Grants | Kind::Once => {
            let same = |e: &&Entry| e.kind == Kind::Ranges && same(e) && e.ports == entry.ports;
            let same: Vec<_> = live.iter().filter(same).cloned().collect();
            same.into_iter().for_each(|old| remove(old, live, edits));
            for kind in [Kind::Grants, Kind::Once] {
                remove(Entry { kind, ..entry.clone() }, live, edits);
            }
        }
        Kind::Ranges | Kind::Wide => {
            let (counted, _) = entry.kind.pair();
            if entry.kind == Kind::Ranges && entry.ports.is_single() {
                remove(Entry { kind: Kind::Once, ..entry.clone() }, live, edits);
            }
            let covered = |e: &&Entry| e.kind == counted && same(e) && entry.ports.contains(&e.ports);
            let covered: Vec<_> = live.iter().filter(covered).cloned().collect();
            covered.into_iter().for_each(|old| remove(old, live, edits));
            return widen(entry, live, edits);
        }
        Kind::Counted | Kind::WideCounted => {
            let (counted, timed) = entry.kind.pair();
            if entry.kind == Kind::Counted && entry.ports.is_single() {
                for kind in [Kind::Grants, Kind::Once] {
                    remove(Entry { kind, ..entry.clone() }, live, edits);
                }
            }
            // Only the same ports are replaced: of a wider range somebody believes that it is open.
            let same_ports = |e: &&Entry| e.kind == timed && same(e) && e.ports == entry.ports;
            let replaced: Vec<_> = live.iter().filter(same_ports).cloned().collect();
            replaced.into_iter().for_each(|old| remove(old, live, edits));
            let overlaps =
                |e: &&Entry| e.kind == counted && same(e) && e.ports.intersection(&entry.ports).is_some();
            let overlapping: Vec<_> = live.iter().filter(overlaps).cloned().collect();
            overlapping.into_iter().for_each(|old| remove(old, live, edits));
        }
        Kind::Ends | Kind::Solo => return widen(entry, live, edits),
    }
    add(entry, live, edits);
}

/// Leads a port to another host, for as long as the longest of the doors that do.
fn lead(mut new: Leading, live: &mut Vec<Leading>, edits: &mut Vec<Edit>) {
    let same = |one: &Leading| one.address == new.address && one.forward.ports == new.forward.ports;
    if let Some(place) = live.iter().position(same) {
        let old = live.swap_remove(place);
        new.left = new.left.max(old.left);
        edits.push(Edit::Unlead(old));
    }
    live.push(new.clone());
    edits.push(Edit::Lead(new));
}

/// Adds ports to an interval set, where they may overlap others: each port keeps the later deadline.
fn widen(entry: Entry, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    let new = Stretch { ports: entry.ports, left: left(&entry), origin: entry.clone() };
    splice(Splice::granting(&stretches(entry.kind, live, entry.address), new), live, edits);
}

fn shut(address: IpAddr, ports: PortRange, layout: Layout, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    for kind in [Kind::Ranges, Kind::Ends, Kind::Solo] {
        splice(Splice::cutting(&stretches(kind, live, address), ports), live, edits);
    }
    // What is left of a range for a number of connections would be two such ranges: it goes as a whole.
    let whole = |kind| matches!(kind, Kind::Grants | Kind::Once | Kind::Counted);
    let hit = |e: &&Entry| whole(e.kind) && e.address == address && e.ports.intersection(&ports).is_some();
    let mut hit: Vec<_> = live.iter().filter(hit).cloned().collect();
    if ports.is_single() && !layout.foreign {
        hit.retain(|entry| entry.kind == Kind::Counted);
        let lifetime = Duration::from_secs(1);
        let (uses, session, note) = (Uses::Many, Session::default(), Note::default());
        let forwards = Vec::new();
        let any = Entry::of(&Door { address, wide: false, ports, uses, session, forwards, lifetime, note });
        hit.extend([Kind::Grants, Kind::Once].map(|kind| Entry { kind, ..any.clone() }));
    }
    hit.into_iter().for_each(|old| remove(old, live, edits));
}

/// The same for the grants of a network.
fn shut_wide(address: IpAddr, ports: PortRange, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    splice(Splice::cutting(&stretches(Kind::Wide, live, address), ports), live, edits);
    let hit = |e: &&Entry| e.kind == Kind::WideCounted && e.ports.intersection(&ports).is_some();
    let hit: Vec<_> = live.iter().filter(hit).cloned().collect();
    hit.into_iter().for_each(|old| remove(old, live, edits));
}

fn add(entry: Entry, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    live.push(entry.clone());
    edits.push(Edit::Add(entry));
}

fn remove(entry: Entry, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    let key = |e: &Entry| (e.kind, e.address, e.ports);
    live.retain(|other| key(other) != key(&entry));
    edits.push(Edit::Remove(entry));
}

fn splice(splice: Splice<Entry>, live: &mut Vec<Entry>, edits: &mut Vec<Edit>) {
    splice.removed.into_iter().for_each(|piece| remove(piece.origin, live, edits));
    for Stretch { ports, left, origin } in splice.added {
        let left = origin.left.map(|_| left);
        add(Entry { ports, left, packets: 0, bytes: 0, ..origin }, live, edits);
    }
}

fn stretches(kind: Kind, live: &[Entry], address: IpAddr) -> Vec<Stretch<Entry>> {
    let ranges = live.iter().filter(|entry| entry.kind == kind && entry.address == address);
    ranges.map(|e| Stretch { ports: e.ports, left: left(e), origin: e.clone() }).collect()
}

fn left(entry: &Entry) -> Duration {
    entry.left.unwrap_or(Duration::MAX)
}

fn add_guard(guard: &Guarded, live: &mut Vec<Guarded>, edits: &mut Vec<Edit>) -> Result<(), FirewallError> {
    if !guard.lifetime.is_none_or(is_lifetime) {
        return Err(FirewallError::Lifetime);
    }
    if let Some(other) =
        live.iter().find(|g| g.ports != guard.ports && g.ports.intersection(&guard.ports).is_some())
    {
        return Err(FirewallError::GuardOverlaps { wanted: guard.ports, by: other.ports });
    }
    if let Some(place) = live.iter().position(|other| other.ports == guard.ports) {
        edits.push(Edit::Unguard(live.swap_remove(place)));
    }
    live.push(guard.clone());
    edits.push(Edit::Guard(guard.clone()));
    Ok(())
}

fn remove_guard(
    ports: PortRange,
    live: &mut Vec<Guarded>,
    edits: &mut Vec<Edit>,
) -> Result<(), FirewallError> {
    if let Some(place) = live.iter().position(|guard| guard.ports == ports) {
        edits.push(Edit::Unguard(live.swap_remove(place)));
        return Ok(());
    }
    match live.iter().find(|guard| guard.ports.intersection(&ports).is_some()) {
        Some(other) if other.ports.contains(&ports) => {
            Err(FirewallError::GuardedAsPart { wanted: ports, by: other.ports })
        }
        Some(_) | None => Err(FirewallError::NotGuarded(ports)),
    }
}

/// Brings the guards that a restart finds to those wanted. Guards that expire by themselves stay, except for
/// ports that are wanted anyway: what is left of them goes on expiring.
pub(super) fn reconcile(live: &[LiveGuard], wanted: &[Guarded]) -> Result<Vec<Edit>, FirewallError> {
    let mut checked = Vec::new();
    wanted.iter().try_for_each(|guard| add_guard(guard, &mut checked, &mut Vec::new()))?;
    let mut edits = Vec::new();
    let mut settled = Vec::new();
    for old in live {
        if old.guard.lifetime.is_none() && checked.contains(&old.guard) {
            settled.push(old.guard.ports);
            continue;
        }
        let mut rest = vec![old.guard.ports];
        for new in &checked {
            rest = rest.iter().flat_map(|ports| without(*ports, new.ports)).collect();
        }
        if old.guard.lifetime.is_some() && rest == [old.guard.ports] {
            continue;
        }
        edits.push(Edit::Unguard(old.guard.clone()));
        if old.guard.lifetime.is_some() {
            edits.extend(rest.into_iter().map(|ports| Edit::Guard(Guarded { ports, ..old.guard.clone() })));
        }
    }
    let missing = checked.into_iter().filter(|guard| !settled.contains(&guard.ports));
    edits.extend(missing.map(Edit::Guard));
    Ok(edits)
}

/// From 1 ms to [`LONGEST`].
pub(super) fn is_lifetime(lifetime: Duration) -> bool {
    (Duration::from_millis(1)..=LONGEST).contains(&lifetime)
}

/// A set, and how its elements look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// `NFPROTO_*` of its table.
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) set: String,
    pub(super) shape: Shape,
    pub(super) interval: bool,
}

impl Slot {
    /// The attributes that name the set in a request about its elements.
    pub(super) fn names(&self) -> Attributes {
        Attributes::default().text(1, &self.table).text(2, &self.set)
    }

    fn message(&self, element: Attributes) -> Option<Message> {
        let list = Attributes::default().nest(1, element);
        Message::new(Object::Elements, self.family, self.names().nest(3, list))
    }
}

/// What only our own table has beside grants and guards.
pub(super) struct Maps {
    pub(super) locks: fn(LockSet, Family) -> Slot,
    pub(super) forwards: fn(Family) -> Slot,
}

/// A batch, and for each of its messages the set it is about.
#[derive(Default)]
pub(super) struct Written {
    pub(super) messages: Vec<(Message, MsgType)>,
    pub(super) sets: Vec<String>,
}

/// Writes the edits down for the sets that `slot` names; edits of sets that do not exist fall away.
///
/// Deleting an element that is not there fails the whole batch (ENOENT), and it may expire at any moment:
/// removal is therefore *add, delete*. Renewal is removal and addition: before Linux 6.12 adding a live element
/// leaves its deadline alone, and later it still does when the timeout is the same.
pub(super) fn write(
    edits: &[Edit],
    guards: Option<&Slot>,
    maps: Option<&Maps>,
    slot: impl Fn(Kind, Family) -> Option<Slot>,
) -> Written {
    let mut written = Written::default();
    let mut put = |slot: &Slot, element: Attributes, kinds: &[MsgType]| {
        for (message, kind) in
            slot.message(element).iter().flat_map(|m| kinds.iter().map(move |kind| (m, kind)))
        {
            written.messages.push((message.clone(), *kind));
            written.sets.push(slot.set.clone());
        }
    };
    for edit in edits {
        let kinds: &[MsgType] = match edit {
            Edit::Add(_) | Edit::Guard(_) | Edit::Lead(_) | Edit::LockOut(_) => &[MsgType::Add],
            Edit::Remove(_) | Edit::Unguard(_) | Edit::Unlead(_) | Edit::Readmit(_) => {
                &[MsgType::Add, MsgType::Del]
            }
        };
        match edit {
            Edit::Add(entry) | Edit::Remove(entry) => {
                if let Some(slot) = slot(entry.kind, Family::of(entry.address)) {
                    put(&slot, entry.attributes(slot.shape, slot.interval), kinds);
                }
            }
            Edit::Guard(guard) | Edit::Unguard(guard) => {
                if let Some(slot) = guards {
                    put(slot, guard_attributes(guard), kinds);
                }
            }
            Edit::Lead(leading) | Edit::Unlead(leading) => {
                if let Some(maps) = maps {
                    put(&(maps.forwards)(Family::of(leading.address)), leading.attributes(), kinds);
                }
            }
            Edit::LockOut(lock) | Edit::Readmit(lock) => {
                for set in LockSet::BOTH {
                    let lifetime =
                        if kinds.len() == 1 { set.lifetime(lock) } else { Some(Duration::from_secs(1)) };
                    if let (Some(maps), Some(lifetime)) = (maps, lifetime) {
                        put(
                            &(maps.locks)(set, Family::of(lock.address)),
                            lockout::attributes(lock, lifetime),
                            kinds,
                        );
                    }
                }
            }
        }
    }
    written
}

/// Whether a door is for one connection; a word for error messages.
pub(super) fn set_key(uses: Uses, address: IpAddr) -> &'static str {
    match (uses, Family::of(address)) {
        (Uses::Many, Family::V4) => "timed_v4",
        (Uses::Many, Family::V6) => "timed_v6",
        (_, Family::V4) => "once_v4",
        (_, Family::V6) => "once_v6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Closed;

    fn ports(text: &str) -> PortRange {
        text.parse().unwrap()
    }

    fn door(text: &str, uses: Uses, seconds: u64) -> Door {
        let lifetime = Duration::from_secs(seconds);
        Door {
            address: [192, 0, 2, 7].into(),
            wide: false,
            ports: ports(text),
            uses,
            session: Session::default(),
            forwards: Vec::new(),
            lifetime,
            note: "laptop".parse().unwrap(),
        }
    }

    fn guard(text: &str, lifetime: Option<u64>) -> Guarded {
        Guarded { ports: ports(text), closed: Closed::Drop, lifetime: lifetime.map(Duration::from_secs) }
    }

    fn live(text: &str, lifetime: Option<u64>) -> LiveGuard {
        LiveGuard { guard: guard(text, lifetime), granted: lifetime.map(Duration::from_secs) }
    }

    /// The sets after the changes, as (kind, ports) pairs.
    fn after(changes: &[Change]) -> Vec<(Kind, String)> {
        let mut state = Live::default();
        plan(changes, &mut state, Layout::default()).unwrap();
        let mut doors: Vec<_> =
            state.doors.values().flatten().map(|e| (e.kind, e.ports.to_string())).collect();
        doors.sort();
        doors
    }

    #[test]
    fn a_range_for_one_connection_replaces_the_one_it_overlaps() {
        let open = |text| Change::Open(door(text, Uses::Once, 15));
        let doors = after(&[open("tcp/10-20"), open("tcp/15-30")]);
        assert_eq!(doors, [(Kind::Counted, "tcp/15-30".to_owned())]);
    }

    #[test]
    fn opening_with_other_uses_replaces_the_grant() {
        for (text, once, many) in
            [("tcp/22", Kind::Once, Kind::Grants), ("tcp/10-20", Kind::Counted, Kind::Ranges)]
        {
            let open = |uses| Change::Open(door(text, uses, 15));
            assert_eq!(after(&[open(Uses::Once), open(Uses::Many)]), [(many, text.to_owned())]);
            assert_eq!(after(&[open(Uses::Many), open(Uses::Once)]), [(once, text.to_owned())]);
        }
    }

    #[test]
    fn shutting_a_port_leaves_the_rest_of_a_range_but_nothing_of_a_single_connection() {
        let address = [192, 0, 2, 7].into();
        let shut = Change::Shut { address, wide: false, ports: ports("tcp/15") };
        let many = Change::Open(door("tcp/10-20", Uses::Many, 15));
        let rest = [(Kind::Ranges, "tcp/10-14".to_owned()), (Kind::Ranges, "tcp/16-20".to_owned())];
        assert_eq!(after(&[many, shut.clone()]), rest);
        assert_eq!(after(&[Change::Open(door("tcp/10-20", Uses::Once, 15)), shut]), []);
    }

    #[test]
    fn opening_one_port_needs_no_look_at_the_sets() {
        let needs = needs(&[Change::Open(door("tcp/22", Uses::Once, 15))], Layout::default());
        assert!(needs.doors.is_empty() && !needs.guards);
    }

    #[test]
    fn a_lifetime_that_the_kernel_cannot_keep_is_refused() {
        for lifetime in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            let door = Door { lifetime, ..door("tcp/22", Uses::Many, 1) };
            let result = plan(&[Change::Open(door)], &mut Live::default(), Layout::default());
            assert!(matches!(result, Err(FirewallError::Lifetime)));
        }
    }

    #[test]
    fn guards_that_overlap_are_refused_and_the_same_ports_are_replaced() {
        let mut state = Live::new(vec![], vec![guard("tcp/8000-8100", None)], vec![]);
        let mut plan = |change| plan(&[change], &mut state, Layout::default());
        let refused = |result: Result<Vec<Edit>, FirewallError>| result.unwrap_err().to_string();
        assert_eq!(
            refused(plan(Change::Guard(guard("tcp/8050", None)))),
            "tcp/8050 is already guarded by tcp/8000-8100"
        );
        assert!(refused(plan(Change::Unguard(ports("tcp/8050")))).contains("as a part of tcp/8000-8100"));
        assert_eq!(refused(plan(Change::Unguard(ports("udp/8050")))), "udp/8050 is not guarded");
        let replaced = plan(Change::Guard(guard("tcp/8000-8100", Some(9)))).unwrap();
        assert_eq!(
            replaced,
            [Edit::Unguard(guard("tcp/8000-8100", None)), Edit::Guard(guard("tcp/8000-8100", Some(9)))]
        );
    }

    #[test]
    fn a_restart_keeps_what_is_wanted_and_drops_what_is_stale() {
        let edits =
            reconcile(&[live("tcp/22", None), live("tcp/23", None)], &[guard("tcp/22", None)]).unwrap();
        assert_eq!(edits, [Edit::Unguard(guard("tcp/23", None))]);
    }

    #[test]
    fn a_restart_leaves_a_guard_that_awaits_its_confirmation() {
        assert_eq!(reconcile(&[live("tcp/22", Some(60))], &[]).unwrap(), []);
        let edits = reconcile(&[live("tcp/22-24", Some(60))], &[guard("tcp/22", None)]).unwrap();
        assert_eq!(
            edits,
            [
                Edit::Unguard(guard("tcp/22-24", Some(60))),
                Edit::Guard(guard("tcp/23-24", Some(60))),
                Edit::Guard(guard("tcp/22", None)),
            ]
        );
    }
}
