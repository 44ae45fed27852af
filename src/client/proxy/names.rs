//! The addresses of servers' names, kept for a minute. The resolver is asked on threads of its own, so that one that
//! does not answer holds up nobody but those who need the answer, and those for a moment only.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(60);
/// How long one is that there is no address: a network may come back at any time.
const MISSING: Duration = Duration::from_secs(5);
/// How long an answer that nobody asks for is kept.
const KEPT: Duration = Duration::from_secs(600);
/// The resolver's own threads; glibc wants room for what its modules do.
const STACK: usize = 256 << 10;

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<HashMap<String, Known>>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Option<Instant>,
    is_asked: bool,
}

impl Known {
    fn is_within(&self, age: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() < age)
    }
}

impl Names {
    /// Has the resolver asked where that is needed, without waiting for it.
    pub(super) fn ask(self: &Arc<Self>, host: &str) {
        let mut known = self.lock();
        known.retain(|_, known| known.is_asked || known.is_within(KEPT));
        let entry = known.entry(host.to_owned()).or_default();
        let good = if entry.addresses.is_empty() { MISSING } else { FRESH };
        if entry.is_asked || entry.is_within(good) {
            return;
        }
        entry.is_asked = true;
        drop(known);
        let (all, name) = (Arc::clone(self), host.to_owned());
        let asked = thread::Builder::new().name("resolver".into()).stack_size(STACK).spawn(move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            all.learn(&name, found);
        });
        if asked.is_err() {
            self.learn(host, Vec::new());
        }
    }

    /// The addresses of a host, waited for until then; those of before, or none, when no answer came.
    pub(super) fn addresses(self: &Arc<Self>, host: &str, until: Instant) -> Vec<SocketAddr> {
        self.ask(host);
        let mut known = self.lock();
        loop {
            let Some(entry) = known.get(host) else { return Vec::new() };
            let left = until.saturating_duration_since(Instant::now());
            if !entry.is_asked || left.is_zero() {
                return entry.addresses.clone();
            }
            known = self.answered.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has the resolver asked again the next time.
    pub(super) fn doubt(&self, host: &str) {
        if let Some(entry) = self.lock().get_mut(host) {
            entry.since = None;
        }
    }

    fn learn(&self, host: &str, addresses: Vec<SocketAddr>) {
        let mut known = self.lock();
        known.insert(host.to_owned(), Known { addresses, since: Some(Instant::now()), is_asked: false });
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_a_minute() {
        let names = Arc::new(Names::default());
        let soon = || Instant::now() + Duration::from_secs(5);
        let found = names.addresses("127.0.0.1", soon());
        assert_eq!(found, ["127.0.0.1:0".parse().unwrap()]);
        let since = |names: &Names| names.lock().get("127.0.0.1").and_then(|known| known.since);
        let before = since(&names);
        names.addresses("127.0.0.1", soon());
        assert_eq!(since(&names), before);
        names.doubt("127.0.0.1");
        names.addresses("127.0.0.1", soon());
        assert!(since(&names) > before);
    }

    #[test]
    fn that_a_name_has_no_address_is_not_believed_for_long() {
        let names = Arc::new(Names::default());
        let ago = |age| Known { since: Instant::now().checked_sub(age), ..Known::default() };
        let soon = || Instant::now() + Duration::from_secs(5);
        names.lock().insert("127.0.0.1".into(), ago(MISSING / 2));
        assert_eq!(names.addresses("127.0.0.1", soon()), []);
        names.lock().insert("127.0.0.1".into(), ago(MISSING));
        assert_eq!(names.addresses("127.0.0.1", soon()), ["127.0.0.1:0".parse().unwrap()]);
    }

    #[test]
    fn who_does_not_wait_is_told_what_was_known_before() {
        let names = Arc::new(Names::default());
        names.lock().insert("slow".into(), Known { is_asked: true, ..Known::default() });
        assert_eq!(names.addresses("slow", Instant::now()), []);
        let waiting = {
            let names = Arc::clone(&names);
            thread::spawn(move || names.addresses("slow", Instant::now() + Duration::from_secs(5)))
        };
        names.learn("slow", vec!["192.0.2.7:0".parse().unwrap()]);
        assert_eq!(waiting.join().unwrap(), ["192.0.2.7:0".parse().unwrap()]);
    }
}
