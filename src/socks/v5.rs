//! SOCKS5 (RFC 1928) with passwords (RFC 1929).
//!
//! ```text
//! greeting  05 | number | methods               00 none, 02 password
//!           05 | method                         ff none of them
//! password  01 | length | name | length | password
//!           01 | 00 right, 01 wrong
//! request   05 | command | 00 | kind | address | port (2)
//! answer    05 | reply   | 00 | kind | address | port (2)
//!           kind 01: 4 bytes, 04: 16 bytes, 03: length and name
//! ```

use super::{Destination, Fault, Host, Outcome, Password, Step};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The answer to a greeting after which the password comes.
pub(super) const PASSWORD_PLEASE: [u8; 2] = [5, PASSWORD];

const NONE: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// A greeting, from the byte after the version on.
pub(super) fn greeting(rest: &[u8], needs_password: bool) -> Step {
    let Some((offered, _)) = counted(rest) else { return Step::Wait };
    let taken = 2 + offered.len();
    let has = |method| offered.contains(&method);
    if has(NONE) && !needs_password {
        return Step::Say { taken, answer: vec![5, NONE] };
    }
    if has(PASSWORD) {
        // Where none is needed any is taken: some clients know no other way to begin.
        return Step::Say { taken, answer: PASSWORD_PLEASE.to_vec() };
    }
    let why = if needs_password { Fault::NoPassword } else { Fault::NotSocks };
    Step::End { answer: vec![5, 0xff], why }
}

/// Name and password.
pub(super) fn password(all: &[u8], right: Option<&Password>) -> Step {
    let [version, rest @ ..] = all else { return Step::Wait };
    if *version != 1 {
        return Step::End { answer: vec![1, 1], why: Fault::NotSocks };
    }
    let Some((name, rest)) = counted(rest) else { return Step::Wait };
    let Some((password, _)) = counted(rest) else { return Step::Wait };
    if right.is_none_or(|right| right.is(name, password)) {
        Step::Say { taken: 3 + name.len() + password.len(), answer: vec![1, 0] }
    } else {
        Step::End { answer: vec![1, 1], why: Fault::WrongPassword }
    }
}

/// A request.
pub(super) fn request(all: &[u8]) -> Step {
    let refused = |reply, why| Step::End { answer: said(reply, NOWHERE), why };
    let Some((&[version, command, _reserved, kind], rest)) = all.split_first_chunk() else {
        return Step::Wait;
    };
    if version != 5 {
        return refused(FAILED, Fault::NotSocks);
    }
    let address = match kind {
        1 => rest.split_first_chunk::<4>().map(|(v4, rest)| (Some(Host::Address((*v4).into())), 4, rest)),
        4 => rest.split_first_chunk::<16>().map(|(v6, rest)| (Some(Host::Address((*v6).into())), 16, rest)),
        3 => counted(rest).map(|(name, rest)| (Host::named(name), 1 + name.len(), rest)),
        _ => return refused(KIND_UNKNOWN, Fault::Address),
    };
    let Some((host, length, rest)) = address else { return Step::Wait };
    let Some((port, _)) = rest.split_first_chunk() else { return Step::Wait };
    match host {
        _ if command != CONNECT => refused(COMMAND_UNKNOWN, Fault::Command),
        None => refused(HOST_UNREACHABLE, Fault::Address),
        Some(host) => {
            let destination = Destination { host, port: u16::from_be_bytes(*port) };
            Step::Connect { taken: 4 + length + 2, destination }
        }
    }
}

// The replies of RFC 1928, section 6.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const NETWORK_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const TIMED_OUT: u8 = 6;
const COMMAND_UNKNOWN: u8 = 7;
const KIND_UNKNOWN: u8 = 8;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) fn answer(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Connected(from) => said(DONE, from),
        Outcome::Failed => said(FAILED, NOWHERE),
        Outcome::NetworkUnreachable => said(NETWORK_UNREACHABLE, NOWHERE),
        Outcome::HostUnreachable => said(HOST_UNREACHABLE, NOWHERE),
        Outcome::Refused => said(REFUSED, NOWHERE),
        Outcome::TimedOut => said(TIMED_OUT, NOWHERE),
    }
}

fn said(reply: u8, from: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![5, reply, 0];
    match from.ip() {
        IpAddr::V4(v4) => {
            bytes.push(1);
            bytes.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes.push(4);
            bytes.extend(v6.octets());
        }
    }
    bytes.extend(from.port().to_be_bytes());
    bytes
}

/// A length, and so many bytes; then the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
