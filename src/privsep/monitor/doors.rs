//! Door files: `/run/knockd-rs/open/NAME` is there while a grant lets somebody at a port of the service NAME.
//!
//! For systemd, which starts and stops what is behind the door by a path unit; the daemon starts nothing. The files
//! are empty, everybody may see them, and only services with a `unit` have one. A stopped daemon leaves none; what a
//! killed one leaves is put right at the next start.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Monitor;
use crate::clock;
use crate::config::{LogLevel, Settings};
use crate::grant::Entry;
use crate::log::Event;
use crate::text::{PortRange, ServiceName};

/// The folder of door files in the runtime directory.
const FOLDER: &str = "open";
/// How long to wait before another attempt at a file that could not be made or removed.
const RETRY: Duration = Duration::from_secs(1);

/// The door files.
pub(super) struct Doors {
    dir: PathBuf,
    /// The services that have a file while they are open.
    services: Vec<(ServiceName, Vec<PortRange>)>,
    /// The files that are there.
    open: BTreeSet<String>,
    /// What is wrong, and when to try again.
    trouble: Option<(String, Duration)>,
    /// The revision of the grants that the files are of.
    seen: Option<u64>,
}

impl Doors {
    /// Finds the files that a daemon which was killed has left.
    pub(super) fn open(runtime: &Path, settings: &Settings) -> Self {
        let dir = runtime.join(FOLDER);
        let names = fs::read_dir(&dir).into_iter().flatten().flatten();
        let open = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let mut doors = Self { dir, services: Vec::new(), open, trouble: None, seen: None };
        doors.follow(settings);
        doors
    }

    /// Takes over changed settings.
    pub(super) fn follow(&mut self, settings: &Settings) {
        let ports = |name| settings.services.get(name).cloned().unwrap_or_default();
        self.services = settings.doors.keys().map(|name| (name.clone(), ports(name))).collect();
        self.seen = None;
    }

    /// Whether there may be something to do at this revision of the grants.
    fn is_behind(&mut self, revision: u64, uptime: Duration) -> bool {
        match &self.trouble {
            Some((_, again)) => *again <= uptime,
            None => self.seen.replace(revision) != Some(revision),
        }
    }

    /// Makes the files that are missing and removes those that are too many.
    pub(super) fn keep<'a>(
        &mut self,
        grants: impl Iterator<Item = &'a Entry> + Clone,
        uptime: Duration,
    ) -> Vec<Event> {
        let wanted = self.wanted(grants);
        let (mut events, mut failed) = (Vec::new(), None);
        for name in wanted.symmetric_difference(&self.open.clone()) {
            let done = if wanted.contains(name) {
                make(&self.dir, name).map(|()| (self.open.insert(name.clone()), opened(name)))
            } else {
                remove(&self.dir, name).map(|()| (self.open.remove(name), closed(name)))
            };
            match done {
                Ok((_, event)) => events.push(event),
                Err(error) => failed = Some((name.clone(), error)),
            }
        }
        events.extend(self.note(failed, uptime));
        events
    }

    /// Removes all files: nobody keeps them up to date from now on.
    pub(super) fn close_all(&mut self) {
        self.keep(std::iter::empty(), Duration::MAX);
    }

    /// What is wrong, if anything: a sentence.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref().map(|(sentence, _)| sentence)
    }

    /// When another attempt is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.trouble.as_ref().map(|(_, again)| *again)
    }

    fn wanted<'a>(&self, grants: impl Iterator<Item = &'a Entry> + Clone) -> BTreeSet<String> {
        let is_open = |ports: &[PortRange]| {
            let touches =
                |entry: &Entry| ports.iter().any(|range| range.intersection(&entry.ports).is_some());
            grants.clone().any(touches)
        };
        let open = self.services.iter().filter(|(_, ports)| is_open(ports));
        open.map(|(name, _)| name.to_string()).collect()
    }

    fn note(&mut self, failed: Option<(String, io::Error)>, uptime: Duration) -> Option<Event> {
        let had = self.trouble.take();
        let Some((name, error)) = failed else {
            let text = format!("no longer: {}", had?.0);
            return Some(Event::new(LogLevel::Info, "recovered", text));
        };
        let path = self.dir.join(&name);
        let text = format!("{} cannot be made or removed: {error}; its unit does not follow", path.display());
        let known = had.is_some_and(|(before, _)| before == text);
        self.trouble = Some((text.clone(), uptime.saturating_add(RETRY)));
        (!known).then(|| Event::new(LogLevel::Error, "degraded", text).at(&name))
    }
}

impl Monitor {
    /// Lets follow what follows from a change of the grants, or from the time: events, and door files.
    pub(super) fn settle(&mut self) {
        let uptime = clock::uptime();
        let Self { desk, departures, doors, .. } = self;
        desk.ledger.expire(uptime);
        let mut events = departures.follow(&mut desk.ledger, uptime);
        if doors.is_behind(departures.revision(&desk.ledger), uptime) {
            events.extend(doors.keep(desk.ledger.entries().chain(departures.used()), uptime));
        }
        self.log_all(&events);
    }

