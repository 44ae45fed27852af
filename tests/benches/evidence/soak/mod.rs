//! The soak: the daemon for an hour among junk of every kind, while real clients knock by every method, grants end and
//! configurations change. Unlike the other subjects this one judges, by `verdict`: a condition that does not hold ends
//! the program with an error. `stage` sets the server up, `clients` knock, `noise` disturbs, `changes` are an
//! administrator's, `samples` look at the processes.
//!
//! Configurations change in the second quarter of the run alone, since each change begins a new worker: the worker of
//! the third and the last quarter is one and the same, and has to be as large at its end as when it had filled up.

mod changes;
mod clients;
mod noise;
mod samples;
mod stage;
mod verdict;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use crate::contenders::{Ours, Settings};
use crate::results::Results;
use crate::{Outcome, Setting};

const SUBJECT: &str = "soak";

/// The course of a run, which all threads share.
struct Course {
    started: Instant,
    length: Duration,
    is_over: AtomicBool,
}

impl Course {
    /// Waits, in steps that notice the end. Whether the run goes on.
    fn wait(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            sleep(left.min(Duration::from_millis(200)));
        }
        false
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.started.elapsed() >= self.length
    }

    /// How much of the run is behind, in quarters.
    fn quarter(&self) -> f64 {
        4.0 * self.started.elapsed().as_secs_f64() / self.length.as_secs_f64()
    }
}

pub fn run(setting: &Setting, results: &mut Results) -> Outcome<()> {
    let mut ours = Ours::start(&setting.machines, Settings::default())?;
    stage::set(&setting.machines)?;
    let (junk, malformed) = (noise::mixed(&ours)?, noise::Malformed::new(&setting.machines)?);
    let processes = samples::Processes::of(&setting.machines, &ours)?;
    let tallies = clients::Tallies::default();
    let course = Course { started: Instant::now(), length: setting.length, is_over: AtomicBool::new(false) };
    println!(
        "\nsoak: {} minutes, {} packets of junk a second",
        setting.length.as_secs() / 60,
        noise::RATE + noise::MALFORMED
    );
    let (samples, changes) = scope(|scope| -> Outcome<_> {
        let (machines, course, tallies, ours) = (&setting.machines, &course, &tallies, &mut ours);
        let stream = junk.stream_for(crate::traffic::Rate::PerSecond(noise::RATE), setting.length)?;
        let mut threads: Vec<ScopedJoinHandle<'_, Outcome<()>>> = Vec::new();
        threads.push(scope.spawn(move || malformed.send(course)));
        threads.push(scope.spawn(move || noise::chatter(machines, course)));
        threads.push(scope.spawn(move || clients::wander(ours, course, tallies)));
        for client in clients::ALL {
            threads.push(scope.spawn(move || client.knock_all_the_time(machines, course, tallies)));
        }
        let changes = scope.spawn(move || changes::play(machines, course));
        let samples = samples::watch(&processes, machines, course, tallies);
        course.is_over.store(true, Ordering::Relaxed);
        println!("  {:.0} packets of junk a second were sent, besides malformed ones", stream.stop()?);
        for thread in threads {
            thread.join().map_err(|_| "a part of the soak panicked")??;
        }
        Ok((samples?, changes.join().map_err(|_| "the changes panicked")??))
    })?;
    samples.note(results)?;
    tallies.note(results)?;
    samples.plot(results)?;
    results.finish(SUBJECT)?;
    verdict::judge(&samples, &tallies, changes)
}
