//! `ca`: a small certificate authority, for those who have none.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use super::exit::{print, warn};
use crate::ca::{self, Allow, Authority, CaError, DEFAULT_LIST, Entry, Issued, REASONS, Reason, State, Wish};
use crate::clock;
use crate::files::{self, Existing, FileError, FileFault, Private, Rules};
use crate::text::Span;
use crate::time::Timestamp;
use crate::x509::request::Request;

/// Where Debian's daemon would look for an authority of its own.
const DIR: &str = "/etc/knockd-rs/ca";
/// What fits a knock beside a request and the longest signature of its kind.
const FITS: usize = 900;

/// A small certificate authority: certificates for clients that knock with them, and the list of revoked ones.
///
/// For those who have none. Keys are made by the clients; the authority signs, and knows what it has signed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs ca init --name \"Example knock CA\"            on the machine that is to be the authority
  knockd-rs ca request --name alice --out alice          on the client: alice.key and alice.csr
  knockd-rs ca sign-csr alice.csr --name alice --open tcp/22 --max 1h --out alice.pem
  knockd-rs ca revoke alice --reason key-compromise
  knockd-rs ca crl                                       a new list, before the old one is over
  knockd-rs ca list")]
pub(super) struct Ca {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Request(MakeRequest),
    SignCsr(SignCsr),
    Issue(Issue),
    Revoke(Revoke),
    Crl(List),
    List(Show),
}

impl Ca {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Init(command) => command.run(),
            Command::Request(command) => command.run(),
            Command::SignCsr(command) => command.run(),
            Command::Issue(command) => command.run(),
            Command::Revoke(command) => command.run(),
            Command::Crl(command) => command.run(),
            Command::List(command) => command.run(),
        }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// The authority's directory.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
}

/// Make an authority: key, certificate, and an empty revocation list.
#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    place: Place,
    /// What it is called; stands in every certificate as the issuer.
    #[arg(long)]
    name: String,
    /// How many days its certificate is valid.
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

impl Init {
    fn run(self) -> Result<(), Failure> {
        let authority =
            Authority::init(&self.place.dir, &self.name, self.days, clock::wall()).map_err(failed)?;
        let places = authority.places();
        print(&format!("made the authority {} in {}", self.name, self.place.dir.display()))?;
        print("next: in knockd-rs.toml on the server, with copies of these two files,")?;
        print(&format!("  [certificate_authority]\n  ca = [\"{}\"]", places.certificate.display()))?;
        print(&format!("  crl = [\"{}\"]", places.list.display()))?;
        print("and a [[certificates]] table that says what certificates open; see knockd-rs.toml(5)")
    }
}

/// Make a key and a request for a certificate; for the client's own machine.
#[derive(Debug, Args)]
struct MakeRequest {
    /// The name to ask for; the authority decides.
    #[arg(long)]
    name: String,
    /// Where to write: OUT.key and OUT.csr.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
}

impl MakeRequest {
    fn run(self) -> Result<(), Failure> {
        let (key, request) = ca::request(&self.name).map_err(failed)?;
        let (key_file, request_file) = (ending(&self.out, "key"), ending(&self.out, "csr"));
        files::write(&key_file, key.as_bytes(), Private::NEW).map_err(file)?;
        write_public(&request_file, &request, Existing::Replace)?;
        print(&format!("made {}, which stays here, and {}", key_file.display(), request_file.display()))?;
        print(&format!(
            "next: at the authority `knockd-rs ca sign-csr {} --name {} --open tcp/22`",
            request_file.display(),
            files::quoted(Path::new(&self.name))
        ))
    }
}

/// What goes into a certificate.
#[derive(Debug, Args)]
struct Wanted {
    /// Whose it is.
    #[arg(long)]
    name: String,
    /// What its owner may open: tcp/22, tcp/8000-8010, or a service. Again for more; none leaves it to the server.
    #[arg(long, value_name = "PORT|SERVICE")]
    open: Vec<Allow>,
    /// The longest grant that it may be used for.
    #[arg(long, value_name = "DURATION", requires = "open")]
    max: Option<Span>,
    /// How many days it is valid.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl Wanted {
    fn wish(self) -> Wish {
        let max = self.max;
        let allow = self.open.into_iter().map(|allow| Allow { max, ..allow }).collect();
        Wish { name: self.name, allow, days: self.days }
    }
}

