//! Real captures by really confined processes, in network namespaces of their own.
//!
//! Frames come from a confined process alone, and confinement takes a process with a single thread: so this
//! program runs itself as the child (see `child`), and the tests talk to it by lines. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod packets;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use knockd_rs::capture::{Confined, Filter, Source, open};
use knockd_rs::frame::parse;
use knockd_rs::privsep::capabilities::{Capabilities, keep_only_net_admin, with_ambient};
use knockd_rs::privsep::confine::restrict_monitor;
use knockd_rs::sys::kernel_clock;
use packets::{DOT1AD, DOT1Q, HOP_BY_HOP, IPV4, IPV6, ethernet, ipv6_with, knock4, knock6};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

const PORT: u16 = 62201;

type Test = (&'static str, fn());

/// Each name is a sentence, as elsewhere.
const TESTS: &[Test] = &[
    ("the_worker_has_no_privilege_left_and_frames_still_arrive", no_privilege_left),
    ("files_outside_the_two_directories_are_out_of_reach", files_out_of_reach),
    ("state_is_written_synced_and_renamed_by_a_thread_started_afterwards", state_is_written),
    ("a_confined_worker_cannot_open_another_capture", no_second_capture),
    ("calls_that_are_not_in_the_table_end_the_worker", forbidden_calls),
    ("a_process_with_a_second_thread_is_not_confined", second_thread),
    ("the_worker_dies_with_its_parent", dies_with_parent),
    ("a_worker_whose_monitor_hangs_up_ends_by_itself", ends_by_itself),
    ("a_panic_in_the_worker_is_told_before_it_ends", panic_is_told),
    ("a_kernel_without_landlock_is_reported_and_frames_still_arrive", without_landlock),
    ("missing_directories_do_not_stop_the_worker", missing_directories),
    ("a_capture_file_is_read_to_its_end", capture_file),
    ("both_families_with_tags_and_extension_headers_arrive_and_other_packets_do_not", what_arrives),
    ("the_device_any_hears_every_interface", any_hears_all),
    ("what_this_host_sends_is_not_captured", outgoing_is_ignored),
    ("capturing_goes_on_after_the_link_was_down", link_down_and_up),
    ("capturing_goes_on_under_a_new_name", rename),
    ("a_removed_interface_is_reported_as_gone", removal),
    ("an_interface_that_was_down_first_is_gone_too", removal_while_down),
    ("an_interface_made_again_is_another_one", made_again),
    ("the_device_any_outlives_interfaces", any_outlives),
    ("an_interface_that_is_missing_or_down_is_told_apart", missing_or_down),
    ("the_firewall_can_hand_over_frames_by_nflog", nflog_group),
    ("frames_that_found_no_room_are_counted", dropped_frames),
    ("an_ordinary_user_with_ambient_capabilities_can_do_all_of_this", ordinary_user),
    ("the_monitor_keeps_two_capabilities_and_hands_on_one", monitor_capabilities),
    ("the_monitor_is_refused_what_is_not_in_its_table_and_so_is_what_it_starts", monitor_calls),
    ("under_the_monitors_filter_nft_changes_the_firewall_and_a_worker_confines_itself", monitor_children),
    ("a_process_with_a_second_thread_does_not_become_a_monitor", monitor_threads),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["child", source, directories @ ..] => child(source, directories),
        ["inject", device, copies] => inject(device, copies.parse().unwrap()),
        ["monitor", rest @ ..] => monitor(rest),
        ["restricted", rest @ ..] => restricted(rest),
        ["socket"] => say(&format!("{:?}", std::net::UdpSocket::bind("127.0.0.1:0"))),
        ["--list", ..] => TESTS.iter().for_each(|(name, _)| println!("{name}: test")),
        _ => return run(&words),
    }
    ExitCode::SUCCESS
}

fn run(words: &[&str]) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("these tests make network namespaces: run them as root");
        return ExitCode::FAILURE;
    }
    let wanted: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word)) {
            continue;
        }
        let good = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        *if good { &mut passed } else { &mut failed } += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// The child: opens, confines itself, and does as it is told.

