//! Samples, and how they are printed. Nothing here or in the benchmarks judges a number: a slow machine is no bug.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its share")]

use std::time::{Duration, Instant};

/// Durations of one kind.
#[derive(Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which `percent` of all samples lie: the nearest rank, so that it is one of them.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// One line: median, 99th percentile and the longest.
    pub fn print(&self, name: &str) {
        let [median, late, longest] = [50, 99, 100].map(|percent| micros(self.percentile(percent)));
        println!("  {name:<58} {median:>9} {late:>9} {longest:>9}");
    }

    /// The heading over such lines.
    pub fn heading(title: &str) {
        println!("\n{title}");
        println!("  {:<58} {:>9} {:>9} {:>9}", "", "median", "p99", "longest");
    }
}

/// Runs `work` once for each item, and prints what one run cost on average.
pub fn each<T>(name: &str, items: impl IntoIterator<Item = T>, mut work: impl FnMut(T)) {
    let mut count = 0_u32;
    let started = Instant::now();
    for item in items {
        work(item);
        count += 1;
    }
    let cost = started.elapsed() / count.max(1);
    let rate = 1.0 / cost.as_secs_f64().max(1e-9);
    println!("  {name:<58} {:>9} {rate:>12.0} /s", micros(cost));
}

/// `12.3 us`, with nanoseconds below one.
pub fn micros(duration: Duration) -> String {
    match duration.as_nanos() {
        nanos @ 0..1_000 => format!("{nanos} ns"),
        _ => format!("{:.1} us", duration.as_secs_f64() * 1e6),
    }
}
