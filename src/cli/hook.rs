//! `hook`: runs a command for each event, outside of the daemon and without its privileges.
//!
//! One loop over the daemon's socket and the commands that run. Events wait in a queue; while that is full nothing is
//! read, and a daemon that has told more than it keeps for one follower cuts this one off. It then begins anew.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::Failure;
use super::control::Daemon;
use super::events::is_wanted;
use super::exit::warn;
use crate::control::{Listening, Reply, Told};
use crate::log::escape;
use crate::text::{PortRange, Span};

/// Run a command for each grant that begins or ends, or for other events.
///
/// The daemon starts nothing: this is a program of its own that listens to it, as knockd-rs-hook.service does under
/// a user of its own. The command gets the event in its environment, and no shell sees it. After an interruption the
/// hook begins anew; what happened in between is lost, and the event `following` says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs hook -- /usr/local/bin/on-knock                      KNOCKD_RS_EVENT and others say what happened
  knockd-rs hook --event refused -- logger -t knock refused      for refusals alone")]
pub(super) struct Hook {
    /// Run it for events of this name; may be given more than once. Otherwise granted, ended, closed, revoked and
    /// following.
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// How long a command may take before it is killed.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    time_limit: Span,
    /// How many commands may run at a time. With one they run in the order of the events.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    #[command(flatten)]
    daemon: Daemon,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The events that a hook is for, unless it says otherwise.
const DEFAULT_EVENTS: [&str; 5] = ["granted", "ended", "closed", "revoked", FOLLOWING];
/// Made here, at each beginning: events are told from now on, and those before may have been missed.
const FOLLOWING: &str = "following";
/// How many events can wait for a command to end.
const MAX_QUEUE: usize = 1024;
/// The first and the longest pause before the daemon is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long to wait after the daemon has said no, or has cut this off.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);

impl Hook {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        if self.events.is_empty() {
            self.events = DEFAULT_EVENTS.iter().map(ToString::to_string).collect();
        }
        let mut running = Running { hook: &self, queue: VecDeque::new(), jobs: Vec::new() };
        let mut line = Line::Pause { until: Instant::now(), pause: RETRY.0 };
        loop {
            line = running.turn(line)?;
        }
    }
}

/// How the hook stands with the daemon.
enum Line {
    Open(Listening),
    /// There is none; another attempt is due then.
    Pause {
        until: Instant,
        pause: Duration,
    },
}

struct Running<'a> {
    hook: &'a Hook,
    queue: VecDeque<Told>,
    jobs: Vec<Job>,
}

struct Job {
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    until: Instant,
    event: String,
}

impl Running<'_> {
    /// Waits for something to happen, and deals with it.
    fn turn(&mut self, line: Line) -> Result<Line, Failure> {
        let line = match line {
            Line::Pause { until, pause } if until <= Instant::now() => self.connect(pause)?,
            line => line,
        };
        let is_heard = self.wait(&line).map_err(|error| Failure::Failed(error.to_string()))?;
        let line = match line {
            Line::Open(listening) if is_heard => self.hear(listening)?,
            line => line,
        };
        self.jobs.retain_mut(Job::is_running);
        while self.jobs.len() < usize::from(self.hook.jobs) {
            let Some(told) = self.queue.pop_front() else { break };
            self.jobs.extend(self.hook.start(&told));
        }
        Ok(line)
    }

    fn connect(&self, pause: Duration) -> Result<Line, Failure> {
        match self.hook.daemon.listen(true) {
            Ok(listening) => Ok(Line::Open(listening)),
            Err(Failure::NoDaemon(sentence)) => {
                if pause == RETRY.0 {
                    warn(&format!("{sentence}; trying again until it is there"));
                }
                Ok(Line::Pause { until: Instant::now() + pause, pause: (pause * 2).min(RETRY.1) })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sleeps until the daemon says something, a command ends, or a time is over. Whether the daemon does.
    fn wait(&self, line: &Line) -> io::Result<bool> {
        let mut fds: Vec<PollFd<'_>> =
            self.jobs.iter().map(|job| PollFd::from_borrowed_fd(job.ended.as_fd(), PollFlags::IN)).collect();
        let mut until: Vec<Instant> = self.jobs.iter().map(|job| job.until).collect();
        match line {
            Line::Open(listening) if self.queue.len() < MAX_QUEUE => {
                fds.push(PollFd::from_borrowed_fd(listening.as_fd(), PollFlags::IN));
            }
            Line::Open(_) => {}
            Line::Pause { until: retry, .. } => until.push(*retry),
        }
        let left = until.into_iter().min().map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds.len() > self.jobs.len() && fds.last().is_some_and(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn hear(&mut self, mut listening: Listening) -> Result<Line, Failure> {
        let again = Line::Pause { until: Instant::now() + RETRY.0, pause: RETRY.0 };
        let replies = match listening.hear() {
            Ok(replies) => replies,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(self.hook.daemon.unheard(&error));
            }
            Err(_) => {
                warn("the daemon has hung up; following it again as soon as it is there");
                return Ok(again);
            }
        };
        for reply in replies {
            match reply {
                Reply::Done(_) => self.take(following()),
                Reply::Event(told) => self.take(*told),
                Reply::Refused(lines) => {
                    lines.iter().for_each(|line| warn(line));
                    return Ok(Line::Pause { until: Instant::now() + AFTER_REFUSAL, pause: RETRY.0 });
                }
                Reply::Status(_) => {
                    return Err(Failure::Failed("the daemon answered another question".into()));
                }
            }
        }
        Ok(Line::Open(listening))
    }

    fn take(&mut self, told: Told) {
        if is_wanted(&self.hook.events, &told) {
            self.queue.push_back(told);
        }
    }
}

impl Hook {
    /// Starts the command for an event. One that cannot be started is told of, and the next event is another attempt.
    fn start(&self, told: &Told) -> Option<Job> {
        let (program, arguments) = self.command.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        // What began with the last event does not linger in this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KNOCKD_RS_") {
                command.env_remove(name);
            }
        }
        command.envs(environment(told));
        let failed = |error: io::Error| warn(&format!("{program} cannot be run for {}: {error}", told.event));
        let mut child = command.spawn().map_err(failed).ok()?;
        let Ok(ended) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) else {
            let _ = child.kill();
            failed(child.wait().err().unwrap_or_else(|| io::Error::other("its end cannot be waited for")));
            return None;
        };
        let until = Instant::now() + self.time_limit.duration();
        Some(Job { child, ended, until, event: told.event.clone() })
    }
}

