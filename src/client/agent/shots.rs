//! One knock on its way: its packets, and when each is due.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::job::Job;
use crate::client::knock::{KnockError, Knocker, Pace, Salvo, Way};
use crate::clock;
use crate::knock::Ask;
use crate::text::Span;

/// A knock and its copies.
pub(super) struct Shots {
    salvo: Box<dyn Salvo>,
    way: Way,
    lasts: Span,
    began: Duration,
    due: VecDeque<Duration>,
}

impl Shots {
    /// Makes the packets of a knock, whose grant will last this long.
    pub(super) fn load(
        job: &Job,
        address: SocketAddr,
        way: Way,
        ask: &Ask,
        lasts: Span,
        now: Duration,
    ) -> Result<Self, KnockError> {
        let mut knocker = Knocker::at(&job.server, vec![address], clock::wall)?;
        knocker.way = way.clone();
        let salvo = knocker.salvo(ask, &[address])?;
        let due = salvo.copies(Pace::Usual).iter().map(|at| now + *at).collect();
        Ok(Self { salvo, way, lasts, began: now, due })
    }

    /// When the next copy is due; `None` after the last.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.front().copied()
    }

    /// Sends what is due.
    pub(super) fn send(&mut self, now: Duration) -> Result<(), KnockError> {
        while self.due.front().is_some_and(|due| *due <= now) {
            self.due.pop_front();
            self.salvo.send()?;
        }
        Ok(())
    }

    /// How long the knock takes before it can have an effect.
    pub(super) fn takes(&self) -> Duration {
        self.salvo.takes()
    }

    /// How.
    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// How long the grant lasts.
    pub(super) fn lasts(&self) -> Span {
        self.lasts
    }

    /// When the first packet was due: no grant is older.
    pub(super) fn began(&self) -> Duration {
        self.began
    }
}
