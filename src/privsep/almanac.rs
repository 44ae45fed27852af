//! The almanac: a thread of the worker that computes the codes of `syn` ahead of time, so that the packet's way never
//! waits for them.
//!
//! It is there only where a profile knocks with SYNs. It wakes up once in a step, some seconds before the next one, and
//! whenever the worker finds that its clock has jumped and tables are missing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::clock;
use crate::crypto::KeyPair;
use crate::knock::Listener;
use crate::knock::syn::{Book, Member, STEP, Slot, Table, step_of};
use crate::time::Timestamp;

/// How long before a step its table, and that of the step after it, are made.
const AHEAD: Duration = Duration::from_secs(5);
/// How long the start may wait for the first tables: those of a few thousand clients are there by then. With more,
/// SYNs are heard a little later than datagrams.
const START_PATIENCE: Duration = Duration::from_millis(300);

/// The worker's end.
pub(super) struct Almanac {
    orders: Sender<u64>,
    tables: Receiver<Table>,
    /// The last step that was asked for, lest every packet asks again.
    asked: u64,
}

impl Almanac {
    /// Starts the thread, and gives the listener the tables that are made soon.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(server: KeyPair, members: Vec<Member>, listener: &mut Listener) -> io::Result<Self> {
        let (orders, heard) = channel();
        let (made, tables) = channel();
        std::thread::Builder::new().name("almanac".into()).spawn(move || {
            let book = Book::new(&server, &members);
            drop((server, members));
            keep(&book, &heard, &made);
        })?;
        let mut almanac = Self { orders, tables, asked: 0 };
        let (begun, now) = (clock::uptime(), clock::wall());
        almanac.asked = step_of(now);
        while !listener.missing_steps(now).is_empty() {
            let left = (begun + START_PATIENCE).saturating_sub(clock::uptime());
            let Ok(table) = almanac.tables.recv_timeout(left) else { break };
            listener.install(table, now);
        }
        Ok(almanac)
    }

    /// Hands the listener what was made since, and asks for what is missing. Costs a look at a queue and a division.
    pub(super) fn turn(&mut self, listener: &mut Listener, now: Timestamp) {
        for table in self.tables.try_iter() {
            listener.install(table, now);
        }
        let step = step_of(now);
        if step != self.asked {
            self.asked = step;
            if !listener.missing_steps(now).is_empty() {
                // The thread ends with this process alone.
                let _ = self.orders.send(step);
            }
        }
    }
}

/// Makes the tables around the present step, then each next one before it is needed, until the worker ends.
fn keep(book: &Book, orders: &Receiver<u64>, tables: &Sender<Table>) {
    let mut around = step_of(clock::wall());
    let mut made: Vec<u64> = Vec::new();
    loop {
        // The present step first: that is what most clients knock in.
        let wanted = [around, around.saturating_sub(1), around + 1];
        made.retain(|step| wanted.contains(step));
        for step in wanted {
            if !made.contains(&step) {
                made.push(step);
                if tables.send(book.table(step)).is_err() {
                    return;
                }
            }
        }
        let now = clock::wall();
        let due = Slot { step: around + 1, slot: 0 }.counter().saturating_sub(AHEAD);
        // A clock that was set back does not make this sleep for longer than a step.
        match orders.recv_timeout(due.since(now).min(STEP)) {
            Ok(step) => {
                made.clear();
                around = step;
            }
            Err(RecvTimeoutError::Timeout) => around = step_of(clock::wall().saturating_add(AHEAD)),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
