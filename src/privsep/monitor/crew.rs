//! Workers: started, handed over to one another, ended.
//!
//! ```text
//! start ──► Starting ──ready──► Waiting ──go──► Serving ──retire──► Retiring ──farewell──► gone
//! ```
//! A reload or a re-created interface starts a second worker beside the serving one. When it is ready its
//! capture is open and keeps what arrives; then the serving one retires, and only when that has written its
//! replay marks does the new one begin. So no knock is lost, and none is judged twice.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::thread::CapabilitySet;

use crate::clock;
use crate::grant::Limits;
use crate::privsep::brief::Brief;
use crate::privsep::capabilities::with_ambient;
use crate::privsep::channel::{ToWorker, pair};
use crate::privsep::message::{Farewell, Order, Ready, Reason, Said, Verdict};

/// How long a worker may take to open its capture and confine itself.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long a worker may take to write its marks.
const RETIRE_PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest pause before another attempt at a lost interface.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How much of what a worker wrote to standard error is kept.
const MAX_LAST_WORDS: u64 = 1000;

/// What a worker was started with: its requests are admitted by these limits and no others.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) generation: u64,
    /// Whether it was told to read a capture file: only then may it come to an end.
    pub(super) reads_a_file: bool,
}

/// What the crew has to tell the monitor.
pub(super) enum News {
    /// A worker said something in the course of its work.
    Said { terms: Rc<Terms>, said: Said },
    /// A new worker serves.
    Serving { landlock: bool },
    /// There is nothing to capture from for now; another attempt is due by itself.
    Lost { sentence: String },
    /// A capture file was read to its end.
    EndOfFile,
    /// A worker died unasked, or said what no worker says.
    Died { sentence: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Waiting(Ready),
    Serving(Ready),
    Retiring,
}

struct Worker {
    child: Child,
    socket: ToWorker,
    terms: Rc<Terms>,
    stage: Stage,
    deadline: Option<Duration>,
    counters: Vec<u64>,
}

/// The workers: at most one of each stage.
#[derive(Default)]
pub(super) struct Crew {
    workers: Vec<Worker>,
    /// What workers that are gone have counted.
    past: Vec<u64>,
    retry: Option<Retry>,
}

#[derive(Clone, Copy)]
struct Retry {
    at: Duration,
    pause: Duration,
}

impl Crew {
    /// Starts a worker on this brief, in place of one that has not begun to serve.
    pub(super) fn start(&mut self, brief: &Brief, terms: Terms) -> io::Result<()> {
        self.end_where(|worker| matches!(worker.stage, Stage::Starting | Stage::Waiting(_)));
        let (socket, theirs) = pair()?;
        let child = with_ambient(opening_capability(&brief.device), || {
            Command::new("/proc/self/exe")
                .arg("worker")
                .env_clear()
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                // Not the monitor's own: a captured worker could forge the log there, or silence it.
                .stderr(Stdio::piped())
                .spawn()
        })?;
        let deadline = Some(clock::uptime() + START_PATIENCE);
        let mut worker = Worker {
            child,
            socket,
            terms: Rc::new(terms),
            stage: Stage::Starting,
            deadline,
            counters: Vec::new(),
        };
        if let Err(error) = worker.socket.brief(brief) {
            worker.kill();
            return Err(error);
        }
        self.workers.push(worker);
        Ok(())
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.workers.iter().map(|worker| PollFd::from_borrowed_fd(worker.socket.as_fd(), PollFlags::IN))
    }

    /// The next piece of news, or `None` when all was heard.
    pub(super) fn hear(&mut self) -> Option<News> {
        for index in 0..self.workers.len() {
            let worker = self.workers.get_mut(index)?;
            match worker.socket.hear() {
                Ok(None) => {}
                Ok(Some(said)) => return Some(self.heard(index, said)),
                Err(error) => return self.gone(index, &error),
            }
        }
        None
    }

    fn heard(&mut self, index: usize, said: Said) -> News {
        let Some(worker) = self.workers.get_mut(index) else { return died("a worker vanished") };
        let terms = Rc::clone(&worker.terms);
        match said {
            Said::Ready(ready) if worker.stage == Stage::Starting => {
                worker.stage = Stage::Waiting(ready);
                worker.deadline = None;
                self.hand_over();
                News::Serving { landlock: ready.landlock }
            }
            Said::Farewell(farewell) => self.left(index, farewell, terms),
            Said::Pulse(pulse) => {
                worker.counters.clone_from(&pulse.counters);
                News::Said { terms, said: Said::Pulse(pulse) }
            }
            Said::Request(_) | Said::Refused(_) | Said::Notice(_) | Said::Revoked(_)
                if worker.has_begun() =>
            {
                News::Said { terms, said }
            }
            Said::Ready(_) | Said::Request(_) | Said::Refused(_) | Said::Notice(_) | Said::Revoked(_) => {
                self.kill_all();
                died("the worker spoke out of turn: it is broken or captured, and was ended")
            }
        }
    }

