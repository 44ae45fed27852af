//! The SOCKS proxy: `curl` and bare sockets through it to guarded ports of the server.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cert;
use crate::common::pki::CLIENT;
use crate::common::{Answer, KNOCKD, SERVER4, SERVER6, SOON, World, said, succeed, wait_for, within};

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
    name(&world, "10.77.0.1 other.example\nfd77::1 other.example\n");
    let daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 9090);
    let proxy = Proxy::start(&world, &["--verbose"]);
    for url in ["http://10.77.0.1:9090/", "http://[fd77::1]:9090/", "http://other.example:9090/"] {
        gets(&world, "socks5h://127.0.0.1:1080", url);
    }
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
fn another_user_of_the_machine_is_refused_and_so_is_root() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let proxy = Proxy::start(&world, &["--listen", "127.0.0.1:1080", "--listen", "[::1]:1080"]);
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    for place in ["127.0.0.1:1080", "[::1]:1080"] {
        gets(&world, &format!("socks5h://{place}"), "http://10.77.0.1:8080/");
        let mut command = world.inside(&world.client);
        command.args(as_nobody).args(["curl", "-sS", "-x", &format!("socks5h://{place}")]);
        let output = command.arg("http://10.77.0.1:8080/").output().unwrap();
        assert!(!output.status.success(), "{}", said(&output));
    }
    assert!(
        proxy.log().contains("a connection was refused: it is user 65534's, and this proxy is user 0's"),
        "{}",
        proxy.log()
    );
    // The other way round: a proxy of that user's is nothing for root.
    let log = fs::File::create(world.path("other.log")).unwrap();
    let mut other = world.inside(&world.client);
    other.args(as_nobody).arg(public_program(&world)).args(["proxy", "--listen", "127.0.0.1:1081"]);
    let mut other = other.env("HOME", "/nonexistent").stderr(log).spawn().unwrap();
    let heard = |words: &str| fs::read_to_string(world.path("other.log")).unwrap().contains(words);
    let listens = wait_for(SOON, || heard("listening at"));
    let output = page(&world, "socks5h://127.0.0.1:1081", "http://10.77.0.1:8080/");
    let refused = wait_for(SOON, || heard("it is user 0's, and this proxy is user 65534's"));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(listens && refused && !output.status.success(), "{}", said(&output));
}

