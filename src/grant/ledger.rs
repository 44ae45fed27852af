//! What is open, for whom, until when: the monitor's book beside the kernel's sets.
//!
//! The kernel is the truth (it expires and consumes grants by itself); the ledger counts grants against the
//! limits, knows which elements a revocation concerns, and restores them when somebody wipes the table. After
//! a restart it is filled from the kernel's elements, which carry the profile's name.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{Opening, Session, Uses, network_of};
use crate::text::PortRange;

/// One element in the kernel, as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose grant it is.
    pub profile: String,
    /// The address let in; of a network, the lowest.
    pub address: IpAddr,
    /// Whether it is a network.
    pub wide: bool,
    /// To which ports.
    pub ports: PortRange,
    /// For how many connections.
    pub uses: Uses,
    /// What holds for them besides: one at a time, cut at the end.
    pub session: Session,
    /// Until when, on the clock that counts from boot (`CLOCK_BOOTTIME`).
    pub deadline: Duration,
}

impl Entry {
    /// The time that is left at `uptime`; zero when there is none.
    #[must_use]
    pub fn remaining(&self, uptime: Duration) -> Duration {
        self.deadline.saturating_sub(uptime)
    }

    /// Whether it lets this address in.
    #[must_use]
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.address == if self.wide { network_of(address) } else { address }
    }

    fn concerns(&self, address: IpAddr, ports: &[PortRange]) -> bool {
        self.is_for(address) && ports.iter().any(|range| range.intersection(&self.ports).is_some())
    }

    fn is_covered_by(&self, other: &Self) -> bool {
        self.address == other.address
            && self.wide == other.wide
            && other.ports.contains(&self.ports)
            && other.deadline >= self.deadline
            && (other.uses == Uses::Many || (self.uses <= other.uses && self.ports == other.ports))
    }
}

/// All live entries. Bounded by the number of grants that the configuration allows; what one knock costs does not
/// depend on how many there are.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The entries of each address, oldest first.
    of_address: HashMap<IpAddr, Vec<Entry>>,
    /// How many entries each profile has for each address.
    of_profile: HashMap<String, HashMap<IpAddr, usize>>,
    /// Whose entries end when.
    ends: BTreeSet<(Duration, IpAddr)>,
    count: usize,
    /// What ended by itself and nobody has been told of.
    departed: Vec<Entry>,
    /// Counts changes.
    revision: u64,
}

