//! `import-config`: what another program's configuration says, as profiles; never over what is there.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::daemon::{Places, init};
use super::exit::print;
use super::profile::{bundle_of, host_or_own, load, random, server_or};
use super::reloading::Reloading;
use crate::config::Configuration;
use crate::crypto::KeyPair;
use crate::enrol::{Host, save_bundle};
use crate::files::{self, Rules};
use crate::grant::Uses;
use crate::migrate::{Client, Kind, Left, MAX_TEXT};
use crate::profile::{
    NewPlain, NewProfile, Opens, StoreError, refused_profile, remove_profile, write_plain, write_profile,
};
use crate::text::ServerName;

/// Make profiles of what knockd.conf or fwknop's access.conf says.
///
/// Sequences of knockd become profiles by the method "plain"; clients of fwknop get new keys, and a bundle each. What
/// cannot be carried over is listed with the reason. Nothing that is there is overwritten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs import-config --dry-run /etc/knockd.conf
  knockd-rs import-config /etc/knockd.conf /etc/fwknop/access.conf --host vpn.example.org")]
pub(super) struct ImportConfig {
    /// The files; what kind each one is shows by what is in it.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write nothing: show what would be made and what is left.
    #[arg(long)]
    dry_run: bool,
    /// The name or address that clients send knocks to; this machine's name otherwise.
    #[arg(long)]
    host: Option<Host>,
    /// What clients call this server; the host otherwise.
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// Where to write the bundles, each as NAME.knock; the current directory otherwise.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    reloading: Reloading,
}

impl ImportConfig {
    pub(super) fn run(self) -> Result<(), Failure> {
        let texts = self.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        if !self.dry_run {
            init(&self.places)?;
        }
        let config = if self.dry_run { load(&self.places).ok() } else { Some(load(&self.places)?) };
        let mut made = 0;
        for (file, (kind, text)) in self.files.iter().zip(texts) {
            let import = kind.read(&text);
            let count = import.clients.len();
            let clients = if count == 1 { "client" } else { "clients" };
            print(&format!("{}: of {}, {count} {clients} to carry over", file.display(), kind.name()))?;
            let mut left = import.left;
            for client in &import.clients {
                match self.carry_over(client, config.as_ref())? {
                    Ok(()) => made += 1,
                    Err(why) => {
                        left.push(Left { line: client.line, what: format!("{}: {why}", client.title) })
                    }
                }
            }
            left.sort();
            if !left.is_empty() {
                print("not carried over:")?;
            }
            left.iter().try_for_each(|left| print(&format!("  {}:{left}", file.display())))?;
        }
        match (made, self.dry_run) {
            (0, _) => Err(Failure::Failed(
                "no client was carried over; add them by hand: knockd-rs profile add".into(),
            )),
            (_, true) => print("nothing was written"),
            (_, false) => self.reloading.reload(&self.places).say("the daemon knows them: they may knock"),
        }
    }

    /// Writes the profile, and the bundle where there are keys, and says so; or why it cannot be.
    fn carry_over(
        &self,
        client: &Client,
        config: Option<&Configuration>,
    ) -> Result<Result<(), String>, Failure> {
        let done = match &client.sequence {
            Some(_) => self.make_plain(client, config),
            None => self.make_keys(client, config)?,
        };
        let Err(error) = done else {
            let verb = if self.dry_run { "would make" } else { "made" };
            return print(&format!("{verb} {}", told(client))).map(Ok);
        };
        Ok(Err(error))
    }

    fn make_plain(&self, client: &Client, config: Option<&Configuration>) -> Result<(), String> {
        let Some(sequence) = &client.sequence else { return Ok(()) };
        let new = NewPlain {
            ports: sequence.ports.clone(),
            open: client.open.iter().copied().map(Opens::Ports).collect(),
            duration: Some(client.duration),
            connections: Uses::Many,
            times: (Some(sequence.total), Some(sequence.total)),
            expires: client.expires,
        };
        let dir = &self.places.config_dir;
        if let Some(error) =
            refused_profile(dir, &client.name, &new.to_toml(&client.name), config.map(|c| &c.settings))
        {
            return Err(said(&error));
        }
        if let (false, Some(config)) = (self.dry_run, config) {
            write_plain(dir, &client.name, &new, &config.settings).map_err(|error| said(&error))?;
            return self.keep_if_sound(client);
        }
        Ok(())
    }

