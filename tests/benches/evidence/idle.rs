//! What costs while nobody knocks: time and memory, by process. All run beside one another through the same minute.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::results::{Results, count};
use crate::{Outcome, Setting, contenders, cost};

/// For starting to be over.
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    let all = contenders::all(&setting.machines)?;
    sleep(SETTLE);
    let processes: Vec<Vec<u32>> = all.iter().map(|one| one.running().processes()).collect();
    let costs = || -> Vec<Vec<cost::Cost>> {
        processes.iter().map(|pids| pids.iter().map(|pid| cost::of(&[*pid])).collect()).collect()
    };
    let (before, started) = (costs(), Instant::now());
    sleep(setting.pick(Duration::from_secs(60), Duration::from_secs(10)));
    let (after, seconds) = (costs(), started.elapsed().as_secs_f64());
    for ((one, before), after) in all.iter().zip(&before).zip(&after) {
        for (number, (before, after)) in before.iter().zip(after).enumerate() {
            // The first process is the one that started the others.
            let case = match (one.name(), number) {
                ("knockd-rs", 0) => "monitor",
                ("knockd-rs", _) => "worker",
                _ => "",
            };
            let whole = |number: u64| usize::try_from(number).map(count).unwrap_or_default();
            let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
            let numbers = vec![
                ("wake-ups", "a second", whole(after.switches.saturating_sub(before.switches)) / seconds),
                ("rss", "KiB", whole(after.rss)),
                ("pss", "KiB", whole(after.pss)),
                ("own", "KiB", whole(after.own)),
                ("ring", "KiB", whole(after.rings)),
                ("cpu", "% of one", 100.0 * cpu / seconds),
            ];
            results.add("idle", one.name(), case, numbers)?;
        }
    }
    Ok(())
}
