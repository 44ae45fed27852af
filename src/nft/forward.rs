//! Doors that lead to another host: elements of the maps `forwards`. Pure, both directions.
//!
//! ```text
//! forwards    address (4 or 16) | protocol (1) 0 0 0 | port (2) 0 0    →    inner host (4 or 16) | port (2) 0 0
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::entry::{
    Family, NFTA_DATA_VALUE, NFTA_SET_ELEM_DATA, Parsed, Shape, commented, keys, ports_of, timed,
};
use super::wire::{Attributes, find, octets};
use super::{Door, Forward, Note};

/// An element of one of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leading {
    pub(super) address: IpAddr,
    pub(super) forward: Forward,
    pub(super) left: Duration,
    pub(super) note: Note,
}

/// The name of the map for clients of this family.
pub(super) fn map_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "forwards_v4",
        Family::V6 => "forwards_v6",
    }
}

impl Leading {
    /// What a door leads to, for its client's family.
    pub(super) fn of(door: &Door) -> impl Iterator<Item = Self> + '_ {
        let same_family = |forward: &&Forward| !door.wide && forward.to.is_ipv4() == door.address.is_ipv4();
        door.forwards.iter().filter(same_family).map(|forward| Self {
            address: door.address,
            forward: *forward,
            left: door.lifetime,
            note: door.note.clone(),
        })
    }

    pub(super) fn attributes(&self) -> Attributes {
        let ports = self.forward.ports;
        let key = Shape::Full.key(Some(self.address), ports.protocol(), ports.first());
        let to = [&octets(self.forward.to.ip())[..], &self.forward.to.port().to_be_bytes(), &[0, 0]].concat();
        let data = Attributes::default().bytes(NFTA_DATA_VALUE, &to);
        let element = keys(key, None).nest(NFTA_SET_ELEM_DATA, data);
        commented(timed(element, Some(self.left), None), self.note.as_str())
    }

    pub(super) fn parse(element: &[u8], family: Family) -> Option<Self> {
        let parsed = Parsed::of(element);
        let (address, ports) = family.split(parsed.key?)?;
        let (host, port) = family.split(find(find(element, NFTA_SET_ELEM_DATA)?, NFTA_DATA_VALUE)?)?;
        let &[high, low, _, _] = port else { return None };
        let to = SocketAddr::new(host, u16::from_be_bytes([high, low]));
        let note = parsed.comment.and_then(|comment| comment.parse().ok()).unwrap_or_default();
        let forward = Forward { ports: ports_of(ports, ports)?, to };
        Some(Self { address, forward, left: parsed.left.unwrap_or(Duration::MAX), note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_reads_back_as_it_was_written() {
        for (address, to) in [("192.0.2.7", "10.1.2.3:22"), ("2001:db8::7", "[fd00::3]:8080")] {
            let leading = Leading {
                address: address.parse().unwrap(),
                forward: Forward { ports: "tcp/2222".parse().unwrap(), to: to.parse().unwrap() },
                left: Duration::from_secs(15),
                note: "laptop".parse().unwrap(),
            };
            let bytes = leading.attributes().into_bytes();
            let family = Family::of(leading.address);
            assert_eq!(Leading::parse(&bytes, family), Some(leading));
            for end in 0..bytes.len() {
                let _ = Leading::parse(&bytes[..end], family);
            }
        }
    }
}