fn filter() -> Filter {
    Filter::default().datagrams(PORT, 176..=1232, 16)
}

fn child(source: &str, directories: &[&str]) {
    if directories.contains(&"--thread") {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    if directories.contains(&"--no-landlock") {
        pretend_an_old_kernel();
    }
    let opened = match open(&source.parse().unwrap(), &filter()) {
        Ok(opened) => opened,
        Err(error) => return say(&format!("open failed ({}): {error}", error.is_temporary())),
    };
    let writable: Vec<&Path> =
        directories.iter().filter(|word| word.starts_with('/')).map(Path::new).collect();
    match opened.confine(&writable) {
        Ok(confined) => {
            say(&format!("confined: {:?} {:?}", confined.link(), confined.confinement()));
            worker(confined, &writable);
        }
        Err(error) => say(&format!("confine failed: {error}")),
    }
}

/// Landlock's first system call answers as on a kernel that was built without it.
fn pretend_an_old_kernel() {
    let calls = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let answer = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, architecture).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// One write, without a buffer: what was said is out, whatever happens next.
fn say(line: &str) {
    rustix::io::write(rustix::stdio::stdout(), format!("{line}\n").as_bytes()).unwrap();
}

fn worker(mut confined: Confined, writable: &[&Path]) {
    let mut told = Vec::new();
    loop {
        loop {
            match confined.next_frame() {
                Ok(Some(frame)) => match parse(frame.link, frame.bytes, frame.wire_len) {
                    Ok(segment) if filter().admits(&segment) => {
                        say(&format!(
                            "frame from {} with {} bytes",
                            segment.source,
                            segment.datagram().map_or(0, <[u8]>::len)
                        ));
                    }
                    Ok(segment) => say(&format!("not admitted: port {}", segment.port)),
                    Err(refused) => say(&format!("refused: {refused}")),
                },
                Ok(None) => break,
                Err(error) => return say(&format!("failed (gone: {}): {error}", error.is_gone())),
            }
        }
        if confined.is_at_end() {
            return say("at end");
        }
        if !wait(&confined) {
            continue;
        }
        let mut bytes = [0; 256];
        let count = rustix::io::read(rustix::stdio::stdin(), &mut bytes).unwrap();
        told.extend_from_slice(&bytes[..count]);
        if count == 0 {
            return;
        }
        while let Some(end) = told.iter().position(|byte| *byte == b'\n') {
            let order: Vec<u8> = told.drain(..=end).collect();
            obey(std::str::from_utf8(&order).unwrap().trim(), &mut confined, writable);
        }
    }
}

/// Whether an order can be read.
fn wait(confined: &Confined) -> bool {
    let frames = confined.as_fd().unwrap();
    let stdin = rustix::stdio::stdin();
    let mut descriptors = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&frames, PollFlags::IN)];
    poll(&mut descriptors, Some(&Timespec::try_from(Confined::POKE).unwrap())).unwrap();
    !descriptors[0].revents().is_empty()
}

fn obey(order: &str, confined: &mut Confined, writable: &[&Path]) {
    let answer = match order {
        "nothing" => "nothing".to_owned(),
        "panic" => panic!("as it was told"),
        "abort" => std::process::abort(),
        "sleep" => {
            std::thread::sleep(Duration::from_secs(2));
            "slept".to_owned()
        }
        "stats" => format!("{:?}", confined.stats().unwrap()),
        "clock" => format!("{:?}", kernel_clock()),
        "state" => {
            let here = writable[0].to_owned();
            let thread = std::thread::Builder::new().name("state".to_owned());
            let written = thread.spawn(move || write_state(&here)).unwrap().join().unwrap();
            format!("{written:?}")
        }
        "second capture" => match open(&Source::Any, &filter()) {
            Ok(_) => "opened".to_owned(),
            Err(error) => error.to_string(),
        },
        "socket" => format!("{:?}", std::net::UdpSocket::bind("127.0.0.1:0")),
        "send" => {
            let frame = ethernet(&[], IPV4, &knock4(PORT, 176));
            format!("{:?}", rustix::io::write(confined.as_fd().unwrap(), &frame))
        }
        "duplicate" => format!("{:?}", confined.as_fd().unwrap().try_clone_to_owned()),
        "run" => format!("{:?}", Command::new("/bin/true").status()),
        "signal" => format!(
            "{:?}",
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CONT)
        ),
        path if path.starts_with("read ") => {
            format!("{:?}", fs::read(&path[5..]).map(|_| ()).map_err(|error| error.kind()))
        }
        path if path.starts_with("write ") => {
            format!("{:?}", fs::write(&path[6..], "x").map_err(|error| error.kind()))
        }
        other => format!("what is {other}?"),
    };
    say(&answer);
}

