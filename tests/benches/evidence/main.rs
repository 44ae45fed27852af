//! Evidence: what knocking costs, for `knockd-rs`, for a floor without cryptography, and for the packages of Debian
//! that do the same, `fwknopd` and `knockd`, with one harness, one kind of traffic and one clock.
//!
//! `tests/evidence` makes the two machines and runs this. Rows of numbers go to the screen as tables, to
//! `results.jsonl` as JSON and to plots; nothing judges them. Ways of packets: `traffic` sends junk, `knocks` and
//! `probe` knock and watch the port, `watch` sees the server's side, `contenders` are who is measured.

#![allow(unreachable_pub, reason = "a program of its own, in several files")]

mod awake;
mod contenders;
mod cost;
mod filter;
mod growth;
mod idle;
mod junk;
mod knocks;
mod latency;
mod loss;
mod machine;
mod probe;
mod results;
mod soak;
mod svg;
mod traffic;
mod watch;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use awake::Awake;
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
    /// How long the soak lasts.
    pub length: Duration,
}

impl Setting {
    /// One of two numbers, by how thorough this run is.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

type Subject = fn(&Setting, &mut Results) -> Outcome<()>;

/// What can be measured, in the order in which it is.
const SUBJECTS: [(&str, Subject); 6] = [
    ("latency", latency::run),
    ("junk", junk::run),
    ("filter", filter::run),
    ("idle", idle::run),
    ("growth", growth::run),
    ("loss", loss::run),
];

/// The one that judges, and takes an hour: only where it is asked for, alone, with results in a folder of its own.
const SOAK: &str = "soak";

const USAGE: &str =
    "usage: evidence SERVER-PID CLIENT-PID PROGRAM FOLDER [--quick] [SUBJECT...] | ... FOLDER soak MINUTES";

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words == [contenders::floor::WORD] {
        return contenders::floor::serve();
    }
    let [server, client, program, folder, rest @ ..] = words.as_slice() else {
        println!("evidence: left out: it needs two machines; `make bench` makes them and runs it");
        return Ok(());
    };
    let machines = Machines::new(server, client, program)?;
    machines.serve(&contenders::PORTS)?;
    machines.enter_client()?;
    machine::allow_many_files()?;
    let folder = PathBuf::from(folder);
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    if let [SOAK, minutes] = rest.as_slice() {
        let minutes: u32 =
            minutes.parse().map_err(|_| format!("{minutes}: not a number of minutes\n{USAGE}"))?;
        let setting = Setting { machines, is_quick: false, length: Duration::from_secs(60) * minutes };
        return soak::run(&setting, &mut Results::new(folder.join(SOAK), false)?);
    }
    let is_quick = rest.contains(&"--quick");
    let chosen: Vec<&str> = rest.into_iter().filter(|word| *word != "--quick").collect();
    measure(&Setting { machines, is_quick, length: Duration::ZERO }, &chosen, folder)
}

/// The subjects that are asked for, or all of them.
fn measure(setting: &Setting, chosen: &[&str], folder: PathBuf) -> Outcome<()> {
    if let Some(unknown) = chosen.iter().find(|word| !SUBJECTS.iter().any(|(name, _)| name == *word)) {
        let names: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no subject {unknown}; there are {}\n{USAGE}", names.join(", ")).into());
    }
    let mut results = Results::new(folder.clone(), setting.is_quick)?;
    for (name, subject) in SUBJECTS {
        if chosen.is_empty() || chosen.contains(&name) {
            let started = std::time::Instant::now();
            // Idle is what it is, and latency is measured both ways.
            let _awake = (!["idle", "latency"].contains(&name)).then(Awake::keep);
            subject(setting, &mut results).map_err(|error| format!("{name}: {error}"))?;
            results.finish(name)?;
            println!("  {name} took {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    println!("\nJSON lines and plots are in {}", folder.display());
    Ok(())
}
