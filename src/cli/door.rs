//! `door`: waits until a service has been closed for some time. For knockd-rs-door@.service, whose end makes systemd
//! stop the service's unit. Needs no right but to see whether a file is there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

use super::Failure;
use crate::config::{Doors, UnitName};
use crate::text::{ServiceName, Span};

/// Wait until no grant has opened a service for some time. For knockd-rs-door@.service.
///
/// Watches the file that the daemon keeps for a service with a `unit`, and ends when it has been gone for the time of
/// grace. A grant within the grace begins the wait anew. Starts and stops nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  systemctl enable --now knockd-rs-door@postgresql.path    systemd starts and stops postgresql.service with grants
  knockd-rs door postgresql --grace 10m                    what the unit behind it runs")]
pub(super) struct Door {
    /// The service, as [services] in knockd-rs.toml names it.
    service: ServiceName,
    /// How long after the last grant to wait for another one.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    grace: Span,
    /// The daemon's runtime directory.
    #[arg(long, value_name = "DIR", default_value = "/run/knockd-rs")]
    runtime_dir: PathBuf,
}

/// How long to wait for a directory that is not there: it cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Door {
    pub(super) fn run(self) -> Result<(), Failure> {
        let failed = |error| Failure::Failed(format!("files cannot be watched: {error}"));
        let notices = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| failed(io::Error::from(error)))?;
        let dir = self.runtime_dir.join("open");
        let (file, grace) = (dir.join(self.service.as_str()), self.grace.duration());
        let mut closed_since = None;
        loop {
            // Watched first, looked at then: what changes between the two is in a notice.
            let is_watched = watch(&notices, &dir).map_err(failed)?;
            let left = if is_there(&file) {
                closed_since = None;
                None
            } else {
                let since = *closed_since.get_or_insert_with(Instant::now);
                let left = grace.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return Ok(());
                }
                Some(left)
            };
            let longest = (!is_watched).then_some(LOOK_AGAIN);
            wait(&notices, left.into_iter().chain(longest).min()).map_err(failed)?;
        }
    }
}

/// What systemd has not been told of the units of services: a unit of another name than its service's is named in a
/// drop-in.
pub(super) fn unit_troubles(doors: &Doors) -> Vec<String> {
    let is_unknown = |(name, unit): &(&ServiceName, &UnitName)| {
        unit.as_str() != format!("{name}.service") && !is_in_a_drop_in(name, unit)
    };
    let sentence = |(name, unit): (&ServiceName, &UnitName)| {
        format!(
            "services.{name}.unit: knockd-rs-door@{name}.service does not know {unit} yet; `systemctl edit \
             knockd-rs-door@{name}.service` and write [Unit], Wants={unit}, PropagatesStopTo={unit}, a line each"
        )
    };
    doors.iter().filter(is_unknown).map(sentence).collect()
}

fn is_in_a_drop_in(name: &ServiceName, unit: &UnitName) -> bool {
    let names_it = |text: &str| {
        let units = text.lines().filter_map(|line| line.trim().strip_prefix("PropagatesStopTo="));
        units.flat_map(str::split_whitespace).any(|word| word == unit.as_str())
    };
    UNIT_DIRS.iter().any(|dir| {
        let files = fs::read_dir(format!("{dir}/knockd-rs-door@{name}.service.d")).into_iter().flatten();
        files.flatten().any(|file| fs::read_to_string(file.path()).is_ok_and(|text| names_it(&text)))
    })
}

/// Where drop-ins of the system's units are, by systemd.unit(5).
const UNIT_DIRS: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// Whether the directory is there to be watched. Watching it again changes nothing.
fn watch(notices: &OwnedFd, dir: &Path) -> io::Result<bool> {
    let changes = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    match add_watch(notices, dir, changes | WatchFlags::ONLYDIR) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_there(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

/// Sleeps until there is a notice or the time is over, and throws all notices away: looking tells what is so.
fn wait(notices: &OwnedFd, longest: Option<Duration>) -> io::Result<()> {
    let timeout = longest.map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(&mut [PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = [0; 4096];
    while rustix::io::read(notices, &mut buffer).is_ok_and(|len| len > 0) {}
    Ok(())
}
