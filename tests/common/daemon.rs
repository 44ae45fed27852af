//! The daemon under test: started in the server's namespace, asked, reloaded, killed, started again.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{KNOCKD, SOON, World, said, succeed, wait_for};

/// In what circumstances the daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Shell commands before it, in a mount namespace of its own: a tmpfs, a read-only directory.
    pub before: String,
    /// Whether it is not waited for.
    pub is_not_awaited: bool,
}

/// A daemon that ends with its handle.
pub struct Daemon<'a> {
    world: &'a World,
    how: Launch,
    child: Child,
    /// Where the present run's lines begin in the log.
    since: usize,
}

impl<'a> Daemon<'a> {
    pub(super) fn start(world: &'a World, how: Launch) -> Self {
        let since = fs::read(world.path("log")).map_or(0, |bytes| bytes.len());
        let child = spawn(world, &how);
        let mut daemon = Self { world, how, child, since };
        if !daemon.how.is_not_awaited {
            daemon.await_listening();
        }
        daemon
    }

    /// Waits until it says that knocks are awaited.
    pub fn await_listening(&mut self) {
        let is_there =
            wait_for(SOON, || self.log().contains("listening: ") || self.child.try_wait().unwrap().is_some());
        assert!(
            is_there && self.child.try_wait().unwrap().is_none(),
            "the daemon did not start:\n{}",
            self.log()
        );
    }

    /// What it has logged since this start.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.world.path("log")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.since..).unwrap_or_default()).into_owned()
    }

    /// Waits until the log says so.
    #[track_caller]
    pub fn await_log(&self, words: &str) {
        assert!(wait_for(SOON, || self.log().contains(words)), "no {words:?} in the log:\n{}", self.log());
    }

    /// How often the log says so.
    pub fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Runs a command that talks to it: `guard`, `grant`, `status`.
    pub fn tell(&self, arguments: &[&str]) -> Output {
        // By the daemon's own mounts, where its runtime directory may be a file system of its own.
        Command::new(KNOCKD).args(arguments).arg("--runtime-dir").arg(self.own_path("run")).output().unwrap()
    }

    /// The same; it has to succeed.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> String {
        succeed(&self.tell(arguments))
    }

    /// What `status --json` prints.
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.tell(&["status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", said(&output), self.log()))
    }

    /// Live grants, as the status has them.
    #[track_caller]
    pub fn grants(&self) -> Vec<Value> {
        self.status()["grants"].as_array().unwrap().clone()
    }

    /// What the status complains about.
    #[track_caller]
    pub fn degraded(&self) -> Vec<String> {
        let status = self.status();
        status["degraded"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }

    /// A number that the status counts; 0 when it does not mention it.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        let counters = status["counters"].as_array().unwrap();
        counters.iter().find(|pair| pair[0] == name).map_or(0, |pair| pair[1].as_u64().unwrap())
    }

    /// Reads the configuration again, by `knockd-rs reload`; it has to succeed.
    #[track_caller]
    pub fn reload(&self) -> String {
        self.command(&["reload"])
    }

    /// The monitor's process.
    pub fn monitor(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The workers' processes: the monitor's children, the oldest first.
    pub fn workers(&self) -> Vec<Pid> {
        let parent = self.monitor().as_raw_nonzero().to_string();
        let mut children: Vec<i32> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| is_worker_of(*pid, &parent))
            .collect();
        children.sort_unstable();
        children.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// The serving worker's process.
    #[track_caller]
    pub fn worker(&self) -> Pid {
        *self.workers().first().expect("a worker")
    }

    /// Sends the monitor a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.monitor(), signal).unwrap();
    }

    /// Kills the monitor; the worker dies with it.
    pub fn kill9_monitor(&mut self) {
        let workers = self.workers();
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
        for worker in workers {
            assert!(wait_for(SOON, || is_gone(worker)), "the worker outlived its monitor");
        }
    }

    /// Kills the worker, and returns how the monitor ended after that.
    pub fn kill9_worker(&mut self) -> ExitStatus {
        kill_process(self.worker(), Signal::KILL).unwrap();
        self.ended()
    }

    /// Kills all processes, the worker first, so that neither has time for anything.
    pub fn kill9_both(&mut self) {
        let workers = self.workers();
        self.signal(Signal::STOP);
        for worker in workers {
            let _ = kill_process(worker, Signal::KILL);
        }
        self.kill9_monitor();
    }

    /// Whether the monitor lives.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for(SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("the daemon goes on:\n{}", self.log()))
    }

    /// Tells it to stop, as systemd does, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Starts it again, however it ended, and waits until it awaits knocks.
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "it is still running");
        *self = Self::start(self.world, self.how.clone());
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// A path as the daemon's own mount namespace has it.
    pub fn own_path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(self.world.path(name).strip_prefix("/").unwrap())
    }

    /// Runs a shell command in the daemon's own mount namespace.
    pub fn in_its_mounts(&self, script: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.child.id().to_string(), "sh", "-ec", script]);
        succeed(&command.output().unwrap());
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // A stopped process dies of SIGKILL too; the worker dies with its parent.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the daemon's log:\n{}---",
                fs::read_to_string(self.world.path("log")).unwrap_or_default()
            );
        }
    }
}

fn spawn(world: &World, how: &Launch) -> Child {
    let log = fs::File::options().create(true).append(true).open(world.path("log")).unwrap();
    // `ip netns exec` gives it the namespace's own /sys too, where interfaces are looked up.
    let mut command = world.inside(&world.server);
    if !how.before.is_empty() {
        command.args(["sh", "-ec", &format!("{}\nexec \"$@\"", how.before), "sh"]);
    }
    command.args([KNOCKD, "run"]);
    for (flag, name) in [("--config-dir", "etc"), ("--state-dir", "lib"), ("--runtime-dir", "run")] {
        command.arg(flag).arg(world.path(name));
    }
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn is_worker_of(pid: i32, parent: &str) -> bool {
    // proc_pid_stat(5): the name may hold anything, so count from its closing bracket: state, then parent.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    words.get(1) == Some(&parent)
        && words.first() != Some(&"Z")
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"worker"))
}

/// Whether the process has ended, be it that nobody has waited for it yet.
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}