    /// When a grant ends, or a door file is tried again.
    pub(super) fn next_to_settle(&self) -> Option<Duration> {
        let end = self.departures.next_end(&self.desk.ledger);
        end.into_iter().chain(self.doors.next_deadline()).min()
    }
}

/// Made in one step, empty: whoever sees the file sees all of it.
fn make(dir: &Path, name: &str) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        // The umask has had its say.
        _ => fs::set_permissions(dir, Permissions::from_mode(0o755))?,
    }
    let path = dir.join(name);
    match File::options().write(true).create_new(true).mode(0o444).open(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn opened(name: &str) -> Event {
    let text = format!("the first grant for the service {name} has begun");
    Event::new(LogLevel::Info, "door-opened", text).at(name)
}

fn closed(name: &str) -> Event {
    let text = format!("the last grant for the service {name} has ended");
    Event::new(LogLevel::Info, "door-closed", text).at(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Uses;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn settings() -> Settings {
        let mut settings = Settings::default();
        for (name, ports) in [("db", "tcp/5432"), ("web", "tcp/80"), ("ssh", "tcp/22")] {
            settings.services.insert(name.parse().unwrap(), vec![ports.parse().unwrap()]);
        }
        for name in ["db", "web"] {
            settings.doors.insert(name.parse().unwrap(), format!("{name}.service").parse().unwrap());
        }
        settings
    }

    fn grant(ports: &str) -> Entry {
        Entry {
            profile: "laptop".into(),
            address: "192.0.2.1".parse().unwrap(),
            wide: false,
            ports: ports.parse().unwrap(),
            uses: Uses::Many,
            session: crate::grant::Session::default(),
            deadline: at(15),
        }
    }

    fn files(runtime: &Path) -> Vec<String> {
        let entries = fs::read_dir(runtime.join(FOLDER)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What is open after these grants, in a directory where these files were.
    fn kept(left: &[&str], grants: &[&str]) -> (Vec<String>, Vec<&'static str>) {
        let runtime = tempfile::tempdir().unwrap();
        for name in left {
            make(&runtime.path().join(FOLDER), name).unwrap();
        }
        let mut doors = Doors::open(runtime.path(), &settings());
        let grants: Vec<Entry> = grants.iter().map(|ports| grant(ports)).collect();
        let events = doors.keep(grants.iter(), at(1)).into_iter().map(|event| event.event).collect();
        (files(runtime.path()), events)
    }

    #[test]
    fn a_grant_for_any_port_of_a_service_opens_its_door_and_no_other() {
        assert_eq!(kept(&[], &["tcp/22"]), (vec![], vec![]));
        assert_eq!(kept(&[], &["tcp/5432"]), (vec!["db".into()], vec!["door-opened"]));
        assert_eq!(kept(&[], &["tcp/1-100"]), (vec!["web".into()], vec!["door-opened"]));
        assert_eq!(kept(&[], &["udp/5432"]), (vec![], vec![]));
    }

    #[test]
    fn what_a_killed_daemon_left_is_put_right() {
        let found = kept(&["db", "web", "gone", "x y"], &["tcp/5432"]);
        assert_eq!(found, (vec!["db".into()], vec!["door-closed"; 3]));
    }

    #[test]
    fn a_stopped_daemon_leaves_no_file_and_everybody_may_see_those_of_a_running_one() {
        let runtime = tempfile::tempdir().unwrap();
        let mut doors = Doors::open(runtime.path(), &settings());
        doors.keep([grant("tcp/5432")].iter(), at(1));
        let mode = fs::metadata(runtime.path().join(FOLDER)).unwrap().permissions().mode();
        assert_eq!((files(runtime.path()), mode & 0o7777), (vec!["db".to_owned()], 0o755));
        doors.close_all();
        assert_eq!(files(runtime.path()), [""; 0]);
    }

    #[test]
    fn a_service_without_a_unit_any_more_has_no_file_either() {
        let runtime = tempfile::tempdir().unwrap();
        let mut doors = Doors::open(runtime.path(), &settings());
        doors.keep([grant("tcp/5432")].iter(), at(1));
        doors.follow(&Settings::default());
        doors.keep([grant("tcp/5432")].iter(), at(2));
        assert_eq!(files(runtime.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told_of_once_and_tried_again() {
        let runtime = tempfile::tempdir().unwrap();
        let blocked = runtime.path().join(FOLDER);
        fs::write(&blocked, "").unwrap();
        let mut doors = Doors::open(runtime.path(), &settings());
        let names = |events: Vec<Event>| events.iter().map(|event| event.event).collect::<Vec<_>>();
        assert_eq!(names(doors.keep([grant("tcp/80")].iter(), at(1))), ["degraded"]);
        assert_eq!((doors.trouble().is_some(), doors.next_deadline()), (true, Some(at(2))));
        assert_eq!(names(doors.keep([grant("tcp/80")].iter(), at(2))), [""; 0]);
        fs::remove_file(&blocked).unwrap();
        assert_eq!(names(doors.keep([grant("tcp/80")].iter(), at(3))), ["door-opened", "recovered"]);
        assert_eq!((files(runtime.path()), doors.trouble()), (vec!["web".to_owned()], None));
    }
}
