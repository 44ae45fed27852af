//! Evidence: what knocking costs, for `knockd-rs`, for a floor without cryptography, and for the packages of Debian
//! that do the same, `fwknopd` and `knockd`, with one harness, one kind of traffic and one clock.
//!
//! `tests/evidence` makes the two machines and runs this. Rows of numbers go to the screen as tables, to
//! `results.jsonl` as JSON and to plots; nothing judges them. Ways of packets: `traffic` sends junk, `knocks` and
//! `probe` knock and watch the port, `watch` sees the server's side, `contenders` are who is measured.

#![allow(unreachable_pub, reason = "a program of its own, in several files")]

mod contenders;
mod cost;
mod growth;
mod idle;
mod junk;
mod knocks;
mod latency;
mod loss;
mod machine;
mod probe;
mod results;
mod svg;
mod traffic;
mod watch;

use std::error::Error;
use std::path::PathBuf;

use machine::Machines;
use results::Results;

/// What may go wrong is said and ends the run.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What every subject gets.
pub struct Setting {
    /// The two machines.
    pub machines: Machines,
    /// Fewer rounds and cases.
    pub is_quick: bool,
}

impl Setting {
    /// One of two numbers, by how thorough this run is.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

type Subject = fn(&Setting, &mut Results) -> Outcome<()>;

/// What can be measured, in the order in which it is.
const SUBJECTS: [(&str, Subject); 5] = [
    ("latency", latency::run),
    ("junk", junk::run),
    ("idle", idle::run),
    ("growth", growth::run),
    ("loss", loss::run),
];

const USAGE: &str = "usage: evidence SERVER-PID CLIENT-PID PROGRAM FOLDER [--quick] [SUBJECT...]";

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words == [contenders::floor::WORD] {
        return contenders::floor::serve();
    }
    let [server, client, program, folder, rest @ ..] = words.as_slice() else {
        println!("evidence: left out: it needs two machines; `make bench` makes them and runs it");
        return Ok(());
    };
    let is_quick = rest.iter().any(|word| word == "--quick");
    let chosen: Vec<&String> = rest.iter().filter(|word| *word != "--quick").collect();
    if let Some(unknown) = chosen.iter().find(|word| !SUBJECTS.iter().any(|(name, _)| name == *word)) {
        let names: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no subject {unknown}; there are {}\n{USAGE}", names.join(", ")).into());
    }
    let machines = Machines::new(server, client, program)?;
    machines.serve(&contenders::PORTS)?;
    machines.enter_client()?;
    machine::allow_many_files()?;
    let setting = Setting { machines, is_quick };
    let mut results = Results::new(PathBuf::from(folder), is_quick)?;
    for (name, subject) in SUBJECTS {
        if chosen.is_empty() || chosen.iter().any(|word| *word == name) {
            let started = std::time::Instant::now();
            subject(&setting, &mut results).map_err(|error| format!("{name}: {error}"))?;
            results.finish(name)?;
            println!("  {name} took {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    println!("\nJSON lines and plots are in {folder}");
    Ok(())
}
