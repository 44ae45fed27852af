//! The kinds of traffic, each from fixed keys, at fixed times, to a server that hears no more than the kind needs.

use std::fs;
use std::ops::Range;

use knockd_rs::crypto::{Gate, pseudonym};
use knockd_rs::knock::Wanted;
use knockd_rs::knock::syn::{CodeKey, SLOTS, Slot, step_of};
use knockd_rs::time::Timestamp;

use crate::certificates;
use crate::packets::recording::{BEGIN, CLIENT, Recording};
use crate::packets::{
    DESTINATION, DOT1AD, DOT1Q, HOP_BY_HOP, IPV4, IPV6, TCP, UDP, V6, ethernet, ipv4, ipv6, ipv6_with, syn,
    udp,
};
use crate::recordings::{
    self, PORT, SECOND, client, frames, gate, plaintext, psk, sealed, server, server_dir,
};

/// Traffic of one kind.
pub struct Kind {
    /// What it is called in the table.
    pub name: &'static str,
    /// Whom it is sent to.
    pub server: Server,
    /// What `explain` says of the packets that are counted begins with one of these.
    pub expected: &'static [&'static str],
    /// How many packets come before those that are counted, and leave the tables as the kind needs them.
    pub before: usize,
    /// Makes all of them.
    pub make: fn(&mut Recording),
}

/// What a server listens to.
#[derive(Clone, Copy)]
pub enum Server {
    /// Datagrams of one client, as a new profile has it.
    Datagrams,
    /// Every method but certificates.
    Methods,
    /// Certificates as well.
    Certificates,
}

/// As many as what costs little is sent, and what costs much.
const CHEAP: u32 = 1000;
const DEAR: u8 = 32;
/// The length of a usual knock.
const LENGTH: usize = 176;
/// Sources of a flood, more than any table has room for.
const MANY: u32 = 50_000;

/// A kind of junk that ends in one way.
const fn junk(
    name: &'static str,
    server: Server,
    expected: &'static [&'static str],
    make: fn(&mut Recording),
) -> Kind {
    Kind { name, server, expected, before: 1, make }
}

const MAC: &[&str] = &["dropped mac mac"];
const PARTIAL: &[&str] = &["noted sequence partial", "dropped budget budget"];
const GRANTED: &[&str] = &["granted done granted"];

