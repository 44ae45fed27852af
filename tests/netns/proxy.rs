//! The SOCKS proxy: `curl` and bare sockets through it to guarded ports of the server.

mod bounds;
mod users;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Answer, SERVER4, SERVER6, SOON, World, succeed, wait_for, within};

const CONFIG: &str =
    "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/8080\", \"tcp/8081\", \"tcp/8082\"]\n";
/// What the web server says.
const PAGE: &str = "hello\n";

/// A web server on both families, which counts its connections.
struct Web {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    fn start(world: &World, port: u16) -> Self {
        let listener = world.on_server(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, count) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let count = Arc::clone(&count);
                        thread::spawn(move || serve(stream, &count));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { stop, served, thread: Some(thread) }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(stream: TcpStream, count: &AtomicUsize) {
    stream.set_nonblocking(false).unwrap();
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    if lines.any(|line| line.is_empty()) {
        count.fetch_add(1, Ordering::SeqCst);
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", PAGE.len());
        let _ = (&stream).write_all((head + PAGE).as_bytes());
    }
}

/// A proxy in the client's namespace, which ends with its handle.
struct Proxy<'a> {
    world: &'a World,
    child: Child,
}

impl<'a> Proxy<'a> {
    fn start(world: &'a World, arguments: &[&str]) -> Self {
        let mut command = world.client_command(&[&["proxy"], arguments].concat());
        let log = fs::File::create(world.path("proxy.log")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let proxy = Self { world, child };
        assert!(wait_for(SOON, || proxy.log().contains("listening at")), "{}", proxy.log());
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(self.world.path("proxy.log")).unwrap()
    }

    fn pid(&self) -> Pid {
        // `ip netns exec` becomes what it runs.
        Pid::from_child(&self.child)
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// Tells it to end, and says how long that took.
    fn end(&mut self) -> Duration {
        let started = Instant::now();
        kill_process(self.pid(), Signal::TERM).unwrap();
        assert!(wait_for(SOON, || self.child.try_wait().unwrap().is_some()), "it goes on");
        assert!(self.child.wait().unwrap().success());
        started.elapsed()
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the proxy's log:\n{}---", self.log());
        }
    }
}

/// curl in the client's namespace, with this proxy.
fn curl(world: &World, proxy: &str, arguments: &[&str]) -> Command {
    let mut command = world.inside(&world.client);
    command.args(["curl", "-sS", "--max-time", "30", "-x", proxy]).args(arguments);
    command
}

fn page(world: &World, proxy: &str, url: &str) -> Output {
    curl(world, proxy, &[url]).output().unwrap()
}

#[track_caller]
fn gets(world: &World, proxy: &str, url: &str) {
    assert_eq!(succeed(&page(world, proxy, url)), PAGE, "{proxy} {url}");
}

/// A client's files where the client is the same user that the proxy is: root here.
fn world(ports: &[&str]) -> World {
    let world = World::new();
    world.configure(CONFIG);
    world.enrol("laptop", ports);
    world
}

/// Names for the client's namespace alone.
fn name(world: &World, lines: &str) {
    let dir = Path::new("/etc/netns").join(&world.client);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{lines}")).unwrap();
    fs::write(dir.join("resolv.conf"), "").unwrap();
    fs::write(dir.join("nsswitch.conf"), "hosts: files\n").unwrap();
}

/// What a proxy answers to a SOCKS5 request for this destination (kind, address, port).
fn reply(world: &World, command: u8, destination: &[u8]) -> u8 {
    world.on_client(|| {
        let mut stream = TcpStream::connect("127.0.0.1:1080").unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[&[5, 1, 0, 5, command, 0], destination].concat()).unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).unwrap();
        assert_eq!((said[0], said[1], said[2]), (5, 0, 5));
        said[3]
    })
}

