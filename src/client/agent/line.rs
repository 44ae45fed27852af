//! One line to a server: one of its addresses, this machine's address towards it, and the grant between them.
//!
//! Nothing here waits. A step does what is due and what has become ready, and says what has come of it.

use std::mem;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::job::Job;
use super::plan::{Due, Length, Plan};
use super::shots::Shots;
use crate::client::knock::{KnockError, Way};
use crate::client::memory::{Lesson, recall, remember};
use crate::client::network::Sight;
use crate::client::sequence::Style;
use crate::client::try_port::{Open, Tries, Trying as _};
use crate::clock;
use crate::knock::Op;

/// How long one knock may take to have an effect.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a port that should be open may take to answer.
const LOOK: Duration = Duration::from_secs(1);
/// How often one step may go on at once.
const AT_ONCE: usize = 8;

/// A line.
pub(super) struct Line {
    /// Where knocks go.
    pub(super) address: SocketAddr,
    sight: Option<Sight>,
    plan: Plan,
    length: Length,
    work: Work,
    /// What opened the port last.
    way: Option<Way>,
    has_knocked: bool,
    fell_short: bool,
}

/// What is under way.
enum Work {
    Nothing,
    /// Copies go out; nothing is looked for.
    Copies(Shots),
    /// A knock goes out, and the port is tried.
    Round(Round),
    /// The port is tried, and should be open.
    Look {
        tries: Tries,
        until: Duration,
        why: Why,
    },
}

/// Why a port is looked at that should be open.
enum Why {
    /// Whether grants last as long as is asked for shows before the first renewal.
    BeforeRenewal,
    /// Whether the renewal had an effect.
    AfterRenewal,
}

/// One way after the other.
struct Round {
    shots: Shots,
    tries: Tries,
    until: Duration,
    left: Vec<Way>,
}

/// What has come of it.
#[derive(Debug)]
pub(super) enum News {
    /// Open for this address, by this way; seen to be, or hoped.
    Open { source: IpAddr, by: Way, is_seen: bool },
    /// A new deadline was asked for.
    Renewed,
    /// The port is closed although a grant should last.
    Lost,
    /// No knock had an effect.
    Failed { refused: bool, error: Option<KnockError> },
}

impl Line {
    /// A line to this address, wherever it starts from, in the place of one to another address.
    pub(super) fn new(address: SocketAddr, job: &Job, now: Duration, before: Option<&Self>) -> Self {
        let mut line = Self {
            address,
            sight: None,
            plan: before.map_or_else(Plan::new, |before| before.plan.in_place_of()),
            length: job.length(),
            work: Work::Nothing,
            way: None,
            has_knocked: false,
            fell_short: false,
        };
        line.look_around(now);
        line
    }

    /// Whether anything leads there.
    pub(super) fn has_way(&self) -> bool {
        self.sight.is_some()
    }

    /// The address that a grant is for, and until when; `None` when there is none.
    pub(super) fn open(&self) -> Option<(IpAddr, Duration)> {
        Some((self.sight?.source, self.plan.open_until()?))
    }

    /// Looks where this machine is. Elsewhere it needs a grant of its own.
    pub(super) fn look_around(&mut self, now: Duration) {
        let here = Sight::towards(self.address);
        match (self.sight, here) {
            (Some(before), Some(here)) if !before.is_left_for(&here) => self.plan.hurry(now),
            (None, None) => {}
            (_, None) => {
                self.plan.gone();
                self.work = Work::Nothing;
            }
            (_, Some(_)) => {
                self.plan.lost(now);
                self.work = Work::Nothing;
            }
        }
        self.sight = here;
    }

