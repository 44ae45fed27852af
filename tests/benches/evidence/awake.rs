//! Processors that do not sleep while something is measured. A processor that has nothing to do is halted, and on a
//! virtual machine each halt and each waking goes through the hypervisor: several times what a knock costs, and more for
//! whoever wakes another process. What is left out is the machine's, not the program's, so that `latency` is measured
//! both ways.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

/// The kernel keeps the promise of its holder as long as it is open (`Documentation/power/pm_qos_interface.rst`).
const LATENCY: &str = "/dev/cpu_dma_latency";

/// While this lives, idle processors poll.
pub struct Awake {
    _promise: File,
}

impl Awake {
    /// Asks for a wake-up latency of 0 us. `None`, and a line on the screen, where the kernel has no such thing.
    pub fn keep() -> Option<Self> {
        let ask = || -> io::Result<Self> {
            let mut promise = OpenOptions::new().write(true).open(LATENCY)?;
            promise.write_all(&0_i32.to_ne_bytes())?;
            Ok(Self { _promise: promise })
        };
        ask().inspect_err(|error| println!("  idle processors are halted: {LATENCY}: {error}")).ok()
    }
}
