//! Why a knock did not work: recorded frames on the way that they take in the worker, up to the request that the
//! monitor would get. Nothing is asked, opened or written; the time is that of the recording.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::brief::Known;
use super::certificates::{self, Desk, Memory};
use super::monitor::{Directories, upkeep};
use super::pipeline::{self, Seen};
use crate::capture::{Filter, Frame};
use crate::config::{Clock, Configuration};
use crate::frame::{Refused, Segment};
use crate::grant::{Action, Grant};
use crate::knock::syn::Book;
use crate::knock::{ClientId, Drop, Fault, Knock, Listener, Method, Outcome};
use crate::state::{self, Place};
use crate::text::{ProfileName, Protocol};
use crate::time::{ClockTrust, Now, Timestamp};

/// A server's configuration, made ready to judge recorded frames.
pub struct Explainer {
    filter: Filter,
    listener: Listener,
    /// The codes of SYNs, which the daemon has a thread for.
    book: Option<Book>,
    known: HashMap<ClientId, (Known, ProfileName)>,
    certificates: Desk,
    trust: ClockTrust,
    times: Option<Times>,
}

/// The wall clock's time of the first frame, and of the latest.
#[derive(Clone, Copy)]
struct Times {
    first: Timestamp,
    latest: Timestamp,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Where it was going; `None` where that cannot be read.
    pub way: Option<Way>,
    /// Whose knock it was, and by which method; `None` where that cannot be told.
    pub knock: Option<(ProfileName, &'static str)>,
    /// Whether it would have been let through.
    pub verdict: Verdict,
    /// How far it came: `link`, `ip`, `transport`, `filter`, `method`, `length`, `mac`, `repeat`, `budget`, `key`,
    /// `client`, `code`, `sequence`, `certificate`, `fields`, `replay`, `freshness`, `policy`; or `done`.
    pub step: &'static str,
    /// The fixed name of the reason; `granted` or `closed` where there is none.
    pub reason: &'static str,
    /// What it means, and what to do.
    pub sentence: Cow<'static, str>,
}

/// From where to where a segment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its transport.
    pub protocol: Protocol,
    /// Its destination port.
    pub port: u16,
}

/// What the server would have done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Opened or closed something.
    Granted,
    /// Taken note of: one knock of a sequence.
    Noted,
    /// Refused, with a line in the log.
    Refused,
    /// Dropped without a word.
    Dropped,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 4] = [Self::Granted, Self::Noted, Self::Refused, Self::Dropped];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Noted => "noted",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Uptime at the first frame: long enough that nothing looks as if the machine had just started.
const FIRST_UPTIME: Duration = Duration::from_secs(86_400);

impl Explainer {
    /// Makes ready. `memory`: where the replay marks and the numbers of revocation lists from before the recording
    /// lie; without it everything is new.
    #[must_use]
    pub fn new(config: &Configuration, memory: Option<&Place>) -> Self {
        let nowhere = Directories { config: "/".into(), state: "/".into(), runtime: "/".into() };
        let brief = upkeep::brief(config, &nowhere);
        let numbers = memory.map_or(Memory::None, |place| Memory::Read(&place.state));
        // The seed only spreads hash tables, and a recording is no flood. The recording may be older than this release.
        let listener = pipeline::listener(&brief, [0; 16], Timestamp::default());
        let (mut listener, certificates, _) = certificates::listen(&brief, numbers, listener);
        listener.seed(memory.map(state::look).unwrap_or_default());
        let members = pipeline::members(&brief);
        let book = (!members.is_empty()).then(|| Book::new(&config.server, &members));
        let names: Vec<ProfileName> = upkeep::enabled(config).map(|profile| profile.name.clone()).collect();
        let filter = pipeline::filter(&brief);
        let known = brief.known().filter_map(|(id, known)| {
            let name = names.get(usize::try_from(known.index.0).ok()?)?.clone();
            Some((id, (known, name)))
        });
        let trust = match config.settings.clock {
            Clock::Untrusted => ClockTrust::Unsynchronised,
            Clock::Auto | Clock::Trusted => ClockTrust::Synchronised,
        };
        Self { filter, listener, book, known: known.collect(), certificates, trust, times: None }
    }

