//! What the worker counts: frames by the reason they were dropped, knocks by what became of them.
//!
//! One array of numbers and one table of names; the pulse carries the numbers, `status` shows both.
#![forbid(unsafe_code)]

use crate::frame::Refused as FrameRefused;
use crate::knock::Drop;

/// The counters of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

const FRAMES: usize = 0;
const KNOCKS: usize = 1;
const REFUSED: usize = 2;
const NO_CANDIDATE: usize = 3;
const LOST: usize = 4;
const OWN: usize = 5;

/// The names, in the order of the numbers.
#[must_use]
pub fn names() -> Vec<String> {
    let own: [&str; OWN] =
        ["frames", "knocks accepted", "knocks refused", "other ports and lengths", "lost by the kernel"];
    let frames = FrameRefused::ALL.iter().map(|reason| format!("not parsed: {}", reason.name()));
    let drops = Drop::ALL.iter().map(|reason| format!("dropped: {}", reason.name()));
    own.into_iter().map(str::to_owned).chain(frames).chain(drops).collect()
}

impl Default for Counters {
    fn default() -> Self {
        Self(vec![0; names().len()])
    }
}

impl Counters {
    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u64] {
        &self.0
    }

    /// A frame came.
    pub fn frame(&mut self) {
        self.add(FRAMES);
    }

    /// A knock was accepted and passed on.
    pub fn knock(&mut self) {
        self.add(KNOCKS);
    }

    /// An authentic knock was refused.
    pub fn refused(&mut self) {
        self.add(REFUSED);
    }

    /// A datagram that no knock looks like, which the kernel's filter let through.
    pub fn no_candidate(&mut self) {
        self.add(NO_CANDIDATE);
    }

    /// Frames that the kernel dropped because the worker was too slow, altogether.
    pub fn set_lost(&mut self, lost: u64) {
        if let Some(counter) = self.0.get_mut(LOST) {
            *counter = lost;
        }
    }

    /// A frame that is no segment.
    pub fn no_segment(&mut self, reason: FrameRefused) {
        self.add(OWN + reason as usize);
    }

    /// A segment that is no knock.
    pub fn dropped(&mut self, reason: Drop) {
        self.add(OWN + FrameRefused::ALL.len() + reason as usize);
    }

    fn add(&mut self, index: usize) {
        if let Some(counter) = self.0.get_mut(index) {
            *counter = counter.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privsep::message::MAX_COUNTERS;

    #[test]
    fn every_counter_fits_a_pulse_and_has_its_own_place() {
        assert!(names().len() <= MAX_COUNTERS);
        let mut counters = Counters::default();
        counters.frame();
        counters.knock();
        counters.refused();
        counters.no_candidate();
        counters.set_lost(1);
        FrameRefused::ALL.iter().for_each(|reason| counters.no_segment(*reason));
        Drop::ALL.iter().for_each(|reason| counters.dropped(*reason));
        assert!(counters.numbers().iter().all(|number| *number == 1));
    }
}
