//! A world for stories: a server and a client in throw-away network namespaces, joined by one cable, with the
//! real daemon, client, kernel and `nft` in them.
//!
//! Every [`World`] has namespaces and directories of its own, so that tests run side by side; all of it is gone
//! when the world is dropped, also after a panic, and what a killed test run left is removed by the next one.
//! Needs root: without it every test fails and says so. The host's own network and firewall are not touched.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses its share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod daemon;
mod packets;
pub mod pki;
mod probe;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use daemon::{Daemon, Launch, is_gone};
pub use packets::{Ear, Raw, Sealer, Tap};
pub use probe::{Answer, Assault, Echo, Mirror, Siege, Talk, attempt, is_ready, udp_answers};

/// The program under test.
pub const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd-rs");
/// The server's addresses.
pub const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// The addresses that the client's packets come from unless it says otherwise.
pub const CLIENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
/// Further addresses on the client's side, that never knock.
pub const STRANGER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3));
pub const STRANGER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3));
/// The UDP port that knocks are sent to.
pub const KNOCK_PORT: u16 = 62201;
/// The server's end of the cable; the client's is called the same.
pub const CABLE: &str = "veth0";
/// The name under which the client knows the server.
pub const SERVER_NAME: &str = "myserver";
/// How long a probe waits where no answer is expected.
pub const PATIENCE: Duration = Duration::from_millis(300);
/// How long anything may take that has to happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// The least that most stories need: a virtual machine's clock may not be synchronised.
pub const PLAIN: &str = "[freshness]\nclock = \"trusted\"\n";
/// The same with tcp/22 guarded by the configuration file.
pub const GUARDED: &str = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\"]\n";

/// A server, a client and the cable between them.
pub struct World {
    /// The namespaces' names, as `ip netns` knows them.
    pub server: String,
    pub client: String,
    dir: tempfile::TempDir,
}

