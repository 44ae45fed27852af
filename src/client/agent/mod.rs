//! An agent: keeps what a server opens open for this machine, wherever it is.
//!
//! One thread, one poll: `wake` says that something has happened, each `line` to the server does what is due by its
//! `plan`, and `names` looks addresses up beside that. The server never answers: what is known of a grant is what the
//! bundle said, what was asked for, and whether a TCP port lets a connection in.

mod company;
mod job;
mod line;
mod names;
mod plan;
mod shots;
mod wake;
mod words;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use job::Job;

use super::knock::{KnockError, Knocker, Pace};
use crate::clock;
use crate::files::FileError;
use crate::knock::Op;
use company::Company;
use line::Line;
use names::{Names, Question};
use wake::Wake;
use words::Words;

/// How long messages about the network are gathered: one change is several of them.
const GATHERED: Duration = Duration::from_millis(80);
/// The longest pause between two looks, however dear they are.
const SPARED: Duration = Duration::from_millis(300);
/// How long until a name that had no address is looked up again, at first and at the most.
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is around an agent: somebody who reads, a service manager, files.
pub trait Surroundings {
    /// Something has changed that somebody wants to know.
    fn say(&mut self, line: &str);
    /// The agent works.
    fn ready(&mut self, status: &str);
    /// What is open until when.
    fn status(&mut self, status: &str);
    /// The job as files have it now.
    ///
    /// # Errors
    /// Sentences about what is wrong with them; the agent goes on with what it has.
    fn reload(&mut self) -> Result<Job, Vec<String>>;
}

/// Keeps open what the job says, until SIGTERM or SIGINT.
///
/// # Errors
/// [`AgentError`]; that the server does not open is none.
pub fn run(job: Job, around: &mut dyn Surroundings) -> Result<(), AgentError> {
    let company = Company::join(&job.server).map_err(AgentError::Company)?;
    let wake = Wake::install().map_err(AgentError::Wake)?;
    let names = Names::new(wake.rope().map_err(AgentError::Wake)?);
    let mut agent = Agent::new(job, names);
    agent.words.begin(&agent.job, around);
    agent.look_up();
    around.ready(&agent.words.status(&agent.job, &agent.lines));
    loop {
        let now = clock::uptime();
        let sockets: Vec<_> = agent.lines.iter().flat_map(Line::sockets).collect();
        let woken = wake.wait(agent.next(now), &sockets).map_err(AgentError::Wake)?;
        if woken.stop {
            break;
        }
        let now = clock::uptime();
        if woken.reload {
            agent.reload(around, now);
        }
        if woken.network || woken.clock {
            agent.gather(now);
        }
        agent.turn(around, now);
    }
    if !agent.job.keep && company.leave() {
        agent.close(around);
    }
    Ok(())
}

struct Agent {
    job: Job,
    names: Names,
    lines: Vec<Line>,
    words: Words,
    /// When to look around.
    look: Option<Duration>,
    /// Not before this.
    spared: Duration,
    /// When to look the name up again, and how long to wait after that.
    again: Option<Duration>,
    pause: Duration,
}

impl Agent {
    fn new(job: Job, names: Names) -> Self {
        let (words, lines) = (Words::default(), Vec::new());
        Self { job, names, lines, words, look: None, spared: Duration::ZERO, again: None, pause: UNKNOWN.0 }
    }

    fn next(&self, now: Duration) -> Option<Duration> {
        let lines = self.lines.iter().filter_map(|line| line.next(now));
        lines.chain(self.look).chain(self.again).min()
    }

    fn question(&self) -> Question {
        let access = self.job.server.access();
        (access.host.as_str().to_owned(), access.port)
    }

    fn look_up(&mut self) {
        self.again = None;
        self.names.ask(self.question());
    }

    /// Notes that something may have changed.
    fn gather(&mut self, now: Duration) {
        self.look = self.look.or(Some((now + GATHERED).max(self.spared)));
    }

