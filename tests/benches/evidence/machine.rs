//! The two machines that `tests/machines` makes, as the harness uses them: it stays outside, lends threads to their
//! networks, and starts programs in them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Outcome, cost};

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// How long a program may take to end by itself.
const TO_END: Duration = Duration::from_secs(5);

/// Both machines.
pub struct Machines {
    server: Machine,
    client: Machine,
    program: PathBuf,
}

/// One of them, by its first process.
#[derive(Clone)]
pub struct Machine {
    first: String,
}

impl Machines {
    /// By the process ids of their first processes; `program` is knockd-rs.
    pub fn new(server: &str, client: &str, program: &str) -> Outcome<Self> {
        let machine = |first: &str| Machine { first: first.to_owned() };
        Ok(Self { server: machine(server), client: machine(client), program: program.into() })
    }

    /// Where the daemons run.
    pub fn server(&self) -> &Machine {
        &self.server
    }

    /// Where knocks and junk come from.
    pub fn client(&self) -> &Machine {
        &self.client
    }

    /// The path of knockd-rs outside of the machines.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Moves this thread, and what it starts, into the client's network.
    pub fn enter_client(&self) -> Outcome<()> {
        self.client.enter()
    }

    /// Takes every connection at these ports of the server, and ends it.
    pub fn serve(&self, ports: &[u16]) -> Outcome<()> {
        let ports = ports.to_vec();
        self.on_server(move || {
            for port in ports {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
                spawn(move || listener.incoming().for_each(drop));
            }
            Ok(())
        })
    }

    /// Runs `work` in a thread that is in the server's network; threads that it starts stay there.
    pub fn on_server<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let server = self.server.clone();
        let (sender, receiver) = channel();
        spawn(move || drop(sender.send(server.enter().and_then(|()| work()))));
        receiver.recv()?
    }
}

impl Machine {
    fn enter(&self) -> Outcome<()> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.first))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Where a path of the machine is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--mount", "--net", "--uts", "--pid"]);
        command.args(["env", "--ignore-environment", "--chdir=/root", "HOME=/root", "LC_ALL=C"]);
        command.arg("PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["bash", "-c", script]);
        command
    }

    /// Runs a script to its end; it has to succeed.
    pub fn run(&self, script: &str) -> Outcome<String> {
        let output = self.command(script).stdin(Stdio::null()).output()?;
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!("{script}: {}: {said}{complained}", output.status).into())
        }
    }

    /// Starts a program whose output goes to `log`, and ends it with the value that is returned.
    pub fn start(&self, script: &str, log: &str) -> Outcome<Running> {
        // What the run before has logged is not to be taken for this one's.
        File::create(self.path(log))?;
        let script = format!("exec {script} >{log} 2>&1 </dev/null");
        let child = self.command(&script).stdin(Stdio::null()).spawn()?;
        Ok(Running { child, log: self.path(log) })
    }
}

/// A program in a machine, with all its children.
pub struct Running {
    /// `nsenter`, which stays outside.
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Its processes, the first one first; without the `nsenter` that waits for them.
    pub fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let parents = cost::parents();
        let mut place = 0;
        while let Some(parent) = found.get(place).copied() {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
            place += 1;
        }
        found.remove(0);
        found
    }

    /// Names the file that it writes its log to by itself.
    pub fn also_logs(&mut self, log: PathBuf) {
        self.log = log;
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How many lines it has logged.
    pub fn log_lines(&self) -> usize {
        std::fs::read(&self.log).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
    }

    /// Waits until `is_ready`; how long that took.
    pub fn await_ready(
        &mut self,
        patience: Duration,
        mut is_ready: impl FnMut(&Self) -> bool,
    ) -> Outcome<Duration> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if is_ready(self) {
                return Ok(started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("a program ended before it was ready, {status}:\n{}", self.log()).into());
            }
            sleep(Duration::from_millis(2));
        }
        Err(format!("a program is not ready after {patience:?}:\n{}", self.log()).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let signal = |signal: Signal, pids: &[u32]| {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
        };
        let processes = self.processes();
        signal(Signal::TERM, processes.get(..1).unwrap_or_default());
        let started = Instant::now();
        while started.elapsed() < TO_END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        signal(Signal::KILL, &self.processes());
        drop(self.child.wait());
    }
}

/// Each connection that is tried is an open file.
pub fn allow_many_files() -> io::Result<()> {
    let many = Some(16_384);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: many, maximum: many })?)
}
