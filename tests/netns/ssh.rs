//! `connect` and `ssh-config`: Debian's ssh and its server on a guarded port, and what happens on the way there.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{GUARDED, KNOCKD, SERVER_NAME, SERVER4, SERVER6, SOON, World, said, succeed, wait_for};
use crate::corner::Corner;

/// sshd on the server's port 22, which knows one client's key, and that key.
struct Ssh<'a> {
    world: &'a World,
    key: PathBuf,
    known_hosts: PathBuf,
    _corner: Corner,
}

/// sshd wants absolute paths, no service manager, and nothing of this machine's own settings.
const SSHD: &str = "\
mkdir -p /run/sshd
getent passwd sshd >/dev/null || echo 'sshd:x:74:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
ssh-keygen -q -t ed25519 -N '' -f /tmp/host
printf '%s\n' 'Port 22' 'HostKey /tmp/host' 'AuthorizedKeysFile /tmp/known' 'StrictModes no' 'UsePAM no' \
  'PermitRootLogin yes' 'PidFile none' 'MaxStartups 100' >/tmp/sshd_config
/usr/sbin/sshd -f /tmp/sshd_config
cat /tmp/host.pub";

impl<'a> Ssh<'a> {
    fn new(world: &'a World) -> Self {
        let corner = Corner::new(world);
        let (key, known_hosts) = (world.path("home/id"), world.path("home/known_hosts"));
        let mut keygen = std::process::Command::new("ssh-keygen");
        succeed(&keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output().unwrap());
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let host = corner.run(&format!("echo '{}' >/tmp/known\n{SSHD}", public.trim()));
        std::fs::write(&known_hosts, format!("{SERVER_NAME} {host}")).unwrap();
        assert!(wait_for(SOON, || world.can_connect(SERVER4, 22)), "sshd does not listen");
        Self { world, key, known_hosts, _corner: corner }
    }