#[test]
fn curl_gets_through_by_every_version_on_both_families() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    name(
        &world,
        "10.77.0.1 web.example\nfd77::1 web6.example\n10.77.0.1 both.example\nfd77::1 both.example\n",
    );
    let daemon = world.daemon(CONFIG);
    let web = Web::start(&world, 8080);
    let proxy = Proxy::start(&world, &[]);
    let ways = [
        ("10.77.0.1", "http://10.77.0.1:8080/", &["socks5", "socks5h", "socks4", "socks4a"][..], "10.77.0.2"),
        ("fd77::1", "http://[fd77::1]:8080/", &["socks5", "socks5h"], "fd77::2"),
        ("web.example", "http://web.example:8080/", &["socks5", "socks5h", "socks4", "socks4a"], "10.77.0.2"),
        ("web6.example", "http://web6.example:8080/", &["socks5", "socks5h"], "fd77::2"),
        // By the name that the server has here, and by an address that its name has.
        ("both.example", "http://myserver:8080/", &["socks5h", "socks4a"], "10.77.0.2"),
        ("both.example", "http://10.77.0.1:8080/", &["socks5"], "10.77.0.2"),
        ("both.example", "http://[fd77::1]:8080/", &["socks5"], "fd77::2"),
    ];
    let mut count = 0;
    for (host, url, versions, client) in ways {
        world.retarget(host);
        for version in versions {
            let before = daemon.logged(&format!("granted laptop from {client}: tcp/8080"));
            gets(&world, &format!("{version}://127.0.0.1:1080"), url);
            count += 1;
            let after = daemon.logged(&format!("granted laptop from {client}: tcp/8080"));
            assert_eq!(after, before + 1, "{version} {url}: {}", daemon.log());
            daemon.command(&["revoke", "all"]);
        }
    }
    assert_eq!(web.served(), count);
    assert!(
        proxy.log().lines().skip(1).all(|line| line.contains("open after a knock by spa")),
        "{}",
        proxy.log()
    );
    assert!(!proxy.log().contains("example"), "destinations are nobody's business: {}", proxy.log());
}

