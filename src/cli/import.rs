//! `import`: a server becomes known to this client.

use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::Failure;
use super::bundle::refuse_line;
use super::client::{broken, dirs, read_key};
use super::exit::print;
use super::expiry::refuse_expired;
use super::identity::CertificateFiles;
use crate::client::store::{Dirs, load_server, save_server};
use crate::enrol::{Access, Bundle, Carried, Enrolment, Host, Protected, SCHEME, load_carried, read_carried};
use crate::files::{self, Existing, FileFault};
use crate::passphrase;
use crate::text::ServerName;

/// Learn about a server from the bundle that its administrator made.
///
/// Says what it learned and where it keeps it. A server that is known already is left alone without --force.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs import laptop.knock
  knockd-rs import -                                           paste the bundle's line, or pipe one in
  knockd-rs import laptop.knock --name home --host 203.0.113.5
  knockd-rs import laptop.knock --private-key ~/laptop.key     strict way: the key was made by `keygen`")]
pub(super) struct Import {
    /// The bundle's file; `-` to paste its line, or to read it from standard input.
    file: PathBuf,
    /// What to call the server here.
    #[arg(long)]
    name: Option<ServerName>,
    /// Where to send knocks, in place of what the bundle says.
    #[arg(long)]
    host: Option<Host>,
    /// The private key that `keygen` made, for a bundle that holds none.
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    #[command(flatten)]
    certificate: CertificateFiles,
    /// Replace what is known of a server of this name.
    #[arg(long)]
    force: bool,
    /// Say what would be kept and replaced, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let bundle = match self.carried()? {
            Carried::Open(bundle) => *bundle,
            Carried::Protected(protected) => self.open(&protected)?,
        };
        refuse_expired(&bundle.access, &self.shown())?;
        let own = self.private_key.as_deref().map(read_key).transpose()?;
        let name = self.name.clone().unwrap_or_else(|| bundle.server.clone());
        let mut enrolment: Enrolment =
            bundle.into_enrolment(own).map_err(|error| Failure::Broken(vec![error.to_string()]))?;
        if let Some(host) = self.host.take() {
            enrolment.access.host = host;
        }
        if let Some(files) = self.certificate.named()? {
            self.certificate.load(&files)?;
            enrolment.certificate = Some(files);
        }
        self.keep(&dirs()?, &name, &enrolment)
    }

    fn carried(&self) -> Result<Carried, Failure> {
        refuse_line(&self.file)?;
        if !self.is_pasted() {
            return load_carried(&self.file).map_err(|errors| broken(&errors));
        }
        let bytes = pasted()?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::Broken(vec![format!("{PASTED}: is not UTF-8 text")]))?;
        read_carried(PASTED, text).map_err(|errors| broken(&errors))
    }

    fn is_pasted(&self) -> bool {
        self.file == Path::new("-")
    }

    fn shown(&self) -> String {
        if self.is_pasted() { PASTED.to_owned() } else { self.file.display().to_string() }
    }

    fn open(&mut self, protected: &Protected) -> Result<Bundle, Failure> {
        // A file with a passphrase is the bundle's then; that of a certificate's key is asked for.
        let file = self.certificate.passphrase_file.take();
        let what = format!("Passphrase of {}", self.shown());
        let passphrase = passphrase::read(file.as_deref(), &what)
            .map_err(|error| Failure::Failed(format!("{error}; name a file with --passphrase-file")))?;
        let bundle = protected.open(&passphrase);
        bundle.map_err(|error| Failure::Broken(vec![format!("{}: {error}", self.shown())]))
    }

    /// Tells what is learned and what it replaces, and writes it.
    fn keep(&self, dirs: &Dirs, name: &ServerName, enrolment: &Enrolment) -> Result<(), Failure> {
        let path = dirs.server_file(name);
        let is_known = path.symlink_metadata().is_ok();
        let refused = || {
            Failure::Failed(format!(
                "a server `{name}` is known already; --name gives this one another name, --force replaces that one"
            ))
        };
        if is_known && !self.force && !self.dry_run {
            return Err(refused());
        }
        tell(name, enrolment)?;
        if is_known {
            tell_replaced(dirs, name, enrolment)?;
        }
        if self.dry_run {
            print(&format!("  would be kept in {}; nothing was written", path.display()))?;
            return if is_known && !self.force { Err(refused()) } else { Ok(()) };
        }
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let path = save_server(dirs, name, enrolment, existing).map_err(|error| match error.fault {
            FileFault::Exists => refused(),
            _ => Failure::Failed(error.to_string()),
        })?;
        let bundle = if self.is_pasted() {
            String::new()
        } else {
            format!("; the bundle is not needed any more: rm {}", files::quoted(&self.file))
        };
        print(&format!("  kept in {}{bundle}", path.display()))?;
        print(&format!("next: knockd-rs knock {name}"))
    }
}