/// As the worker replaces its state: write, sync, rename, sync the directory; then remove another file.
fn write_state(here: &Path) -> std::io::Result<usize> {
    let (new, old) = (here.join("marks.new"), here.join("marks"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
    file.write_all(b"marks")?;
    file.sync_all()?;
    fs::rename(&new, &old)?;
    fs::File::open(here)?.sync_all()?;
    fs::write(here.join("clean"), "")?;
    fs::remove_file(here.join("clean"))?;
    Ok(fs::read(&old)?.len())
}

/// Sends the frames of `what_arrives`, or many of one kind, out of a device.
fn inject(device: &str, copies: usize) {
    let mut sender = pcap::Capture::from_device(device).unwrap().open().unwrap();
    let good = ethernet(&[], IPV4, &knock4(PORT, 176));
    if copies > 0 {
        (0..copies).for_each(|_| sender.sendpacket(&good[..]).unwrap());
        return;
    }
    let frames = [
        good,
        ethernet(&[], IPV6, &knock6(PORT, 192)),
        ethernet(&[(DOT1Q, 100)], IPV4, &knock4(PORT, 208)),
        ethernet(&[(DOT1AD, 200), (DOT1Q, 100)], IPV6, &knock6(PORT, 224)),
        ethernet(&[], IPV4, &knock4(PORT, 160)),
        ethernet(&[], IPV4, &knock4(PORT + 1, 176)),
        ethernet(&[(DOT1Q, 100)], IPV6, &knock6(PORT + 1, 176)),
        ethernet(&[], IPV6, &ipv6_with(&[HOP_BY_HOP], PORT, &[7; 1232])),
        ethernet(&[(DOT1Q, 100)], IPV6, &ipv6_with(&[HOP_BY_HOP], PORT, &[7; 240])),
        ethernet(&[], IPV6, &ipv6_with(&[HOP_BY_HOP], PORT + 1, &[7; 176])),
    ];
    frames.iter().for_each(|frame| sender.sendpacket(&frame[..]).unwrap());
}

/// The monitor's side: keeps what it keeps, and starts a child that has what `rest` says and prints it.
fn monitor(rest: &[&str]) {
    let wanted = match rest {
        ["raw", ..] => Capabilities::NET_RAW,
        ["admin", ..] => Capabilities::NET_ADMIN,
        _ => Capabilities::empty(),
    };
    if let Err(error) = keep_only_net_admin() {
        return say(&format!("failed: {error}"));
    }
    let status = || fs::read_to_string("/proc/self/status").unwrap();
    say(&format!("monitor {}", sets(&status())));
    let mut command = Command::new("cat");
    let output = with_ambient(wanted, || command.arg("/proc/self/status").output()).unwrap();
    say(&format!("child {}", sets(&String::from_utf8(output.stdout).unwrap())));
    say(&format!("afterwards {}", sets(&status())));
}

/// Under the monitor's filter: becomes the program that `rest` names, or tries what no monitor does and says what the
/// kernel answered. All of it is what root may do otherwise.
fn restricted(rest: &[&str]) {
    use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags};
    use rustix::net::{AddressFamily, SocketType};
    use rustix::process::{PidfdFlags, Signal, getpid, kill_process, pidfd_open};
    if rest == ["--thread"] {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    if let Err(error) = restrict_monitor() {
        return say(&format!("failed: {error}"));
    }
    if let [program, arguments @ ..] = rest {
        let error = std::os::unix::process::CommandExt::exec(Command::new(program).args(arguments));
        return say(&format!("failed: {error}"));
    }
    let socket = |family| rustix::net::socket(family, SocketType::DGRAM, None).map(drop);
    let tried = [
        ("inet", socket(AddressFamily::INET)),
        ("inet6", socket(AddressFamily::INET6)),
        ("unix", socket(AddressFamily::UNIX)),
        ("netlink", socket(AddressFamily::NETLINK)),
        ("signal", kill_process(getpid(), Signal::CONT)),
        ("memfd", rustix::fs::memfd_create("x", MemfdFlags::empty()).map(drop)),
        ("symlink", rustix::fs::symlink("/nowhere", "/tmp/knockd-rs-no-such-link")),
        ("chown", rustix::fs::chown("/tmp", None, None)),
        ("set the time", rustix::time::clock_settime(rustix::time::ClockId::Realtime, now())),
        ("pidfd", pidfd_open(getpid(), PidfdFlags::empty()).map(drop)),
        (
            "openat2",
            rustix::fs::openat2(CWD, "/", OFlags::RDONLY, Mode::empty(), ResolveFlags::empty()).map(drop),
        ),
    ];
    for (name, answer) in tried {
        say(&format!("{name}: {answer:?}"));
    }
    let child = Command::new(this_program()).arg("socket").output().unwrap();
    say(&format!("child: {}", String::from_utf8_lossy(&child.stdout)));
}

fn now() -> Timespec {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime)
}

/// The five sets of `/proc/PID/status`, in its order and without leading zeros.
fn sets(status: &str) -> String {
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().trim_start_matches('0').to_owned()
    };
    ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("{set}={}", field(&format!("Cap{set}:")))).join(" ")
}

