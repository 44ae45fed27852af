//! How many connections there are, and a bell that rings when one ends or a signal arrives.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// Something to poll, which others can make ready.
#[derive(Debug)]
pub(super) struct Bell {
    heard: UnixStream,
    rope: Arc<UnixStream>,
    stop: Arc<AtomicBool>,
}

impl Bell {
    /// Rung by SIGTERM and SIGINT from now on.
    pub(super) fn install() -> io::Result<Self> {
        let (heard, rope) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The second one ends the process, whatever it waits for.
            flag::register_conditional_default(signal, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            pipe::register(signal, rope.try_clone()?)?;
        }
        Ok(Self { heard, rope: Arc::new(rope), stop })
    }

    /// Makes it quiet; says whether the process is to end.
    pub(super) fn silence(&self) -> bool {
        let mut drained = [0; 256];
        while matches!((&self.heard).read(&mut drained), Ok(1..)) {}
        self.stop.load(Ordering::SeqCst)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}

/// Room for so many connections.
#[derive(Debug)]
pub(super) struct Slots {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    pub(super) fn has_room(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
    }

    /// Takes one, until it is dropped; then the bell rings. Only the thread that polls takes any.
    pub(super) fn take(&self, bell: &Bell) -> Slot {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Slot { taken: Arc::clone(&self.taken), rope: Arc::clone(&bell.rope) }
    }
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Slot {
    taken: Arc<AtomicUsize>,
    rope: Arc<UnixStream>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        // A bell that rings already is heard as well.
        let _ = (&*self.rope).write(&[1]);
    }
}
