//! Ranges that overlap: which elements have to go and which disjoint ones to come.
//!
//! The kernel refuses an element of an interval set that overlaps another one (EEXIST), so overlapping grants
//! are cut into pieces first. Pure.

use std::time::Duration;

use crate::text::PortRange;

/// Ports that share a deadline. `origin` is whatever goes along with it; pieces inherit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch<T> {
    /// The ports.
    pub(super) ports: PortRange,
    /// The time left.
    pub(super) left: Duration,
    /// What the ports were granted with.
    pub(super) origin: T,
}

/// What to do to a set, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice<T> {
    /// Elements to remove.
    pub(super) removed: Vec<Stretch<T>>,
    /// Elements to add; disjoint from each other and from all that stay.
    pub(super) added: Vec<Stretch<T>>,
}

impl<T: Clone> Splice<T> {
    /// Grants `new` among `live`, which are disjoint. The same range again takes the new deadline, sooner or
    /// later; ports that `new` shares with another range keep whichever deadline is later.
    pub(super) fn granting(live: &[Stretch<T>], new: Stretch<T>) -> Self {
        let overlapping: Vec<_> =
            live.iter().filter(|s| s.ports.intersection(&new.ports).is_some()).cloned().collect();
        if overlapping
            .iter()
            .any(|s| s.ports != new.ports && s.ports.contains(&new.ports) && s.left >= new.left)
        {
            return Self { removed: Vec::new(), added: Vec::new() };
        }
        let later = |s: &&Stretch<T>| s.ports != new.ports && s.left > new.left;
        let mut added = Vec::new();
        let mut unclaimed = vec![new.ports];
        for stretch in &overlapping {
            if later(&stretch) {
                added.push(stretch.clone());
                unclaimed = unclaimed.iter().flat_map(|ports| without(*ports, stretch.ports)).collect();
            } else {
                let rest = without(stretch.ports, new.ports);
                added.extend(rest.into_iter().map(|ports| Stretch { ports, ..stretch.clone() }));
            }
        }
        added.extend(unclaimed.into_iter().map(|ports| Stretch { ports, ..new.clone() }));
        // A later stretch stays as it is: neither removed nor added.
        added.retain(|piece| !overlapping.iter().filter(later).any(|s| s.ports == piece.ports));
        let removed = overlapping.into_iter().filter(|stretch| !later(&stretch)).collect();
        Self { removed, added }
    }

    /// Takes `ports` out of `live`.
    pub(super) fn cutting(live: &[Stretch<T>], ports: PortRange) -> Self {
        let removed: Vec<_> =
            live.iter().filter(|s| s.ports.intersection(&ports).is_some()).cloned().collect();
        let pieces = |stretch: &Stretch<T>| {
            let rest = without(stretch.ports, ports);
            rest.into_iter().map(|ports| Stretch { ports, ..stretch.clone() }).collect::<Vec<_>>()
        };
        let added = removed.iter().flat_map(pieces).collect();
        Self { removed, added }
    }
}