// The tests' side.

/// A network namespace with a pair of joined interfaces: `a0`, to capture on, and `b0`, to send from.
struct Net(String);

impl Net {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kr3-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let net = Self(name);
        net.run("ip link set lo up");
        net.pair();
        net
    }

    fn pair(&self) {
        self.run("ip link add a0 type veth peer name b0");
        self.run("ip link set a0 up");
        self.run("ip link set b0 up");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    fn run(&self, line: &str) {
        let mut words = line.split(' ');
        succeed(self.command(words.next().unwrap()).args(words));
    }

    fn inject(&self, device: &str, copies: usize) {
        succeed(self.command(&this_program()).args(["inject", device, &copies.to_string()]));
    }

    /// A confined worker on `source`, and the directory it may write to.
    fn worker(&self, source: &str) -> Worker {
        let mut worker = self.child(&[], source, &[]);
        worker.confined();
        worker
    }

    fn child(&self, before: &[&str], source: &str, extra: &[&str]) -> Worker {
        let state = tempfile::Builder::new().prefix("kr3-").tempdir().unwrap();
        let directory = state.path().to_str().unwrap().to_owned();
        let program = this_program();
        let mut words = before.to_vec();
        words.extend([program.as_str(), "child", source, &directory]);
        let mut command = self.command(words[0]);
        command.args(&words[1..]).args(extra);
        Worker::start(&mut command, state)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        succeed(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

fn this_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    state: tempfile::TempDir,
}

impl Worker {
    fn start(command: &mut Command, state: tempfile::TempDir) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, said) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(said).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, orders: Some(orders), lines, state }
    }

    fn hear(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(10)).expect("the worker says something")
    }

    fn confined(&mut self) -> String {
        let line = self.hear();
        assert!(line.starts_with("confined: "), "{line}");
        line
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    fn order(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    /// Nothing but what was heard already: an order is answered after all frames that came before it.
    fn is_silent(&mut self) {
        assert_eq!(self.order("nothing"), "nothing");
    }

    /// How it ends, without being told to: its standard input stays open.
    fn end(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

const FRAME: &str = "frame from 192.0.2.7 with 176 bytes";

fn no_privilege_left() {
    let net = Net::new();
    let mut worker = net.child(&[], "a0", &[]);
    let confined = worker.confined();
    // Signals and abstract sockets came with Linux 6.12, files with 5.13.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split('.').map_while(|number| number.parse().ok()).collect();
    let landlock = if numbers.as_slice() >= &[6, 12] { "Full" } else { "Partial" };
    assert_eq!(
        confined,
        format!("confined: Ethernet Confinement {{ landlock: {landlock}, directories: 1 }}")
    );
    let status = worker.status();
    assert_eq!(sets(&status), "Inh= Prm= Eff= Bnd= Amb=");
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1".into(), "2".into()));
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    assert!(worker.order("clock").starts_with("Ok("));
    assert_eq!(counted(&mut worker)[1], 0);
}

fn files_out_of_reach() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    for path in ["/etc/passwd", "/proc/self/status", "/dev/null", "/"] {
        assert_eq!(worker.order(&format!("read {path}")), "Err(PermissionDenied)", "{path}");
    }
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    assert_eq!(worker.order(&format!("write {}", file.display())), "Err(PermissionDenied)");
    assert!(!file.exists());
    let inside = worker.state.path().join("file");
    assert_eq!(worker.order(&format!("write {}", inside.display())), "Ok(())");
    assert_eq!(fs::read(inside).unwrap(), b"x");
}

fn state_is_written() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    assert_eq!(worker.order("state"), "Ok(5)");
    assert_eq!(worker.order("state"), "Ok(5)");
    assert_eq!(fs::read(worker.state.path().join("marks")).unwrap(), b"marks");
    assert_eq!(worker.order("sleep"), "slept");
}

const SIGSYS: i32 = libc::SIGSYS;

fn ends_by_sigsys(net: &Net, order: &str) {
    let mut worker = net.worker("a0");
    worker.tell(order);
    assert_eq!(worker.end().signal(), Some(SIGSYS), "{order}");
    assert_eq!(
        worker.lines.recv_timeout(Duration::from_secs(1)),
        Err(RecvTimeoutError::Disconnected),
        "{order}"
    );
}

fn no_second_capture() {
    ends_by_sigsys(&Net::new(), "second capture");
}

fn forbidden_calls() {
    let net = Net::new();
    for order in ["socket", "run", "signal", "send", "duplicate"] {
        ends_by_sigsys(&net, order);
    }
}

fn second_thread() {
    let net = Net::new();
    let worker = net.child(&[], "a0", &["--thread"]);
    let line = worker.hear();
    assert!(line.starts_with("confine failed") && line.contains("it has 2 threads"), "{line}");
}

fn dies_with_parent() {
    let net = Net::new();
    // The shell is the parent; the worker's input stays open when the shell is killed.
    let script = "\"$@\" & wait";
    let program = this_program();
    let mut command = net.command("bash");
    command.args([
        "-c",
        &format!("exec 3<&0; {}", script.replace('&', "<&3 &")),
        "bash",
        &program,
        "child",
        "a0",
    ]);
    let mut worker = Worker::start(&mut command, tempfile::tempdir().unwrap());
    worker.confined();
    worker.is_silent();
    worker.process.kill().unwrap();
    let heard = worker.lines.recv_timeout(Duration::from_secs(10));
    assert_eq!(heard, Err(RecvTimeoutError::Disconnected), "the worker has closed its end");
}

fn ends_by_itself() {
    let net = Net::new();
    for source in ["a0", "any", "nflog:7"] {
        let mut worker = net.worker(source);
        worker.orders = None;
        assert!(worker.end().success(), "{source}");
    }
}

fn panic_is_told() {
    let net = Net::new();
    for backtrace in ["0", "1"] {
        let mut command = net.command(&this_program());
        command.args(["child", "a0"]).env("RUST_BACKTRACE", backtrace).stderr(Stdio::piped());
        let mut worker = Worker::start(&mut command, tempfile::tempdir().unwrap());
        worker.confined();
        worker.tell("panic");
        let mut told = String::new();
        worker.process.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(told.contains("as it was told"), "{told}");
        assert_eq!(worker.end().code(), Some(101), "{told}");
    }
    let mut worker = net.worker("a0");
    worker.tell("abort");
    assert_eq!(worker.end().signal(), Some(libc::SIGABRT));
}

fn without_landlock() {
    let net = Net::new();
    let mut worker = net.child(&[], "a0", &["--no-landlock"]);
    assert!(worker.confined().contains("landlock: Missing"));
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    // The other half of the confinement does not depend on it.
    worker.tell("socket");
    assert_eq!(worker.end().signal(), Some(SIGSYS));
}

fn missing_directories() {
    let net = Net::new();
    let mut worker = net.child(&[], "a0", &["/nonexistent/knockd-rs"]);
    assert!(worker.confined().ends_with("directories: 1 }"));
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
}

fn capture_file() {
    let net = Net::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    let frames = [ethernet(&[], IPV4, &knock4(PORT, 176)), ethernet(&[], IPV4, &knock4(9, 176))];
    fs::write(&path, packets::pcap_file(1, &frames)).unwrap();
    let mut worker = net.worker(&format!("file:{}", path.display()));
    assert_eq!([worker.hear(), worker.hear()], [FRAME, "at end"]);
    assert!(worker.end().success());
}

/// What is sent by `inject` and passes the filter, in order.
const ARRIVING: [&str; 7] = [
    FRAME,
    "frame from 2001:db8::7 with 192 bytes",
    "frame from 192.0.2.7 with 208 bytes",
    "frame from 2001:db8::7 with 224 bytes",
    "frame from 2001:db8::7 with 1232 bytes",
    "frame from 2001:db8::7 with 240 bytes",
    "not admitted: port 62202",
];

/// How many frames the worker counts as received and as dropped. What the new link itself sent before the socket had
/// its filter is counted as well.
fn counted(worker: &mut Worker) -> [u64; 2] {
    let stats = worker.order("stats");
    let mut numbers = stats.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    [(); 2].map(|()| numbers.next().expect(&stats))
}

fn what_arrives() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    let [before, _] = counted(&mut worker);
    net.inject("b0", 0);
    assert_eq!(ARRIVING.map(|_| worker.hear()), ARRIVING);
    worker.is_silent();
    assert_eq!(counted(&mut worker), [before + 7, 0]);
}