/// Every kind, in the order of the table.
pub const KINDS: [Kind; 22] = [
    junk(
        "malformed frames",
        Server::Datagrams,
        &["dropped link", "dropped ip", "dropped transport"],
        malformed,
    ),
    junk("UDP to other ports", Server::Datagrams, &["dropped filter other-port"], |to| {
        each(to, |_, noise| v4(&udp(53, noise)))
    }),
    junk("random UDP", Server::Datagrams, MAC, |to| each(to, |_, noise| v4(&udp(PORT, noise)))),
    junk("random UDP, longest", Server::Datagrams, MAC, |to| {
        each(to, |_, noise| v4(&udp(PORT, &noise.iter().copied().cycle().take(1232).collect::<Vec<_>>())))
    }),
    junk("random UDP, one VLAN tag", Server::Datagrams, MAC, |to| {
        each(to, |_, noise| ethernet(&[(DOT1Q, 7)], IPV4, &ipv4(CLIENT, 0, &[], UDP, &udp(PORT, noise))))
    }),
    junk("random UDP, two VLAN tags", Server::Datagrams, MAC, |to| {
        let tags = [(DOT1AD, 7), (DOT1Q, 8)];
        each(to, |_, noise| ethernet(&tags, IPV4, &ipv4(CLIENT, 0, &[], UDP, &udp(PORT, noise))))
    }),
    junk("random UDP by IPv6", Server::Datagrams, MAC, |to| {
        each(to, |_, noise| ethernet(&[], IPV6, &ipv6(V6[0], UDP, &udp(PORT, noise))))
    }),
    junk("random UDP by IPv6, two extension headers", Server::Datagrams, MAC, |to| {
        each(to, |_, noise| ethernet(&[], IPV6, &ipv6_with(&[HOP_BY_HOP, DESTINATION], PORT, noise)))
    }),
    junk("random UDP, every method in use", Server::Methods, MAC, |to| {
        each(to, |_, noise| v4(&udp(PORT, noise)))
    }),
    junk("random UDP, certificates in use", Server::Certificates, MAC, |to| {
        each(to, |_, noise| v4(&udp(PORT, noise)))
    }),
    junk("a knock with a wrong mac1", Server::Datagrams, MAC, |to| {
        let mut knock = knock(to.nanos(), 1);
        knock[40] ^= 1;
        each(to, |_, _| v4(&udp(PORT, &knock)));
    }),
    junk("right mac1 of a robbed client", Server::Datagrams, &["dropped key key"], |to| {
        (0..=DEAR).for_each(|place| {
            _ = to.after(25).datagram("", source(place.into()), PORT, &robbed(place.into()))
        });
    }),
    // All at one time: no budget grows back.
    Kind {
        name: "the same, budget used up",
        server: Server::Datagrams,
        expected: &["dropped budget budget"],
        before: 50,
        make: |to| (0..50 + CHEAP).for_each(|place| _ = to.datagram("", CLIENT, PORT, &robbed(place))),
    },
    Kind { name: "a knock", server: Server::Datagrams, expected: GRANTED, before: 1, make: knocks },
    junk("a copy of a recent knock", Server::Datagrams, &["dropped repeat repeat"], |to| {
        let knock = knock(to.nanos(), 1);
        each(to, |_, _| v4(&udp(PORT, &knock)));
    }),
    junk("a copy of an old knock", Server::Datagrams, &["refused replay replayed"], |to| {
        to.datagram("", CLIENT, PORT, &knock(to.nanos(), 255));
        for place in 0..DEAR {
            let old = knock(to.nanos() - 60 * SECOND, place);
            to.after(25).datagram("", CLIENT, PORT, &old);
        }
    }),
    junk("SYNs to the knock port", Server::Methods, &["dropped code code"], |to| {
        each(to, |number, _| {
            ethernet(&[], IPV4, &ipv4(source(number), 0, &[], TCP, &syn(PORT, number, number)))
        })
    }),
    Kind { name: "a knock by SYN", server: Server::Methods, expected: GRANTED, before: 1, make: syn_knocks },
    // Ten a millisecond, for two seconds: as many searches among them as there may be.
    Kind {
        name: "SYNs in the span, one source",
        server: Server::Methods,
        expected: PARTIAL,
        before: 2000,
        make: |to| in_span(to, 0..22_000, 10, 1),
    },
    // From few enough that all of them have a full memory, and slow enough that each packet is worth a search.
    Kind {
        name: "SYNs in the span, each searched",
        server: Server::Methods,
        expected: &["noted sequence partial"],
        before: 16 * 256,
        make: |to| {
            in_span(to, 0..16 * 256, u32::MAX, 16);
            in_span(to.after(1000), 16 * 256..16 * 270, 1, 16);
        },
    },
    // Everybody has knocked once before.
    Kind {
        name: "SYNs in the span, 50,000 sources",
        server: Server::Methods,
        expected: PARTIAL,
        before: MANY as usize,
        make: |to| in_span(to, 0..2 * MANY, 25, MANY),
    },
    Kind {
        name: "a knock with a certificate",
        server: Server::Certificates,
        expected: GRANTED,
        before: 1,
        make: certificate_knocks,
    },
];

