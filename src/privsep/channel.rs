//! The two ends of the socketpair: `SOCK_SEQPACKET` (`unix(7)`), so that a message arrives whole or not at all.
//!
//! The monitor hands the worker its [`Brief`] once, in chunks; after that each side reads fixed-size messages
//! (see [`super::message`]). A message of any other size is an error.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use zeroize::Zeroizing;

use super::brief::Brief;
use super::message::{ORDER_LEN, Order, SAID_LEN, Said};

/// The size of the pieces in which the brief is handed over.
const CHUNK_LEN: usize = 32 * 1024;
/// No brief is larger: 200,000 profiles take about 100 MB.
const MAX_BRIEF_LEN: usize = 256 * 1024 * 1024;
/// Room for what the worker says while the monitor is busy with the firewall.
const BUFFER_LEN: usize = 1024 * 1024;

/// The monitor's end.
#[derive(Debug)]
pub(super) struct ToWorker(OwnedFd);

/// The worker's end.
#[derive(Debug)]
pub(super) struct ToMonitor(OwnedFd);

/// Makes a pair: the monitor's end, and the file descriptor that becomes the worker's standard input.
///
/// # Errors
/// Whatever `socketpair(2)` says.
pub(super) fn pair() -> io::Result<(ToWorker, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&theirs, BUFFER_LEN)?;
    Ok((ToWorker(ours), theirs))
}

impl ToWorker {
    /// Hands the brief over. The worker reads it before it does anything else, so this waits for it.
    ///
    /// # Errors
    /// When the worker is gone.
    pub(super) fn brief(&self, brief: &Brief) -> io::Result<()> {
        let bytes = brief.encode()?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        send(&self.0, &len.to_be_bytes(), SendFlags::NOSIGNAL)?;
        for chunk in bytes.chunks(CHUNK_LEN) {
            send(&self.0, chunk, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Gives an order, without waiting: a worker that does not read its orders is stuck.
    ///
    /// # Errors
    /// `WouldBlock` when the worker has stopped reading, `BrokenPipe` when it is gone.
    pub(super) fn order(&self, order: Order) -> io::Result<()> {
        send(&self.0, &order.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// The next message, or `None` when there is none yet.
    ///
    /// # Errors
    /// `UnexpectedEof` when the worker is gone; `InvalidData` for anything it should never say.
    pub(super) fn hear(&self) -> io::Result<Option<Said>> {
        let mut bytes = [0; SAID_LEN + 1];
        match receive(self.0.as_fd(), &mut bytes, RecvFlags::DONTWAIT)? {
            None => Ok(None),
            Some(message) => {
                let message =
                    message.try_into().map_err(|_| strange("the worker said a message of a wrong size"))?;
                Said::decode(message)
                    .map(Some)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl ToMonitor {
    /// Takes over the socket that the worker was started with.
    #[must_use]
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Reads the brief.
    ///
    /// # Errors
    /// `UnexpectedEof` when the monitor is gone, `InvalidData` when the bytes are no brief.
    pub(super) fn brief(&self) -> io::Result<Brief> {
        let mut len = [0; 8];
        let got = receive(self.0.as_fd(), &mut len, RecvFlags::empty())?.map_or(0, <[u8]>::len);
        let len = usize::try_from(u64::from_be_bytes(len)).unwrap_or(usize::MAX);
        if got != 8 || len > MAX_BRIEF_LEN {
            return Err(strange("standard input is not the monitor's socket; `worker` is started by `run`"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        let mut chunk = Zeroizing::new(vec![0; CHUNK_LEN]);
        while bytes.len() < len {
            let got = receive(self.0.as_fd(), &mut chunk, RecvFlags::empty())?.unwrap_or_default();
            bytes.extend_from_slice(got);
        }
        Brief::decode(&bytes)
    }

    /// Says something; waits when the monitor is busy.
    ///
    /// # Errors
    /// `BrokenPipe` when the monitor is gone: the worker ends.
    pub(super) fn say(&self, said: &Said) -> io::Result<()> {
        send(&self.0, &said.encode(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next order, or `None` when there is none yet.
    ///
    /// # Errors
    /// `UnexpectedEof` when the monitor is gone; `InvalidData` for anything it should never order.
    pub(super) fn heed(&self) -> io::Result<Option<Order>> {
        let mut bytes = [0; ORDER_LEN + 1];
        match receive(self.0.as_fd(), &mut bytes, RecvFlags::DONTWAIT)? {
            None => Ok(None),
            Some(message) => {
                let message = message.try_into().map_err(|_| strange("an order of a wrong size"))?;
                Order::decode(message)
                    .map(Some)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl AsFd for ToWorker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for ToMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One whole message; `None` when none is there, `UnexpectedEof` when the other side is gone.
fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<&'a [u8]>> {
    loop {
        match recv(socket, &mut *buffer, flags) {
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, len)) => return Ok(buffer.get(..len)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn strange(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