    /// Judges the next frame, captured at this time.
    pub fn frame(&mut self, at: Timestamp, frame: &Frame<'_>) -> Explained {
        let now = self.now(at);
        if let Some(book) = &self.book {
            for step in self.listener.missing_steps(now.wall) {
                self.listener.install(book.table(step), now.wall);
            }
        }
        match pipeline::see(frame, &self.filter, now, &mut self.listener) {
            Seen::NoSegment(reason) => no_segment(reason),
            Seen::NoCandidate(segment) => self.no_candidate(&segment),
            Seen::Heard(segment, outcome) => self.heard(way(&segment), outcome, now),
        }
    }

    /// Uptime goes with the recording's time, and never back.
    fn now(&mut self, at: Timestamp) -> Now {
        let times = self.times.get_or_insert(Times { first: at, latest: at });
        times.latest = times.latest.max(at);
        let uptime = FIRST_UPTIME + times.latest.since(times.first);
        Now { wall: at, uptime, trust: self.trust }
    }

    fn no_candidate(&self, segment: &Segment<'_>) -> Explained {
        let miss = self.filter.miss(segment);
        Explained {
            way: Some(way(segment)),
            knock: None,
            verdict: Verdict::Dropped,
            step: "filter",
            reason: miss.map_or("", |miss| miss.name()),
            sentence: miss.map_or("", |miss| miss.sentence()).into(),
        }
    }

    fn heard(&mut self, way: Way, outcome: Outcome, now: Now) -> Explained {
        match outcome {
            Outcome::Dropped(reason) => dropped(way, reason),
            Outcome::Refused { client, method, fault, .. } => {
                self.refused(way, client, method.name(), &fault)
            }
            Outcome::Knock(knock) => self.knock(way, &knock, now),
        }
    }

    fn refused(&self, way: Way, client: ClientId, method: &'static str, fault: &Fault) -> Explained {
        Explained {
            way: Some(way),
            knock: self.whose(client, method).map(|(_, name)| (name.clone(), method)),
            verdict: Verdict::Refused,
            step: fault.step(),
            reason: fault.name(),
            sentence: fault.to_string().into(),
        }
    }

    /// The profile, or the table that the certificate is for.
    fn whose(&self, client: ClientId, method: &str) -> Option<&(Known, ProfileName)> {
        let by_certificate = method == Method::Cert.name();
        let rule = || self.certificates.client(self.listener.shown()?.table?);
        self.known.get(&if by_certificate { rule()? } else { client })
    }

    fn knock(&mut self, way: Way, knock: &Knock, now: Now) -> Explained {
        self.listener.spend(knock);
        let known = self.whose(knock.client, knock.method.name());
        let shown = self.listener.shown().filter(|_| knock.method == Method::Cert);
        // The recording may be older than this release.
        let at = pipeline::time_of(knock, now, Timestamp::default());
        let decision = known.map(|(known, _)| known.decide(shown.as_deref(), knock, at));
        let (verdict, step, reason, sentence) = match decision {
            Some(Ok(grant)) => granted(&grant),
            Some(Err(refusal)) => (Verdict::Refused, "policy", refusal.name(), refusal.to_string().into()),
            None => (
                Verdict::Dropped,
                "client",
                Drop::UnknownClient.name(),
                Drop::UnknownClient.sentence().into(),
            ),
        };
        let knock = known.map(|(_, name)| (name.clone(), knock.method.name()));
        Explained { way: Some(way), knock, verdict, step, reason, sentence }
    }
}

fn granted(grant: &Grant) -> (Verdict, &'static str, &'static str, Cow<'static, str>) {
    let Grant { action, address, ports, uses, lifetime, .. } = grant;
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let ports = ports.join(" ");
    match action {
        Action::Open => {
            let sentence = format!("would open {ports} to {address} for {lifetime}, {}", uses.phrase());
            (Verdict::Granted, "done", "granted", sentence.into())
        }
        Action::Close => (
            Verdict::Granted,
            "done",
            "closed",
            format!("would end this client's grants on {ports} for {address}").into(),
        ),
    }
}

fn no_segment(reason: Refused) -> Explained {
    Explained {
        way: None,
        knock: None,
        verdict: Verdict::Dropped,
        step: reason.step(),
        reason: reason.name(),
        sentence: reason.sentence().into(),
    }
}

fn dropped(way: Way, reason: Drop) -> Explained {
    Explained {
        way: Some(way),
        knock: None,
        verdict: if reason == Drop::Partial { Verdict::Noted } else { Verdict::Dropped },
        step: reason.step(),
        reason: reason.name(),
        sentence: reason.sentence().into(),
    }
}

fn way(segment: &Segment<'_>) -> Way {
    Way {
        source: segment.source,
        destination: segment.destination,
        protocol: segment.protocol(),
        port: segment.port,
    }
}
