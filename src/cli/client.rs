//! `keygen`, `knock`: the client's side of the command line.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::Failure;
use super::exit::{print, warn};
use super::expiry::patience;
use super::identity::CertificateFiles;
use crate::client::knock::{Knocker, Opened, StillClosed, Way};
use crate::client::sequence::{Style, Tempo};
use crate::client::server::Server;
use crate::client::store::Dirs;
use crate::clock;
use crate::config::ConfigError;
use crate::crypto::{KeyPair, Secret};
use crate::enrol::{Access, Enrolment};
use crate::files::{self, Private};
use crate::grant::{Session, Uses};
use crate::knock::{Ask, MAX_ENTRIES, Method, Op, Target, Wanted, service_tag};
use crate::profile::Opens;
use crate::text::{PortRange, Protocol, ServerName, Span};

/// Knock at a server, so that it opens ports for this address.
///
/// Without ports, everything that the profile opens is asked for. When that is a single TCP port, the port is tried
/// until it opens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs knock myserver                      open what the profile opens
  knockd-rs knock myserver tcp/22 --for 5m      one port, for five minutes
  knockd-rs knock myserver -- ssh myserver      knock, then run a command
  knockd-rs knock myserver --close              end this client's grants now
  knockd-rs knock myserver ssh --syn            by one SYN, where UDP does not get through")]
