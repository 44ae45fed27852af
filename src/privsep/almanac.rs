//! The almanac: a thread of the worker that computes the codes of `syn` ahead of time, so that the packet's way never
//! waits for them.
//!
//! It is there only where a profile knocks with SYNs. It wakes up once in a step, some seconds before the next one, and
//! whenever the worker finds that its clock has jumped and tables are missing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How many tables lie ready at most: those of the live steps, and the next.
const READY: usize = 4;

/// Where tables lie until the worker takes them. A worker that sleeps, because nobody knocks, takes none: the newest
/// push the oldest out, so that what lies here stays good and does not grow.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Table>>>);

impl Shelf {
    fn put(&self, table: Table) {
        let mut tables = self.lock();
        tables.retain(|known| known.step() != table.step());
        tables.push(table);
        let surplus = tables.len().saturating_sub(READY);
        tables.drain(..surplus);
    }

    fn take(&self) -> Vec<Table> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's end.
pub(super) struct Almanac {
    orders: Sender<u64>,
    shelf: Shelf,
    /// Told of after each table that was put on the shelf.
    news: Receiver<()>,
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
        let (told, news) = sync_channel(1);
        let shelf = Shelf::default();
        let theirs = shelf.clone();
        std::thread::Builder::new().name("almanac".into()).spawn(move || {
            let book = Book::new(&server, &members);
            drop((server, members));
            keep(&book, &heard, &theirs, &told);
        })?;
        let (begun, now) = (clock::uptime(), clock::wall());
        let almanac = Self { orders, shelf, news, asked: step_of(now) };
        while !listener.missing_steps(now).is_empty() {
            let left = (begun + START_PATIENCE).saturating_sub(clock::uptime());
            if almanac.news.recv_timeout(left).is_err() {
                break;
            }
            almanac.deliver(listener, now);
        }
        Ok(almanac)
    }

    /// Hands the listener what was made since, and asks for what is missing. Costs a look at a queue and a division.
    pub(super) fn turn(&mut self, listener: &mut Listener, now: Timestamp) {
        if self.news.try_recv().is_ok() {
            self.deliver(listener, now);
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

    fn deliver(&self, listener: &mut Listener, now: Timestamp) {
        self.shelf.take().into_iter().for_each(|table| listener.install(table, now));
    }
}

/// Makes the tables around the present step, then each next one before it is needed, until the worker ends.
fn keep(book: &Book, orders: &Receiver<u64>, shelf: &Shelf, told: &SyncSender<()>) {
    let mut around = step_of(clock::wall());
    let mut made: Vec<u64> = Vec::new();
    loop {
        // The present step first: that is what most clients knock in.
        let wanted = [around, around.saturating_sub(1), around + 1];
        made.retain(|step| wanted.contains(step));
        for step in wanted {
            if !made.contains(&step) {
                made.push(step);
                shelf.put(book.table(step));
                // Full means that the worker has not heard of the one before, and it will take both.
                let _ = told.try_send(());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_nobody_knocks_the_newest_tables_lie_ready_and_no_more() {
        let (shelf, book) = (Shelf::default(), Book::new(&KeyPair::from_seed([1; 32]), &[]));
        for step in 0..1000 {
            shelf.put(book.table(step));
        }
        shelf.put(book.table(998));
        let steps: Vec<u64> = shelf.take().iter().map(Table::step).collect();
        assert_eq!(steps, [996, 997, 999, 998]);
        assert!(shelf.take().is_empty());
    }
}
