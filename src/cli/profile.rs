//! `profile add | list | show | rotate | remove`: the clients of this server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use super::bundle::{Forms, Protect, carry};
use super::daemon::{Places, init};
use super::exit::{print, warn};
use super::expiry::{Expiry, now};
use super::reloading::{Reloading, Told};
use super::rotate::Rotate;
use crate::config::{self, Configuration};
use crate::crypto::{KeyPair, PublicKey, Secret};
use crate::enrol::{Access, Bundle, Carried, Host, save_carried};
use crate::grant::Uses;
use crate::profile::{Method, NewPlain, NewProfile, Opens, remove_profile, write_plain, write_profile};
use crate::text::{Network, PortRange, ProfileName, ServerName, Span};

/// The clients that may knock at this server.
#[derive(Debug, Subcommand)]
pub(super) enum Profile {
    Add(Box<Add>),
    List(List),
    Show(Show),
    Rotate(Box<Rotate>),
    Remove(Remove),
}

impl Profile {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Add(args) => args.run(),
            Self::List(args) => args.run(),
            Self::Show(args) => args.run(),
            Self::Rotate(args) => args.run(),
            Self::Remove(args) => args.run(),
        }
    }
}

/// Make a profile, and the bundle that its client imports.
///
/// Without --public-key the server makes the client's key pair and puts both halves into the bundle, which is
/// secret then. With it the bundle holds no private key; see `knockd-rs keygen`.
///
/// With --qr, --uri or --png the bundle is shown in that form, and in no file unless --out names one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs profile add laptop --open tcp/22
  knockd-rs profile add phone --open ssh --open udp/51820 --host vpn.example.org --many
  knockd-rs profile add tablet --open tcp/443 --qr --passphrase
  ssh root@server knockd-rs profile add laptop --open tcp/22 --uri | knockd-rs import -
  knockd-rs profile add alice --open tcp/22 --public-key kzHlnvzm4iFRnA8ol8mM6ZW4WYVZ7aTPoM7CYzyD+kM=")]
pub(super) struct Add {
    /// The client's name: a-z, 0-9, `.`, `_`, `-`.
    name: ProfileName,
    /// What it may open: tcp/22, tcp/8000-8100, or a service of knockd-rs.toml. Again for more.
    #[arg(long, required = true, value_name = "PORT|SERVICE")]
    open: Vec<Opens>,
    /// The client's public key, made there by `knockd-rs keygen`.
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// The name or address that the client sends knocks to; this machine's name otherwise.
    #[arg(long)]
    host: Option<Host>,
    /// What the client calls this server; the host otherwise.
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// How long a grant lasts when the knock does not say.
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,
    /// How long a grant may last at most.
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<Span>,
    /// Let the client ask for any number of connections instead of one.
    #[arg(long)]
    many: bool,
    /// Let the client open for addresses in this network besides its own. Again for more.
    #[arg(long, value_name = "NETWORK")]
    other_address: Vec<Network>,
    /// How the client may knock: spa (the default), syn. Again for more.
    #[arg(long, value_name = "METHOD")]
    method: Vec<Method>,
    /// Until when it may knock: 2027-01-31, 2027-01-31T12:00:00Z, or for how long from now: 90d.
    #[arg(long, value_name = "DATE|DURATION")]
    expires: Option<Expiry>,
    /// Leave out the pre-shared key, the hedge against quantum computers.
    #[arg(long)]
    no_psk: bool,
    /// Knock by this fixed sequence alone, such as tcp/7000,udp/8000,tcp/6000: replayable, without keys or bundle.
    #[arg(long, value_name = "PORTS", value_delimiter = ',',
          conflicts_with_all = ["public_key", "host", "server", "max_duration", "other_address", "no_psk", "method", "out", "Forms", "Protect"])]
    plain: Vec<PortRange>,
    /// Where to write the bundle; NAME.knock otherwise, unless it is shown in another form.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    forms: Forms,
    #[command(flatten)]
    protect: Protect,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    reloading: Reloading,
}

