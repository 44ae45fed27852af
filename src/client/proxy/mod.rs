//! A SOCKS proxy for one user, which knocks where that is needed.
//!
//! `listen` has the sockets, `slots` bounds the connections, `visit` is one of them from its first byte to its last.
//! `owner` says whose it is, `servers` which server is meant, with the help of `names`; `flights` sees to it that many
//! knock once. Each connection has a thread, and a second one while bytes go both ways: the resolver and knocks can
//! only be waited for, and 512 threads with small stacks cost less than what would do that without them.

mod flights;
mod listen;
mod names;
mod owner;
mod servers;
mod slots;
mod visit;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use listen::{Client, Listener, Place};

use super::cert::Identity;
use super::server::Server;
use super::store::Dirs;
use crate::socks::Password;
use flights::Flights;
use names::Names;
use slots::{Bell, Slots};

/// What the proxy goes by.
pub struct Settings {
    /// Where the servers are.
    pub dirs: Dirs,
    /// What every client has to know; without one, whose socket it is decides.
    pub password: Option<Password>,
    /// The most connections at a time.
    pub most: usize,
    /// After how long without a connection it ends by itself.
    pub idle: Option<Duration>,
    /// How long a connection may take to be made.
    pub timeout: Duration,
    /// Whether connections are told of, and not knocks and trouble alone.
    pub is_verbose: bool,
    /// Where that is said.
    pub say: fn(&str),
    /// The certificate to knock with at a server, if it is one.
    pub identify: Identify,
}

/// Says with which certificate a server is knocked at.
pub type Identify = Box<dyn Fn(&Server) -> Result<Option<Arc<Identity>>, String> + Send + Sync>;

/// The proxy.
pub struct Proxy {
    settings: Settings,
    names: Arc<Names>,
    flights: Flights,
    complaints: Mutex<Option<Instant>>,
}

/// How long without descriptors nobody is let in.
const REST: Duration = Duration::from_millis(200);
/// How long open connections may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(2);
/// How often the same trouble is told.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// A connection's stack; what is not used costs nothing.
const STACK: usize = 512 << 10;
/// Descriptors for each connection: both its ends, and tries under way.
const DESCRIPTORS: usize = 4;

impl Proxy {
    /// Makes ready to serve at these places.
    ///
    /// # Errors
    /// When the kernel does not say whose a connection is, and that is what would be asked.
    pub fn new(settings: Settings, listeners: &[Listener]) -> Result<Arc<Self>, String> {
        let has_tcp = listeners.iter().any(|listener| matches!(listener.place(), Place::Tcp(_)));
        if has_tcp && settings.password.is_none() {
            owner::try_out().map_err(|error| {
                format!(
                    "the kernel does not say whose a connection is ({error}; module tcp_diag, user namespace); use a \
                     unix socket (--listen unix:PATH) or a password (--user)"
                )
            })?;
        }
        let (names, flights, complaints) = (Arc::default(), Flights::default(), Mutex::default());
        Ok(Arc::new(Self { settings, names, flights, complaints }))
    }