/// Certify the key of a request. Nothing else is taken from the request.
#[derive(Debug, Args)]
struct SignCsr {
    /// The request, PEM or DER.
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// Where to write the certificate; standard output otherwise.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

impl SignCsr {
    fn run(self) -> Result<(), Failure> {
        let rules = Rules { forbidden: 0, mode: 0o644, owners: Vec::new(), limit: 64 << 10 };
        let bytes = files::read(&self.file, &rules).map_err(file)?;
        let request = Request::read(&bytes)
            .map_err(|what| Failure::Broken(vec![format!("{}: {what}", self.file.display())]))?;
        let mut authority = Authority::open(&self.place.dir).map_err(failed)?;
        let issued = authority.certify(&request, &self.wanted.wish(), clock::wall()).map_err(failed)?;
        match &self.out {
            Some(out) => {
                write_public(out, &issued.pem, Existing::Refuse)?;
                print(&format!("made {}", out.display()))?;
            }
            None => print(issued.pem.trim_end())?,
        }
        told(&issued);
        Ok(())
    }
}

/// Make a key and its certificate in one go: the authority sees the key then.
#[derive(Debug, Args)]
struct Issue {
    #[command(flatten)]
    wanted: Wanted,
    /// Where to write: OUT.key and OUT.pem.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Issue {
    fn run(self) -> Result<(), Failure> {
        let mut authority = Authority::open(&self.place.dir).map_err(failed)?;
        let (key, request) = ca::request(&self.wanted.name).map_err(failed)?;
        let request = Request::read(request.as_bytes())
            .map_err(|what| Failure::Failed(format!("the request {what}")))?;
        let (key_file, certificate_file) = (ending(&self.out, "key"), ending(&self.out, "pem"));
        files::write(&key_file, key.as_bytes(), Private::NEW).map_err(file)?;
        let issued = authority.certify(&request, &self.wanted.wish(), clock::wall()).map_err(failed)?;
        write_public(&certificate_file, &issued.pem, Existing::Refuse)?;
        print(&format!(
            "made {} and {}; move them to the client, do not copy them",
            key_file.display(),
            certificate_file.display()
        ))?;
        told(&issued);
        Ok(())
    }
}

fn told(issued: &Issued) {
    let Issued { len, entry: Entry { serial, name, allows, until, .. }, .. } = issued;
    let allows = if allows.is_empty() { "what the server's tables say".to_owned() } else { allows.join(" ") };
    warn(&format!("{name}: serial {serial}, until {}, for {allows}; {len} bytes", day(*until)));
    if *len > FITS {
        warn(&format!(
            "it is too large for one datagram: put a copy into the server's directory of certificates (`leaves` in {})",
            "[certificate_authority]"
        ));
    }
}

/// Revoke a certificate, and write a new revocation list.
#[derive(Debug, Args)]
struct Revoke {
    /// The serial number, or the name: then every certificate of that name.
    which: String,
    /// Why: unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation.
    #[arg(long, default_value = REASONS[0].0)]
    reason: Reason,
    /// How long the new list is good.
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_LIST)]
    valid: Span,
    #[command(flatten)]
    place: Place,
}

impl Revoke {
    fn run(self) -> Result<(), Failure> {
        let mut authority = Authority::open(&self.place.dir).map_err(failed)?;
        let revoked =
            authority.revoke(&self.which, self.reason, self.valid, clock::wall()).map_err(failed)?;
        for Entry { name, serial, .. } in revoked {
            print(&format!("revoked {name}, serial {serial}"))?;
        }
        print(&format!(
            "the new list is {}; it counts where the daemon reads it",
            authority.places().list.display()
        ))
    }
}

/// Write a new revocation list, before the old one is over.
#[derive(Debug, Args)]
struct List {
    /// How long it is good.
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_LIST)]
    valid: Span,
    #[command(flatten)]
    place: Place,
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let mut authority = Authority::open(&self.place.dir).map_err(failed)?;
        let number = authority.write_list(self.valid, clock::wall()).map_err(failed)?;
        let list = authority.places().list;
        print(&format!("wrote {}, number {number}, good for {}", list.display(), self.valid))
    }
}

/// Show what was issued.
#[derive(Debug, Args)]
struct Show {
    /// For machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let authority = Authority::open(&self.place.dir).map_err(failed)?;
        let now = clock::wall();
        if self.json {
            let entries: Vec<_> = authority.entries().iter().map(|entry| json(entry, now)).collect();
            return print(&serde_json::Value::from(entries).to_string());
        }
        if authority.entries().is_empty() {
            return print("no certificate yet; `knockd-rs ca sign-csr` makes one from a client's request");
        }
        print(&format!("{:<20} {:<32} {:<10} {:<8} ALLOWS", "NAME", "SERIAL", "UNTIL", "STATE"))?;
        for entry in authority.entries() {
            let state = match entry.state(now) {
                State::Valid => "valid",
                State::Expired => "expired",
                State::Revoked => "revoked",
            };
            let allows = if entry.allows.is_empty() { "by table".to_owned() } else { entry.allows.join(" ") };
            print(&format!(
                "{:<20} {:<32} {:<10} {state:<8} {allows}",
                entry.name,
                entry.serial,
                day(entry.until)
            ))?;
        }
        Ok(())
    }
}

fn json(entry: &Entry, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "name": entry.name, "serial": entry.serial, "issued": entry.issued, "until": entry.until,
        "state": entry.state(now), "allows": entry.allows,
        "revoked": entry.revoked.map(|(at, reason)| serde_json::json!({ "at": at, "reason": reason })),
    })
}

/// The day in UTC, as 2026-11-21.
fn day(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "?".into(), |time| time.date().to_string())
}

fn ending(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn write_public(path: &Path, text: &str, existing: Existing) -> Result<(), Failure> {
    files::write(path, text.as_bytes(), Private { mode: 0o644, existing, ..Private::NEW }).map_err(file)
}

fn file(error: FileError) -> Failure {
    match error.fault {
        FileFault::Denied => Failure::NotPermitted(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    }
}

fn failed(error: CaError) -> Failure {
    match error {
        CaError::File(error) if error.is_missing() => Failure::Failed(format!(
            "{}: there is no authority here; `knockd-rs ca init` makes one, --dir names another place",
            error.path.display()
        )),
        CaError::File(error) => file(error),
        CaError::Wish(_) => Failure::Usage(error.to_string()),
        CaError::Damaged(_) | CaError::Index(..) | CaError::OtherKey => {
            Failure::Broken(vec![error.to_string()])
        }
        other => Failure::Failed(other.to_string()),
    }
}