    /// A worker ends as planned, if it is one that may: a captured one must not end the service by a polite word.
    fn left(&mut self, index: usize, farewell: Farewell, terms: Rc<Terms>) -> News {
        let Some(stage) = self.workers.get(index).map(|worker| worker.stage) else {
            return died("a worker vanished");
        };
        let Farewell { reason, sentence } = farewell;
        match (reason, stage) {
            (Reason::Retired, Stage::Retiring | Stage::Waiting(_)) => {
                self.remove(index);
                self.hand_over();
                News::Said { terms, said: Said::Farewell(Farewell { reason, sentence }) }
            }
            (Reason::EndOfFile, Stage::Serving(_) | Stage::Retiring) if terms.reads_a_file => {
                self.remove(index);
                News::EndOfFile
            }
            (Reason::CannotOpen, Stage::Starting)
            | (Reason::CaptureLost, Stage::Serving(_) | Stage::Retiring) => {
                self.remove(index);
                self.hand_over();
                News::Lost { sentence }
            }
            _ => {
                self.kill_all();
                died("the worker said farewell out of turn: it is broken or captured, and was ended")
            }
        }
    }

    /// A worker's socket broke. A retiring one has its marks in the journal, and one that did not get as far as
    /// serving leaves the one before at its work; any other death is a death.
    fn gone(&mut self, index: usize, error: &io::Error) -> Option<News> {
        let stage = self.workers.get(index)?.stage;
        let ended = self.remove(index)?;
        if stage == Stage::Retiring {
            self.hand_over();
            return self.hear();
        }
        let how = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ended,
            _ => format!("{error}; it was ended"),
        };
        if !matches!(stage, Stage::Serving(_)) && self.serving().is_some() {
            return Some(News::Lost { sentence: format!("a new worker died unasked: {how}") });
        }
        self.kill_all();
        Some(died(&format!("the worker died unasked: {how}")))
    }

    /// Tells the next worker to begin, once the one before has retired.
    fn hand_over(&mut self) {
        let waiting = self.workers.iter().any(|worker| matches!(worker.stage, Stage::Waiting(_)));
        if !waiting {
            return;
        }
        let uptime = clock::uptime();
        if let Some(serving) =
            self.workers.iter_mut().find(|worker| matches!(worker.stage, Stage::Serving(_)))
        {
            serving.retire(uptime);
        }
        if self.workers.iter().any(|worker| worker.stage == Stage::Retiring) {
            return;
        }
        for worker in &mut self.workers {
            if let Stage::Waiting(ready) = worker.stage {
                worker.stage = Stage::Serving(ready);
                self.retry = None;
                let _ = worker.socket.order(Order::Go);
            }
        }
    }

    fn serving(&self) -> Option<&Worker> {
        self.workers.iter().find(|worker| matches!(worker.stage, Stage::Serving(_)))
    }

    /// The process id of the serving worker.
    pub(super) fn pid(&self) -> Option<u32> {
        self.serving().map(|worker| worker.child.id())
    }

    /// The configuration that the serving worker has.
    pub(super) fn generation(&self) -> Option<u64> {
        self.serving().map(|worker| worker.terms.generation)
    }

    /// How the serving worker stands.
    pub(super) fn ready(&self) -> Option<Ready> {
        self.serving().and_then(|worker| match worker.stage {
            Stage::Serving(ready) => Some(ready),
            _ => None,
        })
    }

    /// Whether a new worker is on its way.
    pub(super) fn is_changing(&self) -> bool {
        self.workers.iter().any(|worker| !matches!(worker.stage, Stage::Serving(_)))
    }

    /// Asks the serving worker for a pulse; `false` when there is none, or it has stopped reading.
    pub(super) fn ping(&self, id: u64) -> bool {
        self.serving().is_some_and(|worker| worker.socket.order(Order::Ping(id)).is_ok())
    }

    /// Answers a request. It does not matter which worker asked: ids are counted by each, and answers are only
    /// read for their arrival.
    pub(super) fn answer(&self, terms: &Rc<Terms>, id: u64, verdict: Verdict) {
        if let Some(worker) = self.workers.iter().find(|worker| Rc::ptr_eq(&worker.terms, terms)) {
            let _ = worker.socket.order(Order::Answer(id, verdict));
        }
    }

