//! The edge to libpcap: a [`Source`] becomes frames in three steps that cannot be swapped or skipped.
//!
//! [`open`] needs the privilege and gives an [`Opened`], which yields nothing. [`Opened::confine`] gives the
//! privilege up for the whole process and is the only way to a [`Confined`], which yields frames. Waiting is
//! the caller's: poll [`Confined::as_fd`], and never longer than [`Confined::POKE`].

mod filter;
mod source;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use pcap::{Active, Capture, Direction, Linktype, Offline, Precision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

pub use filter::{Filter, Miss};
pub use source::{Source, SourceError};

use crate::frame::Link;
use crate::privsep::confine::{ConfineError, Confinement, confine};
use crate::sys;
use crate::time::Timestamp;

/// How many bytes of a frame are kept: 1,232 of payload, UDP, IPv6 with its extension headers, two tags and
/// the longest link-layer header make fewer than 1,600; NFLOG adds its attributes. With the kernel's header, of up to
/// 112 bytes, it is the size of one slot in the ring, and slots lie in pages whole: of 2,048 bytes a page holds two, of
/// one byte more it holds one.
const SNAPLEN: i32 = 1920;

/// The kernel's ring in bytes: 2,080 frames that passed the filter. It is 10 ms of a flood of 200,000 a second, while
/// this process waits for a processor. At 5,000 handshakes a second it is 0.4 s of work, so that a longer queue would
/// only deliver knocks after their client stopped waiting.
const BUFFER: i32 = 4 * 1024 * 1024;

/// An open capture that still has its privilege, and therefore yields nothing.
#[must_use = "frames come from `confine`"]
pub struct Opened {
    source: Source,
    link: Link,
    handle: Handle,
}

enum Handle {
    /// The descriptor is a second one for the same socket, so that it can be asked about while a frame is lent.
    Live {
        capture: Capture<Active>,
        socket: OwnedFd,
    },
    File {
        capture: Capture<Offline>,
        at_end: bool,
    },
}

/// Opens the source and sets the filter in the kernel. A device needs `CAP_NET_RAW`, `nflog:N` needs
/// `CAP_NET_ADMIN` in the network namespace, a file needs to be readable.
///
/// # Errors
/// [`CaptureError`], each naming the source and what to do.
pub fn open(source: &Source, filter: &Filter) -> Result<Opened, CaptureError> {
    let opened = match source {
        Source::Device(name) => open_device(source, name, filter),
        Source::Any => open_live(source, "any", filter),
        Source::Nflog(group) => open_live(source, &format!("nflog:{group}"), filter),
        Source::File(path) => open_file(source, path, filter),
    };
    opened.map_err(|problem| CaptureError { source: source.clone(), problem })
}

fn open_device(source: &Source, name: &str, filter: &Filter) -> Result<Opened, Problem> {
    // libpcap knows an interface that is missing from one that it may not open by the text of its message
    // alone, so the kernel is asked first. SIOCGIFINDEX works on any socket.
    let any_socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(Problem::from_io)?;
    netdevice::name_to_index(any_socket, name).map_err(|_| Problem::Missing)?;
    open_live(source, name, filter)
}

fn open_live(source: &Source, device: &str, filter: &Filter) -> Result<Opened, Problem> {
    let capture = Capture::from_device(device)
        .map_err(Problem::opening)?
        .snaplen(SNAPLEN)
        .buffer_size(BUFFER)
        .promisc(false)
        .immediate_mode(true)
        .open()
        .map_err(Problem::opening)?;
    let link = link(capture.get_datalink())?;
    if !matches!(source, Source::Nflog(_)) {
        // What this host sends is no knock. NFLOG has no directions: the rule stands in one hook.
        capture.direction(Direction::In).map_err(Problem::opening)?;
    }
    let mut capture = capture.setnonblock().map_err(Problem::opening)?;
    if let Some(text) = filter.text(link) {
        capture.filter(&text, true).map_err(|error| Problem::Filter(error.to_string()))?;
    }
    let socket = capture.as_fd().try_clone_to_owned().map_err(Problem::from_io)?;
    Ok(Opened { source: source.clone(), link, handle: Handle::Live { capture, socket } })
}

fn open_file(source: &Source, path: &Path, filter: &Filter) -> Result<Opened, Problem> {
    std::fs::File::open(path).map_err(Problem::from_io)?;
    let mut capture = Capture::from_file(path).map_err(Problem::opening)?;
    let link = link(capture.get_datalink())?;
    if let Some(text) = filter.text(link) {
        capture.filter(&text, true).map_err(|error| Problem::Filter(error.to_string()))?;
    }
    Ok(Opened { source: source.clone(), link, handle: Handle::File { capture, at_end: false } })
}

/// libpcap's `DLT_` values where this program reads them. `DLT_RAW` is 12 on Linux and 101 in files; 228 and
/// 229 are IPv4 and IPv6 alone, 239 is NFLOG, 276 is SLL2 (`pcap/dlt.h`).
fn link(linktype: Linktype) -> Result<Link, Problem> {
    match linktype {
        Linktype(1) => Ok(Link::Ethernet),
        Linktype(113) => Ok(Link::LinuxSll),
        Linktype(276) => Ok(Link::LinuxSll2),
        Linktype(12 | 101 | 228 | 229) => Ok(Link::RawIp),
        Linktype(0 | 108) => Ok(Link::Loopback),
        Linktype(239) => Ok(Link::Nflog),
        Linktype(other) => Err(Problem::Link(other)),
    }
}

impl Opened {
    /// What the frames will start with.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// The index of the interface that frames come from; 0 when it is none in particular.
    #[must_use]
    pub fn interface(&self) -> u32 {
        match &self.handle {
            Handle::Live { socket, .. } => sys::packet_interface(socket.as_fd())
                .ok()
                .and_then(|index| u32::try_from(index).ok())
                .unwrap_or(0),
            Handle::File { .. } => 0,
        }
    }