fn any_hears_all() {
    let net = Net::new();
    net.run("ip link add c0 type veth peer name d0");
    net.run("ip link set c0 up");
    net.run("ip link set d0 up");
    let mut worker = net.worker("any");
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    net.inject("d0", 1);
    assert_eq!(worker.hear(), FRAME);
    net.inject("lo", 1);
    assert_eq!(worker.hear(), FRAME);
    worker.is_silent();
    // One tag is the kernel's business; two reach `any` through the interface of the outer one alone.
    net.inject("b0", 0);
    let heard =
        ARRIVING.iter().filter(|line| !line.contains("224")).map(|_| worker.hear()).collect::<Vec<_>>();
    let expected = ARRIVING.iter().filter(|line| !line.contains("224")).collect::<Vec<_>>();
    assert_eq!(heard.iter().collect::<Vec<_>>(), expected);
    worker.is_silent();
}

fn outgoing_is_ignored() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    net.inject("a0", 1);
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    worker.is_silent();
}

/// Longer than the worker polls, so that it has looked at the interface as it is now.
fn let_it_look() {
    std::thread::sleep(Confined::POKE + Duration::from_millis(500));
}

fn link_down_and_up() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    for pause in [true, false, true] {
        net.run("ip link set a0 down");
        if pause {
            let_it_look();
        }
        worker.is_silent();
        net.run("ip link set a0 up");
        net.inject("b0", 1);
        assert_eq!(worker.hear(), FRAME);
    }
    worker.is_silent();
}