/// What is left of `ports` when `hole` is taken out.
pub(super) fn without(ports: PortRange, hole: PortRange) -> Vec<PortRange> {
    let Some(hole) = ports.intersection(&hole) else { return vec![ports] };
    let part = |first: u16, last: u16| PortRange::new(ports.protocol(), first, last).ok();
    let below = (ports.first() < hole.first()).then(|| part(ports.first(), hole.first() - 1)).flatten();
    let above = (hole.last() < ports.last()).then(|| part(hole.last() + 1, ports.last())).flatten();
    below.into_iter().chain(above).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Protocol;

    fn stretch(ports: &str, left: u64) -> Stretch<()> {
        Stretch { ports: ports.parse().unwrap(), left: Duration::from_secs(left), origin: () }
    }

    #[test]
    fn the_same_range_again_takes_the_new_deadline_even_if_it_is_sooner() {
        let splice = Splice::granting(&[stretch("tcp/10-20", 50)], stretch("tcp/10-20", 30));
        assert_eq!(splice.removed, [stretch("tcp/10-20", 50)]);
        assert_eq!(splice.added, [stretch("tcp/10-20", 30)]);
    }

    #[test]
    fn a_range_inside_one_that_lasts_longer_changes_nothing() {
        let splice = Splice::granting(&[stretch("tcp/10-20", 50)], stretch("tcp/12-14", 30));
        assert_eq!((splice.removed, splice.added), (vec![], vec![]));
    }

    #[test]
    fn a_range_that_lasts_longer_is_put_into_the_middle() {
        let splice = Splice::granting(&[stretch("tcp/10-20", 30)], stretch("tcp/12-14", 50));
        assert_eq!(splice.removed, [stretch("tcp/10-20", 30)]);
        assert_eq!(
            splice.added,
            [stretch("tcp/10-11", 30), stretch("tcp/15-20", 30), stretch("tcp/12-14", 50)]
        );
    }

    #[test]
    fn cutting_leaves_both_sides_and_the_other_protocol() {
        let live = [stretch("tcp/10-20", 30), stretch("udp/10-20", 30)];
        let splice = Splice::cutting(&live, "tcp/15".parse().unwrap());
        assert_eq!(splice.removed, [stretch("tcp/10-20", 30)]);
        assert_eq!(splice.added, [stretch("tcp/10-14", 30), stretch("tcp/16-20", 30)]);
    }

    /// Applies a splice and returns the time left per port; panics where two elements overlap.
    fn after(live: &[Stretch<()>], splice: &Splice<()>) -> Vec<Option<Duration>> {
        let mut all: Vec<_> = live.iter().filter(|s| !splice.removed.contains(s)).cloned().collect();
        all.extend(splice.added.iter().cloned());
        per_port(&all)
    }

    fn per_port(all: &[Stretch<()>]) -> Vec<Option<Duration>> {
        let mut ports = vec![None; 64];
        for stretch in all {
            for port in stretch.ports.first()..=stretch.ports.last() {
                assert!(ports[usize::from(port)].replace(stretch.left).is_none(), "port {port} twice");
            }
        }
        ports
    }

    fn ranges() -> impl Strategy<Value = Vec<(u16, u16, u64)>> {
        proptest::collection::vec((1u16..60, 0u16..20, 1u64..6), 0..8)
    }

    /// Grants one after the other, as the daemon would.
    fn grown(ranges: &[(u16, u16, u64)]) -> Vec<Stretch<()>> {
        let mut live: Vec<Stretch<()>> = Vec::new();
        for &(first, length, left) in ranges {
            let ports = PortRange::new(Protocol::Tcp, first, (first + length).min(63)).unwrap();
            let splice =
                Splice::granting(&live, Stretch { ports, left: Duration::from_secs(left), origin: () });
            live.retain(|s| !splice.removed.contains(s));
            live.extend(splice.added);
        }
        live
    }

    proptest! {
        #[test]
        fn each_port_keeps_the_later_deadline_and_no_two_elements_overlap(
            ranges in ranges(), first in 1u16..60, length in 0u16..20, left in 1u64..6,
        ) {
            let live = grown(&ranges);
            let ports = PortRange::new(Protocol::Tcp, first, (first + length).min(63)).unwrap();
            let new = Stretch { ports, left: Duration::from_secs(left), origin: () };
            let before = per_port(&live);
            let now = after(&live, &Splice::granting(&live, new.clone()));
            let same = live.iter().any(|s| s.ports == ports);
            for port in 1..64usize {
                let granted = (usize::from(ports.first())..=usize::from(ports.last())).contains(&port);
                let expected = match (granted, same) {
                    (true, true) => Some(new.left),
                    (true, false) => before[port].max(Some(new.left)),
                    (false, _) => before[port],
                };
                prop_assert_eq!(now[port], expected, "port {}", port);
            }
        }

        #[test]
        fn cutting_ends_exactly_the_ports_named(ranges in ranges(), first in 1u16..60, length in 0u16..20) {
            let live = grown(&ranges);
            let ports = PortRange::new(Protocol::Tcp, first, (first + length).min(63)).unwrap();
            let (before, now) = (per_port(&live), after(&live, &Splice::cutting(&live, ports)));
            for port in 1..64usize {
                let cut = (usize::from(ports.first())..=usize::from(ports.last())).contains(&port);
                prop_assert_eq!(now[port], if cut { None } else { before[port] }, "port {}", port);
            }
        }
    }
}
