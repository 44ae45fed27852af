//! The monitor: holds the keys, the configuration and the netlink socket, and never sees a packet.
//!
//! One loop over the worker's socket, the admin's socket, the kernel's notices and signals. `crew` starts and
//! replaces workers and `upkeep` keeps one at its work, `desk` admits their requests, `sessions` bars clients after
//! their grants, `commands` are the admin's, `guards` is the book of guarded ports, `shield` the firewall in either
//! mode, `mend` keeps it whole, `report` says how things stand, `departures` tells which grants have ended, and `doors`
//! keeps the files by which systemd starts services, and `removal` forgets profiles.

mod commands;
mod crew;
mod departures;
mod desk;
mod doors;
mod events;
mod files;
mod guards;
mod links;
mod mend;
mod removal;
mod report;
mod sessions;
mod shield;
mod signals;
pub(super) mod upkeep;

#[cfg(feature = "fuzzing")]
pub(super) use guards::check as check_books;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};

use self::commands::is_orphan;
use self::crew::{Crew, News, Terms};
use self::departures::Departures;
use self::desk::{Desk, is_of};
use self::doors::Doors;
use self::files::{Looks, Watch};
use self::links::Links;
use self::report::Pending;
use self::signals::Signals;
use self::upkeep::{limits, moment};
use super::message::Said;
use crate::clock;
use crate::config::{self, Configuration, Control, LogLevel, Mode, OnStop, Settings};
use crate::control::{Command, Groups, Reply, Server};
use crate::files::group;
use crate::grant::Limits;
use crate::log::{Event, Log};
use crate::notify::Notify;

/// The directories that a daemon works with.
#[derive(Clone, Debug)]
pub struct Directories {
    /// `/etc/knockd-rs`.
    pub config: PathBuf,
    /// `/var/lib/knockd-rs`.
    pub state: PathBuf,
    /// `/run/knockd-rs`.
    pub runtime: PathBuf,
}

/// Why the daemon ended other than by being told to.
#[derive(Debug)]
pub enum Ended {
    /// The configuration is broken; each line says where and how.
    Configuration(Vec<String>),
    /// Something that the daemon cannot go on without.
    Failed(String),
    /// The same, and the log has told why.
    Reported,
}

/// The copy of the last settings that were good, in the state directory.
const LAST_GOOD: &str = "last-good.toml";

/// How often connections that hang and commands that wait are looked at, while there are any.
const TICK: Duration = Duration::from_millis(50);

/// How much the workers may say before signals and admins are looked at again.
const MAX_NEWS: usize = 256;

/// How long a start waits for the one before to be gone: a daemon that was killed while it started a worker lives
/// on, as far as its lock is concerned, until that child has got to its `exec`.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

