//! The text of the packet filter, made from numbers: what the kernel throws away before it wakes this process.
//!
//! The filter is a sieve, not a judge. It may let through more than was asked for (IPv6 extension headers are
//! not followed, many scattered ports become fewer, wider ranges); [`Filter::admits`] then decides on the parsed
//! segment. It never drops what would be admitted. It grows with the methods in use: what no profile can use to
//! knock is not looked at.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::frame::{Body, Link, MAX_EXTENSIONS, Segment};
use crate::text::{PortRange, Protocol};

/// What a segment has to look like to be worth a look. The default admits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    datagrams: Option<Datagrams>,
    syns: Ports,
    any_datagrams: Ports,
}

/// Datagrams to one port whose payload has a length that a knock can have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagrams {
    port: u16,
    shortest: u16,
    longest: u16,
    step: u16,
}

/// Why a segment is not worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No method in use knocks at this port with this protocol.
    Port,
    /// A datagram to the knock port whose length no knock has.
    Length,
}

impl Miss {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Port, Self::Length];

    /// A short, fixed name for machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "other-port",
            Self::Length => "other-length",
        }
    }

    /// What it means, and what to do, for whoever looks for a knock that did not work.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Port => {
                "no method in use knocks at this port with this protocol; if it was meant as a knock, compare capture.port \
                 with the client's file, and methods in its profile"
            }
            Self::Length => {
                "sent to the knock port, with a length that no knock has; it comes from another program"
            }
        }
    }
}

/// The bytes of a UDP header (RFC 768).
const UDP_HEADER: u16 = 8;

/// How many ranges of one protocol the kernel's filter tells apart: three copies of each (plain, one tag, two) must
/// fit the 4,096 instructions of a filter (`BPF_MAXINSNS`, `linux/bpf_common.h`).
const MAX_RANGES: usize = 32;

impl Filter {
    /// Admits datagrams to `port` with a payload of `lengths` bytes, in steps of `step` from the shortest.
    ///
    /// # Panics
    /// When `step` is no power of two from 8 to 256 (IPv6 extension headers come in units of eight), or
    /// `lengths` is empty or longer than a datagram. These are constants of a knock format, not settings.
    #[must_use]
    pub fn datagrams(mut self, port: u16, lengths: RangeInclusive<u16>, step: u16) -> Self {
        let (shortest, longest) = (*lengths.start(), *lengths.end());
        assert!(step.is_power_of_two() && (8..=256).contains(&step), "a step of {step} bytes");
        assert!(shortest <= longest && longest < u16::MAX - 512, "payloads of {shortest} to {longest} bytes");
        self.datagrams = Some(Datagrams { port, shortest, longest, step });
        self
    }

    /// Admits bare SYNs, or datagrams of any length, to these ports.
    #[must_use]
    pub fn ports(mut self, ports: PortRange) -> Self {
        let of_protocol = match ports.protocol() {
            Protocol::Tcp => &mut self.syns,
            Protocol::Udp => &mut self.any_datagrams,
            // Nobody knocks by it.
            Protocol::Sctp => return self,
        };
        of_protocol.add(ports.first()..=ports.last());
        self
    }

    /// Whether this segment is what the filter is for: the exact form of what the kernel's filter sifts.
    #[must_use]
    pub fn admits(&self, segment: &Segment<'_>) -> bool {
        match segment.body {
            Body::Syn(_) => self.syns.contains(segment.port),
            Body::Datagram(payload) => {
                self.datagrams.as_ref().is_some_and(|knocks| knocks.admits(segment.port, payload.len()))
                    || self.any_datagrams.contains(segment.port)
            }
        }
    }

