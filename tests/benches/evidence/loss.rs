//! Knocks on a network that loses packets, from the client to the server, with up to three tries. By netem where the
//! kernel has it, else by a rule where packets leave the client's interface, which loses the same share of them.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::contenders::{self, Contender};
use crate::knocks::{ensure_closed, fresh_source};
use crate::machine::Machine;
use crate::probe::Probe;
use crate::results::{Results, View, count};
use crate::{Outcome, Setting};

const SUBJECT: &str = "loss";
const TRIES: usize = 3;
/// How long a try is waited for: fwknopd looks at its packets ten times a second.
const PATIENCE: Duration = Duration::from_millis(400);
/// Many wait at the same time, and none is timed.
const EVERY: Duration = Duration::from_millis(5);
const AT_ONCE: usize = 8;
/// Between two knocks, whoever waits: one client's share of handshakes is 64 a second.
const PAUSE: Duration = Duration::from_millis(20);

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    let knocks = setting.pick(80, 16);
    for start in contenders::ALL {
        let mut contender = start(&setting.machines)?;
        ensure_closed(contender.as_ref())?;
        for percent in setting.pick(&[0, 10, 20, 30, 40, 50][..], &[0, 20, 50][..]) {
            let loss = Loss::start(setting.machines.client(), *percent)?;
            let needed = play(contender.as_mut(), knocks)?;
            drop(loss);
            let within = |tries: usize| {
                let opened =
                    needed.iter().filter(|needed| needed.is_some_and(|needed| needed <= tries)).count();
                100.0 * count(opened) / count(knocks)
            };
            let numbers = vec![
                ("packets lost", "of 100", f64::from(*percent)),
                ("opened at once", "of 100", within(1)),
                ("within two tries", "of 100", within(2)),
                ("within three tries", "of 100", within(3)),
            ];
            results.add(SUBJECT, contender.name(), "", numbers)?;
        }
    }
    for (name, y) in [("one", "opened at once"), ("three", "within three tries")] {
        let title = format!("Knocks that open on a lossy network, {y}");
        results.plot(SUBJECT, &View { name, title, x: "packets lost", y, of: |_, _| true })?;
    }
    Ok(())
}

/// How many tries each needed; `None` where three were not enough.
fn play(contender: &mut dyn Contender, knocks: usize) -> Outcome<Vec<Option<usize>>> {
    let port = contender.port();
    let contender = Mutex::new(contender);
    let left = AtomicUsize::new(knocks);
    let work = || -> Outcome<Vec<Option<usize>>> {
        let mut needed = Vec::new();
        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            needed.push(tries(&contender, port)?);
        }
        Ok(needed)
    };
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a try panicked")?).collect::<Outcome<_>>()
    })?;
    Ok(all.into_iter().flatten().collect())
}

fn tries(contender: &Mutex<&mut dyn Contender>, port: u16) -> Outcome<Option<usize>> {
    let from = fresh_source();
    for number in 1..=TRIES {
        let started = {
            // Made and sent in one go: the counters of one client have to arrive in order.
            let mut contender = contender.lock().map_err(|_| "a try panicked")?;
            thread::sleep(PAUSE);
            contender.knock()?.send(from)?;
            Instant::now()
        };
        if (Probe { from, port, every: EVERY, patience: PATIENCE }).opened(started)?.is_some() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// A lossy network; a good one again when it is dropped.
struct Loss<'a>(&'a Machine);

impl<'a> Loss<'a> {
    fn start(client: &'a Machine, percent: u32) -> Outcome<Self> {
        client.run(&format!(
            "tc qdisc add dev eth0 root netem loss {percent}% 2>/dev/null || nft '
             table netdev loss {{
               chain out {{
                 type filter hook egress device \"eth0\" priority 0; policy accept;
                 numgen random mod 100 < {percent} drop
               }}
             }}'"
        ))?;
        Ok(Self(client))
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        let ended = self
            .0
            .run("tc qdisc del dev eth0 root 2>/dev/null; nft delete table netdev loss 2>/dev/null; true");
        if let Err(error) = ended {
            eprintln!("loss: {error}");
        }
    }
}
