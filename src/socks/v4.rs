//! SOCKS4 and 4a.
//!
//! ```text
//! request   04 | command | port (2) | address (4) | user, ended by 00 | 4a: name, ended by 00
//!           4a where the address is 0.0.0.x and x is not 0
//! answer    00 | 5a granted, 5b rejected | port (2) | address (4)
//! ```

use super::{Destination, Fault, Host, Outcome, Step};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The answer to what is not done.
pub(super) const REJECTED: [u8; 8] = [0, 0x5b, 0, 0, 0, 0, 0, 0];

const CONNECT: u8 = 1;
/// No name of a user or a host is longer.
const MAX_NAME: usize = 255;

/// A request, from the byte after the version on.
pub(super) fn request(rest: &[u8]) -> Step {
    let refused = |why| Step::End { answer: REJECTED.to_vec(), why };
    let Some((&[command, high, low, a, b, c, d], rest)) = rest.split_first_chunk() else {
        return Step::Wait;
    };
    let (user, rest) = match ended(rest) {
        Ok(found) => found,
        Err(step) => return step,
    };
    let address = Ipv4Addr::new(a, b, c, d);
    let is_named = [a, b, c] == [0; 3] && d != 0;
    let (host, name) = if is_named {
        match ended(rest) {
            Ok((name, _)) => (Host::named(name), name.len() + 1),
            Err(step) => return step,
        }
    } else {
        (Some(Host::Address(IpAddr::V4(address))), 0)
    };
    let taken = 8 + user.len() + 1 + name;
    match host {
        _ if command != CONNECT => refused(Fault::Command),
        None => refused(Fault::Address),
        Some(host) => {
            let port = u16::from_be_bytes([high, low]);
            Step::Connect { taken, destination: Destination { host, port } }
        }
    }
}

/// What stands before the zero, and what behind it.
fn ended(bytes: &[u8]) -> Result<(&[u8], &[u8]), Step> {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) if end <= MAX_NAME => {
            let (text, rest) = bytes.split_at(end);
            Ok((text, rest.split_first().map_or(&[][..], |(_, rest)| rest)))
        }
        None if bytes.len() <= MAX_NAME => Err(Step::Wait),
        _ => Err(Step::End { answer: REJECTED.to_vec(), why: Fault::NotSocks }),
    }
}

pub(super) fn answer(outcome: Outcome) -> Vec<u8> {
    let Outcome::Connected(from) = outcome else { return REJECTED.to_vec() };
    let address = match from {
        SocketAddr::V4(from) => *from.ip(),
        // There is no room for another; clients do not look at it.
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    [&[0, 0x5a][..], &from.port().to_be_bytes(), &address.octets()].concat()
}