impl Server {
    /// A folder with its configuration.
    pub fn folder(self) -> tempfile::TempDir {
        match self {
            Self::Certificates => server_dir(&certificates::settings("crl.pem")),
            Self::Methods => server_dir("# As it comes.\n"),
            Self::Datagrams => {
                let folder = server_dir("# As it comes.\n");
                let profiles = folder.path().join("profiles.d");
                fs::remove_file(profiles.join("phone.toml")).unwrap();
                let laptop = profiles.join("laptop.toml");
                let text = fs::read_to_string(&laptop).unwrap();
                fs::write(&laptop, text.replace(recordings::LAPTOP_METHODS, "\"spa\"")).unwrap();
                folder
            }
        }
    }
}

/// As many frames as of what costs little, and the first, each with its number and bytes of its own that look random.
fn each(to: &mut Recording, frame: impl Fn(u32, &[u8]) -> Vec<u8>) {
    for number in 0..=CHEAP {
        let frame = frame(number, &noise(number));
        to.after(1).frame("", frame);
    }
}

fn v4(datagram: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(CLIENT, 0, &[], UDP, datagram))
}

/// 10.79.0.0/16 and what follows.
fn source(number: u32) -> [u8; 4] {
    (0x0a4f_0000 + number).to_be_bytes()
}

/// Bytes that look random, by xorshift (Marsaglia 2003), of a knock's length.
fn noise(number: u32) -> Vec<u8> {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).flat_map(u64::to_be_bytes).take(LENGTH).collect()
}

/// Noise under a right mac1, in the client's name.
fn robbed(number: u32) -> Vec<u8> {
    let mut packet = noise(number);
    packet.truncate(LENGTH - 16);
    let known_by = pseudonym(&server().public(), &gate(), &client().public(), &psk());
    let mac1 = Gate::new(&server().public(), &gate()).mac1(&known_by, &packet);
    [packet, mac1.to_vec()].concat()
}

fn knock(counter: u64, ephemeral: u8) -> Vec<u8> {
    sealed(&client(), &psk(), ephemeral, &plaintext(counter))
}

fn knocks(to: &mut Recording) {
    for place in 0..=DEAR {
        let knock = knock(to.after(25).nanos(), place);
        to.datagram("", CLIENT, PORT, &knock);
    }
}

/// One for each slot of the steps whose codes are known at one time.
fn syn_knocks(to: &mut Recording) {
    let key = CodeKey::new(&client().agree(&server().public()).unwrap(), &psk());
    let step = step_of(Timestamp::from_secs(BEGIN));
    for slot in (step - 1..=step + 1).flat_map(|step| (0..SLOTS).map(move |slot| Slot { step, slot })) {
        let code = key.pack(slot, None);
        to.packet("", CLIENT, TCP, &syn(PORT, code.sequence, code.timestamp.unwrap()));
    }
}

/// Eleven seconds apart, for one a second is what these settings allow.
fn certificate_knocks(to: &mut Recording) {
    for _ in 0..17 {
        let knock = certificates::knock("alice", "alice", to.after(11_000), Wanted::Defaults);
        to.datagram("", CLIENT, PORT, &knock);
    }
}

/// SYNs to ports of the span in no order, so many a millisecond, from so many sources in turn.
fn in_span(to: &mut Recording, numbers: Range<u32>, a_millisecond: u32, sources: u32) {
    for number in numbers {
        let port = u16::try_from(16_384 + (number.wrapping_mul(2_654_435_761) >> 8) % 32_768).unwrap();
        to.after(u64::from(number % a_millisecond == 0));
        to.packet("", source(number % sources), TCP, &syn(port, number, number));
    }
}

/// One of every kind that holds no segment, over and over.
fn malformed(to: &mut Recording) {
    let recording = frames();
    let broken = recording.frames().iter().filter(|frame| !frame.expected.contains(" filter "));
    let broken: Vec<_> = broken.collect();
    let count = usize::try_from(CHEAP).unwrap() / broken.len() * broken.len();
    for frame in broken.iter().cycle().take(1 + count) {
        to.after(1).part("", frame.bytes.clone(), frame.wire_len);
    }
}
