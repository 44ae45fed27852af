//! One netlink socket to nf_tables: atomic batches out, dumps in.
//!
//! The kernel works a request off inside `sendto` and queues its answers before that call returns, so every
//! answer is read without waiting and the socket is empty again when a call here ends, whatever went wrong
//! in it: no leftover acknowledgement of one batch is ever taken for the next one's.

use std::io;

use mnl::{Bus, Socket};
use nftnl::{Batch, MsgType};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use super::elem::{Message, descriptor};
use super::wire::{Attributes, HEADER, Received, SUBHEADER, SUBSYSTEM};

/// A socket bound to the netfilter bus.
pub(super) struct Link {
    socket: Socket,
    buffer: Vec<u8>,
}

/// Why a batch changed nothing.
#[derive(Debug)]
pub(super) struct Refused {
    /// The message at fault, by its place in the batch, where the kernel named one.
    pub(super) message: Option<usize>,
    /// What the kernel said.
    pub(super) error: io::Error,
}

impl Link {
    /// The most that one batch may measure: it has to fit one socket buffer.
    pub(super) const MAX_BATCH: usize = 1 << 20;

    /// Opens a socket; `groups` is a bit mask of multicast groups to listen to.
    pub(super) fn open(groups: u32) -> io::Result<Self> {
        let socket = Socket::open(Bus::Netfilter)?;
        // libmnl opens it without: nft and the worker would inherit it, and with it the table's ownership.
        rustix::io::fcntl_setfd(descriptor(&socket), rustix::io::FdFlags::CLOEXEC)?;
        socket.bind(groups, 0)?;
        // Beyond net.core.{w,r}mem_max with CAP_NET_ADMIN, up to them without; a small buffer is no error:
        // what does not fit is refused (EMSGSIZE) or reported as lost (ENOBUFS).
        let fd = descriptor(&socket);
        if sockopt::set_socket_send_buffer_size_force(fd, 2 * Self::MAX_BATCH).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(fd, 2 * Self::MAX_BATCH);
        }
        if sockopt::set_socket_recv_buffer_size_force(fd, Self::MAX_BATCH).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(fd, Self::MAX_BATCH);
        }
        Ok(Self { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Our address on the bus: what the kernel writes into events that our requests caused.
    pub(super) fn port(&self) -> u32 {
        self.socket.portid()
    }

    /// The descriptor, to wait for events on.
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        descriptor(&self.socket)
    }

    /// Sends all messages as one transaction: all of them take effect, or none.
    ///
    /// Only the last message asks for an acknowledgement (and, from Linux 6.10, libnftnl's begin and end
    /// messages do); an error is reported without being asked for, and any error undoes the whole batch.
    pub(super) fn batch(&mut self, messages: &[(Message, MsgType)]) -> Result<(), Refused> {
        let unnamed = |error| Refused { message: None, error };
        let Some(((last, kind), before)) = messages.split_last() else { return Ok(()) };
        let size = messages.iter().map(|(message, _)| message.len()).sum::<usize>();
        if size > Self::MAX_BATCH {
            return Err(unnamed(Errno::MSGSIZE.into()));
        }
        self.drain(|_| ()).map_err(unnamed)?;
        // libnftnl starts a new page, which `sendto` would make a datagram of its own, when this is exceeded;
        // a batch is atomic within one datagram only.
        let page = u32::try_from(size + 4096).unwrap_or(u32::MAX / 2);
        let mut batch = Batch::with_page_size(page);
        for (message, kind) in before {
            batch.add(message, *kind);
        }
        batch.add(&last.acknowledged(), *kind);
        let batch = batch.finalize();
        let sequences = batch.sequence_numbers();
        self.socket.send_all(&batch).map_err(unnamed)?;
        // Without acknowledged begin and end messages the first number belongs to the first message.
        let begins = sequences.len() > messages.len();
        let first = sequences.start + u32::from(begins);
        let (mut failure, mut acknowledged) = (None, false);
        // Where messages were lost, the answer can be among those that were not.
        self.drain(|message| {
            if message.kind != NLMSG_ERROR || !sequences.contains(&message.sequence) {
                return;
            }
            match message.errno() {
                0 => acknowledged = true,
                errno => {
                    let place = message.sequence.checked_sub(first).and_then(|n| usize::try_from(n).ok());
                    failure.get_or_insert((place.filter(|n| *n < messages.len()), errno));
                }
            }
        })
        .map_err(unnamed)?;
        match failure {
            Some((message, errno)) => Err(Refused { message, error: io::Error::from_raw_os_error(errno) }),
            None if acknowledged => Ok(()),
            None => Err(unnamed(io::Error::other(
                "the kernel's answer was lost; `knockd-rs status` shows what is open",
            ))),
        }
    }

    /// All objects that a request of type `kind` lists, as the attributes of each.
    pub(super) fn dump(&mut self, kind: u16, family: u8, filter: &Attributes) -> io::Result<Vec<Vec<u8>>> {
        const NLM_F_DUMP: u16 = 0x300;
        // The kernel flags a listing that a transaction cut in two; eight in a row is no coincidence.
        for _ in 0..8 {
            match self.request(kind, NLM_F_DUMP, family, filter.clone())? {
                Listing::Whole(objects) => return Ok(objects),
                Listing::Interrupted => (),
            }
        }
        Err(Errno::INTR.into())
    }

    /// The one object that a request of type `kind` names.
    pub(super) fn get(&mut self, kind: u16, family: u8, filter: Attributes) -> io::Result<Option<Vec<u8>>> {
        match self.request(kind, 0, family, filter) {
            Ok(Listing::Whole(objects)) => Ok(objects.into_iter().next()),
            Ok(Listing::Interrupted) => Err(Errno::INTR.into()),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn request(&mut self, kind: u16, flags: u16, family: u8, filter: Attributes) -> io::Result<Listing> {
        const NLM_F_REQUEST: u16 = 0x1;
        const NLM_F_DUMP_INTR: u16 = 0x10;
        self.drain(|_| ())?;
        let body = filter.into_bytes();
        let length = u32::try_from(HEADER + SUBHEADER + body.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&(SUBSYSTEM << 8 | kind).to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0, 0, 0]);
        bytes.extend_from_slice(&body);
        self.socket.send(&bytes)?;
        let (mut objects, mut interrupted, mut errno) = (Vec::new(), false, 0);
        let queue = self.drain(|message| {
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_ERROR | NLMSG_DONE => errno = if errno == 0 { message.errno() } else { errno },
                kind if kind >> 8 == SUBSYSTEM => objects.push(message.body().to_vec()),
                _ => (),
            }
        })?;
        match errno {
            0 if interrupted || queue == Queue::Overrun => Ok(Listing::Interrupted),
            0 => Ok(Listing::Whole(objects)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Shows every queued message to `reader`, until none is left.
    pub(super) fn drain(&mut self, mut reader: impl FnMut(&Received<'_>)) -> io::Result<Queue> {
        let mut queue = Queue::Whole;
        loop {
            match recv(descriptor(&self.socket), &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    Received::all(datagram).for_each(|message| reader(&message));
                }
                Err(Errno::AGAIN) => return Ok(queue),
                Err(Errno::INTR) => (),
                // netlink(7): told once, and what was not lost is still to come.
                Err(Errno::NOBUFS) => queue = Queue::Overrun,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether all messages came that there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// All of them.
    Whole,
    /// The kernel had no room for some.
    Overrun,
}

enum Listing {
    Whole(Vec<Vec<u8>>),
    Interrupted,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