pub(super) struct Knock {
    /// The server, by the name under which it was imported.
    server: ServerName,
    /// Ports such as tcp/22 or tcp/8000-8100, or services such as ssh.
    #[arg(value_name = "PORT|SERVICE")]
    open: Vec<Opens>,
    /// How long the grant is to last: 30s, 5m, 2h. The server's profile sets the limit.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Span>,
    /// Ask for any number of connections instead of one.
    #[arg(long)]
    many: bool,
    /// Ask for this number of connections.
    #[arg(long, value_name = "NUMBER", conflicts_with = "many")]
    connections: Option<Uses>,
    #[command(flatten)]
    flags: SessionFlags,
    /// Open for the whole network of the address, 24 bits of IPv4 or 64 of IPv6, where the profile allows it.
    #[arg(long)]
    wide: bool,
    /// Open for this address instead of this machine's own.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pin")]
    address: Option<std::net::IpAddr>,
    /// Make the knock good from this machine's own address only; not behind NAT.
    #[arg(long)]
    pin: bool,
    /// Knock by an encoded sequence of ports, where this program can send no datagrams of its own; it looks like a scan.
    #[arg(long, conflicts_with_all = ["syn", "totp"])]
    sequence: bool,
    /// Make the sequence of UDP datagrams instead of TCP connections.
    #[arg(long, requires = "sequence")]
    udp: bool,
    /// Send the sequence without pauses, and three times: against junk that others send in this machine's name.
    #[arg(long, requires = "sequence", conflicts_with = "slow")]
    fast: bool,
    /// Take two minutes for the sequence.
    #[arg(long, requires = "sequence")]
    slow: bool,
    /// End this client's grants instead of opening.
    #[arg(long, conflicts_with_all = ["duration", "many", "connections", "wait", "SessionFlags"])]
    close: bool,
    /// Knock by one TCP SYN instead of a datagram; needs CAP_NET_RAW.
    #[arg(long, conflicts_with_all = ["duration", "many", "connections", "address", "pin", "close", "wide", "SessionFlags"])]
    syn: bool,
    /// Knock by connection attempts at ports that follow from the time; needs no privilege and no UDP.
    #[arg(long, conflicts_with_all = ["syn", "duration", "many", "connections", "address", "pin", "close", "wide", "SessionFlags"])]
    totp: bool,
    /// Try the TCP port until it opens; the default for a single one.
    #[arg(long, conflicts_with_all = ["no_wait", "last_knock"])]
    wait: bool,
    /// Send the knock and do not look for an effect.
    #[arg(long)]
    no_wait: bool,
    /// How long to try.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    certificate: CertificateFiles,
    /// A command to run after the knock.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Knock {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let dirs = dirs()?;
        let server = Server::load(&dirs, &self.server).map_err(|errors| broken(&errors))?;
        self.timeout = patience(server.access(), &self.server, self.timeout);
        let (wanted, ports) = self.wanted(server.access())?;
        let ask = self.ask(wanted);
        let mut knocker =
            Knocker::new(&server, clock::wall).map_err(|error| Failure::Failed(error.to_string()))?;
        knocker.pinned = self.pin;
        knocker.way = self.way(&server.enrolment)?;
        if self.flags.last_knock {
            // One for each family would be one too many.
            knocker.addresses.truncate(1);
        }
        knocker.progress = (!self.quiet && std::io::stderr().is_terminal()).then_some(show_progress);
        let outcome = match self.port_to_try(&ports)? {
            Some(port) => self.knock_and_wait(&mut knocker, &ask, port),
            None => self.knock_only(&mut knocker, &ask),
        };
        if let Some(oddity) = &knocker.oddity {
            warn(&format!("knockd-rs: warning: {oddity}"));
        }
        if knocker.by_hash {
            self.say(
                "the certificate is too large for one datagram, so its SHA-256 went in its place: the server has to \
                 have it among its `leaves`",
            );
        }
        outcome?;
        self.run_command()
    }

    /// How to knock: with the certificate that the command line names, or with the one that was imported; else by key.
    /// The server would ignore a way that the profile does not list.
    fn way(&self, enrolment: &Enrolment) -> Result<Way, Failure> {
        let named = self.certificate.named()?;
        let files = named
            .as_ref()
            .or(enrolment.certificate.as_ref())
            .filter(|_| !self.syn && !self.totp && !self.sequence);
        if let Some(files) = files {
            return Ok(Way::Cert(self.certificate.load(files)?));
        }
        if enrolment.private_key.is_none() {
            return Err(Failure::Usage(format!(
                "{} wants a certificate; name it with --cert FILE --key FILE, or --pkcs12 FILE",
                self.server
            )));
        }
        let (way, method) = match (self.syn, self.totp, self.sequence) {
            (true, ..) => (Way::Syn, Method::Syn),
            (_, true, _) => (Way::Totp, Method::Totp),
            (.., true) => (Way::Sequence(self.style()), Method::Sequence),
            _ => (Way::Spa, Method::Spa),
        };
        may_use(&enrolment.access, &self.server, method)?;
        Ok(way)
    }

    fn wanted(&self, access: &Access) -> Result<(Wanted, Vec<PortRange>), Failure> {
        wanted(&self.open, &self.server, access)
    }

    fn style(&self) -> Style {
        let tempo = match (self.fast, self.slow) {
            (true, _) => Tempo::Fast,
            (_, true) => Tempo::Slow,
            _ => Tempo::Usual,
        };
        Style { carrier: if self.udp { Protocol::Udp } else { Protocol::Tcp }, tempo }
    }

    fn ask(&self, ports: Wanted) -> Ask {
        Ask {
            op: if self.close { Op::Close } else { Op::Open },
            target: self.address.map_or(Target::Source, Target::Address),
            // SYNs and totp cannot ask for one connection, and get what the profile gives.
            uses: uses(self.connections, self.many || self.syn || self.totp),
            session: self.flags.session(),
            wide: self.wide,
            duration: self.duration,
            ports,
        }
    }

    /// The TCP port whose opening can be seen from here.
    fn port_to_try(&self, ports: &[PortRange]) -> Result<Option<u16>, Failure> {
        // A try would use the last knock up.
        if self.close || self.no_wait || self.flags.last_knock || (self.address.is_some() && !self.wait) {
            return Ok(None);
        }
        let tcp: Vec<u16> = ports
            .iter()
            .filter(|range| range.protocol() == Protocol::Tcp && range.is_single())
            .map(PortRange::first)
            .collect();
        match (tcp.as_slice(), ports.len(), self.wait) {
            ([port], 1, _) | ([port, ..], _, true) => Ok(Some(*port)),
            ([], _, true) => {
                Err(Failure::Usage("--wait tries a TCP port, and none is asked for; leave it out".into()))
            }
            _ => Ok(None),
        }
    }

    fn knock_only(&self, knocker: &mut Knocker<'_>, ask: &Ask) -> Result<(), Failure> {
        knocker.knock(ask).map_err(|error| Failure::Failed(error.to_string()))?;
        self.say(&format!("knocked at {} ({})", self.server, self.addresses(knocker)));
        Ok(())
    }

    fn knock_and_wait(&self, knocker: &mut Knocker<'_>, ask: &Ask, port: u16) -> Result<(), Failure> {
        self.say(&format!(
            "knocking at {} ({}), {}",
            self.server,
            self.addresses(knocker),
            self.where_to(knocker)
        ));
        let waited = knocker
            .knock_and_wait(ask, port, self.timeout.duration())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        match waited {
            Ok(Opened { address, after }) => {
                let millis = after.as_secs_f64() * 1000.0;
                self.say(&format!("tcp/{port} at {} opened after {millis:.1} ms", address.ip()));
                Ok(())
            }
            Err(StillClosed { refused }) => {
                Err(Failure::StillClosed(self.what_to_check(knocker, port, refused)))
            }
        }
    }

    fn what_to_check(&self, knocker: &Knocker<'_>, port: u16, refused: bool) -> String {
        let answer = if refused {
            "the host refused the connection: either nothing listens there, or the port is guarded with reject"
        } else {
            "there was no answer at all"
        };
        let way = if self.totp {
            "a firewall on the way that lets SYNs through to some ports alone, or a service on one of the ports"
                .to_owned()
        } else if self.syn {
            "a firewall on the way that rewrites sequence numbers or takes timestamps out of TCP; spa does not mind"
                .to_owned()
        } else {
            format!("a firewall on the way that drops {}", self.where_to(knocker))
        };
        let clock = if self.syn || self.totp { "half a minute" } else { "minutes" };
        format!(
            "tcp/{port} at {} did not open within {}; {answer}. What to check:\n  \
             on the server, `knockd-rs status` and `journalctl -u knockd-rs`: a knock that arrived and was refused is \
             named there with its reason\n  \
             on the server, `knockd-rs profile show {}`: one that was removed, disabled or has expired opens nothing\n  \
             {way}\n  \
             this machine's clock, which says {} seconds since 1970: it must be within {clock} of the server's\n  \
             NAT that sends knock and connection from different addresses\n\
             `knockd-rs doctor {0} --knock` looks at what can be seen from here",
            self.server,
            self.timeout,
            knocker.server().access().profile,
            clock::wall().as_secs(),
        )
    }

    fn addresses(&self, knocker: &Knocker<'_>) -> String {
        knocker.addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn where_to(&self, knocker: &Knocker<'_>) -> String {
        let port = knocker.addresses.first().map_or(0, std::net::SocketAddr::port);
        match &knocker.way {
            Way::Spa | Way::Cert(_) => format!("UDP port {port}"),
            Way::Syn => format!("TCP port {port}"),
            Way::Totp => "TCP ports by the time".to_owned(),
            Way::Sequence(Style { carrier, .. }) => {
                let name = if *carrier == Protocol::Tcp { "TCP" } else { "UDP" };
                format!("{name} ports {} to {}", knocker.ground.base, knocker.ground.last())
            }
        }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            warn(line);
        }
    }

    fn run_command(&self) -> Result<(), Failure> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let error = Command::new(program).args(arguments).exec();
        Err(Failure::Failed(format!("{program} cannot be run: {error}")))
    }
}