    /// Everything that is due and everything that has become ready.
    fn turn(&mut self, around: &mut dyn Surroundings, now: Duration) {
        if self.look.is_some_and(|look| look <= now) {
            self.look_around(now);
        }
        if self.again.is_some_and(|again| again <= now) {
            self.look_up();
        }
        if let Some(found) = self.names.answer(&self.question()) {
            self.found(found, around, now);
        }
        let mut is_stale = false;
        for line in &mut self.lines {
            for news in line.step(&self.job, now) {
                // Every knock asks for the name's address; the answer counts for the next one.
                is_stale |= !matches!(news, line::News::Open { .. });
                self.words.tell(&self.job, line, &news, around, now);
            }
        }
        if is_stale {
            self.look_up();
        }
        self.words.tell_ways(&self.job, &self.lines, around);
        self.words.show(&self.job, &self.lines, around);
    }

    /// Looks where this machine is, and whether the server is still where it was.
    fn look_around(&mut self, now: Duration) {
        self.look = None;
        self.lines.iter_mut().for_each(|line| line.look_around(now));
        self.look_up();
        // Where tables of routes are long, looking must not become all that is done.
        let after = clock::uptime();
        self.spared = after + (after.saturating_sub(now) * 4).min(SPARED);
    }

    /// One address of each family: the one that is in use as long as the name has it.
    fn found(&mut self, found: io::Result<Vec<SocketAddr>>, around: &mut dyn Surroundings, now: Duration) {
        let found = match found {
            Ok(found) if !found.is_empty() => found,
            other => {
                self.again = Some(now + self.pause);
                self.pause = (self.pause * 2).min(UNKNOWN.1);
                if self.lines.is_empty() {
                    let error = other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                    let host = self.question().0;
                    self.words.tell_unknown(&self.job, &KnockError::Resolve { host, error }, around);
                }
                return;
            }
        };
        self.pause = UNKNOWN.0;
        let (kept, gone): (Vec<Line>, Vec<Line>) =
            std::mem::take(&mut self.lines).into_iter().partition(|line| found.contains(&line.address));
        self.lines = kept;
        for is_v4 in [true, false] {
            let is_known = self.lines.iter().any(|line| line.address.is_ipv4() == is_v4);
            if let Some(address) = found.iter().find(|address| address.is_ipv4() == is_v4 && !is_known) {
                let before = gone.iter().find(|line| line.address.is_ipv4() == is_v4);
                self.lines.push(Line::new(*address, &self.job, now, before));
            }
        }
    }

    /// Begins anew with what files say now.
    fn reload(&mut self, around: &mut dyn Surroundings, now: Duration) {
        match around.reload() {
            Err(lines) => {
                lines.iter().for_each(|line| around.say(line));
                around.say("nothing has changed; mend that and send SIGHUP again");
            }
            Ok(job) => {
                self.job = job;
                let again = |before: &Line| Line::new(before.address, &self.job, now, Some(before));
                self.lines = self.lines.iter().map(again).collect();
                self.words = Words::default();
                self.words.begin(&self.job, around);
                self.look_up();
            }
        }
    }

    /// Ends the grants.
    fn close(&self, around: &mut dyn Surroundings) {
        for line in &self.lines {
            let Some(way) = line.to_close(&self.job) else { continue };
            let Some((ask, _)) = self.job.ask(&way, Op::Close, line.length()) else { continue };
            let closed =
                Knocker::at(&self.job.server, vec![line.address], clock::wall).and_then(|mut knocker| {
                    knocker.way = way;
                    knocker.salvo(&ask, &[line.address])?.send_all(Pace::Quick)
                });
            self.words.tell_closed(&self.job, line, closed.err().as_ref(), around);
        }
    }
}

/// Why an agent cannot work.
#[derive(Debug)]
pub enum AgentError {
    /// The file that agents share.
    Company(FileError),
    /// The kernel tells nothing of changes, signals or time.
    Wake(io::Error),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Company(error) => write!(f, "{error}"),
            Self::Wake(error) => write!(
                f,
                "the kernel does not tell what happens ({error}); an agent needs AF_NETLINK sockets, timers and poll"
            ),
        }
    }
}

impl std::error::Error for AgentError {}