impl World {
    /// Two fresh namespaces, with IPv4 and IPv6, and empty directories.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces, which needs root: run it by `make test`, or `sudo -E cargo test`"
        );
        SWEEP.call_once(sweep);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("knockd-rs-test-").tempdir().unwrap();
        // Others may pass through, as they may through /run: what they must not read has modes of its own.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let world = Self { server: format!("kr-{id}-s"), client: format!("kr-{id}-c"), dir };
        for name in ["etc", "lib", "run", "home"] {
            fs::DirBuilder::new().mode(0o711).create(world.dir.path().join(name)).unwrap();
        }
        let (s, c) = (&world.server, &world.client);
        ip(&format!("netns add {s}"));
        ip(&format!("netns add {c}"));
        ip(&format!("-n {s} link set lo up"));
        ip(&format!("-n {c} link set lo up"));
        world.plug_in();
        world
    }

    /// Lays the cable and gives addresses to both ends.
    pub fn plug_in(&self) {
        let (s, c) = (&self.server, &self.client);
        ip(&format!("-n {s} link add {CABLE} type veth peer name {CABLE} netns {c}"));
        self.bring_up();
    }

    /// Gives addresses to both ends of the cable and switches them on.
    pub fn bring_up(&self) {
        let (s, c) = (&self.server, &self.client);
        for (name, four, six) in [(s, SERVER4, SERVER6), (c, CLIENT4, CLIENT6), (c, STRANGER4, STRANGER6)] {
            ip(&format!("-n {name} address add {four}/24 dev {CABLE}"));
            ip(&format!("-n {name} address add {six}/64 dev {CABLE} nodad"));
        }
        // The kernel prefers the address that was added last; a stranger's is only for those who ask for it.
        ip(&format!("-n {c} address change {STRANGER6}/64 dev {CABLE} nodad preferred_lft 0"));
        ip(&format!("-n {s} link set {CABLE} up"));
        ip(&format!("-n {c} link set {CABLE} up"));
    }

    /// A directory of this world: `etc`, `lib`, `run`, or the client's `home`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a profile on the server by `profile add` and lets the client import its bundle as `myserver`.
    pub fn enrol(&self, profile: &str, arguments: &[&str]) {
        self.enrol_as(SERVER_NAME, profile, arguments);
    }

    /// The same under another name on the client's side.
    pub fn enrol_as(&self, server: &str, profile: &str, arguments: &[&str]) {
        let bundle = self.path(&format!("{profile}-{server}.knock"));
        let mut add = Command::new(KNOCKD);
        add.args(["profile", "add", profile, "--server", server, "--out"]).arg(&bundle);
        add.arg("--config-dir").arg(self.path("etc")).arg("--state-dir").arg(self.path("lib"));
        if !arguments.contains(&"--host") {
            add.args(["--host", &SERVER4.to_string()]);
        }
        succeed(&add.args(arguments).output().unwrap());
        succeed(&self.client(&["import", &bundle.display().to_string(), "--force"]));
    }

    /// Sends the client's knocks to another address or name.
    pub fn retarget(&self, host: &str) {
        self.edit("home/.config/knockd-rs/myserver.toml", |text| {
            let lines = text.lines().map(|line| match line.split_once(" = ") {
                Some(("host", _)) => format!("host = {host:?}"),
                _ => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n") + "\n"
        });
    }

    /// Changes a file of this world, keeping its mode.
    pub fn edit(&self, name: &str, change: impl FnOnce(&str) -> String) {
        let path = self.path(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&text)).unwrap();
    }

    /// Writes a profile by hand, as for a client without a bundle.
    pub fn write_profile(&self, profile: &str, text: &str) {
        let dir = self.path("etc/profiles.d");
        if !dir.is_dir() {
            fs::DirBuilder::new().mode(0o750).create(&dir).unwrap();
        }
        let path = dir.join(format!("{profile}.toml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    /// Adds lines to a profile's file.
    pub fn amend(&self, profile: &str, lines: &str) {
        self.edit(&format!("etc/profiles.d/{profile}.toml"), |text| {
            let keys: Vec<&str> =
                lines.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim()).collect();
            let is_kept = |line: &&str| !keys.iter().any(|key| line.trim_start().starts_with(key));
            text.lines().filter(is_kept).chain(lines.lines()).collect::<Vec<_>>().join("\n") + "\n"
        });
    }

    /// Starts the daemon with this `knockd-rs.toml` and waits until it awaits knocks. Without any profile so far
    /// it gets `laptop`, which may open tcp/22, and which the client knows as `myserver`.
    pub fn daemon(&self, config: &str) -> Daemon<'_> {
        self.launch(config, Launch::default())
    }

    /// The same in other circumstances.
    pub fn launch(&self, config: &str, how: Launch) -> Daemon<'_> {
        self.configure(config);
        if !self.path("etc/profiles.d").is_dir() {
            self.enrol("laptop", &["--open", "tcp/22"]);
        }
        Daemon::start(self, how)
    }

    /// Writes `knockd-rs.toml`.
    pub fn configure(&self, config: &str) {
        fs::write(self.path("etc/knockd-rs.toml"), config).unwrap();
    }

    /// Runs the client in its namespace.
    pub fn client(&self, arguments: &[&str]) -> Output {
        self.client_command(arguments).output().unwrap()
    }

    /// The same, to be started by the caller.
    pub fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.inside(&self.client);
        command.arg(KNOCKD).args(arguments).env_clear().env("HOME", self.path("home"));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Knocks at `myserver`, without looking for an effect; the client has to be content.
    pub fn knock(&self, arguments: &[&str]) {
        let words = [&["knock", SERVER_NAME, "--no-wait", "--quiet"], arguments].concat();
        succeed(&self.client(&words));
    }

    /// Knocks at `myserver` without waiting for the copies: returns as soon as the first packet has had its
    /// effect, or panics.
    pub fn knock_until(&self, arguments: &[&str], mut is_so: impl FnMut() -> bool) {
        let words = [&["knock", SERVER_NAME, "--no-wait", "--quiet"], arguments].concat();
        let mut child = self.client_command(&words).spawn().unwrap();
        let so = wait_for(SOON, &mut is_so);
        child.wait().unwrap();
        assert!(so, "the knock had no effect");
    }

    /// A command that will run in a namespace.
    pub fn inside(&self, namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        command
    }

    /// Runs `nft` on the server and returns what it printed.
    pub fn nft(&self, arguments: &[&str]) -> String {
        let output = self.inside(&self.server).arg("nft").args(arguments).output().unwrap();
        succeed(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `call` in the server's namespace, on a thread of its own.
    pub fn on_server<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        within(&self.server, call)
    }

    /// Runs `call` in the client's namespace, on a thread of its own.
    pub fn on_client<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        within(&self.client, call)
    }

    /// A service on the server that answers every TCP connection and every UDP datagram to this port, on both
    /// address families, until it is dropped.
    pub fn listener(&self, port: u16) -> Echo {
        self.on_server(|| Echo::start(port))
    }

    /// A service on the server that sends back what it gets, until it is dropped.
    pub fn mirror(&self, port: u16) -> Mirror {
        self.on_server(|| Mirror::start(port))
    }

    /// The client's connection to such a service, if it gets one.
    pub fn talk(&self, address: IpAddr, port: u16) -> Option<Talk> {
        self.on_client(|| Talk::begin((address, port).into()))
    }

    /// Whether the client gets a TCP connection.
    pub fn can_connect(&self, address: IpAddr, port: u16) -> bool {
        self.try_tcp(None, address, port) == Answer::Connected
    }

    /// Whether a stranger gets one, from another address than the client's.
    pub fn can_stranger_connect(&self, address: IpAddr, port: u16) -> bool {
        let from = if address.is_ipv4() { STRANGER4 } else { STRANGER6 };
        self.try_tcp(Some(from), address, port) == Answer::Connected
    }

    /// What a TCP connection from this address comes to.
    pub fn try_tcp(&self, from: Option<IpAddr>, address: IpAddr, port: u16) -> Answer {
        self.on_client(|| attempt(from, (address, port).into(), PATIENCE))
    }

    /// Attempts at a TCP port from a stranger's address, one after the other, until it is ended.
    pub fn siege(&self, address: IpAddr, port: u16) -> Siege {
        let from = if address.is_ipv4() { STRANGER4 } else { STRANGER6 };
        self.on_client(|| Siege::begin(from, (address, port).into()))
    }

    /// Something on the server that hears what is sent to the knock port.
    pub fn ear(&self) -> Ear {
        self.on_server(Ear::open)
    }

    /// What seals knocks as the client would, for tests that need packets without the client's pauses.
    pub fn sealer(&self) -> Sealer {
        Sealer::load(&self.path("home"), SERVER_NAME)
    }

    /// Sends these bytes to the knock port of an address, from another address than the client's where one is named.
    pub fn send(&self, from: Option<IpAddr>, to: IpAddr, packet: &[u8]) {
        self.on_client(|| packets::send(from, to, packet));
    }

    /// Whether a UDP service answers the client.
    pub fn udp_answers(&self, address: IpAddr, port: u16) -> bool {
        self.on_client(|| udp_answers((address, port).into(), PATIENCE))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
            let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
    }
}

/// Calls until it is so, or the time is over; says which.
pub fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if started.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The command's standard output; panics with all that it said when it failed.
#[track_caller]
pub fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Puts a program where every user may run it. By a process of its own: a file that is open for writing, if only in a
/// child that another test is about to start, cannot be run (`ETXTBSY`).
pub fn install(program: &Path, path: &Path) {
    succeed(&Command::new("install").arg(program).arg(path).output().unwrap());
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `ip` with these words.
#[track_caller]
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("`ip`, of the package iproute2");
    assert!(output.status.success(), "ip {words}: {}", said(&output));
}

/// Runs `call` on a thread in a network namespace. Sockets and children that it makes stay there.
pub fn within<T: Send>(namespace: &str, call: impl FnOnce() -> T + Send) -> T {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).unwrap();
    let call = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        call()
    };
    match thread::scope(|scope| scope.spawn(call).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Removes the namespaces of test runs that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix("kr-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}
