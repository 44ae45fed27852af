//! Other agents for the same server: the last one to end is the one that closes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use crate::client::server::Server;
use crate::client::store::make_private_dir;
use crate::files::FileError;

/// A lock that all agents for one server share.
pub(super) struct Company(OwnedFd);

impl Company {
    /// Joins those that run.
    ///
    /// # Errors
    /// [`FileError`] when the file cannot be made.
    pub(super) fn join(server: &Server) -> Result<Self, FileError> {
        make_private_dir(&server.dirs.state)?;
        let path: PathBuf = server.dirs.agent_file(&server.name);
        let fault = |errno: rustix::io::Errno| FileError { path: path.clone(), fault: errno.into() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(fault)?;
        // Who holds it alone is about to end.
        flock(&file, FlockOperation::LockShared).map_err(fault)?;
        Ok(Self(file))
    }

    /// Leaves, and says whether nobody else is left: then those that begin wait until this is dropped, so that what they
    /// open is not closed. Of two that leave at once the later one is alone: a lock that cannot be made exclusive is
    /// lost by the try (`flock(2)`).
    pub(super) fn leave(&self) -> bool {
        flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_agents_the_second_to_end_is_the_last() {
        let home = tempfile::tempdir().unwrap();
        let server = crate::client::store::example(home.path());
        let (one, other) = (Company::join(&server).unwrap(), Company::join(&server).unwrap());
        assert!(!one.leave());
        assert!(other.leave());
    }

    #[test]
    fn an_agent_that_begins_waits_until_the_last_one_has_closed() {
        let home = tempfile::tempdir().unwrap();
        let server = crate::client::store::example(home.path());
        let last = Company::join(&server).unwrap();
        let file = std::fs::File::open(server.dirs.agent_file(&server.name)).unwrap();
        let join = || flock(&file, FlockOperation::NonBlockingLockShared);
        assert!(last.leave());
        assert_eq!(join(), Err(rustix::io::Errno::WOULDBLOCK));
        drop(last);
        join().unwrap();
    }
}
