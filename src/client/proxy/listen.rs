//! Where the proxy listens: addresses, unix sockets, and what a service manager has opened for it.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::sys;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Whether others than this machine's own users can get there.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").map(PathBuf::from);
        match (path, text.parse()) {
            (Some(path), _) if path.is_absolute() => Ok(Self::Unix(path)),
            (None, Ok(address)) => Ok(Self::Tcp(address)),
            _ => Err(format!(
                "`{}`; use an address with a port, such as 127.0.0.1:1080 or [::1]:1080, or unix: with an absolute path",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens, and never waits.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    place: Place,
    /// The socket's file, if this made it: removed in the end, as long as it is the same.
    made: Option<u64>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection from a client.
#[derive(Debug)]
pub enum Client {
    /// By TCP.
    Tcp(TcpStream),
    /// By a unix socket.
    Unix(UnixStream),
}

impl Listener {
    /// Listens at a place. A unix socket is this user's alone, and replaces one that nobody listens to.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn open(place: &Place) -> Result<Self, String> {
        let opened = match place {
            Place::Tcp(address) => TcpListener::bind(address).map(|listener| (Socket::Tcp(listener), None)),
            Place::Unix(path) => {
                make_room(path)?;
                private(path).map(|(listener, inode)| (Socket::Unix(listener), Some(inode)))
            }
        };
        let (socket, made) = opened
            .map_err(|error| format!("cannot listen at {place}: {error}; name another with --listen"))?;
        let listener = Self { socket, place: place.clone(), made };
        listener.calm().map_err(|error| format!("{place}: {error}"))?;
        Ok(listener)
    }

    /// What the service manager has opened for this process.
    ///
    /// # Errors
    /// A sentence about what is no stream socket that listens.
    pub fn passed() -> Result<Vec<Self>, String> {
        let passed = sys::passed_descriptors().map_err(|error| format!("LISTEN_FDS: {error}"))?;
        let taken = passed.into_iter().map(Self::take);
        taken.collect::<io::Result<_>>().map_err(|error| {
            format!("the service manager passed something else than a listening stream socket: {error}")
        })
    }

    fn take(fd: OwnedFd) -> io::Result<Self> {
        let is_listening =
            sockopt::socket_acceptconn(&fd)? && sockopt::socket_type(&fd)? == SocketType::STREAM;
        let family = sockopt::socket_domain(&fd)?;
        let (socket, place) = match family {
            AddressFamily::INET | AddressFamily::INET6 if is_listening => {
                let listener = TcpListener::from(fd);
                let address = listener.local_addr()?;
                (Socket::Tcp(listener), Place::Tcp(address))
            }
            AddressFamily::UNIX if is_listening => {
                let listener = UnixListener::from(fd);
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
                (Socket::Unix(listener), Place::Unix(path.unwrap_or_default()))
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let listener = Self { socket, place, made: None };
        listener.calm()?;
        Ok(listener)
    }

    /// Where it listens.
    #[must_use]
    pub fn place(&self) -> Place {
        match &self.socket {
            // Port 0 has become another.
            Socket::Tcp(listener) => listener.local_addr().map_or_else(|_| self.place.clone(), Place::Tcp),
            Socket::Unix(_) => self.place.clone(),
        }
    }

    fn calm(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(listener) => listener.set_nonblocking(true),
            Socket::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// The next client, if one waits.
    pub(super) fn accept(&self) -> io::Result<Client> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Client::Tcp(stream)),
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| Client::Unix(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (Place::Unix(path), Some(inode)) = (&self.place, self.made)
            && fs::symlink_metadata(path).is_ok_and(|now| now.ino() == inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Refuses a directory where others might come between, and removes a socket that nobody listens to.
fn make_room(path: &Path) -> Result<(), String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let known = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let own = rustix::process::geteuid().as_raw();
    if known.uid() != own || known.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "{} is not this user's alone; make a directory of mode 0700 for the socket, or use the one in \
             XDG_RUNTIME_DIR",
            dir.display()
        ));
    }
    let is_socket = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.is_ok_and(|found| found.file_type().is_socket()),
    };
    match UnixStream::connect(path) {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))
        }
        Ok(_) => Err(format!("somebody listens at {} already; end that, or name another", path.display())),
        Err(_) => {
            Err(format!("{} is there and no socket of mine; remove it, or name another", path.display()))
        }
    }
}

/// The directory keeps others out until the mode is set.
fn private(path: &Path) -> io::Result<(UnixListener, u64)> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, fs::symlink_metadata(path)?.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn a_place_is_an_address_or_an_absolute_path() {
        let remote =
            |text: &str| text.parse::<Place>().map(|place| (place.to_string() == text, place.is_remote()));
        for local in ["127.0.0.1:1080", "127.9.9.9:1", "[::1]:1080", "[::ffff:127.0.0.1]:1080", "unix:/run/x"]
        {
            assert_eq!(remote(local), Ok((true, false)), "{local}");
        }
        for other in ["0.0.0.0:1080", "[::]:1080", "192.0.2.1:1080", "[::ffff:192.0.2.1]:1080"] {
            assert_eq!(remote(other), Ok((true, true)), "{other}");
        }
        for wrong in ["1080", "localhost:1080", "unix:x", "unix:", "::1:1080", ""] {
            assert!(remote(wrong).unwrap_err().contains("such as 127.0.0.1:1080"), "{wrong}");
        }
    }

    #[test]
    fn a_unix_socket_is_its_users_alone_and_gone_in_the_end() {
        let dir = dir();
        let path = dir.path().join("socks");
        let listener = Listener::open(&Place::Unix(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = Listener::open(&Place::Unix(path.clone())).unwrap_err();
        assert!(taken.contains("somebody listens at"), "{taken}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_listens_to_is_replaced() {
        let dir = dir();
        let path = dir.path().join("socks");
        drop(UnixListener::bind(&path).unwrap());
        let first = Listener::open(&Place::Unix(path.clone())).unwrap();
        // Somebody else took the place: it stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(first);
        let said = Listener::open(&Place::Unix(path.clone())).unwrap_err();
        assert!(said.contains("no socket of mine"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let said = Listener::open(&Place::Unix(dir.path().join("socks"))).unwrap_err();
        assert!(said.contains("is not this user's alone"), "{said}");
    }
}