    /// Serves until a signal ends it, or nobody has come for the idle time.
    ///
    /// # Errors
    /// What the kernel says about signals and polling.
    pub fn run(self: &Arc<Self>, listeners: Vec<Listener>) -> io::Result<()> {
        make_room_for(self.settings.most);
        let (bell, slots) = (Bell::install()?, Slots::new(self.settings.most));
        let (mut busy, mut rests_until) = (Instant::now(), None);
        loop {
            let now = Instant::now();
            if !slots.is_empty() {
                busy = now;
            }
            rests_until = rests_until.filter(|until| *until > now);
            let ends_at = self.settings.idle.map(|idle| busy + idle).filter(|_| slots.is_empty());
            if ends_at.is_some_and(|end| end <= now) {
                return Ok(());
            }
            let open = if slots.has_room() && rests_until.is_none() { &listeners[..] } else { &[] };
            let until = [ends_at, rests_until].into_iter().flatten().min();
            let ready = wait(&bell, open, until.map(|until| until.saturating_duration_since(now)))?;
            if bell.silence() {
                break;
            }
            for (listener, _) in open.iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
                if !self.accept(listener, &slots, &bell) {
                    rests_until = Some(Instant::now() + REST);
                }
            }
        }
        drop(listeners);
        let end = Instant::now() + GRACE;
        while !slots.is_empty() && Instant::now() < end {
            wait(&bell, &[], Some(end.saturating_duration_since(Instant::now())))?;
            bell.silence();
        }
        Ok(())
    }

    /// Lets in who waits, as far as there is room; `false` when that cannot be for now.
    fn accept(self: &Arc<Self>, listener: &Listener, slots: &Slots, bell: &Bell) -> bool {
        while slots.has_room() {
            let client = match listener.accept() {
                Ok(client) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if is_of_one_client(&error) => continue,
                Err(error) => {
                    self.complain(&format!("connections have to wait: {error}"));
                    return false;
                }
            };
            let (proxy, slot) = (Arc::clone(self), slots.take(bell));
            let begun = thread::Builder::new().name("client".into()).stack_size(STACK).spawn(move || {
                // Given back when everything else of it is closed.
                let _slot = slot;
                proxy.serve(&client);
                drop(client);
            });
            if let Err(error) = begun {
                self.complain(&format!("a connection was turned away: {error}"));
                return false;
            }
        }
        true
    }

    /// Tells of trouble, which strangers can make at will: not too often.
    fn complain(&self, what: &str) {
        let mut last = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINTS) {
            *last = Some(Instant::now());
            (self.settings.say)(what);
        }
    }
}

/// Waits for the bell, or a client; says at which listeners one waits. One that somebody else has shut down would be
/// ready for ever: that is an error.
fn wait(bell: &Bell, listeners: &[Listener], at_most: Option<Duration>) -> io::Result<Vec<bool>> {
    let timeout = at_most.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<PollFlags> = fds.iter().skip(1).map(PollFd::revents).collect();
    if ready.iter().any(|ready| ready.intersects(PollFlags::HUP | PollFlags::NVAL)) {
        return Err(io::Error::other("somebody else has shut down the socket that it listened at"));
    }
    Ok(ready.iter().map(|ready| !ready.is_empty()).collect())
}

/// Whether a client has gone already, and the next one may be there (`accept(2)`). All else would be said again at once:
/// that descriptors have run out, or that somebody has shut the socket down.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// Asks for as many descriptors as that many connections take, as far as this process may.
fn make_room_for(connections: usize) {
    let wanted =
        u64::try_from(connections.saturating_mul(DESCRIPTORS).saturating_add(64)).unwrap_or(u64::MAX);
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_some_and(|current| current < wanted) {
        let current = Some(limits.maximum.map_or(wanted, |most| most.min(wanted)));
        // With fewer, connections wait.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limits.maximum });
    }
}

/// For the fuzzer: what the kernel answers about the owner of a connection.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_owner(bytes: &[u8]) {
    owner::check(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::mpsc::channel;

    #[test]
    fn a_listener_that_somebody_shut_down_does_not_keep_the_proxy_busy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let bell = Bell::install().unwrap();
        let shut = |place| {
            let listener = Listener::open(&place).unwrap();
            rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
            wait(&bell, std::slice::from_ref(&listener), Some(Duration::ZERO)).unwrap_err();
            listener
        };
        shut(Place::Unix(dir.path().join("socks")));
        let listener = shut("127.0.0.1:0".parse().unwrap());
        let settings = Settings {
            dirs: Dirs { config: "/nonexistent".into(), state: "/nonexistent".into() },
            password: None,
            most: 1,
            idle: None,
            timeout: Duration::from_secs(1),
            is_verbose: false,
            say: |_| {},
            identify: Box::new(|_| Ok(None)),
        };
        let proxy = Proxy::new(settings, &[]).unwrap();
        let (told, heard) = channel();
        thread::spawn(move || told.send(proxy.accept(&listener, &Slots::new(1), &bell)));
        assert_eq!(heard.recv_timeout(Duration::from_secs(5)), Ok(false));
    }
}