fn rename() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    net.run("ip link set a0 down");
    net.run("ip link set a0 name renamed0");
    let_it_look();
    worker.is_silent();
    net.run("ip link set renamed0 up");
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    // An interface that takes the old name is none of its business.
    net.run("ip link add a0 type veth peer name c0");
    net.run("ip link set a0 up");
    net.run("ip link set c0 up");
    net.inject("c0", 1);
    worker.is_silent();
}

const GONE: &str = "failed (gone: true): the interface a0 was removed while frames were read from it";

fn removal() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    net.run("ip link delete a0");
    assert_eq!(worker.hear(), GONE);
    assert!(worker.end().success());
}

fn removal_while_down() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    net.run("ip link set a0 down");
    let_it_look();
    worker.is_silent();
    net.run("ip link delete a0");
    assert_eq!(worker.hear(), GONE);
}

fn made_again() {
    let net = Net::new();
    let worker = net.worker("a0");
    let signal = |name: &str| succeed(Command::new("kill").args([name, &worker.process.id().to_string()]));
    signal("-STOP");
    net.run("ip link delete a0");
    net.pair();
    signal("-CONT");
    assert_eq!(worker.hear(), GONE);
}

fn any_outlives() {
    let net = Net::new();
    let mut worker = net.worker("any");
    net.run("ip link delete a0");
    let_it_look();
    worker.is_silent();
    net.pair();
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
}

