//! Which network this machine is in, as far as a client has to know: whether it is the same as last time.
//!
//! A network is told by the router that leads to the server: its address and, where the kernel shows it, its hardware
//! address. What is kept is a hash, so that the state of a client is no list of the places where its user was.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::datagram;
use crate::crypto::sha256;

/// A network, as this client tells one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(pub(super) [u8; 8]);

impl Network {
    /// The network that leads to this address now; `None` when there is none.
    #[must_use]
    pub fn towards(address: SocketAddr) -> Option<Self> {
        Sight::towards(address).map(|sight| sight.network)
    }

    fn named(name: &str) -> Self {
        let hash = sha256(&[b"knockd-rs network", name.as_bytes()]);
        let mut short = [0; 8];
        short.iter_mut().zip(hash).for_each(|(short, byte)| *short = byte);
        Self(short)
    }
}

/// What is seen of a network from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// The address that packets leave from.
    pub(super) source: IpAddr,
    /// The network.
    pub(super) network: Network,
    /// The same by its router's address alone: all that is known before the router was spoken to.
    bare: Network,
}

impl Sight {
    /// What is seen towards this address; `None` when nothing leads there.
    pub(super) fn towards(address: SocketAddr) -> Option<Self> {
        let source = datagram::connect(address).ok()?.local_addr().ok()?.ip();
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let (router, hardware) = match address.ip() {
            IpAddr::V4(to) => match router4(&read("/proc/net/route"), to) {
                Some((device, router)) => {
                    let hardware = hardware_of(&read("/proc/net/arp"), router).map(str::to_owned);
                    (Some(format!("{device} {router}")), hardware)
                }
                None => (None, None),
            },
            IpAddr::V6(to) => {
                let routes = read("/proc/net/ipv6_route");
                (router6(&routes, to).map(|(device, router)| format!("{device} {router}")), None)
            }
        };
        // Without a router the server is a neighbour: the network is that of the own address.
        let bare = router.unwrap_or_else(|| neighbourhood(source));
        let network = hardware
            .map_or_else(|| Network::named(&bare), |known| Network::named(&format!("{bare} {known}")));
        Some(Self { source, network, bare: Network::named(&bare) })
    }

    /// Whether `now` is another place, as far as one can see. That a router has become known is no change.
    pub(super) fn is_left_for(&self, now: &Self) -> bool {
        let was_vague = self.network == self.bare;
        self.source != now.source || self.bare != now.bare || (self.network != now.network && !was_vague)
    }
}

/// The /24 or /64 of an address.
fn neighbourhood(here: IpAddr) -> String {
    match here {
        IpAddr::V4(here) => format!("{}/24", Ipv4Addr::from(u32::from(here) & !0xff)),
        IpAddr::V6(here) => format!("{}/64", Ipv6Addr::from(u128::from(here) & !u128::from(u64::MAX))),
    }
}

/// Device and router of the most specific route in `/proc/net/route` (`proc_net(5)`): numbers are hexadecimal, and
/// addresses in the host's byte order.
fn router4(routes: &str, to: Ipv4Addr) -> Option<(&str, Ipv4Addr)> {
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let best = routes.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, network, router) = (words.first()?, address(words.get(1)?)?, address(words.get(2)?)?);
        let mask = address(words.get(7)?)?;
        let is_through = u32::from(to) & u32::from(mask) == u32::from(network);
        is_through.then(|| (u32::from(mask).count_ones(), *device, router))
    });
    let (_, device, router) = best.max_by_key(|(length, ..)| *length)?;
    (!router.is_unspecified()).then_some((device, router))
}

/// The same of `/proc/net/ipv6_route`: destination, prefix length, source, prefix length, next hop, metric, two
/// counters, flags, device.
fn router6(routes: &str, to: Ipv6Addr) -> Option<(&str, Ipv6Addr)> {
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let best = routes.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let length = u32::from_str_radix(words.get(1)?, 16).ok()?;
        let (network, router) = (address(words.first()?)?, address(words.get(4)?)?);
        let (flags, device) = (u32::from_str_radix(words.get(8)?, 16).ok()?, *words.get(9)?);
        let mask = u128::MAX.checked_shl(128_u32.checked_sub(length)?).unwrap_or(0);
        let is_through = u128::from(to) & mask == u128::from(network) && flags & REJECTS == 0;
        is_through.then_some((length, device, router))
    });
    let (_, device, router) = best.max_by_key(|(length, ..)| *length)?;
    (!router.is_unspecified()).then_some((device, router))
}

