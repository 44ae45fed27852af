//! What the two processes hold, every few seconds, with a line on the screen for each minute.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use knockd_rs::control::Status;

use super::Course;
use super::clients::Tallies;
use crate::contenders::{Contender, Ours};
use crate::machine::Machines;
use crate::results::{Number, Results, View};
use crate::{Outcome, cost};

/// What single samples are filed under.
const SAMPLE: &str = "sample";
const EVERY: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);

/// Where to look.
pub(super) struct Processes {
    monitor: u32,
    log: PathBuf,
}

/// Everything that was seen.
pub(super) struct Samples {
    pub(super) all: Vec<Sample>,
    /// Of each whole minute the lines of the log, and the knocks that were answered.
    pub(super) minutes: Vec<(usize, usize)>,
    /// The last words of the daemon, and its log.
    pub(super) last: Status,
    pub(super) log: String,
    length: Duration,
}

/// At one moment.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    /// Since the start of the run.
    pub(super) at: Duration,
    pub(super) monitor: Held,
    pub(super) worker: Held,
    /// Time of processors, of both and of workers that are gone.
    pub(super) cpu: Duration,
    /// Elements of the sets, by the kernel's list.
    pub(super) elements: usize,
    /// Bytes of the log.
    pub(super) log: u64,
}

/// By one process.
#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) pid: u32,
    pub(super) rss: u64,
    pub(super) pss: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
}

impl Processes {
    pub(super) fn of(machines: &Machines, ours: &Ours) -> Outcome<Self> {
        let monitor = ours.running().processes().first().copied().ok_or("the daemon does not run")?;
        Ok(Self { monitor, log: machines.server().path("/var/log/knockd-rs.log") })
    }

    /// The worker that has been there for the longest, since the next one does not serve yet.
    fn worker(&self) -> Option<u32> {
        let parents = cost::parents();
        parents.iter().filter(|(_, parent)| *parent == self.monitor).map(|(child, _)| *child).min()
    }

    fn sample(&self, machines: &Machines, started: Instant) -> Outcome<Sample> {
        let worker = self.worker().ok_or("the daemon has no worker")?;
        let listed = machines.server().run("nft list table inet knockd-rs | grep -c 'expires' || true")?;
        Ok(Sample {
            at: started.elapsed(),
            monitor: held(self.monitor),
            worker: held(worker),
            cpu: cost::of(&[self.monitor]).cpu + cost::of(&[worker]).cpu,
            elements: listed.trim().parse()?,
            log: fs::metadata(&self.log)?.len(),
        })
    }

    fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

fn held(pid: u32) -> Held {
    let entries = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).map_or(0, Iterator::count);
    let cost::Cost { rss, pss, .. } = cost::of(&[pid]);
    Held { pid, rss, pss, files: entries("fd"), threads: entries("task") }
}

/// Looks until the run is over.
pub(super) fn watch(
    processes: &Processes,
    machines: &Machines,
    course: &Course,
    tallies: &Tallies,
) -> Outcome<Samples> {
    println!(
        "\n  {:>6} {:>8} {:>8} {:>8} {:>8} {:>13} {:>13} {:>6} {:>8} {:>6} {:>8} {:>8}",
        "minute",
        "knocks",
        "retries",
        "unheard",
        "left open",
        "monitor, KiB",
        "worker, KiB",
        "files",
        "elements",
        "log/min",
        "cpu, %",
        "frames/s"
    );
    let mut all = vec![processes.sample(machines, course.started)?];
    let mut minutes = Vec::new();
    let (mut lines, mut answered, mut frames) = (processes.log().lines().count(), 0, frames(machines)?);
    let mut began = *all.first().ok_or("no sample")?;
    while course.wait(EVERY) {
        let sample = processes.sample(machines, course.started)?;
        all.push(sample);
        if sample.at < began.at + MINUTE {
            continue;
        }
        let (total, now, seen) = (tallies.total(), processes.log().lines().count(), self::frames(machines)?);
        minutes.push((now.saturating_sub(lines), total.knocks - total.unanswered - answered));
        let seconds = (sample.at - began.at).as_secs_f64();
        println!(
            "  {:>6.1} {:>8} {:>8} {:>8} {:>8} {:>13} {:>13} {:>6} {:>8} {:>6} {:>8.1} {:>8.0}",
            sample.at.as_secs_f64() / 60.0,
            total.knocks,
            total.retries,
            total.unanswered,
            total.stayed_open,
            format!("{} {}", sample.monitor.rss, sample.monitor.pss),
            format!("{} {}", sample.worker.rss, sample.worker.pss),
            format!("{}+{}", sample.monitor.files, sample.worker.files),
            sample.elements,
            now.saturating_sub(lines),
            100.0 * sample.cpu.saturating_sub(began.cpu).as_secs_f64() / seconds,
            whole(seen.saturating_sub(frames)) / seconds,
        );
        (lines, answered, frames, began) = (now, total.knocks - total.unanswered, seen, sample);
    }
    Ok(Samples { all, minutes, last: status(machines)?, log: processes.log(), length: course.length })
}

