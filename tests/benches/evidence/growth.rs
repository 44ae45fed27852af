//! What more clients and more grants cost: the start, memory, and the way from a knock to the open port.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contenders::{Contender, Ours, Settings};
use crate::knocks::{fresh_source, knock_and_probe};
use crate::probe::FINE;
use crate::results::{Number, Results, View, count, millis, percentile};
use crate::{Outcome, Setting, cost};

const SUBJECT: &str = "growth";
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// The most that `limits.grants` allows, with room for the knocks that are measured.
const FULL: usize = 65_500;
/// How long the grants may take to be made, all of them.
const TO_FILL: Duration = Duration::from_secs(120);

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    for profiles in setting.pick(&[1_u32, 1000, 100_000][..], &[1, 1000, 20_000][..]) {
        let settings = Settings { others: profiles - 1, ..Settings::default() };
        let mut ours = Ours::start(&setting.machines, settings)?;
        let mut numbers =
            vec![("profiles", "", f64::from(*profiles)), ("start", "ms", millis(ours.start_up))];
        numbers.extend(measured(setting, &mut ours)?);
        results.add(SUBJECT, ours.name(), "with profiles", numbers)?;
    }
    let settings = Settings { handshakes: Some(65_535), ..Settings::default() };
    let mut ours = Ours::start(&setting.machines, settings)?;
    let mut made = 0;
    for grants in setting.pick(&[0, 1000, 10_000, FULL][..], &[0, 1000, 10_000][..]) {
        let started = Instant::now();
        made = fill(setting, &mut ours, made, *grants)?;
        let filled = started.elapsed();
        let mut numbers = vec![("grants", "", count(live(setting)?))];
        numbers.extend((made > 0).then_some(("filled in", "ms", millis(filled))));
        numbers.extend(measured(setting, &mut ours)?);
        results.add(SUBJECT, ours.name(), "with grants", numbers)?;
    }
    for (name, x, y, title) in [
        ("profiles-latency", "profiles", "median", "From the knock to the first connection, by profiles"),
        ("profiles-start", "profiles", "start", "From the start of the daemon until it listens, by profiles"),
        ("profiles-memory", "profiles", "pss", "Memory of both processes, by profiles"),
        ("grants-latency", "grants", "median", "From the knock to the first connection, by live grants"),
        ("grants-memory", "grants", "pss", "Memory of both processes, by live grants"),
    ] {
        results.plot(SUBJECT, &View { name, title: title.to_owned(), x, y, of: |_, _| true })?;
    }
    Ok(())
}

/// Memory, and knocks.
fn measured(setting: &Setting, ours: &mut Ours) -> Outcome<Vec<Number>> {
    let rounds = setting.pick(50, 10);
    let mut opened = Vec::new();
    for round in 0..=rounds {
        sleep(PAUSE);
        let after = knock_and_probe(ours, FINE, PATIENCE)?.map(|opened| opened.after);
        // The first one warms up.
        opened.extend(after.filter(|_| round > 0));
    }
    let cost::Cost { rss, pss, .. } = ours.cost();
    let mut numbers =
        vec![("rss", "KiB", count(usize::try_from(rss)?)), ("pss", "KiB", count(usize::try_from(pss)?))];
    let times = [("median", 50), ("p99", 99)];
    numbers.extend(
        times.iter().filter_map(|(name, share)| Some((*name, "ms", millis(percentile(&opened, *share)?)))),
    );
    numbers.push(("opened", "of 100", 100.0 * count(opened.len()) / count(rounds)));
    Ok(numbers)
}

/// Knocks until `goal` grants are made, five at a time, none faster than they are taken.
fn fill(setting: &Setting, ours: &mut Ours, mut made: usize, goal: usize) -> Outcome<usize> {
    let started = Instant::now();
    while made < goal && started.elapsed() < TO_FILL {
        let batch = (goal - made).div_ceil(5).min(100);
        for _ in 0..batch {
            ours.five_grants()?.send(fresh_source())?;
        }
        made += 5 * batch;
        // A look at the table every now and then is as good as an answer to each, and costs less.
        sleep(Duration::from_millis(20));
    }
    while live(setting)? + 50 < goal && started.elapsed() < TO_FILL {
        sleep(Duration::from_millis(300));
        if live(setting)? + 50 >= goal {
            break;
        }
        ours.five_grants()?.send(fresh_source())?;
    }
    Ok(made)
}

/// How many grants the kernel holds.
fn live(setting: &Setting) -> Outcome<usize> {
    let listed = setting.machines.server().run("nft list table inet knockd-rs | grep -o expires | wc -l")?;
    Ok(listed.trim().parse()?)
}
