//! The worker: sees every packet, decides, and can do nothing but ask.
//!
//! Reads its [`Brief`], opens the capture, confines itself, reports ready and waits for `Go`. Then: frame →
//! segment → knock → grant → mark on disk → request to the monitor. It has no capability, no file but the replay
//! marks, and no socket but the one to the monitor.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::almanac::Almanac;
use super::brief::{Brief, Known};
use super::certificates::{self, Desk};
use super::channel::ToMonitor;
use super::confine::Landlock;
use super::counters::Counters;
use super::message::{Farewell, Health, Order, Pulse, Ready, Reason, Refused, Said};
use super::pipeline::{self, Seen};
use crate::capture::{Confined, Filter, Frame, Source, open};
use crate::clock::{self, Clocks};
use crate::crypto::KeyPair;
use crate::grant::{Holder, ProfileIndex, Request};
use crate::knock::cert::Shown;
use crate::knock::{ClientId, Fault, Knock, Listener, MarkKey, Method, Outcome};
use crate::state::{Mark, Place, State};
use crate::sys;
use crate::time::{ClockTrust, Now};

/// How many frames are taken between two looks at the monitor's orders.
const BATCH: usize = 64;

/// How many frames a worker that retires still takes: more than the kernel's ring holds, so that none is left,
/// and not without end, so that a flood does not keep it.
const LAST_BATCH: usize = 4096;

/// Runs the worker on the socket that the monitor gave it, to its end.
///
/// # Errors
/// When the monitor is gone or says something that it never should.
pub(super) fn run(channel: &ToMonitor) -> io::Result<()> {
    let brief = channel.brief()?;
    let (capture, ready) = match prepare(&brief) {
        Ok(prepared) => prepared,
        Err(sentence) => return farewell(channel, Reason::CannotOpen, sentence),
    };
    channel.say(&Said::Ready(ready))?;
    if !wait_for_go(channel)? {
        return farewell(channel, Reason::Retired, String::new());
    }
    let mut worker = Worker::start(channel, capture, brief)?;
    sys::return_freed_memory();
    let (reason, sentence) = worker.work()?;
    worker.pulse(0)?;
    worker.state.finish(clock::uptime());
    farewell(channel, reason, sentence)
}

fn farewell(channel: &ToMonitor, reason: Reason, sentence: String) -> io::Result<()> {
    channel.say(&Said::Farewell(Farewell { reason, sentence }))
}

/// Opens the capture while there is still a capability for it, then gives everything up.
fn prepare(brief: &Brief) -> Result<(Confined, Ready), String> {
    let source: Source = brief.device.parse().map_err(|error| format!("{error}"))?;
    let opened = open(&source, &pipeline::filter(brief)).map_err(|error| error.to_string())?;
    let interface = opened.interface();
    let confined =
        opened.confine(&[&brief.runtime_dir, &brief.state_dir]).map_err(|error| error.to_string())?;
    let ready = Ready { landlock: confined.confinement().landlock != Landlock::Missing, interface };
    Ok((confined, ready))
}

/// Waits for the first order; `false` when it is to retire at once.
fn wait_for_go(channel: &ToMonitor) -> io::Result<bool> {
    loop {
        poll(&mut [PollFd::new(channel, PollFlags::IN)], None)?;
        match channel.heed()? {
            Some(Order::Go) => return Ok(true),
            Some(Order::Retire) => return Ok(false),
            Some(Order::Ping(id)) => channel.say(&Said::Pulse(Pulse { id, ..Pulse::default() }))?,
            Some(Order::Answer(..)) | None => {}
        }
    }
}

struct Worker<'a> {
    channel: &'a ToMonitor,
    capture: Confined,
    listener: Listener,
    /// Where the codes of SYNs come from, if any client knocks with them.
    almanac: Option<Almanac>,
    known: HashMap<ClientId, Known>,
    certificates: Desk,
    state: State,
    clocks: Clocks,
    filter: Filter,
    counters: Counters,
    /// The health that the monitor was told last.
    told: Health,
    next_id: u64,
}

/// Whether the worker goes on.
type End = Option<(Reason, String)>;

