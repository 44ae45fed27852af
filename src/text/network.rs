//! `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`: an address, or all addresses that share a prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::serde_as_text;

/// All addresses that begin with the same `prefix` bits. Bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network's lowest address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits: up to 32 for IPv4, up to 128 for IPv6.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in this network. An IPv4 network holds no IPv6 address, mapped ones included.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address, self.prefix) == Some(self.address)
    }

    /// The network's highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(first) => {
                let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() | host_bits).into()
            }
            IpAddr::V6(first) => {
                let host_bits = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() | host_bits).into()
            }
        }
    }
}

impl From<IpAddr> for Network {
    /// The network of this one address.
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// `address` with all bits after `prefix` cleared, or `None` when the prefix is longer than the address.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let host_bits = 32u32.checked_sub(prefix)?;
            Some(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let host_bits = 128u32.checked_sub(prefix)?;
            Some(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::from(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let unreadable = || NetworkError::Unreadable(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(text.parse::<IpAddr>().map_err(|_| unreadable())?.into());
        };
        let address: IpAddr = address.parse().map_err(|_| unreadable())?;
        let prefix = match prefix.as_bytes() {
            [b'0'..=b'9', ..] => prefix.parse::<u8>().map_err(|_| unreadable())?,
            _ => return Err(unreadable()),
        };
        let first = masked(address, prefix).ok_or_else(unreadable)?;
        if first == address {
            Ok(Self { address, prefix })
        } else {
            Err(NetworkError::HostBits { text: text.to_owned(), meant: Self { address: first, prefix } })
        }
    }
}

serde_as_text!(Network);

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix length.
    Unreadable(String),
    /// Bits are set after the prefix: a typing mistake somewhere.
    HostBits {
        /// What was written.
        text: String,
        /// The network that holds the address written.
        meant: Network,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) => write!(
                f,
                "`{}` is no address or network; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32",
                text.escape_debug()
            ),
            Self::HostBits { text, meant } => {
                write!(f, "`{text}` has bits set after its prefix; write {meant}")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_read_back_as_they_were_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7", "2001:db8::/32", "::/0", "2001:db8::7"] {
            assert_eq!(network(text).to_string(), text);
        }
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        assert!(network("10.0.0.0/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!network("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(!network("10.0.0.0/8").contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(network("2001:db8::/32").contains("2001:db8:ffff::1".parse().unwrap()));
        assert_eq!(network("10.0.0.0/8").last(), "10.255.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(network("192.0.2.7").last(), "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(network("::/0").last(), IpAddr::from([0xff; 16]));
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "host", "10.0.0/8"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Unreadable(text.into())), "{text}");
        }
        let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "`10.0.0.1/8` has bits set after its prefix; write 10.0.0.0/8");
    }
}
