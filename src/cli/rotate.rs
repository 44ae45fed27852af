//! `profile rotate`: new keys for a client, and a time in which the old ones are good as well.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::bundle::{Forms, Protect, carry};
use super::daemon::Places;
use super::expiry::{after, now};
use super::profile::{access, find, hand_over, host_or_own, load, place, random, server_or};
use super::reloading::Reloading;
use crate::crypto::{KeyPair, PublicKey};
use crate::enrol::{Bundle, Host};
use crate::profile::{NewKeys, rotate_profile};
use crate::text::{ProfileName, ServerName, Span};

/// Give a client new keys: a new bundle, and a time in which the old keys are good as well.
///
/// The profile's file keeps everything else that is written in it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs profile rotate laptop                  the old keys are good for seven more days
  knockd-rs profile rotate laptop --overlap 0s     the old keys are refused from now on")]
pub(super) struct Rotate {
    /// Which.
    name: ProfileName,
    /// How long the old keys are good beside the new ones.
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    overlap: Span,
    /// The client's new public key, made there by `knockd-rs keygen`.
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// The name or address that the client sends knocks to; this machine's name otherwise.
    #[arg(long)]
    host: Option<Host>,
    /// What the client calls this server; the host otherwise.
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
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

impl Rotate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.places)?;
        let profile = find(&config, &self.name)?;
        let out = place(self.out.clone(), &self.forms, &self.name)?;
        let passphrase = self.protect.read()?;
        let own =
            if self.public_key.is_none() { Some(KeyPair::from_seed(*random()?.expose())) } else { None };
        let Some(public_key) = self.public_key.or(own.as_ref().map(KeyPair::public)) else {
            return Err(Failure::Failed("there is no key".into()));
        };
        let host = host_or_own(self.host.as_ref())?;
        let server = server_or(self.server.as_ref(), &host)?;
        let psk = if profile.has_psk() { Some(random()?) } else { None };
        let (now, until) = (now(), after(self.overlap));
        let keys = NewKeys { public_key, psk: psk.clone(), until };
        let is_strict = own.is_none();
        let private_key = own.map(|keys| keys.secret().clone());
        let bundle = Bundle { server, access: access(&config, profile, host, psk), private_key };
        let carried = carry(bundle, passphrase)?;
        // The bundle first: whatever happens between the two, nobody is left without keys that the server knows.
        hand_over(&self.forms, out.as_deref(), &carried)?;
        let rotated = rotate_profile(&self.places.config_dir, &self.name, &keys, now);
        let path = rotated.map_err(|error| {
            let _ = out.as_ref().map(std::fs::remove_file);
            Failure::Failed(error.to_string())
        })?;
        self.tell(&path, out.as_deref(), is_strict, &until.to_string())
    }

    fn tell(&self, path: &Path, out: Option<&Path>, is_strict: bool, until: &str) -> Result<(), Failure> {
        let name = &self.name;
        let say = |line: &str| self.forms.say(line);
        say(&format!("changed {}: new keys, and the old ones in [[previous]]", path.display()))?;
        let own = if is_strict { " --private-key FILE" } else { "" };
        let file = out.map_or_else(|| "-".to_owned(), |out| out.display().to_string());
        say(&format!("next: on the client `knockd-rs import {file}{own} --force`"))?;
        let in_force = match self.overlap.as_secs() {
            0 => format!(
                "the daemon takes the new keys and refuses the old ones; what they opened is open until its time is over, or \
                 until: knockd-rs revoke {name}"
            ),
            _ => format!("the daemon takes the new keys, and the old ones until {until}"),
        };
        self.reloading.reload(&self.places).say_by(&in_force, say)
    }
}
