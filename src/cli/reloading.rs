//! What a command that changes profiles says to the daemon, where one runs: so that a new client can knock at once, and a
//! removed one cannot.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::control::Daemon;
use super::daemon::Places;
use super::exit::{print, warn};
use crate::config::CONFIG_DIR;
use crate::control::Command;
use crate::text::ProfileName;

/// Whether and where to tell the daemon.
#[derive(Debug, Args)]
pub(super) struct Reloading {
    /// Do not tell the daemon; `knockd-rs reload` does.
    #[arg(long)]
    no_reload: bool,
    /// The runtime directory of the daemon to tell; with another --config-dir nobody is told unless this is given.
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

/// What became of telling it.
pub(super) enum Told {
    /// It has done so, and says this.
    Done(Vec<String>),
    /// Nobody was asked, or nobody answered; a sentence.
    Nobody(String),
    /// It was asked, and has not done so.
    Not(Failure),
}

impl Reloading {
    /// Has the daemon read its configuration again, and waits until it goes by that.
    pub(super) fn reload(&self, places: &Places) -> Told {
        self.tell(places, Daemon::reload)
    }

    /// Has the daemon forget a profile whose file is gone, and end its grants, whatever else is wrong with its files.
    pub(super) fn forget(&self, places: &Places, name: &ProfileName) -> Told {
        let command = Command::Remove { profile: name.to_string() };
        self.tell(places, |daemon| {
            let lines = daemon.tell(&command)?;
            daemon.await_serving()?;
            Ok(lines)
        })
    }

    fn tell(&self, places: &Places, ask: impl FnOnce(&Daemon) -> Result<Vec<String>, Failure>) -> Told {
        let Some(daemon) = self.daemon(&places.config_dir) else {
            return Told::Nobody("no daemon was told; `knockd-rs reload` puts it in force".into());
        };
        match ask(&daemon) {
            Ok(lines) => Told::Done(lines),
            Err(Failure::NoDaemon(line)) => Told::Nobody(line),
            Err(failure) => Told::Not(failure),
        }
    }

    /// The daemon that goes by this configuration directory, as far as can be known.
    fn daemon(&self, config_dir: &Path) -> Option<Daemon> {
        let usual = (config_dir == Path::new(CONFIG_DIR)).then(Daemon::usual);
        let named = self.runtime_dir.clone().map(Daemon::at);
        named.or(usual).filter(|_| !self.no_reload)
    }
}

impl Told {
    /// Says that a change is in force, or why it is not.
    pub(super) fn say(self, in_force: &str) -> Result<(), Failure> {
        self.say_by(in_force, print)
    }

    /// The same where standard output is somebody else's.
    pub(super) fn say_by(
        self,
        in_force: &str,
        say: impl FnOnce(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Done(_) => say(in_force),
            Self::Nobody(why) => {
                warn(&format!("knockd-rs: {why}"));
                Ok(())
            }
            // What was made is made, and counts from the next reload that succeeds.
            Self::Not(failure) => {
                failure.lines().iter().for_each(|line| warn(&format!("knockd-rs: {line}")));
                Ok(())
            }
        }
    }
}