struct Monitor {
    directories: Directories,
    config: Configuration,
    /// Counts configurations, so that an admin's reload can be seen through.
    generation: u64,
    log: Log,
    desk: Desk,
    departures: Departures,
    doors: Doors,
    crew: Crew,
    control: Server,
    links: Links,
    files: Watch,
    looks: Looks,
    notify: Notify,
    /// Commands that wait for the worker's pulse, and the id of the last ping.
    pending: Vec<Pending>,
    pings: u64,
    /// Why there is nothing to capture from.
    lost: Option<String>,
    /// Profiles that were broken at the start.
    left_out: Vec<String>,
    started: Duration,
    stopping: bool,
    _lock: File,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Ended`] with sentences for the admin.
pub fn run(directories: Directories, format: Option<config::LogFormat>) -> Result<(), Ended> {
    let signals = Signals::install().map_err(failed("cannot install signal handlers"))?;
    let mut monitor = Monitor::start(directories, format)?;
    monitor.turn_until_stopped(&signals)?;
    monitor.stop();
    Ok(())
}

/// Makes an I/O error a sentence.
fn failed(what: &str) -> impl Fn(io::Error) -> Ended + '_ {
    move |error| Ended::Failed(format!("{what}: {error}"))
}

impl Monitor {
    fn start(directories: Directories, format: Option<config::LogFormat>) -> Result<Self, Ended> {
        let last_good = directories.state.join(LAST_GOOD);
        let (config, broken) =
            config::load_sound(&directories.config, &last_good).map_err(broken_configuration)?;
        let lock = lock(&directories)?;
        super::capabilities::keep_only_net_admin().map_err(failed("cannot give up privileges"))?;
        super::confine::restrict_monitor().map_err(|error| Ended::Failed(error.to_string()))?;
        let log = Log::open(format.unwrap_or(config.settings.log.format), config.settings.log.level);
        let desk = Desk::open(&config, &directories.state)
            .map_err(|error| Ended::Failed(format!("the firewall cannot be set up: {error}")))?;
        let groups = groups(&config.settings);
        let no_group = group(config.settings.control.group.as_str()).is_none();
        let mut monitor = Self {
            departures: Departures::default(),
            doors: Doors::open(&directories.runtime, &config.settings),
            config,
            generation: 1,
            log,
            desk,
            crew: Crew::default(),
            control: Server::new(&directories.runtime, groups, clock::uptime()),
            links: Links::open(),
            files: Watch::default(),
            looks: Looks::default(),
            notify: Notify::open(),
            pending: Vec::new(),
            pings: 0,
            lost: None,
            left_out: broken.iter().map(left_out).collect(),
            started: clock::uptime(),
            stopping: false,
            _lock: lock,
            directories,
        };
        monitor.say_at_start(&broken, no_group);
        monitor.settle();
        let _ = monitor.watch_files();
        monitor.begin_worker();
        Ok(monitor)
    }

    /// What an admin should know from the start, and what the configuration says about grants that were found.
    fn say_at_start(&mut self, broken: &[config::ConfigError], no_group: bool) {
        let warnings = self.config.warnings.iter().map(ToString::to_string);
        let warnings = warnings.chain(self.config.expired(moment()));
        let group = "control.group does not exist; only root may use the socket".to_owned();
        let warnings: Vec<String> = warnings.chain(no_group.then_some(group)).collect();
        warnings.iter().for_each(|line| self.say(LogLevel::Warning, "configuration", line));
        let errors = self.left_out.iter().chain(&self.desk.unsaved).cloned();
        let errors: Vec<String> = errors.chain(self.control.trouble()).collect();
        errors.iter().for_each(|line| self.say(LogLevel::Error, "configuration", line));
        let spared: Vec<String> = broken.iter().filter_map(profile_of).collect();
        let events = self.desk.end_unknown(&self.config, &spared);
        self.log_all(&events);
        if broken.iter().all(|error| error.place.file != config::SETTINGS_FILE) {
            self.keep_good();
        }
    }

    /// Keeps a copy of the settings for a start that finds them broken.
    fn keep_good(&mut self) {
        // On a disk that cannot be written there is no copy, as the status says for other reasons.
        let _ = config::keep_good(&self.directories.config, &self.directories.state.join(LAST_GOOD));
    }

    fn turn_until_stopped(&mut self, signals: &Signals) -> Result<(), Ended> {
        while !self.stopping {
            self.wait(signals)?;
            let received = signals.take();
            if received.stop {
                return Ok(());
            }
            if received.reload {
                let _ = self.reload();
            }
            self.hear_workers()?;
            self.obey();
            self.answer_pending();
            if self.links.changed() {
                self.crew.ping(0);
                self.follow_interface();
            }
            if self.files.changed() {
                self.looks.noticed(clock::uptime());
            }
            if self.looks.is_due(clock::uptime()) {
                // A directory or a link may be another one now.
                let is_new = self.watch_files();
                self.looks.looked(is_new, clock::uptime());
            }
            self.mend();
            self.settle();
            self.keep_time()?;
        }
        Ok(())
    }

    /// Sleeps until something happens or the next deadline.
    fn wait(&self, signals: &Signals) -> Result<(), Ended> {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        fds.extend(self.crew.fds());
        fds.extend(self.links.as_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(self.files.as_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(self.desk.shield.watch_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(self.control.fds());
        let timeout = self.until_next_deadline().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Ended::Failed(format!("cannot wait for events: {error}"))),
        }
    }

    fn until_next_deadline(&self) -> Option<Duration> {
        let uptime = clock::uptime();
        let tick = (self.control.is_busy() || !self.pending.is_empty()).then_some(TICK);
        let deadlines = [
            self.crew.next_deadline(),
            self.notify.next_deadline(),
            self.desk.next_deadline(),
            self.next_to_settle(),
            self.control.next_deadline(),
            self.looks.due(),
        ];
        deadlines.into_iter().flatten().map(|at| at.saturating_sub(uptime)).chain(tick).min()
    }

    fn hear_workers(&mut self) -> Result<(), Ended> {
        for _ in 0..MAX_NEWS {
            let Some(news) = self.crew.hear() else { break };
            match news {
                News::Said { terms, said } => self.attend(&terms, said)?,
                News::Serving { landlock } => self.worker_serves(landlock),
                News::Lost { sentence } => self.capture_lost(&sentence),
                News::EndOfFile => self.stopping = true,
                News::Died { sentence } => return Err(self.give_up(&sentence)),
            }
        }
        Ok(())
    }

    /// Deals with what a worker said in the course of its work.
    fn attend(&mut self, terms: &Rc<Terms>, said: Said) -> Result<(), Ended> {
        let events = match said {
            Said::Request(request) => {
                match self.desk.admit(&terms.limits, self.newer(terms).as_ref(), &request) {
                    Ok((verdict, events)) => {
                        self.departures.release_closed(&terms.limits, &request);
                        self.crew.answer(terms, request.id, verdict);
                        events
                    }
                    Err(breach) => {
                        let sentence =
                            format!("the worker made {breach}: it is broken or captured, and was ended");
                        return Err(self.give_up(&sentence));
                    }
                }
            }
            Said::Refused(refused) => self.desk.refused(&terms.limits, &refused),
            Said::Pulse(pulse) => {
                let events = self.desk.pulse(&pulse);
                self.notify.alive(clock::uptime());
                self.pulse_arrived(pulse.id);
                events
            }
            Said::Notice(sentence) => vec![Event::new(LogLevel::Warning, "certificates", sentence)],
            Said::Revoked(ids) => match &self.config.certificates.authority {
                Some(authority) if authority.end_grants_on_revocation => {
                    self.departures.release(|entry| is_of(entry, &ids));
                    self.desk.end_revoked(&ids)
                }
                _ => Vec::new(),
            },
            Said::Ready(_) | Said::Farewell(_) => Vec::new(),
        };
        self.log_all(&events);
        Ok(())
    }

    /// The limits of the present configuration, for a worker that was started with an earlier one.
    fn newer(&self, terms: &Terms) -> Option<Limits> {
        (terms.generation != self.generation).then(|| limits(&self.config))
    }

    /// The worker died or broke out of its limits: everything stays closed, and the service ends with an error.
    fn give_up(&mut self, sentence: &str) -> Ended {
        self.crew.kill_all();
        self.say(LogLevel::Error, "worker", sentence);
        Ended::Reported
    }

    fn obey(&mut self) {
        for (ticket, command) in self.control.turn(clock::uptime()) {
            let reply = match command {
                Command::Status {} => {
                    self.ask_for_status(ticket);
                    continue;
                }
                Command::Events { follow } => {
                    self.control.events(ticket, follow);
                    continue;
                }
                Command::Reload {} => self.reload().map_or_else(Reply::Refused, Reply::Done),
                Command::Remove { profile } => self.remove(&profile),
                other => self.carry_out(other),
            };
            self.control.reply(ticket, &reply);
        }
    }

    /// Reads the configuration again. A broken one changes nothing.
    fn reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        self.notify.reloading();
        let config = match config::load(&self.directories.config) {
            Ok(config) => config,
            Err(errors) => return Err(self.keep_old(errors.iter().map(ToString::to_string).collect())),
        };
        for warning in config.warnings.iter().map(ToString::to_string).chain(config.expired(moment())) {
            self.say(LogLevel::Warning, "configuration", &warning);
        }
        if let Some(line) = needs_restart(&self.config, &config) {
            return Err(self.keep_old(vec![line.to_owned()]));
        }
        match self.desk.reconfigure(&self.config, &config) {
            Ok(events) => self.log_all(&events),
            Err(error) => return Err(self.keep_old(vec![error.to_string()])),
        }
        self.log.configure(config.settings.log.format, config.settings.log.level);
        self.control.set_groups(groups(&config.settings));
        self.config = config;
        self.departures.release(|entry| is_orphan(&self.config, entry));
        self.doors.follow(&self.config.settings);
        self.watch_files();
        self.left_out.clear();
        self.keep_good();
        self.generation += 1;
        self.begin_worker();
        let profiles = self.config.profiles.len();
        let line =
            format!("the configuration was read again: {profiles} {}", report::plural(profiles, "profile"));
        self.say(LogLevel::Info, "reloaded", &line);
        Ok(vec![line])
    }

    fn keep_old(&mut self, mut lines: Vec<String>) -> Vec<String> {
        for line in &lines {
            self.say(LogLevel::Error, "configuration", line);
        }
        let kept = "the configuration was not changed: the daemon goes on with the old one";
        self.say(LogLevel::Error, "configuration", kept);
        self.notify.ready(kept);
        lines.push(kept.to_owned());
        lines
    }

    /// Looks after the table when the kernel says that rulesets changed.
    fn mend(&mut self) {
        let events = self.desk.mend();
        self.log_all(&events);
    }

    /// Says that the daemon stops, lets the worker write its state, and leaves or removes the table.
    fn stop(mut self) {
        self.notify.stopping();
        for (terms, said) in self.crew.retire_all() {
            // Requests that were on their way are carried out; a breach at this point has nothing to end.
            let _ = self.attend(&terms, said);
        }
        self.doors.close_all();
        let remove = self.config.settings.firewall.on_stop == OnStop::Remove;
        let text = match remove {
            false => "guarded ports stay closed, live grants end on time",
            true => "the table is removed: no port is guarded any more",
        };
        self.say(LogLevel::Info, "stopped", text);
        if remove {
            if let Err(error) = self.desk.remove_table() {
                let text = format!("the table could not be removed: {error}");
                let event = Event::new(LogLevel::Error, "stopped", &text);
                self.log.write(&event, clock::wall(), clock::uptime());
            }
        }
    }
}

/// Who may use the control socket. Without its group only root may command.
fn groups(settings: &Settings) -> Groups {
    let Control { group: commanders, readers } = &settings.control;
    Groups { commanders: group(commanders.as_str()).unwrap_or(0), readers: group(readers.as_str()) }
}

/// What a start does about a mistake that a reload would refuse.
fn left_out(error: &config::ConfigError) -> String {
    if error.place.file == config::SETTINGS_FILE {
        format!("{error}; the daemon runs with the last settings that were good")
    } else if error.place.file == config::AUTHORITIES {
        format!("{error}; knocks with certificates are refused until it is there")
    } else {
        format!("{error}; this profile is left out")
    }
}

/// The profile that a mistake is about.
fn profile_of(error: &config::ConfigError) -> Option<String> {
    let file = Path::new(&error.place.file);
    let name = file.file_stem()?.to_str()?;
    file.starts_with(config::PROFILES_DIR).then(|| name.to_owned())
}

fn broken_configuration(errors: Vec<config::ConfigError>) -> Ended {
    Ended::Configuration(errors.iter().map(ToString::to_string).collect())
}

/// What a running daemon cannot change: who owns the table, and whether there is one.
fn needs_restart(old: &Configuration, new: &Configuration) -> Option<&'static str> {
    let same = match (&old.settings.firewall.mode, &new.settings.firewall.mode) {
        (Mode::Table { owner: before, .. }, Mode::Table { owner: after, .. }) => before == after,
        (Mode::Sets(_), Mode::Sets(_)) => true,
        _ => false,
    };
    (!same).then_some(
        "knockd-rs.toml: firewall.mode and firewall.owner change at a start only; `systemctl restart knockd-rs`",
    )
}

/// Only one daemon works with a runtime directory.
fn lock(directories: &Directories) -> Result<File, Ended> {
    // The directory itself: on a full disk no file could be made.
    let path = &directories.runtime;
    let file = File::open(path)
        .map_err(|error| Ended::Failed(format!("{}: {error}; make that directory", path.display())))?;
    let until = clock::uptime() + LOCK_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if clock::uptime() >= until {
            return Err(Ended::Failed(
                "another knockd-rs is running already; `knockd-rs status` asks it".into(),
            ));
        }
        std::thread::sleep(LOCK_PATIENCE / 50);
    }
    Ok(file)
}
