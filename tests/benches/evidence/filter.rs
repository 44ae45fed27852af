//! The packet filter as sKnock was evaluated (Sel, Totakura and Carle, "sKnock: Port-Knocking for Masses", 2016): knocks
//! alone, and one knock in a hundred packets of which 5 are large and 94 small. How many of them open, counted in the
//! kernel, and what a packet that was sent costs the daemon; what the kernel spends on it before is not in these numbers.

use std::thread::sleep;
use std::time::Duration;

use crate::contenders::{self, Contender, Ours, Settings};
use crate::knocks::fresh_source;
use crate::machine::Machine;
use crate::results::{Number, Results, View, count};
use crate::traffic::{Junk, Rate, random_bytes, stranger};
use crate::{Outcome, Setting, cost};

const SUBJECT: &str = "filter";

/// What is sent.
struct Traffic {
    name: &'static str,
    /// The lengths of large and of small payloads; `None` where there is nothing but knocks.
    rest: Option<[usize; 2]>,
    rates: &'static [Rate],
}

const KNOCKS_ALONE: &str = "knocks alone";

const TRAFFIC: [Traffic; 3] = [
    Traffic {
        name: KNOCKS_ALONE,
        rest: None,
        rates: &[
            Rate::PerSecond(100),
            Rate::PerSecond(500),
            Rate::PerSecond(1000),
            Rate::PerSecond(2000),
            Rate::PerSecond(4000),
            Rate::Unbounded,
        ],
    },
    // Lengths that no knock has: the kernel keeps them from the daemon.
    Traffic { name: "1 % knocks, rest of other lengths", rest: Some([1400, 64]), rates: &MIXED },
    // The shortest and the longest of knocks: the daemon has to judge each.
    Traffic { name: "1 % knocks, rest as long as knocks", rest: Some([1232, 176]), rates: &MIXED },
];

const MIXED: [Rate; 5] = [
    Rate::PerSecond(1000),
    Rate::PerSecond(10_000),
    Rate::PerSecond(50_000),
    Rate::PerSecond(100_000),
    Rate::Unbounded,
];

/// In a hundred packets.
const LARGE: usize = 5;
/// How many packets are sent where as many are sent as can be: knocks alone, and all.
const MOST: [usize; 2] = [10_000, 400_000];
/// How long a grant lasts that nobody uses: all of them have to be counted before.
const PATIENCE: Duration = Duration::from_secs(8);

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    for traffic in &TRAFFIC {
        for rate in traffic.rates {
            if setting.is_quick && matches!(rate, Rate::PerSecond(500 | 2000 | 50_000)) {
                continue;
            }
            // Anew each time, so that none inherits grants.
            let settings = Settings { handshakes: Some(65_535), ..Settings::default() };
            let mut ours = Ours::start(&setting.machines, settings)?;
            let numbers = one(setting, &mut ours, "table inet knockd-rs", traffic, *rate)?;
            results.add(SUBJECT, ours.name(), traffic.name, numbers)?;
            drop(ours);
            let mut floor = (contenders::FLOOR)(&setting.machines)?;
            let numbers = one(setting, floor.as_mut(), "table inet floor", traffic, *rate)?;
            results.add(SUBJECT, floor.name(), traffic.name, numbers)?;
        }
    }
    let opened = "Knocks that open, by packets a second";
    let cpu = "Time of processors that the daemon takes for a packet";
    for view in [
        View { name: "opened", title: opened.to_owned(), x: "packets", y: "opened", of: |_, _| true },
        View {
            name: "cpu-knocks",
            title: format!("{cpu}, knocks alone"),
            x: "packets",
            y: "cpu a packet",
            of: |_, case| case == KNOCKS_ALONE,
        },
        View {
            name: "cpu-mixed",
            title: format!("{cpu}, 1 % of them knocks"),
            x: "packets",
            y: "cpu a packet",
            of: |_, case| case != KNOCKS_ALONE,
        },
    ] {
        results.plot(SUBJECT, &view)?;
    }
    Ok(())
}

/// Sends, waits until nothing more is opened, and counts. `place` is where the kernel keeps the grants.
fn one(
    setting: &Setting,
    contender: &mut dyn Contender,
    place: &str,
    traffic: &Traffic,
    rate: Rate,
) -> Outcome<Vec<Number>> {
    let seconds = setting.pick(4, 1);
    let [knocks_alone, mixed] = MOST;
    let most = if traffic.rest.is_some() { mixed } else { knocks_alone };
    let packets = match rate {
        Rate::PerSecond(rate) => usize::try_from(rate)? * seconds,
        Rate::Unbounded => most * seconds / 4,
    };
    let (knocks, sent) = packets_of(contender, traffic, packets)?;
    let processes = contender.running().processes();
    let before = cost::exact_cpu(&processes);
    let a_second = sent.send_once(rate)?;
    let opened = settled(setting.machines.server(), place)?;
    let cpu = cost::exact_cpu(&processes).saturating_sub(before).as_secs_f64();
    let seconds = count(packets) / a_second;
    Ok(vec![
        ("packets", "a second", a_second),
        ("knocks", "a second", count(knocks) / seconds),
        ("opened", "of 100", 100.0 * count(opened) / count(knocks)),
        ("cpu a packet", "us", cpu * 1e6 / count(packets)),
    ])
}

/// How many of them are knocks, each from an address that has not knocked before, and all of them.
fn packets_of(contender: &mut dyn Contender, traffic: &Traffic, packets: usize) -> Outcome<(usize, Junk)> {
    let lengths = traffic.rest.unwrap_or_default();
    let [large, small] =
        lengths.map(|length| (0..64).map(|_| random_bytes(length)).collect::<Outcome<Vec<_>>>());
    let (large, small) = (large?, small?);
    let mut port = 0;
    let mut knocks = 0;
    let mut datagrams = Vec::with_capacity(packets);
    for number in 0..packets {
        let is_knock = traffic.rest.is_none() || number % 100 == 0;
        if is_knock {
            let knock = contender.knock()?.0.pop().ok_or("a knock without a packet")?;
            port = knock.0;
            knocks += 1;
            datagrams.push((fresh_source(), knock.1));
            continue;
        }
        let of = if number % (100 / LARGE) == 10 { &large } else { &small };
        let payload = of.get(number % of.len()).cloned().unwrap_or_default();
        datagrams.push((stranger(u32::try_from(number)?), payload));
    }
    Ok((knocks, Junk::in_order(port, datagrams)))
}

/// How many grants the kernel holds when there are no more to come.
fn settled(server: &Machine, place: &str) -> Outcome<usize> {
    let mut before = None;
    let tries = PATIENCE.as_millis() / 250;
    for _ in 0..tries {
        sleep(Duration::from_millis(250));
        let now = live(server, place)?;
        if before == Some(now) {
            return Ok(now);
        }
        before = Some(now);
    }
    Err(format!("grants in {place} go on being made {PATIENCE:?} after the last packet").into())
}

/// How many grants this table or set of the kernel holds.
pub fn live(server: &Machine, place: &str) -> Outcome<usize> {
    let listed = server.run(&format!("nft list {place} | grep -o expires | wc -l"))?;
    Ok(listed.trim().parse()?)
}