impl Add {
    fn run(self) -> Result<(), Failure> {
        init(&self.places)?;
        let config = load(&self.places)?;
        if !self.plain.is_empty() {
            return self.add_plain(&config);
        }
        let out = place(self.out.clone(), &self.forms, &self.name)?;
        let own =
            if self.public_key.is_none() { Some(KeyPair::from_seed(*random()?.expose())) } else { None };
        let Some(public_key) = self.public_key.or(own.as_ref().map(KeyPair::public)) else {
            return Err(Failure::Failed("there is no key".into()));
        };
        let host = host_or_own(self.host.as_ref())?;
        let server = server_or(self.server.as_ref(), &host)?;
        let passphrase = self.protect.read()?;
        let profile = NewProfile {
            public_key,
            psk: if self.no_psk { None } else { Some(random()?) },
            open: self.open.clone(),
            duration: self.duration,
            max_duration: self.max_duration,
            connections: if self.many { Uses::Many } else { Uses::Once },
            other_addresses: self.other_address.clone(),
            methods: self.method.clone(),
            expires: self.expires.map(|expiry| expiry.0),
        };
        let path = write_profile(&self.places.config_dir, &self.name, &profile, &config.settings)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let handed = bundle_of(&self.places, &self.name, server, host, own.as_ref())
            .and_then(|bundle| carry(bundle, passphrase))
            .and_then(|carried| hand_over(&self.forms, out.as_deref(), &carried));
        if let Err(failure) = handed {
            // Without its bundle the client can never knock, and the name would be taken.
            let _ = remove_profile(&self.places.config_dir, &self.name);
            return Err(failure);
        }
        self.tell(&path, out.as_deref(), own.is_some())
    }

    fn tell(&self, path: &Path, out: Option<&Path>, secret: bool) -> Result<(), Failure> {
        self.forms.say(&format!("made {}", path.display()))?;
        match out {
            Some(out) if secret => self.forms.say(&format!(
                "made {} for {}; it holds the client's private key: move it, do not copy it",
                out.display(),
                self.name
            ))?,
            Some(out) => self.forms.say(&format!("made {} for {}", out.display(), self.name))?,
            None if secret => {
                self.forms.say("what is shown holds the client's private key: let nobody else see it")?
            }
            None => {}
        }
        let told = self.reloading.reload(&self.places);
        told.say_by("the daemon knows it: the client may knock", |line| self.forms.say(line))?;
        self.forms.say(&format!("next: on the client {}", self.forms.next(out)))
    }

    /// A profile without keys, whose client has nothing to import.
    fn add_plain(&self, config: &Configuration) -> Result<(), Failure> {
        let profile = NewPlain {
            ports: self.plain.clone(),
            open: self.open.clone(),
            duration: self.duration,
            connections: if self.many { Uses::Many } else { Uses::Once },
            times: (None, None),
            expires: self.expires.map(|expiry| expiry.0),
        };
        let path = write_plain(&self.places.config_dir, &self.name, &profile, &config.settings)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        print(&format!(
            "made {}; whoever sees its sequence once can open these ports from then on",
            path.display()
        ))?;
        let ports: Vec<String> =
            self.plain.iter().map(|port| format!("{}:{}", port.first(), port.protocol())).collect();
        self.reloading.reload(&self.places).say("the daemon knows it: the client may knock")?;
        print(&format!("next: on the client `knock SERVER {}`", ports.join(" ")))
    }
}

/// The file that a bundle is written to, if it is to be in one; nothing may be in the way of it or of its picture.
pub(super) fn place(
    out: Option<PathBuf>,
    forms: &Forms,
    name: &ProfileName,
) -> Result<Option<PathBuf>, Failure> {
    forms.check()?;
    match out {
        None if forms.is_any() => Ok(None),
        other => free(other, name).map(Some),
    }
}