impl Ledger {
    /// The live entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.of_address.values().flatten()
    }

    /// How many entries are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many profiles, or certificates, have something open.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.of_profile.len()
    }

    /// Whether this profile or certificate has something open.
    #[must_use]
    pub fn holds(&self, profile: &str) -> bool {
        self.of_profile.contains_key(profile)
    }

    /// When the next entry ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.ends.first().map(|(deadline, _)| *deadline)
    }

    /// The entries that ended by themselves since this was last asked, and that nothing has taken the place of: their time
    /// was over, or the kernel has them no more.
    pub fn departed(&mut self) -> Vec<Entry> {
        let mut departed = std::mem::take(&mut self.departed);
        departed.retain(|entry| !self.covers(entry));
        departed
    }

    /// Whether the same client has these ports open for this address.
    #[must_use]
    pub fn covers(&self, entry: &Entry) -> bool {
        let same = |have: &Entry| {
            have.profile == entry.profile && have.wide == entry.wide && have.ports.contains(&entry.ports)
        };
        self.at(entry.address).iter().any(same)
    }

    /// The same number as before where nothing has changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, uptime: Duration) {
        while let Some((deadline, address)) = self.ends.first().copied().filter(|(end, _)| *end <= uptime) {
            self.ends.remove(&(deadline, address));
            let ended = self.take(address, |entry| entry.deadline <= uptime);
            self.departed.extend(ended);
        }
    }

    /// Takes over what the kernel holds, in place of everything known before.
    pub fn replace(&mut self, entries: Vec<Entry>) {
        let before = std::mem::replace(self, Self { revision: self.revision, ..Self::default() });
        self.departed = before.departed;
        entries.into_iter().for_each(|entry| self.put(entry));
        let gone = before.of_address.into_values().flatten();
        // Deadlines that are read from the kernel are never quite the same.
        let is_there = |gone: &Entry| {
            let same = |have: &Entry| {
                (&have.profile, have.ports, have.uses) == (&gone.profile, gone.ports, gone.uses)
            };
            self.of_address.get(&gone.address).is_some_and(|entries| entries.iter().any(same))
        };
        self.departed.extend(gone.filter(|gone| !is_there(gone)));
    }

    fn put(&mut self, entry: Entry) {
        let addresses = self.of_profile.entry(entry.profile.clone()).or_default();
        *addresses.entry(entry.address).or_default() += 1;
        self.ends.insert((entry.deadline, entry.address));
        self.count += 1;
        self.revision += 1;
        self.of_address.entry(entry.address).or_default().push(entry);
    }

    /// Takes the entries of an address out for which `chosen` holds. Their ends stay noted, and find nothing then.
    fn take(&mut self, address: IpAddr, chosen: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let Some(entries) = self.of_address.get_mut(&address) else { return Vec::new() };
        let (taken, kept): (Vec<Entry>, Vec<Entry>) = entries.drain(..).partition(chosen);
        *entries = kept;
        let ends: Vec<Duration> = entries.iter().map(|entry| entry.deadline).collect();
        if ends.is_empty() {
            self.of_address.remove(&address);
        }
        for gone in &taken {
            self.count -= 1;
            self.revision += 1;
            if !ends.contains(&gone.deadline) {
                self.ends.remove(&(gone.deadline, address));
            }
            let Some(addresses) = self.of_profile.get_mut(&gone.profile) else { continue };
            if let Some(left) = addresses.get_mut(&address) {
                *left -= 1;
                if *left == 0 {
                    addresses.remove(&address);
                }
            }
            if addresses.is_empty() {
                self.of_profile.remove(&gone.profile);
            }
        }
        taken
    }

    fn at(&self, address: IpAddr) -> &[Entry] {
        self.of_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The entries that `opening` adds, after a check of the limits. An address that is let in already counts
    /// once, however often it knocks; ports that are open longer already are left alone, so that a short knock
    /// never shortens a long grant.
    ///
    /// # Errors
    /// [`Full`] when the profile or the whole machine has as many grants as the configuration allows.
    pub fn plan(&mut self, opening: &Opening, total: usize, uptime: Duration) -> Result<Vec<Entry>, Full> {
        self.expire(uptime);
        let mine = self.of_profile.get(&opening.profile);
        let known = mine.is_some_and(|mine| mine.contains_key(&opening.address));
        if !known && mine.map_or(0, HashMap::len) >= usize::from(opening.max_grants) {
            return Err(Full::Profile { limit: opening.max_grants });
        }
        let deadline = uptime.saturating_add(opening.lifetime.duration());
        let wanted = opening.ports.iter().map(|ports| Entry {
            profile: opening.profile.clone(),
            address: opening.address,
            wide: opening.wide,
            ports: *ports,
            uses: opening.uses,
            session: opening.session.of_connections(),
            deadline,
        });
        let open = self.at(opening.address);
        let added: Vec<Entry> =
            wanted.filter(|entry| !open.iter().any(|have| makes_needless(have, entry))).collect();
        if self.count + added.len() > total {
            return Err(Full::Total { limit: total });
        }
        Ok(added)
    }

    /// Notes entries that are in the kernel now, in place of those of the same client that they renew. One with other
    /// session flags replaces what was there whatever its deadline: the latest knock says what holds.
    pub fn commit(&mut self, added: Vec<Entry>) {
        for new in added {
            let replaces = |entry: &Entry| {
                let other = entry.session != new.session && new.ports.contains(&entry.ports);
                let same = entry.wide == new.wide && (entry.ports == new.ports || other);
                entry.profile == new.profile && (same || entry.is_covered_by(&new))
            };
            self.take(new.address, replaces);
            self.put(new);
        }
    }

    /// What other clients behind the same address have open for longer on the ports of `added`: the kernel has one
    /// element for all of them, which is to keep the later deadline.
    #[must_use]
    pub fn outlasting(&self, added: &[Entry]) -> Vec<Entry> {
        let outlasts = |entry: &&Entry| {
            entry.uses == Uses::Many
                && added.iter().any(|new| {
                    new.profile != entry.profile
                        && new.wide == entry.wide
                        && new.deadline < entry.deadline
                        && new.ports.intersection(&entry.ports).is_some()
                })
        };
        let address = added.first().map(|entry| entry.address);
        address.map_or(&[][..], |address| self.at(address)).iter().filter(outlasts).cloned().collect()
    }

    /// The entries of `profile` for `address` on any of these ports: what a client's own "close" ends.
    #[must_use]
    pub fn of_client(&self, profile: &str, address: IpAddr, ports: &[PortRange]) -> Vec<Entry> {
        let mine = |entry: &&Entry| entry.profile == profile && entry.concerns(address, ports);
        let network = network_of(address);
        let elsewhere = if network == address { &[] } else { self.at(network) };
        self.at(address).iter().chain(elsewhere).filter(mine).cloned().collect()
    }

    /// The entries for which `chosen` holds: what an admin's "revoke" ends.
    #[must_use]
    pub fn select(&self, chosen: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.entries().filter(|entry| chosen(entry)).cloned().collect()
    }

    /// The entries that stay open when `ended` are taken out of the kernel but share an address and a port with
    /// one of them: two profiles behind one address. The kernel has one element for both, so these are to be
    /// opened again.
    #[must_use]
    pub fn shared_with(&self, ended: &[Entry], uptime: Duration) -> Vec<Entry> {
        let mut of_address: HashMap<IpAddr, Vec<&Entry>> = HashMap::new();
        ended.iter().for_each(|gone| of_address.entry(gone.address).or_default().push(gone));
        let shared = |(address, gone): (&IpAddr, &Vec<&Entry>)| -> Vec<Entry> {
            let shares = |entry: &&Entry| {
                entry.deadline > uptime
                    && !gone.contains(entry)
                    && gone.iter().any(|gone| {
                        gone.wide == entry.wide && gone.ports.intersection(&entry.ports).is_some()
                    })
            };
            self.at(*address).iter().filter(shares).cloned().collect()
        };
        of_address.iter().flat_map(shared).collect()
    }

    /// Takes note that the kernel has entries no more, for whatever reason.
    pub fn lose(&mut self, gone: &[Entry]) {
        self.forget(gone);
        self.departed.extend_from_slice(gone);
    }

    /// Forgets entries that were taken out of the kernel on somebody's word.
    pub fn forget(&mut self, ended: &[Entry]) {
        for gone in ended {
            self.take(gone.address, |entry| entry == gone);
        }
    }
}