/// What is to hold for the grant's connections, and afterwards.
#[derive(Debug, Args)]
pub(super) struct SessionFlags {
    /// Let one connection in at a time.
    #[arg(long)]
    one_at_a_time: bool,
    /// Cut the connections when the grant ends.
    #[arg(long)]
    end_with_grant: bool,
    /// Lock this address out for a while after the grant, as long as the profile says.
    #[arg(long)]
    lock_out: bool,
    /// Make this the last knock, until the server's administrator allows another.
    #[arg(long)]
    last_knock: bool,
}

impl SessionFlags {
    pub(super) fn session(&self) -> Session {
        Session {
            alone: self.one_at_a_time,
            last: self.last_knock,
            lock_out: self.lock_out,
            ends: self.end_with_grant,
        }
    }
}

/// How many connections to ask for; `None` for what the profile gives.
pub(super) fn uses(connections: Option<Uses>, many: bool) -> Option<Uses> {
    match connections {
        None if many => None,
        None => Some(Uses::Once),
        Some(Uses::Many) => None,
        some => some,
    }
}

/// What goes into a knock, and the ports that this means.
pub(super) fn wanted(
    open: &[Opens],
    server: &ServerName,
    access: &Access,
) -> Result<(Wanted, Vec<PortRange>), Failure> {
    let ports_of = |opens: &Opens| match opens {
        Opens::Ports(range) => Ok(vec![*range]),
        Opens::Service(name) => access.services.get(name).cloned().ok_or_else(|| {
            let known: Vec<String> = access.services.keys().map(ToString::to_string).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failure::Usage(format!("{} opens no service {name} for this client; it knows: {known}", server))
        }),
    };
    let lists: Result<Vec<Vec<PortRange>>, Failure> = open.iter().map(ports_of).collect();
    let ports = lists?.concat();
    match open {
        [] => Ok((Wanted::Defaults, access.open.clone())),
        [Opens::Service(name)] => Ok((Wanted::Service(service_tag(name.as_str())), ports)),
        _ if ports.len() > MAX_ENTRIES => Err(Failure::Usage(format!(
            "one knock can name {MAX_ENTRIES} port ranges, and these are {}; knock twice",
            ports.len()
        ))),
        _ => Ok((Wanted::Ports(ports.clone()), ports)),
    }
}

