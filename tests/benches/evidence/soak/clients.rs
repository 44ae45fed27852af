//! Clients that knock all the time: the program's own for each method, knockd's for fixed sequences, and one whose
//! datagrams come from an address that never came before, several times a second.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Course, SUBJECT};
use crate::Outcome;
use crate::contenders::{Contender, Ours};
use crate::knocks::{Knock, fresh_source};
use crate::machine::Machines;
use crate::probe::Probe;
use crate::results::{Number, Results, count, spread};

/// How often a knock is tried before it counts as unanswered.
const TRIES: usize = 3;
/// How long a try may take to open the port.
const PATIENCE: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_millis(2);
/// A grant's four seconds, and one more.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// How long silence is listened to before a port counts as closed.
const SILENCE: Duration = Duration::from_millis(150);
/// The address of the client's interface, where its programs knock from.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The pause between two knocks of the wanderer.
const WANDERS: Duration = Duration::from_millis(250);
/// Until when the port is tried after the first packet and after its copies, as the program's client does.
const COPIES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(750), PATIENCE];
/// How often each of the wanderer's knocks is sent once more, from elsewhere.
const REPLAYS: usize = 20;

/// A client with a port of its own.
pub(super) struct Client {
    name: &'static str,
    port: u16,
    command: &'static str,
    period: Duration,
}

/// One for each method. `totp` has two knocks in half a minute, `syn` four.
pub(super) const ALL: [Client; 5] = [
    client("syn", 23, "knockd-rs knock syn --syn --no-wait --quiet", 12),
    client("totp", 25, "knockd-rs knock totp --totp --no-wait --quiet", 32),
    client("plain", 26, "knock -d 50 10.77.0.1 7000:tcp 8000:udp 6000:tcp", 10),
    client(
        "sequence",
        27,
        "knockd-rs knock sequence tcp/27 --sequence --many --for 4s --no-wait --quiet",
        10,
    ),
    client("cert", 28, "knockd-rs knock staff tcp/28 --many --for 4s --no-wait --quiet", 10),
];

const fn client(name: &'static str, port: u16, command: &'static str, seconds: u64) -> Client {
    Client { name, port, command, period: Duration::from_secs(seconds) }
}

impl Client {
    /// Knocks, sees the port open and close again, waits, and so on.
    pub(super) fn knock_all_the_time(
        &self,
        machines: &Machines,
        course: &Course,
        tallies: &Tallies,
    ) -> Outcome<()> {
        loop {
            let began = Instant::now();
            let mut answer = Answer::default();
            for _ in 0..TRIES {
                if answer.tries > 0 && !course.wait(self.period / 2) {
                    return Ok(());
                }
                answer.tries += 1;
                if let Err(error) = machines.client().run(self.command) {
                    answer.complaint = Some(error.to_string());
                    continue;
                }
                let started = Instant::now();
                answer.opened = self.probe(PATIENCE).opened(started)?.map(|opened| opened.after);
                if answer.opened.is_some() {
                    break;
                }
            }
            if answer.opened.is_some() {
                std::thread::sleep(OPEN_FOR);
                answer.stays_open = self.probe(SILENCE).opened(Instant::now())?.is_some();
            }
            tallies.add(self.name, answer);
            if !course.wait(self.period.saturating_sub(began.elapsed())) {
                return Ok(());
            }
        }
    }

    fn probe(&self, patience: Duration) -> Probe {
        Probe { from: HERE, port: self.port, every: EVERY, patience }
    }
}

/// Knocks from one address after the other, as the program does, and sends each knock again from elsewhere once it has
/// opened; the last of these is a knock as old as the run.
pub(super) fn wander(ours: &mut Ours, course: &Course, tallies: &Tallies) -> Outcome<()> {
    let oldest = ours.knock()?;
    while course.wait(WANDERS) {
        let from = fresh_source();
        let mut answer = Answer::default();
        while answer.opened.is_none() && answer.tries < TRIES {
            answer.tries += 1;
            let knock = ours.knock()?;
            let started = Instant::now();
            for until in COPIES {
                knock.send(from)?;
                answer.packets += 1;
                let probe = Probe { from, port: ours.port(), every: EVERY, patience: until };
                answer.opened = probe.opened(started)?.map(|opened| opened.after);
                if answer.opened.is_some() {
                    answer.stays_open = opens_for_a_thief(ours.port(), &[knock, oldest.clone()])?;
                    break;
                }
            }
        }
        tallies.add("spa", answer);
    }
    Ok(())
}

/// Whether what was used opens for somebody who sends it again and again.
fn opens_for_a_thief(port: u16, [used, oldest]: &[Knock; 2]) -> Outcome<bool> {
    let thief = fresh_source();
    (0..REPLAYS).try_for_each(|_| used.send(thief))?;
    oldest.send(thief)?;
    let probe = Probe { from: thief, port, every: EVERY, patience: SILENCE / 10 };
    Ok(probe.opened(Instant::now())?.is_some())
}

/// What became of one knock.
#[derive(Default)]
struct Answer {
    tries: usize,
    /// Of the wanderer, with copies.
    packets: usize,
    opened: Option<Duration>,
    /// Open after its end, or for somebody who sent the knock again.
    stays_open: bool,
    complaint: Option<String>,
}

/// What became of all knocks, by method.
#[derive(Default)]
pub(super) struct Tallies(Mutex<BTreeMap<&'static str, Tally>>);

/// Of one method.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub(super) knocks: usize,
    /// Knocks that needed more than one try, and those tries.
    pub(super) retried: usize,
    pub(super) retries: usize,
    /// The wanderer's knocks of which the first packet had no effect.
    pub(super) by_copy: usize,
    pub(super) unanswered: usize,
    pub(super) stayed_open: usize,
    pub(super) complaints: Vec<String>,
    opened: Vec<Duration>,
}

impl Tallies {
    fn add(&self, method: &'static str, answer: Answer) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = all.entry(method).or_default();
        tally.knocks += 1;
        tally.retried += usize::from(answer.tries > 1 && answer.opened.is_some());
        tally.by_copy += usize::from(answer.packets > 1 && answer.opened.is_some());
        tally.retries += answer.tries.saturating_sub(1);
        tally.unanswered += usize::from(answer.opened.is_none());
        tally.stayed_open += usize::from(answer.stays_open);
        tally.opened.extend(answer.opened);
        tally.complaints.extend(answer.complaint.filter(|_| tally.complaints.len() < 5));
    }

    /// How it stands.
    pub(super) fn all(&self) -> BTreeMap<&'static str, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All methods together.
    pub(super) fn total(&self) -> Tally {
        self.all().into_values().fold(Tally::default(), |mut sum, one| {
            sum.knocks += one.knocks;
            sum.retried += one.retried;
            sum.retries += one.retries;
            sum.by_copy += one.by_copy;
            sum.unanswered += one.unanswered;
            sum.stayed_open += one.stayed_open;
            sum.complaints.extend(one.complaints);
            sum
        })
    }

    /// A row for each method.
    pub(super) fn note(&self, results: &mut Results) -> Outcome<()> {
        for (method, tally) in self.all() {
            let mut numbers: Vec<Number> = vec![
                ("knocks", "", count(tally.knocks)),
                ("answered", "", count(tally.knocks - tally.unanswered)),
                ("retries", "", count(tally.retries)),
                ("by a copy", "", count(tally.by_copy)),
                ("stayed open", "", count(tally.stayed_open)),
            ];
            numbers.extend(spread(["median", "p99", "longest"], &tally.opened));
            results.add(SUBJECT, method, "knocks", numbers)?;
        }
        Ok(())
    }
}
