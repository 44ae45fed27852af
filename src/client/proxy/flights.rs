//! One knock for all who stand before the same door: server, port, and address family.
//!
//! Who finds a door closed takes its turn: leads, which is to knock, or waits for who is leading. After a knock that
//! worked, those who waited try again, and lead only if that fails: then the grant was for one connection, and the
//! next ones take turns, one knock each. After a knock that failed, they have failed as well.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::socks::Outcome;
use crate::text::ServerName;

/// How long it is remembered that grants are for one connection.
const ONE_EACH: Duration = Duration::from_secs(60);
/// How long the end of a knock is remembered: longer than any try that began before it takes.
const KEPT: Duration = Duration::from_secs(60);

/// A port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Door {
    pub(super) server: ServerName,
    pub(super) port: u16,
}

/// Which families a connection may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    fn meets(self, other: Self) -> bool {
        self.v4 && other.v4 || self.v6 && other.v6
    }

    fn covers(self, other: Self) -> bool {
        (self.v4 || !other.v4) && (self.v6 || !other.v6)
    }

    fn with(self, other: Self) -> Self {
        Self { v4: self.v4 || other.v4, v6: self.v6 || other.v6 }
    }

    fn without(self, other: Self) -> Self {
        Self { v4: self.v4 && !other.v4, v6: self.v6 && !other.v6 }
    }
}

/// All knocks under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    doors: Mutex<HashMap<Door, State>>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: Families,
    waiting: usize,
    /// How many flights have ended, and the last of them.
    ended: u64,
    last: Option<Last>,
    one_each: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    families: Families,
    outcome: Result<(), Outcome>,
    when: Instant,
}

impl State {
    fn is_one_each(&self) -> bool {
        self.one_each.is_some_and(|since| since.elapsed() < ONE_EACH)
    }

    fn is_needed(&self) -> bool {
        let is_recent = self.last.is_some_and(|last| last.when.elapsed() < KEPT);
        self.busy != Families::default() || self.waiting > 0 || is_recent || self.is_one_each()
    }
}

/// How many flights had ended at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Seen(u64);

/// What to do next.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// Knock, unless the port is open by now; the others wait for the end of this.
    Lead(Lead<'a>),
    /// Somebody has knocked in the meantime: try again.
    Retry(Seen),
    /// Somebody has knocked in the meantime, to no avail; or it took too long.
    Failed(Outcome),
}

impl Flights {
    /// To be asked before a try, and told after it.
    pub(super) fn seen(&self, door: &Door) -> Seen {
        Seen(self.lock().get(door).map_or(0, |state| state.ended))
    }

    /// Somebody who tried after a knock that worked was not let in by it.
    pub(super) fn is_one_each(&self, door: &Door) {
        self.lock().entry(door.clone()).or_default().one_each = Some(Instant::now());
    }

    /// What to do about a door that was found closed, by a try that began when so much had been seen.
    pub(super) fn turn(&self, door: &Door, families: Families, seen: Seen, until: Instant) -> Turn<'_> {
        let (mut doors, mut waited) = (self.lock(), false);
        loop {
            let state = doors.entry(door.clone()).or_default();
            if seen < Seen(state.ended)
                && let Some(last) = state.last.filter(|last| last.families.covers(families))
            {
                match last.outcome {
                    Err(outcome) => return Turn::Failed(outcome),
                    Ok(()) if !state.is_one_each() => return Turn::Retry(Seen(state.ended)),
                    Ok(()) => {}
                }
            }
            if !state.busy.meets(families) {
                state.busy = state.busy.with(families);
                let door = door.clone();
                return Turn::Lead(Lead { flights: self, door, families, waited, outcome: None });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Turn::Failed(Outcome::TimedOut);
            }
            (state.waiting, waited) = (state.waiting + 1, true);
            doors = self.ended.wait_timeout(doors, left).unwrap_or_else(PoisonError::into_inner).0;
            doors.entry(door.clone()).or_default().waiting -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Door, State>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The knock of this door; its end is everybody's.
#[derive(Debug)]
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    door: Door,
    families: Families,
    /// Whether somebody else led before, since the last try.
    pub(super) waited: bool,
    outcome: Option<Result<(), Outcome>>,
}

impl Lead<'_> {
    /// How it ended.
    pub(super) fn end(mut self, outcome: Result<(), Outcome>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Without a word it was lost, which is no reason for others to give up.
        let mut doors = self.flights.lock();
        let state = doors.entry(self.door.clone()).or_default();
        state.busy = state.busy.without(self.families);
        if let Some(outcome) = self.outcome {
            state.ended += 1;
            state.last = Some(Last { families: self.families, outcome, when: Instant::now() });
        }
        doors.retain(|_, state| state.is_needed());
        self.flights.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const V4: Families = Families { v4: true, v6: false };
    const V6: Families = Families { v4: false, v6: true };
    const BOTH: Families = Families { v4: true, v6: true };

    fn door() -> Door {
        Door { server: "home".parse().unwrap(), port: 22 }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn lead(flights: &Flights, families: Families, seen: Seen) -> Lead<'_> {
        match flights.turn(&door(), families, seen, soon()) {
            Turn::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_comes_while_somebody_knocks_tries_again_after_it() {
        let flights = Flights::default();
        let flights = &flights;
        let seen = flights.seen(&door());
        let first = lead(flights, BOTH, seen);
        thread::scope(|scope| {
            let others: Vec<_> = [BOTH, V4, V6]
                .map(|families| scope.spawn(move || flights.turn(&door(), families, seen, soon())))
                .into();
            while flights.lock().get(&door()).unwrap().waiting < 3 {
                thread::yield_now();
            }
            first.end(Ok(()));
            for other in others {
                assert!(matches!(other.join().unwrap(), Turn::Retry(Seen(1))));
            }
        });
    }

    #[test]
    fn who_tried_before_a_knock_ended_does_not_knock_after_it() {
        let flights = Flights::default();
        let seen = flights.seen(&door());
        lead(&flights, V4, seen).end(Ok(()));
        assert!(matches!(flights.turn(&door(), V4, seen, soon()), Turn::Retry(Seen(1))));
        // It was for the other family.
        lead(&flights, V6, seen).end(Ok(()));
        // This one knows of both.
        lead(&flights, BOTH, flights.seen(&door())).end(Ok(()));
    }

    #[test]
    fn families_do_not_wait_for_each_other() {
        let flights = Flights::default();
        let seen = flights.seen(&door());
        let _four = lead(&flights, V4, seen);
        let _six = lead(&flights, V6, seen);
        assert!(matches!(flights.turn(&door(), BOTH, seen, Instant::now()), Turn::Failed(Outcome::TimedOut)));
    }

    #[test]
    fn where_grants_are_for_one_connection_everybody_takes_a_turn() {
        let flights = Flights::default();
        let seen = flights.seen(&door());
        lead(&flights, V4, seen).end(Ok(()));
        flights.is_one_each(&door());
        lead(&flights, V4, seen).end(Ok(()));
        lead(&flights, V4, seen).end(Ok(()));
    }

    #[test]
    fn a_knock_without_effect_is_everybodys_and_a_lost_one_nobodys() {
        let flights = Flights::default();
        let seen = flights.seen(&door());
        drop(lead(&flights, V4, seen));
        lead(&flights, V4, seen).end(Err(Outcome::HostUnreachable));
        assert!(matches!(flights.turn(&door(), V4, seen, soon()), Turn::Failed(Outcome::HostUnreachable)));
        // Who comes later may have more luck.
        drop(lead(&flights, V4, flights.seen(&door())));
    }
}