    /// Gives up every privilege of this process, for good; see [`confine`]. After it, files can be written
    /// below `writable` and nowhere else, another capture cannot be opened, and nothing can be sent on this one.
    ///
    /// # Errors
    /// [`ConfineError`]: the process may then be half confined and should end.
    pub fn confine(self, writable: &[&Path]) -> Result<Confined, ConfineError> {
        let Self { source, link, handle } = self;
        let confinement = match &handle {
            Handle::Live { capture, socket } => confine(writable, &[capture.as_fd(), socket.as_fd()])?,
            Handle::File { .. } => confine(writable, &[])?,
        };
        Ok(Confined {
            source,
            link,
            handle,
            confinement,
            dropped: Widened::default(),
            seen: Widened::default(),
        })
    }

    /// The frames of a file without confinement: reading a file took no privilege that could be given up.
    ///
    /// # Errors
    /// Gives a live capture back as it was.
    pub fn replay(self) -> Result<Replay, Self> {
        match self.handle {
            Handle::File { capture, .. } => Ok(Replay { source: self.source, link: self.link, capture }),
            Handle::Live { .. } => Err(self),
        }
    }
}

/// Opens a file for all of its frames, whatever a filter would say of them, with their times.
///
/// # Errors
/// [`CaptureError`] when it cannot be read, is no capture file, or has a link type that is not read here.
pub fn open_whole(path: &Path) -> Result<Replay, CaptureError> {
    let source = Source::File(path.to_owned());
    let failed = |problem| CaptureError { source: source.clone(), problem };
    std::fs::File::open(path).map_err(|error| failed(Problem::from_io(error)))?;
    let opened = Capture::from_file_with_precision(path, Precision::Nano);
    let capture = opened.map_err(|error| failed(Problem::opening(error)))?;
    let link = link(capture.get_datalink()).map_err(failed)?;
    Ok(Replay { source, link, capture })
}

/// The frames of a capture file, read by whoever may read the file.
pub struct Replay {
    source: Source,
    link: Link,
    capture: Capture<Offline>,
}

impl Replay {
    /// The next frame that passes the filter; `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError`] when the file is damaged.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        Ok(self.next_timed()?.map(|(_, frame)| frame))
    }

    /// The same, with the time at which it was captured: exact where [`open_whole`] opened the file.
    ///
    /// # Errors
    /// [`CaptureError`] when the file is damaged, or ends in the middle of a frame.
    pub fn next_timed(&mut self) -> Result<Option<(Timestamp, Frame<'_>)>, CaptureError> {
        let Self { source, link, capture } = self;
        match capture.next_packet() {
            Ok(packet) => Ok(Some((time(packet.header), Frame::new(*link, &packet)))),
            Err(pcap::Error::NoMorePackets) => Ok(None),
            Err(error) => {
                Err(CaptureError { source: source.clone(), problem: Problem::Reading(error.to_string()) })
            }
        }
    }
}

