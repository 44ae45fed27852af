//! Probes and services, made in the namespace of the thread that calls.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// What a TCP connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Connected,
    /// A reset, or an ICMP error.
    Refused,
    /// Nothing came back in time.
    Silence,
}

/// Tries one TCP connection, and waits for an answer for this long.
pub fn attempt(from: Option<IpAddr>, to: SocketAddr, patience: Duration) -> Answer {
    try_from(from.map(|address| SocketAddr::new(address, 0)), to, patience)
}

fn try_from(from: Option<SocketAddr>, to: SocketAddr, patience: Duration) -> Answer {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
    if let Some(from) = from {
        bind(&socket, &from).unwrap();
    }
    match connect(&socket, &to) {
        Ok(()) => return Answer::Connected,
        Err(Errno::INPROGRESS) => {}
        Err(_) => return Answer::Refused,
    }
    if !is_ready(&socket, PollFlags::OUT, patience) {
        return Answer::Silence;
    }
    if sockopt::socket_error(&socket).unwrap().is_ok() { Answer::Connected } else { Answer::Refused }
}

/// Sends one datagram and waits for an answer for this long.
pub fn udp_answers(to: SocketAddr, patience: Duration) -> bool {
    let any: SocketAddr =
        if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(b"hello").is_ok() && socket.recv(&mut [0; 64]).is_ok()
}

/// Waits until the descriptor is ready, for this long at the most.
pub fn is_ready(fd: impl AsFd, what: PollFlags, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&fd, what)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Connection attempts from one address, one after the other, a millisecond or two apart. Their ports are none that the
/// kernel chooses by itself: a probe from the port of a connection that somebody had a moment ago would belong to
/// that connection, as far as the kernel's connection tracking can tell.
pub struct Siege {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Assault>,
}

/// What a siege came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assault {
    /// How many attempts were made.
    pub attempts: usize,
    /// How many of them got a connection.
    pub connected: usize,
    /// The time from the first of these to the last.
    pub open_for: Duration,
    /// The same within the longest row of them: one that failed may be a hiccup, three in a row end it.
    pub longest: Duration,
}

impl Siege {
    /// Begins, in the namespace of this thread.
    pub fn begin(from: IpAddr, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut assault = Assault::default();
            let (mut first, mut row, mut failures) = (None, None, 0);
            for port in (10_000..32_000).cycle() {
                if theirs.load(Ordering::Relaxed) {
                    break;
                }
                let answer = try_from(Some(SocketAddr::new(from, port)), to, Duration::from_millis(2));
                assault.attempts += 1;
                if answer == Answer::Connected {
                    assault.connected += 1;
                    assault.open_for = first.get_or_insert_with(Instant::now).elapsed();
                    assault.longest = assault.longest.max(row.get_or_insert_with(Instant::now).elapsed());
                    failures = 0;
                    // An open port answers at once: without a pause this would take the processor from all others.
                    std::thread::sleep(Duration::from_millis(1));
                } else {
                    failures += 1;
                    row = row.filter(|_| failures < 3);
                }
            }
            assault
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn end(self) -> Assault {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A TCP service that sends back what it gets, for as long as the connection lasts.
pub struct Mirror {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Starts it on a port of both families.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> = Vec::new();
            while !theirs.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    streams.push(stream);
                }
                streams.retain_mut(|stream| {
                    let mut byte = [0];
                    match stream.read(&mut byte) {
                        Ok(0) => false,
                        Ok(_) => stream.write_all(&byte).is_ok(),
                        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                    }
                });
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A connection to a [`Mirror`].
pub struct Talk(TcpStream);

impl Talk {
    /// Connects in the namespace of this thread; `None` when nobody answers, or refuses, within a moment.
    pub fn begin(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_millis(300)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut talk = Self(stream);
        talk.goes_on().then_some(talk)
    }

    /// Whether a byte still comes back.
    pub fn goes_on(&mut self) -> bool {
        self.0.write_all(b"x").is_ok() && self.0.read_exact(&mut [0]).is_ok()
    }
}

/// A service that greets on TCP and echoes on UDP, until it is dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Starts it on a port of both families.
    pub fn start(port: u16) -> Self {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |socket: Service| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    socket.turn();
                }
            })
        };
        let threads = vec![serve(Service::Tcp(tcp)), serve(Service::Udp(udp))];
        Self { stop, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

enum Service {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Service {
    fn turn(&self) {
        let wait = Duration::from_millis(50);
        match self {
            Self::Tcp(socket) if is_ready(socket, PollFlags::IN, wait) => {
                if let Ok((mut stream, _)) = socket.accept() {
                    let _ = stream.write_all(b"hello\n");
                }
            }
            Self::Udp(socket) if is_ready(socket, PollFlags::IN, wait) => {
                let mut bytes = [0; 2048];
                if let Ok((len, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..len], from);
                }
            }
            Self::Tcp(_) | Self::Udp(_) => {}
        }
    }
}