/// A client's own live grant for many connections makes a shorter one needless. One for a number of them does not: they may have
/// been used already, and only the kernel knows.
fn makes_needless(have: &Entry, entry: &Entry) -> bool {
    have.profile == entry.profile
        && have.uses == Uses::Many
        && have.session == entry.session
        && entry.is_covered_by(have)
}

/// The limits on live grants are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The profile's `max_grants`.
    Profile {
        /// The limit.
        limit: u16,
    },
    /// The daemon's `limits.grants`.
    Total {
        /// The limit.
        limit: usize,
    },
}

impl Full {
    /// A short, fixed name for counters and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Profile { .. } => "profile-full",
            Self::Total { .. } => "all-full",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile { limit } => write!(
                f,
                "the profile has {limit} addresses let in, as many as its max_grants allows; wait until one ends, \
                 revoke one, or raise max_grants"
            ),
            Self::Total { limit } => write!(
                f,
                "{limit} grants are live, as many as limits.grants allows; wait until one ends, revoke some, or \
                 raise limits.grants"
            ),
        }
    }
}

impl std::error::Error for Full {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Action;
    use crate::text::Span;

    const HOME: &str = "198.51.100.7";
    const WORK: &str = "203.0.113.9";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opening(profile: &str, address: &str, ports: &str, uses: Uses, seconds: u32) -> Opening {
        Opening {
            profile: profile.into(),
            holder: None,
            max_grants: 1,
            action: Action::Open,
            address: address.parse().unwrap(),
            wide: false,
            ports: vec![ports.parse().unwrap()],
            uses,
            session: Session::default(),
            lockout: Span::from_secs(600),
            lifetime: Span::from_secs(seconds),
            expires: None,
        }
    }