/// Writes the bundle and shows it, as far as either is wanted.
pub(super) fn hand_over(forms: &Forms, out: Option<&Path>, carried: &Carried) -> Result<(), Failure> {
    if let Some(out) = out {
        save_carried(out, carried).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    forms.hand_over(carried).inspect_err(|_| {
        // A bundle of a profile that is taken back opens nothing.
        let _ = out.map(std::fs::remove_file);
    })
}

/// A profile's bundle, from the profile as it reads back: services resolved, ports merged. Without the client's own key
/// it is the strict one, which is all that the server can give later.
pub(super) fn bundle_of(
    places: &Places,
    name: &ProfileName,
    server: ServerName,
    host: Host,
    own: Option<&KeyPair>,
) -> Result<Bundle, Failure> {
    let config = load(places)?;
    let profile = find(&config, name)?;
    if profile.public_key.is_none() {
        return Err(Failure::Failed(format!("{name} knocks without keys, so there is no bundle for it")));
    }
    let psk = profile.has_psk().then(|| profile.psk.clone());
    let access = access(&config, profile, host, psk);
    Ok(Bundle { server, access, private_key: own.map(|keys| keys.secret().clone()) })
}

/// List the profiles.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    places: Places,
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let config = load(&self.places)?;
        if config.profiles.is_empty() {
            print("no profile yet; `knockd-rs profile add NAME --open tcp/22` makes one")?;
        }
        for profile in &config.profiles {
            let off = match profile.expires {
                _ if !profile.enabled => "  (disabled)".to_owned(),
                Some(expires) if expires <= now() => format!("  (expired {expires})"),
                Some(expires) => format!("  (until {expires})"),
                None => String::new(),
            };
            let opens: Vec<String> = profile.opens.iter().map(ToString::to_string).collect();
            print(&format!("{:<16} {}  {}{off}", profile.name, profile.fingerprint(), opens.join(" ")))?;
        }
        Ok(())
    }
}

/// Show what a profile allows, or its bundle.
///
/// With --qr, --uri or --png it is the bundle that is shown, without the private key, which the server has not: the
/// client adds its own by `import --private-key`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Which.
    name: ProfileName,
    #[command(flatten)]
    forms: Forms,
    #[command(flatten)]
    protect: Protect,
    /// The name or address in the bundle that the client sends knocks to; this machine's name otherwise.
    #[arg(long, requires = "Forms")]
    host: Option<Host>,
    /// What the client calls this server, in the bundle; the host otherwise.
    #[arg(long, value_name = "NAME", requires = "Forms")]
    server: Option<ServerName>,
    #[command(flatten)]
    places: Places,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        if self.forms.is_any() {
            return self.bundle();
        }
        let config = load(&self.places)?;
        let profile = find(&config, &self.name)?;
        let join = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(" ") };
        let texts = |items: &[PortRange]| items.iter().map(ToString::to_string).collect();
        print(&format!("name             {}", profile.name))?;
        print(&format!("enabled          {}", if profile.enabled { "yes" } else { "no" }))?;
        let key = profile.public_key.map_or_else(|| "none".to_owned(), |key| key.to_string());
        print(&format!("public key       {key}"))?;
        print(&format!("fingerprint      {}", profile.fingerprint()))?;
        print(&format!(
            "methods          {}",
            join(profile.methods.iter().map(ToString::to_string).collect())
        ))?;
        if let Some(plain) = &profile.plain {
            print(&format!("sequence         {}", join(texts(&plain.ports))))?;
        }
        print(&format!("pre-shared key   {}", if profile.has_psk() { "yes" } else { "no" }))?;
        print(&format!(
            "opens            {}",
            join(profile.opens.iter().map(ToString::to_string).collect())
        ))?;
        print(&format!("ports            {}", join(texts(&profile.open))))?;
        print(&format!(
            "duration         {} unless asked, {} at most",
            profile.duration, profile.max_duration
        ))?;
        print(&format!("connections      {}", profile.connections))?;
        print(&format!(
            "other addresses  {}",
            join(profile.other_addresses.iter().map(ToString::to_string).collect())
        ))?;
        print(&format!("grants           {} addresses at a time", profile.max_grants))?;
        let over = if profile.is_over(now()) { ", which is over" } else { "" };
        let expires = profile.expires.map(|expires| format!("{expires}{over}"));
        print(&format!("expires          {}", expires.unwrap_or_else(|| "never".to_owned())))?;
        for keys in &profile.previous {
            let over = if keys.until <= now() { "refused since" } else { "good until" };
            print(&format!("older key        {} {over} {}", keys.public_key.fingerprint(), keys.until))?;
        }
        Ok(())
    }
}

