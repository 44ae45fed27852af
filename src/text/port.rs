//! `tcp/22`, `udp/53`, `sctp/3868`, `tcp/8000-8100`: a transport protocol and the ports of one range.

use std::fmt;
use std::str::FromStr;

use super::serde_as_text;

/// A transport protocol that a guard or a grant can name; the value is its IP protocol number
/// (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp = 6,
    /// UDP, RFC 768.
    Udp = 17,
    /// SCTP, RFC 9260.
    Sctp = 132,
}

impl Protocol {
    /// The protocol with this IP protocol number, where it is one that can be guarded.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One or more neighbouring ports of one protocol. Never empty, never port 0, never backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    protocol: Protocol,
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports `first..=last`.
    ///
    /// # Errors
    /// [`PortError::Zero`] for port 0, [`PortError::Backwards`] when `last` is below `first`.
    pub fn new(protocol: Protocol, first: u16, last: u16) -> Result<Self, PortError> {
        match (first, last) {
            (0, _) | (_, 0) => Err(PortError::Zero),
            _ if last < first => Err(PortError::Backwards { first, last }),
            _ => Ok(Self { protocol, first, last }),
        }
    }

    /// One port.
    ///
    /// # Errors
    /// [`PortError::Zero`] for port 0.
    pub fn single(protocol: Protocol, port: u16) -> Result<Self, PortError> {
        Self::new(protocol, port, port)
    }

    /// The transport protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The lowest port.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The highest port, equal to [`first`](Self::first) for a single one.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether this is one port alone.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// Whether every port of `other` is one of these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// The ports in both, if any.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.protocol == other.protocol && first <= last).then_some(Self { first, last, ..*self })
    }

    /// Both as one range, when they overlap or are neighbours.
    #[must_use]
    pub fn join(&self, other: &Self) -> Option<Self> {
        let gap = self.first.max(other.first).saturating_sub(self.last.min(other.last));
        (self.protocol == other.protocol && gap <= 1).then(|| Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            ..*self
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, first, last } = self;
        if self.is_single() {
            write!(f, "{protocol}/{first}")
        } else {
            write!(f, "{protocol}/{first}-{last}")
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let unreadable = || PortError::Unreadable(text.to_owned());
        let (protocol, ports) = text.split_once('/').ok_or_else(unreadable)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(unreadable()),
        };
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'..=b'9', ..] => digits.parse::<u16>().map_err(|_| unreadable()),
            _ => Err(unreadable()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Self::new(protocol, number(first)?, number(last)?)
    }
}

serde_as_text!(PortRange);

/// Why a text is no port range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortError {
    /// Not of the form `tcp/22` or `udp/8000-8100`.
    Unreadable(String),
    /// Port 0 cannot be guarded or opened.
    Zero,
    /// The range ends before it begins.
    Backwards {
        /// The first number written.
        first: u16,
        /// The second number written, which is lower.
        last: u16,
    },
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) => {
                write!(f, "`{}` is no port; write tcp/22, udp/53 or tcp/8000-8100", text.escape_debug())
            }
            Self::Zero => f.write_str("port 0 cannot be opened; use 1 to 65535"),
            Self::Backwards { first, last } => {
                write!(f, "the range {first}-{last} ends before it begins; write {last}-{first}")
            }
        }
    }
}

impl std::error::Error for PortError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_back_as_they_were_written() {
        for text in ["tcp/22", "udp/53", "tcp/8000-8100", "udp/1-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_told_what_to_write() {
        for text in
            ["22", "tcp", "tcp/", "TCP/22", "tcp/+22", "tcp/22-", "tcp/70000", "icmp/8", "tcp/ 22", ""]
        {
            assert_eq!(text.parse::<PortRange>(), Err(PortError::Unreadable(text.into())), "{text}");
        }
        assert_eq!("tcp/0".parse::<PortRange>(), Err(PortError::Zero));
        assert_eq!("tcp/9-8".parse::<PortRange>(), Err(PortError::Backwards { first: 9, last: 8 }));
    }

    #[test]
    fn an_intersection_never_holds_a_port_that_one_side_lacks() {
        let range = |text: &str| text.parse::<PortRange>().unwrap();
        assert_eq!(range("tcp/10-20").intersection(&range("tcp/15-30")), Some(range("tcp/15-20")));
        assert_eq!(range("tcp/10-20").intersection(&range("udp/15-30")), None);
        assert_eq!(range("tcp/10-20").intersection(&range("tcp/21")), None);
        assert!(range("tcp/10-20").contains(&range("tcp/20")));
        assert!(!range("tcp/10-20").contains(&range("tcp/20-21")));
    }
}
