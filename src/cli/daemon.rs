//! `run`, `worker`, `check`, `init`: the daemon itself, and what an installation needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, ValueEnum};
use rustix::io::Errno;

use super::Failure;
use super::door::unit_troubles;
use super::exit::{print, warn};
use super::expiry::now;
use crate::config::{self, CONFIG_DIR, LogFormat, SERVER_KEY, make_keys_if_missing};
use crate::doctor::look::server::certificate_troubles;
use crate::privsep::{self, Directories, Ended};
use crate::state;

/// The directories of an installation.
#[derive(Debug, Args)]
pub(super) struct Places {
    /// The configuration directory.
    #[arg(long, value_name = "DIR", default_value = CONFIG_DIR)]
    pub(super) config_dir: PathBuf,
    /// Where replay marks and guards outlive a reboot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/knockd-rs")]
    pub(super) state_dir: PathBuf,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One sentence a line.
    Text,
    /// One JSON object a line.
    Json,
}

/// Run the daemon in the foreground, as systemd does.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    places: Places,
    /// Where the control socket and the journal of replay marks lie.
    #[arg(long, value_name = "DIR", default_value = "/run/knockd-rs")]
    runtime_dir: PathBuf,
    /// The format of the log, in place of what knockd-rs.toml says.
    #[arg(long, value_name = "FORMAT")]
    log: Option<Format>,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Before there is a key in it: systemd's watchdog ends a daemon that hangs by SIGABRT.
        keep_memory_to_itself()?;
        make_private_dir(&self.runtime_dir)?;
        init(&self.places)?;
        // On a disk that is full or read-only the daemon runs without them, and says so.
        for dir in [&self.places.state_dir, &self.runtime_dir] {
            let _ = make_private_dir(&dir.join(state::FOLDER));
        }
        let directories = Directories {
            config: self.places.config_dir,
            state: self.places.state_dir,
            runtime: self.runtime_dir,
        };
        let format = self.log.map(|format| match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        });
        privsep::run(directories, format).map_err(|ended| match ended {
            Ended::Configuration(lines) => Failure::Broken(lines),
            Ended::Failed(line) => Failure::Failed(line),
            Ended::Reported => Failure::Reported,
        })
    }
}

fn keep_memory_to_itself() -> Result<(), Failure> {
    privsep::confine::keep_memory()
        .map_err(|error| Failure::Failed(format!("cannot become not dumpable: {error}")))
}

/// The confined half of the daemon: started by `run`, with its socket as standard input.
pub(super) fn worker() -> Result<(), Failure> {
    // Its confinement says so again; the keys come before that.
    keep_memory_to_itself()?;
    privsep::work().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOTSOCK) => {
            Failure::Usage("the worker talks to its monitor only; `knockd-rs run` starts both".into())
        }
        _ => Failure::Failed(format!("worker: {error}")),
    })
}

/// The commands of the two processes that stay, without all others.
#[derive(Debug, Parser)]
pub(super) enum Alone {
    /// The monitor.
    Run(Run),
    /// Its worker.
    Worker,
}

impl Alone {
    /// The command of these arguments, the first of which is the program; `None` where it is another one, or where
    /// the whole command line has to say what is wrong with it.
    pub(super) fn of(arguments: Vec<OsString>) -> Option<Self> {
        match arguments.get(1)?.to_str()? {
            "worker" if arguments.len() == 2 => Some(Self::Worker),
            "run" => Self::try_parse_from(arguments).ok(),
            _ => None,
        }
    }

    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run(args) => args.run(),
            Self::Worker => worker(),
        }
    }
}

/// Check the configuration, the keys and all profiles, as a reload would.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    places: Places,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = config::load(&self.places.config_dir)
            .map_err(|errors| Failure::Broken(errors.iter().map(ToString::to_string).collect()))?;
        loaded.warnings.iter().for_each(|warning| warn(&format!("warning: {warning}")));
        let troubles = certificate_troubles(&loaded).into_iter().chain(unit_troubles(&loaded.settings.doors));
        troubles.chain(loaded.expired(now())).for_each(|trouble| warn(&format!("warning: {trouble}")));
        let dir = self.places.config_dir.display();
        let count = loaded.profiles.len();
        let profiles = if count == 1 { "profile" } else { "profiles" };
        print(&format!(
            "{dir} is sound: {count} {profiles}, server key {}",
            loaded.server.public().fingerprint()
        ))?;
        Ok(())
    }
}

/// Make the server's keys if there are none. `run` and `profile add` do it by themselves.
#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    places: Places,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        init(&self.places)
    }
}

/// Makes missing keys. With a new server key goes an empty, clean replay state: no packet for it can exist yet.
pub(super) fn init(places: &Places) -> Result<(), Failure> {
    let made =
        make_keys_if_missing(&places.config_dir).map_err(|error| Failure::Failed(error.to_string()))?;
    made.made.iter().for_each(|path| warn(&format!("made {}", path.display())));
    if made.made.iter().any(|path| path.ends_with(SERVER_KEY)) {
        let identity = config::server_identity(&places.config_dir)
            .map_err(|errors| Failure::Broken(errors.iter().map(ToString::to_string).collect()))?;
        let dir = places.state_dir.join(state::FOLDER);
        make_private_dir(&places.state_dir)?;
        make_private_dir(&dir)?;
        state::initialise(&dir, identity, daemon_account())
            .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", dir.display())))?;
    }
    Ok(())
}

/// The daemon's user, to whom root gives what it makes for it.
fn daemon_account() -> Option<(u32, u32)> {
    let account = crate::files::user(crate::files::SYSTEM_USER)?;
    rustix::process::geteuid().is_root().then_some((account.user, account.group))
}

/// A directory for the daemon alone, given to its user when root makes it.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt, chown};

    if dir.is_dir() {
        return Ok(());
    }
    let failed =
        |error: std::io::Error| Failure::Failed(format!("{} cannot be made: {error}", dir.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed)?;
    match daemon_account() {
        Some((user, group)) => chown(dir, Some(user), Some(group)).map_err(failed),
        None => Ok(()),
    }
}