/// Whether the server listens to this client's knocks of this kind, as far as the bundle said.
pub(super) fn may_use(access: &Access, server: &ServerName, method: Method) -> Result<(), Failure> {
    if access.methods.contains(&method) {
        return Ok(());
    }
    let listed: Vec<String> = access.methods.iter().map(ToString::to_string).collect();
    Err(Failure::Usage(format!(
        "{server} does not take knocks by {method} from this client, only by {}; the profile's `methods` on the server \
         say which, and `methods` in {server}.toml what this client knows of it",
        listed.join(", "),
    )))
}

/// One line, written over and over, and wiped at the end.
fn show_progress(done: usize, all: usize) {
    let line = if done < all { format!("\rknock {done} of {all}") } else { "\r\x1b[K".to_owned() };
    // A terminal that is gone is no reason to stop knocking.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Make a key pair on the client, so that the private key never leaves it.
///
/// Prints the public key, for `knockd-rs profile add NAME --public-key KEY` on the server.
#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// Where to write the private key.
    #[arg(long, value_name = "FILE", default_value = "knockd-rs.key")]
    out: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|_| Failure::Failed("the kernel gives no random numbers".into()))?;
        let keys = KeyPair::from_seed(*seed);
        let mut line = keys.secret().to_base64();
        line.push('\n');
        files::write(&self.out, line.as_bytes(), Private::NEW)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        print(&keys.public().to_string())?;
        warn(&format!(
            "the private key is in {}; keep it for `knockd-rs import --private-key`",
            self.out.display()
        ));
        Ok(())
    }
}

pub(super) fn read_key(path: &std::path::Path) -> Result<Secret<32>, Failure> {
    let rules = files::Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: 4096 };
    let text = files::read_text(path, &rules).map_err(|error| Failure::Broken(vec![error.to_string()]))?;
    Secret::from_base64(text.trim()).map_err(|error| {
        Failure::Broken(vec![format!("{}: {error}; `knockd-rs keygen` makes one", path.display())])
    })
}

pub(super) fn dirs() -> Result<Dirs, Failure> {
    Dirs::from_env(|name| std::env::var_os(name))
        .ok_or_else(|| Failure::Failed("HOME is not set, so there is no place for keys; set it".into()))
}

pub(super) fn broken(errors: &[ConfigError]) -> Failure {
    Failure::Broken(errors.iter().map(ToString::to_string).collect())
}
