//! What can be wrong with the request of a client that proved who it is.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::session::Uses;
use crate::text::PortError;
use crate::x509::chain::Rejection;
use crate::x509::scope::ScopeError;

use super::MAX_ENTRIES;

/// Why a client's request cannot be granted, whatever its profile says. Each prints as one sentence for the
/// administrator's log that says what to do; durations are rounded up to seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client speaks another version of the protocol.
    Version(u8),
    /// Flags that this version gives no meaning; carries those bits.
    Flags(u8),
    /// Session flags that this version does not enforce; carries those bits.
    SessionFlags(u8),
    /// A number of connections that is none, or that stands beside the flag for a single one.
    Connections(u8),
    /// The operation "query", which wants an answer.
    Query,
    /// Bytes after the last entry that are not zero.
    Padding,
    /// What is wrong with the ports asked for.
    Entries(EntryFault),
    /// The address field and the flags contradict each other; `given` says which of them names an address.
    Address {
        /// Whether the field holds an address. It does and no flag asks for one, or the other way round.
        given: bool,
    },
    /// The packet must come from the address that it names, and did not.
    SourceMismatch {
        /// The address that the client named.
        named: IpAddr,
        /// Where the packet came from.
        source: IpAddr,
    },
    /// The counter is not above the last one.
    Replayed {
        /// How far below the last one; zero when it is the same.
        behind: Duration,
    },
    /// Made too long ago.
    Stale {
        /// How much longer ago than allowed.
        by: Duration,
        /// The age that is allowed.
        max_age: Duration,
    },
    /// Made too far in the future.
    Ahead {
        /// How much farther than allowed.
        by: Duration,
        /// The lead that is allowed.
        max_ahead: Duration,
    },
    /// The server's clock is not synchronised, and the counter is farther ahead than any real one would be.
    Jump {
        /// How much farther than allowed.
        by: Duration,
    },
    /// The client showed a certificate that is of no use here.
    Certificate {
        /// The certificate's subject.
        subject: String,
        /// What is wrong with it.
        why: Box<CertificateFault>,
    },
    /// The server lost its replay state and waits until nothing that was used before can be fresh.
    Quarantine {
        /// How long it will still wait.
        remaining: Duration,
    },
}

/// What is wrong with a certificate of one of our authorities, whose owner has proved to be its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is not good, or not good now.
    Rejected(Rejection),
    /// What it says about what its owner may open cannot be read.
    Scope(ScopeError),
    /// No rule is for it.
    Unmapped,
}

impl CertificateFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.name(),
            Self::Scope(_) => "cert-scope",
            Self::Unmapped => "cert-unmapped",
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Scope(error) => write!(f, "it {error}; issue a new one"),
            Self::Unmapped => f.write_str("no [[certificates]] table is for it; add one, or widen a pattern"),
        }
    }
}

/// What is wrong with the ports that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// More than [`MAX_ENTRIES`].
    Count(u8),
    /// An IP protocol number other than TCP's and UDP's.
    Protocol(u8),
    /// Port 0, or a range that ends before it begins.
    Ports(PortError),
    /// Both a service and ports of its own.
    WithService,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "the knock is of version {version}, and this server speaks version 1; bring both to the same release"
            ),
            Self::Flags(bits) => {
                write!(f, "the knock sets flags 0x{bits:02x}, which mean nothing here; bring both to the same release")
            }
            Self::SessionFlags(bits) => {
                write!(f, "the knock sets session flags 0x{bits:02x}, which this server does not enforce; leave them out")
            }
            Self::Connections(count) => write!(
                f,
                "the knock asks for {count} connections in a form that is none; ask for 2 to {} of them, or for a single one",
                Uses::MOST
            ),
            Self::Query => f.write_str(
                "the knock asks what is open, and this server never answers; use `knockd-rs status` on the server",
            ),
            Self::Padding => f.write_str("the knock's padding is not zero; bring both to the same release"),
            Self::Entries(fault) => fault.fmt(f),
            Self::Address { given: true } => {
                f.write_str("the knock names an address without a flag that says what for; set flag 2 or 3")
            }
            Self::Address { given: false } => {
                f.write_str("the knock's flags announce an address and it names none; name one, or clear flags 2 and 3")
            }
            Self::SourceMismatch { named, source } => write!(
                f,
                "the knock is good only when sent from {named}, and came from {source}; if that is the client \
                 behind an address translator, let it knock without --pin"
            ),
            Self::Certificate { subject, why } => write!(f, "the certificate of {subject} is refused: {why}"),
            other => other.fmt_time(f),
        }
    }
}

impl Fault {
    /// A short, fixed name for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Flags(_) => "flags",
            Self::SessionFlags(_) => "session-flags",
            Self::Connections(_) => "connections",
            Self::Query => "query",
            Self::Padding => "padding",
            Self::Entries(_) => "entries",
            Self::Address { .. } => "address-field",
            Self::SourceMismatch { .. } => "source-mismatch",
            Self::Replayed { .. } => "replayed",
            Self::Stale { .. } => "stale",
            Self::Ahead { .. } => "ahead",
            Self::Jump { .. } => "jump",
            Self::Quarantine { .. } => "quarantine",
            Self::Certificate { why, .. } => why.name(),
        }
    }

    /// At which of the steps of a packet's way the knock was refused.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Replayed { .. } => "replay",
            Self::Stale { .. } | Self::Ahead { .. } | Self::Jump { .. } | Self::Quarantine { .. } => {
                "freshness"
            }
            Self::Certificate { .. } => "certificate",
            _ => "fields",
        }
    }

    /// The sentences about time.
    fn fmt_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replayed { behind: Duration::ZERO } => f.write_str(
                "the knock's counter was used before: a copy, sent again by somebody, or two clients that share a key; \
                 give each client its own profile",
            ),
            Self::Replayed { behind } => write!(
                f,
                "the knock's counter is {} s behind the client's last one: a copy of an old knock, or the client's \
                 clock was set back and its counter file lost; check the client's clock and knock again",
                seconds(*behind)
            ),
            Self::Stale { by, max_age } => write!(
                f,
                "the knock is {} s older than this server's clock allows (at most {} s); set the clocks of both, or \
                 raise max_age in the profile",
                seconds(*by),
                seconds(*max_age)
            ),
            Self::Ahead { by, max_ahead } => write!(
                f,
                "the knock is {} s farther ahead than this server's clock allows (at most {} s); set the clocks of \
                 both, or raise max_ahead in the profile",
                seconds(*by),
                seconds(*max_ahead)
            ),
            Self::Jump { by } => write!(
                f,
                "the knock is dated {} days farther ahead than is believed (at most 400) while this server's clock is \
                 not synchronised; set the clock of the client, or of the server",
                seconds(*by).div_ceil(86_400)
            ),
            Self::Quarantine { remaining } => write!(
                f,
                "this server lost its record of used knocks and refuses all for another {} s; knock again after that",
                seconds(*remaining)
            ),
            // `Display` hands over only what it does not print itself.
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => {
                write!(f, "the knock names {count} port ranges; name at most {MAX_ENTRIES}, or a service")
            }
            Self::Protocol(number) => {
                write!(f, "the knock names IP protocol {number}; only tcp (6) and udp (17) can be opened")
            }
            Self::Ports(error) => write!(f, "the knock names ports that are none: {error}"),
            Self::WithService => {
                f.write_str("the knock names a service and ports besides; name one or the other")
            }
        }
    }
}

/// Rounded up: "0 s too old" would be no reason.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
