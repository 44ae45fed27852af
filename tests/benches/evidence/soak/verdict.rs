//! The conditions. Each is printed with its numbers and whether it holds.

use super::clients::Tallies;
use super::samples::{Sample, Samples, whole};
use crate::Outcome;
use crate::results::{count, text};

/// How much larger memory may be in a later quarter: by this share, and by so many KiB, for allocators and pages of
/// libraries that are touched late.
const MORE: f64 = 1.03;
const SLACK: f64 = 256.0;
/// The elements that can be there at a time: for each of the wanderer's four connections a second one that remembers it
/// for 30 seconds, a grant for each other client, and a third of that for what is late.
const ELEMENTS: f64 = 160.0;
/// Lines of the log beside those about knocks and commands in one minute: packets that open nothing have no part.
const LINES: usize = 60;
/// Lines about one knock.
const PER_KNOCK: usize = 2;

struct Condition {
    what: String,
    holds: bool,
}

pub(super) fn judge(samples: &Samples, tallies: &Tallies, changes: u64) -> Outcome<()> {
    let mut all = vec![answered(tallies), closed(tallies)];
    all.extend(memory(samples));
    all.extend(files_and_threads(samples));
    all.extend([elements(samples), log(samples), workers(samples, changes), healthy(samples)]);
    println!();
    for condition in &all {
        println!("  {}  {}", if condition.holds { "holds " } else { "BROKEN" }, condition.what);
    }
    println!("  {}\n  what the workers counted:", cpu(samples));
    for (name, count) in &samples.last.counters {
        println!("    {count:>12}  {name}");
    }
    for (method, tally) in tallies.all() {
        for complaint in tally.complaints {
            println!("  {method}: {complaint}");
        }
    }
    let broken = all.iter().filter(|condition| !condition.holds).count();
    if broken == 0 { Ok(()) } else { Err(format!("{broken} conditions of the soak do not hold").into()) }
}

fn answered(tallies: &Tallies) -> Condition {
    let total = tallies.total();
    let methods = tallies.all().len();
    let what = format!(
        "{} knocks by {methods} methods, {} answered, {} of them not by the first packet, {} by a knock anew (tries anew: {})",
        total.knocks,
        total.knocks - total.unanswered,
        total.by_copy,
        total.retried,
        total.retries
    );
    Condition { what, holds: total.unanswered == 0 && methods == 6 && total.knocks > 0 }
}

fn closed(tallies: &Tallies) -> Condition {
    let left = tallies.total().stayed_open;
    let what = format!("ports open after the end of a grant, or for somebody who sent a knock again: {left}");
    Condition { what, holds: left == 0 }
}

fn memory(samples: &Samples) -> Vec<Condition> {
    type Of = fn(&Sample) -> u64;
    let measures: [(&str, u32, Of); 6] = [
        ("rss of the monitor", 1, |sample| sample.monitor.rss),
        ("pss of the monitor", 1, |sample| sample.monitor.pss),
        ("rss of the worker", 1, |sample| sample.worker.rss),
        ("pss of the worker", 1, |sample| sample.worker.pss),
        ("rss of the one worker of the second half", 3, |sample| sample.worker.rss),
        ("pss of the one worker of the second half", 3, |sample| sample.worker.pss),
    ];
    let condition = |(name, from, of): (&str, u32, Of)| {
        let [first, last] = [from, 4].map(|quarter| samples.median(quarter, |sample| whole(of(sample))));
        let from = if from == 1 { "first" } else { "third" };
        let what =
            format!("{name}: {} KiB in the {from} quarter, {} KiB in the last", text(first), text(last));
        Condition { what, holds: first > 0.0 && last <= first * MORE + SLACK }
    };
    measures.map(condition).into()
}

fn files_and_threads(samples: &Samples) -> Vec<Condition> {
    type Of = fn(&Sample) -> usize;
    let measures: [(&str, Of); 4] = [
        ("files of the monitor", |sample| sample.monitor.files),
        ("files of the worker", |sample| sample.worker.files),
        ("threads of the monitor", |sample| sample.monitor.threads),
        ("threads of the worker", |sample| sample.worker.threads),
    ];
    let condition = |(name, of): (&str, Of)| {
        let [first, last] = [1, 4].map(|quarter| samples.median(quarter, |sample| count(of(sample))));
        let most = samples.most(4, |sample| count(of(sample)));
        let what = format!(
            "{name}: {first} in the first quarter, {last} in the last (never more than {most} there)"
        );
        Condition { what, holds: first > 0.0 && last <= first }
    };
    measures.map(condition).into()
}

fn elements(samples: &Samples) -> Condition {
    let most =
        (1..=4).map(|quarter| samples.most(quarter, |sample| count(sample.elements))).fold(0.0, f64::max);
    let what = format!("elements of the sets: never more than {most}, of {ELEMENTS}");
    Condition { what, holds: most > 0.0 && most <= ELEMENTS }
}

fn log(samples: &Samples) -> Condition {
    let bound = |knocks: usize| PER_KNOCK * knocks + LINES;
    let worst = samples.minutes.iter().max_by_key(|(lines, knocks)| lines.saturating_sub(bound(*knocks)));
    let (lines, knocks) = worst.copied().unwrap_or_default();
    let what = format!(
        "the log: {} lines, {} KiB; in its worst minute {lines} lines, where {knocks} knocks allow {}",
        samples.log.lines().count(),
        samples.log.len() / 1024,
        bound(knocks)
    );
    Condition { what, holds: !samples.log.is_empty() && lines <= bound(knocks) }
}

/// Each new configuration begins a worker, and nothing else does.
fn workers(samples: &Samples, changes: u64) -> Condition {
    let mut seen: Vec<u32> = samples.all.iter().map(|sample| sample.worker.pid).collect();
    seen.dedup();
    let half = samples.all.len() / 2;
    let mut later: Vec<u32> = samples.all.iter().skip(half).map(|sample| sample.worker.pid).collect();
    later.dedup();
    let asked = usize::try_from(changes).unwrap_or(usize::MAX);
    let died =
        samples.log.lines().filter(|line| line.contains("died unasked") || line.contains("out of turn"));
    let died = died.count();
    let what = format!(
        "{changes} new configurations; workers that were seen: {}, in the second half: {}; died: {died}",
        seen.len(),
        later.len()
    );
    Condition { what, holds: changes > 0 && seen.len() <= asked + 1 && later.len() == 1 && died == 0 }
}

fn healthy(samples: &Samples) -> Condition {
    let status = &samples.last;
    let is_complete = status.configuration == status.serving;
    let what = format!("the daemon says of itself that it is well: {:?}", status.degraded);
    Condition { what, holds: status.degraded.is_empty() && is_complete }
}

fn cpu(samples: &Samples) -> String {
    let (Some(first), Some(last)) = (samples.all.first(), samples.all.last()) else { return String::new() };
    let used = last.cpu.saturating_sub(first.cpu).as_secs_f64();
    let share = 100.0 * used / (last.at - first.at).as_secs_f64();
    format!("time of processors: {} s, {} % of one", text(used), text(share))
}
