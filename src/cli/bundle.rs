//! `bundle show`, and the ways in which other commands hand a bundle over: as a file, as a line, as a QR code; in the
//! clear or under a passphrase.

use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::Failure;
use super::exit::{print, warn};
use crate::crypto::passphrase::{Cost, SALT_LEN};
use crate::enrol::{Bundle, Carried, Picture, Protected, load_carried};
use crate::files::{self, Private};
use crate::passphrase;

/// Bundles: what a client has to know of a server, on its way there.
#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    Show(Show),
}

impl BundleCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Show(args) => args.run(),
        }
    }
}

/// Show a bundle as a QR code or as one line to paste, or put it under a passphrase.
///
/// What is shown holds everything that the file holds, a private key too. One that is under a passphrase stays so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs bundle show laptop.knock --qr
  knockd-rs bundle show laptop.knock --uri --passphrase | mail -s knock me@example.org
  client: knockd-rs import -        then paste the line")]
pub(super) struct Show {
    /// The bundle.
    file: PathBuf,
    #[command(flatten)]
    forms: Forms,
    #[command(flatten)]
    protect: Protect,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        refuse_line(&self.file)?;
        if !self.forms.is_any() {
            return Err(Failure::Usage("say how to show it: --qr, --uri or --png FILE".into()));
        }
        let carried = load_carried(&self.file)
            .map_err(|errors| Failure::Broken(errors.iter().map(ToString::to_string).collect()))?;
        self.forms.check()?;
        let carried = match (carried, self.protect.read()?) {
            (Carried::Open(bundle), passphrase) => carry(*bundle, passphrase)?,
            (protected, None) => protected,
            (Carried::Protected(_), Some(_)) => {
                return Err(Failure::Usage(format!(
                    "{} is under a passphrase already; leave out --passphrase",
                    self.file.display()
                )));
            }
        };
        self.forms.hand_over(&carried)
    }
}

/// Refuses a line where a file is to be named, without showing it once more.
pub(super) fn refuse_line(file: &Path) -> Result<(), Failure> {
    if !file.to_str().is_some_and(|text| Carried::is_line(text.trim_ascii())) {
        return Ok(());
    }
    Err(Failure::Usage(
        "a bundle in the arguments can be read by every user of this machine (ps), and stays in the shell's history; run \
         `knockd-rs import -` and paste it there. If others use this machine, have the bundle made again"
            .into(),
    ))
}

/// In which form a bundle leaves, besides or in place of its file.
#[derive(Debug, Args)]
pub(super) struct Forms {
    /// Print the bundle as a QR code.
    #[arg(long)]
    qr: bool,
    /// Print the bundle as one line, for `knockd-rs import -`.
    #[arg(long)]
    uri: bool,
    /// Write the bundle as a picture of a QR code, mode 0600.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

impl Forms {
    /// Whether one is wanted.
    pub(super) fn is_any(&self) -> bool {
        self.qr || self.uri || self.png.is_some()
    }

    /// What is to be said besides goes to standard error where standard output is the bundle's.
    #[cfg(feature = "daemon")]
    pub(super) fn say(&self, line: &str) -> Result<(), Failure> {
        if self.qr || self.uri {
            warn(line);
            return Ok(());
        }
        print(line)
    }

    /// Looks whether a file is in the way, before anything is made.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.png {
            Some(png) if png.symlink_metadata().is_ok() => Err(Failure::Failed(format!(
                "{} is there already; remove it or choose another name with --png",
                png.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Prints and writes what is wanted.
    pub(super) fn hand_over(&self, carried: &Carried) -> Result<(), Failure> {
        if !self.is_any() {
            return Ok(());
        }
        let line = carried.to_line();
        let picture = || Picture::of(&line).map_err(|error| Failure::Failed(error.to_string()));
        if let Some(png) = &self.png {
            let bytes = picture()?.png();
            files::write(png, &bytes, Private::NEW).map_err(|error| Failure::Failed(error.to_string()))?;
        }
        if self.qr {
            let picture = picture()?;
            let is_terminal = stdout().is_terminal();
            warn_of_small_terminal(&picture);
            print(picture.text(is_terminal).trim_end_matches('\n'))?;
        }
        if self.uri { print(&line) } else { Ok(()) }
    }

    /// What to do on the client.
    #[cfg(feature = "daemon")]
    pub(super) fn next(&self, file: Option<&Path>) -> String {
        match file {
            Some(file) => format!("`knockd-rs import {}`", file.display()),
            None => "`knockd-rs import -`, and paste the line, which is also what the QR code says".into(),
        }
    }
}

/// A code that is wider or higher than its terminal cannot be scanned.
fn warn_of_small_terminal(picture: &Picture) {
    let Ok(terminal) = rustix::termios::tcgetwinsize(stdout()) else { return };
    let (columns, rows) = picture.size();
    let has = (usize::from(terminal.ws_col), usize::from(terminal.ws_row));
    // A terminal that does not know its size says 0.
    if has.0 != 0 && (has.0 < columns || has.1 < rows) {
        warn(&format!(
            "knockd-rs: warning: the code has {columns} columns and {rows} rows, and this terminal {} and {}; \
             make its letters smaller, or use --png",
            has.0, has.1
        ));
    }
}

/// Whether a bundle is put under a passphrase.
#[derive(Debug, Args)]
pub(super) struct Protect {
    /// Put the bundle under a passphrase, which is asked for twice.
    #[arg(long, conflicts_with = "passphrase_file")]
    passphrase: bool,
    /// Put the bundle under the passphrase that is the first line of this file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Protect {
    /// The passphrase, if there is to be one.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if !self.passphrase && self.passphrase_file.is_none() {
            return Ok(None);
        }
        let read = passphrase::read_new(self.passphrase_file.as_deref(), "Passphrase for the bundle");
        read.map(Some).map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// The bundle as it travels.
pub(super) fn carry(bundle: Bundle, passphrase: Option<Zeroizing<Vec<u8>>>) -> Result<Carried, Failure> {
    let Some(passphrase) = passphrase else { return Ok(Carried::Open(Box::new(bundle))) };
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).map_err(|_| Failure::Failed("the kernel gives no random numbers".into()))?;
    let sealed = Protected::seal(&bundle, &passphrase, salt, Cost::USUAL);
    sealed.map(Carried::Protected).map_err(|error| Failure::Failed(format!("the bundle {error}")))
}
