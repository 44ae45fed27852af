//! Who is measured. Each guards a port of its own, so that all of them can run beside one another.

pub mod floor;
mod fwknop;
mod knockd;
mod ours;

use crate::knocks::Knock;
use crate::machine::{Machines, Running};
use crate::traffic::Junk;
use crate::{Outcome, cost};

pub use ours::{KNOCKS, Ours, Settings};

/// The guarded ports, in the order of [`all`].
pub const PORTS: [u16; 4] = [22, 23, 25, 26];

/// A daemon that runs, and how to knock at it.
pub trait Contender: Send {
    /// What it is called in tables.
    fn name(&self) -> &'static str;
    /// The port that it guards.
    fn port(&self) -> u16;
    /// The program.
    fn running(&self) -> &Running;
    /// A knock that was not sent before.
    fn knock(&mut self) -> Outcome<Knock>;
    /// Datagrams that look like its knocks and are none.
    fn random_junk(&self) -> Outcome<Junk>;

    /// What its processes use.
    fn cost(&self) -> cost::Cost {
        cost::of(&self.running().processes())
    }
}

/// The command in front of a daemon that gives it the niceness of the shipped unit: for ours, and for the floor.
fn as_nice_as_the_unit() -> Outcome<String> {
    let unit = include_str!("../../../../systemd/knockd-rs.service");
    let nice = unit.lines().find_map(|line| line.strip_prefix("Nice=")).ok_or("the unit has no Nice=")?;
    Ok(format!("nice -n {nice}"))
}

/// Starts one of them.
pub type Start = fn(&Machines) -> Outcome<Box<dyn Contender>>;

/// All of them, ours first.
pub const ALL: [Start; 4] = [ours::start, floor::start, fwknop::start, knockd::start];

/// The floor.
pub const FLOOR: Start = floor::start;

/// Starts all of them.
pub fn all(machines: &Machines) -> Outcome<Vec<Box<dyn Contender>>> {
    ALL.iter().map(|start| start(machines)).collect()
}
