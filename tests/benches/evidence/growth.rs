//! What more clients and more grants cost: the start, memory, the way from a knock to the open port, the firewall's part
//! of it, and the round trip of somebody who was let in.

use std::thread::sleep;
use std::time::{Duration, Instant};

use knockd_rs::grant::Uses;
use knockd_rs::knock::{Ask, Wanted};

use crate::contenders::{Contender, Ours, Settings};
use crate::filter::live;
use crate::knocks::{fresh_source, knock_and_probe};
use crate::probe::{FINE, Probe};
use crate::results::{Number, Results, View, count, millis, percentile};
use crate::watch::Watch;
use crate::{Outcome, Setting, cost};

const SUBJECT: &str = "growth";
/// Where the kernel keeps the grants that this makes.
const GRANTS: &str = "set inet knockd-rs grants_v4";
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// Knocks that are measured in each case, in a full run.
const ROUNDS: usize = 50;
/// All that `limits.grants` allows but for those that are measured, the one before them, the one that stays for round
/// trips, and what is left of dividing by five. A set of the kernel has room for one more than the limit.
const FULL: usize = (65_535 - ROUNDS - 2) / 5 * 5;
/// How many knocks are on their way at a time while the table is filled, fewer than the ring holds; each makes five grants.
const FILLING: usize = 200;
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
    for grants in setting.pick(&[0, 1000, 10_000, 30_000, FULL][..], &[0, 1000, 10_000][..]) {
        let started = Instant::now();
        fill(setting, &mut ours, *grants)?;
        let filled = started.elapsed();
        let mut numbers = vec![("grants", "", count(live(setting.machines.server(), GRANTS)?))];
        numbers.extend((*grants > 0).then_some(("filled in", "ms", millis(filled))));
        numbers.extend(measured(setting, &mut ours)?);
        numbers.extend(round_trips(setting, &mut ours)?);
        results.add(SUBJECT, ours.name(), "with grants", numbers)?;
    }
    for (name, x, y, title) in [
        ("profiles-latency", "profiles", "median", "From the knock to the first connection, by profiles"),
        ("profiles-start", "profiles", "start", "From the start of the daemon until it listens, by profiles"),
        ("profiles-memory", "profiles", "pss", "Memory of both processes, by profiles"),
        ("grants-latency", "grants", "median", "From the knock to the first connection, by live grants"),
        (
            "grants-element",
            "grants",
            "packet to element",
            "From the packet to the kernel's element, by live grants",
        ),
        (
            "grants-round-trip",
            "grants",
            "round trip",
            "From a SYN to its answer where a grant is, by live grants",
        ),
        ("grants-memory", "grants", "pss", "Memory of both processes, by live grants"),
    ] {
        results.plot(SUBJECT, &View { name, title: title.to_owned(), x, y, of: |_, _| true })?;
    }
    Ok(())
}

/// Memory, and knocks.
fn measured(setting: &Setting, ours: &mut Ours) -> Outcome<Vec<Number>> {
    let rounds = setting.pick(ROUNDS, 10);
    // Anew each time: the kernel would end one that does not follow while the table is filled (`ENOBUFS`).
    let watch = Watch::start(&setting.machines)?;
    let (mut opened, mut elements) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        sleep(PAUSE);
        watch.forget();
        let after = knock_and_probe(ours, FINE, PATIENCE)?.map(|opened| opened.after);
        let element = watch.packet_to_element();
        // The first one warms up.
        if round > 0 {
            opened.extend(after);
            elements.extend(element);
        }
    }
    let cost::Cost { rss, pss, .. } = ours.cost();
    let mut numbers =
        vec![("rss", "KiB", count(usize::try_from(rss)?)), ("pss", "KiB", count(usize::try_from(pss)?))];
    numbers.extend(middle_and_late(["median", "p99"], &opened));
    numbers.extend(middle_and_late(["packet to element", "element p99"], &elements));
    numbers.push(("opened", "of 100", 100.0 * count(opened.len()) / count(rounds)));
    Ok(numbers)
}

fn middle_and_late(names: [&'static str; 2], samples: &[Duration]) -> Vec<Number> {
    let shares = names.into_iter().zip([50, 99]);
    shares.filter_map(|(name, share)| Some((name, "ms", millis(percentile(samples, share)?)))).collect()
}

fn in_micros((name, _, millis): Number) -> Number {
    (name, "us", millis * 1e3)
}

/// How soon somebody whom a grant lets in is answered: the first packet of each connection is looked up among all grants.
fn round_trips(setting: &Setting, ours: &mut Ours) -> Outcome<Vec<Number>> {
    let from = fresh_source();
    let ports = Wanted::Ports(vec![format!("tcp/{}", ours.port()).parse()?]);
    ours.packet(&Ask { uses: Some(Uses::Many), ports, ..Ask::everything() })?.send(from)?;
    let probe = Probe { from, port: ours.port(), every: FINE, patience: PATIENCE };
    probe.opened(Instant::now())?.ok_or("the port did not open for round trips")?;
    let mut trips = Vec::new();
    for _ in 0..setting.pick(1000, 200) {
        trips.push(probe.round_trip()?);
    }
    let numbers = middle_and_late(["round trip", "round trip p99"], &trips);
    Ok(numbers.into_iter().map(in_micros).collect())
}

/// Knocks until `goal` grants are made, as many at a time as the daemon can take.
fn fill(setting: &Setting, ours: &mut Ours, goal: usize) -> Outcome<()> {
    let started = Instant::now();
    let mut made = live(setting.machines.server(), GRANTS)?;
    // What was lost on the way is knocked for again, up to the last five.
    while made + 5 <= goal {
        if started.elapsed() > TO_FILL {
            return Err(format!("{made} grants in place of {goal} after {TO_FILL:?}").into());
        }
        for batch in batches((goal - made) / 5) {
            for _ in 0..batch {
                ours.five_grants()?.send(fresh_source())?;
            }
            // Longer than the daemon takes for as many.
            sleep(Duration::from_millis(100));
        }
        made = live(setting.machines.server(), GRANTS)?;
    }
    Ok(())
}

/// So many in parts of [`FILLING`] at most.
fn batches(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(FILLING).map(move |begun| (count - begun).min(FILLING))
}