fn missing_or_down() {
    let net = Net::new();
    let worker = net.child(&[], "none0", &[]);
    assert_eq!(
        worker.hear(),
        "open failed (true): there is no interface none0; `ip link` lists what there is, and `any` takes all"
    );
    net.run("ip link set a0 down");
    let worker = net.child(&[], "a0", &[]);
    assert_eq!(worker.hear(), "open failed (true): the interface a0 is down; set it up: ip link set a0 up");
    let worker = net.child(&["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"], "b0", &[]);
    assert_eq!(worker.hear(), "open failed (false): capturing on b0 is not permitted; it needs CAP_NET_RAW");
}

fn nflog_group() {
    let net = Net::new();
    net.run("nft add table inet test");
    net.run("nft add chain inet test early { type filter hook prerouting priority -300 ; }");
    net.run("nft add rule inet test early udp dport 62201 log prefix knock group 5");
    let mut worker = net.child(&[], "nflog:5", &[]);
    assert!(worker.confined().starts_with("confined: Nflog"));
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    worker.is_silent();
    let unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let worker = net.child(&unprivileged, "nflog:6", &[]);
    assert_eq!(
        worker.hear(),
        "open failed (false): reading nflog:6 is not permitted; it needs CAP_NET_ADMIN"
    );
}

fn dropped_frames() {
    let net = Net::new();
    let mut worker = net.worker("a0");
    let [before, _] = counted(&mut worker);
    worker.tell("sleep");
    std::thread::sleep(Duration::from_millis(200));
    net.inject("b0", 5000);
    assert_eq!(worker.hear(), "slept");
    let mut heard = 0;
    while worker.lines.recv_timeout(Duration::from_secs(1)).is_ok_and(|line| line == FRAME) {
        heard += 1;
    }
    assert_eq!(counted(&mut worker), [before + 5000, 5000 - heard]);
    assert!((500..5000).contains(&heard), "room for {heard} frames");
}

