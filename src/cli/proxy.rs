//! `proxy`: a SOCKS proxy for one user, which knocks where that is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use clap::Args;

use super::Failure;
use super::client::dirs;
use super::exit::warn;
use super::identity;
use crate::client::cert::Identity;
use crate::client::proxy::{Listener, Place, Proxy as Service, Settings};
use crate::client::server::Server;
use crate::client::store::{Dirs, servers};
use crate::enrol::OwnCertificate;
use crate::files::{self, FileError, Rules};
use crate::passphrase;
use crate::socks::Password;
use crate::text::Span;

/// Knock for every program that speaks SOCKS: browsers, mail, git, curl.
///
/// A connection to a server that was imported, at a port that it opens, is tried, knocked for when it does not answer, and
/// made as soon as the port is open; many at once share one knock. All other connections pass through. Only the
/// user who runs this is served, or who knows the password.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs proxy                                 then: curl -x socks5h://127.0.0.1:1080 http://myserver:8080/
  knockd-rs proxy --listen unix:$XDG_RUNTIME_DIR/socks
  systemctl --user enable --now knockd-rs-proxy.socket")]
pub(super) struct Proxy {
    /// Where to listen: an address with a port, or `unix:` with a path. Again for more. 127.0.0.1:1080 unless a
    /// service manager passes sockets.
    #[arg(long, value_name = "PLACE")]
    listen: Vec<Place>,
    /// Serve who knows this name and the password, whoever that is; SOCKS5 only.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file whose first line is the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// The file whose first line opens the keys of certificates; else they are asked for once, at the start.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// How many connections there may be at a time.
    #[arg(long, value_name = "NUMBER", default_value = "512", value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_connections: u16,
    /// End after this time without a connection; for use with socket activation.
    #[arg(long, value_name = "DURATION")]
    idle: Option<Span>,
    /// How long a connection may take to be made.
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    timeout: Span,
    /// Tell of every connection, and where it goes.
    #[arg(long, short)]
    verbose: bool,
}

impl Proxy {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Before anything else is opened, since they come by their numbers.
        let mut listeners = Listener::passed().map_err(Failure::Failed)?;
        let password = self.password()?;
        let mut places = self.listen;
        if places.is_empty() && listeners.is_empty() {
            places.extend("127.0.0.1:1080".parse::<Place>());
        }
        let open = listeners.iter().map(Listener::place);
        if let Some(place) = open.chain(places.iter().cloned()).find(Place::is_remote)
            && password.is_none()
        {
            return Err(Failure::Usage(format!(
                "others than this machine's users can get to {place}, so a password is needed: --user NAME \
                 --password-file FILE"
            )));
        }
        for place in &places {
            listeners.push(Listener::open(place).map_err(Failure::Failed)?);
        }
        let (dirs, identities) = (dirs()?, Identities::new(self.passphrase_file));
        identities.ask(&dirs);
        let settings = Settings {
            dirs,
            password,
            most: self.max_connections.into(),
            idle: self.idle.map(Span::duration),
            timeout: self.timeout.duration(),
            is_verbose: self.verbose,
            say,
            identify: Box::new(move |server| identities.of(server)),
        };
        let service = Service::new(settings, &listeners).map_err(Failure::Failed)?;
        let all: Vec<String> = listeners.iter().map(|listener| listener.place().to_string()).collect();
        say(&format!("listening at {}", all.join(", ")));
        service.run(listeners).map_err(|error| Failure::Failed(format!("the proxy ended: {error}")))
    }

    fn password(&self) -> Result<Option<Password>, Failure> {
        let (Some(user), Some(file)) = (&self.user, &self.password_file) else { return Ok(None) };
        let rules = Rules { forbidden: 0o077, mode: 0o600, owners: files::own_owners(), limit: 1024 };
        let text = files::read(file, &rules).map_err(|error| Failure::Broken(vec![error.to_string()]))?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let password = Password::new(user.as_bytes(), line).ok_or_else(|| {
            Failure::Usage(format!(
                "{}: the name and the first line of this file need 1 to 255 bytes each",
                file.display()
            ))
        })?;
        Ok(Some(password))
    }
}

fn say(what: &str) {
    warn(&format!("knockd-rs: {what}"));
}

/// The certificates of servers, each read once, and again when its files have changed.
struct Identities {
    passphrase_file: Option<PathBuf>,
    known: Mutex<Vec<Known>>,
}

struct Known {
    files: OwnCertificate,
    written: Vec<Option<SystemTime>>,
    identity: Arc<Identity>,
}

impl Identities {
    fn new(passphrase_file: Option<PathBuf>) -> Self {
        Self { passphrase_file, known: Mutex::default() }
    }

    /// Opens the keys of all servers, and asks for their passphrases.
    fn ask(&self, dirs: &Dirs) {
        for name in servers(dirs).unwrap_or_default() {
            // What is wrong with a server is told when it is meant.
            let Ok(Server { enrolment, .. }) = Server::load(dirs, &name) else { continue };
            let Some(files) = enrolment.certificate else { continue };
            let passphrase = |of: &Path| {
                passphrase::read(self.passphrase_file.as_deref(), &format!("Passphrase of {}", of.display()))
            };
            if let Err(why) = self.load(&files, &passphrase) {
                say(&format!("{name}: {why}; until that is mended it is not knocked at"));
            }
        }
    }

    /// The certificate for this server. Nobody is asked any more: a new key with a passphrase takes a new start.
    fn of(&self, server: &Server) -> Result<Option<Arc<Identity>>, String> {
        let Some(files) = &server.enrolment.certificate else { return Ok(None) };
        let before = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .iter()
                .find(|known| known.files == *files)
                .map(|known| (known.written.clone(), Arc::clone(&known.identity)))
        };
        match before {
            Some((then, identity)) if then == written(files) => Ok(Some(identity)),
            before => {
                let passphrase = |of: &Path| {
                    passphrase::given(self.passphrase_file.as_deref())?.ok_or_else(|| FileError {
                        path: of.to_owned(),
                        fault: std::io::Error::other(
                            "its passphrase is asked for at the start alone; start the proxy again",
                        )
                        .into(),
                    })
                };
                match (self.load(files, &passphrase), before) {
                    (Ok(identity), _) => Ok(Some(identity)),
                    // Half of it may have been replaced by now.
                    (Err(_), Some((_, identity))) => Ok(Some(identity)),
                    (Err(why), None) => Err(why),
                }
            }
        }
    }

    fn load(
        &self,
        files: &OwnCertificate,
        passphrase: &identity::Passphrase<'_>,
    ) -> Result<Arc<Identity>, String> {
        let written = written(files);
        let identity = identity::load(files, passphrase).map_err(|failure| failure.to_string())?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.files != *files);
        known.push(Known { files: files.clone(), written, identity: Arc::clone(&identity) });
        Ok(identity)
    }
}

fn written(files: &OwnCertificate) -> Vec<Option<SystemTime>> {
    let when = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    match files {
        OwnCertificate::Pem { certificate, key } => vec![when(certificate), when(key)],
        OwnCertificate::Pkcs12(file) => vec![when(file)],
    }
}
