//! Netlink attributes and nf_tables messages as bytes: written and taken apart without `unsafe`.
//!
//! An attribute is `length (2) | type (2) | payload | padding to 4`, length and type in host order, the length
//! without the padding (`linux/netlink.h`, "nlattr"). Numbers inside nf_tables attributes are big-endian.

use std::net::IpAddr;

/// Header of every netlink message: length, type, flags, sequence, sender (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;
/// What follows it in every nf_tables message: family, version, resource id (`struct nfgenmsg`).
pub(super) const SUBHEADER: usize = 4;

/// Message numbers of `enum nf_tables_msg_types`.
pub(super) mod kind {
    pub(in crate::nft) const NEWTABLE: u16 = 0;
    pub(in crate::nft) const GETTABLE: u16 = 1;
    pub(in crate::nft) const DELTABLE: u16 = 2;
    pub(in crate::nft) const NEWCHAIN: u16 = 3;
    pub(in crate::nft) const GETCHAIN: u16 = 4;
    pub(in crate::nft) const DELCHAIN: u16 = 5;
    pub(in crate::nft) const NEWRULE: u16 = 6;
    pub(in crate::nft) const GETRULE: u16 = 7;
    pub(in crate::nft) const DELRULE: u16 = 8;
    pub(in crate::nft) const NEWSET: u16 = 9;
    pub(in crate::nft) const GETSET: u16 = 10;
    pub(in crate::nft) const DELSET: u16 = 11;
    pub(in crate::nft) const NEWSETELEM: u16 = 12;
    pub(in crate::nft) const GETSETELEM: u16 = 13;
    pub(in crate::nft) const DELSETELEM: u16 = 14;
}

/// `NFNL_SUBSYS_NFTABLES`: the upper byte of the type of every nf_tables message.
pub(super) const SUBSYSTEM: u16 = 10;

/// A list of attributes being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, name: u16, payload: &[u8]) -> Self {
        // A length beyond 16 bits cannot be written; nothing here comes near it (the largest are names).
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&name.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn u32(self, name: u16, value: u32) -> Self {
        self.bytes(name, &value.to_be_bytes())
    }

    pub(super) fn u64(self, name: u16, value: u64) -> Self {
        self.bytes(name, &value.to_be_bytes())
    }

    /// A string with the NUL that the kernel expects at its end.
    pub(super) fn text(self, name: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(name, &bytes)
    }

    /// A list inside the list, marked with `NLA_F_NESTED`.
    pub(super) fn nest(self, name: u16, inner: Self) -> Self {
        const NLA_F_NESTED: u16 = 0x8000;
        self.bytes(name | NLA_F_NESTED, &inner.0)
    }

    /// The same with a list that is written down already.
    pub(super) fn nested(self, name: u16, inner: &[u8]) -> Self {
        self.nest(name, Self(inner.to_vec()))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in `bytes`, in order, up to the first that is malformed.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[a, b, c, d], _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let payload = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, payload))
    })
}

/// The payload of the first attribute called `name`.
pub(super) fn find(bytes: &[u8], name: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == name).map(|(_, payload)| payload)
}

pub(super) fn find_u32(bytes: &[u8], name: u16) -> Option<u32> {
    find(bytes, name)?.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn find_u64(bytes: &[u8], name: u16) -> Option<u64> {
    find(bytes, name)?.try_into().ok().map(u64::from_be_bytes)
}

/// A string attribute without its NUL; anything that is not UTF-8 counts as absent.
pub(super) fn find_text(bytes: &[u8], name: u16) -> Option<&str> {
    let payload = find(bytes, name)?;
    std::str::from_utf8(payload.split(|byte| *byte == 0).next()?).ok()
}

/// One received message: its type without the subsystem, flags, sequence, sender, and what follows.
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) sender: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// The messages in one datagram, up to the first that is malformed.
    pub(super) fn all(datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = datagram;
        std::iter::from_fn(move || {
            let (header, _) = rest.split_first_chunk::<HEADER>()?;
            let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
            let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
            let payload = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(Self {
                kind: u16::from_ne_bytes([k0, k1]),
                flags: u16::from_ne_bytes([f0, f1]),
                sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
                sender: u32::from_ne_bytes([p0, p1, p2, p3]),
                payload,
            })
        })
    }

    /// The attributes of an nf_tables message, after its subheader.
    pub(super) fn body(&self) -> &'a [u8] {
        self.payload.get(SUBHEADER..).unwrap_or_default()
    }

    /// The error number of an `NLMSG_ERROR` or `NLMSG_DONE` message; 0 is an acknowledgement.
    pub(super) fn errno(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The bytes of an address as a key field.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let bytes = Attributes::default()
            .text(1, "knockd-rs")
            .u32(2, 7)
            .nest(3, Attributes::default().u64(4, 1 << 40))
            .into_bytes();
        assert_eq!(find_text(&bytes, 1), Some("knockd-rs"));
        assert_eq!(find_u32(&bytes, 2), Some(7));
        assert_eq!(find(&bytes, 3).and_then(|inner| find_u64(inner, 4)), Some(1 << 40));
        assert_eq!(find(&bytes, 5), None);
    }

    #[test]
    fn an_attribute_is_padded_to_four_bytes_and_its_length_is_not() {
        let bytes = Attributes::default().bytes(6, &[0xaa]).into_bytes();
        assert_eq!(
            bytes,
            [5u16.to_ne_bytes(), 6u16.to_ne_bytes()]
                .concat()
                .into_iter()
                .chain([0xaa, 0, 0, 0])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_truncated_or_lying_length_ends_the_list() {
        let whole = Attributes::default().u32(1, 1).u32(2, 2).into_bytes();
        for end in 0..whole.len() {
            assert!(attributes(&whole[..end]).count() <= 1, "{end}");
        }
        assert_eq!(attributes(&[0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[0xff, 0xff, 1, 0, 9]).count(), 0);
        assert_eq!(Received::all(&[0; 64]).count(), 0);
        assert_eq!(Received::all(&[0xff; 64]).count(), 0);
    }
}