impl<'a> Worker<'a> {
    fn start(channel: &'a ToMonitor, capture: Confined, brief: Brief) -> io::Result<Self> {
        let server = KeyPair::from(brief.server_key.clone());
        let place = Place {
            runtime: brief.runtime_dir.clone(),
            state: brief.state_dir.clone(),
            identity: server.public().identity(),
            boot: brief.boot,
        };
        let (state, recovered) = State::open(place, clock::uptime(), brief.quarantine.duration())?;
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let listener = pipeline::listener(&brief, seed, clock::RELEASED);
        let (mut listener, certificates, complaints) =
            certificates::listen(&brief, certificates::Memory::Kept(&brief.state_dir), listener);
        complaints.into_iter().try_for_each(|complaint| channel.say(&Said::Notice(complaint)))?;
        certificates.revoked(&listener).iter().try_for_each(|revoked| channel.say(revoked))?;
        let members = pipeline::members(&brief);
        let almanac = match members.is_empty() {
            true => None,
            false => Some(Almanac::start(server, members, &mut listener)?),
        };
        listener.seed(recovered.marks);
        recovered.recent.into_iter().for_each(|mac1| listener.seed_ring(mac1));
        if let Some((until, _)) = recovered.quarantine {
            listener.quarantine(until);
        }
        let filter = pipeline::filter(&brief);
        let known = brief.known().collect();
        Ok(Self {
            channel,
            capture,
            listener,
            almanac,
            known,
            certificates,
            state,
            clocks: Clocks::new(brief.clock),
            filter,
            counters: Counters::default(),
            told: Health::default(),
            next_id: 0,
        })
    }

    /// Takes frames and orders until there is a reason to end.
    fn work(&mut self) -> io::Result<(Reason, String)> {
        // How it is from the start: a quarantine and a clock in doubt are news before the first knock.
        self.tell_troubles()?;
        self.pulse(0)?;
        loop {
            self.tell_troubles()?;
            let (orders, frames) = self.wait()?;
            if orders {
                if let Some(end) = self.heed()? {
                    return Ok(end);
                }
            }
            if frames {
                if let Some(end) = self.take_frames(BATCH)? {
                    return Ok(end);
                }
            }
        }
    }

    /// Says what is wrong with authorities and their revocation lists, when that is new or was said long ago.
    fn tell_troubles(&mut self) -> io::Result<()> {
        let now = self.clocks.read();
        let troubles = self.certificates.troubles(&self.listener, now.wall);
        troubles.into_iter().try_for_each(|trouble| self.channel.say(&Said::Notice(trouble)))?;
        self.tell_health(now)
    }