#[test]
fn a_hundred_connections_at_once_share_one_knock_in_each_window() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let daemon = world.daemon(CONFIG);
    let web = Web::start(&world, 8080);
    let proxy = Proxy::start(&world, &[]);
    for (round, server) in (1..).zip([SERVER4, SERVER6]) {
        world.retarget(&server.to_string());
        let url = format!("http://{}/", SocketAddr::new(server, 8080));
        let started = Instant::now();
        let all: Vec<Child> = (0..100)
            .map(|_| {
                let mut one = curl(&world, "socks5h://127.0.0.1:1080", &[&url]);
                one.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for one in all {
            assert_eq!(succeed(&one.wait_with_output().unwrap()), PAGE);
        }
        eprintln!("100 connections to {server} took {:?}", started.elapsed());
        // A window is 15 s; a slow machine may need a second one.
        let windows = started.elapsed().as_secs() / 15 + 1;
        let granted = daemon.logged("granted laptop") as u64;
        assert!(granted >= round && granted <= round * windows, "{granted} in {windows}: {}", daemon.log());
        assert_eq!(web.served() as u64, 100 * round);
    }
    assert!(wait_for(SOON, || proxy.threads() == 1), "threads are left over");
}

#[test]
fn where_a_grant_is_for_one_connection_each_has_its_own_knock() {
    let world = world(&["--open", "tcp/8080"]);
    let daemon = world.daemon(CONFIG);
    let web = Web::start(&world, 8080);
    let _proxy = Proxy::start(&world, &[]);
    let started = Instant::now();
    let all: Vec<Child> = (0..8)
        .map(|_| {
            let mut one = curl(&world, "socks5h://127.0.0.1:1080", &["http://10.77.0.1:8080/"]);
            one.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for one in all {
        assert_eq!(succeed(&one.wait_with_output().unwrap()), PAGE);
    }
    eprintln!("8 connections with 8 knocks took {:?}", started.elapsed());
    assert_eq!((web.served(), daemon.logged("granted laptop")), (8, 8), "{}", daemon.log());
}

#[test]
fn other_hosts_and_other_ports_pass_through_without_a_knock() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let names =
        "10.77.0.1 other.example\nfd77::1 other.example\nfd77::99 half.example\n10.77.0.1 half.example\n";
    name(&world, names);
    let daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 9090);
    let proxy = Proxy::start(&world, &["--verbose"]);
    for url in ["http://10.77.0.1:9090/", "http://[fd77::1]:9090/", "http://other.example:9090/"] {
        gets(&world, "socks5h://127.0.0.1:1080", url);
    }
    // One of the two does not answer.
    let started = Instant::now();
    gets(&world, "socks5h://127.0.0.1:1080", "http://half.example:9090/");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(daemon.logged("granted"), 0);
    assert!(proxy.log().contains("other.example, tcp/9090: connected to"), "{}", proxy.log());
    assert!(!proxy.log().contains("knock by"), "{}", proxy.log());
}

#[test]
fn what_was_imported_after_the_start_is_knocked_at() {
    let world = World::new();
    world.configure(CONFIG);
    let proxy = Proxy::start(&world, &["--timeout", "1s"]);
    world.enrol("laptop", &["--open", "tcp/8080"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    gets(&world, "socks5h://127.0.0.1:1080", "http://10.77.0.1:8080/");
    assert!(proxy.log().contains("myserver, tcp/8080: open after a knock by spa, in "), "{}", proxy.log());
}

#[test]
fn what_cannot_be_reached_is_told_in_the_words_of_socks() {
    let world = world(&["--open", "tcp/8081"]);
    name(&world, "");
    let _daemon = world.daemon(CONFIG);
    let _proxy = Proxy::start(&world, &["--timeout", "1s"]);
    let (connect, bind, associate) = (1, 2, 3);
    let v4 = |address: [u8; 4], port: u16| [&[1][..], &address, &port.to_be_bytes()].concat();
    let named =
        |name: &str| [&[3, u8::try_from(name.len()).unwrap()][..], name.as_bytes(), &[0, 80]].concat();
    assert_eq!(reply(&world, connect, &v4([10, 77, 0, 1], 9999)), 5, "nobody listens");
    assert_eq!(reply(&world, connect, &v4([192, 0, 2, 1], 80)), 3, "there is no such network");
    assert_eq!(reply(&world, connect, &named("nowhere.example")), 4, "the name has no address");
    assert_eq!(reply(&world, connect, &v4([10, 77, 0, 1], 8082)), 6, "it is closed, and not ours to open");
    assert_eq!(reply(&world, connect, &v4([10, 77, 0, 1], 8081)), 5, "it was opened, and nobody listens");
    assert_eq!(reply(&world, bind, &v4([10, 77, 0, 1], 80)), 7);
    assert_eq!(reply(&world, associate, &v4([10, 77, 0, 1], 80)), 7);
    assert_eq!(reply(&world, connect, &[2, 0, 0, 0, 0]), 8, "there is no such kind of address");
}

#[test]
fn bytes_go_both_ways_and_one_end_may_fall_silent_before_the_other() {
    let world = world(&["--open", "tcp/8080"]);
    let _proxy = Proxy::start(&world, &[]);
    let listener = world.on_server(|| TcpListener::bind((SERVER4, 9090)).unwrap());
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        all.len()
    });
    let started = Instant::now();
    let back = within(&world.client, || {
        let mut stream = TcpStream::connect("127.0.0.1:1080").unwrap();
        stream.write_all(b"\x04\x01\x23\x82\x0a\x4d\x00\x01\x00").unwrap();
        let mut said = [0; 8];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(said[1], 0x5a);
        stream.write_all(&vec![7; 16 << 20]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    eprintln!("16 MiB there and back took {:?}", started.elapsed());
    assert_eq!((back, echo.join().unwrap()), (16 << 20, 16 << 20));
    let server: IpAddr = SERVER4;
    assert_eq!(world.try_tcp(None, server, 9090), Answer::Refused);
}
