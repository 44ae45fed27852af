//! What disturbs: junk of every kind on the network, and chatter at the control socket.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use super::Course;
use crate::Outcome;
use crate::contenders::{Contender, KNOCKS, Ours};
use crate::machine::Machines;
use crate::traffic::{Junk, random_bytes, stranger, udp};

/// Packets of junk a second.
pub(super) const RATE: u32 = 4000;
/// Malformed frames a second, besides.
pub(super) const MALFORMED: u32 = 200;
/// Who robbed a client, and sends from one place.
const ROBBER: Ipv4Addr = Ipv4Addr::new(10, 79, 200, 1);
const SPAN: fn(u32) -> u16 = |number| u16::try_from(16_384 + number % 32_768).unwrap_or(u16::MAX);

/// What forty packets consist of. A knock that was used comes again and again besides, see `clients`. What a robber sends is
/// taken from the share of handshakes of the client that he has robbed, who knocks nowhere else.
pub(super) fn mixed(ours: &Ours) -> Outcome<Junk> {
    Ok(Junk::mixed(vec![
        (14, ours.random_junk()?),
        (1, Junk::datagrams_from(ROBBER, KNOCKS, &ours.robbed_packets(4096)?)),
        (5, Junk::datagrams(KNOCKS, ours.robbed_packets(16_384)?)),
        (2, Junk::syns(1, |_| KNOCKS)),
        (6, Junk::syns(50_000, |_| KNOCKS)),
        (4, Junk::syns(1, SPAN)),
        (8, Junk::syns(50_000, SPAN)),
    ]))
}

/// Frames that are cut off, or have bytes that are wrong, in every header.
pub(super) struct Malformed {
    frames: Vec<Vec<u8>>,
    wire: pcap::Capture<pcap::Active>,
}

impl Malformed {
    pub(super) fn new(machines: &Machines) -> Outcome<Self> {
        let payload = random_bytes(176)?;
        let to = server_mac(machines)?;
        let mut frames = Vec::new();
        for number in 0..4096_u32 {
            let mut packet = udp(stranger(number), KNOCKS, &payload);
            let length = u16::try_from(packet.len())?.to_be_bytes();
            packet.iter_mut().skip(2).zip(length).for_each(|(to, from)| *to = from);
            let kind: &[u8] = match number % 4 {
                0 => &[0x08, 0x00],
                1 => &[0x81, 0x00, 0, 7, 0x08, 0x00],
                2 => &[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 9, 0x08, 0x00],
                _ => &[0x86, 0xdd],
            };
            if number % 4 == 3 {
                packet = ipv6(&packet);
            }
            let mut frame = [&to[..], &[2, 0, 0, 0, 0, 7], kind, &packet].concat();
            spoil(&mut frame, kind.len() + 12)?;
            frames.push(frame);
        }
        let wire = pcap::Capture::from_device("eth0")?.snaplen(64).open()?;
        Ok(Self { frames, wire })
    }

    /// Sends them, ten at a time.
    pub(super) fn send(mut self, course: &Course) -> Outcome<()> {
        let pause = Duration::from_secs(10) / MALFORMED;
        let mut frames = self.frames.iter().cycle();
        while course.wait(pause) {
            for frame in frames.by_ref().take(10) {
                self.wire.sendpacket(frame.as_slice())?;
            }
        }
        Ok(())
    }
}

/// The address of the server's interface.
fn server_mac(machines: &Machines) -> Outcome<[u8; 6]> {
    let said = machines.server().run("ip -o link show eth0")?;
    let word = said.split(' ').skip_while(|word| *word != "link/ether").nth(1).unwrap_or_default();
    let parts: Vec<u8> = word.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    parts.try_into().map_err(|_| format!("eth0 has no address: {said}").into())
}

/// The same datagram over IPv6, behind a header of options that names itself as the next one.
fn ipv6(packet: &[u8]) -> Vec<u8> {
    let body = packet.get(20..).unwrap_or_default();
    let length = u16::try_from(body.len() + 8).unwrap_or(0).to_be_bytes();
    let [from, to] = [[0xfe, 0x80, 9], [0xfe, 0x80, 1]].map(|head| [&head[..], &[0; 13]].concat());
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    [&[0x60, 0, 0, 0], &length[..], &[60, 64], &from, &to, &options, body].concat()
}

/// Cuts a frame off, or changes some bytes of its first headers.
fn spoil(frame: &mut Vec<u8>, link: usize) -> Outcome<()> {
    let dice = random_bytes(8)?;
    let [what, how_many, rest @ ..] = dice.as_slice() else { return Ok(()) };
    if what % 3 == 0 {
        frame.truncate(link.max(14) + usize::from(*how_many) % 48);
        return Ok(());
    }
    for die in rest.iter().take(1 + usize::from(how_many % 4)) {
        if let Some(byte) = frame.get_mut(link + usize::from(*die) % 48) {
            *byte = byte.wrapping_add(1 + die / 2);
        }
    }
    Ok(())
}

/// Asks for the status by the program, and says things to the control socket that are no command.
pub(super) fn chatter(machines: &Machines, course: &Course) -> Outcome<()> {
    let socket = machines.server().path("/run/knockd-rs/control.sock");
    let mut number = 0_u32;
    while course.wait(Duration::from_millis(200)) {
        number += 1;
        match number % 5 {
            0 => drop(machines.server().run("knockd-rs status --json")?),
            // Half a command, rubbish, nothing at all.
            1 => say(&socket, b"{\"Sta")?,
            2 => say(&socket, &random_bytes(4096)?)?,
            3 => say(&socket, b"{\"command\":\"open everything\"}\n")?,
            _ => say(&socket, b"")?,
        }
        if number % 50 == 0 {
            machines.server().run("knockd-rs grant bench 10.78.255.1 tcp/22 --for 3s")?;
            machines.server().run("knockd-rs revoke 10.78.255.1")?;
        }
    }
    Ok(())
}

fn say(socket: &std::path::Path, words: &[u8]) -> Outcome<()> {
    let mut stream = UnixStream::connect(socket)?;
    // It may hang up before everything is said.
    let _ = stream.write_all(words);
    sleep(Duration::from_millis(5));
    Ok(())
}
