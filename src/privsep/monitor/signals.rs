//! Signals as something to poll: each writes a byte into a socket pair.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// The installed handlers.
pub(super) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// What was received since the last look.
pub(super) struct Received {
    pub(super) stop: bool,
    pub(super) reload: bool,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, seen) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            flag::register(signal, Arc::clone(seen))?;
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { wake, stop, reload })
    }

    pub(super) fn take(&self) -> Received {
        let mut drained = [0; 64];
        while matches!((&self.wake).read(&mut drained), Ok(1..)) {}
        Received { stop: self.stop.load(Ordering::SeqCst), reload: self.reload.swap(false, Ordering::SeqCst) }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