/// The program where everybody may run it: the directory of the build may be the user's alone.
fn public_program(world: &World) -> std::path::PathBuf {
    let path = world.path("knockd-rs");
    fs::copy(KNOCKD, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn who_knows_the_password_is_served_and_nobody_else() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let file = world.path("password");
    fs::write(&file, "open sesame\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.display().to_string();
    let arguments = ["--listen", "10.77.0.2:1080", "--user", "ali", "--password-file", &file];
    let output = world.client(&[&["proxy"], &arguments[..]].concat());
    assert!(output.status.code() == Some(3) && said(&output).contains("chmod 0600"), "{}", said(&output));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let _proxy = Proxy::start(&world, &arguments);
    let url = "http://10.77.0.1:8080/";
    gets(&world, "socks5h://ali:open%20sesame@10.77.0.2:1080", url);
    for wrong in [
        "socks5h://ali:open@10.77.0.2:1080",
        "socks5h://baba:open%20sesame@10.77.0.2:1080",
        "socks5h://10.77.0.2:1080",
        "socks4://ali@10.77.0.2:1080",
        "socks4a://ali:open%20sesame@10.77.0.2:1080",
    ] {
        assert!(!page(&world, wrong, url).status.success(), "{wrong}");
    }
}

#[test]
fn a_place_that_others_can_get_to_takes_a_password() {
    let world = world(&["--open", "tcp/8080"]);
    for place in ["10.77.0.2:1080", "0.0.0.0:1080", "[::]:1080"] {
        let output = world.client(&["proxy", "--listen", place]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("so a password is needed"), "{}", said(&output));
    }
}

#[test]
fn a_unix_socket_is_its_users_alone_and_gone_after_the_end() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let dir = world.path("private");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let path = dir.join("socks");
    let mut proxy = Proxy::start(&world, &["--listen", &format!("unix:{}", path.display())]);
    let url = "http://10.77.0.1:8080/";
    gets(&world, &format!("socks5h://localhost{}", path.display()), url);
    // Even where the file lets others in, the proxy does not.
    for (path, mode) in [(&dir, 0o755), (&path, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut other = world.inside(&world.client);
    other.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-sS", "-x"]);
    let output = other.args([&format!("socks5h://localhost{}", path.display()), url]).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(wait_for(SOON, || proxy.log().contains("it is user 65534's")), "{}", proxy.log());
    proxy.end();
    assert!(!path.exists());
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
fn a_thousand_connections_leave_no_descriptor_behind() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let web = Web::start(&world, 9090);
    let proxy = Proxy::start(&world, &[]);
    gets(&world, "socks5h://127.0.0.1:1080", "http://10.77.0.1:9090/");
    assert!(wait_for(SOON, || proxy.threads() == 1));
    let before = proxy.descriptors();
    let started = Instant::now();
    world.on_client(|| {
        for number in 0..1000 {
            let mut stream = TcpStream::connect("127.0.0.1:1080").unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let request = b"\x05\x01\x00\x05\x01\x00\x01\x0a\x4d\x00\x01\x23\x82GET / HTTP/1.0\r\n\r\n";
            // Some hang up in the middle of a word, and some before they are answered.
            match number % 10 {
                1 => drop(stream.write_all(&request[..7])),
                2 => drop(stream.write_all(request)),
                _ => {
                    stream.write_all(request).unwrap();
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).unwrap();
                    assert!(said.ends_with(PAGE.as_bytes()), "{number}: {said:?}");
                }
            }
        }
    });
    eprintln!("1,000 connections took {:?}", started.elapsed());
    assert!(web.served() >= 800);
    assert!(wait_for(SOON, || proxy.threads() == 1), "{} threads are left", proxy.threads());
    assert_eq!(proxy.descriptors(), before);
}

#[test]
fn who_says_nothing_is_hung_up_on_and_who_comes_after_the_last_place_waits_for_one() {
    let world = world(&["--open", "tcp/8080"]);
    let web = Web::start(&world, 9090);
    let mut proxy = Proxy::start(&world, &["--max-connections", "2"]);
    let silent: Vec<TcpStream> =
        world.on_client(|| (0..2).map(|_| TcpStream::connect("127.0.0.1:1080").unwrap()).collect());
    assert!(wait_for(SOON, || proxy.threads() == 3));
    let started = Instant::now();
    gets(&world, "socks5h://127.0.0.1:1080", "http://10.77.0.1:9090/");
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(web.served(), 1);
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    // Told to end, it waits for those that are open, but not for long.
    let _open = world.on_client(|| TcpStream::connect("127.0.0.1:1080").unwrap());
    assert!(wait_for(SOON, || proxy.threads() == 2));
    let took = proxy.end();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn without_descriptors_connections_wait_and_nothing_spins() {
    let world = world(&["--open", "tcp/8080"]);
    let _web = Web::start(&world, 9090);
    let proxy = Proxy::start(&world, &[]);
    let limit = |count: &str| {
        let limit = format!("--nofile={count}:");
        succeed(
            &Command::new("prlimit").args(["--pid", &proxy.child.id().to_string(), &limit]).output().unwrap(),
        );
    };
    // The next one that would be given out.
    let is_free = |fd: &i32| !Path::new(&format!("/proc/{}/fd/{fd}", proxy.child.id())).exists();
    limit(&(0..).find(is_free).unwrap().to_string());
    let url = "http://10.77.0.1:9090/";
    let waiting = curl(&world, "socks5h://127.0.0.1:1080", &[url]).stdout(Stdio::piped()).spawn().unwrap();
    assert!(wait_for(SOON, || proxy.log().contains("connections have to wait")), "{}", proxy.log());
    let before = ticks(proxy.child.id());
    thread::sleep(Duration::from_secs(2));
    assert!(ticks(proxy.child.id()) - before < 20, "it spins");
    assert_eq!(proxy.log().matches("connections have to wait").count(), 1);
    limit("512");
    assert_eq!(succeed(&waiting.wait_with_output().unwrap()), PAGE);
}

/// Hundredths of a second that a process has run (`proc_pid_stat(5)`).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

/// What a service manager does: listens, and becomes the program when somebody comes (`sd_listen_fds(3)`).
const ACTIVATE: &str = "\
import os, select, socket, sys
unix = sys.argv[1].startswith('/')
s = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
s.bind(sys.argv[1] if unix else ('127.0.0.1', int(sys.argv[1])))
s.listen()
print('listening', flush=True)
select.select([s], [], [])
if s.fileno() != 3: os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_service_manager_passes_the_socket_and_the_proxy_ends_when_nobody_comes() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let web = Web::start(&world, 8080);
    let path = world.path("activated").display().to_string();
    for (place, proxy) in
        [("1080", "socks5h://127.0.0.1:1080".to_owned()), (&path, format!("socks5h://localhost{path}"))]
    {
        let log = fs::File::create(world.path("activated.log")).unwrap();
        let mut manager = world.inside(&world.client);
        manager.args(["python3", "-c", ACTIVATE, place, KNOCKD, "proxy", "--idle", "2s"]);
        manager.env("HOME", world.path("home")).stdout(Stdio::piped()).stderr(log);
        let mut manager = manager.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
        gets(&world, &proxy, "http://10.77.0.1:8080/");
        let started = Instant::now();
        let ended = wait_for(SOON, || manager.try_wait().unwrap().is_some());
        let log = fs::read_to_string(world.path("activated.log")).unwrap();
        assert!(ended && manager.wait().unwrap().success(), "{log}");
        assert!(started.elapsed() > Duration::from_millis(1500), "{:?}: {log}", started.elapsed());
        assert!(log.contains("listening at"), "{log}");
    }
    assert_eq!(web.served(), 2);
}

#[test]
fn a_certificates_passphrase_is_needed_once_and_a_new_certificate_counts_at_once() {
    let world = World::new();
    let ca = cert::office(&world);
    let config = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/8080\"]\n[certificate_authority]\n\
                  ca = \"ca.pem\"\ncrl = \"crl.pem\"\n[[certificates]]\nname = \"staff\"\nopen = [\"tcp/8080\"]\n";
    let daemon = world.daemon(config);
    let alice = ca.issue("alice", "p256", CLIENT);
    let encrypt = |key: &Path| {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:sesame", "-in"]).arg(key);
        fs::write(key, openssl.output().unwrap().stdout).unwrap();
    };
    encrypt(&alice.key);
    let passphrase = world.path("passphrase");
    fs::write(&passphrase, "sesame\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["--passphrase-file", &passphrase.display().to_string()];
    cert::import_with(&world, &alice, &words);
    let _web = Web::start(&world, 8080);
    let url = "http://10.77.0.1:8080/";
    let get = || gets(&world, "socks5h://127.0.0.1:1080", url);
    // Without a terminal nobody can be asked: it says so, and tries the port all the same.
    {
        let proxy = Proxy::start(&world, &["--timeout", "1s"]);
        assert!(proxy.log().contains("until that is mended it is not knocked at"), "{}", proxy.log());
        assert!(!page(&world, "socks5h://127.0.0.1:1080", url).status.success());
        assert_eq!(daemon.logged("granted"), 0);
    }
    let proxy = Proxy::start(&world, &words);
    // It was opened at the start, and is not looked for again.
    fs::remove_file(&passphrase).unwrap();
    get();
    assert_eq!(daemon.logged("granted"), 1, "{}", daemon.log());
    // A new key in its place that needs no passphrase.
    let again = ca.issue("alice", "p256", CLIENT);
    assert_eq!(again.key, alice.key);
    get();
    assert_eq!(daemon.logged("granted"), 2, "{}{}", proxy.log(), daemon.log());
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