/// This program where another user can run it.
fn copied() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().prefix("kr3-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("capture");
    fs::copy(this_program(), &program).unwrap();
    (directory, program)
}

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn ordinary_user() {
    let net = Net::new();
    let (directory, program) = copied();
    let own = directory.path().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    let mut command = net.command(NOBODY[0]);
    command.args(&NOBODY[1..]).args(["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"]);
    command.arg(program).args(["child", "a0"]).arg(&own);
    let mut worker = Worker::start(&mut command, directory);
    worker.confined();
    let status = worker.status();
    let left = sets(&status);
    assert!(left.starts_with("Inh= Prm= Eff= Bnd=") && left.ends_with("Amb="), "{left}");
    assert_eq!(field(&status, "Uid"), "65534\t65534\t65534\t65534");
    // A core dump or a debugger would show keys: /proc of a process that is not dumpable belongs to root.
    let memory = fs::metadata(format!("/proc/{}/maps", worker.process.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    assert_eq!(worker.order("state"), "Ok(5)");
    assert_eq!(worker.order("read /etc/passwd"), "Err(PermissionDenied)");
}

fn monitor_capabilities() {
    // Bits 12 and 13: CAP_NET_ADMIN and CAP_NET_RAW (linux/capability.h).
    let said = |before: &[&str], program: &Path, wanted: &str| {
        let mut words = before.to_vec();
        words.extend([program.to_str().unwrap(), "monitor", wanted]);
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (_directory, program) = copied();
    let root = said(&[], &program, "raw");
    let kept = "Inh= Prm=3000 Eff=1000 Bnd=3000 Amb=";
    // Root's children get the bounding set.
    let child = "Inh=2000 Prm=3000 Eff=3000 Bnd=3000 Amb=2000";
    assert_eq!(root, [format!("monitor {kept}"), format!("child {child}"), format!("afterwards {kept}")]);

    let ambient = ["--inh-caps=-all,+net_raw,+net_admin", "--ambient-caps=-all,+net_raw,+net_admin"];
    let bounding = ["--bounding-set=-all,+net_raw,+net_admin"];
    for (wanted, child) in [
        ("raw", "Inh=2000 Prm=2000 Eff=2000 Bnd=3000 Amb=2000"),
        ("admin", "Inh=1000 Prm=1000 Eff=1000 Bnd=3000 Amb=1000"),
        ("none", "Inh= Prm= Eff= Bnd=3000 Amb="),
    ] {
        let user = said(&[&NOBODY[..], &bounding, &ambient, &["--no-new-privs"]].concat(), &program, wanted);
        assert_eq!(user, [format!("monitor {kept}"), format!("child {child}"), format!("afterwards {kept}")]);
    }
    let missing = ["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"];
    assert_eq!(
        said(&[&NOBODY[..], &missing].concat(), &program, "raw"),
        ["failed: CAP_NET_ADMIN is missing; run as root, or by the systemd unit"]
    );
}

/// What this program says under the monitor's filter, in a network of its own.
fn under_the_filter(net: &Net, rest: &[&str]) -> String {
    let output = net.command(&this_program()).arg("restricted").args(rest).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn monitor_calls() {
    let (refused, unknown, good) = ("Err(Os { code: 1", "Err(Os { code: 38", "Ok(())");
    let said = under_the_filter(&Net::new(), &[]);
    let mut lines = said.lines();
    for (name, answer) in [
        ("inet", refused),
        ("inet6", refused),
        ("unix", good),
        ("netlink", good),
        ("signal", refused),
        ("memfd", refused),
        ("symlink", refused),
        ("chown", refused),
        ("set the time", refused),
        ("pidfd", unknown),
        ("openat2", unknown),
        ("child", refused),
    ] {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(&format!("{name}: {answer}")), "{name} {answer}: {said}");
    }
}

fn monitor_children() {
    let net = Net::new();
    let said = under_the_filter(&net, &["/usr/sbin/nft", "add table inet made; list tables"]);
    assert_eq!(said.trim(), "table inet made");
    let mut command = net.command(&this_program());
    let mut worker = Worker::start(
        command.args(["restricted", &this_program(), "child", "a0"]),
        tempfile::tempdir().unwrap(),
    );
    worker.confined();
    net.inject("b0", 1);
    assert_eq!(worker.hear(), FRAME);
    worker.tell("socket");
    assert_eq!(worker.end().signal(), Some(SIGSYS), "of two answers the kernel takes the stricter one");
}

fn monitor_threads() {
    let said = under_the_filter(&Net::new(), &["--thread"]);
    assert!(said.starts_with("failed: ") && said.contains("it has 2 threads"), "{said}");
}
