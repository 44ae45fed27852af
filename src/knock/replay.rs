//! Which knocks are new: each client's last counter, and what the clocks say about the next one.
//!
//! A counter is the client's time, so that a server which knows the time can tell an old packet that it never
//! saw from a new one. Three rules, in this order: above the client's last counter; near the server's time;
//! not while the server waits out the loss of its marks.

use std::collections::HashMap;
use std::time::Duration;

use crate::time::{ClockTrust, Now, Timestamp};

use super::hash::Seeded;
use super::{Fault, MarkKey};

/// How far a knock's time may be from the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Into the past: the client's clock behind, and the way of the packet.
    pub max_age: Duration,
    /// Into the future. Without this limit one packet from a client whose clock ran ahead for a moment would
    /// shut the client out until that time has come (CVE-2021-46873, WireGuard).
    pub max_ahead: Duration,
}

impl Default for Freshness {
    /// Three minutes to either side.
    fn default() -> Self {
        Self { max_age: Duration::from_secs(180), max_ahead: Duration::from_secs(180) }
    }
}

/// How far a counter may jump ahead of everything known while the server's clock cannot be believed: 400 days,
/// so that a board without a battery accepts its client after a year in a drawer.
///
/// The price is known: while the clock is in doubt, the recorded knocks of a client without a mark are good
/// again, however old, once each and in their order. Marks and clock must both be lost for that.
pub const MAX_JUMP: Duration = Duration::from_secs(400 * 86_400);

/// The last counter of every client and method. Grows only by clients that proved who they are; the mark of a
/// removed profile is kept, because the profile may come back.
pub(super) struct Marks {
    last: HashMap<MarkKey, Timestamp, Seeded>,
    built: Timestamp,
    quarantined_until: Duration,
}

impl Marks {
    /// No marks. `built`: when this program was built; a clock that shows an earlier time is wrong.
    pub(super) fn new(built: Timestamp, hash: Seeded) -> Self {
        Self { last: HashMap::with_hasher(hash), built, quarantined_until: Duration::ZERO }
    }

    /// Refuses every knock until `uptime`. What is refused counts as used, or else it could be sent again by
    /// whoever saw it once the quarantine is over.
    pub(super) fn quarantine(&mut self, uptime: Duration) {
        self.quarantined_until = self.quarantined_until.max(uptime);
    }

    pub(super) fn quarantined_until(&self) -> Duration {
        self.quarantined_until
    }

    /// Whether a knock with this counter is new. Changes nothing, except in quarantine. Without `freshness` its time is
    /// not judged: the format has done that.
    pub(super) fn check(
        &mut self,
        key: MarkKey,
        counter: Timestamp,
        freshness: Option<Freshness>,
        now: Now,
    ) -> Result<(), Fault> {
        let last = self.last.get(&key).copied();
        if let Some(last) = last.filter(|last| counter <= *last) {
            return Err(Fault::Replayed { behind: last.since(counter) });
        }
        if let Some(freshness) = freshness {
            self.is_believed(last, counter, freshness, now)?;
        }
        match self.quarantined_until.checked_sub(now.uptime) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(remaining) => {
                self.spend(key, counter);
                Err(Fault::Quarantine { remaining })
            }
        }
    }

    /// Whether a counter can be this moment's: by the server's clock, or where that is in doubt by what else is known.
    fn is_believed(
        &self,
        last: Option<Timestamp>,
        counter: Timestamp,
        freshness: Freshness,
        now: Now,
    ) -> Result<(), Fault> {
        if now.trust == ClockTrust::Synchronised && now.wall >= self.built {
            return fresh(counter, freshness, now.wall);
        }
        let known = last.unwrap_or_default().max(now.wall).max(self.built);
        let farthest = known.saturating_add(MAX_JUMP);
        if counter > farthest { Err(Fault::Jump { by: counter.since(farthest) }) } else { Ok(()) }
    }

    /// Takes note that the client's counters up to this one are used. Never goes back.
    pub(super) fn spend(&mut self, key: MarkKey, counter: Timestamp) {
        let last = self.last.entry(key).or_default();
        *last = counter.max(*last);
    }

    pub(super) fn get(&self, key: &MarkKey) -> Option<Timestamp> {
        self.last.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MarkKey, Timestamp)> + '_ {
        self.last.iter().map(|(key, counter)| (*key, *counter))
    }
}

