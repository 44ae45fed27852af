//! Files of authorities and revocation lists that change: inotify on the directories they are in (`inotify(7)`).
//!
//! What a notice says is not read: any notice means "look again", and looking is reading the files. A file that is
//! replaced by rename, as it should be, and one that is written in place both end in a notice.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::config::CertificateAuthority;

/// The kernel's notices. Without them new files are seen at the next reload.
#[derive(Default)]
pub(super) struct Watch(Option<OwnedFd>);

impl Watch {
    /// Watches all files that `authority` names, and says which directories cannot be watched.
    pub(super) fn open(dir: &Path, authority: Option<&CertificateAuthority>) -> (Self, Vec<String>) {
        let Some(authority) = authority else { return (Self::default(), Vec::new()) };
        let Ok(notices) = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else {
            let complaint =
                "the kernel gives no notice of files that change; reload after a new revocation list";
            return (Self::default(), vec![complaint.to_owned()]);
        };
        let changes =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let files = authority.ca.iter().chain(&authority.crl).map(|file| dir.join(file));
        let above = files.filter_map(|file| file.parent().map(PathBuf::from));
        let dirs: BTreeSet<PathBuf> =
            above.chain(authority.leaves.iter().map(|leaves| dir.join(leaves))).collect();
        let watch = |dir: &PathBuf| {
            let error = add_watch(&notices, dir, changes | WatchFlags::ONLYDIR).err()?;
            Some(format!("{} cannot be watched ({error}); reload after a new revocation list", dir.display()))
        };
        let complaints = dirs.iter().filter_map(watch).collect();
        (Self(Some(notices)), complaints)
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Reads all notices that are there; whether there was one.
    pub(super) fn changed(&self) -> bool {
        let Some(notices) = &self.0 else { return false };
        let (mut any, mut buffer) = (false, [0; 4096]);
        while rustix::io::read(notices, &mut buffer).is_ok_and(|len| len > 0) {
            any = true;
        }
        any
    }
}