/// `RTF_REJECT` of `linux/route.h`.
const REJECTS: u32 = 0x0200;

/// The hardware address of a neighbour in `/proc/net/arp`.
fn hardware_of(neighbours: &str, router: Ipv4Addr) -> Option<&str> {
    neighbours.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next()?.parse() == Ok(router);
        // All zero while nothing has answered.
        is_it.then(|| words.nth(2).filter(|address| *address != "00:00:00:00:00:00")).flatten()
    })
}

/// For the fuzzer: what is found in the kernel's tables stands in them.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(text: &str) {
    let found = router4(text, Ipv4Addr::new(192, 0, 2, 7)).map(|(device, _)| device);
    let found6 = router6(text, Ipv6Addr::LOCALHOST).map(|(device, _)| device);
    let hardware = hardware_of(text, Ipv4Addr::new(192, 0, 2, 1));
    assert!([found, found6, hardware].into_iter().flatten().all(|word| text.contains(word)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan0\t0000A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
tun0\t0000000A\t0101010A\t0003\t0\t0\t50\t000000FF\t0\t0\t0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_most_specific_route_tells_the_router() {
        let through = |to: &str| router4(ROUTES, to.parse().unwrap());
        assert_eq!(through("203.0.113.5"), Some(("wlan0", Ipv4Addr::new(192, 168, 0, 1))));
        assert_eq!(through("10.2.3.4"), Some(("tun0", Ipv4Addr::new(10, 1, 1, 1))));
        assert_eq!(through("192.168.0.7"), None, "a neighbour has no router");
        assert_eq!(router4("", Ipv4Addr::LOCALHOST), None);
        assert_eq!(router4("head\nwlan0 zz\n", Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn routes_of_ipv6_are_read_likewise_and_rejecting_ones_passed_over() {
        let zero = "0".repeat(32);
        let line = |to: &str, length: u32, via: &str, flags: u32, device: &str| {
            format!("{to} {length:02x} {zero} 00 {via} 00000400 00000001 00000000 {flags:08x} {device:>8}\n")
        };
        let via = "fe800000000000000000000000000001";
        let routes = line(&zero, 0, via, 3, "wlan0")
            + &line("20010db8000000000000000000000000", 64, &zero, 1, "wlan0")
            + &line(&zero, 0, &zero, 0x0020_0200, "lo");
        let through = |to: &str| router6(&routes, to.parse().unwrap());
        assert_eq!(through("2001:db8:1::1"), Some(("wlan0", "fe80::1".parse().unwrap())));
        assert_eq!(through("2001:db8::9"), None);
    }

    #[test]
    fn a_router_is_known_by_its_hardware_address_and_no_name_of_a_network_is_kept() {
        let neighbours = "IP address HW type Flags HW address Mask Device\n\
                          192.168.0.1 0x1 0x2 00:11:22:33:44:55 * wlan0\n";
        assert_eq!(hardware_of(neighbours, Ipv4Addr::new(192, 168, 0, 1)), Some("00:11:22:33:44:55"));
        assert_eq!(hardware_of(neighbours, Ipv4Addr::new(192, 168, 0, 2)), None);
        assert_ne!(Network::named("wlan0 192.168.0.1 a"), Network::named("wlan0 192.168.0.1 b"));
    }

    #[test]
    fn a_router_that_becomes_known_is_no_move_and_another_one_or_another_address_is() {
        let sight = |source: [u8; 4], name: &str, hardware: &str| Sight {
            source: source.into(),
            network: Network::named(&format!("{name}{hardware}")),
            bare: Network::named(name),
        };
        let vague = sight([10, 0, 0, 2], "wlan0 10.0.0.1", "");
        let known = sight([10, 0, 0, 2], "wlan0 10.0.0.1", " a");
        assert!(!vague.is_left_for(&known) && !known.is_left_for(&known));
        assert!(known.is_left_for(&vague), "the link may have been down");
        assert!(known.is_left_for(&sight([10, 0, 0, 2], "wlan0 10.0.0.1", " b")));
        assert!(known.is_left_for(&sight([10, 0, 0, 3], "wlan0 10.0.0.1", " a")));
        assert!(vague.is_left_for(&sight([10, 0, 0, 2], "eth0 10.0.0.1", "")));
    }

    #[test]
    fn loopback_is_a_network_as_well() {
        assert!(Network::towards("127.0.0.1:9".parse().unwrap()).is_some());
    }
}