fn fresh(counter: Timestamp, freshness: Freshness, now: Timestamp) -> Result<(), Fault> {
    let Freshness { max_age, max_ahead } = freshness;
    let (oldest, newest) = (now.saturating_sub(max_age), now.saturating_add(max_ahead));
    if counter < oldest {
        Err(Fault::Stale { by: oldest.since(counter), max_age })
    } else if counter > newest {
        Err(Fault::Ahead { by: counter.since(newest), max_ahead })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: MarkKey = MarkKey([7; 32]);
    const BUILT: u64 = 1_700_000_000;
    const DAY: u64 = 86_400;

    fn marks() -> Marks {
        Marks::new(Timestamp::from_secs(BUILT), Seeded::new([1; 16]))
    }

    fn at(wall: u64, trust: ClockTrust) -> Now {
        Now { wall: Timestamp::from_secs(wall), uptime: Duration::from_secs(100), trust }
    }

    fn trusted(wall: u64) -> Now {
        at(wall, ClockTrust::Synchronised)
    }

    fn doubted(wall: u64) -> Now {
        at(wall, ClockTrust::Unsynchronised)
    }

    fn check(marks: &mut Marks, counter: u64, now: Now) -> Result<(), Fault> {
        marks.check(CLIENT, Timestamp::from_secs(counter), Some(Freshness::default()), now)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn clocks_may_differ_by_the_window_and_no_more() {
        let now = BUILT + 1000;
        let (stale, ahead) = (
            Fault::Stale { by: secs(1), max_age: secs(180) },
            Fault::Ahead { by: secs(1), max_ahead: secs(180) },
        );
        let story = [
            (now - 181, Err(stale)),
            (now - 180, Ok(())),
            (now, Ok(())),
            (now + 180, Ok(())),
            (now + 181, Err(ahead)),
        ];
        for (counter, expected) in story {
            assert_eq!(check(&mut marks(), counter, trusted(now)), expected, "{counter}");
        }
    }

    #[test]
    fn each_client_has_its_own_window() {
        let (mut marks, now) = (marks(), BUILT + DAY);
        let wide = Freshness { max_age: secs(3600), max_ahead: secs(0) };
        let counter = |seconds| Timestamp::from_secs(seconds);
        assert_eq!(marks.check(CLIENT, counter(now - 3600), Some(wide), trusted(now)), Ok(()));
        assert_eq!(
            marks.check(CLIENT, counter(now + 1), Some(wide), trusted(now)),
            Err(Fault::Ahead { by: secs(1), max_ahead: secs(0) })
        );
    }

    #[test]
    fn a_counter_counts_once() {
        let (mut marks, now) = (marks(), BUILT + 1000);
        assert_eq!(check(&mut marks, now, trusted(now)), Ok(()));
        assert_eq!(check(&mut marks, now, trusted(now)), Ok(()), "a check spends nothing");
        marks.spend(CLIENT, Timestamp::from_secs(now));
        assert_eq!(check(&mut marks, now, trusted(now)), Err(Fault::Replayed { behind: secs(0) }));
        assert_eq!(check(&mut marks, now - 9, trusted(now)), Err(Fault::Replayed { behind: secs(9) }));
        assert_eq!(check(&mut marks, now + 1, trusted(now)), Ok(()));
    }

    #[test]
    fn one_clients_counter_is_nothing_to_another() {
        let (mut marks, now) = (marks(), BUILT + 1000);
        marks.spend(MarkKey([8; 32]), Timestamp::from_secs(now));
        assert_eq!(check(&mut marks, now, trusted(now)), Ok(()));
    }

    #[test]
    fn a_mark_never_goes_back() {
        let mut marks = marks();
        marks.spend(CLIENT, Timestamp::from_secs(20));
        marks.spend(CLIENT, Timestamp::from_secs(10));
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(CLIENT, Timestamp::from_secs(20))]);
    }

    #[test]
    fn a_server_whose_clock_shows_1970_still_lets_its_client_in() {
        let mut marks = marks();
        let story =
            [(BUILT + 300 * DAY, Ok(())), (BUILT + 300 * DAY, Err(Fault::Replayed { behind: secs(0) }))];
        for (counter, expected) in story {
            assert_eq!(check(&mut marks, counter, doubted(0)), expected);
            marks.spend(CLIENT, Timestamp::from_secs(counter));
        }
        // A time source that vouches for 1970 is not believed either.
        assert_eq!(check(&mut marks, BUILT + 301 * DAY, trusted(5)), Ok(()));
    }

    #[test]
    fn a_client_whose_clock_shows_1970_is_judged_by_order_alone_while_the_servers_clock_is_in_doubt() {
        assert_eq!(check(&mut marks(), 60, doubted(BUILT)), Ok(()));
        let stale = Fault::Stale { by: secs(BUILT - 180 - 60), max_age: secs(180) };
        assert_eq!(check(&mut marks(), 60, trusted(BUILT)), Err(stale));
    }

    #[test]
    fn a_clock_in_doubt_believes_400_days_and_no_more() {
        let jump = Err(Fault::Jump { by: secs(1) });
        // From the build date, from the server's own clock, and from the client's last counter.
        assert_eq!(check(&mut marks(), BUILT + 400 * DAY, doubted(0)), Ok(()));
        assert_eq!(check(&mut marks(), BUILT + 400 * DAY + 1, doubted(0)), jump);
        assert_eq!(check(&mut marks(), BUILT + 401 * DAY + 1, doubted(BUILT + DAY)), jump);
        let mut marks = marks();
        marks.spend(CLIENT, Timestamp::from_secs(BUILT + 2 * DAY));
        assert_eq!(check(&mut marks, BUILT + 402 * DAY, doubted(BUILT + DAY)), Ok(()));
        assert_eq!(check(&mut marks, BUILT + 402 * DAY + 1, doubted(BUILT + DAY)), jump);
    }

    #[test]
    fn a_quarantine_ends_by_uptime_and_what_it_refused_is_used() {
        let (mut marks, now) = (marks(), BUILT + 1000);
        marks.quarantine(secs(130));
        marks.quarantine(secs(10));
        assert_eq!(marks.quarantined_until(), secs(130), "a quarantine is never cut short");
        assert_eq!(check(&mut marks, now, trusted(now)), Err(Fault::Quarantine { remaining: secs(30) }));
        let later = Now { uptime: secs(130), ..trusted(now + 30) };
        assert_eq!(check(&mut marks, now, later), Err(Fault::Replayed { behind: secs(0) }));
        assert_eq!(check(&mut marks, now + 1, later), Ok(()));
    }

    #[test]
    fn a_knock_from_the_future_does_not_shut_its_client_out_after_the_quarantine() {
        let (mut marks, now) = (marks(), BUILT + 1000);
        marks.quarantine(secs(130));
        assert!(matches!(check(&mut marks, now + 9 * DAY, trusted(now)), Err(Fault::Ahead { .. })));
        assert_eq!(check(&mut marks, now + 30, Now { uptime: secs(130), ..trusted(now + 30) }), Ok(()));
    }
}
