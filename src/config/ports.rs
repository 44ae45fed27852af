//! Lists of ports without overlap.
#![forbid(unsafe_code)]

use crate::text::PortRange;

/// The same ports in the fewest ranges: sorted, disjoint, neighbours joined. The kernel refuses overlapping
/// intervals, and a grant for each of two overlapping ranges would be ended by the first to be closed.
#[must_use]
pub fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort();
    let mut out: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for next in ranges {
        let joined = out.last().and_then(|last| {
            let touches = last.protocol() == next.protocol() && next.first() <= last.last().saturating_add(1);
            touches
                .then(|| PortRange::new(last.protocol(), last.first(), last.last().max(next.last())).ok())
                .flatten()
        });
        match (joined, out.last_mut()) {
            (Some(joined), Some(last)) => *last = joined,
            _ => out.push(next),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(ranges: &str) -> String {
        let ranges = ranges.split_whitespace().map(|text| text.parse().unwrap()).collect();
        merged(ranges).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn overlapping_and_neighbouring_ranges_become_one() {
        assert_eq!(case("tcp/443 tcp/80 tcp/443"), "tcp/80 tcp/443");
        assert_eq!(case("tcp/10-20 tcp/15-30 tcp/31"), "tcp/10-31");
        assert_eq!(case("tcp/10-40 tcp/15 tcp/42"), "tcp/10-40 tcp/42");
        assert_eq!(case("udp/53 tcp/53 udp/54"), "tcp/53 udp/53-54");
        assert_eq!(case("tcp/65535 tcp/1-65535"), "tcp/1-65535");
        assert_eq!(case(""), "");
    }
}
