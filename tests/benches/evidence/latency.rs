//! From the knock to the first connection, and on the server from the packet to the element. All contenders run beside
//! one another and take turns, so that whatever the machine does besides falls on all of them.

use std::thread::sleep;
use std::time::Duration;

use crate::awake::Awake;
use crate::contenders::{self, Contender};
use crate::knocks::{ensure_closed, knock_and_probe};
use crate::probe::FINE;
use crate::results::{Number, Results, count, millis, percentile, spread};
use crate::watch::Watch;
use crate::{Outcome, Setting};

const SUBJECT: &str = "latency";
const PATIENCE: Duration = Duration::from_secs(1);
/// Time for the machine to fall asleep again, where it may.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Turn {
    connected: Vec<Duration>,
    element: Vec<Duration>,
    gaps: Vec<Duration>,
}

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    let mut all = contenders::all(&setting.machines)?;
    all.iter().try_for_each(|one| ensure_closed(one.as_ref()))?;
    let watch = Watch::start(&setting.machines)?;
    one_way(setting, results, &mut all, &watch, ["latency-halted", "idle processors halted"])?;
    let _awake = Awake::keep();
    one_way(setting, results, &mut all, &watch, ["latency-awake", "processors kept awake"])
}

fn one_way(
    setting: &Setting,
    results: &mut Results,
    all: &mut [Box<dyn Contender>],
    watch: &Watch,
    [name, case]: [&str; 2],
) -> Outcome<()> {
    let rounds = setting.pick(200, 20);
    let turns = take_turns(all, watch, rounds)?;
    for (contender, turn) in all.iter().zip(&turns) {
        let mut numbers: Vec<Number> = spread(["knock to open", "p99", "longest"], &turn.connected);
        numbers.extend(spread(["packet to element", "element p99", "element longest"], &turn.element));
        numbers.push(("opened", "of 100", 100.0 * count(turn.connected.len()) / count(rounds)));
        let gap = percentile(&turn.gaps, 50).map(millis);
        numbers.extend(gap.map(|gap| ("longest pause of probes, median", "ms", gap)));
        results.add(SUBJECT, contender.name(), case, numbers)?;
    }
    let samples: Vec<_> =
        all.iter().zip(&turns).map(|(one, turn)| (one.name(), turn.connected.as_slice())).collect();
    let title = format!("From the knock to the first connection, {case}: share of knocks that were faster");
    results.distribution(name, &title, &samples)
}

fn take_turns(all: &mut [Box<dyn Contender>], watch: &Watch, rounds: usize) -> Outcome<Vec<Turn>> {
    let mut turns: Vec<Turn> = all.iter().map(|_| Turn::default()).collect();
    // The first round warms caches up, and secrets that are computed once, and is left out.
    for round in 0..=rounds {
        for (contender, turn) in all.iter_mut().zip(&mut turns) {
            sleep(PAUSE);
            watch.forget();
            let opened = knock_and_probe(contender.as_mut(), FINE, PATIENCE)?;
            let is_ours = contender.port() < 25;
            let element = if is_ours { watch.packet_to_element() } else { None };
            if let (Some(opened), true) = (opened, round > 0) {
                turn.connected.push(opened.after);
                turn.gaps.push(opened.longest_gap);
                turn.element.extend(element);
            }
        }
    }
    Ok(turns)
}