/// What stands for the file's name in errors.
const PASTED: &str = "standard input";

/// What is typed or piped in.
fn pasted() -> Result<Zeroizing<Vec<u8>>, Failure> {
    if stdin().is_terminal() {
        let what = format!("Paste the bundle's line, {SCHEME}...; it is not shown");
        return passphrase::paste(&what).map_err(|error| Failure::Failed(error.to_string()));
    }
    // Room for all of it: growing would leave copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    let most = u64::try_from(LIMIT + 1).unwrap_or(u64::MAX);
    stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("{PASTED}: {error}")))?;
    if bytes.len() > LIMIT {
        return Err(Failure::Broken(vec![format!("{PASTED}: is longer than {} KiB", LIMIT / 1024)]));
    }
    Ok(bytes)
}

/// As long as a bundle's file may be.
const LIMIT: usize = 1 << 20;

fn tell(name: &ServerName, enrolment: &Enrolment) -> Result<(), Failure> {
    let Access { open, services, methods, duration, max_duration, expires, .. } = &enrolment.access;
    print(&format!("{name}: {}", summary(enrolment)))?;
    let mut opens: Vec<String> = open.iter().map(ToString::to_string).collect();
    if !services.is_empty() {
        let names: Vec<String> = services.keys().map(ToString::to_string).collect();
        opens.push(format!("({})", names.join(", ")));
    }
    print(&format!("  opens {}", opens.join(" ")))?;
    let methods: Vec<String> = methods.iter().map(ToString::to_string).collect();
    let mut how = format!("  by {}", methods.join(", "));
    duration.iter().for_each(|span| how += &format!("; for {span} unless asked"));
    max_duration.iter().for_each(|span| how += &format!(", {span} at most"));
    expires.iter().for_each(|moment| how += &format!("; until {moment}"));
    print(&how)
}

/// Where, as whom, and by which server key.
fn summary(enrolment: &Enrolment) -> String {
    let Access { host, port, profile, server_key, .. } = &enrolment.access;
    format!("{host}, UDP port {port}, as {profile}, server key {}", server_key.fingerprint())
}

/// What is there already under this name.
fn tell_replaced(dirs: &Dirs, name: &ServerName, enrolment: &Enrolment) -> Result<(), Failure> {
    let old = match load_server(dirs, name) {
        Ok(old) => old,
        Err(errors) => {
            let error = errors.first().map(ToString::to_string).unwrap_or_default();
            return print(&format!("  in place of a file that cannot be used: {error}"));
        }
    };
    print(&format!("  in place of {}", summary(&old)))?;
    let own = |enrolment: &Enrolment| enrolment.key_pair().map(|keys| keys.public());
    if old.access.server_key != enrolment.access.server_key {
        print(
            "  the server key is another one than before: ask the server's administrator, unless you know why",
        )?;
    } else if own(&old) == own(enrolment) {
        print("  server key and own key are the same as before")?;
    } else {
        print("  the server key is the same as before, the own key is another one")?;
    }
    Ok(())
}
