//! Bytes from one side to the other, both ways, until both have said all that they had to say.

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

/// Connects standard input and output, or what stands for them, with a connection: returns when the other side has
/// ended, whatever is still to come from this one.
///
/// # Errors
/// Whatever reading or writing says; that the other side is gone is none.
pub fn splice(input: BorrowedFd<'_>, output: BorrowedFd<'_>, stream: &TcpStream) -> io::Result<()> {
    let (mut input, mut output) = (file(input)?, file(output)?);
    let mut there = stream.try_clone()?;
    // Not awaited: this side may stay open for as long as its terminal, with nobody left to listen.
    thread::Builder::new().name("out".into()).spawn(move || {
        // What goes wrong on the way out is told by the way in.
        let _ = copy(&mut input, &mut there);
        let _ = there.shutdown(Shutdown::Write);
    })?;
    forgiven(copy(&mut &*stream, &mut output))
}

/// One end of a relay.
pub trait Side: Sync {
    /// Where to read and write.
    fn bytes(&self) -> impl io::Read + io::Write + '_;

    /// Ends one direction, or both.
    ///
    /// # Errors
    /// When it has ended already.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
}

impl Side for TcpStream {
    fn bytes(&self) -> impl io::Read + io::Write + '_ {
        self
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl Side for UnixStream {
    fn bytes(&self) -> impl io::Read + io::Write + '_ {
        self
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

/// Connects two connections; returns when both directions have ended. Where one fails, both are closed.
///
/// # Errors
/// Whatever reading or writing says first; that a side is gone is none.
pub fn join(a: &impl Side, b: &impl Side) -> io::Result<()> {
    thread::scope(|scope| {
        let there = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || one_way(a, b))?;
        let back = one_way(b, a);
        there.join().unwrap_or_else(|_| Err(io::Error::other("a thread was lost"))).and(back)
    })
}

/// Enough for a thread that copies; its buffer is on the heap.
const STACK: usize = 128 << 10;

fn one_way(from: &impl Side, to: &impl Side) -> io::Result<()> {
    let done = copy(&mut from.bytes(), &mut to.bytes());
    // Half a connection may go on, unless it can no longer end well: a side that is gone reads nothing any more, and the
    // other one may be silent for ever.
    let how = if done.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
    if done.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    forgiven(done)
}

/// Not [`io::copy`], which lets the kernel move the bytes by `splice(2)`: on Linux 6.18 a packet of ssh's that went from
/// a pipe to a socket this way was held back until the other side gave up.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match buffer.get(..length) {
            None | Some([]) => return Ok(()),
            Some(bytes) => to.write_all(bytes)?,
        }
    }
}

/// That a side is gone is an end like any other.
fn forgiven(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        other => other,
    }
}

/// What is read at a time.
const CHUNK: usize = 32 << 10;

/// A descriptor of its own for the same end.
fn file(fd: BorrowedFd<'_>) -> io::Result<File> {
    let own: OwnedFd = fd.try_clone_to_owned()?;
    Ok(File::from(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn what_one_side_says_reaches_the_other_also_after_it_has_heard_the_end() {
        let ((mut left, a), (b, mut right)) = (pair(), pair());
        let relay = thread::spawn(move || join(&a, &b));
        left.write_all(b"question").unwrap();
        left.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        right.read_to_string(&mut heard).unwrap();
        right.write_all(b"answer").unwrap();
        drop(right);
        let mut answer = String::new();
        left.read_to_string(&mut answer).unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("question", "answer"));
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn a_side_that_is_gone_ends_both_although_the_other_is_silent_for_ever() {
        let ((left, a), (b, _silent)) = (pair(), pair());
        let relay = thread::spawn(move || join(&a, &b));
        // What nobody has read makes the kernel end it by a reset.
        rustix::net::sockopt::set_socket_linger(&left, Some(std::time::Duration::ZERO)).unwrap();
        drop(left);
        relay.join().unwrap().unwrap();
    }

    #[test]
    fn a_server_that_hangs_up_ends_it_although_nothing_came_from_here() {
        let (stream, mut server) = pair();
        let (silent, _kept_open) = rustix::pipe::pipe().unwrap();
        let (heard, output) = rustix::pipe::pipe().unwrap();
        server.write_all(b"bye").unwrap();
        drop(server);
        splice(silent.as_fd(), output.as_fd(), &stream).unwrap();
        drop(output);
        let mut said = String::new();
        File::from(heard).read_to_string(&mut said).unwrap();
        assert_eq!(said, "bye");
    }
}