/// A frame's time: with [`Precision::Nano`] libpcap puts nanoseconds where the type says microseconds.
fn time(header: &pcap::PacketHeader) -> Timestamp {
    let seconds = u64::try_from(header.ts.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(header.ts.tv_usec).unwrap_or(0);
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A capture in a process that has no privilege left.
pub struct Confined {
    source: Source,
    link: Link,
    handle: Handle,
    confinement: Confinement,
    seen: Widened,
    dropped: Widened,
}

/// A frame as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it starts with.
    pub link: Link,
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// How many bytes it had on the wire.
    pub wire_len: usize,
}

impl<'a> Frame<'a> {
    fn new(link: Link, packet: &pcap::Packet<'a>) -> Self {
        // A u32 fits: both targets have 64-bit pointers, and on any other the frame would count as truncated.
        let wire_len = usize::try_from(packet.header.len).unwrap_or(usize::MAX);
        Self { link, bytes: packet.data, wire_len }
    }
}

/// How many frames passed the filter, and how many of them the kernel had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that passed the filter.
    pub received: u64,
    /// Frames lost because the ring was full.
    pub dropped: u64,
}

impl Confined {
    /// The longest time to poll without calling [`next_frame`](Self::next_frame): the kernel says once that a
    /// link went down, and nothing when the interface is then removed, so it has to be asked.
    pub const POKE: Duration = Duration::from_secs(1);

    /// The next frame that passes the filter, without waiting. `None`: nothing there now, or the end of a file
    /// (see [`is_at_end`](Self::is_at_end)). A link that goes down is no error: capturing goes on when it is up.
    ///
    /// # Errors
    /// [`CaptureError::is_gone`] when the interface was removed or moved to another network namespace: only a
    /// new capture, by a new process, can go on. Any other error is libpcap's.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let Self { source, link, handle, .. } = self;
        let failed = |problem| CaptureError { source: source.clone(), problem };
        match handle {
            Handle::Live { capture, socket } => match capture.next_packet() {
                Ok(packet) => Ok(Some(Frame::new(*link, &packet))),
                Err(error) => match after(source, socket.as_fd(), &error) {
                    None => Ok(None),
                    Some(problem) => Err(failed(problem)),
                },
            },
            Handle::File { capture, at_end } => match capture.next_packet() {
                Ok(packet) => Ok(Some(Frame::new(*link, &packet))),
                Err(pcap::Error::NoMorePackets) => {
                    *at_end = true;
                    Ok(None)
                }
                Err(error) => Err(failed(Problem::Reading(error.to_string()))),
            },
        }
    }

    /// Whether the source was a file and all of it was read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.handle, Handle::File { at_end: true, .. })
    }

    /// What to poll for reading; `None` for a file, which never has to be waited for.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.handle {
            Handle::Live { socket, .. } => Some(socket.as_fd()),
            Handle::File { .. } => None,
        }
    }

    /// What the frames start with.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// How far the confinement went on this kernel.
    #[must_use]
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// The counters since the capture was opened. All zero for a file. libpcap counts in 32 bits; they are
    /// widened here, so this has to be called once in 2^32 frames.
    ///
    /// # Errors
    /// [`CaptureError`] when libpcap cannot ask the kernel.
    pub fn stats(&mut self) -> Result<Stats, CaptureError> {
        let Handle::Live { capture, .. } = &mut self.handle else { return Ok(Stats::default()) };
        let stats = capture.stats().map_err(|error| CaptureError {
            source: self.source.clone(),
            problem: Problem::Reading(error.to_string()),
        })?;
        Ok(Stats { received: self.seen.add(stats.received), dropped: self.dropped.add(stats.dropped) })
    }
}

/// What is wrong when libpcap had no frame to give; `None` when nothing is. Its own verdict is not enough:
///
/// - When a link is down it asks for the interface by the name that it had, and says "The interface
///   disappeared" of one that was only given a new name (`device_still_exists` in 1.10.3). Of one that went
///   while its link was down it says nothing at all.
/// - From NFLOG it gives "no frame yet" as an error (`netfilter_read_linux`), and only `recv` knows: frames may
///   be left in its own buffer, so the descriptor cannot be asked before.
fn after(source: &Source, socket: BorrowedFd<'_>, error: &pcap::Error) -> Option<Problem> {
    let reading = || Some(Problem::Reading(error.to_string()));
    match (source, error) {
        (Source::Device(_), _) => match sys::packet_interface(socket) {
            // The kernel sets -1 when the interface goes, and keeps the number through down, up and a new name
            // (`packet_notifier` in net/packet/af_packet.c).
            Ok(..=-1) => Some(Problem::Gone),
            Ok(_) if *error == pcap::Error::TimeoutExpired || is_disappeared(error) => None,
            _ => reading(),
        },
        (Source::Nflog(_), error) if is_again(error) || !is_readable(socket) => None,
        (_, pcap::Error::TimeoutExpired) => None,
        _ => reading(),
    }
}

