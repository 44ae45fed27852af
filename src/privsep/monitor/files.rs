//! Files of authorities and revocation lists that change: inotify on the directories they are in (`inotify(7)`).
//!
//! What a notice says is not read: any notice means "look again", and looking is reading the files. A file that is
//! replaced by rename, as it should be, and one that is written in place both end in a notice.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let files = authority.ca.iter().chain(&authority.crl).chain(&authority.leaves);
        let above = files.flat_map(|file| directories(&dir.join(file)));
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

/// When to look at the files again. Whoever may write one of them could otherwise keep the daemon at it.
#[derive(Default)]
pub(super) struct Looks {
    /// Before then there is none.
    earliest: Duration,
    due: Option<Duration>,
    /// When something new was seen last, and how often a notice followed at once.
    seen: Duration,
    hurried: u32,
}

/// The least time from a look that found something new to the next one; it doubles, six times, as long as notices
/// follow at once.
const PAUSE: Duration = Duration::from_secs(1);
/// The same from a look that found nothing.
const SHORT: Duration = Duration::from_millis(50);
/// What is at once.
const AT_ONCE: Duration = Duration::from_millis(200);

impl Looks {
    /// Takes note that something has changed.
    pub(super) fn noticed(&mut self, uptime: Duration) {
        if self.due.is_none() {
            self.due = Some(self.earliest.max(uptime));
            let follows = self.seen > Duration::ZERO && uptime.saturating_sub(self.seen) < AT_ONCE;
            self.hurried = if follows { (self.hurried + 1).min(6) } else { 0 };
            if follows {
                self.due = self.due.max(Some(self.seen + PAUSE * 2u32.pow(self.hurried - 1)));
            }
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, uptime: Duration) -> bool {
        self.due.is_some_and(|due| due <= uptime)
    }

    /// Takes note of a look, and whether it found something new.
    pub(super) fn looked(&mut self, is_new: bool, uptime: Duration) {
        self.due = None;
        if is_new {
            self.seen = uptime;
        }
        self.earliest = uptime + if is_new { PAUSE } else { SHORT };
    }

    /// When the next look is.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }
}

/// The directories in which a change can make this path another file: its own, those of the symbolic links that it
/// leads over, and that of the file at the end.
fn directories(path: &Path) -> Vec<PathBuf> {
    const LINKS: usize = 8;
    let mut found = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(dir) = path.parent().map(PathBuf::from) else { break };
        found.push(dir.clone());
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = dir.join(target);
    }
    let end = std::fs::canonicalize(&path).ok();
    found.extend(end.as_deref().and_then(Path::parent).map(PathBuf::from));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_at_once_and_a_hundred_a_second_less_and_less_often() {
        let mut looks = Looks::default();
        let mut seen = Vec::new();
        for centis in 0..15_000u64 {
            let uptime = Duration::from_secs(1000) + Duration::from_millis(10 * centis);
            looks.noticed(uptime);
            if looks.is_due(uptime) {
                looks.looked(true, uptime);
                seen.push((uptime.as_millis() - 1_000_000) / 100);
            }
        }
        assert_eq!(seen, [0, 10, 30, 70, 150, 310, 630, 950, 1270]);
        let later = Duration::from_secs(1300);
        looks.noticed(later);
        assert!(looks.is_due(later), "after a quiet time it is at once again");
    }

    #[test]
    fn a_file_that_is_written_beside_and_put_in_place_is_seen_at_once() {
        let mut looks = Looks::default();
        let at = |millis| Duration::from_secs(1000) + Duration::from_millis(millis);
        looks.noticed(at(0));
        looks.looked(false, at(0));
        looks.noticed(at(1));
        assert!(looks.is_due(at(50)));
    }

    #[test]
    fn all_directories_on_the_way_of_a_link_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["etc", "lists", "data"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("data/crl.pem"), "").unwrap();
        std::os::unix::fs::symlink("../data/crl.pem", at("lists/crl.pem")).unwrap();
        std::os::unix::fs::symlink(at("lists/crl.pem"), at("etc/crl.pem")).unwrap();
        let found: BTreeSet<PathBuf> =
            directories(&at("etc/crl.pem")).iter().map(|dir| dir.canonicalize().unwrap()).collect();
        assert_eq!(found, ["data", "etc", "lists"].map(|name| at(name).canonicalize().unwrap()).into());
    }
}