impl Job {
    /// Whether it still runs. One that takes too long is killed, with all of its process group.
    fn is_running(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) if self.until > Instant::now() => return true,
            Ok(None) => {
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                let _ = self.child.wait();
                warn(&format!("the command for {} took too long and was killed", self.event));
            }
            Ok(Some(status)) if !status.success() => {
                warn(&format!("the command for {} ended with {status}", self.event));
            }
            Ok(Some(_)) | Err(_) => {}
        }
        false
    }
}

/// The event as variables. Each is there or not; none can hold a control character.
fn environment(told: &Told) -> Vec<(&'static str, String)> {
    let ports = told.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().join(" ");
    let variables = [
        ("KNOCKD_RS_EVENT", Some(told.event.clone())),
        ("KNOCKD_RS_TIME", Some(told.time.to_string())),
        ("KNOCKD_RS_LEVEL", Some(told.level.clone())),
        ("KNOCKD_RS_PROFILE", told.profile.clone()),
        ("KNOCKD_RS_SOURCE", told.source.map(|source| source.to_string())),
        ("KNOCKD_RS_ADDRESS", told.address.map(|address| address.to_string())),
        ("KNOCKD_RS_PORTS", Some(ports).filter(|ports| !ports.is_empty())),
        ("KNOCKD_RS_CONNECTIONS", told.connections.map(|uses| uses.to_string())),
        ("KNOCKD_RS_SECONDS", told.seconds.map(|seconds| seconds.to_string())),
        ("KNOCKD_RS_SERVICE", told.service.clone()),
        ("KNOCKD_RS_REASON", told.reason.clone()),
        ("KNOCKD_RS_TEXT", Some(told.text.clone())),
    ];
    let set = |(name, value): (&'static str, Option<String>)| Some((name, escape(&value?).into_owned()));
    variables.into_iter().filter_map(set).collect()
}

/// No variable that a command learns an event from holds a control character.
#[cfg(feature = "fuzzing")]
pub(super) fn check(told: &Told) {
    assert!(environment(told).iter().all(|(_, value)| escape(value) == *value));
}

fn following() -> Told {
    Told {
        time: crate::clock::wall().as_secs_with_millis(),
        level: "info".to_owned(),
        event: FOLLOWING.to_owned(),
        text: "events are told from here on; those before may have been missed".to_owned(),
        ..Told::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_learns_what_is_known_and_nothing_else() {
        let told: Told = serde_json::from_str(
            r#"{"time":1800000000.25,"level":"info","event":"granted","profile":"laptop","source":"192.0.2.9","address":"192.0.2.1","ports":["tcp/22","udp/53"],"connections":"single","seconds":15,"text":"a\u0000\nb"}"#,
        )
        .unwrap();
        let expected = [
            ("KNOCKD_RS_EVENT", "granted"),
            ("KNOCKD_RS_TIME", "1800000000.25"),
            ("KNOCKD_RS_LEVEL", "info"),
            ("KNOCKD_RS_PROFILE", "laptop"),
            ("KNOCKD_RS_SOURCE", "192.0.2.9"),
            ("KNOCKD_RS_ADDRESS", "192.0.2.1"),
            ("KNOCKD_RS_PORTS", "tcp/22 udp/53"),
            ("KNOCKD_RS_CONNECTIONS", "single"),
            ("KNOCKD_RS_SECONDS", "15"),
            ("KNOCKD_RS_TEXT", "a\\u{0}\\nb"),
        ];
        assert_eq!(environment(&told), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
