//! An administrator who adds a client and removes it again and reloads, in the second quarter of the run.

use std::time::Duration;

use super::Course;
use crate::Outcome;
use crate::machine::Machines;

/// How many rounds of changes fit in their quarter.
const ROUNDS: u32 = 8;

/// Plays them: how many new configurations the daemon was given.
pub(super) fn play(machines: &Machines, course: &Course) -> Outcome<u64> {
    let pause = course.length / 4 / (ROUNDS + 1);
    let mut changes = 0;
    while course.wait(Duration::from_millis(100)) && course.quarter() < 1.0 {}
    while course.quarter() < 1.9 && course.wait(pause.min(course.length / 40)) {
        for command in [
            "knockd-rs profile add guest --open tcp/2222 --out /root/guest.knock --host 10.77.0.1",
            "knockd-rs profile remove guest && rm -f /root/guest.knock",
            "knockd-rs reload",
        ] {
            machines.server().run(command)?;
            changes += 1;
        }
    }
    Ok(changes)
}