    /// ssh to `myserver` as the client's `~/.ssh/config` says, with these further options; its standard input is `input`.
    fn run(&self, options: &[&str], command: &str, input: &[u8]) -> Output {
        let mut ssh = self.world.inside(&self.world.client);
        ssh.args(["ssh", "-F"]).arg(self.world.path("home/.ssh/config")).arg("-i").arg(&self.key);
        ssh.args(["-o", "BatchMode=yes", "-o", &format!("HostKeyAlias={SERVER_NAME}")]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        ssh.args(options).args(["root@myserver", command]);
        ssh.env("HOME", self.world.path("home"));
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }
}

/// Bytes that no layer takes for anything.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

#[test]
fn ssh_gets_a_session_on_a_guarded_port_by_the_lines_that_ssh_config_installs() {
    for server in [SERVER4, SERVER6] {
        let world = World::new();
        let ssh = Ssh::new(&world);
        let daemon = world.daemon(GUARDED);
        world.retarget(&server.to_string());
        let told = said(&world.client(&["ssh-config", SERVER_NAME, "--install"]));
        assert!(told.contains("from now on it knocks by itself: ssh myserver"), "{told}");
        let bytes = noise(200_000);
        for _ in 0..2 {
            let output = ssh.run(&[], "echo $SSH_CONNECTION >&2; cat", &bytes);
            assert!(output.status.success() && output.stdout == bytes, "{}\n{}", said(&output), daemon.log());
            // The connection itself was handed over: the server's end is what ssh talks to.
            let server = format!(" {server} 22");
            assert!(said(&output).contains(&server), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // One grant for one connection was enough, each time.
        assert_eq!(daemon.logged("granted laptop"), 2, "{}", daemon.log());
        assert_eq!(daemon.logged("refused "), 0, "{}", daemon.log());
    }
}

#[test]
fn ssh_gets_a_session_through_a_proxy_command_that_passes_every_byte_on() {
    let world = World::new();
    let ssh = Ssh::new(&world);
    let daemon = world.daemon(GUARDED);
    succeed(&world.client(&["ssh-config", SERVER_NAME, "--install"]));
    let command = format!("ProxyCommand={KNOCKD} connect --verbose %n %p");
    let options = ["-o", "ProxyUseFdpass=no", "-o", &command];
    let bytes = noise(3_000_000);
    let output = ssh.run(&options, "cat", &bytes);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("connected to 10.77.0.1:22 after a knock by spa, in "), "{told}");
    assert_eq!(daemon.logged("granted laptop"), 1, "{}", daemon.log());
    // Its end is told on as well, whoever comes to it first.
    let output = ssh.run(&options, "exit 7", b"");
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
}

#[test]
fn a_port_that_is_open_is_not_knocked_for() {
    let world = World::new();
    let ssh = Ssh::new(&world);
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    world.knock(&["tcp/22", "--many", "--for", "1m"]);
    daemon.await_log("granted laptop");
    succeed(&world.client(&["ssh-config", SERVER_NAME, "--install"]));
    for _ in 0..3 {
        assert_eq!(succeed(&ssh.run(&[], "echo here", b"")), "here\n");
    }
    assert_eq!(daemon.logged("granted laptop") + daemon.logged("renewed laptop"), 1, "{}", daemon.log());
}

#[test]
fn where_datagrams_are_lost_the_next_method_gets_through_and_comes_first_from_then_on() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--method", "spa", "--method", "sequence"]);
    let _service = world.listener(22);
    let daemon = world.daemon(GUARDED);
    // On the wire, where neither this client nor its kernel notices.
    let lost = "table netdev lost { chain out { type filter hook egress device veth0 priority 0; \
                udp dport 62201 counter drop; }; }";
    succeed(&world.inside(&world.client).args(["nft", lost]).output().unwrap());
    let count = || {
        let mut list = world.inside(&world.client);
        let listed = succeed(&list.args(["nft", "list", "table", "netdev", "lost"]).output().unwrap());
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse::<u32>().unwrap()
    };
    let connect = || {
        let mut command = world.client_command(&["connect", SERVER_NAME, "22", "--verbose"]);
        said(&command.stdin(Stdio::null()).output().unwrap())
    };
    let told = connect();
    assert!(told.contains("after a knock by sequence"), "{told}\n{}", daemon.log());
    let before = count();
    assert!(before > 0, "spa was not tried");
    let told = connect();
    assert!(told.contains("after a knock by sequence"), "{told}");
    assert_eq!(count(), before, "what worked did not come first");
    // Where nothing is known, as in another network, the order is the usual one.
    std::fs::remove_file(world.path("home/.local/state/knockd-rs/myserver.networks")).unwrap();
    connect();
    assert!(count() > before);
}

#[test]
fn a_method_that_this_user_may_not_use_is_passed_over_at_once() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--method", "syn", "--method", "sequence"]);
    let _service = world.listener(22);
    let _daemon = world.daemon(GUARDED);
    let mut command = world.inside(&world.client);
    // Without the capability for raw sockets.
    command.args(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", KNOCKD]);
    command.args(["connect", SERVER_NAME, "22", "--verbose"]).env("HOME", world.path("home"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(said(&output).contains("after a knock by sequence"), "{}", said(&output));
}

#[test]
fn a_host_that_no_bundle_names_is_connected_to_without_a_knock() {
    let world = World::new();
    let service = world.listener(2222);
    let daemon = world.daemon(GUARDED);
    let mut command = world.client_command(&["connect", "fd77::1", "2222", "--verbose"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(said(&output).contains("connected to [fd77::1]:2222 without a knock"), "{}", said(&output));
    // Nor a port that the server does not open, by whatever name the server is called.
    let mut command = world.client_command(&["connect", SERVER_NAME, "2222", "--verbose"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(said(&output).contains("connected to 10.77.0.1:2222 without a knock"), "{}", said(&output));
    drop(service);
    let refused = world.client(&["connect", "fd77::1", "2222"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(
        said(&refused).contains("the port refused the connection; no knock was sent"),
        "{}",
        said(&refused)
    );
    assert_eq!(daemon.logged("granted"), 0, "{}", daemon.log());
}

#[test]
fn a_port_that_stays_closed_is_told_in_time_with_what_to_do() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    daemon.stop();
    let started = Instant::now();
    let output = world.client(&["connect", SERVER_NAME, "22", "--timeout", "3s"]);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(said(&output).contains("knockd-rs doctor myserver"), "{}", said(&output));
}

#[test]
fn eight_programs_that_knock_at_once_by_one_profile_never_use_a_counter_twice() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    let words = ["knock", SERVER_NAME, "tcp/22", "--many", "--for", "1m", "--no-wait"];
    let children: Vec<_> = (0..8)
        .map(|_| world.client_command(&words).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(said(&output).contains("knocked at myserver"), "{}", said(&output));
    }
    let heard = || daemon.logged("granted laptop") + daemon.logged("renewed laptop");
    assert!(wait_for(SOON, || heard() == 8), "{} of 8\n{}", heard(), daemon.log());
    assert_eq!(daemon.logged("refused "), 0, "{}", daemon.log());
}
