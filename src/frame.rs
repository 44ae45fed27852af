//! Link-layer bytes → [`Segment`].
#![forbid(unsafe_code)]

use std::net::IpAddr;

/// A whole UDP datagram in a whole, unfragmented IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it, as far as the packet says.
    pub source: IpAddr,
    /// To which address.
    pub destination: IpAddr,
    /// To which UDP port.
    pub port: u16,
    /// The datagram's payload.
    pub payload: &'a [u8],
}