    /// When there is something to do without being woken by a socket.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        match &self.work {
            Work::Nothing => self.plan.next(),
            Work::Copies(shots) => Some(shots.next().unwrap_or(now)),
            Work::Round(round) => {
                let next = (now + round.tries.due_in()).min(round.until);
                Some(round.shots.next().map_or(next, |shot| shot.min(next)))
            }
            Work::Look { tries, until, .. } => Some((now + tries.due_in()).min(*until)),
        }
    }

    /// What becomes ready when an attempt at the port has ended.
    pub(super) fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        match &self.work {
            Work::Nothing | Work::Copies(_) => Vec::new(),
            Work::Round(Round { tries, .. }) | Work::Look { tries, .. } => tries.sockets().collect(),
        }
    }

    /// Does what is due.
    pub(super) fn step(&mut self, job: &Job, now: Duration) -> Vec<News> {
        let mut news = Vec::new();
        for _ in 0..AT_ONCE {
            let goes_on = match mem::replace(&mut self.work, Work::Nothing) {
                Work::Nothing => self.begin(job, now, &mut news),
                Work::Copies(shots) => self.send(shots, now),
                Work::Round(round) => self.watch(round, job, now, &mut news),
                Work::Look { tries, until, why } => self.look(tries, until, why, job, now, &mut news),
            };
            if !goes_on {
                break;
            }
        }
        news
    }

    /// The way by which grants here can be ended, if something may be open.
    pub(super) fn to_close(&self, job: &Job) -> Option<Way> {
        let can_close = |way: &&Way| job.ask(way, Op::Close, &self.length).is_some();
        let ways = self.way.iter().chain(&job.ways);
        ways.into_iter().find(can_close).filter(|_| self.has_knocked && self.has_way()).cloned()
    }

    /// How long grants last.
    pub(super) fn length(&self) -> &Length {
        &self.length
    }

    fn begin(&mut self, job: &Job, now: Duration, news: &mut Vec<News>) -> bool {
        let targets = job.targets(self.address);
        match self.plan.due(now) {
            None => return false,
            Some(Due::Knock) => {
                self.plan.begin(now);
                self.knock(job, &targets, now, news);
            }
            Some(Due::Renew) if targets.is_empty() || self.length.is_seen() => self.renew(job, now, news),
            // Nothing shows it: it is believed.
            Some(Due::Look) if targets.is_empty() => self.plan.seen(),
            Some(due @ (Due::Renew | Due::Look)) => {
                let why = if due == Due::Renew { Why::BeforeRenewal } else { Why::AfterRenewal };
                self.work = Work::Look { tries: Tries::calm(&targets), until: now + LOOK, why };
            }
        }
        true
    }

    /// Begins a round of knocks; without a port to try, a single knock has to do.
    fn knock(&mut self, job: &Job, targets: &[SocketAddr], now: Duration, news: &mut Vec<News>) {
        let mut left = self.ways(job);
        let begun = self.next_shots(&mut left, job, now);
        match begun {
            Err(error) => self.fail(false, error, now, news),
            Ok(shots) if targets.is_empty() => {
                self.opened(&shots, None, now, news);
                self.work = Work::Copies(shots);
            }
            Ok(shots) => {
                let until = now + shots.takes() + PATIENCE;
                self.work = Work::Round(Round { shots, tries: Tries::new(targets), until, left });
            }
        }
    }

    /// The packets of the first of these ways that can say what is wanted.
    fn next_shots(
        &mut self,
        left: &mut Vec<Way>,
        job: &Job,
        now: Duration,
    ) -> Result<Shots, Option<KnockError>> {
        let mut failed = None;
        while !left.is_empty() {
            let way = left.remove(0);
            let Some((ask, lasts)) = job.ask(&way, Op::Open, &self.length) else { continue };
            match Shots::load(job, self.address, way, &ask, lasts, now) {
                Ok(shots) => {
                    self.has_knocked = true;
                    return Ok(shots);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed)
    }

    /// All ways at first, the one that worked here before everything else; then one in each round, in turn.
    fn ways(&self, job: &Job) -> Vec<Way> {
        let mut ways = job.ways.clone();
        let known = self.sight.and_then(|sight| recall(&job.server, sight.network));
        let worked = known.and_then(|known| known.method).or(self.way.as_ref().map(Way::method));
        ways.sort_by_key(|way| Some(way.method()) != worked);
        let failures = usize::try_from(self.plan.failures()).unwrap_or(0);
        if failures > 0 && !ways.is_empty() {
            let turn = (failures - 1) % ways.len();
            ways.rotate_left(turn);
            ways.truncate(1);
            ways.iter_mut().for_each(insist);
        }
        ways
    }

    fn watch(&mut self, mut round: Round, job: &Job, now: Duration, news: &mut Vec<News>) -> bool {
        let sent = round.shots.send(now);
        match round.tries.turn(Duration::ZERO) {
            Ok(Some(open)) => {
                self.opened(&round.shots, Some((job, &open)), now, news);
                self.work = Work::Copies(round.shots);
                return true;
            }
            Ok(None) if sent.is_ok() && now < round.until => {
                self.work = Work::Round(round);
                return false;
            }
            Ok(None) | Err(_) => {}
        }
        match self.next_shots(&mut round.left, job, now) {
            Ok(shots) => {
                round.tries.hurry();
                round.until = now + shots.takes() + PATIENCE;
                self.work = Work::Round(Round { shots, ..round });
                true
            }
            Err(error) => {
                self.fail(round.tries.was_refused(), sent.err().or(error), now, news);
                false
            }
        }
    }

    fn fail(&mut self, refused: bool, error: Option<KnockError>, now: Duration, news: &mut Vec<News>) {
        self.fell_short = false;
        self.plan.failed(now, roll());
        news.push(News::Failed { refused, error });
    }

    fn opened(
        &mut self,
        shots: &Shots,
        seen: Option<(&Job, &Open<TcpStream>)>,
        now: Duration,
        news: &mut Vec<News>,
    ) {
        let Some(Sight { source, network, .. }) = self.sight else { return };
        if let Some((job, Open { round_trip: Some(round_trip), .. })) = seen {
            let (method, round_trip) = (Some(shots.way().method()), *round_trip);
            let lesson = Lesson { network, method, round_trip, when: clock::wall() };
            // The next knock takes a little longer, and that is all.
            let _ = remember(&job.server, lesson);
        }
        let mut lasts = shots.lasts().duration();
        if mem::take(&mut self.fell_short) && self.plan.failures() == 0 {
            // The server was there all the time.
            self.length.fell_short();
            lasts = lasts.min(self.length.asked().duration());
        }
        self.plan.opened(shots.began().min(now), lasts, roll());
        self.way = Some(shots.way().clone());
        news.push(News::Open { source, by: shots.way().clone(), is_seen: seen.is_some() });
    }

    fn renew(&mut self, job: &Job, now: Duration, news: &mut Vec<News>) {
        let ways = self.way.iter().chain(&job.ways);
        let asks = ways.filter_map(|way| Some((way.clone(), job.ask(way, Op::Renew, &self.length)?)));
        let Some((way, (ask, lasts))) = asks.into_iter().next() else {
            return self.plan.put_off(now, roll());
        };
        match Shots::load(job, self.address, way, &ask, lasts, now) {
            Ok(shots) => {
                self.plan.opened(now, lasts.duration(), roll());
                self.work = Work::Copies(shots);
                news.push(News::Renewed);
            }
            // The grant stands until its end; then it is knocked for.
            Err(_) => self.plan.put_off(now, roll()),
        }
    }

    fn send(&mut self, mut shots: Shots, now: Duration) -> bool {
        // Copies that cannot be sent leave it to the one before them; that none arrived shows when it is looked at.
        let is_over = shots.send(now).is_err() || shots.next().is_none();
        if !is_over {
            self.work = Work::Copies(shots);
        }
        is_over
    }

    fn look(
        &mut self,
        mut tries: Tries,
        until: Duration,
        why: Why,
        job: &Job,
        now: Duration,
        news: &mut Vec<News>,
    ) -> bool {
        let is_open = matches!(tries.turn(Duration::ZERO), Ok(Some(_)));
        match (is_open, why) {
            (true, Why::AfterRenewal) => self.plan.seen(),
            (true, Why::BeforeRenewal) => {
                self.length.held();
                self.renew(job, now, news);
            }
            (false, why) if now < until => {
                self.work = Work::Look { tries, until, why };
                return false;
            }
            (false, why) => {
                self.fell_short = matches!(why, Why::BeforeRenewal);
                self.plan.lost(now);
                news.push(News::Lost);
            }
        }
        true
    }
}

/// Plays sequences without pauses, and three times.
fn insist(way: &mut Way) {
    if let Way::Sequence(Style { tempo, .. }) = way {
        *tempo = tempo.after_a_failure();
    }
}

/// A byte by chance; without one, clients that began together knock together.
fn roll() -> u8 {
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    byte.first().copied().unwrap_or(128)
}
