//! Real knocks among packets that open nothing: how many get through, how soon, and what it costs. One contender at a
//! time. Sender, prober and daemon share the processors of one machine, so that the highest rate is one at which the
//! sender itself leaves little to the others.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contenders::{self, Contender, Ours, Settings};
use crate::knocks::{ensure_closed, fresh_source, knock_and_probe};
use crate::probe::COARSE;
use crate::results::{Number, Results, View, count, millis, percentile};
use crate::traffic::{Junk, Rate};
use crate::{Outcome, Setting};

const SUBJECT: &str = "junk";
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(30);
/// Junk alone, before the first knock.
const LEAD: Duration = Duration::from_millis(300);
/// The address of somebody who robbed a client, and sends from one place.
const ROBBER: Ipv4Addr = Ipv4Addr::new(10, 79, 200, 1);

type Make = fn(&mut Ours) -> Outcome<Junk>;

/// What is sent to ours, besides random datagrams.
const KINDS: [(&str, Make); 6] = [
    ("right mac1, one source", |ours| {
        Ok(Junk::datagrams_from(ROBBER, contenders::KNOCKS, &ours.robbed_packets(4096)?))
    }),
    ("right mac1, many sources", |ours| {
        Ok(Junk::datagrams(contenders::KNOCKS, ours.robbed_packets(16_384)?))
    }),
    ("replay", replayed),
    ("SYNs to the knock port", |_| Ok(Junk::syns(50_000, |_| contenders::KNOCKS))),
    ("SYNs in the span, one source", |_| Ok(Junk::syns(1, in_span))),
    ("SYNs in the span, 50,000 sources", |_| Ok(Junk::syns(50_000, in_span))),
];

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    for start in contenders::ALL {
        let mut contender = start(&setting.machines)?;
        rates(setting, results, contender.as_mut(), "random UDP", |contender| contender.random_junk())?;
    }
    for (kind, make) in KINDS {
        // Anew for each kind, so that none inherits tables that another has filled.
        let mut ours = Ours::start(&setting.machines, Settings::default())?;
        rates(setting, results, &mut ours, kind, make)?;
    }
    for (name, y, title) in [
        ("opened", "opened", "Real knocks that open, among junk"),
        ("latency", "median", "From the knock to the first connection, among junk"),
        ("cpu", "cpu", "Time of processors, among junk"),
    ] {
        let random = View {
            name: "",
            title: format!("{title}: random UDP"),
            x: "junk",
            y,
            of: |_, case| case == "random UDP",
        };
        results.plot(SUBJECT, &View { name: &format!("random-{name}"), ..random })?;
        let ours = View {
            name: "",
            title: format!("{title}: knockd-rs, every kind"),
            x: "junk",
            y,
            of: |who, _| who == "knockd-rs",
        };
        results.plot(SUBJECT, &View { name: &format!("kinds-{name}"), ..ours })?;
    }
    Ok(())
}

fn rates<C: Contender + ?Sized>(
    setting: &Setting,
    results: &mut Results,
    contender: &mut C,
    kind: &str,
    make: impl Fn(&mut C) -> Outcome<Junk>,
) -> Outcome<()> {
    let all = [Rate::PerSecond(0), Rate::PerSecond(10_000), Rate::PerSecond(100_000), Rate::Unbounded];
    ensure_closed(contender)?;
    for rate in all {
        if setting.is_quick && rate == Rate::PerSecond(100_000) {
            continue;
        }
        let junk = make(contender)?;
        let numbers = one(contender, junk, rate, setting.pick(30, 5))?;
        results.add(SUBJECT, contender.name(), kind, numbers)?;
    }
    Ok(())
}

fn one<C: Contender + ?Sized>(
    contender: &mut C,
    junk: Junk,
    rate: Rate,
    knocks: usize,
) -> Outcome<Vec<Number>> {
    let (before, lines) = (contender.cost(), contender.running().log_lines());
    let started = Instant::now();
    let stream = junk.stream(rate)?;
    sleep(LEAD);
    let mut opened = Vec::new();
    for _ in 0..knocks {
        sleep(PAUSE);
        opened.extend(knock_and_probe(contender, COARSE, PATIENCE)?.map(|opened| opened.after));
    }
    let sent = stream.stop()?;
    let (after, took) = (contender.cost(), started.elapsed());
    let lines = contender.running().log_lines().saturating_sub(lines);
    let asked = match rate {
        Rate::PerSecond(rate) => f64::from(rate),
        Rate::Unbounded => f64::INFINITY,
    };
    let mut numbers =
        vec![("junk", "packets/s", sent), ("opened", "of 100", 100.0 * count(opened.len()) / count(knocks))];
    let times = [("median", 50), ("p99", 99)];
    numbers.extend(
        times.iter().filter_map(|(name, share)| Some((*name, "ms", millis(percentile(&opened, *share)?)))),
    );
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    numbers.extend([
        ("cpu", "% of one", 100.0 * cpu / took.as_secs_f64()),
        ("rss", "KiB", count(usize::try_from(after.rss)?)),
        ("log", "lines", count(lines)),
    ]);
    numbers.extend((asked > sent * 1.1 && asked.is_finite()).then_some(("asked for", "packets/s", asked)));
    Ok(numbers)
}

/// A packet that has opened already.
fn replayed(ours: &mut Ours) -> Outcome<Junk> {
    let knock = ours.knock()?;
    knock.send(fresh_source())?;
    sleep(PAUSE);
    let packets: Vec<Vec<u8>> = knock.0.into_iter().map(|(_, packet)| packet).collect();
    Ok(Junk::datagrams(contenders::KNOCKS, packets))
}

/// A port of those that sequences are played on by default, 16384 to 49151.
fn in_span(number: u32) -> u16 {
    u16::try_from(16_384 + number % 32_768).unwrap_or(u16::MAX)
}
