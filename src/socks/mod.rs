//! SOCKS as a server speaks it: versions 5 (RFC 1928, RFC 1929), 4 and 4a, the command CONNECT alone.
//!
//! Bytes in, steps out; the caller has the socket, the clock and the decision. What a client says is bounded by the
//! format, so nothing is kept of it but what the caller holds. No library fits: those with a server's half bring
//! tokio; `tor-socksproto`, which has no socket either, brings Tor's cryptography and lets any password pass; `socker`
//! has the messages without their order, which is the greater half.
#![forbid(unsafe_code)]

mod password;
#[cfg(test)]
mod tests;
mod v4;
mod v5;

use std::net::{IpAddr, SocketAddr};

pub use password::Password;

/// What is heard of one client at the most: the longest messages of either version fit into it.
pub const MAX_HEARD: usize = 1024;

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// A host as a client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Looked up by the client, or never a name.
    Address(IpAddr),
    /// To be looked up here: letters, digits, `-`, `_` and `.`, at most 255 of them.
    Name(String),
}

impl Host {
    /// `None` for what no resolver should be asked.
    fn named(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=255).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('-');
        is_name.then(|| Self::Name(text.to_owned()))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, from this address.
    Connected(SocketAddr),
    /// Something here is at fault.
    Failed,
    /// The network cannot be reached.
    NetworkUnreachable,
    /// The host cannot be reached, or its name has no address.
    HostUnreachable,
    /// The connection was refused.
    Refused,
    /// Nothing answered in time.
    TimedOut,
}

/// What follows from what a client has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More has to come.
    Wait,
    /// So many bytes are done with; this is to be said, and the rest looked at again.
    Say {
        /// How many bytes.
        taken: usize,
        /// What to say.
        answer: Vec<u8>,
    },
    /// So many bytes are done with, and this is wanted; [`Handshake::answer`] has the words for what came of it. What
    /// was heard beyond them is for the destination.
    Connect {
        /// How many bytes.
        taken: usize,
        /// Where to.
        destination: Destination,
    },
    /// This is to be said, if anything, and then it is over.
    End {
        /// What to say.
        answer: Vec<u8>,
        /// Why.
        why: Fault,
    },
}

/// Why a client is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not speak SOCKS.
    NotSocks,
    /// A password is needed, and the client offers none.
    NoPassword,
    /// The name or the password is wrong.
    WrongPassword,
    /// Something else than CONNECT is asked for.
    Command,
    /// The destination has no form that is known here.
    Address,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotSocks => "what it said is not SOCKS",
            Self::NoPassword => {
                "it offered no password, and one is needed (SOCKS5 carries them, SOCKS4 does not)"
            }
            Self::WrongPassword => "its name or password is wrong",
            Self::Command => "it asked for something else than CONNECT",
            Self::Address => "the destination is no host",
        })
    }
}

/// One client's way to its request.
#[derive(Debug)]
pub struct Handshake<'a> {
    password: Option<&'a Password>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was said yet; the first byte is the version.
    Begun,
    /// SOCKS5: name and password come next.
    Password,
    /// SOCKS5: the request comes next.
    Request,
    /// A request was made in this version.
    Asked4,
    Asked5,
}

impl<'a> Handshake<'a> {
    /// With a password, who does not know it asks for nothing.
    #[must_use]
    pub fn new(password: Option<&'a Password>) -> Self {
        Self { password, stage: Stage::Begun }
    }

    /// What follows from these bytes: all that was heard and not yet taken.
    pub fn next(&mut self, heard: &[u8]) -> Step {
        let step = match (self.stage, heard) {
            (_, []) => return Step::Wait,
            (Stage::Begun, [4, ..]) if self.password.is_some() => {
                return Step::End { answer: v4::REJECTED.to_vec(), why: Fault::NoPassword };
            }
            (Stage::Begun, [4, rest @ ..]) => v4::request(rest),
            (Stage::Begun, [5, rest @ ..]) => v5::greeting(rest, self.password.is_some()),
            (Stage::Password, all) => v5::password(all, self.password),
            (Stage::Request, all) => v5::request(all),
            (Stage::Begun | Stage::Asked4 | Stage::Asked5, _) => {
                return Step::End { answer: Vec::new(), why: Fault::NotSocks };
            }
        };
        self.stage = match (&step, self.stage) {
            (Step::Say { answer, .. }, Stage::Begun) if *answer == v5::PASSWORD_PLEASE => Stage::Password,
            (Step::Say { .. }, _) => Stage::Request,
            (Step::Connect { .. }, Stage::Begun) => Stage::Asked4,
            (Step::Connect { .. }, _) => Stage::Asked5,
            (_, stage) => stage,
        };
        step
    }

    /// The words for what came of the request.
    #[must_use]
    pub fn answer(&self, outcome: Outcome) -> Vec<u8> {
        if self.stage == Stage::Asked4 { v4::answer(outcome) } else { v5::answer(outcome) }
    }
}