    /// Sleeps until there is an order or a frame, or a revocation list passes its date. Without certificates there is
    /// no time limit: an idle daemon does not wake up.
    fn wait(&mut self) -> io::Result<(bool, bool)> {
        let left = self.certificates.until_next(&self.listener, self.clocks.read().wall);
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let Some(capture) = self.capture.as_fd() else { return Ok((false, true)) };
        let mut fds =
            [PollFd::new(self.channel, PollFlags::IN), PollFd::from_borrowed_fd(capture, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Err(error) => return Err(error.into()),
        }
        let [orders, frames] = fds.map(|fd| !fd.revents().is_empty());
        Ok((orders, frames))
    }

    fn heed(&mut self) -> io::Result<End> {
        match self.channel.heed()? {
            Some(Order::Ping(id)) => {
                self.pulse(id)?;
                // The kernel does not wake anybody when an interface goes that was down before.
                return self.take_frames(BATCH);
            }
            Some(Order::Retire) => {
                self.take_frames(LAST_BATCH)?;
                return Ok(Some((Reason::Retired, String::new())));
            }
            Some(Order::Go | Order::Answer(..)) | None => {}
        }
        Ok(None)
    }

    fn pulse(&mut self, id: u64) -> io::Result<()> {
        if let Ok(stats) = self.capture.stats() {
            self.counters.set_lost(stats.dropped);
        }
        self.state.retry();
        let now = self.clocks.read();
        self.told = self.health(now);
        let counters = self.counters.numbers().to_vec();
        self.channel.say(&Said::Pulse(Pulse { id, health: self.told, counters }))
    }

    /// Tells the monitor unasked when something has broken or healed.
    fn tell_health(&mut self, now: Now) -> io::Result<()> {
        if self.health(now) == self.told { Ok(()) } else { self.pulse(0) }
    }

    fn health(&self, now: Now) -> Health {
        Health {
            runtime_unwritable: !self.state.is_runtime_writable(),
            state_unwritable: !self.state.is_state_writable(),
            quarantined: self.listener.is_quarantined(now.uptime),
            clock_unsynchronised: now.trust == ClockTrust::Unsynchronised,
            certificates_in_doubt: self.certificates.is_in_doubt(),
        }
    }

    /// Takes frames until there are none, `limit` were taken, or there is a reason to end.
    fn take_frames(&mut self, limit: usize) -> io::Result<End> {
        for _ in 0..limit {
            let now = self.clocks.read();
            if let Some(almanac) = &mut self.almanac {
                almanac.turn(&mut self.listener, now.wall);
            }
            let seen = match self.capture.next_frame() {
                Ok(Some(frame)) => see(&frame, &self.filter, now, &mut self.listener, &mut self.counters),
                Ok(None) => return Ok(self.end_of_file()),
                Err(error) => return Ok(Some((Reason::CaptureLost, error.to_string()))),
            };
            if let Some((outcome, from_outside)) = seen {
                self.act(outcome, from_outside, now)?;
            }
        }
        Ok(None)
    }

    fn end_of_file(&self) -> End {
        self.capture.is_at_end().then(|| (Reason::EndOfFile, String::new()))
    }

    fn act(&mut self, outcome: Outcome, from_outside: bool, now: Now) -> io::Result<()> {
        match outcome {
            Outcome::Dropped(reason) => {
                self.counters.dropped(reason);
                Ok(())
            }
            Outcome::Refused { client, method, source, fault } => {
                let Some((known, _)) = self.whose(client, method) else { return Ok(()) };
                let said = Refused {
                    profile: known.map_or(ProfileIndex::NONE, |known| known.index),
                    source,
                    name: fault.name().to_owned(),
                    sentence: fault.to_string(),
                };
                let mark = MarkKey::new(client, method);
                if let (Fault::Quarantine { .. }, Some(counter)) = (&fault, self.listener.mark(&mark)) {
                    // Used up by the refusal, and not to be good again after a restart.
                    self.state.persist(&Mark { key: mark, counter, mac1: [0; 16] });
                }
                self.refuse(said)?;
                self.tell_health(now)
            }
            Outcome::Knock(knock) => {
                self.knock(&knock, from_outside, now)?;
                self.tell_health(now)
            }
        }
    }

    /// A fresh and authentic knock: spent whatever the policy says, and written down before the monitor hears of
    /// it.
    fn knock(&mut self, knock: &Knock, from_outside: bool, now: Now) -> io::Result<()> {
        let Some((Some(known), shown)) = self.whose(knock.client, knock.method) else { return Ok(()) };
        let index = known.index;
        let at = pipeline::time_of(knock, now, clock::RELEASED);
        let decision = known.decide(shown.as_deref(), knock, at);
        let holder = shown.map(|shown| Holder::new(shown.id, &shown.subject));
        self.listener.spend(knock);
        self.state.persist(&Mark { key: knock.mark(), counter: knock.counter, mac1: knock.mac1 });
        match decision {
            Ok(grant) => {
                self.counters.knock();
                self.next_id += 1;
                let request =
                    Request { id: self.next_id, counter: knock.counter, from_outside, grant, holder };
                self.channel.say(&Said::Request(request))
            }
            Err(refusal) => self.refuse(Refused {
                profile: index,
                source: knock.source,
                name: refusal.name().to_owned(),
                sentence: refusal.to_string(),
            }),
        }
    }

    /// Under whose name a knock goes, and the certificate that it was made with. A certificate that no rule is for has
    /// no name.
    fn whose(&self, client: ClientId, method: Method) -> Option<(Option<&Known>, Option<Rc<Shown>>)> {
        if method != Method::Cert {
            return Some((Some(self.known.get(&client)?), None));
        }
        let shown = self.listener.shown()?;
        let rule = shown.table.and_then(|table| self.certificates.client(table));
        Some((rule.and_then(|rule| self.known.get(&rule)), Some(shown)))
    }

    fn refuse(&mut self, refused: Refused) -> io::Result<()> {
        self.counters.refused();
        self.channel.say(&Said::Refused(refused))
    }
}

/// From frame to outcome, and whether the packet came from outside this host; `None` for what is no candidate.
fn see(
    frame: &Frame<'_>,
    filter: &Filter,
    now: Now,
    listener: &mut Listener,
    counters: &mut Counters,
) -> Option<(Outcome, bool)> {
    counters.frame();
    match pipeline::see(frame, filter, now, listener) {
        Seen::NoSegment(reason) => counters.no_segment(reason),
        Seen::NoCandidate(_) => counters.no_candidate(),
        Seen::Heard(segment, outcome) => {
            // A packet to oneself goes over loopback, with one address at both ends.
            let from_outside = segment.source != segment.destination && !segment.source.is_loopback();
            return Some((outcome, from_outside));
        }
    }
    None
}
