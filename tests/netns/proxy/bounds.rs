//! What the proxy holds: places, descriptors, threads, and the sockets that a service manager passes to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{CONFIG, PAGE, Proxy, Web, curl, gets, world};
use crate::common::{KNOCKD, SOON, succeed, wait_for};

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