impl Show {
    fn bundle(&self) -> Result<(), Failure> {
        self.forms.check()?;
        let host = host_or_own(self.host.as_ref())?;
        let server = server_or(self.server.as_ref(), &host)?;
        let bundle = bundle_of(&self.places, &self.name, server, host, None)?;
        self.forms.hand_over(&carry(bundle, self.protect.read()?)?)
    }
}

/// Remove a profile. A running daemon refuses its knocks and has ended its grants when this returns.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Which.
    name: ProfileName,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    reloading: Reloading,
}

impl Remove {
    fn run(self) -> Result<(), Failure> {
        let path = remove_profile(&self.places.config_dir, &self.name)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        print(&format!("removed {}", path.display()))?;
        match self.reloading.forget(&self.places, &self.name) {
            Told::Done(lines) => lines.iter().try_for_each(|line| print(line)),
            Told::Nobody(why) => {
                warn(&format!("knockd-rs: {why}"));
                warn(GRANTS_GO_ON);
                Ok(())
            }
            Told::Not(failure) => {
                warn(GRANTS_GO_ON);
                Err(failure)
            }
        }
    }
}

const GRANTS_GO_ON: &str =
    "knockd-rs: its live grants go on until a daemon that runs is told, or their time is over";

/// Where clients send their knocks: this machine's own name unless another is given.
pub(super) fn host_or_own(host: Option<&Host>) -> Result<Host, Failure> {
    match host {
        Some(host) => Ok(host.clone()),
        None => hostname().parse().map_err(|error| {
            Failure::Usage(format!("this machine's own name will not do: {error}; use --host"))
        }),
    }
}

/// What clients call the server: as its host unless another name is given.
pub(super) fn server_or(server: Option<&ServerName>, host: &Host) -> Result<ServerName, Failure> {
    match server {
        Some(server) => Ok(server.clone()),
        None => host.as_str().to_lowercase().parse().map_err(|error| {
            Failure::Usage(format!("the host cannot name the server on the client: {error}; use --server"))
        }),
    }
}

pub(super) fn load(places: &Places) -> Result<Configuration, Failure> {
    config::load(&places.config_dir)
        .map_err(|errors| Failure::Broken(errors.iter().map(ToString::to_string).collect()))
}

pub(super) fn find<'a>(
    config: &'a Configuration,
    name: &ProfileName,
) -> Result<&'a crate::profile::Profile, Failure> {
    config
        .profiles
        .iter()
        .find(|profile| profile.name == *name)
        .ok_or_else(|| Failure::Failed(format!("there is no profile `{name}`; see `knockd-rs profile list`")))
}

/// Where the bundle goes; never over another file.
pub(super) fn free(out: Option<PathBuf>, name: &ProfileName) -> Result<PathBuf, Failure> {
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{name}.knock")));
    match out.symlink_metadata() {
        Ok(_) => {
            let line = format!("{} is there already; choose another name with --out", out.display());
            Err(Failure::Failed(line))
        }
        Err(_) => Ok(out),
    }
}

/// What a profile's client has to know, with its own shared secret.
pub(super) fn access(
    config: &Configuration,
    profile: &crate::profile::Profile,
    host: Host,
    psk: Option<Secret<32>>,
) -> Access {
    let services = profile.services.values().map(|service| (service.name.clone(), service.ports.clone()));
    Access {
        host,
        port: config.settings.capture.port,
        profile: profile.name.clone(),
        server_key: config.server.public(),
        gate_key: config.gate.clone(),
        psk,
        open: profile.open.clone(),
        services: services.collect(),
        methods: profile.methods.clone(),
        totp_ports: profile.totp_ports,
        sequence: config.settings.sequence.clone(),
        duration: Some(profile.duration),
        max_duration: Some(profile.max_duration),
        expires: profile.expires,
    }
}

pub(super) fn random() -> Result<Secret<32>, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Failure::Failed("the kernel gives no random numbers".into()))?;
    Ok(Secret::new(bytes))
}

/// This machine's name, `uname(2)`.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