    fn make_keys(
        &self,
        client: &Client,
        config: Option<&Configuration>,
    ) -> Result<Result<(), String>, Failure> {
        let host = host_or_own(self.host.as_ref())?;
        let server = server_or(self.server.as_ref(), &host)?;
        let (own, psk) = (KeyPair::from_seed(*random()?.expose()), random()?);
        let new = NewProfile {
            public_key: own.public(),
            psk: Some(psk.clone()),
            open: client.open.iter().copied().map(Opens::Ports).collect(),
            duration: Some(client.duration),
            max_duration: Some(client.max_duration),
            connections: Uses::Many,
            other_addresses: Vec::new(),
            methods: Vec::new(),
            expires: client.expires,
        };
        let out = self.out.join(format!("{}.knock", client.name));
        if out.symlink_metadata().is_ok() {
            return Ok(Err(format!("{} is there already; use another directory with --out", out.display())));
        }
        let dir = &self.places.config_dir;
        let text = new.to_toml(&client.name);
        if let Some(error) = refused_profile(dir, &client.name, &text, config.map(|config| &config.settings))
        {
            return Ok(Err(said(&error)));
        }
        let (false, Some(config)) = (self.dry_run, config) else { return Ok(Ok(())) };
        if let Err(error) = write_profile(dir, &client.name, &new, &config.settings) {
            return Ok(Err(said(&error)));
        }
        if let Err(why) = self.keep_if_sound(client) {
            return Ok(Err(why));
        }
        let bundled = bundle_of(&self.places, &client.name, server, host, Some(&own)).and_then(|bundle| {
            save_bundle(&out, &bundle).map_err(|error| Failure::Failed(error.to_string()))
        });
        if bundled.is_err() {
            // Without its bundle the client can never knock, and the name would be taken.
            let _ = remove_profile(dir, &client.name);
        }
        bundled.map(Ok)
    }

    /// Takes a profile away again that clashes with others: a daemon would refuse all of them for it.
    fn keep_if_sound(&self, client: &Client) -> Result<(), String> {
        match load(&self.places) {
            Ok(_) => Ok(()),
            Err(failure) => {
                let _ = remove_profile(&self.places.config_dir, &client.name);
                Err(failure.lines().join("; "))
            }
        }
    }
}

/// What a client comes to, in one line.
fn told(client: &Client) -> String {
    let join = |ports: &[crate::text::PortRange]| {
        ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let Client { title, name, open, duration, expires, sequence, .. } = client;
    let end = expires.map_or_else(String::new, |end| format!(" until {end}"));
    let how = match sequence {
        Some(sequence) => format!(
            "by {}; whoever sees that once can open it from then on",
            sequence.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        ),
        None => format!("by new keys, in {name}.knock"),
    };
    format!("the profile {name} of {title}: {} for {duration}{end}, {how}", join(open))
}

fn said(error: &StoreError) -> String {
    error.to_string().lines().collect::<Vec<_>>().join("; ")
}

fn read(file: &Path) -> Result<(Kind, zeroize::Zeroizing<String>), Failure> {
    let rules = Rules { forbidden: 0, mode: 0o644, owners: Vec::new(), limit: MAX_TEXT };
    let text = files::read_text(file, &rules).map_err(|error| Failure::Failed(error.to_string()))?;
    let kind = Kind::of(&text).ok_or_else(|| {
        let what = "is neither a configuration of knockd, with [sections], nor an access.conf of fwknop, with SOURCE lines";
        Failure::Failed(format!("{} {what}", file.display()))
    })?;
    Ok((kind, text))
}