fn status(machines: &Machines) -> Outcome<Status> {
    Ok(serde_json::from_str(&machines.server().run("knockd-rs status --json")?)?)
}

/// How many frames the workers were given so far.
fn frames(machines: &Machines) -> Outcome<u64> {
    let counters = status(machines)?.counters;
    Ok(counters.iter().find(|(name, _)| name == "frames").map_or(0, |(_, count)| *count))
}

impl Samples {
    /// Of one quarter of the run, 1 to 4, the median of what `of` says.
    pub(super) fn median(&self, quarter: u32, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.quarter(quarter).map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    /// The most that `of` says in one quarter.
    pub(super) fn most(&self, quarter: u32, of: impl Fn(&Sample) -> f64) -> f64 {
        self.quarter(quarter).map(of).fold(0.0, f64::max)
    }

    fn quarter(&self, quarter: u32) -> impl Iterator<Item = &Sample> {
        let part = self.length / 4;
        self.all.iter().filter(move |sample| sample.at >= part * (quarter - 1) && sample.at < part * quarter)
    }

    /// Rows of numbers: each sample in the JSON lines, each quarter in the table.
    pub(super) fn note(&self, results: &mut Results) -> Outcome<()> {
        for sample in &self.all {
            let mut numbers = vec![("minute", "min", sample.at.as_secs_f64() / 60.0)];
            numbers.extend(MEASURES.map(|(name, unit, of)| (name, unit, of(sample))));
            numbers.push(("cpu so far", "s", sample.cpu.as_secs_f64()));
            results.add(SAMPLE, "knockd-rs", "", numbers)?;
        }
        for (quarter, case) in (1..).zip(["first quarter", "second", "third", "last quarter"]) {
            let numbers: Vec<Number> =
                MEASURES.iter().map(|(name, unit, of)| (*name, *unit, self.median(quarter, of))).collect();
            results.add("processes", "median of samples", case, numbers)?;
        }
        results.finish("processes")
    }

    /// Along the minutes.
    pub(super) fn plot(&self, results: &Results) -> Outcome<()> {
        for (name, y, title) in [
            ("monitor", "monitor rss", "Memory of the monitor through the soak"),
            ("worker", "worker rss", "Memory of the worker through the soak"),
            ("elements", "elements", "Elements of the kernel's sets through the soak"),
            ("log", "log", "Bytes of the log through the soak"),
        ] {
            let view = View { name, title: title.to_owned(), x: "minute", y, of: |_, _| true };
            results.plot(SAMPLE, &view)?;
        }
        Ok(())
    }
}

type Measure = (&'static str, &'static str, fn(&Sample) -> f64);

/// What is compared and plotted.
const MEASURES: [Measure; 10] = [
    ("monitor rss", "KiB", |sample| whole(sample.monitor.rss)),
    ("monitor pss", "KiB", |sample| whole(sample.monitor.pss)),
    ("worker rss", "KiB", |sample| whole(sample.worker.rss)),
    ("worker pss", "KiB", |sample| whole(sample.worker.pss)),
    ("monitor files", "", |sample| crate::results::count(sample.monitor.files)),
    ("worker files", "", |sample| crate::results::count(sample.worker.files)),
    ("monitor threads", "", |sample| crate::results::count(sample.monitor.threads)),
    ("worker threads", "", |sample| crate::results::count(sample.worker.threads)),
    ("elements", "", |sample| crate::results::count(sample.elements)),
    ("log", "KiB", |sample| whole(sample.log / 1024)),
];

#[expect(clippy::cast_precision_loss, reason = "what is counted here lies far below 2^52")]
pub(super) fn whole(number: u64) -> f64 {
    number as f64
}
