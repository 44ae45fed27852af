//! `certificates`: what a server hands to clients that knock with certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use super::daemon::Places;
use super::exit::print;
use super::profile::{host_or_own, load, server_or};
use crate::config::CertificateRule;
use crate::enrol::{Access, Bundle, Host, save_bundle};
use crate::text::{ProfileName, ServerName};

/// Knocks with certificates.
#[derive(Debug, Subcommand)]
pub(super) enum Certificates {
    Bundle(MakeBundle),
}

/// Make a bundle for everybody whose certificate is one of a [[certificates]] table.
///
/// It holds no secret but the gate key, and is the same for all of them: server key, gate key, host, ports and
/// services. Who has no certificate cannot use it to knock.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs certificates bundle staff --host vpn.example.org --out staff.knock
  client: knockd-rs import staff.knock --cert alice.pem --key alice.key
  client: knockd-rs import staff.knock --pkcs12 alice.p12")]
pub(super) struct MakeBundle {
    /// The name of the table.
    name: ProfileName,
    /// Where clients send their knocks; this machine's name by default.
    #[arg(long)]
    host: Option<Host>,
    /// What clients call this server; its host by default.
    #[arg(long)]
    server: Option<ServerName>,
    /// Where to write the bundle; NAME.knock by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

impl Certificates {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Bundle(args) => args.run(),
        }
    }
}

impl MakeBundle {
    fn run(self) -> Result<(), Failure> {
        let config = load(&self.places)?;
        let named = |rule: &&CertificateRule| rule.profile.name == self.name;
        let rule = config.certificates.rules.iter().find(named).ok_or_else(|| {
            Failure::Failed(format!(
                "there is no [[certificates]] table with name = \"{}\" in knockd-rs.toml",
                self.name
            ))
        })?;
        let host = host_or_own(self.host.as_ref())?;
        let server = server_or(self.server.as_ref(), &host)?;
        let services =
            rule.profile.services.values().map(|service| (service.name.clone(), service.ports.clone()));
        let access = Access {
            host,
            port: config.settings.capture.port,
            profile: self.name.clone(),
            server_key: config.server.public(),
            gate_key: config.gate.clone(),
            psk: None,
            open: rule.profile.open.clone(),
            services: services.collect(),
            methods: rule.profile.methods.clone(),
            totp_ports: rule.profile.totp_ports,
            sequence: config.settings.sequence.clone(),
            duration: Some(rule.profile.duration),
            max_duration: Some(rule.profile.max_duration),
            expires: None,
        };
        let out = self.out.unwrap_or_else(|| format!("{}.knock", self.name).into());
        save_bundle(&out, &Bundle { server, access, private_key: None })
            .map_err(|error| Failure::Failed(error.to_string()))?;
        print(&format!("made {} for certificates of {}", out.display(), self.name))?;
        print(&format!("next: on each client `knockd-rs import {} --cert FILE --key FILE`", out.display()))
    }
}