    fn ledger(openings: &[Opening]) -> Ledger {
        let mut ledger = Ledger::default();
        for opening in openings {
            let added = ledger.plan(opening, 100, at(0)).unwrap();
            ledger.commit(added);
        }
        ledger
    }

    #[test]
    fn a_second_address_waits_until_the_first_grant_has_ended() {
        let mut ledger = ledger(&[opening("laptop", HOME, "tcp/22", Uses::Once, 15)]);
        let second = opening("laptop", WORK, "tcp/22", Uses::Once, 15);
        assert_eq!(ledger.plan(&second, 100, at(14)), Err(Full::Profile { limit: 1 }));
        assert_eq!(ledger.plan(&second, 100, at(15)).unwrap().len(), 1);
        ledger.expire(at(15));
        assert!(ledger.is_empty() && ledger.entries().next().is_none() && ledger.next_end().is_none());
    }

    #[test]
    fn the_same_address_may_knock_again_at_its_limit() {
        let mut ledger = ledger(&[opening("laptop", HOME, "tcp/22", Uses::Once, 15)]);
        let again = ledger.plan(&opening("laptop", HOME, "tcp/22", Uses::Once, 15), 100, at(5)).unwrap();
        assert_eq!(again[0].deadline, at(20));
    }

    #[test]
    fn no_more_grants_than_the_machine_is_allowed() {
        let mut ledger = ledger(&[opening("laptop", HOME, "tcp/22", Uses::Once, 15)]);
        let other = opening("phone", WORK, "tcp/22", Uses::Once, 15);
        assert_eq!(ledger.plan(&other, 1, at(5)), Err(Full::Total { limit: 1 }));
    }

    #[test]
    fn a_short_knock_never_shortens_a_long_grant() {
        let mut ledger = ledger(&[opening("laptop", HOME, "tcp/22-30", Uses::Many, 3600)]);
        let short = opening("laptop", HOME, "tcp/22", Uses::Once, 15);
        assert_eq!(ledger.plan(&short, 100, at(5)).unwrap(), []);
    }

    #[test]
    fn a_renewed_grant_stands_once_in_the_ledger() {
        let twice = [
            opening("laptop", HOME, "tcp/22", Uses::Once, 15),
            opening("laptop", HOME, "tcp/22", Uses::Once, 30),
        ];
        assert_eq!((ledger(&twice).len(), ledger(&twice).next_end()), (1, Some(at(30))));
    }

    #[test]
    fn a_client_closes_its_own_grants_only() {
        let ledger = ledger(&[
            opening("laptop", HOME, "tcp/22", Uses::Many, 15),
            opening("phone", HOME, "tcp/22", Uses::Many, 60),
        ]);
        let home = HOME.parse().unwrap();
        let ended = ledger.of_client("laptop", home, &["tcp/1-100".parse().unwrap()]);
        assert_eq!(ended.iter().map(|entry| entry.profile.as_str()).collect::<Vec<_>>(), ["laptop"]);
        let shared = ledger.shared_with(&ended, at(1));
        assert_eq!(shared.iter().map(|entry| entry.profile.as_str()).collect::<Vec<_>>(), ["phone"]);
        assert_eq!(ledger.of_client("laptop", home, &["udp/22".parse().unwrap()]), []);
    }

    #[test]
    fn what_was_revoked_is_forgotten() {
        let mut ledger = ledger(&[opening("laptop", HOME, "tcp/22", Uses::Many, 15)]);
        let ended = ledger.select(|entry| entry.profile == "laptop");
        ledger.forget(&ended);
        assert!(ledger.is_empty() && ledger.entries().next().is_none() && ledger.next_end().is_none());
    }
}
