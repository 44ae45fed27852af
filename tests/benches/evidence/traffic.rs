//! Junk: packets that open nothing, from addresses that are nobody's, as many a second as is asked for. One thread,
//! one raw socket, every header made here (`raw(7)`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use crate::Outcome;
use crate::machine::SERVER;

/// How long a stream lasts at most unless it is told, whatever becomes of who started it.
const LONGEST: Duration = Duration::from_secs(120);
/// How many packets are sent between two looks at the clock.
const BURST: u32 = 32;

/// How many packets a second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// So many.
    PerSecond(u32),
    /// As many as the machine can send.
    Unbounded,
}

/// A kind of junk: the packets, from the header of IP on, that are sent one after the other.
pub struct Junk(Vec<Vec<u8>>);

impl Junk {
    /// Datagrams to `port`, each from another address of 10.79.0.0/16.
    pub fn datagrams(port: u16, payloads: Vec<Vec<u8>>) -> Self {
        let count = u32::try_from(payloads.len()).unwrap_or(1);
        // Every address has its turn, however few payloads there are.
        let total = count.max(16_384);
        let packet = |(place, payload): (u32, &Vec<u8>)| udp(stranger(place), port, payload);
        Self((0..total).zip(payloads.iter().cycle()).map(packet).collect())
    }

    /// The same from one address.
    pub fn datagrams_from(source: Ipv4Addr, port: u16, payloads: &[Vec<u8>]) -> Self {
        Self(payloads.iter().map(|payload| udp(source, port, payload)).collect())
    }

    /// Datagrams to `port` in this order, each with its source.
    pub fn in_order(port: u16, datagrams: impl IntoIterator<Item = (Ipv4Addr, Vec<u8>)>) -> Self {
        Self(datagrams.into_iter().map(|(source, payload)| udp(source, port, &payload)).collect())
    }

    /// SYNs with codes of no meaning, to ports that `port` names by number, from `sources` addresses.
    pub fn syns(sources: u32, port: impl Fn(u32) -> u16) -> Self {
        let packet = |place: u32| {
            let mixed = place.wrapping_mul(2_654_435_761);
            syn(stranger(place % sources), port(mixed >> 8), mixed)
        };
        Self((0..sources.max(50_000)).map(packet).collect())
    }

    /// Several kinds in one stream: of each so many in a row, then of the next. The longest goes round once.
    pub fn mixed(parts: Vec<(usize, Self)>) -> Self {
        let longest = parts.iter().map(|(share, part)| part.0.len().div_ceil(*share)).max().unwrap_or(0);
        let mut all: Vec<_> = parts.iter().map(|(share, part)| (*share, part.0.iter().cycle())).collect();
        let mut packets = Vec::new();
        for _ in 0..longest {
            for (share, part) in &mut all {
                packets.extend(part.by_ref().take(*share).cloned());
            }
        }
        Self(packets)
    }

    /// Sends it until the stream is stopped.
    pub fn stream(self, rate: Rate) -> Outcome<Stream> {
        self.stream_for(rate, LONGEST)
    }

    /// The same, for so long at most.
    pub fn stream_for(self, rate: Rate, longest: Duration) -> Outcome<Stream> {
        let socket = raw_socket()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let started = Instant::now();
        let thread = spawn(move || {
            let is_over = || stop.load(Ordering::Relaxed) || started.elapsed() >= longest;
            send(&socket, self.0.iter().cycle(), rate, is_over)
        });
        Ok(Stream { is_over, started, thread })
    }

    /// Sends each packet once, and returns when that is done: how many a second were sent.
    pub fn send_once(&self, rate: Rate) -> Outcome<f64> {
        let started = Instant::now();
        let sent = send(&raw_socket()?, self.0.iter(), rate, || false);
        Ok(as_f64(sent) / started.elapsed().as_secs_f64())
    }
}

fn raw_socket() -> Outcome<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?)
}

/// Sends until there are no more or it is over: how many.
fn send<'a>(
    socket: &OwnedFd,
    packets: impl Iterator<Item = &'a Vec<u8>>,
    rate: Rate,
    is_over: impl Fn() -> bool,
) -> u64 {
    let to = SocketAddr::new(IpAddr::V4(SERVER), 0);
    let started = Instant::now();
    let mut packets = packets.peekable();
    let mut sent = 0_u64;
    while packets.peek().is_some() && !is_over() {
        if let Rate::PerSecond(rate) = rate {
            let due = started.elapsed().as_secs_f64() * f64::from(rate);
            let early = (as_f64(sent) - due) / f64::from(rate.max(1));
            if early >= 0.0 {
                sleep(Duration::from_secs_f64(early.clamp(0.0002, 0.1)));
                continue;
            }
        }
        for packet in packets.by_ref().take(usize::try_from(BURST).unwrap_or(1)) {
            // A full queue loses a packet, as a network does; it is not counted as sent.
            sent += u64::from(sendto(socket, packet, SendFlags::empty(), &to).is_ok());
        }
    }
    sent
}

/// Junk that is being sent.
pub struct Stream {
    is_over: Arc<AtomicBool>,
    started: Instant,
    thread: JoinHandle<u64>,
}

impl Stream {
    /// Ends it: how many packets a second were sent.
    pub fn stop(self) -> Outcome<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        let sent = self.thread.join().map_err(|_| "the sender of junk panicked")?;
        Ok(as_f64(sent) / seconds)
    }
}

/// `length` bytes of the kernel's.
pub fn random_bytes(length: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// An address of 10.79.0.0/16.
pub fn stranger(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 79, 0, 0).to_bits() | (number & 0xffff))
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets lie far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A header of IPv4 in front; the kernel fills in its checksum and its length.
fn ip(source: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&SERVER.octets());
    packet.extend_from_slice(body);
    packet
}

/// UDP without a checksum, which is allowed on IPv4 (RFC 768).
pub fn udp(source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut body = Vec::with_capacity(payload.len() + 8);
    for field in [40_000, port, length, 0] {
        body.extend_from_slice(&u16::to_be_bytes(field));
    }
    body.extend_from_slice(payload);
    ip(source, 17, &body)
}

/// A SYN with the options that Linux sends.
fn syn(source: Ipv4Addr, port: u16, code: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(40);
    for field in [40_000, port] {
        body.extend_from_slice(&u16::to_be_bytes(field));
    }
    body.extend_from_slice(&code.to_be_bytes());
    // Acknowledgement 0, 40 bytes of header, SYN, the window, the checksum, no urgent data.
    body.extend_from_slice(&[0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
    // MSS 1460, SACK, timestamps, window scale 7.
    body.extend_from_slice(&[2, 4, 5, 0xb4, 4, 2, 8, 10]);
    body.extend_from_slice(&code.rotate_left(16).to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 0, 1, 3, 3, 7]);
    let checksum = tcp_checksum(source, &body);
    for (to, from) in body.iter_mut().skip(16).zip(checksum) {
        *to = from;
    }
    ip(source, 6, &body)
}

/// RFC 9293, section 3.1.
fn tcp_checksum(source: Ipv4Addr, body: &[u8]) -> [u8; 2] {
    let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
    let pseudo = [&source.octets()[..], &SERVER.octets(), &[0, 6], &length, body].concat();
    let words = pseudo.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
    let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from(!folded & 0xffff).unwrap_or(0).to_be_bytes()
}