    /// What was counted by all workers since the daemon started.
    pub(super) fn totals(&self) -> Vec<u64> {
        let mut totals = self.past.clone();
        self.workers.iter().for_each(|worker| add(&mut totals, &worker.counters));
        totals
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let retry = self.retry.map(|retry| retry.at);
        self.workers.iter().filter_map(|worker| worker.deadline).chain(retry).min()
    }

    /// Whether another attempt at the capture is due.
    pub(super) fn is_retry_due(&mut self, uptime: Duration) -> bool {
        let due = self.retry.is_some_and(|retry| retry.at <= uptime);
        if due {
            self.retry_later();
        }
        due
    }

    /// Ends workers that take too long. A starting one counts as a lost capture, a retiring one as retired.
    pub(super) fn end_late(&mut self, uptime: Duration) -> Option<News> {
        let late = |worker: &Worker| worker.deadline.is_some_and(|deadline| deadline <= uptime);
        let starting = self.workers.iter().any(|worker| late(worker) && worker.stage == Stage::Starting);
        self.end_where(late);
        self.hand_over();
        starting.then(|| News::Lost { sentence: "the worker did not get ready in time".into() })
    }

    /// Makes another attempt due, later each time.
    pub(super) fn retry_later(&mut self) {
        let pause = self.retry.map_or(RETRY.0, |retry| (retry.pause * 2).min(RETRY.1));
        self.retry = Some(Retry { at: clock::uptime() + pause, pause });
    }

    /// Asks all workers to write their marks and end, and waits for them.
    pub(super) fn retire_all(&mut self) -> Vec<(Rc<Terms>, Said)> {
        let mut last_words = Vec::new();
        let until = clock::uptime() + RETIRE_PATIENCE;
        self.workers.iter_mut().for_each(|worker| worker.retire(until));
        while !self.workers.is_empty() && clock::uptime() < until {
            match self.hear() {
                Some(News::Said { terms, said }) => last_words.push((terms, said)),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        self.kill_all();
        last_words
    }

    /// Ends all workers at once.
    pub(super) fn kill_all(&mut self) {
        self.end_where(|_| true);
    }

    fn end_where(&mut self, which: impl Fn(&Worker) -> bool) {
        while let Some(index) = self.workers.iter().position(&which) {
            if let Some(worker) = self.workers.get_mut(index) {
                worker.kill();
            }
            self.remove(index);
        }
    }

    /// Takes a worker off the list and says how its process ended.
    fn remove(&mut self, index: usize) -> Option<String> {
        if index >= self.workers.len() {
            return None;
        }
        let Worker { mut child, counters, .. } = self.workers.remove(index);
        add(&mut self.past, &counters);
        // A captured worker might close its socket and live on. One that has ended keeps its own status.
        let _ = child.kill();
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let words = child.stderr.take().map(last_words).unwrap_or_default();
        Some(if words.is_empty() { status } else { format!("{status}; it said: {words}") })
    }
}

impl Worker {
    fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Serving(_) | Stage::Retiring)
    }

    fn retire(&mut self, now: Duration) {
        self.stage = Stage::Retiring;
        self.deadline = Some(now + RETIRE_PATIENCE);
        if self.socket.order(Order::Retire).is_err() {
            self.kill();
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

/// What a worker that is gone had written to standard error: a panic's message, as a rule. The log escapes it.
fn last_words(stderr: ChildStderr) -> String {
    let mut words = Vec::new();
    // The other end is closed, so this does not wait.
    let _ = stderr.take(MAX_LAST_WORDS).read_to_end(&mut words);
    String::from_utf8_lossy(&words).trim_end().to_owned()
}

/// What the worker needs to open its capture, and drops right after: libpcap asks nfnetlink for `nflog:N`, and
/// packet sockets for everything else.
fn opening_capability(device: &str) -> CapabilitySet {
    if device.starts_with("nflog:") { CapabilitySet::NET_ADMIN } else { CapabilitySet::NET_RAW }
}

fn died(sentence: &str) -> News {
    News::Died { sentence: sentence.to_owned() }
}

fn add(totals: &mut Vec<u64>, counters: &[u64]) {
    if totals.len() < counters.len() {
        totals.resize(counters.len(), 0);
    }
    totals.iter_mut().zip(counters).for_each(|(total, counter)| *total = total.wrapping_add(*counter));
}