    /// Why a segment is not admitted; `None` when it is.
    #[must_use]
    pub fn miss(&self, segment: &Segment<'_>) -> Option<Miss> {
        let is_knock_port = self.datagrams.as_ref().is_some_and(|knocks| knocks.port == segment.port);
        match segment.body {
            _ if self.admits(segment) => None,
            Body::Datagram(_) if is_knock_port => Some(Miss::Length),
            Body::Datagram(_) | Body::Syn(_) => Some(Miss::Port),
        }
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

    /// IPv4: `udp[..]` and `tcp[..]` follow the header length and pass later fragments over by themselves; 0x3fff is
    /// "more fragments" and the offset. IPv6: they mean IPv4 alone, so the offsets are written out behind 40 bytes
    /// of header. 0, 43 and 60 are the extension headers which the parser reads; they are followed there, and only
    /// the length is sifted here.
    fn untagged(&self) -> String {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        if let Some(knocks) = &self.datagrams {
            v4.push(knocks.text("udp[2:2]", "udp[4:2]"));
            v6.push(format!("(ip6[6] = 17 and {})", knocks.text("ip6[42:2]", "ip6[44:2]")));
        }
        if let Some(ports) = self.any_datagrams.text("udp[2:2]") {
            v4.push(format!("(udp and {ports})"));
        }
        if let Some(ports) = self.any_datagrams.text("ip6[42:2]") {
            v6.push(format!("(ip6[6] = 17 and {ports})"));
        }
        // The flags: of FIN 1, SYN 2, RST 4 and ACK 16 only SYN (RFC 9293 section 3.1).
        if let Some(ports) = self.syns.text("tcp[2:2]") {
            v4.push(format!("(tcp[13] & 0x17 = 2 and {ports})"));
        }
        if let Some(ports) = self.syns.text("ip6[42:2]") {
            v6.push(format!("(ip6[6] = 6 and ip6[53] & 0x17 = 2 and {ports})"));
        }
        if v4.is_empty() {
            // Nothing at all: no packet is longer than 64 KiB.
            return "(greater 1000000)".to_owned();
        }
        // What comes after the first of them is another one, TCP or UDP: not the reports of multicast listeners, which
        // have a hop-by-hop header and come by themselves.
        v6.push(format!(
            "((ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 60) \
             and (ip6[40] = 6 or ip6[40] = 17 or ip6[40] = 43 or ip6[40] = 60){})",
            self.behind_extensions()
        ));
        format!("(ip and ip[6:2] & 0x3fff = 0 and ({})) or (ip6 and ({}))", v4.join(" or "), v6.join(" or "))
    }

    /// What is known of the length of a packet with extension headers: much where only knocks of a fixed form are
    /// looked for, little where any small packet could be one.
    fn behind_extensions(&self) -> String {
        match &self.datagrams {
            Some(knocks) if self.syns.is_empty() && self.any_datagrams.is_empty() => {
                let (shortest, longest) = (knocks.shortest + UDP_HEADER, knocks.longest + UDP_HEADER);
                let extended = usize::from(longest) + MAX_EXTENSIONS;
                format!(
                    " and ip6[4:2] > {shortest} and ip6[4:2] <= {extended} and ip6[4:2] & 7 = {}",
                    shortest % 8
                )
            }
            _ => String::new(),
        }
    }
}

impl Datagrams {
    fn admits(&self, port: u16, length: usize) -> bool {
        port == self.port
            && u16::try_from(length).is_ok_and(|length| {
                (self.shortest..=self.longest).contains(&length) && (length - self.shortest) % self.step == 0
            })
    }

    /// `port` and `length`: where the fields of the UDP header are found.
    fn text(&self, port: &str, length: &str) -> String {
        let (shortest, longest) = (self.shortest + UDP_HEADER, self.longest + UDP_HEADER);
        let (mask, rest) = (self.step - 1, shortest % self.step);
        let knock_port = self.port;
        format!(
            "({port} = {knock_port} and {length} >= {shortest} and {length} <= {longest} and {length} & {mask} = {rest})"
        )
    }
}

/// A set of ports: one bit each, so that a look-up costs the same however many there are. 8 KiB once there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ports(Vec<u64>);

impl Ports {
    fn add(&mut self, ports: RangeInclusive<u16>) {
        self.0.resize(1024, 0);
        for port in ports {
            if let Some(word) = self.0.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
    }

    fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 == 1)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports as ranges: at most [`MAX_RANGES`], the ones with the smallest gaps between them joined.
    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in (0..=u16::MAX).filter(|port| self.contains(*port)) {
            match ranges.last_mut() {
                Some((_, last)) if port - *last == 1 => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        if ranges.len() > MAX_RANGES {
            let pairs = || ranges.iter().zip(ranges.iter().skip(1));
            let mut gaps: Vec<u16> = pairs().map(|((_, last), (first, _))| first - last).collect();
            gaps.sort_unstable_by(|a, b| b.cmp(a));
            // Only gaps wider than this one are kept: fewer than `MAX_RANGES`, however many are equal.
            let kept = gaps.get(MAX_RANGES - 1).copied().unwrap_or(0);
            let mut joined: Vec<(u16, u16)> = Vec::new();
            for (first, last) in ranges {
                match joined.last_mut() {
                    Some(before) if first - before.1 <= kept => before.1 = last,
                    _ => joined.push((first, last)),
                }
            }
            return joined;
        }
        ranges
    }

    /// `port`: where the destination port is found. `None` when there are none.
    fn text(&self, port: &str) -> Option<String> {
        let mut text = String::new();
        for (first, last) in self.ranges() {
            let or = if text.is_empty() { "(" } else { " or " };
            // Writing to a string cannot fail.
            let _ = match first == last {
                true => write!(text, "{or}{port} = {first}"),
                false => write!(text, "{or}({port} >= {first} and {port} <= {last})"),
            };
        }
        (!text.is_empty()).then(|| text + ")")
    }
}