/// Whether there was no frame when libpcap looked; one may have come since. Its text is that of `strerror`, and this
/// program never asks for another language (`setlocale`).
fn is_again(error: &pcap::Error) -> bool {
    matches!(error, pcap::Error::PcapError(text) if text.ends_with("Resource temporarily unavailable"))
}

fn is_disappeared(error: &pcap::Error) -> bool {
    matches!(error, pcap::Error::PcapError(text) if text == "The interface disappeared")
}

fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::new(&socket, PollFlags::IN)];
    let ready = poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    ready.is_ok_and(|count| count > 0)
}

/// A 32-bit counter that wraps, counted on in 64 bits.
#[derive(Clone, Copy, Default)]
struct Widened {
    last: u32,
    total: u64,
}

impl Widened {
    fn add(&mut self, now: u32) -> u64 {
        self.total += u64::from(now.wrapping_sub(self.last));
        self.last = now;
        self.total
    }
}

/// Why there are no frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureError {
    source: Source,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Missing,
    Down,
    Gone,
    NotPermitted,
    Link(i32),
    Filter(String),
    Opening(String),
    Reading(String),
}

impl Problem {
    /// Sorts by libpcap's fixed texts (`pcap_statustostr`), since the crate hands over nothing else.
    fn opening(error: pcap::Error) -> Self {
        let text = error.to_string();
        if text.contains("not up") {
            Self::Down
        } else if text.contains("permission")
            || text.contains("not permitted")
            || text.contains("CAP_NET_RAW")
        {
            Self::NotPermitted
        } else {
            Self::Opening(text)
        }
    }

    fn from_io(error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Opening(error.to_string()),
        }
    }
}

impl CaptureError {
    /// The interface that frames came from was removed, or moved to another network namespace.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.problem == Problem::Gone
    }

    /// The interface is not there yet or is down: worth trying again later, by itself.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.problem, Problem::Gone | Problem::Missing | Problem::Down)
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, problem } = self;
        match (problem, source) {
            (Problem::Missing, Source::File(path)) => write!(f, "there is no file {}", path.display()),
            (Problem::Missing, _) => {
                write!(
                    f,
                    "there is no interface {source}; `ip link` lists what there is, and `any` takes all"
                )
            }
            (Problem::Down, _) => {
                write!(f, "the interface {source} is down; set it up: ip link set {source} up")
            }
            (Problem::Gone, _) => {
                write!(f, "the interface {source} was removed while frames were read from it")
            }
            (Problem::NotPermitted, Source::File(path)) => write!(f, "{} may not be read", path.display()),
            (Problem::NotPermitted, Source::Nflog(_)) => {
                write!(f, "reading {source} is not permitted; it needs CAP_NET_ADMIN")
            }
            (Problem::NotPermitted, _) => {
                write!(f, "capturing on {source} is not permitted; it needs CAP_NET_RAW")
            }
            (Problem::Link(number), _) => write!(
                f,
                "{source} has link-layer type {number}, which is not read here; use an Ethernet, loopback, tun or \
                 WireGuard interface, or any"
            ),
            (Problem::Filter(text), _) => write!(f, "libpcap refused the filter for {source}: {text}"),
            (Problem::Opening(text), _) => write!(f, "{source} cannot be opened: {text}"),
            (Problem::Reading(text), _) => write!(f, "{source} cannot be read: {text}"),
        }
    }
}

impl std::error::Error for CaptureError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_where_libpcaps_wrap() {
        let mut counter = Widened::default();
        assert_eq!(counter.add(u32::MAX), u64::from(u32::MAX));
        assert_eq!(counter.add(5), u64::from(u32::MAX) + 6);
        assert_eq!(counter.add(5), u64::from(u32::MAX) + 6);
    }

    #[test]
    fn every_link_type_that_is_opened_can_be_parsed() {
        let types = [0, 1, 12, 101, 108, 113, 228, 229, 239, 276];
        let links: Vec<_> = types.iter().map(|number| link(Linktype(*number)).unwrap()).collect();
        assert!(Link::ALL.iter().all(|link| links.contains(link)));
        // IEEE 802.11 and PPP.
        assert_eq!(link(Linktype(105)), Err(Problem::Link(105)));
        assert_eq!(link(Linktype(9)), Err(Problem::Link(9)));
    }
}
