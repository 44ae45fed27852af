//! The text of the packet filter, made from numbers: what the kernel throws away before it wakes this process.
//!
//! The filter is a sieve, not a judge. It may let through more than was asked for (IPv6 extension headers are
//! not followed); [`Filter::admits`] then decides on the parsed segment. It never drops what would be admitted.

use std::ops::RangeInclusive;

use crate::frame::{Link, MAX_EXTENSIONS, Segment};

/// What a UDP datagram has to look like to be worth a look: its port, and the lengths that a knock can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    port: u16,
    shortest: u16,
    longest: u16,
    step: u16,
}

/// The bytes of a UDP header (RFC 768).
const UDP_HEADER: u16 = 8;

impl Filter {
    /// Datagrams to `port` with a payload of `lengths` bytes, in steps of `step` from the shortest.
    ///
    /// # Panics
    /// When `step` is no power of two from 8 to 256 (IPv6 extension headers come in units of eight), or
    /// `lengths` is empty or longer than a datagram. These are constants of a knock format, not settings.
    #[must_use]
    pub fn new(port: u16, lengths: RangeInclusive<u16>, step: u16) -> Self {
        let (shortest, longest) = (*lengths.start(), *lengths.end());
        assert!(step.is_power_of_two() && (8..=256).contains(&step), "a step of {step} bytes");
        assert!(shortest <= longest && longest < u16::MAX - 512, "payloads of {shortest} to {longest} bytes");
        Self { port, shortest, longest, step }
    }

    /// Whether this segment is what the filter is for: the exact form of what the kernel's filter sifts.
    #[must_use]
    pub fn admits(&self, segment: &Segment<'_>) -> bool {
        segment.port == self.port
            && u16::try_from(segment.payload.len()).is_ok_and(|length| {
                (self.shortest..=self.longest).contains(&length) && (length - self.shortest) % self.step == 0
            })
    }

    /// The filter in the language of `pcap-filter(7)`. `None` for NFLOG, which libpcap cannot filter by
    /// protocol: there the firewall's own rule has chosen already.
    #[must_use]
    pub fn text(&self, link: Link) -> Option<String> {
        match link {
            Link::Nflog => None,
            Link::Ethernet => Some(self.with_tags()),
            Link::LinuxSll | Link::LinuxSll2 | Link::RawIp | Link::Loopback => Some(self.untagged()),
        }
    }

    /// `vlan` moves all offsets that stand after it in the text, so the plain form comes first and each tag
    /// wraps the next. On a live device libpcap makes it look at the kernel's metadata too: drivers and the
    /// kernel take the outer tag out of the frame.
    fn with_tags(&self) -> String {
        let plain = self.untagged();
        format!("{plain} or (vlan and ({plain} or (vlan and ({plain}))))")
    }

    fn untagged(&self) -> String {
        let (shortest, longest) = (self.shortest + UDP_HEADER, self.longest + UDP_HEADER);
        let (mask, rest) = (self.step - 1, shortest % self.step);
        let extended = usize::from(longest) + MAX_EXTENSIONS;
        let port = self.port;
        // IPv4: `udp[..]` follows the header length and passes later fragments over by itself; 0x3fff is "more
        // fragments" and the offset. IPv6: `udp[..]` means IPv4 alone, so the offsets are written out: 40 bytes
        // of header, destination port and length at 2 and 4. 0, 43 and 60 are the extension headers which the
        // parser reads; they are followed there, and only the length is sifted here.
        format!(
            "(ip and udp dst port {port} and ip[6:2] & 0x3fff = 0 \
             and udp[4:2] >= {shortest} and udp[4:2] <= {longest} and udp[4:2] & {mask} = {rest}) \
             or (ip6 and ip6[6] = 17 and ip6[42:2] = {port} \
             and ip6[44:2] >= {shortest} and ip6[44:2] <= {longest} and ip6[44:2] & {mask} = {rest}) \
             or (ip6 and (ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 60) \
             and ip6[4:2] > {shortest} and ip6[4:2] <= {extended} and ip6[4:2] & 7 = {})",
            rest % 8
        )
    }
}
